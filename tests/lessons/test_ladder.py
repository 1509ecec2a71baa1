"""Every quick rung runs, and every one of its figures has the verdict it should have; long ones name all of theirs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup import figures
from groundup.errors import SettingsError
from groundup.figures import Finding
from groundup.lessons import ladder
from groundup.lessons.ladder import HERE, LADDER, Rung

QUICK = [rung for rung in LADDER if not rung.minutes]
LONG = [rung for rung in LADDER if rung.minutes]
WHERE_HOLDS = {"holds": {"reproduced"}, "stale": {"stale", "reproduced"}, "slip": {"slip", "reproduced"}}


@pytest.fixture
def data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lessons find the sample data."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))


@pytest.mark.slow
@pytest.mark.usefixtures("data")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("rung", QUICK, ids=lambda rung: rung.name)
def test_a_rung_shows_all_its_figures_as_they_are(rung: Rung, findings: dict[str, list[Finding]], climb: Callable):
    """In the run that its own tests look into, where they came first."""
    if rung.name not in findings:
        climb(rung.name)
    found = findings[rung.name]
    wrong = [
        (one.figure.id, one.verdict, one.obtained)
        for one in found
        if one.verdict not in WHERE_HOLDS.get(one.figure.status, {one.figure.status, "reproduced"})
    ]
    assert not wrong
    shown = {one.figure.id for one in found}
    missing = [one.id for one in of(rung.name) if one.status in WHERE_HOLDS and one.id not in shown]
    assert not missing, f"{rung.name} does not show {missing}"


def of(name: str) -> list[figures.Figure]:
    return [figure for figure in figures.load().values() if figure.lesson == name]


def test_every_script_is_on_the_ladder_once():
    names = [rung.name for rung in LADDER]
    assert len(set(names)) == len(names)
    assert {rung.path for rung in LADDER} == {path for path in HERE.glob("*/*.py") if path.stem != "__init__"}


def test_every_figure_has_a_rung():
    names = {rung.name for rung in LADDER}
    homeless = [one.id for one in figures.load().values() if one.lesson not in names]
    assert not homeless


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.name)
def test_a_script_says_what_it_does(rung: Rung):
    """Its first lines: a title, what enters and leaves, what it follows, the library's own part; then cells."""
    text = rung.path.read_text(encoding="utf-8")
    assert rung.title != rung.name and len(rung.title) <= 100
    for word in ("Enters:", "Leaves:", "Follows:", "In the library:"):
        assert word in text.split('"""')[1], f"{rung.path.name} does not say {word}"
    assert "\n# %%\n" in text and "# %% [markdown]\n" in text
    assert 'with picture("' in text, "no picture"


@pytest.mark.parametrize("rung", LONG, ids=lambda rung: rung.name)
def test_a_long_rung_checks_all_its_figures(rung: Rung):
    """They are computed by `groundup reproduce all`, not here."""
    text = rung.path.read_text(encoding="utf-8")
    missing = [one.id for one in of(rung.name) if f'check("{one.id}", ' not in text]
    assert not missing


@pytest.mark.parametrize("ending", ["", "raise KeyError('stop')"])
def test_running_leaves_torch_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str):
    monkeypatch.setattr(ladder, "HERE", tmp_path)
    (tmp_path / "book").mkdir()
    script = f"import torch\ntorch.manual_seed(1)\ntorch.set_num_threads(3)\nfound = 7\n{ending}\n"
    (tmp_path / "book" / "words.py").write_text(script, encoding="utf-8")
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    if ending:
        with pytest.raises(KeyError):
            ladder.run("words")
    else:
        assert ladder.run("words")["found"] == 7
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


def test_an_unknown_rung_is_told_with_the_nearest():
    with pytest.raises(SettingsError, match="attention_score'") as error:
        ladder.find("attention_score")
    assert "attention_scores" in str(error.value)
    with pytest.raises(SettingsError, match="there are 1 to"):
        ladder.find("99")
