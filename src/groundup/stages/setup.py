"""What a stage sets up before the first step: the network, measured and compiled where that pays, and what is decided.

In: a stage's task, a machine. Out: `Setup`, and the settings with everything filled in.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from groundup import machine as machines
from groundup import optim
from groundup.batches import Batch
from groundup.batches.windows import Numbers
from groundup.errors import SettingsError, UserError
from groundup.losses import Loss
from groundup.machine import Machine
from groundup.settings import Settled, Training
from groundup.stages.task import Task
from groundup.train import compiling, memory, timing
from groundup.train import plan as plans


@dataclass(frozen=True)
class Setup:
    """The network and what trains it: `forward` is the network itself or its compiled form, `micro` its seconds."""

    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    micro: float
    looking: float  # seconds of an evaluation
    memory: tuple[int, int]  # bytes wanted and free


def build(task: Task, *, machine: Machine) -> Setup:
    """Make the network, measure a micro-batch, and compile where that was asked for or pays.

    Raises UserError where the memory is too small, before any is taken, and for --compile on where it cannot be.
    """
    settings, config, rows = task.settings, task.config, len(task.source)
    plan = plans.make(plans.resolve(settings, windows=rows, config=config), windows=rows)
    needed = memory.check(config, plan, machine, recompute=settings.recompute, trained=task.trained)
    built = task.network()
    built.recompute = settings.recompute  # type: ignore[assignment]
    model = built.to(machine.device)
    batch, forward = task.source.batch(_usual(task, plan.micro_batch)), model
    with memory.explained(model, plan):
        micro = timing.micro_batch(model, task.loss, batch, machine, repeats=5 if settings.minutes else 1)
        expected = (settings.minutes or 0) * 60 or micro * plan.steps * plan.accumulate
        if not settings.dry_run and _compiles(task, machine, expected):
            forward, micro = _compiled(model, task.loss, batch, machine, must=settings.resume) or (model, micro)
    looking = micro / 3 * task.look / batch.size  # forward alone is a third
    return Setup(model, forward, _optimizer(settings, model, lr=plan.schedule.peak), micro, looking, needed)


def _usual(task: Task, size: int) -> Numbers:
    """Samples (B,) for a batch like most: the first, or, where lengths differ, those of middle length."""
    if task.lengths is None:
        return np.arange(size) % len(task.source)
    order = np.argsort(task.lengths, kind="stable")
    first = max(0, (len(order) - size) // 2)
    return order[(first + np.arange(size)) % len(order)]


def _compiles(task: Task, machine: Machine, seconds: float) -> bool:
    """Whether a run of so many seconds is to be compiled."""
    asked = task.settings.compile
    if not task.compiles and asked == "on":
        raise SettingsError(
            "--compile on does not go with rows of many lengths, nor with documents done one by one", "leave it out"
        )
    return compiling.pays(task.config, machine, seconds) if asked == "auto" and task.compiles else asked == "on"


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


def _optimizer(settings: Training, model: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    make = optim.muon if settings.optimizer == "muon" else optim.adamw
    return make(model, lr=lr, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay)


def decide(task: Task, setup: Setup, *, machine: Machine, started: float) -> Settled:
    """Fill in everything that was left open, once: what a resumed run must not decide anew.

    started: when the run began, in `time.monotonic`.
    """
    config, windows = task.config, len(task.source)
    compile = "off" if setup.forward is setup.model else "on"
    settings = task.settings.replace(
        device=machine.device.type, dtype=machine.dtype_name, threads=machine.threads, compile=compile
    )
    decided = plans.resolve(settings, windows=windows, config=config)
    if settings.minutes is None or settings.steps is not None:
        return decided
    plan = plans.make(decided, windows=windows)
    with memory.explained(setup.model, plan):
        update = timing.update(setup.model, partial(_optimizer, settings, lr=plan.schedule.peak), machine)
    look, step = setup.looking, plan.accumulate * setup.micro + update
    steps, looks = timing.steps_within(
        settings.minutes,
        spent=time.monotonic() - started,
        step=step + (look / settings.eval_every if settings.eval_every else 0),
        look=0 if settings.eval_every else look,
    )
    every = settings.eval_every or max(1, steps // looks)
    return plans.resolve(settings.replace(steps=steps, eval_every=every), windows=windows, config=config)
