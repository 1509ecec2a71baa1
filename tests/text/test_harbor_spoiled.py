"""A good story spoiled at one place must be refused: the spoilers, written without a look at the checker, and how many.

Each spoiler takes a text and returns it with one thing wrong, or None where there is nothing of its kind to spoil. It
knows only word lists and where sentences end.
"""

import re
from random import Random

import pytest

from groundup.text import harbor
from groundup.text.harbor import world

NAMES = [each.name for each in world.PEOPLE]
THINGS = list(world.groups()["thing"])
FLIP = {"he": "she", "she": "he", "him": "her", "his": "her", "himself": "herself", "herself": "himself"}
VERBS = {
    "was": "were", "were": "was", "went": "goed", "said": "say", "ran": "run", "gave": "give", "had": "have",
    "found": "find", "looked": "look", "took": "take", "came": "come", "is": "are",
}  # fmt: skip


def swap_one(rng: Random, text: str, words: list[str], others: list[str]) -> str | None:
    """Replace one occurrence of one of `words` by one of `others`."""
    pattern = r"\b(?:" + "|".join(sorted(map(re.escape, words), key=len, reverse=True)) + r")\b"
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    spot = rng.choice(found)
    choices = [other for other in others if other != spot[0]]
    return text[: spot.start()] + rng.choice(choices) + text[spot.end() :] if choices else None


def articles_right(text: str) -> str:
    """Make `a` and `an` agree with the word that follows, so that only the fact is wrong."""
    return re.sub(r"\b([Aa])n? (?=(\w))", lambda m: m[1] + ("n " if m[2] in "aeiou" else " "), text)


def stranger(rng: Random, text: str) -> str | None:
    """One name becomes that of a neighbour from elsewhere."""
    return swap_one(rng, text, NAMES, [name for name in NAMES if name not in text])


def other_name(rng: Random, text: str) -> str | None:
    """One name becomes that of another person of the same story."""
    return swap_one(rng, text, NAMES, [name for name in NAMES if name in text])


def thing(rng: Random, text: str) -> str | None:
    """One thing becomes another."""
    spoiled = swap_one(rng, text, THINGS, THINGS)
    return spoiled and articles_right(spoiled)


def other_thing(rng: Random, text: str) -> str | None:
    """One thing becomes another thing of the same story."""
    here = [thing for thing in THINGS if re.search(rf"\b{thing}\b", text)]
    spoiled = swap_one(rng, text, here, here) if len(here) > 1 else None
    return spoiled and articles_right(spoiled)


def place(rng: Random, text: str) -> str | None:
    """One place becomes another, with its preposition."""
    found = list(re.finditer(r"\b(?:([Aa]t|[Ii]n|[Oo]n) )?the (" + "|".join(world.PLACES) + r")\b(?! keeper)", text))
    if not found:
        return None
    spot = rng.choice(found)
    other = rng.choice([name for name in world.PLACES if name != spot[2]])
    before = ""
    if spot[1]:
        before = world.PLACES[other] + " "
        before = before.capitalize() if spot[1][0].isupper() else before
    return text[: spot.start()] + f"{before}the {other}" + text[spot.end() :]


def pronoun(rng: Random, text: str) -> str | None:
    """One pronoun changes its gender."""
    found = list(re.finditer(r"\b(" + "|".join(FLIP) + r"|her)\b", text, re.IGNORECASE))
    if not found:
        return None
    spot = rng.choice(found)
    new = FLIP.get(spot[0].lower()) or rng.choice(["his", "him"])
    return text[: spot.start()] + (new.capitalize() if spot[0][0].isupper() else new) + text[spot.end() :]


def article(rng: Random, text: str) -> str | None:
    """One `a` becomes `an`, or the other way round."""
    found = list(re.finditer(r"\b(a|an|A|An)(?= \w)", text))
    spot = rng.choice(found) if found else None
    return spot and text[: spot.start()] + (spot[0][0] if len(spot[0]) == 2 else spot[0] + "n") + text[spot.end() :]


def verb(rng: Random, text: str) -> str | None:
    """One verb stands in a form that does not agree."""
    found = list(re.finditer(r"\b(" + "|".join(VERBS) + r")\b", text))
    spot = rng.choice(found) if found else None
    return spot and text[: spot.start()] + VERBS[spot[0]] + text[spot.end() :]


def sentences(text: str) -> tuple[str, list[str]]:
    """Title and sentences, the paragraph mark kept at the end of a sentence as a line of its own."""
    title, body = text.split("\n\n", 1)
    return title, re.split(r"(?<=[.!?])(?<!said\.) (?=[A-Z\"])", body.replace("\n\n", " ¶ ").replace("¶ ", "¶"))


def joined(title: str, parts: list[str]) -> str:
    """The inverse of `sentences`."""
    return title + "\n\n" + " ".join(parts).replace(" ¶", "\n\n").replace("¶", "")


def first_mention(rng: Random, text: str) -> str | None:
    """The sentence that first names somebody (other than in the title) is left out."""
    title, parts = sentences(text)
    names = [name for name in NAMES if any(name in part for part in parts)]
    at = [next(i for i, part in enumerate(parts) if name in part) for name in names]
    at = [i for i, name in zip(at, names, strict=True) if any(name in part for part in parts[i + 1 :])]
    if not at:
        return None
    spot = rng.choice(at)
    return joined(title, parts[:spot] + parts[spot + 1 :])


def order(rng: Random, text: str) -> str | None:
    """The first and the last sentence that name the same person change places."""
    title, parts = sentences(text)
    spots = [[i for i, part in enumerate(parts) if name in part] for name in NAMES]
    spots = [spot for spot in spots if len(spot) > 1]
    if not spots:
        return None
    spot = rng.choice(spots)
    parts[spot[0]], parts[spot[-1]] = parts[spot[-1]], parts[spot[0]]
    return joined(title, parts)


def no_end(rng: Random, text: str) -> str | None:
    """The last sentence is missing."""
    title, parts = sentences(text)
    return joined(title, parts[:-1])


def repeated(rng: Random, text: str) -> str | None:
    """One sentence is said twice in a row."""
    title, parts = sentences(text)
    spot = rng.randrange(len(parts))
    return joined(title, parts[: spot + 1] + parts[spot:])


def lost_word(rng: Random, text: str) -> str | None:
    """One word is missing."""
    words = text.split(" ")
    spot = rng.randrange(len(words))
    return " ".join(words[:spot] + words[spot + 1 :])


FACTS = (stranger, other_name, thing, other_thing, place)
AGREEMENT = (pronoun, article, verb)
TELLING = (first_mention, order, no_end, repeated, lost_word)


def refused(spoil, stories: int) -> tuple[int, int]:  # noqa: ANN001
    """How many of the spoiled stories were refused, and how many there were."""
    rng = Random(3)
    spoiled = [(text, spoil(rng, text)) for text in harbor.stories(seed=99, count=stories)]
    texts = [wrong for text, wrong in spoiled if wrong is not None and wrong != text]
    return sum(not harbor.check(text).ok for text in texts), len(texts)


@pytest.mark.parametrize("spoil", FACTS, ids=lambda spoil: spoil.__name__)
def test_one_wrong_fact_is_refused(spoil) -> None:  # noqa: ANN001
    count, of = refused(spoil, 200)
    assert of >= 15 and count / of >= 0.95, f"{count} of {of} refused"


@pytest.mark.parametrize("spoil", AGREEMENT + TELLING, ids=lambda spoil: spoil.__name__)
def test_bad_grammar_and_bad_telling_are_refused(spoil) -> None:  # noqa: ANN001
    count, of = refused(spoil, 120)
    assert of >= 100 and count / of >= 0.98, f"{count} of {of} refused"


def test_spoilers_spoil_only_one_place() -> None:
    text = "Mira and the lost oar\n\nMira ran to the pier. She had an oar."
    rng = Random(1)
    assert article(rng, "She had an oar.") == "She had a oar."
    assert pronoun(rng, "She had an oar.") == "He had an oar."
    assert place(rng, "Mira sat on the pier.") != "Mira sat on the pier."
    assert no_end(rng, text) == "Mira and the lost oar\n\nMira ran to the pier."
    assert order(rng, "T\n\nOdo ran. It rained. Odo fell.") == "T\n\nOdo fell. It rained. Odo ran."


def test_halves_of_two_stories_are_not_a_story() -> None:
    told = [harbor.tell(98, index) for index in range(120)]
    pairs = [
        (a.text.split("\n\n"), b.text.split("\n\n")) for a, b in zip(told, told[1:], strict=False) if a.plot != b.plot
    ]
    assert len(pairs) > 50
    for first, second in pairs:
        assert not harbor.check("\n\n".join(first[:2] + second[2:])).ok
        assert not harbor.check("\n\n".join(first + second[1:])).ok
