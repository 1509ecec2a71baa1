"""Records of preference by hand and by the library: which side is better, where the prompt ends, what is learnt."""

import json

import pytest

from groundup.text import preferences


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("preferences")


def test_preferred_counts_from_one(lesson, tmp_path):
    """R01: 1 is the first response and 2 the second, by hand and by the library; anything else is refused."""
    record = {"prompt": "Which?", "response_1": "this", "response_2": "that"}
    for preferred, expected in ((1, ("this", "that")), (2, ("that", "this"))):
        file = tmp_path / f"{preferred}.jsonl"
        file.write_text(json.dumps(record | {"preferred": preferred}), encoding="utf-8")
        [row] = preferences.read(file)
        assert (row.chosen, row.rejected) == expected == lesson["sides"](record | {"preferred": preferred})
    assert (lesson["pair"].chosen, lesson["pair"].rejected) == (lesson["chosen"], lesson["rejected"])


def test_a_transcript_is_cut_at_its_last_answer(lesson):
    """R01: HH-RLHF by hand; conversations that part earlier have no pair in them."""
    head = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
    assert lesson["apart"]({"chosen": f"{head} See you", "rejected": f"{head} Go"}) == (head, "See you", "Go")
    assert lesson["apart"]({"chosen": f"{head} a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}) is None
    assert len(lesson["transcripts"]) == 2312 and len(lesson["both"]) > 2000


def test_only_answers_are_learnt(lesson):
    """R01: both rows share their prompt, and end with the token that ends an answer; four pairs are eight rows."""
    chosen, rejected = lesson["learnt"]
    pair = lesson["rows"]["the book's"][lesson["gathered"].places[0]]
    assert "".join(chosen) == f"{pair.chosen}<|endoftext|>" and "".join(rejected) == f"{pair.rejected}<|endoftext|>"
    assert tuple(lesson["batch"].tokens.shape)[0] == 8 and lesson["batch"].count == 4


def test_length_bias_is_counted(lesson):
    """R01: by hand from the rows; the harbor's pairs are made so that length tells nothing."""
    rows = lesson["rows"]["the book's"]
    longer = sum((len(row.chosen) > len(row.rejected)) + 0.5 * (len(row.chosen) == len(row.rejected)) for row in rows)
    assert lesson["shares"]["the book's"] == pytest.approx(longer / len(rows))
    assert 0.4 < lesson["shares"]["harbor"] < 0.6
