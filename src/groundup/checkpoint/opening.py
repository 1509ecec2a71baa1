"""Any model, wherever it is from, as one `Source`: this file decides what a path or a name means.

In: a run folder, RUN/best, a model folder (ours or Hugging Face's), OpenAI's GPT-2 folder, a .gguf or llama2.c file, or
a name of the catalog (sources.py). Out: `Source`: its config, tokenizer and tensors, opened but not read. The network
is used only for a name, and only where no copy of that model is on this machine.
"""

import dataclasses
import errno
import shlex
from pathlib import Path

from groundup import tokens
from groundup.checkpoint import adapters, atomic, huggingface, identity, llama2c, openai, sources
from groundup.checkpoint.gguf import read as gguf
from groundup.checkpoint.huggingface import CARD
from groundup.checkpoint.source import Source
from groundup.errors import CheckpointError, nearest
from groundup.settings import command_of
from groundup.text.download import Progress
from groundup.tokens import prepare

LOOKED_FOR = (
    "looked for: a run or model folder (config.json), OpenAI's GPT-2 (hparams.json and checkpoint), one .gguf file, "
    "a llama2.c .bin file"
)
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle")
LONGEST = 200  # letters of a name that a message repeats
OPENAI = ("hparams.json", "checkpoint")  # the two files that no other format has together


def open_any(spec: str | Path, *, tokenizer: Path | None = None, progress: Progress | None = None) -> Source:
    """Open what a path or a catalog name stands for; a path that exists wins over a name.

    `tokenizer` belongs to a llama2.c file, whose weights come without one. A download shows how far it is on stderr,
    unless `progress` is to be told instead. Raises CheckpointError saying what was looked for, or what the format's own
    reader found wrong; TokenizerError likewise; DataError for a download that failed.

    >>> open_any("gpt-2")
    Traceback (most recent call last):
    groundup.errors.CheckpointError: there is no file or folder 'gpt-2', and no model of that name
      -> did you mean 'gpt2'? (groundup models lists the names)
    """
    path, name = Path(spec), str(spec)
    for place in (
        path,
        path / "model",
    ):  # a writer may have been killed between taking the old away and putting the new
        atomic.settle(place)
    if _exists(path):
        return _open_path(path, tokenizer)
    if name not in sources.ENTRIES:
        raise _unknown(path, name)
    with prepare.shown() as show:
        there = sources.find(name, progress=progress or show)
    found = _open_path(there, tokenizer)
    return dataclasses.replace(found, card=found.card | sources.card(name))


def kind_of(path: Path) -> str:
    """Which reader a file or folder is for: "huggingface" (ours too), "adapter", "openai", "gguf" or "llama2.c".

    Decided by names and the first bytes alone. Raises CheckpointError for anything else, saying what was looked for.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "stories.bin"
    >>> file.write_bytes(bytes(28))
    28
    >>> kind_of(file)
    'llama2.c'
    """
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder", LOOKED_FOR)
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix.lower() == ".gguf" or start == b"GGUF":
        return "gguf"
    if path.suffix.lower() in PICKLES or _is_pickle(start):
        raise CheckpointError(
            f"{path} is a pickle, which can run any code when it is opened",
            "give a model in safetensors form; a pytorch_model.bin is read, with care, through its folder",
        )
    if path.suffix.lower() == ".bin":
        return "llama2.c"
    beside = " Give the folder it lies in." if path.suffix.lower() in (".safetensors", ".json", ".index") else ""
    raise CheckpointError(f"{path} is no model file that groundup can open", LOOKED_FOR + "." * bool(beside) + beside)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # then nothing has it
            return False
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "check its permissions") from None


def _is_pickle(start: bytes) -> bool:
    """True for a zip (torch.save) or a bare pickle; a llama2.c file may begin with 80 02, too, then with two zeros."""
    bare = start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and start[2:] != bytes(2)
    return bare or start == b"PK\3\4"


def _open_path(path: Path, tokenizer: Path | None) -> Source:
    kind = kind_of(path)
    if kind == "llama2.c":
        return llama2c.open_source(path, tokenizer=tokenizer)
    if tokenizer is not None:
        raise CheckpointError(
            f"{path} ({kind}) brings its own tokenizer, {tokenizer} cannot stand in for it",
            "leave the tokenizer out: only llama2.c files need one",
        )
    if kind == "gguf":
        return gguf.open_source(_ggufs(path)[0] if path.is_dir() else path)
    if kind == "openai":
        return openai.open_source(path)
    if kind == "adapter":
        return _adapted(_model_folder(path))
    return huggingface.open_source(_model_folder(path))


def _adapted(folder: Path) -> Source:
    """The base that a folder of adapters was made on, opened, with the folder's own tokenizer and card."""
    atomic.verify(folder)
    named = adapters.base_of(folder)
    if any(adapters.is_adapter(place) for place in (Path(named), Path(named) / "model")):
        raise CheckpointError(f"{folder} stands on {named}, which holds adapters itself", "merge those first")
    base = open_any(named)
    made_on = adapters.config_in(folder).base_sha256
    if made_on and identity.weights_hash(base.path) != made_on:
        raise CheckpointError(
            f"{base.path} is not the model that the adapters in {folder} were trained on: its weights are others",
            "put that model back, or merge adapters while it is there: groundup export RUN --to hf",
        )
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = tokens.load(folder) if own else base.tokenizer
    card = huggingface.read_json(folder / CARD) if (folder / CARD).is_file() else base.card
    return dataclasses.replace(base, format="adapter", path=folder, tokenizer=tokenizer, card=card, adapter=folder)


def _kind_of_folder(path: Path) -> str:
    if any(adapters.is_adapter(folder) and not huggingface.holds_weights(folder) for folder in (path, path / "model")):
        return "adapter"
    packed, described = _ggufs(path), (path / "config.json").is_file()
    if described and huggingface.holds_weights(path):
        return "huggingface"
    if all((path / name).is_file() for name in OPENAI):
        return "openai"
    if described and not packed:  # where GGUF files are handed out, a config.json without weights may lie beside them
        return "huggingface"
    if len(packed) == 1:
        return "gguf"
    if packed:
        names = ", ".join(file.name for file in packed[:6]) + (" ..." if len(packed) > 6 else "")
        raise CheckpointError(f"{path} holds {len(packed)} .gguf files: {names}", "give one of them by its path")
    if (path / "model").is_dir() or (path / "settings.toml").is_file():
        return "huggingface"  # a run of ours; where it has no checkpoint yet, `_model_folder` says so
    hidden = f"; rename it to get the catalog's model {str(path)!r}" if str(path) in sources.ENTRIES else ""
    raise CheckpointError(f"{path} holds no model that groundup can open", LOOKED_FOR + hidden)


def _model_folder(path: Path) -> Path:
    """The folder with a config.json that RUN, RUN/best or a model folder means."""
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file() or adapters.is_adapter(folder):
            return folder
    if (settings := path / "settings.toml").is_file():
        again = f"groundup {command_of(settings)} --out {shlex.quote(str(path))} --resume"
        raise CheckpointError(f"the run in {path} has no checkpoint yet", f"go on with it: {again}")
    raise CheckpointError(
        f"{path} is no model folder: it has no config.json", "give a run folder, RUN/best or a model folder"
    )


def _ggufs(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())


def _unknown(path: Path, name: str) -> CheckpointError:
    """A slip in a name gets the nearest name; a slip in a path cannot."""
    short = name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
    if len(path.parts) > 1 or path.suffix.lower() in (".gguf", ".bin"):
        advice = "check the path; or give a name that `groundup models` lists"
        return CheckpointError(f"there is no file or folder at {short}", advice)
    advice = f"{nearest(name, sources.ENTRIES)} (groundup models lists the names)"
    return CheckpointError(f"there is no file or folder '{short}', and no model of that name", advice)
