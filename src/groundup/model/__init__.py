"""Ids (B, T) in, logits (B, T, V) out: settings (config.py), the network (gpt.py), the one-table model (bigram.py) and
the cache for decoding (cache.py). Importing this loads no torch, so that sizes can be looked up at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from groundup.model.config import BigramConfig, ModelConfig

if TYPE_CHECKING:
    from groundup.model.bigram import Bigram
    from groundup.model.gpt import GPT


def build(config: ModelConfig | BigramConfig, *, seed: int | None = None) -> GPT | Bigram:
    """The network that `config` describes, with fresh numbers: from `seed`, or from torch's global generator.

    Inside `with torch.device("meta")` it has shapes but takes no memory.

    >>> build(BigramConfig(vocabulary=3, context=8), seed=1).table.weight.shape
    torch.Size([3, 3])
    """
    if isinstance(config, BigramConfig):
        from groundup.model.bigram import Bigram

        return Bigram(config, seed=seed)
    from groundup.model.gpt import GPT

    return GPT(config, seed=seed)


def config_of(model: Any) -> ModelConfig | BigramConfig:
    """The settings of a network that may be known only as an `nn.Module`, whose attributes have no type.

    >>> config_of(build(BigramConfig(vocabulary=9, context=4), seed=0)).context
    4
    """
    return cast("ModelConfig | BigramConfig", model.config)
