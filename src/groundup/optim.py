"""How weights move: which of them decay, AdamW, the learning rate at each step, clipping.

In: a model, numbers from the settings. Out: a torch optimizer, and pure functions of the step.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import ModelError


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for matrices and tables (2 dimensions or more), none for norms and biases.

    A tied table is one parameter and stands once; frozen parameters stand nowhere. Raises ModelError where nothing is
    left to train.

    >>> [(len(group["params"]), group["weight_decay"]) for group in groups(nn.Linear(3, 2), 0.1)]
    [(1, 0.1), (1, 0.0)]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ModelError("the model has no parameter to train", "unfreeze some of its parameters")
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    both = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in both if group["params"]]


def adamw(
    model: nn.Module, *, lr: float, betas: tuple[float, float], weight_decay: float, fused: bool = True
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) over `groups`; `fused`: one kernel per step, on CPU and CUDA."""
    return torch.optim.AdamW(groups(model, weight_decay), lr=lr, betas=betas, fused=fused)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate by step: a straight line up, then half a cosine down (Loshchilov and Hutter 2017, equation 5).

    The line is peak * (step + 1) / warmup, so that step 0 already moves. The cosine starts at `peak` in step `warmup`
    and ends at `min_lr` in step `steps` - 1; later steps stay there. With `initial` given, the line is the book's:
    `initial` in step 0, `peak` in step `warmup` (Raschka 2024, appendix D, where the cosine ends one step after the
    run: that is `steps` one higher here).

    >>> schedule = Schedule(peak=1.0, min_lr=0.1, steps=7, warmup=2)
    >>> [round(schedule.lr(step), 3) for step in range(9)]
    [0.5, 1.0, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1, 0.1]
    """

    peak: float
    steps: int
    min_lr: float = 0.0
    warmup: int = 0
    initial: float | None = None

    def lr(self, step: int) -> float:
        """The learning rate of step 0, 1, 2 ..."""
        step = min(step, self.steps - 1)
        if step < self.warmup:
            if self.initial is None:
                return self.peak * (step + 1) / self.warmup
            return self.initial + (self.peak - self.initial) * step / self.warmup
        done = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        return self.min_lr + (self.peak - self.min_lr) * (1 + math.cos(math.pi * done)) / 2


def clip(parameters: Iterable[nn.Parameter], norm: float) -> Tensor:
    """Scale all gradients down together so that their common L2 norm is at most `norm`; returns the norm before.

    `norm` 0 only measures. The result stays on the device and may be infinite or NaN: what to do then is the loop's
    business (Pascanu et al. 2013, algorithm 1).

    >>> table = nn.Parameter(torch.zeros(2, 2))
    >>> table.grad = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    >>> clip([table], 2.5), table.grad
    (tensor(5.), tensor([[0.5000, 1.0000],
            [1.0000, 2.0000]]))
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    total = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    if norm > 0:
        nn.utils.clip_grads_with_norm_(trained, norm, total)
    return total
