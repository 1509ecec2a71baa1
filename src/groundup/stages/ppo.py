"""Learning from rewards: prompts -> answers of the model itself -> rewards -> advantages -> a clipped loss -> `fit`.

In: `settings.Ppo`. Out: a run folder, and `Result`, its figures. What is answered, scored and learnt from is made in
`rollouts`; here stand the prompts (kept in RUN/data), what learns, what it has to stay near (the reference), and what
is measured on prompts that nothing is learnt from: before the first step, at every look, and at the end.
"""

import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from groundup import journal, losses, report
from groundup.checkpoint import atomic, opening
from groundup.checkpoint.identity import weights_hash
from groundup.errors import CheckpointError, DataError, SettingsError, UserError
from groundup.evaluate.answers import asked
from groundup.evaluate.rewarded import RewardMarks
from groundup.generate import chat as chats
from groundup.machine import Machine
from groundup.model import lora, surgery
from groundup.model.values import ActorCritic
from groundup.rollouts.coefficient import Coefficient
from groundup.rollouts.collect import Actors
from groundup.rollouts.prompts import Prompts, prompts
from groundup.rollouts.rewards import WEIGHTED, Rewards, parse
from groundup.rollouts.scripted import Script
from groundup.rollouts.source import Examples
from groundup.settings import Ppo, flag
from groundup.stages import data, launch, tuning
from groundup.stages import reference as references
from groundup.stages.bench import Answered, Bench
from groundup.stages.tuning import Opened, Task
from groundup.stages.words import beginning, ending, say
from groundup.text import conversations
from groundup.text.conversations import Conversation, told
from groundup.text.split import Split
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.job import Fitted
from groundup.train.plan import Preflight

PARTS = {"train": "the training prompts", "valid": "the validation prompts", "test": "the test prompts"}
REFERENCE = "reference.json"  # in RUN/data: which model the policy stays near, and its hash
REWARDS = "rewards.json"  # in RUN/data: the hash of each file or model that rewards
SHOWN = 3  # prompts whose answers are shown at the end
DROPOUT = ("dropout", "dropout_embedding", "dropout_attention", "dropout_shortcut", "lora_dropout")
OF_VALUES = ("value_clip", "value_weight", "gamma", "lam", "whiten")  # what grpo has no use for


@dataclass(frozen=True)
class Result:
    """Figures of a run of `model`. `prompts`: those of each part that fit; `seconds` of training, answering included.

    `before`, `after`: greedy answers to the prompts of `measured` ("test"; "valid" where there is no test part; "train"
    where no other prompt fits), by the model as it was and by the weights after the last step. `drawn`: answers to the
    same prompts drawn by chance as in training, by the weights after the last step: the mean of their `kl` estimates
    the distance from the reference.
    `best_reward`: of the validation prompts, by the weights in best/. `remarks`: what the course of the run says.
    """

    out: Path
    model: str
    algorithm: str
    prompts: dict[str, int]
    steps: int
    seconds: float
    tokens_per_second: float
    measured: str
    before: RewardMarks
    after: RewardMarks
    drawn: RewardMarks
    best_reward: float | None
    answers: list[Answered]
    remarks: list[str]


def ppo(**settings: Any) -> Result:
    """Learn from rewards in Python: the settings of `groundup ppo` as keyword arguments.

    >>> ppo(model="runs/assistant", data=["prompts.jsonl"], reward=["exact"], out="runs/right").after  # doctest: +SKIP
    RewardMarks(rows=128, reward=0.97, ...)
    """
    result = run(Ppo.create(**settings))
    assert isinstance(result, Result)
    return result


def run(settings: Ppo) -> Result | Preflight:
    """Learn from rewards in `settings.out`; with `dry_run` only the preflight comes back.

    Raises UserError for what cannot be had or used: settings that do not go together, prompts that do not fit, a
    reward that cannot be computed, a reference that reads other ids; a reward or a reference that is not the same as
    when the run began.
    """
    benches: list[Bench] = []
    checks, fitted = tuning.run(settings, partial(_prepare, benches=benches))
    if fitted is None or settings.out is None:
        return checks
    return _closing(benches[0], settings.out, fitted)


def _check(settings: Ppo) -> None:
    """Refuse what does not go together, before any model is opened."""
    group, grpo = settings.group_size, settings.algorithm == "grpo"
    for name, value in (("batch", settings.batch), ("group", group)):
        if settings.responses % value:
            below = settings.responses // value * value
            raise SettingsError(
                f"--responses {settings.responses} is not a multiple of --{name} {value}: a rollout is learnt from in "
                "whole batches, and each of its prompts has as many answers",
                f"give --responses {below or value}, or another --{name}",
            )
    if settings.batch % (settings.micro_batch or 1):
        raise SettingsError(
            f"--batch {settings.batch} is not a multiple of --micro-batch {settings.micro_batch}",
            "choose a divisor of --batch",
        )
    Coefficient(settings.kl, settings.kl_target)  # refuses a price of 0 that is to rise
    if grpo and group < 2:
        raise SettingsError("--algorithm grpo compares answers to one prompt, and --group 1 leaves one", "--group 8")
    if settings.minutes is not None:
        raise SettingsError(
            "--minutes cannot be kept: nobody knows how long the answers will take", "give --steps or --epochs"
        )
    if random := [name for name in DROPOUT if getattr(settings, name)]:
        raise SettingsError(
            f"{', '.join(map(flag, random))}: a policy is compared with itself before its step, and dropout would tell "
            "the two apart before anything was learnt",
            "leave it out",
        )
    given = [name for name in OF_VALUES if name in settings.model_fields_set]
    if grpo and given and not settings.resume:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SettingsError(f"{flags} means nothing with --algorithm grpo: it has no values", "leave it out")


# the prompts


def parts(out: Path) -> Split[Conversation]:
    """The three parts that a run keeps in RUN/data; raises CheckpointError where one is missing."""
    return data.parts(out, partial(conversations.read, answered=False))


def _divided(settings: Ppo, out: Path) -> Split[Conversation]:
    """The parts of a run: a prompt stands in one of them, however many answers to it there are."""
    data.divided(out, partial(_made, settings), conversations.write_messages)
    return parts(out)


def _made(settings: Ppo) -> tuple[Split[Conversation], dict[str, Any]]:
    rows = [row for name in settings.data for row in conversations.read(name, answered=False)]
    if not rows:
        raise DataError(f"no conversation in {', '.join(settings.data)}", "give prompts, best with their answers")
    split = conversations.split(
        rows,
        validation=settings.validation,
        test=settings.test,
        seed=settings.seed,
        protocol=settings.protocol,
        alike=_prompt,
    )
    return split, {"read": len(rows), "repeated": split.duplicates}


def _prompt(row: Conversation) -> str:
    """All that is said to the policy, as one text that tells prompts apart; no answer is part of it."""
    return json.dumps([[message["role"], message["content"]] for message in told(asked(row).messages)])


def _gathered(settings: Ppo, split: Split[Conversation], taught: chats.Taught, context: int) -> dict[str, Prompts]:
    """The parts as prompts; raises DataError where no training prompt fits, and only says so of the other parts."""
    found = {}
    for name, rows in split.parts().items():
        if not rows and name != "train":
            continue
        try:
            found[name] = prompts(
                rows,
                taught.tokenizer,
                taught.template,
                context=context,
                response_tokens=settings.response_tokens,
                source=PARTS[name],
            )
        except DataError as error:
            if name == "train":
                raise
            say(name, f"nothing is measured on {error.what}; {error.fix}")
            continue
        for line in found[name].words().split("\n"):
            say(name, line)
    return found


# the rewards and the reference


def _same_rewards(settings: Ppo, rewards: Rewards, out: Path) -> None:
    """Keep in RUN/data the hashes of files and models that reward; raises CheckpointError where one has changed."""
    now = {}
    for spec, part in zip(settings.reward, rewards.parts, strict=True):
        if isinstance(part.function, Script):
            now[spec] = hashlib.sha256(part.function.path.read_bytes()).hexdigest()
        elif not spec.endswith(part.described):  # what is built in is described by its own words, without a weight
            weighted = WEIGHTED.fullmatch(spec)
            now[spec] = weights_hash(opening.open_any(weighted["rest"] if weighted else spec).path)
    path = out / "data" / REWARDS
    kept = atomic.read_json(path) if path.is_file() else {}
    for spec, sha256 in now.items():
        if kept.get(spec, sha256) != sha256:
            raise CheckpointError(
                f"the reward {spec} has changed since this run began, and its figures could not be compared any more",
                references.FIX,
            )
    if now and not kept:
        atomic.write_text(path, json.dumps(now, indent=1) + "\n")


def _reference(
    settings: Ppo, tokenizer: Tokenizer, held: dict[str, Prompts], out: Path, machine: Machine
) -> nn.Module | None:
    """The frozen network that the policy has to stay near; None where it is the policy without its adapters.

    Its name and hash are kept in RUN/data: a run that goes on opens it from there again. Raises CheckpointError where
    its weights are not those of the beginning, SettingsError where it does not read the policy's ids.
    """
    if settings.train == "lora" and not settings.reference:
        return None
    path, name = out / "data" / REFERENCE, settings.reference or settings.model
    kept = atomic.read_json(path) if path.is_file() else None
    longest = max(len(ids) for part in held.values() for ids in part.ids) + settings.response_tokens
    model, sha256 = references.named(kept["model"] if kept else name, tokenizer, longest=longest)
    if kept and kept["sha256"] != sha256:
        raise CheckpointError(
            f"{kept['model']} has changed since this run began, and the run has to stay near what it was",
            references.FIX,
        )
    if not kept:
        lasting = str(Path(name).resolve()) if Path(name).exists() else name
        atomic.write_text(path, json.dumps({"model": lasting, "sha256": sha256}) + "\n")
    # its matrices as autocast would make them at every step: the same products to the bit, in less memory
    return surgery.narrowed(model.requires_grad_(False).to(machine.device), machine.dtype)


# the task


def _prepare(settings: Ppo, out: Path, machine: Machine, *, benches: list[Bench]) -> Task:
    """Everything this stage brings; nothing in it trains. What measures the run is put into `benches`."""
    _check(settings)
    opened = tuning.opened(settings)
    taught = _taught(settings, opened)
    held = _gathered(settings, _divided(settings, out), taught, opened.context)
    rewards = parse(settings.reward, machine=machine, batch=settings.micro_batch or settings.batch)
    for part in held.values():
        rewards.check(part.prompts)
    _same_rewards(settings, rewards, out)
    frozen = _reference(settings, taught.tokenizer, held, out, machine)
    model = tuning.taught(settings, opened, opened.model, machine=machine)
    model = ActorCritic(model, seed=settings.seed) if settings.algorithm == "ppo" else model
    actors = Actors(
        policy=model.to(machine.device),
        reference=partial(lora.off, model) if frozen is None else frozen,
        tokenizer=taught.tokenizer,
        template=taught.template,
        rewards=rewards,
        machine=machine,
    )
    actors.check()
    bench = Bench(settings, actors, held)
    benches.append(bench)
    bench.before(out)
    source = Examples(held["train"], settings)
    return Task(
        model=model,
        tokenizer=taught.tokenizer,
        loss=losses.policy(
            clip_ratio=settings.clip_ratio,
            value_clip=settings.value_clip,
            value_weight=settings.value_weight,
            entropy_weight=settings.entropy_weight,
            kl=settings.kl,
            temperature=settings.temperature,
        ),
        source=source,
        lengths=source.lengths,
        batches=lambda micro, _: bench.batches(micro),
        evaluate=bench.look if "valid" in held else None,
        sample=bench.sample if "valid" in held else None,
        fingerprint=held["train"].fingerprint,
        sources=settings.data,
        card=opened.facts | {
            "template": taught.style, "algorithm": settings.algorithm, "reward": rewards.words(),
            "prompts": {name: len(part) for name, part in held.items()},
        },
    )  # fmt: skip


def _taught(settings: Ppo, opened: Opened) -> chats.Taught:
    """The tokenizer with its template; raises SettingsError for one whose tokens the model has never seen."""
    taught = chats.teach(opened.tokenizer, settings.template)
    if taught.added:
        raise SettingsError(
            f"the template {taught.style} writes tokens that the model has never seen: {', '.join(taught.added)}",
            "teach it to answer first: groundup instruct; or leave --template out",
        )
    ends = [repr(taught.tokenizer.decode([id])) for id in taught.tokenizer.ends]
    say("template", f"{taught.style}, an answer ends with {' or '.join(ends)}" if ends else
         f"{taught.style}: no token ends an answer, each is cut at {settings.response_tokens:,} tokens")  # fmt: skip
    return taught


# the end


def _closing(bench: Bench, out: Path, fitted: Fitted) -> Result:
    """The same prompts as before the first step, answered with the weights after the last one."""
    found = bench.after(out)
    try:
        report.write(out)
    except UserError as error:  # a run does not end for the want of a page
        say("report", f"none: {error}")
    said = report.remarks(report.load(out))
    return Result(
        out=out,
        model=bench.settings.model,
        algorithm=bench.settings.algorithm,
        prompts={name: len(part) for name, part in bench.held.items()},
        steps=fitted.steps,
        seconds=fitted.seconds,
        tokens_per_second=fitted.tokens_per_second,
        measured=bench.measured,
        before=found.before,
        after=found.after,
        drawn=found.drawn,
        best_reward=None if fitted.best_loss is None else -fitted.best_loss,
        answers=found.answers[:SHOWN],
        remarks=[f"{one.seen} {one.means} {one.do}" for one in said],
    )


def show(result: Result | Preflight) -> None:
    """Print rewards before and after, the distance from the reference, three answers, remarks, and what to do next."""
    if isinstance(result, Preflight):
        print(launch.describe(result))
        return
    for name, marks in (("before", result.before), ("after", result.after), ("drawn", result.drawn)):
        print(f"{name:<12}{marks.words()}")
    print(f"{'measured':<12}on {result.after.rows:,} of {PARTS[result.measured]}: greedy before and after; "
          "drawn by chance, as in training")  # fmt: skip
    if result.drawn.kl is not None:
        unsure = "" if result.drawn.kl_error is None else f" +- {result.drawn.kl_error:.2f}"
        print(f"{'distance':<12}{result.drawn.kl:.2f}{unsure} nats an answer from the reference")
    speed = f" ({result.tokens_per_second:,.0f} tokens/s)" if result.tokens_per_second else ""
    print(f"{result.steps:,} steps in {journal.clock(result.seconds)}, answering included{speed}")
    for one in result.answers:
        expected = "" if one.expected is None else f"\n  expected: {beginning(one.expected)}"
        print(
            f"\n  {ending(one.question)}\n  before: {beginning(one.before)}\n  after:  {beginning(one.after)}{expected}"
        )
    for remark in result.remarks:
        print(f"\n{remark}")
    run = shlex.quote(str(result.out))
    print(f"\nnext: groundup compare {shlex.quote(result.model)} {run} --data {run}/data/{result.measured}.jsonl")
    print(f"      groundup chat {run}")
