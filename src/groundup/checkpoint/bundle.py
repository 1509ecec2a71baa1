"""TensorFlow's checkpoint files, its "tensor bundle", read without TensorFlow: named arrays, one at a time.

In: a prefix, "model.ckpt" for the files model.ckpt.index and model.ckpt.data-00000-of-00001. Out: what they hold. No
byte is believed before its checksum is right, and no size before it fits the file that it speaks of.

    data    the arrays end to end, nothing between them; large checkpoints have several such files ("shards")
    index   a sorted table, name -> place, in LevelDB's format: blocks of entries, a block that lists the blocks, and a
            footer of 48 bytes that says where that one is; in every block a name leaves out what it shares with the
            one before; one byte behind the block says how it is compressed, four more are its checksum
    name    "" is the header: how many data files, their byte order, the version of the format

Specifications: tensorflow/core/protobuf/tensor_bundle.proto (what header and entries say, in the wire format of
Protocol Buffers), tensorflow/core/util/tensor_bundle (files and their names), tensorflow/core/lib/io/format.h and
doc/table_format.md of LevelDB (the table).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.errors import CheckpointError
from groundup.text.guard import inside
from groundup.tokens import wire

MAGIC = 0xDB4775248B80FB57  # the last eight bytes of every table
FOOTER = 48  # bytes: two places of blocks, padded to 40, and MAGIC
TRAILER = 5  # bytes behind a block: kind of compression, checksum
VERSION = 1  # of the bundle format; a file says which reader it needs at least
# What a small file can make us do is bounded: GPT-2's largest has 580 arrays and an index of some 20 kB.
LARGEST_INDEX = 8 << 20
MOST_ARRAYS = 20_000
LONGEST_NAME = 1_000
MOST_DIMENSIONS = 8
MOST_SHARDS = 1_000
CHUNK = 1 << 20
FIX = "copy or download its files again, or save them anew with TensorFlow"

# TensorFlow's numbers for its types (tensorflow/core/framework/types.proto); all others are refused when asked for.
DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One array: TensorFlow's number for its type, its shape, and its `size` bytes at `offset` of data file `shard`.

    `crc`: the checksum of these bytes as it is stored (`masked`).
    """

    type: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int

    @property
    def dtype(self) -> torch.dtype | None:
        """The same type here; None for those that are not read (texts, truth values, complex numbers ...)."""
        return DTYPES.get(self.type)


@dataclass(frozen=True)
class Bundle:
    """An opened checkpoint: the index was read and checked, the data are still on the disk.

    >>> bundle = Bundle.open(Path("gpt2/model.ckpt"))  # doctest: +SKIP
    >>> bundle.entries["model/wte"].shape, bundle.read("model/ln_f/b").dtype  # doctest: +SKIP
    ((50257, 768), torch.float32)
    """

    shards: tuple[Path, ...]
    entries: dict[str, Entry]

    @classmethod
    def open(cls, prefix: Path) -> "Bundle":
        """Read and check the index of the checkpoint with this prefix, and compare it with the sizes of the data files.

        Raises CheckpointError for files that are missing, damaged, cut short or contradict each other, and for what
        this reader does not know: compressed blocks, big-endian numbers, arrays stored in slices, a newer format.
        """
        index = inside(prefix.parent, f"{prefix.name}.index")
        try:
            rows = _table(_whole(index))
            count = _header(rows.pop(b"", b""))
            entries = {_text(key): _entry(key, row) for key, row in rows.items()}
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{index} is no index of TensorFlow that can be read: {error}", FIX) from None
        names = [f"{prefix.name}.data-{shard:05}-of-{count:05}" for shard in range(count)]
        shards = tuple(inside(prefix.parent, name) for name in names)
        _check_places(entries, shards)
        return cls(shards, entries)

    def read(self, name: str) -> Tensor:
        """One array, its memory its own; raises CheckpointError for an unknown name or type, or altered bytes."""
        entry = self.entries.get(name)
        if entry is None:
            some = ", ".join(list(self.entries)[:3])
            raise CheckpointError(f"the checkpoint has no array {name!r}", f"it has {len(self.entries):,}: {some} ...")
        if entry.dtype is None:
            raise CheckpointError(
                f"{name!r} is of TensorFlow's type number {entry.type}, which is not read", "save it as float32"
            )
        path = self.shards[entry.shard]
        raw = torch.empty(entry.size, dtype=torch.uint8)  # the file was seen to have as many
        content = raw.numpy().data  # the same bytes, as a memoryview
        if _fill(content, path, entry.offset) != entry.size:
            raise CheckpointError(f"{path} became shorter since it was opened: {name!r} is not whole", FIX)
        if masked(crc32c(content)) != entry.crc:
            raise CheckpointError(f"{path}: the bytes of {name!r} were altered: their CRC-32C differs", FIX)
        return raw.view(entry.dtype).reshape(entry.shape)


def _fill(buffer: memoryview, path: Path, offset: int) -> int:
    """Read bytes of a file into a buffer; the number read. (No memory map: a file cut meanwhile would kill us.)"""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.readinto(buffer)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", FIX) from None


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli) of bytes, made by google-crc32c; RFC 3720, appendix B.4, gives examples.

    Raises CheckpointError where that library is not installed: unchecked numbers are not read.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    try:
        import google_crc32c
    except ImportError:
        raise CheckpointError(
            "reading a TensorFlow checkpoint needs google-crc32c, which checks it", "pip install 'groundup[openai]'"
        ) from None
    crc = 0
    for start in range(0, len(data), CHUNK):
        crc = google_crc32c.extend(crc, bytes(data[start : start + CHUNK]))
    return crc


def masked(crc: int) -> int:
    """A checksum as these files store it: turned by 15 bits, then shifted (LevelDB, util/crc32c.h).

    So a checksum stored among bytes that are summed again does not cancel out.

    >>> hex(masked(0xE3069283))
    '0xc78ab0e5'
    """
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- the index: a sorted table ---------------------------------------------------------------------------------------


def _whole(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST_INDEX:
        raise ValueError(f"it has {size:,} bytes, more than the {LARGEST_INDEX:,} that an index may have here")
    return path.read_bytes()


def _table(content: bytes) -> dict[bytes, bytes]:
    """All rows of a table, in their order."""
    if len(content) < FOOTER or int.from_bytes(content[-8:], "little") != MAGIC:
        raise ValueError(f"its {len(content):,} bytes do not end with the mark of a table")
    footer = content[-FOOTER:-8]
    place, at = _place(footer, 0)
    _block(content, place, end=len(content) - FOOTER)  # facts about the table, of which there are none: only checked
    index, _ = _place(footer, at)
    rows: dict[bytes, bytes] = {}
    last, behind = b"", 0
    for _, value in _pairs(_block(content, index, end=len(content) - FOOTER)):
        place, _ = _place(value, 0)
        if place[0] < behind:
            raise ValueError(f"its block at {place[0]:,} begins before {behind:,}, the end of the one before")
        behind = sum(place) + TRAILER
        for key, row in _pairs(_block(content, place, end=index[0])):
            if rows and key <= last:
                raise ValueError(f"its names are not in order: {key!r} after {last!r}")
            if len(rows) > MOST_ARRAYS:
                raise ValueError(f"it names more than {MOST_ARRAYS:,} arrays")
            rows[key], last = row, key
    return rows


def _place(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Where a block is, (offset, size), read at `at`; and the position behind that."""
    offset, at = wire.varint(data, at)
    size, at = wire.varint(data, at)
    return (offset, size), at


def _block(content: bytes, place: tuple[int, int], *, end: int) -> bytes:
    """The bytes of a block that must lie before `end`, once their checksum is right."""
    offset, size = place
    stop = offset + size
    if stop + TRAILER > end:
        raise ValueError(f"its block of {size:,} bytes at {offset:,} ends behind {end:,}, where blocks must end")
    if masked(crc32c(content[offset : stop + 1])) != int.from_bytes(content[stop + 1 : stop + TRAILER], "little"):
        raise ValueError(f"its block at {offset:,} was altered: the CRC-32C differs")
    if kind := content[stop]:
        raise ValueError(f"its block at {offset:,} is compressed ({'snappy' if kind == 1 else f'kind {kind}'})")
    return content[offset:stop]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block: each is three numbers (bytes shared with the name before, further ones, bytes of the
    value), then the rest of the name, then the value. Behind them stand places to start from, which we do not need."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError(f"a block of {len(block):,} bytes claims {restarts:,} restart points")
    at, key = 0, b""
    while at < end:
        shared, at = wire.varint(block, at)
        fresh, at = wire.varint(block, at)
        size, at = wire.varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise ValueError(f"an entry reaches out of its block: {shared:,} + {fresh:,} + {size:,} bytes")
        if shared + fresh > LONGEST_NAME:
            raise ValueError(f"a name has {shared + fresh:,} bytes, more than {LONGEST_NAME:,}")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size


# --- what the rows say -----------------------------------------------------------------------------------------------


def _header(row: bytes) -> int:
    """The number of data files (BundleHeaderProto); refuses what cannot be read."""
    found = dict(wire.fields(row))
    count, needed = _number(found, 1), _number(dict(wire.fields(_part(found, 3))), 2)
    if not 1 <= count <= MOST_SHARDS:
        raise ValueError(f"its header claims {count:,} data files")
    if _number(found, 2):
        raise ValueError("its numbers are big-endian, those of this machine are not")
    if needed > VERSION:
        raise ValueError(f"it needs a reader of version {needed}, this one is of version {VERSION}")
    return count


def _entry(key: bytes, row: bytes) -> Entry:
    """What a row says of its array (BundleEntryProto)."""
    found = dict(wire.fields(row))
    if 7 in found:
        raise ValueError(f"{_text(key)!r} is stored in slices, which are not put together here")
    shape = []
    for field, value in wire.fields(_part(found, 2)):  # TensorShapeProto
        if field == 3 and value:
            raise ValueError(f"{_text(key)!r} has an unknown number of dimensions")
        if field == 2:
            shape.append(_number(dict(wire.fields(_part({2: value}, 2))), 1))
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"{_text(key)!r} has more than {MOST_DIMENSIONS} dimensions")
    numbers = [_number(found, field) for field in (1, 3, 4, 5, 6)]
    return Entry(numbers[0], tuple(shape), *numbers[1:])


def _number(found: dict[int, int | bytes], field: int) -> int:
    """A field that is a signed number, of 64 bits on the wire; absent means 0."""
    value = found.get(field, 0)
    if not isinstance(value, int):
        raise ValueError(f"field {field} of an entry is no number")
    return wire.signed(value)


def _part(found: dict[int, int | bytes], field: int) -> bytes:
    """A field that is a message of its own; absent means an empty one."""
    value = found.get(field, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {field} of an entry is a number, where a message should be")
    return value


def _text(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"the name {key!r} is not UTF-8") from None


def _check_places(entries: dict[str, Entry], shards: tuple[Path, ...]) -> None:
    """Every array must lie whole in a data file, be as long as its shape says, and share no byte with another."""
    sizes = [path.stat().st_size for path in shards]
    taken = [0] * len(shards)
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].shard, item[1].offset, item[1].size)):
        if not 0 <= entry.shard < len(shards):
            raise CheckpointError(f"{name!r} is said to be in data file {entry.shard} of {len(shards)}", FIX)
        path, end = shards[entry.shard], entry.offset + entry.size
        place = f"{path}: {name!r} is said to take {entry.size:,} bytes at {entry.offset:,}"
        if entry.offset < 0 or entry.size < 0 or end > sizes[entry.shard]:
            raise CheckpointError(f"{place}, but the file has {sizes[entry.shard]:,}", FIX)
        if min(entry.shape, default=0) < 0:
            raise CheckpointError(f"{path}: {name!r} is said to have the shape {entry.shape}", FIX)
        if entry.dtype and math.prod(entry.shape) * entry.dtype.itemsize != entry.size:
            raise CheckpointError(f"{place}, which is not the size of {entry.shape} of {entry.dtype}", FIX)
        if entry.offset < taken[entry.shard]:
            raise CheckpointError(f"{place}, which belong to another array up to {taken[entry.shard]:,}", FIX)
        taken[entry.shard] = end
