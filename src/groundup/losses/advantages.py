"""How much better a token, or an answer, was than expected: what a policy learns from.

In: rewards and values of each token, or one score for each answer. Out: advantages. Nothing here gives a gradient: what
comes in is taken as it stands. Shapes: B answers, T places.
"""

import torch
from torch import Tensor

from groundup.errors import DataError, SettingsError

ROUNDING = 1e-6  # of the largest number: a spread below is what fp32 makes of equal ones


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T) from rewards and values (B, T) (Schulman et al. 2016, section 3, equation 16):

        delta_t = r_t + gamma V_(t+1) - V_t
        A_t = delta_t + gamma lambda A_(t+1)
        return_t = A_t + V_t, what the value of t is to become

    mask (B, T): not 0 where the answer is. Other places are passed over as if they were not there, whatever stands in
    them, and get 0. Behind the last place of an answer nothing more is expected, whether it ended by itself or was cut.

    Raises DataError for shapes that differ, SettingsError for gamma or lambda outside 0 .. 1.

    >>> rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.5, 0.5]])
    >>> gae(rewards, values, torch.ones(1, 3), gamma=1.0, lam=1.0)  # lambda 1: all that came, minus what was expected
    (tensor([[0.5000, 0.5000, 0.5000]]), tensor([[1., 1., 1.]]))
    >>> gae(rewards, values, torch.ones(1, 3), gamma=1.0, lam=0.0)[0]  # lambda 0: the surprise of one step
    tensor([[0.0000, 0.0000, 0.5000]])
    """
    _same(rewards=rewards, values=values, mask=mask)
    for name, share in (("gamma", gamma), ("lambda", lam)):
        if not 0 <= share <= 1:
            raise SettingsError(f"{name} is {share}", "it must be from 0 to 1")
    real = mask != 0
    advantages = torch.zeros_like(rewards)
    expected, later = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])  # V and A of the next real place
    for t in range(rewards.shape[1] - 1, -1, -1):
        here = real[:, t]
        advantage = rewards[:, t] + gamma * expected - values[:, t] + gamma * lam * later
        later, expected = torch.where(here, advantage, later), torch.where(here, values[:, t], expected)
        advantages[:, t] = torch.where(here, advantage, 0.0)
    return advantages, torch.where(real, advantages + values, 0.0)


@torch.no_grad()
def grouped(scores: Tensor, groups: Tensor) -> Tensor:
    """Each score against those of the same group: (score - mean) / spread (B,) (Shao et al. 2024, section 4.1.2).

    scores (B,); groups (B,) whole numbers, the same for answers to the same prompt. The spread is the root of the sum
    of squares over n - 1, as programs for GRPO have it. A group of one, or whose scores are equal but for rounding, has
    nothing to compare: its advantages are 0.

    Raises DataError for shapes that differ.

    >>> grouped(torch.tensor([1.0, 0.0, 5.0, 5.0, 7.0]), torch.tensor([3, 3, 8, 8, 9]))
    tensor([ 0.7071, -0.7071,  0.0000,  0.0000,  0.0000])
    """
    _same(scores=scores, groups=groups)
    exact = scores.cpu().double()
    _, group = groups.cpu().unique(return_inverse=True)
    size = torch.bincount(group).double()  # (G,)
    mean = torch.zeros_like(size).index_add(0, group, exact) / size
    off = exact - mean[group]  # (B,)
    spread = (torch.zeros_like(size).index_add(0, group, off.square()) / (size - 1).clamp(min=1)).sqrt()  # (G,)
    largest = torch.zeros_like(size).scatter_reduce(0, group, exact.abs(), "amax")
    none = (spread <= ROUNDING * largest)[group]  # false of NaN, which must not become a 0 that nobody notices
    return torch.where(none, 0.0, off / torch.where(none, 1.0, spread[group])).to(scores)


@torch.no_grad()
def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """x with mean 0 and spread 1 over the places where the mask is not 0; 0 elsewhere.

    The spread is the root of the mean square. Numbers that are equal but for rounding become 0: none is better.

    Raises DataError for shapes that differ.

    >>> whiten(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    tensor([[-1.,  1.,  0.]])
    """
    _same(x=x, mask=mask)
    real = mask != 0
    there = x[real]
    if there.numel() == 0:
        return torch.zeros_like(x)
    off = there - there.mean()
    spread = off.square().mean().sqrt()
    if spread <= ROUNDING * there.abs().max():
        return torch.zeros_like(x)
    return torch.zeros_like(x).masked_scatter(real, off / spread)


def _same(**tensors: Tensor) -> None:
    """Raise DataError unless all have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"the shapes differ: {said}", "give one number for each place in all of them")
