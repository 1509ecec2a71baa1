"""GGUF files made to hurt: each is refused with words, before much memory is taken. The bytes are made here by hand."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from groundup.checkpoint.gguf.read import open_source
from groundup.checkpoint.source import fill
from groundup.errors import CheckpointError

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
LETTERS = {U8: "B", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q"}
ALPHABET = sorted(ByteLevel.alphabet())  # 256 tokens, one for each byte


def text(value: str | bytes) -> bytes:
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def entry(name: str | bytes, kind: int, value: Any) -> bytes:
    """One key: its name, its type, its value; `value` as bytes is taken as it is."""
    if isinstance(value, bytes):
        raw = value
    elif kind == ARRAY:
        raw = struct.pack("<IQ", STRING, len(value)) + b"".join(text(item) for item in value)
    else:
        raw = text(value) if kind == STRING else struct.pack("<" + LETTERS[kind], value)
    return text(name) + struct.pack("<I", kind) + raw


KEYS: dict[str, tuple[int, Any]] = {
    "general.architecture": (STRING, "llama"),
    "llama.context_length": (U32, 8),
    "llama.embedding_length": (U32, 4),
    "llama.block_count": (U32, 1),
    "llama.feed_forward_length": (U32, 6),
    "llama.attention.head_count": (U32, 2),
    "llama.attention.head_count_kv": (U32, 1),
    "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "tokenizer.ggml.model": (STRING, "gpt2"),
    "tokenizer.ggml.pre": (STRING, "gpt-2"),
    "tokenizer.ggml.tokens": (ARRAY, [*ALPHABET, "th"]),
    "tokenizer.ggml.merges": (ARRAY, ["t h"]),
}
# dimensions as the file states them: the row's length first
TENSORS = {
    "token_embd.weight": (4, 257),
    "blk.0.attn_norm.weight": (4,),
    "blk.0.attn_q.weight": (4, 4),
    "blk.0.attn_k.weight": (4, 2),
    "blk.0.attn_v.weight": (4, 2),
    "blk.0.attn_output.weight": (4, 4),
    "blk.0.ffn_norm.weight": (4,),
    "blk.0.ffn_gate.weight": (4, 6),
    "blk.0.ffn_up.weight": (4, 6),
    "blk.0.ffn_down.weight": (6, 4),
    "output_norm.weight": (4,),
}


def info(name: str, dimensions: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def placed() -> tuple[dict[str, bytes], int]:
    """The description of every tensor, one after another in the data, and how long the data is."""
    infos, end = {}, 0
    for name, dimensions in TENSORS.items():
        offset = -(-end // 32) * 32
        infos[name] = info(name, dimensions, 0, offset)
        end = offset + 4 * int(np.prod(dimensions))
    return infos, end


def made(
    keys: dict[str, Any] | None = None,
    infos: dict[str, bytes] | None = None,
    more: bytes = b"",
    head: bytes = b"",
) -> bytes:
    """A small whole file, with other keys, descriptions of tensors or first 24 bytes; `more`: one more key, raw."""
    described, size = placed()
    described |= infos or {}
    given = [entry(name, *value) for name, value in (KEYS | (keys or {})).items() if value is not None]
    given += [more] if more else []
    head = head or b"GGUF" + struct.pack("<IQQ", 3, len(described), len(given))
    header = head + b"".join(given) + b"".join(described.values())
    return header + bytes(-len(header) % 32) + np.full(size // 4, 0.01, dtype="<f4").tobytes()


def counted(tensors: int, entries: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def nested(deep: int) -> bytes:
    """An array of one array of one array ..."""
    return text("deep") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * deep + struct.pack("<IQ", U8, 0)


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return text("many") + struct.pack("<IIQ", ARRAY, kind, count) + raw


def typed(kinds: list[int]) -> bytes:
    """tokenizer.ggml.token_type, raw."""
    return struct.pack("<IQ", I32, len(kinds)) + struct.pack(f"<{len(kinds)}i", *kinds)


def off(offset: int) -> dict[str, bytes]:
    return {"output_norm.weight": info("output_norm.weight", (4,), 0, offset)}


def sized(*dimensions: int, kind: int = 0) -> dict[str, bytes]:
    return {"output_norm.weight": info("output_norm.weight", dimensions, kind, 0)}


HOSTILE: dict[str, tuple[bytes, str]] = {
    # the first bytes
    "nothing": (b"", "ends inside the magic number"),
    "zeros": (bytes(4096), "no GGUF file"),
    "a pickle": (pickle.dumps({"weights": [1.0]}), "no GGUF file"),
    "version 1": (made(head=counted(11, 12, version=1)), "version 1"),
    "version 4": (made(head=counted(11, 12, version=4)), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 11, 12) + bytes(99), "big-endian"),
    "2**63 tensors": (made(head=counted(2**63, 12)), "9,223,372,036,854,775,808 tensors"),
    "2**40 keys": (made(head=counted(11, 2**40)), "1,099,511,627,776 keys"),
    "one key too many": (made(head=counted(11, 13)), "."),
    "one tensor too many": (made(head=counted(12, 12)), "."),
    # keys
    "a string of 2**62 bytes": (made(more=text("k") + struct.pack("<IQ", STRING, 2**62)), "bytes long"),
    "a key of 2**62 bytes": (made(more=struct.pack("<Q", 2**62)), "bytes long"),
    "arrays 10,000 deep": (made(more=nested(10_000)), "array of arrays"),
    "an array of 2**61 numbers": (made(more=array(U64, 2**61)), "ends inside the value of 'many'"),
    "an array longer than the file": (made(more=array(U64, 2**20)), "ends inside the value of 'many'"),
    "an array of 2**20 strings": (made(more=array(STRING, 2**20)), "ends inside"),
    "an array of unknown type": (made(more=array(77, 1)), "unknown type 77"),
    "a value of unknown type": (made(more=text("odd") + struct.pack("<I", 13)), "unknown type 13"),
    "a truth of 2": (made(more=entry("odd", BOOL, 2)), "neither true nor false"),
    "a key twice": (made(more=entry("llama.block_count", U32, 2)), "stands twice"),
    "a key that is not UTF-8": (made(more=entry(b"\xff\xfe", U8, 1)), "not UTF-8"),
    "a value that is not UTF-8": (made(more=entry("odd", STRING, text(b"\x80abc"))), "not UTF-8"),
    # tensors
    "an offset of -32": (made(infos=off(2**64 - 32)), "ends after"),
    "an offset past the end": (made(infos=off(2**40)), "ends after"),
    "an offset that is not aligned": (made(infos=off(4)), "not aligned"),
    "tensors over one another": (made(infos=off(0)), "overlap"),
    "a dimension of 0": (made(infos=sized(0)), "does not fit the file"),
    "a dimension of 2**63": (made(infos=sized(2**63)), "does not fit the file"),
    "a product of 2**64": (made(infos=sized(2**32, 2**32)), "does not fit the file"),
    "200 dimensions": (made(infos=sized(*[1] * 200)), "200 dimensions"),
    "no dimension": (made(infos=sized()), "0 dimensions"),
    "2**31 dimensions": (made(infos={"x": text("x") + struct.pack("<I", 2**31)}), "2,147,483,648 dimensions"),
    "an unknown tensor type": (made(infos=sized(4, kind=999)), "unknown type 999"),
    "a type that was given up": (made(infos=sized(4, kind=4)), "unknown type 4"),
    "a type that is not read": (made(infos=sized(256, kind=41)), "Q1_0"),
    "rows that are no whole blocks": (made(infos=sized(4, kind=8)), "Q8_0 stores 32 at a time"),
    "a tensor's name of 2**20 bytes": (made(infos={"x": text("x" * 2**20)}), "at most 64"),
    "a tensor twice": (made(infos={"x": info("output_norm.weight", (4,))}), "stands twice"),
    "alignment 0": (made({"general.alignment": (U32, 0)}), "power of two"),
    "alignment 3": (made({"general.alignment": (U32, 3)}), "power of two"),
    "alignment 2**31": (made({"general.alignment": (U32, 2**31)}), "power of two"),
    "alignment in words": (made({"general.alignment": (STRING, "32")}), "power of two"),
    # settings
    "no architecture": (made({"general.architecture": None}), "general.architecture None"),
    "an unknown architecture": (made({"general.architecture": (STRING, "mamba")}), "general.architecture 'mamba'"),
    "no head": (made({"llama.attention.head_count": (U32, 0)}), "head_count is 0"),
    "2**31 heads": (made({"llama.attention.head_count": (U32, 2**31)}), "head_count is 2147483648"),
    "heads in words": (made({"llama.attention.head_count": (STRING, "2")}), "head_count is '2'"),
    "heads that do not divide": (made({"llama.attention.head_count": (U32, 3)}), "not divisible"),
    "2**31 - 1 layers": (made({"llama.block_count": (U32, 2**31 - 1)}), "block_count is 2,147,483,647"),
    "NaN under the root": (made({"llama.attention.layer_norm_rms_epsilon": (F32, float("nan"))}), "is nan"),
    "infinity under the root": (made({"llama.attention.layer_norm_rms_epsilon": (F32, float("inf"))}), "is inf"),
    "a negative root": (made({"llama.attention.layer_norm_rms_epsilon": (F32, -1.0)}), "norm_eps is -1"),
    "a base of 0": (made({"llama.rope.freq_base": (F32, 0.0)}), "rope_base is 0"),
    "NaN times stretched": (made({"llama.rope.scaling.factor": (F32, float("nan"))}), "is nan"),
    "a width that is not the table's": (made({"llama.embedding_length": (U32, 8)}), "token_embd.weight"),
    "more tokens than rows": (made({"tokenizer.ggml.tokens": (ARRAY, [*ALPHABET, "th", "x2"])}), "258 tokens"),
    "another count of tokens": (made({"llama.vocab_size": (U32, 9)}), "vocab_size is 9"),
    "experts": (made({"llama.expert_count": (U32, 8)}), "llama.expert_count is 8"),
    "a key from nowhere": (made({"llama.warp_factor": (U32, 9)}), "llama.warp_factor is 9"),
    "one of three files": (made({"split.count": (U32, 3)}), "split.count is 3"),
    "a key of 1 MB from nowhere": (made(more=entry("llama." + "\x1b" * 999_000, U32, 9)), "llama. is 9"),
    # vocabularies
    "types of -1": (made({"tokenizer.ggml.token_type": (ARRAY, typed([-1] * 257))}), "token_type holds -1"),
    "types of 7": (made({"tokenizer.ggml.token_type": (ARRAY, typed([1] * 256 + [7]))}), "token_type holds 7"),
    "a switch in words": (made({"tokenizer.ggml.add_bos_token": (STRING, "no")}), "add_bos_token is 'no'"),
    "a switch as a number": (made({"tokenizer.ggml.add_eos_token": (U32, 0)}), "add_eos_token is 0"),
    "a template that is a number": (made({"tokenizer.chat_template": (U32, 7)}), "chat_template is 7, not text"),
    "a template in pieces": (made({"tokenizer.chat_template": (ARRAY, ["a", "b"])}), "chat_template is ['a', 'b']"),
    "an end that is no id": (made({"tokenizer.ggml.eos_token_id": (U32, 257)}), "eos_token_id is 257, and its ids are"),
    "a start that is no id": (made({"tokenizer.ggml.bos_token_id": (U32, 2**31)}), "bos_token_id is 2147483648"),
    "a pre-tokenizer of 1 MB": (made({"tokenizer.ggml.pre": (STRING, "x" * 999_000)}), "...xxx"),
    "a tensor from nowhere": (
        made({}, {"blk.0.ffn_up.weight": info("blk.0.../../x.weight", (4, 6))}),
        "blk.0.../../x.weight",
    ),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_is_refused_with_words(content, words, tmp_path, frugal):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with frugal(), pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value) and caught.value.fix
    assert len(str(caught.value)) < 1000 and caught.value.what.isprintable()


def test_the_file_that_the_others_are_made_from_opens(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(made())
    source = open_source(path)
    assert source.tokenizer.encode("that") == [256, *(ALPHABET.index(letter) for letter in "at")]
    assert fill(source.config, source.weights).config.vocabulary == 257


def test_cut_short_at_every_byte(tmp_path, frugal):
    """At each length from whole to nothing, header and data alike; a short vocabulary makes it quick."""
    path = tmp_path / "model.gguf"
    path.write_bytes(made({"tokenizer.ggml.tokens": (ARRAY, ["a", "b"])}))
    sizes = range(path.stat().st_size)
    with frugal(), path.open("rb+") as file:
        for size in reversed(sizes):
            file.truncate(size)
            with pytest.raises(CheckpointError, match="ends (inside|after)|it says it has|does not fit"):
                open_source(path)


def test_missing_and_misshapen_tensors_are_named_when_the_model_is_filled(tmp_path, frugal):
    infos, _ = placed()
    start = struct.pack("<IQQ", 2, 4, 6)
    assert start in infos["blk.0.ffn_up.weight"]
    turned = infos["blk.0.ffn_up.weight"].replace(start, struct.pack("<IQQ", 2, 6, 4))
    path = tmp_path / "model.gguf"
    path.write_bytes(made(infos={"blk.0.ffn_up.weight": turned}))
    source = open_source(path)
    with frugal(), pytest.raises(CheckpointError, match="mlp.up_proj.weight"):
        fill(source.config, source.weights)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path, frugal):
    path = tmp_path / "model.gguf"
    path.write_bytes(made())
    source = open_source(path)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 8)
    with frugal(), pytest.raises(CheckpointError, match="became shorter"):
        source.weights.read("model.norm.weight")


FILLING = {  # made when they are asked for: each is 10 to 32 MB
    "strings": lambda: array(STRING, 1_300_000, b"".join(text(f"{number % 1000:03}") for number in range(1_300_000))),
    "numbers": lambda: array(U32, 2_500_000, np.arange(2_500_000, dtype="<u4").tobytes()),
    "long strings": lambda: array(STRING, 30, text("a" * 999_996 + "\N{BEAR FACE}") * 30),  # one wide letter widens all
}


@pytest.mark.parametrize("make", FILLING.values(), ids=FILLING.keys())
def test_values_that_are_there_but_would_fill_the_memory(make, tmp_path, frugal):
    """Python's objects would make 100 MB and more of them."""
    path = tmp_path / "model.gguf"
    path.write_bytes(made(more=make()))
    with frugal(), pytest.raises(CheckpointError, match="of memory"):
        open_source(path)


def test_an_architecture_is_named_before_its_vocabulary_is_read(tmp_path, frugal):
    """Gemma's 262,144 tokens with their merges may be more than a header may take here; that is not what is wrong."""
    path = tmp_path / "model.gguf"
    path.write_bytes(made({"general.architecture": (STRING, "gemma3")}, more=FILLING["strings"]()))
    with frugal(), pytest.raises(CheckpointError, match="unsupported general.architecture 'gemma3'"):
        open_source(path)


def test_no_control_character_of_a_file_reaches_its_card(tmp_path):
    path = tmp_path / "model.gguf"
    name, licence = "tiny\x1b[2J \u202eedoc", "\x1b]0;owned\x07MIT\r\n"
    path.write_bytes(made({"general.name": (STRING, name), "general.license": (STRING, licence)}))
    card = open_source(path).card
    assert (card["name"], card["licence"]) == ("tiny[2J edoc", "]0;ownedMIT")


def test_a_folder_a_missing_file_and_a_dangling_link(tmp_path: Path):
    (tmp_path / "link.gguf").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "none.gguf", tmp_path / "link.gguf"):
        with pytest.raises(CheckpointError, match="no file at"):
            open_source(path)
