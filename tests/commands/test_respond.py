"""`groundup respond`: every question answered once, in the form of its file, and nothing lost to a kill."""

import json
from pathlib import Path
from typing import Any

import pytest

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands import respond
from groundup.errors import DataError, SettingsError, TokenizerError
from groundup.generate.chat import answers, ending, template_of, with_tokens_of
from groundup.model import ModelConfig, build
from groundup.settings import Respond
from groundup.text.styles import STYLES
from groundup.tokens.rows import prompt_ids

TEXT = "abcdefghijklmnopqrstuvwxyz .?\n:|_<>#ABCDEFGHIJKLMNOPQRSTUVWXYZ"
QUESTIONS = ["who has the kettle?", "why?", "where is the boat", "who has the kettle?", "and what is this about"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tokens.train("chars", [TEXT], special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    template = with_tokens_of(tokenizer, STYLES["chatml"].template)
    tokenizer = ending(tokenizer.with_template(template.source), template)
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=128, width=32, layers=2, heads=4,
                         init="torch", tie=False)  # fmt: skip
    path = tmp_path_factory.mktemp("models") / "chatty"
    folder.save_model(path, build(config, seed=4), tokenizer, card={})
    return path


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    path = tmp_path / "test.json"
    entries = [{"instruction": text, "input": "", "output": "nobody"} for text in QUESTIONS]
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def settings(model: Path, data: Path, out: Path, **changes: Any) -> Respond:
    return Respond(model=str(model), data=str(data), out=out, **dict(max_tokens=8, threads=1, batch=2) | changes)


def expected(model: Path, *questions: str) -> list[str]:
    loaded = folder.load(model)
    talks = [[{"role": "user", "content": text}] for text in questions]
    return answers(loaded.model, loaded.tokenizer, template_of(loaded.tokenizer), talks, max_tokens=8)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_alpaca_comes_back_with_the_answers_beside(model: Path, alpaca: Path, tmp_path: Path):
    result = respond.run(settings(model, alpaca, tmp_path / "new" / "answers.json"))
    told = expected(model, *QUESTIONS)
    assert read(result.out) == [
        {"instruction": text, "input": "", "output": "nobody", "model_response": answer}
        for text, answer in zip(QUESTIONS, told, strict=True)
    ]
    assert result.rows == 5 and result.answered == 4  # one is asked twice
    assert result.exact == 0 and result.past_context == 0
    assert [path.name for path in result.out.parent.iterdir()] == ["answers.json"]


def test_the_last_question_of_each_conversation_is_answered(model: Path, tmp_path: Path):
    talks = [
        [("system", "be brief"), ("user", "who?"), ("assistant", "me"), ("user", "why?"), ("assistant", "so")],
        [("user", "open"), ("assistant", "yes"), ("user", "what?")],
        [("user", "where?")],
    ]
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = respond.run(settings(model, data, tmp_path / "answers.jsonl"))
    loaded = folder.load(model)
    asked = [rows[0]["messages"][:4], rows[1]["messages"], rows[2]["messages"]]
    told = answers(loaded.model, loaded.tokenizer, template_of(loaded.tokenizer), asked, max_tokens=8)
    found = [json.loads(line) for line in result.out.read_text(encoding="utf-8").splitlines()]
    assert found == [row | {"model_response": answer} for row, answer in zip(rows, told, strict=True)]
    assert result.exact == float(told[0] == "so")  # only one of them says what was expected


def test_exact_answers_are_counted_by_kind(model: Path, tmp_path: Path):
    kinds = ["who", "why", "where", "who", "what"]
    right = expected(model, *QUESTIONS)
    wrong = [text if kind != "who" else "nobody at all" for text, kind in zip(right, kinds, strict=True)]
    rows = [
        {"instruction": text, "output": answer, "kind": kind}
        for text, answer, kind in zip(QUESTIONS, wrong, kinds, strict=True)
    ]
    data = tmp_path / "test.json"
    data.write_text(json.dumps(rows), encoding="utf-8")
    result = respond.run(settings(model, data, tmp_path / "answers.json"))
    assert result.exact == 3 / 5
    assert result.tasks == {"who": (2, 0), "why": (1, 1), "where": (1, 1), "what": (1, 1)}


class Cut(Exception):
    """The plug is pulled."""


def pull(*given: Any) -> None:
    raise Cut


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("half", [b"", b'{"key": "12", "ans'])
def test_a_killed_run_goes_on_where_it_was(
    model: Path, alpaca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bytes, temperature: float
):
    changes = {"temperature": temperature, "seed": 5}
    whole = respond.run(settings(model, alpaca, tmp_path / "whole.json", **changes))
    out, written = tmp_path / "cut.json", []
    real = respond._line

    def line(file: Any, content: dict[str, Any]) -> None:
        if len(written) == 3:  # the head, and two answers
            raise Cut
        written.append(content)
        real(file, content)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(respond, "_line", line)
        respond.run(settings(model, alpaca, out, **changes))
    assert not out.exists()
    with (tmp_path / ".cut.json.answers").open("ab") as file:
        file.write(half)
    with monkeypatch.context() as patch, pytest.raises(Cut):  # and once more, just before the end
        patch.setattr(respond, "_write", pull)
        respond.run(settings(model, alpaca, out, **changes))
    assert len((tmp_path / ".cut.json.answers").read_bytes().splitlines()) == 1 + whole.answered
    assert not out.exists() and respond.run(settings(model, alpaca, out, **changes)).answered == 0
    assert out.read_bytes() == whole.out.read_bytes()
    assert not (tmp_path / ".cut.json.answers").exists()


def test_answers_of_another_model_or_other_settings_are_not_mixed(
    model: Path, alpaca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "answers.json"
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(respond, "_write", pull)
        respond.run(settings(model, alpaca, out))
    left = (tmp_path / ".answers.json.answers").read_bytes()
    with pytest.raises(SettingsError, match="made with another max_tokens\n.* or remove it: rm"):
        respond.run(settings(model, alpaca, out, max_tokens=9))
    assert (tmp_path / ".answers.json.answers").read_bytes() == left
    assert respond.run(settings(model, alpaca, out)).answered == 0


def test_a_damaged_file_aside_is_told(model: Path, alpaca: Path, tmp_path: Path):
    (tmp_path / ".answers.json.answers").write_bytes(b"not JSON\n")
    with pytest.raises(DataError, match="is damaged: line 1 .*\n.*remove it"):
        respond.run(settings(model, alpaca, tmp_path / "answers.json"))


@pytest.mark.parametrize(
    "line",
    ["[]", "3", "{}", '{"key": "k"}', '{"key": 1, "answer": "a", "tokens": 1, "finish": "end", "past_context": false}'],
)
def test_what_is_json_but_no_answer_is_damage_too(
    model: Path, alpaca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
):
    aside = tmp_path / ".answers.json.answers"
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(respond, "_write", pull)
        respond.run(settings(model, alpaca, tmp_path / "answers.json"))
    head, *lines = aside.read_text(encoding="utf-8").splitlines(keepends=True)
    aside.write_text("".join([head, f"{line}\n", *lines]), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged: line 2 "):
        respond.run(settings(model, alpaca, tmp_path / "answers.json"))
    if not line.startswith("{"):
        aside.write_text("".join([f"{line}\n", *lines]), encoding="utf-8")
        with pytest.raises(DataError, match="is damaged: line 1 "):
            respond.run(settings(model, alpaca, tmp_path / "answers.json"))


def test_a_question_that_cannot_be_asked_is_told_with_its_place(model: Path, tmp_path: Path):
    data = tmp_path / "test.json"
    data.write_text(json.dumps([{"instruction": "a"}, {"instruction": "caf\u00e9"}]), encoding="utf-8")
    with pytest.raises(TokenizerError, match="entry 1 of .*test.json"):
        respond.run(settings(model, data, tmp_path / "answers.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["test.json"]


def test_a_question_longer_than_the_context_is_counted(model: Path, tmp_path: Path):
    data = tmp_path / "test.json"
    data.write_text(json.dumps([{"instruction": "a" * 200, "output": "b"}]), encoding="utf-8")
    assert respond.run(settings(model, data, tmp_path / "answers.json")).past_context == 1


def test_a_question_that_slides_out_of_sight_while_it_is_answered_is_counted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both questions fit into the context of 128, one of them not with its answer; a kill forgets none of that."""
    loaded = folder.load(model)
    around = len(prompt_ids(loaded.tokenizer, template_of(loaded.tokenizer), [{"role": "user", "content": ""}]))
    data, out = tmp_path / "test.json", tmp_path / "answers.json"
    data.write_text(json.dumps([{"instruction": "a" * (128 - around - less)} for less in (3, 30)]), encoding="utf-8")
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(respond, "_write", pull)
        respond.run(settings(model, data, out))
    result = respond.run(settings(model, data, out))
    assert (result.answered, result.past_context) == (0, 1)


@pytest.mark.parametrize("name", ["answers.jsonl.gz", "answers.json.zst"])
def test_a_packed_file_is_not_promised(model: Path, alpaca: Path, tmp_path: Path, name: str):
    with pytest.raises(SettingsError, match=r"not written packed\n.*answers\.jsonl?$"):
        respond.run(settings(model, alpaca, tmp_path / name))
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no questions were given"),
        (["--data", "DATA"], "no file for the answers was given"),
        (["--data", "DATA", "--out", "DATA"], "exists already"),
        (["--data", "no/such.json", "--out", "new.json"], "no such file or name: no/such.json"),
    ],
)
def test_mistakes_are_told(model: Path, alpaca: Path, capsys, words: list[str], message: str):
    assert cli.main(["respond", str(model), *(word.replace("DATA", str(alpaca)) for word in words)]) == 2
    err = capsys.readouterr().err
    assert message in err and "  -> " in err


def test_the_command_line(model: Path, alpaca: Path, tmp_path: Path, capsys):
    words = ["respond", str(model), "--data", str(alpaca), "--max-tokens", "8", "--threads", "1", "--limit", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "a.json")]) == 0
    text = capsys.readouterr().out
    assert "2 answers in" in text and "exactly as expected: 0.0 %" in text and "groundup judge" in text
    assert cli.main([*words, "--out", str(tmp_path / "b.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
