"""The first run: a small model learns the built-in harbor world, tells stories that a checker marks, and then learns to
answer questions.

In: `settings.Demo`. Out: two run folders, and `Result`: the story, the share of consistent ones, the share of questions
answered exactly, times.
"""

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.checkpoint.folder import Loaded
from groundup.commands import demo_questions
from groundup.commands.demo_questions import Answered
from groundup.errors import SettingsError
from groundup.generate import Sampler, write
from groundup.lock import locked
from groundup.model import config_of
from groundup.settings import Demo, Pretrain, read_toml
from groundup.stages import pretrain
from groundup.text import harbor
from groundup.train.run import SETTINGS, empty

TEXT = ["harbor:8000"]


@dataclass(frozen=True)
class Result:
    """What the demo came to: a story, how many of `stories` the checker found flawless, speeds in tokens a second.

    `answered` is what became of the questions; `seconds` is the time of both halves.
    """

    out: Path
    story: str
    stories: int
    consistent: int
    problems: list[str]
    validation_loss: float | None
    training_tokens_per_second: float
    writing_tokens_per_second: float
    answered: Answered
    seconds: float


def run(settings: Demo) -> Result:
    """Train, write stories, check them; tune, answer questions, check those."""
    began = time.perf_counter()
    clear(settings.out)
    say("A model is about to learn a small harbour town from nothing. First text, then tokens, then training.")
    fitted = pretrain.run(recipe(settings))
    assert isinstance(fitted, pretrain.Result)
    machine = machines.choose(threads=settings.threads)
    loaded = folder.load(settings.out / "model", device=machine.device)
    say(f"Now it writes {settings.stories} stories, and the checker reads each of them.")
    started = time.perf_counter()
    texts, written = stories(loaded, settings.stories, seed=settings.seed)
    writing = written / (time.perf_counter() - started)
    verdicts = [harbor.check(text) for text in texts]
    flawless = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict.ok]
    problems = [problem for verdict in verdicts for problem in verdict.problems[:1]]
    say(f"{len(flawless)} are consistent. It tells stories but answers nothing: that it learns now, from questions.")
    answered = demo_questions.run(settings)
    return Result(settings.out, (flawless or texts)[0], len(texts), len(flawless), problems[:3], fitted.validation_loss,
                  fitted.tokens_per_second, writing, answered, time.perf_counter() - began)  # fmt: skip


def recipe(settings: Demo) -> Pretrain:
    """The settings of the demo's training: about two minutes on two cores."""
    return Pretrain.create(
        data=TEXT,
        out=settings.out,
        size="1m",
        vocabulary=2048,  # nearly every word of harbor is one token: short stories, and names that can be copied whole
        heads=2,  # of 64: on a CPU attention costs by the head
        sampling="documents",  # each window opens with a story
        batch=4,  # 896 tokens a step: many small steps learn more from so few tokens than few large ones
        context=224,  # holds 99 of 100 stories
        steps=1800,
        lr=3e-3,
        validation=0.01,
        eval_tokens=8_000,
        eval_every=450,
        save_every="1m",
        seed=settings.seed,
        threads=settings.threads,
    )


def clear(out: Path) -> None:
    """Make room for a demo; raises SettingsError if something else than an earlier demo is in the way."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    record = out / SETTINGS
    if not record.is_file() or read_toml(record).get("data") != TEXT:
        raise SettingsError(f"{out} exists and is no earlier demo", "choose another --out")
    with locked(out, doing="groundup demo"):  # nobody trains there now
        empty(out)


def stories(loaded: Loaded, count: int, *, seed: int) -> tuple[list[str], int]:
    """So many stories from nothing, and the number of tokens they took."""
    parts: list[list[str]] = [[] for _ in range(count)]
    tokens = 0
    sampler = Sampler(temperature=0.3, seed=seed)
    for delta in write(
        loaded.model, loaded.tokenizer, [""] * count, max_tokens=config_of(loaded.model).context - 1, sampler=sampler
    ):
        parts[delta.row].append(delta.text)
        tokens += 1
    return ["".join(pieces) for pieces in parts], tokens


def say(text: str) -> None:
    """A line for the person, on standard error."""
    print(text, file=sys.stderr, flush=True)


def show(result: Result) -> None:
    """Print the story, the score and what to try next."""
    for line in lines(result):
        print(line)


def lines(result: Result) -> Iterator[str]:
    """The closing page of the demo."""
    out, tuned = shlex.quote(str(result.out)), shlex.quote(str(result.answered.out))
    yield f"\n{result.story.strip()}\n"
    share = 100 * result.consistent / result.stories
    yield f"{result.consistent} of {result.stories} stories ({share:.0f} %) are grammatical and consistent to the end."
    yield from (f"  a slip: {problem}" for problem in result.problems[:2])
    yield (
        f"  trained at {result.training_tokens_per_second:,.0f} tokens/s, "
        f"wrote at {result.writing_tokens_per_second:,.0f} tokens/s\n"
    )
    yield from demo_questions.lines(result.answered)
    yield f"\n{result.seconds:.0f} s in all. Next:"
    yield f"  groundup generate {out}                       another story"
    yield f"  groundup chat {tuned}                 tell it of a find and ask"
    yield f"  groundup info {out}                           what the folder holds"
    yield "  groundup pretrain --data FILE --out runs/mine     the same with your own text"
