"""Remarks on the course of a run: steps that were not made, slow hours, text that was not read or not measured.

In: `Run`. Out: a `Remark` of each rule, or None.
"""

import math
import shlex

import numpy as np

from groundup.report.curves import throughput, value_at
from groundup.report.read import Run
from groundup.report.remark import Remark, Severity, many, rate


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
        f"{many(len(steps), 'update')} could not be made ({reasons}), the first at step {steps[0]:,}"
        + (", and the run ended so." if at_end else "."),
        "Numbers grew past what the number format can hold; such a step changes nothing. Now and then that is "
        "harmless, again and again it means that the learning rate is too high.",
        f"Try a lower --lr{rate(run)}, a longer --warmup, --clip 1, or --dtype fp32.",
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
        f"There is no validation loss in {many(len(run.train), 'record')} of training.",
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
