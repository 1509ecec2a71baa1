"""Many heads: stacked, split, fused, the library's and torch's: the same numbers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundup.errors import ModelError
from groundup.model.config import ModelConfig, from_name
from groundup.model.gpt import Attention, attention

SMALL = ModelConfig(family="gpt2", vocabulary=2, context=8, width=12, layers=1, heads=3, qkv_bias=False)


@pytest.fixture(scope="module")
def lesson(climb):
    return climb("many_heads")


@pytest.fixture
def split(lesson):
    """Three heads of four numbers, and a text of five words for them."""
    torch.manual_seed(3)
    return lesson["SplitHeads"](12, 12, heads=3), torch.randn(2, 5, 12)


def one_head(x: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One causal head (T, D) -> (T, K) word by word, from matrices (K, D)."""
    rows = []
    for place in range(len(x)):
        seen = x[: place + 1]
        scores = torch.stack([(key @ word).dot(query @ x[place]) for word in seen]) / len(query) ** 0.5
        rows.append(sum(share * (value @ word) for share, word in zip(scores.softmax(dim=0), seen, strict=True)))
    return torch.stack(rows)


def numbers_of(attention: nn.Module) -> torch.Tensor:
    """Query, key and value as the library keeps them: one matrix (3 H K, D)."""
    return torch.cat((attention.query.weight, attention.key.weight, attention.value.weight)).detach()


def in_the_library(split: nn.Module, config: ModelConfig) -> Attention:
    library = Attention(config, layer=0)
    library.load_state_dict({"qkv.weight": numbers_of(split), **split.out.state_dict(prefix="out.")})
    return library


def test_stacked_heads_stand_side_by_side(lesson):
    """A12: each head's numbers, worked out word by word, in the order of the heads."""
    torch.manual_seed(1)
    stacked, x = lesson["StackedHeads"](5, 2, heads=3), torch.randn(2, 4, 5)
    found = stacked(x)
    assert found.shape == (2, 4, 6)
    for number, head in enumerate(stacked.heads):
        for text in range(2):
            truth = one_head(x[text], head.query.weight, head.key.weight, head.value.weight)
            torch.testing.assert_close(found[text, :, 2 * number : 2 * number + 2], truth)


def test_two_heads_of_one_number_give_two_numbers(lesson):
    """A13: exercise 3.2: the size of a head, not the number of heads, is what changes."""
    stacked = lesson["StackedHeads"](3, 1, heads=2)
    assert len(stacked.heads) == 2
    assert stacked(lesson["batch"]).shape == (2, 6, 2)
    assert lesson["StackedHeads"](3, 2, heads=2)(lesson["batch"]).shape == (2, 6, 4)


def test_split_heads_equal_the_library(split):
    """A14: one projection cut into heads, word by word by hand; the library's Attention on the same numbers."""
    by_hand, x = split
    roles = [layer.weight.view(3, 4, 12) for layer in (by_hand.query, by_hand.key, by_hand.value)]  # (H K, D) cut
    heads = [torch.stack([one_head(text, *(role[head] for role in roles)) for text in x]) for head in range(3)]
    truth = torch.cat(heads, dim=-1) @ by_hand.out.weight.T + by_hand.out.bias
    torch.testing.assert_close(by_hand(x), truth)
    torch.testing.assert_close(in_the_library(by_hand, SMALL)(x, None, None, None), truth)


def test_a_width_that_heads_do_not_divide_is_refused(lesson):
    """A14: the lesson's class says so, and the library names both numbers and a way out."""
    with pytest.raises(ValueError, match="10 numbers .* 3 heads"):
        lesson["SplitHeads"](4, 10, heads=3)
    with pytest.raises(ModelError, match="width 10 is not divisible by heads 3"):
        ModelConfig(family="gpt2", vocabulary=2, context=8, width=10, layers=1, heads=3)


def test_the_attention_of_the_smallest_gpt2():
    """A15: exercise 3.3: 12 heads, four matrices of 768 by 768 and one bias: 2,360,064 numbers in the library's too."""
    config = from_name("gpt2", qkv_bias=False)
    with torch.device("meta"):
        library = Attention(config, layer=0)
    assert (library.heads, library.head_size, config.context) == (12, 64, 1024)
    assert sum(numbers.numel() for numbers in library.parameters()) == 4 * 768**2 + 768 == 2_360_064


def test_fused_and_torch_heads_equal_split_heads(split):
    """A22: torch's fused function, the library's quick one and nn.MultiheadAttention: values and gradients."""
    by_hand, x = split
    torchs = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(numbers_of(by_hand))
        torchs.in_proj_bias.zero_()
        torchs.out_proj.load_state_dict(by_hand.out.state_dict())

    def through(function):
        def answer(x):
            q, k, v = (by_hand.split(layer(x)) for layer in (by_hand.query, by_hand.key, by_hand.value))
            return by_hand.out(function(q, k, v).transpose(1, 2).flatten(2))  # (B, H, T, K) -> (B, T, H K)

        return answer

    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    ways = {
        "fused": through(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        "library": through(attention),
        "layer": lambda x: torchs(x, x, x, attn_mask=later, need_weights=False)[0],
    }
    x.requires_grad_()
    towards = torch.randn(2, 5, 12)
    truth = by_hand(x)
    (slope,) = torch.autograd.grad(truth, x, towards)
    for answer in ways.values():
        found = answer(x)
        torch.testing.assert_close(found, truth)
        torch.testing.assert_close(torch.autograd.grad(found, x, towards)[0], slope)
    unmasked = torchs(x, x, x, need_weights=False)[0]
    assert not torch.allclose(unmasked, truth, atol=1e-3)
