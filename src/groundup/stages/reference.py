"""What the model to stay near says of pairs, said once: log-probabilities of both answers, kept in RUN/data.

In: rows of pairs, and the model as it is before its first step, or another one. Out: an array (n, 2) for each part of
the data; afterwards the same from reference.safetensors, so that a run that goes on needs no reference any more.

A reference may be of any width and depth, since all that is asked of it is how likely it finds the ids of an answer. It
must read the same ids, so its tokenizer has to be the same, and the longest row must fit into its context.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from groundup import model as models
from groundup.batches.pairs import Pairs
from groundup.checkpoint import atomic, folder
from groundup.checkpoint.identity import weights_hash
from groundup.errors import CheckpointError, ModelError, SettingsError
from groundup.evaluate.preference import pair_log_probabilities
from groundup.losses.preference import WITHOUT_REFERENCE
from groundup.machine import Machine
from groundup.model import lora
from groundup.settings import Dpo
from groundup.stages import tuning
from groundup.stages.paired import Rows
from groundup.stages.tuning import Opened
from groundup.tokens.tokenizer import Tokenizer

NAME = "reference.safetensors"
FIX = "put it back as it was, or start a new run with another --out"

Values = dict[str, NDArray[np.float32]]  # part of the data -> (n, 2) in nats: chosen, rejected


def place(out: Path) -> Path:
    """Where a run keeps what its reference said."""
    return out / "data" / NAME


def of(settings: Dpo, out: Path, opened: Opened, model: nn.Module, rows: Rows, machine: Machine) -> Values | None:
    """What the reference says of all pairs: read back where the run has it, else computed once and kept.

    The reference is `model` as it is now, before its first step, unless --reference names another. Adapters are turned
    off for it: zero as they are by then, this holds whatever they begin as. None for a loss without a reference; zeros
    in a dry run, which measures what a step costs.

    Raises CheckpointError for a run that has learnt and lost what its reference said, and as `read`, SettingsError as
    `named`, ModelError as `said`.
    """
    if settings.loss in WITHOUT_REFERENCE:
        return None
    marks = rows.fingerprints()
    kept = read(out, marks, sha256="" if settings.reference else opened.sha256)
    if kept is not None:
        return kept
    if settings.dry_run:
        return {name: np.zeros((len(part.rows), 2), dtype=np.float32) for name, part in rows.kept.items()}
    if tuning.resumes(out):
        raise CheckpointError(
            f"{place(out)} is missing, and the model it was computed with has learnt since",
            "restore it from a copy, or start a new run with another --out",
        )
    sources, sha256 = rows.sources(None), opened.sha256
    if settings.reference:
        longest = max(int(source.lengths.max()) for source in sources.values())
        model, sha256 = named(settings.reference, rows.taught.tokenizer, longest=longest)
    plain = lora.config_of(model) is None
    silent: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if plain else lora.off(model)
    with silent:
        values = said(model, sources, settings.micro_batch or settings.batch, machine=machine)
    write(out, values, marks, sha256=sha256)
    return values


def said(model: nn.Module, sources: Mapping[str, Pairs], rows: int, *, machine: Machine) -> Values:
    """What a model says of the pairs of each part, `rows` pairs at once; raises ModelError for numbers not finite."""
    model = model.to(machine.device)
    found = {name: pair_log_probabilities(model, source, rows, machine=machine) for name, source in sources.items()}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ModelError(
                f"the reference gives {int((~np.isfinite(values)).any(axis=1).sum()):,} {name} pairs log-probabilities "
                "that are not finite",
                "compute with --dtype fp32; if that does not help, its weights are damaged",
            )
    return found


def named(name: str, tokenizer: Tokenizer, *, longest: int) -> tuple[nn.Module, str]:
    """The model of --reference in fp32, and the sha256 of its weights.

    Raises SettingsError where it reads other ids than `tokenizer` writes, or fewer than the `longest` row has.
    """
    loaded = folder.load(name, dtype=torch.float32)
    if loaded.tokenizer.fingerprint != tokenizer.fingerprint:
        raise SettingsError(
            f"--reference {name} reads other ids than the model that is tuned: its tokenizer has "
            f"{loaded.tokenizer.vocabulary:,} ids, that of the model {tokenizer.vocabulary:,}, and they are not the "
            "same",
            "give a reference that was made from the same model, or leave --reference out",
        )
    room = models.config_of(loaded.model).context
    if room < longest:
        raise SettingsError(
            f"--reference {name} has a context of {room:,}, the longest row has {longest:,} tokens",
            f"cut rows with --context {room}, or give a reference with a longer context",
        )
    return loaded.model, weights_hash(loaded.folder)


def write(out: Path, values: Values, rows: Mapping[str, str], *, sha256: str) -> None:
    """Keep what was said: `rows` are the fingerprints of the parts, `sha256` is of the weights that said it."""
    path = place(out)
    aside = path.with_name(f".{NAME}.writing")
    told = {f"rows.{name}": mark for name, mark in rows.items()} | {"sha256": sha256, "digest": _digest(values)}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in values.items()}
    try:
        folder.write_tensors(aside, tensors, metadata=told)
        atomic.sync(aside)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, path)


def read(out: Path, rows: Mapping[str, str], *, sha256: str = "") -> Values | None:
    """What was kept, or None where nothing was.

    Raises CheckpointError where it was said of other rows, by another model than that of `sha256` (if one is named), or
    was altered.
    """
    path = place(out)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            told: dict[str, str] = file.metadata() or {}
            values = {name: np.array(file.get_tensor(name)) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", FIX) from None
    for name, mark in rows.items():
        if told.get(f"rows.{name}") != mark or name not in values:
            raise CheckpointError(f"{path} was computed for other {name} pairs than {path.parent} holds now", FIX)
    if told.get("digest") != _digest(values):
        raise CheckpointError(f"{path} was altered: its numbers are not those that were written", FIX)
    if sha256 and told.get("sha256") != sha256:
        raise CheckpointError(
            f"{path} was computed by another model: its weights had sha256 {told.get('sha256', '')[:12]}..., the model "
            f"of this run has {sha256[:12]}...",
            "put that model back, or start a new run with another --out",
        )
    return {name: values[name] for name in rows}


def _digest(values: Values) -> str:
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(f"{name} {values[name].shape} {values[name].dtype}\n".encode())
        digest.update(np.ascontiguousarray(values[name]).tobytes())
    return digest.hexdigest()
