"""How a policy does on prompts that it does not learn from: reward, right answers, their length, how far it went.

In: of each answer its reward, its length, whether it ended, whether it is right, and how much likelier it has become.
Out: `RewardMarks`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.errors import DataError


@dataclass(frozen=True)
class RewardMarks:
    """A policy judged on `rows` prompts; all but `rows` and `graded` are means over the answers.

    reward: what the reward function gave, nothing taken off. error: its standard error; of one answer None.
    right: share of the answers that say exactly what was expected, of the `graded` prompts that say what is; None where
        none does. It is counted whatever the reward is: a reward that rises without it deserves a look.
    length: tokens, the one that ends an answer included. ended: share that came to such an end.
    log_ratio: log p(answer) - log p_ref(answer) in nats, of greedy answers: how much surer the policy is of them than
        the reference was. It is no divergence, as nothing was drawn. None without a reference, and of drawn answers.
    kl: the same of answers that were drawn, where its mean estimates KL(policy || reference) (the estimator k1 of
        Schulman 2020, "Approximating KL divergence"); None of greedy ones. kl_error: its standard error.
    """

    rows: int
    reward: float
    error: float | None
    right: float | None
    graded: int
    length: float
    ended: float
    log_ratio: float | None = None
    kl: float | None = None
    kl_error: float | None = None

    @property
    def loss(self) -> float:
        """The reward with the other sign: the smallest loss is the best."""
        return -self.reward

    def record(self) -> dict[str, float | None]:
        """The numbers of a line in the journal; `kl` only of answers that were drawn."""
        found = {
            "loss": self.loss,
            "reward": self.reward,
            "right": self.right,
            "length": self.length,
            "ended": self.ended,
            "log_ratio": self.log_ratio,
        }
        return found if self.kl is None else found | {"kl": self.kl}

    def words(self) -> str:
        """The same for a person, in a line that begins with the reward.

        >>> mark([1.0, 0.0], lengths=[5, 7], ended=[True, False], right=[True, False], kl=[2.0, 4.0]).words()
        'reward 0.500  right 50.0 %  length 6.0  ended 50.0 %  kl 3.00'
        """
        said = [f"reward {self.reward:.3f}"]
        said += [] if self.right is None else [f"right {100 * self.right:.1f} %"]
        said += [f"length {self.length:.1f}", f"ended {100 * self.ended:.1f} %"]
        said += [] if self.log_ratio is None else [f"log ratio {self.log_ratio:.2f}"]
        said += [] if self.kl is None else [f"kl {self.kl:.2f}"]
        return "  ".join(said)


def mark(
    rewards: Sequence[float],
    *,
    lengths: Sequence[int],
    ended: Sequence[bool],
    right: Sequence[bool | None],
    log_ratio: Sequence[float] | None = None,
    kl: Sequence[float] | None = None,
) -> RewardMarks:
    """Put together what is known of each answer; `right` is None where nobody says what would be, and left out then.

    Log-ratios to the reference are given as `log_ratio` of greedy answers, as `kl` of drawn ones.

    Raises DataError where there is no answer, or not one value of each for every answer.

    >>> marks = mark([0.0, 1.0, 1.0, 1.0], lengths=[4] * 4, ended=[True] * 4, right=[False, True, True, None])
    >>> marks.reward, marks.error, marks.right, marks.graded  # error: 0.5 / sqrt(4)
    (0.75, 0.25, 0.6667, 3)
    """
    counts = {len(values) for values in (rewards, lengths, ended, right, log_ratio, kl) if values is not None}
    if counts != {len(rewards)} or not rewards:
        raise DataError(
            f"answers cannot be marked: {len(rewards)} rewards, {len(lengths)} lengths, {len(right)} verdicts",
            "give one of each for every answer, at least one",
        )
    known = [verdict for verdict in right if verdict is not None]
    reward, error = _mean(rewards)
    distance, unsure = (None, None) if kl is None else _mean(kl)
    return RewardMarks(
        rows=len(rewards),
        reward=reward,
        error=error,
        right=sum(known) / len(known) if known else None,
        graded=len(known),
        length=sum(lengths) / len(lengths),
        ended=sum(ended) / len(ended),
        log_ratio=None if log_ratio is None else _mean(log_ratio)[0],
        kl=distance,
        kl_error=unsure,
    )


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and its standard error: the spread over sqrt(n), the spread with n - 1 below; None for one value."""
    mean, count = math.fsum(values) / len(values), len(values)
    if count < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
