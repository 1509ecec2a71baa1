"""The rate of each step, and the length of a gradient."""

import math

import pytest
import torch
from torch import nn

from groundup.optim import Schedule, clip

pytestmark = pytest.mark.slow  # the network of the book, drawn twice


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("schedules")


def test_the_table_of_the_warm_up():
    """P11: from 0.0001 to 0.01 by 0.000495 a step for 20 steps, then level."""
    schedule = Schedule(peak=0.01, min_lr=0.01, steps=135, warmup=20, initial=0.0001)
    for step in range(20):
        assert schedule.lr(step) == pytest.approx(0.0001 + 0.000495 * step, rel=1e-9)
    assert [schedule.lr(step) for step in range(20, 135)] == [pytest.approx(0.01)] * 115


def test_the_table_of_the_cosine(lesson):
    """P12: half a cosine over steps 20 to 135: middle, thirds, symmetry, never rising; and it is drawn."""
    schedule = Schedule(peak=0.01, min_lr=1e-5, steps=136, warmup=20, initial=0.0001)
    rates = [schedule.lr(step) for step in range(136)]
    middle = (0.01 + 1e-5) / 2
    for step in range(116):
        assert (rates[20 + step] + rates[135 - step]) / 2 == pytest.approx(middle)
    assert rates[20] == pytest.approx(0.01) and rates[135] == pytest.approx(1e-5)
    assert rates[20 + 23] == pytest.approx(middle + (0.01 - middle) * math.cos(math.pi / 5))
    assert rates[20:] == sorted(rates[20:], reverse=True)
    drawn = lesson["axes"].lines[1].get_ydata()
    assert list(drawn) == pytest.approx(rates[:135])


def test_clipping_scales_all_gradients_together():
    """P13: [[1, 2], [2, 4]] has length 5; cut to 1 it is a fifth, cut to 10 itself; two tensors count as one vector."""
    for limit, factor in ((1.0, 0.2), (2.5, 0.5), (10.0, 1.0)):
        table, row = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        table.grad, row.grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
        assert clip([table, row], limit).item() == pytest.approx(5.0)
        torch.testing.assert_close(table.grad, factor * torch.tensor([1.0, 2.0]), atol=1e-6, rtol=0)
        torch.testing.assert_close(row.grad, factor * torch.tensor([2.0, 4.0]), atol=1e-6, rtol=0)


def test_the_largest_entry_falls_with_the_length(lesson):
    """P13: on the book's network the largest entry before and after stand as the length to 1."""
    norm = lesson["norm"].item()
    assert norm == pytest.approx(2.2213, abs=1e-3)
    assert lesson["highest"](lesson["model"]) == pytest.approx(lesson["before"] / norm, rel=1e-5)
    assert lesson["length"]([weight.grad for weight in lesson["model"].parameters()]).item() == pytest.approx(
        1, abs=1e-4
    )
