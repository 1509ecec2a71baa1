"""The same network in two descriptions: our `ModelConfig` and the config.json of Hugging Face. Settings in and out.

GPT-2, Llama (and Mistral without a window, which is one), Qwen2 (a llama with qkv_bias) and Qwen3 are covered. A field
that is known here to change the arithmetic is refused by name and value where it asks for what we do not compute, and
so is a network that is code of its own (auto_map). Other fields are passed over, as `transformers` passes them over.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from groundup.errors import CheckpointError, ModelError, nearest
from groundup.model.config import BigramConfig, ModelConfig, RopeScaling, count_parameters

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",  # read as llama, and written as one
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "groundup_bigram": "GroundupBigram",  # ours alone: no other program has this type
}


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
ROTARY = ("llama", "mistral", "qwen2", "qwen3")
FIELDS = {"groundup_bigram": BIGRAM_FIELDS, "gpt2": GPT2_FIELDS} | dict.fromkeys(ROTARY, LLAMA_FIELDS)
# Absent fields whose default in `transformers` belongs to the model type.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
}

# Fields that may be absent or have one of these values (the first is written); any other changes the arithmetic.
_ROTARY_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),  # theirs would add one after attention, too
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
}
# Names under which relatives switch biases and choose norms: only what the type has anyway goes through.
_BIASES = ("bias", "use_bias", "add_bias", "attn_bias", "qkv_bias", "add_qkv_bias", "use_qkv_bias", "ffn_bias")
_NORMS = ("norm_type", "layer_norm_type", "normalization")
_NO_BIAS: dict[str, tuple[Any, ...]] = dict.fromkeys(_BIASES, (None, False))
_RMS: dict[str, tuple[Any, ...]] = dict.fromkeys(_NORMS, (None, "rms", "rmsnorm", "rms_norm", "RMSNorm"))
_ROTARY_ONLY |= _NO_BIAS | _RMS
_AT_QKV: dict[str, tuple[Any, ...]] = dict.fromkeys(("qkv_bias", "add_qkv_bias", "use_qkv_bias"), (None, True))
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "add_cross_attention": (False, None),
        **dict.fromkeys(_BIASES, (None, True)),
        **dict.fromkeys(_NORMS, (None, "layernorm", "layer_norm", "LayerNorm")),
    },
    "llama": _ROTARY_ONLY | {"sliding_window": (None,)},
    "mistral": _ROTARY_ONLY,  # its window is compared with the context
    "qwen2": _ROTARY_ONLY | _AT_QKV,
    "qwen3": _ROTARY_ONLY,
    "groundup_bigram": {},
}
# The same for every type, and never written: what relatives of these models have added under names of their own.
FOREIGN: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "is_encoder_decoder": (False, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "no_rope_layers": (None, []),
    "alibi": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (1, None),
    "residual_multiplier": (1, None),
    "logits_scaling": (1, None),
    "logit_scale": (1, None),
    "clip_qkv": (None,),
    "qk_norm": (False, None),
    "use_qk_norm": (False, None),
    "attn_output_gate": (False, None),
    "n_routed_experts": (None, 0),
}
# Far above any model there is; what a damaged or hostile file says beyond it would be built before it is missed.
MOST_LAYERS, MOST_PARAMETERS = 2048, 2**50


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
        result |= _rope_fields(config)
    return result | ({"groundup": ours} if ours else {})


def model_config(hf: Mapping[str, Any]) -> ModelConfig | BigramConfig:
    """The network that a config.json describes; fields it leaves out get the defaults of `transformers`.

    Raises CheckpointError naming the field and the value for what is missing, malformed or not supported: another
    model type or task, rotary positions stretched in other ways than `RopeScaling` knows, sliding windows, experts,
    other activations, norms and biases, quantised weights, code of the model's own.
    """
    model_type = hf.get("model_type")
    if not isinstance(model_type, str) or model_type not in FIELDS:
        shown = _short(model_type)
        raise CheckpointError(f"config.json: unsupported model_type {shown}", nearest(shown, FIELDS))
    hf = DEFAULTS.get(model_type, {}) | dict(hf)
    _check_task(hf.get("architectures"), model_type)
    _check_code(hf.get("auto_map"))
    for name, allowed in (FOREIGN | FIXED[model_type]).items():
        if name in hf and hf[name] not in allowed:
            _refuse(name, hf[name])
    values: dict[str, Any] = {}
    if model_type in ROTARY:
        _check_windows(hf)
        base, values["rope_scaling"] = _rope(hf)
        hf |= base
    values |= {field.ours: _read(hf, field) for field in FIELDS[model_type]}
    if model_type == "qwen3":
        values["head_size"] = values["head_size"] or 128  # their default, whatever the width
    return _built(model_type, values)


def _built(model_type: str, values: dict[str, Any]) -> ModelConfig | BigramConfig:
    """The settings as an object, of a size that a computer can hold."""
    try:
        if model_type == "groundup_bigram":
            config: ModelConfig | BigramConfig = BigramConfig(**values)
        else:
            values.setdefault("qkv_bias", model_type == "qwen2")
            family = "llama" if model_type in ("mistral", "qwen2") else model_type
            config = ModelConfig(family=family, **values)
    except ModelError as error:
        raise CheckpointError(f"config.json describes no network we can build: {error.what}", error.fix) from None
    if config.layers > MOST_LAYERS:
        raise CheckpointError(
            f"config.json asks for {config.layers:,} layers, more than {MOST_LAYERS:,}", "use a complete config.json"
        )
    if (total := count_parameters(config).total) > MOST_PARAMETERS:
        raise CheckpointError(f"config.json describes {total:,} parameters", "use a complete config.json")
    return config


def _model_type(config: ModelConfig | BigramConfig) -> str:
    if isinstance(config, BigramConfig):
        return "groundup_bigram"
    return "qwen2" if config.family == "llama" and config.qkv_bias else config.family


def _check_task(architectures: Any, model_type: str) -> None:
    """The weights must be those of a language model; a classifier's would be missed one by one, less plainly."""
    expected = ARCHITECTURES[model_type]
    if architectures not in (None, [], [expected]):
        raise CheckpointError(
            f"config.json: architectures is {_short(architectures)}, which is not [{expected!r}]",
            "use a model that continues text: classifiers and embedders of this type are not built here",
        )


def _check_code(auto_map: Any) -> None:
    """A network that is Python code beside the weights: `transformers` would run it, whatever the model type is."""
    if auto_map is None or (isinstance(auto_map, Mapping) and "AutoModelForCausalLM" not in auto_map):
        return
    raise CheckpointError(
        f"config.json: auto_map is {_short(auto_map)}: the network is code of its own, which is not run here",
        "use a gpt2, llama, mistral, qwen2 or qwen3 model without it",
    )


def _check_windows(hf: Mapping[str, Any]) -> None:
    """A window that is never shorter than the text changes nothing; any other is not computed here."""
    kinds = hf.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        _refuse("layer_types", kinds)
    window, context = hf.get("sliding_window"), hf.get("max_position_embeddings")
    if hf["model_type"] != "mistral" or window is None:
        return
    whole = type(window) is int and type(context) is int and window >= context
    if not whole:
        _refuse("sliding_window", window, f" for a context of {_short(context)}")


def _rope(hf: Mapping[str, Any]) -> tuple[dict[str, Any], RopeScaling | None]:
    """The rotary base, under the name of transformers 4, and how the positions are stretched.

    transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters` for both.
    """
    base: dict[str, Any] = {}
    found: list[RopeScaling | None] = []
    for name in ("rope_parameters", "rope_scaling"):  # where both name a base, theirs prefers the second, too
        part = hf.get(name) or {}
        if not isinstance(part, Mapping) or any(isinstance(value, Mapping) for value in part.values()):
            _refuse(name, part)
        if part.get("partial_rotary_factor", 1) not in (1, None):
            _refuse(name, part)
        base |= {"rope_theta": part["rope_theta"]} if "rope_theta" in part else {}
        if part:
            found.append(_scaling(name, part, hf))
    if len(found) == 2 and found[0] != found[1]:
        _refuse("rope_scaling", hf["rope_scaling"], f" beside rope_parameters {_short(hf['rope_parameters'])}")
    return base, found[-1] if found else None


def _scaling(name: str, part: Mapping[str, Any], hf: Mapping[str, Any]) -> RopeScaling | None:
    kind = part.get("rope_type", part.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        _refuse(name, part)
    factor = Field("factor", f"{name}.factor", float)
    try:
        if kind == "linear":
            return RopeScaling("linear", _read(hf, factor))
        return RopeScaling(
            "llama3",
            _read(hf, factor),
            low=_read(hf, Field("low", f"{name}.low_freq_factor", float)),
            high=_read(hf, Field("high", f"{name}.high_freq_factor", float)),
            original_context=_read(hf, Field("", f"{name}.original_max_position_embeddings", int, 0))
            or _read(hf, Field("context", "max_position_embeddings", int)),
        )
    except ModelError as error:
        raise CheckpointError(f"config.json: {error.what}", error.fix) from None


def _rope_fields(config: ModelConfig) -> dict[str, Any]:
    """Rotary positions in both spellings: transformers 5 reads `rope_parameters`, 4 `rope_theta` and `rope_scaling`."""
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base}}
    part: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        part |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
        part |= {"original_max_position_embeddings": scaling.original_context}
    return {"rope_parameters": part | {"rope_theta": config.rope_base}, "rope_scaling": part}


def _read(hf: Mapping[str, Any], field: Field) -> Any:
    """A field of the wanted type; absent or null, its default. A whole number may stand for a float."""
    part, _, name = field.theirs.rpartition(".")
    place = (hf.get(part) or {}) if part else hf
    if not isinstance(place, Mapping):
        _refuse(part, place)
    value = place.get(name)
    if value is None and field.default is None:
        raise CheckpointError(f"config.json has no {field.theirs}", "use a complete config.json")
    if value is None:
        return field.default
    fits = isinstance(value, int | float) if field.kind is float else isinstance(value, field.kind)
    if not fits or (isinstance(value, bool) and field.kind is not bool):
        raise CheckpointError(
            f"config.json: {field.theirs} is {_short(value)}", f"it must be of type {field.kind.__name__}"
        )
    if field.kind in (int, float) and not abs(value) < 2**53:  # NaN and infinity too
        raise CheckpointError(f"config.json: {field.theirs} is {_short(value)}", "use a complete config.json")
    return field.kind(value)


def _refuse(name: str, value: Any, beside: str = "") -> NoReturn:
    raise CheckpointError(
        f"config.json: {name} is {_short(value)}{beside}, which this program does not compute",
        "use a gpt2, llama, mistral, qwen2 or qwen3 model without it",
    )


def printable(text: str, most: int = 200) -> str:
    """The first characters of a text from a file, without those that could steer the terminal it is shown on.

    >>> printable("MIT\\x1b]0;owned\\x07 licence")
    'MIT]0;owned licence'
    """
    return "".join(itertools.islice(filter(str.isprintable, text), most))


def _short(value: Any) -> str:
    """A value as it is shown in a message: a hostile one may be a million characters long."""
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
