"""The loss of a reward model: of two answers to a prompt, the better one must get the higher score.

In: scores, or a model that scores and a batch of pairs. Out: -log of the chance that the right one wins. Shapes: B
pairs, T time.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batches.batch import Batch
from groundup.errors import DataError, ModelError


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """-log sigmoid(chosen - rejected - margin) (B,) of scores (B,) (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1).

    Two players of strength s and t meet: the first wins with the chance e^s / (e^s + e^t). A margin asks for a
    distance instead of an order only (Touvron et al. 2023, "Llama 2", equation 2).

    >>> import torch
    >>> bradley_terry(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]))  # ln 2, ln(1 + e^-2)
    tensor([0.6931, 0.1269])
    """
    ahead = chosen - rejected
    return F.softplus(-(ahead if margin is None else ahead - margin))


def right(chosen: Tensor, rejected: Tensor) -> Tensor:
    """1 where the chosen side has the higher number, 1/2 where both have the same, else 0 (B,): the sum is accuracy.

    A model that tells nothing apart is so at one half, whichever side it sees first.

    >>> import torch
    >>> right(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0]))
    tensor([1.0000, 0.5000, 0.0000])
    """
    return ((chosen > rejected).float() + (chosen >= rejected).float()) / 2


def ranking(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over the pairs of `bradley_terry` in nats, and numbers to print, each a sum over the pairs.

    Reads tokens (2 B, T), first the chosen answers and then the rejected ones in the same order; the fields lengths
    (2 B,), real ids of each row, and, where present, margin (B,). The model answers (2 B, 1) scores.

    Numbers: accuracy (see `right`), margin (score of the chosen minus that of the rejected), chosen_score,
    rejected_score. Raises DataError for rows that are no pairs, ModelError for a model that gives no single score.

    >>> import torch
    >>> first = lambda tokens, lengths: tokens[:, :1].float()  # a model that scores a text by its first id
    >>> batch = Batch(torch.tensor([[5, 1], [4, 1]]), 1.0, {"lengths": torch.tensor([2, 2])})
    >>> total, numbers = ranking(first, batch)
    >>> total, numbers["accuracy"], numbers["margin"]  # ln(1 + e^-1)
    (tensor(0.3133), tensor(1.), tensor(1.))
    """
    pairs(batch)
    scores: Tensor = model(batch.tokens, lengths=batch.fields["lengths"])
    if scores.shape != (len(batch.tokens), 1):
        raise ModelError(
            f"the model answers {tuple(scores.shape)} to {len(batch.tokens)} rows",
            "a reward model gives one score a row, (2 B, 1): take one that groundup reward made",
        )
    chosen, rejected = scores[:, 0].float().chunk(2)  # (2 B,) -> (B,), twice; in fp32 also under autocast
    margin = batch.fields.get("margin")
    if margin is not None and margin.shape != chosen.shape:
        raise DataError(
            f"margins have shape {tuple(margin.shape)} for {len(chosen)} pairs", "give one margin for each pair"
        )
    numbers = {
        "accuracy": right(chosen, rejected),
        "margin": chosen - rejected,
        "chosen_score": chosen,
        "rejected_score": rejected,
    }
    summed = {name: value.detach().sum() for name, value in numbers.items()}
    return bradley_terry(chosen, rejected, margin).sum(), summed


def pairs(batch: Batch) -> int:
    """How many pairs a batch holds; raises DataError where its rows are no pairs."""
    rows = len(batch.tokens)
    if rows % 2 or rows == 0:
        raise DataError(f"a batch of {rows} rows holds no pairs", "first all chosen rows, then as many rejected ones")
    return rows // 2
