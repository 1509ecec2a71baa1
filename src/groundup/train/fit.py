"""Train a model in a run folder: resume or begin, loop, save, evaluate, sample, leave in good order.

In: a `Job`. Out: the run folder, and `Fitted`, its figures.
Order at every step: journal, save, evaluate, sample: what is being evaluated is on the disk already.
"""

from groundup import machine as machines
from groundup import report
from groundup.checkpoint import space
from groundup.errors import CheckpointError, Stopped, UserError
from groundup.journal import Journal, Progress
from groundup.train import memory, run, trackers
from groundup.train.job import Fitted, Job
from groundup.train.loop import steps
from groundup.train.saver import Saver
from groundup.train.signals import Signals
from groundup.train.watch import Watch


def fit(job: Job) -> Fitted:
    """Run the job to its last step, from its newest checkpoint if it has one.

    Raises Stopped after a signal and TrainingError when loss or gradient stays not finite; in both cases the last good
    state is on the disk.
    """
    progress = begin(job)
    done, total = progress.step, job.plan.steps
    with (
        memory.explained(job.model, job.plan, out=job.out, resume=job.resume_command),
        Signals() as signals,
        Saver(job, progress) as saver,
        Progress("train", total=total, unit="step", start=done, quiet=not job.machine.is_main) as line,
        trackers.connected(job, say=line.say) as tracker,
    ):
        watch = Watch(job, progress, line, tracker)
        if watch.due():
            watch.look()
        loop = steps(
            job.forward,
            job.optimizer,
            iter(job.batches),
            job.loss,
            start=done,
            until=total,
            machine=job.machine,
            accumulate=job.plan.accumulate,
            clip=job.clip,
            lr=job.plan.schedule.lr,
            scaler=job.scaler,
        )
        for step in loop:
            watch.note(step)
            if signals.status or watch.due() or step.number == total or saver.due():
                saver.save(watch.loss)
                watch.pause()
            if watch.due() and not signals.status:
                watch.look(saved=saver.wait)
                _report(job, line)
            if signals.status:
                saver.wait()
                raise Stopped(f"stopped at step {step.number} of {total}, saved in {job.out}",
                              f"go on with: {job.resume_command}", status=signals.status)  # fmt: skip
    losses = watch.evaluations()
    return Fitted(progress.step, progress.tokens, progress.seconds, watch.rate(), progress.skipped, watch.loss,
                  losses[-1] if losses else None, min(losses, default=None))  # fmt: skip


def _report(job: Job, line: Progress) -> None:
    """Renew the page; a run does not end for the want of it."""
    if not job.machine.is_main:
        return
    try:
        report.write(job.out)
    except UserError as error:
        line.say(f"no report: {error}")


def begin(job: Job) -> run.Progress:
    """Take up the newest checkpoint, or start at step 0; the journal then ends where the weights stand."""
    run.tidy(job.out)
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
    if progress.scaler:
        job.scaler.load_state_dict(progress.scaler)
    machines.set_rng_state(rng)
    # An evaluation comes after its checkpoint and may have been cut off: the one of this very step is made again.
    with space.writing(journal.metrics):
        journal.rewind(progress.step, redo="eval")
    run.publish(job.out, checkpoint)
    return progress
