"""Marks of a comparison that is asked again: what is kept, what counts for other answers, and what is said of it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.commands import compare, compare_distances, compare_marks, compare_page
from groundup.commands.compare_answers import ABOUT, Asked, Board, Contender, Written, check_count, claim, fingerprint
from groundup.errors import SettingsError
from groundup.evaluate.answers import asked
from groundup.evaluate.compare import Column, Divergence, scored
from groundup.evaluate.judge.reliability import Check
from groundup.settings import Compare
from groundup.text.conversations import Conversation

CHECK = Check(area=0.9, low=0.8, high=0.95, good=10, bad=10, unusable=1)


def made(out: Path, *, ids: int = 2, stored: torch.dtype = torch.float32) -> Board:
    """Two models that answer two prompts with `ids` tokens and with one more."""
    rows = [Conversation(({"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "x"})) for n in (1, 2)]
    both = [Contender(name, name, name, "words", 10, 20, stored) for name in ("first", "second")]
    answers = [[Written("x", [1] * size, [3], True)] * 2 for size in (ids, ids + 1)]
    return Board(Asked(rows, [asked(row) for row in rows], 0), both, answers, out)


def wish(**changes: Any) -> Compare:
    return Compare(models=["first", "second"], data=["one.json", "two.json"], threads=1, device="cpu", **changes)


def finish(board: Board, columns: list[Column], **changes: Any) -> compare.Result:
    return compare._finish(wish(**changes), board, columns, [])


def test_a_sum_is_that_of_this_run_and_bears_its_names(tmp_path: Path):
    """Lengths 2 and 3: length:3 gives 2/3 and 1, length:2 gives 1 and 1/2."""
    board = made(tmp_path)
    columns = compare_marks.rewarded(wish(reward=["length:3", "length:2"]), board)
    assert [(one.name, one.kind) for one in columns][2] == ("length:3 + length:2", "sum")
    assert columns[2].scores == [[pytest.approx(5 / 3)] * 2, [1.5] * 2]
    finish(board, columns)
    assert [one.name for one in compare_marks.kept(board)] == ["length:3", "length:2"]
    assert "by the sum of the rewards length:3 + length:2" in (tmp_path / compare_page.NAME).read_text("utf-8")


def test_rewards_are_added_up_as_ppo_adds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """0.1 + 0.2 - 0.3 from the left is 5.6e-17; to the last digit it is 2.8e-17."""
    monkeypatch.setattr(compare_marks, "scores", lambda reward, given: [[reward.parts[0].weight]] * 2)
    columns = compare_marks.rewarded(wish(reward=["0.1*exact", "0.2*exact", "-0.3*exact"]), made(tmp_path))
    assert columns[-1].scores == [[2**-55]] * 2


def test_a_kept_judge_keeps_its_check_and_what_is_said_of_it(tmp_path: Path):
    judge = Column("tiny", "judge", [[1.0, 0.0]], check=CHECK, remarks=["tiny: in 1 of the ties"])
    finish(made(tmp_path), [judge])
    assert compare_marks.kept(made(tmp_path)) == [judge]


def test_marks_of_other_answers_are_not_kept(tmp_path: Path):
    finish(made(tmp_path), [scored("exact", [[0.0, 1.0], [1.0, 1.0]])])
    assert compare_marks.kept(made(tmp_path)) and not compare_marks.kept(made(tmp_path, ids=5))


def test_the_newest_column_stands_last():
    old = [scored("a", [[0.0], [1.0]]), scored("b", [[0.0], [1.0]])]
    new = [scored("a", [[1.0], [0.0]])]
    assert compare_marks.merged(old, new) == [old[1], new[0]]


def test_people_decide_before_a_judge_and_a_judge_before_the_newest_reward(tmp_path: Path):
    exact, other = scored("exact", [[0.0, 0.0], [1.0, 1.0]]), scored("other", [[1.0, 1.0], [0.0, 0.0]])
    judge, people = Column("tiny", "judge", [[1.0, 0.0]]), Column("people", "human", [[0.0, 1.0]])
    for columns, words, kinds in (
        ([exact, other], "by the reward other", ["worse", "worse"]),
        ([judge, exact], "by the judge tiny", ["better", "worse"]),
        ([exact, judge, people], "by the votes of people", ["worse", "better"]),
    ):
        page = compare_page.page(made(tmp_path), columns, [["", "a", "b"]], about="", remarks=[])
        assert f"The star and the choice go {words}." in page
        assert [part.split('"')[0] for part in page.split('class="ask ')[1:]] == kinds


def test_scores_that_differ_in_their_last_digits_spoil_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    result = finish(made(tmp_path), [scored("sum", [[0.3, 0.3], [0.1 + 0.2, 0.1 + 0.2]])])
    assert result.marks[0].wins[0].tied == 2 and result.page.is_file()
    before = (tmp_path / compare_marks.SCORES).read_bytes()
    monkeypatch.setattr(compare_page, "page", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(made(tmp_path), [scored("bad", [[0.0, 1.0], [1.0, 1.0]])])
    assert (tmp_path / compare_marks.SCORES).read_bytes() == before


def test_nothing_was_asked_is_said_only_where_nothing_is_shown(tmp_path: Path):
    words = "nothing was asked"
    assert any(words in one for one in finish(made(tmp_path), []).remarks)
    assert finish(made(tmp_path), [scored("exact", [[0.0, 1.0], [1.0, 1.0]])]).remarks == []


def test_the_table_counts_prompts_without_a_verdict(tmp_path: Path):
    result = finish(made(tmp_path), [Column("tiny", "judge", [[1.0, None]]), Column("other", "judge", [[1.0, 0.5]])])
    rows = [row for row in compare.table(result) if "won, tied, lost" in row[0]]
    assert [row[2] for row in rows] == ["1, 0, 0 (1 without a verdict)", "1, 1, 0"]
    assert "2 prompts of one.json, two.json" in result.about


# distances


@pytest.mark.parametrize("content", ['{"2": {}}', "[]", '{"2": 3}', "null", '{"2": {"own": [1.0], "first": [1.0]}}'])
def test_what_is_no_distance_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str):
    board = made(tmp_path)
    (tmp_path / compare_distances.DISTANCES).write_text(content, encoding="utf-8")
    monkeypatch.setattr(compare_distances, "_log_p", lambda settings, one, answers: [-1.0] * len(answers))
    found = compare_distances.distances(wish(), board.contenders, {1: board.answers[1]}, tmp_path)
    assert found[1] == Divergence(0.0, 0.0, 2)


def test_answers_drawn_anew_get_log_probabilities_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counted = list[str]()

    def log_p(settings: Compare, one: Contender, answers: list[Written]) -> list[float]:
        counted.append(one.name)
        return [-float(len(answer.ids)) for answer in answers]

    monkeypatch.setattr(compare_distances, "_log_p", log_p)
    for ids, times in ((2, 2), (2, 2), (5, 4), (5, 4)):
        board = made(tmp_path, ids=ids)
        compare_distances.distances(wish(), board.contenders, {1: board.answers[1]}, tmp_path)
        assert len(counted) == times
    kept = json.loads((tmp_path / compare_distances.DISTANCES).read_text("utf-8"))
    assert kept["2"] == {"answers": fingerprint([board.answers[1]]), "own": [-6.0] * 2, "first": [-6.0] * 2}


def test_all_that_limits_a_distance_is_said(tmp_path: Path):
    board = dataclasses.replace(made(tmp_path, stored=torch.bfloat16), kl={1: Divergence(1.0, 0.1, 2, left_out=3)})
    long, drawn, own = compare._distance_remarks(wish(), board, 1)
    assert "3 of its answers were left out" in long and "it is that of the shorter ones" in long
    assert "drawn in bf16 and scored in fp32" in drawn and "drawn at temperature 1" in own
    assert len(compare._distance_remarks(wish(dtype="fp32"), board, 1)) == 2


# what is given, and what a kill leaves


def test_models_behind_another_flag_are_told(tmp_path: Path):
    one, two = tmp_path / "a", tmp_path / "b"
    one.mkdir()
    two.mkdir()
    with pytest.raises(SettingsError, match="a, .*b stood behind --reward and were taken as rewards\n.*come first"):
        check_count(Compare(reward=["exact", str(one), str(two)]))
    with pytest.raises(SettingsError, match="b stood behind --data and were taken as prompts"):
        check_count(Compare(models=[str(one)], data=["x.json", str(two)]))
    with pytest.raises(SettingsError, match="none was given\n"):
        check_count(Compare(reward=["exact"]))


def test_a_kill_while_a_folder_is_claimed_leaves_it_usable(tmp_path: Path):
    (tmp_path / f".{ABOUT}.writing").write_text('{"mod', encoding="utf-8")
    claim(tmp_path, {"models": [1]})
    assert json.loads((tmp_path / ABOUT).read_text("utf-8")) == {"models": [1]}
    claim(tmp_path, {"models": [1]})
