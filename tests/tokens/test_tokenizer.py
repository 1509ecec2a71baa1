"""What all tokenizers share: special tokens only with permission, streams, byte lengths, saving and opening."""

import errno
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import tokens
from groundup.errors import TokenizerError
from groundup.tokens import Tokenizer

CORPUS = "the cat sat on the mat, and the dog: sat; 'twice'. é 我 😀\n"
NAMES = ["<|endoftext|>", "<|pad|>", "<|end|>", "<|endo|>"]


@pytest.fixture(scope="module", params=["chars", "words", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return tokens.train(request.param, [CORPUS], vocabulary=300 if request.param == "bpe" else None, special=NAMES)


def test_special_tokens_in_text_need_permission() -> None:
    tokenizer = tokens.train("bpe", [CORPUS], vocabulary=280, special=NAMES)
    text = "a<|endoftext|>b<|pad|>"
    end, pad = tokenizer.special["<|endoftext|>"], tokenizer.special["<|pad|>"]
    plain = tokenizer.encode(text)
    assert not set(plain) & set(tokenizer.special.values()) and tokenizer.decode(plain) == text
    assert tokenizer.encode_array(text).tolist() == plain
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert tokenizer.encode(text, special=True) == [*a, end, *b, pad]
    assert tokenizer.encode(text, special={"<|pad|>"}) == [*tokenizer.encode("a<|endoftext|>b"), pad]
    assert tokenizer.encode(text, special="<|pad|>") == tokenizer.encode(text, special=["<|pad|>"])
    assert tokenizer.encode(text, special=set()) == plain
    assert tokenizer.decode(tokenizer.encode(text, special=True)) == text


def test_the_longest_special_token_counts() -> None:
    tokenizer = tokens.train("bpe", ["x"], vocabulary=260, special=["<a", "<a>", "a>"])
    assert tokenizer.encode("<a><a", special=True) == [tokenizer.special["<a>"], tokenizer.special["<a"]]


def test_permission_for_an_unknown_name_names_the_nearest(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"did you mean '<\|pad\|>'"):
        tokenizer.encode("the", special={"<|pads|>"})


def test_empty_text_and_no_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == [] == tokenizer.encode("", special=True)
    assert tokenizer.encode_array("").shape == (0,) and tokenizer.encode_array("").dtype == np.uint32
    assert tokenizer.decode([]) == "" and tokenizer.decode_bytes(iter([])) == b"" and tokenizer.stream().close() == ""


def test_ids_come_as_lists_arrays_and_iterators(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat sat")
    assert tokenizer.decode(ids) == "the cat sat"
    assert (
        tokenizer.decode(np.array(ids, dtype=np.uint16)) == tokenizer.decode(iter(ids)) == tokenizer.decode(tuple(ids))
    )


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**63])
def test_ids_outside_the_vocabulary_are_named(tokenizer: Tokenizer, wrong: int) -> None:
    with pytest.raises(TokenizerError, match=f"id {wrong} is outside the vocabulary of {tokenizer.vocabulary}"):
        tokenizer.decode([0, wrong])
    with pytest.raises(TokenizerError, match=f"id {wrong} is outside"):
        tokenizer.stream().push(wrong)


@pytest.mark.parametrize("wrong", [[0.5], [[1, 2]], ["a"], [None]])
def test_what_is_not_a_row_of_ids_is_refused(tokenizer: Tokenizer, wrong: list) -> None:
    with pytest.raises(TokenizerError, match="one row of whole numbers"):
        tokenizer.decode(wrong)


@settings(deadline=None)
@given(st.data())
def test_a_stream_says_what_decode_says(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """Any ids: also bytes that are no UTF-8, characters in halves, special tokens in between."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary - 1), max_size=40))
    stream = tokenizer.stream()
    parts = [stream.push(id) for id in ids]
    assert "".join(parts) + stream.close() == tokenizer.decode(ids)
    assert b"".join(tokenizer.pieces(ids)) == tokenizer.decode_bytes(ids)


def test_a_stream_waits_for_whole_characters() -> None:
    tokenizer = tokens.train("bpe", ["x"], vocabulary=257)
    stream = tokenizer.stream()
    first, second, third, fourth = tokenizer.encode("😀")
    assert [stream.push(id) for id in (first, second, third)] == ["", "", ""]
    assert stream.push(fourth) == "😀"
    assert stream.push(first) == "" and stream.close() == "\ufffd"


def test_random_bytes_decode_as_python_does() -> None:
    tokenizer = tokens.train("bpe", ["x"], vocabulary=257)
    id_of = {tokenizer.decode_bytes([id]): id for id in range(256)}
    draw = random.Random(0)
    for _ in range(300):
        content = bytes(draw.choices([*range(0x7E, 0x100), 0x20], k=12))
        ids = [id_of[bytes([byte])] for byte in content]
        stream = tokenizer.stream()
        assert tokenizer.decode(ids) == content.decode("utf-8", "replace")
        assert "".join(map(stream.push, ids)) + stream.close() == content.decode("utf-8", "replace")


def test_byte_lengths_add_up_to_the_text(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.byte_lengths()
    if tokenizer.kind == "words":
        assert lengths is None
        return
    assert lengths is not None and lengths.shape == (tokenizer.vocabulary,) and lengths.dtype == np.int64
    assert lengths[tokenizer.encode(CORPUS)].sum() == len(CORPUS.encode())
    assert all(lengths[id] == 0 for id in tokenizer.special.values())
    assert (lengths > 0).sum() == tokenizer.vocabulary - len(tokenizer.special)


def test_well_known_names_have_roles() -> None:
    bare = tokens.train("bpe", ["x"], vocabulary=256, special=[])
    assert [bare.end_of_text, bare.bos, bare.eos, bare.pad, bare.unknown] == [None] * 5
    gpt_like = bare.with_special(["<|endoftext|>"])
    assert (gpt_like.end_of_text, gpt_like.eos, gpt_like.bos) == (256, 256, None)
    book = bare.with_special(["[BOS]", "[EOS]", "[PAD]", "<|unk|>"])
    assert (book.bos, book.eos, book.pad, book.unknown, book.end_of_text) == (256, 257, 258, 259, 257)
    both = gpt_like.with_special(["<|bos|>", "<|eos|>"])
    assert (both.end_of_text, both.bos, both.eos) == (256, 257, 258)


def test_with_special_appends_and_keeps(tokenizer: Tokenizer) -> None:
    more = tokenizer.with_special(["<|pad|>", "<|bos|>", "<|bos|>", "<|eos|>"])
    size = tokenizer.vocabulary
    assert more.special == {**tokenizer.special, "<|bos|>": size, "<|eos|>": size + 1}
    assert more.vocabulary == size + 2 and "<|bos|>" not in tokenizer.special
    assert more.encode("the cat sat") == tokenizer.encode("the cat sat")
    assert more.decode([size, size + 1]).replace(" ", "") == "<|bos|><|eos|>"
    assert more.fingerprint != tokenizer.fingerprint
    assert tokenizer.with_special([]).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("name", ["", "the", "t", "\ud800"])
def test_names_that_cannot_be_special(name: str) -> None:
    for kind in ("bpe", "words", "chars"):
        tokenizer = tokens.train(kind, ["the the the"] if kind != "words" else ["the t"], special=[])
        if kind == "chars" and name == "the":
            assert tokenizer.with_special([name]).special == {"the": 4}
            continue
        with pytest.raises(TokenizerError):
            tokenizer.with_special([name])


def test_a_special_name_may_not_spell_a_byte_token_on_disk() -> None:
    """In tokenizer.json the token ` the` reads `Ġthe`: a special token of that name would be the same entry."""
    with pytest.raises(TokenizerError, match="already an ordinary token"):
        tokens.train("bpe", [" the the the"], vocabulary=260, special=[]).with_special(["Ġthe"])


def test_saved_and_opened_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new" / "folder")
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for path in (tmp_path / "new" / "folder", str(tmp_path / "new" / "folder" / "tokenizer.json")):
        again = tokens.load(path)
        assert type(again) is type(tokenizer) and again.kind == tokenizer.kind
        assert again.special == tokenizer.special and again.vocabulary == tokenizer.vocabulary
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(CORPUS) == tokenizer.encode(CORPUS)
        assert again.decode(range(again.vocabulary)) == tokenizer.decode(range(tokenizer.vocabulary))


def test_a_run_folder_opens_by_its_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "model")
    assert tokens.load(tmp_path).fingerprint == tokenizer.fingerprint


def test_punctuation_is_kept_by_saving(tmp_path: Path) -> None:
    for punctuation in ("", ",.?_!\"()'", "]^-\\[&~|", "é。"):
        tokenizer = tokens.train("words", ["a,b]c^d-e\\f[g&h~i|j。k"], punctuation=punctuation)
        tokenizer.save(tmp_path)
        again = tokens.load(tmp_path)
        assert again.punctuation == punctuation  # type: ignore[attr-defined]
        assert again.fingerprint == tokenizer.fingerprint


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    """sha256 of the file's content without spacing, keys sorted: of this layout, written down by hand."""
    tokenizer = tokens.train("chars", ["ba"], special=[])
    layout = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
        "post_processor": None, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "<|unk|>"},
    }  # fmt: skip
    text = json.dumps(layout, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert tokenizer.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_saving_replaces_or_leaves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.train("chars", ["abc"]).save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("os.replace", full)
        tokens.train("chars", ["xyz"]).save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2, "nothing is left lying about"
    tokens.train("chars", ["xyz"]).save(tmp_path)
    assert tokens.load(tmp_path).encode("xyz") == [0, 1, 2]


def test_saving_where_a_file_stands_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(TokenizerError, match="cannot write the tokenizer to"):
        tokens.train("chars", ["abc"]).save(tmp_path / "file")
