"""What a stage sets up before the first step: the network, measured and compiled where that pays, and what is decided.

In: settings, rows, a loss, a machine. Out: `Setup`, and the settings with everything filled in.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from groundup import machine as machines
from groundup import optim
from groundup.batches import Batch
from groundup.batches.windows import Source
from groundup.errors import SettingsError, UserError
from groundup.losses import Loss
from groundup.machine import Machine
from groundup.model.config import BigramConfig, ModelConfig
from groundup.settings import Decided, Pretrain
from groundup.stages.start import Start
from groundup.train import compiling, memory, timing
from groundup.train import plan as plans


@dataclass(frozen=True)
class Setup:
    """The network and what trains it: `forward` is the network itself or its compiled form, `micro` its seconds.

    `config` is the network's, with the context of the rows it is trained on.
    """

    config: ModelConfig | BigramConfig
    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    micro: float
    memory: tuple[int, int]  # bytes wanted and free


def build(settings: Pretrain, start: Start, source: Source, loss: Loss, *, machine: Machine) -> Setup:
    """Build the network or take that of `start`, measure a micro-batch, and compile where that was asked for or pays.

    Raises UserError where the memory is too small, before any is taken, and for --compile on with packed rows.
    """
    config = start.seen(settings.context)
    plan = plans.make(plans.resolve(settings, windows=len(source), config=config), windows=len(source))
    needed = memory.check(config, plan, machine, recompute=settings.recompute)
    built: Any = start.built(settings.seed)
    built.recompute = settings.recompute
    model: nn.Module = built.to(machine.device)
    batch, forward = source.batch(np.arange(plan.micro_batch) % len(source)), model
    with memory.explained(model, plan):
        micro = timing.micro_batch(model, loss, batch, machine, repeats=5 if settings.minutes else 1)
        expected = (settings.minutes or 0) * 60 or micro * plan.steps * plan.accumulate
        if not settings.dry_run and _compiles(settings, config, machine, expected):
            forward, micro = _compiled(model, loss, batch, machine, must=settings.resume) or (model, micro)
    return Setup(config, model, forward, _optimizer(settings, model, lr=plan.schedule.peak), micro, needed)


def _compiles(settings: Pretrain, config: ModelConfig | BigramConfig, machine: Machine, seconds: float) -> bool:
    """Whether a run of so many seconds is to be compiled."""
    if settings.sampling == "packed" and settings.compile == "on":
        raise SettingsError(
            "--compile on does not go with --sampling packed", "documents done one by one are quicker: leave one out"
        )
    if settings.compile != "auto" or settings.sampling == "packed":
        return settings.compile == "on"
    return compiling.pays(config, machine, seconds)


def _compiled(
    model: nn.Module, loss: Loss, batch: Batch, machine: Machine, *, must: bool
) -> tuple[nn.Module, float] | None:
    """The compiled network and its seconds for a micro-batch; None where compiling fails.

    must: compiled code rounds in its own way, so a run that began with it cannot go on without: raises UserError.
    """
    print("compiling the network (--compile off does without)", file=sys.stderr, flush=True)
    forward = compiling.compiled(model)
    try:
        return forward, timing.micro_batch(forward, loss, batch, machine, repeats=5)
    except RuntimeError as error:
        if memory.is_out_of_memory(error):
            raise
        why = machines.reason(error)
        if must:
            raise UserError(
                f"this run was compiled, and now it cannot be: {why}", "bring the C++ compiler back"
            ) from error
        print(f"not compiled: {why}", file=sys.stderr, flush=True)
        return None


def _optimizer(settings: Pretrain, model: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    make = optim.muon if settings.optimizer == "muon" else optim.adamw
    return make(model, lr=lr, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay)


def decide(settings: Pretrain, setup: Setup, *, windows: int, valid: int, machine: Machine, started: float) -> Decided:
    """Fill in everything that was left open, once: what a resumed run must not decide anew.

    windows: rows of an epoch; valid: tokens to evaluate on; started: when the run began, in `time.monotonic`.
    """
    config = setup.config
    compile = "off" if setup.forward is setup.model else "on"
    settings = settings.replace(
        device=machine.device.type, dtype=machine.dtype_name, threads=machine.threads, compile=compile
    )
    decided = plans.resolve(settings, windows=windows, config=config)
    if settings.minutes is None or settings.steps is not None:
        return decided
    plan = plans.make(decided, windows=windows)
    with memory.explained(setup.model, plan):
        update = timing.update(setup.model, partial(_optimizer, settings, lr=plan.schedule.peak), machine)
    per_token = setup.micro / (3 * plan.micro_batch * config.context)  # forward alone is a third
    look, step = per_token * min(settings.eval_tokens, valid), plan.accumulate * setup.micro + update
    steps, looks = timing.steps_within(
        settings.minutes,
        spent=time.monotonic() - started,
        step=step + (look / settings.eval_every if settings.eval_every else 0),
        look=0 if settings.eval_every else look,
    )
    every = settings.eval_every or max(1, steps // looks)
    return plans.resolve(settings.replace(steps=steps, eval_every=every), windows=windows, config=config)
