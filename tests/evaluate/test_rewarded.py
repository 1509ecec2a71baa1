"""Marks of a policy, worked out by hand."""

import math

import pytest

from groundup.errors import DataError
from groundup.evaluate.rewarded import mark


def test_marks_by_hand() -> None:
    """Rewards 1, 0, 0, 1: mean 0.5, spread sqrt(4 * 0.25 / 3), error sqrt(1/3 / 4). KL 1, 2, 3, 6: mean 3, the sum of
    squares around it 4 + 1 + 0 + 9 = 14, error sqrt(14 / 3 / 4)."""
    marks = mark([1.0, 0.0, 0.0, 1.0], lengths=[4, 6, 8, 2], ended=[True, True, False, True],
                 right=[True, False, None, True], kl=[1.0, 2.0, 3.0, 6.0])  # fmt: skip
    assert (marks.rows, marks.reward, marks.loss) == (4, 0.5, -0.5)
    assert marks.error == pytest.approx(math.sqrt(1 / 12))
    assert marks.right == pytest.approx(2 / 3) and marks.graded == 3
    assert (marks.length, marks.ended, marks.kl) == (5.0, 0.75, 3.0)
    assert marks.kl_error == pytest.approx(math.sqrt(14 / 12))
    assert marks.record() == {
        "loss": -0.5, "reward": 0.5, "right": marks.right, "length": 5.0, "ended": 0.75, "kl": 3.0,
    }  # fmt: skip


def test_what_nobody_knows_is_not_made_up() -> None:
    marks = mark([0.25], lengths=[3], ended=[True], right=[None])
    assert marks.right is None and marks.graded == 0 and marks.error is None
    assert marks.kl is None and marks.kl_error is None
    assert marks.words() == "reward 0.250  length 3.0  ended 100.0 %"


def test_the_best_reward_is_the_smallest_loss() -> None:
    better, worse = (mark([value], lengths=[1], ended=[True], right=[None]) for value in (0.9, -0.3))
    assert better.loss < worse.loss


@pytest.mark.parametrize(
    "wrong",
    [{"rewards": []}, {"lengths": [1, 2]}, {"ended": []}, {"right": []}, {"kl": [1.0, 2.0]}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_one_value_for_each_answer(wrong: dict[str, list[float]]) -> None:
    given = {"rewards": [1.0], "lengths": [1], "ended": [True], "right": [None], "kl": [0.0]} | wrong
    rewards = given.pop("rewards")
    with pytest.raises(DataError, match="answers cannot be marked"):
        mark(rewards, **given)  # type: ignore[arg-type]
