"""What a person and the journal learn of a run: losses, rates, evaluations, samples.

In: each `Step`, and the job. Out: lines of metrics.jsonl and samples.md, the progress line, the best weights.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from groundup.checkpoint import folder, space
from groundup.errors import TrainingError
from groundup.journal import Journal, Progress
from groundup.train import run
from groundup.train.job import Job, Scored
from groundup.train.loop import Step
from groundup.train.trackers import Tracker

PATIENCE = 5  # updates in a row that may be skipped because loss or gradient is not finite


class Watch:
    """Keeps the journal of one run and the clocks that measure it."""

    def __init__(self, job: Job, progress: run.Progress, line: Progress, tracker: Tracker) -> None:
        self.job, self.progress, self.line = job, progress, line
        self.journal = Journal(job.out)
        self.tracker = tracker
        self.clock = time.monotonic()
        self.read, self.trained = 0.0, 0.0  # of this process: tokens, and seconds in training
        losses = [record["loss"] for record in self._records("train") if record["loss"] is not None]
        self.loss: float = losses[-1] if losses else math.nan

    def note(self, step: Step) -> None:
        """Count the step, write it down, show it; raise after too many updates in a row that could not be made."""
        progress, plan = self.progress, self.job.plan
        now = time.monotonic()
        spent, self.clock = max(0.0, now - self.clock), now
        self.trained += spent
        progress.seconds += spent
        progress.step, progress.tokens = step.number, progress.tokens + int(step.tokens)
        self.read += step.tokens
        progress.skipped += bool(step.skipped)
        if not step.overflow:  # nothing is wrong then: the next step has a smaller loss scale
            progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if step.skipped else 0
        self.loss = step.loss
        if step.skipped or step.number % plan.log_every == 0 or step.number == plan.steps:
            self._write(step)
        self.line.update(step.number, loss=f"{step.loss:.3f}", **{"tok/s": f"{self.rate():,.0f}"})
        if step.skipped:
            self.line.say(f"step {step.number}: {step.skipped}; nothing changed ({progress.skipped} skipped so far)")
        if progress.skipped_in_a_row >= PATIENCE:
            raise TrainingError(
                f"{PATIENCE} updates in a row could not be made (step {step.number}: {step.skipped})",
                f"the last good state is in {self.job.out}; try a lower --lr, --clip 1, or --dtype fp32",
            )

    def _write(self, step: Step) -> None:
        values: dict[str, Any] = {
            "loss": step.loss,
            "lr": step.lr,
            "gradient_norm": step.gradient_norm,
            "tokens": self.progress.tokens,
            "seconds": round(self.progress.seconds, 3),
            "tokens_per_second": round(self.rate()),
        }
        if step.skipped:
            values["skipped"] = step.skipped
        self._record(step.number, "train", values | step.metrics)

    def _record(self, step: int, kind: str, values: dict[str, Any]) -> None:
        with space.writing(self.journal.metrics):
            self.journal.write(step, kind=kind, **values)
        self.tracker.write(step, kind, values)

    def rate(self) -> float:
        """Training tokens a second since this process began; saving, evaluating and sampling are not counted."""
        return self.read / self.trained if self.trained else 0.0

    def pause(self) -> None:
        """What happened since the last step was no training."""
        self.clock = time.monotonic()

    def due(self) -> bool:
        """True if this step is to be evaluated or sampled."""
        return self._due_evaluation() or self._due_sample()

    def _due_evaluation(self) -> bool:
        plan, step = self.job.plan, self.progress.step
        return self.job.evaluate is not None and (step % plan.eval_every == 0 or step == plan.steps)

    def _due_sample(self) -> bool:
        plan, step = self.job.plan, self.progress.step
        wanted = self.job.sample is not None and bool(plan.sample_every)
        return wanted and (step % plan.sample_every == 0 or step == plan.steps)

    def look(self, saved: Callable[[], None] = lambda: None) -> None:
        """Evaluate on the fixed validation tokens, keep the best weights, write a sample.

        `saved` waits until the checkpoint of this step is on the disk: best/ never runs ahead of it.
        """
        if self.job.evaluate and self._due_evaluation():
            score = self.job.evaluate(self.job.model)
            saved()
            self._evaluate(score)
        if self.job.sample and self._due_sample():
            text = self.job.sample(self.job.model)
            with space.writing(self.journal.samples):
                self.journal.sample(self.progress.step, "", text)
            self.line.say("    " + " ".join(text.split())[:160])
        self.pause()

    def _evaluate(self, score: Scored) -> None:
        job, step = self.job, self.progress.step
        best = min(self.evaluations(), default=math.inf)
        if score.loss < best and step > 0:
            marks = score.record()
            name = "reward" if "reward" in marks else "loss"  # of a policy the loss is its reward with a minus
            card = job.card | {"steps": step, "tokens_seen": self.progress.tokens, f"validation_{name}": marks[name]}
            folder.save_model(job.out / "best", job.model, job.tokenizer, card=card)
        self._record(step, "eval", score.record() | {"tokens": self.progress.tokens})
        train = "" if math.isnan(self.loss) else f"train {self.loss:.3f}  "
        self.line.say(f"step {step:>6}  {train}validation {score.words()}")

    def evaluations(self) -> list[float]:
        """Validation losses so far, in order, without the one before training."""
        return [r["loss"] for r in self._records("eval") if r["loss"] is not None and r["step"] > 0]

    def _records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.journal.read() if record["kind"] == kind]
