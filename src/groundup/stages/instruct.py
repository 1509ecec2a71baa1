"""Instruction tuning: conversations -> template -> rows with a mask -> next-token loss on the answers -> `fit`.

In: `settings.Instruct`. Out: a run folder, and `Result`, its figures. What a model learns it from is decided once and
kept in RUN/data; how a conversation is written travels with the tokenizer, and so does the token that ends an answer.
"""

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import journal, losses
from groundup import machine as machines
from groundup.batches import sequential
from groundup.batches.rows import PackedRows, Rows
from groundup.checkpoint import atomic, folder
from groundup.errors import CheckpointError, DataError
from groundup.evaluate import Score, evaluate
from groundup.evaluate.answers import asked, entry, exact
from groundup.generate import chat as chats
from groundup.machine import Machine
from groundup.settings import Instruct
from groundup.stages import data, launch, tuning
from groundup.stages.tuning import Task
from groundup.stages.words import beginning, say
from groundup.text import conversations
from groundup.text.conversations import Conversation
from groundup.text.split import Split
from groundup.tokens.rows import Gathered, Learn, chat_row, chat_rows, gathered, stop_ids
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import run as runs
from groundup.train.job import Fitted
from groundup.train.plan import Preflight

PARTS = {"train": "the training rows", "valid": "the validation rows", "test": "the test rows"}
BEFORE = "before.json"  # in RUN/data: the test loss before the first step
ANSWERS = "answers.json"
SAMPLED = 2  # validation questions that are answered at each look
ANSWER_TOKENS = 256  # of an answer at the end, at most, as in groundup respond
SHOWN = 3  # test questions that are answered at the end, to be read
ROWS = 16  # rows of one forward pass in the closing evaluation


@dataclass(frozen=True)
class Answered:
    """A test question, what was expected (None where nobody says), and what the model said.

    `past_context`: question and answer together outgrew the context, so that the beginning was out of sight.
    """

    question: str
    expected: str | None
    answer: str
    past_context: bool


@dataclass(frozen=True)
class Result:
    """Figures of a run: losses in nats per learnt token; `seconds` of training.

    `rows`: those of each part that were learnt from or measured; `dropped`: those without anything to learn. Test
    losses are those of the untuned model, read through the same template, and of the weights after the last step.
    `answered`: test questions put to the model; `graded`: those of them whose answer is known; `exact`: share of these
    that were answered right to the word, None where there are none; `past_context`: answers of which `Answered` says
    so, those that are only shown among them.
    """

    out: Path
    template: str
    rows: dict[str, int]
    dropped: dict[str, int]
    learnt_share: float
    steps: int
    seconds: float
    tokens_per_second: float
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
    test_loss_before: float | None
    test_loss: float | None
    answered: int
    graded: int
    exact: float | None
    past_context: int
    answers: list[Answered]


def instruct(**settings: Any) -> Result:
    """Tune a model from Python: the settings of `groundup instruct` as keyword arguments.

    >>> instruct(model="smollm2-135m", data=["instruction-data"], out="runs/assistant").test_loss  # doctest: +SKIP
    0.93
    """
    result = run(Instruct.create(**settings))
    assert isinstance(result, Result)
    return result


def run(settings: Instruct) -> Result | Preflight:
    """Tune a model in `settings.out` to answer; with `dry_run` only the preflight comes back.

    Raises UserError for what cannot be had or used, DataError where no token of the data would be learnt.
    """
    checks, fitted = tuning.run(settings, _prepare)
    if fitted is None or settings.out is None:
        return checks
    return _closing(settings, settings.out, fitted)


# the rows


def parts(out: Path) -> Split[Conversation]:
    """The three parts that a run keeps in RUN/data; raises CheckpointError where one is missing."""
    return data.parts(out, _read_part)


def _made(settings: Instruct) -> tuple[Split[Conversation], dict[str, Any]]:
    """Read all data, and divide it so that no question with its answer is in two parts."""
    rows = [conversation for name in settings.data for conversation in conversations.read(name)]
    if not rows:
        raise DataError(f"no conversation in {', '.join(settings.data)}", "give instructions with their answers")
    split = conversations.split(
        rows,
        validation=settings.validation,
        test=settings.test,
        seed=settings.seed,
        protocol=settings.protocol,
    )
    return split, {"read": len(rows), "repeated": split.duplicates, "protocol": settings.protocol}


def _write_part(path: Path, rows: Sequence[Conversation]) -> None:
    """As messages always, as Alpaca beside them where every conversation is one question and its answer."""
    conversations.write_messages(path, rows)
    alpaca = path.with_suffix(".json")
    if rows and all(conversations.fits_alpaca(row) for row in rows):
        conversations.write_alpaca(alpaca, rows)
    else:  # what a killed start may have left
        alpaca.unlink(missing_ok=True)


def _read_part(path: Path) -> list[Conversation]:
    alpaca = path.with_suffix(".json")
    return conversations.read(alpaca if alpaca.is_file() else path)


# the task


def source_of(found: Gathered, tokenizer: Tokenizer, *, batching: str, context: int) -> Rows | PackedRows:
    """Rows as batches take them: "packed" side by side in `context` places, else one by one."""
    return (
        PackedRows(found.rows, length=context)
        if batching == "packed"
        else Rows(found.rows, pad=tuning.filler(tokenizer))
    )


def _prepare(settings: Instruct, out: Path, machine: Machine) -> Task:
    """Everything this stage brings; nothing in it trains."""
    opened = tuning.opened(settings)
    taught = chats.teach(opened.tokenizer, settings.template, settings.add_tokens)
    model = tuning.extended(settings, opened, taught)
    notes = data.divided(out, partial(_made, settings), _write_part)
    split = parts(out)
    context = opened.context
    train = chat_rows(
        taught.tokenizer, taught.template, split.train, learn=settings.learn, context=context, source=PARTS["train"]
    )
    valid, test = (
        _measured(name, part, taught, settings.learn, context=context)
        for name, part in (("valid", split.valid), ("test", split.test))
    )
    found = {"train": train, "valid": valid, "test": test}
    _tell(taught, notes, found)
    source = source_of(train, taught.tokenizer, batching=settings.batching, context=context)
    checked, tested = (Rows(part.rows, pad=tuning.filler(taught.tokenizer)) if part else None for part in (valid, test))
    before = _before(settings, out, tested, model, machine)
    return Task(
        model=tuning.taught(settings, opened, model, machine=machine, tables=bool(taught.added)),
        tokenizer=taught.tokenizer,
        loss=losses.next_token,
        source=source,
        lengths=source.lengths,
        evaluate=partial(_score, source=checked, machine=machine) if checked else None,
        sample=partial(_sample, taught=taught, rows=split.valid[:SAMPLED], tokens=settings.sample_tokens),
        fingerprint=tuning.fingerprint([[*row.ids, *map(int, row.learn)] for row in train.rows]),
        look=float(checked.lengths.sum()) if checked else 0.0,
        sources=settings.data,
        card=opened.facts | {
            "template": taught.style, "added_tokens": list(taught.added), "cut": train.cut,
            "rows": notes | {"kept": {name: len(part.rows) if part else 0 for name, part in found.items()}},
            "learnt_share": train.learnt_share, "test_loss_before": before,
        },
    )  # fmt: skip


def _measured(
    name: str, rows: Sequence[Conversation], taught: chats.Taught, learn: Learn, *, context: int
) -> Gathered | None:
    """A part that is only measured, as rows; None, with a remark, where nothing of it can be: training needs it not."""
    found = [chat_row(taught.tokenizer, taught.template, row, learn=learn) for row in rows]
    try:
        return gathered(found, context=context, source=PARTS[name]) if found else None
    except DataError as error:
        say(name, f"nothing is measured on {error.what}; {error.fix}")
        return None


def _score(model: nn.Module, rows: int, *, source: Rows, machine: Machine) -> Score:
    """Mean loss over the learnt tokens of all validation rows."""
    return evaluate(model, sequential(source, rows, lengths=source.lengths), machine=machine)


def _before(settings: Instruct, out: Path, test: Rows | None, model: nn.Module, machine: Machine) -> float | None:
    """The loss on the test rows before the first step; measured once, and read back by a resumed run."""
    path = out / "data" / BEFORE
    if path.is_file():
        found = atomic.read_json(path)["loss"]
        return None if found is None else float(found)
    if test is None or settings.dry_run:
        return None
    loss = _score(model.to(machine.device), ROWS, source=test, machine=machine).loss
    atomic.write_text(path, json.dumps({"loss": loss if math.isfinite(loss) else None}) + "\n")
    return loss


def _sample(model: nn.Module, *, taught: chats.Taught, rows: Sequence[Conversation], tokens: int) -> str:
    """How the model answers the first validation questions by now, greedily."""
    questions = [asked(row) for row in rows]
    prompts = [question.messages for question in questions]
    found = chats.answers(model, taught.tokenizer, taught.template, prompts, max_tokens=tokens)
    return "\n\n".join(f"{question.text}\n-> {answer}" for question, answer in zip(questions, found, strict=True))


def _tell(taught: chats.Taught, notes: dict[str, Any], found: dict[str, Gathered | None]) -> None:
    """What was read, left out and kept, and how much of it is learnt, for the person."""
    repeated = f"{notes['repeated']:,} repeated left out, " if notes["repeated"] else ""
    counts = ", ".join(f"{len(rows.rows) if rows else 0:,} {name}" for name, rows in found.items())
    say("rows", f"{notes['read']:,} read, {repeated}{counts}")
    ends = " ".join(repr(taught.tokenizer.decode([id])) for id in stop_ids(taught.tokenizer, taught.template))
    say("template", taught.style + (f", an answer ends with {ends}" if ends else ""))
    for name, rows in found.items():
        if rows is not None and (name == "train" or rows.cut or rows.dropped):
            for line in rows.words().split("\n"):
                say(name, line)


# the end


def _closing(asked_for: Instruct, out: Path, fitted: Fitted) -> Result:
    """Loss and answers on the test rows with the weights after the last step, RUN/model."""
    loaded = folder.load(out, dtype=torch.float32)
    told = runs.read_settings(out / runs.SETTINGS, Instruct)
    assert isinstance(told, Instruct)
    machine = machines.choose(device=told.device, dtype=told.dtype, threads=told.threads)
    template = chats.template_of(loaded.tokenizer)
    if template is None:
        raise CheckpointError(f"{loaded.folder} has lost its chat template", "start a new run with another --out")
    model, split = loaded.model.to(machine.device), parts(out)
    taught = chats.Taught(loaded.tokenizer, template, str(loaded.card.get("template", "")), ())
    sizes = {name: len(rows) for name, rows in split.parts().items()}
    kept: dict[str, int] = sizes | loaded.card.get("rows", {}).get("kept", {})
    loss = None
    context = told.context or tuning.ROWS
    if kept["test"] and (test := _measured("test", split.test, taught, told.learn, context=context)):
        loss = _score(model, ROWS, source=Rows(test.rows, pad=tuning.filler(loaded.tokenizer)), machine=machine).loss
    wanted = asked_for.answers or told.answers
    answers = _answers(out, taught, model, split.test[: max(wanted, SHOWN)], wanted=wanted)
    asked_rows = split.test[:wanted]
    marks = exact([one.answer for one in answers[:wanted]], asked_rows)
    return Result(
        out=out,
        template=taught.style,
        rows=kept,
        dropped={name: size - kept[name] for name, size in sizes.items()},
        learnt_share=float(loaded.card.get("learnt_share", 0.0)),
        steps=fitted.steps,
        seconds=fitted.seconds,
        tokens_per_second=fitted.tokens_per_second,
        train_loss=fitted.train_loss,
        validation_loss=fitted.validation_loss,
        best_loss=fitted.best_loss,
        test_loss_before=loaded.card.get("test_loss_before"),
        test_loss=loss,
        answered=len(asked_rows),
        graded=marks.rows if marks else 0,
        exact=marks.share if marks else None,
        past_context=sum(one.past_context for one in answers),
        answers=answers[:SHOWN],
    )


def _answers(
    out: Path, taught: chats.Taught, model: nn.Module, rows: Sequence[Conversation], *, wanted: int
) -> list[Answered]:
    """Answer test questions; where answers were asked for, they are also written to RUN/answers.json."""
    questions = [asked(row) for row in rows]
    prompts = [question.messages for question in questions]
    given = chats.answered(model, taught.tokenizer, taught.template, prompts, max_tokens=ANSWER_TOKENS)
    found = sorted(given, key=lambda answer: answer.row)
    if wanted and rows:
        written = [entry(row, answer.text) for row, answer in list(zip(rows, found, strict=True))[:wanted]]
        atomic.write_text(out / ANSWERS, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return [Answered(question.text, question.expected, answer.text, answer.past_context)
            for question, answer in zip(questions, found, strict=True)]  # fmt: skip


def show(result: Result | Preflight) -> None:
    """Print losses, three answers, and what to do next."""
    if isinstance(result, Preflight):
        print(launch.describe(result))
        return
    for name, loss in (("validation", result.validation_loss), ("test", result.test_loss)):
        before = f"   before {result.test_loss_before:.4f}" if name == "test" and result.test_loss_before else ""
        if loss is not None:
            print(f"{name:<12}loss {loss:.4f}{before}")
    if result.exact is not None:
        print(f"{'exact':<12}{100 * result.exact:.1f} % of {result.graded:,} answers, in {result.out / ANSWERS}")
    if result.answered > result.graded:
        print(f"{'not graded':<12}{result.answered - result.graded:,} answers: the data does not say what is right")
    if result.past_context:
        print(f"{'context':<12}outgrown by {result.past_context:,} questions with their answers: not all was in sight")
    if any(result.dropped.values()):
        print(
            f"{'left out':<12}" + ", ".join(f"{count:,} of {name}" for name, count in result.dropped.items() if count)
        )
    print(f"{result.steps:,} steps in {journal.clock(result.seconds)} ({result.tokens_per_second:,.0f} tokens/s), "
          f"{100 * result.learnt_share:.1f} % of the tokens learnt")  # fmt: skip
    for one in result.answers:
        expected = "" if one.expected is None else f"\n  expected: {beginning(one.expected)}"
        print(f"\n  {beginning(one.question)}\n  -> {beginning(one.answer)}{expected}")
    for line in _next(result):
        print(line)


def _next(result: Result) -> Iterator[str]:
    """What to do with the model now."""
    run = shlex.quote(str(result.out))
    yield f"\nnext: groundup chat {run}"
    if result.rows["test"] + result.dropped["test"]:
        data = "test.json" if (result.out / "data" / "test.json").is_file() else "test.jsonl"
        yield f"      groundup respond {run} --data {run}/data/{data} --out {run}/test-answers.json"
        yield f"      groundup judge {run}/{ANSWERS if result.answered else 'test-answers.json'}"
