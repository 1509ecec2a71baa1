"""A reward model: pairs of answers -> rows -> a head that scores -> Bradley-Terry loss -> marks on pairs never seen.

In: `settings.Reward`. Out: a run folder like that of any other stage, with data/ (the three parts), test.json (the test
pairs, read once) and `Result`, its figures. Mean and spread of the scores of the training answers are measured with the
final weights and kept with them, so that a score means the same wherever it is used.
"""

import dataclasses
import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from groundup import journal, report
from groundup.batches import sequential
from groundup.batches.pairs import WholePairs
from groundup.checkpoint import atomic, folder
from groundup.errors import DataError, SettingsError
from groundup.evaluate.look import Look
from groundup.evaluate.pairs import LengthRule, mark_ranking, marks, mean_and_spread, pair_scores, told, worst
from groundup.evaluate.scoring import filler_of, fitted, judged
from groundup.generate import chat as chats
from groundup.lock import locked
from groundup.losses.ranking import ranking
from groundup.machine import Machine
from groundup.model import surgery
from groundup.model.heads import REWARD, Classifier, HeadConfig
from groundup.settings import Reward
from groundup.stages import launch, paired, tuning
from groundup.stages.tuning import Opened, Task
from groundup.stages.words import say
from groundup.text.preferences import Preference
from groundup.text.split import Split
from groundup.tokens.pairs import GatheredPairs, PairRow
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.job import Fitted
from groundup.train.plan import Preflight

TEST = "test.json"
SUBSET = 100  # training pairs at most whose accuracy is looked at beside that of all validation pairs
MEASURED = 300  # training pairs at most from whose scores mean and spread are taken
ROWS = 16  # pairs of one forward pass at the end
WORST = 10  # pairs in the wrong order that are kept, the surest first
NO_ROOM = "an answer leaves no room for a prompt in the context"


@dataclass(frozen=True)
class Result:
    """Figures of a run: losses in nats a pair, accuracies as shares, `seconds` of training.

    `rows`: pairs of each part that were learnt from or measured; `dropped`: the others. Those of validation belong to
    the last look. `test` is what test.json says, None without test pairs; after a longer resume it speaks of earlier
    weights. `mean`, `spread`: of the raw scores of the training answers, 0 and 1 where they were not to be measured.
    """

    out: Path
    template: str
    rows: dict[str, int]
    dropped: dict[str, int]
    steps: int
    seconds: float
    tokens_per_second: float
    validation_loss: float | None
    validation_accuracy: float | None
    test: dict[str, Any] | None
    mean: float
    spread: float


@dataclass(frozen=True)
class Part:
    """The pairs of a part that became rows, and those rows; `pad` is what a batch of them is filled up with."""

    pairs: list[Preference]
    rows: list[PairRow]
    pad: int

    def source(self) -> WholePairs:
        """All rows as batches, in their order."""
        return WholePairs(self.rows, pad=self.pad)

    def some(self, most: int) -> WholePairs:
        """At most so many pairs, from all over the part, the shortest first: judged together they need less filler."""
        places = np.linspace(0, len(self.pairs) - 1, min(most, len(self.pairs))).round().astype(int)
        some = [self.rows[place] for place in places.tolist()]
        return WholePairs(sorted(some, key=_longer), pad=self.pad)


@dataclass(frozen=True)
class Prepared:
    """What a run was prepared with and is measured by at its end."""

    settings: Reward
    machine: Machine
    template: str
    parts: dict[str, Part]
    sizes: dict[str, int]
    rule: LengthRule


def reward(**settings: Any) -> Result:
    """Train a reward model from Python: the settings of `groundup reward` as keyword arguments.

    >>> reward(model="runs/assistant", data=["hh-rlhf"], out="runs/reward").test["accuracy"]  # doctest: +SKIP
    0.61
    """
    result = run(Reward.create(**settings))
    assert isinstance(result, Result)
    return result


def run(settings: Reward) -> Result | Preflight:
    """Train a reward model in `settings.out`, then measure its scores and read the test pairs once.

    With `dry_run` only the preflight comes back. Raises UserError for what cannot be had or used, DataError where no
    pair of the data can be learnt from.
    """
    if settings.batching not in ("bucketed", "padded"):
        raise SettingsError(
            f"--batching {settings.batching}: a row that is judged by its last state cannot share its place",
            "choose bucketed (quickest) or padded",
        )
    prepared: list[Prepared] = []
    checks, fitted = tuning.run(settings, partial(_prepare, keep=prepared.append))
    if fitted is None or settings.out is None:
        return checks
    with locked(settings.out, doing="groundup reward"):
        return _closing(settings.out, fitted, prepared[-1])


# the pairs


def rows_of(
    split: Split[Preference], taught: chats.Taught, *, context: int, margins: bool
) -> tuple[paired.Rows, dict[str, int]]:
    """The parts as rows that are judged, and of how many pairs each part has cut prompts.

    A row is what `groundup score` reads (`scoring.fitted`): a long one loses the beginning of its prompt. `margins`:
    whether the pairs keep theirs, else 0. Raises DataError where no training pair is left.
    """
    whole = paired.rows_of(split, taught, context=sys.maxsize)
    found, cuts = dict(whole.found), dict[str, int]()
    for name, part in whole.kept.items():
        kept, cuts[name] = _judged(part, taught.tokenizer, context=context, margins=margins)
        if cuts[name]:
            what = f"{cuts[name]:,} of {len(kept.rows):,} pairs are longer than the context of {context:,} tokens"
            say(name, f"{what}: the beginning of their prompts is not read")
        found[name] = kept if kept.rows else None
        if kept.rows:
            continue
        if name == "train":
            what = f"{paired.PARTS[name]}: there is nothing to learn. In each {NO_ROOM} of {context:,} tokens"
            raise DataError(what, "give shorter answers; or a longer --context, if the model can read so much")
        say(name, f"nothing is measured on {paired.PARTS[name]}: in each {NO_ROOM} of {context:,} tokens")
    return paired.Rows(taught, found), cuts


def _judged(part: GatheredPairs, tokenizer: Tokenizer, *, context: int, margins: bool) -> tuple[GatheredPairs, int]:
    """The pairs whose rows can be read, and how many of them without the beginning of a prompt."""
    filler = filler_of(tokenizer)
    fit = partial(fitted, filler=filler, lead=len(tokenizer.start), context=context)
    rows, places, cut = list[PairRow](), list[int](), 0
    for row, place in zip(part.rows, part.places, strict=True):
        chosen, rejected = fit(row.chosen), fit(row.rejected)
        if chosen is None or rejected is None:
            continue
        rows.append(PairRow(chosen, rejected, row.margin if margins else 0.0))
        places.append(place)
        cut += max(len(judged(side, filler).ids) for side in (row.chosen, row.rejected)) > context
    left = len(part.rows) - len(rows)
    dropped = part.dropped | ({f"{NO_ROOM} of {context:,} tokens": left} if left else {})
    return dataclasses.replace(part, rows=rows, places=places, dropped=dropped), cut


def _parts(rows: paired.Rows, split: Split[Preference]) -> dict[str, Part]:
    """Each part that has rows."""
    pad = tuning.filler(rows.taught.tokenizer)
    return {
        name: Part([getattr(split, name)[place] for place in found.places], found.rows, pad)
        for name, found in rows.kept.items()
    }


# the task


def _prepare(settings: Reward, out: Path, machine: Machine, *, keep: Callable[[Prepared], None]) -> Task:
    """Everything this stage brings; nothing in it trains."""
    opened = tuning.opened(settings, classifier=True)
    taught = chats.teach(opened.tokenizer, settings.template)
    network = _network(settings, opened, taught)
    split, notes = paired.divided(settings, out)
    rows, cuts = rows_of(split, taught, context=opened.context, margins=settings.margins)
    paired.tell(split, notes, rows)
    parts = _parts(rows, split)
    train = parts["train"]
    if settings.margins:
        _tell_margins(train)
    rule = LengthRule.learnt(train.pairs)
    sizes = {name: len(pairs) for name, pairs in split.parts().items()}
    keep(Prepared(settings, machine, taught.style, parts, sizes, rule))
    valid, some, source = parts.get("valid"), train.some(SUBSET), train.source()
    looked = int(some.lengths.sum()) + (sum(map(_longer, valid.rows)) if valid else 0)
    return Task(
        model=tuning.taught(settings, opened, network, machine=machine),
        tokenizer=taught.tokenizer,
        loss=ranking,
        source=source,
        lengths=2 * source.lengths,  # two rows each
        evaluate=partial(_look, valid=valid, train=some, rule=rule, machine=machine) if valid else None,
        sample=None,
        fingerprint=_fingerprint(rows),
        look=2.0 * looked,
        sources=settings.data,
        card=opened.facts | {
            "template": taught.style, "added_tokens": list(taught.added), "rows": notes | {"kept": rows.counts},
            "cut": cuts,
        },
    )  # fmt: skip


def _network(settings: Reward, opened: Opened, taught: chats.Taught) -> Classifier:
    """The reward model that goes on, or a new head on a language model; with a row for each token that is new."""
    model, known = opened.model, opened.tokenizer.vocabulary
    if isinstance(model, Classifier) and model.head_config.kind != REWARD:
        what = f"{opened.spec} tells classes apart: {', '.join(model.head_config.labels[:6])}"
        raise SettingsError(what, "start from a language model, or from a reward model")
    if taught.added and settings.train == "lora":
        raise SettingsError(
            f"--train lora leaves no room for new tokens in a reward model, and --template {settings.template} writes "
            f"{', '.join(taught.added)}",
            "start from a model that was taught them (groundup instruct), or leave out --template or --train lora",
        )
    trunk: nn.Module = model.trunk if isinstance(model, Classifier) else model
    if taught.added:
        trunk = surgery.extend_vocabulary(trunk, taught.tokenizer.vocabulary, known=known)
        named = ", ".join(taught.added)
        say("tokens", f"{named} are new: their rows begin as the mean of the {known:,} old ones")
    if not isinstance(model, Classifier):
        return Classifier(trunk, HeadConfig((REWARD,), kind=REWARD), seed=settings.seed)
    model.trunk = trunk  # type: ignore[assignment]  # a GPT as before
    # where its scores lie, and how far apart, is measured anew when it has learnt
    model.head_config = HeadConfig((REWARD,), model.head_config.pooling, model.head_config.bias, REWARD)
    return model


def _look(model: nn.Module, rows: int, *, valid: Part, train: WholePairs, rule: LengthRule, machine: Machine) -> Look:
    """One evaluation."""
    source = valid.source()
    batches = sequential(source, rows, lengths=source.lengths)
    found = mark_ranking(model, batches, machine=machine, longer_baseline=rule.accuracy(valid.pairs))
    seen = mark_ranking(model, sequential(train, rows), machine=machine)
    return Look(found, seen.accuracy)


def _tell_margins(train: Part) -> None:
    """How many training pairs carry a margin; raises SettingsError where none does."""
    count = sum(row.margin > 0 for row in train.rows)
    if not count:
        what = "--margins: no training pair has a margin above 0"
        raise SettingsError(what, 'give the pairs one ("margin": 1.0), or leave it out')
    say("margins", f"{count:,} of {len(train.rows):,} training pairs have one")


def _fingerprint(rows: paired.Rows) -> str:
    """What a resumed run must find unchanged: ids and margins of all parts."""
    margins = {name: [row.margin for row in part.rows] for name, part in rows.kept.items()}
    return hashlib.sha256(json.dumps([rows.fingerprints(), margins]).encode()).hexdigest()[:16]


def _longer(row: PairRow) -> int:
    """Ids of the longer side."""
    return max(len(row.chosen.ids), len(row.rejected.ids))


# the end


def _closing(out: Path, fitted: Fitted, prepared: Prepared) -> Result:
    """Mean and spread into the model folders, the test pairs, the page."""
    scale = _scaled(out, prepared) if prepared.settings.normalise else (0.0, 1.0)
    test = _tested(out, prepared)
    report.write(out)
    looks = [record for record in journal.Journal(out).read() if record["kind"] == "eval" and record["step"] > 0]
    kept = {name: len(prepared.parts[name].pairs) if name in prepared.parts else 0 for name in paired.PARTS}
    return Result(
        out=out,
        template=prepared.template,
        rows=kept,
        dropped={name: size - kept[name] for name, size in prepared.sizes.items()},
        steps=fitted.steps,
        seconds=fitted.seconds,
        tokens_per_second=fitted.tokens_per_second,
        validation_loss=fitted.validation_loss,
        validation_accuracy=looks[-1].get("accuracy") if looks else None,
        test=test,
        mean=scale[0],
        spread=scale[1],
    )


def _scaled(out: Path, prepared: Prepared) -> tuple[float, float]:
    """Measure the scores of training answers, and keep mean and spread with the weights in RUN/model and RUN/best.

    Each folder is written anew in one go, so that a kill leaves a whole one; without mean and spread, if it comes
    before. They are not part of a checkpoint: a resumed run measures them again at its end.
    """
    found: dict[Any, tuple[float, float]] = {}  # by the step of the weights: best/ often has the last ones
    for place in [path for path in (out / "model", out / "best") if path.is_dir()]:
        loaded = folder.load(place, dtype=torch.float32, device=prepared.machine.device, classifier=True, merged=False)
        model, step = loaded.model, loaded.card.get("steps")
        assert isinstance(model, Classifier)
        mean, spread = found.setdefault(step, found.get(step) or _measure(model, prepared))
        model.head_config = dataclasses.replace(model.head_config, mean=mean, spread=spread)
        folder.save_model(place, model, loaded.tokenizer, card=loaded.card)
    return next(iter(found.values()))  # of RUN/model


def _measure(model: nn.Module, prepared: Prepared) -> tuple[float, float]:
    """Mean and spread of the raw scores of training answers; where all are the same it is said, and the spread is 1."""
    some = prepared.parts["train"].some(MEASURED)
    mean, spread = mean_and_spread(model, sequential(some, ROWS), machine=prepared.machine)
    if spread == 0:
        say("scores", f"all training answers have the same score, {mean:.4g}: nothing was learnt")
    return mean, spread or 1.0


def _tested(out: Path, prepared: Prepared) -> dict[str, Any] | None:
    """What the test pairs say of RUN/model; from test.json where that is there. None without test pairs."""
    path, part = out / TEST, prepared.parts.get("test")
    if path.is_file():
        return atomic.read_json(path)
    if part is None:
        return None
    loaded = folder.load(out, dtype=torch.float32, device=prepared.machine.device, classifier=True)
    sides = [*pair_scores(loaded.model, sequential(part.source(), ROWS), machine=prepared.machine)]
    chosen, rejected, margin = (torch.cat(values) for values in zip(*sides, strict=True))
    found = marks(chosen, rejected, margin, longer_baseline=prepared.rule.accuracy(part.pairs))
    kept = {"model": "model", "step": loaded.card.get("steps"), "length_rule": prepared.rule.prefers}
    kept |= {**vars(found), "bins": [vars(one) for one in found.bins]}
    kept |= {"worst": worst(part.pairs, (chosen - rejected).tolist(), most=WORST)}
    atomic.write_text(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


def show(result: Result | Preflight) -> None:
    """Print the marks, what length alone would get, and what to do next."""
    if isinstance(result, Preflight):
        print(launch.describe(result))
        return
    if result.validation_loss is not None and result.validation_accuracy is not None:
        right, loss = 100 * result.validation_accuracy, result.validation_loss
        print(f"{'validation':<12}accuracy {right:6.2f} %   loss {loss:.4f}")
    if result.test:
        print("\n".join(told(result.test, step=result.steps)))
    if any(result.dropped.values()):
        named = ", ".join(f"{count:,} of {name}" for name, count in result.dropped.items() if count)
        print(f"{'left out':<12}{named}")
    if (result.mean, result.spread) != (0.0, 1.0):
        print(f"{'scores':<12}mean {result.mean:.4g}, spread {result.spread:.4g} in training: kept with the model")
    print(f"{result.steps:,} steps in {journal.clock(result.seconds)} ({result.tokens_per_second:,.0f} tokens/s); "
          f"calibration: {result.out / 'report.html'}")  # fmt: skip
    print(f'next: groundup score {shlex.quote(str(result.out))} --prompt "..." --response "..."')
