"""The gated product: torch's own to the bit, and nothing kept beside its two sides."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model.gate import gated


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("learning", [(True, True), (True, False), (False, True)])
def test_same_to_the_bit(dtype: torch.dtype, learning: tuple[bool, bool]) -> None:
    draw = torch.Generator().manual_seed(3)
    given = [torch.randn(4, 7, 33, generator=draw).to(dtype) for _ in range(2)]
    weight = torch.randn(4, 7, 33, generator=draw).to(dtype)

    def grads(function: object) -> list[torch.Tensor | None]:
        gate, up = (each.clone().requires_grad_(learns) for each, learns in zip(given, learning, strict=True))
        product = function(gate, up)  # type: ignore[operator]
        (product * weight).sum().backward()
        return [product.detach(), gate.grad, up.grad]

    for ours, theirs in zip(grads(gated), grads(lambda gate, up: F.silu(gate) * up), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or torch.equal(ours, theirs)


def test_keeps_gate_and_up_alone() -> None:
    gate, up = torch.randn(5, 6, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gated(gate, up)
    assert {tensor.data_ptr() for tensor in kept} == {gate.data_ptr(), up.data_ptr()}


def test_gradient_by_differences() -> None:
    gate, up = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(gated, (gate, up))
