"""Train a model in a run folder: resume or begin, loop, save, evaluate, sample, leave in good order.

In: a `Job`. Out: the run folder, and `Fitted`, its figures.
Order at every step: journal, save, evaluate, sample: what is being evaluated is on the disk already.
"""

import math
import time

from groundup import machine as machines
from groundup.errors import CheckpointError, Stopped
from groundup.journal import Journal, Progress
from groundup.train import run
from groundup.train.job import Fitted, Job
from groundup.train.loop import steps
from groundup.train.signals import Signals
from groundup.train.watch import Watch


def fit(job: Job) -> Fitted:
    """Run the job to its last step, from its newest checkpoint if it has one.

    Raises Stopped after a signal and TrainingError when loss or gradient stays not finite; in both cases the last good
    state is on the disk.
    """
    progress = begin(job)
    done, total = progress.step, job.plan.steps
    saver = _Saver(job, progress)
    with (
        Signals() as signals,
        Progress("train", total=total, unit="step", start=done, quiet=not job.machine.is_main) as line,
    ):
        watch = Watch(job, progress, line)
        if watch.due():
            watch.look()
        loop = steps(
            job.model,
            job.optimizer,
            iter(job.batches),
            job.loss,
            start=done,
            until=total,
            machine=job.machine,
            accumulate=job.plan.accumulate,
            clip=job.clip,
            lr=job.plan.schedule.lr,
        )
        for step in loop:
            watch.note(step)
            if signals.status or watch.due() or step.number == total or saver.due():
                saver.save(watch.loss)
                watch.pause()
            if watch.due() and not signals.status:
                watch.look()
            if signals.status:
                raise Stopped(f"stopped at step {step.number} of {total}, saved in {job.out}",
                              f"go on with: {job.resume_command}", status=signals.status)  # fmt: skip
    losses = watch.evaluations()
    return Fitted(progress.step, progress.tokens, progress.seconds, watch.rate(), progress.skipped, watch.loss,
                  losses[-1] if losses else None, min(losses, default=None))  # fmt: skip


def begin(job: Job) -> run.Progress:
    """Take up the newest checkpoint, or start at step 0; the journal then ends where the weights stand."""
    checkpoint, journal = run.latest(job.out), Journal(job.out)
    if checkpoint is None:
        journal.rewind(-1)
        return run.Progress(data=job.data)
    progress, rng = run.restore(checkpoint, job.model, job.optimizer)
    if progress.data != job.data:
        raise CheckpointError(
            f"the training data of {job.out} changed since step {progress.step}",
            "put the data back as it was, or start a new run with another --out",
        )
    job.batches.restore(progress.batches or {})
    machines.set_rng_state(rng)
    # An evaluation comes after its checkpoint and may have been cut off: the one of this very step is made again.
    journal.rewind(progress.step, redo="eval")
    run.publish(job.out, checkpoint)
    return progress


class _Saver:
    """Knows when the next checkpoint is due, and writes it."""

    def __init__(self, job: Job, progress: run.Progress) -> None:
        self.job, self.progress = job, progress
        self.step, self.clock = progress.step, time.monotonic()

    def due(self) -> bool:
        """True after so many steps or so much time; not while updates are being skipped."""
        plan = self.job.plan
        if self.progress.skipped_in_a_row:
            return False
        if plan.save_steps:
            return self.progress.step % plan.save_steps == 0
        return time.monotonic() - self.clock >= plan.save_seconds

    def save(self, loss: float) -> None:
        """Write a checkpoint of this step, unless it has one."""
        job, progress = self.job, self.progress
        if self.step == progress.step or not job.machine.is_main:
            return
        progress.batches = job.batches.state()
        card = job.card | {"steps": progress.step, "tokens_seen": progress.tokens}
        card |= {} if math.isnan(loss) else {"train_loss": loss}
        run.save(
            job.out,
            job.model,
            job.tokenizer,
            job.optimizer,
            progress=progress,
            rng=machines.rng_state(),
            card=card,
            keep=job.keep,
        )
        self.step, self.clock = progress.step, time.monotonic()
