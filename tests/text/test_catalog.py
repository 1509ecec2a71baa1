"""The catalog against the files themselves, and where it takes them from."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import pytest

from groundup.errors import DataError
from groundup.text import catalog, download, read

sys.path.insert(0, str(Path(__file__).parent))
from hostile import good, plain, serving  # noqa: E402

HERE = [name for name, entry in catalog.ENTRIES.items() if entry.sha256]  # the sample data has these


@pytest.mark.parametrize("name", HERE)
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


def test_every_entry_says_where_it_is_from_and_what_is_allowed() -> None:
    for entry in catalog.ENTRIES.values():
        assert entry.address.startswith("https://") and entry.licence and entry.citation
        assert bool(entry.sha256) == bool(entry.bytes)
        assert entry.sha256 or "first download" in entry.note
        assert entry.address.endswith(".zip") == bool(entry.member)


def test_an_absent_file_is_downloaded_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"I HAD always thought Jack Gisburn rather a cheap genius"
    seen: list[str] = []
    entry = catalog.ENTRIES["the-verdict"]
    with serving(good(content)) as server:
        known = {"address": server.address, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        monkeypatch.setitem(catalog.ENTRIES, "the-verdict", dataclasses.replace(entry, **known))
        monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path))  # a mirror that lacks it
        assert catalog.local("the-verdict") is None
        [source] = read.sources(["the-verdict"], progress=lambda doing, done, total: seen.append(doing))
        assert [piece.text for piece in source.pieces()] == [content.decode()]
        assert source.name == "the-verdict" and set(seen) == {"downloading the-verdict"}
        assert catalog.local("the-verdict") == cache / entry.file == catalog.find("the-verdict")
        monkeypatch.delenv("GROUNDUP_DATA")
        assert catalog.find("the-verdict") == cache / entry.file
        assert len(server.seen) == 1
        (cache / entry.file).unlink()
        server.answers[:] = [plain(b"?" * len(content))]
        with pytest.raises(DataError, match="sent other content than the catalog's 'the-verdict'"):
            read.sources(["the-verdict"])
        assert not list(cache.rglob("*.txt"))


def test_the_mirror_comes_first(data_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    in_cache = cache / catalog.ENTRIES["the-verdict"].file
    in_cache.parent.mkdir(parents=True)
    in_cache.write_bytes(b"?")
    assert catalog.find("the-verdict") == data_dir / catalog.ENTRIES["the-verdict"].file == catalog.local("the-verdict")


def test_without_a_network_an_absent_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROUNDUP_DATA", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with pytest.raises(DataError) as found:
        read.sources(["the-verdict"])
    assert found.value.what.startswith("cannot download 'the-verdict' from https://raw.githubusercontent.com/")
    assert "check the network" in found.value.fix and "path" in found.value.fix


def test_a_mirror_may_pin_a_hash_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path))
    path = tmp_path / catalog.ENTRIES["fineweb-edu-sample"].file
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert catalog.find("fineweb-edu-sample") == path
    path.with_name(path.name + ".sha256").write_text(f"{'0' * 64}  {path.name}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"expected {'0' * 64}"):
        catalog.find("fineweb-edu-sample")


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
