"""Attention among packed documents: each of them by itself, without the work that a mask would throw away.

In: queries, keys and values of whole rows, and `Spans`, where documents begin in them. Out: what each query gathers
from its own document. The answer is that of a block-diagonal causal mask, which computes all T x T scores of a row
first: on a CPU this is several times as fast (documents of 20 tokens in bf16 excepted, where calls cost more than they
save), on a GPU one kernel does all documents at once.
Shapes: B batch, T time, H heads, G key/value heads, K head size, L tokens of one document, N documents.
"""

import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup import machine as machines
from groundup.model.attend import attend


class Spans(NamedTuple):
    """The documents of a batch, row after row in one line of B*T places: where each begins, and how long each is."""

    starts: Tensor  # (N + 1,) int32; the last is B*T
    sizes: list[int]  # (N,)


def spans(documents: Tensor) -> Spans:
    """Document numbers (B, T) -> where they change; a new row is a new document.

    >>> spans(torch.tensor([[0, 0, 1], [1, 1, 1]]))
    Spans(starts=tensor([0, 2, 3, 6], dtype=torch.int32), sizes=[2, 1, 3])
    """
    opens = torch.ones_like(documents, dtype=torch.bool)
    opens[:, 1:] = documents[:, 1:] != documents[:, :-1]
    end = torch.tensor([documents.numel()], device=documents.device)
    starts = torch.cat((opens.flatten().nonzero().flatten(), end))  # (B, T) -> (N + 1,)
    return Spans(starts.int(), starts.diff().tolist())


def separable(documents: Tensor, *, dtype: torch.dtype, dropout: float, head_size: int = 64) -> Spans | None:
    """`spans`, where documents can be done by themselves; None where a mask must do.

    Compiled code wants the same shapes in every batch. On CUDA the kernel takes 16-bit numbers, no dropout, head
    sizes that are multiples of 8 up to 256, and a GPU from Ampere on.
    """
    kind = documents.device.type
    if torch.compiler.is_compiling() or kind not in ("cpu", "cuda"):
        return None
    if kind == "cuda":
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype
        if dropout or dtype not in (torch.float16, torch.bfloat16) or not machines.has_bf16(documents.device):
            return None
        if head_size % 8 or head_size > 256 or importlib.util.find_spec("torch.nn.attention.varlen") is None:
            return None
    return spans(documents)


def separately(q: Tensor, k: Tensor, v: Tensor, where: Spans, *, dropout: float = 0.0) -> Tensor:
    """What each query (B, H, T, K) gathers from the keys and values (B, G, T, K) of its own document: (B, H, T, K).

    Two documents of one token each: a token alone gathers itself.

    >>> q = k = v = torch.tensor([[[[1.0], [2.0]]]])
    >>> separately(q, k, v, spans(torch.tensor([[0, 1]]))).flatten()
    tensor([1., 2.])
    """
    batch, _, time, _ = q.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B, H, T, K) -> (B, T, H, K) -> (B*T, H, K)
    out = _one_kernel(q, k, v, where) if q.is_cuda else _one_by_one(q, k, v, where, dropout=dropout)
    return out.unflatten(0, (batch, time)).transpose(1, 2)  # (B*T, H, K) -> (B, T, H, K) -> (B, H, T, K)


def _one_by_one(q: Tensor, k: Tensor, v: Tensor, where: Spans, *, dropout: float) -> Tensor:
    """(B*T, H, K) -> (B*T, H, K), a call for each document: torch's own in fp32, where that is quicker, else ours."""
    grouped = q.shape[1] != k.shape[1]
    parts = []
    for own in zip(*(x.split(where.sizes) for x in (q, k, v)), strict=True):
        one, two, three = (x.transpose(0, 1)[None] for x in own)  # (L, H, K) -> (1, H, L, K)
        if one.dtype == torch.float32:
            seen = F.scaled_dot_product_attention(
                one, two, three, dropout_p=dropout, is_causal=True, enable_gqa=grouped
            )
        else:
            seen = attend(one, two, three, dropout=dropout)
        parts.append(seen[0].transpose(0, 1))  # (1, H, L, K) -> (L, H, K)
    return torch.cat(parts)


def _one_kernel(q: Tensor, k: Tensor, v: Tensor, where: Spans) -> Tensor:
    """The same by FlashAttention for lengths that vary (Dao 2023), which only CUDA has."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(where.sizes)
    out = varlen_attn(q, k, v, where.starts, where.starts, longest, longest,
                      window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1])  # fmt: skip
    assert isinstance(out, Tensor)
    return out
