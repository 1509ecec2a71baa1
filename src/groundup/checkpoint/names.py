"""The same network under two sets of names: ours and those of Hugging Face `transformers`. Tensors in, tensors out;
settings in, config.json out; and back.

GPT-2, Llama, Qwen2 (a llama with qkv_bias) and Qwen3 are covered. What a file asks for and we cannot compute is
refused by name, never left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from groundup.errors import CheckpointError, ModelError, nearest
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "groundup_bigram": "GroundupBigram",  # ours alone: no other program has this type
}

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
        tensor = _of_shape(state[pair.ours], pair.ours, pair.shape)
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
    expected = list(pairs(config))
    given = _plain_names(tensors, {name for pair in expected for name in pair.theirs})
    _drop_what_repeats(given, config)
    _same_names(given, [name for pair in expected for name in pair.theirs], of="the file")
    result = {}
    for pair in expected:
        if len(pair.theirs) == 1:
            shape = pair.shape[::-1] if pair.transposed else pair.shape
            tensor = _of_shape(given[pair.theirs[0]], pair.theirs[0], shape)
            result[pair.ours] = tensor.t().contiguous() if pair.transposed else tensor
        else:
            shapes = [(rows, *pair.shape[1:]) for rows in _qkv_rows(config)]
            parts = [_of_shape(given[name], name, shape) for name, shape in zip(pair.theirs, shapes, strict=True)]
            result[pair.ours] = torch.cat(parts)
    return result


def _qkv_rows(config: Any) -> list[int]:
    keys = config.kv_heads * config.head_size
    return [config.heads * config.head_size, keys, keys]


def _absent_biases(config: ModelConfig | BigramConfig) -> list[str]:
    """The biases that their GPT-2 always has and this network does not."""
    if config.family != "gpt2" or not isinstance(config, ModelConfig) or config.qkv_bias:
        return []
    return [f"transformer.h.{layer}.attn.c_attn.bias" for layer in range(config.layers)]


def _plain_names(tensors: Mapping[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """Names with the outer prefix, stored constants dropped."""
    prefixes = {name.split(".")[0] + "." for name in expected if name.startswith(("transformer.", "model."))}
    given = {}
    for name, tensor in tensors.items():
        if name.endswith(CONSTANTS):
            continue
        full = [name] + [prefix + name for prefix in prefixes if prefix + name in expected]
        given[full[-1]] = tensor
    return given


def _drop_what_repeats(given: dict[str, Tensor], config: ModelConfig | BigramConfig) -> None:
    """Remove tensors that say nothing new: a tied head stored twice, zero biases of a GPT-2 without qkv_bias."""
    if not isinstance(config, ModelConfig):
        return
    head = given.pop("lm_head.weight", None) if config.tie else None
    table = given.get("transformer.wte.weight", given.get("model.embed_tokens.weight"))
    if head is not None and table is not None and not torch.equal(head, table):
        raise CheckpointError(
            "lm_head.weight differs from the token table, but the config says they are tied",
            'set "tie_word_embeddings": false in config.json',
        )
    for name in _absent_biases(config):
        if given.pop(name, torch.zeros(1)).any():
            raise CheckpointError(
                f"{name} is not zero, but the config says qkv_bias is false", "set it to true in config.json"
            )


def _same_names(seen: Mapping[str, Tensor], expected: list[str], *, of: str) -> None:
    missing = [name for name in expected if name not in seen]
    extra = sorted(set(seen) - set(expected))
    problems = [f"{of} lacks {_listed(missing)}"] if missing else []
    problems += [f"{of} has unexpected {_listed(extra)}"] if extra else []
    if problems:
        raise CheckpointError("; ".join(problems), "use the weights and the config.json of the same model")


def _listed(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _of_shape(tensor: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"{name} has shape {tuple(tensor.shape)}, the config makes it {shape}",
            "use the weights and the config.json of the same model",
        )
    return tensor


class Field(NamedTuple):
    """One setting: its name here, in config.json ("groundup.x": inside the part only we read), its type, and what
    `transformers` takes when it is absent; without a default it must be there."""

    ours: str
    theirs: str
    kind: type
    default: Any = None


BIGRAM_FIELDS = (
    Field("vocabulary", "vocab_size", int),
    Field("context", "max_position_embeddings", int),
)
GPT2_FIELDS = (
    Field("vocabulary", "vocab_size", int),
    Field("context", "n_positions", int),
    Field("width", "n_embd", int),
    Field("layers", "n_layer", int),
    Field("heads", "n_head", int),
    Field("hidden", "n_inner", int, 0),
    Field("tie", "tie_word_embeddings", bool, True),
    Field("norm_eps", "layer_norm_epsilon", float, 1e-5),
    Field("dropout_embedding", "embd_pdrop", float, 0.1),
    Field("dropout_attention", "attn_pdrop", float, 0.1),
    Field("dropout_shortcut", "resid_pdrop", float, 0.1),
    Field("qkv_bias", "groundup.qkv_bias", bool, True),
    Field("init", "groundup.init", str, "gpt2"),
)
LLAMA_FIELDS = (
    *BIGRAM_FIELDS,
    Field("width", "hidden_size", int),
    Field("layers", "num_hidden_layers", int),
    Field("heads", "num_attention_heads", int),
    Field("kv_heads", "num_key_value_heads", int, 0),
    Field("head_size", "head_dim", int, 0),
    Field("hidden", "intermediate_size", int),
    Field("tie", "tie_word_embeddings", bool, False),
    Field("norm_eps", "rms_norm_eps", float, 1e-6),
    Field("rope_base", "rope_theta", float, 10_000.0),
    Field("dropout_embedding", "groundup.dropout_embedding", float, 0.0),
    Field("dropout_attention", "attention_dropout", float, 0.0),
    Field("dropout_shortcut", "groundup.dropout_shortcut", float, 0.0),
    Field("init", "groundup.init", str, "gpt2"),
)
FIELDS = {"groundup_bigram": BIGRAM_FIELDS, "gpt2": GPT2_FIELDS} | dict.fromkeys(
    ("llama", "qwen2", "qwen3"), LLAMA_FIELDS
)

# Fields that may be absent or have one of these values (the first is written); any other changes the arithmetic.
_ROTARY_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),  # theirs would add one after attention, too
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
}
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "add_cross_attention": (False, None),
    },
    "llama": _ROTARY_ONLY | {"sliding_window": (None,)},
    "qwen2": _ROTARY_ONLY,
    "qwen3": _ROTARY_ONLY,
    "groundup_bigram": {},
}


def hf_config(
    config: ModelConfig | BigramConfig,
    *,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """The content of config.json: what transformers 4 and 5 read, and under "groundup" the rest of ours.

    >>> hf_config(ModelConfig(family="gpt2", vocabulary=99, context=8, width=4, layers=1, heads=1), eos=98)["n_embd"]
    4
    """
    model_type = _model_type(config)
    result: dict[str, Any] = {"model_type": model_type, "architectures": [ARCHITECTURES[model_type]]}
    # An id left out would get their default, 50256 or 2, whatever the tokenizer: absent ids are written as null.
    result |= {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    result |= {"dtype": dtype, "torch_dtype": dtype}  # transformers 5, 4
    ours: dict[str, Any] = {}
    for field in FIELDS[model_type]:
        part, _, name = field.theirs.rpartition(".")
        (ours if part else result)[name] = getattr(config, field.ours)
    result |= {name: values[0] for name, values in FIXED[model_type].items() if values[0] is not None}
    if model_type == "gpt2":
        result |= {"n_ctx": config.context}  # what older readers call n_positions
    elif isinstance(config, ModelConfig):
        result["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_base}  # 5; 4: rope_theta
    return result | ({"groundup": ours} if ours else {})


def model_config(hf: Mapping[str, Any]) -> ModelConfig | BigramConfig:
    """The network that a config.json describes; fields it leaves out get the defaults of `transformers`.

    Raises CheckpointError naming the field and the value for what is missing, malformed or not supported: another
    model type, stretched rotary positions, sliding windows, experts, other activations, quantised weights.
    """
    model_type = hf.get("model_type")
    if not isinstance(model_type, str) or model_type not in FIELDS:
        raise CheckpointError(f"config.json: unsupported model_type {model_type!r}", nearest(str(model_type), FIELDS))
    for name, allowed in (FIXED[model_type] | {"quantization_config": (None,)}).items():
        if name in hf and hf[name] not in allowed:
            _refuse(name, hf[name])
    if model_type in ("llama", "qwen2", "qwen3"):
        hf = _plain_rope(hf)
    values = {field.ours: _read(hf, field) for field in FIELDS[model_type]}
    if model_type == "qwen3":
        values["head_size"] = values["head_size"] or 128  # their default, whatever the width
    try:
        if model_type == "groundup_bigram":
            return BigramConfig(**values)
        values.setdefault("qkv_bias", model_type == "qwen2")
        return ModelConfig(family="llama" if model_type == "qwen2" else model_type, **values)
    except ModelError as error:
        raise CheckpointError(f"config.json describes no network we can build: {error.what}", error.fix) from None


def _model_type(config: ModelConfig | BigramConfig) -> str:
    if isinstance(config, BigramConfig):
        return "groundup_bigram"
    return "qwen2" if config.family == "llama" and config.qkv_bias else config.family


def _plain_rope(hf: Mapping[str, Any]) -> Mapping[str, Any]:
    """Move the rotary base to where transformers 4 keeps it, and refuse everything that is not plain RoPE."""
    base: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        part = hf.get(name) or {}
        if not isinstance(part, Mapping) or any(isinstance(value, Mapping) for value in part.values()):
            _refuse(name, part)
        if part.get("rope_type", part.get("type", "default")) != "default" or part.get("partial_rotary_factor", 1) != 1:
            _refuse(name, part)
        base |= {"rope_theta": part["rope_theta"]} if "rope_theta" in part else {}
    kinds = hf.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        _refuse("layer_types", kinds)
    return dict(hf) | base


def _read(hf: Mapping[str, Any], field: Field) -> Any:
    """A field of the wanted type; absent or null, its default. A whole number may stand for a float."""
    part, _, name = field.theirs.rpartition(".")
    place = (hf.get(part) or {}) if part else hf
    if not isinstance(place, Mapping):
        _refuse(part, place)
    value = place.get(name)
    if value is None and field.default is None:
        raise CheckpointError(f"config.json has no {name}", "use a complete config.json")
    if value is None:
        return field.default
    fits = isinstance(value, int | float) if field.kind is float else isinstance(value, field.kind)
    if not fits or (isinstance(value, bool) and field.kind is not bool):
        raise CheckpointError(f"config.json: {field.theirs} is {value!r}", f"it must be of type {field.kind.__name__}")
    return field.kind(value)


def _refuse(name: str, value: Any) -> NoReturn:
    raise CheckpointError(
        f"config.json: {name} is {value!r}, which this program does not compute",
        "use a gpt2, llama, qwen2 or qwen3 model without it",
    )
