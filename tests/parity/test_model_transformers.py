"""Our network against Hugging Face transformers: the same weights give the same logits, in both directions."""

import json

import pytest
import torch
from safetensors.torch import save_file

from groundup.checkpoint.fields import hf_config, model_config
from groundup.checkpoint.names import from_hf, to_hf
from groundup.model import build
from groundup.model.config import ModelConfig

transformers = pytest.importorskip("transformers")

SMALL = {"vocabulary": 61, "context": 24, "width": 32, "layers": 3, "heads": 4}
CASES = {
    "gpt2 tied": ModelConfig(family="gpt2", **SMALL),
    "gpt2 untied, no qkv bias": ModelConfig(family="gpt2", **SMALL, tie=False, qkv_bias=False, hidden=40),
    "llama": ModelConfig(family="llama", **SMALL, tie=False),
    "llama tied, grouped, wide heads": ModelConfig(
        family="llama", **SMALL, kv_heads=2, head_size=10, hidden=44, rope_base=500.0, norm_eps=1e-3
    ),
    "llama with qkv bias (qwen2)": ModelConfig(family="llama", **SMALL, kv_heads=2, qkv_bias=True, tie=False),
    "qwen3": ModelConfig(family="qwen3", **SMALL),
    "qwen3 untied, one kv head, odd width": ModelConfig(
        family="qwen3", **SMALL | {"width": 30}, kv_heads=1, head_size=12, tie=False, norm_eps=1e-2
    ),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Every parameter random, biases and norm scales included: a swapped or forgotten one must show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.35, generator=generator)


def ours_and_theirs(config: ModelConfig):
    """A transformers model with random numbers, built from our config.json, and ours filled with its weights."""
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**hf_config(config)), attn_implementation="eager"
    ).eval()
    randomise(theirs, seed=1)
    if config.family == "gpt2" and not config.qkv_bias:
        for block in theirs.transformer.h:
            torch.nn.init.zeros_(block.attn.c_attn.bias)
    ours = build(config).eval()
    ours.load_state_dict(from_hf(theirs.state_dict(), config))
    return ours, theirs


def ids(config: ModelConfig, batch: int, time: int) -> torch.Tensor:
    return torch.randint(config.vocabulary, (batch, time), generator=torch.Generator().manual_seed(2))


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    largest = theirs.abs().max()
    assert largest > 0.5, "the logits are too small to tell anything"
    assert (ours - theirs).abs().max() <= 1e-4 * largest


@CASE
@torch.inference_mode()
def test_logits_equal(config):
    ours, theirs = ours_and_theirs(config)
    tokens = ids(config, 3, config.context)
    assert_close(ours(tokens), theirs(tokens).logits)


@CASE
@torch.inference_mode()
def test_logits_equal_with_filler_on_the_right(config):
    ours, theirs = ours_and_theirs(config)
    tokens = ids(config, 3, 9)
    padding = torch.arange(9) < torch.tensor([[9], [4], [1]])
    expected = theirs(tokens, attention_mask=padding.long()).logits
    assert_close(ours(tokens, padding=padding)[padding], expected[padding])


@CASE
@torch.inference_mode()
def test_logits_equal_with_filler_on_the_left(config):
    ours, theirs = ours_and_theirs(config)
    tokens = ids(config, 3, 9)
    padding = torch.arange(9) >= torch.tensor([[0], [5], [8]])
    places = (padding.long().cumsum(1) - 1).clamp(min=0)  # what generate() of transformers hands its models
    expected = theirs(tokens, attention_mask=padding.long(), position_ids=places).logits
    seen = ours(tokens, padding=padding)
    assert_close(seen[padding], expected[padding])
    assert seen.isfinite().all()


@CASE
@torch.inference_mode()
def test_logits_equal_with_positions(config):
    ours, theirs = ours_and_theirs(config)
    tokens = ids(config, 2, 6)
    places = torch.tensor([[0, 1, 2, 0, 1, 2], [4, 5, 6, 7, 20, 23]])
    everything = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()  # without it they infer documents from the positions
    expected = theirs(
        tokens, position_ids=places, attention_mask=torch.zeros(2, 1, 6, 6).masked_fill(~everything, -1e9)
    )
    assert_close(ours(tokens, positions=places), expected.logits)


@CASE
def test_gradients_equal(config):
    ours, theirs = ours_and_theirs(config)
    tokens = ids(config, 2, 8)
    for model in (ours, theirs):
        out = model(tokens)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    expected = from_hf({name: p.grad for name, p in theirs.named_parameters() if not absent(name, config)}, config)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * expected[name].abs().max())


def absent(name: str, config: ModelConfig) -> bool:
    return config.family == "gpt2" and not config.qkv_bias and name.endswith("c_attn.bias")


@CASE
@torch.inference_mode()
def test_a_folder_we_write_is_opened_by_transformers(config, tmp_path):
    ours = build(config).eval()
    randomise(ours, seed=3)
    save_file(to_hf(ours.state_dict(), config), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(hf_config(config, eos=7)), encoding="utf-8")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report  # nothing missing, unexpected or mismatched
    assert theirs.config.eos_token_id == 7 and theirs.config.bos_token_id is None and theirs.dtype == torch.float32
    tokens = ids(config, 2, 11)
    assert_close(ours(tokens), theirs.eval()(tokens).logits)


@CASE
@torch.inference_mode()
def test_a_folder_they_write_is_opened_by_us(config, tmp_path):
    from safetensors.torch import load_file

    _, theirs = ours_and_theirs(config)
    theirs.save_pretrained(tmp_path)
    read = model_config(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
    assert read == config
    ours = build(read).eval()
    ours.load_state_dict(from_hf(load_file(tmp_path / "model.safetensors"), read))
    tokens = ids(config, 2, 11)
    assert_close(ours(tokens), theirs(tokens).logits)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_their_own_defaults_are_ours(family, tmp_path):
    """A config.json that leaves out what transformers leaves out means the same network to both."""
    sizes = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}}.get(
        family,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 16}
        | {"intermediate_size": 48, "num_key_value_heads": 4},
    )
    written = {"model_type": family, "vocab_size": 50} | sizes
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**written, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    ).eval()
    randomise(theirs, seed=4)
    config = model_config(written)
    # Too small to show in the logits
    assert config.norm_eps == getattr(theirs.config, "rms_norm_eps", getattr(theirs.config, "layer_norm_epsilon", None))
    ours = build(config).eval()
    ours.load_state_dict(from_hf(theirs.state_dict(), config))
    tokens = ids(config, 2, 11)
    with torch.inference_mode():
        assert_close(ours(tokens), theirs(tokens).logits)
