"""Memory: an estimate that refuses what cannot fit, and a failed allocation told with settings to try."""

import re

import pytest
import torch

from groundup import losses, machine
from groundup.checkpoint import folder
from groundup.errors import UserError
from groundup.model.config import ModelConfig, from_name, training_bytes
from groundup.settings import Pretrain
from groundup.stages import pretrain
from groundup.train import fit, memory
from groundup.train.plan import make, resolve

CPU = machine.choose(device="cpu", dtype="fp32", threads=1)
CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.20 GiB is free."
)
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8589934592 bytes. Error code 12 (Cannot allocate memory)"
)


def plan(**changes):
    settings = Pretrain.create(sampling="windows", out="runs/a", **changes)
    return make(resolve(settings, windows=100, config=from_name("1m", context=256)), windows=100)


class Network(torch.nn.Module):
    config = from_name("1m")
    recompute = False


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError(CUDA), "2.00 GiB"),
        (RuntimeError(ALLOCATOR), "8,192 MiB"),
        (RuntimeError("MPS backend out of memory (...). Tried to allocate 512.50 MB on pool."), "512.50 MB"),
        (MemoryError("Unable to allocate 3.10 GiB for an array with shape (5,) and data type float64"), "3.10 GiB"),
    ],
)  # fmt: skip
def test_a_failed_allocation_is_told_with_what_to_lower(error, wanted):
    with pytest.raises(UserError) as caught, memory.explained(Network(), plan(batch=24)):
        raise error
    assert caught.value.what == f"out of memory ({wanted} more were wanted), with micro-batches of 24 x 256 tokens"
    assert caught.value.fix == (
        "lower, in this order: --micro-batch 12 (same result), --recompute (same result, slower), --context 128, --size"
    )


def test_the_allocator_of_this_torch_is_recognised():
    with (
        pytest.raises(UserError, match=r"out of memory \(4,\d{3},\d{3},\d{3} MiB"),
        memory.explained(Network(), plan()),
    ):
        torch.empty(2**52, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory.explained(Network(), plan()):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_only_what_is_left_to_lower_is_named():
    network = Network()
    network.recompute = True
    with pytest.raises(UserError) as caught, memory.explained(network, plan(batch=8, micro_batch=1)):
        raise torch.OutOfMemoryError(CUDA)
    assert caught.value.fix == "lower, in this order: --context 128, --size"


@pytest.mark.parametrize(
    ("micro", "batch", "sizes"), [(24, 24, [12, 8, 6, 4, 3, 2, 1]), (6, 18, [3, 2, 1]), (1, 7, [])]
)
def test_micro_batches_to_try_divide_the_batch(micro, batch, sizes):
    assert memory.smaller(plan(batch=batch, micro_batch=micro)) == sizes


def test_a_run_that_cannot_fit_is_told_the_largest_micro_batch_that_does(monkeypatch):
    config, whole = Network.config, plan(batch=64)
    monkeypatch.setattr(machine, "memory", lambda device: training_bytes(config, 17, config.context) / 0.9)
    with pytest.raises(UserError, match=r"training needs about .* GiB") as caught:
        memory.check(config, whole, CPU)
    assert "--micro-batch 16 (same" in caught.value.fix
    wanted, _ = memory.check(config, plan(batch=64, micro_batch=16), CPU)
    assert wanted == training_bytes(config, 16, config.context)


@pytest.mark.parametrize("bf16", [False, True])
def test_recomputing_is_estimated_to_save_most_of_what_blocks_keep(bf16):
    config = ModelConfig(family="gpt2", vocabulary=100, context=256, width=256, layers=12, heads=4)
    plain, again = (training_bytes(config, 16, 256, bf16=bf16, recompute=how) for how in (False, True))
    assert training_bytes(config, 1, 1, bf16=bf16) < again < plain / 2


SMALL = {
    "tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 16, "batch": 4, "steps": 6, "eval_every": 6,
    "eval_tokens": 50, "sample_every": 0, "save_every": "2", "device": "cpu", "dtype": "fp32", "threads": 1,
    "async_save": False,
}  # fmt: skip


def settings(tmp_path, **changes):
    text = tmp_path / "story.txt"
    text.write_text("The fox sleeps. The owl reads a book about foxes. " * 40, encoding="utf-8")
    return Pretrain.create(data=[str(text)], out=tmp_path / "run", **(SMALL | changes))


def fail_at(patch, step):
    """No memory at this training step; at step 0 before the run begins, when its time is measured."""
    real, begin, calls = losses.next_token, fit.begin, []

    def loss(model, batch):
        if len(calls) > 0 and model.training:
            calls.append("step")
        if model.training and len(calls) - 1 == step or (step == 0 and not calls):
            raise torch.OutOfMemoryError(CUDA)
        return real(model, batch)

    patch.setattr(losses, "next_token", loss)
    patch.setattr(fit, "begin", lambda job: calls.append("begun") or begin(job))


def test_a_run_that_runs_out_keeps_its_checkpoint_and_goes_on_with_less(tmp_path, monkeypatch):
    """The command it names is the one that works."""
    with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
        fail_at(patch, 5)
        pretrain.run(settings(tmp_path))
    assert re.search(
        r"the run is saved, go on with: groundup pretrain --out \S+ --resume --micro-batch 2$", caught.value.fix
    )
    assert folder.load(tmp_path / "run").card["steps"] == 4
    result = pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, micro_batch=2, recompute=True))
    assert result.steps == 6


def test_running_out_before_the_first_step_leaves_the_folder_free(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError, match="out of memory") as caught:
        fail_at(patch, 0)
        pretrain.run(settings(tmp_path))
    assert "--resume" not in caught.value.fix
    assert pretrain.run(settings(tmp_path)).steps == 6


def test_running_out_before_the_first_checkpoint_promises_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError, match="out of memory") as caught:
        fail_at(patch, 1)
        pretrain.run(settings(tmp_path))
    assert "the run is saved" not in caught.value.fix
