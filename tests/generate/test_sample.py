"""Choosing a token: printed figures, values worked out by hand, slow twins, and a draw that depends on nothing else."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import SettingsError
from groundup.generate.sample import (
    Sampler,
    draw,
    greedy,
    number_copies,
    penalise,
    temper,
    top_k,
    top_p,
    uniforms,
)

# The nine words of the book's section 5.3.1 and their logits (figures book.5.3.*, nb.5.3.topk)
WORDS = "closer every effort forward inches moves pizza toward you".split()
LOGITS = torch.tensor([[4.51, 0.89, -1.9, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
INF = math.inf


def chances(logits: torch.Tensor, **settings: float) -> list[float]:
    return Sampler(**settings).scores(logits).softmax(-1)[0].tolist()


def drawn(logits: torch.Tensor, count: int, **settings: float) -> np.ndarray:
    """Counts (V,) of `count` draws from one row of logits."""
    luck = uniforms(123, [[0]], [0], count)[0]
    ids = Sampler(**settings).choose(logits.expand(count, -1), luck)
    return np.bincount(ids.numpy(), minlength=logits.size(-1))


def test_the_likeliest_word_is_forward():
    assert WORDS[greedy(LOGITS).item()] == "forward"
    assert WORDS[Sampler(temperature=0).choose(LOGITS).item()] == "forward"


def test_top_3_of_the_book():
    kept = top_k(LOGITS, 3)
    assert kept[0].tolist() == pytest.approx([4.51, -INF, -INF, 6.75, -INF, -INF, -INF, 6.28, -INF], abs=1e-4)
    assert kept.topk(3).indices.tolist() == [[3, 7, 0]]
    expected = [0.0615, 0, 0, 0.5775, 0, 0, 0, 0.3610, 0]
    assert chances(LOGITS, temperature=1, top_k=3) == pytest.approx(expected, abs=1e-4)


def test_temperatures_of_the_book():
    assert chances(LOGITS, temperature=1)[3] == pytest.approx(0.57, abs=0.005)
    assert chances(LOGITS, temperature=0.1)[3] == pytest.approx(0.99, abs=0.005)
    assert chances(LOGITS, temperature=5)[6] == pytest.approx(0.043, abs=5e-4)  # exercise 5.1


def test_four_logits_of_the_notebook():
    four = torch.tensor([[2.0, 1.0, 0.1, -1.0]])
    assert chances(four, temperature=0.5) == pytest.approx([0.861, 0.117, 0.019, 0.002], abs=0.0015)
    for temperature, printed in ((1, [7.389, 2.718, 1.105, 0.368]), (2, [2.718, 1.649, 1.051, 0.607])):
        total = sum(printed)
        assert chances(four, temperature=temperature) == pytest.approx([x / total for x in printed], abs=6e-4)


def test_three_of_six_probabilities_share_everything():
    six = torch.tensor([[0.4, 0.25, 0.15, 0.1, 0.07, 0.03]]).log()
    assert chances(six, temperature=1, top_k=3)[:3] == pytest.approx([0.5, 0.3125, 0.1875])
    values, places = top_k(torch.tensor([[2.0, 1.0, 0.5, 0.3, 0.2, 0.1]]), 3).topk(3)
    assert values.tolist() == [[2.0, 1.0, 0.5]] and places.tolist() == [[0, 1, 2]]


def test_a_thousand_draws_follow_the_probabilities():
    """The expected counts are [60.9, 1.6, 0.1, 572.1, 3.4, 0.1, 0.1, 357.6, 4.0]; each stays within 4 deviations."""
    p = torch.softmax(LOGITS[0].double(), 0).numpy()
    counts = drawn(LOGITS, 1000, temperature=1)
    assert counts.sum() == 1000
    assert (np.abs(counts - 1000 * p) <= 4 * np.sqrt(1000 * p * (1 - p)) + 1).all()


def test_a_hundred_thousand_draws_pass_chi_square():
    p = torch.softmax(LOGITS[0].double() / 3, 0).numpy()
    counts = drawn(LOGITS, 100_000, temperature=3)
    assert ((counts - 100_000 * p) ** 2 / (100_000 * p)).sum() < 26.1  # 99.9 % of chi-square with 8 degrees of freedom


def test_top_k_keeps_all_for_zero_or_too_many_and_keeps_ties():
    assert torch.equal(top_k(LOGITS, 0), LOGITS)
    assert torch.equal(top_k(LOGITS, 9), LOGITS)
    assert torch.equal(top_k(LOGITS, 1000), LOGITS)
    assert top_k(torch.tensor([[1.0, 3.0, 1.0, 0.0]]), 2).isfinite().tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.5, [0]), (0.4, [0]), (1e-12, [0]), (0.51, [0, 1]), (0.75, [0, 1]), (0.76, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_is_the_smallest_set_that_reaches_p(p: float, kept: list[int]):
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert top_p(logits, p).isfinite()[0].nonzero().flatten().tolist() == kept


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True), st.floats(0.01, 0.99))
def test_top_p_equals_a_walk_from_the_likeliest_down(fifths: list[int], p: float):
    scores = torch.tensor([fifths]) / 5
    probability = scores.softmax(-1)[0].tolist()
    kept, mass = set(), 0.0
    for token in sorted(range(len(fifths)), key=lambda token: -probability[token]):
        if kept and mass >= p - 1e-6:
            break
        kept.add(token)
        mass += probability[token]
    found = set(top_p(scores, p - 2e-6).isfinite()[0].nonzero().flatten().tolist())
    assert found <= kept  # the walk stops late, the filter early, by a rounding error each
    assert sum(probability[token] for token in found) >= p - 4e-6


def test_penalty_never_rewards():
    seen = torch.tensor([[True, True, False, True]])
    assert penalise(torch.tensor([[2.0, -2.0, 2.0, 0.0]]), seen, 1.25)[0].tolist() == pytest.approx(
        [1.6, -2.5, 2.0, 0.0]
    )


def test_penalty_acts_before_the_greedy_choice():
    logits, seen = torch.tensor([[3.0, 2.9]]), torch.tensor([[True, False]])
    assert Sampler(temperature=0, repetition_penalty=1.1).choose(logits, None, seen).item() == 1


def test_draw_by_hand():
    """Cumulative 0.25, 0.25, 0.75, 1: the intervals are [0, 0.25), nothing, [0.25, 0.75), [0.75, 1)."""
    p = torch.tensor([0.25, 0.0, 0.5, 0.25]).expand(6, -1)
    luck = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999])
    assert draw(p, luck).tolist() == [0, 0, 2, 2, 3, 3]
    assert draw(8 * p, luck).tolist() == [0, 0, 2, 2, 3, 3]  # any positive sum


@given(
    st.lists(st.sampled_from([0.0, 1e-30, 0.1, 0.3, 1.0]), min_size=1, max_size=9).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_draw_equals_a_loop_and_never_takes_the_impossible(weights: list[float], uniform: float):
    p = torch.tensor([weights], dtype=torch.float64)
    chosen = draw(p, torch.tensor([uniform], dtype=torch.float64)).item()
    assert weights[chosen] > 0
    total = float(np.cumsum(weights)[-1])
    running = np.cumsum(weights)
    expected = next((token for token, mass in enumerate(running) if mass > uniform * total), None)
    assert chosen == (expected if expected is not None else max(t for t, w in enumerate(weights) if w))


def test_draw_survives_a_uniform_that_rounds_to_one():
    assert draw(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([1.0])).item() == 1


def test_each_row_has_its_own_luck():
    together = uniforms(7, [[1, 2], [3], [1, 2]], [0, 0, 1], 50)
    assert torch.equal(together[1], uniforms(7, [[3]], [0], 50)[0])
    assert torch.equal(together[1, :20], uniforms(7, [[3]], [0], 20)[0])  # more tokens do not change the first ones
    assert len({tuple(row) for row in together.tolist()}) == 3
    assert not torch.equal(together[0], uniforms(8, [[1, 2]], [0], 50)[0])
    assert not torch.equal(uniforms(1, [[1]], [0], 9), uniforms(1 + 2**32, [[1]], [0], 9))  # all bits of a seed count
    assert (together >= 0).all() and (together < 1).all()


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first = drawn(LOGITS, 20, temperature=1).tolist()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert drawn(LOGITS, 20, temperature=1).tolist() == first


def test_copies_are_counted_up():
    assert number_copies([[1], [2], [1], [1], [2]]) == [0, 0, 1, 2, 1]


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-9, 0.8, 1e30])
def test_any_temperature_gives_a_token_and_a_cold_one_the_likeliest(temperature: float):
    chosen = Sampler(temperature=temperature).choose(LOGITS * 1000, torch.tensor([0.999]))
    assert chosen.item() == 3 if temperature < 1e6 else 0 <= chosen.item() < 9
    assert temper(LOGITS, 1e-30).softmax(-1)[0, 3] == 1


@pytest.mark.parametrize("bad", [float("nan"), INF])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_is_marked(bad: float, temperature: float):
    logits = LOGITS.repeat(3, 1)
    logits[1, 4] = bad
    logits[2] = -INF
    chosen = Sampler(temperature=temperature).choose(logits, torch.tensor([0.5, 0.5, 0.5])).tolist()
    assert chosen[0] >= 0 and chosen[1:] == [-1, -1]


def test_bf16_logits_are_handled_in_fp32():
    assert Sampler(temperature=1).scores(LOGITS.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"repetition_penalty": 0.0}, {"seed": -1}],
)
def test_values_that_mean_nothing_are_refused(wrong: dict[str, float]):
    [(name, value)] = wrong.items()
    with pytest.raises(SettingsError, match=f"{name} cannot be {value}"):
        Sampler(**wrong)
