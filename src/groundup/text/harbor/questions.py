"""Questions about a scene that the prompt tells, in the harbour town, each with exactly one answer.

In: a seed. Out: `questions` (a `Question` each: scene, question, answer, what it is about), `conversations` (the same
as messages for `groundup instruct`) and what guessing without reading reaches (`by_majority`, `by_copying_the_last`).

Two kinds of scene. In `FINDS`, the default, somebody finds a thing and others have their parts in what comes of it
(finds.py); questions ask for who, what or where by that part, and a model of a million weights learns to answer them
from a million tokens. In `HOLDINGS` three or four neighbours are somewhere with something in their hands: every fact
has the same form, so that answering takes telling alike facts apart. That a model tuned as the demo's does not know.
`REWORDED` asks about finds in words that the demo's model was never asked in (reworded.py): for learning from rewards.

No answer can be known by heart: nobody finds or holds their own treasure, or does so where they are usually seen, and
who plays the other parts of a find is drawn without asking what is usual. Each (name, thing, place) belongs to
training or to testing, by a hash that knows no seed; a scene for testing is made of such triples alone, so that no find
and no holding of it was ever seen in training.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count as numbers
from random import Random
from typing import Any, Literal

from groundup.errors import DataError, nearest
from groundup.text.harbor import finds, world
from groundup.text.harbor.plots.plot import pick
from groundup.text.harbor.plots.town import MORNINGS
from groundup.text.harbor.reworded import REWORDED

Split = Literal["train", "test", "all"]
Triple = tuple[str, str, str]  # (name, thing, place): ("Mira", "kettle", "mill")

TEST_SHARE = 0.2
TURNS = 4  # questions about one scene of `conversations`

# Each way to say that {N} has {O} at the place {P}; with {G}, that it came from a neighbour who is not there.
TOLD = (
    "{N} took the {O} to {P}.",
    "{N} went to {P} with the {O}.",
    "{N} is {at P} and has the {O}.",
    "{At P} sits {N} with the {O}.",
    "{N} has the {O} and sits {at P}.",
    "The {O} is {at P}, and {N} has it.",
)
GIVEN = (
    "{G} gave {N} the {O} {at P}.",
    "{N} is {at P} and has the {O} from {G}.",
)

# family -> question, answer, and the letter whose value is asked for; see finds.FAMILIES, which are made alike.
HOLDINGS = {
    "who has it": ("Who has the {O}?", "The {O} is with {N}.", "N"),
    "what is in hand": ("What does {N} have?", "{N} has the {O}.", "O"),
    "where is the neighbour": ("Where is {N}?", "{N} is {at P}.", "P"),
    "where is the thing": ("Where is the {O}?", "The {O} is {at P}.", "P"),
    "who is there": ("Who is {at P}?", "{At P} is {N}.", "N"),
    "what is there": ("What is {at P}?", "{At P} is the {O}.", "O"),
    "who gave it": ("Who gave {N} the {O}?", "{N} has the {O} from {G}.", "G"),
}
FINDS = finds.FAMILIES
OF_FINDS = FINDS | REWORDED  # all that can be asked of a find
FAMILIES = OF_FINDS | HOLDINGS
WHO, WHAT, WHERE = "NGBC", "OX", "PQ"  # the letters that stand for names, things and places


@dataclass(frozen=True)
class Holding:
    """One fact of a scene: a neighbour has a thing at a place, perhaps from somebody ("" from nobody)."""

    name: str
    thing: str
    place: str
    giver: str = ""

    @property
    def triple(self) -> Triple:
        """Name, thing and place: what training and testing must not share."""
        return self.name, self.thing, self.place

    def say(self, pattern: str) -> str:
        """A pattern with its slots filled.

        >>> Holding("Mira", "kettle", "mill").say("{At P} sits {N} with the {O}.")
        'At the mill sits Mira with the kettle.'
        """
        return finds.fill(pattern, self.roles)

    @property
    def roles(self) -> dict[str, str]:
        """The value of each letter of a pattern."""
        return {"N": self.name, "O": self.thing, "P": self.place, "G": self.giver}


@dataclass(frozen=True)
class Question:
    """A scene, a question about one of its facts, and the only right answer.

    wanted: the name, thing or place that is asked for, the only part of the answer that the question does not say;
    kind: the family; about: the triple of the find or holding asked about; triples: all that the scene tells of.
    """

    scene: str
    question: str
    answer: str
    wanted: str
    kind: str
    about: Triple
    triples: tuple[Triple, ...]

    @property
    def prompt(self) -> str:
        """What the model is told: the scene, an empty line, the question."""
        return f"{self.scene}\n\n{self.question}"

    def messages(self) -> list[dict[str, str]]:
        """Question and answer as a conversation of one turn."""
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.answer}]

    def right(self, answer: str) -> bool:
        """Whether an answer is exactly the right one; only white space around it is forgiven."""
        return answer.strip() == self.answer


def questions(
    seed: int, count: int | None = None, *, first: int = 0, split: Split = "all", families: Iterable[str] = FINDS
) -> Iterator[Question]:
    """Questions number `first`, `first` + 1 ... of the stream `seed`, each about a scene of its own.

    `count` of them, or without end. Each family is as likely as the others. Raises DataError for a split or a family
    that does not exist.

    >>> one = next(questions(seed=3, split="test"))
    >>> print(one.scene)
    Mira found the rope on the steps. By noon the find had been carried to the bakery. Rosa saw it all on the steps.
    Hugo paid for the find with a spoon. These days Hugo keeps the rope.
    >>> one.question, one.answer
    ('Who keeps the rope now?', 'Hugo keeps it.')
    """
    for asked in _asked(seed, count, first=first, split=split, families=families, turns=1):
        yield asked[0]


def conversations(
    seed: int,
    count: int | None = None,
    *,
    split: Split = "all",
    families: Iterable[str] = FINDS,
    turns: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Questions as {"messages", "kind", "about"}: conversations of `turns` questions about one scene.

    By default a test has one question each, all else `TURNS`: a scene read once is then learnt from four times. No
    question is put twice; `families` that leave fewer give shorter conversations. `kind` and `about` are of the last
    question, whose answer ends the conversation. Raises DataError as `questions`.

    >>> found = next(conversations(seed=7, split="test"))
    >>> [message["role"] for message in found["messages"]], found["kind"] in FINDS
    (['user', 'assistant'], True)
    """
    most = turns or (1 if split == "test" else TURNS)
    for asked in _asked(seed, count, first=0, split=split, families=families, turns=most):
        messages = asked[0].messages()
        for more in asked[1:]:
            messages += [{"role": "user", "content": more.question}, {"role": "assistant", "content": more.answer}]
        yield {"messages": messages, "kind": asked[-1].kind, "about": asked[-1].about}


def side(triple: Triple) -> Literal["train", "test"]:
    """Where a triple belongs, whatever the seed: one in five is for testing.

    >>> side(("Mira", "kettle", "mill")) == side(("Mira", "kettle", "mill"))
    True
    """
    digest = hashlib.sha256(" ".join(triple).encode()).digest()
    return "test" if digest[0] < 256 * TEST_SHARE else "train"


@cache
def things() -> tuple[str, ...]:
    """What can be in somebody's hands: the treasures and the pets."""
    return world.groups()["thing"] + world.groups()["pet"]


@cache
def triples(split: Split) -> tuple[Triple, ...]:
    """The triples of a split; none agrees with the standing world: never their own things, never their own places."""
    return tuple(
        (each.name, thing, place)
        for each in world.PEOPLE
        for thing in things()
        for place in world.PLACES
        if thing != each.thing and place not in (each.home, each.spot, each.shore)
        if split in ("all", side((each.name, thing, place)))
    )


def by_majority(learnt: Iterable[Question], asked: Sequence[Question]) -> float:
    """Share of right answers of who always says what was wanted most often in that kind of question in `learnt`."""
    counts: dict[str, Counter[str]] = {}
    for question in learnt:
        counts.setdefault(question.kind, Counter())[question.wanted] += 1
    usual = {kind: found.most_common(1)[0][0] for kind, found in counts.items()}
    return sum(question.wanted == usual.get(question.kind) for question in asked) / len(asked)


def by_copying_the_last(asked: Sequence[Question]) -> float:
    """Share of right answers of who says the last name, thing or place of the scene, whichever is wanted.

    >>> triple = ("Mira", "kettle", "mill")
    >>> scene = "Mira took the kettle to the mill. Odo took the map to the pier."
    >>> question, answer = "Who has the kettle?", "The kettle is with Mira."
    >>> by_copying_the_last([Question(scene, question, answer, "Mira", "who has it", triple, (triple,))])
    0.0
    """
    return sum(question.wanted == _last_mentioned(question) for question in asked) / len(asked)


def _last_mentioned(question: Question) -> str:
    """The last value of the kind that is wanted."""
    names = tuple(each.name for each in world.PEOPLE)
    letter = FAMILIES[question.kind][2]
    values = names if letter in WHO else things() if letter in WHAT else tuple(world.PLACES)
    return re.findall(rf"\b(?:{'|'.join(values)})\b", question.scene)[-1]


def _asked(
    seed: int,
    count: int | None,
    *,
    first: int,
    split: Split,
    families: Iterable[str],
    turns: int,
) -> Iterator[list[Question]]:
    """The questions of one scene after the other."""
    wanted = _known(split, families)
    for index in numbers(first) if count is None else range(first, first + count):
        rng = Random(f"harbor questions {seed} {index}")
        kind = pick(rng, wanted)
        if kind in OF_FINDS:
            yield _about_a_find(rng, split, kinds=(kind, wanted), turns=turns)
        else:
            scene = _scene(rng, split, giver=FAMILIES[kind][2] == "G")
            yield _about_holdings(rng, scene, kinds=(kind, wanted), turns=turns)


def _known(split: str, families: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(families)
    if split not in ("train", "test", "all"):
        raise DataError(f"no questions are kept for '{split}'", "choose train, test or all")
    for name in wanted:
        if name not in FAMILIES:
            raise DataError(f"no family of questions is called '{name}'", nearest(name, FAMILIES))
    if not wanted:
        raise DataError("no family of questions was given", f"choose among: {', '.join(FAMILIES)}")
    return wanted


def _scene(rng: Random, split: Split, *, giver: bool) -> list[Holding]:
    """Three or four facts in any order, no name, thing or place twice; with `giver` the first was given by somebody."""
    size, scene = 3 + int(rng.random() * 2), list[Holding]()
    while len(scene) < size:
        name, thing, place = pick(rng, triples(split))
        taken = {value for each in scene for value in (each.name, each.thing, each.place)}
        if not taken & {name, thing, place}:
            scene.append(Holding(name, thing, place))
    away = [each.name for each in world.PEOPLE if each.name not in {holding.name for holding in scene}]
    for number, holding in enumerate(scene):
        if (giver and not number) or rng.random() < 0.2:
            chosen = away.pop(int(rng.random() * len(away)))
            scene[number] = Holding(*holding.triple, chosen)
    return scene


def _told(rng: Random, scene: Sequence[Holding]) -> str:
    """The scene in words, its facts in an order of their own; half of the scenes open with the weather."""
    left, sentences = list(scene), list[str]()
    if rng.random() < 0.5:
        sentences.append(pick(rng, pick(rng, MORNINGS).phrases))
    while left:
        holding = left.pop(int(rng.random() * len(left)))
        sentences.append(holding.say(pick(rng, GIVEN if holding.giver else TOLD)))
    return " ".join(sentences)


def _about_a_find(rng: Random, split: Split, *, kinds: tuple[str, Sequence[str]], turns: int) -> list[Question]:
    """Different questions about a scene of its own; the first has the kind kinds[0], the others any of kinds[1]."""
    first, wanted = kinds
    find = finds.tell(rng, pick(rng, triples(split)))
    others = [kind for kind in wanted if kind in OF_FINDS and kind != first]
    return [_question(find.text, find, kind, (find.triple,)) for kind in [first, *finds.shuffled(rng, others)][:turns]]


def _about_holdings(
    rng: Random, scene: Sequence[Holding], *, kinds: tuple[str, Sequence[str]], turns: int
) -> list[Question]:
    """Different questions about a scene; the first has the kind kinds[0] and is about the first fact."""
    first, wanted = kinds
    text, told = _told(rng, scene), tuple(each.triple for each in scene)
    open_ = [
        (holding, kind)
        for holding in scene
        for kind in wanted
        if kind in HOLDINGS and (holding.giver or HOLDINGS[kind][2] != "G")
    ]
    open_.remove((scene[0], first))
    asked = [(scene[0], first), *finds.shuffled(rng, open_)][:turns]
    return [_question(text, holding, kind, told) for holding, kind in asked]


def _question(text: str, about: finds.Find | Holding, kind: str, told: tuple[Triple, ...]) -> Question:
    asked, answer, letter = FAMILIES[kind]
    question, right = finds.fill(asked, about.roles), finds.fill(answer, about.roles)
    return Question(text, question, right, about.roles[letter], kind, about.triple, told)
