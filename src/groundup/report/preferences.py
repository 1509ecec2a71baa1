"""Remarks on runs that learn from pairs: a reward model that goes by length, answers that all become unlikely.

In: a `Run` of `groundup reward` or `groundup dpo`. Out: a `Remark` of each rule, or None. Rewards of a DPO run are beta
times how much likelier an answer is than under the reference, in nats (Rafailov et al. 2023, section 4); of simpo and
orpo, which have no reference, and with --average they are per token.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from groundup.report.curves import ends
from groundup.report.figures import outdated
from groundup.report.read import Run, number
from groundup.report.remark import Remark, rate

WITHOUT_REFERENCE = ("simpo", "orpo")  # as of losses/preference.py, which a page need not load
UNLEARNT = ("like the length", "like a coin")
COIN = 0.55  # right in so many pairs or fewer: hardly more than chance
ERROR = 2.0  # standard errors by which two shares must differ
FAR = 20.0  # nats an answer: e^20 times less likely, or more, than the reference has it
FALLEN = 0.5  # of a reward: less is the noise of single batches


def like_length(run: Run) -> Remark | None:
    """A reward model that is right no more often than one that looks at lengths alone."""
    right, length, rows = _accuracy(run), _of_length(run), number(_tested(run).get("rows"))
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
    free, per_token = _free(run), _free(run) or bool(run.settings.get("average"))
    beta = 0.0 if per_token else run.value("beta")
    times = " a token" if per_token else f" ({-chosen / beta:.0f} nats at beta {beta:g})" if beta else ""
    orpo = run.settings.get("loss") == "orpo"
    other = "" if orpo else ", or --loss orpo, which also learns the chosen answers themselves"
    return Remark(
        "both rewards fall", "warning" if beta and chosen / beta < -FAR else "note",
        f"The reward of the chosen answers fell by {-chosen:.2f}{times}, that of the rejected ones by "
        f"{-rejected:.2f}: the margin {'grew' if chosen > rejected else 'shrank'} by {abs(chosen - rejected):.2f}.",
        "Both became less likely than they were. The loss asks only for the distance between them, so the "
        "margin is what counts; but what both have lost went to answers that nobody has judged."
        if not orpo else
        "Both became less likely than they were, although this loss learns the chosen answers too: what both have lost "
        "went to answers that nobody has judged.",
        f"Read the samples. If they got worse: fewer steps, a lower --lr{rate(run)}"
        f"{', a smaller --beta' if orpo else '' if free else ', a larger --beta'}{other}.",
    )  # fmt: skip


def margin_alone(run: Run) -> Remark | None:
    """The margin grows, and not one more pair of validation is in the right order."""
    margins, right = (run.evaluations.whole(name)[1] for name in ("margin", "accuracy"))
    if len(margins) < 4 or len(margins) != len(right):
        return None
    half = len(margins) // 2
    if not margins[-1] > 1.25 * margins[half] > 0 or right[-1] > right[half]:
        return None
    ipo = "--loss ipo stops at a margin of its own"
    others = {"ipo": "", "sigmoid": f"; {ipo}, --smoothing keeps answers from being sure"}
    return Remark(
        "margin alone", "warning",
        f"In the second half of the run the validation margin grew from {margins[half]:.2f} to {margins[-1]:.2f}, "
        f"while the share of pairs in the right order went from {right[half]:.1%} to {right[-1]:.1%}.",
        "Pairs that were right already are pushed further apart. That lowers the loss, moves the model away from "
        f"{'what it was' if _free(run) else 'its reference'}, and decides nothing new.",
        "Fewer steps would do" + others.get(str(run.settings.get("loss", "sigmoid")), f"; {ipo}") + ".",
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
    signs = ["memorising"] if len(run.evaluations.whole("loss")[1]) > 2 else []
    signs += ["a model that ran away from its reference"] if len(_measured(run, "drift")[1]) else []
    means = f"No sign of {', or of '.join(signs)}." if signs else ""
    return Remark(
        "in order", "good", f"{found[1]:.1%} of the pairs are in the right order, {found[0]:.1%} at first{beside}.",
        f"{means}{told}".strip(), "Nothing needs to be mended.",
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


def _free(run: Run) -> bool:
    """Whether the loss compares with no reference."""
    return run.settings.get("loss") in WITHOUT_REFERENCE


def _moved(run: Run, name: str) -> float | None:
    """How far a number has gone: in validation from the look before the first step, else in training from its start.

    Under a reference that the model began as, it began at 0.
    """
    own = not _free(run) and not run.settings.get("reference")
    steps, looks = run.evaluations.whole(name)
    if len(looks) > 1 and steps[0] == 0:
        return float(looks[-1] - looks[0])
    if len(looks) and own:
        return float(looks[-1])
    trained = run.train.whole(name)[1]
    found = ends(trained)
    return None if found is None else found[1] - (0.0 if own else float(trained[0]))


def _tested(run: Run) -> Mapping[str, Any]:
    """What test.json says of the weights that the run has now; nothing where it went on since."""
    return run.test if outdated(run) is None else {}


def _accuracy(run: Run) -> float:
    """Share of held-out pairs in the right order: of the test where it is of now, else of the last validation."""
    return _held_out(run, "accuracy")


def _of_length(run: Run) -> float:
    """Share of pairs that who goes by length alone has right; NaN where nobody measured it."""
    return _held_out(run, "longer_baseline")


def _held_out(run: Run, name: str) -> float:
    tested, evaluated = number(_tested(run).get(name)), run.evaluations.whole(name)[1]
    return tested if not math.isnan(tested) else float(evaluated[-1]) if len(evaluated) else math.nan
