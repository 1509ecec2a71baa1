"""`groundup export`: hand a model on to other programs, and ask one of them whether it arrived.

In: `settings.Export`. Out: a folder for transformers, a GGUF file, a folder for Ollama, or tiktoken's rank file; and
`Result`: what was written, what to type next, what the other program said.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.checkpoint import atomic, finite, folder, ollama, space
from groundup.checkpoint.folder import Loaded
from groundup.checkpoint.gguf import write as gguf
from groundup.commands import export_check
from groundup.commands.export_check import Check
from groundup.errors import SettingsError
from groundup.model import config_of
from groundup.model.config import BigramConfig
from groundup.model.heads import Classifier
from groundup.settings import Export, command_of
from groundup.tokens import Tokenizer
from groundup.tokens.ranks import to_tiktoken
from groundup.train import run as runs

ENDINGS = {"hf": "-hf", "gguf": ".gguf", "ollama": "-ollama", "tiktoken": ".tiktoken"}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# How a text is cut before bytes are joined, the only cut that our byte pairs have: GPT-2's, encoder.py of its release
CUT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BUILD = """\
import base64, json, pathlib, tiktoken
note = pathlib.Path("{note}")
about = json.loads(note.read_text(encoding="utf-8"))
lines = note.with_name(about["ranks"]).read_bytes().splitlines()
ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
encoding = tiktoken.Encoding(about["name"], pat_str=about["pat_str"], mergeable_ranks=ranks, \
special_tokens=about["special_tokens"])"""


@dataclass(frozen=True)
class Result:
    """What was written: `bytes` in all of `files` at `out`, remarks on it, commands to type next, what was checked.

    `ok` is False where another program opened it and computed something else; then `next` is empty.
    """

    model: Path
    to: str
    out: Path
    dtype: str
    bytes: int
    files: list[str]
    remarks: list[str]
    next: list[str]
    checks: list[Check]
    ok: bool


def run(settings: Export) -> Result:
    """Write the model for another program; nothing that is already there is touched.

    >>> run(Export(model="runs/first", to="gguf", dtype="q8_0")).out  # doctest: +SKIP
    PosixPath('runs/first-q8_0.gguf')
    """
    if not settings.model:
        raise SettingsError("no model was given", "name a run or model folder: groundup export runs/NAME --to gguf")
    dtype = _dtype(settings)
    out = settings.out or _beside(settings.model, settings.to, dtype)
    _refuse_what_is_there(out, settings.to)
    chosen = _chosen(settings.model)
    loaded = folder.load(chosen, classifier=None if settings.to == "hf" else False)
    dtype = _stored(loaded.model) if dtype == "auto" else dtype
    out.parent.mkdir(parents=True, exist_ok=True)
    _, name = _place(settings.model)
    remarks = _write(out, settings.to, loaded, name, dtype)
    if str(chosen) != settings.model:
        remarks = [f"the weights are those of {chosen}, which test.json and groundup predict speak of", *remarks]
    files = _files(out, settings.to)
    checks = _checks(out, settings.to, loaded, dtype) if settings.check else []
    ok = all(check.outcome != "failed" for check in checks)
    return Result(
        model=loaded.folder,
        to=settings.to,
        out=out,
        dtype=dtype,
        bytes=sum(file.stat().st_size for file in files),
        files=[file.name for file in files],
        remarks=remarks,
        next=_next(out, settings.to, loaded, name) if ok else [],
        checks=checks,
        ok=ok,
    )


# where and in which format


def _dtype(settings: Export) -> str:
    """The number format asked for; "auto" is left for a folder, which keeps what is stored."""
    if settings.to == "tiktoken":
        if settings.dtype != "auto":
            raise SettingsError(f"--dtype {settings.dtype} was given, but tiktoken has no weights", "leave --dtype out")
        return "none"
    if settings.to == "hf" and settings.dtype not in ("auto", *DTYPES):
        raise SettingsError(
            f"{settings.dtype} is a number format of GGUF files, a Hugging Face folder has none like it",
            "give --dtype f32, f16 or bf16, or --to gguf",
        )
    return "f16" if settings.dtype == "auto" and settings.to != "hf" else settings.dtype


def _stored(model: nn.Module) -> str:
    """The format that the weights are in."""
    there = next(model.parameters()).dtype
    return next(name for name, dtype in DTYPES.items() if dtype == there)


def _beside(model: str, to: str, dtype: str) -> Path:
    """Where an export goes that was given no place: beside the model, named after it.

    >>> _beside("runs/first", "gguf", "q8_0").as_posix(), _beside("gpt2", "tiktoken", "none").as_posix()
    ('runs/first-q8_0.gguf', 'gpt2.tiktoken')
    """
    parent, name = _place(model)
    return parent / (name + (f"-{dtype}" if to == "gguf" else "") + ENDINGS[to])


def _place(model: str) -> tuple[Path, str]:
    """The folder that a model lies in, and what to call it: the last part of its path, without a file's ending.

    RUN/model and RUN/best are parts of a run, in which nothing else is written: they stand for RUN and RUN-best.

    >>> _place("runs/gpt-0.5")[1], _place("models/smol.Q4_1.gguf")[1]
    ('gpt-0.5', 'smol.Q4_1')
    """
    path = _with_a_name(Path(model))
    if path.name in ("model", "best") and (path.parent / runs.SETTINGS).is_file():
        run = _with_a_name(path.parent)
        return run.parent, run.name + ("-best" if path.name == "best" else "")
    return path.parent, re.sub(r"\.(gguf|bin)$", "", path.name) or "model"


def _chosen(model: str) -> str | Path:
    """The weights that a name means: of a run of `groundup classify` its best ones, as for `groundup predict`."""
    file, best = Path(model) / runs.SETTINGS, Path(model) / "best"
    return best if file.is_file() and command_of(file) == "classify" and best.is_dir() else model


def _with_a_name(path: Path) -> Path:
    """A path that ends in a name, which . and .. do not."""
    return path if path.name not in ("", "..") else path.resolve()


def _refuse_what_is_there(out: Path, to: str) -> None:
    """Raise SettingsError before anything is read when an export would replace a file, or has no folder to go to."""
    taken = [path for path in (out, *([_note(out)] if to == "tiktoken" else [])) if path.exists() or path.is_symlink()]
    if taken:
        advice = "delete it first, or choose another --out"
        if to == "tiktoken" and taken == [_note(out)]:
            advice = f"delete it first: without {out.name} it is half of an export; or choose another --out"
        if out.is_dir() and to in ("gguf", "tiktoken"):
            advice = f"give a file name: --out {out / 'NAME'}{ENDINGS[to]}"
        raise SettingsError(f"{taken[0]} is already there", advice)
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise SettingsError(f"{above} is a file, so nothing can be written to {out}", "choose another --out")


def _files(out: Path, to: str) -> list[Path]:
    if to == "tiktoken":
        return [out, _note(out)]
    return sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]


# the four writers


def _write(out: Path, to: str, loaded: Loaded, name: str, dtype: str) -> list[str]:
    """Write it; returns what a person should know about the result, a sentence each."""
    if to == "gguf":
        return _write_gguf(out, loaded, name, dtype)
    if to == "ollama":
        return _write_ollama(out, loaded, name, dtype)
    if to == "hf":
        _write_hf(out, loaded, dtype)
    else:
        write_tiktoken(out, loaded.tokenizer, name)
    return []


def _write_hf(out: Path, loaded: Loaded, dtype: str) -> None:
    """A copy of the native folder, which is a Hugging Face folder; only the number format may change.

    Raises CheckpointError for weights that are not finite, or would not be in that format.
    """
    target = DTYPES[dtype]
    limit, wider = torch.finfo(target).max, "give --dtype bf16 or f32" if dtype == "f16" else "give --dtype f32"
    for name, parameter in loaded.model.named_parameters():
        finite.checked(parameter.detach(), name, kind=dtype, limit=limit, wider=wider)
    folder.save_model(out, loaded.model.to(target), loaded.tokenizer, card=loaded.card)


def _write_gguf(out: Path, loaded: Loaded, name: str, dtype: str) -> list[str]:
    return gguf.write(out, loaded.model, loaded.tokenizer, dtype=dtype, card={"name": name} | loaded.card)


def _write_ollama(out: Path, loaded: Loaded, name: str, dtype: str) -> list[str]:
    """A folder with the GGUF file and the Modelfile that names it; whole or not there."""
    file = f"{name}-{dtype}.gguf"
    text = ollama.modelfile(loaded.tokenizer, file, config_of(loaded.model).context)
    with atomic.written_aside(out) as aside:
        remarks = _write_gguf(aside / file, loaded, name, dtype)
        with space.writing(aside / "Modelfile", len(text)):
            (aside / "Modelfile").write_text(text, encoding="utf-8", newline="\n")
    return remarks


def write_tiktoken(out: Path, tokenizer: Tokenizer, name: str) -> None:
    """Write a rank file, and beside it `OUT.json`: what tiktoken must be told besides, and the lines that build it.

    The note comes first and goes again where the ranks cannot be written; a kill in between leaves it alone. Raises
    TokenizerError for a tokenizer that tiktoken cannot express.
    """
    ranks = to_tiktoken(tokenizer)
    about: dict[str, Any] = {
        "name": name,
        "ranks": out.name,
        "pat_str": CUT,
        "special_tokens": tokenizer.special,
        "build": BUILD.replace("{note}", _note(out).name).splitlines(),
    }
    atomic.write_text(_note(out), json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    try:
        atomic.write_text(out, ranks.decode("ascii"))
    except BaseException:
        _note(out).unlink()
        raise


def _note(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


# afterwards


def _checks(out: Path, to: str, loaded: Loaded, dtype: str) -> list[Check]:
    if to == "hf":
        return export_check.check_folder(out, loaded)
    if to == "tiktoken":
        return export_check.check_tiktoken(_note(out), loaded)
    if to == "gguf":
        return export_check.check_gguf(out, loaded, dtype)
    [file] = out.glob("*.gguf")
    modelfile = Check("Modelfile", "Ollama", "not checked", "not checked: Ollama is not run from here")
    return [*export_check.check_gguf(file, loaded, dtype), modelfile]


def _next(out: Path, to: str, loaded: Loaded, name: str) -> list[str]:
    """What a person would type now, ready to be pasted."""
    if to == "gguf":
        return [shlex.join(["llama-cli", "-m", str(out), "-p", "Once", "-n", "100"])]
    if to == "ollama":
        # Ollama's names: lower case, digits, and single signs between them
        called = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
        return [shlex.join(["ollama", "create", called, "-f", str(out / "Modelfile")]), f"ollama run {called}"]
    if to == "tiktoken":
        return [f'the lines under "build" in {_note(out)}, in Python']
    if isinstance(config_of(loaded.model), BigramConfig):  # a network that no other program has
        return [shlex.join(["groundup", "generate", str(out)])]
    if isinstance(loaded.model, Classifier):
        made = f'pipeline("text-classification", {json.dumps(str(out))})("...")'
        return [
            shlex.join(["groundup", "predict", str(out), "--text", "..."]),
            shlex.join(["python", "-c", f"from transformers import pipeline; print({made})"]),
        ]
    made = f'pipeline("text-generation", {json.dumps(str(out))})("Once")[0]["generated_text"]'
    return [
        shlex.join(["python", "-c", f"from transformers import pipeline; print({made})"]),
        shlex.join(["vllm", "serve", str(out)]),
    ]


def show(result: Result) -> None:
    """Print what was written, what was checked, and what to type next."""
    kind = "" if result.dtype == "none" else f" in {result.dtype}"
    print(f"written  {result.out}{kind}, {space.size(result.bytes)}: {', '.join(result.files)}")
    for remark in result.remarks:
        print(f"note     {remark}")
    for check in result.checks:
        print(f"{'FAILED' if check.outcome == 'failed' else 'check':7}  {check.words}")
    if not result.ok:
        print(f"the file is kept; do not hand it on before you know why: {result.out}")
    for number, line in enumerate(result.next):
        print(f"{'' if number else 'next':7}  {line}")
