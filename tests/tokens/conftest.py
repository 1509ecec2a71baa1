"""Fixtures of this room: GPT-2's tokenizer, and text that is hard to cut."""

from pathlib import Path

import pytest

from groundup import tokens

HARD = (
    "Hello  world\n\n\t é e\u0301 我們說 नमस्ते \U0001f600\U0001f468\u200d\U0001f469 \x00\x01\x1c\x7f\u200b\u2028 it's"
    " IT'S ''re 1234 ½ ٣ \r\n   end.   \U00020000\U000e0041\U0010ffff\u0558\U00018d10 <|endoftext|> <|end  "
)


@pytest.fixture(scope="session")
def gpt2(data_dir: Path) -> tokens.Tokenizer:
    """GPT-2's tokenizer from its two files."""
    return tokens.gpt2(data_dir / "gpt2-bpe")


@pytest.fixture(scope="session")
def verdict(data_dir: Path) -> str:
    """The short story the book works with."""
    return (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def hard() -> str:
    """Text with everything that makes tokenizers slip."""
    return HARD
