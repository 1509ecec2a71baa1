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
    """A rule that makes these divisors to 1e-4 of each, or None. `declared`: the original context, if stated.

    Context, low and high count only in proportion, and between two pairs a bound may lie anywhere: of the rules that
    give the same network it is the released one where that fits (low 1, high 4), else one through the blended pairs.

    >>> rule = fitted([1.0, 1.0, 2.69454, 8.0], base=500_000.0, head_size=8)
    >>> rule.factor, rule.original_context
    (8.0, 8192)
    """
    if len(numbers) != head_size // 2 or not all(1 <= number < 2**31 for number in numbers):
        return None
    factor = short(max(numbers))
    contexts = [declared] if type(declared) is int and 0 < declared < 2**31 else []
    for context in contexts or [8192, *(2**power for power in range(5, 21))]:
        rule = RopeScaling(kind="llama3", factor=factor, original_context=context)
        if _makes(rule, numbers, base, head_size, near=1e-4):
            return rule
    usual = 1 / (contexts[0] if contexts else 8192)
    low, high = _bounds(numbers, _speeds(base, head_size), factor, usual)
    if not 0 < low < high < math.inf:
        return None
    context = contexts[0] if contexts else min(max(round(1 / low), 1), 2**31 - 1)
    for digits, near in ((5, 1e-6), (17, 1e-4)):  # the numbers that were meant, if they are short
        bounds = {"low": float(f"{low * context:.{digits}g}"), "high": float(f"{high * context:.{digits}g}")}
        if bounds["low"] < bounds["high"]:
            rule = RopeScaling(kind="llama3", factor=factor, original_context=context, **bounds)
            if _makes(rule, numbers, base, head_size, near):
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


def _makes(rule: RopeScaling, numbers: Sequence[float], base: float, head_size: int, near: float) -> bool:
    """Whether a rule's divisors are these, each to this share of it."""
    made = _by_rule(rule, base, head_size)
    return all(math.isclose(a, b, rel_tol=near) for a, b in zip(made, numbers, strict=True))


def _speeds(base: float, head_size: int) -> list[float]:
    """Radians per position of each pair, before it is stretched (Su et al. 2021, "RoFormer", section 3.2.2)."""
    return [base ** (-2 * pair / head_size) for pair in range(head_size // 2)]


def _bounds(numbers: Sequence[float], speeds: Sequence[float], factor: float, usual: float) -> tuple[float, float]:
    """Low and high turns of the rule, for one position instead of the original context; (0, 0) where there are none.

    The share that a pair keeps of its own speed rises on a line over that speed, from 0 at low to 1 at high. Two
    blended pairs give the line. Through one alone go many: low is `usual` where then no bound passes the next pair,
    else the nearer bound is put at that pair. With no pair blended, both bounds are at pairs.
    """
    turns = [speed / (2 * math.pi) for speed in speeds]
    whole = [turn for turn, number in zip(turns, numbers, strict=True) if number == 1]
    slow = [turn for turn, number in zip(turns, numbers, strict=True) if math.isclose(number, factor, rel_tol=1e-6)]
    blended = [
        (turn, (1 / number - 1 / factor) / (1 - 1 / factor))
        for turn, number in zip(turns, numbers, strict=True)
        if number > 1 and turn not in slow
    ]
    if not slow or factor == 1:
        return 0.0, 0.0
    if not blended:
        return slow[0], whole[-1] if whole else 4 * slow[0]
    (fast, more), (slower, less) = blended[0], blended[-1]
    if len(blended) > 1 and more > less:
        width = (fast - slower) / (more - less)  # from low to high
    else:
        lows = [slow[0], usual] if usual < fast else [slow[0]]
        width = min([(fast - low) / more for low in lows] + [(turn - fast) / (1 - more) for turn in whole[-1:]])
    return fast - more * width, fast + (1 - more) * width
