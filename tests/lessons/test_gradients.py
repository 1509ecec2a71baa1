"""Gradients add up: cleared in each step, or added on purpose."""

import pytest
import torch
from torch import nn

from groundup import machine
from groundup.batches import Batch
from groundup.train.loop import steps


class Weight(nn.Module):
    """One number, 5."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(5.0))


def lines(model: Weight, batch: Batch) -> tuple[torch.Tensor, dict]:
    """The sum of slope * w over the batch: its gradient is the sum of the slopes."""
    return (model.w * batch.tokens).sum(), {}


def walked(slopes: list[list[float]], *, accumulate: int) -> float:
    """Where the weight is after the library's loop over batches of these slopes, with a rate of 0.01."""
    model = Weight()
    batches = iter([Batch(torch.tensor([row]), len(row)) for row in slopes])
    cpu = machine.choose(device="cpu", dtype="fp32", threads=torch.get_num_threads())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    list(steps(model, optimizer, batches, lines, until=len(slopes) // accumulate, machine=cpu,
               accumulate=accumulate, clip=0))  # fmt: skip
    return model.w.item()


def test_zero_grad_and_accumulation():
    """P08: the loop clears between steps, and adds up within one, each piece by its units."""
    assert walked([[0.1], [0.2], [0.15]], accumulate=1) == pytest.approx(4.9955, abs=1e-6)  # 5 - 0.001 - 0.002 - 0.0015
    assert walked([[0.1], [0.2], [0.15]], accumulate=3) == pytest.approx(4.9985, abs=1e-6)  # one step, by the mean 0.15
    assert walked([[0.4], [0.1, 0.1, 0.1]], accumulate=2) == pytest.approx(4.99825, abs=1e-6)  # 0.7 / 4, not 0.5 / 2


def test_a_forgotten_zero_grad_never_comes_to_rest(climb):
    """P08: on the bowl (w - 3)^2 each cleared step leaves 0.9 of the way; uncleared, w swings around 3."""
    roll = climb("gradients")["roll"]
    torch.testing.assert_close(roll(clear=True, count=3), [5.0, 4.8, 4.62, 4.458])
    torch.testing.assert_close(roll(clear=False, count=3), [5.0, 4.8, 4.42, 3.898])  # gradients 4, 4 + 3.6, 7.6 + 2.84
    assert min(roll(clear=False, count=40)) < 1.5
