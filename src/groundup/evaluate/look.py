"""One evaluation of a run that sorts things: marks on the validation rows, beside the accuracy on some training rows.

In: marks. Out: `Look`, as a run wants an evaluation (train/job.py, `Scored`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Marks(Protocol):
    """What can be looked at: marks of classes (classes.py) or of pairs (pairs.py)."""

    @property
    def loss(self) -> float:
        """Mean over the rows, in nats."""
        ...

    def record(self) -> Mapping[str, float | None]:
        """Numbers for the journal."""
        ...

    def words(self) -> str:
        """The same in a few words."""
        ...


@dataclass(frozen=True)
class Look:
    """What one evaluation saw: marks on all validation rows, and how many of some training rows are right."""

    marks: Marks
    train_accuracy: float

    @property
    def loss(self) -> float:
        """By which the best weights are chosen."""
        return self.marks.loss

    def record(self) -> dict[str, float | None]:
        """The numbers of a line in the journal."""
        return {**self.marks.record(), "train_accuracy": self.train_accuracy}

    def words(self) -> str:
        """The numbers of the progress line."""
        return f"{self.marks.words()}  train accuracy {100 * self.train_accuracy:.2f} %"
