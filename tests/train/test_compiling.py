"""Compiling: when it pays, what it says when it fails, and that compiled training resumes to the same bits."""

import os
import sys

import pytest
import torch

from groundup import machine as machines
from groundup.model.config import BigramConfig, from_name
from groundup.train import compiling, loop

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about its own compiler
CPU = machines.choose(device="cpu", dtype="fp32", threads=1)


def test_it_pays_for_long_runs_of_the_families_that_gain():
    qwen3, gpt2 = (from_name("10m", vocabulary=65, family=family) for family in ("qwen3", "gpt2"))
    if machines.has_compiler():
        assert compiling.pays(qwen3, CPU, 3600)
    assert not compiling.pays(qwen3, CPU, 30)
    assert not compiling.pays(gpt2, CPU, 3600)
    assert not compiling.pays(BigramConfig(vocabulary=9, context=4), CPU, 10**6)


def test_without_a_compiler_it_never_pays_on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not machines.has_compiler()
    assert not compiling.pays(from_name("10m", vocabulary=65, family="qwen3"), CPU, 10**6)


@pytest.mark.slow
def test_a_failed_compilation_is_told_and_training_goes_on(monkeypatch, tmp_path, capsys):
    from groundup.stages import pretrain

    def broken(model):
        return torch.compile(model, backend=fails)

    def fails(graph, inputs):
        raise RuntimeError("no such compiler\nand a long story")

    text = tmp_path / "story.txt"
    text.write_text("The owl reads to the fox, who sleeps. " * 40, encoding="utf-8")
    monkeypatch.setattr(compiling, "compiled", broken)
    torch._dynamo.reset()
    result = pretrain.pretrain(
        data=[str(text)], tokenizer="chars", out=tmp_path / "run", layers=1, heads=1, width=8, context=8, batch=2,
        steps=2, compile="on", device="cpu", threads=1, validation=0.0,
    )  # fmt: skip
    assert result.steps == 2
    assert "not compiled: BackendCompilerFailed" in capsys.readouterr().err
    assert 'compile = "off"' in (tmp_path / "run" / "settings.toml").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not machines.has_compiler() or sys.platform == "win32", reason="needs a C++ compiler")
def test_compiled_training_learns_the_same_and_resumes_to_the_same_bits(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from groundup.stages import pretrain

    text = tmp_path / "story.txt"
    text.write_text("The owl reads to the fox, who sleeps. " * 40, encoding="utf-8")
    settings = {
        "data": [str(text)], "tokenizer": "chars", "layers": 1, "heads": 2, "width": 16, "context": 16, "batch": 4,
        "steps": 6, "save_every": "3", "device": "cpu", "threads": 1, "dtype": "fp32", "optimizer": "muon",
    }  # fmt: skip
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    plain = pretrain.pretrain(**settings, out=tmp_path / "plain", compile="off")
    compiled = pretrain.pretrain(**settings, out=tmp_path / "compiled", compile="on")
    assert compiled.validation_loss == pytest.approx(plain.validation_loss, rel=1e-4)
    settings |= {"dropout_shortcut": 0.2, "dropout_attention": 0.2}
    pretrain.pretrain(**settings, out=tmp_path / "whole", compile="on")
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(loop, "_set_rate", pulled_out_in_step(5))
        pretrain.pretrain(**settings, out=tmp_path / "cut", compile="on")
    torch.manual_seed(99)
    pretrain.pretrain(out=tmp_path / "cut", resume=True)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def pulled_out_in_step(number):
    """What sets the learning rate, but for the step in which the plug is pulled."""
    real = loop._set_rate

    def set_rate(optimizer, lr, index):
        if index == number - 1:
            raise KeyError("the plug is pulled")
        return real(optimizer, lr, index)

    return set_rate
