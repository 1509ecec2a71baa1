"""The one-table model, held against the numbers of Karpathy's lecture "Let's build GPT: from scratch, in code"."""

import pytest
import torch
from torch.nn import functional as F

from groundup.errors import ModelError
from groundup.model import build
from groundup.model.bigram import Bigram
from groundup.model.cache import Cache
from groundup.model.config import BigramConfig, count_parameters

LECTURE = BigramConfig(vocabulary=65, context=8)
# The first batch of the lecture (tiny Shakespeare, seed 1337): "Let's he", "for that", "nt that ", "MEO:\nI p"
X = [[24, 43, 58, 5, 57, 1, 46, 43], [44, 53, 56, 1, 58, 46, 39, 58]]
X += [[52, 58, 1, 58, 46, 39, 58, 1], [25, 17, 27, 10, 0, 21, 1, 54]]
Y = [[43, 58, 5, 57, 1, 46, 43, 39], [53, 56, 1, 58, 46, 39, 58, 1]]
Y += [[58, 1, 58, 46, 39, 58, 1, 46], [17, 27, 10, 0, 21, 1, 54, 39]]


def test_the_lecture_seed_gives_the_lecture_loss():
    torch.manual_seed(1337)
    model = build(LECTURE)
    assert isinstance(model, Bigram)
    logits = model(torch.tensor(X))
    assert logits.shape == (4, 8, 65)
    torch.testing.assert_close(model.table.weight[0, :3], torch.tensor([0.1808, -0.0700, -0.3596]), atol=1e-4, rtol=0)
    assert F.cross_entropy(logits.flatten(0, 1), torch.tensor(Y).flatten()).item() == pytest.approx(4.8786, abs=1e-4)


def test_a_row_of_the_table_is_the_answer_whatever_stands_before():
    model = build(LECTURE, seed=3)
    logits = model(torch.tensor([[7, 7, 1], [0, 7, 64]]), padding=torch.tensor([[False, True, True], [True] * 3]))
    assert torch.equal(logits[0, 1], model.table.weight[7]) and torch.equal(logits[1, 1], model.table.weight[7])
    assert torch.equal(logits[1, 2], model.table.weight[64])


def test_a_cache_counts_the_tokens_and_holds_nothing():
    model, cache = build(LECTURE, seed=3), Cache(LECTURE, batch=1, length=8)
    model(torch.tensor([[1, 2, 3]]), cache=cache)
    model(torch.tensor([[4]]), cache=cache)
    assert cache.length == 4 and cache.keys.numel() == 0


def test_seed_and_count():
    assert torch.equal(build(LECTURE, seed=1).table.weight, build(LECTURE, seed=1).table.weight)
    assert not torch.equal(build(LECTURE, seed=1).table.weight, build(LECTURE, seed=2).table.weight)
    assert count_parameters(LECTURE).total == sum(p.numel() for p in build(LECTURE).parameters()) == 65 * 65
    with torch.device("meta"):
        assert build(LECTURE, seed=1).table.weight.is_meta


def test_what_does_not_fit_is_refused():
    model = build(LECTURE)
    with pytest.raises(ModelError, match="token id 65 is outside the vocabulary of 65"):
        model(torch.tensor([[65]]))
    with pytest.raises(ModelError, match="9 tokens are more than the model's context of 8"):
        model(torch.zeros(1, 9, dtype=torch.long))
