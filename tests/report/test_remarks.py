"""Each remark is made where its numbers are, and only there."""

import math
from typing import Any

import numpy as np
import pytest

from groundup.report.read import Run, Table
from groundup.report.remarks import remarks, spike_steps
from groundup.report.verbatim import Copied, Passage

STEPS = np.arange(1, 301)
FALLING = 1.5 + 2.5 * np.exp(-STEPS / 60)  # from about 4.0 to 1.517


def made(losses: np.ndarray = FALLING, *, valid: dict[int, float] | None = None, **fields: Any) -> Run:
    """A finished run of 64 tokens a step, half a second each; `valid` is step -> validation loss."""
    records = [
        {"step": n, "loss": None if math.isnan(loss) else float(loss), "tokens": 64 * n, "seconds": n / 2}
        | {"gradient_norm": 0.5, "lr": 0.001}
        for n, loss in enumerate(losses, 1)
    ]
    evaluated = {0: 4.2, 100: 2.1, 200: 1.7, 240: 1.601, 300: 1.6} if valid is None else valid
    given = {"settings": {"steps": len(losses), "lr": 0.001, "clip": 1.0}, "vocabulary": 65, "train_tokens": 6400}
    given |= {"valid_tokens": 50_000}
    table = Table([{"step": step, "loss": loss} for step, loss in evaluated.items()])
    return Run(train=Table(records), evaluations=table, **(given | fields))


def kinds(run: Run, copied: Copied | None = None) -> set[str]:
    return {remark.kind for remark in remarks(run, copied)}


def the(kind: str, run: Run) -> Any:
    [found] = [remark for remark in remarks(run) if remark.kind == kind]
    return found


def test_a_healthy_run_gets_a_good_word_and_nothing_else():
    [only] = remarks(made())
    assert (only.kind, only.severity) == ("healthy", "good")
    assert "4.200 to 1.600" in only.seen and "step 300" in only.seen


def test_a_run_that_has_not_begun():
    assert kinds(Run()) == {"not begun"}
    [only] = remarks(Run(evaluations=Table([{"step": 0, "loss": 4.17}])))
    assert "4.170" in only.seen


def test_memorising_names_the_step_it_begins_at_and_both_changes():
    run = made(valid={0: 4.2, 100: 2.0, 200: 2.1, 300: 2.5})
    found = the("memorising", run)
    assert found.severity == "problem"  # 25 % above the lowest
    assert "from step 100 (2.000) to 2.500 at step 300" in found.seen
    fell = 2.5 * (math.exp(-100 / 60) - math.exp(-5))  # up to the smoothing
    assert float(found.seen.split("falls by ")[1].rstrip(".")) == pytest.approx(fell, abs=0.005)
    assert "healthy" not in kinds(run)


def test_validation_that_rises_together_with_training_is_not_memorising():
    up = np.concatenate([FALLING[:100], np.linspace(FALLING[99], FALLING[99] + 0.3, 200)])
    assert "memorising" not in kinds(made(up, valid={0: 4.2, 100: 2.0, 200: 2.1, 300: 2.3}))


def test_a_rise_within_one_per_cent_is_not_memorising():
    assert "memorising" not in kinds(made(valid={0: 4.2, 100: 2.0, 200: 2.0, 300: 2.015}))


def test_validation_before_training_is_never_the_best():
    """Fine-tuning can begin lower than it ends: there is no best/ from step 0 to point to."""
    run = made(valid={0: 1.0, 100: 2.0, 200: 1.9, 300: 1.8})
    assert "memorising" not in kinds(run)


def test_nothing_learnt_is_ln_of_the_vocabulary():
    run = made(np.full(300, math.log(65)), valid={0: 4.18, 300: 4.17})
    found = the("nothing learnt", run)
    assert found.severity == "problem" and "4.17" in found.seen and "ln(65)" in found.seen
    assert "nothing learnt" not in kinds(made(np.full(300, math.log(65)), vocabulary=500))


def test_three_steps_are_too_early_to_judge():
    run = made(np.full(3, math.log(65)), valid={0: 4.18})
    assert the("nothing learnt", run).severity == "note"
    assert "healthy" not in kinds(run)


def test_diverging_for_good_and_with_a_way_back():
    apart = np.concatenate([FALLING[:150], np.linspace(2, 9, 150)])
    assert "1.7" in the("diverging", made(apart)).seen and "guessing" in the("diverging", made(apart)).seen
    hill = FALLING + 8 * np.exp(-(((STEPS - 60) / 20) ** 2))
    assert the("unsteady start", made(hill)).severity == "warning"
    assert not {"diverging", "unsteady start"} & kinds(made())


def test_skipped_updates_give_their_number_first_step_and_reason():
    losses = FALLING.copy()
    losses[[40, 41]] = math.nan
    found = the("skipped steps", made(losses, skipped=((41, "loss is nan"), (42, "loss is nan"))))
    assert found.severity == "warning" and "2 updates" in found.seen and "step 41" in found.seen
    at_end = made(losses, skipped=tuple((step, "loss is nan") for step in range(296, 301)))
    assert the("skipped steps", at_end).severity == "problem"
    assert "skipped steps" not in kinds(made(skipped=((5, "loss scale too large"),)))


def test_spikes_are_found_and_slopes_are_not():
    losses = FALLING.copy()
    losses[[119, 249]] += 3
    assert spike_steps(STEPS, losses).tolist() == [120, 250]
    assert "steps 120, 250" in the("loss spikes", made(losses)).seen
    cliff = np.repeat([4.0, 2.0], 150)
    for calm in (FALLING, cliff, cliff[::-1], FALLING[::-1], np.full(300, 2.0), FALLING[:10]):
        assert not len(spike_steps(STEPS[: len(calm)], calm))


def test_a_gradient_that_is_always_clipped():
    run = made()
    for record in run.train.records:
        record["gradient_norm"] = 3.2
    found = the("always clipped", run)
    assert "100%" in found.seen and "3.20" in found.seen and "--clip 4" in found.do
    assert "always clipped" not in kinds(made(settings={"steps": 300, "clip": 0.0}))
    run.train.records[0]["gradient_norm"] = None
    assert "always clipped" in kinds(run)


def test_a_plateau_is_a_last_third_without_gain():
    flat = np.concatenate([FALLING[:100], np.full(200, FALLING[99])])
    level = {0: 4.2, 100: 2.1, 200: 2.1, 250: 2.1, 300: 2.1}
    assert "plateau" in kinds(made(flat, valid=level))
    assert "plateau" not in kinds(made(flat, valid=level | {300: 2.0}))


def test_still_falling_at_the_end():
    run = made(valid={0: 4.2, 100: 2.4, 200: 2.0, 240: 1.9, 300: 1.7})
    found = the("still falling", run)
    assert "0.200" in found.seen and "--steps 600" in found.do
    assert "still falling" not in kinds(made(valid={0: 4.2, 240: 1.9, 300: 1.7}, settings={"steps": 900}))


def test_throughput_that_fell_by_half():
    run = made()
    seconds = 0.0
    for record in run.train.records:
        seconds += 0.5 if record["step"] <= 200 else 1.5
        record["seconds"] = seconds
    found = the("slowed down", run)
    assert "43 tokens/s, against 128" in found.seen and "did not recover" in found.seen
    assert 195 <= int(found.seen.split("step ")[1].split()[0]) <= 215


def test_small_validation_says_how_far_its_loss_can_be_trusted():
    found = the("small validation", made(valid_tokens=2_501))
    assert "2,500 tokens" in found.seen and "0.03" in found.means  # 1.6 / sqrt(2500) = 0.032
    limited = made(settings={"steps": 300, "eval_tokens": 400})
    assert the("small validation", limited).do == "Raise --eval-tokens."


def test_less_than_an_epoch():
    found = the("less than an epoch", made(train_tokens=192_000))
    assert "19,200 tokens" in found.seen and "10.0%" in found.seen
    # windows that overlap by half show each token twice: 19,200 tokens are one pass over 9,600
    overlapping = {"steps": 300, "context": 64, "stride": 32}
    assert "less than an epoch" not in kinds(made(train_tokens=9_600, settings=overlapping))
    assert "less than an epoch" in kinds(made(train_tokens=12_000, settings=overlapping))


def test_without_evaluation_learning_cannot_be_told_from_memorising():
    assert the("not evaluated", made(valid={})).severity == "warning"


def test_an_unfinished_run_says_how_to_go_on():
    found = the("unfinished", made(settings={"steps": 1200}))
    assert "300 of 1,200 (25%)" in found.seen and "--resume" in found.do


def test_a_tuned_run_is_told_its_own_command():
    assert "`groundup instruct --out " in the("unfinished", made(settings={"steps": 1200}, command="instruct")).do
    [only] = remarks(Run(command="classify"))
    assert "`groundup classify`" in only.do


def classifier(accuracy, majority=0.8, *, valid=None, classes=2, **test):
    found = {"accuracy": accuracy, "baselines": {"majority": majority}, "macro_recall": 0.5} | test
    found = {} if accuracy is None else found
    valid = {0: 0.70, 300: 0.5} if valid is None else valid
    return made(command="classify", valid=valid, test=found, vocabulary=None, card={"classes": ["x"] * classes})


def test_a_classifier_that_answers_without_reading_is_told_so():
    """The loss falls to that of the shares of the classes alone: no test of the loss could tell."""
    found = the("no better than guessing", classifier(0.8))
    assert found.severity == "problem" and "80.00% of the test rows" in found.seen and "in 80.00%" in found.seen
    assert "healthy" not in kinds(classifier(0.8)) and "healthy" not in kinds(classifier(0.7))
    assert the("no better than guessing", classifier(0.75, macro_recall=0.7)).severity == "warning"  # rare ones found
    assert kinds(classifier(0.95)) == {"healthy"}


def test_a_classifier_whose_loss_stays_at_that_of_guessing():
    near, far = {0: 1.12, 300: 1.09}, {0: 1.12, 300: 0.4}  # ln(3) = 1.0986
    found = the("no better than guessing", classifier(None, valid=near, classes=3))
    assert "1.090" in found.seen and "ln(3) is 1.099" in found.seen
    assert "no better than guessing" in kinds(classifier(0.36, 0.34, valid=near, classes=3))
    assert kinds(classifier(None, valid=far, classes=3)) == {"healthy"}
    assert kinds(classifier(0.9, 0.34, valid=near, classes=3)) == {"healthy"}  # unsure, and right
    assert "no better than guessing" not in kinds(made(valid=near, card={"classes": ["a", "b", "c"]}))


@pytest.mark.parametrize(
    "test", [{"accuracy": "x"}, {"baselines": 3, "accuracy": 0.1}, {"baselines": {"majority": None}}]
)
def test_a_test_that_says_nothing_leads_to_no_remark(test):
    run = made(command="classify", valid={0: 0.7, 300: 0.2}, test=test, card={"classes": 7})
    assert kinds(run) == {"healthy"}


def test_passages_are_quoted():
    passage = Passage("the patricians good. What authority surfeits on would relieve us", 1)
    copied = Copied(300, (passage,), 1000, 1000)
    [found] = [remark for remark in remarks(made(), copied) if remark.kind == "verbatim"]
    assert found.quotes == (passage.text,) and f"{len(passage.text)} characters" in found.seen
    assert "verbatim" not in kinds(made(), Copied(300, (), 1000, 1000))


@pytest.mark.parametrize("losses", [[], [3.0], [math.nan], [math.nan] * 50, [2.0] * 200, [0.0] * 200])
def test_no_rule_fails_on_little_or_strange_data(losses: list[float]):
    for fields in ({}, {"settings": {}, "vocabulary": None, "train_tokens": None, "valid_tokens": None}):
        for valid in ({}, {0: math.nan}, {1: 3.0}):
            assert all(
                remark.seen and remark.means and remark.do
                for remark in remarks(made(np.array(losses), valid=valid, **fields))
            )
