"""`groundup tokenizer train | show | encode | decode`: learn a tokenizer, look at it, use it.

In: the settings of one of the four. Out: a small result; `show` prints any of them for people.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from groundup import tokens
from groundup.errors import DataError, SettingsError, TokenizerError
from groundup.settings import TokenizerDecode, TokenizerEncode, TokenizerShow, TokenizerTrain
from groundup.text import read
from groundup.tokens import Tokenizer, learning, prepare

OURS = {"tokenizer.json", "tokenizer_config.json"}
COLOURS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")
SIGNS = {" ": "·", "\t": "→", "\n": "↵", "\r": "␍"}


@dataclass(frozen=True)
class Trained:
    """A tokenizer that was learnt and saved in `out`."""

    out: Path
    kind: str
    vocabulary: int
    special: dict[str, int]
    fingerprint: str


@dataclass(frozen=True)
class Shown:
    """How a text is cut: the first `ids` with their `pieces` made visible, and counts over the whole text."""

    ids: list[int]
    pieces: list[str]
    tokens: int
    characters: int
    bytes: int
    bytes_per_token: float


@dataclass(frozen=True)
class Encoded:
    """The ids of a text."""

    ids: list[int]


@dataclass(frozen=True)
class Decoded:
    """The text of some ids."""

    text: str


def train(settings: TokenizerTrain) -> Trained:
    """Learn a tokenizer from text and save it; another tokenizer or foreign files in the folder are left alone."""
    if settings.out is None:
        raise SettingsError("no folder was given for the tokenizer", "add --out FOLDER")
    if not settings.data:
        raise SettingsError("no text was given", "add --data FILE, a folder, a glob or a name such as harbor")
    out = settings.out
    _refuse_foreign(out)
    with prepare.shown() as progress:
        sources = read.sources(settings.data, field=settings.field, progress=progress)
        texts = learning.texts(sources, kind=settings.kind, progress=progress)
        tokenizer = tokens.train(settings.kind, texts, vocabulary=settings.vocabulary, special=settings.special)
    if (out / "tokenizer.json").exists() and tokens.load(out).fingerprint != tokenizer.fingerprint:
        raise SettingsError(f"{out} holds another tokenizer", "choose another --out, or delete that tokenizer first")
    tokenizer.save(out)
    return Trained(out, tokenizer.kind, tokenizer.vocabulary, tokenizer.special, tokenizer.fingerprint)


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file, not a folder", "choose another --out")
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in OURS) if out.exists() else []
    if foreign:
        raise SettingsError(f"{out} holds other files: {', '.join(foreign[:3])}", "give --out a new or empty folder")


def show_pieces(settings: TokenizerShow) -> Shown:
    """Cut a text and make the pieces visible."""
    tokenizer, text = choose(settings.tokenizer), _text(settings.text, settings.file)
    ids = tokenizer.encode(text)
    size = len(text.encode("utf-8"))
    first = ids[: settings.limit]
    pieces = [visible(piece) for piece in tokenizer.pieces(first)]
    return Shown(first, pieces, len(ids), len(text), size, size / len(ids) if ids else 0.0)


def encode(settings: TokenizerEncode) -> Encoded:
    """Text to ids."""
    text = _text(settings.text, settings.file)
    return Encoded(choose(settings.tokenizer).encode(text, special=settings.special))


def decode(settings: TokenizerDecode) -> Decoded:
    """Ids to text."""
    if settings.ids and settings.file is not None:
        raise SettingsError("ids were given twice, by --ids and by --file", "keep one of them")
    if not settings.ids and settings.file is None:
        raise SettingsError("no ids were given", "add --ids 15496 11 ..., or --file FILE (- reads standard input)")
    ids = settings.ids if settings.file is None else _parse_ids(_read(settings.file), settings.file)
    return Decoded(choose(settings.tokenizer).decode(ids))


def choose(name: str) -> Tokenizer:
    """The tokenizer a person means: gpt2, or what a file, folder or model holds (a folder named gpt2: write ./gpt2)."""
    return tokens.gpt2() if name == "gpt2" else opened(name) or tokens.load(name)


def opened(name: str) -> Tokenizer | None:
    """The tokenizer in a file or folder, or in any model that `groundup import` takes; None where there is none.

    Raises CheckpointError, TokenizerError or DataError for a model that is damaged or cannot be had.
    """
    try:
        return tokens.load(name)
    except TokenizerError:
        from groundup.stages.start import tokenizer_of  # torch comes with it: only where it is needed

        return tokenizer_of(name)


def _text(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise SettingsError("a text was given twice, by --text and by --file", "keep one of them")
    if text is None and file is None:
        raise SettingsError("no text was given", "add --text TEXT, --text - for standard input, or --file FILE")
    if text is not None and text != "-":
        return text
    return _read(Path("-") if file is None else file)


def _read(file: Path) -> str:
    """The whole of a UTF-8 file, or of standard input for `-`; a byte order mark is dropped."""
    source = "standard input" if str(file) == "-" else str(file)
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return content.decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}", "check the path and its permissions") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 at byte {error.start:,}", "convert it to UTF-8 first") from None


def _parse_ids(content: str, file: Path) -> list[int]:
    """Ids from white space between them, a JSON list, or the JSON that `tokenizer encode --json` prints.

    >>> _parse_ids("1 2", Path("f")), _parse_ids("[1, 2]", Path("f")), _parse_ids('{"ids": [1, 2]}', Path("f"))
    ([1, 2], [1, 2], [1, 2])
    """
    try:
        found = json.loads(content) if content.lstrip()[:1] in ("[", "{") else content.split()
        words = found["ids"] if isinstance(found, dict) else found
        return [int(str(word)) for word in words]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} does not hold ids: {error}", "write whole numbers with spaces, or a JSON list"
        ) from None


def visible(piece: bytes) -> str:
    """The bytes of a token as signs that can be seen; bytes that are not UTF-8 by themselves as <0xE2>.

    >>> visible(b" the"), visible(b"\\n"), visible("é".encode()[:1]), visible("\\u200b".encode())
    ('·the', '↵', '<0xC3>', '<U+200B>')
    """
    return "".join(_sign(char) for char in piece.decode("utf-8", errors="surrogateescape"))


def _sign(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"<0x{ord(char) - 0xDC00:02X}>"
    return SIGNS.get(char) or (char if char.isprintable() else f"<U+{ord(char):04X}>")


def show(result: Trained | Shown | Encoded | Decoded) -> None:
    """Print a result for people."""
    if isinstance(result, Encoded):
        print(*result.ids)
    elif isinstance(result, Decoded):
        print(result.text)
    elif isinstance(result, Trained):
        names = ", ".join(f"{name} = {id}" for name, id in result.special.items()) or "none"
        print(f"{result.kind} tokenizer with {result.vocabulary:,} ids (special: {names}) saved in {result.out}")
    else:
        _print_pieces(result, Console(highlight=False))


def _print_pieces(shown: Shown, console: Console) -> None:
    """The coloured pieces, their ids in the same colours, the counts; without colour, `|` between pieces."""
    console.print(_coloured(shown.pieces, console, between="" if console.color_system else "|"), soft_wrap=True)
    console.print(_coloured(map(str, shown.ids), console, between=" "), soft_wrap=True)
    if shown.tokens > len(shown.ids):
        console.print(f"... and {shown.tokens - len(shown.ids):,} more (--limit)")
    console.print(
        f"{shown.tokens:,} tokens, {shown.characters:,} characters, {shown.bytes:,} bytes: "
        f"{shown.bytes_per_token:.2f} bytes per token"
    )


def _coloured(pieces: Iterable[str], console: Console, *, between: str) -> Text:
    """Pieces in turning colours; a line ends where a new line was in the text."""
    line = Text()
    for i, piece in enumerate(pieces):
        line.append(between if i else "")
        for j, part in enumerate(piece.split("↵")):
            line.append("↵" if j else "", style=COLOURS[i % len(COLOURS)] if console.color_system else "")
            line.append("\n" if j else "")
            line.append(part, style=COLOURS[i % len(COLOURS)] if console.color_system else "")
    return line
