"""Do two programs say the same of one text? Two tables of logits become six numbers, and those a verdict.

In: logits (T, V) of the same ids, ours and another program's. Out: `Agreement`. Nothing is run here: whoever asks
brings the logits, so the figures mean the same for every program and number format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from torch import Tensor, float64

from groundup.errors import ModelError

# Two programs that compute in fp32 with the same weights differ by the order of their sums, about 1e-6 of the largest
# logit; one swapped or forgotten tensor costs 1e-2 and more.
RELATIVE = 1e-4
# f32, f16: the least share of positions with the same most likely id. Weights keep 11 bits and more, and llama.cpp
# keeps keys and values in f16 whatever the weights, which moves logits by about 1e-3 of the largest: only ties within
# that may fall the other way (seen: 99.6 % and more).
TOP1 = {"f32": 0.99, "f16": 0.99}
# The largest mean KL divergence, as a share of what the model says (`said`): an early model says little, and all that
# it has learnt may be lost within a bound that suits a later one. Weights keep 8 bits in bf16 and q8_0, and with q8_0
# llama.cpp rounds what is multiplied with them to 8 bits, too. Seen of whole files, random, harbor and SmolLM2-135M:
# bf16 up to 8e-5, q8_0 up to 2e-3, and f16 (without SmolLM2) up to 5e-7; with all matrices of random blocks zeroed 2e-2
# and more, but 1e-4 in gpt2 with torch's initial weights, whose blocks do almost nothing.
# q4_0: four bits make another model; the figures are shown and no bound is set.
KL = {"f32": 1e-4, "f16": 1e-4, "bf16": 1e-3, "q8_0": 1e-2}
SAID = 1e-3  # nats: a model that says less says nothing, and no share of that is a measure
_ROWS = 16  # positions turned into float64 at once: with 150,000 ids that is 20 MB a table


@dataclass(frozen=True)
class Agreement:
    """How near two tables of logits are.

    `top1`: share of positions where both have the same most likely id. `largest`: largest difference of a logit.
    `relative`: that, as a share of our largest logit. `kl`: mean KL divergence of theirs from ours, in nats a position.
    `said`: the same of our mean prediction from ours: how much of what we predict hangs on the place; 0 for a model
    that predicts the same everywhere. NaN: not known.
    """

    positions: int
    top1: float
    largest: float
    relative: float
    kl: float
    said: float = nan


def compare(ours: Tensor, theirs: Tensor) -> Agreement:
    """Compare logits (T, V) of the same ids.

    A position with a number that is not finite never agrees, and makes `largest`, `relative` and `kl` NaN or infinite.
    Raises ModelError for tables of different shapes, or without a position.

    >>> import torch
    >>> found = compare(torch.tensor([[0.0, 2.0], [4.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 2.0]]))
    >>> found.top1, found.largest, found.relative
    (0.5, 3.0, 0.75)
    """
    if ours.dim() != 2 or ours.shape != theirs.shape or not len(ours):
        raise ModelError(
            f"logits of shape {tuple(ours.shape)} cannot be compared with logits of shape {tuple(theirs.shape)}",
            "ask both programs about the same ids, with the vocabulary of one model",
        )
    same, largest, scale, nats, sure = 0.0, 0.0, 0.0, 0.0, 0.0
    mean = ours.new_zeros(ours.shape[1], dtype=float64)  # (V,): our probabilities, over all positions
    for mine, other in zip(ours.double().split(_ROWS), theirs.double().split(_ROWS), strict=True):
        finite = mine.isfinite().all(-1) & other.isfinite().all(-1)  # (rows,)
        same += float((finite & (mine.argmax(-1) == other.argmax(-1))).sum())
        largest = _larger(largest, float((mine - other).abs().max()))
        scale = _larger(scale, float(mine.abs().max()))
        log_p, log_q = mine.log_softmax(-1), other.log_softmax(-1)
        nats += float((log_p.exp() * (log_p - log_q)).sum())
        sure += float((log_p.exp() * log_p).sum())  # minus the entropy
        mean += log_p.exp().sum(0) / len(ours)
    relative = largest / scale if scale else (0.0 if largest == 0 else float("inf"))
    said = sure / len(ours) - float(mean.xlogy(mean).sum())
    return Agreement(len(ours), same / len(ours), largest, relative, nats / len(ours), said)


def together(parts: Sequence[Agreement]) -> Agreement:
    """Several texts as one: shares and means by their positions, the largest of the largest.

    >>> one, other = Agreement(1, 1.0, 0.1, 0.01, 0.0, 2.0), Agreement(3, 0.0, 0.4, 0.02, 0.8, 4.0)
    >>> together([one, other])
    Agreement(positions=4, top1=0.25, largest=0.4, relative=0.02, kl=0.6, said=3.5)
    """
    if not parts:
        raise ModelError("no logits were compared: 0 texts", "give at least one text")
    positions = sum(part.positions for part in parts)
    largest, relative = 0.0, 0.0
    for part in parts:
        largest, relative = _larger(largest, part.largest), _larger(relative, part.relative)
    top1, kl, said = (
        sum(getattr(part, name) * part.positions for part in parts) / positions for name in ("top1", "kl", "said")
    )
    return Agreement(positions, top1, largest, relative, kl, said)


def _larger(one: float, other: float) -> float:
    """The larger of two, NaN if either is: Python's `max` would keep or lose a NaN by its place."""
    return one if one != one or one >= other else other


def same_weights(found: Agreement) -> bool:
    """Whether the figures are those of one set of weights computed in fp32 by two programs; NaN is not.

    >>> same_weights(Agreement(9, 1.0, 2e-5, 1e-6, 0.0)), same_weights(Agreement(9, 1.0, 0.1, float("nan"), 0.0))
    (True, False)
    """
    return found.relative <= RELATIVE


def near_enough(found: Agreement, dtype: str) -> bool | None:
    """Whether two programs agree as well as weights in `dtype` allow; False for NaN.

    None where nothing can be judged: no bound is set for the format, or `says_too_little`.

    >>> found = Agreement(100, 0.98, 0.1, 0.01, 0.001, 2.0)
    >>> near_enough(found, "f16"), near_enough(found, "q8_0"), near_enough(found, "q4_0")
    (False, True, None)
    """
    if dtype not in KL or says_too_little(found):
        return None
    return found.top1 >= TOP1.get(dtype, 0) and abs(found.kl) <= KL[dtype] * found.said


def says_too_little(found: Agreement) -> bool:
    """Whether our model predicts much the same everywhere, and theirs nothing else: then any damage looks the same.

    >>> [says_too_little(Agreement(9, 1.0, 0.1, 0.1, kl, said)) for kl, said in [(1e-5, 1e-4), (5.0, 1e-4), (0.0, 2.0)]]
    [True, False, False]
    """
    return found.said < SAID and abs(found.kl) < SAID
