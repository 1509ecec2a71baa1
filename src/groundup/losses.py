"""What a model is trained for: (model, Batch) -> (sum over the supervised units, numbers to print).

In: a model and a batch that already holds whatever frozen models had to say. Out: a SUM; the training loop divides it
once by the units of the whole step, so that cutting a step into micro-batches or over ranks changes nothing. Numbers to
print stay tensors on the device: reading one would make the CPU wait for the GPU.
Shapes: B batch, T time, V vocabulary.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batches.batch import Batch
from groundup.errors import ModelError

Loss = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]


def next_token(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of -log p(target) in nats over the targets, each times its weight; raises ModelError on misfitting logits.

    Reads the fields targets (B, T) and, where present, weight (B, T), documents and padding (both for the model). The
    mean, sum / batch.count, is the cross entropy and its exp the perplexity (Raschka 2024, section 5.1.2).

    >>> import torch
    >>> from groundup.batches import next_token as shifted
    >>> even = lambda tokens: torch.zeros(*tokens.shape, 8)  # a model without a clue: every id has p = 1/8
    >>> total, _ = next_token(even, shifted(torch.tensor([[1, 2, 3]])))
    >>> round(total.item() / 2, 4)  # ln 8
    2.0794
    """
    context = {name: batch.fields[name] for name in ("documents", "padding") if name in batch.fields}
    logits = model(batch.tokens, **context)  # (B, T, V)
    targets = batch.fields["targets"]
    _check(logits, targets)
    # in fp32 also under autocast: log and sum over a vocabulary lose too much in bf16
    flat = logits.flatten(0, 1).float()  # (B, T, V) -> (B*T, V)
    weight = batch.fields.get("weight")
    if weight is None:
        total = F.cross_entropy(flat, targets.flatten(), reduction="sum")
    else:
        each = F.cross_entropy(flat, targets.flatten(), reduction="none")  # (B*T,)
        total = (each * weight.flatten()).sum()
    return total, {}


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.dim() != 3 or logits.shape[:2] != targets.shape:
        raise ModelError(
            f"logits have shape {tuple(logits.shape)}, targets {tuple(targets.shape)}",
            "a next-token model returns logits (B, T, V) for targets (B, T)",
        )
