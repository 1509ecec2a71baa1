r"""Byte pair encoding, readable: the oracle that the fast path must equal.

In: text. Out: learnt merges, ids, bytes. Pure Python; nothing is hidden, and learning is still quick, because it works
on distinct words with counts and touches only the words a merge changes.

How it goes (Sennrich et al. 2016, section 3.2; on bytes: Radford et al. 2019, section 2.2):

1. `split` cuts text into words by GPT-2's pattern, or another family's; no token ever crosses a cut. Learning also cuts
   words of more than a thousand characters (`bounded`).
2. Every word starts as UTF-8 bytes: ids 0..255, in the order of `BYTES`.
3. The most frequent pair of neighbouring ids becomes a new id, everywhere at once; repeat. Ties go to the smallest
   (left id, right id).
4. To encode, replay the merges on each word in the order they were learnt.

>>> merges = learn(count_words(["low lower lowest"]), merges=4)
>>> [decode([256 + i], merges) for i in range(4)]
[b'lo', b'low', b' low', b' lowe']
>>> encode("low lowest", merges)
[257, 259, 82, 83]
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import regex

Pair = tuple[int, int]

# The byte of ids 0..255: first the bytes that print as themselves in Latin-1, then the rest. This is GPT-2's order
# (encoder.json) and that of the `tokenizers` trainer, which sorts its byte alphabet by the stand-in characters below.
_PRINT = [*range(33, 127), *range(161, 173), *range(174, 256)]
_REST = [byte for byte in range(256) if byte not in _PRINT]
BYTES: tuple[int, ...] = (*_PRINT, *_REST)

# Vocabulary files are text, so each byte has a stand-in character: itself where it prints, else U+0100 upward.
BYTE_TO_CHAR: dict[int, str] = {b: chr(b) for b in _PRINT} | {b: chr(256 + i) for i, b in enumerate(_REST)}
CHAR_TO_BYTE: dict[str, int] = {char: byte for byte, char in BYTE_TO_CHAR.items()}

# Letters and numbers newer than Unicode 16. tiktoken and tokenizers do not know them yet and see "other signs"; the
# regex package does. Without this list one text would be cut in two ways. tests/tokens/test_bpe.py compares every code
# point, and fails on the day one of the three packages moves on.
_NEWER = """
    558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD-A7F1 AB6C-AB6D 107BB-107BF 10940-10959 10EC5-10EEE
    11B0A 11DB0-11DF1 1246F-1247F 12550-12686 16EA0-16ED3 16FF2-16FF6 187F8-187FF 18CD6-18CDA 18D09-191D2 1B123-1B128
    1B168 1D6A6 1DF1F-1DF24 1DF2B-1DFFF 1E6C0-1E6FF 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-3FC3F
"""
_SKIP = "".join("-".join(chr(int(end, 16)) for end in span.split("-")) for span in _NEWER.split())
_LETTER = rf"[\p{{L}}--[{_SKIP}]]"
_NUMBER = rf"[\p{{N}}--[{_SKIP}]]"

# GPT-2's cut: a contraction, or letters, or numbers, or other signs (each with the one space before it), or white
# space; where white space precedes a word, its last character is left for the next match. Nothing is ever skipped.
_GPT2 = rf"'(?:[sdmt]|ll|ve|re)| ?{_LETTER}+| ?{_NUMBER}+| ?[^\s{_LETTER}{_NUMBER}]+|\s+(?!\S)|\s+"

# Llama 3's: contractions in either case; any one sign but a new line may stand before letters; numbers by threes, no
# space before; signs keep the new lines behind them, white space ends with its last new line. Qwen2's: single digits.
_LLAMA3 = (
    rf"(?i:'(?:[sdmt]|ll|ve|re))|[^\r\n{_LETTER}{_NUMBER}]?{_LETTER}+|{_NUMBER}{{1,3}}"
    rf"| ?[^\s{_LETTER}{_NUMBER}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(f"{_NUMBER}{{1,3}}", _NUMBER)
_DIGITS = rf"{_NUMBER}|[^{_NUMBER}]+"  # SmolLM2's: every digit alone, and GPT-2's cut between them

# Each pattern cuts what the one before it left whole. V1: sets within sets.
_CUTS = {
    name: [regex.compile(pattern, regex.V1) for pattern in patterns]
    for name, patterns in {
        "gpt2": [_GPT2], "llama3": [_LLAMA3], "qwen2": [_QWEN2], "smollm": [_DIGITS, _GPT2]
    }.items()
}  # fmt: skip

LONGEST = 1000  # characters of a word, when learning
_UNBROKEN = regex.compile(rf"\S{{{LONGEST}}}|\s{{{LONGEST}}}")  # every longer word holds such a stretch


def split(text: str, cut: str = "gpt2") -> list[str]:
    """Cut text into the words inside which pairs may merge; joined, they are the text again.

    `cut`: "gpt2", "llama3", "qwen2" (without its first step, which composes characters: NFC) or "smollm".

    >>> split("It's 1908:  a  day")
    ['It', "'s", ' 1908', ':', ' ', ' a', ' ', ' day']
    >>> split("It's 1908:  a  day", "llama3")
    ['It', "'s", ' ', '190', '8', ':', ' ', ' a', ' ', ' day']
    """
    words = [text]
    for pattern in _CUTS[cut]:
        words = [word for part in words for word in pattern.findall(part)]
    return words


def to_ids(word: bytes) -> list[int]:
    """The ids 0..255 of single bytes.

    >>> to_ids(b"!a ")
    [0, 64, 220]
    """
    return [_ID_OF_BYTE[byte] for byte in word]


_ID_OF_BYTE = {byte: i for i, byte in enumerate(BYTES)}


def bounded(text: str) -> Iterator[str]:
    """The text, cut inside words of more than `LONGEST` characters, such as a megabyte of one letter.

    For learning only. The trainer of `tokenizers` needs time in the square of a word's length: a second at 100,000
    characters, minutes at a million. No token worth learning is so long; the ids that encoding gives are not touched.

    >>> [len(part) for part in bounded("so " + "o" * 2500 + "!")]
    [1002, 1000, 502]
    """
    start = end = 0
    for word in split(text) if _UNBROKEN.search(text) else ():
        for place in range(end + LONGEST, end + len(word), LONGEST):
            yield text[start:place]
            start = place
        end += len(word)
    yield text[start:]


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs; the texts are streamed, only distinct words are kept."""
    words: Counter[str] = Counter()
    for text in texts:
        for part in bounded(text):
            words.update(split(part))
    return words


def learn(words: Mapping[str, int], merges: int) -> list[Pair]:
    """Learn up to `merges` merges; merge i joins a pair of ids into id 256 + i. Fewer when nothing is left to merge.

    The heap holds (-count, left, right), so the top is the most frequent pair and ties go to the smallest ids. Counts
    change under the heap's feet; an entry that is no longer true is put back with its present count when it surfaces.
    """
    spelled = [to_ids(word.encode("utf-8")) for word in words]
    times = list(words.values())
    counts, where = _count_pairs(spelled, times)
    heap = [(-count, *pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    learnt: list[Pair] = []
    while heap and len(learnt) < merges:
        claimed, left, right = heapq.heappop(heap)
        pair = (left, right)
        count = counts.get(pair, 0)
        if count != -claimed:
            if count:
                heapq.heappush(heap, (-count, left, right))
            continue
        new = 256 + len(learnt)
        learnt.append(pair)
        for fresh in _merge_everywhere(pair, new, spelled, times, counts, where):
            heapq.heappush(heap, (-counts[fresh], *fresh))
    return learnt


def _count_pairs(spelled: list[list[int]], times: list[int]) -> tuple[dict[Pair, int], dict[Pair, set[int]]]:
    """How often each pair of neighbours occurs, and in which words."""
    counts: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)
    for index, ids in enumerate(spelled):
        for pair in zip(ids, ids[1:], strict=False):
            counts[pair] += times[index]
            where[pair].add(index)
    return counts, where


def _merge_everywhere(
    pair: Pair,
    new: int,
    spelled: list[list[int]],
    times: list[int],
    counts: dict[Pair, int],
    where: dict[Pair, set[int]],
) -> set[Pair]:
    """Apply one merge to the words that hold it and correct the counts; returns the pairs that are new."""
    fresh: set[Pair] = set()
    for index in where.pop(pair):
        before, repeat = spelled[index], times[index]
        after = spelled[index] = merge(before, pair, new)
        if len(after) == len(before):  # an earlier merge took the pair out of this word
            continue
        for old in zip(before, before[1:], strict=False):
            counts[old] -= repeat
        for now in zip(after, after[1:], strict=False):
            counts[now] += repeat
            if new in now:
                where[now].add(index)
                fresh.add(now)
    del counts[pair]
    return fresh


def merge(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace every occurrence of `pair` by `new`, from the left.

    >>> merge([1, 2, 3, 1, 2], (1, 2), 4)
    [4, 3, 4]
    >>> merge([7, 7, 7], (7, 7), 8)
    [8, 7]
    """
    left, right = pair
    merged: list[int] = []
    i, last = 0, len(ids) - 1
    while i <= last:
        if ids[i] == left and i < last and ids[i + 1] == right:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def encode(text: str, merges: Sequence[Pair], cut: str = "gpt2") -> list[int]:
    """Text to ids by replaying the merges, earliest first, inside each word."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return [id for word in split(text, cut) for id in encode_word(word.encode("utf-8"), ranks)]


def encode_word(word: bytes, ranks: Mapping[Pair, int]) -> list[int]:
    """Ids of one word; `ranks` says which merge comes first."""
    ids = to_ids(word)
    while len(ids) > 1:
        first = min(zip(ids, ids[1:], strict=False), key=lambda pair: ranks.get(pair, len(ranks)))
        if first not in ranks:
            break
        ids = merge(ids, first, 256 + ranks[first])
    return ids


def decode(ids: Iterable[int], merges: Sequence[Pair]) -> bytes:
    """Ids to bytes; always possible, though the bytes need not be whole UTF-8."""
    spelled = spell(merges)
    return b"".join(spelled[id] for id in ids)


def spell(merges: Sequence[Pair]) -> list[bytes]:
    """The bytes of every id: the 256 single bytes, then what each merge joins.

    >>> spell([(71, 68), (256, 1)])[256:]
    [b'he', b'he"']
    """
    spelled = [bytes([byte]) for byte in BYTES]
    for left, right in merges:
        spelled.append(spelled[left] + spelled[right])
    return spelled
