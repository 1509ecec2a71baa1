"""Folders appear whole or not at all, and every changed byte is noticed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.checkpoint import atomic
from groundup.errors import CheckpointError


def write(folder, **files):
    with atomic.written_aside(folder) as aside:
        for name, text in files.items():
            (aside / name).write_text(text, encoding="utf-8")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "model"
    write(target, a="1", b="2")
    write(target, a="3")
    assert names(target) == ["a", "hashes.json"]
    assert (target / "a").read_text() == "3"
    assert names(tmp_path) == ["model"]


def test_an_error_inside_leaves_the_old_folder(tmp_path):
    target = tmp_path / "model"
    write(target, a="1")
    with pytest.raises(RuntimeError), atomic.written_aside(target) as aside:
        (aside / "a").write_text("half")
        raise RuntimeError("disk on fire")
    assert (target / "a").read_text() == "1"
    assert names(tmp_path) == ["model"]


def test_a_kill_between_the_two_renames_is_settled(tmp_path):
    target = tmp_path / "model"
    write(target, a="1")
    os.rename(target, tmp_path / ".model.old")  # the state between the renames of a replacement
    atomic.settle(target)
    assert (target / "a").read_text() == "1" and names(tmp_path) == ["model"]


def test_a_kill_before_the_old_folder_is_gone_is_settled(tmp_path):
    target = tmp_path / "model"
    write(tmp_path / ".model.old", a="1")
    write(target, a="2")
    assert (target / "a").read_text() == "2" and names(tmp_path) == ["model"]


def test_a_folder_of_a_person_is_neither_removed_nor_renamed(tmp_path):
    """A name like those of folders aside says nothing: only what has a list of hashes was put there by us."""
    letters = tmp_path / ".model.old"
    letters.mkdir()
    (letters / "thesis.txt").write_text("years of work")
    atomic.settle(tmp_path / "model")
    assert names(tmp_path) == [".model.old"]
    write(tmp_path / "model", a="1")
    atomic.settle(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"\.model\.old is in the way"):
        write(tmp_path / "model", a="2")
    with pytest.raises(CheckpointError, match=r"\.model\.old is in the way"):
        atomic.remove(tmp_path / "model")
    assert (letters / "thesis.txt").read_text() == "years of work" and (tmp_path / "model" / "a").read_text() == "1"


def test_our_old_folder_beside_a_new_one_of_another_program_is_left(tmp_path):
    write(tmp_path / ".model.old", a="1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    atomic.settle(tmp_path / "model")
    assert names(tmp_path) == [".model.old", "model"] and names(tmp_path / "model") == ["config.json"]


def test_what_a_kill_leaves_of_an_old_folder_can_be_told_from_a_persons(tmp_path, monkeypatch):
    """The list of hashes goes last, so the rest of such a folder stands in nobody's way."""
    target, gone = tmp_path / "model", []
    write(target, a="1", b="2")
    unlink = Path.unlink

    def killed(path, **options):
        if gone:
            raise KeyboardInterrupt
        gone.append(path.name)
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            write(target, a="3")
    assert gone and gone != ["hashes.json"] and "hashes.json" in names(tmp_path / ".model.old")
    write(target, a="4")
    assert names(tmp_path) == ["model"] and (target / "a").read_text() == "4"


@pytest.mark.parametrize("name", [".", "/"])
def test_a_place_without_a_name_has_nothing_beside_it(name):
    atomic.settle(Path(name))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "too long"),
        (lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]), "altered"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_damage_is_named(tmp_path, damage, word):
    write(tmp_path / "model", a="some weights", b="others")
    assert atomic.verify(tmp_path / "model")
    damage(tmp_path / "model" / "a")
    with pytest.raises(CheckpointError, match=word) as caught:
        atomic.verify(tmp_path / "model")
    assert os.fspath(tmp_path / "model" / "a") in str(caught.value)


def test_the_list_of_hashes_guards_itself(tmp_path):
    write(tmp_path / "model", a="1")
    manifest = tmp_path / "model" / "hashes.json"
    content = json.loads(manifest.read_text())
    content["files"].pop("a")
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="digest"):
        atomic.verify(tmp_path / "model")


def test_a_newer_format_is_refused_by_number(tmp_path):
    write(tmp_path / "model", a="1")
    manifest = tmp_path / "model" / "hashes.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(CheckpointError, match="format 7"):
        atomic.verify(tmp_path / "model")


def test_a_folder_of_another_program_has_no_hashes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert atomic.verify(tmp_path) is False


KILLED = """
import sys
from pathlib import Path
from groundup.checkpoint import atomic
target = Path(sys.argv[1])
for number in range(10**9):
    with atomic.written_aside(target) as aside:
        for name in "abcd":
            (aside / name).write_text(str(number) * 5000)
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.003, 0.007, 0.011])
def test_a_killed_writer_leaves_one_whole_folder(tmp_path, pause):
    """SIGKILL at an instant of no one's choosing: afterwards the folder verifies, and all its files are of one turn."""
    target = tmp_path / "model"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
    time.sleep(pause)
    child.kill()
    child.wait()
    child.stdout.close()
    atomic.settle(target)
    assert atomic.verify(target)
    assert len({(target / name).read_text() for name in "abcd"}) == 1
