"""Charts of what reward, dpo and ppo measure beside a loss: order and margin of pairs, rewards, lengths, distances.

In: `Run`s whose journal has these numbers. Out: HTML, a chart for each measure that any of the runs has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundup.report.chart import Chart, Line, draw
from groundup.report.curves import AXES, along, smooth, thin
from groundup.report.read import Run

COLOURS = 7
PART = "reward."  # begins the names of the parts of a reward that is a sum


@dataclass(frozen=True)
class Measure:
    """One chart: the columns of the journal that it draws, what each is called; `levels` as in `Chart`."""

    title: str
    columns: tuple[str, ...]
    names: tuple[str, ...] = ("",)
    floor: float | None = None
    levels: tuple[tuple[float, str], ...] = ()


PAIRS = (
    Measure("Pairs in the right order, as a share", ("accuracy",), levels=((0.5, "tossing a coin"),)),
    Measure("Margin, chosen over rejected", ("margin",), levels=((0.0, "no difference"),)),
)
MEASURES: dict[str, tuple[Measure, ...]] = {
    "reward": PAIRS,
    "dpo": (
        *PAIRS,
        Measure("Rewards of the two sides", ("chosen_reward", "rejected_reward"), ("chosen", "rejected"),
                levels=((0.0, "as likely as under the reference"),)),
        Measure("Drift from the reference, in nats per answer", ("drift",), levels=((0.0, "none"),)),
    ),
    "ppo": (
        Measure("Reward", ("reward",)),
        Measure("Distance to the reference, in nats per answer", ("kl",), floor=0.0),
        Measure("What a nat of distance costs", ("kl_coefficient",), floor=0.0),
        Measure("Length of an answer, in tokens", ("length",), floor=0.0),
        Measure("Answers that end by themselves, as a share", ("ended",), floor=0.0),
        Measure("Entropy of a token, in nats", ("entropy",), floor=0.0),
        Measure("Tokens clipped, as a share", ("clip_fraction",), floor=0.0, levels=((0.3, "too many"),)),
        Measure("Variance that the values explain", ("explained_variance",), levels=((0.0, "none"),)),
        Measure("Sameness", ("distinct", "repetition"), ("different answers", "repeated threes"), floor=0.0),
    ),
}  # fmt: skip


def charts(runs: Sequence[Run], labels: Sequence[str], axis: str) -> list[str]:
    """The charts of all measures of these runs, in order; empty texts where nothing was written down."""
    wanted = dict.fromkeys(measure for run in runs for measure in measures(run))
    alone = len(runs) == 1
    return [draw(_chart(runs, labels, axis, one)) for measure in wanted for one in _split(measure, alone=alone)]


def measures(run: Run) -> tuple[Measure, ...]:
    """What there is to draw of a run: by its command, and the parts that its reward has.

    >>> [measure.title for measure in measures(Run(command="reward"))]
    ['Pairs in the right order, as a share', 'Margin, chosen over rejected']
    >>> measures(Run())
    ()
    """
    known = MEASURES.get(run.command, ())
    if run.settings.get("loss") in ("simpo", "orpo"):  # they have no reference to be as likely as
        known = tuple(replace(measure, levels=()) if len(measure.columns) > 1 else measure for measure in known)
    parts = tuple(name for name in _names(run) if name.startswith(PART))
    if run.command != "ppo" or len(parts) < 2:  # the one part is the reward
        return known
    names = tuple(name.removeprefix(PART) for name in parts)
    return (known[0], Measure("Parts of the reward", parts, names), *known[1:])


def _names(run: Run) -> list[str]:
    """The numbers in a run's records, in the order of the last of each kind."""
    return list(dict.fromkeys(name for table in (run.train, run.evaluations) for name in (table.records or [{}])[-1]))


def _split(measure: Measure, *, alone: bool) -> Iterator[Measure]:
    """Several runs, and several curves of each, would be too much for one chart."""
    if alone or len(measure.columns) == 1:
        yield measure
        return
    for column, name in zip(measure.columns, measure.names, strict=True):
        yield replace(measure, title=f"{measure.title}: {name}", columns=(column,), names=("",))


def _chart(runs: Sequence[Run], labels: Sequence[str], axis: str, measure: Measure) -> Chart:
    lines = list[Line]()
    for place, (run, label) in enumerate(zip(runs, labels, strict=True)):
        for number, (column, name) in enumerate(zip(measure.columns, measure.names, strict=True)):
            colour = f"c{(place + number) % COLOURS}"
            lines += _lines(run, axis, column, colour=colour, named=_titles(label if len(runs) > 1 else "", name))
    return Chart(measure.title, AXES[axis], lines, measure.levels, floor=measure.floor)


def _titles(label: str, name: str) -> tuple[str, str]:
    """What the curve of training and that of validation are called.

    >>> _titles("", ""), _titles("", "chosen"), _titles("runs/a", "")
    (('training', 'validation'), ('chosen', 'chosen, validation'), ('runs/a, training', 'runs/a, validation'))
    """
    if not label and not name:
        return "training", "validation"
    return (f"{label}, training" if label else name), f"{label or name}, validation"


def _lines(run: Run, axis: str, column: str, *, colour: str, named: tuple[str, str]) -> list[Line]:
    """Training, smoothed, and validation: one of them is solid, and where both are there training is dashed."""
    (steps, values), evaluated = run.train.whole(column), run.evaluations.whole(column)
    style = f"dash {colour}" if len(evaluated[0]) else colour
    found = [_line(run, axis, (steps, smooth(values)), style=style, name=named[0])]
    found.append(_line(run, axis, evaluated, style=colour, name=named[1], dots=True))
    return [line for line in found if line is not None]


def _line(
    run: Run, axis: str, points: tuple[np.ndarray, np.ndarray], *, style: str, name: str, dots: bool = False
) -> Line | None:
    steps, values = points
    across = along(run, axis, steps) if len(steps) else None
    return None if across is None else Line(*thin(across, values), style=style, name=name, dots=dots)
