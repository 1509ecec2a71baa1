"""Low-rank adapters: a network learns something new while every number it had stays as it is (Hu et al. 2021, "LoRA").

In: a network, and which of its matrices get an adapter. Out: the same network, changed in place: each of those matrices
W (O, I) now answers x W^T + (alpha / rank) (x A^T) B^T, where A (rank, I) and B (O, rank) learn and W does not (section
4.1). B begins at zero, so nothing changes before the first step. `merge` adds B A to W and gives a plain network back.

Query, key and value are three targets inside one matrix, each with an adapter of its own that changes its own rows.
The arithmetic is in adapted.py; what a folder of adapters looks like, in checkpoint/adapters.py.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from groundup import model as models
from groundup.errors import ModelError, nearest
from groundup.model.adapted import Adapted, Part
from groundup.model.config import ModelConfig
from groundup.model.dropout import Dropout

TARGETS = ("query", "key", "value", "out", "gate", "up", "down", "head")
LINEAR = TARGETS[:-1]  # all that stand in the blocks; a family without gates has none of that name
TABLES = ("token_table", "head")  # what may be trained whole beside adapters, where tokens were added


@dataclass(frozen=True)
class LoraConfig:
    """What adapters look like: size, strength, and where they are.

    rank: rows of A, columns of B. alpha: what they add is scaled by alpha / rank. dropout: chance with which a number
    that enters A is dropped while training. targets: which matrices; all of `LINEAR` means every one in the blocks,
    whichever the family has, and "head" is the output head, or the score of a classifier. base, base_sha256: the model
    they were trained on, as it was opened, and its hash; kept with them, not looked at here.

    Raises ModelError for a rank, strength or dropout that means nothing, and for an unknown target.

    >>> LoraConfig(rank=8, targets=("query", "value")).alpha
    16.0
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = LINEAR
    base: str = ""
    base_sha256: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ModelError(f"the rank of the adapters is {self.rank!r}", "it must be a whole number, 1 or more")
        if not 0 < self.alpha < math.inf:
            raise ModelError(f"alpha of the adapters is {self.alpha}", "it must be a number above 0")
        if not 0 <= self.dropout < 1:
            raise ModelError(
                f"dropout of the adapters is {self.dropout}", "it is a chance: 0 (off) or more, and below 1"
            )
        for name in self.targets:
            if name not in TARGETS:
                raise ModelError(f"unknown target {name!r} for adapters", nearest(str(name), TARGETS))


class Attached(NamedTuple):
    """What a network with adapters says about them."""

    config: LoraConfig
    also: tuple[str, ...]  # tables that are trained whole


def add(model: nn.Module, config: LoraConfig, *, seed: int | None = None, also: Sequence[str] = ()) -> nn.Module:
    """Put adapters into `model`, in place, and freeze the rest of it; the same model is returned.

    What still learns: the adapters; the score of a classifier, unless it is itself a target ("head"), when it stays as
    it was drawn and its adapter learns (the book's way: Raschka 2024, appendix E.4); and the tables named in `also`
    ("token_table", "head"), for tokens that the model has not seen before. A is drawn uniform within 1 / sqrt(I), from
    `seed` or torch's global generator, B is zero; both are fp32 whatever the network is stored in.

    Raises ModelError for a network that has adapters already, a target that it does not have, and a rank that is larger
    than a matrix; nothing has changed then.

    >>> from groundup.model.config import from_name
    >>> with torch.device("meta"):
    ...     model = add(models.build(from_name("gpt2")), LoraConfig(rank=4, targets=("query", "value")))
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 12 layers x 2 targets x 4 (768 + 768)
    147456
    """
    refuse(model, "given others")
    return attach(model, planned(model, config), config, seed=seed, also=also)


def attach(
    model: nn.Module,
    plan: Mapping[str, Sequence[Part]],
    config: LoraConfig,
    *,
    seed: int | None = None,
    also: Sequence[str] = (),
) -> nn.Module:
    """`add` for adapters that differ from layer to layer: `plan` names the layers and the parts of each, by their rows.

    `config` is what `config_of` will say. Raises ModelError as `add` does.
    """
    refuse(model, "given others")
    tables = _tables(model, also, config)
    scores = [score for score in [getattr(model, "score", None)] if score is not None and "score" not in plan]
    by_torch = getattr(models.config_of(model), "init", "") == "torch"
    device = next(model.parameters()).device
    generator = None if seed is None or device.type == "meta" else torch.Generator(device).manual_seed(seed)
    model.requires_grad_(False)
    for name, parts in plan.items():
        parent, _, own = name.rpartition(".")
        linear = cast(nn.Linear, model.get_submodule(name))
        layer = Adapted(linear, parts, Dropout(config.dropout, by_torch=by_torch))
        layer.draw(generator)
        setattr(model.get_submodule(parent), own, layer.train(model.training))
    for module in (*tables.values(), *scores):
        module.float().requires_grad_(True)  # in bf16 the small steps of training would round to nothing
    model.lora = Attached(config, tuple(tables))  # type: ignore[assignment]  # a module's attributes have no type
    return model


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Add what the adapters learnt to their matrices, in place: a plain network again, all of it trainable.

    The sum is taken in fp32 and rounded to the type of the matrix. One layer is held twice at a time. Raises ModelError
    where there are no adapters.

    >>> from groundup.model.config import from_name
    >>> model = add(models.build(from_name("1m", vocabulary=65), seed=0), LoraConfig(rank=2), seed=1)
    >>> merge(model).state_dict().keys() == models.build(from_name("1m", vocabulary=65)).state_dict().keys()
    True
    """
    _some(model, "merge")
    for name, layer in adapted(model).items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.merged())
    del model.lora
    return model.requires_grad_(True)


@contextlib.contextmanager
def off(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block adapters add nothing: the answers of the base, bit for bit. Blocks may stand in one another.

    Tables and scores that were trained whole stay as they are. Raises ModelError where there are no adapters, since
    what is then compared with the base would be the base.
    """
    _some(model, "turn off")
    layers = list(adapted(model).values())
    before = [layer.silent for layer in layers]
    try:
        for layer in layers:
            layer.silent = True
        yield model
    finally:
        for layer, silent in zip(layers, before, strict=True):
            layer.silent = silent


def attached(model: nn.Module) -> Attached | None:
    """What was added to the network, or None for a plain one."""
    found: Attached | None = getattr(model, "lora", None)
    return found


def config_of(model: nn.Module) -> LoraConfig | None:
    """The settings of a network's adapters, or None for a plain one."""
    found = attached(model)
    return None if found is None else found.config


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """Every A and B by its name, such as "blocks.0.attention.qkv.A.query"; tables and scores are not among them."""
    return {
        f"{name}.{kind}.{part.name}": getattr(layer, kind)[part.name]
        for name, layer in adapted(model).items()
        for part in layer.parts
        for kind in ("A", "B")
    }


def adapted(model: nn.Module) -> dict[str, Adapted]:
    """The layers that have adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def refuse(model: nn.Module, verb: str) -> None:
    """Raise ModelError where `model` has adapters: for whatever would lose them, or take them for its own."""
    if attached(model) is not None:
        raise ModelError(f"the model has adapters and cannot be {verb}", "merge them into its matrices first")


def spans(model: nn.Module) -> dict[str, dict[str, tuple[int, int]]]:
    """Every layer that can be adapted: its name -> target -> first row and the row behind the last.

    >>> from groundup.model.config import from_name
    >>> with torch.device("meta"):
    ...     layers = spans(models.build(from_name("smollm2-135m")))
    >>> layers["blocks.0.attention.qkv"]
    {'query': (0, 576), 'key': (576, 768), 'value': (768, 960)}
    """
    config = models.config_of(model)
    if not isinstance(config, ModelConfig):
        return {}
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    fused = {"query": (0, queries), "key": (queries, queries + keys), "value": (queries + keys, queries + 2 * keys)}
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name, module in model.named_modules():
        own = name.rpartition(".")[2]
        if not isinstance(module, nn.Linear | Adapted):
            continue
        if own == "qkv":
            found[name] = dict(fused)
        elif own in LINEAR or name in ("head", "score"):
            found[name] = {own if own in LINEAR else "head": (0, module.out_features)}
    return found


def planned(model: nn.Module, config: LoraConfig) -> dict[str, list[Part]]:
    """The parts of each layer that `config` names; raises ModelError for a target that is not there."""
    layers = spans(model)
    there = [target for target in TARGETS if any(target in layer for layer in layers.values())]
    every = set(LINEAR) <= set(config.targets)
    absent = [target for target in config.targets if target not in there and (target == "head" or not every)]
    if not layers or not config.targets:
        raise ModelError("there is no matrix to adapt" if not layers else "no target for adapters is named",
                         "adapters need a gpt2, llama or qwen3 model, and targets such as query and value")  # fmt: skip
    if absent == ["head"]:
        raise ModelError("the head is the token table itself (tied), and an adapter on it would change both",
                         f"leave 'head' out of the targets: {', '.join(there)}")  # fmt: skip
    if absent:
        raise ModelError(f"the target {absent[0]!r} matches nothing: {models.config_of(model).family} has none",
                         f"choose from: {', '.join(there)}")  # fmt: skip
    plan: dict[str, list[Part]] = {}
    for name, layer in layers.items():
        inputs = int(model.get_submodule(name).in_features)  # type: ignore[arg-type]
        chosen = {target: rows for target, rows in layer.items() if target in config.targets}
        for target, (begin, end) in chosen.items():
            # two classes have two rows: there the rank of the book is more than could be of use, and is let be
            most = inputs if target == "head" else min(inputs, end - begin)
            if config.rank > most:
                raise ModelError(f"rank {config.rank} is larger than {target} ({end - begin} x {inputs}) can have",
                                 f"take a rank of at most {most}, or leave {target!r} out of the targets")  # fmt: skip
            part = Part(target, begin, end, config.rank, config.alpha / config.rank)
            plan.setdefault(name, []).append(part)
    return plan


def _tables(model: nn.Module, also: Sequence[str], config: LoraConfig) -> dict[str, nn.Module]:
    """The tables that are trained whole, by name; "token_table.weight" is understood as well."""
    trunk = getattr(model, "trunk", model)
    found: dict[str, nn.Module] = {}
    for name in dict.fromkeys(each.removesuffix(".weight") for each in also):
        if name not in TABLES:
            raise ModelError(f"{name!r} cannot be trained whole beside adapters", nearest(name, TABLES))
        module = getattr(trunk, name, None)
        if not isinstance(module, nn.Embedding | nn.Linear) or (name == "head" and "head" in config.targets):
            why = "is the token table itself, or there is none" if module is None else "has an adapter"
            fix = "leave it out" if module is None else f"leave {name!r} out of the targets"
            raise ModelError(f"{name} cannot be trained whole: it {why}", fix)
        found[name] = module
    return found


def _some(model: nn.Module, verb: str) -> None:
    if attached(model) is None:
        raise ModelError(f"the model has no adapters to {verb}", "add some, or open a folder that holds adapters")
