"""Adapters as a folder that peft opens, and folders of peft's as adapters of ours.

In: a network with adapters (model/lora.py), or a folder and the base that it belongs on. Out: the other. The folder has
peft's two files, adapter_config.json and adapter_model.safetensors, and beside them what peft has no place for:
lora.json (how the adapters were made, names of classes) and, where a frozen score has an adapter, score.safetensors.

Query, key and value are three adapters here. In a llama they are three matrices there, too. In gpt2 there is one
(`c_attn`), whose one adapter of rank 3r holds all three: every A below the other, every B on its own rows and columns,
zeros elsewhere. An adapter that peft itself made for `c_attn` mixes the three; it is kept as one, over all rows.

Tables and the score of a classifier that were trained whole stand under their plain names, where peft puts what
`modules_to_save` or `save_embedding_layers` names. A score is saved merged, since peft gives none an adapter.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup import model as models
from groundup.checkpoint import adapter_config, finite
from groundup.checkpoint.adapter_config import MERGE, Described
from groundup.checkpoint.adapter_layout import (
    FORMAT,
    PREFIX,
    RECORD,
    SCORE,
    WEIGHTS,
    Place,
    export,
    places,
    table_keys,
    trunk_of,
    write,
)
from groundup.checkpoint.atomic import read_json
from groundup.checkpoint.fields import printable
from groundup.checkpoint.huggingface import ADAPTER, SafeFile, StoredWeights
from groundup.checkpoint.pickled import PickledFile
from groundup.errors import CheckpointError, ModelError
from groundup.model import lora, surgery
from groundup.model.adapted import Adapted, Part
from groundup.model.gpt import GPT
from groundup.model.heads import POOLINGS, REWARD, Classifier, HeadConfig
from groundup.model.lora import LoraConfig
from groundup.text.guard import inside, optional

__all__ = ["apply", "base_of", "config_in", "export", "is_adapter", "numbers_in", "restore", "write"]  # two handed on

PICKLED = "adapter_model.bin"
FIX = "use the adapter with the base it was trained on"


@dataclass(frozen=True)
class Stored:
    """A folder of adapters, opened and not yet read; `record` is lora.json, or None where another program made it."""

    folder: Path
    described: Described
    weights: StoredWeights
    record: dict[str, Any] | None
    score: StoredWeights | None  # the frozen score and its adapter


def is_adapter(folder: Path) -> bool:
    """True for a folder that holds adapters."""
    return (folder / ADAPTER).is_file()


def base_of(folder: Path) -> str:
    """The path or name of the model that a folder's adapters belong on, as it stands there; `opening` opens it.

    Raises CheckpointError where it names none.
    """
    if base := adapter_config.read(folder).base:
        return base
    raise CheckpointError(
        f"{folder / ADAPTER} does not name the model it belongs on", "write it there as base_model_name_or_path"
    )


def config_in(folder: Path) -> LoraConfig:
    """The settings of a folder's adapters, with base and base_sha256; for one of peft's own, without targets."""
    return _settings(_opened(folder))


def numbers_in(folder: Path) -> int:
    """How many numbers a folder's file of adapters holds, by its header."""
    return sum(math.prod(shape) for shape in _opened(folder).weights.shapes().values())


def apply(model: nn.Module, folder: Path) -> nn.Module:
    """Put the adapters of a folder, ours or peft's, on the base they belong on, which is changed in place.

    The network that is returned is another where the folder brings a classifier's score, or rows for more tokens than
    the base has. All of its base is frozen; `lora.merge` makes a plain network of it. Raises CheckpointError naming the
    file, and what is missing, altered, does not fit the base, or is not computed here; the base is then of no more use.
    """
    lora.refuse(model, "given others")
    stored = _opened(folder)
    model = _with_rows(_with_score(model, stored), stored)
    config = _settings(stored)
    try:
        plan = lora.planned(model, config) if config.targets else _plan(model, stored)
    except ModelError as error:
        raise CheckpointError(f"{folder}: {error.what}", FIX) from None
    if not plan:
        raise CheckpointError(f"{folder / WEIGHTS} holds no adapter for any matrix of this model", FIX)
    tables = [name for name, key in table_keys(model).items() if key in stored.weights.shapes()]
    _check(model, plan, tables, stored)
    lora.attach(model, plan, config, seed=0, also=tables)  # a seed, so that torch's own generator stays where it is
    _fill(model, stored)
    return model


def restore(model: nn.Module, folder: Path) -> None:
    """Read the numbers of a folder, which `export` made of such a network, back into the network's own adapters.

    Raises CheckpointError where they are those of another, or were trained on another base; nothing has changed then.
    """
    found, stored = lora.attached(model), _opened(folder)
    if found is None:
        raise CheckpointError(f"{folder} holds adapters, the network has none", "open the folder instead")
    learnt_on, here = _settings(stored).base_sha256, found.config.base_sha256
    if learnt_on and here and learnt_on != here:
        base = found.config.base or "the base"
        raise CheckpointError(
            f"{base} has changed since the adapters in {folder} were saved: the sha256 of its weights was "
            f"{learnt_on[:12]}... and is {here[:12]}...",
            "put that model back, or start a new run with another --out",
        )
    plan = {name: layer.parts for name, layer in lora.adapted(model).items()}
    _check(model, plan, found.also, stored)
    _fill(model, stored)


def _opened(folder: Path) -> Stored:
    """The files of a folder, their headers checked."""
    described = adapter_config.read(folder)
    record = optional(folder, RECORD)
    score = optional(folder, SCORE)
    if optional(folder, WEIGHTS):
        weights: StoredWeights = SafeFile(inside(folder, WEIGHTS))
    elif optional(folder, PICKLED):
        print(f"warning: {folder} holds a pickle, which can be dangerous: only plain tensors are taken from it",
              file=sys.stderr)  # fmt: skip
        weights = PickledFile(inside(folder, PICKLED))
    else:
        raise CheckpointError(f"{folder / WEIGHTS} is missing", "give the whole folder that the adapters were saved in")
    content = read_json(record) if record else None
    if content is not None and content.get("format") != FORMAT:
        raise CheckpointError(
            f"{record} has the format {printable(repr(content.get('format')), 40)}, known is {FORMAT}",
            "it was written by a newer groundup: pip install --upgrade groundup",
        )
    return Stored(folder, described, weights, content, SafeFile(score) if score else None)


def _settings(stored: Stored) -> LoraConfig:
    """What the adapters were made with; without targets where the tensors alone say what there is."""
    described, record = stored.described, stored.record
    plain = LoraConfig(described.rank, described.alpha, described.dropout, (), described.base)
    if record is None:
        return plain
    targets, digest = record.get("targets"), record.get("base_sha256", "")
    if not isinstance(targets, list) or not isinstance(digest, str):
        raise _damaged(stored, "targets or base_sha256")
    if stored.score is None and isinstance(record.get("head"), dict):
        targets = [target for target in targets if target != "head"]  # the score is there, merged
    try:
        return dataclasses.replace(plain, targets=tuple(targets), base_sha256=digest)
    except ModelError as error:
        raise CheckpointError(f"{stored.folder / RECORD}: {error.what}", error.fix) from None


def _with_score(model: nn.Module, stored: Stored) -> nn.Module:
    """A classifier, where the folder brings a score: on a base that continues text, or in the place of another."""
    key, described = f"{PREFIX}score.weight", stored.described
    if described.task != "SEQ_CLS":
        return model
    shape = stored.weights.shapes().get(key, ())
    if len(shape) != 2 or shape[1] != getattr(models.config_of(model), "width", 0):
        raise CheckpointError(f"{stored.folder / WEIGHTS} has no {key} that fits the base", FIX)
    head = _head(stored, shape[0])
    try:
        return Classifier(trunk_of(model), head, seed=0)
    except ModelError as error:
        raise CheckpointError(f"{stored.folder}: {error.what}", FIX) from None


def _head(stored: Stored, classes: int) -> HeadConfig:
    """The classes by the names that lora.json gives them, else as transformers names what has no name; or a reward."""
    try:
        if stored.record is None and classes == 1:
            return HeadConfig((REWARD,), kind=REWARD)
        if stored.record is None:
            return HeadConfig(tuple(f"LABEL_{number}" for number in range(classes)))
        head = stored.record.get("head")
        head = head if isinstance(head, dict) else {}
        fits = isinstance(head.get("labels"), list) and isinstance(head.get("bias"), bool)
        if not fits or len(head["labels"]) != classes or head.get("pooling") not in POOLINGS:
            raise _damaged(stored, f"head, for the {classes} classes of the score")
        kept = {name: head[name] for name in ("kind", "mean", "spread") if name in head}
        kept = {"kind": REWARD, **kept} if head["labels"] == [REWARD] else kept  # older files have no word for it
        return HeadConfig(tuple(head["labels"]), head["pooling"], head["bias"], **kept)
    except ModelError as error:
        raise CheckpointError(f"{stored.folder}: {printable(error.what, 300)}", error.fix) from None


def _with_rows(model: nn.Module, stored: Stored) -> nn.Module:
    """The network with as many rows in its tables as the folder has for them."""
    keys, shapes = table_keys(model), stored.weights.shapes()
    shape, there = shapes.get(keys.get("token_table", ""), ()), models.config_of(model).vocabulary
    rows = shape[0] if len(shape) == 2 and shape[1] == getattr(models.config_of(model), "width", 0) else 0
    if rows <= there:
        return model
    if absent := [key for key in keys.values() if key not in shapes]:
        raise CheckpointError(f"{stored.folder}: the tokens have {rows:,} rows, but {absent[0]} is missing", FIX)
    longer = surgery.extend_vocabulary(trunk_of(model), rows, known=there)
    if not isinstance(model, Classifier):
        return longer
    return Classifier(longer, model.head_config, seed=0)


def _plan(model: nn.Module, stored: Stored) -> dict[str, list[Part]]:
    """The adapters that the tensors of a file are, layer by layer: one for each pair of A and B."""
    spans, plan, shapes = lora.spans(model), dict[str, list[Part]](), stored.weights.shapes()
    for place in places(model):
        if not any(key in shapes for key in place.keys):
            continue
        if not stored.described.targeted(place.theirs):
            raise CheckpointError(f"{stored.described.path}: target_modules leaves out {place.theirs}, which has an "
                                  "adapter in the file", MERGE)  # fmt: skip
        inner = [
            name for name, (begin, end) in spans[place.module].items() if place.begin <= begin and end <= place.end
        ]
        part = Part("+".join(inner), place.begin, place.end, *stored.described.size(place.theirs))
        plan.setdefault(place.module, []).append(part)
    return plan


def _check(model: nn.Module, plan: Mapping[str, Sequence[Part]], tables: Sequence[str], stored: Stored) -> None:
    """Raise CheckpointError unless the file holds what `plan` and `tables` need, in these shapes, and nothing else."""
    wanted: dict[str, tuple[int, ...]] = {}
    for place in places(model):
        if parts := place.own(plan.get(place.module, ())):
            rank, scale = stored.described.size(place.theirs)
            ours = sum(part.rank for part in parts)
            if rank != ours or not all(math.isclose(scale, part.scale, rel_tol=1e-6) for part in parts):
                raise CheckpointError(f"{stored.described.path} gives {place.theirs} rank {rank} and scale {scale:g}, "
                                      f"the network has {ours} and {parts[0].scale:g}", FIX)  # fmt: skip
            wanted |= dict(zip(place.keys, ((rank, place.inputs), (place.end - place.begin, rank)), strict=True))
    keys, shapes, path = table_keys(model), stored.weights.shapes(), stored.folder / WEIGHTS
    wanted |= {keys[name]: tuple(trunk_of(model).get_parameter(f"{name}.weight").shape) for name in tables}
    if isinstance(model, Classifier) and stored.described.task == "SEQ_CLS":
        wanted |= {f"{PREFIX}score.{name}": shape for name, shape in _score_shapes(model).items()}
    again = _tied_again(model, stored)
    absent = [name for name in wanted if name not in shapes]
    extra = sorted(name for name in shapes if name not in wanted and name != again)
    if absent or extra:
        what = f"lacks {printable(absent[0])}" if absent else f"has {printable(extra[0])}, which is not known here"
        raise CheckpointError(f"{path} {what}", FIX if absent else f"{FIX}, or {MERGE}")
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise CheckpointError(f"{path}: {name} has shape {tuple(shapes[name])}, wanted is {shape}", FIX)


def _tied_again(model: nn.Module, stored: Stored) -> str:
    """The name under which a tied head may stand in the file a second time; raises CheckpointError where it differs.

    peft can train a table and leave the head behind, or the other way round: then they are two, and not tied here.
    """
    second, described, shapes = f"{PREFIX}lm_head.weight", stored.described, stored.weights.shapes()
    parts = [name for name in described.saved if name not in ("classifier", "score")]
    for name in parts:
        if name.rpartition(".")[2] not in ("embed_tokens", "wte", "lm_head"):
            raise CheckpointError(f"{described.path}: modules_to_save has {printable(name, 100)!r}, which is not known "
                                  "here", MERGE)  # fmt: skip
        if not described.tied and not any(key.endswith(f".{name}.weight") for key in shapes):
            raise CheckpointError(
                f"{stored.folder / WEIGHTS} lacks {printable(name, 100)}, which was trained whole", FIX
            )
    if not isinstance(model, GPT) or model.head is not None:
        return ""
    first = table_keys(model)["token_table"]
    if first in shapes and second in shapes:
        same = torch.equal(stored.weights.read(first), stored.weights.read(second))
    else:
        same = second not in shapes and (not parts or described.tied)
    if not same:
        raise CheckpointError(
            f"{stored.folder}: tokens and head were trained apart, but the base says they are tied", MERGE
        )
    return second


@torch.no_grad()
def _fill(model: nn.Module, stored: Stored) -> None:
    """Read every number before the first is put into the network."""
    values = dict(_numbers(model, stored))
    for name, value in values.items():
        model.get_parameter(name).copy_(value)


def _numbers(model: nn.Module, stored: Stored) -> Iterator[tuple[str, Tensor]]:
    """Our names and the numbers of the file."""
    layers, weights = lora.adapted(model), stored.weights
    for place in places(model):
        parts = place.own(layers[place.module].parts if place.module in layers else ())
        if parts:
            downs, ups = (finite.checked(weights.read(key), key) for key in place.keys)
            yield from _parted(place, parts, downs, ups)
    found = lora.attached(model)
    inner = "trunk." if isinstance(model, Classifier) else ""
    for name, key in table_keys(model).items():
        if found is not None and name in found.also:
            yield f"{inner}{name}.weight", finite.checked(weights.read(key), key)
    if isinstance(model, Classifier) and stored.described.task == "SEQ_CLS":
        yield from _score_numbers(model, stored)


def _parted(place: Place, parts: Sequence[Part], downs: Tensor, ups: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each part's own rows of A (R, I) and block of B (rows, R); raises CheckpointError for numbers outside of them."""
    at, inner = 0, 0
    for part in parts:
        block = ups[part.begin - place.begin : part.end - place.begin, at : at + part.rank]
        yield f"{place.module}.A.{part.name}", downs[at : at + part.rank]
        yield f"{place.module}.B.{part.name}", block
        at, inner = at + part.rank, inner + int(block.count_nonzero())
    if int(ups.count_nonzero()) != inner:
        raise CheckpointError(
            f"{place.keys[1]} mixes query, key and value, but {RECORD} says that they are apart",
            f"take {RECORD} away: without it the three are opened as one adapter",
        )


def _score_shapes(model: Classifier) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"weight": tuple(model.score.weight.shape)}
    return shapes | ({} if model.score.bias is None else {"bias": tuple(model.score.bias.shape)})


def _score_numbers(model: Classifier, stored: Stored) -> Iterator[tuple[str, Tensor]]:
    adapted = isinstance(model.score, Adapted)
    weights, prefix = (stored.score, "") if adapted else (stored.weights, f"{PREFIX}score.")
    if weights is None:
        raise CheckpointError(f"{stored.folder / SCORE} is missing", "give the whole folder that they were saved in")
    for name, parameter in model.score.named_parameters():
        if weights.shapes().get(prefix + name) != tuple(parameter.shape):
            raise CheckpointError(f"{stored.folder}: {prefix}{name} of the score is missing or has another shape", FIX)
        yield f"score.{name}", finite.checked(weights.read(prefix + name), name)


def _damaged(stored: Stored, what: str) -> CheckpointError:
    return CheckpointError(f"{stored.folder / RECORD} is malformed: {what}", "restore it from a copy, or take it away")
