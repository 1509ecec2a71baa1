"""Losses of preference tuning by hand: from ln 2 on, gradients, numbers, what needs a reference, a known optimum."""

import math

import pytest
import torch
from torch import nn

from groundup import losses
from groundup.batches import Batch
from groundup.errors import DataError, SettingsError
from groundup.losses import preference as make
from groundup.losses.preference import KINDS, answers, hinge, ipo, odds_ratio, orpo, sigmoid, simpo
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT

LN2 = math.log(2)


def softplus(x):
    return math.log1p(math.exp(x))


def test_dpo_starts_at_ln_2():
    """A policy that is the reference has log-ratios of 0, whatever beta and smoothing are."""
    zero = torch.zeros(3)
    for beta in (0.01, 0.1, 5.0):
        for smoothing in (0.0, 0.3):
            torch.testing.assert_close(sigmoid(zero, zero, beta=beta, smoothing=smoothing), torch.full((3,), LN2))


def test_gradient_of_dpo_on_two_tokens():
    """The answers are token 0 (chosen) and token 1, both from the logits (z0, z1), so log p0 - log p1 = z0 - z1.

    The loss is -log sigmoid(beta (z0 - z1 - reference)); its slope in z0 -beta sigmoid(-beta (z0 - z1 - reference)).
    beta 1, z = (ln 3, 0), reference 0: sigmoid(-ln 3) = 1/4. beta 1/2, z = 0, reference ln 9: sigmoid(ln 3) = 3/4,
    times beta 3/8: what the reference knows better is pulled harder. At the start beta / 2.
    """
    for logits, reference, beta, slope in [
        ([math.log(3), 0.0], [LN2, LN2], 1.0, 1 / 4),
        ([0.0, 0.0], [math.log(9), 0.0], 0.5, 3 / 8),
        ([7.0, 7.0], [-1.0, -1.0], 0.1, 0.1 / 2),
    ]:
        model = Shared(logits)
        ids = torch.tensor([[0], [1]])
        batch = Batch(ids, 1.0, {"targets": ids, "weight": torch.ones(2, 1), "ref_logp": torch.tensor(reference)})
        make("sigmoid", beta=beta)(model, batch)[0].backward()
        torch.testing.assert_close(model.logits.grad, torch.tensor([-slope, slope]))


class Shared(nn.Module):
    """The same logits (V,) at every place."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def test_label_smoothing_by_hand():
    """Ahead by ln 3 at beta 1: sigmoid 3/4, so -(1 - e) ln 3/4 - e ln 1/4, e = 0.1; it is lowest at sigmoid = 1 - e."""
    chosen, zero = torch.tensor([math.log(3)]), torch.zeros(1)
    found = sigmoid(chosen, zero, beta=1.0, smoothing=0.1).item()
    assert found == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))
    best = torch.tensor([math.log(9)], requires_grad=True)  # sigmoid(ln 9) = 0.9
    sigmoid(best, zero, beta=1.0, smoothing=0.1).backward()
    assert best.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_ipo_by_hand():
    """beta 0.1 asks for a difference of 5: from 0 it is 25, from 2 it is 9, and from 7 it is drawn back, 4."""
    chosen = torch.tensor([0.0, 2.0, 7.0], requires_grad=True)
    loss = ipo(chosen, torch.zeros(3), beta=0.1)
    assert loss.tolist() == [25.0, 9.0, 4.0]
    loss.sum().backward()
    assert chosen.grad.tolist() == [-10.0, -6.0, 4.0]


def test_hinge_by_hand():
    """beta 1/2: 1 - 1/2 (difference), cut at 0: from 2 on nothing is learnt."""
    chosen = torch.tensor([-2.0, 0.0, 1.0, 3.0], requires_grad=True)
    loss = hinge(chosen, torch.zeros(4), beta=0.5)
    assert loss.tolist() == [2.0, 1.0, 0.5, 0.0]
    loss.sum().backward()
    assert chosen.grad.tolist() == [-0.5, -0.5, -0.5, 0.0]


def test_simpo_by_hand():
    """beta 2, gamma 1: ln 2 where the difference is 1/2; ln(1 + e) where it is 0; slope -2 sigmoid(gamma - 2 d)."""
    chosen = torch.tensor([-0.5, -1.0], requires_grad=True)
    loss = simpo(chosen, torch.tensor([-1.0, -1.0]), beta=2.0, gamma=1.0)
    torch.testing.assert_close(loss, torch.tensor([LN2, math.log(1 + math.e)]))
    loss.sum().backward()
    torch.testing.assert_close(chosen.grad, torch.tensor([-1.0, -2 * math.e / (1 + math.e)]))


def test_orpo_by_hand():
    """Probabilities per token 3/4 and 1/4: odds 3 and 1/3, their ratio 9, -log sigmoid(ln 9) = ln(10/9).

    Turned round: ln 10. Equal: ln 2. beta 0.1, and -ln of the chosen one beside it.
    """
    chosen, rejected = torch.tensor([0.75, 0.25, 0.5]).log(), torch.tensor([0.25, 0.75, 0.5]).log()
    odds = [math.log(10 / 9), math.log(10), LN2]
    torch.testing.assert_close(odds_ratio(chosen, rejected), torch.tensor(odds))
    truth = [-math.log(3 / 4) + 0.1 * odds[0], math.log(4) + 0.1 * odds[1], LN2 + 0.1 * odds[2]]
    torch.testing.assert_close(orpo(chosen, rejected, beta=0.1), torch.tensor(truth))


def test_odds_of_a_certain_answer_stay_finite():
    """In fp32 a model that is sure has a log-probability of 0, and odds of 1 / 0."""
    chosen = torch.tensor([0.0, 0.0, -1e-9, -90.0], requires_grad=True)
    rejected = torch.tensor([0.0, -90.0, -1e-9, 0.0], requires_grad=True)
    loss = orpo(chosen, rejected, beta=0.1)
    loss.sum().backward()
    for each in (loss, chosen.grad, rejected.grad):
        assert each.isfinite().all()


# Rows of a batch of two pairs: the probability of each target, and which of them belong to the answer.
# chosen:   1/2 1/2 of two tokens, 1/4 together; 1/5 of one
# rejected: 1/2 of one token; 1/2 1/2 4/5 of three, 1/5 together
CHANCES = [[0.9, 0.5, 0.5], [0.9, 0.9, 0.2], [0.9, 0.5, 0.9], [0.5, 0.5, 0.8]]
ANSWERS = [[0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 1, 1]]
REFERENCE = [1 / 8, 2 / 5, 1 / 2, 1 / 10]  # log-ratios ln 2, -ln 2; 0, ln 2: differences ln 2, -2 ln 2


class Chances(nn.Module):
    """Gives id 0 these chances (B, T), and id 1 the rest."""

    def __init__(self, chances):
        super().__init__()
        p = torch.tensor(chances)
        self.logits = nn.Parameter(torch.stack([p, 1 - p], dim=-1).log())

    def forward(self, tokens):
        return self.logits


def batch_of(rows=(0, 1, 2, 3), reference=True):
    weight = torch.tensor([ANSWERS[row] for row in rows], dtype=torch.float32)
    fields = {"targets": torch.zeros_like(weight).long(), "weight": weight}
    if reference:
        fields["ref_logp"] = torch.tensor([REFERENCE[row] for row in rows]).log()
    return Batch(fields["targets"], len(rows) / 2, fields)


DIFFERENCE = 2 / 3 * math.log(5)  # simpo: 0 and (ln 1/5) - (ln 1/5) / 3 = -2/3 ln 5
THIRD = (1 / 5) ** (1 / 3)  # orpo: chances per token 1/2 1/5, and 1/2 1/5^(1/3)
RATIO = math.log(1 / 4) - math.log(THIRD / (1 - THIRD))


@pytest.mark.parametrize(
    ("settings", "truth"),
    [
        ({"kind": "sigmoid", "beta": 1.0}, math.log(1.5) + math.log(5)),
        ({"kind": "sigmoid", "beta": 2.0}, math.log(1 + 1 / 4) + math.log(1 + 16)),
        ({"kind": "sigmoid", "beta": 1.0, "smoothing": 0.1},
         0.9 * math.log(1.5) + 0.1 * math.log(3) + 0.9 * math.log(5) + 0.1 * math.log(5 / 4)),
        ({"kind": "sigmoid", "beta": 1.0, "average": True}, softplus(-LN2 / 2) + softplus(LN2 + LN2 / 3)),
        ({"kind": "ipo", "beta": 0.5}, (LN2 - 1) ** 2 + (2 * LN2 + 1) ** 2),
        ({"kind": "hinge", "beta": 1.0}, (1 - LN2) + (1 + 2 * LN2)),
        ({"kind": "hinge", "beta": 2.0}, 1 + 4 * LN2),
        ({"kind": "simpo", "beta": 2.0, "gamma": 1.0}, softplus(1.0) + softplus(1 + 2 * DIFFERENCE)),
        ({"kind": "orpo", "beta": 0.1}, LN2 + math.log(5) + 0.1 * (LN2 + softplus(-RATIO))),
    ],
)  # fmt: skip
def test_each_loss_on_a_batch_by_hand(settings, truth):
    """Answers of one to three tokens; prompts and filler count nothing."""
    total, _ = make(**settings)(Chances(CHANCES), batch_of())
    assert total.item() == pytest.approx(truth, rel=1e-5)


def test_numbers_by_hand():
    """beta 2. Chosen log-ratios ln 2 and -ln 2, rejected 0 and ln 2: the first pair is right, the second is not."""
    _, numbers = make("sigmoid", beta=2.0)(Chances(CHANCES), batch_of())
    found = {name: value.item() for name, value in numbers.items()}
    assert found == pytest.approx(
        {
            "chosen_reward": 0.0,
            "rejected_reward": 2 * LN2,
            "margin": -2 * LN2,
            "accuracy": 1.0,
            "chosen_logp": math.log(1 / 20),
            "rejected_logp": math.log(1 / 10),
            "drift": LN2 / 2,
        },
        abs=1e-5,
    )
    assert not any(value.requires_grad for value in numbers.values())


def test_numbers_without_a_reference():
    """beta 2 times log-probabilities per token; orpo says what the chosen answer costs, and nobody speaks of drift."""
    for kind in ("simpo", "orpo"):
        _, numbers = make(kind, beta=2.0)(Chances(CHANCES), batch_of(reference=False))
        chosen, rejected = math.log(1 / 2) + math.log(1 / 5), math.log(1 / 2) + math.log(1 / 5) / 3
        assert numbers["chosen_reward"].item() == pytest.approx(2 * chosen)
        assert numbers["rejected_reward"].item() == pytest.approx(2 * rejected)
        assert numbers["accuracy"].item() == 0.5  # equal, and worse
        assert numbers["chosen_logp"].item() == pytest.approx(math.log(1 / 20))
        assert "drift" not in numbers
        assert ("chosen_loss" in numbers) == (kind == "orpo")
    assert numbers["chosen_loss"].item() == pytest.approx(-chosen)


def test_log_probabilities_of_answers_and_their_tokens():
    logp, tokens = answers(Chances(CHANCES), batch_of())
    torch.testing.assert_close(logp, torch.tensor([1 / 4, 1 / 5, 1 / 2, 1 / 5]).log())
    assert tokens.tolist() == [2.0, 1.0, 1.0, 3.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_cut_in_two_is_the_same_step(kind):
    """Loss, numbers and gradients of the pairs alone add up to those of both together."""
    loss, whole = make(kind, beta=0.3), Chances(CHANCES)
    total, numbers = loss(whole, batch_of())
    total.backward()
    for pair in ((0, 2), (1, 3)):
        part = Chances([CHANCES[row] for row in pair])
        one, some = loss(part, batch_of(pair))
        one.backward()
        total = total - one
        torch.testing.assert_close(part.logits.grad, whole.logits.grad[list(pair)])
        numbers = {name: value - some[name] for name, value in numbers.items()}
    for value in (total, *numbers.values()):
        assert value.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_a_network_starts_at_ln_2_and_learns(family):
    """Through blocks and head: ln 2 where it is its own reference, then below, and the chosen side wins."""
    config = ModelConfig(family=family, layers=1, heads=2, width=16, context=8, vocabulary=13)
    model = GPT(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    ids, targets = torch.randint(13, (2, 6, 8), generator=generator)
    weight = (torch.arange(8) >= torch.tensor([2, 3, 4, 5, 6, 7])[:, None]).float()
    batch = Batch(ids, 3.0, {"targets": targets, "weight": weight})
    with torch.no_grad():
        batch.fields["ref_logp"] = answers(model, batch)[0]
    loss, optimizer = losses.preference("sigmoid", beta=0.5), torch.optim.Adam(model.parameters(), lr=0.01)
    first, numbers = loss(model, batch)
    assert first.item() / 3 == pytest.approx(LN2, abs=1e-5) and numbers["drift"].item() == pytest.approx(0, abs=1e-4)
    for _ in range(20):
        optimizer.zero_grad()
        total, numbers = loss(model, batch)
        total.backward()
        optimizer.step()
    assert total.item() < first.item() / 2 and numbers["accuracy"].item() == 3.0


def test_dpo_finds_the_optimum_of_a_bandit():
    """Four arms; pairs labelled as Bradley and Terry would with these rewards, all of them, by how often they come.

    The policy that is best for the rewards less beta times the distance to the reference is known (Rafailov et al.
    2023, equation 4): reference times e^(reward / beta), made to add up to 1.
    """
    rewards, reference, beta = torch.tensor([1.0, 0.5, 0.0, -0.5]), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.5
    best = (reference.log() + rewards / beta).softmax(0)
    often = torch.sigmoid(rewards[:, None] - rewards)  # (a, b): how often a is preferred to b
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(400):
        ratio = logits.log_softmax(0) - reference.log()
        loss = (often * sigmoid(ratio[:, None], ratio, beta=beta)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(logits.softmax(0).detach(), best, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "hinge"])
def test_what_compares_with_a_reference_asks_for_one(kind):
    with pytest.raises(DataError, match="ref_logp"):
        make(kind, beta=0.1)(Chances(CHANCES), batch_of(reference=False))
    batch = batch_of()
    batch.fields["ref_logp"] = batch.fields["ref_logp"][:3]
    with pytest.raises(DataError, match=r"\(3,\) for 4 rows"):
        make(kind, beta=0.1)(Chances(CHANCES), batch)


@pytest.mark.parametrize("kind", ["simpo", "orpo"])
def test_what_compares_with_none_does_not_read_it(kind):
    with_one, without = (make(kind, beta=0.1)(Chances(CHANCES), batch_of(reference=is_there)) for is_there in (1, 0))
    assert with_one[0].item() == without[0].item()


def test_rows_that_are_no_pairs_and_empty_answers_are_refused():
    with pytest.raises(DataError, match="3 rows holds no pairs"):
        make("sigmoid", beta=0.1)(Chances(CHANCES[:3]), batch_of((0, 1, 2)))
    batch = batch_of()
    batch.fields["weight"][2] = 0.0
    with pytest.raises(DataError, match="row 2 .* without a token"):
        make("sigmoid", beta=0.1)(Chances(CHANCES), batch)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "sigmod", "beta": 0.1}, "sigmod"),
        ({"kind": "sigmoid", "beta": 0.0}, "beta is 0.0"),
        ({"kind": "ipo", "beta": math.nan}, "beta is nan"),
        ({"kind": "sigmoid", "beta": 0.1, "smoothing": 0.5}, "smoothing is 0.5"),
        ({"kind": "ipo", "beta": 0.1, "smoothing": 0.1}, "ipo has none"),
        ({"kind": "simpo", "beta": 2.0, "gamma": -1.0}, "gamma is -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(SettingsError) as caught:
        make(**settings)
    assert said in caught.value.what and caught.value.fix


# What trl 0.21.0 (torch 2.13.0, transformers 4.55.4) makes of the logits below: losses, rewards of the chosen and of
# the rejected answers, for three pairs. Its `get_batch_logps` gave the log-probabilities to `DPOTrainer.dpo_loss`,
# `CPOTrainer.cpo_loss` (simpo) and `ORPOTrainer.odds_ratio_loss` (beta times the log of the sigmoid, so below 0).
TRL = [
    ({"kind": "sigmoid", "beta": 0.1}, [1.03804, 1.120919, 0.674806],
     [-0.128201, -0.530818, -0.102035], [0.472654, 0.195605, -0.139059]),
    ({"kind": "sigmoid", "beta": 0.5}, [3.05266, 3.658233, 0.604864],
     [-0.641006, -2.654092, -0.510175], [2.363269, 0.978025, -0.695295]),
    ({"kind": "sigmoid", "beta": 0.5, "smoothing": 0.1}, [2.752232, 3.295022, 0.623377],
     [-0.641006, -2.654092, -0.510175], [2.363269, 0.978025, -0.695295]),
    ({"kind": "ipo", "beta": 0.1}, [121.188164, 150.411453, 21.434668],
     [-0.128201, -0.530818, -0.102035], [0.472654, 0.195605, -0.139059]),
    ({"kind": "ipo", "beta": 0.5}, [49.11977, 68.297569, 0.396596],
     [-0.641006, -2.654092, -0.510175], [2.363269, 0.978025, -0.695295]),
    ({"kind": "hinge", "beta": 0.1}, [1.600855, 1.726424, 0.962976],
     [-0.128201, -0.530818, -0.102035], [0.472654, 0.195605, -0.139059]),
    ({"kind": "hinge", "beta": 0.5}, [4.004275, 4.632117, 0.814879],
     [-0.641006, -2.654092, -0.510175], [2.363269, 0.978025, -0.695295]),
    ({"kind": "simpo", "beta": 2.0, "gamma": 0.5}, [7.044077, 0.957417, 0.001341],
     [-11.086949, -6.652239, -4.149889], [-4.543746, -6.679141, -11.263298]),
    ({"kind": "simpo", "beta": 2.5, "gamma": 1.5}, [9.679068, 1.674006, 0.000616],
     [-13.858686, -8.315299, -5.187362], [-5.679682, -8.348927, -14.079123]),
    ({"kind": "orpo", "beta": 0.1}, [-0.341011, -0.06862, -0.002473],
     [-0.554347, -0.332612, -0.207494], [-0.227187, -0.333957, -0.563165]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "loss", "chosen", "rejected"), TRL)
def test_what_another_program_computes_from_the_same_logits(settings, loss, chosen, rejected):
    """Six rows of eight ids out of seven, answers of two to six tokens, logits that need no random numbers."""
    numbers = torch.arange(6 * 8 * 7, dtype=torch.float64)
    logits, reference = ((3 * torch.sin(numbers + shift)).float().view(6, 8, 7) for shift in (0.0, 0.5))
    ids = (torch.arange(6 * 8) * 5 % 11 % 7).view(6, 8)
    begins, ends = torch.tensor([[2, 3, 1, 2, 3, 1], [6, 8, 3, 8, 5, 7]])[:, :, None]
    weight = ((torch.arange(8) >= begins) & (torch.arange(8) < ends)).float()
    for pair in range(3):
        rows = [pair, pair + 3]
        fields = {"targets": ids[rows, 1:], "weight": weight[rows, 1:]}  # they predict from the id before
        batch = Batch(ids[rows, :-1], 1.0, fields)
        fields["ref_logp"] = answers(Given(reference[rows, :-1]), batch)[0]
        total, found = make(**settings)(Given(logits[rows, :-1]), batch)
        if settings["kind"] == "orpo":  # what the chosen answer costs is added there to the mean over the batch
            total = found["chosen_loss"] - total
        assert total.item() == pytest.approx(loss[pair], rel=1e-5, abs=2e-6)
        assert found["chosen_reward"].item() == pytest.approx(chosen[pair], rel=1e-5, abs=2e-6)
        assert found["rejected_reward"].item() == pytest.approx(rejected[pair], rel=1e-5, abs=2e-6)


class Given(nn.Module):
    """The logits it was made with."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, tokens):
        return self.logits
