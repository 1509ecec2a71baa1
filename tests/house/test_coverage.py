"""docs/coverage.md is true: every row of the documents is there, and what it names exists and asserts it."""

import dataclasses
from pathlib import Path

import pytest

import break_rows
import capabilities

LAST = {"T": 17, "L": 11, "E": 5, "A": 23, "M": 16, "G": 12, "P": 20, "W": 6, "C": 6, "I": 8, "R": 6, "X": 12}
GOOD = capabilities.Row("A14", "heads", "book 3.6", "values", "works", home=["optim.py"], figures=["book.3.6.mha"])


def test_every_row_of_the_documents_is_there_once_and_in_order():
    expected = [f"{letter}{number:02}" for letter, last in LAST.items() for number in range(1, last + 1)]
    assert [row.id for row in capabilities.rows()] == expected
    assert list(capabilities.chapters()) == list(LAST)


def test_what_every_row_says_is_so():
    """Homes, tests and figures exist; what works is asserted; only chapters 6 to 8 wait for a later part."""
    wrong = capabilities.problems(capabilities.rows())
    assert not wrong, "\n".join(wrong)


def test_no_test_and_no_figure_is_left_without_a_row():
    strangers = capabilities.strangers(capabilities.rows())
    assert not strangers, "\n".join(strangers)


def test_the_page_is_fresh():
    text = capabilities.PAGE.read_text(encoding="utf-8")
    assert text == capabilities.page(), "capabilities, tests or figures changed: run `make coverage`"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "nearly"}, "nobody knows the state 'nearly'"),
        ({"home": ["model/nowhere.py"]}, "lives in 'model/nowhere.py'"),
        ({"home": []}, "lives nowhere"),
        ({"tests": ["tests/test_optim.py::test_nothing_at_all"]}, "no test tests/test_optim.py::test_nothing_at_all"),
        ({"tests": ["tests/test_nowhere.py::test_clip"]}, "no test tests/test_nowhere.py::test_clip"),
        ({"figures": ["book.9.*"]}, "no figure book.9.*"),
        ({"id": "Z99", "figures": []}, "neither a test nor a figure that holds"),
        ({"id": "Z99", "figures": ["notes.3.6.mha_defect"]}, "neither a test nor a figure that holds"),
        ({"state": "not yet"}, "nobody knows the state 'not yet'"),
        ({"state": "background", "home": ["optim.py"]}, "no lesson tells of it"),
    ],
)
def test_what_is_not_so_is_told(change: dict, said: str):
    assert capabilities.problems([GOOD]) == []
    assert any(said in found for found in capabilities.problems([dataclasses.replace(GOOD, **change)]))


def test_tests_are_found_by_the_rows_in_their_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "tests" / "lessons"
    folder.mkdir(parents=True)
    (folder / "test_rung.py").write_text(
        'def test_one():\n    """A08, A09: equal rows."""\n\n\ndef test_two():\n    """Like A10: not at the start."""\n'
        '\n\ndef test_three():\n    pass\n\n\ndef help_four():\n    """A11: no test."""\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(capabilities, "ROOT", tmp_path)
    capabilities.by_docstring.cache_clear()
    try:
        assert capabilities.by_docstring() == {id: ["tests/lessons/test_rung.py::test_one"] for id in ("A08", "A09")}
        assert capabilities.strangers([GOOD])[:2] == [
            f"tests/lessons/test_rung.py::test_one names {id}, which is no row" for id in ("A08", "A09")
        ]
    finally:
        capabilities.by_docstring.cache_clear()


def test_what_is_broken_on_purpose_is_there_to_be_broken():
    """Each line that break_rows.py spoils stands in its file once, and is watched by a test of its row."""
    wrong = break_rows.misfits(break_rows.BREAKS)
    assert not wrong, "\n".join(wrong)
