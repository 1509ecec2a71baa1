"""What a GGUF file calls a network's settings and tensors, both ways. Metadata in, `ModelConfig` out, and back.

Architectures gpt2, llama (Mistral is one), qwen2 and qwen3. What a file states beyond what we compute is refused by key
and value, and so is a network that llama.cpp would read as another one. The facts are those of the GGUF specification
(ggml/docs/gguf.md, "Standardized key-value pairs" and "Standardized tensor names") and of llama.cpp's own converter.
"""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from torch import Tensor

from groundup.checkpoint.fields import printable
from groundup.checkpoint.gguf.stretched import ROPE_DIVISORS, fitted, short
from groundup.checkpoint.gguf.stretched import rope_divisors as rope_divisors  # for whoever writes a file
from groundup.checkpoint.names import TRANSPOSED, halves
from groundup.errors import CheckpointError, ModelError, nearest
from groundup.model.config import BigramConfig, ModelConfig, RopeScaling

ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")
MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
_KEEP = "keep the Hugging Face folder: transformers opens it as it is"

# Hugging Face -> GGUF, without .weight or .bias; {} is the layer
GPT2 = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.h.{}.ln_1": "blk.{}.attn_norm",
    "transformer.h.{}.attn.c_attn": "blk.{}.attn_qkv",
    "transformer.h.{}.attn.c_proj": "blk.{}.attn_output",
    "transformer.h.{}.ln_2": "blk.{}.ffn_norm",
    "transformer.h.{}.mlp.c_fc": "blk.{}.ffn_up",
    "transformer.h.{}.mlp.c_proj": "blk.{}.ffn_down",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",  # absent where the token table is the head
}
LLAMA = {
    "model.embed_tokens": "token_embd",
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",  # Qwen3
    "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
    "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
    "model.layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "model.layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
}


class Key(NamedTuple):
    """One setting: its name here, its key behind "llama." and the like, its type, and what llama.cpp takes when it is
    absent; without a default it must be there."""

    ours: str
    theirs: str
    kind: type
    default: Any = None


_SHARED = (
    Key("context", "context_length", int),
    Key("width", "embedding_length", int),
    Key("layers", "block_count", int),
    Key("hidden", "feed_forward_length", int),
    Key("heads", "attention.head_count", int),
)
GPT2_KEYS = (*_SHARED, Key("norm_eps", "attention.layer_norm_epsilon", float))
ROTARY_KEYS = (
    *_SHARED,
    Key("kv_heads", "attention.head_count_kv", int, 0),
    Key("head_size", "attention.key_length", int, 0),
    Key("norm_eps", "attention.layer_norm_rms_epsilon", float),
    Key("rope_base", "rope.freq_base", float, 10_000.0),
)

# Read elsewhere in this file, or without an effect on the arithmetic.
_UNDERSTOOD: tuple[str, ...] = ("vocab_size", "attention.value_length", "rope.dimension_count", "rope.scaling.type")
_UNDERSTOOD += ("rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length")
_UNDERSTOOD += ("rope.scaling.finetuned", "tensor_data_layout", "attention.head_count_kv", "attention.sliding_window")
# Any other key changes the arithmetic, or may; these do not when they have one of these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.scale": (0,),  # 0: the usual 1 / sqrt(head size)
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "logit_scale": (0, 1),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "rope.scaling.attn_factor": (1,),
    "use_parallel_residual": (False,),
}


# --- settings ----------------------------------------------------------------------------------------------------


def architecture_of(config: ModelConfig | BigramConfig) -> str:
    """The architecture under which llama.cpp computes this network; a llama with qkv_bias is its qwen2."""
    return (
        "qwen2" if isinstance(config, ModelConfig) and config.family == "llama" and config.qkv_bias else config.family
    )


def checked_architecture(value: Any) -> str:
    """What general.architecture says; raises CheckpointError where it is none that is computed here."""
    if not isinstance(value, str) or value not in ARCHITECTURES:
        shown = reprlib.repr(value)
        raise CheckpointError(f"unsupported general.architecture {shown}", nearest(shown, ARCHITECTURES))
    return value


def read_config(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], divisors: Sequence[float] = ()
) -> ModelConfig:
    """The network that a file's metadata and tensors describe.

    `shapes`: by GGUF name, the longest stride first as in torch: token_embd.weight is (V, D). `divisors`: the numbers
    of `rope_freqs.weight` where the file has it. Raises CheckpointError naming key and value of whatever is missing,
    malformed or not computed here: other architectures, experts, sliding windows, YaRN, caps and scales.

    >>> facts = {"context_length": 8, "embedding_length": 4, "block_count": 1, "feed_forward_length": 6}
    >>> facts |= {"attention.head_count": 2, "attention.layer_norm_rms_epsilon": 1e-5}
    >>> metadata = {"general.architecture": "llama"} | {f"llama.{key}": value for key, value in facts.items()}
    >>> config = read_config(metadata, {"token_embd.weight": (9, 4), "blk.0.attn_q.weight": (4, 4)})
    >>> config.family, config.vocabulary, config.head_size, config.tie
    ('llama', 9, 2, True)
    """
    architecture = checked_architecture(metadata.get("general.architecture"))
    if metadata.get("general.type", "model") != "model":
        _refuse("general.type", metadata["general.type"])
    own = f"{architecture}."
    facts = {key.removeprefix(own): value for key, value in metadata.items() if key.startswith(own)}
    keys = GPT2_KEYS if architecture == "gpt2" else ROTARY_KEYS
    _check_foreign(architecture, facts, keys)
    values = {key.ours: _read(architecture, facts, key) for key in keys}
    values["vocabulary"] = _vocabulary(metadata, facts.get("vocab_size"), shapes, values["width"])
    _check_layers(architecture, values["layers"], shapes)
    try:
        config = ModelConfig(
            family="llama" if architecture == "qwen2" else architecture,
            tie="output.weight" not in shapes,
            qkv_bias=architecture == "gpt2" or "blk.0.attn_q.bias" in shapes,
            rope_scaling=_scaling(architecture, facts, values, divisors),
            **values,
        )
    except ModelError as error:
        raise CheckpointError(f"the metadata describes no network we can build: {error.what}", error.fix) from None
    _check_heads(architecture, facts, config)
    return config


def metadata_of(config: ModelConfig, *, name: str) -> dict[str, Any]:
    """The metadata that makes llama.cpp compute this network: general.architecture, general.name and its settings.

    Whole numbers are meant as uint32, floats as float32. Dropout has no key: it plays no part in reading a model.
    Raises CheckpointError where `check_writable` does.

    >>> config = ModelConfig(family="gpt2", vocabulary=99, context=8, width=4, layers=1, heads=2)
    >>> metadata_of(config, name="tiny")["gpt2.feed_forward_length"]
    16
    """
    check_writable(config)
    architecture = architecture_of(config)
    keys = GPT2_KEYS if architecture == "gpt2" else ROTARY_KEYS
    facts = {key.theirs: getattr(config, key.ours) for key in keys} | {"vocab_size": config.vocabulary}
    if architecture != "gpt2":
        facts |= {"attention.value_length": config.head_size, "rope.dimension_count": config.head_size}
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        facts |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope_scaling.factor)}
    elif config.rope_scaling is not None:  # the rest of it goes into the tensor that `rope_divisors` gives
        facts |= {"rope.scaling.original_context_length": config.rope_scaling.original_context}
    general = {"general.architecture": architecture, "general.name": name}
    return general | {f"{architecture}.{key}": value for key, value in facts.items()}


def check_writable(config: ModelConfig | BigramConfig) -> None:
    """Refuse what llama.cpp has no network for, or would compute otherwise; raises CheckpointError.

    >>> try:
    ...     check_writable(BigramConfig(vocabulary=9, context=4))
    ... except CheckpointError as error:
    ...     print(error.what)
    llama.cpp has no 'bigram' network: GGUF cannot hold it
    """
    if isinstance(config, BigramConfig):
        raise CheckpointError(
            "llama.cpp has no 'bigram' network: GGUF cannot hold it",
            "train a gpt2, llama or qwen3 model, or keep the Hugging Face folder",
        )
    if config.layers > MAX_LAYERS:
        raise CheckpointError(f"the model has {config.layers} layers, llama.cpp at most {MAX_LAYERS}", _KEEP)
    architecture, scaling = architecture_of(config), config.rope_scaling
    if architecture in ("qwen2", "qwen3") and scaling is not None and scaling.kind == "llama3":
        raise CheckpointError(
            f"llama.cpp stretches the positions of {architecture!r} without Llama 3's rule, which this model uses",
            _KEEP,
        )
    divisors = rope_divisors(config)
    if (
        divisors is not None
        and divisors.max() > 1
        and fitted(divisors.tolist(), config.rope_base, config.head_size) is None
    ):
        raise CheckpointError(f"{scaling} is not found again in the divisors that GGUF keeps of it", _KEEP)
    if architecture == "qwen2" and config.heads * config.head_size != config.width:
        raise CheckpointError(
            f"llama.cpp's qwen2 (a llama with qkv_bias) makes heads x head_size the width, here they are "
            f"{config.heads} x {config.head_size} and {config.width}",
            _KEEP,
        )


def _check_foreign(architecture: str, facts: Mapping[str, Any], keys: Sequence[Key]) -> None:
    """Refuse every key of the architecture that we do not know to be without effect."""
    known = {key.theirs for key in keys}.union(_UNDERSTOOD)
    for key in sorted(facts.keys() - known):
        if facts[key] not in NEUTRAL.get(key, ()):
            _refuse(f"{architecture}.{key}", facts[key])
    window = facts.get("attention.sliding_window", 0)
    if window != 0 and not (isinstance(window, int) and window >= facts.get("context_length", math.inf)):
        _refuse(f"{architecture}.attention.sliding_window", window)


def _read(architecture: str, facts: Mapping[str, Any], key: Key) -> Any:
    """A setting of the wanted type, or its default."""
    value = facts.get(key.theirs, key.default)
    if value is None:
        raise CheckpointError(f"the metadata has no {architecture}.{key.theirs}", "use a complete GGUF file")
    fits = isinstance(value, int | float if key.kind is float else int) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or abs(value) >= 2**31:
        raise CheckpointError(
            f"{architecture}.{key.theirs} is {reprlib.repr(value)}",
            f"it must be one number of type {key.kind.__name__} below 2,147,483,648, the same for all layers",
        )
    if key.kind is int and value < 1 and key.theirs in facts:
        raise CheckpointError(f"{architecture}.{key.theirs} is {value}", "it must be 1 or more")
    # 1e-5 is stored as the nearest 32-bit float: take the shortest number that is stored so, not 9.99999974e-06
    return value if key.kind is int else short(value)


def _vocabulary(metadata: Mapping[str, Any], stated: Any, shapes: Mapping[str, tuple[int, ...]], width: int) -> int:
    """Rows of the token table, which every other count must fit."""
    table = shapes.get("token_embd.weight")
    if table is None or len(table) != 2 or table[1] != width:
        raise CheckpointError(
            f"token_embd.weight is {table or 'missing'}, while embedding_length is {width}", "use a complete GGUF file"
        )
    if stated is not None and stated != table[0]:
        raise CheckpointError(
            f"vocab_size is {reprlib.repr(stated)}, but token_embd.weight has {table[0]:,} rows",
            "use an undamaged GGUF file",
        )
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    if isinstance(tokens, Sequence) and len(tokens) > table[0]:
        raise CheckpointError(
            f"tokenizer.ggml.tokens has {len(tokens):,} tokens, but token_embd.weight only {table[0]:,} rows",
            "use an undamaged GGUF file",
        )
    return table[0]


def _check_layers(architecture: str, layers: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """As many layers as stated: checked before a network of so many is even sketched."""
    found = {match.group(1) for name in shapes if (match := re.match(r"blk\.([0-9]{1,9})\.", name))}
    if len(found) != layers:
        raise CheckpointError(
            f"{architecture}.block_count is {layers:,}, but the file has tensors of {len(found):,} layers",
            "use a complete GGUF file",
        )


def _check_heads(architecture: str, facts: Mapping[str, Any], config: ModelConfig) -> None:
    """Sizes that are stated twice, and whole heads that are turned."""
    expected = {"attention.value_length": config.head_size, "rope.dimension_count": config.head_size}
    if architecture == "gpt2":
        expected = {"attention.head_count_kv": config.heads}
    for key, size in expected.items():
        if facts.get(key, size) != size:
            _refuse(f"{architecture}.{key}", facts[key], f"only {size} goes with the other settings")


def _scaling(
    architecture: str, facts: Mapping[str, Any], values: Mapping[str, Any], divisors: Sequence[float]
) -> RopeScaling | None:
    """How positions are stretched: by one factor in the metadata, or by Llama 3's rule in a tensor."""
    kind, by_rule = facts.get("rope.scaling.type", "linear"), any(number != 1 for number in divisors)
    if kind not in ("none", "linear"):
        _refuse(f"{architecture}.rope.scaling.type", kind)
    key = "rope.scaling.factor" if "rope.scaling.factor" in facts else "rope.scale_linear"  # the older name
    factor = _read(architecture, facts, Key("factor", key, float, 0.0)) if kind == "linear" else 0.0
    if factor not in (0, 1):
        if by_rule:
            _refuse(f"{architecture}.{key}", factor, "use a model that is stretched by one rule, not by two")
        return RopeScaling(kind="linear", factor=factor)
    if not by_rule:
        return None
    if architecture != "llama":
        _refuse(ROPE_DIVISORS, list(divisors), f"llama.cpp knows it for llama, not for {architecture}")
    head_size = values["head_size"] or values["width"] // values["heads"]
    declared = facts.get("rope.scaling.original_context_length")
    rule = fitted(divisors, values["rope_base"], head_size, declared)
    if rule is None:
        _refuse(ROPE_DIVISORS, list(divisors), "only positions stretched by Llama 3's rule are computed here")
    return rule


def _refuse(key: str, value: Any, fix: str = "use a gpt2, llama, qwen2 or qwen3 model without it") -> NoReturn:
    raise CheckpointError(f"{printable(key, 100)} is {reprlib.repr(value)}, which this program does not compute", fix)


# --- tensors -----------------------------------------------------------------------------------------------------


def gguf_name(name: str) -> str:
    """A Hugging Face name as GGUF has it; raises CheckpointError for one that has no place there.

    >>> gguf_name("model.layers.3.self_attn.q_proj.weight"), gguf_name("transformer.h.0.attn.c_attn.bias")
    ('blk.3.attn_q.weight', 'blk.0.attn_qkv.bias')
    """
    module, _, kind = name.rpartition(".")
    layer = next(iter(re.findall(r"\.([0-9]+)\.", module)), "")
    found = (GPT2 | LLAMA).get(module.replace(f".{layer}.", ".{}.", 1) if layer else module)
    if found is None or kind not in ("weight", "bias"):
        raise CheckpointError(
            f"tensor {name!r} has no place in a GGUF file", "write a gpt2, llama, qwen2 or qwen3 model"
        )
    return f"{found.format(layer)}.{kind}"


def hf_name(name: str, architecture: str) -> str:
    """A GGUF name as Hugging Face has it; raises CheckpointError for one the architecture does not have here.

    >>> hf_name("blk.3.attn_q.weight", "llama")
    'model.layers.3.self_attn.q_proj.weight'
    """
    table = {theirs: ours for ours, theirs in (GPT2 if architecture == "gpt2" else LLAMA).items()}
    match = re.fullmatch(r"(?:blk\.([0-9]{1,9})\.)?([a-z_]+)\.(weight|bias)", name)
    found = match and table.get(f"blk.{{}}.{match[2]}" if match[1] else match[2])
    if not match or not found:
        raise CheckpointError(
            f"tensor {reprlib.repr(name)} is none that {architecture!r} has here",
            "use a plain gpt2, llama, qwen2 or qwen3 model: no adapters, experts or further biases",
        )
    return f"{found.format(match[1])}.{match[3]}"


def to_gguf(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """A tensor by its Hugging Face name, laid out as GGUF keeps it: (out, in), rotary pairs as llama.cpp wants them."""
    if name.endswith(TRANSPOSED):
        return tensor.t()
    heads = _turned(name, config) if architecture_of(config) == "llama" else 0
    return permute(tensor, heads) if heads else tensor


def from_gguf(name: str, tensor: Tensor, config: ModelConfig, architecture: str) -> Tensor:
    """The same back: `name` is the Hugging Face name, `architecture` the file's own (a llama may have qkv biases)."""
    if name.endswith(TRANSPOSED):
        return tensor.t()
    heads = _turned(name, config) if architecture == "llama" else 0
    return halves(tensor, heads) if heads else tensor


def _turned(name: str, config: ModelConfig) -> int:
    """Heads of a query or key projection, else 0."""
    module = name.rpartition(".")[0]
    return config.heads if module.endswith(".q_proj") else config.kv_heads if module.endswith(".k_proj") else 0


def permute(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from halves to neighbours: the way back from `names.halves`.

    llama.cpp turns neighbours for its llama, halves for qwen2 and qwen3. `tensor` is (heads K, D), or (heads K,).

    >>> import torch
    >>> permute(torch.tensor([0, 1, 10, 11]), heads=1)
    tensor([ 0, 10,  1, 11])
    """
    half = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, half, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
