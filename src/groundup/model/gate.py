"""The product inside a gated feed-forward part, with nothing kept for the backward pass that can be had again.

In: two tensors of one shape, `gate` and `up`. Out: silu(gate) * up. Written plainly it keeps silu(gate) as well; here
that is worked out again from `gate` when the gradient of `up` is asked for.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, equation 6), the same to the bit, forwards and backwards, as torch's own product.

    >>> gated(torch.tensor([0.0, 50.0]), torch.tensor([3.0, 2.0]))  # silu(50) is 50
    tensor([  0., 100.])
    """
    # compiled code chooses itself what it computes again
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.silu(gate) * up
    found: Tensor = _Gated.apply(gate, up)
    return found


class _Gated(torch.autograd.Function):
    """silu(gate) * up, keeping `gate` and `up` alone."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gate, up = ctx.saved_tensors
        d_gate = torch.ops.aten.silu_backward(gradient * up, gate) if ctx.needs_input_grad[0] else None
        d_up = gradient * F.silu(gate) if ctx.needs_input_grad[1] else None
        return d_gate, d_up
