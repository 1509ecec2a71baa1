"""`groundup evaluate`: how well a model predicts a text it may never have seen, or does what it is asked.

In: `settings.Evaluate`. Out: `Result`: loss, perplexity, bits per byte, and how they were measured; for other tasks
what evaluate_tasks.py says.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup import machine as machines
from groundup.batches.batch import Batch
from groundup.checkpoint import folder
from groundup.commands import evaluate_tasks
from groundup.errors import SettingsError
from groundup.evaluate import each_token_once, evaluate
from groundup.journal import Progress
from groundup.model import config_of
from groundup.settings import Evaluate, flag
from groundup.text.read import sources
from groundup.tokens.prepare import tokenize


@dataclass(frozen=True)
class Result:
    """Nats per token, its exp, bits per byte (None for words), over `tokens` predicted tokens of the text."""

    model: Path
    loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    documents: int
    context: int
    stride: int
    dtype: str
    seconds: float
    tokens_per_second: float


# Settings that mean nothing elsewhere, and where they do.
OF_A_TASK = {
    "field": ("text", "labels"),
    "context": ("text",),
    "stride": ("text",),
    "batch": ("text", "choices", "labels", "lm-eval"),  # answers are written by as many rows as memory has room for
    "max_tokens": ("text", "answers"),
    "limit": ("choices", "answers", "lm-eval"),
    "out": ("choices", "answers", "labels"),
    "label_field": ("labels",),
    "pair_field": ("labels",),
}


def run(settings: Evaluate) -> Result | evaluate_tasks.Outcome:
    """Measure the model as --task, or --lm-eval, says.

    >>> run(Evaluate(model="runs/demo", data=["other.txt"])).loss  # doctest: +SKIP
    1.2345
    """
    if not settings.model:
        raise SettingsError("no model was given", "name a run or model folder: groundup evaluate runs/NAME --data FILE")
    task = "lm-eval" if settings.lm_eval else settings.task
    _check(settings, task)
    return _text(settings) if task == "text" else evaluate_tasks.run(settings)


def _check(settings: Evaluate, task: str) -> None:
    """Refuse what a task would not look at: a figure must not be taken for another one."""
    if settings.lm_eval and (settings.task != "text" or settings.data):
        extra = "--data" if settings.data else f"--task {settings.task}"
        raise SettingsError(f"--lm-eval brings its own questions, and {extra} was given, too", "leave one of them out")
    for name, known in OF_A_TASK.items():
        given = getattr(settings, name) != type(settings).model_fields[name].default
        if given and task not in known:
            what = f"{flag(name)} means nothing for " + ("--lm-eval" if settings.lm_eval else f"--task {task}")
            raise SettingsError(what, f"leave it out; it is for: {', '.join(known)}")
    if not settings.label_field:
        raise SettingsError("--label-field is empty", "name the column of the true classes, or leave it out: label")


def _text(settings: Evaluate) -> Result:
    """Score the model on every token of the text but the first, each once."""
    texts = sources(settings.data, field=settings.field)
    machine = machines.choose(device=settings.device, dtype=settings.dtype, threads=settings.threads)
    # weights in fp32 whatever is stored: the machine's autocast decides what the products are computed in
    loaded = folder.load(settings.model, dtype=torch.float32, device=machine.device)
    context, stride = _windows(settings, config_of(loaded.model).context)
    limit = None if settings.max_tokens is None else settings.max_tokens + 1  # the first is never predicted
    text = tokenize(texts, loaded.tokenizer, limit=limit)
    batches = each_token_once(text.ids, context=context, stride=stride, batch=settings.batch)
    began = time.perf_counter()
    with Progress("evaluate", total=len(text.ids) - 1, unit="token") as line:
        lengths = loaded.tokenizer.byte_lengths()
        score = evaluate(loaded.model, _watched(batches, line), machine=machine, byte_lengths=lengths)
    seconds = time.perf_counter() - began
    return Result(
        model=loaded.folder,
        loss=score.loss,
        perplexity=score.perplexity,
        bits_per_byte=score.bits_per_byte,
        tokens=score.tokens,
        documents=len(text.documents),
        context=context,
        stride=stride,
        dtype=machine.dtype_name,
        seconds=seconds,
        tokens_per_second=score.tokens / seconds,
    )


def _windows(settings: Evaluate, longest: int) -> tuple[int, int]:
    context = longest if settings.context is None else settings.context
    if context > longest:
        raise SettingsError(
            f"--context {context} is more than the model's context of {longest}",
            f"give {longest} at most, or leave it out",
        )
    return context, context if settings.stride is None else settings.stride


def _watched(batches: Iterable[Batch], line: Progress) -> Iterator[Batch]:
    """The same batches; each time the next one is asked for, those before it are done."""
    done = 0
    for batch in batches:
        yield batch
        done += round(batch.count)
        line.update(done)


def show(result: Result | evaluate_tasks.Outcome) -> None:
    """Print the figures for people."""
    if not isinstance(result, Result):
        evaluate_tasks.show(result)
        return
    per_byte = (
        "-, words have no fixed number of bytes" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
    )
    print(f"loss           {result.loss:.4f} nats a token")
    print(f"perplexity     {result.perplexity:.3f}")
    print(f"bits per byte  {per_byte}")
    print(f"tokens         {result.tokens:,} of {result.documents:,} documents")
    print(f"windows        {result.context:,} tokens every {result.stride:,}")
    print(f"speed          {result.tokens_per_second:,.0f} tokens/s in {result.dtype}")
