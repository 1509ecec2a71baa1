"""Guesses of a divergence against the exact sum: their expectation is written out over a vocabulary of three."""

import math

import pytest
import torch

from groundup.losses.divergence import exact, k1, k3

P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
KL = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) - 0.2 * math.log(3)  # KL(P || Q) by hand: 0.36006 nats


def test_exact_by_hand():
    """Logits may be shifted by anything."""
    assert exact(P.log() + 3, Q.log() - 8).item() == pytest.approx(KL, rel=1e-6)
    assert exact(P.log(), P.log()).item() == 0.0
    back = 0.2 * math.log(0.4) + 0.2 * math.log(2 / 3) + 0.6 * math.log(3)  # it has a direction: 0.39482
    assert exact(Q.log(), P.log()).item() == pytest.approx(back, rel=1e-6)


def test_exact_goes_row_by_row():
    rows = exact(torch.stack([P, Q]).log()[:, None], torch.stack([Q, Q]).log()[:, None])
    assert rows.shape == (2, 1)
    torch.testing.assert_close(rows[:, 0], torch.tensor([KL, 0.0]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("guess", [k1, k3])
def test_the_mean_under_p_is_the_divergence(guess):
    """The sum over the vocabulary of p(x) times the guess that x gives: no sampling, so no noise."""
    log_ratio = P.log() - Q.log()
    assert (P * guess(log_ratio)).sum().item() == pytest.approx(KL, rel=1e-6)


def test_k3_is_never_negative_and_keeps_its_digits():
    """Near 0 it is r^2 / 2; taken as e^-r - 1 + r in fp32 it would be 0 or a rounding error there."""
    ratios = torch.linspace(-3, 3, 601)
    assert (k3(ratios) >= 0).all()
    assert k3(torch.tensor([1e-3])).item() == pytest.approx(5e-7, rel=2e-3)
    assert k3(torch.tensor([0.5])).item() == pytest.approx(math.exp(-0.5) - 1 + 0.5, rel=1e-6)
    assert k3(torch.tensor([-0.5])).item() == pytest.approx(math.exp(0.5) - 1 - 0.5, rel=1e-6)


def test_what_k3_teaches():
    """d k3 / d log p = 1 - q/p: a token that the reference likes better is made likelier."""
    log_ratio = torch.tensor([math.log(2), -math.log(2)], requires_grad=True)
    k3(log_ratio).sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.5, -1.0]))
