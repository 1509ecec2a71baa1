"""`groundup predict`: the same answers for a text alone, in a file, in a stream; what cannot be used is named."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import torch

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands import predict
from groundup.commands.predict import run
from groundup.errors import CheckpointError, DataError, SettingsError
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.settings import Predict

LETTERS = tokens.train("chars", ["abcdefghijklmnopqrstuvwxyz .,!\n0123456789"])
TEXTS = ["come to the pier", "you won a prize!", "a", "call 0800 now", "see you at home, " * 3]
CPU = {"device": "cpu", "dtype": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "spam"
    config = ModelConfig(family="llama", vocabulary=LETTERS.vocabulary, context=64, width=16, layers=1, heads=2)
    model = Classifier(build(config, seed=1), HeadConfig(("ham", "spam", "other")), seed=2)
    model.score.weight.data.mul_(20)  # or all classes would be equally likely
    card = {"reading": {"context": 20, "join": [0], "fill": None}}
    folder.save_model(path, model, LETTERS, card=card)
    return path


def ask(classifier: Path, **settings: object) -> predict.Result:
    return run(Predict.create(model=str(classifier), **CPU, **settings))


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_a_text_is_read_as_in_training(classifier: Path) -> None:
    loaded = folder.load(classifier, classifier=True)
    for text in TEXTS:
        ids = LETTERS.encode(text)[:20]
        with torch.inference_mode():
            expected = loaded.model(torch.tensor([ids])).double().softmax(dim=1)[0]
        result = ask(classifier, text=text)
        [found] = result.predictions
        assert list(found.probabilities) == ["ham", "spam", "other"] == list(result.labels)
        assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert found.probability == max(found.probabilities.values()) == found.probabilities[found.label]
        assert result.cut == (len(text) > 20)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_lines_are_answered_in_order_whatever_the_batch(classifier: Path, tmp_path: Path, batch: int) -> None:
    path = lines(tmp_path / "texts.txt", [TEXTS[0], "", *TEXTS[1:]])
    result = ask(classifier, file=path, batch=batch)
    assert [found.text for found in result.predictions] == TEXTS
    assert [found.where.rpartition(" ")[2] for found in result.predictions] == ["1", "3", "4", "5", "6"]
    for found in result.predictions:
        [alone] = ask(classifier, text=found.text).predictions
        assert alone.label == found.label and alone.probability == pytest.approx(found.probability, abs=1e-6)
    assert sum(result.counts.values()) == result.texts == 5 and result.cut == 1


def test_a_labelled_file_is_marked(classifier: Path, tmp_path: Path) -> None:
    said = [ask(classifier, text=text).predictions[0].label for text in TEXTS]
    truth = [said[0], said[1], "ham" if said[2] != "ham" else "spam", said[3], said[4]]
    path = tmp_path / "texts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("body", "kind"), *zip(TEXTS, truth, strict=True)])
    result = ask(classifier, file=path, text_field="body", label_field="kind")
    assert result.accuracy == 0.8 and result.marks is not None and result.marks.rows == 5
    assert [found.truth for found in result.predictions] == truth
    assert ask(classifier, file=path, text_field="body").accuracy is None


def test_an_unknown_label_is_named(classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a", "label": "ham"}\n{"text": "b", "label": "span"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2 has the label 'span'.*\n  -> did you mean 'spam'"):
        ask(classifier, file=path, label_field="label")


class Trickle(io.RawIOBase):
    """Standard input that arrives in pieces, and notes how much was answered when each was asked for."""

    def __init__(self, pieces: list[bytes], answered: list[str]) -> None:
        self.pieces, self.answered, self.seen = list(pieces), answered, list[int]()

    def read1(self, size: int) -> bytes:
        self.seen.append(len(self.answered))
        return self.pieces.pop(0) if self.pieces else b""


def test_lines_of_standard_input_are_answered_as_they_come(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[str] = []
    pieces = [b"one\ntw", b"o\r\n\nthree\nf", b"our"]
    source = Trickle(pieces, answered)
    monkeypatch.setattr(sys, "stdin", type("In", (), {"buffer": source})())
    result = run(Predict.create(model=str(classifier), file=Path("-"), **CPU), emit=answered.append)
    assert source.seen == [0, 1, 3, 3]
    assert [line.split("%  ")[1] for line in answered] == ["one\n", "two\n", "three\n", "four\n"]
    assert result.texts == 4 and result.predictions == []


def test_json_lines_go_to_a_file_or_to_standard_output(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = lines(tmp_path / "texts.txt", TEXTS), tmp_path / "answers.jsonl"
    assert ask(classifier, file=path, out=out).predictions == []
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == TEXTS and rows[0].keys() == {
        "text", "label", "probability", "probabilities", "where"
    }  # fmt: skip
    capsys.readouterr()
    ask(classifier, file=path, out=Path("-"))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows


def test_an_error_on_the_way_leaves_an_earlier_file_as_it_was(classifier: Path, tmp_path: Path) -> None:
    path, out = lines(tmp_path / "texts.txt", ["fine", "Ünknown"]), tmp_path / "answers.jsonl"
    out.write_text("earlier", encoding="utf-8")
    with pytest.raises(DataError, match="line 2 cannot be encoded"):
        ask(classifier, file=path, out=out, batch=1)
    assert out.read_text(encoding="utf-8") == "earlier"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["answers.jsonl", "texts.txt"]


def test_pairs_are_joined_as_the_card_says(classifier: Path) -> None:
    one, other = ask(classifier, text="ab", pair="cd"), ask(classifier, text="ab", pair="ce")
    first = LETTERS.decode([0])
    assert one.predictions[0].probability == pytest.approx(
        ask(classifier, text=f"ab{first}cd").predictions[0].probability, abs=1e-6
    )
    for alike in (ask(classifier, text="ab"), other):  # the second text is read, and what it says matters
        assert abs(one.predictions[0].probabilities["ham"] - alike.predictions[0].probabilities["ham"]) > 1e-4


def test_pairs_of_a_table_are_read_as_pairs_of_the_command_line(classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("text,second\nab,cd\n", encoding="utf-8")
    [found] = ask(classifier, file=path, pair_field="second").predictions
    [alone] = ask(classifier, text="ab", pair="cd").predictions
    assert found.pair == "cd" and found.probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_a_classifier_of_pairs_wants_pairs(classifier: Path, tmp_path: Path) -> None:
    loaded = folder.load(classifier, classifier=True)
    folder.save_model(tmp_path / "pairs", loaded.model, LETTERS, card={"settings": {"pair_field": "second"}})
    with pytest.raises(SettingsError, match="taught with pairs"):
        ask(tmp_path / "pairs", text="a")
    with pytest.raises(SettingsError, match="taught with pairs"):
        ask(tmp_path / "pairs", file=lines(tmp_path / "texts.txt", TEXTS))
    with pytest.raises(SettingsError, match="taught with pairs"):
        ask(tmp_path / "pairs", file=Path("-"))
    assert ask(tmp_path / "pairs", text="a", pair="b").texts == 1


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, SettingsError, "no text was given"),
        ({"text": "a", "file": Path("b")}, SettingsError, "both given"),
        ({"text": "  "}, DataError, "the text is empty"),
        ({"text": "a", "label_field": "x"}, SettingsError, "--label-field needs a file"),
        ({"file": Path("a.txt"), "label_field": "x"}, SettingsError, "a.txt has none"),
        ({"file": Path("no.txt")}, DataError, "there is no file no.txt"),
        ({"file": Path("rows.csv"), "pair": "b"}, SettingsError, "--pair is the second text of --text.*rows.csv"),
        ({"file": Path("a.txt"), "pair": "b"}, SettingsError, "--pair is the second text of --text.*a.txt"),
        ({"text": "a", "pair_field": "b"}, SettingsError, "--pair-field names a column, and --text has none"),
        ({"file": Path("a.txt"), "pair_field": "b"}, SettingsError, "--pair-field needs a file with columns, a.txt"),
        ({"file": Path("-"), "pair_field": "b"}, SettingsError, "--pair-field needs a file with columns, -"),
        ({"text": "a", "pair": " "}, DataError, "the second text is empty"),
        ({"text": "a", "pair": ""}, DataError, "the second text is empty"),
    ],
)
def test_what_cannot_be_asked(classifier: Path, settings: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ask(classifier, **settings)


def test_empty_input_and_other_models(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no text to label"):
        ask(classifier, file=lines(tmp_path / "blank.txt", ["", " "]))
    config = ModelConfig(family="llama", vocabulary=LETTERS.vocabulary, context=8, width=8, layers=1, heads=1)
    folder.save_model(tmp_path / "gpt", build(config, seed=1), LETTERS, card={})
    with pytest.raises(CheckpointError, match="no classifier"):
        ask(tmp_path / "gpt", text="a")
    with pytest.raises(SettingsError, match="no model was given"):
        run(Predict.create(text="a"))


def test_the_command_line(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["predict", str(classifier), "--device", "cpu", "--dtype", "fp32", "--threads", "1"]
    assert cli.main([*flags, "--text", TEXTS[1]]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3 and all(line.endswith(" %") for line in shown)
    assert cli.main([*flags, "--text", TEXTS[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictions"][0]["label"] == shown[0].split()[0]
    assert cli.main([*flags, "--file", str(lines(tmp_path / "texts.txt", TEXTS))]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 5 and "5 texts in" in told.err
