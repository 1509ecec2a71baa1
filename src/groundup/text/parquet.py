"""A .parquet file -> its documents, one a row, in pieces.

In: a path and the name of a column. Out: `Piece`s. Row groups are read one after another, a few rows at a time, so that
memory stays bounded by the longest rows. Empty rows, and rows without a value (null), are skipped.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from groundup.errors import DataError, nearest
from groundup.text import packed
from groundup.text.files import Piece, document

MARK = b"PAR1"  # at both ends of the file (Parquet format specification, "File format")
BATCH = 4 << 20  # about so many bytes of text are taken from a row group at a time
MOST_ROWS = 4096  # and never more rows than that


def parquet_file(path: Path, field: str) -> Iterator[Piece]:
    """One document a row: the text in column `field`; raises DataError naming row group and row where it cannot."""
    with opened(path) as file:
        _check(path, file, field)
        before = 0  # rows of the groups read so far
        for group in range(file.num_row_groups):
            for number, text in _rows(path, file, group, field):
                yield from document(_valid(text, where=f"{path} row {before + number} (row group {group})"))
            before += file.metadata.row_group(group).num_rows


def size(path: Path, field: str) -> int:
    """About the bytes of text in the column, by the file's own account; raises DataError as reading would."""
    if packed.is_packed(path):
        return packed.size(path)
    with opened(path) as file:
        _check(path, file, field)
        return sum(_column_bytes(file, group, field) for group in range(file.num_row_groups))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as pyarrow sees it; a packed one is unpacked into a temporary file first, as its end is read first."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path} needs the package pyarrow to be read", 'pip install "groundup[data]"') from None
    with packed.opened(path) as stored, _seekable(path, stored) as raw:
        _check_marks(path, raw)
        with explained(path, "its index"):
            # pre_buffer, pyarrow's default, would hold a whole row group: a gigabyte in some files
            file = parquet.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
        with file:
            yield file


@contextlib.contextmanager
def _seekable(path: Path, stored: BinaryIO) -> Iterator[BinaryIO]:
    if not packed.is_packed(path):
        yield stored
        return
    with tempfile.TemporaryFile() as spool:
        for block in iter(lambda: stored.read(1 << 20), b""):
            _spool(path, spool, block)
        spool.seek(0)
        yield spool


def _spool(path: Path, spool: Any, block: bytes) -> None:
    try:
        spool.write(block)
    except OSError as error:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        raise DataError(
            f"no room in {folder} to unpack {path}: {error.strerror}, {free:,} bytes free",
            "unpack it by hand (a .parquet is compressed inside already), or point TMPDIR to a larger disk",
        ) from None


def _check_marks(path: Path, raw: BinaryIO) -> None:
    beginning = raw.read(len(MARK))
    end = raw.seek(0, 2)
    raw.seek(max(end - len(MARK), 0))
    ending = raw.read()
    raw.seek(0)
    if beginning != MARK:
        raise DataError(
            f"{path} is no parquet file: it begins with {beginning.hex(' ') or 'nothing'}",
            "give it its true ending, such as .txt or .jsonl",
        )
    if ending != MARK or end < 2 * len(MARK) + 4:
        raise DataError(f"{path} is cut off: its index is missing after {end:,} bytes", "copy or download it again")


def _check(path: Path, file: Any, field: str) -> None:
    """Raise DataError unless there is one column of text called `field`."""
    schema = file.schema_arrow
    texts = [column.name for column in schema if _is_text(column.type)]
    if schema.names.count(field) != 1:
        state = "has no column" if field not in schema.names else "has several columns called"
        advice = nearest(field, texts) if texts else "none of them holds text"
        raise DataError(f"{path} {state} '{field}'; it has: {', '.join(schema.names)}", f"--field: {advice}")
    if field not in texts:
        advice = f"--field takes a column of text: {', '.join(texts)}" if texts else "no column of this file is text"
        raise DataError(f"column '{field}' of {path} is {schema.field(field).type}, not text", advice)


def _is_text(kind: Any) -> bool:
    """Strings of any width, and those kept as numbers into a dictionary."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _rows(path: Path, file: Any, group: int, field: str) -> Iterator[tuple[int, Any]]:
    """Row numbers within a group, from 1, and their values as Arrow scalars; nulls are left out."""
    rows, number = max(file.metadata.row_group(group).num_rows, 1), 0
    at_once = min(max(BATCH * rows // max(_column_bytes(file, group, field), 1), 1), MOST_ROWS)
    batches = file.iter_batches(at_once, row_groups=[group], columns=[field], use_threads=False)
    while True:
        with explained(path, f"row group {group}"):
            batch = next(batches, None)
        if batch is None:
            return
        for value in batch.column(0):
            number += 1
            if value.is_valid:
                yield number, value


def _column_bytes(file: Any, group: int, field: str) -> int:
    found = file.metadata.row_group(group)
    columns = [found.column(index) for index in range(found.num_columns)]
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == field)


def _valid(value: Any, *, where: str) -> str:
    """The text of an Arrow scalar; Arrow itself does not look whether it is UTF-8."""
    try:
        return str(value.as_py())
    except UnicodeDecodeError as error:
        what = f"{where} is not UTF-8: byte 0x{error.object[error.start]:02X} at offset {error.start:,}"
        raise DataError(what, "write the file again from a source with a known encoding") from None


@contextlib.contextmanager
def explained(path: Path, part: str) -> Iterator[None]:
    """What pyarrow cannot read becomes a DataError that names the part."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} is damaged in {part}: {reason[:200]}", "copy or download it again, or write it anew"
        ) from None
