"""From scores to a choice: what each setting of the sampler does, on nine words and on a small model."""

import itertools
import math

import pytest
import torch

from groundup.generate import Sampler, generate
from groundup.generate.sample import draw, top_k, top_p
from groundup.model import build
from groundup.model.config import ModelConfig

LOGITS = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
FORWARD, PIZZA, TOWARD = 3, 6, 7


@pytest.fixture(scope="module")
def lesson(climb):
    return climb("temperature")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    config = ModelConfig(family="gpt2", vocabulary=6, context=8, width=16, layers=1, heads=2, tie=False, init="torch")
    return build(config).eval()


def chances(**settings: float) -> torch.Tensor:
    return Sampler(**settings).scores(LOGITS).softmax(dim=-1)[0]


def written(model: torch.nn.Module, count: int = 6, end: int | None = None, **settings: float) -> list[int]:
    return [step.ids[0] for step in generate(model, [[1, 2]], max_tokens=count, sampler=Sampler(**settings), end=end)]


def test_draws_follow_the_chances():
    """G03: of 1,000 draws as many fall on each word as its chance says, within four deviations."""
    p = LOGITS.softmax(dim=-1)
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    counts = torch.bincount(draw(p.expand(1000, -1), uniform), minlength=9)
    room = 4 * (1000 * p[0] * (1 - p[0])).sqrt() + 1
    assert (counts - 1000 * p[0]).abs().le(room).all() and counts.sum() == 1000
    assert counts[FORWARD] > counts[TOWARD] > counts[0] > 20


def test_temperature_sharpens_and_evens_out():
    """G04: chances are those of logits / T, cold is greedy, hot is even; the order of the words stays."""
    for temperature in (0.1, 0.5, 1, 5):
        by_hand = [math.exp((score - 6.75) / temperature) for score in LOGITS[0].tolist()]
        expected = torch.tensor([one / sum(by_hand) for one in by_hand])
        torch.testing.assert_close(chances(temperature=temperature), expected)
        assert chances(temperature=temperature).argsort().equal(LOGITS[0].argsort())
    torch.testing.assert_close(chances(temperature=1e-4), torch.eye(9)[FORWARD])
    torch.testing.assert_close(chances(temperature=1e4), torch.full((9,), 1 / 9), atol=1e-3, rtol=0)


def test_temperature_draws_its_bars(lesson):
    """G04: the picture has a bar for each word and temperature, as high as the chance."""
    bars = [[bar.get_height() for bar in group] for group in lesson["axes"].containers]
    expected = [(LOGITS[0] / temperature).softmax(dim=0) for temperature in (1, 0.1, 5)]
    torch.testing.assert_close(torch.tensor(bars, dtype=torch.float32), torch.stack(expected))


def test_pizza_by_counting_and_by_the_chance():
    """G05: at T = 5 the chance is 4.3 %, and counting 20,000 draws comes near it; at 1 and 0.1 it is next to none."""
    assert chances(temperature=5)[PIZZA] == pytest.approx(0.0430, abs=5e-4)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = draw(chances(temperature=5).expand(20_000, -1), uniform)
    assert (drawn == PIZZA).float().mean().item() == pytest.approx(0.043, abs=0.006)
    assert chances(temperature=1)[PIZZA] < 2e-4 and chances(temperature=0.1)[PIZZA] < 1e-30


def test_top_k_masks_and_shares_out(lesson):
    """G06: the three highest stay as they are, all others are -inf; their chances are the old ones over their sum."""
    for masked in (top_k(LOGITS, 3), lesson["likeliest"](LOGITS, 3)):
        assert masked.isfinite().nonzero()[:, 1].tolist() == [0, FORWARD, TOWARD]
        assert masked[masked.isfinite()].tolist() == LOGITS[0, [0, FORWARD, TOWARD]].tolist()
    before = LOGITS.softmax(dim=-1)[0]
    expected = torch.zeros(9).index_copy(0, torch.tensor([0, 3, 7]), before[[0, 3, 7]] / before[[0, 3, 7]].sum())
    torch.testing.assert_close(chances(temperature=1, top_k=3), expected)


def test_generate_takes_top_k_temperature_and_a_stop_token(lesson, model):
    """G07: by hand and in the library only the k likeliest are ever drawn, and the end token is the last."""
    greedy = written(model, temperature=0)
    assert lesson["write"](model, [1, 2], new=6) == [1, 2, *greedy]
    stop = greedy[2]
    until = greedy[: greedy.index(stop) + 1]
    assert written(model, temperature=0, end=stop) == until
    assert lesson["write"](model, [1, 2], new=6, end=stop) == [1, 2, *until]
    for seed in range(20):
        torch.manual_seed(seed)
        for text in (
            lesson["write"](model, [1, 2], new=4, temperature=3.0, k=2),
            [1, 2, *written(model, 4, temperature=3.0, top_k=2, seed=seed)],
        ):
            for place in range(2, len(text)):
                best = model(torch.tensor([text[:place]]))[0, -1].topk(2).indices
                assert text[place] in best.tolist()


def test_small_settings_repeat_themselves_and_large_ones_vary(lesson, model):
    """G08: choices grow with temperature and with k; cold texts of 30 seeds are few, hot ones many."""
    choices = lesson["choices"]
    by_temperature = [choices(chances(temperature=temperature)) for temperature in (0.1, 0.5, 1, 2, 5)]
    by_k = [choices(chances(temperature=5, top_k=k)) for k in (1, 2, 3, 5, 9)]
    assert by_temperature == sorted(by_temperature) and by_k == sorted(by_k)
    assert by_k[0] == pytest.approx(1) and by_k[-1] > 7 and by_temperature[0] < 1.1
    cold = {tuple(written(model, temperature=0.05, top_k=2, seed=seed)) for seed in range(30)}
    hot = {tuple(written(model, temperature=5, seed=seed)) for seed in range(30)}
    assert len(cold) < 10 and len(hot) > 25


def test_settings_that_leave_nothing_to_chance(lesson, model):
    """G09: temperature 0, and top-k 1 at any temperature and seed, give the greedy text."""
    ids = [1, 2]
    for _ in range(6):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert [1, 2, *written(model, temperature=0)] == ids
    for seed in range(10):
        assert [1, 2, *written(model, temperature=5, top_k=1, seed=seed)] == ids
        torch.manual_seed(seed)
        assert lesson["write"](model, [1, 2], new=6, temperature=5.0, k=1) == ids


@pytest.mark.parametrize("p", [0.05, 0.3, 0.57, 0.58, 0.92, 0.93, 0.99, 0.9999])
def test_the_nucleus_is_the_smallest_set_that_reaches_p(lesson, p):
    """G10: no smaller set of words has a mass of p, this one has; inside, chances are renormalised."""
    before = LOGITS.softmax(dim=-1)[0]
    for masked in (top_p(LOGITS, p)[0], lesson["nucleus"](LOGITS[0], p)):
        inside = masked.isfinite()
        size = int(inside.sum())
        assert before[inside].sum() >= p
        assert all(sum(some) < p for some in itertools.combinations(before.tolist(), size - 1))
        expected = torch.where(inside, before, 0) / before[inside].sum()
        torch.testing.assert_close(masked.softmax(dim=0), expected)


def test_beam_search_finds_what_greedy_misses(lesson, model):
    """G11: one beam is greedy; with beams for all texts the best of all 216 texts of three words is found."""
    beams = lesson["beam_search"]
    assert beams(model, [1, 2], new=6, beams=1)[0] == [1, 2, *written(model, temperature=0)]

    def log_chance(text: tuple[int, ...]) -> float:
        rows = model(torch.tensor([[1, 2, *text]]))[0].log_softmax(dim=-1)
        return sum(rows[1 + place, id].item() for place, id in enumerate(text))

    best = max(itertools.product(range(6), repeat=3), key=log_chance)
    text, total = beams(model, [1, 2], new=3, beams=36)
    assert text == [1, 2, *best] and total == pytest.approx(log_chance(best), abs=1e-5)
