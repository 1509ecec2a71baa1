"""Who may look at whom: rows A19, A20 and A21 of the coverage, on the library's attention."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model import ModelConfig, build
from groundup.model.gpt import attention, attention_by_hand

WAYS = pytest.mark.parametrize("way", [attention, attention_by_hand])
EVERYONE = torch.ones(1, 1, 6, 6, dtype=torch.bool)


@pytest.fixture(scope="module")
def lesson(climb):
    """The variables of the rung."""
    return climb("encoder_decoder")


def drawn(*shape: int, seed: int) -> torch.Tensor:
    """Numbers of deviation 1."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@WAYS
def test_a_decoder_sees_the_past_and_an_encoder_everything(way):
    """A19: change place 3 of 6; in a decoder 3, 4 and 5 notice, in an encoder all six."""
    q, k, v = (drawn(2, 4, 6, 8, seed=seed) for seed in range(3))
    k2, v2 = k.clone(), v.clone()
    k2[:, :, 3] += 1
    v2[:, :, 3] += 1
    for mask, expected in ((None, [False] * 3 + [True] * 3), (EVERYONE, [True] * 6)):
        gap = (way(q, k, v, mask) - way(q, k2, v2, mask)).abs().amax(dim=(0, 1, 3))
        assert (gap > 1e-6).tolist() == expected
    torch.testing.assert_close(way(q, k, v, EVERYONE), F.scaled_dot_product_attention(q, k, v))


def test_the_rung_and_the_network_keep_the_rule(lesson):
    """A19: the rung's head with and without mask, and the whole GPT, whose logits never know the future."""
    head, x = lesson["Head"](32, 16), drawn(2, 6, 32, seed=1)
    other = x.clone()
    other[:, -1] += 1
    assert lesson["moved"](head(x, causal=True), head(other, causal=True)) == [False] * 5 + [True]
    assert lesson["moved"](head(x), head(other)) == [True] * 6
    model = build(ModelConfig(family="gpt2", vocabulary=65, context=8, width=32, layers=2, heads=4), seed=1)
    ids = torch.tensor([[5, 17, 42, 9, 3, 8]])
    changed = ids.clone()
    changed[0, -1] = 60
    torch.testing.assert_close(model(ids)[:, :-1], model(changed)[:, :-1], rtol=0, atol=0)
    assert not model(ids)[:, -1].allclose(model(changed)[:, -1])


@WAYS
@pytest.mark.parametrize(("asking", "asked"), [(6, 9), (9, 6)])
def test_cross_attention_asks_another_text(way, asking, asked, lesson):
    """A20: queries (B, H, T, K) from x, keys and values (B, H, S, K) from y; the answer has the length of x."""
    q, k, v = drawn(2, 4, asking, 8, seed=1), drawn(2, 4, asked, 8, seed=2), drawn(2, 4, asked, 8, seed=3)
    across = torch.ones(1, 1, asking, asked, dtype=torch.bool)
    answer = way(q, k, v, across)
    assert answer.shape == (2, 4, asking, 8)
    torch.testing.assert_close(answer, F.scaled_dot_product_attention(q, k, v))
    # each answer is its own query's alone, and all of them change with the other text
    torch.testing.assert_close(way(q[:, :, 2:3], k, v, across[:, :, :1])[:, :, 0], answer[:, :, 2])
    moved = (way(q, k, v + 1, across) - answer).abs().amax(dim=(0, 1, 3))
    assert (moved > 1e-6).all()
    head = lesson["Head"](32, 16)
    assert head(drawn(2, asking, 32, seed=4), drawn(2, asked, 32, seed=5)).shape == (2, asking, 16)


@WAYS
def test_permuting_tokens_permutes_outputs(way):
    """A21: without mask and positions attention has no order; a mask, or positions, bring one in."""
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    q, k, v = (drawn(2, 4, 6, 8, seed=seed) for seed in range(3))
    straight = way(q, k, v, EVERYONE)
    shuffled = way(q[:, :, order], k[:, :, order], v[:, :, order], EVERYONE)
    torch.testing.assert_close(shuffled, straight[:, :, order])
    assert not shuffled.allclose(straight)
    masked = way(q[:, :, order], k[:, :, order], v[:, :, order])
    assert not masked.allclose(way(q, k, v)[:, :, order])


def test_positions_bring_the_order_back():
    """A21: through the library's projections shuffled vectors give shuffled answers; with its position table not."""
    model = build(
        ModelConfig(family="gpt2", vocabulary=65, context=6, width=32, layers=1, heads=4, init="torch"), seed=1
    )
    part, order = model.blocks[0].attention, torch.tensor([3, 0, 5, 1, 4, 2])
    ids = torch.tensor([[5, 17, 42, 9, 3, 8]])

    def answers(ids: torch.Tensor, *, positions: bool) -> torch.Tensor:
        x = model.token_table(ids) + (model.position_table.weight if positions else 0)
        return part(x, EVERYONE, None, None)

    torch.testing.assert_close(answers(ids[:, order], positions=False), answers(ids, positions=False)[:, order])
    assert not answers(ids[:, order], positions=True).allclose(answers(ids, positions=True)[:, order])
