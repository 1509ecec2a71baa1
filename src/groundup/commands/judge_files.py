"""What `groundup judge` leaves behind: scores.json with every answer and what it got, and a picture of all of them.

In: scores of one file or two, or the outcome of a comparison. Out: the two files, each written aside, then renamed.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.checkpoint.atomic import write_text
from groundup.errors import SettingsError
from groundup.evaluate.judge.scores import Duel, Scores
from groundup.evaluate.judge.server import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PASSING = ("seconds", "out", "picture")  # facts of one run of the command, not of the answers


def check_same(path: Path, judging: dict[str, Any]) -> None:
    """Raise SettingsError where scores of another judging would be overwritten; a file without any is no loss.

    `judging`: those fields of the summary that `write` keeps by which judgings are told apart.
    """
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and found.get("answers") == []:
        return
    other = [name for name in judging if not isinstance(found, dict) or found.get(name) != judging[name]]
    if other:
        what = f"{path} holds other scores: " + ", ".join(f"{name} {_told(found, name)}" for name in other)
        raise SettingsError(what, "give --out with another folder, or remove that file")


def _told(found: Any, name: str) -> str:
    value = found.get(name, "unknown") if isinstance(found, dict) else "unknown"
    return short(" and ".join(map(str, value)) if isinstance(value, list) else str(value or "none"))


def write(path: Path, summary: dict[str, Any], scores: Sequence[Scores], pairs: Duel | None) -> None:
    """Write the summary and every answer as JSON; what is not finite becomes null."""
    kept = {name: value for name, value in summary.items() if name not in PASSING}
    rows = _scored(scores) if pairs is None else _compared(pairs)
    text = json.dumps(_finite({**kept, "answers": rows}), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _scored(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    return [
        {"file": file.name, **dataclasses.asdict(row), "score": value, "scores": each, "reason": reason}
        for file in scores
        for row, value, each, reason in zip(file.rows, file.each, file.scores, file.reasons, strict=True)
    ]


def _compared(pairs: Duel) -> list[dict[str, Any]]:
    return [
        {**dataclasses.asdict(one), "against": other.answer, "share": share, "reason": reason}
        for (one, other), share, reason in zip(pairs.pairs, pairs.shares, pairs.reasons, strict=True)
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw(path: Path, names: Sequence[str], scores: Sequence[Scores], pairs: Duel | None) -> Path | None:
    """Draw how the scores are spread, one colour a file, or who won; nothing scored, no picture, nor an older one."""
    if not scores and pairs is None:
        path.unlink(missing_ok=True)
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if pairs is None:
        _histogram(axes, scores)
    else:
        first, second = (_label(name) for name in names)
        won, lost, tied, unusable = pairs.counts
        labels = [f"{first}\nis better", "tie", f"{second}\nis better", "unusable"]
        axes.bar(range(4), [won, tied, lost, unusable], tick_label=labels)
        axes.set_ylabel("pairs of answers")
    aside = path.with_name(f".{path.name}.writing")
    figure.savefig(aside, dpi=150, format="png")
    os.replace(aside, path)
    return path


def _histogram(axes: "Axes", scores: Sequence[Scores]) -> None:
    high = 100 if scores[0].scale == "100" else 5
    edges = [10.0 * number for number in range(11)] if high == 100 else [0.5 + number for number in range(6)]
    labels = [f"{_label(one.name)}: mean {one.mean[0]:.1f} of {len(one.usable)}" for one in scores]
    axes.hist([one.usable for one in scores], bins=edges, label=labels)
    axes.set_xlabel("score, 0 to 100" if high == 100 else "score, 1 to 5")
    axes.set_ylabel("answers")
    axes.legend()


def _label(name: str) -> str:
    """A file's name as matplotlib can draw it: no formulas, no letters that its font lacks, no name that it hides."""
    return name.encode("ascii", errors="replace").decode().replace("$", r"\$").replace("_", " ").strip() or "answers"
