"""One table: family x format x program, and how far the logits are apart. Every parameter is random.

    PYTHONPATH=src python tests/parity/logit_table.py [--only TEXT] [--json]

For each family transformers makes the network, with random norms and biases too, and says the logits that count. Then
its weights go through every format, in both directions: written elsewhere and opened here, written here and opened
elsewhere. A row says who wrote the file, who opened it, and the largest difference from what transformers said of the
original, alone and as a share of the largest logit. 0.0 is transformers beside itself, with the same products in the
same order. llama.cpp is asked twice: as it comes, with keys and values in f16, and with both in f32. Its GELU is a
table in f16 either way, which gpt2 shows.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import json
import runpy
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from groundup import tokens
from groundup.checkpoint import consumers, folder, opening, source
from groundup.checkpoint.names import hf_config
from groundup.evaluate.agreement import Agreement, compare
from groundup.model import ModelConfig
from groundup.model.config import RopeScaling
from groundup.tokens import Tokenizer

TEXT = "Ein Fuchs, zwei Füchse, drei Hühner. " * 9
SMALL = {"vocabulary": 288, "context": 64, "width": 64, "layers": 3, "heads": 4}
STRETCHED = RopeScaling(kind="llama3", factor=8.0, low=1.0, high=4.0, original_context=16)
FAMILIES = {
    "gpt2": ModelConfig(family="gpt2", **SMALL),
    "llama": ModelConfig(family="llama", **SMALL, tie=False, kv_heads=2, hidden=96),
    "llama3 scaled": ModelConfig(family="llama", **SMALL, kv_heads=2, rope_base=5e5, rope_scaling=STRETCHED),
    "qwen2 bias": ModelConfig(family="llama", **SMALL, kv_heads=2, qkv_bias=True, tie=False, norm_eps=1e-6),
    "qwen3": ModelConfig(family="qwen3", **SMALL, kv_heads=2, head_size=32, norm_eps=1e-6),
    "smollm2": ModelConfig(family="llama", **SMALL | {"width": 72, "heads": 9}, kv_heads=3, hidden=192, rope_base=1e5),
}
# What transformers 5 takes no notice of in a GGUF file (integrations/ggml.py), so that it builds another network
UNREAD = {"gpt2": "context", "qwen3": "head size", "llama3 scaled": "stretch"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. `found` is None where the program is missing or the format has no such network."""

    family: str
    format: str
    writer: str
    reader: str
    found: Agreement | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Case:
    """One family: transformers' own network, ours with the same numbers, ids, and the logits that count (T, V)."""

    name: str
    config: ModelConfig
    theirs: torch.nn.Module
    tokenizer: Tokenizer
    ids: list[int]
    truth: Tensor

    @property
    def ours(self) -> torch.nn.Module:
        """Our network, filled from theirs in memory."""
        return source.fill(self.config, source.Held(dict(self.theirs.state_dict()))).eval()


def case(name: str) -> Case:
    """A family's network with every parameter random."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = FAMILIES[name]
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**hf_config(config)), attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.0, 0.35, generator=generator)
        ids = torch.randint(config.vocabulary, (1, config.context), generator=generator)
        truth = theirs(ids).logits[0]
    tokenizer = tokens.train("bpe", [TEXT], vocabulary=280)
    return Case(name, config, theirs, tokenizer, ids[0].tolist(), truth)


def rows(name: str, folder_: Path) -> Iterator[Row]:
    """All lines of one family; files are written below `folder_`."""
    made = case(name)
    for number, way in enumerate(WAYS):
        place = folder_ / str(number)
        place.mkdir(parents=True)
        yield from way(made, place)


# opened here


def huggingface(made: Case, place: Path) -> Iterator[Row]:
    """What transformers saves: one file, several, and torch's own."""
    for kind, size in (("HF folder", "1GB"), ("HF sharded", "100KB")):
        there = place / kind.split()[1]
        made.theirs.save_pretrained(there, max_shard_size=size)
        made.tokenizer.save(there)
        yield _opened(made, kind, "transformers", there)
    there = place / "bin"
    made.theirs.config.save_pretrained(there)
    made.tokenizer.save(there)
    torch.save(made.theirs.state_dict(), there / "pytorch_model.bin")
    yield _opened(made, "HF .bin", "transformers", there)


def llama2c(made: Case, place: Path) -> Iterator[Row]:
    """llama2.c's file, written here by its public layout: plain llamas only."""
    plain = made.config.family == "llama" and not made.config.qkv_bias and made.config.rope_scaling is None
    if not plain or made.config.rope_base != 10_000:
        return
    write_llama2c(place / "model.bin", made.theirs, made.config)
    write_pieces(place / "tokenizer.bin", made.config.vocabulary)
    yield _opened(made, "llama2.c", "this script", place / "model.bin")


def bundle(made: Case, place: Path) -> Iterator[Row]:
    """OpenAI's TensorFlow folder: the small one among the tests, beside what its writer gave to TensorFlow."""
    if made.config.family != "gpt2":
        return
    import transformers

    data = Path(__file__).parents[1] / "checkpoint" / "data"
    script = runpy.run_path(str(data / "write_gpt2_tf.py"))
    sizes = script["HPARAMS"]
    names = {"vocab_size": "n_vocab", "n_positions": "n_ctx"} | {name: name for name in ("n_embd", "n_head", "n_layer")}
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            **{name: sizes[called] for name, called in names.items()}, bos_token_id=None, eos_token_id=None
        )
    ).eval()
    arrays = script["arrays"](sizes)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():  # a tied head is the table
            parameter.copy_(torch.from_numpy(arrays[tensorflow_name(name)]).view_as(parameter))
    ids = torch.randint(sizes["n_vocab"], (sizes["n_ctx"],), generator=torch.Generator().manual_seed(2)).tolist()
    found = opening.open_any(data / "gpt2-tf")
    logits = _logits(source.fill(found.config, found.weights), ids)
    with torch.no_grad():
        truth = theirs(torch.tensor([ids])).logits[0]
    yield Row(made.name, "OpenAI TF", "TensorFlow", "groundup", compare(truth, logits))


def tensorflow_name(name: str) -> str:
    """What transformers' GPT-2 calls a parameter, as OpenAI's program calls it.

    >>> tensorflow_name("transformer.h.3.attn.c_attn.weight"), tensorflow_name("transformer.ln_f.bias")
    ('model/h3/attn/c_attn/w', 'model/ln_f/b')
    """
    *path, kind = name.removeprefix("transformer.").replace("h.", "h", 1).split(".")
    scope = "/".join(("model", *path))
    if path[-1] in ("wte", "wpe"):
        return scope
    return f"{scope}/{'b' if kind == 'bias' else 'g' if path[-1].startswith('ln_') else 'w'}"


def gguf(made: Case, place: Path) -> Iterator[Row]:
    """GGUF in f32, written here: opened here, by transformers, by llama.cpp."""
    from groundup.checkpoint.gguf import write

    file = place / "model.gguf"
    write.write(file, made.ours, made.tokenizer, dtype="f32", card={"name": made.name})
    yield _opened(made, "GGUF f32", "groundup", file)
    if importlib.util.find_spec("accelerate") is None:
        yield Row(made.name, "GGUF f32", "groundup", "transformers", None, "accelerate is not installed")
    else:
        missed = UNREAD.get(made.name, "")
        row = _asked(made, "GGUF f32", "transformers", lambda: _transformers_gguf(file, made if missed else None))
        yield dataclasses.replace(row, note=f"told the {missed}, which it does not read from GGUF" if missed else "")
    if not consumers.available("llama_cpp"):
        yield Row(made.name, "GGUF f32", "groundup", "llama.cpp", None, "llama-cpp-python is not installed")
        return
    for exact, note in ((False, ""), (True, "keys and values in f32")):
        row = _asked(made, "GGUF f32", "llama.cpp", partial(_llama_cpp, file, made, exact=exact))
        yield dataclasses.replace(row, note=note)


# written here


def ours(made: Case, place: Path) -> Iterator[Row]:
    """Our own folder, opened by transformers."""
    folder.save_model(place / "model", made.ours, made.tokenizer, card={})
    yield _asked(made, "HF folder", "transformers", lambda: consumers.transformers_logits(place / "model"))


WAYS: tuple[Callable[[Case, Path], Iterator[Row]], ...] = (huggingface, bundle, llama2c, ours, gguf)


def _opened(made: Case, kind: str, writer: str, path: Path) -> Row:
    found = opening.open_any(path)
    logits = _logits(source.fill(found.config, found.weights), made.ids)
    return Row(made.name, kind, writer, "groundup", compare(made.truth, logits))


def _asked(made: Case, kind: str, reader: str, opened: Callable[[], Callable[[list[int]], Tensor]]) -> Row:
    return Row(made.name, kind, "groundup", reader, compare(made.truth, opened()(made.ids)))


@torch.inference_mode()
def _logits(model: torch.nn.Module, ids: list[int]) -> Tensor:
    return model.eval()(torch.tensor([ids]))[0]


def _llama_cpp(file: Path, made: Case, *, exact: bool) -> Callable[[list[int]], Tensor]:
    return consumers.llama_cpp_logits(file, context=made.config.context, exact=exact)


def _transformers_gguf(file: Path, told: Case | None) -> Callable[[list[int]], Tensor]:
    """transformers on a GGUF file: its own names, layouts and permutation; `told`: the config is not from the file."""
    import transformers

    known = {"config": told.theirs.config} if told else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, **known
    ).eval()

    @torch.inference_mode()
    def logits(ids: list[int]) -> Tensor:
        return model(torch.tensor([ids])).logits[0]

    return logits


# llama2.c's layout, from its run.c: header, then every kind of matrix for all layers in a row


def write_llama2c(path: Path, theirs: torch.nn.Module, config: ModelConfig) -> None:
    """Write a version 0 file: seven int32, then fp32; rotary pairs stand side by side there."""
    state = theirs.state_dict()
    sizes = (config.width, config.hidden, config.layers, config.heads, config.kv_heads)
    head = struct.pack("<7i", *sizes, config.vocabulary * (1 if config.tie else -1), config.context)

    def each(name: str, heads: int = 0) -> Iterator[Tensor]:
        for layer in range(config.layers):
            matrix = state[f"model.layers.{layer}.{name}.weight"]
            yield side_by_side(matrix, heads) if heads else matrix

    blanks = torch.zeros(2 * config.context * (config.head_size // 2))  # cosines and sines that run.c passes over
    tensors = itertools.chain(
        [state["model.embed_tokens.weight"]], each("input_layernorm"), each("self_attn.q_proj", config.heads),
        each("self_attn.k_proj", config.kv_heads), each("self_attn.v_proj"), each("self_attn.o_proj"),
        each("post_attention_layernorm"), each("mlp.gate_proj"), each("mlp.down_proj"), each("mlp.up_proj"),
        [state["model.norm.weight"], blanks], [] if config.tie else [state["lm_head.weight"]],
    )  # fmt: skip
    path.write_bytes(head + b"".join(tensor.float().numpy().tobytes() for tensor in tensors))


def side_by_side(matrix: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix with the two halves of each head dealt out in turn.

    >>> side_by_side(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), heads=1).flatten().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    rows, width = matrix.shape
    return matrix.view(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)


def write_pieces(path: Path, vocabulary: int) -> None:
    """A tokenizer.bin: the three control pieces, 256 bytes, then single letters."""
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [chr(0x100 + number) for number in range(vocabulary - len(pieces))]
    content = struct.pack("<i", max(len(piece.encode()) for piece in pieces))
    for piece in pieces:
        content += struct.pack("<fi", 0.0, len(piece.encode())) + piece.encode()
    path.write_bytes(content)


# the table


def markdown(table: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| family | format | written by | opened by | largest difference | of the largest logit | note |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in table:
        figures = ("-", "-") if row.found is None else (f"{row.found.largest:.1e}", f"{row.found.relative:.1e}")
        lines.append(f"| {' | '.join((row.family, row.format, row.writer, row.reader, *figures, row.note))} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, a family at a time."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", default="", help="families whose name holds this")
    arguments.add_argument("--json", action="store_true")
    wish = arguments.parse_args()
    table = []
    for name in FAMILIES:
        if wish.only in name:
            with tempfile.TemporaryDirectory() as place:
                table += rows(name, Path(place))
                print(f"{name}: done", file=sys.stderr)
    print(json.dumps([dataclasses.asdict(row) for row in table]) if wish.json else markdown(table))


if __name__ == "__main__":
    main()
