"""Reads a page: its fenced blocks, the commands in them, the notes to the tests before a block; and runs what it shows.

A note is a comment on the line before the fence, and always gives its reason:

    <!-- test: skip because it needs a server that answers -->
    <!-- test: with --steps 20 because the full run takes twenty minutes -->
    <!-- test: needs sample data because it names a public text -->

What stands behind `with` changes how much is done, nothing else: each flag is one of `BUDGETS`, its number is below the
one that the page shows, and all the rest of the command runs as a reader would type it.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import survey

ENDS = ("--steps", "--minutes", "--epochs")  # say when training ends; each excludes the others
BUDGETS = (*ENDS, "--limit", "--eval-tokens", "--data")  # of --data only the count: harbor:200 for harbor:2000
SHELL = {"bash", "console", "sh", "shell"}
DATA = Path(os.environ.get("GROUNDUP_DATA", survey.ROOT.parent / "shared" / "data"))
ONE_BY_ONE = """
import json, sys
from groundup.cli import main

for place, words in json.loads(sys.argv[1]):
    print(f"=== {place}: {words}", flush=True)
    status = main(words[1:]) if words[0] == "groundup" else exec(words[1], {})
    if status:
        sys.exit(f"{place}: {words}: exit {status}")
"""
COMMANDS = ("groundup", "make", "pip", "git", "python", "cd", "source")
NOTE = re.compile(r"<!-- test: (?P<kind>skip|with|needs sample data)(?P<words>.*?) because (?P<reason>\S.*?) -->$")
FENCE = re.compile(r"^```(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its first line's number, language, text, and the note before it ("" for none)."""

    line: int
    language: str
    text: str
    kind: str = ""
    words: str = ""

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, continued lines joined, comments, prompts and output left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        return [line for raw in lines if (line := raw.strip()) and not line.startswith("#")]


def blocks(text: str) -> list[Block]:
    """All fenced blocks; a note that does not fit the form is an error, so that none is silently without effect.

    >>> note = "<!-- test: with --steps 2 because it is long -->"
    >>> [block] = blocks(note + "\\n```bash\\ngroundup pretrain \\\\\\n  --lr 1\\n```")
    >>> block.kind, block.words, block.commands
    ('with', '--steps 2', ['groundup pretrain    --lr 1'])
    """
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        if not fence:
            number += 1
            continue
        end = next((n for n in range(number + 1, len(lines)) if lines[n].startswith("```")), None)
        if end is None:
            raise ValueError(f"line {number + 1}: this fenced block never ends")
        kind, words = _note(lines[number - 1] if number else "")
        found.append(Block(number + 1, fence[1], "\n".join(lines[number + 1 : end]), kind, words))
        number = end + 1
    return found


def _note(line: str) -> tuple[str, str]:
    if "<!-- test:" not in line:
        return "", ""
    note = NOTE.match(line)
    if not note:
        raise ValueError(f"a note to the tests without a form or a reason: {line}")
    return note["kind"], note["words"].strip()


def changed(lines: Sequence[str], note: str) -> list[list[str]]:
    """The words of commands, with the numbers of a note in place of theirs, wherever the same flag has the same form.

    A flag that no command shows is added, if there is one command alone. A note without effect is an error.

    >>> changed(["groundup pretrain --data harbor:2000 --minutes 30", "groundup info a"], "--steps 2 --data harbor:9")
    [['groundup', 'pretrain', '--data', 'harbor:9', '--steps', '2'], ['groundup', 'info', 'a']]
    >>> changed(["groundup pretrain --steps 2000"], "--steps 20 --eval-tokens 1000")
    [['groundup', 'pretrain', '--steps', '20', '--eval-tokens', '1000']]
    """
    result, words = [shlex.split(line, comments=True) for line in lines], shlex.split(note)
    for flag, value in zip(words[::2], words[1::2], strict=True):
        if flag not in BUDGETS:
            raise ValueError(f"a note changes how much is done ({', '.join(BUDGETS)}), not {flag}")
        replaced = [_replace(command, flag, value) for command in result]
        if not any(replaced):
            if len(result) != 1 or flag == "--data" or flag in result[0]:
                raise ValueError(f"none of {list(lines)} has a place for the note's {flag} {value}")
            result[0] += [flag, value]
    return result


def _replace(command: list[str], flag: str, value: str) -> bool:
    """Put a flag of a note into a command that shows the like; whether it did."""
    for place, shown in enumerate(command[:-1]):
        old = command[place + 1]
        same = shown == flag and _form(old) == _form(value)
        other_end = flag in ENDS and shown in ENDS and shown != flag and _form(old) == "#"
        if same and _count(value) >= _count(old):
            raise ValueError(f"a note asks for less than the page, not {flag} {value} for {old}")
        if same or other_end:
            command[place : place + 2] = [flag, value]
            return True
    return False


def _form(value: str) -> str:
    """What has to be the same in a note and on the page: all but the first number, which is the count."""
    return re.sub(r"(?<![a-z])\d+", "#", value, count=1)


def _count(value: str) -> int:
    found = re.search(r"(?<![a-z])\d+", value)
    return int(found[0]) if found else 0


def changed_python(code: str, note: str) -> str:
    """The same for a call from Python.

    >>> changed_python("groundup.pretrain(steps=30, size='1m')", "--steps 2")
    "groundup.pretrain(steps=2, size='1m')"
    """
    words = shlex.split(note)
    for flag, value in zip(words[::2], words[1::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        shown = re.search(rf"\b{name}=(\d+)\b", code)
        if flag not in BUDGETS or not shown or int(value) >= int(shown[1]):
            raise ValueError(f"the code has no place for the note's {flag} {value}, or it asks for no less")
        code = code[: shown.start(1)] + value + code[shown.end(1) :]
    return code


def programs(block: Block) -> list[list[str]]:
    """What to run for a block: its Python as a whole, or its `groundup` commands one by one, by this Python."""
    note = block.words if block.kind == "with" else ""
    if block.language == "python":
        return [[sys.executable, "-c", changed_python(block.text, note)]]
    lines = [line for line in block.commands if shlex.split(line)[0] == "groundup"] if block.language in SHELL else []
    return [[sys.executable, "-m", *words] for words in changed(lines, note)]


def run(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """One process, as a reader would start it."""
    path = os.pathsep.join([str(survey.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"GROUNDUP_DATA": str(DATA), "PYTHONPATH": path, "COLUMNS": "100"},
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=900,
    )


def run_together(found: Sequence[tuple[str, list[str]]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Places and programs, one after the other in one process, which saves starting each by itself."""
    short = [(place, words[2:] if words[1] == "-m" else words[1:]) for place, words in found]
    done = run([sys.executable, "-c", ONE_BY_ONE, json.dumps(short)], folder)
    if not done.returncode and done.stdout.count("=== ") != len(found):
        done.returncode, done.stderr = 1, done.stderr + "\nnot every command was run"
    return done


def targets(makefile: Path) -> set[str]:
    """The names that `make` can be asked for."""
    text = makefile.read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", text, flags=re.MULTILINE))
