"""`groundup reproduce`: rows and counts, what is missing, a lesson that fails; and that a wrong mask shows."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from groundup import cli, figures
from groundup.commands import reproduce
from groundup.lessons import ladder
from groundup.model import gpt
from groundup.settings import Reproduce


def test_rows_of_a_lesson(capsys: pytest.CaptureFixture):
    assert cli.main(["reproduce", "kar.agg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("kar.agg.")]
    assert len(rows) == 4 and {row[-1] for row in rows} == {"reproduced"}
    assert lines[-1] == "    4  reproduced" and re.fullmatch(r"4 figures in \d+ s", lines[-2])


def test_json_has_both_values(capsys: pytest.CaptureFixture):
    assert cli.main(["reproduce", "kar.agg.equal", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (row,) = result["rows"]
    assert (row["printed"], row["obtained"], row["verdict"]) == (True, True, "reproduced")
    assert result["counts"] == {"reproduced": 1}


def test_figures_of_the_last_chapter_come_out_as_printed():
    rows = reproduce.run(Reproduce(figures=["notes.8.3", "notes.8.4", "notes.8.5"])).rows
    assert len(rows) == 3 and {row.verdict for row in rows} == {"reproduced"}


def test_quick_leaves_the_long_lessons_out_and_all_is_all():
    quick, everything = reproduce.chosen(["quick"]), reproduce.chosen(["all"])
    long = {rung.name for rung in ladder.LADDER if rung.minutes}
    assert {one.id for one in everything} == set(figures.load())
    assert {one.id for one in everything} - {one.id for one in quick} == {
        one.id for one in everything if one.lesson in long
    }
    assert any(one.id == "book.5.2.log" for one in everything)
    assert len(reproduce.chosen(["kar.agg", "averaging", "kar.agg.x"])) == 4  # each once


def test_a_lesson_that_stops_makes_its_rows_read_failed_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch):
    real = ladder.run
    monkeypatch.setattr(ladder, "run", lambda name: 1 / 0 if name == "averaging" else real(name))
    result = reproduce.run(Reproduce(figures=["kar.agg", "book.3.3"]))
    assert result.counts["failed"] == 4 and result.counts["reproduced"] == 11
    assert all("division by zero" in row.note for row in result.rows if row.verdict == "failed")


def test_a_figure_that_differs_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(ladder, "run", lambda name: figures.check("kar.agg.equal", False))
    assert cli.main(["reproduce", "kar.agg.equal"]) == 1
    assert "1  differs: neither" in capsys.readouterr().out


def test_a_lesson_that_stops_hides_no_figure_behind_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ladder, "run", lambda name: 1 / 0)
    assert {row.verdict for row in reproduce.run(Reproduce(figures=["openai_weights"])).rows} == {"failed"}


def test_a_lesson_without_figures_is_told_from_none(capsys: pytest.CaptureFixture):
    assert cli.main(["reproduce", "encoder_decoder"]) == 2
    assert "show no figure" in capsys.readouterr().err


def test_an_unknown_id(capsys: pytest.CaptureFixture):
    assert cli.main(["reproduce", "book.3.33"]) == 2
    assert "'book.3.33'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_flipped_causal_mask_is_seen_in_at_least_20_figures(monkeypatch: pytest.MonkeyPatch, data_dir: Path):
    """Every word sees the later ones only, in the library's attention and in the triangles that lessons draw."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))

    lower, upper = torch.Tensor.tril, torch.Tensor.triu

    def backwards(q, k, v, mask=None, *, dropout=0.0, by_torch=False):
        later = upper(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool))
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        return scores.masked_fill(~later, -torch.inf).softmax(dim=-1) @ v

    class First(DataLoader):
        """The first batch of every loader: the mean loss over nine is asked of `test_ladder`, not here."""

        def __iter__(self):
            return islice(super().__iter__(), 1)

    monkeypatch.setattr("torch.utils.data.DataLoader", First)
    lessons = ("causal_mask", "attention_dropout", "many_heads", "averaging", "loss")
    shown = [one.id for one in figures.load().values() if one.lesson in lessons]
    asked = [id for id in shown if not id.endswith(".loader_losses")]
    before = reproduce.run(Reproduce(figures=asked)).counts
    assert "differs" not in before and "failed" not in before
    monkeypatch.setattr(gpt, "attention", backwards)
    for place in (torch, torch.Tensor):
        monkeypatch.setattr(place, "tril", lambda x, diagonal=0: upper(x, -diagonal))
        monkeypatch.setattr(place, "triu", lambda x, diagonal=0: lower(x, -diagonal))
    after = reproduce.run(Reproduce(figures=asked)).counts
    assert after["differs"] >= 20 and "failed" not in after
