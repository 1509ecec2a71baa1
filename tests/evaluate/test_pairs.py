"""Marks of a reward model against sums by hand, and the rule of length that it must beat."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from groundup.batches import sequential
from groundup.batches.batch import Batch
from groundup.batches.pairs import WholePairs
from groundup.errors import DataError, ModelError
from groundup.evaluate.look import Look
from groundup.evaluate.pairs import (
    BINS,
    LengthRule,
    mark_ranking,
    marks,
    mean_and_spread,
    pair_scores,
    told,
    worst,
)
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.text.preferences import Preference
from groundup.tokens.pairs import PairRow
from groundup.tokens.rows import Row

ASKED = ({"role": "user", "content": "Who?"},)


def scored(chosen: list[float], rejected: list[float]):
    return torch.tensor(chosen), torch.tensor(rejected)


def test_marks_by_hand() -> None:
    """Differences ln 2, -ln 2, 0, ln 6.

    p(chosen better) = 2/3, 1/3, 1/2, 6/7, so the loss is (ln 3/2 + ln 3 + ln 2 + ln 7/6) / 4; right, wrong, a tie
    (half) and right make 2.5 of 4. Bins of the preferred side's probability are 0.05 wide from 0.5 on: the tie is in
    the first (0.5, half right), both of 2/3 in the fourth (0.65 to 0.70, one of two right), 0.857 in the eighth.
    """
    found = marks(*scored([math.log(2), 0.0, 1.0, math.log(6)], [0.0, math.log(2), 1.0, 0.0]))
    nats = [math.log(3 / 2), math.log(3), math.log(2), math.log(7 / 6)]
    assert found.loss == pytest.approx(sum(nats) / 4, abs=1e-6)
    assert found.accuracy == 0.625 and found.rows == 4
    assert found.margin == pytest.approx(math.log(6) / 4, abs=1e-6)
    filled = {place: (one.rows, round(one.confidence, 4), one.accuracy)
              for place, one in enumerate(found.bins) if one.rows}  # fmt: skip
    assert filled == {0: (1, 0.5, 0.5), 3: (2, 0.6667, 0.5), 7: (1, 0.8571, 1.0)}
    # gaps: 0 for the tie, 2 x (2/3 - 1/2), 1 x (1 - 6/7), over 4 pairs
    assert found.ece == pytest.approx((1 / 3 + 1 / 7) / 4, abs=1e-6)
    assert len(found.bins) == BINS and found.bins[0].low == 0.5 and found.bins[-1].high == 1.0


def test_no_clue_is_ln_2_and_half_right() -> None:
    found = marks(*scored([0.5] * 3, [0.5] * 3))
    assert found.loss == pytest.approx(math.log(2)) and found.accuracy == 0.5 and found.margin == found.ece == 0


def test_a_margin_raises_the_loss_alone() -> None:
    """-ln sigmoid(2 - 2) = ln 2; order and distance are those of the scores."""
    plain, asked = marks(*scored([2.0], [0.0])), marks(*scored([2.0], [0.0]), torch.tensor([2.0]))
    assert asked.loss == pytest.approx(math.log(2)) and plain.loss == pytest.approx(math.log(1 + math.exp(-2)))
    assert (asked.accuracy, asked.margin, asked.ece) == (plain.accuracy, plain.margin, plain.ece)


def test_certainty_stays_in_the_last_bin() -> None:
    found = marks(*scored([1000.0, -1000.0], [0.0, 0.0]))
    assert found.bins[-1].rows == 2 and found.bins[-1].accuracy == 0.5 and found.ece == pytest.approx(0.5)
    assert found.loss == 500.0  # ln(1 + e^1000) / 2, without overflow


def pairs(count: int) -> list[PairRow]:
    """Rows of unequal length, so that there is filler on both sides."""
    draw = np.random.default_rng(3)

    def row() -> Row:
        size = int(draw.integers(2, 9))
        return Row(draw.integers(1, 30, size).tolist(), [False] + [True] * (size - 1))

    return [PairRow(row(), row(), margin=float(number % 2)) for number in range(count)]


@pytest.fixture
def model() -> Classifier:
    config = ModelConfig(family="llama", vocabulary=30, context=12, width=16, layers=1, heads=2, dropout_shortcut=0.5)
    made = Classifier(build(config, seed=3), HeadConfig(("reward",), kind="reward"), seed=5)
    made.score.weight.data.mul_(50)
    return made


def alone(model: Classifier, row: Row) -> float:
    with torch.inference_mode():
        return float(model(torch.tensor([row.ids])))


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_a_model_is_judged_as_its_rows_alone_say(model: Classifier, batch: int) -> None:
    """Whatever shares a batch with them, in evaluation mode although the model is in training."""
    rows, source = pairs(7), WholePairs(pairs(7), pad=0)
    model.train()
    found = mark_ranking(model, sequential(source, batch, lengths=source.lengths), longer_baseline=0.5)
    assert model.training
    model.eval()
    both = [(alone(model, row.chosen), alone(model, row.rejected)) for row in rows]
    wanted = [math.log1p(math.exp(-(chosen - rejected - row.margin)))
              for (chosen, rejected), row in zip(both, rows, strict=True)]  # fmt: skip
    assert found.loss == pytest.approx(sum(wanted) / 7, abs=1e-5)
    assert found.accuracy == sum(chosen > rejected for chosen, rejected in both) / 7
    assert found.margin == pytest.approx(sum(chosen - rejected for chosen, rejected in both) / 7, abs=1e-5)
    values = torch.tensor(both).flatten().double()
    mean, spread = mean_and_spread(model, sequential(source, batch))
    assert mean == pytest.approx(float(values.mean()), abs=1e-5)
    assert spread == pytest.approx(float(values.std(correction=0)), abs=1e-5) and spread > 0.01


def test_looking_draws_no_random_number(model: Classifier) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    mark_ranking(model.train(), sequential(WholePairs(pairs(3), pad=0), 2))
    assert torch.equal(torch.get_rng_state(), before)


class Same(nn.Linear):
    """A model that gives every row the same answer."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__(1, 1)
        self.answer = answer

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(tokens), -1)


def test_what_gives_no_scores_is_refused() -> None:
    batch = Batch(torch.ones(2, 3, dtype=torch.long), 1.0, {"lengths": torch.tensor([3, 3])})
    with pytest.raises(ModelError, match=r"answers \(2, 2\) to 2 rows"):
        mark_ranking(Same(torch.zeros(1, 2)), [batch])
    with pytest.raises(ModelError, match="not finite"):
        mark_ranking(Same(torch.tensor([[math.nan]])), [batch])
    assert mean_and_spread(Same(torch.tensor([[4.0]])), [batch]) == (4.0, 0.0)
    for judge in (mark_ranking, mean_and_spread):
        with pytest.raises(DataError, match="no batches came"):
            judge(Same(torch.zeros(1, 1)), [])
    odd = Batch(torch.ones(3, 2, dtype=torch.long), 1.0, {"lengths": torch.tensor([2, 2, 2])})
    with pytest.raises(DataError, match="holds no pairs"):
        next(pair_scores(Same(torch.zeros(1, 1)), [odd]))
    with pytest.raises(DataError, match="no pairs to judge"):
        marks(torch.zeros(0), torch.zeros(0))


def test_what_the_journal_and_the_line_say() -> None:
    found = marks(*scored([1.0], [0.0]), longer_baseline=0.75)
    look = Look(found, train_accuracy=0.5)
    assert look.loss == found.loss
    assert look.record() == {"loss": found.loss, "accuracy": 1.0, "margin": 1.0, "ece": found.ece,
                             "longer_baseline": 0.75, "train_accuracy": 0.5}  # fmt: skip
    assert look.words() == (
        "0.313  accuracy 100.00 %  margin +1.000  (by length alone 75.00 %)  train accuracy 50.00 %"
    )
    assert "longer_baseline" not in marks(*scored([1.0], [0.0])).record()


def of_lengths(*lengths: tuple[int, int]) -> list[Preference]:
    return [Preference(ASKED, "a" * chosen, "b" * rejected) for chosen, rejected in lengths]


@pytest.mark.parametrize(
    ("train", "prefers", "share"),
    [
        (of_lengths((5, 2), (6, 1), (1, 3)), "longer", 0.375),
        (of_lengths((2, 5), (1, 6), (3, 1)), "shorter", 0.625),
        (of_lengths((2, 5), (5, 2)), "longer", 0.375),
    ],
)
def test_the_rule_of_length_is_learnt_from_training_pairs_alone(
    train: list[Preference], prefers: str, share: float
) -> None:
    """Of the test pairs one chosen answer is longer, two are shorter, one is as long: (1 + 1/2) / 4 = 0.375."""
    rule = LengthRule.learnt(train)
    assert rule.prefers == prefers
    assert rule.accuracy(of_lengths((9, 8), (1, 2), (3, 4), (5, 5))) == share
    with pytest.raises(DataError, match="no pairs to judge by length"):
        rule.accuracy([])


def test_the_worst_pairs() -> None:
    found = worst(of_lengths((1, 1), (2, 2), (3, 3), (4, 4)), [-1.0, 0.0, 2.0, -5.0], most=1)
    assert [(one["chosen"], one["ahead"], one["prompt"]) for one in found] == [("aaaa", -5.0, "Who?")]
    assert len(worst(of_lengths((1, 1), (2, 2)), [-1.0, -0.5], most=10)) == 2


def test_the_worst_pairs_show_the_whole_question() -> None:
    asked = ({"role": "user", "content": "Add.", "input": "1, 2"},)
    assert worst([Preference(asked, "3", "4")], [-1.0], most=1)[0]["prompt"] == "Add.\n1, 2"


def test_what_is_told_of_the_test() -> None:
    test = {"step": 8, "length_rule": "shorter", "worst": [], **vars(marks(*scored([0.0, 2.0], [1.0, 0.0])))}
    good = told(test | {"longer_baseline": 0.4}, step=8)
    assert len(good) == 2 and "50.00 %" in good[0] and good[1].startswith("shorter") and "40.00 %" in good[1]
    poor = told(test | {"longer_baseline": 0.5}, step=9)
    assert any("no better than always to take the shorter answer" in line for line in poor)
    assert any("weights of step 8" in line for line in poor)
