"""Harbor's pairs: the order is true, the parts are apart, and neither length nor guessing tells which is better."""

import re
from collections import Counter
from itertools import islice

import pytest

from groundup.errors import DataError
from groundup.text.harbor import world
from groundup.text.harbor.pairs import FLAWS, pairs
from groundup.text.harbor.questions import FAMILIES, FINDS, HOLDINGS, REWORDED, Question, questions, side, things

ROWS = list(pairs(5, 3000))
ASKED = list(questions(5, 3000))
EVERY = (*(each.name for each in world.PEOPLE), *things(), *world.PLACES)


def test_the_checker_agrees_with_every_chosen_and_no_rejected():
    for row, question in zip(ROWS, ASKED, strict=True):
        assert row["prompt"] == question.prompt
        assert question.right(row["chosen"]) and not question.right(row["rejected"])
        assert (row["kind"], row["about"]) == (question.kind, question.about)
        assert row["rejected"] == row["rejected"].strip() and row["rejected"].endswith(".")


@pytest.mark.parametrize("families", [HOLDINGS, REWORDED, FAMILIES, ["who saw it"], ["who gave it"]])
def test_other_families_too(families):
    found = list(pairs(2, 300, families=families))
    for row, question in zip(found, questions(2, 300, families=families), strict=True):
        assert row["prompt"] == question.prompt and question.right(row["chosen"])
        assert not question.right(row["rejected"])
    assert {row["kind"] for row in found} == set(families)


def test_every_flaw_is_as_likely_and_has_its_margin():
    """600 of each expected; four standard deviations of a fifth of 3,000 are 88."""
    counts = Counter(row["flaw"] for row in ROWS)
    assert set(counts) == set(FLAWS) and all(abs(count - 600) < 88 for count in counts.values())
    assert {row["flaw"]: row["margin"] for row in ROWS} == {
        "goes on": 1.0, "only the word": 1.0, "another of the scene": 2.0, "answers something else": 3.0,
        "not in the scene": 3.0}  # fmt: skip


def values(text: str) -> set[str]:
    return {value for value in EVERY if re.search(rf"\b{value}\b", text, re.IGNORECASE)}


def test_each_flaw_is_what_it_says():
    for row, question in zip(ROWS, ASKED, strict=True):
        wrong, flaw = row["rejected"], row["flaw"]
        said = values(wrong)
        if flaw == "goes on":
            right, more = wrong[: len(question.answer)], wrong[len(question.answer) :]
            assert right == question.answer and more[0] == " " and more[1:] in question.scene
        elif flaw == "only the word":
            assert wrong.lower() == f"{question.wanted}.".lower()
        elif flaw == "answers something else":
            assert answers_another(question, wrong)
        else:
            [other] = said - values(question.answer)  # the one value that stands in the place of the right one
            assert question.wanted not in said and len(said) == len(values(question.answer))
            assert (other in values(question.scene)) == (flaw == "another of the scene")
            assert kind_of(other) == kind_of(question.wanted)


def kind_of(value: str) -> str:
    return "place" if value in world.PLACES else "thing" if value in things() else "name"


def answers_another(question: Question, answer: str) -> bool:
    """Whether it has the form of another family's answer, and says only what the scene tells of."""
    forms = [re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(FINDS[kind][1])) for kind in FINDS if kind != question.kind]
    return any(re.fullmatch(form, answer) for form in forms) and values(answer) <= values(question.scene)


def longer(rows):
    """Share of the pairs whose chosen answer is the longer one, ties as half."""
    return sum(0.5 if len(row["chosen"]) == len(row["rejected"]) else len(row["chosen"]) > len(row["rejected"])
               for row in rows) / len(rows)  # fmt: skip


def test_length_tells_nothing():
    """Chosen is longer in half of the pairs; one standard deviation of 3,000 pairs is 0.9 %."""
    assert 0.47 < longer(ROWS) < 0.53
    for part in ("train", "test"):
        assert 0.46 < longer(list(pairs(8, 2000, split=part))) < 0.54


def test_length_tells_little_of_one_kind_of_question():
    """As the module says; one standard deviation of some 370 pairs of a kind is 2.6 %."""
    kinds = sorted({row["kind"] for row in ROWS})
    shares = {kind: longer([row for row in ROWS if row["kind"] == kind]) for kind in kinds}
    assert set(shares) == set(FINDS) and 0.35 < min(shares.values()) < max(shares.values()) < 0.66


def test_parts_share_no_triple_and_the_same_seed_gives_the_same():
    train, test = (list(pairs(4, 400, split=part)) for part in ("train", "test"))
    assert {side(row["about"]) for row in train} == {"train"} and {side(row["about"]) for row in test} == {"test"}
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in test}
    assert list(pairs(4, 50, split="train")) == train[:50] == list(islice(pairs(4, split="train"), 50))
    assert [row["rejected"] for row in pairs(5, 50)] != [row["rejected"] for row in pairs(6, 50)]


def test_unknown_parts_and_families_are_told():
    for how in ({"split": "valid"}, {"families": ["who sang"]}, {"families": []}):
        with pytest.raises(DataError):
            list(pairs(1, 3, **how))
