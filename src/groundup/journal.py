"""What a run leaves to read: numbers by step, samples by step, and the line on the screen while it works.

In: records, samples, progress. Out: `metrics.jsonl` (one JSON object a line) and `samples.md` in the run folder, and
one line on stderr. Whatever a person reads goes to stderr; stdout is for results.
"""

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

# one whole sample; each block ends at the first line that is its fence, and no line inside can be that
SAMPLE = re.compile(
    rb"## Step (?P<step>\d+)\n\n"
    rb"Prompt:\n\n(?P<prompt>`{3,})text\n.*?\n(?P=prompt)\n\n"
    rb"Sample:\n\n(?P<sample>`{3,})text\n.*?\n(?P=sample)\n\n",
    re.DOTALL,
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline: a terminal would obey them


class Journal:
    """The records of one run folder: written line by line, read back, and cut when a run is resumed.

    A line that a crash cut short is left out when reading, dropped by `rewind`, and never runs into the next one.

    >>> import tempfile
    >>> journal = Journal(Path(tempfile.mkdtemp()))
    >>> journal.write(1, loss=3.5)
    >>> journal.write(2, loss=math.nan)
    >>> journal.read()
    [{'step': 1, 'loss': 3.5}, {'step': 2, 'loss': None}]
    >>> journal.rewind(1)
    >>> journal.read()
    [{'step': 1, 'loss': 3.5}]
    """

    def __init__(self, folder: Path) -> None:
        self.metrics, self.samples = Path(folder) / "metrics.jsonl", Path(folder) / "samples.md"

    def write(self, step: int, **values: Any) -> None:
        """Append one record; NaN and infinity become null, scalars of numpy and torch plain numbers."""
        record = _plain({"step": step, **values})
        _append(self.metrics, json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Append one sample to samples.md: a heading, the prompt, the text that the model wrote."""
        blocks = [f"## Step {step}\n"]
        for title, content in (("Prompt", prompt), ("Sample", text)):
            fence = _fence(content)
            blocks.append(f"{title}:\n\n{fence}text\n{content}\n{fence}\n")
        _append(self.samples, "\n".join(blocks) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All records in the order they were written; none where there is no journal yet."""
        return [record for _, record in _records(self.metrics)]

    def rewind(self, step: int, *, redo: str = "") -> None:
        """Drop every record and sample of a later step, so that a run resumed after `step` leaves no gap or repeat.

        `redo` names the kind of record that is to be made again for `step` itself: those and its samples go, too.
        """
        kept = [line for line, record in _records(self.metrics) if _before(record, step, redo)]
        _replace(self.metrics, kept)
        last = step - 1 if redo else step
        found = SAMPLE.finditer(_content(self.samples))
        _replace(self.samples, [sample[0] for sample in found if int(sample["step"]) <= last])


def _before(record: dict[str, Any], step: int, redo: str) -> bool:
    again = bool(redo) and record.get("kind") == redo
    return record["step"] < step or (record["step"] == step and not again)


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # scalars and arrays of numpy and torch, without importing either
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:  # "a": writes go to the end, wherever the reading below has been
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")  # the line before was cut short: it must not swallow this one
        # a lone surrogate has no UTF-8; its backslash form is valid inside a JSON string
        file.write(text.encode("utf-8", errors="backslashreplace"))


def _records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Whole lines with what they say."""
    for line in _content(path).split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:  # not whole; covers broken UTF-8 too
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield line + b"\n", record


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _fence(text: str) -> str:
    """More backticks than stand together anywhere in the text, so that nothing in it ends the block."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _replace(path: Path, parts: list[bytes]) -> None:
    """Write the parts as the whole file, aside first; a file that is so already is left alone."""
    content = b"".join(parts)
    if content == _content(path):
        return
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


class Progress:
    """The line on the screen: one live line on a terminal, a plain line every 10 seconds elsewhere, nothing if quiet.

    `done` and `total` are counted in `unit`; a resumed run gives its `start`, so that the rate is that of this process.
    A console that cannot be written to (a closed pipe, no stderr at all) never stops the work.

    >>> with Progress("prepare", total=4, unit="MB", stream=sys.stdout) as progress:
    ...     progress.say("reading a.txt")
    ...     progress.update(4, documents=1200)
    reading a.txt
    prepare  4/4 MB  100%  ... MB/s  in 0:00  documents 1,200
    """

    plain_every, live_every = 10.0, 0.1  # seconds between two looks

    def __init__(
        self,
        title: str,
        *,
        total: float | None = None,
        unit: str = "",
        start: float = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.title, self.total, self.unit, self.start = title, total, unit, start
        self.stream = stream or sys.stderr  # None where a program has no console
        self.quiet = quiet or self.stream is None
        self.done, self.shown = start, dict[str, Any]()
        self._live: Live | None = None
        self._began = self._looked = time.monotonic()

    def __enter__(self) -> Self:
        self._began = self._looked = time.monotonic()
        if not self.quiet and self.stream.isatty():
            console = Console(file=self.stream)
            if console.is_terminal and not console.is_dumb_terminal:
                # stdout is left alone: rich would send what goes there to this console
                self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)
                with self._forgiven():
                    self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.done != self.start or self.shown:
            self._show(self._line(f"in {clock(time.monotonic() - self._began)}"))
        if self._live:
            with self._forgiven():
                self._live.stop()
            self._live = None

    def update(self, done: float, **shown: Any) -> None:
        """How much is done by now, and numbers to show beside it: `progress.update(step, loss=3.21)`."""
        self.done, self.shown = done, shown
        now = time.monotonic()
        if now - self._looked >= (self.live_every if self._live else self.plain_every):
            self._looked = now
            self._show(self._line())

    def say(self, text: str) -> None:
        """Print a line of text above the progress line."""
        self._print(text)

    def _line(self, ending: str | None = None) -> str:
        """Title, how much of how much, rate, time left (or `ending`), and the numbers beside."""
        unit = f" {self.unit}" if self.unit else ""
        of = f"/{_number(self.total)}" if self.total else ""
        parts = [self.title, f"{_number(self.done)}{of}{unit}"]
        if self.total:
            parts.append(f"{math.floor(100 * self.done / self.total)}%")
        rate = (self.done - self.start) / max(time.monotonic() - self._began, 1e-9)
        if rate > 0:
            parts.append(f"{_number(rate)}{unit}/s")
        if rate > 0 and self.total and not ending:
            parts.append(f"{clock(max(0, self.total - self.done) / rate)} left")
        parts += [ending] if ending else []
        return "  ".join(parts + [f"{name} {_number(value)}" for name, value in self.shown.items()])

    def _show(self, line: str) -> None:
        """Put the progress line on the screen: over the one before where the terminal can, else below it."""
        if not self._live:
            self._print(line)
        elif not self.quiet:
            with self._forgiven():
                text = Text(_printable(line, self.stream), no_wrap=True, overflow="crop")
                self._live.update(text, refresh=True)

    def _print(self, text: str) -> None:
        if self.quiet:
            return
        with self._forgiven():
            text = _printable(text, self.stream)
            if self._live:
                self._live.console.print(Text(text), soft_wrap=True)
            else:
                print(text, file=self.stream, flush=True)

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        """Fall silent when the console is gone: hours of training must not end because a window was closed."""
        try:
            yield
        except (OSError, ValueError):  # a broken pipe; a closed file
            self.quiet = True


def _number(value: Any) -> str:
    """A value for the eye: 12,345 and 3.142; text as it is."""
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> clock(7), clock(727), clock(3727)
    ('0:07', '12:07', '1:02:07')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _printable(text: str, stream: TextIO) -> str:
    """The text without control characters, and without what the console's encoding lacks."""
    encoding = stream.encoding or "utf-8"
    return CONTROL.sub("\ufffd", text).encode(encoding, errors="replace").decode(encoding)
