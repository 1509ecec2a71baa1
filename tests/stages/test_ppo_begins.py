"""Learning from rewards before its first step: how prompts are divided, what is refused, which rewards are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from groundup import tokens
from groundup.checkpoint import atomic, folder
from groundup.errors import CheckpointError, SettingsError
from groundup.model import ModelConfig, build
from groundup.rollouts.rewards import Part, Rewards, parse
from groundup.settings import Ppo
from groundup.stages import ppo


def written(path: Path, talks: list[list[str]]) -> str:
    """A file of conversations, in which user and assistant take turns."""
    roles = ("user", "assistant")
    rows = [{"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(talk)]} for talk in talks]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_answers_to_one_prompt_stay_in_one_part(tmp_path: Path) -> None:
    """Ten prompts with two answers each, one of them said twice: a fifth of the prompts are two, with four rows."""
    talks = [[f"what is {n // 2}?", "ab"[n % 2]] for n in range(20)]
    data = written(tmp_path / "prompts.jsonl", [*talks, talks[3]])
    split = ppo._divided(Ppo.create(data=[data], validation=0.2, test=0.1, seed=3), tmp_path / "run")
    sizes = [len(part) for part in (split.train, split.valid, split.test)]
    asked = [{row.messages[0]["content"] for row in part} for part in (split.train, split.valid, split.test)]
    assert sizes == [14, 4, 2] and [len(each) for each in asked] == [7, 2, 1]
    assert len(set().union(*asked)) == 10  # none in two parts
    assert atomic.read_json(tmp_path / "run" / "data" / "rows.json") == {"read": 21, "repeated": 1}


def test_what_was_said_before_makes_it_another_prompt(tmp_path: Path) -> None:
    """The last question alone does not: of ten that end alike, each may stand in a part of its own."""
    data = written(tmp_path / "prompts.jsonl", [[f"{n}", "yes", "and?", "ab"[n % 2]] for n in range(10)])
    split = ppo._divided(Ppo.create(data=[data], validation=0.2, seed=3), tmp_path / "run")
    assert (len(split.train), len(split.valid)) == (8, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro_batch": 3}, "--batch 4 is not a multiple of --micro-batch 3"),
        ({"kl": 0.0, "kl_target": 3.0}, "--kl-target 3 cannot be reached from --kl 0"),
        ({"dropout": 0.1}, "--dropout: a policy is compared with itself"),
        ({"train": "lora", "lora_dropout": 0.1}, "--lora-dropout: a policy is compared with itself"),
    ],
)
def test_what_is_refused_before_a_model_is_opened(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ppo._check(Ppo.create(responses=12, batch=4, **changes))
    ppo._check(Ppo.create(responses=12, batch=4, micro_batch=2, kl_target=3.0))


def model(path: Path, seed: int) -> Path:
    tokenizer = tokens.train("chars", ["ab"])
    config = ModelConfig(family="gpt2", vocabulary=tokenizer.vocabulary, context=8, width=8, layers=1, heads=2)
    folder.save_model(path, build(config, seed=seed), tokenizer, card={})
    return path


def test_rewards_that_changed_are_refused(tmp_path: Path) -> None:
    """A file and a model are known by what they hold; what is built in has nothing that could change."""
    script, judge = tmp_path / "reward.py", model(tmp_path / "judge", 1)
    plain = "def score(prompts, responses, references):\n    return [0.0 for _ in responses]\n"
    script.write_text(plain, encoding="utf-8")
    words = ["0.1*length:3", f"{script}:score", f"0.5*{judge}", "regex:^a*b"]
    first, second, last = parse([words[0], words[1], words[3]]).parts
    rewards = Rewards((first, second, Part("model", lambda answers: [], f"the reward model {judge}"), last))
    settings, out = Ppo.create(reward=words), tmp_path / "run"
    (out / "data").mkdir(parents=True)
    ppo._same_rewards(settings, rewards, out)
    assert list(atomic.read_json(out / "data" / "rewards.json")) == words[1:3]
    script.write_text(plain.replace("0.0", "1.0"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the reward .*reward\.py:score has changed since this run began"):
        ppo._same_rewards(settings, rewards, out)
    script.write_text(plain, encoding="utf-8")
    ppo._same_rewards(settings, rewards, out)
    model(judge, 2)
    with pytest.raises(CheckpointError, match=r"the reward 0\.5\*.*judge has changed since this run began"):
        ppo._same_rewards(settings, rewards, out)
