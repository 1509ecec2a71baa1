"""Rung `embeddings`: look-ups are matrix products, places are added, fixed places know distances."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT, rotate, rotation_at


@pytest.fixture(scope="module")
def lesson(data_dir: Path, climb: Callable) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("embeddings")


def model(**settings) -> GPT:
    sizes = {"vocabulary": 6, "context": 4, "width": 3, "layers": 1, "heads": 1} | settings
    return build(ModelConfig(family="gpt2", init="torch", **sizes), seed=123)


def entering(network: GPT, tokens: torch.Tensor) -> torch.Tensor:
    """What the first block of the network reads, (B, T, D)."""
    seen = []
    handle = network.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    network(tokens)
    handle.remove()
    return seen[0]


def test_the_library_table_holds_the_printed_rows() -> None:
    """E01: rows 2, 3, 5, 1 for seed 123, as section 2.7 prints them."""
    printed = [[1.2753, -0.2010, -0.1606], [-0.4015, 0.9666, -1.1481], [-2.8400, -0.7849, -1.4096]]
    rows = model().token_table(torch.tensor([2, 3, 5, 1]))
    torch.testing.assert_close(rows, torch.tensor([*printed, [0.9178, 1.5810, 1.3010]]), atol=1e-4, rtol=0)


def test_a_lookup_is_one_hot_times_the_table() -> None:
    """E02: the same numbers, and the same gradient, which adds up where an id repeats and is 0 where none stands."""
    table = model().token_table
    ids = torch.tensor([[4, 1, 4], [4, 0, 2]])
    one_hot = F.one_hot(ids, 6).float()
    torch.testing.assert_close(table(ids), one_hot @ table.weight)
    slope = torch.arange(18.0).view(2, 3, 3)  # (B, T, D)
    gradients = [torch.autograd.grad(out, table.weight, slope)[0] for out in (table(ids), one_hot @ table.weight)]
    by_hand = torch.tensor(
        [[12, 13, 14], [3, 4, 5], [15, 16, 17], [0, 0, 0], [0 + 6 + 9, 1 + 7 + 10, 2 + 8 + 11], [0, 0, 0]]
    )
    for gradient in gradients:
        assert gradient.equal(by_hand.float())


def test_places_are_added_alike_to_every_row_of_the_batch() -> None:
    """E03: what enters the first block is token row plus place row; the same token differs by its places alone."""
    network = model()
    tokens = torch.tensor([[2, 2, 2, 2], [5, 0, 1, 2], [3, 3, 0, 0]])
    read = entering(network, tokens)
    assert read.shape == (3, 4, 3)
    for row in range(3):
        for place in range(4):
            parts = network.token_table.weight[tokens[row, place]], network.position_table.weight[place]
            torch.testing.assert_close(read[row, place], parts[0] + parts[1])
    shifted = entering(network, tokens[:1, :2])  # a shorter text stands at the first places
    torch.testing.assert_close(shifted[0], read[0, :2])


def test_sinusoidal_places_know_distances_only(lesson: dict) -> None:
    """E04: worked by hand; moving on is a fixed rotation, so products depend on the distance alone."""
    sinusoids = lesson["sinusoids"]
    expected = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.1), math.cos(0.1)]]
    torch.testing.assert_close(sinusoids(2, 4, base=100.0), torch.tensor(expected))
    rows = sinusoids(64, 32)
    torch.testing.assert_close(rows.norm(dim=1), torch.full((64,), 4.0))  # sixteen pairs of length 1
    for step in (1, 7):
        products = (rows[step:] * rows[:-step]).sum(dim=1)
        by_hand = sum(math.cos(step * 10_000 ** (-2 * pair / 32)) for pair in range(16))
        torch.testing.assert_close(products, torch.full_like(products, by_hand))
    assert not rows[:1].allclose(rows[1:], atol=1e-3)


def test_rotary_places_know_distances_only() -> None:
    """E04: the library's relative places: queries and keys moved on together keep their scores."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 2, 5, 8)  # each (B, H, T, K)

    def scores(first: int) -> torch.Tensor:
        """Every query against every key, with the places counted from `first`."""
        rotation = rotation_at(torch.arange(first, first + 5)[None], head_size=8, base=100.0)
        return rotate(query, rotation) @ rotate(key, rotation).transpose(2, 3)

    torch.testing.assert_close(scores(0), scores(40), atol=1e-4, rtol=1e-4)
    assert not scores(0).allclose(query @ key.transpose(2, 3), atol=1e-2)  # yet places do count


def test_the_character_model_tells_places_apart(lesson: dict) -> None:
    """E05: logits (B, T, 65); the same letter gives other logits at another place, and only because of the table."""
    network = lesson["PlacedTable"](65, context=8, width=32)
    letters = torch.full((2, 8), 42)
    logits = network(letters)
    assert logits.shape == (2, 8, 65)
    assert logits[0].equal(logits[1]) and len(logits[0].unique(dim=0)) == 8
    by_hand = (network.token_table.weight[42] + network.position_table.weight[5]) @ network.head.weight.T
    torch.testing.assert_close(logits[0, 5], by_hand + network.head.bias)
    with torch.no_grad():
        network.position_table.weight.zero_()
    torch.testing.assert_close(network(letters)[0], network(letters)[0, :1].expand(8, 65))
    assert model(vocabulary=65, width=32, context=8)(letters).shape == (2, 8, 65)
