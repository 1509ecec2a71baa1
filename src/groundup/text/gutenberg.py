"""Books of Project Gutenberg without what is not the book.

In: `.txt` files as its sites and mirrors hold them, or numbers of books. Out: each book as one document, in pieces:
without the licence header and footer and the credits after the header, with line ends made "\\n", decoded as UTF-8 or,
where it is not UTF-8, as the header declares ("Character set encoding: ISO-8859-1").

Marks changed over the years. Recognized are `*** START OF THE (or THIS) PROJECT GUTENBERG EBOOK (or ETEXT) ... ***`,
with or without spaces, also over several lines; the end of the "small print" of the 1990s; the matching END; "End of
(the) Project Gutenberg's ..." shortly before it or before the end of the file. A book without marks stays whole.
"""

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path, PurePath

from groundup.errors import DataError
from groundup.text import download, packed
from groundup.text.download import Progress, Remote, silent
from groundup.text.files import BLOCK, NotUTF8, Piece, cut, decoded

ADDRESS = "https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt"
MOST_BOOKS = 100  # by network: the site asks robots to use a mirror
BOOKS = {
    11: "Carroll, Alice's Adventures in Wonderland",
    35: "Wells, The Time Machine",
    76: "Twain, Adventures of Huckleberry Finn",
    84: "Shelley, Frankenstein",
    98: "Dickens, A Tale of Two Cities",
    120: "Stevenson, Treasure Island",
    174: "Wilde, The Picture of Dorian Gray",
    345: "Stoker, Dracula",
    1342: "Austen, Pride and Prejudice",
    1661: "Doyle, The Adventures of Sherlock Holmes",
    2701: "Melville, Moby Dick",
}
LICENCE = "public domain in the USA; elsewhere see https://www.gutenberg.org/policy/permission.html"

HEADER = 1000  # lines in which a header must end; the longest small print has about 350
TAIL = 20  # lines of text that may follow "End of Project Gutenberg's ..." if that is to be the end
LINE = 1 << 16  # characters; a longer line is read in parts
BEGIN = re.compile(
    r"\s*\*{2,}\s*START OF (?:TH(?:E|IS) )?PROJECT GUTENBERG|\s*\*+\s*END[\s*]+THE SMALL PRINT", re.IGNORECASE
)
END = re.compile(r"\s*\*{2,}\s*(?:END OF (?:TH(?:E|IS) )?PROJECT GUTENBERG|START: FULL LICEN[CS]E)", re.IGNORECASE)
SOFT_END = re.compile(r"\W*(?:The )?(?:End|Ende|Fin)\b.{0,40}\bProje[ck]t Gutenberg", re.IGNORECASE)
CREDIT = re.compile(
    r"(?:(?:this )?e-?(?:book|text) (?:was )?)?(?:produced|prepared|transcribed|scanned)\b.*\b(?:by|from)\b",
    re.IGNORECASE,
)
DECLARED = re.compile(rb"^\s*Character set encoding:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
# 1342-0.txt (UTF-8), 1342-8.txt (eight bits), 1342.txt (ASCII), pg1342.txt (UTF-8, from the cache), 1342.txt.utf-8
NAME = re.compile(r"(pg)?(\d+)(-[08])?\.txt(\.utf-?8)?$", re.IGNORECASE)
NO_BOOK = re.compile(r"(?:.*readme|GUTINDEX.*|robots)\.txt$", re.IGNORECASE)


def book(path: Path) -> Iterator[Piece]:
    """One book as one document; raises DataError if it is not UTF-8 and declares nothing else it can be read as."""
    return cut(_blocks(body(_lines(path))))


def body(lines: Iterable[str]) -> Iterator[str]:
    r"""The lines of a book between header and footer, without empty ones around them.

    >>> list(body(["Title: A\n", "*** START OF THE PROJECT GUTENBERG EBOOK A ***\n", "\n", "It rained.\n", "\n",
    ...            "*** END OF THE PROJECT GUTENBERG EBOOK A ***\n", "Licence\n"]))
    ['It rained.\n']
    """
    return _trimmed(_before_footer(_after_header(iter(lines))))


def chosen(paths: Iterable[Path]) -> list[Path]:
    """The files that are books, one for each number: a mirror holds the same book in several encodings.

    >>> names = ["1/1342/1342.txt", "1/1342/1342-0.txt", "1/1342/old/pandp12.txt", "1/1342/1342-h.zip", "emma.txt"]
    >>> [path.as_posix() for path in chosen(map(Path, names))]
    ['1/1342/1342-0.txt', 'emma.txt']
    """
    best: dict[str, Path] = {}
    for path in sorted((path for path in paths if is_book(path)), key=lambda path: (_rank(path), path.as_posix())):
        name = NAME.match(_plain(path))
        best.setdefault(name[2].lstrip("0") if name else path.as_posix(), path)
    return sorted(best.values(), key=lambda path: path.as_posix())


def is_book(path: PurePath) -> bool:
    """Whether a file of a Gutenberg folder is a text in its present edition."""
    name = _plain(path)
    text = NAME.match(name) or (name.lower().endswith(".txt") and not NO_BOOK.match(name))
    return bool(text) and "old" not in path.parts[:-1]  # mirrors keep editions that were replaced in folders "old"


def numbers(names: str) -> list[int]:
    """The numbers of "1342,84"; the few of `BOOKS` for "".

    Raises DataError for more than the site would like to give.
    """
    found = list(dict.fromkeys(int(name) for name in names.split(",") if name)) or list(BOOKS)
    if len(found) > MOST_BOOKS:
        raise DataError(
            f"{len(found):,} books are too many to download one by one (at most {MOST_BOOKS})",
            "copy them from a mirror (https://www.gutenberg.org/help/mirroring.html) and give gutenberg:FOLDER",
        )
    return found


def fetched(number: int, *, progress: Progress = silent) -> Path:
    """The file of a book in the cache folder, downloaded if it is not there; its first hash is kept and checked."""
    remote = Remote(name=f"gutenberg:{number}", address=ADDRESS.format(number=number))
    return download.fetch(remote, download.cache() / "gutenberg" / f"pg{number}.txt", progress=progress)


def _plain(path: PurePath) -> str:
    """The name without .gz or .zst."""
    return path.stem if packed.is_packed(Path(path)) else path.name


def _rank(path: PurePath) -> int:
    """0 for UTF-8, 1 for eight bits, 2 for ASCII, which has lost the accents; 0 where the name says nothing."""
    name = NAME.match(_plain(path))
    if not name or name[1] or name[4] or name[3] == "-0":
        return 0
    return 1 if name[3] else 2


def _lines(path: Path) -> Iterator[str]:
    """The lines of the file, all ending in a newline character."""
    encoding = _encoding(path)
    with packed.opened(path) as file, io.TextIOWrapper(file, encoding=encoding) as text:
        while True:
            try:
                line = text.readline(LINE)
            except UnicodeError as error:
                what = f"{path} is not {encoding}, though it declares that: {error}"
                raise DataError(what, "convert it to UTF-8, or leave it out") from None
            if not line:
                return
            yield line


def _encoding(path: Path) -> str:
    """UTF-8 where the file is that (many declare another and were converted since), else what it declares."""
    try:
        for _ in decoded(path):
            pass
    except NotUTF8:
        with packed.opened(path) as file:
            found = DECLARED.search(file.read(LINE))
        name = _codec(found[1].decode("ascii", "replace")) if found else ""
        if name in ("", "utf-8", "ascii"):
            raise
        return name
    return "utf-8-sig"


def _codec(declared: str) -> str:
    """Python's name of a declared encoding, "" if it has none.

    >>> [_codec(name) for name in ("ISO-8859-1", "ISO Latin-1", "CP-1252", "Windows Code Page 1252", "Klingon")]
    ['iso8859-1', 'iso8859-1', 'cp1252', 'cp1252', '']
    """
    short = re.sub(r"\(.*", "", declared.lower())
    short = re.sub(r"\b(?:windows )?code ?page\b", "cp", short)
    short = re.sub(r"\biso[- ]?latin", "latin", short).strip(" .")
    for name in (short, re.sub(r"[^a-z0-9]", "", short)):
        try:
            b"".decode(name)  # refuses codecs that are not of text, too
            return codecs.lookup(name).name
        except (LookupError, ValueError):
            continue
    return ""


def _after_header(lines: Iterator[str]) -> Iterator[str]:
    """Drop everything up to the last mark of a beginning among the first lines."""
    head = list(islice(lines, HEADER))
    end = next((at for at, line in enumerate(head) if END.match(line)), len(head))
    marks = [at for at, line in enumerate(head[:end]) if BEGIN.match(line)]
    return chain(head[_mark_end(head, marks[-1]) :] if marks else head, lines)


def _mark_end(head: list[str], mark: int) -> int:
    """The line after a mark, whose title may go on over a few lines until the closing asterisks."""
    for at in range(mark, min(mark + 5, len(head))):
        if not head[at].strip():
            break
        if head[at].rstrip().endswith("*"):
            return at + 1
    return mark + 1


def _before_footer(lines: Iterable[str]) -> Iterator[str]:
    """Stop at the END mark; hold back what follows a "End of Project Gutenberg's ...", in case the end is near."""
    held: list[str] = []
    for line in lines:
        if END.match(line):
            return
        soft = SOFT_END.match(line)
        if held and (soft or sum(not text.isspace() for text in held) > TAIL):
            yield from held  # that was no end: a volume of several books has such a line after each
            held = []
        if held or soft:
            held.append(line)
        else:
            yield line


def _trimmed(lines: Iterable[str]) -> Iterator[str]:
    """Drop empty lines around the text, and a first paragraph that names who prepared the file."""
    lines = iter(lines)
    first = next((line for line in lines if not line.isspace()), "")
    if CREDIT.match(first.strip()):
        paragraph = next((line for line in lines if line.isspace()), "")
        first = next((line for line in lines if not line.isspace()), "") if paragraph else ""
    empty: list[str] = []
    for line in chain([first] if first else [], lines):
        if line.isspace():
            empty.append(line)
        else:
            yield from empty
            empty = []
            yield line


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Lines put together to about a megabyte."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= BLOCK:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)
