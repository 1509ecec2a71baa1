"""Votes of a person: blind, in the order of the seed, on the disk at once, never asked for twice."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands import compare_votes as votes
from groundup.commands.compare_votes import Ballot, ballots, read, shares, vote
from groundup.errors import SettingsError

PROMPTS = [f"question {number}?" for number in range(6)]
FIRST = [f"plain {number}" for number in range(6)]
OTHER = [f"good {number}" for number in range(5)] + [FIRST[5]]  # to the last one both say the same


@pytest.fixture
def order() -> list[Ballot]:
    return ballots(PROMPTS, [FIRST, OTHER], seed=3)


def typed(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], str]) -> None:
    """A terminal; ^C and ^D are those keys."""

    def line(prompt: str = "") -> str:
        found = answer()
        if found == "^C":
            raise KeyboardInterrupt
        if found == "^D":
            raise EOFError
        return found

    monkeypatch.setattr("builtins.input", line)


def lines(*words: str) -> Callable[[], str]:
    waiting = iter(words)
    return lambda: next(waiting)


class Eyes:
    """What stands on the screen: a person who reads it and says which of both is good."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.seen = capsys, list[str]()

    def pick(self) -> str:
        screen = self.capsys.readouterr().err.rpartition("\n---")[2]
        self.seen.append(screen)
        return "1" if screen.index("good") < screen.index("plain") else "2"


def test_a_vote_counts_for_what_was_shown(order: list[Ballot], tmp_path: Path, monkeypatch, capsys):
    """Whichever side the good answers stand on, whoever picks them has voted for the other model every time."""
    eyes = Eyes(capsys)
    typed(monkeypatch, eyes.pick)
    assert vote(order, tmp_path / "votes.jsonl") == 5
    assert shares(order, read(tmp_path / "votes.jsonl"), size=(1, 6)) == [[1.0, 1.0, 1.0, 1.0, 1.0, 0.5]]
    assert len(eyes.seen) == 5 and "plain 5" not in "".join(eyes.seen)  # nobody is asked of equal answers
    kept = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
    assert {one["shown_first"] for one in kept} == {1, 2}  # both sides came first
    assert {one["choice"] for one in kept} == {"1", "2"}
    assert all((one["choice"] == "1") == (one["shown_first"] == 2) for one in kept)


def test_the_order_is_random_and_that_of_the_seed():
    many = [f"question {number}?" for number in range(40)]
    one, two = [f"a {number}" for number in range(40)], [f"b {number}" for number in range(40)]
    found = ballots(many, [one, two], seed=3)
    assert found == ballots(many, [one, two], seed=3)
    numbers = [ballot.number for ballot in found]
    assert sorted(numbers) == list(range(40)) != numbers
    assert numbers != [ballot.number for ballot in ballots(many, [one, two], seed=4)]
    assert 10 < sum(ballot.turned for ballot in found) < 30


def test_three_models_are_set_against_the_first_one_each(tmp_path: Path, monkeypatch):
    order = ballots(["a?", "b?"], [["x", "x"], ["y", "y"], ["z", "x"]], seed=1)
    assert sorted((one.place, one.number, one.level) for one in order) == [
        (1, 0, False), (1, 1, False), (2, 0, False), (2, 1, True),
    ]  # fmt: skip
    wanted = {ballot.key: 1.0 if ballot.place == 1 else 0.0 for ballot in order if not ballot.level}
    assert shares(order, wanted, size=(2, 2)) == [[1.0, 1.0], [0.0, 0.5]]


def test_every_vote_is_on_the_disk_before_the_next_question(order: list[Ballot], tmp_path: Path, monkeypatch):
    path, counts, synced = tmp_path / "votes.jsonl", list[int](), list[int]()
    real = os.fsync
    monkeypatch.setattr(votes.os, "fsync", lambda file: (synced.append(1), real(file)))

    def answer() -> str:
        counts.append(len(path.read_bytes().splitlines()) if path.exists() else 0)
        return "1"

    typed(monkeypatch, answer)
    vote(order, path)
    assert counts == [0, 1, 2, 3, 4] and len(synced) == 5


@pytest.mark.parametrize("leave", ["q", "Q ", "^C", "^D"])
def test_whoever_leaves_goes_on_there_and_is_asked_nothing_twice(
    order: list[Ballot], tmp_path: Path, monkeypatch, capsys, leave: str
):
    path = tmp_path / "votes.jsonl"
    typed(monkeypatch, lines("1", "s", leave))
    assert vote(order, path) == 2
    assert "2 votes cast now; 3 pairs are left" in capsys.readouterr().err
    typed(monkeypatch, lines("t", "2", "2"))
    assert vote(order, path) == 3
    told = capsys.readouterr().err
    assert "3 pairs of answers to compare, 2 decided before, 1 equal" in told and "--- 3 of 5 ---" in told
    typed(monkeypatch, lines())  # nothing is asked: there is nothing to answer with
    assert vote(order, path) == 0 and "nothing is left" in capsys.readouterr().err
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    asked = [ballot for ballot in order if not ballot.level]
    assert [one["key"] for one in kept] == [ballot.key for ballot in asked]
    assert [one["choice"] for one in kept] == ["1", "s", "t", "2", "2"]
    assert read(path)[asked[1].key] is None  # skipped: no verdict


def test_what_is_no_choice_is_asked_again(order: list[Ballot], tmp_path: Path, monkeypatch, capsys):
    typed(monkeypatch, lines("", "3", "yes", " T ", "q"))
    assert vote(order, tmp_path / "votes.jsonl") == 1
    assert capsys.readouterr().err.count(votes.HELP) == 4  # once at first, and for each of the three
    assert [*read(tmp_path / "votes.jsonl").values()] == [0.5]


def test_equal_answers_count_as_far_as_the_voting_has_come():
    """Half of all prompts are level: whoever leaves early has not decided all of those and few of the others."""
    many = [f"question {number}?" for number in range(40)]
    one = [f"a {number}" for number in range(40)]
    two = [f"b {number}" if number % 2 else f"a {number}" for number in range(40)]
    order = ballots(many, [one, two], seed=3)
    asked = [place for place, ballot in enumerate(order) if not ballot.level]
    reached = asked[5]
    found = shares(order, {order[place].key: 1.0 for place in asked[:6]}, size=(1, 40))[0]
    assert sum(share is not None for share in found) == reached + 1
    assert sum(share == 0.5 for share in found) == reached + 1 - 6
    assert shares(order, {}, size=(1, 40)) == [[None] * 40]
    whole = shares(order, {order[place].key: 0.0 for place in asked}, size=(1, 40))[0]
    assert whole.count(0.5) == 20 and whole.count(0.0) == 20


def test_a_vote_counts_for_no_other_answers(order: list[Ballot], tmp_path: Path, monkeypatch):
    path = tmp_path / "votes.jsonl"
    typed(monkeypatch, lines(*"11111"))
    vote(order, path)
    changed = ballots(PROMPTS, [FIRST, ["better", *OTHER[1:]]], seed=3)
    found = shares(changed, read(path), size=(1, 6))[0]
    assert found[0] is None and None not in found[1:5]


@pytest.mark.parametrize("half", [b'{"key": "12", "sha', b"[]\n", b'{"key": "x", "share": 3}\n', b'{"share": 1.0}\n'])
def test_a_line_cut_short_is_no_vote_and_swallows_none(order: list[Ballot], tmp_path: Path, monkeypatch, half: bytes):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(half)
    assert read(path) == {}
    typed(monkeypatch, lines(*"11111"))
    assert vote(order, path) == 5 and len(read(path)) == 5


def test_an_answer_cannot_take_over_the_terminal(tmp_path: Path, monkeypatch, capsys):
    order = ballots(["who\x1b[2J?"], [["\x1b]0;title\x07one\n--- 7 of 9 ---\nanswer 2:"], [" "]], seed=1)
    typed(monkeypatch, lines("q"))
    vote(order, tmp_path / "votes.jsonl")
    told = capsys.readouterr().err
    assert "\x1b" not in told and "\x07" not in told and "(nothing)" in told
    assert [line for line in told.splitlines() if line.startswith("---")] == ["--- 1 of 1 ---"]
    assert [line for line in told.splitlines() if line.startswith("answer")] == ["answer 1:", "answer 2:"]


def test_half_a_surrogate_pair_ends_no_voting(tmp_path: Path, monkeypatch):
    order = ballots(["who \ud800?"], [["one"], ["two"]], seed=1)
    typed(monkeypatch, lines("1"))
    assert vote(order, tmp_path / "votes.jsonl") == 1


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    with pytest.raises(SettingsError, match="standard input is no terminal\n.*--reward, --judge"):
        votes.check_terminal()
