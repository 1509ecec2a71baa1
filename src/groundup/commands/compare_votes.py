"""The part of `groundup compare --human` that a person sees: two answers without names, and which is better.

In: prompts, the answers of every model, lines typed at a terminal. Out: votes.jsonl, a line for each vote the moment it
is cast; the shares of the points that every model but the first got. What was voted on, or skipped, is not asked again.
The order of the prompts, and which answer stands first, come from the seed alone.

Equal answers are a tie that nobody is asked about. They have their turn in the order all the same, so that whoever
leaves early has decided a random part of all prompts, and not one in which only ties are complete.
"""

import contextlib
import hashlib
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import SettingsError
from groundup.evaluate.compare import LOST, TIED, WON
from groundup.journal import CONTROL

HELP = "1 or 2: that one is better   t: tie   s: skip   q: quit, the votes are kept"
CHOICES, QUIT = ("1", "2", "t", "s"), "q"

Share = float | None  # what the other model gets of the point; None: skipped


@dataclass(frozen=True)
class Ballot:
    """One question to a person: an answer of the first model and one of another (`place`, counted from 0).

    `turned`: the other model's is shown first. `key`: of what is asked and shown, so that no vote is ever counted for
    something else.
    """

    number: int
    place: int
    prompt: str
    first: str
    other: str
    turned: bool
    key: str

    @property
    def level(self) -> bool:
        """Whether both answers are the same."""
        return self.first.strip() == self.other.strip()

    @property
    def shown(self) -> tuple[str, str]:
        """The answers as 1 and 2."""
        return (self.other, self.first) if self.turned else (self.first, self.other)

    def share(self, choice: str) -> Share:
        """What the other model gets for a choice of 1, 2, t or s.

        >>> ballot = Ballot(0, 1, "Who?", "Mira", "Odo", turned=True, key="")
        >>> [ballot.share(choice) for choice in ("1", "2", "t", "s")]
        [1.0, 0.0, 0.5, None]
        """
        if choice in ("t", "s"):
            return TIED if choice == "t" else None
        return WON if (choice == "1") == self.turned else LOST


def ballots(prompts: Sequence[str], answers: Sequence[Sequence[str]], *, seed: int) -> list[Ballot]:
    """The answers of the first model against those of each other one, in the order in which they are voted on.

    >>> found = ballots(["Who?", "Where?"], [["Mira", "here"], ["Odo", "here"]], seed=1)
    >>> sorted((one.number, one.prompt, one.level) for one in found)
    [(0, 'Who?', False), (1, 'Where?', True)]
    """
    found, first = list[Ballot](), answers[0]
    for place, others in enumerate(answers[1:], 1):
        for number, (prompt, one, other) in enumerate(zip(prompts, first, others, strict=True)):
            key = hashlib.sha256(json.dumps([place, prompt, one, other]).encode("ascii")).hexdigest()[:32]
            turned = random.Random(f"{seed} {key}").random() < 0.5
            found.append(Ballot(number, place, prompt, one, other, turned, key))
    random.Random(seed).shuffle(found)
    return found


def shares(order: Sequence[Ballot], votes: Mapping[str, Share], *, size: tuple[int, int]) -> list[list[Share]]:
    """What each model but the first got of the point at each prompt, None without a verdict; `size`: (models, prompts).

    Equal answers are ties as far as the voting has come, and all of them once everything else is decided.

    >>> order = ballots(["Who?", "Where?"], [["Mira", "here"], ["Odo", "here"]], seed=1)
    >>> shares(order, {ballot.key: 1.0 for ballot in order if not ballot.level}, size=(1, 2))
    [[1.0, 0.5]]
    """
    models, prompts = size
    found: list[list[Share]] = [[None] * prompts for _ in range(models)]
    decided = [place for place, ballot in enumerate(order) if ballot.key in votes]
    waiting = any(not ballot.level and ballot.key not in votes for ballot in order)
    reached = max(decided, default=-1) if waiting else len(order)
    for place, ballot in enumerate(order):
        tie = TIED if ballot.level and place <= reached else None
        found[ballot.place - 1][ballot.number] = votes.get(ballot.key, tie)
    return found


def read(path: Path) -> dict[str, Share]:
    """The votes cast so far, by the key of their ballot; a line that is not whole is as if it were not there."""
    votes: dict[str, Share] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            vote = json.loads(line)
            if vote["share"] in (WON, TIED, LOST, None) and not isinstance(vote["share"], bool):
                votes[str(vote["key"])] = vote["share"]
    return votes


# at the terminal


def check_terminal() -> None:
    """Raise SettingsError where nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise SettingsError(
            "--human asks a person, and standard input is no terminal",
            "run it in a terminal; or let something else decide: --reward, --judge",
        )


def vote(order: Sequence[Ballot], path: Path) -> int:
    """Ask until all is decided or the person leaves (q, Ctrl-D, Ctrl-C); returns the votes cast now, skips among them.

    Every vote is on the disk before the next question appears.
    """
    known = read(path)
    asked = [ballot for ballot in order if not ballot.level]
    todo = [ballot for ballot in asked if ballot.key not in known]
    before = len(asked) - len(todo)
    if not todo:
        _say("nothing is left to vote on")
        return 0
    _say(f"{len(todo):,} pairs of answers to compare, {before:,} decided before, {len(order) - len(asked):,} equal")
    _say(HELP)
    for cast, ballot in enumerate(todo):
        _say(_shown(ballot, f"{before + cast + 1:,} of {len(asked):,}"))
        choice = _choice()
        if choice == QUIT:
            _say(f"{cast:,} votes cast now; {len(todo) - cast:,} pairs are left: the same command goes on with them")
            return cast
        _keep(path, ballot, choice)
    return len(todo)


def _choice() -> str:
    """One of the choices, asked for until it is one; the end of the input quits."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        try:
            word = input().strip().lower()
        except (EOFError, KeyboardInterrupt):
            _say("")
            return QUIT
        if word in (*CHOICES, QUIT):
            return word
        _say(HELP)


def _shown(ballot: Ballot, count: str) -> str:
    """The question as it stands on the screen."""
    one, two = ballot.shown
    blocks = [("prompt", ballot.prompt), ("answer 1", one), ("answer 2", two)]
    return "\n".join([f"\n--- {count} ---", *(f"{name}:\n{_indented(text)}" for name, text in blocks)])


def _indented(text: str) -> str:
    """A text that can neither take over the terminal nor look like our own words."""
    lines = CONTROL.sub("\ufffd", text).expandtabs(4).split("\n")
    return "\n".join(f"    {line}" for line in lines) if text.strip() else "    (nothing)"


def _keep(path: Path, ballot: Ballot, choice: str) -> None:
    """Append one vote and wait until the disk has it."""
    model = ballot.place + 1
    content: dict[str, Any] = {"key": ballot.key, "number": ballot.number, "model": model}
    content |= {"share": ballot.share(choice), "choice": choice, "shown_first": model if ballot.turned else 1}
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")  # the line before was cut short: it must not swallow this one
        file.write(json.dumps(content).encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _say(text: str) -> None:
    """A line on standard error; half a surrogate pair in a prompt must not end the voting."""
    print(text.encode("utf-8", "replace").decode("utf-8"), file=sys.stderr, flush=True)
