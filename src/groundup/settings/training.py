"""Settings of training.

In: flags, TOML. Out: `Training`, what every run shares; `Pretrain`, what was asked for; `Decided`, nothing left open.
"""

import sys
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from groundup.settings.base import Device, Dtype, Family, Positive, Settings, Span, knob
from groundup.settings.data import TokenizeSettings

GENTLY = 0.1  # share of a new network's rate with which one that has learnt goes on: more would undo what it knows


class Training(Settings):
    """What every run that trains shares: where it goes, batches, budget, optimizer, watching, machine."""

    may_change_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"steps", "tokens", "epochs", "resume", "dry_run", "save_every", "async_save", "keep", "log_every"}
        | {"eval_every", "sample_every", "tracker"}
        | {"micro_batch", "recompute"}  # what a run that ran out of memory must be able to lower
    )

    command: ClassVar[str] = ""  # of groundup
    budgets: ClassVar[tuple[str, ...]] = ("steps", "epochs", "minutes")  # of which one may be given
    alike: ClassVar[bool] = True  # every batch has the same shape
    usual_epochs: ClassVar[float | None] = None  # where there is no budget; None: 1,000 steps

    out: Path | None = knob(None, "run folder", group="Output")
    resume: bool = knob(False, "go on with the run in --out (from step 0 if it has no checkpoint yet)", group="Output")
    dry_run: bool = knob(False, "print parameters, tokens, memory and time, then stop", group="Output")

    context: Positive | None = knob(None, "context length in tokens", group="Model")
    dropout: float = knob(0.0, "dropout everywhere, unless set per place", group="Model", ge=0, lt=1)
    dropout_embedding: float | None = knob(None, "dropout after the embeddings", group="Model", ge=0, lt=1)
    dropout_attention: float | None = knob(None, "dropout on attention weights", group="Model", ge=0, lt=1)
    dropout_shortcut: float | None = knob(None, "dropout before each shortcut is added", group="Model", ge=0, lt=1)

    batch: Positive = knob(32, "sequences per step, over all ranks", group="Batches")
    micro_batch: Positive | None = knob(
        None, "sequences per forward pass; smaller saves memory, the result is the same", group="Batches"
    )
    recompute: bool = knob(
        False, "activation checkpointing: saves memory, each step takes about a third longer", group="Batches"
    )
    seed: int = knob(1337, "seed of weights, order, dropout and samples", group="Batches", ge=0, lt=2**63)

    steps: Positive | None = knob(
        None, "optimizer steps; without a budget 1,000, or the usual epochs of a stage", group="Training"
    )
    epochs: float | None = knob(None, "or: passes over the training text", group="Training", gt=0)
    minutes: float | None = knob(
        None, "or: minutes of the whole command; a short probe turns them into steps, once", group="Training", gt=0
    )
    optimizer: Literal["adamw", "muon"] = knob(
        "adamw", "muon: orthogonal steps for the matrices inside the blocks, AdamW for the rest", group="Training"
    )
    lr: float | None = knob(
        None, "peak learning rate; by default from the width, less for a model that has learnt", group="Training", gt=0
    )
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
    sample_every: int | None = knob(
        None, "steps between samples, 0 = none; by default with each evaluation", group="Watching", ge=0
    )
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

    @property
    def share_of_rate(self) -> float:
        """Share of a new network's learning rate that is the default."""
        return 1.0

    @abstractmethod
    def settle(self, **decided: Any) -> "Settled":
        """The same settings with nothing left open."""


class Settled(Training):
    """Training with nothing left open: what a run does, and what a resumed run goes on doing."""

    out: Path
    context: Positive
    micro_batch: Positive
    steps: Positive
    lr: float
    warmup: int
    eval_every: Positive
    sample_every: int
    log_every: Positive


class Pretrain(Training, TokenizeSettings):
    """Train a model from text: tokenize, train, evaluate, save."""

    may_change_on_resume: ClassVar[frozenset[str]] = Training.may_change_on_resume | {
        *("eval_tokens", "sample_prompt", "sample_tokens", "workers")
    }
    command: ClassVar[str] = "pretrain"
    budgets: ClassVar[tuple[str, ...]] = ("steps", "tokens", "epochs", "minutes")
    fixed_by_from: ClassVar[tuple[str, ...]] = (
        *("size", "family", "width", "layers", "heads", "kv_heads", "head_size", "hidden"),
        *("qkv_bias", "tie", "init", "vocabulary"),
    )

    @classmethod
    def without_conflicts(cls, file: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
        """Leave out what a settings file says of network and tokenizer where `--from` brings both, and say so once."""
        given_up = [name for name in (*cls.fixed_by_from, "tokenizer") if name in file]
        if not flags.get("from_model") or not given_up:
            return file
        print(f"--from brings network and tokenizer: of --config not used: {', '.join(given_up)}", file=sys.stderr)
        return {name: value for name, value in file.items() if name not in given_up}

    from_model: str | None = knob(
        None,
        "go on from this model, keeping its network and tokenizer: run, model folder, .gguf ... or name "
        "(`groundup models`)",
        group="Model",
    )
    add_tokens: list[str] = knob(
        [], "with --from: special tokens to add to its tokenizer, separated by spaces", group="Model"
    )
    size: str = knob("1m", "named size: 1m 3m 10m 30m gpt2 gpt2-medium ... (`groundup info --sizes`)", group="Model")
    family: Family | None = knob(None, "gpt2, llama, qwen3 or bigram; by default what the size says", group="Model")
    context: Positive | None = knob(
        None, "context length in tokens; with --from the model's own, but at most 1,024 unless given", group="Model"
    )
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

    tokens: Positive | None = knob(None, "or: training tokens to see", group="Training")
    eval_tokens: Positive = knob(200_000, "validation tokens per evaluation, always the same ones", group="Watching")
    sample_prompt: str = knob("", "prompt of the samples; empty starts from end-of-text", group="Watching")
    sample_tokens: Positive = knob(60, "length of the samples", group="Watching")

    @property
    def share_of_rate(self) -> float:
        """Share of a new network's learning rate that is the default: little for one that has learnt."""
        return GENTLY if self.from_model else 1.0

    def settle(self, **decided: Any) -> "Decided":
        """The same settings with nothing left open."""
        return Decided.create(**self.model_dump() | decided)


class Decided(Settled, Pretrain):
    """Pretraining with nothing left open."""

    context: Positive
    sampling: Literal["windows", "documents", "packed", "random"]
