"""What a training run is told, and what it answers: the words between a stage and `fit`.

In: nothing. Out: `Job` and `Fitted`, plain records.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from groundup.batches import Batches
from groundup.losses import Loss
from groundup.machine import Machine
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.plan import Plan


class Scored(Protocol):
    """What an evaluation found: a loss to choose the best weights by, numbers for the journal, words for a person."""

    @property
    def loss(self) -> float:
        """Mean over the units of the validation rows, in nats."""
        ...

    def record(self) -> dict[str, float | None]:
        """Numbers for the journal, the loss among them."""
        ...

    def words(self) -> str:
        """The same in a few words."""
        ...


@dataclass
class Job:
    """Everything `fit` is told. `evaluate` and `sample` must draw no number from the global generators.

    forward: what the loss calls: `model` itself, or its compiled form, which has the same parameters.
    data: fingerprint of the training data; a resumed run whose data changed is refused.
    """

    out: Path
    model: nn.Module
    forward: nn.Module
    tokenizer: Tokenizer
    optimizer: torch.optim.Optimizer
    batches: Batches
    loss: Loss
    plan: Plan
    machine: Machine
    evaluate: Callable[[nn.Module], Scored] | None = None
    sample: Callable[[nn.Module], str] | None = None
    card: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    clip: float = 1.0
    keep: int = 1
    async_save: bool = True
    tracker: str = ""
    resume_command: str = ""
    scaler: torch.amp.GradScaler = field(init=False)  # holds state, so it belongs to one run and not to the machine

    def __post_init__(self) -> None:
        self.scaler = self.machine.loss_scaler()


@dataclass(frozen=True)
class Fitted:
    """Figures of a finished run; losses are means per token in nats, `tokens_per_second` is training alone."""

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    skipped: int
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
