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
    record = {"loss": -0.5, "reward": 0.5, "right": marks.right, "length": 5.0, "ended": 0.75, "log_ratio": None}
    assert marks.record() == record | {"kl": 3.0}


def test_greedy_answers_estimate_no_divergence() -> None:
    """Of what was not drawn, log-ratios 1 and 4 are a mean of 2.5 under a name of its own, in the journal as well."""
    marks = mark([1.0, 0.0], lengths=[1, 3], ended=[True, True], right=[None, None], log_ratio=[1.0, 4.0])
    assert (marks.log_ratio, marks.kl, marks.kl_error) == (2.5, None, None)
    assert marks.record()["log_ratio"] == 2.5 and "kl" not in marks.record()
    assert marks.words() == "reward 0.500  length 2.0  ended 100.0 %  log ratio 2.50"


def test_what_nobody_knows_is_not_made_up() -> None:
    marks = mark([0.25], lengths=[3], ended=[True], right=[None])
    assert marks.right is None and marks.graded == 0 and marks.error is None
    assert marks.log_ratio is None and marks.kl is None and marks.kl_error is None
    assert marks.words() == "reward 0.250  length 3.0  ended 100.0 %"


def test_the_best_reward_is_the_smallest_loss() -> None:
    better, worse = (mark([value], lengths=[1], ended=[True], right=[None]) for value in (0.9, -0.3))
    assert better.loss < worse.loss


@pytest.mark.parametrize(
    "wrong",
    [{"rewards": []}, {"lengths": [1, 2]}, {"ended": []}, {"right": []}, {"kl": [1.0, 2.0]}, {"log_ratio": []}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_one_value_for_each_answer(wrong: dict[str, list[float]]) -> None:
    given = {"rewards": [1.0], "lengths": [1], "ended": [True], "right": [None], "kl": [0.0]} | wrong
    rewards = given.pop("rewards")
    with pytest.raises(DataError, match="answers cannot be marked"):
        mark(rewards, **given)  # type: ignore[arg-type]
