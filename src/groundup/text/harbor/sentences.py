"""Sentence patterns with typed slots, used in both directions: filled to write, matched to read.

In: patterns such as `"{A} gave the {O} to {B}."`, each part of an `Act` with the facts it needs and the facts it makes
true. Out: `Row`, a compiled pattern, with `fill` (values -> sentence) and `read` (sentence -> values or a complaint).

A slot is `{letter}` or `{form letter}`; the letter gives the kind of value (`world.KINDS`), the form how it is written:
`{he A} {him A} {his A} {himself A}` pronouns, `{job A} {busy A} {gift A} {boat A}` what belongs to a person, `{a O}`
with article, `{at P}` with preposition, `{A=Mira}` that value and no other. A pronoun that stands before any other
mention of its person is written as the name or as the pronoun, and a pronoun there means the subject of the sentence
before. Sentences are found by their skeleton, the words that are left when everything that could be a value is blanked.
"""

import re
from dataclasses import dataclass
from functools import cache

from groundup.text.harbor import world

PRONOUNS = ("he", "she", "him", "her", "his", "himself", "herself")
OWNED = ("busy", "gift", "job", "boat")  # what belongs to one person only
SLOT = re.compile(r"\{(?:(\w+) )?([A-Z])(?:=(\w+))?\}")
SENTENCE_END = re.compile(r"[.!?]\"? (?=[A-Z\"])")


@dataclass(frozen=True, eq=False)
class Act:
    """One kind of event: what must be true before it, what it changes, and the ways to say it.

    No two acts are equal, however alike, which also makes them quick to look up.
    """

    name: str
    needs: str
    then: str
    phrases: tuple[str, ...]


def act(name: str, needs: str, then: str, *phrases: str) -> Act:
    """An `Act` in one call: `act("lend", "has B X, at A P, at B P", "+has A X", "{B} lent {A} the {X}.")`."""
    return Act(name, needs, then, phrases)


@dataclass(frozen=True)
class Slot:
    """A place in a pattern: the value of `letter` written in `form`; or, without a letter, exactly `value`."""

    letter: str
    form: str
    value: str = ""


@dataclass(frozen=True)
class Row:
    """One pattern in one of its two readings: `by_pronoun` is the person meant by an opening pronoun, if any."""

    act: Act
    parts: tuple[str | Slot, ...]
    by_pronoun: str
    last_person: str  # the person whom a pronoun in the next sentence means

    def only(self) -> Slot | None:
        """The slot that takes one value and no other (`{A=Mira}`), if there is one."""
        return next((part for part in self.parts if isinstance(part, Slot) and part.value), None)

    def fill(self, binding: dict[str, str]) -> str:
        """The sentence with every slot written out."""
        return "".join(
            part if isinstance(part, str) else world.surface(binding[part.letter], part.form) for part in self.parts
        )


@dataclass(frozen=True)
class Reading:
    """A row as the reader sees it: the slots in order, and literal values, to hold against what the text has there."""

    row: Row
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Word:
    """A piece of text that could be a value: `kind` is its blank in the skeleton."""

    kind: str
    text: str


def split(text: str) -> list[str]:
    """Sentences of a paragraph; a quotation is never cut.

    >>> split('It was late. "Is it? Oh," said Ada. She ran.')
    ['It was late.', '"Is it? Oh," said Ada.', 'She ran.']
    """
    sentences, start = [], 0
    for found in SENTENCE_END.finditer(text):
        if text.count('"', start, found.end()) % 2 == 0:
            sentences.append(text[start : found.end() - 1])
            start = found.end()
    return [*sentences, text[start:]]


@cache
def value_pattern() -> re.Pattern[str]:
    """One regular expression for everything that could be a value, longest first."""
    phrases = {form: sorted(owners(form)) for form in OWNED}  # before single words: "a toy boat" holds no other value
    nouns = [noun for kind in ("thing", "food", "pet", "machine") for noun in world.groups()[kind]]
    words = {"name": [each.name for each in world.PEOPLE], "pet": list(world.PETS.values())}
    words |= {"he": list(PRONOUNS), "He": [word.capitalize() for word in PRONOUNS]}
    groups = [
        *(f"(?P<{form}>{either(choices)})" for form, choices in phrases.items()),
        f"(?:(?P<article>[Aa]n?) )?(?P<noun>{either(nouns)})",
        f"(?:(?P<preposition>[Aa]t|[Ii]n|[Oo]n) )?(?P<place>the (?:{either(list(world.PLACES))}))",
        *(f"(?P<{kind}>{either(choices)})" for kind, choices in words.items()),
    ]
    return re.compile(r"\b(?:" + "|".join(groups) + r")\b")


def either(words: list[str]) -> str:
    """A regular expression for any of `words`; the longest match wins."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


def skeleton(text: str) -> tuple[str, list[Word]]:
    """The text with every possible value blanked, and what stood in the blanks.

    >>> skeleton("She lent Odo an umbrella.")[0]
    '<He> lent <name> <a noun>.'
    """
    words: list[Word] = []

    def blank(found: re.Match[str]) -> str:
        kind = str(found.lastgroup)
        lead = found["article"] or found["preposition"]
        if lead:
            kind = ("a " if found["article"] else "at ") + kind
            kind = kind.capitalize() if lead[0].isupper() else kind
        words.append(Word(kind, found[0]))
        return f"<{kind}>"

    return value_pattern().sub(blank, text), words


@cache
def rows(act: Act) -> tuple[tuple[Row, Row | None], ...]:
    """The phrases of an act, each as it reads with a name and, if a pronoun may open it, with the pronoun."""
    found = []
    for phrase in act.phrases:
        named, *rest = [Row(act, parts, pronoun, last_person(parts)) for parts, pronoun in variants(phrase)]
        found.append((named, rest[0] if rest else None))
    return tuple(found)


def ways(act: Act, binding: dict[str, str]) -> tuple[tuple[Row, Row | None], ...]:
    """Those rows of an act that can be filled with these values (`{A=Mira}` takes only A = Mira)."""
    slot = rows(act)[0][0].only()
    return ways_with(act, binding[slot.letter]) if slot else rows(act)


@cache
def ways_with(act: Act, value: str) -> tuple[tuple[Row, Row | None], ...]:
    """Those rows of an act that are for this value alone."""
    return tuple(pair for pair in rows(act) if (slot := pair[0].only()) and slot.value == value)


def variants(phrase: str) -> list[tuple[tuple[str | Slot, ...], str]]:
    """The phrase as parts, and the person whom an opening pronoun means: with the name first, then with the pronoun."""
    parts: list[str | Slot] = []
    opener: int | None = None
    seen: set[str] = set()
    for i, piece in enumerate(re.split(r"(\{.*?\})", phrase)):
        if i % 2 == 0:
            parts += [piece] if piece else []
            continue
        form, letter, value = SLOT.fullmatch(piece).groups("")  # type: ignore[union-attr]
        if form.lower() in PRONOUNS and letter not in seen:
            opener = len(parts)
        seen.add(letter)
        parts.append(Slot(letter, form, value))
    if opener is None:
        return [(tuple(parts), "")]
    pronoun = parts[opener]
    assert isinstance(pronoun, Slot)
    name = [Slot(pronoun.letter, "")] + (["'s"] if pronoun.form.lower() == "his" else [])
    return [(tuple(parts[:opener] + name + parts[opener + 1 :]), ""), (tuple(parts), pronoun.letter)]


def last_person(parts: tuple[str | Slot, ...]) -> str:
    """The first person of the last sentence: whom a pronoun in the next sentence means ("" for nobody)."""
    whole = "".join(part if isinstance(part, str) else f"{{{part.letter}}}" for part in parts)
    letters = re.findall(r"\{([A-Z])\}", split(whole)[-1])
    return next((letter for letter in letters if world.KINDS[letter] == "person"), "")


def reading(row: Row) -> tuple[str, Reading]:
    """The skeleton of a row, and what belongs in its blanks."""
    text, slots = "", []
    for part in row.parts:
        if isinstance(part, Slot):
            text += f"<{blank_kind(part)}>"
            slots.append(part)
        else:
            plain, words = skeleton(part)
            text += plain
            slots += [Slot("", word.kind, word.text) for word in words]
    return text, Reading(row, tuple(slots))


def blank_kind(slot: Slot) -> str:
    """The kind that `skeleton` gives to the words of this slot."""
    kind, form = world.KINDS[slot.letter], slot.form
    if kind == "person":
        return "name" if not form else ("He" if form[0].isupper() else "he") if form.lower() in PRONOUNS else form
    if kind == "pet name":
        return "pet"
    return " ".join(filter(None, (form, "place" if kind == "place" else "noun")))


def read(reading: Reading, words: list[Word], focus: str) -> tuple[dict[str, str], str]:
    """The values in a sentence whose skeleton fits, and a complaint in plain words ("" if all agree).

    `focus` is the person whom an opening pronoun means.
    """
    binding: dict[str, str] = {}
    for slot, word in zip(reading.slots, words, strict=True):
        value = meaning(word)
        if slot.letter and value and binding.setdefault(slot.letter, value) != value:
            return binding, f"{word.text!r} does not go with {binding[slot.letter]}"
    if reading.row.by_pronoun:
        if not focus:
            return binding, f"it is not clear whom {words[0].text!r} means"
        binding.setdefault(reading.row.by_pronoun, focus)
    if len(set(binding.values())) < len(binding):
        return binding, "one and the same cannot play two parts here"
    for slot, word in zip(reading.slots, words, strict=True):
        if slot.letter and binding[slot.letter] not in members(world.KINDS[slot.letter]):
            return binding, f"{word.text!r} is not a {world.KINDS[slot.letter]}"
        right = world.surface(binding[slot.letter], slot.form) if slot.letter else slot.value
        if right != word.text or slot.value not in ("", right):
            return binding, f"{word.text!r} should be {slot.value or right!r}"
    return binding, ""


@cache
def members(kind: str) -> frozenset[str]:
    """All values of a kind."""
    return frozenset(world.groups()[kind])


@cache
def owners(form: str) -> dict[str, str]:
    """Job, occupation, gift or boat -> the one person it belongs to.

    >>> owners("job")["baker"]
    'Mira'
    """
    return {str(getattr(each, form)): each.name for each in world.PEOPLE if getattr(each, form)}


def meaning(word: Word) -> str:
    """The value that a word of the text stands for; "" for a pronoun, which has none of its own.

    >>> meaning(Word("a noun", "an umbrella")), meaning(Word("at place", "on the pier")), meaning(Word("job", "baker"))
    ('umbrella', 'pier', 'Mira')
    """
    kind = word.kind.split()[-1]
    if kind in ("he", "He"):
        return ""
    if kind == "noun":
        return word.text.split(" ", 1)[1] if " " in word.kind else word.text
    if kind == "place":
        return word.text.split("the ", 1)[1]
    return owners(kind)[word.text] if kind in OWNED else word.text
