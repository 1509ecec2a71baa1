"""Windows over a text: which stretch of ids is sample number i.

In: one flat array of ids (a memory-mapped shard will do). Out: batches; their rows are `length` + 1 ids, inputs and
targets at once.
Every source answers the same questions (`Source`), so that a loader needs to know none of them.
"""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.batches.batch import Batch, next_token
from groundup.errors import DataError, SettingsError

Numbers = NDArray[np.int64]


class Source(Protocol):
    """Samples by number."""

    endless: bool  # True: every number from 0 on is another sample; False: they are numbered 0 .. len - 1

    def __len__(self) -> int:
        """Samples in one epoch."""
        ...

    def batch(self, indices: Numbers) -> Batch:
        """Sample numbers (B,) -> a batch of as many rows."""
        ...


class _Rows(ABC):
    """A source whose samples are plain stretches of the text."""

    @abstractmethod
    def rows(self, indices: Numbers) -> Numbers:
        """Sample numbers (B,) -> ids (B, length + 1)."""

    def batch(self, indices: Numbers) -> Batch:
        """Sample numbers (B,) -> a batch: each id is the target of the one before."""
        return next_token(torch.from_numpy(self.rows(indices)))  # from_numpy shares the memory


class Windows(_Rows):
    """Windows of `length` ids every `stride` ids, each with the one id that follows; raises DataError on short text.

    Starts are `range(0, n - length, stride)` (Raschka 2024, section 2.6): ids at the end that fill no window are not
    seen. A stride below the length makes windows overlap, one above it leaves gaps.

    >>> windows = Windows(np.arange(10, 130, 10), length=5, stride=3)
    >>> len(windows), windows.rows(np.array([1])).tolist()
    (3, [[40, 50, 60, 70, 80, 90]])
    """

    endless = False

    def __init__(self, tokens: np.ndarray, *, length: int, stride: int | None = None) -> None:
        _check(tokens, length)
        self.tokens, self.length, self.stride = tokens, length, length if stride is None else stride
        if self.stride < 1:
            raise SettingsError(f"'stride' cannot be {self.stride}", "give the distance between windows, 1 or more")

    def __len__(self) -> int:
        return len(range(0, len(self.tokens) - self.length, self.stride))

    def rows(self, indices: Numbers) -> Numbers:
        """Window numbers (B,) -> ids (B, length + 1)."""
        return _cut(self.tokens, np.asarray(indices) * self.stride, self.length)


class DocumentWindows(_Rows):
    """Windows of `length` ids that begin where documents begin; raises DataError on short text.

    documents (n,): where each starts. A window opens with the id before, the end-of-text of the document before: just
    so a model begins when it is asked for a new document. A document longer than the length gets a window every
    `length` ids, a shorter one is followed by what comes next, so no id is left out.

    >>> windows = DocumentWindows(np.arange(10), np.array([0, 3, 5]), length=3)
    >>> windows.rows(np.arange(len(windows))).tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    """

    endless = False

    def __init__(self, tokens: np.ndarray, documents: np.ndarray, *, length: int) -> None:
        _check(tokens, length)
        self.tokens, self.length = tokens, length
        starts = np.maximum(np.asarray(documents, dtype=np.int64) - 1, 0)
        sizes = np.diff(starts, append=len(tokens))
        pieces = np.maximum(-(-sizes // length), 1)  # windows of each document
        first = np.repeat(np.cumsum(pieces) - pieces, pieces)  # number of the first window of the same document
        begins = np.repeat(starts, pieces) + (np.arange(pieces.sum()) - first) * length
        self.starts = np.minimum(begins, len(tokens) - length - 1)  # the end of the text cuts no window

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, indices: Numbers) -> Numbers:
        """Window numbers (B,) -> ids (B, length + 1)."""
        return _cut(self.tokens, self.starts[np.asarray(indices)], self.length)


class RandomWindows(_Rows):
    """Windows of `length` ids that start anywhere, drawn anew for each sample; raises DataError on short text.

    The start of sample i is uniform over the n - length possible ones and depends on (seed, i) only: there is no
    generator whose state would have to be saved. An epoch is as many samples as cover the text once.

    >>> windows = RandomWindows(np.arange(100), length=8, seed=1)
    >>> len(windows), windows.rows(np.array([0, 12, 1000])).shape
    (12, (3, 9))
    """

    endless = True

    def __init__(self, tokens: np.ndarray, *, length: int, seed: int) -> None:
        _check(tokens, length)
        self.tokens, self.length, self.seed = tokens, length, seed

    def __len__(self) -> int:
        return len(range(0, len(self.tokens) - self.length, self.length))

    def rows(self, indices: Numbers) -> Numbers:
        """Sample numbers (B,), from 0 without end -> ids (B, length + 1)."""
        starts = hashed(self.seed, np.asarray(indices)) % np.uint64(len(self.tokens) - self.length)
        return _cut(self.tokens, starts.astype(np.int64), self.length)


def hashed(seed: int, *parts: Numbers | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 random-looking bits from (seed, parts...), element by element: a random generator without state.

    With one part i this is output number i of SplitMix64 (Steele, Lea, Flood 2014, figure 16); a further part goes on
    from there with those bits as the seed.

    >>> hashed(1234567, np.arange(2)).tolist()
    [6457827717110365317, 3203168211198807973]
    """
    bits = np.array([seed], dtype=np.uint64)  # an array, because numpy warns when a lone number overflows
    for part in parts:
        bits = bits + (part.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits


def _cut(tokens: np.ndarray, starts: Numbers, length: int) -> Numbers:
    if starts.size and (starts.min() < 0 or starts.max() > len(tokens) - length - 1):
        raise IndexError(f"windows start at {starts.min()} .. {starts.max()}, {len(tokens)} ids have no such windows")
    places = starts[:, None] + np.arange(length + 1)  # (B, 1) + (T+1,) -> (B, T+1)
    return tokens[places].astype(np.int64)


def _check(tokens: np.ndarray, length: int) -> None:
    if length < 1:
        raise SettingsError(f"'context' cannot be {length}", "give the number of tokens in a window, 1 or more")
    if len(tokens) <= length:
        raise DataError(
            f"the text has {len(tokens)} tokens, one window of context {length} needs {length + 1}",
            "use a shorter --context, or more text",
        )
