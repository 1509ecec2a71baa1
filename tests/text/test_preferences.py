"""Pairs: every form read alike, every mistake named by its place, prompts kept in one part, files that read back."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import DataError
from groundup.text import preferences
from groundup.text.preferences import (
    FAULT,
    PARTED,
    UNASKED,
    Preference,
    read,
    split,
    write,
)

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
BYE = {"role": "assistant", "content": "Bye"}
NOTES = {  # the record of the notes, section 8.3
    "prompt": "Explain quantum computing to a 5-year-old.",
    "response_1": "It's like a magic coin that can be heads and tails at the same time!",
    "response_2": "Quantum computing is a complex topic involving superposition and entanglement.",
    "preferred": 1,
}


def put(path: Path, entries: Any) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    else:
        path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def one(path: Path, entry: Any) -> Preference:
    [found] = read(put(path / "x.json", [entry]))
    return found


def asked(text: str, chosen: str = "yes", rejected: str = "no", **more: Any) -> Preference:
    return Preference(({"role": "user", "content": text},), chosen, rejected, **more)


# --- forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Bye"},
        {"prompt": [HI], "chosen": "Hello", "rejected": [BYE]},
        {"prompt": [HI], "chosen": [HELLO], "rejected": [BYE]},
        {"prompt": "Hi", "chosen": [HI, HELLO], "rejected": [HI, BYE], "messages": [HI, HELLO], "score_chosen": 8.5},
        {"chosen": [HI, HELLO], "rejected": [HI, BYE]},
        {"chosen": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "rejected": [HI, BYE]},
        {"messages": [HI], "chosen": "Hello", "rejected": "Bye"},
        {"instruction": "Hi", "input": "", "output": "Bye", "chosen": "Hello", "rejected": "Bye"},
        {"prompt": "Hi", "response_1": "Hello", "response_2": "Bye", "preferred": 1},
        {"prompt": "Hi", "response_1": "Bye", "response_2": "Hello", "preferred": 2},
        {"instruction": "Hi", "response_1": "Bye", "response_2": "Hello", "preferred": 2},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant:  Bye\n"},
        {"chosen": "Human: Hi\n\nAssistant: Hello", "rejected": "Human: Hi\n\nAssistant: Bye"},
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_one_pair_in_every_form(tmp_path: Path, name: str, entry: Any):
    path = put(tmp_path / name, [entry])
    [found] = read(path)
    assert found == Preference((HI,), "Hello", "Bye")
    assert found.where == (f"entry 0 of {path}" if name == "x.json" else f"line 1 of {path}")


def test_the_notes_own_record(tmp_path: Path):
    found = one(tmp_path, NOTES)
    assert (found.chosen, found.rejected) == (NOTES["response_1"], NOTES["response_2"])
    turned = one(tmp_path, NOTES | {"preferred": 2})
    assert (turned.chosen, turned.rejected) == (NOTES["response_2"], NOTES["response_1"])
    assert found.messages == turned.messages == ({"role": "user", "content": NOTES["prompt"]},)


def test_several_turns_a_system_message_and_the_second_field(tmp_path: Path):
    before = [{"role": "system", "content": "Be brief."}, HI, HELLO, {"role": "user", "content": "And?"}]
    entry = {"prompt": before[1:], "system": "Be brief.", "chosen": "Yes.", "rejected": "No.", "margin": 2}
    found = one(tmp_path, entry)
    assert [*found.messages] == before and found.margin == 2.0
    assert one(tmp_path, {"chosen": [*before, BYE], "rejected": [*before, HELLO]}).messages == tuple(before)
    alpaca = {"instruction": "Add.", "input": "1, 2", "chosen": "3", "rejected": "12"}
    assert one(tmp_path, alpaca).messages == ({"role": "user", "content": "Add.", "input": "1, 2"},)


def test_marks_of_earlier_answers_are_not_the_pairs(tmp_path: Path):
    """Of a pair the last answer is learnt, whatever its data say of others."""
    turns = [HI, HELLO | {"weight": 1}, {"role": "user", "content": "And?"}]
    found = one(tmp_path, {"prompt": turns, "chosen": [BYE | {"train": False}], "rejected": "No."})
    assert found.messages == (HI, HELLO, turns[2])


def test_text_is_kept_to_the_letter(tmp_path: Path):
    text = "  two\r\n\ttabs \u2028 é<|im_end|> "
    found = one(tmp_path, {"prompt": text, "chosen": text, "rejected": text + "."})
    assert (found.messages[0]["content"], found.chosen, found.rejected) == (text, text, text + ".")


def test_packed_files_and_empty_or_equal_answers_are_read(tmp_path: Path):
    """Nothing can be learnt from them; that is counted where rows are made, so that a person is told."""
    rows = [{"prompt": "Hi", "chosen": "", "rejected": "Bye"}, {"prompt": "Hi", "chosen": "A", "rejected": "A"},
            {"prompt": [HI], "chosen": [HELLO | {"content": " "}], "rejected": [BYE]}]  # fmt: skip
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = read(tmp_path / "x.jsonl.gz")
    assert [(row.chosen, row.rejected) for row in found] == [("", "Bye"), ("A", "A"), ("", "Bye")]


# --- transcripts -------------------------------------------------------------------------------------------------


def transcript(*turns: str) -> str:
    """Turns such as "H: hi" and "A: yo" as HH-RLHF writes them."""
    names = {"H": "Human", "A": "Assistant"}
    return "".join(f"\n\n{names[turn[0]]}: {turn[3:]}" for turn in turns)


def test_what_stands_before_the_last_answer_is_the_prompt(tmp_path: Path):
    chosen = transcript("H: a", "A: b\n\nstill b", "H: c", "A: d")
    found = one(tmp_path, {"chosen": chosen, "rejected": transcript("H: a", "A: b\n\nstill b", "H: c", "A: e")})
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("user", "a"), ("assistant", "b\n\nstill b"), ("user", "c")]  # fmt: skip
    assert (found.chosen, found.rejected, found.fault) == ("d", "e", "")


def test_a_prompt_may_be_a_transcript_up_to_the_answer(tmp_path: Path):
    """As copies of HH-RLHF have it; a question that only speaks of a Human is none."""
    begins = transcript("H: a", "A: b", "H: c") + "\n\nAssistant:"
    found = one(tmp_path, {"prompt": begins, "chosen": "d", "rejected": "e"})
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("user", "a"), ("assistant", "b"), ("user", "c")]  # fmt: skip
    for text in ("Human: a", "What does this say?\n\nHuman: a\n\nAssistant:", "\n\nHuman: a\n\nAssistant: b"):
        assert one(tmp_path, {"prompt": text, "chosen": "d", "rejected": "e"}).messages[0]["content"] == text


@pytest.mark.parametrize("prompt", ["a", " a\n", transcript("H: a") + "\n\nAssistant:", [HI | {"content": "a"}]])
def test_an_answer_that_begins_with_its_prompt_loses_it(tmp_path: Path, prompt: Any):
    found = one(
        tmp_path, {"prompt": prompt, "chosen": transcript("H: a", "A: b"), "rejected": "Human: a\n\nAssistant:"}
    )
    assert (len(found.messages), found.chosen, found.rejected) == (1, "b", "")
    turns = [HI, HELLO, {"role": "user", "content": "c"}]
    said = transcript("H: Hi", "A: Hello", "H: c", "A: d")
    assert one(tmp_path, {"prompt": turns, "chosen": said, "rejected": "e"}).chosen == "d"
    for text in ("Human: x\n\nAssistant: b", "Human: nobody", "Look:" + transcript("H: a", "A: b")):  # said on purpose
        assert one(tmp_path, {"prompt": "a", "chosen": text, "rejected": "e"}).chosen == text


def test_a_fault_of_ones_own_drops_nothing(tmp_path: Path):
    assert one(tmp_path, {"prompt": "Hi", "chosen": "Hello", "rejected": "Bye", "fault": "too brief"}).fault == ""
    write(tmp_path / "x.jsonl", [asked("Hi", fault=PARTED)])
    assert json.loads((tmp_path / "x.jsonl").read_text())["groundup.fault"] == PARTED


def test_turns_of_one_role_become_one(tmp_path: Path):
    begins = ("H: a", "A: b", "A: c", "H: d", "H: e")
    found = one(tmp_path, {"chosen": transcript(*begins, "A: f"), "rejected": transcript(*begins, "A: g")})
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("user", "a"), ("assistant", "b\n\nc"), ("user", "d\n\ne")]  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "rejected", "fault"),
    [
        (("H: a", "A: b", "H: c", "A: d"), ("H: a", "A: x", "H: c", "A: e"), PARTED),
        (("H: a", "A: b", "A: d"), ("H: a", "A: e"), PARTED),
        (("H: a", "A: b", "A: d"), ("H: a", "A: b", "A: e"), UNASKED),
    ],
)
def test_transcripts_that_part_early_are_kept_with_their_fault(
    tmp_path: Path, chosen: tuple[str, ...], rejected: tuple[str, ...], fault: str
):
    found = one(tmp_path, {"chosen": transcript(*chosen), "rejected": transcript(*rejected)})
    assert found.fault == fault and found.messages[-1]["role"] == "user"
    write(tmp_path / "again.jsonl", [found])
    assert read(tmp_path / "again.jsonl") == [found]


def test_an_answer_may_be_empty_and_so_may_a_turn(tmp_path: Path):
    chosen, rejected = transcript("H: a", "A: b", "H: ", "H: c", "A:"), transcript("H: a", "A: b", "H: c", "A: d")
    found = one(tmp_path, {"chosen": chosen, "rejected": rejected})
    assert (found.chosen, found.rejected, found.fault, len(found.messages)) == ("", "d", "", 3)


# --- the public sets ---------------------------------------------------------------------------------------------


def test_the_books_pairs(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """1,100 pairs, by jq 6 equal and 564 with the longer one chosen; 935 / 55 / 110 in the order of the file."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    rows = read("instruction-preference")
    raw = json.loads((data_dir / "preference" / "instruction-data-with-preference.json").read_text(encoding="utf-8"))
    assert len(rows) == len(raw) == 1100
    assert [(row.chosen, row.rejected) for row in rows] == [(entry["chosen"], entry["rejected"]) for entry in raw]
    assert rows[0].messages[0] == {"role": "user", "content": raw[0]["instruction"], "input": raw[0]["input"]}
    assert sum(row.chosen == row.rejected for row in rows) == 6
    assert sum(len(row.chosen) > len(row.rejected) for row in rows) == 564
    parts = split(rows, protocol="book")
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (935, 55, 110)
    assert [*parts.train, *parts.test, *parts.valid] == rows
    assert parts.train[0].where.startswith("entry 0 of ")


def test_hh_rlhf(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """2,312 pairs; by awk over the raw lines: 5 part before the last answer, 4 chosen answers are empty, none equal."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    rows = read("hh-rlhf")
    assert len(rows) == 2312
    assert [row.where.split()[1] for row in rows if row.fault] == ["1255", "1689", "1951", "1953", "2037"]
    assert {row.fault for row in rows} == {"", PARTED}
    assert [row.where.split()[1] for row in rows if not row.chosen] == ["87", "517", "926", "1104"]
    assert all(row.rejected and row.chosen != row.rejected for row in rows)
    for row in rows:
        roles = [message["role"] for message in row.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert rows[0].messages[0]["content"] == "what are some pranks with a pen i can do?"
    assert rows[0].rejected.startswith("There are lots of funny things you can do with pens")


@pytest.mark.parametrize("name", ["harbor-pairs", "harbor-reworded-pairs"])
def test_harbors_pairs_are_held_apart(name: str):
    rows = read(f"{name}:200:3")
    assert len(rows) == 200 and sum(row.held_out for row in rows) == 30 and all(row.margin for row in rows)
    assert read(f"{name}:200:3") == rows != read(f"{name}:200:4")
    parts = split(rows, validation=0.05, test=0.10, seed=1)
    assert [len(part) for part in (parts.train, parts.valid, parts.test)] == [170, 10, 20]
    assert not any(row.held_out for row in parts.train)
    assert all(row.held_out for row in (*parts.valid, *parts.test))
    with pytest.raises(DataError, match="30 pairs are kept out of training, first test pair 0 of harbor"):
        split(rows, protocol="book")


@pytest.mark.parametrize("name", ["harbor-pairs:x", "harbor-pairs:0", "harbor-pairs:1:2:3"])
def test_harbor_names_that_mean_nothing(name: str):
    with pytest.raises(DataError, match=re.escape(name)):
        read(name)


# --- mistakes ----------------------------------------------------------------------------------------------------

PAIR = {"prompt": "Hi", "chosen": "Hello", "rejected": "Bye"}
NUMBERED = {"prompt": "Hi", "response_1": "Hello", "response_2": "Bye"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (NUMBERED, r"entry 1 of .*x.json has no 'preferred': it has prompt, response_1, response_2"),
        (NUMBERED | {"preferred": 0}, "'preferred' of entry 1 of .* is 0"),
        (NUMBERED | {"preferred": True}, "'preferred' of entry 1 of .* is true"),
        (NUMBERED | {"preferred": "1"}, "'preferred' of entry 1 of .* is \"1\""),
        (NUMBERED | {"preferred": [1]}, r"'preferred' of entry 1 of .* is \[1\]"),
        (NUMBERED | {"chosen": "Hello"}, "entry 1 of .* is written in two forms at once: chosen, response_1"),
        ({"response_1": "a", "response_2": "b", "preferred": 1}, "has no 'prompt': it has response_1"),
        ({"prompt": "Hi", "chosen": "Hello"}, "entry 1 of .* has no 'rejected': it has prompt, chosen"),
        ({"prompt": "Hi", "chosen": "Hello", "rejectd": "Bye"}, "did you mean 'rejectd'"),
        ({"prompt": "Hi", "answer": "Hello"}, "no two answers of which one is preferred; it has: prompt, answer"),
        ({}, "no two answers of which one is preferred; it has: nothing"),
        ("Hi", "entry 1 of .* is no object but \"Hi\""),
        (PAIR | {"prompt": ""}, "'content' in message 0 in the prompt of entry 1 of .* is empty"),
        (PAIR | {"prompt": 5}, "the prompt of entry 1 of .* is 5, not text"),
        (PAIR | {"prompt": []}, "the prompt of entry 1 of .*, not a list of messages"),
        (PAIR | {"prompt": [HI, HELLO]}, "the prompt of entry 1 of .* ends with the assistant's words"),
        (PAIR | {"prompt": [HELLO]}, "the prompt of entry 1 .*roles out of order"),
        (PAIR | {"chosen": 5}, "'chosen' of entry 1 of .* is 5, not text"),
        (PAIR | {"chosen": None}, "'chosen' of entry 1 of .* is null, not text"),
        (PAIR | {"rejected": []}, "'rejected' of entry 1 of .*"),
        (PAIR | {"rejected": [HI, HELLO, HI]}, "'rejected' of entry 1 of .* ends with the user's words"),
        (PAIR | {"rejected": [HELLO, HI, HELLO]}, "'rejected' of entry 1 .*roles out of order"),
        (PAIR | {"rejected": [BYE, BYE]}, "'rejected' of entry 1 .*roles out of order"),
        (PAIR | {"chosen": [HI | {"content": "Ho"}, HELLO]}, "begins with other messages than its prompt"),
        (PAIR | {"chosen": "\ud800"}, "'chosen' of entry 1 of .* half of a surrogate pair"),
        (PAIR | {"chosen": transcript("H: Ho", "A: b")}, "'chosen' of entry 1 .* begins with another prompt"),
        (PAIR | {"input": "1, 2"}, "both 'prompt' and 'input'"),
        (PAIR | {"messages": [BYE]}, "has 'prompt' and 'messages' too"),
        (PAIR | {"tools": [{"name": "f"}]}, "has 'tools', which is not supported"),
        (PAIR | {"margin": -1}, "'margin' of entry 1 of .* is -1"),
        (PAIR | {"margin": "big"}, "'margin' of entry 1 of .* is \"big\""),
        (PAIR | {"margin": True}, "'margin' of entry 1 of .* is true"),
        (PAIR | {"margin": float("inf")}, "'margin' of entry 1 of .* is Infinity"),
        (PAIR | {"margin": float("nan")}, "'margin' of entry 1 of .* is NaN"),
        (PAIR | {"margin": 10**400}, "'margin' of entry 1 of .* is 1000"),
        (PAIR | {FAULT: "\ud800"}, "'groundup.fault' of entry 1 of .* half of a surrogate pair"),
        ({"chosen": [HI, HELLO], "rejected": [HI | {"content": "Ho"}, BYE]}, "begin with different messages"),
        ({"chosen": [HI, HELLO], "rejected": "Bye"}, "has no 'prompt'"),
        ({"chosen": [HELLO], "rejected": [BYE]}, "has no 'prompt'"),
        ({"chosen": "Hello", "rejected": "Bye"}, "has no 'prompt', and its 'chosen' is no transcript: it begins with"),
        ({"chosen": transcript("H: a", "A: b"), "rejected": transcript("H: a")}, "it ends with the Human's words"),
        ({"chosen": transcript("H: a", "A: b\ud800"), "rejected": transcript("H: a", "A: c")}, "half of a surrogate"),
        ({"chosen": transcript("A: a", "A: b"), "rejected": transcript("A: a", "A: c")}, "no words of the Human"),
        ({"chosen": transcript("A: a", "H: b", "A: c"), "rejected": transcript("A: a", "H: b", "A: d")}, "of order"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(tmp_path: Path, entry: Any, message: str):
    with pytest.raises(DataError, match=message) as found:
        read(put(tmp_path / "x.json", [PAIR, entry]))
    assert found.value.fix and str(tmp_path / "x.json") in found.value.what


def test_files_that_cannot_be_read(tmp_path: Path):
    for name, message in (
        ("no/such.json", "no such file or name"), (str(tmp_path), "is a folder"), ("hh-rlfh", "no such file or name"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read(name)
    with pytest.raises(DataError, match="did you mean 'hh-rlhf'") as found:
        read("hh-rlfh")
    (tmp_path / "x.csv").write_text("a,b\n")
    for path, text, message in (
        ("x.csv", "a,b\n", "unknown kind of file '.csv'"), ("x.json", "[]", "holds no pairs"),
        ("x.jsonl", "{", "line 1 of .* is not valid JSON"),
    ):  # fmt: skip
        (tmp_path / path).write_text(text)
        with pytest.raises(DataError, match=message):
            read(tmp_path / path)
    assert found.value.fix


# --- writing -----------------------------------------------------------------------------------------------------


def test_what_is_written_reads_back_equal(tmp_path: Path):
    rows = [
        asked("Hi", "é\u2028 ", "  no\n", margin=0.0),
        Preference(({"role": "system", "content": "s"}, HI, HELLO, {"role": "user", "content": "A.", "input": "1"}),
                   "b", "", margin=2.5),
        asked("<|im_end|>", "same", "same", fault=PARTED),
    ]  # fmt: skip
    path = tmp_path / "new" / "pairs.jsonl"
    write(path, rows)
    assert read(path) == rows
    first = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
    assert first["prompt"] == [{"role": "user", "content": "Hi"}]  # as TRL's trainers take it
    assert first["chosen"] == [{"role": "assistant", "content": "é\u2028 "}] and set(first) - {"margin"} == {
        "prompt", "chosen", "rejected"}  # fmt: skip
    write(path, rows[:1])
    assert read(path) == rows[:1] and [item.name for item in path.parent.iterdir()] == ["pairs.jsonl"]


def test_the_public_sets_survive_being_written(data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    for name in ("instruction-preference", "hh-rlhf"):
        rows = read(name)
        write(tmp_path / "x.jsonl", rows)
        assert read(tmp_path / "x.jsonl") == rows


@pytest.mark.parametrize("name", ["x.json", "x.jsonl.gz", "folder.jsonl", "file.txt/x.jsonl"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file.txt").write_text("here")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="cannot"):
        write(tmp_path / name, [asked("Hi")])
    assert sorted(tmp_path.iterdir()) == before


def test_names_are_told():
    assert preferences.names() == ["instruction-preference", "hh-rlhf", "harbor-pairs", "harbor-reworded-pairs"]
