"""Questions with one exact answer: the model writes, and what it wrote is compared with what is right.

In: a model, its tokenizer, `Question`s. Out: `Answered`, one each, and `Kind`s, the shares of right answers for each
kind of question. A model that was taught to chat is asked through its template; any other continues the question as it
stands, up to the end of the line.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from groundup.errors import DataError
from groundup.evaluate.answers import normal, same
from groundup.evaluate.choices import share_error
from groundup.generate import Sampler, write
from groundup.generate.chat import answered as chat_answered
from groundup.generate.chat import template_of
from groundup.text.choices import Question
from groundup.text.conversations import told
from groundup.tokens.tokenizer import Tokenizer

LONGEST = 64  # tokens of an answer where nothing is said


@dataclass(frozen=True)
class Answered:
    """One question with the answer given.

    `exact`: the same as a right one but for white space. `loose`: also but for case, and punctuation around words.
    `contained`: a right one stands in it, as whole words: what a talkative model may know and exact matching misses.
    """

    where: str
    kind: str
    answer: str
    right: tuple[str, ...]
    exact: bool
    loose: bool
    contained: bool


@dataclass(frozen=True)
class Kind:
    """Shares of right answers among the questions of one kind, and the standard error of `exact`; "" is all of them."""

    kind: str
    questions: int
    exact: float
    exact_error: float
    loose: float
    contained: float


def answer(
    model: nn.Module,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    *,
    max_tokens: int = LONGEST,
    watch: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """What the model writes to each question, greedily: the likeliest token each time. `watch` hears how many are done.

    Raises DataError for a conversation of several turns where there is no template to write it with.

    >>> answer(model, tokenizer, questions("harbor-questions:2"))  # doctest: +SKIP
    ['Mira.', 'In the mill.']
    """
    template, sampler = template_of(tokenizer), Sampler(temperature=0)
    found, done = [""] * len(asked), 0
    if template is not None:
        talks = [one.messages for one in asked]
        for one in chat_answered(model, tokenizer, template, talks, max_tokens=max_tokens, sampler=sampler):
            found[one.row], done = one.text, done + 1
            watch(done)
        return found
    prompts = [_plain(one) for one in asked]
    for delta in write(model, tokenizer, prompts, max_tokens=max_tokens, sampler=sampler, stop=["\n"]):
        found[delta.row] += delta.text
        if delta.finish:
            done += 1
            watch(done)
    return found


def _plain(asked: Question) -> str:
    """A question as text to be continued."""
    if len(asked.messages) != 1:
        raise DataError(
            f"{asked.where} has {len(asked.messages)} messages, and this model has no chat template to write them with",
            "ask with a single prompt, or give a model that was taught to chat (groundup instruct)",
        )
    [only] = told(asked.messages)
    return str(only["content"])


def grade(asked: Sequence[Question], given: Sequence[str]) -> list[Answered]:
    """Compare each answer with every right one; raises DataError unless there is one for each question.

    >>> question = Question(({"role": "user", "content": "Who?"},), ("Odo", "old Odo"), "who", "line 1")
    >>> [(one.exact, one.loose, one.contained) for one in grade([question] * 3, ["old  Odo", "odo.", "It is Odo!"])]
    [(True, True, True), (False, True, True), (False, False, True)]
    """
    if len(asked) != len(given):
        raise DataError(f"{len(given)} answers to {len(asked)} questions", "give one answer for each question")
    return [_graded(question, text) for question, text in zip(asked, given, strict=True)]


def _graded(asked: Question, given: str) -> Answered:
    return Answered(
        where=asked.where,
        kind=asked.kind,
        answer=given,
        right=asked.answers,
        exact=any(same(given, one) for one in asked.answers),
        loose=any(same(given, one, loose=True) for one in asked.answers),
        contained=any(contains(given, one) for one in asked.answers),
    )


def contains(given: str, right: str) -> bool:
    """Whether an answer stands in a text as whole words, without regard to case and punctuation.

    >>> contains("She went to the Old Mill, I think.", "old mill"), contains("millstone", "mill"), contains("x", "?")
    (True, False, False)
    """
    wanted = normal(right, loose=True)
    return bool(wanted) and re.search(rf"(?<!\S){re.escape(wanted)}(?!\S)", normal(given, loose=True)) is not None


def table(answered: Sequence[Answered]) -> list[Kind]:
    """The shares of all questions first, then of each kind by name, where kinds are told.

    >>> one = Answered("line 1", "who", "Odo", ("Odo",), True, True, True)
    >>> other = Answered("line 2", "where", "the mill", ("The Mill",), False, True, True)
    >>> [(kind.kind, kind.questions, kind.exact, kind.loose) for kind in table([one, other])]
    [('', 2, 0.5, 1.0), ('where', 1, 0.0, 1.0), ('who', 1, 1.0, 1.0)]
    """
    if not answered:
        raise DataError("there is nothing to count: 0 answers", "ask at least one question")
    names = sorted({one.kind for one in answered} - {""})
    return [_kind("", answered), *(_kind(name, [one for one in answered if one.kind == name]) for name in names)]


def _kind(name: str, rows: Sequence[Answered]) -> Kind:
    count = len(rows)
    exact = sum(row.exact for row in rows) / count
    loose, contained = (sum(values) / count for values in ((r.loose for r in rows), (r.contained for r in rows)))
    return Kind(name, count, exact, share_error(exact, count), loose, contained)
