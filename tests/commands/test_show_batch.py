"""`groundup show-batch`: what is shown is the mask that the loss gets, in a pipe, in colours and on a page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands.show_batch import run
from groundup.commands.show_batch_page import Token, columns
from groundup.errors import SettingsError
from groundup.model import ModelConfig, build
from groundup.settings import ShowBatch

TEXT = "Ask me. What is 1 + 1? It is 2. <b>&\n"
ROWS = [
    {"instruction": "What is 1 + 1?", "output": "It is 2."},
    {"instruction": "Ask me.", "input": "<b>&</b>", "output": "What is <script>alert(1)</script>?"},
    {"instruction": "Is it?", "output": "It is."},
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    config = ModelConfig(
        family="llama", vocabulary=270, context=400, width=16, layers=1, heads=2, init="torch", tie=False
    )
    folder.save_model(path, build(config, seed=1), tokens.train("bpe", [TEXT], vocabulary=260), card={})
    return path


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    path = tmp_path / "talks.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    return path


def shown(model: Path, data: Path, **how: Any) -> Any:
    return run(ShowBatch(model=str(model), data=[str(data)], **{"batch": 3, "rows": 3} | how))


def learnt(part: Any) -> str:
    return "".join(token.text for token in part.tokens if token.mark in "LS")


@pytest.mark.parametrize("batching", ["bucketed", "padded", "packed"])
@pytest.mark.parametrize("template", ["alpaca", "phi3", "chatml", "llama3"])
def test_what_is_learnt_is_the_answers(model_folder: Path, talks: Path, batching: str, template: str):
    result = shown(model_folder, talks, batching=batching, template=template)
    parts = {part.where: part for row in result.shown for part in row.parts}
    assert sorted(parts) == [f"entry {number} of {talks}" for number in range(3)]
    end = {"alpaca": "<|endoftext|>", "phi3": "<|end|>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>"}[template]
    for number, entry in enumerate(ROWS):
        part = parts[f"entry {number} of {talks}"]
        assert learnt(part) == entry["output"].replace(" ", "·") + end
        assert [token.mark for token in part.tokens if token.text == end][-1] == "S"
    assert result.rows == 3 and 0 < result.learnt_share < 0.5 and result.template == template
    assert (result.filler > 0) and sum(row.filler for row in result.shown) > 0
    counted = [token for part in parts.values() for token in part.tokens]
    assert result.learnt_share == sum(token.mark in "LS" for token in counted) / (len(counted) - 3)


def test_all_and_windows_learn_everything(model_folder: Path, talks: Path, tmp_path: Path):
    result = shown(model_folder, talks, learn="all")
    assert result.learnt_share == 1
    assert all(token.mark in "LS" for row in result.shown for part in row.parts for token in part.tokens[1:])
    (tmp_path / "text.txt").write_text(TEXT * 30, encoding="utf-8")
    windows = shown(model_folder, tmp_path / "text.txt", stage="pretrain", context=16, batching="padded")
    assert [len(part.tokens) for row in windows.shown for part in row.parts] == [17, 17, 17]
    assert windows.shown[0].parts[0].where.startswith("tokens from ") and windows.filler == 0
    packed = shown(model_folder, tmp_path / "text.txt", stage="pretrain", context=16, batching="packed")
    assert packed.shown and all(token.mark in "LS" for part in packed.shown[0].parts for token in part.tokens[1:])


def test_classify_shows_the_token_that_is_read(model_folder: Path, tmp_path: Path):
    file = tmp_path / "mails.csv"
    file.write_text("text,label\nAsk me.,ham\nWhat is 1 + 1? It is 2.,spam\n", encoding="utf-8")
    result = shown(model_folder, file, stage="classify", context=20, batch=2, rows=2)
    tokenizer = tokens.load(model_folder)
    for row in result.shown:
        [part] = row.parts
        assert [token.mark for token in part.tokens[:-1]] == ["."] * (len(part.tokens) - 1)
        assert part.tokens[-1].mark == "R" and part.where.rpartition(": ")[2] in ("ham", "spam")
        text = "Ask me." if part.where.endswith("ham") else "What is 1 + 1? It is 2."
        assert [token.id for token in part.tokens] == tokenizer.encode(text)[:20]
    assert result.learnt_share is None and result.cut == (len(tokenizer.encode("What is 1 + 1? It is 2.")) > 20)


def test_in_a_pipe_each_token_has_a_letter_below(model_folder: Path, talks: Path, capsys: pytest.CaptureFixture[str]):
    words = ["show-batch", "instruct", "--model", str(model_folder), "--data", str(talks), "--template", "chatml"]
    assert cli.main([*words, "--batch", "3", "--rows", "3"]) == 0
    out = capsys.readouterr().out
    assert "3 rows of at most 400 tokens" in out and "L learnt" in out and "S learnt, special token" in out
    assert "\x1b" not in out
    lines = out.splitlines()
    places = [number for number, text in enumerate(lines) if "<|im_end|>" in text]
    assert len(places) == 6
    for number in places:
        above, below = lines[number], lines[number + 1]
        assert below[above.index("<|im_end|>")] in "Ss"
        if "<|im_start|>" in above:
            assert below[above.index("<|im_start|>")] == "s"
    assert sum(line.count("S") for line in lines if re.fullmatch(r"[LSs. ]+", line)) == 3


def test_columns_line_up_with_wide_letters_and_wrap():
    found = columns([Token(1, "漢字", "."), Token(2, "ab", "L"), Token(3, "c" * 9, "S"), Token(4, "", "s")], width=12)
    assert found == ["漢字|ab", ".    L", "ccccccccc| ", "S         s"]


def test_json_and_a_page_that_escapes(
    model_folder: Path, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "new" / "batch.html"
    words = ["show-batch", "--model", str(model_folder), "--data", str(talks), "--html", str(file), "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stage"] == "instruct" and found["html"] == str(file) and len(found["shown"]) == 3
    assert {token["mark"] for row in found["shown"] for part in row["parts"] for token in part["tokens"]} <= set("LSs.")
    content = file.read_text(encoding="utf-8")
    assert "<script" not in content and "http" not in content and "<b>" not in content
    page = Page()
    page.feed(content)
    texts = ["".join(token["text"] for token in part["tokens"]) for row in found["shown"] for part in row["parts"]]
    assert page.rows[: len(texts)] and set(texts) <= set(page.rows)
    assert [path.name for path in file.parent.iterdir()] == ["batch.html"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thesis.html", "exists already, and groundup did not write it"),
        ("empty.html", "exists already, and groundup did not write it"),
        ("folder", "is a folder"),
        ("thesis.html/batch.html", "cannot be written: .*thesis.html is no folder"),
        ("a" * 300 + ".html", "cannot be written"),
    ],
)
def test_a_page_takes_no_place_but_its_own(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
):
    """Said before the work: the model is not even looked for."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "thesis.html").write_text("<!doctype html><p>two years of work</p>", encoding="utf-8")
    (tmp_path / "empty.html").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingsError, match=message):
        run(ShowBatch(model="no/such/model", data=[str(talks)], html=tmp_path / name))
    assert sorted(tmp_path.iterdir()) == before
    assert "two years" in (tmp_path / "thesis.html").read_text(encoding="utf-8")


def test_an_earlier_page_is_replaced(model_folder: Path, talks: Path, tmp_path: Path):
    file = tmp_path / "batch.html"
    shown(model_folder, talks, html=file, template="chatml")
    shown(model_folder, talks, html=file, template="phi3")
    content = file.read_text(encoding="utf-8")
    assert "template: phi3" in content and "chatml" not in content


class Page(HTMLParser):
    """The texts of the rows of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "div":
            self.rows.append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "div"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1] += data


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "TALKS"], "no model was given"),
        (["--model", "MODEL"], "no data was given"),
        (["--model", "MODEL", "--data", "TALKS", "--context", "401"], "more than the model's context of 400"),
        (["--model", "MODEL", "--data", "TALKS", "--context", "8"], "there is nothing to learn"),
        (["--model", "MODEL", "--data", "TALKS", "--learn", "marked"], "marks no message"),
        (["--model", "MODEL", "--data", "TALKS", "--template", "chatlm"], "did you mean 'chatml'"),
        (["--model", "MODEL", "--data", "no/such.json"], "no such file or name"),
    ],
)
def test_mistakes_are_told(
    model_folder: Path, talks: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    places = {"MODEL": str(model_folder), "TALKS": str(talks)}
    assert cli.main(["show-batch", "instruct", *(places.get(word, word) for word in words)]) == 2
    seen = capsys.readouterr()
    assert message in seen.err and "  -> " in seen.err and seen.out == ""


def test_cut_answers_dropped_rows_and_missing_ends_are_told(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"messages": [{"role": "user", "content": "Ask " * n}, {"role": "assistant", "content": "It is 2. " * 3}]}
            for n in (1, 3, 60)]  # fmt: skip
    data, plain = tmp_path / "x.jsonl", tmp_path / "plain.jinja"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plain.write_text("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}", encoding="utf-8")
    words = ["show-batch", "instruct", "--model", str(model_folder), "--data", str(data), "--template", str(plain)]
    assert cli.main([*words, "--context", "30"]) == 0
    out = capsys.readouterr().out
    assert "cut inside an answer" in out and "1 left out: their answers begin behind the context of 30 tokens" in out
    assert "nothing teaches the model to stop" in out


def test_a_terminal_shows_colours_and_no_letters(
    model_folder: Path, talks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Learnt words stand on green, others do not; lines end where the text's lines end."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    words = ["show-batch", "instruct", "--model", str(model_folder), "--data", str(talks), "--template", "chatml"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    bare = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert "It·is·2.<|im_end|>↵\n" in bare and "|It" not in bare and "L learnt" not in bare
    green = re.findall(r"\x1b\[[\d;]*48;5;\d+m([^\x1b]*)\x1b", out)
    assert "".join(green).count("It·is·2.<|im_end|>") == 1 and not any("assistant" in piece for piece in green)
