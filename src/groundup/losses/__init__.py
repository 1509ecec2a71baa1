"""What a model is trained for: (model, Batch) -> (sum over the supervised units, numbers to print)."""

from groundup.losses.classes import classification
from groundup.losses.cross_entropy import cross_entropy
from groundup.losses.language import Loss, next_token

__all__ = ["Loss", "classification", "cross_entropy", "next_token"]
