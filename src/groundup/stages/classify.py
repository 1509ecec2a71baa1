"""Classification: texts with labels -> rows -> a head that tells the classes apart -> marks on rows never seen.

In: `settings.Classify`. Out: a run folder like that of any other stage, with data/ (the three parts), test.json (the
test rows, read once) and `Result`, its figures. Weights are chosen by the validation rows alone (best/).
"""

import hashlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from groundup import journal, losses, report
from groundup.batches import sequential
from groundup.batches.labelled import LabelledRows, Reading, balancing
from groundup.errors import DataError, SettingsError
from groundup.evaluate.classes import mark
from groundup.evaluate.look import Look
from groundup.machine import Machine
from groundup.model.heads import Classifier, HeadConfig
from groundup.settings import Classify
from groundup.stages import data, examine, launch, tuning
from groundup.stages.tuning import Opened, Task
from groundup.text import labelled
from groundup.text.labelled import Labelled
from groundup.text.split import Split
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import run as runs
from groundup.train.job import Fitted
from groundup.train.plan import Preflight

SUBSET = 300  # training rows at most whose accuracy is looked at beside that of all validation rows
# Raschka 2024, sections 6.2 to 6.7: what its spam classifier is made with. A flag that a person gives wins.
BOOK: dict[str, Any] = {
    "data": ["sms-spam"], "balance": "undersample", "head_bias": True, "train": "last-block", "epochs": 5.0,
    "batch": 8, "seed": 123, "lr": 5e-5, "min_lr": 1.0, "warmup": 0, "weight_decay": 0.1, "beta1": 0.9,
    "beta2": 0.999, "clip": 0.0, "batching": "padded",
}  # fmt: skip
# what its protocol does with the data, and no flag changes
DIVIDED: dict[str, Any] = {
    "balance": "undersample", "validation": 0.1, "test": 0.2, "text_field": "text", "label_field": "label",
    "pair_field": None,
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Figures of a run: losses in nats a row, accuracies as shares; `rows` of each part, `seconds` of training.

    Those of validation belong to the weights in best/, of step `best_step`. `test` is what test.json says, None without
    test rows; after a longer resume it speaks of earlier weights.
    """

    out: Path
    labels: tuple[str, ...]
    rows: dict[str, int]
    steps: int
    seconds: float
    tokens_per_second: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    test: dict[str, Any] | None
    best_step: int | None = None


def classify(**settings: Any) -> Result:
    """Train a classifier from Python: the settings of `groundup classify` as keyword arguments.

    >>> classify(model="smollm2-135m", data=["sms-spam"], out="runs/spam").test["accuracy"]  # doctest: +SKIP
    0.981
    """
    result = run(Classify.create(**settings))
    assert isinstance(result, Result)
    return result


def run(settings: Classify) -> Result | Preflight:
    """Train a classifier in `settings.out`, then read the test rows once; with `dry_run` only the preflight comes back.

    Raises UserError for what cannot be had or used. A run that is resumed has read its test rows already, if it came
    to its end before: they are not read again, and test.json stays as it is.
    """
    if settings.batching == "packed":
        what = "--batching packed: rows that are judged by one state each cannot share a row"
        raise SettingsError(what, "choose bucketed (quickest) or padded")
    goes_on = settings.resume and settings.out is not None and (settings.out / runs.SETTINGS).exists()
    asked = settings if goes_on or settings.protocol != "book" else recipe(settings)
    checks, fitted = tuning.run(asked, _prepare)
    if fitted is None or asked.out is None:
        return checks
    test = examine.once(asked.out, parts(asked.out))
    report.write(asked.out)
    return _result(asked.out, fitted, test)


def recipe(settings: Classify) -> Classify:
    """The settings of --protocol book: the book's, wherever a person did not say otherwise.

    Raises SettingsError for what a person said of the data that the book's protocol does in its own way.

    >>> found = recipe(Classify(protocol="book", lr=1e-4))
    >>> found.lr, found.batch, found.seed, found.train
    (0.0001, 8, 123, 'last-block')
    """
    given = [name for name, value in DIVIDED.items()
             if name in settings.model_fields_set and getattr(settings, name) != value]  # fmt: skip
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')} {getattr(settings, name)}" for name in given)
        what = f"--protocol book reads, balances and divides data as the book does, which leaves no room for {flags}"
        raise SettingsError(what, "leave them out, or leave out --protocol book")
    kept = {name: value for name, value in BOOK.items() if name not in settings.model_fields_set}
    if {"steps", "minutes"} & settings.model_fields_set:
        kept.pop("epochs", None)
    return settings.replace(**kept)


# the rows


def parts(out: Path) -> Split[Labelled]:
    """The three parts that a run keeps in RUN/data; raises CheckpointError where one is missing."""
    return data.parts(out, labelled.read_back)


def divided(settings: Classify, out: Path) -> tuple[Split[Labelled], dict[str, Any]]:
    """The parts of a run, and how they came about."""
    notes = data.divided(out, partial(_made, settings), labelled.write)
    return parts(out), notes


def _made(settings: Classify) -> tuple[Split[Labelled], dict[str, Any]]:
    """Read, freed of duplicates, balanced, divided: in this order, so that no text is in two parts."""
    if settings.protocol == "book":
        if len(settings.data) != 1:
            raise SettingsError(f"--protocol book reads one file, {len(settings.data)} were given", "--data sms-spam")
        split = labelled.book(settings.data[0], seed=settings.seed)
        return split, {"protocol": "book", "used": sum(map(len, split.parts().values()))}
    rows = [row for name in settings.data for row in labelled.read(
        name, text=settings.text_field, label=settings.label_field, pair=settings.pair_field)]  # fmt: skip
    unique = labelled.deduplicated(rows)
    notes: dict[str, Any] = {
        "read": len(rows),
        "repeated": unique.repeated,
        "contradictory": len(unique.contradictory),
        "such_as": [f"{row.where}: {row.label}" for row in unique.contradictory[:3]],
    }
    used = unique.rows
    if settings.balance == "undersample" and used:
        used = labelled.undersampled(used, settings.seed)
    split = labelled.split(used, validation=settings.validation, test=settings.test, seed=settings.seed)
    return split, notes | {"used": len(used)}


def _tell(notes: dict[str, Any], split: Split[Labelled]) -> None:
    """What was read, left out and kept, for the person."""
    left = [f"{notes['repeated']:,} repeated left out"] if notes.get("repeated") else []
    if doubtful := notes.get("contradictory"):
        named = "; ".join(notes["such_as"]) + (" ..." if doubtful > 3 else "")
        left.append(f"{doubtful:,} left out whose text has two labels ({named})")
    read = f"{notes['read']:,} read, " if "read" in notes else ""
    print(f"rows      {read}{''.join(part + ', ' for part in left)}{notes['used']:,} used: "
          f"{', '.join(f'{len(rows):,} {name}' for name, rows in split.parts().items())}", file=sys.stderr)  # fmt: skip
    counts = Counter(row.label for row in split.train)
    shown = [f"{label} {count:,}" for label, count in counts.most_common(12)]
    more = f" and {len(counts) - 12} more classes" if len(counts) > 12 else ""
    print(f"train     {', '.join(shown)}{more}", file=sys.stderr)


# the task


def _prepare(settings: Classify, out: Path, machine: Machine) -> Task:
    """Everything this stage brings; nothing in it trains."""
    opened = tuning.opened(settings, classifier=True)
    split, notes = divided(settings, out)
    _tell(notes, split)
    head = _head(settings, opened, split)
    reading = _reading(settings, opened, split)
    read = {name: _ids(rows, reading, opened.tokenizer) for name, rows in split.parts().items()}
    train, valid = read["train"].ids, read["valid"].ids
    _tell_of_cuts(read, reading.context)
    filler = tuning.filler(opened.tokenizer)
    source = rows_of(split.train, train, head.labels, pad=filler, weighted=settings.balance == "weights")
    checked = _by_length(rows_of(split.valid, valid, head.labels, pad=filler))
    some = _by_length(source, SUBSET)
    return Task(
        model=tuning.taught(settings, opened, _network(settings, opened, head), machine=machine),
        tokenizer=opened.tokenizer,
        loss=losses.classification,
        source=source,
        lengths=source.lengths,
        evaluate=partial(_look, valid=checked, train=some, labels=head.labels, machine=machine),
        sample=None,
        fingerprint=_fingerprint(split, train, head),
        look=float(checked.lengths.sum() + some.lengths.sum()),
        sources=settings.data,
        card=opened.facts | {"reading": reading.to_card(), "classes": list(head.labels), "rows": notes,
                             "cut": {name: one.cut for name, one in read.items()},
                             "pairs_lost": {name: one.lost for name, one in read.items()}},
    )  # fmt: skip


def _look(
    model: nn.Module, rows: int, *, valid: LabelledRows, train: LabelledRows, labels: Sequence[str], machine: Machine
) -> Look:
    """One evaluation."""
    marks = mark(model, sequential(valid, rows), labels=labels, machine=machine)
    seen = mark(model, sequential(train, rows), labels=labels, machine=machine)
    return Look(marks, seen.accuracy)


def _head(settings: Classify, opened: Opened, split: Split[Labelled]) -> HeadConfig:
    """The classes, in the order of a classifier that goes on, else by name; raises where that one has others."""
    found = labelled.classes(split.train)
    if not isinstance(opened.model, Classifier):
        return HeadConfig(found, settings.pooling, settings.head_bias)
    head = opened.model.head_config
    if set(head.labels) != set(found):
        what = f"the classifier {opened.spec} tells {_named(head.labels)} apart, the data has {_named(found)}"
        raise DataError(what, "give data with the same labels, or start from a language model")
    if (head.pooling, head.bias) != (settings.pooling, settings.head_bias):
        bias = "--head-bias" if head.bias else "--no-head-bias"
        what = f"the classifier {opened.spec} was made with --pooling {head.pooling} {bias}"
        raise SettingsError(what, "say the same: a head cannot change while its numbers stay")
    return head


def _named(labels: Sequence[str]) -> str:
    return ", ".join(label[:40] for label in labels[:8]) + (" ..." if len(labels) > 8 else "")


def _reading(settings: Classify, opened: Opened, split: Split[Labelled]) -> Reading:
    """How texts become rows: cut to the context, and in the book's protocol filled up to the longest training text."""
    plain = Reading.of(opened.tokenizer, context=opened.context)
    if settings.protocol != "book":
        return plain
    widest = max(len(plain.ids(opened.tokenizer, row)) for row in split.train)
    return Reading.of(opened.tokenizer, context=widest, fill=tuning.filler(opened.tokenizer))


@dataclass(frozen=True)
class _Ids:
    """The ids of a part's rows; how many rows were cut, of how many nothing of the second text is left, the longest."""

    ids: list[list[int]]
    cut: int
    lost: int
    longest: int


def _ids(rows: Sequence[Labelled], reading: Reading, tokenizer: Tokenizer) -> _Ids:
    whole = [reading.whole(tokenizer, row) for row in rows]
    cut = [row for row, ids in zip(rows, whole, strict=True) if len(ids) > reading.context]
    lost = sum(reading.loses_pair(tokenizer, row) for row in cut)
    return _Ids([reading.cut(ids) for ids in whole], len(cut), lost, max(map(len, whole), default=0))


def _tell_of_cuts(read: dict[str, _Ids], context: int) -> None:
    """How many texts of each part are longer than what is read of them, for the person."""
    if any(one.cut for one in read.values()):
        counts = ", ".join(f"{one.cut:,} of {len(one.ids):,} {name}" for name, one in read.items())
        print(f"cut       {counts} texts are longer than {context:,} tokens, the longest has "
              f"{max(one.longest for one in read.values()):,}", file=sys.stderr)  # fmt: skip
    if any(one.lost for one in read.values()):
        counts = ", ".join(f"{one.lost:,} {name}" for name, one in read.items())
        print(f"cut       nothing is left of the second text in {counts} pairs: raise --context, or make the longer "
              "text the second", file=sys.stderr)  # fmt: skip


def rows_of(rows: Sequence[Labelled], ids: list[list[int]], labels: Sequence[str], *, pad: int,
            weighted: bool = False) -> LabelledRows:  # fmt: skip
    """A source of batches from rows and their ids; `weighted`: rare classes count more."""
    number = {label: place for place, label in enumerate(labels)}
    numbers = [number[row.label] for row in rows]
    return LabelledRows(ids, numbers, pad=pad, weights=balancing(numbers, len(labels)) if weighted else None)


def _by_length(source: LabelledRows, most: int = sys.maxsize) -> LabelledRows:
    """The rows, or so many from all over the file, the shortest first: judged together they need less filler."""
    count = min(most, len(source))
    places = np.linspace(0, len(source) - 1, count).round().astype(int)
    order = sorted(places.tolist(), key=lambda place: int(source.lengths[place]))
    return LabelledRows([source.ids[place] for place in order], source.labels[order].tolist(), pad=source.pad)


def _network(settings: Classify, opened: Opened, head: HeadConfig) -> nn.Module:
    """The classifier that goes on, or a new head on the language model."""
    if isinstance(opened.model, Classifier):
        return opened.model
    return Classifier(opened.model, head, seed=settings.seed, init="torch" if settings.protocol == "book" else None)


def _fingerprint(split: Split[Labelled], train: Sequence[list[int]], head: HeadConfig) -> str:
    """What a resumed run must find unchanged: texts, labels, ids."""
    digest = hashlib.sha256(repr((head.labels, head.pooling, head.bias)).encode())
    for name, rows in split.parts().items():
        digest.update(name.encode() + b"\0" * 2)
        for row in rows:
            digest.update(json.dumps([row.text, row.pair, row.label]).encode())
    for ids in train:
        digest.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
    return digest.hexdigest()


# the end


def _result(out: Path, fitted: Fitted, test: dict[str, Any] | None) -> Result:
    looks = [r for r in journal.Journal(out).read() if r.get("kind") == "eval" and r["step"] > 0]
    looks = [record for record in looks if record.get("loss") is not None]  # 0 is a loss, too
    best = min(looks, key=lambda record: record["loss"], default={})
    split = parts(out)
    return Result(
        out=out,
        labels=labelled.classes(split.train),
        rows={name: len(rows) for name, rows in split.parts().items()},
        steps=fitted.steps,
        seconds=fitted.seconds,
        tokens_per_second=fitted.tokens_per_second,
        train_accuracy=best.get("train_accuracy"),
        validation_loss=best.get("loss"),
        validation_accuracy=best.get("accuracy"),
        test=test,
        best_step=examine.step(out),
    )


def show(result: Result | Preflight) -> None:
    """Print the marks, the worst errors, and what to do next."""
    if isinstance(result, Preflight):
        print(launch.describe(result))
        return
    for name, accuracy in (("train", result.train_accuracy), ("validation", result.validation_accuracy)):
        if accuracy is not None:
            print(f"{name:<14}accuracy {100 * accuracy:6.2f} %")
    if result.test:
        print("\n".join(examine.words(result.test, best=result.best_step)))
    print(f"{result.steps:,} steps in {journal.clock(result.seconds)} ({result.tokens_per_second:,.0f} tokens/s); "
          f"confusion and calibration: {result.out / 'report.html'}")  # fmt: skip
    print(f'next: groundup predict {shlex.quote(str(result.out / "best"))} --text "..."')
