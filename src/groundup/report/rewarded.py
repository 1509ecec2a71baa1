"""Remarks on runs that learn from rewards: what is gained, and how a reward can be earned without being deserved.

In: a `Run` of `groundup ppo`. Out: a `Remark` of each rule, or None. A rule compares the first tenth of the records
with the last; each record of training carries the numbers of the rollout it learnt from.
"""

import numpy as np

from groundup.report.curves import ends
from groundup.report.read import Run
from groundup.report.remark import Remark, rate

UNLEARNT = ("no gain", "all the same")
FAR, LOST = 10.0, 30.0  # nats between an answer's chances now and under the reference
CLIPPED = 0.3  # share of tokens whose probability would have changed by more than is allowed
CUT, MANY_CUT = 0.02, 0.8  # share of answers that end by themselves: none of them, or not all


def no_spread(run: Run) -> Remark | None:
    """All answers of a rollout get the same reward, rollout after rollout."""
    spread, rewards = run.train.whole("score_spread")[1], run.train.whole("reward")[1]
    if not len(spread) or not len(rewards) or spread.max() > 1e-6:
        return None
    return Remark(
        "all the same", "problem",
        f"In every rollout so far all answers got the same reward, at last {rewards[-1]:.3f}.",
        "What is learnt is which answers are better than others; where all are alike there is nothing to learn.",
        "Look at the samples and at the reward itself (`groundup compare --reward`). If the model never gets it right, "
        "tune it first with `groundup instruct`, or give part of the reward for part of the answer.",
    )  # fmt: skip


def no_gain(run: Run) -> Remark | None:
    """The reward is where it was."""
    found = ends(_rewards(run))
    if found is None or no_spread(run) or found[1] > found[0] + 0.01 * max(1.0, abs(found[0])):
        return None
    early = not run.finished
    return Remark(
        "no gain", "note" if early or found[0] > 0.95 else "warning",
        f"The reward was {found[0]:.3f} at first and is {found[1]:.3f}.",
        "Nothing has been gained by the steps so far.",
        "It is early; look again later." if early else
        "Where hardly any answer is paid for, tune the model first (`groundup instruct`). Else try a higher learning "
        f"rate{rate(run)}, more --responses for each rollout, or --kl lower than {run.value('kl'):g}.",
    )  # fmt: skip


def longer(run: Run) -> Remark | None:
    """Reward and length grow together."""
    length, reward = ends(run.train.whole("length")[1]), ends(run.train.whole("reward")[1])
    if length is None or reward is None or not reward[1] > reward[0] or length[1] < max(1.5 * length[0], length[0] + 4):
        return None
    return Remark(
        "longer and longer", "warning",
        f"While the reward went from {reward[0]:.3f} to {reward[1]:.3f}, answers grew from {length[0]:.0f} to "
        f"{length[1]:.0f} tokens.",
        "Reward models that learnt from people's choices like length for its own sake. Such a reward rises without an "
        "answer being any better: it is being hacked.",
        "Read the samples. Add a reward for length (--reward ... 0.1*length:50), train the reward model on pairs in "
        "which the shorter answer is the better one, or raise --kl.",
    )  # fmt: skip


def repeating(run: Run) -> Remark | None:
    """Answers say the same words again and again."""
    found = ends(run.train.whole("repetition")[1])
    if found is None or found[1] < max(0.2, found[0] + 0.1):
        return None
    return Remark(
        "repetition", "warning",
        f"{found[1]:.0%} of all three tokens in a row stand in their answer a second time, {found[0]:.0%} at first.",
        "The model fills its answers with what it has said already; if the reward rises meanwhile, it pays for that.",
        "Read the samples, raise --kl, and stop earlier: best/ keeps the weights with the best reward.",
    )  # fmt: skip


def alike(run: Run) -> Remark | None:
    """Different prompts get one answer."""
    found = ends(run.train.whole("distinct")[1])
    if found is None or found[1] > 0.5 * found[0]:
        return None
    return Remark(
        "all alike", "warning",
        f"{found[1]:.0%} of the answers of a rollout differ from each other, {found[0]:.0%} at first.",
        "The model gives one answer to many prompts. Where the right answer is a word that is no harm; else it has "
        "found a sentence that the reward likes, whatever was asked.",
        "Read the samples of different prompts; raise --kl or --entropy-weight, or mend the reward.",
    )  # fmt: skip


def collapsed(run: Run) -> Remark | None:
    """Hardly anything is drawn by chance any more."""
    entropy, reward = ends(run.train.whole("entropy")[1]), ends(run.train.whole("reward")[1])
    if entropy is None or entropy[0] <= 0 or entropy[1] > 0.1 * entropy[0]:
        return None
    top = reward is not None and reward[1] >= 0.95
    return Remark(
        "entropy collapse", "note" if top else "warning",
        f"The entropy of a token fell from {entropy[0]:.3f} to {entropy[1]:.4f} nats.",
        "The model is sure of every token. " + (
            "The reward is near its top, so there is little left to look for." if top else
            "It tries nothing new, so that nothing better can be found from here."),
        "Nothing needs to be mended." if top else
        f"Start again with --entropy-weight 0.01, a lower --lr{rate(run)}, a higher --temperature or a larger --kl.",
    )  # fmt: skip


def running_away(run: Run) -> Remark | None:
    """Far from the reference, and further with every rollout."""
    steps, values = run.train.whole("kl")
    found, target = ends(values), run.value("kl_target")
    if found is None or found[1] < max(FAR, 2 * target):
        return None
    return Remark(
        "far from the reference", "problem" if found[1] > LOST else "warning",
        f"Answers are {found[1]:.1f} nats from the reference, at step {steps[-1]:,}; {found[0]:.1f} at first"
        + (f", and {target:g} were aimed at." if target else "."),
        "The model writes what the one it began as would hardly ever have written. A reward that is not perfect is not "
        "to be trusted there: it was never tried on such answers.",
        f"Raise --kl (it was {run.value('kl'):g}) or set --kl-target {FAR:g}, lower --lr{rate(run)}, or take fewer "
        "steps; read the samples from before.",
    )  # fmt: skip


def cut(run: Run) -> Remark | None:
    """Answers that never come to their end."""
    found = ends(run.train.whole("ended")[1])
    if found is None or found[1] > MANY_CUT:
        return None
    tokens, none = run.count("response_tokens"), found[1] <= CUT
    return Remark(
        "cut off", "problem" if none else "warning",
        ("No answer comes" if none else f"{found[1]:.0%} of the answers come") + " to an end by itself"
        + (f" within {tokens:,} tokens." if tokens else "."),
        "A reward then judges pieces. "
        + (
            "The model never learnt well the token that ends an answer."
            if found[0] <= MANY_CUT
            else "The model learnt to go on and on."
        ),
        "Tune the model first (`groundup instruct` teaches the end), give more --response-tokens, or raise "
        "--unfinished.",
    )  # fmt: skip


def often_clipped(run: Run) -> Remark | None:
    """Steps so large that most of what they would do is not allowed."""
    found = ends(run.train.whole("clip_fraction")[1])
    if found is None or max(found) < CLIPPED:
        return None
    return Remark(
        "often clipped", "warning",
        f"{max(found):.0%} of the tokens were clipped {'at first' if found[0] >= found[1] else 'in the end'}: their "
        f"probability would have changed by more than {run.value('clip_ratio') or 0.2:.0%}.",
        "The model moves too far on one rollout: what it learns from was written by a model that is no longer it.",
        f"Lower --lr{rate(run)} or --passes{_passes(run)}, or take more --responses.",
    )  # fmt: skip


def blind(run: Run) -> Remark | None:
    """Values that are worse than no values, late in the run."""
    _, values = run.train.whole("explained_variance")
    late = values[len(values) * 2 // 3 :]
    if len(values) < 6 or np.median(late) >= 0:
        return None
    return Remark(
        "values explain nothing", "warning",
        f"In the last third of the run the value head explained {np.median(late):.2f} of the variance of the returns: "
        "less than nothing.",
        "It guesses worse than one number for all would. Advantages then carry its errors into every step.",
        "Raise --value-weight, give more --responses, or use --algorithm grpo, which has no value head.",
    )  # fmt: skip


def rising(run: Run) -> Remark | None:
    """A good word: what was gained, and at what distance."""
    found = ends(_rewards(run))
    if found is None or not found[1] > found[0]:
        return None
    away = ends(run.train.whole("kl")[1])
    beside = f", {away[1]:.1f} nats from the reference" if away else ""
    return Remark(
        "rising", "good", f"The reward went from {found[0]:.3f} to {found[1]:.3f}{beside}.",
        "No sign of answers that only please: neither length, nor repetition, nor sameness has grown much.",
        "Read some samples all the same: no number says that the reward is the right one.",
    )  # fmt: skip


RULES = (no_spread, no_gain, longer, repeating, alike, collapsed, running_away, cut, often_clipped, blind)


def _rewards(run: Run) -> np.ndarray:
    """Rewards of validation, where there are two, else of training."""
    evaluated = run.evaluations.whole("reward")[1]
    return evaluated if len(evaluated) > 1 else run.train.whole("reward")[1]


def _passes(run: Run) -> str:
    passes = run.count("passes")
    return f" (it was {passes})" if passes else ""
