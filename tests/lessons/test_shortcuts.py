"""Rung `shortcuts`: what a layer adds, and how the gradient gets to the first one."""

import pytest
import torch

from groundup.model import build
from groundup.model.config import ModelConfig


@pytest.fixture(scope="module")
def lesson(climb):
    """The variables of the rung."""
    return climb("shortcuts")


def silent(model: torch.nn.Module) -> None:
    """Let both parts of every block answer 0."""
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attention.out, block.feedforward.down):
                layer.weight.zero_()
                layer.bias.zero_()


def test_blocks_add_to_what_came_in():
    """M05: blocks that answer 0 leave stream and gradient as they are, through all of them."""
    model = build(ModelConfig(family="gpt2", vocabulary=9, context=5, width=8, layers=12, heads=2), seed=1)
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    before = model(tokens, head=False)
    silent(model)
    entered = (model.token_table(tokens) + model.position_table.weight[None]).detach().requires_grad_()
    left = entered
    for block in model.blocks:
        left = block(left, None, None, None)
    left.backward(torch.ones_like(left))
    assert torch.equal(left, entered) and torch.equal(entered.grad, torch.ones_like(entered))
    after = model(tokens, head=False)
    torch.testing.assert_close(after, torch.nn.functional.layer_norm(entered, (8,)))
    assert not torch.allclose(before, after)


def test_only_shortcuts_carry_the_gradient_through_a_deep_network(lesson):
    """M05: with 20 layers in place of the figure's five, by the chain rule nothing is left without shortcuts."""
    sizes, sample = [3] * 20 + [1], torch.tensor([[1.0, 0.0, -1.0]])
    ratios = {}
    for shortcut in (False, True):
        torch.manual_seed(1)
        means = lesson["gradients"](lesson["Deep"](sizes, shortcut=shortcut), sample)
        assert len(means) == 20
        ratios[shortcut] = means[0] / means[-1]
    assert ratios[False] < 1e-6 and ratios[True] > 1e-2


def test_the_ten_means_are_derivatives(lesson):
    """M05: the mean gradients of the lesson against differences of the loss, weight by weight."""
    torch.manual_seed(123)
    model = lesson["Deep"]([3, 3, 3, 3, 3, 1], shortcut=True).double()
    sample = torch.tensor([[1.0, 0.0, -1.0]]).double()
    worked = []
    with torch.no_grad():
        for layer in model.layers:
            slopes = []
            for index in range(layer.weight.numel()):
                flat, losses = layer.weight.view(-1), []
                for step in (1e-6, -2e-6):
                    flat[index] += step
                    losses.append(model(sample).square().item())
                flat[index] += 1e-6
                slopes.append(abs(losses[0] - losses[1]) / 2e-6)
            worked.append(sum(slopes) / len(slopes))
    assert lesson["added"] == pytest.approx(worked, rel=1e-4)
