"""Pretraining: text -> tokens -> windows -> next-token loss -> `fit`.

In: `settings.Pretrain`. Out: a run folder, and `Result`, its figures.
"""

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from groundup import losses, machine as machines, model as models, optim
from groundup.batches import Loader, RandomWindows, Windows
from groundup.errors import SettingsError
from groundup.evaluate import likelihood
from groundup.generate import generate_text
from groundup.machine import Machine
from groundup.model.config import SIZES, ALIASES, BigramConfig, ModelConfig, from_name
from groundup.settings import Pretrain
from groundup.tokens import prepare as preparing
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import plan as plans
from groundup.train import run as runs
from groundup.train.fit import fit
from groundup.train.job import Job


@dataclass(frozen=True)
class Result:
    """Figures of a run: losses in nats per token, perplexity = exp(loss), bits per byte of text (None for words)."""

    out: Path
    steps: int
    tokens: int
    parameters: int
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
    perplexity: float | None
    bits_per_byte: float | None
    seconds: float
    tokens_per_second: float


def run(settings: Pretrain) -> Result | plans.Preflight:
    """Train a model from text in `settings.out`; with `dry_run` only the preflight figures come back.

    >>> run(Pretrain.create(data=["the-verdict"], steps=200, out="runs/verdict")).validation_loss  # doctest: +SKIP
    5.9
    """
    ...
