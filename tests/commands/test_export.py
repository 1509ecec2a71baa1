"""`groundup export`: what is written is what other programs open; what stands in the way is said; checks can fail."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import cli, tokens
from groundup.checkpoint import atomic, consumers, folder
from groundup.checkpoint.identity import weights_hash
from groundup.commands import export_check
from groundup.commands.export import Result, _beside, _next, _place, run, show
from groundup.commands.export_check import PROBES, Check, passages, probes, texts
from groundup.errors import CheckpointError, SettingsError, TokenizerError
from groundup.evaluate.agreement import Agreement
from groundup.model import BigramConfig, ModelConfig, build, lora
from groundup.model.heads import Classifier, HeadConfig
from groundup.model.lora import LoraConfig
from groundup.settings import Export, Generate, Import

TEXT = "the quick brown fox jumps over the lazy dog. é ☃\n"
CONFIG = ModelConfig(
    family="llama", vocabulary=290, context=48, width=32, layers=2, heads=4, kv_heads=2, init="torch", tie=False
)
needs_transformers = pytest.mark.skipif(not consumers.available("transformers"), reason="transformers is not installed")
needs_llama_cpp = pytest.mark.skipif(not consumers.available("llama_cpp"), reason="llama-cpp-python is not installed")


def save(path: Path, config: ModelConfig | BigramConfig = CONFIG, *, kind: str = "bpe") -> Path:
    """A model with large random weights, which always says the same, in a folder of its own."""
    tokenizer = tokens.train(kind, [TEXT * 9], vocabulary=280 if kind == "bpe" else None)
    folder.save_model(path, build(config, seed=6), tokenizer, card={"data": "a fox"})
    return path


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "fox")


def ask(model: Path | str, **wishes: object) -> Result:
    return run(Export.create(model=str(model), **wishes))


# --- a Hugging Face folder ---------------------------------------------------------------------------------------


def test_hf_as_stored_is_the_same_model(model_folder: Path, tmp_path: Path):
    result = ask(model_folder, to="hf", out=tmp_path / "copy")
    first, second = folder.load(model_folder), folder.load(tmp_path / "copy")
    assert second.card == first.card and second.tokenizer.fingerprint == first.tokenizer.fingerprint
    for (name, one), (_, other) in zip(
        first.model.state_dict().items(), second.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    assert result.dtype == "f32" and result.ok and not result.checks
    there = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert result.files == there and result.bytes == sum(p.stat().st_size for p in (tmp_path / "copy").iterdir())


@pytest.mark.parametrize(("dtype", "there"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)])
def test_hf_in_another_format(model_folder: Path, tmp_path: Path, dtype: str, there: torch.dtype):
    ask(model_folder, to="hf", out=tmp_path / "copy", dtype=dtype)
    assert {value.dtype for value in folder.load(tmp_path / "copy").model.state_dict().values()} == {there}
    config = json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == str(there).removeprefix("torch.")


def test_numbers_too_large_for_f16_are_refused_with_nothing_written(tmp_path: Path):
    model, tokenizer = build(CONFIG, seed=1), tokens.train("bpe", [TEXT], vocabulary=280)
    model.norm.weight.data[3] = 70_000
    folder.save_model(tmp_path / "large", model, tokenizer, card={})
    with pytest.raises(CheckpointError, match=r"norm.weight holds 70,000, f16 ends at 65,504\n  -> .* bf16"):
        ask(tmp_path / "large", to="hf", dtype="f16")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]
    ask(tmp_path / "large", to="hf", dtype="bf16")


@pytest.mark.parametrize("dtype", ["auto", "f32", "f16", "bf16"])
def test_numbers_that_are_not_finite_are_refused_in_every_format(tmp_path: Path, dtype: str):
    model, tokenizer = build(CONFIG, seed=1), tokens.train("bpe", [TEXT], vocabulary=280)
    model.norm.weight.data[3] = torch.nan
    folder.save_model(tmp_path / "broken", model, tokenizer, card={})
    with pytest.raises(CheckpointError, match="norm.weight holds numbers that are not finite"):
        ask(tmp_path / "broken", to="hf", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@needs_transformers
@pytest.mark.parametrize("dtype", ["auto", "bf16", "f16"])
def test_hf_is_checked_by_transformers(model_folder: Path, tmp_path: Path, dtype: str):
    """The weights as written, rounded or not, give the same logits there and here."""
    result = ask(model_folder, to="hf", out=tmp_path / "copy", dtype=dtype, check=True)
    ids, logits = result.checks
    assert [check.outcome for check in result.checks] == ["passed", "passed"] and result.ok
    assert f"ids equal for {len(PROBES) + 1} hard texts (transformers" in ids.words
    assert logits.agreement.positions >= 480 and logits.agreement.relative < 1e-4 and logits.agreement.top1 > 0.99


@needs_transformers
@pytest.mark.parametrize("kind", ["chars", "words"])
def test_simple_tokenizers_are_checked_on_what_they_can_say(tmp_path: Path, kind: str):
    result = ask(save(tmp_path / "simple", kind=kind), to="hf", check=True)
    assert result.ok and [check.outcome for check in result.checks] == ["passed", "passed"]
    if kind == "chars":  # of the hard texts it knows the letters of one: <|endoftext|> as plain text has none it lacks
        unsaid = len(probes(tokens.load(tmp_path / "simple"))) - 1
        words = f"; {unsaid} not compared, a tokenizer of chars cannot say them"
        assert result.checks[0].words.startswith("ids equal for 1 hard text (") and words in result.checks[0].words


@needs_transformers
def test_a_bigram_is_checked_as_far_as_can_be(tmp_path: Path):
    result = ask(save(tmp_path / "two", BigramConfig(vocabulary=280, context=9)), to="hf", check=True)
    assert [check.outcome for check in result.checks] == ["passed", "not checked"] and result.ok
    assert result.next == [f"groundup generate {tmp_path / 'two-hf'}"]


@needs_transformers
def test_an_altered_copy_fails_and_is_kept(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two heads swapped in the file that transformers opens: the check says so, status 1, and the file stays."""
    whole = folder.save_model

    def spoilt(path: Path, model: torch.nn.Module, *rest: object, **more: object) -> None:
        matrix = model.blocks[1].attention.qkv.weight.data
        matrix[:16] = matrix[:16].roll(8, 0)
        whole(path, model, *rest, **more)
        matrix[:16] = matrix[:16].roll(8, 0)

    monkeypatch.setattr(folder, "save_model", spoilt)
    status = cli.main(["export", str(model_folder), "--to", "hf", "--out", str(tmp_path / "copy"), "--check"])
    shown = capsys.readouterr().out
    assert status == 1 and (tmp_path / "copy" / "model.safetensors").is_file()
    assert "FAILED   largest difference of a logit" in shown and "at most 1e-04" in shown
    assert f"the file is kept; do not hand it on before you know why: {tmp_path / 'copy'}" in shown
    assert "next" not in shown


# --- classifiers -------------------------------------------------------------------------------------------------


def classes(path: Path, family: str = "llama", *, seed: int = 3, **head: Any) -> Path:
    """A classifier whose logits are large and hang on the text."""
    tokenizer = tokens.train("bpe", [TEXT * 9], vocabulary=280)
    trunk = build(ModelConfig(family=family, vocabulary=290, context=48, width=32, layers=2, heads=4), seed=6)
    model = Classifier(trunk, HeadConfig(("ham", "spam", "jam"), **head), seed=seed)
    for parameter in model.score.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    folder.save_model(path, model, tokenizer, card={"data": "a fox"})
    return path


@needs_transformers
@pytest.mark.parametrize(("family", "bias"), [("gpt2", True), ("llama", False), ("qwen3", False)])
def test_a_classifier_is_checked_as_one(tmp_path: Path, family: str, bias: bool):
    result = ask(classes(tmp_path / "judge", family, bias=bias), to="hf", check=True)
    assert result.ok and [check.outcome for check in result.checks] == ["passed", "passed"]
    assert result.checks[1].agreement is not None and result.checks[1].agreement.positions >= 10  # texts
    assert ("without the bias of the head" in result.checks[1].words) == bias
    assert result.next[0] == f"groundup predict {tmp_path / 'judge-hf'} --text ..."
    assert "text-classification" in result.next[1] and "generat" not in " ".join(result.next)


@needs_transformers
def test_an_altered_classifier_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = folder.save_model

    def spoilt(path: Path, model: torch.nn.Module, *rest: object, **more: object) -> None:
        rows = model.score.weight.data
        rows[:2] = rows[:2].flip(0)
        whole(path, model, *rest, **more)
        rows[:2] = rows[:2].flip(0)

    judge = classes(tmp_path / "judge")
    monkeypatch.setattr(folder, "save_model", spoilt)
    result = ask(judge, to="hf", check=True)
    assert not result.ok and result.checks[1].outcome == "failed" and result.next == []


@needs_transformers
def test_a_head_that_transformers_reads_elsewhere_is_not_compared(tmp_path: Path):
    result = ask(classes(tmp_path / "judge", pooling="mean"), to="hf", check=True)
    assert result.ok and result.checks[1].outcome == "not checked" and "'mean'" in result.checks[1].words


@needs_transformers
def test_adapters_of_a_classifier_are_exported_merged_and_checked(tmp_path: Path, model_folder: Path):
    loaded = folder.load(model_folder)
    config = LoraConfig(rank=2, base=str(model_folder), base_sha256=weights_hash(model_folder))
    model = lora.add(Classifier(loaded.model, HeadConfig(("ham", "spam")), seed=2), config, seed=1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(4))
    folder.save_model(tmp_path / "judge", model, loaded.tokenizer, card={})
    result = ask(tmp_path / "judge", to="hf", check=True)
    assert result.ok and [check.outcome for check in result.checks] == ["passed", "passed"]
    assert (tmp_path / "judge-hf" / "config.json").is_file()


def test_of_a_run_that_classifies_the_best_weights_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """They are what test.json and `groundup predict` speak of; a run of another command has its last ones."""
    out = tmp_path / "run"
    best = folder.load(classes(out / "best", seed=3), classifier=True).model
    classes(out / "model", seed=4)
    (out / "settings.toml").write_text("# groundup classify: the settings of this run\n", encoding="utf-8")
    result = ask(out, to="hf")
    taken = folder.load(tmp_path / "run-hf", classifier=True).model
    assert torch.equal(taken.score.weight, best.score.weight)
    show(result)
    assert f"note     the weights are those of {out / 'best'}" in capsys.readouterr().out
    (out / "settings.toml").write_text("# groundup instruct: the settings of this run\n", encoding="utf-8")
    again = ask(out, to="hf", out=tmp_path / "last")
    assert again.model == out / "model" and again.remarks == []


# --- tiktoken ----------------------------------------------------------------------------------------------------


def test_tiktoken_gives_our_ids(model_folder: Path, tmp_path: Path):
    result = ask(model_folder, to="tiktoken", out=tmp_path / "fox.tiktoken", check=True)
    [check] = result.checks
    assert check.outcome == "passed" and result.files == ["fox.tiktoken", "fox.tiktoken.json"]
    about = json.loads((tmp_path / "fox.tiktoken.json").read_text(encoding="utf-8"))
    tokenizer = tokens.load(model_folder)
    assert about["special_tokens"] == tokenizer.special
    assert len((tmp_path / "fox.tiktoken").read_text().splitlines()) == 279


def test_the_lines_in_the_note_build_the_encoding(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ask(model_folder, to="tiktoken", out=tmp_path / "fox.tiktoken")
    about = json.loads((tmp_path / "fox.tiktoken.json").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec("\n".join(about["build"]), names)  # our own lines, as a person would paste them
    tokenizer = tokens.load(model_folder)
    for text, ids in texts(tokenizer):
        assert names["encoding"].encode_ordinary(text) == ids
    assert names["encoding"].encode("<|endoftext|>", allowed_special="all") == [279]


def test_tiktoken_has_no_characters(tmp_path: Path):
    with pytest.raises(TokenizerError):
        ask(save(tmp_path / "simple", kind="chars"), to="tiktoken")
    assert [path.name for path in tmp_path.iterdir()] == ["simple"]


def test_a_rank_file_that_cannot_be_written_leaves_no_note(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = atomic.write_text

    def full(path: Path, text: str) -> None:
        if path.suffix == ".tiktoken":
            raise OSError(28, "No space left on device", str(path))
        whole(path, text)

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(atomic, "write_text", full)
        ask(model_folder, to="tiktoken", out=tmp_path / "fox.tiktoken")
    assert not list(tmp_path.iterdir())
    ask(model_folder, to="tiktoken", out=tmp_path / "fox.tiktoken")


# --- GGUF and Ollama ---------------------------------------------------------------------------------------------


def test_gguf_stands_beside_the_model_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("gguf")
    save(tmp_path / "fox")
    assert cli.main(["export", str(tmp_path / "fox"), "--to", "gguf"]) == 0
    file = tmp_path / "fox-f16.gguf"
    assert file.read_bytes()[:4] == b"GGUF"
    shown = capsys.readouterr().out
    assert f"written  {file} in f16, {file.stat().st_size / 1e6:.1f} MB: fox-f16.gguf" in shown
    assert f"next     llama-cli -m {file} -p Once -n 100" in shown


def test_ollama_is_a_folder_with_a_modelfile(tmp_path: Path):
    pytest.importorskip("gguf")
    save(tmp_path / "Fox_1.5")
    result = ask(tmp_path / "Fox_1.5", to="ollama", dtype="q8_0")
    assert {"Fox_1.5-q8_0.gguf", "Modelfile"} <= set(result.files)
    text = (tmp_path / "Fox_1.5-ollama" / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./Fox_1.5-q8_0.gguf\n") and "PARAMETER num_ctx 48" in text
    modelfile = tmp_path / "Fox_1.5-ollama" / "Modelfile"
    assert result.next == [f"ollama create fox-1-5 -f {modelfile}", "ollama run fox-1-5"]


def test_what_gguf_cannot_hold_leaves_nothing_behind(tmp_path: Path):
    pytest.importorskip("gguf")
    save(tmp_path / "simple", kind="chars")
    for to in ("gguf", "ollama"):
        with pytest.raises((CheckpointError, TokenizerError)):
            ask(tmp_path / "simple", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["simple"]


@pytest.mark.slow
@needs_llama_cpp
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_gguf_is_checked_by_llama_cpp(tmp_path: Path, family: str, dtype: str):
    sizes = {"vocabulary": 290, "context": 48, "width": 64, "layers": 2, "heads": 4, "init": "torch", "tie": False}
    save(tmp_path / "fox", ModelConfig(family=family, **sizes | ({"tie": True} if family == "gpt2" else {})))
    result = ask(tmp_path / "fox", to="gguf", dtype=dtype, check=True)
    assert [check.outcome for check in result.checks] == ["passed", "passed"], result.checks


# --- what the check would say of a program that answers otherwise --------------------------------------------------


@pytest.fixture
def llama_cpp_that(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Callable[..., None]:
    """Put a program in llama.cpp's place that answers as our own model does, but for what `spoil` makes of it."""

    def install(spoil_ids: Callable = lambda ids: ids, spoil_logits: Callable = lambda logits: logits) -> None:
        loaded = folder.load(model_folder)

        class Twin:
            def __init__(self, file: Path, *, context: int) -> None:
                pass

            def ids(self, text: str) -> list[int]:
                return spoil_ids(loaded.tokenizer.encode(text))

            def logits(self, ids: list[int]) -> torch.Tensor:
                with torch.inference_mode():
                    return spoil_logits(loaded.model(torch.tensor([ids]))[0])

            def __enter__(self) -> "Twin":
                return self

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(consumers, "LlamaCpp", Twin)
        monkeypatch.setattr(consumers, "imported", lambda name: None)
        monkeypatch.setattr(consumers, "label", lambda name: "twin 1.0")

    return install


def test_equal_answers_pass(llama_cpp_that: Callable[..., None], model_folder: Path):
    llama_cpp_that()
    checks = export_check.check_gguf(Path("x"), folder.load(model_folder), "f16")
    assert [check.outcome for check in checks] == ["passed", "passed"]
    assert (
        "same most likely token at 100.0% of" in checks[1].words
        and "(twin 1.0; at least 99%, KL at most 0.01%)" in checks[1].words
    )


def test_one_wrong_id_fails_and_is_shown(llama_cpp_that: Callable[..., None], model_folder: Path):
    llama_cpp_that(spoil_ids=lambda ids: [*ids[:-1], 7])
    check, _ = export_check.check_gguf(Path("x"), folder.load(model_folder), "f16")
    assert check.outcome == "failed" and "ids differ for" in check.words and "theirs [7]" in check.words


@pytest.mark.parametrize(("dtype", "outcome"), [("f16", "failed"), ("q8_0", "failed"), ("q4_0", "shown")])
def test_other_choices_fail_where_there_is_a_bound(
    llama_cpp_that: Callable[..., None], model_folder: Path, dtype: str, outcome: str
):
    llama_cpp_that(spoil_logits=lambda logits: 50 * logits.roll(1, -1))
    _, check = export_check.check_gguf(Path("x"), folder.load(model_folder), dtype)
    assert check.outcome == outcome and check.agreement.top1 < 0.5


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_a_model_that_says_nothing_is_shown_and_not_judged(
    llama_cpp_that: Callable[..., None], model_folder: Path, dtype: str
):
    loaded = folder.load(model_folder)
    for parameter in loaded.model.parameters():
        parameter.data.zero_()
    llama_cpp_that(spoil_logits=lambda logits: 0 * logits)
    _, check = export_check.check_gguf(Path("x"), loaded, dtype)
    assert check.outcome == "shown" and "too little to judge by" in check.words


@pytest.mark.parametrize("spoil", [lambda logits: logits * torch.nan, lambda logits: logits[:, :-1]])
def test_answers_that_are_none_fail(llama_cpp_that: Callable[..., None], model_folder: Path, spoil: Callable):
    llama_cpp_that(spoil_logits=spoil)
    _, check = export_check.check_gguf(Path("x"), folder.load(model_folder), "f16")
    assert check.outcome == "failed"


def test_a_file_that_does_not_open_fails_in_words(monkeypatch: pytest.MonkeyPatch, model_folder: Path):
    def refuses(file: Path, **_: object) -> None:
        raise CheckpointError("llama.cpp cannot open x: unknown pre-tokenizer")

    monkeypatch.setattr(consumers, "LlamaCpp", refuses)
    monkeypatch.setattr(consumers, "imported", lambda name: None)
    monkeypatch.setattr(consumers, "label", lambda name: "twin 1.0")
    [check] = export_check.check_gguf(Path("x"), folder.load(model_folder), "f16")
    assert check == Check("file", "twin 1.0", "failed", "llama.cpp cannot open x: unknown pre-tokenizer")


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_without_the_program_it_says_what_was_not_checked(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], to: str
):
    if to == "gguf":
        pytest.importorskip("gguf")
    monkeypatch.setattr(consumers, "available", lambda name: False)
    status = cli.main(["export", str(model_folder), "--to", to, "--out", str(tmp_path / "x"), "--check"])
    package = {"hf": "transformers", "gguf": "llama-cpp-python"}[to]
    shown = capsys.readouterr().out
    assert status == 0 and f"check    not checked: {package} is not installed (pip install {package})" in shown


def test_a_program_that_does_not_load_says_nothing_about_the_file(monkeypatch: pytest.MonkeyPatch, model_folder: Path):
    def broken(name: str) -> None:
        raise OSError("libllama.so: wrong ELF class")

    loaded = folder.load(model_folder)
    monkeypatch.setattr(consumers, "available", lambda name: True)
    monkeypatch.setattr("importlib.import_module", broken)
    [check] = export_check.check_gguf(Path("x"), loaded, "f16")
    assert check.outcome == "not checked" and "does not load: libllama.so: wrong ELF class" in check.words


def test_passages_are_the_same_every_time_and_fit(model_folder: Path):
    loaded = folder.load(model_folder)
    rows = list(passages(loaded.model, loaded.tokenizer))
    assert rows == list(passages(loaded.model, loaded.tokenizer))
    assert all(0 < len(row) <= 48 for row in rows) and len(rows) == 512 // 48 + 1
    assert len({tuple(row) for row in rows}) == len(rows), "each row is a text of its own"
    assert all(row[0] == loaded.tokenizer.end_of_text for row in rows)


# --- what stands in the way --------------------------------------------------------------------------------------


def test_nothing_is_overwritten(model_folder: Path, tmp_path: Path):
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    for to in ("hf", "gguf", "ollama", "tiktoken"):
        with pytest.raises(SettingsError, match=r"taken is already there\n  -> delete it first"):
            ask(model_folder, to=to, out=taken)
    assert taken.read_text(encoding="utf-8") == "mine"
    (tmp_path / "a.tiktoken.json").write_text("mine", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"a.tiktoken.json is already there\n  -> .* half of an export"):
        ask(model_folder, to="tiktoken", out=tmp_path / "a.tiktoken")
    assert not (tmp_path / "a.tiktoken").exists()
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="lost is already there"):
        ask(model_folder, to="gguf", out=tmp_path / "lost")


def test_a_folder_given_for_a_file_gets_advice(model_folder: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match=r"give a file name: --out .*NAME.gguf"):
        ask(model_folder, to="gguf", out=tmp_path)


def test_a_file_in_the_way_of_the_folder(model_folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SettingsError, match="file is a file, so nothing can be written to"):
        ask(model_folder, to="hf", out=tmp_path / "file" / "a" / "b")


def test_folders_on_the_way_are_made(model_folder: Path, tmp_path: Path):
    assert ask(model_folder, to="tiktoken", out=tmp_path / "a" / "b" / "x.tiktoken").out.is_file()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"to": "hf", "dtype": "q8_0"}, "q8_0 is a number format of GGUF files"),
        ({"to": "tiktoken", "dtype": "f16"}, "tiktoken has no weights"),
    ],
)
def test_formats_that_do_not_go_together(model_folder: Path, tmp_path: Path, wishes: dict, words: str):
    with pytest.raises(SettingsError, match=words):
        ask(model_folder, out=tmp_path / "x", **wishes)
    assert not (tmp_path / "x").exists()


def test_a_model_must_be_named():
    with pytest.raises(SettingsError, match="no model was given"):
        ask("")


def test_names_of_models():
    assert [_place(path)[1] for path in ("runs/a/", "a.bin", "b-1.5", "runs/a/best")] == ["a", "a", "b-1.5", "best"]
    assert _place(".")[1] == Path.cwd().name


def test_a_model_inside_a_run_goes_beside_the_run_and_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_folder = tmp_path / "mine"
    run_folder.mkdir()
    (run_folder / "settings.toml").write_text("", encoding="utf-8")
    for inside, name in {"": "mine", "model": "mine", "best": "mine-best"}.items():
        model = str(run_folder / inside)
        assert _place(model) == (tmp_path, name) and _beside(model, "gguf", "f16") == tmp_path / f"{name}-f16.gguf"
    save(run_folder / "best")
    for here, word in ((run_folder, "best"), (run_folder / "best", "."), (tmp_path, "mine/best")):
        monkeypatch.chdir(here)
        assert _place(word)[1] == "mine-best"
    assert ask("mine/best", to="hf").out == Path("mine-best-hf")
    assert sorted(path.name for path in run_folder.iterdir()) == ["best", "settings.toml"]


@pytest.mark.parametrize(("word", "meant"), [("fp32", "f32"), ("fp16", "f16"), ("q8_0", "q8_0")])
def test_number_formats_may_be_spelled_as_in_torch(word: str, meant: str):
    assert Export.create(model="x", dtype=word).dtype == meant


def test_number_formats_may_be_spelled_as_in_llama_cpp():
    assert Import.create(dtype="f16").dtype == "fp16" and Generate.create(dtype="f32").dtype == "fp32"
    assert cli.main(["import", "nowhere", "--out", "x", "--dtype", "f16"]) == 2, "the model is missing, not the format"


def test_commands_to_type_can_be_pasted_whatever_the_path(model_folder: Path):
    loaded = folder.load(model_folder)
    odd = Path("my models") / 'it\'s "x"'
    assert _next(odd, "gguf", loaded, "x") == ["llama-cli -m 'my models/it'\"'\"'s \"x\"' -p Once -n 100"]
    words = shlex.split(_next(odd, "hf", loaded, "x")[0])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "pasted", "exec")


def test_json_holds_the_checks(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["export", str(model_folder), "--to", "tiktoken", "--out", str(tmp_path / "x"), "--check", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {field.name for field in dataclasses.fields(Result)}
    assert found["checks"][0]["outcome"] == "passed" and found["ok"] is True


def test_show_words_a_check_that_failed(capsys: pytest.CaptureFixture[str]):
    check = Check("logits", "twin", "failed", "logits differ", Agreement(1, 0.0, 1.0, 1.0, 1.0))
    remarks, next_ = ["wte is f16"], []
    show(Result(Path("m"), "gguf", Path("m.gguf"), "f16", 5_000_000, ["m.gguf"], remarks, next_, [check], False))
    assert capsys.readouterr().out.splitlines() == [
        "written  m.gguf in f16, 5.0 MB: m.gguf",
        "note     wte is f16",
        "FAILED   logits differ",
        "the file is kept; do not hand it on before you know why: m.gguf",
    ]
