"""Learning from rewards, the long way: rewards that rise, runs that are killed, adapters that go on."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.model import ModelConfig, build
from groundup.settings import Ppo
from groundup.stages import ppo
from groundup.train import loop

pytestmark = pytest.mark.slow

spec = importlib.util.spec_from_file_location("kill_ppo", Path(__file__).parents[1] / "story" / "kill_ppo.py")
kill_ppo = sys.modules["kill_ppo"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kill_ppo)

LETTERS = "abcdefghij0123456789 ?|\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}|{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    """Which letter is right depends on the question: the digit that ends it, as a letter."""
    tokenizer = tokens.train("chars", [LETTERS])
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=24, width=32, layers=2, heads=2)
    folder.save_model(tmp_path / "base", build(config, seed=1), tokenizer, card={})
    rows = [
        {"messages": [{"role": "user", "content": f"{n} {n % 2}?"}, {"role": "assistant", "content": "ab"[n % 2]}]}
        for n in range(100)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "plain.jinja").write_text(TEMPLATE, encoding="utf-8")
    return {
        "model": str(tmp_path / "base"), "data": [str(tmp_path / "prompts.jsonl")],
        "template": str(tmp_path / "plain.jinja"), "reward": ["exact"], "out": tmp_path / "run", "responses": 64,
        "batch": 16, "passes": 2, "response_tokens": 3, "validation": 0.2, "lr": 3e-3, "warmup": 0, "kl": 0.01,
        "device": "cpu", "dtype": "fp32", "threads": 1, "seed": 3, "steps": 400, "unfinished": 0.5,
    }  # fmt: skip


def test_what_is_right_is_found_out_by_chance_and_kept(asked: dict[str, Any]) -> None:
    """A letter and an end, out of 25 that are as likely: right once in 600 at first. One answer to everything is right
    half of the time, so that more than that takes reading the question."""
    result = ppo.run(Ppo.create(**asked))
    assert isinstance(result, ppo.Result)
    assert result.before.right is not None and result.before.right < 0.1
    assert result.after.right is not None and result.after.right > 0.9, result.after.words()
    assert result.after.ended == 1.0 and result.after.length == 2.0


def test_a_group_finds_the_one_answer_that_is_paid(asked: dict[str, Any]) -> None:
    """The optimum is known: "b" and the end, whatever is asked."""
    more = {"algorithm": "grpo", "group": 8, "passes": 1, "reward": ["regex:^b$"], "steps": 260, "unfinished": 0.1}
    result = ppo.run(Ppo.create(**asked | more))
    assert isinstance(result, ppo.Result)
    assert result.before.reward < 0.1 and result.after.reward > 0.9, result.after.words()
    assert result.after.ended == 1.0 and result.after.length == 2.0


def test_adapters_go_on_bit_for_bit(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**asked, "train": "lora", "lora_rank": 2, "steps": 12, "save_every": "1"}
    whole = ppo.run(Ppo.create(**more | {"out": tmp_path / "whole"}))
    plain, calls = loop._gradient, 0

    def some(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyError("cut off")
        return plain(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_gradient", some)
        with pytest.raises(KeyError):
            ppo.run(Ppo.create(**more))
    again = ppo.run(Ppo.create(out=more["out"], resume=True))
    assert isinstance(whole, ppo.Result) and isinstance(again, ppo.Result)
    one, other = (folder.load(result.out).model.state_dict() for result in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.after == whole.after and again.drawn == whole.drawn


def test_kills_inside_rollouts_and_passes_change_nothing(tmp_path: Path) -> None:
    more = tuple(kill_ppo.prepared(tmp_path))
    whole, killed = (kill_ppo.Run(tmp_path / name, 40, more) for name in ("whole", "killed"))
    whole.finish(resume=False)
    kills = kill_ppo.killed_run(killed, kills=5, inside=4, seed=1)
    assert len(kills) == 5, "the run ended before it could be killed often enough"
    assert sum(each.inside for each in kills) >= 4 and len({each.phase for each in kills if each.inside}) >= 2
    assert killed.digest() == whole.digest()
    assert killed.journal() == whole.journal()
