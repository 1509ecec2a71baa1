"""Names and settings there and back; what is missing, foreign or unsupported is refused by name.

That the numbers mean the same to transformers is shown in tests/parity/test_model_transformers.py.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.checkpoint.names import from_hf, hf_config, model_config, to_hf
from groundup.errors import CheckpointError
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig

SMALL = {"vocabulary": 20, "context": 8, "width": 8, "layers": 2, "heads": 2}
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "gpt2 untied, no qkv bias": ModelConfig(
        family="gpt2", **SMALL, tie=False, qkv_bias=False, init="torch", hidden=12, dropout_shortcut=0.2
    ),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=1, head_size=6, dropout_embedding=0.1, rope_base=500.0),
    "qwen2": ModelConfig(family="llama", **SMALL, qkv_bias=True, tie=False, dropout_attention=0.3),
    "qwen3": ModelConfig(family="qwen3", **SMALL, norm_eps=1e-6, dropout_shortcut=0.1),
    "bigram": BigramConfig(vocabulary=9, context=4),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())


def written(config) -> dict[str, torch.Tensor]:
    return to_hf(build(config, seed=1).state_dict(), config)


# --- tensors -----------------------------------------------------------------------------------------------------


@CASE
def test_there_and_back_is_the_same_and_loads(config):
    state = build(config, seed=1).state_dict()
    back = from_hf(to_hf(state, config), config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    with torch.device("meta"):
        model = build(config)
    model.load_state_dict(back, assign=True)  # also without memory of its own first
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.eval()(tokens), build(config, seed=1).eval()(tokens))


@CASE
def test_what_is_written_is_contiguous_and_shares_no_memory(config):
    tensors = written(config)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == len(tensors)


def test_names_and_layout_of_gpt2():
    config = CASES["gpt2 untied, no qkv bias"]
    state, tensors = build(config, seed=1).state_dict(), written(config)
    assert torch.equal(tensors["transformer.h.1.mlp.c_fc.weight"], state["blocks.1.feedforward.up.weight"].T)
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (8, 24)  # Conv1D: (in, out)
    assert torch.equal(tensors["transformer.h.0.attn.c_attn.bias"], torch.zeros(24))
    assert torch.equal(tensors["lm_head.weight"], state["head.weight"])
    assert "lm_head.weight" not in written(CASES["gpt2"])


def test_names_and_layout_of_llama():
    config = CASES["llama"]
    state, tensors = build(config, seed=1).state_dict(), written(config)
    qkv = state["blocks.1.attention.qkv.weight"]
    assert torch.equal(tensors["model.layers.1.self_attn.q_proj.weight"], qkv[:12])
    assert torch.equal(tensors["model.layers.1.self_attn.k_proj.weight"], qkv[12:18])
    assert torch.equal(tensors["model.layers.1.self_attn.v_proj.weight"], qkv[18:])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_files_without_prefix_and_with_constants_are_understood(name):
    """OpenAI's own upload of GPT-2 has bare names and stored masks; old Llama files carry rotary frequencies."""
    config, tensors = CASES[name], written(CASES[name])
    prefix = "transformer." if name == "gpt2" else "model."
    bare = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    bare |= {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    expected = from_hf(tensors, config)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in from_hf(bare, config).items())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_tied_head_stored_twice_must_be_the_same(name):
    config, tensors = CASES[name], written(CASES[name])
    table = tensors["transformer.wte.weight" if name == "gpt2" else "model.embed_tokens.weight"]
    assert "head.weight" not in from_hf(tensors | {"lm_head.weight": table.clone()}, config)
    with pytest.raises(CheckpointError, match="lm_head.weight differs from the token table"):
        from_hf(tensors | {"lm_head.weight": table + 1}, config)


def test_biases_that_the_config_denies_are_refused():
    config = CASES["gpt2 untied, no qkv bias"]
    tensors = written(config)
    tensors["transformer.h.1.attn.c_attn.bias"][3] = 0.5
    with pytest.raises(CheckpointError, match="transformer.h.1.attn.c_attn.bias is not zero"):
        from_hf(tensors, config)


@CASE
def test_missing_unexpected_and_misshapen_tensors_are_named(config):
    whole = written(config)
    first = next(iter(whole))
    with pytest.raises(CheckpointError, match=f"the file lacks {first}"):
        from_hf({name: tensor for name, tensor in whole.items() if name != first}, config)
    with pytest.raises(CheckpointError, match="the file has unexpected other.weight"):
        from_hf(whole | {"other.weight": torch.ones(1)}, config)
    with pytest.raises(CheckpointError, match=rf"{first} has shape \(3, 2\), the config makes it"):
        from_hf(whole | {first: torch.ones(3, 2)}, config)
    state = build(config).state_dict()
    ours = next(iter(state))
    with pytest.raises(CheckpointError, match=f"the model's state lacks {ours}"):
        to_hf({name: tensor for name, tensor in state.items() if name != ours}, config)


def test_one_wrong_part_of_query_key_value_is_named():
    tensors = written(CASES["llama"]) | {"model.layers.0.self_attn.k_proj.weight": torch.ones(12, 8)}
    with pytest.raises(CheckpointError, match=r"layers.0.self_attn.k_proj.weight has shape \(12, 8\).*\(6, 8\)"):
        from_hf(tensors, CASES["llama"])


def test_many_missing_tensors_are_counted():
    with pytest.raises(CheckpointError, match="the file lacks transformer.wte.weight, .* and 22 more"):
        from_hf({}, CASES["gpt2"])


# --- config.json -------------------------------------------------------------------------------------------------


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
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 32.0}}, "rope_scaling is .*llama3"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters is .*yarn"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters is .*full_attention"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters is .*partial_rotary_factor"),
        ("llama", {"rope_parameters": 3}, "rope_parameters is 3"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"sliding_window": 4096}, "sliding_window is 4096"),
        ("llama", {"num_local_experts": 8}, "num_local_experts is 8"),
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


def test_qwen3_without_head_dim_has_their_default():
    content = hf_config(CASES["qwen3"])
    del content["head_dim"]
    assert model_config(content).head_size == 128
