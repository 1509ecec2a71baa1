"""Questions with one exact answer: the model writes, and what it wrote is compared with what is right.

In: a model, its tokenizer, `Question`s. Out: `Given`, what was written to each; `Answered`, each with its marks; and
`Kind`s, the shares of right answers for each kind of question. A model that was taught to chat is asked through its
template; any other continues the question as it stands, up to the end of the line.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from groundup.errors import DataError
from groundup.evaluate.answers import normal, same
from groundup.evaluate.choices import share_error
from groundup.generate import Sampler, write
from groundup.generate.chat import Messages, template_of
from groundup.generate.chat import answered as chat_answered
from groundup.generate.stream import encoded
from groundup.model import config_of
from groundup.text.choices import Question
from groundup.text.conversations import told
from groundup.text.template import ChatTemplate
from groundup.tokens.tokenizer import Tokenizer

LONGEST = 64  # tokens of an answer where nothing is said


@dataclass(frozen=True)
class Given:
    """What a model wrote, and what stood in its way.

    `cut`: question and answer together outgrew the context, so that the beginning was out of sight. `unfinished`: the
    answer was still going on when its longest length was reached.
    """

    text: str
    cut: bool = False
    unfinished: bool = False


@dataclass(frozen=True)
class Answered:
    """One question with the answer given.

    `exact`: the same as a right one but for white space. `loose`: also but for case, and punctuation around words.
    `contained`: a right one stands in it, as whole words: what a talkative model may know and exact matching misses.
    `cut` and `unfinished` as in `Given`: such an answer may be wrong for want of room alone.
    """

    where: str
    kind: str
    answer: str
    right: tuple[str, ...]
    exact: bool
    loose: bool
    contained: bool
    cut: bool = False
    unfinished: bool = False


@dataclass(frozen=True)
class Kind:
    """Shares of right answers among the questions of one kind, and the standard error of `exact`; "" is all of them.

    `cut`, `unfinished`: how many answers were so, as in `Given`.
    """

    kind: str
    questions: int
    exact: float
    exact_error: float
    loose: float
    contained: float
    cut: int = 0
    unfinished: int = 0


def answer(
    model: nn.Module,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    *,
    max_tokens: int = LONGEST,
    watch: Callable[[int], None] = lambda done: None,
) -> list[Given]:
    """What the model writes to each question, greedily: the likeliest token each time. `watch` hears how many are done.

    Raises DataError for a conversation of several turns where there is no template to write it with.

    >>> [one.text for one in answer(model, tokenizer, questions("harbor-questions:2"))]  # doctest: +SKIP
    ['Mira.', 'In the mill.']
    """
    template, found = template_of(tokenizer), dict[int, Given]()
    if template is None:
        rows = _continued(model, tokenizer, [_plain(one) for one in asked], max_tokens)
    else:
        rows = _chatted(model, tokenizer, template, [one.messages for one in asked], max_tokens)
    for row, given in rows:
        found[row] = given
        watch(len(found))
    return [found[row] for row in range(len(asked))]


def _chatted(
    model: nn.Module, tokenizer: Tokenizer, template: ChatTemplate, talks: Sequence[Messages], max_tokens: int
) -> Iterator[tuple[int, Given]]:
    """Answers through the template, each with its row, as they are done."""
    greedy = Sampler(temperature=0)
    for one in chat_answered(model, tokenizer, template, talks, max_tokens=max_tokens, sampler=greedy):
        yield one.row, Given(one.text, one.past_context, one.finish == "length")


def _continued(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int
) -> Iterator[tuple[int, Given]]:
    """The rest of each prompt's line with its row, as they are done."""
    context, greedy = config_of(model).context, Sampler(temperature=0)
    ids = [encoded(tokenizer, prompt) for prompt in prompts]
    seen, texts = [len(one) - 1 for one in ids], [""] * len(ids)
    for delta in write(model, tokenizer, prompts, max_tokens=max_tokens, sampler=greedy, stop=["\n"]):
        texts[delta.row] += delta.text
        seen[delta.row] += 1  # the tokens that were read to choose this one
        if delta.finish:
            yield delta.row, Given(texts[delta.row], seen[delta.row] > context, delta.finish == "length")


def _plain(asked: Question) -> str:
    """A question as text to be continued."""
    if len(asked.messages) != 1:
        raise DataError(
            f"{asked.where} has {len(asked.messages)} messages, and this model has no chat template to write them with",
            "ask with a single prompt, or give a model that was taught to chat (groundup instruct)",
        )
    [only] = told(asked.messages)
    return str(only["content"])


def grade(asked: Sequence[Question], given: Sequence[Given]) -> list[Answered]:
    """Compare each answer with every right one; raises DataError unless there is one for each question.

    >>> question = Question(({"role": "user", "content": "Who?"},), ("Odo", "old Odo"), "who", "line 1")
    >>> given = [Given("old  Odo"), Given("odo."), Given("It is Odo!")]
    >>> [(one.exact, one.loose, one.contained) for one in grade([question] * 3, given)]
    [(True, True, True), (False, True, True), (False, False, True)]
    """
    if len(asked) != len(given):
        raise DataError(f"{len(given)} answers to {len(asked)} questions", "give one answer for each question")
    return [_graded(question, one) for question, one in zip(asked, given, strict=True)]


def _graded(asked: Question, given: Given) -> Answered:
    return Answered(
        where=asked.where,
        kind=asked.kind,
        answer=given.text,
        right=asked.answers,
        exact=any(same(given.text, one) for one in asked.answers),
        loose=any(same(given.text, one, loose=True) for one in asked.answers),
        contained=any(contains(given.text, one) for one in asked.answers),
        cut=given.cut,
        unfinished=given.unfinished,
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
    cut, unfinished = sum(row.cut for row in rows), sum(row.unfinished for row in rows)
    return Kind(name, count, exact, share_error(exact, count), loose, contained, cut, unfinished)
