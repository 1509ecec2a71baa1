"""Folders of the Hugging Face layout that lie, or were made to harm: refused in words, before they take memory."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from groundup import tokens
from groundup.checkpoint import folder, huggingface
from groundup.checkpoint.names import hf_config, to_hf
from groundup.errors import CheckpointError, TokenizerError
from groundup.model import build
from groundup.model.config import ModelConfig

CONFIG = ModelConfig(family="llama", vocabulary=20, context=8, width=8, layers=2, heads=2)
NORM = {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A whole and honest folder; each test spoils one thing."""
    there = tmp_path / "model"
    there.mkdir()
    (there / "config.json").write_text(json.dumps(hf_config(CONFIG)), encoding="utf-8")
    tokens.train("chars", ["abc"]).save(there)
    save_file(weights(), there / huggingface.WEIGHTS)
    return there


def weights() -> dict[str, torch.Tensor]:
    return to_hf(build(CONFIG, seed=1).state_dict(), CONFIG)


def safetensors(header: Any, data: int = 32, *, length: int | None = None) -> bytes:
    """A file with this header (JSON, or bytes as they are), whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def norm(**change: Any) -> dict[str, Any]:
    return {"model.norm.weight": NORM | change}


# --- headers of safetensors --------------------------------------------------------------------------------------

HEADERS: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "its header is said to have 0 bytes, the file has 0"),
    "seven bytes": (b"1234567", "the file has 7"),
    "a header of 2^63 bytes": (safetensors(norm(), length=2**63), r"said to have 9,223,372,036,854,775,808 bytes"),
    "a header a byte too long": (safetensors(b"{}", 0, length=3), "said to have 3 bytes, the file has 10"),
    "a header of 3 MB": (safetensors(b" " * 3_000_000), "its header has 3,000,000 bytes, more than 2,097,152"),
    "many empty objects": (safetensors(b"[" + b"{}," * 690_000 + b"{}]", 0), "its header is no JSON object"),
    "no JSON": (safetensors(b"\x80\x04abc"), "its header is no JSON"),
    "a list": (safetensors([]), "its header is no JSON object"),
    "brackets without end": (safetensors(b"[" * 1_000_000), "its header is no JSON"),
    "a number of a million digits": (safetensors(b'{"a": ' + b"9" * 1_000_000 + b"}"), "its header is no JSON"),
    "a name twice": (
        safetensors(b'{"a": {"dtype": "U8", "shape": [32], "data_offsets": [0, 32]}, "a": {}}'),
        "a name stands there twice",
    ),
    "an entry of nothing": (safetensors({"a": None}), "a is not described"),
    "an unknown type": (safetensors(norm(dtype="F31")), "has the unknown type F31"),
    "a type that is a list": (safetensors(norm(dtype=["F32"])), "has the unknown type"),
    "a negative length": (safetensors(norm(shape=[-8])), r"has the shape \[-8\]"),
    "two negative lengths": (safetensors(norm(shape=[-2, -4])), r"has the shape \[-2, -4\]"),
    "a NaN length": (safetensors(norm(shape=[float("nan")])), r"has the shape \[nan\]"),
    "an endless length": (safetensors(norm(shape=[float("inf")])), r"has the shape \[inf\]"),
    "a length of 8.0": (safetensors(norm(shape=[8.0])), r"has the shape \[8.0\]"),
    "a length of true": (safetensors(norm(shape=[True, 8])), r"has the shape \[True, 8\]"),
    "a shape of text": (safetensors(norm(shape="8")), "has the shape 8"),
    "nine lengths": (safetensors(norm(shape=[8] + [1] * 8)), "has the shape"),
    "a hundred thousand lengths": (safetensors(norm(shape=[2] * 100_000)), "has the shape"),
    "2^62 by 2^62 numbers": (safetensors(norm(shape=[2**62, 2**62])), "needs .* bytes, data_offsets give 32"),
    "10^4000 by 10^4000 numbers": (safetensors(norm(shape=[10**4000, 10**4000])), "has the shape"),
    "2^63 numbers": (safetensors(norm(shape=[2**63])), r"has the shape \[9223372036854775808\]"),
    "offsets of 4,000 digits": (safetensors(norm(data_offsets=[0, 10**4000])), "has the data_offsets"),
    "fewer bytes than the shape": (safetensors(norm(shape=[9])), "needs 36 bytes, data_offsets give 32"),
    "more bytes than the shape": (safetensors(norm(shape=[7])), "needs 28 bytes, data_offsets give 32"),
    "negative offsets": (safetensors(norm(data_offsets=[-32, 0])), r"has the data_offsets \[-32, 0\]"),
    "offsets backwards": (safetensors(norm(data_offsets=[32, 0])), r"has the data_offsets \[32, 0\]"),
    "one offset": (safetensors(norm(data_offsets=[32])), r"has the data_offsets \[32\]"),
    "offsets beyond the file": (safetensors(norm(data_offsets=[2**40, 2**40 + 32])), "overlap or gap"),
    "a claim of 64 GB": (safetensors(norm(shape=[2**34], data_offsets=[0, 2**36])), "its tensors end at byte"),
    "tensors over each other": (
        safetensors({"a": NORM, "b": NORM | {"data_offsets": [16, 48]}}, 48),
        "b begins at byte .* overlap or gap",
    ),
    "the same bytes twice": (safetensors({"a": NORM, "b": NORM}), "b begins at byte .* overlap or gap"),
    "a gap": (safetensors({"a": NORM, "b": NORM | {"data_offsets": [40, 72]}}, 72), "overlap or gap"),
    "bytes at the end": (safetensors(norm(), 64), "its tensors end at byte"),
    "cut short": (safetensors(norm(), 31), "its tensors end at byte"),
}


@pytest.mark.parametrize(("content", "message"), HEADERS.values(), ids=HEADERS.keys())
def test_a_lying_header(place, frugal, content, message):
    (place / huggingface.WEIGHTS).write_bytes(content)
    with frugal(), pytest.raises(CheckpointError, match=f"is truncated or no safetensors file: .*{message}"):
        folder.load(place)


def test_a_file_of_a_terabyte_of_nothing(place, frugal):
    """A file with a hole takes no space on the disk: its size alone says nothing, and is not allocated."""
    content = safetensors(norm(shape=[2**38], data_offsets=[0, 2**40]), 0)
    with (place / huggingface.WEIGHTS).open("wb") as file:
        file.write(content)
        try:
            file.truncate(len(content) + 2**40)
        except OSError as error:
            pytest.skip(f"this disk knows no holes: {error}")
    with frugal(), pytest.raises(CheckpointError, match="the file lacks model.embed_tokens.weight"):
        folder.load(place)


@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.uint8])
def test_numbers_of_another_type(place, frugal, kind):
    save_file({name: tensor.to(kind) for name, tensor in weights().items()}, place / huggingface.WEIGHTS)
    with frugal(), pytest.raises(CheckpointError, match=r"is stored as \w+, read are F32, F16, BF16"):
        folder.load(place)


# --- an index of shards ------------------------------------------------------------------------------------------


def indexed(place: Path, index: Any) -> None:
    (place / huggingface.WEIGHTS).rename(place / "part.safetensors")
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    (place / (huggingface.WEIGHTS + huggingface.INDEX)).write_bytes(text)


HONEST = dict.fromkeys(weights(), "part.safetensors")
INDEXES: dict[str, tuple[Any, str]] = {
    "up": ({"weight_map": HONEST | {"a": "../other.safetensors"}}, r"names a file outside of it: '../other"),
    "absolute": ({"weight_map": HONEST | {"a": "/etc/passwd"}}, "names a file outside of it: '/etc/passwd'"),
    "a drive": ({"weight_map": HONEST | {"a": "C:secret"}}, "names a file outside of it: 'C:secret'"),
    "backslashes": ({"weight_map": HONEST | {"a": "..\\other"}}, "names a file outside of it"),
    "a sub-folder": ({"weight_map": HONEST | {"a": "sub/other"}}, "names a file outside of it"),
    "the folder above": ({"weight_map": HONEST | {"a": ".."}}, "names a file outside of it: '..'"),
    "no name": ({"weight_map": HONEST | {"a": ""}}, "names a file outside of it: ''"),
    "a null byte": ({"weight_map": HONEST | {"a": "part\0"}}, "names a file outside of it"),
    "a link out": ({"weight_map": HONEST | {"a": "link.safetensors"}}, "names a file outside of it: 'link"),
    "a file that is absent": ({"weight_map": HONEST | {"a": "more.safetensors"}}, "more.safetensors is missing"),
    "a tensor that is absent": ({"weight_map": HONEST | {"a": "part.safetensors"}}, "lacks a, which the index"),
    "a tensor left out": (
        {"weight_map": {name: file for name, file in HONEST.items() if "norm" not in name}},
        "holds .*norm.weight, which the index does not place there",
    ),
    "no weight_map": ({}, "has no weight_map of names"),
    "a weight_map that is a list": ({"weight_map": ["part.safetensors"]}, "has no weight_map of names"),
    "numbers for names": ({"weight_map": HONEST | {"a": 3}}, "has no weight_map of names"),
    "2,000 files": ({"weight_map": {str(n): f"{n}.safetensors" for n in range(2000)}}, "names 2,000 files"),
    "3 MB": (b" " * 3_000_000, "has 3,000,000 bytes, more than 2,097,152"),
    "brackets without end": (b"[" * 1_000_000, "cannot be read as JSON"),
    "not UTF-8": (b'{"\xff": 1}', "cannot be read as JSON"),
}


@pytest.mark.parametrize(("index", "message"), INDEXES.values(), ids=INDEXES.keys())
def test_a_lying_index(place, frugal, index, message):
    indexed(place, index)
    save_file({"a": torch.ones(1)}, place.parent / "other.safetensors")
    (place / "link.safetensors").symlink_to(place.parent / "other.safetensors")
    with frugal(), pytest.raises(CheckpointError, match=message):
        folder.load(place)


CONFIGURING = ["special_tokens_map.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
VOCABULARIES = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"]


@pytest.mark.parametrize(
    "name",
    ["config.json", huggingface.WEIGHTS, huggingface.CARD, "README.md", "hashes.json", *VOCABULARIES, *CONFIGURING],
)
def test_a_link_out_of_the_folder(place, frugal, name):
    if name in VOCABULARIES[1:]:  # which count where there is no tokenizer.json
        (place / "tokenizer.json").unlink()
        for other in VOCABULARIES[1:3]:
            (place / other).write_text("{}", encoding="utf-8")
    if not (place / name).exists():
        (place / name).write_text("{}", encoding="utf-8")
    if name == "tokenizer.model":
        (place / "merges.txt").unlink()
    (place / name).rename(place.parent / name)
    (place / name).symlink_to(place.parent / name)
    with frugal(), pytest.raises((CheckpointError, TokenizerError), match=f"names a file outside of it: '{name}'"):
        folder.load(place)


# --- pickles -----------------------------------------------------------------------------------------------------


class Payload:
    """What a pickle does to whoever opens it trustingly: here it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(content: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol)
    return file.getvalue()


def archive(program: bytes, *, squeezed: bool = False, name: str = "archive/data.pkl") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if squeezed else zipfile.ZIP_STORED) as parts:
        parts.writestr(name, program)
        parts.writestr("archive/version", "3\n")
    return file.getvalue()


def with_directory_of(size: int, *, record: bytes = b"PK\6\6") -> bytes:
    """An archive whose last records say that the list of its files is this long; the 64-bit one may be spoilt."""
    content = bytearray(saved(weights()))
    last, long = content.rfind(b"PK\5\6"), content.rfind(b"PK\6\6")
    struct.pack_into("<I", content, last + 12, min(size, 2**32 - 1))
    if long >= 0:
        struct.pack_into("<Q", content, long + 40, size)
        content[long : long + 4] = record
    return bytes(content)


def legacy() -> bytes:
    file = io.BytesIO()
    torch.save(weights(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def stretched() -> bytes:
    """One number that is said to be 2^40: stride 0, and torch saves it as it is."""
    return saved({"a": torch.ones(1).expand(2**40)})


def sparse() -> bytes:
    return saved({"a": torch.eye(2).to_sparse()})


PICKLES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a program": (lambda out: saved({"a": Payload(out)}), r"it holds \w+.mkdir, not only tensors"),
    "a program of protocol 4": (lambda out: saved({"a": Payload(out)}, protocol=4), "not only tensors"),
    "a program of protocol 0": (lambda out: archive(pickle.dumps(Payload(out), protocol=0)), "it holds .*mkdir"),
    "a program alone": (lambda out: pickle.dumps(Payload(out)), "it is no zip archive"),
    "eval": (lambda out: archive(b"cbuiltins\neval\n(S'1'\ntR."), "it holds builtins.eval"),
    "a gigabyte of bytes": (
        lambda out: archive(b"cbuiltins\nbytearray\n(I1000000000\ntR."),
        "it holds builtins.bytearray",
    ),
    "a whole module": (lambda out: saved(torch.nn.Linear(2, 2)), "it holds torch.nn.modules.linear.Linear"),
    "a sparse tensor": (lambda out: sparse(), "it holds torch._utils._rebuild_sparse_tensor"),
    "a zip bomb": (lambda out: archive(bytes(250_000_000), squeezed=True), "it has compressed or encrypted parts"),
    "a long pickle": (lambda out: archive(b"N" * 3_000_000), "or one of more than 2,097,152 bytes"),
    "no pickle": (lambda out: archive(b"N.", name="archive/other"), "it has 0 data.pkl"),
    "half a pickle": (lambda out: archive(b"\x80\x02}q\x01X\xff\xff"), "its pickle is damaged"),
    "a pickle of marks": (lambda out: archive(b"(" * 200_000 + b"."), "weights-only loader says|damaged"),
    "a list": (lambda out: saved([torch.ones(2)]), "it holds a list, not a dict of tensors"),
    "text among tensors": (lambda out: saved({"a": "text"}), "a is a str, not a plain tensor"),
    "numbers for names": (lambda out: saved({3: torch.ones(2)}), "3 is a Tensor, not a plain tensor"),
    "one number said to be 2^40": (lambda out: stretched(), "more numbers than the file holds for it"),
    "the form before torch 1.6": (lambda out: legacy(), "it is no zip archive, the form torch.save has had since 1.6"),
    "a list of files of 4 GB": (lambda out: with_directory_of(2**32 - 2), "its list of files is said to have"),
    "a list of files of a terabyte": (lambda out: with_directory_of(2**40), "its list of files is said to have"),
    "a list of files without size": (
        lambda out: with_directory_of(2**40, record=b"PKPK"),
        "its list of files has no size",
    ),
    "cut short": (lambda out: saved(weights())[:-100], "it is no zip archive|truncated or damaged"),
    "empty": (lambda out: b"", "it is no zip archive"),
    "numbers of 8 bytes": (
        lambda out: saved({name: tensor.double() for name, tensor in weights().items()}),
        "is stored as torch.float64",
    ),
}


@pytest.mark.parametrize(("made", "message"), PICKLES.values(), ids=PICKLES.keys())
def test_a_harmful_pickle(place, frugal, tmp_path, made, message):
    out = tmp_path / "made by the pickle"
    content = made(out)
    (place / huggingface.WEIGHTS).unlink()
    (place / huggingface.PICKLED).write_bytes(content)
    del content
    with frugal(), pytest.raises(CheckpointError, match=f"pytorch_model.bin is not read: .*({message})"):
        folder.load(place)
    assert not out.exists()


# --- config.json -------------------------------------------------------------------------------------------------

CONFIGS: dict[str, tuple[Any, str]] = {
    "a billion layers": ({"num_hidden_layers": 10**9}, "asks for 1,000,000,000 layers, more than 2,048"),
    "2,000 layers": ({"num_hidden_layers": 2000}, "the config says 2,000 layers, the file has"),
    "10^30 ids": ({"vocab_size": 10**30}, "vocab_size is 1000000000000000000000000000000"),
    "2^52 ids": ({"vocab_size": 2**52}, "describes .* parameters"),
    "heads of 2^50": ({"head_dim": 2**50}, "describes .* parameters"),
    "negative layers": ({"num_hidden_layers": -1}, "layers is -1"),
    "NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    "an endless base": ({"rope_theta": float("inf"), "rope_parameters": None}, "rope_theta is inf"),
    "a width of 2^40": ({"hidden_size": 2**40, "head_dim": 4}, "describes .* parameters|has shape"),
    "brackets without end": (b"[" * 1_000_000, "cannot be read as JSON"),
    "a number of a million digits": (b'{"vocab_size": ' + b"9" * 1_000_000 + b"}", "cannot be read as JSON"),
    "3 MB": (b" " * 3_000_000, "has 3,000,000 bytes, more than"),
    "not UTF-8": (b"\xff\xfe", "cannot be read as JSON"),
    "code of its own": ({"model_type": "mine", "auto_map": {"AutoModel": "mine.py"}}, "unsupported model_type 'mine'"),
}


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_hostile_config(place, frugal, change, message):
    content = change if isinstance(change, bytes) else json.dumps(hf_config(CONFIG) | change).encode()
    (place / "config.json").write_bytes(content)
    with frugal(), pytest.raises(CheckpointError, match=message):
        folder.load(place)


def test_the_honest_folder_itself_is_opened(place, frugal):
    """Without this, every refusal above could be for another reason."""
    with frugal():
        assert folder.load(place).model.config == CONFIG


def test_what_holds_them_all_to_little_memory_notices_much(frugal):
    with pytest.raises(AssertionError, match="memory grew by"), frugal():
        held = b"x" * 150_000_000
        assert held
