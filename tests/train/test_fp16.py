"""Loss scaling for fp16: what it saves, what an overflow costs, what a checkpoint keeps of it. For real, on the CPU."""

import math

import pytest
import torch
from torch import nn

from groundup import losses, machine, optim
from groundup.batches import Batch, Loader, Windows
from groundup.journal import Journal
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.settings import Pretrain
from groundup.stages import pretrain
from groundup.train import fit, watch
from groundup.train.loop import steps

FP16 = machine.choose(device="cpu", dtype="fp16", threads=1)
FP32 = machine.choose(device="cpu", dtype="fp32", threads=1)


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[2.0]]))


def product(slope):
    """A quarter of w x slope, as a matrix product, so that autocast makes it fp16: the gradient of w is slope / 4."""
    return lambda model, batch: ((torch.tensor([[slope]]) @ model.w).float().sum() / 4, {})


def walk(loss, count, *, where=FP16, scaler=None):
    model = Scalar()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = iter([Batch(torch.zeros(1, 1), 1.0)] * count)
    return model, list(steps(model, optimizer, batches, loss, until=count, machine=where, clip=0, scaler=scaler))


def test_the_norm_and_the_step_are_those_of_the_true_gradient():
    """Slope 2 / 4: norm 0.5 and w = 2 - 0.5, whatever the scale of 65536."""
    model, (step,) = walk(product(2.0), 1)
    assert (step.gradient_norm, model.w.item(), step.skipped, step.overflow) == (0.5, 1.5, "", False)


def test_gradients_that_fp16_would_lose_survive():
    """2^-20 / 2^10 is below the smallest fp16 number, 2^-24; scaled by 2^16 it passes through, and is exact."""

    def tiny(model, batch):
        return (model.w.half() * 2.0**-10).float().sum() * 2.0**-20, {}

    model, (step,) = walk(tiny, 1)
    assert step.gradient_norm == 2.0**-30
    _, (lost,) = walk(tiny, 1, where=FP32)
    assert lost.gradient_norm == 0.0


def test_an_overflow_halves_the_scale_and_changes_nothing_else():
    """A slope of 8 / 4 overflows fp16 (65504) at scales of 65536 and 32768, and fits at 16384."""
    scaler = FP16.loss_scaler()
    model, done = walk(product(8.0), 3, scaler=scaler)
    assert [step.overflow for step in done] == [True, True, False]
    assert done[0].skipped == done[1].skipped == "gradient norm is inf" and math.isfinite(done[0].loss)
    assert done[2].gradient_norm == 2.0 and model.w.item() == 0.0
    assert scaler.get_scale() == 16384.0


def test_an_overflow_at_the_floor_is_a_fault():
    """A gradient that is infinite at every scale: 16 times the scale may be to blame, from then on it is not."""
    scaler = FP16.loss_scaler()
    _, done = walk(lambda model, batch: ((model.w - 2.0).sqrt().sum(), {}), 20, scaler=scaler)
    assert [step.overflow for step in done] == [True] * 16 + [False] * 4
    assert scaler.get_scale() == 1.0


def test_a_loss_that_is_not_finite_is_no_matter_of_scale():
    scaler = FP16.loss_scaler()
    _, done = walk(lambda model, batch: (model.w.sum() * math.nan, {}), 3, scaler=scaler)
    assert [(step.skipped, step.overflow) for step in done] == [("loss is nan", False)] * 3
    assert scaler.get_scale() == 65536.0


def test_other_formats_have_no_scale():
    model, done = walk(lambda model, batch: ((model.w - 2.0).sqrt().sum(), {}), 2, where=FP32)
    assert [(step.skipped, step.overflow) for step in done] == [("gradient norm is inf", False)] * 2
    assert not FP32.loss_scaler().is_enabled() and FP16.loss_scaler().is_enabled()


def test_a_network_learns_in_fp16_as_in_fp32():
    """The same losses to 1 %, over 20 steps; two micro-batches a step."""
    config = ModelConfig(family="llama", vocabulary=37, context=16, width=32, layers=2, heads=4)
    found = []
    for where in (FP16, FP32):
        model = build(config, seed=1)
        optimizer = optim.adamw(model, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
        loader = Loader(Windows((torch.arange(500) ** 2 % 37).numpy(), length=16, stride=16), batch=4, seed=3)
        done = steps(model, optimizer, iter(loader), losses.next_token, until=20, machine=where, accumulate=2)
        found.append([step.loss for step in done if not step.skipped])
    assert len(found[0]) == 20 and found[1][-1] < found[1][0] - 0.2
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_the_format_is_chosen_by_the_hardware(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    for able, there, wanted in ((True, cuda, "bf16"), (False, cuda, "fp16"), (True, cpu, "bf16"), (False, cpu, "fp32")):
        monkeypatch.setattr(machine, "has_bf16", lambda device, able=able: able)
        assert machine.best_dtype(there) == wanted


# --- a whole run -------------------------------------------------------------------------------------------------

SMALL = {
    "tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 16, "batch": 4, "steps": 8, "eval_every": 8,
    "eval_tokens": 50, "sample_every": 0, "log_every": 1, "save_every": "1", "device": "cpu", "dtype": "fp16",
    "threads": 1,
}  # fmt: skip


def run(tmp_path, name, **changes):
    text = tmp_path / "story.txt"
    text.write_text("The fox sleeps. The owl reads a book about foxes. " * 40, encoding="utf-8")
    return pretrain.run(Pretrain.create(data=[str(text)], out=tmp_path / name, **(SMALL | changes)))


def spoiled(patch, count):
    """The first `count` training steps have an infinite gradient; their loss is as it was."""
    real, begin, calls = losses.next_token, fit.begin, []

    def loss(model, batch):
        value, numbers = real(model, batch)
        if not model.training or len(calls) in (0, count + 1):  # an evaluation, before the run, or spoilt enough
            return value, numbers
        calls.append("step")
        return _Blown.apply(value), numbers

    patch.setattr(losses, "next_token", loss)
    patch.setattr(fit, "begin", lambda job: calls.append("begun") or begin(job))


class _Blown(torch.autograd.Function):
    """The number itself, with an infinite gradient."""

    @staticmethod
    def forward(context, number):
        return number.clone()

    @staticmethod
    def backward(context, slope):
        return slope * torch.inf


def test_overflows_in_a_row_do_not_end_a_run(tmp_path, monkeypatch):
    """More than the five in a row that would; they are counted, told, and no checkpoint waits for them."""
    with monkeypatch.context() as patch:
        spoiled(patch, watch.PATIENCE + 2)
        result = run(tmp_path, "run", steps=10)
    assert result.skipped == watch.PATIENCE + 2
    skipped = [record for record in Journal(tmp_path / "run").read() if record.get("skipped")]
    assert len(skipped) == watch.PATIENCE + 2


def test_a_resumed_run_goes_on_with_its_loss_scale(tmp_path, monkeypatch):
    """Three overflows in the first process leave 65536 / 8, and the second one starts there."""
    with monkeypatch.context() as patch:
        spoiled(patch, 3)
        run(tmp_path, "run", steps=5)
    seen = []
    real = machine.Machine.loss_scaler
    monkeypatch.setattr(machine.Machine, "loss_scaler", lambda self: seen.append(real(self)) or seen[-1])
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=7))
    assert seen[0].get_scale() == 65536 / 8
    assert seen[0].state_dict()["_growth_tracker"] == 4  # good steps since: 2 before, 2 after
