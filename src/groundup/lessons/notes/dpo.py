"""DPO: from preferences to a better model, without a reward model and without writing a single answer.

Enters: pairs of answers and a model. Leaves: the same model, to which the chosen answers are likelier; and why both
sides may become unlikelier on the way.
Follows: notes 8.1; the code on preferences that accompanies the book's chapter 7.
In the library: groundup.losses.preference (this loss and four others), groundup.losses.log_probability,
groundup.evaluate.preference, and groundup.stages.dpo, which is `groundup dpo`.
"""

# %%
import copy
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import losses, tokens
from groundup.batches import Loader
from groundup.batches.pairs import Pairs
from groundup.batches.rows import Rows
from groundup.generate import chat
from groundup.journal import Journal
from groundup.lessons.rung import bar, check, picture
from groundup.losses.preference import answers, preference, sigmoid
from groundup.model import ModelConfig, build
from groundup.stages.dpo import dpo
from groundup.stages.instruct import instruct
from groundup.text import preferences, styles
from groundup.tokens.pairs import PairRow, pair_rows

# %% [markdown]
# # The loss
# PPO's best distribution was p(y) = p_ref(y) e^(r(y) / beta) / Z. Read it the other way round (Rafailov et al. 2023):
# every model is the best one for some reward, r(y) = beta log(p(y) / p_ref(y)), up to a constant that is the same for
# all answers to a question. Put that reward into the Bradley-Terry loss of a reward model, and the constant drops out:
# -log sigmoid(beta (log-ratio of the chosen - log-ratio of the rejected)). No reward model, no rollout.


# %%
def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected)) of log-ratios to the reference."""
    return -F.logsigmoid(beta * (chosen - rejected))


zero = torch.zeros(1)
print(f"a model that is still its reference: {dpo_loss(zero, zero, 0.1).item():.4f} = ln 2 = {math.log(2):.4f}")
assert math.isclose(dpo_loss(zero, zero, 0.1).item(), math.log(2), rel_tol=1e-6)

# %% [markdown]
# By hand on two answers, a and b, with logits z: log p(a) - log p(b) = z_a - z_b. At the start the derivative of the
# loss by z_a is -beta / 2, by z_b beta / 2. The pair pulls harder the more wrong the model is about it, and hardly at
# all once it is right.

# %%
z = torch.zeros(2, requires_grad=True)
logp = z.log_softmax(0)
dpo_loss(logp[0] - math.log(0.5), logp[1] - math.log(0.5), beta=0.1).backward()
assert z.grad is not None
print("gradient", z.grad.tolist())
torch.testing.assert_close(z.grad, torch.tensor([-0.05, 0.05]))
some = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
torch.testing.assert_close(sigmoid(some[0], some[1], beta=0.3), dpo_loss(some[0], some[1], 0.3))

# %% [markdown]
# # The optimum is known
# Four answers of the rung before: somebody who prefers them with the probability of Bradley and Terry is asked about
# all pairs. DPO on these choices ends at the very distribution that PPO approached with a price of distance of beta.

# %%
WORTH, REFERENCE, BETA = torch.tensor([0.0, 0.2, 0.5, 1.0]), torch.tensor([0.4, 0.3, 0.2, 0.1]), 0.3
best = (REFERENCE * (WORTH / BETA).exp()) / (REFERENCE * (WORTH / BETA).exp()).sum()
one, other = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
wins = torch.sigmoid(WORTH[one] - WORTH[other])  # how often `one` is preferred
table = REFERENCE.log().clone().requires_grad_()
optimizer = torch.optim.Adam([table], lr=0.05)
for _ in range(400):
    ratio = table.log_softmax(0) - REFERENCE.log()
    optimizer.zero_grad()
    (wins * dpo_loss(ratio[one], ratio[other], BETA)).sum().backward()
    optimizer.step()
reached = table.detach().softmax(0)
print("reached", reached.numpy().round(3), " best", best.numpy().round(3))
torch.testing.assert_close(reached, best, rtol=0, atol=0.01)

# %% [markdown]
# # A small model with manners
# Twenty short pairs of the book's data: an answer said politely and one said rudely. The pupil first learns both by
# heart; then it is told which it should have preferred. The reference is the pupil as it was, and what it thinks of
# all answers is computed once, before the first step.

# %%
PAIRS = sorted(preferences.read("instruction-preference"), key=lambda pair: len(str(pair)))[:20]
ALPACA = styles.STYLES["alpaca"]
said = [f"{pair.messages[-1]['content']} {pair.chosen} {pair.rejected}" for pair in PAIRS]
HEAD = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
own = tokens.train("bpe", [*said, f"{HEAD}\n\n### Instruction:\n### Input:\n### Response:\n"], vocabulary=600)
template = chat.with_tokens_of(own, ALPACA.template)
END = own.special["<|endoftext|>"]
gathered = pair_rows(own, template, PAIRS, context=160, source="twenty pairs")
rows = gathered.rows


def taught(rows: Sequence[PairRow], steps: int) -> nn.Module:
    """A model that knows both answers to everything."""
    config = ModelConfig(family="qwen3", vocabulary=own.vocabulary, context=160, width=64, layers=2, heads=2)
    model = build(config, seed=1)
    source = Rows([row for pair in rows for row in (pair.chosen, pair.rejected)], pad=END)
    optimizer, done = torch.optim.AdamW(model.parameters(), lr=3e-3), bar("both answers", steps)
    for step, batch in enumerate(islice(Loader(source, batch=8, seed=1, lengths=source.lengths), steps), 1):
        total, _ = losses.next_token(model, batch)
        optimizer.zero_grad()
        (total / batch.count).backward()
        optimizer.step()
        done(step)
    return model.eval()


pupil = taught(rows, 120)
reference = copy.deepcopy(pupil)


def log_probabilities(model: nn.Module, tokens: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """log p of each row's answer (2B,): summed over the places that belong to it."""
    logp = model(tokens).log_softmax(dim=-1)  # (2B, T, V)
    return (logp.gather(2, targets[:, :, None])[:, :, 0] * weight).sum(dim=1)


plain = Pairs(rows, pad=END)
batch = plain.batch(np.arange(len(rows)))
with torch.no_grad():
    mine = log_probabilities(reference, batch.tokens, batch.fields["targets"], batch.fields["weight"])
    theirs, _ = answers(reference, batch)
torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)
source = Pairs(rows, pad=END, reference=torch.stack(mine.chunk(2), dim=1).numpy())

# %% [markdown]
# Watch both sides. The loss asks for a distance and nothing else, so that it may push the rejected answer down and the
# chosen one with it: they share most of their words. The margin is what counts; but what both lose goes to answers that
# nobody has judged, which is why the steps are small and few.

# %%
loss = preference("sigmoid", beta=0.1)
optimizer = torch.optim.AdamW(pupil.parameters(), lr=5e-4, weight_decay=0.0)
log, done = list[dict[str, float]](), bar("preferences", 40)
for batch in islice(Loader(source, batch=8, seed=1, lengths=source.lengths), 40):
    total, numbers = loss(pupil, batch)
    optimizer.zero_grad()
    (total / batch.count).backward()
    optimizer.step()
    log.append({"loss": total.item() / batch.count} | {name: one.item() / batch.count for name, one in numbers.items()})
    done(len(log))
first, last = log[0], log[-1]
print(f"loss {first['loss']:.4f} -> {last['loss']:.4f}, margin {last['margin']:.2f}, "
      f"rewards {last['chosen_reward']:.2f} and {last['rejected_reward']:.2f}")  # fmt: skip
assert math.isclose(first["loss"], math.log(2), abs_tol=1e-3) and last["margin"] > 1

with picture("dpo", width=9, height=3) as figure:
    left, right = figure.subplots(1, 2)
    left.plot([step["loss"] for step in log])
    left.axhline(math.log(2), color="gray", linestyle=":")
    left.set(title="Loss, from ln 2", xlabel="step", ylabel="nats per pair")
    for name, colour in (("chosen_reward", "C0"), ("rejected_reward", "C1"), ("margin", "C2")):
        right.plot([step[name] for step in log], color=colour, label=name.replace("_", " "))
    right.axhline(0, color="gray", linestyle=":")
    right.set(title="Rewards of both sides", xlabel="step")
    right.legend()

# %% [markdown]
# # With OpenAI's weights
# The book's author tunes GPT-2 355M on the same pairs after the instructions of chapter 7: one epoch, beta 0.1, a rate
# of 5e-6. His log-probabilities are means over the tokens of an answer (`--average`), and his rewards have no beta in
# them, so that his margins are ours divided by beta. With the seven files in `$GROUNDUP_DATA/gpt2-355M` this takes half
# a day on two cores:
#
#     groundup instruct gpt2-medium --data instruction-data --protocol book --learn all --batching padded \
#         --epochs 2 --batch 8 --lr 5e-5 --beta2 0.999 --min-lr 1 --warmup 0 --clip 0 --out runs/assistant
#     groundup dpo runs/assistant --data instruction-preference --protocol book --beta 0.1 --average \
#         --batching padded --batch 8 --epochs 1 --lr 5e-6 --beta2 0.999 --min-lr 1 --warmup 0 --weight-decay 0.01 \
#         --clip 0 --out runs/preferred
#
# Only the neighbourhood of his figures can be expected. His means also count the words "### Response:", the same on
# both sides, and not the token that ends an answer; his order of batches is torch's; and his figures of training are
# five batches read with the final weights, ours the last five as they were learnt from. His own two machines are
# 0.015 of loss and 0.4 of margin apart. So `reproduce` allows 0.04 of loss, which rules out a model that learnt
# nothing (0.693), and 0.8 of margin, which is the same: near the start the loss falls by beta / 2 of the margin.


# %%
def by_the_library(weights: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Losses and margins of the author's recipe: of validation before and after, of training at the end."""
    tuned: dict[str, Any] = {
        "data": ["instruction-data"], "protocol": "book", "learn": "all", "batching": "padded", "epochs": 2, "batch": 8,
        "lr": 5e-5, "beta2": 0.999, "min_lr": 1.0, "warmup": 0, "clip": 0.0, "seed": 123,
    }  # fmt: skip
    recipe: dict[str, Any] = {
        "data": ["instruction-preference"], "protocol": "book", "beta": 0.1, "average": True, "epochs": 1, "batch": 8,
        "batching": "padded", "lr": 5e-6, "beta2": 0.999, "min_lr": 1.0, "warmup": 0, "weight_decay": 0.01,
        "clip": 0.0, "seed": 123, "eval_every": 20,
    }  # fmt: skip
    instruct(model=str(weights), out=out / "assistant", **tuned | changes)
    dpo(model=str(out / "assistant"), out=out / "preferred", **recipe | changes)
    records = Journal(out / "preferred").read()
    trained, looked = ([one for one in records if one["kind"] == kind] for kind in ("train", "eval"))
    late = trained[-5:]  # as many batches as the author looks at
    mean = {name: sum(one[name] for one in late) / len(late) for name in ("loss", "margin")}
    beta = recipe["beta"]
    return {
        "loss": {"before": trained[0]["loss"], "after": {"train": mean["loss"], "validation": looked[-1]["loss"]}},
        "margins": {"train": mean["margin"] / beta, "validation": looked[-1]["margin"] / beta},
    }


def weights_in(folder: Path) -> bool:
    """Whether OpenAI's weights are there; if so, says on standard error what follows and how to go without."""
    if not (folder / "hparams.json").is_file():
        return False
    told = f"{folder} has weights: two stages of tuning follow, half a day on two cores. Ctrl-C stops them; with "
    told += "$GROUNDUP_DATA set to a folder without gpt2-355M the lesson goes without."
    print(told, file=sys.stderr, flush=True)
    return True


weights = Path(os.environ.get("GROUNDUP_DATA", "data"), "gpt2-355M")
if weights_in(weights):
    with tempfile.TemporaryDirectory() as place:
        figures = by_the_library(weights, Path(place))
    check("book.dpo.loss", figures["loss"])
    check("book.dpo.margins", figures["margins"])
else:
    print(f"no weights in {weights}: `groundup lesson openai_weights` names the files; here they are those of 355M")
