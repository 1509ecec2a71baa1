"""The only training loop, as a generator: one `Step` per update, so that nobody needs callbacks.

In: model, optimizer, an endless iterator of `Batch`, a loss that returns a sum. Out: updated weights, and numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from groundup.batches.batch import Batch
from groundup.losses import Loss
from groundup.machine import Machine
from groundup.optim import clip as clip_gradient


@dataclass(frozen=True)
class Step:
    """One update: its number (the first is 1), mean loss per supervised unit, gradient norm before clipping.

    `skipped` says why nothing was changed ("loss is nan"), and is empty after a good step.
    """

    number: int
    loss: float
    gradient_norm: float
    lr: float
    units: float
    skipped: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    loss: Loss,
    *,
    until: int,
    machine: Machine,
    start: int = 0,
    accumulate: int = 1,
    clip: float = 1.0,
    lr: Callable[[int], float] | None = None,
) -> Iterator[Step]:
    """Train from step `start` to step `until`, `accumulate` micro-batches a step.

    The counts of all micro-batches (of all ranks) are added up first and the summed loss is divided once, so splitting
    a batch changes nothing. A loss or gradient that is not finite is never stepped on. `lr(n)` is the rate of the
    step with index n, counted from 0. The model is in training mode at every step, whatever happened in between.
    """
    for number in range(start + 1, until + 1):
        model.train()
        rate = _set_rate(optimizer, lr, number - 1)
        micro = [next(batches).to(machine.device) for _ in range(accumulate)]
        total = machine.sum(sum(batch.count for batch in micro))
        mean, metrics = _gradient(model, micro, loss, total=total, machine=machine)
        norm = clip_gradient(model.parameters(), clip)
        value, size = machine.sum(float(mean)), float(norm)
        skipped = _not_finite(value, size)
        if not skipped:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(number, value, size, rate, total, skipped, metrics)


def _set_rate(optimizer: torch.optim.Optimizer, lr: Callable[[int], float] | None, index: int) -> float:
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr(index)
    return float(optimizer.param_groups[0]["lr"])


def _gradient(
    model: nn.Module, micro: list[Batch], loss: Loss, *, total: float, machine: Machine
) -> tuple[Tensor, dict[str, Any]]:
    """Add up the gradient of (sum of losses) / total; returns this rank's share of the mean loss, and metrics."""
    mean = torch.zeros((), device=machine.device)
    metrics: dict[str, float] = {}
    for batch in micro:
        with machine.autocast():
            value, numbers = loss(model, batch)
        share = value / total
        share.backward()
        mean += share.detach()
        for name, number in numbers.items():
            metrics[name] = metrics.get(name, 0.0) + float(number) / total
    return mean, metrics


def _not_finite(loss: float, norm: float) -> str:
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if value != value or value in (float("inf"), float("-inf")):
            return f"{name} is {value}"
    return ""
