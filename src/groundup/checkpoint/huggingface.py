"""A Hugging Face model folder, ours included, as a `Source`: opened and checked, nothing of its weights read yet.

In: config.json, the tokenizer's files, and the weights: model.safetensors, its shards with their index, or, after a
warning, pytorch_model.bin (pickled.py). Out: `Source`.

A header of safetensors is checked and its tensors are read here, not by the library: that maps the whole file, so
that every page read counts as memory until the model is complete, and a file cut short by another program kills the
process. The format: https://huggingface.co/docs/safetensors, "Format": 8 bytes that say how long the header is, the
header (JSON: name -> dtype, shape, data_offsets), the numbers.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor

from groundup import tokens
from groundup.checkpoint import atomic, classifier, fields
from groundup.checkpoint.atomic import LIMIT, read_json
from groundup.checkpoint.pickled import PickledFile
from groundup.checkpoint.source import Source, Weights
from groundup.errors import CheckpointError
from groundup.text.guard import in_hub, inside, optional

WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"
INDEX = ".index.json"  # beside shards, behind the name of the whole
CARD = "card.json"
ADAPTER = "adapter_config.json"  # of the peft library
MOST_FILES = 1000
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
READ = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FIX = "restore it from a copy, or download it again"


class StoredWeights(Weights, Protocol):
    """Weights that also know the number formats they are stored in."""

    def types(self) -> set[str]:
        """As safetensors names them, such as {"BF16"}."""
        ...


def open_source(folder: Path) -> Source:
    """The model in a folder that holds a config.json: what a run wrote, or any of the Hugging Face layout.

    Every hash that the folder has is checked. `card` is the folder's card.json, or where it came from. Raises
    CheckpointError or TokenizerError naming the file and what is missing, altered or not supported.

    >>> open_source(Path("runs/first/model")).config.layers  # doctest: +SKIP
    5
    """
    atomic.verify(folder)
    if (folder / ADAPTER).exists():  # transformers would apply it
        raise CheckpointError(
            f"{folder} holds an adapter, {ADAPTER}, beside its weights", "merge it into the weights, or take it away"
        )
    document = read_json(inside(folder, "config.json"))
    head = classifier.head_of(document)
    config = fields.model_config(document) if head is None else classifier.trunk_of(document)
    found = weights(folder)
    tokenizer = tokens.load(folder)
    card = optional(folder, CARD)
    return Source("huggingface", folder, config, tokenizer, found, read_json(card) if card else _origin(folder), head)


def _origin(folder: Path) -> dict[str, Any]:
    """What is known of a folder without a card: its name (in the hub's cache, the model's) and its stated licence."""
    home = folder.resolve()
    name = home.parent.parent.name.removeprefix("models--").replace("--", "/") if in_hub(home) else home.name
    facts = {"imported from": name, "format": "huggingface"}
    if readme := optional(folder, "README.md"):
        with readme.open(encoding="utf-8", errors="replace") as file:
            start = file.read(4096)
        found = re.search(r"^license:\s*([\w.+-]{1,60})\s*$", start, re.MULTILINE) if start[:3] == "---" else None
        facts |= {"licence": found[1]} if found else {}
    return facts


def weights(folder: Path) -> StoredWeights:
    """The tensors of a model folder: safetensors, whole or in shards; else pickles, after one line on stderr.

    Raises CheckpointError where there are none, or where a header does not fit its file.
    """
    kinds: tuple[tuple[str, Callable[[Path], StoredWeights]], ...] = ((WEIGHTS, SafeFile), (PICKLED, PickledFile))
    for name, opened in kinds:
        whole, index = (folder / name).exists(), (folder / (name + INDEX)).exists()
        if (whole or index) and name == PICKLED:
            print(
                f"warning: {folder} holds pickles, which can be dangerous: only plain tensors are taken from them",
                file=sys.stderr,
            )
        if whole:
            return opened(inside(folder, name))
        if index:
            return Shards(folder, read_json(inside(folder, name + INDEX)), opened)
    raise CheckpointError(
        f"{folder / WEIGHTS} is missing", f"give a complete model folder: {WEIGHTS}, its shards, or {PICKLED}"
    )


def holds_weights(folder: Path) -> bool:
    """True where `weights` would find files to open."""
    return any((folder / name).exists() for whole in (WEIGHTS, PICKLED) for name in (whole, whole + INDEX))


class Shards:
    """Several files as one set of weights, put together by an index of Hugging Face's form (name -> file)."""

    def __init__(self, folder: Path, index: Mapping[str, Any], opened: Callable[[Path], StoredWeights]) -> None:
        places = index.get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise CheckpointError(f"{folder}: the index of the weights has no weight_map of names", FIX)
        names = sorted(set(places.values()))
        if len(names) > MOST_FILES:
            raise CheckpointError(f"{folder}: the index of the weights names {len(names):,} files", FIX)
        files = {name: opened(inside(folder, name)) for name in names}
        self._files: dict[str, StoredWeights] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name, file in files.items():
            for tensor, shape in file.shapes().items():
                if places.get(tensor) != name:
                    raise CheckpointError(
                        f"{folder / name} holds {tensor[:100]}, which the index does not place there", FIX
                    )
                self._files[tensor], self._shapes[tensor] = file, shape
        if absent := sorted(places.keys() - self._shapes.keys()):
            raise CheckpointError(
                f"{folder / places[absent[0]]} lacks {absent[0][:100]}, which the index promises", FIX
            )

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor in all files."""
        return self._shapes

    def read(self, name: str) -> Tensor:
        """One tensor from the file that holds it."""
        return self._files[name].read(name)

    def types(self) -> set[str]:
        """The number formats of all files, as safetensors names them."""
        return {kind for file in set(self._files.values()) for kind in file.types()}


class _Place(NamedTuple):
    """Where a tensor's numbers lie in the file, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafeFile:
    """One safetensors file whose header was checked against its size; tensors are read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stamp, self._places = _stamp(path), _header(path)
        except OSError as error:
            raise _unreadable(path, error) from None

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: place.shape for name, place in self._places.items()}

    def types(self) -> set[str]:
        """The number formats in the file, such as {"BF16"}."""
        return {place.dtype for place in self._places.values()}

    def read(self, name: str) -> Tensor:
        """One tensor of type F32, F16 or BF16 in memory of its own.

        Raises CheckpointError for another type, and where the file is no longer the one that was opened.
        """
        place = self._places[name]
        if place.dtype not in READ:
            raise CheckpointError(
                f"{self.path}: {name} is stored as {place.dtype}, read are {', '.join(READ)}",
                "save it in one of these types",
            )
        tensor = torch.empty(place.shape, dtype=READ[place.dtype])
        room = tensor.view(-1).view(torch.uint8).numpy().data
        try:
            with self.path.open("rb") as file:
                file.seek(place.begin)
                got, stamp = file.readinto(room), _stamp(self.path)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        if got != place.end - place.begin or stamp != self._stamp:
            raise CheckpointError(f"{self.path} was changed while it was read", "open it again")
        return tensor


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _header(path: Path) -> dict[str, _Place]:
    """Every tensor's place, after it was found that they fill the file from end to end and share no byte."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > size - 8:  # {} at least
            raise _damaged(path, f"its header is said to have {length:,} bytes, the file has {size:,}")
        if length > LIMIT:
            raise _damaged(path, f"its header has {length:,} bytes, more than {LIMIT:,}")
        text = file.read(length)
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (RecursionError, ValueError) as error:  # not UTF-8, not JSON, a name twice
        raise _damaged(path, f"its header is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise _damaged(path, "its header is no JSON object")
    content.pop("__metadata__", None)
    places = {name: _place(path, name, entry, start=8 + length) for name, entry in content.items()}
    at = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != at:
            raise _damaged(path, f"{name[:100]} begins at byte {place.begin:,}, where {at:,} is next: overlap or gap")
        at = place.end
    if at != size:
        raise _damaged(path, f"its tensors end at byte {at:,}, the file has {size:,}")
    return places


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands there twice")
    return content


def _place(path: Path, name: str, entry: Any, *, start: int) -> _Place:
    """One entry of a header: known type, whole numbers, as many bytes as the shape needs."""
    if not isinstance(entry, dict):
        raise _damaged(path, f"{name[:100]} is not described")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _damaged(path, f"{name[:100]} has the unknown type {str(dtype)[:100]}")
    if not _counts(shape) or len(shape) > 8:
        raise _damaged(path, f"{name[:100]} has the shape {str(shape)[:100]}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(path, f"{name[:100]} has the data_offsets {str(offsets)[:100]}")
    needed, given = math.prod(shape) * BITS[dtype] // 8, offsets[1] - offsets[0]
    if needed != given:
        raise _damaged(path, f"{name[:100]} of shape {shape} needs {needed:,} bytes, data_offsets give {given:,}")
    return _Place(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _counts(value: Any) -> TypeGuard[list[int]]:
    """True for a list of whole numbers that 64 bits can hold, none negative; True is a number to Python, not here."""
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is truncated or no safetensors file: {why}", FIX)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: {error.strerror or error}", "check the file and its permissions")
