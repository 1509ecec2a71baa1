"""Attention on a CPU, by blocks of queries: the same answer as torch's fused call, about 3 times as fast to train.

In: queries (B, H, T, K), keys and values (B, G, S, K), who may look at whom. Out: what each query gathers (B, H, T, K).

A block of queries looks at no key behind its last query, so nearly half of the products that causality would throw away
are never made; each product is a plain batched matrix product, which runs at full speed in bf16. torch's fused kernel
(2.13) saves memory instead, and is at its slowest backwards and with dropout. What the backward pass needs of a block
is its weights: kept where they are no larger than what the feed-forward part keeps anyway, else computed again.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.model.dropout import survivors

KEPT = 8  # times the head size: with more keys, the weights of a block are computed again instead of kept
ROWS = 64  # queries in a block: of 32, 64, 128 and 256 the quickest or near it at contexts of 256 and 1,024


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0) -> Tensor:
    """`attention` of gpt.py for T = S queries, and for T < S of which the last query stands at the last key.

    >>> q = torch.tensor([[[[0.0], [1.0]]]])
    >>> k = torch.tensor([[[[0.0], [math.log(3)]]]])
    >>> attend(q, k, torch.tensor([[[[1.0], [5.0]]]])).flatten()  # the second: (1 * 1 + 3 * 5) / 4
    tensor([1., 4.])
    """
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)  # (B, G, S, K) -> (B, H, S, K)
    size = q.shape[3]
    return _Attend.apply(q / math.sqrt(size), k, v, mask, dropout)


class _Attend(torch.autograd.Function):
    """softmax(q k' + mask) v, with its derivative by hand; the batch and the heads are one dimension N inside."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        heads = q.shape[:2]
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)  # (B, H, T, K) -> (N, T, K)
        out = torch.empty_like(q)
        learning = any(ctx.needs_input_grad[:3])
        keeping = learning and k.shape[1] <= KEPT * k.shape[2]
        drawn, kept = [], []
        for rows, keys in blocks(q.shape[1], k.shape[1], causal=mask is None):
            weights = weights_of(q, k, mask, heads=heads, rows=rows, keys=keys)
            if keeping:
                kept.append(weights)
            if dropout:
                survived = survivors(weights, dropout)
                drawn += [survived] if learning else []
                weights = weights * survived
            out[:, rows] = torch.bmm(weights, v[:, keys])  # (N, R, S) @ (N, S, K) -> (N, R, K)
        ctx.heads, ctx.dropout, ctx.drawn = heads, dropout, len(drawn)
        ctx.save_for_backward(q, k, v, mask, *drawn, *kept)
        return out.unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, *rest = ctx.saved_tensors
        drawn, kept = rest[: ctx.drawn], rest[ctx.drawn :]
        gradient = gradient.flatten(0, 1)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for number, (rows, keys) in enumerate(blocks(q.shape[1], k.shape[1], causal=mask is None)):
            weights = kept[number] if kept else weights_of(q, k, mask, heads=ctx.heads, rows=rows, keys=keys)
            passed = torch.bmm(gradient[:, rows], v[:, keys].transpose(1, 2))  # (N, R, K) @ (N, K, S) -> (N, R, S)
            used = weights
            if ctx.dropout:
                used, passed = weights * drawn[number], passed * drawn[number]
            dv[:, keys] += torch.bmm(used.transpose(1, 2), gradient[:, rows])
            # weights * (passed - sum over keys of weights * passed), in one pass over memory
            scores = torch._softmax_backward_data(passed, weights, -1, weights.dtype)
            dq[:, rows] = torch.bmm(scores, k[:, keys])
            dk[:, keys] += torch.bmm(scores.transpose(1, 2), q[:, rows])
        return dq.unflatten(0, ctx.heads), dk.unflatten(0, ctx.heads), dv.unflatten(0, ctx.heads), None, None


def blocks(time: int, keys: int, *, causal: bool) -> list[tuple[slice, slice]]:
    """Which queries go together, and which keys they may look at; without causality all of them.

    >>> [(rows.stop, keys.stop) for rows, keys in blocks(100, 110, causal=True)]
    [(64, 74), (100, 110)]
    """
    ends = [min(start + ROWS, time) for start in range(0, time, ROWS)]
    starts = range(0, time, ROWS)
    return [(slice(a, e), slice(0, keys - time + e if causal else keys)) for a, e in zip(starts, ends, strict=True)]


def weights_of(q: Tensor, k: Tensor, mask: Tensor | None, *, heads: torch.Size, rows: slice, keys: slice) -> Tensor:
    """Softmax weights (N, R, S) of one block; queries are scaled already."""
    scores = torch.bmm(q[:, rows], k[:, keys].transpose(1, 2))  # (N, R, K) @ (N, K, S) -> (N, R, S)
    if mask is None:
        count = rows.stop - rows.start
        scores[:, :, -count:] += future(count, scores.dtype)
    else:
        scores.unflatten(0, heads).masked_fill_(~mask[:, :, rows, keys], -math.inf)
    return torch._softmax(scores, -1, False)


def future(count: int, dtype: torch.dtype) -> Tensor:
    """What a query adds to the scores of the keys of its own block: minus infinity to those behind it.

    >>> future(2, torch.float32)
    tensor([[0., -inf],
            [0., 0.]])
    """
    return torch.full((count, count), -math.inf, dtype=dtype).triu(1)
