"""Which of two answers a model finds likelier, by how much, and how far it went from its reference for that.

In: a model, batches of pairs (batches/pairs.py), and the loss that they are learnt with. Out: `PreferenceMarks`; and
the log-probabilities of both answers, which a reference says once (`pair_log_probabilities`).

Shapes: B pairs, T time; a batch has 2 B rows, first the chosen answers, then the rejected ones.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.batches.batch import Batch
from groundup.batches.pairs import Pairs
from groundup.errors import DataError
from groundup.journal import Progress
from groundup.losses import Loss
from groundup.losses.preference import answers
from groundup.machine import Machine

FAR = 20.0  # nats an answer: e^20 times less likely than at first, or more


@dataclass(frozen=True)
class PreferenceMarks:
    """A model judged on `pairs` pairs; all other numbers are means over them.

    loss: as it is learnt. accuracy: share whose chosen answer has the higher reward; equal ones count half, so that a
        model which is its own reference has 0.5. margin: reward of the chosen answer minus that of the rejected one.
    chosen_reward, rejected_reward: what the loss takes for the reward of an answer: beta times how much likelier it is
        than under the reference, in nats (Rafailov et al. 2023, "Direct Preference Optimization", section 5), or what a
        loss without reference puts in its place.
    chosen_logp, rejected_logp: log-probability of the answer in nats.
    drift: how much likelier than under the reference the answers of the data are, in nats per answer, both sides
        together; below 0: less likely. It is no KL: those answers are not the model's own. None without a reference.
    """

    loss: float
    accuracy: float
    margin: float
    chosen_reward: float
    rejected_reward: float
    chosen_logp: float
    rejected_logp: float
    drift: float | None
    pairs: int

    def record(self) -> dict[str, float | None]:
        """The numbers of a line in the journal."""
        return {name: value for name, value in vars(self).items() if name != "pairs"}

    def words(self) -> str:
        """The same for a person, in a line that begins with the loss.

        >>> PreferenceMarks(0.5981, 0.75, 0.2, -0.1, -0.3, -12.0, -15.0, -2.0, 4).words()
        '0.598  right 75.0 %  margin 0.200  rewards -0.100 and -0.300  drift -2.0 nats'
        """
        drift = "" if self.drift is None else f"  drift {self.drift:.1f} nats"
        return (
            f"{self.loss:.3f}  right {100 * self.accuracy:.1f} %  margin {self.margin:.3f}  "
            f"rewards {self.chosen_reward:.3f} and {self.rejected_reward:.3f}{drift}"
        )


def mark_preference(
    model: nn.Module, batches: Iterable[Batch], *, loss: Loss, machine: Machine | None = None
) -> PreferenceMarks:
    """Judge a model on batches of pairs, each pair once; sums are float64.

    `loss` (losses/preference.py) answers with sums over the pairs, and so do its numbers. The model judges in
    evaluation mode and is put back; no random number is drawn. Raises DataError without batches.

    >>> told = {"accuracy": 1.0, "chosen_logp": -6.0, "rejected_logp": -8.0}
    >>> told |= dict.fromkeys(("margin", "chosen_reward", "rejected_reward"), 0.0)
    >>> coin = lambda model, batch: (torch.tensor(1.3863), told)  # of two pairs that the model cannot tell apart
    >>> marks = mark_preference(nn.Linear(1, 1), [Batch(torch.zeros(4, 3), 2.0)], loss=coin)
    >>> marks.loss, marks.accuracy, marks.chosen_logp, marks.drift
    (0.6931, 0.5, -3.0, None)
    """
    sums: dict[str, float] = defaultdict(float)  # Python floats are float64
    device = machine.device if machine else next(model.parameters()).device
    with _judging(model):
        for batch in batches:
            total, numbers = _summed(model, batch.to(device), loss, machine)
            sums["pairs"] += batch.count
            for name, value in (numbers | {"loss": total}).items():
                sums[name] += float(value)
    if not sums["pairs"]:
        raise DataError("there are no pairs to judge: no batches came", "give a file with at least one pair")
    means = {name: value / sums["pairs"] for name, value in sums.items()}
    known = {name: means[name] for name in PreferenceMarks.__dataclass_fields__ if name in means}
    return PreferenceMarks(**{"drift": None} | known | {"pairs": round(sums["pairs"])})  # type: ignore[arg-type]


def pair_log_probabilities(
    model: nn.Module, source: Pairs, rows: int, *, machine: Machine | None = None
) -> NDArray[np.float32]:
    """log p of both answers of every pair in nats, summed over their tokens, (n, 2): first the chosen one.

    `rows` pairs are read at once, those of like length together; products run in the number format of training, and
    nothing is dropped. The model is put back as it was.

    >>> pair_log_probabilities(model, pairs, 8, machine=machine)  # doctest: +SKIP
    array([[-12.4, -15.1], [-30.2, -28.8]], dtype=float32)
    """
    device = machine.device if machine else next(model.parameters()).device
    found = np.zeros((len(source), 2), dtype=np.float32)
    order = np.argsort(source.lengths, kind="stable")
    quiet = machine is not None and not machine.is_main
    with _judging(model), Progress("reference", total=len(source), unit="pairs", quiet=quiet) as line:
        for first in range(0, len(order), rows):
            places = order[first : first + rows]
            sides = _log_p(model, source.batch(places).to(device), machine).view(2, len(places))  # (2 B,) -> (2, B)
            found[places] = sides.T.cpu().numpy()
            line.update(first + len(places))
    return found


def fallen(looks: Sequence[Mapping[str, Any]]) -> str:
    """A remark where the chosen answers became much less likely in a run, or "": looks are records of `eval` in order.

    It is for losses without a reference, which have no drift to show it.

    >>> fallen([{"chosen_logp": -20.0}, {"chosen_logp": -65.0}])[:67]
    'The chosen answers became 45 nats less likely (log-probability -20 '
    >>> fallen([{"chosen_logp": -20.0}, {"chosen_logp": -25.0}])
    ''
    """
    values = [float(look["chosen_logp"]) for look in looks if look.get("chosen_logp") is not None]
    if len(values) < 2 or not values[0] - values[-1] > FAR:
        return ""
    return (
        f"The chosen answers became {values[0] - values[-1]:.0f} nats less likely (log-probability {values[0]:.0f} at "
        f"first, {values[-1]:.0f} at the end): what they lost went to answers that nobody has judged. Read the "
        "samples: if they got worse, fewer steps or a lower --lr would have kept more."
    )


@contextlib.contextmanager
def _judging(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and afterwards as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.inference_mode()
def _summed(model: nn.Module, batch: Batch, loss: Loss, machine: Machine | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch and its numbers, all sums over its pairs."""
    with machine.autocast() if machine else contextlib.nullcontext():
        return loss(model, batch)


@torch.inference_mode()
def _log_p(model: nn.Module, batch: Batch, machine: Machine | None) -> Tensor:
    """log p (2 B,) of the answer in each row."""
    with machine.autocast() if machine else contextlib.nullcontext():
        return answers(model, batch)[0]
