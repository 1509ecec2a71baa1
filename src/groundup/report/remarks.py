"""What the records of a run mean, in plain language: seen, meaning, what to do.

In: `Run`. Out: `Remark`s, the gravest first. Each rule is a function of the run that answers with a remark or None; it
says only what the numbers show, and the numbers stand in its first sentence. Here are the rules about a loss that is
learnt; those about the course of a run are in course.py, about pairs in preferences.py, about rewards in rewarded.py.
"""

import math
from collections.abc import Callable

import numpy as np

from groundup.report import preferences, rewarded
from groundup.report.course import not_evaluated, part_of_text, skipped, slowed, small_validation, unfinished
from groundup.report.curves import value_at
from groundup.report.figures import best_evaluation, train_curve
from groundup.report.read import Run, number
from groundup.report.remark import ORDER, Remark, many, rate
from groundup.report.verbatim import Copied

Rule = Callable[[Run], Remark | None]
UNLEARNT = ("nothing learnt", "no better than guessing", *preferences.UNLEARNT, *rewarded.UNLEARNT)


def remarks(run: Run, copied: Copied | None = None) -> list[Remark]:
    """Everything there is to say about a run; a run with nothing wrong is told so.

    `copied`: what its last sample has in common with its training text.

    >>> [remark.kind for remark in remarks(Run())]
    ['not begun']
    """
    if not len(run.train):
        return [_not_begun(run)]
    found = [remark for rule in rules_for(run.command) if (remark := rule(run)) is not None]
    if copied and (remark := verbatim(copied)):
        found.append(remark)
    if not any(remark.severity in ("problem", "warning") or remark.kind in UNLEARNT for remark in found):
        found += [remark] if (remark := PRAISE.get(run.command, healthy)(run)) else []
    return sorted(found, key=lambda remark: ORDER.index(remark.severity))


def rules_for(command: str) -> tuple[Rule, ...]:
    """What is looked at in a run of this command.

    >>> diverging in rules_for("instruct"), diverging in rules_for("ppo")
    (True, False)
    """
    # a step of a classifier counts a few texts: its loss leaps by nature, and says little beside the marks
    leaping = (diverging, unsteady, spikes) if command == "classify" else ()
    return OTHERS.get(command, tuple(rule for rule in RULES if rule not in leaping))


def _not_begun(run: Run) -> Remark:
    first = run.evaluations.loss
    seen = "No training step has been written down yet"
    seen += f"; before training the validation loss is {first[0]:.3f}." if len(first) and run.command != "ppo" else "."
    means = "The run was only just started, or stopped before its first step."
    return Remark("not begun", "note", seen, means, f"Look again later, or start `groundup {run.command}`.")


def diverging(run: Run) -> Remark | None:
    """The training loss rose for good: far above its lowest, or above what guessing would give."""
    steps, losses = train_curve(run)
    if len(losses) < 10:
        return None
    lowest, last = int(losses.argmin()), float(losses[-1])
    guess = math.log(run.vocabulary) if run.vocabulary else math.inf
    worse_than_guessing = last > guess + 0.2 and run.step > 20
    if not worse_than_guessing and last < losses[lowest] * 1.15 + 0.1:
        return None
    seen = f"The training loss was {losses[lowest]:.2f} at step {steps[lowest]:,} and is {last:.2f} now"
    seen += f"; guessing at random would give {guess:.2f}." if worse_than_guessing else "."
    return Remark(
        "diverging", "problem", seen,
        "Training has come apart: each step overshoots, which nearly always means a learning rate that is too high.",
        f"Start again with a third of the learning rate{rate(run)}, and with a longer --warmup.",
    )  # fmt: skip


def unsteady(run: Run) -> Remark | None:
    """The loss went up beyond guessing, and came back."""
    steps, losses = train_curve(run)
    if not run.vocabulary or len(losses) < 10 or diverging(run):
        return None
    guess, highest = math.log(run.vocabulary), int(losses.argmax())
    if losses[highest] < guess + 0.5 or losses[highest] < losses[0] + 0.5:
        return None
    return Remark(
        "unsteady start" if steps[highest] < run.step / 2 else "unsteady", "warning",
        f"The training loss rose to {losses[highest]:.2f} at step {steps[highest]:,}, where guessing at random gives "
        f"{guess:.2f}, and came back to {losses[-1]:.2f}.",
        "The learning rate is at the edge of too high: the steps until the loss had come back were lost, and the model "
        "often stays worse than it could be.",
        f"Halve --lr{rate(run)}, or take more --warmup steps.",
    )  # fmt: skip


def nothing_learnt(run: Run) -> Remark | None:
    """The loss stands where a model stands that guesses: ln(vocabulary)."""
    steps, losses = train_curve(run)
    if not run.vocabulary or not len(losses):
        return None
    guess, last = math.log(run.vocabulary), float(losses[-1])
    if abs(last - guess) > 0.05 * guess:
        return None
    early = run.step < 20 or (run.planned is not None and run.step < run.planned // 20)
    return Remark(
        "nothing learnt", "note" if early else "problem",
        f"After {many(run.step, 'step')} the training loss is {last:.2f}, and ln({run.vocabulary:,}) is {guess:.2f}.",
        "That is what guessing among all tokens alike gives: nothing has been learnt yet.",
        "It is early; look again later." if early else
        f"Check that the text is what you think it is, then try another learning rate{rate(run)}.",
    )  # fmt: skip


def no_better(run: Run) -> Remark | None:
    """A classifier that is right no more often than one that never reads its texts."""
    if run.command != "classify" or not (seen := _like_guessing(run)):
        return None
    told_apart = number(run.test.get("macro_recall")) > 1.2 / max(_classes(run), 1)  # 1 / classes: one answer for all
    return Remark(
        "no better than guessing", "warning" if told_apart else "problem" if run.finished or run.test else "note", seen,
        "Counted by texts that are right, this classifier is worth no more than an answer given without reading.",
        f"Try --train all, more --epochs or another learning rate{rate(run)}, and check that texts and labels belong "
        "together. With --balance it may be the price of rare classes: look at their recall.",
    )  # fmt: skip


def _like_guessing(run: Run) -> str:
    """The numbers that show it, of the test rows where they were read, else of the validation loss; or nothing."""
    kept, best, classes = run.test.get("baselines"), best_evaluation(run), _classes(run)
    right, usual = number(run.test.get("accuracy")), number(kept.get("majority") if isinstance(kept, dict) else None)
    if right <= usual:
        return f"{right:.2%} of the test rows are right; the most frequent class for all would be right in {usual:.2%}."
    if best is None or classes < 2 or right > usual + 0.05:
        return ""
    loss, guess = float(run.evaluations.loss[best]), math.log(classes)
    return f"The validation loss is at best {loss:.3f}; ln({classes}) is {guess:.3f}." if loss > 0.95 * guess else ""


def _classes(run: Run) -> int:
    found = run.card.get("classes")
    return len(found) if isinstance(found, list) else 0


def memorising(run: Run) -> Remark | None:
    """Validation loss past its lowest while the training loss goes on falling."""
    best, (steps, losses) = best_evaluation(run), run.evaluations.whole()
    if best is None or len(losses) < 3:
        return None
    low, step, last = float(run.evaluations.loss[best]), int(run.evaluations.step[best]), float(losses[-1])
    trained = train_curve(run)
    fell = value_at(*trained, step) - value_at(*trained, int(steps[-1]))
    if last - low < max(0.01, 0.01 * low) or fell < 0.01:
        return None
    return Remark(
        "memorising", "problem" if last > 1.1 * low else "warning",
        f"Validation loss rises from step {step:,} ({low:.3f}) to {last:.3f} at step {steps[-1]:,}, "
        f"while training loss falls by {fell:.3f}.",
        "The model is memorising: it learns its training text by heart rather than what is common to all such text.",
        f"Use the weights of step {step:,}, kept in best/. More text helps most; else fewer steps, --dropout 0.2, or "
        "a smaller model.",
    )  # fmt: skip


def verbatim(copied: Copied) -> Remark | None:
    """A sample repeats its training text."""
    if not copied.passages:
        return None
    longest = max(len(passage.text) for passage in copied.passages)
    part = "" if copied.searched == copied.total else f" (in the first {copied.searched:,} tokens of it)"
    return Remark(
        "verbatim", "warning",
        f"The sample at step {copied.step:,} holds {many(len(copied.passages), 'passage')} word for word from the "
        f"training text{part}, {'the longest ' if len(copied.passages) > 1 else ''}of {longest} characters.",
        "What is repeated has been learnt by heart. Of public text that may be no harm; letters, names or anything "
        "under copyright could come out in the same way.",
        "Train for fewer epochs, give more text, or remove what must not be repeated.",
        tuple(passage.text for passage in copied.passages[:5]),
    )  # fmt: skip


def spikes(run: Run) -> Remark | None:
    """Single losses far above those around them."""
    found = spike_steps(*run.train.whole())
    if not len(found):
        return None
    shown = ", ".join(f"{step:,}" for step in found[:4]) + (" ..." if len(found) > 4 else "")
    return Remark(
        "loss spikes", "warning" if len(found) > max(5, len(run.train) // 200) else "note",
        f"The training loss leaps up {many(len(found), 'time')}: at {'step' if len(found) == 1 else 'steps'} {shown}.",
        "Odd text (tables, another language, one character over and over) or a learning rate at the edge of too high.",
        f"If the curve comes back at once, leave it. Otherwise lower --lr{rate(run)} or look at the text.",
    )  # fmt: skip


def spike_steps(steps: np.ndarray, losses: np.ndarray, *, reach: int = 15) -> np.ndarray:
    """Steps whose loss is far above both the median before and the median after: by 8 usual deviations, and 0.5 nats.

    Both, since a curve on its way down stands above what follows, and one that diverges above what came before. The
    usual deviation is the median distance between neighbours.

    >>> losses = np.tile([2.0, 2.1], 50)
    >>> losses[60] = 5.0
    >>> spike_steps(np.arange(100), losses).tolist()
    [60]
    """
    if len(losses) < 2 * reach + 1:
        return steps[:0]
    medians = np.median(np.lib.stride_tricks.sliding_window_view(losses, reach), axis=1)
    inner = slice(reach, len(losses) - reach)
    above = losses[inner] - np.maximum(medians[: -reach - 1], medians[reach + 1 :])
    return steps[inner][above > max(0.5, 8 * float(np.median(np.abs(np.diff(losses)))))]


def clipped(run: Run) -> Remark | None:
    """The gradient is cut at nearly every step."""
    clip, (steps, norms) = run.value("clip"), run.train.whole("gradient_norm")
    after = norms[steps > (run.count("warmup") or 0)]
    if not clip or len(after) < 20 or np.mean(after > clip) < 0.95:
        return None
    return Remark(
        "always clipped", "note",
        f"The gradient norm was above --clip {clip:g} in {np.mean(after > clip):.0%} of the steps after warmup; its "
        f"median is {np.median(after):.2f}.",
        "Clipping is meant for the odd step. When it cuts all of them, every step has the same length and the "
        "learning rate alone decides.",
        f"Try --clip {_round_up(float(np.quantile(after, 0.9)))}, or a lower --lr if the curve is unsteady.",
    )  # fmt: skip


def plateau(run: Run) -> Remark | None:
    """The last third of a run brought nothing, and not because the learning rate had run out."""
    steps, losses = train_curve(run)
    if len(losses) < 60 or run.step < 100 or nothing_learnt(run) or diverging(run) or memorising(run):
        return None
    since = run.step * 2 // 3
    gain = value_at(steps, losses, since) - losses[-1]
    evaluated = run.evaluations.whole()
    gained = value_at(*evaluated, since) - value_at(*evaluated, run.step) if len(evaluated[0]) > 3 else gain
    if max(gain, gained) > 0.005 * losses[-1]:
        return None
    return Remark(
        "plateau", "note",
        f"From step {since:,} on the training loss changed by {abs(gain):.3f} only, to {losses[-1]:.3f}.",
        "With this size, text and learning rate the model has learnt what it can.",
        "A larger model or more text would go lower; the same loss could be had in fewer steps.",
    )  # fmt: skip


def still_falling(run: Run) -> Remark | None:
    """A finished run whose last fifth still brought something."""
    best, (steps, losses) = best_evaluation(run), run.evaluations.whole()
    if not run.finished or best is None or len(losses) < 4 or run.evaluations.step[best] != steps[-1]:
        return None
    since = round(0.8 * run.step)
    gain = value_at(steps, losses, since) - float(losses[-1])
    if gain < 0.01 * losses[-1]:
        return None
    return Remark(
        "still falling", "note",
        f"Validation loss fell by {gain:.3f} in the last fifth of the run and is lowest at its end ({losses[-1]:.3f}).",
        "The model had not finished learning when the steps ran out.",
        f"Train longer: the same command with --steps {2 * run.step} and another --out.",
    )  # fmt: skip


def healthy(run: Run) -> Remark | None:
    """A good word, with the numbers that earn it: the loss fell."""
    steps, losses = run.evaluations.whole()
    what = "Validation loss"
    if len(losses) < 2:
        (steps, losses), what = train_curve(run), "Training loss"
    if len(losses) < 2 or not losses[-1] < losses[0]:
        return None
    seen = f"{what} went from {losses[0]:.3f} to {losses[-1]:.3f} by step {steps[-1]:,}."
    means = "No sign of memorising, of an unsteady learning rate, or of a slow machine."
    return Remark("healthy", "good", seen, means, "Nothing needs to be mended.")


RULES: tuple[Rule, ...] = (
    skipped, diverging, unsteady, nothing_learnt, no_better, memorising, not_evaluated, slowed, spikes, unfinished,
    still_falling, plateau, clipped, small_validation, part_of_text,
)  # fmt: skip
# stages whose loss is none of a next token: of pairs, or of an aim that rises and falls with the answers it is given
OTHERS: dict[str, tuple[Rule, ...]] = {
    "reward": (skipped, *preferences.REWARD, memorising, not_evaluated, slowed, unfinished, clipped),
    "dpo": (skipped, *preferences.DPO, memorising, not_evaluated, slowed, unfinished, clipped),
    "ppo": (skipped, *rewarded.RULES, not_evaluated, slowed, unfinished, clipped),
}
PRAISE: dict[str, Rule] = {"reward": preferences.in_order, "dpo": preferences.in_order, "ppo": rewarded.rising}


def _round_up(value: float) -> str:
    """A limit a person would choose: one digit, never below the value."""
    power = 10 ** math.floor(math.log10(value))
    return f"{math.ceil(value / power - 1e-9) * power:g}"
