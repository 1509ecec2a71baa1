"""What a rollout says about the policy: the figures that its steps write into the journal.

In: answers, their rewards, log-probabilities, values. Out: `notes`, plain numbers by name. They are there to show when
it goes wrong: a reward that rises while answers grow longer, repeat themselves or become all the same is being fooled.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from groundup.losses.divergence import k1
from groundup.rollouts.prompts import Answer
from groundup.rollouts.rewards import Scored

GRAM = 3  # ids in a row that may come back


def notes(
    answers: Sequence[Answer], rewards: Scored, *, logp: Tensor, mask: Tensor, ref_logp: Tensor
) -> dict[str, float]:
    """Figures of answers, of which logp, ref_logp, mask (R, N) know every id; means over the answers, unless they say.

    reward: what the rewards came to, nothing taken off; reward.NAME: each part, unweighted. written: ids of all answers
    together. length: ids, the end included. ended: share that came to an end. entropy: -log p per id, an estimate of
    the policy's entropy in nats (the loss knows it exactly, and says so under the same name at every step).
    distinct: share of different texts. repetition: see there. kl: log p - log p_ref of a whole answer, in nats: an
    estimate of KL(policy || reference) (divergence.k1).
    """
    count = len(answers)
    found = {"reward": sum(rewards.total) / count}
    found |= {f"reward.{name}": sum(values) / count for name, values in rewards.parts.items()}
    found["written"] = float(sum(len(answer.ids) for answer in answers))
    found["length"] = found["written"] / count
    found["ended"] = sum(answer.ended for answer in answers) / count
    found["entropy"] = float(-(logp * mask).double().sum() / mask.sum())
    found["distinct"] = len({answer.text for answer in answers}) / count
    found["repetition"] = sum(repetition(answer.ids) for answer in answers) / count
    found["kl"] = float((k1(logp - ref_logp) * mask).double().sum() / count)
    return found


def repetition(ids: Sequence[int]) -> float:
    """Share of the runs of three ids that were there before: 0 where nothing comes back, near 1 in a loop.

    >>> repetition([1, 2, 3, 4]), repetition([1, 2, 1, 2, 1, 2])  # of (1,2,1) (2,1,2) (1,2,1) (2,1,2) two are new
    (0.0, 0.5)
    """
    runs = [tuple(ids[start : start + GRAM]) for start in range(len(ids) - GRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def spread(scores: Tensor) -> float:
    """How far scores (R,) lie apart: the root of the mean square about their mean."""
    return float(scores.double().std(correction=0))


def flat(advantages: Tensor, *, group: int) -> float:
    """Share of groups, `group` answers beside each other, of which no answer is better than another: nobody learns.

    Advantages (R, N) as GRPO has them; every answer has a first id.

    >>> import torch
    >>> flat(torch.tensor([[0.7, 0.7], [-0.7, 0.0], [0.0, 0.0], [0.0, 0.0]]), group=2)
    0.5
    """
    return float((advantages[:, 0] == 0).view(-1, group).all(dim=1).double().mean())


def explained(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Explained variance of the returns (R, N): 1 - Var(returns - values) / Var(returns), over the places of `mask`.

    1: the values know what comes; 0: no better than a constant; below 0: worse. 0 where all returns are equal.

    >>> import torch
    >>> returns, mask = torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    >>> explained(torch.tensor([[1.5, 2.5, 0.0]]), returns, mask)  # 1 - 0.25 / 1
    0.75
    """
    there = mask.bool()
    truth, left = returns[there].double(), (returns - values)[there].double()
    whole = float(truth.var(correction=0))
    return 1 - float(left.var(correction=0)) / whole if whole > 0 else 0.0


def unended(numbers: Mapping[str, float], tokens: int) -> str:
    """What to tell a person when no answer of a rollout came to an end, or ""."""
    if numbers["ended"] > 0:
        return ""
    return (
        f"responses are all cut at {tokens:,} tokens: the model has not learnt to end an answer "
        "(tune it with groundup instruct first), or --response-tokens is too small"
    )
