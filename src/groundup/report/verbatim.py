"""Finds what a model wrote word for word from its training text.

In: a sample, and the training tokens as the run keeps them. Out: passages, the longest first.
The comparison is between token ids, so that the training text need not be decoded. Windows of 2^j ids are hashed by
doubling (Karp and Rabin, 1987: the hash of a long window from those of its two halves); where the hashes of text and
sample agree along a diagonal, a passage runs. 64-bit hashes can collide, so the ids of each passage are compared.
"""

from dataclasses import dataclass

import numpy as np

from groundup.errors import GroundupError
from groundup.report.read import Run, Sample
from groundup.tokens import load
from groundup.tokens.prepare import opened
from groundup.tokens.shards import Shards
from groundup.tokens.tokenizer import Tokenizer

LOOK = 2_000_000  # training tokens searched at most: a quarter of a second, and some 80 MB for that time
SHORTEST = 40  # characters of a passage: about eight words; shorter ones come about by knowing the language
RARE = 3  # places in the training text: what stands there more often is a phrase worth learning
LONGEST = 4_000  # characters of a sample that are looked at
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


@dataclass(frozen=True)
class Passage:
    """A piece of a sample that stands in the training text at `places` places."""

    text: str
    places: int


@dataclass(frozen=True)
class Copied:
    """The passages of one sample; `searched` training tokens of `total` were compared."""

    step: int
    passages: tuple[Passage, ...]
    searched: int
    total: int


def copied(run: Run, sample: Sample) -> Copied | None:
    """Passages of a sample found in the run's training text; None where that text is not at hand any more.

    The prompt, which a person wrote, does not count.
    """
    try:
        if run.shards is None:
            return None
        tokenizer = load(run.shards)
        shards = Shards.open(opened(run.shards, tokenizer=tokenizer).train, check=False)
        prompt = str(run.settings.get("sample_prompt") or "")
        text = sample.text.removeprefix(prompt)[:LONGEST]
        ids = np.array(tokenizer.encode(text), dtype=np.uint32)
    except (GroundupError, OSError):  # moved, damaged, or a sample that the tokenizer cannot express
        return None
    searched = shards.tokens[:LOOK]
    return Copied(sample.step, passages(ids, searched, tokenizer), len(searched), shards.count)


def passages(sample: np.ndarray, text: np.ndarray, tokenizer: Tokenizer) -> tuple[Passage, ...]:
    """Passages of at least SHORTEST characters of `sample` (s,) that `text` (t,) holds RARE times at most.

    >>> from groundup import tokens
    >>> story = "It was a bright cold day in April, and the clocks were striking thirteen."
    >>> tokenizer = tokens.train("chars", [story])
    >>> ids = lambda words: np.array(tokenizer.encode(words))
    >>> passages(ids("and day in April, and the clocks were striking the day"), ids(story), tokenizer)
    (Passage(text='day in April, and the clocks were striking', places=1),)
    """
    whole = tokenizer.decode(sample.tolist())
    size = seed_size(len(whole), len(sample))
    found: list[Passage] = []
    taken = np.zeros(len(sample), dtype=bool)
    runs = common_runs(sample, text, size)
    for start, length in sorted({(start, length) for start, length in runs}, key=lambda run: -run[1]):
        if taken[start : start + length].any():
            continue
        places = sum(first <= start and first + many >= start + length for first, many in runs)
        piece = _whole_words(tokenizer, sample, start, length)
        if len(piece) >= SHORTEST and places <= RARE:
            taken[start : start + length] = True
            found.append(Passage(piece, places))
    return tuple(found)


def seed_size(characters: int, ids: int) -> int:
    """Ids, a power of 2, that a passage of SHORTEST characters has for sure or nearly so.

    >>> seed_size(200, 200), seed_size(200, 50)
    (16, 4)
    """
    ids_of_shortest = SHORTEST * ids / max(1, characters)
    return int(2 ** max(2, np.floor(np.log2(max(4.0, 0.6 * ids_of_shortest)))))


def common_runs(sample: np.ndarray, text: np.ndarray, size: int) -> list[tuple[int, int]]:
    """(start, length) in `sample` (s,) of each longest run of `size` ids (a power of 2) or more that `text` (t,) has.

    A run that stands in the text twice is listed twice.

    >>> common_runs(np.array([9, 1, 2, 3, 7]), np.array([1, 2, 3, 4, 0, 2, 3]), 2)
    [(1, 3), (2, 2)]
    """
    if min(len(sample), len(text)) < size:
        return []
    wanted, inside = _hashes(sample, size), _hashes(text, size)
    order = np.argsort(wanted, kind="stable")
    ranked = wanted[order]
    low, high = np.searchsorted(ranked, inside, "left"), np.searchsorted(ranked, inside, "right")
    many = high - low
    places = np.repeat(np.arange(len(inside)), many)  # in the text, once for each window of the sample that agrees
    offsets = np.arange(len(places)) - np.repeat(np.cumsum(many) - many, many)
    starts = order[np.repeat(low, many) + offsets]
    return _joined(sample, text, starts, places, size=size)


def _joined(
    sample: np.ndarray, text: np.ndarray, starts: np.ndarray, places: np.ndarray, *, size: int
) -> list[tuple[int, int]]:
    """Windows that follow each other on one diagonal are one run."""
    order = np.lexsort((starts, places - starts))
    starts, places = starts[order], places[order]
    breaks = np.flatnonzero((np.diff(starts) != 1) | (np.diff(places) != 1)) + 1
    found = []
    for group in np.split(np.arange(len(starts)), breaks) if len(starts) else []:
        start, place, length = int(starts[group[0]]), int(places[group[0]]), len(group) + size - 1
        if np.array_equal(sample[start : start + length], text[place : place + length]):
            found.append((start, length))
    return sorted(found)


def _hashes(ids: np.ndarray, size: int) -> np.ndarray:
    """The hash of every window of `size` ids: (n,) -> uint64 (n - size + 1,)."""
    hashes, reach, factor = ids.astype(np.uint64) + np.uint64(1), 1, BASE
    with np.errstate(over="ignore"):  # modulo 2^64 on purpose
        while reach < size:
            hashes = hashes[:-reach] * factor + hashes[reach:]
            factor, reach = factor * factor, 2 * reach
    return hashes


def _whole_words(tokenizer: Tokenizer, sample: np.ndarray, start: int, length: int) -> str:
    """The text of a run without the parts of words at its ends."""
    piece = tokenizer.decode(sample[start : start + length].tolist())
    before = tokenizer.decode(sample[max(0, start - 4) : start].tolist())[-1:]
    after = tokenizer.decode(sample[start + length : start + length + 4].tolist())[:1]
    if before.isalnum() and piece[:1].isalnum():
        piece = piece.lstrip("".join(set(piece) - set(" \n\t"))) if any(mark.isspace() for mark in piece) else ""
    if after.isalnum() and piece[-1:].isalnum():
        piece = piece.rstrip("".join(set(piece) - set(" \n\t"))) if any(mark.isspace() for mark in piece) else ""
    return piece.strip()
