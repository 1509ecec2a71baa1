"""Rewards by name: what each is worth by hand, and in words what one cannot be."""

import math

import numpy as np
import pytest
import torch

from groundup import cli
from groundup.errors import DataError, SettingsError
from groundup.rollouts import checkable
from groundup.rollouts.prompts import Answer, Prompt
from groundup.rollouts.rewards import Part, Rewards, parse
from groundup.stages import ppo

PROMPT = Prompt(({"role": "user", "content": "who has it?"},), "Mira has it.", "line 7 of talks.jsonl")


def answer(text, *, ids=3, prompt=PROMPT, ended=True):
    return Answer(prompt, text, [1] * ids, ended)


def given(values, count=2):
    """A reward that gives `values` to `count` answers."""
    part = Part("mine", lambda answers: values, "mine (rewards.py, line 3)")
    return Rewards((part,))([answer("yes")] * count)


@pytest.mark.parametrize(
    ("spec", "text", "worth"),
    [
        ("exact", "Mira has it.", 1.0),
        ("exact", " Mira  has it.\n", 1.0),
        ("exact", "mira has it.", 0.0),
        ("exact", "Mira has it", 0.0),
        ("contains", "I think that mira HAS it, really", 1.0),
        ("contains", "Mira hasit.", 0.0),
        ("harbor", "Mira has it.", 1.0),
        ("harbor", "Mira  has it.", 0.0),
        ("regex:^M.*\\.$", "Mira.", 1.0),
        ("regex:^M.*\\.$", "so Mira.", 0.0),
        ("regex:a:b", "a:b", 1.0),
        ("length:3", "x", 1.0),
        ("length:6", "x", 0.5),
        ("length:2", "x", 0.5),
        ("length:1", "x", 0.0),
    ],
)
def test_worth_by_hand(spec, text, worth):
    assert parse([spec])([answer(text)]) == [worth]


def test_a_story_is_checked_where_no_answer_is_known():
    from groundup.text import harbor

    prompt = Prompt(({"role": "user", "content": "Tell a story."},))
    story = harbor.story(seed=3, index=1)
    assert parse(["harbor"])([answer(story, prompt=prompt), answer(story[: len(story) // 2], prompt=prompt)]) == [1, 0]


def test_weights_and_sums_by_hand():
    rewards = parse(["2*exact", "-0.5*length:6", "1e-1*regex:Mira"])
    found = rewards.apart([answer("Mira has it."), answer("no", ids=6)])
    assert found.parts == {"exact": [1.0, 0.0], "length": [0.5, 1.0], "regex": [1.0, 0.0]}
    assert found.total == pytest.approx([2 - 0.25 + 0.1, -0.5])
    assert rewards.words() == "2 * exact - 0.5 * length:6 + 0.1 * regex:Mira"


def test_a_weight_below_zero_on_the_command_line(monkeypatch: pytest.MonkeyPatch):
    """It begins with a dash, as a flag does: written behind an equals sign it is a reward."""
    given = []
    monkeypatch.setattr(ppo, "run", lambda settings: given.append(settings.reward))
    monkeypatch.setattr(ppo, "show", lambda result: None)
    assert cli.main(["ppo", "runs/a", "--reward", "exact", "--reward=-0.5*length:6"]) == 0
    assert given == [["exact", "-0.5*length:6"]]
    assert parse(given[0])([answer("Mira has it.")]) == [1 - 0.25]


def test_a_function_may_have_the_name_that_a_second_reward_got(tmp_path):
    """Two patterns are regex and regex2; a function regex2 is a third reward: 1 + 10 * 0 + 100 * 7."""
    (tmp_path / "my.py").write_text("def regex2(p, r, t):\n    return [7.0] * len(r)\n", encoding="utf-8")
    own = f"100*{tmp_path / 'my.py'}:regex2"
    found = parse(["regex:a", "10*regex:b", own]).apart([answer("a")])
    assert found.parts == {"regex": [1.0], "regex2": [0.0], "regex22": [7.0]} and found.total == [701.0]
    found = parse([own, "regex:a", "10*regex:b"]).apart([answer("a")])
    assert found.parts == {"regex2": [7.0], "regex": [1.0], "regex3": [0.0]} and found.total == [701.0]


def test_parts_of_one_name_all_count():
    """Made by hand, where nobody gave them names of their own: 1 + 2 * 3."""
    parts = (Part("mine", lambda answers: [1.0], "one"), Part("mine", lambda answers: [3.0], "two", weight=2.0))
    assert Rewards(parts)([answer("x")]) == [7.0]


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], "no reward"),
        (["exakt"], "did you mean 'exact'"),
        (["regex:("], "no regular expression"),
        (["regex"], "no pattern"),
        (["length:0"], "no number"),
        (["length:-3"], "no number"),
        (["0*exact"], "0 times"),
        (["1e999*exact"], "inf times"),
        (["nowhere.py:f"], "no such file"),
        (["nowhere"], "no folder"),
    ],
)
def test_words_that_mean_nothing(specs, said):
    with pytest.raises(SettingsError) as caught:
        parse(specs)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0], "gave 1 numbers for 2 answers"),
        ([1.0, math.nan], "gave nan"),
        ([math.inf, 1.0], "gave inf"),
        ([None, 1.0], "gave None"),
        (["1", 1.0], "gave '1'"),
        (7, "gave 7, not a list"),
        ([[1.0, 2.0], 1.0], "gave [1.0, 2.0]"),
        ([torch.ones(2), 1.0], "gave tensor"),
        ({1.0: "a", 0.5: "b"}, "gave a dict, not a list"),  # its keys would do as numbers
        ({1.0, 0.5}, "gave a set, not a list"),  # which of them is whose?
        ({1.0: 0, 0.5: 0}.keys(), "gave a dict_keys, not a list"),
        ([10**400, 1.0], "gave 1000"),
        ([10**5000, 1.0], "gave a number too long"),
    ],
)
def test_what_is_no_number_is_said_with_prompt_and_function(values, said):
    with pytest.raises(DataError) as caught:
        given(values)
    assert said in caught.value.what and "mine (rewards.py, line 3)" in caught.value.what
    if "answers" not in said and "list" not in said:
        assert "line 7 of talks.jsonl" in caught.value.what


class Broken:
    """A value of one's own that cannot be looked at."""

    def __iter__(self):
        raise RuntimeError("the disk is gone")

    def __float__(self):
        raise KeyError("half")

    def __repr__(self):
        raise LookupError


def test_values_that_break_when_looked_at_are_said():
    with pytest.raises(DataError, match="gave a Broken that cannot be read: RuntimeError: the disk is gone"):
        given(Broken())
    with pytest.raises(DataError, match="gave a Broken that cannot be written out for the answer to line 7 of talks"):
        given([Broken(), 1.0])


@pytest.mark.parametrize("values", [np.array([1.0, 0.5]), torch.tensor([1.0, 0.5]), (True, 0.5), [np.float32(1), 0.5]])
def test_numbers_of_every_kind_are_welcome(values):
    assert given(values) == [1.0, 0.5]


def test_a_missing_right_answer_is_said_before_and_while_scoring():
    nobody = Prompt(({"role": "user", "content": "why?"},), None, "line 9")
    for spec in ("exact", "contains"):
        for look in (
            lambda rewards: rewards.check([PROMPT, nobody]),
            lambda rewards: rewards([answer("x", prompt=nobody)]),
        ):
            with pytest.raises(DataError, match=f"{spec} compares .* line 9"):
                look(parse([spec]))
    parse(["harbor", "length:3"]).check([nobody])


def test_a_pattern_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(checkable, "SECONDS", 0.05)
    with pytest.raises(DataError, match="was not done"):
        parse([r"regex:(a|aa)+(b|bb)+c(?<=x)$|^(a+)+$"])([answer("a" * 60 + "!")])


def test_an_empty_right_answer_is_in_no_answer():
    with pytest.raises(DataError, match="no words"):
        parse(["contains"])([answer("x", prompt=Prompt((), "...", "line 2"))])
