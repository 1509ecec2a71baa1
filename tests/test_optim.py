"""Optimizer: who decays, one step by hand, the schedule at every corner, clipping."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groundup.errors import ModelError
from groundup.model import build
from groundup.model.config import BigramConfig, from_name
from groundup.optim import Schedule, adamw, clip, groups, muon


class Tiny(nn.Module):
    """A table tied to the head, a norm, a linear layer, and one frozen weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_matrices_decay_norms_and_biases_do_not():
    model = Tiny()
    decayed, plain = groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(model.table.weight), id(model.linear.weight)]  # tied: once
    assert [id(p) for p in plain["params"]] == [id(model.norm.weight), id(model.norm.bias), id(model.linear.bias)]


def test_a_model_of_one_table_has_one_group():
    assert len(groups(nn.Embedding(3, 3), 0.1)) == 1


def test_nothing_to_train_is_refused():
    with pytest.raises(ModelError, match="no parameter to train"):
        groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


@pytest.mark.parametrize("fused", [True, False])
def test_two_steps_by_hand(fused):
    """AdamW written out: w -= lr * decay * w, then w -= lr * m_hat / (sqrt(v_hat) + eps)."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(3.0)
    optimizer = adamw(model, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)
    expected = {"weight": 2.0, "bias": 3.0}
    m = v = 0.0
    for step, gradient in enumerate((0.5, -0.2), start=1):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
        move = 0.01 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.95**step)) + 1e-8)
        expected["weight"] = expected["weight"] * (1 - 0.01 * 0.1) - move
        expected["bias"] -= move
    assert model.weight.item() == pytest.approx(expected["weight"], rel=1e-6)
    assert model.bias.item() == pytest.approx(expected["bias"], rel=1e-6)


def test_the_book_warmup():
    """Raschka 2024, section D.1: 15 epochs of 9 batches, up from 1e-4 to 1e-2 in 20 steps, then level."""
    schedule = Schedule(peak=0.01, min_lr=0.01, steps=135, warmup=20, initial=0.0001)
    values = [schedule.lr(step) for step in (0, 1, 19, 20, 134)]
    assert values == pytest.approx([0.0001, 0.000595, 0.009505, 0.01, 0.01], rel=1e-9)


def test_the_book_cosine():
    """Raschka 2024, section D.2: its cosine would reach the floor in step 135, one after the last."""
    schedule = Schedule(peak=0.01, min_lr=1e-5, steps=136, warmup=20, initial=0.0001)
    values = [schedule.lr(step) for step in (0, 19, 20, 77, 78, 134)]
    expected = [0.0001, 0.009505, 0.01, 0.005073225075460926, 0.004936774924539074, 1.1863728096756143e-05]
    assert values == pytest.approx(expected, rel=1e-9)


def test_schedule_by_hand():
    """Four steps up, then a cosine over 8 intervals: a quarter of the way down it has lost (1 - sqrt(1/2)) / 2."""
    schedule = Schedule(peak=2.0, min_lr=1.0, steps=13, warmup=4)
    assert [schedule.lr(step) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert schedule.lr(6) == pytest.approx(2 - (1 - math.sqrt(0.5)) / 2)
    assert schedule.lr(8) == pytest.approx(1.5)
    assert schedule.lr(12) == 1.0
    assert schedule.lr(13) == schedule.lr(10**9) == 1.0


def test_schedule_without_warmup_starts_at_the_peak():
    assert Schedule(peak=3.0, steps=5).lr(0) == 3.0
    assert Schedule(peak=3.0, steps=5).lr(4) == 0.0
    assert Schedule(peak=3.0, steps=1).lr(0) == 3.0


@given(st.integers(1, 60), st.integers(0, 80), st.floats(0, 1), st.none() | st.floats(0, 0.9))
@settings(deadline=None)
def test_schedule_rises_then_falls_within_its_bounds(steps, warmup, share, initial):
    schedule = Schedule(peak=1.0, min_lr=share, steps=steps, warmup=warmup, initial=initial)
    values = [schedule.lr(step) for step in range(steps + 5)]
    up, down = values[: min(warmup, steps)], values[warmup:steps]
    assert up == sorted(up) and down == sorted(down, reverse=True)
    assert initial == 0.0 or all(0 < value <= 1 for value in up)
    assert all(share - 1e-12 <= value <= 1 for value in down)
    assert set(values[steps:]) == {values[steps - 1]}
    if steps > warmup + 1:
        assert values[steps - 1] == pytest.approx(share, abs=1e-12)


def with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_the_book_clipping():
    """Raschka 2024, section D.3: [[1, 2], [2, 4]] has norm 5, and a fifth of it norm 1; here over two parameters."""
    parameters = with_gradients([1.0, 2.0], [2.0, 4.0])
    assert clip(parameters, 1.0).item() == pytest.approx(5.0, abs=1e-6)
    assert [p.grad.tolist() for p in parameters] == [
        pytest.approx([0.2, 0.4], abs=1e-6),
        pytest.approx([0.4, 0.8], abs=1e-6),
    ]


@pytest.mark.parametrize("norm", [0.0, 5.5])
def test_gradients_below_the_norm_and_norm_zero_are_left_alone(norm):
    parameters = with_gradients([3.0], [4.0])
    assert clip(iter(parameters), norm).item() == 5.0
    assert [p.grad.item() for p in parameters] == [3.0, 4.0]


def test_parameters_without_gradient_are_passed_over():
    assert clip([nn.Parameter(torch.ones(2)), *with_gradients([3.0, 4.0])], 1.0).item() == 5.0
    assert clip([nn.Parameter(torch.ones(2))], 1.0).item() == 0.0


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_reported_not_raised(value):
    assert not clip(with_gradients([1.0, value]), 1.0).isfinite()


SMALL = {"family": "qwen3", "layers": 2, "heads": 2, "width": 16, "context": 8}
MUON = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}


def network(seed=0):
    """A small network with random gradients everywhere."""
    model, generator = build(from_name("1m", vocabulary=11, **SMALL), seed=seed), torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def test_muon_takes_the_matrices_inside_the_blocks_and_adamw_the_rest():
    model = network()
    first, second = muon(model, **MUON).parts
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inner = {names[id(p)] for group in first.param_groups for p in group["params"]}
    outer = {names[id(p)] for group in second.param_groups for p in group["params"]}
    assert inner == {name for name, p in model.named_parameters() if name.startswith("blocks.") and p.dim() == 2}
    assert inner | outer == set(names.values()) and not inner & outer
    decayed = {names[id(p)] for group in second.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {"token_table.weight"} | ({"head.weight"} & outer)


def test_a_muon_step_is_orthogonal_and_as_large_as_one_of_adamw():
    """Its singular values are nearly equal, and its root mean square is 0.2 lr (Liu et al. 2025, section 2.2)."""
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    muon(model, **{**MUON, "weight_decay": 0.0}).step()
    for name, parameter in model.named_parameters():
        if not (name.startswith("blocks.") and parameter.dim() == 2):
            continue
        move = (parameter.detach() - before[name]) / 0.01
        sizes = torch.linalg.svdvals(move) / (0.2 * max(move.shape) ** 0.5)
        assert 0.7 < sizes.median() and sizes.max() < 1.3, name  # five Newton-Schulz rounds in bf16: near 1, not at it
        assert torch.linalg.vector_norm(move) / move.numel() ** 0.5 == pytest.approx(0.2, rel=0.25)


def test_the_rest_moves_as_under_adamw_alone():
    joint, alone = network(), network()
    for optimizer in (muon(joint, **MUON), adamw(alone, **MUON)):
        optimizer.step()
        optimizer.step()
    for (name, one), two in zip(joint.named_parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, two) == (not name.startswith("blocks.") or one.dim() < 2), name


def test_the_rate_set_on_the_whole_reaches_every_part():
    model = network()
    optimizer = muon(model, **{**MUON, "weight_decay": 0.0})
    before = [p.detach().clone() for p in model.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
    assert len(optimizer.state) == len(before)  # the parts keep their state in the whole


def test_muon_needs_blocks():
    with pytest.raises(ModelError, match="no matrix inside blocks"):
        muon(build(BigramConfig(vocabulary=9, context=4), seed=0), **MUON)


def test_stable_then_a_line_down_by_hand():
    """Hu et al. 2024, section 4: warm up, stay, and fall in the last share of the steps."""
    schedule = Schedule(peak=2.0, min_lr=1.0, steps=10, warmup=1, decay=0.5)
    assert [schedule.lr(step) for step in (0, 1, 4)] == [2.0, 2.0, 2.0]
    assert [schedule.lr(step) for step in (5, 7, 9, 50)] == pytest.approx([1.8, 1.4, 1.0, 1.0])


def test_more_steps_leave_the_stable_part_as_it_was():
    short, long = (Schedule(peak=1.0, steps=steps, warmup=5, decay=0.2) for steps in (100, 200))
    assert [short.lr(step) for step in range(79)] == [long.lr(step) for step in range(79)]


def test_a_decay_over_everything_leaves_the_warmup_alone():
    schedule = Schedule(peak=1.0, steps=10, warmup=5, decay=1.0)
    assert [schedule.lr(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule.lr(9) == 0.0
