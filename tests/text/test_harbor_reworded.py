"""Questions about finds in other words: the same answers, guessing does not pay, training and testing share nothing."""

import json
import re
from collections import Counter

import pytest

from groundup.errors import DataError
from groundup.text import conversations
from groundup.text.conversations import read, split
from groundup.text.harbor import questions as asking
from groundup.text.harbor import world
from groundup.text.harbor.questions import FINDS, OF_FINDS, Question, questions
from groundup.text.harbor.reworded import REWORDED

LEARNT = list(questions(1, 3000, split="train", families=REWORDED))
ASKED = list(questions(2, 1500, split="test", families=REWORDED))

AT = r"(?:at|in|on|At|In|On) the"
# what is asked for -> the sentences that tell it, as patterns written by hand; the group is the value
TOLD = {
    "finder": [r"([A-Z]\w+) found the", r", and ([A-Z]\w+) found it\."],
    "thing": [r"found the (\w+)", r"The (\w+) lay"],
    "place": [rf"found the \w+ {AT} ([a-z ]+?)(?: by sitting on it)?\.", rf"^{AT} ([a-z ]+?) [A-Z]\w+ found the",
              rf"lay {AT} ([a-z ]+), and"],
    "carried": [r"carried (?:the \w+ )?to the ([a-z ]+)\."],
    "keeper": [r"([A-Z]\w+) keeps the", r"These days ([A-Z]\w+) keeps"],
    "witness": [r"([A-Z]\w+) saw it all"],
    "price": [r"paid (?:for (?:the find )?)?with an? (\w+)"],
}  # fmt: skip
# family -> what it asks for, and the answer with {} for the value: @ stands for the place with its preposition, # for
# the thing with its article, ! for the finder
WANTED = {
    "who has found it": ("finder", "{} found it."),
    "what had been found": ("thing", "! found the {}."),
    "where it comes from": ("place", "It was found @."),
    "to which place": ("carried", "It was carried to the {}."),
    "whose it is": ("keeper", "{} keeps it."),
    "who it was": ("witness", "{} saw it all."),
    "the price": ("price", "It was paid for with #."),
}


def value(scene: str, part: str) -> str:
    """The one value that a scene tells of a part."""
    found = {found for pattern in TOLD[part] for found in re.findall(pattern, scene)}
    assert len(found) == 1, (scene, part, found)
    return found.pop()


def right(each: Question) -> tuple[str, str]:
    """What is wanted and the whole answer, from the words of the scene alone."""
    part, form = WANTED[each.kind]
    wanted = value(each.scene, part)
    article = "an" if wanted[0] in "aeiou" else "a"
    words = form.format(wanted).replace("#", f"{article} {wanted}")
    words = words.replace("@", f"{world.PLACES.get(wanted)} the {wanted}")
    return wanted, words.replace("!", value(each.scene, "finder"))


@pytest.mark.parametrize("found", [LEARNT, ASKED], ids=["train", "test"])
def test_every_question_has_exactly_the_answer_that_the_scene_gives(found: list[Question]) -> None:
    for each in found:
        assert (each.wanted, each.answer) == right(each), each.prompt


def test_only_the_questions_are_new() -> None:
    """Each answer is the form that a family of the tuning has for the same part, and no question is one of these."""
    forms = {letter: answer for _, answer, letter in FINDS.values()}
    assert all(forms[letter] == answer for _, answer, letter in REWORDED.values())
    assert not {question for question, *_ in REWORDED.values()} & {question for question, *_ in FINDS.values()}
    assert not set(REWORDED) & set(FINDS) and set(OF_FINDS) == set(REWORDED) | set(FINDS)


def test_what_is_known_by_default_stays_what_it_was() -> None:
    assert {each.kind for each in questions(3, 300)} == set(FINDS)


def test_training_and_testing_share_no_triple() -> None:
    learnt, asked = ({each.about for each in found} for found in (LEARNT, ASKED))
    assert len(learnt) > 500 and len(asked) > 100 and not learnt & asked


def test_guessing_stays_under_a_fifth() -> None:
    """The usual answer of each kind, and any constant answer whatever is asked."""
    assert asking.by_majority(LEARNT, ASKED) < 0.2
    for kind in REWORDED:
        some = [each for each in ASKED if each.kind == kind]
        assert asking.by_majority(LEARNT, some) < 0.25, kind
    constant, _ = Counter(each.answer for each in LEARNT).most_common(1)[0]
    assert sum(each.right(constant) for each in ASKED) / len(ASKED) < 0.05


def test_copying_the_last_word_does_not_pay() -> None:
    assert asking.by_copying_the_last(ASKED) < 0.5


def test_families_are_as_likely_as_each_other() -> None:
    counts = Counter(each.kind for each in LEARNT)
    assert set(counts) == set(REWORDED) and min(counts.values()) > 0.75 * len(LEARNT) / len(REWORDED)


def test_they_are_data_by_name() -> None:
    """One question each; some of them held out, and all of those about triples that no other mentions."""
    rows = read("harbor-reworded:200:3")
    assert len(rows) == 200 and sum(row.held_out for row in rows) == 30
    assert {row.kind for row in rows} == set(REWORDED)
    assert {tuple(message["role"] for message in row.messages) for row in rows} == {("user", "assistant")}
    parts = split(rows, validation=0.05, test=0.10, seed=1)
    assert not any(row.held_out for row in parts.train)
    assert all(row.held_out for row in (*parts.valid, *parts.test))
    assert read("harbor-reworded:200:3") == rows != read("harbor-reworded:200:4")


def test_they_come_as_the_generator_tells_them() -> None:
    wanted = list(asking.conversations(3, 170, split="train", families=REWORDED, turns=1))
    rows = read("harbor-reworded:200:3")[:170]
    assert [list(row.messages) for row in rows] == [each["messages"] for each in wanted]


def test_what_is_written_is_read_back(tmp_path) -> None:
    rows = read("harbor-reworded:20")
    conversations.write_messages(tmp_path / "rows.jsonl", rows)
    assert [row.messages for row in read(tmp_path / "rows.jsonl")] == [row.messages for row in rows]
    first = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["kind"] in REWORDED


@pytest.mark.parametrize("name", ["harbor-reworded:x", "harbor-reworded:0", "harbor-reworded:1:2:3"])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(DataError, match=rf"'{name}'.*\n  -> write harbor-reworded"):
        read(name)
