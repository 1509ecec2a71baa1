"""When a checkpoint is due, and how it gets to the disk while training goes on.

In: the job, and where it stands. Out: checkpoints; what their writing failed with, at the next step.
One is written at a time: the weights, the optimizer, random numbers and place in the data are copied between two steps,
and a thread writes the copy. Where memory has no room for a copy, training waits for the disk instead.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from groundup import machine as machines
from groundup.checkpoint import space
from groundup.errors import TrainingError
from groundup.train import run
from groundup.train.job import Job
from groundup.train.run import Progress, Snapshot


class Saver:
    """Knows when the next checkpoint is due, and writes it; at the end of a `with` nothing is left half-written."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.step, self.clock = progress.step, time.monotonic()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._thread:  # that error is the one to tell; the write only has to come to its end
            self._thread.join()

    def due(self) -> bool:
        """True after so many steps or so much time; not while updates are being skipped.

        Raises what the checkpoint being written meanwhile failed with.
        """
        self._raise()
        plan = self.job.plan
        if self.progress.skipped_in_a_row:
            return False
        if plan.save_steps:
            return self.progress.step % plan.save_steps == 0
        return time.monotonic() - self.clock >= plan.save_seconds

    def save(self, loss: float) -> None:
        """Write a checkpoint of this step, unless it has one; first waits for the one before it."""
        job, progress = self.job, self.progress
        if self.step == progress.step or not job.machine.is_main:
            return
        self.wait()
        progress.batches = job.batches.state()
        progress.scaler = job.scaler.state_dict()
        card = job.card | {"steps": progress.step, "tokens_seen": progress.tokens}
        card |= {} if math.isnan(loss) else {"train_loss": loss}
        taken = run.snapshot(job.model, job.optimizer, progress=progress, rng=machines.rng_state(), card=card)
        if job.async_save and taken.bytes < free_memory() // 2:
            taken = run.apart(taken, job.model, job.optimizer)
            # a daemon: Ctrl-C while we wait for it must be able to end the process; what lies aside is no checkpoint
            self._thread = threading.Thread(target=self._write, args=(taken,), name="checkpoint", daemon=True)
            self._thread.start()
        else:
            run.save(job.out, taken, job.tokenizer, keep=job.keep)
        self.step, self.clock = progress.step, time.monotonic()

    def _write(self, taken: Snapshot) -> None:
        try:
            run.save(self.job.out, taken, self.job.tokenizer, keep=self.job.keep)
        except BaseException as error:  # told by the thread that trains, at its next step
            self._error = error

    def wait(self) -> None:
        """Return when the last checkpoint is on the disk; raises what its writing failed with."""
        if self._thread:
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error


def free_memory() -> int:
    """Bytes of main memory that a copy of the weights may take from."""
    return machines.memory(torch.device("cpu"))


@contextlib.contextmanager
def room_for(out: Path, again: str) -> Iterator[None]:
    """Turn a full disk into words: the file that had no room, what is safe, and `again`, the command to go on with.

    >>> import errno, os
    >>> with room_for(Path("runs/a"), "groundup pretrain --out runs/a --resume"):
    ...     raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/samples.md")
    Traceback (most recent call last):
    groundup.errors.TrainingError: the disk is full: runs/a/samples.md (No space left on device)
      -> make room, then repeat the command
    """
    try:
        yield
    except OSError as error:
        if not space.is_full(error):
            raise
        raise TrainingError(
            f"the disk is full: {error.filename or out} ({error.strerror})", _way_on(out, again)
        ) from None


def _way_on(out: Path, again: str) -> str:
    if found := run.checkpoints(out):
        return f"{found[0]} is whole: make room, then go on with: {again}"
    return (
        f"make room, then go on with: {again}"
        if (out / run.SETTINGS).exists()
        else "make room, then repeat the command"
    )
