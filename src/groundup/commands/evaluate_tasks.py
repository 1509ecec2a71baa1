"""`groundup evaluate --task choices|answers|labels` and `--lm-eval TASK`: how good a model is at what was asked of it.

In: `settings.Evaluate`. Out: `Choices`, `Exact`, `Labels` or `Harness`, each with its figures; with --out one JSON
object a line for each item.
"""

import dataclasses
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup import machine as machines
from groundup.checkpoint import atomic, folder
from groundup.checkpoint.folder import Loaded
from groundup.commands import predict
from groundup.errors import DataError, SettingsError
from groundup.evaluate import choices, harness, tasks
from groundup.evaluate.choices import ChoiceMarks
from groundup.evaluate.classes import Marks
from groundup.evaluate.harness import TaskScore
from groundup.evaluate.tasks import Kind
from groundup.generate import ready
from groundup.journal import Progress
from groundup.machine import Machine
from groundup.settings import Evaluate, Predict
from groundup.text import choices as items

# Flags of `groundup predict`, and what they are called here
FLAGS = {"--text-field": "--field", "--file": "--data"}


@dataclass(frozen=True)
class Choices:
    """Multiple choice by likelihood; `format` says how the questions were put (text/choices.py)."""

    model: Path
    data: str
    format: str
    marks: ChoiceMarks
    dtype: str
    seconds: float
    out: Path | None


@dataclass(frozen=True)
class Exact:
    """Exact answers: all questions first, then each kind; `chat`: asked through the model's template.

    `cut`: questions whose beginning was out of sight; `unfinished`: answers that reached their longest length.
    """

    model: Path
    data: str
    kinds: list[Kind]
    cut: int
    unfinished: int
    chat: bool
    dtype: str
    seconds: float
    out: Path | None


@dataclass(frozen=True)
class Labels:
    """A classifier on a labelled file; `cut`: rows longer than it reads."""

    model: Path
    data: str
    marks: Marks
    cut: int
    seconds: float
    out: Path | None


@dataclass(frozen=True)
class Harness:
    """The figures of lm-eval, and over all its requests what harness.py counts as `cut` and `unfinished`."""

    model: Path
    tasks: list[TaskScore]
    cut: int
    unfinished: int
    dtype: str
    seconds: float


Outcome = Choices | Exact | Labels | Harness


def run(settings: Evaluate) -> Outcome:
    """Do the task; raises SettingsError and DataError before the model is loaded, where that can be known.

    >>> run(Evaluate(model="runs/a", task="choices", data=["hellaswag.jsonl"])).marks.acc_norm  # doctest: +SKIP
    0.41
    """
    if settings.out is not None and not settings.out.parent.is_dir():
        raise SettingsError(f"--out {settings.out}: there is no folder {settings.out.parent}", "make it first")
    if settings.task == "labels":
        return _labels(settings)
    machine = machines.choose(device=settings.device, dtype=settings.dtype, threads=settings.threads)
    if settings.lm_eval:
        return _harness(settings, machine)
    return (_choices if settings.task == "choices" else _exact)(settings, machine)


def _choices(settings: Evaluate, machine: Machine) -> Choices:
    data = _only(settings)
    form, asked = items.read(data, limit=settings.limit)
    loaded, began = _opened(settings, machine), time.perf_counter()
    with Progress("evaluate", total=sum(len(one.choices) for one in asked), unit="choice") as line:
        chosen = choices.choose(
            loaded.model, loaded.tokenizer, asked, batch=settings.batch, machine=machine, watch=lambda n: line.update(n)
        )
    seconds = time.perf_counter() - began
    _write(settings.out, chosen)
    return Choices(loaded.folder, data, form, choices.marks(chosen), machine.dtype_name, seconds, settings.out)


def _exact(settings: Evaluate, machine: Machine) -> Exact:
    data = _only(settings)
    asked = items.questions(data, limit=settings.limit)
    # nothing but writing follows: the weights may be in the format that is computed in
    loaded = folder.load(settings.model, dtype=machine.dtype, device=machine.device)
    chat = loaded.tokenizer.chat_template is not None
    ready(loaded.model, rows=len(asked))
    began, most = time.perf_counter(), settings.max_tokens or tasks.LONGEST
    with Progress("evaluate", total=len(asked), unit="answer") as line:
        given = tasks.answer(
            loaded.model, loaded.tokenizer, asked, max_tokens=most, watch=lambda done: line.update(done)
        )
    seconds, graded = time.perf_counter() - began, tasks.grade(asked, given)
    _write(settings.out, graded)
    whole, *kinds = tasks.table(graded)
    return Exact(
        model=loaded.folder,
        data=data,
        kinds=[whole, *kinds],
        cut=whole.cut,
        unfinished=whole.unfinished,
        chat=chat,
        dtype=machine.dtype_name,
        seconds=seconds,
        out=settings.out,
    )


def _labels(settings: Evaluate) -> Labels:
    """What `groundup predict` says of the rows; it looks for best/ in a run, too."""
    data = _only(settings)
    wish = Predict(
        model=settings.model,
        file=Path(data),
        text_field=settings.field,
        label_field=settings.label_field,
        pair_field=settings.pair_field,
        batch=settings.batch,
        out=settings.out,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
    )
    try:
        found = predict.run(wish)
    except (SettingsError, DataError) as error:  # its words name the flags of `groundup predict`
        single = settings.pair_field is None and "--pair-field" in error.what  # there it may also be --pair
        fix = "name the column of the second text: --pair-field" if single else _here(error.fix)
        raise type(error)(_here(error.what), fix) from None
    assert found.marks is not None  # there is a field of labels
    return Labels(found.model, data, found.marks, found.cut, found.seconds, settings.out)


def _here(words: str) -> str:
    """The same words with the flags of this command.

    >>> _here("did you mean 'body'? (--text-field, --label-field)")
    "did you mean 'body'? (--field, --label-field)"
    """
    for theirs, ours in FLAGS.items():
        words = words.replace(theirs, ours)
    return words


def _harness(settings: Evaluate, machine: Machine) -> Harness:
    harness.available()
    loaded, began = _opened(settings, machine), time.perf_counter()
    lm = harness.adapter(loaded.model, loaded.tokenizer, batch=settings.batch, machine=machine)
    scores = harness.run(lm, settings.lm_eval, limit=settings.limit)
    return Harness(loaded.folder, scores, lm.cut, lm.unfinished, machine.dtype_name, time.perf_counter() - began)


def _opened(settings: Evaluate, machine: Machine) -> Loaded:
    """Weights in fp32 whatever is stored: the machine's autocast decides what the products are computed in."""
    return folder.load(settings.model, dtype=torch.float32, device=machine.device)


def _only(settings: Evaluate) -> str:
    """The one file of a task."""
    if len(settings.data) != 1:
        what = f"--task {settings.task} takes one file, not {len(settings.data)}"
        raise SettingsError(what, f"give it: groundup evaluate MODEL --task {settings.task} --data FILE")
    return settings.data[0]


def _write(out: Path | None, rows: Iterable[Any]) -> None:
    """One JSON object a line, the file whole or not at all."""
    if out is None:
        return
    lines = (json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)
    atomic.write_text(out, "".join(lines))


def show(result: Outcome) -> None:
    """Print the figures for people."""
    match result:
        case Choices():
            _show_choices(result)
        case Exact():
            _show_exact(result)
        case Labels():
            _show_labels(result)
        case Harness():
            _show_harness(result)
            return
    if result.out is not None:
        print(f"item by item   {result.out}")


def _show_choices(result: Choices) -> None:
    marks = result.marks
    print(f"items          {marks.items:,} ({result.format}: {items.FORMATS[result.format].about})")
    print(f"acc            {_share(marks.acc, marks.acc_error)}  the likeliest choice")
    print(f"acc_norm       {_share(marks.acc_norm, marks.acc_norm_error)}  the likeliest by character")
    print(f"acc_bytes      {_share(marks.acc_bytes, marks.acc_bytes_error)}  the likeliest by byte")
    print(f"chance         {marks.chance:.4f}")
    if marks.cut:
        print(f"cut            {marks.cut:,} items were longer than the context and lost their beginning")
    if marks.straddled:
        print(f"straddled      {marks.straddled:,} items have a token across the boundary: lm-eval may differ there")
    print(f"time           {result.seconds:.1f} s in {result.dtype}")


def _show_exact(result: Exact) -> None:
    whole, *kinds = result.kinds
    way = "through its chat template" if result.chat else "by continuing the question (no chat template)"
    print(f"questions      {whole.questions:,}, asked {way}")
    print(f"exact          {_share(whole.exact, whole.exact_error)}  but for white space")
    print(f"loose          {whole.loose:.4f}           also but for case and punctuation around words")
    print(f"contained      {whole.contained:.4f}           a right answer stands in what was written")
    width = max((len(kind.kind) for kind in kinds), default=0)
    for kind in kinds:
        print(f"  {kind.kind:{width}}  {kind.questions:6,}  exact {kind.exact:.4f}  contained {kind.contained:.4f}")
    if result.cut:
        print(f"cut            {result.cut:,} questions with answers outgrew the context and lost their beginning")
    if result.unfinished:
        print(f"unfinished     {result.unfinished:,} answers reached the longest length (--max-tokens)")
    print(f"time           {result.seconds:.1f} s in {result.dtype}")


def _show_labels(result: Labels) -> None:
    marks = result.marks
    print(f"rows           {marks.rows:,}")
    print(f"accuracy       {_share(marks.accuracy, choices.share_error(marks.accuracy, marks.rows))}")
    print(f"macro F1       {marks.macro_f1:.4f}")
    print(f"loss           {marks.loss:.4f} nats a row")
    print(f"calibration    {marks.ece:.4f} (expected error of its probabilities)")
    width = max(map(len, marks.labels))
    for place, label in enumerate(marks.labels):
        row = " ".join(f"{count:6,}" for count in marks.confusion[place])
        scores = f"precision {marks.precision[place]:.3f}  recall {marks.recall[place]:.3f}"
        print(f"  {label:{width}}  {scores}  seen as {row}")
    if marks.never_predicted:
        print(f"never given    {', '.join(marks.never_predicted)}")
    if result.cut:
        print(f"cut            {result.cut:,} rows are longer than what the classifier reads")
    print(f"time           {result.seconds:.1f} s")


def _show_harness(result: Harness) -> None:
    width = max(len(score.task) for score in result.tasks)
    long = max(len(score.metric) for score in result.tasks)
    for score in result.tasks:
        error = "" if score.error is None else f" +- {score.error:.4f}"
        print(f"{score.task:{width}}  {score.metric:{long}}  {score.value:.4f}{error}  ({score.items:,} items)")
    if result.cut:
        print(f"cut   {result.cut:,} requests were longer than the context and lost their beginning")
    if result.unfinished:
        print(f"unfinished  {result.unfinished:,} texts reached the longest length that their task allows")
    print(f"time  {result.seconds:.1f} s in {result.dtype}")


def _share(value: float, error: float) -> str:
    return f"{value:.4f} +- {error:.4f}"
