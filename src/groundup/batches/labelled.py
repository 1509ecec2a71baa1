"""Rows for a classifier: each text as ids, with the number of its class.

In: `Labelled` texts and a tokenizer. Out: `Reading`, which turns a text into ids the same way in training and long
after it, and `LabelledRows`, a `Source` of batches. Shapes: B batch, T time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from groundup.batches.batch import Batch, pad
from groundup.batches.windows import Numbers
from groundup.errors import CheckpointError, DataError, TokenizerError
from groundup.text.labelled import Labelled
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reading:
    """How a text becomes a row of ids: kept with a classifier, so that it reads for ever as it read in training.

    A row is the tokenizer's `start`, the text, and for pairs `join` and the second text, cut on the right to `context`
    ids. `join` is the end-of-text token where there is one, else a line end. `fill`: an id that fills every row up to
    the context and is read as if it were text, as the book does it (Raschka 2024, section 6.3); None: rows keep their
    length, and what a batch is filled up with is never read.

    >>> from groundup import tokens
    >>> tokenizer = tokens.train("chars", ["cat hat"])
    >>> reading = Reading.of(tokenizer, context=5)
    >>> reading.ids(tokenizer, Labelled("cat", "x", "hat"))
    [2, 1, 4, 5, 3]
    """

    context: int
    join: tuple[int, ...] = ()
    fill: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, context: int, fill: int | None = None) -> Self:
        """Rows of at most `context` ids, with the join that this tokenizer has."""
        end = tokenizer.end_of_text
        return cls(context, (end,) if end is not None else _line_end(tokenizer), fill)

    @classmethod
    def from_card(cls, card: Mapping[str, Any], tokenizer: Tokenizer, *, context: int) -> Self:
        """The one that a classifier's card tells of; without any, as for a folder from elsewhere, that of `of`.

        Raises CheckpointError for one that does not fit the tokenizer or the network's `context`.
        """
        told = card.get("reading")
        if told is None:
            return cls.of(tokenizer, context=context)
        try:
            found = cls(int(told["context"]), tuple(map(int, told["join"])), told["fill"])
            ids = [*found.join, *([] if found.fill is None else [int(found.fill)])]
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(f"card.json says {told!r:.80} of reading: {error}", "restore card.json") from None
        if not 0 < found.context <= context or any(not 0 <= id < tokenizer.vocabulary for id in ids):
            what = f"card.json says {told!r:.80} of reading, the network has context {context}"
            raise CheckpointError(what, "restore card.json and tokenizer.json as they were written together")
        return found

    def to_card(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"context": self.context, "join": list(self.join), "fill": self.fill}

    def whole(self, tokenizer: Tokenizer, row: Labelled) -> list[int]:
        """All ids of a text and its pair; raises DataError naming the row where there are none or some cannot be."""
        try:
            ids = tokenizer.encode(row.text)
            second = [] if row.pair is None else [*self.join, *tokenizer.encode(row.pair)]
        except TokenizerError as error:
            raise DataError(f"{row.where or 'the text'} cannot be encoded: {error.what}", error.fix) from None
        if not ids:
            raise DataError(f"{row.where or 'the text'} has no tokens: {row.text!r:.60}", "remove the row")
        return [*tokenizer.start, *ids, *second]

    def ids(self, tokenizer: Tokenizer, row: Labelled) -> list[int]:
        """The ids (T,) that are read of a text, T at most the context."""
        return self.cut(self.whole(tokenizer, row))

    def cut(self, whole: list[int]) -> list[int]:
        """What is read of all the ids of a text."""
        ids = whole[: self.context]
        while self.join and len(self.join) < len(ids) and tuple(ids[-len(self.join) :]) == self.join:
            ids = ids[: -len(self.join)]  # with nothing behind it, it joins nothing; a reader may take it for filler
        return ids if self.fill is None else ids + [self.fill] * (self.context - len(ids))

    def loses_pair(self, tokenizer: Tokenizer, row: Labelled) -> bool:
        """Whether nothing is left of a row's second text, because the first fills the context.

        >>> from groundup import tokens
        >>> tokenizer = tokens.train("chars", ["cat hat"])
        >>> [Reading(4).loses_pair(tokenizer, Labelled(text, "x", "hat")) for text in ("cat", "cat ")]
        [False, True]
        """
        if row.pair is None:
            return False
        alone = self.whole(tokenizer, replace(row, pair=None))
        return len(alone) + len(self.join) >= self.context


def _line_end(tokenizer: Tokenizer) -> tuple[int, ...]:
    try:
        return tuple(tokenizer.encode("\n"))
    except TokenizerError:  # letters learnt from texts without any line end
        return ()


class LabelledRows:
    """Rows with the numbers of their classes, filled up on the right to the longest of each batch.

    ids (n rows of any length), labels (n,) from 0. pad: the id to fill up with; `lengths` tells the model where a row
    ends, so it may be an id that also occurs in texts. weights (n,): what each row counts for; by default 1.
    Raises DataError where the three do not belong together or a row is empty.

    >>> batch = LabelledRows([[5, 6, 7], [8]], [1, 0], pad=0).batch(np.array([1, 0]))
    >>> batch.tokens.tolist(), batch.fields["lengths"].tolist(), batch.fields["labels"].tolist(), batch.count
    ([[8, 0, 0], [5, 6, 7]], [1, 3], [0, 1], 2.0)
    """

    endless = False

    def __init__(
        self, ids: Sequence[list[int]], labels: Sequence[int], *, pad: int, weights: Sequence[float] | None = None
    ) -> None:
        if not ids or len(ids) != len(labels) or (weights is not None and len(weights) != len(ids)):
            told = "" if weights is None else f", {len(weights)} weights"
            what = f"{len(ids)} rows have {len(labels)} labels{told}"
            raise DataError(what, "give one label, and one weight if any, for each row, and at least one row")
        self.lengths = np.array([len(row) for row in ids], dtype=np.int64)
        if not self.lengths.all():
            raise DataError(f"row {int(self.lengths.argmin())} has no tokens", "leave out empty texts")
        self.ids, self.pad = ids, pad
        self.labels = np.asarray(labels, dtype=np.int64)
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Numbers) -> Batch:
        """Row numbers (B,) -> a batch: tokens (B, T), labels, lengths and, where there are weights, weight (B,)."""
        tokens, _ = pad([self.ids[int(index)] for index in indices], self.pad)
        chosen = np.asarray(indices, dtype=np.int64)
        size = int(self.lengths[chosen].sum())
        fields = {
            "labels": torch.from_numpy(self.labels[chosen]),
            "lengths": torch.from_numpy(self.lengths[chosen]),
        }
        if self.weights is None:
            return Batch(tokens, float(len(chosen)), fields, size)
        fields["weight"] = torch.from_numpy(self.weights[chosen])
        return Batch(tokens, float(self.weights[chosen].sum(dtype=np.float64)), fields, size)


def balancing(labels: Sequence[int], classes: int) -> list[float]:
    """A weight for each row, so that each class weighs as much as any other and all rows together as many as they are.

    A row of class c weighs n / (classes * rows of c): inverse frequency. Labels are 0 .. classes - 1; each must occur.

    >>> balancing([0, 0, 0, 1], 2)
    [0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 2.0]
    """
    counts = np.bincount(np.asarray(labels), minlength=classes)
    if not counts.all():
        raise DataError(f"class {int(counts.argmin())} has no row to weigh", "give rows of each class")
    return [float(len(labels) / (classes * counts[label])) for label in labels]
