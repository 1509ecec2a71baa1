"""Adapters as files: there and back, peft's layout by hand, files that lie. peft itself: tests/parity/test_peft.py."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.checkpoint import adapters
from groundup.checkpoint.adapter_layout import OURS, PREFIX
from groundup.errors import CheckpointError, ModelError
from groundup.model import build, lora
from groundup.model.adapted import Part
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.heads import Classifier, HeadConfig
from groundup.model.lora import TARGETS, LoraConfig
from groundup.model.surgery import extend_vocabulary

TINY = {"vocabulary": 30, "context": 12, "width": 16, "layers": 2, "heads": 4}
NETWORKS = {
    "gpt2": {"family": "gpt2"},
    "gpt2 untied": {"family": "gpt2", "tie": False},
    "llama": {"family": "llama", "kv_heads": 2},
    "qwen2": {"family": "llama", "kv_heads": 1, "qkv_bias": True, "tie": False},
    "qwen3": {"family": "qwen3", "kv_heads": 2, "head_size": 6},
}
NETWORK = pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS.keys())
SMALL = LoraConfig(rank=2, alpha=3.0, dropout=0.1, base="runs/base", base_sha256="ab" * 32)
IDS = torch.tensor([[3, 19, 0, 7, 22], [1, 2, 3, 4, 5]])
HEAD = HeadConfig(("ham", "spam", "eggs"), "mean", True)


def randomised(model, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def network(fields=None, **changes):
    return randomised(build(ModelConfig(**(TINY | (fields or {"family": "llama"}) | changes))))


def adapted(model, config=SMALL, **also):
    """Adapters, and whatever else learns, as if they had learnt."""
    lora.add(model, config, **also)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3, generator=generator)
    return model


def written(folder, model):
    adapters.write(folder, *adapters.export(model))
    return folder


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- there and back ----------------------------------------------------------------------------------------------


@NETWORK
def test_there_and_back(tmp_path, fields):
    model, base = adapted(network(fields)), network(fields)
    before = torch.get_rng_state()
    again = adapters.apply(base, written(tmp_path, model))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(again), state(model)) and lora.config_of(again) == SMALL
    assert torch.equal(again(IDS), model(IDS))
    learns = [name for name, parameter in again.named_parameters() if parameter.requires_grad]
    assert learns == [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("targets", [("query", "value"), ("key",), ("out", "down"), ("query", "key", "value", "up")])
@NETWORK
def test_some_targets_there_and_back(tmp_path, fields, targets):
    model = adapted(network(fields), LoraConfig(rank=3, targets=targets))
    again = adapters.apply(network(fields), written(tmp_path, model))
    assert same(state(again), state(model))


@pytest.mark.parametrize("targets", [lora.LINEAR, TARGETS], ids=["score whole", "score adapted"])
@NETWORK
def test_a_classifier_there_and_back(tmp_path, fields, targets):
    """Onto the language model it was made of: the score comes with the folder, and so do the names of the classes."""
    model = adapted(Classifier(network(fields), HEAD, seed=1), LoraConfig(rank=2, targets=targets))
    again = adapters.apply(network(fields), written(tmp_path, model))
    assert again.head_config == HEAD and same(state(again), state(model))
    lengths = torch.tensor([2, 5])
    assert torch.equal(again(IDS, lengths=lengths), model(IDS, lengths=lengths))
    over = adapters.apply(Classifier(network(fields), HeadConfig(("a", "b")), seed=2), tmp_path)  # another's score
    assert over.head_config == HEAD and same(state(over), state(model))


@NETWORK
def test_added_tokens_there_and_back(tmp_path, fields):
    longer = extend_vocabulary(network(fields), 33, known=30)
    also = ["token_table"] if longer.head is None else ["token_table", "head"]
    model = adapted(longer, also=also)
    again = adapters.apply(network(fields), written(tmp_path, model))
    assert again.config.vocabulary == 33 and same(state(again), state(model))
    assert torch.equal(again(torch.tensor([[32, 1, 30]])), model(torch.tensor([[32, 1, 30]])))
    assert lora.attached(again).also == tuple(also)


def test_added_tokens_of_a_classifier(tmp_path):
    model = adapted(Classifier(extend_vocabulary(network(), 33, known=30), HEAD, seed=1), also=["token_table"])
    again = adapters.apply(network(), written(tmp_path, model))
    assert again.config.vocabulary == 33 and same(state(again), state(model))


@pytest.mark.parametrize("targets", [lora.LINEAR, TARGETS], ids=["score whole", "score adapted"])
def test_restoring_into_a_run_that_goes_on(tmp_path, targets):
    config = LoraConfig(rank=2, targets=targets)
    model = adapted(Classifier(network(), HEAD, seed=1), config)
    written(tmp_path, model)
    fresh = lora.add(Classifier(network(), HEAD, seed=1), config, seed=77)
    adapters.restore(fresh, tmp_path)
    assert same(state(fresh), state(model))
    assert [p.requires_grad for p in fresh.parameters()] == [p.requires_grad for p in model.parameters()]


def test_restoring_onto_another_base_is_refused(tmp_path):
    """Every shape fits, and yet the numbers would mean nothing there."""
    written(tmp_path, adapted(network(), LoraConfig(rank=2, base="runs/base", base_sha256="aa" * 32)))
    fresh = lora.add(network(), LoraConfig(rank=2, base="runs/base", base_sha256="bb" * 32), seed=77)
    before = state(fresh)
    with pytest.raises(CheckpointError, match=r"runs/base has changed since .* was aaaaaaaaaaaa\.\.\. and is bbbb"):
        adapters.restore(fresh, tmp_path)
    assert same(state(fresh), before)


def test_restoring_another_network_changes_nothing(tmp_path):
    written(tmp_path, adapted(network()))
    for other in (LoraConfig(rank=3, alpha=4.5), LoraConfig(rank=2, alpha=4.0), LoraConfig(2, 3.0, targets=("up",))):
        model = adapted(network(), other)
        before = state(model)
        with pytest.raises(CheckpointError):
            adapters.restore(model, tmp_path)
        assert same(state(model), before)
    with pytest.raises(CheckpointError, match="the network has none"):
        adapters.restore(network(), tmp_path)


def test_the_numbers_of_a_merged_classifier_without_our_own_files(tmp_path):
    """With peft's two files alone: unnamed classes, and the adapted score as it judges."""
    model = adapted(Classifier(network(), HeadConfig(("ham", "spam")), seed=1), LoraConfig(rank=2, targets=TARGETS))
    written(tmp_path, model)
    for name in ("lora.json", "score.safetensors"):
        (tmp_path / name).unlink()
    again = adapters.apply(network(), tmp_path)
    assert again.head_config.labels == ("LABEL_0", "LABEL_1")
    assert torch.allclose(again(IDS), model(IDS), atol=1e-5)


# --- the layout --------------------------------------------------------------------------------------------------


def by_hand(targets):
    """One block, width 4, rank 1: every A and B of query, key and value a number of its own."""
    model = build(ModelConfig(family="gpt2", vocabulary=5, context=4, width=4, layers=1, heads=1), seed=0)
    lora.add(model, LoraConfig(rank=1, alpha=2.0, targets=targets))
    with torch.no_grad():
        for number, part in enumerate(lora.adapted(model)["blocks.0.attention.qkv"].parts):
            model.blocks[0].attention.qkv.A[part.name].fill_(number + 1)
            model.blocks[0].attention.qkv.B[part.name].fill_(10 * (number + 1))
    return adapters.export(model)


def test_query_key_and_value_of_gpt2_are_one_block_matrix():
    tensors, config = by_hand(("query", "key", "value"))
    key = f"{PREFIX}transformer.h.0.attn.c_attn.lora_"
    assert tensors.keys() == {f"{key}A.weight", f"{key}B.weight"}
    assert tensors[f"{key}A.weight"].tolist() == [[1] * 4, [2] * 4, [3] * 4]
    blocks = [[10, 0, 0]] * 4 + [[0, 20, 0]] * 4 + [[0, 0, 30]] * 4
    assert tensors[f"{key}B.weight"].tolist() == blocks
    assert config["target_modules"] == ["attn.c_attn"] and config["r"] == 1 and config["lora_alpha"] == 2
    assert config["rank_pattern"] == {"attn.c_attn": 3} and config["alpha_pattern"] == {"attn.c_attn": 6}
    assert config["fan_in_fan_out"] is True and config["task_type"] == "CAUSAL_LM"
    assert config["peft_type"] == "LORA" and config["bias"] == "none" and config["modules_to_save"] is None


def test_two_of_the_three_are_rank_2r():
    tensors, config = by_hand(("query", "value"))
    up = tensors[f"{PREFIX}transformer.h.0.attn.c_attn.lora_B.weight"]
    assert up.tolist() == [[10, 0]] * 4 + [[0, 0]] * 4 + [[0, 20]] * 4
    assert config["rank_pattern"] == {"attn.c_attn": 2} and config["alpha_pattern"] == {"attn.c_attn": 4}


def test_a_llama_has_three_matrices():
    tensors, config = adapters.export(adapted(network(kv_heads=2)))
    shapes = {name.removeprefix(f"{PREFIX}model.layers.1."): tuple(value.shape) for name, value in tensors.items()}
    assert shapes["self_attn.q_proj.lora_A.weight"] == (2, 16) and shapes["self_attn.q_proj.lora_B.weight"] == (16, 2)
    assert shapes["self_attn.v_proj.lora_B.weight"] == (8, 2) and len(tensors) == 2 * 2 * 7
    assert sorted(config["target_modules"]) == sorted(
        [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    )
    assert config["rank_pattern"] == {} and config["alpha_pattern"] == {} and config["fan_in_fan_out"] is False
    assert config["base_model_name_or_path"] == "runs/base" and config["lora_dropout"] == 0.1


def test_a_score_is_saved_as_it_judges(tmp_path):
    model = adapted(Classifier(network(), HEAD, seed=1), LoraConfig(rank=2, targets=TARGETS))
    tensors, config = adapters.export(model)
    assert config["modules_to_save"] == ["classifier", "score"] and config["task_type"] == "SEQ_CLS"
    written(tmp_path, model)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert torch.equal(stored[f"{PREFIX}score.weight"], lora.merge(model).score.weight)
    assert not any(name.startswith(OURS) for name in stored)
    assert OURS not in json.loads((tmp_path / "adapter_config.json").read_text())  # peft would warn of it


def test_layers_that_differ_are_named_one_by_one(tmp_path):
    model = network({"family": "gpt2"})
    plan = {
        "blocks.0.attention.qkv": [Part("query+key+value", 0, 48, 3, 0.5)],
        "blocks.1.feedforward.down": [Part("down", 0, 16, 2, 2.0)],
    }
    lora.attach(model, plan, LoraConfig(rank=2, alpha=4.0, targets=()))
    with torch.no_grad():
        for value in lora.parameters(model).values():
            value.normal_(0.0, 0.3)
    tensors, config = adapters.export(model)
    assert config["target_modules"] == ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"]
    assert config["rank_pattern"] == {"transformer.h.0.attn.c_attn": 3}
    assert config["alpha_pattern"] == {"transformer.h.0.attn.c_attn": 1.5}
    adapters.write(tmp_path, tensors, config)
    again = adapters.apply(network({"family": "gpt2"}), tmp_path)
    assert same(state(again), state(model))


def test_what_a_folder_says_of_itself(tmp_path):
    assert not adapters.is_adapter(tmp_path)
    written(tmp_path, adapted(network()))
    assert adapters.is_adapter(tmp_path) and adapters.base_of(tmp_path) == "runs/base"
    assert adapters.config_in(tmp_path) == SMALL
    changed(tmp_path, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="does not name the model"):
        adapters.base_of(tmp_path)


# --- made by another program -------------------------------------------------------------------------------------


def changed(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def foreign(folder, model=None):
    """As peft leaves it: without files of ours."""
    written(folder, model or adapted(network()))
    (folder / "lora.json").unlink()
    return folder


@NETWORK
def test_without_our_own_file_the_answers_are_the_same(tmp_path, fields):
    model = adapted(network(fields))
    again = adapters.apply(network(fields), foreign(tmp_path, model))
    assert torch.allclose(again(IDS), model(IDS), atol=1e-5)
    assert lora.config_of(again).targets == () and lora.config_of(again).rank == 2
    if fields["family"] == "gpt2":
        assert "blocks.0.attention.qkv.A.query+key+value" in lora.parameters(again)


def test_scales_of_patterns_and_of_rslora(tmp_path):
    """alpha 3 / sqrt(2); for layer 1's up 12 / sqrt(2); the first pattern that fits counts."""
    foreign(tmp_path)
    changed(tmp_path, use_rslora=True, alpha_pattern={r"layers\.1\.mlp\.up_proj": 12, "mlp.up_proj": 6})
    scales = {name: layer.parts[0].scale for name, layer in lora.adapted(adapters.apply(network(), tmp_path)).items()}
    assert scales["blocks.0.attention.out"] == pytest.approx(3 / 2**0.5)
    assert scales["blocks.0.feedforward.up"] == pytest.approx(6 / 2**0.5)
    assert scales["blocks.1.feedforward.up"] == pytest.approx(12 / 2**0.5)


FIELDS = {
    "another method": ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
    "another task": ({"task_type": "TOKEN_CLS"}, "task_type is 'TOKEN_CLS'"),
    "DoRA": ({"use_dora": True}, "use_dora is True"),
    "biases": ({"bias": "all"}, "bias is 'all'"),
    "biases of adapters": ({"lora_bias": True}, "lora_bias is True"),
    "LoftQ": ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "init_lora_weights is 'loftq'"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    "layers used twice": ({"layer_replication": [[0, 2]]}, "layer_replication is"),
    "some tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices is"),
    "what is not known yet": ({"use_newest": {"x": 1}}, "use_newest is"),
    "a part that is not known": ({"modules_to_save": ["ln_f"]}, "modules_to_save has 'ln_f'"),
    "a part that is not there": ({"modules_to_save": ["embed_tokens"]}, "lacks embed_tokens"),
    "rank 0": ({"r": 0}, "r is 0"),
    "a rank that is another": ({"r": 5}, r"has shape \(2, 16\), wanted is \(5, 16\)"),
    "a rank of a pattern": ({"rank_pattern": {"q_proj": 7}}, r"wanted is \(7, 16\)"),
    "alpha as a word": ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
    "alpha not a number": ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    "a pattern without end": ({"rank_pattern": {"(.*)*x": 2}}, "rank_pattern is"),
    "a pattern that is none": ({"alpha_pattern": {"(up": 2}}, "alpha_pattern is"),
    "targets that leave one out": ({"target_modules": ["q_proj"]}, "target_modules leaves out"),
    "targets that are no names": ({"target_modules": [1]}, "target_modules is"),
    "a base that is no name": ({"base_model_name_or_path": {"a": 1}}, "base_model_name_or_path is"),
    "dropout of 1": ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
    "a steered terminal": ({"peft_type": "\x1b]0;owned\x07"}, "peft_type is"),
}


@pytest.mark.parametrize(("fields", "message"), FIELDS.values(), ids=FIELDS.keys())
def test_what_is_not_computed_here_is_refused_by_name(tmp_path, fields, message):
    changed(foreign(tmp_path), **fields)
    with pytest.raises(CheckpointError, match=message) as caught:
        adapters.apply(network(), tmp_path)
    assert str(caught.value).replace("\n", "").isprintable()


def retensored(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return folder


UP = f"{PREFIX}model.layers.0.mlp.up_proj"
TABLE = f"{PREFIX}model.embed_tokens.weight"
TENSORS = {
    "one is missing": (lambda t: t.pop(f"{UP}.lora_A.weight"), "lacks .*up_proj.lora_A.weight"),
    "both are missing": (lambda t: [t.pop(f"{UP}.lora_{ab}.weight") for ab in "AB"], "lacks .*up_proj"),
    "one too many": (lambda t: t.update({"extra": torch.zeros(1)}), "has extra, which is not known"),
    "DoRA's magnitudes": (lambda t: t.update({f"{UP}.lora_magnitude_vector": torch.zeros(4)}), "lora_magnitude_vector"),
    "adapters on tokens": (lambda t: t.update({f"{PREFIX}model.embed_tokens.lora_embedding_A": torch.zeros(2, 4)}),
                           "lora_embedding_A"),
    "another shape": (lambda t: t.update({f"{UP}.lora_B.weight": torch.zeros(3, 2)}), r"has shape \(3, 2\)"),
    "one dimension": (lambda t: t.update({f"{UP}.lora_A.weight": torch.zeros(32)}), r"has shape \(32,\)"),
    "not a number": (lambda t: t[f"{UP}.lora_B.weight"].fill_(float("nan")), "not finite"),
    "a table without width": (lambda t: t.update({TABLE: torch.zeros(10**9, 0)}), "shape"),
    "a table of another width": (lambda t: t.update({TABLE: torch.zeros(31, 3)}), "shape"),
    "a shorter table": (lambda t: t.update({TABLE: torch.zeros(29, 16)}), "shape"),
    "whole numbers": (lambda t: t.update({f"{UP}.lora_A.weight": torch.zeros(2, 16, dtype=torch.int64)}), "I64"),
}  # fmt: skip


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS.keys())
def test_files_that_do_not_fit(tmp_path, change, message, ours):
    (written if ours else foreign)(tmp_path, adapted(network()))
    retensored(tmp_path, change)
    if not ours and message.startswith("lacks .*up_proj") and "lora_A" not in message:
        adapters.apply(network(), tmp_path)  # a layer may have no adapter; only lora.json says that it had one
        return
    with pytest.raises(CheckpointError, match=message):
        adapters.apply(network(), tmp_path)


def test_a_tied_head_that_came_apart(tmp_path):
    model = adapted(network(), also=["token_table"])
    table = model.token_table.weight.detach()
    head = f"{PREFIX}lm_head.weight"
    foreign(tmp_path, model)
    retensored(tmp_path, lambda tensors: tensors.update({head: table.clone()}))  # the same a second time, as peft does
    assert torch.equal(adapters.apply(network(), tmp_path).token_table.weight, table)
    retensored(tmp_path, lambda tensors: tensors.update({head: table + 1}))
    with pytest.raises(CheckpointError, match="trained apart"):
        adapters.apply(network(), tmp_path)
    retensored(tmp_path, lambda tensors: tensors.pop(head))
    changed(tmp_path, modules_to_save=["embed_tokens"])  # peft trains a copy of the table, and leaves the head behind
    with pytest.raises(CheckpointError, match="trained apart"):
        adapters.apply(network(), tmp_path)


def test_a_record_that_does_not_fit_the_numbers(tmp_path):
    """Three adapters whose block matrix is not one: opened as three, numbers would be lost."""
    model = adapted(network({"family": "gpt2"}))
    written(tmp_path, model)
    key = f"{PREFIX}transformer.h.0.attn.c_attn.lora_B.weight"
    retensored(tmp_path, lambda tensors: tensors[key].add_(1))
    with pytest.raises(CheckpointError, match="mixes query, key and value"):
        adapters.apply(network({"family": "gpt2"}), tmp_path)
    (tmp_path / "lora.json").unlink()
    adapters.apply(network({"family": "gpt2"}), tmp_path)


@pytest.mark.parametrize("record", [{"format": 2}, {"targets": "all"}, {"targets": ["qery"]}, {"base_sha256": 3}])
def test_a_malformed_record(tmp_path, record):
    path = written(tmp_path, adapted(network())) / "lora.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | record))
    with pytest.raises(CheckpointError, match="lora.json"):
        adapters.apply(network(), tmp_path)


@pytest.mark.parametrize("head", [None, {"labels": ["a"]}, {"labels": ["a", "a", "b"], "pooling": "last", "bias": True},
                                  {"labels": ["a", "b", "c"], "pooling": "middle", "bias": True}])  # fmt: skip
def test_a_malformed_head(tmp_path, head):
    path = written(tmp_path, adapted(Classifier(network(), HEAD, seed=1))) / "lora.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"head": head}))
    with pytest.raises(CheckpointError):
        adapters.apply(network(), tmp_path)


def test_a_base_that_it_does_not_fit(tmp_path):
    written(tmp_path, adapted(network()))
    for other in (
        network(width=32),
        network(layers=3),
        network({"family": "gpt2"}),
        build(BigramConfig(vocabulary=30, context=4)),
    ):
        with pytest.raises(CheckpointError):
            adapters.apply(other, tmp_path)
    with pytest.raises(ModelError, match="has adapters"):
        adapters.apply(adapted(network()), tmp_path)


def test_a_pickle_is_read_with_care(tmp_path, capsys):
    model = adapted(network())
    foreign(tmp_path, model)
    path = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(path), tmp_path / "adapter_model.bin")
    path.unlink()
    assert torch.allclose(adapters.apply(network(), tmp_path)(IDS), model(IDS), atol=1e-5)
    assert "pickle" in capsys.readouterr().err
    torch.save({"x": torch.nn.Linear(2, 2)}, tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="is not read"):
        adapters.apply(network(), tmp_path)
    (tmp_path / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match="adapter_model.safetensors is missing"):
        adapters.apply(network(), tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path):
    inside, outside = tmp_path / "adapter", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    written(outside, adapted(network()))
    for name in ("adapter_config.json", "adapter_model.safetensors", "lora.json"):
        (inside / name).symlink_to(outside / name)
    with pytest.raises(CheckpointError, match="outside"):
        adapters.apply(network(), inside)


def test_a_network_without_adapters_is_not_exported():
    with pytest.raises(CheckpointError, match="no adapters to write"):
        adapters.export(network())
