"""Classifiers that transformers opens with our logits, and theirs opened by us, on texts of unequal length.

Every parameter is random, norms and biases too.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from groundup import tokens
from groundup.batches import pad
from groundup.checkpoint import classifier, huggingface
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig

transformers = pytest.importorskip("transformers")

TEXTS = ["the cat sat on the mat", "a hat", "that", "the fat cat sat on a flat hat and a mat"]
LABELS = ("ham", "spam", "eggs")
TINY = {"context": 64, "width": 32, "layers": 3, "heads": 4}
NETWORKS = {
    "gpt2": {"family": "gpt2"},
    "gpt2 without qkv_bias, untied": {"family": "gpt2", "qkv_bias": False, "tie": False},
    "llama with shared keys": {"family": "llama", "kv_heads": 2},
    "qwen2": {"family": "llama", "kv_heads": 1, "qkv_bias": True, "tie": False},
    "qwen3": {"family": "qwen3", "kv_heads": 2, "head_size": 12},
}
NETWORK = pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS.keys())
LLAMA = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA |= {"max_position_embeddings": 64, "intermediate_size": 48, "num_key_value_heads": 2}
LLAMA |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 60}
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
GPT2 |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 60}
THEIRS = {"gpt2": GPT2, "llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA | {"head_dim": 12}}
THEIRS |= {"mistral": LLAMA | {"sliding_window": None}}


@pytest.fixture(scope="module")
def tokenizer():
    return classifier.padded(tokens.train("bpe", TEXTS * 9, vocabulary=290, special=["<|endoftext|>"]))


def randomised(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 1.0 if name == "score.weight" else 0.3, generator=generator)
    return model.eval()


def ours(tokenizer, fields, head=None) -> Classifier:
    config = ModelConfig(vocabulary=tokenizer.vocabulary, **(TINY | fields))
    return randomised(Classifier(build(config), head or HeadConfig(LABELS), seed=1))


def write(place: Path, model: Classifier, tokenizer) -> None:
    ids = {"bos": tokenizer.bos, "eos": tokenizer.end_of_text, "pad": tokenizer.pad}
    document = classifier.config(model.config, model.head_config, **ids)
    (place / "config.json").write_text(json.dumps(document), encoding="utf-8")
    save_file(classifier.tensors(model), place / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(place)


def read(place: Path) -> Classifier:
    document = json.loads((place / "config.json").read_text(encoding="utf-8"))
    head = classifier.head_of(document)
    assert head is not None
    return classifier.read(classifier.trunk_of(document), head, huggingface.weights(place)).eval()


def opened(place: Path):
    """The folder as transformers opens it, and nothing missing, left over or of another shape."""
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(place, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(model: Classifier, tokenizer, texts=TEXTS) -> torch.Tensor:
    rows = [tokenizer.start + tokenizer.encode(text) for text in texts]
    with torch.inference_mode():
        return model(pad(rows, 0)[0], lengths=torch.tensor([len(row) for row in rows]))


def assert_equal(seen: torch.Tensor, expected: torch.Tensor) -> None:
    largest = expected.abs().max()
    assert largest > 0.5, "the logits are too small to tell anything"
    assert (seen - expected).abs().max() <= 1e-4 * largest


@NETWORK
def test_transformers_opens_ours(fields, tokenizer, tmp_path):
    """With their own tokenizer's ids, filler and mask, several texts at once; and so does our own reader."""
    model = ours(tokenizer, fields)
    write(tmp_path, model, tokenizer)
    theirs, cutter = opened(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = cutter(TEXTS, padding=True, return_tensors="pt")
    assert batch["input_ids"][1, -1] == cutter.pad_token_id, "the second text is short: filler on the right"
    wanted = logits(model, tokenizer)
    with torch.inference_mode():
        assert_equal(theirs(**batch).logits, wanted)
        assert_equal(theirs(batch["input_ids"]).logits, wanted)  # without a mask: nothing looks at filler
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert theirs.config.problem_type == "single_label_classification"
    assert_equal(logits(read(tmp_path), tokenizer), wanted)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "qwen3", "mistral"])
def test_we_open_theirs(kind, tmp_path):
    config = transformers.AutoConfig.for_model(kind, **THEIRS[kind], id2label=dict(enumerate(LABELS)))
    model = randomised(transformers.AutoModelForSequenceClassification.from_config(config))
    model.save_pretrained(tmp_path)
    found = read(tmp_path)
    assert found.head_config.labels == LABELS and not found.head_config.bias
    lengths = torch.tensor([9, 1, 5])
    ids = torch.randint(60, (3, 9), generator=torch.Generator().manual_seed(2))
    ids[torch.arange(9) >= lengths[:, None]] = 60
    with torch.inference_mode():
        assert_equal(found(ids, lengths=lengths), model(ids, attention_mask=(ids != 60).long()).logits)


def test_two_classes_without_names(tmp_path):
    """transformers writes no id2label where there are two default ones."""
    config = transformers.AutoConfig.for_model("llama", **LLAMA)
    randomised(transformers.AutoModelForSequenceClassification.from_config(config)).save_pretrained(tmp_path)
    assert read(tmp_path).head_config.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("fields", [NETWORKS["gpt2"], NETWORKS["qwen3"]], ids=["gpt2", "qwen3"])
def test_a_text_of_one_token_and_one_of_filler_alone(fields, tokenizer, tmp_path):
    """A text without a token leaves the begin token alone; where that is the filler too, both read the first place."""
    model = ours(tokenizer, fields)
    write(tmp_path, model, tokenizer)
    rows, lengths = torch.tensor([[tokenizer.pad] * 3, [5, tokenizer.pad, tokenizer.pad]]), torch.tensor([1, 1])
    with torch.inference_mode():
        assert_equal(opened(tmp_path)(rows).logits, model(rows, lengths=lengths))


def test_a_row_that_ends_with_filler_is_read_too_early_there(tokenizer, tmp_path):
    """What `padded` and `encode` keep from happening: a real last token that is the filler."""
    model = ours(tokenizer, NETWORKS["llama with shared keys"])
    write(tmp_path, model, tokenizer)
    row = torch.tensor([[5, 9, tokenizer.pad]])
    with torch.inference_mode():
        theirs = opened(tmp_path)(row).logits
        assert_equal(theirs, model(row, lengths=torch.tensor([2])))
        assert (theirs - model(row, lengths=torch.tensor([3]))).abs().max() > 0.1
    ids = tokenizer.encode("a mat<|endoftext|>")
    assert tokenizer.pad not in ids  # written in a text it is text


@NETWORK
def test_filler_on_the_left_needs_their_positions(fields, tokenizer, tmp_path):
    model = ours(tokenizer, fields)
    write(tmp_path, model, tokenizer)
    theirs = opened(tmp_path)
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path, padding_side="left")
    batch = cutter(TEXTS, padding=True, return_tensors="pt")
    assert batch["input_ids"][1, 0] == cutter.pad_token_id
    places = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    wanted = logits(model, tokenizer)
    with torch.inference_mode():
        assert_equal(theirs(**batch, position_ids=places).logits, wanted)
        unplaced = (theirs(**batch).logits - wanted).abs().max() / wanted.abs().max()
    assert unplaced > 0.01 if fields["family"] == "gpt2" else unplaced < 1e-4


def test_the_bias_is_what_transformers_leaves_out(tokenizer, tmp_path):
    model = ours(tokenizer, NETWORKS["gpt2"], HeadConfig(LABELS, bias=True))
    write(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    rows = torch.tensor([[5, 9, 7]])
    with torch.inference_mode():
        assert_equal(theirs(rows).logits + model.score.bias, model(rows))
        assert_equal(read(tmp_path)(rows), model(rows))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_other_poolings_come_back_here_alone(pooling, tokenizer, tmp_path):
    model = ours(tokenizer, NETWORKS["qwen3"], HeadConfig(LABELS, pooling))
    write(tmp_path, model, tokenizer)
    assert_equal(logits(read(tmp_path), tokenizer), logits(model, tokenizer))
    last = Classifier(model.trunk, HeadConfig(LABELS), seed=0)
    last.score.load_state_dict(model.score.state_dict())
    rows = torch.tensor([[5, 9, 7]])
    with torch.inference_mode():
        assert_equal(opened(tmp_path)(rows).logits, last(rows))  # theirs reads the last token whatever is said
