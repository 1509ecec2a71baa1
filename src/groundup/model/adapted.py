"""A linear layer with low-rank adapters beside it: the arithmetic of LoRA, forwards and backwards; lora.py places them.

In: numbers (..., I). Out: (..., O): x W^T + scale (x A^T) B^T, where W (O, I) is frozen and each adapter's A (r, I) and
B (rows, r) learn (Hu et al. 2021, "LoRA", section 4.1). An adapter may change some rows of W only: query, key and value
are one matrix here.

Shapes: I inputs, O outputs, N all rows of a batch, r the rank of one adapter, R that of all adapters of a layer.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from groundup.model.dropout import Dropout
from groundup.model.gpt import Linear


class Part(NamedTuple):
    """One adapter of a layer: it changes the rows `begin` .. `end` - 1 of the layer's answer."""

    name: str  # a target; "query+key+value" where one adapter changes all three, as other programs make them for gpt2
    begin: int
    end: int
    rank: int
    scale: float  # alpha / rank


class Adapted(nn.Module):
    """A linear layer (..., I) -> (..., O) that is frozen, and the adapters beside it.

    The frozen matrix is `base_weight`; `weight` is what the layer multiplies by, adapters included, made anew each time
    it is asked for. So whoever reads the matrix instead of calling the layer (a loss that takes the head by itself)
    sees what it learnt, and its gradient reaches the adapters.
    """

    base_weight: Tensor
    base_bias: Tensor | None

    def __init__(self, linear: nn.Linear, parts: Sequence[Part], dropout: Dropout) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.base_weight, self.base_bias = linear.weight, linear.bias
        self.parts, self.dropout, self.silent = tuple(parts), dropout, False
        self.A, self.B = nn.ParameterDict(), nn.ParameterDict()
        for part in self.parts:
            zeros = partial(torch.zeros, dtype=torch.float32, device=linear.weight.device)
            self.A[part.name] = nn.Parameter(zeros(part.rank, self.in_features))
            self.B[part.name] = nn.Parameter(zeros(part.end - part.begin, part.rank))

    @torch.no_grad()
    def draw(self, generator: torch.Generator | None) -> None:
        """The first numbers of every A, in the order of the rows."""
        for part in self.parts:
            if not self.base_weight.is_meta:  # sqrt(5) is torch's way to say: uniform within 1 / sqrt(I)
                nn.init.kaiming_uniform_(self.A[part.name], a=math.sqrt(5), generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), in the number format of autocast, else that of the frozen matrix."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.base_weight.dtype
        x = x.to(dtype)  # once for all products
        with torch.autocast(kind, enabled=False):
            frozen = _Frozen(self.base_weight, self.base_bias, self.parts)
            if self.silent:
                return frozen.answer(x)
            dropped = self.dropout(x) if self.training and self.dropout.p else None
            factors = [factor[part.name] for factor in (self.A, self.B) for part in self.parts]
            y: Tensor = _LowRank.apply(x, dropped, frozen, *factors)
            return y

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I) with what the adapters add to it, in the type of the frozen one."""
        if self.silent:
            return self.base_weight
        with torch.autocast(self.base_weight.device.type, enabled=False):
            whole = self.base_weight.float()
            for part in self.parts:
                change = part.scale * (self.B[part.name] @ self.A[part.name])  # (rows, r) @ (r, I)
                whole = whole + F.pad(change, (0, 0, part.begin, self.out_features - part.end))
            return whole.to(self.base_weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias (O,), which adapters do not change."""
        return self.base_bias

    def merged(self) -> Linear:
        """A plain linear layer that gives the same answers."""
        with torch.device("meta"):
            linear = Linear(self.in_features, self.out_features, bias=self.base_bias is not None)
        linear.weight = nn.Parameter(self.weight.detach())
        linear.bias = self.base_bias  # type: ignore[assignment]  # may be None, as in every nn.Linear
        return linear.train(self.training)

    def extra_repr(self) -> str:
        """Sizes and parts, for print(model)."""
        parts = ", ".join(f"{part.name} rank {part.rank}" for part in self.parts)
        return f"{self.in_features} -> {self.out_features}, {parts}"


class _Frozen(NamedTuple):
    """What no gradient is wanted of."""

    weight: Tensor
    bias: Tensor | None
    parts: tuple[Part, ...]

    def answer(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), as the plain layer gives it."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def rows(self, y: Tensor) -> list[Tensor]:
        """The columns of (N, O) that belong to each part."""
        return [y[:, part.begin : part.end] for part in self.parts]


class _LowRank(torch.autograd.Function):
    """The frozen product and what the adapters add, with gradients of x, every A and every B.

    Written out, since the change (N, O) and its gradient for x (N, I) are as large as the products they are added to:
    here both are added in place, all A of a layer are one product, and no number of the frozen matrix is kept or
    copied for the backward pass but in the number format of the products, and only while they run.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor | None, frozen: _Frozen, *factors: Tensor) -> Tensor:
        count = len(frozen.parts)
        y = frozen.answer(x)
        source = (x if dropped is None else dropped).reshape(-1, x.shape[-1])  # (..., I) -> (N, I)
        low = source @ torch.cat(factors[:count]).to(x.dtype).T  # (N, I) @ (I, R) -> (N, R)
        lows = low.split([part.rank for part in frozen.parts], dim=1)
        columns = frozen.rows(y.view(-1, y.shape[-1]))
        for part, up, each, column in zip(frozen.parts, factors[count:], lows, columns, strict=True):
            column.addmm_(each, up.to(x.dtype).T, alpha=part.scale)  # (N, r) @ (r, rows)
        ctx.frozen, ctx.shape, ctx.with_dropout = frozen, x.shape, dropped is not None
        ctx.save_for_backward(source, low, *factors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, low, *factors = ctx.saved_tensors
        parts = ctx.frozen.parts
        ranks, count = [part.rank for part in parts], len(parts)
        gradient = gradient.reshape(-1, gradient.shape[-1])  # (..., O) -> (N, O)
        d_lows, d_ups = [], []
        columns = ctx.frozen.rows(gradient)
        for part, up, each, column in zip(parts, factors[count:], low.split(ranks, dim=1), columns, strict=True):
            d_lows.append((column @ up.to(column.dtype)).mul_(part.scale))  # (N, rows) @ (rows, r)
            d_ups.append((column.T @ each).to(up.dtype).mul_(part.scale))  # (rows, N) @ (N, r)
        d_low, down = torch.cat(d_lows, dim=1), torch.cat(factors[:count])  # (N, R), (R, I)
        d_downs = (d_low.T @ source).to(down.dtype).split(ranks)  # (R, N) @ (N, I)
        down = down.to(gradient.dtype)
        d_x = d_dropped = None
        if ctx.needs_input_grad[0]:
            d_x = gradient @ ctx.frozen.weight.to(gradient.dtype)  # (N, O) @ (O, I)
            d_x = (d_x if ctx.with_dropout else d_x.addmm_(d_low, down)).view(ctx.shape)
        if ctx.with_dropout and ctx.needs_input_grad[1]:
            d_dropped = (d_low @ down).view(ctx.shape)
        return d_x, d_dropped, None, *d_downs, *d_ups
