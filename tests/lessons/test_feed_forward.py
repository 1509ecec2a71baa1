"""Rung `feed_forward`: rows of mean 0 and variance 1, the two forms of GELU, every token for itself."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.gpt import FeedForward

CONFIG = ModelConfig(family="gpt2", vocabulary=8, context=8, width=6, layers=1, heads=1, init="torch")


@pytest.fixture(scope="module")
def lesson(climb) -> dict:
    return climb("feed_forward")


def bend(values: list[float]) -> list[float]:
    """What the library's feed-forward part does between its two matrices: both pick out single numbers."""
    part = FeedForward(CONFIG)
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            parameter.copy_(torch.eye(*parameter.shape) if name.endswith("weight") else torch.zeros(parameter.shape))
        return part(torch.tensor([values]))[0].tolist()  # (1, 6) -> (1, 24) -> (1, 6)


def test_layer_norm_by_hand(lesson: dict):
    """M02: mean 0 and biased variance 1, then scale and shift; the lesson's and the library's alike."""
    library, by_hand = build(CONFIG, seed=1).norm, lesson["LayerNorm"](6)
    row = torch.tensor([1.0, 1.0, 2.0, 2.0, 6.0, 6.0])  # mean 3, mean square of the distances (4 + 1 + 9) / 3
    worked = (row - 3) / math.sqrt(14 / 3)
    with torch.no_grad():
        for norm in (library, by_hand):
            torch.testing.assert_close(norm(row), worked, atol=1e-5, rtol=0)  # eps moves the sixth digit
            norm.weight.copy_(torch.arange(6.0))
            norm.bias.fill_(0.5)
            torch.testing.assert_close(norm(row), worked * torch.arange(6.0) + 0.5, atol=1e-4, rtol=0)
        by_hand.biased = False
        unbiased = by_hand(row) - 0.5
    torch.testing.assert_close(unbiased, worked * math.sqrt(5 / 6) * torch.arange(6.0), atol=1e-4, rtol=0)


def test_gelu_by_its_formulas(lesson: dict, tmp_path: Path, climb: Callable):
    """M03: the library bends by the tanh form, which is neither the exact one nor ReLU; the lesson plots all three."""
    values = [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0]
    tanh = [0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in values]
    exact = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in values]
    assert bend(values) == pytest.approx(tanh, abs=1e-6)
    assert bend(values) != pytest.approx(exact, abs=1e-5) and bend(values) == pytest.approx(exact, abs=1e-3)
    assert bend(values) != pytest.approx([max(x, 0.0) for x in values], abs=0.1)
    for name, worked in (("gelu", tanh), ("gelu_exact", exact)):
        assert lesson[name](torch.tensor(values)).tolist() == pytest.approx(worked, abs=1e-6)
    slope: Tensor = lesson["slope"](torch.relu, torch.tensor([-1.0, 2.0]))
    assert slope.tolist() == [0.0, 1.0]
    climb("feed_forward", pictures=tmp_path)
    assert (tmp_path / "feed_forward.png").read_bytes().startswith(b"\x89PNG")


def test_each_token_goes_through_by_itself(lesson: dict):
    """M04: four times as wide inside, the same shape outside, and no token knows of another."""
    model = build(CONFIG, seed=1)
    part = model.blocks[0].feedforward
    assert part.up.weight.shape == (24, 6) and part.down.weight.shape == (6, 24)
    texts = torch.randn(2, 5, 6)
    with torch.no_grad():
        together = part(texts)
        for row in range(2):
            for place in range(5):
                torch.testing.assert_close(together[row, place], part(texts[row, place]))
    assert together.shape == texts.shape == (2, 5, 6)
    assert lesson["plain"].shape == (2, 3, 768)  # the lecture's: one linear layer and a ReLU
