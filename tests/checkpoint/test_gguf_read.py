"""GGUF files written by the gguf library from transformers' own weights: read by us, they give transformers' logits."""

import importlib.util
import math
import os
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

from groundup.checkpoint.gguf import header
from groundup.checkpoint.gguf.read import _read, open_source
from groundup.checkpoint.source import fill
from groundup.errors import CheckpointError

TOKENS = [*sorted(ByteLevel.alphabet()), "th", "he", "the", "<|endoftext|>"]
V = len(TOKENS)
LLAMA = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
# Context 1024 and head_dim 128: transformers' reader leaves them at these, whatever the file says.
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=V, n_positions=1024, n_embd=64, n_layer=2, n_head=4, n_inner=256),
    "gpt2 untied": GPT2Config(
        vocab_size=V, n_positions=1024, n_embd=64, n_layer=2, n_head=4, n_inner=256, tie_word_embeddings=False
    ),
    "llama": LlamaConfig(**LLAMA, tie_word_embeddings=True, rope_theta=500_000.0),
    "llama untied": LlamaConfig(**LLAMA, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**LLAMA, tie_word_embeddings=False, head_dim=128),
}
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def randomised(config: Any) -> torch.nn.Module:
    """transformers' model with every parameter random, norms and biases too."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name or ".ln_" in name), std=0.2)
    return model


def write(path: Path, model: torch.nn.Module, kind: Kind = Kind.F32, **more: Any) -> None:
    """A GGUF file as the published converter makes it; written apart from our own code, by the gguf library alone."""
    config, architecture = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(V)
    if architecture == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(head_size)
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    for key, value in more.items():
        writer.add_string(key.replace("__", "."), value)
    write_vocabulary(writer)
    write_tensors(writer, model, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (V - 1) + [3])
    writer.add_token_merges(["t h", "h e", "th e"])
    writer.add_eos_token_id(V - 1)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def write_tensors(writer: gguf.GGUFWriter, model: torch.nn.Module, kind: Kind) -> None:
    architecture = model.config.model_type
    [number] = [number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    for name, tensor in state.items():
        array = tensor.numpy()
        if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            array = array.T
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = model.config.num_attention_heads if "q_proj" in name else model.config.num_key_value_heads
            array = interleaved(array, heads)
        stored = kind if array.ndim == 2 else Kind.F32
        raw = gguf.quantize(np.ascontiguousarray(array), stored)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), raw, raw_dtype=stored)
    if model.config.model_type == "llama" and model.config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", divisors(model.config))


def interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Row 2p of a head is its row p, row 2p + 1 its row p + K/2."""
    size = array.shape[0] // heads
    order = [head * size + pair + half for head in range(heads) for pair in range(size // 2) for half in (0, size // 2)]
    return array[order]


def divisors(config: LlamaConfig) -> np.ndarray:
    """What transformers' own rule makes of each speed."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    size = config.hidden_size // config.num_attention_heads
    plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return (plain / stretched).numpy()


def theirs(path: Path) -> torch.nn.Module:
    """The same file opened by transformers' own reader."""
    pytest.importorskip("accelerate", reason="transformers reads GGUF only where accelerate is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@torch.no_grad()
def difference(path: Path, other: torch.nn.Module, length: int = 60) -> float:
    """The largest difference of logits, as a share of the largest logit."""
    ids = torch.randint(V, (2, length), generator=torch.Generator().manual_seed(1))
    source = open_source(path)
    ours = fill(source.config, source.weights, dtype=torch.float32).eval()(ids)
    expected = other(ids).logits
    return float((ours - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_logits_are_those_of_the_model_that_was_written(config, tmp_path):
    model, path = randomised(config), tmp_path / "model.gguf"
    write(path, model)
    assert difference(path, model) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1])
def test_logits_are_those_of_transformers_reading_the_same_file(config, kind, tmp_path):
    path = tmp_path / "model.gguf"
    write(path, randomised(config), kind)
    assert difference(path, theirs(path)) < 1e-5


def test_stretched_positions_of_llama_3(tmp_path):
    config = LlamaConfig(**LLAMA, tie_word_embeddings=True, rope_parameters=LLAMA3)
    model, path = randomised(config), tmp_path / "model.gguf"
    write(path, model)
    scaling = open_source(path).config.rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_context) == ("llama3", 8.0, 32)
    assert difference(path, model, length=64) < 1e-5
    plain = randomised(LlamaConfig(**LLAMA, tie_word_embeddings=True))
    assert difference(path, plain, length=64) > 1e-3  # the stretch is seen in the logits


def test_tensors_keep_their_stored_type_or_become_fp32(tmp_path):
    model = randomised(CONFIGS["llama"])
    expected = {Kind.F16: torch.float16, Kind.BF16: torch.bfloat16, Kind.Q8_0: torch.float32, Kind.F32: torch.float32}
    for kind, dtype in expected.items():
        path = tmp_path / f"{kind.name}.gguf"
        write(path, model, kind)
        weights = open_source(path).weights
        assert weights.read("model.layers.1.mlp.up_proj.weight").dtype == dtype
        assert weights.read("model.norm.weight").dtype == torch.float32
        read = {name: weights.read(name) for name in weights.shapes()}
        assert {name: tuple(tensor.shape) for name, tensor in read.items()} == weights.shapes()
        assert all(tensor.is_contiguous() for tensor in read.values())


@pytest.mark.parametrize("kind", [kind for kind in header.KINDS.values()], ids=lambda kind: kind.name)
def test_every_type_against_the_library_s_own_reader(kind, tmp_path):
    """Random bytes, so that every bit of a block counts; more blocks than are dequantised together."""
    path, number = tmp_path / "model.gguf", Kind[kind.name]
    rows = 3 if kind.block == 1 else 2**22 // 1024 + 5
    raw = np.random.default_rng(0).integers(0, 256, (rows, 1024 // kind.block * kind.bytes), dtype=np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", raw, raw_shape=raw.shape, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = _read(path, header.read_header(path).tensors["token_embd.weight"])
    [tensor] = gguf.GGUFReader(path).tensors
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(np.array(tensor.data), number)
    assert ours.shape == (rows, 1024) == expected.shape
    np.testing.assert_array_equal(ours.float().numpy(), expected)


def test_the_header_reads_as_the_library_reads_it(tmp_path):
    path = tmp_path / "model.gguf"
    write(path, randomised(CONFIGS["llama"]), Kind.Q8_0, general__license="mit", general__name="tiny")
    found, reader = header.read_header(path), gguf.GGUFReader(path)
    expected = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert found.metadata == expected
    places = {tensor.name: (tensor.data_offset, tensor.n_bytes, tensor.tensor_type.name) for tensor in reader.tensors}
    assert {name: (s.offset, s.size, s.kind.name) for name, s in found.tensors.items()} == places
    assert found.metadata["tokenizer.ggml.tokens"] == TOKENS


def test_source_has_tokenizer_template_and_card(tmp_path):
    path = tmp_path / "model.gguf"
    write(path, randomised(CONFIGS["gpt2"]), Kind.Q8_0, general__license="mit", general__name="tiny")
    source = open_source(path)
    assert (source.format, source.path) == ("gguf", path)
    assert source.tokenizer.encode("the hat") == [TOKENS.index(token) for token in ("the", "Ġ", "h", "a", "t")]
    assert source.tokenizer.chat_template.startswith("{% for message")
    assert source.card == {
        "imported from": "model.gguf",
        "format": "GGUF",
        "stored as": "F32, Q8_0",
        "name": "tiny",
        "licence": "mit",
    }


def test_without_the_library_only_quantised_files_are_refused(tmp_path, monkeypatch):
    model, found = randomised(CONFIGS["llama"]), importlib.util.find_spec
    for kind in (Kind.F16, Kind.Q8_0):
        write(tmp_path / f"{kind.name}.gguf", model, kind)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gguf" else found(name))
    assert open_source(tmp_path / "F16.gguf").config.layers == 2
    with pytest.raises(CheckpointError, match="Q8_0 needs the gguf library") as caught:
        open_source(tmp_path / "Q8_0.gguf")
    assert caught.value.fix == "pip install 'groundup[gguf]'"


def test_formats_without_a_writer_in_the_library_are_read_in_a_whole_model(tmp_path):
    """IQ4_NL laid out by hand: rows of 32 weights are an fp16 scale and sixteen bytes, low halves first."""
    steps = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]  # kvalues_iq4nl, ggml-common.h
    count = 128
    block = np.concatenate([np.frombuffer(np.float16(0.5).tobytes(), np.uint8), np.arange(16, dtype=np.uint8) * 17])
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.stack([block] * count), raw_dtype=Kind.IQ4_NL)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = _read(path, header.read_header(path).tensors["token_embd.weight"])
    assert found.tolist() == [[0.5 * step for step in steps * 2]] * count


def test_a_library_that_does_not_know_a_format_yet_is_named(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    write(path, randomised(CONFIGS["llama"]), Kind.Q8_0)

    def unknown(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(gguf, "dequantize", unknown)
    with pytest.raises(CheckpointError, match="does not read Q8_0") as caught:
        open_source(path)
    assert caught.value.fix == "pip install --upgrade gguf"


# --- a released model --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(data_dir) -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from $GROUNDUP_SMOLLM2 or the sample data."""
    places = [Path(os.environ.get("GROUNDUP_SMOLLM2", "")), *data_dir.rglob(SMOLLM2)]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        pytest.skip(
            f"{SMOLLM2} is not here: set GROUNDUP_SMOLLM2 to its path (`groundup models` says where it is from)"
        )
    return found


@pytest.mark.slow
def test_smollm2_continues_with_paris_and_agrees_with_transformers(smollm2):
    source = open_source(smollm2)
    model = fill(source.config, source.weights).eval()
    text = "The capital of France is Paris. " + "A book about rivers, mountains and the people who live there. " * 6
    ids = torch.tensor([source.tokenizer.encode(text)])
    with torch.no_grad():
        ours, expected = model(ids)[0], theirs(smollm2)(ids).logits[0]
    assert source.tokenizer.decode([int(ours[4].argmax())]) == " Paris"
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
    assert math.isclose(float(ours.logsumexp(-1).mean()), float(expected.logsumexp(-1).mean()), rel_tol=1e-5)
