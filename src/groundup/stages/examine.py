"""The test rows of a classifier: read once, when training is over, and never again.

In: a run folder and its parts. Out: RUN/test.json: marks, two baselines beside them, and the surest errors.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from groundup import machine as machines
from groundup.batches import sequential
from groundup.batches.labelled import LabelledRows, Reading
from groundup.checkpoint import atomic, folder
from groundup.checkpoint.folder import Loaded
from groundup.errors import CheckpointError
from groundup.evaluate.baseline import baselines
from groundup.evaluate.classes import Marks, Tally, predictions
from groundup.machine import Machine
from groundup.model.heads import Classifier
from groundup.text.labelled import Labelled
from groundup.text.split import Split

NAME = "test.json"
WORST = 10  # errors that are kept
SHOWN = 3  # and printed
ROWS = 32  # texts per forward pass


def once(out: Path, split: Split[Labelled]) -> dict[str, Any] | None:
    """What the test rows say of the weights in RUN/best; from test.json where that is there. None without test rows.

    The baselines learn from the training rows alone. With the book's protocol all training rows are judged, too, since
    the book prints that figure.
    """
    if not split.test:
        return None
    if not (out / NAME).is_file():
        _write(out, _marked(out, split))
    found = _read(out / NAME)
    if found.get("baselines") == {}:  # after the marks are safe: whatever becomes of a large table of words
        beside = baselines(_rows(split.train), _rows(split.test), labels=found["labels"])
        found["baselines"] = {"majority": beside.majority.accuracy, "bag of words": beside.words.accuracy}
        _write(out, found)
    return found


def _marked(out: Path, split: Split[Labelled]) -> dict[str, Any]:
    """What the classifier in a run folder makes of the test rows."""
    where = _weights(out)
    loaded = folder.load(where, dtype=torch.float32, classifier=True)
    told = loaded.card.get("settings", {})
    machine = machines.choose(**{name: told[name] for name in ("device", "dtype", "threads") if name in told})
    loaded.model.to(machine.device)
    marks, errors = judged(loaded, split.test, machine)
    found: dict[str, Any] = {"model": where.name, "step": loaded.card.get("steps"), **_plain(marks)}
    if told.get("protocol") == "book":
        found["train_accuracy"] = judged(loaded, split.train, machine)[0].accuracy
    return {**found, "baselines": {}, "worst": errors[:WORST]}


def _write(out: Path, found: dict[str, Any]) -> None:
    atomic.write_text(out / NAME, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _weights(out: Path) -> Path:
    return next((place for place in (out / "best", out / "model") if place.is_dir()), out / "model")


def step(out: Path) -> int | None:
    """The step of the weights that the test rows would be read with now; None where no card tells it."""
    card = _weights(out) / "card.json"
    found = atomic.read_json(card).get("steps") if card.is_file() else None
    return found if isinstance(found, int) else None


def judged(loaded: Loaded, rows: Sequence[Labelled], machine: Machine) -> tuple[Marks, list[dict[str, Any]]]:
    """Marks of a classifier on rows, and what it got wrong, first that of which it was surest.

    Raises CheckpointError for a row of a class that it does not know.
    """
    model = loaded.model
    assert isinstance(model, Classifier)
    reading = Reading.from_card(loaded.card, loaded.tokenizer, context=model.config.context)
    labels = model.head_config.labels
    if unknown := {row.label for row in rows} - set(labels):
        raise CheckpointError(f"{loaded.folder} knows no class {min(unknown)!r}", "use the run's own data folder")
    read = sorted(((reading.ids(loaded.tokenizer, row), row) for row in rows), key=lambda one: len(one[0]))
    truth = [labels.index(row.label) for _, row in read]  # the shortest first: together they need less filler
    source = LabelledRows([ids for ids, _ in read], truth, pad=0)
    tally, errors = Tally(labels), []
    said = predictions(model, sequential(source, ROWS), machine=machine)
    for (_, row), true, (chosen, chances) in zip(read, truth, said, strict=True):
        # logarithms of probabilities are logits of them; a probability of 0 would have none
        tally.add(chances.clamp(min=1e-300).log()[None], torch.tensor([true]))
        if chosen != true:
            errors.append(_error(row, labels[chosen], float(chances[chosen])))
    return tally.marks(), sorted(errors, key=lambda error: -error["probability"])


def _rows(rows: Sequence[Labelled]) -> list[tuple[str, str]]:
    """Texts with their classes; the two texts of a pair are one."""
    return [(row.text if row.pair is None else f"{row.text}\n{row.pair}", row.label) for row in rows]


def _error(row: Labelled, label: str, probability: float) -> dict[str, Any]:
    text = row.text if row.pair is None else f"{row.text} / {row.pair}"
    return {"text": text, "label": row.label, "predicted": label, "probability": probability, "where": row.where}


def _plain(marks: Marks) -> dict[str, Any]:
    return {**vars(marks), "bins": [vars(one) for one in marks.bins]}


def _read(path: Path) -> dict[str, Any]:
    """What `once` wrote; however many classes there are, so that no limit of other JSON files fits it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}", "restore it from a copy") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}", "restore it from a copy")
    return found


def words(test: dict[str, Any], *, best: int | None = None) -> list[str]:
    """The lines of a table for people: the test, the baselines, each class, the surest errors.

    best: the step of the weights in best/. A run that went on has others there than those that were tested, which is
    said: the test rows are read once all the same, or they would choose the weights in the end.
    """
    lines = [
        f"{'test':<14}accuracy {100 * test['accuracy']:6.2f} %   loss {test['loss']:.4f}   macro F1 "
        f"{test['macro_f1']:.4f}   calibration error {test['ece']:.4f}   ({test['rows']:,} rows, read once)"
    ]
    if None not in (best, test.get("step")) and best != test["step"]:
        lines.append(f"{'':<14}weights of step {test['step']:,}; {test.get('model', 'best')}/ is now of step {best:,}")
    lines += [f"{name:<14}accuracy {100 * value:6.2f} %" for name, value in test["baselines"].items()]
    width = min(24, max(5, *(len(label) for label in test["labels"])))
    lines.append(f"{'class':<{width}}  precision  recall      F1   rows")
    counts = [sum(row) for row in test["confusion"]]
    table = zip(test["labels"], test["precision"], test["recall"], test["f1"], counts, strict=True)
    lines += [f"{label[:width]:<{width}}  {p:9.4f}  {r:6.4f}  {f:6.4f}  {n:5,}" for label, p, r, f, n in table]
    if test["worst"]:
        lines.append("surest errors:")
    lines += [f"  {one['label']} taken for {one['predicted']} ({100 * one['probability']:.1f} %): "
              f"{' '.join(one['text'].split())[:90]}" for one in test["worst"][:SHOWN]]  # fmt: skip
    return lines
