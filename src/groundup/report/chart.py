"""A line chart as HTML: curves in an SVG that stretches with the page, numbers as text that keeps its size.

In: `Chart`. Out: one `<figure>`. The SVG is drawn in a square of 1000 by 1000 and stretched to its box, with strokes
that do not stretch (vector-effect); axis numbers are laid over it in percent. So one drawing is readable on a phone, on
a wide screen and on paper, without a script. `data-` attributes tell the script of the page what a pixel is worth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from groundup.journal import clock

SIDE = 1000  # units of the square
MARGIN = 0.04  # share of the range left free above and below


@dataclass(frozen=True)
class Line:
    """One curve: points x, y (n,), a CSS class, and its name in the legend ("" for none). `dots` marks each point."""

    x: np.ndarray
    y: np.ndarray
    style: str
    name: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves on one pair of axes; `levels` are horizontal lines (value, words), `marks` vertical (place, words)."""

    title: str
    across: str  # the words under the x axis, one of curves.AXES
    lines: Sequence[Line]
    levels: Sequence[tuple[float, str]] = ()
    marks: Sequence[tuple[float, str]] = ()
    floor: float | None = None  # a value the y axis must reach down to
    log: bool = False  # the y axis by logarithm, where all values are above zero


@dataclass(frozen=True)
class Scale:
    """Values to 0 .. 1, linear or by their logarithm."""

    low: float
    high: float
    log: bool = False

    def place(self, value: np.ndarray | float) -> np.ndarray:
        """Where values stand between low (0) and high (1).

        >>> Scale(1, 100, log=True).place(10.0).item()
        0.5
        """
        low, high, found = self.low, self.high, np.asarray(value, dtype=np.float64)
        if self.log:
            low, high, found = math.log(low), math.log(high), np.log(np.maximum(found, 1e-300))
        return np.asarray((found - low) / (high - low))


def draw(chart: Chart) -> str:
    """The chart as HTML; an empty text where there is nothing to draw."""
    lines = [line for line in chart.lines if len(line.x)]
    if not lines:
        return ""
    across, up = _across(lines), _up(chart, lines)
    ticks_x, ticks_y = _ticks_across(across, chart.across), _ticks_up(up)
    svg = [*(_grid(up, y) for y in ticks_y), *_guides(chart, across, up), *(_curve(line, across, up) for line in lines)]
    words = [_label("y", float(up.place(y)), short(y)) for y in ticks_y]
    words += [_label("x", float(across.place(x)), _across_words(x, chart.across)) for x in ticks_x]
    words += _guide_words(chart, across, up)
    data = {
        "x0": across.low,
        "x1": across.high,
        "y0": up.low,
        "y1": up.high,
        "log": int(up.log),
        "across": chart.across,
    }
    title = f"{chart.title}, logarithmic" if up.log else chart.title
    told = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    return (
        f'<figure class="chart"><figcaption>{escape(title)}{_legend(lines)}</figcaption>'
        f'<div class="plot" role="img" aria-label="{escape(_aloud(chart, lines))}" {told}>'
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" aria-hidden="true">{"".join(svg)}</svg>'
        f'{"".join(words)}</div><p class="across">{escape(chart.across)}</p></figure>'
    )


def short(value: float) -> str:
    """A number as briefly as an axis allows.

    >>> [short(value) for value in (0.0003, 0.25, 1200, 35000, 2.5e6, 0)]
    ['0.0003', '0.25', '1,200', '35k', '2.5M', '0']
    """
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) from low to high.

    >>> nice_ticks(0, 200), nice_ticks(2.4, 4.2)
    ([0.0, 50.0, 100.0, 150.0, 200.0], [2.5, 3.0, 3.5, 4.0])
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _across(lines: Sequence[Line]) -> Scale:
    low, high = min(float(line.x.min()) for line in lines), max(float(line.x.max()) for line in lines)
    low = min(0.0, low)
    return Scale(low, high if high > low else low + 1)


def _up(chart: Chart, lines: Sequence[Line]) -> Scale:
    """Room for all curves, and for levels near them."""
    values = np.concatenate([line.y for line in lines])
    low, high = float(values.min()), float(values.max())
    reach = max(high - low, abs(high) * 0.02, 1e-9)
    for value, _ in chart.levels:
        if low - reach / 2 <= value <= high + reach / 2:
            low, high = min(low, value), max(high, value)
    if chart.log and low > 0:
        return Scale(low / 1.2, high * 1.2, log=True)
    low = low if chart.floor is None else min(low, chart.floor)
    space = MARGIN * max(high - low, abs(high) * 0.02, 1e-9)
    return Scale(low if low == chart.floor else low - space, high + space)


def _ticks_up(scale: Scale) -> list[float]:
    if not scale.log:
        return nice_ticks(scale.low, scale.high)
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    sizes = (1, 2, 5) if last - first <= 2 else (1,)
    found = [size * 10.0**power for power in range(first, last + 1) for size in sizes]
    found = [value for value in found if scale.low <= value <= scale.high]
    return found[:: 1 + len(found) // 7]


def _ticks_across(scale: Scale, words: str) -> list[float]:
    """Round numbers; of seconds, those that are round on a clock."""
    if words != "training time":
        return nice_ticks(scale.low, scale.high)
    spans = [a * b for b in (1, 60, 3600) for a in (1, 2, 5, 10, 15, 30)] + [3600.0 * a for a in (60, 120, 240, 480)]
    step = next((span for span in spans if scale.high / span <= 6), scale.high / 5)
    return [step * n for n in range(int(scale.high / step) + 1)]


def _across_words(value: float, words: str) -> str:
    return clock(value) if words == "training time" else short(value)


def _grid(up: Scale, value: float) -> str:
    y = _flat(up.place(value))
    return f'<path class="grid" d="M0 {y}H{SIDE}"/>'


def _guides(chart: Chart, across: Scale, up: Scale) -> list[str]:
    levels = [f'<path class="level" d="M0 {_flat(up.place(y))}H{SIDE}"/>' for y, _ in chart.levels if _within(up, y)]
    marks = [
        f'<path class="mark" d="M{_round(float(across.place(x)) * SIDE)} 0V{SIDE}"/>'
        for x, _ in chart.marks
        if _within(across, x)
    ]
    return levels + marks


def _guide_words(chart: Chart, across: Scale, up: Scale) -> list[str]:
    found = [
        f'<span class="words" style="{_free_side(chart, y)}:.4em;bottom:{float(up.place(y)) * 100:.2f}%">'
        f"{escape(words)}</span>"
        for y, words in chart.levels
        if _within(up, y)
    ]
    for x, words in chart.marks:
        place = float(across.place(x)) * 100
        side = f"right:{100 - place:.2f}%" if place > 50 else f"left:{place:.2f}%"
        if _within(across, x):
            found.append(f'<span class="words" style="top:.2em;{side}">{escape(words)}</span>')
    return found


def _free_side(chart: Chart, level: float) -> str:
    """Left or right: where the curves stay further from a level, so that its words cover none."""
    room = {}
    for side, part in (("left", slice(None, 1)), ("right", slice(-1, None))):
        room[side] = min((float(abs(line.y[part] - level).min()) for line in chart.lines if len(line.y)), default=0.0)
    return "left" if room["left"] > room["right"] else "right"


def _within(scale: Scale, value: float) -> bool:
    return scale.low <= value <= scale.high


def _curve(line: Line, across: Scale, up: Scale) -> str:
    x, y = across.place(line.x) * SIDE, SIDE - up.place(line.y) * SIDE
    points = [f"{_round(a)} {_round(b)}" for a, b in zip(x, y, strict=True)]
    name = f' data-name="{escape(line.name)}"' if line.name else ""
    path = f'<path class="line {line.style}"{name} d="M{"L".join(points)}"/>'
    if line.dots or len(points) == 1:  # a line of no length with round ends is a dot that stays round when stretched
        path += f'<path class="dots {line.style}" d="{"".join(f"M{point}h0" for point in points)}"/>'
    return path


def _label(axis: str, place: float, words: str) -> str:
    side = "bottom" if axis == "y" else "left"
    return f'<span class="tick {axis}" style="{side}:{place * 100:.2f}%" aria-hidden="true">{escape(words)}</span>'


def _legend(lines: Sequence[Line]) -> str:
    named = [line for line in lines if line.name]
    if len(named) < 2:
        return ""
    keys = [
        f'<span class="key"><svg viewBox="0 0 26 8" aria-hidden="true"><path class="line {line.style}" d="M1 4H25"/>'
        + ('<path class="dots ' + line.style + '" d="M13 4h0"/>' if line.dots else "")
        + f"</svg>{escape(line.name)}</span>"
        for line in named
    ]
    return f'<span class="legend">{"".join(keys)}</span>'


def _aloud(chart: Chart, lines: Sequence[Line]) -> str:
    """The chart in a sentence, for those who hear the page."""
    told = [
        f"{line.name or chart.title}: from {line.y[0]:.4g} to {line.y[-1]:.4g}, lowest {line.y.min():.4g}, "
        f"highest {line.y.max():.4g}"
        for line in lines
        if line.name or len(lines) == 1
    ]
    return f"{chart.title} against {chart.across}. {'; '.join(told)}."


def _flat(place: np.ndarray | float) -> str:
    return _round(SIDE - float(place) * SIDE)


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
