"""Attention by blocks against the arithmetic written out: values, gradients, masks, groups, dropout, kept or not."""

import sys

import pytest
import torch

from groundup.model.attend import ROWS, attend
from groundup.model.dropout import Dropout, survivors
from groundup.model.gpt import attention_by_hand


def problem(batch=2, heads=4, groups=2, queries=150, keys=150, size=8):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, heads, queries, size), (batch, groups, keys, size), (batch, groups, keys, size))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def compare(q, k, v, mask=None, tolerance=1e-5):
    ours, truth = attend(q, k, v, mask), attention_by_hand(q, k, v, mask)
    torch.testing.assert_close(ours, truth, rtol=tolerance, atol=tolerance)
    gradient = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(ours, (q, k, v), gradient)
    torch.testing.assert_close(found, torch.autograd.grad(truth, (q, k, v), gradient), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("time", [1, 2, ROWS - 1, ROWS, ROWS + 1, 150])  # 150 keys of size 8: weights are made again
def test_causal(time):
    compare(*problem(queries=time, keys=time))


def test_fewer_queries_than_keys_stand_at_the_end():
    compare(*problem(queries=70, keys=150))


@pytest.mark.parametrize("shape", [(2, 1, 150, 150), (1, 1, 150, 150)])
def test_mask(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.3
    compare(*problem(), mask | torch.eye(150, dtype=torch.bool))


def test_kept_weights_and_weights_made_again_give_the_same_numbers(monkeypatch):
    q, k, v = problem(queries=100, keys=100, size=16, groups=4)
    gradient = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    for dropout in (0.0, 0.4):
        results = []
        for kept in (100, 0):
            monkeypatch.setattr(sys.modules["groundup.model.attend"], "KEPT", kept)
            torch.manual_seed(5)
            results.append(torch.autograd.grad(attend(q, k, v, dropout=dropout), (q, k, v), gradient))
        for one, two in zip(*results, strict=True):
            assert torch.equal(one, two)


def test_dropout_gradient_equals_that_of_the_same_drawing_written_out():
    q, k, v = problem(groups=4, queries=40, keys=40)
    torch.manual_seed(7)
    ours = attend(q, k, v, dropout=0.5)
    torch.manual_seed(7)
    scores = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(torch.ones(40, 40, dtype=torch.bool).triu(1), -torch.inf)
    weights = torch.softmax(scores, -1)
    drawn = survivors(weights.flatten(0, 1), 0.5).unflatten(0, (2, 4))
    truth = (weights * drawn) @ v
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-5)
    gradient = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(ours, (q, k, v), gradient)
    torch.testing.assert_close(found, torch.autograd.grad(truth, (q, k, v), gradient), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_dropout_rate_and_mean(p):
    torch.manual_seed(0)
    drawn = survivors(torch.empty(1000, 1001), p)
    assert (drawn == 0).float().mean().item() == pytest.approx(p, abs=3e-3)  # 6 standard deviations of a million draws
    assert drawn.mean().item() == pytest.approx(1.0, abs=1.5e-2)
    assert drawn.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], abs=1e-3)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (survivors(torch.empty(1_000_000), 0.3) == 0).float()
    for step in (1, 2, 3, 4, 5, 8):  # four draws share one random number
        assert (dropped[step:] * dropped[:-step]).mean().item() == pytest.approx(0.09, abs=2e-3)


def test_dropout_rests_outside_training():
    layer, x = Dropout(0.5), torch.randn(10)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)
