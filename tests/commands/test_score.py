"""`groundup score`: one answer, a file of answers, pairs; raw or normalised; what cannot be scored is named."""

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from groundup import cli, tokens
from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.commands import predict, score
from groundup.errors import CheckpointError, DataError, SettingsError
from groundup.evaluate import scoring
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.settings import Predict, Score
from groundup.text.conversations import Conversation

SIGNS = "abcdefghijklmnopqrstuvwxyz .,?!\n0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS = tokens.train("chars", [SIGNS]).with_template("{% for m in messages %}{{ m.content + eos_token }}{% endfor %}")
CPU: dict[str, Any] = {"device": "cpu", "dtype": "fp32", "threads": 1}
ROWS = [("Who has it?", "Mira."), ("Where is it?", "In the boat."), ("What is a gull?", "A bird, and a loud one.")]


def saved(path: Path, head: HeadConfig | None = None) -> Path:
    config = ModelConfig(family="llama", vocabulary=LETTERS.vocabulary, context=48, width=16, layers=1, heads=2)
    model = Classifier(
        build(config, seed=1), head or HeadConfig(("reward",), kind="reward", mean=0.25, spread=0.5), seed=2
    )
    model.score.weight.data.mul_(50)
    folder.save_model(path, model, LETTERS, card={})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "reward")


def ask(model: Path, **settings: Any) -> score.Result:
    return score.run(Score.create(model=str(model), **CPU, **settings))


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def raw(model: Path, prompt: str, response: str) -> float:
    machine = machines.choose(**CPU)
    found = scoring.opened(model, machine=machine)
    talk = Conversation(({"role": "user", "content": prompt}, {"role": "assistant", "content": response}))
    return scoring.scores(found.model, found.tokenizer, found.template, [talk], machine=machine, batch=1,
                          normalise=False)[0]  # fmt: skip


def test_one_answer_raw_and_in_units_of_training(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = raw(model, *ROWS[0])
    plain = ask(model, prompt=ROWS[0][0], response=ROWS[0][1], raw=True)
    assert plain.average == pytest.approx(wanted, abs=1e-5) and not plain.normalised
    usual = ask(model, prompt=ROWS[0][0], response=ROWS[0][1])
    assert usual.average == pytest.approx((wanted - 0.25) / 0.5, abs=1e-5) and usual.normalised
    assert (usual.rows, usual.cut, usual.left, usual.accuracy, usual.pairs) == (1, 0, 0, None, [])
    capsys.readouterr()
    score.show(usual)
    assert capsys.readouterr().out == f"{usual.average:.4f}\n"


def test_an_answer_from_standard_input(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Mira."))
    assert ask(model, prompt="Who has it?", response="-").scores[0].response == "Mira."


FILES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "messages": ("jsonl", [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
                           for q, a in ROWS]),
    "alpaca": ("json", [{"instruction": q, "input": "", "output": a} for q, a in ROWS]),
    "answers as messages": ("jsonl", [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "Other."}], "model_response": a}
        for q, a in ROWS
    ]),
    "answers": ("json", [{"instruction": q, "input": "", "output": "Other.", "model_response": a} for q, a in ROWS]),
}  # fmt: skip


@pytest.mark.parametrize("form", FILES)
def test_a_packed_file_is_read_as_it_is_unpacked(model: Path, tmp_path: Path, form: str) -> None:
    """With a model's answers in it, too, which stand beside the expected ones."""
    kind, entries = FILES[form]
    text = json.dumps(entries) if kind == "json" else "\n".join(map(json.dumps, entries))
    (tmp_path / f"rows.{kind}.gz").write_bytes(gzip.compress(text.encode()))
    found = ask(model, file=tmp_path / f"rows.{kind}.gz")
    assert [(one.prompt, one.response) for one in found.scores] == ROWS


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_a_file_of_answers(model: Path, tmp_path: Path, form: str, batch: int) -> None:
    """A model's answers where the file has them, not the expected ones beside; in the order of the file."""
    kind, entries = FILES[form]
    path = tmp_path / f"rows.{kind}"
    path.write_text(json.dumps(entries) if kind == "json" else "\n".join(map(json.dumps, entries)), encoding="utf-8")
    result = ask(model, file=path, batch=batch, raw=True)
    assert [(one.prompt, one.response) for one in result.scores] == ROWS
    assert [one.score for one in result.scores] == pytest.approx([raw(model, *row) for row in ROWS], abs=1e-5)
    assert result.average == pytest.approx(sum(one.score for one in result.scores) / 3) and result.rows == 3
    assert "rows" in result.scores[1].where


def test_answers_that_are_missing_are_left_out_and_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"instruction": q, "output": "Other.", "model_response": a} for q, a in ROWS]
    entries[0]["model_response"] = None  # type: ignore[assignment]
    entries[1]["model_response"] = "  "
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    result = ask(model, file=path)
    assert result.left == 2 and [one.response for one in result.scores] == [ROWS[2][1]]
    capsys.readouterr()
    score.show(result)
    assert "2 rows have no score" in capsys.readouterr().err


def test_pairs_are_won_lost_and_drawn(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better, worse = sorted(("Mira.", "In the boat."), key=lambda answer: -raw(model, "Who has it?", answer))
    rows = [{"prompt": "Who has it?", "chosen": better, "rejected": worse},
            {"prompt": "Who has it?", "chosen": worse, "rejected": better},
            {"prompt": "Who has it?", "chosen": f" {better}", "rejected": worse},
            {"prompt": "Who has it?", "chosen": better, "rejected": better},
            {"prompt": "Who has it?", "chosen": better, "rejected": ""}]  # fmt: skip
    result = ask(model, file=as_jsonl(tmp_path / "pairs.jsonl", rows), raw=True)
    assert [one.right for one in result.pairs] == [True, False, True] and result.left == 2
    assert result.accuracy == pytest.approx(2 / 3) and result.rows == 3 and result.scores == []
    first = result.pairs[0]
    assert first.chosen_score == pytest.approx(raw(model, "Who has it?", better), abs=1e-5)
    assert first.rejected_score == pytest.approx(raw(model, "Who has it?", worse), abs=1e-5)
    capsys.readouterr()
    score.show(result)
    shown = capsys.readouterr()
    assert "right   Who has it?" in shown.out and "wrong   Who has it?" in shown.out
    assert "66.67 % of 3 pairs" in shown.err


def test_pairs_of_every_form_are_known_as_such(model: Path, tmp_path: Path) -> None:
    forms = [
        [{"prompt": "a", "response_1": "b", "response_2": "c", "preferred": 2}],
        [{"instruction": "a", "input": "", "output": "x", "chosen": "c", "rejected": "b"}],
        [{"chosen": "\n\nHuman: a\n\nAssistant: c", "rejected": "\n\nHuman: a\n\nAssistant: b"}],
    ]
    for number, rows in enumerate(forms):
        result = ask(model, file=as_jsonl(tmp_path / f"{number}.jsonl", rows))
        assert [(one.prompt, one.chosen, one.rejected) for one in result.pairs] == [("a", "c", "b")]


def test_equal_scores_are_half_right(tmp_path: Path) -> None:
    path = saved(tmp_path / "blind")
    loaded = folder.load(path, classifier=True)
    assert isinstance(loaded.model, Classifier)
    loaded.model.score.weight.data.zero_()
    folder.save_model(path, loaded.model, loaded.tokenizer, card={})
    rows = as_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    result = ask(path, file=rows)
    assert result.accuracy == 0.5 and result.pairs[0].right is None


def test_a_long_prompt_is_cut_and_told(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = ask(model, prompt="word " * 30, response="Mira.")
    assert result.cut == 1 and result.scores[0].cut == 5 * 30 + 1 + 5 - 48
    capsys.readouterr()
    score.show(result)
    assert "the beginning of their prompts was not read" in capsys.readouterr().err


def test_lines_go_to_a_file_or_to_standard_output(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = as_jsonl(tmp_path / "rows.jsonl", FILES["messages"][1])
    result = ask(model, file=rows, out=tmp_path / "new" / "scores.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "new" / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["score"] for line in lines] == [one.score for one in result.scores]
    assert lines[0].keys() == {"prompt", "response", "score", "where"}
    capsys.readouterr()
    words = ["score", str(model), "--file", str(rows), "--out=-", "--device", "cpu", "--dtype", "fp32"]
    assert cli.main(words) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert cli.main([*words, "--json"]) == 0  # one object, and not the lines before it
    assert json.loads(capsys.readouterr().out)["rows"] == 3


def test_the_command_prints_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", str(model), "--prompt", "a", "--response", "b", "--device", "cpu", "--dtype", "fp32", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scores"][0]["score"] == found["average"] and found["normalised"] and found["spread"] == 0.5


def test_a_model_without_mean_and_spread_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = saved(tmp_path / "plain", HeadConfig(("reward",), kind="reward"))
    wanted = raw(plain, "a", "b")
    capsys.readouterr()
    result = ask(plain, prompt="a", response="b")
    assert not result.normalised and result.average == pytest.approx(wanted, abs=1e-5)
    assert capsys.readouterr().err.count("without mean and spread") == 1
    ask(plain, prompt="a", response="b", raw=True)
    assert capsys.readouterr().err == ""


def test_control_characters_do_not_reach_the_terminal(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\x1b" not in score._short("a\x1b[31mb") and len(score._short("long " * 99)) == score.WIDE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no answer was given"),
        ({"prompt": "a"}, "no answer was given"),
        ({"response": "a"}, "no --prompt was given"),
        ({"prompt": "a", "response": "b", "file": Path("x.json")}, "--file was given beside"),
        ({"file": Path("x.json"), "response": "b"}, "--file was given beside"),
        ({"prompt": "a", "response": " \n"}, "the response is empty"),
        ({"prompt": "", "response": "b"}, "the prompt is empty"),
        ({"file": Path("no/such.json")}, "no such file or name"),
        ({"prompt": "a", "response": "b", "template": "chatml"}, "which the reward model"),
        ({"prompt": "a", "response": "b", "template": "chatlm"}, "no prompt style 'chatlm'"),
        ({"prompt": "a", "response": "x" * 60}, "leaves no room for a prompt"),
        ({"prompt": "a", "response": "Ünknown"}, "cannot be"),
    ],
)
def test_what_is_refused(model: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises((SettingsError, DataError), match=said) as caught:
        ask(model, **given)
    assert caught.value.fix


def test_files_that_are_refused(model: Path, tmp_path: Path) -> None:
    unanswered = as_jsonl(tmp_path / "open.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    with pytest.raises(DataError, match="has no answer that could be scored"):
        ask(model, file=unanswered)
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps([{"instruction": "a", "output": "b", "model_response": ""}]), encoding="utf-8")
    with pytest.raises(DataError, match="no answer that says anything"):
        ask(model, file=empty)
    equal = as_jsonl(tmp_path / "equal.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}])
    with pytest.raises(DataError, match="no pair of two answers"):
        ask(model, file=equal)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"prompt": "a"', encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        ask(model, file=broken)
    with pytest.raises(DataError, match="cannot write"):
        (tmp_path / "file").write_text("", encoding="utf-8")
        ask(model, prompt="a", response="b", out=tmp_path / "file" / "scores.jsonl")


def test_models_that_are_refused(tmp_path: Path) -> None:
    classes = saved(tmp_path / "classes", HeadConfig(("ham", "spam")))
    with pytest.raises(CheckpointError, match="groundup predict"):
        ask(classes, prompt="a", response="b")
    with pytest.raises(SettingsError, match="no model was given"):
        score.run(Score.create(prompt="a", response="b"))
    with pytest.raises(CheckpointError):
        ask(tmp_path / "nothing", prompt="a", response="b")


def test_predict_sends_a_reward_model_here(model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a reward model.*\n.*groundup score"):
        predict.run(Predict.create(model=str(model), text="a", **CPU))
