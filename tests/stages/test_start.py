"""`pretrain --from`: the network and tokenizer of another model, trained on as if it had always been ours."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands import evaluate
from groundup.errors import SettingsError, TokenizerError, UserError
from groundup.journal import Journal
from groundup.model.config import ModelConfig
from groundup.settings import Evaluate, Pretrain, read_toml
from groundup.stages import pretrain
from groundup.stages.start import Start, tokenizer_of, weights_hash
from groundup.tokens import prepare
from groundup.train import loop, plan

FIRST = "The fox sleeps. The owl reads a book about foxes. " * 40
SECOND = "A fox reads. The book sleeps about the owl. " * 50
SHAPE = {"tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 16}
RUN = {"batch": 4, "steps": 6, "eval_every": 3, "eval_tokens": 10_000, "sample_tokens": 5, "log_every": 1,
       "device": "cpu", "dtype": "fp32", "threads": 1}  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request, tmp_path_factory):
    """A trained model folder, its head untied in one family, with its text beside it."""
    place = tmp_path_factory.mktemp(request.param)
    (place / "first.txt").write_text(FIRST + SECOND, encoding="utf-8")
    settings = SHAPE | RUN | {"family": request.param, "tie": request.param == "gpt2"}
    pretrain.run(Pretrain.create(data=[str(place / "first.txt")], out=place / "run", **settings))
    return place / "run" / "model"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "second.txt"
    path.write_text(SECOND, encoding="utf-8")
    return path


def asked(base, text, out, **changes):
    return Pretrain.create(**{"from_model": str(base), "data": [str(text)], "out": out} | RUN | changes)


def records(out):
    clocks = ("seconds", "tokens_per_second")
    return [{key: value for key, value in record.items() if key not in clocks} for record in Journal(out).read()]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def weights(out):
    return folder.load(out).model.state_dict()


def test_before_the_first_step_the_loss_is_the_imported_models(base, text, tmp_path):
    pretrain.run(asked(base, text, tmp_path / "run"))
    first = next(record for record in Journal(tmp_path / "run").read() if record["kind"] == "eval")
    assert first["step"] == 0
    valid = tmp_path / "valid.txt"
    valid.write_text(SECOND[int(0.9 * len(SECOND)) :], encoding="utf-8")  # the last tenth is kept for validation
    measured = evaluate.run(Evaluate.create(model=str(base), data=[str(valid)], device="cpu", dtype="fp32", threads=1))
    assert first["loss"] == pytest.approx(measured.loss, abs=1e-6)
    last = [record for record in Journal(tmp_path / "run").read() if record["kind"] == "eval"][-1]
    assert last["loss"] < first["loss"]


def test_the_card_says_where_it_came_from(base, text, tmp_path):
    pretrain.run(asked(base, text, tmp_path / "run", steps=1))
    card = folder.load(tmp_path / "run").card
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert card["from"] == str(base) and card["from_sha256"] == digest
    assert read_toml(tmp_path / "run" / "settings.toml")["from_model"] == str(base)


class Cut(Exception):
    """The plug is pulled."""


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"add_tokens": ["<|user|>", "<|bot|>"], "dropout": 0.2, "context": 8}])
def test_a_killed_run_goes_on_bit_for_bit_without_the_original(base, text, tmp_path, monkeypatch, change):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    pretrain.run(asked(copy, text, tmp_path / "whole", save_every="2", **change))
    real, done = loop._gradient, {"calls": 0}

    def gradient(*args, **kwargs):
        value = real(*args, **kwargs)
        done["calls"] += 1
        if done["calls"] > 3:
            raise Cut
        return value

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(loop, "_gradient", gradient)
        pretrain.run(asked(copy, text, tmp_path / "cut", save_every="2", **change))
    shutil.rmtree(copy)
    torch.manual_seed(999)  # the new process has other random numbers
    pretrain.run(Pretrain.create(out=tmp_path / "cut", resume=True))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert records(tmp_path / "whole") == records(tmp_path / "cut")
    assert folder.load(tmp_path / "cut").card["from_sha256"] == folder.load(tmp_path / "whole").card["from_sha256"]


def test_added_tokens_have_rows_and_names(base, text, tmp_path):
    pretrain.run(asked(base, text, tmp_path / "run", add_tokens=["<|user|>", "<|bot|>"], lr=1e-12, weight_decay=0.0))
    old, new = folder.load(base), folder.load(tmp_path / "run")
    known = old.tokenizer.vocabulary
    assert new.tokenizer.special["<|user|>"] == known and new.tokenizer.vocabulary == known + 2
    assert new.model.config.vocabulary == known + 2 and new.card["added_tokens"] == 2
    table, mean = new.model.token_table.weight, old.model.token_table.weight.mean(0)
    assert torch.allclose(table[known:], mean.expand(2, -1), atol=1e-6)  # at this rate nothing was learnt
    assert torch.allclose(table[:known], old.model.token_table.weight, atol=1e-6)


def test_a_token_it_has_is_not_added(base, text, tmp_path):
    with_one = tmp_path / "one"
    loaded = folder.load(base)
    padded = loaded.tokenizer.with_special(["<|x|>"])
    from groundup.model.surgery import extend_vocabulary

    folder.save_model(with_one, extend_vocabulary(loaded.model, 40, known=loaded.tokenizer.vocabulary), padded, card={})
    pretrain.run(asked(with_one, text, tmp_path / "run", steps=1, add_tokens=["<|x|>", "<|y|>"]))
    found = folder.load(tmp_path / "run")
    assert found.model.config.vocabulary == 40  # rows of filler stay, one of them now means <|y|>
    assert found.tokenizer.vocabulary == padded.vocabulary + 1


def test_a_shorter_context_trains_on_shorter_rows_and_leaves_the_models_own(base, text, tmp_path):
    result = pretrain.run(asked(base, text, tmp_path / "run", context=8))
    assert result.tokens == 6 * 4 * 8
    assert folder.load(tmp_path / "run").model.config.context == 16
    with pytest.raises(SettingsError, match="--context 32 is more than the model's context of 16"):
        pretrain.run(asked(base, text, tmp_path / "long", context=32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 32}, "leave --width out"),
        ({"size": "3m"}, "leave --size out"),
        ({"family": "qwen3"}, "leave --family out"),
        ({"kv_heads": 1}, "leave --kv-heads out"),
        ({"qkv_bias": False}, "leave --qkv-bias out"),
        ({"tie": True}, "leave --tie out"),
        ({"init": "torch"}, "leave --init out"),
        ({"vocabulary": 500}, "leave --vocabulary out"),
        ({"tokenizer": "bpe"}, "leave --tokenizer out"),
    ],
)
def test_what_shapes_the_network_is_refused_with_its_value(base, text, tmp_path, change, words):
    with pytest.raises(SettingsError, match="--from") as caught:
        pretrain.run(asked(base, text, tmp_path / "run", **change))
    assert words in str(caught.value) and str(next(iter(change.values()))) in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_tokens_are_added_to_a_model_only(text, tmp_path):
    with pytest.raises(SettingsError, match="--add-tokens needs --from"):
        pretrain.run(Pretrain.create(data=[str(text)], out=tmp_path / "run", add_tokens=["<|x|>"]))


def test_the_tokenizer_may_be_named_if_it_is_the_same(base, text, tmp_path):
    pretrain.run(asked(base, text, tmp_path / "run", steps=1, tokenizer=str(base)))
    tokens.train("chars", ["xyz"]).save(tmp_path / "other")
    with pytest.raises(TokenizerError, match="is not the tokenizer of"):
        pretrain.run(asked(base, text, tmp_path / "no", tokenizer=str(tmp_path / "other")))


@pytest.mark.slow
def test_shards_are_taken_only_from_its_tokenizer(base, text, tmp_path):
    from groundup.text.read import sources

    own = tokens.load(base)
    prepare.prepare(sources([str(text)]), own, tmp_path / "own")
    prepare.prepare(sources([str(text)]), tokens.train("chars", [SECOND]), tmp_path / "other")
    plain = pretrain.run(asked(base, text, tmp_path / "run"))
    shards = pretrain.run(asked(base, tmp_path / "own", tmp_path / "shards", add_tokens=["<|x|>"]))
    assert shards.tokens == plain.tokens
    pretrain.run(Pretrain.create(out=tmp_path / "shards", resume=True, steps=7))
    with pytest.raises(TokenizerError, match="was prepared with another tokenizer"):
        pretrain.run(asked(base, tmp_path / "other", tmp_path / "no"))


def test_a_character_the_model_does_not_know_is_refused(base, tmp_path):
    (tmp_path / "foreign.txt").write_text("Ünknown " * 50, encoding="utf-8")
    with pytest.raises(UserError):
        pretrain.run(asked(base, tmp_path / "foreign.txt", tmp_path / "run"))
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_model_that_is_not_there_is_refused_and_leaves_nothing(text, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        pretrain.run(asked(tmp_path / "nowhere", text, tmp_path / "run"))
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_the_word_on_the_command_line_and_in_toml_is_from(base, text, tmp_path, capsys):
    words = ["pretrain", "--from", str(base), "--data", str(text), "--out", str(tmp_path / "a"), "--steps", "1"]
    assert cli.main([*words, "--batch", "4", "--dry-run"]) == 0
    assert not (tmp_path / "a").exists()
    file = tmp_path / "run.toml"
    file.write_text(f"from = '{base}'\nsteps = 1\n", encoding="utf-8")
    assert Pretrain.create(config=file).from_model == str(base)
    capsys.readouterr()
    assert cli.main([*words, "--width", "8"]) == 2
    assert "leave --width out" in capsys.readouterr().err


def test_it_goes_on_gently_and_with_rows_that_fit(base, text, tmp_path):
    """A tenth of a new network's rate; of a very long context no more than 1,024 unless asked."""
    pretrain.run(asked(base, text, tmp_path / "run", steps=1))
    rate = read_toml(tmp_path / "run" / "settings.toml")["lr"]
    assert rate == pytest.approx(plan.default_lr(16) / 10) and rate == pytest.approx(3e-4)
    tokenizer = tokens.train("chars", ["ab"])
    long = Start(ModelConfig(family="llama", vocabulary=3, context=131_072, width=4, layers=1, heads=1), tokenizer)
    assert (long.seen(None).context, long.seen(4096).context) == (1024, 4096)
    assert replace(long, tokenizer=None).seen(None).context == 131_072


def test_what_a_settings_file_says_of_the_network_gives_way_to_from(base, text, tmp_path, capsys):
    """`--config cpu --from X`: the person gave no --size; their own flags are refused as before."""
    found = Pretrain.create(config="cpu", from_model=str(base), data=[str(text)])
    assert "size" not in found.model_fields_set and (found.batch, found.optimizer) == (16, "muon")
    assert "of --config not used: size, family" in capsys.readouterr().err
    pretrain.run(asked(base, text, tmp_path / "run", config="cpu", minutes=None, context=8, steps=1))
    with pytest.raises(SettingsError, match="leave --size out"):
        pretrain.run(asked(base, text, tmp_path / "no", config="cpu", size="3m"))
    Pretrain.create(config="cpu")
    capsys.readouterr()
    assert Pretrain.create(config="cpu").size == "3m" and not capsys.readouterr().err


def test_added_tokens_are_told(base, text, tmp_path, capsys):
    """A comma makes one token of two, and one that is there is not added: both are seen before the run begins."""
    pretrain.run(asked(base, text, tmp_path / "a", steps=1, add_tokens=["<a>,<b>"]))
    assert "added tokens: '<a>,<b>'\n" in capsys.readouterr().err
    pretrain.run(asked(tmp_path / "a", text, tmp_path / "b", steps=1, add_tokens=["<a>,<b>"]))
    assert "added tokens: none; already there: '<a>,<b>'\n" in capsys.readouterr().err


def test_too_long_a_context_is_refused_before_the_text_is_read(base, tmp_path):
    with pytest.raises(SettingsError, match="--context 32 is more than the model's context of 16"):
        pretrain.run(asked(base, tmp_path / "no such text", tmp_path / "run", context=32))


def test_the_hash_is_of_the_files_that_are_opened(base, tmp_path):
    """What lies beside the weights, a trainer's notes or a second set, changes nothing."""
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    (copy / "training_args.bin").write_bytes(b"notes")
    (copy / "pytorch_model.bin").write_bytes(b"the same as pickles")
    assert weights_hash(copy) == hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    shards = tmp_path / "shards"
    shards.mkdir()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    listed = ""
    for name in names:
        (shards / name).write_bytes(name.encode())
        listed += f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n"
    (shards / "other.safetensors").write_bytes(b"beside")
    index = {"weight_map": dict(zip(("b", "a", "c"), (names[1], names[0], names[1]), strict=True))}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert weights_hash(shards) == hashlib.sha256(listed.encode()).hexdigest()


def test_a_new_network_may_have_the_tokenizer_of_a_model_from_elsewhere(data_dir, tmp_path):
    model = data_dir / "stories260k" / "stories260K.bin"
    if not model.is_file():
        pytest.skip("the sample data lack stories260k: it is huggingface.co/karpathy/tinyllamas")
    (tmp_path / "text.txt").write_text(FIRST, encoding="utf-8")
    settings = SHAPE | RUN | {"tokenizer": str(model), "steps": 1}
    pretrain.run(Pretrain.create(data=[str(tmp_path / "text.txt")], out=tmp_path / "run", **settings))
    assert folder.load(tmp_path / "run").tokenizer.vocabulary == 512
    assert tokenizer_of("bpe") is None and tokenizer_of(str(tmp_path / "text.txt")) is None
