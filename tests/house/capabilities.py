"""Writes docs/coverage.md: each capability of the documents, where it lives, and what asserts it (`make coverage`).

In: capabilities.toml, the figures, the ladder of lessons, the tests as syntax. Out: the page, and what does not hold.
"""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from groundup.lessons.ladder import LADDER, Rung
from survey import PACKAGE, ROOT

LIST = Path(__file__).with_name("capabilities.toml")
PAGE = ROOT / "docs" / "coverage.md"
STATES = {
    "works": "a test, or a figure that holds, asserts what its row demands",
    "background": "told in a lesson; there is nothing to run",
    "needs-weights": "comes true once OpenAI's weights are there; what can be checked without them is",
    "needs-gpu": "comes true on a machine with a GPU",
    "needs-judge": "comes true with a language model that judges",
}
ROWS_OF_TEST = re.compile(r"([A-Z]\d\d(?:, [A-Z]\d\d)*):")  # "A08, A09: the rows are equal."
HEAD = """# What works

This page is written by `make coverage`; tests keep it true. It lists each thing that the documents this project follows
describe or ask for: the book "Build a Large Language Model (From Scratch)", the notebook of its chapter 5, two sets of
notes on it, and the lecture that builds a GPT from Shakespeare's characters. A row says what must be true before it may
call itself working, where the thing lives (a lesson, a part of the library, or both), and which tests and printed
figures assert it. `groundup reproduce` shows the figures one by one.
"""


@dataclass(frozen=True)
class Row:
    """One capability, as capabilities.toml has it."""

    id: str
    capability: str
    documents: str
    works: str
    state: str
    home: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    note: str = ""


@cache
def _list() -> dict[str, Any]:
    return tomllib.loads(LIST.read_text(encoding="utf-8"))


def chapters() -> dict[str, str]:
    """Letter -> title, in the order of the page."""
    return _list()["chapters"]


def rows() -> list[Row]:
    """Every row, in the order of the list."""
    return [Row(**row) for row in _list()["row"]]


@cache
def figures() -> dict[str, dict[str, Any]]:
    """Id -> figure, of all files of figures."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((PACKAGE / "figures").glob("*.toml"))]
    return {figure["id"]: figure for text in texts for figure in tomllib.loads(text)["figure"]}


def matching(pattern: str) -> list[str]:
    """Ids of figures that a pattern means."""
    return [id for id in figures() if fnmatchcase(id, pattern)]


@cache
def rungs() -> dict[str, Rung]:
    """The lessons that are there, by name."""
    return {rung.name: rung for rung in LADDER if rung.path.is_file()}


@cache
def functions(file: Path) -> dict[str, str]:
    """Names of the tests in a file, with their docstrings; {} where there is no such file."""
    if not file.is_file():
        return {}
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    tests = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: ast.get_docstring(node) or "" for node in tests}


@cache
def by_docstring() -> dict[str, list[str]]:
    """Row id -> tests of the lessons whose docstring begins with that id, or has it in a list at its beginning."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests" / "lessons").glob("test_*.py")):
        for name, text in functions(file).items():
            named = ROWS_OF_TEST.match(text)
            for id in named[1].split(", ") if named else ():
                found.setdefault(id, []).append(f"{file.relative_to(ROOT).as_posix()}::{name}")
    return found


def tests_of(row: Row) -> list[str]:
    """All tests of a row: those of lessons first."""
    return list(dict.fromkeys([*by_docstring().get(row.id, []), *row.tests]))


def figures_of(row: Row) -> list[dict[str, Any]]:
    """All figures of a row."""
    return [figures()[id] for id in dict.fromkeys(id for pattern in row.figures for id in matching(pattern))]


def place(home: str) -> Path:
    """The file behind a home: a lesson by its name, a file of the library by its path."""
    return rungs()[home].path if home in rungs() else PACKAGE / home


# what does not hold


def problems(listed: Iterable[Row]) -> list[str]:
    """A sentence for everything that a row says and is not so."""
    return [f"{row.id}: {found}" for row in listed for found in _problems(row)]


def _problems(row: Row) -> Iterator[str]:
    if row.state not in STATES:
        yield f"nobody knows the state '{row.state}'"
    for home in row.home:
        if not place(home).is_file():
            yield f"lives in '{home}', which is neither a lesson nor a file of the library"
    for test in row.tests:
        path, _, name = test.partition("::")
        if name not in functions(ROOT / path):
            yield f"there is no test {test}"
    for pattern in row.figures:
        if not matching(pattern):
            yield f"there is no figure {pattern}"
    if not row.home:
        yield f"{row.state}, but lives nowhere"
    if row.state == "works" and not tests_of(row) and not any(one["status"] == "holds" for one in figures_of(row)):
        yield "works, but neither a test nor a figure that holds asserts it"
    if row.state == "background" and not any(home in rungs() for home in row.home):
        yield "background, but no lesson tells of it"


def strangers(listed: Iterable[Row]) -> list[str]:
    """Tests that name a row, and figures, that the list does not know."""
    listed = list(listed)
    known = {row.id for row in listed}
    claimed = {figure["id"] for row in listed for figure in figures_of(row)}
    found = [f"{test} names {id}, which is no row" for id, tests in by_docstring().items() if id not in known
             for test in tests]  # fmt: skip
    return found + [f"no row has the figure {id}" for id in figures() if id not in claimed]


# the page


def page() -> str:
    """The whole page as text."""
    listed = rows()
    counts = Counter(row.state for row in listed)
    lines = [HEAD, f"{len(listed)} rows:", "", "| state | rows | meaning |", "|---|---:|---|"]
    lines += [f"| {state} | {counts[state]} | {meaning} |" for state, meaning in STATES.items() if counts[state]]
    for letter, title in chapters().items():
        own = [row for row in listed if row.id.startswith(letter)]
        lines += ["", f"## {title}", "", "| | capability | works when | lives in | asserted by | state |"]
        lines += ["|---|---|---|---|---|---|", *(line(row) for row in own)]
    return "\n".join(lines) + "\n"


def line(row: Row) -> str:
    """One row of a table."""
    homes = "<br>".join(_link(home, place(home)) for home in row.home)
    state = f"**{row.state}**" if row.state != "works" else row.state
    cells = (
        row.id,
        f"{row.capability} ({row.documents})",
        row.works,
        homes,
        "<br>".join([*_tests(row), *_figures(row)]),
        f"{state}: {row.note}" if row.note else state,
    )
    return f"| {' | '.join(cells)} |"


def _tests(row: Row) -> list[str]:
    """A line per file of tests: a link to it, and the tests in it."""
    files: dict[str, list[str]] = {}
    for test in tests_of(row):
        path, _, name = test.partition("::")
        files.setdefault(path, []).append(f"`{name}`")
    return [f"{_link(path.removeprefix('tests/'), ROOT / path)}: {', '.join(names)}" for path, names in files.items()]


def _figures(row: Row) -> list[str]:
    """The ids of figures, how many of them hold and what the others are, and what takes long to see."""
    own = figures_of(row)
    if not own:
        return []
    counts = Counter(one["status"] for one in own)
    said = ", ".join(f"{count} {'hold' if status == 'holds' else status}" for status, count in counts.items())
    long = [one for one in own if one["lesson"] in rungs() and rungs()[one["lesson"]].minutes]
    waits = f"; {'all' if len(long) == len(own) else len(long)} in a long run" if long else ""
    return [f"figures {', '.join(f'`{pattern}`' for pattern in row.figures)} ({said}{waits})"]


def _link(name: str, path: Path) -> str:
    return f"[{name}](../{path.relative_to(ROOT).as_posix()})"


def main() -> int:
    """Write the page; 1 if something does not hold."""
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"wrote {PAGE.relative_to(ROOT).as_posix()}")
    figures_alone = [row.id for row in rows() if row.state == "works" and not tests_of(row)]
    print(f"{len(figures_alone)} rows are asserted by figures alone: {' '.join(figures_alone)}")
    wrong = problems(rows()) + strangers(rows())
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
