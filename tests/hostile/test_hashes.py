"""Lists of hashes that lie, in folders of anyone's: every reader looks at hashes.json before all else."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from groundup.checkpoint import atomic
from groundup.errors import CheckpointError

ONE = {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one file, one folder in it, and a secret beside it."""
    there = tmp_path / "model"
    (there / "sub").mkdir(parents=True)
    for path in (there / "config.json", there / "sub" / "config.json", tmp_path / "secret"):
        path.write_text("{}", encoding="utf-8")
    (there / "link").symlink_to("../secret")
    return there


def listed(files: Any, version: Any = 1) -> bytes:
    """A list of hashes with a right digest, byte for byte as groundup writes it."""
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"format": version, "digest": digest, "files": files}, indent=1).encode()


def test_an_honest_list_is_believed(place, frugal):
    """Without this, every refusal below could be for another reason."""
    (place / "hashes.json").write_bytes(listed({"config.json": ONE, "sub/config.json": ONE}))
    with frugal():
        assert atomic.verify(place)


OUTSIDE = "names a file outside of it"
LISTS: dict[str, tuple[bytes, str]] = {
    "a number for a file": (listed({"config.json": 5}), "is not a list of hashes"),
    "nothing for a file": (listed({"config.json": {}}), "is not a list of hashes"),
    "a list for a file": (listed({"config.json": [2, "x"]}), "is not a list of hashes"),
    "a size of text": (listed({"config.json": ONE | {"bytes": "x"}}), "is not a list of hashes"),
    "a size of 2.0": (listed({"config.json": ONE | {"bytes": 2.0}}), "is not a list of hashes"),
    "a size of true": (listed({"config.json": ONE | {"bytes": True}}), "is not a list of hashes"),
    "a hash that is a number": (listed({"config.json": ONE | {"sha256": 1}}), "is not a list of hashes"),
    "more than size and hash": (listed({"config.json": ONE | {"run": "rm"}}), "is not a list of hashes"),
    "a version of true": (listed({"config.json": ONE}, version=True), "is not a list of hashes"),
    "a version of 4,000 digits": (listed({"config.json": ONE}, version=10**4000), "is not a list of hashes"),
    "a version below all": (listed({"config.json": ONE}, version=-1), "is not a list of hashes"),
    "a size of 4,000 digits": (listed({"config.json": ONE | {"bytes": 10**4000}}), "is not a list of hashes"),
    "the folder above": (listed({"../secret": ONE}), OUTSIDE),
    "up and down again": (listed({"sub/../../secret": ONE}), OUTSIDE),
    "absolute": (listed({"/etc/passwd": ONE}), OUTSIDE),
    "a drive": (listed({"C:secret": ONE}), OUTSIDE),
    "backslashes": (listed({"..\\secret": ONE}), OUTSIDE),
    "a link out": (listed({"link": ONE}), OUTSIDE),
    "no name": (listed({"": ONE}), OUTSIDE),
    "a null byte": (listed({"a\0b": ONE}), OUTSIDE),
    "half a character": (listed({"\ud800": ONE}), OUTSIDE),
    "a name of 5,000 letters": (listed({"a" * 5000: ONE}), OUTSIDE),
    "a hundred folders deep": (listed({"a/" * 100 + "b": ONE}), OUTSIDE),
    "a folder": (listed({"sub": ONE}), "sub is missing"),
    "brackets without end": (b"[" * 200_000, "cannot be read as JSON"),
    "a file that is brackets": (b'{"format": 1, "files": {"a": ' + b"[" * 200_000, "cannot be read as JSON"),
    "a number of a million digits": (b'{"format": ' + b"9" * 1_000_000 + b"}", "cannot be read as JSON"),
    "not UTF-8": (b"\xff\xfe", "cannot be read as JSON"),
    "3 MB": (b" " * 3_000_000, "has 3,000,000 bytes, more than 2,097,152"),
}


@pytest.mark.parametrize(("content", "message"), LISTS.values(), ids=LISTS.keys())
def test_a_lying_list(place, frugal, content, message):
    (place / "hashes.json").write_bytes(content)
    with frugal(), pytest.raises(CheckpointError, match=message) as found:
        atomic.verify(place)
    assert len(str(found.value)) < 1000


def test_a_list_of_a_terabyte_of_nothing(place, frugal):
    with (place / "hashes.json").open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            pytest.skip(f"this disk knows no holes: {error}")
    with frugal(), pytest.raises(CheckpointError, match="hashes.json has 1,099,511,627,776 bytes, more than"):
        atomic.verify(place)


def test_a_list_elsewhere_is_not_read(place, frugal):
    (place.parent / "hashes.json").write_bytes(listed({"config.json": ONE}))
    (place / "hashes.json").symlink_to("../hashes.json")
    with frugal(), pytest.raises(CheckpointError, match=OUTSIDE):
        atomic.verify(place)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("complete", [False, True])
def test_what_is_no_file_is_no_list(place, frugal, complete):
    """A pipe nobody writes to would be waited for, and zeros without end would fill the memory."""
    for made in (lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")):
        made(place / "hashes.json")
        with frugal():
            if complete:
                with pytest.raises(CheckpointError, match="hashes.json is missing"):
                    atomic.verify(place, complete=True)
            else:
                assert atomic.verify(place) is False
        (place / "hashes.json").unlink()
