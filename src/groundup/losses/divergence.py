"""How far one distribution is from another, in nats: exactly, and guessed from what was sampled.

In: for `exact` two rows of logits; for the rest log-ratios log p(x) - log q(x) of samples x that p drew. Out: numbers
of the same shape; their mean over many samples is, or is near, KL(p || q): the sum of p(x) times the log-ratio of x.

The names are those of Schulman 2020, "Approximating KL divergence": k1 is right on average and swings most, k3 is right
on average and never negative; his k2, off where p and q are far apart, nothing here needs. `exact` takes the whole
vocabulary: it is the truth that lessons and tests hold the guesses against.
"""

import torch
from torch import Tensor


def k1(log_ratio: Tensor) -> Tensor:
    """log p(x) - log q(x): its mean under p is the divergence itself. A single one may be negative.

    >>> k1(torch.tensor([0.5, -0.1]))
    tensor([ 0.5000, -0.1000])
    """
    return log_ratio


def k3(log_ratio: Tensor) -> Tensor:
    """q(x) / p(x) - 1 - log(q(x) / p(x)): never below 0, and its mean under p is the divergence.

    As a loss it pulls p towards q, which is how GRPO uses it (Shao et al. 2024, "DeepSeekMath", equation 4).

    >>> k3(torch.tensor([0.5, -0.1]))  # e^-0.5 - 1 + 0.5, e^0.1 - 1 - 0.1
    tensor([0.1065, 0.0052])
    """
    return torch.expm1(-log_ratio) + log_ratio  # expm1: near 0 the difference e^-r - 1 would have lost its digits


def exact(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p || q) (...) of the softmax of logits (..., V), summed over the whole vocabulary in fp32.

    >>> even, certain = torch.zeros(2), torch.tensor([0.0, -100.0])
    >>> exact(certain, even)  # who knows the answer is ln 2 from who knows nothing
    tensor(0.6931)
    """
    log_p, log_q = logits_p.float().log_softmax(dim=-1), logits_q.float().log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
