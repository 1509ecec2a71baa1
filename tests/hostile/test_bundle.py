"""TensorFlow checkpoints made to mislead: each is refused in words, and none makes us take memory.

The tables here are put together by hand, with right checksums where the lie is elsewhere. `number`, `field` and
`fixed` are the wire format of Protocol Buffers; `block`, `sealed` and `table` LevelDB's sorted table.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from groundup.checkpoint import folder, openai
from groundup.checkpoint.bundle import LARGEST_INDEX, MAGIC, Bundle
from groundup.commands import importing
from groundup.errors import CheckpointError, TokenizerError
from groundup.settings import Import

google_crc32c = pytest.importorskip("google_crc32c", reason="pip install 'groundup[openai]'")

FIXTURE = Path(__file__).parents[1] / "checkpoint" / "data" / "gpt2-tf"
PLACES = 6  # bytes in the footer of the fixture's two tables that say where two blocks are; behind them is padding
ARRAY = torch.tensor([1.5, -2.0]).numpy().tobytes()  # the data file of the small checkpoints here: 8 bytes


def number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as those of 64 bits."""
    value &= (1 << 64) - 1
    found = []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(place: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    return number(place << 3 | 2) + number(len(value)) + value


def fixed(place: int, value: int) -> bytes:
    return number(place << 3 | 5) + value.to_bytes(4, "little")


def checksum(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15) + ((crc & 0x7FFF) << 17) + 0xA282EAD8) % 2**32


def shape(*sizes: int) -> bytes:
    return b"".join(field(2, field(1, size)) for size in sizes)


def entry(sizes=(2,), *, dtype=1, shard=0, offset=0, size=8, crc=None, more=b"") -> bytes:
    """A BundleEntryProto; as it stands, that of ARRAY."""
    parts = [field(1, dtype), field(2, shape(*sizes)), field(3, shard), field(4, offset), field(5, size)]
    return b"".join([*parts, fixed(6, checksum(ARRAY) if crc is None else crc), more])


def header(shards=1, order=0, version=b"\x08\x01") -> bytes:
    return field(1, shards) + field(2, order) + field(3, version)


def item(key: bytes, value: bytes, shared: int = 0) -> bytes:
    return number(shared) + number(len(key)) + number(len(value)) + key + value


def block(items: bytes, restarts: int = 1) -> bytes:
    return items + bytes(4) + restarts.to_bytes(4, "little")


def sealed(content: bytes, kind: int = 0) -> bytes:
    whole = content + bytes([kind])
    return whole + checksum(whole).to_bytes(4, "little")


def handle(offset: int, size: int) -> bytes:
    return number(offset) + number(size)


def footer(meta: bytes, index: bytes, magic: int = MAGIC) -> bytes:
    return (meta + index).ljust(40, b"\0") + magic.to_bytes(8, "little")


def table(*blocks: bytes, kind: int = 0, handles: list[bytes] | None = None) -> bytes:
    """A table of these blocks; `handles`: what its index lists instead of them."""
    body, listed = b"", []
    for content in blocks:
        listed.append(handle(len(body), len(content)))
        body += sealed(content, kind)
    listed = listed if handles is None else handles
    index = block(b"".join(item(f"~{place}".encode(), where) for place, where in enumerate(listed)))
    meta = handle(len(body), 8)
    body += sealed(block(b""))
    return body + sealed(index) + footer(meta, handle(len(body), len(index)))


def of(*entries: bytes, head: bytes | None = None) -> bytes:
    """The index of a checkpoint with arrays a, b, c ..."""
    items = [item(b"", header() if head is None else head)]
    items += [item(bytes([97 + place]), value) for place, value in enumerate(entries)]
    return table(block(b"".join(items)))


def items(*given: bytes) -> bytes:
    """An index with a good header and these items behind it."""
    return table(block(item(b"", header()) + b"".join(given)))


GOOD = of(entry())
CASES = {
    # the file
    "empty": (b"", "its 0 bytes do not end with the mark"),
    "shorter than a footer": (GOOD[-47:], "its 47 bytes do not end with the mark"),
    "another mark": (GOOD[:-1] + b"\0", "do not end with the mark"),
    "a zip": (b"PK\3\4" + bytes(200), "do not end with the mark"),
    "cut in front": (GOOD[8:], "block at .* (ends behind|was altered)"),
    # the table
    "index outside": (footer(handle(0, 0), handle(1000, 8)), "ends behind 0, where blocks must end"),
    "index of 2**63 bytes": (sealed(block(b"")) + footer(handle(0, 8), handle(0, 2**63)), "ends behind 13"),
    "endless number": (sealed(block(b"")) + footer(handle(0, 8), b"\xff" * 11), "more than 64 bits"),
    "block outside": (table(block(b""), handles=[handle(10**6, 10)]), "block of 10 bytes at 1,000,000 ends behind"),
    "block of 2**64 - 1 bytes": (table(block(b""), handles=[handle(0, -1)]), "18,446,744,073,709,551,615 bytes at 0"),
    "the index lists itself": (table(block(b""), handles=[handle(26, 20)]), "ends behind 26"),
    "a block listed twice": (
        table(block(b""), handles=[handle(0, 8), handle(0, 8)]), "begins before 13, the end of the one before"
    ),
    "a list of handles cut off": (table(block(b""), handles=[b"\x05"]), "ends inside a number"),
    "snappy": (table(block(item(b"", header())), kind=1), r"compressed \(snappy\)"),
    "unknown compression": (table(block(item(b"", header())), kind=7), r"compressed \(kind 7\)"),
    "10**6 restart points": (table(block(b"", restarts=10**6)), "claims 1,000,000 restart points"),
    "a block of no bytes": (table(b""), "a block of 0 bytes claims 0 restart points"),
    "blocks in the wrong order": (
        table(block(item(b"a", entry())), block(item(b"", header()))), "names are not in order: b'' after b'a'"
    ),
    # its entries
    "shares more than there is": (items(item(b"a", entry(), shared=5)), "reaches out of its block: 5"),
    "a value beyond the block": (items(number(0) + number(1) + number(10**9) + b"a"), "reaches out of its block"),
    "a name beyond the block": (items(number(0) + number(2**40) + number(1)), "reaches out of its block"),
    "an item cut off": (items(b"\x80"), "reaches out of its block"),
    "a name of 1 MB": (items(item(b"a" * 2**20, entry())), "a name has 1,048,576 bytes"),
    "the same name twice": (items(item(b"a", entry()), item(b"a", entry())), "not in order: b'a' after b'a'"),
    "names not in order": (items(item(b"b", entry()), item(b"a", entry())), "not in order: b'a' after b'b'"),
    "a name that is no text": (items(item(b"\xff", entry())), "not UTF-8"),
    "20,001 arrays": (
        items(*(item(f"{place:05}".encode(), b"") for place in range(20_001))), "names more than 20,000 arrays"
    ),
    # the header
    "no header": (table(block(item(b"a", entry()))), "header claims 0 data files"),
    "no data files": (of(head=header(shards=0)), "claims 0 data files"),
    "-1 data files": (of(head=header(shards=-1)), "claims -1 data files"),
    "10**6 data files": (of(head=header(shards=10**6)), "claims 1,000,000 data files"),
    "big-endian": (of(entry(), head=header(order=1)), "big-endian"),
    "a newer format": (of(entry(), head=header(version=field(2, 2))), "needs a reader of version 2"),
    "a header of the wrong type": (of(head=field(1, b"\1")), "field 1 of an entry is no number"),
    "a version of the wrong type": (of(head=field(1, 1) + field(3, 1)), "field 3 of an entry is a number"),
    "a header that is cut off": (of(head=b"\x1a\x7f"), "claims 127 bytes, but 0 are left"),
    "a group": (of(head=b"\x0b"), "wire type 3"),
    # the arrays
    "behind the end of the file": (of(entry(offset=1)), "8 bytes at 1, but the file has 8"),
    "far behind the end": (of(entry(offset=2**62)), "at 4,611,686,018,427,387,904, but the file has 8"),
    "size -1": (of(entry(size=-1)), "-1 bytes at 0, but the file has 8"),
    "offset -8": (of(entry(offset=-8)), "8 bytes at -8, but the file has 8"),
    "offset and size that cancel out": (of(entry(offset=2**63 - 8, size=-(2**63) + 16)), "but the file has 8"),
    "a terabyte": (of(entry((2**38,), size=2**40)), "1,099,511,627,776 bytes at 0, but the file has 8"),
    "a shape beyond 64 bits": (of(entry((2**40, 2**40))), r"not the size of \(1099511627776, 1099511627776\)"),
    "a shape that wraps to its size": (of(entry((2**62 + 2,))), r"not the size of \(4611686018427387906,\) of"),
    "a shape of another size": (of(entry((3,))), r"8 bytes at 0, which is not the size of \(3,\) of torch.float32"),
    "a type of another size": (of(entry(dtype=2)), r"not the size of \(2,\) of torch.float64"),
    "two negative dimensions": (of(entry((-1, -2))), r"said to have the shape \(-1, -2\)"),
    "an unknown rank": (of(field(1, 1) + field(2, field(3, 1)) + field(5, 8)), "unknown number of dimensions"),
    "nine dimensions": (of(entry((1,) * 9)), "'a' has more than 8 dimensions"),
    "10**6 dimensions": (of(entry((1,) * 10**6)), "'a' has more than 8 dimensions"),
    "a dimension of the wrong type": (of(field(2, field(2, 7))), "field 2 of an entry is a number"),
    "a shape of the wrong type": (of(field(2, 7)), "field 2 of an entry is a number"),
    "data file 1 of 1": (of(entry(shard=1)), "'a' is said to be in data file 1 of 1"),
    "data file -1": (of(entry(shard=-1)), "'a' is said to be in data file -1 of 1"),
    "slices": (of(entry(more=field(7, b""))), "'a' is stored in slices"),
    "one array over another": (of(entry(), entry((1,), offset=4, size=4)), "belong to another array up to 8"),
    "the same bytes twice": (of(entry(), entry()), "belong to another array up to 8"),
}  # fmt: skip


def put(folder: Path, index: bytes, data: bytes = ARRAY) -> Path:
    """Write a checkpoint of one data file; its prefix."""
    (folder / "x.index").write_bytes(index)
    (folder / "x.data-00000-of-00001").write_bytes(data)
    return folder / "x"


def test_the_tables_made_here_are_read_as_they_should_be(tmp_path):
    """Else every refusal below would prove nothing."""
    bundle = Bundle.open(put(tmp_path, GOOD))
    assert bundle.read("a").tolist() == [1.5, -2.0]
    two = of(entry((1,), size=4, crc=checksum(ARRAY[:4])), entry((1, 1), offset=4, size=4, crc=checksum(ARRAY[4:])))
    bundle = Bundle.open(put(tmp_path, two))
    assert bundle.read("b").tolist() == [[-2.0]] and bundle.read("a").tolist() == [1.5]
    blocks = [block(item(b"", header())), block(item(b"a", entry()))]  # TensorFlow cuts at 256 kB
    assert Bundle.open(put(tmp_path, table(*blocks))).read("a").tolist() == [1.5, -2.0]


@pytest.mark.parametrize("case", CASES)
def test_a_misleading_index_is_refused(tmp_path, frugal, case):
    index, words = CASES[case]
    prefix = put(tmp_path, index)
    with frugal(), pytest.raises(CheckpointError, match=words):
        Bundle.open(prefix)


def test_an_index_larger_than_any_is_not_read(tmp_path, frugal):
    prefix = put(tmp_path, GOOD)
    with (tmp_path / "x.index").open("r+b") as file:
        file.truncate(1 << 40)  # a file with a hole: a terabyte that takes no room
    with frugal(), pytest.raises(CheckpointError, match=f"1,099,511,627,776 bytes, more than the {LARGEST_INDEX:,}"):
        Bundle.open(prefix)


def test_names_that_grow_out_of_little_are_refused(tmp_path, frugal):
    """Each name shares all of the one before and adds a byte: 8 bytes of file for every 1,000 of memory."""
    grown = b"".join(item(b"a", b"", shared=place) for place in range(15_000))
    with frugal(), pytest.raises(CheckpointError, match="a name has 1,001 bytes"):
        Bundle.open(put(tmp_path, items(grown)))


def flips(path: Path) -> Iterator[int]:
    """Change every byte of a file in place, one at a time, each in another of its bits; yields where."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(content):
            for changed in (byte ^ 1 << place % 8, byte):
                file.seek(place)
                file.write(bytes([changed]))
                if changed != byte:
                    yield place
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["pieces", "model.ckpt"])
def test_every_changed_byte_of_an_index_is_noticed_or_means_nothing(tmp_path, name):
    """Only the padding of the footer, which nobody reads, may change: then all is as before."""
    for path in FIXTURE.glob(f"{name}.*"):
        shutil.copy(path, tmp_path / path.name)
    index = tmp_path / f"{name}.index"
    whole, harmless = Bundle.open(tmp_path / name).entries, []
    for place in flips(index):
        try:
            assert Bundle.open(tmp_path / name).entries == whole
            harmless.append(place - index.stat().st_size)
        except CheckpointError as error:
            assert str(error).startswith(str(index)) and error.fix
    assert harmless == list(range(-48 + PLACES, -8))  # from the end: footer of 48 bytes, its mark of 8


def test_every_changed_byte_of_the_data_is_noticed(tmp_path):
    for path in FIXTURE.glob("pieces.*"):
        shutil.copy(path, tmp_path / path.name)
    bundle = Bundle.open(tmp_path / "pieces")
    readable = [name for name in bundle.entries if name != "texts"]
    texts = bundle.entries["texts"]
    for shard, path in enumerate(bundle.shards):
        for place in flips(path):
            if shard == texts.shard and texts.offset <= place < texts.offset + texts.size:
                continue
            with pytest.raises(CheckpointError, match="were altered: their CRC-32C differs"):
                [bundle.read(name) for name in readable]


def test_every_length_that_a_cut_file_may_have_is_refused(tmp_path):
    for path in FIXTURE.glob("pieces.*"):
        shutil.copy(path, tmp_path / path.name)
    for path in sorted(tmp_path.glob("pieces.*")):
        content = path.read_bytes()
        for size in reversed(range(len(content))):
            os.truncate(path, size)
            with pytest.raises(CheckpointError, match="mark of a table|but the file has"):
                Bundle.open(tmp_path / "pieces")
        path.write_bytes(content)


def test_files_that_are_no_files_are_refused(tmp_path):
    prefix = put(tmp_path, GOOD)
    data = tmp_path / "x.data-00000-of-00001"
    data.rename(tmp_path / "elsewhere")
    data.mkdir()
    with pytest.raises(CheckpointError, match="x.data-00000-of-00001 is missing"):
        Bundle.open(prefix)
    data.rmdir()
    data.symlink_to(data)
    with pytest.raises(CheckpointError, match="x.data-00000-of-00001 is missing"):
        Bundle.open(prefix)
    data.unlink()
    data.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="x.data-00000-of-00001 is missing"):
        Bundle.open(prefix)


# --- a GPT-2 with one lie --------------------------------------------------------------------------------------------

SHAPES = {
    "h0/attn/c_attn/b": (6,), "h0/attn/c_attn/w": (1, 2, 6), "h0/attn/c_proj/b": (2,), "h0/attn/c_proj/w": (2, 2),
    "h0/ln_1/b": (2,), "h0/ln_1/g": (2,), "h0/ln_2/b": (2,), "h0/ln_2/g": (2,),
    "h0/mlp/c_fc/b": (8,), "h0/mlp/c_fc/w": (1, 2, 8), "h0/mlp/c_proj/b": (2,), "h0/mlp/c_proj/w": (8, 2),
    "ln_f/b": (2,), "ln_f/g": (2,), "wpe": (4, 2), "wte": (263, 2),
}  # fmt: skip


def gpt2(folder: Path, shapes: dict[str, tuple[int, ...]], types: dict[str, int] | None = None) -> Path:
    """A model of one layer with zeros for weights; `types` other than fp32 (4 bytes; float64 has 8) by name."""
    folder.mkdir()
    rows, start = [item(b"", header())], 0
    for name, sizes in sorted(shapes.items()):
        dtype = (types or {}).get(name, 1)
        size = (8 if dtype == 2 else 4) * torch.Size(sizes).numel()
        row = entry(sizes, dtype=dtype, offset=start, size=size, crc=checksum(bytes(size)))
        rows.append(item(name.encode(), row))
        start += size
    (folder / "model.ckpt.index").write_bytes(table(block(b"".join(rows))))
    (folder / "model.ckpt.data-00000-of-00001").write_bytes(bytes(start))
    for name in ("encoder.json", "vocab.bpe", "checkpoint"):
        shutil.copy(FIXTURE / name, folder / name)
    values = {"n_vocab": 263, "n_ctx": 4, "n_embd": 2, "n_head": 1, "n_layer": 1}
    (folder / "hparams.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def model(changes: dict[str, tuple[int, ...] | None]) -> dict[str, tuple[int, ...]]:
    shapes = {f"model/{name}": sizes for name, sizes in SHAPES.items()} | changes
    return {name: sizes for name, sizes in shapes.items() if sizes is not None}


def test_a_model_with_counters_of_its_training_opens(tmp_path):
    """Matrices with and without the first dimension of 1; what is not under model/ is no weight and is left."""
    folder = gpt2(tmp_path / "gpt2", model({"global_step": (), "beta1_power": ()}), {"global_step": 3})
    source = openai.open_source(folder)
    assert len(source.weights.shapes()) == 16
    assert source.weights.read("transformer.h.0.attn.c_attn.weight").shape == (2, 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model/wte": None}, "has 15 arrays, hparams.json asks for 16"),
        ({"model/wte/Adam": (263, 2)}, "has 17 arrays, hparams.json asks for 16"),
        ({"model/wte": None, "model/wtf": (263, 2)}, "has no model/wte\n"),
        ({"model/wte": (2, 263)}, r"model/wte has shape \(2, 263\), hparams.json makes it \(263, 2\)"),
        ({"model/wte": (1, 1, 263, 2)}, r"model/wte has shape \(1, 1, 263, 2\)"),
        ({"model/h0/mlp/c_fc/w": (1, 8, 2)}, r"c_fc/w has shape \(1, 8, 2\), hparams.json makes it \(2, 8\)"),
        ({f"model/h{layer}/x": (1,) for layer in range(1, 2_000)}, "has 2015 arrays"),
    ],
)
def test_a_model_with_other_arrays_is_refused(tmp_path, frugal, changes, words):
    folder = gpt2(tmp_path / "gpt2", model(changes))
    with frugal(), pytest.raises(CheckpointError, match=words):
        openai.open_source(folder)


@pytest.mark.parametrize("name", ["model/ln_f/g", "model/wte"])
def test_numbers_of_eight_bytes_are_read_as_four(tmp_path, name):
    """Networks here have no float64: the folder written says float32, and the person is told."""
    place = gpt2(tmp_path / "gpt2", model({}), {name: 2})
    assert openai.open_source(place).weights.read(openai.hugging_face(name)).dtype == torch.float32
    result = importing.run(Import(source=str(place), out=tmp_path / "out"))
    assert result.dtype == "float32" and result.changed[-1] == "numbers: float64 there, float32 here"
    assert folder.load(place).model.config == folder.load(tmp_path / "out").model.config


@pytest.mark.parametrize("kind", [3, 7, 10, 10**9])
def test_weights_that_are_no_fractions_are_refused(tmp_path, kind):
    folder = gpt2(tmp_path / "gpt2", model({}), {"model/ln_f/g": kind})
    with pytest.raises(CheckpointError, match=f"model/ln_f/g is of TensorFlow's type number {kind}\n"):
        openai.open_source(folder)


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe", "checkpoint", "hparams.json"])
def test_a_small_file_of_a_terabyte_is_not_read(tmp_path, frugal, name):
    folder = shutil.copytree(FIXTURE, tmp_path / "gpt2")
    with (folder / name).open("r+b") as file:
        file.truncate(1 << 40)
    with frugal(), pytest.raises(CheckpointError, match=f"{name} has 1,099,511,627,776 bytes, more than any"):
        openai.open_source(folder)


def test_a_vocabulary_of_lists_is_refused(tmp_path, frugal):
    """Nothing grows more on its way from JSON to memory."""
    folder = shutil.copytree(FIXTURE, tmp_path / "gpt2")
    (folder / "encoder.json").write_text("[" + "[]," * 690_000 + "[]]", encoding="utf-8")
    with frugal(), pytest.raises(TokenizerError, match="a JSON list is no vocabulary"):
        openai.open_source(folder)


def test_settings_for_a_billion_layers_build_nothing(tmp_path, frugal):
    folder = shutil.copytree(FIXTURE, tmp_path / "gpt2")
    values = {"n_vocab": 10**9, "n_ctx": 10**9, "n_embd": 10**9, "n_head": 10**9, "n_layer": 10**9}
    (folder / "hparams.json").write_text(json.dumps(values), encoding="utf-8")
    with frugal(), pytest.raises(CheckpointError, match="has 136 arrays, hparams.json asks for 12,000,000,004"):
        openai.open_source(folder)
