"""Settings and names of GGUF files, both ways: hand-worked, and against the gguf library's own tables."""

import math

import gguf
import pytest
import torch

from groundup.checkpoint.gguf import keys
from groundup.checkpoint.gguf.stretched import fitted, rope_divisors
from groundup.checkpoint.names import halves, pairs
from groundup.errors import CheckpointError
from groundup.model.config import BigramConfig, ModelConfig, RopeScaling

SMALL = {"vocabulary": 20, "context": 8, "width": 8, "layers": 2, "heads": 2}
LINEAR = RopeScaling(kind="linear", factor=4.0)
LLAMA3 = RopeScaling(kind="llama3", factor=32.0, original_context=8192)
TOO_MUCH = RopeScaling(kind="llama3", factor=1e10, original_context=8)
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "gpt2 untied, another hidden": ModelConfig(family="gpt2", **SMALL, tie=False, hidden=12, norm_eps=1e-6),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=1, rope_base=500_000.0),
    "llama with its own head size": ModelConfig(family="llama", **SMALL, head_size=6, hidden=20, tie=False),
    "llama, linear": ModelConfig(family="llama", **SMALL, rope_scaling=LINEAR),
    "llama 3.2": ModelConfig(
        family="llama", **SMALL | {"width": 128}, tie=False, rope_base=500_000.0, rope_scaling=LLAMA3
    ),
    "qwen2": ModelConfig(family="llama", **SMALL, qkv_bias=True),
    "qwen3": ModelConfig(family="qwen3", **SMALL, head_size=16, norm_eps=1e-6, rope_scaling=LINEAR),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
FACTS = {
    "general.architecture": "llama",
    "llama.context_length": 8,
    "llama.embedding_length": 8,
    "llama.block_count": 1,
    "llama.feed_forward_length": 6,
    "llama.attention.head_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
SHAPES = {"token_embd.weight": (9, 8), "blk.0.attn_q.weight": (8, 8)}


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes a file of this network has, by GGUF name; only those that `read_config` looks at are exact."""
    return {keys.gguf_name(name): pair.shape for pair in pairs(config) for name in pair.theirs}


# --- settings ----------------------------------------------------------------------------------------------------


@CASE
def test_settings_there_and_back(config):
    metadata = keys.metadata_of(config, name="a name")
    divisors = rope_divisors(config)
    back = keys.read_config(metadata, shapes_of(config), [] if divisors is None else divisors.tolist())
    assert back == config
    assert metadata["general.name"] == "a name"


@CASE
def test_keys_are_those_of_the_gguf_library(config):
    architecture = keys.architecture_of(config)
    library = [*vars(gguf.Keys.LLM).values(), *vars(gguf.Keys.Attention).values(), *vars(gguf.Keys.Rope).values()]
    known = {value.replace("{arch}", architecture) for value in library if isinstance(value, str)}
    ours = {key for key in keys.metadata_of(config, name="x") if not key.startswith("general.")}
    assert ours <= known


@CASE
def test_tensors_are_called_as_the_gguf_library_calls_them(config):
    architecture = keys.architecture_of(config)
    [number] = [number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    library = gguf.get_tensor_name_map(number, config.layers)
    theirs = [name for pair in pairs(config) for name in pair.theirs]
    for name in theirs:
        assert keys.gguf_name(name) == library.get_name(name, try_suffixes=(".weight", ".bias"))
        assert keys.hf_name(keys.gguf_name(name), architecture) == name
    assert len({keys.gguf_name(name) for name in theirs}) == len(theirs)


def test_values_of_smollm2_by_hand():
    config = ModelConfig(
        family="llama", vocabulary=49152, context=8192, width=576, layers=30, heads=9, kv_heads=3, hidden=1536,
        rope_base=100_000.0,
    )  # fmt: skip
    assert keys.metadata_of(config, name="SmolLM2") == {
        "general.architecture": "llama",
        "general.name": "SmolLM2",
        "llama.vocab_size": 49152,
        "llama.context_length": 8192,
        "llama.embedding_length": 576,
        "llama.block_count": 30,
        "llama.feed_forward_length": 1536,
        "llama.attention.head_count": 9,
        "llama.attention.head_count_kv": 3,
        "llama.attention.key_length": 64,
        "llama.attention.value_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 100_000.0,
        "llama.rope.dimension_count": 64,
    }


def test_what_a_file_leaves_out_is_what_llama_cpp_takes():
    config = keys.read_config(FACTS, SHAPES)
    assert (config.kv_heads, config.head_size, config.rope_base, config.rope_scaling) == (2, 4, 10_000.0, None)
    assert config.tie and not config.qkv_bias


def test_a_llama_may_have_biases_and_a_head_of_its_own():
    config = keys.read_config(FACTS, SHAPES | {"blk.0.attn_q.bias": (8,), "output.weight": (9, 8)})
    assert config.qkv_bias and not config.tie


def test_32_bit_floats_come_back_as_they_were_written():
    stored = FACTS | {"llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06}
    assert keys.read_config(stored, SHAPES).norm_eps == 1e-5


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", "llama4", "general.architecture 'llama4'"),
        ("general.type", "adapter", "general.type is 'adapter'"),
        ("llama.expert_count", 8, "llama.expert_count is 8"),
        ("llama.attention.sliding_window", 4, "llama.attention.sliding_window is 4"),
        ("llama.rope.scaling.type", "yarn", "llama.rope.scaling.type is 'yarn'"),
        ("llama.rope.scaling.attn_factor", 1.2, "llama.rope.scaling.attn_factor is 1.2"),
        ("llama.logit_scale", 0.25, "llama.logit_scale is 0.25"),
        ("llama.embedding_scale", 12.0, "llama.embedding_scale is 12.0"),
        ("llama.attn_logit_softcapping", 50.0, "llama.attn_logit_softcapping is 50.0"),
        ("llama.final_logit_softcapping", 30.0, "llama.final_logit_softcapping is 30.0"),
        ("llama.attention.causal", False, "llama.attention.causal is False"),
        ("llama.attention.value_length", 2, "llama.attention.value_length is 2"),
        ("llama.rope.dimension_count", 2, "llama.rope.dimension_count is 2"),
        ("llama.attention.head_count_kv", [1, 2], "llama.attention.head_count_kv is [1, 2]"),
        ("llama.context_length", True, "llama.context_length is True"),
        ("llama.something_new", 1, "llama.something_new is 1"),
        ("llama.block_count", 3, "block_count is 3"),
    ],
)
def test_what_changes_the_arithmetic_is_refused_by_key_and_value(key, value, words):
    with pytest.raises(CheckpointError) as caught:
        keys.read_config(FACTS | {key: value}, SHAPES)
    assert words in str(caught.value) and caught.value.fix


@pytest.mark.parametrize(
    ("key", "value"),
    [("expert_count", 0), ("attention.sliding_window", 8), ("logit_scale", 0.0), ("rope.scaling.type", "none"),
     ("rope.scaling.factor", 1.0), ("attention.causal", True)],
)  # fmt: skip
def test_what_changes_nothing_is_let_through(key, value):
    assert keys.read_config(FACTS | {f"llama.{key}": value}, SHAPES) == keys.read_config(FACTS, SHAPES)


@pytest.mark.parametrize("missing", [key for key in FACTS if key != "general.architecture"])
def test_a_missing_key_is_named(missing):
    with pytest.raises(CheckpointError, match=f"has no {missing}"):
        keys.read_config({key: value for key, value in FACTS.items() if key != missing}, SHAPES)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BigramConfig(vocabulary=9, context=4), "'bigram'"),
        (ModelConfig(family="llama", **SMALL, qkv_bias=True, head_size=8), "2 x 8 and 8"),
        (ModelConfig(family="llama", **SMALL, qkv_bias=True, rope_scaling=LLAMA3), "'qwen2'"),
        (ModelConfig(family="qwen3", **SMALL, rope_scaling=LLAMA3), "'qwen3'"),
        (ModelConfig(family="gpt2", **SMALL | {"layers": 513}), "513 layers"),
        (ModelConfig(family="llama", **SMALL, rope_scaling=TOO_MUCH), "factor=10000000000.0"),
    ],
    ids=["bigram", "qwen2 of another head size", "qwen2 stretched", "qwen3 stretched", "513 layers", "too stretched"],
)
def test_what_llama_cpp_would_read_otherwise_is_not_written(config, words):
    with pytest.raises(CheckpointError) as caught:
        keys.metadata_of(config, name="x")
    assert words in str(caught.value) and caught.value.fix


# --- stretched positions -----------------------------------------------------------------------------------------


def converters_divisors(base: float, head_size: int, scaling: RopeScaling) -> list[float]:
    """The rule as the published converter words it: by wavelengths, in three cases, in fp32."""
    result = []
    for speed in 1.0 / (base ** (torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)):
        length = 2 * math.pi / float(speed)
        if length < scaling.original_context / scaling.high:
            result.append(1.0)
        elif length > scaling.original_context / scaling.low:
            result.append(scaling.factor)
        else:
            smooth = (scaling.original_context / length - scaling.low) / (scaling.high - scaling.low)
            result.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return result


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_size", [64, 128])
def test_llama_3_s_rule_is_found_again_in_what_the_converter_writes(head_size, factor):
    scaling = RopeScaling(kind="llama3", factor=factor, original_context=8192)
    written = converters_divisors(500_000.0, head_size, scaling)
    assert fitted(written, 500_000.0, head_size) == scaling
    config = ModelConfig(family="llama", **SMALL | {"width": 2 * head_size}, rope_base=5e5, rope_scaling=scaling)
    torch.testing.assert_close(rope_divisors(config), torch.tensor(written), rtol=1e-5, atol=0)


def test_a_rule_with_other_turns_is_found_up_to_proportion():
    scaling = RopeScaling(kind="llama3", factor=4.0, low=2.0, high=12.0, original_context=6000)
    found = fitted(converters_divisors(500_000.0, 128, scaling), 500_000.0, 128)
    assert (found.original_context, found.low, pytest.approx(found.high, rel=1e-3)) == (3000, 1.0, 6.0)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("head_size", "factor", "low", "high", "context"),
    [(16, 8.0, 1.0, 8.0, 8192), (16, 8.0, 1.0, 2.0, 64), (16, 2.5, 1.3, 3.3, 77), (64, 2.5, 1.3, 3.3, 77),
     (2, 2.1, 1.0, 4.0, 1), (4, 4.0, 0.5, 0.6, 3), (128, 8.0, 1.0, 1.001, 8192)],
)  # fmt: skip
def test_any_rule_is_found_again_however_few_pairs_it_blends(head_size, factor, low, high, context, declared):
    """By the converter's own wording, not ours. The rule may be another that gives every pair the same speed."""
    rule = RopeScaling("llama3", factor, low, high, context)
    written = torch.tensor(converters_divisors(500_000.0, head_size, rule))
    found = fitted(written.tolist(), 500_000.0, head_size, context if declared else None)
    assert found is not None
    again = torch.tensor(converters_divisors(500_000.0, head_size, found))
    torch.testing.assert_close(again, written, rtol=1e-5, atol=0)
    assert not declared or found.original_context == context


@pytest.mark.parametrize(
    ("head_size", "rule"),
    [(16, RopeScaling("llama3", 8.0, 1.0, 8.0, 8192)), (16, RopeScaling("llama3", 8.0, 1.0, 2.0, 64)),
     (64, RopeScaling("llama3", 2.5, 1.3, 3.3, 77))],
)  # fmt: skip
def test_the_rule_itself_comes_back_where_the_pairs_tell_it(head_size, rule):
    """Two blended pairs tell low and high; one alone, high, where low is the usual 1."""
    written = converters_divisors(500_000.0, head_size, rule)
    assert fitted(written, 500_000.0, head_size, rule.original_context) == rule


@pytest.mark.parametrize(
    "numbers", [[1.0, 2.0], [1.0, 3.0, 2.0, 8.0], [math.nan] * 4, [0.5] * 4, [1.0, 1.0, 1.0, math.inf]]
)
def test_other_divisors_are_refused(numbers):
    assert fitted(numbers, 10_000.0, 8) is None
    with pytest.raises(CheckpointError, match="rope_freqs.weight"):
        keys.read_config(FACTS | {"llama.attention.key_length": 8}, SHAPES, numbers)


def test_divisors_of_one_stretch_nothing():
    assert keys.read_config(FACTS, SHAPES, [1.0, 1.0]).rope_scaling is None


# --- tensors -----------------------------------------------------------------------------------------------------


def test_rows_of_each_head_by_hand():
    rows = torch.tensor([[0], [1], [2], [3], [10], [11], [12], [13]])  # two heads of four
    assert keys.permute(rows, 2).flatten().tolist() == [0, 2, 1, 3, 10, 12, 11, 13]
    assert torch.equal(halves(keys.permute(rows, 2), 2), rows)
    assert keys.permute(rows.flatten(), 1).tolist() == [0, 10, 1, 11, 2, 12, 3, 13]


@CASE
def test_tensors_there_and_back(config):
    architecture = keys.architecture_of(config)
    for pair in pairs(config):
        for name in pair.theirs:
            rows = pair.shape[0] // (3 if len(pair.theirs) == 3 and config.kv_heads == config.heads else 1)
            if ".k_proj" in name:
                rows = config.kv_heads * config.head_size
            tensor = torch.randn(rows, *pair.shape[1:])
            there = keys.to_gguf(name, tensor, config)
            assert torch.equal(keys.from_gguf(name, there, config, architecture), tensor)
            turned = architecture == "llama" and (".q_proj" in name or ".k_proj" in name)
            assert torch.equal(there, tensor) is not (turned and config.head_size > 2 or pair.transposed)


def test_only_llama_is_turned():
    tensor = torch.arange(8.0)[:, None].repeat(1, 8)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(keys.to_gguf(name, tensor, CASES["llama"]), tensor)
    assert torch.equal(keys.to_gguf(name, tensor, CASES["qwen2"]), tensor)
    assert torch.equal(keys.to_gguf(name, tensor, CASES["qwen3"]), tensor)


@pytest.mark.parametrize("name", ["blk.0.attn_rot_embd.weight", "blk.x.attn_q.weight", "cls.output.weight", ""])
def test_names_from_nowhere_are_refused(name):
    with pytest.raises(CheckpointError, match="llama"):
        keys.hf_name(name, "llama")
    with pytest.raises(CheckpointError, match="no place"):
        keys.gguf_name(name)
