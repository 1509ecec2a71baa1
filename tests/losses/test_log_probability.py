"""Log-probabilities of targets against torch's on whole logits: values, slopes, entropies, slices, formats."""

import math
import sys

import pytest
import torch
from torch import nn

from groundup import losses
from groundup.batches import Batch
from groundup.errors import ModelError, SettingsError
from groundup.losses.log_probability import log_softmax_at
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT
from groundup.model.lora import LoraConfig, add


def problem(places=37, width=8, vocabulary=53, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(places, width, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    return states, head, torch.randint(vocabulary, (places,), generator=generator)


def plain(states, head, targets, temperature=1.0):
    """The definition: softmax of all logits, one of them taken; -sum p log p."""
    log_p = ((states @ head.T).float() / temperature).log_softmax(-1)
    return log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


@pytest.fixture(params=[(2**25, 2**21), (53 * 5, 53 * 2), (1, 1)], ids=["one slice", "slices of 5", "slices of 1"])
def sliced(request, monkeypatch):
    """Logits that are kept, and such as are made again in slices that do not divide the places."""
    module = sys.modules["groundup.losses.log_probability"]
    monkeypatch.setattr(module, "LOGITS", request.param[0])
    monkeypatch.setattr(module, "BLOCK", request.param[1])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("wanted", ["both", "states", "head"])
@pytest.mark.parametrize("used", ["logp", "entropy", "both"])
def test_values_and_gradients_equal_torch(sliced, temperature, wanted, used):
    """With another factor for every place, as a preference loss has them; also of one side alone (a frozen head)."""
    states, head, targets = problem()
    states.requires_grad_(wanted != "head")
    head.requires_grad_(wanted != "states")
    asked = [each for each in (states, head) if each.requires_grad]
    factors = torch.randn(2, 37, generator=torch.Generator().manual_seed(5))
    ours = log_softmax_at(states, head, targets, temperature=temperature, entropy=True)
    truth = plain(states, head, targets, temperature)
    for one, two in zip(ours, truth, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-5)
    kinds = {"logp": [0], "entropy": [1], "both": [0, 1]}[used]
    found = torch.autograd.grad(sum((ours[kind] * factors[kind]).sum() for kind in kinds), asked)
    wished = torch.autograd.grad(sum((truth[kind] * factors[kind]).sum() for kind in kinds), asked)
    torch.testing.assert_close(found, wished, rtol=1e-5, atol=1e-5)


def test_gradient_by_hand():
    """p = softmax(0, ln 3) = (1/4, 3/4); d log p(0) / dz = (3/4, -3/4), and the states are ones, so the same in head.

    H = 1/4 ln 4 + 3/4 ln 4/3; dH / dz_0 = -1/4 (ln 1/4 + H) = 3/16 ln 3, and dH / dz_1 is its opposite.
    """
    states, head = torch.ones(1, 1, requires_grad=True), torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    logp, entropy = log_softmax_at(states, head, torch.tensor([0]), entropy=True)
    assert logp.item() == pytest.approx(-math.log(4))
    assert entropy.item() == pytest.approx(math.log(4) / 4 + 3 / 4 * math.log(4 / 3))
    of_logp, of_entropy = (torch.autograd.grad(each.sum(), head, retain_graph=True)[0] for each in (logp, entropy))
    torch.testing.assert_close(of_logp, torch.tensor([[3 / 4], [-3 / 4]]))
    slope = 3 / 16 * math.log(3)
    torch.testing.assert_close(of_entropy, torch.tensor([[slope], [-slope]]))


def test_a_second_backward_pass_is_the_first(sliced):
    """Logits that were kept are not written over."""
    states, head, targets = problem()
    logp, _ = log_softmax_at(states, head, targets)
    first, second = (torch.autograd.grad(logp.sum(), (states, head), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_slopes_are_those_of_finite_differences():
    """In fp64 throughout it would be gradcheck; in fp32 a difference over 1/50 still shows a wrong sign or factor."""
    states, head, targets = problem(places=3, width=2, vocabulary=5)
    logp, entropy = log_softmax_at(states, head, targets, temperature=0.5, entropy=True)
    (slope,) = torch.autograd.grad((logp + 2 * entropy).sum(), head)
    for place in ((0, 0), (3, 1)):
        moved = []
        for step in (0.01, -0.01):
            changed = head.detach().clone()
            changed[place] += step
            one, two = log_softmax_at(states.detach(), changed, targets, temperature=0.5, entropy=True)
            moved.append((one + 2 * two).sum().item())
        assert slope[place].item() == pytest.approx((moved[0] - moved[1]) / 0.02, rel=0.01, abs=1e-3)


def test_without_places_there_is_nothing_and_no_fault():
    states, head, targets = problem()
    logp, entropy = log_softmax_at(states[:0], head, targets[:0], entropy=True)
    (logp.sum() + entropy.sum()).backward()
    assert logp.shape == entropy.shape == (0,)


def test_huge_logits_stay_finite():
    states, head = torch.tensor([[1000.0], [-1000.0]], requires_grad=True), torch.tensor([[1.0], [-1.0]])
    logp, entropy = log_softmax_at(states, head, torch.tensor([0, 0]), entropy=True)
    assert logp.tolist() == [0.0, -2000.0] and entropy.tolist() == [0.0, 0.0]
    (logp.sum() + entropy.sum()).backward()
    assert states.grad.tolist() == [[0.0], [2.0]]


def test_without_gradient_nothing_is_kept_and_nothing_overwritten():
    states, head, targets = problem()
    before = states.detach().clone()
    with torch.no_grad():
        first, second = (log_softmax_at(states, head, targets)[0] for _ in range(2))
    assert torch.equal(first, second) and first.grad_fn is None
    assert torch.equal(states, before)


def test_bf16_products_differ_from_fp32_by_their_rounding_only():
    states, head, targets = problem(places=64, width=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = log_softmax_at(states, head, targets, entropy=True)
        truth = plain(states, head, targets)
    for one, two in zip(ours, truth, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-4)
    found = torch.autograd.grad(ours[0].sum(), (states, head))
    for one, two in zip(found, torch.autograd.grad(truth[0].sum(), (states, head)), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, two, rtol=0.02, atol=0.02 * two.abs().max().item())


def network(tie=True, family="gpt2"):
    config = ModelConfig(family=family, layers=1, heads=2, width=8, context=6, vocabulary=11, tie=tie)
    return GPT(config, seed=3)


def batch_of(weighted=True):
    generator = torch.Generator().manual_seed(4)
    ids, targets = torch.randint(11, (2, 3, 6), generator=generator)
    weight = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]).float()
    fields = {"targets": targets} | ({"weight": weight} if weighted else {})
    return Batch(ids, float(weight.sum()) if weighted else 18.0, fields)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("tie", [True, False])
def test_through_a_model_tied_or_not(tie, weighted):
    """torch.log_softmax and gather on all logits, to 1e-6, and every parameter's gradient."""
    model, batch = network(tie), batch_of(weighted)
    found = losses.log_probabilities(model, batch, entropy=True)
    log_p = model(batch.tokens).log_softmax(-1)
    there = batch.fields.get("weight", torch.ones(3, 6))
    truth = log_p.gather(-1, batch.fields["targets"][..., None])[..., 0] * there
    torch.testing.assert_close(found.logp, truth, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(-1) * there, rtol=1e-6, atol=1e-6)
    assert found.states.shape == (3, 6, 8)
    factors = torch.randn(3, 6, generator=torch.Generator().manual_seed(6))
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours = torch.autograd.grad((found.logp * factors).sum(), parameters)
    for name, one, two in zip(names, ours, torch.autograd.grad((truth * factors).sum(), parameters), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6, msg=name)


def test_a_weight_says_where_and_not_how_much():
    model, batch = network(), batch_of()
    once = losses.log_probabilities(model, batch).logp
    batch.fields["weight"] = batch.fields["weight"] * 3
    assert torch.equal(losses.log_probabilities(model, batch).logp, once)
    assert losses.log_probabilities(model, batch).entropy is None


def test_logits_are_made_only_where_the_weight_is_not_zero(monkeypatch):
    """Five of eighteen places."""
    module = sys.modules["groundup.losses.log_probability"]
    seen, real = [], module.log_softmax_at
    monkeypatch.setattr(
        module, "log_softmax_at", lambda states, *rest, **more: seen.append(len(states)) or real(states, *rest, **more)
    )
    losses.log_probabilities(network(), batch_of())
    assert seen == [5]


def test_micro_batches_change_nothing():
    """Rows alone, cut to what they need, give the numbers and the gradient that they give together."""
    model, batch = network(family="llama"), batch_of()
    whole = losses.log_probabilities(model, batch).logp
    together = torch.autograd.grad(whole.sum(), list(model.parameters()))
    alone = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for row, end in ((0, 5), (1, 2), (2, 6)):
        piece = Batch(
            batch.tokens[row : row + 1, :end], 1.0, {k: v[row : row + 1, :end] for k, v in batch.fields.items()}
        )
        logp = losses.log_probabilities(model, piece).logp
        torch.testing.assert_close(logp[0], whole[row, :end], rtol=1e-5, atol=1e-6)
        for total, share in zip(alone, torch.autograd.grad(logp.sum(), list(model.parameters())), strict=True):
            total += share
    for one, two in zip(alone, together, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_an_adapted_head_learns_and_a_frozen_one_does_not():
    model, batch = network(tie=False), batch_of()
    add(model, LoraConfig(rank=2, targets=("head", "value")), seed=1)
    losses.log_probabilities(model, batch).logp.sum().backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("head.B") for name in learnt)


class Table(nn.Module):
    """A model without a head: logits of each place, whatever the ids are."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens, **context):
        self.context = context
        return self.logits


def test_a_model_without_a_head_by_hand():
    """softmax(0, ln 2, ln 5) = (1/8, 2/8, 5/8); at temperature 1/2 the logits double: (1, 4, 25) / 30."""
    model = Table(torch.tensor([[[0.0, math.log(2), math.log(5)]] * 2]))
    batch = Batch(
        torch.zeros(1, 2, dtype=torch.long), 1.0, {"targets": torch.tensor([[2, 1]]), "weight": torch.eye(2)[:1]}
    )
    found = losses.log_probabilities(model, batch, entropy=True)
    torch.testing.assert_close(found.logp, torch.tensor([[math.log(5 / 8), 0.0]]))
    entropy = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    torch.testing.assert_close(found.entropy, torch.tensor([[entropy, 0.0]]))
    assert torch.equal(found.states, model.logits)
    colder = losses.log_probabilities(model, batch, temperature=0.5).logp
    torch.testing.assert_close(colder, torch.tensor([[math.log(25 / 30), 0.0]]))
    colder.sum().backward()  # (one-hot - p) / temperature
    torch.testing.assert_close(model.logits.grad[0, 0], torch.tensor([-1 / 30, -4 / 30, 5 / 30]) * 2)
    assert not model.logits.grad[0, 1].any()


def test_documents_and_padding_reach_the_model():
    model = Table(torch.zeros(1, 2, 3))
    extra = {"documents": torch.tensor([[0, 1]]), "padding": torch.tensor([[True, True]])}
    ids = torch.tensor([[1, 2]])
    losses.log_probabilities(model, Batch(ids, 1.0, {"targets": ids, "ref_logp": torch.zeros(1), **extra}))
    assert model.context == extra


@pytest.mark.parametrize("shape", [(1, 3, 8), (2, 8), (1, 2, 8, 1)])
def test_other_layouts_are_refused(shape):
    ids = torch.tensor([[1, 2]])
    with pytest.raises(ModelError, match=r"targets \(1, 2\)"):
        losses.log_probabilities(Table(torch.zeros(shape)), Batch(ids, 1.0, {"targets": ids}))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_means_nothing_is_refused(temperature):
    ids = torch.tensor([[1, 2]])
    with pytest.raises(SettingsError, match="temperature"):
        losses.log_probabilities(
            Table(torch.zeros(1, 2, 3)), Batch(ids, 1.0, {"targets": ids}), temperature=temperature
        )
