"""No room is seen before a large write, and named with its file when it comes in the middle of one."""

import errno
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError

from groundup.checkpoint import atomic, space


def full(free):
    return lambda _path: shutil._ntuple_diskusage(10**9, 10**9 - free, free)


def test_too_little_room_is_refused_before_a_byte_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(space.shutil, "disk_usage", full(2_000_000))
    space.check(tmp_path / "a" / "b", 2_000_000)
    with pytest.raises(space.NoRoom, match=r"needs 3.0 MB, 2.0 MB free") as caught:
        space.check(tmp_path / "a" / "b", 3_000_000)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a" / "b")
    with pytest.raises(space.NoRoom), atomic.written_aside(tmp_path / "model", needed=3_000_000):
        raise AssertionError("nothing may be begun")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),  # as from file.write: without a name
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "another name"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_on_the_way_is_named(tmp_path, monkeypatch, error):
    monkeypatch.setattr(space.shutil, "disk_usage", full(0))
    with pytest.raises(space.NoRoom, match=r"needs 0.1 MB, 0.0 MB free") as caught, space.writing(tmp_path / "x", 9):
        raise error
    assert caught.value.filename == str(tmp_path / "x")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), SafetensorError("no such tensor"), ValueError("x")])
def test_other_errors_pass(tmp_path, error):
    with pytest.raises(type(error)) as caught, space.writing(tmp_path / "x"):
        raise error
    assert caught.value is error


def test_what_tensors_take_is_counted_in_bytes(tmp_path):
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(300, 100), "b": torch.zeros(7, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "x")
    size = (tmp_path / "x").stat().st_size
    assert size <= space.of(tensors.values()) <= size + space.SLACK


def test_a_text_that_does_not_fit_leaves_the_old_one(tmp_path, monkeypatch):
    atomic.write_text(tmp_path / "settings.toml", "old")
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(space.NoRoom) as caught:
        atomic.write_text(tmp_path / "settings.toml", "new")
    assert caught.value.filename == str(tmp_path / "settings.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"]
    assert (tmp_path / "settings.toml").read_text() == "old"
