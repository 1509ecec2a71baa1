"""Tokenizer files that are missing, damaged, hostile or of another make; and where GPT-2's files are looked for."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from groundup import tokens
from groundup.errors import TokenizerError
from groundup.tokens import formats

ADDS_END = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [258], "tokens": ["<|endoftext|>"]}},
}


def saved(kind: str, folder: Path) -> dict[str, Any]:
    tokens.train(kind, ["ab, ab. ab"], vocabulary=260 if kind == "bpe" else None).save(folder)
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def reopen(document: object, folder: Path) -> tokens.Tokenizer:
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return tokens.load(folder)


def put(*keys: str | int, value: object) -> Callable[[Any], None]:
    """A change of a document: set the value at a path of keys."""

    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tokenizer at .*tokenizer.json"),
        (b"", "is not a JSON file"),
        (b"{", "is not a JSON file"),
        (b"\xff\xfe", "is not a JSON file"),
        (b"[" * 100_000, "is not a JSON file"),
        (b'{"model": ' + b"9" * 5000 + b"}", "is not a JSON file"),
        (b"[]", "holds a JSON list, not an object"),
        (b"{}", "is not a tokenizer.json: KeyError: 'model'"),
        (b'{"model": 3}', "is not a tokenizer.json: AttributeError"),
        (b'{"model": {"vocab": []}}', "the model type None is not supported"),
        (b'{"model": {"vocab": [1], "merges": []}}', "is not a tokenizer.json: TypeError"),
        (b'{"model": {"type": "Unigram", "vocab": {}}}', "the model type 'Unigram' is not supported"),
    ],
)
def test_files_that_are_no_tokenizer(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        tokens.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bpe", put("normalizer", value={"type": "NFC"}), "a normalizer"),
        ("bpe", put("model", "dropout", value=0.1), "dropout = 0.1"),
        ("bpe", put("model", "byte_fallback", value=True), "byte_fallback = True"),
        ("bpe", put("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix = '</w>'"),
        ("bpe", put("pre_tokenizer", "add_prefix_space", value=True), "its pre_tokenizer"),
        ("bpe", put("pre_tokenizer", "use_regex", value=False), "its pre_tokenizer"),
        ("bpe", put("pre_tokenizer", value=None), "its pre_tokenizer"),
        ("bpe", put("decoder", value=None), "its decoder"),
        ("bpe", put("post_processor", value={"type": "TemplateProcessing"}), "is not a tokenizer.json: KeyError"),
        ("bpe", put("post_processor", value={"type": "BertProcessing"}), "its post_processor 'BertProcessing'"),
        ("bpe", put("post_processor", value=ADDS_END), "its post_processor"),
        ("bpe", put("added_tokens", 0, "lstrip", value=3), r"the added token '<\|endoftext\|>'"),
        ("bpe", put("added_tokens", 0, "content", value=""), "the added token ''"),
        ("bpe", put("model", "vocab", "!", value=1), r"its numbering \(id 1 of"),
        ("bpe", put("model", "vocab", "!", value=-1), "the id -1 of '!'"),
        ("bpe", put("model", "vocab", "!", value=0.0), "not a whole number"),
        ("bpe", put("model", "vocab", "!", value="0"), "is not a tokenizer.json: TypeError"),
        ("bpe", put("model", "vocab", "\ud800", value=259), "is not a tokenizer.json"),
        ("bpe", put("model", "vocab", " ", value=259), "' ' stands for no byte"),
        ("bpe", put("model", "merges", 0, value=["a", "z"]), r"needs the token b'az'"),
        ("bpe", put("model", "merges", 0, value=["a"]), "is not a tokenizer.json"),
        ("bpe", put("model", "merges", 0, value="a b c"), "is not a tokenizer.json"),
        ("bpe", put("model", "merges", value=7), "is not a tokenizer.json"),
        ("chars", put("pre_tokenizer", "behavior", value="Removed"), "its pre_tokenizer"),
        ("chars", put("decoder", value={"type": "WordPiece"}), "its decoder"),
        ("chars", put("post_processor", value={"type": "RobertaProcessing"}), "its post_processor"),
        ("chars", put("pre_tokenizer", value=None), "is not a tokenizer.json"),
        ("chars", put("model", "vocab", "ab", value=6), "the token 'ab'"),
        ("words", put("model", "vocab", "", value=5), "the token ''"),
        ("words", put("pre_tokenizer", "pretokenizers", 1, "pattern", "Regex", value="[a-z]+|--"), "its pre_tokenizer"),
        ("words", put("decoder", "decoders", 1, value={"type": "ByteLevel"}), "its decoder"),
    ],
)
def test_parts_that_would_change_ids_are_refused_by_name(
    kind: str, change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    document = saved(kind, tmp_path)
    reopen(copy.deepcopy(document), tmp_path)
    change(document)
    with pytest.raises(TokenizerError, match=message):
        reopen(document, tmp_path)


def test_a_missing_byte_is_named(tmp_path: Path) -> None:
    document = saved("bpe", tmp_path)
    vocab = document["model"]["vocab"]
    vocab["xyz"] = vocab.pop("ÿ")  # id of the last printing byte, 0xFF
    with pytest.raises(TokenizerError, match="no token for byte 0xFF"):
        reopen(document, tmp_path)


def test_older_files_open_too(tmp_path: Path) -> None:
    """Merges as strings, switches left out, the special token normalized: GPT-2's first tokenizer.json."""
    document = saved("bpe", tmp_path)
    fingerprint = tokens.load(tmp_path).fingerprint
    model = document["model"]
    document["model"] = {"vocab": model["vocab"], "merges": [" ".join(pair) for pair in model["merges"]]}
    document["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    document["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    document["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    document["added_tokens"][0]["normalized"] = True
    del document["normalizer"]
    assert reopen(document, tmp_path).fingerprint == fingerprint


def test_special_tokens_with_the_first_ids_open_too(tmp_path: Path) -> None:
    """The order in which the tokenizers trainer puts them: special tokens, bytes, merges."""
    document = saved("bpe", tmp_path)
    vocab = document["model"]["vocab"]
    last = vocab["<|endoftext|>"]
    document["model"]["vocab"] = {token: 0 if id == last else id + 1 for token, id in vocab.items()}
    document["added_tokens"][0]["id"] = 0
    usual, moved = tokens.train("bpe", ["ab, ab. ab"], vocabulary=260), reopen(document, tmp_path)
    assert moved.end_of_text == 0
    assert moved.encode("ab, é") == [id + 1 for id in usual.encode("ab, é")]
    assert moved.decode(moved.encode("ab, é<|endoftext|>", special=True)) == "ab, é<|endoftext|>"
    assert moved.with_special(["<|pad|>"]).pad == usual.vocabulary


# GPT-2's files


@pytest.fixture
def no_gpt2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nothing is to be found; returns an empty folder."""
    for name in ("GROUNDUP_DATA", "TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    return tmp_path


def test_gpt2_that_is_nowhere_says_what_to_do(no_gpt2: Path) -> None:
    with pytest.raises(TokenizerError, match="not on this machine") as error:
        tokens.gpt2()
    assert "TIKTOKEN_CACHE_DIR" in str(error.value) and "gpt2-bpe" in str(error.value)
    with pytest.raises(TokenizerError, match="cannot read GPT-2's encoder.json"):
        tokens.gpt2(no_gpt2)


def test_gpt2_is_found_in_the_data_folder(no_gpt2: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    assert tokens.gpt2().vocabulary == 50_257


@pytest.mark.parametrize("place", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "the temporary folder"])
def test_gpt2_is_found_where_tiktoken_keeps_it(
    place: str, no_gpt2: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tiktoken itself opens the cache made here without a network, so the file names are the ones it uses."""
    cache = no_gpt2 / ("cache" if place.isupper() or "_" in place else "temporary/data-gym-cache")
    if place.endswith("DIR"):
        monkeypatch.setenv(place, str(cache))
    cache.mkdir(parents=True)
    assert formats.find_gpt2() is None
    shutil.copy(data_dir / "gpt2-bpe" / "vocab.bpe", cache / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee")
    shutil.copy(data_dir / "gpt2-bpe" / "encoder.json", cache / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")
    ours = tokens.gpt2()
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    assert ours.encode("Akwirw ier") == tiktoken.get_encoding("gpt2").encode("Akwirw ier")


def test_altered_gpt2_files_are_refused(data_dir: Path, tmp_path: Path) -> None:
    shutil.copy(data_dir / "gpt2-bpe" / "encoder.json", tmp_path)
    content = (data_dir / "gpt2-bpe" / "vocab.bpe").read_bytes()
    (tmp_path / "vocab.bpe").write_bytes(content[:-1])
    with pytest.raises(TokenizerError, match="is not GPT-2's vocab.bpe: its sha256 differs"):
        tokens.gpt2(tmp_path)
