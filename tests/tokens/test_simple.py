"""Characters and words against the figures that the documents print (ids of figures in brackets)."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup import tokens
from groundup.errors import TokenizerError
from groundup.tokens.simple import PUNCTUATION_BOOK, Characters, Words, split_words

GISBURN = '"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
TWO_SENTENCES = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."


@pytest.fixture(scope="module")
def shakespeare(data_dir: Path) -> str:
    return (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")


# characters


def test_the_65_characters_of_shakespeare(shakespeare: str) -> None:
    tokenizer = tokens.train("chars", [shakespeare], special=[])
    assert len(shakespeare) == 1_115_394  # [kar.length]
    assert tokenizer.vocabulary == 65  # [kar.vocab]
    chars = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # [kar.chars]
    assert tokenizer.decode(range(65)) == chars
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]  # [kar.encode]
    assert tokenizer.decode([46, 47, 47, 1, 58, 46, 43, 56, 43]) == "hii there"
    assert tokenizer.encode("\n !xyz") == [0, 1, 2, 62, 63, 64]  # [kar.stoi]
    ids = tokenizer.encode_array(shakespeare)
    assert ids.shape == (1_115_394,)  # [kar.tensor]
    assert len(ids[: int(0.9 * len(ids))]) == 1_003_854  # [kar.split]
    assert tokenizer.decode(ids) == shakespeare


@given(st.text(min_size=1))
def test_characters_of_all_planes_come_back(text: str) -> None:
    tokenizer = Characters.learn([text], special=["<|endoftext|>"])
    ids = tokenizer.encode(text)
    assert ids == [sorted(set(text)).index(char) for char in text] == tokenizer.encode_array(text).tolist()
    assert tokenizer.decode(ids) == text


def test_unknown_character_is_named_with_its_place() -> None:
    tokenizer = tokens.train("chars", ["abc"])
    with pytest.raises(TokenizerError, match=r"unknown character 'ß' \(U\+00DF\) at character 2"):
        tokenizer.encode("ab" + "ß")
    with pytest.raises(TokenizerError, match="at character 1,001"):
        tokenizer.encode_array("a" * 1001 + "\U0010ffff")
    with pytest.raises(TokenizerError, match="at character 14"):
        tokenizer.encode("a<|endoftext|>ß", special=True)


def test_unknown_character_has_an_id_where_the_vocabulary_has_one() -> None:
    tokenizer = tokens.train("chars", ["abc"], special=["<|unk|>"])
    assert tokenizer.encode("aßb\U0010ffff") == [0, 3, 1, 3]
    assert tokenizer.encode_array("aßb").tolist() == [0, 3, 1]


def test_a_special_token_cannot_be_an_ordinary_character() -> None:
    with pytest.raises(TokenizerError, match="'\\\\n', already an ordinary token"):
        tokens.train("chars", ["a\n"], special=["\n"])


# words


@pytest.mark.parametrize(
    ("text", "punctuation", "expected"),
    [
        (
            "Hello, world. This, is a test.",
            ",.",
            "Hello , world . This , is a test .",
        ),  # [book.2.2.strip, zh.2.2.strip]
        ("Hello, world. Is this-- a test?", ",.;?_!\"()'", "Hello , world . Is this -- a test ?"),  # [book.2.2.dashes]
        ("Hello, world. Is this-- a test?", ",.:;?_!\"()'", "Hello , world . Is this -- a test ?"),  # [zh.2.2.dashes]
        ("Hello, world. Is this a test?", ",.!?", "Hello , world . Is this a test ?"),  # [notes.2.2.split]
        ("a-b ---c]^\\d", "]^-\\", "a - b - - - c ] ^ \\ d"),  # characters with a meaning inside [...]
        ("a,b -- c\x1cd", "", "a,b -- c d"),
    ],
)
def test_splitting_words(text: str, punctuation: str, expected: str) -> None:
    assert split_words(text, punctuation) == expected.split()


def test_the_words_of_the_story_without_colons(verdict: str) -> None:
    words = split_words(verdict, PUNCTUATION_BOOK)
    assert len(words) == 4649  # [book.2.2.token_count]
    first = (
        "I HAD always thought Jack Gisburn rather a cheap genius -- though a good fellow enough -- so it was no great"
    )
    assert words[:30] == f"{first} surprise to me to hear that , in".split()  # [book.2.2.first30]
    tokenizer = tokens.train("words-strict", [verdict], special=[], punctuation=PUNCTUATION_BOOK)
    assert tokenizer.vocabulary == 1159  # [book.2.3.vocab_size]
    assert tokenizer.pieces([0]) + tokenizer.pieces([1]) + tokenizer.pieces([2]) == [b"!", b'"', b"'"]
    assert tokenizer.pieces([49]) + tokenizer.pieces([50]) == [b"Has", b"He"]  # [book.2.3.vocab_entries]


def test_the_books_first_word_tokenizer(verdict: str) -> None:
    tokenizer = tokens.train("words-strict", [verdict], special=[], punctuation=PUNCTUATION_BOOK)
    ids = [1, 58, 2, 872, 1013, 615, 541, 763, 5, 1155, 608, 5, 1, 69, 7, 39, 873, 1136, 773, 812, 7]
    assert tokenizer.encode(GISBURN) == ids  # [book.2.3.encode]
    text = '" It\' s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
    assert tokenizer.decode(ids) == text  # [book.2.3.decode: what the listing gives]
    with pytest.raises(TokenizerError, match="unknown word 'Hello' at character 0"):  # [book.2.3.keyerror]
        tokenizer.encode("Hello, do you like tea?")
    with pytest.raises(TokenizerError, match="unknown word 'palace' at character 5"):
        tokenizer.encode("the  palace")


def test_the_books_second_word_tokenizer(verdict: str) -> None:
    tokenizer = tokens.train("words", [verdict], punctuation=PUNCTUATION_BOOK)
    assert tokenizer.vocabulary == 1161  # [book.2.4.vocab_size]
    assert tokenizer.decode([1156, 1157, 1158]) == "younger your yourself"  # [book.2.4.last5]
    assert tokenizer.special == {"<|endoftext|>": 1159, "<|unk|>": 1160}
    ids = [1160, 5, 362, 1155, 642, 1000, 10, 1159, 57, 1013, 981, 1009, 738, 1013, 1160, 7]
    assert tokenizer.encode(TWO_SENTENCES, special=True) == ids  # [book.2.4.encode_unk]
    text = "<|unk|>, do you like tea? <|endoftext|> In the sunlit terraces of the <|unk|>."
    assert tokenizer.decode(ids) == text  # [book.2.4.decode_unk]
    assert tokenizer.encode(TWO_SENTENCES)[7] == tokenizer.unknown, "without permission it is an unknown word"


def test_the_words_of_the_story_with_colons(verdict: str) -> None:
    assert len(split_words(verdict)) == 4690  # [zh.2.2.vocab_B]
    tokenizer = tokens.train("words", [verdict])
    assert tokenizer.vocabulary == 1132
    gisburn = [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5, 1, 67, 7, 38, 851, 1108, 754, 793, 7]
    assert tokenizer.encode(GISBURN) == gisburn  # [zh.2.2.encode_B]
    two = [1131, 5, 355, 1126, 628, 975, 10, 1130, 55, 988, 956, 984, 722, 988, 1131, 7]
    assert tokenizer.encode(TWO_SENTENCES, special=True) == two


@given(st.text(alphabet="ab,.:_-'\" \n\x1c\u2028\u3000", max_size=40))
def test_joining_follows_the_books_two_lines(text: str) -> None:
    words = split_words(text)
    if words:
        tokenizer = Words.learn([text], special=[])
        joined = re.sub(r"\s+([,.:;?!\"()'])", r"\1", " ".join(words))
        assert tokenizer.decode(tokenizer.encode(text)) == joined


def test_special_names_in_the_corpus_are_not_words() -> None:
    tokenizer = tokens.train("words", ["one <|endoftext|> two <|unk|>"])
    assert tokenizer.special == {"<|endoftext|>": 2, "<|unk|>": 3}
    assert tokenizer.encode("two <|endoftext|>") == [1, 3]


def test_the_default_vocabulary_limit_is_refused_only_when_exceeded() -> None:
    assert tokens.train("chars", ["abc"], vocabulary=4).vocabulary == 4
    with pytest.raises(TokenizerError, match="3 is too small for kind 'chars': this text needs 4"):
        tokens.train("chars", ["abc"], vocabulary=3)


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(TokenizerError, match="did you mean 'words'"):
        tokens.train("word", ["abc"])
