"""Byte pair encoding, quick: `tokenizers` (Rust) learns, tiktoken (Rust) encodes, bpe.py says what is right.

In: text. Out: the same merges and the same ids as bpe.py. Tests prove it on random corpora and on all of Unicode;
what the two libraries would do otherwise is noted where it is put right.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Self

import numpy as np
import regex
import tiktoken
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers, trainers

from groundup.errors import TokenizerError
from groundup.tokens import bpe, formats
from groundup.tokens.tokenizer import Tokenizer, check_special, check_text

# GPT-2's cut as tiktoken spells it: `++` never gives back, so long words cost no backtracking. Same matches as bpe.split.
GPT2_CUT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_LONG = 100_000  # tiktoken's engine runs out of stack on some 500,000 white-space characters before a word
_SPACES = regex.compile(r"\s*+")

Merge = tuple[bytes, bytes]


def learn(texts: Iterable[str], merges: int) -> list[bpe.Pair]:
    """The merges of `bpe.learn(bpe.count_words(texts), merges)`, learnt by `tokenizers`; the texts are streamed.

    The trainer gets no special tokens: it would give them the first ids, and merge into one whose name the text spells.
    A text with a word (or white space) of 100,000 characters and more is slow: the trainer takes quadratic time in its length.
    """
    learner = HFTokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        min_frequency=0,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_checked(texts), trainer)
    model = json.loads(learner.to_str())["model"]
    ids = model["vocab"]
    return [(ids[left], ids[right]) for left, right in model["merges"]]


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        check_text(text)
        yield text


class BytePairs(Tokenizer):
    """Byte-level BPE with GPT-2's cut: can express any text, and gives back its bytes exactly.

    `tokens` maps bytes to id (all 256 single bytes are among them), `merges` lists the pairs in the order they apply.

    >>> tokenizer = BytePairs.learn(["low lower lowest"], vocabulary=260, special=[])
    >>> tokenizer.encode("low lowest"), tokenizer.pieces([257, 259, 82, 83])
    ([257, 259, 82, 83], [b'low', b' lowe', b's', b't'])
    """

    kind = "bpe"

    def __init__(self, tokens: Mapping[bytes, int], merges: Sequence[Merge], special: Mapping[str, int]) -> None:
        check_special(special, {formats.show_bytes(token) for token in tokens})
        super().__init__(len(tokens), special)
        self._tokens = dict(tokens)
        self._merges = list(merges)
        entries = [*self._tokens.items(), *((name.encode("utf-8"), id) for name, id in self.special.items())]
        self._spelled = [token for token, _ in sorted(entries, key=lambda entry: entry[1])]
        _check_merges(self._tokens, self._merges)

    @classmethod
    def learn(cls, texts: Iterable[str], *, vocabulary: int, special: Sequence[str]) -> "BytePairs":
        """Learn up to `vocabulary` ids: 256 bytes, merges, then the special tokens.

        Text that is short gives fewer merges than asked for; the result's `vocabulary` says how many ids there are.
        Raises TokenizerError if the vocabulary has no room for bytes and special tokens.
        """
        names = list(dict.fromkeys(special))
        least = 256 + len(names)
        if vocabulary < least:
            raise TokenizerError(
                f"a vocabulary of {vocabulary} is too small for bpe",
                f"give at least {least}: 256 bytes and {len(names)} special tokens",
            )
        return cls.from_merges(learn(texts, vocabulary - least), names)

    @classmethod
    def from_merges(cls, merges: Sequence[bpe.Pair], special: Sequence[str]) -> "BytePairs":
        """From merges as bpe.learn gives them: bytes take ids 0..255, merges 256 upward, special tokens the last."""
        spelled = bpe.spell(merges)
        pairs = [(spelled[left], spelled[right]) for left, right in merges]
        names = {name: len(spelled) + i for i, name in enumerate(special)}
        return cls({token: id for id, token in enumerate(spelled)}, pairs, names)

    def _encode(self, text: str, start: int) -> list[int]:
        return [id for part in _parts(text) for id in self._encoding.encode_ordinary(part)]

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `encode(text)` as a uint32 array (T,), without a Python object per id."""
        arrays = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in _parts(text)]
        return np.concatenate([np.empty(0, dtype=np.uint32), *arrays])

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return tiktoken.Encoding("groundup", pat_str=GPT2_CUT, mergeable_ranks=self._tokens, special_tokens={})

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids to bytes, which need not be whole UTF-8."""
        return b"".join(self.pieces(ids))

    def _pieces(self, ids: Sequence[int], *, first: bool) -> list[bytes]:
        return [self._spelled[id] for id in ids]

    def _form(self, special: Mapping[str, int]) -> formats.Json:
        return formats.bpe_json(self._tokens, self._merges, special)

    def _renamed(self, special: Mapping[str, int]) -> Self:
        return type(self)(self._tokens, self._merges, special)


def _parts(text: str) -> Iterator[str]:
    """The text, cut within enormous runs of white space where GPT-2's pattern cuts too: before their last character.

    A run of at least 2 * _LONG covers a multiple of _LONG with _LONG more after it, so looking there finds them all.
    """
    check_text(text)
    start = 0
    for place in range(_LONG, len(text), _LONG):
        end = _SPACES.match(text, place).end()
        if place > start and end - place >= _LONG and end < len(text):
            yield text[start : end - 1]
            start = end - 1
    yield text[start:]


def _check_merges(tokens: Mapping[bytes, int], merges: Sequence[Merge]) -> None:
    """Refuse a vocabulary on which tiktoken, which merges by the id of the result, could differ from replaying the merges."""
