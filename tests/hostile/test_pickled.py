"""Pickle files that are well formed but greedy: refused in words, before much memory is taken.

Programs, archives and shapes that lie are in test_huggingface.py.
"""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from groundup.checkpoint.pickled import MOST_STEPS, PickledFile
from groundup.errors import CheckpointError


def program(path: Path, steps: bytes) -> Path:
    """An archive as torch.save makes it, with this pickle and no numbers."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("archive/data.pkl", steps)
        parts.writestr("archive/version", "3\n")
    path.write_bytes(file.getvalue())
    return path


def same_numbers(count: int, step: int) -> dict[str, torch.Tensor]:
    """Tensors of 4 MB cut out of one storage, each `step` numbers behind the one before."""
    numbers = torch.zeros(2**20 + count * step)
    return {f"layer.{index}": numbers[index * step : index * step + 2**20] for index in range(count)}


@pytest.mark.parametrize("step", [0, 1], ids=["the same view", "views a number apart"])
def test_many_tensors_of_the_same_numbers(tmp_path, frugal, step):
    """4 MB in the file, 1.6 GB once each tensor has its own."""
    path = tmp_path / "pytorch_model.bin"
    torch.save(same_numbers(400, step), path)
    with frugal(), pytest.raises(CheckpointError, match="its tensors have 1,677,721,600 bytes, more than twice"):
        PickledFile(path)


def test_a_tied_head_and_parts_of_one_matrix_are_no_fault(tmp_path):
    table = torch.randn(64, 32)
    joined = torch.randn(24, 8)
    state = {"table": table, "head": table, "q": joined[:8], "k": joined[8:16], "v": joined[16:]}
    torch.save(state, tmp_path / "model.bin")
    found = PickledFile(tmp_path / "model.bin")
    assert all(torch.equal(found.read(name), tensor) for name, tensor in state.items())


@pytest.mark.parametrize("step", [b"]", b"}"], ids=["lists", "dicts"])
def test_a_program_of_a_million_objects(tmp_path, frugal, step):
    path = program(tmp_path / "model.bin", b"\x80\x02" + step * 2_000_000 + b".")
    with frugal(), pytest.raises(CheckpointError, match="its pickle has more than 250,000 steps"):
        PickledFile(path)


def test_as_many_tensors_as_the_largest_models_have_are_far_from_the_limit(tmp_path):
    """Llama 3.1 405B has 1,138: the test takes three times as many."""
    torch.save({f"model.layers.{index}.weight": torch.ones(1) for index in range(3 * 1138)}, tmp_path / "model.bin")
    assert len(PickledFile(tmp_path / "model.bin").shapes()) == 3 * 1138
    assert MOST_STEPS == 250_000


def test_a_dict_of_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="it holds no tensors"):
        PickledFile(program(tmp_path / "model.bin", b"\x80\x02}."))


def test_no_control_character_reaches_the_terminal(tmp_path):
    torch.save({"\x1b]0;owned\x07": "text"}, tmp_path / "model.bin")
    with pytest.raises(CheckpointError) as caught:
        PickledFile(tmp_path / "model.bin")
    assert "]0;owned is a str" in caught.value.what and caught.value.what.isprintable()
