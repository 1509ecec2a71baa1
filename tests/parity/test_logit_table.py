"""Every line of the logit table holds at 1e-4 of the largest logit; llama.cpp's, where it rounds to f16, at 1 %.

What needs llama.cpp, or transformers with accelerate, is in the table only where they are installed.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")


def _load_table():
    """The script beside this file; pytest's import mode puts no folder of tests on the path."""
    path = Path(__file__).with_name("logit_table.py")
    spec = importlib.util.spec_from_file_location("logit_table", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["logit_table"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


table = _load_table()
EXACT = 1e-4
ROUNDED = 1e-2  # llama.cpp with keys and values in f16 (11 bits); and its GELU, a table in f16
FORMATS = {"HF folder", "HF sharded", "HF .bin"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", table.FAMILIES)
def test_logits_are_the_same_through_every_format(family: str, tmp_path: Path):
    pytest.importorskip("gguf")
    rows = list(table.rows(family, tmp_path))
    assert {row.format for row in rows} >= FORMATS | {"GGUF f32"}
    for row in rows:
        if row.found is not None:
            rounded = row.reader == "llama.cpp" and (not row.note or family == "gpt2")
            assert row.found.relative <= (ROUNDED if rounded else EXACT), row
    assert {row.reader for row in rows if row.found} >= {"groundup", "transformers"}


def test_llama2c_and_tensorflow_have_their_rows():
    plain = table.FAMILIES["llama"]
    assert plain.rope_base == 10_000 and plain.rope_scaling is None and not plain.qkv_bias and plain.norm_eps == 1e-5
    assert table.llama2c in table.WAYS and table.bundle in table.WAYS


def test_a_forgotten_permutation_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The table can fail: rotary pairs left as they are in Hugging Face's files give other logits."""
    monkeypatch.setattr(table, "side_by_side", lambda matrix, heads: matrix)
    [row] = table.llama2c(table.case("llama"), tmp_path)
    assert row.found.relative > 100 * EXACT


def test_rows_of_a_head_are_dealt_out_in_turn():
    matrix = torch.arange(8.0)[:, None]  # two heads of four rows
    assert table.side_by_side(matrix, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_markdown_has_a_line_for_each_row():
    rows = [
        table.Row("a", "GGUF f32", "groundup", "llama.cpp", None, "not installed"),
        table.Row("a", "HF folder", "x", "y", table.Agreement(3, 1.0, 0.25, 1e-5, 0.0)),
    ]
    lines = table.markdown(rows).splitlines()
    assert lines[2:] == [
        "| a | GGUF f32 | groundup | llama.cpp | - | - | not installed |",
        "| a | HF folder | x | y | 2.5e-01 | 1.0e-05 |  |",
    ]
