"""Who lives in the harbour town, what they own and where things are: the fixed facts of the small world.

In: nothing. Out: `PEOPLE`, `PLACES`, `NOUNS` and the facts that are true in every story (`standing_facts`).
To add a neighbour, a place or a thing, add one row here; every plot can use it at once.
"""

from dataclasses import dataclass
from functools import cache

Fact = tuple[str, ...]  # ("has", "Mira", "kettle"), ("at", "Odo", "lighthouse"), ("calm",)


@dataclass(frozen=True)
class Person:
    """A neighbour; everything but the name and the pronoun belongs to nobody else, so it identifies the person."""

    name: str
    she: bool
    job: str
    home: str  # the place where a visitor finds this person
    busy: str  # what the visitor sees
    gift: str  # what this person gives to say thank you
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
    Person("Mira", True, "baker", "bakery", "talking to the dough", "a warm loaf"),
    Person("Odo", False, "lamp keeper", "lighthouse", "polishing the lamp", "a candle"),
    Person("Bruno", False, "fisherman", "pier", "waiting for a fish", "a fat herring", "Slow Herring"),
    Person("Nell", True, "crab catcher", "steps", "counting crabs", "a friendly crab", "Brave Crab"),
    Person("Fenn", False, "ferryman", "ferry", "painting the oars", "a free ride", "Old Duchess"),
    Person("Rosa", True, "captain", "harbour wall", "shouting at the tide", "a pirate story", "Second Wind"),
    Person("Greta", True, "net mender", "net loft", "untying a knot", "a woolly sock"),
    Person("Ada", True, "clock maker", "clock shop", "winding forty clocks", "a small clock"),
    Person("Lars", False, "boat builder", "boatyard", "measuring a plank", "a toy boat"),
    Person("Wilma", True, "innkeeper", "inn", "stirring the soup", "a bowl of soup"),
    Person("Jonas", False, "bell ringer", "chapel", "dusting the bell", "a song"),
    Person("Tilda", True, "teacher", "school", "marking spelling tests", "a gold star"),
    Person("Hugo", False, "mayor", "town hall", "practising a speech", "a medal"),
    Person("Pim", False, "postman", "post office", "sorting the letters", "a postcard"),
)

# place -> the preposition that goes with it
PLACES = {
    "bakery": "in", "lighthouse": "at", "pier": "on", "steps": "on", "ferry": "on", "harbour wall": "on",
    "net loft": "in", "clock shop": "in", "boatyard": "in", "inn": "at", "chapel": "in", "school": "at",
    "town hall": "in", "post office": "at",
    "beach": "on", "cove": "in", "dunes": "in", "rocks": "on",
    "market": "at", "well": "at", "bridge": "on", "square": "in", "mill": "at", "orchard": "in",
}  # fmt: skip
SHORE = ("beach", "cove", "dunes", "rocks")
TOWN = ("market", "well", "bridge", "square", "mill", "orchard")

THINGS = (
    "kettle", "lantern", "umbrella", "whistle", "compass", "spoon", "teapot", "oar", "anchor", "scarf", "spyglass",
    "key", "map", "mug", "bucket", "drum", "pillow", "basket", "blanket", "mirror", "flute", "apron", "ladder", "rope",
)  # fmt: skip
FOODS = ("herring pie", "apple cake", "honey cake", "onion tart", "sausage", "cheese")
PETS = ("seal", "kitten", "duckling", "otter", "owl", "puppy")
PET_NAMES = ("Pudding", "Button", "Pepper", "Crumb", "Noodle", "Bean")
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
    """The groups that a plot may draw a role from, such as "sailor" or "shore".

    >>> groups()["sailor"]
    ('Bruno', 'Nell', 'Fenn', 'Rosa')
    """
    sailors = tuple(each.name for each in PEOPLE if each.boat)
    everyone = tuple(each.name for each in PEOPLE)
    landsmen = tuple(name for name in everyone if name not in sailors and name != "Odo")
    return {
        "person": everyone, "sailor": sailors, "land": landsmen, "thing": THINGS, "food": FOODS, "pet": PETS,
        "pet name": PET_NAMES, "machine": tuple(MACHINES), "shore": SHORE, "town": TOWN, "place": TOWN + SHORE,
    }  # fmt: skip


@cache
def standing_facts() -> frozenset[Fact]:
    """The facts that hold in every story: where people are found, who sails, what is a shore, where machines stand."""
    facts: set[Fact] = {("home", each.name, each.home) for each in PEOPLE}
    facts |= {("sailor", each.name) for each in PEOPLE if each.boat}
    facts |= {("shore", place) for place in SHORE} | {("town", place) for place in TOWN}
    facts |= {("stands", machine, place) for machine, place in MACHINES.items()}
    return frozenset(facts)


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
