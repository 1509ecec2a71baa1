"""Advantages by hand: five steps of an answer, limits of gamma and lambda, masks, groups, whitening."""

import math

import pytest
import torch

from groundup.errors import DataError, SettingsError
from groundup.losses.advantages import gae, grouped, whiten

REWARDS, VALUES = torch.tensor([[1.0, 0.0, 2.0, 0.0, 4.0]]), torch.tensor([[2.0, 1.0, 0.0, 2.0, 1.0]])
ALL = torch.ones(1, 5)


def test_five_steps_by_hand():
    """gamma 1/2, lambda 1/2, from the last step to the first; gamma lambda = 1/4:

    delta_5 = 4 + 0/2 - 1 =  3     A_5 =  3
    delta_4 = 0 + 1/2 - 2 = -1.5   A_4 = -1.5 + 3/4         = -0.75
    delta_3 = 2 + 2/2 - 0 =  3     A_3 =  3   - 0.75/4      =  2.8125
    delta_2 = 0 + 0/2 - 1 = -1     A_2 = -1   + 2.8125/4    = -0.296875
    delta_1 = 1 + 1/2 - 2 = -0.5   A_1 = -0.5 - 0.296875/4  = -0.57421875
    """
    advantages, returns = gae(REWARDS, VALUES, ALL, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[-0.57421875, -0.296875, 2.8125, -0.75, 3.0]]  # all of them exact in binary
    assert returns.tolist() == [[1.42578125, 0.703125, 2.8125, 1.25, 4.0]]


@pytest.mark.parametrize(
    ("gamma", "lam", "truth"),
    [
        (0.5, 0.0, [-0.5, -1.0, 3.0, -1.5, 3.0]),  # lambda 0: the deltas above
        (0.5, 1.0, [-0.25, 0.5, 3.0, 0.0, 3.0]),  # lambda 1: rewards from here on, 1.75 1.5 3 2 4, minus the value
        (0.0, 0.7, [-1.0, -1.0, 2.0, -2.0, 3.0]),  # gamma 0: this reward minus the value, lambda does not matter
        (1.0, 1.0, [5.0, 5.0, 6.0, 2.0, 3.0]),  # 7 6 6 4 4, minus the value
    ],
)
def test_limits(gamma, lam, truth):
    advantages, returns = gae(REWARDS, VALUES, ALL, gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages, torch.tensor([truth]))
    torch.testing.assert_close(returns, advantages + VALUES)


def test_what_is_outside_of_the_answer_does_not_exist():
    """A prompt before, filler behind, a gap inside: what stands there is passed over, be it NaN; rows have ends of
    their own."""
    nan = math.nan
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    rewards = torch.tensor([[nan, 1.0, 0.0, nan, 2.0, 0.0, 4.0, 99.0], [9.0, 9.0, 0.0, 4.0, 9.0, nan, 9.0, 9.0]])
    values = torch.tensor([[7.0, 2.0, 1.0, 50.0, 0.0, 2.0, 1.0, nan], [9.0, nan, 2.0, 1.0, 9.0, 9.0, 9.0, 9.0]])
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    alone, _ = gae(REWARDS, VALUES, ALL, gamma=0.5, lam=0.5)
    assert advantages[0][mask[0] > 0].tolist() == alone[0].tolist()
    assert advantages[1].tolist() == [0.0, 0.0, -0.75, 3.0, 0.0, 0.0, 0.0, 0.0]  # the last two steps above
    assert returns[1].tolist() == [0.0, 0.0, 1.25, 4.0, 0.0, 0.0, 0.0, 0.0]
    assert not advantages[mask == 0].any() and not returns[mask == 0].any()


def test_no_gradient_flows_through_advantages():
    values = VALUES.clone().requires_grad_()
    advantages, returns = gae(REWARDS, values, ALL, gamma=1.0, lam=0.9)
    assert not advantages.requires_grad and not returns.requires_grad


def test_gae_refuses_what_does_not_fit():
    with pytest.raises(DataError, match=r"values \(1, 4\)"):
        gae(REWARDS, VALUES[:, 1:], ALL, gamma=1.0, lam=1.0)
    with pytest.raises(SettingsError, match="gamma is 1.5"):
        gae(REWARDS, VALUES, ALL, gamma=1.5, lam=1.0)
    with pytest.raises(SettingsError, match="lambda is -1"):
        gae(REWARDS, VALUES, ALL, gamma=1.0, lam=-1.0)


def test_groups_by_hand():
    """Group 7: 1, 2, 6, mean 3, squares 4 + 1 + 9 = 14 over 2, spread sqrt 7. Group 2: 0 and 1, spread sqrt(1/2).

    Answers to one prompt need not stand together.
    """
    scores, groups = torch.tensor([1.0, 0.0, 2.0, 1.0, 6.0]), torch.tensor([7, 2, 7, 2, 7])
    root, half = math.sqrt(7), math.sqrt(0.5)
    truth = [-2 / root, -half, -1 / root, half, 3 / root]
    torch.testing.assert_close(grouped(scores, groups), torch.tensor(truth))


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1, -1e-30, 1e30])
def test_equal_scores_teach_nothing(score):
    """0.1 is no binary number: a mean of three of them in fp32 is another one, and the spread would not be 0."""
    found = grouped(torch.full((7,), score), torch.tensor([0, 0, 0, 1, 1, 1, 2]))
    assert found.tolist() == [0.0] * 7


@pytest.mark.parametrize("score", [1.0, 0.1, -1e-30, 1e30])
def test_scores_that_differ_in_their_last_digit_teach_nothing(score):
    """As the same text read beside longer ones may have it."""
    near = torch.full((4,), score)
    near[1] = torch.nextafter(near[1], torch.tensor(math.inf))
    assert near[1] != near[0] and grouped(near, torch.zeros(4, dtype=torch.int64)).tolist() == [0.0] * 4


def test_beside_0_every_difference_is_one():
    """0, x, 0, 0: off by -x/4 and 3x/4, squares 12/16 x^2 over 3, spread x/2. Only a share of it counts as rounding."""
    found = grouped(torch.tensor([0.0, 1e-30, 0.0, 0.0]), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found, torch.tensor([-0.5, 1.5, -0.5, -0.5]))


def test_a_score_that_is_no_number_stays_seen():
    found = grouped(torch.tensor([1.0, math.nan, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]))
    assert found[:2].isnan().all() and found[2:].isfinite().all()
    assert whiten(torch.tensor([[1.0, math.nan]]), torch.ones(1, 2)).isnan().all()


def test_groups_do_not_see_each_other():
    scores, groups = torch.tensor([1.0, 0.0, 500.0, 200.0]), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(grouped(scores, groups)[:2], grouped(scores[:2], groups[:2]))
    assert grouped(scores, groups).dtype == torch.float32
    with pytest.raises(DataError, match="groups"):
        grouped(scores, groups[:3])


def test_whitening_by_hand():
    """1, 3, 8 of the mask: mean 4, squares 9 + 1 + 16 = 26 over 3."""
    x, mask = torch.tensor([[1.0, math.nan, 3.0], [8.0, 99.0, -5.0]]), torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    root = math.sqrt(26 / 3)
    torch.testing.assert_close(whiten(x, mask), torch.tensor([[-3 / root, 0.0, -1 / root], [4 / root, 0.0, 0.0]]))


@pytest.mark.parametrize("mask", [[[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]])
def test_whitening_of_equal_numbers_is_zero(mask):
    assert whiten(torch.full((1, 3), 0.1), torch.tensor(mask)).tolist() == [[0.0, 0.0, 0.0]]


def test_whitening_changes_no_order_and_no_scale_matters():
    x, mask = torch.randn(4, 9, generator=torch.Generator().manual_seed(1)), torch.ones(4, 9)
    white = whiten(x, mask)
    assert white.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white.square().mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(white, whiten(100 * x + 7, mask), rtol=1e-3, atol=1e-4)
