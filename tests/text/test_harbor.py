"""The small world: the same from the same seed, readable both ways, and more than a three-word memory can write."""

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.text import harbor
from groundup.text.harbor import world
from groundup.text.harbor.facts import State, changes, needs
from groundup.text.harbor.plots import PLOTS, all_acts
from groundup.text.harbor.sentences import Slot, read, reading, rows, skeleton, split

# Written by hand to the rules of the world, not taken from the generator.
BY_HAND = """\
Odo and the lost lantern

Odo the lamp keeper was a little afraid of the dark.

But today he was sad, because his lantern was gone. It was no common lantern: it had once been to Africa. Yesterday \
Odo had used the lantern at the bridge, and later in the bakery. At the bridge he found one button, two boots and no \
lantern.

He went to the bakery, where Mira the baker was talking to the dough. "Have you seen my lantern?" asked Odo. \
"I found it at the bridge," said Mira, "and I have been telling everybody that it is mine."

Mira gave the lantern back to Odo with a small bow. Odo thanked Mira with a candle. The sea said nothing, but it \
sounded pleased."""

CHANGED = [
    ("Mira gave the lantern", "Wilma gave the lantern", "Wilma was not introduced"),
    ("gave the lantern back", "gave the bucket back", "Mira does not have the bucket"),
    (
        "Mira gave the lantern back to Odo",
        "Odo gave the lantern back to Mira",
        "Odo does not have the lantern, Mira has it",
    ),
    ("found it at the bridge", "found it at the well", "nobody looked at the well"),
    ("because his lantern", "because him lantern", "'him' should be 'his'"),
    ("Odo and the lost lantern", "Odo and the lost key", "the story is not about the lantern"),
    ("But today he was", "But today she was", "'she' should be 'he'"),
    ("where Mira the baker", "where Mira the captain", "'captain' does not go with Mira"),
    ("went to the bakery", "went to the inn", "Mira is not found at the inn"),
    ("used the lantern at the bridge", "used the lantern at the well", "Odo is not often seen at the well"),
    ("talking to the dough", "winding forty clocks", "does not go with Mira"),
    ("with a candle", "with a medal", "'a medal' does not go with Odo"),
    ("a little afraid", "little a afraid", "nobody in the harbour talks like this"),
    (" The sea said nothing, but it sounded pleased.", "", "the story stops before it ends"),
    ("pleased.", "pleased. A gull laughed, but gulls laugh at everything.", "the story goes on after its end"),
    ("He went to the bakery", "She went to the bakery", "'She' should be 'He'"),
]


def test_a_story_written_by_hand_is_accepted() -> None:
    assert harbor.check(BY_HAND) == harbor.Verdict(True, ())


@pytest.mark.parametrize(("old", "new", "problem"), CHANGED)
def test_problems_are_said_in_plain_words(old: str, new: str, problem: str) -> None:
    assert BY_HAND.count(old) == 1
    assert problem in "\n".join(harbor.check(BY_HAND.replace(old, new)).problems)


def test_the_same_seed_gives_the_same_stories_in_any_process_and_order() -> None:
    here = list(harbor.stories(seed=5, count=12))
    assert here[7] == harbor.story(5, 7) == harbor.tell(5, 7).text
    code = "from groundup.text import harbor; print('\\f'.join(harbor.stories(seed=5, count=12)), end='')"
    environment = os.environ | {
        "PYTHONHASHSEED": "123",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.split("\f") == here


def test_harbor_does_not_load_torch() -> None:
    code = "from groundup.text import harbor as h; h.check(h.story(0, 0)); import sys; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == "False"


def test_seeds_and_numbers_give_different_stories() -> None:
    one, two = (set(harbor.stories(seed, 500)) for seed in (1, 2))
    assert len(one) == len(two) == 500 and not one & two


def test_endless_without_a_count() -> None:
    stream = harbor.stories(seed=3)
    assert [next(stream) for _ in range(3)] == list(harbor.stories(seed=3, count=3))


@pytest.mark.parametrize("count", [600, pytest.param(6000, marks=pytest.mark.slow)])
def test_every_story_is_accepted(count: int) -> None:
    refused = [(text, verdict) for text in harbor.stories(4, count) if not (verdict := harbor.check(text)).ok]
    assert not refused, f"{len(refused)} refused, first: {refused[0]}"


def test_stories_are_short_varied_and_of_few_words() -> None:
    told = [harbor.tell(6, index) for index in range(800)]
    assert {story.plot for story in told} == {plot.name for plot in PLOTS} and len(PLOTS) >= 8
    lengths = [len(story.text.split()) for story in told]
    assert 60 <= min(lengths) and max(lengths) <= 200 and 110 <= sum(lengths) / len(lengths) <= 140
    vocabulary = {word.lower() for story in told for word in re.findall(r"[A-Za-z]+", story.text)}
    assert 400 <= len(vocabulary) <= 900
    orders = Counter(tuple(event.act.name for event in story.events) for story in told)
    assert orders.most_common(1)[0][1] < len(told) / 20  # no skeleton in more than one story of twenty


def test_a_story_knows_who_has_what_at_every_moment() -> None:
    told = next(story for story in (harbor.tell(8, index) for index in range(500)) if story.plot == "trade")
    wanted, hero = told.events[0].values["O"], told.events[0].values["A"]
    swaps = [number for number, event in enumerate(told.events) if event.act.name == "swap"]
    assert ("has", hero, wanted) not in told.facts(swaps[-1])
    assert ("has", hero, wanted) in told.facts(swaps[-1] + 1)
    assert " ".join(event.text for event in told.events) == told.text.replace("\n\n", " ")


def test_state_by_hand() -> None:
    state = State()
    state.apply(changes("+has A O, +at A P"), {"A": "Mira", "O": "oar", "P": "pier"})
    state.apply(changes("+has B O, +at A Q"), {"A": "Mira", "B": "Odo", "O": "oar", "Q": "beach"})
    assert state.facts == {("start",), ("has", "Odo", "oar"), ("at", "Mira", "beach")}
    assert state.solve(needs("has A O, not at A pier"), {"O": "oar"})[0]["A"] == "Odo"
    assert state.solve(needs("has A O, at A _"), {"O": "oar"})[1] is not None
    state.apply(changes("-has _ O"), {"O": "oar"})
    assert state.facts == {("start",), ("at", "Mira", "beach")}


def examples(parts: tuple) -> dict[str, str]:
    """Some value for each letter of a pattern, the prescribed one where there is one."""
    rng, binding = Random(repr(parts)), {}
    for slot in (part for part in parts if isinstance(part, Slot)):
        sails = any(isinstance(other, Slot) and (other.letter, other.form) == (slot.letter, "boat") for other in parts)
        group = world.groups()["sailor" if sails else world.KINDS[slot.letter]]
        free = [value for value in group if value not in binding.values()]
        binding[slot.letter] = slot.value or binding.get(slot.letter) or rng.choice(free)
    return binding


def test_every_pattern_reads_back_what_it_wrote() -> None:
    for act in all_acts():
        for row in (row for pair in rows(act) for row in pair if row):
            binding = examples(row.parts)
            blanked, words = skeleton(row.fill(binding))
            expected, understood = reading(row)
            assert blanked == expected, row
            assert read(understood, words, binding.get(row.by_pronoun, "")) == (binding, ""), row


def test_acts_change_only_what_they_name() -> None:
    for act in all_acts():
        said = set.intersection(
            *({s.letter for s in r.parts if isinstance(s, Slot)} for pair in rows(act) for r in pair if r)
        )
        free = {term for need in needs(act.needs) if not need.no for term in need.terms if len(term) == 1}
        for change in changes(act.then):
            letters = {term for term in change.terms if len(term) == 1 and term != "_"}
            assert letters <= said | free, (
                f"{act.name}: {change} names somebody who is neither in the words nor the needs"
            )


def test_quotations_are_never_cut() -> None:
    assert split('"Go. Now!" said Ada. She went.') == ['"Go. Now!" said Ada.', "She went."]
    assert split('He said: "Come. Quick." She came.') == ['He said: "Come. Quick."', "She came."]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_gets_a_verdict(text: str) -> None:
    assert not harbor.check(text).ok


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(0, 900), st.integers(0, 900))
def test_any_piece_of_a_story_gets_a_verdict(index: int, start: int, end: int) -> None:
    text = harbor.story(9, index)
    piece = text[start:end]
    assert harbor.check(piece).ok == (piece.strip("\n") == text)


def trigram_score(stories: int, samples: int) -> float:
    """The share of consistent stories from a word-trigram model that samples from what it has seen."""
    follows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for text in harbor.stories(seed=1, count=stories):
        words = ["", "", *re.findall(r"\n\n|[^\n ]+", text), ""]
        for one, two, three in zip(words, words[1:], words[2:], strict=False):
            follows[one, two].append(three)
    rng, consistent = Random(0), 0
    for _ in range(samples):
        words = ["", ""]
        while len(words) < 3 or (words[-1] and len(words) < 400):
            words.append(rng.choice(follows[words[-2], words[-1]]))
        consistent += harbor.check(" ".join(words[2:-1]).replace(" \n\n ", "\n\n")).ok
    return consistent / samples


@pytest.mark.parametrize(("stories", "samples"), [(1500, 150), pytest.param(20000, 500, marks=pytest.mark.slow)])
def test_a_trigram_model_cannot_write_a_story(stories: int, samples: int) -> None:
    assert trigram_score(stories, samples) < 0.1
