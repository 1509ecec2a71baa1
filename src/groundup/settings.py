"""Every knob, in the order the data flows: one flat, frozen settings class per command.

In: keyword arguments, a TOML file, command-line flags. Out: a validated object that the command's `run` takes.
A default is written here once; flags, `--help`, the reference pages and `settings.toml` are derived from it.
Order: defaults < TOML file < flags. An unknown name is answered with the nearest one.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from groundup.errors import SettingsError, nearest


def knob(
    default: Any, text: str, *, group: str = "", positional: bool = False, stdin: bool = False, **bounds: Any
) -> Any:
    """One setting: its default, its help text, the `--help` group it stands in, and bounds such as `gt=0`.

    `positional`: may be given without its flag. `stdin`: may be `-`, which reads standard input.
    """
    extra: dict[str, Any] = {"group": group, "positional": positional, "stdin": stdin}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


Positive = Annotated[int, Field(gt=0)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]
Family = Literal["gpt2", "llama", "qwen3", "bigram"]
Span = Annotated[str, Field(pattern=r"^\d+(\.\d+)?[smh]?$")]  # "500" steps, "90s", "2m", "1.5h"


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names, every value checked.

    >>> Generate.create(model="runs/a", temperature=0.5).temperature
    0.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    @classmethod
    def create(cls, *, config: Path | None = None, **flags: Any) -> Self:
        """Build from defaults < TOML file `config` < `flags`; raises SettingsError naming the setting and the value."""
        values = read_toml(config) if config else {}
        for name in [*values, *flags]:
            if name not in cls.model_fields:
                where = f" in {config}" if name in values else ""
                raise SettingsError(f"unknown setting '{name}'{where}", nearest(name, cls.model_fields))
        try:
            return cls(**{**values, **flags})
        except ValidationError as error:
            raise SettingsError(*_explain(error, cls.model_fields)) from None

    def to_toml(self) -> str:
        """The settings as TOML, in declaration order; a setting that is None is left out."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked again."""
        return type(self).create(**{**self.model_dump(), **changes})


def read_toml(path: Path) -> dict[str, Any]:
    """Read a settings file; raises SettingsError with file, line and column where it is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"no settings file at {path}", "check the path after --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the settings file {path}: {error}", "give a readable UTF-8 TOML file"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", "write one `name = value` per line") from None


def _explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> tuple[str, str]:
    """Turn the first complaint of pydantic into (what happened, what to do)."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    value, message = first.get("input"), first["msg"].removeprefix("Value error, ")
    if not name or first["type"] == "value_error":
        return message, "see --help"
    field = fields[name]
    choices = _choices(field.annotation) if first["type"] == "literal_error" else []
    if first["type"] == "string_pattern_mismatch":
        return f"'{name}' cannot be {value!r}", str(field.description)
    fix = nearest(str(value), choices) if choices else f"{message[0].lower()}{message[1:]}"
    return f"'{name}' cannot be {value!r}", f"{fix} ({field.description})" if not choices else fix


def _choices(annotation: Any) -> list[str]:
    """The words a Literal allows, also inside `Literal[...] | None`."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]


def positional(cls: type[Settings]) -> list[str]:
    """Names of the settings that may be given without a flag."""
    return [name for name, field in cls.model_fields.items() if extra(field).get("positional")]


def groups(cls: type[Settings]) -> list[str]:
    """The `--help` groups of a settings class, in flow order."""
    return list(dict.fromkeys(extra(field).get("group", "") for field in cls.model_fields.values()))


def extra(field: FieldInfo) -> dict[str, Any]:
    """What `knob` noted about a setting: `group`, `positional`, `stdin`."""
    noted = field.json_schema_extra
    return dict(noted) if isinstance(noted, dict) else {}


class TextSettings(Settings):
    """What every command that reads text shares."""

    data: list[str] = knob(
        [],
        "files, folders, globs, catalog names (tinyshakespeare, harbor, gutenberg ...), or gutenberg:FOLDER",
        group="Text",
    )
    field: str = knob(
        "text", "which field of .jsonl and .csv rows, or column of .parquet, holds the text", group="Text"
    )


class TokenizeSettings(TextSettings):
    """Text, and how it becomes ids."""

    tokenizer: str = knob(
        "bpe",
        "chars, words, words-strict, bpe (learnt from the data), gpt2, or a tokenizer.json or model folder",
        group="Tokens",
    )
    vocabulary: Positive | None = knob(
        None, "ids to learn for bpe; by default from the size of the text", group="Tokens"
    )
    validation: float = knob(0.1, "share of the text kept for validation", group="Tokens", ge=0, lt=1)
    split: Literal["auto", "fraction", "document"] = knob(
        "auto",
        "validation = the last part of the text, or whole documents; auto: documents when there are many",
        group="Tokens",
    )
    workers: Positive | None = knob(
        None, "processes that encode; by default one per core (at most 4), and one for a small text", group="Tokens"
    )


class Prepare(TokenizeSettings):
    """Turn text into memory-mapped token shards."""

    out: Path | None = knob(None, "folder for the shards", group="Output")


class TokenizerTrain(TextSettings):
    """Learn a tokenizer from text."""

    kind: Literal["chars", "words", "words-strict", "bpe"] = knob("bpe", "what the tokens are", group="Tokens")
    vocabulary: Positive | None = knob(
        None, "ids to learn for bpe; by default from the size of the text", group="Tokens"
    )
    special: list[str] = knob(["<|endoftext|>"], "special tokens to add", group="Tokens")
    out: Path | None = knob(None, "folder for tokenizer.json", group="Output")


class TokenizerShow(Settings):
    """Colour the pieces a tokenizer cuts a text into, and count bytes per token."""

    tokenizer: str = knob("gpt2", "gpt2, a tokenizer.json, or a model or run folder", positional=True)
    text: str | None = knob(None, "the text; - reads standard input", stdin=True)
    file: Path | None = knob(None, "a UTF-8 file instead of --text; - reads standard input", stdin=True)
    limit: Positive = knob(2000, "show at most this many tokens")


class TokenizerEncode(Settings):
    """Text to ids."""

    tokenizer: str = knob("gpt2", "gpt2, a tokenizer.json, or a model or run folder", positional=True)
    text: str | None = knob(None, "the text; - reads standard input", stdin=True)
    file: Path | None = knob(None, "a UTF-8 file instead of --text; - reads standard input", stdin=True)
    special: bool = knob(False, "let special tokens written in the text become ids")


class TokenizerDecode(Settings):
    """Ids to text."""

    tokenizer: str = knob("gpt2", "gpt2, a tokenizer.json, or a model or run folder", positional=True)
    ids: list[int] = knob([], "the ids, separated by spaces")
    file: Path | None = knob(
        None, "a file of ids separated by white space, or a JSON list, instead of --ids", stdin=True
    )


class Pretrain(TokenizeSettings):
    """Train a model from text: tokenize, train, evaluate, save."""

    may_change_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"steps", "tokens", "epochs", "minutes", "resume", "dry_run", "save_every", "async_save", "keep", "log_every"}
        | {"eval_every", "eval_tokens", "sample_every", "sample_prompt", "sample_tokens", "tracker", "workers"}
        | {"micro_batch", "recompute"}  # what a run that ran out of memory must be able to lower
    )

    out: Path | None = knob(None, "run folder", group="Output")
    resume: bool = knob(False, "go on with the run in --out (from step 0 if it has no checkpoint yet)", group="Output")
    dry_run: bool = knob(False, "print parameters, tokens, memory and time, then stop", group="Output")

    size: str = knob("1m", "named size: 1m 3m 10m 30m gpt2 gpt2-medium ... (`groundup info --sizes`)", group="Model")
    family: Family | None = knob(None, "gpt2, llama, qwen3 or bigram; by default what the size says", group="Model")
    context: Positive | None = knob(None, "context length in tokens", group="Model")
    width: Positive | None = knob(None, "width of the residual stream", group="Model")
    layers: Positive | None = knob(None, "transformer blocks", group="Model")
    heads: Positive | None = knob(None, "attention heads", group="Model")
    kv_heads: Positive | None = knob(None, "key/value heads (grouped-query attention)", group="Model")
    head_size: Positive | None = knob(None, "size of one head; by default width / heads", group="Model")
    hidden: Positive | None = knob(None, "width inside the feed-forward part", group="Model")
    qkv_bias: bool | None = knob(None, "bias in query, key and value (gpt2, llama)", group="Model")
    tie: bool | None = knob(None, "share the token table with the output head", group="Model")
    init: Literal["gpt2", "torch"] | None = knob(
        None, "initial weights: GPT-2's, or torch's defaults as in the book", group="Model"
    )
    dropout: float = knob(0.0, "dropout everywhere, unless set per place", group="Model", ge=0, lt=1)
    dropout_embedding: float | None = knob(None, "dropout after the embeddings", group="Model", ge=0, lt=1)
    dropout_attention: float | None = knob(None, "dropout on attention weights", group="Model", ge=0, lt=1)
    dropout_shortcut: float | None = knob(None, "dropout before each shortcut is added", group="Model", ge=0, lt=1)

    sampling: Literal["auto", "windows", "documents", "packed", "random"] = knob(
        "auto",
        "windows: every window once an epoch, shuffled; documents: the same, windows begin where documents begin; "
        "packed: whole documents side by side, each sees only itself; random: offsets drawn anew for each sample; "
        "auto: documents where most are shorter than the context, else windows",
        group="Batches",
    )
    stride: Positive | None = knob(
        None, "distance between windows; by default the context (no overlap)", group="Batches"
    )
    batch: Positive = knob(32, "sequences per step, over all ranks", group="Batches")
    micro_batch: Positive | None = knob(
        None, "sequences per forward pass; smaller saves memory, the result is the same", group="Batches"
    )
    recompute: bool = knob(
        False, "activation checkpointing: saves memory, each step takes about a third longer", group="Batches"
    )
    seed: int = knob(1337, "seed of weights, order, dropout and samples", group="Batches", ge=0, lt=2**63)

    steps: Positive | None = knob(None, "optimizer steps (1000 if no budget is given)", group="Training")
    tokens: Positive | None = knob(None, "or: training tokens to see", group="Training")
    epochs: float | None = knob(None, "or: passes over the training text", group="Training", gt=0)
    minutes: float | None = knob(
        None, "or: minutes of the whole command; a short probe turns them into steps, once", group="Training", gt=0
    )
    optimizer: Literal["adamw", "muon"] = knob(
        "adamw", "muon: orthogonal steps for the matrices inside the blocks, AdamW for the rest", group="Training"
    )
    lr: float | None = knob(None, "peak learning rate; by default from the width", group="Training", gt=0)
    schedule: Literal["cosine", "wsd"] = knob(
        "cosine", "after the warmup: half a cosine, or stable and a straight line down at the end", group="Training"
    )
    decay: float = knob(0.2, "share of the steps in which wsd falls", group="Training", gt=0, le=1)
    min_lr: float = knob(0.1, "final learning rate as a share of the peak", group="Training", ge=0, le=1)
    warmup: int | None = knob(None, "warmup steps; by default 5 % of the steps, at most 200", group="Training", ge=0)
    weight_decay: float = knob(0.1, "AdamW weight decay, on matrices only", group="Training", ge=0)
    beta1: float = knob(0.9, "AdamW beta 1", group="Training", ge=0, lt=1)
    beta2: float = knob(0.95, "AdamW beta 2", group="Training", ge=0, lt=1)
    clip: float = knob(1.0, "clip the gradient to this norm; 0 turns it off", group="Training", ge=0)

    eval_every: Positive | None = knob(
        None, "steps between evaluations; by default a tenth of the run", group="Watching"
    )
    eval_tokens: Positive = knob(200_000, "validation tokens per evaluation, always the same ones", group="Watching")
    sample_every: int | None = knob(
        None, "steps between samples, 0 = none; by default with each evaluation", group="Watching", ge=0
    )
    sample_prompt: str = knob("", "prompt of the samples; empty starts from end-of-text", group="Watching")
    sample_tokens: Positive = knob(60, "length of the samples", group="Watching")
    log_every: Positive | None = knob(
        None, "steps between lines of metrics.jsonl; by default 1 in short runs, else 10", group="Watching"
    )
    save_every: Span = knob(
        "2m", "checkpoint every so many steps ('500') or so much time ('90s', '2m', '1h')", group="Watching"
    )
    async_save: bool = knob(True, "go on training while a checkpoint is written", group="Watching")
    keep: Positive = knob(1, "checkpoints kept for --resume", group="Watching")
    tracker: Literal["tensorboard", "wandb", "trackio"] | None = knob(
        None, "send the numbers of metrics.jsonl there, too", group="Watching"
    )

    device: Device = knob("auto", "where to compute", group="Machine")
    dtype: Dtype = knob(
        "auto",
        "bf16 where the hardware has it, fp16 with loss scaling on older CUDA, else fp32; weights stay fp32",
        group="Machine",
    )
    compile: Literal["auto", "on", "off"] = knob(
        "auto", "torch.compile, about a minute at the start; auto: where the run then ends earlier", group="Machine"
    )
    threads: Positive | None = knob(None, "CPU threads; by default all cores", group="Machine")


class Decided(Pretrain):
    """Pretraining with nothing left open: what a run does, and what a resumed run goes on doing."""

    out: Path
    context: Positive
    sampling: Literal["windows", "documents", "packed", "random"]
    micro_batch: Positive
    steps: Positive
    lr: float
    warmup: int
    eval_every: Positive
    sample_every: int
    log_every: Positive


class Generate(Settings):
    """Continue a prompt."""

    model: str = knob("", "run folder, RUN/best, or model folder", positional=True)
    prompt: str | None = knob(
        None, "the text to continue; - reads standard input; empty starts a new document", stdin=True
    )
    prompts: Path | None = knob(None, "a file with one prompt per line; - reads standard input", stdin=True)
    max_tokens: Positive = knob(200, "new tokens at most")
    temperature: float = knob(0.8, "0 is greedy; below 1 safer, above 1 wilder", ge=0)
    top_k: int = knob(0, "keep only the k most likely tokens; 0 keeps all", ge=0)
    top_p: float = knob(1.0, "keep the smallest set of tokens with this probability", gt=0, le=1)
    repetition_penalty: float = knob(1.0, "divide the score of tokens already seen; 1 is off", gt=0)
    stop: list[str] = knob([], "stop before any of these texts")
    seed: int | None = knob(None, "same seed, same text", ge=0, lt=2**63)
    samples: Positive = knob(1, "continuations per prompt")
    cache: bool = knob(True, "keep keys and values between tokens")
    device: Device = knob("auto", "where to compute")
    dtype: Literal["auto", "fp32", "bf16", "int8"] = knob(
        "auto",
        "auto: as stored in the folder; int8 (rounded weights) is fastest on a CPU, then bf16 if the CPU has it, fp32",
    )
    compile: Literal["auto", "on", "off"] = knob(
        "auto", "compile the step of one token, about half a minute; auto: on CUDA for texts of 4,000 tokens and more"
    )
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Evaluate(TextSettings):
    """Loss, perplexity and bits per byte of a model on a text."""

    model: str = knob("", "run folder, RUN/best, or model folder", positional=True)
    context: Positive | None = knob(None, "window length; by default the model's context")
    stride: Positive | None = knob(None, "distance between windows; by default the context (no overlap)")
    batch: Positive = knob(16, "windows per forward pass")
    max_tokens: Positive | None = knob(None, "stop after so many tokens")
    device: Device = knob("auto", "where to compute")
    dtype: Dtype = knob("auto", "bf16 where the hardware has it, else fp32")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Info(Settings):
    """Versions, devices, a truth check of each device; with a folder, what it holds."""

    folder: Path | None = knob(None, "a run, model, tokenizer or shards folder", positional=True)
    sizes: bool = knob(False, "list the named model sizes")
    data: bool = knob(False, "list the catalog of public texts")


class Report(Settings):
    """Show what a training run did: one HTML page with curves, samples, settings, and what it all means."""

    runs: list[str] = knob([], "run folders; several are laid side by side", positional=True)
    out: Path | None = knob(None, "the page; by default RUN/report.html, or comparison.html here for several runs")
    open: bool = knob(False, "show the page in the browser")


class Demo(Settings):
    """Train a small model on the built-in harbor world and let it tell a story."""

    out: Path = knob(Path("runs/demo"), "run folder; an earlier demo there is replaced")
    seed: int = knob(1337, "seed of stories, weights and order", ge=0, lt=2**63)
    stories: Positive = knob(100, "generated stories to check")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")
