"""`groundup lesson`: the list, a run, a copy; what goes where; bad names and folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from groundup import cli
from groundup.lessons.ladder import LADDER

pytestmark = pytest.mark.filterwarnings("default:__array:DeprecationWarning")  # of matplotlib, about tensors


def test_the_list_has_every_rung(capsys: pytest.CaptureFixture):
    assert cli.main(["lesson"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("  ")] == [rung.name for rung in LADDER]
    assert any("(10 min)" in line for line in lines)


def test_a_rung_prints_its_figures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["lesson", "averaging", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("(reproduced)") == 4
    assert (tmp_path / "averaging.png").read_bytes().startswith(b"\x89PNG")
    assert out.rstrip().endswith("averaging.py")


def test_json_is_one_object_and_the_lesson_talks_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["lesson", "averaging", "--out", str(tmp_path), "--json"]) == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert {one["verdict"] for one in result["figures"]} == {"reproduced"} and "reproduced" in told.err


@pytest.mark.slow
def test_a_copy_runs_by_itself_and_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["lesson", "averaging", "--copy-to", str(tmp_path / "new")]) == 0
    copy = tmp_path / "new" / "averaging.py"
    assert copy.read_bytes() == LADDER[[rung.name for rung in LADDER].index("averaging")].path.read_bytes()
    done = subprocess.run([sys.executable, str(copy)], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0 and "(reproduced)" in done.stdout and (tmp_path / "averaging.png").exists()
    copy.write_text("mine", encoding="utf-8")
    assert cli.main(["lesson", "averaging", "--copy-to", str(tmp_path / "new")]) == 2
    assert copy.read_text(encoding="utf-8") == "mine"
    assert "exists" in capsys.readouterr().err


def test_folders_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["lesson", "averaging", "--out", str(tmp_path / "file")]) == 2
    assert "cannot draw into" in capsys.readouterr().err
    assert cli.main(["lesson", "--copy-to", str(tmp_path)]) == 2
    assert "without a lesson" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "hint"), [("averging", "averaging"), ("0", "1 to"), ("400", "1 to"), ("²", "²")])
def test_an_unknown_rung(word: str, hint: str, capsys: pytest.CaptureFixture):
    assert cli.main(["lesson", word]) == 2
    said = capsys.readouterr().err
    assert f"'{word}'" in said and hint in said
