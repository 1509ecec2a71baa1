"""`groundup compare`: two models or more answer the same prompts; rewards, a judge or a person say which does better.

In: `settings.Compare`. Out: `Result`: a table of the models and of every kind of marks. OUT holds the answers, votes,
scores.json with every mark, and comparison.html with all of it side by side. A comparison that was cut off goes on
where it was; asked for again with other marks it gets another column, and no answer is written anew.
"""

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.checkpoint import atomic
from groundup.commands import compare_answers as sheets
from groundup.commands import compare_distances, compare_marks, compare_page, compare_votes
from groundup.commands.compare_answers import Asked, Board, Contender, Written, answers_file
from groundup.errors import SettingsError
from groundup.evaluate.answers import exact
from groundup.evaluate.compare import Column, Divergence, Gap, Spread, Wins
from groundup.evaluate.judge.reliability import Check
from groundup.generate import Sampler
from groundup.lock import locked
from groundup.settings import Compare

DASH = "\u2013"


@dataclass(frozen=True)
class Row:
    """One model: means over its answers, of tokens (its own) and letters, and the share that came to their end.

    `exact`: share of the answers that are as expected to the word, where the data says what is. `kl`: KL(model ||
    first), None for the first, and where it is not known.
    """

    name: str
    model: str
    tokens: float
    letters: float
    ended: float
    exact: float | None
    kl: Divergence | None


@dataclass(frozen=True)
class Marks:
    """One kind of marks: spreads of all models' scores; wins and gaps of each model but the first."""

    name: str
    kind: str
    spreads: list[Spread]
    gaps: list[Gap]
    wins: list[Wins]


@dataclass(frozen=True)
class Result:
    """The comparison. `about`: how the answers came about. Not `ok` where a judge is unfit, or said nothing."""

    rows: list[Row]
    marks: list[Marks]
    prompts: int
    about: str
    check: Check | None
    out: Path
    page: Path
    remarks: list[str]
    seconds: float
    ok: bool


def run(settings: Compare) -> Result:
    """Let every model answer, mark the answers, lay them side by side.

    Raises SettingsError for fewer than two models, a reward that means nothing, a folder of another comparison, a
    person to be asked without a terminal; Gone where no judge answers. Whatever was answered or voted by then is kept.

    >>> run(Compare(models=["runs/a", "runs/b"], data=["p.jsonl"], reward=["exact"])).marks[0].wins  # doctest: +SKIP
    [Wins(won=52, lost=11, tied=37, unused=0, share=0.705, low=0.609, high=0.786)]
    """
    began = time.perf_counter()
    if settings.human:
        compare_votes.check_terminal()
    sheets.check_count(settings)
    asked, contenders = sheets.prompts(settings), sheets.look(settings)
    compare_marks.check_rewards(settings, asked)
    judge = compare_marks.found_judge(settings) if compare_marks.is_server(settings.judge) else None
    out = _out(settings, contenders)
    with locked(out, doing="groundup compare"):
        sheets.claim(out, sheets.about(settings, asked, contenders))
        board = _board(settings, asked, contenders, out)
        new, old = compare_marks.rewarded(settings, board), compare_marks.kept(board)
        found, remarks, ok = None, _remarks(settings, board), True
        if settings.judge:
            judge = judge or compare_marks.found_judge(settings)
            column, found, said = compare_marks.judged(settings, board, judge)
            new += [column] if column else []
            ok = column is not None and any(share is not None for one in column.shares for share in one)
            remarks += [] if column else said
        columns = compare_marks.merged(old, new)
        remarks += [said_before for column in columns for said_before in column.remarks]
        found = found or next((column.check for column in columns if column.check), None)
        result = _finish(settings, board, columns, remarks)
        if settings.human:
            compare_marks.ask(settings, board)
            result = _finish(settings, board, columns, remarks)
    return dataclasses.replace(result, check=found, ok=ok, seconds=time.perf_counter() - began)


def _out(settings: Compare, contenders: Sequence[Contender]) -> Path:
    """The folder: --out, or runs/compare-A-B named after the models."""
    names = "-".join(re.sub(r"[^\w.]+", "-", one.name).strip("-.") for one in contenders)
    out = settings.out or Path("runs") / f"compare-{names}"
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out} is a file", "name a folder: answers, scores, votes and the page go into it")
    return out


# answers


def _board(settings: Compare, asked: Asked, contenders: Sequence[Contender], out: Path) -> Board:
    """Every model's answers, one model after the other, and the distances from the first."""
    answers, drawn = list[list[Written]](), dict[int, list[Written]]()
    for place, one in enumerate(contenders):
        # each has luck of its own: with that of the first, one model given twice would never differ from itself
        seed = (settings.seed + place) % 2**63
        path = extra = answers_file(out, place)
        files = {path: Sampler(temperature=settings.temperature, top_p=settings.top_p, seed=seed)}
        measured = place > 0 and _measured(settings, one, contenders[0])
        if measured and not _free(settings):
            extra = out / f"drawn-{place + 1}.jsonl"
            files[extra] = Sampler(temperature=1, seed=seed)
        found = sheets.written(settings, asked, one, files)
        answers.append(found[path])
        if measured:
            drawn[place] = found[extra]
    kl = compare_distances.distances(settings, contenders, drawn, out) if drawn else {}
    return Board(asked, list(contenders), answers, out, kl)


def _free(settings: Compare) -> bool:
    """Whether answers are drawn from all that a model says, as it says it: only from such KL can be estimated."""
    return settings.temperature == 1 and settings.top_p == 1


def _measured(settings: Compare, one: Contender, first: Contender) -> bool:
    """Whether KL of a model from the first is estimated."""
    return settings.kl and settings.dtype != "int8" and compare_distances.same_words(one, first)


def _remarks(settings: Compare, board: Board) -> list[str]:
    """What a person should know before they read a figure."""
    asked, first, found = board.asked, board.contenders[0], list[str]()
    if asked.repeated:
        found.append(f"{asked.repeated:,} prompts ask what an earlier one does, and were left out")
    for place, (one, written) in enumerate(zip(board.contenders, board.answers, strict=True)):
        if place and (one.weights, one.words) == (first.weights, first.words):
            same = "whatever differs is chance" if settings.temperature else "so are its greedy answers"
            found.append(f"{one.name} is the same model as {first.name}: {same}")
        ended = sum(answer.ended for answer in written)
        if not ended:
            found.append(
                f"no answer of {one.name} came to its end within {settings.max_tokens:,} tokens: raise --max-tokens, "
                "or it never learnt to end one"
            )
        if lost := sum(answer.outgrew(one.context) for answer in written):
            what = f"the context of {one.name}, {one.context:,} tokens: the beginning went out of sight"
            found.append(f"{lost:,} prompts with their answers outgrew {what}")
        if place and settings.kl:
            found += _distance_remarks(settings, board, place)
    return found


def _distance_remarks(settings: Compare, board: Board, place: int) -> list[str]:
    """Why there is no KL, or of what it is."""
    one, first = board.contenders[place], board.contenders[0]
    if settings.dtype == "int8":
        return [f"KL of {one.name} is left out: answers written in int8 are not drawn from the model itself"]
    if not compare_distances.same_words(one, first):
        return [f"KL of {one.name} is left out: it has another vocabulary or template than {first.name}"]
    kl, found = board.kl.get(place), list[str]()
    if kl is None or kl.left_out:
        count = "all" if kl is None else f"{kl.left_out:,}"
        bias = "" if kl is None else ": it is that of the shorter ones, which may be nearer or farther than the others"
        found.append(f"KL of {one.name}: {count} of its answers were left out, as they outgrew the context{bias}")
    drawn, scored = compare_distances.formats(settings, one)
    if drawn != scored:
        lost = f"what rounding to {drawn} moves the model is not in it"
        found.append(f"KL of {one.name} is of answers drawn in {drawn} and scored in {scored}: {lost}")
    if not _free(settings) and place == 1:
        found.append("KL is estimated from answers of its own, drawn at temperature 1: others say nothing about it")
    return found


# what comes out


def _finish(settings: Compare, board: Board, columns: Sequence[Column], remarks: Sequence[str]) -> Result:
    """Figures, scores.json and the page, with the votes there are."""
    columns, seed = [*columns, *compare_marks.voted(settings, board)], settings.seed
    if not (columns or settings.reward or settings.judge or settings.human):
        remarks = [*remarks, "nothing was asked to say which answer is better: --reward, --judge or --human"]
    result = Result(
        rows=[_row(board, place) for place in range(len(board.answers))],
        marks=[Marks(one.name, one.kind, one.spreads(), one.gaps(seed), one.wins()) for one in columns],
        prompts=len(board.asked),
        about=_about(settings, board),
        check=None,
        out=board.out,
        page=board.out / compare_page.NAME,
        remarks=list(remarks),
        seconds=0.0,
        ok=True,
    )
    kept = {name: value for name, value in dataclasses.asdict(result).items() if name in ("rows", "marks", "remarks")}
    kept |= {"about": result.about, "answers": sheets.fingerprint(board.answers)}
    kept |= {"columns": [dataclasses.asdict(one) for one in columns]}
    # the page first: marks that it cannot show must not be in the way of every later run
    content = compare_page.page(board, columns, table(result), about=result.about, remarks=remarks)
    atomic.write_text(board.out / compare_marks.SCORES, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    compare_page.write(result.page, content)
    return result


def _about(settings: Compare, board: Board) -> str:
    """How the answers came about."""
    cut = f", the {settings.top_p:g} most likely" if settings.top_p < 1 else ""
    how = f"temperature {settings.temperature:g}{cut}, seed {settings.seed}" if settings.temperature else "greedy"
    source = ", ".join(settings.data)
    return f"{len(board.asked):,} prompts of {source}, {how}, at most {settings.max_tokens:,} tokens an answer"


def _row(board: Board, place: int) -> Row:
    written, one = board.answers[place], board.contenders[place]
    texts, count = [answer.text for answer in written], len(written)
    right = exact(texts, board.asked.rows)
    return Row(
        name=one.name,
        model=one.spec,
        tokens=sum(len(answer.ids) for answer in written) / count,
        letters=sum(map(len, texts)) / count,
        ended=sum(answer.ended for answer in written) / count,
        exact=None if right is None else right.share,
        kl=board.kl.get(place),
    )


def table(result: Result) -> list[list[str]]:
    """The figures as rows of words: the names of the models, then a row for each figure, the first cell naming it."""
    rows = result.rows
    found = [
        ["", *(row.name for row in rows)],
        ["tokens an answer", *(f"{row.tokens:,.1f}" for row in rows)],
        ["letters an answer", *(f"{row.letters:,.1f}" for row in rows)],
        ["came to its end", *(f"{100 * row.ended:.1f} %" for row in rows)],
    ]
    if any(row.exact is not None for row in rows):
        found.append(["exactly as expected", *(_share(row.exact) for row in rows)])
    if any(row.kl is not None for row in rows):
        found.append([f"KL from {rows[0].name}, nats an answer \u00b1 error", *(_distance(row.kl) for row in rows)])
    for one in result.marks:
        if one.spreads:
            found.append([f"{one.name}: mean", *(f"{each.mean:.4g}" for each in one.spreads)])
            found.append([f"{one.name}: more than {rows[0].name}", DASH, *map(_gap, one.gaps)])
        found.append([f"{one.name}: points against {rows[0].name}", DASH, *map(_points, one.wins)])
        found.append([f"{one.name}: won, tied, lost", DASH, *map(_counts, one.wins)])
    return found


def _counts(found: Wins) -> str:
    unused = f" ({found.unused:,} without a verdict)" if found.unused else ""
    return f"{found.won}, {found.tied}, {found.lost}{unused}"


def _share(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def _distance(found: Divergence | None) -> str:
    if found is None:
        return DASH
    return f"{found.nats:.3f}" + ("" if found.error is None else f" \u00b1 {found.error:.3f}")


def _gap(found: Gap) -> str:
    reach = "" if found.low is None or found.high is None else f" ({found.low:+.3g} to {found.high:+.3g})"
    return f"{found.mean:+.4g}{reach}"


def _points(found: Wins) -> str:
    if found.share is None:
        return DASH
    return f"{100 * found.share:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def show(result: Result) -> None:
    """Print the table, what to know of it, and where the page is."""
    print(f"compared     {result.about}")
    rows = table(result)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for name, *cells in rows:
        told_of = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        print(f"{name:<{widths[0]}}  {told_of}")
    for remark in result.remarks:
        print(f"note         {remark}")
    if any(one.wins for one in result.marks):
        print("             points: one a prompt, half for a tie; in brackets the 95 % interval")
    print(f"written      {result.page}")
