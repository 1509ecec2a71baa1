"""DPO by hand: where it begins, which way it pulls, where it ends; and what the lesson does where there are weights."""

import math

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.lessons.ladder import run
from groundup.model import build
from groundup.model.config import ModelConfig

SMALL = ModelConfig(family="gpt2", vocabulary=50257, context=512, width=8, layers=1, heads=2)


@pytest.fixture(scope="module")
def lesson(data_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield run("dpo")


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
    small = {"steps": 2, "epochs": None, "eval_every": 1, "context": 96, "device": "cpu", "threads": 1}
    found = lesson["by_the_library"](tmp_path / "base", tmp_path, **small)
    assert found["loss"]["before"] == pytest.approx(math.log(2), abs=1e-3)
    assert set(found["loss"]["after"]) == set(found["margins"]) == {"train", "validation"}
