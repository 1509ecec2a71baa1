"""Files that TensorFlow itself wrote (data/write_gpt2_tf.py) are read back number for number."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.checkpoint.bundle import Bundle, crc32c
from groundup.errors import CheckpointError

pytest.importorskip("google_crc32c", reason="pip install 'groundup[openai]'")

DATA = Path(__file__).parent / "data"
FIXTURE = DATA / "gpt2-tf"


@pytest.fixture(scope="module")
def given():
    """The module that wrote the fixture: what it handed to TensorFlow."""
    spec = importlib.util.spec_from_file_location("write_gpt2_tf", DATA / "write_gpt2_tf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_type_and_both_data_files_are_read(given):
    """W01: two data files, ten types and shapes; the eleventh, texts, is listed and refused."""
    bundle = Bundle.open(FIXTURE / "pieces")
    assert len(bundle.shards) == 2 and {entry.shard for entry in bundle.entries.values()} == {0, 1}
    assert sorted(bundle.entries) == sorted([*given.PIECES, "bfloats", "texts"])
    for name, value in given.PIECES.items():
        tensor = bundle.read(name)
        assert tensor.numpy().dtype == value.dtype
        np.testing.assert_array_equal(tensor.numpy(), value, strict=True)
    bfloats = bundle.read("bfloats")
    assert bfloats.dtype == torch.bfloat16 and bfloats.tolist() == given.BFLOATS
    with pytest.raises(CheckpointError, match=r"'texts' is of TensorFlow's type number 7.*\n.*float32"):
        bundle.read("texts")


def test_all_variables_of_a_gpt2_are_read(given):
    """W01: 136 arrays; names leave out what they share with the one before, h10 stands before h2."""
    bundle = Bundle.open(FIXTURE / "model.ckpt")
    arrays = given.arrays(given.HPARAMS)
    assert list(bundle.entries) == sorted(arrays) and len(arrays) == 4 + 12 * 11
    for name, value in arrays.items():
        np.testing.assert_array_equal(bundle.read(name).numpy(), value, strict=True)


def test_what_is_read_belongs_to_the_reader():
    """A tensor may be changed in place: the next one read is again that of the file."""
    bundle = Bundle.open(FIXTURE / "pieces")
    before = bundle.read("solid").clone()
    bundle.read("solid").zero_()
    assert torch.equal(bundle.read("solid"), before) and before.any()


def test_checksums_are_those_of_the_standard():
    """RFC 3720, appendix B.4; and data longer than one piece give the sum of the whole."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0
    import google_crc32c

    long = bytes(range(256)) * 10_000  # 2.5 MB
    assert crc32c(long) == crc32c(memoryview(long)) == google_crc32c.value(long)


def test_an_unknown_name_is_refused():
    with pytest.raises(CheckpointError, match=r"no array 'solids'\n.*it has 11: bfloats, bytes, counter \.\.\."):
        Bundle.open(FIXTURE / "pieces").read("solids")


def test_without_the_library_of_checksums_nothing_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(CheckpointError, match=r"needs google-crc32c.*\n.*pip install 'groundup\[openai\]'"):
        Bundle.open(FIXTURE / "pieces")


@pytest.mark.parametrize("name", ["pieces.index", "pieces.data-00000-of-00002", "pieces.data-00001-of-00002"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = shutil.copytree(FIXTURE, tmp_path / "copy")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        Bundle.open(folder / "pieces")


def test_a_file_that_shrinks_after_opening_is_noticed(tmp_path):
    folder = shutil.copytree(FIXTURE, tmp_path / "copy")
    bundle = Bundle.open(folder / "pieces")
    data = folder / "pieces.data-00001-of-00002"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="became shorter.*'solid'"):
        bundle.read("solid")
    data.unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        bundle.read("solid")
