"""A reward model: pairs go in, a number for every answer comes out.

Enters: pairs of answers. Leaves: a network that scores an answer, and three ways to see whether it deserves belief.
Follows: notes 8.4.
In the library: groundup.model.heads (the scalar head), groundup.losses.ranking, groundup.evaluate.pairs, and
groundup.stages.reward, which is `groundup reward`; `groundup score` uses what it made.
"""

# %%
import math
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import tokens
from groundup.batches import Loader
from groundup.batches.pairs import WholePairs
from groundup.evaluate.pairs import marks
from groundup.lessons.rung import bar, check, picture
from groundup.losses.ranking import bradley_terry, ranking
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.text.harbor import world
from groundup.tokens.pairs import PairRow
from groundup.tokens.rows import Row

# %% [markdown]
# # The network of the notes
# Two layers: 768 numbers in, 512 in between, one out. What the 768 numbers are the notes leave open; a GPT's state at
# the last token of prompt and answer is meant, since no other state has read all of it.


# %%
class RewardModel(nn.Module):
    """A state (B, D) to a score (B, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 512), nn.Linear(512, 1)

    def forward(self, state: Tensor) -> Tensor:
        """(B, D) -> (B, 1)."""
        return self.second(F.relu(self.first(state)))


torch.manual_seed(123)
small = RewardModel(768)
check("notes.8.4.reward", {"params": sum(one.numel() for one in small.parameters()),
                           "shape": list(small(torch.randn(4, 768)).shape)})  # fmt: skip

# %% [markdown]
# # What it learns from
# Nobody gave it a number to hit. The notes stop here: they have a network and no loss. Say that an answer of score s
# wins against one of score t with the probability e^s / (e^s + e^t) = sigmoid(s - t), as Bradley and Terry (1952) said
# of players. What was seen shall be likely: the loss is -log sigmoid(chosen - rejected). Without any idea it is ln 2;
# and it only knows differences, so that all scores can be shifted without any change.

# %%
chosen, rejected = torch.tensor([0.0, 2.0, -1.0], requires_grad=True), torch.tensor([0.0, 0.0, 1.0])
each = -torch.log(torch.sigmoid(chosen - rejected))
each.sum().backward()
assert chosen.grad is not None
print("losses", each.detach().numpy().round(4), "  gradients", chosen.grad.numpy().round(4))
assert math.isclose(each[0].item(), math.log(2), rel_tol=1e-6)
assert torch.allclose(chosen.grad, torch.sigmoid(chosen - rejected).detach() - 1)  # a pair that is right moves little
torch.testing.assert_close(bradley_terry(chosen, rejected), each)
torch.testing.assert_close(bradley_terry(chosen + 7, rejected + 7), each)

# %% [markdown]
# # States that hide something
# 600 pairs of random states, of which one direction is what people like, and another is the length. In these pairs the
# chosen answer is often the longer one, too. The network finds both; that is right for the pairs, and wrong for a
# model that will be paid by it: writing longer is easier than writing better.

# %%
generator = torch.Generator().manual_seed(5)
liked, longer = torch.linalg.qr(torch.randn(768, 2, generator=generator))[0].T  # two directions at right angles


def states(count: int, *, length: float) -> tuple[Tensor, Tensor]:
    """Better and worse states (count, 768); `length` is how much longer the better ones are."""
    noise = torch.randn(2, count, 768, generator=generator)
    return noise[0] + 1.5 * liked + length * longer, noise[1]


def right(model: nn.Module, pairs: tuple[Tensor, Tensor]) -> float:
    """Share of the pairs in the right order."""
    with torch.no_grad():
        return (model(pairs[0]) > model(pairs[1])).float().mean().item()


train = states(600, length=1.5)
held = {"as in training": states(400, length=1.5), "of like length": states(400, length=0.0),
        "the longer is worse": states(400, length=-1.5)}  # fmt: skip
optimizer = torch.optim.AdamW(small.parameters(), lr=2e-4, weight_decay=0.1)
for _ in range(25):
    optimizer.zero_grad()
    bradley_terry(small(train[0])[:, 0], small(train[1])[:, 0]).mean().backward()
    optimizer.step()
found = {name: right(small, pairs) for name, pairs in held.items()}
print({name: f"{100 * share:.0f} %" for name, share in found.items()})
assert found["as in training"] > found["of like length"] > found["the longer is worse"]

# %% [markdown]
# # A network that reads
# Now with real tokens: a small GPT without its head, a `score` in its place, read at the last token. Two neighbours
# answer the same question; people like the one who begins with a thank-you. Both say as much, so length tells nothing.

# %%
KIND, PLAIN = "Thank you.", "Well now. "
letters = tokens.train("chars", [KIND + PLAIN + " ".join(each.name for each in world.PEOPLE) + "Ask comes? -"])
END = letters.special["<|endoftext|>"]


def row(name: str, opening: str, other: str) -> Row:
    """A question, an answer, and its end; a reward model learns nothing token by token."""
    ids = letters.encode(f"{name} comes. Ask? - {opening} {other} comes.")
    return Row([*ids, END], [False] * len(ids) + [True])


names = [each.name for each in world.PEOPLE]
pairs = [PairRow(row(one, KIND, other), row(one, PLAIN, other)) for one in names for other in names if one != other]
order = np.random.default_rng(1).permutation(len(pairs))
parts = {"train": [pairs[n] for n in order[:40]], "held out": [pairs[n] for n in order[40:]]}
print({name: len(part) for name, part in parts.items()})

config = ModelConfig(family="qwen3", vocabulary=letters.vocabulary, context=64, width=48, layers=2, heads=2)
model = Classifier(build(config, seed=1), HeadConfig(("reward",), kind="reward"), seed=1)
source = WholePairs(parts["train"], pad=END)
optimizer, curve = torch.optim.AdamW(model.parameters(), lr=1e-3), list[float]()
draws, done = Loader(source, batch=8, seed=1), bar("reward model", 40)
for batch in islice(draws, 40):
    total, numbers = ranking(model, batch)
    optimizer.zero_grad()
    (total / batch.count).backward()
    optimizer.step()
    curve.append(total.item() / batch.count)
    done(len(curve))
whole = WholePairs(parts["held out"], pad=END).batch(np.arange(len(parts["held out"])))
with torch.no_grad():
    total, numbers = ranking(model.eval(), whole)
    scores = model(whole.tokens, lengths=whole.fields["lengths"])[:, 0].chunk(2)
accuracy = numbers["accuracy"].item() / whole.count
print(f"loss {curve[0]:.3f} (ln 2 is {math.log(2):.3f}) -> {curve[-1]:.3f}; held out: {100 * accuracy:.0f} % in order")

# %% [markdown]
# # Believing it
# Three questions for any reward model. Is it right more often than one who goes by length alone? When it says 80 %, is
# it right in 80 % (calibration)? And what does it like best of all that nobody would write? `groundup reward` answers
# the first two in its report; the third is asked by whoever trains a model with it.

# %%
by_length = np.mean([0.5 + 0.5 * np.sign(len(pair.chosen.ids) - len(pair.rejected.ids)) for pair in parts["held out"]])
judged = marks(*scores, longer_baseline=float(by_length))
print(f"pairs it was not given: loss {judged.words()}; mean gap of its probabilities {judged.ece:.3f}")
assert by_length == 0.5 and abs(judged.accuracy - accuracy) < 1e-6
with torch.no_grad():
    again = torch.tensor([letters.encode("Thank you. " * 5)])
    once = torch.tensor([letters.encode("Thank you. ")])
    print(f"score of one thank-you {model(once).item():.2f}, of five in a row {model(again).item():.2f}")

with picture("reward_model", width=9, height=3) as figure:
    left, right_axes = figure.subplots(1, 2)
    left.plot(curve)
    left.axhline(math.log(2), color="gray", linestyle=":")
    left.set(title="Loss of the pairs", xlabel="step", ylabel="nats per pair")
    for side, colour, name in zip(scores, ("C0", "C1"), ("chosen", "rejected"), strict=True):
        right_axes.hist(side.numpy(), bins=20, color=colour, alpha=0.6, label=name)
    right_axes.set(title="Scores of pairs it was not given", xlabel="score", yticks=[])
    right_axes.legend()
