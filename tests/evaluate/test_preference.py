"""Marks of a model on pairs: means over pairs however they are batched, and log-probabilities that others confirm."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from groundup.batches import Batch, sequential
from groundup.batches.pairs import Pairs
from groundup.errors import DataError
from groundup.evaluate import preference as judged
from groundup.evaluate.preference import PreferenceMarks, fallen, mark_preference, pair_log_probabilities
from groundup.losses.preference import preference
from groundup.machine import choose
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.tokens.pairs import PairRow
from groundup.tokens.rows import Row

KEYS = {"loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "chosen_logp", "rejected_logp", "drift"}


def network(**changes) -> nn.Module:
    fields = {"family": "llama", "vocabulary": 30, "context": 16, "width": 16, "layers": 2, "heads": 4}
    return build(ModelConfig(init="torch", **fields | changes), seed=3)


def row(prompt, answer) -> Row:
    return Row([*prompt, *answer], [*(False for _ in prompt), *(True for _ in answer)])


def pairs(count: int = 7) -> list[PairRow]:
    """Prompts and answers of many lengths; the longest pairs come first, so that an order by length shows."""
    draw = np.random.default_rng(5)
    made = []
    for number in range(count):
        prompt = draw.integers(1, 30, size=6 - number % 5).tolist()
        chosen, rejected = (draw.integers(1, 30, size=draw.integers(1, 7)).tolist() for _ in range(2))
        made.append(PairRow(row(prompt, chosen), row(prompt, rejected)))
    return made


@torch.no_grad()
def by_hand(model: nn.Module, one: Row) -> float:
    """log p of the ids that are learnt, one row alone, from all logits."""
    log_p = model.eval()(torch.tensor([one.ids[:-1]])).log_softmax(dim=-1)[0]
    return sum(log_p[place, id].item() for place, id in enumerate(one.ids[1:]) if one.learn[place + 1])


def numbers(**changes) -> dict[str, torch.Tensor]:
    known = dict.fromkeys(KEYS - {"loss", "drift"}, 0.0) | changes
    return {name: torch.tensor(float(value)) for name, value in known.items()}


def test_marks_are_means_over_pairs_not_over_batches():
    """Two batches of 3 pairs and of 1: (6 + 2) / 4 = 2, and (3 + 0) / 4 = 0.75."""
    answers = iter([(6.0, numbers(accuracy=3, margin=9, drift=-8)), (2.0, numbers(accuracy=0, margin=-1, drift=4))])

    def loss(model, batch):
        total, found = next(answers)
        return torch.tensor(total), found

    batches = [Batch(torch.zeros(6, 2), 3.0), Batch(torch.zeros(2, 2), 1.0)]
    marks = mark_preference(nn.Linear(1, 1), batches, loss=loss)
    assert marks == PreferenceMarks(2.0, 0.75, 2.0, 0.0, 0.0, 0.0, 0.0, -1.0, 4)


def test_the_keys_of_the_journal_are_settled():
    marks = PreferenceMarks(*[0.5] * 7, -1.0, 4)
    assert marks.record().keys() == KEYS
    assert "drift -1.0 nats" in marks.words() and marks.words().startswith("0.500  right 50.0 %")


def test_without_a_reference_there_is_no_drift():
    def loss(model, batch):
        return torch.tensor(1.0), numbers(chosen_loss=3)

    marks = mark_preference(nn.Linear(1, 1), [Batch(torch.zeros(2, 2), 1.0)], loss=loss)
    assert marks.drift is None and marks.record()["drift"] is None and "drift" not in marks.words()


def test_no_batches_are_no_marks():
    with pytest.raises(DataError, match="no pairs to judge"):
        mark_preference(nn.Linear(1, 1), [], loss=preference("simpo", beta=2.0))


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_log_probabilities_by_hand_in_the_order_of_the_pairs(rows):
    model, made = network(), pairs()
    found = pair_log_probabilities(model, Pairs(made, pad=0), rows)
    wanted = np.array([[by_hand(model, pair.chosen), by_hand(model, pair.rejected)] for pair in made])
    assert found.dtype == np.float32 and found.shape == (7, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert len(set(wanted.ravel().round(3))) == 14  # all different: an order that is mixed up would show


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_model_that_is_its_own_reference_is_at_ln_2(rows, dtype):
    """Whoever shares a batch with whom, and in the number format of training."""
    model, machine = network(), choose(device="cpu", dtype=dtype)
    plain = Pairs(pairs(), pad=0)
    source = Pairs(pairs(), pad=0, reference=pair_log_probabilities(model, plain, 3, machine=machine))
    batches = sequential(source, rows, lengths=source.lengths)
    marks = mark_preference(model, batches, loss=preference("sigmoid", beta=0.1), machine=machine)
    assert marks.loss == pytest.approx(math.log(2), abs=1e-4) and marks.pairs == 7
    close = 1e-5 if dtype == "fp32" else 1e-2
    assert (marks.margin, marks.drift, marks.chosen_reward) == pytest.approx((0, 0, 0), abs=close)


def test_marks_by_hand():
    """Against the plain formulas, pair by pair, with a reference that is another model."""
    model, other, made = network(), network(width=8, heads=2), pairs()
    source = Pairs(made, pad=0, reference=pair_log_probabilities(other, Pairs(made, pad=0), 4))
    marks = mark_preference(model, sequential(source, 3), loss=preference("sigmoid", beta=0.1))
    policy = np.array([[by_hand(model, pair.chosen), by_hand(model, pair.rejected)] for pair in made])
    reference = np.array([[by_hand(other, pair.chosen), by_hand(other, pair.rejected)] for pair in made])
    rewards = 0.1 * (policy - reference)
    ahead = rewards[:, 0] - rewards[:, 1]
    assert marks.loss == pytest.approx(np.log1p(np.exp(-ahead)).mean(), abs=1e-5)
    assert marks.accuracy == pytest.approx((ahead > 0).mean()) and 0 < marks.accuracy < 1
    assert marks.margin == pytest.approx(ahead.mean(), abs=1e-5)
    assert (marks.chosen_reward, marks.rejected_reward) == pytest.approx(tuple(rewards.mean(axis=0)), abs=1e-5)
    assert (marks.chosen_logp, marks.rejected_logp) == pytest.approx(tuple(policy.mean(axis=0)), abs=1e-4)
    assert marks.drift == pytest.approx((policy - reference).mean(), abs=1e-4)


def test_nothing_is_dropped_nothing_is_drawn_and_the_model_is_put_back():
    model = network(dropout_shortcut=0.5, dropout_embedding=0.5).train()
    source = Pairs(pairs(), pad=0)
    before = torch.get_rng_state()
    one, other = (pair_log_probabilities(model, source, 2) for _ in range(2))
    marks = [mark_preference(model, sequential(source, 2), loss=preference("simpo", beta=2.0)) for _ in range(2)]
    assert np.array_equal(one, other) and marks[0] == marks[1]
    assert model.training and torch.equal(before, torch.get_rng_state())
    plain = network().eval()
    plain.load_state_dict(model.state_dict())
    np.testing.assert_allclose(one, pair_log_probabilities(plain, source, 2), atol=1e-6)


def test_products_run_in_the_number_format_of_training():
    """bf16 has three digits: log-probabilities differ from those in fp32, and not by much."""
    model, source = network(width=64), Pairs(pairs(), pad=0)
    exact, rough = (pair_log_probabilities(model, source, 4, machine=choose(device="cpu", dtype=dtype))
                    for dtype in ("fp32", "bf16"))  # fmt: skip
    assert 0 < np.abs(exact - rough).max() < 1.0


@pytest.mark.parametrize(
    ("looks", "nats"),
    [
        ([-30.0, -31.0], 0),
        ([-30.0, -75.0, -75.4], 45),
        ([-30.0, -75.0, -40.0], 0),
        ([-30.0], 0),
        ([None, -30.0, -60.0], 30),
    ],
)
def test_a_fall_is_told_where_it_is_one(looks, nats):
    said = fallen([{"chosen_logp": value} for value in looks])
    assert (f"became {nats} nats less likely" in said) == bool(nats) and bool(said) == bool(nats)
    assert judged.FAR == 20.0
