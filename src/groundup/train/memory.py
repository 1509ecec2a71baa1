"""Memory: whether a run will fit, and if it runs out after all, what was wanted and what to lower first.

In: a network and a plan; what torch and numpy raise when they get no memory. Out: bytes; a UserError that names
settings to lower.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from groundup import machine as machines
from groundup.errors import UserError
from groundup.machine import Machine
from groundup.model import config_of
from groundup.model.config import BigramConfig, ModelConfig, training_bytes
from groundup.train import run as runs
from groundup.train.plan import Plan

SIGNS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "out of memory")
WANTED = re.compile(r"(?:tried|unable) to allocate ([\d.]+) ?([kmgt]?i?b\b|bytes)", re.IGNORECASE)


def check(
    config: ModelConfig | BigramConfig,
    plan: Plan,
    machine: Machine,
    *,
    recompute: bool = False,
    trained: tuple[float, int | None] = (1.0, None),
) -> tuple[int, int]:
    """Bytes the training will take, and bytes free; raises UserError where it would fill more than 90 % of them.

    trained: share of the parameters that learn, and the blocks that gradients go through (None: all).
    """
    half, free = machine.dtype_name != "fp32", machines.memory(machine.device)

    def wanted(size: int) -> int:
        return training_bytes(
            config, batch=size, context=config.context, bf16=half, recompute=recompute, trained=trained
        )

    if wanted(plan.micro_batch) > 0.9 * free:
        fits = [size for size in smaller(plan) if wanted(size) <= 0.9 * free] or smaller(plan)[-1:]
        raise UserError(
            f"training needs about {wanted(plan.micro_batch) / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free",
            advice(next(iter(fits), None), config.context, recompute=recompute),
        )
    return wanted(plan.micro_batch), free


@contextlib.contextmanager
def explained(model: nn.Module, plan: Plan, *, out: Path | None = None, resume: str = "") -> Iterator[None]:
    """Turn a failed allocation into a UserError; any other error passes.

    out: the folder of a run that has begun; resume: the command that goes on with it.

    >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    True
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        context = config_of(model).context
        raise UserError(
            f"out of memory{_wanted(error)}, with micro-batches of {plan.micro_batch} x {context:,} tokens",
            _advice(
                plan,
                context,
                recompute=bool(getattr(model, "recompute", False)),
                resume=resume if out and runs.checkpoints(out) else "",
            ),
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch has a type for it on CUDA only, elsewhere the words tell."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(sign in str(error) for sign in SIGNS)


def smaller(plan: Plan) -> list[int]:
    """Micro-batches to try: divisors of the batch up to half of this one, the largest first; none below 1."""
    batch = plan.micro_batch * plan.accumulate
    return [size for size in range(plan.micro_batch // 2, 0, -1) if batch % size == 0]


def advice(micro_batch: int | None, context: int, *, recompute: bool) -> str:
    """What to lower, in order of effect on memory; the first two change no result.

    >>> advice(16, 1024, recompute=False)
    'lower, in this order: --micro-batch 16 (same result), --recompute (same result, slower), --context 512, --size'
    """
    steps = [f"--micro-batch {micro_batch} (same result)"] if micro_batch else []
    steps += [] if recompute else ["--recompute (same result, slower)"]
    steps += [f"--context {context // 2}"] if context > 1 else []
    return f"lower, in this order: {', '.join([*steps, '--size'])}"


def _advice(plan: Plan, context: int, *, recompute: bool, resume: str) -> str:
    size = next(iter(smaller(plan)), None)
    fix = advice(size, context, recompute=recompute)
    if not resume or (size is None and recompute):
        return fix
    return f"{fix}; the run is saved, go on with: {resume} {f'--micro-batch {size}' if size else '--recompute'}"


def _wanted(error: BaseException) -> str:
    found = WANTED.search(str(error))
    if not found:
        return ""
    number, unit = found.groups()
    if unit.lower() != "bytes":
        return f" ({number} {unit} more were wanted)"
    return f" ({float(number) / 2**20:,.0f} MiB more were wanted)"
