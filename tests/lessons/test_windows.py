"""Rung `windows`: which ids stand in which window, in which order, and what fills a short row."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup import batches, losses
from groundup.model import build
from groundup.model.config import ModelConfig


@pytest.fixture(scope="module")
def lesson(data_dir: Path, climb: Callable) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("windows")


def epoch(length: int, stride: int, ids: int = 40) -> batches.Batch:
    """All windows of the ids 0, 1, 2 ... as one batch: so each id is its own place."""
    windows = batches.Windows(np.arange(ids), length=length, stride=stride)
    return next(batches.sequential(windows, len(windows)))


def test_targets_are_the_inputs_one_place_on() -> None:
    """L01: every target is the id that follows the input above it."""
    batch = epoch(length=6, stride=5)
    assert batch.fields["targets"].equal(batch.tokens + 1)
    assert batch.tokens[1].tolist() == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (4, 1), (4, 4), (3, 7), (8, 2), (39, 1), (39, 5)])
def test_windows_are_counted_and_start_every_stride(lesson: dict, length: int, stride: int) -> None:
    """L02: ceil((n - length) / stride) windows, in the library and in the data set made by hand."""
    batch, by_hand = epoch(length, stride), lesson["WindowData"](list(range(40)), length, stride)
    assert len(batch.tokens) == len(by_hand) == math.ceil((40 - length) / stride)
    assert batch.tokens[:, 0].tolist() == [number * stride for number in range(len(by_hand))]
    assert batch.tokens.equal(torch.stack([by_hand[number][0] for number in range(len(by_hand))]))


def test_a_loader_has_batches_of_one_size_in_order_or_shuffled(lesson: dict) -> None:
    """L03: in order, every batch full; shuffled, each window once an epoch, by hand and in the library."""
    plain = [inputs for inputs, _ in lesson["loader"](4, 4, size=8)]
    assert {inputs.shape for inputs in plain} == {(8, 4)}
    assert torch.cat(plain).flatten().tolist() == lesson["ids"][: 160 * 32]  # 1,286 windows: 160 batches, 6 dropped
    windows = batches.Windows(np.arange(41), length=4, stride=4)
    draws = iter(batches.Loader(windows, batch=5, seed=7))
    starts = torch.cat([next(draws).tokens[:, 0], next(draws).tokens[:, 0]]).tolist()
    assert starts != sorted(starts) and sorted(starts) == list(range(0, 40, 4))


def test_other_lengths_and_strides_overlap_or_leave_gaps() -> None:
    """L04: how often an id is an input is decided by length and stride."""
    for length, stride, often in ((2, 2, 1), (8, 2, 4), (4, 1, 4), (6, 3, 2)):
        seen = epoch(length, stride).tokens.flatten().bincount(minlength=40)
        assert seen[10:28].eq(often).all()  # away from both ends
    assert epoch(length=1, stride=3).tokens.flatten().tolist() == list(range(0, 39, 3))


def test_windows_with_a_single_next_word(lesson: dict) -> None:
    """L05: three words and the one that follows; the same question as the last place of the library's windows."""
    expected = [("The cat sat", "on"), ("cat sat on", "the"), ("sat on the", "mat")]
    assert [(" ".join(seen), next) for seen, next in lesson["single"]] == expected
    words = "The cat sat on the mat".split()
    batch = next(batches.sequential(batches.Windows(np.arange(6), length=3, stride=1), 3))
    read = [
        (" ".join(words[id] for id in row), words[targets[-1]])
        for row, targets in zip(batch.tokens.tolist(), batch.fields["targets"].tolist(), strict=True)
    ]
    assert read == expected


def test_the_same_seed_gives_the_same_order(lesson: dict) -> None:
    """L09: by hand and in the library; another seed, or the next epoch, gives another order of the same windows."""
    assert lesson["shuffled"](1).equal(lesson["shuffled"](1))
    assert not lesson["shuffled"](1).equal(lesson["shuffled"](2))
    windows = batches.Windows(np.arange(65), length=4, stride=4)

    def starts(seed: int) -> list[list[int]]:
        """First ids of all windows of two epochs."""
        draws = iter(batches.Loader(windows, batch=16, seed=seed))
        return [next(draws).tokens[:, 0].tolist() for _ in range(2)]

    first, second = starts(5)
    assert [first, second] == starts(5)
    assert first != second and first != starts(6)[0]
    assert sorted(first) == sorted(second) == sorted(starts(6)[0]) == list(range(0, 64, 4))


def test_filler_of_short_rows_has_no_part_in_training(lesson: dict) -> None:
    """L10: weights are 1 on real tokens only, and the gradient is that of the rows one by one."""
    rows = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
    filled, weight = lesson["stack"](rows, filler=0)
    assert filled.tolist() == [[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 9, 10, 0, 0]]
    assert weight.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]

    def gradient(parts: list[list[list[int]]]) -> torch.Tensor:
        """Of the summed loss over some batches, on all numbers of a small model."""
        model = build(ModelConfig(vocabulary=12, context=8, width=8, layers=1, heads=2, family="gpt2"), seed=3)
        for part in parts:
            ids, kept = batches.pad(part, 0)
            losses.next_token(model, batches.next_token(ids, weight=kept[:, 1:]))[0].backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    torch.testing.assert_close(gradient([rows]), gradient([[row] for row in rows]))
