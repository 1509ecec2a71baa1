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
    "GPT": "groundup.model.gpt",
    "ModelConfig": "groundup.model.config",
    "Tokenizer": "groundup.tokens.tokenizer",
    "load": "groundup.checkpoint.folder",
    "save_model": "groundup.checkpoint.folder",
    "pretrain": "groundup.stages.pretrain",
    "prepare": "groundup.commands.prepare",
    "generate": "groundup.generate",
    "evaluate": "groundup.evaluate",
    "train_tokenizer": "groundup.tokens",
    "load_tokenizer": "groundup.tokens",
    "gpt2_tokenizer": "groundup.tokens",
    "GroundupError": "groundup.errors",
    "UserError": "groundup.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"groundup has no public name '{name}'; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
