"""PPO by hand: the clipped objective, the advantage of five tokens, and a choice of which the best is known."""

import math

import pytest
import torch


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("policy_gradient")


def test_the_clipped_objective(lesson):
    """R03: the four places of the notes; where it went far enough nothing is gained, the other way nothing is held."""
    objective = lesson["objective"]
    assert [objective(r, a) for r, a in ((1.5, 1.0), (1.5, -1.0), (0.5, 1.0), (0.5, -1.0))] == [1.2, -1.5, 0.5, -0.8]
    assert objective(1.1, 2.0) == pytest.approx(2.2) and objective(1.1, -2.0) == pytest.approx(-2.2)  # inside: r A
    assert lesson["ratios"].grad.tolist() == [0.0, -1.0, 1.0, 0.0]


def test_rewards_alone_give_the_gradient(lesson):
    """R03: what 20,000 answers say of the gradient of the mean reward, against the derivative itself."""
    logits = torch.zeros(4, requires_grad=True)
    (logits.softmax(0) * lesson["WORTH"]).sum().backward()
    answers = torch.arange(4).repeat(10)  # each as often as it is likely: no chance is left
    assert logits.grad is not None
    torch.testing.assert_close(lesson["policy_gradient"](logits, answers), logits.grad)


def test_advantages_of_five_tokens(lesson):
    """R03: lambda 1 is what came minus what was expected; lambda 0 the surprise of one step; 0.5 worked by hand."""
    by_hand = lesson["advantages_by_hand"]
    rewards, values = lesson["REWARDS"], lesson["VALUES"]
    assert by_hand(rewards, values, gamma=1.0, lam=1.0) == pytest.approx([1 - value for value in values])
    assert by_hand(rewards, values, gamma=1.0, lam=0.0) == pytest.approx([0.1, -0.2, 0.5, 0.2, 0.2])
    # 0.2; 0.2 + 0.5 x 0.2 = 0.3; 0.5 + 0.5 x 0.3 = 0.65; -0.2 + 0.5 x 0.65 = 0.125; 0.1 + 0.5 x 0.125 = 0.1625
    assert by_hand(rewards, values, gamma=1.0, lam=0.5) == pytest.approx([0.1625, 0.125, 0.65, 0.3, 0.2])


def test_the_best_distribution_is_reached(lesson):
    """R03, R04: the reward rises; PPO ends where reward and distance are balanced, without a price at one answer."""
    best = lesson["best"]
    weights = [0.4, 0.3 * math.exp(0.2 / 0.3), 0.2 * math.exp(0.5 / 0.3), 0.1 * math.exp(1 / 0.3)]
    assert best.tolist() == pytest.approx([one / sum(weights) for one in weights], abs=1e-5)
    for name, (chances, rewards) in lesson["found"].items():
        assert rewards[-1] > rewards[0] + 0.1, name
        assert chances.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(lesson["found"]["PPO"][0], best, rtol=0, atol=0.04)
    assert lesson["found"]["no price"][0][3] > 0.95
