"""The rung `devices`: choice, refusal, the same training anywhere, the cross-over."""

import pytest
import torch

from groundup import machine
from groundup.batches import next_token
from groundup.errors import SettingsError


@pytest.fixture(scope="module")
def rung(climb) -> dict:
    return climb("devices")


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_device_choice(rung: dict, monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, best: str):
    """X09: cuda before mps before cpu, by hand as in the library; a wish that cannot be met is named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert rung["best_device"]() == best == machine.devices()[-1]
    assert machine.choose(dtype="fp32", threads=torch.get_num_threads()).device.type == best
    for kind in {"cuda", "mps"} - set(machine.devices()):
        with pytest.raises(SettingsError, match=f"no {kind} device"):
            machine.choose(device=kind)


def test_two_devices_do_not_mix(rung: dict):
    """X09: a sum across devices is refused with a message that speaks of devices; within one it is made."""
    here, there = torch.ones(3), torch.ones(3, device="meta")
    assert "device" in rung["complaint"](here, there)
    assert rung["complaint"](here, here) == rung["complaint"](there, there) == ""
    batch = next_token(torch.tensor([[1, 2, 3]]))
    moved = batch.to("meta")
    assert moved.tokens.device.type == moved.fields["targets"].device.type == "meta" and moved.count == batch.count


def test_one_training_for_all_devices(rung: dict):
    """X09: the same function gives the same losses on every device that is here."""
    expected = rung["trained"]("cpu")
    assert len(expected) == 6
    for kind in machine.devices():
        assert rung["trained"](kind) == pytest.approx(expected, abs=1e-4)


def test_size_sweep_and_crossover(rung: dict):
    """X10: every size is timed on every device, larger ones take longer, and the cross-over is where it belongs."""
    assert list(rung["times"]) == list(dict.fromkeys(["cpu", machine.devices()[-1]]))
    for times in rung["times"].values():
        assert len(times) == len(rung["sizes"]) and all(value > 0 for value in times)
    cpu = rung["times"]["cpu"]
    assert cpu[-1] > 20 * cpu[2]  # 1024 against 64: 4,096 times the work

    crossover = rung["crossover"]
    assert crossover([1, 2, 3, 4], [1, 2, 4, 8], [3, 3, 3, 3]) == 3
    assert crossover([1, 2, 3], [5, 5, 5], [1, 1, 1]) == 1
    assert crossover([1, 2, 3], [1, 1, 1], [1, 1, 1]) is None
    assert crossover([1, 2, 3, 4], [2, 1, 9, 9], [1, 2, 1, 1]) == 3  # an early win that does not last is none
