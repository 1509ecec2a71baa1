"""A model as one GGUF file, as llama.cpp, Ollama and others open it. In: network, tokenizer, card. Out: the file.

The `gguf` library of llama.cpp writes it; here is decided what stands in it, and no more than one tensor is held at a
time beside the model. Matrices take the number format asked for. As in llama.cpp's own converters the positions of
GPT-2, norms and biases stay fp32, and rows whose length is no multiple of 32 cannot be quantised and become fp16. With
q4_0 the token table and the head are q8_0: they decide every token, and four bits cost most there (llama-quantize gives
the head more bits, too, in a format that the library cannot write).

Source: the GGUF specification (ggml, docs/gguf.md).
"""

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from groundup import model as models
from groundup.checkpoint import atomic, finite, names, space
from groundup.checkpoint.gguf import keys, stretched, vocabulary
from groundup.errors import CheckpointError, nearest
from groundup.model.config import ModelConfig
from groundup.tokens.tokenizer import Tokenizer

# number format -> what ggml calls it, and the number of the file type (llama.h, enum llama_ftype)
FORMATS = {"f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7), "q4_0": ("Q4_0", 2)}
BLOCK = 32  # weights that share a scale in q8_0 and q4_0
LARGEST = 65_504.0  # the largest number of fp16
BYTES = {"F32": 4.0, "F16": 2.0, "BF16": 2.0, "Q8_0": 34 / BLOCK, "Q4_0": 18 / BLOCK}  # a weight; a scale has two bytes


class Part(NamedTuple):
    """One tensor of the file: its name and shape there, ggml's name for its numbers, and how to come by it."""

    name: str
    shape: tuple[int, ...]
    kind: str
    take: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """What its numbers take in the file."""
        return round(torch.Size(self.shape).numel() * BYTES[self.kind])


def write(path: Path, model: nn.Module, tokenizer: Tokenizer, *, dtype: str, card: Mapping[str, Any]) -> list[str]:
    """Write a GGUF file, whole or not at all; returns what the person should know, a sentence each.

    `dtype`: f32, f16, bf16, q8_0 or q4_0. `card`: "name", "license" and where the model came from go into the file.
    Raises CheckpointError for a network or tokenizer that llama.cpp would misread, for numbers that are not finite or
    too large for the format, and without the gguf library; NoRoom when the disk is full.

    >>> write(Path("gpt.gguf"), model, tokenizer, dtype="q8_0", card={"license": "mit"})  # doctest: +SKIP
    []
    """
    if dtype not in FORMATS:
        raise CheckpointError(f"GGUF has no number format {dtype!r}", nearest(dtype, FORMATS))
    library()
    config = models.config_of(model)
    keys.check_writable(config)
    assert isinstance(config, ModelConfig)  # the other kind was refused
    if tokenizer.vocabulary > config.vocabulary:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocabulary:,} ids, the model only {config.vocabulary:,}",
            "use the tokenizer that the model was trained with",
        )
    parts = list(_parts(config, model.state_dict(), FORMATS[dtype][0]))
    facts = keys.metadata_of(config, name=_name(path, card))
    facts |= vocabulary.metadata_of(tokenizer, vocabulary=config.vocabulary)
    facts |= _general(card, dtype)
    aside = path.with_name(f".{path.name}.writing")
    needed = sum(part.bytes for part in parts) + 64 * len(parts) + _size(facts)
    space.check(path, needed)
    try:
        with space.writing(path, needed):
            _write(aside, parts, facts)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, path)
    atomic.sync(path.parent)
    return vocabulary.remarks(tokenizer) + _remarks(parts, dtype)


def library() -> Any:
    """The gguf library; raises CheckpointError when it is not installed."""
    try:
        import gguf
    except ImportError:
        raise CheckpointError("writing GGUF needs the gguf library", "pip install 'groundup[gguf]'") from None
    return gguf


def _parts(config: ModelConfig, state: Mapping[str, Tensor], kind: str) -> Iterator[Part]:
    """The tensors in the order of the network, none of them converted yet."""
    rows = [config.heads * config.head_size, *[config.kv_heads * config.head_size] * 2]
    for pair in names.pairs(config):
        pieces = [state[pair.ours]] if len(pair.theirs) == 1 else state[pair.ours].split(rows)
        for theirs, tensor in zip(pair.theirs, pieces, strict=True):
            name, shape = keys.gguf_name(theirs), tuple(tensor.shape)
            # GPT-2's matrices are (out, in) here and in GGUF, and only in between the other way round
            take = _plain(tensor) if pair.transposed else _plain(tensor, theirs, config)
            yield Part(name, shape, _kind(name, shape, kind), take)
    divisors = stretched.rope_divisors(config)
    if divisors is not None:
        yield Part(stretched.ROPE_DIVISORS, tuple(divisors.shape), "F32", _plain(divisors))
    if config.family == "gpt2" and not config.qkv_bias:  # llama.cpp's GPT-2 always has these
        for layer in range(config.layers):
            name = keys.gguf_name(f"transformer.h.{layer}.attn.c_attn.bias")
            yield Part(name, (sum(rows),), "F32", _plain(torch.zeros(sum(rows))))


def _plain(tensor: Tensor, theirs: str = "", config: ModelConfig | None = None) -> Callable[[], Tensor]:
    """What gives a tensor as fp32 on the CPU, with `theirs` and `config` in the layout of GGUF; nothing before."""

    def take() -> Tensor:
        plain = tensor.detach().to("cpu", torch.float32)
        return (plain if config is None else keys.to_gguf(theirs, plain, config)).contiguous()

    return take


def _kind(name: str, shape: tuple[int, ...], kind: str) -> str:
    if len(shape) == 1 or name == "position_embd.weight":
        return "F32"
    if kind == "Q4_0" and name in ("token_embd.weight", "output.weight"):
        kind = "Q8_0"
    return "F16" if kind.startswith("Q") and shape[-1] % BLOCK else kind


def _write(path: Path, parts: list[Part], facts: Mapping[str, Any]) -> None:
    """Header, keys, list of tensors, then the tensors one by one, and all of it onto the disk."""
    gguf = library()
    writer = gguf.GGUFWriter(path, facts["general.architecture"])
    with contextlib.closing(writer):
        for key, value in facts.items():
            if key != "general.architecture":  # the writer has put it first itself
                _add(writer, key, value)
        for part in parts:
            kind = gguf.GGMLQuantizationType[part.kind]
            writer.add_tensor_info(part.name, part.shape, np.dtype("float16"), part.bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for part in parts:
            _put(writer, part)
        writer.flush()
    atomic.sync(path)


def _put(writer: Any, part: Part) -> None:
    """Convert one tensor and append it; nothing of it stays."""
    gguf = library()
    numbers = gguf.quantize(_checked(part).numpy(), gguf.GGMLQuantizationType[part.kind])
    try:
        writer.write_tensor_data(numbers)
    except OSError as error:
        if error.errno is None:  # numpy tells how much it could write, not why no more
            space.check(writer.path, part.bytes)
        raise


def _checked(part: Part) -> Tensor:
    """The numbers of a tensor, if its format can hold them."""
    limit = {"F16": LARGEST, "Q8_0": 127 * LARGEST, "Q4_0": 8 * LARGEST}.get(part.kind, math.inf)
    return finite.checked(part.take(), part.name, kind=part.kind.lower(), limit=limit, wider="take --dtype bf16 or f32")


def _add(writer: Any, key: str, value: Any) -> None:
    """One key with the type that llama.cpp reads it by."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def _name(path: Path, card: Mapping[str, Any]) -> str:
    """The model's name, less what llama.cpp reads in one: at "phi-3" it looks for tokens, and stops without them."""
    return re.sub(r"phi-?3", "phi", str(card.get("name") or path.stem), flags=re.IGNORECASE)


def _general(card: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The facts of the card that GGUF has keys for, and what the numbers are."""
    facts: dict[str, Any] = {"general.type": "model", "general.file_type": FORMATS[dtype][1]}
    if dtype.startswith("q"):
        facts["general.quantization_version"] = library().GGML_QUANT_VERSION
    licence, origin = card.get("license") or card.get("licence"), card.get("imported from")
    if isinstance(licence, str):
        facts["general.license"] = licence
    if isinstance(origin, str):
        facts["general.source.url" if "://" in origin else "general.description"] = origin
    return facts


def _size(facts: Mapping[str, Any]) -> int:
    """About how many bytes the keys take: length and characters of each text, twelve around a number."""
    texts = [text for value in facts.values() for text in (value if isinstance(value, list) else [value])]
    return sum(12 + (len(text.encode()) if isinstance(text, str) else 0) for text in texts) + 64 * len(facts)


def _remarks(parts: list[Part], dtype: str) -> list[str]:
    """One sentence on matrices that could not be quantised."""
    plain = [part.name for part in parts if part.kind == "F16"] if dtype.startswith("q") else []
    if not plain:
        return []
    more = f" and {len(plain) - 1} more" if plain[1:] else ""
    return [f"{plain[0]}{more} stayed f16: {dtype} needs rows of a multiple of {BLOCK}"]
