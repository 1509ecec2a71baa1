"""Rung `words`: cutting loses nothing, the library counts and numbers like the book, an unknown word is named."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from groundup.errors import TokenizerError
from groundup.lessons.rung import story
from groundup.tokens.simple import PUNCTUATION, PUNCTUATION_BOOK, Words, split_words

MARKED = st.text(alphabet="ab ,.:;?_!\"()'-\n\t\u2003é")


@pytest.fixture(scope="module", autouse=True)
def data(data_dir: Path):
    """The library finds the story in the folder of sample data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield


@pytest.fixture(scope="module")
def lesson(data, climb) -> dict:
    return climb("words")


@pytest.fixture(scope="module")
def text(data) -> str:
    return story("the-verdict")


def scan(text: str, marks: str) -> list[str]:
    """The words of a text, found character by character, without any pattern."""
    words, place = [""], 0
    while place < len(text):
        double, char = text.startswith("--", place), text[place]
        if double or char in marks:
            words += ["--" if double else char, ""]
        elif char.isspace():
            words.append("")
        else:
            words[-1] += char
        place += 2 if double else 1
    return [word for word in words if word]


def test_the_story_is_read_whole_and_as_utf8(text: str, data_dir: Path) -> None:
    """T01: 20,479 characters, and the bytes of the file again."""
    assert len(text) == 20_479
    assert text.encode("utf-8") == (data_dir / "text" / "the-verdict.txt").read_bytes()


def test_cutting_at_white_space_keeps_the_separators(lesson: dict) -> None:
    """T02: joined, the items are the text; every second one is the separator."""
    cut = lesson["cut"]

    @given(MARKED)
    def holds(text: str) -> None:
        items = cut(text)
        assert "".join(items) == text
        assert all(item.isspace() and len(item) == 1 for item in items[1::2])
        assert not any(char.isspace() for item in items[::2] for char in item)

    holds()


def test_cutting_at_comma_and_period_frees_them(lesson: dict) -> None:
    """T03: no item holds a mark beside anything else, and nothing is lost."""
    cut = lesson["cut"]
    assert cut("a,b .", ",.") == ["a", ",", "b", " ", "", ".", ""]

    @given(MARKED)
    def holds(text: str) -> None:
        items = cut(text, ",.")
        assert "".join(items) == text
        assert all(item in {",", "."} for item in items if "," in item or "." in item)

    holds()


def test_blank_items_are_dropped_and_no_others(lesson: dict) -> None:
    """T04: what is left are the 10 items of the sample, and never a blank."""
    assert lesson["words_of"](lesson["sample"], ",.") == scan(lesson["sample"], ",.")
    assert len(lesson["words_of"](lesson["sample"], ",.")) == 10
    assert lesson["words_of"](" \n , \u2003", ",.") == [","]


@given(MARKED)
@example('Is this--a "test"(no)---b?')
def test_all_marks_and_double_dashes_stand_alone(text: str) -> None:
    """T05: the library cuts as a scan character by character does."""
    assert split_words(text, PUNCTUATION) == scan(text, PUNCTUATION)
    assert split_words(text, PUNCTUATION_BOOK) == scan(text, PUNCTUATION_BOOK)


def test_the_story_has_as_many_words_as_printed(text: str) -> None:
    """T06: 4,649 tokens without : and ; as marks, 4,690 with them, in the library and by the scan."""
    assert len(split_words(text, PUNCTUATION_BOOK)) == len(scan(text, PUNCTUATION_BOOK)) == 4649
    assert len(split_words(text, PUNCTUATION)) == len(scan(text, PUNCTUATION)) == 4690


def test_the_vocabulary_is_sorted_and_numbered_from_zero(text: str) -> None:
    """T07: 1,159 or 1,130 words; id i is the i-th of the sorted set."""
    for punctuation, size in ((PUNCTUATION_BOOK, 1159), (PUNCTUATION, 1130)):
        tokenizer = Words.learn([text], special=[], punctuation=punctuation)
        assert tokenizer.vocabulary == size
        spelled = [tokenizer.decode([id]) for id in range(size)]
        assert spelled == sorted(set(scan(text, punctuation)))


def test_encoding_and_decoding_by_hand_and_by_the_library(lesson: dict) -> None:
    """T08: the same ids and the same text; punctuation joins the word before it, the spacing is lost."""
    by_hand, library = lesson["tokenizer"], lesson["library"]
    ids = library.encode("I had -- (you know), the last!")
    assert ids == by_hand.encode("I had -- (you know), the last!")
    assert library.decode(ids) == by_hand.decode(ids) == "I had --( you know), the last!"


def test_an_unknown_word_is_named(lesson: dict) -> None:
    """T09: by the table's own KeyError, and by the library with the place where it stands."""
    with pytest.raises(KeyError) as caught:
        lesson["tokenizer"].encode("do you like tea? Hello!")
    assert caught.value.args == ("Hello",)
    with pytest.raises(TokenizerError, match="unknown word 'Hello' at character 17"):
        lesson["library"].encode("do you like tea? Hello!")
    with pytest.raises(TokenizerError, match="unknown word 'zebra'"):
        lesson["library"].encode("the zebra")
