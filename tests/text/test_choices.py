"""Questions from files: what lm-eval makes of HellaSwag and ARC, to the letter, and lines that cannot be used."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import DataError
from groundup.text import choices
from groundup.text.choices import MultipleChoice, hellaswag_text, questions, read

HELLASWAG = {
    "activity_label": "Home and Garden",
    "ctx_a": "[header] How to wash a pail [title] Fill it. [step] Use warm water.",
    "ctx_b": "then Odo",
    "endings": ["rinses it.", " [substeps] dries  it. ", "[title] If it leaks", "sings."],
    "label": 2,
}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_hellaswag_is_cleaned_as_lm_eval_cleans_it(tmp_path: Path):
    """By hand from the rules: strip, " [title]" to ". ", brackets away, two spaces to one, in this order, once each."""
    form, [item] = read(written(tmp_path / "h.jsonl", HELLASWAG))
    assert form == "hellaswag" and item.right == 2
    assert item.context == "Home and Garden: How to wash a pail. Fill it. Use warm water. Then odo"
    assert item.choices == ("rinses it.", " dries it.", " If it leaks", "sings.")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ("  plain ", "plain"),
        ("a [title] b", "a. b"),
        ("a [b] c [d]", "a c "),
        ("a    b", "a  b"),
        ("[a [b] c]", " c]"),
        ("[never closed", "[never closed"),
    ],
)
def test_pieces_of_hellaswag(text: str, clean: str):
    assert hellaswag_text(text) == clean


def test_arc_in_three_layouts(tmp_path: Path):
    texts, letters = ["gray", "warm"], ["A", "B"]
    from_ai2 = {"stem": "Which?", "choices": [{"text": t, "label": n} for t, n in zip(texts, letters, strict=True)]}
    rows = {
        "arc": [
            {"question": "Which?", "choices": {"text": texts, "label": letters}, "answerKey": "B"},
            {"question": "Which?", "choices": {"text": texts, "label": ["1", "2"]}, "answerKey": "2"},
            {"question": from_ai2, "answerKey": "B"},
        ],
        "query": [{"query": "Question: Which?", "choices": texts, "gold": 1}],
    }
    for name, layouts in rows.items():
        for row in layouts:
            form, [item] = read(written(tmp_path / "a.jsonl", row))
            assert form == name and item.context == "Question: Which?\nAnswer:"
            assert item.choices == tuple(texts) and item.right == 1


def test_the_plain_layout_packed_and_limited(tmp_path: Path):
    rows = [{"context": f"{n} and", "choices": ["a", "b", "c"], "label": str(n)} for n in range(3)]
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    form, items = read(path, limit=2)
    assert form == "plain"
    assert items == [MultipleChoice(f"{n} and", ("a", "b", "c"), n, f"{path} line {n + 1}") for n in range(2)]


def test_the_files_at_hand_can_all_be_read(data_dir: Path):
    for name, form, count in (("hellaswag", "hellaswag", 1000), ("arc_easy", "query", 2376)):
        found, items = read(data_dir / "eval" / f"{name}.jsonl")
        assert (found, len(items)) == (form, count)
        assert all(0 <= item.right < len(item.choices) for item in items)


PLAIN = {"context": "c", "choices": ["a", "b"], "label": 0}
USER = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no question"),
        ([{"text": "x", "id": 3}], "line 1 is no question with choices; its fields: text, id"),
        ([[1, 2]], "line 1 holds a list"),
        ([PLAIN, {"context": "c", "choices": ["a", "b"]}], "line 2 has no 'label'"),
        ([PLAIN | {"label": 2}], "right answer in .* line 1 is 2, and there are 2 choices"),
        ([PLAIN | {"label": ""}], "is '', and there are 2 choices"),
        ([PLAIN | {"label": True}], "is True"),
        ([PLAIN | {"label": -1}], "is -1"),
        ([PLAIN | {"label": "9" * 5000}], "is '999"),
        ([PLAIN | {"choices": ["a"]}], "line 1 has 1 choices"),
        ([PLAIN | {"choices": ["a", ""]}], "choice 1 in .* line 1 is empty"),
        ([PLAIN | {"choices": ["a", 5]}], "'choices' in .* holds 5, not text"),
        ([PLAIN | {"choices": "ab"}], "is 'ab', no list"),
        ([PLAIN | {"context": None}], "'context' in .* holds None, not text"),
        ([PLAIN | {"context": "\ud800"}], "half of a surrogate pair, U\\+D800"),
        ([{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "3"}], "is '3'"),
        ([{"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"}], "are called A"),
        ([{"question": "q", "choices": ["a", "b"], "answerKey": "A"}], "no question with choices as ARC has them"),
        ([{"question": {"stem": None, "choices": []}, "answerKey": "A"}], "line 1"),
        ([HELLASWAG | {"endings": ["[x]", "y", "z", "u"]}], "choice 0 in .* is empty"),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path: Path, rows: list[Any], said: str):
    with pytest.raises(DataError, match=said):
        read(written(tmp_path / "bad.jsonl", *rows))


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "a.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="cannot read questions from"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("{broken\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1 is not valid JSON"):
        read(tmp_path / "a.jsonl")


def test_questions_with_one_or_more_answers(tmp_path: Path):
    talk = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    rows = [
        {"prompt": "2 + 2 =", "answer": "4", "kind": "sum"},
        {"question": "Who?", "answers": ["Odo", "old Odo"]},
        {"messages": talk, "answer": "!"},
    ]
    found = questions(written(tmp_path / "q.jsonl", *rows))
    assert [one.answers for one in found] == [("4",), ("Odo", "old Odo"), ("!",)]
    assert [one.kind for one in found] == ["sum", "", ""]
    assert found[0].messages == ({"role": "user", "content": "2 + 2 ="},) and found[2].messages == tuple(talk)
    assert questions(tmp_path / "q.jsonl", limit=1) == found[:1]


def test_of_conversations_the_last_answer_is_the_right_one(tmp_path: Path):
    talk = [{"role": "user", "content": "Who has the kettle?"}, {"role": "assistant", "content": "Mira."}]
    [found] = questions(written(tmp_path / "talks.jsonl", {"messages": talk}))
    assert found.answers == ("Mira.",) and [one["content"] for one in found.messages] == ["Who has the kettle?"]


def test_questions_of_harbor_are_those_kept_for_tests():
    from groundup.text.harbor import questions as harbor

    found = questions("harbor-questions:5:3")
    drawn = list(harbor.questions(3, 5, split="test"))
    assert [one.answers for one in found] == [(one.answer,) for one in drawn]
    assert {one.kind for one in found} <= set(harbor.FAMILIES)
    assert len(questions("harbor-questions")) == choices.ASKED
    with pytest.raises(DataError, match="cannot read 'harbor-questions:x'"):
        questions("harbor-questions:x")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "answer": ""}, "is '', no answer"),
        ({"prompt": "p", "answers": []}, "is \\[\\], no answer"),
        ({"prompt": "p", "answer": 4}, "is 4, no answer"),
        ({"text": "p", "answer": "4"}, "has no 'prompt'; it has: text, answer"),
        ({"prompt": 3, "answer": "4"}, "'prompt' in .* holds 3"),
        ({"prompt": "p", "answer": "4", "kind": 3}, "'kind' in .* line 1 holds 3, not text"),
        (
            {"messages": [USER, {"role": "assistant", "content": "a"}], "answer": "4"},
            "line 1 do not end with a question",
        ),
        ({"messages": [{"role": "assistant", "content": "a"}], "answer": "4"}, "line 1: roles out of order: assistant"),
        ({"messages": [USER, USER], "answer": "4"}, "line 1: roles out of order: user after user"),
        ({"messages": [{"role": "usr", "content": "a"}], "answer": "4"}, 'message 0 in .* line 1 has the role "usr"'),
        ({"messages": [{"role": "user", "content": "\ud800"}], "answer": "4"}, "line 1 holds half of a surrogate"),
        ({"messages": [], "answer": "4"}, "'messages' in .* line 1 is \\[\\], not a list"),
        ({"messages": "hi", "answer": "4"}, "'messages' in .* line 1 is \"hi\", not a list"),
        ({"prompt": "\ud800", "answer": "4"}, "'prompt' in .* line 1 holds half of a surrogate"),
        ({"prompt": "p", "answers": ["4", "\udfff"]}, "'answers' in .* line 1 holds half of a surrogate"),
        ({"prompt": "p", "answer": "4", "kind": "\ud800"}, "'kind' in .* line 1 holds half of a surrogate"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path: Path, row: dict[str, Any], said: str):
    with pytest.raises(DataError, match=said):
        questions(written(tmp_path / "bad.jsonl", row))


def test_a_line_without_an_answer_among_others(tmp_path: Path):
    with pytest.raises(DataError, match="line 2 has no 'answer'"):
        questions(written(tmp_path / "bad.jsonl", {"prompt": "p", "answer": "4"}, {"prompt": "q"}))
