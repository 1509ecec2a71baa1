"""What the records of a run mean, in plain language: seen, meaning, what to do.

In: `Run`. Out: `Remark`s, the gravest first. Each rule is a function of the run that answers with a remark or None; it
says only what the numbers show, and the numbers stand in its first sentence.
"""

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from groundup.report.curves import throughput, value_at
from groundup.report.figures import best_evaluation, train_curve
from groundup.report.read import Run, number
from groundup.report.verbatim import Copied

Severity = Literal["problem", "warning", "note", "good"]
ORDER: tuple[Severity, ...] = ("problem", "warning", "good", "note")
UNLEARNT = ("nothing learnt", "no better than guessing")


@dataclass(frozen=True)
class Remark:
    """One observation: `seen` with numbers, what that `means`, what to `do` about it; `quotes` from a sample."""

    kind: str
    severity: Severity
    seen: str
    means: str
    do: str
    quotes: tuple[str, ...] = ()


def remarks(run: Run, copied: Copied | None = None) -> list[Remark]:
    """Everything there is to say about a run; a run with nothing wrong is told so.

    `copied`: what its last sample has in common with its training text.

    >>> [remark.kind for remark in remarks(Run())]
    ['not begun']
    """
    if not len(run.train):
        return [_not_begun(run)]
    # a step of a classifier counts a few texts: its loss leaps by nature, and says little beside the marks
    rules = [rule for rule in RULES if run.command != "classify" or rule not in (diverging, unsteady, spikes)]
    found = [remark for rule in rules if (remark := rule(run)) is not None]
    if copied and (remark := verbatim(copied)):
        found.append(remark)
    if not any(remark.severity in ("problem", "warning") or remark.kind in UNLEARNT for remark in found):
        found += [remark] if (remark := healthy(run)) else []
    return sorted(found, key=lambda remark: ORDER.index(remark.severity))


def _not_begun(run: Run) -> Remark:
    first = run.evaluations.loss
    seen = "No training step has been written down yet"
    seen += f"; before training the validation loss is {first[0]:.3f}." if len(first) else "."
    means = "The run was only just started, or stopped before its first step."
    return Remark("not begun", "note", seen, means, f"Look again later, or start `groundup {run.command}`.")


def skipped(run: Run) -> Remark | None:
    """Updates that could not be made because loss or gradient was not finite."""
    # a loss scale that was too large is halved and costs one step: nothing to speak of
    lost = [(step, reason) for step, reason in run.skipped if "scale" not in reason]
    if not lost:
        return None
    steps = [step for step, _ in lost]
    at_end = steps[-1] == run.step
    severity: Severity = "problem" if at_end or len(steps) > max(5, run.step // 100) else "warning"
    reasons = ", ".join(sorted({reason for _, reason in lost})[:3])
    return Remark(
        "skipped steps", severity,
        f"{_many(len(steps), 'update')} could not be made ({reasons}), the first at step {steps[0]:,}"
        + (", and the run ended so." if at_end else "."),
        "Numbers grew past what the number format can hold; such a step changes nothing. Now and then that is "
        "harmless, again and again it means that the learning rate is too high.",
        f"Try a lower --lr{_rate(run)}, a longer --warmup, --clip 1, or --dtype fp32.",
    )  # fmt: skip


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
        f"Start again with a third of the learning rate{_rate(run)}, and with a longer --warmup.",
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
        f"Halve --lr{_rate(run)}, or take more --warmup steps.",
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
        f"After {_many(run.step, 'step')} the training loss is {last:.2f}, and ln({run.vocabulary:,}) is {guess:.2f}.",
        "That is what guessing among all tokens alike gives: nothing has been learnt yet.",
        "It is early; look again later." if early else
        f"Check that the text is what you think it is, then try another learning rate{_rate(run)}.",
    )  # fmt: skip


def no_better(run: Run) -> Remark | None:
    """A classifier that is right no more often than one that never reads its texts."""
    if run.command != "classify" or not (seen := _like_guessing(run)):
        return None
    told_apart = number(run.test.get("macro_recall")) > 1.2 / max(_classes(run), 1)  # 1 / classes: one answer for all
    return Remark(
        "no better than guessing", "warning" if told_apart else "problem" if run.finished or run.test else "note", seen,
        "Counted by texts that are right, this classifier is worth no more than an answer given without reading.",
        f"Try --train all, more --epochs or another learning rate{_rate(run)}, and check that texts and labels belong "
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
        f"The sample at step {copied.step:,} holds {_many(len(copied.passages), 'passage')} word for word from the "
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
        f"The training loss leaps up {_many(len(found), 'time')}: at {'step' if len(found) == 1 else 'steps'} {shown}.",
        "Odd text (tables, another language, one character over and over) or a learning rate at the edge of too high.",
        f"If the curve comes back at once, leave it. Otherwise lower --lr{_rate(run)} or look at the text.",
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


def slowed(run: Run) -> Remark | None:
    """Training went at half its speed, or less, for some while."""
    steps, rates = throughput(run)
    parts = min(20, len(rates) // 8)
    if parts < 4:
        return None
    usual, clock = float(np.median(rates)), run.train.whole("seconds")
    for part, at in zip(np.array_split(rates, parts), np.array_split(steps, parts), strict=True):
        slow = float(np.median(part))
        if slow > 0.5 * usual or value_at(*clock, int(at[-1])) - value_at(*clock, int(at[0])) < 5:
            continue
        ended = float(np.median(rates[-len(part) :])) > 0.7 * usual
        return Remark(
            "slowed down", "warning",
            f"From step {at[0]:,} on training ran at {slow:,.0f} tokens/s, against {usual:,.0f} as a rule; "
            + ("later it recovered." if ended else "it did not recover."),
            "Another program took the processor, the machine grew hot, or memory was short; the result is the same.",
            "Look at what else was running then; fewer --threads can help where cores are shared.",
        )  # fmt: skip
    return None


def small_validation(run: Run) -> Remark | None:
    """Too few validation tokens to tell models apart."""
    if not len(run.evaluations.whole()[0]) or run.valid_tokens is None:
        return None
    tokens = max(1, min(run.valid_tokens - 1, run.count("eval_tokens") or run.valid_tokens))
    if tokens >= 20_000:
        return None
    blur = float(run.evaluations.whole()[1][-1]) / math.sqrt(tokens)
    return Remark(
        "small validation", "warning" if tokens < 1000 else "note", f"Each evaluation looks at {tokens:,} tokens.",
        f"The loss of a token varies about as much as its mean, so the validation loss is good to about "
        f"{blur:.2f}; smaller differences between runs say nothing.",
        "Raise --eval-tokens." if run.valid_tokens > 2 * tokens else "Give more text, or a larger --validation.",
    )  # fmt: skip


def part_of_text(run: Run) -> Remark | None:
    """A run that ended before it had seen all its text."""
    _, tokens = run.train.whole("tokens")
    if not run.epoch or not len(tokens) or tokens[-1] >= 0.95 * run.epoch:
        return None
    share = tokens[-1] / run.epoch
    return Remark(
        "less than an epoch", "note",
        f"{tokens[-1]:,.0f} tokens were seen, {share:.1%} of one pass over the training text.",
        "Nothing was seen twice, so nothing could be learnt by heart; most of the text was never used."
        if share < 0.5 else "Nothing was seen twice, so nothing could be learnt by heart.",
        "There is text left for a longer run or a larger model.",
    )  # fmt: skip


def not_evaluated(run: Run) -> Remark | None:
    """No validation loss at all."""
    if len(run.evaluations.whole()[0]):
        return None
    return Remark(
        "not evaluated", "warning",
        f"There is no validation loss in {_many(len(run.train), 'record')} of training.",
        "The training loss alone cannot tell learning from memorising.",
        "Keep some text for validation (--validation 0.1), and evaluate with --eval-every.",
    )  # fmt: skip


def unfinished(run: Run) -> Remark | None:
    """Fewer steps than planned."""
    if run.finished or run.planned is None:
        return None
    return Remark(
        "unfinished", "note", f"The run stands at step {run.step:,} of {run.planned:,} ({run.step / run.planned:.0%}).",
        "It is still running, or it was stopped.",
        f"If it was stopped, go on: `groundup {run.command} --out {shlex.quote(str(run.folder))} --resume`.",
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


RULES: tuple[Callable[[Run], Remark | None], ...] = (
    skipped, diverging, unsteady, nothing_learnt, no_better, memorising, not_evaluated, slowed, spikes, unfinished,
    still_falling, plateau, clipped, small_validation, part_of_text,
)  # fmt: skip


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _rate(run: Run) -> str:
    """The learning rate as it was, where it is known."""
    return f" (it was {run.value('lr'):g})" if run.value("lr") else ""


def _round_up(value: float) -> str:
    """A limit a person would choose: one digit, never below the value."""
    power = 10 ** math.floor(math.log10(value))
    return f"{math.ceil(value / power - 1e-9) * power:g}"
