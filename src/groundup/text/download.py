"""An address -> a verified file in the cache folder.

In: a `Remote`: an address and, where known, sha256 and size. Out: the file under its final name. It gets that name only
after its hash was checked. What a broken connection or a kill left is kept beside it as `NAME.part`, with a note
`NAME.part.json` that tells the server which version it is a part of, and goes on from there. A lock keeps a second
process waiting until the first is done. Where no hash is known, that of the first download is trusted: it is written to
`NAME.sha256` (as sha256sum writes it) and checked from then on.

HTTP is left to requests, which tiktoken brings along anyway: redirects, proxies, certificates, time limits.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from groundup.errors import DataError

if TYPE_CHECKING:
    from requests import Response

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all

CONNECT, READ = 10.0, 30.0  # seconds until a silent server is given up
ATTEMPTS = 5  # in a row without a new byte
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the second attempt, doubled each time
BLOCK = 1 << 18  # bytes
LATER = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A public file: `sha256` "" and `bytes` 0 where unknown; `member` is the one to take out of a zip file."""

    name: str
    address: str
    sha256: str = ""
    bytes: int = 0
    member: str = ""


class _Again(Exception):
    """An attempt failed in a way that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class _Restart(_Again):
    """The same, and the part at hand is of no use."""


def silent(doing: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def cache() -> Path:
    """The folder of downloads: `$GROUNDUP_CACHE`, or the place the system has for such things."""
    chosen = os.environ.get("GROUNDUP_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "groundup" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "groundup"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundup"


def fetch(remote: Remote, path: Path, *, progress: Progress = silent) -> Path:
    """The file at `path`, verified; downloaded if it is not there yet.

    Raises DataError without a network, for an address that does not answer as it should, for content with another hash
    (which is deleted), and where there is no room.
    """
    if path.is_file():
        verify(path, sha256=remote.sha256 or pinned(path), name=remote.name, address=remote.address)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(remote, path, progress):
            if not path.is_file():  # another process may have brought and verified it while this one waited
                _bring(remote, path, progress)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def verify(path: Path, *, sha256: str, name: str, address: str) -> None:
    """Raise DataError unless the file has this sha256; "" is nothing to compare with."""
    found = digest(path) if sha256 else ""
    if found != sha256:
        raise DataError(
            f"{path} is not the catalog's '{name}': sha256 {found}, expected {sha256}",
            f"delete it and fetch it again from {address}, or give the file by its path to use it as it is",
        )


def digest(path: Path) -> str:
    """The sha256 of a file, in hex; raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check its permissions") from None


def pinned(path: Path) -> str:
    """The sha256 written down beside the file at its first download; "" if there is none."""
    note = _beside(path, ".sha256")
    return note.read_text(encoding="utf-8").split(" ")[0].strip() if note.is_file() else ""


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


@contextmanager
def _alone(remote: Remote, path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of one file; while another process has it, show how far that one is."""
    from filelock import FileLock, Timeout

    lock, part = FileLock(_beside(path, ".lock")), _beside(path, ".part")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            done = part.stat().st_size if part.exists() else 0
            progress(f"another process downloads {remote.name}", done, max(remote.bytes, done))
    try:
        yield
    finally:
        lock.release()


def _bring(remote: Remote, path: Path, progress: Progress) -> None:
    """Download, verify, rename. A part from an earlier process may have been damaged, so it gets a second chance."""
    part = _beside(path, ".part")
    goes_on = part.exists()
    _download(remote, part, progress)
    whole = _member(remote, part) if remote.member else part
    expected = remote.sha256 or pinned(path)
    found = digest(whole)
    if expected and found != expected:
        _discard(part)
        whole.unlink(missing_ok=True)
        if goes_on:
            return _bring(remote, path, progress)
        raise DataError(
            f"{remote.address} sent other content than the catalog's '{remote.name}': "
            f"sha256 {found}, expected {expected}",
            "it was deleted. The file may have changed at its source, or somebody between altered it; "
            "to use it as it is, fetch it yourself and give its path",
        )
    if not expected:
        _beside(path, ".sha256").write_text(f"{found}  {path.name}\n", encoding="utf-8")
    _sync(whole)
    os.replace(whole, path)
    _discard(part)


def _sync(path: Path) -> None:
    """Bring the content to the disk before the file gets its final name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)


def _download(remote: Remote, part: Path, progress: Progress) -> None:
    """Fill `part`, with as many attempts as bring something new, and then ATTEMPTS more."""
    failed, furthest = 0, part.stat().st_size if part.exists() else 0
    if remote.bytes and furthest == remote.bytes and not remote.member:
        return  # stopped between the last byte and the new name
    while True:
        try:
            return _attempt(remote, part, progress)
        except _Again as trouble:
            here = part.stat().st_size if part.exists() else 0
            failed, furthest = (1, here) if here > furthest else (failed + 1, furthest)
            if failed >= ATTEMPTS:
                kept = f"; {here:,} bytes are kept, repeat the command to go on" if here else ""
                raise DataError(
                    f"cannot download '{remote.name}' from {remote.address}: {trouble}",
                    f"check the network, or fetch it elsewhere and give its path{kept}",
                ) from None
            time.sleep(min(max(PAUSE * 2 ** (failed - 1), trouble.wait), LONGEST_PAUSE))


def _attempt(remote: Remote, part: Path, progress: Progress) -> None:
    """One request, from where `part` ends; returns when all is there, raises `_Again` for what may pass."""
    import requests
    from urllib3.exceptions import HTTPError

    have, version = _known(part, remote)
    # identity: a packed answer could not be resumed. If-Range: all of it, should it have changed since.
    headers = {"Accept-Encoding": "identity", "User-Agent": "groundup"}
    headers |= {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    try:
        with requests.get(remote.address, headers=headers, stream=True, timeout=(CONNECT, READ)) as response:
            if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{have}":
                return  # it was all there: the process before was stopped just after the last byte
            start, total = _judged(remote, response, have)
            _check_room(remote, part, total - start)
            if not start:
                part.unlink(missing_ok=True)  # before the note, or old bytes could pass for the new version's
                _write_note(remote, part, response)
            _receive(response, part, start, lambda done: _watch(remote, done, total, progress))
    except _Restart:
        _discard(part)
        raise
    except requests.Timeout:
        raise _Again("the server does not answer in time") from None
    except requests.exceptions.SSLError as error:
        raise DataError(
            f"{remote.address} has no valid certificate: {_reason(error)}", "check the clock and the proxy"
        ) from None
    except requests.ConnectionError as error:
        raise _Again(f"no connection ({_reason(error)})") from None
    except (requests.RequestException, HTTPError) as error:
        raise _Again(_reason(error)) from None
    size = part.stat().st_size
    if total and size != total:
        raise _Again(f"{size:,} of {total:,} bytes came")


def _known(part: Path, remote: Remote) -> tuple[int, str]:
    """The bytes at hand and the version they are of; (0, "") where going on would not be safe."""
    try:
        note = json.loads(_beside(part, ".json").read_text(encoding="utf-8"))
        size, version = part.stat().st_size, note["version"] if note["address"] == remote.address else ""
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""
    return (size, str(version)) if version and size else (0, "")


def _write_note(remote: Remote, part: Path, response: "Response") -> None:
    """Note which version the part is of, as If-Range wants it: a strong ETag, else a date (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    note = {"address": remote.address, "version": version}
    _beside(part, ".json").write_text(json.dumps(note), encoding="utf-8")


def _judged(remote: Remote, response: "Response", have: int) -> tuple[int, int]:
    """Where the answer begins and how many bytes the file has in all, 0 if the server does not say."""
    status, headers = response.status_code, response.headers
    if status == 416:
        raise _Restart(f"the server has nothing beyond {have:,} bytes")
    if status in LATER:
        wait = headers.get("Retry-After", "")
        raise _Again(f"the server answers {status} {response.reason}", float(wait) if wait.isdecimal() else 0.0)
    if status not in (200, 206):
        raise DataError(
            f"{remote.address} answers {status} {response.reason}",
            f"'{remote.name}' may have moved: fetch it elsewhere and give its path, or try a newer groundup",
        )
    if headers.get("Content-Encoding", "identity") != "identity":
        raise DataError(f"{remote.address} comes packed as {headers['Content-Encoding']}", "fetch it by hand")
    length = int(headers.get("Content-Length") or 0)
    if not (length or response.raw.chunked or remote.sha256):
        what = f"{remote.address} does not say how long it is, and no hash of '{remote.name}' is known"
        raise DataError(what, "a part of it could not be told from the whole: fetch it by hand")
    if status == 200:
        total, start = length, 0
    else:
        place = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
        if not place or int(place[1]) != have:
            raise _Restart(f"the server sent another part than was asked for: {headers.get('Content-Range')}")
        total, start = (int(place[3]) if place[3] != "*" else length and have + length), have
    if remote.bytes and total not in (0, remote.bytes) and not remote.member:
        raise DataError(
            f"{remote.address} has {total:,} bytes, the catalog's '{remote.name}' {remote.bytes:,}: not the same file",
            "fetch it elsewhere and give its path",
        )
    return start, total


def _receive(response: "Response", part: Path, start: int, watch: Callable[[int], None]) -> None:
    """Write the body into the part from `start` on."""
    with part.open("r+b" if start else "wb") as file:
        done = file.seek(start)
        while block := response.raw.read1(BLOCK):  # read would wait for a whole block, and lose it if the line broke
            file.write(block)
            done += len(block)
            watch(done)


def _watch(remote: Remote, done: int, total: int, progress: Progress) -> None:
    """Show how far it is; stop a server that sends more than there can be."""
    limit = remote.bytes if remote.bytes and not remote.member else 0
    if limit and done > limit:
        raise DataError(f"{remote.address} sends more than the {limit:,} bytes of '{remote.name}'", "fetch it by hand")
    progress(f"downloading {remote.name}", done, max(total, done))


def _check_room(remote: Remote, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DataError(
            f"no room for '{remote.name}' in {part.parent}: {needed:,} bytes needed, {free:,} free",
            "make room, or set the environment variable GROUNDUP_CACHE to a folder on a larger disk",
        )


def _member(remote: Remote, part: Path) -> Path:
    """Take one file out of a zip file, beside it."""
    out = _beside(part, ".member")
    try:
        with zipfile.ZipFile(part) as archive, archive.open(remote.member) as packed, out.open("wb") as file:
            _copy(packed, file, limit=remote.bytes)
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError, zlib.error) as error:
        _discard(part)
        out.unlink(missing_ok=True)
        raise DataError(
            f"{remote.address} is no zip file with {remote.member} inside: {error}", "fetch it by hand"
        ) from None
    return out


def _copy(source: Any, target: BinaryIO, *, limit: int) -> None:
    """At most one byte more than `limit`, which the hash then refuses: a zip file may unpack to anything."""
    left = limit + 1
    while left > 0 and (block := source.read(min(BLOCK, left))):
        target.write(block)
        left -= len(block)


def _unwritable(path: Path, error: OSError) -> DataError:
    what = f"cannot write {path.parent}: {error.strerror or error}"
    if error.errno in NO_ROOM:
        advice = "make room and repeat the command, which goes on, or set GROUNDUP_CACHE to a folder on a larger disk"
        return DataError(what, advice)
    return DataError(what, "check its permissions, or set the environment variable GROUNDUP_CACHE to another folder")


def _reason(error: BaseException) -> str:
    """The innermost cause in its own words: libraries wrap it three times over."""
    while error.__context__ is not None:
        error = error.__context__
    return str(getattr(error, "strerror", "") or error)[:200]
