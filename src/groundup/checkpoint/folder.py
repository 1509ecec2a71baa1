"""A model as a folder that anyone can open: the Hugging Face layout, with hashes and a card.

In: model, tokenizer, facts about the run. Out: config.json, model.safetensors, tokenizer.json, generation_config.json,
card.json and README.md, hashes.json; and back. `transformers` opens the folder as it is (bigram alone is our own type).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup import model as models
from groundup import tokens
from groundup.checkpoint import atomic, names, space
from groundup.errors import CheckpointError
from groundup.model.config import BigramConfig, ModelConfig
from groundup.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
STORED = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Loaded:
    """What a model folder holds: the network in evaluation mode, its tokenizer, where it was, and its card."""

    model: nn.Module
    tokenizer: Tokenizer
    folder: Path
    card: dict[str, Any]


def save_model(folder: Path, model: nn.Module, tokenizer: Tokenizer, *, card: dict[str, Any]) -> None:
    """Write a model folder in one go: an older one in the same place stays until the new one is whole.

    >>> save_model(Path("gpt"), model, tokenizer, card={"data": "my letters"})  # doctest: +SKIP
    """
    config, tensors = models.config_of(model), exported(model)
    with atomic.written_aside(folder, needed=space.of(tensors.values())) as aside:
        write_model(aside, config, tensors, tokenizer, card=card)


def exported(model: nn.Module) -> dict[str, Tensor]:
    """The weights under their Hugging Face names, on the CPU; those that need no change are not copied."""
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    return names.to_hf(state, models.config_of(model))


def write_model(folder: Path, config: ModelConfig | BigramConfig, tensors: dict[str, Tensor], tokenizer: Tokenizer, *,
                card: dict[str, Any]) -> None:  # fmt: skip
    """Write the files of a model folder into an existing folder; the caller makes it atomic.

    `tensors` as `exported` gives them. Raises NoRoom naming the file that the disk has no room for.
    """
    ids = {"bos": tokenizer.bos, "eos": tokenizer.end_of_text, "pad": tokenizer.pad}
    dtype = STORED[next(iter(tensors.values())).dtype]
    _write_json(folder / "config.json", names.hf_config(config, **ids, dtype=dtype))
    start = ids["bos"] if ids["bos"] is not None else ids["eos"]
    generation = {
        "bos_token_id": start,
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["pad"] if ids["pad"] is not None else ids["eos"],
    }
    _write_json(
        folder / "generation_config.json", {name: value for name, value in generation.items() if value is not None}
    )
    write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    with space.writing(folder / "tokenizer.json"):
        tokenizer.save(folder)
    _write_json(folder / "card.json", card)
    _write(folder / "README.md", _card_text(config, card))


def write_tensors(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; raises NoRoom naming it when the disk is full."""
    with space.writing(path, space.of(tensors.values())):
        save_file(tensors, path, metadata=metadata)


def load(path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Loaded:
    """Open a run folder (its last good weights), RUN/best, or a model folder; every hash it has is checked.

    `dtype` None keeps what is stored. Raises CheckpointError naming what is missing, altered or not supported.

    >>> run = load("runs/first")  # doctest: +SKIP
    >>> run.model.config.layers, run.tokenizer.vocabulary  # doctest: +SKIP
    (5, 1024)
    """
    folder = resolve(Path(path))
    while True:
        begun = atomic.identity(folder)
        try:
            return _open(folder, dtype=dtype, device=device)
        except CheckpointError:
            # a run that goes on may have put newer weights there while we read: then those are whole
            if atomic.identity(folder) == begun:
                raise


def _open(folder: Path, *, dtype: torch.dtype | None, device: torch.device | str) -> Loaded:
    atomic.verify(folder)
    model = read_model(folder, dtype=dtype).to(device)
    tokenizer = tokens.load(folder)
    vocabulary = models.config_of(model).vocabulary
    if tokenizer.vocabulary > vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocabulary:,} ids, the model only {vocabulary:,}",
            "put the tokenizer.json that the model was trained with into the folder",
        )
    card = folder / "card.json"
    return Loaded(model.eval(), tokenizer, folder, atomic.read_json(card) if card.exists() else {})


def resolve(path: Path) -> Path:
    """The model folder meant by RUN, RUN/best or a model folder; raises CheckpointError with advice."""
    for folder in (path, path / "model"):
        atomic.settle(folder)
        if (folder / "config.json").is_file():
            return folder
    if not path.exists():
        raise CheckpointError(f"no folder at {path}", "give a run folder, RUN/best or a model folder")
    if (path / "settings.toml").exists():
        raise CheckpointError(
            f"the run in {path} has no checkpoint yet", f"go on with it: groundup pretrain --out {path} --resume"
        )
    raise CheckpointError(
        f"{path} is no model folder: it has no config.json", "give a run folder, RUN/best or a model folder"
    )


def read_model(folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Build the network of a model folder and fill it with its weights."""
    config = names.model_config(atomic.read_json(folder / "config.json"))
    tensors = _read_tensors(folder / WEIGHTS)
    with torch.device("meta"):
        model = models.build(config)
    state = names.from_hf(tensors, config)
    model.load_state_dict(state, assign=True)
    return model.to(dtype) if dtype else model


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", "give a complete model folder (safetensors)")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file: {error}", "restore it from a copy"
        ) from None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with space.writing(path, len(text)):
        path.write_text(text, encoding="utf-8", newline="\n")


def _card_text(config: Any, card: dict[str, Any]) -> str:
    """The card as a Markdown page: what the model is, what it was made from, how to use it."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in card.items() if not isinstance(value, (dict, list)))
    sources = "\n".join(f"- {source}" for source in card.get("sources", []))
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: {card.get("license", "unknown")}
tags: [groundup, {config.family}]
---
# A {config.family} language model made with Groundup

A base model: it continues text; it was not taught to chat.

| | |
|---|---|
{facts}

Text it was trained on:
{sources or "- not recorded"}

    groundup generate FOLDER --prompt "Once"
"""
