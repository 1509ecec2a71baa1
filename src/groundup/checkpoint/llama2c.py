"""A model file of llama2.c -> a `Source`. The format is its first one ("version 0"), the one that its run.c reads.

In: seven int32 (width, feed-forward width, layers, heads, key/value heads, vocabulary, context; a vocabulary below zero
says that the head is a matrix of its own), then fp32 arrays, each kind for all layers in a row; and a tokenizer file
beside it (tok512.bin, tokenizer.bin). Out: `Source`. Little-endian throughout.

Source: github.com/karpathy/llama2.c, run.c (memory_map_weights) and export.py (legacy_export).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from groundup import tokens
from groundup.checkpoint.names import halves
from groundup.checkpoint.source import Source
from groundup.errors import CheckpointError, ModelError
from groundup.model.config import ModelConfig
from groundup.tokens import adopted, sentencepiece
from groundup.tokens.tokenizer import Tokenizer

HEADER = struct.Struct("<7i")
FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
LATER = 0x616B3432  # "ak42": versions 1 and 2 begin with this number
MOST_LAYERS = 1024  # eight times the deepest model there is: bounds the list of names that a header can ask for
UNK, BOS, EOS = 0, 1, 2  # the ids that llama2.c takes for granted


def open_source(path: Path, tokenizer: Path | None = None) -> Source:
    """Open a llama2.c file; by default with the tokenizer beside it: tok512.bin for 512 ids, else tokenizer.bin.

    Raises CheckpointError for a header that is none or does not fit the file's size, and where no tokenizer is found;
    TokenizerError for one that cannot be read.

    >>> open_source(Path("stories260K.bin")).config.layers  # doctest: +SKIP
    5
    """
    config = read_config(path)
    file = tokenizer or _beside(path, config.vocabulary)
    found = read_tokenizer(file, config.vocabulary)
    if found.vocabulary > config.vocabulary:
        raise CheckpointError(
            f"{file} has {found.vocabulary:,} ids, {path} only {config.vocabulary:,}",
            "give the tokenizer that the model was trained with: --tokenizer FILE",
        )
    card = {"imported from": path.name, "format": "llama2.c", "tokenizer from": file.name}
    return Source("llama2.c", path, config, found, Arrays(path, config), card)


def read_config(path: Path) -> ModelConfig:
    """The network that a file's header describes, once the file has exactly the size that follows from it.

    Rotary base 10,000 and norm epsilon 1e-5 stand in run.c itself. Nothing is allocated by what a header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        raise _foreign(path, f"{size} bytes are less than its header of {HEADER.size}")
    if struct.unpack("<I", start[:4])[0] == LATER:
        raise CheckpointError(
            f"{path} is a llama2.c file of version {struct.unpack('<i', start[4:8])[0]}, only version 0 is read",
            "write it anew with llama2.c's export.py --version 0",
        )
    values = dict(zip(FIELDS, HEADER.unpack(start), strict=True))
    tied = values["vocab_size"] > 0
    values["vocab_size"] = abs(values["vocab_size"])
    _check(path, values)
    try:
        config = ModelConfig(
            family="llama", vocabulary=values["vocab_size"], context=values["seq_len"], width=values["dim"],
            layers=values["n_layers"], heads=values["n_heads"], kv_heads=values["n_kv_heads"],
            hidden=values["hidden_dim"], tie=tied,
        )  # fmt: skip
    except ModelError as error:
        raise _foreign(path, error.what) from None
    expected = HEADER.size + 4 * sum(_count(shape) * times for _, shape, times in _layout(config))
    if size != expected:
        raise _foreign(path, f"its header {values} makes {expected:,} bytes, the file has {size:,}")
    return config


def _check(path: Path, values: dict[str, int]) -> None:
    """Refuse what no network can be, before anything is worked out from it."""
    for name, value in values.items():
        if value < 1:
            raise _foreign(path, f"its header says {name} {value}")
    for small, large in (("n_heads", "dim"), ("n_kv_heads", "n_heads")):
        if values[large] % values[small]:
            raise _foreign(path, f"its header says {large} {values[large]}, not divisible by {small} {values[small]}")
    if values["n_layers"] > MOST_LAYERS:
        raise _foreign(path, f"its header says n_layers {values['n_layers']:,}, more than {MOST_LAYERS:,}")


def _foreign(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is no llama2.c model: {why}",
        "give a whole file such as stories260K.bin (version 0, fp32); a tokenizer goes with --tokenizer",
    )


class Kind(NamedTuple):
    """One array of the file: its name at Hugging Face ({} is the layer, "" is skipped), the shape of one, how many."""

    name: str
    shape: tuple[int, ...]
    times: int


def _layout(config: ModelConfig) -> Iterator[Kind]:
    """The arrays in the order of the file."""
    width, hidden, layers = config.width, config.hidden, config.layers
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    yield Kind("model.embed_tokens.weight", (config.vocabulary, width), 1)
    for name, shape in (
        ("input_layernorm", (width,)),
        ("self_attn.q_proj", (queries, width)),
        ("self_attn.k_proj", (keys, width)),
        ("self_attn.v_proj", (keys, width)),
        ("self_attn.o_proj", (width, queries)),
        ("post_attention_layernorm", (width,)),
        ("mlp.gate_proj", (hidden, width)),  # w1
        ("mlp.down_proj", (width, hidden)),  # w2
        ("mlp.up_proj", (hidden, width)),  # w3
    ):
        yield Kind(f"model.layers.{{}}.{name}.weight", shape, layers)
    yield Kind("model.norm.weight", (width,), 1)
    yield Kind("", (config.context, config.head_size), 1)  # cosines and sines, which run.c works out anew, too
    if not config.tie:
        yield Kind("lm_head.weight", (config.vocabulary, width), 1)


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


class Arrays:
    """The tensors of one file, read one at a time."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self._path, self._config = path, config
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._starts: dict[str, int] = {}
        start = HEADER.size
        for kind in _layout(config):
            for layer in range(kind.times):
                if kind.name:
                    name = kind.name.format(layer)
                    self._shapes[name], self._starts[name] = kind.shape, start
                start += 4 * _count(kind.shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by its Hugging Face name."""
        return dict(self._shapes)

    def read(self, name: str) -> Tensor:
        """One tensor, fp32; query and key with the rows of each head in the order that Hugging Face has."""
        shape = self._shapes[name]
        array = np.fromfile(self._path, dtype="<f4", count=_count(shape), offset=self._starts[name])
        if array.size != _count(shape):
            raise CheckpointError(f"{self._path} became shorter while it was read", "restore it from a copy")
        tensor = torch.from_numpy(array.reshape(shape))
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            return halves(tensor, shape[0] // self._config.head_size)
        return tensor


def read_tokenizer(file: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a llama2.c model: its own .bin form, or any form that groundup opens (tokenizer.model ...).

    A text begins with <s>, and a space is put before it, as run.c does. Raises TokenizerError.
    """
    if file.suffix.lower() != ".bin":
        return tokens.load(file)
    pieces, scores = sentencepiece.read_llama2c(file, vocabulary)
    document, config = adopted.sentencepiece_json(
        pieces,
        scores,
        [sentencepiece.kind_of(id) for id in range(len(pieces))],
        prefix_space=True,
        bos=BOS,
        eos=EOS,
        unk=UNK,
        adds_bos=True,
    )
    return adopted.from_document(document, config=config, source=str(file))


def _beside(path: Path, vocabulary: int) -> Path:
    """The tokenizer in the folder of a model: named for its vocabulary, or tokenizer.bin, or the only tok*.bin."""
    named = [path.with_name(f"tok{vocabulary}.bin"), path.with_name("tokenizer.bin")]
    others = sorted(file for file in path.parent.glob("tok*.bin") if file.is_file())
    found = [file for file in named if file.is_file()] or (others if len(others) == 1 else [])
    if found:
        return found[0]
    seen = f" but several others: {', '.join(file.name for file in others[:6])}" if others else ""
    raise CheckpointError(
        f"beside {path} lies no {named[0].name} and no tokenizer.bin{seen}",
        "give the tokenizer: groundup import FILE.bin --tokenizer TOKENIZER.bin --out DIR",
    )
