"""Rows in batches: neither filling up nor packing changes what any of them is worth."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import losses
from groundup.batches import Loader, next_token, sequential
from groundup.batches.rows import PackedRows, Rows
from groundup.errors import DataError, SettingsError
from groundup.model import build
from groundup.model.config import FAMILIES, ModelConfig
from groundup.tokens.rows import Row

FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))


def row(ids, learn):
    return Row(list(ids), [bool(flag) for flag in learn])


def several(count, *, longest=30, seed=0):
    """Rows with an answer at the end of each, and here and there one in the middle."""
    random, rows = np.random.default_rng(seed), []
    for _ in range(count):
        size = int(random.integers(2, longest))
        learn = random.random(size) < 0.4
        learn[0], learn[-1] = False, True
        rows.append(row(random.integers(1, 40, size).tolist(), learn))
    return rows


def network(family):
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    config = {"vocabulary": 40, "context": 32, "width": 24, "layers": 2, "heads": 4, "tie": False, "init": "torch"}
    return build(ModelConfig(family=family, **config | groups), seed=1)


def alone(one):
    """The one row as a batch, made by what pretraining uses."""
    return next_token(torch.tensor([one.ids]), weight=torch.tensor([one.learn[1:]]).float())


def test_two_rows_by_hand():
    source = Rows([row([5, 6, 7, 8], [0, 0, 1, 1]), row([9, 4], [0, 1])], pad=3)
    batch = source.batch(np.array([1, 0]))
    assert batch.tokens.tolist() == [
        [9, 4, 3],
        [5, 6, 7],
    ]  # the last id of a row goes in too, and nothing is asked there
    assert batch.fields["targets"].tolist() == [[4, 3, 3], [6, 7, 8]]
    assert batch.fields["weight"].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert (batch.count, batch.size, len(source), source.lengths.tolist()) == (3, 4, 2, [3, 1])
    assert batch.tokens.dtype == batch.fields["targets"].dtype == torch.int64
    assert set(batch.fields) == {"targets", "weight"}


def test_three_rows_packed_by_hand():
    """3 + 1 inputs fill a row of 4; 2 stand alone, with two places of filler."""
    rows = [row([5, 6, 7, 8], [0, 0, 1, 1]), row([9, 4], [0, 1]), row([1, 2, 3], [0, 1, 0])]
    source = PackedRows(rows, length=4)
    assert len(source) == 2 and source.filler == 2 / 8 and source.lengths.tolist() == [4, 4]
    assert [source.members(index) for index in (0, 1)] == [[0, 1], [2]]
    batch = source.batch(np.array([0, 1]))
    assert batch.tokens.tolist() == [[5, 6, 7, 9], [1, 2, 0, 0]]
    assert batch.fields["targets"].tolist() == [[6, 7, 8, 4], [2, 3, 0, 0]]
    assert batch.fields["weight"].tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.fields["documents"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]
    assert batch.fields["positions"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    assert (batch.count, batch.size) == (4, 6)


@FAMILY
@pytest.mark.parametrize("pad", [0, 39])
def test_filling_up_changes_nothing(family, pad):
    """Loss and gradient of a padded batch are the sums of each row alone, whatever the rows are filled up with."""
    rows, model = several(8), network(family)
    batch = Rows(rows, pad=pad).batch(np.arange(8))
    assert batch.size < batch.tokens.numel() and batch.count == sum(sum(one.learn) for one in rows)
    together, _ = losses.next_token(model, batch)
    together.backward()
    found = gradient(model)
    total = torch.zeros(())
    for one in rows:
        loss, _ = losses.next_token(model, alone(one))
        loss.backward()
        total += loss.detach()
    torch.testing.assert_close(together, total, atol=0, rtol=1e-6)
    torch.testing.assert_close(found, gradient(model), atol=1e-5, rtol=1e-5)


@FAMILY
def test_packing_changes_nothing(family):
    """Each row's loss among others is its loss alone."""
    rows, model = several(12), network(family).eval()
    source = PackedRows(rows, length=32)
    assert len(source) < 12
    with torch.inference_mode():
        for index in range(len(source)):
            batch = source.batch(np.array([index]))
            for number, member in enumerate(source.members(index)):
                here = batch.fields["documents"] == number
                only = {**batch.fields, "weight": batch.fields["weight"] * here}
                mine, _ = losses.next_token(model, type(batch)(batch.tokens, 1.0, only))
                torch.testing.assert_close(mine, losses.next_token(model, alone(rows[member]))[0], atol=1e-5, rtol=1e-5)


def gradient(model):
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return found


@given(st.lists(st.integers(2, 9), min_size=1, max_size=20), st.integers(8, 12))
@settings(deadline=None, max_examples=40)
def test_every_target_of_every_row_is_there_once(sizes, length):
    rows = [row([10 * number + place for place in range(size)], [0] + [1] * (size - 1))
            for number, size in enumerate(sizes)]  # fmt: skip
    wanted = sorted((one.ids[i], one.ids[i + 1]) for one in rows for i in range(len(one.ids) - 1))
    for source in (Rows(rows, pad=0), PackedRows(rows, length=length)):
        batch = source.batch(np.arange(len(source)))
        counts = batch.fields["weight"] > 0
        pairs = zip(batch.tokens[counts].tolist(), batch.fields["targets"][counts].tolist(), strict=True)
        assert sorted(pairs) == wanted
        assert batch.count == batch.size == len(wanted)


def test_evaluation_in_order_of_length_has_the_same_rows():
    source = Rows(several(10), pad=0)
    seen = [batch.size for batch in sequential(source, 1, lengths=source.lengths)]
    assert seen == sorted(source.lengths.tolist())
    filled = [sum(batch.tokens.numel() for batch in sequential(source, 4, lengths=lengths))
              for lengths in (None, source.lengths)]  # fmt: skip
    assert filled[1] <= filled[0]


def test_bucketed_training_sees_what_was_given():
    rows = several(50)
    source = Rows(rows, pad=0)
    loader = Loader(source, batch=5, seed=2, lengths=source.lengths)
    count = sum(batch.count for batch in itertools.islice(loader, 10))
    assert count == sum(sum(one.learn) for one in rows)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "there are no rows"),
        ([row([1, 2], [0, 1]), row([1, 2], [0, 0])], "row 1 has 2 ids, of which 0 are to be learnt"),
        ([row([1, 2], [1, 1])], "row 0 has 2 ids, of which 2"),
        ([row([1], [1])], "row 0 has 1 ids"),
        ([row([1, 2], [0, 1, 1])], "row 0 has 2 ids, of which 2"),
    ],
)
def test_rows_that_teach_nothing_are_refused(rows, what):
    for make in (lambda: Rows(rows, pad=0), lambda: PackedRows(rows, length=8)):
        with pytest.raises(DataError, match=what):
            make()


def test_a_row_longer_than_its_place_is_refused():
    with pytest.raises(DataError, match="row 1 has 4 inputs, more than the 3 places"):
        PackedRows([row([1, 2], [0, 1]), row([1, 2, 3, 4, 5], [0, 0, 0, 0, 1])], length=3)
    with pytest.raises(SettingsError, match="'context' cannot be 0"):
        PackedRows([row([1, 2], [0, 1])], length=0)
