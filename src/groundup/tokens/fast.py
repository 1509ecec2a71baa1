"""Byte pair encoding, quick: `tokenizers` (Rust) learns, tiktoken (Rust) encodes, bpe.py says what is right.

In: text. Out: the same merges and the same ids as bpe.py. Tests prove it on random corpora and on all of Unicode;
what the two libraries would do otherwise is noted where it is put right.
"""

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import tiktoken
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers, trainers

from groundup.errors import TokenizerError
from groundup.tokens import bpe, formats
from groundup.tokens.tokenizer import Tokenizer, check_special, check_text

# GPT-2's cut without its look ahead, `\s+(?!\S)`, which alone keeps tiktoken from the engine that reads each character
# once. Without it tiktoken is about half as quick again, and long runs cost it neither time nor stack. What that part
# matches, two and more white-space characters, is found here by RUN, and a mark is put behind it: a special token, at
# which tiktoken ends one text and begins the next. It cuts as bpe.split.
CUT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+$|\s"
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # \s of tiktoken; re's has \x1c-\x1f too
RUN = re.compile(rf"[{_SPACE}]{{2,}}(?![^{_SPACE}])")
_MARK, _END = (1 << 32) - 3, (1 << 32) - 2  # ids of the marks behind a run and behind a text: no vocabulary has them
_SHORT = 2000  # characters up to which a list of ids costs less than the call that makes arrays
MOST = 32_768  # ids to learn when nobody says how many

Merge = tuple[bytes, bytes]


def learn(texts: Iterable[str], merges: int) -> list[bpe.Pair]:
    """The merges of `bpe.learn(bpe.count_words(texts), merges)`, learnt by `tokenizers`; the texts are streamed.

    The trainer gets no special tokens: it would give them the first ids, and merge into one whose name the text spells.
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
    learner.train_from_iterator(iter(texts if isinstance(texts, Meter) else Meter(texts)), trainer)
    model = json.loads(learner.to_str())["model"]
    ids = model["vocab"]
    return [(ids[left], ids[right]) for left, right in model["merges"]]


@dataclass
class Meter:
    """Texts on their way to a learner: checked, and counted in `bytes` of UTF-8."""

    texts: Iterable[str]
    bytes: int = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.bytes += check_text(text)
            yield from bpe.bounded(text)


def suggest_vocabulary(size: int) -> int:
    """How many ids suit a text of `size` bytes: a power of two near 4 * sqrt(size), from 512 to 32,768.

    A rule of thumb: a token is worth its row in the table only if the text shows it often enough to learn its use.

    >>> [suggest_vocabulary(size) for size in (20_000, 1_000_000, 20_000_000, 10**9)]
    [512, 4096, 16384, 32768]
    """
    return min(max(2 ** round(math.log2(4 * math.sqrt(max(size, 1)))), 512), MOST)


class BytePairs(Tokenizer):
    """Byte-level BPE with GPT-2's cut: can express any text, and gives back its bytes exactly.

    `tokens` maps bytes to id (all 256 single bytes are among them), `merges` lists the pairs in the order they apply.

    >>> tokenizer = BytePairs.learn(["low lower lowest"], vocabulary=260, special=[])
    >>> tokenizer.encode("low lowest"), tokenizer.pieces([257, 259, 82, 83])
    ([257, 259, 82, 83], [b'low', b' lowe', b's', b't'])
    """

    kind = "bpe"
    cut = "gpt2"

    def __init__(self, tokens: Mapping[bytes, int], merges: Sequence[Merge], special: Mapping[str, int]) -> None:
        vocab = {formats.show_bytes(token) for token in tokens} if special else set()  # as tokenizer.json spells them
        check_special(special, vocab)
        super().__init__(len(tokens), special)
        self._tokens = dict(tokens)
        self._merges = list(merges)
        _check_parts(self._tokens, self._merges)
        entries = [*self._tokens.items(), *((name.encode("utf-8"), id) for name, id in self.special.items())]
        self._encodings: dict[int, tiktoken.Encoding] = {}
        self._spelled = [token for token, _ in sorted(entries, key=lambda entry: entry[1])]

    @classmethod
    def learn(cls, texts: Iterable[str], *, vocabulary: int | None = None, special: Sequence[str]) -> "BytePairs":
        """Learn up to `vocabulary` ids: 256 bytes, merges, special tokens; None: as many as suit the text's size.

        Text that is short gives fewer merges than asked for; the result's `vocabulary` says how many ids there are.
        Raises TokenizerError if there is no text, or no room for bytes and special tokens.
        """
        names = list(dict.fromkeys(special))
        least = 256 + len(names)
        if vocabulary is not None and vocabulary < least:
            raise TokenizerError(
                f"a vocabulary of {vocabulary} is too small for bpe",
                f"give at least {least}: 256 bytes and {len(names)} special tokens",
            )
        meter = Meter(texts)
        merges = learn(meter, (vocabulary or MOST) - least)
        if not meter.bytes:
            raise TokenizerError("there is no text to learn from: 0 bytes", "give text that is not empty")
        if vocabulary is None:  # the first merges are the same, however many are learnt
            merges = merges[: max(suggest_vocabulary(meter.bytes) - least, 0)]
        return cls.from_merges(merges, names)

    @classmethod
    def from_merges(cls, merges: Sequence[bpe.Pair], special: Sequence[str]) -> "BytePairs":
        """From merges as bpe.learn gives them: bytes take ids 0..255, merges 256 upward, special tokens the last."""
        spelled = bpe.spell(merges)
        pairs = [(spelled[left], spelled[right]) for left, right in merges]
        names = {name: len(spelled) + i for i, name in enumerate(special)}
        return cls({token: id for id, token in enumerate(spelled)}, pairs, names)

    @property
    def tokens(self) -> Mapping[bytes, int]:
        """Bytes to id, without special tokens."""
        return self._tokens

    @property
    def by_ranks(self) -> bool:
        """Whether joining by the lowest id, as tiktoken does, gives the ids of the merges."""
        return self._agrees

    def _encode(self, text: str, start: int) -> list[int]:
        check_text(text, start)
        if not self._agrees:
            return list(self._by_replay.encode(text).ids)
        encode, ids, place = self._tiktoken(0).encode_ordinary, [], 0
        for run in RUN.finditer(text):
            ids += encode(text[place : run.end()])
            place = run.end()
        return ids + encode(text[place:]) if place else encode(text)

    def encode_array(self, text: str, *, goes_on: bool = False) -> np.ndarray:
        """The ids of `encode(text)` as a uint32 array (T,)."""
        if not self._agrees or len(text) < _SHORT:
            return super().encode_array(text)
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str], goes_on: Sequence[bool] = ()) -> tuple[np.ndarray, np.ndarray]:
        """The ids of some texts end to end, uint32 (T,), and how many each has, int64 (texts,): one call for all."""
        if not self._agrees:
            return super().encode_many(texts)
        for text in texts:
            check_text(text)
        return self._marked(texts)

    def _marked(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode_many` by tiktoken, all texts in one string, with marks that none of them holds."""
        number = next(number for number in itertools.count() if not any(f"|{number}|>" in text for text in texts))
        encoding = self._tiktoken(number)
        mark, end = _marks(number)
        whole = "".join([RUN.sub(rf"\g<0>{mark}", text) + end for text in texts])
        ids = encoding.encode_to_numpy(whole, allowed_special={mark, end}, disallowed_special=())
        ids = ids[ids != _MARK]
        ends = np.flatnonzero(ids == _END)
        return ids[ids != _END], np.diff(ends, prepend=-1) - 1

    def _tiktoken(self, number: int) -> tiktoken.Encoding:
        """tiktoken with marks of this number; 0 is nearly always the one."""
        if number not in self._encodings:
            marks = dict(zip(_marks(number), (_MARK, _END), strict=True))
            encoding = tiktoken.Encoding("groundup", pat_str=CUT, mergeable_ranks=self._tokens, special_tokens=marks)
            self._encodings[number] = encoding
        return self._encodings[number]

    @cached_property
    def _agrees(self) -> bool:
        """Whether tiktoken may be asked: it gives the ids of the merges."""
        return _merges_agree(self._tokens, self._merges)

    @cached_property
    def _by_replay(self) -> HFTokenizer:
        """The merges replayed one by one, for vocabularies from elsewhere that no learning on text would give."""
        return HFTokenizer.from_str(json.dumps(formats.bpe_json(self._tokens, self._merges, {})))

    def _pieces(self, ids: Sequence[int], *, first: bool) -> list[bytes]:
        return [self._spelled[id] for id in ids]

    def _form(self, special: Mapping[str, int]) -> formats.Json:
        return formats.bpe_json(self._tokens, self._merges, special)

    def _renamed(self, special: Mapping[str, int]) -> Self:
        return type(self)(self._tokens, self._merges, special)


def _marks(number: int) -> tuple[str, str]:
    return f"<|mark|{number}|>", f"<|end|{number}|>"


def _check_parts(tokens: Mapping[bytes, int], merges: Sequence[Merge]) -> None:
    """Refuse a vocabulary that lacks a byte, or a part or the result of a merge; raises TokenizerError."""
    for byte in range(256):
        if bytes([byte]) not in tokens:
            raise TokenizerError(
                f"the vocabulary has no token for byte 0x{byte:02X}", "give a byte-level BPE tokenizer"
            )
    for left, right in merges:
        missing = next((token for token in (left, right, left + right) if token not in tokens), None)
        if missing is not None:
            raise TokenizerError(
                f"the merge of {left!r} and {right!r} needs the token {missing!r}, which the vocabulary lacks",
                "the file is damaged: save or copy it again",
            )


def _merges_agree(tokens: Mapping[bytes, int], merges: Sequence[Merge]) -> bool:
    """Whether tiktoken gives the ids of the merges on every text.

    tiktoken keeps no merges: it joins the neighbours whose union is the token with the lowest id. That is the same when
    the results of the merges have rising ids, and every token comes out of replaying the merges on its own bytes. For
    suppose tiktoken joined u and v, not a learnt pair, into t. No join crossed the ends of t before, so within t all
    went as on t's bytes alone, by joins of shorter tokens only. By induction on length those were merges, so the replay
    on t's bytes comes to [u, v] too, and stops there without reaching t. What was learnt from text always passes.
    """
    results = [tokens[left + right] for left, right in merges]
    if any(later <= earlier for earlier, later in zip(results, results[1:], strict=False)):
        return False
    vocab = {formats.show_bytes(token): id for token, id in tokens.items()}
    pairs = [(formats.show_bytes(left), formats.show_bytes(right)) for left, right in merges]
    replay = models.BPE(vocab, pairs)
    return all(len(replay.tokenize(token)) == 1 for token in vocab)
