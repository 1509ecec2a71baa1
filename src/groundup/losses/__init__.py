"""What a model is trained for: (model, Batch) -> (sum over the supervised units, numbers to print)."""

from groundup.losses.classes import classification
from groundup.losses.cross_entropy import cross_entropy
from groundup.losses.language import Loss, next_token
from groundup.losses.log_probability import LogProbabilities, log_probabilities
from groundup.losses.policy import policy
from groundup.losses.preference import preference
from groundup.losses.ranking import ranking

__all__ = [
    "LogProbabilities",
    "Loss",
    "classification",
    "cross_entropy",
    "log_probabilities",
    "next_token",
    "policy",
    "preference",
    "ranking",
]
