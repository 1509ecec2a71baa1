"""Labelled texts: read as they were written, no text in two parts, and pandas' own draws without pandas."""

import csv
import gzip
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from groundup.errors import DataError, SettingsError
from groundup.text import labelled
from groundup.text.labelled import Labelled, book, classes, deduplicated, read, read_back, split, undersampled, write

ROWS = [('good, "very" good', "yes"), ("line\nend", "no"), ("plain", "no"), ("Grüße \U0001f600", "yes")]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def as_csv(path: Path, rows: list[tuple[str, str]], *, delimiter: str = ",", head: tuple[str, str] = ("text", "label")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *rows])
    return path


def plain(rows: list[Labelled]) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in rows]


def many(**counts: int) -> list[Labelled]:
    """So many different texts of each class, in a mixed order."""
    rows = [Labelled(f"{label} number {number}", label) for label, count in counts.items() for number in range(count)]
    random.Random(5).shuffle(rows)
    return rows


# reading


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    lines = "".join(json.dumps({"label": label, "text": text}) + "\n" for text, label in ROWS)
    table = pa.table({"id": [1, 2, 3, 4], "text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    pq.write_table(table, tmp_path / "a.parquet")
    paths = [
        as_csv(tmp_path / "a.csv", ROWS),
        as_csv(tmp_path / "a.tsv", ROWS, delimiter="\t"),
        as_csv(tmp_path / "semicolons.csv", ROWS, delimiter=";"),
        written(tmp_path / "a.jsonl", lines + "\n  \n"),
        written(tmp_path / "a.jsonl.gz", gzip.compress(lines.encode())),
        tmp_path / "a.parquet",
    ]
    for path in paths:
        assert plain(read(path)) == ROWS, path
        assert all(str(path) in row.where for row in read(path))


def test_rows_are_named_as_a_person_counts_them(tmp_path: Path) -> None:
    found = read(as_csv(tmp_path / "a.csv", ROWS))
    assert [row.where.rpartition(" ")[2] for row in found] == ["2", "3", "4", "5"]  # the header is row 1


def test_labels_of_any_kind_become_words(tmp_path: Path) -> None:
    rows = [1, 1.0, "1", " 1 ", -3, True, "spam"]
    lines = "".join(json.dumps({"text": f"t{n}", "label": label}) + "\n" for n, label in enumerate(rows))
    assert [row.label for row in read(written(tmp_path / "a.jsonl", lines))] == ["1"] * 4 + ["-3", "true", "spam"]


def test_columns_are_found_in_any_case_and_under_other_names(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "a.csv", ROWS, head=("Text", "LABEL"))
    assert plain(read(path)) == ROWS
    other = as_csv(tmp_path / "b.csv", ROWS, head=("body", "team"))
    assert plain(read(other, text="body", label="team")) == ROWS
    with pytest.raises(DataError, match=r"no column 'text'; it has: body, team\n  -> .*--text-field"):
        read(other)


def test_pairs_keep_both_texts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"text": "a", "second": "b", "label": 0}\n')
    [row] = read(path, pair="second")
    assert (row.text, row.pair, row.label) == ("a", "b", "0")
    with pytest.raises(DataError, match="no column 'hypothesis'"):
        read(path, pair="hypothesis")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,x\n ,y\n", r"row 3 is empty"),
        ("text,label\na,x\nb,\n", r"row 3 has no label"),
        ("text,label\na,x\nb,y,z\n", r"row 3 has 3 values, the header has 2"),
        ('text,label\na,x\n"b,y\n', r"row 3 is malformed"),
        ("text,label\n", "holds no rows"),
        ("text,label,label\na,x,y\n", "a.csv has more than one column 'label'"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_by_row(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', "line 2 has no column 'label'; it has: text"),
        ('{"text": "a", "label": null}', "line 2 has no label: column 'label' is null"),
        ('{"text": "a", "label": 1.5}', "no label: column 'label' is 1.5"),
        ('{"text": "a", "label": ["x"]}', "no label"),
        ('{"text": 7, "label": "x"}', "column 'text' in .* is 7, not text"),
        ('{"text": "", "label": "x"}', "line 2 is empty"),
        ('{"text": "\\ud800", "label": "x"}', "half of a surrogate pair"),
        ('{"text": ', "line 2 is not valid JSON"),
        ("[1]", "line 2 holds a list"),
    ],
)
def test_what_is_wrong_in_lines_of_json_is_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path / "a.jsonl", '{"text": "fine", "label": "x"}\n' + line + "\n"))


def test_columns_without_a_name_may_be_many(tmp_path: Path) -> None:
    """As a spreadsheet leaves them behind the last column."""
    assert plain(read(written(tmp_path / "a.csv", "text,label,,\na,x,,\n"))) == [("a", "x")]


def test_columns_of_parquet_have_names_of_their_own(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["text", "label", "label"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="more than one column 'label'"):
        read(tmp_path / "a.parquet")


def test_labels_of_text_stay_as_they_are_written(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": 1}\n{"text": "b", "label": 1.0}\n{"text": "c", "label": "1.0"}\n'
    assert [row.label for row in read(written(tmp_path / "a.jsonl", lines))] == ["1", "1", "1.0"]
    assert [row.label for row in read(written(tmp_path / "a.csv", "text,label\na,1\nb,1.0\n"))] == ["1", "1.0"]


def test_names_and_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'sms-spam'"):
        read("sms-spm")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"unknown kind of file '.xlsx'\n  -> .*\.csv"):
        read(written(tmp_path / "a.xlsx", "x"))
    for name in ("harbor-messages:x", "harbor-messages:1:2:3"):
        with pytest.raises(DataError, match="cannot read 'harbor-messages"):
            read(name)


def test_harbor_messages_by_name() -> None:
    rows = read("harbor-messages:40:3")
    assert len(rows) == 40 and len(classes(rows)) >= 3
    assert plain(rows) == plain(read("harbor-messages:40:3")) != plain(read("harbor-messages:40:4"))


def test_the_spam_collection(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    rows = read("sms-spam")
    assert Counter(row.label for row in rows) == {"ham": 4827, "spam": 747}
    unique = deduplicated(rows)
    assert len(unique.rows) + unique.repeated + len(unique.contradictory) == 5574
    assert not unique.contradictory and unique.repeated > 400


# putting in order


def test_classes_are_sorted_as_people_sort_them() -> None:
    assert classes([Labelled("a", label) for label in ("10", "9", "-1", "9")]) == ("-1", "9", "10")
    assert classes([Labelled("a", label) for label in ("10", "b", "9")]) == ("10", "9", "b")


def test_duplicates_go_and_so_do_texts_with_two_labels() -> None:
    rows = [
        Labelled("a  b", "x", None, "1"), Labelled("a b\n", "x", None, "2"), Labelled("c", "x", None, "3"),
        Labelled("c", "y", None, "4"), Labelled("c", "x", None, "5"), Labelled("A b", "x", None, "6"),
    ]  # fmt: skip
    found = deduplicated(rows)
    assert [row.where for row in found.rows] == ["1", "6"]
    assert found.repeated == 1 and [row.where for row in found.contradictory] == ["3", "4", "5"]


def test_a_pair_is_repeated_only_where_both_texts_are() -> None:
    rows = [Labelled("a", "x", "b"), Labelled("a", "y", "c"), Labelled("a", "x", "b")]
    assert deduplicated(rows).rows == rows[:2]


def test_a_split_is_stratified_whole_and_fixed_by_the_seed() -> None:
    rows = many(a=70, b=20, c=10)
    found = split(rows, seed=4)
    counts = [Counter(row.label for row in part) for part in found.parts().values()]
    assert counts == [{"a": 49, "b": 14, "c": 7}, {"a": 7, "b": 2, "c": 1}, {"a": 14, "b": 4, "c": 2}]
    assert sorted(plain([row for part in found.parts().values() for row in part])) == sorted(plain(rows))
    assert split(rows, seed=4) == found != split(rows, seed=5)
    assert [row for row in rows if row in found.train] == found.train  # in the order they came


def test_where_a_text_falls_does_not_depend_on_the_order_of_the_file() -> None:
    rows = many(a=40, b=40)
    one, other = split(rows, seed=1), split(rows[::-1], seed=1)
    for name, part in one.parts().items():
        assert sorted(plain(part)) == sorted(plain(other.parts()[name]))


def test_small_classes_give_a_row_to_each_part_or_are_named() -> None:
    found = split(many(a=30, b=3), seed=0)
    assert [sum(row.label == "b" for row in part) for part in found.parts().values()] == [1, 1, 1]
    with pytest.raises(DataError, match=r"1 of 3 classes have fewer than 3 rows: 'c' \(2\)"):
        split(many(a=30, b=3, c=2), seed=0)
    without = split(many(a=30, c=2), test=0, seed=0)
    assert not without.test and sum(row.label == "c" for row in without.valid) == 1


def test_what_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="all 9 rows have the label 'a'"):
        split(many(a=9), seed=0)
    with pytest.raises(DataError, match="6 rows have 6 different labels"):
        split([Labelled(str(n), str(n)) for n in range(6)], seed=0)
    with pytest.raises(SettingsError, match="leave nothing to train on"):
        split(many(a=9, b=9), validation=0.5, test=0.5, seed=0)


def test_undersampling_takes_as_many_of_each() -> None:
    rows = many(a=50, b=7, c=20)
    found = undersampled(rows, seed=2)
    assert Counter(row.label for row in found) == {"a": 7, "b": 7, "c": 7}
    assert [row for row in rows if row in found] == found == undersampled(rows, seed=2) != undersampled(rows, seed=3)


# on disk


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [Labelled("a\u2028b", "1", "second", "x.csv row 9"), Labelled('q"\n', "no"), Labelled("\U0001f600", "yes")]
    write(tmp_path / "train.jsonl", rows)
    found = read_back(tmp_path / "train.jsonl")
    assert found[0] == rows[0] and plain(found) == plain(rows)
    assert not [path for path in tmp_path.iterdir() if path.name != "train.jsonl"]
    with pytest.raises(DataError, match="valid.jsonl is missing"):
        read_back(tmp_path / "valid.jsonl")


# the book's draws: facts computed with pandas 2 and 3 by the book's own lines (see `by_pandas`), kept as hashes

BOOK = {"train": "f1ea04907290af59", "valid": "877227343534efe6", "test": "595b6c7dd2a44b65"}


def digest(rows: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


@pytest.fixture
def spam(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    return data_dir / "sms-spam" / "SMSSpamCollection"


def test_the_book_has_its_rows(spam: Path) -> None:
    found = book()
    assert [len(part) for part in found.parts().values()] == [1045, 149, 300]
    assert Counter(row.label for part in found.parts().values() for row in part) == {"ham": 747, "spam": 747}
    assert book(spam) == found != book(seed=124)


def test_quotes_join_messages_as_pandas_joins_them(spam: Path) -> None:
    lines = spam.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 5575 and not lines[-1]
    with spam.open(encoding="utf-8", newline="\n") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert Counter(row[0] for row in rows) == {"ham": 4825, "spam": 747}


def test_the_book_draws_what_pandas_draws(spam: Path) -> None:
    assert {name: digest(plain(rows)) for name, rows in book().parts().items()} == BOOK


def by_pandas(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Raschka 2024, section 6.2, with pandas."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(path, sep="\t", header=None, names=["Label", "Text"])
    spam = table[table["Label"] == "spam"]
    ham = table[table["Label"] == "ham"].sample(len(spam), random_state=123)
    mixed = pandas.concat([ham, spam]).sample(frac=1, random_state=123).reset_index(drop=True)
    first = int(len(mixed) * 0.7)
    second = first + int(len(mixed) * 0.1)
    parts = {"train": mixed[:first], "valid": mixed[first:second], "test": mixed[second:]}
    return {name: list(zip(part["Text"], part["Label"], strict=True)) for name, part in parts.items()}


def test_pandas_itself_says_so_where_it_is_installed(spam: Path) -> None:
    assert {name: plain(rows) for name, rows in book().parts().items()} == by_pandas(spam)


def test_a_file_that_is_not_like_the_books_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2 is no label and text"):
        book(written(tmp_path / "a", "ham\thello\nspam hello\n"))


def test_a_file_too_small_for_the_books_cuts_is_refused(tmp_path: Path) -> None:
    """Of 3 + 3 rows, 4 are trained on, 0 validate; of 30 classes with 3 rows each, some are in no training row."""
    small = "".join(f"{label}\ttext {number}\n" for number in range(3) for label in ("ham", "spam"))
    many = "".join(f"class{label}\ttext {number}\n" for number in range(3) for label in range(30))
    for name, content in (("small", small), ("many", many)):
        with pytest.raises(DataError, match=f"{name} is too small for the book's cuts"):
            book(written(tmp_path / name, content))


def test_readable_is_decided_by_the_name() -> None:
    assert all(map(labelled.readable, ["a.csv", "a.jsonl.zst", "sms-spam", "harbor-messages", "harbor-messages:9:1"]))
    assert not any(map(labelled.readable, ["a.txt", "notes", "sms-spam.zip"]))
