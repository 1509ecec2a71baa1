"""Dropout on weights, off in use; and the batched causal head whose mask goes where it goes."""

import math

import pytest
import torch
from torch import nn

from groundup.model.dropout import Dropout
from groundup.model.gpt import attention


@pytest.fixture(scope="module")
def lesson(climb):
    return climb("attention_dropout")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["torch", "ours", "ours, as torch draws"])
def test_survivors_grow_and_use_drops_nothing(kind, p):
    """A10: a share p becomes 0, the rest is divided by 1 - p; eval mode changes nothing."""
    dropout = nn.Dropout(p) if kind == "torch" else Dropout(p, by_torch="torch" in kind)
    torch.manual_seed(1)
    ones = torch.ones(200, 200)
    dropped = dropout(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 40_000))
    assert dropout.eval()(ones).equal(ones)


def test_the_pattern_of_a_seed(lesson):
    """A10: told so, the library drops exactly what torch drops, layer by layer and inside attention."""
    for p, seed in ((0.5, 123), (0.3, 7)):
        torch.manual_seed(seed)
        truth = nn.Dropout(p)(torch.ones(40, 40))
        torch.manual_seed(seed)
        assert Dropout(p, by_torch=True)(torch.ones(40, 40)).equal(truth)
        torch.manual_seed(seed)
        assert not Dropout(p)(torch.ones(40, 40)).equal(truth)  # left to itself it draws otherwise
    head = lesson["CausalAttention"](3, 2, context=5, dropout=0.4)
    x = torch.randn(2, 5, 3)
    q, k, v = (layer(x)[:, None] for layer in (head.query, head.key, head.value))
    torch.manual_seed(5)
    by_hand = head(x)
    torch.manual_seed(5)
    torch.testing.assert_close(attention(q, k, v, dropout=0.4, by_torch=True)[:, 0], by_hand)
    assert not torch.allclose(by_hand, head.eval()(x))
    torch.testing.assert_close(attention(q, k, v)[:, 0], head(x))


def test_the_mask_moves_with_the_module(lesson):
    """A11: the triangle is a buffer: moved, saved and loaded with the module, and nothing an optimizer would touch."""
    head = lesson["CausalAttention"](3, 2, context=4, dropout=0.0)
    assert head.later.tolist() == [[column > row for column in range(4)] for row in range(4)]
    assert "later" in head.state_dict() and len(list(head.parameters())) == 3
    moved = head.to("meta")  # a device that every machine has
    assert {tensor.device.type for tensor in (moved.later, moved.query.weight)} == {"meta"}
    assert moved(torch.ones(2, 3, 3, device="meta")).shape == (2, 3, 2)


def test_a_batch_is_its_texts_one_by_one(lesson):
    """A11: (B, T, D) to (B, T, K) for texts up to the context; no text hears of another, no word of a later one."""
    head = lesson["CausalAttention"](3, 2, context=6, dropout=0.0)
    x = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1))
    together = head(x)
    assert together.shape == (3, 4, 2)
    torch.testing.assert_close(together, torch.cat([head(text[None]) for text in x]))
    torch.testing.assert_close(together[:, :2], head(x[:, :2]))
