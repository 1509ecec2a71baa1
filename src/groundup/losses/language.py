"""What a model is trained for: (model, Batch) -> (sum over the supervised units, numbers to print).

In: a model and a batch that already holds whatever frozen models had to say. Out: a SUM; the training loop divides it
once by the units of the whole step, so that cutting a step into micro-batches or over ranks changes nothing. Numbers to
print stay tensors on the device: reading one would make the CPU wait for the GPU.
Shapes: B batch, T time, V vocabulary.
"""

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batches.batch import Batch
from groundup.errors import ModelError
from groundup.losses.cross_entropy import cross_entropy

Loss = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]


def next_token(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of -log p(target) in nats over the targets, each times its weight; raises ModelError on misfitting logits.

    Reads the fields targets (B, T) and, where present, weight (B, T); documents, positions, padding for the model. The
    mean, sum / batch.count, is the cross entropy and its exp the perplexity (Raschka 2024, section 5.1.2).

    >>> import torch
    >>> from groundup.batches import next_token as shifted
    >>> even = lambda tokens: torch.zeros(*tokens.shape, 8)  # a model without a clue: every id has p = 1/8
    >>> total, _ = next_token(even, shifted(torch.tensor([[1, 2, 3]])))
    >>> round(total.item() / 2, 4)  # ln 8
    2.0794
    """
    context = {name: batch.fields[name] for name in ("documents", "positions", "padding") if name in batch.fields}
    targets, weight = batch.fields["targets"], batch.fields.get("weight")
    if hasattr(model, "head_weight"):
        states = model(batch.tokens, **context, head=False)  # (B, T, D)
        _check(states, targets)
        flat = None if weight is None else weight.flatten()
        head = cast(Tensor, model.head_weight)
        return cross_entropy(states.flatten(0, 1), head, targets.flatten(), flat), {}
    logits = model(batch.tokens, **context)  # (B, T, V): a model without a head, such as the bigram table
    _check(logits, targets)
    # in fp32 also under autocast: log and sum over a vocabulary lose too much in bf16
    each = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")  # (B*T,)
    return (each if weight is None else each * weight.flatten()).sum(), {}


def _check(answer: Tensor, targets: Tensor) -> None:
    if answer.dim() != 3 or answer.shape[:2] != targets.shape:
        raise ModelError(
            f"the model answers {tuple(answer.shape)} to targets {tuple(targets.shape)}",
            "a next-token model returns logits (B, T, V), or states (B, T, D), for targets (B, T)",
        )
