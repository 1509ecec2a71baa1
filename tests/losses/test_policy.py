"""The loss of PPO and GRPO by hand: ratio 1, clipping, values, entropy, the reference; bandits with known optima."""

import math

import pytest
import torch
from torch import nn

from groundup import losses
from groundup.batches import Batch
from groundup.errors import DataError, ModelError, SettingsError
from groundup.losses.advantages import gae, grouped
from groundup.losses.divergence import k3
from groundup.losses.policy import clipped_objective, clipped_value_loss
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT

LN2 = math.log(2)
USUAL = {"clip_ratio": 0.2, "value_clip": 0.2, "value_weight": 0.5, "entropy_weight": 0.0, "kl": 0.0}


def policy(**changed):
    return losses.policy(**USUAL | changed)


class Arms(nn.Module):
    """One choice among V, the same at every place, and a value of it: a bandit with a critic."""

    def __init__(self, logits, value=0.0):
        super().__init__()
        self.logits, self.value = nn.Parameter(torch.tensor(logits)), nn.Parameter(torch.tensor(value))

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)

    def values(self, states):
        return self.value.expand(states.shape[:2])


def batch_of(targets, **fields):
    """One row for each target; fields as numbers, one each."""
    ids = torch.tensor(targets)[:, None]
    columns = {name: torch.tensor(values, dtype=torch.float32)[:, None] for name, values in fields.items()}
    weight = columns.pop("weight", torch.ones(ids.shape))
    return Batch(ids, float(weight.sum()), {"targets": ids, "weight": weight, **columns})


def test_four_worked_places():
    """The notes, section 8.5, with epsilon 0.2: ratio 1.5 and 0.5, advantage 1 and -1."""
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    torch.testing.assert_close(clipped_objective(ratio, advantage, 0.2), torch.tensor([1.2, -1.5, 0.5, -0.8]))


def test_clipping_takes_the_gradient_from_two_of_the_four():
    """Two even ids, the first was chosen: log p = -ln 2, d log p / dz = (1/2, -1/2), so the loss -r A has the slope
    -r A / 2 in z0. old_logp makes the ratio 1.5 and 0.5; what gained enough, and what lost enough, stays where it is.
    """
    for ratio, advantage, slope in [(1.5, 1.0, 0.0), (1.5, -1.0, 0.75), (0.5, 1.0, -0.25), (0.5, -1.0, 0.0),
                                    (1.1, 2.0, -1.1), (0.9, -2.0, 0.9), (1.5, 0.0, 0.0)]:  # fmt: skip
        model = Arms([0.0, 0.0])
        total, numbers = policy()(model, batch_of([0], old_logp=[-LN2 - math.log(ratio)], advantage=[advantage]))
        total.backward()
        torch.testing.assert_close(model.logits.grad, torch.tensor([slope, -slope]))
        assert numbers["clip_fraction"].item() == float(slope == 0.0 and advantage != 0.0)
        moved = ratio - 1 - math.log(ratio)  # k3 of old to new
        assert numbers["ratio_kl"].item() == pytest.approx(moved, rel=1e-4)
        assert total.item() == pytest.approx(-min(ratio * advantage, max(min(ratio, 1.2), 0.8) * advantage))


def test_ratio_one_gives_the_plain_policy_gradient():
    """On answers that the model itself just gave, the gradient is that of -A log p (Williams 1992), in every weight."""
    model = GPT(ModelConfig(family="qwen3", layers=1, heads=2, width=8, context=6, vocabulary=11), seed=3)
    generator = torch.Generator().manual_seed(4)
    ids, targets = torch.randint(11, (2, 3, 6), generator=generator)
    weight = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]]).float()
    advantage = torch.randn(3, 6, generator=generator)
    logp = model(ids).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    plain = torch.autograd.grad(-(advantage * logp * weight).sum(), list(model.parameters()))
    fields = {"targets": targets, "weight": weight, "old_logp": logp.detach(), "advantage": advantage}
    total, numbers = policy()(model, Batch(ids, 9.0, fields))
    assert total.item() == pytest.approx(-(advantage * weight).sum().item(), rel=1e-5)
    for one, two in zip(torch.autograd.grad(total, list(model.parameters())), plain, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert numbers["clip_fraction"].item() == 0.0
    assert numbers["ratio_kl"].item() == pytest.approx(0.0, abs=1e-6)


def test_clipped_values_by_hand():
    """Return 1, old value 0, clip 0.2. At 0.1: 0.9^2 / 2. At 0.5, which has moved enough: 0.8^2 / 2, and no slope.
    At -0.5, the wrong way: 1.5^2 / 2, and all of its slope."""
    values = torch.tensor([0.1, 0.5, -0.5], requires_grad=True)
    loss = clipped_value_loss(values, torch.zeros(3), torch.ones(3), 0.2)
    torch.testing.assert_close(loss, torch.tensor([0.405, 0.32, 1.125]))
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([-0.9, 0.0, -1.5]))


def test_the_whole_loss_and_its_numbers_by_hand():
    """Even ids, ratio 1, advantages 2 and -1: -2 + 1. Value 0.5, was 0.4, returns 1 and 0: errors 0.5 and -0.5, each
    0.125, times 0.5. Entropy ln 2 each, times 0.1. Together -1 + 0.125 - 0.2 ln 2."""
    batch = batch_of([0, 1], old_logp=[-LN2] * 2, advantage=[2.0, -1.0], returns=[1.0, 0.0], old_values=[0.4, 0.4])
    total, numbers = policy(entropy_weight=0.1)(Arms([0.0, 0.0], 0.5), batch)
    assert total.item() == pytest.approx(-1 + 0.125 - 0.2 * LN2)
    found = {name: value.item() for name, value in numbers.items()}
    assert found == pytest.approx(
        {
            "policy_loss": -1.0, "clip_fraction": 0.0, "ratio_kl": 0.0, "entropy": 2 * LN2, "value_loss": 0.25,
            "returns": 1.0, "returns2": 1.0, "value_error": 0.0, "value_error2": 0.5,
        }
    )  # fmt: skip
    assert not any(value.requires_grad for value in numbers.values())
    mean = {name: value / batch.count for name, value in found.items()}
    explained = 1 - (mean["value_error2"] - mean["value_error"] ** 2) / (mean["returns2"] - mean["returns"] ** 2)
    assert explained == pytest.approx(0.0)  # one value for everything explains nothing


def test_values_learn_and_are_weighed():
    """Slope of 0.5 (V - R)^2 / 2 at V = 0.5, R = 1: -0.25; the policy's part does not reach the value."""
    model = Arms([0.0, 0.0], 0.5)
    batch = batch_of([0], old_logp=[-LN2], advantage=[3.0], returns=[1.0], old_values=[0.5])
    policy()(model, batch)[0].backward()
    assert model.value.grad.item() == pytest.approx(-0.25)


def test_entropy_is_raised_only_if_asked():
    """p = (1/4, 3/4) with advantage 0: dH / dz0 = 3/16 ln 3, so the loss falls by 0.1 of it."""
    for weight in (0.0, 0.1):
        model = Arms([0.0, math.log(3)])
        policy(entropy_weight=weight)(model, batch_of([0], old_logp=[-2 * LN2], advantage=[0.0]))[0].backward()
        assert model.logits.grad[0].item() == pytest.approx(-weight * 3 / 16 * math.log(3))


def test_distance_to_a_reference_by_hand():
    """log p = -ln 2; the reference says ln 1/4 and ln 3/4. k3 = q/p - 1 - ln q/p: 1/2 - 1 + ln 2, 3/2 - 1 - ln 3/2."""
    said = {"old_logp": [-LN2] * 2, "advantage": [0.0] * 2, "ref_logp": [math.log(1 / 4), math.log(3 / 4)]}
    truth = [1 / 2 - 1 + LN2, 3 / 2 - 1 - math.log(3 / 2)]
    total, numbers = policy(kl=0.3)(Arms([0.0, 0.0]), batch_of([0, 0], **said))
    assert total.item() == pytest.approx(0.3 * sum(truth))
    assert numbers["reference_kl"].item() == pytest.approx(sum(truth))
    batch = batch_of([0, 0], **said)
    batch.fields["kl_coefficient"] = torch.tensor([0.0, 2.0])  # a price of its own for each answer
    assert policy(kl=0.3)(Arms([0.0, 0.0]), batch)[0].item() == pytest.approx(2 * truth[1])


@pytest.mark.parametrize("own", [False, True])
def test_a_distance_that_costs_nothing_is_no_part_of_the_loss(own):
    """The reference is 94 nats surer of a token than the model: e^94 is no fp32 number, and 0 times it is none at all.

    Without a price the loss and its slope are those of the policy's part, ratio 1 and advantage 2; the distance stays
    to be seen, at its bound e^20 - 1 - 20.
    """
    model = Arms([0.0, 95.0])
    batch = batch_of([0], old_logp=[-95.0], advantage=[2.0], ref_logp=[-1.0])
    if own:
        batch.fields["kl_coefficient"] = torch.zeros(1)
    total, numbers = policy(kl=0.5 if own else 0.0)(model, batch)
    total.backward()
    assert total.item() == pytest.approx(-2.0)
    torch.testing.assert_close(model.logits.grad, torch.tensor([-2.0, 2.0]))
    assert numbers["reference_kl"].item() == pytest.approx(math.exp(20) - 21, rel=1e-5)


def test_a_distance_beyond_all_bounds_stays_a_number():
    """At a price the loss is 0.5 (e^20 - 21) - 2; the part beyond the bound has no slope, a distance within it has."""
    model = Arms([0.0, 95.0])
    total, numbers = policy(kl=0.5)(model, batch_of([0], old_logp=[-95.0], advantage=[2.0], ref_logp=[-1.0]))
    total.backward()
    assert total.item() == pytest.approx(0.5 * (math.exp(20) - 21) - 2, rel=1e-5)
    torch.testing.assert_close(model.logits.grad, torch.tensor([-2.0, 2.0]))
    surer = Arms([0.0, 95.0])  # the model is sure, the reference 94 nats less so: k3 = 94 - 1, slope 1 a nat
    total, _ = policy(kl=0.5)(surer, batch_of([1], old_logp=[0.0], advantage=[0.0], ref_logp=[-94.0]))
    assert total.item() == pytest.approx(0.5 * 93)
    _, numbers = policy()(Arms([0.0, 0.0]), batch_of([0], old_logp=[-95.0], advantage=[1.0]))
    assert numbers["ratio_kl"].isfinite()


def test_temperature_is_that_of_the_answers():
    """Logits (0, ln 2) at temperature 1/2 are (1, 4) / 5."""
    batch = batch_of([1], old_logp=[math.log(4 / 5)], advantage=[1.0])
    _, numbers = policy(temperature=0.5)(Arms([0.0, LN2]), batch)
    assert numbers["ratio_kl"].item() == pytest.approx(0.0, abs=1e-7)
    assert numbers["policy_loss"].item() == pytest.approx(-1.0)
    assert numbers["entropy"].item() == pytest.approx(-0.2 * math.log(0.2) - 0.8 * math.log(0.8))


def test_places_that_do_not_count_are_not_looked_at():
    """NaN and inf in the prompt and in the filler change neither loss, numbers nor gradient."""
    nan, model = math.nan, Arms([0.3, 0.0], 0.2)
    clean = {"old_logp": [-0.5, -0.6], "advantage": [1.0, -1.0], "returns": [1.0, 2.0], "old_values": [0.0, 0.1],
             "ref_logp": [-1.0, -0.1]}  # fmt: skip
    dirty = {name: [nan, *values, math.inf] for name, values in clean.items()}
    results = []
    for batch in (batch_of([0, 1], **clean), batch_of([1, 0, 1, 0], weight=[0, 1, 1, 0], **dirty)):
        total, numbers = policy(kl=0.1, entropy_weight=0.1)(model, batch)
        gradients = torch.autograd.grad(total, (model.logits, model.value))
        results.append([total.detach(), *gradients, *numbers.values()])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)


def test_a_step_cut_in_two_is_the_same_step():
    model, kept = Arms([0.3, 0.0, -0.2], 0.2), {"kl": 0.1, "entropy_weight": 0.01}
    fields = {"old_logp": [-0.5, -1.6, -1.0], "advantage": [1.0, -1.0, 0.5], "returns": [1.0, 2.0, 0.0],
              "old_values": [0.0, 0.1, 0.5], "ref_logp": [-1.0, -0.1, -0.9]}  # fmt: skip
    whole, numbers = policy(**kept)(model, batch_of([0, 1, 2], **fields))
    for part in (slice(0, 1), slice(1, 3)):
        piece = batch_of([0, 1, 2][part], **{name: values[part] for name, values in fields.items()})
        total, some = policy(**kept)(model, piece)
        whole, numbers = whole - total, {name: value - some[name] for name, value in numbers.items()}
    for value in (whole, *numbers.values()):
        assert value.item() == pytest.approx(0.0, abs=1e-6)


def adam(model, steps, lr):
    """Adam whose rate falls to 0: the last steps settle what sampling left uneven."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)


def learn(model, batches, loss, steps, lr):
    """`batches(model)` draws a rollout; each is used four times."""
    optimizer, schedule = adam(model, steps, lr)
    for batch in (batch for _ in range(steps // 4) for batch in [batches(model)] * 4):
        total, _ = loss(model, batch)
        optimizer.zero_grad()
        (total / batch.count).backward()
        optimizer.step()
        schedule.step()


REWARDS, REFERENCE, PRICE = torch.tensor([1.0, 0.5, 0.0, -0.5]), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.5


def test_ppo_finds_the_optimum_of_a_bandit():
    """Rewards 1, 1/2, 0, -1/2 less half a nat of distance to (0.1, 0.2, 0.3, 0.4): reference times e^(2 reward), made
    to add up to 1, is best, about (0.43, 0.31, 0.17, 0.09); the value is then half the log of that sum, 0.27.
    """
    generator = torch.Generator().manual_seed(0)

    def rollout(model):
        p = model.logits.detach().softmax(0)
        arms = torch.multinomial(p, 512, replacement=True, generator=generator)
        old = p.log()[arms]
        rewards = (REWARDS[arms] - PRICE * (old - REFERENCE.log()[arms]))[:, None]
        values = model.value.detach().expand(512, 1)
        advantage, returns = gae(rewards, values, torch.ones(512, 1), gamma=1.0, lam=0.95)
        fields = {"old_logp": old[:, None], "advantage": advantage, "returns": returns, "old_values": values}
        return Batch(arms[:, None], 512.0, {"targets": arms[:, None], "weight": torch.ones(512, 1), **fields})

    model = Arms([0.0] * 4)
    learn(model, rollout, policy(), steps=300, lr=0.1)
    best = (REFERENCE.log() + REWARDS / PRICE).softmax(0)
    torch.testing.assert_close(model.logits.softmax(0).detach(), best, rtol=0, atol=0.03)
    value = PRICE * (REFERENCE * (REWARDS / PRICE).exp()).sum().log()
    assert model.value.item() == pytest.approx(value.item(), abs=0.05)


def grpo_rollout(generator, reference=None):
    """32 prompts, eight answers each, compared with each other."""

    def rollout(model):
        p = model.logits.detach().softmax(0)
        arms = torch.multinomial(p, 256, replacement=True, generator=generator)
        advantage = grouped(REWARDS[arms], torch.arange(256) // 8)
        fields = {"old_logp": p.log()[arms][:, None], "advantage": advantage[:, None]}
        if reference is not None:
            fields["ref_logp"] = reference.log()[arms][:, None]
        return Batch(arms[:, None], 256.0, {"targets": arms[:, None], "weight": torch.ones(256, 1), **fields})

    return rollout


def test_grpo_finds_the_best_arm():
    """Without a price on distance the best arm is everything; a high one holds the policy at the reference."""
    free = Arms([0.0] * 4)
    learn(free, grpo_rollout(torch.Generator().manual_seed(0)), policy(), steps=200, lr=0.1)
    assert free.logits.softmax(0)[0].item() > 0.95
    held = Arms(REFERENCE.log().tolist())
    learn(held, grpo_rollout(torch.Generator().manual_seed(0), REFERENCE), policy(kl=50.0), steps=100, lr=0.05)
    assert (held.logits.softmax(0) - REFERENCE).abs().max().item() < 0.05


@pytest.mark.parametrize("name", ["targets", "weight", "old_logp", "advantage", "old_values"])
def test_a_field_that_is_missing_is_named(name):
    batch = batch_of([0], old_logp=[0.0], advantage=[0.0], returns=[0.0], old_values=[0.0])
    del batch.fields[name]
    with pytest.raises(DataError, match=f"no field {name}"):
        policy()(Arms([0.0, 0.0]), batch)


def test_fields_of_another_shape_are_refused():
    batch = batch_of([0, 1], old_logp=[0.0, 0.0], advantage=[0.0, 0.0])
    batch.fields["advantage"] = torch.zeros(2)
    with pytest.raises(DataError, match=r"advantage has shape \(2,\)"):
        policy()(Arms([0.0, 0.0]), batch)
    batch = batch_of([0, 1], old_logp=[0.0, 0.0], advantage=[0.0, 0.0])
    batch.fields["kl_coefficient"] = torch.zeros(2, 1)
    with pytest.raises(DataError, match=r"kl_coefficient has shape \(2, 1\)"):
        policy()(Arms([0.0, 0.0]), batch)


def test_returns_need_a_value_head():
    batch = batch_of([0], old_logp=[-LN2], advantage=[0.0], returns=[0.0], old_values=[0.0])
    model = GPT(ModelConfig(family="gpt2", layers=1, heads=2, width=8, context=6, vocabulary=11), seed=3)
    with pytest.raises(ModelError, match="GPT has no value head"):
        policy()(model, batch)


def test_settings_that_mean_nothing_are_refused():
    for changed in ({"clip_ratio": 0.0}, {"value_clip": -1.0}, {"kl": -0.1}, {"entropy_weight": math.nan},
                    {"value_weight": math.inf}):  # fmt: skip
        with pytest.raises(SettingsError, match=next(iter(changed))):
            policy(**changed)


def test_far_from_the_old_policy_nothing_overflows_where_it_is_clipped():
    """A log-ratio of 80 is e^80 in fp32, still finite: a good token there is clipped, its slope 0."""
    model = Arms([0.0, 0.0])
    total, _ = policy()(model, batch_of([0], old_logp=[-80.0 - LN2], advantage=[1.0]))
    total.backward()
    assert total.item() == pytest.approx(-1.2) and not model.logits.grad.any()
    assert k3(torch.tensor([-80.0])).isfinite().all()
