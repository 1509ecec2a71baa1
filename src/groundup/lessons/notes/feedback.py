"""Learning from people's choices, the whole road: answer, choose, score, improve, compare.

Enters: a model that has read nothing. Leaves: one that greets as people like it, the reward model that taught it, and
a comparison with the model before.
Follows: notes 8.2, 8.5, 8.7.
In the library: groundup.stages.instruct, groundup.stages.reward and groundup.stages.ppo, which are `groundup instruct`,
`reward` and `ppo`; groundup.rollouts.rewards, groundup.evaluate.compare. `groundup compare` does the end in one go.
"""

# %%
import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.evaluate.compare import points, wins
from groundup.generate import chat
from groundup.generate.sample import Sampler
from groundup.journal import Journal
from groundup.lessons.rung import picture
from groundup.model import ModelConfig, build
from groundup.rollouts.prompts import Answer, Prompt
from groundup.rollouts.rewards import parse
from groundup.stages.instruct import instruct
from groundup.stages.ppo import ppo
from groundup.stages.reward import reward
from groundup.text.harbor import world

# %% [markdown]
# # A task for half a minute
# Somebody comes along in the harbour town, and the model says something to them: that they are welcome, or that they
# should go away. The model will learn both from the same data, half and half. Then people choose, and they like the
# first. What the road does for a large model and a vague wish it does here for a small one and a wish that can be
# counted: the share of friendly answers.

# %%
FRIENDLY, GRUFF = "Good day! Come and sit down.", "Go away! I have no time now."  # as many letters
NAMES, PLACES = [each.name for each in world.PEOPLE], list(world.PLACES)
ASKED = [f"{name} comes to the {place}." for name in NAMES for place in PLACES]


def said_to(question: str, answer: str) -> list[dict[str, str]]:
    """A question and an answer as messages."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    """One JSON object a line; returns the path as settings take it."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


place = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, place, ignore_errors=True)  # the runs stay as long as the rung is looked at
talked = [{"messages": said_to(question, answer)} for question in ASKED for answer in (FRIENDLY, GRUFF)]
chosen = [{"prompt": question, "chosen": FRIENDLY, "rejected": GRUFF} for question in ASKED]
talks, pairs = write(place / "talks.jsonl", talked), write(place / "pairs.jsonl", chosen)
print(f"{len(talked)} conversations, {len(ASKED)} pairs, such as {ASKED[0]!r}")

# %% [markdown]
# # Before the first step: a model that can answer
# The notes' road begins after it, but nothing could be scored of a model that does not answer. A small network and a
# tokenizer of its own; `instruct` teaches it to say either of the two.

# %%
lines = [*ASKED, FRIENDLY, GRUFF]
letters = tokens.train("bpe", lines, vocabulary=400)
config = ModelConfig(family="qwen3", vocabulary=letters.vocabulary, context=64, width=64, layers=2, heads=2)
folder.save_model(place / "blank", build(config, seed=1), letters, card={})
USUAL: dict[str, Any] = {"device": "cpu", "dtype": "fp32", "compile": "off", "save_every": "1h", "sample_every": 0}
instruct(model=str(place / "blank"), data=[talks], out=place / "answers", template="phi3", steps=200, lr=3e-3, batch=16,
         test=0.0, eval_every=200, **USUAL)  # fmt: skip

# %% [markdown]
# # 1. A reward model
# It starts from the model that answers, with a score in the place of its head.

# %%
reward(model=str(place / "answers"), data=[pairs], out=place / "reward", steps=30, lr=1e-3, batch=8, eval_every=10,
       **USUAL)  # fmt: skip
looks = [record for record in Journal(place / "reward").read() if record["kind"] == "eval"]
in_order = looks[-1]["accuracy"]
print(f"pairs that it was not given: {100 * in_order:.0f} % in the right order")

# %% [markdown]
# # 2. PPO
# The model writes 64 answers, the reward model scores them, and each is learnt from twice; every nat away from
# the model as it was costs something. Then it writes again: the loop of the notes.

# %%
ppo(model=str(place / "answers"), data=[talks], reward=[str(place / "reward")], out=place / "better", steps=64, lr=3e-4,
    kl=0.1, responses=64, batch=16, passes=2, response_tokens=24, eval_every=16, **USUAL)  # fmt: skip
trained = [record for record in Journal(place / "better").read() if record["kind"] == "train"]
rewards, distances = ([record[name] for record in trained] for name in ("reward", "kl"))
print(f"reward {rewards[0]:.2f} -> {rewards[-1]:.2f}, {distances[-1]:.1f} nats from the model before")

# %% [markdown]
# # 3. Comparing
# Both models answer the same questions, drawn by chance as in training. The reward model scores them, and so can
# anybody who counts: a reward that has risen proves only that it has risen.

# %%
QUESTIONS = ASKED[::2]


def answers_of(run: Path) -> list[str]:
    """What a model says to the questions."""
    model = folder.load(run, dtype=torch.float32)
    template = chat.template_of(model.tokenizer)
    assert template is not None
    prompts = [said_to(question, "")[:1] for question in QUESTIONS]
    sampler = Sampler(temperature=1.0, seed=5)
    return chat.answers(model.model, model.tokenizer, template, prompts, max_tokens=24, sampler=sampler)


def scored(said: list[str]) -> list[float]:
    """The reward of each answer."""
    given = [Answer(Prompt(tuple(said_to(question, "")[:1])), text, [0] * 8, True)
             for question, text in zip(QUESTIONS, said, strict=True)]  # fmt: skip
    return parse([str(place / "reward")])(given)


before, after = answers_of(place / "answers"), answers_of(place / "better")
friendly = {name: sum(one == FRIENDLY for one in said) / len(said)
            for name, said in (("before", before), ("after", after))}  # fmt: skip
first, second = scored(before), scored(after)
won = wins(points(second, first))
print(f"friendly: before {100 * friendly['before']:.0f} %, after {100 * friendly['after']:.0f} %")
print(f"by the reward model: {won.won} won, {won.tied} tied, {won.lost} lost "
      f"({100 * won.low:.0f} to {100 * won.high:.0f} % of the points)")  # fmt: skip
for question, old, new in list(zip(QUESTIONS, before, after, strict=True))[:4]:
    print(f"{question} -> before: {old} | after: {new}")
assert in_order > 0.9 and friendly["after"] > friendly["before"] + 0.2

with picture("feedback", width=9, height=3) as figure:
    left, middle, right = figure.subplots(1, 3)
    left.plot([look["step"] for look in looks], [look["accuracy"] for look in looks], "o-")
    left.set(title="1. Pairs in the right order", xlabel="step", ylim=(0, 1.05))
    middle.plot([record["step"] for record in trained], rewards)
    middle.set(title="2. Reward of what it writes", xlabel="step")
    right.bar(list(friendly), [100 * share for share in friendly.values()], color=["gray", "C0"])
    right.set(title="3. Friendly answers, in percent", ylim=(0, 105))

# %% [markdown]
# # On the command line
# The same road, with harbor's questions and any model that answers; `compare` writes a page with all answers side by
# side, and asks you with `--human`:
#
#     groundup instruct runs/base --data harbor-questions --out runs/answers
#     groundup reward runs/answers --data harbor-pairs --out runs/reward
#     groundup ppo runs/answers --data harbor-questions --reward runs/reward --out runs/better
#     groundup compare runs/answers runs/better --data harbor-questions:100:7 --reward runs/reward
