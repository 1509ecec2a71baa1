"""The order in which samples are drawn: epochs, ranks, and the exact place to resume from.

In: a `Source` of samples and a seed. Out: batches without end (`Loader`, for training) or once (`sequential`, for
evaluation). All samples of a run stand in one line, numbered g = 0, 1, 2 ...; whoever needs samples next takes the next
ones. The line knows nothing of batches, micro-batches or ranks, so none of them changes what is learnt from. Each epoch
is a permutation that is computed, not stored: the order of 10 billion samples costs no memory, and the place in it is
one number.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.batches.batch import Batch
from groundup.batches.windows import Numbers, Source, hashed
from groundup.errors import CheckpointError, SettingsError

ROUNDS = 6  # of the Feistel network: 4 are enough for large halves (Luby and Rackoff 1988), small ones want more


class Loader:
    """Batches without end in an order fixed by the seed: `batch` samples at a time for each of `world` ranks.

    Every epoch holds each sample once, and a batch may reach over the end of an epoch: none is dropped, no batch is
    short. One draw is samples [cursor, cursor + world * batch) of the line, of which rank r takes the r-th `batch`.

    >>> from groundup.batches import Windows
    >>> loader = Loader(Windows(np.arange(9), length=2, stride=2), batch=2, seed=1, shuffle=False)
    >>> draws = iter(loader)
    >>> next(draws).tokens.tolist(), next(draws).tokens.tolist(), loader.state()["cursor"]
    ([[0, 1], [2, 3]], [[4, 5], [6, 7]], 4)
    """

    def __init__(
        self, windows: Source, *, batch: int, seed: int, rank: int = 0, world: int = 1, shuffle: bool = True
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise SettingsError(
                f"no batches of {batch} for rank {rank} of {world}", "give batch 1 or more, rank below world"
            )
        self.windows, self.batch, self.seed = windows, batch, seed
        self.rank, self.world, self.shuffle = rank, world, shuffle
        self.cursor = 0  # samples drawn so far, over all ranks

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first = self.cursor + self.rank * self.batch
            # before the yield: whoever holds a batch and asks for the state is told the place behind that batch
            self.cursor += self.world * self.batch
            yield self.windows.batch(self.samples(np.arange(first, first + self.batch)))

    def samples(self, numbers: Numbers) -> Numbers:
        """Places in the line (B,) -> sample numbers of the source (B,)."""
        if self.windows.endless:
            return numbers
        epochs, places = np.divmod(numbers, len(self.windows))
        return permuted(places, epochs, size=len(self.windows), seed=self.seed) if self.shuffle else places

    def state(self) -> dict[str, Any]:
        """The place in the line, free of rank, world and batch."""
        samples = len(self.windows)
        return {"seed": self.seed, "epoch": self.cursor // samples, "cursor": self.cursor, "samples": samples}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch drawn when `state` was taken; raises CheckpointError on other data or seed."""
        cursor = state.get("cursor")
        if not isinstance(cursor, int) or cursor < 0:
            raise CheckpointError(f"the saved place in the data is {cursor!r}", "the state is damaged: use another one")
        for name, here in (("samples", len(self.windows)), ("seed", self.seed)):
            if state.get(name) != here:
                raise CheckpointError(
                    f"the run was saved with {name} = {state.get(name)}, this data order has {name} = {here}",
                    "resume with the data, tokenizer, context, stride and seed of the run, or start a new one",
                )
        self.cursor = cursor


def sequential(windows: Source, batch: int) -> Iterator[Batch]:
    """Every sample once and in order, `batch` at a time, the last batch shorter: the same for every evaluation.

    >>> from groundup.batches import Windows
    >>> [b.tokens.tolist() for b in sequential(Windows(np.arange(7), length=2, stride=2), 2)]
    [[[0, 1], [2, 3]], [[4, 5]]]
    """
    if batch < 1:
        raise SettingsError(f"'batch' cannot be {batch}", "give the number of windows in a batch, 1 or more")
    for first in range(0, len(windows), batch):
        yield windows.batch(np.arange(first, min(first + batch, len(windows))))


def permuted(places: Numbers, epochs: Numbers, *, size: int, seed: int) -> Numbers:
    """Which of `size` samples stands at each place of each epoch: a permutation that nobody stores.

    A Feistel network permutes the numbers below 4^h; a result of `size` or more is put in again until it falls below
    ("cycle walking": Black and Rogaway 2002), which keeps it one to one. Above 16 samples that is 4 turns on average
    at most.

    >>> sorted(permuted(np.arange(5), np.full(5, 2), size=5, seed=0).tolist())
    [0, 1, 2, 3, 4]
    """
    half = max(3, ((size - 1).bit_length() + 1) // 2)  # bits; fewer than 64 numbers would be shuffled unevenly
    keys = hashed(seed, epochs[None, :], np.arange(ROUNDS)[:, None])  # (1, B), (R, 1) -> (R, B)
    found = _feistel(places.astype(np.uint64), keys, half)
    outside = np.flatnonzero(found >= size)
    while outside.size:
        found[outside] = _feistel(found[outside], keys[:, outside], half)
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)


def _feistel(numbers: NDArray[np.uint64], keys: NDArray[np.uint64], half: int) -> NDArray[np.uint64]:
    """Numbers (B,) below 4^half -> numbers (B,) below 4^half, one to one whatever the keys (R, B) are."""
    bits, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = numbers >> bits, numbers & mask
    for key in keys:
        left, right = right, left ^ (hashed(0, right ^ key) & mask)
    return (left << bits) | right
