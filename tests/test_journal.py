"""The journal: every line valid JSON, torn lines survived, rewound without gap or repeat; and the progress line."""

import io
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.journal import Journal, Progress


def strict(line):
    """Parse JSON as the standard has it: no NaN, no Infinity."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_one_valid_json_object_a_line(tmp_path):
    journal = Journal(tmp_path / "new" / "run")
    journal.write(1, loss=math.nan, norm=math.inf, worst=[-math.inf, 1.5], note="Grüße\n\u2028 \ud800")
    journal.write(
        2, loss=torch.tensor(0.5), norm=np.float32("nan"), ids=np.arange(2), ok=True, best=None, at={"p": Path("a")}
    )
    lines = (tmp_path / "new" / "run" / "metrics.jsonl").read_bytes().split(b"\n")
    assert [strict(line) for line in lines[:-1]] == [
        {"step": 1, "loss": None, "norm": None, "worst": [None, 1.5], "note": "Grüße\n\u2028 \ud800"},
        {"step": 2, "loss": 0.5, "norm": None, "ids": [0, 1], "ok": True, "best": None, "at": {"p": "a"}},
    ]
    assert lines[-1] == b""
    assert journal.read() == [strict(line) for line in lines[:-1]]


def test_each_line_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.write(step)
        assert [record["step"] for record in Journal(tmp_path).read()] == list(range(1, step + 1))


def test_nothing_written_is_nothing_to_read(tmp_path):
    journal = Journal(tmp_path / "none")
    journal.rewind(3)
    assert journal.read() == []
    assert not (tmp_path / "none").exists()


@given(st.integers(0, 200))
@settings(deadline=None, max_examples=40)
def test_a_journal_cut_anywhere_is_read_continued_and_rewound(cut):
    with tempfile.TemporaryDirectory() as folder:
        journal, path = Journal(Path(folder)), Path(folder) / "metrics.jsonl"
        for step in range(6):
            journal.write(step, loss=step / 3, text="é")
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        cut = min(cut, len(whole))
        path.write_bytes(whole[:cut])
        kept = [json.loads(line) for end, line in enumerate(lines, 1) if len(b"".join(lines[:end])) - 1 <= cut]
        assert journal.read() == kept
        journal.write(99)
        assert journal.read() == [*kept, {"step": 99}]
        journal.rewind(6)
        assert path.read_bytes() == b"".join(lines[: len(kept)])


def test_rewound_and_repeated_equals_uninterrupted(tmp_path):
    def walk(journal, steps):
        for step in steps:
            journal.write(step, loss=1 / (1 + step))
            if step % 2 == 0:
                journal.write(step, valid=step)
                journal.sample(step, "Once", f"upon a step {step}")

    walk(Journal(tmp_path / "straight"), range(10))
    walk(Journal(tmp_path / "broken"), range(8))
    resumed = Journal(tmp_path / "broken")
    resumed.rewind(4)
    assert [record["step"] for record in resumed.read()] == [0, 0, 1, 2, 2, 3, 4, 4]
    walk(resumed, range(5, 10))
    for name in ("metrics.jsonl", "samples.md"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == ["metrics.jsonl", "samples.md"]


def test_rewind_drops_what_is_made_again_for_the_same_step(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.write(step, kind="step")
        journal.write(step, kind="eval")
        journal.sample(step, "", f"sample {step}")
    journal.rewind(2, redo="eval")
    left = [(record["step"], record["kind"]) for record in journal.read()]
    assert left == [(1, "step"), (1, "eval"), (2, "step")]
    assert "sample 1" in journal.samples.read_text(encoding="utf-8")
    assert "sample 2" not in journal.samples.read_text(encoding="utf-8")


def test_rewind_of_what_is_kept_does_not_touch_the_file(tmp_path):
    journal = Journal(tmp_path)
    journal.write(1)
    os.utime(tmp_path / "metrics.jsonl", (1, 1))
    journal.rewind(1)
    assert (tmp_path / "metrics.jsonl").stat().st_mtime == 1


PIECES = ["`", "~", "\n", "\r", "# ", "## Step 9", "Prompt:", "Sample:", "```text", "é", " ", "\ud800"]
TRICKY = st.lists(st.sampled_from(PIECES)).map("".join)


@given(st.lists(st.tuples(st.integers(0, 9), TRICKY, TRICKY), max_size=6), st.integers(-1, 9))
@settings(deadline=None)
def test_samples_are_cut_by_step_whatever_they_hold(samples, last):
    with tempfile.TemporaryDirectory() as folder:
        whole, expected = Journal(Path(folder) / "whole"), Journal(Path(folder) / "expected")
        for step, prompt, text in samples:
            whole.sample(step, prompt, text)
            if step <= last:
                expected.sample(step, prompt, text)
        whole.rewind(last)
        left = whole.samples.read_bytes() if whole.samples.exists() else b""
        assert left == (expected.samples.read_bytes() if expected.samples.exists() else b"")


def test_samples_read_as_markdown(tmp_path):
    """Seen by a Markdown parser: headings and fenced blocks whose content is the text, character by character."""
    markdown = pytest.importorskip("markdown_it")  # comes with rich
    journal = Journal(tmp_path)
    tricky = "She said:\n```python\nx\n```\n# not a heading\n\n````"
    journal.sample(10, "", "plain")
    journal.sample(20, "a `tick`", tricky)
    tokens = markdown.MarkdownIt().parse((tmp_path / "samples.md").read_text(encoding="utf-8"))
    assert [token.content for token in tokens if token.type == "fence"] == [
        "\n",
        "plain\n",
        "a `tick`\n",
        tricky + "\n",
    ]
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert titles == ["Step 10", "Step 20"]


@pytest.mark.parametrize("lost", [1, 5, 20, 40])
def test_a_torn_sample_is_dropped(tmp_path, lost):
    journal = Journal(tmp_path)
    journal.sample(1, "a", "b")
    whole = journal.samples.read_bytes()
    journal.sample(2, "c", "d")
    journal.samples.write_bytes(journal.samples.read_bytes()[:-lost])
    journal.rewind(2)
    assert journal.samples.read_bytes() == whole


class Clock:
    """Time that passes when told."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("groundup.journal.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_plain_lines_at_most_every_ten_seconds(clock):
    stream = io.StringIO()
    with Progress("train", total=100, unit="steps", stream=stream) as progress:
        for step in range(1, 51):
            clock.now += 0.5
            progress.update(step, loss=4.0 - step / 100, tokens=step * 1000)
    assert stream.getvalue().splitlines() == [
        "train  20/100 steps  20%  2 steps/s  0:40 left  loss 3.8  tokens 20,000",
        "train  40/100 steps  40%  2 steps/s  0:30 left  loss 3.6  tokens 40,000",
        "train  50/100 steps  50%  2 steps/s  in 0:25  loss 3.5  tokens 50,000",
    ]


def test_a_resumed_run_counts_its_own_speed(clock):
    stream = io.StringIO()
    with Progress("train", total=1000, unit="steps", start=900, stream=stream) as progress:
        clock.now += 10
        progress.update(910)
    assert stream.getvalue().splitlines()[0] == "train  910/1,000 steps  91%  1 steps/s  1:30 left"


def test_without_total_there_is_no_time_left(clock):
    stream = io.StringIO()
    with Progress("read", unit="MB", stream=stream) as progress:
        clock.now += 3700
        progress.update(12345.678)
    assert stream.getvalue().splitlines() == [
        "read  12,346 MB  3.337 MB/s",
        "read  12,346 MB  3.337 MB/s  in 1:01:40",
    ]


def test_nothing_done_says_nothing():
    stream = io.StringIO()
    with Progress("read", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_quiet_is_silent(capsys):
    with Progress("train", total=1, quiet=True) as progress:
        progress.say("hello")
        progress.update(1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_everything_human_goes_to_stderr(capsys):
    with Progress("train", total=1) as progress:
        progress.say("hello [bold]world[/bold]")
        progress.update(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hello [bold]world[/bold]\ntrain  1/1  100%")


def test_a_console_with_few_characters_gets_what_it_can_show():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict", newline="\n")
    with Progress("träin", total=1, stream=stream) as progress:
        progress.say("naïve \x1b[31mred\x07 – ok")
        progress.update(1, word="日本")
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[0] == "na?ve ?[31mred? ? ok"
    assert lines[1].startswith("tr?in  1/1") and lines[1].endswith("word ??")


def test_no_console_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("train") as progress:
        progress.say("hello")
        progress.update(1)


def test_a_console_that_goes_away_does_not_stop_the_work():
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w", encoding="utf-8")
    with Progress("train", stream=stream) as progress:
        progress.say("hello")
        progress.update(1)
    assert progress.done == 1
    with pytest.raises(BrokenPipeError):
        stream.close()  # what was buffered still cannot be written: the pipe was really broken


def test_an_error_passes_through_and_the_last_state_is_shown():
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress("train", total=9, stream=stream) as progress:
        progress.update(3)
        raise KeyboardInterrupt
    assert "train  3/9  33%" in stream.getvalue()


def on_terminal(environment, width=60):
    """What a child process with a terminal as stderr writes to it, and to its stdout."""
    pty = pytest.importorskip("pty", reason="needs a POSIX terminal")
    import fcntl
    import struct
    import subprocess
    import termios

    code = (
        "import sys, warnings\n"
        "from groundup.journal import Progress\n"
        "with Progress('train', total=3, unit='steps') as p:\n"
        "    p.live_every = p.plain_every = 0\n"
        "    for step in (1, 2, 3):\n"
        "        p.say(f'said {step} [red]'); p.update(step, note='x' * 100); print('result', step)\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    source = str(Path(__file__).resolve().parents[1] / "src")
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    child = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**kept, "PYTHONPATH": source, **environment},
        text=True,
        check=True,
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # Linux ends a terminal whose other side is closed with an error
        pass
    os.close(ours)
    return written.decode("utf-8"), child.stdout


@pytest.mark.parametrize("environment", [{"TERM": "xterm-256color"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_terminal_gets_one_live_line(environment):
    shown, out = on_terminal(environment)
    assert out == "result 1\nresult 2\nresult 3\n"
    assert "\x1b[2K" in shown  # the line is erased and written again
    assert shown.count("said 2 [red]") == 1
    assert "train  3/3 steps  100%" in shown
    parts = [part for part in shown.replace("\r", "\n").split("\n") if "xxx" in part]
    assert all("train" in part for part in parts)  # cut at the width, not wrapped


def test_a_dumb_terminal_gets_plain_lines():
    shown, _ = on_terminal({"TERM": "dumb"})
    assert "\x1b" not in shown
    lines = shown.replace("\r", "").splitlines()
    expected = [start for i in (1, 2, 3) for start in (f"said {i} [red]", f"train  {i}/3 steps")]
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=False))
    assert lines[6].startswith("train  3/3 steps  100%") and len(lines) == 7
