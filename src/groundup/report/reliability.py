"""How far a probability can be believed, as a picture: of what was given 80 %, how much is right?

In: bins (n, 5) as test.json has them: low, high, rows, mean confidence, share that is right. Out: a figure as HTML.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from groundup.report.read import number

NAMED = ("low", "high", "rows", "confidence", "accuracy")
SIDE = 1000  # units of a drawing's square
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def bins(cells: Any) -> np.ndarray:
    """Bins (n, 5) of a list of objects; (0, 5) for what is none, or has a number missing.

    >>> bins([{"low": 0.5, "high": 0.6, "rows": 2, "confidence": 0.55, "accuracy": 0.5}]).tolist(), len(bins("x"))
    ([[0.5, 0.6, 2.0, 0.55, 0.5]], 0)
    """
    found = [[number(cell.get(name)) for name in NAMED] for cell in cells if isinstance(cell, dict)] if isinstance(
        cells, list) else []  # fmt: skip
    values = np.array(found, dtype=np.float64).reshape(-1, len(NAMED))
    return values if np.isfinite(values).all() else values[:0]


def reliability(found: np.ndarray, error: float, *, of: str) -> str:
    """A bar for each bin (n, 5) that has rows; `of` says what the probability is of, `error` is the mean gap or NaN."""
    kept: Sequence[np.ndarray] = [one for one in found if one[2] > 0]
    if not len(kept):
        return ""
    most, drawn = max(one[2] for one in kept), []
    for low, high, rows, _, right in kept:
        # bins that hold few rows say little: they are drawn paler
        strength = 0.3 + 0.6 * rows / most
        drawn.append(f'<path d="{_box(low, high, right)}" style="fill:var(--c0);fill-opacity:{strength:.2f};'
                     f'stroke:var(--c0)"/>')  # fmt: skip
    drawn.append(f'<path class="mark" d="M0 {SIDE}L{SIDE} 0"/>')
    grid = [f'<path class="grid" d="M0 {SIDE - at * SIDE:.0f}H{SIDE}"/>' for at in TICKS]
    ticks = [f'<span class="tick {axis}" style="{side}:{at * 100:.0f}%" aria-hidden="true">{at:g}</span>'
             for axis, side in (("x", "left"), ("y", "bottom")) for at in TICKS]  # fmt: skip
    gap = f", mean gap {error:.3f}" if np.isfinite(error) else ""
    said = [f"given {confidence:.2f}, right {right:.2f} ({int(rows):,} rows)" for _, _, rows, confidence, right in kept]
    return (
        f'<figure class="chart"><figcaption>Calibration{gap}</figcaption>'
        f'<div class="plot" role="img" aria-label="{escape("Calibration: " + "; ".join(said))}">'
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" aria-hidden="true">{"".join(grid + drawn)}</svg>'
        f'{"".join(ticks)}<span class="words" style="left:.3em;top:.2em">share that is right; on the dashed line the '
        f'model knows how sure to be</span></div><p class="across">{escape(of)}</p></figure>'
    )


def _box(low: float, high: float, height: float) -> str:
    """The outline of a bar between two places of the x axis, all from 0 to 1."""
    left, right, top = (np.clip(value, 0, 1) * SIDE for value in (low, high, height))
    return f"M{left:.1f} {SIDE}V{SIDE - top:.1f}H{right:.1f}V{SIDE}Z"
