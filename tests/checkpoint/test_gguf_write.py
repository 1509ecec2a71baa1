"""GGUF files out: read again by the gguf library, transformers, ourselves and, where it is installed, llama.cpp."""

import random
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup import tokens
from groundup.checkpoint import space
from groundup.checkpoint.gguf import write
from groundup.errors import CheckpointError
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig, RopeScaling

gguf = pytest.importorskip("gguf")

SMALL = {"vocabulary": 310, "context": 64, "width": 64, "layers": 2, "heads": 4}
SCALED = RopeScaling(kind="llama3", factor=8.0, low=1.0, high=4.0, original_context=16)
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "gpt2 without qkv bias": ModelConfig(family="gpt2", **SMALL, qkv_bias=False),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=2, tie=False),
    "llama tied": ModelConfig(family="llama", **SMALL, rope_base=500_000.0, norm_eps=1e-6),
    "llama3": ModelConfig(family="llama", **SMALL, kv_heads=2, rope_scaling=SCALED),
    "qwen2": ModelConfig(family="llama", **SMALL, kv_heads=2, qkv_bias=True),
    "qwen3": ModelConfig(family="qwen3", **SMALL, kv_heads=1, head_size=32),
}
CASE = pytest.mark.parametrize("name", CASES)
TEXT = "the cat sat on the mat, and the other cat said that it was 1908. " * 3
IDS = torch.tensor([[5, 299, 17, 3, 260, 12, 77, 3, 3, 301, 0, 44]])


def randomised(config, seed: int = 1):
    """A network in which every parameter, norms and biases too, is drawn at random: none can be lost unseen."""
    model = build(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if parameter.ndim == 1 else 0.06
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + ("norm.weight" in name))
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.train("bpe", [TEXT], vocabulary=305)


def written(tmp_path: Path, model, tokenizer, dtype: str = "f32", card=()) -> Path:
    path = tmp_path / f"tiny-{dtype}.gguf"
    write.write(path, model, tokenizer, dtype=dtype, card=dict(card))
    return path


def values(path: Path) -> dict[str, np.ndarray]:
    reader = gguf.GGUFReader(path)
    return {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


# --- what stands in the file -------------------------------------------------------------------------------------


def test_gpt2_by_hand(tmp_path, tokenizer):
    model = randomised(CASES["gpt2"])
    found = values(written(tmp_path, model, tokenizer))
    state = model.state_dict()
    assert np.array_equal(found["token_embd.weight"], state["token_table.weight"])
    assert np.array_equal(found["blk.1.attn_qkv.weight"], state["blocks.1.attention.qkv.weight"])  # (out, in)
    assert np.array_equal(found["blk.0.ffn_down.bias"], state["blocks.0.feedforward.down.bias"])
    assert "output.weight" not in found and len(found) == len(state)


def test_heads_of_a_llama_are_turned_by_hand(tmp_path, tokenizer):
    """Row i of a half and row i of the other half, which the rotation joins, stand side by side in llama.cpp."""
    model = randomised(CASES["llama"])
    found = values(written(tmp_path, model, tokenizer))
    query, key, value = model.state_dict()["blocks.0.attention.qkv.weight"].split([64, 32, 32])
    order = [row for i in range(8) for row in (i, 8 + i)]  # head_size 16
    assert np.array_equal(found["blk.0.attn_q.weight"][16:32], query[16:32][order])
    assert np.array_equal(found["blk.0.attn_k.weight"][:16], key[:16][order])
    assert np.array_equal(found["blk.0.attn_v.weight"], value)


def test_other_families_keep_their_heads(tmp_path, tokenizer):
    model = randomised(CASES["qwen3"])
    found = values(written(tmp_path, model, tokenizer))
    assert np.array_equal(found["blk.0.attn_q.weight"], model.state_dict()["blocks.0.attention.qkv.weight"][:128])


@pytest.mark.parametrize(
    ("dtype", "table", "matrix", "number"),
    [("f32", "F32", "F32", 0), ("f16", "F16", "F16", 1), ("bf16", "BF16", "BF16", 32), ("q8_0", "Q8_0", "Q8_0", 7),
     ("q4_0", "Q8_0", "Q4_0", 2)],
)  # fmt: skip
def test_number_formats(tmp_path, tokenizer, dtype, table, matrix, number):
    path = written(tmp_path, randomised(CASES["gpt2"]), tokenizer, dtype, {"license": "mit", "name": "Tiny"})
    found = types(path)
    assert (found["token_embd.weight"], found["blk.0.ffn_up.weight"]) == (table, matrix)
    assert found["position_embd.weight"] == found["blk.0.attn_norm.weight"] == found["blk.0.ffn_up.bias"] == "F32"
    fields = gguf.GGUFReader(path).fields
    assert fields["general.file_type"].contents() == number
    assert fields["general.license"].contents() == "mit" and fields["general.name"].contents() == "Tiny"
    assert ("general.quantization_version" in fields) == dtype.startswith("q")


def test_a_name_in_which_llama_cpp_would_read_something(tmp_path, tokenizer):
    path = written(tmp_path, randomised(CASES["gpt2"]), tokenizer, card={"name": "My Phi-3 twin"})
    assert gguf.GGUFReader(path).fields["general.name"].contents() == "My phi twin"


def test_an_eight_bit_number_is_off_by_half_a_step_at_most(tmp_path, tokenizer):
    model = randomised(CASES["llama"])
    found = torch.from_numpy(values(written(tmp_path, model, tokenizer, "q8_0"))["blk.0.ffn_up.weight"])
    exact = model.state_dict()["blocks.0.feedforward.up.weight"]
    step = exact.view(-1, 32).abs().amax(dim=1, keepdim=True) / 127
    assert ((found - exact).view(-1, 32).abs() <= step * 0.57).all()  # fp16 rounds the step, too
    assert not torch.equal(found, exact)


def test_rows_that_cannot_be_quantised_stay_f16_and_that_is_said(tmp_path, tokenizer):
    config = ModelConfig(family="llama", **(SMALL | {"width": 40}), hidden=96)
    said = write.write(tmp_path / "m.gguf", randomised(config), tokenizer, dtype="q8_0", card={})
    found = types(tmp_path / "m.gguf")
    assert found["blk.0.ffn_up.weight"] == "F16" and found["blk.0.ffn_down.weight"] == "Q8_0"
    assert len(said) == 1 and "stayed f16: q8_0 needs rows of a multiple of 32" in said[0]
    assert write.write(tmp_path / "m.gguf", randomised(CASES["llama"]), tokenizer, dtype="q8_0", card={}) == []


# --- other programs read the same model --------------------------------------------------------------------------


def theirs(path: Path, ids: torch.Tensor, overlooked: dict[str, int]) -> torch.Tensor:
    """By transformers' own reader of GGUF; `from_pretrained(gguf_file=)` is the same, and wants accelerate as well.

    `overlooked`: settings that stand in the file and that its reader leaves at their defaults.
    """
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    config.update(overlooked)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    lost = model.load_state_dict(tensors, strict=False)
    assert not lost.unexpected_keys and set(lost.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.slow
@CASE
def test_transformers_computes_the_same(tmp_path, tokenizer, name):
    if name == "llama3":
        pytest.skip("transformers does not read the rotary factors of a GGUF file")
    model = randomised(CASES[name])
    with torch.no_grad():
        ours = model(IDS)
    overlooked = {"gpt2": {"n_positions": 64}, "qwen3": {"head_dim": 32}}.get(CASES[name].family, {})
    found = theirs(written(tmp_path, model, tokenizer), IDS, overlooked)
    assert (found - ours).abs().max() < 1e-4 * ours.abs().max()


@pytest.mark.parametrize(
    ("dtype", "within"), [("f32", 1e-5), ("f16", 3e-3), ("bf16", 5e-2), ("q8_0", 0.1), ("q4_0", 0.5)]
)
@CASE
def test_we_read_what_we_wrote(tmp_path, tokenizer, name, dtype, within):
    """`within`: of the largest logit; fp16 keeps 11 bits of a number, bf16 8, q8_0 about 7, q4_0 about 3."""
    from groundup.checkpoint.gguf import read
    from groundup.checkpoint.source import fill

    model = randomised(CASES[name])
    source = read.open_source(written(tmp_path, model, tokenizer, dtype))
    assert source.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    again = fill(source.config, source.weights).eval()
    with torch.no_grad():
        ours, found = model(IDS), again(IDS)
    assert (found - ours).abs().max() < within * ours.abs().max()


# --- refused, interrupted, frugal --------------------------------------------------------------------------------


def test_numbers_that_fp16_has_not_are_refused(tmp_path, tokenizer):
    model = randomised(CASES["llama"])
    with torch.no_grad():
        model.get_parameter("blocks.1.feedforward.up.weight")[0, 0] = -70_000.0
    with pytest.raises(CheckpointError, match=r"blk.1.ffn_up.weight holds 70,000, f16 ends at 65,504\n.*bf16"):
        written(tmp_path, model, tokenizer, "f16")
    assert list(tmp_path.iterdir()) == []
    written(tmp_path, model, tokenizer, "bf16")


def test_numbers_that_are_not_finite_are_refused(tmp_path, tokenizer):
    for value in (float("nan"), float("inf"), -float("inf")):
        model = randomised(CASES["gpt2"])
        with torch.no_grad():
            model.get_parameter("norm.bias")[3] = value
        with pytest.raises(CheckpointError, match="output_norm.bias holds numbers that are not finite"):
            written(tmp_path, model, tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_has_not_is_refused(tmp_path, tokenizer):
    with pytest.raises(CheckpointError, match="bigram"):
        written(tmp_path, build(BigramConfig(vocabulary=310, context=8)), tokenizer)
    chars = tokens.train("chars", ["abc"])
    with pytest.raises(CheckpointError, match="no chars tokenizer\n.*bpe"):
        written(tmp_path, randomised(CASES["gpt2"]), chars)
    with pytest.raises(CheckpointError, match="no number format 'q3'\n.*did you mean"):
        written(tmp_path, randomised(CASES["gpt2"]), tokenizer, "q3")
    small = ModelConfig(family="gpt2", **(SMALL | {"vocabulary": tokenizer.vocabulary - 1}))
    with pytest.raises(CheckpointError, match=f"the tokenizer has {tokenizer.vocabulary} ids, the model only"):
        written(tmp_path, randomised(small), tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole_or_not_at_all(tmp_path, tokenizer, monkeypatch):
    path = written(tmp_path, randomised(CASES["gpt2"]), tokenizer)
    before, calls = path.read_bytes(), []

    def broken(part):
        calls.append(part)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(part)

    whole = write._checked
    monkeypatch.setattr(write, "_checked", broken)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, randomised(CASES["gpt2"], seed=2), tokenizer)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(space, "_free", lambda path: 1000)
    with pytest.raises(space.NoRoom, match="0.0 MB free|0.1 MB free") as error:
        written(tmp_path, randomised(CASES["gpt2"]), tokenizer)
    assert error.value.filename == str(tmp_path / "tiny-f32.gguf")


def test_a_disk_that_fills_on_the_way_is_named_too(tmp_path, tokenizer, monkeypatch):
    def full(writer, tensor):
        monkeypatch.setattr(space, "_free", lambda path: 0)
        raise OSError("4096 requested and 0 written")  # numpy's words, without a number

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(space.NoRoom):
        written(tmp_path, randomised(CASES["gpt2"]), tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_the_room_asked_for_is_the_room_taken(tmp_path, tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(space, "check", lambda path, needed: asked.append(needed))
    path = written(tmp_path, randomised(CASES["llama"]), tokenizer, "q4_0")
    assert path.stat().st_size <= asked[0] <= path.stat().st_size + 20_000


def test_one_tensor_at_a_time(tmp_path, tokenizer, monkeypatch):
    model, alive = randomised(CASES["llama"]).bfloat16(), []

    def counted(part):
        assert all(reference() is None for reference in alive)
        tensor = whole(part)
        alive.append(weakref.ref(tensor))
        return tensor

    whole = write._checked
    monkeypatch.setattr(write, "_checked", counted)
    written(tmp_path, model, tokenizer, "q8_0")
    assert len(alive) == 21


# --- llama.cpp ---------------------------------------------------------------------------------------------------


def opened(path: Path):
    llama_cpp = pytest.importorskip("llama_cpp")
    # keys and values in fp32 (0), as here; llama.cpp's own choice is fp16
    return llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "top1"), [("f32", 1.0), ("f16", 0.99), ("bf16", 0.97), ("q8_0", 0.95)])
@CASE
def test_llama_cpp_chooses_the_same_tokens(tmp_path, tokenizer, name, dtype, top1):
    """Top-1 over 500 positions fed the same prefix, 10 texts of 50 tokens."""
    model = randomised(CASES[name])
    theirs = opened(written(tmp_path, model, tokenizer, dtype))
    draw, same, off = random.Random(1), 0, 0.0
    for _ in range(10):
        ids = [draw.randrange(tokenizer.vocabulary) for _ in range(50)]
        theirs.reset()
        theirs.eval(ids)
        found = torch.tensor(np.array(theirs.scores[:50]))
        with torch.no_grad():
            ours = model(torch.tensor([ids]))[0]
        same += int((found.argmax(-1) == ours.argmax(-1)).sum())
        off = max(off, float((found - ours).abs().max() / ours.abs().max()))
    theirs.close()
    assert same >= top1 * 500
    exact = 1e-3 if name.startswith("gpt2") else 1e-5  # llama.cpp looks GELU up in a table of fp16 numbers
    assert off < {"f32": exact, "f16": 5e-3, "bf16": 3e-2, "q8_0": 0.1}[dtype]
