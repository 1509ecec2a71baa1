"""`groundup compare`: the answers of `groundup respond`, marks that can be worked out by hand, nothing done twice."""

import io
import json
import math
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import cli, tokens
from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.commands import compare, compare_answers, compare_distances, compare_page, respond
from groundup.commands.compare_answers import Asked, Board, Contender, Written
from groundup.errors import CheckpointError, DataError, GroundupError, SettingsError, TokenizerError
from groundup.evaluate import scoring
from groundup.evaluate.answers import asked
from groundup.evaluate.compare import Column, scored
from groundup.evaluate.judge import server as judge_server
from groundup.evaluate.judge.scores import read as read_answers
from groundup.generate.chat import answers, ending, template_of, with_tokens_of
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.settings import Compare, Respond
from groundup.text.conversations import Conversation
from groundup.text.styles import STYLES
from groundup.tokens.rows import prompt_ids

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from judge_loopback import says, serving  # noqa: E402

TEXT = "abcdefghijklmnopqrstuvwxyz .?\n:|_<>#ABCDEFGHIJKLMNOPQRSTUVWXYZ"
QUESTIONS = ["who has the kettle?", "why?", "where is the boat", "what?", "and what is this about"]


def made(path: Path, *, seed: int, text: str = TEXT, template: bool = True) -> Path:
    """A tiny model that was never taught anything, with words of its own."""
    tokenizer = tokens.train("chars", [text], special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    if template:
        written = with_tokens_of(tokenizer, STYLES["chatml"].template)
        tokenizer = ending(tokenizer.with_template(written.source), written)
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=128, width=32, layers=2, heads=4,
                         init="torch", tie=False)  # fmt: skip
    folder.save_model(path, build(config, seed=seed), tokenizer, card={})
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    room = tmp_path_factory.mktemp("models")
    return made(room / "before", seed=4), made(room / "after", seed=5)


@pytest.fixture
def data(models: tuple[Path, Path], tmp_path: Path) -> Path:
    """Five questions; what the second model says greedily is what is expected of the first three."""
    said = expected(models[1], QUESTIONS)
    rows = [
        {"instruction": text, "output": said[number] if number < 3 else "nobody at all"}
        for number, text in enumerate(QUESTIONS)
    ]
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_server, "LONGEST_PAUSE", 0.02)


def expected(model: Path, questions: list[str], **more: Any) -> list[str]:
    loaded = folder.load(model)
    talks = [[{"role": "user", "content": text}] for text in questions]
    return answers(loaded.model, loaded.tokenizer, template_of(loaded.tokenizer), talks, max_tokens=8, **more)


def settings(models: tuple[Path, ...], data: Path, out: Path, **changes: Any) -> Compare:
    shared = dict(max_tokens=8, threads=1, batch=2, kl=False)
    return Compare(models=[str(model) for model in models], data=[str(data)], out=out, **shared | changes)


def refuse(*given: Any, **named: Any) -> Any:
    raise AssertionError("a model was loaded")


class Terminal(io.StringIO):
    """Standard input as a person has it."""

    def isatty(self) -> bool:
        return True


def log_p(model: Path, question: str, ids: list[int]) -> float:
    """Of one answer, by the plain forward pass over all of it."""
    loaded = folder.load(model)
    prompt = prompt_ids(loaded.tokenizer, template_of(loaded.tokenizer), [{"role": "user", "content": question}])
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[*prompt, *ids]]))[0].double().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + place, id]) for place, id in enumerate(ids))


def kept(out: Path, place: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"answers-{place}.jsonl").read_text(encoding="utf-8").splitlines()]


# answers


def test_the_answers_are_those_of_the_models(models, data: Path, tmp_path: Path):
    compare.run(settings(models, data, tmp_path / "out"))
    for place, model in enumerate(models, 1):
        found = read_answers(tmp_path / "out" / f"answers-{place}.jsonl")
        assert [one.answer for one in found] == expected(model, QUESTIONS)
        assert [one.question for one in found] == QUESTIONS
        for line in kept(tmp_path / "out", place):
            assert len(line["ids"]) <= 8 and line["ended"] == (len(line["ids"]) < 8)


def test_drawn_answers_are_those_of_respond_with_the_same_seed(models, data: Path, tmp_path: Path):
    compare.run(settings(models, data, tmp_path / "out", temperature=1.2, top_p=0.9, seed=7, max_tokens=20))
    for place, model in enumerate(models):
        wish = Respond(model=str(model), data=str(data), out=tmp_path / f"{place}.json", max_tokens=20, threads=1,
                       temperature=1.2, top_p=0.9, seed=7 + place)  # fmt: skip
        result, lines = respond.run(wish), kept(tmp_path / "out", place + 1)
        told = json.loads(result.out.read_text(encoding="utf-8"))
        assert [line["model_response"] for line in lines] == [entry["model_response"] for entry in told]
        assert sum(not line["ended"] for line in lines) == result.cut
    ended = [line["ended"] for place in (1, 2) for line in kept(tmp_path / "out", place)]
    assert {True, False} == set(ended)


def test_a_prompt_that_comes_twice_counts_once(models, tmp_path: Path):
    path = tmp_path / "twice.json"
    path.write_text(json.dumps([{"instruction": text} for text in ["who?", "why?", "who?"]]), encoding="utf-8")
    result = compare.run(settings(models, path, tmp_path / "out"))
    assert result.prompts == 2 and result.remarks[0] == "1 prompts ask what an earlier one does, and were left out"
    assert result.rows[0].exact is None
    assert compare.run(settings(models, path, tmp_path / "one", limit=1)).prompts == 1


# marks


def test_rewards_by_hand(models, data: Path, tmp_path: Path):
    """The second model is right on three of five, the first on none of them."""
    result = compare.run(settings(models, data, tmp_path / "out", reward=["exact"]))
    assert [row.exact for row in result.rows] == [0.0, 0.6]
    [marks] = result.marks
    [wins] = marks.wins
    assert (wins.won, wins.tied, wins.lost, wins.share) == (3, 2, 0, 0.8)
    assert [one.mean for one in marks.spreads] == [0.0, 0.6] and marks.gaps[0].mean == 0.6
    assert wins.low < 0.8 < wins.high and result.ok


def test_several_rewards_and_their_sum(models, data: Path, tmp_path: Path):
    result = compare.run(settings(models, data, tmp_path / "out", reward=["exact", "-0.5*length:4", "exact"]))
    assert [one.name for one in result.marks] == ["exact", "-0.5*length:4", "exact + -0.5*length:4"]
    content = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    one, other, both = (column["scores"] for column in content["columns"])
    sizes = [[len(line["ids"]) for line in kept(tmp_path / "out", place)] for place in (1, 2)]
    assert other == [[-0.5 * max(0.0, 1 - abs(size - 4) / 4) for size in row] for row in sizes]
    assert both == [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]


def test_equal_answers_are_scored_once(models, data: Path, tmp_path: Path):
    """A function that never says the same twice would call equal answers better and worse."""
    (tmp_path / "mine.py").write_text(
        "def moody(prompts, responses, references):\n    return [float(n) for n in range(len(responses))]\n", "utf-8"
    )
    twice = (models[0], models[0])
    result = compare.run(settings(twice, data, tmp_path / "out", reward=[f"{tmp_path / 'mine.py'}:moody"]))
    assert (result.marks[0].wins[0].tied, result.marks[0].wins[0].share) == (5, 0.5)
    assert "before (2) is the same model as before (1): so are its greedy answers" in result.remarks
    assert [row.name for row in result.rows] == ["before (1)", "before (2)"]


def reward_model(model: Path, path: Path) -> Path:
    """A reward model that nobody taught anything, made of a model that answers."""
    loaded = folder.load(model)
    head = HeadConfig(labels=("reward",), kind="reward", mean=0.2, spread=2.0)
    folder.save_model(path, Classifier(loaded.model, head, seed=3, init="torch"), loaded.tokenizer, card={})
    return path


def test_a_reward_model_scores_prompt_and_answer(models, data: Path, tmp_path: Path):
    judge = reward_model(models[0], tmp_path / "reward")
    result = compare.run(settings(models, data, tmp_path / "out", reward=[str(judge)]))
    content = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    machine = machines.choose(device="cpu", dtype="fp32", threads=1)
    found = scoring.opened(judge, machine=machine)
    for place in (1, 2):
        talks = [Conversation(tuple(line["messages"][:1]) + ({"role": "assistant", "content": line["model_response"]},))
                 for line in kept(tmp_path / "out", place)]  # fmt: skip
        told = scoring.scores(found.model, found.tokenizer, found.template, talks, machine=machine, batch=1)
        assert content["columns"][0]["scores"][place - 1] == pytest.approx(told, abs=1e-5)
    assert len(set(content["columns"][0]["scores"][0])) == 5 and result.marks[0].name == str(judge)


def test_what_a_reward_model_cannot_read_is_told_and_answers_stay(models, data: Path, tmp_path: Path):
    narrow = made(tmp_path / "narrow", seed=6, text="abc \n")
    judge = reward_model(narrow, tmp_path / "reward")
    with pytest.raises(DataError, match="reward model .*reward cannot read an answer"):
        compare.run(settings(models, data, tmp_path / "out", reward=[str(judge)]))
    assert len(kept(tmp_path / "out", 2)) == 5
    with pytest.raises(CheckpointError, match="is no reward model"):
        compare.run(settings(models, data, tmp_path / "other", reward=[str(models[0])]))
    assert not (tmp_path / "other").exists()


def test_a_model_against_itself_draws_answers_of_its_own(models, data: Path, tmp_path: Path):
    compare.run(settings((models[0], models[0]), data, tmp_path / "out", temperature=1.0))
    one, two = ([line["ids"] for line in kept(tmp_path / "out", place)] for place in (1, 2))
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_columns_of_earlier_runs_stay(models, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    first = compare.run(settings(models, data, out, reward=["exact"]))
    monkeypatch.setattr(compare_answers, "opened", refuse)
    second = compare.run(settings(models, data, out, reward=["length:3"]))
    assert [one.name for one in second.marks] == ["exact", "length:3"]
    assert second.marks[0] == first.marks[0]
    (out / "scores.json").write_text('{"columns": [{"name": "x"}]}', encoding="utf-8")
    assert [one.name for one in compare.run(settings(models, data, out, reward=["exact"])).marks] == ["exact"]


def test_three_models(models, data: Path, tmp_path: Path, capsys):
    result = compare.run(settings((*models, models[1]), data, tmp_path / "out", reward=["exact"]))
    assert [wins.share for wins in result.marks[0].wins] == [0.8, 0.8]
    compare.show(result)
    told = capsys.readouterr().out
    assert "exactly as expected" in told and told.count("80.0 % (") == 2 and "comparison.html" in told


# distance


def test_kl_is_that_of_the_plain_forward_pass(models, data: Path, tmp_path: Path):
    """Greedy answers say nothing about KL: others are drawn for it."""
    out = tmp_path / "out"
    result = compare.run(settings(models, data, out, kl=True))
    drawn = [json.loads(line) for line in (out / "drawn-2.jsonl").read_text(encoding="utf-8").splitlines()]
    ratios = [
        log_p(models[1], text, line["ids"]) - log_p(models[0], text, line["ids"])
        for text, line in zip(QUESTIONS, drawn, strict=True)
    ]
    found = result.rows[1].kl
    assert found is not None and found.answers == 5 and result.rows[0].kl is None
    assert found.nats == pytest.approx(sum(ratios) / 5, abs=1e-4)
    assert found.error == pytest.approx(torch.tensor(ratios).std().item() / math.sqrt(5), abs=1e-4)
    assert any("KL is estimated from answers of its own, drawn at temperature 1" in one for one in result.remarks)


def test_kl_of_answers_that_were_drawn_needs_no_others(models, data: Path, tmp_path: Path):
    result = compare.run(settings(models, data, tmp_path / "out", kl=True, temperature=1.0))
    ratios = [
        log_p(models[1], text, line["ids"]) - log_p(models[0], text, line["ids"])
        for text, line in zip(QUESTIONS, kept(tmp_path / "out", 2), strict=True)
    ]
    assert result.rows[1].kl is not None and result.rows[1].kl.nats == pytest.approx(sum(ratios) / 5, abs=1e-4)
    assert not list((tmp_path / "out").glob("drawn-*")) and not any("KL" in remark for remark in result.remarks)
    compare.run(settings(models, data, tmp_path / "greedy", kl=True))  # the same are drawn beside greedy answers
    drawn, others = tmp_path / "greedy" / "drawn-2.jsonl", tmp_path / "greedy" / "answers-2.jsonl"
    assert drawn.read_bytes() == (tmp_path / "out" / "answers-2.jsonl").read_bytes() != others.read_bytes()


@pytest.mark.slow
def test_kl_of_one_token_is_near_the_exact_sum(models, tmp_path: Path):
    """With answers of one token KL can be summed over the vocabulary; the estimate is within four of its errors."""
    questions = [f"{one}{two}?" for one in "abcdefghijkl" for two in "abcdefghijkl"]
    data = tmp_path / "many.json"
    data.write_text(json.dumps([{"instruction": text} for text in questions]), encoding="utf-8")
    result = compare.run(settings(models, data, tmp_path / "out", kl=True, temperature=1.0, max_tokens=1, batch=64))
    exact = 0.0
    one, first = (folder.load(model) for model in (models[1], models[0]))
    for text in questions:
        ids = prompt_ids(one.tokenizer, template_of(one.tokenizer), [{"role": "user", "content": text}])
        with torch.no_grad():
            p, q = (loaded.model(torch.tensor([ids]))[0, -1].double().log_softmax(-1) for loaded in (one, first))
        exact += float((p.exp() * (p - q)).sum()) / len(questions)
    found = result.rows[1].kl
    assert found is not None and found.error is not None and 0 < found.error < exact
    assert abs(found.nats - exact) < 4 * found.error


def test_a_model_is_no_distance_from_itself(models, data: Path, tmp_path: Path):
    result = compare.run(settings((models[0], models[0]), data, tmp_path / "out", kl=True))
    assert result.rows[1].kl is not None and abs(result.rows[1].kl.nats) < 1e-4


def test_another_vocabulary_has_no_kl_and_that_is_said(models, data: Path, tmp_path: Path):
    other = made(tmp_path / "other", seed=6, text=TEXT + "0123456789")
    result = compare.run(settings((models[0], other), data, tmp_path / "out", kl=True))
    assert result.rows[1].kl is None
    assert "KL of other is left out: it has another vocabulary or template than before" in result.remarks
    eighth = compare.run(settings(models, data, tmp_path / "int8", kl=True, dtype="int8"))
    assert eighth.rows[1].kl is None and any("written in int8" in remark for remark in eighth.remarks)


def test_the_last_id_of_an_answer_needs_no_place_in_the_context():
    assert [Written("", [1, 2, 3], [4, 5], True).outgrew(context) for context in (3, 4, 5)] == [True, False, False]


def test_answers_that_outgrow_the_context_are_left_out_of_kl(models, tmp_path: Path):
    data = tmp_path / "long.json"
    data.write_text(json.dumps([{"instruction": text} for text in ("a" * 120, "who?", "why?")]), encoding="utf-8")
    result = compare.run(settings(models, data, tmp_path / "out", kl=True))
    assert result.rows[1].kl is not None and (result.rows[1].kl.answers, result.rows[1].kl.left_out) == (2, 1)
    told = "\n".join(result.remarks)
    assert "1 prompts with their answers outgrew the context of after" in told
    assert "1 of its answers were left out" in told


# a comparison that was cut off


class Cut(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("half", [b"", b'{"number": 3, "mess'])
def test_a_killed_comparison_goes_on_where_it_was(
    models, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float, half: bytes
):
    changes = {"temperature": temperature, "kl": True}
    whole = compare.run(settings(models, data, tmp_path / "whole", **changes))
    out, left, real = tmp_path / "cut", [0], compare_answers._line

    def line(asked: Asked, number: int, answer: Written) -> str:
        if not left[0]:
            raise Cut
        left[0] -= 1
        return real(asked, number, answer)

    for more in (12, 1):  # the first model's five twice, as they are put in order at last; then of the second's
        left[0] = more
        with monkeypatch.context() as patch, pytest.raises(Cut):
            patch.setattr(compare_answers, "_line", line)
            compare.run(settings(models, data, out, **changes))
        with (out / "answers-2.jsonl").open("ab") as file:
            file.write(half)
    assert len((out / "answers-2.jsonl").read_bytes().split(b"\n")) == 3 + 1
    again = compare.run(settings(models, data, out, **changes))
    for path in (tmp_path / "whole").glob("*.jsonl"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert again.rows == whole.rows
    with monkeypatch.context() as patch:
        patch.setattr(compare_answers, "opened", refuse)
        patch.setattr(compare_distances.folder, "load", refuse)
        assert compare.run(settings(models, data, out, **changes)).rows == whole.rows


def test_one_model_is_in_memory_at_a_time(models, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import gc
    import weakref

    alive: list[Any] = []
    real_opened, real_load = compare_answers.opened, folder.load

    def counted(loaded: Any) -> None:
        gc.collect()
        assert not [one for one in alive if one() is not None]
        alive.append(weakref.ref(loaded.model))

    def opened(*given: Any, **named: Any) -> Any:
        found = real_opened(*given, **named)
        counted(found[0])
        return found

    def load(*given: Any, **named: Any) -> Any:
        found = real_load(*given, **named)
        counted(found)
        return found

    monkeypatch.setattr(compare_answers, "opened", opened)
    monkeypatch.setattr(compare_distances, "folder", type("Room", (), {"load": staticmethod(load)}))
    compare.run(settings(models, data, tmp_path / "out", kl=True))
    assert len(alive) == 4  # both to answer, both to look at the drawn answers


def test_another_comparison_is_refused_by_what_differs(models, data: Path, tmp_path: Path):
    out = tmp_path / "out"
    compare.run(settings(models, data, out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for changes, words in (
        ({"max_tokens": 9}, "max_tokens"),
        ({"temperature": 1.0, "seed": 5}, "temperature, seed"),
        ({"limit": 3}, "prompts"),
    ):
        with pytest.raises(SettingsError, match=f"holds another comparison, which differs in: {words}\n.*rm -r"):
            compare.run(settings(models, data, out, **changes))
    with pytest.raises(SettingsError, match="differs in: models"):
        compare.run(settings((models[1], models[0]), data, out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_that_holds_something_else_is_left_alone(models, data: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"is no comparison: it holds notes\.txt"):
        compare.run(settings(models, data, tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("line", ["[]", "3", '{"number": 9}', "no JSON"])
def test_a_damaged_file_of_answers_is_told(models, data: Path, tmp_path: Path, line: str):
    out = tmp_path / "out"
    compare.run(settings(models, data, out))
    path = out / "answers-1.jsonl"
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    path.write_text(f"{first}\n{line}\n{rest}", encoding="utf-8")
    with pytest.raises(DataError, match="is damaged: line 2 .*\n.*rm "):
        compare.run(settings(models, data, out))


# judges and people


def test_a_judge_is_judged_and_compares_both_ways(models, data: Path, tmp_path: Path):
    with serving() as server:
        result = compare.run(settings(models, data, tmp_path / "out", judge=f"{server.address}/v1"))
        # five right and five wrong answers both ways, less those asked already; five pairs both ways
        asked_at = len(server.questions)
        [marks] = result.marks
        assert marks.kind == "judge" and (marks.wins[0].won, marks.wins[0].tied, marks.wins[0].lost) == (3, 2, 0)
        assert result.check is not None and result.check.fit and result.ok
        again = compare.run(settings(models, data, tmp_path / "out", judge=f"{server.address}/v1"))
        assert len(server.questions) == asked_at and again.marks == result.marks
    later = compare.run(settings(models, data, tmp_path / "out", reward=["exact"]))  # what was said of the judge stays
    assert later.check == result.check and later.remarks == result.remarks and len(later.marks) == 2


def test_an_unfit_judge_gives_no_column(models, data: Path, tmp_path: Path, capsys):
    with serving(says('{"better": "A"}')) as server:
        words = ["compare", *map(str, models), "--data", str(data), "--out", str(tmp_path / "out"), "--max-tokens", "8"]
        assert cli.main([*words, "--threads", "1", "--no-kl", "--judge", f"{server.address}/v1"]) == 1
    told = capsys.readouterr().out
    assert "UNFIT" in told and "points against" not in told


def test_a_judge_without_expected_answers_is_not_judged_and_that_is_said(models, tmp_path: Path):
    data = tmp_path / "bare.json"
    data.write_text(json.dumps([{"instruction": text} for text in QUESTIONS]), encoding="utf-8")
    with serving(says('{"better": "A"}')) as server:
        result = compare.run(settings(models, data, tmp_path / "out", judge=f"{server.address}/v1"))
    assert result.check is None and any("was not judged itself" in remark for remark in result.remarks)
    assert result.marks[0].wins[0].share == 0.5  # whoever stands first wins: nobody does
    assert any("in 5 of the ties the judge chose by the place" in remark for remark in result.remarks)


def test_a_judge_that_is_away_is_told_before_anything_is_answered(models, data: Path, tmp_path: Path):
    with pytest.raises(GroundupError, match="no judge answers at"):
        compare.run(settings(models, data, tmp_path / "out", judge="http://127.0.0.1:1/v1"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(GroundupError, match="goes with the address of a server\n?.*") as raised:
        compare.run(settings(models, data, tmp_path / "out", judge=str(models[0]), judge_name="tiny"))
    assert "--judge-name tiny" in str(raised.value) and "leave --judge-name out" in str(raised.value)


def test_a_person_votes(models, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    said = [expected(model, QUESTIONS) for model in models]
    waiting = sum(one.strip() != two.strip() for one, two in zip(*said, strict=True))
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda *_: "t")
    result = compare.run(settings(models, data, tmp_path / "out", human=True))
    told = capsys.readouterr().err.partition("decided before")[2]
    assert "answer 2" in told and "before" not in told and "after" not in told  # no model has a name there
    assert len((tmp_path / "out" / "votes.jsonl").read_text(encoding="utf-8").splitlines()) == waiting
    assert result.marks[0].kind == "human" and result.marks[0].wins[0].share == 0.5
    monkeypatch.setattr("builtins.input", refuse)
    later = compare.run(settings(models, data, tmp_path / "out", reward=["exact"]))
    assert [one.kind for one in later.marks] == ["reward", "human"]
    assert compare.run(settings(models, data, tmp_path / "out", human=True)).marks == later.marks


# what is wrong


def test_mistakes_are_told_and_nothing_is_left(models, data: Path, tmp_path: Path):
    base = made(tmp_path / "base", seed=6, template=False)
    trunk = folder.load(models[0])
    judge = Classifier(trunk.model, HeadConfig(labels=("ham", "spam")), seed=1)
    folder.save_model(tmp_path / "labels", judge, trunk.tokenizer, card={})
    (tmp_path / "empty.json").write_text("[]", encoding="utf-8")
    (tmp_path / "cafe.json").write_text(json.dumps([{"instruction": "caf\u00e9", "output": "x"}]), encoding="utf-8")
    (tmp_path / "bare.json").write_text(json.dumps([{"instruction": "who?"}]), encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    one, two = models
    for given, error, message in (
        (((), data, "out", {}), SettingsError, "two models or more, and none was given"),
        (((one,), data, "out", {}), SettingsError, "two models or more, and only .*before was given"),
        (((one, base), data, "out", {}), SettingsError, "base is a base model.*\n.*--template alpaca"),
        (((one, tmp_path / "labels"), data, "out", {}), CheckpointError, "labels judges texts and writes none"),
        (((one, tmp_path / "none"), data, "out", {}), CheckpointError, "there is no file or folder"),
        (((one, two), Path(""), "out", {}), DataError, "is a folder|no such file"),
        (((one, two), tmp_path / "empty.json", "out", {}), DataError, "holds no conversations"),
        (((one, two), data, "file", {}), SettingsError, "file is a file"),
        (((one, two), data, "out", {"reward": ["exakt"]}), SettingsError, "there is no reward 'exakt'"),
        (((one, two), tmp_path / "bare.json", "out", {"reward": ["exact"]}), DataError, "has none"),
        (((one, two), data, "out", {"human": True}), SettingsError, "no terminal"),
    ):
        with pytest.raises(error, match=message):
            compare.run(settings(given[0], given[1], tmp_path / given[2], **given[3]))
        assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="no prompts were given"):
        compare.run(Compare(models=[str(one), str(two)], data=[]))
    with pytest.raises(TokenizerError, match="entry 0 of .*cafe.json"):
        compare.run(settings((one, two), tmp_path / "cafe.json", tmp_path / "cafe"))
    assert compare.run(settings((one, two), data, tmp_path / "cafe")).prompts == 5  # nothing was lost there


def test_a_base_model_can_be_told_how_it_is_asked(models, data: Path, tmp_path: Path):
    base = made(tmp_path / "base", seed=4, template=False)  # the weights of the first
    result = compare.run(settings((models[0], base), data, tmp_path / "out", template="chatml"))
    one, two = ([line["asked"] for line in kept(tmp_path / "out", place)] for place in (1, 2))
    assert one == two and result.rows[0].tokens == result.rows[1].tokens


def test_a_template_is_known_by_what_it_holds(models, data: Path, tmp_path: Path):
    path = tmp_path / "mine.jinja"
    words = list[str]()
    for source in (STYLES["chatml"].template, STYLES["chatml"].template + " ", STYLES["chatml"].template):
        path.write_text(source, encoding="utf-8")
        words.append(compare_answers.look(settings(models, data, tmp_path, template=str(path)))[0].words)
    path.rename(tmp_path / "other.jinja")
    found = compare_answers.look(settings(models, data, tmp_path, template=str(tmp_path / "other.jinja")))
    assert words[0] == words[2] == found[0].words != words[1]


def test_nothing_to_say_which_is_better_is_said(models, data: Path, tmp_path: Path):
    result = compare.run(settings(models, data, tmp_path / "out"))
    assert result.marks == [] and result.remarks[-1].startswith("nothing was asked to say which answer is better")


# the page


class Seen(HTMLParser):
    """What a browser would make of a page: elements, whether all are closed, and the text."""

    EMPTY = {"meta", "input", "br", "path"}

    def __init__(self) -> None:
        super().__init__()
        self.opened, self.tags, self.words = list[str](), set[str](), ""
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.EMPTY:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def seen(page: str) -> Seen:
    found = Seen()
    found.feed(page)
    found.close()
    assert not found.opened
    return found


EVIL = '</pre><script>alert(1)</script><img src=x onerror="alert(2)"> & "quoted" \x1b[2J'


def board(out: Path, *, count: int = 3) -> Board:
    """Two models whose names, prompts and answers are all of the worst kind."""
    talks = [
        ({"role": "system", "content": EVIL}, {"role": "user", "content": f"{EVIL} {number}"},
         {"role": "assistant", "content": EVIL})
        for number in range(count)
    ]  # fmt: skip
    rows = [Conversation(talk, "here", EVIL) for talk in talks]
    both = [Contender(f"{EVIL}{place}", "spec", "w", "t", 10, 20) for place in range(2)]
    written = [
        [Written(f"{EVIL}{place} {number}", [1, 2], [3], number != 1) for number in range(count)] for place in (1, 2)
    ]
    return Board(Asked(rows, [asked(row) for row in rows], 0), both, written, out)


def test_the_page_shows_whatever_was_written_as_text(tmp_path: Path):
    columns = [scored(EVIL, [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]]), Column(EVIL + "2", "judge", [[1.0, 0.0, None]])]
    table = [["", EVIL, EVIL], ["tokens", "1", "2"]]
    page = compare_page.page(board(tmp_path), columns, table, about=EVIL, remarks=[EVIL])
    found = seen(page)
    assert not {"script", "img", "link", "iframe"} & found.tags and not {"onerror", "src", "href"} & found.attributes
    assert "</pre><script>alert(1)</script><img src=x onerror=" in found.words  # as text
    assert "\x1b" not in page and not re.search(r"https?://", page)
    assert page.count('class="answer best"') == 2 and "cut off" in found.words
    assert re.findall(r'class="ask (\w+)"', page) == ["better", "worse", "level"]  # as the judge says
    assert [found.words.count(words) for words in (": won", ": lost", ": no verdict")] == [1, 1, 1]
    compare_page.write(tmp_path / "page.html", page + "\ud800")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").endswith("\\ud800")


def test_a_long_comparison_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare_page, "MOST", 4)
    monkeypatch.setattr(compare_page, "CHARACTERS", 10)
    page = compare_page.page(board(tmp_path, count=9), [], [["", "a", "b"]], about="", remarks=[])
    found = seen(page)
    assert page.count('class="ask ') == 4 and "4 of 9 prompts, evenly spread" in found.words
    assert "characters more" in found.words and "<fieldset" not in page


def test_the_page_of_a_run(models, data: Path, tmp_path: Path):
    result = compare.run(settings(models, data, tmp_path / "out", reward=["exact"], kl=True))
    page = result.page.read_text(encoding="utf-8")
    found = seen(page)
    for words in ("before \u00b7 after", "3 won, 2 tied, 0 lost", "KL from before", "How scores are spread", "exact 1"):
        assert words in found.words
    assert page.count('class="ask better"') == 3 and page.count('class="ask level"') == 2
    assert "svg" in found.tags and "script" not in found.tags


# the command line


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


@pytest.mark.usefixtures("_elsewhere")
def test_the_command_line(models, data: Path, tmp_path: Path, capsys):
    words = ["compare", *map(str, models), "--data", str(data), "--max-tokens", "8", "--threads", "1"]
    assert cli.main([*words, "--reward", "exact"]) == 0
    told = capsys.readouterr().out
    assert "exact: points against before" in told and "80.0 %" in told
    assert (tmp_path / "runs" / "compare-before-after" / "comparison.html").is_file()
    assert cli.main([*words, "--reward", "exact", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["marks"][0]["wins"][0]["share"] == 0.8 and found["rows"][1]["kl"]["answers"] == 5
    assert cli.main(["compare", str(models[0]), "--data", str(data)]) == 2
    assert "  -> " in capsys.readouterr().err
