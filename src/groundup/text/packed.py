"""A file as a stream of bytes, unpacked on the way where its name ends in .gz or .zst.

In: a path. Out: a stream for `read` and `readline`, and what a name says about the content. Several gzip members or
zstd frames in one file are one text. Memory stays bounded, whatever the file unpacks to. A file that is cut off,
damaged or something else than its name says is a DataError.
"""

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, cast

from groundup.errors import DataError

# How a file of each kind begins; a zstd file may also begin with a frame to be skipped (RFC 8878, section 3.1.2).
MAGIC = {".gz": re.compile(rb"\x1f\x8b"), ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")}
TOOL = {".gz": "gzip", ".zst": "zstd"}
SAMPLE = 1 << 20  # bytes unpacked to guess how many there are in all
STEP = 1024  # packed bytes at a time: zstd packs up to 32,768 to 1, so that they may become 32 MiB


def kind(path: Path) -> str:
    """The suffix that tells what is inside, in small letters.

    >>> kind(Path("a.TXT")), kind(Path("a.jsonl.zst")), kind(Path("a.gz"))
    ('.txt', '.jsonl', '')
    """
    return (Path(path.stem) if is_packed(path) else path).suffix.lower()


def is_packed(path: Path) -> bool:
    """Whether the name says that the file is packed."""
    return path.suffix.lower() in MAGIC


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open for reading; what the operating system or the unpacking refuses becomes a DataError."""
    with _both(path) as (_, stream):
        yield stream


def size(path: Path) -> int:
    """Bytes inside: the file's size, and for a packed file an estimate from how well its beginning is packed.

    No format tells: the length at the end of a .gz is that of its last member modulo 4 GiB, that of a .zst is optional.
    """
    whole = path.stat().st_size
    if not is_packed(path) or not whole:
        return whole
    with _both(path) as (raw, stream):
        beginning = len(stream.read(SAMPLE))
        return beginning if not stream.read(1) else max(whole * beginning // raw.tell(), beginning)


@contextlib.contextmanager
def _both(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file as it is stored and the stream of what is inside."""
    stream: BinaryIO | None = None
    try:
        with path.open("rb") as raw:
            stream = _unpacked(path, raw)
            yield raw, stream
    except EOFError:
        raise _broken(path, stream, "cut off", "it ends in the middle") from None
    except (gzip.BadGzipFile, zlib.error, _Damaged) as error:
        raise _broken(path, stream, "damaged", str(error)) from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
        ) from None


def _broken(path: Path, stream: BinaryIO | None, how: str, why: str) -> DataError:
    at = stream.tell() if stream and not stream.closed else 0
    return DataError(f"{path} is {how} after {at:,} bytes of content: {why}", "copy or download it again")


def _unpacked(path: Path, raw: BinaryIO) -> BinaryIO:
    if not is_packed(path):
        return raw
    packing = path.suffix.lower()
    beginning = raw.read(4)
    raw.seek(0)
    if not MAGIC[packing].match(beginning):
        seen = f"it begins with {beginning.hex(' ')}" if beginning else "it is empty (0 bytes)"
        advice = f"pack it with {TOOL[packing]}, or take {packing} off its name"
        raise DataError(f"{path} is no {TOOL[packing]} file: {seen}", advice)
    if packing == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    return cast(BinaryIO, io.BufferedReader(_Zstd(raw, _zstandard(path))))


def _zstandard(path: Path) -> ModuleType:
    try:
        import zstandard
    except ImportError:
        raise DataError(f"{path} needs the package zstandard to be read", 'pip install "groundup[data]"') from None
    return zstandard


class _Damaged(Exception):
    """What zstandard found; its own class is known only once it is imported."""


class _Zstd(io.RawIOBase):
    """Zstd frames, one after another, as one stream.

    zstandard's own stream reader takes a file that is cut off for one that ends; here that raises EOFError.
    """

    def __init__(self, file: BinaryIO, library: ModuleType) -> None:
        self._file, self._library = file, library
        self._context = library.ZstdDecompressor()
        self._frame = None  # the decoder of the frame being read
        self._packed, self._ready, self._at = b"", memoryview(b""), 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and self._advance():
            pass
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        self._at += count
        return count

    def _advance(self) -> bool:
        """Unpack the next few bytes, which may yield nothing yet; False at the end of the file."""
        packed = self._packed or self._file.read(STEP)
        if not packed:
            if self._frame is not None:
                raise EOFError
            return False
        frame = self._frame or self._context.decompressobj()
        try:
            self._ready = memoryview(frame.decompress(packed))
        except self._library.ZstdError as error:
            raise _Damaged(str(error)) from None
        self._packed, self._frame = (frame.unused_data, None) if frame.eof else (b"", frame)
        return True
