"""Where a run starts: from nothing, from another model's weights (`--from`), or from its own last checkpoint.

In: settings, and for a run that goes on its folder. Out: `Start`: the network's config, its tokenizer, its weights.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import model as models
from groundup import tokens
from groundup.checkpoint import atomic, fields, folder, opening, sources
from groundup.checkpoint.identity import weights_hash
from groundup.errors import CheckpointError, SettingsError, TokenizerError
from groundup.model import surgery
from groundup.model.config import BigramConfig, ModelConfig
from groundup.settings import Pretrain, Training, flag
from groundup.tokens.learning import LEARNT
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import run as runs

ROWS = 1024  # tokens of a row, where nobody says how many
LICENCE = ("license", "licence")  # a model made from another is bound by it
FACTS = ("from", "from_sha256", "from_tokenizer", "added_tokens", *LICENCE)  # of the card, kept when a run goes on


@dataclass(frozen=True)
class Start:
    """The network a run trains: its config (with the model's own context), and its weights if it has any yet.

    `tokenizer` None: it is learnt or chosen with the text. `same`: fingerprints of tokenizers that give the same ids
    for any text: the model's own, and with added tokens. `facts` go into the card.
    """

    config: ModelConfig | BigramConfig
    tokenizer: Tokenizer | None = None
    network: nn.Module | None = None
    same: frozenset[str] = frozenset()
    facts: dict[str, Any] = field(default_factory=dict)

    def built(self, seed: int) -> nn.Module:
        """The network: the imported one, or one with fresh numbers."""
        return models.build(self.config, seed=seed) if self.network is None else self.network

    def seen(self, context: int | None) -> ModelConfig | BigramConfig:
        """The config as training sees it: rows of `context` tokens, which may be fewer than the network can read.

        By default its own context; of a model from elsewhere at most ROWS, since some read 131,072 and no memory holds
        such a batch. Raises SettingsError for more than its own.
        """
        longest = self.config.context
        if context is not None and context > longest:
            raise SettingsError(
                f"--context {context} is more than the model's context of {longest}",
                f"give {longest} at most, or leave it out",
            )
        usual = longest if self.tokenizer is None else min(longest, ROWS)
        return dataclasses.replace(self.config, context=context or usual)


def check(settings: Pretrain) -> None:
    """Refuse, before anything is read, what a new run cannot have beside --from; raises SettingsError."""
    if settings.from_model is None:
        if settings.add_tokens:
            raise SettingsError("--add-tokens needs --from", "a new tokenizer has no tokens to add to")
        return
    for name in settings.fixed_by_from:
        if name in settings.model_fields_set and getattr(settings, name) is not None:
            raise SettingsError(
                f"--from fixes the network: {flag(name)} {getattr(settings, name)} cannot be given beside it",
                f"leave {flag(name)} out",
            )
    if settings.tokenizer in LEARNT and "tokenizer" in settings.model_fields_set:
        raise SettingsError(
            f"--from brings its tokenizer: --tokenizer {settings.tokenizer} cannot be learnt beside it",
            "leave --tokenizer out",
        )


def from_model(settings: Pretrain, out: Path) -> Start | None:
    """What --from names, with the tokens and the dropout asked for; None without it.

    A run that has a checkpoint is opened from there and needs nothing of the original. Weights become fp32. Raises
    CheckpointError for what cannot be opened, TokenizerError for a --tokenizer that is another than the model's.
    """
    if settings.from_model is None:
        return None
    if found := runs.checkpoints(out):
        return _from_checkpoint(settings, found[0] / "model")
    loaded = folder.load(settings.from_model, dtype=torch.float32)
    _check_tokenizer(settings, loaded.tokenizer)
    tokenizer = loaded.tokenizer.with_special(settings.add_tokens)
    model = loaded.model
    _tell_of_tokens(settings.add_tokens, loaded.tokenizer)
    if added := tokenizer.vocabulary - loaded.tokenizer.vocabulary:
        model = surgery.extend_vocabulary(model, tokenizer.vocabulary, known=loaded.tokenizer.vocabulary)
    config = _dropped(models.config_of(model), settings)
    facts: dict[str, Any] = {"from": settings.from_model, "from_sha256": weights_hash(loaded.folder)}
    facts |= {"from_tokenizer": loaded.tokenizer.fingerprint, "added_tokens": added} if added else {}
    facts |= {name: loaded.card[name] for name in LICENCE if name in loaded.card}
    same = frozenset({loaded.tokenizer.fingerprint, tokenizer.fingerprint})
    return Start(config, tokenizer, surgery.with_config(model, config).train(), same, facts)


def _tell_of_tokens(asked: list[str], tokenizer: Tokenizer) -> None:
    """Say which tokens are new to a tokenizer: a comma between two of them makes one of both."""
    new = [repr(name) for name in dict.fromkeys(asked) if name not in tokenizer.special]
    there = [repr(name) for name in dict.fromkeys(asked) if name in tokenizer.special]
    if asked:
        known = f"; already there: {', '.join(there)}" if there else ""
        print(f"added tokens: {', '.join(new) or 'none'}{known}", file=sys.stderr)


def _from_checkpoint(settings: Pretrain, model: Path) -> Start:
    """The network of a checkpoint without its weights, which are restored with everything else (train/fit.py)."""
    config = _dropped(fields.model_config(atomic.read_json(model / "config.json")), settings)
    tokenizer, card = tokens.load(model), atomic.read_json(model / "card.json")
    facts = {name: card[name] for name in FACTS if name in card}
    plain = str(card.get("from_tokenizer", tokenizer.fingerprint))
    return Start(config, tokenizer, None, frozenset({plain, tokenizer.fingerprint}), facts)


def _dropped(config: ModelConfig | BigramConfig, settings: Pretrain) -> ModelConfig | BigramConfig:
    """The config with the dropout of the settings, the one thing about a network that they still decide."""
    if isinstance(config, BigramConfig):
        return config
    return dataclasses.replace(config, **dropout(settings))


def dropout(settings: Training) -> dict[str, Any]:
    """Dropout of each place: its own setting, else that of all."""
    given = {
        "dropout_embedding": settings.dropout_embedding,
        "dropout_attention": settings.dropout_attention,
        "dropout_shortcut": settings.dropout_shortcut,
    }
    return {place: settings.dropout if value is None else value for place, value in given.items()}


def _check_tokenizer(settings: Pretrain, own: Tokenizer) -> None:
    """Refuse a --tokenizer that is not the model's own."""
    if settings.tokenizer in (*LEARNT, settings.from_model):
        return
    name = settings.tokenizer
    given = tokens.gpt2() if name == "gpt2" else tokenizer_of(name) or tokens.load(name)
    if given.fingerprint != own.fingerprint:
        raise TokenizerError(
            f"--tokenizer {settings.tokenizer} is not the tokenizer of {settings.from_model}", "leave --tokenizer out"
        )


def tokenizer_of(name: str) -> Tokenizer | None:
    """The tokenizer of a model from elsewhere: GGUF, llama2.c, OpenAI's GPT-2, a name of the catalog.

    None for what is no such model: names of tokenizers, and files and folders that `tokens.load` opens. Raises what
    `opening.open_any` raises for a model that is damaged or cannot be had.
    """
    path = Path(name)
    if name in (*LEARNT, "gpt2") or not (path.exists() or name in sources.ENTRIES):
        return None
    try:
        kind = opening.kind_of(path) if path.exists() else ""
    except CheckpointError:  # no model: a tokenizer.json, a folder with one
        return None
    return None if kind == "huggingface" else opening.open_any(name).tokenizer
