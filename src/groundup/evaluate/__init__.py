"""A model becomes numbers: the likelihood of text (likelihood.py), and whether a device computes right (truth.py)."""

from groundup.evaluate.likelihood import Score, each_token_once, evaluate

__all__ = ["Score", "each_token_once", "evaluate"]
