"""Conversations: every form read alike, every mistake named by its place, the split, and files others can read."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import DataError
from groundup.text import conversations
from groundup.text.conversations import Conversation, fits_alpaca, read, split, told, write_alpaca, write_messages

ALPACA = {"instruction": "Add.", "input": "1, 2", "output": "3"}
HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def put(path: Path, entries: Any) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    else:
        path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def messages(path: Path, entry: Any, **how: Any) -> list[dict[str, Any]]:
    return [dict(message) for message in read(put(path, [entry]), **how)[0].messages]


# --- forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_three_forms_of_one_conversation(tmp_path: Path, name: str):
    share = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    for entry in ({"messages": [HI, HELLO]}, {"conversations": share}, {"conversations": [HI, HELLO]},
                  {"instruction": "Hi", "input": "", "output": "Hello"}, {"instruction": "Hi", "output": "Hello"},
                  {"instruction": "Hi", "input": None, "output": "Hello"}):  # fmt: skip
        assert messages(tmp_path / name, entry) == [HI, HELLO]


def test_alpaca_keeps_its_second_field_and_a_system_message(tmp_path: Path):
    assert messages(tmp_path / "x.json", ALPACA | {"system": "Be brief."}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add.", "input": "1, 2"},
        {"role": "assistant", "content": "3"},
    ]


def test_text_is_kept_to_the_letter(tmp_path: Path):
    text = "  two\r\n\ttabs \u2028 é<|im_end|> "
    entry = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
    assert [message["content"] for message in messages(tmp_path / "x.jsonl", entry)] == [text, text]


def test_a_byte_order_mark_blank_lines_and_packed_files(tmp_path: Path):
    line = json.dumps(ALPACA)
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\n\n  \n{line}".encode())
    assert [row.where for row in read(tmp_path / "x.jsonl")] == [f"line {n} of {tmp_path / 'x.jsonl'}" for n in (1, 4)]
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(json.dumps([ALPACA]).encode()))
    assert read(tmp_path / "x.json.gz")[0].where == f"entry 0 of {tmp_path / 'x.json.gz'}"


def test_roles_of_sharegpt_and_of_tools(tmp_path: Path):
    turns = [("system", "s"), ("human", "a"), ("gpt", "b"), ("observation", "c"), ("gpt", "d"), ("human", "e")]
    found = messages(tmp_path / "x.json", {"conversations": [{"from": who, "value": what} for who, what in turns]})
    assert [message["role"] for message in found] == ["system", "user", "assistant", "tool", "assistant", "user"]


def test_marks_of_three_kinds(tmp_path: Path):
    """OpenAI's weight holds for every answer, absent means 1; Axolotl's train holds only where it is written."""

    def marks(*answers: dict[str, Any]) -> list[Any]:
        turns = [turn for answer in answers for turn in (HI, HELLO | answer)]
        return [m.get("learn") for m in messages(tmp_path / "x.json", {"messages": turns}) if m["role"] == "assistant"]

    assert marks({"weight": 0}, {}, {"weight": 1}) == [False, True, True]
    assert marks({"train": False}, {}, {"train": True}) == [False, None, True]
    assert marks({"learn": True}, {"weight": None}) == [True, None]
    assert marks({}, {}) == [None, None]
    user = {"messages": [HI | {"train": True}, HELLO]}
    assert messages(tmp_path / "x.json", user)[0]["learn"] is True


def test_told_puts_everything_into_the_content():
    given = ({"role": "user", "content": "Add.", "input": "1, 2", "learn": True}, HELLO)
    assert told(given) == [{"role": "user", "content": "Add.\n1, 2", "input": "1, 2"}, HELLO]
    assert given[0]["content"] == "Add."


def test_questions_without_answers_are_read_where_allowed(tmp_path: Path):
    for entry in ({"instruction": "Hi"}, {"instruction": "Hi", "output": ""}, {"messages": [HI]}):
        assert messages(tmp_path / "x.json", entry, answered=False) == [HI]
        with pytest.raises(DataError):
            messages(tmp_path / "x.json", entry)


# --- the book's data ---------------------------------------------------------------------------------------------


def test_the_instruction_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """1,100 entries, divided 935 / 55 / 110 in the order of the file; entry 50 as the book prints it."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    rows = read("instruction-data")
    raw = json.loads((data_dir / "instruction" / "instruction-data.json").read_text(encoding="utf-8"))
    assert len(rows) == len(raw) == 1100 and all(map(fits_alpaca, rows))
    question, answer = rows[50].messages
    assert question["content"] == "Identify the correct spelling of the following word."
    assert (question["input"], answer["content"]) == ("Ocassion", "The correct spelling is 'Occasion.'")
    assert rows[50].where.startswith("entry 50 of ")
    parts = split(rows, protocol="book")
    assert (len(parts.train), len(parts.valid), len(parts.test), parts.duplicates) == (935, 55, 110, 0)
    assert [*parts.train, *parts.test, *parts.valid] == rows


def test_harbor_keeps_questions_for_the_test_apart():
    pytest.importorskip("groundup.text.harbor.questions")
    rows = read("harbor-questions:200:3")
    assert len(rows) == 200 and sum(row.held_out for row in rows) == 30 and all(row.kind for row in rows)
    parts = split(rows, validation=0.05, test=0.10, seed=1)
    assert not any(row.held_out for row in parts.train)
    assert all(row.held_out for row in (*parts.valid, *parts.test))
    assert len(parts.valid) == pytest.approx(10, abs=1) and len(parts.test) == pytest.approx(20, abs=1)
    assert read("harbor-questions:200:3") == rows != read("harbor-questions:200:4")
    with pytest.raises(DataError, match="30 conversations are kept out of training, first test question 0 of harbor"):
        split([*talks(900), *rows], protocol="book")


def test_own_rows_beside_harbors_are_divided_too():
    """100 of one's own: 5, 10, 85. Of harbor's 200, 30 are held out: 10 and 20; the 170 others are all learnt from."""
    pytest.importorskip("groundup.text.harbor.questions")
    harbors, own = read("harbor-questions:200:3"), talks(100)
    parts = split([*harbors, *own], validation=0.05, test=0.10, seed=1)
    mine = [sum(row in own for row in part) for part in (parts.train, parts.valid, parts.test)]
    assert mine == [85, 5, 10]
    assert [len(part) for part in (parts.train, parts.valid, parts.test)] == [85 + 170, 5 + 10, 10 + 20]
    assert not any(row.held_out for row in parts.train)
    firsts = {row in own for row in parts.test[:15]}
    assert firsts == {True, False}  # mixed, not one behind the other: the first test rows are those that are answered


def test_one_held_out_row_goes_to_validation():
    rows = [Conversation((HI | {"content": "?"}, HELLO), held_out=True), *talks(9)]
    parts = split(rows, validation=0.05, test=0.10, seed=0)
    assert [row.held_out for row in parts.valid].count(True) == 1 and len(parts.test) == 1
    assert not any(row.held_out for row in parts.train)


@pytest.mark.parametrize("name", ["harbor-questions:x", "harbor-questions:0", "harbor-questions:1:2:3"])
def test_harbor_names_that_mean_nothing(name: str):
    with pytest.raises(DataError, match="harbor-questions"):
        read(name)


# --- mistakes ----------------------------------------------------------------------------------------------------

ROW = {"instruction": "Hi", "output": "Hello"}
MISTAKES = [
    ({"instruction": "Hi", "outptu": "x"}, "has no 'output'; it has: instruction, outptu", "did you mean 'outptu'?"),
    ({"instuction": "Hi", "output": "x"}, "none of the fields of a conversation; it has: instuction, output",
     "did you mean 'instruction'?"),
    ({"choices": [], "query": "Hi"}, "it has: choices, query", "an entry has instruction and output (Alpaca)"),
    ({}, "it has: nothing", "messages"),
    (["Hi"], 'is no object but ["Hi"]', "write"),
    ({"instruction": " \n", "output": "x"}, "'instruction' in entry 1 of x.json is empty", "remove"),
    ({"instruction": "Hi", "output": ""}, "'output' in entry 1 of x.json is empty", "remove"),
    ({"instruction": 5, "output": "x"}, "'instruction' in entry 1 of x.json is 5, not text", "text"),
    ({"instruction": "Hi", "input": ["a"], "output": "x"}, "'input' in entry 1", "text"),
    ({"instruction": "Hi", "output": "\ud800"}, r"half of a surrogate pair, \ud800", "repair"),
    ({"instruction": "Hi", "output": "x", "history": [["a", "b"]]}, "'history', which is not supported", "messages"),
    ({"messages": "Hi"}, '\'messages\' in entry 1 of x.json is "Hi", not a list', "write"),
    ({"messages": []}, "not a list of messages", "write"),
    ({"messages": ["Hi"]}, "message 0 in entry 1 of x.json is no object", "role"),
    ({"messages": [{"content": "Hi"}]}, "message 0 in entry 1 of x.json has no 'role'; it has: content", "role"),
    ({"messages": [HI, {"role": "assistant"}]}, "message 1 in entry 1 of x.json has no 'content'", "add"),
    ({"messages": [HI, {"role": "assistant", "content": None}]}, "is null, not text", "text"),
    ({"messages": [HI, {"role": "assistant", "content": [{"type": "text"}]}]}, "not text", "text"),
    ({"messages": [HI, HELLO | {"tool_calls": [{}]}]}, "message 1 in entry 1 of x.json has 'tool_calls'", "calls"),
    ({"messages": [HI | {"role": "usr"}, HELLO]}, 'has the role "usr"', "did you mean 'user'?"),
    ({"messages": [HI, HI, HELLO]}, "roles out of order: user after user (message 1)", "assistant"),
    ({"messages": [HELLO, HI]}, "roles out of order: assistant first (message 0)", "user"),
    ({"messages": [HI, HELLO, HELLO]}, "roles out of order: assistant after assistant (message 2)", "user"),
    ({"messages": [HI, HELLO, {"role": "system", "content": "x"}]}, "roles out of order: system after", "user"),
    ({"messages": [HI]}, "has no assistant turn: user", "answer"),
    ({"messages": [HI, HELLO | {"weight": "1"}]}, "'weight' of message 1 in entry 1", "true or false"),
    ({"messages": [HI, HELLO | {"weight": 0.5}]}, "'weight' of message 1", "1 or 0"),
    ({"messages": [HI, HELLO | {"weight": 1, "train": False}]}, "both learn and do not learn", "one mark"),
    ({"messages": [HI | {"input": "x"}, HELLO]}, "not the last lines of its content", "leave 'input' out"),
    ({"conversations": [{"from": "humna", "value": "Hi"}]}, 'has the from "humna"', "did you mean 'human'?"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "what", "fix"), MISTAKES)
def test_a_wrong_entry_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any, what: str, fix: str):
    monkeypatch.chdir(tmp_path)
    put(Path("x.json"), [ROW, entry])
    with pytest.raises(DataError) as raised:
        read("x.json")
    assert what in raised.value.what and "entry 1 of x.json" in raised.value.what and fix in raised.value.fix


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.json", "", "x.json is empty"),
        ("x.json", "[]", "x.json holds no conversations"),
        ("x.jsonl", "\n\n", "x.jsonl holds no conversations"),
        ("x.json", '[{"instruction": "a", "output": "b"},\n {"instruction": "a", "output": b}]',
         "not valid JSON: Expecting value at line 2, column 33, in or behind entry 1"),
        ("x.json", '[{"instruction": "a"', "in or behind entry 0"),
        ("x.json", '{"data": [], "version": 1}', "no list of entries but an object with 'data', 'version'"),
        ("x.json", '"hello"', "no list of entries but 'hello'"),
        ("x.json", '{"messages": []}\n{"messages": []}\n', "several JSON objects, not one list"),
        ("x.json", "[" * 100_000, "x.json"),
        ("x.json", "[" + "1" * 10_000 + "]", "x.json"),
        ("x.jsonl", '{"instruction": "a", "output": "b"}\n{"instruction"\n', "line 2 of x.jsonl is not valid JSON"),
        ("x.jsonl", "[]\n", "line 1 of x.jsonl is no object but []"),
        ("x.txt", "Hi", "unknown kind of file '.txt'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, what: str):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read(name)
    assert what in raised.value.what and raised.value.fix


def test_bytes_that_are_no_text(tmp_path: Path):
    (tmp_path / "x.json").write_bytes(b'[{"instruction": "caf\xe9", "output": "x"}]')
    with pytest.raises(DataError, match="not UTF-8: byte 0xE9 at offset 21"):
        read(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["{% for m in messages %}" * 500, '[{"instruction": "Hi"}]', "a\n" * 3000])
def test_text_in_the_place_of_its_path(text: str):
    with pytest.raises(DataError) as raised:
        read(text)
    assert raised.value.fix == "give the path of the file" and len(raised.value.what) < 200
    with pytest.raises(DataError, match="no such file or name: a{60}… .5,000 characters"):
        read("a" * 5000)


def test_names_that_are_nothing(tmp_path: Path):
    with pytest.raises(DataError, match="did you mean 'instruction-data'"):
        read("instruction-dat")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)


# --- dividing ----------------------------------------------------------------------------------------------------


def talks(count: int) -> list[Conversation]:
    said = [(HI | {"content": f"Say {n}."}, HELLO | {"content": str(n)}) for n in range(count)]
    return [Conversation(both, f"entry {n}") for n, both in enumerate(said)]


def test_a_split_has_the_asked_shares_and_each_row_once():
    rows = talks(100)
    parts = split(rows, validation=0.05, test=0.10, seed=7)
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (85, 5, 10)
    assert sorted(row.where for part in (parts.train, parts.valid, parts.test) for row in part) == sorted(
        row.where for row in rows
    )
    assert split(rows, validation=0.05, test=0.10, seed=7) == parts
    assert split(rows, validation=0.05, test=0.10, seed=8).test != parts.test
    assert split(rows[::-1], validation=0.05, test=0.10, seed=7) == parts  # the order of the file makes no difference


def test_what_is_said_twice_is_kept_once():
    """Also where only marks or the way of writing Alpaca's second field differ; another answer is another row."""
    asked = {"role": "user", "content": "Add.", "input": "1"}
    joined = {"role": "user", "content": "Add.\n1"}
    rows = [Conversation((asked, HELLO), "a"), Conversation((joined, HELLO | {"learn": True}), "b"),
            Conversation((asked, HELLO | {"content": "Other"}), "c"), *talks(10)]  # fmt: skip
    parts = split(rows, validation=0.1, test=0.1, seed=0)
    kept = {row.where: row for part in (parts.train, parts.valid, parts.test) for row in part}
    assert parts.duplicates == 1 and {"a", "c"} <= set(kept) and "b" not in kept
    assert kept["a"].messages == (asked, HELLO | {"learn": True}) and kept["c"] == rows[2]
    assert split(rows, protocol="book").duplicates == 0


@pytest.mark.parametrize(
    ("marks", "kept"),
    [((False, True), True), ((True, False), True), ((False, None), False), ((None, False), False), ((None,) * 2, None)],
)
def test_marks_of_what_is_said_twice_are_merged(marks: tuple[Any, Any], kept: bool | None):
    """To be learnt where any copy says so: two copies, of whose two answers only the second is marked differently."""
    rows = []
    for mark in marks:
        again = HELLO if mark is None else HELLO | {"learn": mark}
        rows.append(Conversation((HI, HELLO | {"learn": True}, HI, again), "twice", held_out=mark is marks[1]))
    parts = split([*rows, *talks(10)], validation=0.1, test=0.1, seed=0)
    (row,) = [row for part in (parts.train, parts.valid, parts.test) for row in part if row.where == "twice"]
    assert [message.get("learn") for message in row.messages] == [None, True, None, kept]
    assert row.held_out and row not in parts.train


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_to_divide(count: int):
    with pytest.raises(DataError, match=f"{count} different conversations are too few to divide"):
        split(talks(count), validation=0.05, test=0.10, seed=0)
    assert len(split(talks(3), validation=0.05, test=0.10, seed=0).train) == 1
    assert split(talks(3), validation=0.5, test=0.0, seed=0).test == []


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_alpaca_is_written_as_litgpt_and_axolotl_read_it(tmp_path: Path, name: str):
    """A list of objects (LitGPT: instruction and output, input optional), or one a line (Axolotl), all three texts."""
    rows = [Conversation((HI | {"input": "1\n2"}, HELLO), kind="sums"), Conversation((HI, HELLO))]
    write_alpaca(tmp_path / "new" / name, rows)
    text = (tmp_path / "new" / name).read_text(encoding="utf-8")
    raw = json.loads(text) if name == "x.json" else [json.loads(line) for line in text.splitlines()]
    assert [(row["instruction"], row["input"], row["output"]) for row in raw] == [
        ("Hi", "1\n2", "Hello"), ("Hi", "", "Hello")]  # fmt: skip
    again = read(tmp_path / "new" / name)
    assert [(row.messages, row.kind) for row in again] == [(row.messages, row.kind) for row in rows]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_messages_are_written_as_axolotl_and_openai_read_them(tmp_path: Path):
    """One object a line; role and content are strings, and the content alone says everything."""
    system = {"role": "system", "content": "é\n"}
    long = (system, HI | {"input": "1"}, HELLO | {"learn": False}, HI, HELLO | {"learn": True})
    rows = [Conversation(long, kind="k"), Conversation((HI, HELLO))]
    write_messages(tmp_path / "x.jsonl", rows)
    raw = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [message["content"] for message in raw[0]["messages"]] == ["é\n", "Hi\n1", "Hello", "Hi", "Hello"]
    assert [message.get("train") for message in raw[0]["messages"]] == [None, None, False, None, True]
    assert set(raw[1]["messages"][0]) == {"role", "content"}
    again = read(tmp_path / "x.jsonl")
    assert [(row.messages, row.kind) for row in again] == [(row.messages, row.kind) for row in rows]


def test_what_has_no_place_in_alpaca_is_refused_and_nothing_is_written(tmp_path: Path):
    for bad in ((HI, HELLO, HI, HELLO), ({"role": "system", "content": "x"}, HI, HELLO), (HI, HELLO | {"learn": True})):
        row = Conversation(bad, "entry 9")
        assert not fits_alpaca(row)
        with pytest.raises(DataError, match="entry 9 has no place in Alpaca's form"):
            write_alpaca(tmp_path / "x.json", [Conversation((HI, HELLO)), row])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.json.gz", "x.jsonl.zst", "x.jsonl.GZ", "x.txt", "x"])
def test_names_that_could_not_be_read_again_are_not_written(tmp_path: Path, name: str):
    for write in (write_messages, write_alpaca):
        with pytest.raises(DataError, match="cannot write conversations to") as raised:
            write(tmp_path / name, talks(1))
        assert raised.value.fix.startswith("give a name that ends in .json")
    with pytest.raises(DataError, match=r"give a name that ends in \.jsonl"):
        write_messages(tmp_path / "x.json", talks(1))
    assert not any(tmp_path.iterdir())


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "x.jsonl").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"x\.jsonl is a folder"):
        write_messages(tmp_path / "x.jsonl", talks(1))
    for below in ("file/x.jsonl", "file/deep/x.jsonl"):
        with pytest.raises(DataError, match="is no folder"):
            write_messages(tmp_path / below, talks(1))
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_messages(tmp_path / "x.jsonl", talks(1))
    before = (tmp_path / "x.jsonl").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversations.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_messages(tmp_path / "x.jsonl", talks(5))
    assert (tmp_path / "x.jsonl").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
