"""One rollout: the policy answers prompts, the answers are scored, and it is worked out what is to be learnt of them.

In: `Actors` (who takes part), prompts, settings, the number of the rollout. Out: a `Rollout`.

1. Answers are drawn from the policy at the temperature of the settings, from its whole distribution: with top-k or
   top-p, other tokens would be possible than those whose probability is learnt (write.py).
2. The rewards score them (rewards.py).
3. One forward pass in the numerics of training gives the log-probability of every id, at that temperature, and what
   the policy expected (its values); another those of the reference. Decoding has its own rounding: a policy compared
   with that would seem to have changed before its first step.
4. PPO (Schulman et al. 2017): a reward for every id, -kl (log p - log p_ref), with the score at the last one (Ziegler
   et al. 2019, section 2.1); advantages by generalised estimation. GRPO (Shao et al. 2024, section 4.1): the score of
   an answer against those of its group is the advantage of all its ids; the distance is part of the loss.

Random numbers depend on (seed, number of the rollout) and on the prompt alone: not on what was drawn before, nor on who
is written beside whom. Shapes: R answers, L tokens of the longest prompt, N tokens of the longest answer.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from groundup.batches.batch import pad
from groundup.batches.windows import hashed
from groundup.errors import ModelError
from groundup.generate.sample import Sampler
from groundup.losses.advantages import gae, grouped, whiten
from groundup.losses.divergence import k1
from groundup.losses.log_probability import log_probabilities
from groundup.machine import Machine
from groundup.model import config_of
from groundup.rollouts import figures
from groundup.rollouts.answers import answered
from groundup.rollouts.buffer import PAD, Rollout, mask_of, placed
from groundup.rollouts.prompts import Answer, Prompts
from groundup.rollouts.rewards import Rewards
from groundup.rollouts.write import writer
from groundup.settings import Ppo
from groundup.text.template import ChatTemplate
from groundup.tokens.tokenizer import Tokenizer

Reference = nn.Module | Callable[[], AbstractContextManager[nn.Module]]
SHORTEST = 1e-6  # seconds: clocks that have not moved on are no reason to divide by 0


@dataclass(frozen=True)
class Actors:
    """Who takes part in a rollout.

    policy: a language model, or an `ActorCritic` for PPO. reference: a frozen model that reads the same ids; or a
    function that makes a block within which a model is the reference (`partial(lora.off, policy)`: the same weights
    with the adapters off). The template writes the prompts, and the ids with which it ends an answer are among those
    that do.
    """

    policy: nn.Module
    reference: Reference
    tokenizer: Tokenizer
    template: ChatTemplate
    rewards: Rewards
    machine: Machine

    @contextlib.contextmanager
    def judging(self) -> Iterator[nn.Module]:
        """Within the block, the reference."""
        if isinstance(self.reference, nn.Module):
            yield self.reference
            return
        with self.reference() as model:
            yield model

    def check(self) -> None:
        """Raise ModelError where policy and reference cannot read the same ids."""
        with self.judging() as reference:
            known = config_of(self.policy).vocabulary
            if config_of(reference).vocabulary != known:
                raise ModelError(
                    f"the policy knows {known:,} ids, the reference {config_of(reference).vocabulary:,}",
                    "take a reference with the policy's tokenizer: by default it is the model that is tuned",
                )


@torch.no_grad()
def collect(actors: Actors, asked: Prompts, settings: Ppo, *, number: int, price: float, rows: int) -> Rollout:
    """Rollout `number`: as many answers to each prompt as a group has, scored, and read `rows` at a time.

    `price`: what a nat of distance to the reference costs now. Weights, gradients and modes are afterwards as before,
    and no global random number is drawn. One of the notes is a clock's, `written_per_second`: ids of answers for each
    second of writing, scoring and reading together. For GRPO `flat` is noted (figures.flat). Raises what rewards raise,
    and ModelError for a policy that is broken.
    """
    began = time.monotonic()
    questions = asked.repeated(settings.group_size)
    answers = answered(
        writer(actors.policy, actors.machine, rows=len(questions)),
        actors.tokenizer,
        actors.template,
        questions,
        most=settings.response_tokens,
        sampler=Sampler(temperature=settings.temperature, seed=seed_of(settings.seed, number)),
    )
    rewards = actors.rewards.apart(answers)
    known = Known.of(questions.ids, answers)
    logp, values = known.read(actors.policy, actors.machine, temperature=settings.temperature, rows=rows)
    with actors.judging() as reference:
        ref_logp, _ = known.read(reference, actors.machine, temperature=settings.temperature, rows=rows)
    seconds = time.monotonic() - began  # what was read is no longer on a device: nothing is still being computed
    ended = torch.tensor([answer.ended for answer in answers])
    scores = torch.tensor(rewards.total, dtype=torch.float32) - settings.unfinished * (~ended).float()
    notes = figures.notes(answers, rewards, logp=logp, mask=known.mask, ref_logp=ref_logp)
    notes |= {"score_spread": figures.spread(scores), "kl_coefficient": price, "rollout": float(number)}
    notes["written_per_second"] = round(notes["written"] / max(seconds, SHORTEST), 1)
    learnt: dict[str, Any]
    if values is None:
        learnt = {"advantages": compared(scores, known.mask, group=settings.group_size), "ref_logp": ref_logp}
        notes["flat"] = figures.flat(learnt["advantages"], group=settings.group_size)
    else:
        learnt = judged(paid_out(scores, known.sizes, price * k1(logp - ref_logp)), values, known.mask, settings)
        notes["explained_variance"] = figures.explained(values, learnt["returns"], known.mask)
    return Rollout(**vars(known), ended=ended, scores=scores, logp=logp, values=values, notes=notes, **learnt)


# what is learnt


def compared(scores: Tensor, mask: Tensor, *, group: int) -> Tensor:
    """GRPO: each of the scores (R,) against those of its group, `group` answers beside each other, for every id (R, N).

    >>> compared(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]), group=2)
    tensor([[ 0.7071,  0.7071],
            [-0.7071, -0.0000]])
    """
    groups = torch.arange(len(scores)) // group
    return grouped(scores, groups)[:, None] * mask  # (R, 1) * (R, N)


def paid_out(scores: Tensor, sizes: Tensor, toll: Tensor) -> Tensor:
    """A reward for every id (R, N): minus the toll (R, N) for distance, and the score (R,) at the last of sizes (R,).

    >>> paid_out(torch.tensor([1.0]), torch.tensor([2]), torch.tensor([[0.1, 0.2, 0.0]]))
    tensor([[-0.1000,  0.8000,  0.0000]])
    """
    return (-toll).scatter_add(1, sizes[:, None] - 1, scores[:, None])


def judged(paid: Tensor, values: Tensor, mask: Tensor, settings: Ppo) -> dict[str, Any]:
    """PPO: advantages and returns (R, N) of rewards and values (R, N) for every id."""
    advantages, returns = gae(paid, values, mask, gamma=settings.gamma, lam=settings.lam)
    return {"advantages": whiten(advantages, mask) if settings.whiten else advantages, "returns": returns}


def seed_of(seed: int, number: int) -> int:
    """The sampler's seed of rollout `number` of a run.

    >>> seed_of(1, 0) == seed_of(1, 0), seed_of(1, 0) == seed_of(1, 1)
    (True, False)
    """
    return int(hashed(seed, np.array([number]))[0])


# what the networks say of it


@dataclass(frozen=True)
class Known:
    """Prompts (R, L) with answers (R, N), and how many ids of each are real (R,)."""

    prompts: Tensor
    prompt_sizes: Tensor
    answers: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, prompts: Sequence[list[int]], answers: Sequence[Answer]) -> "Known":
        """Prompts with what was answered to each."""
        written = [answer.ids for answer in answers]
        sizes = [torch.tensor([len(ids) for ids in each]) for each in (prompts, written)]
        return cls(pad(prompts, PAD)[0], sizes[0], pad(written, PAD)[0], sizes[1])

    @property
    def mask(self) -> Tensor:
        """Which places (R, N) hold an id of an answer: 1.0, else 0.0."""
        return mask_of(self.sizes, self.answers.shape[1])

    def read(
        self, model: nn.Module, machine: Machine, *, temperature: float, rows: int
    ) -> tuple[Tensor, Tensor | None]:
        """log p of every id of the answers (R, N), and the values before each where the model has some; both fp32.

        As in training but without dropout: the same number format, answers filled up on the right, `rows` at a time,
        here the shortest first.
        """
        logp = torch.zeros(self.answers.shape)
        values = torch.zeros(self.answers.shape) if hasattr(model, "values") else None
        was_training = model.training
        model.eval()
        try:
            for index in (self.prompt_sizes + self.sizes).argsort(stable=True).split(rows):
                self._read(model, machine, temperature, index, (logp, values))
        finally:
            model.train(was_training)
        return logp, values

    def _read(
        self, model: nn.Module, machine: Machine, temperature: float, index: Tensor, out: tuple[Tensor, Tensor | None]
    ) -> None:
        """Fill the rows `index` (B,) of log-probabilities and values."""
        sizes = self.sizes[index]
        batch = placed(
            [self.prompts[index], self.answers[index]], [self.prompt_sizes[index], sizes], {}
        ).to(machine.device)  # fmt: skip
        there = batch.fields["weight"].bool()  # (B, T): where an id of an answer is the target
        with machine.autocast():
            found = log_probabilities(model, batch, temperature=temperature)
        _fill(out[0], index, sizes, found.logp[there])
        if out[1] is not None:
            _fill(out[1], index, sizes, cast(Any, model).values(found.states)[there])


def _fill(whole: Tensor, index: Tensor, sizes: Tensor, numbers: Tensor) -> None:
    """Put numbers (n,), so many of each answer as `sizes` (B,) says, into the rows `index` (B,) of a tensor (R, N)."""
    part = torch.zeros(len(index), whole.shape[1])
    part[mask_of(sizes, whole.shape[1]).bool()] = numbers.float().cpu()
    whole[index] = part
