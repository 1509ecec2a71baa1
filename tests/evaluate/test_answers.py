"""Answers beside what was expected of them: what counts as right, and what is not counted at all."""

import pytest

from groundup.errors import DataError
from groundup.evaluate.answers import Matches, exact, matched, same
from groundup.text.conversations import Conversation


def talk(*texts: str, kind: str = "") -> Conversation:
    """What user and assistant say in turn."""
    roles = ("user", "assistant")
    return Conversation(tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(texts)), kind=kind)


def test_a_question_without_a_known_answer_is_neither_right_nor_wrong():
    rows = [talk("who?", "Mira"), talk("who?"), talk("who?", "Mira", "why?"), talk("who?", "Mira", "why?", "so")]
    assert exact(["Mira", "", "Mira", "Mira"], rows) == Matches(rows=2, right=1)
    assert exact(["", ""], rows[1:3]) is None
    assert exact([], []) is None


def test_kinds_are_counted_only_where_answers_are_known():
    rows = [talk("who?", "Mira", kind="who"), talk("who?", kind="who"), talk("where?", "here", kind="where")]
    assert exact(["Mira", "x", "there"], rows) == Matches(2, 1, {"who": (1, 1), "where": (1, 0)})


def test_loose_forgives_case_and_punctuation_only():
    rows = [talk("how many?", "Five.")]
    assert exact(["five"], rows) == Matches(1, 0) and exact(["five"], rows, loose=True) == Matches(1, 1)
    assert not same("-5", "5", loose=True) and not same("3.5", "35", loose=True)


def test_nothing_to_compare_is_refused():
    with pytest.raises(DataError, match="0 answers, 0 expected"):
        matched([], [])
    with pytest.raises(DataError, match="1 answers, 2 expected"):
        matched(["a"], ["a", "b"])
