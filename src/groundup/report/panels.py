"""The charts of a page: which curves are drawn, for one run or for several, against each axis.

In: `Run`s. Out: HTML, one grid of charts for every axis that all the runs can be laid against.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from groundup.report import measures
from groundup.report.chart import Chart, Line, draw
from groundup.report.curves import AXES, along, smooth, thin, throughput
from groundup.report.figures import best_evaluation
from groundup.report.read import Run

COLOURS = measures.COLOURS
PAIRS = ("reward", "dpo")
UNITS = {"classify": "text"} | dict.fromkeys(PAIRS, "pair")
Points = tuple[np.ndarray, np.ndarray]  # steps (n,), values (n,)


def axes(runs: Sequence[Run]) -> list[str]:
    """The axes of curves.AXES that every run with a record can be laid against.

    >>> axes([Run()])
    ['steps']
    """
    begun = [run for run in runs if len(run.train)]
    probe = np.array([1])
    return [
        name for name in AXES if name == "steps" or begun and all(along(run, name, probe) is not None for run in begun)
    ]


def charts(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Loss, what the stages measure beside it, learning rate, gradient norm, speed and memory, for every axis there is.

    The page shows one axis at a time.
    """
    grids = []
    for axis in axes(runs):
        drawn = [loss(runs, labels, axis), *measures.charts(runs, labels, axis)]
        drawn += [panel(runs, labels, axis, name) for name in PANELS]
        if any(drawn):
            grids.append(f'<div class="charts {axis}">{"".join(drawn)}</div>')
    return "".join(grids)


def loss(runs: Sequence[Run], labels: Sequence[str], axis: str) -> str:
    """Training loss, raw and smoothed, and validation loss; of several runs only the smoothed and the validation.

    A run that learns from rewards has none that means anything by itself: its reward is drawn instead (measures.py).
    """
    alone, lines = len(runs) == 1, list[Line]()
    for place, (run, label) in enumerate(zip(runs, labels, strict=True)):
        if run.command == "ppo":
            continue
        colour = f"c{place % COLOURS}"
        steps, losses = run.train.whole()
        if alone:
            lines += _line(run, axis, (steps, losses), style=f"raw {colour}")
        style, name = (colour, "training, smoothed") if alone else (f"dash {colour}", f"{label}, training")
        lines += _line(run, axis, (steps, smooth(losses)), style=style, name=name)
        style, name = ("c1", "validation") if alone else (colour, f"{label}, validation")
        lines += _line(run, axis, run.evaluations.whole(), style=style, name=name, dots=True)
    marks = _best(runs[0], axis) if alone else []
    # a run that came apart would press all the rest flat
    log = any(line.y.max() > 2 * line.y[0] + 1 for line in lines)
    return draw(Chart(_in_words(runs), AXES[axis], lines, _guess(runs), marks, log=log))


def _in_words(runs: Sequence[Run]) -> str:
    """The title of the losses; what a loss is counted for depends on the stage."""
    units = {UNITS.get(run.command, "token") for run in runs if run.command != "ppo"}
    return f"Loss, in nats per {units.pop()}" if len(units) == 1 else "Loss, in nats"


def _guess(runs: Sequence[Run]) -> list[tuple[float, str]]:
    """The loss of guessing, where all runs have one vocabulary, or all choose between two answers."""
    if all(run.command in PAIRS for run in runs):
        own = [run.settings.get("loss", "sigmoid") == "sigmoid" and not run.settings.get("margins") for run in runs]
        return [(math.log(2), f"undecided: ln(2) = {math.log(2):.3f}")] if all(own) else []
    if any(run.command in (*PAIRS, "ppo") for run in runs):
        return []
    found = {run.vocabulary for run in runs}
    size = found.pop() if len(found) == 1 else None
    return [(math.log(size), f"guessing: ln({size:,}) = {math.log(size):.2f}")] if size else []


def _best(run: Run, axis: str) -> list[tuple[float, str]]:
    best = best_evaluation(run)
    if best is None or best == len(run.evaluations) - 1:
        return []
    place = along(run, axis, run.evaluations.step[best : best + 1])
    return [] if place is None else [(float(place[0]), f"lowest: {run.evaluations.loss[best]:.3f}")]


def panel(runs: Sequence[Run], labels: Sequence[str], axis: str, name: str) -> str:
    """One of PANELS."""
    title, read, faint, floor = PANELS[name]
    lines, alone = list[Line](), len(runs) == 1
    for place, (run, label) in enumerate(zip(runs, labels, strict=True)):
        colour, (steps, values) = f"c{place % COLOURS}", read(run)
        if faint and alone:
            lines += _line(run, axis, (steps, values), style=f"raw {colour}")
        drawn = (steps, smooth(values) if faint else values)
        lines += _line(run, axis, drawn, style=colour, name=title if alone else label)
    clips = {run.value("clip") for run in runs} if name == "gradient" else {0.0}
    clip = clips.pop() if len(clips) == 1 else 0.0
    levels = [(clip, f"clipped to {clip:g}")] if clip else []
    log = name == "gradient" and any(line.y.max() > 20 * np.median(line.y) for line in lines)
    return draw(Chart(title, AXES[axis], lines, levels, floor=floor, log=log))


def _line(run: Run, axis: str, points: Points, *, style: str, name: str = "", dots: bool = False) -> list[Line]:
    steps, values = points
    across = along(run, axis, steps)
    return [] if across is None or not len(steps) else [Line(*thin(across, values), style=style, name=name, dots=dots)]


def _column(*names: str) -> Callable[[Run], Points]:
    """Reads the first of these columns that a run has."""

    def read(run: Run) -> Points:
        found = (run.train.whole(name) for name in names)
        return next((points for points in found if len(points[0])), run.train.whole(names[0]))

    return read


def _memory(run: Run) -> Points:
    steps, values = _column("memory", "memory_bytes", "memory_peak")(run)
    return steps, values / 2**20


# name: title, what it reads, whether the curve is smoothed with the raw one faint behind, where the y axis begins
PANELS: dict[str, tuple[str, Callable[[Run], Points], bool, float | None]] = {
    "rate": ("Learning rate", _column("lr"), False, 0.0),
    "gradient": ("Gradient norm, before clipping", _column("gradient_norm"), True, None),
    "speed": ("Speed, in tokens a second", throughput, True, 0.0),
    "memory": ("Memory, in MiB", _memory, False, 0.0),
}
