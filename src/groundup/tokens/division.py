"""Which part of a text trains, and which validates.

In: counts of documents and characters, the share to hold back. Out: a `Division`, which places any piece of the text.
"""

from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import Literal

from groundup.errors import DataError
from groundup.text.read import Survey

MANY = 20  # documents, from which on `auto` divides by document

Split = Literal["auto", "fraction", "document"]


@dataclass(frozen=True)
class Division:
    """Which part of the text trains and which validates."""

    kind: str  # "fraction", "document" or "none"
    boundary: int = 0  # fraction: characters before it train
    share: Fraction = Fraction(0)  # document: share that validates
    whole_words: bool = False  # fraction: go back to the start of a word that the boundary would cut

    def parts(self, document: int, at: int, text: str) -> list[tuple[str, str]]:
        """Text of document number `document`, at character `at` of the whole, as (split, text) pairs.

        >>> Division("fraction", boundary=10).parts(0, 7, "abcdef")
        [('train', 'abc'), ('valid', 'def')]
        """
        if self.kind == "document":
            return [("valid" if in_validation(document, self.share) else "train", text)]
        here = len(text) if self.kind == "none" else min(max(self.boundary - at, 0), len(text))
        while self.whole_words and 0 < here < len(text) and not text[here].isspace() and not text[here - 1].isspace():
            here -= 1
        return [(name, part) for name, part in (("train", text[:here]), ("valid", text[here:])) if part]


def in_validation(number: int, share: Fraction) -> bool:
    """Whether document `number` (from 0) validates: one of every 1/share documents, drawn by a hash of the stretch.

    It depends on nothing else, so documents added at the end move none of the old ones.

    >>> [number for number in range(40) if in_validation(number, Fraction(1, 10))]
    [8, 11, 25, 30]
    """
    stretch = number * share.numerator // share.denominator
    first = -(-stretch * share.denominator // share.numerator)  # ceil(stretch / share)
    length = -(-(stretch + 1) * share.denominator // share.numerator) - first
    draw = int.from_bytes(blake2b(stretch.to_bytes(8, "little"), digest_size=8).digest(), "little")
    return number == first + draw % length


def divide(totals: Survey, validation: float, split: Split, *, whole_words: bool = False) -> Division:
    """Decide how the surveyed text is divided; raises DataError if by document none would validate, or none train.

    The fraction is the book's (section 5.1.3): the first int((1 - validation) * characters) characters train.
    `whole_words` is for tokenizers that know only the words they saw, and no half of one.

    >>> divide(Survey(documents=1, characters=20_479), 0.1, "auto").boundary
    18431
    """
    if not validation:
        return Division("none")
    share = Fraction(str(validation))
    drawn = sum(in_validation(number, share) for number in range(totals.documents)) if split != "fraction" else 0
    if split == "document" and not 0 < drawn < totals.documents:
        whole = f"{drawn} of {totals.documents} documents would validate, with --validation {validation}"
        raise DataError(whole, "use --split fraction, or another --validation")
    if split == "document" or (split == "auto" and totals.documents >= MANY and 0 < drawn < totals.documents):
        return Division("document", share=share)
    return Division("fraction", boundary=int((1 - validation) * totals.characters), whole_words=whole_words)
