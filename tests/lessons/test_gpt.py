"""Rung `gpt`: the frame, all settings, counts and bytes of every size, three dropout rates."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.model import build
from groundup.model.config import ModelConfig, count_parameters, from_name
from groundup.model.gpt import GPT, Block

SMALL = {"family": "gpt2", "vocabulary": 11, "context": 6, "width": 8, "layers": 2, "heads": 2, "init": "torch"}
TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


def empty(name: str, *, tie: bool) -> GPT:
    """A size of GPT-2 as the documents build it, without memory."""
    with torch.device("meta"):
        return build(from_name(name, tie=tie, qkv_bias=False))


def parameters(module: torch.nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


@pytest.fixture(scope="module")
def lesson(data_dir: Path, climb: Callable) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("gpt")


@pytest.mark.slow
def test_placeholders_let_no_token_see_another(lesson: dict):
    """M01: with placeholders the logits are (table + place) times head; with real blocks the frame equals `build`."""
    config = ModelConfig(**SMALL, tie=False)
    torch.manual_seed(7)
    frame = lesson["Frame"](config, [lesson["Placeholder"]()], lesson["Placeholder"]())
    with torch.no_grad():
        logits = frame(TOKENS)
        one = (frame.token_table.weight[4] + frame.position_table.weight[2]) @ frame.head.weight.T
        torch.testing.assert_close(logits[0, 2], one)
        torch.testing.assert_close(frame(TOKENS.flip(0))[1], logits[0])
        torch.manual_seed(7)
        blocks = [Block(config, layer) for layer in range(2)]
        real = lesson["Frame"](config, blocks, torch.nn.LayerNorm(8))(TOKENS)
        torch.manual_seed(7)
        torch.testing.assert_close(real, build(config)(TOKENS))


def test_gpt_from_a_dictionary_of_settings():
    """M07: every setting is found in a shape, and the logits are those of the same steps written out."""
    model = build(ModelConfig(**SMALL, tie=False, qkv_bias=False), seed=1)
    assert model.token_table.weight.shape == (11, 8) and model.position_table.weight.shape == (6, 8)
    assert len(model.blocks) == 2 and model.head.weight.shape == (11, 8)
    assert all(block.attention.heads == 2 and block.attention.qkv.bias is None for block in model.blocks)
    with torch.no_grad():
        x = model.token_table.weight[TOKENS] + model.position_table.weight[:4]  # (B, T, D) + (T, D)
        for block in model.blocks:
            x = block(x, None, None, None)
        logits = F.layer_norm(x, (8,)) @ model.head.weight.T
        torch.testing.assert_close(model(TOKENS), logits)
    assert logits.shape == (2, 4, 11)


def test_tying_saves_the_head():
    """M08: 163,009,536 parameters with a head of its own, 124,412,160 tied; tied, the token table is the head."""
    assert parameters(empty("gpt2", tie=False)) == 163_009_536
    assert parameters(empty("gpt2", tie=True)) == 124_412_160
    assert count_parameters(from_name("gpt2", tie=False, qkv_bias=False)).total == 163_009_536
    model = build(ModelConfig(**SMALL), seed=1)
    assert model.head is None and model.head_weight is model.token_table.weight
    with torch.no_grad():
        states = model(TOKENS, head=False)
        torch.testing.assert_close(model(TOKENS), states @ model.token_table.weight.T)


def test_bytes_of_the_weights():
    """M09: four bytes for each number are 621.83 MiB, untied; as bf16 half of that."""
    model = empty("gpt2", tie=False)
    size = sum(one.numel() * one.element_size() for one in model.parameters()) / 2**20
    assert size == pytest.approx(621.83, abs=0.005)
    model.bfloat16()
    assert sum(one.numel() * one.element_size() for one in model.parameters()) / 2**20 == pytest.approx(size / 2)


def test_feed_forward_is_the_larger_part_of_a_block():
    """M10: 8 D^2 + 5 D against 4 D^2 + D numbers, D being 768."""
    block = empty("gpt2", tie=False).blocks[0]
    assert parameters(block.feedforward) == 8 * 768**2 + 5 * 768 == 4_722_432
    assert parameters(block.attention) == 4 * 768**2 + 768 == 2_360_064


@pytest.mark.parametrize(
    "name, width, layers, heads, total, mebibytes",
    [
        ("gpt2-medium", 1024, 24, 16, 406_212_608, 1549.58),
        ("gpt2-large", 1280, 36, 20, 838_220_800, 3197.56),
        ("gpt2-xl", 1600, 48, 25, 1_637_792_000, 6247.68),
    ],
)
def test_larger_sizes_from_settings_alone(name: str, width: int, layers: int, heads: int, total: int, mebibytes: float):
    """M11: built without memory, from width, layers and heads; counted, by formula, and in MiB."""
    model = empty(name, tie=False)
    assert [len(model.blocks), model.blocks[0].attention.heads, model.norm.weight.numel()] == [layers, heads, width]
    block = 12 * width**2 + 10 * width  # attention 4 D^2 + D, feed-forward 8 D^2 + 5 D, two norms of 2 D
    by_formula = (2 * 50_257 + 1024) * width + layers * block + 2 * width
    assert parameters(model) == by_formula == total
    assert total * 4 / 2**20 == pytest.approx(mebibytes, abs=0.005)
    assert parameters(empty(name, tie=True)) == total - 50_257 * width


def struck(before: Tensor, after: Tensor, rate: float) -> float:
    """Share of numbers that became 0; all others must be divided by the chance to survive."""
    kept = after != 0
    torch.testing.assert_close(after[kept], before[kept] / (1 - rate), rtol=1e-4, atol=1e-6)
    return 1 - kept.float().mean().item()


@pytest.mark.parametrize("init", ["torch", "gpt2"])  # each has a drawing of its own
def test_three_dropout_rates_each_in_its_place(init: str):
    """M12: embedding, attention weights and shortcut drop at three different rates while training, and none in use."""
    rates = {"dropout_embedding": 0.1, "dropout_attention": 0.3, "dropout_shortcut": 0.5}
    config = ModelConfig(**SMALL | {"context": 64, "width": 64, "heads": 1, "layers": 1, "init": init}, **rates)
    model = build(config, seed=1)
    attention, seen = model.blocks[0].attention, []
    with torch.no_grad():  # scores all alike, values the tokens' own vectors: what comes out are the weights
        attention.qkv.weight.copy_(torch.cat((torch.zeros(128, 64), torch.eye(64))))
        attention.qkv.bias.zero_()
        attention.out.weight.copy_(torch.eye(64))
        attention.out.bias.zero_()
    for part in (model.dropout, model.blocks[0].dropout):
        part.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))

    torch.manual_seed(4)
    lower, even = torch.ones(64, 64).tril().bool(), 1 / torch.arange(1.0, 65.0)[:, None]
    shares = []
    with torch.no_grad():
        for _ in range(8):
            weights = attention(torch.eye(64)[None], None, None, None)[0]
            shares.append(struck(even.expand(64, 64)[lower], weights[lower], 0.3))
        assert sum(shares) / 8 == pytest.approx(0.3, abs=0.02)
        for _ in range(8):
            model(torch.randint(11, (2, 64)))
    assert len(seen) == 8 * 3  # after the tables, and on the answer of each part
    for start, rate in ((0, 0.1), (1, 0.5), (2, 0.5)):
        found = [struck(*pair, rate) for pair in seen[start::3]]
        assert sum(found) / 8 == pytest.approx(rate, abs=0.02)

    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(attention(torch.eye(64)[None], None, None, None)[0], even * lower)
        torch.testing.assert_close(model(TOKENS), model(TOKENS), atol=0, rtol=0)
