"""What a person names -> sources of text.

In: files, folders, globs, catalog names, `harbor`, `gutenberg`. Out: `Source`s, each an iterator of `Piece` that starts
anew at every call and never holds more than a few pieces; and `survey`, which reads one through and counts.
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
from groundup.text import catalog, files, gutenberg, harbor, packed, parquet
from groundup.text.download import Progress, silent
from groundup.text.files import Piece, document, table_file

READERS = files.READERS | {".parquet": parquet.parquet_file}
HARBOR_STORIES = 20_000
KINDS = f"{' '.join(READERS)}, each also as .gz or .zst"
MOST_KEPT = 50_000  # stories, about 40 MB
NOT_TEXT = {"prepared.json": "token shards", "settings.toml": "a training run", "model.safetensors": "a model"}


@dataclass(frozen=True)
class Source:
    """One file or generated set; `stamp` changes when it changes.

    `bytes` says how much there is to read: the size of the file, an estimate of what is inside where that is packed or
    generated. Only `survey` knows how much text it is. A source can be sent to another process.

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


def sources(data: Sequence[str], *, field: str = "text", progress: Progress = silent) -> list[Source]:
    """Resolve files, folders, globs, catalog names, `harbor` and `gutenberg`, in the order given, each file once.

    A name of the catalog, harbor or gutenberg comes before a path: write `./harbor` for a folder of that name. Folders
    are read recursively and sorted; hidden files and unknown suffixes in them are passed over. `gutenberg:FOLDER` (or a
    file, or a glob) reads books without licence header and footer, `gutenberg:1342,84` downloads books by number,
    `gutenberg` a few well-known ones. `progress` hears of downloads. Raises DataError.

    >>> sources(["no/such/file.txt"])
    Traceback (most recent call last):
    groundup.errors.DataError: no such file, folder or catalog name: no/such/file.txt
      -> the folder no/such does not exist
    """
    if not data:
        raise DataError("no text was given", f"--data takes files, folders, globs, or one of: {', '.join(names())}")
    try:
        found = {source.stamp: source for name in data for source in _resolve(name, field, progress)}
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename}: {error.strerror}", "check the path and its permissions"
        ) from None
    return list(found.values())


def names() -> list[str]:
    """The names `--data` understands besides paths."""
    return [
        "harbor",
        "gutenberg",
        *(name for name, entry in catalog.ENTRIES.items() if entry.kind == "text" or entry.columns),
    ]


def _resolve(name: str, field: str, progress: Progress) -> list[Source]:
    path = Path(name)
    if name.split(":")[0] == "harbor":
        return [_harbor(name)]
    if name.split(":")[0] == "gutenberg":
        return _gutenberg(name.partition(":")[2], progress)
    if name in catalog.ENTRIES:
        return [_from_catalog(name, field, progress)]
    if path.is_dir():
        return [file_source(file, field=field) for file in _folder(path)]
    if path.is_file():
        return [_single_file(path, field)]
    if glob.has_magic(name):
        return [file_source(file, field=field) for file in _glob(name)]
    raise _missing(name, path)


def _single_file(path: Path, field: str) -> Source:
    if packed.kind(path) not in READERS:
        advice = f"text comes as {KINDS}; rename or convert the file"
        if packed.is_packed(path) and not packed.kind(path):
            advice = f"say what is packed: {path.stem}.txt{path.suffix} or {path.stem}.jsonl{path.suffix}, for example"
        raise DataError(f"cannot read {path}: unknown kind of file '{_suffix(path)}'", advice)
    source = file_source(path, field=field)
    if not source.bytes:
        raise DataError(f"{path} is empty (0 bytes)", "give a file that holds text")
    return source


def _from_catalog(name: str, field: str, progress: Progress) -> Source:
    entry = catalog.ENTRIES[name]
    if entry.kind != "text" and not entry.columns:
        raise DataError(f"'{name}' holds {entry.kind}, not running text", f"choose one of: {', '.join(names())}")
    path = catalog.find(name, progress=progress)
    return replace(file_source(path, field=field, columns=entry.columns), name=name)


def _gutenberg(what: str, progress: Progress) -> list[Source]:
    """Books by number, from the network; else those in a folder, a file or a glob."""
    if not what.strip("0123456789,"):
        books = {number: gutenberg.fetched(number, progress=progress) for number in gutenberg.numbers(what)}
        return [replace(_book(path), name=f"gutenberg:{number}") for number, path in books.items()]
    path = Path(what)
    found = [path] if path.is_file() else _walk(path) if path.is_dir() else _matches(what)
    books_there = gutenberg.chosen(file for file in found if file.is_file() and file.stat().st_size)
    if not books_there:
        raise DataError(f"no books in {what}: found {_seen(found)}", "Gutenberg's plain texts end in .txt")
    return [_book(path) for path in books_there]


def _book(path: Path) -> Source:
    status = path.stat()
    stamp = f"{path.resolve().as_posix()} {status.st_size} {status.st_mtime_ns} gutenberg"
    return Source(str(path), packed.size(path), stamp, partial(gutenberg.book, path))


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
    for root, folders, inside in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in inside if not name.startswith(".")]
    return found


def _glob(pattern: str) -> list[Path]:
    """What a pattern matches: files of a known kind, and such files below the folders it matches."""
    return _usable(_matches(pattern), where=pattern)


def _matches(pattern: str) -> list[Path]:
    """Every file that a pattern matches or that lies below a folder it matches; raises DataError if nothing matches."""
    found = [Path(match) for match in glob.glob(pattern, recursive=True)]
    if not found:
        if not glob.has_magic(pattern):
            raise _missing(pattern, Path(pattern))
        raise DataError(f"nothing matches {pattern}", f"it was looked for in {Path.cwd()}")
    inside = [file for path in found if path.is_dir() for file in _walk(path)]
    return [path for path in found if path.is_file()] + inside


def _usable(found: Iterable[Path], *, where: str) -> list[Path]:
    """The files with a known suffix and something in them, sorted; raises DataError if there are none."""
    found = sorted(set(found), key=lambda path: path.as_posix())
    known = [path for path in found if packed.kind(path) in READERS and path.is_file()]
    if not known:
        raise DataError(f"no text files in {where}: found {_seen(found)}", f"text comes as {KINDS}")
    filled = [path for path in known if path.stat().st_size]
    if not filled:
        raise DataError(f"the {len(known)} text files in {where} are all empty", "give files that hold text")
    return filled


def _seen(found: Iterable[Path]) -> str:
    """The kinds of file that are there, for a message."""
    return ", ".join(sorted({_suffix(path) for path in found})[:8]) or "nothing"


def _suffix(path: Path) -> str:
    """The end of a name that tells its kind: .txt, .tar.gz, or the whole name."""
    return packed.kind(path) + path.suffix if packed.is_packed(path) else path.suffix or path.name


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
    status, kind = path.stat(), packed.kind(path)
    labelled = partial(table_file, path, field, columns=columns)
    reader = labelled if columns else partial(READERS[kind], path, field)
    size = parquet.size(path, field) if kind == ".parquet" and status.st_size else packed.size(path)
    stamp = f"{path.resolve().as_posix()} {status.st_size} {status.st_mtime_ns} {field}"
    return Source(str(path), size, stamp, reader)
