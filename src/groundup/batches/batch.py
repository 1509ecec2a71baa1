"""One batch: the ids that go in, what a loss needs besides, and how many units the loss will sum over.

In: rows of ids. Out: `Batch`. Shapes: B batch, T time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from groundup.errors import DataError


@dataclass
class Batch:
    """The only thing a loss reads besides the model; raises DataError where there is nothing to learn from.

    `count` is known before the forward pass, so that a step split over micro-batches and ranks is divided once, by the
    sum of their counts.
    """

    tokens: Tensor  # (B, T) ids going in
    count: float  # supervised units: the loss is a sum over as many
    fields: dict[str, Tensor] = field(default_factory=dict)  # targets, weight, documents, padding ...
    size: int = 0  # tokens that are no filler; by default all of them
    notes: dict[str, float] = field(default_factory=dict)  # about where it comes from: copied into the journal

    def __post_init__(self) -> None:
        self.size = self.size or self.tokens.numel()
        if not self.count > 0:  # also true of NaN
            raise DataError(
                f"a batch of {tuple(self.tokens.shape)} ids has {self.count:g} supervised tokens",
                "leave out rows without any token to learn from, or use a longer context",
            )

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on `device`."""
        early = torch.device(device).type == "cuda"  # towards the CPU, not waiting would show memory still unwritten
        fields = {name: tensor.to(device, non_blocking=early) for name, tensor in self.fields.items()}
        return type(self)(self.tokens.to(device, non_blocking=early), self.count, fields, self.size, self.notes)


class Batches(Protocol):
    """An endless source of batches that knows its place: `restore(state())` continues with the next batch."""

    def __iter__(self) -> Iterator[Batch]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


def next_token(rows: Tensor, *, weight: Tensor | None = None) -> Batch:
    """Inputs and the same ids one place later as targets; raises DataError on rows too short or a weight that misfits.

    rows (B, T+1) -> tokens (B, T), targets (B, T); weight (B, T), 0 or 1, says which targets count (default: all).

    >>> batch = next_token(torch.tensor([[5, 6, 7, 8]]))
    >>> batch.tokens.tolist(), batch.fields["targets"].tolist(), batch.count
    ([[5, 6, 7]], [[6, 7, 8]], 3.0)
    """
    if rows.dim() != 2 or rows.shape[1] < 2:
        raise DataError(
            f"rows of ids have shape {tuple(rows.shape)}, and next-token training needs (rows, 2 or more)",
            "give longer rows: one id more than the context",
        )
    tokens, targets = rows[:, :-1], rows[:, 1:]  # (B, T+1) -> (B, T), twice
    if weight is None:
        return Batch(tokens, float(targets.numel()), {"targets": targets})
    if weight.shape != targets.shape:
        raise DataError(
            f"weights have shape {tuple(weight.shape)}, targets {tuple(targets.shape)}",
            "give one weight per target: the weights of the rows without their first column",
        )
    return Batch(tokens, float(weight.sum()), {"targets": targets, "weight": weight})


def pad(rows: Sequence[Sequence[int]], id: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length, filled up on the right with `id` -> tokens (B, T), weight (B, T): 1 on what was there.

    The weight tells padding from content, so that a real token may have the same id (GPT-2 pads with end-of-text).

    >>> tokens, weight = pad([[5, 6, 7], [8]], 0)
    >>> tokens.tolist(), weight.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    """
    if not rows:
        raise DataError("there are no rows to pad", "give at least one row of ids")
    lengths = torch.tensor([len(row) for row in rows])  # (B,)
    longest = int(lengths.max())
    tokens = torch.tensor([[*row, *[id] * (longest - len(row))] for row in rows], dtype=torch.int64)  # (B, T)
    weight = (torch.arange(longest) < lengths[:, None]).float()  # (T,) < (B, 1) -> (B, T)
    return tokens, weight
