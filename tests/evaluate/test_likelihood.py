"""Loss, perplexity and bits per byte: against arithmetic by hand and a loop that predicts one token at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from groundup import tokens as tokenizers
from groundup.batches import Windows, next_token, sequential
from groundup.errors import DataError, SettingsError
from groundup.evaluate import each_token_once, evaluate
from groundup.evaluate.likelihood import perplexity
from groundup.machine import Machine
from groundup.model import BigramConfig, ModelConfig, build


def even(vocabulary: int, context: int = 16) -> nn.Module:
    """A model without a clue: every id has the same chance."""
    model = build(BigramConfig(vocabulary=vocabulary, context=context))
    model.table.weight.data.zero_()
    return model


def small(dropout: float = 0.0) -> nn.Module:
    config = ModelConfig(
        family="llama",
        vocabulary=30,
        context=8,
        width=16,
        layers=2,
        heads=2,
        init="torch",
        tie=False,
        dropout_embedding=dropout,
    )
    return build(config, seed=1)


def test_a_clueless_model_scores_the_logarithm_of_its_vocabulary():
    score = evaluate(even(32), each_token_once(np.arange(20), context=8))
    assert score.loss == pytest.approx(math.log(32), rel=1e-6)
    assert score.perplexity == pytest.approx(32, rel=1e-5)
    assert score.tokens == 19 and score.bits_per_byte is None


def test_bits_per_byte_by_hand():
    """Two ids of 1 and 3 bytes, p = 1/4 each: 2 bits a token. Ids 1, 0, 1 are predicted: 3 + 1 + 3 bytes."""
    score = evaluate(even(4), each_token_once(np.array([0, 1, 0, 1]), context=2), byte_lengths=np.array([1, 3, 0, 0]))
    assert score.bits_per_byte == pytest.approx(3 * 2 / 7)


def test_bits_per_byte_of_bytes_is_the_loss_in_bits():
    tokenizer = tokenizers.train("bpe", ["x"], vocabulary=256, special=[])
    ids = np.array(tokenizer.encode("naïve café ☃"))
    score = evaluate(even(256), each_token_once(ids, context=5), byte_lengths=tokenizer.byte_lengths())
    assert score.bits_per_byte == pytest.approx(8)  # 256 equally likely bytes


def test_a_shorter_last_batch_weighs_what_it_holds():
    ids = np.random.default_rng(0).integers(0, 30, 8 * 7 + 1)
    model = small()
    whole = evaluate(model, sequential(Windows(ids, length=8), 7))
    assert [batch.count for batch in sequential(Windows(ids, length=8), 3)] == [24, 24, 8]
    parts = evaluate(model, sequential(Windows(ids, length=8), 3))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6) and parts.tokens == whole.tokens == 56


def by_hand(model: nn.Module, ids: np.ndarray, context: int, stride: int) -> float:
    """Total nats, one token at a time: token t is seen from the first window that reaches it."""
    total = 0.0
    for target in range(1, len(ids)):
        number = max(0, -(-(target - context) // stride))  # first window k with k stride + context >= target
        window = torch.from_numpy(ids[number * stride : target].astype(np.int64))
        with torch.no_grad():
            total -= model(window[None])[0, -1].double().log_softmax(0)[ids[target]].item()
    return total


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 30), st.integers(1, 8), st.data())
def test_every_token_but_the_first_is_predicted_once(length: int, context: int, data: st.DataObject):
    stride, batch = data.draw(st.integers(1, context)), data.draw(st.integers(1, 4))
    ids = np.random.default_rng(length).integers(0, 30, length).astype(np.uint16)
    model = small()
    score = evaluate(model, each_token_once(ids, context=context, stride=stride, batch=batch))
    assert score.tokens == length - 1
    assert score.loss * (length - 1) == pytest.approx(by_hand(model, ids, context, stride), rel=1e-5)


@pytest.mark.parametrize(("length", "context", "stride"), [(17, 4, 4), (18, 4, 3), (6, 4, 2), (3, 8, 8), (40, 8, 1)])
def test_the_scored_places_are_each_place_once(length: int, context: int, stride: int):
    """With ids that are their own places, the targets of weight 1 are 1 .. length - 1."""
    found = [
        batch.fields["targets"][batch.fields["weight"] > 0]
        for batch in each_token_once(np.arange(length), context=context, stride=stride, batch=2)
    ]
    assert torch.cat(found).tolist() == list(range(1, length))


def test_a_smaller_stride_gives_more_context_and_here_a_better_loss():
    """A text of period 6: a window that starts anew must guess once more where in the period it stands."""
    config = ModelConfig(family="llama", vocabulary=4, context=12, width=32, layers=2, heads=2)
    model, ids = build(config, seed=2), np.tile([0, 1, 1, 2, 1, 3], 60)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    windows = Windows(ids, length=12, stride=1)
    for step in range(60):
        batch = next_token(torch.from_numpy(windows.rows(np.arange(step, step + 32))))
        loss = nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.fields["targets"].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    far = evaluate(model, each_token_once(ids, context=11))  # 11: windows begin at every place of the period
    near = evaluate(model, each_token_once(ids, context=11, stride=2))
    assert far.tokens == near.tokens and near.loss < 0.5 * far.loss


def test_limit_stops_after_the_batch_that_reaches_it():
    batches = list(each_token_once(np.arange(30) % 4, context=4, batch=1))
    assert evaluate(even(4), batches, limit=8).tokens == 8
    assert evaluate(even(4), batches, limit=9).tokens == 12
    assert evaluate(even(4), batches, limit=1000).tokens == 29


@pytest.mark.parametrize("training", [True, False])
def test_it_predicts_without_dropout_and_leaves_no_trace(training: bool):
    model, ids = small(dropout=0.5).train(training), np.arange(30)
    before = torch.get_rng_state()
    first = evaluate(model, each_token_once(ids, context=8))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training is training
    assert (
        evaluate(model, each_token_once(ids, context=8)) == first == evaluate(small(), each_token_once(ids, context=8))
    )
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_put_back_after_an_error_too():
    model = small().train()
    with pytest.raises(DataError, match="no batches came"):
        evaluate(model, [])
    assert model.training


def test_bf16_products_are_close_and_not_the_same():
    model, ids = (
        build(ModelConfig(family="gpt2", vocabulary=30, context=8, width=16, layers=2, heads=2), seed=1),
        np.arange(30),
    )
    exact = evaluate(model, each_token_once(ids, context=8))
    rough = evaluate(model, each_token_once(ids, context=8), machine=Machine(torch.device("cpu"), torch.bfloat16, 1))
    assert rough.loss == pytest.approx(exact.loss, rel=1e-2) and rough.loss != exact.loss


def test_a_hopeless_loss_has_an_infinite_perplexity():
    assert perplexity(710.0) == math.inf
    assert math.isnan(perplexity(math.nan))
    model = even(3)
    model.table.weight.data[:, 0] = 5000.0
    score = evaluate(model, each_token_once(np.array([0, 1, 2, 1]), context=3))
    assert score.loss == pytest.approx(5000) and score.perplexity == math.inf


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_without_a_second_token_is_refused(length: int):
    with pytest.raises(DataError, match=f"the text has {length} tokens"):
        next(each_token_once(np.arange(length), context=4))


@pytest.mark.parametrize("stride", [0, 5])
def test_a_stride_that_leaves_tokens_out_is_refused(stride: int):
    with pytest.raises(SettingsError, match=f"'stride' cannot be {stride} with a context of 4"):
        next(each_token_once(np.arange(9), context=4, stride=stride))
