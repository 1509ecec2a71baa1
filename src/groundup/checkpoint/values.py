"""The values of an actor-critic, beside a model folder that everyone else opens as the policy alone.

In: `ActorCritic` (model/values.py), or a folder that one was written to. Out: value.safetensors with `weight` (1, D)
and `bias` (1,) in fp32. All other files are those of the policy: a model, or adapters on one. No program looks for a
file of that name, so that transformers, peft and we ourselves open the folder as if it were not there; only a run that
goes on (folder.py, `restore`) reads it.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from groundup.checkpoint import finite
from groundup.checkpoint.huggingface import SafeFile
from groundup.errors import CheckpointError
from groundup.model.values import ActorCritic
from groundup.text.guard import inside, optional

NAME = "value.safetensors"
MARK = "groundup.value."  # begins the names of these tensors while they travel with those of the policy


def tensors(model: ActorCritic) -> dict[str, Tensor]:
    """The tensors of a network's values, marked, on the CPU."""
    return {f"{MARK}{name}": value.detach().cpu() for name, value in model.value.named_parameters()}


def parted(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors as the policy's, and the values' without their mark.

    >>> import torch
    >>> policy, value = parted({"wte.weight": torch.zeros(2), "groundup.value.bias": torch.zeros(1)})
    >>> list(policy), list(value)
    (['wte.weight'], ['bias'])
    """
    marked = {name: value for name, value in found.items() if name.startswith(MARK)}
    policy = {name: value for name, value in found.items() if name not in marked}
    return policy, {name.removeprefix(MARK): value for name, value in marked.items()}


def read(folder: Path, model: ActorCritic) -> dict[str, Tensor]:
    """The values in a folder, by the names of `model.value`, into which they fit.

    Raises CheckpointError for a folder without them, with those of another network, or with numbers that are not
    finite.
    """
    if optional(folder, NAME) is None:
        raise CheckpointError(
            f"{folder / NAME} is missing: the folder holds a policy without what it expects",
            "restore the file from a copy, or start a new run from this model with another --out",
        )
    stored = SafeFile(inside(folder, NAME))
    wanted = {name: tuple(parameter.shape) for name, parameter in model.value.named_parameters()}
    there = {name: tuple(shape) for name, shape in stored.shapes().items()}
    if there != wanted:
        raise CheckpointError(
            f"{folder / NAME} holds {_words(there)}, wanted are {_words(wanted)}",
            "use the folder that was saved with this policy",
        )
    return {name: finite.checked(stored.read(name), f"{folder / NAME}: {name}") for name in wanted}


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name[:60]} {shape}" for name, shape in list(shapes.items())[:4]) or "nothing"
