"""A reward model by hand: its size, its loss, what it falls for, and the library's own beside it."""

import math

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("reward_model")


def test_the_network_of_the_notes(lesson):
    """R02: 768 x 512 + 512 + 512 + 1 numbers; one score for each answer."""
    model = lesson["RewardModel"](768)
    assert sum(one.numel() for one in model.parameters()) == 768 * 512 + 512 + 512 + 1 == 394_241
    assert model(torch.zeros(4, 768)).shape == (4, 1)


def test_the_loss_of_an_order(lesson):
    """R02: ln 2 without any idea, and the slope of sigmoid(s - t) - 1, worked by hand."""
    losses, slope = lesson["each"].tolist(), lesson["chosen"].grad.tolist()
    assert losses[0] == pytest.approx(math.log(2)) and losses[1] == pytest.approx(math.log(1 + math.exp(-2)))
    assert slope[0] == pytest.approx(-0.5) and slope[1] == pytest.approx(1 / (1 + math.exp(-2)) - 1)


def test_length_is_learnt_where_it_goes_along(lesson):
    """R02: the shares printed are those of its own count, and it falls where length turns round."""
    zeros, ones = torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    first = nn.Linear(2, 1, bias=False)
    first.weight.data = torch.tensor([[1.0, 0.0]])
    assert lesson["right"](first, (ones, zeros)) == pytest.approx(1 / 3)  # above, equal, below: one is in order
    found = lesson["found"]
    assert found["as in training"] > 0.8 and found["the longer is worse"] < 0.6


def test_a_network_that_reads_puts_pairs_in_order(lesson):
    """R02: from ln 2 to nearly always right on pairs it was not given, where length tells nothing."""
    assert lesson["curve"][0] == pytest.approx(math.log(2), abs=0.1) and lesson["accuracy"] > 0.95
    chosen, rejected = lesson["scores"]
    assert (chosen > rejected).float().mean().item() == pytest.approx(lesson["accuracy"])
    assert lesson["by_length"] == 0.5
