"""Token ids on disk: one memory-mapped file per split, with document boundaries and a header that notices damage.

In: arrays of ids, document by document. Out: a `.tokens` file, and a read-only view of it that loads in no time.

The file, all numbers little-endian:

    offset 0     8 bytes   magic, GROUNDUP
    offset 8     4 bytes   format version
    offset 12    4 bytes   length of the JSON that follows
    offset 16    4 bytes   CRC-32 of that JSON
    offset 20              that JSON, a `Header`
    offset 1024            the ids: uint16 if the vocabulary fits, else uint32; zeros up to a multiple of 8 bytes
    then                   where each document starts: uint64, counted in ids

A file is written aside, under names ending in `.part`, and renamed when it is whole; until then it can be continued.
"""

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from groundup.errors import DataError

MAGIC, VERSION, START = b"GROUNDUP", 1, 1024
LEAD = struct.Struct("<8sIII")  # magic, version, length and CRC-32 of the JSON
BLOCK = 1 << 22
CHECK_AT_OPEN = 1 << 26  # bytes: smaller files are compared with their checksum whenever they are opened


@dataclass(frozen=True)
class Header:
    """What a `.tokens` file says about itself; `bytes` is the UTF-8 size of the text behind the ids."""

    dtype: str
    tokens: int
    documents: int
    bytes: int
    vocabulary: int
    fingerprint: str
    crc32: int

    @property
    def width(self) -> int:
        """Bytes per id."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def documents_at(self) -> int:
        """Where the document starts lie in the file."""
        end = START + self.tokens * self.width
        return end + -end % 8

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.documents_at + 8 * self.documents


def id_type(vocabulary: int) -> np.dtype:
    """The smallest type on disk that holds every id.

    >>> str(id_type(65536)), str(id_type(65537))
    ('uint16', 'uint32')
    """
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True)
class Shards:
    """A `.tokens` file, open for reading: `tokens` (1-D, ids) and `documents` (1-D, where each starts) stay on disk."""

    path: Path
    header: Header
    tokens: np.ndarray
    documents: np.ndarray

    @classmethod
    def open(cls, path: Path, *, fingerprint: str | None = None, check: bool | None = None) -> Self:
        """Map a file; raises DataError if it is damaged, of another format, or made by another tokenizer.

        `fingerprint` is that of the tokenizer in use. `check` compares the checksum (all of the file is read); by
        default only for files under 64 MiB. The length is always compared.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                header = _read_header(path, file)
            size = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror}", "make the shards with `groundup prepare`"
            ) from None
        if size != header.size:
            state = "truncated" if size < header.size else "longer than it should be"
            raise DataError(f"{path} is {state}: {size:,} bytes, its header says {header.size:,}", AGAIN)
        if fingerprint is not None and fingerprint != header.fingerprint:
            raise DataError(
                f"{path} was made by another tokenizer: {header.fingerprint[:16]}..., in use is {fingerprint[:16]}...",
                "prepare the text again with the tokenizer in use, or use the tokenizer.json beside the shards",
            )
        tokens = _map(path, id_type(header.vocabulary), START, header.tokens)
        shards = cls(path, header, tokens, _map(path, np.dtype("<u8"), header.documents_at, header.documents))
        if check or (check is None and size <= CHECK_AT_OPEN):
            shards.check()
        return shards

    @property
    def count(self) -> int:
        """Number of ids."""
        return self.header.tokens

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text behind the ids; end-of-text ids stand for none."""
        return self.header.bytes

    def check(self) -> None:
        """Read the whole file and compare it with its checksum; raises DataError if it was altered."""
        crc = 0
        try:
            with self.path.open("rb") as file:
                file.seek(START)
                while block := file.read(BLOCK):
                    crc = zlib.crc32(block, crc)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}", AGAIN) from None
        if crc != self.header.crc32:
            raise DataError(f"{self.path} was altered: checksum {crc:08x}, expected {self.header.crc32:08x}", AGAIN)


AGAIN = "delete the file's folder and prepare the text again"


def _map(path: Path, dtype: np.dtype, offset: int, count: int) -> np.ndarray:
    """A read-only view of `count` numbers; an empty one cannot be mapped."""
    return np.memmap(path, dtype, mode="r", offset=offset, shape=(count,)) if count else np.zeros(0, dtype)


def _read_header(path: Path, file: BinaryIO) -> Header:
    lead = file.read(LEAD.size)
    if len(lead) < LEAD.size or not lead.startswith(MAGIC):
        raise DataError(f"{path} is not a file of token shards", "give a .tokens file made by `groundup prepare`")
    _, version, length, crc = LEAD.unpack(lead)
    if version != VERSION:
        raise DataError(f"{path} has format version {version}, this groundup reads {VERSION}", "prepare the text again")
    raw = file.read(min(length, START))
    if length > START - LEAD.size or zlib.crc32(raw) != crc:
        raise DataError(f"the header of {path} is damaged", AGAIN)
    try:
        header = Header(**json.loads(raw))
        counts = (header.tokens, header.documents, header.bytes, header.vocabulary)
        sane = all(isinstance(count, int) and count >= 0 for count in counts)
        if not sane or header.dtype != id_type(header.vocabulary).name:
            raise ValueError
    except (ValueError, TypeError):
        raise DataError(f"the header of {path} makes no sense", AGAIN) from None
    return header


class ShardWriter:
    """Writes one `.tokens` file, in bounded memory; `state` of an unfinished one continues it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "train.tokens"
    >>> with ShardWriter(path, vocabulary=50257, fingerprint="abc") as writer:
    ...     writer.begin()
    ...     writer.add(np.array([15496, 995]), bytes=11)
    ...     _ = writer.close()
    >>> Shards.open(path, fingerprint="abc").tokens.tolist()
    [15496, 995]
    """

    def __init__(
        self, path: Path, *, vocabulary: int, fingerprint: str, state: Mapping[str, int] | None = None
    ) -> None:
        self.path, self.vocabulary, self.fingerprint = Path(path), vocabulary, fingerprint
        self.dtype = id_type(vocabulary)
        known = state or {"tokens": 0, "documents": 0, "bytes": 0, "crc32": 0, "last": -1}
        self.tokens, self.documents, self.bytes = known["tokens"], known["documents"], known["bytes"]
        self._crc, self._last = known["crc32"], known["last"]  # _last: where the newest document starts
        first, second = parts(self.path)
        self._ids = _reopen(first, START + self.tokens * self.dtype.itemsize, fresh=not state)
        try:
            self._starts = _reopen(second, 8 * self.documents, fresh=not state)
        except DataError:
            self._ids.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ids.close()
        self._starts.close()

    def begin(self) -> None:
        """What is added next starts a document; one that got no ids leaves no trace."""
        if self._last != self.tokens:
            self._starts.write(struct.pack("<Q", self.tokens))
            self.documents, self._last = self.documents + 1, self.tokens

    def add(self, ids: np.ndarray, *, bytes: int) -> None:
        """Append ids (n,) that stand for so many bytes of text."""
        data = ids.astype(self.dtype, copy=False).tobytes()
        self._ids.write(data)
        self._crc = zlib.crc32(data, self._crc)
        self.tokens, self.bytes = self.tokens + len(ids), self.bytes + bytes

    def state(self) -> dict[str, int]:
        """Sync to disk, and return what a new writer needs to go on from here."""
        for file in (self._ids, self._starts):
            _sync(file)
        counts = {"tokens": self.tokens, "documents": self.documents, "bytes": self.bytes}
        return {**counts, "crc32": self._crc, "last": self._last}

    def close(self) -> Header:
        """Append the document starts, write the header, and give the file its name."""
        first, second = parts(self.path)
        crc = self._write(bytes(-self._ids.tell() % 8), self._crc)
        self._starts.close()
        with second.open("rb") as starts:
            while block := starts.read(BLOCK):
                crc = self._write(block, crc)
        header = Header(
            self.dtype.name, self.tokens, self.documents, self.bytes, self.vocabulary, self.fingerprint, crc
        )
        raw = json.dumps(asdict(header)).encode("utf-8")
        self._ids.seek(0)
        self._ids.write(LEAD.pack(MAGIC, VERSION, len(raw), zlib.crc32(raw)) + raw)
        _sync(self._ids)
        self._ids.close()
        os.replace(first, self.path)
        second.unlink()
        return header

    def _write(self, data: bytes, crc: int) -> int:
        self._ids.write(data)
        return zlib.crc32(data, crc)


def parts(path: Path) -> tuple[Path, Path]:
    """The two files that a writer fills before `path` exists: ids, and document starts."""
    return path.with_name(path.name + ".part"), path.with_name(path.name + ".documents.part")


def _reopen(path: Path, size: int, *, fresh: bool) -> BinaryIO:
    """Open for writing at `size`, dropping what lies beyond it; a fresh file begins with room for the header."""
    try:
        file = path.open("r+b" if path.exists() and not fresh else "w+b")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}", "choose another --out, or check permissions"
        ) from None
    found = file.seek(0, os.SEEK_END)
    if found < size and not fresh:
        file.close()
        raise DataError(f"the unfinished {path} is truncated: {found:,} of {size:,} bytes", AGAIN)
    file.truncate(size)
    file.seek(size)
    return file


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
