"""Room on the disk: looked for before a large file is begun, and named where it runs out all the same.

In: the path that is to be written. Out: nothing, or `NoRoom`, which knows the file, what it needed and what was free.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # no space; a person's quota used up
SLACK = 1 << 16  # bytes for the small files beside the weights: config, card, hashes


class NoRoom(OSError):
    """The disk is full: `filename` is what was to be written, `strerror` says how much was needed and free."""


def check(path: Path, needed: int) -> None:
    """Raise NoRoom unless the disk of `path`, which need not exist yet, has room for `needed` more bytes.

    >>> check(Path("model.safetensors"), 1)
    """
    free = _free(path)
    if free < needed:
        raise NoRoom(errno.ENOSPC, f"needs {size(needed)}, {size(free)} free", str(path))


@contextlib.contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Name the file when the disk runs full inside the block: neither Python's `write` nor safetensors does.

    Raises NoRoom; every other error passes.
    """
    try:
        yield
    except NoRoom:
        raise
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        needs = f"needs {size(needed)}, " if needed else ""
        raise NoRoom(errno.ENOSPC, f"{needs}{size(_free(path))} free", str(path)) from error


def is_full(error: BaseException) -> bool:
    """True if an error says that the disk, or the person's share of it, is used up."""
    if isinstance(error, OSError):
        return error.errno in FULL
    # safetensors words the system's error, and gives nothing else of it
    return isinstance(error, SafetensorError) and any(f"(os error {number})" in str(error) for number in FULL | {112})


def of(tensors: Iterable[Tensor]) -> int:
    """Bytes that a file of these tensors takes, with what stands around it.

    >>> import torch
    >>> of([torch.zeros(2, 3)]) - SLACK
    24
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + SLACK


def size(count: int) -> str:
    """Bytes as a person reads them.

    >>> size(5_000), size(1_540_000_000)
    ('0.1 MB', '1,540.0 MB')
    """
    return f"{max(count / 1e6, 0.1 if count else 0):,.1f} MB"


def _free(path: Path) -> int:
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free
