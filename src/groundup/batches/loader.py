"""The order in which samples are drawn: epochs, ranks, and the exact place to resume from.

In: a `Source` of samples and a seed. Out: batches without end (`Loader`, for training) or once (`sequential`, for
evaluation). All samples of a run stand in one line, numbered g = 0, 1, 2 ...; whoever needs samples next takes the next
ones. The line knows nothing of batches, micro-batches or ranks, so none of them changes what is learnt from. Each epoch
is a permutation that is computed, not stored: the order of 10 billion samples costs no memory, and the place in it is
one number. Where samples have lengths, those of like length can be made to stand together ("bucketing").
"""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.batches.batch import Batch
from groundup.batches.windows import Numbers, Source, hashed
from groundup.errors import CheckpointError, SettingsError

ROUNDS = 6  # of the Feistel network: 4 are enough for large halves (Luby and Rackoff 1988), small ones want more
POOL = 4096  # samples that are sorted by length together: few enough to be sorted in a moment
GROUP = 8  # of those that fill no chunk
STRETCH = 0.05  # of a length, at most: costs little filler, and mixes who meets whom
CHUNK = 64  # samples of like length that stay together: whole batches of every usual size, and still many to shuffle


class Loader:
    """Batches without end in an order fixed by the seed: `batch` samples at a time for each of `world` ranks.

    Every epoch holds each sample once, and a batch may reach over the end of an epoch: none is dropped, no batch is
    short. One draw is samples [cursor, cursor + world * batch) of the line, of which rank r takes the r-th `batch`.

    lengths (n,), of a source that ends: samples of like length then stand together, so that less of a batch is filler.
    Each epoch is shuffled first; each `POOL` of it is sorted, cut into `CHUNK`s, and the chunks are shuffled. The order
    is a matter of seed, epoch and lengths alone, still free of ranks and batch.

    >>> from groundup.batches import Windows
    >>> loader = Loader(Windows(np.arange(9), length=2, stride=2), batch=2, seed=1, shuffle=False)
    >>> draws = iter(loader)
    >>> next(draws).tokens.tolist(), next(draws).tokens.tolist(), loader.state()["cursor"]
    ([[0, 1], [2, 3]], [[4, 5], [6, 7]], 4)
    """

    def __init__(
        self,
        windows: Source,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        lengths: Numbers | None = None,
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise SettingsError(
                f"no batches of {batch} for rank {rank} of {world}", "give batch 1 or more, rank below world"
            )
        self.windows, self.batch, self.seed = windows, batch, seed
        self.rank, self.world, self.shuffle = rank, world, shuffle
        self.lengths = _checked(lengths, windows, shuffle)
        self._pools: dict[tuple[int, int], Numbers] = {}  # the orders computed last
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
        if self.lengths is not None:
            return self._alike(places, epochs)
        return permuted(places, epochs, size=len(self.windows), seed=self.seed) if self.shuffle else places

    def _alike(self, places: Numbers, epochs: Numbers) -> Numbers:
        """Places (B,) of epochs (B,) -> samples (B,), those of like length together."""
        pools = places // POOL
        found = np.empty_like(places)
        for epoch, pool in sorted(set(zip(epochs.tolist(), pools.tolist(), strict=True))):
            here = (epochs == epoch) & (pools == pool)
            found[here] = self._pool(epoch, pool)[places[here] - pool * POOL]
        return found

    def _pool(self, epoch: int, pool: int) -> Numbers:
        """The samples at places pool * POOL ... of an epoch, in their order; two are kept, as a batch may need both."""
        if (epoch, pool) not in self._pools:
            assert self.lengths is not None
            places = np.arange(pool * POOL, min((pool + 1) * POOL, len(self.windows)))
            members = permuted(places, np.full(len(places), epoch), size=len(self.windows), seed=self.seed)
            bits = hashed(self.seed, np.array([epoch]), np.array([pool]))
            found = members[bucketed(self.lengths[members], seed=int(bits[0]))]
            self._pools = dict([*self._pools.items()][-1:]) | {(epoch, pool): found}
        return self._pools[epoch, pool]

    def state(self) -> dict[str, Any]:
        """The place in the line, free of rank, world and batch."""
        samples = len(self.windows)
        place = {"seed": self.seed, "epoch": self.cursor // samples, "cursor": self.cursor, "samples": samples}
        return place if self.lengths is None else place | {"lengths": zlib.crc32(self.lengths.tobytes())}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch drawn when `state` was taken; raises CheckpointError on other data or seed."""
        cursor = state.get("cursor")
        if not isinstance(cursor, int) or cursor < 0:
            raise CheckpointError(f"the saved place in the data is {cursor!r}", "the state is damaged: use another one")
        own = self.state()
        for name, here in (("samples", own["samples"]), ("seed", self.seed), ("lengths", own.get("lengths"))):
            if state.get(name) != here:
                raise CheckpointError(
                    f"the run was saved with {name} = {state.get(name)}, this data order has {name} = {here}",
                    "resume with the data, tokenizer, context, stride, batching, seed of the run, or start a new one",
                )
        self.cursor = cursor


def sequential(windows: Source, batch: int, *, lengths: Numbers | None = None) -> Iterator[Batch]:
    """Every sample once and in order, `batch` at a time, the last batch shorter: the same for every evaluation.

    lengths (n,): the shortest come first, so that there is less filler; a sum over all samples is the same.

    >>> from groundup.batches import Windows
    >>> [b.tokens.tolist() for b in sequential(Windows(np.arange(7), length=2, stride=2), 2)]
    [[[0, 1], [2, 3]], [[4, 5]]]
    """
    if batch < 1:
        raise SettingsError(f"'batch' cannot be {batch}", "give the number of windows in a batch, 1 or more")
    order = np.arange(len(windows)) if lengths is None else np.argsort(lengths, kind="stable")
    for first in range(0, len(windows), batch):
        yield windows.batch(order[first : first + batch])


def bucketed(lengths: Numbers, *, seed: int) -> Numbers:
    """An order (n,) of samples with these lengths (n,) in which the like stand together: sorted chunks, shuffled.

    Lengths are first stretched by up to 5 %, each by a chance of its own, or the same samples would meet in every
    epoch. Samples that fill no chunk come last, so that chunks begin where batches do; they are taken from anywhere
    between the shortest and the longest, or the longest would always come at the end, and are shuffled by the `GROUP`.

    >>> lengths = np.arange(100, 230)[::-1]
    >>> order = bucketed(lengths, seed=3)
    >>> [int(np.ptp(lengths[order[first : first + 64]])) < 90 for first in (0, 64)]
    [True, True]
    """
    chance = hashed(seed, np.arange(len(lengths))) / np.float64(2**64)
    ranked = np.argsort(lengths * (1 + STRETCH * chance), kind="stable")
    chunks, rest = divmod(len(ranked), CHUNK)
    order = permuted(np.arange(chunks + 1), np.zeros(chunks + 1, dtype=np.int64), size=chunks + 1, seed=seed)
    place = int(order[0]) * CHUNK  # where the samples that fill no chunk are taken out: between two chunks
    whole = np.concatenate((ranked[:place], ranked[place + rest :])).reshape(chunks, CHUNK)
    shuffled = whole[permuted(np.arange(chunks), np.ones(chunks, dtype=np.int64), size=chunks, seed=seed)]
    groups = -(-rest // GROUP)
    last = permuted(np.arange(groups), np.full(groups, 2), size=max(1, groups), seed=seed)
    others = [ranked[place + GROUP * at : min(place + GROUP * (at + 1), place + rest)] for at in last.tolist()]
    return np.concatenate((shuffled.ravel(), *others))


def _checked(lengths: Numbers | None, windows: Source, shuffle: bool) -> Numbers | None:
    if lengths is None:
        return None
    if windows.endless or not shuffle or np.shape(lengths) != (len(windows),):
        raise SettingsError(
            f"{np.shape(lengths)} lengths do not order {len(windows)} samples",
            "give one length for each sample of a source that ends, and shuffle",
        )
    return np.ascontiguousarray(lengths, dtype=np.int64)


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
