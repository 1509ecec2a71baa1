"""The rung `processes`: equal weights, shares that do not overlap, hidden cards."""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.batches import Loader, Windows
from groundup.lessons import ladder

slow = pytest.mark.slow  # starts processes, each of which loads torch


@pytest.fixture(scope="module")
def rung(climb) -> dict:
    return climb("processes")


@slow
def test_all_ranks_have_the_same_weights(rung: dict):
    """X11: equal to the bit after training on other rows, and as if the gradients had been averaged by hand."""
    first, second = rung["pair"]
    assert first["losses"] != second["losses"]
    assert all(torch.equal(one, two) for one, two in zip(first["weights"], second["weights"], strict=True))
    torch.testing.assert_close(rung["by_hand"]([first["shares"], second["shares"]]), first["weights"])
    torch.manual_seed(123)
    assert not torch.equal(next(rung["network"]().parameters()), first["weights"][0])  # they did move
    assert first["accuracy"] == second["accuracy"] == 1.0
    assert first["counted"] == second["counted"] == 5  # added up over the ranks by `Machine.sum`


@slow
def test_samples_are_disjoint(rung: dict):
    """X11: of five rows each epoch every one is handed out, and only the padding twice; other epochs, other orders."""
    first, second = (report["shares"] for report in rung["pair"])
    for one, two in zip(first, second, strict=True):
        assert len(one) == len(two) == 3 and sorted(set(one + two)) == [0, 1, 2, 3, 4]
    assert len({str(share) for share in first}) > 1
    assert all(sorted(share) == [0, 1, 2, 3, 4] for share in rung["alone"]["shares"])


@slow
def test_visible_devices(rung: dict):
    """X11: a process sees the cards it is told to, and none where none are named."""
    (report,) = rung["launch"](1, visible="0")
    assert report["visible"] == "0" and report["cards"] == min(1, torch.cuda.device_count())
    assert all(one["visible"] == "" and one["cards"] == 0 for one in rung["pair"])


@slow
def test_a_failing_process_ends_the_others(rung: dict, monkeypatch: pytest.MonkeyPatch):
    """X11: a launch in which a process fails raises, and leaves nothing running."""
    started = []
    popen = rung["subprocess"].Popen

    def broken(command: list[str], **options: object):
        command = [sys.executable, "-c", "raise SystemExit(1)"] if command[-1] == "1" else command
        started.append(popen(command, **options))
        return started[-1]

    monkeypatch.setattr(rung["subprocess"], "Popen", broken)
    with pytest.raises(RuntimeError, match="a process failed"):
        rung["launch"](2)
    assert len(started) == 2 and all(child.returncode is not None for child in started)


@pytest.mark.parametrize("world", [2, 3])
def test_the_librarys_ranks_share_one_line(world: int):
    """X11: the ranks of `Loader` draw disjoint samples, together those of a single process with the larger batch."""
    windows = Windows(np.arange(25), length=2, stride=2)  # 12 samples
    whole = Loader(windows, batch=2 * world, seed=5)
    ranks = [iter(Loader(windows, batch=2, seed=5, rank=rank, world=world)) for rank in range(world)]
    for batch in islice(whole, 12 // (2 * world)):  # one epoch
        parts = [next(rank).tokens[:, 0] for rank in ranks]
        assert torch.equal(batch.tokens[:, 0], torch.cat(parts))
        assert len(set(torch.cat(parts).tolist())) == 2 * world


def test_sharding_and_fabric_are_explained():
    """X12: the rung says what FSDP and Fabric are for."""
    text = Path(ladder.find("processes").path).read_text(encoding="utf-8")
    assert all(word in text for word in ("FSDP", "fully_shard", "Fabric"))
