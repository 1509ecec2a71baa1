"""The loss of a classifier: -log p of the right class, each row times its weight.

In: a `Classifier` and a batch with one label for each row. Out: a SUM and the number of rows that were right, as for
every loss (language.py). Shapes: B batch, C classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batches.batch import Batch
from groundup.errors import ModelError


def classification(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of -log p(label) in nats over the rows, each times its weight; raises ModelError on misfitting logits.

    Reads the fields labels (B,), whole numbers 0 .. C - 1, and, where present, lengths (B,) for the model and weight
    (B,). "correct" is the weight of the rows whose likeliest class is theirs: divided by `batch.count` it is the
    accuracy, as the loss divided by it is the mean.

    >>> import torch
    >>> even = lambda tokens: torch.zeros(len(tokens), 4)  # a model without a clue: every class has p = 1/4
    >>> batch = Batch(torch.zeros(2, 3, dtype=torch.long), 2.0, {"labels": torch.tensor([1, 0])})
    >>> total, numbers = classification(even, batch)
    >>> round(total.item() / 2, 4), numbers["correct"].item()  # ln 4; of equal classes the first counts as chosen
    (1.3863, 1.0)
    """
    labels, weight = batch.fields["labels"], batch.fields.get("weight")
    context = {"lengths": batch.fields["lengths"]} if "lengths" in batch.fields else {}
    logits: Tensor = model(batch.tokens, **context)  # (B, C)
    check(logits, labels)
    # in fp32 also under autocast: the logarithm of a probability near 1 is lost in bf16
    each = F.cross_entropy(logits.float(), labels, reduction="none")  # (B,)
    right = (logits.detach().argmax(dim=1) == labels).float()
    if weight is not None:
        each, right = each * weight, right * weight
    return each.sum(), {"correct": right.sum()}


def check(logits: Tensor, labels: Tensor) -> None:
    """Raise ModelError unless logits (B, C) and labels (B,) of 0 .. C - 1 fit; values are looked at on the CPU only."""
    if logits.dim() != 2 or tuple(labels.shape) != tuple(logits.shape[:1]) or labels.is_floating_point():
        raise ModelError(
            f"the model answers {tuple(logits.shape)} to labels {labels.dtype} of shape {tuple(labels.shape)}",
            "a classifier returns logits (B, C) for labels (B,), whole numbers",
        )
    if labels.device.type != "cpu":
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ModelError(
            f"label {low if low < 0 else high} is none of the {logits.shape[1]} classes of the model",
            "use the classes that the model was made with, in its order",
        )
