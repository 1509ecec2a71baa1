"""Pairs as rows: one prompt in both, only the last answer learnt, and every pair that says nothing counted."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import tokens
from groundup.errors import DataError
from groundup.generate.chat import teach
from groundup.text.preferences import PARTED, Preference, read
from groundup.text.styles import STYLES
from groundup.text.template import ChatTemplate
from groundup.tokens.pairs import EMPTY, EQUAL, PairRow, pair_rows, sides
from groundup.tokens.rows import ENDLESS, Row, prompt_ids, stop_ids

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n.,:#<|>_/[]!?'0123456789"
PLAIN = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"


def letters(*more: str) -> tokens.Tokenizer:
    """A tokenizer whose every letter is an id, so that a row can be counted by hand."""
    return tokens.train("chars", [LETTERS], special=["<|endoftext|>", *more])


def plain() -> tuple[tokens.Tokenizer, ChatTemplate]:
    """Each message, and an end behind it: 'Hi' and 'Yo' are 3 ids each."""
    return letters(), ChatTemplate(PLAIN, eos="<|endoftext|>")


def asked(chosen: str, rejected: str, *turns: str, **more: Any) -> Preference:
    """An answer better than another, to the last of the turns."""
    said = turns or ("Hi",)
    roles = ("user", "assistant")
    messages = tuple({"role": roles[place % 2], "content": text} for place, text in enumerate(said))
    return Preference(messages, chosen, rejected, **more)


def learnt(tokenizer: tokens.Tokenizer, row: Row) -> str:
    return tokenizer.decode([id for id, flag in zip(row.ids, row.learn, strict=True) if flag])


def both(pair: PairRow) -> tuple[Row, Row]:
    return pair.chosen, pair.rejected


# --- by hand -----------------------------------------------------------------------------------------------------


def test_two_rows_by_hand():
    """Hi + end is the prompt (3 ids); abc + end are 4 ids to be learnt, d + end are 2."""
    tokenizer, template = plain()
    found = pair_rows(tokenizer, template, [asked("abc", "d", margin=2.0)], context=50)
    [pair] = found.rows
    prompt, end = tokenizer.encode("Hi") + [tokenizer.end_of_text], tokenizer.end_of_text
    assert pair.chosen == Row([*prompt, *tokenizer.encode("abc"), end], [False] * 3 + [True] * 4)
    assert pair.rejected == Row([*prompt, *tokenizer.encode("d"), end], [False] * 3 + [True] * 2)
    assert pair.margin == 2.0 and sides(pair) == (pair.chosen.learn, pair.rejected.learn)
    assert (found.places, found.dropped, found.cut, found.lost, found.longest) == ([0], {}, 0, 0, 7)
    assert found.tokens == 6 + 4 and found.learnt_share == 6 / 10
    assert found.answer_tokens == (4, 2) and found.remark == ""


def test_what_says_nothing_is_counted_and_the_rest_keeps_its_place():
    """With 8 inputs a row has 9 ids at most: "Hi" leaves 6 for an answer, "Good day" none."""
    tokenizer, template = plain()
    given = [
        asked("a", "b"),
        asked("", "b"),
        asked("a", " \n"),
        asked("same", "same"),
        asked("same", " same\n"),
        asked("a", "b", "Good day"),
        asked("abcdefg", "abcdefh"),
        asked("abcdef", "abcdeg"),
        asked("ab", "abcdefgh", margin=1.0),
        asked("a", "b", fault=PARTED),
    ]
    found = pair_rows(tokenizer, template, given, context=8)
    assert found.places == [0, 7, 8] and [pair.margin for pair in found.rows] == [0.0, 0.0, 1.0]
    assert found.dropped == {
        EMPTY: 2, EQUAL: 2, "the prompt fills the context of 8 tokens": 1,
        "both answers are the same up to the context of 8 tokens": 1, PARTED: 1}  # fmt: skip
    # abcdef and its end are 7 ids, of which 6 stay: 1 lost in each row; abcdefgh and its end are 9: 3 lost
    assert (found.cut, found.lost, found.longest) == (2, 1 + 1 + 3, 12)
    assert learnt(tokenizer, found.rows[2].rejected) == "abcdef"
    assert found.words().split("\n") == [
        "3 pairs, 67.6 % of 37 tokens are answers",
        "2 cut inside an answer, 5 tokens lost: the longest row has 12",
        "2 pairs left out: an answer is empty",
        "2 pairs left out: both answers are the same",
        "1 pair left out: the prompt fills the context of 8 tokens",
        "1 pair left out: both answers are the same up to the context of 8 tokens",
        "1 pair left out: their transcripts part before the last answer",
    ]


@pytest.mark.parametrize(
    ("given", "context", "message"),
    [
        ([], 8, "no data: there is nothing to learn. it has no pairs"),
        ([asked("a", "a"), asked("", "b")], 8, "learn. 1 pair: both answers are the same; 1 pair: an answer"),
        ([asked("a", "b")] * 2, 2, "nothing to learn. 2 pairs: the prompt fills the context of 2 tokens"),
    ],
)
def test_nothing_to_learn_is_told(given: list[Preference], context: int, message: str):
    tokenizer, template = plain()
    with pytest.raises(DataError, match=message) as found:
        pair_rows(tokenizer, template, given, context=context, source="no data")
    assert ("a longer --context: 4 tokens would do" in found.value.fix) == (context == 2)


def test_a_template_without_an_end_is_remarked():
    source = "{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}"
    found = pair_rows(letters(), ChatTemplate(source), [asked("a", "b")], context=20)
    assert found.remark == ENDLESS and found.words().endswith(ENDLESS)


def test_errors_name_the_pair():
    """A template without a place for a system message would lose what it says."""
    source = "{% for m in messages if m.role != 'system' %}{{ m.content + eos_token }}{% endfor %}"
    lost = Preference(({"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}), "a", "b", where="line 7")
    with pytest.raises(DataError, match="line 7: message 0 .system. is not written as it is"):
        pair_rows(letters(), ChatTemplate(source, eos="<|endoftext|>"), [lost], context=50)


# --- of every style ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_only_the_last_answer_is_learnt_and_the_prompt_is_what_a_model_is_asked_with(style: str):
    """Earlier answers of a dialogue, even where its data mark them, are part of the prompt."""
    taught = teach(letters(), style)
    given = asked("Good", "So so", "Hi", "Yo", "How?")
    marked = tuple({**message, "learn": message["role"] == "assistant"} for message in given.messages)
    found = pair_rows(taught.tokenizer, taught.template, [Preference(marked, "Good", "So so")], context=900)
    [pair] = found.rows
    prompt = prompt_ids(taught.tokenizer, taught.template, given.messages)
    end = taught.tokenizer.decode(stop_ids(taught.tokenizer, taught.template))
    for row, answer in zip(both(pair), ("Good", "So so"), strict=True):
        assert row.ids[: len(prompt)] == prompt and not any(row.learn[: len(prompt)])
        assert learnt(taught.tokenizer, row) == answer + end
        assert row.learn.index(True) == len(prompt)
    assert "Yo" in taught.tokenizer.decode(prompt)


WORDS = st.text(alphabet="ab <|>/\n", min_size=1, max_size=8)


@settings(max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=5), WORDS, WORDS, st.sampled_from(["phi3", "chatml", "llama3"]))
def test_whatever_is_said_both_rows_begin_alike(turns: list[str], chosen: str, rejected: str, style: str):
    said = [text.strip() or "x" for text in turns[: len(turns) - (len(turns) + 1) % 2]]  # ends with the user
    taught = teach(letters(), style)
    given = asked(chosen, rejected, *said)
    if not chosen.strip() or not rejected.strip() or chosen.strip() == rejected.strip():
        with pytest.raises(DataError):
            pair_rows(taught.tokenizer, taught.template, [given], context=900)
        return
    [pair] = pair_rows(taught.tokenizer, taught.template, [given], context=900).rows
    prompt = prompt_ids(taught.tokenizer, taught.template, given.messages)
    ends = stop_ids(taught.tokenizer, taught.template)
    for row, answer in zip(both(pair), (chosen, rejected), strict=True):
        count = len(taught.tokenizer.encode(answer)) + len(ends[:1])
        first = row.learn.index(True)
        assert row.ids[: len(prompt)] == prompt and first == len(prompt)
        assert count - (len(answer) - len(answer.strip())) <= sum(row.learn) <= count
        assert row.learn[first : first + sum(row.learn)] == [True] * sum(row.learn)  # in one piece
        assert row.ids[first + sum(row.learn) - 1] in ends


def test_the_books_pairs_come_to_rows(data_dir: Path, gpt2: tokens.Tokenizer, monkeypatch: pytest.MonkeyPatch):
    """Of 300 pairs those that say the same twice are left out; all others are learnt from, and nothing is cut."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    taught, rows = teach(gpt2, "alpaca"), read("instruction-preference")[:300]
    equal = sum(row.chosen.strip() == row.rejected.strip() for row in rows)
    found = pair_rows(taught.tokenizer, taught.template, rows, context=512)
    assert found.dropped == ({EQUAL: equal} if equal else {}) and len(found.rows) == 300 - equal and found.cut == 0
    first, end = rows[found.places[0]], "<|endoftext|>"
    assert learnt(taught.tokenizer, found.rows[0].chosen) == first.chosen + end
    assert learnt(taught.tokenizer, found.rows[0].rejected) == first.rejected + end
