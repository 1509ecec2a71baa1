"""What a plot is: roles to draw, acts to use, and a script that puts the acts in order.

In: three short texts per plot. Out: `Plot`, with `cast` (draw the roles) and `steps` (draw one way through the script).

Roles, drawn in order: `A B:sailor P:home.A O:owns.B` draws a person, a different one who sails, the place where A lives
and the thing that B owns.
Script: names of acts in order; `name?` is left out half of the time, `(a b | c | )` takes one way at random, `/` begins
a paragraph, `visit[B=C P=Q]` plays an act with C in the part of B and Q in the part of P. Only the writer knows the
scripts: the checker holds a story against what its acts need.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import TypeVar

from groundup.text.harbor import world
from groundup.text.harbor.sentences import Act

Step = tuple[str, tuple[tuple[str, str], ...]]  # an act (or "/") and who plays whose part in it


T = TypeVar("T")


def pick(rng: Random, choices: Sequence[T]) -> T:
    """One of `choices`; built on `random()`, the one method whose stream Python promises never to change."""
    return choices[int(rng.random() * len(choices))]


@dataclass(frozen=True, eq=False)
class Plot:
    """A kind of story."""

    name: str
    roles: str
    script: str
    acts: tuple[Act, ...]

    def cast(self, rng: Random) -> dict[str, str]:
        """Draw a value for every role; no value is drawn twice."""
        binding: dict[str, str] = {}
        for role in self.roles.split():
            letter, relation, other = re.fullmatch(r"(\w):?(\w*)\.?(\w*)", role).groups()  # type: ignore[union-attr]
            choices = related(relation, binding[other]) if other else world.groups()[relation or world.KINDS[letter]]
            binding[letter] = pick(rng, [value for value in choices if value not in binding.values()])
        return binding

    @cached_property
    def tree(self) -> list:
        """The script, parsed."""
        return parse(re.findall(r"[()|/]|[\w?]+(?:\[.*?\])?", self.script))

    def steps(self, rng: Random) -> list[Step]:
        """Draw one way through the script."""
        return list(walk(self.tree, rng))


@cache
def related(relation: str, value: str) -> tuple[str, ...]:
    """What is related to a value in the standing facts.

    >>> related("home", "Mira"), related("owns", "Odo")
    (('bakery',), ('lantern',))
    """
    return tuple(sorted(fact[2] for fact in world.standing_facts() if fact[:2] == (relation, value)))


def parse(tokens: list[str]) -> list:
    """A list of alternatives, each a list of steps and of such lists; takes the tokens up to the closing bracket."""
    ways: list = [[]]
    while tokens:
        token = tokens.pop(0)
        if token == "(":
            ways[-1].append(parse(tokens))
        elif token == "|":
            ways.append([])
        elif token == ")":
            break
        else:
            ways[-1].append(step(token))
    return ways


def step(token: str) -> list | Step:
    """One act of the script; `name?` is a choice between the act and nothing."""
    name, _, parts = token.rstrip("]").partition("[")
    played: Step = (name.rstrip("?"), tuple((p[0], p[2]) for p in parts.split()))
    return [[played], []] if name.endswith("?") else played


def walk(ways: list, rng: Random) -> Iterator[Step]:
    """Take one alternative, and so on inside."""
    for each in pick(rng, ways):
        if isinstance(each, list):
            yield from walk(each, rng)
        else:
            yield each
