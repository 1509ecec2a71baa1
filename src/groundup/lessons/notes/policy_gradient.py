"""Learning from rewards: what was good becomes likelier, but not too much at once.

Enters: a choice among four answers, and what each is worth. Leaves: PPO's objective, worked at four places, and three
ways to the best distribution there is: which is not the one that always takes the best answer.
Follows: notes 8.5.
In the library: groundup.losses.policy (the loss of PPO and GRPO), groundup.losses.advantages (what a token was worth),
groundup.losses.divergence, groundup.rollouts (write, score), and groundup.stages.ppo, which is `groundup ppo`.
"""

# %%
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from groundup.batches.batch import Batch
from groundup.lessons.rung import check, picture
from groundup.losses.advantages import gae, grouped, whiten
from groundup.losses.divergence import exact, k1, k3
from groundup.losses.policy import clipped_objective, policy

# %% [markdown]
# # Four answers
# A model has four answers to one question and chooses among them by chance. It never sees the table of what they are
# worth: it gives an answer and is told the reward of that one. Nothing can be differentiated through that; but the
# probability of an answer can be. Williams (1992): the gradient of the expected reward is the mean of (reward times
# gradient of log p(answer)). A reward above the usual makes its answer likelier, one below makes it unlikelier.

# %%
WORTH = torch.tensor([0.0, 0.2, 0.5, 1.0])


def policy_gradient(logits: Tensor, answers: Tensor) -> Tensor:
    """The gradient (4,) of the mean reward, guessed from answers (N,)."""
    leaf = logits.detach().requires_grad_()
    advantage = WORTH[answers] - WORTH[answers].mean()
    (advantage * leaf.log_softmax(0)[answers]).mean().backward()
    assert leaf.grad is not None
    return leaf.grad


logits = torch.tensor([0.5, 0.0, 0.2, -0.3], requires_grad=True)
(logits.softmax(0) * WORTH).sum().backward()  # what nobody who only tries could compute
generator = torch.Generator().manual_seed(1)
tries = torch.multinomial(logits.detach().softmax(0), 20_000, replacement=True, generator=generator)
guessed = policy_gradient(logits, tries)
assert logits.grad is not None
print("gradient of the mean reward:", logits.grad.numpy().round(3), " from 20,000 answers:", guessed.numpy().round(3))
torch.testing.assert_close(guessed, logits.grad, rtol=0, atol=0.01)

# %% [markdown]
# # PPO's objective
# Writing answers is expensive, so each is used for several steps. Then the model is no longer the one that wrote them:
# each is weighed by the ratio r of its probability now to what it was. At r = 1 that is the plain policy gradient. And
# it is clipped: min(r A, clip(r, 1 - e, 1 + e) A). A good answer (A > 0) gains nothing from more than 1 + e times its
# old probability, a bad one nothing from less than 1 - e. What has moved the wrong way is not held back: the minimum
# takes the worse of the two. (The notes call it a loss; it is to be made large, so the loss is minus it.)


# %%
def objective(ratio: float, advantage: float, epsilon: float = 0.2) -> float:
    """min(r A, clip(r, 1 - e, 1 + e) A)."""
    clipped = min(max(ratio, 1 - epsilon), 1 + epsilon)
    return min(ratio * advantage, clipped * advantage)


PLACES = [(1.5, 1.0), (1.5, -1.0), (0.5, 1.0), (0.5, -1.0)]
worked = [objective(*place) for place in PLACES]
check("notes.8.5.ppo", worked)
ratios, advantages = torch.tensor(PLACES, dtype=torch.float64).T
ratios = ratios.clone().requires_grad_()
theirs = clipped_objective(ratios, advantages, 0.2)
theirs.sum().backward()
assert ratios.grad is not None
print("worked", worked, "  gradient by r", ratios.grad.tolist())
assert torch.allclose(theirs, torch.tensor(worked, dtype=torch.float64), rtol=0, atol=1e-9)
assert ratios.grad.tolist() == [0.0, -1.0, 1.0, 0.0]  # 0 where it went far enough

# %% [markdown]
# # What is it worth to be near?
# A reward can be wrong where it was never tried, so every nat of distance from the model as it was, the reference,
# costs beta. Then the best distribution is known: p(answer) = p_ref(answer) e^(reward / beta) / Z. It keeps some of
# every answer. Distance is guessed from the answers too: k1 is log p - log p_ref, right on average and swinging; k3
# never falls below 0.

# %%
BETA = 0.3
REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1])
best = (REFERENCE * (WORTH / BETA).exp()) / (REFERENCE * (WORTH / BETA).exp()).sum()
away = best.log() - REFERENCE.log()
whole = exact(best.log(), REFERENCE.log()).item()
for name, estimate in {"k1": k1, "k3": k3}.items():
    each = estimate(away)
    print(f"{name}: single values {each.numpy().round(3)}, their mean under the model {(best * each).sum().item():.4f}")
    assert math.isclose((best * each).sum().item(), whole, rel_tol=1e-4)
print("the best there is:", best.numpy().round(3), f"at {whole:.3f} nats")

# %% [markdown]
# # Three learners
# The library's loss on the smallest model that it can be given: a table of four logits, one place, one token. PPO here
# takes the price of distance out of the reward, as `groundup ppo` does. GRPO compares the answers of a group and has
# the price in its loss; it divides by the spread of the rewards, which is below 1 here, so that they count for more
# beside the price. The third is PPO without any price: it finds the best answer and forgets the rest.


# %%
class Table(nn.Module):
    """The same logits (4,) whatever the question is."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(REFERENCE.log().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids (B, 1) -> (B, 1, 4)."""
        return self.logits.expand(*tokens.shape, 4)


def rollout(model: Table, *, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Answers (count, 1) and their log-probabilities (count, 1), as the model is now."""
    chances = model.logits.detach().log_softmax(0)
    answers = torch.multinomial(chances.exp(), count, replacement=True, generator=generator)[:, None]
    return answers, chances[answers]


Judge = Callable[[Tensor, Tensor], dict[str, Tensor]]


def learnt(judge: Judge, *, kl: float, rollouts: int = 60, count: int = 256) -> tuple[Tensor, list[float]]:
    """Probabilities after so many rollouts of `count` answers, each used four times; and the mean reward of each."""
    model, luck, rewards = Table(), torch.Generator().manual_seed(3), list[float]()
    loss = policy(clip_ratio=0.2, value_clip=0.2, value_weight=0.0, entropy_weight=0.0, kl=kl)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(rollouts):
        answers, old = rollout(model, count=count, generator=luck)
        rewards.append(WORTH[answers].mean().item())
        ones = torch.ones(count, 1)
        fields = {"targets": answers, "weight": ones, "old_logp": old} | judge(answers, old)
        batch = Batch(torch.zeros(count, 1, dtype=torch.long), float(count), fields)
        for _ in range(4):
            optimizer.zero_grad()
            (loss(model, batch)[0] / batch.count).backward()
            optimizer.step()
    return model.logits.detach().softmax(0), rewards


def ppo(answers: Tensor, old: Tensor) -> dict[str, Tensor]:
    """The price of distance is in the reward."""
    rewards = WORTH[answers] - BETA * (old - REFERENCE.log()[answers])
    return {"advantage": rewards - rewards.mean()}


def grpo(answers: Tensor, old: Tensor) -> dict[str, Tensor]:
    """All answers are one group; the price of distance is in the loss, for a spread of 1."""
    groups = torch.zeros(len(answers), dtype=torch.long)
    return {"advantage": grouped(WORTH[answers][:, 0], groups)[:, None], "ref_logp": REFERENCE.log()[answers]}


def without_a_price(answers: Tensor, old: Tensor) -> dict[str, Tensor]:
    """Only the reward counts."""
    return {"advantage": whiten(WORTH[answers], torch.ones_like(old))}


found = {"PPO": learnt(ppo, kl=0.0), "GRPO": learnt(grpo, kl=BETA), "no price": learnt(without_a_price, kl=0.0)}
for name, (chances, rewards) in found.items():
    print(f"{name:9} {chances.numpy().round(3)}  mean reward {rewards[0]:.2f} -> {rewards[-1]:.2f}, "
          f"{exact(chances.log(), REFERENCE.log()).item():.2f} nats away")  # fmt: skip
torch.testing.assert_close(found["PPO"][0], best, rtol=0, atol=0.04)
assert found["no price"][0][3] > 0.95 and found["GRPO"][0][3] > 0.3

# %% [markdown]
# # Which token was it?
# An answer has many tokens and one reward, at its end. A second head of the network guesses for every token what is
# still to come (its value). The advantage of a token is then what came after it, minus what was expected; `lam` says
# how far ahead is looked before the guess is believed. Five tokens, the reward 1 at the last:

# %%
REWARDS, VALUES = [0.0, 0.0, 0.0, 0.0, 1.0], [0.2, 0.3, 0.1, 0.6, 0.8]


def advantages_by_hand(rewards: list[float], values: list[float], *, gamma: float, lam: float) -> list[float]:
    """From the end to the beginning: surprise, and what the later surprises leave of themselves."""
    found, later = list[float](), 0.0
    for place in reversed(range(len(rewards))):
        expected = values[place + 1] if place + 1 < len(values) else 0.0
        surprise = rewards[place] + gamma * expected - values[place]
        later = surprise + gamma * lam * later
        found.insert(0, later)
    return found


for lam in (0.0, 0.5, 1.0):
    mine = advantages_by_hand(REWARDS, VALUES, gamma=1.0, lam=lam)
    ours, _ = gae(torch.tensor([REWARDS]), torch.tensor([VALUES]), torch.ones(1, 5), gamma=1.0, lam=lam)
    torch.testing.assert_close(ours[0], torch.tensor(mine))
    print(f"lambda {lam}: {[round(one, 3) for one in mine]}")

# %%
with picture("policy_gradient", width=9, height=3) as figure:
    left, middle, right = figure.subplots(1, 3)
    places = [0.02 * step for step in range(20, 81)]
    for advantage, colour in ((1.0, "C0"), (-1.0, "C1")):
        values = [objective(place, advantage) for place in places]
        left.plot(places, values, color=colour, label=f"A = {advantage:g}")
    left.plot(*zip(*[(ratio, value) for (ratio, _), value in zip(PLACES, worked, strict=True)], strict=True), "k.")
    left.set(title="PPO's objective", xlabel="ratio r")
    left.legend()
    for number, (name, (chances, rewards)) in enumerate(found.items()):
        middle.plot(rewards, label=name)
        right.bar([place + 0.2 * number for place in range(4)], chances.tolist(), width=0.2, label=name)
    middle.set(title="Mean reward", xlabel="rollout")
    middle.legend()
    right.plot([place + 0.2 for place in range(4)], best.tolist(), "k_", markersize=18, label="best there is")
    right.set(title="Where they end", xlabel="answer", xticks=range(4))
    right.legend()
