"""Where adapters lie in a file of peft's layout, and writing one.

In: a network with adapters (model/lora.py). Out: tensors under peft's names, adapter_config.json, and the files of ours
beside them: lora.json, and score.safetensors where a frozen score has an adapter (see adapters.py, which reads them).
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from groundup import model as models
from groundup.checkpoint import adapter_config, names, space
from groundup.checkpoint.huggingface import ADAPTER
from groundup.errors import CheckpointError
from groundup.model import lora
from groundup.model.adapted import Adapted, Part
from groundup.model.heads import Classifier, HeadConfig

WEIGHTS, RECORD, SCORE = "adapter_model.safetensors", "lora.json", "score.safetensors"
OURS = "groundup"  # what of `export` is not for peft: a field of the config, the first word of a tensor's name
PREFIX = "base_model.model."  # peft's, before the names of Hugging Face
FORMAT = 1  # of lora.json


class Place(NamedTuple):
    """A matrix as peft knows it, and where it is here: rows `begin` .. `end` - 1 of a layer."""

    theirs: str  # "model.layers.0.self_attn.q_proj"
    module: str  # "blocks.0.attention.qkv", in a classifier "trunk.blocks.0.attention.qkv"
    begin: int
    end: int
    inputs: int

    @property
    def keys(self) -> tuple[str, str]:
        """The names of A and B in the file."""
        return f"{PREFIX}{self.theirs}.lora_A.weight", f"{PREFIX}{self.theirs}.lora_B.weight"

    def own(self, parts: Sequence[Part]) -> list[Part]:
        """Those parts of the layer that change rows of this matrix."""
        return [part for part in parts if self.begin <= part.begin and part.end <= self.end]


def places(model: nn.Module) -> Iterator[Place]:
    """Every matrix of the blocks, and an untied head, under the name that peft has for it.

    >>> from groundup.model.config import from_name
    >>> with torch.device("meta"):
    ...     found = list(places(models.build(from_name("gpt2"))))
    >>> found[0]
    Place(theirs='transformer.h.0.attn.c_attn', module='blocks.0.attention.qkv', begin=0, end=2304, inputs=768)
    """
    inner = "trunk." if isinstance(model, Classifier) else ""
    spans = lora.spans(model)
    for pair in names.pairs(models.config_of(model)):
        module = inner + pair.ours.removesuffix(".weight")
        if module not in spans or not pair.ours.endswith(".weight"):
            continue
        rows = list(spans[module].values())
        rows = rows if len(pair.theirs) == len(rows) else [(0, pair.shape[0])]
        for theirs, (begin, end) in zip(pair.theirs, rows, strict=True):
            yield Place(theirs.removesuffix(".weight"), module, begin, end, pair.shape[1])


def table_keys(model: nn.Module) -> dict[str, str]:
    """The tables that can be trained whole, and their names in the file; a tied head is no table of its own."""
    wanted = {f"{name}.weight": name for name in lora.TABLES}
    config = models.config_of(model)
    return {wanted[pair.ours]: PREFIX + pair.theirs[0] for pair in names.pairs(config) if pair.ours in wanted}


def trunk_of(model: nn.Module) -> nn.Module:
    """The network below a classifier's score; any other network itself."""
    return model.trunk if isinstance(model, Classifier) else model


def export(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the adapter_config.json of a network's adapters, on the CPU, for `write`.

    Tensors and fields of ours are marked with `OURS`. Raises CheckpointError for a network without adapters.
    """
    found, layers = lora.attached(model), lora.adapted(model)
    if found is None:
        raise CheckpointError("the network has no adapters to write", "write it as a model")
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, tuple[int, float]] = {}
    every = list(places(model))
    for place in every:
        if parts := place.own(layers[place.module].parts if place.module in layers else ()):
            rank = sum(part.rank for part in parts)
            tensors |= zip(place.keys, _block(layers[place.module], parts, place), strict=True)
            sizes[place.theirs] = (rank, parts[0].scale * rank)
    for name, key in table_keys(model).items():
        if name in found.also:
            tensors[key] = _plain(trunk_of(model).get_parameter(f"{name}.weight"))
    task, saved, head = "CAUSAL_LM", [], None
    if isinstance(model, Classifier):
        task, saved, head = "SEQ_CLS", ["classifier", "score"], model.head_config  # as peft writes them
        tensors |= _score(model)
    config = adapter_config.document(sizes, [place.theirs for place in every], found.config, task=task, saved=saved)
    return tensors, config | {OURS: _record(found, head)}


def write(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write what `export` gave into an existing folder; raises NoRoom naming the file that the disk has no room for."""
    beside = f"{OURS}.score."
    score = {name.removeprefix(beside): tensor for name, tensor in tensors.items() if name.startswith(beside)}
    _write_json(folder / ADAPTER, {name: value for name, value in config.items() if name != OURS})
    _write_json(folder / RECORD, config[OURS])
    _write_tensors(folder / WEIGHTS, {name: value for name, value in tensors.items() if not name.startswith(beside)})
    if score:
        _write_tensors(folder / SCORE, score)


def _block(layer: Adapted, parts: Sequence[Part], place: Place) -> tuple[Tensor, Tensor]:
    """A (R, I) and B (rows, R) of one matrix there, of all parts that lie in it."""
    downs = torch.cat([_plain(layer.A[part.name]) for part in parts])
    ups, at = downs.new_zeros(place.end - place.begin, len(downs)), 0
    for part in parts:
        ups[part.begin - place.begin : part.end - place.begin, at : at + part.rank] = _plain(layer.B[part.name])
        at += part.rank
    return downs, ups


def _score(model: Classifier) -> dict[str, Tensor]:
    """The score as it judges; where it is frozen also what it was drawn as, and its adapter, for ourselves."""
    score: nn.Module = model.score
    own = {f"{OURS}.score.{name}": _plain(value) for name, value in score.named_parameters()}
    own = own if isinstance(score, Adapted) else {}
    bias = {} if model.score.bias is None else {f"{PREFIX}score.bias": _plain(model.score.bias)}
    return own | {f"{PREFIX}score.weight": _plain(model.score.weight)} | bias


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _record(found: lora.Attached, head: HeadConfig | None) -> dict[str, Any]:
    """The content of lora.json."""
    config = found.config
    told = None if head is None else dataclasses.asdict(head) | {"labels": list(head.labels)}
    return {"format": FORMAT, "targets": list(config.targets), "base_sha256": config.base_sha256, "head": told}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with space.writing(path, len(text)):
        path.write_text(text, encoding="utf-8", newline="\n")


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with space.writing(path, space.of(tensors.values())):
        path.touch()
        usual = path.stat().st_mode  # of a file made by this person here; the library makes one for nobody else
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(usual)
