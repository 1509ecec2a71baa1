"""From pairs to a reward model: what is learnt, what is kept with it, what is read once, what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import machine as machines
from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import CheckpointError, DataError, SettingsError
from groundup.evaluate import scoring
from groundup.evaluate.pairs import LengthRule
from groundup.journal import Journal
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.settings import Reward
from groundup.stages import reward
from groundup.text import preferences
from groundup.text.conversations import Conversation
from groundup.train import loop
from groundup.train.plan import Preflight

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .?\n:|_<>"
PLAIN = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
SMALL: dict[str, Any] = {
    "batch": 8, "epochs": 3, "lr": 3e-3, "seed": 3, "log_every": 1, "warmup": 0, "device": "cpu", "dtype": "fp32",
    "threads": 1,
}  # fmt: skip
UNSCALED = HeadConfig(("reward",), kind="reward")
CPU = machines.choose(device="cpu", dtype="fp32", threads=1)


def entries(count: int, **more: Any) -> list[dict[str, Any]]:
    """Prompts with two answers of random letters and lengths, of which the one that ends with y is preferred."""
    draw = np.random.default_rng(7)

    def answer(end: str) -> str:
        return "".join(draw.choice(list("abcdefgh"), int(draw.integers(2, 8)))) + end

    return [{"prompt": f"what is {n}?", "chosen": answer("y"), "rejected": answer("n"), **more} for n in range(count)]


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def language_model(path: Path, *, context: int = 40, template: str | None = PLAIN) -> Path:
    tokenizer = tokens.train("chars", [LETTERS])
    tokenizer = tokenizer if template is None else tokenizer.with_template(template)
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=context, width=16, layers=2, heads=2)
    folder.save_model(path, build(config, seed=1), tokenizer, card={"license": "mit"})
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of a few thousand parameters that has learnt nothing."""
    return language_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return as_jsonl(tmp_path / "pairs.jsonl", entries(120))


def settings(base: Path, data: Path | str, out: Path, **changes: Any) -> Reward:
    return Reward.create(model=str(base), data=[str(data)], out=out, **(SMALL | changes))


def finished(base: Path, data: Path | str, out: Path, **changes: Any) -> reward.Result:
    result = reward.run(settings(base, data, out, **changes))
    assert isinstance(result, reward.Result)
    return result


def head(path: Path) -> HeadConfig:
    model = folder.load(path, classifier=True).model
    assert isinstance(model, Classifier)
    return model.head_config


def weights(path: Path) -> dict[str, torch.Tensor]:
    return folder.load(path, classifier=True).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def sides(rows: list[preferences.Preference]) -> list[Conversation]:
    return [Conversation((*row.messages, {"role": "assistant", "content": answer}))
            for row in rows for answer in (row.chosen, row.rejected)]  # fmt: skip


def training_scores(out: Path) -> torch.Tensor:
    """What the command's own way of asking says of every training answer."""
    return ask(out, sides(preferences.read(out / "data" / "train.jsonl")))


def ask(out: Path, talks: list[Conversation]) -> torch.Tensor:
    found = scoring.opened(out, machine=CPU)
    return torch.tensor(scoring.scores(found.model, found.tokenizer, found.template, talks, machine=CPU, batch=16))


def test_a_reward_model_learns_and_leaves_what_it_promises(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    result = finished(base, data, out, epochs=6)
    assert result.rows == {"train": 96, "valid": 12, "test": 12} and not any(result.dropped.values())
    assert result.test is not None and result.test["accuracy"] > 0.9 and result.test["rows"] == 12
    names = {path.name for path in out.iterdir()}
    assert {"settings.toml", "data", "model", "best", "metrics.jsonl", "test.json", "report.html"} <= names
    looks = [record for record in Journal(out).read() if record["kind"] == "eval"]
    assert looks[0]["step"] == 0 and abs(looks[0]["loss"] - np.log(2)) < 0.1
    keys = {"loss", "accuracy", "margin", "ece", "longer_baseline", "train_accuracy"}
    assert all(keys <= record.keys() for record in looks)
    steps = [record for record in Journal(out).read() if record["kind"] == "train"]
    assert {"loss", "accuracy", "margin"} <= steps[0].keys()
    told = json.loads((out / "test.json").read_text(encoding="utf-8"))
    assert told["step"] == result.steps and sum(one["rows"] for one in told["bins"]) == 12
    assert told["longer_baseline"] == LengthRule(told["length_rule"]).accuracy(
        preferences.read(out / "data" / "test.jsonl")
    )
    capsys.readouterr()
    reward.show(result)
    said = capsys.readouterr().out
    assert "by length alone" in said and "kept with the model" in said and f"groundup score {out}" in said


def test_scores_of_the_training_answers_have_mean_0_and_spread_1(base: Path, data: Path, tmp_path: Path) -> None:
    """In RUN/model and in RUN/best, each by its own weights; the raw scores stay what the network says."""
    out = tmp_path / "run"
    result = finished(base, data, out, epochs=1)
    found = training_scores(out)
    assert float(found.mean()) == pytest.approx(0, abs=1e-4)
    assert float(found.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert head(out) == HeadConfig(("reward",), kind="reward", mean=result.mean, spread=result.spread)
    assert (head(out).mean, head(out).spread) != (0.0, 1.0) != (head(out / "best").mean, head(out / "best").spread)
    assert folder.load(out, classifier=True).card["license"] == "mit"
    raw = (out / "state" / f"step-{result.steps:08d}" / "model" / "model.safetensors").read_bytes()
    assert (out / "model" / "model.safetensors").read_bytes() == raw  # the weights are those of the checkpoint


def test_scores_as_they_are_where_nothing_is_to_be_measured(base: Path, data: Path, tmp_path: Path) -> None:
    result = finished(base, data, tmp_path / "run", epochs=1, normalise=False)
    assert (result.mean, result.spread) == (0.0, 1.0) and head(tmp_path / "run") == UNSCALED


def test_a_kill_before_the_scores_are_measured_leaves_a_whole_model(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RUN/model is then there, without mean and spread; --resume measures them and reads the test."""
    whole = finished(base, data, tmp_path / "whole", epochs=1)

    def cut(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reward, "_scaled", cut)
        reward.run(settings(base, data, tmp_path / "cut", epochs=1))
    assert head(tmp_path / "cut") == UNSCALED and not (tmp_path / "cut" / "test.json").exists()
    resumed = reward.run(Reward.create(out=tmp_path / "cut", resume=True))
    assert isinstance(resumed, reward.Result)
    assert (resumed.mean, resumed.spread, resumed.test) == (whole.mean, whole.spread, whole.test)
    assert head(tmp_path / "cut") == head(tmp_path / "whole")


def test_the_test_pairs_are_read_once(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = finished(base, data, tmp_path / "run", epochs=1)
    content = (tmp_path / "run" / "test.json").read_bytes()
    data.unlink()  # the parts are in the run folder
    again = reward.run(Reward.create(out=tmp_path / "run", resume=True, epochs=2))
    assert isinstance(again, reward.Result) and again.steps > first.steps and again.test == first.test
    assert (tmp_path / "run" / "test.json").read_bytes() == content and again.mean != first.mean
    capsys.readouterr()
    reward.show(again)
    assert f"weights of step {first.steps:,}" in capsys.readouterr().out


@pytest.mark.parametrize("train", ["head", "last-block", "lora"])
def test_what_does_not_learn_stays_as_it_was(base: Path, data: Path, tmp_path: Path, train: str) -> None:
    result = finished(base, data, tmp_path / "run", epochs=1, train=train)
    before = folder.load(base).model.state_dict()
    after = {name.removeprefix("trunk."): value for name, value in weights(tmp_path / "run").items()}
    moved = {name.split(".")[1] for name in before
             if name.startswith("blocks.") and not torch.equal(before[name], after[name])}  # fmt: skip
    assert moved == {"head": set(), "last-block": {"1"}, "lora": {"0", "1"}}[train]
    assert torch.equal(before["token_table.weight"], after["token_table.weight"])
    assert (head(tmp_path / "run").mean, head(tmp_path / "run").spread) == (result.mean, result.spread) != (0.0, 1.0)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "run" / "model").glob("lora.json")]
    wanted = [(result.mean, result.spread)] if train == "lora" else []
    assert [(one["head"]["mean"], one["head"]["spread"]) for one in kept] == wanted
    found = training_scores(tmp_path / "run")
    assert float(found.std(correction=0)) == pytest.approx(1, abs=1e-3) and result.spread > 0


def test_rows_fit_the_context_and_cuts_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row of a language model has one id more than the context; these are read whole and have none to spare."""
    base = language_model(tmp_path / "short", context=16)
    result = finished(base, data, tmp_path / "run", epochs=1)
    assert re.search(r"train +\d+ of 96 pairs are longer .* beginning of their prompts", capsys.readouterr().err)
    card = folder.load(tmp_path / "run", classifier=True).card
    train = preferences.read(tmp_path / "run" / "data" / "train.jsonl")
    long = [len(row.messages[0]["content"]) + 1 + max(len(row.chosen), len(row.rejected)) > 16 for row in train]
    assert 0 < sum(long) < 96 and card["cut"]["train"] == sum(long) and card["rows"]["kept"]["train"] == 96
    found = training_scores(tmp_path / "run")  # of the rows that `score` reads: mean and spread are theirs
    assert float(found.mean()) == pytest.approx(0, abs=1e-4)
    assert float(found.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert result.test is not None
    test = sides(preferences.read(tmp_path / "run" / "data" / "test.jsonl"))
    chosen, rejected = ask(tmp_path / "run", test[::2]), ask(tmp_path / "run", test[1::2])
    assert result.test["accuracy"] == float((chosen > rejected).double().mean())
    assert result.test["margin"] == pytest.approx(float((chosen - rejected).mean()) * result.spread, abs=1e-4)


def test_pairs_whose_answer_leaves_no_room_are_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers have 3 to 8 letters, so that rows of 8 ids, one of them the end of the prompt, hold those of 3 to 6."""
    base = language_model(tmp_path / "short", context=8)
    result = finished(base, data, tmp_path / "run", epochs=1)
    train = preferences.read(tmp_path / "run" / "data" / "train.jsonl")
    fits = [max(len(row.chosen), len(row.rejected)) < 8 for row in train]
    assert 0 < sum(fits) < 96 and result.rows["train"] == sum(fits)
    assert f"{96 - sum(fits)} pairs left out: {reward.NO_ROOM} of 8 tokens" in capsys.readouterr().err
    with pytest.raises(DataError, match="the training pairs: there is nothing to learn. In each an answer leaves no"):
        reward.run(settings(base, data, tmp_path / "none", context=2))


def test_margins_are_asked_for_only_where_they_are_wanted(base: Path, tmp_path: Path) -> None:
    """At the first look nothing is learnt: -ln sigmoid(d - 3) with d near 0 is near ln(1 + e^3) = 3.05."""
    data = as_jsonl(tmp_path / "margins.jsonl", entries(120, margin=3.0))
    losses = {}
    for margins in (False, True):
        finished(base, data, tmp_path / str(margins), epochs=1, margins=margins)
        losses[margins] = Journal(tmp_path / str(margins)).read()[0]["loss"]
    assert losses[False] == pytest.approx(np.log(2), abs=0.1) and losses[True] == pytest.approx(3.05, abs=0.1)


def test_how_many_pairs_have_a_margin_is_told(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | ({"margin": 1.0} if n % 3 == 0 else {}) for n, row in enumerate(entries(120))]
    data = as_jsonl(tmp_path / "pairs.jsonl", rows)
    finished(base, data, tmp_path / "run", epochs=None, steps=1, margins=True)
    train = preferences.read(tmp_path / "run" / "data" / "train.jsonl")
    assert f"{sum(row.margin is not None for row in train)} of 96 training pairs have one" in capsys.readouterr().err


def test_margins_that_nobody_gave_are_refused_and_the_folder_stays_free(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no training pair has a margin"):
        reward.run(settings(base, data, tmp_path / "run", margins=True))
    assert finished(base, data, tmp_path / "run", epochs=1).steps > 0


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_changed_pairs_are_noticed_on_resume(base: Path, data: Path, tmp_path: Path, part: str) -> None:
    finished(base, data, tmp_path / "run", epochs=None, steps=1)
    path = tmp_path / "run" / "data" / f"{part}.jsonl"
    first, *others = preferences.read(path)
    preferences.write(path, [preferences.Preference(first.messages, first.rejected, first.chosen), *others])
    with pytest.raises(CheckpointError, match="training data .* changed"):
        reward.run(Reward.create(out=tmp_path / "run", resume=True, epochs=2))


def test_a_reward_model_goes_on_and_is_measured_anew(base: Path, data: Path, tmp_path: Path) -> None:
    first = finished(base, data, tmp_path / "one", epochs=1)
    second = finished(tmp_path / "one", data, tmp_path / "two", epochs=1, train="head", lr=1e-9)
    one, two = (weights(tmp_path / name)["score.weight"] for name in ("one", "two"))
    assert torch.allclose(one, two, atol=1e-6)
    assert second.mean == pytest.approx(first.mean, abs=1e-3) and second.spread == pytest.approx(first.spread, rel=1e-3)
    state = tmp_path / "two" / "state" / f"step-{second.steps:08d}" / "model"
    assert json.loads((state / "config.json").read_text())["groundup"]["score_spread"] == 1.0


def test_a_classifier_is_no_beginning(base: Path, data: Path, tmp_path: Path) -> None:
    loaded = folder.load(base)
    model = Classifier(loaded.model, HeadConfig(("ham", "spam")), seed=0)
    folder.save_model(tmp_path / "classes", model, loaded.tokenizer, card={})
    with pytest.raises(SettingsError, match="tells classes apart: ham, spam"):
        reward.run(settings(tmp_path / "classes", data, tmp_path / "run"))


def test_tokens_that_a_template_brings(data: Path, tmp_path: Path) -> None:
    base = language_model(tmp_path / "bare", context=100, template=None)
    known = folder.load(base).tokenizer.vocabulary
    finished(base, data, tmp_path / "run", template="chatml", steps=2, epochs=None)
    loaded = folder.load(tmp_path / "run", classifier=True)
    assert loaded.tokenizer.vocabulary == known + 2 and loaded.card["added_tokens"] == ["<|im_start|>", "<|im_end|>"]
    resumed = reward.run(Reward.create(out=tmp_path / "run", resume=True, steps=3))
    assert isinstance(resumed, reward.Result) and resumed.steps == 3
    with pytest.raises(SettingsError, match="--train lora leaves no room for new tokens"):
        reward.run(settings(base, data, tmp_path / "lora", template="chatml", train="lora"))


def test_a_dry_run_leaves_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    checks = reward.run(settings(base, data, tmp_path / "run", dry_run=True))
    assert isinstance(checks, Preflight) and not (tmp_path / "run").exists()
    longest = 2 * max(len(row["prompt"]) + 1 + max(len(row["chosen"]), len(row["rejected"])) for row in entries(120))
    assert checks.tokens_per_step <= 8 * longest  # two rows a pair


def test_pairs_that_say_nothing_are_refused_in_words(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"what is {n}?", "chosen": "yes", "rejected": "yes" if n % 2 else ""} for n in range(60)]
    said = "the training pairs: there is nothing to learn.*both answers are the same"
    with pytest.raises(DataError, match=said):
        reward.run(settings(base, as_jsonl(tmp_path / "pairs.jsonl", rows), tmp_path / "run"))


def test_a_part_without_usable_pairs_is_only_not_measured(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last 5 % of the book's division validate: here they are all empty answers."""
    rows = [row | ({"rejected": ""} if n >= 114 else {}) for n, row in enumerate(entries(120))]
    data = as_jsonl(tmp_path / "pairs.jsonl", rows)
    result = finished(base, data, tmp_path / "run", epochs=1, protocol="book")
    assert result.rows["valid"] == 0 and result.dropped["valid"] == 6 and result.validation_loss is None
    assert "nothing is measured on the validation pairs" in capsys.readouterr().err
    reward.show(result)


def test_from_python(base: Path, data: Path, tmp_path: Path) -> None:
    given = SMALL | {"model": str(base), "data": [str(data)], "out": tmp_path / "run", "steps": 1, "epochs": None}
    assert reward.reward(**given).steps == 1


# slow


class Cut(Exception):
    """The plug is pulled."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{}, {"batching": "padded", "micro_batch": 4}, {"train": "lora", "lora_dropout": 0.1}, {"train": "last-block"}],
)
@pytest.mark.parametrize("step", [3, 20])
def test_a_resumed_run_is_the_uninterrupted_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, change: dict[str, Any]
) -> None:
    data = as_jsonl(tmp_path / "pairs.jsonl", entries(120))
    whole = finished(base, data, tmp_path / "whole", save_every="2", dropout=0.1, **change)
    real, calls = loop._gradient, []

    def gradient(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > step:
            raise Cut
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(loop, "_gradient", gradient)
        reward.run(settings(base, data, tmp_path / "cut", save_every="2", dropout=0.1, **change))
    data.unlink()
    torch.manual_seed(999)
    resumed = reward.run(Reward.create(out=tmp_path / "cut", resume=True))
    assert isinstance(resumed, reward.Result)
    for place in ("model", "best"):
        assert same(weights(tmp_path / "whole" / place), weights(tmp_path / "cut" / place))
    assert resumed.test == whole.test and (resumed.mean, resumed.spread) == (whole.mean, whole.spread)


@pytest.mark.slow
def test_micro_batches_change_nothing(base: Path, tmp_path: Path) -> None:
    data = as_jsonl(tmp_path / "pairs.jsonl", entries(120))
    for size in (8, 2):
        finished(base, data, tmp_path / str(size), micro_batch=size, epochs=1)
    one, other = (weights(tmp_path / str(size)) for size in (8, 2))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_the_run_opens_in_transformers_with_the_same_scores(tmp_path: Path, family: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = tokens.train("bpe", [LETTERS] * 3, vocabulary=300).with_template(PLAIN)
    config = ModelConfig(family=family, vocabulary=tokenizer.vocabulary, context=64, width=16, layers=2, heads=2)
    folder.save_model(tmp_path / "base", build(config, seed=1), tokenizer, card={})
    data = as_jsonl(tmp_path / "pairs.jsonl", entries(120))
    finished(tmp_path / "base", data, tmp_path / "run", epochs=1)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    talks = sides(preferences.read(tmp_path / "run" / "data" / "test.jsonl"))
    rendered = [cutter.apply_chat_template(list(one.messages), tokenize=False) for one in talks]
    batch = cutter(rendered, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        wanted = theirs(**batch).logits[:, 0]
    found = scoring.opened(tmp_path / "run", machine=CPU)
    ours = scoring.scores(found.model, found.tokenizer, found.template, talks, machine=CPU, batch=8, normalise=False)
    assert ours == pytest.approx(wanted.tolist(), abs=1e-5)
