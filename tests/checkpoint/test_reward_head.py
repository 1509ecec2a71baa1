"""A reward model's folder: one output, mean and spread kept, opened by transformers with the same raw scores."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.batches import pad
from groundup.checkpoint import classifier, folder
from groundup.checkpoint.source import Held
from groundup.errors import CheckpointError
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig

REWARD = HeadConfig(("reward",), kind="reward", mean=-1.25, spread=0.7)
TEXTS = ["the cat sat on the mat", "a hat", "that", "the fat cat sat on a flat hat and a mat"]
TINY: dict[str, Any] = {"context": 64, "width": 32, "layers": 2, "heads": 4}
NETWORKS: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "llama": {"family": "llama", "kv_heads": 2},
    "qwen2": {"family": "llama", "kv_heads": 1, "qkv_bias": True},
    "qwen3": {"family": "qwen3", "kv_heads": 2, "head_size": 12},
}
NETWORK = pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS.keys())


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.train("bpe", TEXTS * 9, vocabulary=290, special=["<|endoftext|>"])


def network(vocabulary: int, fields: dict[str, Any], head: HeadConfig = REWARD) -> Classifier:
    """Every parameter random, norms and biases too, so that nothing that is left out goes unseen."""
    model = Classifier(build(ModelConfig(vocabulary=vocabulary, **(TINY | fields))), head, seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 1.0 if name == "score.weight" else 0.3, generator=generator)
    return model.eval()


def document(**changes: Any) -> dict[str, Any]:
    model = network(99, NETWORKS["llama"])
    return classifier.config(model.config, model.head_config, pad=98) | changes


@NETWORK
def test_there_and_back(fields: dict[str, Any]) -> None:
    model = network(99, fields)
    written = json.loads(json.dumps(classifier.config(model.config, REWARD, pad=98)))
    assert written["problem_type"] == "regression" and written["id2label"] == {"0": "reward"}
    assert written["groundup"]["score_mean"] == -1.25 and written["groundup"]["score_spread"] == 0.7
    head = classifier.head_of(written)
    assert head == REWARD
    back = classifier.read(classifier.trunk_of(written), REWARD, Held(classifier.tensors(model)))
    state, other = model.state_dict(), back.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_a_folder_keeps_mean_and_spread(tokenizer: Any, tmp_path: Path) -> None:
    model = network(tokenizer.vocabulary, NETWORKS["llama"])
    folder.save_model(tmp_path / "m", model, tokenizer, card={})
    loaded = folder.load(tmp_path / "m", classifier=True).model
    assert isinstance(loaded, Classifier) and loaded.head_config == REWARD
    assert torch.equal(loaded.score.weight, model.score.weight)
    told = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "mean -1.25 and spread 0.7" in told and "raw scores" in told


@NETWORK
def test_transformers_gives_the_same_raw_scores(fields: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    """Several texts at once, filled up on the right by their own tokenizer; mean and spread are not taken off there."""
    transformers = pytest.importorskip("transformers")
    model = network(tokenizer.vocabulary, fields)
    folder.save_model(tmp_path / "m", model, tokenizer, card={})
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "m", output_loading_info=True
    )
    assert not any(report.values()), report
    assert theirs.config.num_labels == 1 and theirs.config.problem_type == "regression"
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    batch = cutter(TEXTS, padding=True, return_tensors="pt")
    assert batch["input_ids"][1, -1] == cutter.pad_token_id, "the second text is short: filler on the right"
    rows = [tokenizer.start + tokenizer.encode(text) for text in TEXTS]
    with torch.inference_mode():
        wanted = model(pad(rows, 0)[0], lengths=torch.tensor([len(row) for row in rows]))
        found = theirs.eval()(**batch).logits
    assert found.shape == (4, 1) and wanted.abs().max() > 0.5
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max().clamp(min=1)))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "qwen3"])
def test_we_open_theirs(kind: str, tmp_path: Path) -> None:
    """A folder as TRL leaves it: one label without a name, nothing of ours; mean 0 and spread 1."""
    transformers = pytest.importorskip("transformers")
    shared = {"vocab_size": 61, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 60}
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64} if kind == "gpt2" else {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
        "intermediate_size": 48, "num_key_value_heads": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **shared, **sizes, num_labels=1)
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    theirs.score.weight.data.normal_()
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    head = classifier.head_of(written)
    assert head == HeadConfig(("reward",), kind="reward") and head.spread == 1.0
    ours = folder.read_model(tmp_path).eval()
    lengths = torch.tensor([9, 1, 5])
    ids = torch.randint(60, (3, 9), generator=torch.Generator().manual_seed(2))
    ids[torch.arange(9) >= lengths[:, None]] = 60
    with torch.inference_mode():
        wanted = theirs(ids, attention_mask=(ids != 60).long()).logits
        torch.testing.assert_close(ours(ids, lengths=lengths), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({"problem_type": None}, REWARD),
        ({"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}, REWARD),
        ({"id2label": None, "num_labels": 1}, REWARD),
        ({"groundup": {}}, HeadConfig(("reward",), kind="reward")),
        ({"groundup": None}, HeadConfig(("reward",), kind="reward")),
        ({"groundup": {"score_mean": 3}}, HeadConfig(("reward",), kind="reward", mean=3)),
    ],
)
def test_what_is_understood(changes: dict[str, Any], head: HeadConfig) -> None:
    assert classifier.head_of(document(**changes)) == head


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem_type": "single_label_classification", "id2label": {"0": "score"}}, "['score']"),
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'"),
        ({"id2label": {"0": "a", "1": "b"}}, "problem_type is 'regression'"),
        ({"num_labels": 2}, "num_labels is 2"),
        ({"groundup": {"score_spread": 0}}, "spread 0"),
        ({"groundup": {"score_spread": "1"}}, "spread '1'"),
        ({"groundup": {"score_mean": float("nan")}}, "mean nan"),
        ({"groundup": {"score_mean": [1]}}, "mean [1]"),
        ({"groundup": {"score_mean": 10**400}}, "mean 1000"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        classifier.head_of(document(**changes))
    assert said in caught.value.what and caught.value.fix and caught.value.what.isprintable()


def test_weights_of_another_head_are_refused() -> None:
    model = network(99, NETWORKS["llama"], HeadConfig(("a", "b")))
    with pytest.raises(CheckpointError, match=r"score.weight has shape \(2, 32\), 1 classes"):
        classifier.read(model.config, REWARD, Held(classifier.tensors(model)))
