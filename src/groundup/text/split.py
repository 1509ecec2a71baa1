"""Data divided for learning: rows to learn from, to choose by, and to report on once.

In: whatever a stage learns from. Out: `Split`, the three parts under the names that their files have in RUN/data.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

PARTS = ("train", "valid", "test")

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Split(Generic[Kind]):
    """Rows to learn from, to choose by, and to report on once; `duplicates` were left out before."""

    train: list[Kind]
    valid: list[Kind]
    test: list[Kind]
    duplicates: int = 0

    def parts(self) -> dict[str, list[Kind]]:
        """The three under the names of their files.

        >>> Split([1, 2], [3], []).parts()
        {'train': [1, 2], 'valid': [3], 'test': []}
        """
        return dict(zip(PARTS, (self.train, self.valid, self.test), strict=True))
