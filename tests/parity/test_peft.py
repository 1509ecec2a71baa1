"""Adapters of ours opened by peft on transformers' networks, and adapters of peft's opened by us: the same logits.

Every parameter is random, also those of the adapters. The largest difference seen is far below what is allowed.
"""

import json

import pytest
import torch
from safetensors.torch import save_file

from groundup.checkpoint import adapters, fields, names
from groundup.errors import CheckpointError
from groundup.model import build, lora
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig
from groundup.model.lora import TARGETS, LoraConfig
from groundup.model.surgery import extend_vocabulary

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [
    # one matrix of gpt2 stands the usual way round, the others do not; peft says so and does right by both
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to"),
    # peft 0.21 asks transformers 5.23 something under its old name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
TINY = {"vocabulary": 61, "context": 32, "width": 32, "layers": 3, "heads": 4}
NETWORKS = {
    "gpt2": {"family": "gpt2"},
    "gpt2 untied": {"family": "gpt2", "tie": False},
    "llama with shared keys": {"family": "llama", "kv_heads": 2},
    "llama untied": {"family": "llama", "tie": False},
    "qwen2": {"family": "llama", "kv_heads": 1, "qkv_bias": True},
    "qwen3": {"family": "qwen3", "kv_heads": 2, "head_size": 12},
}
NETWORK = pytest.mark.parametrize("kind", NETWORKS)
SUBSETS = [lora.LINEAR, ("query", "value"), ("key",), ("query", "key", "value", "down")]
LABELS = ("ham", "spam", "eggs")
PAD = 60


def network(kind: str):
    return randomised(build(ModelConfig(**(TINY | NETWORKS[kind]))), seed=1)


def randomised(model, seed: int):
    """Every parameter that learns."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def theirs(place, model, *, classes: int = 0):
    """The base as transformers opens it, from a folder."""
    place.mkdir(exist_ok=True)
    document = fields.hf_config(model.config, pad=PAD, dtype="float32")
    (place / "config.json").write_text(json.dumps(document), encoding="utf-8")
    save_file(names.to_hf(model.state_dict(), model.config), place / "model.safetensors", metadata={"format": "pt"})
    if classes:
        return transformers.AutoModelForSequenceClassification.from_pretrained(place, num_labels=classes).eval()
    return transformers.AutoModelForCausalLM.from_pretrained(place).eval()


def written(place, model):
    place.mkdir()
    adapters.write(place, *adapters.export(model))
    return place


def ids(vocabulary: int = PAD) -> torch.Tensor:
    return torch.randint(vocabulary, (3, 32), generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def assert_equal(seen: torch.Tensor, expected: torch.Tensor, base: torch.Tensor) -> None:
    """Equal logits, and not those of the base."""
    assert (expected - base).abs().max() > 0.1, "the adapters change too little to tell anything"
    assert (seen - expected).abs().max() <= 1e-4 * max(1.0, expected.abs().max().item())


# --- ours, opened by peft ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", SUBSETS, ids=["all linear", "query value", "key", "four"])
@NETWORK
def test_peft_opens_ours(tmp_path, kind, targets):
    base = theirs(tmp_path / "base", network(kind))
    model = randomised(lora.add(network(kind), LoraConfig(rank=3, alpha=5.0, targets=targets)), seed=3)
    before = base(ids()).logits.detach()
    opened = peft.PeftModel.from_pretrained(base, written(tmp_path / "ours", model)).eval()
    assert_equal(model(ids()), opened(ids()).logits, before)
    merged = opened.merge_and_unload()
    assert_equal(lora.merge(model)(ids()), merged(ids()).logits, before)


@pytest.mark.parametrize("kind", ["gpt2 untied", "llama untied"])
def test_peft_opens_an_adapter_on_the_head(tmp_path, kind):
    base = theirs(tmp_path / "base", network(kind))
    before = base(ids()).logits.detach()
    model = randomised(lora.add(network(kind), LoraConfig(rank=3, targets=("query", "head"))), seed=3)
    opened = peft.PeftModel.from_pretrained(base, written(tmp_path / "ours", model)).eval()
    assert_equal(model(ids()), opened(ids()).logits, before)


@pytest.mark.parametrize("targets", [lora.LINEAR, TARGETS], ids=["score whole", "score adapted"])
@NETWORK
def test_peft_opens_our_classifiers(tmp_path, kind, targets):
    """On the language model, whose score transformers draws at random: ours comes with the adapters."""
    base = theirs(tmp_path / "base", network(kind), classes=3)
    model = Classifier(network(kind), HeadConfig(LABELS), seed=4)
    model = randomised(lora.add(model, LoraConfig(rank=3, targets=targets)), seed=3)
    texts, lengths = ids(), torch.tensor([32, 7, 20])
    texts[1, 7:], texts[2, 20:] = PAD, PAD
    before = base(texts).logits.detach()
    opened = peft.PeftModel.from_pretrained(base, written(tmp_path / "ours", model)).eval()
    assert_equal(model(texts, lengths=lengths), opened(texts).logits, before)


@NETWORK
def test_peft_opens_ours_with_added_tokens(tmp_path, kind):
    base = theirs(tmp_path / "base", network(kind))
    longer = extend_vocabulary(network(kind), 64, known=61)
    also = ["token_table"] if longer.head is None else ["token_table", "head"]
    model = randomised(lora.add(longer, LoraConfig(rank=3), also=also), seed=3)
    base.resize_token_embeddings(64, mean_resizing=False)
    before = base(ids(64)).logits.detach()
    opened = peft.PeftModel.from_pretrained(base, written(tmp_path / "ours", model)).eval()
    assert_equal(model(ids(64)), opened(ids(64)).logits, before)


# --- theirs, opened by us ----------------------------------------------------------------------------------------

THEIRS = {
    "gpt2, c_attn as one": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "gpt2, all-linear": ("gpt2", {"target_modules": "all-linear", "fan_in_fan_out": True}),
    "gpt2, c_proj of both kinds": ("gpt2 untied", {"target_modules": ["c_proj"], "fan_in_fan_out": True}),
    "llama, two of them": ("llama with shared keys", {"target_modules": ["q_proj", "v_proj"]}),
    "llama, all-linear": ("llama with shared keys", {"target_modules": "all-linear"}),
    "llama, by a pattern": ("llama untied", {"target_modules": r".*\.layers\.[01]\..*(up|down)_proj"}),
    "llama, some layers": ("llama untied", {"target_modules": ["k_proj"], "layers_to_transform": [0, 2]}),
    "llama, with its head": ("llama untied", {"target_modules": ["q_proj", "lm_head"]}),
    "qwen2, rslora": ("qwen2", {"target_modules": "all-linear", "use_rslora": True}),
    "qwen3, ranks of their own": (
        "qwen3",
        {
            "target_modules": ["q_proj", "k_proj", "up_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 5, "up_proj": 2},
            "alpha_pattern": {"k_proj": 20},
        },
    ),
    "qwen3, all-linear, gaussian": ("qwen3", {"target_modules": "all-linear", "init_lora_weights": "gaussian"}),
    "with dropout and a tied table left alone": ("gpt2", {"target_modules": ["c_fc"], "lora_dropout": 0.3}
                                                 | {"fan_in_fan_out": True}),
}  # fmt: skip


def taught(model, **settings):
    """An adapter of peft's after a few steps, and random besides."""
    adapted = randomised(peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=7, **settings)), seed=6).train()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(ids()).logits.square().mean().backward()
        optimizer.step()
    return adapted.eval()


@pytest.mark.parametrize(("kind", "settings"), THEIRS.values(), ids=THEIRS.keys())
def test_we_open_theirs(tmp_path, kind, settings):
    base = theirs(tmp_path / "base", network(kind))
    before = base(ids()).logits.detach()
    made = taught(base, task_type="CAUSAL_LM", **settings)
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    assert adapters.base_of(tmp_path / "theirs") == str(tmp_path / "base")
    model = adapters.apply(network(kind), tmp_path / "theirs").eval()
    assert_equal(model(ids()), made(ids()).logits, before)
    assert_equal(lora.merge(model)(ids()), made(ids()).logits, before)


@pytest.mark.parametrize("kind", ["gpt2", "llama with shared keys", "qwen3"])
def test_we_open_theirs_and_peft_opens_what_we_write_of_it(tmp_path, kind):
    base = theirs(tmp_path / "base", network(kind))
    before = base(ids()).logits.detach()
    gpt2 = kind == "gpt2"
    made = taught(base, target_modules="all-linear", fan_in_fan_out=gpt2, use_rslora=True, task_type="CAUSAL_LM")
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    expected = made(ids()).logits.detach()
    model = adapters.apply(network(kind), tmp_path / "theirs").eval()
    again = theirs(tmp_path / "base", network(kind))
    opened = peft.PeftModel.from_pretrained(again, written(tmp_path / "ours", model)).eval()
    assert_equal(opened(ids()).logits, expected, before)


@pytest.mark.parametrize("kind", ["gpt2", "llama with shared keys", "qwen2"])
def test_we_open_their_classifiers(tmp_path, kind):
    base = theirs(tmp_path / "base", network(kind), classes=3)
    before = base(ids()).logits.detach()
    made = taught(base, target_modules="all-linear", fan_in_fan_out=kind == "gpt2", task_type="SEQ_CLS")
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    model = adapters.apply(network(kind), tmp_path / "theirs").eval()
    assert model.head_config == HeadConfig(("LABEL_0", "LABEL_1", "LABEL_2"))
    assert_equal(model(ids()), made(ids()).logits, before)


@pytest.mark.parametrize("kind", ["gpt2", "gpt2 untied", "llama with shared keys", "llama untied"])
def test_we_open_theirs_with_added_tokens(tmp_path, kind):
    base = theirs(tmp_path / "base", network(kind))
    base.resize_token_embeddings(64, mean_resizing=False)
    randomised(base, seed=9)  # what had been trained before: kept whole, as it is in no other folder
    with torch.no_grad():  # but the blocks are those of the base
        ours = names.to_hf(network(kind).state_dict(), network(kind).config)
        for name, value in base.state_dict().items():
            if name in ours and "wte" not in name and "embed_tokens" not in name and "lm_head" not in name:
                value.copy_(ours[name])
    before = base(ids(64)).logits.detach()
    gpt2 = kind.startswith("gpt2")
    made = taught(base, target_modules=["c_fc"] if gpt2 else ["up_proj"], fan_in_fan_out=gpt2, task_type="CAUSAL_LM")
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    model = adapters.apply(network(kind), tmp_path / "theirs").eval()
    assert model.config.vocabulary == 64
    assert_equal(model(ids(64)), made(ids(64)).logits, before)


def test_we_open_an_untied_table_and_head_trained_whole(tmp_path):
    base = theirs(tmp_path / "base", network("llama untied"))
    before = base(ids()).logits.detach()
    saved = ["embed_tokens", "lm_head"]
    made = taught(base, target_modules=["q_proj"], modules_to_save=saved, task_type="CAUSAL_LM")
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    model = adapters.apply(network("llama untied"), tmp_path / "theirs").eval()
    assert_equal(model(ids()), made(ids()).logits, before)


REFUSED = {
    "DoRA": ({"use_dora": True}, "use_dora"),
    "biases": ({"bias": "all"}, "bias"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    "OLoRA": ({"init_lora_weights": "olora"}, "init_lora_weights"),
    "norms trained whole": ({"modules_to_save": ["norm"]}, "modules_to_save"),
}


@pytest.mark.parametrize(("settings", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_we_do_not_compute_is_refused_by_name(tmp_path, settings, field):
    base = theirs(tmp_path / "base", network("qwen2"))
    made = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings))
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    with pytest.raises(CheckpointError, match=f": {field} "):
        adapters.apply(network("qwen2"), tmp_path / "theirs")


def test_another_method_is_refused(tmp_path):
    base = theirs(tmp_path / "base", network("llama untied"))
    made = peft.get_peft_model(base, peft.LoHaConfig(r=3, target_modules=["q_proj"]))
    made.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    with pytest.raises(CheckpointError, match="peft_type is 'LOHA'"):
        adapters.apply(network("llama untied"), tmp_path / "theirs")
