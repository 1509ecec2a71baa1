"""A classifier's folder: what is written, what is read back, and what is refused in words."""

import dataclasses

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import classifier
from groundup.checkpoint.source import Held
from groundup.errors import CheckpointError
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig

TWO = HeadConfig(("ham", "spam"))
TINY = {"vocabulary": 30, "context": 12, "width": 16, "layers": 2, "heads": 4}
NETWORKS = {
    "gpt2": ({"family": "gpt2"}, "GPT2ForSequenceClassification"),
    "gpt2 without qkv_bias": ({"family": "gpt2", "qkv_bias": False}, "GPT2ForSequenceClassification"),
    "llama": ({"family": "llama", "kv_heads": 2}, "LlamaForSequenceClassification"),
    "qwen2": ({"family": "llama", "qkv_bias": True}, "Qwen2ForSequenceClassification"),
    "qwen3": ({"family": "qwen3", "head_size": 6}, "Qwen3ForSequenceClassification"),
}
NETWORK = pytest.mark.parametrize(("fields", "architecture"), NETWORKS.values(), ids=NETWORKS.keys())
LLAMA = NETWORKS["llama"][0]


def network(fields, head=TWO, **changes) -> Classifier:
    return Classifier(build(ModelConfig(**(TINY | fields | changes)), seed=3), head, seed=4)


def document(**changes):
    model = network(LLAMA)
    return classifier.config(model.config, model.head_config, pad=29) | changes


def again(model: Classifier, **changes) -> Classifier:
    """Written and read, through config.json and tensors alone."""
    written = classifier.config(model.config, model.head_config) | changes
    return classifier.read(classifier.trunk_of(written), classifier.head_of(written), Held(classifier.tensors(model)))


@NETWORK
def test_what_the_config_says(fields, architecture):
    model = network(fields)
    written = classifier.config(model.config, model.head_config, bos=None, eos=28, pad=29, dtype="float32")
    assert written["architectures"] == [architecture]
    assert written["id2label"] == {"0": "ham", "1": "spam"} and written["label2id"] == {"ham": 0, "spam": 1}
    assert (written["pad_token_id"], written["eos_token_id"]) == (29, 28)
    assert written["problem_type"] == "single_label_classification"
    assert classifier.trunk_of(written) == model.config
    assert classifier.trunk_of(written | {"tie_word_embeddings": False}) == model.config  # there is no head to tie
    assert classifier.head_of(written) == TWO


@pytest.mark.parametrize("head", [TWO, HeadConfig(("a", "b", "c"), "mean", True), HeadConfig(("x", "y"), "first")])
@NETWORK
def test_there_and_back(fields, architecture, head):
    model = network(fields, head, tie=False)  # its head for the next token is not written
    back = again(model)
    assert back.head_config == head and back.config == model.config
    state, other = model.state_dict(), back.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_the_names_in_the_file():
    found = classifier.tensors(network(LLAMA, HeadConfig(("a", "b", "c"), bias=True), tie=False))
    assert found["score.weight"].shape == (3, 16) and found["score.bias"].shape == (3,)
    assert "lm_head.weight" not in found and "model.layers.1.self_attn.k_proj.weight" in found


def test_number_formats():
    """The trunk as asked for or as stored, the head in fp32: it is small, and judges."""
    model = network(LLAMA)
    written = classifier.config(model.config, TWO)
    parts = (classifier.trunk_of(written), TWO, Held(classifier.tensors(model)))
    narrow = classifier.read(*parts, dtype=torch.bfloat16)
    assert narrow.trunk.norm.weight.dtype == torch.bfloat16
    assert torch.equal(narrow.score.weight, model.score.weight)
    assert narrow.training and classifier.read(*parts).trunk.norm.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "seen",
    [
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["LlamaForTokenClassification"]},
        {"architectures": None},
        {"architectures": "LlamaForSequenceClassification"},
        {"architectures": [7]},
    ],
)
def test_what_is_no_classifier_is_left_to_others(seen):
    assert classifier.head_of(document(**seen)) is None


def test_a_config_of_transformers_without_our_part():
    theirs = document()
    del theirs["groundup"], theirs["problem_type"], theirs["label2id"]
    assert classifier.head_of(theirs) == TWO
    del theirs["id2label"]
    assert classifier.head_of(theirs).labels == ("LABEL_0", "LABEL_1")
    assert classifier.head_of(theirs | {"num_labels": 3}).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    # default names kept in label2id contradict nothing
    assert classifier.head_of(document(label2id={"LABEL_0": 0, "LABEL_1": 1})) == TWO


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'"),
        ({"id2label": {"0": "score"}}, "['score']"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label is"),
        ({"id2label": {"0": "a", "1": "a"}}, "'a' stands twice"),
        ({"id2label": {"0": "a", "1": 7}}, "7 stands as a name"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "stands as a name"),
        ({"id2label": {"0": "a", "1": "\x1b[2J"}}, "stands as a name"),
        ({"id2label": ["a", "b"]}, "id2label is"),
        ({"id2label": {}}, "[]"),
        ({"id2label": None, "num_labels": 10**12}, "num_labels is 1000000000000"),
        ({"id2label": None, "num_labels": True}, "num_labels is True"),
        ({"id2label": None, "num_labels": -1}, "num_labels is -1"),
        ({"num_labels": 3}, "num_labels is 3"),
        ({"label2id": {"ham": 1, "spam": 0}}, "label2id is"),
        ({"groundup": 7}, "groundup is 7"),
        ({"groundup": {"pooling": "max"}}, "groundup.pooling is 'max'"),
        ({"groundup": {"pooling": ["last"]}}, "groundup.pooling is ['last']"),
        ({"groundup": {"head_bias": "yes"}}, "groundup.head_bias is 'yes'"),
    ],
)
def test_heads_that_are_refused(changes, said):
    with pytest.raises(CheckpointError) as caught:
        classifier.head_of(document(**changes))
    assert said in caught.value.what and caught.value.fix
    assert caught.value.what.isprintable()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures is ['Qwen2ForSequenceClassification']"),
        ({"architectures": ["LlamaForSequenceClassification", "X"]}, "architectures is"),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, "unsupported model_type 'bert'"),
        ({"model_type": ["llama"]}, "unsupported model_type"),
        ({"auto_map": {"AutoModelForSequenceClassification": "evil.Model"}}, "auto_map is"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "groundup_bigram"}, "a bigram table"),
    ],
)
def test_trunks_that_are_refused(changes, said):
    with pytest.raises(CheckpointError) as caught:
        classifier.trunk_of(document(**changes))
    assert said in caught.value.what and caught.value.fix


def test_a_file_that_is_not_the_one_of_the_config():
    model = network(LLAMA)
    whole = classifier.tensors(model)
    for tensors, head, said in (
        ({name: value for name, value in whole.items() if name != "score.weight"}, TWO, "no score.weight"),
        (whole, HeadConfig(("a", "b", "c")), "score.weight has shape (2, 16), 3 classes and width 16 make it (3, 16)"),
        (whole, dataclasses.replace(TWO, bias=True), "no score.bias"),
        (whole | {"score.bias": torch.zeros(2)}, TWO, "has score.bias, and config.json says nothing"),
        (whole | {"score.scale": torch.zeros(2)}, TWO, "unexpected score.scale"),
        ({name: value for name, value in whole.items() if name != "model.norm.weight"}, TWO, "lacks model.norm.weight"),
    ):
        with pytest.raises(CheckpointError) as caught:
            classifier.read(model.config, head, Held(tensors))
        assert said in caught.value.what and caught.value.fix


def test_a_left_over_language_head_is_passed_over():
    model = network(LLAMA)
    extra = classifier.tensors(model) | {"lm_head.weight": torch.ones(30, 16)}
    found = classifier.read(dataclasses.replace(model.config, tie=False), TWO, Held(extra))
    assert found.trunk.head is None and torch.equal(found.score.weight, model.score.weight)


def test_a_network_with_adapters_is_not_written():
    model = network(LLAMA)
    model.score = torch.nn.Sequential(model.score, torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="merge its adapter"):
        classifier.tensors(model)


def test_the_token_that_fills():
    """Its own where it has one; the end of text where it has none; never one that a text can end with."""
    plain = tokens.train("chars", ["cat hat"])
    assert classifier.padded(plain).pad == plain.end_of_text
    assert classifier.padded(plain).encode("that") == plain.encode("that")
    own = tokens.train("chars", ["cat hat"], special=["<|endoftext|>", "<|pad|>"])
    assert classifier.padded(own) is own and own.pad == own.special["<|pad|>"] != own.end_of_text
    none = tokens.train("chars", ["cat hat"], special=[])
    assert classifier.padded(none) is none and none.pad is None


def test_unknown_words_are_no_filler():
    """A text can end with a word that is not known: read as filler, that word would be passed over."""
    words = tokens.train("words", ["cat hat"], special=["<|unk|>", "<|endoftext|>"])
    risky = words.with_manner(dataclasses.replace(words.manner, names={"pad": "<|unk|>"}))
    assert risky.pad == risky.unknown == risky.encode("cat dog")[-1]
    assert classifier.padded(risky).pad == words.end_of_text


def test_the_fillers_name_is_saved(tmp_path):
    plain = tokens.train("chars", ["cat hat"])
    classifier.padded(plain).save(tmp_path)
    assert tokens.load(tmp_path).pad == plain.end_of_text


def test_the_folder_says_what_transformers_does_not_do():
    assert classifier.warning(TWO) == ""
    assert "has a bias" in classifier.warning(HeadConfig(("a", "b"), bias=True))
    told = classifier.warning(HeadConfig(("a", "b"), "mean", True))
    assert "has a bias" in told and "the mean over all tokens" in told
    assert "the first token" in classifier.warning(HeadConfig(("a", "b"), "first"))
    assert "judged by the last token of the filler" in classifier.warning(TWO, filled=True)
    assert classifier.warning(TWO, alone=True) == (
        "It has no token to fill short texts with: transformers takes one text at a time."
    )
