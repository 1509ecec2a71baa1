"""Text comes out of files exactly as it was put in, in pieces that any tokenizer may encode one by one."""

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import DataError
from groundup.text import files, harbor, read

# The published patterns of GPT-2 and of cl100k (GPT-4): what pieces must not cross.
GPT2 = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
CL100K = regex.compile(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
WORDS = regex.compile(r'([,.:;?_!"()\']|--|\s)')
TEXT = st.text(st.sampled_from("ab1é字ß٣ \n\r\t\u3000.,'-_!\x00\U0001f600") | st.characters(codec="utf-8"), max_size=60)


def documents(source: read.Source) -> list[str]:
    """The whole documents of a source, put together from their pieces."""
    found, held = [], ""
    for piece in source.pieces():
        assert piece.text
        held += piece.text
        if piece.ends:
            found.append(held)
            held = ""
    assert not held
    return found


def only(path: Path, **options: str) -> read.Source:
    [source] = read.sources([str(path)], **options)
    return source


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


# pieces


@settings(max_examples=400)
@given(chunks=st.lists(TEXT, max_size=6))
def test_pieces_may_be_cut_into_words_one_by_one(chunks: list[str]) -> None:
    pieces = list(files.cut(chunks))
    whole = "".join(chunks)
    assert "".join(piece.text for piece in pieces) == whole
    assert [piece.ends for piece in pieces] == ([False] * (len(pieces) - 1) + [True] if whole else [])
    for pattern in (GPT2, CL100K):
        assert [word for piece in pieces for word in pattern.findall(piece.text)] == pattern.findall(whole)
    split = [word.strip() for piece in pieces for word in WORDS.split(piece.text) if word.strip()]
    assert split == [word.strip() for word in WORDS.split(whole) if word.strip()]


def test_a_place_between_two_chunks_is_seen() -> None:
    assert [piece.text for piece in files.cut(["one", " .", "x"])] == ["one", " .x"]


def test_gpt2_ids_of_pieces_are_those_of_the_file(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken_load = pytest.importorskip("tiktoken.load")
    import tiktoken

    folder = data_dir / "gpt2-bpe"
    ranks = tiktoken_load.data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    gpt2 = tiktoken.Encoding("gpt2", pat_str=GPT2.pattern, mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(files, "BLOCK", 1000)
    for name in ("the-verdict", "tinyshakespeare", "tinystories-sample", "wikitext2-valid"):
        path = data_dir / "text" / f"{name}.txt"
        pieces = [piece.text for piece in only(path).pieces()]
        assert len(pieces) > path.stat().st_size / 2000
        assert [id for piece in pieces for id in gpt2.encode_ordinary(piece)] == gpt2.encode_ordinary(
            path.read_bytes().decode("utf-8")
        )


@pytest.mark.parametrize("text", ["x" * 999, "字" * 999, "x. " * 333, " " * 999])
def test_text_without_a_safe_place_is_cut_all_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_WAIT", 100)
    pieces = [piece.text for piece in files.cut(text[start : start + 10] for start in range(0, len(text), 10))]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 120


def test_a_forced_cut_comes_before_white_space_if_there_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_WAIT", 20)
    text = "。。。。 。。。。。。。。。。。。。。。。。。。。。。。。。。。。。。"
    assert [piece.text for piece in files.cut([text[:30], text[30:]])][0] == "。。。。"


@settings(max_examples=100)
@given(text=TEXT, block=st.integers(1, 9))
def test_a_text_file_is_kept_exactly(tmp_path_factory: pytest.TempPathFactory, text: str, block: int) -> None:
    path = written(tmp_path_factory.mktemp("exact"), "a.txt", text or "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        expected = (text or "x").removeprefix("\ufeff")
        assert documents(only(path)) == ([expected] if expected else [])


def test_a_long_document_of_a_row_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "word " * 500
    path = written(tmp_path, "a.jsonl", json.dumps({"text": text}))
    monkeypatch.setattr(files, "BLOCK", 100)
    source = only(path)
    assert documents(source) == [text]
    assert max(len(piece.text) for piece in source.pieces()) <= 110


# what is not UTF-8


@settings(max_examples=100)
@given(
    before=TEXT, wrong=st.sampled_from([b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\x80", b"\x80"]), block=st.integers(1, 9)
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_bytes_that_are_not_utf8_are_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, before: str, wrong: bytes, block: int
) -> None:
    data = b"text\n" + before.encode("utf-8").replace(b"\0", b"").replace(b"{", b"") + wrong
    if name == "a.jsonl":
        data = b"\n\n \n" + wrong  # blank lines before it
    if name == "a.csv":
        data = b"text\n1\n2\n" + wrong
    with pytest.raises(UnicodeDecodeError) as reference:
        data.decode("utf-8")
    at = reference.value.start
    path = written(tmp_path_factory.mktemp("wrong"), name, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        with pytest.raises(DataError) as found:
            list(only(path).pieces())
    assert f"{name} is not UTF-8: byte 0x{data[at]:02X} at offset {at:,}" in str(found.value)
    assert "iconv -f latin1 -t utf-8" in found.value.fix


def test_utf16_is_recognized(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "Hallo".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16.*\n.*iconv -f utf-16"):
        list(only(path).pieces())


def test_the_offset_counts_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"\xef\xbb\xbfabc\xff")
    with pytest.raises(DataError, match="offset 6"):
        list(only(path).pieces())


# rows


def test_jsonl_rows_are_documents(tmp_path: Path) -> None:
    texts = ["one", "two\r\nlines\u2028and more", "", "\ufeffmark kept inside", "nul \x00", "\U0001f600"]
    lines = [json.dumps({"id": 1, "body": text}, ensure_ascii=bool(n % 2)) for n, text in enumerate(texts)]
    path = written(tmp_path, "a.jsonl", "\ufeff" + "\n\n  \r\n".join(lines))
    assert documents(only(path, field="body")) == [text for text in texts if text]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', r"a.jsonl line 3 is not valid JSON"),
        ('["text"]', r"a.jsonl line 3 holds a list, not an object"),
        ('{"txt": "a", "id": 1}', r"line 3 has no field 'text'; it has: txt, id\n.*did you mean 'txt'"),
        ("{}", r"line 3 has no field 'text'; it has: none"),
        ('{"text": ["a"]}', r"field 'text' in .*line 3 is \[\"a\"\], not text"),
        ('{"text": null}', r"line 3 is null, not text"),
        ('{"text": "\\ud83d"}', r"line 3 holds half of a surrogate pair, \\ud83d"),
        ("[" * 100_000, r"line 3 cannot be read as JSON"),
        ('{"text": ' + "9" * 5000 + "}", r"line 3 cannot be read as JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, "a.jsonl", '{"text": "good"}\n\n' + line + '\n{"text": "good"}\n')
    with pytest.raises(DataError, match=message):
        list(only(path).pieces())


CELL = st.text(st.sampled_from("ab \"',;\n\r|\t") | st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=100)
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=8), ending=st.sampled_from(["\n", "\r\n"]))
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_tables_are_read_as_the_csv_module_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, name: str, delimiter: str, rows: list[tuple[str, str]], ending: str
) -> None:
    table = io.StringIO(newline="")
    csv.writer(table, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows(
        [("id", "text"), *rows]
    )
    path = written(tmp_path_factory.mktemp("table"), name, table.getvalue())
    assert documents(only(path)) == [text for _, text in rows if text]


def test_a_field_of_a_table_may_be_big(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "text\n" + "x" * 300_000 + "\n")
    assert documents(only(path)) == ["x" * 300_000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,id\na,1\nb,c,2\n", "row 3 has 3 values, the header has 2\n.*double quotes"),
        ("txt,id\na,1\n", "row 2 has no field 'text'; it has: txt, id\n.*did you mean 'txt'"),
        ('text,id\na,1\n"b,2\n', "row 3 is malformed.*\n.*quote that never closes"),
        ("text,id\ra,1\rb,2\r", "row 1 is malformed"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, "a.csv", content)
    with pytest.raises(DataError, match=message):
        list(only(path).pieces())


def test_sms_spam_has_the_messages_its_authors_count(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    [messages], [labels] = read.sources(["sms-spam"]), read.sources(["sms-spam"], field="label")
    assert len(documents(messages)) == 5574  # UCI 228: 5,574 messages, quotes are literal
    assert documents(labels).count("spam") == 747


# names


def test_folders_are_read_recursively_sorted_without_hidden_files(tmp_path: Path) -> None:
    for name in (
        "b.txt",
        "a/z.md",
        "a/b/c.jsonl",
        ".hidden/x.txt",
        "a/.secret.txt",
        "a/notes.log",
        "c.TXT",
        "empty.txt",
    ):
        written(tmp_path, name, "" if name == "empty.txt" else '{"text": "x"}')
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    found = [Path(source.name).relative_to(tmp_path).as_posix() for source in read.sources([str(tmp_path)])]
    assert found == ["a/b/c.jsonl", "a/z.md", "b.txt", "c.TXT"]


def test_globs_and_repeated_files(tmp_path: Path) -> None:
    for name in ("a1.txt", "a2.txt", "b1.txt", "a3.log", "deep/a4.txt", "[x].txt"):
        written(tmp_path, name, "x")

    def found(*data: str) -> list[str]:
        return [Path(source.name).name for source in read.sources([str(tmp_path / name) for name in data])]

    assert found("a*") == ["a1.txt", "a2.txt"]
    assert found("**/a*.txt") == ["a1.txt", "a2.txt", "a4.txt"]
    assert found("b1.txt", "a*", "b1.txt") == ["b1.txt", "a1.txt", "a2.txt"]
    assert found("[x].txt") == ["[x].txt"]  # a file of that name comes before the pattern
    assert found("de*") == ["a4.txt"]


def test_what_cannot_be_read_is_refused_with_advice(tmp_path: Path) -> None:
    written(tmp_path, "letters.txt", "x")
    written(tmp_path, "empty.txt", "")
    written(tmp_path, "page.pdf", "x")
    written(tmp_path, "logs/a.log", "x")
    written(tmp_path, "hollow/a.txt", "")
    written(tmp_path, "shards/prepared.json", "{}")
    (tmp_path / "void").mkdir()
    for name, message in {
        "leters.txt": "no such file.*leters.txt\n.*did you mean 'letters.txt'",
        "qqqq": "no such file.*qqqq\n.*looked for in",
        "no/such.txt": "no such file.*\n.*folder .*no does not exist",
        "empty.txt": "empty.txt is empty",
        "page.pdf": r"unknown kind of file '.pdf'\n.*\.txt \.md \.jsonl",
        "logs": r"no text files in .*logs: found \.log",
        "void": "no text files in .*void: found nothing",
        "hollow": "1 text files in .*hollow are all empty",
        "shards": "shards holds token shards, not text",
        "zz*.txt": r"nothing matches .*zz\*\.txt",
        "x" * 5000: "cannot read",
    }.items():
        with pytest.raises(DataError, match=message):
            read.sources([str(tmp_path / name)])
    with pytest.raises(DataError, match="no such file, folder or catalog name: tinyshakespear\n.*'tinyshakespeare'"):
        read.sources(["tinyshakespear"])
    with pytest.raises(DataError, match="holds preferences, not running text"):
        read.sources(["hh-rlhf"])
    with pytest.raises(DataError, match="no text was given"):
        read.sources([])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "x")
    path.chmod(0)
    with pytest.raises(DataError, match="cannot read .*a.txt: Permission denied"):
        list(only(path).pieces())


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    source = only(written(tmp_path, "a.txt", "x"))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match="cannot read .*a.txt"):
        list(source.pieces())


def test_harbor_by_name() -> None:
    [source] = read.sources(["harbor:5:3"])
    expected = list(harbor.stories(3, 5))
    assert documents(source) == expected and documents(source) == expected
    [other] = read.sources(["harbor:7:4"])
    assert documents(other) == list(harbor.stories(4, 7)) and documents(source) == expected
    assert source.bytes == sum(len(story.encode("utf-8")) for story in expected)
    for wrong in ("harbor:x", "harbor:1:2:3", "harbor:-1", "harbor:0", "harbor:"):
        with pytest.raises(DataError, match="harbor"):
            read.sources([wrong])


def test_a_survey_counts(tmp_path: Path) -> None:
    content = "Grüße\r\n字 \U0001f600"
    path = written(tmp_path, "a.txt", content)
    data = content.encode("utf-8")
    assert read.survey(only(path)) == read.Survey(1, len(content), len(data), hashlib.sha256(data).hexdigest())
    rows = written(tmp_path, "a.jsonl", '{"text": "ab"}\n{"text": ""}\n{"text": "ü"}\n')
    found = read.survey(only(rows))
    assert (found.documents, found.characters, found.bytes) == (2, 3, 4)
    joined = written(tmp_path, "b.jsonl", '{"text": "abü"}\n')
    assert read.survey(only(joined)).sha256 != found.sha256
