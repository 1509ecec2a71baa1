"""Whether numbers can be used at all, and held by the format that they are to be stored in.

In: a tensor. Out: the same, or CheckpointError naming it.
"""

import math

import torch
from torch import Tensor

from groundup.errors import CheckpointError


def checked(tensor: Tensor, name: str, *, kind: str = "", limit: float = math.inf, wider: str = "") -> Tensor:
    """The tensor itself; raises CheckpointError for NaN, infinity, and numbers beyond `limit`, the end of `kind`.

    `wider`: what to ask for instead of that format.

    >>> checked(torch.tensor([1.0, -7e4]), "head", kind="fp16", limit=65504.0, wider="take --dtype bf16")
    Traceback (most recent call last):
    groundup.errors.CheckpointError: head holds 70,000, fp16 ends at 65,504
      -> take --dtype bf16
    """
    low, high = (float(end) for end in torch.aminmax(tensor))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CheckpointError(
            f"{name} holds numbers that are not finite", "take another copy of the model, or an earlier checkpoint"
        )
    largest = max(-low, high)
    if largest > limit:
        raise CheckpointError(f"{name} holds {largest:,.0f}, {kind} ends at {limit:,.0f}", wider)
    return tensor
