"""The oracle against hand-worked merges, against the plainest possible learner, and its cut against tiktoken's."""

from collections import Counter

import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.tokens import bpe

CODE_POINTS = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
FEW_LETTERS = st.text(alphabet="ab \n'sé", max_size=40)


def slowest(words: Counter[str], merges: int) -> list[bpe.Pair]:
    """BPE from its definition: count every pair anew before each merge."""
    spelled = [(bpe.to_ids(word.encode()), times) for word, times in words.items()]
    learnt: list[bpe.Pair] = []
    while len(learnt) < merges:
        counts: Counter[bpe.Pair] = Counter()
        for ids, times in spelled:
            for pair in zip(ids, ids[1:], strict=False):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        spelled = [(bpe.merge(ids, best, 256 + len(learnt)), times) for ids, times in spelled]
        learnt.append(best)
    return learnt


def matched_by_tiktoken(pattern: str) -> set[str]:
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return set(bytes(encoding.encode_ordinary(CODE_POINTS)).decode())


def test_byte_order_begins_with_printing_characters() -> None:
    assert sorted(bpe.BYTES) == list(range(256))
    assert bytes(bpe.BYTES[:4]) == b'!"#$'
    assert bpe.BYTES[188:190] == (0, 1), "188 Latin-1 bytes print; then come the others, from 0"
    assert bpe.BYTE_TO_CHAR[0x20] == "Ġ" and bpe.BYTE_TO_CHAR[0x0A] == "Ċ"


def test_first_merges_worked_by_hand() -> None:
    # Pairs of low/lowest/newer/wider, each word after a space but the first: (l,o) (o,w) (w,e) (e,r) all occur twice.
    # The smallest left id among them is that of e.
    words = bpe.count_words(["low lowest newer wider"])
    assert words == {"low": 1, " lowest": 1, " newer": 1, " wider": 1}
    spelled = bpe.spell(bpe.learn(words, 4))
    # After `er`: (l,o) and (o,w) still twice; then (lo,w); then all once, and the smallest ids are (d, er).
    assert spelled[256:] == [b"er", b"lo", b"low", b"der"]


def test_overlapping_pairs_merge_from_the_left() -> None:
    # a a a a a: (a,a) 4 times -> aa aa a: (aa,aa) and (aa,a) once each, a has the smaller id -> aa aaa -> aaaaa
    merges = bpe.learn({"aaaaa": 1}, 3)
    assert bpe.spell(merges)[256:] == [b"aa", b"aaa", b"aaaaa"]
    assert bpe.encode("aaaa", merges) == [256, 256]


def test_words_are_counted_over_texts_and_merges_stop_when_nothing_is_left() -> None:
    assert bpe.count_words(["a a", "a"]) == {"a": 2, " a": 1}
    assert bpe.learn(bpe.count_words(["ab", "ab"]), 100) == [(bpe.to_ids(b"a")[0], bpe.to_ids(b"b")[0])]


@settings(max_examples=300, deadline=None)
@given(st.lists(FEW_LETTERS, max_size=6), st.integers(0, 40))
def test_incremental_counts_equal_recounting(texts: list[str], merges: int) -> None:
    words = bpe.count_words(texts)
    assert bpe.learn(words, merges) == slowest(words, merges)


@settings(max_examples=200, deadline=None)
@given(FEW_LETTERS, st.lists(FEW_LETTERS, max_size=4), st.integers(0, 30))
def test_any_text_comes_back(text: str, corpus: list[str], merges: int) -> None:
    learnt = bpe.learn(bpe.count_words(corpus), merges)
    assert bpe.decode(bpe.encode(text, learnt), learnt) == text.encode()


@settings(deadline=None)
@given(st.text())
def test_cut_loses_nothing(text: str) -> None:
    assert "".join(bpe.split(text)) == text


def test_cut_knows_the_letters_and_numbers_that_tiktoken_knows() -> None:
    letters, numbers = matched_by_tiktoken(r"\p{L}"), matched_by_tiktoken(r"\p{N}")
    assert len(letters) > 100_000 and len(numbers) > 1_000
    assert set(regex.findall(bpe._LETTER, CODE_POINTS, regex.V1)) == letters
    assert set(regex.findall(bpe._NUMBER, CODE_POINTS, regex.V1)) == numbers
    assert set(regex.findall(r"\s", CODE_POINTS)) == matched_by_tiktoken(r"\s")


def test_cut_between_neighbours_of_all_kinds_is_tiktokens() -> None:
    chars = CODE_POINTS[:1500] + CODE_POINTS[1500::997]
    text = "".join(f"a{char}1{char}! {char}  {char}'s{char}\n" for char in chars)
    assert pieces_of_tiktoken(text) == bpe.split(text)


def pieces_of_tiktoken(text: str) -> list[str]:
    """The cut as tiktoken makes it, made visible by giving every word that the oracle cuts an id of its own."""
    words = sorted({word.encode() for word in bpe.split(text)} - {bytes([byte]) for byte in range(256)})
    ranks = {bytes([byte]): byte for byte in range(256)} | {word: 256 + i for i, word in enumerate(words)}
    spelled = {rank: token for token, rank in ranks.items()}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"  # as tiktoken has it
    encoding = tiktoken.Encoding("words", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return [spelled[id].decode(errors="replace") for id in encoding.encode_ordinary(text)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("a1!' \n\u3000\x1cé"), st.integers(1, 2100)), max_size=6))
def test_learning_cuts_long_words_and_nothing_else(runs: list[tuple[str, int]]) -> None:
    text = "".join(char * times for char, times in runs)
    parts = list(bpe.bounded(text))
    assert "".join(parts) == text
    assert all(len(word) <= bpe.LONGEST for part in parts for word in bpe.split(part))
    assert len(parts) == 1 + sum((len(word) - 1) // bpe.LONGEST for word in bpe.split(text))
