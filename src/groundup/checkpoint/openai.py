"""GPT-2 as OpenAI published it: a TensorFlow checkpoint, five settings and a vocabulary, opened without TensorFlow.

In: a folder with checkpoint, hparams.json, encoder.json, vocab.bpe and the files that `checkpoint` names
(model.ckpt.index, model.ckpt.data-*; model.ckpt.meta, their graph, is not needed). Out: a Source with Hugging Face
names. Paths and shapes: github.com/openai/gpt-2, src/model.py; what was fine-tuned with that program opens as well.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup import tokens
from groundup.checkpoint.bundle import Bundle
from groundup.checkpoint.source import Source
from groundup.errors import CheckpointError, ModelError, TokenizerError
from groundup.model.config import ModelConfig
from groundup.text.guard import inside, is_name
from groundup.tokens import files, formats
from groundup.tokens.kinds import build
from groundup.tokens.tokenizer import Tokenizer

FILES = ("checkpoint", "hparams.json", "encoder.json", "vocab.bpe")
SETTINGS = {"n_vocab": "vocabulary", "n_ctx": "context", "n_embd": "width", "n_head": "heads", "n_layer": "layers"}
ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/models/"  # then 124M, 355M, 774M or 1558M
# Bytes; the vocabulary of GPT-2 has half as many. JSON of nothing but lists takes thirty times its size in memory.
LARGEST = {"checkpoint": 1 << 16, "hparams.json": 1 << 16, "encoder.json": 1 << 21, "vocab.bpe": 1 << 21}
MOST = 10**9  # in every setting
END = "<|endoftext|>"
SAME = "use the hparams.json and the checkpoint of the same model"

Shape = tuple[int, ...]


def open_source(path: Path) -> Source:
    """The model in a folder with OpenAI's files; nothing but the index is read of the weights.

    Raises CheckpointError for files that are missing, damaged or contradict each other, TokenizerError for a vocabulary
    that is none.

    >>> source = open_source(Path("gpt2-124M"))  # doctest: +SKIP
    >>> source.config.layers, source.weights.shapes()["transformer.wte.weight"]  # doctest: +SKIP
    (12, (50257, 768))
    """
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path} lacks {', '.join(missing)}", f"give all files of the model, as they are at {ADDRESS}"
        )
    config = _settings(path)
    weights = Arrays(Bundle.open(path / _pointed(path)), config)
    card = {"imported from": path.resolve().name, "format": "TensorFlow checkpoint of OpenAI's GPT-2"}
    if weights.wide:
        card["stored as"] = "float64"
    return Source("openai", path, config, _tokenizer(path), weights, card)


class Arrays:
    """The arrays of a GPT-2 checkpoint under Hugging Face names; matrices stay as they are, (in, out).

    `wide`: some are stored as float64; networks here have no such numbers, those are read as fp32. Raises
    CheckpointError for a checkpoint that lacks one, has others, or has one of another shape or type.
    """

    def __init__(self, bundle: Bundle, config: ModelConfig) -> None:
        self._bundle = bundle
        self._paths: dict[str, tuple[str, Shape]] = {}
        given = {path for path in bundle.entries if path.startswith("model/")}  # besides it: counters of the training
        if len(given) != 4 + 12 * config.layers:  # before a table of as many layers as hparams.json likes is made
            raise CheckpointError(
                f"the checkpoint has {len(given)} arrays, hparams.json asks for {4 + 12 * config.layers:,}",
                f"{SAME}, with nothing but its weights",
            )
        for path, shape in layout(config).items():
            self._check(path, shape)
            self._paths[hugging_face(path)] = path, shape
        self.wide = any(bundle.entries[path].dtype == torch.float64 for path in given)

    def _check(self, path: str, shape: Shape) -> None:
        entry = self._bundle.entries.get(path)
        if entry is None:
            raise CheckpointError(f"the checkpoint has no {path}", SAME)
        if entry.shape not in (shape, (1, *shape)):  # matrices have a first dimension of 1, left from a convolution
            raise CheckpointError(f"{path} has shape {entry.shape}, hparams.json makes it {shape}", SAME)
        if entry.dtype is None or not entry.dtype.is_floating_point:
            raise CheckpointError(f"{path} is of TensorFlow's type number {entry.type}", "save it as float32")

    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every array, by Hugging Face name."""
        return {name: shape for name, (_, shape) in self._paths.items()}

    def read(self, name: str) -> Tensor:
        """One array in the type it is stored in, float64 as fp32; raises CheckpointError if its bytes were altered."""
        if name not in self._paths:
            raise CheckpointError(f"the checkpoint has nothing for {name!r}", f"it has {', '.join(self._paths)}"[:200])
        path, shape = self._paths[name]
        array = self._bundle.read(path).reshape(shape)
        return array.float() if array.dtype == torch.float64 else array


def layout(config: ModelConfig) -> dict[str, Shape]:
    """OpenAI's path and shape of every array: w of a linear layer is (in, out), g and b of a norm are (D,).

    >>> tiny = ModelConfig(family="gpt2", vocabulary=9, context=8, width=4, layers=1, heads=2)
    >>> layout(tiny)["model/h0/attn/c_attn/w"], len(layout(tiny))
    ((4, 12), 16)
    """
    width, hidden = config.width, config.hidden
    linear = {
        "attn/c_attn": (width, 3 * width),
        "attn/c_proj": (width, width),
        "mlp/c_fc": (width, hidden),
        "mlp/c_proj": (hidden, width),
    }
    shapes: dict[str, Shape] = {"model/wte": (config.vocabulary, width), "model/wpe": (config.context, width)}
    for layer in range(config.layers):
        for name, shape in linear.items():
            shapes |= {f"model/h{layer}/{name}/w": shape, f"model/h{layer}/{name}/b": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"model/h{layer}/{name}/{kind}": (width,) for kind in "gb"}
    return shapes | {f"model/ln_f/{kind}": (width,) for kind in "gb"}


def hugging_face(path: str) -> str:
    """The Hugging Face name of one of OpenAI's paths.

    >>> hugging_face("model/h10/attn/c_attn/w"), hugging_face("model/wte")
    ('transformer.h.10.attn.c_attn.weight', 'transformer.wte.weight')
    """
    first, *rest = path.removeprefix("model/").split("/")
    words = [f"h.{first[1:]}" if first[1:].isdigit() else first, *rest]
    kind = {"w": "weight", "g": "weight", "b": "bias"}.get(words[-1])
    return ".".join(["transformer", *words[:-1], kind] if kind else ["transformer", *words, "weight"])


# --- the small files -------------------------------------------------------------------------------------------------


def _content(folder: Path, name: str) -> bytes:
    """A small file, whole; refused when it is larger than any such file is."""
    path = inside(folder, name)
    try:
        if path.stat().st_size <= LARGEST[name]:
            return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from None
    raise CheckpointError(
        f"{path} has {path.stat().st_size:,} bytes, more than any {name} has", f"take the one at {ADDRESS}"
    )


def _pointed(folder: Path) -> str:
    """The prefix that `checkpoint` names: text of tensorflow/python/training/checkpoint_state.proto."""
    text = _content(folder, "checkpoint").decode("utf-8", errors="replace")
    found = re.search(r'^model_checkpoint_path:\s*"([^"]*)"', text, re.MULTILINE)
    if not found:
        raise CheckpointError(
            f"{folder / 'checkpoint'} names no checkpoint", 'write model_checkpoint_path: "model.ckpt" into it'
        )
    if not is_name(found[1]):
        raise CheckpointError(
            f"{folder / 'checkpoint'} points to {found[1]!r}, which is no file beside it",
            'put the checkpoint into the folder, and its name, such as "model.ckpt", into this file',
        )
    return found[1]


def _settings(folder: Path) -> ModelConfig:
    """The network that hparams.json describes."""
    place, advice = folder / "hparams.json", "use the hparams.json that came with the checkpoint"
    try:
        given = json.loads(_content(folder, "hparams.json"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of thousands of digits
        raise CheckpointError(f"{place} cannot be read as JSON: {error}", advice) from None
    if not isinstance(given, dict) or given.keys() != SETTINGS.keys():
        seen = ", ".join(map(repr, given)) if isinstance(given, dict) else type(given).__name__
        raise CheckpointError(f"{place} must hold {', '.join(SETTINGS)}, and holds {seen[:200] or 'nothing'}", advice)
    if large := [name for name, value in given.items() if isinstance(value, int) and abs(value) > MOST]:
        raise CheckpointError(f"{place}: {large[0]} is beyond {MOST:,}, and beyond any model", advice)
    values: dict[str, Any] = {ours: given[theirs] for theirs, ours in SETTINGS.items()}
    try:
        return ModelConfig(family="gpt2", **values)
    except ModelError as error:
        raise CheckpointError(f"{place} describes no GPT-2: {error.what}", error.fix) from None


def _tokenizer(folder: Path) -> Tokenizer:
    """GPT-2's own where the two files are OpenAI's to the byte, else what they say."""
    content = {name: _content(folder, name) for name in ("encoder.json", "vocab.bpe")}
    if all(hashlib.sha256(content[name]).hexdigest() == digest for name, digest in formats.GPT2_FILES.items()):
        return tokens.gpt2(folder)
    source = f"{folder}: encoder.json with vocab.bpe"
    try:
        vocab = json.loads(content["encoder.json"])
        merges = files.merges(content["vocab.bpe"].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{source}: cannot be read: {error}", "save or copy the two files again") from None
    if not isinstance(vocab, dict):
        raise TokenizerError(f"{source}: a JSON {type(vocab).__name__} is no vocabulary", "give that of the model")
    special = [{"id": vocab[END], "content": END, "special": True}] if END in vocab else []
    cut = {"type": "ByteLevel"}
    document = {"model": {"vocab": vocab, "merges": merges}, "added_tokens": special}
    return build(formats.parse(document | {"pre_tokenizer": cut, "decoder": cut}, source))
