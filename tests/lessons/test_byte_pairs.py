"""Rung `byte_pairs`: the merges made by hand, those of the library, and GPT-2's."""

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import tokens
from groundup.tokens import bpe


@pytest.fixture(scope="module", autouse=True)
def data(data_dir: Path):
    """The library finds GPT-2's vocabulary in the folder of sample data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield


@pytest.fixture(scope="module")
def lesson(data, climb) -> dict:
    return climb("byte_pairs")


@pytest.fixture(scope="module")
def gpt2(data) -> tokens.Tokenizer:
    return tokens.gpt2()


@pytest.fixture(scope="module")
def spelled(data_dir: Path) -> list[bytes]:
    """The bytes of each of GPT-2's ids, read from its own table with the stand-in characters undone."""
    table = json.loads((data_dir / "gpt2-bpe" / "encoder.json").read_text(encoding="utf-8"))
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(rest)}
    by_id = sorted(table, key=table.__getitem__)
    return [name.encode() if name == "<|endoftext|>" else bytes(byte_of[char] for char in name) for name in by_id]


def test_gpt2_encodes_with_the_specials_that_are_allowed(gpt2: tokens.Tokenizer) -> None:
    """T12: 50,257 ids, the end token the last; in a text it is one id where allowed, else plain characters."""
    assert (gpt2.vocabulary, gpt2.end_of_text) == (50257, 50256)
    text = "Hello, do you like tea? <|endoftext|> In"
    start, end = [15496, 11, 466, 345, 588, 8887, 30, 220], [554]
    assert gpt2.encode(text, special={"<|endoftext|>"}) == [*start, 50256, *end]
    plain = gpt2.encode(text)
    assert 50256 not in plain and len(plain) > len(start) + 2 and gpt2.decode(plain) == text


def test_gpt2_decodes_any_ids_byte_for_byte(gpt2: tokens.Tokenizer, spelled: list[bytes]) -> None:
    """T13: every id, and lists of ids in any order, give the bytes that the published table has for them."""
    assert gpt2.pieces(range(50257)) == spelled
    draw = random.Random(123)
    for _ in range(50):
        ids = [draw.randrange(50257) for _ in range(40)]
        whole = b"".join(spelled[id] for id in ids)
        assert gpt2.decode_bytes(ids) == whole
        assert gpt2.decode(ids) == whole.decode("utf-8", errors="replace")


def test_an_unknown_word_comes_in_pieces_and_comes_back(gpt2: tokens.Tokenizer, lesson: dict) -> None:
    """T14: the six pieces of "Akwirw ier", by the library and by the merges replayed by hand."""
    for ids in (gpt2.encode("Akwirw ier"), lesson["encode"]("Akwirw ier", lesson["gpt2_merges"])):
        assert gpt2.pieces(ids) == [b"Ak", b"w", b"ir", b"w", b" ", b"ier"]
        assert gpt2.decode(ids) == "Akwirw ier"


def test_merges_of_the_toy_words_by_hand() -> None:
    """T15: of low (twice), lowest, newer, wider: "lo" and "ow" occur 3 times, and "l" has a smaller id than "o"."""
    merges = bpe.learn(bpe.count_words(["low\nlow\nlowest\nnewer\nwider"]), merges=3)
    assert [bpe.decode([256 + number], merges) for number in range(3)] == [b"lo", b"low", b"er"]


@given(st.text(alphabet="abc \n", max_size=60), st.integers(0, 12))
@settings(max_examples=40)
def test_learning_is_counting_and_merging(lesson_text: str, count: int) -> None:
    """T15: the library's merges are those of a plain loop over all words of the text, counted anew each time."""
    words = [bpe.to_ids(word.encode()) for word in bpe.split(lesson_text)]
    plain = []
    while len(plain) < count and (pairs := [pair for word in words for pair in pairwise(word)]):
        best = min(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
        words = [bpe.merge(word, best, 256 + len(plain)) for word in words]
        plain.append(best)
    assert bpe.learn(bpe.count_words([lesson_text]), merges=count) == plain


def test_any_text_comes_back_from_the_merges_of_a_story(lesson: dict) -> None:
    """T15: the hand-made encoder, its decoder and the library agree on any text, and lose no byte of it."""
    encode, decode, merges, library = (lesson[name] for name in ("encode", "decode", "merges", "library"))

    @given(st.text())
    @settings(max_examples=60)
    def holds(text: str) -> None:
        ids = encode(text, merges)
        assert ids == library.encode(text)
        assert decode(ids, merges) == library.decode_bytes(ids) == text.encode("utf-8")

    holds()
