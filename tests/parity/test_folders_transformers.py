"""Folders that transformers wrote, opened by us, and ours opened by transformers: the same logits.

Every parameter is random, norms and biases too. tests/parity/test_model_transformers.py compares the network itself.
"""

import json
from pathlib import Path

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.model import build
from groundup.model.config import ModelConfig, RopeScaling
from groundup.model.gpt import rotation_at

transformers = pytest.importorskip("transformers")

LLAMA = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA |= {"max_position_embeddings": 96, "intermediate_size": 48, "num_key_value_heads": 2}
LLAMA |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}
GPT2 |= {"bos_token_id": None, "eos_token_id": None}
# Within 16 tokens the fast pairs turn more than 4 times, the slow ones less than once: all three rules are used.
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 0.2, "high_freq_factor": 2.0}
LLAMA3 |= {"original_max_position_embeddings": 16}

CASES = {
    "gpt2 tied": ("gpt2", GPT2),
    "gpt2 untied": ("gpt2", GPT2 | {"tie_word_embeddings": False}),
    "llama tied": ("llama", LLAMA | {"tie_word_embeddings": True}),
    "llama untied": ("llama", LLAMA),
    "llama stretched as 3.1": ("llama", LLAMA | {"rope_parameters": LLAMA3}),
    "llama stretched evenly": (
        "llama",
        LLAMA | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "mistral without a window": ("mistral", LLAMA | {"sliding_window": None}),
    "mistral with a window as long as the context": ("mistral", LLAMA | {"sliding_window": 96}),
    "qwen2 with bias": ("qwen2", LLAMA),
    "qwen2 tied": ("qwen2", LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", LLAMA | {"head_dim": 12}),
    "qwen3 tied, stretched": (
        "qwen3",
        LLAMA | {"head_dim": 8, "tie_word_embeddings": True, "rope_parameters": LLAMA3},
    ),
}
CASE = pytest.mark.parametrize(("kind", "fields"), CASES.values(), ids=CASES.keys())


def theirs(kind: str, fields: dict, seed: int = 1):
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **fields), attn_implementation="eager"
    ).eval()
    return randomised(model, seed)


def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.35, generator=generator)
    return model


def opened(place: Path) -> torch.nn.Module:
    tokens.train("chars", ["abc"]).save(place)  # their folder has none
    return folder.load(place).model


@torch.inference_mode()
def assert_equal(ours, theirs) -> None:
    """Over the whole context, far beyond where the stretched ones were first trained."""
    ids = torch.randint(61, (2, 96), generator=torch.Generator().manual_seed(2))
    seen, expected = ours(ids), theirs(ids).logits
    largest = expected.abs().max()
    assert largest > 0.5, "the logits are too small to tell anything"
    assert (seen - expected).abs().max() <= 1e-4 * largest


@CASE
def test_a_whole_folder(kind, fields, tmp_path):
    model = theirs(kind, fields)
    model.save_pretrained(tmp_path)
    assert_equal(opened(tmp_path), model)


@CASE
def test_a_folder_in_shards(kind, fields, tmp_path):
    model = theirs(kind, fields)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_equal(opened(tmp_path), model)


@CASE
def test_a_folder_of_pickles(kind, fields, tmp_path):
    """What older versions wrote: the whole state_dict, a tied head in it twice."""
    model = theirs(kind, fields)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    described = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    described["architectures"] = [type(model).__name__]
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    assert_equal(opened(tmp_path), model)


@CASE
def test_there_and_back(kind, fields, tmp_path):
    """Theirs, opened and written by us, opened by transformers again: nothing of the config is lost on the way."""
    model = theirs(kind, fields)
    model.save_pretrained(tmp_path / "theirs")
    tokens.train("chars", ["abc"]).save(tmp_path / "theirs")
    loaded = folder.load(tmp_path / "theirs")
    folder.save_model(tmp_path / "ours", loaded.model, loaded.tokenizer, card=loaded.card)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert_equal(loaded.model, again.eval())
    assert_equal(loaded.model, model)


def test_the_spelling_of_transformers_4(tmp_path):
    """`rope_theta` and `rope_scaling` apart, as the published Llama 3.1 and 3.2 have them."""
    model = theirs("llama", LLAMA | {"rope_parameters": LLAMA3})
    model.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    described["rope_scaling"] = described.pop("rope_parameters")
    described["rope_theta"] = described["rope_scaling"].pop("rope_theta")
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    assert_equal(opened(tmp_path), model)


def test_a_stretch_changes_the_logits():
    """Without it the comparisons above would pass for a network that leaves the stretch out."""
    plain = ModelConfig(family="llama", vocabulary=61, context=96, width=32, layers=3, heads=4)
    scaling = RopeScaling("llama3", 8.0, low=0.2, high=2.0, original_context=16)
    stretched = ModelConfig(
        family="llama", vocabulary=61, context=96, width=32, layers=3, heads=4, rope_scaling=scaling
    )
    ids = torch.arange(61)[None]
    one, other = (randomised(build(config), 1).eval()(ids) for config in (plain, stretched))
    assert (one - other).abs().max() > 0.01 * one.abs().max()


@pytest.mark.parametrize(
    "part",
    [
        {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 8192},  # Llama 3.2
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 8192},  # Llama 3.1
        {"rope_type": "linear", "factor": 3.0},
    ],
    ids=["llama 3.2", "llama 3.1", "linear"],
)
def test_the_published_stretches_turn_as_theirs_do(part):
    """Sines of the angles at one token, which are the speeds themselves, for heads of 64 as in Llama 3.2 1B."""
    fields = LLAMA | {"head_dim": 64, "max_position_embeddings": 131072, "rope_parameters": part | {"rope_theta": 5e5}}
    rotary = theirs("llama", fields).model.rotary_emb
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    scaling = RopeScaling(part["rope_type"], *(part[name] for name in names if name in part))
    cos, sin = rotation_at(torch.tensor([[1]]), 64, 5e5, scaling)
    torch.testing.assert_close(sin.flatten(), rotary.inv_freq.sin(), rtol=1e-5, atol=0)
    torch.testing.assert_close(cos.flatten(), rotary.inv_freq.cos(), rtol=1e-5, atol=0)
