"""Pairs in batches: who stands where, and that filling up, splitting and bucketing change nothing of any pair."""

import numpy as np
import pytest
import torch

from groundup.batches import Loader, Pairs, WholePairs, sequential
from groundup.errors import DataError
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.tokens.pairs import PairRow
from groundup.tokens.rows import Row

LONG, SHORT = Row([5, 6, 7, 8], [False, False, True, True]), Row([5, 6, 9], [False, False, True])
THIRD, FOURTH = Row([1, 2], [False, True]), Row([1, 3, 4, 2, 9], [False, True, True, True, True])


def several(count: int, *, seed: int = 0) -> list[PairRow]:
    """Pairs of one prompt and two answers; the first id is the pair's number, so that it can be told again."""
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        prompt = [number, *random.integers(100, 120, int(random.integers(1, 10))).tolist()]
        rows = []
        for _ in range(2):
            answer = random.integers(120, 140, int(random.integers(1, 25))).tolist()
            rows.append(Row([*prompt, *answer], [False] * len(prompt) + [True] * len(answer)))
        pairs.append(PairRow(rows[0], rows[1], margin=number / 10))
    return pairs


def test_two_pairs_by_hand():
    source = Pairs([PairRow(LONG, SHORT), PairRow(THIRD, FOURTH)], pad=0, reference=np.array([[-1, -2], [-3, -4.5]]))
    batch = source.batch(np.array([1, 0]))
    # the last id of a shorter row goes in too, and nothing is asked there
    assert batch.tokens.tolist() == [[1, 2, 0, 0], [5, 6, 7, 8], [1, 3, 4, 2], [5, 6, 9, 0]]
    assert batch.fields["targets"].tolist() == [[2, 0, 0, 0], [6, 7, 8, 0], [3, 4, 2, 9], [6, 9, 0, 0]]
    assert batch.fields["weight"].tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]]
    assert batch.fields["ref_logp"].tolist() == [-3, -1, -4.5, -2]
    assert (batch.count, batch.size, len(source), source.lengths.tolist()) == (2, 1 + 3 + 4 + 2, 2, [3, 4])
    assert batch.tokens.dtype == batch.fields["targets"].dtype == torch.int64
    assert batch.fields["weight"].dtype == batch.fields["ref_logp"].dtype == torch.float32
    assert set(Pairs([PairRow(LONG, SHORT)], pad=0).batch(np.array([0])).fields) == {"targets", "weight"}


def test_two_whole_pairs_by_hand():
    source = WholePairs([PairRow(LONG, SHORT, 0.5), PairRow(THIRD, FOURTH)], pad=7)
    batch = source.batch(np.array([0, 1]))
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 7], [1, 2, 7, 7, 7], [5, 6, 9, 7, 7], [1, 3, 4, 2, 9]]
    assert batch.fields["lengths"].tolist() == [4, 2, 3, 5] and batch.fields["margin"].tolist() == [0.5, 0]
    assert (batch.count, batch.size, len(source), source.lengths.tolist()) == (2, 14, 2, [4, 5])
    assert batch.fields["lengths"].dtype == torch.int64 and batch.fields["margin"].dtype == torch.float32
    assert set(batch.fields) == {"lengths", "margin"}


def test_the_weights_sum_to_the_answers_and_filler_has_none():
    pairs = several(40)
    batch = Pairs(pairs, pad=3).batch(np.arange(40))
    rows = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    assert batch.fields["weight"].sum(1).tolist() == [sum(row.learn) for row in rows]
    sizes = torch.tensor([len(row.ids) - 1 for row in rows])
    behind = torch.arange(batch.tokens.shape[1]) >= sizes[:, None]  # (2B, T)
    assert behind.any() and not batch.fields["weight"][behind].any()
    assert (batch.fields["targets"][behind] == 3).all() and batch.size == sizes.sum()


@pytest.mark.parametrize("bucketed", [True, False])
def test_the_reference_goes_with_its_pair_wherever_that_is_drawn(bucketed: bool):
    """Pair n has ref_logp -n and -n - 0.5, and n as its first id: three epochs of every pair, in any order."""
    pairs = several(90)
    reference = -np.stack([np.arange(90), np.arange(90) + 0.5], axis=1)
    source = Pairs(pairs, pad=0, reference=reference)
    loader = Loader(source, batch=6, seed=4, lengths=source.lengths if bucketed else None)
    drawn: list[int] = []
    for _, batch in zip(range(45), loader, strict=False):
        assert batch.tokens.shape[0] == 12 and batch.count == 6
        first, second = batch.tokens[:6, 0], batch.tokens[6:, 0]
        assert torch.equal(first, second)
        assert torch.equal(batch.fields["ref_logp"], torch.cat((-first.float(), -first.float() - 0.5)))
        for row, number in enumerate(first.tolist()):
            ids = pairs[number].chosen.ids
            assert batch.tokens[row, : len(ids) - 1].tolist() == ids[:-1]
        drawn += first.tolist()
    assert sorted(drawn) == sorted([*range(90)] * 3) and drawn[:90] != sorted(drawn[:90])
    inputs = [max(len(pair.chosen.ids), len(pair.rejected.ids)) - 1 for pair in pairs]
    assert source.lengths.tolist() == inputs


def test_margins_go_with_their_pair():
    source = WholePairs(several(50), pad=0)
    for batch in sequential(source, 8, lengths=source.lengths):
        half = batch.tokens.shape[0] // 2
        assert torch.allclose(batch.fields["margin"], batch.tokens[:half, 0].float() / 10)
        last = batch.tokens[torch.arange(2 * half), batch.fields["lengths"] - 1]
        assert (last >= 120).all() and batch.tokens.shape[1] == batch.fields["lengths"].max()


@pytest.mark.parametrize("pad", [0, 139])
def test_the_log_probability_of_an_answer_is_that_of_its_row_alone(pad: int):
    """Whatever a batch is filled up with, and whoever else is in it."""
    config = ModelConfig(
        family="llama", vocabulary=140, context=64, width=16, layers=2, heads=2, init="torch", tie=False
    )
    model, pairs = build(config, seed=1), several(7)
    batch = Pairs(pairs, pad=pad).batch(np.arange(7))
    with torch.no_grad():
        found = (logp(model, batch.tokens, batch.fields["targets"]) * batch.fields["weight"]).sum(1)
        for place, row in enumerate([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]):
            ids = torch.tensor([row.ids])
            alone = logp(model, ids[:, :-1], ids[:, 1:])[0, torch.tensor(row.learn[1:])].sum()
            assert torch.allclose(found[place], alone, atol=1e-5)


def logp(model: torch.nn.Module, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return model(tokens).log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def test_a_batch_moves_with_all_its_fields():
    batch = WholePairs(several(3), pad=0).batch(np.arange(3)).to("meta")
    assert batch.tokens.is_meta and all(tensor.is_meta for tensor in batch.fields.values()) and batch.count == 3


@pytest.mark.parametrize("kind", [Pairs, WholePairs])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no pairs"),
        ([PairRow(LONG, SHORT), PairRow(LONG, Row([5, 6], [False, False]))], "the worse row of pair 1 has 2 ids, 0 of"),
        ([PairRow(Row([5, 6], [True, True]), SHORT)], "the better row of pair 0 has 2 ids, 2 of"),
        ([PairRow(Row([5, 6], [False]), SHORT)], "the better row of pair 0"),
    ],
)
def test_rows_without_an_answer_are_refused(kind, rows: list[PairRow], message: str):
    with pytest.raises(DataError, match=message):
        kind(rows, pad=0)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (np.zeros((1, 2)), r"have shape \(1, 2\), and 2 pairs need \(2, 2\)"),
        (np.zeros(4), r"have shape \(4,\)"),
        (np.array([[0, 1], [np.nan, 0]]), "not all of them are finite"),
        (np.array([[0, 1], [-np.inf, 0]]), "not all of them are finite"),
    ],
)
def test_a_reference_of_other_rows_is_refused(reference: np.ndarray, message: str):
    with pytest.raises(DataError, match=message):
        Pairs([PairRow(LONG, SHORT), PairRow(THIRD, FOURTH)], pad=0, reference=reference)
