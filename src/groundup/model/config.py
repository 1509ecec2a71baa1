"""What a network looks like, before any number of it exists: settings in, sizes, counts and costs out. No torch.

`ModelConfig` describes one network of the families that `gpt.py` builds, `BigramConfig` the one-table model;
`from_name` looks a size up in `SIZES`. `count_parameters`, `flops_per_token` and `training_bytes` answer, by formula,
what the network will hold and cost, so that a plan can be judged before memory is spent on it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from groundup.errors import ModelError, SettingsError, nearest


class Family(NamedTuple):
    """What a family fixes. Everything else in `ModelConfig` is free."""

    positions: str  # "learned": a table added to the tokens | "rotary": queries and keys turned by their place (RoPE)
    norm: str  # "layer": LayerNorm with bias | "rms": RMSNorm
    feedforward: str  # "gelu": two matrices, tanh-GELU | "swiglu": three matrices, SiLU gate
    bias: bool  # in the linear layers after attention and in the feed-forward part
    qkv_bias: bool  # in query, key and value, unless ModelConfig.qkv_bias says otherwise
    query_key_norm: bool  # RMSNorm over each head's query and key, before the rotation


FAMILIES = {
    # Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3
    "gpt2": Family("learned", "layer", "gelu", bias=True, qkv_bias=True, query_key_norm=False),
    # Touvron et al. 2023, "LLaMA", section 2.2; with qkv_bias it is Qwen2 (Yang et al. 2024, section 2.2)
    "llama": Family("rotary", "rms", "swiglu", bias=False, qkv_bias=False, query_key_norm=False),
    # Yang et al. 2025, "Qwen3 Technical Report", section 2
    "qwen3": Family("rotary", "rms", "swiglu", bias=False, qkv_bias=False, query_key_norm=True),
}
INITS = ("gpt2", "torch")
SCALINGS = ("linear", "llama3")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are stretched, so that a network reads further than it was first trained for.

    "linear": every angle is divided by `factor` (Chen et al. 2023, "Positional Interpolation", section 3.2).
    "llama3": pairs that turn slowly, less than `low` times within `original_context` tokens, are divided by `factor`;
        those that turn more than `high` times stay; between the two, a blend (`apply_scaling` in the released code of
        Llama 3.1).

    Raises ModelError for a stretch that means nothing.

    >>> RopeScaling(kind="llama3", factor=32.0, original_context=8192).high
    4.0
    """

    kind: str
    factor: float  # how many times further
    low: float = 1.0  # turns; called low_freq_factor in config.json
    high: float = 4.0  # turns; high_freq_factor
    original_context: int = 0  # tokens; original_max_position_embeddings; "linear" needs none

    def __post_init__(self) -> None:
        _known("rope_scaling kind", self.kind, SCALINGS)
        if not 1 <= self.factor < math.inf:
            raise ModelError(f"rope_scaling factor is {self.factor}", "it must be a number, 1 or more")
        if self.kind == "llama3":
            _at_least_one("rope_scaling original_context", self.original_context)
            if not 0 < self.low < self.high < math.inf:
                raise ModelError(
                    f"rope_scaling low is {self.low} and high {self.high}", "both must be above 0, and high above low"
                )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One network, completely. A 0 or None below means "the family's own choice" and is resolved on creation.

    Raises ModelError for a network that cannot be built, with the value seen and the remedy.

    >>> config = ModelConfig(family="llama", vocabulary=512, context=64, width=96, layers=2, heads=4, kv_heads=2)
    >>> config.head_size, config.hidden, config.qkv_bias
    (24, 256, False)
    """

    family: str = "qwen3"
    vocabulary: int  # number of ids
    context: int  # longest input, in tokens
    width: int  # numbers that stand for one token between blocks
    layers: int
    heads: int  # query heads
    kv_heads: int = 0  # key and value heads, each shared by heads / kv_heads query heads; own choice: heads
    head_size: int = 0  # own choice: width / heads
    hidden: int = 0  # feed-forward width; own choice: 4 width (gelu), 8/3 width up to a multiple of 32 (swiglu)
    qkv_bias: bool | None = None
    tie: bool = True  # the token table is also the output head (Press and Wolf 2017)
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    dropout_embedding: float = 0.0
    dropout_attention: float = 0.0
    dropout_shortcut: float = 0.0
    init: str = "gpt2"  # "gpt2": small normal draws | "torch": what torch's own layers draw, in book order

    def __post_init__(self) -> None:
        _known("family", self.family, FAMILIES)
        _known("init", self.init, INITS)
        for name in ("vocabulary", "context", "width", "layers", "heads"):
            _at_least_one(name, getattr(self, name))
        if self.width % self.heads and (not self.head_size or self.family != "qwen3"):
            raise ModelError(
                f"width {self.width} is not divisible by heads {self.heads}",
                f"take a width such as {-(-self.width // self.heads) * self.heads}, or another number of heads",
            )
        resolved = {
            "kv_heads": self.kv_heads or self.heads,
            "head_size": self.head_size or self.width // self.heads,
            "hidden": self.hidden or _default_hidden(self.width, self.parts.feedforward),
            "qkv_bias": self.parts.qkv_bias if self.qkv_bias is None else self.qkv_bias,
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen; this is its own construction
        _check_attention(self)
        _check_fractions(self)

    @property
    def parts(self) -> Family:
        """What this network's family fixes."""
        return FAMILIES[self.family]


@dataclass(frozen=True, kw_only=True)
class BigramConfig:
    """The one-table model: the next token from the present one alone. It has no layer, hence nothing to cache.

    >>> BigramConfig(vocabulary=65, context=8).family
    'bigram'
    """

    family: str = "bigram"
    vocabulary: int
    context: int

    layers = 0  # these three size a key/value cache, which stays empty
    kv_heads = 0
    head_size = 0

    def __post_init__(self) -> None:
        _known("family", self.family, ("bigram",))
        for name in ("vocabulary", "context"):
            _at_least_one(name, getattr(self, name))


def _known(name: str, value: str, choices: Mapping[str, Any] | tuple[str, ...]) -> None:
    if value not in choices:
        raise ModelError(f"unknown {name} {value!r}", nearest(str(value), choices))


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{name} is {value!r}", f"{name} must be a whole number, 1 or more")


def _default_hidden(width: int, feedforward: str) -> int:
    """8/3 of the width gives three matrices the size of gelu's two (Shazeer 2020, section 3.2: a factor of 2/3)."""
    return 4 * width if feedforward == "gelu" else -(-8 * width // (3 * 32)) * 32


def _check_attention(config: ModelConfig) -> None:
    """Heads, groups and biases that the family can compute and that other programs can open."""
    for name in ("kv_heads", "head_size", "hidden"):
        _at_least_one(name, getattr(config, name))
    if config.heads % config.kv_heads:
        raise ModelError(
            f"heads {config.heads} is not divisible by kv_heads {config.kv_heads}",
            f"each key/value head serves the same number of query heads: take {_divisors(config.heads)}",
        )
    if config.parts.positions == "rotary" and config.head_size % 2:
        raise ModelError(
            f"head_size {config.head_size} is odd", "rotary positions turn pairs of numbers: make head_size even"
        )
    if config.parts.positions == "learned" and config.rope_scaling is not None:
        raise ModelError(
            f"family {config.family!r} has learned positions: rope_scaling cannot stretch them",
            "leave rope_scaling out, or take family 'llama' or 'qwen3'",
        )
    plain = config.kv_heads == config.heads and config.head_size * config.heads == config.width
    if config.family == "gpt2" and not plain:
        raise ModelError(
            f"family 'gpt2' cannot have kv_heads {config.kv_heads} or head_size {config.head_size} "
            f"with width {config.width} and heads {config.heads}",
            "leave kv_heads and head_size out, or take family 'llama' or 'qwen3'",
        )
    if config.family == "qwen3" and config.qkv_bias:
        raise ModelError(
            "family 'qwen3' has no qkv_bias: it normalises queries and keys instead",
            "leave qkv_bias out, or take family 'llama'",
        )


def _check_fractions(config: ModelConfig) -> None:
    for name in ("dropout_embedding", "dropout_attention", "dropout_shortcut"):
        if not 0 <= getattr(config, name) < 1:
            raise ModelError(f"{name} is {getattr(config, name)}", f"{name} is a chance: 0 (off) or more, below 1")
    for name in ("norm_eps", "rope_base"):
        if not getattr(config, name) > 0:
            raise ModelError(f"{name} is {getattr(config, name)}", f"{name} must be above 0")


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


_GPT2 = {"family": "gpt2", "vocabulary": 50257, "context": 1024, "tie": True}

SIZES: dict[str, dict[str, Any]] = {
    # GPT-2 as released (Radford et al. 2019, table 2); the number in the alias is the parameter count
    "gpt2": _GPT2 | {"width": 768, "layers": 12, "heads": 12},
    "gpt2-medium": _GPT2 | {"width": 1024, "layers": 24, "heads": 16},
    "gpt2-large": _GPT2 | {"width": 1280, "layers": 36, "heads": 20},
    "gpt2-xl": _GPT2 | {"width": 1600, "layers": 48, "heads": 25},
    # For a laptop: named by the parameters outside the tables, near the name in every family
    "1m": {"vocabulary": 2048, "context": 256, "width": 128, "layers": 5, "heads": 4},
    "3m": {"vocabulary": 4096, "context": 256, "width": 192, "layers": 7, "heads": 6},
    "10m": {"vocabulary": 8192, "context": 512, "width": 384, "layers": 6, "heads": 6},
    "30m": {"vocabulary": 16384, "context": 1024, "width": 512, "layers": 10, "heads": 8},
    # As published with the weights
    "smollm2-135m": {"family": "llama", "vocabulary": 49152, "context": 8192, "width": 576, "layers": 30, "heads": 9}
    | {"kv_heads": 3, "hidden": 1536, "rope_base": 100_000.0},
    "qwen3-0.6b": {"family": "qwen3", "vocabulary": 151936, "context": 40960, "width": 1024, "layers": 28, "heads": 16}
    | {"kv_heads": 8, "head_size": 128, "hidden": 3072, "rope_base": 1_000_000.0, "norm_eps": 1e-6},
    "llama-3.2-1b": {"family": "llama", "vocabulary": 128256, "context": 131072, "width": 2048, "layers": 16}
    | {"heads": 32, "kv_heads": 8, "hidden": 8192, "rope_base": 500_000.0}
    | {"rope_scaling": RopeScaling(kind="llama3", factor=32.0, original_context=8192)},
}
ALIASES = {"124m": "gpt2", "355m": "gpt2-medium", "774m": "gpt2-large", "1558m": "gpt2-xl"}


def from_name(name: str, **overrides: Any) -> ModelConfig:
    """The named size, with any field of `ModelConfig` put in its place; an override of None changes nothing.

    Raises SettingsError for an unknown name or field (with the nearest one), ModelError for an impossible network.

    >>> from_name("124M", tie=False, qkv_bias=False).width
    768
    """
    size = SIZES.get(ALIASES.get(name.lower(), name.lower()))
    if size is None:
        raise SettingsError(f"unknown size {name!r}", nearest(name, [*SIZES, *ALIASES]))
    known = [field.name for field in fields(ModelConfig)]
    for field in overrides:
        if field not in known:
            raise SettingsError(f"unknown model setting {field!r}", nearest(field, known))
    given = {field: value for field, value in overrides.items() if value is not None}
    return ModelConfig(**(size | given))


class Counts(NamedTuple):
    """Parameters: all of them; those in tables (tokens, learned positions, an untied head); the rest."""

    total: int
    embedding: int
    body: int


def count_parameters(config: ModelConfig | BigramConfig) -> Counts:
    """Parameters by formula, nothing built; a tied head counts once.

    >>> count_parameters(from_name("gpt2")).total
    124439808
    """
    if isinstance(config, BigramConfig):
        return Counts(config.vocabulary**2, config.vocabulary**2, 0)
    parts, width, hidden = config.parts, config.width, config.hidden
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    norm = width * (2 if parts.norm == "layer" else 1)
    attention = width * (queries + 2 * keys) + queries * width
    attention += (queries + 2 * keys) * bool(config.qkv_bias) + width * parts.bias
    attention += 2 * config.head_size * parts.query_key_norm
    matrices = 2 if parts.feedforward == "gelu" else 3
    feedforward = matrices * width * hidden + (hidden + width) * parts.bias
    body = config.layers * (attention + feedforward + 2 * norm) + norm
    tables = config.vocabulary * (1 if config.tie else 2) + config.context * (parts.positions == "learned")
    return Counts(tables * width + body, tables * width, body)


def flops_per_token(config: ModelConfig | BigramConfig) -> float:
    """Floating point operations to train on one token at full context: forward and backward.

    6 N + 12 layers x heads x head_size x context (Chowdhery et al. 2022, "PaLM", appendix B), N being the parameters
    that multiply: the body and the output head, tied or not, but no table that is only looked up.

    >>> f"{flops_per_token(from_name('gpt2')):.3g}"
    '8.55e+08'
    """
    if isinstance(config, BigramConfig):
        return 0.0
    multiplied = count_parameters(config).body + config.vocabulary * config.width
    return 6.0 * multiplied + 12.0 * config.layers * config.heads * config.head_size * config.context


def training_bytes(
    config: ModelConfig | BigramConfig,
    batch: int,
    context: int,
    *,
    bf16: bool = False,
    recompute: bool = False,
    trained: tuple[float, int | None] = (1.0, None),
) -> int:
    """Estimated peak memory of training on `batch` rows of `context` tokens at a time, beyond the running program.

    Covers fp32 weights, gradients and AdamW's two averages (16 bytes for each parameter), what the forward pass keeps
    for the backward pass, and the head with a slice of logits; with bf16 the autocast copies; with recompute only what
    enters each block, and one block whole. Where only part of the network learns, `trained` says which share of the
    parameters, and how many blocks gradients go through: the others keep nothing. Leaves out data, evaluation and
    anything compiled. Against measured peaks of 1m to gpt2, all families, it is within 30 %; with recompute within
    50 %.

    >>> f"{training_bytes(from_name('gpt2'), batch=4, context=256) / 2**30:.1f} GiB"
    '3.1 GiB'
    """
    tokens, size = batch * context, 2 if bf16 else 4
    share, reach = trained
    weights = round((4 + 2 * bf16 + 12 * share) * count_parameters(config).total)
    if isinstance(config, BigramConfig):  # logits, their log-softmax, and a gradient of each, in fp32
        return weights + tokens * 16 * config.vocabulary
    layer = _kept_bytes(config, context, size)
    # a slice of logits, and the gradient of the head that is made on the way (losses/cross_entropy.py)
    head = size * (min(tokens * config.vocabulary, 2**26) + 2 * config.vocabulary * config.width)
    # Measured: while one block runs backwards, its gradients and what the allocator cannot reuse come to about 2.5
    # times what a block keeps; to 5 times where fp32 norms and rotations stand between bf16 matrices.
    passing = layer * 5 // (1 if bf16 and config.parts.norm == "rms" else 2)
    blocks = config.layers if reach is None else reach
    kept = layer + 4 * config.width * blocks if recompute else layer * blocks
    return weights + head + tokens * (kept + passing)


def _kept_bytes(config: ModelConfig, context: int, size: int) -> int:
    """Bytes that one block keeps per token for the backward pass; `size` is that of a number in a matrix product."""
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    numbers = 2 * config.width + queries + 3 * queries  # inputs of qkv, out, up; queries, keys, values of every head
    if config.parts.positions == "rotary":
        numbers += 2 * queries + keys  # turned queries and keys; attention's output, laid out anew
    numbers += config.hidden * (2 if config.parts.feedforward == "gelu" else 3)
    norms = config.width * (2 if config.parts.norm == "layer" else 4)  # fp32; RMSNorm keeps the normalised, too
    if config.parts.query_key_norm:
        norms += (queries + keys) * (1 if size == 4 else 2)
    kept = size * numbers + 4 * norms
    if context <= 8 * config.head_size:  # attention keeps its weights, half of all T x T (model/attend.py)
        kept += size * config.heads * context // 2
    if config.dropout_attention:
        kept += size * config.heads * context // 2  # which of them were dropped
    return kept + (12 * config.width if config.dropout_shortcut else 0)
