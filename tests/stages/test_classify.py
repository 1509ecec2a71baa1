"""The whole road from labels to a judged classifier: split once, chosen by validation, tested once, resumed exactly."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import CheckpointError, DataError, SettingsError
from groundup.journal import Journal
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier
from groundup.settings import Classify
from groundup.stages import classify, examine
from groundup.text import labelled
from groundup.text.labelled import Labelled
from groundup.train import loop
from groundup.train.plan import Preflight

WORDS = "the a boat fish rain wind net pier harbour good bad is was in at on my your old new".split()
SMALL: dict[str, Any] = {
    "batch": 8, "epochs": 4, "lr": 3e-3, "seed": 3, "log_every": 1, "device": "cpu", "dtype": "fp32", "threads": 1,
}  # fmt: skip


def texts(count: int, classes: tuple[str, ...] = ("boat", "rain"), seed: int = 0) -> list[tuple[str, str]]:
    """Texts of common words, with the word that is their class somewhere in them."""
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = classes[len(rows) % len(classes)]
        size = int(torch.randint(5, 12, (), generator=generator))
        picked = [WORDS[int(torch.randint(6, len(WORDS), (), generator=generator))] for _ in range(size)]
        picked[int(torch.randint(size, (), generator=generator))] = label
        rows.setdefault(" ".join(picked), label)
    return list(rows.items())


def as_jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text(lines, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of a few thousand parameters that has learnt nothing."""
    path = tmp_path_factory.mktemp("models") / "base"
    tokenizer = tokens.train("words", [" ".join(WORDS)])
    config = ModelConfig(
        family="llama", vocabulary=tokenizer.vocabulary, context=32, width=16, layers=1, heads=2, init="gpt2"
    )
    folder.save_model(path, build(config, seed=1), tokenizer, card={"license": "mit"})
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return as_jsonl(tmp_path / "data.jsonl", texts(200))


def settings(base: Path, data: Path | str, out: Path, **changes: Any) -> Classify:
    return Classify.create(model=str(base), data=[str(data)], out=out, **(SMALL | changes))


def finished(base: Path, data: Path | str, out: Path, **changes: Any) -> classify.Result:
    result = classify.run(settings(base, data, out, **changes))
    assert isinstance(result, classify.Result)
    return result


def weights(path: Path) -> dict[str, torch.Tensor]:
    return folder.load(path, classifier=True).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_classifier_learns_and_leaves_what_it_promises(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = finished(base, data, out, epochs=10)
    assert result.labels == ("boat", "rain") and result.rows == {"train": 140, "valid": 20, "test": 40}
    assert result.test is not None and result.test["accuracy"] > 0.95 and result.validation_accuracy > 0.95
    assert result.test["model"] == "best" and result.test["rows"] == 40
    assert result.test["baselines"]["majority"] == 0.5
    names = {path.name for path in out.iterdir()}
    assert {"settings.toml", "data", "model", "best", "metrics.jsonl", "test.json", "report.html"} <= names
    loaded = folder.load(out / "best", classifier=True)
    assert isinstance(loaded.model, Classifier) and loaded.model.head_config.labels == ("boat", "rain")
    assert loaded.card["reading"]["context"] == 32 and loaded.card["license"] == "mit"
    assert "Confusion" in (out / "report.html").read_text(encoding="utf-8")
    looks = [record for record in Journal(out).read() if record["kind"] == "eval"]
    assert all({"loss", "accuracy", "train_accuracy", "macro_f1", "ece"} <= record.keys() for record in looks)
    best = min((record for record in looks if record["step"]), key=lambda record: record["loss"])
    assert result.validation_loss == best["loss"] and result.test["step"] == best["step"]
    classify.show(result)


def test_no_text_is_in_two_parts_and_the_test_is_what_test_json_says(base: Path, tmp_path: Path) -> None:
    rows = texts(120)
    data = as_jsonl(tmp_path / "data.jsonl", rows + rows[:40] + [(rows[50][0], "rain"), (rows[50][0], "boat")])
    finished(base, data, tmp_path / "run", epochs=1)
    parts = classify.parts(tmp_path / "run").parts()
    kept = [row.text for part in parts.values() for row in part]
    assert len(kept) == len(set(kept)) == 119 and rows[50][0] not in kept
    notes = json.loads((tmp_path / "run" / "data" / "rows.json").read_text())
    assert notes["read"] == 162 and notes["repeated"] == 40 and notes["contradictory"] == 3
    loaded = folder.load(tmp_path / "run" / "best", classifier=True)
    marks, _ = examine.judged(loaded, parts["test"], classify_machine())
    found = json.loads((tmp_path / "run" / "test.json").read_text())
    assert found["accuracy"] == marks.accuracy and found["confusion"] == [list(row) for row in marks.confusion]


def classify_machine() -> Any:
    from groundup import machine

    return machine.choose(device="cpu", dtype="fp32", threads=1)


class Cut(Exception):
    """The plug is pulled."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{}, {"balance": "weights"}, {"batching": "padded", "pooling": "mean"}, {"train": "lora", "lora_dropout": 0.1},
     {"train": "last-block"}],
)  # fmt: skip
@pytest.mark.parametrize("step", [3, 30])
def test_a_resumed_run_is_the_uninterrupted_one(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, change: dict[str, Any]
) -> None:
    whole = finished(base, data, tmp_path / "whole", save_every="2", dropout=0.1, **change)
    real, calls = loop._gradient, []

    def gradient(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > step:
            raise Cut
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(loop, "_gradient", gradient)
        classify.run(settings(base, data, tmp_path / "cut", save_every="2", dropout=0.1, **change))
    assert not (tmp_path / "cut" / "test.json").exists()
    data.unlink()  # the parts are in the run folder
    torch.manual_seed(999)
    resumed = classify.run(Classify.create(out=tmp_path / "cut", resume=True))
    assert isinstance(resumed, classify.Result)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert same(weights(tmp_path / "whole" / "best"), weights(tmp_path / "cut" / "best"))
    assert resumed.test == whole.test and resumed.validation_loss == whole.validation_loss


def test_the_test_rows_are_read_once(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = finished(base, data, tmp_path / "run", epochs=1)
    content = (tmp_path / "run" / "test.json").read_bytes()

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the test rows were read again")

    monkeypatch.setattr(examine, "judged", never)
    again = classify.run(Classify.create(out=tmp_path / "run", resume=True, epochs=2))
    assert isinstance(again, classify.Result) and again.steps > first.steps
    assert again.test == first.test and (tmp_path / "run" / "test.json").read_bytes() == content
    assert again.test is not None and again.best_step == again.steps > again.test["step"] == first.best_step
    capsys.readouterr()
    for result, told in ((first, False), (again, True)):
        classify.show(result)
        said = f"weights of step {first.steps:,}; best/ is now of step {again.steps:,}"
        assert (said in capsys.readouterr().out) == told
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"weights of step {first.steps:,}; best/ is now of step {again.steps:,}" in page


def test_changed_parts_are_noticed_on_resume(base: Path, data: Path, tmp_path: Path) -> None:
    finished(base, data, tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "data" / "train.jsonl"
    rows = labelled.read_back(path)
    labelled.write(path, [Labelled(rows[0].text, "rain" if rows[0].label == "boat" else "boat"), *rows[1:]])
    with pytest.raises(CheckpointError, match="training data .* changed"):
        classify.run(Classify.create(out=tmp_path / "run", resume=True, epochs=2))


@pytest.mark.parametrize("train", ["head", "last-block", "lora"])
def test_what_does_not_learn_stays_as_it_was(base: Path, data: Path, tmp_path: Path, train: str) -> None:
    finished(base, data, tmp_path / "run", epochs=1, train=train)
    before = folder.load(base).model.state_dict()
    after = {name.removeprefix("trunk."): value for name, value in weights(tmp_path / "run").items()}
    assert torch.equal(before["token_table.weight"], after["token_table.weight"])
    blocks = [name for name in before if name.startswith("blocks.")]
    moved = [name for name in blocks if not torch.equal(before[name], after[name])]
    assert bool(moved) == (train != "head")


@pytest.mark.slow
def test_a_classifier_goes_on_with_the_same_classes_only(base: Path, data: Path, tmp_path: Path) -> None:
    finished(base, data, tmp_path / "one", epochs=1)
    best = tmp_path / "one" / "best"
    finished(best, data, tmp_path / "two", epochs=1, train="head", lr=1e-9)
    assert torch.allclose(weights(best)["score.weight"], weights(tmp_path / "two")["score.weight"], atol=1e-5)
    other = as_jsonl(tmp_path / "other.jsonl", texts(60, ("fish", "boat")))
    with pytest.raises(DataError, match="tells boat, rain apart, the data has boat, fish"):
        classify.run(settings(best, other, tmp_path / "three"))
    with pytest.raises(SettingsError, match="--pooling last"):
        classify.run(settings(best, data, tmp_path / "four", pooling="mean"))


def test_pairs_and_truncation_are_kept_and_told(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = texts(80, ("boat", "rain", "wind"))
    lines = [json.dumps({"one": text, "two": "good bad " * (number % 9), "kind": label}) for number, (text, label)
             in enumerate(rows) if number % 9]  # fmt: skip
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    fields = {"text_field": "one", "pair_field": "two", "label_field": "kind"}
    result = finished(base, path, tmp_path / "run", epochs=1, context=12, **fields)
    assert result.labels == ("boat", "rain", "wind")
    card = folder.load(tmp_path / "run", classifier=True).card
    assert card["reading"]["context"] == 12
    read, told = folder.load(tmp_path / "run", classifier=True).tokenizer, capsys.readouterr().err
    for name, part in classify.parts(tmp_path / "run").parts().items():
        firsts = [len(read.encode(row.text)) for row in part]
        lengths = [first + 1 + len(read.encode(row.pair or "")) for first, row in zip(firsts, part, strict=True)]
        cut, lost = sum(length > 12 for length in lengths), sum(first + 1 >= 12 for first in firsts)
        assert card["cut"][name] == cut > 0 and f"{cut} of {len(part)} {name}" in told
        assert card["pairs_lost"][name] == lost and f"{lost} {name}" in told.split("nothing is left of the second")[1]
    assert sum(card["pairs_lost"].values()) > 0


def test_undersampling_leaves_as_many_of_each(base: Path, tmp_path: Path) -> None:
    rows = [row for number, row in enumerate(texts(200)) if row[1] == "boat" or number % 10 == 1]
    data = as_jsonl(tmp_path / "data.jsonl", rows)
    result = finished(base, data, tmp_path / "run", epochs=1, balance="undersample")
    assert sum(result.rows.values()) == 40
    counts = [sum(row.label == "rain" for row in part) for part in classify.parts(tmp_path / "run").parts().values()]
    assert [2 * count for count in counts] == list(result.rows.values())


def test_a_dry_run_leaves_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    assert isinstance(classify.run(settings(base, data, tmp_path / "run", dry_run=True)), Preflight)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a boat", "x"), ("my net", "x"), ("old pier", "x")], "all 3 rows have the label 'x'"),
        ([("a boat", "x"), ("my net", "y")], "fewer than 3 rows"),
        ([("a boat", "x"), ("my net", "y"), ("old pier", "z")], "3 rows have 3 different labels"),
    ],
)
def test_data_that_cannot_teach_is_refused_and_the_folder_stays_free(
    base: Path, tmp_path: Path, rows: list[tuple[str, str]], message: str
) -> None:
    data = as_jsonl(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError, match=message):
        classify.run(settings(base, data, tmp_path / "run"))
    good = as_jsonl(tmp_path / "good.jsonl", texts(60))
    assert finished(base, good, tmp_path / "run", epochs=1).steps > 0


def test_packed_rows_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--batching packed"):
        classify.run(settings(base, data, tmp_path / "run", batching="packed"))


def test_the_books_recipe_gives_way_to_flags() -> None:
    found = classify.recipe(Classify(protocol="book", model="gpt2", steps=10, batch=4))
    assert (found.steps, found.epochs, found.batch, found.seed) == (10, None, 4, 123)
    assert found.head_bias and found.train == "last-block" and found.data == ["sms-spam"] and found.clip == 0


def test_the_books_recipe_holds_for_a_run_that_is_safe_to_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume from the first call on, as a script does it: new in an empty folder, itself in its own."""
    asked: list[Classify] = []

    class Enough(Exception):
        """What comes behind is not looked at."""

    def launched(settings: Classify, prepare: Any) -> None:
        asked.append(settings)
        raise Enough

    monkeypatch.setattr(classify.tuning, "run", launched)
    given = Classify.create(model="gpt2", out=tmp_path / "run", protocol="book", resume=True, lr=1e-3)
    for _ in range(2):
        with pytest.raises(Enough):
            classify.run(given)
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "settings.toml").write_text("# groundup classify\n", encoding="utf-8")
    assert asked[0] == classify.recipe(given) and asked[0].seed == 123 and asked[0].lr == 1e-3
    assert asked[1] == given


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"balance": "none"}, "--balance none"), ({"validation": 0.2}, "--validation 0.2"),
        ({"test": 0.3, "text_field": "sms"}, "--test 0.3, --text-field sms"), ({"label_field": "y"}, "--label-field y"),
        ({"pair_field": "b"}, "--pair-field b"),
    ],
)  # fmt: skip
def test_what_the_books_protocol_would_ignore_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=f"leaves no room for {named}$|leaves no room for {named}\n"):
        classify.recipe(Classify(protocol="book", model="gpt2", **change))
    classify.recipe(classify.recipe(Classify(protocol="book", model="gpt2")))  # as its settings.toml says it


def test_a_loss_of_zero_is_the_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = [Labelled("a", "x"), Labelled("b", "y")]
    records = [{"kind": "eval", "step": step, "loss": loss, "accuracy": step / 10} for step, loss in
               ((0, 0.9), (4, 0.5), (8, 0.0), (9, None))]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    monkeypatch.setattr(classify, "parts", lambda out: labelled.Split(row, row, row))
    fitted = type("Fitted", (), {"steps": 9, "seconds": 1.0, "tokens_per_second": 1.0})()
    result = classify._result(tmp_path, fitted, None)  # type: ignore[arg-type]
    assert result.validation_loss == 0.0 and result.validation_accuracy == 0.8


@pytest.mark.slow
def test_the_books_protocol_fills_every_row(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    tokenizer = tokens.gpt2()
    config = ModelConfig(family="gpt2", vocabulary=50257, context=128, width=4, layers=1, heads=1)
    folder.save_model(tmp_path / "gpt", build(config, seed=1), tokenizer, card={})
    asked = Classify.create(model=str(tmp_path / "gpt"), out=tmp_path / "run", protocol="book", steps=2, device="cpu",
                            dtype="fp32", threads=1)  # fmt: skip
    result = classify.run(asked)
    assert isinstance(result, classify.Result) and result.rows == {"train": 1045, "valid": 149, "test": 300}
    loaded = folder.load(tmp_path / "run", classifier=True)
    assert loaded.card["reading"] == {"context": 120, "join": [50256], "fill": 50256}
    assert isinstance(loaded.model, Classifier) and sum(p.numel() for p in loaded.model.score.parameters()) == 10
    assert result.test is not None and 0 <= result.test["train_accuracy"] <= 1
    assert "transformers" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
