"""Batches: the shift, padding, counting, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.batches import Batch, next_token, pad
from groundup.errors import DataError


def test_targets_are_the_inputs_one_place_later():
    # book, section 2.6: tokens 50 to 54 of The Verdict, as growing contexts and the id that follows each
    batch = next_token(torch.tensor([[290, 4920, 2241, 287, 257]]))
    x, y = batch.tokens[0].tolist(), batch.fields["targets"][0].tolist()
    assert [(x[:end], y[end - 1]) for end in range(1, 5)] == [
        ([290], 4920),
        ([290, 4920], 2241),
        ([290, 4920, 2241], 287),
        ([290, 4920, 2241, 287], 257),
    ]
    assert batch.count == 4


def test_only_weighted_targets_count():
    rows, weight = torch.arange(10).view(2, 5), torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1]])
    batch = next_token(rows, weight=weight)
    assert batch.count == 3.0
    assert batch.fields["weight"] is weight


@pytest.mark.parametrize("count", [0.0, -1.0, float("nan")])
def test_nothing_to_learn_from_is_refused(count):
    with pytest.raises(DataError, match="supervised tokens"):
        Batch(torch.zeros(1, 2, dtype=torch.int64), count, {})


def test_weights_of_zero_everywhere_are_refused():
    with pytest.raises(DataError, match=r"\(2, 2\) ids has 0 supervised"):
        next_token(torch.zeros(2, 3, dtype=torch.int64), weight=torch.zeros(2, 2))


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 0), (1, 2, 3)])
def test_rows_that_cannot_be_shifted_are_refused(shape):
    with pytest.raises(DataError, match="rows of ids have shape"):
        next_token(torch.zeros(shape, dtype=torch.int64))


def test_weights_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"weights have shape \(1, 3\), targets \(1, 2\)"):
        next_token(torch.zeros(1, 3, dtype=torch.int64), weight=torch.ones(1, 3))


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5), st.integers(0, 9))
@settings(deadline=None)
def test_padding_is_undone_by_its_weight(rows, id):
    tokens, weight = pad(rows, id)
    assert tokens.dtype == torch.int64
    assert [row[kept].tolist() for row, kept in zip(tokens, weight.bool(), strict=True)] == rows
    assert (tokens[weight == 0] == id).all()
    assert tokens.shape[1] == max(len(row) for row in rows)


def test_no_rows_to_pad_is_refused():
    with pytest.raises(DataError, match="no rows"):
        pad([], 0)


def test_to_moves_every_tensor():
    batch = next_token(torch.tensor([[1, 2, 3]]), weight=torch.ones(1, 2)).to("meta")
    assert {tensor.device.type for tensor in (batch.tokens, *batch.fields.values())} == {"meta"}
    assert batch.count == 2.0 and set(batch.fields) == {"targets", "weight"}
