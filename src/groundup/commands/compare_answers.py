"""What the models of a comparison answered: each asked in its turn, every answer kept at once, none written twice.

In: `settings.Compare`. Out: `Asked`, the prompts; `Contender`s, looked at but not loaded; `Written` answers, kept in
OUT/answers-N.jsonl, which `groundup judge` and `groundup score` read as well. One model is in memory at a time.
OUT/comparison.json says what all of it depends on: a folder of another comparison is refused.
"""

import hashlib
import json
import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from groundup.checkpoint import atomic, identity, opening
from groundup.checkpoint.folder import Loaded
from groundup.checkpoint.source import Source
from groundup.commands.chat import opened
from groundup.errors import CheckpointError, DataError, SettingsError, TokenizerError
from groundup.evaluate.answers import Question, asked, entry
from groundup.evaluate.compare import Divergence
from groundup.evaluate.judge.scores import ANSWER
from groundup.generate import Sampler
from groundup.generate.chat import ending
from groundup.generate.decode import Step, generate
from groundup.generate.stream import rows_at_once
from groundup.journal import Progress
from groundup.lock import LOCK
from groundup.report.page import labels
from groundup.rollouts.answers import spoken
from groundup.settings import Compare, Respond
from groundup.text import conversations, styles
from groundup.text.conversations import Conversation, told
from groundup.text.template import ChatTemplate
from groundup.tokens.rows import prompt_ids
from groundup.tokens.turns import lead

ABOUT = "comparison.json"
FIELDS: dict[str, type] = {"number": int, ANSWER: str, "asked": list, "ids": list, "ended": bool}  # of a kept line


@dataclass(frozen=True)
class Asked:
    """The prompts, each once; `repeated`: those that were left out, as they ask what an earlier one does."""

    rows: list[Conversation]
    questions: list[Question]
    repeated: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Contender:
    """One of the models, not loaded. `weights`: a hash of them; `words`: one of its tokenizer and template.

    `stored`: the number format of its weights.
    """

    name: str
    spec: str
    weights: str
    words: str
    vocabulary: int
    context: int
    stored: torch.dtype = torch.float32


@dataclass(frozen=True)
class Written:
    """An answer: its text, its ids with the one that ends it, and those of what was asked; `ended`: it was not cut."""

    text: str
    ids: list[int]
    asked: list[int]
    ended: bool

    def outgrew(self, context: int) -> bool:
        """Whether the beginning of the prompt was out of sight when the last id was chosen."""
        return len(self.asked) + len(self.ids) - 1 > context


@dataclass(frozen=True)
class Board:
    """All that is compared: of every model the answer to every prompt, and how far it is from the first.

    `kl`: by the number of the model, counted from 0; it lacks the first, and those that cannot be set against it.
    """

    asked: Asked
    contenders: list[Contender]
    answers: list[list[Written]]
    out: Path
    kl: dict[int, Divergence | None] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What a person calls the models."""
        return [one.name for one in self.contenders]


def answers_file(out: Path, place: int) -> Path:
    """Where the answers of a model are kept, counted from 0."""
    return out / f"answers-{place + 1}.jsonl"


# before anything is answered


def prompts(settings: Compare) -> Asked:
    """Read what is to be answered; raises SettingsError where nothing is named, DataError as `conversations.read`."""
    if not settings.data:
        raise SettingsError("no prompts were given", "add --data FILE, as for groundup instruct")
    rows = [row for name in settings.data for row in conversations.read(name, answered=False)]
    first = dict[str, Conversation]()
    for row in rows:
        first.setdefault(json.dumps(told(asked(row).messages)), row)
    kept = list(first.values())[: settings.limit]
    return Asked(kept, [asked(row) for row in kept], len(rows) - len(first))


def check_count(settings: Compare) -> None:
    """Raise SettingsError for fewer than two models; folders behind --reward or --data were perhaps meant as such."""
    if len(settings.models) >= 2:
        return
    given = f"only {settings.models[0]} was given" if settings.models else "none was given"
    advice = "name them: groundup compare runs/before runs/after --data FILE"
    for flag, words, what in (("--reward", settings.reward, "rewards"), ("--data", settings.data, "prompts")):
        if taken := [word for word in words if Path(word).is_dir()]:
            given += f": {', '.join(taken)} stood behind {flag} and were taken as {what}"
            advice = f"models come first: groundup compare runs/before runs/after {flag} ..."
    raise SettingsError(f"a comparison takes two models or more, and {given}", advice)


def look(settings: Compare) -> list[Contender]:
    """The models in the order given; the same one may stand there twice.

    Raises SettingsError for one that was not taught to answer, CheckpointError for what is no model that writes,
    DataError for a template that is none.
    """
    names = labels([Path(spec) for spec in settings.models])
    return [_look(spec, name, settings.template) for spec, name in zip(settings.models, names, strict=True)]


def _look(spec: str, name: str, template: str) -> Contender:
    source = opening.open_any(spec)
    if source.head is not None:
        raise CheckpointError(f"{spec} judges texts and writes none", "name models that were taught to answer")
    known = source.tokenizer.chat_template
    if known is None and template == "auto":
        raise SettingsError(
            f"{spec} is a base model: it continues text and was not taught to answer",
            f"teach it: groundup instruct --model {spec} --data FILE --out runs/NAME; or say how a conversation with "
            "it is written: --template alpaca",
        )
    words = _hash([source.tokenizer.fingerprint, styles.resolve(template, known).template])
    weights = identity.weights_hash(source.path)
    return Contender(name, spec, weights, words, source.config.vocabulary, source.config.context, _stored(source))


def _stored(source: Source) -> torch.dtype:
    """The number format of a model's weights, seen in its smallest matrix."""
    sizes = {name: math.prod(shape) for name, shape in source.weights.shapes().items() if len(shape) > 1}
    return source.weights.read(min(sizes, key=sizes.__getitem__)).dtype if sizes else torch.float32


def about(settings: Compare, asked: Asked, contenders: Sequence[Contender]) -> dict[str, Any]:
    """What every answer depends on, under the words that a person is told where it differs."""
    questions = [[told(question.messages), question.expected] for question in asked.questions]
    chosen = ("max_tokens", "temperature", "top_p", "seed", "dtype")
    return {
        "models": [[one.weights, one.words] for one in contenders],
        "prompts": _hash(questions),
        **{name: getattr(settings, name) for name in chosen},
    }


def claim(out: Path, content: dict[str, Any]) -> None:
    """Make a folder that of this comparison; raises SettingsError where it holds another one, or something else."""
    head, again = out / ABOUT, "give --out with another folder"
    left = set(out.glob(".*.writing"))  # what a kill cut short; it is written over
    others = sorted(path.name for path in out.iterdir() if path.name not in (LOCK, ABOUT) and path not in left)
    if not others or not head.exists():
        if others:
            raise SettingsError(f"{out} is no comparison: it holds {others[0]}", again)
        atomic.write_text(head, json.dumps(content, indent=1) + "\n")
        return
    found = atomic.read_json(head)
    if other := [name for name in content if found.get(name) != content[name]]:
        what = f"{out} holds another comparison, which differs in: {', '.join(other)}"
        raise SettingsError(what, f"{again}, or remove it: rm -r {shlex.quote(str(out))}")


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode("ascii")).hexdigest()[:32]


# answers


def written(
    settings: Compare, asked: Asked, one: Contender, files: Mapping[Path, Sampler]
) -> dict[Path, list[Written]]:
    """A model's answers in every file, in the order of the prompts; those that a file lacks are written now.

    The model is loaded only where one is missing, and is gone afterwards. Raises what `commands.chat.opened` does, and
    DataError for a file that is damaged.
    """
    kept = {path: _read(path, len(asked)) for path in files}
    if any(len(found) < len(asked) for found in kept.values()):
        pen = _pen(settings, asked, one)
        for path, sampler in files.items():
            _complete(path, kept[path], asked, pen, sampler)
    for path, found in kept.items():
        if list(found) != sorted(found):  # they became whole in another order than that of the prompts
            atomic.write_text(path, "".join(_line(asked, number, found[number]) for number in sorted(found)))
    return {path: [found[number] for number in sorted(found)] for path, found in kept.items()}


@dataclass(frozen=True)
class _Pen:
    """A loaded model that writes; `prompts`: the ids of each."""

    name: str
    loaded: Loaded
    template: ChatTemplate
    prompts: list[list[int]]
    most: int
    batch: int

    def write(self, numbers: Iterable[int], sampler: Sampler) -> Iterator[tuple[int, Written]]:
        """Number and answer of these prompts, as they become whole: those of like length side by side.

        The same texts as `groundup respond` writes with this sampler; here their ids are kept too.
        """
        model, tokenizer = self.loaded.model, ending(self.loaded.tokenizer, self.template)
        before, ends = lead(tokenizer, self.template).strip(), set(tokenizer.ends)
        order = sorted(numbers, key=lambda number: (len(self.prompts[number]), number))
        rows = min(self.batch, rows_at_once(model, max(map(len, self.prompts)) + self.most))
        for start in range(0, len(order), rows):
            group = order[start : start + rows]
            ids = [self.prompts[number] for number in group]
            steps = generate(model, ids, max_tokens=self.most, sampler=sampler, end=ends)
            for place, new in _whole(steps, len(group), ends, self.most):
                text = spoken(tokenizer, ids[place], new, before)
                yield group[place], Written(text, new, ids[place], new[-1] in ends)


def _pen(settings: Compare, asked: Asked, one: Contender) -> _Pen:
    """Load a model, and encode every prompt before the first is answered."""
    shared = {name: getattr(settings, name) for name in ("template", "device", "dtype", "threads")}
    loaded, template = opened(Respond(model=one.spec, **shared), rows=min(settings.batch, len(asked)))
    ids = []
    for row, question in zip(asked.rows, asked.questions, strict=True):
        try:
            ids.append(prompt_ids(loaded.tokenizer, template, question.messages))
        except (DataError, TokenizerError) as error:
            raise type(error)(f"{row.where}: {error.what}", error.fix) from None
    return _Pen(one.name, loaded, template, ids, settings.max_tokens, settings.batch)


def _complete(path: Path, kept: dict[int, Written], asked: Asked, pen: _Pen, sampler: Sampler) -> None:
    """Write the answers that are missing into `kept`, and each at once behind those of the file."""
    todo = [number for number in range(len(asked)) if number not in kept]
    with (
        path.open("a", encoding="utf-8", newline="\n") as file,
        Progress(f"{path.stem}: {pen.name}", total=len(asked), start=len(kept), unit="answer") as line,
    ):
        for number, answer in pen.write(todo, sampler):
            kept[number] = answer
            file.write(_line(asked, number, answer))
            file.flush()  # a killed process leaves it with the system, which writes it
            line.update(len(kept))


def _whole(steps: Iterable[Step], rows: int, ends: Collection[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Row and ids of each answer in the step in which it becomes whole."""
    grown: list[list[int]] = [[] for _ in range(rows)]
    for count, step in enumerate(steps, 1):
        for row, new in enumerate(step.ids):
            if new is None:
                continue
            grown[row].append(new)
            if new in ends or count == most:
                yield row, grown[row]


# files


def _line(asked: Asked, number: int, answer: Written) -> str:
    """A line of answers-N.jsonl: messages with "model_response" as `groundup respond` writes them, and the ids."""
    told_of = {"number": number, "ended": answer.ended, "asked": answer.asked, "ids": answer.ids}
    return json.dumps(entry(asked.rows[number], answer.text, alpaca=False) | told_of) + "\n"


def _read(path: Path, count: int) -> dict[int, Written]:
    """The answers kept in a file, by the number of their prompt; a line that a kill cut short is cut off.

    Raises DataError where another line is none that was written there.
    """
    content = path.read_bytes() if path.exists() else b""
    found: dict[int, Written] = {}
    for place, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            number, answer = _entry(json.loads(line), count)
        except (ValueError, RecursionError):
            advice = f"remove it, and the answers are written anew: rm {shlex.quote(str(path))}"
            raise DataError(f"{path} is damaged: line {place} is none that was written there", advice) from None
        found[number] = answer
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
    return found


def _entry(line: Any, count: int) -> tuple[int, Written]:
    """One kept answer; raises ValueError for what `_line` would not have written."""
    if not isinstance(line, dict) or any(type(line.get(name)) is not kind for name, kind in FIELDS.items()):
        raise ValueError("other fields")
    ids, prompt, number = line["ids"], line["asked"], line["number"]
    if not 0 <= number < count or not ids or not prompt or any(type(id) is not int for id in [*ids, *prompt]):
        raise ValueError("no answer")
    return number, Written(line[ANSWER], ids, prompt, line["ended"])


def fingerprint(answers: Sequence[Sequence[Written]]) -> str:
    """A hash of the ids that were asked and answered: marks of other answers are no marks of these."""
    return _hash([[[one.asked, one.ids] for one in written] for written in answers])
