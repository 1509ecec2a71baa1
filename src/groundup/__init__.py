"""Groundup: a large language model from the ground up, in readable PyTorch.

The public names below load on first use, so that `import groundup` costs nothing.

>>> import groundup
>>> groundup.ModelConfig(family="gpt2", vocabulary=65, context=32, width=16, layers=1, heads=2).head_size
8
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "GPT": "groundup.model.gpt:GPT",
    "ModelConfig": "groundup.model.config:ModelConfig",
    "Tokenizer": "groundup.tokens.tokenizer:Tokenizer",
    "train_tokenizer": "groundup.tokens:train",
    "load_tokenizer": "groundup.tokens:load",
    "gpt2_tokenizer": "groundup.tokens:gpt2",
    "pretrain": "groundup.stages.pretrain:pretrain",
    "classify": "groundup.stages.classify:classify",
    "instruct": "groundup.stages.instruct:instruct",
    "reward": "groundup.stages.reward:reward",
    "dpo": "groundup.stages.dpo:dpo",
    "ppo": "groundup.stages.ppo:ppo",
    "load": "groundup.checkpoint.folder:load",
    "save_model": "groundup.checkpoint.folder:save_model",
    "generate_text": "groundup.generate:generate_text",
    "Sampler": "groundup.generate:Sampler",
    "GroundupError": "groundup.errors:GroundupError",
    "UserError": "groundup.errors:UserError",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"groundup has no public name '{name}'; it has: {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
