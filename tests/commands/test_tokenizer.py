"""`groundup tokenizer`: train, show, encode, decode, as a person types them and as a program reads them."""

import io
import json
import sys
from pathlib import Path

import pytest

from groundup import cli, tokens
from groundup.checkpoint import opening
from groundup.commands import tokenizer as command
from groundup.errors import DataError, SettingsError, TokenizerError
from groundup.settings import TokenizerDecode, TokenizerEncode, TokenizerShow, TokenizerTrain


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("the cat sat on the mat\n" * 50, encoding="utf-8")
    return file


@pytest.fixture
def trained(text: Path, tmp_path: Path) -> str:
    out = tmp_path / "tok"
    command.train(TokenizerTrain.create(data=[str(text)], vocabulary=266, out=out))
    return str(out)


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_train_writes_a_folder_that_opens(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tok"
    words = ["tokenizer", "train", "--data", str(text), "--vocabulary", "266", "--out", str(out)]
    assert cli.main(words) == 0
    assert "bpe tokenizer with 266 ids (special: <|endoftext|> = 265)" in capsys.readouterr().out
    opened = tokens.load(out)
    assert opened.fingerprint == tokens.train("bpe", [text.read_text(encoding="utf-8")], vocabulary=266).fingerprint
    assert cli.main([*words, "--json"]) == 0, "the same again is no harm"
    result = json.loads(capsys.readouterr().out)
    assert (result["vocabulary"], result["fingerprint"]) == (266, opened.fingerprint)


@pytest.mark.parametrize("kind", ["chars", "words", "words-strict", "bpe"])
def test_every_kind_can_be_trained(kind: str, text: Path, tmp_path: Path) -> None:
    result = command.train(TokenizerTrain.create(data=[str(text)], kind=kind, out=tmp_path / "tok"))
    assert result.vocabulary == tokens.load(tmp_path / "tok").vocabulary


def test_train_leaves_what_is_not_its_own(text: Path, trained: str, tmp_path: Path) -> None:
    before = (Path(trained) / "tokenizer.json").read_bytes()
    with pytest.raises(SettingsError, match="holds another tokenizer"):
        command.train(TokenizerTrain.create(data=[str(text)], vocabulary=265, out=trained))
    assert (Path(trained) / "tokenizer.json").read_bytes() == before
    with pytest.raises(SettingsError, match="holds other files: text.txt"):
        command.train(TokenizerTrain.create(data=[str(text)], out=tmp_path))
    with pytest.raises(SettingsError, match="is a file"):
        command.train(TokenizerTrain.create(data=[str(text)], out=text))


def test_train_asks_for_what_is_missing(text: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no folder was given"):
        command.train(TokenizerTrain.create(data=[str(text)]))
    with pytest.raises(SettingsError, match="no text was given"):
        command.train(TokenizerTrain.create(out=tmp_path / "tok"))
    with pytest.raises(TokenizerError, match="100 is too small"):
        command.train(TokenizerTrain.create(data=[str(text)], vocabulary=100, out=tmp_path / "tok"))
    assert not (tmp_path / "tok").exists(), "nothing is written where nothing was learnt"


def test_encode_and_decode_are_inverse(trained: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = "the cat, é\nsat <|endoftext|>"
    assert cli.main(["tokenizer", "encode", trained, "--text", said]) == 0
    ids = capsys.readouterr().out.split()
    assert [int(id) for id in ids] == tokens.load(trained).encode(said)
    assert cli.main(["tokenizer", "decode", trained, "--ids", *ids]) == 0
    assert capsys.readouterr().out == said + "\n"
    assert cli.main(["tokenizer", "encode", trained, "--text", said, "--special", "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["ids"][-1] == tokens.load(trained).end_of_text
    for content in (printed, " ".join(ids), json.dumps(list(map(int, ids)))):
        (tmp_path / "ids").write_text(content, encoding="utf-8")
        result = command.decode(TokenizerDecode.create(tokenizer=trained, file=tmp_path / "ids"))
        assert result.text == said


def test_text_comes_from_a_file_or_standard_input(
    trained: str, text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = tokens.load(trained).encode("the é\n")
    (tmp_path / "in.txt").write_bytes("\ufeffthe é\n".encode())
    assert command.encode(TokenizerEncode.create(tokenizer=trained, file=tmp_path / "in.txt")).ids == expected
    for given in ({"text": "-"}, {"file": "-"}):
        feed(monkeypatch, "the é\n".encode())
        assert command.encode(TokenizerEncode.create(tokenizer=trained, **given)).ids == expected
    feed(monkeypatch, b"0 1")
    assert command.decode(TokenizerDecode.create(tokenizer=trained, file="-")).text == '!"'


def test_text_and_ids_that_are_missing_or_unreadable(trained: str, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9 ")
    (tmp_path / "ids").write_text("1 two", encoding="utf-8")
    with pytest.raises(SettingsError, match="no text was given"):
        command.encode(TokenizerEncode.create(tokenizer=trained))
    with pytest.raises(SettingsError, match="given twice"):
        command.encode(TokenizerEncode.create(tokenizer=trained, text="a", file=tmp_path / "latin"))
    with pytest.raises(DataError, match="latin is not UTF-8 at byte 3"):
        command.encode(TokenizerEncode.create(tokenizer=trained, file=tmp_path / "latin"))
    with pytest.raises(DataError, match="cannot read .*nowhere"):
        command.encode(TokenizerEncode.create(tokenizer=trained, file=tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="no ids were given"):
        command.decode(TokenizerDecode.create(tokenizer=trained))
    with pytest.raises(SettingsError, match="given twice"):
        command.decode(TokenizerDecode.create(tokenizer=trained, ids=[1], file=tmp_path / "ids"))
    with pytest.raises(DataError, match="does not hold ids: .*'two'"):
        command.decode(TokenizerDecode.create(tokenizer=trained, file=tmp_path / "ids"))
    with pytest.raises(TokenizerError, match="id 266 is outside the vocabulary of 266"):
        command.decode(TokenizerDecode.create(tokenizer=trained, ids=[266]))
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        command.encode(TokenizerEncode.create(tokenizer=str(tmp_path / "none"), text="a"))


def test_show_counts_bytes_per_token(trained: str) -> None:
    result = command.show_pieces(TokenizerShow.create(tokenizer=trained, text="the é\n"))
    opened = tokens.load(trained)
    assert result.ids == opened.encode("the é\n")
    assert result.pieces == ["the", "·", "<0xC3>", "<0xA9>", "↵"]
    assert (result.tokens, result.characters, result.bytes, result.bytes_per_token) == (5, 6, 7, 7 / 5)
    limited = command.show_pieces(TokenizerShow.create(tokenizer=trained, text="the é\n", limit=2))
    assert (limited.pieces, limited.tokens) == (["the", "·"], 5)


def test_show_colours_on_a_terminal_and_marks_without_colour(
    trained: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["tokenizer", "show", trained, "--text", "the cat\n[red]", "--limit", "4"]
    assert cli.main(words) == 0
    plain = capsys.readouterr().out
    ids = tokens.load(trained).encode("the cat\n[red]")
    assert plain.startswith("the|·cat|↵\n|[\n") and " ".join(map(str, ids[:4])) in plain
    assert "and 4 more" in plain and "8 tokens, 13 characters, 13 bytes: 1.62 bytes per token" in plain
    assert "\x1b[" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(words) == 0
    coloured = capsys.readouterr().out
    assert coloured.count("\x1b[") > 8 and "the" in coloured and "|" not in coloured


def test_an_empty_text_has_no_tokens(trained: str) -> None:
    result = command.show_pieces(TokenizerShow.create(tokenizer=trained, text=""))
    assert (result.tokens, result.bytes_per_token) == (0, 0.0)
    command.show(result)


def test_gpt2_by_name(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    result = command.show_pieces(TokenizerShow.create(text="Akwirw ier"))
    assert result.pieces == ["Ak", "w", "ir", "w", "·", "ier"]
    assert result.ids == [33901, 86, 343, 86, 220, 959]


@pytest.fixture
def stories(data_dir: Path) -> str:
    if not (data_dir / "stories260k").is_dir():
        pytest.skip("the sample data lack stories260k: it is huggingface.co/karpathy/tinyllamas")
    return str(data_dir / "stories260k" / "stories260K.bin")


def test_the_tokenizer_of_a_model_from_elsewhere(
    stories: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    expected = opening.open_any(stories).tokenizer.encode("Once upon a time")
    for name in (stories, "stories260k"):
        assert command.encode(TokenizerEncode.create(tokenizer=name, text="Once upon a time")).ids == expected
        assert command.decode(TokenizerDecode.create(tokenizer=name, ids=expected)).text == "Once upon a time"
    assert cli.main(["tokenizer", "show", "stories260k", "--text", "Once"]) == 0
    with pytest.raises(TokenizerError, match="nowhere"):
        command.choose("nowhere")
