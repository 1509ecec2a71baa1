"""The whole road from text to weights: resolved once, resumed bit for bit, refused by name."""

import dataclasses
import json
import math

import pytest
import torch

from groundup.checkpoint import folder
from groundup.errors import CheckpointError, SettingsError, Stopped, TrainingError, UserError
from groundup.journal import Journal
from groundup.settings import Pretrain, read_toml
from groundup.stages import pretrain
from groundup.train import fit, loop, signals

STORY = "The fox sleeps. The owl reads a book about foxes. " * 60
SMALL = {
    "tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 16, "dropout": 0.2, "batch": 4, "steps": 12,
    "eval_every": 4, "eval_tokens": 100, "sample_tokens": 5, "log_every": 1,
    "device": "cpu", "dtype": "fp32", "threads": 1,
}  # fmt: skip


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return path


def settings(text, out, **changes):
    return Pretrain.create(data=[str(text)], out=out, **(SMALL | changes))


def weights(out):
    return folder.load(out).model.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def records(out):
    clocks = ("seconds", "tokens_per_second")
    return [{key: value for key, value in record.items() if key not in clocks} for record in Journal(out).read()]


def test_a_run_leaves_what_it_promises(text, tmp_path):
    result = pretrain.run(settings(text, tmp_path / "run"))
    assert isinstance(result, pretrain.Result)
    assert result.steps == 12 and result.tokens == 12 * 4 * 16
    assert result.validation_loss < math.log(20)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"settings.toml", "data", "model", "best", "state", "metrics.jsonl", "samples.md", "report.html"}
    kinds = [(record["step"], record["kind"]) for record in Journal(tmp_path / "run").read()]
    assert [step for step, kind in kinds if kind == "train"] == list(range(1, 13))
    assert [step for step, kind in kinds if kind == "eval"] == [0, 4, 8, 12]
    assert folder.load(tmp_path / "run").card["steps"] == 12


class Cut(Exception):
    """The plug is pulled."""


def cut_after(monkeypatch, step):
    """Raise in the middle of the step after `step`, when the batch has been drawn and dropout has been used."""
    real = loop._gradient
    done = {"calls": 0}

    def gradient(*args, **kwargs):
        value = real(*args, **kwargs)
        done["calls"] += 1
        if done["calls"] > step:
            raise Cut
        return value

    monkeypatch.setattr(loop, "_gradient", gradient)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 7, 11])
@pytest.mark.parametrize(
    "change", [{"sampling": "windows"}, {"sampling": "random"}, {"optimizer": "muon", "schedule": "wsd"}]
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(text, tmp_path, monkeypatch, step, change):
    pretrain.run(settings(text, tmp_path / "whole", save_every="2", **change))
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, step)
        pretrain.run(settings(text, tmp_path / "cut", save_every="2", **change))
    torch.manual_seed(999)  # the new process has other random numbers
    pretrain.run(Pretrain.create(out=tmp_path / "cut", resume=True))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert same(weights(tmp_path / "whole" / "best"), weights(tmp_path / "cut" / "best"))
    assert records(tmp_path / "whole") == records(tmp_path / "cut")
    assert (tmp_path / "whole" / "samples.md").read_text() == (tmp_path / "cut" / "samples.md").read_text()


@pytest.mark.slow
def test_another_rhythm_of_saving_and_looking_trains_the_same_weights(text, tmp_path):
    pretrain.run(settings(text, tmp_path / "a", save_every="1", eval_every=1))
    pretrain.run(settings(text, tmp_path / "b", save_every="500", eval_every=12, sample_every=0))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_micro_batches_change_nothing_but_rounding(text, tmp_path):
    whole = pretrain.run(settings(text, tmp_path / "a", dropout=0.0))
    split = pretrain.run(settings(text, tmp_path / "b", dropout=0.0, micro_batch=1))
    assert split.validation_loss == pytest.approx(whole.validation_loss, rel=1e-5)


def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(text, tmp_path, monkeypatch):
    class Ordered(signals.Signals):
        """SIGTERM arrives while step 3 is being computed."""

        calls = 0

        @property
        def status(self):
            return 143 if Ordered.calls >= 3 else 0

        @status.setter
        def status(self, value):
            pass

    real = loop._gradient

    def gradient(*args, **kwargs):
        Ordered.calls += 1
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_gradient", gradient)
        patch.setattr(fit, "Signals", Ordered)
        with pytest.raises(Stopped, match="--resume") as caught:
            pretrain.run(settings(text, tmp_path / "run"))
    assert caught.value.status == 143
    assert folder.load(tmp_path / "run").card["steps"] == 3
    pretrain.run(settings(text, tmp_path / "whole"))
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_losses_that_stay_not_finite_end_the_run_with_the_last_good_state(text, tmp_path, monkeypatch):
    real = loop._gradient
    calls = {"count": 0}

    def gradient(*args, **kwargs):
        calls["count"] += 1
        mean, metrics = real(*args, **kwargs)
        return (mean * math.nan if calls["count"] > 4 else mean), metrics

    monkeypatch.setattr(loop, "_gradient", gradient)
    with pytest.raises(TrainingError, match="step 9: loss is nan"):
        pretrain.run(settings(text, tmp_path / "run", save_every="1", eval_every=100))
    assert folder.load(tmp_path / "run").card["steps"] == 4
    skipped = [record["step"] for record in Journal(tmp_path / "run").read() if "skipped" in record]
    assert skipped == [5, 6, 7, 8, 9]


def test_a_resumed_run_may_get_more_steps(text, tmp_path):
    pretrain.run(settings(text, tmp_path / "run"))
    result = pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=16))
    assert result.steps == 16
    steps = [record["step"] for record in Journal(tmp_path / "run").read() if record["kind"] == "train"]
    assert steps == list(range(1, 17))


@pytest.mark.parametrize(("schedule", "rises"), [("cosine", True), ("wsd", True), ("constant-like", False)])
def test_a_rate_that_rises_again_is_told(text, tmp_path, capsys, schedule, rises):
    """After its last step the rate is at its lowest; 16 instead of 8 steps put it back in the middle."""
    low = {"schedule": schedule} if rises else {"schedule": "cosine", "min_lr": 1.0}
    pretrain.run(settings(text, tmp_path / "run", **low))
    capsys.readouterr()
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=16))
    assert ("goes up again" in capsys.readouterr().err) is rises


def test_a_finished_run_resumed_stays_as_it_is(text, tmp_path):
    pretrain.run(settings(text, tmp_path / "run"))
    before, said = weights(tmp_path / "run"), records(tmp_path / "run")
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True))
    assert same(before, weights(tmp_path / "run")) and records(tmp_path / "run") == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, "cannot change 'lr'"),
        ({"seed": 2}, "cannot change 'seed'"),
        ({"batch": 8}, "cannot change 'batch'"),
        ({"dropout": 0.0}, "cannot change 'dropout'"),
        ({"size": "3m"}, "cannot change 'size'"),
        ({"steps": 3}, "more than the 3 asked for"),
    ],
)
def test_a_resumed_run_refuses_to_become_another(text, tmp_path, change, message):
    pretrain.run(settings(text, tmp_path / "run"))
    with pytest.raises(SettingsError, match=message):
        pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, **change))
    assert read_toml(tmp_path / "run" / "settings.toml")["steps"] == 12


def test_changed_training_data_is_refused(text, tmp_path):
    pretrain.run(settings(text, tmp_path / "run"))
    text.write_text(STORY + "More of it.", encoding="utf-8")
    with pytest.raises(UserError):
        pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=20))


def test_resume_without_a_checkpoint_starts_at_step_0(text, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 2)
        pretrain.run(settings(text, tmp_path / "run", save_every="100", eval_every=100))
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True))
    pretrain.run(settings(text, tmp_path / "whole", save_every="100", eval_every=100))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    assert records(tmp_path / "whole") == records(tmp_path / "run")


def test_folders_of_others_are_left_alone(text, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="is no run folder"):
        pretrain.run(settings(text, tmp_path / "mine"))
    pretrain.run(settings(text, tmp_path / "run", steps=1))
    with pytest.raises(SettingsError, match="holds another run"):
        pretrain.run(settings(text, tmp_path / "run"))


def test_an_altered_checkpoint_is_refused_and_the_older_whole_one_named(text, tmp_path):
    pretrain.run(settings(text, tmp_path / "run", save_every="1", keep=2))
    newest = sorted((tmp_path / "run" / "state").iterdir())[-1]
    assert len(list((tmp_path / "run" / "state").iterdir())) == 2
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    before = weights(tmp_path / "run")
    with pytest.raises(CheckpointError, match="state.safetensors was altered") as caught:
        pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True))
    assert f"rename {newest} to step-00000012.damaged" in caught.value.fix and "step-00000011" in caught.value.fix
    newest.rename(newest.with_name("step-00000012.damaged"))  # what the message says
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True))  # from step 11, to the same end
    assert same(before, weights(tmp_path / "run"))


def test_the_only_checkpoint_altered_is_an_error_with_its_name(text, tmp_path):
    pretrain.run(settings(text, tmp_path / "run"))
    (newest,) = (tmp_path / "run" / "state").iterdir()
    (newest / "state.json").write_text((newest / "state.json").read_text().replace("12", "13"))
    with pytest.raises(CheckpointError, match="state.json was altered"):
        pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=20))


def test_dry_run_leaves_nothing_behind(text, tmp_path):
    checks = pretrain.run(settings(text, tmp_path / "run", dry_run=True))
    assert checks.steps == 12 and checks.context == 16 and checks.memory_bytes > 0 and checks.seconds > 0
    assert not (tmp_path / "run").exists()


def test_more_memory_than_there_is_is_refused_with_advice(text, tmp_path):
    with pytest.raises(UserError, match="GiB are free") as caught:
        pretrain.run(settings(text, tmp_path / "run", width=65536, heads=512, layers=48))
    assert "--micro-batch" in str(caught.value)


def test_a_text_shorter_than_a_window_is_refused_with_its_length(tmp_path):
    (tmp_path / "short.txt").write_text("too short", encoding="utf-8")
    with pytest.raises(UserError, match="needs 17"):
        pretrain.run(settings(tmp_path / "short.txt", tmp_path / "run"))


@pytest.mark.parametrize("budget", [{"tokens": 640, "steps": None}, {"epochs": 0.25, "steps": None}])
def test_budgets_become_steps(text, tmp_path, budget):
    """640 tokens are 10 steps of 4 x 16; a quarter of the (2700 - 16) / 16 = 168 windows is 42, and 10 steps of 4."""
    result = pretrain.run(settings(text, tmp_path / "run", **budget))
    assert result.steps == 10
    assert read_toml(tmp_path / "run" / "settings.toml")["steps"] == 10


def test_a_refused_run_leaves_its_folder_free(text, tmp_path):
    for wrong in ({"data": ["no/such.txt"]}, {"size": "7m"}, {"width": 15}, {"batch": 4, "micro_batch": 3}):
        with pytest.raises(UserError):
            pretrain.run(Pretrain.create(**{"data": [str(text)], "out": tmp_path / "run"} | SMALL | wrong))
        assert not (tmp_path / "run").exists()
    pretrain.run(settings(text, tmp_path / "run", steps=1))


@pytest.mark.slow
def test_minutes_become_steps_once(text, tmp_path):
    result = pretrain.run(settings(text, tmp_path / "run", steps=None, minutes=0.1, eval_every=None))
    decided = (tmp_path / "run" / "settings.toml").read_text(encoding="utf-8")
    assert f"steps = {result.steps}\n" in decided and "minutes = 0.1\n" in decided
    again = pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, minutes=0.1))
    assert again.steps == result.steps


def test_too_few_minutes_for_one_step_are_refused_and_leave_nothing(text, tmp_path):
    with pytest.raises(SettingsError, match="--minutes 0.0001 is too little"):
        pretrain.run(settings(text, tmp_path / "run", steps=None, minutes=0.0001))
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_two_budgets_are_one_too_many(text, tmp_path):
    with pytest.raises(SettingsError, match="--steps and --tokens"):
        pretrain.run(settings(text, tmp_path / "run", tokens=5))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "bigram"])
def test_every_family_learns(text, tmp_path, family):
    """With 26 symbols ln 26 = 3.26 is a model without a clue; a hundred steps must get well below."""
    result = pretrain.run(
        settings(text, tmp_path / family, family=family, steps=100, lr=0.02, eval_every=100, dropout=0.0)
    )
    assert result.validation_loss < 2.6
    assert json.loads((tmp_path / family / "model" / "config.json").read_text())["model_type"] in (
        family,
        "groundup_bigram",
    )


def test_results_are_plain_records(text, tmp_path):
    result = pretrain.run(settings(text, tmp_path / "run", steps=1))
    assert dataclasses.asdict(result)["steps"] == 1
