"""Saving beside training: the bits are the same, one write at a time, and no failure is lost."""

import errno
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from groundup.checkpoint import atomic, folder, space
from groundup.errors import Stopped, TrainingError, UserError
from groundup.journal import Journal
from groundup.lock import locked
from groundup.settings import Pretrain
from groundup.stages import pretrain
from groundup.train import fit, run, saver

pytestmark = pytest.mark.slow  # processes, threads and compilers

STORY = "The fox sleeps. The owl reads a book about foxes. " * 60
SMALL = {
    "tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 16, "dropout": 0.2, "batch": 4, "steps": 12,
    "eval_every": 6, "eval_tokens": 100, "sample_every": 0, "log_every": 1, "save_every": "2",
    "device": "cpu", "dtype": "fp32", "threads": 1,
}  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """Begin a run in a folder of this name."""
    (tmp_path / "story.txt").write_text(STORY, encoding="utf-8")

    def begin(name, **changes):
        data, out = [str(tmp_path / "story.txt")], tmp_path / name
        return pretrain.run(Pretrain.create(data=data, out=out, **(SMALL | changes)))

    return begin


def resume(out, **changes):
    return pretrain.run(Pretrain.create(out=out, resume=True, **changes))


def weights(out):
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def slow_disk(monkeypatch):
    """Every checkpoint takes a while; returns the threads that wrote, and how many wrote at once at most."""
    real, seen = run.save, SimpleNamespace(threads=[], most=0, now=0)

    def save(*args, **kwargs):
        seen.threads.append(threading.current_thread().name)
        seen.now += 1
        seen.most = max(seen.most, seen.now)
        time.sleep(0.05)
        try:
            return real(*args, **kwargs)
        finally:
            seen.now -= 1

    monkeypatch.setattr(run, "save", save)
    return seen


def test_what_is_written_beside_training_is_what_was_there_when_it_was_due(start, tmp_path, slow_disk):
    start("beside", keep=6)
    assert slow_disk.threads == ["checkpoint"] * 6 and slow_disk.most == 1
    slow_disk.threads.clear()
    start("between", keep=6, async_save=False)
    assert slow_disk.threads == ["MainThread"] * 6
    for one, two in zip(run.checkpoints(tmp_path / "beside"), run.checkpoints(tmp_path / "between"), strict=True):
        assert (one / "model" / "model.safetensors").read_bytes() == (two / "model" / "model.safetensors").read_bytes()
        assert (one / "state.safetensors").read_bytes() == (two / "state.safetensors").read_bytes()


def test_when_memory_is_short_training_waits(start, monkeypatch, slow_disk):
    free = {"bytes": 10_000}  # less than twice what a checkpoint of this model takes
    monkeypatch.setattr(saver, "free_memory", lambda: free["bytes"])
    start("short")
    assert slow_disk.threads == ["MainThread"] * 6
    free["bytes"] = 10**9
    start("ample")
    assert slow_disk.threads[6:] == ["checkpoint"] * 6


def failing(monkeypatch, *, at, error):
    """The write of the checkpoint of one step fails."""
    real = run.save

    def save(out, taken, tokenizer, **kwargs):
        if taken.step == at:
            raise error
        return real(out, taken, tokenizer, **kwargs)

    monkeypatch.setattr(run, "save", save)


NO_ROOM = space.NoRoom(errno.ENOSPC, "needs 48.0 MB, 1.0 MB free", "runs/a/state/.step-6.writing/model.safetensors")


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("at", [6, 8, 12])  # before an evaluation, between two steps, at the very end
def test_a_failed_write_ends_the_run_and_leaves_the_one_before(start, tmp_path, monkeypatch, beside, at):
    start("whole")
    with monkeypatch.context() as patch, pytest.raises(TrainingError) as caught:
        failing(patch, at=at, error=NO_ROOM)
        start("run", async_save=beside)
    assert "the disk is full: runs/a/state/.step-6.writing/model.safetensors (needs 48.0 MB" in caught.value.what
    assert f"step-{at - 2:08d} is whole" in caught.value.fix and "--resume" in caught.value.fix
    assert caught.value.status == 1
    assert folder.load(tmp_path / "run").card["steps"] == at - 2
    resume(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")


def steps(out):
    return [(record["step"], record["kind"], record["loss"]) for record in Journal(out).read()]


def test_best_never_runs_ahead_of_the_checkpoint(start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        failing(patch, at=6, error=NO_ROOM)
        start("run")
    assert not (tmp_path / "run" / "best").exists()
    assert 6 not in [step for step, kind, _ in steps(tmp_path / "run") if kind == "eval"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.md", "best"])
def test_no_room_for_anything_else_is_told_the_same_way(start, tmp_path, monkeypatch, name):
    def stop(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    start("whole", sample_every=6)
    with monkeypatch.context() as patch, pytest.raises(TrainingError, match="the disk is full") as caught:
        real = Journal.write

        def write(self, step, **values):
            return stop() if step == 9 else real(self, step, **values)

        if name == "metrics.jsonl":
            patch.setattr(Journal, "write", write)
        elif name == "samples.md":
            patch.setattr(Journal, "sample", stop)
        else:
            patch.setattr(folder, "save_model", lambda path, *_args, **_kwargs: _in(path, stop))
        start("run", sample_every=6)
    assert str(tmp_path / "run" / name) in caught.value.what
    assert "is whole" in caught.value.fix or "make room" in caught.value.fix
    resume(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")
    assert (tmp_path / "run" / "samples.md").read_bytes() == (tmp_path / "whole" / "samples.md").read_bytes()


def _in(path, stop):
    with space.writing(path):
        stop()


def test_stopped_promises_only_what_is_on_the_disk(start, tmp_path, monkeypatch, slow_disk):
    """A signal at step 3: Stopped is raised when the checkpoint of step 3 verifies, not before."""

    def note(self, step, real=fit.Watch.note):
        real(self, step)
        if step.number == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as caught:
        patch.setattr(fit.Watch, "note", note)
        start("run")
    assert caught.value.status == 143
    assert run.latest(tmp_path / "run").name == "step-00000003"


def test_an_exception_waits_for_the_write_in_flight(start, tmp_path, monkeypatch, slow_disk):
    def note(self, step, real=fit.Watch.note):
        real(self, step)
        if step.number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit.Watch, "note", note)
        start("run")
    assert run.latest(tmp_path / "run").name == "step-00000002"
    assert not list((tmp_path / "run" / "state").glob(".*"))


# --- one process at a time ---------------------------------------------------------------------------------------


def test_a_second_run_in_the_folder_is_refused_and_reading_is_not(start, tmp_path):
    start("run", steps=2)
    with locked(tmp_path / "run", doing="groundup pretrain"):
        for second in (lambda: resume(tmp_path / "run", steps=4), lambda: start("run")):
            with pytest.raises(UserError, match=r"is in use by process \d+ \(groundup pretrain"):
                second()
        assert folder.load(tmp_path / "run").card["steps"] == 2
    assert resume(tmp_path / "run", steps=4).steps == 4
    assert not (tmp_path / "run" / ".lock").exists()


def test_readers_and_a_writer_of_the_same_folder_get_along(tmp_path):
    """A reader settles what looks like a killed replacement while the writer is between its two renames."""
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            atomic.settle(tmp_path / "model")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(100):
            with atomic.written_aside(tmp_path / "model") as aside:
                (aside / "a").write_text(str(number))
            if (tmp_path / "model" / "a").read_text() != str(number):
                wrong.append(number)
    finally:
        stop.set()
        reader.join()
    assert not wrong


# --- clocks ------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_changes_nothing(start, tmp_path, monkeypatch):
    start("whole")
    now = [2e9]

    def backwards():
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", backwards)
        result = start("run", save_every="0.01s")
    seconds = [record["seconds"] for record in Journal(tmp_path / "run").read() if record["kind"] == "train"]
    assert seconds == sorted(seconds) and 0 <= result.seconds < 60
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_room_for_lets_other_errors_pass(tmp_path):
    with pytest.raises(OSError, match="broken"), saver.room_for(tmp_path, "groundup pretrain --resume"):
        raise OSError(errno.EIO, "broken")
