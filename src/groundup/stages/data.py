"""The data of a run that tunes: divided once, written to RUN/data, and read from there ever after.

In: a run folder, and how a stage makes, writes and reads its rows. Out: the parts, and notes of how they came about.
What was written is read again even by the run that wrote it: the first and a resumed run learn from the same files.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from groundup.checkpoint import atomic
from groundup.errors import CheckpointError
from groundup.text.split import PARTS, Split

NOTES = "rows.json"  # in RUN/data: written last, so that with it everything else is there
FIX = "restore it from a copy, or start a new run"

Kind = TypeVar("Kind")
Made = Callable[[], tuple[Split[Kind], dict[str, Any]]]


def divided(out: Path, make: Made[Kind], write: Callable[[Path, list[Kind]], None]) -> dict[str, Any]:
    """The notes of a run's data; where it has none yet, `make()` divides them, and `write(path, rows)` keeps each part.

    Raises what `make` and `write` raise; a run that was killed before the notes were there divides anew.
    """
    place = out / "data"
    if not (place / NOTES).is_file():
        split, notes = make()
        place.mkdir(parents=True, exist_ok=True)
        for name, rows in split.parts().items():
            write(place / f"{name}.jsonl", rows)
        atomic.write_text(place / NOTES, json.dumps(notes, indent=1, ensure_ascii=False) + "\n")
    found: dict[str, Any] = atomic.read_json(place / NOTES)
    return found


def parts(out: Path, read: Callable[[Path], list[Kind]]) -> Split[Kind]:
    """The three parts that a run keeps, `read(path)` those with content; raises CheckpointError for a lost one."""
    train, valid, test = (_part(out / "data" / f"{name}.jsonl", read) for name in PARTS)
    return Split(train, valid, test)


def _part(path: Path, read: Callable[[Path], list[Kind]]) -> list[Kind]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", FIX)
    return read(path) if path.stat().st_size else []
