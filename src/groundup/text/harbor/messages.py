"""Notes that neighbours leave at the town hall, each for one of five desks: the built-in data for classification.

In: a seed. Out: `rows`, texts with their labels. Most notes can be told by their words, though many also mention what
another desk looks after. In one of five the same words go to different desks in different order ("the boat can wait,
but the soup cannot"), so a count of words must guess there, and a reader need not.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import count as numbers
from random import Random

from groundup.text.harbor import world
from groundup.text.harbor.plots.plot import pick

ORDERED = 0.2  # share of the notes where only the order of the words tells
ASIDE = 0.6  # share of the others that mention what another desk looks after

# {A} a neighbour, {B} a boat, {O} a thing, {N} a pet, {F} food, {P} the place, {at P} at the place
WANTED = {
    "boats": (
        "The {B} has a hole again, and water comes in when {A} sneezes.",
        "Who moors the {B} on the wrong side of the pier every evening?",
        "Could somebody scrape the hull of the {B} before Sunday?",
        "I would like to row across to {P}, but both oars are broken.",
        "The anchor of the {B} does not hold {at P}.",
        "{A} wants to know what it costs to paint the {B} green.",
    ),
    "food": (
        "The {F} {at P} was too salty, and I have told {A} so.",
        "Please keep two slices of {F} for {A}.",
        "How long does {A} bake the {F}, and how hot?",
        "We have run out of {F}, and {A} is hungry.",
        "The soup {at P} was cold yesterday.",
        "Whoever cooks for the feast should know that {A} eats no {F}.",
    ),
    "letters": (
        "A parcel for {A} was brought to my house by mistake.",
        "How many stamps does a postcard to {P} need?",
        "I have waited three weeks for an answer from {A}.",
        "The envelope that {A} sent me was empty.",
        "Please do not fold what {A} writes to me.",
        "Somebody has put a herring into the letter box {at P}.",
    ),
    "lost and found": (
        "I cannot find my {O}, and I have looked twice {at P}.",
        "Has anybody seen my {N}? It was last seen {at P}.",
        "Somebody has left {a O} {at P}, and it is not mine.",
        "My {O} is gone since I met {A}.",
        "{A} found {a N} {at P}, and nobody knows whose it is.",
        "Yesterday I still had my {O}.",
    ),
    "weather": (
        "Will the fog {at P} be gone tomorrow?",
        "How strong will the wind be when {A} hangs out the washing?",
        "It has rained on {A} for nine days, and I wish to complain.",
        "Is there going to be snow {at P} this week?",
        "{A} says that a storm is coming, and I want to be sure.",
        "When will the sun shine {at P} again?",
    ),
}

# What a note says by the way: the words of a desk without its business.
ASIDES = {
    "boats": ("I write this on board of the {B}.", "{A} is out with the {B}, or I would have asked there."),
    "food": ("I was eating {F} at the time.", "You will get {a F} for your trouble."),
    "letters": ("I hope that this letter finds you well.", "Pim the postman told me to write."),
    "lost and found": ("I have lost my glasses, so forgive the spelling.", "Keep my {O} as a deposit."),
    "weather": ("It is raining as I write.", "I would come myself, but for the wind."),
}

# {X} is what the note is about, {Y} what it is not about. With X and Y exchanged, the same words go to the other desk.
ORDER = (
    ("The {Y} can wait, but the {X} cannot.", "The {X} cannot wait, but the {Y} can."),
    ("This is about the {X}, not about the {Y}.", "This is not about the {Y}, but about the {X}."),
    ("First the {X}, please, and then the {Y}.", "Please see to the {X} first, and to the {Y} when there is time."),
    ("I asked about the {Y} before, and now I ask about the {X}.", "Forget the {Y}, and think of the {X}."),
)
TOPICS = {
    "boats": ("boat", "{B}", "anchor", "oars", "hull"),
    "food": ("soup", "{F}", "feast", "bread"),
    "letters": ("parcel", "postcard", "stamps", "envelope"),
    "lost and found": ("lost {O}", "lost {N}", "thing that I left {at P}"),
    "weather": ("fog", "storm", "wind", "snow", "rain"),
}
GREETINGS = ("", "", "Good morning.", "Dear town hall:", "Hello.", "To whom it may concern:")
ENDINGS = ("", "", "{A}", "Yours, {A}", "With thanks, {A}", "It is urgent.")

LABELS = tuple(sorted(WANTED))
SLOT = re.compile(r"\{(?:(a|at) )?([ABFNOP])\}")


def rows(seed: int, count: int | None = None, *, first: int = 0) -> Iterator[tuple[str, str]]:
    """Notes number `first`, `first` + 1 ... of the stream `seed` with the desk each is for: `count`, or without end.

    All desks are as likely. A short note may come twice.

    >>> text, label = next(rows(seed=0))
    >>> label in LABELS
    True
    """
    for index in numbers(first) if count is None else range(first, first + count):
        yield message(seed, index)


def message(seed: int, index: int) -> tuple[str, str]:
    """Note number `index` of the stream `seed`, and its desk."""
    rng = Random(f"harbor messages {seed} {index}")
    label = pick(rng, LABELS)
    other = pick(rng, [each for each in LABELS if each != label])
    parts = _ordered(rng, label, other) if rng.random() < ORDERED else _plain(rng, label, other)
    text = " ".join(filter(None, (pick(rng, GREETINGS), *parts, pick(rng, ENDINGS))))
    return _filled(text, rng), label


def _ordered(rng: Random, label: str, other: str) -> list[str]:
    """A sentence that names the business of two desks, and by its order says which one is meant."""
    phrase = pick(rng, pick(rng, ORDER))
    return [phrase.replace("{X}", pick(rng, TOPICS[label])).replace("{Y}", pick(rng, TOPICS[other]))]


def _plain(rng: Random, label: str, other: str) -> list[str]:
    """What is wanted, and perhaps a remark, before or behind, that belongs to another desk."""
    parts = [pick(rng, WANTED[label])]
    if rng.random() < ASIDE:
        parts.insert(int(rng.random() * 2), pick(rng, ASIDES[other]))
    return parts


def _filled(text: str, rng: Random) -> str:
    """Every slot with a value of its kind, each slot drawn anew."""
    return SLOT.sub(lambda found: world.surface(pick(rng, _values(found[2])), found[1] or ""), text)


def _values(letter: str) -> Sequence[str]:
    """What may stand in a slot."""
    if letter == "B":
        return [each.boat for each in world.PEOPLE if each.boat]
    kinds = {"A": "person", "F": "food", "N": "pet", "O": "thing", "P": "place"}
    return world.groups()[kinds[letter]]
