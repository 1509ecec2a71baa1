"""Rung `loss`: the mean of -log p by hand, layouts that are refused, losses over loaders, the bill."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import losses
from groundup.batches import Batch, Loader, Windows, sequential
from groundup.errors import ModelError
from groundup.evaluate import evaluate
from groundup.model import BigramConfig, build

LOGITS = [[[0.0, 1.0, 2.0], [0.5, -0.5, 3.0]], [[1.0, 1.0, 1.0], [4.0, 0.0, -1.0]]]  # (2, 2, 3)
TARGETS = [[2, 0], [1, 2]]


class Fixed(nn.Module):
    """Answers what it was told, whatever it is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits held."""
        return self.logits


def batch() -> Batch:
    return Batch(torch.zeros(2, 2, dtype=torch.long), 4.0, {"targets": torch.tensor(TARGETS)})


def by_hand() -> list[float]:
    """log p of each target, with nothing but exp and log."""
    logs = []
    for row, targets in zip(LOGITS, TARGETS, strict=True):
        for scores, target in zip(row, targets, strict=True):
            logs.append(math.log(math.exp(scores[target]) / sum(math.exp(score) for score in scores)))
    return logs


@pytest.fixture(scope="module")
def lesson(data_dir: Path, climb: Callable) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("loss")


def test_negative_mean_of_logarithms():
    """P01: the library's sum is minus the sum of the logarithms of four probabilities worked out one by one."""
    total, _ = losses.next_token(Fixed(torch.tensor(LOGITS)), batch())
    assert by_hand()[2] == pytest.approx(math.log(1 / 3))
    assert total.item() == pytest.approx(-sum(by_hand()), rel=1e-6)


def test_wrong_layouts_are_refused():
    """P02: flat cross entropy equals the logarithms by hand; torch refuses (B, T, V), the library every misfit."""
    logits, targets = torch.tensor(LOGITS), torch.tensor(TARGETS)
    flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert flat.item() == pytest.approx(-sum(by_hand()) / 4, rel=1e-6)
    total, _ = losses.next_token(Fixed(logits), batch())
    assert total.item() / 4 == pytest.approx(flat.item(), rel=1e-6)
    with pytest.raises((RuntimeError, ValueError)):
        F.cross_entropy(logits, targets)
    for misfit in (logits.flatten(0, 1), logits.transpose(1, 2), logits[:1], logits[:, :1]):
        with pytest.raises(ModelError, match="returns logits"):
            losses.next_token(Fixed(misfit), batch())


def test_perplexity_is_exp_of_the_loss():
    """P03: a network without a clue is as undecided as its vocabulary is large; any other, exp(loss)."""
    model = build(BigramConfig(vocabulary=13, context=4), seed=1)
    windows = Windows(np.arange(26) % 13, length=4)
    score = evaluate(model, sequential(windows, 2))
    assert score.perplexity == pytest.approx(math.exp(score.loss)) and score.perplexity != pytest.approx(13, abs=0.1)
    with torch.no_grad():
        model.table.weight.zero_()
    assert evaluate(model, sequential(windows, 2)).perplexity == pytest.approx(13)


def test_loss_over_batches_and_over_the_first_of_them():
    """P04: over all batches the mean over all targets; with a limit, over the first batches only."""
    model = build(BigramConfig(vocabulary=5, context=4), seed=3)
    ids = np.array([0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 2, 4, 1])
    logs = model.table.weight.detach().log_softmax(dim=-1)
    each = [-logs[before, after].item() for before, after in zip(ids[:-1], ids[1:], strict=True)]
    windows = Windows(ids, length=4)  # three batches of one window of four
    assert evaluate(model, sequential(windows, 1)).loss == pytest.approx(sum(each) / 12, rel=1e-6)
    for count in (1, 2):
        score = evaluate(model, sequential(windows, 1), limit=4 * count)
        assert score.loss == pytest.approx(sum(each[: 4 * count]) / (4 * count), rel=1e-6) and score.tokens == 4 * count


@pytest.mark.slow
def test_the_lessons_loader_loss_stops_where_it_is_told(lesson: dict):
    """P04: the mean of the first batches' means; more batches than there are means all; no gradient is kept."""
    model, rows = build(BigramConfig(vocabulary=5, context=4), seed=3), torch.tensor([[0, 1, 2], [3, 4, 0], [2, 2, 1]])
    batches = [rows[:1], rows[1:2], rows[2:]]
    each = [lesson["batch_loss"](model, one).item() for one in batches]
    logs = model.table.weight.detach().log_softmax(dim=-1)
    assert each[0] == pytest.approx(-(logs[0, 1] + logs[1, 2]).item() / 2, rel=1e-6)
    assert lesson["loader_loss"](model, batches) == pytest.approx(sum(each) / 3)
    assert lesson["loader_loss"](model, batches, 2) == pytest.approx(sum(each[:2]) / 2)
    assert lesson["loader_loss"](model, batches, 99) == pytest.approx(sum(each) / 3)


@pytest.mark.slow
def test_cost_of_training_by_the_hour(lesson: dict):
    """P19: hours divided by the machines that share them, times the rent; and hours from operations, within reason."""
    assert lesson["dollars"](184_320, gpus=8, hourly=30) == 691_200
    assert lesson["dollars"](10, gpus=1, hourly=2.5) == 25
    # 6 operations for each of about 6.6 billion parameters and 2 trillion tokens, at 312 trillion a second
    assert lesson["hours"] == pytest.approx(6 * 6.6e9 * 2e12 / 312e12 / 3600, rel=0.2)


def test_nine_and_one():
    """L06: ids as many as the cut story has: 9 training batches and 1 for validation, each 2 x 256, none shared."""
    train, validation = Windows(np.arange(4612), length=256), Windows(np.arange(4612, 4612 + 534), length=256)
    assert [len(train), len(validation)] == [18, 2]
    loader = iter(Loader(train, batch=2, seed=123))
    drawn = [next(loader) for _ in range(9)]
    held_out = list(sequential(validation, 2))
    assert len(held_out) == 1 and {one.tokens.shape for one in drawn + held_out} == {(2, 256)}
    assert len({int(start) for one in drawn for start in one.tokens[:, 0]}) == 18  # each window once in the epoch
    assert all(torch.equal(one.fields["targets"], one.tokens + 1) for one in drawn)
    assert max(one.fields["targets"].max() for one in drawn) < 4612 <= min(one.tokens.min() for one in held_out)
