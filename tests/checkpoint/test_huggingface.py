"""Folders of the Hugging Face layout, opened: whole, in shards, as pickles; memory while a network is filled.

That the numbers mean the same to transformers is shown in tests/parity/test_folders_transformers.py; what is refused,
in tests/hostile/test_huggingface.py.
"""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from groundup import tokens
from groundup.checkpoint import atomic, folder, huggingface
from groundup.checkpoint.names import hf_config, to_hf
from groundup.checkpoint.source import Held, fill
from groundup.errors import CheckpointError
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig

SMALL = {"vocabulary": 20, "context": 8, "width": 8, "layers": 2, "heads": 2}
CASES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "gpt2 untied, no qkv bias": ModelConfig(family="gpt2", **SMALL, tie=False, qkv_bias=False),
    "llama": ModelConfig(family="llama", **SMALL, kv_heads=1, tie=False),
    "qwen2": ModelConfig(family="llama", **SMALL, qkv_bias=True),
    "qwen3": ModelConfig(family="qwen3", **SMALL),
    "bigram": BigramConfig(vocabulary=20, context=4),
}
CASE = pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())


def written(config, seed: int = 1) -> dict[str, torch.Tensor]:
    return to_hf(build(config, seed=seed).state_dict(), config)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def foreign(place: Path, config, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A folder with config.json and a tokenizer, as another program leaves it; weights where given."""
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(hf_config(config)), encoding="utf-8")
    tokens.train("chars", ["abcdefgh"]).save(place)
    if tensors is not None:
        save_file(tensors, place / huggingface.WEIGHTS, metadata={"format": "pt"})
    return place


def sharded(place: Path, tensors: dict[str, torch.Tensor], parts: int, *, pickled: bool = False) -> None:
    """The tensors in some files and an index, as transformers lays them out."""
    whole = huggingface.PICKLED if pickled else huggingface.WEIGHTS
    stem, dot, kind = whole.rpartition(".")
    names = sorted(tensors)
    weight_map = {}
    for part in range(parts):
        file = f"{stem}-{part + 1:05}-of-{parts:05}{dot}{kind}"
        held = {name: tensors[name] for name in names[part::parts]}
        if pickled:
            torch.save(held, place / file)
        else:
            save_file(held, place / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (place / (whole + huggingface.INDEX)).write_text(json.dumps(index), encoding="utf-8")


# --- filling -----------------------------------------------------------------------------------------------------


class Counted:
    """Weights that know how many bytes of what they handed out are alive, at most, at any read."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors, self.alive, self.most, self.reads = tensors, 0, 0, []

    def shapes(self):
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        tensor = self.tensors[name].clone()
        size = tensor.untyped_storage().nbytes()
        self.alive += size
        self.most = max(self.most, self.alive)
        self.reads.append(name)
        weakref.finalize(tensor.untyped_storage(), self._gone, size)
        return tensor

    def _gone(self, size: int) -> None:
        self.alive -= size


@CASE
def test_filling_gives_the_network_that_was_written(config):
    assert same(fill(config, Held(written(config))), build(config, seed=1))


@CASE
def test_every_tensor_is_read_once(config):
    weights = Counted(written(config))
    fill(config, weights)
    assert sorted(weights.reads) == sorted(weights.tensors)


@CASE
def test_filling_in_another_type_holds_one_tensor_of_the_file(config):
    """What was read is gone before the next is read: one tensor of the file beside the network, however large it is."""
    weights = Counted(written(config))
    model = fill(config, weights, dtype=torch.bfloat16)
    largest = max(tensor.nbytes for tensor in weights.tensors.values())
    assert weights.most <= largest
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_queries_keys_and_values_are_joined_one_by_one():
    """Where they are the largest tensors of all: two of them beside their common matrix would be one too many."""
    config = ModelConfig(family="llama", vocabulary=4, context=8, width=32, layers=2, heads=4, hidden=8)
    weights = Counted(written(config))
    model = fill(config, weights, dtype=torch.bfloat16)
    assert weights.most == 32 * 32 * 4
    assert same(model, build(config, seed=1).bfloat16())


@CASE
def test_filling_in_the_stored_type_holds_one_copy_and_one_tensor(config):
    """The storages of the finished network and one tensor more are all that is ever alive."""
    weights = Counted(written(config))
    model = fill(config, weights)
    whole = sum(parameter.nbytes for parameter in model.parameters())
    largest = max(tensor.nbytes for tensor in weights.tensors.values())
    assert weights.most <= whole + largest


def test_a_head_stored_twice_is_compared_and_not_kept():
    config = CASES["gpt2"]
    tensors = written(config)
    weights = Counted(tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()})
    assert same(fill(config, weights), build(config, seed=1))
    assert weights.reads.count("lm_head.weight") == 1
    with pytest.raises(CheckpointError, match="lm_head.weight differs from the token table"):
        fill(config, Held(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}))


def test_types_that_a_file_mixes_are_widened_without_loss():
    """Norms in fp32 beside matrices in bf16, and one value matrix in fp32: everything fits into fp32 exactly."""
    config = CASES["llama"]
    tensors = {
        name: tensor if "norm" in name or "layers.0.self_attn.v_proj" in name else tensor.bfloat16()
        for name, tensor in written(config).items()
    }
    model = fill(config, Held(tensors))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    back = to_hf(model.state_dict(), config)
    assert all(torch.equal(back[name], tensor.float()) for name, tensor in tensors.items())


def test_wrong_shapes_are_found_before_anything_is_read():
    config = CASES["qwen3"]
    weights = Counted(written(config) | {"model.norm.weight": torch.ones(9)})
    with pytest.raises(CheckpointError, match=r"model.norm.weight has shape \(9,\), the config makes it \(8,\)"):
        fill(config, weights)
    assert not weights.reads


# --- folders -----------------------------------------------------------------------------------------------------


@CASE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_whole_file(config, dtype, tmp_path):
    tensors = {name: tensor.to(dtype) for name, tensor in written(config).items()}
    source = huggingface.open_source(foreign(tmp_path / "m", config, tensors))
    assert (source.format, source.config, source.card["format"]) == ("huggingface", config, "huggingface")
    assert source.tokenizer.encode("cab") == [2, 0, 1]
    assert source.weights.shapes() == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert same(fill(config, source.weights), build(config, seed=1).to(dtype))


@CASE
@pytest.mark.parametrize("pickled", [False, True])
def test_shards(config, pickled, tmp_path, capsys):
    sharded(foreign(tmp_path / "m", config), written(config), 1 if config.family == "bigram" else 3, pickled=pickled)
    assert same(folder.load(tmp_path / "m").model, build(config, seed=1))
    assert len(capsys.readouterr().err.splitlines()) == pickled  # one warning for all files


@CASE
def test_a_pickle_is_read_after_a_warning(config, tmp_path, capsys):
    torch.save(written(config), foreign(tmp_path / "m", config) / huggingface.PICKLED)
    assert same(folder.load(tmp_path / "m").model, build(config, seed=1))
    said = capsys.readouterr()
    assert "holds pickles, which can be dangerous: only plain tensors are taken" in said.err and said.out == ""
    assert len(said.err.splitlines()) == 1


def test_a_pickle_of_a_module_with_parameters_and_masks(tmp_path):
    """What transformers' own old checkpoints hold: an OrderedDict with metadata, Parameters, stored boolean masks."""
    config = CASES["gpt2"]
    state = torch.nn.Module().state_dict()
    state.update({name: torch.nn.Parameter(tensor) for name, tensor in written(config).items()})
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    torch.save(state, foreign(tmp_path / "m", config) / huggingface.PICKLED)
    assert same(folder.load(tmp_path / "m").model, build(config, seed=1))


def test_safetensors_go_before_pickles(tmp_path, capsys):
    config = CASES["llama"]
    torch.save(written(config, seed=2), foreign(tmp_path / "m", config, written(config)) / huggingface.PICKLED)
    assert same(folder.load(tmp_path / "m").model, build(config, seed=1))
    assert capsys.readouterr().err == ""


def test_our_own_folder_is_a_source_with_its_card(tmp_path):
    config = CASES["qwen3"]
    folder.save_model(tmp_path / "m", build(config, seed=1), tokens.train("chars", ["ab"]), card={"data": "letters"})
    source = huggingface.open_source(tmp_path / "m")
    assert source.card == {"data": "letters"} and source.config == config
    with (tmp_path / "m" / "card.json").open("a") as file:
        file.write(" ")
    with pytest.raises(CheckpointError, match="card.json is too long"):
        huggingface.open_source(tmp_path / "m")


def test_several_ends_of_a_text_survive(tmp_path):
    """An instruct model ends a turn and a document with different tokens."""
    config = CASES["llama"]
    place = foreign(tmp_path / "m", config, written(config))
    tokens.train("chars", ["abcdefgh"], special=["<|endoftext|>", "<|im_end|>"]).save(place)
    (place / "generation_config.json").write_text('{"eos_token_id": [9, 8]}', encoding="utf-8")
    loaded = folder.load(place)
    assert sorted(loaded.tokenizer.ends) == [8, 9]
    folder.save_model(tmp_path / "ours", loaded.model, loaded.tokenizer, card=loaded.card)
    again = json.loads((tmp_path / "ours" / "generation_config.json").read_text(encoding="utf-8"))
    assert sorted(again["eos_token_id"]) == [8, 9]
    assert sorted(folder.load(tmp_path / "ours").tokenizer.ends) == [8, 9]


def test_the_only_end_of_a_text_survives(tmp_path):
    """Named by generation_config.json alone: no token of the tokenizer has the role."""
    config = CASES["llama"]
    place = foreign(tmp_path / "m", config, written(config))
    tokens.train("chars", ["abcdefgh"], special=["<|stop|>"]).save(place)
    (place / "generation_config.json").write_text('{"eos_token_id": [8]}', encoding="utf-8")
    loaded = folder.load(place)
    assert loaded.tokenizer.eos is None and loaded.tokenizer.ends == [8]
    folder.save_model(tmp_path / "ours", loaded.model, loaded.tokenizer, card=loaded.card)
    again = json.loads((tmp_path / "ours" / "generation_config.json").read_text(encoding="utf-8"))
    assert again["eos_token_id"] == 8 and folder.load(tmp_path / "ours").tokenizer.ends == [8]


def test_a_folder_of_hugging_faces_cache_is_opened_through_its_links(tmp_path):
    config = CASES["llama"]
    hub = tmp_path / "models--a--b"
    (hub / "snapshots").mkdir(parents=True)
    place = foreign(hub / "snapshots" / "1f", config)
    (hub / "blobs").mkdir()
    save_file(written(config), hub / "blobs" / "abcdef")
    (place / huggingface.WEIGHTS).symlink_to(Path("../../blobs/abcdef"))
    loaded = folder.load(place)
    assert same(loaded.model, build(config, seed=1)) and loaded.card["imported from"] == "a/b"


def test_a_file_replaced_while_it_is_read_is_noticed(tmp_path):
    config = CASES["llama"]
    weights = huggingface.weights(foreign(tmp_path / "m", config, written(config)))
    save_file(written(config, seed=2), tmp_path / "new.safetensors", metadata={"format": "pt"})  # as long as the old
    (tmp_path / "new.safetensors").replace(tmp_path / "m" / huggingface.WEIGHTS)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        weights.read("model.norm.weight")


def test_a_run_that_goes_on_is_read_again(tmp_path, monkeypatch):
    """The folder is replaced between opening and reading, once: the newer weights are what is loaded."""
    config, place = CASES["llama"], tmp_path / "m"
    tokenizer = tokens.train("chars", ["ab"])
    folder.save_model(place, build(config, seed=1), tokenizer, card={})
    opened, rounds = huggingface.open_source, []

    def replaced(path):
        source = opened(path)
        rounds.append(atomic.identity(path))
        if len(rounds) == 1:
            folder.save_model(place, build(config, seed=2), tokenizer, card={})
        return source

    monkeypatch.setattr(huggingface, "open_source", replaced)
    assert same(folder.load(place).model, build(config, seed=2)) and len(rounds) == 2


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    place = foreign(tmp_path / "m", CASES["llama"], written(CASES["llama"]))
    tokens.train("chars", ["abcdefghijklmnopqrstuvwxyz"]).save(place)
    with pytest.raises(CheckpointError, match="the tokenizer has 27 ids, the model only 20"):
        folder.load(place)


def test_what_a_foreign_folder_says_of_itself_is_kept(tmp_path):
    config = CASES["llama"]
    place = foreign(tmp_path / "small", config, written(config))
    (place / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: mine\n", encoding="utf-8")
    loaded = folder.load(place)
    assert loaded.card == {"imported from": "small", "format": "huggingface", "licence": "apache-2.0"}
    folder.save_model(tmp_path / "ours", loaded.model, loaded.tokenizer, card=loaded.card)
    assert "license: apache-2.0\n" in (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")


def test_words_of_a_foreign_card_add_no_lines_to_ours(tmp_path):
    card = {"licence": "mit\n---\n# Buy", "name": "a | b\n\n# Buy"}
    folder.save_model(tmp_path / "m", build(CASES["gpt2"], seed=1), tokens.train("chars", ["ab"]), card=card)
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "\nlicense: other\n" in text and "\n# Buy" not in text and r"| name | a \| b # Buy |" in text


@pytest.mark.filterwarnings("ignore")  # the library itself warns of types it is about to rename
def test_the_library_and_we_see_the_same_file(tmp_path):
    """Every type, no numbers at all, a single one, five dimensions, metadata: safetensors' own reader beside ours."""
    path = tmp_path / "a.safetensors"
    kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    kinds += [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    tensors = {str(kind): torch.ones(3, 5, dtype=kind) for kind in kinds}
    tensors |= {"none": torch.zeros(0, 3), "also none": torch.zeros(4, 0), "one": torch.tensor(2.5)}
    tensors |= {"five": torch.randn(1, 2, 3, 2, 1), "ä ☃": torch.randn(7)}
    save_file(tensors, path, metadata={"format": "pt", "words": "x" * 1000})
    file = huggingface.SafeFile(path)
    with safe_open(path, framework="pt") as library:
        assert file.shapes().keys() == set(library.keys())
        for name, shape in file.shapes().items():
            assert shape == tuple(library.get_slice(name).get_shape())
            if tensors[name].dtype in huggingface.READ.values():
                seen, expected = file.read(name), library.get_tensor(name)
                assert seen.dtype == expected.dtype and torch.equal(seen, expected)


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    """transformers would add it to the weights without a word."""
    place = foreign(tmp_path / "m", CASES["llama"], written(CASES["llama"]))
    huggingface.open_source(place)
    (place / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"adapter_config.json, beside its weights\n  -> merge it"):
        huggingface.open_source(place)
