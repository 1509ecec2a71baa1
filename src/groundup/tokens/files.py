"""The files of a tokenizer on disk: JSON and text, written whole or not at all, read within bounds.

In: paths. Out: content. No file is read that is larger than any tokenizer's, and a JSON of lists without end is refused
before it is parsed: a list costs ten times the room in memory that it takes on disk.
"""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.errors import TokenizerError
from groundup.text import guard, whole

Json = dict[str, Any]
MOST_BYTES = 64 << 20  # of a file; Llama 3's tokenizer.json has 17 MB, the largest published ones about 35
MOST_LISTS = 600_000  # merges are lists; the largest published vocabularies have half a million


def write(folder: Path, files: Mapping[str, Json | str | None]) -> None:
    """Write JSON or text files into `folder` (made if absent), each aside, then renamed: none is ever half there.

    None: remove that file, which would say something else than those written beside it now.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if content is None:
                (folder / name).unlink(missing_ok=True)
                continue
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2)
            whole.write(folder / name, text)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # not the person's mistake: the command line says it in its own way
            raise
        advice = "choose a folder that you can write to"
        raise TokenizerError(f"cannot write the tokenizer to {folder}: {error.strerror}", advice) from None


def read_file(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file; raises TokenizerError for a missing or unreadable one, or one of more than `most` bytes."""
    try:
        size = path.stat().st_size
        if size > most:
            raise TokenizerError(f"{path} has {size:,} bytes, more than {most:,}", "give the files of one tokenizer")
        return path.read_bytes()
    except FileNotFoundError:
        raise TokenizerError(f"no tokenizer at {path}", "give a tokenizer.json or a folder that holds one") from None
    except OSError as error:
        raise TokenizerError(
            f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
        ) from None


def beside(folder: Path, name: str) -> Path | None:
    """A file of the folder, None where it has none; raises TokenizerError for one that leads out of the folder."""
    return guard.optional(folder, name, error=TokenizerError)


def merges(text: str) -> list[str]:
    """The merges of a merges.txt or vocab.bpe: one a line behind a line with a version, whatever ends the lines.

    >>> merges("#version: 0.2\\r\\nt h\\r\\nth e\\r\\n")
    ['t h', 'th e']
    """
    first, *rest = text.replace("\r\n", "\n").split("\n")
    return [line for line in ([] if first.startswith("#version") else [first]) + rest if line]


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """The text of a file of UTF-8; raises TokenizerError."""
    try:
        return read_file(path, most=most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8: {error}", "the file is damaged: save or copy it again") from None


def read_json(path: Path) -> Json:
    """Read one JSON object; raises TokenizerError for a missing, unreadable, far too large or malformed file."""
    content = read_file(path)
    if (lists := content.count(b"[")) > MOST_LISTS:
        raise TokenizerError(f"{path} holds some {lists:,} lists, more than {MOST_LISTS:,}", "give a tokenizer.json")
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise TokenizerError(
            f"{path} is not a JSON file: {error}", "the file is damaged: save or copy it again"
        ) from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} holds a JSON {type(found).__name__}, not an object", "give a tokenizer.json")
    return found
