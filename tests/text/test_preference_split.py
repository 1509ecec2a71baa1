"""Pairs divided: what belongs together stays in one part, and what is said of all pairs is counted by hand."""

import json
from typing import Any

import pytest

from groundup.errors import DataError
from groundup.text.conversations import told
from groundup.text.preferences import Preference, chosen_is_longer, contradictions, split, told_by_length


def asked(text: str, chosen: str = "yes", rejected: str = "no", **more: Any) -> Preference:
    return Preference(({"role": "user", "content": text},), chosen, rejected, **more)


def prompts(rows: list[Preference]) -> set[str]:
    return {json.dumps(told(row.messages)) for row in rows}


def test_pairs_of_one_prompt_stay_together_and_what_is_said_twice_goes():
    """40 prompts with three pairs each, one of them twice: 40 duplicates; 2 and 4 prompts in validation and test."""
    rows = [asked(f"{n}", rejected=worse) for worse in ("a", "b", "c", "a") for n in range(40)]
    parts = split(rows, validation=0.05, test=0.10, seed=3)
    assert parts.duplicates == 40
    assert [len(part) for part in (parts.train, parts.valid, parts.test)] == [34 * 3, 2 * 3, 4 * 3]
    sets = [prompts(part) for part in (parts.train, parts.valid, parts.test)]
    assert [len(found) for found in sets] == [34, 2, 4] and len(set.union(*sets)) == 40
    assert split(rows, validation=0.05, test=0.10, seed=3) == parts != split(rows, validation=0.05, test=0.1, seed=4)


def test_a_dialogue_does_not_go_on_in_another_part():
    """Twenty dialogues of one, two and three questions each: the longer ones hold all that the shorter ones ask."""
    rows = []
    for number in range(20):
        turns = [{"role": "system", "content": "s"}, {"role": "user", "content": f"{number}"}]
        for more in range(3):
            rows.append(Preference(tuple(turns), "yes", "no"))
            turns += [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": f"And {more}?"}]
    parts = split(rows, validation=0.1, test=0.2, seed=2)
    firsts = [{row.messages[1]["content"] for row in part} for part in (parts.train, parts.valid, parts.test)]
    assert [len(found) for found in firsts] == [14, 2, 4] and len(set.union(*firsts)) == 20
    assert [len(part) for part in (parts.train, parts.valid, parts.test)] == [42, 6, 12] and parts.duplicates == 0


def test_a_prompt_that_is_held_out_anywhere_is_never_learnt():
    rows = [asked(f"{n}", held_out=n == 7) for n in range(20)] + [asked("7", rejected="never")]
    parts = split(rows, validation=0.1, test=0.1)
    assert not any(row.messages[0]["content"] == "7" for row in parts.train)
    assert sum(row.messages[0]["content"] == "7" for row in (*parts.valid, *parts.test)) == 2


def test_too_few_prompts_are_told():
    with pytest.raises(DataError, match="1 different first questions are too few"):
        split([asked("a"), asked("a", rejected="b")])


def test_longer_counts_letters_and_halves_ties():
    rows = [asked("?", "yes", "no"), asked("?", "no", "yes"), asked("?", "longer", "x"), asked("?", "a", "b")]
    assert chosen_is_longer(rows) == (1 + 0 + 1 + 0.5) / 4
    assert chosen_is_longer([]) == 0.5
    assert [told_by_length(share) for share in (0.61, 0.6, 0.5, 0.4, 0.39)] == ["long", "", "", "", "short"]


def test_both_orders_are_counted():
    rows = [asked("a"), asked("a", "no", "yes"), asked("a", "no", "yes"), asked("b"), asked("b", "yes", "off"),
            asked("b", "off", "yes"), asked("c", "yes", "yes")]  # fmt: skip
    assert contradictions(rows) == 2 and contradictions(rows[3:5]) == 0
