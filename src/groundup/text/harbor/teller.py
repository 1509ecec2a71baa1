"""Tells stories: draw a plot, roles and a way through the script, then put every act into words.

In: a seed and a number. Out: `Story`, the text and what happened in it. The same seed and number give the same story on
every machine, and any story can be had without those before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as numbers
from random import Random

from groundup.text.harbor.facts import State, changes, needs
from groundup.text.harbor.plots import PLOTS, named
from groundup.text.harbor.plots.plot import Plot, Step, pick
from groundup.text.harbor.sentences import Act, Row, ways
from groundup.text.harbor.world import Fact


@dataclass(frozen=True)
class Event:
    """One act of a story: the words it was told in, and who and what took part."""

    text: str
    act: Act
    values: dict[str, str]


@dataclass(frozen=True)
class Story:
    """A story: its text, the kind of plot, and its events in order; the first is the title."""

    text: str
    plot: str
    events: tuple[Event, ...]

    def facts(self, upto: int) -> frozenset[Fact]:
        """All that is true after the first `upto` events.

        >>> ("at", "Odo", "lighthouse") in Story("", "", ()).facts(0)
        False
        """
        state = State()
        for event in self.events[:upto]:
            state.apply(changes(event.act.then), event.values)
        return frozenset(state.facts)


class Teller:
    """One story in the making."""

    def __init__(self, plot: Plot, rng: Random) -> None:
        self.plot, self.rng = plot, rng
        self.cast, self.state, self.focus = plot.cast(rng), State(), ""
        self.events: list[Event] = []
        self.paragraphs: list[list[str]] = [[]]

    def play(self, step: Step) -> None:
        """Tell one act of the script, or begin a paragraph."""
        name, parts = step
        if name == "/":
            self.paragraphs.append([])
            return
        values = self.cast | {letter: self.cast[role] for letter, role in parts}
        act = self.choose(named(self.plot)[name], values)
        if act is None:
            return
        row = self.phrase(act, values)
        text = row.fill(values)
        self.focus = values.get(row.last_person, "")
        self.state.apply(changes(act.then), values)
        self.events.append(Event(text, act, values))
        self.paragraphs[-1].append(text)
        if name == "title":
            self.paragraphs.append([])

    def choose(self, acts: tuple[Act, ...], values: dict[str, str]) -> Act | None:
        """One of the acts of the same name whose needs are met now, if any (no weather, no remark about it)."""
        if len(acts) == 1:
            return acts[0]
        fitting = [act for act in acts if self.state.solve(needs(act.needs), values)[1] is None]
        return pick(self.rng, fitting) if fitting else None

    def phrase(self, act: Act, values: dict[str, str]) -> Row:
        """One of the act's phrases; a person just spoken of is mostly "he" or "she"."""
        with_name, with_pronoun = pick(self.rng, ways(act, values))
        if with_pronoun and values[with_pronoun.by_pronoun] == self.focus and self.rng.random() < 0.8:
            return with_pronoun
        return with_name


def tell(seed: int, index: int) -> Story:
    """Story number `index` of the stream `seed`, with the facts behind it.

    >>> first = tell(0, 0)
    >>> first.events[-1].act.name, ("end",) in first.facts(len(first.events))
    ('coda', True)
    """
    rng = Random(f"harbor {seed} {index}")
    teller = Teller(pick(rng, PLOTS), rng)
    for step in teller.plot.steps(rng):
        teller.play(step)
    text = "\n\n".join(" ".join(sentences) for sentences in teller.paragraphs if sentences)
    return Story(text, teller.plot.name, tuple(teller.events))


def story(seed: int, index: int) -> str:
    """The text of story number `index` of the stream `seed`."""
    return tell(seed, index).text


def stories(seed: int, count: int | None = None) -> Iterator[str]:
    """The stories 0, 1, 2 ... of the stream `seed`: `count` of them, or without end.

    >>> list(stories(seed=7, count=2)) == [story(7, 0), story(7, 1)]
    True
    """
    return (story(seed, index) for index in (numbers() if count is None else range(count)))
