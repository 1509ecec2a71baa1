"""The road from people's choices to a better model, at a size where the wish can be counted."""

import pytest

from groundup.report.read import load


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("feedback")


def test_the_reward_model_knows_what_people_like(lesson):
    """R02, R04: pairs that it was not given are in the right order."""
    assert lesson["in_order"] > 0.9


def test_the_loop_raises_the_reward(lesson):
    """R03, R04: write, score, update: the mean reward grows, and the model says what was liked."""
    rewards, friendly = lesson["rewards"], lesson["friendly"]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8
    assert 0.2 < friendly["before"] < 0.8 and friendly["after"] > friendly["before"] + 0.2


def test_the_model_is_compared_with_the_one_before(lesson):
    """R06: by a reward model and by counting; nobody's answers are lost on the way."""
    won = lesson["won"]
    assert won.won + won.tied + won.lost == len(lesson["QUESTIONS"]) and won.won > won.lost


def test_each_stage_is_a_run_of_its_own(lesson):
    """R04: their reports can be written, and know what made them."""
    assert [load(lesson["place"] / name).command for name in ("answers", "reward", "better")] == [
        "instruct", "reward", "ppo"
    ]  # fmt: skip
