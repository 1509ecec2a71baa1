"""Does a device compute what the CPU computes in fp32? Small networks with fixed numbers, forward and backward.

In: a device and a number format. Out: one `Check` per family, with relative errors of logits, loss and gradients.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup import losses, machine
from groundup.batches.batch import next_token
from groundup.machine import Machine
from groundup.model import ModelConfig, build
from groundup.model.config import FAMILIES

# Largest relative error that counts as right. fp32 (24 bits): another order of summation costs about 1e-6 here, and
# 1e-4 still tells it from TF32, whose 11 bits cost 1e-3. bf16 (8 bits): one rounding costs up to 4e-3, and all of them
# together were seen to cost as much (CPU with AVX512-BF16); a missing causal mask costs 1e-1.
TOLERANCE = {"fp32": 1e-4, "bf16": 1.5e-2}


@dataclass(frozen=True)
class Check:
    """Relative errors |found - true| / |true| (2-norms) of one family on one device, against fp32 on the CPU."""

    device: str
    dtype: str
    family: str
    logits: float
    loss: float
    gradients: float
    tolerance: float

    @property
    def right(self) -> bool:
        """True where every error is within the tolerance; NaN is not."""
        return all(error <= self.tolerance for error in (self.logits, self.loss, self.gradients))


def check_all() -> list[Check]:
    """Check every device here, in fp32 and, where it is of use, in bf16; the reference itself is left out."""
    pairs = [("cpu", "bf16")]
    for device in machine.devices():
        if device != "cpu":
            pairs += [(device, "fp32")] + [(device, "bf16")] * machine.has_bf16(torch.device(device))
    return [check(device, dtype, family) for device, dtype in pairs for family in FAMILIES]


def check(device: str, dtype: str, family: str) -> Check:
    """Run one small network on `device` in `dtype` and compare.

    >>> check("cpu", "fp32", "llama").right
    True
    """
    true = _reference(family)
    there = Machine(torch.device(device), machine.DTYPES[dtype], torch.get_num_threads())
    pairs = zip(_answers(family, there), true, strict=True)
    logits, loss, gradients = (relative_error(found, truth) for found, truth in pairs)
    return Check(device, dtype, family, logits, loss, gradients, TOLERANCE[dtype])


def relative_error(found: Tensor, true: Tensor) -> float:
    """|found - true| / |true| in the 2-norm.

    >>> relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
    0.2
    """
    return float((found.double() - true.double()).norm() / true.double().norm())


@functools.cache
def _reference(family: str) -> tuple[Tensor, Tensor, Tensor]:
    return _answers(family, Machine(torch.device("cpu"), torch.float32, torch.get_num_threads()))


def _answers(family: str, there: Machine) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, loss and all gradients in one row, on the CPU, of a fixed network on fixed ids."""
    heads, groups = 4, 4 if family == "gpt2" else 2
    # torch's own initial numbers are large enough for attention to matter; with GPT-2's a wrong mask would hardly show
    config = ModelConfig(
        family=family,
        vocabulary=96,
        context=48,
        width=64,
        layers=2,
        heads=heads,
        kv_heads=groups,
        tie=False,
        init="torch",
    )
    model = build(config, seed=11).to(there.device)
    ids = torch.randint(config.vocabulary, (3, config.context + 1), generator=torch.Generator().manual_seed(12))
    batch = next_token(ids).to(there.device)
    with there.autocast():
        with torch.no_grad():
            logits = model(batch.tokens)
        loss, _ = losses.next_token(model, batch)
    (loss / batch.count).backward()
    gradients = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
    return logits.float().cpu(), loss.detach().float().cpu()[None], gradients.float().cpu()
