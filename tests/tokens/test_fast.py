"""The fast path gives what the oracle gives: merges, ids and bytes, on any text, also where a library would not."""

import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import tokens
from groundup.errors import TokenizerError
from groundup.tokens import bpe, fast
from groundup.tokens.fast import RUN, BytePairs

# Two sources of corpora: few letters for ties, overlaps and repeats; snippets that are hard to cut, from all planes.
FEW_LETTERS = st.text(alphabet="ab c\n", max_size=60)
SNIPPETS = [
    "the",
    " the",
    "'s",
    "'ll",
    "  ",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "\x1c",
    "\x85",
    "\xa0",
    "\u3000",
    "é",
    "我",
    "说",
]
SNIPPETS += [
    "😀",
    "1",
    " 42",
    "½",
    "٣",
    "!?",
    "\u200d",
    "\u0558",
    "\U00018d10",
    "\U000e0041",
    "\U0010ffff",
    "<|endoftext|>",
]
HARD_TEXT = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(SNIPPETS), max_size=30).map("".join))


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(FEW_LETTERS, HARD_TEXT), max_size=8), st.integers(0, 80))
def test_learning_equals_the_oracle(texts: list[str], merges: int) -> None:
    assert fast.learn(texts, merges) == bpe.learn(bpe.count_words(texts), merges)


@settings(max_examples=150, deadline=None)
@given(st.lists(HARD_TEXT, max_size=4), st.lists(HARD_TEXT, max_size=4), st.integers(0, 80))
def test_encoding_equals_the_oracle(corpus: list[str], texts: list[str], merges: int) -> None:
    learnt = bpe.learn(bpe.count_words(corpus), merges)
    tokenizer = BytePairs.from_merges(learnt, ["<|endoftext|>"])
    assert tokenizer._agrees, "a learnt vocabulary is encoded by tiktoken"
    for text in [*texts, *corpus, "".join(texts)]:
        ids = bpe.encode(text, learnt)
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode_array(text).tolist() == ids
        assert tokenizer.decode_bytes(ids) == bpe.decode(ids, learnt) == text.encode()
        assert tokenizer.decode(ids) == text


def test_repeats_and_ties_of_two_letters() -> None:
    draw = random.Random(0)
    for _ in range(150):
        words = ["".join(draw.choices("ab", k=draw.randint(1, 40))) for _ in range(draw.randint(1, 9))]
        learnt = bpe.learn(bpe.count_words([" ".join(words)]), 60)
        assert fast.learn([" ".join(words)], 60) == learnt
        spelled = bpe.spell(learnt)
        assert len(set(spelled)) == len(spelled), "no two merges of a learnt vocabulary spell the same bytes"


def test_a_word_of_thousands_of_letters() -> None:
    """Long words take another way through tiktoken."""
    draw = random.Random(2)
    text = "".join(draw.choices("ab", k=5000)) + " " + "c" * 3000
    learnt = bpe.learn(bpe.count_words([text]), 300)
    assert fast.learn([text], 300) == learnt
    longer = text[::-1] + text
    assert BytePairs.from_merges(learnt, []).encode(longer) == bpe.encode(longer, learnt)


def test_a_megabyte_of_one_letter_is_learnt_at_once() -> None:
    """Uncut, it would take `tokenizers` minutes: its time there goes with the square of the length."""
    texts = ["a" * 1_000_000, "'" * 2500 + "s " + " \n" * 3000 + "b"]
    assert fast.learn(texts, 30) == bpe.learn(bpe.count_words(texts), 30)


def test_a_real_text_equals_the_oracle(verdict: str) -> None:
    learnt = bpe.learn(bpe.count_words([verdict]), 1000)
    assert fast.learn([verdict], 1000) == learnt
    assert tokens.train("bpe", [verdict], vocabulary=1257).encode(verdict) == bpe.encode(verdict, learnt)


def test_gpt2_equals_the_oracle(gpt2: BytePairs, verdict: str, hard: str) -> None:
    merges = [(gpt2._tokens[left], gpt2._tokens[right]) for left, right in gpt2._merges]
    for text in (verdict, hard):
        assert gpt2.encode(text) == bpe.encode(text, merges)


def test_the_name_of_a_special_token_in_the_corpus_is_ordinary_text() -> None:
    corpus = ["the theme of them"] * 3
    with_name = BytePairs.learn(corpus, vocabulary=270, special=["<|the|>"])
    assert with_name._merges == BytePairs.learn(corpus, vocabulary=269, special=[])._merges


def test_special_tokens_take_the_last_ids_and_bytes_the_first() -> None:
    tokenizer = tokens.train("bpe", ["aaa bbb"], vocabulary=260, special=["<|endoftext|>", "<|pad|>"])
    assert tokenizer.special == {"<|endoftext|>": 258, "<|pad|>": 259}
    assert tokenizer.decode_bytes(range(256)) == bytes(bpe.BYTES)


def test_vocabulary_too_small_names_the_least() -> None:
    with pytest.raises(TokenizerError, match="257 is too small") as error:
        tokens.train("bpe", ["abc"], vocabulary=257, special=["<|a|>", "<|b|>"])
    assert "at least 258" in str(error.value)
    assert tokens.train("bpe", ["abc"], vocabulary=258, special=["<|a|>", "<|b|>"]).vocabulary == 258


def test_more_vocabulary_than_the_text_can_give() -> None:
    tokenizer = tokens.train("bpe", ["abc"], vocabulary=10_000)
    assert tokenizer.vocabulary == 256 + 2 + 1  # two merges make abc; one special token


def test_by_default_the_text_decides_how_many_ids(verdict: str) -> None:
    # 4 * sqrt(20,480 bytes) = 572, nearest power of two 512; ten times the text: 1810 -> 2048 (of log2: 10.8 -> 11)
    assert tokens.train("bpe", [verdict]).vocabulary == 512
    assert tokens.train("bpe", [verdict] * 10).vocabulary == 2048
    assert tokens.train("bpe", [verdict])._merges == tokens.train("bpe", [verdict], vocabulary=512)._merges  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["bpe", "chars", "words", "words-strict"])
def test_no_text_is_an_error(kind: str) -> None:
    for texts in ([], ["", ""]):
        with pytest.raises(TokenizerError, match="no text to learn from"):
            tokens.train(kind, iter(texts))


@pytest.mark.parametrize("kind", ["bpe", "chars", "words", "words-strict"])
def test_half_a_surrogate_pair_is_an_error_that_says_where(kind: str) -> None:
    with pytest.raises(TokenizerError, match=r"U\+D83D, at character 3"):
        tokens.train(kind, ["abc", "abc\ud83d"])
    tokenizer = tokens.train(kind, ["abc <|endoftext|>"])
    for call in (tokenizer.encode, tokenizer.encode_array):
        with pytest.raises(TokenizerError, match=r"U\+DC00, at character 2"):
            call("ab\udc00")
    with pytest.raises(TokenizerError, match="at character 16"):
        tokenizer.encode("abc<|endoftext|>\udc00", special=True)


@pytest.mark.parametrize("run", ["  ", "\n", " \t\n\u3000"])
@pytest.mark.parametrize("tail", ["", "x", "\nx", "'s"])
def test_enormous_white_space_is_cut_like_any_other(run: str, tail: str) -> None:
    """tiktoken alone dies of a stack overflow here (0.14: on 500,000 spaces and a letter)."""
    merges = bpe.learn(bpe.count_words(["x  \n\n \t\n y"] * 3), 20)
    tokenizer = BytePairs.from_merges(merges, [])
    text = "start" + run * (600_000 // len(run)) + tail
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert np.array_equal(tokenizer.encode_array(text), ids)
    # What the run and its surroundings become does not depend on the length, up to the merges inside the run.
    pieces = bpe.split("start" + run * 6 + tail)
    assert ids[-len(bpe.encode(pieces[-1], merges)) :] == bpe.encode(pieces[-1], merges)


def tiktokens_own(gpt2: BytePairs) -> tiktoken.Encoding:
    """GPT-2's ids with tiktoken's own pattern, look ahead and all."""
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=gpt2._tokens, special_tokens={})


@pytest.mark.slow
def test_every_code_point_is_cut_as_tiktoken_cuts(gpt2: BytePairs) -> None:
    peer = tiktokens_own(gpt2)
    points = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
    spaces = [char for char in points if len(re.findall(RUN, char * 2)) == 1]
    assert spaces == re.findall(r"\s", points.translate(dict.fromkeys(range(0x1C, 0x20))))
    assert gpt2.encode(points) == peer.encode_ordinary(points)
    text = "".join(f"a{char}1{char}{char}! {char}  {char}{char}{char}'s" for char in points[:1500] + "".join(spaces))
    assert gpt2.encode(text) == gpt2.encode_array(text).tolist() == peer.encode_ordinary(text)


def test_white_space_of_all_lengths_is_cut_as_tiktoken_cuts(gpt2: BytePairs) -> None:
    peer, draw = tiktokens_own(gpt2), random.Random(1)
    texts = ["".join(draw.choices("a1!' \n\t\u3000\x1c", [1, 1, 1, 1, 9, 9, 3, 1, 1], k=n % 80)) for n in range(2000)]
    expected = [peer.encode_ordinary(text) for text in texts]
    assert [gpt2.encode(text) for text in texts] == expected
    assert [gpt2.encode_array(text).tolist() for text in texts] == expected
    ids, lengths = gpt2.encode_many(texts)
    assert ids.tolist() == [id for row in expected for id in row] and lengths.tolist() == [len(row) for row in expected]
    ids, lengths = gpt2.encode_many([])
    assert len(ids) == len(lengths) == 0


def test_marks_that_stand_in_the_text_are_text(gpt2: BytePairs) -> None:
    text = "a <|mark|0|>  \n b<|end|0|> |1|> <|end|2|>"
    assert gpt2.encode_array(text).tolist() == gpt2.encode(text) == tiktokens_own(gpt2).encode_ordinary(text)
    assert gpt2.decode(gpt2.encode_array(text)) == text


def test_vocabulary_on_which_tiktoken_would_differ_replays_its_merges(tmp_path: Path) -> None:
    """tokens ab, bc, abc with abc = a + bc only: on `abc` the merges give ab c; tiktoken would look up and find abc."""
    order = {bytes([byte]): i for i, byte in enumerate(bpe.BYTES)}
    odd = BytePairs(
        order | {b"ab": 256, b"bc": 257, b"abc": 258},
        [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")],
        {"<|endoftext|>": 259},
    )
    assert not odd._agrees
    assert odd.pieces(odd.encode("abc bc <|endoftext|>"))[:4] == [b"ab", b"c", b" ", b"bc"]
    assert odd.encode("abc<|endoftext|>", special=True)[-1] == 259 not in odd.encode("abc<|endoftext|>")
    assert odd.encode_array("abc").tolist() == odd.encode("abc") == [256, order[b"c"]]
    odd.save(tmp_path)
    assert tokens.load(tmp_path).encode("abc") == [256, order[b"c"]]


@pytest.mark.slow
def test_survives_pickling_for_worker_processes(gpt2: tokens.Tokenizer) -> None:
    gpt2.encode("warm")
    again = pickle.loads(pickle.dumps(gpt2))
    assert again.encode("Akwirw ier") == gpt2.encode("Akwirw ier") and again.fingerprint == gpt2.fingerprint


def test_arrays_can_be_written_to() -> None:
    ids = tokens.train("bpe", ["abc"], vocabulary=257).encode_array("abc")
    assert ids.dtype == np.uint32 and ids.flags.writeable
