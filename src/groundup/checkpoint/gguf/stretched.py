"""Llama 3's stretched positions in GGUF, a divisor for each rotary pair. The rule in, divisors out; and back.

The file keeps what came of the rule, `rope_freqs.weight`, not the rule's own numbers (llama.cpp's converter, class
LlamaModel, `generate_extra_tensors`); reading finds the rule again, or refuses.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.model.config import ModelConfig, RopeScaling

ROPE_DIVISORS = "rope_freqs.weight"  # fp32 (K / 2,): what the speed of each pair is divided by


def rope_divisors(config: ModelConfig) -> Tensor | None:
    """What `rope_freqs.weight` holds for a model stretched by Llama 3's rule: fp32 (K / 2,); None for any other.

    >>> scaling = RopeScaling(kind="llama3", factor=8.0, original_context=8192)
    >>> sizes = {"vocabulary": 9, "context": 64, "width": 8, "layers": 1, "heads": 1, "rope_base": 500_000.0}
    >>> rope_divisors(ModelConfig(family="llama", rope_scaling=scaling, **sizes))
    tensor([1.0000, 1.0000, 2.6945, 8.0000])
    """
    if config.rope_scaling is None or config.rope_scaling.kind != "llama3":
        return None
    return torch.tensor(_by_rule(config.rope_scaling, config.rope_base, config.head_size), dtype=torch.float32)


def fitted(numbers: Sequence[float], base: float, head_size: int, declared: Any = None) -> RopeScaling | None:
    """The rule that makes these divisors to 1e-4 of each, or None. `declared`: the original context, if stated.

    >>> rule = fitted([1.0, 1.0, 2.69454, 8.0], base=500_000.0, head_size=8)
    >>> rule.factor, rule.original_context
    (8.0, 8192)
    """
    if len(numbers) != head_size // 2 or not all(1 <= number < 2**31 for number in numbers):
        return None
    factor = short(max(numbers))
    contexts = [declared] if isinstance(declared, int) and 0 < declared < 2**31 else []
    rules = [(context, 4.0) for context in [*contexts, 8192, *(2**power for power in range(5, 21))]]
    for context, high in [*rules, *_through_blend(numbers, base, head_size, factor)]:
        rule = RopeScaling(kind="llama3", factor=factor, high=high, original_context=context)
        made = _by_rule(rule, base, head_size)
        if all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(made, numbers, strict=True)):
            return rule
    return None


def short(number: float) -> float:
    """The shortest decimal that a 32-bit float keeps as it keeps `number`.

    >>> short(9.999999747378752e-06)
    1e-05
    """
    return float(str(np.float32(number)))


def _by_rule(scaling: RopeScaling, base: float, head_size: int) -> list[float]:
    """Llama 3's rule (model/config.py: `RopeScaling`), pair by pair."""
    result = []
    for speed in _speeds(base, head_size):
        turns = scaling.original_context * speed / (2 * math.pi)
        share = min(max((turns - scaling.low) / (scaling.high - scaling.low), 0.0), 1.0)
        result.append(1 / ((1 - share) / scaling.factor + share))
    return result


def _speeds(base: float, head_size: int) -> list[float]:
    """Radians per position of each pair, before it is stretched (Su et al. 2021, "RoFormer", section 3.2.2)."""
    return [base ** (-2 * pair / head_size) for pair in range(head_size // 2)]


def _through_blend(numbers: Sequence[float], base: float, head_size: int, factor: float) -> list[tuple[int, float]]:
    """Context and high turns of the rule through two blended pairs, low turns being 1; nothing where there are none.

    The share of a pair's own speed is a line over that speed, so two points give it. That low is 1 costs nothing:
    context, low and high count only in proportion.
    """
    points = [
        (speed / (2 * math.pi), (1 / number - 1 / factor) / (1 - 1 / factor))
        for speed, number in zip(_speeds(base, head_size), numbers, strict=True)
        if 1 < number < factor
    ]
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return []
    (fast, more), (slow, less) = points[0], points[-1]
    slope = (more - less) / (fast - slow)
    start = more - slope * fast  # -low / (high - low)
    if not slope > 0 > start or not 1 <= slope / -start < 2**31:
        return []
    return [(round(slope / -start), 1 - 1 / start)]
