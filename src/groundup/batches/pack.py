"""Packing: whole documents side by side in one row, each of which sees only itself.

In: one flat array of ids, and where its documents begin. Out: batches whose fields tell the model where a document
ends (`documents`, `positions`) and the loss what is filler (`weight`).
Rows are put together once, from the text alone, so they are the same for every seed, epoch and rank; a loader then
draws them in its own order. Who shares a row with whom changes nothing that is learnt: they do not see each other.
"""

from bisect import bisect_left, insort

import numpy as np
import torch

from groundup.batches.batch import Batch
from groundup.batches.windows import Numbers
from groundup.errors import DataError, SettingsError

LOOK_AHEAD = 4096  # pieces that are fitted together: far fewer leave gaps, more fill no better and take longer


class PackedDocuments:
    """Rows of `length` places, filled with whole documents; raises DataError where there is nothing to predict.

    documents (n,): where each starts in the text, its end-of-text being its last id. `start` is put before each, so
    that its first id is predicted from what generation begins with; without it (a tokenizer that knows no such id) the
    first id of a document is never predicted. Every other id is predicted exactly once an epoch, and never from another
    document. A text that has `start` before each document already, as Llama's have, gives the same rows as one without.
    One longer than a row is cut into pieces that stand for themselves, as windows of a long text do.

    >>> text, starts = np.array([5, 6, 0, 7, 0, 8, 9, 9, 9, 0]), np.array([0, 3, 5])
    >>> batch = PackedDocuments(text, starts, length=5, start=0).batch(np.array([1, 0]))
    >>> batch.tokens.tolist(), batch.fields["documents"].tolist()
    ([[0, 5, 6, 0, 7], [0, 8, 9, 9, 9]], [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    >>> batch.fields["targets"].tolist(), batch.fields["positions"].tolist()
    ([[5, 6, 0, 7, 0], [8, 9, 9, 9, 0]], [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    """

    endless = False

    def __init__(self, tokens: np.ndarray, documents: np.ndarray, *, length: int, start: int | None) -> None:
        if length < 1:
            raise SettingsError(f"'context' cannot be {length}", "give the number of tokens in a row, 1 or more")
        self.tokens, self.length, self.start = tokens, length, start
        led = bool(len(documents)) and documents[0] == 1 and tokens[0] == start  # shards count from behind the bos
        skip, ahead = int(start is None), int(led)
        self.begins, self.sizes, self.opens = _pieces(len(tokens), documents, length=length, skip=skip, ahead=ahead)
        if not self.sizes.size:
            raise DataError(
                f"the text has {len(tokens)} tokens and nothing to predict in any document",
                "give more text, or a tokenizer with an end-of-text token",
            )
        row = fit(self.sizes, length)
        self.order = np.argsort(row, kind="stable")  # pieces, row by row
        self.bounds = np.concatenate(([0], np.cumsum(np.bincount(row))))  # where each row starts in `order`

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def filler(self) -> float:
        """Share of all places that hold no token."""
        return 1 - int(self.sizes.sum()) / (len(self) * self.length)

    def batch(self, indices: Numbers) -> Batch:
        """Row numbers (B,) -> a batch; targets, documents, positions, weight (B, T)."""
        rows = [self._row(int(index)) for index in indices]
        tokens, targets, documents, positions = torch.from_numpy(np.stack(rows, axis=1))  # (4, B, T) -> 4 x (B, T)
        weight = (targets >= 0).float()
        fields = {"targets": targets.clamp(min=0), "weight": weight, "documents": documents, "positions": positions}
        there = float(weight.sum())
        return Batch(tokens, there, fields, int(there))

    def _row(self, index: int) -> Numbers:
        """Ids, targets (-1 at filler), document numbers and positions of a row: (4, T)."""
        pieces = self.order[self.bounds[index] : self.bounds[index + 1]]
        row = np.zeros((4, self.length), dtype=np.int64)
        row[1], row[2] = -1, len(pieces)  # filler sees only filler
        at = 0
        for number, piece in enumerate(pieces):
            begin, size = int(self.begins[piece]), int(self.sizes[piece])
            here = row[:, at : at + size]
            here[1] = self.tokens[begin : begin + size]
            here[0, 1:] = here[1, :-1]
            here[0, 0] = self.start if self.opens[piece] and self.start is not None else self.tokens[begin - 1]
            here[2], here[3] = number, np.arange(size)
            at += size
        return row


def _pieces(
    count: int, documents: np.ndarray, *, length: int, skip: int, ahead: int
) -> tuple[Numbers, Numbers, np.ndarray]:
    """What stays together: first target of each piece (P,), its number of targets (P,), whether it opens a document.

    skip: ids at the beginning of each document that nothing predicts; ahead: ids before each that belong to none.
    """
    starts = np.asarray(documents, dtype=np.int64)
    if not starts.size or starts[0] > ahead:
        starts = np.concatenate(([0], starts))
    ends = np.append(starts[1:] - ahead, count)
    first = np.minimum(starts + skip, ends)
    pieces = -(-(ends - first) // length)  # of each document; none of an empty one
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, 2 ... in each document
    begins = np.repeat(first, pieces) + number * length
    sizes = np.minimum(length, np.repeat(ends, pieces) - begins)
    return begins, sizes, number == 0


def fit(sizes: Numbers, length: int) -> Numbers:
    """In which row each piece (P,) goes: the largest of the next `LOOK_AHEAD` first, each where it leaves least room.

    "Best fit decreasing", which needs at most 11/9 of the fewest rows possible (Johnson et al. 1974); used on training
    documents by Ding et al. 2024, "Fewer truncations improve language modeling". The look-ahead keeps pieces
    that are neighbours in the text near each other, and their ids near each other on disk.

    >>> fit(np.array([3, 5, 2, 4]), 6).tolist()  # 5; 4 + 2; 3
    [2, 0, 1, 1]
    """
    row = np.empty(len(sizes), dtype=np.int64)
    rows = 0
    for first in range(0, len(sizes), LOOK_AHEAD):
        block = sizes[first : first + LOOK_AHEAD]
        rooms: list[tuple[int, int]] = []  # (places left, row), sorted
        for piece in np.argsort(-block, kind="stable").tolist():
            size = int(block[piece])
            best = bisect_left(rooms, (size, 0))
            room, chosen = rooms.pop(best) if best < len(rooms) else (length, rows)
            rows += chosen == rows
            row[first + piece] = chosen
            if room > size:
                insort(rooms, (room - size, chosen))
    return row
