"""What a report says of runs that learn from pairs and rewards: each remark where its numbers are, and only there."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup import report
from groundup.losses.preference import WITHOUT_REFERENCE
from groundup.report import measures, pairs, panels, preferences
from groundup.report.figures import figures
from groundup.report.page import comparable, single
from groundup.report.read import Run, Table
from groundup.report.remarks import remarks

EVIL = "reward.<script>alert(1)</script>"
STEPS = 40
Curve = tuple[float, float]  # first and last value, on a straight line between them


def line(first: float, last: float, count: int = STEPS) -> np.ndarray:
    return np.linspace(first, last, count)


def made(command: str, train: dict[str, Curve], valid: dict[str, Curve] | None = None, **fields: Any) -> Run:
    """A finished run of 40 steps; its numbers go straight from first to last, those of validation in four looks."""
    curves = {name: line(*ends) for name, ends in train.items()}
    records: list[dict[str, Any]] = [
        {"step": n, "tokens": 64 * n, "seconds": n / 2} | {name: float(c[n - 1]) for name, c in curves.items()}
        for n in range(1, STEPS + 1)
    ]
    looks = {name: line(*ends, 4) for name, ends in (valid or {}).items()}
    seen = [{"step": 10 * (n + 1)} | {name: float(c[n]) for name, c in looks.items()} for n in range(4 if looks else 0)]
    settings = {"steps": STEPS, "lr": 1e-5} | fields.pop("settings", {})
    return Run(train=Table(records), evaluations=Table(seen), command=command, settings=settings, **fields)


def dpo(train: dict[str, Curve] | None = None, valid: dict[str, Curve] | None = None, **fields: Any) -> Run:
    """A run that goes well, with some of its numbers otherwise."""
    usual = {"loss": (0.69, 0.4), "accuracy": (0.5, 0.9), "margin": (0.0, 1.5), "drift": (0.0, -2.0)}
    usual |= {"chosen_reward": (0.0, 0.7), "rejected_reward": (0.0, -0.8)}
    settings = {"beta": 0.1} | fields.pop("settings", {})
    measured = {name: usual[name] for name in ("loss", "accuracy", "margin")} | (valid or {})
    return made("dpo", usual | (train or {}), measured, settings=settings, **fields)


def reward(test: dict[str, Any] | None = None, valid: dict[str, Curve] | None = None) -> Run:
    usual = {"loss": (0.69, 0.5), "accuracy": (0.5, 0.8), "margin": (0.0, 1.0)}
    found = {"rows": 400, "accuracy": 0.8, "longer_baseline": 0.6} if test is None else test
    return made("reward", usual, usual | (valid or {}), test=found)


def ppo(train: dict[str, Curve] | None = None, **settings: Any) -> Run:
    usual: dict[str, Curve] = {"loss": (-0.1, 0.1), "reward": (0.4, 0.9), "score_spread": (0.4, 0.3), "kl": (0.0, 3.0)}
    usual |= {"kl_coefficient": (0.05, 0.05), "length": (9.0, 10.0), "ended": (0.95, 1.0), "entropy": (0.5, 0.2)}
    usual |= {"clip_fraction": (0.1, 0.1), "explained_variance": (0.0, 0.5), "distinct": (0.9, 0.8)}
    usual |= {"repetition": (0.02, 0.03)}
    found = {"reward": (0.4, 0.9), "loss": (-0.4, -0.9)}
    told = {"kl": 0.05, "response_tokens": 16, "clip_ratio": 0.2, "passes": 4} | settings
    return made("ppo", usual | (train or {}), found, settings=told)


def kinds(run: Run) -> set[str]:
    return {remark.kind for remark in remarks(run)}


def the(kind: str, run: Run) -> Any:
    [found] = [remark for remark in remarks(run) if remark.kind == kind]
    return found


# runs that go well


@pytest.mark.parametrize(("run", "kind"), [(dpo(), "in order"), (reward(), "in order"), (ppo(), "rising")])
def test_a_run_that_goes_well_gets_a_good_word_and_nothing_else(run: Run, kind: str) -> None:
    [only] = remarks(run)
    assert (only.kind, only.severity) == (kind, "good")


def test_the_good_word_has_the_numbers() -> None:
    assert "90.0% of the pairs" in the("in order", dpo()).seen and "margin of 1.50" in the("in order", dpo()).seen
    assert "60.0%" in the("in order", reward()).means  # what length alone would have right
    assert "0.400 to 0.900" in the("rising", ppo()).seen and "3.0 nats" not in the("rising", dpo_as_ppo()).seen


def dpo_as_ppo() -> Run:
    """A run of ppo that wrote no distance down."""
    return made("ppo", {"reward": (0.1, 0.5)}, {"reward": (0.1, 0.5), "loss": (-0.1, -0.5)})


def test_rules_about_a_loss_of_tokens_are_not_asked() -> None:
    """The loss of ppo rises, that of pairs is far below ln V; neither says that training came apart or stands still."""
    rising = ppo({"loss": (-0.5, 9.0)})
    assert not {"diverging", "unsteady", "plateau", "memorising", "healthy"} & kinds(rising)
    assert "not begun" in kinds(Run(command="ppo"))


# reward models


def test_a_score_that_is_no_better_than_length_is_told_so() -> None:
    found = the("like the length", reward({"rows": 400, "accuracy": 0.61, "longer_baseline": 0.62}))
    assert found.severity == "problem" and "61.0%" in found.seen and "62.0%" in found.seen
    # two standard errors of 0.62 in 400 rows are 0.0485
    near = reward({"rows": 400, "accuracy": 0.66, "longer_baseline": 0.62})
    assert the("like the length", near).severity == "warning"
    assert "like the length" not in kinds(reward({"rows": 400, "accuracy": 0.68, "longer_baseline": 0.62}))


def test_where_length_tells_nothing_it_is_not_blamed() -> None:
    assert "like the length" not in kinds(reward({"rows": 400, "accuracy": 0.5, "longer_baseline": 0.51}))
    assert "like the length" not in kinds(reward({"accuracy": 0.6}))


def test_no_order_at_all() -> None:
    assert the("like a coin", reward({"rows": 400, "accuracy": 0.52})).severity == "problem"
    early = made("reward", {"loss": (0.69, 0.69)}, {"accuracy": (0.5, 0.5)}, settings={"steps": 400})
    assert the("like a coin", early).severity == "note"
    assert "like a coin" not in kinds(reward())


# dpo


def test_both_rewards_falling_is_no_harm_by_itself() -> None:
    run = dpo({"chosen_reward": (0.0, -1.0), "rejected_reward": (0.0, -3.0)})
    found = the("both rewards fall", run)
    assert found.severity == "note" and "fell by 0.9" in found.seen and "margin grew by 1.9" in found.seen
    assert "in order" in kinds(run)  # the margin is what counts
    far = dpo({"chosen_reward": (0.0, -4.0), "rejected_reward": (0.0, -7.0)})  # 40 nats at beta 0.1
    assert the("both rewards fall", far).severity == "warning"
    assert "both rewards fall" not in kinds(dpo())
    assert "both rewards fall" not in kinds(dpo({"chosen_reward": (0.0, -0.1), "rejected_reward": (0.0, -3.0)}))


def free(loss: str, looks: tuple[float, float, float, float], **settings: Any) -> Run:
    """A run without a reference: looks at steps 0, 20, 30 and 40, and training pairs whose answers are likelier."""
    run = dpo({"chosen_reward": (-1.0, -0.5), "rejected_reward": (-1.2, -0.9), "drift": (math.nan, math.nan)},
              settings={"loss": loss, "beta": 2.0} | settings)  # fmt: skip
    seen = [{"step": step, "loss": 0.6 - step / 400, "accuracy": 0.5 + step / 200, "margin": step / 40,
             "chosen_reward": value, "rejected_reward": value - step / 40}
            for step, value in zip((0, 20, 30, 40), looks, strict=True)]  # fmt: skip
    return replace(run, evaluations=Table(seen))


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_without_a_reference_rewards_are_compared_with_the_first_look(loss: str) -> None:
    """The pairs of validation are less likely than those of the first training step: that alone is no fall."""
    still = free(loss, (-3.0, -3.0, -3.0, -3.0))
    assert "both rewards fall" not in kinds(still)
    found = the("both rewards fall", free(loss, (-3.0, -30.0, -90.0, -93.0)))
    assert "fell by 90.00 a token, that of the rejected ones by 91.00: the margin grew by 1.00" in found.seen
    assert found.severity == "note" and "nats" not in found.seen and ("--loss orpo" in found.do) == (loss == "simpo")
    assert "a larger --beta" not in found.do
    assert "reference" not in the("in order", still).means


def test_rewards_per_token_are_no_nats_per_answer() -> None:
    falls = {"chosen_reward": (0.0, -4.0), "rejected_reward": (0.0, -7.0)}
    assert "38 nats at beta 0.1" in the("both rewards fall", dpo(falls)).seen  # 3.85, the mean of the last four
    found = the("both rewards fall", dpo(falls, settings={"average": True}))
    assert found.severity == "note" and "nats" not in found.seen


def test_another_reference_is_not_where_the_run_began() -> None:
    """A model that lies 3 below its reference from the first step on has lost nothing."""
    low = {"chosen_reward": (-3.0, -3.0), "rejected_reward": (-3.0, -3.1)}
    assert "both rewards fall" not in kinds(dpo(low, settings={"reference": "runs/other"}))
    assert "both rewards fall" in kinds(dpo(low))


def test_losses_without_a_reference_are_the_same_everywhere() -> None:
    assert preferences.WITHOUT_REFERENCE == WITHOUT_REFERENCE


def test_a_test_of_earlier_weights_does_not_speak_for_those_of_now() -> None:
    """The test of step 20 was half wrong; the last look, of step 40, is in order, and better than length."""
    test = {"model": "model", "step": 20, "rows": 400, "accuracy": 0.5, "longer_baseline": 0.6}
    went_on = reward(test, {"longer_baseline": (0.6, 0.6)})
    assert kinds(went_on) == {"in order"}
    assert "like a coin" in kinds(reward(test | {"step": 40}))
    told = "These are figures of the weights of step 20; the run went on since, to step 40."
    assert told in pairs.section(went_on) and "These are figures" not in pairs.section(reward(test | {"step": 40}))
    best = {"loss": (0.6, 0.5)}
    assert "best/ is now of step 40" in pairs.section(reward(test | {"model": "best"}, best))


def test_the_good_word_names_what_was_measured() -> None:
    assert the("in order", dpo()).means == "No sign of memorising, or of a model that ran away from its reference."
    assert the("in order", reward()).means.startswith("No sign of memorising. Going by length alone")
    found = preferences.in_order(made("dpo", {"accuracy": (0.5, 0.9)}))
    assert found is not None and found.means == ""


def test_validation_speaks_before_training() -> None:
    run = dpo({"chosen_reward": (0.0, -9.0), "rejected_reward": (0.0, -9.5)},
              {"chosen_reward": (0.0, 0.4), "rejected_reward": (0.0, -0.4)})  # fmt: skip
    assert "both rewards fall" not in kinds(run)


def test_a_margin_that_grows_alone() -> None:
    found = the("margin alone", dpo(valid={"margin": (0.5, 5.0), "accuracy": (0.7, 0.7)}))
    assert found.severity == "warning" and "5.00" in found.seen and "70.0% to 70.0%" in found.seen
    assert "margin alone" not in kinds(dpo(valid={"margin": (0.5, 5.0), "accuracy": (0.6, 0.8)}))
    assert "margin alone" not in kinds(dpo(valid={"margin": (1.0, 1.1), "accuracy": (0.7, 0.7)}))


def test_drift_that_runs_away() -> None:
    found = the("drift", dpo({"drift": (0.0, -60.0)}))
    assert found.severity == "warning" and "60 nats less likely" in found.seen and "moving on" in found.seen
    assert the("drift", dpo({"drift": (-25.0, -26.0)})).severity == "note"  # far, and standing
    assert "drift" not in kinds(dpo({"drift": (0.0, -10.0)}))


# rewards


def test_longer_answers_for_more_reward() -> None:
    found = the("longer and longer", ppo({"length": (20.0, 60.0)}))
    assert found.severity == "warning" and "from 22 to 58 tokens" in found.seen  # means of a tenth, 4 records each
    assert "longer and longer" not in kinds(ppo({"length": (20.0, 24.0)}))
    assert "longer and longer" not in kinds(ppo({"length": (20.0, 60.0), "reward": (0.5, 0.4)}))
    assert "longer and longer" not in kinds(ppo({"length": (2.0, 5.0)}))  # a word more is no padding


def test_repetition() -> None:
    assert "38%" in the("repetition", ppo({"repetition": (0.0, 0.4)})).seen
    assert "repetition" not in kinds(ppo({"repetition": (0.02, 0.1)}))
    assert "repetition" not in kinds(ppo({"repetition": (0.3, 0.3)}))  # it was so before


def test_one_answer_for_all() -> None:
    assert the("all alike", ppo({"distinct": (0.9, 0.05)})).severity == "warning"
    assert "all alike" not in kinds(ppo({"distinct": (0.9, 0.6)}))


def test_entropy_collapse_matters_where_there_is_more_to_find() -> None:
    assert the("entropy collapse", ppo({"entropy": (1.0, 0.0), "reward": (0.2, 0.5)})).severity == "warning"
    assert the("entropy collapse", ppo({"entropy": (1.0, 0.0), "reward": (0.5, 1.0)})).severity == "note"
    assert "entropy collapse" not in kinds(ppo({"entropy": (1.0, 0.4)}))


def test_far_from_the_reference() -> None:
    found = the("far from the reference", ppo({"kl": (0.0, 20.0)}))
    assert found.severity == "warning" and "19.2 nats" in found.seen and "it was 0.05" in found.do
    assert the("far from the reference", ppo({"kl": (0.0, 90.0)})).severity == "problem"
    assert "far from the reference" not in kinds(ppo({"kl": (0.0, 8.0)}))
    assert "far from the reference" not in kinds(ppo({"kl": (0.0, 20.0)}, kl_target=15.0))


def test_answers_that_are_all_cut() -> None:
    found = the("cut off", ppo({"ended": (0.0, 0.0)}))
    assert found.severity == "problem" and "within 16 tokens" in found.seen and "never learnt" in found.means
    assert the("cut off", ppo({"ended": (0.9, 0.5)})).severity == "warning"
    assert "cut off" not in kinds(ppo())


def test_too_much_is_clipped() -> None:
    assert "45%" in the("often clipped", ppo({"clip_fraction": (0.45, 0.45)})).seen
    assert "at first" in the("often clipped", ppo({"clip_fraction": (0.6, 0.1)})).seen
    assert "often clipped" not in kinds(ppo({"clip_fraction": (0.2, 0.2)}))


def test_values_that_explain_nothing_late_in_the_run() -> None:
    assert the("values explain nothing", ppo({"explained_variance": (0.1, -0.5)})).severity == "warning"
    assert "values explain nothing" not in kinds(ppo({"explained_variance": (-2.0, 0.5)}))  # at first none can


def test_rewards_without_any_spread_teach_nothing() -> None:
    found = the("all the same", ppo({"score_spread": (0.0, 0.0), "reward": (0.0, 0.0)}))
    assert found.severity == "problem"
    assert "all the same" not in kinds(ppo())


def test_no_gain() -> None:
    flat = made("ppo", {"reward": (0.3, 0.3), "score_spread": (0.4, 0.4)}, {"reward": (0.3, 0.3), "loss": (-0.3, -0.3)})
    assert the("no gain", flat).severity == "warning" and "rising" not in kinds(flat)
    assert "no gain" not in kinds(ppo())


# charts


def drawn(*runs: Run) -> str:
    return panels.charts(runs, [f"run {number}" for number, _ in enumerate(runs)])


def test_each_number_of_the_journal_has_a_chart() -> None:
    for run, titles in ((reward(), 2), (dpo(), 4), (ppo(), 9)):
        wanted = [measure.title for measure in measures.measures(run)]
        assert len(wanted) == titles
        assert not [title for title in wanted if f"<figcaption>{title}" not in drawn(run)]
    assert measures.measures(Run()) == () and "Reward" not in drawn(made("pretrain", {"loss": (4.0, 2.0)}))


def test_training_and_validation_are_told_apart() -> None:
    page = drawn(dpo())
    part = page[page.index("Pairs in the right order") :]
    assert 'class="line dash c0" data-name="training"' in part and 'class="line c0" data-name="validation"' in part
    assert 'data-name="chosen"' in page and 'data-name="rejected"' in page


def test_the_loss_of_pairs_stands_beside_ln_2_and_that_of_rewards_is_not_drawn() -> None:
    assert "Loss, in nats per pair" in drawn(dpo()) and f"ln(2) = {math.log(2):.3f}" in drawn(dpo())
    assert "ln(2)" not in drawn(dpo(settings={"loss": "ipo"}))
    assert "Loss, in" not in drawn(ppo())
    both = drawn(dpo(vocabulary=50257), made("instruct", {"loss": (3.0, 1.0)}, vocabulary=50257))
    assert "Loss, in nats<" in both and "guessing" not in both


def test_parts_of_a_reward_are_drawn_where_there_are_several() -> None:
    two = ppo({"reward.exact": (0.1, 0.7), "reward.length": (0.3, 0.2)})
    assert "Parts of the reward" in drawn(two) and 'data-name="exact"' in drawn(two)
    assert "Parts of the reward" not in drawn(ppo({"reward.exact": (0.4, 0.9)}))


def test_runs_side_by_side_have_a_chart_for_each_curve() -> None:
    page = drawn(dpo(), dpo({"chosen_reward": (0.0, 2.0)}))
    for words in ("Rewards of the two sides: chosen", "Rewards of the two sides: rejected"):
        assert words in page
    assert 'data-name="run 1, training"' in page and 'data-name="run 1, validation"' in page
    assert "Reward" in drawn(dpo(), ppo())  # stages that measure different things


# the page


BINS = [{"low": 0.9, "high": 1.0, "rows": 8, "confidence": 0.95, "accuracy": 0.75}]


def test_the_test_pairs_and_their_calibration() -> None:
    test = {"rows": 40, "accuracy": 0.75, "longer_baseline": 0.6, "ece": 0.2, "bins": BINS, "margin": "x"}
    page = pairs.section(reward(test))
    assert "75.00%" in page and "60.00%" in page and "Calibration, mean gap 0.200" in page
    assert "M900.0 1000V250.0H1000.0V1000Z" in page and "margin" not in page
    assert pairs.section(reward({})) == "" and pairs.section(Run(command="classify", test=test)) == ""
    assert "Calibration" not in pairs.section(reward({"rows": 40, "bins": [{"low": "x"}]}))
    assert "<h2>Classes" not in single(reward(test), [])


def test_the_surest_errors_are_shown() -> None:
    one = {"prompt": "Who?", "chosen": "<b>Mira", "rejected": "Bo" * 400, "ahead": -1.25, "where": "entry 3"}
    page = pairs.section(reward({"rows": 2, "accuracy": 0.5, "worst": [one, "x", {"ahead": "x"}]}))
    assert "2 surest errors" in page and "<td>&lt;b&gt;Mira</td>" in page and '<td class="number">1.250</td>' in page
    assert "Bo" * 150 + "</td>" in page and "<b>Mira" not in page
    assert "errors" not in pairs.section(reward({"rows": 2, "worst": "x"}))


def test_marks_before_and_after_stand_side_by_side() -> None:
    before = {"accuracy": 0.5, "margin": 0.0, "loss": 0.6931}
    page = pairs.section(dpo(test={"rows": 20, "accuracy": 0.9, "margin": 1.5, "loss": 0.4, "before": before}))
    assert '<th scope="row">in the right order</th><td class="number">50.00%</td><td class="number">90.00%</td>' in page
    assert '<th scope="row">pairs</th><td class="number">\u2013</td><td class="number">20</td>' in page
    assert "before" not in pairs.section(dpo(test={"rows": 20, "accuracy": 0.9, "before": "x"}))


def test_the_headline_is_what_the_run_is_for() -> None:
    assert figures(ppo()).best_loss is None and figures(ppo()).marks["reward"] == pytest.approx(0.9)
    assert figures(dpo()).best_loss == pytest.approx(0.4)
    page = single(dpo(), [])
    assert "<dt>pairs in the right order</dt>" in page and "loss 0.4000" in page
    assert "<dt>reward</dt>" in single(ppo(), []) and "perplexity" not in single(ppo(), []).split("Settings</h2>")[0]


def test_what_was_measured_otherwise_is_not_ranked() -> None:
    assert comparable([dpo(), dpo()])
    assert not comparable([dpo(), dpo(settings={"beta": 0.5})])
    assert not comparable([dpo(settings={"data": ["a"]}), dpo(settings={"data": ["b"]})])
    assert not comparable([dpo(), reward()])


def write(folder: Path, run: Run) -> Path:
    """A run folder with these records; the kind of run is told by its settings."""
    folder.mkdir()
    told = "\n".join(f"{name} = {json.dumps(value)}" for name, value in run.settings.items())
    (folder / "settings.toml").write_text(f"# groundup {run.command}\n{told}\n", encoding="utf-8")
    records = [{"kind": "train"} | record for record in run.train.records]
    records += [{"kind": "eval"} | record for record in run.evaluations.records]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return folder


def test_a_page_and_a_comparison_from_folders(tmp_path: Path) -> None:
    first = write(tmp_path / "a", ppo({EVIL: (0.1, 0.2), "reward.exact": (0.2, 0.4)}))
    second = write(tmp_path / "b", ppo({"kl": (0.0, 20.0)}, kl=0.01))
    page = report.write(first).read_text(encoding="utf-8")
    assert report.load(first).command == "ppo"
    assert "&lt;script&gt;alert" in page and page.count("<script>") == 1
    both = report.compare([first, second], tmp_path / "both.html").read_text(encoding="utf-8")
    assert '<th scope="row">reward</th><td>0.9</td><td>0.9</td>' in both
    assert "Distance to the reference" in both and "0.01" in both
