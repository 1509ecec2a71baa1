"""One file -> its documents, in pieces of about a megabyte.

In: the path of a .txt, .md, .jsonl, .csv or .tsv file, or of such a file packed as .gz or .zst. Out: `Piece`s. A .txt
or .md file is one document, a row of the others is one; empty documents are skipped. Text is kept exactly as stored (no
newline translation; only a byte order mark at the start of a file is dropped). Memory stays bounded by a few pieces, or
by the longest row.

A document is cut only before white space that follows a letter or digit. No token of the tokenizers here (characters,
words, GPT-2's pattern and its descendants) crosses such a place, so encoding piece by piece gives the ids of the whole.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from groundup.errors import DataError, nearest
from groundup.text import packed

BLOCK = 1 << 20  # bytes read at a time, and so about the characters of a piece
LONGEST_WAIT = 4 << 20  # characters without a safe place to cut, before a cut is forced
LONGEST_ROW = 1 << 28  # bytes of one row of .jsonl, or characters of one field of .csv
SAFE_CUT = re.compile(r".*[^\W_](?=[ \t\r\n])", re.DOTALL)  # greedy: matches up to the LAST such place
FORCED_CUT = re.compile(r".*\S(?=\s)", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A part of one document, never empty; `ends` marks its last part."""

    text: str
    ends: bool


def cut(chunks: Iterable[str]) -> Iterator[Piece]:
    """One document, arriving in chunks, as pieces that can be encoded one by one.

    >>> [piece.text for piece in cut(["one two thr", "ee"])]
    ['one two', ' three']
    """
    held, searched = "", 0
    for chunk in filter(None, chunks):
        place = _place(held, searched)
        if place:
            yield Piece(held[:place], ends=False)
            held = held[place:]
        # One character back: a letter that ended the old chunk may be followed by white space in the new one.
        searched = max(len(held) - 1, 0)
        held += chunk
    if held:
        yield Piece(held, ends=True)


def _place(held: str, searched: int) -> int:
    """Where to cut: the last safe place from `searched` on, a forced one if too much is held, else 0."""
    found = SAFE_CUT.match(held, searched)
    if not found and len(held) > LONGEST_WAIT:
        found = FORCED_CUT.match(held)
        return found.end() if found else len(held)
    return found.end() if found else 0


def document(text: str) -> Iterator[Piece]:
    """A document at hand, as pieces; none if it is empty."""
    if len(text) <= BLOCK:
        return iter((Piece(text, ends=True),) if text else ())
    return cut(text[start : start + BLOCK] for start in range(0, len(text), BLOCK))


def text_file(path: Path, field: str = "") -> Iterator[Piece]:
    """The one document of a .txt or .md file; `field` is ignored, so that all readers are called alike."""
    return cut(decoded(path))


def jsonl_file(path: Path, field: str) -> Iterator[Piece]:
    """One document a line: the text under `field` of the JSON object there; blank lines are skipped."""
    for number, line in lines_of(path):
        if not line.isspace():
            row = json_object(line, where=f"{path} line {number}")
            yield from document(_text_of(row, field, where=f"{path} line {number}"))


def table_file(path: Path, field: str, *, columns: Sequence[str] = ()) -> Iterator[Piece]:
    """One document a row of .csv or .tsv, rows counted as spreadsheets do (the header is row 1).

    With `columns` the file is tab-separated, without a header and without quoting.
    """
    lines = (line for _, line in lines_of(path))
    csv.field_size_limit(LONGEST_ROW)  # a process-wide setting of the csv module; its default of 128 KiB is too small
    if columns:
        header, rows = list(columns), csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        first = next(lines, "")
        rows = csv.reader(chain([first], lines), delimiter=delimiter_of(path, first), strict=True)
        header = next(rows_of(path, rows, start=1), (1, []))[1]
    for number, row in rows_of(path, rows, start=1 if columns else 2):
        if row and len(row) != len(header):
            raise DataError(
                f"{path} row {number} has {len(row)} values, the header has {len(header)}",
                "put a value that holds the delimiter or a line end in double quotes",
            )
        if row:
            yield from document(_text_of(dict(zip(header, row, strict=True)), field, where=f"{path} row {number}"))


def rows_of(path: Path, rows: Iterator[list[str]], *, start: int) -> Iterator[tuple[int, list[str]]]:
    """Number the rows; a malformed one becomes a DataError with its number."""
    number = start
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            advice = "look for a quote that never closes, or line ends that are neither \\n nor \\r\\n"
            raise DataError(f"{path} row {number} is malformed: {error}", advice) from None
        yield number, row
        number += 1


def delimiter_of(path: Path, header: str) -> str:
    """A tab for .tsv, else what stands most often in the header line (a comma if nothing does)."""
    return "\t" if packed.kind(path) == ".tsv" else max(",;\t|", key=header.count)


def json_object(line: str, *, where: str) -> dict[str, object]:
    """The object on a line; raises DataError, beginning with `where`, for anything else."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        advice = 'each line must be one JSON object, such as {"text": "..."}'
        raise DataError(f"{where} is not valid JSON: {error.msg} at column {error.colno}", advice) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise DataError(f"{where} cannot be read as JSON: {error}", "repair or remove the line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} holds a {type(row).__name__}, not an object", 'write {"text": "..."} in each line')
    return row


def _text_of(row: dict[str, object], field: str, *, where: str) -> str:
    """The text under `field`; raises DataError naming the fields found, or what stands there instead of text."""
    if field not in row:
        found = [str(name) for name in row]
        advice = nearest(field, found) if found else "an empty object has no text"
        raise DataError(f"{where} has no field '{field}'; it has: {', '.join(found) or 'none'}", f"--field: {advice}")
    value = row[field]
    if not isinstance(value, str):
        raise DataError(
            f"field '{field}' in {where} is {json.dumps(value)[:40]}, not text", "give a field of text with --field"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(value[error.start])
        raise DataError(
            f"field '{field}' in {where} holds half of a surrogate pair, \\u{half:04x}", "repair the escape"
        ) from None
    return value


def decoded(path: Path) -> Iterator[str]:
    """The file as text, block by block; a character divided between blocks is put together. Raises NotUTF8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with packed.opened(path) as file:
        offset, ahead = _text_start(file)
        while True:
            block = ahead + file.read(BLOCK)
            start = offset - len(decoder.getstate()[0])  # bytes of an unfinished character come before this block
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, start, error) from None
            if not block:
                return
            offset, ahead = offset + len(block), b""
            yield text


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends; only \\n divides, as other line ends may stand inside a value."""
    with packed.opened(path) as file:
        (offset, ahead), number = _text_start(file), 0
        while line := ahead if ahead.endswith(b"\n") else ahead + file.readline(LONGEST_ROW + 1):
            number, ahead = number + 1, b""
            if len(line) > LONGEST_ROW:
                raise DataError(f"{path} line {number} is longer than {LONGEST_ROW:,} bytes", "write one row per line")
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, offset, error) from None
            offset += len(line)


def _text_start(file: BinaryIO) -> tuple[int, bytes]:
    """Step over a UTF-8 byte order mark: the offset of the text, and what of its first line was read to see that."""
    ahead = file.readline(len(codecs.BOM_UTF8))
    return (len(ahead), b"") if ahead == codecs.BOM_UTF8 else (0, ahead)


class NotUTF8(DataError):
    """Bytes that no UTF-8 text can hold; a reader that knows another encoding may try that."""


def _not_utf8(path: Path, offset: int, error: UnicodeDecodeError) -> NotUTF8:
    at, value = offset + error.start, error.object[error.start]
    wide = at == 0 and error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return NotUTF8(
        f"{path} is not UTF-8: byte 0x{value:02X} at offset {at:,}" + (" (it looks like UTF-16)" if wide else ""),
        f"convert it: iconv -f {'utf-16' if wide else 'latin1'} -t utf-8 {path.name} > new{path.suffix}",
    )


READERS: dict[str, Callable[..., Iterator[Piece]]] = {
    ".txt": text_file,
    ".md": text_file,
    ".jsonl": jsonl_file,
    ".csv": table_file,
    ".tsv": table_file,
}
