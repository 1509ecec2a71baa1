"""A reward model as a reward: the same scores as when it is asked alone, and in words what it cannot read."""

from pathlib import Path

import pytest

from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import CheckpointError, DataError
from groundup.evaluate import scoring
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.rollouts.prompts import Answer, Prompt
from groundup.rollouts.rewards import parse
from groundup.text.conversations import Conversation


def kept(path: Path, letters: str, template: str, **head) -> Path:
    """A reward model that has learnt nothing, with a tokenizer of its own."""
    tokenizer = tokens.train("chars", [letters]).with_template(template)
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=64, width=16, layers=1, heads=2,
                         init="torch")  # fmt: skip
    model = Classifier(build(config, seed=3), HeadConfig(("reward",), kind="reward", **head), seed=4)
    folder.save_model(path, model, tokenizer, card={})
    return path


@pytest.fixture
def said(asked):
    return [
        Answer(prompt, text, [1, 2], True) for prompt, text in zip(asked.prompts, ("a", "bb", "", "d e"), strict=False)
    ]


def test_its_scores_are_the_reward(tmp_path, said, template, machine, tokenizer):
    """It has another tokenizer than the policy: it reads text."""
    path = kept(tmp_path / "judge", "?| ABCabcdefghijklmnopqrstuvwxyz0123456789", template.source, mean=0.5, spread=2.0)
    found = parse([f"2*{path}"], machine=machine).apart(said)
    judge = scoring.opened(path, machine=machine)
    talks = [Conversation((*each.prompt.messages, {"role": "assistant", "content": each.text})) for each in said]
    truth = scoring.scores(judge.model, judge.tokenizer, judge.template, talks, machine=machine, batch=1)
    assert found.parts["model"] == pytest.approx(truth, abs=1e-5) and len(set(truth)) > 1
    assert found.total == pytest.approx([2 * value for value in truth], abs=1e-5)
    assert judge.tokenizer.fingerprint != tokenizer.fingerprint


def test_an_answer_that_ends_at_once_is_scored_however_long_its_prompt(tmp_path, template, machine):
    """Its context of 64 is shorter than the prompt: what is read is the end of the prompt."""
    path = kept(tmp_path / "judge", "?| ABCabcdefghijklmnopqrstuvwxyz0123456789", template.source)
    prompts = [Prompt(({"role": "user", "content": "a" * count},)) for count in (200, 300)]
    found = parse([str(path)], machine=machine)([Answer(prompt, "", [1], True) for prompt in prompts])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_what_its_tokenizer_cannot_express_is_said(tmp_path, said, template, machine):
    path = kept(tmp_path / "judge", "?| abcdefghijklmnopqrstuvwxyz", template.source)
    with pytest.raises(DataError) as caught:
        parse([str(path)], machine=machine)(said)
    assert "the reward model" in caught.value.what and "row 0" in caught.value.what


def test_a_model_that_writes_is_no_reward(tmp_path, network, tokenizer, machine):
    folder.save_model(tmp_path / "writer", network(1), tokenizer, card={})
    with pytest.raises(CheckpointError, match="no reward model"):
        parse([str(tmp_path / "writer")], machine=machine)
