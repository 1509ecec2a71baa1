"""The loss of a classifier: sums worked by hand, weights, gradients, and layouts that are refused."""

import math

import pytest
import torch
from torch import nn

from groundup import losses
from groundup.batches import Batch
from groundup.errors import ModelError
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig

LOGITS = [[0.0, math.log(2), math.log(5)], [0.0, 0.0, 0.0], [math.log(6), 0.0, 0.0]]  # p: 1/8 2/8 5/8, thirds, 6/8 ...


class Fixed(nn.Module):
    """Returns the logits it holds, and remembers how it was called."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, tokens, **context):
        self.context = context
        return self.logits


def batch_of(labels, **fields):
    labels = torch.tensor(labels)
    count = float(fields["weight"].sum()) if "weight" in fields else float(len(labels))
    return Batch(torch.zeros(len(labels), 2, dtype=torch.long), count, {"labels": labels, **fields})


def test_sum_by_hand():
    """-ln 5/8 - ln 1/3 - ln 6/8; the first and the third row are right (of equal classes the first is chosen)."""
    total, numbers = losses.classification(Fixed(LOGITS), batch_of([2, 1, 0]))
    assert total.item() == pytest.approx(-math.log(5 / 8) - math.log(1 / 3) - math.log(6 / 8), rel=1e-6)
    assert numbers.keys() == {"correct"} and numbers["correct"].item() == 2.0


def test_weights_by_hand():
    """Rows count 2, 1 and 0 times, in the loss and in what is right."""
    batch = batch_of([2, 1, 2], weight=torch.tensor([2.0, 1.0, 0.0]))
    total, numbers = losses.classification(Fixed(LOGITS), batch)
    assert total.item() == pytest.approx(-2 * math.log(5 / 8) - math.log(1 / 3), rel=1e-6)
    assert numbers["correct"].item() / batch.count == pytest.approx(2 / 3)


def test_gradient_is_probability_minus_one_hot():
    model = Fixed(LOGITS)
    total, numbers = losses.classification(model, batch_of([1, 0, 0], weight=torch.tensor([1.0, 3.0, 0.0])))
    total.backward()
    wanted = torch.tensor([[1 / 8, 2 / 8 - 1, 5 / 8], [3 * (1 / 3 - 1), 1.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(model.logits.grad, wanted)
    assert not numbers["correct"].requires_grad


def test_lengths_reach_the_model():
    model = Fixed(LOGITS)
    losses.classification(model, batch_of([0, 0, 0], lengths=torch.tensor([1, 2, 2])))
    assert model.context["lengths"].tolist() == [1, 2, 2]
    losses.classification(model, batch_of([0, 0, 0]))
    assert model.context == {}


def test_a_step_cut_in_two_is_the_same_step():
    """Sums over micro-batches padded to other lengths, divided once, give the gradient of the whole."""
    config = ModelConfig(family="llama", vocabulary=20, context=8, width=8, layers=1, heads=2, init="torch")
    rows = torch.tensor([[3, 4, 5, 6], [7, 0, 0, 0], [8, 9, 0, 0]])
    fields = {"labels": torch.tensor([0, 1, 2]), "lengths": torch.tensor([4, 1, 2])}
    fields["weight"] = torch.tensor([1.0, 0.5, 4.0])
    whole, parts = (Classifier(build(config, seed=1), HeadConfig(("a", "b", "c")), seed=2) for _ in range(2))
    (losses.classification(whole, Batch(rows, 5.5, fields))[0] / 5.5).backward()
    for part, time in ((slice(0, 1), 4), (slice(1, 3), 2)):
        piece = Batch(rows[part, :time], 1.0, {name: value[part] for name, value in fields.items()})
        (losses.classification(parts, piece)[0] / 5.5).backward()
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_a_probability_near_one_is_told_from_one():
    """In bf16 the loss of a logit 12 above the other would be 0."""
    model = Fixed([[12.0, 0.0]])
    model.logits.data = model.logits.data.bfloat16()
    total, _ = losses.classification(model, batch_of([0]))
    assert total.dtype == torch.float32 and total.item() == pytest.approx(math.log1p(math.exp(-12)), rel=1e-2)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        ([[0.0, 0.0]], [0, 1], "(1, 2)"),
        ([[[0.0, 0.0]]], [0], "(1, 1, 2)"),
        ([[0.0, 0.0]], [0.5], "float32"),
        ([[0.0, 0.0]], [2], "label 2 is none of the 2 classes"),
        ([[0.0, 0.0]], [-100], "label -100"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, said):
    with pytest.raises(ModelError) as caught:
        losses.classification(Fixed(logits), batch_of(labels))
    assert said in caught.value.what and caught.value.fix
