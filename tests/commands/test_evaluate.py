"""`groundup evaluate`: from text on disk to loss, perplexity and bits per byte."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands.evaluate import run
from groundup.evaluate import each_token_once, evaluate
from groundup.model import BigramConfig, ModelConfig, build
from groundup.settings import Evaluate

TEXT = "Ein Fuchs, zwei Füchse, drei Hühner. " * 12


@pytest.fixture(scope="module")
def even_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bigram without a clue over 260 byte-level ids: every token costs ln 260 nats."""
    path = tmp_path_factory.mktemp("models") / "even"
    model = build(BigramConfig(vocabulary=260, context=16))
    model.table.weight.data.zero_()
    folder.save_model(path, model, tokens.train("bpe", [TEXT], vocabulary=260), card={})
    return path


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    config = ModelConfig(
        family="llama", vocabulary=260, context=16, width=16, layers=2, heads=2, init="torch", tie=False
    )
    folder.save_model(path, build(config, seed=1), tokens.train("bpe", [TEXT], vocabulary=260), card={})
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_clueless_model_by_arithmetic(even_folder: Path, text: Path):
    ids = tokens.load(even_folder).encode(TEXT)
    first = len(tokens.load(even_folder).decode_bytes(ids[:1]))
    result = run(Evaluate(threads=1, model=str(even_folder), data=[str(text)], dtype="fp32"))
    assert result.tokens == len(ids) - 1 and result.documents == 1 and result.dtype == "fp32"
    assert result.loss == pytest.approx(math.log(260), rel=1e-6)
    assert result.perplexity == pytest.approx(260, rel=1e-5)
    bits = (len(ids) - 1) * math.log2(260) / (len(TEXT.encode()) - first)
    assert result.bits_per_byte == pytest.approx(bits, rel=1e-6)


def test_windows_are_as_asked(model_folder: Path, text: Path):
    loaded = folder.load(model_folder)
    ids, lengths = np.array(loaded.tokenizer.encode(TEXT)), loaded.tokenizer.byte_lengths()
    for wish in ({}, {"context": 8}, {"stride": 3}, {"context": 10, "stride": 4, "batch": 3}):
        result = run(Evaluate(threads=1, model=str(model_folder), data=[str(text)], dtype="fp32", **wish))
        context = wish.get("context", 16)
        batches = each_token_once(ids, context=context, stride=wish.get("stride"))
        score = evaluate(loaded.model, batches, byte_lengths=lengths)
        assert (result.context, result.stride) == (context, wish.get("stride", context))
        assert result.tokens == score.tokens == len(ids) - 1
        assert result.loss == pytest.approx(score.loss, rel=1e-6)
        assert result.bits_per_byte == pytest.approx(score.bits_per_byte, rel=1e-6)


def test_max_tokens_scores_the_beginning(model_folder: Path, text: Path):
    loaded = folder.load(model_folder)
    result = run(Evaluate(threads=1, model=str(model_folder), data=[str(text)], max_tokens=21, dtype="fp32"))
    score = evaluate(loaded.model, each_token_once(np.array(loaded.tokenizer.encode(TEXT)[:22]), context=16))
    assert result.tokens == 21 and result.loss == pytest.approx(score.loss, rel=1e-6)


def test_documents_are_divided_by_end_of_text(even_folder: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"body": body}) + "\n" for body in ("one", "two", "three")), encoding="utf-8")
    result = run(Evaluate(threads=1, model=str(even_folder), data=[str(rows)], field="body", dtype="fp32"))
    pieces = sum(len(tokens.load(even_folder).encode(body)) for body in ("one", "two", "three"))
    assert result.documents == 3 and result.tokens == pieces + 3 - 1


def test_the_command_line_and_its_page(even_folder: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    words = ["evaluate", "--threads", "1", str(even_folder), "--data", str(text), "--dtype", "fp32"]
    assert cli.main(words) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["loss"] == "5.5607 nats a token" and lines["perplexity"] == "260.000"
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(math.log(260), rel=1e-6)


def test_words_have_no_bits_per_byte(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    tokenizer = tokens.train("words", [TEXT])
    folder.save_model(
        tmp_path / "m", build(BigramConfig(vocabulary=tokenizer.vocabulary, context=8), seed=1), tokenizer, card={}
    )
    assert cli.main(["evaluate", "--threads", "1", str(tmp_path / "m"), "--data", str(text)]) == 0
    assert "no fixed number of bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no model was given"),
        (["MODEL"], "no text was given"),
        (["MODEL", "--data", "no/such.txt"], "no/such.txt"),
        (["no/such/run", "--data", "TEXT"], "there is no file or folder at no/such/run"),
        (["MODEL", "--data", "TEXT", "--context", "17"], "--context 17 is more than the model's context of 16"),
        (["MODEL", "--data", "TEXT", "--stride", "17"], "'stride' cannot be 17 with a context of 16"),
        (["MODEL", "--data", "TEXT", "--max-tokens", "0"], "max"),
    ],
)
def test_mistakes_are_told(
    model_folder: Path, text: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    places = {"MODEL": str(model_folder), "TEXT": str(text)}
    assert cli.main(["evaluate", "--threads", "1", *(places.get(word, word) for word in words)]) == 2
    seen = capsys.readouterr()
    assert message in seen.err and "  -> " in seen.err and seen.out == ""


def test_one_token_of_text_is_too_little(even_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "short.txt").write_text("q", encoding="utf-8")
    assert cli.main(["evaluate", "--threads", "1", str(even_folder), "--data", str(tmp_path / "short.txt")]) == 2
    assert "the text has 1 tokens" in capsys.readouterr().err
