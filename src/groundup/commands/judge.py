"""`groundup judge`: a language model scores answers, after it was judged itself.

In: `settings.Judge`. Out: `Result`: how well the judge tells right answers from wrong ones, a table by file, what it
cost. OUT holds scores.json (every answer with its scores), scores.png, and verdicts.jsonl, by which a judging that was
cut off goes on where it was.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.commands import judge_files
from groundup.errors import DataError, SettingsError
from groundup.evaluate.judge.asking import RUBRIC, Answered, Scale, check_rubric, scale
from groundup.evaluate.judge.bench import Bench, Cost, Verdicts
from groundup.evaluate.judge.places import OPENAI_KEY, Wish, opened
from groundup.evaluate.judge.reliability import FIT, Check, Repeats, mean
from groundup.evaluate.judge.scores import Duel, Scores, by_question, check, duel, read, score, shuffled
from groundup.lock import locked
from groundup.settings import Judge

PROMPT = 2_500  # bytes of our own words in a question, and more
REPEATED = 0.7  # temperature of a server that is asked again: at 0 it would only repeat itself


@dataclass(frozen=True)
class Row:
    """The scores of one file: the mean of the answers that have one, its 95 % interval, and replies that were none."""

    name: str
    answers: int
    scored: int
    unusable: int
    mean: float
    low: float
    high: float
    median: float
    repeats: Repeats | None


@dataclass(frozen=True)
class Pairs:
    """Two files compared: pairs that the first won, lost, tied; ties of which so many were won by place alone.

    `same`: ties of equal answers, of which nobody was asked. `share`: what the first got of all points, with its 95 %
    interval; `first_place`: what an answer got for standing first, half is fair.
    """

    name: str
    against: str
    pairs: int
    won: int
    lost: int
    tied: int
    disagreed: int
    unusable: int
    same: int
    share: float
    low: float
    high: float
    first_place: float
    repeats: Repeats | None


@dataclass(frozen=True)
class Result:
    """What the judge said, and how far it can be relied on; not `ok` for a judge that is unfit, or said nothing.

    `check_known`: verdicts of the check that were known before. `temperature`: at which a server was asked, None where
    it would not be told.
    """

    judge: str
    scale: str
    names: list[str]
    rubric: str
    temperature: float | None
    check: Check | None
    check_known: int
    files: list[Row]
    pairs: Pairs | None
    difference: tuple[float, float, float] | None
    cost: Cost
    seconds: float
    out: Path
    picture: Path | None
    remarks: list[str]
    ok: bool


@dataclass(frozen=True)
class _Task:
    """What is to be judged: rows by the name of their file, all on one scale, or `pairs` of them."""

    files: dict[str, list[Answered]]
    scale: str
    rubric: str
    references: list[Answered]  # of the first file, whatever --limit is
    pairs: list[tuple[Answered, Answered]]
    remarks: list[str]

    def on(self, *, digits: bool) -> Scale:
        """The scale as this judge is asked for it."""
        return scale(self.scale, rubric=self.rubric, digits=digits)


def run(settings: Judge) -> Result:
    """Judge the judge, then the answers; a judge that is unfit scores nothing unless a person wants it `anyway`.

    >>> run(Judge(data="answers.json", judge="ollama:llama3")).files[0].mean  # doctest: +SKIP
    72.5
    """
    began = time.perf_counter()
    task, out = _task(settings), _out(settings)
    judge = opened(_wish(settings))
    judge.prepare(_longest(task))
    with locked(out, doing="groundup judge"):
        judging = {"judge": judge.name, "scale": settings.scale, "rubric": task.rubric, "names": list(task.files)}
        judge_files.check_same(out / "scores.json", judging)
        bench = Bench(judge, Verdicts(out / "verdicts.jsonl"), at_once=settings.concurrency)
        result = _judged(settings, task, bench, out)
    return dataclasses.replace(result, seconds=time.perf_counter() - began)


def _wish(settings: Judge) -> Wish:
    """The judge that is wanted. A variable that a person names, be it none, is the one whose key is sent."""
    named = "api_key_env" in settings.model_fields_set
    return Wish(
        judge=settings.judge,
        model=settings.name,
        timeout=settings.timeout,
        key=settings.api_key_env if named else OPENAI_KEY,
        named=named,
        threads=settings.threads,
        temperature=REPEATED if settings.repeats > 1 else 0.0,
    )


def _judged(settings: Judge, task: _Task, bench: Bench, out: Path) -> Result:
    """The check, the scores, the files of both."""
    chosen, remarks, found = task.on(digits=bench.judge.ours), list(task.remarks), None
    if settings.check:
        found = check(bench, task.references, chosen, size=settings.check_size, seed=settings.seed)
        _say(_words(found, bench.judge.name, bench.cost.known))
    check_known = bench.cost.known
    fit = found is None or found.fit or settings.anyway
    repeats = 1 if bench.judge.ours else settings.repeats
    if settings.repeats > repeats:
        remarks.append("a model of ours says the same each time: it was asked once")
    if bench.judge.ours:
        remarks.append("scores are means under the probabilities of what the judge could reply; it wrote nothing")
    scores, pairs = [], None
    if fit and settings.scale == "pairwise":
        pairs = duel(bench, task.pairs, chosen, seed=settings.seed, repeats=repeats)
    elif fit:
        scores = [
            score(bench, name, _given(rows), chosen, seed=settings.seed, repeats=repeats)
            for name, rows in task.files.items()
        ]
    remarks += _chances(bench, repeats)
    picture = judge_files.draw(out / "scores.png", list(task.files), scores, pairs)
    result = Result(
        judge=bench.judge.name,
        scale=settings.scale,
        names=list(task.files),
        rubric=task.rubric,
        temperature=None if "temperature" in bench.left_out else REPEATED if repeats > 1 else 0.0,
        check=found,
        check_known=check_known,
        files=[_row(one) for one in scores],
        pairs=None if pairs is None else _summed(task, pairs),
        difference=_difference(scores),
        cost=bench.cost,
        seconds=0.0,
        out=out,
        picture=picture,
        remarks=remarks,
        ok=fit and (bool(pairs and pairs.counts[3] < len(pairs.shares)) or any(one.usable for one in scores)),
    )
    judge_files.write(out / "scores.json", dataclasses.asdict(result), scores, pairs)
    return result


def _chances(bench: Bench, repeats: int) -> list[str]:
    """What is left to chance in the replies, in words."""
    free = sorted(bench.left_out & {"temperature", "seed"})
    remarks = [f"the judge takes no {' or '.join(free)}: asked again, it may say something else"] if free else []
    if repeats > 1 and "temperature" not in free:
        how = f"at temperature {REPEATED:g}, with another seed each time"
        remarks.append(f"every answer was judged {repeats} times {how}; without --repeats it is judged at 0")
    return remarks


# what is asked for


def _task(settings: Judge) -> _Task:
    """Read and check what is to be judged, before any judge is asked."""
    if settings.data is None:
        raise SettingsError("no answers were given", "name a file that groundup respond wrote: groundup judge FILE")
    if settings.scale == "pairwise" and settings.against is None:
        raise SettingsError("--scale pairwise compares two files, and one was given", "name the other with --against")
    if settings.rubric is not None and settings.scale != "rubric":
        raise SettingsError(f"--rubric goes with --scale rubric, not {settings.scale}", "give both, or neither")
    rubric = RUBRIC if settings.rubric is None else _rubric(settings.rubric)
    rubric, remarks = rubric if settings.scale == "rubric" else "", list[str]()
    paths = [settings.data] if settings.against is None else [settings.data, settings.against]
    if len({path.resolve() for path in paths}) < len(paths):
        raise SettingsError(f"{settings.data} was given twice", "name two different files of answers")
    names = [path.name for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    whole = {name: read(path) for name, path in zip(names, paths, strict=True)}
    files = {name: rows[: settings.limit] for name, rows in whole.items()}
    for name, rows in files.items():
        missing = sum(row.answer is None for row in rows)
        if missing == len(rows):
            raise DataError(
                f"{name} holds no answers of a model: none of {len(rows)} entries has 'model_response'",
                "let a model answer first: groundup respond MODEL --data FILE --out FILE",
            )
        if any(row.turn for row in rows):
            remarks.append(f"{name} has no 'model_response': the last turn of each conversation was judged")
        if missing:
            remarks.append(f"{missing} of {len(rows)} entries of {name} have no answer, and no score")
    pairs = _pairs(files, remarks) if settings.scale == "pairwise" else []
    if settings.check:
        shuffled(whole[names[0]], size=settings.check_size, seed=settings.seed)  # raises where there can be no check
    return _Task(files, settings.scale, rubric, whole[names[0]], pairs, remarks)


def _rubric(path: Path) -> str:
    try:
        return check_rubric(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"cannot read the rubric {path}: {reason}", "give a text file that describes 1 to 5") from None


def _out(settings: Judge) -> Path:
    """The folder for what comes out: `--out`, or one beside the answers with their name."""
    assert settings.data is not None
    out = settings.out or settings.data.with_name(f"{settings.data.stem}-judged")
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out} is a file", "name a folder: scores, cache and picture go into it")
    return out


def _given(rows: Sequence[Answered]) -> list[Answered]:
    """The rows that have an answer, be it an empty one."""
    return [row for row in rows if row.answer is not None]


def _pairs(files: dict[str, list[Answered]], remarks: list[str]) -> list[tuple[Answered, Answered]]:
    """Answers of both files to the same questions."""
    one, other = (_given(rows) for rows in files.values())
    pairs = by_question(one, other)
    first, second = files
    if not pairs:
        raise DataError(f"{first} and {second} share no question", "compare answers to one set of questions")
    if left := len(one) + len(other) - 2 * len(pairs):
        remarks.append(f"{left} answers have no counterpart in the other file, and were left out")
    return pairs


def _longest(task: _Task) -> int:
    """Bytes that no question exceeds: task, expected answer, two answers, rubric, our words."""
    rows = [*task.references, *(row for rows in task.files.values() for row in rows)]
    texts = [max(len(row.expected.encode()), len((row.answer or "").encode())) for row in rows]
    asked = max(len(row.question.encode()) + len(row.expected.encode()) for row in rows)
    return asked + 2 * max(texts) + len(task.rubric.encode()) + PROMPT


# what came out


def _words(found: Check, name: str, known: int) -> str:
    """The check in a line or two."""
    what = f"{found.good} expected and {found.bad} shuffled answers"
    unread = f", {found.unusable} without a usable reply" if found.unusable else ""
    verdict = "fit" if found.fit else f"UNFIT: an area of {FIT} at least, and readable replies, are needed"
    area = "no area" if math.isnan(found.area) else f"ROC area {found.area:.3f} ({found.low:.3f} to {found.high:.3f})"
    before = f" ({known} verdicts known before)" if known else ""
    return f"the judge {name}: {area} over {what}{before}{unread}: {verdict}"


def _row(scores: Scores) -> Row:
    middle, low, high = scores.mean
    usable = scores.usable
    return Row(
        scores.name, len(scores.rows), len(usable), scores.unusable, middle, low, high, scores.median, scores.repeats
    )


def _summed(task: _Task, pairs: Duel) -> Pairs:
    first, second = task.files
    won, lost, tied, unusable = pairs.counts
    share, low, high = pairs.mean
    counts = (len(pairs.pairs), won, lost, tied, pairs.disagreed, unusable, pairs.same)
    return Pairs(first, second, *counts, share, low, high, pairs.first, pairs.repeats)


def _difference(scores: Sequence[Scores]) -> tuple[float, float, float] | None:
    """First file minus second over the questions that both have a score for, with a 95 % interval."""
    if len(scores) != 2:
        return None
    values = [dict(zip(map(id, one.rows), one.each, strict=True)) for one in scores]
    pairs = by_question(scores[0].rows, scores[1].rows)
    both = [(values[0][id(one)], values[1][id(other)]) for one, other in pairs]
    gaps = [one - other for one, other in both if one is not None and other is not None]
    return mean(gaps) if gaps else None


def show(result: Result) -> None:
    """Print the judge's own quality, then the table of what it said."""
    print(f"judge        {result.judge}, scale {result.scale}")
    if result.check is None:
        print("judged       not at all: --no-check")
    else:
        print(f"judged       {_words(result.check, 'itself', result.check_known)}")
    for line in _table(result):
        print(line)
    cost = result.cost
    tokens = f"{cost.read:,} tokens read, {cost.written:,} written"
    tokens += f", unknown for {cost.uncounted} of them" if cost.uncounted else ""
    print(f"cost         {cost.asked:,} questions in {result.seconds:.1f} s; {tokens}")
    if cost.known:
        print(f"             {cost.known:,} known before, for {cost.known_read:,} read, {cost.known_written:,} written")
    for remark in result.remarks:
        print(f"note         {remark}")
    if not result.files and result.pairs is None:
        print("nothing was scored: take another judge, or this one all the same with --anyway")
    print(f"written      {result.out}")


def _table(result: Result) -> list[str]:
    """One line a file, or the outcome of all pairs."""
    lines = []
    for row in result.files:
        if not row.scored:
            lines.append(f"{row.name}: no usable score; replies unusable: {row.unusable}")
            continue
        reach = f" (95 %: {row.low:.2f} to {row.high:.2f})" if row.scored > 1 else ""
        lines.append(
            f"{row.name}: mean {row.mean:.2f}{reach}, median {row.median:.2f}, {row.scored} of {row.answers} answers, "
            f"replies unusable: {row.unusable}"
        )
        lines += _agreement(row.repeats, result.temperature)
    if result.difference is not None:
        middle, low, high = result.difference
        lines.append(f"difference   {middle:+.2f} (95 %: {low:+.2f} to {high:+.2f}), question by question")
    if (pairs := result.pairs) is not None:
        lines.append(f"{pairs.name} against {pairs.against}: {pairs.won} won, {pairs.lost} lost, {pairs.tied} tied")
        turned = f"{pairs.disagreed} of the ties changed sides with the order"
        lines.append(f"             {turned}, {pairs.same} are of equal answers, unasked; {pairs.unusable} unusable")
        lines.append(f"             share {pairs.share:.3f} (95 %: {pairs.low:.3f} to {pairs.high:.3f})")
        if not math.isnan(pairs.first_place):
            lines.append(f"             whoever stood first got {pairs.first_place:.3f} of a point")
        lines += _agreement(pairs.repeats, result.temperature)
    return lines


def _agreement(repeats: Repeats | None, temperature: float | None) -> list[str]:
    if repeats is None:
        return []
    figures = f"{repeats.equal:.0%} equal, {repeats.difference:.2f} apart in the mean"
    warm = "" if temperature is None else f" at temperature {temperature:g}"
    return [f"             asked again{warm}: {figures}, Krippendorff's alpha {repeats.alpha:.3f}"]


def _say(text: str) -> None:
    """One line for the person, on standard error."""
    print(text, file=sys.stderr, flush=True)
