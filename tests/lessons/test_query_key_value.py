"""Query, key and value: two classes worked out by hand, and the weights of one in the other."""

import math

import pytest
import torch

from groundup.model.gpt import attention_by_hand

TWO = torch.tensor([[0.0], [1.0]])  # two words of one number each
SEEN = torch.ones(1, 1, 2, 2, dtype=torch.bool)


@pytest.fixture(scope="module")
def lesson(climb):
    return climb("query_key_value")


def by_hand(query: float, key: float, value: float) -> list[float]:
    """What `TWO` becomes when each matrix is one number: only the second word has any content."""
    share = math.exp(query * key) / (1 + math.exp(query * key))  # the second word asks: scores 0 and query * key
    return [value / 2, value * share]  # the first asks with 0, so its scores are equal


def test_each_step_equals_plain_arithmetic(lesson):
    """A04: query, score, scaled weights and context of "journey" from the three matrices, by sums over lists."""
    inputs = lesson["inputs"].tolist()
    roles = {}
    for role in ("to_query", "to_key", "to_value"):
        columns = lesson[role].T.tolist()  # K lists of D numbers
        roles[role] = [[sum(a * b for a, b in zip(word, column, strict=True)) for column in columns] for word in inputs]
    query = roles["to_query"][1]
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) for key in roles["to_key"]]
    powers = [math.exp(score / math.sqrt(2)) for score in scores]
    context = [sum(p * v[place] for p, v in zip(powers, roles["to_value"], strict=True)) for place in range(2)]
    assert lesson["scores"].tolist() == pytest.approx(scores, abs=1e-5)
    assert lesson["weights"].tolist() == pytest.approx([power / sum(powers) for power in powers], abs=1e-6)
    assert lesson["context"].tolist() == pytest.approx([number / sum(powers) for number in context], abs=1e-6)


def test_scores_are_divided_by_the_root_of_the_key_size(lesson):
    """A04: four equal numbers per key, so a score of 4 counts as 2."""
    by_matrices = lesson["AttentionByMatrices"](1, 4)
    for matrix in by_matrices.parameters():
        matrix.data.fill_(1.0)
    assert by_matrices(TWO)[1].tolist() == pytest.approx([math.exp(2) / (1 + math.exp(2))] * 4)


def test_matrices(lesson):
    """A05: attention with bare matrices, worked out for two words; it draws from 0 to 1."""
    by_matrices = lesson["AttentionByMatrices"](1, 1)
    assert all(0 <= matrix.item() < 1 for matrix in by_matrices.parameters())
    for name, number in {"query": 2.0, "key": 0.5, "value": 3.0}.items():
        getattr(by_matrices, name).data.fill_(number)
    assert by_matrices(TWO).flatten().tolist() == pytest.approx(by_hand(2.0, 0.5, 3.0))


def test_layers(lesson):
    """A06: attention with linear layers, worked out for two words, and equal to the library's."""
    by_layers = lesson["AttentionByLayers"](1, 1)
    assert len(list(by_layers.parameters())) == 3  # no bias
    for name, number in {"query": -1.0, "key": 2.0, "value": 5.0}.items():
        getattr(by_layers, name).weight.data.fill_(number)
    assert by_layers(TWO).flatten().tolist() == pytest.approx(by_hand(-1.0, 2.0, 5.0))
    library = attention_by_hand(-TWO[None, None], 2 * TWO[None, None], 5 * TWO[None, None], SEEN)
    assert library.flatten().tolist() == pytest.approx(by_hand(-1.0, 2.0, 5.0))


def test_layers_move_into_matrices_only_when_turned_over(lesson):
    """A07: exercise 3.1, with square matrices, where forgetting to transpose would go unnoticed by shapes."""
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    by_matrices, by_layers = lesson["AttentionByMatrices"](4, 4), lesson["AttentionByLayers"](4, 4)
    assert not torch.allclose(by_matrices(x), by_layers(x), atol=1e-3)
    lesson["take_over"](by_matrices, by_layers)
    torch.testing.assert_close(by_matrices(x), by_layers(x))
    by_matrices.value.data = by_matrices.value.data.T
    assert not torch.allclose(by_matrices(x), by_layers(x), atol=1e-3)
