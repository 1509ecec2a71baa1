"""The saved folder, opened by transformers, gives the same ids and the same text; and their GPT-2 opens here."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Tokenizer

from groundup import tokens

HARD = (
    "Hello  world\n\n\t é e\u0301 我們說 नमस्ते \U0001f600\U0001f468\u200d\U0001f469 \x00\x01\x1c\x7f\u200b\u2028 it's"
    " IT'S ''re 1234 ½ ٣ \r\n   end.   \U00020000\U000e0041\U0010ffff\u0558\U00018d10 <|endoftext|> <|end  "
)
KINDS = ["chars", "chars with unknown", "bpe", "bpe and roles", "gpt2", "words"]


def make(kind: str, data_dir: Path) -> tokens.Tokenizer:
    story = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    if kind == "gpt2":
        return tokens.gpt2(data_dir / "gpt2-bpe")
    if kind == "bpe and roles":
        names = ["<|endoftext|>", "<|pad|>", "[BOS]", "<a>", "<a><b>"]
        return tokens.train("bpe", [story, HARD], vocabulary=1500, special=names)
    if kind == "chars with unknown":
        return tokens.train("chars", [story], special=["<|endoftext|>", "<|unk|>"])
    return tokens.train(kind, [story, HARD], vocabulary=1500 if kind == "bpe" else None)


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    ours = make(request.param, data_dir)
    folder = tmp_path_factory.mktemp("saved")
    ours.save(folder)
    return ours, AutoTokenizer.from_pretrained(folder)


def same(ours: tokens.Tokenizer, theirs: AutoTokenizer, text: str) -> None:
    """Their call parses special tokens that a text spells, so ours is given leave to as well."""
    ids = ours.encode(text, special=True)
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids) == ours.decode(ids)
    if ours.kind != "words" and ours.unknown not in [None, *ids]:
        assert ours.decode(ids) == text


def test_hard_text(pair: tuple) -> None:
    same(*pair, HARD)
    same(*pair, "")
    same(*pair, "<|endoftext|>")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_any_text_it_can_express(pair: tuple, data: st.DataObject) -> None:
    ours, theirs = pair
    pieces = st.sampled_from(["<|endoftext|>", "<a>", "<a><b>", "<|pad|>", "  ", "\n", " the", ", ", "--", ": "])
    plain = st.text() if ours.kind == "bpe" else st.text(st.sampled_from(sorted(set(HARD))))
    text = "".join(data.draw(st.lists(st.one_of(plain, pieces), max_size=8)))
    if ours.kind == "chars" and ours.unknown is None:
        known = set(ours.decode(range(ours.vocabulary)))
        text = "".join(char for char in text if char in known)
    same(ours, theirs, text)


def test_special_tokens_in_text_can_be_plain_there_too(pair: tuple) -> None:
    ours, theirs = pair
    if ours.kind == "bpe":
        assert theirs("a<|endoftext|>b", split_special_tokens=True)["input_ids"] == ours.encode("a<|endoftext|>b")


def test_size_and_roles(pair: tuple) -> None:
    ours, theirs = pair
    assert len(theirs) == ours.vocabulary
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (ours.eos, ours.bos, ours.pad)
    assert theirs.unk_token_id == ours.unknown
    assert theirs.convert_tokens_to_ids(list(ours.special)) == list(ours.special.values())
    kept = theirs.decode([ours.end_of_text, *ours.encode("a")], skip_special_tokens=True)
    assert kept == "a"


def test_an_unknown_character_is_an_error_there_too(data_dir: Path, tmp_path: Path) -> None:
    for kind in ("chars", "words-strict"):
        tokens.train(kind, ["abc"]).save(tmp_path)
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        with pytest.raises(Exception, match="UNK"):
            theirs("abcd")


@pytest.mark.parametrize("punctuation", ["", "_", ",.!?", "]^-\\[&~|#$%*+/<=>@`{}();:'\"", "é。"])
def test_words_cut_off_any_punctuation_there_too(punctuation: str, tmp_path: Path) -> None:
    text = "a, b_c -- d]e^f-g\\h [i] &j~k|l #m$n%o*p+q/r<s=t>u@v`w {x}y (z); é1。2 'q' \"r\"."
    ours = tokens.train("words", [text], punctuation=punctuation)
    ours.save(tmp_path)
    same(ours, AutoTokenizer.from_pretrained(tmp_path), f"{text} unknown--é {text}")


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3", "groundup_bigram"])
def test_the_config_of_a_model_beside_it_changes_nothing(model_type: str, data_dir: Path, tmp_path: Path) -> None:
    """AutoTokenizer looks at config.json too, and for qwen3 it knows a tokenizer with another cut."""
    text = "it's 1234 I'LL  x\n\n y"
    for kind in ("bpe", "chars"):
        ours = tokens.train(kind, [HARD, text])
        ours.save(tmp_path)
        size = {"vocab_size": ours.vocabulary, "bos_token_id": None, "eos_token_id": None}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type} | size), encoding="utf-8")
        assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ours.encode(text)


def test_their_gpt2_and_ours_are_one(data_dir: Path, tmp_path: Path) -> None:
    files = data_dir / "gpt2-bpe"
    theirs = GPT2Tokenizer(vocab=str(files / "encoder.json"), merges=str(files / "vocab.bpe"))
    ours = tokens.gpt2(files)
    assert theirs(HARD)["input_ids"] == ours.encode(HARD, special=True)
    theirs.save_pretrained(tmp_path)
    opened = tokens.load(tmp_path)
    assert opened.fingerprint == ours.fingerprint and opened.encode(HARD) == ours.encode(HARD)
