"""A judge at work: answers are put to it, its verdicts kept, counted and compared; and before that it is judged itself.

In: files of answers, a judge, a scale. Out: `Check` of the judge, `Scores` of a file, `Duel` of two.
What is asked, and how often, is `bench.py`'s.
"""

import io
import json
import math
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.errors import DataError, SettingsError
from groundup.evaluate.answers import asked
from groundup.evaluate.judge.asking import Answered, Scale
from groundup.evaluate.judge.bench import Bench, Request, Verdict
from groundup.evaluate.judge.reliability import (
    Check,
    Repeats,
    checked,
    checked_pairs,
    mean,
    mean_share,
    repeated,
    verdict,
)
from groundup.evaluate.judge.server import short
from groundup.text import packed
from groundup.text.conversations import Conversation, told
from groundup.text.entries import messages_of

ANSWER = "model_response"  # the field that holds a model's answer


# what is judged


def read(path: Path) -> list[Answered]:
    """The answers of a file, packed or not: Alpaca's JSON with "model_response", or messages as JSONL.

    Of messages what follows the last question is what was expected. Only where no entry of the file has
    "model_response" it is the answer (`turn`): beside others, an entry without one, or with null, has no answer.
    Raises DataError naming file and entry: no such file, no JSON, an entry of neither form, an answer that is no text.
    """
    entries = list(_entries(path))
    turns = not any(isinstance(entry, dict) and ANSWER in entry for _, entry in entries)
    return [_answered(entry, where, turns=turns) for where, entry in entries]


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Entries with their places: of a list counted from 0, lines of JSONL from 1."""
    try:
        with packed.opened(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig") as unpacked:
            text = unpacked.read()
    except UnicodeDecodeError:
        what = f"cannot read {path}: it is not UTF-8"
        raise DataError(what, "give answers as groundup respond writes them") from None
    if text.lstrip().startswith("["):
        found = [(f"entry {number} of {path.name}", entry) for number, entry in enumerate(_json(text, path.name))]
    else:  # splitlines would also cut at U+2028 and its kind, which JSON allows inside a text
        lines = [(f"line {number} of {path.name}", line) for number, line in enumerate(text.split("\n"), 1)]
        found = [(where, _json(line, where)) for where, line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} holds no answers", "give answers as groundup respond writes them")
    yield from found


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = f"{where} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        raise DataError(what, "repair it, or write the answers again") from None
    except (ValueError, RecursionError):
        raise DataError(f"{where} is no JSON that can be read", "repair it, or write the answers again") from None


def _answered(entry: Any, where: str, *, turns: bool) -> Answered:
    found = asked(Conversation(tuple(messages_of(entry, where, answered=False)), where))
    given = entry.get(ANSWER)
    if given is not None and (not isinstance(given, str) or re.search("[\ud800-\udfff]", given)):
        raise DataError(f"'{ANSWER}' of {where} is {short(json.dumps(given))}, not text", "write it anew as text")
    expected, turn = found.expected or "", turns and "messages" in entry
    if turn:
        given, expected = found.expected, ""
    messages = told(found.messages)
    alone = len(messages) == 1
    question = "\n\n".join(one["content"] if alone else f"{one['role']}: {one['content']}" for one in messages)
    return Answered(question, expected, given, where, turn)


def shuffled(rows: Sequence[Answered], *, size: int, seed: int) -> tuple[list[Answered], list[Answered]]:
    """At most `size` questions with their expected answers, and the same questions with each other's.

    No question gets an answer that equals its own. Raises SettingsError for a size under two, DataError where there are
    not two different ones.

    >>> rows = [Answered(question, question.upper(), None, "") for question in "abc"]
    >>> good, bad = shuffled(rows, size=2, seed=1)
    >>> [row.answer for row in good] == [row.question.upper() for row in good], bad[0].answer == good[1].answer
    (True, True)
    """
    if size < 2:
        what = f"a judge cannot be checked by {size} answer: it takes another question's beside"
        raise SettingsError(what, "give --check-size 2 or more, or leave the check out with --no-check")
    known = [row for row in rows if row.expected.strip()]
    drawn = random.Random(seed).sample(known, len(known))
    other = next((row for row in drawn if row.expected.strip() != drawn[0].expected.strip()), None)
    if other is None:
        raise DataError(
            f"the judge cannot be checked: {len(known)} of {len(rows)} rows have an expected answer, and it takes two "
            "different ones",
            "give answers with an 'output' each, or leave the check out with --no-check",
        )
    kept = drawn[:size] if other in drawn[:size] else [*drawn[: size - 1], other]
    bad = [replace(row, answer=_another(kept, place)) for place, row in enumerate(kept)]
    return [replace(row, answer=row.expected) for row in kept], bad


def _another(rows: Sequence[Answered], place: int) -> str:
    """The expected answer of the next row, around in a circle, that has another than this one."""
    own = rows[place].expected.strip()
    turned = [*rows[place + 1 :], *rows[:place]]
    return next(row.expected for row in turned if row.expected.strip() != own)


def by_question(rows: Sequence[Answered], others: Sequence[Answered]) -> list[tuple[Answered, Answered]]:
    """Rows of two files that answer the same question, in the order of the first; equal questions by their order."""
    waiting: dict[str, list[Answered]] = {}
    for other in others:
        waiting.setdefault(other.question, []).append(other)
    return [(row, waiting[row.question].pop(0)) for row in rows if waiting.get(row.question)]


# verdicts on files


@dataclass(frozen=True)
class Scores:
    """The scores of one file: of each row one for every repeat, None where a reply was unusable.

    `mean` with its 95 % interval and `median` are over the rows that have a score; `unusable` replies are no score.
    """

    name: str
    scale: str
    rows: list[Answered]
    scores: list[list[float | None]]
    reasons: list[str]

    @property
    def each(self) -> list[float | None]:
        """The mean of a row's usable scores."""
        usable = [[value for value in row if value is not None] for row in self.scores]
        return [sum(row) / len(row) if row else None for row in usable]

    @property
    def usable(self) -> list[float]:
        """The scores of the rows that have one."""
        return [value for value in self.each if value is not None]

    @property
    def unusable(self) -> int:
        """Replies that were no score."""
        return sum(value is None for row in self.scores for value in row)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean and interval."""
        return mean(self.usable)

    @property
    def median(self) -> float:
        """NaN without a score."""
        return statistics.median(self.usable) if self.usable else math.nan

    @property
    def repeats(self) -> Repeats | None:
        """How far the judge agrees with itself."""
        return repeated(self.scores)


@dataclass(frozen=True)
class Duel:
    """Two files, question by question, each pair shown in both orders.

    `shares`: what the first file gets of each point, 1, 0 or half, the mean over repeats; None: unusable. `disagreed`:
    pairs, repeats counted, whose winner changed with the order: they are ties. `first`: share of the point that went to
    whatever stood first; half is fair. `same`: pairs of one and the same answer, ties of which nobody was asked and
    which say nothing of the judge.
    """

    pairs: list[tuple[Answered, Answered]]
    shares: list[float | None]
    reasons: list[str]
    disagreed: int
    first: float
    repeats: Repeats | None
    same: int = 0

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Pairs won by the first file, lost, tied, unusable."""
        usable = [share for share in self.shares if share is not None]
        won, lost = sum(share > 0.5 for share in usable), sum(share < 0.5 for share in usable)
        return won, lost, len(usable) - won - lost, len(self.shares) - len(usable)

    @property
    def mean(self) -> tuple[float, float, float]:
        """The mean share of the first file, with its 95 % interval."""
        return mean_share([share for share in self.shares if share is not None])


def score(bench: Bench, name: str, rows: Sequence[Answered], scale: Scale, *, seed: int, repeats: int = 1) -> Scores:
    """Score each answer of a file so many times, with another seed each time."""
    requests = [Request(row, scale, seed + number) for row in rows for number in range(repeats)]
    found = bench.ask(requests, title=f"judge {name}")
    parts = [found[place : place + repeats] for place in range(0, len(found), repeats)]
    reasons = [next((one.reason for one in part if one.reason), "") for part in parts]
    return Scores(name, scale.name, list(rows), [[one.value for one in part] for part in parts], reasons)


def duel(
    bench: Bench,
    pairs: Sequence[tuple[Answered, Answered]],
    scale: Scale,
    *,
    seed: int,
    repeats: int = 1,
    title: str = "judge pairs",
) -> Duel:
    """Compare answers to the same questions, each pair in both orders, so many times; equal ones tie unasked."""
    differ = [place for place, (one, other) in enumerate(pairs) if not _equal(one, other)]
    requests = []
    for one, other in (pairs[place] for place in differ):
        for number in range(repeats):
            requests.append(Request(one, scale, seed + number, other.answer or ""))
            requests.append(Request(replace(one, answer=other.answer), scale, seed + number, one.answer or ""))
    found = bench.ask(requests, title=title)
    both = [verdict(found[place].value, found[place + 1].value) for place in range(0, len(found), 2)]
    parts = [both[place : place + repeats] for place in range(0, len(both), repeats)]
    rows = [[share for share, _ in part] for part in parts]
    shares: list[float | None] = [0.5] * len(pairs)
    reasons = ["both answers are the same"] * len(pairs)
    for number, place in enumerate(differ):
        usable = [share for share in rows[number] if share is not None]
        shares[place] = sum(usable) / len(usable) if usable else None
        reasons[place] = _reason(found[2 * repeats * number : 2 * repeats * (number + 1)])
    replies = [one.value for one in found if one.value is not None]
    return Duel(
        pairs=list(pairs),
        shares=shares,
        reasons=reasons,
        disagreed=sum(changed for _, changed in both),
        first=sum(replies) / len(replies) if replies else math.nan,
        repeats=repeated(rows),
        same=len(pairs) - len(differ),
    )


def _equal(one: Answered, other: Answered) -> bool:
    return (one.answer or "").strip() == (other.answer or "").strip()


def _reason(part: Sequence[Verdict]) -> str:
    return next((one.reason for one in part if one.reason), "")


def check(bench: Bench, rows: Sequence[Answered], scale: Scale, *, size: int, seed: int) -> Check:
    """Judge the judge: expected answers against those of other questions, asked as it will be asked later.

    By scores that is the area under the ROC curve; for pairs the share of the point that goes to the expected answer.
    """
    good, bad = shuffled(rows, size=size, seed=seed)
    if scale.name == "pairwise":
        pairs = list(zip(good, bad, strict=True))
        return checked_pairs(duel(bench, pairs, scale, seed=seed, title="check the judge").shares)
    requests = [Request(row, scale, seed) for row in [*good, *bad]]
    values = [one.value for one in bench.ask(requests, title="check the judge")]
    return checked(values[: len(good)], values[len(good) :])
