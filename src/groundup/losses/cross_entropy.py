"""Cross entropy straight from the last states, without ever holding the logits of all tokens.

In: states (N, D), the head's matrix (V, D), targets (N). Out: the weighted sum of -log p(target).

With 50,000 ids the logits of 4,096 tokens, their logarithms and both gradients take 3.3 GB in fp32, more than all else
of a small model. Here they exist for one slice of the tokens at a time, and the gradient is worked out on the way (the
derivative of the softmax is p - 1 at the target and p elsewhere), so that nothing is kept for the backward pass but the
two results (as in Hsu et al. 2024, "Liger Kernel", section 3.2).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS = 2**26  # in a slice of tokens: one product for both passes, large enough to run at full speed
BLOCK = 2**21  # numbers worked on at a time, so that they stay in the processor's cache


def cross_entropy(states: Tensor, head: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of -log p(target) in nats, each times its weight; p is the softmax of states @ head.T.

    states (N, D), head (V, D), targets (N) ids, weight (N) or none. Products run in the number format of autocast, the
    logarithms and sums in fp32.

    >>> states, head = torch.zeros(2, 3), torch.zeros(8, 3)  # a model without a clue: every id has p = 1/8
    >>> round(cross_entropy(states, head, torch.tensor([1, 2])).item() / 2, 4)  # ln 8
    2.0794
    """
    if weight is not None and not torch.compiler.is_compiling():
        counted = weight.nonzero().squeeze(1)  # of an answer's row most places count nothing: their logits are not made
        if len(counted) < len(weight):
            states, targets, weight = states[counted], targets[counted], weight[counted]
    kind = states.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        states, head = states.to(dtype), head.to(dtype)
    with torch.autocast(kind, enabled=False):
        wanted = tuple(torch.is_grad_enabled() and each.requires_grad for each in (states, head))
        return _CrossEntropy.apply(states, head, targets, weight, wanted)


class _CrossEntropy(torch.autograd.Function):
    """The sum, with the gradients that are wanted already made in the forward pass: backwards they are only scaled."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, head: Tensor, targets: Tensor, weight: Tensor | None, wanted: tuple[bool, bool]
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        d_states = torch.empty_like(states) if wanted[0] else None
        d_head: Tensor | None = None
        fp16 = head.dtype == torch.float16  # whose largest number is 65,504: short slices, and their sum in fp32
        size = max(1, min(LOGITS // head.shape[0], 2048 if fp16 else len(targets)))
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            logits = states[part] @ head.T  # (n, D) @ (D, V) -> (n, V)
            total += _losses(logits, targets[part], None if weight is None else weight[part], wanted=any(wanted))
            if d_states is not None:
                torch.mm(logits, head, out=d_states[part])  # (n, V) @ (V, D) -> (n, D)
            if not wanted[1]:  # a frozen head
                continue
            product = logits.T @ states[part]  # (V, n) @ (n, D) -> (V, D)
            if d_head is None:
                d_head = product.float() if fp16 or len(targets) > size else product
            else:
                d_head += product
        ctx.dtype = head.dtype
        ctx.save_for_backward(d_states, d_head if d_head is None or fp16 else d_head.to(head.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_head = ctx.saved_tensors
        return (
            None if d_states is None else d_states * gradient,
            None if d_head is None else (d_head * gradient).to(ctx.dtype),
            None,
            None,
            None,
        )  # the factor is fp32, whatever the products are


def _losses(logits: Tensor, targets: Tensor, weight: Tensor | None, *, wanted: bool) -> Tensor:
    """Weighted sum of the losses of a slice (n, V); `wanted` puts the gradient in the place of the logits."""
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    rows = max(1, BLOCK // logits.shape[1]) if logits.device.type == "cpu" else len(targets)
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        x = logits[part].float()  # a copy, or the logits themselves, which nobody reads again
        top = x.amax(dim=1, keepdim=True)  # (n, V) -> (n, 1)
        chosen = x.gather(1, targets[part, None])
        p = x.sub_(top).exp_()
        sums = p.sum(dim=1, keepdim=True)
        each = sums.log() + top - chosen  # -log p(target), (n, 1)
        scale = 1.0 if weight is None else weight[part, None]
        total += (each * scale).sum()
        if wanted:
            p.mul_(scale / sums)
            p.scatter_add_(1, targets[part, None], torch.full_like(each, -1.0) * scale)
            logits[part] = p
    return total
