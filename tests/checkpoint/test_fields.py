"""config.json there and back; what is missing, malformed or not computed here is refused by name and value.

That the numbers mean the same to transformers is shown in tests/parity/test_folders_transformers.py.
"""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.checkpoint.fields import hf_config, model_config
from groundup.errors import CheckpointError
from groundup.model.config import BigramConfig, ModelConfig, RopeScaling, from_name

SMALL = {"vocabulary": 20, "context": 8, "width": 8, "layers": 2, "heads": 2}
LLAMA3 = RopeScaling("llama3", 32.0, original_context=8192)
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "gpt2 untied, no qkv bias": ModelConfig(
        family="gpt2", **SMALL, tie=False, qkv_bias=False, init="torch", hidden=12, dropout_shortcut=0.2
    ),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=1, head_size=6, dropout_embedding=0.1, rope_base=500.0),
    "llama stretched": ModelConfig(family="llama", **SMALL, rope_base=5e5, rope_scaling=LLAMA3),
    "qwen2": ModelConfig(family="llama", **SMALL, qkv_bias=True, tie=False, dropout_attention=0.3),
    "qwen3": ModelConfig(family="qwen3", **SMALL, norm_eps=1e-6, dropout_shortcut=0.1),
    "qwen3 stretched": ModelConfig(family="qwen3", **SMALL, rope_scaling=RopeScaling("linear", 2.0)),
    "bigram": BigramConfig(vocabulary=9, context=4),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())


@CASE
def test_settings_there_and_back(config):
    assert model_config(hf_config(config, bos=1, eos=2, pad=0, dtype="bfloat16")) == config


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_settings_there_and_back(data):
    chance = st.floats(0, 0.9)
    config = ModelConfig(
        family=data.draw(st.sampled_from(["gpt2", "llama", "qwen3"])),
        **SMALL,
        tie=data.draw(st.booleans()),
        norm_eps=data.draw(st.floats(1e-8, 1e-2)),
        dropout_embedding=data.draw(chance),
        dropout_attention=data.draw(chance),
        dropout_shortcut=data.draw(chance),
        init=data.draw(st.sampled_from(["gpt2", "torch"])),
    )
    assert model_config(hf_config(config)) == config


def test_ids_are_written_as_given_and_null_when_absent():
    content = hf_config(CASES["llama"], eos=5, dtype="bfloat16")
    assert (content["bos_token_id"], content["eos_token_id"], content["pad_token_id"]) == (None, 5, None)
    assert content["dtype"] == content["torch_dtype"] == "bfloat16"


def test_the_rotary_base_is_read_from_either_place():
    content = hf_config(CASES["llama"])
    assert content["rope_theta"] == content["rope_parameters"]["rope_theta"] == 500.0
    for gone in ("rope_theta", "rope_parameters"):
        assert model_config({name: v for name, v in content.items() if name != gone}) == CASES["llama"]
    old = {name: v for name, v in content.items() if name != "rope_parameters"} | {"rope_scaling": None}
    assert model_config(old) == CASES["llama"]


def test_the_published_gpt2_config_is_read():
    """What OpenAI's upload of GPT-2 says, as far as it matters: no n_inner, no tie, old field names."""
    published = {"activation_function": "gelu_new", "attn_pdrop": 0.1, "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-05}
    published |= {"model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024}
    published |= {"resid_pdrop": 0.1, "summary_type": "cls_index", "vocab_size": 50257, "bos_token_id": 50256}
    config = model_config(published)
    assert (config.hidden, config.tie, config.qkv_bias, config.dropout_shortcut) == (3072, True, True, 0.1)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpt2", {"model_type": "gpt_neo"}, "unsupported model_type 'gpt_neo'"),
        ("gpt2", {"model_type": None}, "unsupported model_type None"),
        ("gpt2", {"model_type": ["gpt2"]}, "unsupported model_type"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"n_layer": None}, "config.json has no n_layer"),
        ("gpt2", {"n_layer": "2"}, "n_layer is '2'"),
        ("gpt2", {"n_layer": True}, "n_layer is True"),
        ("gpt2", {"n_head": 3}, "no network we can build: width 8 is not divisible by heads 3"),
        ("gpt2", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ("gpt2", {"groundup": 7}, "groundup is 7"),
        ("gpt2", {"groundup": {"init": 7}}, "groundup.init is 7"),
        ("gpt2", {"groundup": {"init": "zeros"}}, "unknown init 'zeros'"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures is .*SequenceClassification"),
        ("gpt2", {"architectures": ["GPT2Model"]}, "architectures is .*GPT2Model.*not .'GPT2LMHeadModel'"),
        ("qwen3", {"architectures": "Qwen3ForCausalLM"}, "architectures is 'Qwen3ForCausalLM'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3", "factor": 32.0}, "rope_parameters": None},
            "no rope_scaling.low_freq_factor",
        ),
        ("llama", {"rope_scaling": {"type": "linear"}, "rope_parameters": None}, "no rope_scaling.factor"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}, "rope_parameters": None}, "factor is 0.5"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}, "rope_parameters": None}, "factor is '2'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear.* beside rope_param"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling is .*dynamic"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling is .*longrope"),
        ("llama", {"rope_scaling": {"rope_type": ["linear"]}}, "rope_scaling is .*linear"),
        (
            "llama stretched",
            {
                "rope_scaling": None,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 4.0,
                    "high_freq_factor": 1.0,
                },
            },
            "low is 4.0 and high 1.0",
        ),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ("llama", {"residual_multiplier": 0.22}, "residual_multiplier is 0.22"),
        ("llama", {"no_rope_layers": [1, 0]}, "no_rope_layers is .1, 0."),
        ("llama", {"num_key_value_heads": [1, 2]}, "num_key_value_heads is .1, 2."),
        ("llama", {"vocab_size": 2**60}, "vocab_size is 1152921504606846976"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters is .*yarn"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters is .*full_attention"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters is .*partial_rotary_factor"),
        ("llama", {"rope_parameters": 3}, "rope_parameters is 3"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"sliding_window": 4096}, "sliding_window is 4096"),
        ("llama", {"num_local_experts": 8}, "num_local_experts is 8"),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "code.py--Model"}}, "auto_map is .*is code of its own"),
        ("gpt2", {"auto_map": ["AutoModelForCausalLM"]}, "auto_map is .*is code of its own"),
        ("llama", {"norm_type": "layer"}, "norm_type is 'layer'"),
        ("llama", {"use_bias": True}, "use_bias is True"),
        ("llama", {"attn_bias": True}, "attn_bias is True"),
        ("llama", {"qkv_bias": True}, "qkv_bias is True"),
        ("qwen2", {"qkv_bias": False}, "qkv_bias is False"),
        ("qwen2", {"use_bias": True}, "use_bias is True"),
        ("gpt2", {"bias": False}, "bias is False"),
        ("gpt2", {"norm_type": "rmsnorm"}, "norm_type is 'rmsnorm'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is "),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*sliding_attention"),
        ("qwen3", {"layer_types": 3}, "layer_types is 3"),
        ("qwen3", {"intermediate_size": None}, "config.json has no intermediate_size"),
        ("bigram", {"vocab_size": 0}, "vocabulary is 0"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(name, change, message):
    content = copy.deepcopy(hf_config(CASES[name])) | change
    with pytest.raises(CheckpointError, match=message):
        model_config(content)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama", {"auto_map": {"AutoConfig": "code.py--Config"}}),
        ("llama", {"use_bias": False, "norm_type": "rms_norm"}),
        ("qwen2", {"qkv_bias": True, "use_bias": False}),
        ("gpt2", {"bias": True, "norm_type": "layer_norm"}),
        ("llama", {"a_field_that_nobody_knows": 7}),
    ],
)
def test_what_says_no_more_than_the_type_does_is_read(name, change):
    content = hf_config(CASES[name])
    assert not content.keys() & change.keys()
    assert model_config(content | change) == CASES[name]


def test_qwen3_without_head_dim_has_their_default():
    content = hf_config(CASES["qwen3"])
    del content["head_dim"]
    assert model_config(content).head_size == 128


MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}


@pytest.mark.parametrize("window", [None, 8, 4096])
def test_mistral_without_a_window_that_matters_is_a_llama(window):
    assert model_config(hf_config(CASES["llama"]) | MISTRAL | {"sliding_window": window}) == CASES["llama"]


@pytest.mark.parametrize("window", [7, "8", True, 0])
def test_a_window_that_matters_is_refused(window):
    with pytest.raises(CheckpointError, match=f"sliding_window is {window!r} for a context of 8"):
        model_config(hf_config(CASES["llama"]) | MISTRAL | {"sliding_window": window})


def test_what_mistral_leaves_out_has_its_own_defaults():
    """4,096 tokens of window, 8 key and value heads: other than llama's none and as many as there are heads."""
    content = hf_config(ModelConfig(family="llama", **SMALL | {"width": 32, "heads": 16})) | MISTRAL
    del content["num_key_value_heads"]
    config = model_config(content)
    assert isinstance(config, ModelConfig) and config.kv_heads == 8
    with pytest.raises(CheckpointError, match="sliding_window is 4096 for a context of 32768"):
        model_config(content | {"max_position_embeddings": 32768})


def test_the_stretch_is_written_in_both_spellings():
    """transformers 5 reads rope_parameters; 4, rope_theta and rope_scaling: each alone is the same network."""
    content = hf_config(CASES["llama stretched"])
    part = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    part |= {"original_max_position_embeddings": 8192}
    assert content["rope_scaling"] == part and content["rope_parameters"] == part | {"rope_theta": 5e5}
    for gone in (("rope_parameters",), ("rope_scaling", "rope_theta")):
        kept = {name: value for name, value in content.items() if name not in gone}
        assert model_config(kept) == CASES["llama stretched"]
    assert "rope_scaling" not in hf_config(CASES["llama"])


def test_a_stretch_without_an_original_context_starts_from_the_context():
    """As in transformers, where original_max_position_embeddings may be left out."""
    part = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = model_config(hf_config(CASES["llama"]) | {"rope_scaling": part, "rope_parameters": None})
    assert isinstance(config, ModelConfig) and config.rope_scaling == RopeScaling("llama3", 2.0, original_context=8)


def test_the_published_llama_3_2_config_is_read():
    """As far as it matters, with what it says besides: ids, tensor parallelism, the version that wrote it."""
    published = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0}
    published |= {"bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64}
    published |= {"hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192}
    published |= {"max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama"}
    published |= {"num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1}
    published |= {"rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True, "use_cache": True}
    published |= {"torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "vocab_size": 128256}
    scaling = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3"}
    published["rope_scaling"] = scaling | {"original_max_position_embeddings": 8192}
    assert model_config(published) == from_name("llama-3.2-1b")


@pytest.mark.parametrize(
    "change",
    [{"quantization_config": {"a": "x" * 10_000}}, {"vocab_size": -(10**4299)}, {"rms_norm_eps": 10**4299},
     {"model_type": "x" * 10_000}, {"model_type": 10**4299}, {"rope_scaling": {"factor": 10**4299, "type": "linear"}},
     {"architectures": ["x" * 10_000]}, {"auto_map": "x" * 10_000}],
)  # fmt: skip
def test_a_long_value_is_cut_in_the_message(change):
    with pytest.raises(CheckpointError) as refused:
        model_config(hf_config(CASES["llama"]) | change)
    assert len(str(refused.value)) < 500
