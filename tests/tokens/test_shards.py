"""Shards keep ids exactly, and notice every change: read here once more by numpy and struct alone."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import DataError
from groundup.tokens import shards
from groundup.tokens.shards import Shards, ShardWriter

DOCUMENTS = st.lists(st.lists(st.integers(0, 65_535), min_size=1, max_size=9), max_size=9)


def write(path: Path, documents: list[list[int]], *, vocabulary: int = 65_536) -> Path:
    with ShardWriter(path, vocabulary=vocabulary, fingerprint="abc") as writer:
        for ids in documents:
            writer.begin()
            writer.add(np.array(ids), bytes=3 * len(ids))
        writer.close()
    return path


def starts(documents: list[list[int]]) -> list[int]:
    return [sum(map(len, documents[:number])) for number in range(len(documents))]


@settings(max_examples=60)
@given(documents=DOCUMENTS, vocabulary=st.sampled_from([65_536, 65_537]))
def test_a_file_is_what_its_page_says(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocabulary: int
) -> None:
    path = write(tmp_path_factory.mktemp("shards") / "a.tokens", documents, vocabulary=vocabulary)
    ids = [id for document in documents for id in document]
    raw = path.read_bytes()
    magic, version, length, crc = struct.unpack("<8sIII", raw[:20])
    header = json.loads(raw[20 : 20 + length])
    dtype = "<u2" if vocabulary == 65_536 else "<u4"
    assert (magic, version, crc) == (b"GROUNDUP", 1, zlib.crc32(raw[20 : 20 + length]))
    assert header["crc32"] == zlib.crc32(raw[1024:])
    assert (header["tokens"], header["documents"], header["bytes"]) == (len(ids), len(documents), 3 * len(ids))
    assert np.frombuffer(raw, dtype, len(ids), 1024).tolist() == ids
    at = len(raw) - 8 * len(documents)
    assert at % 8 == 0 and np.frombuffer(raw, "<u8", len(documents), at).tolist() == starts(documents)

    found = Shards.open(path, fingerprint="abc", check=True)
    assert found.tokens.tolist() == ids and found.documents.tolist() == starts(documents)
    assert (found.count, found.bytes, found.tokens.dtype) == (len(ids), 3 * len(ids), np.dtype(dtype))
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.tokens"]


def test_the_view_is_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    found = Shards.open(write(tmp_path / "a.tokens", [[1, 2], [3]]))
    assert isinstance(found.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.tokens[0] = 5


def test_a_document_without_ids_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    with ShardWriter(path, vocabulary=10, fingerprint="abc") as writer:
        for ids in ([], [1], [], [], [2, 3], []):
            writer.begin()
            writer.add(np.array(ids, dtype=np.uint32), bytes=0)
        writer.close()
    assert Shards.open(path).documents.tolist() == [0, 1, 3]  # 3: the last one, nothing came after


@settings(max_examples=40)
@given(documents=DOCUMENTS.filter(bool), data=st.data())
def test_a_writer_goes_on_from_its_state(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("states")
    whole = write(folder / "whole.tokens", documents).read_bytes()
    at = data.draw(st.integers(0, len(documents)))
    path, options = folder / "parts.tokens", {"vocabulary": 65_536, "fingerprint": "abc"}
    with ShardWriter(path, **options) as writer:
        for number, ids in enumerate(documents):
            if number == at:
                state = json.loads(json.dumps(writer.state()))
            writer.begin()
            writer.add(np.array(ids), bytes=3 * len(ids))
        state = state if at < len(documents) else writer.state()
    assert not path.exists()  # never closed
    with ShardWriter(path, **options, state=state) as writer:
        for ids in documents[at:]:
            writer.begin()
            writer.add(np.array(ids), bytes=3 * len(ids))
        writer.close()
    assert path.read_bytes() == whole


def test_every_changed_byte_and_every_length_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tokens", [[1, 2], [3, 4, 5]])
    raw = path.read_bytes()
    used = 20 + struct.unpack("<I", raw[12:16])[0]  # what follows, up to 1024, is padding that nobody reads
    for at in [*range(used), *range(1024, len(raw))]:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(DataError, match="a.tokens"):
            Shards.open(path)
    for length in [*range(0, 1100, 7), *range(len(raw) - 9, len(raw)), len(raw) + 1, len(raw) + 4096]:
        path.write_bytes(raw.ljust(length, b"\0")[:length])
        with pytest.raises(DataError, match="a.tokens"):
            Shards.open(path)
    path.write_bytes(raw)
    assert Shards.open(path).count == 5


def forged(raw: bytes, **changes: object) -> bytes:
    """A file with a changed header whose checksum is right."""
    header = json.loads(raw[20 : 20 + struct.unpack("<I", raw[12:16])[0]])
    text = json.dumps(header | changes).encode()
    return (struct.pack("<8sIII", b"GROUNDUP", 1, len(text), zlib.crc32(text)) + text).ljust(1024, b"\0") + raw[1024:]


def test_what_is_wrong_is_said_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tokens", [[1, 2], [3, 4, 5]])
    raw = path.read_bytes()
    with pytest.raises(DataError, match=r"made by another tokenizer: abc\.\.\., in use is xyz"):
        Shards.open(path, fingerprint="xyz")
    for content, message in {
        raw[:-3]: r"is truncated: 1,053 bytes, its header says 1,056",
        raw + b"12345": r"is longer than it should be: 1,061 bytes",
        raw[:1024] + b"\7" + raw[1025:]: r"was altered: checksum",
        raw[:8] + b"\2" + raw[9:]: r"format version 2, this groundup reads 1",
        b"PK" + raw: r"is not a file of token shards",
        b"": r"is not a file of token shards",
        raw[:40] + b"!" + raw[41:]: r"the header of .* is damaged",
        forged(raw, tokens=-1): r"makes no sense",
        forged(raw, tokens=10**15): r"is truncated",
        forged(raw, tokens="5"): r"makes no sense",
        forged(raw, dtype="object"): r"makes no sense",
        forged(raw, more=1): r"makes no sense",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            Shards.open(path)
    with pytest.raises(DataError, match="cannot read .*none.tokens"):
        Shards.open(tmp_path / "none.tokens")


def test_a_big_file_is_compared_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tokens", [[1, 2, 3]])
    raw = path.read_bytes()
    path.write_bytes(raw[:1024] + b"\7" + raw[1025:])
    monkeypatch.setattr(shards, "CHECK_AT_OPEN", 1000)
    with pytest.raises(DataError, match="was altered"):
        Shards.open(path).check()
    with pytest.raises(DataError, match="was altered"):
        Shards.open(path, check=True)


def test_unfinished_files_that_lost_bytes_are_refused(tmp_path: Path) -> None:
    path, options = tmp_path / "a.tokens", {"vocabulary": 9, "fingerprint": "abc"}
    with ShardWriter(path, **options) as writer:
        writer.begin()
        writer.add(np.arange(8), bytes=8)
        state = writer.state()
    ids, documents = shards.parts(path)
    ids.write_bytes(ids.read_bytes()[:-1])
    with pytest.raises(DataError, match="truncated: 1,039 of 1,040 bytes"):
        ShardWriter(path, **options, state=state)
    ids.write_bytes(b"x" * 1040)
    documents.write_bytes(b"")
    with pytest.raises(DataError, match="truncated: 0 of 8 bytes"):
        ShardWriter(path, **options, state=state)
