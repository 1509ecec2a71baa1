"""DPO by hand: where it begins, which way it pulls, where it ends; and what the lesson does where there are weights."""

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup import figures, tokens
from groundup.checkpoint import folder
from groundup.figures.compare import agree
from groundup.lessons.ladder import run
from groundup.model import build
from groundup.model.config import ModelConfig

SMALL = ModelConfig(family="gpt2", vocabulary=50257, context=512, width=8, layers=1, heads=2)


@pytest.fixture(scope="module")
def lesson(data_dir: Path, tmp_path_factory: pytest.TempPathFactory, climb: Callable):
    """The rung without OpenAI's weights: with them it takes half a day."""
    place = tmp_path_factory.mktemp("data")
    for path in data_dir.iterdir():
        if path.name != "gpt2-355M":
            (place / path.name).symlink_to(path.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(place))
        yield (run if (data_dir / "gpt2-355M").exists() else climb)("dpo")  # with them the ladder shows more figures


def test_it_begins_at_ln_2_and_pulls_by_half_of_beta(lesson):
    """R02: worked by hand on two answers."""
    loss = lesson["dpo_loss"]
    assert loss(torch.zeros(1), torch.zeros(1), 0.7).item() == pytest.approx(math.log(2))
    assert loss(torch.tensor([5.0]), torch.tensor([-5.0]), 0.1).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert lesson["z"].grad.tolist() == pytest.approx([-0.05, 0.05])
    assert lesson["log"][0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


def test_choices_lead_to_the_best_distribution(lesson):
    """R02: p_ref e^(worth / beta) / Z, which PPO approaches with rewards."""
    torch.testing.assert_close(lesson["reached"], lesson["best"], rtol=0, atol=0.01)


def test_log_probabilities_by_hand_equal_the_librarys(lesson):
    """R02: of forty answers; those of the reference do not move."""
    torch.testing.assert_close(lesson["mine"], lesson["theirs"], rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        fields = lesson["plain"].batch(torch.arange(len(lesson["rows"])).numpy())
        again = lesson["log_probabilities"](
            lesson["reference"], fields.tokens, fields.fields["targets"], fields.fields["weight"]
        )
    torch.testing.assert_close(again, lesson["mine"], rtol=1e-5, atol=1e-4)


def test_the_margin_grows(lesson):
    """R02: the chosen answers end above the rejected ones."""
    first, last = lesson["log"][0], lesson["log"][-1]
    assert first["margin"] == pytest.approx(0, abs=1e-3) and last["margin"] > 1 and last["loss"] < first["loss"]
    assert last["margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"], abs=1e-4)


def test_the_library_runs_the_recipe(lesson, tmp_path):
    """R02: what the lesson does where there are weights: two stages, and the author's figures from their journal."""
    folder.save_model(tmp_path / "base", build(SMALL, seed=1), tokens.gpt2(), card={})
    small = {"steps": 2, "epochs": None, "eval_every": 2, "context": 96, "device": "cpu", "threads": 1, "lr": 1e-2}
    found = lesson["by_the_library"](tmp_path / "base", tmp_path, **small)
    assert found["loss"]["before"] == pytest.approx(math.log(2), abs=1e-3)
    lines = (tmp_path / "preferred" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    first, second = (one for one in records if one["kind"] == "train")
    *_, last = (one for one in records if one["kind"] == "eval")
    assert last["step"] == 2 and abs(last["margin"]) > 1e-4
    assert found["margins"]["validation"] == pytest.approx(last["margin"] / 0.1)  # his rewards have no beta in them
    assert found["margins"]["train"] == pytest.approx((first["margin"] + second["margin"]) / 2 / 0.1)
    after = {"train": pytest.approx((first["loss"] + second["loss"]) / 2), "validation": last["loss"]}
    assert found["loss"]["after"] == after
    for stage in ("assistant", "preferred"):
        assert tomllib.loads((tmp_path / stage / "settings.toml").read_text(encoding="utf-8"))["beta2"] == 0.999


def test_the_neighbourhood_holds_his_machines_and_not_an_untuned_model():
    """R02: both published columns are near, ln 2 and a margin of 0 are not."""
    known = figures.load()
    loss, margins = known["book.dpo.loss"], known["book.dpo.margins"]
    for machine in ("CPU or CUDA", "Apple GPU"):
        assert agree(loss.expected["after"], loss.published[machine], tolerance=loss.tolerance)
        assert agree(margins.expected, margins.published[machine], tolerance=margins.tolerance)
    for part in ("train", "validation"):
        assert not agree(loss.expected["after"][part], math.log(2), tolerance=loss.tolerance)
        assert not agree(margins.expected[part], 0.0, tolerance=margins.tolerance)


def test_hours_are_announced(lesson, tmp_path, capsys):
    """R02: where OpenAI's weights lie, standard error says so before anything is tuned; else nothing."""
    assert not lesson["weights_in"](tmp_path) and not capsys.readouterr().err
    (tmp_path / "hparams.json").touch()
    assert lesson["weights_in"](tmp_path) and "half a day" in capsys.readouterr().err
