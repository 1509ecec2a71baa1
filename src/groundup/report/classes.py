"""How a classifier's run went, in pictures: accuracy over steps, the confusion matrix, the calibration of its test.

In: a `Run` whose journal has accuracies and whose folder may hold test.json. Out: one section of HTML, "" for any other
run. Nothing in test.json is trusted: what is not as stages/examine.py writes it is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from groundup.report import pairs, parts
from groundup.report.chart import Chart, Line, draw
from groundup.report.read import Run, number
from groundup.report.reliability import bins, reliability

MOST = 20  # classes of a matrix that can be read; of more, the pairs most often mixed up are listed
PAIRS = 15


@dataclass(frozen=True)
class Test:
    """What test.json says, checked: counts (C, C) by true class and predicted class, and (n, 5) bins of calibration.

    A row of `bins`: low, high, rows, mean confidence, accuracy.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray
    bins: np.ndarray
    accuracy: float
    ece: float
    baselines: Mapping[str, float]
    worst: Sequence[Mapping[str, Any]]


def section(run: Run) -> str:
    """The part of the page that tells of classes, or nothing."""
    if run.command in pairs.COMMANDS:  # their accuracy is that of an order
        return ""
    curve, test = accuracy(run), read(run.test)
    if not curve and test is None:
        return ""
    figures = [curve] if curve else []
    told = ""
    if test is not None:
        figures.append(calibration(test))
        told = f"{_summary(test)}{parts.earlier(run)}{confusion(test)}{_errors(test)}"
    side = "".join(f"<div>{figure}</div>" for figure in figures if figure)
    return f'<h2>Classes</h2><div class="side">{side}</div>{told}'


def read(found: Mapping[str, Any]) -> Test | None:
    """The content of test.json where it is whole and its parts fit each other, else None.

    >>> read({"labels": ["a", "b"], "confusion": [[1, 0]]}) is None
    True
    """
    labels = found.get("labels")
    counts = _matrix(found.get("confusion"))
    if not isinstance(labels, list) or len(labels) < 2 or counts.shape != (len(labels), len(labels)):
        return None
    if not counts.sum() > 0 or (counts < 0).any():
        return None
    baselines, worst = found.get("baselines"), found.get("worst")
    return Test(
        labels=tuple(str(label) for label in labels),
        confusion=counts,
        bins=bins(found.get("bins")),
        accuracy=float(np.trace(counts) / counts.sum()),
        ece=number(found.get("ece")),
        baselines={str(k): number(v) for k, v in baselines.items()} if isinstance(baselines, dict) else {},
        worst=[one for one in worst if isinstance(one, dict)] if isinstance(worst, list) else [],
    )


def _matrix(rows: Any) -> np.ndarray:
    """Rows of finite numbers, float64 (n, m); (0, 0) for anything else."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        return np.zeros((0, 0))
    if len({len(row) for row in rows}) != 1:
        return np.zeros((0, 0))
    found = np.array([[number(value) for value in row] for row in rows], dtype=np.float64)
    return found if np.isfinite(found).all() else np.zeros((0, 0))


def accuracy(run: Run) -> str:
    """Accuracy on validation and training rows against steps; a run without any gives nothing."""
    lines = []
    for column, name, style in (("train_accuracy", "training rows", "c0"), ("accuracy", "validation rows", "c1")):
        steps, values = run.evaluations.whole(column)
        if len(steps):
            lines.append(Line(steps.astype(np.float64), values, style=style, name=name, dots=True))
    return draw(Chart("Accuracy", "steps", lines)) if lines else ""


def _summary(test: Test) -> str:
    total = int(test.confusion.sum())
    beside = [f"{name} {100 * value:.2f} %" for name, value in test.baselines.items() if np.isfinite(value)]
    words = f"{100 * test.accuracy:.2f} % of {total:,} test rows are right"
    return f'<p class="under">{escape("; ".join([words, *beside]))}. The test rows were read once, after training.</p>'


def confusion(test: Test) -> str:
    """The matrix as a table whose cells are the darker the more rows they hold; of many classes the worst pairs."""
    if len(test.labels) > MOST:
        return f"<h3>Most often mixed up</h3>{_pairs(test)}"
    labels, counts = [parts.text(label[:40]) for label in test.labels], test.confusion
    wide = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    body = []
    for true, label in enumerate(labels):
        cells = [_cell(int(counts[true, said]), counts[true, said] / wide[true, 0], right=true == said)
                 for said in range(len(labels))]  # fmt: skip
        rows = f'<td class="number">{int(wide[true, 0]):,}</td>'
        body.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}{rows}</tr>')
    head = "".join(f'<th scope="col" class="number">{label}</th>' for label in labels)
    return (
        "<h3>Confusion: true class by row, predicted class by column</h3>"
        f'<div class="wide"><table class="confusion"><thead><tr><th scope="col"></th>{head}'
        f'<th scope="col" class="number">rows</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        '<p class="under">blue: right; orange: taken for another class; the share is that of the row</p>'
    )


def _cell(count: int, share: float, *, right: bool) -> str:
    # a share of 1 % must still be seen, and ink must be readable on the darkest cell, in a light page and a dark one
    colour = f"color-mix(in srgb,var(--{'c0' if right else 'c1'}) {(8 + 47 * share) if count else 0:.0f}%,transparent)"
    return f'<td class="number" style="background:{colour}">{count:,} <span class="was">{100 * share:.1f} %</span></td>'


def _pairs(test: Test) -> str:
    wrong = test.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    rows = []
    for true, said in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, said]:
            names = (parts.text(test.labels[true][:60]), parts.text(test.labels[said][:60]))
            rows.append([*names, f"{int(wrong[true, said]):,}"])
    return parts.table(("true class", "taken for", "rows"), rows, numbers=1)


def calibration(test: Test) -> str:
    """Of the rows that were given a probability, how many are right: bars on the line mean that it can be believed."""
    return reliability(test.bins, test.ece, of="probability of the chosen class")


def _errors(test: Test) -> str:
    """The errors that the model was surest of."""
    if not test.worst:
        return ""
    rows = []
    for one in test.worst[:10]:
        sure = number(one.get("probability"))
        names = [parts.text(one.get(name)) for name in ("label", "predicted")]
        shown = f"{100 * sure:.1f} %" if np.isfinite(sure) else "\u2013"
        rows.append([parts.text(str(one.get("text"))[:300]), *names, shown])
    head = ("text", "true class", "taken for", "probability")
    return f"<details><summary>{len(rows)} surest errors</summary>{parts.table(head, rows, numbers=1)}</details>"
