"""`groundup import`: what it writes opens again and computes the same; what it refuses leaves nothing behind."""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup import cli
from groundup.checkpoint import folder, names
from groundup.commands import importing
from groundup.errors import CheckpointError, SettingsError
from groundup.model import ModelConfig, build
from groundup.settings import Import

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
import tiny_llama2c as tiny  # noqa: E402

IDS = [1, 264, 3, 100, 265, 7, 260, 259]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny.write_tokenizer(tmp_path / "tok.bin")
    return tiny.write(tmp_path / "model.bin", tiny.arrays(3))


def logits(path: Path) -> np.ndarray:
    with torch.inference_mode():
        return folder.load(path, dtype=torch.float32).model(torch.tensor([IDS]))[0].numpy()


def test_the_folder_computes_what_the_file_did(model: Path, tmp_path: Path):
    result = importing.run(Import(source=str(model), out=tmp_path / "out"))
    expected = tiny.logits(tiny.arrays(3), IDS, heads=4, kv_heads=2)
    assert np.abs(logits(tmp_path / "out") - expected).max() < 1e-4 * np.abs(expected).max()
    assert (result.format, result.family, result.dtype) == ("llama2.c", "llama", "float32")
    # by hand: table, 2 x (queries, keys, values, out; three matrices of 24 x 40; two norms), last norm
    assert result.parameters == 266 * 24 + 2 * (24 * 24 * 2 + 24 * 12 * 2 + 3 * 24 * 40 + 2 * 24) + 24
    assert (result.vocabulary, result.context, len(result.changed)) == (266, 16, 1)
    assert "rotary pairs" in result.changed[0]
    loaded = folder.load(tmp_path / "out")
    assert loaded.tokenizer.encode("ab ab") == [264, 264] and loaded.tokenizer.start == [1]


def test_the_card_says_where_it_is_from(model: Path, tmp_path: Path):
    importing.run(Import(source=str(model), out=tmp_path / "out", tokenizer=tmp_path / "tok.bin"))
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["imported from"], card["format"]) == ("model.bin", "llama2.c")
    sizes = {name: (tmp_path / name).stat().st_size for name in ("model.bin", "tok.bin")}
    hashes = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in sizes}
    assert card["files"] == {name: {"bytes": sizes[name], "sha256": hashes[name]} for name in sizes}


def test_files_that_were_not_read_are_not_in_the_card(model: Path, tmp_path: Path):
    importing.run(Import(source=str(model), out=tmp_path / "one"))
    for name in ("pytorch_model.bin", "tf_model.h5", "model.safetensors.lock", "config.json.sha256", ".hidden"):
        (tmp_path / "one" / name).write_bytes(b"of no use here")
    importing.run(Import(source=str(tmp_path / "one"), out=tmp_path / "two"))
    read = json.loads((tmp_path / "two" / "card.json").read_text())["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(read)
    assert not {"pytorch_model.bin", "tf_model.h5", "model.safetensors.lock", "config.json.sha256", ".hidden"} & set(
        read
    )


def test_weights_are_stored_as_wished(model: Path, tmp_path: Path):
    result = importing.run(Import(source=str(model), out=tmp_path / "out", dtype="bf16"))
    assert result.dtype == "bfloat16" and result.changed[-1] == "numbers: float32 there, bfloat16 here"
    state = folder.load(tmp_path / "out").model.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert torch.equal(state["token_table.weight"], torch.tensor(tiny.arrays(3)["table"]).bfloat16())


def test_what_was_imported_is_imported_again_unchanged(model: Path, tmp_path: Path):
    importing.run(Import(source=str(model), out=tmp_path / "one"))
    again = importing.run(Import(source=str(tmp_path / "one"), out=tmp_path / "two"))
    assert again.changed == [] and again.format == "huggingface"
    weights = "model.safetensors"
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "two" / weights).read_bytes()


def test_what_a_card_claims_stands_apart_from_what_we_know(model: Path, tmp_path: Path):
    importing.run(Import(source=str(model), out=tmp_path / "one"))
    card = tmp_path / "one" / "card.json"
    first = json.loads(card.read_text())
    card.write_text(json.dumps(first | {"imported from": "a bank", "files": {}, "licence": "mine", "name": "One"}))
    (tmp_path / "one" / "hashes.json").unlink()
    importing.run(Import(source=str(tmp_path / "one"), out=tmp_path / "two"))
    found = json.loads((tmp_path / "two" / "card.json").read_text())
    assert (found["imported from"], found["format"]) == (str(tmp_path / "one"), "huggingface")
    assert (found["licence"], found["name"]) == ("mine", "One")  # what only the card knows stays
    assert found["files"]["card.json"]["sha256"] == hashlib.sha256(card.read_bytes()).hexdigest()
    assert found["before"] == {"imported from": "a bank", "format": "llama2.c", "files": {}}
    importing.run(Import(source=str(tmp_path / "two"), out=tmp_path / "three"))
    third = json.loads((tmp_path / "three" / "card.json").read_text())
    assert third["before"]["imported from"] == str(tmp_path / "one") and third["before"]["before"] == found["before"]


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["auto", "fp32", "bf16"])
def test_numbers_that_are_none_are_refused_by_name(tmp_path: Path, spoilt: float, dtype: str):
    weights = tiny.arrays(3)
    weights["table"][5, 2] = spoilt
    tiny.write_tokenizer(tmp_path / "tok.bin")
    model = tiny.write(tmp_path / "model.bin", weights)
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight holds numbers that are not finite"):
        importing.run(Import(source=str(model), out=tmp_path / "out", dtype=dtype))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "dtype", "end", "advice"),
    [(-7e4, "fp16", "-?70,000, fp16 ends at 65,504", "bf16"), (3.4e38, "bf16", "bf16 ends at", "fp32")],
)
def test_numbers_that_would_become_infinite_are_refused(
    tmp_path: Path, number: float, dtype: str, end: str, advice: str
):
    weights = tiny.arrays(3)
    weights["table"][5, 2] = number
    tiny.write_tokenizer(tmp_path / "tok.bin")
    model = tiny.write(tmp_path / "model.bin", weights)
    with pytest.raises(CheckpointError, match=rf"embed_tokens.*{end}.*\n.*take --dtype {advice}"):
        importing.run(Import(source=str(model), out=tmp_path / "out", dtype=dtype))
    importing.run(Import(source=str(model), out=tmp_path / "out", dtype=advice))
    assert all(bool(tensor.isfinite().all()) for tensor in folder.load(tmp_path / "out").model.state_dict().values())


def test_every_file_may_be_read_by_whom_the_person_allows(model: Path, tmp_path: Path):
    before = os.umask(0o027)
    try:
        importing.run(Import(source=str(model), out=tmp_path / "out"))
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {"0o640"}, modes


def test_what_is_written_takes_the_place_of_the_model():
    """Each tensor is handed over once, and no longer held: the largest moment is one copy and one tensor."""
    model = build(ModelConfig(family="gpt2", vocabulary=9, context=4, width=4, layers=2, heads=2), seed=1)
    expected = names.to_hf(model.state_dict(), model.config)
    whole = sum(parameter.numel() for parameter in model.parameters())
    state, held = importing.GivenUp(model), []

    class Counting(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            tensor = state[name]
            held.append(sum(parameter.numel() for parameter in model.parameters()) + tensor.numel())
            return tensor

    written = names.to_hf(Counting(dict.fromkeys(state, torch.zeros(1))), model.config)
    assert held[0] == whole and held[-1] < 9 and held == sorted(held, reverse=True)
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())


def test_a_folder_that_is_not_empty_is_left_alone(model: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    for place in (out, tmp_path / "tok.bin"):
        with pytest.raises(SettingsError, match="exists and is not empty"):
            importing.run(Import(source=str(model), out=place))
    assert [path.name for path in out.iterdir()] == ["letter.txt"]
    (out / "letter.txt").unlink()
    assert importing.run(Import(source=str(model), out=out)).out == out  # an empty one is fine


def test_what_is_missing_is_asked_for(model: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="no model was given"):
        importing.run(Import(out=tmp_path / "out"))
    with pytest.raises(SettingsError, match="no folder for the model"):
        importing.run(Import(source=str(model)))


def test_a_failure_leaves_nothing(model: Path, tmp_path: Path):
    model.write_bytes(model.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="is no llama2.c model: its header"):
        importing.run(Import(source=str(model), out=tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "tok.bin"]


def test_too_many_ids_are_refused(tmp_path: Path):
    weights = tiny.arrays(vocabulary=260)
    model = tiny.write(tmp_path / "model.bin", weights, vocabulary=260)
    tiny.write_tokenizer(tmp_path / "tok.bin")
    with pytest.raises(Exception, match="tok.bin") as found:
        importing.run(Import(source=str(model), out=tmp_path / "out"))
    assert getattr(found.value, "status", None) == 2 and not (tmp_path / "out").exists()


def test_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["import", str(model), "--out", str(tmp_path / "a"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == 15_720 and said["format"] == "llama2.c"
    assert cli.main(["import", str(model), "--out", str(tmp_path / "b"), "--dtype", "fp16"]) == 0
    text = capsys.readouterr().out
    for words in ("llama from", "(llama2.c)", "266", "16 tokens", "in float16", "rotary pairs", "not known"):
        assert words in text
    assert f'next: groundup generate {tmp_path / "b"} --prompt "Once upon a time"' in text
    assert cli.main(["import", "stories260", "--out", str(tmp_path / "c")]) == 2
    assert "did you mean 'stories260k'?" in capsys.readouterr().err
