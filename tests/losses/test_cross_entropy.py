"""The lean cross entropy against torch's on whole logits: values, both gradients, weights, slices, number formats."""

import pytest
import torch
from torch.nn import functional as F

from groundup.losses import cross_entropy
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT


def problem(tokens=37, width=8, vocabulary=53, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(tokens, width, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    return states, head, torch.randint(vocabulary, (tokens,), generator=generator)


def plain(states, head, targets, weight=None):
    each = F.cross_entropy(states @ head.T, targets, reduction="none")
    return (each if weight is None else each * weight).sum()


@pytest.fixture(params=[(2**26, 2**21), (53 * 5, 53 * 2), (1, 1)], ids=["one slice", "slices of 5", "slices of 1"])
def sliced(request, monkeypatch):
    """The same sum in one slice, and in slices that do not divide the tokens."""
    import sys

    module = sys.modules["groundup.losses.cross_entropy"]
    monkeypatch.setattr(module, "LOGITS", request.param[0])
    monkeypatch.setattr(module, "BLOCK", request.param[1])


def weights(kind):
    """For 37 tokens; places of weight 0 are left out before the logits are made."""
    drawn = torch.rand(37, generator=torch.Generator().manual_seed(1))
    if kind == "half zero":
        drawn[torch.arange(37) % 5 < 3] = 0.0  # scattered, the first and not the last, so that slices mix both
    if kind == "one":
        drawn[torch.arange(37) != 19] = 0.0
    return None if kind == "none" else drawn


@pytest.mark.parametrize("wanted", ["both", "states", "head"])
@pytest.mark.parametrize("kind", ["none", "all", "half zero", "one"])
def test_value_and_gradients_equal_torch(sliced, kind, wanted):
    """Also of one side alone: a frozen head (LoRA), frozen states (only the head is trained)."""
    states, head, targets = problem()
    states.requires_grad_(wanted != "head")
    head.requires_grad_(wanted != "states")
    asked = [each for each in (states, head) if each.requires_grad]
    weight = weights(kind)
    ours = cross_entropy(states, head, targets, weight)
    found = torch.autograd.grad(ours * 0.3, asked)
    truth = plain(states, head, targets, weight)
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found, torch.autograd.grad(truth * 0.3, asked), rtol=1e-5, atol=1e-6)
    if weight is not None and wanted != "head":
        assert torch.equal(found[0].abs().sum(dim=1) > 0, weight > 0)  # nothing reaches a place that does not count


def test_all_weights_zero_cost_nothing_and_teach_nothing():
    states, head, targets = problem()
    ours = cross_entropy(states, head, targets, torch.zeros(37))
    ours.backward()
    assert ours.item() == 0.0 and not states.grad.any() and (head.grad is None or not head.grad.any())


def test_huge_logits_stay_finite():
    states, head = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[1.0], [-1.0]])
    assert cross_entropy(states, head, torch.tensor([0, 0])).item() == pytest.approx(2000.0)


def test_without_gradient_nothing_is_overwritten():
    states, head, targets = problem()
    before = states.detach().clone()
    with torch.no_grad():
        first, second = (cross_entropy(states, head, targets) for _ in range(2))
    assert first == second
    assert torch.equal(states, before)


def test_bf16_products_differ_from_fp32_by_their_rounding_only():
    states, head, targets = problem(tokens=64, width=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = cross_entropy(states, head, targets)
        truth = F.cross_entropy((states @ head.T).float(), targets, reduction="sum")
    found = torch.autograd.grad(ours, (states, head))
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-4)
    for one, two in zip(found, torch.autograd.grad(truth, (states, head)), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=0.02, atol=0.02 * two.abs().max().item())


@pytest.mark.parametrize("tie", [True, False])
def test_through_a_model_tied_or_not(tie):
    config = ModelConfig(family="gpt2", layers=1, heads=2, width=8, context=6, vocabulary=11, tie=tie)
    model = GPT(config, seed=3)
    ids, targets = torch.randint(11, (2, 2, 6), generator=torch.Generator().manual_seed(4))
    ours = cross_entropy(model(ids, head=False).flatten(0, 1), model.head_weight, targets.flatten())
    truth = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum")
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, one, two in zip(
        names, torch.autograd.grad(ours, parameters), torch.autograd.grad(truth, parameters), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5, msg=name)
