"""How weights move: which of them decay, AdamW, Muon, the learning rate at each step, clipping.

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


def muon(
    model: nn.Module, *, lr: float, betas: tuple[float, float], weight_decay: float, momentum: float = 0.95
) -> "Joint":
    """Muon (Jordan et al. 2024) for the matrices inside the blocks, AdamW for tables, head, norms and biases.

    Muon's step is the momentum made orthogonal, scaled so that its size is that of an AdamW step (Liu et al. 2025,
    "Muon is Scalable for LLM Training", equation 4): one learning rate and one weight decay serve both.

    >>> from groundup.model import build
    >>> from groundup.model.config import from_name
    >>> optimizer = muon(build(from_name("1m", vocabulary=65), seed=0), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    >>> [type(part).__name__ for part in optimizer.parts]
    ['Muon', 'AdamW']
    """
    inner = [p for name, p in model.named_parameters() if ".blocks." in f".{name}" and p.dim() == 2 and p.requires_grad]
    if not inner:
        raise ModelError("the model has no matrix inside blocks for Muon to train", "use --optimizer adamw")
    taken = {id(parameter) for parameter in inner}
    rest = [
        {**group, "params": left}
        for group in groups(model, weight_decay)
        if (left := [parameter for parameter in group["params"] if id(parameter) not in taken])
    ]
    first = torch.optim.Muon(inner, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    return Joint(first, torch.optim.AdamW(rest, lr=lr, betas=betas, fused=True))


class Joint(torch.optim.Optimizer):
    """Several optimizers as one: each moves its own parameters, groups and state are in common."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        for part in parts:
            part.param_groups = [group for group in self.param_groups if _within(group, part)]
            part.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step(closure)


def _within(group: dict[str, Any], part: torch.optim.Optimizer) -> bool:
    own = {id(parameter) for other in part.param_groups for parameter in other["params"]}
    return all(id(parameter) in own for parameter in group["params"])


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate by step: a straight line up, then down along half a cosine or, with `decay`, a line at the end.

    The line up is peak * (step + 1) / warmup, so that step 0 already moves. The cosine (Loshchilov and Hutter 2017,
    equation 5) starts at `peak` in step `warmup` and ends at `min_lr` in step `steps` - 1; later steps stay there. With
    `decay`, a share of the steps, the rate stays at `peak` until the last of them and then falls in a straight line
    (warmup-stable-decay, Hu et al. 2024, "MiniCPM", section 4): until then the steps may be raised at no loss. With
    `initial` given, the line up is the book's: `initial` in step 0, `peak` in step `warmup` (Raschka 2024, appendix D,
    where the cosine ends one step after the run: that is `steps` one higher here).

    >>> schedule = Schedule(peak=1.0, min_lr=0.1, steps=7, warmup=2)
    >>> [round(schedule.lr(step), 3) for step in range(9)]
    [0.5, 1.0, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1, 0.1]
    >>> schedule = Schedule(peak=1.0, steps=10, warmup=2, decay=0.4)
    >>> [schedule.lr(step) for step in range(11)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    peak: float
    steps: int
    min_lr: float = 0.0
    warmup: int = 0
    initial: float | None = None
    decay: float | None = None

    def lr(self, step: int) -> float:
        """The learning rate of step 0, 1, 2 ..."""
        step = min(step, self.steps - 1)
        if step < self.warmup:
            if self.initial is None:
                return self.peak * (step + 1) / self.warmup
            return self.initial + (self.peak - self.initial) * step / self.warmup
        if self.decay is not None:
            span = max(1, min(round(self.decay * self.steps), self.steps - self.warmup))
            left = min(span, self.steps - 1 - step) / span
            return self.min_lr + (self.peak - self.min_lr) * left
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
