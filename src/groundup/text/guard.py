"""The one rule for files of a folder from elsewhere: they lie in that folder.

In: a folder, and the name of a file in it, which may itself have come out of a file. Out: its path, once that is a
plain file inside the folder, or among the blobs that Hugging Face's cache keeps beside its folders of links.
"""

import os
from pathlib import Path

from groundup.errors import CheckpointError, UserError

LONGEST = 255  # bytes of a name, on all usual file systems


def is_name(name: str) -> bool:
    r"""True for what can be the name of a file and is no path, on any system.

    >>> [is_name(name) for name in ("model.ckpt", "", "..", "a/b", "C:a", "a\\b", "a\0b")]
    [True, False, False, False, False, False, False]
    """
    plain = name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\:")
    return plain and len(name.encode()) <= LONGEST


def inside(folder: Path, name: str, *, depth: int = 1, error: type[UserError] = CheckpointError) -> Path:
    """The path of a file in the folder; raises `error` for one that is missing, no plain file, or leads out of it.

    `depth`: how many names may stand in `name`, parted by "/". A link may lead to another file of the folder, or from
    SNAPSHOT to SNAPSHOT/../../blobs as in the cache of Hugging Face's hub.

    >>> inside(Path("gpt"), "../letters.txt")
    Traceback (most recent call last):
    groundup.errors.CheckpointError: gpt names a file outside of it: '../letters.txt'
      -> use a model from a place you trust
    """
    parts, path = name.split("/"), folder / name
    outside = error(f"{folder} names a file outside of it: {name[:100]!r}", "use a model from a place you trust")
    if len(parts) > depth or not all(is_name(part) for part in parts):
        raise outside
    try:
        there = path.is_file()
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}", "check the file and its permissions") from None
    if not there:  # nor is a pipe or a device a file: reading one may never end
        raise error(f"{path} is missing", "give a complete model folder, or restore the file from a copy")
    home = folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if in_hub(home) else [home]
    if not any(path.resolve().is_relative_to(place) for place in homes):
        raise outside
    return path


def optional(folder: Path, name: str, *, error: type[UserError] = CheckpointError) -> Path | None:
    """`inside` for a file that a folder may lack: None where nothing of that name is a file."""
    return inside(folder, name, error=error) if os.path.isfile(folder / name) else None


def in_hub(home: Path) -> bool:
    """True for a folder, links resolved, of the hub's cache: NAME/snapshots/REVISION.

    >>> in_hub(Path("/cache/models--a--b/snapshots/1f"))
    True
    """
    return home.parent.name == "snapshots"
