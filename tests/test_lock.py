"""A folder belongs to one process at a time, and to nobody once that process is gone, however it went."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup import lock
from groundup.errors import UserError
from groundup.lock import LOCK, locked

HOLDER = """
import sys
from pathlib import Path
from groundup.lock import locked
with locked(Path(sys.argv[1]), doing="groundup pretrain"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(lock.__file__).parents[1])}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_told_who_is_there(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        clock = time.strftime("%H:%M")[:2]  # the minute may turn
        told = rf"{tmp_path.name} is in use by process {first.pid} \(groundup pretrain, since (\d\d:\d\d)\)"
        with pytest.raises(UserError, match=told) as found, locked(tmp_path, doing="groundup report"):
            pytest.fail("two hold the folder")
        assert clock in str(found.value)
        first.communicate("")
    assert not (tmp_path / LOCK).exists()
    with locked(tmp_path, doing="groundup report"):
        assert (tmp_path / LOCK).exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        first.kill()
    assert (tmp_path / LOCK).exists()  # it had no time to remove it
    with locked(tmp_path, doing="groundup pretrain"):
        pass
    assert not (tmp_path / LOCK).exists()


def test_this_process_twice_is_two(tmp_path: Path) -> None:
    with locked(tmp_path, doing="groundup pretrain"):
        message = rf"in use by process {os.getpid()} \(groundup pretrain"
        with pytest.raises(UserError, match=message), locked(tmp_path, doing="groundup prepare"):
            pytest.fail("held twice")
        assert (tmp_path / LOCK).exists()  # the one refused took nothing away


def test_a_folder_made_for_nothing_is_gone_again(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", doing="groundup pretrain"):
        pass
    assert not (tmp_path / "a" / "b").exists()
    with locked(tmp_path / "kept", doing="groundup pretrain"):
        (tmp_path / "kept" / "file").touch()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["file"]


def test_errors_inside_come_through_and_let_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, doing="groundup pretrain"):
        raise ZeroDivisionError
    with locked(tmp_path, doing="groundup pretrain"):
        pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}', "\x00" * 9])
def test_a_note_that_says_nothing(tmp_path: Path, note: str) -> None:
    with locked(tmp_path, doing="groundup pretrain"):
        (tmp_path / LOCK).write_text(note, encoding="utf-8")
        with pytest.raises(UserError, match="in use by another process"), locked(tmp_path, doing="x"):
            pytest.fail("held twice")


def test_other_days_and_other_machines_are_named(tmp_path: Path) -> None:
    with locked(tmp_path, doing="groundup pretrain"):
        note = '{"pid": 7, "doing": "groundup prepare", "host": "elsewhere", "since": 86400}'
        (tmp_path / LOCK).write_text(note, encoding="utf-8")
        told = r"process 7 on elsewhere \(groundup prepare, since 1970-01-0\d \d\d:00\)"
        with pytest.raises(UserError, match=told), locked(tmp_path, doing="x"):
            pytest.fail("held twice")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file"), locked(tmp_path / "file" / "deeper", doing="x"):
        pytest.fail("held")


def test_a_lock_file_replaced_while_it_is_taken_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes its file after we opened it: what we lock then is nobody's, so the one there now is taken."""
    real, calls = lock._try_lock, iter(range(9))

    def slow(file: int) -> bool:
        if next(calls) == 0:
            (tmp_path / LOCK).unlink()
            (tmp_path / LOCK).touch()
        return real(file)

    monkeypatch.setattr(lock, "_try_lock", slow)
    with (
        locked(tmp_path, doing="groundup pretrain"),
        pytest.raises(UserError, match="in use"),
        locked(tmp_path, doing="x"),
    ):
        pytest.fail("held twice")
