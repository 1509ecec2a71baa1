"""What a folder holds, for `groundup info`: a run, a model, token shards or a tokenizer.

In: a path. Out: {section: facts}, ready to print. Nothing large is loaded: weights are described by their headers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup import tokens
from groundup.checkpoint import adapters, atomic, classifier, fields, huggingface, opening, sources
from groundup.errors import CheckpointError, DataError, TokenizerError
from groundup.journal import Journal
from groundup.model.config import BigramConfig, ModelConfig, count_parameters
from groundup.model.heads import REWARD
from groundup.settings import read_toml
from groundup.tokens import prepare
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import run as runs

Facts = dict[str, Any]


def describe(path: Path) -> Facts:
    """The facts of a folder, section by section; raises CheckpointError for one that holds nothing of ours.

    >>> describe(Path("no/such/folder"))
    Traceback (most recent call last):
    groundup.errors.CheckpointError: no folder at no/such/folder
      -> give a run, model, shards or tokenizer folder
    """
    if not path.exists() and str(path) not in sources.ENTRIES:
        raise CheckpointError(f"no folder at {path}", "give a run, model, shards or tokenizer folder")
    for mark, reader in KINDS.items():
        if (path / mark).is_file():
            return reader(path)
    if path.name == "tokenizer.json":
        return describe_tokenizer(path)
    return describe_foreign(path)


def describe_foreign(path: Path) -> Facts:
    """A model of another format, or of the catalog where it lies on this machine: what its headers say."""
    if not path.exists() and sources.local(str(path)) is None:
        entry = sources.ENTRIES[str(path)]
        facts = {"format": entry.format, "parameters": entry.parameters, "bytes": entry.bytes, "licence": entry.licence}
        return {"holds": f"a model to be had by name: groundup import {path} --out FOLDER", "network": facts}
    source = opening.open_any(path)
    stored = {"format": source.format, "tensors": len(source.weights.shapes())}
    facts = {"network": _network(source.config) | stored, "tokenizer": _tokenizer(source.tokenizer)}
    return {"holds": "a model from elsewhere", **facts, "card": _said(source.card)}


def _card(folder: Path) -> Facts:
    """What the card of a model folder says, if it has one."""
    if not (folder / huggingface.CARD).is_file():
        return {}
    try:
        return _said(huggingface.read_json(folder / huggingface.CARD))
    except CheckpointError as error:
        return {"cannot be read": error.what}


def _said(card: Facts) -> Facts:
    """The facts of a card that are a text: settings and machine have commands and files of their own."""
    return {name: value for name, value in card.items() if isinstance(value, str)}


def describe_run(path: Path) -> Facts:
    """What was asked, how far it got, its last figures, and its model if there is one yet."""
    facts: Facts = {"holds": "a training run", "settings": read_toml(path / runs.SETTINGS)}
    facts["progress"] = _progress(path, facts["settings"].get("steps"))
    records = Journal(path).read()
    for kind in ("train", "eval"):
        if found := [record for record in records if record.get("kind") == kind]:
            facts[f"last {kind}"] = {name: value for name, value in found[-1].items() if name != "kind"}
    if reader := next((KINDS[mark] for mark in MODELS if (path / "model" / mark).is_file()), None):
        facts |= {f"model: {name}": section for name, section in reader(path / "model").items() if name != "holds"}
    if (path / "best").is_dir():
        facts["best: files"] = _files(path / "best")
    return facts


def _progress(path: Path, steps: int | None) -> Facts:
    found = runs.checkpoints(path)
    if not found:
        return {"checkpoints": 0}
    state = atomic.read_json(found[0] / "state.json")
    done = {name: state.get(name) for name in ("step", "tokens", "seconds", "skipped")}
    return {"checkpoints": len(found), "of steps": steps} | done


def describe_model(path: Path) -> Facts:
    """Family, sizes, parameters, number format, tokenizer, and whether every file is as it was written."""
    document = huggingface.read_json(path / "config.json")
    head = classifier.head_of(document)
    config = fields.model_config(document) if head is None else classifier.trunk_of(document)
    facts: Facts = {"holds": "a model", "network": _network(config) | {"dtype": _stored(path)}}
    if head is not None:
        facts["holds"] = "a classifier"
        facts["head"] = {"classes": list(head.labels), "pooling": head.pooling, "bias": head.bias}
    if head is not None and head.kind == REWARD:
        facts["holds"] = "a reward model"
        facts["head"] = {"pooling": head.pooling, "bias": head.bias, "mean": head.mean, "spread": head.spread}
    return facts | _beside(path)


def describe_adapters(path: Path) -> Facts:
    """What adapters stand on and how large they are; of the base only what the folder says itself."""
    config = adapters.config_in(path)
    facts: Facts = {
        "base": config.base or "not named",
        "base_sha256": config.base_sha256 or "not recorded",
        "rank": config.rank,
        "alpha": config.alpha,
        "targets": list(config.targets) or "as the tensors say",
        "parameters": adapters.numbers_in(path),
    }
    return {"holds": "adapters", "adapters": facts, **_beside(path)}


def _beside(path: Path) -> Facts:
    """What every model folder has beside its weights."""
    facts: Facts = {}
    try:
        facts["tokenizer"] = _tokenizer(tokens.load(path))
    except TokenizerError as error:  # a damaged folder is a finding, too
        facts["tokenizer"] = {"cannot be read": error.what}
    if card := _card(path):
        facts["card"] = card
    facts["files"] = _files(path)
    return facts


def _network(config: ModelConfig | BigramConfig) -> Facts:
    counts = count_parameters(config)
    sizes = ("context", "width", "layers", "heads", "kv_heads", "head_size", "hidden", "vocabulary", "tie", "qkv_bias")
    shape = {name: getattr(config, name) for name in sizes if hasattr(config, name)}
    return {"family": config.family, "parameters": counts.total, "without embeddings": counts.body} | shape


def _stored(folder: Path) -> list[str] | str:
    """The number formats of the weights, from their headers alone."""
    try:
        return sorted(huggingface.weights(folder).types())
    except CheckpointError as error:
        return error.what


def _hashes(path: Path) -> str:
    """The outcome of the hash check in words: here a damaged folder is a finding, not a failure."""
    try:
        return "every file matches" if atomic.verify(path) else f"no {atomic.MANIFEST}: made by another program"
    except CheckpointError as error:
        return f"DAMAGED: {error.what}"


def _files(path: Path) -> Facts:
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return {"hashes": _hashes(path), "bytes": size}


def describe_shards(path: Path) -> Facts:
    """Counts of a prepared text, and where it came from."""
    try:
        found = prepare.opened(path)
    except DataError as error:
        return {"holds": "token shards", "state": error.what}
    counts = {
        name: getattr(found, name)
        for name in ("train_tokens", "valid_tokens", "documents", "characters", "bytes", "split")
    }
    per_token = found.bytes / max(1, found.train_tokens + found.valid_tokens)
    text = {name.replace("_", " "): value for name, value in counts.items()} | {"bytes per token": per_token}
    sources = {str(source["name"]): f"{source['bytes']:,} bytes" for source in found.sources}
    return {"holds": "token shards", "text": text, "sources": sources, "tokenizer": _tokenizer(found.tokenizer)}


def describe_tokenizer(path: Path) -> Facts:
    """Kind, size and special tokens."""
    return {"holds": "a tokenizer", "tokenizer": _tokenizer(tokens.load(path))}


def _tokenizer(tokenizer: Tokenizer) -> Facts:
    special = [f"{name} {id}" for name, id in tokenizer.special.items()]
    return {
        "kind": tokenizer.kind,
        "vocabulary": tokenizer.vocabulary,
        "special": special,
        "fingerprint": tokenizer.fingerprint,
    }


# The file that tells what a folder is; the first that is there counts: a run has a model, a model has a tokenizer.
KINDS: dict[str, Callable[[Path], Facts]] = {
    runs.SETTINGS: describe_run,
    "config.json": describe_model,
    huggingface.ADAPTER: describe_adapters,
    prepare.MANIFEST: describe_shards,
    "tokenizer.json": describe_tokenizer,
}
MODELS = ("config.json", huggingface.ADAPTER)  # those of them that RUN/model may be
