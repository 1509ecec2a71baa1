"""`groundup import`: a model from elsewhere as a folder of our own, which every command and `transformers` opens.

In: `settings.Import`: a folder, a file or a name. Out: the model folder, and `Result`: what the model is, and what was
changed on the way. The card keeps where it came from, its licence, and the SHA-256 of every file it was made from.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.checkpoint import atomic, fields, finite, folder, names, opening, space
from groundup.checkpoint.huggingface import CARD
from groundup.checkpoint.source import Source, Weights, fill
from groundup.errors import SettingsError
from groundup.journal import Progress
from groundup.model.config import ModelConfig
from groundup.settings import Import

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDER = {"fp16": "bf16"}  # has room for larger numbers in as many bytes
BEFORE = "before"  # in a card: what stood there already, of an earlier import
OTHERS = {".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".pt", ".pth", ".tflite", ".lock", ".sha256"}


@dataclass(frozen=True)
class Result:
    """The model that was imported; `changed` says in words how the tensors differ from those of the source."""

    out: Path
    source: str
    format: str
    family: str
    parameters: int
    vocabulary: int
    context: int
    tokenizer: str
    dtype: str
    licence: str
    changed: list[str]
    bytes: int
    seconds: float


def run(settings: Import) -> Result:
    """Open the source, fill a network with it, write the folder; the network is held once, and one tensor more.

    Raises SettingsError, CheckpointError, TokenizerError, DataError (a download); then nothing was written.

    >>> run(Import(source="stories260k", out="models/stories")).parameters  # doctest: +SKIP
    260032
    """
    out = _target(settings)
    began = time.perf_counter()
    source = opening.open_any(settings.source, tokenizer=settings.tokenizer)
    if source.head is not None or source.adapter is not None:
        what = "a classifier" if source.adapter is None else "a folder of adapters"
        raise SettingsError(
            f"{settings.source} is {what}, which needs no import",
            f"use it as it is, or with its adapters merged: groundup export {settings.source} --to hf",
        )
    seen: set[torch.dtype] = set()
    with Progress("import", total=len(source.weights.shapes()), unit="tensor") as line:
        watched = Watched(source.weights, line, seen, wanted=settings.dtype)
        model = fill(source.config, watched, dtype=DTYPES.get(settings.dtype))
    kind = next(model.parameters()).dtype
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = _card(source, settings)
    tensors = names.to_hf(GivenUp(model), source.config)
    with atomic.written_aside(out, needed=space.of(tensors.values())) as aside:
        folder.write_model(aside, folder.Exported(source.config, tensors), source.tokenizer, card=card)
    return Result(
        out=out,
        source=settings.source,
        format=source.format,
        family=source.config.family,
        parameters=parameters,
        vocabulary=source.config.vocabulary,
        context=source.config.context,
        tokenizer=f"{source.tokenizer.kind}, {source.tokenizer.vocabulary:,} ids",
        dtype=folder.STORED[kind],
        licence=fields.printable(str(card.get("licence", ""))),
        changed=_changes(source, seen, kind),
        bytes=sum(path.stat().st_size for path in out.iterdir()),
        seconds=time.perf_counter() - began,
    )


def _target(settings: Import) -> Path:
    """The folder to write, once it is clear that nothing of the person's lies there."""
    if not settings.source:
        raise SettingsError("no model was given", "name a folder, a file, or a model that `groundup models` lists")
    if settings.out is None:
        raise SettingsError("no folder for the model", "name one with --out, such as --out models/mine")
    out = settings.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"--out {out} exists and is not empty", "choose a new folder, or remove that one first")
    return out


def _card(source: Source, settings: Import) -> dict[str, Any]:
    """What was known of the model, and where it came from now; what a card.json says of that itself stands apart."""
    ours: dict[str, Any] = {"imported from": settings.source, "format": source.format}
    if not (source.path / CARD).is_file():  # then no one but the reader has written this card
        ours |= source.card
    ours |= {"files": _fingerprints(source, settings.tokenizer)}
    before = {name: fact for name, fact in source.card.items() if name in (*ours, BEFORE) and ours.get(name) != fact}
    return source.card | ours | ({BEFORE: before} if before else {})


class Watched:
    """Weights that move a progress line as they are read, and remember which number formats they came in.

    `wanted`: the format they are to be stored in, a key of DTYPES; another leaves them in their own.
    """

    def __init__(self, weights: Weights, line: Progress, seen: set[torch.dtype], *, wanted: str) -> None:
        self._weights, self._line, self._seen, self._done = weights, line, seen, 0
        limit = torch.finfo(DTYPES[wanted]).max if wanted in DTYPES else math.inf
        wider = f"take --dtype {WIDER.get(wanted, 'fp32')}"
        self._checked = partial(finite.checked, kind=wanted, limit=limit, wider=wider)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return self._weights.shapes()

    def read(self, name: str) -> Tensor:
        """One tensor, as the weights give it; raises CheckpointError for numbers that cannot be stored."""
        tensor = self._checked(self._weights.read(name), name)
        self._seen.add(tensor.dtype)
        self._done += 1
        self._line.update(self._done)
        return tensor


class GivenUp(Mapping[str, Tensor]):
    """The state of a model, of which each tensor can be taken once: then the model no longer holds it.

    So the tensors to be written, some of them turned round or cut in three, take the place of the model's own instead
    of standing in memory beside them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._names = model, list(model.state_dict())

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._model.get_parameter(name)
        tensor = parameter.detach()
        parameter.data = tensor.new_empty(0)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the default would take the tensor


def _fingerprints(source: Source, tokenizer: Path | None) -> dict[str, Any]:
    """Size and SHA-256 of each file the model was made from."""
    files = _read_from(source.path) if source.path.is_dir() else [source.path]
    beside = source.card.get("tokenizer from")
    if source.path.is_file() and beside:
        files.append(tokenizer or source.path.with_name(beside))
    return {path.name: atomic.fingerprint(path) for path in files}


def _read_from(place: Path) -> list[Path]:
    """The files of a model folder that count: no second set of weights for another program, no notes of a download."""
    files = [path for path in sorted(place.iterdir()) if path.is_file() and not path.name.startswith(".")]
    whole = any(path.suffix == ".safetensors" for path in files)
    passed = OTHERS | {".bin"} if whole else OTHERS
    return [path for path in files if path.suffix.lower() not in passed]


def _changes(source: Source, seen: set[torch.dtype], kind: torch.dtype) -> list[str]:
    """What is no longer as it was, in words; nothing for weights that were copied as they lay."""
    family, stored = source.config.family, str(source.card.get("stored as", ""))
    turned = source.format == "llama2.c" or (source.format == "gguf" and family == "llama" and not _is_qwen2(source))
    changed = []
    if turned:
        changed.append("queries and keys: the rows of each head reordered, from rotary pairs side by side to halves")
    if source.format == "gguf" and family == "gpt2":
        changed.append("matrices: transposed, from (out, in) to (in, out)")
    if source.format == "gguf" and set(stored.replace(",", " ").split()) - {"F32", "F16", "BF16"}:
        changed.append(f"dequantised to float32: stored as {stored}")
    if source.format == "openai":
        changed.append("matrices: a leading axis of one dropped")
    if source.format == "openai" and stored == "float64":
        changed.append(f"numbers: float64 there, {folder.STORED[kind]} here")
    elif seen - {kind}:
        there = ", ".join(sorted(folder.STORED.get(one, str(one)) for one in seen))
        changed.append(f"numbers: {there} there, {folder.STORED[kind]} here")
    return changed


def _is_qwen2(source: Source) -> bool:
    """Qwen 2 is a llama with biases at query, key and value; its GGUF files keep the halves."""
    return isinstance(source.config, ModelConfig) and bool(source.config.qkv_bias)


def show(result: Result) -> None:
    """Print what the model is, what was changed, and what to type next."""
    print(f"{result.out}: {result.family} from {result.source} ({result.format})")
    print(f"  parameters  {result.parameters:,} in {result.dtype}, {result.bytes / 1e6:,.1f} MB")
    print(f"  tokenizer   {result.tokenizer}; the model has room for {result.vocabulary:,}")
    print(f"  context     {result.context:,} tokens")
    print(f"  licence     {result.licence or 'not known: look where it came from'}")
    for change in result.changed or ["nothing: the numbers are those of the source"]:
        print(f"  changed     {change}")
    print(f"  {result.seconds:.1f} s")
    print(f'next: groundup generate {result.out} --prompt "Once upon a time"')
