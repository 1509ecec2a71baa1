"""OpenAI's GPT-2: what its files hold, and how each number finds its place.

Enters: the seven files of a released GPT-2, where they are on this machine. Leaves: our network with their weights.
Follows: book 5.5, exercises 5.5 and 5.6; notebook 5.5; notes 5.5 and 7.5.
In the library: groundup.checkpoint.openai opens such a folder, groundup.checkpoint.bundle reads its arrays, and
groundup.checkpoint.names has Hugging Face's names beside ours.
"""

# %%
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import tokens
from groundup.checkpoint import names
from groundup.checkpoint.openai import open_source
from groundup.checkpoint.source import fill
from groundup.generate import Sampler
from groundup.lessons.rung import check, picture, story
from groundup.model import build
from groundup.model.config import ModelConfig, count_parameters, from_name
from groundup.tokens.formats import find_gpt2

ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/models/124M/"
DATA = "model.ckpt.data-00000-of-00001"
FILES = ["checkpoint", "encoder.json", "hparams.json", DATA, "model.ckpt.index", "model.ckpt.meta", "vocab.bpe"]

# %% [markdown]
# # Seven files
# A GPT-2 is published as a TensorFlow checkpoint: a pointer to it, its settings, the vocabulary in two files, and three
# files of the checkpoint proper, of which one holds the numbers. Most of them can be foretold to the byte: the settings
# are five numbers, and every weight takes four bytes.

# %%
config = from_name("124M")
settings = {"n_vocab": config.vocabulary, "n_ctx": config.context, "n_embd": config.width}
check("book.5.5.settings", settings)
settings |= {"n_head": config.heads, "n_layer": config.layers}
check("nb.5.5.settings", settings)

tokenizer = tokens.gpt2()
vocabulary = find_gpt2()
pointer = 'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
sizes = {
    "checkpoint": len(pointer),
    "encoder.json": vocabulary["encoder.json"].stat().st_size,
    "hparams.json": len(json.dumps(settings, indent=2) + "\n"),
    DATA: 4 * count_parameters(config).total,
    "vocab.bpe": vocabulary["vocab.bpe"].stat().st_size,
}
check("book.5.5.files", sizes)

# %% [markdown]
# ## Exercise 5.6
# The larger ones differ in width, layers and heads alone; everything below works for them as it stands.

# %%
for name in ("124M", "355M", "774M", "1558M"):
    size = from_name(name)
    count = count_parameters(size).total
    shape = f"width {size.width}, {size.layers} layers, {size.heads} heads"
    print(f"{name}: {shape}, {count:,} weights, {4e-9 * count:.1f} GB")

# %% [markdown]
# # Names and shapes
# Their names are paths, `model/h0/attn/c_attn/w`: block 0, attention, the matrix that makes queries, keys and values
# in one product. A matrix is kept as (in, out), `nn.Linear` keeps (out, in): each is transposed. The output head is
# absent, since it is the token table once more.


# %%
def path_of(name: str) -> str:
    """Their path for a Hugging Face name: "transformer.h.0.ln_1.weight" -> "model/h0/ln_1/g"."""
    words = name.split(".")[1:-1]
    if words[0] == "h":
        words[:2] = [f"h{words[1]}"]
    if words[-1] in ("wte", "wpe"):
        return f"model/{words[-1]}"
    kind = "b" if name.endswith("bias") else "g" if words[-1].startswith("ln_") else "w"
    return "/".join(["model", *words, kind])


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Path and shape of every array, in the order of the file: that of the paths."""
    found = {
        path_of(pair.theirs[0]): pair.shape[::-1] if pair.transposed else pair.shape for pair in names.pairs(config)
    }
    return dict(sorted(found.items()))


shapes = shapes_of(config)
for path in list(shapes)[:4]:
    print(path, shapes[path])
check("nb.5.5.split_shapes", [part.shape for part in torch.empty(shapes["model/h0/attn/c_attn/w"]).chunk(3, dim=1)])

with picture("openai_weights", width=8, height=3.5) as figure:
    axes = figure.subplots()
    parts = {"token table": "wte", "positions": "wpe", "attention": "attn", "feed forward": "mlp", "norms": "ln_"}
    for place, name in enumerate(("124M", "355M", "774M", "1558M")):
        left = 0.0
        for color, word in enumerate(parts.values()):
            many = sum(math.prod(shape) for path, shape in shapes_of(from_name(name)).items() if word in path) / 1e6
            axes.barh(place, many, left=left, color=f"C{color}", label=list(parts)[color] if not place else None)
            left += many
        axes.text(left, place, f" {left:,.0f}", va="center", fontsize=8)
    axes.set(title="Where the weights of GPT-2 are", xlabel="millions of weights", yticks=range(4), xlim=(0, 1720))
    axes.set_yticklabels(["124M", "355M", "774M", "1558M"])
    axes.legend(loc="lower right")

# %% [markdown]
# # Reading without TensorFlow
# In the file of the numbers the arrays lie one behind the other, 32 bits each, in the order of their paths. Whoever
# knows the shapes can cut it apart. The book's reader makes a tree of it, with the keys blocks, b, g, wpe and wte.


# %%
def read(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The settings and the tree of arrays of a folder with OpenAI's files; ValueError for a file of another size."""
    given = json.loads((folder / "hparams.json").read_text(encoding="utf-8"))
    config = ModelConfig(family="gpt2", vocabulary=given["n_vocab"], context=given["n_ctx"], width=given["n_embd"],
                         heads=given["n_head"], layers=given["n_layer"])  # fmt: skip
    shapes = shapes_of(config)
    counts = [math.prod(shape) for shape in shapes.values()]
    if (folder / DATA).stat().st_size != 4 * sum(counts):
        raise ValueError(f"{folder / DATA} has not the size that hparams.json asks for: {4 * sum(counts):,} bytes")
    numbers = torch.from_file(str(folder / DATA), size=sum(counts), dtype=torch.float32)
    tree: dict[str, Any] = {"blocks": [{} for _ in range(config.layers)]}
    for (path, shape), part in zip(shapes.items(), numbers.split(counts), strict=True):
        first, *rest = path.split("/")[1:]
        branch = tree["blocks"][int(first[1:])] if first.startswith("h") else tree
        for word in rest[:-1]:
            branch = branch.setdefault(word, {})
        branch[rest[-1] if rest else first] = part.view(shape)
    return config, tree


# %% [markdown]
# # Copying
# The shapes are compared before a number moves: a matrix the wrong way round would give nonsense without an error. (The
# notebook's first listing of this has slips in keys and names; its second, commented out, is right. It also checks its
# second norm against the first.)

# %%
PLACES = {  # in a block: ours, theirs
    "attention_norm": ("ln_1",), "attention.qkv": ("attn", "c_attn"), "attention.out": ("attn", "c_proj"),
    "feedforward_norm": ("ln_2",), "feedforward.up": ("mlp", "c_fc"), "feedforward.down": ("mlp", "c_proj"),
}  # fmt: skip


def assign(ours: Tensor, theirs: Tensor) -> None:
    """Copy numbers from one place to another of the same shape."""
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: {tuple(ours.shape)} here, {tuple(theirs.shape)} there")
    with torch.no_grad():
        ours.copy_(theirs)


def load(model: nn.Module, tree: dict[str, Any]) -> None:
    """Fill a GPT-2 of ours with the arrays of a tree."""
    assign(model.token_table.weight, tree["wte"])
    assign(model.position_table.weight, tree["wpe"])
    for block, theirs in zip(model.blocks, tree["blocks"], strict=True):
        for ours, words in PLACES.items():
            part, branch = block.get_submodule(ours), theirs
            for word in words:
                branch = branch[word]
            assign(part.weight, branch["g"] if "g" in branch else branch["w"].T)
            assign(part.bias, branch["b"])
    assign(model.norm.weight, tree["g"])
    assign(model.norm.bias, tree["b"])


# %% [markdown]
# # A rehearsal, and the library's own
# A tiny GPT-2 with random weights, written as OpenAI wrote theirs, read back and copied: by hand, and by the library,
# which knows the Hugging Face names of the same arrays. Both give the same network. In our `qkv` the first third of
# the rows is the query matrix, then come keys and values, just as in their columns.

# %%
tiny = ModelConfig(family="gpt2", vocabulary=50, context=8, width=12, layers=11, heads=3)  # h10 sorts before h2
source = build(tiny, seed=1)
theirs = {name: torch.randn_like(array) for name, array in names.to_hf(source.state_dict(), tiny).items()}
arrays = {path_of(name): array for name, array in theirs.items()}
with tempfile.TemporaryDirectory() as place:
    values = {"n_vocab": 50, "n_ctx": 8, "n_embd": 12, "n_head": 3, "n_layer": 11}
    Path(place, "hparams.json").write_text(json.dumps(values), encoding="utf-8")
    flat = torch.cat([arrays[path].flatten() for path in sorted(arrays)])
    Path(place, DATA).write_bytes(flat.numpy().tobytes())
    config_read, tree = read(Path(place))
assert config_read == tiny and sorted(tree) == ["b", "blocks", "g", "wpe", "wte"]

by_hand, by_library = build(tiny, seed=2).eval(), build(tiny, seed=3).eval()
load(by_hand, tree)
by_library.load_state_dict(names.from_hf(theirs, tiny))
ids = torch.tensor([[5, 17, 49]])
torch.testing.assert_close(by_hand(ids), by_library(ids), rtol=0, atol=0)
queries = tree["blocks"][0]["attn"]["c_attn"]["w"].chunk(3, dim=1)[0]  # (D, 3D) -> (D, D)
assert torch.equal(by_hand.blocks[0].attention.qkv.weight[:12], queries.T)
try:
    load(build(from_name("124M", vocabulary=50, context=8, width=24, layers=11, heads=3), seed=1), tree)
except ValueError as error:
    print("a model of another width is refused:", error)

# %% [markdown]
# # The library opens the folder
# Our reader takes two things on trust: that the arrays stand in the order of their paths, and that no byte was lost on
# the way. The library asks the index: for every array it says in which data file it lies, where, of what type and
# shape, and with which checksum. The pointer says what the index is called. Every size is compared with the file
# before memory is taken for it, every checksum before a number is used; the checksums come with `groundup[openai]`.


# %%
def by_the_library(folder: Path) -> nn.Module:
    """The network of a folder with OpenAI's files, filled array by array."""
    source = open_source(folder)
    return fill(source.config, source.weights).eval()


# %% [markdown]
# # With the real weights
# Put the seven files into `$GROUNDUP_DATA/gpt2-124M` and run this rung again.


# %%
@torch.no_grad()
def losses(model: nn.Module, part: str) -> float:
    """Exercise 5.5: mean loss of a text in windows of 256."""
    rows = torch.tensor(tokenizer.encode(part)).unfold(0, 257, 256)  # (N, T + 1)
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).item()


@torch.no_grad()
def drawn(model: nn.Module, text: str, count: int, sampler: Sampler) -> str:
    """The text and `count` tokens drawn with torch.multinomial, as the book draws them."""
    ids = tokenizer.encode(text)
    for _ in range(count):
        chances = sampler.scores(model(torch.tensor([ids]))[:, -1]).softmax(dim=-1)  # (1, V)
        ids.append(int(torch.multinomial(chances, 1)))
    return tokenizer.decode(ids)


weights = Path(os.environ.get("GROUNDUP_DATA", "data"), "gpt2-124M")
if (weights / "hparams.json").is_file():
    config, tree = read(weights)
    check("book.5.5.files_tensorflow", {name: (weights / name).stat().st_size for name in FILES[4:6]})
    check("book.5.5.wte", tree["wte"][0, [0, -3, -2, -1]])
    check("nb.5.5.wte", tree["wte"][:3, :3])
    copied = build(config, seed=0).eval()
    load(copied, tree)
    gpt = by_the_library(weights)
    assert all(map(torch.equal, gpt.parameters(), copied.parameters()))
    torch.manual_seed(123)
    text = drawn(gpt, "Every effort moves you", 25, Sampler(temperature=1.5, top_k=50))
    check("book.5.5.generate", text)
    check("nb.5.5.generate", text)
    verdict = story("the-verdict")
    cut = int(0.9 * len(verdict))
    check("book.ex5.5", [losses(gpt, verdict[:cut]), losses(gpt, verdict[cut:])])
else:
    print(f"no weights in {weights}: get {', '.join(FILES)} from {ADDRESS}")
