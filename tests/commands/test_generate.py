"""`groundup generate` on a model folder: prompts from everywhere, streams, JSON, remarks, and messages for mistakes."""

import io
import json
from pathlib import Path

import pytest
import torch

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands.generate import Emit, Result, read_prompts, run
from groundup.errors import DataError, ModelError, SettingsError
from groundup.generate import Sampler, generate_by_hand, generate_text
from groundup.model import BigramConfig, ModelConfig, build
from groundup.settings import Generate

TEXT = "the quick brown fox jumps over the lazy dog. é ☃\n"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level model with large random weights: it writes nonsense, but always the same."""
    path = tmp_path_factory.mktemp("models") / "small"
    tokenizer = tokens.train("bpe", [TEXT * 9], vocabulary=280)
    config = ModelConfig(
        family="llama", vocabulary=280, context=24, width=16, layers=2, heads=4, kv_heads=2, init="torch", tie=False
    )
    folder.save_model(path, build(config, seed=6), tokenizer, card={})
    return path


def ask(settings: Generate, *, emit: Emit | None = None) -> Result:
    """`run` on one thread: several test processes share the cores."""
    return run(settings.replace(threads=1), emit=emit)


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def test_greedy_text_is_the_plain_loop(model_folder: Path):
    loaded = folder.load(model_folder)
    result = ask(Generate(model=str(model_folder), prompt="the quick", temperature=0, max_tokens=40))
    ids = generate_by_hand(
        loaded.model, loaded.tokenizer.encode("the quick"), max_tokens=40, sampler=Sampler(temperature=0)
    )
    if loaded.tokenizer.end_of_text in ids:
        ids = ids[: ids.index(loaded.tokenizer.end_of_text)]
    [sample] = result.samples
    assert sample.text == loaded.tokenizer.decode(ids)
    assert sample.prompt == "the quick" and result.tokens == sample.tokens >= len(ids) > 0
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)


def test_every_setting_reaches_the_sampler(model_folder: Path):
    """Each change of one setting changes this text; and the library gives the same text as the command."""
    loaded = folder.load(model_folder)
    plain = dict(model=str(model_folder), prompt="fox", max_tokens=30, seed=5, temperature=1.5)
    text = ask(Generate(**plain)).samples[0].text
    assert text == generate_text(loaded.model, loaded.tokenizer, "fox", max_tokens=30, seed=5, temperature=1.5)
    assert text == ask(Generate(**plain, cache=False)).samples[0].text
    for change in ({"seed": 6}, {"temperature": 0.1}, {"top_k": 2}, {"top_p": 0.2}, {"repetition_penalty": 5.0}):
        assert ask(Generate(**plain | change)).samples[0].text != text, change
    stop = text[10:13]
    [stopped] = ask(Generate(**plain, stop=[stop])).samples
    assert stopped.text == text[: text.index(stop)] and stopped.finish == "stop"


def test_no_cache_means_no_cache(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def trap(*given: object, **named: object) -> None:
        raise RuntimeError("a cache was made")

    monkeypatch.setattr("groundup.generate.decode.Cache", trap)
    assert ask(Generate(model=str(model_folder), prompt="fox", max_tokens=2, cache=False)).tokens == 2
    with pytest.raises(RuntimeError, match="a cache was made"):
        ask(Generate(model=str(model_folder), prompt="fox", max_tokens=2))


def test_without_a_seed_texts_differ_and_the_seed_is_told(model_folder: Path):
    first, second = (ask(Generate(model=str(model_folder), max_tokens=30, temperature=2)) for _ in range(2))
    assert first.samples != second.samples
    again = ask(Generate(model=str(model_folder), max_tokens=30, temperature=2, seed=first.seed))
    assert again.samples == first.samples


def test_dtype_is_as_stored_unless_asked(tmp_path: Path):
    """After "a" comes "b" with 10 and "c" with 10.01: bf16, whose numbers near 10 are 1/16 apart, takes both for 10."""
    model = build(BigramConfig(vocabulary=3, context=8), seed=1)
    model.table.weight.data[0] = torch.tensor([0.0, 10.0, 10.01])
    tokenizer = tokens.train("chars", ["abc"], special=[])
    folder.save_model(tmp_path / "fp32", model, tokenizer, card={})
    folder.save_model(tmp_path / "bf16", model.bfloat16(), tokenizer, card={})
    wishes = {("fp32", "auto"): "c", ("fp32", "fp32"): "c", ("fp32", "bf16"): "b", ("bf16", "auto"): "b"}
    for (stored, dtype), text in wishes.items():
        settings = Generate(model=str(tmp_path / stored), prompt="a", max_tokens=1, temperature=0, dtype=dtype)
        assert ask(settings).samples[0].text == text, (stored, dtype)


def test_samples_and_prompts_multiply(model_folder: Path, tmp_path: Path):
    lines = tmp_path / "lines.txt"
    lines.write_bytes("\ufefffox\r\n\n  \nlazy dog\nfox".encode())
    settings = dict(model=str(model_folder), max_tokens=9, seed=1, temperature=2)
    result = ask(Generate(prompts=lines, samples=2, **settings))
    assert [sample.prompt for sample in result.samples] == ["fox", "fox", "lazy dog", "lazy dog", "fox", "fox"]
    assert len({sample.text for sample in result.samples}) == 6
    alone = ask(Generate(prompt="lazy dog", samples=2, **settings))
    assert alone.samples == result.samples[2:4]


def test_prompts_come_from_standard_input(monkeypatch: pytest.MonkeyPatch):
    standard_input(monkeypatch, "one\ntwo é\r\n".encode())
    assert read_prompts(Generate(model="m", prompts=Path("-"))) == ["one", "two é"]
    standard_input(monkeypatch, b"two\nlines \n")
    assert read_prompts(Generate(model="m", prompt="-")) == ["two\nlines "]  # the last line end is the shell's
    assert read_prompts(Generate(model="m")) == [""]
    assert read_prompts(Generate(model="m", prompt="the end\n")) == ["the end\n"]


def test_one_text_streams_with_its_prompt(model_folder: Path, capsys: pytest.CaptureFixture[str]):
    pieces: list[str] = []
    result = ask(Generate(model=str(model_folder), prompt="fox", max_tokens=12, seed=2), emit=pieces.append)
    assert "".join(pieces) == "fox" + result.samples[0].text + "\n"
    assert pieces[0] == "fox" and len(pieces) == 1 + result.tokens
    seen = capsys.readouterr()
    assert seen.out == "" and seen.err.count("base model") == 1 and "tokens/s" in seen.err


def test_several_texts_come_whole_and_in_order(model_folder: Path, tmp_path: Path):
    lines, pieces = tmp_path / "lines.txt", []
    lines.write_text("the quick brown fox\ndog\n", encoding="utf-8")
    result = ask(Generate(model=str(model_folder), prompts=lines, max_tokens=5, seed=2), emit=pieces.append)
    first, second = result.samples
    assert pieces == [f"--- 1 of 2\nthe quick brown fox{first.text}\n", f"--- 2 of 2\ndog{second.text}\n"]


def test_the_full_context_is_told_once(model_folder: Path, capsys: pytest.CaptureFixture[str]):
    for count, times in ((10, 0), (60, 1)):
        ask(Generate(model=str(model_folder), prompt="fox", max_tokens=count, temperature=0, samples=3))
        assert capsys.readouterr().err.count("only the last 24 tokens are seen") == times


def test_the_command_line(model_folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ["generate", str(model_folder), "--prompt", "fox", "--max-tokens", "6", "--seed", "3", "--threads", "1"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert text == "fox" + result["samples"][0]["text"] + "\n"
    assert result["seed"] == 3 and result["samples"][0]["finish"] in {"end", "length"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no model was given"),
        (["no/such/run"], "there is no file or folder at no/such/run"),
        (["MODEL", "--prompt", "a", "--prompts", "b"], "--prompt and --prompts were both given"),
        (["MODEL", "--prompts", "no/such/file"], "cannot read no/such/file"),
        (["MODEL", "--temperature", "-1"], "temperature"),
        (["MODEL", "--top-p", "0"], "top_p"),
        (["MODEL", "--max-tokens", "0"], "max_tokens"),
        (["MODEL", "--stop", ""], "a stop string is empty"),
    ],
)
def test_mistakes_are_told(model_folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str):
    assert cli.main(["generate", "--threads", "1", *(word.replace("MODEL", str(model_folder)) for word in words)]) == 2
    seen = capsys.readouterr()
    assert message in seen.err and "  -> " in seen.err and "Traceback" not in seen.err and seen.out == ""


def test_a_file_without_prompts_or_not_utf8_is_refused(tmp_path: Path):
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"\n \n")
    with pytest.raises(DataError, match="no prompt in .*lines.txt"):
        read_prompts(Generate(model="m", prompts=lines))
    lines.write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"lines.txt is not UTF-8: byte 0xE9 at offset 3\n.*iconv"):
        read_prompts(Generate(model="m", prompts=lines))


def test_characters_without_a_start_ask_for_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenizer = tokens.train("chars", ["abc"], special=[])
    config = ModelConfig(family="gpt2", vocabulary=3, context=8, width=8, layers=1, heads=1)
    folder.save_model(tmp_path / "m", build(config, seed=1), tokenizer, card={})
    assert cli.main(["generate", "--threads", "1", str(tmp_path / "m")]) == 2
    assert "give a prompt" in capsys.readouterr().err
    assert cli.main(["generate", "--threads", "1", str(tmp_path / "m"), "--prompt", "abz"]) == 2
    assert "'z'" in capsys.readouterr().err


def test_settings_are_checked_before_the_model_is_loaded():
    with pytest.raises(SettingsError, match="both given"):
        run(Generate(model="no/such/run", prompt="a", prompts=Path("b")))


def test_damaged_weights_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = ModelConfig(family="gpt2", vocabulary=257, context=8, width=8, layers=1, heads=1)
    model = build(config, seed=1)
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    folder.save_model(tmp_path / "m", model, tokens.train("bpe", ["x"], vocabulary=257), card={})
    assert cli.main(["generate", "--threads", "1", str(tmp_path / "m"), "--prompt", "x"]) == 2
    assert "NaN or infinite" in capsys.readouterr().err


def test_int8_is_another_number_format(model_folder: Path, capsys: pytest.CaptureFixture[str]):
    """Its first words are those of the exact model, and the command line knows it."""
    plain = dict(model=str(model_folder), prompt="the quick", temperature=0, max_tokens=3)
    assert ask(Generate(**plain, dtype="int8")).samples[0].text == ask(Generate(**plain)).samples[0].text
    code = cli.main(["generate", str(model_folder), "--prompt", "fox", "--max-tokens", "2", "--dtype", "int8"])
    assert code == 0 and capsys.readouterr().out.startswith("fox")


def test_a_bigram_has_no_int8(tmp_path: Path):
    tokenizer = tokens.train("bpe", [TEXT * 9], vocabulary=280)
    folder.save_model(tmp_path / "m", build(BigramConfig(vocabulary=280, context=8), seed=1), tokenizer, card={})
    with pytest.raises(ModelError, match="no matrices to keep in int8"):
        ask(Generate(model=str(tmp_path / "m"), dtype="int8", max_tokens=1))


def test_it_says_whether_a_model_was_taught_to_chat(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ask(Generate(model=str(model_folder), prompt="the", max_tokens=1, seed=1))
    assert "it was not taught to chat" in capsys.readouterr().err
    loaded = folder.load(model_folder)
    chats = loaded.tokenizer.with_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    folder.save_model(tmp_path / "chats", loaded.model, chats, card={})
    ask(Generate(model=str(tmp_path / "chats"), prompt="the", max_tokens=1, seed=1, raw=True))
    said = capsys.readouterr().err
    assert "was taught to chat; here the prompt is continued as it stands" in said and "base model" not in said


@pytest.fixture(scope="module")
def chatty(model_folder: Path) -> Path:
    """The same model, with a template."""
    loaded = folder.load(model_folder)
    source = (
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    path = model_folder.parent / "chatty"
    folder.save_model(path, loaded.model, loaded.tokenizer.with_template(source), card={})
    return path


def test_a_model_that_was_taught_to_chat_is_asked(chatty: Path, capsys: pytest.CaptureFixture[str]):
    """What it reads is what its template makes of the prompt: the same as that text with its special tokens, raw."""
    loaded, pieces = folder.load(chatty), []
    plain = dict(model=str(chatty), max_tokens=9, temperature=0)
    result = ask(Generate(prompt="the fox", **plain), emit=pieces.append)
    said = capsys.readouterr().err
    assert "was taught to chat: it answers the prompt" in said and "base model" not in said
    ids = loaded.tokenizer.encode("u:the fox<|endoftext|>a:", special=True)
    by_hand = generate_by_hand(loaded.model, ids, max_tokens=9, sampler=Sampler(temperature=0))
    if loaded.tokenizer.end_of_text in by_hand:
        by_hand = by_hand[: by_hand.index(loaded.tokenizer.end_of_text)]
    [sample] = result.samples
    assert sample.text == loaded.tokenizer.decode(by_hand) and sample.prompt == "the fox"
    assert "".join(pieces) == sample.text + "\n"  # the question is not said again
    raw = ask(Generate(prompt="the fox", raw=True, **plain)).samples[0]
    by_hand = generate_by_hand(loaded.model, loaded.tokenizer.encode("the fox"), max_tokens=9,
                               sampler=Sampler(temperature=0))  # fmt: skip
    assert loaded.tokenizer.decode(by_hand).startswith(raw.text) and raw.text != sample.text


def test_what_it_is_told_first_changes_the_answer(chatty: Path, model_folder: Path):
    plain = dict(prompt="fox", max_tokens=3, temperature=0)
    without, told = (ask(Generate(model=str(chatty), system=system, **plain)) for system in (None, "dog"))
    assert without.samples[0].text != told.samples[0].text
    for changes in ({"model": str(model_folder)}, {"model": str(chatty), "raw": True}):
        with pytest.raises(SettingsError, match="--system has no place"):
            ask(Generate(system="dog", **plain | changes))


def test_no_prompt_starts_a_document_also_with_a_chatty_model(chatty: Path):
    one, other = (ask(Generate(model=str(chatty), max_tokens=9, temperature=0, raw=raw)) for raw in (False, True))
    assert one.samples == other.samples
