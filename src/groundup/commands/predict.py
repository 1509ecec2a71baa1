"""`groundup predict`: the class of a text, of every line of a file or of standard input, and how likely each class is.

In: `settings.Predict`. Out: `Result`. Answers flow in the order of the texts, a batch at a time, as soon as it is
computed: to the screen, or as one JSON object a line to `--out` (`-` is standard output). Remarks go to standard error.
"""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import machine as machines
from groundup.batches import sequential
from groundup.batches.labelled import LabelledRows, Reading
from groundup.checkpoint import folder
from groundup.checkpoint.folder import Loaded
from groundup.errors import CheckpointError, DataError, SettingsError, nearest
from groundup.evaluate.classes import Marks, Tally, predictions
from groundup.machine import Machine
from groundup.model.heads import REWARD, Classifier
from groundup.settings import Predict
from groundup.text import files, labelled
from groundup.text.labelled import Labelled

Emit = Callable[[str], None]
WIDE = 70  # characters of a text on a line of the screen
FIRST = 20  # classes of one text that are shown


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of a text and its probability, those of all classes, and the true class where it is known."""

    text: str
    label: str
    probability: float
    probabilities: dict[str, float]
    where: str = ""
    pair: str | None = None
    truth: str | None = None


@dataclass(frozen=True)
class Result:
    """How many texts were given each class; `marks` where the true classes are known. Time is without loading.

    `predictions` holds them all, unless they were shown or written while they came. `cut`: texts longer than what the
    classifier reads.
    """

    model: Path
    labels: tuple[str, ...]
    texts: int
    cut: int
    counts: dict[str, int]
    accuracy: float | None
    marks: Marks | None
    seconds: float
    predictions: list[Prediction]


def run(settings: Predict, *, emit: Emit | None = None) -> Result:
    """Label the texts; `emit` gets lines for people while they come.

    Raises SettingsError where no text or two sources were given, CheckpointError for what is no classifier, DataError
    for a text or a label that cannot be used, naming its place.

    >>> run(Predict(model="runs/spam/best", text="You won a $1000 cash prize!")).predictions[0].label  # doctest: +SKIP
    'spam'
    """
    if not settings.model:
        raise SettingsError("no model was given", "name a classifier: groundup predict runs/NAME/best --text ...")
    groups = _groups(settings)
    machine = machines.choose(device=settings.device, dtype=settings.dtype, threads=settings.threads)
    # weights in fp32 whatever is stored: the machine's autocast decides what the products are computed in
    loaded = folder.load(chosen(settings.model), dtype=torch.float32, device=machine.device, classifier=True)
    _check_kind(settings, loaded)
    judge = _Judge(loaded, machine)
    _check_pairs(settings, loaded)
    began, counts, kept = time.perf_counter(), Counter[str](), list[Prediction]()
    with _writer(settings.out) as write:
        for found in judge.all(groups):
            counts[found.label] += 1
            if write:
                write(found)
            elif emit:
                emit(_lines(found, alone=settings.text is not None))
            else:
                kept.append(found)
    seconds, texts = time.perf_counter() - began, counts.total()
    if not texts:
        raise DataError("there is no text to label", "give lines with something in them")
    if judge.cut:
        _remark(f"{judge.cut:,} of {texts:,} texts are longer than the {judge.reading.context:,} tokens that are read")
    marks = judge.tally.marks() if settings.label_field else None
    return Result(loaded.folder, judge.labels, texts, judge.cut, dict(counts.most_common()),
                  None if marks is None else marks.accuracy, marks, seconds, kept)  # fmt: skip


def chosen(model: str) -> str:
    """The folder of weights that a name means: of a run that holds best/, those, since its test.json speaks of them."""
    best = Path(model) / "best"
    return str(best) if best.is_dir() else model


class _Judge:
    """A classifier at work: rows in, predictions out, in the same order."""

    def __init__(self, loaded: Loaded, machine: Machine) -> None:
        model: nn.Module = loaded.model
        assert isinstance(model, Classifier)
        self.model, self.tokenizer, self.machine = model, loaded.tokenizer, machine
        self.labels = model.head_config.labels
        self.reading = Reading.from_card(loaded.card, loaded.tokenizer, context=model.config.context)
        self.tally, self.cut = Tally(self.labels), 0
        self.known = {label: number for number, label in enumerate(self.labels)}

    def all(self, groups: Iterable[list[Labelled]]) -> Iterator[Prediction]:
        """What it says of each row of each group."""
        for rows in groups:
            truth = [self._number(row) for row in rows]
            whole = [self.reading.whole(self.tokenizer, row) for row in rows]
            self.cut += sum(len(ids) > self.reading.context for ids in whole)
            source = LabelledRows([self.reading.cut(ids) for ids in whole], [0] * len(rows), pad=0)
            said = predictions(self.model, sequential(source, len(rows)), machine=self.machine)
            for row, true, (chosen, chances) in zip(rows, truth, said, strict=True):
                if true is not None:
                    # logarithms of probabilities are logits of them; a probability of 0 would have none
                    self.tally.add(chances.clamp(min=1e-300).log()[None], torch.tensor([true]))
                each = dict(zip(self.labels, chances.tolist(), strict=True))
                label = self.labels[chosen]
                yield Prediction(row.text, label, each[label], each, row.where, row.pair, row.label or None)

    def _number(self, row: Labelled) -> int | None:
        """Which class a row says it has; raises DataError for one that the classifier was not taught."""
        if not row.label:
            return None
        if row.label not in self.known:
            raise DataError(f"{row.where} has the label '{row.label}', which this classifier was not taught",
                            nearest(row.label, self.labels))  # fmt: skip
        return self.known[row.label]


def _check_kind(settings: Predict, loaded: Loaded) -> None:
    """A reward model has no classes to choose from: softmax of its one output would call everything certain."""
    assert isinstance(loaded.model, Classifier)
    if loaded.model.head_config.kind == REWARD:
        raise CheckpointError(
            f"{settings.model} is a reward model: it scores answers, and tells no classes apart",
            f'use it with groundup score: groundup score {settings.model} --prompt "..." --response "..."',
        )


def _check_pairs(settings: Predict, loaded: Loaded) -> None:
    """A classifier that was taught two texts at a time must get two."""
    taught = loaded.card.get("settings", {}).get("pair_field")
    given = settings.pair is not None or settings.pair_field is not None
    if taught and not given:
        what = f"{settings.model} was taught with pairs of texts (--pair-field {taught}), and one was given"
        raise SettingsError(what, "give the second text: --pair with --text, --pair-field with a table as --file")
    if given and not taught and "settings" in loaded.card:
        _remark("this classifier was taught with single texts: what it says of pairs means little")


# the texts


def _groups(settings: Predict) -> Iterator[list[Labelled]]:
    """The texts in groups of at most `batch`; what is wrong with the flags is said before anything is opened."""
    if (settings.text is None) == (settings.file is None):
        what = "no text was given" if settings.text is None else "--text and --file were both given"
        raise SettingsError(what, 'give --text "...", or --file FILE, or --file - for lines of standard input')
    if settings.label_field and (settings.file is None or not labelled.readable(settings.file)):
        where = "--text" if settings.file is None else str(settings.file)
        what = f"--label-field needs a file with columns, {where} has none"
        raise SettingsError(what, "give a .csv, .tsv, .jsonl or .parquet file")
    _check_second(settings)
    if settings.text is not None:
        return iter([[_single(settings)]])
    file = settings.file
    assert file is not None
    if str(file) == "-":
        return _standard_input(settings.batch)
    if labelled.readable(file):
        rows = labelled.stream(file, text=settings.text_field, label=settings.label_field, pair=settings.pair_field)
        return _by(rows, settings.batch)
    return _by(_lines_of(file), settings.batch)


def _check_second(settings: Predict) -> None:
    """A second text comes as the first does, or it would be left out without a word: --pair from the command line with
    --text, --pair-field from a column with a table."""
    if settings.pair is not None and settings.text is None:
        what = f"--pair is the second text of --text, and the texts come from {settings.file}"
        raise SettingsError(what, "name the column of second texts of a .csv, .tsv, .jsonl or .parquet: --pair-field")
    if settings.pair_field is not None and settings.text is not None:
        raise SettingsError("--pair-field names a column, and --text has none", 'give the second text: --pair "..."')
    if settings.pair_field is not None and not labelled.readable(settings.file or ""):
        what = f"--pair-field needs a file with columns, {settings.file} holds one text a line"
        raise SettingsError(what, "give a .csv, .tsv, .jsonl or .parquet file")
    if settings.pair is not None and not settings.pair.strip():
        raise DataError("the second text is empty", "give --pair a text with something in it")


def _single(settings: Predict) -> Labelled:
    text = settings.text or ""
    if text == "-":
        text = _decoded(sys.stdin.buffer.read(), "standard input").removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise DataError("the text is empty", "give a text with something in it")
    return Labelled(text, "", settings.pair, "")


def _by(rows: Iterable[Labelled], count: int) -> Iterator[list[Labelled]]:
    rows = iter(rows)
    while group := list(islice(rows, count)):
        yield group


def _lines_of(path: Path) -> Iterator[Labelled]:
    """Every line of a text file that is not blank, with its number."""
    if not path.is_file():
        raise DataError(f"there is no file {path}", "give a file of lines, a table, or - for standard input")
    for number, line in files.lines_of(path):
        if not line.isspace():
            yield Labelled(line.removesuffix("\n").removesuffix("\r"), "", None, f"{path} line {number}")


def _standard_input(most: int) -> Iterator[list[Labelled]]:
    """Lines of standard input, grouped as they arrive: nobody waits for a batch to fill while lines trickle in."""
    source: Any = sys.stdin.buffer
    rest, number = b"", 0
    while block := source.read1(1 << 16):
        *whole, rest = (rest + block).split(b"\n")
        rows = []
        for line in whole:
            number += 1
            rows += _row(line, number)
        yield from _by(rows, most)
    yield from _by(_row(rest, number + 1), most)


def _row(line: bytes, number: int) -> list[Labelled]:
    where = f"standard input line {number}"
    text = _decoded(line, where).removesuffix("\r")
    return [Labelled(text, "", None, where)] if text.strip() else []


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"{name} is not UTF-8: byte 0x{content[error.start]:02X} at offset {error.start}"
        raise DataError(what, "convert it, for instance: iconv -f latin1 -t utf-8") from None


# the answers


@contextlib.contextmanager
def _writer(out: Path | None) -> Iterator[Callable[[Prediction], None] | None]:
    """Writes JSON lines to a file or standard output; None where there is nothing to write to."""
    if out is None:
        yield None
        return
    if str(out) == "-":
        yield lambda found: print(_json(found), flush=True)
        return
    aside = out.with_name(f".{out.name}.writing")  # an error on the way leaves an earlier file as it was
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            yield lambda found: print(_json(found), file=file)
        os.replace(aside, out)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", "choose another --out") from None
    finally:
        aside.unlink(missing_ok=True)


def _json(found: Prediction) -> str:
    told = {name: value for name, value in vars(found).items() if value not in (None, "")}
    return json.dumps(told, ensure_ascii=False)


def _lines(found: Prediction, *, alone: bool) -> str:
    """What is shown of one text: every class of a single one, else a line."""
    if alone:
        chances = sorted(found.probabilities.items(), key=lambda one: -one[1])[:FIRST]
        width = max(len(label) for label, _ in chances)
        return "".join(f"{label:<{width}}  {100 * chance:6.2f} %\n" for label, chance in chances)
    text = " ".join((found.text if found.pair is None else f"{found.text} / {found.pair}").split())
    short = text if len(text) <= WIDE else text[: WIDE - 3] + "..."
    sign = "" if found.truth is None else "  " if found.truth == found.label else "x "
    truth = f"  (true: {found.truth})" if sign == "x " else ""
    return f"{sign}{found.label:<12}{100 * found.probability:6.2f} %  {short}{truth}\n"


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(result: Result) -> None:
    """The sums, where there are any: standard output holds the answers already."""
    if result.texts > 1:
        shown = ", ".join(f"{count:,} {label}" for label, count in list(result.counts.items())[:FIRST])
        _remark(f"{result.texts:,} texts in {result.seconds:.1f} s: {shown}")
    if result.marks is not None:
        _remark(f"accuracy {100 * result.marks.accuracy:.2f} %  macro F1 {result.marks.macro_f1:.4f}  "
                f"loss {result.marks.loss:.4f}")  # fmt: skip
