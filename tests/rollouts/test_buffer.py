"""A rollout as tensors: where every number stands in a batch, and what a damaged one is told from."""

import dataclasses

import numpy as np
import pytest
import torch

from groundup.errors import CheckpointError
from groundup.rollouts.buffer import Rollout, mask_of


def rollout(**changes):
    """Three answers, of 2, 1 and 3 ids, to prompts of 2, 3 and 1; number j of answer i is i + j / 10."""
    sizes, numbers = torch.tensor([2, 1, 3]), torch.arange(3)[:, None] + torch.arange(3) / 10
    numbers = numbers * mask_of(sizes, 3)
    made = {
        "prompts": torch.tensor([[11, 12, 0], [21, 22, 23], [31, 0, 0]]),
        "prompt_sizes": torch.tensor([2, 3, 1]),
        "answers": torch.tensor([[13, 14, 0], [24, 0, 0], [32, 33, 34]]),
        "sizes": sizes,
        "ended": torch.tensor([True, True, False]),
        "scores": torch.tensor([1.0, 0.0, 2.0]),
        "logp": -numbers,
        "advantages": numbers + 5,
        "notes": {"reward": 1.5, "kl_coefficient": 0.25},
    }
    return Rollout(**made | changes)


def test_every_number_stands_at_its_target():
    made = rollout(values=torch.ones(3, 3), returns=torch.ones(3, 3) * 2).batch(np.array([2, 0]))
    assert made.tokens.tolist() == [[31, 32, 33], [11, 12, 13]]
    assert made.fields["targets"].tolist() == [[32, 33, 34], [12, 13, 14]]
    assert made.fields["weight"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert torch.equal(made.fields["old_logp"], -torch.tensor([[2.0, 2.1, 2.2], [0.0, 0.0, 0.1]]))
    assert torch.equal(made.fields["advantage"], torch.tensor([[7.0, 7.1, 7.2], [0.0, 5.0, 5.1]]))
    assert made.fields["old_values"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert made.fields["returns"].tolist() == [[2, 2, 2], [0, 2, 2]]
    assert made.count == 5 and made.size == 6 and made.notes == {"reward": 1.5, "kl_coefficient": 0.25}


def test_a_batch_is_as_wide_as_its_own_longest():
    made = rollout().batch(np.array([1]))
    assert made.tokens.tolist() == [[21, 22, 23]] and made.fields["targets"].tolist() == [[22, 23, 24]]
    assert made.fields["weight"].tolist() == [[0, 0, 1]] and made.count == 1
    assert set(made.fields) == {"targets", "weight", "old_logp", "advantage"}


def test_the_distance_goes_along_where_the_loss_needs_it():
    made = rollout(ref_logp=torch.full((3, 3), -2.0)).batch(np.array([0, 1]))
    assert made.fields["ref_logp"].tolist() == [[0, -2, -2], [0, 0, -2]]
    assert made.fields["kl_coefficient"].tolist() == [0.25, 0.25]


def test_tensors_make_the_same_rollout_again():
    whole = rollout(values=torch.ones(3, 3), returns=torch.ones(3, 3))
    again = Rollout.of(whole.tensors(), whole.notes, count=3)
    assert again.notes == whole.notes and again.tensors().keys() == whole.tensors().keys()
    assert all(torch.equal(value, again.tensors()[name]) for name, value in whole.tensors().items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors.pop("logp"),
        lambda tensors: tensors.update(sizes=tensors["sizes"][:2]),
        lambda tensors: tensors.update(advantages=tensors["advantages"][:, :2]),
    ],
)
def test_a_damaged_rollout_is_refused(spoil):
    tensors = rollout().tensors()
    spoil(tensors)
    with pytest.raises(CheckpointError, match="not whole"):
        Rollout.of(tensors, {}, count=3)


def test_it_is_refused_for_another_number_of_answers():
    with pytest.raises(CheckpointError, match="not whole"):
        Rollout.of(rollout().tensors(), {}, count=4)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        rollout().scores = torch.zeros(3)
