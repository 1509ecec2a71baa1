"""From what a stage brings to a run that has ended: folder, lock, machine, plan, memory, job, and `fit`.

In: settings, and `prepare`, which makes the stage's `Task`. Out: `Preflight`, and `Fitted` unless it was a dry run.
"""

import dataclasses
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from groundup import journal
from groundup import machine as machines
from groundup.batches import Batches, Loader
from groundup.errors import SettingsError
from groundup.lock import locked
from groundup.machine import Machine
from groundup.settings import Settled, Training
from groundup.stages import setup as setups
from groundup.stages.setup import Setup
from groundup.stages.task import Task
from groundup.train import plan as plans
from groundup.train import run as runs
from groundup.train import trackers
from groundup.train.fit import fit
from groundup.train.job import Fitted, Job, Scored
from groundup.train.plan import Plan, Preflight
from groundup.train.saver import room_for

Prepare = Callable[[Any, Path, Machine], Task]


def launch(settings: Training, prepare: Prepare) -> tuple[Preflight, Fitted | None]:
    """Carry out a stage in `settings.out`, from its newest checkpoint if it has one.

    Raises UserError where anything asked for cannot be had; a folder that was only prepared is then left free.
    """
    if settings.out is None:
        raise SettingsError("no run folder was given", "add --out runs/NAME")
    out, fresh = settings.out, not (settings.out / runs.SETTINGS).exists()
    if fresh and settings.dry_run:
        return _dry_run(settings, prepare), None
    with (
        room_for(out, again(settings)),
        locked(out, doing=f"groundup {settings.command}"),
        machines.kept_memory(alike=settings.alike),
    ):
        asked, planned = runs.open_run(out, settings)
        try:
            job, checks, decided = _ready(asked, out, planned, prepare)
        except BaseException:
            if fresh:  # nothing but our own preparations: a corrected command must find its folder free
                runs.empty(out)
            raise
        if settings.dry_run:
            return checks, None
        runs.write_settings(out, decided)
        print(describe(checks), file=sys.stderr)
        return checks, fit(job)


def again(settings: Training) -> str:
    """The command that goes on with a run."""
    return f"groundup {settings.command} --out {shlex.quote(str(settings.out))} --resume"


def _dry_run(settings: Training, prepare: Prepare) -> Preflight:
    """The preflight of a run that leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        _, checks, _ = _ready(settings.replace(out=Path(folder)), Path(folder), 0, prepare)
    return checks


def _ready(asked: Training, out: Path, planned: int, prepare: Prepare) -> tuple[Job, Preflight, Settled]:
    """Everything up to the first step: the stage's task, machine, decisions, model; nothing in it trains."""
    started = time.monotonic()
    trackers.check(asked.tracker)
    plans.check_budget(asked)
    machine = machines.choose(device=asked.device, dtype=asked.dtype, threads=asked.threads)
    task = prepare(asked, out, machine)
    setup = setups.build(task, machine=machine)
    decided = setups.decide(task, setup, machine=machine, started=started)
    if decided.steps < planned:
        raise SettingsError(
            f"the run is planned for {planned} steps, more than the {decided.steps} asked for",
            "a resumed run may only get more",
        )
    _tell_of_a_rise(decided, planned, windows=len(task.source))
    plan = plans.make(decided, windows=len(task.source), row=task.row)
    checks = plans.preflight(
        setup.model,
        plan,
        data=task.counts,
        memory=setup.memory,
        seconds=plan.steps * plan.accumulate * setup.micro,
        compiled=setup.forward is not setup.model,
    )
    sampling = str(getattr(decided, "sampling", None) or getattr(decided, "batching", ""))
    checks = dataclasses.replace(checks, context=decided.context, sampling=sampling, filler=task.filler)
    if task.batches is not None:
        checks = dataclasses.replace(checks, uncounted="making the batches")
    machines.seed_all(decided.seed)  # dropout; weights, order and samples have generators of their own
    return _job(task, decided, setup, plan, machine=machine), checks, decided


def _job(task: Task, settings: Settled, setup: Setup, plan: Plan, *, machine: Machine) -> Job:
    """Put together what `fit` is told."""
    evaluate = None if task.evaluate is None else partial(_evaluated, evaluate=task.evaluate, rows=plan.micro_batch)
    return Job(
        out=settings.out,
        model=setup.model,
        forward=setup.forward,
        tokenizer=task.tokenizer,
        optimizer=setup.optimizer,
        batches=_batches(task, settings, plan, machine),
        loss=task.loss,
        plan=plan,
        machine=machine,
        evaluate=evaluate,
        sample=task.sample,
        card={
            "groundup": _version(),
            "stage": settings.command,
            "sources": task.sources,
            "settings": settings.model_dump(mode="json", exclude_none=True),
            "machine": machines.describe(),
        }
        | task.card,
        data=task.fingerprint,
        clip=settings.clip,
        keep=settings.keep,
        async_save=settings.async_save,
        tracker=settings.tracker or "",
        resume_command=again(settings),
    )


def _batches(task: Task, settings: Settled, plan: Plan, machine: Machine) -> Batches:
    """What the loop draws from: what the stage makes itself, or its samples in an order fixed by the seed."""
    if task.batches is not None:
        return task.batches(plan.micro_batch, settings.seed)
    return Loader(
        task.source,
        batch=plan.micro_batch,
        seed=settings.seed,
        rank=machine.rank,
        world=machine.world,
        lengths=task.lengths,
    )


def _evaluated(model: nn.Module, *, evaluate: Callable[[nn.Module, int], Scored], rows: int) -> Scored:
    return evaluate(model, rows)


def _tell_of_a_rise(decided: Settled, planned: int, *, windows: int) -> None:
    """Say so where a run that goes on for longer than planned has a rate that had already fallen."""
    found = runs.checkpoints(decided.out)
    if not found or decided.steps == planned:
        return
    step = int(found[0].name.rpartition("-")[2])
    before, now = (
        plans.make(decided.replace(steps=end), windows=windows).schedule.lr(step) for end in (planned, decided.steps)
    )
    if now > 1.5 * before:
        print(
            f"rate      goes up again at step {step:,}, from {before:.2g} to {now:.2g}: it had fallen for an end at "
            f"step {planned:,}, and the loss will rise before it falls",
            file=sys.stderr,
        )


def describe(checks: Preflight) -> str:
    """The preflight in words a person reads before the run starts."""
    learning = "" if checks.trained == checks.parameters else f", {checks.trained:,} of them learn"
    return "\n".join([
        f"model     {checks.parameters:,} parameters ({checks.parameters_without_embeddings:,} without embeddings)"
        f"{learning}, vocabulary {checks.vocabulary:,}, context {checks.context:,}",
        f"data      {checks.training_tokens:,} training tokens, {checks.validation_tokens:,} for validation, "
        f"sampling {checks.sampling}" + (f" ({checks.filler:.1%} filler)" if checks.filler else ""),
        f"plan      {checks.steps:,} steps of {checks.tokens_per_step:,} tokens = {checks.epochs:.2f} epochs",
        f"needs     about {checks.memory_bytes / 2**20:,.0f} MiB of {checks.memory_free / 2**20:,.0f} MiB free, "
        f"about {journal.clock(checks.seconds)}" + (f", {checks.uncounted} not counted" if checks.uncounted else ""),
    ])  # fmt: skip


def _version() -> str:
    from groundup import __version__

    return __version__
