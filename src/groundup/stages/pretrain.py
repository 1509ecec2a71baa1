"""Pretraining: text -> tokens -> windows -> next-token loss -> `fit`.

In: `settings.Pretrain`. Out: a run folder, and `Result`, its figures.
"""

import dataclasses
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from groundup import journal, losses
from groundup import machine as machines
from groundup import model as models
from groundup.batches import Loader
from groundup.batches.windows import Source
from groundup.errors import SettingsError, TokenizerError, UserError
from groundup.evaluate import Score, each_token_once, evaluate
from groundup.generate.stream import generate_text, start_ids
from groundup.lock import locked
from groundup.machine import Machine
from groundup.model.config import BigramConfig, ModelConfig, from_name
from groundup.settings import Decided, Pretrain
from groundup.stages import corpus
from groundup.stages import setup as setups
from groundup.stages import start as starts
from groundup.stages.corpus import Corpus
from groundup.stages.setup import Setup
from groundup.stages.start import Start
from groundup.train import plan as plans
from groundup.train import run as runs
from groundup.train import trackers
from groundup.train.fit import fit
from groundup.train.job import Fitted, Job
from groundup.train.plan import Plan, Preflight
from groundup.train.saver import room_for


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
    if settings.out is None:
        raise SettingsError("no run folder was given", "add --out runs/NAME")
    fresh = not (settings.out / runs.SETTINGS).exists()
    if fresh:
        starts.check(settings)
        if settings.dry_run:
            return _dry_run(settings)
    with room_for(settings.out), locked(settings.out, doing="groundup pretrain"), machines.kept_memory():
        asked, planned = runs.open_run(settings.out, settings)
        try:
            job, checks, decided = _ready(asked, settings.out, planned)
        except UserError:
            if fresh:  # nothing but our own preparations: a corrected command must find its folder free
                runs.empty(settings.out)
            raise
        if settings.dry_run:
            return checks
        runs.write_settings(decided.out, decided)
        print(describe(checks), file=sys.stderr)
        return _result(decided.out, checks, fit(job))


def _ready(asked: Pretrain, out: Path, planned: int) -> tuple[Job, Preflight, Decided]:
    """Everything up to the first step: text, machine, decisions, model; nothing in it trains."""
    started = time.monotonic()
    trackers.check(asked.tracker)
    plans.check_budget(asked)
    origin = starts.from_model(asked, out)
    if origin:
        origin.seen(asked.context)  # too long a context is refused before any text is read
    text = corpus.read(asked, folder=out / "data", start=origin)
    if asked.from_model:
        asked = asked.replace(tokenizer=asked.from_model)
    machine = machines.choose(device=asked.device, dtype=asked.dtype, threads=asked.threads)
    start = origin or Start(model_config(asked, text.tokenizer.vocabulary))
    context = start.seen(asked.context).context
    asked = asked.replace(sampling=corpus.sampling(asked, text, context))
    source = corpus.source(asked, text, context)
    setup = setups.build(asked, start, source, losses.next_token, machine=machine)
    decided = setups.decide(asked, setup, windows=len(source), valid=len(text.valid), machine=machine, started=started)
    if decided.steps < planned:
        raise SettingsError(
            f"the run is planned for {planned} steps, more than the {decided.steps} asked for",
            "a resumed run may only get more",
        )
    _tell_of_a_rise(decided, planned, windows=len(source))
    job, checks = _job(decided, text, source, setup, machine=machine)
    job.card |= start.facts
    return job, checks, decided


def _tell_of_a_rise(decided: Decided, planned: int, *, windows: int) -> None:
    """Say so where a run that goes on for longer than planned has a rate that had already fallen."""
    found = runs.checkpoints(decided.out)
    if not found or decided.steps == planned:
        return
    step = int(found[0].name.rpartition("-")[2])
    before, now = (
        plans.make(decided.replace(steps=end), windows=windows).schedule.lr(step) for end in (planned, decided.steps)
    )
    if now > 1.5 * before:
        print(
            f"rate      goes up again at step {step:,}, from {before:.2g} to {now:.2g}: it had fallen for an end at "
            f"step {planned:,}, and the loss will rise before it falls",
            file=sys.stderr,
        )


def _dry_run(settings: Pretrain) -> Preflight:
    """The preflight of a run that leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        _, checks, _ = _ready(settings.replace(out=Path(folder)), Path(folder), 0)
    return checks


def model_config(settings: Pretrain, vocabulary: int) -> ModelConfig | BigramConfig:
    """The network that the settings describe: a named size, with whatever was set beside it."""
    if settings.family == "bigram":
        return BigramConfig(vocabulary=vocabulary, context=settings.context or from_name(settings.size).context)
    fields = {field.name for field in dataclasses.fields(ModelConfig)} & set(Pretrain.model_fields)
    given = {name: getattr(settings, name) for name in fields - {"vocabulary"}}
    return from_name(settings.size, vocabulary=vocabulary, **given | starts.dropout(settings))


def _job(settings: Decided, text: Corpus, source: Source, setup: Setup, *, machine: Machine) -> tuple[Job, Preflight]:
    """Put together what `fit` is told, and what a person is told before."""
    filler = getattr(source, "filler", 0.0)
    plan = plans.make(settings, windows=len(source), filler=filler)
    counts = (len(text.train), len(text.valid))
    checks = plans.preflight(
        models.config_of(setup.model),
        plan,
        data=counts,
        memory=setup.memory,
        seconds=plan.steps * plan.accumulate * setup.micro,
        compiled=setup.forward is not setup.model,
    )
    checks = dataclasses.replace(checks, context=settings.context, sampling=settings.sampling, filler=filler)
    machines.seed_all(settings.seed)  # dropout; weights, order and samples have generators of their own
    job = Job(
        out=settings.out,
        model=setup.model,
        forward=setup.forward,
        tokenizer=text.tokenizer,
        optimizer=setup.optimizer,
        batches=Loader(source, batch=plan.micro_batch, seed=settings.seed, rank=machine.rank, world=machine.world),
        loss=losses.next_token,
        plan=plan,
        machine=machine,
        evaluate=_evaluator(settings, text, plan, machine) if len(text.valid) > 1 else None,
        sample=partial(_sample, text=text, settings=settings),
        card={
            "groundup": _version(),
            "sources": text.sources,
            "settings": settings.model_dump(mode="json", exclude_none=True),
            "machine": machines.describe(),
        },
        data=text.fingerprint,
        clip=settings.clip,
        keep=settings.keep,
        async_save=settings.async_save,
        tracker=settings.tracker or "",
        resume_command=f"groundup pretrain --out {shlex.quote(str(settings.out))} --resume",
    )
    return job, checks


def _evaluator(settings: Decided, text: Corpus, plan: Plan, machine: Machine) -> Any:
    """Score a model on the same validation tokens each time."""
    tokens, lengths = text.valid[: settings.eval_tokens + 1], text.tokenizer.byte_lengths()

    def score(model: nn.Module) -> Score:
        batches = each_token_once(tokens, context=settings.context, batch=plan.micro_batch)
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


def describe(checks: Preflight) -> str:
    """The preflight in words a person reads before the run starts."""
    return "\n".join([
        f"model     {checks.parameters:,} parameters ({checks.parameters_without_embeddings:,} without embeddings), "
        f"vocabulary {checks.vocabulary:,}, context {checks.context:,}",
        f"data      {checks.training_tokens:,} training tokens, {checks.validation_tokens:,} for validation, "
        f"sampling {checks.sampling}" + (f" ({checks.filler:.1%} filler)" if checks.filler else ""),
        f"plan      {checks.steps:,} steps of {checks.tokens_per_step:,} tokens = {checks.epochs:.2f} epochs",
        f"needs     about {checks.memory_bytes / 2**20:,.0f} MiB of {checks.memory_free / 2**20:,.0f} MiB free, "
        f"about {journal.clock(checks.seconds)}",
    ])  # fmt: skip


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


def _version() -> str:
    from groundup import __version__

    return __version__
