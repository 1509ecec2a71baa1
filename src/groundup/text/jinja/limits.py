"""What rendering may cost: steps of work and room for what is made, counted as it goes.

In: values. Out: nothing, or DataError once a limit is passed. A step costs about 2 microseconds, so that a template
without end is stopped within a second or two; long conversations get more of both.
"""

from collections.abc import Collection, Mapping
from typing import Any

from groundup.errors import DataError

STEPS = 300_000
ROOM = 8_000_000  # characters, all that are made on the way counted
ITEM = 16  # characters that a place in a list counts for
CHEAP = 100  # characters that are handled within one step
DEEPEST = 100  # lists within lists
CALLS = 24  # macros within macros
BITS = 4096  # of a whole number
FIX = "a template from elsewhere may be broken or hostile: use the one published with the model"


class Meter:
    """A budget for one rendering of `given` characters of messages.

    >>> Meter(0).make(10**9)
    Traceback (most recent call last):
        ...
    groundup.errors.DataError: the chat template makes more than 8,000,000 characters
      -> a template from elsewhere may be broken or hostile: use the one published with the model
    """

    def __init__(self, given: int) -> None:
        self.most, self.room = STEPS + given // 2, ROOM + 40 * given
        self.steps = self.made = 0

    def step(self, count: int = 1) -> None:
        """Count work."""
        self.steps += count
        if self.steps > self.most:
            raise DataError(f"the chat template did not finish after {self.most:,} steps", FIX)

    def make(self, characters: int) -> None:
        """Count what is about to be made, and the work of making it; call it before memory is taken."""
        self.made += characters
        if self.made > self.room:
            raise DataError(f"the chat template makes more than {self.room:,} characters", FIX)
        self.step(characters // CHEAP)

    def pay(self, *values: Any) -> int:
        """Count the work of going through values once, all that lies inside them included; returns their size.

        A list inside a list counts each time that it is met: doubling one forty times is not free.
        """
        total, todo = 0, [(value, 0) for value in values]
        while todo:
            value, depth = todo.pop()
            if depth > DEEPEST:  # Python's own comparing and hashing of such a value could overflow the stack
                raise DataError(f"the chat template builds lists more than {DEEPEST} deep", FIX)
            if isinstance(value, str):
                total += len(value)
                self.step(len(value) // CHEAP)
            elif isinstance(value, Collection):  # ranges and the keys of a dict too: looking in them is a walk
                total += ITEM * len(value)
                self.step(len(value))
                parts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
                todo += [] if isinstance(value, range) else [(part, depth + 1) for part in parts]
            else:
                total += ITEM
        return total

    def number(self, value: Any) -> Any:
        """A number that may go on being used: whole ones stay below 4,096 bits."""
        if isinstance(value, int) and value.bit_length() > BITS:
            raise DataError(f"the chat template computes a number of more than {BITS:,} bits", FIX)
        return value
