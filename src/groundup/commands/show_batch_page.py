"""Rows of a batch for people: the letters below tokens, and a page that opens without a network.

In: `Shown` rows. Out: lines of text (`columns`), or one HTML file (`write`). Whatever a token spells is escaped.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from rich.cells import cell_len

from groundup.checkpoint import atomic
from groundup.commands.tokenizer import visible
from groundup.errors import SettingsError
from groundup.tokens import Tokenizer

MARKS = {
    "L": "learnt",
    "S": "learnt, special token",
    ".": "read, not learnt",
    "s": "special token, not learnt",
    "R": "its state is judged",
    "_": "filler",
}
MEANT = {  # the letters that a stage can have
    **dict.fromkeys(("instruct", "pretrain", "dpo"), "LS.s_"),
    **dict.fromkeys(("classify", "reward"), ".sR_"),
}
BESIDE = ("dpo", "reward")  # stages whose rows are pairs
WIDTH = 100  # columns of a line of text
MARK = "<!-- groundup show-batch -->"
BEGINNING = f"<!doctype html>{MARK}\n"
OTHER = "choose another name for the page"
STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--ink:#1b2326;--soft:#5a666b;--rule:#dedcd3;
--L:#b9e6c4;--S:#1f7a43;--on:#fff;--s:#005f9e;--R:#d55e00}
@media (prefers-color-scheme:dark){:root{--paper:#121719;--ink:#e7ebea;--soft:#9fabae;--rule:#313b3f;
--L:#1f5133;--S:#6fd896;--on:#0b1a11;--s:#6cbcf0;--R:#ff9248}}
body{margin:0 auto;max-width:70rem;padding:1.5rem 1.2rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem}h2{font-size:.95rem;color:var(--soft);margin:1.6rem 0 .3rem;font-weight:600}
p{margin:.2rem 0}
.row{font:.95rem/1.9 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;border-left:3px solid var(--rule);
padding:.2rem .8rem;overflow-wrap:anywhere}
.t{border-radius:3px;padding:.1em 0;outline:1px solid var(--rule)}
.L{background:var(--L)}.S{background:var(--S);color:var(--on);font-weight:600}
.o{color:var(--soft)}.s{color:var(--s);font-weight:600}.R{background:var(--R);color:#fff;font-weight:600}
.f{color:var(--soft);font-style:italic}
.legend span{margin-right:1.2rem;padding:.1em .4em}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:0 1.2rem}
"""


@dataclass(frozen=True)
class Token:
    """An id, its text made visible, and its letter in MARKS."""

    id: int
    text: str
    mark: str


@dataclass(frozen=True)
class Part:
    """A document of a row: where it was read, and its tokens."""

    where: str
    tokens: list[Token]


@dataclass(frozen=True)
class Shown:
    """A row: what stands in it, and how many places hold filler."""

    parts: list[Part]
    filler: int


def letters(tokenizer: Tokenizer, ids: np.ndarray, weight: np.ndarray) -> list[str]:
    """The letter of each id: see MARKS."""
    special = set(tokenizer.special.values())
    return [
        ("S" if counts else "s") if id in special else ("L" if counts else ".")
        for id, counts in zip(ids.tolist(), (weight > 0).tolist(), strict=True)
    ]


def spelled(tokenizer: Tokenizer, ids: np.ndarray, marks: Sequence[str]) -> list[Token]:
    """The tokens of these ids with these letters."""
    pieces = tokenizer.pieces(ids)
    return [Token(id, visible(piece), mark) for id, piece, mark in zip(ids.tolist(), pieces, marks, strict=True)]


def columns(tokens: Sequence[Token], width: int = WIDTH) -> list[str]:
    """Lines in twos: tokens with | between them, and below each its letter.

    >>> print("\\n".join(columns([Token(1, "Hi", "."), Token(2, "·you↵", "L"), Token(3, "!", "S")])))
    Hi|·you↵
    .  L
    !
    S
    """
    lines, line, marks = [], "", ""
    for token in tokens:
        cell = ("|" if line else "") + (token.text or " ")
        if line and cell_len(line + cell) > width:
            lines += [line, marks]
            line, marks, cell = "", "", token.text or " "
        gap = cell_len(line) - cell_len(marks) + (1 if line else 0)
        marks += " " * gap + token.mark
        line += cell
        if token.text.endswith("↵"):
            lines += [line, marks]
            line = marks = ""
    return [*lines, line, marks] if line else lines


def legend(stage: str) -> dict[str, str]:
    """The letters of a stage, and what each stands for.

    >>> legend("classify")["R"]
    'its state is judged'
    """
    return {mark: MARKS[mark] for mark in MEANT[stage]}


def check(path: Path) -> None:
    """Raise SettingsError where `write` would fail, or put its page in the place of something else."""
    try:
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if path.is_dir():
            raise SettingsError(f"--html {path} is a folder", f"name a file: --html {path / 'batch.html'}")
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise SettingsError(f"--html {path} cannot be written: {above} is no folder that takes files", OTHER)
        if path.exists() and not _ours(path):
            raise SettingsError(f"--html {path} exists already, and groundup did not write it", OTHER)
    except OSError as error:
        raise SettingsError(f"--html {path} cannot be written: {error.strerror}", OTHER) from None


def _ours(path: Path) -> bool:
    """Whether an earlier page stands there."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(len(BEGINNING))


def write(path: Path, stage: str, words: Sequence[str], shown: Sequence[Shown]) -> None:
    """Write the page in one go; an earlier one stays until the new one is whole.

    Raises OSError where the disk is full or the folder cannot be written.
    """
    content = _page(stage, words, shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, content)


def _page(stage: str, words: Sequence[str], shown: Sequence[Shown]) -> str:
    title = f"groundup show-batch {stage}"
    facts = "".join(f"<p>{escape(line)}</p>" for line in words)
    keys = "".join(f'<span class="{_class(mark)}">{escape(what)}</span>' for mark, what in legend(stage).items())
    beside = stage in BESIDE
    rows = "".join(_row(number, row, beside=beside) for number, row in enumerate(shown, 1))
    return (
        f'{BEGINNING}<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{facts}"
        f'<p class="legend">{keys}</p>{rows}</body></html>\n'
    )


def _row(number: int, row: Shown, *, beside: bool) -> str:
    """All parts of a row, and what is filler; the two answers of a pair stand side by side where there is room."""
    parts = [_part(number, part) for part in row.parts]
    if beside:
        parts = ['<section class="sides">', *(f"<section>{part}</section>" for part in parts), "</section>"]
    return "".join([*parts, *(_part(number, part) for part in _filler(row.filler))])


def _part(number: int, part: Part) -> str:
    tokens = "".join(_token(token) for token in part.tokens)
    return f'<h2>row {number}, {escape(part.where)}</h2><div class="row">{tokens}</div>\n'


def _token(token: Token) -> str:
    """One token; the id and the meaning of its colour appear under the pointer."""
    told = f"{token.id}: {MARKS[token.mark]}"
    text = escape(token.text).replace("↵", "↵<br>")
    return f'<span class="t {_class(token.mark)}" title="{escape(told)}">{text}</span>'


def _filler(places: int) -> list[Part]:
    return [Part("filler", [Token(0, f"{places:,} place{'s' if places > 1 else ''}", "_")])] if places else []


def _class(mark: str) -> str:
    return {".": "o", "_": "f"}.get(mark, mark)
