"""Who lives in the harbour town, what they own and where things are: the fixed facts of the small world.

In: nothing. Out: `PEOPLE`, `PLACES`, `NOUNS` and the facts that are true in every story (`standing_facts`).
To add a neighbour, a place or a thing, add one row here; every plot can use it at once.
"""

from dataclasses import dataclass
from functools import cache

Fact = tuple[str, ...]  # ("has", "Mira", "kettle"), ("at", "Odo", "lighthouse"), ("calm",)


@dataclass(frozen=True)
class Person:
    """A neighbour. Job, occupation, gift, boat and thing are this person's alone, so they identify the person."""

    name: str
    she: bool
    job: str
    home: str  # the place where a visitor finds this person
    busy: str  # what the visitor sees
    gift: str  # what this person gives to say thank you
    friend: str  # who is asked first
    neighbour: str  # and who next
    thing: str  # a treasure
    food: str  # what this person cooks
    spot: str  # the place in town where this person is often seen
    shore: str  # and the place by the sea
    boat: str = ""  # sailors only

    def pronoun(self, form: str) -> str:
        """The pronoun in the form that "he", "him", "his" or "himself" names, with the same capital.

        >>> person("Mira").pronoun("him"), person("Odo").pronoun("He")
        ('her', 'He')
        """
        if not self.she:
            return form
        feminine = {"he": "she", "him": "her", "his": "her", "himself": "herself"}[form.lower()]
        return feminine.capitalize() if form[0].isupper() else feminine


PEOPLE = (
    Person(
        "Mira", True, "baker", "bakery", "talking to the dough", "a warm loaf",
        "Odo", "Wilma", "spoon", "apple cake", "market", "beach",
    ),
    Person(
        "Odo", False, "lamp keeper", "lighthouse", "polishing the lamp", "a candle",
        "Mira", "Ada", "lantern", "cheese", "bridge", "rocks",
    ),
    Person(
        "Bruno", False, "fisherman", "pier", "waiting for a fish", "a fat herring",
        "Wilma", "Nell", "bucket", "herring pie", "well", "cove", "Slow Herring",
    ),
    Person(
        "Nell", True, "crab catcher", "steps", "counting crabs", "a friendly crab",
        "Pim", "Rosa", "basket", "sausage", "mill", "rocks", "Brave Crab",
    ),
    Person(
        "Rosa", True, "captain", "harbour wall", "shouting at the tide", "a pirate story",
        "Hugo", "Bruno", "spyglass", "plum tart", "square", "cove", "Second Wind",
    ),
    Person(
        "Ada", True, "clock maker", "clock shop", "winding forty clocks", "a small clock",
        "Lars", "Mira", "key", "honey cake", "orchard", "dunes",
    ),
    Person(
        "Lars", False, "boat builder", "boatyard", "measuring a plank", "a toy boat",
        "Ada", "Odo", "rope", "cheese", "mill", "beach",
    ),
    Person(
        "Wilma", True, "innkeeper", "inn", "stirring the soup", "a bowl of soup",
        "Bruno", "Mira", "kettle", "herring pie", "well", "dunes",
    ),
    Person(
        "Hugo", False, "mayor", "town hall", "practising a speech", "a medal",
        "Rosa", "Pim", "umbrella", "honey cake", "square", "beach",
    ),
    Person(
        "Pim", False, "postman", "post office", "sorting the letters", "a postcard",
        "Nell", "Hugo", "map", "apple cake", "bridge", "dunes",
    ),
)  # fmt: skip

# place -> the preposition that goes with it
PLACES = {
    "bakery": "in", "lighthouse": "at", "pier": "on", "steps": "on", "harbour wall": "on", "clock shop": "in",
    "boatyard": "in", "inn": "at", "town hall": "in", "post office": "at",
    "beach": "on", "cove": "in", "dunes": "in", "rocks": "on",
    "market": "at", "well": "at", "bridge": "at", "square": "at", "mill": "at", "orchard": "at",
}  # fmt: skip
PETS = {"seal": "Pudding", "kitten": "Button", "duckling": "Noodle", "puppy": "Pepper", "otter": "Bean"}
MACHINES = {"bell": "market", "clock": "square", "pump": "well", "lamp": "bridge", "wheel": "mill"}

# The kind of value that a letter stands for in a sentence pattern; the same letters name the roles of a plot.
KINDS = {"A": "person", "B": "person", "C": "person", "O": "thing", "X": "thing", "Y": "thing", "F": "food"}
KINDS |= {"N": "pet", "V": "pet name", "M": "machine", "P": "place", "Q": "place", "R": "place"}


@cache
def person(name: str) -> Person:
    """The neighbour of that name (KeyError if nobody has it)."""
    return {each.name: each for each in PEOPLE}[name]


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """The groups that a plot may draw a role from, such as "sailor".

    >>> groups()["sailor"]
    ('Bruno', 'Nell', 'Rosa')
    """
    sailors = tuple(each.name for each in PEOPLE if each.boat)
    everyone = tuple(each.name for each in PEOPLE)
    return {
        "person": everyone,
        "sailor": sailors,
        "land": tuple(name for name in everyone if name not in sailors and name != "Odo"),
        "thing": tuple(each.thing for each in PEOPLE),
        "food": tuple(dict.fromkeys(each.food for each in PEOPLE)),
        "pet": tuple(PETS),
        "pet name": tuple(PETS.values()),
        "machine": tuple(MACHINES),
        "place": tuple(PLACES),
    }


@cache
def standing_facts() -> frozenset[Fact]:
    """The facts that hold in every story: who lives where, owns, cooks and likes what, and where the machines stand.

    >>> sorted(fact[1] for fact in standing_facts() if fact[0] == "spot" and fact[2] == "mill")
    ['Lars', 'Nell']
    """
    facts: set[Fact] = {("stands", machine, place) for machine, place in MACHINES.items()}
    for each in PEOPLE:
        facts |= {("home", each.name, each.home), ("spot", each.name, each.spot), ("shore", each.name, each.shore)}
        facts |= {("friend", each.name, each.friend), ("neighbour", each.name, each.neighbour)}
        facts |= {("owns", each.name, each.thing), ("cooks", each.name, each.food)}
    return frozenset(facts | {("pet", pet, name) for pet, name in PETS.items()})


@cache
def surface(value: str, form: str) -> str:
    """A value as it is written in a sentence: `form` is "" or one word before the letter in a slot.

    >>> surface("umbrella", "a"), surface("pier", ""), surface("pier", "At"), surface("Mira", "job")
    ('an umbrella', 'the pier', 'On the pier', 'baker')
    """
    if value in PLACES:
        words = f"{PLACES[value]} the {value}" if form.lower() == "at" else f"the {value}"
        return words[0].upper() + words[1:] if form[:1].isupper() else words
    if form in ("a", "A"):
        return f"{form}n {value}" if value[0] in "aeiou" else f"{form} {value}"
    if form in ("busy", "gift", "job", "boat"):
        return str(getattr(person(value), form))
    return person(value).pronoun(form) if form else value
