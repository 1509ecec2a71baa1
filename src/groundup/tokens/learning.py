"""The tokenizer a person names: learnt from their text, GPT-2's, or one from a path.

In: a name, sources of text. Out: a `Tokenizer`. Learning reads the text once. Byte pairs are learnt from at most 50 MB
spread evenly over it, which bounds memory and time; characters and words from all of it, as they can express only what
they saw, and so keep every distinct one in memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from groundup import tokens
from groundup.errors import TokenizerError, nearest
from groundup.text.read import Source
from groundup.tokens.tokenizer import Tokenizer

LEARNT = ("chars", "words", "words-strict", "bpe")
END_OF_TEXT = "<|endoftext|>"
SAMPLE = 50_000_000  # bytes: half a gigabyte of memory for text of many rare words; more text changes few merges

Progress = Callable[[str, int, int], None]  # what is going on, bytes of text done, bytes of text in all


def silent(doing: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def choose_tokenizer(
    name: str, sources: Sequence[Source], *, vocabulary: int | None = None, progress: Progress = silent
) -> Tokenizer:
    """Learn a tokenizer (chars, words, words-strict, bpe) from the text, take gpt2's, or load one from a path.

    bpe gets an end-of-text token always, the others where there is more than one document to divide: one text of
    characters keeps the vocabulary of the lecture. Raises TokenizerError.
    """
    if name not in LEARNT and vocabulary is not None:
        raise TokenizerError(
            f"--vocabulary {vocabulary} does not fit --tokenizer {name}", "it is for a tokenizer to learn"
        )
    if name == "gpt2":
        return tokens.gpt2()
    if name not in LEARNT:
        if not Path(name).exists():
            advice = nearest(name, [*LEARNT, "gpt2"])
            raise TokenizerError(f"'{name}' is neither a tokenizer nor a path", f"{advice} (or give a tokenizer.json)")
        return tokens.load(name)
    if name == "bpe" and vocabulary is None:
        vocabulary = bpe_vocabulary(sum(source.bytes for source in sources))
    special = [END_OF_TEXT] if name in ("bpe", "words") or _several(sources) else []
    return tokens.train(name, texts(sources, kind=name, progress=progress), vocabulary=vocabulary, special=special)


def bpe_vocabulary(size: int) -> int:
    """Ids to learn from so many bytes of text: the power of two nearest to 2 sqrt(bytes), from 512 to 32,768.

    >>> bpe_vocabulary(20_479), bpe_vocabulary(1_115_394), bpe_vocabulary(10**12)
    (512, 2048, 32768)
    """
    return min(max(2 ** round(math.log2(2 * math.sqrt(max(size, 1)))), 512), 32_768)


def texts(sources: Sequence[Source], *, kind: str, progress: Progress = silent) -> Iterator[str]:
    """What a tokenizer of this kind learns from: all pieces, or for bpe at most `SAMPLE` bytes, evenly spread.

    Even as far as the sizes of the sources are known beforehand; where they turn out larger, the end is left out.
    """
    total = sum(source.bytes for source in sources)
    share = min(1.0, SAMPLE / max(total, 1)) if kind == "bpe" else 1.0
    most = SAMPLE if kind == "bpe" else math.inf
    seen = taken = 0
    for source in sources:
        for piece in source.pieces():
            size = len(piece.text.encode("utf-8"))
            if taken <= seen * share and taken < most:
                yield piece.text
                taken += size
            seen += size
            progress("learning", seen, max(seen, total))


def _several(sources: Sequence[Source]) -> bool:
    """Whether there are at least two documents; reads no further than the second."""
    documents = 0
    for source in sources:
        for piece in source.pieces():
            documents += piece.ends
            if documents > 1:
                return True
    return False
