"""Reads README.md: its fenced blocks, the commands in them, and the notes to the tests that stand before a block.

A note is a comment on the line before the fence, and always gives its reason:

    <!-- test: skip because it needs a server that answers -->
    <!-- test: with --steps 20 because the full run takes twenty minutes -->
    <!-- test: needs sample data because it names a public text -->
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

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


def changed(command: str, words: str) -> list[str]:
    """A command's words with some flags set otherwise: replaced where they stand, else added.

    >>> changed("groundup pretrain --steps 2000 --out runs/a", "--steps 20 --eval-tokens 1000")
    ['groundup', 'pretrain', '--steps', '20', '--out', 'runs/a', '--eval-tokens', '1000']
    """
    result, extra = shlex.split(command), shlex.split(words)
    for flag, value in zip(extra[::2], extra[1::2], strict=True):
        if flag in result:
            result[result.index(flag) + 1] = value
        else:
            result += [flag, value]
    return result


def targets(makefile: Path) -> set[str]:
    """The names that `make` can be asked for."""
    text = makefile.read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", text, flags=re.MULTILINE))
