"""Text as it streams: whole characters, no stop string and no beginning of one, and a start for an empty prompt."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup import tokens
from groundup.errors import SettingsError, TokenizerError
from groundup.generate.sample import Sampler
from groundup.generate.stream import Gate, generate_text, rows_at_once, start_ids, write
from groundup.model import BigramConfig, ModelConfig, build
from groundup.model.bigram import Bigram
from groundup.tokens import Tokenizer

GREEDY = Sampler(temperature=0)


def reciter(ids: list[int], vocabulary: int, context: int = 16) -> Bigram:
    """A real bigram that says `ids` by heart (each at most once) from the first on, then begins again."""
    model = build(BigramConfig(vocabulary=vocabulary, context=context))
    model.table.weight.data.zero_()
    for present, following in zip(ids, [*ids[1:], ids[0]], strict=True):
        model.table.weight.data[present, following] = 20.0
    return model


def characters(text: str, special: list[str] | None = None) -> Tokenizer:
    return tokens.train("chars", [text], special=special or [])


def abc(special: list[str] | None = None) -> tuple[Bigram, Tokenizer]:
    tokenizer = characters("abcdefgh", special)
    return reciter(list(range(tokenizer.vocabulary)), tokenizer.vocabulary), tokenizer


def told(model: torch.nn.Module, tokenizer: Tokenizer, prompts: list[str], **settings) -> list[tuple[str, str]]:
    """(text, finish) of each prompt."""
    texts, ends = [""] * len(prompts), [""] * len(prompts)
    for delta in write(model, tokenizer, prompts, sampler=GREEDY, **settings):
        assert not ends[delta.row], "a delta came after the last one"
        texts[delta.row] += delta.text
        ends[delta.row] = delta.finish or ""
    return list(zip(texts, ends, strict=True))


def test_it_continues_the_prompt_and_counts_tokens():
    model, tokenizer = abc()
    assert told(model, tokenizer, ["ab", "e"], max_tokens=4) == [("cdef", "length"), ("fgha", "length")]
    assert len(list(write(model, tokenizer, ["ab", "e"], sampler=GREEDY, max_tokens=4))) == 8  # one delta a token


def test_it_goes_on_beyond_the_context_and_says_so():
    model, tokenizer = abc()
    deltas = list(write(model, tokenizer, ["a"], sampler=GREEDY, max_tokens=20))
    assert "".join(delta.text for delta in deltas) == ("abcdefgh" * 3)[1:21]
    assert [delta.past_context for delta in deltas] == [False] * 16 + [True] * 4


@pytest.mark.parametrize(
    ("stop", "text", "finish"),
    [
        (["ef"], "bcd", "stop"),
        (["zz", "defg", "h"], "bc", "stop"),
        (["cdx"], "bcdefg", "length"),  # held back as far as "cd", then let go
        (["ghx"], "bcdefg", "length"),  # held back at the very end
        (["b"], "", "stop"),
        (["ab"], "bcdefg", "length"),  # the prompt is no part of the text
    ],
)
def test_stop_strings_straddle_tokens(stop: list[str], text: str, finish: str):
    model, tokenizer = abc()
    assert told(model, tokenizer, ["a"], max_tokens=6, stop=stop) == [(text, finish)]


def test_end_of_text_ends_the_row_and_is_no_text():
    model, tokenizer = abc(["<|endoftext|>"])
    assert told(model, tokenizer, ["f", "a"], max_tokens=4) == [("gh", "end"), ("bcde", "length")]


def test_an_empty_prompt_starts_a_new_document():
    """From <|bos|> the reciter says <|endoftext|> next, from <|endoftext|> the first letter."""
    model, tokenizer = abc(["<|endoftext|>"])
    assert told(model, tokenizer, [""], max_tokens=3) == [("abc", "length")]
    model, tokenizer = abc(["<|bos|>", "<|endoftext|>"])
    assert start_ids(tokenizer) == [8]
    assert told(model, tokenizer, [""], max_tokens=3) == [("", "end")]


def test_without_special_tokens_it_starts_on_a_new_line_or_asks():
    assert start_ids(characters("a\nb")) == [0]
    with pytest.raises(TokenizerError, match="an empty prompt has nothing to start from.*\n.*give a prompt"):
        start_ids(characters("ab"))
    with pytest.raises(TokenizerError, match="an empty prompt"):
        start_ids(tokens.train("words-strict", ["a b"], special=[]))


def test_special_tokens_do_not_enter_through_the_prompt():
    model, tokenizer = abc(["<|endoftext|>"])
    with pytest.raises(TokenizerError, match="<"):  # its first character is unknown to these letters
        told(model, tokenizer, ["<|endoftext|>"])


def test_bytes_become_text_only_as_whole_characters():
    tokenizer = tokens.train("bpe", ["x"], vocabulary=257)
    text = "aé€𐍈z"
    model = reciter(tokenizer.encode(text), tokenizer.vocabulary)
    deltas = list(write(model, tokenizer, ["a"], sampler=GREEDY, max_tokens=10))
    assert [delta.text for delta in deltas] == ["", "é", "", "", "€", "", "", "", "𐍈", "z"]
    cut = list(write(model, tokenizer, ["a"], sampler=GREEDY, max_tokens=4))
    assert "".join(delta.text for delta in cut) == "é\ufffd"  # two of three bytes of the euro sign


def test_words_keep_their_space_behind_the_prompt():
    tokenizer = tokens.train("words", ["be not or to"])
    ids = tokenizer.encode("to be or not")
    model = reciter(ids, tokenizer.vocabulary)
    assert told(model, tokenizer, ["to"], max_tokens=3) == [(" be or not", "length")]
    assert "to" + generate_text(model, tokenizer, "to", max_tokens=3, temperature=0) == tokenizer.decode(ids)


def test_ids_beyond_the_tokenizer_have_no_text():
    tokenizer = characters("ab")
    assert told(reciter([0, 5, 1], 6), tokenizer, ["a"], max_tokens=2) == [("b", "length")]


def test_order_and_batches_do_not_change_a_text(monkeypatch: pytest.MonkeyPatch):
    tokenizer = characters("abcdefgh", ["<|endoftext|>"])
    config = ModelConfig(family="llama", vocabulary=9, context=10, width=16, layers=1, heads=2, init="torch", tie=False)
    model, sampler = build(config, seed=3), Sampler(temperature=1.5, seed=8)
    prompts = ["abc", "h", "abcdefgh", "h", "ba", "abc"]

    def texts(prompts: list[str]) -> list[str]:
        found = [""] * len(prompts)
        for delta in write(model, tokenizer, prompts, sampler=sampler, max_tokens=12):
            found[delta.row] += delta.text
        return found

    whole = texts(prompts)
    assert [texts([prompt])[0] for prompt in prompts[:3]] == whole[:3]
    assert whole[1] != whole[3]  # the second "h" is another sample of it
    assert generate_text(model, tokenizer, "abc", max_tokens=12, temperature=1.5, seed=8) == whole[0]
    assert texts(["h", "abc", "h"]) == [whole[1], whole[0], whole[3]]
    monkeypatch.setattr("groundup.generate.stream.CACHE_BYTES", 1)
    assert rows_at_once(model, 20) == 1
    assert texts(prompts) == whole


def test_rows_share_one_gibibyte_of_cache():
    """GPT-2 keeps 2 x 12 layers x 768 numbers a token; in fp32 at 1,024 tokens 72 MiB a row: 14 rows."""
    from groundup.model.config import from_name

    with torch.device("meta"):
        model = build(from_name("gpt2"))
    assert rows_at_once(model, 5000) == 14
    assert rows_at_once(model, 512) == 28


def test_an_empty_stop_string_is_refused_before_anything_is_written():
    model, tokenizer = abc()
    with pytest.raises(SettingsError, match="stop string is empty"):
        next(write(model, tokenizer, ["a"], stop=["x", ""]))


letters = st.text("ab", max_size=14)


@given(letters, st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_the_gate_does_not_see_how_a_text_is_cut(text: str, stops: list[str], data: st.DataObject):
    """Slow twin: read letter by letter, stop at the first letter that completes a stop string."""
    expected, shut = text, False
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            expected, shut = text[: end - max(map(len, complete))], True
            break
    gate, shown, start = Gate(stops), "", 0
    while start < len(text):
        size = data.draw(st.integers(1, len(text) - start))
        shown += gate.push(text[start : start + size])
        assert expected.startswith(shown)
        start += size
    assert shown + gate.close() == expected and gate.shut is shut


@pytest.mark.parametrize(
    ("stops", "shown"),
    [
        (["c", "ab"], ""),  # "ab" is complete before "c"
        (["abcd", "bc"], "a"),  # "bc" is complete before "abcd", though it begins later
        (["cd", "bcd"], "a"),  # together: the one that began earlier
    ],
)
def test_the_first_stop_string_to_be_complete_counts(stops: list[str], shown: str):
    at_once, by_letter = Gate(stops), Gate(stops)
    assert at_once.push("abcd") == shown
    assert "".join(by_letter.push(letter) for letter in "abcd") == shown


def test_the_gate_holds_no_more_than_it_must():
    gate = Gate(["stop", "top hat"])
    assert [gate.push(piece) for piece in ["a s", "to", "p"]] == ["a ", "", ""]
    assert gate.shut
    gate = Gate(["stop"])
    assert gate.push("no st") == "no " and gate.push("ar") == "star"
