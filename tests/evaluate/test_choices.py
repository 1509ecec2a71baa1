"""Likelihoods of continuations: against a loop that predicts one token at a time, by hand, and by lm-eval's rule."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groundup import tokens
from groundup.errors import DataError, ModelError, TokenizerError
from groundup.evaluate import choices
from groundup.evaluate.choices import Chosen, Pair, choose, log_likelihoods, marks, pair, rolling
from groundup.machine import Machine
from groundup.model import BigramConfig, ModelConfig, build
from groundup.text.choices import MultipleChoice

TEXT = "The cat sat on the hat. The hat sat on the cat, and the mat had that. " * 4


def small(family: str = "llama", context: int = 24, **changes) -> nn.Module:
    """A network whose weights are large enough to have opinions."""
    config = ModelConfig(family=family, vocabulary=270, context=context, width=16, layers=2, heads=2, **changes)
    model = build(config, seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.dim() == 2 else None
    return model


@pytest.fixture(scope="module")
def tokenizer() -> tokens.Tokenizer:
    return tokens.train("bpe", [TEXT], vocabulary=270)


def one_by_one(model: nn.Module, one: Pair, context: int) -> tuple[float, bool]:
    """The slow twin: a forward pass for each token, over what is left of the text before it."""
    text, total, greedy = list(one.context), 0.0, True
    whole = len(one.context) + len(one.continuation)
    first = max(0, whole - context - 1)  # ids that do not fit are never seen, by no token
    for id in one.continuation:
        with torch.no_grad():
            logits = model(torch.tensor([text[first:]]))[0, -1].double()
        total += float(logits.log_softmax(-1)[id])
        greedy = greedy and int(logits.argmax()) == id
        text.append(id)
    return total, greedy


def pairs(count: int, *, vocabulary: int = 270, longest: int = 20) -> list[Pair]:
    generator = torch.Generator().manual_seed(count)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))  # noqa: E731
    ids = lambda size: torch.randint(vocabulary, (size,), generator=generator).tolist()  # noqa: E731
    return [Pair(ids(draw(1, longest)), ids(draw(1, 8))) for _ in range(count)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_one_token_at_a_time_gives_the_same(family: str):
    model, asked = small(family), pairs(9)
    for one, found in zip(asked, log_likelihoods(model, asked, batch=4), strict=True):
        total, greedy = one_by_one(model, one, 24)
        assert found.log_p == pytest.approx(total, abs=1e-4) and found.greedy == greedy
        assert found.tokens == len(one.continuation)


def test_order_company_and_padding_change_nothing():
    model, asked = small(), pairs(13)
    alone = [log_likelihoods(model, [one])[0].log_p for one in asked]
    for batch in (1, 2, 5, 64):
        found = log_likelihoods(model, asked, batch=batch)
        assert [one.log_p for one in found] == pytest.approx(alone, abs=1e-5)
    backwards = log_likelihoods(model, asked[::-1], batch=4)
    assert [one.log_p for one in backwards[::-1]] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("size", [1, 2, 15, 23])
def test_what_stands_behind_one_context_is_the_same_as_alone(family: str, size: int):
    """Contexts read once for all: short and long ones, continuations that begin alike, some too long to fit."""
    model, context = small(family), list(range(40, 40 + size))
    endings = [[7], [7, 8], [7, 8, 9, 10], [11] * 9, [7, 8]]
    asked = [Pair(context, ending) for ending in endings] + pairs(3)
    found = log_likelihoods(model, asked, batch=4)
    for one, score in zip(asked, found, strict=True):
        assert score.log_p == pytest.approx(one_by_one(model, one, 24)[0], abs=1e-4)
        assert score.log_p == pytest.approx(log_likelihoods(model, [one])[0].log_p, abs=1e-5)


def test_a_context_that_several_stand_behind_is_read_once(monkeypatch: pytest.MonkeyPatch):
    model, seen = small(), []
    model.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    log_likelihoods(model, [Pair([1, 2, 3, 4, 5], [6, 7]), Pair([1, 2, 3, 4, 5], [8, 9, 10])])
    assert seen == [(1, 4), (2, 3)]


def test_what_greedy_writing_writes_is_called_greedy():
    model, context = small(), [5, 6, 7]
    text = list(context)
    for _ in range(4):
        text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    written = text[3:]
    other = [*written[:2], (written[2] + 1) % 270, written[3]]
    found = log_likelihoods(model, [Pair(context, written), Pair(context, other), Pair(context, written[:1])])
    assert [one.greedy for one in found] == [True, False, True]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_does_not_fit_loses_its_beginning(family: str):
    """20 ids before 8 with a context of 24: all 27 inputs do not fit, the first 3 go."""
    model = small(family)
    [long] = [Pair(list(range(20)), list(range(30, 38)))]
    [found] = log_likelihoods(model, [long])
    assert found.cut == 3
    assert found.log_p == pytest.approx(one_by_one(model, Pair(long.context[3:], long.continuation), 24)[0], abs=1e-4)
    [fits] = log_likelihoods(model, [Pair(long.context[3:], long.continuation)])
    assert fits.cut == 0 and fits.log_p == pytest.approx(found.log_p, abs=1e-5)
    [longest] = log_likelihoods(model, [Pair(list(range(20)), list(range(24)))])
    assert longest.cut == 19 and longest.tokens == 24


def test_a_continuation_that_never_fits_is_refused():
    with pytest.raises(DataError, match="choice 2 of line 7 has 25 tokens, more than the model's context of 24"):
        log_likelihoods(small(), [Pair([1], [2] * 25, where="choice 2 of line 7")])
    with pytest.raises(DataError, match="has no token, or none before it"):
        log_likelihoods(small(), [Pair([], [2])])


def test_a_bigram_by_hand():
    """p(b | a) = 3/4 and p(a | b) = 1/2: a b a behind a costs ln 4/3 + ln 2."""
    model = build(BigramConfig(vocabulary=2, context=8))
    model.table.weight.data = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    [found] = log_likelihoods(model, [Pair([0], [1, 0])])
    assert found.log_p == pytest.approx(math.log(0.75 * 0.5), rel=1e-6) and found.greedy


def test_large_vocabularies_go_through_in_slices(monkeypatch: pytest.MonkeyPatch):
    model, asked = small(), pairs(9)
    whole = log_likelihoods(model, asked)
    monkeypatch.setattr(choices, "LOGITS", 270 * 2)
    assert [one.log_p for one in log_likelihoods(model, asked)] == pytest.approx([one.log_p for one in whole], abs=1e-5)


def test_a_model_is_put_back_and_does_not_drop():
    model, asked = small(dropout_embedding=0.5).train(), pairs(4)
    first = log_likelihoods(model, asked)
    assert model.training and first == log_likelihoods(model, asked)


def test_numbers_that_are_not_finite_are_told():
    model = small()
    model.token_table.weight.data[7] = math.nan
    with pytest.raises(ModelError, match="NaN or infinite"):
        log_likelihoods(model, [Pair([7], [2])])


def test_bf16_is_near_and_not_the_same():
    model, asked = build(small().config, seed=3), pairs(6)
    exact = [one.log_p for one in log_likelihoods(model, asked)]
    rough = log_likelihoods(model, asked, machine=Machine(torch.device("cpu"), torch.bfloat16, 1))
    assert [one.log_p for one in rough] == pytest.approx(exact, rel=1e-2) and [one.log_p for one in rough] != exact


# text -> ids


def test_both_are_encoded_together(tokenizer: tokens.Tokenizer):
    found = pair(tokenizer, "The cat", " sat on the hat")
    assert found.context == tokenizer.encode("The cat") and not found.straddles
    assert found.context + found.continuation == tokenizer.encode("The cat sat on the hat")


CUTS = [("The cat ", "sat"), ("The cat \n", "sat"), ("The cat", "  sat")]


@pytest.mark.parametrize(("context", "continuation"), CUTS)
def test_white_space_at_the_end_belongs_to_what_follows(tokenizer, context: str, continuation: str):
    found = pair(tokenizer, context, continuation)
    assert found.context == tokenizer.encode("The cat")
    assert tokenizer.decode(found.continuation) == (context + continuation)[len("The cat") :]


def test_a_token_across_the_boundary_counts_to_the_continuation(tokenizer: tokens.Tokenizer):
    """ " the" is one token here: divided as " t" and "he", it is scored whole, behind what comes before it."""
    [the] = tokenizer.encode(" the")
    found = pair(tokenizer, "on t", "he hat")
    assert found.straddles and found.context == tokenizer.encode("on") and found.continuation[0] == the
    assert not pair(tokenizer, "on", " the hat").straddles


def test_a_token_across_the_boundary_at_the_very_beginning(tokenizer: tokens.Tokenizer):
    found = pair(tokenizer, " t", "he cat")
    assert found.straddles and found.context == [tokenizer.end_of_text]
    assert found.continuation == tokenizer.encode(" the cat")


@pytest.mark.parametrize("context", ["", "  ", "\n"])
def test_an_empty_context_is_the_beginning_of_a_text(tokenizer, context: str):
    found = pair(tokenizer, context, "The cat")
    assert found.context == [tokenizer.end_of_text] and tokenizer.decode(found.continuation) == f"{context}The cat"


def test_what_begins_every_text_stands_before_the_context(tokenizer: tokens.Tokenizer):
    from dataclasses import replace

    with_bos = tokenizer.with_special(["<s>"])
    with_bos = with_bos.with_manner(replace(with_bos.manner, adds_bos=True, names={"bos": "<s>"}))
    assert with_bos.start == [with_bos.special["<s>"]]
    found = pair(with_bos, "The cat", " sat")
    assert found.context == [*with_bos.start, *tokenizer.encode("The cat")]
    assert pair(with_bos, "", "The").context == with_bos.start
    assert pair(with_bos, "<s>The cat", " sat", special=True) == found, "written in the text, it is not put there again"


def test_special_tokens_in_a_text_are_text_unless_asked_for(tokenizer: tokens.Tokenizer):
    end = tokenizer.end_of_text
    assert end not in pair(tokenizer, "The cat<|endoftext|>", " sat").context
    assert pair(tokenizer, "The cat<|endoftext|>", " sat", special=True).context[-1] == end


def test_texts_that_cannot_be_scored(tokenizer: tokens.Tokenizer):
    with pytest.raises(DataError, match="choice 3 is empty"):
        pair(tokenizer, "a", "", where="choice 3")
    with pytest.raises(TokenizerError):
        pair(tokens.train("chars", ["abc"]), "a", "x")


@given(st.text("Thecatson ., \n", min_size=1, max_size=30), st.text("Thecatson ., \n", min_size=1, max_size=12))
def test_nothing_is_lost_at_the_boundary(context: str, continuation: str):
    tokenizer = TOKENIZER
    found = pair(tokenizer, context, continuation)
    before = [] if found.context == [tokenizer.end_of_text] else found.context
    assert tokenizer.decode([*before, *found.continuation]) == context + continuation
    assert found.continuation


TOKENIZER = tokens.train("bpe", [TEXT], vocabulary=270)


# choosing


def test_three_ways_to_choose_by_hand(tokenizer: tokens.Tokenizer, monkeypatch: pytest.MonkeyPatch):
    """log p of -6, -8, -9 over 3, 8, 5 characters, the third with 10 bytes: -2, -1, -1.8 and -2, -1, -0.9."""
    scores = [choices.Likelihood(log_p, False, 1) for log_p in (-6.0, -8.0, -9.0)]
    monkeypatch.setattr(choices, "log_likelihoods", lambda *args, **more: scores)
    item = MultipleChoice("c", ("abc", "abcdefgh", "äöüßé"), 1, "line 1")
    [found] = choose(small(), tokenizer, [item])
    assert (found.choice, found.by_character, found.by_byte) == (0, 1, 2)
    assert found.log_p == (-6.0, -8.0, -9.0)


def test_choices_stand_behind_a_space_that_has_no_length(tokenizer: tokens.Tokenizer, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(
        choices, "pair", lambda tokenizer, context, continuation, where: asked.append((context, continuation, where))
    )
    monkeypatch.setattr(choices, "log_likelihoods", lambda *args, **more: [])
    monkeypatch.setattr(choices, "_chosen", lambda *args: None)
    choose(small(), tokenizer, [MultipleChoice("The cat", ("sat", " had"), 0, "line 4")])
    assert asked == [("The cat", " sat", "choice 0 in line 4"), ("The cat", "  had", "choice 1 in line 4")]


def test_items_of_different_sizes_keep_their_scores(tokenizer: tokens.Tokenizer):
    model = small(context=48)
    items = [
        MultipleChoice("The cat", ("sat", "had that"), 0, "1"),
        MultipleChoice("The hat sat on", ("the cat", "the mat", "that"), 2, "2"),
        MultipleChoice("and", ("the mat had that", "x"), 1, "3"),
    ]
    found = choose(model, tokenizer, items, batch=3)
    for item, one in zip(items, found, strict=True):
        slow = [one_by_one(model, pair(tokenizer, item.context, f" {choice}"), 48)[0] for choice in item.choices]
        assert one.log_p == pytest.approx(slow, abs=1e-4)
        assert one.choice == max(range(len(slow)), key=slow.__getitem__) and one.right == item.right


def test_a_model_without_a_clue_takes_the_first_of_equals(tokenizer: tokens.Tokenizer):
    model = build(BigramConfig(vocabulary=270, context=48))
    model.table.weight.data.zero_()
    [found] = choose(model, tokenizer, [MultipleChoice("The", ("cat", "hat"), 1, "1")])
    assert found.log_p[0] == found.log_p[1] and found.choice == 0


def test_marks_by_hand():
    rows = [
        Chosen("1", 0, (-1.0, -2.0), 0, 1, 1),
        Chosen("2", 1, (-1.0, -2.0), 0, 1, 1, cut=2),
        Chosen("3", 2, (-1.0, -2.0, -3.0, -4.0), 2, 2, 0, straddles=1),
        Chosen("4", 0, (-1.0, -2.0, -3.0, -4.0), 0, 3, 0),
    ]
    found = marks(rows)
    assert (found.items, found.acc, found.acc_norm, found.acc_bytes) == (4, 0.75, 0.5, 0.5)
    assert found.acc_error == pytest.approx(math.sqrt(0.75 * 0.25 / 3)) and found.chance == 0.375
    assert (found.cut, found.straddled) == (1, 1)
    assert "acc_norm 0.500" in found.words() and found.record()["acc"] == 0.75
    assert math.isnan(marks(rows[:1]).acc_error)
    with pytest.raises(DataError, match="0 items"):
        marks([])


# whole texts


@pytest.mark.parametrize("length", [1, 23, 24, 25, 49, 70])
def test_a_whole_text_is_predicted_once(length: int):
    letters = tokens.train("chars", ["abcdefghij"])
    text = ("abcdefghij" * 7)[:length]
    parts = rolling(letters, text, 24)
    assert [id for one in parts for id in one.continuation] == letters.encode(text)
    assert all(len(one.context) + len(one.continuation) <= 25 for one in parts)
    if length > 24:
        assert all(len(one.context) + len(one.continuation) == 25 for one in parts), "each has a whole context"


def test_a_text_in_windows_by_hand():
    """As lm-eval's manual has it: ids 0 to 9 in a context of 4."""
    letters = tokens.train("chars", ["abcdefghij"])
    end = letters.end_of_text
    found = [(one.context, one.continuation) for one in rolling(letters, "abcdefghij", 4)]
    assert found == [([end], [0, 1, 2, 3]), ([3], [4, 5, 6, 7]), ([5, 6, 7], [8, 9])]
