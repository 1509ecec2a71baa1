"""What an answer is worth: rewards by name, by path, with weights, added up, and each of them looked at by itself.

In: words such as "exact", "regex:PATTERN", "0.1*length:20", "my_reward.py:polite", a folder of `groundup reward`. Out:
`Rewards`, a function from answers to numbers. Whatever a part gives is checked, one number for each answer, before
anything is learnt from it: a reward that is NaN once can ruin every weight.
"""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from groundup.errors import DataError, SettingsError, nearest
from groundup.machine import Machine
from groundup.rollouts import checkable, scripted
from groundup.rollouts.prompts import Answer, Prompt, RewardFunction

WEIGHTED = re.compile(r"(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\*(?P<rest>.+)", re.DOTALL)
NAMES = ("exact", "contains", "regex:PATTERN", "length:TOKENS", "harbor", "FILE.py:FUNCTION")


@dataclass(frozen=True)
class Part:
    """One reward: its name in the journal, what it counts, the function, and what an error calls it.

    needs_reference: it compares with the answer that is known to be right.
    """

    name: str
    function: RewardFunction
    described: str
    weight: float = 1.0
    needs_reference: bool = False


@dataclass(frozen=True)
class Scored:
    """What answers came to: `total`, the weighted sum for each, and of each part its own numbers, unweighted."""

    total: list[float]
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class Rewards:
    """Several rewards as one: answers in, the weighted sum of all parts for each of them out.

    >>> rewards = parse(["exact", "0.5*length:2"])
    >>> rewards([Answer(Prompt((), "Mira"), "Mira", [5, 6, 7], True)])  # right, but 3 tokens instead of 2
    [1.25]
    """

    parts: tuple[Part, ...]

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        return self.apart(answers).total

    def apart(self, answers: Sequence[Answer]) -> Scored:
        """The sum, and every part by itself; raises DataError for a part that raises or gives what is no number."""
        given = [_checked(part, answers, part.function(answers)) for part in self.parts]
        weighted = [[part.weight * value for value in values] for part, values in zip(self.parts, given, strict=True)]
        total = [math.fsum(values) for values in zip(*weighted, strict=True)]
        return Scored(total, {part.name: values for part, values in zip(self.parts, given, strict=True)})

    def check(self, prompts: Iterable[Prompt]) -> None:
        """Raise DataError where a part compares with a right answer that a prompt does not have."""
        needing = next((part for part in self.parts if part.needs_reference), None)
        if needing is None:
            return
        for prompt in prompts:
            checkable.reference_of(prompt, needing.described)

    def words(self) -> str:
        """The sum as a formula.

        >>> parse(["exact", "-0.5*length:2"]).words()
        'exact - 0.5 * length:2'
        """
        told = ""
        for part in self.parts:
            size = "" if abs(part.weight) == 1 else f"{abs(part.weight):g} * "
            sign = " - " if part.weight < 0 else " + "
            told += (sign if told else "-" if part.weight < 0 else "") + size + part.described
        return told


def parse(specs: Sequence[str], *, machine: Machine | None = None, batch: int = 16) -> Rewards:
    """Rewards from the words of `--reward`; several are added up.

    A word is one of `NAMES` or the folder of a reward model, and may have a weight in front: "0.1*length:20".
    `machine` and `batch`: where and how many answers at a time a reward model reads; by default wherever it can.

    Raises SettingsError for a word that means nothing, a file without the function, a weight that is 0 or no number;
    CheckpointError and ModelError for a folder that holds no reward model.

    >>> [part.name for part in parse(["exact", "regex:^A", "regex:e$"]).parts]
    ['exact', 'regex', 'regex2']
    """
    if not specs:
        raise SettingsError("no reward was given", f"choose one or more of: {', '.join(NAMES)}, a reward model")
    found = dict[str, Part]()
    for spec in specs:
        weight, rest = _weighted(spec)
        part = _part(rest, machine, batch)
        name = _unused(part.name, found)
        found[name] = replace(part, name=name, weight=weight)
    return Rewards(tuple(found.values()))


def _unused(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it where there is one of that name: a function may be called regex2 itself."""
    names = (name if number == 1 else f"{name}{number}" for number in itertools.count(1))
    return next(each for each in names if each not in taken)


def _weighted(spec: str) -> tuple[float, str]:
    """The weight in front of a reward, 1 where there is none, and the rest.

    >>> _weighted("-.5*length:3"), _weighted("regex:2*3")
    ((-0.5, 'length:3'), (1.0, 'regex:2*3'))
    """
    found = WEIGHTED.fullmatch(spec)
    if found is None:
        return 1.0, spec
    weight = float(found["weight"])
    if not math.isfinite(weight) or weight == 0:
        raise SettingsError(
            f"the reward {spec!r} would count {weight:g} times", "give a weight that is a number, not 0"
        )
    return weight, found["rest"]


def _part(spec: str, machine: Machine | None, batch: int) -> Part:
    """One reward without its weight."""
    name, _, argument = spec.partition(":")
    plain: dict[str, tuple[RewardFunction, bool]] = {
        "exact": (checkable.exact, True),
        "contains": (checkable.contains, True),
        "harbor": (checkable.harbor, False),
    }
    built: dict[str, Callable[[str], RewardFunction]] = {"regex": checkable.matching, "length": checkable.length}
    if spec in plain:
        function, needs = plain[spec]
        return Part(spec, function, spec, needs_reference=needs)
    if name in built:
        return Part(name, built[name](argument), spec)
    if ".py:" in spec:
        script = scripted.load(spec)
        return Part(script.name, script, script.described)
    if spec.endswith(".py"):
        raise SettingsError(f"the reward {spec!r} names no function", f"write which: {spec}:FUNCTION")
    if os.path.exists(spec):
        return _model(spec, machine, batch)
    raise SettingsError(
        f"there is no reward {spec!r}, and no folder of that name",
        nearest(name, [*plain, *built]) + "; or FILE.py:FUNCTION, or the run of a groundup reward",
    )


def _model(spec: str, machine: Machine | None, batch: int) -> Part:
    from groundup.rollouts import scored  # opens models: only where one is named

    return Part("model", scored.load(spec, machine=machine, batch=batch), f"the reward model {spec}")


def _checked(part: Part, answers: Sequence[Answer], given: Any) -> list[float]:
    """What a part gave as one finite number for each answer; raises DataError where it is not."""
    advice = "return one number for each response, in their order"
    if isinstance(given, Mapping | Set):  # a mapping would be taken by its keys, a set in any order
        raise DataError(f"the reward {part.described} gave a {type(given).__name__}, not a list of numbers", advice)
    try:
        values = list(given)
    except TypeError:
        raise DataError(f"the reward {part.described} gave {_shown(given)}, not a list of numbers", advice) from None
    except Exception as error:  # an object of one's own may fail in any way
        raise DataError(
            f"the reward {part.described} gave a {type(given).__name__} that cannot be read: "
            f"{type(error).__name__}: {error}",
            advice,
        ) from error
    if len(values) != len(answers):
        raise DataError(
            f"the reward {part.described} gave {len(values):,} numbers for {len(answers):,} answers", advice
        )
    return [_number(part, answer, value) for answer, value in zip(answers, values, strict=True)]


def _number(part: Part, answer: Answer, value: Any) -> float:
    """One number; text that spells one is none, as somebody forgot to convert it."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except Exception:  # a tensor of several numbers, say; an object of one's own may fail in any way
        number = math.nan
    if math.isfinite(number):
        return number
    raise DataError(
        f"the reward {part.described} gave {_shown(value)} for the answer to {answer.prompt.place}",
        f"the answer was {answer.text[:80]!r}: return a finite number for every one, 0 where there is nothing to say",
    )


def _shown(value: Any) -> str:
    """A value as an error shows it: not the whole of a large one."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write out a number of thousands of digits
        return "a number too long to be written out"
    except Exception:
        return f"a {type(value).__name__} that cannot be written out"
    return text if len(text) <= 60 else f"{text[:60]}…"
