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
from typing import Any, TypeGuard

from groundup.checkpoint import space
from groundup.errors import CheckpointError
from groundup.text import guard

MANIFEST = "hashes.json"
FIX = "restore it from a copy, or use another checkpoint of the run"
UPGRADE = "it was written by a newer groundup: pip install --upgrade groundup"
LIMIT = 2 << 20  # bytes of a JSON file: a list of hashes, a config, an index has some 100 for each tensor or file
DEEPEST = 8  # folders in the name of a listed file
FORMAT = 1  # raise it when an older groundup could misread what is written


@contextlib.contextmanager
def written_aside(target: Path, *, needed: int = 0) -> Iterator[Path]:
    """Give a folder to write into; when the block ends well, sync it to disk and put it in the place of `target`.

    `needed`: bytes that are going to be written; raises NoRoom at once if the disk has not so many free.

    A process killed at any instant leaves `target` as it was, as it shall be, or (between two renames) aside under a
    name that `settle` finds. If the block raises, `target` is untouched and the folder aside is removed. Raises
    CheckpointError where a folder that is not ours has the name under which the old one would be kept meanwhile.
    """
    settle(target)
    if target.exists():
        _make_way(_beside(target, "old"))
    aside = _beside(target, "writing")
    shutil.rmtree(aside, ignore_errors=True)
    space.check(target, needed)
    try:
        with space.writing(target, needed):
            aside.mkdir(parents=True)
            yield aside
            seal(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _swap(aside, target)


def clean(folder: Path, names: str) -> None:
    """Remove what killed writers left aside in a folder, for targets that match the glob `names`.

    Only for the one process that may write there: a folder aside may be another's work in progress.
    """
    for what in ("writing", "old"):
        for path in folder.glob(f".{names}.{what}"):
            shutil.rmtree(path, ignore_errors=True)


def settle(target: Path) -> None:
    """Finish what a killed process left half-way: put an old folder back if its successor never came, else drop it.

    Only what has a list of hashes was made here: any other folder of such a name is a person's, and is left alone.
    """
    if not target.name:  # "." and "/" never were replaced
        return
    old = _beside(target, "old")
    with contextlib.suppress(OSError):  # its writer is alive, and has moved on in this very moment; or a name too long
        if not _is_sealed(old):
            return
        if not target.exists():
            os.rename(old, target)
        elif _is_sealed(target):
            _drop(old)


def _is_sealed(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _make_way(old: Path) -> None:
    """Free the name for an old folder; raises CheckpointError where something of a person's has it."""
    if _is_sealed(old):
        _drop(old)
    with contextlib.suppress(OSError):
        old.rmdir()  # empty: a killed `_drop` came that far
    if os.path.lexists(old):
        raise CheckpointError(f"{old} is in the way: groundup did not write it", "move it elsewhere, or rename it")


def _drop(folder: Path) -> None:
    """Remove a folder, its list of hashes last: what a kill leaves of it can still be told from a person's."""
    with contextlib.suppress(OSError):  # another process is at it as well
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MANIFEST:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def identity(path: Path) -> tuple[int, int] | None:
    """What changes when a file or folder is replaced by another of the same name; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def remove(folder: Path) -> None:
    """Remove a folder so that a kill on the way never leaves half of it under its name."""
    old = _beside(folder, "old")
    _make_way(old)
    os.rename(folder, old)
    _drop(old)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _swap(aside: Path, target: Path) -> None:
    old, replaced = _beside(target, "old"), False
    while True:
        if target.exists():
            os.rename(target, old)
            replaced = True
        try:
            os.rename(aside, target)
            break
        except OSError:
            if not target.exists():
                raise
            # a reader settled between our two renames and put the old folder back: take it away again
    sync(target.parent)
    if replaced:
        _drop(old)


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
    write_text(folder / MANIFEST, _manifest(files, FORMAT))
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def verify(folder: Path, *, complete: bool = False) -> bool:
    """Compare every file with `hashes.json`; False if the folder has none (made by another program).

    `complete`: the list must be there, and no file beside it; names that begin with a dot are the system's and are
    passed over. Raises CheckpointError naming the file that is missing, truncated, altered or not of the folder, and
    refuses newer formats.
    """
    manifest = guard.optional(folder, MANIFEST)
    if manifest is None:
        if complete:
            raise CheckpointError(f"{folder / MANIFEST} is missing", FIX)
        return False
    files = _listed(manifest)
    for name, expected in files.items():
        _compare(guard.inside(folder, name, depth=DEEPEST), expected)
    strange = [name for name in _names(folder) if name not in files and not Path(name).name.startswith(".")]
    if complete and strange:
        raise CheckpointError(f"{folder / strange[0]} does not belong there: {MANIFEST} does not name it",
                              "move it elsewhere")  # fmt: skip
    return True


def _listed(manifest: Path) -> dict[str, Any]:
    """The files that a manifest names, after it was checked itself, to the last byte."""
    content = read_json(manifest)
    version, files = content.get("format"), content.get("files")
    if _is_count(version) and version > FORMAT:
        raise CheckpointError(f"{manifest} has format {version}, this groundup knows {FORMAT}", UPGRADE)
    if not _is_count(version) or not isinstance(files, dict) or not all(map(_is_print, files.values())):
        raise CheckpointError(f"{manifest} is not a list of hashes", FIX)
    if content.get("digest") != _digest(files):
        raise CheckpointError(f"{manifest} was altered: its own digest does not match", FIX)
    # the digest covers the files; writing the list out again covers its version, its other names and its blanks
    if version < 1 or manifest.read_bytes() != _manifest(files, version).encode():
        raise CheckpointError(f"{manifest} was altered: it is not as groundup wrote it", FIX)
    return files


def _is_print(entry: Any) -> bool:
    """True for what `fingerprint` makes."""
    if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
        return False
    return _is_count(entry["bytes"]) and isinstance(entry["sha256"], str)


def _is_count(value: Any) -> TypeGuard[int]:
    """True for a whole number of 64 bits; True and False are numbers to Python, not here."""
    return type(value) is int and 0 <= value < 2**63


def _manifest(files: dict[str, Any], version: int) -> str:
    return json.dumps({"format": version, "digest": _digest(files), "files": files}, indent=1)


def _compare(path: Path, expected: dict[str, Any]) -> None:
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise CheckpointError(f"{path} is {'truncated' if size < expected['bytes'] else 'too long'}: "
                              f"{size:,} bytes instead of {expected['bytes']:,}", FIX)  # fmt: skip
    if fingerprint(path)["sha256"] != expected["sha256"]:
        raise CheckpointError(f"{path} was altered: its SHA-256 does not match {MANIFEST}", FIX)


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
            with space.writing(there, path.stat().st_size):
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
    try:
        with space.writing(path, len(text)), aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a size that such files have; raises CheckpointError naming the file."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is missing", "give a model or run folder that is complete")
        size = path.stat().st_size
        if size > LIMIT:
            raise CheckpointError(f"{path} has {size:,} bytes, more than {LIMIT:,}", "restore the file from a copy")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not JSON, brackets or digits without end
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", "restore the file from a copy") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object", "restore the file from a copy")
    return content
