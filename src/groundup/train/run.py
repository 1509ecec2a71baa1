"""A run folder: what was asked, the last good weights, everything needed to go on bit for bit.

In: a folder name and settings. Out: settings.toml, model/, best/, state/step-N/, metrics.jsonl, samples.md.

    state/step-00000200/            one checkpoint: never changed once it is there, removed when newer ones are whole
        model/                      the weights as a model folder (RUN/model holds the same files)
        state.safetensors           optimizer and random-number state
        state.json                  step, place in the data, totals
        hashes.json
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from groundup.checkpoint import atomic, folder, space
from groundup.checkpoint.folder import Exported
from groundup.errors import CheckpointError, SettingsError
from groundup.lock import LOCK
from groundup.settings import Training, command_of, flag, read_toml
from groundup.tokens.tokenizer import Tokenizer

SETTINGS = "settings.toml"
FORMAT = 1  # of state.json and state.safetensors; raise it when an older groundup could go on wrongly from them


@dataclass
class Progress:
    """Where a run stands: updates done, units learnt from, seconds spent, updates skipped, its place in the data."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    batches: dict[str, Any] | None = None  # JSON; tensors of it are kept beside those of the optimizer
    scaler: dict[str, Any] = field(default_factory=dict)  # of fp16: the loss scale, and good steps since it changed
    data: str = ""  # fingerprint of the training tokens


def open_run(out: Path, asked: Training) -> tuple[Training, int]:
    """Make the folder of a new run, or merge the settings of the run that is to go on.

    Returns the settings that hold, and the steps planned so far (0 for a new run). Raises SettingsError where the
    folder belongs to something else, or where a resumed run is asked to change what would make it another run.
    """
    settings_file = out / SETTINGS
    if settings_file.exists():
        if not asked.resume:
            raise SettingsError(f"{out} holds another run", "add --resume to go on with it, or choose another --out")
        if (made := command_of(settings_file)) != asked.command:
            raise SettingsError(
                f"{out} is a run of groundup {made}", f"go on with it: groundup {made} --out {out} --resume"
            )
        saved = read_settings(settings_file, type(asked))
        return merge(saved, asked), saved.steps or 0
    if out.exists() and (not out.is_dir() or any(path.name != LOCK for path in out.iterdir())):
        raise SettingsError(
            f"{out} exists and is no run folder (it has no {SETTINGS})", "choose another --out, or empty it yourself"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_settings(out, asked)  # so that --resume knows what was asked even before the first step
    return asked, 0


def read_settings(file: Path, kind: type[Training]) -> Training:
    """The settings a run was made with; raises SettingsError naming those that only a newer groundup knows."""
    values = read_toml(file)
    if unknown := [name for name in values if name not in kind.model_fields]:
        raise SettingsError(f"{file} holds settings unknown here: {', '.join(unknown)}", atomic.UPGRADE)
    return kind.create(**values)


def empty(out: Path) -> None:
    """Remove everything in a folder but the lock of the process that holds it."""
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def merge(saved: Training, asked: Training) -> Training:
    """Settings of a resumed run: the saved ones, with those changes that leave it the same run."""
    given = asked.model_fields_set - {"resume", "out", "dry_run"}
    changed = {name: getattr(asked, name) for name in given if not _alike(name, saved, asked)}
    budget = set(asked.budgets) - {"minutes"}
    for name, value in changed.items():
        if name not in asked.may_change_on_resume:
            raise SettingsError(
                f"a resumed run cannot change '{name}' from {getattr(saved, name)!r} to {value!r}",
                f"leave {flag(name)} out, or start a new run with another --out",
            )
    if budget & changed.keys():
        changed |= {name: None for name in (budget | {"minutes"}) - changed.keys()}
    return saved.replace(**changed, resume=True, dry_run=asked.dry_run, out=asked.out)


def _alike(name: str, saved: Training, asked: Training) -> bool:
    """Whether a setting is what it was; a path may be spelled in another way."""
    one, other = getattr(saved, name), getattr(asked, name)
    return one == other or (name == "model" and Path(one).resolve() == Path(other).resolve())


def write_settings(out: Path, settings: Training) -> None:
    """Put the resolved settings into the run folder."""
    text = settings.replace(resume=False, dry_run=False).to_toml()
    atomic.write_text(out / SETTINGS, f"# groundup {settings.command}: the settings of this run\n{text}")


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, as it was at one instant: what `save` writes, now or while training goes on."""

    step: int
    model: Exported
    state: dict[str, Tensor]  # optimizer and random numbers
    progress: str  # state.json
    card: dict[str, Any]

    @property
    def bytes(self) -> int:
        """What it takes in memory, and on the disk."""
        return space.of([*self.model.tensors.values(), *self.state.values()])


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, *, progress: Progress, rng: Mapping[str, Tensor],
             card: dict[str, Any]) -> Snapshot:  # fmt: skip
    """Gather what a checkpoint holds; on a CPU most tensors are those in training (see `apart`)."""
    place = progress.batches or {}
    drawn = {f"batches.{name}": value for name, value in place.items() if isinstance(value, Tensor)}
    tensors = {f"rng.{name}": value for name, value in rng.items()} | _optimizer_tensors(model, optimizer) | drawn
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = dataclasses.replace(
        progress, batches={name: value for name, value in place.items() if not isinstance(value, Tensor)}
    )
    text = json.dumps({"format": FORMAT, **vars(told)}, indent=1)
    return Snapshot(progress.step, folder.exported(model), state, text, card)


def apart(taken: Snapshot, model: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """The same in memory of its own, which no later step changes; costs up to `taken.bytes`."""
    # cloned here and not by the thread that writes: torch's threads and the order of training stay out of it
    live = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    live |= {torch.as_tensor(value).untyped_storage().data_ptr()
             for state in optimizer.state.values() for value in state.values()}  # fmt: skip

    def own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.clone() if value.untyped_storage().data_ptr() in live else value
                for name, value in tensors.items()}  # fmt: skip

    apart = dataclasses.replace(taken.model, tensors=own(taken.model.tensors))
    return dataclasses.replace(taken, model=apart, state=own(taken.state))


def save(out: Path, taken: Snapshot, tokenizer: Tokenizer, *, keep: int = 1) -> Path:
    """Write a checkpoint aside, put it in place, renew RUN/model from it, and drop the oldest ones.

    Returns the folder of the checkpoint. The previous checkpoint stays whole until the new one is on the disk.
    Raises NoRoom where the disk is full, with the file that did not fit.
    """
    target = out / "state" / f"step-{taken.step:08d}"
    with atomic.written_aside(target, needed=taken.bytes) as aside:
        (aside / "model").mkdir()
        folder.write_model(aside / "model", taken.model, tokenizer, card=taken.card)
        folder.write_tensors(aside / "state.safetensors", taken.state)
        with space.writing(aside / "state.json"):
            (aside / "state.json").write_text(taken.progress, encoding="utf-8")
    publish(out, target)
    for old in checkpoints(out)[keep:]:
        atomic.remove(old)
    return target


def publish(out: Path, checkpoint: Path) -> None:
    """Make RUN/model the weights of a checkpoint."""
    with atomic.written_aside(out / "model") as aside:
        atomic.copy(checkpoint / "model", aside)


def tidy(out: Path) -> None:
    """Remove what a killed process left half-written; only for the process that holds the folder."""
    atomic.clean(out / "state", "step-*")
    for name in ("model", "best"):
        atomic.settle(out / name)
        atomic.clean(out, name)


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, newest first; a folder that a person renamed is none of them."""
    found = [path for path in (out / "state").glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name[5:]), reverse=True)


def latest(out: Path) -> Path | None:
    """The newest checkpoint, checked byte for byte; None if the run has none.

    A damaged one is never passed over in silence: going back costs the steps since, and a disk that lost bytes once is
    worth a look. Raises CheckpointError naming the file, the newest older checkpoint that is whole (`--keep`), and how
    to go on from there.
    """
    found = checkpoints(out)
    if not found:
        return None
    try:
        atomic.verify(found[0], complete=True)
        return found[0]
    except CheckpointError as error:
        older = next((path for path in found[1:] if _whole(path)), None)
        if older is None or error.fix == atomic.UPGRADE:
            raise
        advice = (
            f"or rename {found[0]} to {found[0].name}.damaged: --resume then goes on from {older.name}, which is whole"
        )
        raise CheckpointError(error.what, f"restore it from a copy, {advice}") from None


def _whole(checkpoint: Path) -> bool:
    try:
        return atomic.verify(checkpoint, complete=True)
    except CheckpointError:
        return False


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor]]:
    """Fill model and optimizer from a checkpoint; returns where the run stood and its random-number state."""
    progress = _progress(checkpoint / "state.json")
    try:
        tensors = load_file(checkpoint / "state.safetensors")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{checkpoint} cannot be read: {error}", "use an older checkpoint, or start a new run"
        ) from None
    folder.restore(model, checkpoint / "model")
    _fill_optimizer(model, optimizer, tensors)
    progress.batches = (progress.batches or {}) | _named("batches.", tensors)
    return progress, _named("rng.", tensors)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _progress(path: Path) -> Progress:
    """Where a run stood; raises CheckpointError for what only a newer groundup writes, or for what is not there."""
    values = atomic.read_json(path)
    version = values.pop("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(f"{path} has format {version}, this groundup knows {FORMAT}", atomic.UPGRADE)
    known = {field.name for field in dataclasses.fields(Progress)}
    if unknown := sorted(values.keys() - known):
        raise CheckpointError(f"{path} holds what is unknown here: {', '.join(unknown)}", atomic.UPGRADE)
    return Progress(**values)


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
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
