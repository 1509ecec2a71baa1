"""Preference tuning: pairs of answers -> template -> rows of both -> a preference loss -> `fit`; no reward model.

In: `settings.Dpo`. Out: a run folder, and `Result`, its figures. Which pairs are learnt from is decided once and kept
in RUN/data (paired.py), and so is what the reference says of them (reference.py): a step then costs one model, not two.
"""

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import journal, report
from groundup.batches import sequential
from groundup.batches.pairs import Pairs
from groundup.checkpoint import atomic, folder
from groundup.errors import CheckpointError, SettingsError, UserError
from groundup.evaluate.pairs import LengthRule
from groundup.evaluate.preference import PreferenceMarks, fallen, mark_preference
from groundup.generate import chat as chats
from groundup.losses import Loss
from groundup.losses.preference import WITHOUT_REFERENCE, preference
from groundup.machine import Machine
from groundup.settings import Dpo
from groundup.stages import launch, paired, tuning
from groundup.stages import reference as references
from groundup.stages.paired import BothSides, Rows
from groundup.stages.tuning import Task
from groundup.stages.words import beginning, ending, say
from groundup.text.conversations import told
from groundup.text.preferences import Preference
from groundup.text.split import Split
from groundup.train.job import Fitted
from groundup.train.plan import Preflight

BEFORE = "before.json"  # in RUN/data: marks and answers before the first step
TEST = "test.json"  # in RUN: the marks of the test pairs, before and after
SAMPLED = 2  # validation questions that are answered at each look
SHOWN = 3  # and at the end
USUAL = 1.0  # beta of simpo below which pairs hardly move


@dataclass(frozen=True)
class Answered:
    """A validation question, and what the model answered before the first step and after the last."""

    question: str
    before: str
    after: str


@dataclass(frozen=True)
class Result:
    """Figures of a run; `seconds` of training.

    `reference`: the model that was stayed near to, "" where the loss has none. `pairs`: those of each part that were
    learnt from or measured; `dropped`: the others. Marks of validation are those of the first look and of the last, of
    the test those of the untuned model and of the weights after the last step; None where there was nothing to measure.
    `remarks`: what the course of the run says, in plain language.
    """

    out: Path
    loss: str
    reference: str
    template: str
    pairs: dict[str, int]
    dropped: dict[str, int]
    steps: int
    seconds: float
    tokens_per_second: float
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
    validation_before: PreferenceMarks | None
    validation: PreferenceMarks | None
    test_before: PreferenceMarks | None
    test: PreferenceMarks | None
    remarks: list[str]
    answers: list[Answered]


def dpo(**settings: Any) -> Result:
    """Tune a model towards preferred answers from Python: the settings of `groundup dpo` as keyword arguments.

    >>> dpo(model="runs/assistant", data=["instruction-preference"], out="runs/nicer").test.accuracy  # doctest: +SKIP
    0.93
    """
    result = run(Dpo.create(**settings))
    assert isinstance(result, Result)
    return result


def run(settings: Dpo) -> Result | Preflight:
    """Tune a model in `settings.out` towards the preferred answers; with `dry_run` only the preflight comes back.

    Raises UserError for what cannot be had or used: settings that mean nothing together, pairs of which none fits, a
    reference that reads other ids.
    """
    _check(settings)
    benches: list[_Bench] = []
    checks, fitted = tuning.run(settings, partial(_prepare, benches=benches))
    if fitted is None or settings.out is None:
        return checks
    return _closing(settings.out, benches[0], fitted)


def _check(settings: Dpo) -> None:
    """Refuse what means nothing with the loss that was chosen; what a resumed run was asked has been looked at."""
    if settings.resume:
        return
    free = settings.loss in WITHOUT_REFERENCE
    unused = {
        "reference": bool(settings.reference) and free,
        "average": settings.average and free,  # they divide by the tokens in any case
        "smoothing": settings.smoothing > 0 and settings.loss != "sigmoid",
        "gamma": "gamma" in settings.model_fields_set and settings.loss != "simpo",
    }
    for name, vain in unused.items():
        if vain:
            raise SettingsError(f"--{name} means nothing with --loss {settings.loss}", "leave it out")
    if settings.loss == "simpo" and settings.beta < USUAL:
        say("beta", f"{settings.beta:g} is small for simpo, which compares probabilities per token: 2 is usual")


# the task


def _prepare(settings: Dpo, out: Path, machine: Machine, *, benches: list["_Bench"]) -> Task:
    """Everything this stage brings; nothing in it trains. What judges at the end is put into `benches`."""
    opened = tuning.opened(settings)
    taught = chats.teach(opened.tokenizer, settings.template)
    split, notes = paired.divided(settings, out)
    rows = paired.rows_of(split, taught, context=opened.context)
    paired.tell(split, notes, rows)
    model = tuning.extended(settings, opened, taught)
    model = tuning.taught(settings, opened, model, machine=machine, tables=bool(taught.added))
    reference = references.of(settings, out, opened, model, rows, machine)
    sources = rows.sources(reference)
    loss = preference(settings.loss, beta=settings.beta, smoothing=settings.smoothing, average=settings.average,
                      gamma=settings.gamma)  # fmt: skip
    bench = _Bench(settings, opened.spec, rows, _shown(split), sources, loss, machine)
    benches.append(bench)
    before = _before(out, bench, model)
    train, valid = sources["train"], sources.get("valid")
    return Task(
        model=model,
        tokenizer=taught.tokenizer,
        loss=loss,
        source=train,
        lengths=train.places,
        evaluate=partial(_score, source=valid, loss=loss, machine=machine) if valid else None,
        sample=partial(_sample, bench=bench),
        fingerprint=rows.fingerprints()["train"],
        look=float(valid.places.sum()) * (1 - valid.filler) if valid else 0.0,
        sources=settings.data,
        card=opened.facts | {
            "template": taught.style, "added_tokens": list(taught.added),
            "rows": notes | {"kept": rows.counts}, "test_before": before["test"],
            "reference": _name_of_reference(settings, opened.spec),
        },
    )  # fmt: skip


def _name_of_reference(settings: Dpo, spec: str) -> str:
    """The model that is stayed near to, "" where the loss has none."""
    return "" if settings.loss in WITHOUT_REFERENCE else settings.reference or spec


def _score(model: nn.Module, rows: int, *, source: Pairs, loss: Loss, machine: Machine) -> PreferenceMarks:
    """The marks on all pairs of a part, `rows` pairs at once."""
    return mark_preference(model, sequential(source, rows, lengths=source.lengths), loss=loss, machine=machine)


def _sample(model: nn.Module, *, bench: "_Bench") -> str:
    """How the model answers the first validation questions by now, greedily."""
    found = bench.answers(model, SAMPLED)
    return "\n\n".join(f"{_question(pair)}\n-> {answer}" for pair, answer in zip(bench.shown, found, strict=False))


def _shown(split: Split[Preference]) -> list[Preference]:
    """The first questions of validation, each once: what the model answers to them is shown."""
    first = {json.dumps([dict(message) for message in pair.messages]): pair for pair in reversed(split.valid)}
    return list(reversed(first.values()))[:SHOWN]


def _question(pair: Preference) -> str:
    return str(told(pair.messages)[-1]["content"])


# before and after


@dataclass(frozen=True)
class _Bench:
    """What a model is judged with before the first step and after the last."""

    settings: Dpo
    spec: str  # the model that is tuned
    rows: Rows
    shown: list[Preference]
    sources: dict[str, BothSides]
    loss: Loss
    machine: Machine

    def answers(self, model: nn.Module, count: int = SHOWN) -> list[str]:
        """What the model says to the first validation questions, greedily."""
        taught, prompts = self.rows.taught, [pair.messages for pair in self.shown[:count]]
        return chats.answers(model, taught.tokenizer, taught.template, prompts, max_tokens=self.settings.sample_tokens)

    def tested(self, model: nn.Module) -> PreferenceMarks | None:
        """The marks of the test pairs."""
        source, rows = self.sources.get("test"), self.settings.micro_batch or self.settings.batch
        return None if source is None else _score(model, rows, source=source, loss=self.loss, machine=self.machine)


def _before(out: Path, bench: _Bench, model: nn.Module) -> dict[str, Any]:
    """Marks and answers before the first step: {"test", "answers"}; made once, and read back by a resumed run.

    Raises CheckpointError where a run that has gone on for a while does not have them any more.
    """
    path = out / "data" / BEFORE
    if path.is_file():
        return atomic.read_json(path)
    if bench.settings.dry_run:
        return {"test": None, "answers": []}
    if tuning.resumes(out):  # these weights are not those of the beginning any more, nor read yet
        raise CheckpointError(f"{path} is missing", "restore it from a copy, or start a new run")
    model = model.to(bench.machine.device)
    marks = bench.tested(model)
    if marks is not None:
        say("start", f"loss {marks.loss:.4f} on the test pairs{_expected(bench)}")
    found = {"test": None if marks is None else vars(marks), "answers": bench.answers(model)}
    atomic.write_text(path, json.dumps(found, ensure_ascii=False) + "\n")
    return found


def _expected(bench: _Bench) -> str:
    """What the loss is before anything was learnt, where the model is its own reference."""
    settings = bench.settings
    if settings.reference or settings.loss in WITHOUT_REFERENCE:
        return ""
    begins = {"sigmoid": ("ln 2", math.log(2)), "ipo": ("1 / (4 beta^2)", 1 / (4 * settings.beta**2))}
    words, value = begins.get(settings.loss, ("1", 1.0))
    return f"; where model and reference are the same it is {words} = {value:.4f}"


def _closing(out: Path, bench: _Bench, fitted: Fitted) -> Result:
    """Marks and answers with the weights after the last step, RUN/model; the page is renewed with them."""
    model = folder.load(out, dtype=torch.float32).model.to(bench.machine.device)
    before, test = atomic.read_json(out / "data" / BEFORE), bench.tested(model)
    if test is not None:
        _write_test(out, bench, before=before["test"], after=test, steps=fitted.steps)
    looks = [record for record in journal.Journal(out).read() if record.get("kind") == "eval"]
    looks.sort(key=lambda record: int(record["step"]))
    split, counts = paired.parts(out), bench.rows.counts
    sizes = {name: len(pairs) for name, pairs in split.parts().items()}
    answers = zip(bench.shown, before["answers"], bench.answers(model), strict=False)
    return Result(
        out=out,
        loss=bench.settings.loss,
        reference=_name_of_reference(bench.settings, bench.spec),
        template=bench.rows.taught.style,
        pairs=counts,
        dropped={name: size - counts[name] for name, size in sizes.items()},
        steps=fitted.steps,
        seconds=fitted.seconds,
        tokens_per_second=fitted.tokens_per_second,
        train_loss=fitted.train_loss,
        validation_loss=fitted.validation_loss,
        best_loss=fitted.best_loss,
        validation_before=_marks(looks[0], counts["valid"]) if looks and looks[0]["step"] == 0 else None,
        validation=_marks(looks[-1], counts["valid"]) if looks and looks[-1]["step"] > 0 else None,
        test_before=_marks(before["test"], counts["test"]),
        test=test,
        remarks=_remarks(out, looks),
        answers=[Answered(_question(pair), one, other) for pair, one, other in answers],
    )


def _write_test(out: Path, bench: _Bench, *, before: dict[str, Any] | None, after: PreferenceMarks, steps: int) -> None:
    """RUN/test.json: the marks of the test pairs, and how many are right for who goes by length alone."""
    split = paired.parts(out)
    by_length = LengthRule.learnt(split.train).accuracy(split.test)
    found = {"model": "model", "step": steps, "rows": after.pairs, **after.record(), "before": before}
    found["longer_baseline"] = by_length
    atomic.write_text(out / TEST, json.dumps(found, indent=1) + "\n")
    if bench.machine.is_main:
        try:
            report.write(out)
        except UserError as error:  # a run does not end for the want of a page
            say("report", f"none: {error}")


def _marks(record: dict[str, Any] | None, pairs: int) -> PreferenceMarks | None:
    """The marks in a line of the journal, or in a file; None where one of them was not finite."""
    if record is None:
        return None
    found = {each.name: record.get(each.name) for each in fields(PreferenceMarks)} | {"pairs": pairs}
    whole = all(value is not None for name, value in found.items() if name != "drift")
    return PreferenceMarks(**found) if whole else None  # type: ignore[arg-type]


def _remarks(out: Path, looks: Sequence[dict[str, Any]]) -> list[str]:
    """What the report says about the run, and where the chosen answers went."""
    found = report.remarks(report.load(out))
    said = [f"{remark.seen} {remark.means} {remark.do}" for remark in found]
    lost = "" if any(remark.kind in ("both rewards fall", "drift") for remark in found) else fallen(looks)
    return [*said, lost] if lost else said


def show(result: Result | Preflight) -> None:
    """Print marks before and after, the remarks, answers before and after, and what to do next."""
    if isinstance(result, Preflight):
        print(launch.describe(result))
        return
    for name, before, after in (
        ("validation", result.validation_before, result.validation),
        ("test", result.test_before, result.test),
    ):
        if after is not None:
            print(f"{name:<12}{_words(after)}" + (f"   before: loss {before.loss:.4f}" if before else ""))
    if any(result.dropped.values()):
        print(
            f"{'left out':<12}" + ", ".join(f"{count:,} of {name}" for name, count in result.dropped.items() if count)
        )
    print(f"{result.steps:,} steps in {journal.clock(result.seconds)} ({result.tokens_per_second:,.0f} tokens/s)")
    for remark in result.remarks:
        print(f"\n{remark}")
    for one in result.answers:
        print(f"\n  {ending(one.question)}\n  before: {beginning(one.before)}\n  after:  {beginning(one.after)}")
    for line in _next(result):
        print(line)


def _words(marks: PreferenceMarks) -> str:
    drift = "" if marks.drift is None else f"  drift {marks.drift:.1f} nats per answer"
    return (
        f"loss {marks.loss:.4f}  in the right order {100 * marks.accuracy:.1f} %  margin {marks.margin:.3f}  "
        f"rewards {marks.chosen_reward:.3f} and {marks.rejected_reward:.3f}{drift}"
    )


def _next(result: Result) -> Iterator[str]:
    """What to do with the model now."""
    run = shlex.quote(str(result.out))
    yield f"\nnext: groundup chat {run}"
    if result.reference:
        yield f"      groundup compare {shlex.quote(result.reference)} {run} --data PROMPTS"
