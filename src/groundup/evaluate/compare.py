"""Models side by side on the same prompts: who did better, how sure that is, how scores are spread, how far apart.

In: of each prompt the scores or votes that every model's answer got; log-probabilities of answers. Out: `Wins`,
`Spread`, `Gap`, `Divergence`, and `Column`, one kind of marks with all that follows from it. No model is asked here.

Every model but the first is set against the first. What two answers to one prompt got is compared before anything is
averaged, so that easy and hard prompts do not blur the difference.

Sources: Wilson 1927, JASA 22 (the interval of a share); Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
section 13.3 (percentiles); Schulman 2020, "Approximating KL divergence" (k1).
"""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from groundup.errors import DataError
from groundup.evaluate.judge.reliability import Check, mean_share

DRAWS = 10_000  # samples of a bootstrap: its ends then move by about a hundredth of the interval's width
BLOCK = 2**22  # numbers drawn at a time
BINS = 20  # of a histogram
WON, TIED, LOST = 1.0, 0.5, 0.0
ALIKE = 1e-9  # of their size: scores that differ by less came about by rounding
NOTHING = 1e-15  # what may be left where numbers of a usual size cancel out

Kind = Literal["reward", "sum", "judge", "human"]


@dataclass(frozen=True)
class Wins:
    """How a model did against the first: prompts that it won, lost, tied, and `unused` ones, without a verdict.

    `share`: what it got of the points, ties half, with a 95 % interval; None and 0 to 1 without a verdict.
    """

    won: int
    lost: int
    tied: int
    unused: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """How the scores of one model lie: mean, standard deviation (None for a single one), and the five numbers."""

    mean: float
    deviation: float | None
    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float


@dataclass(frozen=True)
class Gap:
    """The mean of score less the first model's score at the same prompt, with a 95 % interval; None: not known."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Divergence:
    """KL(model || first) in nats an answer, estimated: its standard error (None for a single answer), answers used.

    `left_out`: answers that cannot be scored, as they outgrew the context with their prompts.
    """

    nats: float
    error: float | None
    answers: int
    left_out: int = 0


# wins


def points(scores: Sequence[float], first: Sequence[float]) -> list[float | None]:
    """What each score gets against the first model's at the same prompt: 1, half for a tie, or 0.

    Scores that differ in their last digits are a tie: what differs there is the order in which numbers were added up.
    Raises DataError where there are not as many of both.

    >>> points([0.9, 0.2, 0.5], [0.1, 0.2, 0.7])
    [1.0, 0.5, 0.0]
    """
    if len(scores) != len(first):
        raise DataError(f"{len(scores)} scores cannot be set against {len(first)}", "score the same prompts")
    return [
        TIED if alike(one, other) else WON if one > other else LOST for one, other in zip(scores, first, strict=True)
    ]


def alike(one: float, other: float) -> bool:
    """Whether two scores are the same but for rounding.

    >>> alike(0.3, 0.1 + 0.2), alike(0.3, 0.3001)
    (True, False)
    """
    return math.isclose(one, other, rel_tol=ALIKE, abs_tol=NOTHING)


def wins(shares: Sequence[float | None]) -> Wins:
    """Count them; None is no verdict. The interval is Wilson's.

    A bootstrap over prompts keeps too near to the end where nearly all went one way, and has no width where all did.

    >>> wins([1.0, 1.0, 0.5, 0.0, None])
    Wins(won=2, lost=1, tied=1, unused=1, share=0.625, low=0.219, high=0.908)
    """
    known = [share for share in shares if share is not None]
    middle, low, high = mean_share(known)
    won, lost = sum(share > TIED for share in known), sum(share < TIED for share in known)
    unused = len(shares) - len(known)
    return Wins(won, lost, len(known) - won - lost, unused, middle if known else None, low, high)


def resampled(values: Sequence[float], *, seed: int, draws: int = DRAWS) -> tuple[float, float]:
    """The 95 % interval of a mean: the middle 95 % of the means of `draws` samples, each of as many values, put back.

    The same seed gives the same interval. Raises DataError without a value.

    >>> resampled([1.0, 1.0, 1.0], seed=1)
    (1.0, 1.0)
    """
    if not len(values):
        raise DataError("an interval was asked for, and there is no value", "give at least one")
    numbers, generator = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    rows, means = max(1, BLOCK // len(numbers)), list[np.ndarray]()
    for start in range(0, draws, rows):
        places = generator.integers(0, len(numbers), size=(min(rows, draws - start), len(numbers)))
        means.append(numbers[places].mean(axis=1))  # (rows, n) -> (rows,)
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


# scores


def spread(scores: Sequence[float]) -> Spread:
    """How scores lie; raises DataError without any.

    >>> spread([0.0, 1.0, 1.0, 1.0, 2.0])
    Spread(mean=1.0, deviation=0.7071, least=0.0, quarter=1.0, median=1.0, three_quarters=1.0, most=2.0)
    """
    if not len(scores):
        raise DataError("there are no scores", "score at least one answer")
    least, quarter, median, three_quarters, most = map(float, np.quantile(scores, [0, 0.25, 0.5, 0.75, 1]))
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    return Spread(statistics.fmean(scores), deviation, least, quarter, median, three_quarters, most)


def gap(scores: Sequence[float], first: Sequence[float], *, seed: int) -> Gap:
    """The mean difference, prompt by prompt; its interval is the bootstrap's, over prompts.

    >>> gap([3.0], [1.0], seed=1)
    Gap(mean=2.0, low=None, high=None)
    """
    if len(scores) != len(first):
        raise DataError(f"{len(scores)} scores cannot be set against {len(first)}", "score the same prompts")
    apart = [one - other for one, other in zip(scores, first, strict=True)]
    low, high = resampled(apart, seed=seed) if len(apart) > 1 else (None, None)
    return Gap(statistics.fmean(apart), low, high)


def histogram(scores: Sequence[Sequence[float]], bins: int = BINS) -> tuple[list[float], list[list[float]]]:
    """Edges (bins + 1) from the least of all scores to the largest, and of each model the share in every bin.

    Where all scores are one number but for rounding, it stands in the middle of a range of 1, or of a thousandth of
    its size where 1 would be lost in it.

    >>> edges, shares = histogram([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], bins=2)
    >>> edges, shares
    ([0.0, 0.5, 1.0], [[0.5, 0.5], [0.0, 1.0]])
    """
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in scores])
    least, most = _reach(float(every.min()), float(every.max()))
    edges = 2 * np.linspace(least / 2, most / 2, bins + 1)  # halved, as the range itself may be no number
    return edges.tolist(), [(np.histogram(one, edges)[0] / max(1, len(one))).tolist() for one in scores]


def _reach(least: float, most: float) -> tuple[float, float]:
    """Where a histogram begins and ends."""
    size = max(abs(least), abs(most))
    if most / 2 - least / 2 > ALIKE * size / 2:
        return least, most
    middle, half = least / 2 + most / 2, max(0.5, size / 2000)
    return max(middle - half, -sys.float_info.max), min(middle + half, sys.float_info.max)


# distance


def divergence(own: Sequence[float], first: Sequence[float], *, left_out: int = 0) -> Divergence | None:
    """KL(model || first) from log p of answers that the model drew, under itself and under the first.

    The mean of log p - log q over answers drawn from p is right on average, whatever their number (k1); a single
    answer may well be likelier under q. The answers must be drawn at temperature 1 from all of the vocabulary: of
    others it is no divergence. None where there are none.

    >>> divergence([-1.0, -2.0, -3.0], [-2.0, -4.0, -3.0])
    Divergence(nats=1.0, error=0.5774, answers=3, left_out=0)
    """
    if not own:
        return None
    ratios = [p - q for p, q in zip(own, first, strict=True)]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else None
    return Divergence(statistics.fmean(ratios), error, len(ratios), left_out)


# columns


@dataclass(frozen=True)
class Column:
    """One kind of marks: what every model but the first got of each prompt's point, and scores where there are some.

    `shares`: for each model but the first, of each prompt 1, half, 0, or None without a verdict. `scores`: for each
    model, the first among them, one of each prompt; none where answers were only compared. `check` and `remarks`: of a
    judge, how well it does itself, and what to know before its marks are read.
    """

    name: str
    kind: Kind
    shares: list[list[float | None]]
    scores: list[list[float]] = field(default_factory=list)
    check: Check | None = None
    remarks: list[str] = field(default_factory=list)

    def wins(self) -> list[Wins]:
        """Of each model but the first."""
        return [wins(one) for one in self.shares]

    def spreads(self) -> list[Spread]:
        """Of each model, the first among them; none where there are no scores."""
        return [spread(one) for one in self.scores]

    def gaps(self, seed: int) -> list[Gap]:
        """Of each model but the first; none where there are no scores."""
        return [gap(one, self.scores[0], seed=seed) for one in self.scores[1:]]

    def best(self, prompt: int) -> list[int]:
        """The models, counted from 0, whose answers to a prompt were the best; none where all are level or unknown.

        >>> column = Column("exact", "reward", [[1.0, 0.5], [0.0, 0.5]], [[1.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
        >>> column.best(0), column.best(1)
        ([1], [])
        """
        if self.scores:
            values: list[float | None] = [one[prompt] for one in self.scores]
        else:
            values = [TIED, *(one[prompt] for one in self.shares)]
        known = [value for value in values if value is not None]
        if len(known) < 2 or alike(min(known), max(known)):
            return []
        return [place for place, value in enumerate(values) if value is not None and alike(value, max(known))]


def scored(name: str, scores: Sequence[Sequence[float]], kind: Kind = "reward") -> Column:
    """The column of a reward, or of the sum of several: scores of each model, the first one's first.

    >>> scored("length", [[1.0, 2.0], [1.0, 3.0]]).shares
    [[0.5, 1.0]]
    """
    first, *others = scores
    return Column(name, kind, [points(one, first) for one in others], [list(one) for one in scores])
