"""Passages in common: against a search by brute force, and on a text a person can read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup import tokens
from groundup.report.verbatim import common_runs, passages

TEXT = (
    "We are accounted poor citizens, the patricians good. What authority surfeits on would relieve us: if they would "
    "yield us but the superfluity, while it were wholesome, we might guess they relieved us humanely."
)


def slow_runs(sample: list[int], text: list[int], size: int) -> list[tuple[int, int]]:
    """Every pair of places, extended as far as it goes, unless it is the inside of a longer one."""
    found = []
    for start in range(len(sample)):
        for place in range(len(text)):
            if start and place and sample[start - 1] == text[place - 1]:
                continue
            length = 0
            while sample[start + length : start + length + 1] == text[place + length : place + length + 1] != []:
                length += 1
            found += [(start, length)] if length >= size else []
    return sorted(found)


ids = st.lists(st.integers(0, 2), max_size=40)


@given(ids, ids, st.sampled_from([1, 2, 4, 8]))
def test_runs_in_common_are_those_of_brute_force(sample: list[int], text: list[int], size: int):
    fast = common_runs(np.array(sample, dtype=np.uint32), np.array(text, dtype=np.uint16), size)
    assert fast == slow_runs(sample, text, size)


@pytest.fixture(params=["chars", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> tokens.Tokenizer:
    return tokens.train(
        request.param, [TEXT + "\nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"], vocabulary=300
    )


def found(sample: str, text: str, tokenizer: tokens.Tokenizer) -> list[str]:
    one, two = (np.array(tokenizer.encode(part), dtype=np.uint32) for part in (sample, text))
    return [passage.text for passage in passages(one, two, tokenizer)]


def test_a_passage_is_found_whole_words_only(tokenizer: tokens.Tokenizer):
    sample = "I say, What authority surfeits on would relieve us: if they wish to eat"
    # "wo" and "wi" share their w, which is no word
    assert found(sample, TEXT, tokenizer) == ["What authority surfeits on would relieve us: if they"]


def test_a_short_phrase_is_language_not_memory(tokenizer: tokens.Tokenizer):
    assert found("We are accounted poor men, What authority is this, we might guess", TEXT, tokenizer) == []


def test_what_the_text_repeats_often_is_no_secret(tokenizer: tokens.Tokenizer):
    phrase = "What authority surfeits on would relieve us"
    assert found(phrase, f"{TEXT}\n{TEXT}\n{TEXT}", tokenizer) == [phrase]
    assert found(phrase, "\n".join([TEXT] * 4), tokenizer) == []


def test_two_passages_the_longer_first(tokenizer: tokens.Tokenizer):
    first, second = "We are accounted poor citizens, the patricians good.", TEXT[-90:].split(" ", 1)[1]
    assert found(f"{first} Go, {second}", TEXT, tokenizer) == [second, first]
