"""Rows of unequal length as batches: filled up to the longest, or packed side by side without seeing each other.

In: `Row`s, ids of which some are to be learnt (tokens/rows.py). Out: two `Source`s, `Rows` and `PackedRows`, whose
batches hold targets and a weight of 1 on what the loss counts. Both give every row the loss it has alone. Shapes: B
batch, T time.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.batches.batch import Batch
from groundup.batches.pack import fit
from groundup.batches.windows import Numbers
from groundup.errors import DataError, SettingsError
from groundup.tokens.rows import Row


class _Flat:
    """Rows end to end: ids (N,) and what is learnt of them (N,), and where each begins."""

    def __init__(self, rows: Sequence[Row]) -> None:
        for number, row in enumerate(rows):
            if len(row.ids) != len(row.learn) or not any(row.learn[1:]) or row.learn[0]:
                raise DataError(
                    f"row {number} has {len(row.ids)} ids, of which {sum(row.learn)} are to be learnt",
                    "leave out rows without anything to learn; the first id has nothing it is predicted from",
                )
        if not rows:
            raise DataError("there are no rows", "give at least one row of ids")
        self.ids = np.array([id for row in rows for id in row.ids], dtype=np.int64)
        self.learn = np.array([learnt for row in rows for learnt in row.learn], dtype=bool)
        self.sizes = np.array([len(row.ids) for row in rows], dtype=np.int64)
        self.begins = np.cumsum(self.sizes) - self.sizes

    def row(self, index: int) -> tuple[Numbers, NDArray[np.bool_]]:
        """Ids and what is learnt of row number `index`."""
        here = slice(self.begins[index], self.begins[index] + self.sizes[index])
        return self.ids[here], self.learn[here]


class Rows:
    """One row each, filled up on the right with `pad` to the longest of the batch; raises DataError for empty rows.

    Attention looks back only, so what stands behind a row changes nothing in it: no mask is needed. The weight is 0
    there (the book's -100: Raschka 2024, section 7.3), and `size` counts the ids that are no filler.

    >>> rows = Rows([Row([5, 6, 7], [False, False, True]), Row([8, 9], [False, True])], pad=0)
    >>> batch = rows.batch(np.array([0, 1]))
    >>> batch.tokens.tolist(), batch.fields["targets"].tolist(), batch.fields["weight"].tolist(), batch.count
    ([[5, 6], [8, 9]], [[6, 7], [9, 0]], [[0.0, 1.0], [1.0, 0.0]], 2.0)
    """

    endless = False

    def __init__(self, rows: Sequence[Row], *, pad: int) -> None:
        self._flat, self.pad = _Flat(rows), pad
        self.lengths: Numbers = self._flat.sizes - 1  # inputs of each row

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: Numbers) -> Batch:
        """Row numbers (B,) -> a batch; targets, weight (B, T)."""
        rows = [self._flat.row(int(index)) for index in indices]
        longest = max(len(ids) for ids, _ in rows)
        whole = np.full((len(rows), longest), self.pad, dtype=np.int64)  # (B, T+1)
        learn = np.zeros((len(rows), longest), dtype=np.float32)
        for place, (ids, learnt) in enumerate(rows):
            whole[place, : len(ids)], learn[place, : len(ids)] = ids, learnt
        tokens, weight = torch.from_numpy(whole), torch.from_numpy(learn)[:, 1:]
        fields = {"targets": tokens[:, 1:], "weight": weight}
        return Batch(tokens[:, :-1], float(weight.sum()), fields, sum(len(ids) - 1 for ids, _ in rows))


class PackedRows:
    """As many rows side by side as `length` places hold; each sees only itself, and its positions begin at 0.

    Who shares a place with whom is decided once, from the lengths alone (pack.fit). Raises DataError for a row of more
    than `length` inputs: cut it before, so that the loss of answers is counted.

    >>> packed = PackedRows([Row([5, 6, 7], [False, False, True]), Row([8, 9], [False, True])], length=4)
    >>> batch = packed.batch(np.array([0]))
    >>> batch.tokens.tolist(), batch.fields["targets"].tolist(), batch.fields["weight"].tolist()
    ([[5, 6, 8, 0]], [[6, 7, 9, 0]], [[0.0, 1.0, 1.0, 0.0]])
    >>> batch.fields["documents"].tolist(), batch.fields["positions"].tolist()
    ([[0, 0, 1, 2]], [[0, 1, 0, 0]])
    """

    endless = False

    def __init__(self, rows: Sequence[Row], *, length: int) -> None:
        if length < 1:
            raise SettingsError(f"'context' cannot be {length}", "give the number of tokens in a row, 1 or more")
        self._flat, self.length = _Flat(rows), length
        inputs = self._flat.sizes - 1
        if inputs.max() > length:
            raise DataError(
                f"row {inputs.argmax()} has {inputs.max():,} inputs, more than the {length:,} places of a packed row",
                "cut it to the context first",
            )
        places = fit(inputs, length)
        self._order = np.argsort(places, kind="stable")  # rows, place by place
        self._bounds = np.concatenate(([0], np.cumsum(np.bincount(places))))
        self.filler = 1 - int(inputs.sum()) / (len(self) * length)  # share of all places that hold nothing
        self.lengths: Numbers = np.full(len(self), length, dtype=np.int64)  # inputs of each row, filler included

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def members(self, index: int) -> list[int]:
        """The numbers of the rows that share packed row number `index`, from left to right."""
        return [int(row) for row in self._order[self._bounds[index] : self._bounds[index + 1]]]

    def batch(self, indices: Numbers) -> Batch:
        """Packed row numbers (B,) -> a batch; targets, weight, documents, positions (B, T)."""
        shape = (len(indices), self.length)
        tokens, targets, positions = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        documents, weight = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        there = 0
        for place, index in enumerate(indices):
            at, members = 0, self.members(int(index))
            documents[place] = len(members)  # filler sees only filler
            for number, row in enumerate(members):
                ids, learn = self._flat.row(row)
                here = slice(at, at + len(ids) - 1)
                tokens[place, here], targets[place, here], weight[place, here] = ids[:-1], ids[1:], learn[1:]
                documents[place, here], positions[place, here] = number, np.arange(len(ids) - 1)
                at += len(ids) - 1
            there += at
        made = {"targets": targets, "weight": weight, "documents": documents, "positions": positions}
        fields = {name: torch.from_numpy(values) for name, values in made.items()}
        return Batch(torch.from_numpy(tokens), float(weight.sum()), fields, there)
