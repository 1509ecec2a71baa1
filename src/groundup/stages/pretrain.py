"""Pretraining: text -> tokens -> windows -> next-token loss -> `fit`.

In: `settings.Pretrain`. Out: a run folder, and `Result`, its figures.
"""

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from groundup import journal, losses
from groundup.errors import TokenizerError
from groundup.evaluate import Score, each_token_once, evaluate
from groundup.generate.stream import generate_text, start_ids
from groundup.machine import Machine
from groundup.model.config import BigramConfig, ModelConfig, from_name
from groundup.settings import Pretrain
from groundup.stages import corpus
from groundup.stages import start as starts
from groundup.stages.corpus import Corpus
from groundup.stages.launch import describe, launch
from groundup.stages.start import Start
from groundup.stages.task import Task
from groundup.train import run as runs
from groundup.train.job import Fitted
from groundup.train.plan import Preflight


@dataclass(frozen=True)
class Result:
    """Figures of a run: losses in nats per token, bits per byte of text (None for words), seconds of training."""

    out: Path
    steps: int
    tokens: int
    parameters: int
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
    seconds: float
    tokens_per_second: float
    skipped: int


def pretrain(**settings: Any) -> Result:
    """Train from Python: the settings of `groundup pretrain` as keyword arguments.

    Raises SettingsError, DataError ... exactly where the command prints them.

    >>> pretrain(data=["the-verdict"], out="runs/verdict", steps=200).validation_loss  # doctest: +SKIP
    4.71
    """
    result = run(Pretrain.create(**settings))
    assert isinstance(result, Result)
    return result


def run(settings: Pretrain) -> Result | Preflight:
    """Train a model from text in `settings.out`; with `dry_run` only the preflight figures come back."""
    if settings.out is not None and not (settings.out / runs.SETTINGS).exists():
        starts.check(settings)
    checks, fitted = launch(settings, _prepare)
    return checks if fitted is None or settings.out is None else _result(settings.out, checks, fitted)


def _prepare(asked: Pretrain, out: Path, machine: Machine) -> Task:
    """The text as samples, and the network that is to learn from it; nothing in it trains."""
    origin = starts.from_model(asked, out)
    if origin:
        origin.seen(asked.context)  # too long a context is refused before any text is read
    text = corpus.read(asked, folder=out / "data", start=origin)
    if asked.from_model:
        asked = asked.replace(tokenizer=asked.from_model)
    start = origin or Start(model_config(asked, text.tokenizer.vocabulary))
    config = start.seen(asked.context)
    settings = asked.replace(sampling=corpus.sampling(asked, text, config.context))
    source = corpus.source(settings, text, config.context)
    filler = getattr(source, "filler", 0.0)
    return Task(
        settings=settings,
        config=config,
        network=partial(start.built, settings.seed),
        tokenizer=text.tokenizer,
        source=source,
        loss=losses.next_token,
        evaluate=_evaluator(settings, text, config.context, machine) if len(text.valid) > 1 else None,
        sample=partial(_sample, text=text, settings=settings),
        counts=(len(text.train), len(text.valid)),
        look=min(settings.eval_tokens, len(text.valid)),
        fingerprint=text.fingerprint,
        row=config.context * (1 - filler),
        filler=filler,
        compiles=settings.sampling != "packed",
        sources=text.sources,
        card=start.facts,
    )


def model_config(settings: Pretrain, vocabulary: int) -> ModelConfig | BigramConfig:
    """The network that the settings describe: a named size, with whatever was set beside it."""
    if settings.family == "bigram":
        return BigramConfig(vocabulary=vocabulary, context=settings.context or from_name(settings.size).context)
    fields = {field.name for field in dataclasses.fields(ModelConfig)} & set(Pretrain.model_fields)
    given = {name: getattr(settings, name) for name in fields - {"vocabulary"}}
    return from_name(settings.size, vocabulary=vocabulary, **given | starts.dropout(settings))


def _evaluator(settings: Pretrain, text: Corpus, context: int, machine: Machine) -> Callable[[nn.Module, int], Score]:
    """Score a model on the same validation tokens each time."""
    tokens, lengths = text.valid[: settings.eval_tokens + 1], text.tokenizer.byte_lengths()

    def score(model: nn.Module, rows: int) -> Score:
        batches = each_token_once(tokens, context=context, batch=rows)
        return evaluate(model, batches, machine=machine, byte_lengths=lengths)

    return score


def _sample(model: nn.Module, *, text: Corpus, settings: Pretrain) -> str:
    """A short text, always from the same seed: how the model speaks by now."""
    prompt = settings.sample_prompt or _opening(text)
    return prompt + generate_text(model, text.tokenizer, prompt, max_tokens=settings.sample_tokens, seed=settings.seed)


def _opening(text: Corpus) -> str:
    """An empty prompt, where the tokenizer knows how a text begins; else the first token of the training text."""
    try:
        start_ids(text.tokenizer)
    except TokenizerError:
        return text.tokenizer.decode(text.train[:1].tolist())
    return ""


def show(result: Result | Preflight) -> None:
    """Print the figures of a run, and what to do next."""
    if isinstance(result, Preflight):
        print(describe(result))
        return
    valid = "no validation text" if result.validation_loss is None else f"validation loss {result.validation_loss:.4f}"
    print(f"{valid} after {result.steps:,} steps, {result.tokens:,} tokens, {journal.clock(result.seconds)} "
          f"({result.tokens_per_second:,.0f} tokens/s)")  # fmt: skip
    print(f'next: groundup generate {shlex.quote(str(result.out))} --prompt "..."')


def _result(out: Path, checks: Preflight, fitted: Fitted) -> Result:
    return Result(out, fitted.steps, fitted.tokens, checks.parameters, fitted.train_loss, fitted.validation_loss,
                  fitted.best_loss, fitted.seconds, fitted.tokens_per_second, fitted.skipped)  # fmt: skip
