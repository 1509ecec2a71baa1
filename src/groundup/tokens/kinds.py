"""From what a file says to the class that it means. In: `Parts` (formats.py). Out: one of our own tokenizers."""

from groundup.tokens import formats
from groundup.tokens.fast import BytePairs
from groundup.tokens.simple import Characters, Words
from groundup.tokens.tokenizer import Tokenizer


def build(parts: formats.Parts) -> Tokenizer:
    """The tokenizer that a file describes."""
    if parts.kind == "chars":
        return Characters(parts.vocab, parts.special)
    if parts.kind == "words":
        return Words(parts.vocab, parts.special, punctuation=parts.punctuation)
    tokens = {formats.read_bytes(token): id for token, id in parts.vocab.items()}
    merges = [(formats.read_bytes(left), formats.read_bytes(right)) for left, right in parts.merges]
    return BytePairs(tokens, merges, parts.special)
