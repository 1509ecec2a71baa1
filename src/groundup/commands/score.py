"""`groundup score`: what a reward model thinks of an answer, of a file of answers, or of both answers of pairs.

In: `settings.Score`. Out: `Result`: a score for each answer, the higher the better, and for pairs which side wins and
how often that is the right one. Scores have mean 0 and deviation 1 on the answers that the model was taught with, or
are raw (`--raw`). An answer is always read whole; a conversation that is longer than the model's context loses the
beginning of its prompt, which is told.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup import machine as machines
from groundup.checkpoint import atomic
from groundup.errors import DataError, SettingsError, TokenizerError
from groundup.evaluate import scoring
from groundup.evaluate.answers import asked
from groundup.evaluate.judge import scores as judge
from groundup.evaluate.scoring import Read, RewardModel
from groundup.journal import Progress
from groundup.machine import Machine
from groundup.settings import Score
from groundup.text import conversations, files, packed, preferences
from groundup.text.conversations import Conversation, told
from groundup.text.preferences import Preference

PAIR = ("chosen", "response_1")  # fields of which a pair has one, and a conversation none
WIDE = 60  # characters of a text on a line of the screen
SHOWN = 40  # lines of a table


@dataclass(frozen=True)
class Scored:
    """An answer and its score; `cut`: tokens at the beginning of its prompt that were out of sight."""

    prompt: str
    response: str
    score: float
    where: str = ""
    cut: int = 0


@dataclass(frozen=True)
class ScoredPair:
    """Both answers of a pair with their scores; `right`: the chosen one has the higher, None where they are equal."""

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    right: bool | None
    where: str = ""
    cut: int = 0


@dataclass(frozen=True)
class Result:
    """The scores, of answers or of pairs; `average` of all of them. `normalised`: (raw - mean) / spread.

    `accuracy`: share of the pairs whose chosen answer has the higher score, equal ones half; None for answers. `left`:
    rows whose answer is missing or empty, pairs that are none: they have no score. `cut`: rows whose prompt was cut.
    Time is without loading.
    """

    model: Path
    normalised: bool
    mean: float
    spread: float
    rows: int
    left: int
    cut: int
    average: float
    accuracy: float | None
    scores: list[Scored]
    pairs: list[ScoredPair]
    out: Path | None
    seconds: float


def run(settings: Score) -> Result:
    """Score the answers; with --out also as one JSON object a line (of - it is `show` that prints them).

    Raises SettingsError where no answer or two sources were given, CheckpointError for what is no reward model,
    DataError for an answer that is empty or cannot be read, naming its place.

    >>> run(Score(model="runs/reward", prompt="What is a gull?", response="A bird.")).average  # doctest: +SKIP
    0.83
    """
    _check(settings)
    talks, pairs, left = _given(settings)
    machine = machines.choose(device=settings.device, dtype=settings.dtype, threads=settings.threads)
    found = scoring.opened(settings.model, machine=machine, template=settings.template, normalise=not settings.raw)
    began = time.perf_counter()
    rows, scores = _scores(settings, found, machine, talks)
    alone, both = _told(talks, pairs, [row.cut for row in rows], scores)
    result = Result(
        model=found.folder,
        normalised=found.scaled and not settings.raw,
        mean=found.head.mean,
        spread=found.head.spread,
        rows=len(both) or len(alone),
        left=left,
        cut=sum(one.cut > 0 for one in alone) + sum(one.cut > 0 for one in both),
        average=sum(scores) / len(scores),
        accuracy=sum(0.5 if one.right is None else one.right for one in both) / len(both) if both else None,
        scores=alone,
        pairs=both,
        out=settings.out,
        seconds=time.perf_counter() - began,
    )
    if settings.out is not None and str(settings.out) != "-":
        _write(settings.out, result)
    return result


def _scores(
    settings: Score, found: RewardModel, machine: Machine, talks: Sequence[Conversation]
) -> tuple[list[Read], list[float]]:
    """What was read of each conversation, and its score."""
    context = found.model.config.context
    rows = [_read(found, talk, context) for talk in talks]
    scores = [0.0] * len(rows)
    ids = [row.ids for row in rows]
    with Progress("score", total=len(rows), unit="answer", quiet=len(rows) == 1) as line:
        said = scoring.each(found.model, ids, machine=machine, batch=settings.batch, normalise=not settings.raw)
        for done, (place, score) in enumerate(said, 1):
            scores[place] = score
            line.update(done)
    return rows, scores


def _read(found: RewardModel, talk: Conversation, context: int) -> Read:
    """The ids of a conversation; what is wrong with it is told with its place."""
    try:
        return scoring.read(found.tokenizer, found.template, talk, context=context)
    except TokenizerError as error:
        raise DataError(
            f"{talk.where or 'the conversation'} cannot be read by this reward model: {error.what}", error.fix
        ) from None


def _told(
    talks: Sequence[Conversation], pairs: Sequence[Preference], cuts: Sequence[int], scores: Sequence[float]
) -> tuple[list[Scored], list[ScoredPair]]:
    """Every answer with its score; or, where the conversations are both sides of pairs, every pair with its two."""
    if pairs:
        sides = zip(pairs, scores[::2], scores[1::2], map(max, cuts[::2], cuts[1::2]), strict=True)
        return [], [_paired(pair, (chosen, rejected), cut) for pair, chosen, rejected, cut in sides]
    alone = [
        Scored(_last(talk), str(talk.messages[-1]["content"]), score, talk.where, cut)
        for talk, score, cut in zip(talks, scores, cuts, strict=True)
    ]
    return alone, []


def _paired(pair: Preference, scores: tuple[float, float], cut: int) -> ScoredPair:
    chosen, rejected = scores
    right = None if chosen == rejected else chosen > rejected
    prompt = str(told(pair.messages[-1:])[0]["content"])
    return ScoredPair(prompt, pair.chosen, pair.rejected, chosen, rejected, right, pair.where, cut)


def _last(talk: Conversation) -> str:
    """What the scored answer answers."""
    return str(told(talk.messages[-2:-1])[0]["content"]) if len(talk.messages) > 1 else ""


# what is scored


def _check(settings: Score) -> None:
    """What is wrong with the flags is said before anything is opened."""
    if not settings.model:
        raise SettingsError(
            "no model was given", "name a reward model: groundup score runs/NAME --prompt ... --response ..."
        )
    if settings.file is not None and (settings.prompt is not None or settings.response is not None):
        raise SettingsError("--file was given beside --prompt or --response", "give the one or the other")
    if settings.file is None and (settings.prompt is None or settings.response is None):
        what = "no answer was given" if settings.response is None else "no --prompt was given, which the answer answers"
        raise SettingsError(what, 'give --prompt "..." and --response "...", or --file FILE')


def _given(settings: Score) -> tuple[list[Conversation], list[Preference], int]:
    """The conversations to be scored, the pairs that they are two by two, and how many rows are left out."""
    if settings.file is None:
        response = str(settings.response)
        response = sys.stdin.read() if response == "-" else response
        for name, text in (("prompt", str(settings.prompt)), ("response", response)):
            if not text.strip():
                raise DataError(f"the {name} is empty", f"give a {name} with something in it")
        return [Conversation(_messages([{"role": "user", "content": str(settings.prompt)}], response))], [], 0
    if _is_pairs(settings.file):
        rows = preferences.read(str(settings.file))
        pairs = [row for row in rows if _is_pair(row)]
        if not pairs:
            what = f"{settings.file} has no pair of two answers"
            raise DataError(what, "give pairs of answers that differ, and say something")
        sides = [(pair, side) for pair in pairs for side in (pair.chosen, pair.rejected)]
        talks = [Conversation(_messages(pair.messages, side), pair.where) for pair, side in sides]
        return talks, pairs, len(rows) - len(pairs)
    talks, left = _talks(settings.file)
    return talks, [], left


def _is_pair(row: Preference) -> bool:
    chosen, rejected = row.chosen.strip(), row.rejected.strip()
    return not row.fault and bool(chosen) and bool(rejected) and chosen != rejected


def _messages(prompt: Sequence[Mapping[str, Any]], response: str) -> tuple[Mapping[str, Any], ...]:
    return (*prompt, {"role": "assistant", "content": response})


def _is_pairs(file: Path) -> bool:
    """Whether a file, or what a name stands for, holds pairs: by its first entry."""
    if not file.is_file():
        return str(file).partition(":")[0] in preferences.names()
    if packed.kind(file) not in (".json", ".jsonl"):
        return False
    text = "".join(files.decoded(file))
    try:
        first = json.loads(text if packed.kind(file) == ".json" else next(filter(str.strip, text.split("\n"))))
    except (ValueError, RecursionError, StopIteration):  # whoever reads it next says what is wrong with it
        return False
    first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, Mapping) and any(name in first for name in PAIR)


def _talks(file: Path) -> tuple[list[Conversation], int]:
    """Conversations up to the answer to their last question: a model's, where the file has those, else their own.

    And how many are left out: a model may have said nothing.
    """
    questions = [(row.where, asked(row)) for row in conversations.read(file, answered=False)]
    given = judge.read(file) if file.is_file() else []
    written = [row.answer for row in given] if any(row.answer is not None and not row.turn for row in given) else []
    answers = written or [question.expected for _, question in questions]
    if not written:
        missing = next((where for (where, _), answer in zip(questions, answers, strict=True) if answer is None), None)
        if missing is not None:
            raise DataError(
                f"{missing} has no answer that could be scored",
                "let a model answer first: groundup respond MODEL --data FILE --out FILE",
            )
    talks = [
        Conversation(_messages(question.messages, answer), where)
        for (where, question), answer in zip(questions, answers, strict=True)
        if answer is not None and answer.strip()
    ]
    if not talks:
        raise DataError(f"{file} has no answer that says anything", "let another model answer, or for longer")
    return talks, len(questions) - len(talks)


# what comes out


def _write(out: Path, result: Result) -> None:
    """One JSON object a line, in one go."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(out, "".join(line + "\n" for line in _lines(result)))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", "choose another --out") from None


def _lines(result: Result) -> Iterator[str]:
    rows: list[Scored | ScoredPair] = [*result.scores, *result.pairs]
    for one in rows:
        kept = {name: value for name, value in asdict(one).items() if value != "" and (name != "cut" or value)}
        yield json.dumps(kept, ensure_ascii=False)


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(result: Result) -> None:
    """Print a table, or the one score, or with --out - the lines; remarks and sums go to standard error."""
    if result.out is None or str(result.out) == "-":
        for line in _table(result) if result.out is None else _lines(result):
            print(line)
    unit = "in units of the spread in training" if result.normalised else "raw"
    if result.rows > 1:
        _remark(f"{result.rows:,} rows in {result.seconds:.1f} s, mean score {result.average:.4f} ({unit})")
    if result.left:
        _remark(f"{result.left:,} rows have no score: their answer is missing or empty, or two of them are no pair")
    if result.cut:
        _remark(f"{result.cut:,} rows are longer than the model's context: the beginning of their prompts was not read")
    if result.accuracy is not None:
        _remark(f"the chosen answer has the higher score in {100 * result.accuracy:.2f} % of {result.rows:,} pairs")


def _table(result: Result) -> Iterator[str]:
    """A line for each row, at most `SHOWN`."""
    if result.rows == 1 and result.scores:
        yield f"{result.scores[0].score:.4f}"
        return
    if result.pairs:
        yield f"{'chosen':>9} {'rejected':>9}          prompt"
    for pair in result.pairs[:SHOWN]:
        verdict = {True: "right", False: "wrong", None: "equal"}[pair.right]
        yield f"{pair.chosen_score:9.4f} {pair.rejected_score:9.4f}  {verdict}   {_short(pair.prompt)}"
    for one in result.scores[:SHOWN]:
        yield f"{one.score:9.4f}  {_short(one.prompt)} -> {_short(one.response)}"
    if result.rows > SHOWN:
        yield f"... and {result.rows - SHOWN:,} more: --out FILE writes them all, --json prints them"


def _short(text: str) -> str:
    """The beginning of a text, on one line, without what could take over a terminal."""
    words = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return words if len(words) <= WIDE else words[: WIDE - 1] + "…"
