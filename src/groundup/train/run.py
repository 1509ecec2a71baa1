"""A run folder: what was asked, the last good weights, everything needed to go on bit for bit.

In: a folder name and settings. Out: settings.toml, model/, best/, state/step-N/, metrics.jsonl, samples.md.

    state/step-00000200/            one checkpoint: never changed once it is there, removed when newer ones are whole
        model/                      the weights as a model folder (RUN/model holds the same files)
        state.safetensors           optimizer and random-number state
        state.json                  step, place in the data, totals
        hashes.json
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup.checkpoint import atomic, folder
from groundup.errors import CheckpointError, SettingsError
from groundup.settings import Pretrain, read_toml
from groundup.tokens.tokenizer import Tokenizer

SETTINGS = "settings.toml"


@dataclass
class Progress:
    """Where a run stands: updates done, units learnt from, seconds spent, updates skipped, its place in the data."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    batches: dict[str, Any] | None = None
    data: str = ""  # fingerprint of the training tokens


def open_run(out: Path, asked: Pretrain) -> tuple[Pretrain, int]:
    """Make the folder of a new run, or merge the settings of the run that is to go on.

    Returns the settings that hold, and the steps planned so far (0 for a new run). Raises SettingsError where the
    folder belongs to something else, or where a resumed run is asked to change what would make it another run.
    """
    settings_file = out / SETTINGS
    if settings_file.exists():
        if not asked.resume:
            raise SettingsError(f"{out} holds another run", "add --resume to go on with it, or choose another --out")
        saved = type(asked).create(**read_toml(settings_file))
        return merge(saved, asked), saved.steps or 0
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(
            f"{out} exists and is no run folder (it has no {SETTINGS})", "choose another --out, or empty it yourself"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_settings(out, asked)  # so that --resume knows what was asked even before the first step
    return asked, 0


def merge(saved: Pretrain, asked: Pretrain) -> Pretrain:
    """Settings of a resumed run: the saved ones, with those changes that leave it the same run."""
    given = asked.model_fields_set - {"resume", "out", "dry_run"}
    changed = {name: getattr(asked, name) for name in given if getattr(asked, name) != getattr(saved, name)}
    budget = {"steps", "tokens", "epochs"}
    for name, value in changed.items():
        if name not in asked.may_change_on_resume:
            raise SettingsError(
                f"a resumed run cannot change '{name}' from {getattr(saved, name)!r} to {value!r}",
                f"leave --{name.replace('_', '-')} out, or start a new run with another --out",
            )
    if budget & changed.keys():
        changed |= {name: None for name in budget - changed.keys()}
    return saved.replace(**changed, resume=True, dry_run=asked.dry_run, out=asked.out)


def write_settings(out: Path, settings: Pretrain) -> None:
    """Put the resolved settings into the run folder."""
    atomic.write_text(out / SETTINGS, settings.replace(resume=False, dry_run=False).to_toml())


def save(out: Path, model: nn.Module, tokenizer: Tokenizer, optimizer: torch.optim.Optimizer, *, progress: Progress,
         rng: Mapping[str, Tensor], card: dict[str, Any], keep: int = 1) -> Path:  # fmt: skip
    """Write a checkpoint aside, put it in place, renew RUN/model from it, and drop the oldest ones.

    Returns the folder of the checkpoint. The previous checkpoint stays whole until the new one is on the disk.
    """
    target = out / "state" / f"step-{progress.step:08d}"
    with atomic.written_aside(target) as aside:
        (aside / "model").mkdir()
        folder.write_model(aside / "model", model, tokenizer, card=card)
        tensors = {f"rng.{name}": value for name, value in rng.items()} | _optimizer_tensors(model, optimizer)
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, aside / "state.safetensors"
        )
        (aside / "state.json").write_text(json.dumps(vars(progress), indent=1), encoding="utf-8")
    publish(out, target)
    for old in checkpoints(out)[keep:]:
        atomic.remove(old)
    return target


def publish(out: Path, checkpoint: Path) -> None:
    """Make RUN/model the weights of a checkpoint."""
    with atomic.written_aside(out / "model") as aside:
        atomic.copy(checkpoint / "model", aside)


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((path for path in (out / "state").glob("step-*") if path.is_dir()), reverse=True)


def latest(out: Path) -> Path | None:
    """The newest checkpoint, checked byte for byte; None if the run has none.

    A damaged one is an error unless an older whole one was kept (`--keep`), which is then named and used.
    """
    found = checkpoints(out)
    for number, checkpoint in enumerate(found):
        try:
            atomic.verify(checkpoint)
            return checkpoint
        except CheckpointError:
            if number == len(found) - 1:
                raise
    return None


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor]]:
    """Fill model and optimizer from a checkpoint; returns where the run stood and its random-number state."""
    try:
        tensors = load_file(checkpoint / "state.safetensors")
        progress = Progress(**atomic.read_json(checkpoint / "state.json"))
    except (SafetensorError, OSError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint} cannot be read: {error}", "use an older checkpoint, or start a new run"
        ) from None
    saved = folder.read_model(checkpoint / "model")
    model.load_state_dict(saved.state_dict())
    _fill_optimizer(model, optimizer, tensors)
    return progress, {name.removeprefix("rng."): value for name, value in tensors.items() if name.startswith("rng.")}


def _names(model: nn.Module) -> dict[int, str]:
    """Parameter -> name, so that optimizer state is kept by name and not by position."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = _names(model)
    return {
        f"optimizer.{names[id(parameter)]}.{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _fill_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    for parameter, name in ((p, n) for n, p in model.named_parameters()):
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {
                key: value.to(parameter.device) if value.dim() else value for key, value in state.items()
            }
