"""The state of a story: a set of facts, what an act needs of it and how an act changes it.

In: needs such as `"has B X, at A P, at B P, not lost O"` and changes such as `"+has A X, -calm"`. Out: `Needs.met`
(state, values -> values or the first need that fails) and `Changes.apply`. A capital letter stands for a value, `_` for
any value, everything else for itself. A letter with no value yet takes one from the facts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from groundup.text.harbor.world import Fact, standing_facts

# Facts of which only one can hold: predicate -> the argument that it is about.
# Adding ("at", "Mira", "pier") removes every other ("at", "Mira", _); adding ("has", "Odo", "key") takes it from Mira.
ONLY_ONE = {"at": 0, "has": 1}


@dataclass(frozen=True)
class Need:
    """One condition: the fact `terms` holds, or, if `no`, does not."""

    no: bool
    terms: Fact


@dataclass(frozen=True)
class Change:
    """One effect: the fact `terms` begins to hold, or, if `ends`, ceases to."""

    ends: bool
    terms: Fact


class State:
    """What is true at one moment of a story.

    >>> state = State()
    >>> state.apply(changes("+at A P"), {"A": "Mira", "P": "pier"})
    >>> state.solve(needs("at A P, home A Q"), {"A": "Mira"})
    ({'A': 'Mira', 'P': 'pier', 'Q': 'bakery'}, None)
    """

    def __init__(self) -> None:
        self.facts: set[Fact] = {("start",)}

    def solve(self, wanted: tuple[Need, ...], binding: dict[str, str]) -> tuple[dict[str, str], Need | None]:
        """Values for all letters with which every need holds, and None; or the furthest values and the failing need."""
        if not wanted:
            return binding, None
        first, rest = wanted[0], wanted[1:]
        deepest: tuple[dict[str, str], Need | None] = binding, first
        if first.no:
            return self.solve(rest, binding) if not any(self.matches(first.terms, binding)) else deepest
        for values in self.matches(first.terms, binding):
            solved, failed = self.solve(rest, values)
            if failed is None:
                return solved, None
            deepest = solved, failed
        return deepest

    def matches(self, terms: Fact, binding: dict[str, str]) -> Iterator[dict[str, str]]:
        """Every way to give values to the free letters of `terms` so that it is a fact."""
        known = tuple(binding.get(term, term) for term in terms)
        if known in self.facts or known in standing_facts():
            yield binding
            return
        if not any(is_free(term) for term in known):
            return
        for fact in sorted(f for source in (self.facts, standing_facts()) for f in source if f[0] == known[0]):
            values = dict(binding)
            if len(fact) == len(known) and all(agree(t, v, values) for t, v in zip(known, fact, strict=True)):
                yield values

    def apply(self, effects: tuple[Change, ...], binding: dict[str, str]) -> None:
        """Make the changes."""
        for effect in effects:
            fact = tuple(binding.get(term, term) for term in effect.terms)
            if effect.ends and "_" not in fact:
                self.facts.discard(fact)
                continue
            if effect.ends:
                self.facts = {other for other in self.facts if not same(fact, other)}
                continue
            if fact[0] in ONLY_ONE:
                about = ONLY_ONE[fact[0]] + 1
                self.facts = {f for f in self.facts if f[0] != fact[0] or f[about] != fact[about]}
            self.facts.add(fact)


def is_free(term: str) -> bool:
    """Whether a term is a letter without a value, or `_`."""
    return len(term) == 1 and (term.isupper() or term == "_")


def agree(term: str, value: str, values: dict[str, str]) -> bool:
    """Whether `term` can be `value`; a free letter takes it, unless another letter has it: roles are different."""
    if term == "_" or not is_free(term):
        return term in ("_", value)
    if term not in values and value in values.values():
        return False
    return values.setdefault(term, value) == value


def same(pattern: Fact, fact: Fact) -> bool:
    """Whether a fact fits a pattern whose `_` stands for anything."""
    return len(pattern) == len(fact) and all(p in ("_", f) for p, f in zip(pattern, fact, strict=True))


@cache
def needs(text: str) -> tuple[Need, ...]:
    """Read "has B X, not lost O".

    >>> needs("has B X, not lost O")
    (Need(no=False, terms=('has', 'B', 'X')), Need(no=True, terms=('lost', 'O')))
    """
    parts = [part.split() for part in text.split(",") if part.strip()]
    return tuple(Need(p[0] == "not", tuple(p[1:] if p[0] == "not" else p)) for p in parts)


@cache
def changes(text: str) -> tuple[Change, ...]:
    """Read "+has A X, -calm"."""
    parts = [part.split() for part in text.split(",") if part.strip()]
    return tuple(Change(p[0].startswith("-"), (p[0][1:], *p[1:])) for p in parts)
