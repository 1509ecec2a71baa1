"""Causal masks: both ways give the softmax of what a word may see, and so does the library."""

import math

import pytest
import torch

from groundup.model.gpt import attention, attention_by_hand

SCORES = torch.randn(7, 7, generator=torch.Generator().manual_seed(4)) * 3


@pytest.fixture(scope="module")
def lesson(climb):
    return climb("causal_mask")


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    """Row by row the softmax of the scores a word may see, nothing else computed."""
    rows = torch.zeros(7, 7)
    for row in range(7):
        rows[row, : row + 1] = torch.softmax(SCORES[row, : row + 1], dim=0)
    return rows


def test_struck_out_and_shared_anew(lesson, truth):
    """A08: zeroing the future and renormalising gives each row the softmax of what it may see."""
    assert lesson["struck_out"](torch.full((2, 2), 0.5)).tolist() == [[0.5, 0.0], [0.5, 0.5]]
    assert lesson["shared_anew"](torch.tensor([[0.5, 0.0], [0.2, 0.6]])).flatten().tolist() == pytest.approx(
        [1, 0, 0.25, 0.75]
    )
    rows = lesson["shared_anew"](lesson["struck_out"](torch.softmax(SCORES, dim=-1)))
    torch.testing.assert_close(rows, truth)


def test_minus_infinity_before_the_softmax(lesson, truth):
    """A09: the same rows as by zeroing, with nothing left to share anew."""
    assert lesson["hidden"](torch.zeros(2, 2)).tolist() == [[0.0, -math.inf], [0.0, 0.0]]
    rows = torch.softmax(lesson["hidden"](SCORES), dim=-1)
    torch.testing.assert_close(rows, truth)
    torch.testing.assert_close(rows, lesson["shared_anew"](lesson["struck_out"](torch.softmax(SCORES, dim=-1))))


def test_the_library_hides_the_same(truth):
    """A09: the library's causal weights, read off with unit values; and its quick way, which makes no triangle."""
    # queries that are the scores themselves and keys that are unit vectors give any scores one likes
    queries, unit = SCORES[None, None] * math.sqrt(7), torch.eye(7)[None, None]
    torch.testing.assert_close(attention_by_hand(queries, unit, unit)[0, 0], truth)
    torch.testing.assert_close(attention(queries, unit, unit)[0, 0], truth)
