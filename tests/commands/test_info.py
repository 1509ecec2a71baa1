"""`groundup info`: the machine, the truth, the names, and what any of our folders holds."""

import json
import platform
from pathlib import Path

import pytest
import torch

from groundup import cli, machine, tokens
from groundup.checkpoint import folder
from groundup.commands import contents, info
from groundup.errors import CheckpointError
from groundup.journal import Journal
from groundup.model import BigramConfig, ModelConfig, build
from groundup.settings import Info, Pretrain
from groundup.text.read import sources
from groundup.tokens.prepare import prepare
from groundup.train import run as runs

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's remark on speed
CONFIG = ModelConfig(family="llama", vocabulary=260, context=16, width=16, layers=2, heads=4, kv_heads=2)


@pytest.fixture(scope="module")
def tokenizer() -> tokens.Tokenizer:
    return tokens.train("bpe", ["to be or not to be"], vocabulary=260)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: tokens.Tokenizer) -> Path:
    """A run as training leaves it after 7 of 9 steps."""
    out = tmp_path_factory.mktemp("runs") / "seven"
    runs.open_run(out, Pretrain(data=["harbor"], out=out))
    runs.write_settings(out, Pretrain(data=["harbor"], size="1m", steps=9, out=out))
    model = build(CONFIG, seed=1)
    progress = runs.Progress(step=7, tokens=1234, seconds=5.5)
    optimizer = torch.optim.AdamW(model.parameters())
    runs.save(out, runs.snapshot(model, optimizer, progress=progress, rng=machine.rng_state(), card={}), tokenizer)
    journal = Journal(out)
    for step in (6, 7):
        journal.write(step, kind="train", loss=3.0 - step / 100)
    journal.write(7, kind="eval", loss=2.5, perplexity=12.18)
    return out


def test_versions_devices_and_truth():
    result = info.run(Info())
    assert result.versions["python"] == platform.python_version()
    assert torch.__version__.startswith(result.versions["torch"].split("+")[0])
    assert [device.kind for device in result.devices] == machine.devices()
    assert all(device.free > 0 and device.name for device in result.devices)
    assert result.machine["cores"] == machine.cores() and result.machine["threads"] == torch.get_num_threads()
    assert len(result.truth) >= 3 and all(row.right for row in result.truth)
    assert not (result.folder or result.sizes or result.data)


def test_named_sizes():
    rows = {row["name"]: row for row in info.run(Info(sizes=True)).sizes}
    assert rows["gpt2"]["parameters"] == 124_439_808 and rows["gpt2"]["aliases"] == ["124m"]
    assert rows["gpt2-xl"]["parameters"] == 1_557_611_200
    assert rows["smollm2-135m"]["parameters"] == 134_515_008
    for name, near in (("1m", 1e6), ("3m", 3e6), ("10m", 10e6), ("30m", 30e6)):
        assert rows[name]["without_embeddings"] == pytest.approx(near, rel=0.1)


def test_the_catalog_says_what_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "the-verdict.txt").write_text("x", encoding="utf-8")
    rows = {row["name"]: row for row in info.run(Info(data=True)).data}
    assert [name for name, row in rows.items() if row["here"]] == ["the-verdict"]
    assert rows["tinyshakespeare"]["bytes"] == 1_115_394
    monkeypatch.delenv("GROUNDUP_DATA")
    assert not any(row["here"] for row in info.run(Info(data=True)).data)


def test_a_model_folder(tmp_path: Path, tokenizer: tokens.Tokenizer):
    model = build(CONFIG, seed=1).bfloat16()
    folder.save_model(tmp_path / "m", model, tokenizer, card={})
    facts = info.run(Info(folder=tmp_path / "m")).folder
    assert facts["holds"] == "a model"
    assert facts["network"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["network"]["family"] == "llama" and facts["network"]["kv_heads"] == 2
    assert facts["network"]["dtype"] == ["BF16"]
    assert facts["tokenizer"]["vocabulary"] == 260 and facts["tokenizer"]["special"] == ["<|endoftext|> 259"]
    assert facts["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    assert facts["files"]["hashes"] == "every file matches"


@pytest.mark.parametrize("name", [folder.WEIGHTS, "tokenizer_config.json"])
def test_an_altered_file_is_found(tmp_path: Path, tokenizer: tokens.Tokenizer, name: str):
    folder.save_model(tmp_path / "m", build(CONFIG, seed=1), tokenizer, card={})
    content = bytearray((tmp_path / "m" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "m" / name).write_bytes(content)
    hashes = contents.describe(tmp_path / "m")["files"]["hashes"]
    assert "DAMAGED" in hashes and name in hashes


def test_truncated_weights_are_found(tmp_path: Path, tokenizer: tokens.Tokenizer):
    folder.save_model(tmp_path / "m", build(CONFIG, seed=1), tokenizer, card={})
    weights = tmp_path / "m" / folder.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    facts = contents.describe(tmp_path / "m")
    assert "is truncated" in facts["network"]["dtype"] and "truncated" in facts["files"]["hashes"]


def test_a_bigram_folder(tmp_path: Path):
    tokenizer = tokens.train("chars", ["abc"], special=[])
    folder.save_model(tmp_path / "m", build(BigramConfig(vocabulary=3, context=8), seed=1), tokenizer, card={})
    facts = contents.describe(tmp_path / "m")
    assert facts["network"]["family"] == "bigram" and facts["network"]["parameters"] == 9
    assert facts["tokenizer"]["kind"] == "chars"


def test_a_run_folder(run_folder: Path):
    facts = contents.describe(run_folder)
    assert facts["holds"] == "a training run"
    assert facts["settings"]["size"] == "1m"
    assert facts["progress"] == {
        "checkpoints": 1,
        "of steps": 9,
        "step": 7,
        "tokens": 1234,
        "seconds": 5.5,
        "skipped": 0,
    }
    assert facts["last train"]["loss"] == 2.93 and facts["last eval"] == {"step": 7, "loss": 2.5, "perplexity": 12.18}
    assert facts["model: network"]["width"] == 16 and facts["model: files"]["hashes"] == "every file matches"
    assert not any(title.startswith("best") for title in facts)


def test_a_run_that_has_not_begun(tmp_path: Path):
    runs.write_settings(tmp_path, Pretrain(data=["harbor"], out=tmp_path))
    facts = contents.describe(tmp_path)
    assert facts["progress"] == {"checkpoints": 0} and "last train" not in facts


def test_shards_and_tokenizer_folders(tmp_path: Path, tokenizer: tokens.Tokenizer):
    (tmp_path / "a.txt").write_text("to be or not to be " * 50, encoding="utf-8")
    made = prepare(sources([str(tmp_path / "a.txt")]), tokenizer, tmp_path / "shards")
    facts = contents.describe(tmp_path / "shards")
    assert facts["text"]["train tokens"] == made.train_tokens > 0 and facts["text"]["bytes"] == 950
    assert facts["text"]["bytes per token"] == pytest.approx(950 / (made.train_tokens + made.valid_tokens))
    assert facts["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    tokenizer.save(tmp_path / "tokenizer")
    for path in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "tokenizer.json"):
        assert contents.describe(path) == {"holds": "a tokenizer", "tokenizer": facts["tokenizer"]}
    train = tmp_path / "shards" / "train.tokens"
    train.write_bytes(train.read_bytes()[:-1])
    assert "truncated" in contents.describe(tmp_path / "shards")["state"]


def test_a_foreign_folder_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="holds no model that groundup can open"):
        contents.describe(tmp_path)
    with pytest.raises(CheckpointError, match="no folder at"):
        contents.describe(tmp_path / "absent")


@pytest.mark.parametrize("words", [[], ["--sizes", "--data"]])
def test_the_pages_say_what_the_json_says(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.main(["info", *words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert cli.main(["info", *words]) == 0
    page = capsys.readouterr().out
    for name in [*result["versions"].values(), *(row["name"] for row in result["sizes"] + result["data"])]:
        assert name in page
    assert page.count(" right") >= len(result["truth"])


def test_the_page_of_a_run(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["info", str(run_folder)]) == 0
    page = capsys.readouterr().out
    for words in ("a training run", "1234", "2.93", "llama", "every file matches", "<|endoftext|>"):
        assert words in page


def test_wrong_results_are_shown_as_wrong(capsys: pytest.CaptureFixture[str]):
    bad = info.Verdict("cpu", "bf16", "gpt2", logits=0.3, loss=float("nan"), gradients=0.1, tolerance=0.01, right=False)
    info.show(info.Result(versions={"groundup": "0"}, truth=[bad]))
    page = capsys.readouterr().out
    assert "WRONG" in page and "nan" in page


def test_the_card_of_a_model_is_shown_as_far_as_it_is_text(tmp_path: Path, tokenizer: tokens.Tokenizer):
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=8, width=8, layers=1, heads=2)
    card = {"imported from": "stories260k", "licence": "MIT", "files": {"a.bin": 1}, "sources": ["x"]}
    folder.save_model(tmp_path / "model", build(config, seed=1), tokenizer, card=card)
    assert contents.describe(tmp_path / "model")["card"] == {"imported from": "stories260k", "licence": "MIT"}
    (tmp_path / "model" / "card.json").write_text("{", encoding="utf-8")
    assert "cannot be read as JSON" in contents.describe(tmp_path / "model")["card"]["cannot be read"]
