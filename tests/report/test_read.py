"""Whatever a run folder holds or lacks, it is read; only what is no run is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from groundup import tokens
from groundup.errors import DataError
from groundup.journal import Journal
from groundup.report.figures import figures
from groundup.report.page import judge, single
from groundup.report.parts import words_for
from groundup.report.read import Run, Table, load
from groundup.text.read import sources
from groundup.tokens.prepare import prepare

STORY = "It was a bright cold day in April, and the clocks were striking thirteen. "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two steps and two evaluations, with text, weights and a sample."""
    run, text = tmp_path / "two", tmp_path / "story.txt"
    run.mkdir()
    text.write_text(STORY * 20, encoding="utf-8")
    (run / "settings.toml").write_text('data = ["story.txt"]\nsteps = 2\nlr = 0.5\ncontext = 8\n', encoding="utf-8")
    prepare(sources([str(text)]), tokens.train("chars", [STORY]), run / "data")
    journal = Journal(run)
    journal.write(0, kind="eval", loss=3.0, perplexity=20.1, bits_per_byte=4.33, tokens=0)
    for step in (1, 2):
        journal.write(step, kind="train", loss=3.0 - step, lr=0.5, tokens=16 * step, seconds=4.0 * step)
    journal.write(2, kind="eval", loss=1.5, perplexity=4.48, bits_per_byte=2.16, tokens=32)
    journal.sample(2, "", "a sample\n```\nwith a fence")
    (run / "model").mkdir()
    (run / "model" / "config.json").write_text(json.dumps({"vocab_size": 27, "hidden_size": 4}), encoding="utf-8")
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}, run / "model" / "model.safetensors")
    return run


def whole(run: Path) -> str:
    """The page of a run, made without writing it."""
    known = load(run)
    return single(known, *judge(known))


def test_everything_there_is(folder: Path):
    run = load(folder)
    assert run.train.step.tolist() == [1, 2] and run.train.loss.tolist() == [2.0, 1.0]
    assert run.evaluations.step.tolist() == [0, 2]
    assert run.parameters == 3 * 4 + 5 and run.vocabulary == 27
    assert run.samples[0].step == 2 and run.samples[0].text == "a sample\n```\nwith a fence"
    characters = len(STORY) * 20
    assert run.train_tokens == int(characters * 0.9) and run.valid_tokens == characters - int(characters * 0.9)
    assert run.sources[0]["name"].endswith("story.txt") and len(run.sources[0]["sha256"]) == 64
    assert run.finished and run.planned == 2


def test_the_figures(folder: Path):
    found = figures(load(folder))
    assert (found.best_loss, found.best_step, found.perplexity, found.bits_per_byte) == (1.5, 2, 4.48, 2.16)
    assert (found.tokens, found.seconds, found.tokens_per_second) == (32, 8.0, 4.0)
    assert found.epochs == pytest.approx(32 / int(len(STORY) * 18))
    assert found.train_loss == 1.0


def test_shards_made_before_are_found_by_the_settings(folder: Path):
    there = folder.parent / "shards"
    shutil.move(folder / "data", there)
    assert load(folder).train_tokens is None
    (folder / "settings.toml").write_text(f"data = [{json.dumps(str(there))}]\n", encoding="utf-8")
    assert load(folder).train_tokens == len(STORY) * 18


@pytest.mark.parametrize(
    "part",
    ["settings.toml", "metrics.jsonl", "samples.md", "data", "model", "data/train.tokens", "data/tokenizer.json"],
)
def test_any_part_may_be_missing_or_damaged(folder: Path, part: str):
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "</html>" in whole(folder)
    if path.suffix:
        path.write_bytes(b"\xff\x00 nonsense")
        assert "</html>" in whole(folder)


def test_a_line_that_was_cut_off_and_records_of_other_times(folder: Path):
    lines = [
        '{"step": 3, "loss": 0.5}',  # no kind: an old train record
        '{"step": 4, "loss": 0.25, "perplexity": 1.3}',  # no kind: an old evaluation
        '{"step": 5, "kind": "train", "loss": null, "skipped": "loss is nan"}',
        '{"step": 6, "kind": "train", "loss": "0.5", "lr": true, "tokens": 1e999, "seconds": [1]}',
        '{"step": 7, "kind": "resume"}',
        '{"step": 8, "kind": "something new", "loss": 1}',
        '{"step": 99999999999999999999999, "kind": "train", "loss": 1}',
        '{"step": 9, "kind": "train", "lo',
    ]
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines))
    run = load(folder)
    assert run.train.step.tolist() == [1, 2, 3, 5, 6]
    assert run.train.whole()[1].tolist() == [2.0, 1.0, 0.5]
    assert run.evaluations.loss.tolist() == [3.0, 1.5, 0.25]
    assert run.skipped == ((5, "loss is nan"),) and run.resumed == (7,)
    page = whole(folder)
    assert "loss is nan" in page and "a new process took the run up" in page


def test_settings_of_strange_kinds(folder: Path):
    text = 'steps = "many"\ndata = 3\nlr = [1]\nclip = "x"\nsample_prompt = 7\nwarmup = true\nvocabulary = {a = 1}\n'
    (folder / "settings.toml").write_text(text, encoding="utf-8")
    run = load(folder)
    assert run.planned is None and "</html>" in whole(folder)


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="is no run folder: it has neither settings.toml nor metrics.jsonl"):
        load(tmp_path)
    with pytest.raises(DataError, match="no folder at"):
        load(tmp_path / "none")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="is a file, no run folder"):
        load(tmp_path / "file")


def test_a_run_that_has_only_its_settings(tmp_path: Path):
    (tmp_path / "settings.toml").write_text("steps = 5\n", encoding="utf-8")
    assert "No training step has been written down yet" in whole(tmp_path)


def test_an_epoch_of_overlapping_windows():
    assert Run(train_tokens=100, settings={"context": 8, "stride": 2}).epoch == 400
    assert Run(train_tokens=100).epoch == 100 and Run().epoch is None


def test_records_come_sorted():
    table = Table([{"step": 2, "loss": 1.0}, {"step": 1, "loss": 2.0}, {"step": -1}])
    assert table.step.tolist() == [1, 2] and table.loss.tolist() == [2.0, 1.0]


def test_of_a_run_of_adapters_the_numbers_in_them_are_known(tmp_path: Path):
    (tmp_path / "model").mkdir()
    rank = {"base_model.model.a.lora_A.weight": np.zeros((4, 32), np.float32), "b": np.zeros((16, 4), np.float32)}
    save_file(rank, tmp_path / "model" / "adapter_model.safetensors")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 1.0}\n')
    run = load(tmp_path)
    assert (run.parameters, run.adapters) == (None, 4 * 32 + 16 * 4)
    assert words_for(figures(run))["parameters"] == "192 of adapters"
