"""Positions, several heads, feed forward, blocks: rows E05, M04 and M14 of the coverage."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model import ModelConfig, build
from groundup.model.gpt import FeedForward


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    """The variables of the rung."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("several_heads")


def test_position_and_token_table_make_logits(lesson):
    """E05: logits (B, T, 65), each made of one row of either table; the library adds the same two rows."""
    torch.manual_seed(5)
    model, ids = lesson["rung"]("tables"), torch.tensor([[7, 7, 1], [64, 0, 7]])
    logits = model(ids)
    assert logits.shape == (2, 3, 65)
    one_hot = F.one_hot(ids, 65).float()  # a look-up is a product with a row that is 1 in one place
    x = one_hot @ model.token_table.weight + torch.eye(3, 8) @ model.position_table.weight
    torch.testing.assert_close(logits, x @ model.head.weight.T + model.head.bias)
    assert not logits[0, 0].allclose(logits[0, 1])  # the same character elsewhere

    config = ModelConfig(family="gpt2", vocabulary=65, context=8, width=32, layers=1, heads=4, tie=False)
    gpt = build(config, seed=1)
    with torch.no_grad():
        for part in (gpt.blocks[0].attention.out, gpt.blocks[0].feedforward.down):  # a block that adds nothing
            part.weight.zero_()
            part.bias.zero_()
    summed = gpt.token_table.weight[ids] + gpt.position_table.weight[:3]
    torch.testing.assert_close(gpt(ids), F.layer_norm(summed, (32,)) @ gpt.head_weight.T)


def test_feed_forward_keeps_the_shape_and_treats_each_place_alone(lesson):
    """M04: (B, T, D) stays; the lecture's is ReLU of one layer, the library's GELU between two, 4 times as wide."""
    torch.manual_seed(5)
    x = torch.randn(2, 8, 32)
    small = lesson["Thinking"]()
    torch.testing.assert_close(small(x), (x @ small.layer.weight.T + small.layer.bias).clamp(min=0))
    config = ModelConfig(family="gpt2", vocabulary=65, context=8, width=32, layers=1, heads=4)
    wide = FeedForward(config)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.normal_(std=0.1)
    assert wide.up.weight.shape == (4 * 32, 32) and wide.down.weight.shape == (32, 4 * 32)
    inside = x @ wide.up.weight.T + wide.up.bias
    bent = inside / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inside + 0.044715 * inside**3)))
    torch.testing.assert_close(wide(x), bent @ wide.down.weight.T + wide.down.bias, rtol=1e-4, atol=1e-4)
    for part in (small, wide):
        assert part(x).shape == x.shape
        torch.testing.assert_close(part(x)[:, 5], part(x[:, 5:6])[:, 0])


@pytest.mark.slow
def test_the_loss_falls_rung_by_rung(lesson):
    """M14: positions, one head, four heads, feed forward: each rung trains, and ends below the one before it."""
    reached = {}
    for name in ("tables", "one head", "four heads", "+ feed forward", "three blocks"):
        torch.manual_seed(1337)
        model = lesson["rung"](name)
        reached[name] = lesson["train"](model, 1_500)
    assert all(loss < 2.7 for loss in reached.values()), reached  # a fresh model begins above 4.1
    assert reached["tables"] > reached["one head"] > reached["four heads"] > reached["+ feed forward"], reached
    assert reached["three blocks"] < reached["tables"], reached
