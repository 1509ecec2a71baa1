"""`groundup reproduce`: what the documents print beside what comes out here, figure by figure.

In: `settings.Reproduce`. Out: a row for each figure and counts of the verdicts; rows are shown while lessons run.
"""

import contextlib
import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from groundup import figures
from groundup.errors import GroundupError, SettingsError
from groundup.figures import Figure, Finding
from groundup.figures.record import brief
from groundup.lessons import ladder
from groundup.lessons.ladder import LADDER, Rung
from groundup.settings import Reproduce

Emit = Callable[[str], None]
VALUE = 24  # characters of a value in the table
UNCHECKED = {  # verdicts of figures that were not computed, and what would change that
    "needs-weights": "OpenAI's GPT-2: `groundup lesson openai_weights` says how to get it",
    "needs-gpu": "run it where torch finds a GPU",
    "needs-judge": "a language model that scores answers",
    "not-checkable": "the document leaves out what it was made with",
}
MEANS = UNCHECKED | {
    "stale": "made with an older library, model or machine: today's value is the one on file",
    "slip": "the document errs: what is right came out",
    "differs": "neither the printed value nor the one on file",
    "failed": "the lesson stopped",
}


@dataclass(frozen=True)
class Row:
    """A figure, what was printed and obtained, and the verdict; `note` says why they differ."""

    id: str
    document: str
    section: str
    what: str
    printed: Any
    obtained: Any
    verdict: str
    note: str
    published: dict[str, Any] | None


@dataclass(frozen=True)
class Result:
    """All rows, how many of each verdict, and seconds."""

    rows: list[Row]
    counts: dict[str, int]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no figure differs and no lesson stopped: else the command ends with status 1."""
        return not self.counts.get("differs") and not self.counts.get("failed")


def run(settings: Reproduce, *, emit: Emit | None = None) -> Result:
    """Run the lessons of the figures asked for; where one stops, its figures read "failed".

    >>> run(Reproduce(figures=["kar.agg"])).counts
    {'reproduced': 4}
    """
    say = emit or _silent
    began, rows = time.perf_counter(), list[Row]()
    wanted = chosen(settings.figures)
    for name in dict.fromkeys(figure.lesson for figure in wanted):
        here = [figure for figure in wanted if figure.lesson == name]
        say(f"\n{_heading(name)}\n{_columns('', '', 'printed', 'obtained', 'verdict')}\n")
        for row in _climbed(name, here):
            rows.append(row)
            say(line(row) + "\n")
    return Result(rows, dict(Counter(row.verdict for row in rows)), time.perf_counter() - began)


def chosen(words: Sequence[str]) -> list[Figure]:
    """The figures meant by ids, beginnings of ids, lessons, "quick" (no long lesson) or "all", in reading order.

    Raises DataError for a word that fits none, SettingsError where nothing is left.

    >>> len(chosen(["kar.agg", "averaging"]))
    4
    """
    order = {rung.name: number for number, rung in enumerate(LADDER)}
    long = {rung.name for rung in LADDER if rung.minutes}
    found: dict[str, Figure] = {}
    for word in words or ["quick"]:
        if word in ("quick", "all"):
            few = [one for one in figures.load().values() if word == "all" or one.lesson not in long]
        else:
            few = [] if word in order and not _shown_by(word) else figures.find(word)
        found |= {figure.id: figure for figure in few}
    if not found:
        raise SettingsError("the lessons named show no figure of the documents", "`groundup lesson NAME` runs them")
    return sorted(found.values(), key=lambda figure: order.get(figure.lesson, len(order)))


def _shown_by(lesson: str) -> list[Figure]:
    return [figure for figure in figures.load().values() if figure.lesson == lesson]


def _climbed(name: str, wanted: Sequence[Figure]) -> Iterator[Row]:
    """The rows of one lesson. What it prints is dropped; long ones show their progress on standard error."""
    if not name:
        yield from (_unchecked(figure, "") for figure in wanted)
        return
    failed = ""
    with figures.recording() as found, contextlib.redirect_stdout(io.StringIO()):
        try:
            ladder.run(name)
        except GroundupError as error:
            failed = " ".join(str(error).split())
        except Exception as error:  # a rung that stops must not hide what the others say
            failed = f"{type(error).__name__}: {error}"
    by_id = {one.figure.id: one for one in found}
    for figure in wanted:
        yield (_row(by_id[figure.id]) if figure.id in by_id else _unchecked(figure, failed))


def _row(found: Finding) -> Row:
    figure = found.figure
    note = "" if found.verdict == "reproduced" else figure.note
    return Row(
        figure.id, figure.document, figure.section, figure.what, figure.expected, found.obtained, found.verdict, note,
        figure.published,
    )  # fmt: skip


def _unchecked(figure: Figure, failed: str) -> Row:
    known = not failed and figure.status in UNCHECKED
    verdict, note = (figure.status, figure.note) if known else ("failed", failed or "its lesson does not show it")
    return Row(
        figure.id, figure.document, figure.section, figure.what, figure.expected, None, verdict, note, figure.published
    )


def _heading(name: str) -> str:
    if not name:
        return "later parts"
    rung: Rung = ladder.find(name)
    time = f", about {rung.minutes} min" if rung.minutes else ""
    return f"{name}: {rung.title}{time}"


def line(row: Row) -> str:
    """A row of the table: id, what, printed, obtained, verdict; why it differs on a line of its own.

    >>> line(Row("a.1", "book", "1", "a sum", 2, 3, "slip", "an error", None)).split()
    ['a.1', 'a', 'sum', '2', '3', 'slip', 'an', 'error']
    """
    obtained = "" if row.obtained is None else brief(row.obtained, VALUE)
    first = _columns(row.id, row.what, brief(row.printed, VALUE), obtained, row.verdict)
    below = [row.note] if row.note else []
    below += [f"{machine}: {brief(value)}" for machine, value in (row.published or {}).items()]
    return "\n      ".join([first, *below])


def _columns(id: str, what: str, printed: str, obtained: str, verdict: str) -> str:
    """One line of the table, as wide as the terminal allows: what does not fit of `what` is cut."""
    room = shutil.get_terminal_size((138, 24)).columns - 25 - 2 * VALUE - 16
    what = brief(what, max(12, min(48, room)))
    return f"{id:25} {what:{max(12, min(48, room))}} {printed:{VALUE}} {obtained:{VALUE}} {verdict}"


def show(result: Result) -> None:
    """Print how many rows have which verdict."""
    print(f"\n{len(result.rows)} figures in {result.seconds:.0f} s")
    for verdict, count in sorted(result.counts.items(), key=lambda one: -one[1]):
        why = f": {MEANS[verdict]}" if verdict in MEANS else ""
        print(f"{count:5}  {verdict}{why}")


def _silent(text: str) -> None:
    """Say nothing."""
