"""Learning from rewards as a stage: what a run leaves, what it stays near, what it refuses, how it goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import atomic, folder
from groundup.errors import CheckpointError, DataError, SettingsError
from groundup.evaluate.rewarded import RewardMarks
from groundup.journal import Journal
from groundup.model import ModelConfig, build
from groundup.settings import Ppo
from groundup.stages import ppo
from groundup.text import conversations
from groundup.train import loop
from groundup.train.plan import Preflight

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ?.|\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}|{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
FAST: dict[str, Any] = {
    "steps": 4, "responses": 8, "batch": 4, "micro_batch": 2, "passes": 2, "response_tokens": 6, "eval_every": 2,
    "validation": 0.2, "warmup": 0, "log_every": 1, "lr": 1e-3, "device": "cpu", "dtype": "fp32",
    "threads": 1, "seed": 3,
}  # fmt: skip


def saved(path: Path, *, seed: int = 1, letters: str = LETTERS, **changes: Any) -> Path:
    """A network that has learnt nothing, with a tokenizer of single letters."""
    tokenizer = tokens.train("chars", [letters])
    shape = {"family": "llama", "context": 48, "width": 16, "layers": 2, "heads": 2, "init": "torch"} | changes
    config = ModelConfig(vocabulary=tokenizer.vocabulary, **shape)
    folder.save_model(path, build(config, seed=seed), tokenizer, card={"license": "mit"})
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved(tmp_path / "base")


@pytest.fixture
def asked(tmp_path: Path, base: Path) -> dict[str, Any]:
    """Settings of a run: twenty questions, a template without tokens of its own, a rule for an answer."""
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": "abc"[n % 3]}]}
        for n in range(20)
    ]
    data, template = tmp_path / "prompts.jsonl", tmp_path / "plain.jinja"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    template.write_text(TEMPLATE, encoding="utf-8")
    return {
        **FAST, "model": str(base), "data": [str(data)], "template": str(template), "reward": ["regex:[a-e]"],
        "out": tmp_path / "run",
    }  # fmt: skip


def done(asked: dict[str, Any], **changes: Any) -> ppo.Result:
    result = ppo.run(Ppo.create(**asked | changes))
    assert isinstance(result, ppo.Result)
    return result


def weights(path: Path) -> dict[str, torch.Tensor]:
    return folder.load(path).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines(out: Path) -> list[dict[str, Any]]:
    """The journal without clocks."""
    clocks = ("seconds", "tokens_per_second", "written_per_second")
    return [{name: value for name, value in each.items() if name not in clocks} for each in Journal(out).read()]


def test_a_run_leaves_what_it_promises(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    result = done(asked, test=0.2)
    out = result.out
    assert result.prompts == {"train": 12, "valid": 4, "test": 4} and result.steps == 4 and result.measured == "test"
    kept = ppo.parts(out)
    told = [row.messages[0]["content"] for part in (kept.train, kept.valid, kept.test) for row in part]
    assert sorted(told) == sorted(f"what is {n}?" for n in range(20))  # each in one part only, none lost
    before = atomic.read_json(out / "data" / "before.json")
    assert RewardMarks(**before["marks"]) == result.before and len(before["answers"]) == 4
    written = json.loads((out / "answers.json").read_text(encoding="utf-8"))
    assert [one["question"] for one in written] == [row.messages[0]["content"] for row in kept.test]
    assert [one["before"] for one in written] == before["answers"]
    looks = [(record["step"], record["kind"]) for record in Journal(out).read() if record["kind"] == "eval"]
    assert looks == [(0, "eval"), (2, "eval"), (4, "eval")]
    first = next(record for record in Journal(out).read() if record["kind"] == "train")
    for name in ("reward", "reward.regex", "kl", "kl_coefficient", "length", "ended", "entropy", "distinct",
                 "repetition", "score_spread", "explained_variance", "rollout", "clip_fraction"):  # fmt: skip
        assert name in first, name
    assert first["kl"] == pytest.approx(0, abs=1e-5)  # policy and reference are one before the first step
    assert first["ratio_kl"] == pytest.approx(0, abs=1e-6) and first["clip_fraction"] == 0
    assert (out / "report.html").is_file() and (out / "best" / "config.json").is_file()
    ppo.show(result)
    text = capsys.readouterr().out
    assert "before" in text and "nats an answer from the reference" in text and "groundup compare" in text


def test_the_run_is_a_plain_model_for_everyone_else(asked: dict[str, Any], base: Path) -> None:
    """The policy alone, as a folder like any other, with its template and where it came from; values stand beside."""
    out = done(asked).out
    loaded = folder.load(out)
    assert type(loaded.model).__name__ == "GPT" and not same(weights(out), weights(base))
    assert loaded.tokenizer.chat_template == TEMPLATE and loaded.card["license"] == "mit"
    assert loaded.card["from"] == str(base) and loaded.card["reward"] == "regex:[a-e]"
    assert (out / "model" / "value.safetensors").is_file()


def test_without_values_no_file_of_values(asked: dict[str, Any]) -> None:
    result = done(asked, algorithm="grpo", group=2)
    assert result.algorithm == "grpo" and not (result.out / "model" / "value.safetensors").exists()
    first = next(record for record in Journal(result.out).read() if record["kind"] == "train")
    assert "explained_variance" not in first and "kl" in first


@pytest.mark.parametrize("train", ["last-block", "head", "lora"])
def test_the_values_learn_whatever_else_does(asked: dict[str, Any], base: Path, train: str) -> None:
    result = done(asked, train=train, **({"lora_rank": 2} if train == "lora" else {}))
    from safetensors.torch import load_file

    value = load_file(result.out / "model" / "value.safetensors")
    assert float(value["weight"].abs().sum()) > 0  # they begin at zero
    old, new = weights(base), weights(result.out)
    moved = {name for name in new if not torch.equal(new[name], old[name])}
    first = {name for name in moved if name.startswith("blocks.0.")}
    assert moved and bool(first) == (train == "lora")
    if train == "head":
        assert moved == {"token_table.weight"}


def test_adapters_stay_near_their_own_base_and_hold_no_second_model(asked: dict[str, Any]) -> None:
    result = done(asked, train="lora", lora_rank=2)
    assert not (result.out / "data" / "reference.json").exists()
    first = next(record for record in Journal(result.out).read() if record["kind"] == "train")
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert result.drawn.kl is not None


@pytest.mark.parametrize("changes", [{}, {"train": "lora", "lora_rank": 2}], ids=["full", "lora"])
def test_policy_and_reference_agree_to_the_bit_in_bf16(asked: dict[str, Any], changes: dict[str, Any]) -> None:
    result = done(asked, dtype="bf16", steps=1, **changes)
    first = next(each for each in lines(result.out) if each["kind"] == "train")
    assert (first["rollout"], first["kl"]) == (0, 0)


def test_the_distance_is_that_of_two_folders(asked: dict[str, Any], base: Path) -> None:
    """What the closing says of its greedy answers, worked out again from the base and from RUN/model, one by one."""
    result = done(asked, steps=6, lr=5e-3)
    now, then = folder.load(result.out), folder.load(base)
    written = json.loads((result.out / "answers.json").read_text(encoding="utf-8"))
    found = []
    for one in written:
        prompt = now.tokenizer.encode(one["question"] + "|")
        ids = greedy(now.model, prompt, set(now.tokenizer.ends), 6)
        texts = now.tokenizer.decode([id for id in ids if id not in now.tokenizer.ends]).strip()
        assert texts == one["after"]
        found.append(sum(chance(now.model, prompt, ids)) - sum(chance(then.model, prompt, ids)))
    assert result.after.log_ratio == pytest.approx(sum(found) / len(found), abs=1e-4) and result.after.kl is None
    look = next(each for each in reversed(lines(result.out)) if each["kind"] == "eval")  # the same prompts and weights
    assert look["log_ratio"] == pytest.approx(result.after.log_ratio, abs=1e-6) and "kl" not in look


@torch.no_grad()
def greedy(model: torch.nn.Module, prompt: list[int], ends: set[int], most: int) -> list[int]:
    """The plain loop: read it all, take the likeliest, append."""
    ids: list[int] = []
    while len(ids) < most and not (ids and ids[-1] in ends):
        ids.append(int(model(torch.tensor([[*prompt, *ids]]))[0, -1].argmax()))
    return ids


@torch.no_grad()
def chance(model: torch.nn.Module, prompt: list[int], ids: list[int]) -> list[float]:
    """log p of each id of an answer."""
    log_p = model(torch.tensor([[*prompt, *ids]]))[0].log_softmax(dim=-1)
    return [float(log_p[len(prompt) + place - 1, id]) for place, id in enumerate(ids)]


def test_another_reference_is_one_to_stay_near(asked: dict[str, Any], tmp_path: Path) -> None:
    """Another network with other shapes that reads the same ids: the distance is not 0 at first."""
    other = saved(tmp_path / "other", seed=9, width=24, layers=1)
    result = done(asked, reference=str(other))
    first = next(record for record in Journal(result.out).read() if record["kind"] == "train")
    assert abs(first["kl"]) > 1e-4  # of two that have learnt nothing; with itself it is 0
    assert atomic.read_json(result.out / "data" / "reference.json")["model"] == str(other.resolve())


# going on


class Broken(Exception):
    """What stands for a kill."""


def cut_off(asked: dict[str, Any], at: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """A run that ends in the middle of step `at`, before its weights move."""
    whole, calls = loop._gradient, 0

    def some(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Broken
        return whole(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_gradient", some)
        with pytest.raises(Broken):
            done(asked, **changes)


@pytest.mark.parametrize(
    ("algorithm", "cuts"),
    [
        ("ppo", (4,)),
        ("grpo", (4,)),
        pytest.param("ppo", (2, 3, 5, 6), marks=pytest.mark.slow),
        pytest.param("grpo", (2, 3, 5, 6), marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_bit_for_bit_from_any_step(
    asked: dict[str, Any], algorithm: str, cuts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollout has four steps, a pass two: cut off in each step of the first rollout but its first, and behind it."""
    more = {"algorithm": algorithm, "group": 2, "steps": 7, "kl_target": 0.5, "save_every": "1", "lr": 3e-3}
    whole = done(asked, **more, out=tmp_path / "whole")
    for at in cuts:
        out = tmp_path / f"cut{at}"
        cut_off(asked, at, monkeypatch, **more, out=out)
        ppo.run(Ppo.create(out=out, resume=True))
        assert same(weights(out), weights(whole.out)), at
        assert lines(out) == lines(whole.out), at


def test_a_saved_rollout_is_not_answered_again(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.rollouts import source

    cut_off(asked, 3, monkeypatch, save_every="1")
    calls, plain = [], source.collect
    monkeypatch.setattr(source, "collect", lambda *given, **named: calls.append(named) or plain(*given, **named))
    ppo.run(Ppo.create(out=asked["out"], resume=True, steps=4))
    assert calls == []  # four steps are one rollout, and its answers lie in the checkpoint


def test_a_longer_run_goes_on(asked: dict[str, Any]) -> None:
    done(asked)
    result = ppo.run(Ppo.create(out=asked["out"], resume=True, steps=6))
    assert isinstance(result, ppo.Result) and result.steps == 6
    steps = [record["step"] for record in Journal(asked["out"]).read() if record["kind"] == "train"]
    assert steps == list(range(1, 7))


def test_a_reference_that_changed_is_refused(asked: dict[str, Any], base: Path) -> None:
    done(asked)
    shutil.rmtree(base)
    saved(base, seed=2)
    with pytest.raises(CheckpointError, match="has changed since this run began"):
        ppo.run(Ppo.create(out=asked["out"], resume=True, steps=6))


def test_what_was_measured_at_first_cannot_be_measured_later(asked: dict[str, Any]) -> None:
    done(asked)
    (asked["out"] / "data" / "before.json").unlink()
    with pytest.raises(CheckpointError, match=r"before\.json is missing"):
        ppo.run(Ppo.create(out=asked["out"], resume=True, steps=6))


def test_micro_batches_change_nothing(asked: dict[str, Any], tmp_path: Path) -> None:
    """The first step: later ones stand on weights that Adam moves by the sign of what is nearly zero."""
    runs = [done(asked, micro_batch=size, steps=1, out=tmp_path / f"by{size}") for size in (1, 4)]
    one, other = (next(each for each in lines(run.out) if each["kind"] == "train") for run in runs)
    assert one.keys() == other.keys()
    assert one.pop("kind") == other.pop("kind")
    for name, value in one.items():
        assert value == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


# what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"responses": 6}, r"--responses 6 is not a multiple of --batch 4.*\n  -> give --responses 4"),
        ({"responses": 8, "group": 3}, "--responses 8 is not a multiple of --group 3"),
        ({"algorithm": "grpo", "group": 1}, "compares answers to one prompt"),
        ({"algorithm": "grpo", "group": 2, "lam": 0.9}, "--lam means nothing with --algorithm grpo"),
        ({"steps": None, "minutes": 1.0}, "--minutes cannot be kept"),
        ({"template": "chatml"}, r"writes tokens that the model has never seen: <\|im_start\|>"),
        ({"reward": ["exactly"]}, "no reward 'exactly'"),
    ],
)
def test_settings_that_do_not_go_together(asked: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        done(asked, **changes)
    assert not (asked["out"] / "settings.toml").exists()


def test_a_reference_with_other_letters_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    other = saved(tmp_path / "other", letters=LETTERS + "+")
    with pytest.raises(SettingsError, match="reads other ids than the model that is tuned"):
        done(asked, reference=str(other))


def test_a_reference_that_reads_less_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    other = saved(tmp_path / "other", context=16)
    with pytest.raises(SettingsError, match="has a context of 16, the longest row has 18 tokens"):
        done(asked, reference=str(other))


def test_prompts_that_leave_no_room_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no prompt is left to answer"):
        done(asked, response_tokens=44)


def test_a_reward_that_breaks_ends_the_run_in_words(asked: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "reward.py"
    script.write_text("def score(prompts, responses, references):\n    return [float('nan') for _ in responses]\n")
    with pytest.raises(DataError, match="score"):
        done(asked, reward=[f"{script}:score"])


def test_exact_needs_answers_to_compare_with(asked: dict[str, Any], tmp_path: Path) -> None:
    data = tmp_path / "bare.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"what is {n}?"}]} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match="exact"):
        done(asked, data=[str(data)], reward=["exact"])
    assert done(asked, data=[str(data)]).after.right is None


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(asked: dict[str, Any]) -> None:
    checks = ppo.run(Ppo.create(**asked | {"dry_run": True}))
    assert isinstance(checks, Preflight) and checks.steps == 4
    assert not asked["out"].exists()


def test_an_epoch_is_one_pass_over_the_prompts(asked: dict[str, Any]) -> None:
    """16 prompts, 2 answers each, learnt from twice, 4 at a time: 16 steps."""
    checks = ppo.run(Ppo.create(**asked | {"steps": None, "epochs": 1.0, "group": 2, "dry_run": True}))
    assert isinstance(checks, Preflight) and checks.steps == 16 and checks.epochs == 1.0


def test_a_run_goes_on_without_looks_and_without_a_page(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, long = (
        conversations.read(asked["data"][0]),
        conversations.Conversation(({"role": "user", "content": "a" * 60},)),
    )
    monkeypatch.setattr(conversations, "split", lambda *_, **__: conversations.Split(rows, [long], [long]))

    def none(*_: Any) -> None:
        raise DataError("no page today", "look tomorrow")

    monkeypatch.setattr(ppo.report, "write", none)
    result = done(asked, steps=1)
    assert (result.measured, result.before.rows, result.best_reward) == ("train", 20, None)
    assert not [each for each in lines(result.out) if each["kind"] == "eval"]
    said = capsys.readouterr().err
    assert "nothing is measured on the test prompts: no prompt is left" in said and "none: no page today" in said


def test_conversations_are_asked_their_last_question(asked: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "b"},
                      {"role": "user", "content": "and?"}, {"role": "assistant", "content": "c"}]}
        for n in range(20)
    ]  # fmt: skip
    data = tmp_path / "turns.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = done(asked, data=[str(data)], reward=["exact"])
    assert {one.question for one in result.answers} == {"and?"} and {one.expected for one in result.answers} == {"c"}
    assert all(len(row.messages) == 4 for row in conversations.read(result.out / "data" / "train.jsonl"))
