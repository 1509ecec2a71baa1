"""The catalog against the files themselves, and what it says when they are not there."""

import hashlib
from pathlib import Path

import pytest

from groundup.errors import DataError
from groundup.text import catalog, read


@pytest.mark.parametrize("name", catalog.ENTRIES)
def test_entries_describe_the_files(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    entry, path = catalog.ENTRIES[name], catalog.find(name)
    assert path.stat().st_size == entry.bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    assert entry.address.startswith("https://") and entry.licence and entry.citation


def test_the_story_and_the_plays_have_their_known_lengths(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    verdict, plays = read.sources(["the-verdict", "tinyshakespeare"])
    assert read.survey(verdict).characters == 20_479  # figure book.2.2.chars
    assert read.survey(plays).characters == 1_115_394
    assert (verdict.name, plays.name) == ("the-verdict", "tinyshakespeare")


def test_an_absent_file_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path))
    entry = catalog.ENTRIES["the-verdict"]
    with pytest.raises(DataError) as found:
        read.sources(["the-verdict"])
    assert str(tmp_path / entry.file) in found.value.what and entry.address in found.value.fix
    monkeypatch.delenv("GROUNDUP_DATA")
    with pytest.raises(DataError) as found:
        read.sources(["the-verdict"])
    assert entry.address in found.value.fix and "GROUNDUP_DATA" in found.value.fix and entry.file in found.value.fix


def test_another_file_under_the_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path))
    path = tmp_path / catalog.ENTRIES["the-verdict"].file
    path.parent.mkdir()
    path.write_bytes(b"I HAD always thought")
    with pytest.raises(DataError, match="is not the catalog's 'the-verdict': sha256"):
        read.sources(["the-verdict"])


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'wikitext-2'"):
        catalog.find("wikitext2")
