"""The pictures of a classifier: numbers where they belong, nothing trusted that a file says."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup import report
from groundup.report import classes
from groundup.report.read import Run, Table, load

EVIL = "</td><script>alert(1)</script>"
BIN = {"low": 0.9, "high": 1.0, "rows": 8, "confidence": 0.95, "accuracy": 0.75}
TEST: dict[str, Any] = {
    "labels": ["ham", "spam"],
    "confusion": [[6, 1], [2, 1]],
    "accuracy": 0.7,
    "ece": 0.2,
    "bins": [{"low": 0.5, "high": 0.6, "rows": 2, "confidence": 0.55, "accuracy": 0.5}, BIN],
    "baselines": {"majority": 0.7, "bag of words": 0.9},
    "worst": [{"text": "win!", "label": "spam", "predicted": "ham", "probability": 0.99}],
}


class Cells(HTMLParser):
    """The cells of every table, row by row, and the tags that were seen."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows, self.tags, self._in = list[list[str]](), list[str](), False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in = False

    def handle_data(self, data: str) -> None:
        if self._in:
            self.rows[-1][-1] += data


def test_the_matrix_shows_counts_and_shares_by_row() -> None:
    found = classes.read(TEST)
    assert found is not None and found.accuracy == 0.7
    head, *rows = Cells(classes.confusion(found)).rows
    assert head == ["", "ham", "spam", "rows"]
    assert rows == [["ham", "6 85.7 %", "1 14.3 %", "7"], ["spam", "2 66.7 %", "1 33.3 %", "3"]]


def test_of_many_classes_the_worst_pairs_are_listed() -> None:
    labels = [f"class {number}" for number in range(classes.MOST + 1)]
    counts = np.eye(len(labels), dtype=int) * 5
    counts[3, 7], counts[9, 1] = 4, 2
    found = classes.read(TEST | {"labels": labels, "confusion": counts.tolist()})
    assert found is not None
    rows = Cells(classes.confusion(found)).rows
    assert rows[1:] == [["class 3", "class 7", "4"], ["class 9", "class 1", "2"]]


def test_calibration_draws_a_bar_for_each_bin_with_rows() -> None:
    empty = {"low": 0.6, "high": 0.7, "rows": 0, "confidence": 0.0, "accuracy": 0.0}
    found = classes.read(TEST | {"bins": [*TEST["bins"], empty]})
    assert found is not None
    drawn = classes.calibration(found)
    assert "M500.0 1000V500.0H600.0V1000Z" in drawn and "M900.0 1000V250.0H1000.0V1000Z" in drawn
    assert drawn.count('Z"') == 2 and "mean gap 0.200" in drawn
    assert "given 0.95, right 0.75 (8 rows)" in drawn


@pytest.mark.parametrize(
    "change",
    [
        {"labels": None}, {"labels": ["a"]}, {"confusion": [[1, 2]]}, {"confusion": [[1, 2], [3]]}, {"confusion": "x"},
        {"confusion": [[1, math.nan], [0, 1]]}, {"confusion": [[1, -1], [0, 1]]}, {"confusion": [[0, 0], [0, 0]]},
    ],
)  # fmt: skip
def test_a_test_that_is_not_whole_is_left_out(change: dict[str, Any]) -> None:
    assert classes.read(TEST | change) is None
    assert classes.section(Run(test=TEST | change)) == ""


def test_what_is_missing_or_wrong_beside_the_matrix_leaves_the_rest() -> None:
    for change in ({"bins": 3}, {"bins": [{"low": "x"}]}, {"baselines": []}, {"worst": "no"}, {"ece": None}):
        drawn = classes.section(Run(test=TEST | change))
        assert "Confusion" in drawn
    assert "Calibration" not in classes.section(Run(test=TEST | {"bins": None}))


def test_text_from_outside_is_shown_not_obeyed() -> None:
    worst = [{"text": EVIL, "label": EVIL, "predicted": EVIL, "probability": EVIL}]
    evil = TEST | {"labels": ["ham", EVIL], "worst": worst, "baselines": {EVIL: 0.5}}
    drawn = classes.section(Run(test=evil))
    assert "script" not in Cells(drawn).tags and "&lt;script&gt;" in drawn


def test_accuracy_is_drawn_where_the_journal_has_it() -> None:
    records = [{"step": step, "loss": 0.5, "accuracy": step / 10, "train_accuracy": 0.9} for step in (0, 5, 10)]
    drawn = classes.section(Run(evaluations=Table(records)))
    assert "<h2>Classes</h2>" in drawn and 'data-name="validation rows"' in drawn and "training rows" in drawn
    assert classes.section(Run(evaluations=Table([{"step": 1, "loss": 2.0}]))) == ""


def test_a_test_of_earlier_weights_is_called_so() -> None:
    evaluations = Table([{"step": step, "loss": loss} for step, loss in ((0, 0.7), (10, 0.5), (20, 0.4), (30, 0.6))])
    said = "weights of step 10; best/ is now of step 20"
    drawn = [classes.section(Run(evaluations=evaluations, test=TEST | {"model": "best", "step": step}))
             for step in (10, 20, None, "x")]  # fmt: skip
    assert [said in one for one in drawn] == [True, False, False, False]
    assert "best/ is now" not in "".join(drawn[1:])


def test_a_page_of_a_run_that_classifies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "settings.toml").write_text("steps = 2\n", encoding="utf-8")
    records = [{"step": step, "kind": "eval", "loss": 0.5, "accuracy": 0.8} for step in (1, 2)]
    records.append({"step": 2, "kind": "train", "loss": 0.4, "tokens": 10, "seconds": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    (folder / "test.json").write_text(json.dumps(TEST), encoding="utf-8")
    config = {"id2label": {"0": "ham", "1": "spam"}, "vocab_size": 50257}
    (folder / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load(folder).vocabulary is None  # guessing among two classes costs ln 2, not ln 50,257
    page = report.write(folder).read_text(encoding="utf-8")
    assert "Confusion: true class by row" in page and "Calibration" in page and "guessing" not in page
    (folder / "test.json").write_text("{", encoding="utf-8")
    assert "Confusion" not in report.write(folder).read_text(encoding="utf-8")
