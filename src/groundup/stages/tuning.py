"""What all stages share that go on from a model which has learnt: opening it, what learns of it, and its rows.

In: settings, and `prepare`, which makes the stage's `Task` of the opened model. Out: `Preflight` and `Fitted`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from groundup import model as models
from groundup import tokens
from groundup.batches import Batches
from groundup.batches.windows import Source
from groundup.checkpoint import adapters, atomic, fields, folder
from groundup.checkpoint import classifier as classifiers
from groundup.errors import SettingsError
from groundup.generate.chat import Taught
from groundup.losses import Loss
from groundup.machine import Machine
from groundup.model import lora, surgery
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.heads import Classifier
from groundup.model.lora import LoraConfig
from groundup.settings import Tuning, flag
from groundup.stages import launch as launches
from groundup.stages import start as starts
from groundup.stages import task as tasks
from groundup.stages.words import say
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import run as runs
from groundup.train.job import Fitted, Scored
from groundup.train.plan import Preflight

ROWS = 1024  # tokens of a row at most, where nobody says how many
FACTS = ("from", "from_sha256", "template", "added_tokens", *starts.LICENCE)  # of the card, kept when a run goes on


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a tuning stage brings; see `task.Task`.

    lengths (n,): tokens of each row. evaluate(model, rows at once). batches(micro-batch, seed): see there.
    """

    model: nn.Module
    tokenizer: Tokenizer
    loss: Loss
    source: Source
    lengths: np.ndarray
    evaluate: Callable[[nn.Module, int], Scored] | None
    sample: Callable[[nn.Module], str] | None
    fingerprint: str
    batches: Callable[[int, int], Batches] | None = None
    look: float = 0.0  # tokens that one evaluation reads
    sources: Sequence[str] = ()
    card: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """The model to tune, its weights in fp32; `facts` go into the card. `context`: tokens of a row at most."""

    model: nn.Module
    tokenizer: Tokenizer
    context: int
    spec: str
    sha256: str
    facts: dict[str, Any]


Prepare = Callable[[Any, Path, Machine], Task]


def run(settings: Tuning, prepare: Prepare) -> tuple[Preflight, Fitted | None]:
    """Carry out a tuning stage in `settings.out`; Fitted is None after a dry run.

    prepare(settings, run folder, machine) opens the model (`opened`), reads rows, and says what learns (`taught`).
    Raises SettingsError for settings of adapters that are given where none are made.
    """
    if settings.without_effect and not settings.resume:
        named = ", ".join(flag(name) for name in settings.without_effect)
        raise SettingsError(f"{named} means nothing with --train {settings.train}", "add --train lora, or leave it out")
    return launches.launch(settings, partial(_task, prepare=prepare))


def _task(asked: Tuning, out: Path, machine: Machine, *, prepare: Prepare) -> tasks.Task:
    """The stage's task as `launch` wants it: what differs between stages was said, the rest follows from it."""
    task = prepare(asked, out, machine)
    longest = int(task.lengths.max())
    config = dataclasses.replace(models.config_of(task.model), context=longest)
    total = sum(parameter.numel() for parameter in task.model.parameters())
    share = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad) / total
    context = asked.context or min(models.config_of(task.model).context, ROWS)
    filler = float(getattr(task.source, "filler", 0.0))  # of packed rows
    return tasks.Task(
        settings=asked.replace(context=context, model=_lasting(asked)),
        config=config,
        network=lambda: task.model,
        tokenizer=task.tokenizer,
        source=task.source,
        loss=task.loss,
        evaluate=task.evaluate,
        sample=task.sample,
        counts=(round(task.lengths.sum() * (1 - filler)), round(task.look)),
        look=task.look,
        fingerprint=task.fingerprint,
        lengths=task.lengths if asked.batching == "bucketed" else None,
        batches=task.batches,
        row=float(task.lengths.mean()) * (1 - filler),
        filler=filler,
        trained=(share, {"head": 0, "last-block": 1}.get(asked.train)),
        compiles=False,
        sources=list(task.sources),
        card=task.card | (_kept(checkpoint) if (checkpoint := _checkpoint(out)) else {}),
    )


def _lasting(settings: Tuning) -> str:
    """The model as settings.toml names it: adapters need their base whenever they go on, from whatever folder."""
    path = Path(settings.model)
    return str(path.resolve()) if settings.train == "lora" and settings.model and path.exists() else settings.model


def opened(settings: Tuning, *, classifier: bool = False) -> Opened:
    """The model of --model with the dropout asked for, everything in fp32.

    A run that has a checkpoint is opened from there and needs nothing of the original, but for adapters, which stand on
    it; its weights are restored with everything else (train/fit.py). classifier: a `Classifier` may be gone on with.
    Raises SettingsError where no model was named, or one that cannot be tuned, and CheckpointError as `folder.load`
    does.
    """
    checkpoint = _checkpoint(settings.out) if settings.out and settings.train != "lora" else None
    if checkpoint is not None:
        return _from_checkpoint(settings, checkpoint)
    if not settings.model:
        raise SettingsError("no model was given", f"name one: groundup {settings.command} --model runs/NAME")
    if settings.train == "lora" and _has_adapters(Path(settings.model)):
        raise SettingsError(
            f"{settings.model} holds adapters, and new ones cannot stand on them",
            f"merge them first: groundup export {settings.model} --to hf --out MERGED",
        )
    loaded = folder.load(settings.model, dtype=torch.float32, classifier=None if classifier else False)
    model = loaded.model
    config = models.config_of(model)
    if isinstance(config, BigramConfig):
        raise SettingsError(f"{settings.model} is a bigram table", "tune a model with blocks: gpt2, llama or qwen3")
    if settings.context is not None and settings.context > config.context:
        raise SettingsError(
            f"--context {settings.context} is more than the model's context of {config.context}",
            f"give {config.context} at most, or leave it out",
        )
    dropped = dataclasses.replace(config, **starts.dropout(settings))
    if isinstance(model, Classifier):
        model.trunk = surgery.with_config(model.trunk, dropped)  # type: ignore[assignment]  # a GPT as before
    else:
        model = surgery.with_config(model, dropped)
    sha256 = starts.weights_hash(loaded.folder)
    facts: dict[str, Any] = {"from": settings.model, "from_sha256": sha256}
    facts |= {name: loaded.card[name] for name in starts.LICENCE if name in loaded.card}
    context = settings.context or min(config.context, ROWS)
    return Opened(model.train(), loaded.tokenizer, context, str(settings.model), sha256, facts)


def _checkpoint(out: Path) -> Path | None:
    """The model folder of a run's newest checkpoint, if it has one."""
    found = runs.checkpoints(out)
    return found[0] / "model" if found else None


def _from_checkpoint(settings: Tuning, checkpoint: Path) -> Opened:
    """The network of a checkpoint, its weights not yet read, and its tokenizer, which has what the run added to it."""
    document = atomic.read_json(checkpoint / "config.json")
    head = classifiers.head_of(document)
    config = fields.model_config(document) if head is None else classifiers.trunk_of(document)
    assert isinstance(config, ModelConfig), "a bigram table is never tuned"
    config = dataclasses.replace(config, **starts.dropout(settings))
    model: nn.Module = models.build(config, seed=settings.seed)
    model = model if head is None else Classifier(model, head, seed=settings.seed)
    facts = _kept(checkpoint)
    context = settings.context or min(config.context, ROWS)
    return Opened(model.train(), tokens.load(checkpoint), context, settings.model, facts.get("from_sha256", ""), facts)


def _kept(checkpoint: Path) -> dict[str, Any]:
    """What a run said of its origin when it began."""
    card = atomic.read_json(checkpoint / "card.json")
    return {name: card[name] for name in FACTS if name in card}


def _has_adapters(path: Path) -> bool:
    return any(adapters.is_adapter(folder) for folder in (path, path / "model"))


def extended(settings: Tuning, origin: Opened, taught: Taught) -> nn.Module:
    """The network with a row for each token that the template brings, the mean of the old."""
    if not taught.added:
        return origin.model
    known = origin.tokenizer.vocabulary
    model = surgery.extend_vocabulary(origin.model, taught.tokenizer.vocabulary, known=known)
    say("tokens", f"{', '.join(taught.added)} are new: their rows begin as the mean of the {known:,} old ones")
    if settings.train in ("head", "last-block") and getattr(model, "head", None) is not None:
        say("tokens", f"--train {settings.train} leaves their rows in the token table so: all or lora would not")
    return model


def taught(settings: Tuning, origin: Opened, model: nn.Module, *, machine: Machine, tables: bool = False) -> nn.Module:
    """The network with what --train names set to learn; `tables`: those of tokens, too, where some were added."""
    if settings.train != "lora":
        return surgery.train_only(model, settings.train)
    targets = tuple(settings.lora_targets) or lora.LINEAR
    path = Path(settings.model)
    base = str(path.resolve()) if path.exists() else settings.model
    config = LoraConfig(
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=targets,
        base=base,
        base_sha256=origin.sha256,
    )
    also = [name for name in lora.TABLES if tables and getattr(model, name, None) is not None]
    model = lora.add(model, config, seed=settings.seed, also=also)
    return model if machine.dtype == torch.float32 else surgery.narrowed(model, machine.dtype)


def resumes(out: Path) -> bool:
    """Whether the run has a checkpoint to go on from."""
    return bool(runs.checkpoints(out))


def filler(tokenizer: Tokenizer) -> int:
    """What rows are filled up with: nothing learns it or looks at it, so that any id would do."""
    return next(id for id in (tokenizer.pad, tokenizer.end_of_text, tokenizer.eos, 0) if id is not None)


def fingerprint(rows: Sequence[Sequence[int]]) -> str:
    """A hash of rows of ids, by which a resumed run knows its data.

    >>> fingerprint([[1, 2], [3]]) == fingerprint([[1], [2, 3]])
    False
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.array([len(row), *row], dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
