"""How good a reward model is: how often the better answer of a pair gets the higher score, and whether it knows when.

In: a model that scores and batches of pairs. Out: `PairMarks`. `LengthRule` is what it must beat: a rule that looks at
nothing but which answer is longer. Shapes: B pairs, N pairs of all batches, T time.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from groundup.batches.batch import Batch
from groundup.errors import DataError, ModelError
from groundup.evaluate.classes import Bin, finite
from groundup.losses.ranking import bradley_terry, pairs, right
from groundup.machine import Machine
from groundup.text import conversations
from groundup.text.preferences import Preference, chosen_is_longer

BINS = 10  # of the probability of the answer that is preferred, which is 1/2 at least
FLAT = 1e-6  # a spread below it is none: all scores are the same


@dataclass(frozen=True)
class PairMarks:
    """A reward model judged on `rows` pairs.

    loss: mean of `losses.ranking.bradley_terry` in nats, with the margins that the pairs bring; ln 2 for a model that
    tells nothing apart. accuracy: share of the pairs whose chosen answer has the higher score; equal scores count half.
    margin: mean raw score of the chosen answers minus that of the rejected ones.
    ece, bins: calibration. A difference d of raw scores says that the chosen answer is better with p = sigmoid(d); the
        preferred one has max(p, 1 - p), by which the pairs are put into bins, and each should be right so often (Guo et
        al. 2017, equation 3, for two classes).
    longer_baseline: accuracy on these pairs of the `LengthRule` that was learnt from the training pairs, if any.
    """

    loss: float
    accuracy: float
    margin: float
    ece: float
    bins: tuple[Bin, ...]
    rows: int
    longer_baseline: float | None = None

    def record(self) -> dict[str, float]:
        """The numbers of a line in the journal."""
        found = {"loss": self.loss, "accuracy": self.accuracy, "margin": self.margin, "ece": self.ece}
        return found if self.longer_baseline is None else found | {"longer_baseline": self.longer_baseline}

    def words(self) -> str:
        """The same for a person, in a line that begins with the loss.

        >>> marks(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), longer_baseline=1.0).words()
        '0.813  accuracy 50.00 %  margin +0.000  (by length alone 100.00 %)'
        """
        said = f"{self.loss:.3f}  accuracy {100 * self.accuracy:.2f} %  margin {self.margin:+.3f}"
        if self.longer_baseline is None:
            return said
        return f"{said}  (by length alone {100 * self.longer_baseline:.2f} %)"


def marks(
    chosen: Tensor, rejected: Tensor, margin: Tensor | None = None, *, longer_baseline: float | None = None
) -> PairMarks:
    """The marks of raw scores (N,) of both sides; margin (N,): what the loss asks for. Raises DataError without pairs.

    >>> found = marks(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 1.0]))
    >>> found.accuracy, found.margin, round(found.loss, 4)  # the second pair is a tie; (ln(1 + e^-3) + ln 2) / 2
    (0.75, 1.5, 0.3709)
    """
    if not len(chosen):
        raise DataError("there are no pairs to judge: no batches came", "give a file with at least one pair")
    chosen, rejected = chosen.double(), rejected.double()
    each = bradley_terry(chosen, rejected, None if margin is None else margin.double())
    wins, ahead = right(chosen, rejected).double(), chosen - rejected
    bins = _bins(ahead.abs().sigmoid(), wins)
    gaps = sum(one.rows * abs(one.confidence - one.accuracy) for one in bins)
    return PairMarks(
        loss=float(each.mean()),
        accuracy=float(wins.mean()),
        margin=float(ahead.mean()),
        ece=gaps / len(ahead),
        bins=bins,
        rows=len(ahead),
        longer_baseline=longer_baseline,
    )


def mark_ranking(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    machine: Machine | None = None,
    longer_baseline: float | None = None,
) -> PairMarks:
    """Judge a reward model on batches of pairs (batches/pairs.py, `WholePairs`), each pair once.

    The model judges in evaluation mode and is put back; no random number is drawn. Raises DataError without batches,
    ModelError where the scores are not one a row, or not finite.

    >>> first = nn.Linear(1, 1)  # stands for a model: it scores a text by its first id
    >>> first.forward = lambda tokens, lengths: tokens[:, :1].float()
    >>> fields = {"lengths": torch.ones(4, dtype=torch.long), "margin": torch.zeros(2)}
    >>> mark_ranking(first, [Batch(torch.tensor([[2], [9], [1], [3]]), 2.0, fields)]).accuracy
    1.0
    """
    sides = [*pair_scores(model, batches, machine=machine)]
    if not sides:
        raise DataError("there are no pairs to judge: no batches came", "give a file with at least one pair")
    chosen, rejected, margin = (torch.cat(parts) for parts in zip(*sides, strict=True))
    return marks(chosen, rejected, margin, longer_baseline=longer_baseline)


def pair_scores(
    model: nn.Module, batches: Iterable[Batch], *, machine: Machine | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Raw scores of the chosen and of the rejected answers, and margins, (B,) each, on the CPU, batch by batch.

    Raises ModelError where the scores are not one a row, or not finite.
    """
    for batch in batches:
        count = pairs(batch)
        with judging(model, machine) as device:
            moved = batch.to(device)
            scores: Tensor = model(moved.tokens, lengths=moved.fields["lengths"])  # (2 B, 1)
        if scores.shape != (2 * count, 1):
            raise ModelError(
                f"the model answers {tuple(scores.shape)} to {2 * count} rows",
                "a reward model gives one score a row: take one that groundup reward made",
            )
        chosen, rejected = finite(scores).float().cpu()[:, 0].chunk(2)  # (2 B, 1) -> (B,), twice
        yield chosen, rejected, batch.fields.get("margin", torch.zeros(count)).cpu()


def mean_and_spread(
    model: nn.Module, batches: Iterable[Batch], *, machine: Machine | None = None
) -> tuple[float, float]:
    """Mean and standard deviation of the raw scores of both answers of all pairs; a deviation of nothing is 0.

    Raises as `mark_ranking`.

    >>> first = nn.Linear(1, 1)  # stands for a model: it scores a text by its first id
    >>> first.forward = lambda tokens, lengths: tokens[:, :1].float()
    >>> pair = Batch(torch.tensor([[5], [1]]), 1.0, {"lengths": torch.ones(2, dtype=torch.long)})
    >>> mean_and_spread(first, [pair])
    (3.0, 2.0)
    """
    sides = [torch.cat((chosen, rejected)) for chosen, rejected, _ in pair_scores(model, batches, machine=machine)]
    if not sides:
        raise DataError("there are no pairs to score: no batches came", "give a file with at least one pair")
    values = torch.cat(sides).double()
    spread = float(values.std(correction=0))
    return float(values.mean()), spread if spread > FLAT else 0.0


@contextlib.contextmanager
def judging(model: nn.Module, machine: Machine | None = None) -> Iterator[torch.device]:
    """Within it the model judges: evaluation mode, no gradients, the machine's number format; gives the device."""
    device = machine.device if machine else next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), machine.autocast() if machine else contextlib.nullcontext():
            yield device
    finally:
        model.train(was_training)


def _bins(sure: Tensor, wins: Tensor) -> tuple[Bin, ...]:
    """Pairs by the probability (N,) of the preferred answer, from 1/2 to 1; wins (N,): whether it is the chosen one."""
    # bins are open below and closed above, as those of classes.py; a tie, at exactly 1/2, is put into the first
    place = ((sure - 0.5) * 2 * BINS).ceil().long().clamp(1, BINS) - 1
    sums = torch.zeros(3, BINS, dtype=torch.float64)
    sums.index_add_(1, place, torch.stack([torch.ones_like(sure), sure, wins]))
    bounds = [0.5 + number / (2 * BINS) for number in range(BINS + 1)]
    return tuple(
        Bin(low, high, int(rows), total / max(rows, 1), won / max(rows, 1))
        for low, high, rows, total, won in zip(bounds, bounds[1:], *sums.tolist(), strict=False)
    )


@dataclass(frozen=True)
class LengthRule:
    """Prefer the longer answer, or the shorter one: whichever is right more often in the pairs it was learnt from.

    People and generators of data tend to like one of them, and a reward model that learns nothing else looks as if it
    had learnt something: its accuracy means what it has beyond that of this rule. Lengths are characters.
    """

    prefers: Literal["longer", "shorter"]

    @classmethod
    def learnt(cls, preferences: Sequence[Preference]) -> Self:
        """The rule of these pairs; the longer where both are right as often.

        >>> talk = ({"role": "user", "content": "Who?"},)
        >>> LengthRule.learnt([Preference(talk, "Mira.", "It was Mira."), Preference(talk, "Bo.", "Nobody.")]).prefers
        'shorter'
        """
        return cls("longer" if cls("longer").accuracy(preferences) >= 0.5 else "shorter")

    def accuracy(self, preferences: Sequence[Preference]) -> float:
        """Share of the pairs where the rule picks the chosen answer; equal lengths count half. Raises DataError."""
        if not preferences:
            raise DataError("there are no pairs to judge by length", "give at least one pair")
        longer = chosen_is_longer(preferences)
        return longer if self.prefers == "longer" else 1 - longer


# the test


def worst(preferences: Sequence[Preference], ahead: Sequence[float], *, most: int) -> list[dict[str, Any]]:
    """The pairs in the wrong order, first the one whose rejected answer is the farthest before the chosen one.

    `ahead`: raw score of the chosen answer minus that of the rejected one, for each pair.

    >>> rows = [Preference(({"role": "user", "content": "Who?"},), name, "Nobody") for name in ("Mira", "Bo", "Ada")]
    >>> [one["chosen"] for one in worst(rows, [-0.5, 2.0, -3.0], most=10)]
    ['Ada', 'Mira']
    """
    wrong = sorted((gap, place) for place, gap in enumerate(ahead) if gap < 0)[:most]
    return [
        {
            "prompt": str(conversations.told(preferences[place].messages[-1:])[0]["content"]),
            "chosen": preferences[place].chosen,
            "rejected": preferences[place].rejected,
            "ahead": gap,
            "where": preferences[place].where,
        }
        for gap, place in wrong
    ]


def told(test: Mapping[str, Any], *, step: int) -> list[str]:
    """Lines for a person about a run's test.json: the marks, and beside them what length alone would get.

    step: of the weights that the run has now. One that went on has others than those that were tested, which is said.
    """
    rule = str(test["length_rule"])
    lines = [
        f"{'test':<12}accuracy {100 * test['accuracy']:6.2f} %   loss {test['loss']:.4f}   "
        f"margin {test['margin']:.3f}   calibration error {test['ece']:.4f}   ({test['rows']:,} pairs, read once)",
        f"{rule:<12}accuracy {100 * test['longer_baseline']:6.2f} %   by length alone",
    ]
    if test["step"] != step:
        lines.append(f"{'':<12}the test speaks of the weights of step {test['step']:,}, the run went on since")
    if test["accuracy"] <= test["longer_baseline"]:
        lines.append(f"{'':<12}the model is no better than always to take the {rule} answer")
    return lines
