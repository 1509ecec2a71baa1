"""llama2.c files that lie: refused in words, before anything is allocated by what they say."""

import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from groundup.checkpoint import llama2c
from groundup.errors import CheckpointError

Frugal = Callable[[], AbstractContextManager[None]]
GOOD = (8, 16, 1, 2, 1, 300, 4)  # dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len
SIZE = 28 + 4 * (300 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 128 + 8 + 4 * 4)
MOST = 2**31 - 1

LIES = {
    "nothing at all": (b"", "0 bytes are less than its header of 28"),
    "half a header": (bytes(27), "27 bytes are less than its header of 28"),
    "zeros": (bytes(1000), "its header says dim 0"),
    "a pickle": (b"\x80\x04\x95" + bytes(40), "its header says"),
    "text": (b"Once upon a time, there was a file that was no model.", "its header"),
    "the largest sizes there are": (struct.pack("<7i", *[MOST] * 7), "n_layers 2,147,483,647, more than 1,024"),
    "a vocabulary that would fill memory": (struct.pack("<7i", 8, 16, 1, 2, 1, MOST, 4), "makes 68,719,"),
    "matrices that overflow 64 bits": (struct.pack("<7i", 2**30, MOST, 1024, 2**29, 1, MOST, MOST), "the file has 28"),
    "the least vocabulary": (struct.pack("<7i", 8, 16, 1, 2, 1, -(2**31), 4), "the file has 28"),
    "a negative width": (struct.pack("<7i", -8, 16, 1, 2, 1, 300, 4), "its header says dim -8"),
    "negative layers": (struct.pack("<7i", 8, 16, -1, 2, 1, 300, 4), "its header says n_layers -1"),
    "no heads": (struct.pack("<7i", 8, 16, 1, 0, 1, 300, 4), "its header says n_heads 0"),
    "no context": (struct.pack("<7i", 8, 16, 1, 2, 1, 300, 0), "its header says seq_len 0"),
    "no vocabulary": (struct.pack("<7i", 8, 16, 1, 2, 1, 0, 4), "its header says vocab_size 0"),
    "heads that do not divide": (struct.pack("<7i", 8, 16, 1, 3, 1, 300, 4), "dim 8, not divisible by n_heads 3"),
    "two thousand million heads": (struct.pack("<7i", MOST, 16, 1, MOST, 2, 300, 4), "not divisible by n_kv_heads 2"),
    "an odd head": (struct.pack("<7i", 6, 16, 1, 2, 1, 300, 4), "head_size 3 is odd"),
    "a truncated file": (struct.pack("<7i", *GOOD) + bytes(SIZE - 32), f"{SIZE:,} bytes, the file has {SIZE - 4:,}"),
    "bytes behind the end": (struct.pack("<7i", *GOOD) + bytes(SIZE - 27), f"the file has {SIZE + 1:,}"),
    "big-endian": (struct.pack(">7i", *GOOD) + bytes(SIZE - 28), "is no llama2.c model"),
    "a version to come": (b"24ka" + struct.pack("<i", -7) + bytes(300), "of version -7, only version 0 is read"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path: Path, lie: str, frugal: Frugal):
    content, words = LIES[lie]
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with frugal(), pytest.raises(CheckpointError) as found:
        llama2c.open_source(path)
    assert words in found.value.what, found.value.what
    assert found.value.fix


def test_the_file_that_is_lied_about_is_good_otherwise(tmp_path: Path):
    """The samples above differ from a file that opens: SIZE is right, the tokenizer alone is missing."""
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<7i", *GOOD) + bytes(SIZE - 28))
    assert llama2c.read_config(path).vocabulary == 300
    with pytest.raises(CheckpointError, match="lies no tok300.bin and no tokenizer.bin"):
        llama2c.open_source(path)


def test_a_file_full_of_holes_is_not_read_before_it_is_asked_for(tmp_path: Path, frugal: Frugal):
    """Its size is what the header says, 17 GB, and takes no room on the disk: opening it must take none in memory."""
    path = tmp_path / "model.bin"
    vocabulary = 2**29
    size = SIZE + 4 * 8 * (vocabulary - 300)
    with path.open("wb") as file:
        file.write(struct.pack("<7i", 8, 16, 1, 2, 1, vocabulary, 4))
        try:
            os.truncate(file.fileno(), size)
        except OSError as error:
            pytest.skip(f"this disk makes no files with holes: {error}")
    with frugal():
        weights = llama2c.Arrays(path, llama2c.read_config(path))
        assert weights.shapes()["model.embed_tokens.weight"] == (vocabulary, 8)
        assert not weights.read("model.norm.weight").any()


def test_no_link_is_followed_to_a_tokenizer_that_is_a_folder(tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<7i", *GOOD) + bytes(SIZE - 28))
    (tmp_path / "tok300.bin").mkdir()
    (tmp_path / "tokenizer.bin").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="lies no tok300.bin"):
        llama2c.open_source(path)
