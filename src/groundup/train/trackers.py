"""The numbers of a run in TensorBoard, Weights & Biases or trackio, for those who look at runs there.

In: what the journal gets. Out: the same in the tracker. The journal stays the record: a tracker that cannot be
reached or fails is reported once and left alone, and training goes on.
"""

import contextlib
import importlib.util
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from groundup.checkpoint import atomic
from groundup.errors import SettingsError
from groundup.journal import Journal
from groundup.train.job import Job

PROJECT = "groundup"  # unless $WANDB_PROJECT says otherwise
NAMES = "tracker.json"  # in the run folder: under which id the run is known


class Tracker(Protocol):
    """Whatever takes the records of a run."""

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """One record: `kind` is "train" or "eval"."""

    def close(self) -> None:
        """Nothing more will come."""


def check(name: str | None) -> None:
    """Raise SettingsError if a tracker is wished for whose library is not installed.

    >>> check(None)
    """
    if name and importlib.util.find_spec(name) is None:
        raise SettingsError(
            f"--tracker {name} needs a library that is not installed", f'pip install "groundup[{name}]"'
        )


@contextlib.contextmanager
def connected(job: Job, *, say: Callable[[str], None]) -> Iterator[Tracker]:
    """The tracker a job wishes for; it swallows everything when there is none or once it has failed.

    A resumed run goes on as the same run there.
    """
    guard = _Guard(job.tracker, say)
    with _apart():
        guard.open(job)
    try:
        yield guard
    finally:
        with _apart():
            guard.close()


class _Guard:
    """A tracker whose failures are told once and never stop anything."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self._tracker: Tracker | None = None

    def open(self, job: Job) -> None:
        if self.name:
            with self._forgiven():
                self._tracker = KINDS[self.name](job)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        if self._tracker:
            with self._forgiven():
                self._tracker.write(step, kind, values)

    def close(self) -> None:
        if self._tracker:
            with self._forgiven():
                self._tracker.close()

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a network, a login, a library of others: nothing that training depends on
            self._tracker = None
            said = " ".join(str(error).split())[:200]
            self.say(f"{self.name} failed ({type(error).__name__}: {said}); training goes on, metrics.jsonl has it all")


class _TensorBoard:
    """Event files in RUN/tensorboard. They are made from the journal anew by every process: no gap and no repeat."""

    def __init__(self, job: Job) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = job.out / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder), flush_secs=10)
        for record in Journal(job.out).read():
            self.write(record.pop("step"), record.pop("kind", ""), record)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        for name, value in _numbers(values).items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run at Weights & Biases, or in RUN/wandb when WANDB_MODE=offline. Steps it has already it passes over."""

    def __init__(self, job: Job) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(project=project, name=job.out.name, id=_id(job.out), resume="allow", dir=str(job.out),
                               config=job.card.get("settings"))  # fmt: skip

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in _numbers(values).items()}, step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A run in trackio's own data base on this machine (`trackio show`)."""

    def __init__(self, job: Job) -> None:
        import trackio

        self._end = trackio.finish  # the run's own `finish` would leave trackio to end it again, at exit
        self._run = trackio.init(project=PROJECT, name=f"{job.out.name}-{_id(job.out)}", resume="allow", embed=False,
                                 config=job.card.get("settings"), auto_log_cpu=False, auto_log_gpu=False)  # fmt: skip

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in _numbers(values).items()}, step=step)

    def close(self) -> None:
        self._end()


KINDS: dict[str, Callable[[Job], Tracker]] = {"tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn: no text, no list, nothing that is missing.

    >>> _numbers({"loss": 3.5, "skipped": "loss is nan", "bits_per_byte": None})
    {'loss': 3.5}
    """
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _id(out: Path) -> str:
    """The name a run keeps through all its processes: drawn once, written down."""
    file = out / NAMES
    if not file.exists():
        atomic.write_text(file, f'{{"id": "{secrets.token_hex(4)}"}}\n')
    return str(atomic.read_json(file)["id"])


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Send what a library prints to standard error: standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
