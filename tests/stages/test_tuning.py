"""What tuning stages share: a run goes on without its original, adapters only on theirs, and no setting is passed over.

The numbers of a resumed run are compared in test_classify.py and test_instruct.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder, opening
from groundup.checkpoint.identity import weights_hash
from groundup.commands import contents
from groundup.errors import CheckpointError, SettingsError
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.settings import Classify, Instruct, read_toml
from groundup.stages import classify, instruct, tuning

WORDS = "the a boat rain wind net good bad is was in at on".split()
FAST: dict[str, Any] = {
    "steps": 1, "batch": 8, "context": 16, "device": "cpu", "dtype": "fp32", "threads": 1, "sample_every": 100,
}  # fmt: skip


def language_model(path: Path, *, seed: int = 1) -> Path:
    tokenizer = tokens.train("bpe", [" ".join(WORDS)], vocabulary=260)
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=256, width=8, layers=1, heads=2)
    folder.save_model(path, build(config, seed=seed), tokenizer, card={"license": "mit"})
    return path


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    return language_model(tmp_path / "base")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = [{"text": f"{WORDS[n % 13]} {WORDS[n // 13]} {'boat' if n % 2 else 'rain'}", "label": "ab"[n % 2]}
            for n in range(60)]  # fmt: skip
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"instruction": f"{n}?", "output": f"it is {n}"} for n in range(40)]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def card(out: Path) -> dict[str, Any]:
    found = json.loads((out / "model" / "card.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_a_classifier_goes_on_without_its_original(base: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    classify.run(Classify.create(model="base", data=[str(labels)], out=out, **FAST))
    before = card(out)
    shutil.rmtree(base)
    classify.run(Classify.create(out=out, resume=True, steps=2))
    after = card(out)
    assert after["steps"] == 2 and {name: after[name] for name in ("from", "from_sha256", "license", "classes")} == {
        name: before[name] for name in ("from", "from_sha256", "license", "classes")
    }


def test_a_chat_model_goes_on_without_its_original(base: Path, questions: Path, tmp_path: Path) -> None:
    """The checkpoint's tokenizer has the template and its tokens already: they are not added again, nor forgotten."""
    out = tmp_path / "run"
    given = {**FAST, "context": 128, "template": "chatml"}
    instruct.run(Instruct.create(model="base", data=[str(questions)], out=out, **given))
    before, words = card(out), folder.load(out).tokenizer
    shutil.rmtree(base)
    instruct.run(Instruct.create(out=out, resume=True, steps=2))
    after, loaded = card(out), folder.load(out)
    assert after["steps"] == 2 and after["added_tokens"] == ["<|im_start|>", "<|im_end|>"]
    for name in ("from", "from_sha256", "license", "template", "added_tokens", "test_loss_before"):
        assert after[name] == before[name], name
    assert loaded.tokenizer.fingerprint == words.fingerprint and loaded.tokenizer.ends == words.ends


def test_adapters_go_on_from_another_folder_but_on_no_other_base(
    base: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    classify.run(Classify.create(model="base", data=[str(labels)], out=out, train="lora", lora_rank=2, **FAST))
    assert read_toml(out / "settings.toml")["model"] == str(base.resolve())
    classify.run(Classify.create(model="base", out=out, resume=True))  # the same, spelled as at first
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    classify.run(Classify.create(out=out, resume=True, steps=2))
    assert card(out)["steps"] == 2
    shutil.rmtree(base)
    language_model(base, seed=2)
    with pytest.raises(CheckpointError, match=r"base has changed since the adapters in .* were saved"):
        classify.run(Classify.create(out=out, resume=True, steps=3))


def test_a_run_of_adapters_is_described(base: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    classify.run(Classify.create(model="base", data=[str(labels)], out=out, train="lora", lora_rank=2, **FAST))
    found = contents.describe(out)["model: adapters"]
    assert found["base"] == str(base.resolve()) and found["base_sha256"] == weights_hash(base)
    assert found["rank"] == 2 and found["targets"] == ["query", "key", "value", "out", "gate", "up", "down"]
    hidden = folder.load(base).model.state_dict()["blocks.0.feedforward.down.weight"].shape[1]
    matrices = 4 * (8 + 8) + 3 * (8 + hidden)
    assert found["parameters"] == 2 * matrices + 2 * 8  # A and B of rank 2, and the score of two classes
    assert contents.describe(out / "model")["holds"] == "adapters"


def test_dropout_reaches_a_classifier_that_goes_on(base: Path, tmp_path: Path) -> None:
    loaded = folder.load(base)
    judge = Classifier(loaded.model, HeadConfig(("a", "b")), seed=1)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    folder.save_model(tmp_path / "judge", judge, loaded.tokenizer, card={})
    asked = Classify(model=str(tmp_path / "judge"), dropout=0.3, dropout_embedding=0.1)
    found = tuning.opened(asked, classifier=True).model
    assert isinstance(found, Classifier) and found.training
    config = found.config
    assert (config.dropout_embedding, config.dropout_attention, config.dropout_shortcut) == (0.1, 0.3, 0.3)
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())


def test_settings_of_adapters_without_adapters_are_refused(base: Path, labels: Path, tmp_path: Path) -> None:
    """Also where the value is the default, and in the book's protocol, which fills in settings of its own."""
    for protocol in ("own", "book"):
        asked = Classify.create(model="base", data=[str(labels)], out=tmp_path / "run", lora_rank=16, protocol=protocol)
        with pytest.raises(SettingsError, match=r"--lora-rank means nothing with --train .*\n  -> add --train lora"):
            classify.run(asked)
    assert classify.recipe(Classify(protocol="book")).without_effect == []
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_names_its_own_command(tmp_path: Path) -> None:
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "settings.toml").write_text("# groundup classify: the settings of this run\n")
    with pytest.raises(CheckpointError, match=r"groundup classify --out '.*a run' --resume"):
        opening.open_any(tmp_path / "a run")
