"""Smoothing, thinning and axes, against values worked out by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groundup.report.curves import along, smooth, thin, throughput
from groundup.report.read import Run, Table


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.integers(1, 20))
def test_smoothing_is_the_mean_of_a_window(values: list[float], width: int):
    array = np.array(values)
    slow = []
    for place in range(len(array)):
        reach = min(width // 2, place)
        slow.append(array[place - reach : place + reach + 1].mean())  # a slice ends where the array does
    np.testing.assert_allclose(smooth(array, width), slow, atol=1e-9)


def test_nothing_can_be_smoothed():
    assert len(smooth(np.zeros(0))) == 0


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=500), st.integers(1, 20))
def test_thinning_keeps_ends_and_extremes_in_order(values: list[float], buckets: int):
    x, y = np.arange(len(values)), np.array(values)
    kept_x, kept_y = thin(x, y, buckets)
    assert len(kept_x) <= 2 * buckets + 2
    assert (np.diff(kept_x) > 0).all() and (y[kept_x] == kept_y).all()
    assert kept_x[0] == 0 and kept_x[-1] == len(values) - 1
    assert kept_y.min() == y.min() and kept_y.max() == y.max()


RECORDS = [{"step": n, "tokens": 100 * n, "seconds": 2.0 * n} for n in (1, 2, 4)]


def test_axes_by_hand():
    run, steps = Run(train=Table(RECORDS), train_tokens=200), np.array([0, 1, 3, 8])
    assert along(run, "steps", steps).tolist() == [0, 1, 3, 8]
    assert along(run, "tokens", steps).tolist() == [0, 100, 300, 800]
    assert along(run, "epochs", steps).tolist() == [0, 0.5, 1.5, 4]
    assert along(run, "time", steps).tolist() == [0, 2, 6, 16]


def test_an_axis_that_the_run_does_not_know():
    run, steps = Run(train=Table([{"step": 1, "loss": 2.0}])), np.array([1])
    assert along(run, "steps", steps) is not None
    assert all(along(run, axis, steps) is None for axis in ("epochs", "tokens", "time"))


def test_throughput_leaves_out_what_cannot_be():
    back = [*RECORDS, {"step": 5, "tokens": 500, "seconds": 7.0}, {"step": 6, "tokens": 600, "seconds": None}]
    steps, rates = throughput(Run(train=Table(back)))
    assert steps.tolist() == [2, 4] and rates.tolist() == [50, 50]
