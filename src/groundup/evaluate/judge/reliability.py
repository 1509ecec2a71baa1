"""How far a judge and its scores can be relied on.

In: scores. Out: the area under a ROC curve with its interval, means with theirs, agreement between repeats and between
two orders.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FIT = 0.7  # the least area under the ROC curve of a judge that may be used
Z = 1.96  # standard errors to both sides of a 95 % interval


# the judge, judged


@dataclass(frozen=True)
class Check:
    """How well a judge tells right answers from answers to other questions.

    `area`: the probability that a right answer gets more than a wrong one, ties counting half; `low` and `high` are its
    95 % interval. `unusable`: replies that could not be read, of all `good` + `bad` that were asked for.
    """

    area: float
    low: float
    high: float
    good: int
    bad: int
    unusable: int

    @property
    def fit(self) -> bool:
        """Whether the judge may be used: an area of 0.7 at least, and most replies readable."""
        return self.area >= FIT and 2 * self.unusable <= self.good + self.bad


def area(good: Sequence[float], bad: Sequence[float]) -> float:
    """The area under the ROC curve: the share of pairs in which the good one has more, ties half (Mann, Whitney 1947).

    NaN without a pair.

    >>> area([3, 2], [1, 2])  # of four pairs three are right and one is a tie
    0.875
    """
    won = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    return won / (len(good) * len(bad)) if good and bad else math.nan


def interval(area: float, good: int, bad: int) -> tuple[float, float]:
    """A 95 % interval of an area by the standard error of Hanley and McNeil (1982, Radiology 143), within 0 and 1.

    An area of 0 or 1 is treated as half a pair short of it: its own standard error would be zero.

    >>> [round(end, 3) for end in interval(0.893, 51, 58)]
    [0.829, 0.957]
    """
    if not good or not bad:
        return 0.0, 1.0
    spare = 0.5 / (good * bad)
    inside = min(max(area, spare), 1 - spare)
    above, below = inside / (2 - inside), 2 * inside**2 / (1 + inside)
    spread = inside * (1 - inside) + (good - 1) * (above - inside**2) + (bad - 1) * (below - inside**2)
    error = math.sqrt(max(0.0, spread) / (good * bad))
    return max(0.0, area - Z * error), min(1.0, area + Z * error)


def checked(good: Sequence[float | None], bad: Sequence[float | None]) -> Check:
    """The check of a judge from its scores of right and wrong answers; None: unusable."""
    right, wrong = [value for value in good if value is not None], [value for value in bad if value is not None]
    found = area(right, wrong)
    low, high = interval(found, len(right), len(wrong))
    unusable = len(good) + len(bad) - len(right) - len(wrong)
    return Check(found, low, high, len(good), len(bad), unusable)


def checked_pairs(shares: Sequence[float | None]) -> Check:
    """The same of a judge that compares: what right answers got of the point against wrong ones, asked both ways."""
    usable = [share for share in shares if share is not None]
    found, low, high = mean_share(usable)
    return Check(found, low, high, len(shares), len(shares), 2 * (len(shares) - len(usable)))


# agreement


def mean(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean with a 95 % interval by the normal distribution; NaN without a value, no width known for a single one.

    >>> [round(value, 2) for value in mean([1, 2, 3, 4, 5])]
    [3.0, 1.61, 4.39]
    """
    if not values:
        return math.nan, math.nan, math.nan
    middle = sum(values) / len(values)
    if len(values) == 1:
        return middle, -math.inf, math.inf
    variance = sum((value - middle) ** 2 for value in values) / (len(values) - 1)
    reach = Z * math.sqrt(variance / len(values))
    return middle, middle - reach, middle + reach


def mean_share(shares: Sequence[float]) -> tuple[float, float, float]:
    """The mean of shares from 0 to 1 with a 95 % interval that stays between (Wilson 1927, JASA 22); NaN without one.

    >>> [round(value, 3) for value in mean_share([1.0] * 7 + [0.0] * 3)]
    [0.7, 0.397, 0.892]
    """
    count = len(shares)
    if not count:
        return math.nan, 0.0, 1.0
    middle, weight = sum(shares) / count, Z**2 / count
    reach = Z * math.sqrt(middle * (1 - middle) / count + weight / (4 * count))
    low, high = (middle + weight / 2 - reach) / (1 + weight), (middle + weight / 2 + reach) / (1 + weight)
    return middle, max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Repeats:
    """How far a judge agrees with itself over `pairs` pairs of scores of one answer.

    `equal`: share of pairs that are equal. `difference`: mean absolute difference. `alpha`: Krippendorff's, for
    distances; 1 is perfect, 0 is what scores dealt out at random would reach.
    """

    pairs: int
    equal: float
    difference: float
    alpha: float


def repeated(scores: Sequence[Sequence[float | None]]) -> Repeats | None:
    """Agreement between repeats, given the scores of each answer; None where no answer has two.

    >>> repeated([[1.0, 1.0], [5.0, 4.0], [3.0, None]])
    Repeats(pairs=2, equal=0.5, difference=0.5, alpha=0.941)
    """
    units = [[value for value in row if value is not None] for row in scores]
    units = [row for row in units if len(row) > 1]
    gaps = [abs(a - b) for row in units for place, a in enumerate(row) for b in row[place + 1 :]]
    if not gaps:
        return None
    count = len(gaps)
    return Repeats(count, gaps.count(0) / count, sum(gaps) / count, alpha(units))


def alpha(units: Sequence[Sequence[float]]) -> float:
    """Krippendorff's alpha with squared differences ("Computing Krippendorff's Alpha-Reliability", 2011).

    Each unit holds the scores that one thing got, two or more. With two repeats it is the quadratically weighted kappa
    but for a correction of small samples. 1 where all scores are one number.
    """
    values = [value for unit in units for value in unit]
    seen = sum(_squares(unit) / (len(unit) - 1) for unit in units)
    expected = _squares(values) / (len(values) - 1)
    return 1 - seen / expected if expected else 1.0


def _squares(values: Sequence[float]) -> float:
    """The sum of (a - b)^2 over all ordered pairs, by its shorter form 2 n sum (a - mean)^2."""
    middle = sum(values) / len(values)
    return 2 * len(values) * sum((value - middle) ** 2 for value in values)


def verdict(first: float | None, swapped: float | None) -> tuple[float | None, bool]:
    """What two orders say together: the share of the point of the first answer, and whether they disagree.

    `first`: its share when it stood first; `swapped`: the other's share when that stood first. 1 or 0 where both orders
    say so, else half; None where either reply was unusable.

    >>> verdict(1.0, 0.0), verdict(1.0, 1.0), verdict(0.5, 0.5), verdict(0.8, None)
    ((1.0, False), (0.5, True), (0.5, False), (None, False))
    """
    if first is None or swapped is None:
        return None, False
    one, other = _side(first), _side(1 - swapped)
    return (one if one == other else 0.5), one != other


def _side(share: float) -> float:
    return 0.5 if share == 0.5 else float(share > 0.5)
