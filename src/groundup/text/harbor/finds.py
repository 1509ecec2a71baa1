"""A small event in the harbour town: somebody finds a thing, and everybody else has a part in what comes of it.

In: a triple (finder, thing, place where it was found) and a random stream. Out: `tell`, the event in five sentences and
what each role stands for; `FAMILIES`, the questions that can be asked about it, each by role.

Every name, thing and place has a part that the words beside it tell: the keeper keeps, the witness saw, the price was
paid. So whoever is to answer has to find the sentence and copy one word of it. Three names, two things and two places
stand in each scene, and the sentences behind the first come in any order: the kind of word that is asked for never
gives the answer away.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from groundup.text.harbor import world
from groundup.text.harbor.plots.plot import T, pick

# {N} finds {O} at {P}; it goes to {Q}; {B} keeps it and {X} is the price; {C} sees it. "It" would be ambiguous in
# sentences that change places, so they say "the find" or name the thing. Thing and place of the beginning are named
# again now and then: else the last of a scene would too often be what is asked for.
FOUND = (
    "{N} found the {O} {at P}.",
    "{At P} {N} found the {O}.",
    "The {O} lay {at P}, and {N} found it.",
    "{N} found the {O} {at P} by sitting on it.",
)
CARRIED = (
    "The find was carried to {Q}.",
    "{N} carried the find to {Q}.",
    "By noon the find had been carried to {Q}.",
    "Six crabs carried the {O} to {Q}.",
)
KEPT = (
    "{B} keeps the find now.",
    "These days {B} keeps the {O}.",
    "{B} keeps the {O} now and will not say why.",
)
SEEN = (
    "{At P} {C} saw it all.",
    "{C} saw it all {at P}.",
    "{C} saw it all {at P} and told the whole town.",
)
PAID = (
    "The find was paid for with {a X}.",
    "{B} paid for the find with {a X}.",
    "{N} was paid with {a X} and bit it.",
)

# family -> question, answer, and the letter whose value is asked for. Each answer first says again what it is about, in
# the words of the scene: what follows can then be found by the words just said.
FAMILIES = {
    "who found it": ("Who found the {O}?", "{N} found it.", "N"),
    "what was found": ("What did {N} find?", "{N} found the {O}.", "O"),
    "where was it found": ("Where was the {O} found?", "It was found {at P}.", "P"),
    "where was it carried": ("Where was the {O} carried?", "It was carried to {Q}.", "Q"),
    "who keeps it": ("Who keeps the {O} now?", "{B} keeps it.", "B"),
    "who saw it": ("Who saw it all?", "{C} saw it all.", "C"),
    "what was paid": ("What was paid for the {O}?", "It was paid for with {a X}.", "X"),
}
SLOT = re.compile(r"\{(?:(at|At|a) )?([A-Z])\}")


@dataclass(frozen=True)
class Find:
    """An event: its `text`, and the value of every letter, such as {"N": "Mira", "O": "rope", "P": "pier", ...}."""

    text: str
    roles: Mapping[str, str]

    @property
    def triple(self) -> tuple[str, str, str]:
        """Finder, thing and the place where it was found: what training and testing must not share."""
        return self.roles["N"], self.roles["O"], self.roles["P"]


def tell(rng: Random, triple: tuple[str, str, str]) -> Find:
    """The event of a triple: all other parts drawn, no value twice; the finding first, the rest in any order.

    >>> print(tell(Random(3), ("Mira", "rope", "pier")).text)
    On the pier Mira found the rope. On the pier Lars saw it all. The find was carried to the beach. Mira was paid with
    a bucket and bit it. Nell keeps the find now.
    """
    name, thing, place = triple
    keeper, witness, *_ = _others(rng, [each.name for each in world.PEOPLE], name)
    price = _others(rng, list(world.groups()["thing"]), thing)[0]  # a treasure: nobody pays with a puppy
    carried = _others(rng, list(world.PLACES), place)[0]
    roles = {"N": name, "O": thing, "P": place, "Q": carried, "B": keeper, "C": witness, "X": price}
    rest = [pick(rng, each) for each in (CARRIED, KEPT, SEEN, PAID)]
    said = [pick(rng, FOUND), *shuffled(rng, rest)]
    return Find(" ".join(fill(pattern, roles) for pattern in said), roles)


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """A pattern with its slots filled.

    >>> fill("{At P} {N} found the {O}.", {"N": "Mira", "O": "rope", "P": "pier"})
    'On the pier Mira found the rope.'
    """
    return SLOT.sub(lambda found: world.surface(values[found[2]], found[1] or ""), pattern)


def shuffled(rng: Random, values: list[T]) -> list[T]:
    """The values in any order; built on `random()` alone, as `pick` is, so that the order is the same in every Python.

    >>> sorted(shuffled(Random(1), [1, 2, 3]))
    [1, 2, 3]
    """
    left = list(values)
    return [left.pop(int(rng.random() * len(left))) for _ in values]


def _others(rng: Random, values: list[str], taken: str) -> list[str]:
    """The values besides the one that is taken, in any order."""
    return shuffled(rng, [value for value in values if value != taken])
