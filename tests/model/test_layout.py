"""A network laid out for decoding computes what it computed before, in every family, and refuses what it cannot do."""

import pytest
import torch
from torch import nn

from groundup.errors import ModelError
from groundup.model import BigramConfig, ModelConfig, build
from groundup.model.layout import LaidOut, can_lay_out, lay_out, replace_linears

SMALL = {"vocabulary": 40, "context": 16, "width": 24, "layers": 3, "heads": 4, "init": "torch"}
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "gpt2-untied": ModelConfig(family="gpt2", **SMALL, tie=False, qkv_bias=False),
    "llama": ModelConfig(family="llama", **SMALL, tie=True, kv_heads=2),
    "qwen3": ModelConfig(family="qwen3", **SMALL, tie=False, kv_heads=1, head_size=10),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
X86 = pytest.mark.skipif(not can_lay_out(torch.float32), reason="torch's own layout is kept on this processor")


def ids(rows: int, time: int) -> torch.Tensor:
    return torch.randint(40, (rows, time), generator=torch.Generator().manual_seed(5))


@X86
@CASE
@pytest.mark.parametrize("rows", [1, 3])
@torch.inference_mode()
def test_the_same_logits_for_any_shape(config: ModelConfig, rows: int):
    plain, laid_out = build(config, seed=1).eval(), build(config, seed=1).eval()
    assert lay_out(laid_out, rows=rows)
    assert sum(isinstance(module, LaidOut) for module in laid_out.modules()) == _matrices(config)
    for shape in [(1, 1), (3, 1), (3, 16)]:
        torch.testing.assert_close(laid_out(ids(*shape)), plain(ids(*shape)), atol=1e-5, rtol=1e-5)


def _matrices(config: ModelConfig) -> int:
    """Per layer qkv, out and two or three of the feed-forward part; and the head, tied or not."""
    return config.layers * (4 if config.family == "gpt2" else 5) + 1


@pytest.mark.skipif(not can_lay_out(torch.bfloat16), reason="no bf16 products on this processor")
@CASE
@torch.inference_mode()
def test_bf16_logits_differ_only_by_rounding(config: ModelConfig):
    exact = build(config, seed=1).eval().bfloat16()
    laid_out = build(config, seed=1).eval().bfloat16()
    lay_out(laid_out)
    upcast = build(config, seed=1).bfloat16().float().eval()  # the same numbers, computed finely: the yardstick
    want = upcast(ids(2, 9))
    error, before = ((model(ids(2, 9)).float() - want).abs().max() for model in (laid_out, exact))
    assert error <= 2 * before < 0.2 * want.abs().max()


@X86
@torch.inference_mode()
def test_one_layer_against_a_product_by_hand():
    linear = nn.Linear(2, 3)
    linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    linear.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
    assert LaidOut(linear)(torch.tensor([[10.0, 1.0]])).tolist() == [[12.5, 34.0, 55.0]]


def test_matrices_are_freed_one_by_one():
    """While the second layer is made, the first one's matrix is already gone."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    first, sizes = model[0], []

    def make(linear: nn.Linear) -> nn.Module:
        sizes.append(first.weight.numel())
        return nn.Identity()

    replace_linears(model, make)
    assert sizes == [16, 0]


@X86
def test_it_cannot_be_saved():
    model = build(CASES["llama"], seed=1)
    lay_out(model)
    with pytest.raises(ModelError, match=r"matrix of blocks.0.attention.qkv .* cannot be saved\n.*load it again"):
        model.state_dict()


def test_where_nothing_is_to_be_gained_nothing_is_done():
    model = build(CASES["gpt2"], seed=1).half()
    assert not lay_out(model) and model.state_dict()
    with torch.device("meta"):
        assert not lay_out(build(CASES["gpt2"]))
    bigram = build(BigramConfig(vocabulary=5, context=4), seed=1)
    before = bigram(ids(1, 3) % 5)
    lay_out(bigram)
    assert torch.equal(bigram(ids(1, 3) % 5), before)
