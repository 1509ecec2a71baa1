"""Pairs of answers as batches: first all better ones, then all worse ones, in the same order.

In: `PairRow`s (tokens/pairs.py). Out: two `Source`s: `Pairs`, whose rows are predicted token by token, and
`WholePairs`, whose rows are read to their end and scored. Shapes: B pairs, so 2B rows; T time.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.batches.batch import Batch, pad
from groundup.batches.windows import Numbers
from groundup.errors import DataError
from groundup.tokens.pairs import PairRow
from groundup.tokens.rows import Row


class Pairs:
    """Both rows of each pair, filled up on the right with `pad` to the longest of the batch.

    A batch of B pairs has 2B rows: row b is the better answer of its pair number b, row B + b the worse. Fields:
    targets (2B, T); weight (2B, T), 1 on the tokens of the answer; and, where `reference` (n, 2) is given, ref_logp
    (2B,) fp32: log-probabilities of the better and the worse answer of each pair under another model. `count` is B,
    `size` the ids that are no filler. A weight of 0 keeps filler out of every sum, and attention looks back only.

    Raises DataError for a row without an answer and for a `reference` that does not belong to the rows.

    >>> rows = [PairRow(Row([5, 6, 7], [False, False, True]), Row([5, 6, 8, 9], [False, False, True, True]))]
    >>> batch = Pairs(rows, pad=0, reference=np.array([[-1.0, -2.5]])).batch(np.array([0]))
    >>> batch.tokens.tolist(), batch.fields["targets"].tolist(), batch.fields["weight"].tolist()
    ([[5, 6, 7], [5, 6, 8]], [[6, 7, 0], [6, 8, 9]], [[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    >>> batch.fields["ref_logp"].tolist(), batch.count, batch.size
    ([-1.0, -2.5], 1.0, 5)
    """

    endless = False

    def __init__(self, rows: Sequence[PairRow], *, pad: int, reference: np.ndarray | None = None) -> None:
        _check(rows)
        self.rows, self.pad = rows, pad
        self.lengths: Numbers = _longer(rows) - 1  # inputs of the longer row of each pair
        self.reference = None if reference is None else _checked(reference, len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Numbers) -> Batch:
        """Pair numbers (B,) -> a batch of 2B rows."""
        rows = _sides([self.rows[int(index)] for index in indices])
        whole, _ = pad([row.ids for row in rows], self.pad)  # (2B, T+1)
        learn, _ = pad([row.learn for row in rows], 0)
        fields = {"targets": whole[:, 1:], "weight": learn[:, 1:].float()}
        if self.reference is not None:
            both = self.reference[np.asarray(indices, dtype=np.int64)]  # (B, 2)
            fields["ref_logp"] = torch.from_numpy(both.T.reshape(-1))  # all better ones, then all worse ones
        size = sum(len(row.ids) - 1 for row in rows)
        return Batch(whole[:, :-1], float(len(indices)), fields, size)


class WholePairs:
    """Both rows of each pair from their first id to their last, for a model that scores what it has read.

    A batch of B pairs has 2B rows, as `Pairs` has them: tokens (2B, T) are whole rows, filled up on the right with
    `pad`. Fields: lengths (2B,), the ids of each row, of which the last is the place that is scored; margin (B,) fp32.
    `count` is B. Raises DataError for a row without an answer.

    >>> rows = [PairRow(Row([5, 6, 7], [False, False, True]), Row([5, 8], [False, True]), margin=2.0)]
    >>> batch = WholePairs(rows, pad=0).batch(np.array([0]))
    >>> batch.tokens.tolist(), batch.fields["lengths"].tolist(), batch.fields["margin"].tolist(), batch.count
    ([[5, 6, 7], [5, 8, 0]], [3, 2], [2.0], 1.0)
    """

    endless = False

    def __init__(self, rows: Sequence[PairRow], *, pad: int) -> None:
        _check(rows)
        self.rows, self.pad = rows, pad
        self.lengths: Numbers = _longer(rows)  # ids of the longer row of each pair

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Numbers) -> Batch:
        """Pair numbers (B,) -> a batch of 2B rows."""
        chosen = [self.rows[int(index)] for index in indices]
        ids = [row.ids for row in _sides(chosen)]
        tokens, _ = pad(ids, self.pad)
        lengths = torch.tensor([len(row) for row in ids])
        margin: Tensor = torch.tensor([pair.margin for pair in chosen], dtype=torch.float32)
        return Batch(tokens, float(len(chosen)), {"lengths": lengths, "margin": margin}, int(lengths.sum()))


def _sides(pairs: Sequence[PairRow]) -> list[Row]:
    """All better rows, then all worse ones."""
    return [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]


def _longer(rows: Sequence[PairRow]) -> Numbers:
    """Ids of the longer row of each pair, (n,)."""
    return np.array([max(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in rows], dtype=np.int64)


def _check(rows: Sequence[PairRow]) -> None:
    if not rows:
        raise DataError("there are no pairs", "give at least one pair of rows")
    for number, pair in enumerate(rows):
        for side, row in (("better", pair.chosen), ("worse", pair.rejected)):
            if len(row.ids) != len(row.learn) or not any(row.learn[1:]) or row.learn[0]:
                raise DataError(
                    f"the {side} row of pair {number} has {len(row.ids)} ids, {sum(row.learn)} of them of its answer",
                    "leave out pairs without an answer in the context; the first id has nothing it is predicted from",
                )


def _checked(reference: np.ndarray, count: int) -> NDArray[np.float32]:
    """Log-probabilities of the reference, one for each row."""
    values = np.asarray(reference, dtype=np.float32)
    if values.shape != (count, 2) or not np.isfinite(values).all():
        state = "not all of them are finite" if values.shape == (count, 2) else f"{count} pairs need ({count}, 2)"
        raise DataError(
            f"log-probabilities of the reference have shape {values.shape}, and {state}",
            "compute them again for these rows: one for the better and one for the worse answer of each pair",
        )
    return values
