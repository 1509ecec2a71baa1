"""Books keep every line of theirs and lose every line of the licence, however the marks are written."""

import gzip
import random
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import DataError
from groundup.text import gutenberg, read

sys.path.insert(0, str(Path(__file__).parent))
from hostile import good, serving, status  # noqa: E402

BODY = "CHAPTER I\n\nIt rained. The end of the road was near.\n\n  *  *  *\n\n*** stars ***\n\nTHE END\n"
HEAD = "The Project Gutenberg EBook of Rain, by A. Nobody\n\nThis eBook is for anyone anywhere.\n\nTitle: Rain\n"
FOOT = "Updated editions will replace the previous one.\n\nSection 1.  General Terms of Use\n" * 40
SMALL_PRINT = (
    '***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this "Small Print!" statement here?\n'
    + "You know: lawyers.\n" * 300
)
STARTS = [
    "*** START OF THE PROJECT GUTENBERG EBOOK RAIN ***",
    "*** START OF THIS PROJECT GUTENBERG EBOOK RAIN ***",
    "***START OF THE PROJECT GUTENBERG EBOOK RAIN***",
    "***START OF THIS PROJECT GUTENBERG ETEXT RAIN***",
    "*** START OF PROJECT GUTENBERG E-BOOK 1234 ***",
    "*** Start of the Project Gutenberg eBook Rain ***",
    "*** START OF THE PROJECT GUTENBERG EBOOK RAIN, BEING THE TRUE\nHISTORY OF A WET\nSUMMER ***",
    "*** START OF THE PROJECT GUTENBERG EBOOK RAIN",
    SMALL_PRINT + "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
    SMALL_PRINT + "*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.10/04/01*END*",
    "*** START OF THE PROJECT GUTENBERG EBOOK RAIN ***\n" + SMALL_PRINT + "*END*THE SMALL PRINT! FOR COPYRIGHT*END*",
]
ENDS = [
    "*** END OF THE PROJECT GUTENBERG EBOOK RAIN ***\n" + FOOT,
    "*** END OF THIS PROJECT GUTENBERG EBOOK RAIN ***\n\n***** This file should be named 1-0.txt *****\n" + FOOT,
    "***END OF THE PROJECT GUTENBERG EBOOK RAIN***\n" + FOOT,
    "End of the Project Gutenberg EBook of Rain, by A. Nobody\n\n*** END OF THIS PROJECT GUTENBERG EBOOK RAIN ***\n"
    + FOOT,
    "End of Project Gutenberg's Rain, by A. Nobody\n\n*** END OF THE PROJECT GUTENBERG EBOOK RAIN ***\n" + FOOT,
    "End of the Project Gutenberg Etext of Rain\n",
    "End of The Project Gutenberg Etext of Rain, by A. Nobody\n\n\n",
    "The End of Project Gutenberg etext of Rain\n",
    "Ende dieses Projekt Gutenberg Etextes Regen\n",
    "*** START: FULL LICENSE ***\n" + FOOT,
    "",
]
CREDITS = ["", "Produced by A. Volunteer and the\nteam at the corner\n\n", "E-text prepared by Two Volunteers\n\n"]


def stripped(text: str) -> str:
    return "".join(gutenberg.body(text.splitlines(keepends=True)))


def written(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def texts(name: str) -> list[str]:
    """Whole documents."""
    found = ""
    for source in read.sources([name]):
        found += "".join(piece.text + ("\0" if piece.ends else "") for piece in source.pieces())
    return found.split("\0")[:-1]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("credit", CREDITS)
def test_the_book_alone_is_left(start: str, end: str, credit: str) -> None:
    assert stripped(f"{HEAD}\n{start}\n\n\n{credit}\n{BODY}\n\n{end}") == BODY


def test_a_text_without_marks_stays_whole() -> None:
    assert stripped(BODY) == BODY
    assert stripped("") == stripped("\n\n") == ""
    assert stripped(HEAD + BODY) == HEAD + BODY


def test_several_books_in_a_volume_are_kept() -> None:
    inner = "Part one.\n\nEnd of Project Gutenberg's Part one\n\n" + "Part two goes on.\n" * 30
    assert stripped(f"{STARTS[0]}\n{inner}\n{ENDS[3]}") == inner
    short = "Part one.\n\nEnd of Project Gutenberg's Part one\n\nA poem of\ntwo lines\n"
    assert stripped(f"{STARTS[0]}\n{short}\n{ENDS[3]}") == short


def test_marks_deep_in_a_book_are_its_text() -> None:
    late = "line\n" * gutenberg.HEADER + "*** START OF THE PROJECT GUTENBERG EBOOK QUOTED ***\nmore\n"
    assert stripped(late) == late
    after_end = f"{STARTS[0]}\nIt rained.\n{ENDS[0]}*END*THE SMALL PRINT! *END*\nlicence\n"
    assert stripped(after_end) == "It rained.\n"


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=20).filter(
    lambda line: not re.match(r"\s*\*|.*gutenberg|.*\b(by|from)\b", line, re.IGNORECASE)
)


@settings(max_examples=100)
@given(lines=st.lists(LINE, max_size=12), start=st.sampled_from(STARTS), end=st.sampled_from(ENDS))
def test_any_text_between_the_marks_is_kept(lines: list[str], start: str, end: str) -> None:
    filled = [f"{line}\n" for line in lines]
    while filled and filled[0].isspace():
        filled.pop(0)
    while filled and filled[-1].isspace():
        filled.pop()
    found = gutenberg.body([*f"{HEAD}\n{start}\n".splitlines(True), "\n", *filled, "\n", *end.splitlines(True)])
    assert list(found) == filled


# files


def test_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    whole = f"{HEAD}\n{STARTS[0]}\n\n{BODY}\n{ENDS[0]}"
    written(tmp_path / "a.txt", "\ufeff" + whole.replace("\n", "\r\n"))
    written(tmp_path / "bare" / "c.txt", f"\ufeff{BODY}")
    assert texts(f"gutenberg:{tmp_path / 'bare'}") == [BODY]
    (tmp_path / "bare" / "c.txt").unlink()
    written(tmp_path / "b.txt.gz", gzip.compress(whole.encode()))
    assert texts(f"gutenberg:{tmp_path}") == [BODY, BODY]
    assert texts(f"gutenberg:{tmp_path / 'a.txt'}") == texts(f"gutenberg:{tmp_path / '*.gz'}") == [BODY]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("ISO-8859-1", "latin-1"),
        ("ISO Latin-1", "latin-1"),
        ("iso-8859-15", "iso-8859-15"),
        ("CP-1252", "cp1252"),
        ("Windows Codepage 1252", "cp1252"),
        ("Big5", "big5"),
        ("UTF-8", "utf-8"),
        ("ISO-8859-1", "utf-8"),  # converted since, and not declared anew
        ("ASCII", "utf-8"),
    ],
)
def test_books_are_decoded_as_declared(tmp_path: Path, declared: str, encoding: str) -> None:
    body = {
        "big5": "下雨了\n",
        "cp1252": "“Il a plu”, dit-il… Grüße, œuvre\n",
        "iso-8859-15": "Grüße, œuvre, 3 €\n",
    }.get(encoding, "Il a plu à l'été. Grüße\n")
    whole = f"{HEAD}\nCharacter set encoding: {declared}\n\n{STARTS[0]}\n\n{body}\n{ENDS[0]}"
    written(tmp_path / "a.txt", whole.replace("\n", "\r\n"), encoding)
    assert texts(f"gutenberg:{tmp_path}") == [body]


@pytest.mark.parametrize("declared", ["", "Character set encoding: UTF-8", "Character set encoding: Klingon"])
def test_bytes_that_fit_no_declaration_are_named(tmp_path: Path, declared: str) -> None:
    written(tmp_path / "a.txt", f"{declared}\n\n{STARTS[0]}\n\né\n", "latin-1")
    with pytest.raises(DataError, match=r"a.txt is not UTF-8: byte 0xE9 at offset \d+\n.*iconv"):
        texts(f"gutenberg:{tmp_path}")


def test_a_wrong_declaration_is_named(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", b"Character set encoding: CP1252\n\n" + STARTS[0].encode() + b"\nx \x81\n")
    with pytest.raises(DataError, match="a.txt is not cp1252, though it declares that: .*0x81"):
        texts(f"gutenberg:{tmp_path}")


def test_a_mirror_gives_each_book_once(tmp_path: Path) -> None:
    for name, text in {
        "1/3/4/1342/1342.txt": "ASCII", "1/3/4/1342/1342-8.txt": "eight", "1/3/4/1342/1342-0.txt": "best",
        "1/3/4/1342/old/prprj10.txt": "old", "1/3/4/1342/1342-readme.txt": "no", "8/84/84.txt": "ASCII",
        "35/b/35-8.txt": "accents", "35/a/35.txt": "ASCII",
        "8/84/84-8.txt": "eight", "cache/epub/11/pg11.txt": "cached", "GUTINDEX.ALL": "no", "GUTINDEX.2001.txt": "no",
        "poem.txt": "poem", "1/1342-h/1342-h.htm": "no", "robots.txt": "no", "0/5/5.txt": "", "98.txt.utf-8": "named",
    }.items():  # fmt: skip
        written(tmp_path / name, text)
    assert sorted(texts(f"gutenberg:{tmp_path}")) == ["accents", "best", "cached", "eight", "named", "poem"]


def test_a_folder_without_books_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.htm", "x")
    with pytest.raises(DataError, match=r"no books in .*: found \.htm"):
        texts(f"gutenberg:{tmp_path}")
    with pytest.raises(DataError, match="no such file"):
        texts(f"gutenberg:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="nothing matches"):
        texts(f"gutenberg:{tmp_path / 'x*.txt'}")


def test_a_large_book_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    body = "".join(f"{rng.randrange(10**9)} drops fell\n" for _ in range(5000))
    written(tmp_path / "a.txt", f"{HEAD}\n{STARTS[0]}\n\n{body}\n{ENDS[0]}")
    monkeypatch.setattr(gutenberg, "BLOCK", 1000)
    [source] = read.sources([f"gutenberg:{tmp_path}"])
    pieces = list(source.pieces())
    assert "".join(piece.text for piece in pieces) == body
    assert max(len(piece.text) for piece in pieces) < 3000 and [piece.ends for piece in pieces].count(True) == 1


def test_the_samples_at_hand_are_left_alone(data_dir: Path) -> None:
    """They came without a licence text, so nothing may be missing but empty lines around them."""
    for name in ("the-verdict", "tinyshakespeare"):
        path = data_dir / "text" / f"{name}.txt"
        [found] = texts(f"gutenberg:{path}")
        assert found.rstrip("\n") == path.read_bytes().decode("utf-8").strip("\n")


# by network


def test_books_by_number(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = f"{HEAD}\n{STARTS[0]}\n\n{BODY}\n{ENDS[0]}".encode()
    with serving(good(whole)) as server:
        monkeypatch.setattr(gutenberg, "ADDRESS", server.address + "/{number}/pg{number}.txt")
        found = read.sources(["gutenberg:84,11,84"])
        assert [source.name for source in found] == ["gutenberg:84", "gutenberg:11"]
        assert texts("gutenberg:84,11") == [BODY, BODY] and len(server.seen) == 2
        assert (cache / "gutenberg" / "pg84.txt").read_bytes() == whole
        assert (cache / "gutenberg" / "pg84.txt.sha256").is_file()
        assert [source.name for source in read.sources(["gutenberg"])] == [f"gutenberg:{n}" for n in gutenberg.BOOKS]
        server.answers[:] = [status(404)]
        with pytest.raises(DataError, match="pg999999.txt answers 404"):
            read.sources(["gutenberg:999999"])
    with pytest.raises(DataError, match="101 books are too many.*\n.*mirror"):
        read.sources(["gutenberg:" + ",".join(map(str, range(1, 102)))])
