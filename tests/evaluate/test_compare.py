"""Wins, intervals, spreads and distances: worked by hand, or set against every case there is."""

import itertools
import math
import random

import pytest

from groundup.errors import DataError
from groundup.evaluate.compare import (
    Column,
    Divergence,
    Gap,
    divergence,
    gap,
    histogram,
    points,
    resampled,
    scored,
    spread,
    wins,
)

Z = 1.96


def wilson(share: float, count: int) -> tuple[float, float]:
    """The ends p for which (share - p)^2 = Z^2 p (1 - p) / count: a quadratic equation, solved."""
    a, b, c = 1 + Z**2 / count, -(2 * share + Z**2 / count), share**2
    root = math.sqrt(b**2 - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def test_a_tie_is_half_a_point():
    found = wins([1.0, 0.5, 0.5, 0.0, 1.0, None])
    assert (found.won, found.tied, found.lost, found.unused) == (2, 2, 1, 1)
    assert found.share == 3 / 5  # 2 + 2 / 2 points of 5; the sixth has no verdict
    assert (found.low, found.high) == pytest.approx(wilson(0.6, 5))


def test_wilson_by_hand():
    # p = 0.7, n = 10: (0.7 + 0.19208 -+ 1.96 sqrt(0.021 + 0.009604)) / 1.38416 = (0.89208 -+ 0.34288) / 1.38416
    found = wins([1.0] * 7 + [0.0] * 3)
    assert (found.low, found.high) == pytest.approx((0.39677, 0.89221), abs=1e-5)
    assert (wins([1.0] * 4).low, wins([1.0] * 4).high) == pytest.approx((4 / (4 + Z**2), 1.0))


def test_nothing_to_count():
    found = wins([None, None])
    assert (found.share, found.low, found.high, found.unused) == (None, 0.0, 1.0, 2)
    with pytest.raises(DataError, match="there is no value"):
        resampled([], seed=1)
    with pytest.raises(DataError, match="there are no scores"):
        spread([])
    with pytest.raises(DataError, match="2 scores cannot be set against 1"):
        points([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="1 scores cannot be set against 2"):
        gap([1.0], [1.0, 2.0], seed=1)
    assert divergence([], []) is None


@pytest.mark.parametrize("values", [[0.0, 0.5, 1.0, 1.0, 1.0], [3.1, -0.2, 7.5, 0.4, 1.9], [1.0, 2.0, 3.0, 4.0, 100.0]])
def test_the_bootstrap_against_every_sample_there_is(values: list[float]):
    """All n^n samples of n values are listed: the ends found by drawing lie between quantiles near 2.5 and 97.5 %."""
    means = sorted(sum(sample) / len(values) for sample in itertools.product(values, repeat=len(values)))
    low, high = resampled(values, seed=7, draws=20_000)

    def quantile(share: float) -> float:
        return means[min(len(means) - 1, int(share * len(means)))]

    assert quantile(0.02) <= low <= quantile(0.03) and quantile(0.97) <= high <= quantile(0.98)


def test_a_bootstrap_drawn_in_blocks_is_the_same_size(monkeypatch: pytest.MonkeyPatch):
    values = [random.Random(3).gauss(0, 1) for _ in range(50)]
    whole = resampled(values, seed=5)
    monkeypatch.setattr("groundup.evaluate.compare.BLOCK", 50 * 7)  # seven samples at a time
    assert resampled(values, seed=5) == pytest.approx(whole, abs=0.02)


def test_the_same_seed_gives_the_same_interval():
    values = [0.0, 1.0, 1.0, 0.5, 3.0]
    assert resampled(values, seed=1) == resampled(values, seed=1) != resampled(values, seed=2, draws=501)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Of 200 samples of 40 differences with a known mean, some 95 % give an interval that has it."""
    luck = random.Random(11)
    held = 0
    for number in range(200):
        values = [luck.gauss(0.3, 1.0) for _ in range(40)]
        low, high = resampled(values, seed=number, draws=1_000)
        held += low <= 0.3 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_prompts_that_nearly_all_went_one_way_are_no_certainty():
    """9 won, 1 lost: p = 0.9, n = 10: (0.9 + 0.19208 -+ 1.96 sqrt(0.009 + 0.009604)) / 1.38416, whatever the marks."""
    shares = [1.0] * 9 + [0.0]
    for found in (wins(shares), scored("x", [[0.0] * 9 + [1.0], [1.0] * 9 + [0.0]]).wins()[0]):
        assert (found.low, found.high) == pytest.approx((0.59585, 0.98212), abs=1e-4)
    assert wins([1.0] * 5).low < 0.6


@pytest.mark.parametrize("count", [20, 40, 100])
def test_the_interval_of_points_holds_the_truth_where_nearly_all_are_won(count: int):
    """Every outcome of `count` prompts, each won with p = 0.95, by its own probability: no luck is drawn."""
    held = 0.0
    for won in range(count + 1):
        found = wins([1.0] * won + [0.0] * (count - won))
        if found.low <= 0.95 <= found.high:
            held += math.comb(count, won) * 0.95**won * 0.05 ** (count - won)
    assert 0.92 <= held <= 0.99


def test_the_truth_seldom_lies_below_the_interval():
    """Of 100 prompts, each won with p = 0.96; a bootstrap begins above that for 99 won and for 100: in 8.7 %."""
    missed = 0.0
    for won in range(101):
        if wins([1.0] * won + [0.0] * (100 - won)).low > 0.96:
            missed += math.comb(100, won) * 0.96**won * 0.04 ** (100 - won)
    assert missed <= 0.04


def test_what_differs_by_rounding_is_a_tie():
    assert points([0.1 + 0.2, 1e9, 2.0, 0.1 + 0.2 - 0.3], [0.3, 1e9 + 0.5, 2.000001, 0.0]) == [0.5, 0.5, 0.0, 0.5]
    column = scored("sum", [[0.3, 0.3], [0.1 + 0.2, 0.1 + 0.2], [0.3, 0.2]])
    assert [column.best(number) for number in range(2)] == [[], [0, 1]]


def test_a_gap_is_taken_prompt_by_prompt():
    """One more on every prompt is certain, however far apart the prompts are; unpaired it would not be."""
    first = [1.0, 50.0, -30.0, 7.0]
    assert gap([value + 1 for value in first], first, seed=1) == Gap(1.0, 1.0, 1.0)
    assert gap([2.0, 4.0], [1.0, 1.0], seed=1).mean == 2.0
    assert gap([2.0], [0.5], seed=1) == Gap(1.5, None, None)


def test_spread_by_hand():
    found = spread([4.0, 1.0, 3.0, 2.0])
    assert (found.mean, found.least, found.quarter, found.median, found.three_quarters, found.most) == (
        2.5, 1.0, 1.75, 2.5, 3.25, 4.0,
    )  # fmt: skip
    assert found.deviation == pytest.approx(math.sqrt(5 / 3))  # 2.25 + 0.25 + 0.25 + 2.25 over n - 1
    assert spread([1.0]).deviation is None


def test_histograms_share_their_edges():
    edges, shares = histogram([[0.0, 0.1, 0.9], [1.0, 1.0, 0.6]], bins=2)
    assert edges == [0.0, 0.5, 1.0]
    assert shares == [pytest.approx([2 / 3, 1 / 3]), pytest.approx([0.0, 1.0])]
    edges, shares = histogram([[2.0, 2.0], [2.0, 2.0]], bins=4)
    assert (edges[0], edges[-1]) == (1.5, 2.5) and all(sum(one) == 1.0 for one in shares)


@pytest.mark.parametrize(
    "pair", [(0.3, 0.1 + 0.2), (1e17, 1e17), (1e17, 1e17 + 16), (-1.7e308, 1.7e308), (1.7e308,) * 2]
)
def test_a_histogram_of_whatever_numbers_there_are(pair: tuple[float, float]):
    """Finite edges, each larger than the last, and every score in a bin."""
    edges, shares = histogram([[pair[0]], [pair[1]]])
    assert all(map(math.isfinite, edges)) and all(one < other for one, other in itertools.pairwise(edges))
    assert [sum(one) for one in shares] == [1.0, 1.0] and edges[0] <= min(pair) and max(pair) <= edges[-1]


def test_divergence_by_hand():
    # log p - log q: 1, 2, 0, 5; mean 2, squares about it 1 + 0 + 4 + 9 = 14, s^2 = 14 / 3, error sqrt(14 / 3 / 4)
    found = divergence([-1.0, -1.0, -2.0, -1.0], [-2.0, -3.0, -2.0, -6.0], left_out=2)
    assert found == Divergence(2.0, pytest.approx(math.sqrt(14 / 12)), 4, 2)
    assert divergence([-1.0], [-1.5]) == Divergence(0.5, None, 1)


def test_divergence_is_right_on_average_and_its_error_says_how_far_off():
    """Answers drawn from a distribution of four, whose KL to another one is known: 300 estimates of 50 answers each."""
    p, q = [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]
    exact = sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))
    luck, estimates = random.Random(2), list[Divergence]()
    for _ in range(300):
        drawn = luck.choices(range(4), weights=p, k=50)
        found = divergence([math.log(p[one]) for one in drawn], [math.log(q[one]) for one in drawn])
        assert found is not None
        estimates.append(found)
    middle = sum(found.nats for found in estimates) / 300
    spread_of_all = math.sqrt(sum((found.nats - exact) ** 2 for found in estimates) / 300)
    assert middle == pytest.approx(exact, abs=4 * spread_of_all / math.sqrt(300))
    said = sum(found.error or 0.0 for found in estimates) / 300
    assert said == pytest.approx(spread_of_all, rel=0.1)


def test_a_column_of_three_models():
    column = scored("exact", [[1.0, 0.0, 0.5], [1.0, 1.0, 0.0], [0.0, 1.0, 0.5]])
    assert column.shares == [[0.5, 1.0, 0.0], [0.0, 1.0, 0.5]]
    assert [(one.won, one.tied, one.lost) for one in column.wins()] == [(1, 1, 1), (1, 1, 1)]
    assert [one.mean for one in column.spreads()] == [0.5, pytest.approx(2 / 3), 0.5]
    assert [one.mean for one in column.gaps(1)] == [pytest.approx(1 / 6), 0.0]
    assert [column.best(number) for number in range(3)] == [[0, 1], [1, 2], [0, 2]]


def test_a_column_without_scores_knows_the_best_by_its_points():
    column = Column("people", "human", [[1.0, 0.0, 0.5, None], [1.0, 0.5, 0.5, None]])
    assert [column.best(number) for number in range(4)] == [[1, 2], [0, 2], [], []]
    assert column.spreads() == [] and column.gaps(1) == []
    assert column.wins()[0].unused == 1
