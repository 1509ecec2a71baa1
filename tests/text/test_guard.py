"""The one path guard: what a name may be, where a link may lead, and what counts as a file."""

import os

import pytest

from groundup.errors import CheckpointError, TokenizerError
from groundup.text.guard import inside, optional

OUTSIDE = ["", ".", "..", "a/b", "/etc/passwd", "../passwd", "a\\b", "a\0b", "a\nb", "C:a", "a" * 256, "\ud800"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_is_no_name(tmp_path, name):
    with pytest.raises(CheckpointError, match="names a file outside of it"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["a/../../b", "/a", "a//b", "a/", "a/b/c", "..", "a\\b/c"])
def test_a_path_of_two_names_is_two_names(tmp_path, name):
    (tmp_path / "model" / "a").mkdir(parents=True)
    (tmp_path / "model" / "a" / "b").write_text("x", encoding="utf-8")
    assert inside(tmp_path / "model", "a/b", depth=2) == tmp_path / "model" / "a" / "b"
    with pytest.raises(CheckpointError, match="names a file outside of it"):
        inside(tmp_path / "model", name, depth=2)


def test_links_may_stay_in_the_folder_and_not_leave_it(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    (folder / "file").write_text("x", encoding="utf-8")
    (folder / "good").symlink_to("file")
    (folder / "bad").symlink_to("../secret")
    (folder / "round").symlink_to("round")
    (tmp_path / "other").symlink_to("model")  # the folder itself may be reached by a link
    assert inside(tmp_path / "other", "good") == tmp_path / "other" / "good"
    with pytest.raises(CheckpointError, match="model names a file outside of it: 'bad'"):
        inside(folder, "bad")
    with pytest.raises(TokenizerError, match="outside of it"):
        optional(folder, "bad", error=TokenizerError)
    with pytest.raises(CheckpointError, match="round is missing"):
        inside(folder, "round")


def test_the_hubs_cache_may_link_to_its_blobs_and_nowhere_else(tmp_path):
    home = tmp_path / "models--a--b" / "snapshots" / "1f"
    blobs = tmp_path / "models--a--b" / "blobs"
    for place in (home, blobs):
        place.mkdir(parents=True)
        (place.parent / "beside").write_text("x", encoding="utf-8")
    (blobs / "abc").write_text("x", encoding="utf-8")
    (home / "good").symlink_to("../../blobs/abc")
    (home / "bad").symlink_to("../../beside")
    assert inside(home, "good") == home / "good"
    with pytest.raises(CheckpointError, match="outside of it: 'bad'"):
        inside(home, "bad")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe is missing"):
        inside(tmp_path, "pipe")
    assert optional(tmp_path, "pipe") is None and optional(tmp_path, "absent") is None
