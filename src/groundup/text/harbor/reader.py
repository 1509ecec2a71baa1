"""Reads a story back and says whether it is grammatical and consistent.

In: any text. Out: `Verdict`. Every sentence must be one that a pattern can produce, with articles, pronouns and verb
forms that agree; every act must find the facts it needs (who has what, who is where, what was lost, promised or begun);
nobody acts before being introduced, no sentence comes twice, and the story ends once, when all is settled. Scripts of
plots are not consulted: any order of events that the facts allow is a story.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from groundup.text.harbor import world
from groundup.text.harbor.facts import Need, State, changes, needs
from groundup.text.harbor.plots import all_acts
from groundup.text.harbor.sentences import Reading, read, reading, rows, skeleton, split

LONGEST = 3  # sentences in one pattern
# What is wrong when a fact is missing: predicate -> plain words ({0} is its first argument).
PLAIN = {
    "about": "the story is not about the {0}",
    "at": "{0} is not at the {1}",
    "broken": "the {0} is not broken",
    "called": "the {0} is not called {1}",
    "calm": "the trouble has already begun",
    "done": "nothing is settled yet",
    "errand": "there is no reason to go there",
    "from": "the letter is not from {0}",
    "guest": "it is not about {0}",
    "has": "{0} does not have the {1}",
    "home": "{0} is not found at the {1}",
    "job": "it is not the {0} that is broken",
    "lead": "the story is not about {0}",
    "looked": "nobody looked at the {0}",
    "lost": "the {0} is not lost",
    "maybe": "nobody said that it could be at the {0}",
    "odd": "nothing was said about the {0}",
    "owner": "the {1} does not belong to {0}",
    "plot": "this belongs to another story",
    "cooks": "{0} does not cook {1}",
    "owns": "the {1} is not {0}'s",
    "pet": "the {0} is not called {1}",
    "shore": "{0} is not often seen at the {1}",
    "spot": "{0} is not often seen at the {1}",
    "stands": "the {0} is not at the {1}",
    "start": "the story has already begun",
    "stolen": "the {0} was not stolen",
    "to": "the letter is not for {0}",
    "wants": "{0} does not want the {1}",
    "weather": "there is no {0} today",
}


# What is wrong when a fact holds that must not.
ALREADY = {"at": "{0} is here already", "has": "somebody already has the {1}", "both": "nobody lost the race"}


@dataclass(frozen=True)
class Verdict:
    """Whether a story is sound, and every problem found, in plain words and in the order of the text."""

    ok: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Understood:
    """One reading of the next sentences: how many, as what, with which values, and what is wrong ("" if nothing)."""

    length: int
    reading: Reading
    values: dict[str, str]
    problem: str


class Reader:
    """Reads one story from its title on, keeping track of what is true."""

    def __init__(self) -> None:
        self.state, self.focus = State(), ""
        self.said: set[str] = set()
        self.problems: list[str] = []

    def paragraph(self, sentences: list[str], title: bool = False) -> None:
        """Read the sentences of a paragraph (the title is a paragraph of its own)."""
        while sentences:
            found = self.understand(sentences, title)
            length = found.length if found else 1
            text = " ".join(sentences[:length])
            sentences = sentences[length:]
            if ("end",) in self.state.facts:
                self.problems.append(f"the story goes on after its end: {text!r}")
            if text in self.said:
                self.problems.append(f"this was said before: {text!r}")
            self.said.add(text)
            if not found:
                self.problems.append(f"nobody in the harbour talks like this: {text!r}")
                self.focus = ""
                continue
            if found.problem:
                self.problems.append(f"{found.problem}: {text!r}")
            self.state.apply(changes(found.reading.row.act.then), found.values)
            self.focus = found.values.get(found.reading.row.last_person, "")

    def understand(self, sentences: list[str], title: bool) -> Understood | None:
        """The first sound reading of the next sentences, longest patterns first; or else the first with a problem."""
        faulty = None
        for length in range(min(LONGEST, len(sentences)), 0, -1):
            blanked, words = skeleton(" ".join(sentences[:length]))
            for candidate in table().get(blanked, ()):
                if (candidate.row.act.name == "title") != title:
                    continue
                values, problem = read(candidate, words, self.focus)
                if not problem:
                    values, problem = self.consistent(candidate, values)
                if not problem:
                    return Understood(length, candidate, values, "")
                faulty = faulty or Understood(length, candidate, values, problem)
        return faulty

    def consistent(self, candidate: Reading, values: dict[str, str]) -> tuple[dict[str, str], str]:
        """All values of an act and what contradicts the story so far ("" if nothing does)."""
        act = candidate.row.act
        for slot in candidate.slots:
            if slot.letter and world.KINDS[slot.letter] == "person" and f"+known {slot.letter}" not in act.then:
                if ("known", values[slot.letter]) not in self.state.facts:
                    return values, f"{values[slot.letter]} was not introduced"
        values, failed = self.state.solve(needs(act.needs), values)
        return values, self.explain(failed, values) if failed else ""

    def explain(self, failed: Need, values: dict[str, str]) -> str:
        """A need that is not met, in plain words, with what is true instead where that helps."""
        predicate, *terms = (values.get(term, term) for term in failed.terms)
        if failed.no:
            return ALREADY.get(predicate, "this has already happened").format(*terms)
        text = PLAIN.get(predicate, f"nothing led to this (no fact {' '.join([predicate, *terms])!r})").format(*terms)
        if predicate == "has" and len(terms) == 2:
            holders = [fact[1] for fact in self.state.facts if fact[0] == "has" and fact[2] == terms[1]]
            text += f", {holders[0]} has it" if holders else ""
        return text


@cache
def table() -> dict[str, list[Reading]]:
    """Skeleton -> every reading it can have."""
    found: dict[str, list[Reading]] = defaultdict(list)
    for act in all_acts():
        for pair in rows(act):
            for row in filter(None, pair):
                blanked, understood = reading(row)
                found[blanked].append(understood)
    return dict(found)


def check(text: str) -> Verdict:
    """Whether `text` is one whole harbour story, grammatical and consistent.

    >>> check("Once upon a time there was a dragon.").ok
    False
    """
    title, *paragraphs = text.strip("\n").split("\n\n")
    reader = Reader()
    reader.paragraph([title], title=True)
    for paragraph in paragraphs:
        reader.paragraph(split(paragraph))
    if ("end",) not in reader.state.facts:
        reader.problems.append("the story stops before it ends")
    return Verdict(not reader.problems, tuple(reader.problems))
