"""From pairs to a model that prefers: where it begins, what it moves, what is kept, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from groundup import tokens
from groundup.batches.pairs import Pairs
from groundup.checkpoint import folder
from groundup.errors import CheckpointError, GroundupError
from groundup.evaluate.preference import pair_log_probabilities
from groundup.generate.chat import template_of
from groundup.journal import Journal
from groundup.model import ModelConfig, build, lora
from groundup.settings import Dpo
from groundup.stages import dpo, paired, reference
from groundup.text.styles import STYLES
from groundup.tokens.pairs import PairRow, pair_rows
from groundup.tokens.rows import Row
from groundup.train.plan import Preflight

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,?'\n:|_<>#ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FAST = {
    "batch": 8, "steps": 4, "eval_every": 2, "sample_tokens": 4, "context": 64, "warmup": 0, "log_every": 1, "lr": 1e-3,
    "device": "cpu", "dtype": "fp32", "threads": 1, "seed": 3, "validation": 0.1, "test": 0.1,
}  # fmt: skip
KEYS = {"loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "drift", "chosen_logp", "rejected_logp"}


def tokenizer(letters: str = LETTERS) -> tokens.Tokenizer:
    """One that knows the tokens and the template of its model, as after groundup instruct."""
    style = STYLES["chatml"]
    return tokens.train("chars", [letters]).with_special(style.tokens).with_template(style.template)


def network(words: tokens.Tokenizer, **changes: Any) -> nn.Module:
    fields = {"context": 128, "width": 32, "layers": 2, "heads": 4} | changes
    return build(ModelConfig(family="llama", vocabulary=words.vocabulary, **fields), seed=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "base"
    folder.save_model(path, network(tokenizer()), tokenizer(), card={})
    return path


def written(path: Path, count: int, **changes: str) -> Path:
    """Questions with an answer of small letters over one of large letters, sometimes shorter, sometimes longer."""
    draw = np.random.default_rng(7)
    small, large = list("abcdef"), list("UVWXYZ")
    rows = [
        {"prompt": f"what is {number}?", "chosen": "".join(draw.choice(small, 3 + number % 3)),
         "rejected": "".join(draw.choice(large, 4))} | changes
        for number in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "pairs.jsonl", 40)


def settings(base: Path, data: Path, out: Path, /, **changes: Any) -> Dpo:
    return Dpo.create(**{"model": str(base), "data": [str(data)], "out": out} | FAST | changes)


def run(base: Path, data: Path, out: Path, **changes: Any) -> dpo.Result:
    result = dpo.run(settings(base, data, out, **changes))
    assert isinstance(result, dpo.Result)
    return result


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in Journal(out).read() if record["kind"] == kind]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return folder.load(out).model.state_dict()


def source_of(model: Path, rows: list) -> Pairs:
    words = folder.load(model).tokenizer
    return Pairs(pair_rows(words, template_of(words), rows, context=64).rows, pad=0)


def test_a_run_leaves_what_it_promises(base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    result = run(base, data, out)
    assert result.pairs == {"train": 32, "valid": 4, "test": 4} and result.steps == 4 and result.reference == str(base)
    looks, steps = lines(out, "eval"), lines(out, "train")
    assert [look["step"] for look in looks] == [0, 2, 4] and all(KEYS <= look.keys() for look in looks)
    assert len(steps) == 4 and all(KEYS <= step.keys() for step in steps)
    assert looks[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert (looks[0]["margin"], looks[0]["drift"]) == pytest.approx((0, 0), abs=1e-4)
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # before the first update, on other pairs
    assert result.test_before.loss == pytest.approx(math.log(2), abs=1e-4) and result.test.loss < math.log(2) - 1e-3
    assert result.validation.margin == looks[-1]["margin"] > 0 and result.validation_before.loss == looks[0]["loss"]
    parts = paired.parts(out)
    asked = [pair.messages[0]["content"] for part in (parts.train, parts.valid, parts.test) for pair in part]
    assert sorted(asked) == sorted(f"what is {number}?" for number in range(40))
    told = json.loads((out / "test.json").read_text(encoding="utf-8"))
    assert told["rows"] == 4 and told["accuracy"] == result.test.accuracy and 0 <= told["longer_baseline"] <= 1
    assert told["before"]["loss"] == result.test_before.loss and told["step"] == 4
    assert (out / "report.html").is_file() and (out / "samples.md").is_file()
    assert [one.question for one in result.answers] == [pair.messages[0]["content"] for pair in parts.valid[:3]]
    err = capsys.readouterr().err
    assert "40 read, 32 train, 4 valid, 4 test" in err and "ln 2 = 0.6931" in err and "loss 0.6931 on the test" in err
    dpo.show(result)
    text = capsys.readouterr().out
    assert f"loss {result.test.loss:.4f}" in text and "before: loss 0.6931" in text and "groundup chat" in text
    assert text.count("\n  before: ") == 3 and all(remark in text for remark in result.remarks)


def test_the_model_opens_as_any_other_and_answers_in_its_template(base: Path, data: Path, tmp_path: Path):
    run(base, data, tmp_path / "run", steps=1)
    loaded = folder.load(tmp_path / "run")
    assert loaded.tokenizer.chat_template == STYLES["chatml"].template
    assert loaded.card["stage"] == "dpo" and loaded.card["reference"] == str(base)
    assert loaded.tokenizer.special["<|im_end|>"] in loaded.tokenizer.ends


def test_four_pairs_are_learnt_by_heart(base: Path, tmp_path: Path):
    data = written(tmp_path / "six.jsonl", 6)
    result = run(base, data, tmp_path / "run", batch=4, steps=60, lr=5e-3, eval_every=60)
    assert result.pairs["train"] == 4
    steps = lines(tmp_path / "run", "train")
    assert steps[-1]["accuracy"] == 1.0 and steps[-1]["loss"] < 0.1
    assert steps[-1]["margin"] > steps[19]["margin"] > steps[4]["margin"] > steps[0]["margin"] - 1e-6
    assert steps[-1]["drift"] == pytest.approx(
        (steps[-1]["chosen_reward"] + steps[-1]["rejected_reward"]) / 2 / 0.1, rel=1e-4
    )


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "ipo"},
        {"loss": "simpo", "beta": 2.0},
        {"train": "lora", "lora_rank": 4, "lr": 1e-2},
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                {"loss": "hinge"},
                {"loss": "orpo", "beta": 0.5},
                {"smoothing": 0.2},
                {"average": True, "beta": 1.0},
                {"batching": "padded", "train": "last-block"},
            )
        ),
    ],
)
def test_every_way_of_learning_learns(base: Path, data: Path, tmp_path: Path, change: dict[str, Any]):
    out = tmp_path / "run"
    result = run(base, data, out, **{"steps": 12, "eval_every": 12} | change)
    losses = [step["loss"] for step in lines(out, "train")]
    assert sum(losses[-4:]) < sum(losses[:4])  # four steps are a pass over the pairs
    assert result.validation.margin > result.validation_before.margin
    assert (result.validation.drift is None) == (change.get("loss") in ("simpo", "orpo"))
    begins = {"ipo": 25.0, "hinge": 1.0}.get(change.get("loss", ""), math.log(2))
    if change.get("loss") not in ("simpo", "orpo"):
        assert result.validation_before.loss == pytest.approx(begins, abs=1e-3)


def test_adapters_learn_and_the_base_stays(base: Path, data: Path, tmp_path: Path):
    run(base, data, tmp_path / "run", train="lora", lora_rank=4, lr=1e-2, steps=12)
    apart, old = folder.load(tmp_path / "run", merged=False).model, weights(base)
    assert lora.config_of(apart).rank == 4
    assert all(torch.equal(apart.state_dict()[name], value) for name, value in old.items() if "norm" in name)
    looks = lines(tmp_path / "run", "eval")
    assert looks[0]["loss"] == pytest.approx(math.log(2), abs=1e-4) and looks[-1]["loss"] < looks[0]["loss"]


@pytest.mark.slow
def test_new_tokens_of_a_template_are_in_the_reference_too(data: Path, tmp_path: Path):
    plain = tokens.train("chars", [LETTERS])
    folder.save_model(tmp_path / "plain", network(plain), plain, card={})
    for name, change in (("all", {}), ("lora", {"train": "lora", "lora_rank": 4})):
        result = run(tmp_path / "plain", data, tmp_path / name, template="chatml", **change)
        assert result.validation_before.loss == pytest.approx(math.log(2), abs=1e-4)
        assert folder.load(tmp_path / name).tokenizer.vocabulary == plain.vocabulary + 2


def test_a_fall_without_a_reference_is_told_at_the_end(base: Path, data: Path, tmp_path: Path):
    """Losses without a reference have no drift: what happened to the chosen answers stands in the journal alone."""
    run(base, data, tmp_path / "run", loss="simpo", beta=2.0, steps=1)
    looks = [{"step": 0, "chosen_logp": -10.0}, {"step": 1, "chosen_logp": -50.0}]
    assert "became 40 nats less likely" in dpo._remarks(tmp_path / "run", looks)[-1]
    assert not any("nats less likely" in remark for remark in dpo._remarks(tmp_path / "run", looks[:1]))


def test_the_preflight_counts_the_tokens_of_both_sides(base: Path, data: Path, tmp_path: Path):
    """What it says of the data is what the steps of an epoch then read; memory is looked for by places."""
    checks = dpo.run(settings(base, data, tmp_path / "run", dry_run=True))
    run(base, data, tmp_path / "ran", steps=4)
    rows = source_of(base, paired.parts(tmp_path / "ran").train).rows
    real = sum(len(row.ids) - 1 for pair in rows for row in (pair.chosen, pair.rejected))
    assert checks.training_tokens == real == lines(tmp_path / "ran", "train")[-1]["tokens"]
    assert checks.tokens_per_step == pytest.approx(8 * real / 32, abs=1) and 0 < checks.filler < 0.1


def test_places_and_filler_by_hand():
    """Rows of 3 and 5 inputs, and of 4 and 4: 10 and 8 places, of which 2 of 18 hold nothing."""

    def row(size: int) -> Row:
        return Row([1] * (size + 1), [False] * size + [True])

    both = paired.BothSides([PairRow(row(3), row(5)), PairRow(row(4), row(4))], pad=0)
    assert both.places.tolist() == [10, 8] and both.filler == pytest.approx(2 / 18)


# the reference


@pytest.mark.parametrize("change", [{}, {"train": "lora", "lora_rank": 4}])
def test_the_reference_is_the_model_before_its_first_step(base: Path, data: Path, tmp_path: Path, change: dict):
    out = tmp_path / "run"
    run(base, data, out, **change)
    said, split = load_file(reference.place(out)), paired.parts(out)
    for name, rows in (("train", split.train), ("valid", split.valid), ("test", split.test)):
        wanted = pair_log_probabilities(folder.load(base).model, source_of(base, rows), 8)
        np.testing.assert_allclose(said[name], wanted, atol=1e-5)


def test_another_reference_of_another_width(base: Path, data: Path, tmp_path: Path):
    words = tokenizer()
    folder.save_model(tmp_path / "narrow", network(words, width=16, layers=1), words, card={})
    result = run(base, data, tmp_path / "run", reference=str(tmp_path / "narrow"))
    assert result.reference == str(tmp_path / "narrow")
    said, split = load_file(reference.place(tmp_path / "run")), paired.parts(tmp_path / "run")
    wanted = pair_log_probabilities(folder.load(tmp_path / "narrow").model, source_of(base, split.valid), 8)
    np.testing.assert_allclose(said["valid"], wanted, atol=1e-5)
    own = pair_log_probabilities(folder.load(base).model, source_of(base, split.valid), 8)
    assert result.validation_before.drift == pytest.approx(float((own - wanted).mean()), abs=1e-4)


def test_a_loss_without_a_reference_asks_none(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def asked(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a reference was asked")

    monkeypatch.setattr(reference, "pair_log_probabilities", asked)
    result = run(base, data, tmp_path / "run", loss="orpo", steps=1)
    assert result.reference == "" and not reference.place(tmp_path / "run").exists()


def test_what_was_said_is_read_back_and_nothing_else(base: Path, data: Path, tmp_path: Path):
    """Kept with the marks of its rows and of its model; both must be those of the run."""
    (tmp_path / "data").mkdir()
    values = {"train": np.array([[-1.5, -2.0]], dtype=np.float32), "test": np.zeros((0, 2), dtype=np.float32)}
    marks = {"train": "aa", "test": "bb"}
    assert reference.read(tmp_path, marks) is None
    reference.write(tmp_path, values, marks, sha256="cc")
    found = reference.read(tmp_path, marks, sha256="cc")
    assert found.keys() == values.keys() and all(np.array_equal(found[name], values[name]) for name in values)
    assert reference.read(tmp_path, {"train": "aa"}).keys() == {"train"}
    with pytest.raises(CheckpointError, match="other train pairs"):
        reference.read(tmp_path, {"train": "ab"})
    with pytest.raises(CheckpointError, match="other valid pairs"):
        reference.read(tmp_path, {"valid": "aa"})
    with pytest.raises(CheckpointError, match="by another model.*\n.*put that model back"):
        reference.read(tmp_path, marks, sha256="cd")
    raw = bytearray(reference.place(tmp_path).read_bytes())
    raw[-1] ^= 1
    reference.place(tmp_path).write_bytes(raw)
    with pytest.raises(CheckpointError, match="was altered"):
        reference.read(tmp_path, marks)
    reference.place(tmp_path).write_bytes(raw[:40])
    with pytest.raises(CheckpointError, match="cannot be read"):
        reference.read(tmp_path, marks)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [reference.NAME]


# what is refused


def test_a_dry_run_leaves_nothing_and_asks_no_reference(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reference, "pair_log_probabilities", None)
    checks = dpo.run(settings(base, data, tmp_path / "run", dry_run=True))
    assert isinstance(checks, Preflight) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "simpo", "reference": "runs/other"}, "--reference means nothing with --loss simpo"),
        ({"loss": "ipo", "smoothing": 0.1}, "--smoothing means nothing with --loss ipo"),
        ({"gamma": 0.5}, "--gamma means nothing with --loss sigmoid"),
        ({"loss": "simpo", "average": True}, "--average means nothing with --loss simpo"),
        ({"loss": "orpo", "average": True}, "--average means nothing with --loss orpo"),
        ({"lora_rank": 4}, "--lora-rank means nothing with --train all"),
        ({"data": ["no/such.jsonl"]}, "no such file or name"),
        ({"context": 12}, "the training pairs: there is nothing to learn"),
        ({"template": "chatlm"}, "no prompt style 'chatlm'"),
        ({"reference": "no/such/model"}, "no/such/model"),
        ({"model": ""}, "no model was given"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_the_folder_free(
    base: Path, data: Path, tmp_path: Path, change: dict[str, Any], message: str
):
    with pytest.raises(GroundupError, match=message) as error:
        dpo.run(settings(base, data, tmp_path / "run", **change))
    assert "->" in str(error.value)
    assert not [path for path in (tmp_path / "run").glob("*") if path.name != ".lock"]


def test_pairs_that_say_nothing_are_refused_in_words(base: Path, tmp_path: Path):
    same = written(tmp_path / "same.jsonl", 12, chosen="yes", rejected="yes")
    with pytest.raises(GroundupError, match="there is nothing to learn.*both answers are the same"):
        dpo.run(settings(base, same, tmp_path / "run"))


def test_a_reference_that_reads_other_ids_is_refused(base: Path, data: Path, tmp_path: Path):
    """The same number of ids in another order; and one that cannot read as far."""
    other = tokenizer(LETTERS.replace("a", "\u00e4"))
    folder.save_model(tmp_path / "other", network(other), other, card={})
    with pytest.raises(GroundupError, match="--reference .*other reads other ids.*\n.*leave --reference out"):
        dpo.run(settings(base, data, tmp_path / "run", reference=str(tmp_path / "other")))
    short = tokenizer()
    folder.save_model(tmp_path / "short", network(short, context=16), short, card={})
    with pytest.raises(GroundupError, match="has a context of 16, the longest row has .*\n.*--context 16"):
        dpo.run(settings(base, data, tmp_path / "run", reference=str(tmp_path / "short")))


def test_a_reference_that_gives_no_numbers_is_refused(base: Path, data: Path, tmp_path: Path):
    words = tokenizer()
    broken = network(words)
    with torch.no_grad():
        broken.norm.weight.fill_(float("inf"))
    folder.save_model(tmp_path / "broken", broken, words, card={})
    with pytest.raises(GroundupError, match="log-probabilities that are not finite"):
        dpo.run(settings(base, data, tmp_path / "run", reference=str(tmp_path / "broken")))
