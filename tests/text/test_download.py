"""Downloads against servers that are slow, stop, lie or fail: the right file, or none and a message."""

import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from groundup.errors import DataError
from groundup.text import download
from groundup.text.download import Remote, fetch

sys.path.insert(0, str(Path(__file__).parent))
from hostile import Hostile, good, hanging, plain, serving, status  # noqa: E402

CONTENT = random.Random(0).randbytes(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "LONGEST_PAUSE", 0.02)


def remote(server: Hostile, **facts: object) -> Remote:
    return Remote(**{"name": "set", "address": server.address, "sha256": SHA, "bytes": len(CONTENT), **facts})


def left(folder: Path) -> set[str]:
    """What lies in a folder, locks left out."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_is_brought_once(tmp_path: Path) -> None:
    path, seen = tmp_path / "deep" / "a.bin", []
    with serving(good(CONTENT)) as server:
        fetch(remote(server), path, progress=lambda *step: seen.append(step))
        assert path.read_bytes() == CONTENT and left(path.parent) == {"a.bin"}
        fetch(remote(server), path)
        assert len(server.seen) == 1
    assert seen[-1] == ("downloading set", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    path.write_bytes(CONTENT[:-1] + b"?")  # a disk that forgot
    with pytest.raises(DataError, match="is not the catalog's 'set': sha256"):
        fetch(remote(server), path)


@pytest.mark.parametrize("stop", [1, 1000, 299_999])
def test_broken_connections_are_gone_on_with(tmp_path: Path, stop: int) -> None:
    with serving(good(CONTENT, stop=stop), good(CONTENT, stop=stop // 2 + 1), status(503), good(CONTENT)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        asked = [request.get("Range") for request in server.seen]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and left(tmp_path) == {"a.bin"}
    assert asked[:2] == [None, f"bytes={stop}-"] and all(request["If-Range"] == '"v1"' for request in server.seen[1:])


def test_many_small_parts_are_no_failure(tmp_path: Path) -> None:
    with serving(good(CONTENT, stop=10_000)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert len(server.seen) == 30 > download.ATTEMPTS


def test_a_later_process_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with serving(good(CONTENT, stop=100_000), status(500)) as server:
        with pytest.raises(DataError, match="cannot download 'set'.*500.*\n.*100,000 bytes are kept, repeat"):
            fetch(remote(server), path)
        assert len(server.seen) == download.ATTEMPTS  # the first brought something, four did not
        assert left(tmp_path) == {"a.bin.part", "a.bin.part.json"}
        server.answers[:] = [good(CONTENT)]
        server.seen.clear()
        fetch(remote(server), path)
        assert [request["Range"] for request in server.seen] == ["bytes=100000-"]
    assert path.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    old = bytes(len(CONTENT))
    with serving(good(old, tag='"v0"', stop=5000), good(CONTENT)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert server.seen[1]["If-Range"] == '"v0"'
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_version_a_part_is_not_trusted(tmp_path: Path, tag: str) -> None:
    with serving(good(CONTENT, tag=tag, stop=5000), good(CONTENT, tag=tag)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert "Range" not in server.seen[1]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_begins_anew(tmp_path: Path) -> None:
    with serving(good(CONTENT, stop=5000), plain(CONTENT)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert "Range" in server.seen[1]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_another_range_than_asked_for_is_begun_anew(tmp_path: Path) -> None:
    def wrong(handler) -> None:
        handler.head(206, Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT)

    with serving(good(CONTENT, stop=5000), wrong, good(CONTENT)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert [request.get("Range") for request in server.seen] == [None, "bytes=5000-", None]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_part_is_not_fetched_again(tmp_path: Path, known: bool) -> None:
    """Killed after the last byte, before the new name."""
    with serving(good(CONTENT)) as server:
        (tmp_path / "a.bin.part").write_bytes(CONTENT)
        note = {"address": server.address, "version": '"v1"'}
        (tmp_path / "a.bin.part.json").write_text(json.dumps(note), encoding="utf-8")
        fetch(remote(server) if known else remote(server, sha256="", bytes=0), tmp_path / "a.bin")
        assert len(server.seen) == (0 if known else 1)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [5000, len(CONTENT) + 7])
def test_a_damaged_part_gets_a_second_chance(tmp_path: Path, size: int) -> None:
    with serving(good(CONTENT)) as server:
        (tmp_path / "a.bin.part").write_bytes(bytes(size))
        note = {"address": server.address, "version": '"v1"'}
        (tmp_path / "a.bin.part.json").write_text(json.dumps(note), encoding="utf-8")
        fetch(remote(server), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and left(tmp_path) == {"a.bin"}


@pytest.mark.parametrize("note", ["", "[]", '{"address": "elsewhere", "version": "1"}'])
def test_a_part_of_unknown_origin_is_not_used(tmp_path: Path, note: str) -> None:
    with serving(good(CONTENT)) as server:
        (tmp_path / "a.bin.part").write_bytes(b"?" * 5000)
        (tmp_path / "a.bin.part.json").write_text(note, encoding="utf-8")
        fetch(remote(server), tmp_path / "a.bin")
        assert "Range" not in server.seen[0]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


# liars


def test_another_content_is_refused_and_deleted(tmp_path: Path) -> None:
    lie = CONTENT[:-1] + b"?"
    other = hashlib.sha256(lie).hexdigest()
    with serving(good(lie)) as server:
        with pytest.raises(DataError, match=f"sent other content.*sha256 {other}, expected {SHA}"):
            fetch(remote(server), tmp_path / "a.bin")
        assert left(tmp_path) == set() and len(server.seen) == 1


def test_another_length_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with serving(good(CONTENT + b"?")) as server:
        with pytest.raises(DataError, match="has 300,001 bytes, the catalog's 'set' 300,000: not the same file"):
            fetch(remote(server), tmp_path / "a.bin")
    assert left(tmp_path) == set()


def test_a_server_that_announces_more_than_it_has_is_given_up(tmp_path: Path) -> None:
    with serving(plain(CONTENT, length=len(CONTENT) + 10, ETag='"v1"')) as server:
        with pytest.raises(DataError, match="cannot download 'set'"):
            fetch(remote(server, bytes=0), tmp_path / "a.bin")
        assert len(server.seen) == download.ATTEMPTS


def test_a_server_that_never_ends_is_stopped(tmp_path: Path) -> None:
    with serving(plain(CONTENT * 5, length=-1)) as server:
        with pytest.raises(DataError, match="sends more than the 300,000 bytes"):
            fetch(remote(server), tmp_path / "a.bin")


def test_without_hash_and_length_nothing_is_believed(tmp_path: Path) -> None:
    with serving(plain(CONTENT, length=-1)) as server:
        with pytest.raises(DataError, match="does not say how long it is, and no hash"):
            fetch(remote(server, sha256="", bytes=0), tmp_path / "a.bin")
        assert not (tmp_path / "a.bin").exists()
        fetch(remote(server), tmp_path / "b.bin")  # the hash tells
        assert (tmp_path / "b.bin").read_bytes() == CONTENT


def test_packed_answers_are_refused(tmp_path: Path) -> None:
    with serving(plain(CONTENT, Content_Encoding="gzip")) as server:
        with pytest.raises(DataError, match="comes packed as gzip"):
            fetch(remote(server), tmp_path / "a.bin")
        assert server.seen[0]["Accept-Encoding"] == "identity"


# trust on first use


def test_the_first_hash_is_kept_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with serving(good(CONTENT)) as server:
        unknown = remote(server, sha256="", bytes=0)
        fetch(unknown, path)
        assert (tmp_path / "a.bin.sha256").read_text(encoding="utf-8") == f"{SHA}  a.bin\n"
        fetch(unknown, path)
        path.write_bytes(b"altered")
        with pytest.raises(DataError, match=f"expected {SHA}"):
            fetch(unknown, path)
        path.unlink()
        fetch(unknown, path)
        path.unlink()
        server.answers[:] = [good(b"another" * 1000)]
        with pytest.raises(DataError, match=f"sent other content.*expected {SHA}"):
            fetch(unknown, path)
    assert left(tmp_path) == {"a.bin.sha256"}


# failures


def test_not_there(tmp_path: Path) -> None:
    with serving(status(404)) as server:
        with pytest.raises(DataError, match="answers 404 Not Found\n.*'set' may have moved"):
            fetch(remote(server), tmp_path / "a.bin")
        assert len(server.seen) == 1  # asking again would not help


def test_a_server_in_trouble_is_asked_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(download, "PAUSE", 1.0)
    monkeypatch.setattr(download, "LONGEST_PAUSE", 60.0)
    with serving(status(500), status(429, Retry_After=7), status(503, Retry_After=9999), good(CONTENT)) as server:
        fetch(remote(server), tmp_path / "a.bin")
    assert [pause for pause in slept if pause] == [1.0, 7.0, 60.0]


@pytest.mark.slow
def test_a_silent_server_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ", 0.3)
    with serving(hanging(CONTENT[:1000], length=len(CONTENT)), good(CONTENT)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert server.seen[1]["Range"] == "bytes=1000-"  # what came before the silence is kept
    with serving(hanging(seconds=0.5)) as server:
        with pytest.raises(DataError, match="cannot download 'set' from http://127.*: .*time"):
            fetch(remote(server, bytes=0), tmp_path / "b.bin")


def test_a_slow_server_is_waited_for(tmp_path: Path) -> None:
    with serving(good(CONTENT, pause=0.2)) as server:
        fetch(remote(server), tmp_path / "a.bin")
        assert len(server.seen) == 1


def test_no_network(tmp_path: Path) -> None:
    far = Remote(name="set", address="https://example.invalid/file", sha256=SHA)
    with pytest.raises(DataError, match="cannot download 'set'.*no connection \\(.*name resolution.*\n.*check the net"):
        fetch(far, tmp_path / "a.bin")
    with serving(status(200)) as server:
        closed = server.address
    with pytest.raises(DataError, match="no connection \\(Connection refused"):
        fetch(Remote(name="set", address=closed, sha256=SHA), tmp_path / "a.bin")
    assert left(tmp_path) == set()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(good(CONTENT)) as server:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 0, 1000))
        with pytest.raises(
            DataError, match="no room for 'set' in .*300,000 bytes needed, 1,000 free\n.*GROUNDUP_CACHE"
        ):
            fetch(remote(server), tmp_path / "a.bin")
        monkeypatch.undo()
        monkeypatch.setattr(download, "_receive", _full)
        with pytest.raises(DataError, match="cannot write .*No space left on device\n.*make room and repeat"):
            fetch(remote(server), tmp_path / "a.bin")


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write .*\n.*GROUNDUP_CACHE"):
        fetch(Remote(name="set", address="http://127.0.0.1:1/", sha256=SHA), tmp_path / "file" / "a.bin")


# zip


def archive(name: str, content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return held.getvalue()


def test_one_file_of_a_zip_file(tmp_path: Path) -> None:
    with serving(good(archive("inside.bin", CONTENT))) as server:
        fetch(remote(server, member="inside.bin"), tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == CONTENT and left(tmp_path) == {"a.bin"}
        with pytest.raises(DataError, match="is no zip file with other.bin inside"):
            fetch(remote(server, member="other.bin"), tmp_path / "b.bin")
        server.answers[:] = [good(archive("inside.bin", bytes(10 * len(CONTENT))))]
        with pytest.raises(DataError, match="sent other content"):
            fetch(remote(server, member="inside.bin"), tmp_path / "c.bin")
        server.answers[:] = [good(CONTENT)]
        with pytest.raises(DataError, match="is no zip file"):
            fetch(remote(server, member="inside.bin"), tmp_path / "d.bin")
    assert left(tmp_path) == {"a.bin"}


def test_a_zip_file_unpacks_no_further_than_needed() -> None:
    target = io.BytesIO()
    download._copy(io.BytesIO(bytes(10**7)), target, limit=1000)
    assert len(target.getvalue()) == 1001


# several processes

CODE = """
import sys
from pathlib import Path
from groundup.text.download import Remote, fetch
remote = Remote(name="set", address=sys.argv[1], sha256=sys.argv[2], bytes=300000)
fetch(remote, Path(sys.argv[3]), progress=lambda doing, done, total: print(doing, done, flush=True))
"""


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    yield os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NO_PROXY": "127.0.0.1"}


@pytest.mark.slow
def test_two_processes_at_once_download_once(tmp_path: Path, environment: dict[str, str]) -> None:
    with serving(good(CONTENT, pause=2.0)) as server:
        command = [sys.executable, "-c", CODE, server.address, SHA, str(tmp_path / "a.bin")]
        both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = sorted(process.communicate(timeout=60)[0].splitlines()[0].split(" set")[0] for process in both)
        assert [process.returncode for process in both] == [0, 0] and len(server.seen) == 1
    assert said == ["another process downloads", "downloading"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_killed_process_leaves_a_part_and_no_lock(tmp_path: Path, environment: dict[str, str]) -> None:
    with serving(good(CONTENT, pause=30.0), good(CONTENT)) as server:
        command = [sys.executable, "-c", CODE, server.address, SHA, str(tmp_path / "a.bin")]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while "150000" not in process.stdout.readline():
            pass
        process.kill()
        process.communicate()
        assert left(tmp_path) == {"a.bin.part", "a.bin.part.json"}
        fetch(remote(server), tmp_path / "a.bin")
        start = int(server.seen[1]["Range"].removeprefix("bytes=").removesuffix("-"))
        assert 0 < start <= 150_000
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_threads_wait_for_each_other_too(tmp_path: Path) -> None:
    with serving(good(CONTENT, pause=0.2)) as server:
        threads = [threading.Thread(target=fetch, args=(remote(server), tmp_path / "a.bin")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.seen) == 1


def test_importing_loads_no_network_library() -> None:
    code = "import sys; from groundup.text import read; "
    code += "print(sorted({'requests', 'filelock', 'pyarrow', 'zstandard'} & {*sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert download.cache() == Path(os.environ["GROUNDUP_CACHE"])
    monkeypatch.delenv("GROUNDUP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert download.cache() == tmp_path / "groundup"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert download.cache() == Path.home() / ".cache" / "groundup"
