"""Texts with labels: read from a file or by name, freed of duplicates, balanced, divided into three parts.

In: .csv .tsv .jsonl .parquet (also packed as .gz, .zst), `sms-spam`, `harbor-messages[:COUNT[:SEED]]`. Out: `Labelled`
rows, and `Split`, which is written as three .jsonl files and read back from them.

Which part a text falls into depends on its own words and the seed alone: neither the order of the file nor a library's
random numbers move it, and of two copies of one text none can be in training and the other in the test. `book` is the
exception: it repeats, draw for draw, what pandas does in Raschka 2024, section 6.2.
"""

import csv
import difflib
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from groundup.errors import DataError, SettingsError, nearest
from groundup.text import catalog, files, packed, parquet
from groundup.text.split import Split

HARBOR = "harbor-messages"
HARBOR_ROWS = 2_000
NUMBER = re.compile(r"-?[0-9]{1,18}")
SHORT = 60  # characters of a value that a message repeats
Row = tuple[str, Mapping[str, Any]]  # place, fields


@dataclass(frozen=True)
class Labelled:
    """One text with its class; `pair`: a second text that belongs to it. `where` tells a person its place.

    >>> next(stream("harbor-messages:1")).where
    'harbor-messages:1 row 1'
    """

    text: str
    label: str
    pair: str | None = None
    where: str = ""


@dataclass(frozen=True)
class Unique:
    """Rows of which no two have the same text, the number of repeats left out, and rows that contradict each other."""

    rows: list[Labelled]
    repeated: int
    contradictory: list[Labelled]


# reading


def read(name: str | Path, *, text: str = "text", label: str = "label", pair: str | None = None) -> list[Labelled]:
    """All rows of a labelled file, or of what a name stands for; raises DataError naming row and column.

    `text`, `label`, `pair`: columns, found also where only the case of the name differs. Labels become text: numbers 1
    and 1.0 the class "1"; text stays as written, "1.0" (all of a .csv is text) is another class. Pairs stay apart here.

    >>> read("no/such.csv")
    Traceback (most recent call last):
    groundup.errors.DataError: no such file or name: no/such.csv
      -> labelled texts come as .csv .tsv .jsonl .parquet (also .gz, .zst), or by name: sms-spam, harbor-messages
    """
    if not (rows := list(stream(name, text=text, label=label, pair=pair))):
        raise DataError(f"{name} holds no rows", "give a file with one text and one label a row")
    return rows


def stream(
    name: str | Path, *, text: str = "text", label: str | None = "label", pair: str | None = None
) -> Iterator[Labelled]:
    """The rows of `read`, one after another as they are read; without a `label` each has the label ""."""
    for where, row in _rows(str(name)):
        yield Labelled(_text(row, text, where), "" if label is None else _label(row, label, where),
                       None if pair is None else _text(row, pair, where), where)  # fmt: skip


def readable(name: str | Path) -> bool:
    """Whether a name or the ending of a path tells that there are rows with columns.

    >>> readable("a.tsv.gz"), readable("harbor-messages:50"), readable("notes.txt")
    (True, True, False)
    """
    known = str(name).partition(":")[0] == HARBOR or str(name) in _catalog()
    return known or packed.kind(Path(name)) in READERS


def _catalog() -> list[str]:
    return [name for name, entry in catalog.ENTRIES.items() if entry.kind == "labelled"]


def _rows(name: str) -> Iterator[Row]:
    if name.partition(":")[0] == HARBOR:
        return _harbor(name)
    if name in _catalog():
        return _table(catalog.find(name), columns=catalog.ENTRIES[name].columns)
    path, kinds = Path(name), " ".join(READERS)
    advice = f"labelled texts come as {kinds} (also .gz, .zst), or by name: {', '.join([*_catalog(), HARBOR])}"
    if not path.is_file():
        close = difflib.get_close_matches(name, [*_catalog(), HARBOR], n=1)
        what = f"{path} is a folder" if path.is_dir() else f"no such file or name: {name}"
        raise DataError(what, f"did you mean '{close[0]}'?" if close else advice)
    if packed.kind(path) not in READERS:
        raise DataError(f"cannot read {path}: unknown kind of file '{path.suffix or path.name}'", advice)
    if not path.stat().st_size:
        raise DataError(f"{path} is empty (0 bytes)", "give a file with one text and one label a row")
    return READERS[packed.kind(path)](path)


def _harbor(name: str) -> Iterator[Row]:
    """`harbor-messages`, `harbor-messages:COUNT` or `harbor-messages:COUNT:SEED`."""
    from groundup.text.harbor import messages

    numbers = name.split(":")[1:]
    if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
        raise DataError(f"cannot read '{name}'", f"write {HARBOR}, {HARBOR}:COUNT or {HARBOR}:COUNT:SEED")
    count, seed = (*map(int, numbers), *(HARBOR_ROWS, 0)[len(numbers) :])
    for number, (text, label) in enumerate(messages.rows(seed, count), 1):
        yield f"{name} row {number}", {"text": text, "label": label}


def _table(path: Path, *, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of .csv or .tsv, the header being row 1; with `columns` tab-separated, without header and quoting."""
    lines = (line for _, line in files.lines_of(path))
    csv.field_size_limit(files.LONGEST_ROW)
    if columns:
        header, rows, first = list(columns), csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1
    else:
        top, first = next(lines, ""), 2
        rows = csv.reader(chain([top], lines), delimiter=files.delimiter_of(path, top), strict=True)
        header = next(files.rows_of(path, rows, start=1), (1, []))[1]
    _check_names(path, header)
    for number, row in files.rows_of(path, rows, start=first):
        if row and len(row) != len(header):
            what = f"{path} row {number} has {len(row)} values, the header has {len(header)}"
            raise DataError(what, "put a value that holds the delimiter or a line end in double quotes")
        if row:
            yield f"{path} row {number}", dict(zip(header, row, strict=True))


def _check_names(path: Path, header: Sequence[str]) -> None:
    if twice := next((name for name, count in Counter(header).items() if count > 1 and name.strip()), ""):
        raise DataError(f"{path} has more than one column '{twice[:SHORT]}'", "give each column a name of its own")


def _lines_of_json(path: Path) -> Iterator[Row]:
    for number, line in files.lines_of(path):
        if not line.isspace():
            where = f"{path} line {number}"
            yield where, files.json_object(line, where=where)


def _columns_of_parquet(path: Path) -> Iterator[Row]:
    number = 0
    with parquet.opened(path) as file:
        _check_names(path, file.schema_arrow.names)
        batches = file.iter_batches(parquet.MOST_ROWS, use_threads=False)
        while True:
            part = f"the rows from {number + 1} on"
            with parquet.explained(path, part):
                batch = next(batches, None)
            if batch is None:
                return
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:  # Arrow itself does not look whether text is UTF-8
                raise DataError(f"{path} is not UTF-8 in {part}", "write it again from a known encoding") from None
            for row in rows:
                number += 1
                yield f"{path} row {number}", row


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _table, ".tsv": _table, ".jsonl": _lines_of_json, ".parquet": _columns_of_parquet,
}  # fmt: skip


def _value(row: Mapping[str, Any], column: str, where: str) -> Any:
    """What stands in a column; its name may differ in case where only one does."""
    if column in row:
        return row[column]
    alike = [name for name in row if str(name).strip().casefold() == column.casefold()]
    if len(alike) == 1:
        return row[alike[0]]
    found = [str(name)[:SHORT] for name in row]
    advice = f"{nearest(column, found)} (--text-field, --label-field)" if found else "it holds nothing"
    raise DataError(f"{where} has no column '{column}'; it has: {', '.join(found) or 'none'}", advice)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = _value(row, column, where)
    if not isinstance(value, str):
        what = f"column '{column}' in {where} is {json.dumps(value, default=str)[:SHORT]}, not text"
        raise DataError(what, "name a column of text")
    if not value.strip():
        raise DataError(f"the text in {where} is empty (column '{column}')", "remove the row, or write its text")
    return _whole(value, where)


def _label(row: Mapping[str, Any], column: str, where: str) -> str:
    value = _value(row, column, where)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    label = str(value).strip() if isinstance(value, str | int) else ""
    if not label:
        what = f"{where} has no label: column '{column}' is {json.dumps(value, default=str)[:SHORT]}"
        raise DataError(what, "a label is a word or a whole number: write one, or remove the row")
    return label.lower() if isinstance(value, bool) else _whole(label, where)


def _whole(value: str, where: str) -> str:
    """The text itself; raises DataError where it cannot be written as UTF-8."""
    if half := re.search("[\ud800-\udfff]", value):
        what = f"{where} holds half of a surrogate pair, \\u{ord(half[0]):04x}"
        raise DataError(what, "repair the escape")
    return value


# what is read, put in order


def classes(rows: Iterable[Labelled]) -> tuple[str, ...]:
    """The labels that occur, each once: numbers by their value, words by the alphabet.

    >>> classes([Labelled("a", "10"), Labelled("b", "9"), Labelled("c", "10")])
    ('9', '10')
    """
    found = {row.label for row in rows}
    numbers = all(NUMBER.fullmatch(label) for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))


def deduplicated(rows: Sequence[Labelled]) -> Unique:
    """Each text once, the first of its rows; a text that has two labels goes altogether.

    Texts that differ in white space alone are the same text; so are, in pairs, those of which both parts are.

    >>> deduplicated([Labelled("a b", "x"), Labelled("a  b", "x"), Labelled("c", "x"), Labelled("c", "y")]).rows
    [Labelled(text='a b', label='x', pair=None, where='')]
    """
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(_key(row), set()).add(row.label)
    kept: dict[str, Labelled] = {}
    for row in rows:
        if len(labels[_key(row)]) == 1:
            kept.setdefault(_key(row), row)
    contradictory = [row for row in rows if len(labels[_key(row)]) > 1]
    return Unique(list(kept.values()), len(rows) - len(kept) - len(contradictory), contradictory)


def undersampled(rows: Sequence[Labelled], seed: int) -> list[Labelled]:
    """As many rows of each class as the rarest has, drawn by the seed, in the order they came in."""
    places = _by_class(rows)
    least = min(map(len, places.values()))
    kept = {place for found in places.values() for place in _drawn(rows, found, f"balance {seed}")[:least]}
    return [row for place, row in enumerate(rows) if place in kept]


def split(rows: Sequence[Labelled], *, validation: float = 0.1, test: float = 0.2, seed: int) -> Split[Labelled]:
    """Three parts with the same share of each class, drawn by the seed, each in the order its rows came in.

    Each class gives at least one row to each part. Raises DataError where a class has too few for that, where there is
    one class only, and where there are hardly more rows than classes; SettingsError for shares that leave nothing.

    >>> found = split([Labelled(str(n), "ab"[n % 2]) for n in range(20)], seed=1)
    >>> {name: sorted(row.label for row in part) for name, part in found.parts().items() if name != "train"}
    {'valid': ['a', 'b'], 'test': ['a', 'a', 'b', 'b']}
    """
    if not 0 < validation < 1 or not 0 <= test < 1 or validation + test >= 1:
        what = f"--validation {validation:g} and --test {test:g} leave nothing to train on"
        raise SettingsError(what, "give shares that are together below 1, such as 0.1 and 0.2")
    places = _by_class(rows)
    _check_classes(rows, places, least=3 if test else 2)
    part: dict[int, int] = {}
    for found in places.values():
        drawn = _drawn(rows, found, f"split {seed}")
        few = max(1, round(len(drawn) * validation))
        last = min(max(1, round(len(drawn) * test)), len(drawn) - few - 1) if test else 0
        cut = len(drawn) - last
        part |= dict.fromkeys(drawn[: cut - few], 0) | dict.fromkeys(drawn[cut - few : cut], 1)
        part |= dict.fromkeys(drawn[cut:], 2)
    train, valid, tested = ([row for place, row in enumerate(rows) if part[place] == number] for number in range(3))
    return Split(train, valid, tested)


def _check_classes(rows: Sequence[Labelled], places: Mapping[str, Collection[int]], *, least: int) -> None:
    if len(places) < 2:
        only = f"all {len(rows):,} rows have the label '{next(iter(places))[:SHORT]}'" if rows else "there are no rows"
        raise DataError(f"{only}: there is nothing to tell apart", "give texts of two classes or more")
    if len(places) > 2 and 2 * len(places) > len(rows):
        what = f"{len(rows):,} rows have {len(places):,} different labels"
        raise DataError(what, "--label-field names the column of classes: is it another one?")
    few = [f"'{label[:SHORT]}' ({len(found)})" for label, found in places.items() if len(found) < least]
    if few:
        what = f"{len(few)} of {len(places)} classes have fewer than {least} rows: {', '.join(few[:5])}"
        raise DataError(what, "each part needs a row of each class: add rows, or leave these classes out")


def _by_class(rows: Sequence[Labelled]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {label: [] for label in classes(rows)}
    for place, row in enumerate(rows):
        places[row.label].append(place)
    return places


def _drawn(rows: Sequence[Labelled], places: Iterable[int], salt: str) -> list[int]:
    """Places in an order that looks random and is that of hashes of the texts."""
    return sorted(places, key=lambda place: hashlib.sha256(f"{salt}\0{_key(rows[place])}".encode()).digest())


def _key(row: Labelled) -> str:
    return "\0".join(" ".join(part.split()) for part in (row.text, row.pair or ""))


# the book


def book(name: str | Path = "sms-spam", seed: int = 123) -> Split[Labelled]:
    """The parts of Raschka 2024, section 6.2: as many ham as spam, shuffled, cut at 70 and 80 %; duplicates stay.

    The file has a label and a text a line, between them a tab. pandas reads it with quoting, so that a quote which
    opens one message may close in the next: 5,574 messages become 5,572 rows, of which 1,045, 149 and 300 are kept.
    Raises DataError for a file so small that a part would be empty, or a class not be in training.
    """
    path = catalog.find(str(name)) if str(name) in _catalog() else Path(name)
    # not strict, as pandas: a quote inside a value is a letter
    reader = csv.reader((line for _, line in files.lines_of(path)), delimiter="\t")
    table = list(files.rows_of(path, reader, start=1))
    if wrong := next((number for number, row in table if len(row) != 2), 0):
        raise DataError(f"{path} row {wrong} is no label and text with a tab between", "give a file as sms-spam is one")
    rows = [Labelled(text, label, None, f"{path} row {number}") for number, (label, text) in table]
    places = _by_class(rows)
    _check_classes(rows, places, least=3)
    rarest = min(places, key=lambda label: len(places[label]))
    kept = [rows[found[at]] for label, found in places.items() if label != rarest
            for at in _sampled(len(found), len(places[rarest]), seed)]  # fmt: skip
    kept += [rows[place] for place in places[rarest]]
    mixed = [kept[at] for at in _sampled(len(kept), len(kept), seed)]
    first, few = int(len(mixed) * 0.7), int(len(mixed) * 0.1)
    found = Split(mixed[:first], mixed[first : first + few], mixed[first + few :])
    if not all(found.parts().values()) or classes(found.train) != tuple(places):  # the cuts do not look at classes
        what = f"{path} is too small for the book's cuts: {len(mixed)} rows leave a part empty or a class untrained"
        raise DataError(what, "add rows, or leave out --protocol book: each part then gets rows of each class")
    return found


def _sampled(size: int, count: int, seed: int) -> list[int]:
    """The places that DataFrame.sample(n=count, random_state=seed) takes of `size` rows, in its order."""
    return [int(place) for place in np.random.RandomState(seed).choice(size, size=count, replace=False)]


# on disk


def write(path: Path, rows: Iterable[Labelled]) -> None:
    """Write rows as .jsonl, aside first: text, label, where it was read, and pair where there is one."""
    aside = path.with_name(path.name + ".writing")
    with aside.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            record = {name: value for name, value in vars(row).items() if value is not None}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def read_back(path: Path) -> list[Labelled]:
    """The rows that `write` wrote, equal to those it was given; raises DataError for what it did not write."""
    if not path.is_file():
        raise DataError(f"{path} is missing", "restore it from a copy, or start a new run")
    rows = []
    for where, row in _lines_of_json(path):
        pair = _text(row, "pair", where) if "pair" in row else None
        rows.append(Labelled(_text(row, "text", where), _label(row, "label", where), pair, row.get("where") or where))
    return rows
