"""How good a classifier is: how often it is right, on which classes, and whether it knows when it is not.

In: a model and batches with labels. Out: `Marks`. `predictions` gives what it says of each row, as the rows come.
Shapes: B batch, C classes.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groundup.batches.batch import Batch
from groundup.errors import DataError, ModelError
from groundup.losses.classes import check
from groundup.machine import Machine

BINS = 15  # as in Guo et al. 2017, section 5


@dataclass(frozen=True)
class Bin:
    """The rows whose likeliest class has a probability above `low`, up to `high`; means over them, 0 where none is."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Marks:
    """A classifier judged on `rows` rows.

    loss: mean -log p of the true class in nats; rows that carry a weight count by it, here only.
    confusion: rows are the true class, columns the predicted one, both in the order of `labels`.
    precision: of the rows that were given this class, the share that have it. recall: of the rows that have it, the
        share that were given it. f1: 2 P R / (P + R). Where there is nothing to divide by, a class never predicted or
        one without a row, they are 0; `words` says which were never predicted.
    macro_precision, macro_recall, macro_f1: their plain means over the classes that occur, in the data or among the
        predictions (as scikit-learn has it): a rare class counts as much as a frequent one.
    ece: the expected calibration error: the mean gap between the probability of the chosen class and the share of
        rows that are right, over `bins` of that probability (Guo et al. 2017, equation 3).
    """

    labels: tuple[str, ...]
    rows: int
    loss: float
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    macro_precision: float
    macro_recall: float
    macro_f1: float
    ece: float
    bins: tuple[Bin, ...]

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """The classes that no row was given although some have it: their precision is 0 because nothing is known."""
        given = [sum(column) for column in zip(*self.confusion, strict=True)]
        there = [sum(row) for row in self.confusion]
        return tuple(label for label, some, none in zip(self.labels, there, given, strict=True) if some and not none)

    def record(self) -> dict[str, float]:
        """The numbers of a line in the journal."""
        return {"loss": self.loss, "accuracy": self.accuracy, "macro_f1": self.macro_f1, "ece": self.ece}

    def words(self) -> str:
        """The same for a person, in a line that begins with the loss.

        >>> tally = Tally(("ham", "spam"))
        >>> tally.add(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log(), torch.tensor([0, 1]))
        >>> tally.marks().words()
        '0.570  accuracy 50.00 %  F1 0.333  never predicted: spam'
        """
        said = f"{self.loss:.3f}  accuracy {100 * self.accuracy:.2f} %  F1 {self.macro_f1:.3f}"
        missed = self.never_predicted
        return said if not missed else f"{said}  never predicted: {', '.join(missed)}"


class Tally:
    """Counts that grow batch by batch and are as large as the classes are many, not as the rows.

    >>> tally = Tally(("a", "b"))
    >>> tally.add(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]).log(), torch.tensor([0, 1, 1]))
    >>> marks = tally.marks()
    >>> marks.accuracy, marks.confusion, marks.precision  # of two called a, one is
    (0.667, ((1, 0), (1, 1)), (0.5, 1.0))
    """

    def __init__(self, labels: Sequence[str], *, bins: int = BINS) -> None:
        self.labels, count = tuple(labels), len(labels)
        self.confusion = torch.zeros(count, count, dtype=torch.int64)
        self.binned = torch.zeros(3, bins, dtype=torch.float64)  # rows, sum of confidences, rows that were right
        self.nats, self.units = 0.0, 0.0

    def add(self, logits: Tensor, truth: Tensor, weight: Tensor | None = None) -> None:
        """Take in rows: logits (B, C), from which probabilities follow by softmax, and true classes (B,).

        Raises ModelError for logits of other classes, and for numbers that are not finite.
        """
        logits, truth = finite(logits).cpu().double(), truth.cpu()
        check(logits, truth)
        count = len(self.labels)
        if logits.shape[1] != count:
            raise ModelError(
                f"the model knows {logits.shape[1]} classes, {count} were named", "give the classes of the model"
            )
        log_p = logits.log_softmax(dim=1)
        each = -log_p.gather(1, truth[:, None])[:, 0]  # (B, C) -> (B,)
        worth = torch.ones_like(each) if weight is None else weight.cpu().double()
        self.nats += float((each * worth).sum())
        self.units += float(worth.sum())
        # by softmax, not exp of its logarithm: 1/2 must be 1/2 to fall into the right bin
        confidence, chosen = logits.softmax(dim=1).max(dim=1)
        self.confusion += torch.bincount(truth * count + chosen, minlength=count**2).view(count, count)
        right = (chosen == truth).double()
        size = self.binned.shape[1]
        # bins are open below and closed above, so a probability of exactly 1 is in the last
        place = (confidence * size).ceil().long().clamp(1, size) - 1
        self.binned.index_add_(1, place, torch.stack([torch.ones_like(right), confidence, right]))

    def marks(self) -> Marks:
        """What the counts come to; raises DataError where there was no row."""
        rows = int(self.confusion.sum())
        if not rows or not self.units > 0:
            raise DataError("there are no rows to judge: no batches came", "give a file with at least one labelled row")
        right, given, there = (counts.double() for counts in _margins(self.confusion))
        precision, recall = _share(right, given), _share(right, there)
        f1 = _share(2 * right, given + there)  # the same as 2 P R / (P + R)
        occurs = (given + there) > 0
        gaps = (self.binned[1] - self.binned[2]).abs().sum()
        macro = [float(values[occurs].mean()) for values in (precision, recall, f1)]
        return Marks(
            labels=self.labels,
            rows=rows,
            loss=self.nats / self.units,
            accuracy=float(right.sum()) / rows,
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
            precision=tuple(precision.tolist()),
            recall=tuple(recall.tolist()),
            f1=tuple(f1.tolist()),
            macro_precision=macro[0],
            macro_recall=macro[1],
            macro_f1=macro[2],
            ece=float(gaps) / rows,
            bins=self._bins(),
        )

    def _bins(self) -> tuple[Bin, ...]:
        size = self.binned.shape[1]
        counts, confidences, rights = self.binned.tolist()
        return tuple(
            Bin(place / size, (place + 1) / size, int(rows), sure / max(rows, 1), right / max(rows, 1))
            for place, (rows, sure, right) in enumerate(zip(counts, confidences, rights, strict=True))
        )


def mark(model: nn.Module, batches: Iterable[Batch], *, labels: Sequence[str], machine: Machine | None = None) -> Marks:
    """Judge a classifier on batches with the fields labels and lengths (batches/labelled.py), each row once.

    The model judges in evaluation mode and is put back; no random number is drawn. Raises DataError without batches,
    ModelError where labels and model do not fit or the logits are not finite.

    >>> even = nn.Linear(1, 2)  # stands for a model: two classes, never sure
    >>> even.forward = lambda tokens, lengths: torch.zeros(len(tokens), 2)
    >>> fields = {"labels": torch.tensor([0, 0, 0, 1]), "lengths": torch.ones(4, dtype=torch.long)}
    >>> marks = mark(even, [Batch(torch.zeros(4, 1, dtype=torch.long), 4.0, fields)], labels=["no", "yes"])
    >>> marks.accuracy, marks.ece  # says 0.5 and is right in 3 of 4
    (0.75, 0.25)
    """
    tally = Tally(labels)
    for batch in batches:
        tally.add(_logits(model, batch, machine), batch.fields["labels"], batch.fields.get("weight"))
    return tally.marks()


def predictions(
    model: nn.Module, batches: Iterable[Batch], *, machine: Machine | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Number of the most likely class, and the probabilities (C,) of all in float64, of one row after the other.

    Rows come in the order of the batches, each batch as soon as it is computed; labels are not looked at. Between two
    rows the model is as it was. Raises ModelError for logits that are not finite.
    """
    for batch in batches:
        chances = finite(_logits(model, batch, machine)).cpu().double().softmax(dim=1)  # (B, C)
        for row in chances:
            yield int(row.argmax()), row


def finite(logits: Tensor) -> Tensor:
    """The logits (B, C) themselves; raises ModelError where one is NaN or infinite: no class would be the likeliest."""
    if not math.isfinite(float(logits.sum())) and not bool(logits.isfinite().all()):
        raise ModelError(
            "the model's logits are not finite",
            "compute with --dtype fp32; if that does not help, the weights are damaged: take an earlier checkpoint",
        )
    return logits


@torch.inference_mode()
def _logits(model: nn.Module, batch: Batch, machine: Machine | None) -> Tensor:
    """Logits (B, C) of one batch on the model's device, in evaluation mode."""
    device = machine.device if machine else next(model.parameters()).device
    batch = batch.to(device)
    context = {"lengths": batch.fields["lengths"]} if "lengths" in batch.fields else {}
    was_training = model.training
    model.eval()
    try:
        with machine.autocast() if machine else contextlib.nullcontext():
            logits: Tensor = model(batch.tokens, **context)
    finally:
        model.train(was_training)
    return logits


def _margins(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per class: rows that are right, rows given the class, rows that have it; (C,) each."""
    return confusion.diagonal(), confusion.sum(dim=0), confusion.sum(dim=1)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where whole is 0."""
    return part / whole.clamp(min=1)
