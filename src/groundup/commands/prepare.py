"""`groundup prepare`: any text to memory-mapped token shards.

In: `settings.Prepare`. Out: a folder with `train.tokens`, `valid.tokens` and the tokenizer, and `Result`, its figures.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from groundup.commands.tokenizer import opened
from groundup.errors import SettingsError
from groundup.settings import Prepare
from groundup.text import read
from groundup.tokens import prepare
from groundup.tokens.learning import LEARNT, Progress
from groundup.tokens.prepare import Prepared


@dataclass(frozen=True)
class Result:
    """Figures of a folder of shards; `bytes` is UTF-8 text, `seconds` this command's; 0 MB/s if nothing was to do."""

    out: Path
    tokenizer: str
    vocabulary: int
    train_tokens: int
    valid_tokens: int
    documents: int
    bytes: int
    bytes_per_token: float
    split: str
    seconds: float
    megabytes_per_second: float


def run(settings: Prepare) -> Result:
    """Prepare the text that the settings name; raises SettingsError, DataError or TokenizerError.

    >>> run(Prepare.create(data=["the-verdict"], out="shards")).documents  # doctest: +SKIP
    1
    """
    if settings.out is None:
        raise SettingsError("no folder for the shards", "name one with --out, such as --out shards")
    start, worked = time.perf_counter(), False
    with prepare.shown() as show:

        def watch(doing: str, done: int, total: int) -> None:
            nonlocal worked
            worked = True
            show(doing, done, total)

        done = _prepared(settings, settings.out, watch)
    seconds = time.perf_counter() - start
    tokens = done.train_tokens + done.valid_tokens
    return Result(
        out=settings.out,
        tokenizer=done.tokenizer.kind,
        vocabulary=done.tokenizer.vocabulary,
        train_tokens=done.train_tokens,
        valid_tokens=done.valid_tokens,
        documents=done.documents,
        bytes=done.bytes,
        bytes_per_token=done.bytes / max(tokens, 1),
        split=done.split,
        seconds=seconds,
        megabytes_per_second=done.bytes / 1e6 / seconds if worked else 0.0,
    )


def _prepared(settings: Prepare, out: Path, progress: Progress) -> Prepared:
    """The shards, with a tokenizer to be learnt, gpt2's, or that of a file, a folder or a model."""
    name = settings.tokenizer
    learnt = name in (*LEARNT, "gpt2") or settings.vocabulary is not None
    tokenizer = None if learnt else opened(name)
    if tokenizer is None:
        return prepare.from_settings(settings, out, progress=progress)
    sources = read.sources(settings.data, field=settings.field, progress=progress)
    job = prepare.Job(sources, tokenizer, out, settings.validation, settings.split, workers=settings.workers)
    return prepare.carry_out(job, progress=progress)


def show(result: Result) -> None:
    """Print the figures for a person."""
    count = "1 document" if result.documents == 1 else f"{result.documents:,} documents"
    speed = f", {result.megabytes_per_second:.1f} MB/s" if result.megabytes_per_second else " (nothing to do)"
    console = Console(highlight=False)
    console.print(f"[bold]{result.out}[/bold]: {count}, {result.bytes / 1e6:,.2f} MB of text")
    console.print(
        f"  tokenizer   {result.tokenizer}, {result.vocabulary:,} ids, {result.bytes_per_token:.2f} bytes per token"
    )
    console.print(f"  train       {result.train_tokens:,} tokens")
    console.print(f"  validation  {result.valid_tokens:,} tokens ({result.split})")
    console.print(f"  {result.seconds:.1f} s{speed}")
