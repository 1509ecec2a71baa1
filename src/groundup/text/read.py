"""What a person names -> sources of text.

In: files, folders, globs, catalog names, `harbor`. Out: `Source`s, each an iterator of `Piece` that starts anew at
every call and never holds more than a few pieces; and `survey`, which reads one through and counts.
"""

import difflib
import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from groundup.errors import DataError
from groundup.text import catalog, harbor
from groundup.text.files import READERS, Piece, document, table_file

HARBOR_STORIES = 20_000
MOST_KEPT = 50_000  # stories, about 40 MB
NOT_TEXT = {"prepared.json": "token shards", "settings.toml": "a training run", "model.safetensors": "a model"}


@dataclass(frozen=True)
class Source:
    """One file or generated set: `bytes` is its size (an estimate where generated), `stamp` changes when it changes.

    >>> from groundup.text import read
    >>> [source.name for source in read.sources(["harbor:2", "harbor:3:7"])]
    ['harbor:2', 'harbor:3:7']
    """

    name: str
    bytes: int
    stamp: str
    read: Callable[[], Iterator[Piece]]

    def pieces(self) -> Iterator[Piece]:
        """Read from the beginning; raises DataError where the content cannot be used."""
        return self.read()


@dataclass(frozen=True)
class Survey:
    """What a source holds. For a .txt file without a byte order mark, `sha256` is that of the file."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0
    sha256: str = ""


def survey(source: Source, *, progress: Callable[[int], None] = lambda done: None) -> Survey:
    """Read a source once and count; `progress` gets the bytes of text seen so far."""
    documents = characters = size = 0
    digest, inside = hashlib.sha256(), False
    for piece in source.pieces():
        if not inside and documents:
            digest.update(b"\0")  # or two ways to divide the same text would look alike
        data = piece.text.encode("utf-8")
        digest.update(data)
        characters, size = characters + len(piece.text), size + len(data)
        documents, inside = documents + piece.ends, not piece.ends
        progress(size)
    return Survey(documents, characters, size, digest.hexdigest())


def sources(data: Sequence[str], *, field: str = "text") -> list[Source]:
    """Resolve files, folders, globs, catalog names and `harbor[:STORIES[:SEED]]`, in the order given, each file once.

    A name of the catalog, or harbor, comes before a path: write `./harbor` for a folder of that name. Folders are read
    recursively and sorted; hidden files and unknown suffixes in them are passed over. Raises DataError.

    >>> sources(["no/such/file.txt"])
    Traceback (most recent call last):
    groundup.errors.DataError: no such file, folder or catalog name: no/such/file.txt
      -> the folder no/such does not exist
    """
    if not data:
        raise DataError("no text was given", f"--data takes files, folders, globs, or one of: {', '.join(names())}")
    try:
        found = {source.stamp: source for name in data for source in _resolve(name, field)}
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename}: {error.strerror}", "check the path and its permissions"
        ) from None
    return list(found.values())


def names() -> list[str]:
    """The names `--data` understands besides paths."""
    return ["harbor", *(name for name, entry in catalog.ENTRIES.items() if entry.kind == "text" or entry.columns)]


def _resolve(name: str, field: str) -> list[Source]:
    path = Path(name)
    if name.split(":")[0] == "harbor":
        return [_harbor(name)]
    if name in catalog.ENTRIES:
        return [_from_catalog(name, field)]
    if path.is_dir():
        return [file_source(file, field=field) for file in _folder(path)]
    if path.is_file():
        return [_single_file(path, field)]
    if glob.has_magic(name):
        return [file_source(file, field=field) for file in _glob(name)]
    raise _missing(name, path)


def _single_file(path: Path, field: str) -> Source:
    if path.suffix.lower() not in READERS:
        advice = f"text comes as {' '.join(READERS)}; rename or convert the file"
        raise DataError(f"cannot read {path}: unknown kind of file '{path.suffix or path.name}'", advice)
    source = file_source(path, field=field)
    if not source.bytes:
        raise DataError(f"{path} is empty (0 bytes)", "give a file that holds text")
    return source


def _from_catalog(name: str, field: str) -> Source:
    entry = catalog.ENTRIES[name]
    if entry.kind != "text" and not entry.columns:
        raise DataError(f"'{name}' holds {entry.kind}, not running text", f"choose one of: {', '.join(names())}")
    return replace(file_source(catalog.find(name), field=field, columns=entry.columns), name=name)


def _harbor(name: str) -> Source:
    """`harbor`, `harbor:STORIES` or `harbor:STORIES:SEED`; by default 20,000 stories of seed 0."""
    numbers = name.split(":")[1:]
    if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
        raise DataError(
            f"cannot read '{name}'", "write harbor, harbor:STORIES or harbor:STORIES:SEED, such as harbor:20000:7"
        )
    count, seed = (*map(int, numbers), *(HARBOR_STORIES, 0)[len(numbers) :])
    if not count:
        raise DataError(f"'{name}' asks for no stories", f"write harbor:{HARBOR_STORIES}, for example")
    sample = sum(len(piece.text.encode("utf-8")) for piece in _stories(seed, min(count, 100)))
    return Source(name, sample * count // min(count, 100), f"harbor:{count}:{seed}", partial(_stories, seed, count))


def _stories(seed: int, count: int) -> Iterator[Piece]:
    """Stories as documents; the first ones are kept in memory, as telling takes longer than all else done with them."""
    kept = _kept_stories(seed)
    for index in range(count):
        story = kept[index] if index < len(kept) else harbor.story(seed, index)
        if index == len(kept) < MOST_KEPT:
            kept.append(story)
        yield from document(story)


@lru_cache(maxsize=1)
def _kept_stories(seed: int) -> list[str]:
    return []


def _folder(folder: Path) -> list[Path]:
    """Every file of a known kind below a folder, sorted by path."""
    for mark, what in NOT_TEXT.items():
        if (folder / mark).is_file():
            raise DataError(f"{folder} holds {what}, not text", "give the text it was made from")
    return _usable(_walk(folder), where=str(folder))


def _walk(folder: Path) -> list[Path]:
    """Every file below a folder, but nothing hidden."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in files if not name.startswith(".")]
    return found


def _glob(pattern: str) -> list[Path]:
    """What a pattern matches: files of a known kind, and such files below the folders it matches."""
    found = [Path(match) for match in glob.glob(pattern, recursive=True)]
    if not found:
        raise DataError(f"nothing matches {pattern}", f"it was looked for in {Path.cwd()}")
    inside = [file for path in found if path.is_dir() for file in _walk(path)]
    return _usable([path for path in found if path.is_file()] + inside, where=pattern)


def _usable(found: Iterable[Path], *, where: str) -> list[Path]:
    """The files with a known suffix and something in them, sorted; raises DataError if there are none."""
    found = sorted(set(found), key=lambda path: path.as_posix())
    known = [path for path in found if path.suffix.lower() in READERS and path.is_file()]
    if not known:
        seen = ", ".join(sorted({path.suffix or path.name for path in found})[:8]) or "nothing"
        raise DataError(f"no text files in {where}: found {seen}", f"text comes as {' '.join(READERS)}")
    filled = [path for path in known if path.stat().st_size]
    if not filled:
        raise DataError(f"the {len(known)} text files in {where} are all empty", "give files that hold text")
    return filled


def _unreadable(error: OSError) -> None:
    raise DataError(f"cannot read the folder {error.filename}: {error.strerror}", "check its permissions") from None


def _missing(name: str, path: Path) -> DataError:
    what = f"no such file, folder or catalog name: {name}"
    if path.parent.is_dir():
        choices = [*(entry.name for entry in path.parent.iterdir()), *names()]
        close = difflib.get_close_matches(path.name, choices, n=1)
        place = path.parent.resolve()
        return DataError(what, f"did you mean '{close[0]}'?" if close else f"it was looked for in {place}")
    return DataError(what, f"the folder {path.parent} does not exist")


def file_source(path: Path, *, field: str, columns: Sequence[str] = ()) -> Source:
    """The source of one file whose kind is known by its suffix, or by `columns` for lines without a header."""
    status = path.stat()
    labelled = partial(table_file, path, field, columns=columns)
    reader = labelled if columns else partial(READERS[path.suffix.lower()], path, field)
    stamp = f"{path.resolve().as_posix()} {status.st_size} {status.st_mtime_ns} {field}"
    return Source(str(path), status.st_size, stamp, reader)
