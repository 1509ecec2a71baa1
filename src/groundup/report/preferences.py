"""Remarks on runs that learn from pairs: a reward model that goes by length, answers that all become unlikely.

In: a `Run` of `groundup reward` or `groundup dpo`. Out: a `Remark` of each rule, or None. Rewards of a DPO run are beta
times how much likelier an answer is than under the reference, in nats (Rafailov et al. 2023, section 4).
"""

import math

import numpy as np

from groundup.report.curves import ends
from groundup.report.read import Run, number
from groundup.report.remark import Remark, rate

UNLEARNT = ("like the length", "like a coin")
COIN = 0.55  # right in so many pairs or fewer: hardly more than chance
ERROR = 2.0  # standard errors by which two shares must differ
FAR = 20.0  # nats an answer: e^20 times less likely, or more, than the reference has it
FALLEN = 0.5  # of a reward: less is the noise of single batches


def like_length(run: Run) -> Remark | None:
    """A reward model that is right no more often than one that looks at lengths alone."""
    right, length, rows = _accuracy(run), _of_length(run), number(run.test.get("rows"))
    if not length > COIN or math.isnan(right):  # where length tells nothing, nothing is gained by going by it
        return None
    blur = ERROR * math.sqrt(length * (1 - length) / rows) if rows >= 1 else 0.02
    if right > length + blur:
        return None
    return Remark(
        "like the length", "problem" if right <= length else "warning",
        f"{right:.1%} of the held-out pairs are in the right order; going by the length of the answers alone would "
        f"be right in {length:.1%}.",
        "The score may be nothing but a measure of length. A model that is trained with it learns to write longer, or "
        "shorter, and nothing else.",
        "Look at pairs whose better answer has the unusual length (`groundup score --file`), give more of them, and "
        "compare scores of one answer said briefly and at length.",
    )  # fmt: skip


def like_a_coin(run: Run) -> Remark | None:
    """No order learnt at all."""
    right = _accuracy(run)
    if math.isnan(right) or right > COIN:
        return None
    early = not run.finished
    return Remark(
        "like a coin", "note" if early else "problem", f"{right:.1%} of the held-out pairs are in the right order.",
        "That is what tossing a coin gives: what makes an answer better has not been found.",
        "It is early; look again later." if early else
        f"Try more --epochs or a higher learning rate{rate(run)}; and read some pairs yourself (`groundup show-batch "
        f"{run.command}`): would you have known?",
    )  # fmt: skip


def both_falling(run: Run) -> Remark | None:
    """Chosen and rejected answers both became unlikelier than they were."""
    moved = [_moved(run, name) for name in ("chosen_reward", "rejected_reward")]
    if not all(side is not None and side < -FALLEN for side in moved):
        return None
    chosen, rejected = (float(side) for side in moved if side is not None)
    beta = run.value("beta")
    times = f" ({-chosen / beta:.0f} nats at beta {beta:g})" if beta else ""
    return Remark(
        "both rewards fall", "warning" if beta and chosen / beta < -FAR else "note",
        f"The reward of the chosen answers fell by {-chosen:.2f}{times}, that of the rejected ones by "
        f"{-rejected:.2f}: the margin grew by {chosen - rejected:.2f}.",
        "Both became less likely than they were. The loss asks only for the distance between them, so the "
        "margin is what counts; but what both have lost went to answers that nobody has judged.",
        f"Read the samples. If they got worse: fewer steps, a lower --lr{rate(run)}, a larger --beta, or --loss orpo, "
        "which also learns the chosen answers themselves.",
    )  # fmt: skip


def margin_alone(run: Run) -> Remark | None:
    """The margin grows, and not one more pair of validation is in the right order."""
    margins, right = (run.evaluations.whole(name)[1] for name in ("margin", "accuracy"))
    if len(margins) < 4 or len(margins) != len(right):
        return None
    half = len(margins) // 2
    if not margins[-1] > 1.25 * margins[half] > 0 or right[-1] > right[half]:
        return None
    return Remark(
        "margin alone", "warning",
        f"In the second half of the run the validation margin grew from {margins[half]:.2f} to {margins[-1]:.2f}, "
        f"while the share of pairs in the right order went from {right[half]:.1%} to {right[-1]:.1%}.",
        "Pairs that were right already are pushed further apart. That lowers the loss, moves the model away from its "
        "reference, and decides nothing new.",
        "Fewer steps would do; --loss ipo stops at a margin of its own, --smoothing keeps answers from being sure.",
    )  # fmt: skip


def drifting(run: Run) -> Remark | None:
    """The answers of the data are much more, or much less likely than under the reference."""
    steps, values = _measured(run, "drift")
    if len(values) < 2 or abs(values[-1]) < FAR:
        return None
    runaway = abs(values[-1]) > 1.2 * abs(values[len(values) // 2])
    return Remark(
        "drift", "warning" if runaway else "note",
        f"At step {steps[-1]:,} the answers of the data are {abs(values[-1]):.0f} nats "
        f"{'less' if values[-1] < 0 else 'more'} likely than under the reference"
        + (", and moving on." if runaway else "."),
        "The model has gone far from where it came from. What it knew beside these pairs (facts, languages, how to "
        "end an answer) is no longer held in place.",
        f"A larger --beta holds it closer, a lower --lr{rate(run)} or fewer steps stop it earlier; compare with the "
        "model before: `groundup compare`.",
    )  # fmt: skip


def in_order(run: Run) -> Remark | None:
    """A good word: more pairs are in the right order than before."""
    found = ends(_measured(run, "accuracy")[1])
    if found is None or not found[1] > max(found[0], COIN):
        return None
    margin = _last(run, "margin")
    beside = f", with a margin of {margin:.2f}" if margin is not None else ""
    length = _of_length(run)
    told = f" Going by length alone would be right in {length:.1%}." if length > 0 else ""
    return Remark(
        "in order", "good", f"{found[1]:.1%} of the pairs are in the right order, {found[0]:.1%} at first{beside}.",
        f"No sign of memorising, or of a model that ran away from its reference.{told}", "Nothing needs to be mended.",
    )  # fmt: skip


REWARD = (like_length, like_a_coin)
DPO = (like_a_coin, both_falling, margin_alone, drifting)


def _measured(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of validation, where it has this number more than once, else of training."""
    found = run.evaluations.whole(name)
    return found if len(found[0]) > 1 else run.train.whole(name)


def _last(run: Run, name: str) -> float | None:
    """The last value: of validation, else the mean over the last tenth of training."""
    evaluated = run.evaluations.whole(name)[1]
    found = ends(run.train.whole(name)[1])
    return float(evaluated[-1]) if len(evaluated) else found[1] if found else None


def _moved(run: Run, name: str) -> float | None:
    """How far a number has gone from its first value: 0 under a reference, which the model began as."""
    last, first = _last(run, name), run.train.whole(name)[1][:1]
    if last is None:
        return None
    free = run.settings.get("loss") in ("simpo", "orpo")
    return last - float(first[0]) if free and len(first) else last


def _accuracy(run: Run) -> float:
    """Share of held-out pairs in the right order: of the test where it was read, else of the last validation."""
    tested, evaluated = number(run.test.get("accuracy")), run.evaluations.whole("accuracy")[1]
    return tested if not math.isnan(tested) else float(evaluated[-1]) if len(evaluated) else math.nan


def _of_length(run: Run) -> float:
    """Share of pairs that who goes by length alone has right; NaN where nobody measured it."""
    evaluated = run.evaluations.whole("longer_baseline")[1]
    tested = number(run.test.get("longer_baseline"))
    return tested if not math.isnan(tested) else float(evaluated[-1]) if len(evaluated) else math.nan
