"""Tokenizer files made to break, to run code, to hang or to fill the memory: refused with words, and at little cost."""

import base64
import copy
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup import tokens
from groundup.errors import TokenizerError
from groundup.tokens import adopted, making, sentencepiece
from groundup.tokens.cuts import CUTS
from groundup.tokens.ranks import read_tiktoken

BOMB = "(a+)+(a+)+(a+)+$"


def byte_level(cut: str = "llama3") -> dict[str, Any]:
    """A small tokenizer.json with this cut that opens."""
    document = tokens.train("bpe", ["ab, ab. ab"], vocabulary=260)._form({"<s>": 259})
    document["pre_tokenizer"], document["normalizer"] = CUTS[cut].pre_tokenizer, CUTS[cut].normalizer
    document["model"]["ignore_merges"] = CUTS[cut].ignore_merges
    del document["model"]["vocab"]["<s>"]  # as the library writes it: added tokens stand apart
    return copy.deepcopy(document)


def spaced() -> dict[str, Any]:
    """A small tokenizer.json of SentencePiece's kind that opens."""
    document, _ = making.sentencepiece_json(*parts(), prefix_space=True, adds_bos=False, unk=0)
    return copy.deepcopy(document)


def parts() -> tuple[list[str], list[float], list[int]]:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab"]
    return pieces, [0.0] * 259 + [-2.0, -3.0, -4.0, -1.0], [2, 3, 3, *[6] * 256, 1, 1, 1, 1]


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    """A change of a document: set the value at a path of keys."""

    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def nested(depth: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "ByteLevel"}
    for _ in range(depth):
        part = {"type": "Sequence", "pretokenizers": [part]}
    return part


DOCUMENTS: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "a bomb in Split": (
        "llama3",
        put("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value=BOMB),
        "its pre_tok",
    ),
    "a bomb alone": (
        "gpt2",
        put("pre_tokenizer", value={"type": "Split", "pattern": {"Regex": BOMB}}),
        r"Split of .*a\+",
    ),
    "a bomb in a normalizer": (
        "gpt2",
        put("normalizer", value={"type": "Replace", "pattern": {"Regex": BOMB}, "content": ""}),
        r"a normalizer \(Replace of",
    ),
    "a bomb in the decoder": (
        "gpt2",
        put("decoder", value={"type": "Replace", "pattern": {"Regex": BOMB}, "content": ""}),
        "its decoder",
    ),
    "a bomb in SentencePiece": (
        "sentencepiece",
        put("normalizer", "normalizers", 1, "pattern", value={"Regex": BOMB}),
        "a normalizer",
    ),
    "cuts in cuts": ("llama3", put("pre_tokenizer", value=nested(300)), "its pre_tokenizer"),
    "an unknown cut": ("llama3", put("pre_tokenizer", value={"type": "Whitespace"}), "its pre_tokenizer .Whitespace"),
    "another cut's normalizer": ("llama3", put("normalizer", value={"type": "NFC"}), "a normalizer .NFC"),
    "no normalizer for Qwen": ("qwen2", put("normalizer", value=None), "its pre_tokenizer"),
    "lower case": ("smollm", put("normalizer", value={"type": "Lowercase"}), "a normalizer .Lowercase"),
    "a number for a normalizer": ("smollm", put("normalizer", value=7), "a normalizer"),
    "Unigram": (
        "llama3",
        put("model", value={"type": "Unigram", "vocab": [["a", 0.0]]}),
        "the model type 'Unigram'",
    ),
    "WordPiece": ("llama3", put("model", value={"type": "WordPiece", "vocab": {"a": 0}}), "the model type 'WordPiece'"),
    "dropout": ("llama3", put("model", "dropout", value=0.5), "dropout = 0.5"),
    "an unknown switch": ("llama3", put("model", "hook", value="x"), "'hook' in its model"),
    "bytes twice": ("smollm", put("model", "byte_fallback", value=True), "byte_fallback"),
    "no bytes": (
        "sentencepiece",
        lambda document: document["model"].update(byte_fallback=False, unk_token=None),
        "it would drop characters",
    ),
    "a negative id": ("llama3", put("model", "vocab", "!", value=-1), "the id -1 of '!'"),
    "a huge id": ("llama3", put("model", "vocab", "!", value=2**62), "the id 4611686018427387904"),
    "an id beyond the most": ("llama3", put("model", "vocab", "!", value=1 << 20), "the id 1048576"),
    "a broken id": ("llama3", put("model", "vocab", "!", value=0.5), "the id 0.5"),
    "a true id": ("llama3", put("model", "vocab", "!", value=True), "the id True"),
    "an id twice": ("llama3", put("model", "vocab", "!", value=7), "is used twice"),
    "a huge added id": ("llama3", put("added_tokens", 0, "id", value=2**62), "the id 4611686018427387904"),
    "a negative added id": ("llama3", put("added_tokens", 0, "id", value=-5), "the id -5"),
    "an added token twice": ("llama3", put("added_tokens", value=[{"id": 300, "content": "<x>"}] * 2), "there twice"),
    "an added token that is a list": ("llama3", put("added_tokens", value=[[]]), "is not a tokenizer.json"),
    "added tokens that are a number": ("llama3", put("added_tokens", value=3), "is not a tokenizer.json"),
    "half a surrogate pair": ("llama3", put("added_tokens", 0, "content", value="\ud800"), "is not a tokenizer.json"),
    "a merge of absent tokens": ("llama3", put("model", "merges", 0, value=["a", "zz"]), "needs the token 'zz'"),
    "a merge into an absent token": ("llama3", put("model", "merges", 0, value=["b", "a"]), "needs the token 'ba'"),
    "a merge of nothing": ("llama3", put("model", "merges", 0, value=["", ""]), "is not a pair of tokens"),
    "a merge of three": ("llama3", put("model", "merges", 0, value="a b c"), "is not a tokenizer.json"),
    "a vocabulary of lists": ("llama3", put("model", "vocab", value=[]), "is not a tokenizer.json"),
    "an empty vocabulary": (
        "smollm",
        lambda d: d.update(added_tokens=[], model={"vocab": {}, "merges": []}),
        "0 tokens",
    ),
    "another decoder": ("sentencepiece", put("decoder", "decoders", 3, "start", value=2), "its decoder"),
    "an end behind the text": (
        "llama3",
        put(
            "post_processor",
            value={
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>"}}],
                "special_tokens": {"<s>": {"ids": [259]}},
            },
        ),
        "it puts '<s>' around a text",
    ),
    "a start with another id": (
        "llama3",
        put(
            "post_processor",
            value={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                "special_tokens": {"<s>": {"ids": [2**40]}},
            },
        ),
        "other ids for '<s>'",
    ),
    "BERT's ends": ("llama3", put("post_processor", value={"type": "BertProcessing"}), "'BertProcessing'"),
    "a post_processor without end": (
        "llama3",
        put("post_processor", value={"type": "Sequence"}),
        "is not a tokenizer.json",
    ),
}


def test_the_small_ones_open() -> None:
    """What the changes below are made to is sound: so it is the change that is refused."""
    for cut in CUTS:
        document = spaced() if cut == "sentencepiece" else byte_level(cut)
        assert adopted.from_document(document, source="a file").cut == cut


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str, frugal: Callable[..., Any]) -> None:
    cut, change, message = DOCUMENTS[name]
    document = spaced() if cut == "sentencepiece" else byte_level(cut)
    change(document)
    with frugal(), pytest.raises(TokenizerError, match=message):
        adopted.from_document(document, source="a file")


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "an end that is added": ({"add_eos_token": True}, "add_eos_token = true"),
    "a role without a token": ({"bos_token": "<absent>"}, "bos_token '<absent>', which is no token"),
    "a begin token without a name": ({"add_bos_token": True, "bos_token": None}, "add_bos_token = true without"),
    "tokens that the vocabulary lacks": ({"additional_special_tokens": ["<x>"]}, "'<x>', a token of its config"),
    "other tokens": (
        {"added_tokens_decoder": {"900": {"content": "<y>", "special": True}}},
        "'<y>', a token of its config",
    ),
    "a token under another id": (
        {"added_tokens_decoder": {"900": {"content": "<s>", "special": True}}},
        "'<s>' has the id 259, and 900 in its config(.|\n)*of one tokenizer",
    ),
    "a table without ids": ({"added_tokens_decoder": {"x": {"content": "<s>"}}}, "is not a tokenizer.json"),
    "an end that is text": ({"eos_token_id": "x"}, "eos_token_id is 'x'(.|\n)*it should be an id or a list of ids"),
    "ends that are texts": ({"eos_token_id": [259, "x"]}, r"eos_token_id is \[259, 'x'\]"),
    "an end that is true": ({"eos_token_id": True}, "eos_token_id is True"),
    "no in a word": ({"add_bos_token": "no"}, "add_bos_token is 'no'(.|\n)*it should be true or false"),
    "a number for no": ({"add_eos_token": 0}, "add_eos_token is 0"),
    "a role that is a number": ({"eos_token": 259}, "eos_token is 259(.|\n)*it should be the text of a token"),
    "a million ends": ({"eos_token_id": ["x"] * 10**6}, r"eos_token_id is \['x', 'x'.{60,80}\n"),
    "a template that is a dict": (
        {"chat_template": {"default": "x"}},
        "a chat_template that is a dict, not text(.|\n)*give Jinja text",
    ),
    "templates without a default": (
        {"chat_template": [{"name": "rag", "template": "x"}, {"name": "tools", "template": "y"}]},
        r"2 chat templates \(rag, tools\), none of them named default(.|\n)*chat_template.jinja",
    ),
    "templates without a name": ({"chat_template": [{"template": "x"}]}, "is not a tokenizer.json"),
    "tokens that are a number": ({"additional_special_tokens": 5}, "is not a tokenizer.json"),
    "a template that is a number": ({"chat_template": 5}, "a chat_template that is a int"),
    "a template without end": ({"chat_template": "x" * (1 << 21)}, "the chat template has 2,097,152 characters"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name: str, frugal: Callable[..., Any]) -> None:
    config, message = CONFIGS[name]
    document = byte_level()
    if "begin" in name:
        document["added_tokens"][0]["content"] = "<begin>"  # no name of ROLES
    with frugal(), pytest.raises(TokenizerError, match=message):
        adopted.from_document(document, config=config, source="a file")


def test_a_special_token_that_plain_text_would_become() -> None:
    """A whole word that is a token is not merged in Llama 3's way: a special token spelt as a word could be forged."""
    document = byte_level()
    document["model"]["vocab"]["stop"] = 259
    document["added_tokens"][0]["content"] = "stop"
    with pytest.raises(TokenizerError, match="'stop' comes out of plain text"):
        adopted.from_document(document, source="a file")


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a million merges of nothing": (
        lambda: b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [' + b'["",""],' * 10**6 + b'["",""]]}}',
        "lists, more than 600,000",
    ),
    "merges as a million strings": (
        lambda: b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [' + b'"a b",' * 10**6 + b'"a b"]}}',
        "its pre_tokenizer",
    ),
    "lists in lists": (lambda: b"[" * 500_000 + b"]" * 500_000, "is not a JSON file"),
    "objects in objects": (lambda: b'{"model":' * 100_000, "is not a JSON file"),
    "a number of a million digits": (lambda: b'{"model": ' + b"9" * 10**6 + b"}", "is not a JSON file"),
    "no UTF-8": (lambda: b'{"model": "\xff\xfe"}', "is not a JSON file"),
    "zeros": (lambda: bytes(4096), "is not a JSON file"),
    "a pickle": (lambda: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94", "is not a JSON file"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, frugal: Callable[..., Any], tmp_path: Path) -> None:
    content, message = FILES[name]
    (tmp_path / "tokenizer.json").write_bytes(content())
    with frugal(), pytest.raises(TokenizerError, match=message):
        tokens.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_file_of_ten_gigabytes_is_not_read(name: str, frugal: Callable[..., Any], tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(10 * 2**30)  # takes no room on disk
    with frugal(), pytest.raises(TokenizerError, match="has 10,737,418,240 bytes, more than"):
        tokens.load(tmp_path)


# tokenizer.model


def number(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def field(place: int, value: int | bytes | float) -> bytes:
    if isinstance(value, float):
        return number(place << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return number(place << 3) + number(value)
    return number(place << 3 | 2) + number(len(value)) + value


def model(pieces: bytes | None = None, trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    """A tokenizer.model as the format describes it; what is given last counts."""
    names, scores, kinds = parts()
    stored = b"".join(
        field(1, field(1, name.encode()) + field(2, score) + field(3, kind))
        for name, score, kind in zip(names, scores, kinds, strict=True)
    )
    rules = field(1, b"identity") + field(3, 1) + field(4, 0) + normalizer
    return (stored if pieces is None else pieces) + field(2, field(3, 2) + trainer) + field(3, rules)


def test_a_small_model_opens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model())
    tokenizer = tokens.load(tmp_path)
    assert tokenizer.encode("ab a") == [259, 262, 259, 260] and tokenizer.start == [1]


MODELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a length of a gigabyte": (lambda: number(1 << 3 | 2) + number(1 << 30) + b"abc", "claims 1,073,741,824 bytes"),
    "a length of 2**62": (lambda: number(1 << 3 | 2) + number(1 << 62), "claims 4,611,686,018,427,387,904 bytes"),
    "a number without end": (lambda: b"\x08" + b"\xff" * 100, "more than 64 bits"),
    "a number cut off": (lambda: b"\x08\xff", "ends inside a number"),
    "field 0": (lambda: b"\x00\x00", "field number 0"),
    "a group": (lambda: b"\x0b", "wire type 3"),
    "zeros": (lambda: bytes(1000), "field number 0"),
    "nothing": (lambda: b"", "the model type 'Unigram'"),
    "a piece that is a number": (lambda: field(1, 7) + model(), "the number 7 where a message should be"),
    "a name that is a number": (lambda: model(field(1, field(1, 5))), "the number 5 where text should be"),
    "a score that is text": (lambda: model(field(1, field(1, b"a") + field(2, b"abcd"))), "field 2 should be a number"),
    "no UTF-8": (lambda: model(field(1, field(1, b"\xff\xfe"))), "is not a SentencePiece model"),
    "an empty piece": (lambda: model(field(1, field(3, 1))), "a token of 0 characters"),
    "a piece twice": (lambda: model(field(1, field(1, b"a")) * 2), "'a' is there twice"),
    "a piece of a million letters": (
        lambda: model(field(1, field(1, b"a" * 10**6))),
        "a token of 1,000,000 characters",
    ),
    "a NaN score": (lambda: field(1, field(1, b"ba") + field(2, math.nan)) + model(), "'ba' has the score nan"),
    "an endless score": (lambda: field(1, field(1, b"ba") + field(2, math.inf)) + model(), "'ba' has the score inf"),
    "scores that tie": (lambda: field(1, field(1, b"ba") + field(2, -1.0)) + model(), "2 pieces have the score -1"),
    "an unused piece that is made": (
        lambda: field(1, field(1, b"ba") + field(2, -9.0) + field(3, 5)) + model(),
        "'ba' is unused, yet joining makes it",
    ),
    "Unigram": (lambda: model(trainer=field(3, 1)), "the model type 'Unigram'"),
    "words": (lambda: model(trainer=field(3, 3)), "the model type 'words'"),
    "another model": (lambda: model(trainer=field(3, 99)), "the model type 99"),
    "NFKC": (lambda: model(normalizer=field(1, b"nmt_nfkc") + field(2, b"table")), "the normalization 'nmt_nfkc'"),
    "white space removed": (lambda: model(normalizer=field(4, 1)), "remove_extra_whitespaces"),
    "spaces kept": (lambda: model(normalizer=field(5, 0)), "escape_whitespaces"),
    "spaces behind": (lambda: model(trainer=field(24, 1)), "treat_whitespace_as_suffix"),
    "a symbol of a user": (
        lambda: field(1, field(1, b"<mask>") + field(3, 4)) + model(),
        "the user-defined symbol '<mask>' beside a space before every text",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, frugal: Callable[..., Any], tmp_path: Path) -> None:
    content, message = MODELS[name]
    (tmp_path / "tokenizer.model").write_bytes(content())
    with frugal(), pytest.raises(TokenizerError, match=message):
        tokens.load(tmp_path)


def test_a_model_cut_off_anywhere(frugal: Callable[..., Any], tmp_path: Path) -> None:
    """Cut between fields it is a smaller message, without its trainer: then it claims to be Unigram."""
    whole, path = model(), tmp_path / "tokenizer.model"
    with frugal():
        for size in [*range(0, len(whole) - 40, 97), *range(len(whole) - 40, len(whole))]:
            path.write_bytes(whole[:size])
            with pytest.raises(TokenizerError, match="is not a SentencePiece model|is not supported"):
                tokens.load(path)


# llama2.c


def llama2c(entries: dict[int, bytes] | None = None, longest: int = 8) -> bytes:
    pieces, scores, _ = parts()
    pieces[1:3] = ["\n<s>\n", "\n</s>\n"]
    stored = [name.replace("▁", " ").encode() for name in pieces]
    rows = [struct.pack("<fi", score, len(row)) + row for score, row in zip(scores, stored, strict=True)]
    for id, row in (entries or {}).items():
        rows[id] = row
    return struct.pack("<i", longest) + b"".join(rows)


LLAMA2C: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it ends after 0 of 263 tokens"),
    "a gigabyte": (llama2c({5: struct.pack("<fi", 0, 1 << 30)}), "token 5 claims 1,073,741,824 bytes"),
    "a gigabyte as the longest": (llama2c({5: struct.pack("<fi", 0, 1 << 30)}, 2**31 - 1), "token 5 claims"),
    "a negative length": (llama2c({5: struct.pack("<fi", 0, -4)}), "token 5 claims -4 bytes"),
    "a negative longest": (llama2c(longest=-1), "token 0 claims 5 bytes"),
    "a NaN score": (llama2c({260: struct.pack("<fi", math.nan, 1) + b"a"}), "token 260 has the score nan"),
    "no UTF-8": (llama2c({260: struct.pack("<fi", 0, 1) + b"\xff"}), "token 260 is not UTF-8"),
    "too much": (llama2c() + b"x", "1 bytes follow 263 tokens"),
    "other first tokens": (llama2c({1: struct.pack("<fi", 0, 1) + b"x"}), "its first tokens are not"),
}


@pytest.mark.parametrize("name", LLAMA2C)
def test_llama2c(name: str, frugal: Callable[..., Any], tmp_path: Path) -> None:
    content, message = LLAMA2C[name]
    path = tmp_path / "tok.bin"
    path.write_bytes(content)
    with frugal(), pytest.raises(TokenizerError, match=message):
        sentencepiece.read_llama2c(path, 263)


def test_llama2c_cut_off_anywhere(frugal: Callable[..., Any], tmp_path: Path) -> None:
    path, whole = tmp_path / "tok.bin", llama2c()
    path.write_bytes(whole)
    assert sentencepiece.read_llama2c(path, 263)[0] == parts()[0]
    with frugal():
        for size in range(0, len(whole), 61):
            path.write_bytes(whole[:size])
            with pytest.raises(TokenizerError, match="is not a llama2.c tokenizer for this model"):
                sentencepiece.read_llama2c(path, 263)


# tiktoken


def line(token: bytes, id: object) -> bytes:
    return base64.b64encode(token) + f" {id}\n".encode()


ALPHABET = b"".join(line(bytes([byte]), byte) for byte in range(256))
TIKTOKEN: dict[str, tuple[bytes, str]] = {
    "no base64": (ALPHABET + b"!!! 256\n", "line 257 is no token and rank"),
    "no rank": (ALPHABET + b"YWI=\n", "line 257 is no token and rank"),
    "a huge rank": (ALPHABET + line(b"ab", 2**62), "id 256 belongs to no token"),
    "a negative rank": (ALPHABET + line(b"ab", -1), "id 256 belongs to no token"),
    "a rank of a million digits": (ALPHABET + b"YWI= " + b"9" * 10**6, "line 257 is no token and rank"),
    "a rank twice": (ALPHABET + line(b"ab", 5), "id 5 is used twice"),
    "a token that no merge makes": (ALPHABET + line(b"abc", 256), "made by no merge"),
    "a long token": (ALPHABET + line(b"a" * 5000, 256), "a token of 5,000 bytes"),
    "a missing byte": (ALPHABET[7:].replace(b" 255\n", b" 0\n"), "no token for byte 0x00"),
}


@pytest.mark.parametrize("name", TIKTOKEN)
def test_tiktoken(name: str, frugal: Callable[..., Any], tmp_path: Path) -> None:
    content, message = TIKTOKEN[name]
    path = tmp_path / "x.tiktoken"
    path.write_bytes(content)
    with frugal(), pytest.raises(TokenizerError, match=message):
        read_tiktoken(path, {})


def test_documents_that_json_can_hold_are_files_too(tmp_path: Path) -> None:
    """The same refusals by way of a file: one of them, so that the way is tested."""
    document = byte_level()
    document["model"]["vocab"]["!"] = 2**62
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TokenizerError, match="the id 4611686018427387904"):
        tokens.load(tmp_path)
