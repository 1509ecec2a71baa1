"""From conversations to a model that answers: what is learnt, what is kept, and what a resumed run goes on with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import losses, tokens
from groundup.batches.rows import PackedRows, Rows
from groundup.checkpoint import folder
from groundup.errors import DataError, SettingsError
from groundup.generate.chat import answers, template_of, with_tokens_of
from groundup.journal import Journal
from groundup.model import ModelConfig, build
from groundup.settings import Instruct
from groundup.stages import instruct
from groundup.text import conversations
from groundup.text.conversations import Conversation
from groundup.text.styles import STYLES
from groundup.tokens.rows import chat_rows
from groundup.train import loop
from groundup.train.plan import Preflight

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,?'\n:|_<>#ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FAST = {
    "batch": 8, "steps": 6, "eval_every": 3, "sample_tokens": 4, "context": 64, "warmup": 0, "log_every": 1,
    "device": "cpu", "dtype": "fp32", "threads": 1, "seed": 3, "template": "chatml", "validation": 0.1, "test": 0.1,
}  # fmt: skip


def pairs(count: int) -> list[tuple[str, str]]:
    """Questions that only memory can answer."""
    draw = np.random.default_rng(7)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return [(f"what is {number}?", "".join(draw.choice(letters, 4))) for number in range(count)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt nothing, with a tokenizer that knows no template's tokens."""
    path = tmp_path_factory.mktemp("models") / "base"
    config = ModelConfig(family="llama", vocabulary=len(set(LETTERS)) + 1, context=256, width=48, layers=2,
                         heads=4, dropout_shortcut=0.0)  # fmt: skip
    folder.save_model(path, build(config, seed=1), tokens.train("chars", [LETTERS]), card={})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.json"
    rows = [{"instruction": question, "output": answer} for question, answer in pairs(40)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def settings(base: Path, data: Path, out: Path, **changes: Any) -> Instruct:
    return Instruct.create(model=str(base), data=[str(data)], out=out, **FAST | changes)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return folder.load(out).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows_of(base: Path, count: int = 12) -> Any:
    tokenizer = folder.load(base).tokenizer.with_special(STYLES["chatml"].tokens)
    template = with_tokens_of(tokenizer, STYLES["chatml"].template)
    talks = [
        Conversation(({"role": "user", "content": question * (1 + n % 3)}, {"role": "assistant", "content": answer}))
        for n, (question, answer) in enumerate(pairs(count))
    ]
    found = chat_rows(tokenizer, template, talks, learn="answers", context=64)
    model = build(ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=64, width=32, layers=2,
                              heads=4, init="torch"), seed=2).eval()  # fmt: skip
    return model, found.rows


def test_company_changes_no_loss(base: Path):
    """Rows one by one, filled up beside longer ones, and packed side by side: the same sum over the same tokens."""
    model, rows = rows_of(base)
    each = [Rows([row], pad=0).batch(np.array([0])) for row in rows]
    together = Rows(rows, pad=5).batch(np.arange(len(rows)))
    packed = PackedRows(rows, length=64)
    side = packed.batch(np.arange(len(packed)))
    with torch.no_grad():
        alone = sum(float(losses.next_token(model, batch)[0]) for batch in each)
        sums = [float(losses.next_token(model, batch)[0]) for batch in (together, side)]
    assert sums == pytest.approx([alone, alone], rel=1e-5)
    assert together.count == side.count == sum(batch.count for batch in each) == 12 * 5  # four letters and the end


def test_a_run_leaves_what_it_promises(base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    result = instruct.run(settings(base, data, out, answers=3))
    assert isinstance(result, instruct.Result)
    assert result.rows == {"train": 32, "valid": 4, "test": 4} and result.steps == 6 and result.template == "chatml"
    assert result.test_loss < result.test_loss_before and result.answered == 3 and len(result.answers) == 3
    kept = instruct.parts(out)
    told = {row.messages[0]["content"] for part in (kept.train, kept.valid, kept.test) for row in part}
    assert told == {question for question, _ in pairs(40)}  # each in one part only, none lost
    for name in instruct.PARTS:
        forms = [conversations.read(out / "data" / f"{name}.{form}") for form in ("json", "jsonl")]
        assert [row.messages for row in forms[0]] == [row.messages for row in forms[1]]
    written = json.loads((out / "answers.json").read_text(encoding="utf-8"))
    assert [entry["instruction"] for entry in written] == [row.messages[0]["content"] for row in kept.test[:3]]
    assert all(entry.keys() == {"instruction", "input", "output", "model_response"} for entry in written)
    kinds = [(record["step"], record["kind"]) for record in Journal(out).read() if record["kind"] == "eval"]
    assert kinds == [(0, "eval"), (3, "eval"), (6, "eval")]
    err = capsys.readouterr().err
    assert "<|im_start|>, <|im_end|> are new" in err and "40 read, 32 train, 4 valid, 4 test" in err
    instruct.show(result)
    text = capsys.readouterr().out
    assert all(f"groundup {command}" in text for command in ("chat", "respond", "judge")) and "before" in text


def test_the_template_and_the_end_of_an_answer_travel_with_the_model(base: Path, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    instruct.run(settings(base, data, out, steps=1))
    tokenizer = folder.load(out).tokenizer
    assert tokenizer.chat_template == STYLES["chatml"].template
    end = tokenizer.special["<|im_end|>"]
    assert end in tokenizer.ends
    generation = json.loads((out / "model" / "generation_config.json").read_text(encoding="utf-8"))
    assert end in generation["eos_token_id"]


def test_new_tokens_begin_as_the_mean_of_the_old(base: Path, data: Path, tmp_path: Path):
    """With a rate of almost nothing the rows are still what they began as."""
    instruct.run(settings(base, data, tmp_path / "run", steps=1, lr=1e-12, weight_decay=0.0))
    old, new = weights(base)["token_table.weight"], weights(tmp_path / "run")["token_table.weight"]
    assert len(new) == len(old) + 2
    assert torch.allclose(new[len(old) :], old.mean(dim=0).expand(2, -1), atol=1e-6)
    assert torch.allclose(new[: len(old)], old, atol=1e-6)


@pytest.mark.slow
def test_what_was_learnt_by_heart_comes_back_to_the_letter(base: Path, tmp_path: Path):
    """50 questions that only memory can answer; the two parts that are not learnt are so small that 48 remain."""
    data = tmp_path / "fifty.json"
    rows = [{"instruction": question, "output": answer} for question, answer in pairs(52)]
    data.write_text(json.dumps(rows), encoding="utf-8")
    changes = {"steps": 500, "lr": 4e-3, "batch": 25, "validation": 0.01, "test": 0.01, "eval_every": 500}
    instruct.run(settings(base, data, tmp_path / "run", **changes))
    loaded, split = folder.load(tmp_path / "run"), instruct.parts(tmp_path / "run")
    assert len(split.train) == 50
    talks = [row.messages[:1] for row in split.train]
    found = answers(loaded.model, loaded.tokenizer, template_of(loaded.tokenizer), talks, max_tokens=12)
    assert found == [row.messages[1]["content"] for row in split.train]
    unseen = [row.messages[:1] for row in split.test]
    assert answers(loaded.model, loaded.tokenizer, template_of(loaded.tokenizer), unseen, max_tokens=12) != [
        row.messages[1]["content"] for row in split.test
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"batching": "padded"},
        {"batching": "packed"},
        {"train": "lora"},
        {"train": "last-block"},
        {"learn": "all"},
        {"template": "alpaca", "context": 256},
    ],
)
def test_every_way_of_learning_learns(base: Path, data: Path, tmp_path: Path, change: dict[str, Any]):
    result = instruct.run(settings(base, data, tmp_path / "run", steps=12, **change))
    assert result.test_loss < result.test_loss_before


def test_adapters_keep_the_base_and_learn_the_new_tokens(base: Path, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    instruct.run(settings(base, data, out, train="lora", steps=4, lr=1e-2))
    apart = folder.load(out, merged=False).model
    old = weights(base)
    names = [name for name in old if name.endswith("norm.weight")]
    assert names and all(torch.equal(apart.state_dict()[name], old[name]) for name in names)
    table = apart.state_dict()["token_table.weight"]
    assert not torch.allclose(table[len(old["token_table.weight"]) :], old["token_table.weight"].mean(dim=0), atol=1e-6)
    loaded = folder.load(out)
    assert loaded.tokenizer.chat_template == STYLES["chatml"].template


class Cut(Exception):
    """The plug is pulled."""


def cut_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Raise in the middle of the step after `step`."""
    real, done = loop._gradient, {"calls": 0}

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value = real(*args, **kwargs)
        done["calls"] += 1
        if done["calls"] > step:
            raise Cut
        return value

    monkeypatch.setattr(loop, "_gradient", gradient)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5])
@pytest.mark.parametrize(
    "change", [{"dropout": 0.2}, {"batching": "packed"}, {"train": "lora", "lora_dropout": 0.1}, {"train": "head"}]
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, change: dict[str, Any]
):
    whole = instruct.run(settings(base, data, tmp_path / "whole", save_every="2", answers=2, **change))
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, step)
        instruct.run(settings(base, data, tmp_path / "cut", save_every="2", answers=2, **change))
    torch.manual_seed(999)  # the new process has other random numbers
    result = instruct.run(Instruct.create(out=tmp_path / "cut", resume=True))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert (tmp_path / "whole" / "answers.json").read_bytes() == (tmp_path / "cut" / "answers.json").read_bytes()
    assert (result.test_loss, result.test_loss_before, result.answers) == (
        whole.test_loss, whole.test_loss_before, whole.answers
    )  # fmt: skip


@pytest.mark.slow
def test_a_resumed_run_needs_its_data_no_more(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy = tmp_path / "copy.json"
    copy.write_bytes(data.read_bytes())
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 3)
        instruct.run(settings(base, copy, tmp_path / "run", save_every="1"))
    copy.unlink()
    assert instruct.run(Instruct.create(out=tmp_path / "run", resume=True)).steps == 6


@pytest.mark.slow
def test_a_changed_part_is_noticed(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 3)
        instruct.run(settings(base, data, tmp_path / "run", save_every="1"))
    part = tmp_path / "run" / "data" / "train.json"
    part.write_text(part.read_text(encoding="utf-8").replace("what is 1", "what was 1"), encoding="utf-8")
    with pytest.raises(Exception, match="the training data .* changed"):
        instruct.run(Instruct.create(out=tmp_path / "run", resume=True))


def test_the_books_parts(base: Path, data: Path, tmp_path: Path):
    """The first 85 %, then 10 % to test, the rest to validate; in the order of the file."""
    instruct.run(settings(base, data, tmp_path / "run", steps=1, protocol="book"))
    kept = instruct.parts(tmp_path / "run")
    asked = [row.messages[0]["content"] for part in (kept.train, kept.test, kept.valid) for row in part]
    assert asked == [question for question, _ in pairs(40)]
    assert (len(kept.train), len(kept.valid), len(kept.test)) == (34, 2, 4)


def test_a_part_that_cannot_be_measured_is_left_out_and_rows_are_told_as_they_are(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Three of 34 training rows, and every row of the other parts, are longer than the context."""
    rows = [
        {"instruction": "why " * (70 if n < 3 or n > 33 else 1) + q, "output": a} for n, (q, a) in enumerate(pairs(40))
    ]
    data = tmp_path / "long.json"
    data.write_text(json.dumps(rows), encoding="utf-8")
    result = instruct.run(settings(base, data, tmp_path / "run", steps=2, protocol="book"))
    assert result.rows == {"train": 31, "valid": 0, "test": 0}
    assert result.dropped == {"train": 3, "valid": 2, "test": 4}
    assert (result.validation_loss, result.test_loss, result.test_loss_before) == (None, None, None)
    assert result.steps == 2 and result.past_context == len(result.answers) == 3  # longer than the model's 256
    err = capsys.readouterr().err
    for name in ("validation", "test"):
        assert err.count(f"nothing is measured on the {name} rows: there is nothing to learn") == 1
    instruct.show(result)
    text = capsys.readouterr().out
    assert "3 of train, 2 of valid, 4 of test" in text and "outgrown by 3 questions" in text


def test_what_nobody_knows_is_not_graded(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two of four test questions have no answer: neither right nor wrong, whatever the model says."""
    rows = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        + ([{"role": "user", "content": "and now?"}] if n in (34, 36) else [])
        for n, (q, a) in enumerate(pairs(40))
    ]
    data = tmp_path / "open.jsonl"
    data.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    result = instruct.run(settings(base, data, tmp_path / "run", steps=1, protocol="book", answers=4))
    assert (result.answered, result.graded, result.exact) == (4, 2, 0.0)
    assert [one.expected is None for one in result.answers] == [True, False, True]
    instruct.show(result)
    text = capsys.readouterr().out
    assert "0.0 % of 2 answers" in text and "2 answers: the data does not say" in text
    assert text.count("expected: ") == 1


def test_evaluations_read_rows_of_like_length_together(base: Path, monkeypatch: pytest.MonkeyPatch):
    _, rows = rows_of(base)
    source = Rows(rows, pad=0)
    monkeypatch.setattr(instruct, "evaluate", lambda model, batches, machine: [b.tokens.shape[1] for b in batches])
    widths = instruct._score(None, 2, source=source, machine=None)
    assert widths == sorted(widths) and widths == sorted(source.lengths.tolist())[1::2]


def test_a_dry_run_leaves_nothing(base: Path, data: Path, tmp_path: Path):
    assert isinstance(instruct.run(settings(base, data, tmp_path / "run", dry_run=True)), Preflight)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 8}, "the training rows: there is nothing to learn.*begin behind the context"),
        ({"learn": "marked"}, "marks no message"),
        ({"template": "chatlm"}, "no prompt style 'chatlm'"),
        ({"data": ["no/such.json"]}, "no such file or name"),
        ({"train": "lora", "lora_targets": ["qery"]}, "qery"),
    ],
)
def test_what_cannot_be_learnt_is_refused_and_leaves_the_folder_free(
    base: Path, data: Path, tmp_path: Path, change: dict[str, Any], message: str
):
    with pytest.raises(Exception, match=message) as error:
        given = {"model": str(base), "data": [str(data)], "out": tmp_path / "run"}
        instruct.run(Instruct.create(**given | FAST | change))
    assert "->" in str(error.value)
    assert not [path for path in (tmp_path / "run").glob("*") if path.name != ".lock"]


def test_all_masked_is_refused_with_the_reason(base: Path, tmp_path: Path):
    answer = {"role": "assistant", "content": "yo", "train": False}
    file = tmp_path / "masked.jsonl"
    rows = [[{"role": "user", "content": text}, answer] for text in ("hi", "ho", "hu")]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match="nothing in them is to be learnt"):
        instruct.run(settings(base, file, tmp_path / "run", learn="marked"))


def test_no_model_is_told(data: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="no model was given"):
        instruct.run(Instruct.create(data=[str(data)], out=tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_transformers_writes_and_stops_as_we_do(base: Path, data: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    instruct.run(settings(base, data, tmp_path / "run", steps=2))
    where = str(tmp_path / "run" / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(where)
    ours = folder.load(where).tokenizer
    template = template_of(ours)
    talk = [{"role": "user", "content": "what is 3?"}, {"role": "assistant", "content": "abcd"}]
    for messages, generation in ((talk, False), (talk[:1], True)):
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        assert template.render(messages, generation=generation) == expected
    model = transformers.AutoModelForCausalLM.from_pretrained(where)
    found = model.generation_config.eos_token_id
    assert set(found if isinstance(found, list) else [found]) == set(ours.ends)
    assert ours.special["<|im_end|>"] in ours.ends
