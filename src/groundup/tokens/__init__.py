"""Tokens: text to ids and back.

In: any UTF-8 text. Out: ids, and from ids the text again. `train` learns a tokenizer, `load` opens a saved one, `gpt2`
gives GPT-2's. All three return a `Tokenizer` (tokenizer.py); which kind it is matters to nobody else.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from groundup.errors import TokenizerError, nearest
from groundup.tokens import formats
from groundup.tokens.adopted import Adopted
from groundup.tokens.fast import BytePairs, suggest_vocabulary
from groundup.tokens.kinds import build
from groundup.tokens.opening import load
from groundup.tokens.simple import PUNCTUATION, Characters, Words
from groundup.tokens.tokenizer import TextStream, Tokenizer

__all__ = [
    "Adopted",
    "BytePairs",
    "Characters",
    "TextStream",
    "Tokenizer",
    "Words",
    "gpt2",
    "load",
    "suggest_vocabulary",
    "train",
]

KINDS = ("chars", "words", "words-strict", "bpe")


def train(
    kind: str,
    texts: Iterable[str],
    *,
    vocabulary: int | None = None,
    special: Sequence[str] = ("<|endoftext|>",),
    punctuation: str = PUNCTUATION,
) -> Tokenizer:
    """Learn a tokenizer from streamed texts; ordinary tokens take the first ids, special tokens the last.

    `chars`: one id per character. `words`: one per word, and <|unk|>, added last if `special` lacks it. `words-strict`:
    without <|unk|>. `bpe`: byte pairs up to `vocabulary` ids (None: `suggest_vocabulary` of the text's size), fewer if
    the text has no more to merge. `punctuation` is for words: what is cut off as a token of its own.
    Raises TokenizerError for an unknown kind, no text, or a vocabulary that is too small.

    >>> train("words", ["to be or not to be"]).encode("to be, or what?")
    [3, 0, 5, 2, 5, 5]
    """
    if kind == "bpe":
        return BytePairs.learn(texts, vocabulary=vocabulary, special=special)
    if kind not in KINDS:
        raise TokenizerError(f"unknown kind of tokenizer {kind!r}", nearest(kind, KINDS))
    names = [*special, "<|unk|>"] if kind == "words" and "<|unk|>" not in special else special
    if kind == "chars":
        learnt: Tokenizer = Characters.learn(texts, special=names)
    else:
        learnt = Words.learn(texts, special=names, punctuation=punctuation)
    if vocabulary is not None and learnt.vocabulary > vocabulary:
        raise TokenizerError(
            f"a vocabulary of {vocabulary} is too small for kind {kind!r}: this text needs {learnt.vocabulary}",
            "leave `vocabulary` out: it is for bpe",
        )
    return learnt


def gpt2(folder: Path | str | None = None) -> Tokenizer:
    """GPT-2's tokenizer: 50,257 ids, <|endoftext|> the last. Never from the network.

    Reads encoder.json and vocab.bpe from `folder`, else from $GROUNDUP_DATA/gpt2-bpe, else from tiktoken's cache;
    raises TokenizerError saying where to get them.

    >>> gpt2().encode("Akwirw ier")  # doctest: +SKIP
    [33901, 86, 343, 86, 220, 959]
    """
    files = {name: Path(folder) / name for name in formats.GPT2_FILES} if folder else formats.find_gpt2()
    if files is None:
        raise TokenizerError("GPT-2's vocabulary is not on this machine", formats.GPT2_ADVICE)
    return build(formats.read_gpt2(files))
