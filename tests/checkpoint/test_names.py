"""Names there and back; what is missing, foreign or misshapen is refused by name. Settings: test_fields.py.

That the numbers mean the same to transformers is shown in tests/parity/test_model_transformers.py.
"""

import pytest
import torch

from groundup.checkpoint.names import arranged, from_hf, to_hf
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


def test_a_tensor_with_and_without_prefix_is_refused():
    config, tensors = CASES["llama"], written(CASES["llama"])
    with pytest.raises(CheckpointError, match="the file has model.norm.weight and norm.weight: one tensor twice"):
        from_hf(tensors | {"norm.weight": torch.ones(8)}, config)


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


def test_all_shapes_are_compared_before_the_first_tensor_is_read():
    config = CASES["llama"]
    shapes = {name: tuple(tensor.shape) for name, tensor in written(config).items()}

    def read(name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was read")

    with pytest.raises(CheckpointError, match="has shape"):
        arranged(shapes | {"model.norm.weight": (9,)}, read, config)
    arranged(shapes, read, config)  # nor is anything read before it is asked for


def test_tensors_come_in_another_type_on_request():
    config = CASES["gpt2"]
    tensors = written(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    seen = dict(arranged(shapes, tensors.__getitem__, config, dtype=torch.bfloat16))
    assert all(torch.equal(seen[name], tensor.bfloat16()) for name, tensor in from_hf(tensors, config).items())
