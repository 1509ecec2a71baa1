"""Packed documents: every id predicted once and from its own document, rows full, answers those of each alone."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import losses
from groundup.batches import Batch, Loader, PackedDocuments
from groundup.batches.pack import LOOK_AHEAD, fit
from groundup.errors import DataError, SettingsError
from groundup.model import build
from groundup.model.config import FAMILIES, ModelConfig

END = 0
FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))


def joined(documents):
    """Texts as shards hold them: one line of ids, end-of-text behind each, and where each starts."""
    sizes = np.array([len(document) + 1 for document in documents])
    ids = np.array([id for document in documents for id in [*document, END]], dtype=np.uint16)
    return ids, np.cumsum(sizes) - sizes


def story(count, *, longest=30, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(1, 40, random.integers(1, longest)).tolist() for _ in range(count)]


def runs(batch):
    """(inputs, targets, positions) of each document in a batch; filler left out."""
    found = []
    for row in range(len(batch.tokens)):
        fields = {name: value[row] for name, value in batch.fields.items()}
        for number in fields["documents"].unique():
            here = (fields["documents"] == number) & (fields["weight"] > 0)
            if here.any():
                found.append((batch.tokens[row][here], fields["targets"][here], fields["positions"][here]))
    return found


def test_three_documents_by_hand():
    """Lengths 4, 3 and 2 with their end: in rows of 6 the first takes the last along, and one place stays empty."""
    source = PackedDocuments(*joined([[5, 6, 7], [8, 9], [4]]), length=6, start=END)
    assert len(source) == 2 and source.filler == 3 / 12
    batch = source.batch(np.array([0, 1]))
    assert batch.tokens.tolist() == [[0, 5, 6, 7, 0, 4], [0, 8, 9, 0, 0, 0]]
    assert batch.fields["targets"].tolist() == [[5, 6, 7, 0, 4, 0], [8, 9, 0, 0, 0, 0]]
    assert batch.fields["weight"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert batch.fields["documents"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert batch.fields["positions"].tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 0, 0]]
    assert batch.count == 9


@given(st.lists(st.lists(st.integers(1, 9), max_size=20), min_size=1, max_size=12), st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_every_id_is_predicted_once_and_from_its_own_document(documents, length, known):
    """With a start every id, without one all but the first of each document; the context is what stands before it."""
    texts = [[*document, END] for document in documents]
    wanted = []
    for text in texts:
        whole = [END, *text] if known else text
        wanted += [(tuple(whole[first : first + length]), tuple(whole[first + 1 : first + 1 + length]))
                   for first in range(0, len(whole) - 1, length)]  # fmt: skip
    wanted = [(inputs[: len(targets)], targets) for inputs, targets in wanted]
    if not wanted:
        return
    source = PackedDocuments(*joined(documents), length=length, start=END if known else None)
    found = runs(source.batch(np.arange(len(source))))
    assert sorted((tuple(i.tolist()), tuple(t.tolist())) for i, t, _ in found) == sorted(wanted)
    assert all(positions.tolist() == list(range(len(positions))) for _, _, positions in found)


def test_a_text_cut_in_its_last_document_ends_there():
    ids, starts = joined([[5, 6], [7, 8, 9]])
    batch = PackedDocuments(ids[:-2], starts, length=8, start=END).batch(np.array([0]))
    assert [targets.tolist() for _, targets, _ in runs(batch)] == [[5, 6, 0], [7, 8]]


@pytest.mark.parametrize("start", [END, 1])
def test_begin_tokens_in_the_text_give_the_rows_of_a_text_without(start):
    """Shards of Llama's kind: <s> before each document, whose start is counted from behind it."""
    documents = [[5, 6, 7], [8, 9], [4], [2] * 11]
    ids, starts = joined(documents)
    begun = np.concatenate([[start, *document, END] for document in documents])
    with_start = PackedDocuments(begun, starts + np.arange(1, 5), length=6, start=start)
    without = PackedDocuments(ids, starts, length=6, start=start)
    assert len(with_start) == len(without)
    mine, other = (source.batch(np.arange(len(source))) for source in (with_start, without))
    assert mine.tokens.tolist() == other.tokens.tolist() and mine.count == other.count
    assert all(mine.fields[name].tolist() == other.fields[name].tolist() for name in mine.fields)


def test_one_text_without_documents_is_one_document():
    batch = PackedDocuments(np.array([5, 6, 7]), np.zeros(0, np.uint64), length=4, start=None).batch(np.array([0]))
    assert batch.tokens.tolist()[0][:2] == [5, 6] and batch.count == 2


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
@settings(deadline=None, max_examples=60)
def test_rows_are_never_overfull_and_few(sizes):
    """At most 11/9 of the fewest possible, and one more (Johnson et al. 1974); the fewest by trying everything."""
    row = fit(np.array(sizes), 9)
    assert np.bincount(row, weights=sizes).max() <= 9
    assert sorted(set(row.tolist())) == list(range(row.max() + 1))
    assert row.max() + 1 <= 11 / 9 * fewest(tuple(sizes), 9) + 1


def fewest(sizes, length):
    best = len(sizes)
    for row in itertools.product(*(range(place + 1) for place in range(len(sizes)))):
        if max(row) + 1 < best and np.bincount(row, weights=sizes).max() <= length:
            best = max(row) + 1
    return best


def test_beyond_the_look_ahead_rows_are_filled_on_their_own():
    sizes = np.random.default_rng(0).integers(5, 100, 2 * LOOK_AHEAD + 100)
    row = fit(sizes, 128)
    assert np.bincount(row, weights=sizes).max() <= 128
    assert sizes.sum() / ((row.max() + 1) * 128) > 0.99
    first, second = row[:LOOK_AHEAD], row[LOOK_AHEAD : 2 * LOOK_AHEAD]
    assert first.max() < second.min()


def test_order_is_free_of_ranks_and_goes_on_where_it_stopped():
    def loader(**how):
        return Loader(PackedDocuments(*joined(story(200)), length=32, start=END), seed=3, **how)

    def rows(loader, draws):
        return [row.tolist() for batch in itertools.islice(loader, draws) for row in batch.tokens]

    whole = rows(loader(batch=8), 30)
    ranks = [iter(loader(batch=4, rank=rank, world=2)) for rank in range(2)]
    assert [row for _ in range(30) for rank in ranks for row in rows(rank, 1)] == whole
    saved, again = loader(batch=1), loader(batch=4)
    rows(saved, 52)
    again.restore(saved.state())
    assert rows(again, 10) == whole[52:92]


# --- the model's answers -----------------------------------------------------------------------------------------


def network(family, **changes):
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    config = {"vocabulary": 40, "context": 32, "width": 24, "layers": 2, "heads": 4, "tie": False, "init": "torch"}
    return build(ModelConfig(family=family, **config | groups | changes), seed=1)


def alone(batch):
    """Each document of a batch as a batch of its own."""
    return [Batch(inputs[None], float(len(inputs)), {"targets": targets[None]}) for inputs, targets, _ in runs(batch)]


def gradient(model):
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return found


@FAMILY
def test_loss_and_gradient_are_the_sum_over_documents_alone(family):
    source = PackedDocuments(*joined(story(20)), length=32, start=END)
    batch, model = source.batch(np.arange(4)), network(family)
    assert len(runs(batch)) > 6 and batch.fields["weight"].min() == 0  # several in a row, and filler
    packed, _ = losses.next_token(model, batch)
    packed.backward()
    together = gradient(model)
    total = torch.zeros(())
    for one in alone(batch):
        loss, _ = losses.next_token(model, one)
        loss.backward()
        total += loss.detach()
    assert sum(one.count for one in alone(batch)) == batch.count
    torch.testing.assert_close(packed, total, atol=0, rtol=1e-5)
    torch.testing.assert_close(together, gradient(model), atol=1e-5, rtol=1e-5)


@FAMILY
@torch.inference_mode()
def test_logits_are_those_of_each_document_alone(family):
    source = PackedDocuments(*joined(story(20)), length=32, start=END)
    batch, model = source.batch(np.arange(len(source))), network(family).eval()
    fields = {name: batch.fields[name] for name in ("documents", "positions")}
    logits = model(batch.tokens, **fields)
    assert logits.isfinite().all()
    for row, (numbers, weight) in enumerate(zip(fields["documents"], batch.fields["weight"], strict=True)):
        for number in numbers[weight > 0].unique():
            here = numbers == number
            torch.testing.assert_close(logits[row, here], model(batch.tokens[row, here][None])[0], atol=1e-5, rtol=1e-5)


@FAMILY
@pytest.mark.parametrize("compiled", [False, True])
@torch.inference_mode()
def test_nothing_of_one_document_reaches_another(family, compiled, monkeypatch):
    """To the bit, whether documents are done by themselves or, as in compiled code, under a mask."""
    if compiled:
        monkeypatch.setattr("groundup.model.gpt.separable", lambda *args, **more: None)
    model = network(family).eval()
    batch = PackedDocuments(*joined([[5, 6, 7], [8, 9], [4, 4]]), length=16, start=END).batch(np.array([0]))
    fields = {name: batch.fields[name] for name in ("documents", "positions")}
    before = model(batch.tokens, **fields)
    changed = batch.tokens.clone()
    changed[fields["documents"] == 0] = 33
    after = model(changed, **fields)
    others = fields["documents"] != 0
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after[~others], before[~others])


def test_nothing_to_predict_is_refused():
    with pytest.raises(DataError, match="the text has 3 tokens and nothing to predict in any document"):
        PackedDocuments(np.array([5, 6, 7]), np.arange(3), length=4, start=None)
    with pytest.raises(DataError, match="0 tokens"):
        PackedDocuments(np.zeros(0, np.uint16), np.zeros(0, np.uint64), length=4, start=END)
    with pytest.raises(SettingsError, match="'context' cannot be 0"):
        PackedDocuments(np.array([5, 6]), np.array([0]), length=0, start=END)
