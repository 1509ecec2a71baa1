"""Marks of a classifier: every number worked by hand or by a plain loop over the rows."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groundup.batches import Batch
from groundup.errors import DataError, ModelError
from groundup.evaluate.classes import BINS, Tally, finite, mark, predictions
from groundup.machine import Machine
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig

ABC = ("a", "b", "c")


def tally(probabilities, truth, labels=ABC, **options) -> Tally:
    found = Tally(labels, **options)
    found.add(torch.tensor(probabilities, dtype=torch.float64).log(), torch.tensor(truth))
    return found


def certain(chosen: list[int], classes: int = 3) -> list[list[float]]:
    """Probability 1 on one class each."""
    return torch.eye(classes)[chosen].tolist()


def test_six_rows_by_hand():
    """Class c is never predicted: its precision is 0/0 and counts as 0, and `words` says so."""
    logits = torch.full((6, 3), -4.0)
    logits[torch.arange(6), torch.tensor([0, 0, 1, 1, 1, 1])] = 4.0
    found = Tally(ABC)
    found.add(logits, torch.tensor([0, 0, 0, 1, 1, 2]))
    marks = found.marks()
    assert marks.confusion == ((2, 1, 0), (0, 2, 0), (0, 1, 0))
    assert marks.rows == 6 and marks.accuracy == pytest.approx(4 / 6)
    assert marks.precision == pytest.approx((1, 2 / 4, 0))
    assert marks.recall == pytest.approx((2 / 3, 1, 0))
    assert marks.f1 == pytest.approx((4 / 5, 2 / 3, 0))
    assert marks.macro_precision == pytest.approx(1.5 / 3)
    assert marks.macro_recall == pytest.approx(5 / 9)
    assert marks.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 3)
    assert marks.never_predicted == ("c",)
    assert marks.words().endswith("accuracy 66.67 %  F1 0.489  never predicted: c")
    right = math.log(1 + 2 * math.exp(-8))  # -log p of the class that has the 4
    assert marks.loss == pytest.approx((4 * right + 2 * (right + 8)) / 6)


def test_a_class_without_a_row_is_left_out_of_the_means_unless_it_is_predicted():
    logits = torch.tensor([[5.0, 0, 0], [0, 5.0, 0]])
    absent = Tally(ABC)
    absent.add(logits, torch.tensor([0, 1]))
    assert absent.marks().macro_f1 == 1.0 and absent.marks().never_predicted == ()
    wrong = Tally(ABC)
    wrong.add(torch.tensor([[5.0, 0, 0], [0, 0, 5.0]]), torch.tensor([0, 0]))
    # a: precision 1, recall 1/2; b does not occur; c: predicted once, never true
    assert wrong.marks().macro_precision == 0.5 and wrong.marks().macro_recall == 0.25
    assert wrong.marks().macro_f1 == pytest.approx((2 / 3) / 2)


def test_calibration_by_hand():
    """Ten bins. 0.9 to 1: confidences 0.95, 0.95, 1 of which two are right; 0.6 to 0.7: 0.65, right.

    3/4 |2.9/3 - 2/3| + 1/4 |0.65 - 1| = 0.225 + 0.0875
    """
    logits = torch.tensor([[0.95, 0.05], [0.05, 0.95], [0.35, 0.65]], dtype=torch.float64).log()
    found = Tally(("no", "yes"), bins=10)
    found.add(torch.cat([logits, torch.tensor([[0.0, 900.0]], dtype=torch.float64)]), torch.tensor([0, 0, 1, 1]))
    marks = found.marks()
    assert marks.ece == pytest.approx(0.3125)
    assert [bin.rows for bin in marks.bins] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 3]
    last = marks.bins[-1]
    assert (last.low, last.high) == (0.9, 1.0)
    assert last.confidence == pytest.approx(2.9 / 3) and last.accuracy == pytest.approx(2 / 3)
    assert (marks.bins[0].confidence, marks.bins[0].accuracy) == (0.0, 0.0)


def test_bins_are_open_below_and_closed_above():
    """1/2 belongs to (0.4, 0.5], 1 to the last; a sure classifier that is right has no gap."""
    half = Tally(("no", "yes"), bins=10)
    half.add(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))
    assert [bin.rows for bin in half.marks().bins].index(4) == 4 and half.marks().ece == 0.0
    sure = Tally(("no", "yes"))
    sure.add(torch.tensor([[1e4, -1e4]] * 2), torch.tensor([0, 0]))
    assert sure.marks().bins[-1].rows == 2 and len(sure.marks().bins) == BINS
    assert (sure.marks().ece, sure.marks().loss, sure.marks().accuracy) == (0.0, 0.0, 1.0)


def test_sure_and_wrong_is_as_bad_as_it_gets():
    found = Tally(("no", "yes"))
    found.add(torch.tensor([[500.0, 0.0]]), torch.tensor([1]))
    assert found.marks().loss == pytest.approx(500) and found.marks().ece == 1.0


def test_weights_count_in_the_loss_alone():
    found = Tally(("no", "yes"))
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    found.add(logits, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    marks = found.marks()
    assert marks.loss == pytest.approx((math.log(2) + 3 * math.log(4)) / 4)
    assert (marks.accuracy, marks.rows) == (0.5, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.floats(-6, 6), min_size=4, max_size=4)), min_size=1))
def test_against_a_loop_over_the_rows(rows):
    truth, scores = [row[0] for row in rows], torch.tensor([row[1] for row in rows])
    found = Tally("wxyz")
    for part in (slice(0, 3), slice(3, None)):  # two batches, the second perhaps empty
        if len(truth[part]):
            found.add(scores[part], torch.tensor(truth[part]))
    marks = found.marks()
    chances = scores.double().softmax(1)
    chosen = [int(row.argmax()) for row in chances]
    assert marks.accuracy == pytest.approx(sum(a == b for a, b in zip(truth, chosen, strict=True)) / len(rows))
    assert marks.loss == pytest.approx(-sum(math.log(chances[i, t]) for i, t in enumerate(truth)) / len(rows))
    gap, f1s = 0.0, []
    for low in range(BINS):
        inside = [i for i in range(len(rows)) if low / BINS < float(chances[i].max()) <= (low + 1) / BINS]
        right = sum(truth[i] == chosen[i] for i in inside)
        gap += abs(sum(float(chances[i].max()) for i in inside) - right) / len(rows)
    assert marks.ece == pytest.approx(gap, abs=1e-9)
    for number in range(4):
        hit = sum(t == c == number for t, c in zip(truth, chosen, strict=True))
        precision = hit / chosen.count(number) if number in chosen else 0.0
        recall = hit / truth.count(number) if number in truth else 0.0
        assert (marks.precision[number], marks.recall[number]) == pytest.approx((precision, recall))
        if number in chosen or number in truth:
            f1s.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    assert marks.macro_f1 == pytest.approx(sum(f1s) / len(f1s))


def test_the_record_is_plain_numbers():
    marks = tally([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]], [0, 2]).marks()
    assert marks.record() == {"loss": marks.loss, "accuracy": 0.5, "macro_f1": marks.macro_f1, "ece": marks.ece}
    assert json.loads(json.dumps(asdict(marks)))["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def network(dropout: float = 0.0) -> Classifier:
    config = ModelConfig(family="llama", vocabulary=20, context=8, width=8, layers=1, heads=2, init="torch",
                         dropout_embedding=dropout)  # fmt: skip
    return Classifier(build(config, seed=1), HeadConfig(ABC), seed=2)


def batches() -> list[Batch]:
    rows, lengths = torch.tensor([[3, 4, 5], [6, 0, 0], [7, 8, 0], [9, 0, 0]]), torch.tensor([3, 1, 2, 1])
    labels = torch.tensor([0, 1, 2, 0])
    return [
        Batch(rows[part], float(len(rows[part])), {"labels": labels[part], "lengths": lengths[part]})
        for part in (slice(0, 3), slice(3, 4))
    ]


def test_a_model_is_marked_row_by_row_and_put_back():
    model = network(dropout=0.5).train()
    before = torch.get_rng_state()
    marks = mark(model, batches(), labels=ABC)
    assert model.training and torch.equal(before, torch.get_rng_state())
    model.eval()
    texts, truth = [[3, 4, 5], [6], [7, 8], [9]], [0, 1, 2, 0]
    single = torch.cat([model(torch.tensor([text])) for text in texts]).detach().double()
    assert marks.loss == pytest.approx(nn.functional.cross_entropy(single, torch.tensor(truth)).item(), rel=1e-5)
    assert marks.accuracy == (single.argmax(1) == torch.tensor(truth)).double().mean().item()


def test_predictions_come_in_order_and_one_batch_at_a_time():
    model = network().train()
    drawn = []

    def watched():
        for batch in batches():
            drawn.append(len(batch.tokens))
            yield batch

    stream = predictions(model, watched())
    number, chances = next(stream)
    assert drawn == [3] and model.training  # nothing is read ahead; between two rows the model is as it was
    rest = list(stream)
    assert len(rest) == 3
    alone = model.eval()(torch.tensor([[3, 4, 5]])).detach().double().softmax(1)[0]
    torch.testing.assert_close(chances, alone, rtol=1e-5, atol=1e-6)
    assert number == int(alone.argmax()) and all(row.sum().item() == pytest.approx(1) for _, row in rest)


def test_bf16_gives_nearly_the_same():
    machine = Machine(torch.device("cpu"), torch.bfloat16, torch.get_num_threads())
    exact, near = mark(network(), batches(), labels=ABC), mark(network(), batches(), labels=ABC, machine=machine)
    assert near.loss == pytest.approx(exact.loss, rel=0.05) and near.loss != exact.loss


def test_what_cannot_be_marked():
    with pytest.raises(DataError, match="no rows"):
        mark(network(), [], labels=ABC)
    with pytest.raises(ModelError, match="knows 3 classes, 2 were named"):
        mark(network(), batches(), labels=("a", "b"))
    for broken in (math.nan, math.inf):
        with pytest.raises(ModelError, match="not finite"):
            Tally(ABC).add(torch.tensor([[0.0, broken, 0.0]]), torch.tensor([0]))
    huge = torch.tensor([[3e38, 3e38]])  # whose sum is no number of fp32
    assert finite(huge) is huge
