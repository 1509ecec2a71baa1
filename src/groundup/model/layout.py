"""Matrices laid out for decoding on a CPU: the same numbers, in the order in which the product reads them.

In: a network, changed in place. Out: the same network, for reading only. A new token multiplies every matrix by one
row (or one per text), which is little work beside fetching the matrix from memory. torch's plain linear layer does not
keep up with the memory then: oneDNN wants a matrix in blocks, and would have to cut it anew for each token.
"""

import platform
from collections.abc import Callable

import torch
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.model import lora

Make = Callable[[nn.Linear], nn.Module]


def lay_out(model: nn.Module, *, rows: int = 1) -> bool:
    """Lay out the matrices of `model` for steps of `rows` texts; False where nothing is to be gained.

    Any other number of rows gives the same numbers, only less quickly. Matrices are taken one by one, so memory grows
    by the largest, and by the head where it is tied: the token table is still needed to look tokens up. Afterwards the
    network can be read but neither trained, saved nor moved.

    >>> from groundup.model import ModelConfig, build
    >>> model = build(ModelConfig(family="gpt2", vocabulary=50, context=8, width=32, layers=1, heads=2), seed=1).eval()
    >>> plain = model(torch.tensor([[1, 2, 3]]))
    >>> done = lay_out(model)
    >>> torch.allclose(model(torch.tensor([[1, 2, 3]])), plain, atol=1e-5)
    True
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu" or not can_lay_out(weight.dtype):
        return False
    replace_linears(model, lambda linear: LaidOut(linear, rows=rows))
    return True


def can_lay_out(dtype: torch.dtype) -> bool:
    """True where oneDNN multiplies matrices in blocks of this number format: x86, and for bf16 with AVX-512 or better.

    On other processors the layout was never measured, and torch's own way is kept.
    """
    if not torch.backends.mkldnn.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def replace_linears(model: nn.Module, make: Make) -> None:
    """Put `make(linear)` in the place of every linear layer, and of a tied head, which until then is none at all."""
    lora.refuse(model, "laid out for decoding")
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    for parent, name, child in places:
        setattr(parent, name, make(child))
        child.weight = nn.Parameter(
            torch.empty(0), requires_grad=False
        )  # `places` still holds the layer: free its matrix
    table = getattr(model, "token_table", None)
    if isinstance(table, nn.Embedding) and getattr(model, "head", None) is None:
        with torch.device("meta"):
            head = nn.Linear(table.embedding_dim, table.num_embeddings, bias=False)
        head.weight = table.weight
        model.head = make(head)


class ReadOnly(nn.Module):
    """A layer whose numbers are in a form that only this machine, and only a product, can use."""

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        """Refuse: a model folder written from here would lack its matrices."""
        raise ModelError(
            f"the matrix of {prefix.removesuffix('.')} is in a form for decoding and cannot be saved",
            "save the model before, or load it again",
        )


class LaidOut(ReadOnly):
    """A linear layer (..., K) -> (..., N) whose matrix lies in oneDNN's blocks."""

    def __init__(self, linear: nn.Linear, *, rows: int = 1) -> None:
        super().__init__()
        self.bias = linear.bias
        self.dtype = linear.weight.dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self._weight, self.bias, "none", [], "")
        return product
