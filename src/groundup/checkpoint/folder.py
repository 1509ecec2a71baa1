"""A model as a folder that anyone can open: the Hugging Face layout, with hashes and a card.

In: model, tokenizer, facts about the run. Out: config.json, model.safetensors, tokenizer.json, generation_config.json,
card.json and README.md, hashes.json; and back. `transformers` opens the folder as it is (bigram alone is our own type).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from groundup import model as models
from groundup.checkpoint import atomic, fields, huggingface, names, opening, space
from groundup.checkpoint.huggingface import CARD, WEIGHTS
from groundup.checkpoint.source import fill
from groundup.errors import CheckpointError, TokenizerError
from groundup.model.config import BigramConfig, ModelConfig
from groundup.tokens.tokenizer import Tokenizer

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
    _write_json(folder / "config.json", fields.hf_config(config, **ids, dtype=dtype))
    start = ids["bos"] if ids["bos"] is not None else ids["eos"]
    ends = tokenizer.ends  # one id is written as a number, several as a list
    generation = {
        "bos_token_id": start,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": ids["pad"] if ids["pad"] is not None else ids["eos"],
    }
    _write_json(
        folder / "generation_config.json", {name: value for name, value in generation.items() if value is not None}
    )
    write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    with space.writing(folder / "tokenizer.json"):
        tokenizer.save(folder)
    _write_json(folder / CARD, card)
    _write(folder / "README.md", _card_text(config, card))


def write_tensors(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; raises NoRoom naming it when the disk is full."""
    with space.writing(path, space.of(tensors.values())):
        path.touch()
        usual = path.stat().st_mode  # of a file made by this person here; the library makes one for nobody else
        save_file(tensors, path, metadata=metadata)
        path.chmod(usual)


def load(path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Loaded:
    """Open a run folder (its last good weights), RUN/best, a model folder, or whatever else `opening` knows.

    Every hash that a folder has is checked. `dtype` None keeps what is stored. The network is held once, and one tensor
    more while it is filled. Raises CheckpointError naming what is missing, altered or not supported.

    >>> run = load("runs/first")  # doctest: +SKIP
    >>> run.model.config.layers, run.tokenizer.vocabulary  # doctest: +SKIP
    (5, 1024)
    """
    lists = [Path(path) / atomic.MANIFEST, Path(path) / "model" / atomic.MANIFEST]
    while True:
        begun = [atomic.identity(place) for place in lists]
        try:
            source = opening.open_any(path)
            model = fill(source.config, source.weights, dtype=dtype, device=device)
        except (CheckpointError, TokenizerError):
            # a run that goes on may have put newer weights there while we read: then those are whole
            if [atomic.identity(place) for place in lists] == begun:
                raise
        else:
            return Loaded(model.eval(), source.tokenizer, source.path, source.card)


def read_model(folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Build the network of a model folder and fill it with its weights."""
    config = fields.model_config(huggingface.read_json(folder / "config.json"))
    return fill(config, huggingface.weights(folder), dtype=dtype)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with space.writing(path, len(text)):
        path.write_text(text, encoding="utf-8", newline="\n")


def _card_text(config: Any, card: dict[str, Any]) -> str:
    """The card as a Markdown page: what the model is, what it was made from, how to use it."""
    plain = {_one_line(name): _one_line(value) for name, value in card.items() if not isinstance(value, (dict, list))}
    facts = "\n".join(f"| {name} | {value} |" for name, value in plain.items())
    licence = str(card.get("license") or card.get("licence") or "unknown").lower()
    known = re.fullmatch(r"[a-z0-9.+-]+", licence)  # a short name, such as apache-2.0; "other" stands for a text
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: {licence if known else "other"}
tags: [groundup, {config.family}]
---
{_origin(config, card)}

| | |
|---|---|
{facts}

    groundup generate FOLDER --prompt "Once"
"""


def _origin(config: Any, card: dict[str, Any]) -> str:
    """Title, and what is known of the text behind the model."""
    if "imported from" in card and "settings" not in card:
        return (
            f"# A {config.family} language model, imported by Groundup\n\nWhat it learnt from: ask where it came from."
        )
    sources = "\n".join(f"- {_one_line(source)}" for source in card.get("sources", [])) or "- not recorded"
    about = "A base model: it continues text; it was not taught to chat."
    return f"# A {config.family} language model made with Groundup\n\n{about}\n\nText it was trained on:\n{sources}"


def _one_line(value: Any) -> str:
    """A fact as it stands in a table: what a foreign file says must not become a line of its own."""
    return " ".join(str(value).split()).replace("|", "\\|")
