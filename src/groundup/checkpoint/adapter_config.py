"""adapter_config.json of the peft library: what adapters are, without their numbers.

In: such a file, or the sizes of our adapters. Out: `Described`, or the content of such a file. The fields and their
meaning are those of peft 0.21 (LoraConfig): per matrix a rank and alpha, from `rank_pattern` and `alpha_pattern` where
one fits its name, else `r` and `lora_alpha`; the scale is alpha / rank, or alpha / sqrt(rank) with `use_rslora`
(Kalajdzievski 2023, equation 5).

What peft can train and this program cannot compute exactly is refused by the name of its field, and so is every field
that is not known here and asks for something: such a field may come to change the arithmetic.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from groundup.checkpoint.atomic import read_json
from groundup.checkpoint.fields import printable
from groundup.checkpoint.huggingface import ADAPTER
from groundup.errors import CheckpointError
from groundup.model.lora import LoraConfig
from groundup.text.guard import inside

MERGE = "merge it with the program that made it (in peft: merge_and_unload), and open the merged model"
TASKS = ("CAUSAL_LM", "SEQ_CLS")
# Read here, or without a part in the arithmetic of a trained adapter.
KNOWN = {"base_model_name_or_path", "lora_alpha", "lora_dropout", "modules_to_save", "r", "target_modules", "task_type"}
KNOWN |= {"alpha_pattern", "rank_pattern", "use_rslora", "ensure_weight_tying"}
KNOWN |= {"auto_mapping", "inference_mode", "peft_version", "revision", "runtime_config"}
KNOWN |= {"exclude_modules", "layers_pattern", "layers_to_transform"}  # which matrices have one: the tensors say it
KNOWN |= {"fan_in_fan_out"}  # how the base is stored, which the base says itself
KNOWN |= {"corda_config", "eva_config", "lora_ga_config"}  # how it began; `init_lora_weights` says whether it began so
KNOWN |= {"megatron_core", "qalora_group_size"}  # defaults of what is switched on elsewhere
FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    # the others begin by changing the base, and what they learnt is the difference to that
    "init_lora_weights": (None, True, False, "gaussian", "orthogonal", "eva"),
}
MOST_PATTERNS = 5_000


@dataclass(frozen=True)
class Described:
    """What an adapter_config.json says, checked."""

    path: Path
    task: str | None
    base: str  # path or name of the model it was trained on; "" where it says none
    rank: int
    alpha: float
    dropout: float
    rslora: bool
    ranks: Mapping[str, int]  # pattern of a name -> rank
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | None  # ends of names; None where it is a pattern or "all-linear"
    saved: tuple[str, ...]  # parts that were trained whole
    tied: bool  # a table and a head that were trained whole are one

    def size(self, name: str) -> tuple[int, float]:
        """Rank and scale of the adapter on the matrix of this name, such as "model.layers.0.self_attn.q_proj"."""
        rank = self.ranks.get(_fitting(self.ranks, name), self.rank)
        alpha = self.alphas.get(_fitting(self.alphas, name), self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rslora else rank)

    def targeted(self, name: str) -> bool:
        """Whether peft would put an adapter there; else it would pass over one in the file."""
        return self.targets is None or any(f".{name}".endswith(f".{target}") for target in self.targets)


def read(folder: Path) -> Described:
    """The adapter_config.json of a folder; raises CheckpointError for what is missing, malformed or not computed here.

    >>> read(Path("runs/first/model"))
    Traceback (most recent call last):
    groundup.errors.CheckpointError: runs/first/model/adapter_config.json is missing
      -> give a complete model folder, or restore the file from a copy
    """
    path = inside(folder, ADAPTER)
    content = read_json(path)
    for name, allowed in FIXED.items():
        if not any(content.get(name) is value or content.get(name) == value for value in allowed):
            _refuse(path, name, content.get(name))
    for name in content.keys() - KNOWN - FIXED.keys():
        if content[name] not in (None, False, [], {}, ""):
            _refuse(path, name, content[name])
    task = content.get("task_type")
    if task not in (None, *TASKS):
        _refuse(path, "task_type", task)
    targets = content.get("target_modules")
    return Described(
        path=path,
        task=task,
        base=_text(path, content, "base_model_name_or_path"),
        rank=_rank(path, "r", content.get("r", 8)),
        alpha=_number(path, "lora_alpha", content.get("lora_alpha", 8)),
        dropout=_chance(path, content),
        rslora=_switch(path, content, "use_rslora"),
        ranks={key: _rank(path, "rank_pattern", value) for key, value in _patterns(path, content, "rank_pattern")},
        alphas={key: _number(path, "alpha_pattern", value) for key, value in _patterns(path, content, "alpha_pattern")},
        targets=None if targets is None or isinstance(targets, str) else _words(path, content, "target_modules"),
        saved=_words(path, content, "modules_to_save"),
        tied=_switch(path, content, "ensure_weight_tying"),
    )


def document(
    sizes: Mapping[str, tuple[int, float]], every: Sequence[str], config: LoraConfig, *, task: str, saved: Sequence[str]
) -> dict[str, Any]:
    """The content of adapter_config.json for adapters with these ranks and alphas, by the names that peft gives them.

    `every`: all matrices of the network that could have one; where all of a kind do, the end of their name stands for
    them. `saved`: parts that are kept whole.

    >>> names = [f"transformer.h.{layer}.attn.c_attn" for layer in range(12)]
    >>> found = document({name: (48, 48.0) for name in names}, names, LoraConfig(), task="CAUSAL_LM", saved=[])
    >>> found["target_modules"], found["r"], found["rank_pattern"], found["alpha_pattern"], found["fan_in_fan_out"]
    (['attn.c_attn'], 16, {'attn.c_attn': 48}, {'attn.c_attn': 48}, True)
    """
    targets: list[str] = []
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for kind in dict.fromkeys(map(_kind, sizes)):
        own = [name for name in sizes if _kind(name) == kind]
        whole = len(own) == sum(_kind(name) == kind for name in every)
        like = len({sizes[name] for name in own}) == 1
        targets += [kind] if whole else own
        for name in [kind] if whole and like else own:
            rank, alpha = sizes[own[0] if name == kind else name]
            ranks |= {name: rank} if rank != config.rank else {}
            alphas |= {name: _plain(alpha)} if _plain(alpha) != _plain(config.alpha) else {}
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": config.base or None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": _plain(config.alpha),
        "lora_dropout": config.dropout,
        "target_modules": targets,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "modules_to_save": list(saved) or None,
        "fan_in_fan_out": any(name.startswith("transformer.h.") for name in sizes),  # gpt2 keeps (in, out)
        "bias": "none",
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _kind(name: str) -> str:
    """The name without its layer: "model.layers.7.mlp.up_proj" -> "mlp.up_proj"."""
    return re.sub(r"^.*?\.\d+\.", "", name)


def _plain(number: float) -> float:
    """Without the last digits that dividing and multiplying leave; whole where it is: 48, not 48.000000000000004."""
    rounded = float(f"{number:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def _fitting(patterns: Mapping[str, Any], name: str) -> str:
    """The first pattern that fits the end of a name, as peft matches them; else the name itself."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), name)


def _patterns(path: Path, content: Mapping[str, Any], field: str) -> list[tuple[str, Any]]:
    """Patterns that come to an end soon: a regular expression from a file could else run for years."""
    found = content.get(field) or {}
    if not isinstance(found, dict) or len(found) > MOST_PATTERNS:
        _refuse(path, field, found)
    for key in found:
        # at most two repetitions, none of a group, and nothing that looks around or back
        simple = re.fullmatch(r"[\w.^$|()\[\]\\*+-]{1,200}", key) and not re.search(r"\)[*+]|[*+][*+]|\\[1-9]", key)
        if not simple or len(re.findall(r"[*+]", key)) > 2:
            _refuse(path, field, key)
        try:
            re.compile(rf"(.*\.)?({key})$")
        except (re.error, OverflowError, RecursionError):
            _refuse(path, field, key)
    return list(found.items())


def _rank(path: Path, field: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        _refuse(path, field, value)
    return int(value)


def _number(path: Path, field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        _refuse(path, field, value)
    return float(value)


def _chance(path: Path, content: Mapping[str, Any]) -> float:
    value = content.get("lora_dropout") or 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        _refuse(path, "lora_dropout", value)
    return float(value)


def _switch(path: Path, content: Mapping[str, Any], field: str) -> bool:
    value = content.get(field) or False
    if not isinstance(value, bool):
        _refuse(path, field, value)
    return value


def _text(path: Path, content: Mapping[str, Any], field: str) -> str:
    value = content.get(field) or ""
    if not isinstance(value, str) or len(value) > 4096 or not value.isprintable():
        _refuse(path, field, value)
    return value


def _words(path: Path, content: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = content.get(field) or []
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        _refuse(path, field, value)
    return tuple(dict.fromkeys(value))


def _refuse(path: Path, field: str, value: Any) -> NoReturn:
    shown = printable(repr(value), 200)
    raise CheckpointError(f"{path}: {field} is {shown}, which this program does not compute", MERGE)
