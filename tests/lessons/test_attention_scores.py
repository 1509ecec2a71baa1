"""Attention by hand: scores, three ways to weights, context vectors, each against plain Python."""

import math

import pytest
import torch

from groundup.model.gpt import attention_by_hand


@pytest.fixture(scope="module")
def lesson(climb):
    return climb("attention_scores")


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def shares(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def test_scores_are_dot_products(lesson):
    """A01: one query against every word, multiplied and added up number by number."""
    inputs = lesson["inputs"].tolist()
    truth = [dot(word, inputs[1]) for word in inputs]
    assert lesson["scores_of_journey"].tolist() == pytest.approx(truth, abs=1e-6)
    assert lesson["by_hand"] == pytest.approx(truth[0], abs=1e-6)


@pytest.mark.parametrize("scores", [[0.0, math.log(3)], [-2.0, 0.5, 1.0, 7.0]])
def test_weights_sum_to_1_and_all_softmaxes_agree(lesson, scores):
    """A02: naive and stable softmax are torch's, and shares of 1."""
    for softmax in (lesson["softmax_naive"], lesson["softmax_stable"]):
        weights = softmax(torch.tensor(scores))
        assert weights.sum().item() == pytest.approx(1)
        assert weights.tolist() == pytest.approx(shares(scores))
        assert weights.tolist() == pytest.approx(torch.softmax(torch.tensor(scores), dim=0).tolist())


def test_only_the_stable_softmax_survives_large_scores(lesson):
    """A02: 10,000 overflows the naive one; a distance of log 3 means weights of 1/4 and 3/4 at any height."""
    large = torch.tensor([[1e4, 1e4 + math.log(3)], [-1e4, -1e4 + math.log(3)]], dtype=torch.float64)
    assert lesson["softmax_naive"](large).isnan().all()
    assert lesson["softmax_stable"](large).flatten().tolist() == pytest.approx([0.25, 0.75] * 2)


def test_contexts_are_weighted_means_of_the_words(lesson):
    """A03: all at once as one by one; and the library's attention, when nobody is hidden."""
    inputs = lesson["inputs"].tolist()
    truth = []
    for query in inputs:
        weights = shares([dot(query, word) for word in inputs])
        truth += [dot(weights, [word[place] for word in inputs]) for place in range(3)]
    assert lesson["contexts"].flatten().tolist() == pytest.approx(truth, abs=1e-6)
    x = lesson["inputs"][None, None]
    library = attention_by_hand(x * math.sqrt(3), x, x, torch.ones(1, 1, 6, 6, dtype=torch.bool))
    assert library.flatten().tolist() == pytest.approx(truth, abs=1e-6)
