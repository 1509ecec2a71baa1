"""Losses: sums worked by hand, the book's figures, weights, number formats, and layouts that are refused."""

import math

import pytest
import torch
from torch import nn

from groundup import losses
from groundup.batches import Batch, next_token
from groundup.errors import ModelError


class Fixed(nn.Module):
    """Returns the logits it holds, and remembers how it was called."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens, **context):
        self.context = context
        return self.logits


def batch_of(targets, **fields):
    """A batch with these targets; the tokens do not matter to a fixed model."""
    targets = torch.tensor(targets)
    count = float(fields["weight"].sum()) if "weight" in fields else float(targets.numel())
    return Batch(torch.zeros_like(targets), count, {"targets": targets, **fields})


def test_sum_by_hand():
    """p = softmax(0, ln 2, ln 5) = (1/8, 2/8, 5/8), then softmax(0, 0, 0) = thirds."""
    model = Fixed(torch.tensor([[[0.0, math.log(2), math.log(5)], [0.0, 0.0, 0.0]]]))
    total, metrics = losses.next_token(model, batch_of([[2, 0]]))
    assert total.item() == pytest.approx(-math.log(5 / 8) - math.log(1 / 3), rel=1e-6)
    assert metrics == {}


def test_gradient_is_probability_minus_one_hot():
    model = Fixed(torch.tensor([[[0.0, math.log(2), math.log(5)]]]))
    losses.next_token(model, batch_of([[1]]))[0].backward()
    torch.testing.assert_close(model.logits.grad, torch.tensor([[[1 / 8, 2 / 8 - 1, 5 / 8]]]))


def logits_with(probabilities, targets, vocabulary=50257):
    """Logits (B, T, V) that give each target this probability, the other ids sharing the rest evenly."""
    p, targets = torch.tensor(probabilities, dtype=torch.float64), torch.tensor(targets)
    logits = ((1 - p) / (vocabulary - 1)).log()[..., None].expand(*targets.shape, vocabulary).clone()
    return logits.scatter(-1, targets[..., None], p.log()[..., None]).float()


@pytest.mark.parametrize(
    "targets, second_row, cross_entropy, perplexity",
    [
        # Raschka 2024, section 5.1.2, from the printed target probabilities to the printed loss
        ([[3626, 6100, 345], [588, 428, 11311]], [3.9836e-05, 1.6783e-05, 4.7559e-06], 10.7722, 47678.8633),
        # the same section of its notebook, which has other second targets
        ([[3626, 6100, 345], [1107, 588, 11311]], [1.0337e-05, 5.6776e-05, 4.7559e-06], 10.7940, 48725.8203),
    ],
)
def test_the_book_section_5_1_2(targets, second_row, cross_entropy, perplexity):
    model = Fixed(logits_with([[7.4541e-05, 3.1061e-05, 1.1563e-05], second_row], targets))
    batch = batch_of(targets)
    mean = losses.next_token(model, batch)[0].item() / batch.count
    assert mean == pytest.approx(cross_entropy, abs=1e-4)
    assert math.exp(mean) == pytest.approx(perplexity, rel=1e-4)  # the probabilities are printed to 5 digits


@pytest.mark.parametrize("vocabulary", [7, 65, 50257])
def test_a_model_without_a_clue_has_the_logarithm_of_the_vocabulary(vocabulary):
    total, _ = losses.next_token(Fixed(torch.zeros(2, 3, vocabulary)), batch_of([[0, 1, 2], [3, 4, 5]]))
    assert total.item() == pytest.approx(6 * math.log(vocabulary), rel=1e-6)


def test_weight_zero_gives_no_loss_and_no_gradient():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 5), [[1, 2, 3], [4, 0, 1]]
    weight = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    model = Fixed(logits)
    total, _ = losses.next_token(model, batch_of(targets, weight=weight))
    total.backward()
    log_p = logits.log_softmax(-1)
    assert total.item() == pytest.approx(-(log_p[0, 1, 2] + log_p[1, 0, 4] + log_p[1, 1, 0]).item(), rel=1e-6)
    touched = model.logits.grad.abs().sum(-1) > 0
    assert torch.equal(touched, weight.bool())


def test_weights_of_one_change_nothing():
    torch.manual_seed(0)
    model, targets = Fixed(torch.randn(2, 3, 5)), [[1, 2, 3], [4, 0, 1]]
    plain, _ = losses.next_token(model, batch_of(targets))
    weighted, _ = losses.next_token(model, batch_of(targets, weight=torch.ones(2, 3)))
    torch.testing.assert_close(plain, weighted)


def test_micro_batches_add_up_to_the_whole():
    """The sums of the parts, divided once by the sum of their counts, are the mean over the whole, gradients too."""
    torch.manual_seed(0)
    model, rows = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 11)), torch.randint(11, (6, 5))
    weight = (torch.rand(6, 4) > 0.4).float()

    def gradient(batches):
        model.zero_grad()
        count = sum(batch.count for batch in batches)
        for batch in batches:
            (losses.next_token(model, batch)[0] / count).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole = gradient([next_token(rows, weight=weight)])
    split = gradient([next_token(rows[a:b], weight=weight[a:b]) for a, b in ((0, 1), (1, 4), (4, 6))])
    assert (whole - split).abs().max() < 1e-6 * whole.abs().max()


@pytest.mark.parametrize("autocast", [True, False])
def test_logits_in_bf16_are_summed_in_fp32(autocast):
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 64, 500).bfloat16(), torch.randint(500, (4, 64))
    exact = -logits.double().log_softmax(-1).gather(-1, targets[..., None]).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        total, _ = losses.next_token(Fixed(logits), batch_of(targets.tolist()))
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=1e-6)


def test_documents_and_padding_reach_the_model():
    model, documents, padding = Fixed(torch.zeros(1, 2, 3)), torch.tensor([[0, 1]]), torch.tensor([[True, False]])
    losses.next_token(model, batch_of([[1, 2]], documents=documents, padding=padding, ref_logp=torch.zeros(1)))
    assert model.context == {"documents": documents, "padding": padding}
    losses.next_token(model, batch_of([[1, 2]]))
    assert model.context == {}


@pytest.mark.parametrize("shape", [(4, 65, 8), (32, 65), (4, 7, 65), (4, 8, 65, 1)])
def test_other_layouts_are_refused(shape):
    """Like torch, which refuses (B, T, V) logits with (B, T) targets: here that layout is the only one."""
    with pytest.raises(ModelError, match=r"targets \(4, 8\)"):
        losses.next_token(Fixed(torch.zeros(shape)), batch_of([[0] * 8] * 4))
