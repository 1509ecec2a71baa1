"""A policy of letters, small enough to answer in milliseconds, with everything that a rollout takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.generate.chat import with_tokens_of
from groundup.machine import Machine
from groundup.model import ModelConfig, build
from groundup.model.gpt import GPT
from groundup.model.values import ActorCritic
from groundup.rollouts.collect import Actors
from groundup.rollouts.prompts import Prompts, prompts
from groundup.rollouts.rewards import parse
from groundup.settings import Ppo
from groundup.text.conversations import Conversation
from groundup.text.template import ChatTemplate
from groundup.tokens.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ?.|\n"
SOURCE = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}|{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tokens.train("chars", [LETTERS])


@pytest.fixture(scope="session")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return with_tokens_of(tokenizer, SOURCE)


@pytest.fixture
def machine() -> Machine:
    return Machine(torch.device("cpu"), torch.float32, torch.get_num_threads())


@pytest.fixture(scope="session")
def network(tokenizer: Tokenizer) -> Callable[..., GPT]:
    """Large random weights: what it writes depends on every letter before, and many an answer ends early."""

    def made(seed: int = 1, family: str = "llama", **changes: Any) -> GPT:
        usual = {
            "vocabulary": tokenizer.vocabulary,
            "context": 64,
            "width": 32,
            "layers": 2,
            "heads": 4,
            "init": "torch",
        }
        usual |= {"tie": False} | ({} if family == "gpt2" else {"kv_heads": 2})
        model = build(ModelConfig(family=family, **usual | changes), seed=seed)
        assert isinstance(model, GPT) and model.head is not None
        with torch.no_grad():
            model.head.weight *= 3
            model.head.weight[-1] *= 2  # the end of text
        return model

    return made


@pytest.fixture(scope="session")
def asked(tokenizer: Tokenizer, template: ChatTemplate) -> Prompts:
    """Six questions of different lengths; the right answer to number n is the letter number n."""
    talks = [
        Conversation(
            (
                {"role": "user", "content": f"what is {'1' * (1 + n % 4)}{n}?"},
                {"role": "assistant", "content": LETTERS[n]},
            ),
            f"row {n}",
        )
        for n in range(6)
    ]
    return prompts(talks, tokenizer, template, context=64, response_tokens=24)


@pytest.fixture
def actors(
    network: Callable[..., GPT], tokenizer: Tokenizer, template: ChatTemplate, machine: Machine
) -> Callable[..., Actors]:
    def made(settings: Ppo, *, policy: Any = None, reference: Any = "other", rewards: Any = ("length:4",)) -> Actors:
        policy = network(1) if policy is None else policy
        if settings.algorithm == "ppo" and isinstance(policy, GPT):
            policy = ActorCritic(policy, seed=0)
        reference = network(2).eval().requires_grad_(False) if reference == "other" else reference
        return Actors(policy, reference, tokenizer, template, parse(rewards), machine)

    return made


@pytest.fixture(scope="session")
def settings() -> Callable[..., Ppo]:
    def made(**changes: Any) -> Ppo:
        usual = {"responses": 8, "batch": 4, "passes": 2, "response_tokens": 24, "seed": 5, "kl": 0.1}
        return Ppo.create(**usual | changes)

    return made
