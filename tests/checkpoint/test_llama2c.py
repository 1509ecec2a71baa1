"""llama2.c files against its own published output, and against the arithmetic of run.c written out in numpy."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.checkpoint import llama2c
from groundup.checkpoint.names import halves
from groundup.checkpoint.source import fill
from groundup.errors import CheckpointError
from groundup.generate import Sampler, generate

sys.path.insert(0, str(Path(__file__).parent))
import tiny_llama2c as tiny  # noqa: E402

# github.com/karpathy/llama2.c, test_all.py: what `run stories260K.bin -z tok512.bin -t 0.0 -n 200` prints
PUBLISHED = (
    b"Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    b"One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    b"Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She "
    b'said, "I want to play with your ball, but I can\'t find it."\n'
    b"Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to "
    b'do."\n'
    b"Lily didn't want to help her mom, so she"
)


@pytest.fixture(scope="session")
def stories(data_dir: Path) -> Path:
    path = data_dir / "stories260k" / "stories260K.bin"
    if not path.is_file():
        pytest.skip(f"{path} is missing: it is huggingface.co/karpathy/tinyllamas, stories260K/")
    return path


def test_the_story_is_the_published_one_to_the_byte(stories: Path):
    source = llama2c.open_source(stories)  # finds tok512.bin beside it
    assert source.tokenizer.start == [1]
    model = fill(source.config, source.weights).eval()
    steps = generate(model, [source.tokenizer.start], max_tokens=200, sampler=Sampler(temperature=0))
    ids = [step.ids[0] for step in steps]
    assert len(ids) == 200
    assert source.tokenizer.decode_bytes(ids) == PUBLISHED


def test_the_real_file_gives_the_logits_of_run_c(stories: Path):
    source = llama2c.open_source(stories)
    assert (source.config.context, source.config.kv_heads, source.config.hidden) == (512, 4, 172)
    shape = {"dim": 64, "hidden": 172, "layers": 5, "heads": 8, "kv_heads": 4, "vocabulary": 512, "context": 512}
    raw, start, weights = np.fromfile(stories, dtype="<f4", offset=28), 0, {}
    for name, array in tiny.arrays(**shape).items():
        weights[name] = raw[start : start + array.size].reshape(array.shape)
        start += array.size
    ids = [1, *source.tokenizer.encode("Once upon a time, there was a robot who could not sleep")]
    _same_logits(fill(source.config, source.weights), weights, ids, heads=8, kv_heads=4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_random_files_give_the_logits_of_run_c(tmp_path: Path, tied: bool, kv_heads: int):
    weights = tiny.arrays(kv_heads, tied=tied, kv_heads=kv_heads)
    path = tiny.write(tmp_path / "model.bin", weights, tied=tied, kv_heads=kv_heads)
    tiny.write_tokenizer(tmp_path / "tokenizer.bin")
    source = llama2c.open_source(path)
    assert (source.format, source.config.tie, source.config.kv_heads) == ("llama2.c", tied, kv_heads)
    ids = [1, 264, 3, 100, 265, 0, 7, 260, 259, 258, 4, 264]
    _same_logits(fill(source.config, source.weights), weights, ids, heads=4, kv_heads=kv_heads)


def _same_logits(model: torch.nn.Module, weights: tiny.Arrays, ids: list[int], heads: int, kv_heads: int) -> None:
    """At every position within 1e-4 of the largest logit."""
    expected = tiny.logits(weights, ids, heads, kv_heads)
    with torch.inference_mode():
        found = model.eval()(torch.tensor([ids]))[0].double().numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_rows_are_reordered_within_each_head():
    """Two heads of four: pairs (0, 1), (2, 3) become halves (0, 2 | 1, 3)."""
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    assert halves(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_tensors_are_read_one_by_one(tmp_path: Path):
    weights = tiny.arrays(5)
    source_path = tiny.write(tmp_path / "model.bin", weights)
    arrays = llama2c.Arrays(source_path, llama2c.read_config(source_path))
    assert arrays.shapes()["model.layers.1.mlp.down_proj.weight"] == (24, 40)
    assert torch.equal(arrays.read("model.layers.1.mlp.down_proj.weight"), torch.tensor(weights["w2"][1]))
    assert torch.equal(arrays.read("model.norm.weight"), torch.tensor(weights["rms_final"]))
    assert "lm_head.weight" not in arrays.shapes() and len(arrays.shapes()) == 2 + 9 * 2
    source_path.write_bytes(source_path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        arrays.read("model.norm.weight")


def test_the_tokenizer_beside_it_is_found(tmp_path: Path):
    path = tiny.write(tmp_path / "model.bin", tiny.arrays())
    with pytest.raises(CheckpointError, match=r"beside .* lies no tok266\.bin and no tokenizer\.bin\n.*--tokenizer"):
        llama2c.open_source(path)
    tiny.write_tokenizer(tmp_path / "tok9.bin")  # the only one: whatever its name says
    assert llama2c.open_source(path).tokenizer.encode("ab")
    shutil.copy(tmp_path / "tok9.bin", tmp_path / "tok8.bin")
    with pytest.raises(CheckpointError, match=r"but several others: tok8\.bin, tok9\.bin"):
        llama2c.open_source(path)
    assert llama2c.open_source(path, tokenizer=tmp_path / "tok8.bin").card["tokenizer from"] == "tok8.bin"
    shutil.copy(tmp_path / "tok9.bin", tmp_path / "tok266.bin")
    assert llama2c.open_source(path).card["tokenizer from"] == "tok266.bin"


def test_text_takes_the_ids_of_run_c(tmp_path: Path):
    """A space is put before the text, then the pair with the best score is joined first; the rest goes as bytes."""
    path = tiny.write(tmp_path / "model.bin", tiny.arrays())
    tiny.write_tokenizer(tmp_path / "tokenizer.bin")
    tokenizer = llama2c.open_source(path).tokenizer
    ids = {piece: 259 + place for place, piece in enumerate(tiny.PIECES)}
    assert tokenizer.encode("ab") == [ids[" ab"]]
    assert tokenizer.encode("cab") == [ids[" "], ids["c"], ids["ab"]]
    assert tokenizer.encode("aé") == [ids[" a"], 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode([ids[" ab"], ids[" ab"]]) == "ab ab"
    assert tokenizer.start == [1] and tokenizer.bos == 1


def test_later_versions_are_refused(tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"24ka" + (2).to_bytes(4, "little") + bytes(248))
    with pytest.raises(CheckpointError, match=r"of version 2, only version 0 is read\n.*export.py --version 0"):
        llama2c.read_config(path)
