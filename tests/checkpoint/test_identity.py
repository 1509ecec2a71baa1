"""Which model it is, by its bytes: equal for equal weights, another for others, and never that of no bytes at all."""

import hashlib
from pathlib import Path

import pytest

from groundup.checkpoint import adapters
from groundup.checkpoint.identity import weights_hash
from groundup.errors import CheckpointError
from groundup.model import ModelConfig, build, lora
from groundup.model.lora import LoraConfig

NOTHING = hashlib.sha256(b"").hexdigest()


def saved(folder: Path, *, base_sha256: str, seed: int = 1) -> Path:
    """Adapters as a run keeps them."""
    folder.mkdir()
    network = build(ModelConfig(family="llama", vocabulary=9, context=4, width=8, layers=1, heads=2), seed=0)
    model = lora.add(network, LoraConfig(rank=2, base="runs/base", base_sha256=base_sha256), seed=seed)
    adapters.write(folder, *adapters.export(model))
    return folder


def test_adapters_are_their_numbers_and_their_base(tmp_path: Path):
    one = weights_hash(saved(tmp_path / "one", base_sha256="aa"))
    assert one == weights_hash(saved(tmp_path / "again", base_sha256="aa")) != NOTHING
    assert one != weights_hash(saved(tmp_path / "other base", base_sha256="bb"))
    assert one != weights_hash(saved(tmp_path / "other numbers", base_sha256="aa", seed=2))
    file = hashlib.sha256((tmp_path / "one" / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert one == hashlib.sha256(f"{file}  adapter_model.safetensors\naa  base\n".encode()).hexdigest()


def test_a_folder_without_weights_is_no_model(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds no file of weights"):
        weights_hash(tmp_path)
