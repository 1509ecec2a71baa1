"""What a stage brings to a run, in one record: a batch source, a loss, a network, and how to look at it.

In: nothing. Out: `Task`, which `setup` and `launch` read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from groundup.batches import Batches
from groundup.batches.windows import Source
from groundup.losses import Loss
from groundup.model.config import BigramConfig, ModelConfig
from groundup.settings import Training
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.job import Scored


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a stage brings: everything else is the same for all of them.

    settings: what was asked, with what the stage decided. config: the network's, with the context of its rows.
    network: makes it, or hands it over, when memory was found to be enough. lengths (n,): tokens of each sample, where
    they differ: rows of like length are then drawn together. evaluate(model, rows at once): draws no random number.
    counts: tokens to train on and to validate on; look: tokens one evaluation reads. row: tokens of a sample on
    average; filler: share of the places that hold none, where rows are packed. trained: share of the parameters that
    learn, and the blocks through which gradients go.
    batches(micro-batch, seed): what is learnt from, where that is not `source` in an order of its own; `source` then
    says what an epoch is, and what a batch costs.
    fingerprint: of the data; a resumed run whose data changed is refused.
    """

    settings: Training
    config: ModelConfig | BigramConfig
    network: Callable[[], nn.Module]
    tokenizer: Tokenizer
    source: Source
    loss: Loss
    evaluate: Callable[[nn.Module, int], Scored] | None
    sample: Callable[[nn.Module], str] | None
    counts: tuple[int, int]
    look: float
    fingerprint: str
    lengths: np.ndarray | None = None
    batches: Callable[[int, int], Batches] | None = None
    row: float | None = None
    filler: float = 0.0
    trained: tuple[float, int | None] = (1.0, None)
    compiles: bool = True
    sources: list[str] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)
