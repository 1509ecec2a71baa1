"""A model opened but not read: what it is, its tokenizer, and its tensors, each read when it is asked for.

In: whatever one of the openers found (huggingface.py, openai.py, gguf, llama2c.py), as a `Source`. Out: the network,
filled one tensor at a time by `fill`, so that opening a model holds it once, and one tensor more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groundup.checkpoint import names
from groundup.errors import CheckpointError
from groundup.machine import lent_memory
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.heads import HeadConfig
from groundup.tokens.tokenizer import Tokenizer


class Weights(Protocol):
    """Named arrays of a checkpoint, read one at a time; nothing is read before it is asked for.

    Names and layouts are those of Hugging Face (names.py), whatever the format: matrices of GPT-2 as (in, out), query,
    key and value apart in a llama, rotary pairs half a head apart.
    """

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, known from the header alone."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU, its memory its own: in the stored float type, or fp32 where it was quantised."""
        ...


@dataclass(frozen=True)
class Held:
    """Weights that are in memory already, as a dict.

    >>> held = Held({"wte": torch.zeros(3, 2)})
    >>> held.shapes(), held.read("wte").sum()
    ({'wte': (3, 2)}, tensor(0.))
    """

    tensors: Mapping[str, Tensor]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        """The tensor itself, not a copy."""
        return self.tensors[name]


@dataclass(frozen=True)
class Source:
    """A model opened but not read: what it is, its tokenizer, its tensors.

    `format`: "huggingface", "openai", "gguf", "llama2.c" or "adapter". `card`: facts worth keeping; for our own folders
    card.json. `head` of a classifier. `adapter`: the folder of adapters that belong on these weights, which may also
    bring rows for tokens of their own. Raises CheckpointError for a tokenizer with ids that the model has no room for.
    """

    format: str
    path: Path
    config: ModelConfig | BigramConfig
    tokenizer: Tokenizer
    weights: Weights
    card: dict[str, Any]
    head: HeadConfig | None = None
    adapter: Path | None = None

    def __post_init__(self) -> None:
        there, room = self.tokenizer.vocabulary, self.config.vocabulary
        if there > room and self.adapter is None:
            raise CheckpointError(
                f"{self.path}: the tokenizer has {there:,} ids, the model only {room:,}",
                "use the tokenizer that the model was trained with",
            )


def fill(
    config: ModelConfig | BigramConfig,
    weights: Weights,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The network of `config` with these weights, in training mode: one copy of them, and one tensor more at a time.

    Every name and shape is compared before the first number is read. `dtype` None keeps the stored type; where a file
    mixes them, the narrowest that holds all. Raises CheckpointError naming what is missing, unexpected or misshapen.

    >>> config = BigramConfig(vocabulary=2, context=4)
    >>> model = fill(config, Held({"table.weight": torch.tensor([[0.0, 1.0], [2.0, 3.0]])}), dtype=torch.bfloat16)
    >>> model(torch.tensor([[1]]))
    tensor([[[2., 3.]]], dtype=torch.bfloat16, grad_fn=<EmbeddingBackward0>)
    """
    tensors = names.arranged(weights.shapes(), weights.read, config, dtype=dtype, device=device)
    with torch.device("meta"):
        model = build(config)  # shapes, no memory
    with lent_memory():
        for name, tensor in tensors:
            _put(model, name, tensor)
    kinds = {parameter.dtype for parameter in model.parameters()}
    if len(kinds) > 1:
        widest = reduce(torch.promote_types, kinds)
        for name in [name for name, _ in model.named_parameters()]:
            _put(model, name, model.get_parameter(name).detach().to(widest))
    return model


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` the parameter of this name: the old one's memory is free at once."""
    module, _, kind = name.rpartition(".")
    setattr(model.get_submodule(module), kind, nn.Parameter(tensor))
