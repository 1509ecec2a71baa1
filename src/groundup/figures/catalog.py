"""The figures themselves: read from the TOML files of this room, checked, kept in their order.

In: nothing, or an id. Out: `Figure`s.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from groundup.errors import DataError, nearest

Status = Literal["holds", "stale", "slip", "needs-weights", "needs-gpu", "needs-judge", "not-checkable"]
Match = Literal["full", "prefix"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One printed figure.

    status: "holds": comes out on today's torch; "stale": made with an older library, model or machine; "slip": an error
    of the document; else what is missing to check it. `today`: what a stale or mistyped one gives now; None where that
    varies. match "prefix": the document cuts the figure off. tolerance: "exact", "abs 1e-4" or "rel 1e-5". `printed` is
    False where the document makes a claim without a number. `published`: the same figure on several kinds of machine.
    """

    id: str
    document: str
    section: str
    what: str
    lesson: str
    status: Status
    expected: Any
    printed: bool = True
    match: Match = "full"
    tolerance: str = "exact"
    today: Any = None
    note: str = ""
    published: dict[str, Any] | None = None


@cache
def load() -> dict[str, Figure]:
    """All figures by id, in the order of the files and within them.

    >>> load()["book.4.6.params"].expected
    163009536
    """
    found: dict[str, Figure] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["figure"]:
            figure = Figure(**row)
            if figure.id in found or figure.status not in get_args(Status):
                raise ValueError(f"{path.name}: {figure.id} is there twice, or has the unknown status {figure.status}")
            found[figure.id] = figure
    return found


def find(word: str) -> list[Figure]:
    """The figures of an id, of the beginning of one ("book.5"), or of a lesson.

    Raises DataError for a word that fits none, with the nearest that does.

    >>> [figure.id for figure in find("kar.agg")]
    ['kar.agg.x', 'kar.agg.mean', 'kar.agg.weights', 'kar.agg.equal']
    """
    everything = load()
    if word in everything:
        return [everything[word]]
    start = word.rstrip("*.") + "."
    found = [one for one in everything.values() if one.id.startswith(start) or (word and one.lesson == word)]
    if not found:
        names = [*everything, *{figure.lesson for figure in everything.values()} - {""}]
        close = nearest(word, names)
        hint = close if len(close) < 100 else "an id begins like book.5.1; `groundup lesson` lists the lessons"
        raise DataError(f"no figure of the documents and no lesson that shows one is called '{word}'", hint)
    return found
