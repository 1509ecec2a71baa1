"""The command as a person meets it: figures, exit status, and a message for every bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.commands import prepare as command
from groundup.errors import SettingsError, TokenizerError
from groundup.settings import Prepare
from groundup.tokens.shards import Shards


def groundup(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real thing; `environment` is added to ours."""
    source = str(Path(command.__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "groundup", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source, **environment},
        encoding="utf-8",
    )


def test_its_figures_are_those_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "to be, or not to be: that is the question. " * 50
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    asked = Prepare.create(data=[str(tmp_path / "a.txt")], tokenizer="chars", out=tmp_path / "out", validation=0.2)
    result = command.run(asked)
    train, valid = (Shards.open(tmp_path / "out" / f"{name}.tokens") for name in ("train", "valid"))
    assert (
        (result.train_tokens, result.valid_tokens) == (train.count, valid.count) == (1720, 430)
    )  # of 2,150 characters
    assert (result.bytes, result.documents, result.bytes_per_token) == (len(text), 1, 1.0)
    assert (result.vocabulary, result.split) == (len(set(text)), "fraction")
    assert result.megabytes_per_second > 0 and command.run(asked).megabytes_per_second == 0
    command.show(result)
    shown = " ".join(capsys.readouterr().out.split())
    assert "1,720 tokens" in shown and "430 tokens" in shown and "1 document," in shown


def test_it_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no folder for the shards\n.*--out"):
        command.run(Prepare.create(data=[str(tmp_path)]))


def test_from_the_shell(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "Grüße"}\n{"body": "zurück"}\n', encoding="utf-8")
    words = (
        "prepare",
        "--data",
        str(tmp_path / "a.jsonl"),
        "--field",
        "body",
        "--out",
        str(tmp_path / "out"),
        "--json",
    )
    done = groundup(*words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["documents"], result["bytes"]) == (2, 14)
    assert "encoding" in done.stderr and "MB/s" in done.stderr


def test_bad_input_from_the_shell(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n{"body"', encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    for name, message in {
        "a.jsonl": "a.jsonl line 2 is not valid JSON",
        "latin.txt": "latin.txt is not UTF-8: byte 0xFC at offset 2",
    }.items():
        words = ("prepare", "--data", str(tmp_path / name), "--field", "body", "--out", str(tmp_path / "out"))
        done = groundup(*words)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_the_tokenizer_may_be_that_of_a_model_from_elsewhere(tmp_path: Path, data_dir: Path) -> None:
    model = data_dir / "stories260k" / "stories260K.bin"
    if not model.is_file():
        pytest.skip("the sample data lack stories260k: it is huggingface.co/karpathy/tinyllamas")
    (tmp_path / "a.txt").write_text("Once upon a time there was a fox. " * 50, encoding="utf-8")
    wishes = {"data": [str(tmp_path / "a.txt")], "tokenizer": str(model), "out": tmp_path / "out"}
    result = command.run(Prepare.create(**wishes))
    assert result.vocabulary == 512 and result.train_tokens > 0
    assert command.run(Prepare.create(**wishes)).megabytes_per_second == 0, "done before"
    with pytest.raises(TokenizerError, match="--vocabulary 600 does not fit"):
        command.run(Prepare.create(**wishes | {"out": tmp_path / "other", "vocabulary": 600}))
    with pytest.raises(TokenizerError, match="'bpee' is neither a tokenizer nor a path"):
        command.run(Prepare.create(**wishes | {"out": tmp_path / "other", "tokenizer": "bpee"}))
