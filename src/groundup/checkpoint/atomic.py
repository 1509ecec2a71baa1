"""Folders that appear whole or not at all, and that notice every changed byte.

In: a function's files written into a folder aside. Out: the target folder, replaced by renaming, with `hashes.json`
(size and SHA-256 of every file, and a digest of that list itself).
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.errors import CheckpointError

MANIFEST = "hashes.json"
FORMAT = 1  # raise it when an older groundup could misread what is written


@contextlib.contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give a folder to write into; when the block ends well, sync it to disk and put it in the place of `target`.

    A process killed at any instant leaves `target` as it was, as it shall be, or (between two renames) aside under a
    name that `settle` finds. If the block raises, `target` is untouched and the folder aside is removed.
    """
    settle(target)
    aside = _beside(target, "writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        seal(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _swap(aside, target)


def settle(target: Path) -> None:
    """Finish what a killed process left half-way: put an old folder back if its successor never came, else drop it."""
    old = _beside(target, "old")
    if not old.exists():
        return
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(old, target)


def remove(folder: Path) -> None:
    """Remove a folder so that a kill on the way never leaves half of it under its name."""
    old = _beside(folder, "old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _swap(aside: Path, target: Path) -> None:
    old = _beside(target, "old")
    if target.exists():
        os.rename(target, old)
    os.rename(aside, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Ask the system to put a file or a folder's list of names on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(folder: Path) -> None:
    """Write `hashes.json` over everything in the folder and sync all of it.

    A sub-folder that has a manifest of its own is covered through that manifest's hash and the files' own hashes.
    """
    files = {name: fingerprint(folder / name) for name in _names(folder)}
    text = json.dumps({"format": FORMAT, "digest": _digest(files), "files": files}, indent=1)
    write_text(folder / MANIFEST, text)
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def verify(folder: Path) -> bool:
    """Compare every file with `hashes.json`; False if the folder has none (made by another program).

    Raises CheckpointError naming the file that is missing, truncated or altered, and refuses newer formats.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return False
    content = read_json(manifest)
    version, files = content.get("format"), content.get("files")
    if not isinstance(version, int) or not isinstance(files, dict):
        raise CheckpointError(f"{manifest} is not a list of hashes", "restore the folder from a copy")
    if version > FORMAT:
        raise CheckpointError(
            f"{folder} has format {version}, this groundup knows {FORMAT}", "pip install --upgrade groundup"
        )
    if content.get("digest") != _digest(files):
        raise CheckpointError(
            f"{manifest} was altered: its own digest does not match", "restore the folder from a copy"
        )
    for name, expected in files.items():
        _compare(folder / name, expected)
    return True


def _compare(path: Path, expected: dict[str, Any]) -> None:
    fix = "restore it from a copy, or use another checkpoint of the run"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", fix)
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise CheckpointError(f"{path} is {'truncated' if size < expected['bytes'] else 'too long'}: "
                              f"{size:,} bytes instead of {expected['bytes']:,}", fix)  # fmt: skip
    if fingerprint(path)["sha256"] != expected["sha256"]:
        raise CheckpointError(f"{path} was altered: its SHA-256 does not match {MANIFEST}", fix)


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) != MANIFEST)


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def copy(source: Path, target: Path) -> None:
    """Copy a folder's files; weights get a second name instead (no space used) where the disk can do that."""
    for path in source.rglob("*"):
        there = target / path.relative_to(source)
        if path.is_dir():
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".safetensors" or not _linked(path, there):
            shutil.copyfile(path, there)


def _linked(path: Path, there: Path) -> bool:
    try:
        os.link(path, there)
    except OSError:  # another disk, or a file system without hard links
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one go: written beside it, synced, renamed."""
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing", "give a model or run folder that is complete") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", "restore the file from a copy") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object", "restore the file from a copy")
    return content
