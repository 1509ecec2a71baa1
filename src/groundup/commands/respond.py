"""`groundup respond`: a model's answers to a file of questions, in a file of the same form.

In: `settings.Respond`. Out: the file, where `model_response` stands beside each question, and `Result`: a JSON list, in
Alpaca's form where there is one question each, or messages for a name that ends in .jsonl. Answers are kept one by one
in a file aside, so that a run which is killed goes on where it was; the file itself appears when it is whole.
"""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from groundup.checkpoint import atomic
from groundup.checkpoint.folder import Loaded
from groundup.commands.chat import opened, sampler
from groundup.errors import DataError, SettingsError, TokenizerError
from groundup.evaluate.answers import Matches, Question, asked, entry, exact
from groundup.generate import chat as chats
from groundup.generate.chat import Answer
from groundup.journal import Progress
from groundup.settings import Respond
from groundup.text import conversations, packed
from groundup.text.conversations import Conversation
from groundup.text.template import ChatTemplate
from groundup.tokens.rows import prompt_ids

Kept = dict[str, dict[str, Any]]  # answers so far, by the fingerprint of what was asked
FIELDS = {"key": str, "answer": str, "tokens": int, "finish": str, "past_context": bool}  # of a line kept aside


@dataclass(frozen=True)
class Result:
    """What was written. `answered`: questions of this run; the others were answered before it, or are asked twice.

    `cut`: answers that did not end by themselves; `past_context`: those during which the question's beginning slid out
    of sight, or was from the first, as both together outgrew the context. `exact`: share of the answers that are as
    expected to the word, of those where the data says what is expected; `tasks`: the same counts, (rows, right), for
    each kind of question.
    """

    model: Path
    out: Path
    rows: int
    answered: int
    cut: int
    past_context: int
    exact: float | None
    tasks: dict[str, tuple[int, int]]
    tokens: int
    seconds: float
    tokens_per_second: float


def run(settings: Respond) -> Result:
    """Answer what each conversation's user says last, and write the answers; greedy unless --temperature is given.

    Raises SettingsError where --out is there already, or was begun with another model or other settings; DataError as
    `conversations.read`. No answer that was made is lost by that.

    >>> run(Respond(model="runs/a", data="runs/a/data/test.json", out="answers.json")).exact  # doctest: +SKIP
    0.93
    """
    out = _target(settings)
    rows = conversations.read(settings.data, answered=False)[: settings.limit]
    questions = [asked(row) for row in rows]
    loaded, template = opened(settings, rows=min(settings.batch, len(rows)))
    prompts = [_prompt(loaded, template, row, question) for row, question in zip(rows, questions, strict=True)]
    keys = [_key(ids) for ids in prompts]
    began = time.perf_counter()
    with _kept(out, _about(settings, loaded, template)) as (kept, keep):
        todo = _todo(keys, prompts, kept)
        for place, answer in _answers(settings, loaded, template, [questions[place] for place in todo]):
            keep(keys[todo[place]], answer)
        found = [kept[key] for key in keys]
    seconds = time.perf_counter() - began
    lined = packed.kind(out) == ".jsonl"
    _write(out, [entry(row, one["answer"], alpaca=not lined) for row, one in zip(rows, found, strict=True)])
    _aside(out).unlink()
    marks = exact([one["answer"] for one in found], rows)
    tokens = sum(kept[keys[place]]["tokens"] for place in todo)
    return Result(
        model=loaded.folder,
        out=out,
        rows=len(rows),
        answered=len(todo),
        cut=sum(one["finish"] != "end" for one in found),
        past_context=sum(one["past_context"] for one in found),
        exact=marks.share if marks else None,
        tasks=marks.tasks if marks else {},
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
    )


def _target(settings: Respond) -> Path:
    """The file to write; raises SettingsError where there is none, or something there."""
    if not settings.data:
        raise SettingsError("no questions were given", "add --data FILE, for instance RUN/data/test.json")
    if settings.out is None:
        raise SettingsError("no file for the answers was given", "add --out answers.json")
    if packed.is_packed(settings.out):
        plain = settings.out.with_suffix("")
        raise SettingsError(f"--out {settings.out}: answers are not written packed", f"give a plain name: {plain}")
    if settings.out.exists():
        raise SettingsError(f"{settings.out} exists already", "choose another --out, or remove it yourself")
    return settings.out


def _prompt(loaded: Loaded, template: ChatTemplate, row: Conversation, question: Question) -> list[int]:
    """The ids of a question; what is wrong with it is told with its place."""
    try:
        return prompt_ids(loaded.tokenizer, template, question.messages)
    except (DataError, TokenizerError) as error:
        raise type(error)(f"{row.where}: {error.what}", error.fix) from None


def _todo(keys: Sequence[str], prompts: Sequence[Sequence[int]], kept: Kept) -> list[int]:
    """Places of the questions that are still open, each once and short ones first: like lengths are read together."""
    first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in kept}
    return sorted(first.values(), key=lambda place: (len(prompts[place]), place))


def _answers(
    settings: Respond, loaded: Loaded, template: ChatTemplate, questions: Sequence[Question]
) -> Iterator[tuple[int, Answer]]:
    """Number and answer of each question, as they become whole, `batch` of them side by side."""
    with Progress("respond", total=len(questions), unit="answer") as line:
        done = 0
        for start in range(0, len(questions), settings.batch):
            group = [question.messages for question in questions[start : start + settings.batch]]
            for answer in chats.answered(
                loaded.model,
                loaded.tokenizer,
                template,
                group,
                max_tokens=settings.max_tokens,
                sampler=sampler(settings, settings.seed or 0),
            ):
                yield start + answer.row, answer
                done += 1
                line.update(done)


# what is kept aside


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.answers")


def _key(ids: Sequence[int]) -> str:
    """By what an answer is found again: the ids that the model was asked."""
    return hashlib.sha256(" ".join(map(str, ids)).encode("ascii")).hexdigest()[:32]


def _about(settings: Respond, loaded: Loaded, template: ChatTemplate) -> dict[str, Any]:
    """What answers depend on besides the question: those of another model or other settings are not mixed with them.

    Weights are known by size and time of their files, which costs nothing; the numbers themselves are not read again.
    """
    place = loaded.folder
    files = sorted(path for path in ([place] if place.is_file() else place.iterdir()) if path.is_file())
    prints = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    weights = hashlib.sha256(json.dumps([str(place.resolve()), prints]).encode()).hexdigest()[:32]
    names = ("max_tokens", "temperature", "top_k", "top_p", "dtype")
    chosen = {name: getattr(settings, name) for name in names} | {"seed": settings.seed or 0}
    return {"weights": weights, "template": hashlib.sha256(template.source.encode()).hexdigest()[:32]} | chosen


@contextmanager
def _kept(out: Path, about: dict[str, Any]) -> Iterator[tuple[Kept, Callable[[str, Answer], None]]]:
    """The answers that an earlier run left, and how to keep another; a line cut short by a kill is asked again."""
    aside = _aside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        kept = _read(aside, about) if aside.exists() else None
        file = aside.open("a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise SettingsError(f"cannot write {aside}: {error.strerror}", "choose another --out") from None
    with file:
        if kept is None:
            kept = {}
            _line(file, about)
        found = kept

        def keep(key: str, answer: Answer) -> None:
            found[key] = {
                "answer": answer.text,
                "tokens": answer.tokens,
                "finish": answer.finish,
                "past_context": answer.past_context,
            }
            _line(file, {"key": key} | found[key])

        yield found, keep


def _read(aside: Path, about: dict[str, Any]) -> Kept | None:
    """Answers kept before, under a head that says what they depend on; None where not even the head is whole."""
    whole: list[dict[str, Any]] = []
    content = aside.read_bytes()
    for line in content.split(b"\n")[:-1]:  # behind the last line end there is nothing, or half a line
        try:
            whole.append(_entry(line, head=not whole))
        except (ValueError, RecursionError):
            number = len(whole) + 1
            advice = f"remove it: all questions are then asked anew: rm {shlex.quote(str(aside))}"
            raise DataError(f"{aside} is damaged: line {number} is none that was written there", advice) from None
    if not whole:
        aside.unlink()
        return None
    if whole[0] != about:
        changed = [name for name in about if whole[0].get(name) != about[name]]
        raise SettingsError(
            f"{aside} holds answers that were made with another {', '.join(changed)}",
            f"give the same again, choose another --out, or remove it: rm {shlex.quote(str(aside))}",
        )
    if not content.endswith(b"\n"):
        with aside.open("r+b") as file:
            file.truncate(content.rindex(b"\n") + 1)
    return {line.pop("key"): line for line in whole[1:]}


def _entry(line: bytes, *, head: bool) -> dict[str, Any]:
    """A line kept aside; raises ValueError for what `keep` would not have written."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no object")
    if not head and {name: type(value) for name, value in found.items()} != FIELDS:
        raise ValueError("other fields")
    return found


def _line(file: TextIO, content: dict[str, Any]) -> None:
    """Append one line; a killed process leaves it with the system, which writes it."""
    file.write(json.dumps(content) + "\n")
    file.flush()


# the end


def _write(out: Path, entries: list[dict[str, Any]]) -> None:
    """A JSON list; one object a line for a name that ends in .jsonl."""
    if packed.kind(out) == ".jsonl":
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries)
    else:
        text = json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
    atomic.write_text(out, text)


def show(result: Result) -> None:
    """Print where the answers are and how they compare with what was expected."""
    print(f"{result.rows:,} answers in {result.out}"
          + (f" ({result.rows - result.answered:,} of them made before, or asked twice)"
             if result.answered < result.rows else ""))  # fmt: skip
    if result.cut:
        print(f"{result.cut:,} answers were cut off: --max-tokens")
    if result.past_context:
        print(
            f"{result.past_context:,} questions with their answers outgrew the context: the beginning went out of sight"
        )
    if result.exact is not None:
        print(f"exactly as expected: {100 * result.exact:.1f} %")
        rows = sum(count for count, _ in result.tasks.values())
        print("\n".join(f"  {line}" for line in Matches(rows, 0, result.tasks).table()), end="\n" if rows else "")
    print(f"{result.tokens:,} tokens in {result.seconds:.1f} s, {result.tokens_per_second:,.0f} tokens/s")
    print(f"next: groundup judge {shlex.quote(str(result.out))}")
