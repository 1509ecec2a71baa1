"""Rung `transformer_block`: pre-norm, post-norm and parallel against independent twins; two parts of newer blocks."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.gpt import Block, GatedFeedForward, RMSNorm

CONFIG = ModelConfig(family="gpt2", vocabulary=9, context=8, width=12, layers=1, heads=3, init="torch")


@pytest.fixture(scope="module")
def lesson(climb) -> dict:
    return climb("transformer_block")


@pytest.fixture
def block() -> Block:
    """A block whose norms are no longer at their first values, so that a norm in the wrong place is seen."""
    block = build(CONFIG, seed=1).blocks[0]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in (block.attention_norm, block.feedforward_norm):
            norm.weight.normal_(1.0, 0.5, generator=generator)
            norm.bias.normal_(0.0, 0.5, generator=generator)
    return block


def states() -> Tensor:
    return torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(3))


def twin(block: Block, x: Tensor, *, norm_first: bool) -> Tensor:
    """torch's own encoder layer with the same weights, under a causal mask: (B, T, D) -> (B, T, D)."""
    settings = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
    layer = nn.TransformerEncoderLayer(12, 3, 48, activation=lambda x: F.gelu(x, approximate="tanh"), **settings)
    pairs = {
        "self_attn.in_proj_": block.attention.qkv,
        "self_attn.out_proj.": block.attention.out,
        "linear1.": block.feedforward.up,
        "linear2.": block.feedforward.down,
        "norm1.": block.attention_norm,
        "norm2.": block.feedforward_norm,
    }
    state = {name + key: value for name, part in pairs.items() for key, value in part.state_dict().items()}
    layer.load_state_dict(state)
    future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    with torch.no_grad():
        return layer(x, src_mask=future)


def test_block_is_pre_norm(lesson: dict, block: Block):
    """M06: the library's block, and the lesson's, equal torch's encoder layer, norms first; the shape is kept."""
    by_hand = lesson["Block"](CONFIG)
    by_hand.load_state_dict(block.state_dict())
    with torch.no_grad():
        out = block(states(), None, None, None)
        torch.testing.assert_close(by_hand(states()), out)
        torch.testing.assert_close(lesson["pre_norm"](block, states()), out)
    assert out.shape == (2, 6, 12)
    torch.testing.assert_close(out, twin(block, states(), norm_first=True))


def test_post_norm_is_another_block(lesson: dict, block: Block):
    """M06: the post-norm arrangement, mentioned by the documents, equals torch's encoder layer with its norms last."""
    with torch.no_grad():
        out = lesson["post_norm"](block, states())
        torch.testing.assert_close(out, twin(block, states(), norm_first=False))
        assert not torch.allclose(out, block(states(), None, None, None), atol=0.1)


def test_parallel_block_adds_two_answers_to_one_question(lesson: dict, block: Block):
    """M13: both parts read the same normalised input; with one of them silenced the other's answer remains."""
    x, parallel = states(), lesson["parallel"]
    with torch.no_grad():
        both = parallel(block, x) - x
        assert not torch.allclose(parallel(block, x), lesson["pre_norm"](block, x), atol=1e-2)
        normal = F.layer_norm(x, (12,), block.attention_norm.weight, block.attention_norm.bias)
        thought = F.gelu(normal @ block.feedforward.up.weight.T + block.feedforward.up.bias, approximate="tanh")
        thought = thought @ block.feedforward.down.weight.T + block.feedforward.down.bias
        for parameter in block.feedforward.parameters():
            parameter.zero_()
        heard = parallel(block, x) - x
        # pre-norm with a silent feed-forward part is attention alone, of the same normalised input
        torch.testing.assert_close(heard, twin(block, x, norm_first=True) - x)
    torch.testing.assert_close(both, heard + thought)


def test_rms_norm_and_swiglu_by_hand(lesson: dict):
    """M13: RMSNorm divides by the root mean square, whatever the mean; SwiGLU gates one row by another, bent."""
    norm = RMSNorm(2, eps=1e-5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0]))
    row = torch.tensor([3.0, 4.0])
    worked = [3 / math.sqrt(12.5), 2 * 4 / math.sqrt(12.5)]
    assert norm(row).tolist() == pytest.approx(worked, abs=1e-5)
    assert lesson["rms_norm"](row, norm.weight.detach()).tolist() == pytest.approx(worked, abs=1e-5)

    config = ModelConfig(family="llama", vocabulary=2, context=2, width=2, layers=1, heads=1, hidden=1)
    part = GatedFeedForward(config)
    gate, up, down = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0], [-2.0]])
    part.load_state_dict({"gate.weight": gate, "up.weight": up, "down.weight": down})
    x = torch.tensor([[[2.0, 5.0]]])
    middle = 2 / (1 + math.exp(-2)) * 15  # SiLU(2) times 3 * 5
    assert part(x).flatten().tolist() == pytest.approx([middle, -2 * middle], rel=1e-6)
    assert lesson["swiglu"](x, gate, up, down).flatten().tolist() == pytest.approx([middle, -2 * middle], rel=1e-6)
