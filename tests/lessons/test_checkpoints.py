"""What a checkpoint must hold for training to go on, and where OpenAI's weights belong."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from groundup.checkpoint import folder, names
from groundup.errors import CheckpointError
from groundup.lessons.ladder import find, run
from groundup.model import build
from groundup.model.config import ModelConfig, count_parameters, from_name
from groundup.tokens.simple import Characters
from groundup.train import run as runs

CONFIG = ModelConfig(family="gpt2", vocabulary=20, context=8, width=16, layers=2, heads=2, dropout_shortcut=0.2)
TOKENIZER = Characters.learn(["abcdefgh ijklm"], special=["<|endoftext|>"])
TINY = ModelConfig(family="gpt2", vocabulary=30, context=8, width=12, layers=11, heads=3)


def begun():
    model = build(CONFIG, seed=1)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def walk(model, optimizer, count: int) -> list[float]:
    """Steps on random rows, with dropout, from torch's generator; the losses."""
    losses = []
    for _ in range(count):
        rows = torch.randint(20, (4, 9))
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def kept(model, optimizer, out):
    """A checkpoint of the library in `out`."""
    rng = {"cpu": torch.get_rng_state()}
    runs.save(out, runs.snapshot(model, optimizer, progress=runs.Progress(step=3), rng=rng, card={}), TOKENIZER)


def test_a_run_goes_on_bit_for_bit_from_model_and_optimizer(tmp_path):
    """P09: three steps, saved, three more: from the file the same to the last bit; without the optimizer not."""
    torch.manual_seed(3)
    model, optimizer = begun()
    walk(model, optimizer, 3)
    kept(model, optimizer, tmp_path)
    onward = walk(model, optimizer, 3)

    other, its_own = begun()
    _, rng = runs.restore(runs.latest(tmp_path), other, its_own)
    torch.set_rng_state(rng["cpu"])
    assert walk(other, its_own, 3) == onward
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))

    weights_alone, fresh = begun()
    runs.restore(runs.latest(tmp_path), weights_alone, torch.optim.AdamW(weights_alone.parameters()))
    torch.set_rng_state(rng["cpu"])
    parted = walk(weights_alone, fresh, 3)
    assert parted[0] == onward[0] and parted[1:] != onward[1:]


def test_a_model_alone_is_saved_and_loaded(tmp_path):
    """P09: a model folder gives back every weight and the tokenizer."""
    model = build(CONFIG, seed=1).eval()
    folder.save_model(tmp_path / "gpt", model, TOKENIZER, card={})
    loaded = folder.load(tmp_path / "gpt")
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.model(tokens), model(tokens)) and loaded.tokenizer.vocabulary == TOKENIZER.vocabulary


@pytest.mark.slow
def test_one_more_epoch_in_a_new_process(data_dir, tmp_path, monkeypatch, climb):
    """P10: another Python reads the run folder and goes on as this one would; in the lesson the loss falls further."""
    torch.manual_seed(3)
    model, optimizer = begun()
    walk(model, optimizer, 3)
    kept(model, optimizer, tmp_path)
    onward = walk(model, optimizer, 3)
    session = f"""
import importlib.util, json, sys, torch
spec = importlib.util.spec_from_file_location("twin", {str(__file__)!r})
twin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twin)
torch.set_num_threads({torch.get_num_threads()})
model, optimizer = twin.begun()
_, rng = twin.runs.restore(twin.runs.latest(twin.runs.Path({str(tmp_path)!r})), model, optimizer)
torch.set_rng_state(rng["cpu"])
print(json.dumps(twin.walk(model, optimizer, 3)))
"""
    said = subprocess.run([sys.executable, "-c", session], check=True, capture_output=True, text=True).stdout
    assert json.loads(said.splitlines()[-1]) == onward

    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    lesson = climb("checkpoints")
    first, second = lesson["first"], lesson["second"]
    assert lesson["later"]["losses"] == second
    assert sum(second) / len(second) < sum(first) / len(first) - 0.2


def test_galore_and_continued_pretraining_have_a_paragraph():
    """P20: named with its optimizer and paper; the count of kept numbers is that of one projected side."""
    text = find("checkpoints").path.read_text(encoding="utf-8")
    assert all(word in text for word in ("GaLore", "Zhao 2024", "GaLoreAdamW", "Continued pretraining"))


# --- OpenAI's weights --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("openai_weights")


def arrays() -> dict[str, torch.Tensor]:
    """Random weights under OpenAI's paths, in their layout: written down here, not derived."""
    shapes = {"model/wte": (30, 12), "model/wpe": (8, 12), "model/ln_f/g": (12,), "model/ln_f/b": (12,)}
    for layer in range(11):
        for name, shape in {
            "ln_1/g": (12,), "ln_1/b": (12,), "ln_2/g": (12,), "ln_2/b": (12,),
            "attn/c_attn/w": (12, 36), "attn/c_attn/b": (36,), "attn/c_proj/w": (12, 12), "attn/c_proj/b": (12,),
            "mlp/c_fc/w": (12, 48), "mlp/c_fc/b": (48,), "mlp/c_proj/w": (48, 12), "mlp/c_proj/b": (12,),
        }.items():  # fmt: skip
            shapes[f"model/h{layer}/{name}"] = shape
    torch.manual_seed(7)
    return {path: torch.randn(shape) * 0.1 for path, shape in sorted(shapes.items())}


@pytest.fixture
def published(tmp_path):
    """A tiny model in files such as OpenAI's."""
    settings = {"n_vocab": 30, "n_ctx": 8, "n_embd": 12, "n_head": 3, "n_layer": 11}
    (tmp_path / "hparams.json").write_text(json.dumps(settings), encoding="utf-8")
    flat = torch.cat([array.flatten() for array in arrays().values()])
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(flat.numpy().tobytes())
    return tmp_path


def logits_by_hand(found: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """GPT-2 from OpenAI's arrays as they are, with three heads of 4: x @ w, no transpose anywhere; (T,) -> (T, V)."""

    def norm(x: torch.Tensor, path: str) -> torch.Tensor:
        return F.layer_norm(x, (12,), found[f"{path}/g"], found[f"{path}/b"])

    def linear(x: torch.Tensor, path: str) -> torch.Tensor:
        return x @ found[f"{path}/w"] + found[f"{path}/b"]

    time = len(ids)
    x = found["model/wte"][ids] + found["model/wpe"][:time]
    for layer in range(11):
        path = f"model/h{layer}"
        parts = linear(norm(x, f"{path}/ln_1"), f"{path}/attn/c_attn").split(12, dim=1)
        q, k, v = (part.view(time, 3, 4).transpose(0, 1) for part in parts)  # (T, D) -> (H, T, K)
        scores = (q @ k.transpose(1, 2) / 2).masked_fill(torch.ones(time, time).triu(1).bool(), -math.inf)
        context = (scores.softmax(dim=-1) @ v).transpose(0, 1).reshape(time, 12)
        x = x + linear(context, f"{path}/attn/c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"{path}/ln_2"), f"{path}/mlp/c_fc"), approximate="tanh"),
                       f"{path}/mlp/c_proj")  # fmt: skip
    return norm(x, "model/ln_f") @ found["model/wte"].T


def test_the_files_give_settings_and_five_keys(lesson, published):
    """W01: settings, five keys, every array where its path says; a file cut short is refused."""
    config, tree = lesson["read"](published)
    assert config == TINY
    assert sorted(tree) == ["b", "blocks", "g", "wpe", "wte"] and len(tree["blocks"]) == 11
    assert torch.equal(tree["blocks"][10]["mlp"]["c_fc"]["w"], arrays()["model/h10/mlp/c_fc/w"])
    assert torch.equal(tree["blocks"][2]["ln_2"]["g"], arrays()["model/h2/ln_2/g"])
    assert torch.equal(tree["b"], arrays()["model/ln_f/b"])
    data = published / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(ValueError, match="size"):
        lesson["read"](published)


def test_weights_are_transposed_split_and_tied(lesson, published):
    """W02: the copied network gives the logits of the arrays themselves; a wrong shape raises, by hand and here."""
    _, tree = lesson["read"](published)
    model = build(TINY, seed=1).eval()
    lesson["load"](model, tree)
    ids = torch.tensor([5, 17, 29, 0])
    torch.testing.assert_close(model(ids[None])[0], logits_by_hand(arrays(), ids))
    w = tree["blocks"][3]["attn"]["c_attn"]["w"]
    for third, part in enumerate(w.split(12, dim=1)):
        assert torch.equal(model.blocks[3].attention.qkv.weight[12 * third : 12 * third + 12], part.T)
    assert model.head_weight is model.token_table.weight
    tree["blocks"][3]["attn"]["c_attn"]["w"] = w.T
    with pytest.raises(ValueError, match=r"\(36, 12\) here, \(12, 36\) there"):
        lesson["load"](model, tree)
    theirs = names.to_hf(model.state_dict(), TINY)
    theirs["transformer.h.3.attn.c_attn.weight"] = w.T
    with pytest.raises(CheckpointError, match="c_attn.weight has shape"):
        names.from_hf(theirs, TINY)


def test_files_of_tensorflow_by_hand_and_by_the_library(lesson):
    """W01, W02: a folder that TensorFlow wrote: the two readers come to the same network, number for number."""
    pytest.importorskip("google_crc32c", reason="pip install 'groundup[openai]'")
    written = Path(__file__).parents[1] / "checkpoint" / "data" / "gpt2-tf"
    config, tree = lesson["read"](written)
    by_hand = build(config, seed=1)
    lesson["load"](by_hand, tree)
    by_the_library = lesson["by_the_library"](written)
    assert config.layers == 11 and not by_the_library.training
    for ours, theirs in zip(by_hand.parameters(), by_the_library.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_weights_the_lesson_says_where_they_are(data_dir, monkeypatch, tmp_path, capsys):
    """W03: coherent text needs the weights; without them the rung names the seven files and their address.

    W04: so do the losses 3.7547 and 3.5596.
    """
    for name in ("text", "gpt2-bpe"):
        (tmp_path / name).symlink_to(data_dir / name)
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path))
    lesson = run("openai_weights")
    said = capsys.readouterr().out
    assert "no weights in" in said and lesson["ADDRESS"].startswith("https://openaipublic")
    assert all(name in said for name in lesson["FILES"]) and len(lesson["FILES"]) == 7
    assert lesson["drawn"] and lesson["losses"]


def test_larger_models_by_name(lesson):
    """W05: the four released sizes; each path has a place in the network of that size."""
    counts = {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080, "1558M": 1_557_611_200}
    for name, count in counts.items():
        shapes = lesson["shapes_of"](from_name(name))
        assert sum(math.prod(shape) for shape in shapes.values()) == count == count_parameters(from_name(name)).total
    assert list(shapes) == sorted(shapes) and shapes["model/h47/attn/c_attn/w"] == (1600, 4800)


def test_the_hugging_face_layout_gives_the_same_logits(lesson, published, tmp_path):
    """W06: the same weights as a Hugging Face folder: the logits of W02."""
    _, tree = lesson["read"](published)
    by_hand = build(TINY, seed=1).eval()
    lesson["load"](by_hand, tree)
    words = {"w": "weight", "g": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight"}
    theirs = {}
    for path, array in arrays().items():
        *parts, last = path.removeprefix("model/").split("/")
        parts = [f"h.{part[1:]}" if part[1:].isdigit() else part for part in parts]
        theirs[".".join(["transformer", *parts, words[last]])] = array
    (tmp_path / "hf").mkdir()
    save_file(theirs, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "hf" / "config.json").write_text(json.dumps(names.hf_config(TINY)), encoding="utf-8")
    model = folder.read_model(tmp_path / "hf").eval()
    ids = torch.tensor([[5, 17, 29, 0]])
    assert torch.equal(model(ids), by_hand(ids))
