"""Two answers to a question about a scene of the harbour town: one right, the other wrong in a way that is known.

In: a seed. Out: `pairs`: what was asked, both answers, how far they are apart, and what is wrong with the second.

The order is true: the first answer is the only one that `Question.right` accepts. Over all pairs length tells nothing:
what always makes an answer longer is as likely as what always makes it shorter, and all else makes it either. So who
prefers the longer, or the shorter, is right about half of the pairs, and a score that does better has read the scene,
or at least the question: of one kind alone (`FINDS`) the better answer is the longer one in 41 % to 58 % of the pairs.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from groundup.text.harbor import world
from groundup.text.harbor.plots.plot import pick
from groundup.text.harbor.questions import (
    FAMILIES,
    FINDS,
    WHAT,
    WHERE,
    Question,
    Split,
    conversations,
    questions,
    things,
)


def pairs(
    seed: int, count: int | None = None, *, split: Split = "all", families: Iterable[str] = FINDS
) -> Iterator[dict[str, Any]]:
    """`count` of {"prompt", "chosen", "rejected", "margin", "flaw", "kind", "about"}, or without end.

    The questions are those of `questions.questions` for the same seed, split and families; `kind` and `about` are
    theirs. `flaw` is one of `FLAWS`, each as likely as the others; `margin` says how bad it is, 3 worst. Raises
    DataError as `questions.questions`.

    >>> one = next(pairs(seed=3, split="test"))
    >>> one["chosen"], one["rejected"], one["flaw"], one["margin"]
    ('Hugo keeps it.', 'Ada keeps it.', 'not in the scene', 3.0)
    """
    wanted = tuple(families)
    asked = questions(seed, count, split=split, families=wanted)
    # the same scenes, with more questions about each: what else could have been answered
    talks = conversations(seed, count, split=split, families=wanted, turns=max(1, len(wanted)))
    for number, (question, talk) in enumerate(zip(asked, talks, strict=True)):
        case = _Case(question, [message["content"] for message in talk["messages"][3::2]])
        flaw, wrong = _spoiled(Random(f"harbor pairs {seed} {number}"), case)
        yield {
            "prompt": question.prompt,
            "chosen": question.answer,
            "rejected": wrong,
            "margin": FLAWS[flaw][0],
            "flaw": flaw,
            "kind": question.kind,
            "about": question.about,
        }


@dataclass(frozen=True)
class _Case:
    """A question, and the answers to other questions about its scene."""

    question: Question
    others: list[str]

    @property
    def values(self) -> tuple[str, ...]:
        """All that could be asked for in the place of what is: names, things or places."""
        letter = FAMILIES[self.question.kind][2]
        names = tuple(each.name for each in world.PEOPLE)
        every = things() if letter in WHAT else tuple(world.PLACES) if letter in WHERE else names
        return tuple(value for value in every if value != self.question.wanted)

    def told(self, value: str) -> bool:
        """Whether the scene speaks of it."""
        return re.search(rf"\b{value}\b", self.question.scene) is not None

    def form(self) -> str:
        """How the right answer writes what is asked for: the word before the letter in its pattern, or ""."""
        letter = FAMILIES[self.question.kind][2]
        forms = ("At", "at", "") if letter in WHERE else ("a", "") if letter in WHAT else ("",)
        written = (form for form in forms if world.surface(self.question.wanted, form) in self.question.answer)
        return next(written)

    def answering(self, value: str) -> str:
        """The right answer with another value in the place of the right one.

        >>> _Case(next(questions(seed=3, split="test")), []).answering("Ada")
        'Ada keeps it.'
        """
        form = self.form()
        right, wrong = (world.surface(each, form) for each in (self.question.wanted, value))
        return re.sub(rf"\b{right}\b", wrong, self.question.answer, count=1)


def _goes_on(rng: Random, case: _Case) -> str:
    """Right, and then a sentence of the scene that nobody asked for: always longer."""
    sentences = re.split(r"(?<=\.) ", case.question.scene)
    return f"{case.question.answer} {pick(rng, sentences)}"


def _only_the_word(rng: Random, case: _Case) -> str:
    """What was asked for and nothing else, which is no sentence: always shorter."""
    value = case.question.wanted
    return f"{value[0].upper()}{value[1:]}."


def _another_of_the_scene(rng: Random, case: _Case) -> str:
    return case.answering(pick(rng, [value for value in case.values if case.told(value)]))


def _not_in_the_scene(rng: Random, case: _Case) -> str:
    return case.answering(pick(rng, [value for value in case.values if not case.told(value)]))


def _something_else(rng: Random, case: _Case) -> str:
    """The right answer to another question about the scene; "" where no other is asked."""
    others = [answer for answer in case.others if answer != case.question.answer]
    return pick(rng, others) if others else ""


# flaw -> how bad it is, and what makes it
FLAWS: dict[str, tuple[float, Callable[[Random, _Case], str]]] = {
    "goes on": (1.0, _goes_on),
    "only the word": (1.0, _only_the_word),
    "another of the scene": (2.0, _another_of_the_scene),
    "answers something else": (3.0, _something_else),
    "not in the scene": (3.0, _not_in_the_scene),
}


def _spoiled(rng: Random, case: _Case) -> tuple[str, str]:
    """A flaw, and a wrong answer that has it."""
    while True:
        flaw = pick(rng, tuple(FLAWS))
        wrong = FLAWS[flaw][1](rng, case)
        if wrong and not case.question.right(wrong):
            return flaw, wrong
