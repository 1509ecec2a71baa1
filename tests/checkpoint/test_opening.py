"""What a path or a name means: which reader it goes to, and what is said where there is none."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from groundup import tokens
from groundup.checkpoint import folder, opening, sources
from groundup.checkpoint.opening import kind_of, open_any
from groundup.errors import CheckpointError, DataError
from groundup.model import ModelConfig, build

sys.path.insert(0, str(Path(__file__).parent))
import tiny_llama2c as tiny  # noqa: E402


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are inside this test's folder; no mirror, and a cache folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GROUNDUP_DATA", raising=False)


def touch(*names: str, content: bytes = b"{}") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def ours(path: str, seed: int = 1) -> None:
    tokenizer = tokens.train("chars", ["a cat sat"])
    config = ModelConfig(family="qwen3", vocabulary=tokenizer.vocabulary, context=8, width=8, layers=1, heads=2)
    folder.save_model(Path(path), build(config, seed=seed), tokenizer, card={"licence": "mine"})


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["m/config.json", "m/model.safetensors"], "huggingface"),
        (["m/config.json", "m/model-00001-of-00002.safetensors", "m/model.safetensors.index.json"], "huggingface"),
        (["m/config.json", "m/pytorch_model.bin"], "huggingface"),
        (["m/config.json"], "huggingface"),  # its reader says that the weights are missing
        (["m/config.json", "m/model.safetensors", "m/model.gguf"], "huggingface"),
        (["m/config.json", "m/model.gguf"], "gguf"),
        (["m/model.GGUF"], "gguf"),
        (["m/settings.toml"], "huggingface"),  # a run without a checkpoint
        (["m/model/config.json", "m/settings.toml"], "huggingface"),
        (["m/checkpoint", "m/hparams.json", "m/encoder.json"], "openai"),
        (["m/checkpoint", "m/hparams.json", "m/config.json"], "openai"),
        (["m/checkpoint", "m/hparams.json", "m/config.json", "m/model.safetensors"], "huggingface"),
    ],
)
def test_folders_are_told_apart(files: list[str], kind: str):
    touch(*files)
    assert kind_of(Path("m")) == kind


def test_files_are_told_apart():
    touch("a.gguf", "b.bin")
    touch("c", content=b"GGUF\3\0\0\0")
    touch("d.bin", content=(640).to_bytes(4, "little"))  # as a header of llama2.c; a pickle begins with 80 02, too
    assert [kind_of(Path(name)) for name in ("a.gguf", "b.bin", "c", "d.bin")] == [
        "gguf",
        "llama2.c",
        "gguf",
        "llama2.c",
    ]


@pytest.mark.parametrize("content", [b"PK\3\4 zip", b"\x80\x02}q\0.", b"\x80\x05\x95\1"])
def test_pickles_are_refused(content: bytes):
    touch("model.bin", "model.pt", content=content)
    for name in ("model.bin", "model.pt"):
        with pytest.raises(CheckpointError, match=r"is a pickle, which can run any code.*\n.*safetensors"):
            open_any(name)


def test_other_files_are_refused():
    touch("model.safetensors", "notes.txt")
    with pytest.raises(CheckpointError, match=r"no model file .*\n.*looked for: .*Give the folder it lies in\."):
        open_any("model.safetensors")
    with pytest.raises(CheckpointError, match=r"notes.txt is no model file .*\n.*looked for: .*llama2.c \.bin file$"):
        open_any("notes.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for():
    os.mkfifo("model.bin")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        open_any("model.bin")


def test_several_ggufs_are_refused():
    touch("m/a.gguf", "m/b.gguf")
    with pytest.raises(CheckpointError, match=r"m holds 2 \.gguf files: a\.gguf, b\.gguf\n.*give one of them"):
        open_any("m")


def test_an_empty_folder_is_refused():
    Path("nothing").mkdir()
    with pytest.raises(CheckpointError, match=r"nothing holds no model .*\n.*looked for: a run or model folder"):
        open_any("nothing")


def test_a_path_that_exists_wins_over_a_name():
    Path("gpt2").mkdir()
    with pytest.raises(CheckpointError, match=r"gpt2 holds no model .*\n.*rename it to get the catalog's model 'gpt2'"):
        open_any("gpt2")
    ours("stories260k")
    assert open_any("stories260k").config.family == "qwen3"


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ("stories260", "did you mean 'stories260k'"),
        ("smollm2", "did you mean 'smollm2-135m'"),
        ("runs/frist", "check the path; or give a name that `groundup models` lists"),
        ("model.gguf", "check the path"),
    ],
)
def test_what_is_not_there_gets_advice(spec: str, advice: str):
    with pytest.raises(CheckpointError) as found:
        open_any(spec)
    assert "no file or folder" in found.value.what and advice in found.value.fix


def test_runs_and_model_folders_of_ours_open():
    ours("run/model")
    ours("run/best", seed=2)
    for spec in ("run", "run/model", "run/best"):
        source = open_any(spec)
        assert (source.format, source.card["licence"]) == ("huggingface", "mine")
        assert source.path == Path("run/best" if spec == "run/best" else "run/model")


def test_a_run_without_a_checkpoint_is_told_apart():
    touch("run/settings.toml", content=b"")
    with pytest.raises(CheckpointError, match=r"the run in run has no checkpoint yet"):
        open_any("run")


def test_an_altered_folder_of_ours_is_refused():
    ours("m")
    path = Path("m/model.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="was altered"):
        open_any("m")


def test_a_folder_left_between_two_renames_opens():
    ours("m")
    Path("m").rename(".m.old")  # its writer was killed here
    assert open_any("m").config.family == "qwen3" and Path("m").is_dir()


def test_reading_leaves_what_lies_beside_a_model(monkeypatch: pytest.MonkeyPatch):
    def find(name: str, **_: object) -> Path:
        raise DataError(f"{name} is asked for", "")

    monkeypatch.setattr(sources, "find", find)
    ours("source")
    shutil.copytree("source", "mymodel")
    Path("mymodel/hashes.json").unlink()  # as any other program writes it
    touch(".mymodel.old/thesis.txt", ".stories260k.old/thesis.txt")
    for read in (open_any, folder.load):
        read("mymodel")
        with pytest.raises(CheckpointError, match="there is no file or folder"):
            read("stories260")
    with pytest.raises(DataError, match="asked for"):
        open_any("stories260k")
    assert Path(".mymodel.old/thesis.txt").is_file() and Path(".stories260k.old/thesis.txt").is_file()


def test_one_place_decides_what_a_folder_is():
    """OpenAI's files beside a whole Hugging Face model: whoever asks, the model is the same."""
    ours("m")
    touch("m/hparams.json", "m/checkpoint")
    assert open_any("m").config == folder.load("m").model.config
    Path("m/model.safetensors").unlink()
    Path("m/hashes.json").unlink()
    for read in (open_any, folder.load):
        with pytest.raises(CheckpointError, match=r"m lacks encoder.json, vocab.bpe"):
            read("m")


@pytest.mark.parametrize("spec", ["a" * 5000, "runs/" + "a" * 5000, "a" * 5000 + ".gguf"])
def test_a_name_too_long_for_any_disk_is_just_not_there(spec: str):
    for read in (open_any, folder.load):
        with pytest.raises(CheckpointError, match=r"there is no file or folder .*aaa\.\.\.") as found:
            read(spec)
        assert len(str(found.value)) < 1000


def test_a_folder_whose_name_leaves_no_room_for_another_beside_it_opens():
    ours("m")
    name = "n" * 252
    Path("m").rename(name)
    assert folder.load(name).model.config.family == "qwen3"


def test_the_folder_one_stands_in_opens(monkeypatch: pytest.MonkeyPatch):
    ours("m")
    monkeypatch.chdir("m")
    assert open_any(".").config.family == "qwen3"


def test_a_tokenizer_of_its_own_is_not_replaced():
    ours("m")
    with pytest.raises(CheckpointError, match=r"m \(huggingface\) brings its own tokenizer"):
        open_any("m", tokenizer=Path("tok.bin"))


def test_a_name_is_found_and_its_facts_are_kept(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    if not (data_dir / "stories260k").is_dir():
        pytest.skip("the sample data lack stories260k: it is huggingface.co/karpathy/tinyllamas")
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    source = open_any("stories260k")
    assert (source.format, source.config.vocabulary) == ("llama2.c", 512)
    assert source.card["imported from"] == "stories260k" and source.card["licence"] == "MIT"
    assert folder.load("stories260k").model.training is False


def test_no_network_without_a_name(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def find(name: str, **_: object) -> Path:
        asked.append(name)
        raise DataError("no network", "")

    monkeypatch.setattr(sources, "find", find)
    for spec in ("nowhere", "runs/first"):
        with pytest.raises(CheckpointError):
            open_any(spec)
    assert not asked
    with pytest.raises(DataError, match="no network"):
        open_any("gpt2")
    assert asked == ["gpt2"]


def test_a_llama2c_file_opens_with_its_tokenizer():
    path = tiny.write(Path("model.bin"), tiny.arrays())
    tiny.write_tokenizer(Path("other.bin"))
    assert open_any(path, tokenizer=Path("other.bin")).card["tokenizer from"] == "other.bin"
    loaded = json.loads(json.dumps(open_any("model.bin", tokenizer=Path("other.bin")).card))
    assert loaded["format"] == "llama2.c"
    assert opening.kind_of(path) == "llama2.c"
