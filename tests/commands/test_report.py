"""`groundup report`: the page, the figures as JSON, and clear words for what cannot be."""

import json
import webbrowser
from pathlib import Path

import pytest

from groundup import cli
from groundup.journal import Journal


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs in runs/, one that goes on falling and one that memorises."""
    monkeypatch.chdir(tmp_path)
    for name, last in (("falls", 1.5), ("memorises", 4.0)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "settings.toml").write_text("steps = 30\n", encoding="utf-8")
        journal = Journal(tmp_path / "runs" / name)
        for step in range(1, 31):
            journal.write(step, kind="train", loss=3 - step / 20, tokens=8 * step, seconds=step / 2)
        for step, loss in ((10, 2.5), (20, 2.0), (30, last)):
            journal.write(step, kind="eval", loss=loss, perplexity=9.9)
    return tmp_path / "runs"


def test_one_run(runs: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "runs/memorises"]) == 0
    said = capsys.readouterr().out
    assert "Validation loss rises from step 20 (2.000) to 4.000 at step 30" in said
    assert str(Path("runs/memorises/report.html")) in said and (runs / "memorises" / "report.html").is_file()


def test_json_gives_figures_and_remarks(runs: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "runs/memorises", "runs/falls", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["page"] == "comparison.html" and Path("comparison.html").is_file()
    first, second = result["runs"]
    assert first["figures"]["best_loss"] == 2.0 and first["figures"]["best_step"] == 20
    assert first["remarks"][0]["kind"] == "memorising" and second["figures"]["validation_loss"] == 1.5
    assert "memorising" not in [remark["kind"] for remark in second["remarks"]]


def test_out_and_open(runs: Path, monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    assert cli.main(["report", "runs/falls", "--out", "page.html", "--open"]) == 0
    assert shown == [Path("page.html").resolve().as_uri()] and not (runs / "falls" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no run was given"),
        (["none"], "no folder at none"),
        (["runs"], "runs is no run folder: it has neither settings.toml nor metrics.jsonl"),
        (["runs/falls", "--out", "no/such/folder.html"], "cannot write no"),
        (["runs/falls", "--out", "runs/falls/settings.toml"], "settings.toml exists and is no report"),
    ],
)
def test_what_cannot_be(runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", *words]) == 2
    assert said in capsys.readouterr().err
