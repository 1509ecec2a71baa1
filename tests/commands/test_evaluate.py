"""`groundup evaluate`: from text on disk to loss, perplexity and bits per byte."""

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands.evaluate import run
from groundup.evaluate import each_token_once, evaluate, harness
from groundup.evaluate.harness import TaskScore
from groundup.generate import generate_text
from groundup.model import BigramConfig, ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
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


# tasks


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Four items with two, two, three and four choices; the right one is never the first."""
    rows = [
        {"context": "Ein Fuchs, zwei", "choices": ["xxx", "Füchse, drei"], "label": 1},
        {"context": "drei", "choices": ["Füchse", "Hühner."], "label": 1},
        {"context": "zwei", "choices": ["a", "b", "Füchse"], "label": 2},
        {"context": "Ein", "choices": ["a", "b", "c", "Fuchs"], "label": "3"},
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def fluent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bigram that has counted TEXT."""
    path = tmp_path_factory.mktemp("models") / "fluent"
    tokenizer = tokens.train("bpe", [TEXT], vocabulary=270)
    model = build(BigramConfig(vocabulary=270, context=32))
    counts = np.full((270, 270), 0.01)
    ids = tokenizer.encode(TEXT)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    model.table.weight.data = torch.tensor(np.log(counts), dtype=torch.float32)
    folder.save_model(path, model, tokenizer, card={})
    return path


def test_choices_of_a_model_that_knows_the_text(
    fluent_folder: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "items.jsonl"
    words = ["evaluate", "--threads", "1", str(fluent_folder), "--task", "choices", "--data", str(questions)]
    assert cli.main([*words, "--out", str(out), "--dtype", "fp32"]) == 0
    said = capsys.readouterr().out
    assert "items          4 (plain: the context as it is)" in said and "chance         0.3958" in said
    assert f"item by item   {out}" in said
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["right"] for row in rows] == [1, 1, 2, 3] and [len(row["log_p"]) for row in rows] == [2, 2, 3, 4]
    by_character = sum(row["by_character"] == row["right"] for row in rows) / 4
    assert by_character == 1.0 and "acc_norm       1.0000 +- 0.0000" in said
    assert cli.main([*words, "--json", "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["marks"]["items"] == 2 and found["format"] == "plain" and found["out"] is None


def test_a_model_without_a_clue_is_at_the_mercy_of_lengths(even_folder: Path, questions: Path):
    """Every token costs ln 260: the choice of fewest tokens is the likeliest, the first of those."""
    result = run(Evaluate(threads=1, model=str(even_folder), task="choices", data=[str(questions)], dtype="fp32"))
    tokenizer = tokens.load(even_folder)
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    right = 0
    for row in rows:
        sizes = [len(tokenizer.encode(f"{row['context']} {choice}")) for choice in row["choices"]]
        right += sizes.index(min(sizes)) == int(row["label"])
    assert result.marks.acc == right / 4


def test_answers_by_kind(fluent_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, out = tmp_path / "asked.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": "Ein", "answer": "Fuchs", "kind": "who"},
        {"prompt": "drei", "answers": ["Hühner", "Hennen"], "kind": "what"},
        {"prompt": "zwei", "answer": "Gänse", "kind": "what"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["evaluate", "--threads", "1", str(fluent_folder), "--task", "answers", "--data", str(path)]
    assert cli.main([*words, "--max-tokens", "5", "--dtype", "fp32", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [kind["kind"] for kind in found["kinds"]] == ["", "what", "who"] and found["chat"] is False
    assert found["unfinished"] == found["kinds"][0]["unfinished"] and found["cut"] == 0
    assert found["kinds"][0]["questions"] == 3 and found["kinds"][1]["contained"] <= 0.5
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    expected = [generate_text(*_open(fluent_folder), row["prompt"], max_tokens=5, temperature=0) for row in rows]
    assert [row["answer"] for row in graded] == expected and graded[1]["right"] == ["Hühner", "Hennen"]
    assert cli.main([*words, "--limit", "1", "--dtype", "fp32"]) == 0
    assert "questions      1, asked by continuing the question (no chat template)" in capsys.readouterr().out


def test_answers_that_had_no_room_are_told(fluent_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The context is 32: of two prompts one is longer by far; two tokens are no end of a line."""
    path, out = tmp_path / "asked.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": "Ein Fuchs, zwei " * 20 + "Ein", "answer": "Fuchs"}, {"prompt": "Ein", "answer": "Fuchs"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["evaluate", "--threads", "1", str(fluent_folder), "--task", "answers", "--data", str(path)]
    assert cli.main([*words, "--max-tokens", "2", "--dtype", "fp32", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "cut            1 questions with answers outgrew the context" in said
    assert "unfinished     2 answers reached the longest length (--max-tokens)" in said
    graded = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["cut"], row["unfinished"]) for row in graded] == [(True, True), (False, True)]


def _open(path: Path) -> tuple:
    loaded = folder.load(path)
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "classes"
    tokenizer = tokens.train("bpe", [TEXT], vocabulary=260)
    trunk = build(ModelConfig(family="llama", vocabulary=260, context=16, width=16, layers=1, heads=2), seed=1)
    model = Classifier(trunk, HeadConfig(labels=("bird", "fox")), seed=3)
    folder.save_model(path, model, tokenizer, card={})
    return path


def test_labels_are_those_of_the_classifier_itself(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, out = tmp_path / "labels.csv", tmp_path / "out.jsonl"
    texts = ["drei Hühner", "Ein Fuchs", "zwei Füchse, drei Hühner. " * 5, "Ein", "Huhn"]
    truth = ["bird", "fox", "bird", "fox", "bird"]
    lines = ["body,kind", *(f'"{text}",{label}' for text, label in zip(texts, truth, strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["evaluate", "--threads", "1", str(classifier_folder), "--task", "labels", "--data", str(path)]
    words += ["--field", "body", "--label-field", "kind", "--dtype", "fp32", "--batch", "2"]
    assert cli.main([*words, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    loaded, right = folder.load(classifier_folder, classifier=True), 0
    for text, label, line in zip(texts, truth, out.read_text(encoding="utf-8").splitlines(), strict=True):
        ids = loaded.tokenizer.encode(text)[:16]
        with torch.no_grad():
            chances = loaded.model(torch.tensor([ids]), lengths=torch.tensor([len(ids)]))[0].softmax(-1)
        row = json.loads(line)
        assert row["truth"] == label and row["probabilities"]["bird"] == pytest.approx(float(chances[0]), abs=1e-5)
        right += row["label"] == label
    assert found["marks"]["accuracy"] == right / 5 and found["cut"] == 1 and found["marks"]["rows"] == 5
    assert cli.main(words) == 0
    assert "1 rows are longer than what the classifier reads" in capsys.readouterr().out


def test_a_classifier_of_pairs_gets_its_pairs(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """What it says of two texts is not what it says of one; without the second it is refused, by flags known here."""
    loaded = folder.load(classifier_folder, classifier=True)
    card = {"settings": {"pair_field": "answer"}}
    folder.save_model(tmp_path / "pairs", loaded.model, loaded.tokenizer, card=card)
    path, out = tmp_path / "pairs.csv", tmp_path / "out.jsonl"
    path.write_text("body,second,label\nEin,Fuchs,fox\nHuhn,drei,bird\n", encoding="utf-8")
    words = ["evaluate", "--threads", "1", str(tmp_path / "pairs"), "--task", "labels", "--data", str(path)]
    words += ["--field", "body", "--out", str(out)]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "taught with pairs" in said and "-> name the column of the second text: --pair-field" in said
    assert cli.main([*words, "--pair-field", "second"]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["text"], row["pair"], row["truth"]) for row in rows] == [
        ("Ein", "Fuchs", "fox"),
        ("Huhn", "drei", "bird"),
    ]


def test_advice_names_the_flags_of_this_command(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "labels.csv"
    path.write_text("texts,label\nEin Fuchs,fox\n", encoding="utf-8")
    words = ["evaluate", "--threads", "1", str(classifier_folder), "--task", "labels", "--data", str(path)]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "--field" in said and "--text-field" not in said


def test_an_unknown_label_is_named(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "labels.csv"
    path.write_text("text,label\nEin Fuchs,foks\n", encoding="utf-8")
    words = ["evaluate", "--threads", "1", str(classifier_folder), "--task", "labels", "--data", str(path)]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "has the label 'foks', which this classifier was not taught" in said and "did you mean 'fox'?" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL", "--task", "choices"], "--task choices takes one file, not 0"),
        (["MODEL", "--task", "choices", "--data", "ITEMS", "ITEMS"], "--task choices takes one file, not 2"),
        (["MODEL", "--task", "choices", "--data", "no.jsonl"], "no such file: no.jsonl"),
        (["MODEL", "--task", "choices", "--data", "ITEMS", "--stride", "3"], "--stride means nothing for --task"),
        (["MODEL", "--task", "choices", "--data", "ITEMS", "--out", "no/such/x"], "there is no folder no/such"),
        (["MODEL", "--data", "TEXT", "--limit", "3"], "--limit means nothing for --task text"),
        (["MODEL", "--task", "answers", "--data", "ITEMS"], "has no 'answer'"),
        (["MODEL", "--task", "labels", "--data", "ROWS"], "no classifier"),
        (["CLASSES", "--task", "choices", "--data", "ITEMS"], "is a classifier (bird, fox)"),
        (["CLASSES", "--data", "TEXT"], "is a classifier (bird, fox)"),
        (["MODEL", "--lm-eval", "arc_easy", "--data", "TEXT"], "--lm-eval brings its own questions, and --data"),
        (["MODEL", "--data", "TEXT", "--pair-field", "b"], "--pair-field means nothing for --task text"),
        (["CLASSES", "--task", "labels", "--data", "ROWS", "--limit", "1"], "--limit means nothing for --task labels"),
        (["MODEL", "--lm-eval", "arc_easy", "--out", "x"], "--out means nothing for --lm-eval"),
        (["MODEL", "--task", "choices", "--data", "ITEMS", "--field", "x"], "--field means nothing for --task choices"),
        (["MODEL", "--lm-eval", "arc_easy", "--field", "x"], "--field means nothing for --lm-eval"),
        (["MODEL", "--task", "answers", "--data", "ITEMS", "--batch", "1"], "--batch means nothing for --task answers"),
        (["CLASSES", "--task", "labels", "--data", "ROWS", "--label-field", ""], "--label-field is empty"),
        (["CLASSES", "--task", "labels", "--data", "ROWS", "--field", ""], "no column ''"),
    ],
)
def test_mistakes_with_tasks_are_told(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    (tmp_path / "rows.csv").write_text("text,label\na,bird\nb,fox\n", encoding="utf-8")
    places = {"MODEL": "model_folder", "CLASSES": "classifier_folder", "ITEMS": "questions", "TEXT": "text"}
    found = [
        str(request.getfixturevalue(places[word]))
        if word in places
        else str(tmp_path / "rows.csv")
        if word == "ROWS"
        else word
        for word in words
    ]
    assert cli.main(["evaluate", "--threads", "1", *found]) == 2
    seen = capsys.readouterr()
    assert message in seen.err and "  -> " in seen.err and seen.out == ""


def test_lm_eval_that_is_not_installed(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["evaluate", "--threads", "1", str(model_folder), "--lm-eval", "arc_easy"]) == 2
    assert 'pip install "groundup[eval]"' in capsys.readouterr().err


def test_figures_of_lm_eval_are_shown(
    model_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    scores = [TaskScore("arc_easy", "acc", 0.25, 0.05, 76), TaskScore("arc_easy", "acc_norm", 0.5, None, 76)]
    monkeypatch.setattr(harness, "available", lambda: None)
    lm = SimpleNamespace(cut=3, unfinished=0)
    monkeypatch.setattr(harness, "adapter", lambda *args, **more: lm)
    monkeypatch.setattr(harness, "run", lambda asked, tasks, limit: scores if (asked, limit) == (lm, 76) else [])
    words = ["evaluate", "--threads", "1", str(model_folder), "--lm-eval", "arc_easy", "--limit", "76"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "arc_easy  acc       0.2500 +- 0.0500  (76 items)"
    assert said[1] == "arc_easy  acc_norm  0.5000  (76 items)"
    assert said[2] == "cut   3 requests were longer than the context and lost their beginning"
    assert not any("unfinished" in line for line in said)
