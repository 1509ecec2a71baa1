"""Other programs, asked about what we wrote: they are found, answer in our terms, and their refusals have words."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import consumers, folder
from groundup.errors import CheckpointError
from groundup.model import ModelConfig, build

TEXT = "Ein Fuchs, zwei Füchse, drei Hühner. <|endoftext|> " * 9
CONFIG = ModelConfig(family="llama", vocabulary=280, context=24, width=16, layers=2, heads=2, init="torch", tie=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    folder.save_model(path, build(CONFIG, seed=3), tokens.train("bpe", [TEXT], vocabulary=280), card={})
    return path


def test_what_is_installed_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch):
    assert consumers.available("tiktoken")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not consumers.available("llama_cpp")
    with pytest.raises(CheckpointError, match=r"llama-cpp-python is not installed\n  -> pip install llama-cpp-python"):
        consumers.LlamaCpp(Path("a.gguf"))


def test_an_unknown_program_is_named():
    with pytest.raises(CheckpointError, match="did you mean 'transformers'"):
        consumers.available("transformer")


def test_a_program_that_does_not_load_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str) -> None:
        raise OSError("libllama.so: cannot open shared object file")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(CheckpointError, match="does not load: libllama.so"):
        consumers.llama_cpp_logits(Path("a.gguf"))


def test_transformers_gives_our_logits_and_ids(written: Path, capfd: pytest.CaptureFixture[str]):
    pytest.importorskip("transformers")
    loaded = folder.load(written)
    ids = loaded.tokenizer.encode("zwei Füchse <|endoftext|>")
    assert loaded.tokenizer.end_of_text not in ids
    assert consumers.transformers_ids(written)("zwei Füchse <|endoftext|>") == ids
    logits = consumers.transformers_logits(written)(ids)
    with torch.inference_mode():
        ours = loaded.model(torch.tensor([ids]))[0]
    assert logits.shape == (len(ids), 280) and logits.dtype == torch.float32
    assert (logits - ours).abs().max() < 1e-4 * ours.abs().max()
    assert capfd.readouterr() == ("", "")


def test_logits_are_fp32_whatever_is_stored(written: Path, tmp_path: Path):
    pytest.importorskip("transformers")
    loaded = folder.load(written, dtype=torch.bfloat16)
    folder.save_model(tmp_path / "bf16", loaded.model, loaded.tokenizer, card={})
    logits = consumers.transformers_logits(tmp_path / "bf16")([5, 6, 7])
    with torch.inference_mode():
        ours = loaded.model.float()(torch.tensor([[5, 6, 7]]))[0]
    assert (logits - ours).abs().max() < 1e-4 * ours.abs().max()


def test_what_transformers_refuses_comes_in_its_words(tmp_path: Path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="transformers cannot open .*nonsense"):
        consumers.transformers_logits(tmp_path)
    with pytest.raises(CheckpointError, match="transformers cannot open"):
        consumers.transformers_ids(tmp_path)


def test_a_tensor_that_transformers_misses_is_named(written: Path, tmp_path: Path):
    pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="model.norm.weight"):
        consumers.transformers_logits(tmp_path)


def test_tiktoken_reads_the_file_that_stands_there_now(tmp_path: Path):
    """tiktoken's own reader keeps what it once read from a path; ours must not."""
    note = tmp_path / "x.tiktoken.json"
    about = {"name": "x", "ranks": "x.tiktoken", "pat_str": r"\p{L}+|\P{L}", "special_tokens": {"<|end|>": 300}}
    note.write_text(json.dumps(about), encoding="utf-8")

    def ids(extra: bytes) -> list[int]:
        ranks = [bytes([byte]) for byte in range(256)] + [extra]
        lines = [base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(ranks)]
        (tmp_path / "x.tiktoken").write_bytes(b"".join(lines))
        return consumers.tiktoken_ids(note)("ab<|end|>")

    assert ids(b"ab")[0] == 256 and ids(b"zz")[:2] == [97, 98]
    assert 300 not in ids(b"ab")


@pytest.mark.parametrize("content", [b"", b"!!! 0\n", b"YQ== x\n", b"YQ== 0\nYg== 0\n"])
def test_a_damaged_rank_file_is_refused(tmp_path: Path, content: bytes):
    about = {"name": "x", "ranks": "x.tiktoken", "pat_str": r"\p{L}+", "special_tokens": {}}
    (tmp_path / "x.json").write_text(json.dumps(about), encoding="utf-8")
    (tmp_path / "x.tiktoken").write_bytes(content)
    with pytest.raises(CheckpointError, match="tiktoken cannot open"):
        consumers.tiktoken_ids(tmp_path / "x.json")


def test_a_rank_file_outside_the_folder_is_refused(tmp_path: Path):
    about = {"name": "x", "ranks": "../x.tiktoken", "pat_str": r"\p{L}+", "special_tokens": {}}
    (tmp_path / "x.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(CheckpointError, match="tiktoken cannot open"):
        consumers.tiktoken_ids(tmp_path / "x.json")


@pytest.mark.slow
def test_llama_cpp_gives_our_logits_and_ids(written: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    pytest.importorskip("llama_cpp")
    gguf = pytest.importorskip("groundup.checkpoint.gguf.write")
    loaded = folder.load(written)
    gguf.write(tmp_path / "x.gguf", loaded.model, loaded.tokenizer, dtype="f32", card={})
    capfd.readouterr()
    text = "zwei Füchse <|endoftext|>"
    ids = loaded.tokenizer.encode(text)[:24]
    with consumers.LlamaCpp(tmp_path / "x.gguf", context=24) as program:
        assert program.ids(text) == loaded.tokenizer.encode(text)
        logits = program.logits(ids)
        again = program.logits(ids)  # each call begins anew
        with pytest.raises(CheckpointError, match="25 ids were given to llama.cpp, opened with a context of 24"):
            program.logits([0] * 25)
    with torch.inference_mode():
        ours = loaded.model(torch.tensor([ids]))[0]
    assert logits.shape == ours.shape and torch.equal(logits, again)
    assert (logits - ours).abs().max() < 1e-2 * ours.abs().max()  # its keys and values are f16
    assert consumers.llama_cpp_ids(tmp_path / "x.gguf")(text) == loaded.tokenizer.encode(text)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_what_llama_cpp_refuses_has_words(tmp_path: Path):
    pytest.importorskip("llama_cpp")
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(CheckpointError, match="llama.cpp cannot open"):
        consumers.llama_cpp_logits(tmp_path / "x.gguf")


def test_importing_consumers_imports_no_consumer():
    program = "import sys, groundup.checkpoint.consumers; print({'transformers', 'llama_cpp'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
