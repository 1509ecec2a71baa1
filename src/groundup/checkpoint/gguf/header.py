"""The header of a GGUF file, read by ourselves. Path in; metadata and the place of each tensor out.

Nothing in it is believed: every count, length, size and offset is held against the file's real size before anything is
made of it, so that a few bytes cannot ask for gigabytes or hours. Layout: ggml/docs/gguf.md, "File structure".
"""

import io
import reprlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from groundup.errors import CheckpointError

VERSIONS = (2, 3)
MOST_HEADER = 64 * 2**20  # bytes; Llama 3's vocabulary makes it about 8 MB
MOST_MEMORY = 80 * 10**6  # bytes of all values as Python objects; about 40 MB for Llama 3's vocabulary
MOST_STRING = 2**20  # bytes; a chat template has some thousand
NUMBER, STRING_MORE = 40, 80  # bytes that a number, and a string beyond its letters, takes in a list
MOST_ENTRIES = 2**16  # keys, and tensors
MOST_NAME = 64  # bytes of a tensor's name, as in llama.cpp
MOST_DIMENSIONS = 4

STRING, ARRAY, BOOL = 8, 9, 7
# value type -> struct's letter; all little-endian
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


class Kind(NamedTuple):
    """A way to store numbers: its name in llama.cpp, and how many numbers take how many bytes."""

    name: str
    block: int
    bytes: int


# tensor type -> how it is stored; the layouts are in ggml-common.h
KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    10: Kind("Q2_K", 256, 84),
    11: Kind("Q3_K", 256, 110),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    16: Kind("IQ2_XXS", 256, 66),
    17: Kind("IQ2_XS", 256, 74),
    18: Kind("IQ3_XXS", 256, 98),
    19: Kind("IQ1_S", 256, 50),
    20: Kind("IQ4_NL", 32, 18),
    21: Kind("IQ3_S", 256, 110),
    22: Kind("IQ2_S", 256, 82),
    23: Kind("IQ4_XS", 256, 136),
    29: Kind("IQ1_M", 256, 56),
    30: Kind("BF16", 1, 2),
    34: Kind("TQ1_0", 256, 54),
    35: Kind("TQ2_0", 256, 66),
    39: Kind("MXFP4", 32, 17),
    40: Kind("NVFP4", 64, 36),
}
# The rest, to be refused by name
OTHER_KINDS = {9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 41: "Q1_0"}


class Stored(NamedTuple):
    """Where a tensor lies in its file. `shape` is as in torch, rows first: the file states it the other way round."""

    shape: tuple[int, ...]
    kind: Kind
    offset: int  # from the start of the file
    size: int  # bytes


@dataclass(frozen=True)
class Header:
    """What a file says before its numbers: metadata as plain Python values, and its tensors by their GGUF names."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def read_header(path: Path, look: Callable[[str, Any], None] = lambda key, value: None) -> Header:
    """Read and check the header of a GGUF file; nothing of the tensors themselves is read.

    `look` sees each key and value as soon as it is read, and may raise: the architecture comes before the vocabulary.
    Raises CheckpointError naming what is wrong: no GGUF, another version, big-endian, truncated, counts or lengths
    beyond the file, arrays in arrays, names that stand twice, tensors outside the file or over one another.
    """
    if not path.is_file():
        raise CheckpointError(f"no file at {path}", "give the path of one .gguf file")
    with path.open("rb") as file:
        cursor = _Cursor(path, file, path.stat().st_size)
        tensors, entries = _counts(cursor)
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            name = cursor.string("a key")
            if name in metadata:
                cursor.refuse(f"the key {reprlib.repr(name)} stands twice")
            metadata[name] = _value(cursor, name)
            look(name, metadata[name])
        infos: dict[str, tuple[tuple[int, ...], Kind, int]] = {}
        for _ in range(tensors):
            name = cursor.string("a tensor's name", most=MOST_NAME)
            if name in infos:
                cursor.refuse(f"the tensor {name!r} stands twice")
            infos[name] = _tensor(cursor, name)
        return Header(metadata, _placed(cursor, metadata, infos))


class _Cursor:
    """A place in a file's header, which never goes past the end or past what a header may take."""

    def __init__(self, path: Path, file: io.BufferedReader, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.place = 0
        self.memory = 0

    def refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {what}", "use an undamaged GGUF file: download it or convert it again")

    def check(self, count: int, what: str) -> None:
        """Refuse to go on where `count` bytes are more than the file, or a header, still has."""
        if count > self.size - self.place:
            self.refuse(f"it ends inside {what}: {count:,} bytes from {self.place:,} on, of {self.size:,}")
        if count > MOST_HEADER - self.place:
            self.refuse(
                f"its header takes more than {MOST_HEADER:,} bytes: {what} of {count:,} bytes at {self.place:,}"
            )

    def take(self, count: int, what: str) -> bytes:
        """The next bytes, checked before they are read."""
        self.check(count, what)
        found = self.file.read(count)
        if len(found) < count:
            self.refuse(f"it became shorter while it was read, inside {what}")
        self.place += count
        return found

    def spend(self, memory: int, what: str) -> None:
        """Count the memory of values, before there are many of them."""
        self.memory += memory
        if self.memory > MOST_MEMORY:
            self.refuse(f"its values take more than {MOST_MEMORY:,} bytes of memory, at {what}")

    def number(self, letter: str, what: str) -> Any:
        """One number of struct's type `letter`."""
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter), what))[0]

    def string(self, what: str, most: int = MOST_STRING) -> str:
        """A string: its length, then UTF-8."""
        count = self.number("Q", f"the length of {what}")
        if count > most:
            self.refuse(f"{what} is {count:,} bytes long, at most {most:,} are allowed")
        raw = self.take(count, what)
        self.spend(STRING_MORE + count * (1 if raw.isascii() else 4), what)  # one wide letter makes all of them wide
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self.refuse(f"{what} is not UTF-8 ({error.reason} at byte {error.start:,} of {reprlib.repr(raw)})")


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """How many tensors and keys follow, once the file is known to be GGUF."""
    magic = cursor.take(4, "the magic number")
    if magic != b"GGUF":
        cursor.refuse(f"it is no GGUF file: it begins with {magic!r}")
    version = cursor.number("I", "the version")
    if version not in VERSIONS:
        if version % 2**16 == 0 and version:
            cursor.refuse("it is a big-endian GGUF file, only little-endian ones are read")
        cursor.refuse(f"it is GGUF version {version}, only {' and '.join(map(str, VERSIONS))} are read")
    tensors, entries = cursor.number("Q", "the number of tensors"), cursor.number("Q", "the number of keys")
    # A key takes 13 bytes at least (length, type, one byte), a tensor 24 (lengths, type, offset).
    for count, least, what in ((entries, 13, "keys"), (tensors, 24, "tensors")):
        if count > MOST_ENTRIES or count * least > cursor.size:
            cursor.refuse(f"it says it has {count:,} {what}, in {cursor.size:,} bytes")
    return tensors, entries


def _value(cursor: _Cursor, name: str) -> Any:
    what = f"the value of {reprlib.repr(name)}"
    kind = cursor.number("I", what)
    if kind != ARRAY:
        return _scalar(cursor, kind, what)
    kind, count = cursor.number("I", what), cursor.number("Q", what)
    if kind == ARRAY:
        cursor.refuse(f"{what} is an array of arrays, which no key of a language model is")
    if kind != STRING and kind not in SCALARS:
        cursor.refuse(f"{what} is an array of the unknown type {kind}")
    if kind == STRING:
        cursor.check(8 * count, what)  # a string takes 8 bytes at least, its length
        return [cursor.string(what) for _ in range(count)]
    return _numbers(cursor, kind, count, what)


def _scalar(cursor: _Cursor, kind: int, what: str) -> Any:
    if kind == STRING:
        return cursor.string(what)
    if kind not in SCALARS:
        cursor.refuse(f"{what} is of the unknown type {kind}")
    [number] = _numbers(cursor, kind, 1, what)
    return number


def _numbers(cursor: _Cursor, kind: int, count: int, what: str) -> list[Any]:
    dtype = np.dtype("<" + SCALARS[kind])
    cursor.check(count * dtype.itemsize, what)
    cursor.spend(count * NUMBER, what)
    numbers = np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype=dtype)
    if kind == BOOL:
        if (numbers > 1).any():
            cursor.refuse(f"{what} is neither true nor false: {numbers.max()}")
        numbers = numbers.astype(bool)
    result: list[Any] = numbers.tolist()
    return result


def _tensor(cursor: _Cursor, name: str) -> tuple[tuple[int, ...], Kind, int]:
    """Shape, type and offset (from the start of the data) of one tensor."""
    what = f"the description of tensor {name!r}"
    dimensions = cursor.number("I", what)
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        cursor.refuse(f"tensor {name!r} has {dimensions:,} dimensions, 1 to {MOST_DIMENSIONS} are allowed")
    sizes = [cursor.number("Q", what) for _ in range(dimensions)]
    number = cursor.number("I", what)
    kind = KINDS.get(number)
    if kind is None:
        stored = OTHER_KINDS.get(number, f"unknown type {number}")
        raise CheckpointError(
            f"{cursor.path}: tensor {name!r} is stored as {stored}, which is not read here",
            f"use a file in one of {', '.join(kind.name for kind in KINDS.values())}",
        )
    count = 1
    for size in sizes:
        count *= size  # Python's own numbers: no product overflows
    if count < 1 or count // kind.block * kind.bytes > cursor.size:
        cursor.refuse(f"tensor {name!r} of {' x '.join(map(str, sizes))} numbers does not fit the file")
    if sizes[0] % kind.block:
        cursor.refuse(f"tensor {name!r} has rows of {sizes[0]:,} numbers, {kind.name} stores {kind.block} at a time")
    return tuple(reversed(sizes)), kind, cursor.number("Q", what)


def _placed(
    cursor: _Cursor, metadata: dict[str, Any], infos: dict[str, tuple[tuple[int, ...], Kind, int]]
) -> dict[str, Stored]:
    """Every tensor inside the file, aligned, none over another."""
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        cursor.refuse(f"general.alignment is {reprlib.repr(alignment)}, it must be a power of two")
    start = -(-cursor.place // alignment) * alignment
    result = {}
    for name, (shape, kind, offset) in infos.items():
        size = int(np.prod(shape, dtype=object)) // kind.block * kind.bytes
        if offset % alignment or start + offset + size > cursor.size:
            cursor.refuse(
                f"tensor {name!r} of {size:,} bytes at offset {offset:,} is not aligned to {alignment} or ends after "
                f"the file's {cursor.size:,} bytes"
            )
        result[name] = Stored(shape, kind, start + offset, size)
    end, before = start, ""
    for name, stored in sorted(result.items(), key=lambda item: item[1].offset):
        if stored.offset < end:
            cursor.refuse(f"tensors {before!r} and {name!r} overlap")
        end, before = stored.offset + stored.size, name
    return result
