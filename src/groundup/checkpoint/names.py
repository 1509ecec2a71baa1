"""The same network under two sets of names: ours and those of Hugging Face `transformers`. Tensors in, tensors out.

GPT-2, Llama, Qwen2 (a llama with qkv_bias) and Qwen3 are covered; their settings are in fields.py. `arranged` takes
tensors one at a time, so that a large model need not be held twice; `from_hf` is the same for a dict.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.checkpoint.fields import hf_config, model_config, printable
from groundup.errors import CheckpointError
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig

__all__ = ["arranged", "from_hf", "hf_config", "model_config", "pairs", "to_hf"]  # two of them handed on

# ours -> theirs, without .weight or .bias; {} is the layer
GPT2 = {
    "token_table": "transformer.wte",
    "position_table": "transformer.wpe",
    "blocks.{}.attention_norm": "transformer.h.{}.ln_1",
    "blocks.{}.attention.qkv": "transformer.h.{}.attn.c_attn",
    "blocks.{}.attention.out": "transformer.h.{}.attn.c_proj",
    "blocks.{}.feedforward_norm": "transformer.h.{}.ln_2",
    "blocks.{}.feedforward.up": "transformer.h.{}.mlp.c_fc",
    "blocks.{}.feedforward.down": "transformer.h.{}.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
LLAMA = {
    "token_table": "model.embed_tokens",
    "blocks.{}.attention_norm": "model.layers.{}.input_layernorm",
    "blocks.{}.attention.qkv": "model.layers.{}.self_attn.q_proj model.layers.{}.self_attn.k_proj "
    "model.layers.{}.self_attn.v_proj",  # one matrix here, three there
    "blocks.{}.attention.query_norm": "model.layers.{}.self_attn.q_norm",  # Qwen3
    "blocks.{}.attention.key_norm": "model.layers.{}.self_attn.k_norm",
    "blocks.{}.attention.out": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.feedforward_norm": "model.layers.{}.post_attention_layernorm",
    "blocks.{}.feedforward.gate": "model.layers.{}.mlp.gate_proj",
    "blocks.{}.feedforward.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.feedforward.down": "model.layers.{}.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
BIGRAM = {"table": "table"}
# Conv1D in their GPT-2 keeps matrices as (in, out); nn.Linear keeps (out, in).
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
# Constants that older files carry along: causal masks and rotary frequencies.
CONSTANTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


class Pair(NamedTuple):
    """One tensor of ours, its shape, and what it is called there: one name, or three for query, key and value."""

    ours: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]

    @property
    def transposed(self) -> bool:
        """True where the file holds the matrix the other way round (GPT-2's Conv1D)."""
        return self.theirs[0].endswith(TRANSPOSED)


def pairs(config: ModelConfig | BigramConfig) -> Iterator[Pair]:
    """Every tensor of the network, ours beside theirs.

    >>> first = next(pairs(ModelConfig(family="llama", vocabulary=9, context=8, width=4, layers=1, heads=1)))
    >>> first.ours, first.theirs
    ('token_table.weight', ('model.embed_tokens.weight',))
    """
    table = {"gpt2": GPT2, "bigram": BIGRAM}.get(config.family, LLAMA)
    with torch.device("meta"):
        ours = build(config).state_dict()
    for name, tensor in ours.items():
        module, _, kind = name.rpartition(".")  # kind: weight or bias
        words = module.split(".")
        layer = words[1] if words[0] == "blocks" else ""
        theirs = table[module.replace(f".{layer}.", ".{}.", 1) if layer else module]
        yield Pair(name, tuple(tensor.shape), tuple(f"{t.format(layer)}.{kind}" for t in theirs.split()))


def to_hf(state: Mapping[str, Tensor], config: ModelConfig | BigramConfig) -> dict[str, Tensor]:
    """Our tensors under their names and in their layout: contiguous, none sharing memory with another.

    A tied head is left out, as they leave it out. Tensors that need no change are handed on, not copied. GPT-2 has
    no switch for qkv_bias there: without it the biases are written as zeros. Raises CheckpointError when `state` is
    not that of `config`.
    """
    _same_names(state, [pair.ours for pair in pairs(config)], of="the model's state")
    result = {}
    for pair in pairs(config):
        tensor = state[pair.ours]
        _check_shape(pair.ours, tuple(tensor.shape), pair.shape)
        if pair.transposed:
            result[pair.theirs[0]] = tensor.t().contiguous()
        elif len(pair.theirs) == 1:
            result[pair.theirs[0]] = tensor.contiguous()
        else:
            parts = tensor.split(_qkv_rows(config))
            result |= {name: part.clone() for name, part in zip(pair.theirs, parts, strict=True)}
    some = next(iter(result.values()))
    return result | {name: some.new_zeros(sum(_qkv_rows(config))) for name in _absent_biases(config)}


def from_hf(tensors: Mapping[str, Tensor], config: ModelConfig | BigramConfig) -> dict[str, Tensor]:
    """Their tensors under our names and in our layout, complete: what `model.load_state_dict` takes.

    Files saved without the outer prefix ("transformer.", "model.") and files with stored masks are understood.
    Raises CheckpointError naming every tensor that is missing, unexpected, or of the wrong shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return dict(arranged(shapes, tensors.__getitem__, config))


def arranged(
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    config: ModelConfig | BigramConfig,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[str, Tensor]]:
    """Our names and tensors, in the network's order; each is `read` when its turn comes, and none is kept here.

    `shapes`: every tensor of the file, by their name. All names and shapes are compared before the first is read.
    `dtype` None leaves each tensor in the type it is stored in. Raises CheckpointError as `from_hf` does.

    >>> config = BigramConfig(vocabulary=2, context=4)
    >>> list(arranged({"table.weight": (2, 2)}, lambda name: torch.eye(2), config, dtype=torch.float16))
    [('table.weight', tensor([[1., 0.],
            [0., 1.]], dtype=torch.float16))]
    """
    wanted = _wanted(shapes, config)
    stored = _stored(shapes, wanted, config)
    return _one_by_one(wanted, stored, read, config, (dtype, device))


def _one_by_one(
    wanted: list[Pair],
    stored: Mapping[str, str],
    read: Callable[[str], Tensor],
    config: ModelConfig | BigramConfig,
    kind: tuple[torch.dtype | None, torch.device | str],
) -> Iterator[tuple[str, Tensor]]:
    """`arranged` after its checks: what it yields is held nowhere here when the next tensor is read."""
    for name in _absent_biases(config):
        if name in stored and read(stored[name]).any():
            raise CheckpointError(
                f"{name} is not zero, but the config says qkv_bias is false", "set it to true in config.json"
            )
    twice = stored.get("lm_head.weight") if isinstance(config, ModelConfig) and config.tie else None
    for pair in wanted:
        parts = [stored[name] for name in pair.theirs]
        if pair.ours == "token_table.weight" and twice is not None:
            _check_tied(read, table=parts[0], head=twice)
        yield pair.ours, _together(pair, parts, read, *kind)


def halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of each head from neighbours (pair p is rows 2p and 2p + 1) to halves (rows p and p + K/2).

    llama2.c and the llama of llama.cpp turn neighbours together, Hugging Face turns halves. `rows` is (heads K, D), or
    (heads K,).

    >>> halves(torch.tensor([0, 10, 1, 11]), heads=1)
    tensor([ 0,  1, 10, 11])
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _wanted(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig | BigramConfig) -> list[Pair]:
    """Every tensor of the network, unless it is so deep that naming what the file lacks would take minutes."""
    if config.layers > max(1000, len(shapes)):
        raise CheckpointError(
            f"the config says {config.layers:,} layers, the file has {len(shapes):,} tensors",
            "use the weights and the config.json of the same model",
        )
    return list(pairs(config))


def _stored(
    shapes: Mapping[str, tuple[int, ...]], wanted: list[Pair], config: ModelConfig | BigramConfig
) -> dict[str, str]:
    """Their full names, and what the file calls each, after names and shapes were found to be those of the config."""
    expected: dict[str, tuple[int, ...]] = {}
    for pair in wanted:
        shape = pair.shape[::-1] if pair.transposed else pair.shape
        rows = [shape[0]] if len(pair.theirs) == 1 else _qkv_rows(config)
        expected |= {name: (count, *shape[1:]) for name, count in zip(pair.theirs, rows, strict=True)}
    stored = _plain_names(shapes, set(expected))
    repeated = {"lm_head.weight"} if isinstance(config, ModelConfig) and config.tie else set()
    repeated |= set(_absent_biases(config))
    _same_names({name for name in stored if name not in repeated}, list(expected), of="the file")
    for name, shape in expected.items():
        _check_shape(name, shapes[stored[name]], shape)
    return stored


def _together(
    pair: Pair,
    parts: list[str],
    read: Callable[[str], Tensor],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> Tensor:
    """One tensor of ours from its part or parts: turned or joined while copied, so nothing is held a third time."""
    with torch.no_grad():
        tensor = read(parts[0])
        if len(parts) == 1 and not pair.transposed:
            return tensor.to(device, dtype)
        whole = torch.empty(pair.shape, dtype=dtype or tensor.dtype, device=device)
        if pair.transposed:
            return whole.copy_(tensor.t())
        end = len(tensor)
        whole[:end] = tensor
        for name in parts[1:]:
            del tensor  # before the next is read
            tensor = read(name)
            if dtype is None:
                whole = whole.to(torch.promote_types(whole.dtype, tensor.dtype))  # a file may mix types
            begin, end = end, end + len(tensor)
            whole[begin:end] = tensor
        return whole


def _check_tied(read: Callable[[str], Tensor], *, table: str, head: str) -> None:
    first, second = read(table), read(head)
    if first.shape != second.shape or first.dtype != second.dtype or not torch.equal(first, second):
        raise CheckpointError(
            "lm_head.weight differs from the token table, but the config says they are tied",
            'set "tie_word_embeddings": false in config.json',
        )


def _qkv_rows(config: ModelConfig | BigramConfig) -> list[int]:
    """Rows of query, key and value in their common matrix."""
    if isinstance(config, BigramConfig):
        return []
    keys = config.kv_heads * config.head_size
    return [config.heads * config.head_size, keys, keys]


def _absent_biases(config: ModelConfig | BigramConfig) -> list[str]:
    """The biases that their GPT-2 always has and this network does not."""
    if config.family != "gpt2" or not isinstance(config, ModelConfig) or config.qkv_bias:
        return []
    return [f"transformer.h.{layer}.attn.c_attn.bias" for layer in range(config.layers)]


def _plain_names(given: Iterable[str], expected: set[str]) -> dict[str, str]:
    """Names with the outer prefix, beside what the file calls them; stored constants dropped."""
    prefixes = {name.split(".")[0] + "." for name in expected if name.startswith(("transformer.", "model."))}
    found: dict[str, str] = {}
    for name in given:
        if name.endswith(CONSTANTS):
            continue
        full = ([name] + [prefix + name for prefix in prefixes if prefix + name in expected])[-1]
        if full in found:
            raise CheckpointError(
                f"the file has {printable(found[full])} and {printable(name)}: one tensor twice", "remove one of them"
            )
        found[full] = name
    return found


def _same_names(seen: Collection[str], expected: list[str], *, of: str) -> None:
    missing = [name for name in expected if name not in seen]
    extra = sorted(set(seen) - set(expected))
    problems = [f"{of} lacks {_listed(missing)}"] if missing else []
    problems += [f"{of} has unexpected {_listed(extra)}"] if extra else []
    if problems:
        raise CheckpointError("; ".join(problems), "use the weights and the config.json of the same model")


def _listed(names: list[str], most: int = 6) -> str:
    shown = ", ".join(printable(name, 100) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _check_shape(name: str, seen: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if seen != expected:
        raise CheckpointError(
            f"{name} has shape {seen}, the config makes it {expected}",
            "use the weights and the config.json of the same model",
        )
