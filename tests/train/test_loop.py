"""The loop: one step by hand, split batches equal whole ones, bad numbers are never stepped on."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from groundup import losses, machine, optim
from groundup.batches import Batch, Loader, Windows
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.train.loop import steps

CPU = machine.choose(device="cpu", dtype="fp32", threads=1)
TINY = ModelConfig(family="llama", vocabulary=37, context=16, width=32, layers=2, heads=4, kv_heads=2)


def ids(count: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 37, count).astype(np.uint16)


class Line(nn.Module):
    """y = w x: the smallest thing that can be trained by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))


def squares(model: Line, batch: Batch) -> tuple[torch.Tensor, dict]:
    error = model.w * batch.tokens - batch.fields["targets"]
    return (error**2 * batch.fields.get("weight", 1.0)).sum(), {}


def point(x: float, y: float, copies: int = 1) -> Batch:
    return Batch(torch.full((1, copies), x), copies, {"targets": torch.full((1, copies), y)})


def test_one_step_by_hand():
    """Loss (2*3 - 3)^2 = 9, gradient 2*3*(2*3 - 3) = 18, so w = 2 - 0.1 * 18 = 0.2 with plain gradient descent."""
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (step,) = steps(model, optimizer, iter([point(3.0, 3.0)]), squares, until=1, machine=CPU, clip=0)
    assert (step.number, step.loss, step.gradient_norm, step.units) == (1, 9.0, 18.0, 1)
    assert model.w.item() == pytest.approx(0.2)


def test_clipping_by_hand():
    """A gradient of 18 clipped to 1 moves w by 0.1."""
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (step,) = steps(model, optimizer, iter([point(3.0, 3.0)]), squares, until=1, machine=CPU, clip=1.0)
    assert step.gradient_norm == 18.0
    assert model.w.item() == pytest.approx(1.9, abs=1e-6)


def test_uneven_micro_batches_weigh_by_their_units():
    """One point with loss 9 and three with loss 1: the mean is (9 + 3) / 4 = 3, not (9 + 1) / 2."""
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = iter([point(3.0, 3.0), point(1.0, 1.0, copies=3)])
    (step,) = steps(model, optimizer, batches, squares, until=1, machine=CPU, accumulate=2, clip=0)
    assert step.loss == pytest.approx(3.0)
    assert step.units == 4


def train(*, micro: int, accumulate: int, count: int = 5) -> tuple[dict, list[float]]:
    model = build(TINY, seed=1)
    optimizer = optim.adamw(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    loader = Loader(Windows(ids(), length=16, stride=16), batch=micro, seed=3)
    done = steps(model, optimizer, iter(loader), losses.next_token, until=count, machine=CPU, accumulate=accumulate)
    return {name: value.clone() for name, value in model.state_dict().items()}, [step.loss for step in done]


def test_accumulation_equals_the_big_batch():
    """8 sequences at once, 4 x 2 or 8 x 1: the same losses and the same gradient to 1e-6 relative (fp32)."""
    whole, losses_whole = train(micro=8, accumulate=1)
    for micro in (2, 1):
        _, losses_split = train(micro=micro, accumulate=8 // micro)
        np.testing.assert_allclose(losses_split, losses_whole, rtol=1e-6)


class Recorder(torch.optim.SGD):
    """An optimizer that only looks at the gradients it is handed."""

    def step(self, closure=None):
        self.seen = [parameter.grad.clone() for group in self.param_groups for parameter in group["params"]]


def gradients(*, micro: int, accumulate: int) -> list[torch.Tensor]:
    model = build(TINY, seed=1)
    recorder = Recorder(model.parameters(), lr=1.0)
    batches = iter(Loader(Windows(ids(), length=16, stride=16), batch=micro, seed=3))
    list(steps(model, recorder, batches, losses.next_token, until=1, machine=CPU, accumulate=accumulate, clip=0))
    return recorder.seen


def test_accumulated_gradients_equal_the_big_batch():
    for split, whole in zip(gradients(micro=2, accumulate=4), gradients(micro=8, accumulate=1), strict=True):
        assert (split - whole).norm() / whole.norm() < 1e-6


def test_a_loss_that_is_not_finite_changes_nothing():
    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    batches = iter([point(math.nan, 1.0), point(math.inf, 1.0), point(1.0, 1.0)])
    before = model.w.item()
    walk = steps(model, optimizer, batches, squares, until=3, machine=CPU)
    assert next(walk).skipped == "loss is nan" and model.w.item() == before
    assert "inf" in next(walk).skipped and model.w.item() == before and not optimizer.state
    assert next(walk).skipped == "" and model.w.item() != before


def test_a_gradient_that_is_not_finite_changes_nothing():
    """sqrt has a finite value and an infinite slope at 0."""
    model = Line()
    with torch.no_grad():
        model.w.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (step,) = steps(model, optimizer, iter([point(1.0, 1.0)]), lambda m, b: (m.w.sqrt(), {}), until=1, machine=CPU)
    assert step.skipped == "gradient norm is inf"
    assert model.w.item() == 0.0


def test_the_rate_of_each_step_comes_from_the_schedule():
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=9.0)
    rates = [0.1, 0.2, 0.3, 0.4]
    batches = iter([point(1.0, 1.0)] * 2)
    walk = steps(model, optimizer, batches, squares, start=2, until=4, machine=CPU, lr=lambda index: rates[index])
    assert [step.lr for step in walk] == [0.3, 0.4]


@pytest.mark.slow
def test_one_batch_can_be_learnt_by_heart():
    model = build(TINY, seed=1)
    optimizer = optim.adamw(model, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    loader = Loader(Windows(ids(65), length=16, stride=16), batch=4, seed=3)
    done = list(steps(model, optimizer, iter(loader), losses.next_token, until=200, machine=CPU))
    assert done[0].loss == pytest.approx(math.log(37), abs=0.2)
    assert done[-1].loss < 0.05
