"""Every kind of file, packed: the same documents as unpacked; every way to break one: a message, never a wrong text."""

import gzip
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from groundup.errors import DataError
from groundup.text import files, packed, read

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
CONTENT = {
    ".txt": b"\xef\xbb\xbfOne \xc3\xa9t\xc3\xa9.\r\nTwo.\n",
    ".md": b"# One\n",
    ".jsonl": b'{"text": "one"}\n\n{"text": "t\\u00e9"}\n',
    ".csv": b'text;n\n"one;\nmore";1\n"two";2\n',
    ".tsv": b"n\ttext\n1\tone\n",
}


def texts(path: Path) -> list[str]:
    [source] = read.sources([str(path)])
    pieces = list(source.pieces())
    return "".join(piece.text + ("\0" if piece.ends else "") for piece in pieces).split("\0")[:-1]


def some_text(size: int) -> bytes:
    """Text that packs to about half."""
    rng = random.Random(0)
    return "".join(f"{rng.randrange(10**9)} words\n" for _ in range(size // 16)).encode()


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", CONTENT)
def test_packed_files_hold_the_same_documents(tmp_path: Path, kind: str, packing: str) -> None:
    (tmp_path / f"a{kind}").write_bytes(CONTENT[kind])
    (tmp_path / f"b{kind}{packing.upper()}").write_bytes(PACK[packing](CONTENT[kind]))
    plain, unpacked = texts(tmp_path / f"a{kind}"), texts(tmp_path / f"b{kind}{packing.upper()}")
    assert plain and plain == unpacked
    first, second = read.sources([str(tmp_path)])
    assert read.survey(first).sha256 == read.survey(second).sha256
    assert second.bytes == first.bytes == len(CONTENT[kind])  # so small a file is counted, not estimated


@pytest.mark.parametrize("packing", PACK)
def test_members_and_frames_make_one_text(tmp_path: Path, packing: str) -> None:
    path, pack = tmp_path / f"a.txt{packing}", PACK[packing]
    path.write_bytes(b"".join(pack(part) for part in (b"\xef", b"\xbb\xbf", b"one \xc3", b"", b"\xa9", b"\r", b"\nx")))
    assert texts(path) == ["one é\r\nx"]
    path = tmp_path / f"b.jsonl{packing}"
    path.write_bytes(b"".join(pack(part) for part in (b"\n", b'{"te', b'xt": "a"}', b"\n", b'{"text": "b"}')))
    assert texts(path) == ["a", "b"]


@pytest.mark.parametrize("beginning", [b"\n", b"\n\n", b" \n", b"  \n", b"\xef\xbb\xbf\n"])
def test_a_short_first_line_is_a_line(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(beginning + b"[1]\n")
    with pytest.raises(DataError, match=f"line {beginning.count(bytes([10])) + 1} holds a list"):
        texts(tmp_path / "a.jsonl")


def test_zstd_frames_to_be_skipped_are_skipped(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"  # RFC 8878, section 3.1.2
    (tmp_path / "a.txt.zst").write_bytes(skipped + zstandard.compress(b"one") + skipped + zstandard.compress(b" two"))
    assert texts(tmp_path / "a.txt.zst") == ["one two"]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, kind: str, packing: str) -> None:
    content = some_text(3000) if kind == ".txt" else b'{"text": "0123456789 abcdefghijklmnop"}\n' * 50
    whole = PACK[packing](content)
    path = tmp_path / f"a{kind}{packing}"
    for length in [*range(4, 20), *range(20, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"a{kind}{packing} is cut off after [\d,]+ bytes of content"):
            texts(path)
    path.write_bytes(whole)
    assert texts(path)


@pytest.mark.parametrize("packing", PACK)
def test_damage_is_refused_and_placed(tmp_path: Path, packing: str) -> None:
    content = some_text(4_000_000)
    pack = PACK[packing] if packing == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    whole = bytearray(pack(content))
    middle = len(whole) * 3 // 4
    whole[middle : middle + 64] = bytes(64)
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(whole)
    with pytest.raises(DataError, match="is damaged after ([1-9][\\d,]*) bytes of content") as found:
        texts(path)
    at = int(found.value.what.split("after ")[1].split(" ")[0].replace(",", ""))
    assert 0.5 * len(content) < at <= len(content)
    path.write_bytes(PACK[packing](b"one") + b"garbage at the end")
    with pytest.raises(DataError, match="is damaged after 3 bytes of content"):
        texts(path)


@pytest.mark.parametrize("packing", PACK)
def test_another_kind_of_file_under_the_name_is_refused(tmp_path: Path, packing: str) -> None:
    tool = {".gz": "gzip", ".zst": "zstd"}[packing]
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(b"%PDF-1.7")
    with pytest.raises(DataError, match=f"a.txt{packing} is no {tool} file: it begins with 25 50 44 46"):
        texts(path)
    path.write_bytes(PACK[packing](b"%PDF\xff"))
    with pytest.raises(DataError, match="is not UTF-8: byte 0xFF at offset 4"):
        texts(path)
    path.write_bytes(PACK[packing](b""))
    with pytest.raises(DataError, match="is empty"):
        texts(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        texts(path)
    (tmp_path / f"data{packing}").write_bytes(PACK[packing](b"x"))
    with pytest.raises(DataError, match=f"unknown kind of file '{packing}'\n.*data.txt{packing}"):
        texts(tmp_path / f"data{packing}")
    (tmp_path / f"data.tar{packing}").write_bytes(PACK[packing](b"x"))
    with pytest.raises(DataError, match=f"unknown kind of file '.tar{packing}'"):
        texts(tmp_path / f"data.tar{packing}")


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACK)
def test_one_endless_line_is_refused_in_bounded_memory(
    tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_ROW", 1 << 20)
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(PACK[packing](b'{"text": "' + bytes(256 << 20)))
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"line 1 is longer than 1,048,576 bytes"):
            texts(path)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20  # zstd: up to 32 MiB of one step
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", PACK)
def test_the_bytes_inside_are_estimated(tmp_path: Path, packing: str) -> None:
    content = some_text(6_000_000)
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(PACK[packing](content))
    [source] = read.sources([str(path)])
    assert source.bytes == pytest.approx(len(content), rel=0.25)
    assert path.stat().st_size < 0.6 * len(content)
    assert read.survey(source).bytes == len(content)


def test_folders_and_globs_find_packed_files(tmp_path: Path) -> None:
    for name, content in {"a.txt.gz": gzip.compress(b"a"), "b.log.gz": gzip.compress(b"b"), "c.gz": b"c"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(json.dumps({"text": "d"}).encode()))
    for name in (str(tmp_path), str(tmp_path / "*")):
        assert [Path(source.name).name for source in read.sources([name])] == ["a.txt.gz", "d.jsonl.zst"]
    (tmp_path / "a.txt.gz").unlink()
    (tmp_path / "d.jsonl.zst").unlink()
    with pytest.raises(DataError, match=r"found \.gz, \.log\.gz\n.*each also as \.gz or \.zst"):
        read.sources([str(tmp_path)])


def test_without_zstandard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"x"))
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(DataError, match=r'needs the package zstandard.*\n.*pip install "groundup\[data\]"'):
        read.sources([str(tmp_path / "a.txt.zst")])


@pytest.mark.parametrize("step", [1, 7, 1024])
def test_zstd_step_by_step(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "STEP", step)
    content = os.urandom(3000) + bytes(200_000) + os.urandom(10)
    (tmp_path / "a.bin.zst").write_bytes(zstandard.compress(content) + zstandard.compress(content))
    with packed.opened(tmp_path / "a.bin.zst") as stream:
        assert stream.read(5) == content[:5] and stream.tell() == 5
        assert stream.read() == (content * 2)[5:]
