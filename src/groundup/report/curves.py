"""Curves: smoothed, thinned without losing a spike, and laid against steps, epochs, tokens or time.

In: arrays of numbers, and runs. Out: arrays of numbers.
"""

import numpy as np

from groundup.report.read import Run

AXES = {"steps": "steps", "epochs": "epochs", "tokens": "tokens", "time": "training time"}


def smooth(values: np.ndarray, width: int | None = None) -> np.ndarray:
    """The mean over a window centred on each value, (n,) -> (n,).

    `width` counts values; by default a thirtieth of all. A centred mean has no lag: a turn is shown where it happened.
    At the beginning, where losses fall steeply, the window shrinks to both sides; at the end only its later half is cut
    off, since a last value that is one single batch would say little.

    >>> smooth(np.array([0.0, 3.0, 0.0, 3.0, 3.0]), 3).tolist()
    [0.0, 1.0, 2.0, 2.0, 3.0]
    """
    count = len(values)
    half = (len(values) // 30 if width is None else width) // 2
    place = np.arange(count)
    before = np.minimum(half, place)
    after = np.minimum(before, count - 1 - place)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[place + after + 1] - total[place - before]) / (before + after + 1)


def thin(x: np.ndarray, y: np.ndarray, buckets: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """At most 2 * buckets + 2 of the points (n,): the first, the last, and the lowest and highest of each bucket.

    >>> x, y = thin(np.arange(1000), np.where(np.arange(1000) == 517, 9.0, 1.0), buckets=5)
    >>> len(x) <= 12, 517 in x
    (True, True)
    """
    if len(x) <= 2 * buckets:
        return x, y
    edges = np.linspace(0, len(x), buckets + 1).astype(int)
    kept = {0, len(x) - 1}
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        part = y[start:end]
        kept |= {int(start + part.argmin()), int(start + part.argmax())}
    places = sorted(kept)
    return x[places], y[places]


def along(run: Run, axis: str, steps: np.ndarray) -> np.ndarray | None:
    """Where steps (n,) stand on an axis of AXES; None if the run does not tell.

    >>> from groundup.report.read import Table
    >>> along(Run(train=Table([{"step": 10, "tokens": 640}])), "tokens", np.array([0, 5, 10]))
    array([  0., 320., 640.])
    """
    if axis == "steps":
        return steps.astype(np.float64)
    if axis == "epochs" and not run.epoch:
        return None
    known, values = run.train.whole("seconds" if axis == "time" else "tokens")
    if not len(known):
        return None
    # before the first record, and past the last, a run goes on as fast as it did on the way there
    known, values = np.concatenate([[0], known]), np.concatenate([[0.0], values])
    placed = np.interp(steps, known, values)
    beyond = steps > known[-1]
    placed[beyond] = values[-1] * steps[beyond] / max(1, known[-1])
    return placed / run.epoch if axis == "epochs" and run.epoch else placed


def throughput(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and tokens a second since the record before (n,); seconds count training alone.

    >>> from groundup.report.read import Table
    >>> throughput(Run(train=Table([{"step": s, "tokens": 64 * s, "seconds": s / 2} for s in (1, 2, 4)])))
    (array([2, 4]), array([128., 128.]))
    """
    tokens, seconds = run.train.column("tokens"), run.train.column("seconds")
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.diff(tokens) / np.diff(seconds)
    there = np.isfinite(rate) & (rate > 0)
    return run.train.step[1:][there], rate[there]


def value_at(steps: np.ndarray, values: np.ndarray, step: float) -> float:
    """The value at a step, on the straight line between its neighbours; NaN where there are no values at all.

    >>> value_at(np.array([0, 10]), np.array([4.0, 2.0]), 5)
    3.0
    """
    return float(np.interp(step, steps, values)) if len(steps) else float("nan")


def ends(values: np.ndarray) -> tuple[float, float] | None:
    """The mean of the first tenth of the values (n,), and of the last; None where there are fewer than two.

    >>> ends(np.array([1.0, 2.0, 5.0])), ends(np.array([1.0]))
    ((1.0, 5.0), None)
    """
    if len(values) < 2:
        return None
    part = max(1, len(values) // 10)
    return float(values[:part].mean()), float(values[-part:].mean())
