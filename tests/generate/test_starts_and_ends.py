"""A text begins with what its tokenizer puts before texts, and ends at any of the ids that end one."""

import pytest
import torch

from groundup import tokens
from groundup.generate import generate, write
from groundup.generate.sample import Sampler
from groundup.model import BigramConfig, build
from groundup.model.bigram import Bigram
from groundup.tokens import Tokenizer
from groundup.tokens.manner import Manner

GREEDY = Sampler(temperature=0)


def chain(*ids: int, vocabulary: int = 12) -> Bigram:
    """A bigram that says these ids one after the other."""
    model = build(BigramConfig(vocabulary=vocabulary, context=16))
    model.table.weight.data.zero_()
    for present, following in zip(ids, ids[1:], strict=False):
        model.table.weight.data[present, following] = 20.0
    return model


def letters(**manner) -> Tokenizer:
    """a to h are ids 0 to 7; <s> is 8, </s> 9, <|endoftext|> 10, <|im_end|> 11."""
    tokenizer = tokens.train("chars", ["abcdefgh"], special=["<s>", "</s>", "<|endoftext|>", "<|im_end|>"])
    return tokenizer.with_manner(Manner(**manner))


def said(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str) -> tuple[str, str | None]:
    deltas = list(write(model, tokenizer, [prompt], sampler=GREEDY, max_tokens=8))
    return "".join(delta.text for delta in deltas), deltas[-1].finish


@pytest.mark.parametrize("end", [9, 10, 11])
def test_any_of_the_ends_ends(end):
    assert said(chain(0, 1, 2, end, 3), letters(ends=(11,)), "a") == ("bc", "end")


def test_a_token_that_ends_nothing_is_gone_past():
    text, finish = said(chain(0, 1, 11, 3, 4, 5, 6, 7, 0), letters(), "a")
    assert finish == "length" and text.startswith("b") and "d" in text


@pytest.mark.parametrize(("adds", "begin"), [(True, [8, 0]), (False, [0])])
def test_a_prompt_begins_with_what_the_tokenizer_puts_before_texts(adds, begin, monkeypatch):
    seen = []
    model = chain(0, 1, 9)
    forward = model.forward

    def watched(ids, **rest):
        seen.extend(ids[0].tolist())
        return forward(ids, **rest)

    monkeypatch.setattr(model, "forward", watched)
    assert said(model, letters(adds_bos=adds), "a") == ("b", "end")
    assert seen[: len(begin)] == begin
    assert said(model, letters(adds_bos=adds), "a")[0] == "b"


def test_one_end_or_several_or_none():
    model = chain(0, 1, 2, 3, 4)
    for end, length in ((2, 2), ({3, 2}, 2), ([3], 3), ((), 4), (None, 4)):
        assert len(list(generate(model, [[0]], max_tokens=4, sampler=GREEDY, end=end))) == length
