"""The loss of a reward model by hand: at the start ln 2, with margins, gradients, and batches that are no pairs."""

import math

import pytest
import torch
from torch import nn

from groundup import losses
from groundup.batches import Batch
from groundup.errors import DataError, ModelError
from groundup.losses.ranking import bradley_terry, right


def test_bradley_terry_by_hand():
    """Equal scores: ln 2. Ahead by 1: ln(1 + 1/e). Ahead by 3 where 3 are asked for: ln 2 again. Behind by 2, and 1
    asked for: ln(1 + e^3)."""
    chosen, rejected = torch.tensor([5.0, 1.0, 3.0, 0.0]), torch.tensor([5.0, 0.0, 0.0, 2.0])
    truth = [math.log(2), math.log(1 + math.exp(-1)), math.log(2), math.log(1 + math.exp(3))]
    torch.testing.assert_close(bradley_terry(chosen, rejected, torch.tensor([0.0, 0.0, 3.0, 1.0])), torch.tensor(truth))
    assert bradley_terry(chosen, rejected)[0].item() == pytest.approx(math.log(2))
    assert bradley_terry(chosen, rejected)[2].item() == pytest.approx(math.log(1 + math.exp(-3)))


def test_far_apart_it_stays_finite():
    loss = bradley_terry(torch.tensor([0.0, 1e4]), torch.tensor([1e4, 0.0]))
    assert loss.tolist() == [1e4, 0.0]


def test_gradient_is_the_chance_of_being_wrong():
    """d / d chosen = -sigmoid(rejected - chosen): at a difference of ln 3 the wrong one wins once in four times."""
    chosen, rejected = torch.tensor([math.log(3)], requires_grad=True), torch.zeros(1, requires_grad=True)
    bradley_terry(chosen, rejected).backward()
    assert chosen.grad.item() == pytest.approx(-0.25) and rejected.grad.item() == pytest.approx(0.25)


class Scores(nn.Module):
    """Gives the scores it holds, one a row, and remembers how it was called."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, tokens, **context):
        self.context = context
        return self.scores


def batch_of(rows, **fields):
    lengths = torch.full((rows,), 2)
    return Batch(torch.zeros(rows, 2, dtype=torch.long), max(rows / 2, 1.0), {"lengths": lengths, **fields})


def test_first_the_chosen_then_the_rejected():
    """Pairs (3, 1), (0, 0), (1, 4): ahead by 2, 0, -3; right 1 + 1/2 + 0."""
    model = Scores([[3.0], [0.0], [1.0], [1.0], [0.0], [4.0]])
    total, numbers = losses.ranking(model, batch_of(6))
    truth = math.log(1 + math.exp(-2)) + math.log(2) + math.log(1 + math.exp(3))
    assert total.item() == pytest.approx(truth, rel=1e-6)
    assert {name: value.item() for name, value in numbers.items()} == pytest.approx(
        {"accuracy": 1.5, "margin": -1.0, "chosen_score": 4.0, "rejected_score": 5.0}
    )
    assert not any(value.requires_grad for value in numbers.values())
    assert model.context["lengths"].tolist() == [2] * 6


def test_margins_that_are_asked_for():
    """Asked for 2 and 0: the first pair is just far enough, ln 2. Accuracy and margin do not know what was asked."""
    model = Scores([[3.0], [0.0], [1.0], [0.0]])
    total, numbers = losses.ranking(model, batch_of(4, margin=torch.tensor([2.0, 0.0])))
    assert total.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert numbers["accuracy"].item() == 1.5 and numbers["margin"].item() == 2.0
    with pytest.raises(DataError, match=r"margins have shape \(3,\)"):
        losses.ranking(model, batch_of(4, margin=torch.zeros(3)))


def test_a_step_cut_in_two_is_the_same_step():
    model, halves = Scores([[3.0], [0.0], [1.0], [4.0]]), [Scores([[3.0], [1.0]]), Scores([[0.0], [4.0]])]
    whole, numbers = losses.ranking(model, batch_of(4))
    parts = [losses.ranking(half, batch_of(2)) for half in halves]
    torch.testing.assert_close(whole, parts[0][0] + parts[1][0])
    torch.testing.assert_close(numbers["accuracy"], parts[0][1]["accuracy"] + parts[1][1]["accuracy"])


def test_equal_numbers_are_half_right():
    assert right(torch.tensor([1.0, 0.0, -1.0]), torch.zeros(3)).tolist() == [1.0, 0.5, 0.0]


def test_what_is_no_pair_or_no_score_is_refused():
    with pytest.raises(DataError, match="3 rows holds no pairs"):
        losses.ranking(Scores([[0.0]] * 3), batch_of(3))
    for scores in ([[0.0, 0.0]] * 2, [0.0, 0.0], [[0.0]]):  # classes, no dimension for the output, too few
        with pytest.raises(ModelError, match="to 2 rows"):
            losses.ranking(Scores(scores), batch_of(2))
