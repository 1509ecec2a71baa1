"""Many questions to one judge: those it has answered before are not asked again, some are asked side by side.

In: a judge, `Request`s. Out: a `Verdict` for each, and what it cost. Every verdict goes at once into a file, so that a
judging that was cut off goes on where it was. A reply that cannot be read is asked for once more, more strictly, and
then counts as unusable: it is never a score.
"""

import hashlib
import json
import math
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from groundup.errors import UserError
from groundup.evaluate.judge.asking import LONGEST, Answered, Scale, prompt, worth
from groundup.evaluate.judge.places import Judge
from groundup.evaluate.judge.server import Failed, Reply, TooLong, short
from groundup.journal import Progress

Job = TypeVar("Job")
Done = TypeVar("Done")

IN_A_ROW = 3  # failures one after the other that end a judging: it is not the questions then


@dataclass(frozen=True)
class Request:
    """One thing to ask: an answer on a scale, or beside another (`against`)."""

    row: Answered
    scale: Scale
    seed: int
    against: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a reply was worth, or None and the reason why there is nothing; tokens where they are known.

    `left_out`: what the judge let us not ask for (`Judge.left_out`). `failed`: it did not reply at all.
    """

    value: float | None
    reason: str = ""
    read: int | None = None
    written: int | None = None
    left_out: frozenset[str] = frozenset()
    failed: bool = False


@dataclass
class Cost:
    """What the asking came to: questions asked, their tokens, replies without a count; and what was known already, with
    the tokens that it had cost.
    """

    asked: int = 0
    known: int = 0
    read: int = 0
    written: int = 0
    uncounted: int = 0
    known_read: int = 0
    known_written: int = 0


class Verdicts:
    """A file of what came of each question, by key, one JSON object a line. No path: in memory alone.

    Only usable verdicts are `get`ed back. Of failures it is known that they were, so that they are asked again without
    being taken for a judge that has died.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._found, self._failed = path, dict[str, Verdict](), set[str]()
        if path is not None and path.exists():
            for line in path.read_bytes().split(b"\n"):
                self._take(line)

    def _take(self, line: bytes) -> None:
        """A line as it was written; one that was cut short, or holds something else, is as if it were not there."""
        try:
            record = json.loads(line)
            key, value = record["key"], record["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if not isinstance(key, str):
            return
        if value is None:
            self._failed.add(key)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            left_out = record.get("left_out")
            names = frozenset(map(str, left_out)) if isinstance(left_out, list) else frozenset[str]()
            read, written = _count(record.get("read")), _count(record.get("written"))
            self._found[key] = Verdict(float(value), "", read, written, names)

    def get(self, key: str) -> Verdict | None:
        """The verdict kept under a key."""
        return self._found.get(key)

    def failed(self, key: str) -> bool:
        """Whether the judge failed at this question in an earlier judging, or in this one."""
        return key in self._failed

    def put(self, key: str, got: Verdict, **facts: Any) -> None:
        """Keep a verdict, one without a value as a failure, on disk before the next question is asked."""
        if got.value is None:
            self._failed.add(key)
        else:
            self._found[key] = got
        facts |= {"read": got.read, "written": got.written, "left_out": sorted(got.left_out)}
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # the line before was cut short
            file.write(json.dumps({"key": key, "value": got.value, **facts}).encode() + b"\n")


@dataclass
class Bench:
    """A judge and all that is asked of it: known verdicts are not asked again, `at_once` requests run side by side.

    `left_out`: what any of the verdicts, known ones included, had to do without.
    """

    judge: Judge
    verdicts: Verdicts
    at_once: int = 1
    quiet: bool = False
    cost: Cost = field(default_factory=Cost)
    left_out: set[str] = field(default_factory=set)

    def ask(self, requests: Sequence[Request], *, title: str) -> list[Verdict]:
        """A verdict for each request; equal ones are asked once.

        Raises UserError where the judge fails three times in a row; what it said before is kept. A question that is too
        long for it is unusable, and no failure.
        """
        keys = [self._key(request) for request in requests]
        asked = dict(zip(keys, requests, strict=True))
        found = {key: known for key, request in asked.items() if (known := self._known(key, request))}
        for known in found.values():
            self._remember(known)
        todo = {key: request for key, request in asked.items() if key not in found}
        workers = 1 if self.judge.ours else self.at_once
        failures = 0
        with ExitStack() as stack:
            line = stack.enter_context(Progress(title, total=len(todo), unit="question", quiet=self.quiet or not todo))
            answers = stack.enter_context(closing(_side_by_side(list(todo.items()), self._verdict, workers)))
            for number, (key, got) in enumerate(answers, 1):
                found[key] = got
                failures = 0 if not got.failed else failures + (not self.verdicts.failed(key))
                self._book(key, got, todo[key].scale)
                if failures == min(IN_A_ROW, len(asked)):
                    self._stop(got, failures)
                line.update(number)
        return [found[key] for key in keys]

    def _known(self, key: str, request: Request) -> Verdict | None:
        """What the file of verdicts holds, if it is on the scale."""
        known, worths = self.verdicts.get(key), request.scale.values
        off = known is None or known.value is None or not min(worths) <= known.value <= max(worths)
        return None if off else known

    def _key(self, request: Request) -> str:
        """sha256 over the judge, what it is asked, and how."""
        seed = 0 if self.judge.ours else request.seed
        text = prompt(request.row, request.scale, against=request.against)
        facts = [self.judge.identity, text, request.scale.choices, request.scale.values, seed]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _verdict(self, item: tuple[str, Request]) -> tuple[str, Verdict]:
        """Ask once, and once more if the reply cannot be read."""
        key, request = item
        replies: list[Reply] = []
        try:
            for strict in (False, True):
                text = prompt(request.row, request.scale, against=request.against, strict=strict)
                if len(text) > LONGEST:
                    return key, Verdict(None, f"the question has {len(text):,} characters, more than {LONGEST:,}")
                reply = self.judge.ask(text, request.scale, request.seed)
                replies.append(reply)
                value = worth(reply.text, request.scale) if reply.value is None else reply.value
                if value is not None:
                    return key, Verdict(value, "", *_tokens(replies), self.judge.left_out)
        except TooLong as error:
            return key, Verdict(None, str(error), *_tokens(replies))
        except Failed as error:
            return key, Verdict(None, str(error), *_tokens(replies), failed=True)
        return key, Verdict(None, f"no choice of the scale in {short(replies[-1].text)!r}", *_tokens(replies))

    def _remember(self, known: Verdict) -> None:
        self.cost.known += 1
        self.cost.known_read += known.read or 0
        self.cost.known_written += known.written or 0
        self.left_out |= known.left_out

    def _book(self, key: str, got: Verdict, scale: Scale) -> None:
        self.cost.asked += 1
        self.cost.read += got.read or 0
        self.cost.written += got.written or 0
        self.cost.uncounted += got.read is None or got.written is None
        self.left_out |= got.left_out
        if got.value is not None or got.failed:
            self.verdicts.put(key, got, scale=scale.name)

    def _stop(self, got: Verdict, failures: int) -> None:
        times = f"{failures} times in a row" if failures > 1 else "at its only question"
        raise UserError(
            f"the judge {self.judge.name} failed {times}: {got.reason}",
            f"{self.judge.advice}; what was judged before is kept, repeat the command to go on",
        )


def _tokens(replies: Sequence[Reply]) -> tuple[int | None, int | None]:
    """Tokens read and written for all replies together, None where one does not say."""
    return _total([reply.read for reply in replies]), _total([reply.written for reply in replies])


def _count(value: Any) -> int | None:
    """A number of tokens as it was written, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _side_by_side(jobs: Sequence[Job], work: Callable[[Job], Done], workers: int) -> Generator[Done]:
    """What `work` makes of each job, in the order in which they are done.

    Threads that are still at it when the caller leaves, after an error or Ctrl-C, take no further job and keep nothing
    from ending.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    todo, done, leave = queue.SimpleQueue[Job](), queue.SimpleQueue[Done | BaseException](), threading.Event()
    for job in jobs:
        todo.put(job)

    def labour() -> None:
        while not leave.is_set():
            try:
                done.put(work(todo.get_nowait()))
            except queue.Empty:
                return
            except BaseException as error:  # handed on to whoever waits
                done.put(error)

    for _ in range(min(workers, len(jobs))):
        threading.Thread(target=labour, daemon=True).start()
    try:
        for _ in jobs:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        leave.set()
