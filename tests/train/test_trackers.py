"""What the journal holds stands in the tracker, also after a resume; a tracker that fails stops nothing."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from groundup.errors import SettingsError
from groundup.journal import Journal
from groundup.settings import Pretrain
from groundup.stages import pretrain
from groundup.train import trackers

SMALL = {
    "tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 16, "batch": 4, "eval_every": 3,
    "eval_tokens": 100, "sample_every": 0, "log_every": 1, "device": "cpu", "dtype": "fp32", "threads": 1,
}  # fmt: skip


def need(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.fixture
def start(tmp_path):
    (tmp_path / "story.txt").write_text("The fox sleeps. The owl reads a book. " * 60, encoding="utf-8")

    def begin(**changes):
        data, out = [str(tmp_path / "story.txt")], tmp_path / "run"
        return pretrain.run(Pretrain.create(data=data, out=out, **(SMALL | changes)))

    return begin


def journal(out, kind, name):
    return [(r["step"], pytest.approx(r[name])) for r in Journal(out).read() if r["kind"] == kind]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries it brings along
def test_tensorboard_shows_what_the_journal_says_also_after_a_resume(start, tmp_path):
    need("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start(tracker="tensorboard", steps=4)
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=7))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert {"train/loss", "train/lr", "train/gradient_norm", "eval/loss"} <= set(events.Tags()["scalars"])
    for kind, name in (("train", "loss"), ("train", "lr"), ("eval", "loss"), ("eval", "bits_per_byte")):
        seen = [(event.step, event.value) for event in events.Scalars(f"{kind}/{name}")]
        assert seen == journal(tmp_path / "run", kind, name)
    assert [step for step, _ in journal(tmp_path / "run", "train", "loss")] == list(range(1, 8))


SCRIPT = """
import json, sys
from pathlib import Path
from groundup.settings import Pretrain
from groundup.stages import pretrain
for given in json.loads(sys.argv[1]):
    pretrain.run(Pretrain.create(**given))
"""


def elsewhere(tmp_path, *given, **environment):
    """Runs in a process of their own: these libraries start servers and threads that outlive a run."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(given)], env=os.environ | environment, cwd=tmp_path,
        capture_output=True, text=True, encoding="utf-8", check=True, timeout=120,
    )  # fmt: skip


def both(tmp_path, tracker):
    """A run of 3 steps, and the same run resumed to 5."""
    (tmp_path / "story.txt").write_text("The fox sleeps. The owl reads a book. " * 60, encoding="utf-8")
    first = {"data": [str(tmp_path / "story.txt")], "out": str(tmp_path / "run"), "steps": 3, "tracker": tracker}
    return SMALL | first, {"out": str(tmp_path / "run"), "resume": True, "steps": 5}


@pytest.mark.slow
def test_wandb_without_a_network_writes_into_the_run_folder(tmp_path):
    need("wandb")
    done = elsewhere(tmp_path, *both(tmp_path, "wandb"), WANDB_MODE="offline", WANDB_SILENT="true")
    assert "failed" not in done.stderr and done.stdout == ""
    name = json.loads((tmp_path / "run" / "tracker.json").read_text())["id"]
    written = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(written) == 2 and all(path.name.endswith(name) for path in written)  # two processes, one run
    assert all(list(path.glob("*.wandb")) for path in written)
    assert len(Journal(tmp_path / "run").read()) > 5


@pytest.mark.slow
def test_trackio_keeps_one_run_through_a_resume(tmp_path):
    need("trackio")
    import sqlite3

    done = elsewhere(tmp_path, *both(tmp_path, "trackio"), TRACKIO_DIR=str(tmp_path / "trackio"))
    assert "failed" not in done.stderr and done.stdout == ""
    (base,) = (tmp_path / "trackio").glob("groundup*.db")
    rows = sqlite3.connect(base).execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    losses = [(step, json.loads(told)["train/loss"]) for _, step, told in rows if "train/loss" in json.loads(told)]
    assert losses == journal(tmp_path / "run", "train", "loss")


class Broken:
    """A tracker that loses its network after so many records."""

    def __init__(self, job, *, after, at_close=False):
        self.left, self.at_close = after, at_close
        if after < 0:
            raise ConnectionError("no route to host")

    def write(self, step, kind, values):
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("no route to host")

    def close(self):
        if self.at_close:
            raise ConnectionError("no route to host")


@pytest.mark.parametrize(("after", "at_close"), [(-1, False), (0, False), (3, False), (99, True)])
def test_a_tracker_that_fails_is_told_once_and_stops_nothing(start, tmp_path, monkeypatch, capsys, after, at_close):
    monkeypatch.setitem(trackers.KINDS, "wandb", lambda job: Broken(job, after=after, at_close=at_close))
    monkeypatch.setattr(trackers, "check", lambda name: None)
    assert start(tracker="wandb", steps=5).steps == 5
    assert capsys.readouterr().err.count("wandb failed (ConnectionError: no route to host); training goes on") == 1
    assert [step for step, _ in journal(tmp_path / "run", "train", "loss")] == [1, 2, 3, 4, 5]


def test_a_library_that_is_missing_is_named_with_its_extra(start, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="--tracker trackio needs a library") as caught:
        start(tracker="trackio", steps=1)
    assert caught.value.fix == 'pip install "groundup[trackio]"'
    assert not (tmp_path / "run").exists()
