"""`groundup chat`: a pipe is a script, a terminal forgives; what is said is what is saved."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands import chat
from groundup.errors import DataError, SettingsError
from groundup.generate import chat as chats
from groundup.generate.chat import answers, ending, template_of, with_tokens_of
from groundup.model import ModelConfig, build
from groundup.settings import Chat
from groundup.text import conversations
from groundup.text.styles import STYLES

TEXT = "abcdefghijklmnopqrstuvwxyz .?\n:|_<>/"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that nobody taught to chat."""
    path = tmp_path_factory.mktemp("models") / "base"
    tokenizer = tokens.train("chars", [TEXT], special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=192, width=32, layers=2, heads=4,
                         init="torch", tie=False)  # fmt: skip
    folder.save_model(path, build(config, seed=4), tokenizer, card={})
    return path


@pytest.fixture(scope="module")
def chatty(base: Path) -> Path:
    """The same with a template."""
    loaded = folder.load(base)
    template = with_tokens_of(loaded.tokenizer, STYLES["chatml"].template)
    tokenizer = ending(loaded.tokenizer.with_template(template.source), template)
    path = base.parent / "chatty"
    folder.save_model(path, loaded.model, tokenizer, card={})
    return path


def settings(model: Path, **changes: object) -> Chat:
    return Chat(model=str(model), **dict(max_tokens=6, temperature=0, threads=1) | changes)


def piped(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A terminal, at which someone types these lines and then Ctrl-D."""
    waiting = iter(lines)

    def answer(prompt: str) -> str:
        line = next(waiting, None)
        if line is None:
            raise EOFError
        if line == "^C":
            raise KeyboardInterrupt
        return line

    piped(monkeypatch)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)


def expected(model: Path, *talk: tuple[str, str]) -> str:
    loaded = folder.load(model)
    messages = [{"role": role, "content": text} for role, text in talk]
    return answers(loaded.model, loaded.tokenizer, template_of(loaded.tokenizer), [messages], max_tokens=6)[0]


def test_one_turn_a_line_through_a_pipe(chatty: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    piped(monkeypatch, "who has the kettle?", "", "why?")
    said: list[str] = []
    result = chat.run(settings(chatty), emit=said.append)
    first = expected(chatty, ("user", "who has the kettle?"))
    second = expected(chatty, ("user", "who has the kettle?"), ("assistant", first), ("user", "why?"))
    roles = ["user", "assistant"] * 2
    texts = ["who has the kettle?", first, "why?", second]
    assert result.messages == [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
    assert [line.rstrip() for line in "".join(said).splitlines()] == [*first.splitlines(), *second.splitlines()]
    assert result.turns == 2 and 2 <= result.tokens <= 12
    assert capsys.readouterr().out == ""


def test_the_command_line_prints_answers_or_json(chatty: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    words = ["chat", str(chatty), "--max-tokens", "6", "--temperature", "0", "--threads", "1"]
    piped(monkeypatch, "who?")
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    piped(monkeypatch, "who?")
    assert cli.main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["messages"][1]["content"] == text.rstrip() == expected(chatty, ("user", "who?"))


def test_commands(chatty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    file = tmp_path / "talk.jsonl"
    piped(monkeypatch, "one", "/system be brief", "two", f"/save {file}", "/reset", "//three", "/help", "/quit", "four")
    result = chat.run(settings(chatty))
    told = ("system", "be brief")
    two, three = (expected(chatty, told, ("user", text)) for text in ("two", "/three"))
    assert [message["content"] for message in result.messages] == ["be brief", "/three", three]
    [saved] = conversations.read(file)
    assert [(m["role"], m["content"]) for m in saved.messages] == [told, ("user", "two"), ("assistant", two)]
    err = capsys.readouterr().err
    assert "/save FILE" in err and f"saved in {file}" in err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["/sav talk"], "there is no command /sav\n  -> did you mean '/save'?"),
        (["/save"], "/save needs the name of a file"),
        (["/save new.jsonl"], "there is nothing to save yet"),
        (["hi", "/save HERE/there.jsonl"], "exists already"),
        (["hi", "/save HERE/there"], "say /save HERE/there.jsonl"),
        (["hi", "/save HERE/new.json"], "would hold JSONL under another name"),
        (["hi", "/save ~nosuchuser/talk.jsonl"], "cannot write '~nosuchuser/talk.jsonl'"),
        (["hi", "/save HERE/a\0b.jsonl"], "cannot write"),
        (["hi", f"/save HERE/{'a' * 300}.jsonl"], "cannot write"),
        (["a" * 500], "tokens with what the template adds, the context is 192"),
        (["é"], "é"),
    ],
)
def test_mistakes_end_a_script_and_are_told_in_a_terminal(
    chatty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, lines: list[str], message: str
):
    (tmp_path / "there.jsonl").write_text("precious", encoding="utf-8")
    lines, message = [line.replace("HERE", str(tmp_path)) for line in lines], message.replace("HERE", str(tmp_path))
    piped(monkeypatch, *lines, "and then?")
    assert cli.main(["chat", str(chatty), "--max-tokens", "3", "--temperature", "0", "--threads", "1"]) == 2
    assert message in capsys.readouterr().err
    typed(monkeypatch, *lines, "and then?")
    result = chat.run(settings(chatty, max_tokens=3))
    assert message in capsys.readouterr().err
    assert result.messages[-2]["content"] == "and then?"
    assert (tmp_path / "there.jsonl").read_text(encoding="utf-8") == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["there.jsonl"]


def test_a_turn_that_got_no_words_is_not_saved(chatty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """A model that ends at once: its answer is "", which no file of conversations has room for."""
    real = chats.Chat._pieces

    def pieces(self: chats.Chat, ids: list[int]) -> Iterator[str]:
        if self.messages:  # all but the first
            self.finish = "end"
            return
        yield from real(self, ids)

    monkeypatch.setattr(chats.Chat, "_pieces", pieces)
    file = tmp_path / "talk.jsonl"
    piped(monkeypatch, "one", "two", f"/save {file}")
    result = chat.run(settings(chatty))
    assert [message["content"] for message in result.messages[2:]] == ["two", ""]
    [saved] = conversations.read(file)
    assert [message["content"] for message in saved.messages] == ["one", expected(chatty, ("user", "one"))]
    assert "got no words for an answer: 1" in capsys.readouterr().err


def test_what_was_saved_in_this_session_may_be_saved_again(chatty: Path, tmp_path: Path, monkeypatch):
    file = tmp_path / "talk.jsonl"
    piped(monkeypatch, "one", f"/save {file}", "two", f"/save {file}")
    chat.run(settings(chatty))
    assert len(conversations.read(file)[0].messages) == 4


def test_ctrl_c_stops_the_answer_and_not_the_program(chatty: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(text: str) -> None:
        heard.append(text)
        if len(heard) == 2:
            raise KeyboardInterrupt

    heard: list[str] = []
    typed(monkeypatch, "^C", "one", "two")
    result = chat.run(settings(chatty), emit=interrupted)
    whole = expected(chatty, ("user", "one"))
    assert whole.startswith("".join(heard[:2]).rstrip()) and len(heard[0] + heard[1]) < len(whole)
    assert result.messages[1]["content"] == "".join(heard[:2]).rstrip()
    assert result.messages[2] == {"role": "user", "content": "two"} and result.turns == 2
    err = capsys.readouterr().err
    assert "(stopped)" in err and "Ctrl-D or /quit leaves" in err
    heard.clear()
    piped(monkeypatch, "one", "two")
    with pytest.raises(KeyboardInterrupt):
        chat.run(settings(chatty), emit=interrupted)


def test_a_base_model_is_refused_unless_a_template_is_named(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path):
    piped(monkeypatch, "one")
    with pytest.raises(SettingsError, match="is a base model: .*not taught to chat\n.*groundup instruct --model"):
        chat.run(settings(base))
    jinja = tmp_path / "own.jinja"
    jinja.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", encoding="utf-8")
    assert chat.run(settings(base, template=str(jinja))).turns == 1
    with pytest.raises(SettingsError, match=r"--template phi3 writes <\|system\|>, .*which this model never saw"):
        chat.run(settings(base, template="phi3"))


def test_the_context_is_said_to_be_full_once(chatty: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    piped(monkeypatch, *(f"{letter} " * 20 for letter in "abcdef"))
    chat.run(settings(chatty))
    assert capsys.readouterr().err.count("outgrew the context of 192 tokens") == 1


def test_input_that_is_no_text_is_refused(chatty: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    with pytest.raises(DataError, match="standard input is not UTF-8"):
        chat.run(settings(chatty))


def test_no_model_is_told():
    with pytest.raises(SettingsError, match="no model was given"):
        chat.run(Chat())
