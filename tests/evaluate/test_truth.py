"""The truth check says right where a device computes right, and can say wrong."""

import math

import pytest
import torch

from groundup.evaluate import truth
from groundup.model import gpt
from groundup.model.config import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's remark on speed


def test_every_device_here_is_right():
    checks = truth.check_all()
    assert {check.family for check in checks} == set(FAMILIES)
    assert {(check.device, check.dtype) for check in checks} >= {("cpu", "bf16")}
    assert all(check.right for check in checks), checks
    assert all(check.logits > 1e-5 for check in checks if check.dtype == "bf16")  # bf16 really was used


def test_the_reference_agrees_with_itself_exactly():
    check = truth.check("cpu", "fp32", "qwen3")
    assert (check.logits, check.loss, check.gradients) == (0, 0, 0)


def test_relative_error_by_hand():
    assert truth.relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert math.isnan(truth.relative_error(torch.tensor([math.nan]), torch.tensor([1.0])))


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("fault", ["sees the future", "scales twice", "NaN"])
def test_a_faulty_kernel_is_found(monkeypatch: pytest.MonkeyPatch, family: str, fault: str):
    """Attention is replaced by one that errs in bf16 only, as a bad driver would."""
    sound = gpt.attend

    def faulty(q, k, v, mask=None, *, dropout=0.0):
        if not torch.is_autocast_enabled("cpu"):
            return sound(q, k, v, mask, dropout=dropout)
        if fault == "sees the future":
            return sound(q, k, v, torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool))
        if fault == "scales twice":
            return sound(q * q.shape[-1] ** -0.5, k, v, mask)
        return sound(q, k, v, mask) * torch.nan

    assert truth.check("cpu", "bf16", family).right
    monkeypatch.setattr(gpt, "attend", faulty)
    assert truth.check("cpu", "fp32", family).right
    assert not truth.check("cpu", "bf16", family).right


@pytest.mark.parametrize("wrong", ["logits", "loss", "gradients"])
def test_each_error_counts(wrong: str):
    errors = {"logits": 0.0, "loss": 0.0, "gradients": 0.0}
    make = lambda errors: truth.Check("cpu", "fp32", "gpt2", **errors, tolerance=1e-4)  # noqa: E731
    assert make(errors).right
    assert not make(errors | {wrong: 2e-4}).right
    assert not make(errors | {wrong: math.nan}).right
