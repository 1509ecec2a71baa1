"""Prompts that nothing is learnt from, answered before the first step, at every look, and with the last weights.

In: who takes part in a run of `groundup ppo`, and its prompts. Out: `Bench`: marks and samples for the run, and what
changed from the beginning to the end, in RUN/data/before.json and RUN/answers.json.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from groundup.checkpoint import atomic
from groundup.errors import CheckpointError
from groundup.evaluate.answers import same
from groundup.evaluate.rewarded import RewardMarks, mark
from groundup.generate.sample import Sampler
from groundup.rollouts.answers import answered
from groundup.rollouts.collect import Actors, Known
from groundup.rollouts.prompts import Answer, Prompts
from groundup.rollouts.source import Rollouts
from groundup.rollouts.write import writer
from groundup.settings import Ppo
from groundup.stages import tuning
from groundup.text.conversations import told

BEFORE = "before.json"  # in RUN/data: marks and answers before the first step
ANSWERS = "answers.json"  # in RUN: the same prompts answered before and after
LOOKED = 128  # validation prompts that are answered at each look, at most
MARKED = 256  # prompts that are answered before and after, at most
SAMPLED = 2  # validation prompts whose answers are shown at each look


@dataclass(frozen=True)
class Answered:
    """A prompt that nothing was learnt from, what was expected (None where nobody says), and the answers to it."""

    question: str
    expected: str | None
    before: str
    after: str


@dataclass(frozen=True)
class Changed:
    """What became of a policy: marks of its greedy answers before and after, and of answers drawn by chance after."""

    before: RewardMarks
    after: RewardMarks
    drawn: RewardMarks
    answers: list[Answered]


@dataclass(frozen=True)
class Bench:
    """All that is needed to see how a policy does on prompts, best on those that it does not learn from."""

    settings: Ppo
    actors: Actors
    held: dict[str, Prompts]
    drawn: list[Rollouts] = field(default_factory=list)  # at most one: that of the run

    @property
    def measured(self) -> str:
        """The part that is answered before and after: "train" where no prompt of another one fits into the context."""
        return next(name for name in ("test", "valid", "train") if name in self.held)

    def answers(self, asked: Prompts, *, temperature: float = 0.0) -> list[Answer]:
        """The policy's answer to each prompt, greedy by default."""
        return answered(
            writer(self.actors.policy, self.actors.machine, rows=len(asked)),
            self.actors.tokenizer,
            self.actors.template,
            asked,
            most=self.settings.response_tokens,
            sampler=Sampler(temperature=temperature, seed=self.settings.seed),
        )

    def marks(self, asked: Prompts, answers: Sequence[Answer], *, drawn: bool = False) -> RewardMarks:
        """Reward, share right, length, and how much likelier the answers are than under the reference.

        `drawn`: by chance as in training, so that this estimates a divergence.
        """
        references = [answer.prompt.reference for answer in answers]
        ratios = self._distances(asked, answers)
        return mark(
            self.actors.rewards(answers),
            lengths=[len(answer.ids) for answer in answers],
            ended=[answer.ended for answer in answers],
            right=[None if right is None else same(answer.text, right)
                   for answer, right in zip(answers, references, strict=True)],
            log_ratio=None if drawn else ratios,
            kl=ratios if drawn else None,
        )  # fmt: skip

    @torch.no_grad()
    def _distances(self, asked: Prompts, answers: Sequence[Answer]) -> list[float]:
        """log p(answer) - log p_ref(answer) in nats of each, at the temperature of training."""
        known, actors = Known.of(asked.ids, answers), self.actors
        rows = self.settings.micro_batch or self.settings.batch
        read = partial(known.read, machine=actors.machine, temperature=self.settings.temperature, rows=rows)
        own, _ = read(actors.policy)
        with actors.judging() as reference:
            others, _ = read(reference)
        return [float(value) for value in (own - others).double().sum(dim=1)]

    def batches(self, micro: int) -> Rollouts:
        """What the run learns from, `micro` answers at a time; `sample` shows some of them."""
        self.drawn.append(Rollouts(self.actors, self.held["train"], self.settings, micro=micro))
        return self.drawn[-1]

    def look(self, model: nn.Module, rows: int) -> RewardMarks:
        """How the policy, which `model` is, does on the validation prompts by now; `rows` at once matter to others."""
        asked = _first(self.held["valid"], LOOKED)
        return self.marks(asked, self.answers(asked))

    def sample(self, model: nn.Module) -> str:
        """How the policy answers the first validation prompts by now, greedily."""
        said = self.answers(_first(self.held["valid"], SAMPLED))
        lines = "\n\n".join(f"{_question(answer)}\n-> {answer.text}" for answer in said)
        drawn = self.drawn[-1].samples() if self.drawn else ""
        return f"{lines}\n\ndrawn in training, with their scores:\n{drawn}" if drawn else lines

    def before(self, out: Path) -> None:
        """Answer what will be answered again at the end, before the first step; a resumed run has done so.

        Raises CheckpointError where a run that has gone on for a while does not have it any more.
        """
        path = out / "data" / BEFORE
        if path.is_file() or self.settings.dry_run:
            return
        if tuning.resumes(out):  # these weights are not those of the beginning any more, nor read yet
            raise CheckpointError(f"{path} is missing", "restore it from a copy, or start a new run")
        asked = _first(self.held[self.measured], MARKED)
        answers = self.answers(asked)
        marks = self.marks(asked, answers)
        print(f"{'before':<10}{marks.words()}  (greedy, {len(asked):,} prompts)", file=sys.stderr)
        found = {"marks": asdict(marks), "answers": [answer.text for answer in answers]}
        atomic.write_text(path, json.dumps(found, ensure_ascii=False) + "\n")

    def after(self, out: Path) -> Changed:
        """The same prompts answered by now, greedily and by chance; the answers also go to RUN/answers.json."""
        kept = atomic.read_json(out / "data" / BEFORE)
        asked = _first(self.held[self.measured], MARKED)
        answers = self.answers(asked)
        drawn = self.answers(asked, temperature=self.settings.temperature)
        said = [
            Answered(_question(answer), answer.prompt.reference, before, answer.text)
            for answer, before in zip(answers, kept["answers"], strict=True)
        ]
        text = json.dumps([asdict(one) for one in said], indent=1, ensure_ascii=False)
        atomic.write_text(out / ANSWERS, text + "\n")
        return Changed(
            before=RewardMarks(**kept["marks"]),
            after=self.marks(asked, answers),
            drawn=self.marks(asked, drawn, drawn=True),
            answers=said,
        )


def _question(answer: Answer) -> str:
    """The last thing that was said to the policy, as a person reads it."""
    return str(told(answer.prompt.messages[-1:])[0]["content"])


def _first(asked: Prompts, count: int) -> Prompts:
    """The first of the prompts: always the same."""
    return Prompts(asked.prompts[:count], asked.ids[:count])
