"""What is asked: all of a conversation but its last answer, as long as there is room to answer."""

import pytest

from groundup.errors import DataError
from groundup.rollouts.prompts import Prompt, Prompts, prompts
from groundup.text.conversations import Conversation
from groundup.tokens.rows import prompt_ids


def talk(*words, **more):
    roles = ("user", "assistant")
    return Conversation(tuple({"role": roles[n % 2], "content": each} for n, each in enumerate(words)), **more)


def test_the_last_answer_is_the_reference_and_not_seen(tokenizer, template):
    rows = [talk("who?", "mira", "where?", "here", where="line 1"), talk("why?", where="line 2")]
    found = prompts(rows, tokenizer, template, context=64, response_tokens=8)
    assert [prompt.reference for prompt in found.prompts] == ["here", None]
    assert [prompt.where for prompt in found.prompts] == ["line 1", "line 2"]
    assert tokenizer.decode(found.ids[0]) == "who?|mira<|endoftext|>where?|"
    assert found.ids == [prompt_ids(tokenizer, template, prompt.messages) for prompt in found.prompts]


def test_a_prompt_needs_room_for_an_answer(tokenizer, template):
    """ "a?|" is 3 ids: with 5 more it fills a context of 8, with 6 it does not fit."""
    rows = [talk("a?", "b"), talk("aaaa?", "b")]
    found = prompts(rows, tokenizer, template, context=8, response_tokens=5)
    assert len(found) == 1 and sum(found.dropped.values()) == 1
    assert "outgrow the context of 8" in found.words() and found.words().startswith("1 prompt, 3 tokens")
    with pytest.raises(DataError, match="no prompt is left") as caught:
        prompts(rows, tokenizer, template, context=8, response_tokens=6)
    assert "2 of them" in caught.value.what and "--response-tokens" in caught.value.fix


@pytest.mark.parametrize("rows", [[], [Conversation(({"role": "assistant", "content": "hm"},), "line 3")]])
def test_nothing_asked_is_said(rows, tokenizer, template):
    with pytest.raises(DataError):
        prompts(rows, tokenizer, template, context=64, response_tokens=8)


def test_repeated_and_chosen_keep_prompt_and_ids_together():
    few = Prompts([Prompt((), "a"), Prompt((), "b")], [[5], [6]])
    again = few.chosen([1, 0]).repeated(2)
    assert [prompt.reference for prompt in again.prompts] == ["b", "b", "a", "a"] and again.ids == [[6], [6], [5], [5]]


def test_the_fingerprint_knows_ids_references_and_their_order():
    one, other = Prompt((), "a"), Prompt((), None)
    prints = {
        Prompts([one, other], [[1], [2, 3]]).fingerprint,
        Prompts([other, one], [[1], [2, 3]]).fingerprint,
        Prompts([one, other], [[1, 2], [3]]).fingerprint,
        Prompts([one, one], [[1], [2, 3]]).fingerprint,
    }
    assert len(prints) == 4
