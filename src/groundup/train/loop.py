"""The only training loop, as a generator: one `Step` per update, so that nobody needs callbacks.

In: model, optimizer, an endless iterator of `Batch`, a loss that returns a sum. Out: updated weights, and numbers.
"""

import math
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

    `skipped` says why nothing was changed ("loss is nan"), and is empty after a good step. `overflow`: it was only that
    the loss scale of fp16 was too large, and the next step has a smaller one.
    """

    number: int
    loss: float
    gradient_norm: float
    lr: float
    units: float
    skipped: str = ""
    overflow: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    tokens: float = 0.0  # read, filler not counted


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
    scaler: torch.amp.GradScaler | None = None,
) -> Iterator[Step]:
    """Train from step `start` to step `until`, `accumulate` micro-batches a step.

    The counts of all micro-batches (of all ranks) are added up first and the summed loss is divided once, so splitting
    a batch changes nothing. A loss or gradient that is not finite is never stepped on. `lr(n)` is the rate of the
    step with index n, counted from 0. `scaler` holds the loss scale of fp16; without one it starts anew. The model is
    in training mode at every step, whatever happened in between.
    """
    scaler = machine.loss_scaler() if scaler is None else scaler
    for number in range(start + 1, until + 1):
        model.train()
        rate = _set_rate(optimizer, lr, number - 1)
        micro = [next(batches).to(machine.device) for _ in range(accumulate)]
        total = machine.sum(sum(batch.count for batch in micro))
        read = machine.sum(sum(batch.size for batch in micro))
        mean, metrics = _gradient(model, micro, loss, total=total, machine=machine, scaler=scaler)
        scaler.unscale_(optimizer)  # before clipping: the norm is that of the true gradient
        norm = clip_gradient(model.parameters(), clip)
        value, size = machine.sum(float(mean)), float(norm)
        skipped = _not_finite(value, size)
        if not skipped:
            optimizer.step()
        overflow = _rescale(scaler, loss=value, norm=size)
        optimizer.zero_grad(set_to_none=True)
        yield Step(number, value, size, rate, total, skipped, overflow, micro[-1].notes | metrics, read)


def _set_rate(optimizer: torch.optim.Optimizer, lr: Callable[[int], float] | None, index: int) -> float:
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr(index)
    return float(optimizer.param_groups[0]["lr"])


def _gradient(
    model: nn.Module,
    micro: list[Batch],
    loss: Loss,
    *,
    total: float,
    machine: Machine,
    scaler: torch.amp.GradScaler,
) -> tuple[Tensor, dict[str, Any]]:
    """Add up the gradient of (sum of losses) / total; returns this rank's share of the mean loss, and metrics."""
    mean = torch.zeros((), device=machine.device)
    metrics: dict[str, float] = {}
    for batch in micro:
        with machine.autocast():
            value, numbers = loss(model, batch)
        share = value / total
        scaler.scale(share).backward()
        mean += share.detach()
        for name, number in numbers.items():
            metrics[name] = metrics.get(name, 0.0) + float(number) / total
    return mean, metrics


def _rescale(scaler: torch.amp.GradScaler, *, loss: float, norm: float) -> bool:
    """Halve the loss scale after an overflow, raise it after many good steps; True if it was the fault."""
    scale = scaler.get_scale()
    if not scaler.is_enabled() or not math.isfinite(loss):
        scaler.update(scale)  # the forward pass knows no scale: a smaller one would not help
        return False
    scaler.update()
    if scaler.get_scale() < 1:
        scaler.update(1.0)  # below, scaling would do the opposite of what it is for
    return scale > 1 and not math.isfinite(norm)


def _not_finite(loss: float, norm: float) -> str:
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if value != value or value in (float("inf"), float("-inf")):
            return f"{name} is {value}"
    return ""
