"""The two simplest tokenizers: one id per character, one id per word.

In: text. Out: ids in the order of the sorted vocabulary. Both learn by listing what occurs; neither can express what it
never saw, so an unknown character or word is an error that names it, unless there is the special token <|unk|>.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Self

import numpy as np

from groundup.errors import TokenizerError
from groundup.tokens import formats
from groundup.tokens.tokenizer import Tokenizer, check_special, check_text

PUNCTUATION = ",.:;?_!\"()'"  # the book's first listing lacks : and ; (PUNCTUATION_BOOK); its repository has them
PUNCTUATION_BOOK = ",.?_!\"()'"


class Characters(Tokenizer):
    """One id per character.

    >>> tokenizer = Characters.learn(["hello"], special=[])
    >>> tokenizer.encode("hole"), tokenizer.decode([1, 3, 2, 0])
    ([1, 3, 2, 0], 'hole')
    """

    kind = "chars"

    def __init__(self, vocab: Mapping[str, int], special: Mapping[str, int]) -> None:
        check_special(special, vocab)
        super().__init__(len(vocab), special)
        self._vocab = dict(vocab)
        self._spelled = _by_id(vocab, special)

    @classmethod
    def learn(cls, texts: Iterable[str], *, special: Sequence[str]) -> "Characters":
        """The sorted set of all characters of the texts, then the special tokens."""
        seen: set[str] = set()
        for text in texts:
            check_text(text)
            seen.update(text)
        return cls(*_number(seen, special))

    def _encode(self, text: str, start: int) -> list[int]:
        return self._lookup(text, start).tolist()

    def encode_array(self, text: str, *, goes_on: bool = False) -> np.ndarray:
        """The ids of `encode(text)` as a uint32 array (T,)."""
        return self._lookup(text, 0).astype(np.uint32)

    def _lookup(self, text: str, start: int) -> np.ndarray:
        """One table look-up for the whole text: code points (T,) -> ids (T,)."""
        check_text(text, start)
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        missing = np.flatnonzero(ids < 0)
        if missing.size:
            at = int(missing[0])
            raise TokenizerError(
                f"unknown character {text[at]!r} (U+{ord(text[at]):04X}) at character {start + at:,}",
                "train the tokenizer on text that has it, add <|unk|>, or use bpe, which can express anything",
            )
        return ids

    @cached_property
    def _table(self) -> np.ndarray:
        """Id of each code point up to the highest known; -1, or the unknown id, elsewhere. The last entry is a stop."""
        absent = -1 if self.unknown is None else self.unknown
        table = np.full(max((ord(char) for char in self._vocab), default=0) + 2, absent, dtype=np.int64)
        for char, id in self._vocab.items():
            table[ord(char)] = id
        return table

    def _pieces(self, ids: Sequence[int], *, first: bool) -> list[bytes]:
        return [self._spelled[id] for id in ids]

    def _form(self, special: Mapping[str, int]) -> formats.Json:
        return formats.characters_json(self._vocab, special, _unknown_name(self))

    def _renamed(self, special: Mapping[str, int]) -> Self:
        return type(self)(self._vocab, special)


class Words(Tokenizer):
    """One id per word or punctuation mark, cut by a regular expression (the book's two simple tokenizers).

    Decoding joins with one space, and none before punctuation, so the spacing of the text is lost: `"It's` comes back
    as `" It' s`.

    >>> tokenizer = Words.learn(["the cat sat."], special=["<|unk|>"])
    >>> tokenizer.encode("the dog sat."), tokenizer.decode([3, 4, 2, 0])
    ([3, 4, 2, 0], 'the <|unk|> sat.')
    """

    kind = "words"

    def __init__(self, vocab: Mapping[str, int], special: Mapping[str, int], *, punctuation: str = PUNCTUATION) -> None:
        check_special(special, vocab)
        super().__init__(len(vocab), special)
        self.punctuation = punctuation
        self._vocab = dict(vocab)
        self._spelled = _by_id(vocab, special)
        self._tight = {char.encode("utf-8") for char in formats.tight(punctuation)}

    @classmethod
    def learn(cls, texts: Iterable[str], *, special: Sequence[str], punctuation: str = PUNCTUATION) -> "Words":
        """The sorted set of all words of the texts, then the special tokens."""
        seen: set[str] = set()
        for text in texts:
            check_text(text)
            seen.update(split_words(text, punctuation))
        return cls(*_number(seen - set(special), special), punctuation=punctuation)

    def _encode(self, text: str, start: int) -> list[int]:
        check_text(text, start)
        words, unknown = split_words(text, self.punctuation), self.unknown
        if unknown is not None:
            return [self._vocab.get(word, unknown) for word in words]
        try:
            return [self._vocab[word] for word in words]
        except KeyError as error:
            place = start + _offset(error.args[0], text, self.punctuation)
            raise TokenizerError(
                f"unknown word {error.args[0]!r} at character {place:,}",
                "train on text that has it, use kind `words`, which has <|unk|>, or bpe, which can express anything",
            ) from None

    def _pieces(self, ids: Sequence[int], *, first: bool) -> list[bytes]:
        spelled = [self._spelled[id] for id in ids]
        spaced = [word if self._is_tight(word) else b" " + word for word in spelled]
        return [spelled[0], *spaced[1:]] if first and spelled else spaced

    def _is_tight(self, word: bytes) -> bool:
        return word.decode("utf-8")[0].encode("utf-8") in self._tight

    def byte_lengths(self) -> None:
        """None: how many bytes a word stands for depends on its neighbours."""
        return None

    def _form(self, special: Mapping[str, int]) -> formats.Json:
        return formats.words_json(self._vocab, special, _unknown_name(self), self.punctuation)

    def _renamed(self, special: Mapping[str, int]) -> Self:
        return type(self)(self._vocab, special, punctuation=self.punctuation)


def split_words(text: str, punctuation: str = PUNCTUATION) -> list[str]:
    """Cut text at white space, each character of `punctuation`, and `--`; white space is dropped.

    >>> split_words("Hello, world. Is this-- a test?")
    ['Hello', ',', 'world', '.', 'Is', 'this', '--', 'a', 'test', '?']
    """
    return [item for item in _cut(text, punctuation) if item and not item.isspace()]


def _cut(text: str, punctuation: str) -> list[str]:
    """Words, separators, white space and empty strings in turn; joined, they are the text."""
    return re.split(rf"({formats.cut_pattern(punctuation)}|\s)", text)


def _offset(word: str, text: str, punctuation: str) -> int:
    """Where `word` first stands alone in `text`."""
    items = _cut(text, punctuation)
    return sum(len(item) for item in items[: items.index(word)])


def _number(tokens: Iterable[str], special: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Ids 0, 1, 2 ... for the sorted tokens, the following ids for the special ones."""
    vocab = {token: id for id, token in enumerate(sorted(tokens))}
    if not vocab:
        raise TokenizerError("there is no text to learn from: 0 characters", "give text that is not empty")
    return vocab, {name: len(vocab) + i for i, name in enumerate(dict.fromkeys(special))}


def _by_id(*tables: Mapping[str, int]) -> list[bytes]:
    """UTF-8 of every token, in the order of ids."""
    entries = sorted((id, token) for table in tables for token, id in table.items())
    return [token.encode("utf-8") for _, token in entries]


def _unknown_name(tokenizer: Tokenizer) -> str | None:
    return next((name for name, id in tokenizer.special.items() if id == tokenizer.unknown), None)
