"""OpenAI's folder: what TensorFlow wrote computes what transformers computes from the same arrays."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

from groundup.checkpoint import names, openai
from groundup.checkpoint.source import fill
from groundup.errors import CheckpointError, TokenizerError
from groundup.model.config import ModelConfig, count_parameters, from_name

pytest.importorskip("google_crc32c", reason="pip install 'groundup[openai]'")

DATA = Path(__file__).parent / "data"
FIXTURE = DATA / "gpt2-tf"
HPARAMS = {"n_vocab": 263, "n_ctx": 8, "n_embd": 8, "n_head": 2, "n_layer": 11}


@pytest.fixture(scope="module")
def given():
    """The arrays that TensorFlow was given, by its names."""
    spec = importlib.util.spec_from_file_location("write_gpt2_tf", DATA / "write_gpt2_tf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: torch.from_numpy(value) for name, value in module.arrays(HPARAMS).items()}


@pytest.fixture
def folder(tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(FIXTURE, tmp_path / "gpt2")


def test_the_source_says_what_it_is():
    source = openai.open_source(FIXTURE)
    assert source.config == ModelConfig(family="gpt2", vocabulary=263, context=8, width=8, layers=11, heads=2)
    assert source.format == "openai" and source.card["imported from"] == "gpt2-tf"
    shapes = source.weights.shapes()
    assert len(shapes) == 4 + 12 * 11 and "lm_head.weight" not in shapes
    assert shapes["transformer.h.10.attn.c_attn.weight"] == (8, 24)  # (1, 8, 24) in the file
    assert source.weights.read("transformer.wpe.weight").shape == (8, 8)
    with pytest.raises(CheckpointError, match="nothing for 'transformer.wtf.weight'\n.*it has transformer.wte.weight"):
        source.weights.read("transformer.wtf.weight")


def by_transformers(given, ids):
    """Logits (T, V) of transformers' GPT-2, its parameters set by hand from TensorFlow's arrays."""
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=263, n_positions=8, n_embd=8, n_head=2, n_layer=11)).eval()
    state = theirs.transformer
    norms = {"ln_f": state.ln_f}
    linears = {}
    for layer, block in enumerate(state.h):
        norms |= {f"h{layer}/ln_1": block.ln_1, f"h{layer}/ln_2": block.ln_2}
        linears |= {f"h{layer}/attn/c_attn": block.attn.c_attn, f"h{layer}/attn/c_proj": block.attn.c_proj}
        linears |= {f"h{layer}/mlp/c_fc": block.mlp.c_fc, f"h{layer}/mlp/c_proj": block.mlp.c_proj}
    with torch.no_grad():
        state.wte.weight.copy_(given["model/wte"])
        state.wpe.weight.copy_(given["model/wpe"])
        for kind, modules in (("g", norms), ("w", linears)):
            for path, module in modules.items():
                module.weight.copy_(given[f"model/{path}/{kind}"].squeeze(0) if kind == "w" else
                                    given[f"model/{path}/{kind}"])  # fmt: skip
                module.bias.copy_(given[f"model/{path}/b"])
        return theirs(ids[None]).logits[0]


def test_logits_are_those_of_transformers(given):
    """W02, W06: every parameter random; 1e-4 of the largest."""
    source = openai.open_source(FIXTURE)
    model = fill(source.config, source.weights).eval()
    ids = torch.tensor([5, 262, 0, 17, 256, 100, 100, 33])
    with torch.no_grad():
        ours, theirs = model(ids[None])[0], by_transformers(given, ids)
    assert theirs.std() > 0.1 and not torch.allclose(theirs[0], theirs[1], atol=1e-2)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    # could it fail? one norm of one layer exchanged for another is seen
    wrong = given | {"model/h10/ln_1/g": given["model/h2/ln_1/g"]}
    assert (ours - by_transformers(wrong, ids)).abs().max() > 1e-2 * theirs.abs().max()


def test_every_number_arrives(given):
    """W01, W02: as many parameters as the formula says, each the one that TensorFlow was given."""
    source = openai.open_source(FIXTURE)
    model = fill(source.config, source.weights)
    found = names.to_hf(model.state_dict(), source.config)
    assert sum(tensor.numel() for tensor in found.values()) == count_parameters(source.config).total
    for path, value in given.items():
        assert torch.equal(found.pop(openai.hugging_face(path)), value.squeeze(0) if "/w" in path[-2:] else value)
    assert not found


@pytest.mark.parametrize("size", ["124M", "355M", "774M", "1558M"])
def test_the_layout_holds_for_all_released_sizes(size):
    """W05: each path has a Hugging Face name and a shape, those of the network of that size."""
    config = from_name(size)
    ours = {openai.hugging_face(path): shape for path, shape in openai.layout(config).items()}
    expected = {
        pair.theirs[0]: pair.shape[::-1] if pair.transposed else pair.shape
        for pair in names.pairs(config)
    }  # fmt: skip
    assert ours == expected


# --- the vocabulary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " the there", "in then, a  rain\n\n  ", "naïve 日本 \x00🙂", "it's 42 're"])
def test_another_vocabulary_is_read_as_it_stands(text):
    """The ids are those of `tokenizers` from the same two files."""
    tokenizer = openai.open_source(FIXTURE).tokenizer
    theirs = ByteLevelBPETokenizer(str(FIXTURE / "encoder.json"), str(FIXTURE / "vocab.bpe"))
    assert tokenizer.encode(text) == theirs.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lines_that_end_as_on_windows_are_lines(folder):
    merges = (folder / "vocab.bpe").read_bytes()
    (folder / "vocab.bpe").write_bytes(merges.replace(b"\n", b"\r\n"))
    tokenizer = openai.open_source(folder).tokenizer
    assert tokenizer.encode(" the then") == openai.open_source(FIXTURE).tokenizer.encode(" the then")


def test_the_end_of_text_is_special():
    tokenizer = openai.open_source(FIXTURE).tokenizer
    assert tokenizer.vocabulary == 263 and tokenizer.end_of_text == 262
    assert tokenizer.encode("<|endoftext|>", special=True) == [262]
    assert 262 not in tokenizer.encode("<|endoftext|>")
    assert tokenizer.encode(" the") == [258]


def test_openais_own_vocabulary_is_recognised(folder, data_dir):
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(data_dir / "gpt2-bpe" / name, folder / name)
    with pytest.raises(CheckpointError, match="the tokenizer has 50,257 ids, the model only 263"):
        openai.open_source(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("encoder.json", b"[]", "encoder.json with vocab.bpe: a JSON list is no vocabulary"),
        ("encoder.json", b"{}", "needs the token|no token for byte"),
        ("encoder.json", b'{"a": 5}', "its numbering"),
        ("encoder.json", b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read"),
        ("encoder.json", b"[" * 100_000, "cannot be read"),
        ("encoder.json", b"\xff\xfe", "cannot be read"),
        ("vocab.bpe", b"#version: 0.2\nx y\n", "the merge of b'x' and b'y' needs the token b'xy'"),
        ("vocab.bpe", b"#version: 0.2\nh e i\n", "is not a tokenizer.json"),
        ("vocab.bpe", b"\xff", "cannot be read"),
    ],
)
def test_a_spoilt_vocabulary_is_refused(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=words):
        openai.open_source(folder)


# --- the other small files -------------------------------------------------------------------------------------------


def test_missing_files_are_named_all_at_once(folder):
    for name in ("hparams.json", "vocab.bpe"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"lacks hparams.json, vocab.bpe\n.*https://openaipublic"):
        openai.open_source(folder)


@pytest.mark.parametrize("name", ["model.ckpt.index", "model.ckpt.data-00000-of-00001"])
def test_a_missing_part_of_the_checkpoint_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        openai.open_source(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_layer": 12}, "has 136 arrays, hparams.json asks for 148"),
        ({"n_layer": 10**9}, "asks for 12,000,000,004"),
        ({"n_layer": 10**9 + 1}, "n_layer is beyond 1,000,000,000, and beyond any model"),
        ({"n_embd": 10**4299}, "n_embd is beyond"),
        ({"n_vocab": -(10**4299)}, "n_vocab is beyond"),
        ({"n_layer": -1}, "layers is -1"),
        ({"n_head": 3}, "width 8 is not divisible by heads 3"),
        ({"n_head": 0}, "heads is 0"),
        ({"n_embd": 16}, r"model/wte has shape \(263, 8\), hparams.json makes it \(263, 16\)"),
        ({"n_ctx": 9}, r"model/wpe has shape \(8, 8\), hparams.json makes it \(9, 8\)"),
        ({"n_vocab": 264}, "model/wte has shape"),
        ({"n_vocab": "263"}, "vocabulary is '263'"),
        ({"n_vocab": True}, "vocabulary is True"),
        ({"n_ctx": 8.0}, "context is 8.0"),
        ({"n_ctx": float("nan")}, "context is nan"),
        ({"n_ctx": None}, "context is None"),
        ({"n_ctx": [8]}, r"context is \[8\]"),
        ({"sparse": 1}, "must hold n_vocab, n_ctx, n_embd, n_head, n_layer, and holds .*'sparse'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(folder, change, words):
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        openai.open_source(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b"[" * 60_000, "cannot be read as JSON"),
        (b'{"n_layer": ' + b"9" * 10_000 + b"}", "cannot be read as JSON"),
        (b"[]", "holds list"),
        (b"{}", "holds nothing"),
        (b'{"n_layer": 11}', "holds 'n_layer'"),
        (b" " * 70_000, "70,000 bytes, more than any hparams.json"),
    ],
)
def test_settings_that_are_no_settings_are_refused(folder, content, words):
    (folder / "hparams.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        openai.open_source(folder)


def test_the_pointer_may_name_another_checkpoint(folder):
    """Fine-tuned models are called model-1000 and such."""
    for name in ("index", "data-00000-of-00001"):
        (folder / f"model.ckpt.{name}").rename(folder / f"model-1000.{name}")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model-1000"\n', encoding="utf-8")
    assert openai.open_source(folder).config.layers == 11


@pytest.mark.parametrize(
    "target", ["../../etc/passwd", "/etc/passwd", "../gpt2/model.ckpt", "./model.ckpt", "", "..", "C:\\model.ckpt"]
)
def test_the_pointer_may_not_leave_the_folder(folder, target):
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{target}"\n', encoding="utf-8")
    with pytest.raises(CheckpointError, match="points to '.*', which is no file beside it"):
        openai.open_source(folder)


@pytest.mark.parametrize("content", [b"", b"model.ckpt", b"\xff" * 100, b'all_model_checkpoint_paths: "model.ckpt"'])
def test_a_pointer_to_nothing_is_refused(folder, content):
    (folder / "checkpoint").write_bytes(content)
    with pytest.raises(CheckpointError, match="names no checkpoint"):
        openai.open_source(folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    for name in ("hparams.json", "model.ckpt.index"):
        aside = (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(aside)
        with pytest.raises(CheckpointError, match=f"names a file outside of it: '{name}'"):
            openai.open_source(folder)
        (folder / name).unlink()
        aside.rename(folder / name)
