"""The rung `autograd`: the page of our own code against slopes worked out by hand, by torch and by small steps."""

import math

import pytest
import torch

from groundup.losses import cross_entropy


@pytest.fixture(scope="module")
def rung(climb) -> dict:
    return climb("autograd")


def test_gradients_by_hand_by_torch_and_by_small_steps(rung: dict):
    """X03: -0.0898 and -0.0817; 4; 29; and a graph in which one number is used on several ways."""
    number = rung["Number"]

    x = number(2.0)
    (x * x).backward()
    assert x.gradient == 4
    x = number(3.0)
    (x * x * x + number(2.0) * x).backward()
    assert x.gradient == 29

    def loss(weight: float) -> float:
        return -math.log(1 / (1 + math.exp(-1.1 * weight)))

    small = 1e-6
    assert rung["w"].gradient == pytest.approx((loss(2.2 + small) - loss(2.2 - small)) / (2 * small), rel=1e-6)
    assert (rung["w"].gradient, rung["b"].gradient) == pytest.approx((-0.0898, -0.0817), abs=5e-5)

    a, b = number(1.5), number(-0.5)  # a appears three times, b twice, and a * b is itself used twice
    both = a * b
    (both.sigmoid() * a + both).backward()
    ta, tb = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.5, -0.5))
    (torch.sigmoid(ta * tb) * ta + ta * tb).backward()
    assert (a.gradient, b.gradient) == pytest.approx((ta.grad.item(), tb.grad.item()), rel=1e-12)


def test_gradients_add_up(rung: dict):
    """X03: a second walk back adds to what is there, in ours as in torch's."""
    x = rung["Number"](3.0)
    squared = x * x
    squared.backward()
    squared.backward()
    assert x.gradient == 12


def test_the_librarys_own_slopes():
    """X03: `losses.cross_entropy` brings its own slopes: probability, less one at the target."""
    state = torch.tensor([[1.1, 1.0]])
    head = torch.tensor([[0.3, -0.2], [2.2, 0.0], [0.1, 0.4]], requires_grad=True)
    cross_entropy(state, head, torch.tensor([1])).backward()
    weights = [math.exp(1.1 * w + b) for w, b in head.tolist()]
    wanted = [[(value / sum(weights) - (row == 1)) * s for s in (1.1, 1.0)] for row, value in enumerate(weights)]
    torch.testing.assert_close(head.grad, torch.tensor(wanted))
