"""A GGUF file as a `Source`. Path in; config, tokenizer and tensors out, each read and dequantised when it is wanted.

Only numbers and text are taken from the file. Our own reader (header.py) has checked every size in it before a tensor
is read; of the `gguf` library only the arithmetic of the quantised formats is used.
"""

import functools
import importlib.util
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.checkpoint.fields import printable
from groundup.checkpoint.gguf import keys, vocabulary
from groundup.checkpoint.gguf.header import KINDS, Stored, read_header
from groundup.checkpoint.names import TRANSPOSED
from groundup.checkpoint.source import Source
from groundup.errors import CheckpointError
from groundup.model.config import ModelConfig

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
AT_ONCE = 2**22  # numbers that are dequantised together, 16 MB


def open_source(path: Path) -> Source:
    """Open a GGUF file: gpt2, llama (Mistral, too), qwen2 or qwen3, in one file, of the types in header.KINDS.

    Raises CheckpointError naming key and value, or tensor, for whatever is damaged or not computed here; TokenizerError
    for a vocabulary that cannot be.

    >>> source = open_source(Path("SmolLM2-135M-Instruct.Q4_1.gguf"))  # doctest: +SKIP
    >>> source.config.family, source.config.layers, source.weights.shapes()["model.norm.weight"]  # doctest: +SKIP
    ('llama', 30, (576,))
    """
    header = read_header(path, functools.partial(_known, path))
    metadata = header.metadata
    if metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{path}: split.count is {reprlib.repr(metadata['split.count'])}: it is one part of several",
            "join them with llama.cpp: llama-gguf-split --merge FIRST-PART WHOLE.gguf",
        )
    try:
        config = keys.read_config(metadata, _shapes(header.tensors), _divisors(path, header.tensors))
        weights = _weights(path, header.tensors, config, metadata["general.architecture"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.what}", error.fix) from None
    tokenizer = vocabulary.tokenizer_of(metadata, str(path))
    return Source("gguf", path, config, tokenizer, weights, _card(path, metadata, header.tensors))


def _known(path: Path, key: str, value: Any) -> None:
    """Name an architecture that is not supported before its vocabulary is read, which may be too large here."""
    if key == "general.architecture":
        try:
            keys.checked_architecture(value)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.what}", error.fix) from None


@dataclass(frozen=True)
class GgufWeights:
    """The tensors of a GGUF file by their Hugging Face names, in the Hugging Face layout; read one at a time."""

    path: Path
    tensors: Mapping[str, Stored]  # by Hugging Face name
    config: ModelConfig
    architecture: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor; GPT-2's matrices stand there as (in, out)."""
        return {
            name: stored.shape[::-1] if name.endswith(TRANSPOSED) else stored.shape
            for name, stored in self.tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """One tensor: F32, F16 and BF16 as stored, all else dequantised to fp32.

        Raises CheckpointError when the file has become shorter since it was opened.
        """
        return keys.from_gguf(name, _read(self.path, self.tensors[name]), self.config, self.architecture).contiguous()


def _shapes(tensors: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {name: stored.shape for name, stored in tensors.items()}


def _divisors(path: Path, tensors: Mapping[str, Stored]) -> list[float]:
    """What stretched positions are divided by, where the file has it."""
    stored = tensors.get(keys.ROPE_DIVISORS)
    if stored is None:
        return []
    if stored.kind.name not in PLAIN or len(stored.shape) != 1 or stored.shape[0] > 2**16:
        raise CheckpointError(
            f"{keys.ROPE_DIVISORS} is {stored.kind.name} of shape {stored.shape}", "it must be one short row of F32"
        )
    return [float(number) for number in _read(path, stored)]


def _weights(path: Path, tensors: Mapping[str, Stored], config: ModelConfig, architecture: str) -> GgufWeights:
    """The tensors under their Hugging Face names; one that has no such name is refused."""
    quantised = sorted({stored.kind.name for stored in tensors.values()} - PLAIN.keys())
    if quantised and importlib.util.find_spec("gguf") is None:
        raise CheckpointError(
            f"reading GGUF in {', '.join(quantised)} needs the gguf library", "pip install 'groundup[gguf]'"
        )
    for kind in quantised:
        if not _dequantises(kind):
            raise CheckpointError(
                f"the gguf library that is installed does not read {kind}", "pip install --upgrade gguf"
            )
    named = {keys.hf_name(name, architecture): stored for name, stored in tensors.items() if name != keys.ROPE_DIVISORS}
    return GgufWeights(path, named, config, architecture)


def _dequantises(name: str) -> bool:
    """Whether the library knows a format: tried on one block of zeros, as older versions know fewer."""
    from gguf import GGMLQuantizationType, dequantize

    block = next(np.zeros((1, kind.bytes), dtype=np.uint8) for kind in KINDS.values() if kind.name == name)
    try:
        dequantize(block, GGMLQuantizationType[name])
    except (KeyError, RuntimeError):  # no such name; no arithmetic for it
        return False
    return True


def _read(path: Path, stored: Stored) -> Tensor:
    """A tensor as it lies in the file, in memory of its own."""
    if stored.kind.name in PLAIN:
        numbers = torch.from_numpy(_bytes(path, stored.offset, stored.size))
        return numbers.view(PLAIN[stored.kind.name]).reshape(stored.shape)
    from gguf import GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType[stored.kind.name]
    result = torch.empty(math.prod(stored.shape))
    blocks, at_once = result.numel() // stored.kind.block, AT_ONCE // stored.kind.block
    for first in range(0, blocks, at_once):
        count = min(at_once, blocks - first)
        raw = _bytes(path, stored.offset + first * stored.kind.bytes, count * stored.kind.bytes)
        with np.errstate(all="ignore"):  # a damaged scale may be infinite: that is seen in the model, not here
            part = dequantize(raw.reshape(-1, stored.kind.bytes * _together(count)), kind)
        start = first * stored.kind.block
        result[start : start + part.size] = torch.from_numpy(part.reshape(-1))
    return result.reshape(stored.shape)


def _together(blocks: int) -> int:
    """Blocks that make a row for the library: it works through 16 rows at a time, in Python, so few long rows."""
    return math.gcd(blocks, 1024)


def _bytes(path: Path, offset: int, size: int) -> np.ndarray:
    """Bytes of the file as a uint8 array."""
    found = np.fromfile(path, dtype=np.uint8, count=size, offset=offset)
    if found.size < size:
        raise CheckpointError(
            f"{path} became shorter while it was read", "leave the file alone, and repeat the command"
        )
    return found


def _card(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """Facts worth keeping, those of the file as short text."""
    kinds = sorted({stored.kind.name for stored in tensors.values()})
    card = {"imported from": path.name, "format": "GGUF", "stored as": ", ".join(kinds)}
    for key, fact in (("general.name", "name"), ("general.license", "licence")):
        if isinstance(value := metadata.get(key), str):
            card[fact] = printable(value)
    return card
