"""Decoding with the cache gives what the full forward pass gives."""

import pytest
import torch

from groundup.errors import ModelError
from groundup.model import build
from groundup.model.cache import Cache
from groundup.model.config import ModelConfig

SMALL = {"vocabulary": 40, "context": 16, "width": 24, "layers": 3, "heads": 4, "init": "torch", "tie": False}
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=2),
    "qwen3": ModelConfig(family="qwen3", **SMALL, kv_heads=1, head_size=10),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
CHUNKS = pytest.mark.parametrize("chunks", [[16], [1] * 16, [5, *[1] * 11], [3, 4, 1, 8], [1, 15]], ids=str)


def ids(rows: int, time: int) -> torch.Tensor:
    return torch.randint(40, (rows, time), generator=torch.Generator().manual_seed(5))


@CASE
@CHUNKS
@torch.inference_mode()
def test_pieces_with_the_cache_equal_the_whole_without(config, chunks):
    model, tokens = build(config, seed=1).eval(), ids(2, 16)
    cache = Cache(config, batch=2, length=16)
    pieces = [model(piece, cache=cache) for piece in tokens.split(chunks, dim=1)]
    assert cache.length == 16
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), atol=1e-5, rtol=1e-5)


@CASE
@CHUNKS
@torch.inference_mode()
def test_rows_of_unequal_length_equal_each_row_alone(config, chunks):
    model, tokens = build(config, seed=1).eval(), ids(3, 16)
    filler = [0, 3, 7]  # on the left
    padding = torch.arange(16) >= torch.tensor(filler)[:, None]
    cache, pieces = Cache(config, batch=3, length=16), []
    for piece in tokens.split(chunks, dim=1):
        pieces.append(model(piece, padding=padding[:, : cache.length + piece.shape[1]], cache=cache))
    together = torch.cat(pieces, dim=1)
    assert together.isfinite().all()
    for row, skip in enumerate(filler):
        alone = model(tokens[row : row + 1, skip:])
        torch.testing.assert_close(together[row : row + 1, skip:], alone, atol=1e-5, rtol=1e-5)


@CASE
@torch.inference_mode()
def test_setting_the_length_back_forgets(config):
    model, tokens = build(config, seed=1).eval(), ids(1, 9)
    cache = Cache(config, batch=1, length=12)
    model(ids(1, 12).flip(1), cache=cache)
    cache.length = 0
    torch.testing.assert_close(model(tokens, cache=cache), model(tokens), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_cache_of_half_the_size_is_near():
    config = CASES["llama"]
    model, tokens = build(config, seed=1).eval(), ids(2, 16)
    cache = Cache(config, batch=2, length=16, dtype=torch.bfloat16)
    got = torch.cat([model(piece, cache=cache) for piece in tokens.split([10, 6], dim=1)], dim=1)
    torch.testing.assert_close(got, model(tokens), atol=0.02, rtol=0.02)


@torch.inference_mode()
def test_memory_is_as_documented():
    config = CASES["qwen3"]
    cache = Cache(config, batch=3, length=7)
    assert cache.keys.numel() + cache.values.numel() == 2 * 3 * 3 * 1 * 7 * 10  # layers, batch, kv_heads, length, K


def test_a_full_cache_and_a_full_context_are_refused():
    config = CASES["gpt2"]
    model, cache = build(config, seed=1), Cache(config, batch=1, length=4)
    with torch.inference_mode():
        model(ids(1, 3), cache=cache)
        with pytest.raises(ModelError, match=r"room for 4 tokens, not for 3 \+ 2"):
            model(ids(1, 2), cache=cache)
        assert cache.length == 3  # a refused call leaves the count alone
        long = Cache(config, batch=1, length=99)
        model(ids(1, 16), cache=long)
        with pytest.raises(ModelError, match="17 tokens are more than the model's context of 16"):
            model(ids(1, 1), cache=long)


def test_wrong_use_is_refused():
    config = CASES["llama"]
    model, cache = build(config, seed=1), Cache(config, batch=2, length=16)
    with pytest.raises(ModelError, match="cache was given while gradients are on"):
        model(ids(2, 3), cache=cache)
    with torch.inference_mode():
        with pytest.raises(ModelError, match="the cache is for 2 rows, the call has 3"):
            model(ids(3, 3), cache=cache)
        model(ids(2, 3), cache=cache)
        with pytest.raises(ModelError, match="documents given with 3 tokens in the cache"):
            model(ids(2, 1), cache=cache, documents=torch.zeros(2, 1))
        with pytest.raises(ModelError, match=r"padding has shape \(2, 1\).* with 3 in the cache"):
            model(ids(2, 1), cache=cache, padding=torch.ones(2, 1, dtype=torch.bool))


@torch.inference_mode()
def test_a_finer_cache_rounds_less_than_one_of_the_weights_format():
    """bf16 weights: keys and values come back in fp32, and attention to them is done in fp32."""
    config = CASES["llama"]
    model, tokens = build(config, seed=1).eval().bfloat16(), ids(2, 16)
    want = build(config, seed=1).eval().bfloat16().float()(tokens)  # the same numbers, all in fp32
    cache = Cache(config, batch=2, length=16)
    k = torch.ones(2, 2, 1, 6, dtype=torch.bfloat16)
    assert cache.append(0, k, k)[0].dtype == torch.bfloat16  # nothing kept yet: as it came
    got = torch.cat([model(piece, cache=cache) for piece in tokens.split(1, dim=1)], dim=1)
    assert got.dtype == torch.bfloat16 and cache.append(0, k[..., :0, :], k[..., :0, :])[0].dtype == torch.float32
    torch.testing.assert_close(got.float(), want, atol=0.05, rtol=0.05)
