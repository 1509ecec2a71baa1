"""`groundup models`: the public models that can be had by name, or one of them in full.

In: `settings.Models`. Out: `Result`: one row for each model, with its files, addresses and hashes. No network.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from groundup.checkpoint import sources
from groundup.errors import SettingsError, nearest
from groundup.settings import Models
from groundup.text import download


@dataclass(frozen=True)
class Row:
    """One model; `bytes` is what its download takes, about; `here` the folder with all its files, or None.

    `files`: path, address (or package and its sha256), sha256 and bytes of each; None where they are not known.
    """

    name: str
    format: str
    parameters: int
    bytes: int
    licence: str
    here: Path | None
    note: str
    citation: str
    gated: str
    files: list[dict[str, Any]]


@dataclass(frozen=True)
class Result:
    """The catalog, or the one model that was asked for (`full`)."""

    models: list[Row]
    full: bool


def run(settings: Models) -> Result:
    """Look the catalog up; raises SettingsError for a name that is not in it.

    >>> run(Models(name="gpt2")).models[0].parameters
    124439808
    """
    if settings.name and settings.name not in sources.ENTRIES:
        raise SettingsError(f"'{settings.name}' is not in the catalog", nearest(settings.name, sources.ENTRIES))
    names = [settings.name] if settings.name else list(sources.ENTRIES)
    return Result([_row(name) for name in names], full=bool(settings.name))


def _row(name: str) -> Row:
    model = sources.ENTRIES[name]
    return Row(
        name=name,
        format=model.format,
        parameters=model.parameters,
        bytes=model.bytes,
        licence=model.licence,
        here=sources.local(name),
        note=model.note,
        citation=model.citation,
        gated=model.gated,
        files=[_file(file) for file in model.files],
    )


def _file(file: sources.File) -> dict[str, Any]:
    packed = {"package": file.wheel.requirement, "package sha256": file.wheel.sha256} if file.wheel else {}
    known: dict[str, Any] = {"sha256": file.sha256 or None, "bytes": file.bytes or None}
    return {"path": file.path, "address": file.address, **known, **packed}


def show(result: Result) -> None:
    """Print the table, or everything about one model, for people."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    if result.full:
        return _show_one(console, result.models[0])
    table = Table(title="public models: groundup import NAME --out DIR", title_justify="left", box=None, pad_edge=False)
    for name in ("name", "parameters", "download", "licence", "here", "note"):
        right = name in ("parameters", "download")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "note")
    for row in result.models:
        here = "yes" if row.here else "no"
        table.add_row(row.name, f"{row.parameters:,}", _size(row.bytes), row.licence, here, row.note)
    console.print(table)
    console.print(f"\none in full: groundup models NAME; downloads are kept in {download.cache() / 'models'}")


def _show_one(console: Console, row: Row) -> None:
    table = Table(title=row.name, title_justify="left", box=None, show_header=False, pad_edge=False)
    facts = {"format": row.format, "parameters": f"{row.parameters:,}", "download": f"about {_size(row.bytes)}"}
    facts |= {"licence": row.licence, "from": row.citation, "note": row.note, "terms": row.gated}
    facts |= {"here": str(row.here) if row.here else "no"}
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    console.print(table)
    for file in row.files:
        console.print(f"\n{file['path']}", style="bold")
        console.print(f"  {file.get('package') or file['address']}", soft_wrap=True)
        if package := file.get("package sha256"):
            console.print(f"  sha256 of the package {package}", soft_wrap=True)
        unknown = "not known" if row.gated else "that of your first download"
        console.print(f"  sha256 {file['sha256'] or unknown}", soft_wrap=True)
    console.print(f"\nnext: groundup import {row.name} --out models/{row.name}")


def _size(count: int) -> str:
    """Bytes as a person reads them.

    >>> _size(1_062_767), _size(548_000_000), _size(6_430_000_000)
    ('1.1 MB', '548 MB', '6.4 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
