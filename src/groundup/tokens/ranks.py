"""tiktoken's rank files (*.tiktoken) out and in: the vocabulary of a byte pair tokenizer, and nothing else of it.

In: a tokenizer, or a file. Out: the file's bytes, or a tokenizer. The format: tiktoken/load.py of openai/tiktoken.
"""

import base64
from collections.abc import Mapping
from pathlib import Path

from groundup.errors import TokenizerError
from groundup.tokens import files, formats
from groundup.tokens.fast import BytePairs
from groundup.tokens.tokenizer import Tokenizer

MOST_TOKEN = 1000  # bytes; published vocabularies have runs of some hundred spaces


def to_tiktoken(tokenizer: Tokenizer) -> bytes:
    """The ranks of a byte pair tokenizer as tiktoken's files have them: a line of base64 token, space, id for each.

    Special tokens stand in no such file, nor does the cut. Raises TokenizerError for another kind of tokenizer, and for
    merges that ranks cannot say. Format: tiktoken/load.py of openai/tiktoken.
    """
    if not isinstance(tokenizer, BytePairs):
        raise TokenizerError(
            f"a tokenizer of kind {tokenizer.kind!r} cannot be a tiktoken file", "train one of kind bpe: only it can"
        )
    if not tokenizer.by_ranks:
        raise TokenizerError(
            "tiktoken joins by the lowest id, which gives other ids than the merges of this tokenizer",
            "export to hf: tokenizer.json keeps the merges",
        )
    ranks = sorted(tokenizer.tokens.items(), key=lambda item: item[1])
    return b"".join(base64.b64encode(token) + b" %d\n" % id for token, id in ranks)


def read_tiktoken(path: Path, special: Mapping[str, int]) -> Tokenizer:
    """The byte pair tokenizer of a *.tiktoken file, with GPT-2's cut: the file does not name one.

    The merges are found again: a token comes of the two parts to which the tokens before it bring its bytes. Raises
    TokenizerError for a malformed file, ids with holes, and a token that no two parts make.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(files.read_file(path).splitlines(), start=1):
        try:
            token, id = line.split(b" ")
            ranks[base64.b64decode(token, validate=True)] = int(id)
        except ValueError:
            advice = "give a *.tiktoken file: base64 of a token, a space, its rank, one a line"
            raise TokenizerError(f"{path} line {number} is no token and rank: {line[:60]!r}", advice) from None
    formats.check_ids([*ranks.values(), *special.values()], str(path))
    longest = max(map(len, ranks), default=0)
    if longest > MOST_TOKEN:
        raise TokenizerError(
            f"{path}: a token of {longest:,} bytes, more than {MOST_TOKEN:,}", "give a *.tiktoken file"
        )
    merges = [_parts_of(token, ranks) for token in sorted(ranks, key=lambda token: ranks[token]) if len(token) > 1]
    return BytePairs(ranks, merges, special)


def _parts_of(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge made this one: what is left when all earlier merges are done on its bytes."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, ranks[token]) for left, right in zip(parts, parts[1:], strict=False)]
        first = joined.index(min(joined))
        if joined[first] >= ranks[token]:
            break
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    if len(parts) != 2:
        raise TokenizerError(
            f"the token {token[:40]!r} is made by no merge of two earlier ones", "give the ranks of a byte-level BPE"
        )
    return parts[0], parts[1]
