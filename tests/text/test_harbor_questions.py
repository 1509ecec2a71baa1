"""Questions about scenes: one right answer each, nothing shared between training and testing, guessing does not pay."""

import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from groundup.errors import DataError
from groundup.text import harbor
from groundup.text.harbor import questions as asking
from groundup.text.harbor import world
from groundup.text.harbor.questions import FAMILIES, FINDS, HOLDINGS, OF_FINDS, Question, Split, questions

NAMES = [each.name for each in world.PEOPLE]
LEARNT = list(questions(1, 3000, split="train"))
ASKED = list(questions(2, 1500, split="test"))
HOLDINGS_LEARNT = list(questions(1, 2000, split="train", families=HOLDINGS))
HOLDINGS_ASKED = list(questions(2, 600, split="test", families=HOLDINGS))
SPLITS: tuple[Split, ...] = ("train", "test")

# An independent reader: what each sentence of a find says, as patterns written by hand. A group is a part: fn finder,
# ft and fp thing and place found, c carried to, k keeper, w witness, x price. Said again: `t` the thing found, `p` the
# place, `n` the finder, `b` the keeper.
AT = r"(?:at|in|on|At|In|On) the"
EVENT = [
    rf"(?P<fn>[A-Z][a-z]+) found the (?P<ft>\w+) {AT} (?P<fp>[a-z ]+?)(?: by sitting on it)?\.",
    rf"{AT} (?P<fp>[a-z ]+) (?P<fn>[A-Z][a-z]+) found the (?P<ft>\w+)\.",
    rf"The (?P<ft>\w+) lay {AT} (?P<fp>[a-z ]+), and (?P<fn>[A-Z][a-z]+) found it\.",
    r"(?:The find was carried|By noon the find had been carried) to the (?P<c>[a-z ]+)\.",
    r"(?P<n>[A-Z][a-z]+) carried the find to the (?P<c>[a-z ]+)\.",
    r"Six crabs carried the (?P<t>\w+) to the (?P<c>[a-z ]+)\.",
    r"(?P<k>[A-Z][a-z]+) keeps the find now\.",
    r"(?P<k>[A-Z][a-z]+) keeps the (?P<t>\w+) now and will not say why\.",
    r"These days (?P<k>[A-Z][a-z]+) keeps the (?P<t>\w+)\.",
    rf"{AT} (?P<p>[a-z ]+) (?P<w>[A-Z][a-z]+) saw it all\.",
    rf"(?P<w>[A-Z][a-z]+) saw it all {AT} (?P<p>[a-z ]+?)(?: and told the whole town)?\.",
    r"The find was paid for with an? (?P<x>\w+)\.",
    r"(?P<b>[A-Z][a-z]+) paid for the find with an? (?P<x>\w+)\.",
    r"(?P<n>[A-Z][a-z]+) was paid with an? (?P<x>\w+) and bit it\.",
]
AGAIN = {"t": "ft", "p": "fp", "n": "fn", "b": "k"}
# question -> the part wanted, and the answer with {} for its value; what a question names must be the find's own
ABOUT = {
    r"Who found the (?P<ft>\w+)\?": ("fn", "{} found it."),
    r"What did (?P<fn>\w+) find\?": ("ft", r"\g<fn> found the {}."),
    r"Where was the (?P<ft>\w+) found\?": ("fp", "It was found @ {}."),
    r"Where was the (?P<ft>\w+) carried\?": ("c", "It was carried to the {}."),
    r"Who keeps the (?P<ft>\w+) now\?": ("k", "{} keeps it."),
    r"Who saw it all\?": ("w", "{} saw it all."),
    r"What was paid for the (?P<ft>\w+)\?": ("x", "It was paid for with # {}."),
}


def event(scene: str) -> dict[str, str]:
    """The parts of a find, each said exactly once; fails where a sentence contradicts another or is not understood."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", scene)
    read = [next(found for p in EVENT if (found := re.fullmatch(p, each))).groupdict() for each in sentences]
    parts = {key: value for each in read for key, value in each.items() if key not in AGAIN}
    assert "fn" in read[0] and sum(len(each.keys() - AGAIN.keys()) for each in read) == len(parts) == 7, scene
    for each in read:
        assert all(value == parts[AGAIN[key]] for key, value in each.items() if key in AGAIN), scene
    return parts


def found_answer(scene: str, question: str) -> tuple[str, str]:
    """What is wanted and the whole answer, from the words of the scene alone."""
    parts = event(scene)
    asked, (wanted, form) = next(
        (found, ABOUT[pattern]) for pattern in ABOUT if (found := re.fullmatch(pattern, question))
    )
    assert all(parts[key] == value for key, value in asked.groupdict().items()), (scene, question)
    value = parts[wanted]
    words = asked.expand(form).format(value).replace("@", f"{world.PLACES.get(value)} the")
    return value, words.replace("#", "an" if value == "umbrella" else "a")


@pytest.mark.parametrize("found", [LEARNT, ASKED], ids=["train", "test"])
def test_every_question_about_a_find_has_exactly_the_answer_that_the_scene_gives(found: list[Question]) -> None:
    for each in found:
        assert (each.wanted, each.answer) == found_answer(each.scene, each.question), each.prompt
        parts = event(each.scene)
        assert each.triples == (each.about,) == ((parts["fn"], parts["ft"], parts["fp"]),)


def test_every_part_of_a_find_has_others_of_its_sort_beside_it() -> None:
    """Three names, two things, two places in each scene: a question's kind alone never gives the answer away."""
    for each in ASKED:
        parts = event(each.scene)
        for sort in (("fn", "k", "w"), ("ft", "x"), ("fp", "c")):
            assert len({parts[key] for key in sort}) == len(sort), each.scene


def test_sentences_behind_the_first_come_in_any_order() -> None:
    orders = Counter(tuple(re.findall(r"carried|keeps|saw|paid", each.scene)) for each in ASKED)
    assert len(orders) == 24 and max(orders.values()) < 0.1 * len(ASKED)


# And one of holdings.
NAME, THING, PLACE = r"(?P<n>[A-Z]\w+)", r"the (?P<o>\w+)", r"(?:at|in|on) the (?P<p>[\w ]+?)"
SAID = [
    rf"{NAME} took {THING} to the (?P<p>[\w ]+)\.",
    rf"{NAME} went to the (?P<p>[\w ]+) with {THING}\.",
    rf"{NAME} is {PLACE} and has {THING}(?: from (?P<g>\w+))?\.",
    rf"(?:At|In|On) the (?P<p>[\w ]+) sits {NAME} with {THING}\.",
    rf"{NAME} has {THING} and sits {PLACE}\.",
    rf"The (?P<o>\w+) is {PLACE}, and {NAME} has it\.",
    rf"(?P<g>[A-Z]\w+) gave {NAME} {THING} {PLACE}\.",
]
WANTED = {  # question -> (what is known, what is wanted)
    r"Who has the (\w+)\?": ("o", "n"),
    r"What does (\w+) have\?": ("n", "o"),
    r"Where is the (\w+)\?": ("o", "p"),
    r"Where is ([A-Z]\w+)\?": ("n", "p"),
    r"Who is (?:at|in|on) the ([\w ]+)\?": ("p", "n"),
    r"What is (?:at|in|on) the ([\w ]+)\?": ("p", "o"),
}


def understood(scene: str) -> list[dict[str, str]]:
    """The facts of a scene, read from its words alone; the weather is no fact."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", scene)
    return [found.groupdict() for s in sentences for p in SAID if (found := re.fullmatch(p, s)) and found["n"] in NAMES]


def answered(scene: str, question: str) -> set[str]:
    """Every value that answers a question, without article, preposition and full stop."""
    facts = understood(scene)
    if gave := re.fullmatch(r"Who gave (\w+) the (\w+)\?", question):
        return {fact["g"] for fact in facts if (fact["n"], fact["o"]) == gave.groups()}
    key, known, wanted = next(
        (found[1], *ends) for pattern, ends in WANTED.items() if (found := re.fullmatch(pattern, question))
    )
    return {fact[wanted] for fact in facts if fact[known] == key}


# question -> what an answer must look like, {} being the value that is wanted
ANSWERS = {
    r"Who has the (\w+)\?": r"The \1 is with {}.",
    r"What does (\w+) have\?": r"\1 has the {}.",
    r"Where is (the )?(\w+)\?": r"\1\2 is @ {}.",
    r"(?:Who|What) is (\w+) the ([\w ]+)\?": r"\1 the \2 is {}.",
    r"Who gave (\w+) the (\w+)\?": r"\1 has the \2 from {}.",
}


def sentence(question: str, wanted: str) -> str:
    """The answer in words, put together from the question by hand."""
    form = next(re.sub(q, a, question) for q, a in ANSWERS.items() if re.fullmatch(q, question))
    words = form.format(f"the {wanted}" if wanted[0].islower() else wanted)
    words = words.replace("@ the", f"{world.PLACES.get(wanted)} the").replace("has the the", "has the")
    return words[0].upper() + words[1:]


@pytest.mark.parametrize("found", [HOLDINGS_LEARNT, HOLDINGS_ASKED], ids=["train", "test"])
def test_every_question_about_holdings_has_exactly_the_answer_that_the_scene_gives(found: list[Question]) -> None:
    for each in found:
        assert len(understood(each.scene)) == len(each.triples), each.scene
        assert answered(each.scene, each.question) == {each.wanted}, each.prompt
        assert each.answer == sentence(each.question, each.wanted)


def test_the_triple_beside_a_question_is_the_one_that_it_is_about() -> None:
    for each in HOLDINGS_ASKED:
        assert each.about in each.triples
        fact = next(fact for fact in understood(each.scene) if fact["n"] == each.about[0])
        assert (fact["n"], fact["o"], fact["p"]) == each.about
        assert any(value in f"{each.question} {each.answer}" for value in each.about)


def test_training_and_testing_share_no_triple_and_no_scene() -> None:
    learnt = {triple for each in LEARNT + HOLDINGS_LEARNT for triple in each.triples}
    asked = {triple for each in ASKED + HOLDINGS_ASKED for triple in each.triples}
    assert len(learnt) > 1000 and len(asked) > 200
    assert not learnt & asked
    assert not set(asking.triples("train")) & set(asking.triples("test"))
    assert set(asking.triples("train")) | set(asking.triples("test")) == set(asking.triples("all"))
    share = len(asking.triples("test")) / len(asking.triples("all"))
    assert 0.15 < share < 0.25


def test_every_single_value_is_seen_in_training() -> None:
    """What is new in a test is who has what where, not the names, things and places themselves."""
    for part in range(3):
        learnt, asked = ({triple[part] for triple in asking.triples(split)} for split in SPLITS)
        assert asked <= learnt


def test_no_answer_can_be_known_by_heart() -> None:
    for each in world.PEOPLE:
        own = [triple for triple in asking.triples("all") if triple[0] == each.name]
        assert own and all(thing != each.thing for _, thing, _ in own)
        assert not {place for *_, place in own} & {each.home, each.spot, each.shore}


def test_guessing_stays_under_one_half() -> None:
    for learnt, asked in ((LEARNT, ASKED), (HOLDINGS_LEARNT, HOLDINGS_ASKED)):
        assert asking.by_majority(learnt, asked) < 0.25
        assert asking.by_copying_the_last(asked) < 0.5
        for kind in {each.kind for each in asked}:  # nor does it pay for any single kind
            some = [each for each in asked if each.kind == kind]
            assert asking.by_majority(learnt, some) < 0.25 and asking.by_copying_the_last(some) < 0.65, kind


def test_the_guesses_by_hand() -> None:
    """Worked out on paper: of four answers Odo's is the usual one and right twice; the last name is right once."""
    triple = ("Mira", "kettle", "mill")
    scene = "Odo took the kettle to the pier. Mira took the map to the mill."
    four = [
        Question(scene, "", "", wanted, "who has it", triple, (triple,)) for wanted in ("Odo", "Odo", "Mira", "Pim")
    ]
    assert asking.by_majority(four, four) == 0.5
    assert asking.by_copying_the_last(four) == 0.25
    place = Question(scene, "", "", "mill", "where is the thing", triple, (triple,))
    thing = Question(scene, "", "", "map", "what is there", triple, (triple,))
    assert asking.by_copying_the_last([place, thing]) == 1.0


def test_only_the_exact_answer_is_right() -> None:
    one = ASKED[0]
    assert one.right(one.answer) and one.right(f" {one.answer}\n")
    for wrong in ("", one.answer[:-1], one.answer.lower(), f"{one.answer} {one.answer}"):
        assert not one.right(wrong)


def test_families_take_turns_and_can_be_held_out() -> None:
    for learnt, families in ((LEARNT, FINDS), (HOLDINGS_LEARNT, HOLDINGS)):
        counts = Counter(each.kind for each in learnt)
        assert set(counts) == set(families)
        assert min(counts.values()) > len(learnt) / len(families) * 0.75
    kept = set(HOLDINGS) - {"who gave it"}
    found = list(asking.conversations(5, 200, split="train", families=sorted(kept)))
    assert {each["kind"] for each in found} <= kept
    assert not any("Who gave" in message["content"] for each in found for message in each["messages"])


def test_both_sorts_of_scene_can_be_asked_for_at_once() -> None:
    kinds = {each.kind for each in questions(3, 300, families=FAMILIES)}
    assert kinds == set(FAMILIES) == set(OF_FINDS) | set(HOLDINGS) and not set(OF_FINDS) & set(HOLDINGS)
    talks = list(asking.conversations(3, 100, families=["who has it", "who found it"]))
    assert {each["kind"] for each in talks} == {"who has it", "who found it"}
    assert {len(each["messages"]) for each in talks if each["kind"] == "who found it"} == {2}  # no second question left


@pytest.mark.parametrize("families", [FINDS, HOLDINGS], ids=["finds", "holdings"])
def test_conversations_take_turns_and_every_answer_is_right(families: dict[str, tuple[str, str, str]]) -> None:
    found = list(asking.conversations(9, 300, split="train", families=families))
    assert {len(each["messages"]) for each in found} == {8}
    for each in found:
        roles = [message["role"] for message in each["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        first = each["messages"][0]["content"]
        scene = first.rpartition("\n\n")[0]
        texts = [message["content"].rpartition("\n\n")[2] for message in each["messages"]]
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            if families is FINDS:
                assert answer == found_answer(scene, question)[1]
            else:
                (wanted,) = answered(scene, question)
                assert answer == sentence(question, wanted)
        assert len(set(texts[::2])) == len(texts[::2])  # no question twice
    assert {len(each["messages"]) for each in asking.conversations(9, 50, split="test")} == {2}
    assert {len(each["messages"]) for each in asking.conversations(9, 50, turns=2)} == {4}


def test_the_same_seed_gives_the_same_questions_in_any_process_and_from_any_number_on() -> None:
    assert list(islice(questions(4, first=3, split="test"), 5)) == list(questions(4, 8, split="test"))[3:]
    assert list(questions(4, 5)) != list(questions(5, 5))
    code = "from groundup.text import harbor; print(*(q.prompt for q in harbor.questions.questions(4, 20)), sep='\\f')"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.rstrip("\n").split("\f") == [each.prompt for each in harbor.questions.questions(4, 20)]


def test_questions_fit_a_short_context() -> None:
    assert max(len(each.prompt.split()) for each in LEARNT) < 80


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match="no family of questions is called 'who has'"):
        next(questions(1, families=["who has"]))
    with pytest.raises(DataError, match="no family of questions was given"):
        next(questions(1, families=[]))
    with pytest.raises(DataError, match="no questions are kept for 'valid'"):
        next(questions(1, split="valid"))  # type: ignore[arg-type]
