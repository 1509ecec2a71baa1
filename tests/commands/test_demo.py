"""The demo: what it prints, how its answers are counted, and both halves put together at a tiny size."""

import dataclasses
import json
from pathlib import Path

import pytest

from groundup.commands import demo, demo_questions
from groundup.commands.demo_questions import Answered, Example
from groundup.errors import SettingsError
from groundup.settings import Demo
from groundup.text import conversations
from groundup.text.harbor.questions import Question, questions

ANSWERED = Answered(
    out=Path("runs/demo/questions"),
    asked=200,
    right=190,
    by_kind={"who found it": 0.99, "who keeps it": 0.91},
    majority=0.125,
    copy_last=0.3,
    examples=[
        Example("A scene.\n\nWho keeps the key now?", "Odo keeps it.", "Odo keeps it."),
        Example("Where?", "At the mill.", "On the pier."),
    ],
    seconds=101.4,
)


def half_right(out: Path, asked: list[Question], *, threads: int | None) -> list[str]:
    """A stand-in for the tuned model: every second answer is right, the others are empty."""
    return [each.answer if number % 2 == 0 else "" for number, each in enumerate(asked)]


def test_the_page_shows_answers_and_what_guessing_reaches() -> None:
    page = "\n".join(demo_questions.lines(ANSWERED))
    assert "A scene.\n\nWho keeps the key now?\n  -> Odo keeps it.\n" in page
    assert "-> At the mill.   (wrong: On the pier.)" in page
    assert "190 of 200 questions (95.0 %) answered exactly" in page
    assert "the usual answer 12.5 %, the last one mentioned 30.0 %" in page
    assert "hardest first: who keeps it 91 %, who found it 99 %" in page


def test_answers_are_counted_in_all_and_by_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tuned = []
    monkeypatch.setattr(demo_questions.instruct, "run", tuned.append)
    monkeypatch.setattr(demo_questions, "_answers", half_right)
    found = demo_questions.run(Demo(out=tmp_path, questions=100, seed=3))
    assert (found.asked, found.right) == (100, 50)
    assert all(0 < share < 1 for share in found.by_kind.values())
    assert found.majority < 0.5 and found.copy_last < 0.5
    asked = list(questions(3, 100, split="test"))
    shown = [next(each for each in asked if each.prompt == example.prompt) for example in found.examples]
    assert len({each.kind for each in shown}) == demo_questions.SHOWN and shown[0] == asked[0]
    for each, example in zip(shown, found.examples, strict=True):
        right = asked.index(each) % 2 == 0
        assert (example.expected, example.answer) == (each.answer, each.answer if right else "")
    assert tuned[0].model == str(tmp_path) and tuned[0].out == found.out == tmp_path / "questions"


def test_tuning_sees_no_question_of_the_test() -> None:
    """What the demo asks is made apart; the stage must not keep a test share of the training data for nothing."""
    recipe = demo_questions.recipe(Demo(seed=5))
    assert recipe.data == [f"harbor-questions:{demo_questions.ROWS}:5"] and recipe.test == 0
    rows = conversations.read(recipe.data[0])
    learnt = {row.messages[0]["content"].partition("\n\n")[0] for row in rows if not row.held_out}
    assert not learnt & {each.scene for each in questions(5, 200, split="test")}
    parts = conversations.split(rows, validation=recipe.validation, test=recipe.test, seed=5)
    assert len(parts.valid) == 300 and not parts.test  # what is held out, and no more than measures well
    assert 5_900 <= len(parts.train) <= 6_000


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("Dear Odo", encoding="utf-8")
    with pytest.raises(SettingsError, match="no earlier demo"):
        demo.clear(tmp_path)
    assert (tmp_path / "letters.txt").read_text(encoding="utf-8") == "Dear Odo"


@pytest.mark.slow
def test_both_halves_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too small to learn anything: every part is there, and a second demo replaces the first."""
    stories, tuning = demo.recipe, demo_questions.recipe
    short = {"steps": 3, "eval_every": 3, "threads": 1}
    tiny = {"size": "1m", "layers": 1, "width": 32, "eval_tokens": 500}
    monkeypatch.setattr(demo, "recipe", lambda asked: stories(asked).replace(**short, **tiny))
    monkeypatch.setattr(
        demo_questions,
        "recipe",
        lambda asked: tuning(asked).replace(**short, epochs=None, data=["harbor-questions:60:1"], validation=0.1),
    )
    monkeypatch.setattr(demo, "TEXT", ["harbor:200"])
    for _ in range(2):
        result = demo.run(Demo(out=tmp_path / "demo", stories=2, questions=6, threads=1))
    assert result.stories == 2 and result.answered.asked == 6
    assert json.dumps(dataclasses.asdict(result), default=str)
    assert (tmp_path / "demo" / "questions" / "model" / "model.safetensors").is_file()
    demo.show(result)
    page = capsys.readouterr().out
    assert "of 6 questions" in page and "groundup chat" in page
