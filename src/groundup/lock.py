"""One process at a time in a folder.

In: a folder, and what this process is about to do there. Out: `FOLDER/.lock`, held by the operating system until the
work ends or the process dies, however it dies; whoever comes second is told who is there.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import UserError

LOCK = ".lock"
FAR = 1 << 30  # Windows lets nobody read a locked byte, so the one locked lies far behind the note
UNKNOWN_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # some network file systems have no locks


@contextmanager
def locked(folder: Path, *, doing: str) -> Iterator[None]:
    """Hold a folder for this process alone; `doing` is what others are told, such as "groundup pretrain".

    The folder is made if need be, and removed again if it was and is still empty at the end. A process that is forked
    inside holds the folder too, until it ends. Where the file system has no locks, nothing is held.
    Raises UserError if another process, or another part of this one, is there, or if the folder cannot be written.

    >>> import tempfile
    >>> with locked(Path(tempfile.mkdtemp()), doing="groundup pretrain"):
    ...     pass
    """
    folder = Path(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(folder)
    except OSError as error:
        what = f"cannot write {folder}: {error.strerror or error}"
        raise UserError(what, "make room, check permissions, or choose another folder") from None
    try:
        _write(file, {"pid": os.getpid(), "doing": doing, "host": socket.gethostname(), "since": time.time()})
        yield
    finally:
        _release(file, folder / LOCK)
        if new:
            with contextlib.suppress(OSError):  # something was made in it
                folder.rmdir()


def _acquire(folder: Path) -> int:
    """The open, locked lock file. The one before may have removed it between our opening and locking: then again."""
    path = folder / LOCK
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(file):
                raise _in_use(folder, path)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except (OSError, UserError):
            os.close(file)
            raise
        os.close(file)


def _try_lock(file: int) -> bool:
    """Lock without waiting; False if another has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        if error.errno not in UNKNOWN_HERE:
            raise
    return True


def _release(file: int, path: Path) -> None:
    """Remove the file and let go: elsewhere in this order, on Windows (an open file cannot be removed) in the other."""
    first, second = (lambda: os.close(file)), (lambda: path.unlink(missing_ok=True))
    for step in (first, second) if sys.platform == "win32" else (second, first):
        with contextlib.suppress(OSError):  # the next process has it open already, or the folder is gone
            step()


def _write(file: int, note: dict[str, object]) -> None:
    """Leave a note for others; on a full disk it stays empty, and the lock holds all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(note).encode("utf-8"))


def _in_use(folder: Path, path: Path) -> UserError:
    """Who is there, as far as the note says."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        begun, there = time.localtime(note["since"]), "" if note["host"] == socket.gethostname() else note["host"]
        today = begun[:3] == time.localtime()[:3]
        since = time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", begun)
        who = f"process {note['pid']}{there and f' on {there}'} ({note['doing']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return UserError(f"{folder} is in use by {who}", "wait until it is done, stop it, or choose another folder")
