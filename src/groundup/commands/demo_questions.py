"""The second half of the demo: the model of the stories learns to answer questions about small events it never saw.

In: `settings.Demo`, whose folder holds the run of the stories. Out: a run folder of `groundup instruct` inside it, and
`Answered`: how many unseen questions were answered exactly, what guessing reaches, a few answers to look at.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.errors import CheckpointError
from groundup.evaluate.answers import matched
from groundup.generate.chat import answers, template_of
from groundup.settings import Demo, Instruct
from groundup.stages import instruct
from groundup.text.harbor.questions import Question, by_copying_the_last, by_majority, questions

FOLDER = "questions"  # inside the run of the stories
ROWS = 6_300  # conversations; 300 of them, about triples of their own, are for validation
LONGEST = 16  # tokens of an answer; the right ones have at most 10
SHOWN = 3


@dataclass(frozen=True)
class Example:
    """A question as it was put, the model's answer, and the right one."""

    prompt: str
    answer: str
    expected: str


@dataclass(frozen=True)
class Answered:
    """What came of `asked` unseen questions; `majority` and `copy_last` are the shares that guessing gets right.

    by_kind: the share of right answers for each kind of question.
    """

    out: Path
    asked: int
    right: int
    by_kind: dict[str, float]
    majority: float
    copy_last: float
    examples: list[Example]
    seconds: float


def run(settings: Demo) -> Answered:
    """Tune the model of the stories, then let it answer; raises what `groundup instruct` raises."""
    began = time.perf_counter()
    fitted = recipe(settings)
    instruct.run(fitted)
    assert fitted.out is not None
    asked = list(questions(settings.seed, settings.questions, split="test"))
    given = _answers(fitted.out, asked, threads=settings.threads)
    marks = matched(given, [each.answer for each in asked], tasks=[each.kind for each in asked])
    learnt = questions(settings.seed, 2000, split="train")
    return Answered(
        out=fitted.out,
        asked=marks.rows,
        right=marks.right,
        by_kind={kind: right / rows for kind, (rows, right) in marks.tasks.items()},
        majority=by_majority(learnt, asked),
        copy_last=by_copying_the_last(asked),
        examples=[Example(asked[place].prompt, given[place], asked[place].answer) for place in _varied(asked)],
        seconds=time.perf_counter() - began,
    )


def recipe(settings: Demo) -> Instruct:
    """The settings of the tuning: 0.8M tokens, four questions a scene, no scene twice: a minute on two cores."""
    return Instruct.create(
        model=str(settings.out),
        data=[f"harbor-questions:{ROWS}:{settings.seed}"],
        out=settings.out / FOLDER,
        template="phi3",  # three tokens of its own say who speaks: shorter than words would be
        batch=8,  # many small steps: what is new has to be found out first, as in the stories
        epochs=1,
        lr=2e-3,  # nearly that of a new network: the stories never asked for anything in the prompt
        min_lr=0.1,
        warmup=50,
        validation=0.01,  # all that is held out, as nothing of it goes to a test
        test=0,  # what is asked in the end is made apart: no triple of it is in these data
        eval_every=400,
        save_every="5m",
        sample_tokens=LONGEST,
        seed=settings.seed,
        threads=settings.threads,
    )


def lines(found: Answered) -> Iterator[str]:
    """The closing page: a few questions with answers, the score beside what guessing reaches, and each kind's."""
    for example in found.examples:
        yield f"{example.prompt}\n  -> {example.answer}{_remark(example)}\n"
    yield (
        f"{found.right} of {found.asked} questions ({100 * found.right / found.asked:.1f} %) answered exactly, "
        "about finds that are new: no such finder, thing and place came together in training."
    )
    yield (
        f"  guessing: the usual answer {100 * found.majority:.1f} %, "
        f"the last one mentioned {100 * found.copy_last:.1f} %"
    )
    kinds = sorted(found.by_kind, key=lambda kind: found.by_kind[kind])
    yield "  hardest first: " + ", ".join(f"{kind} {100 * found.by_kind[kind]:.0f} %" for kind in kinds)
    yield f"  {found.seconds:.0f} s for tuning and answering"


def _varied(asked: list[Question]) -> list[int]:
    """The places of the first questions to show, each of another kind."""
    first = {each.kind: place for place, each in reversed(list(enumerate(asked)))}
    return sorted(first.values())[:SHOWN]


def _answers(out: Path, asked: list[Question], *, threads: int | None) -> list[str]:
    """What the tuned model says, greedy, in fp32: a tie is then no matter of the machine."""
    machine = machines.choose(threads=threads)
    loaded = folder.load(out / "model", dtype=torch.float32, device=machine.device)
    template = template_of(loaded.tokenizer)
    if template is None:
        raise CheckpointError(f"{out}/model has no chat template", "run the demo again")
    prompts = [each.messages()[:1] for each in asked]
    return answers(loaded.model, loaded.tokenizer, template, prompts, max_tokens=LONGEST)


def _remark(example: Example) -> str:
    return "" if example.answer == example.expected else f"   (wrong: {example.expected})"
