"""Settings of text and tokens.

In: flags, TOML. Out: `Prepare`, the `Tokenizer...` classes, and what training adds to.
"""

from pathlib import Path
from typing import Literal

from groundup.settings.base import Positive, Settings, knob


class TextSettings(Settings):
    """What every command that reads text shares."""

    data: list[str] = knob(
        [],
        "files, folders, globs, catalog names (tinyshakespeare, harbor, gutenberg ...), or gutenberg:FOLDER",
        group="Text",
    )
    field: str = knob(
        "text", "which field of .jsonl and .csv rows, or column of .parquet, holds the text", group="Text"
    )


class TokenizeSettings(TextSettings):
    """Text, and how it becomes ids."""

    tokenizer: str = knob(
        "bpe",
        "chars, words, words-strict, bpe (learnt from the data), gpt2, or a tokenizer.json or model from anywhere",
        group="Tokens",
    )
    vocabulary: Positive | None = knob(
        None, "ids to learn for bpe; by default from the size of the text", group="Tokens"
    )
    validation: float = knob(0.1, "share of the text kept for validation", group="Tokens", ge=0, lt=1)
    split: Literal["auto", "fraction", "document"] = knob(
        "auto",
        "validation = the last part of the text, or whole documents; auto: documents when there are many",
        group="Tokens",
    )
    workers: Positive | None = knob(
        None, "processes that encode; by default one per core (at most 4), and one for a small text", group="Tokens"
    )


class Prepare(TokenizeSettings):
    """Turn text into memory-mapped token shards."""

    out: Path | None = knob(None, "folder for the shards", group="Output")


class TokenizerTrain(TextSettings):
    """Learn a tokenizer from text."""

    kind: Literal["chars", "words", "words-strict", "bpe"] = knob("bpe", "what the tokens are", group="Tokens")
    vocabulary: Positive | None = knob(
        None, "ids to learn for bpe; by default from the size of the text", group="Tokens"
    )
    special: list[str] = knob(["<|endoftext|>"], "special tokens to add", group="Tokens")
    out: Path | None = knob(None, "folder for tokenizer.json", group="Output")


class TokenizerShow(Settings):
    """Colour the pieces a tokenizer cuts a text into, and count bytes per token."""

    tokenizer: str = knob("gpt2", "gpt2, a tokenizer.json, or a run or model from anywhere", positional=True)
    text: str | None = knob(None, "the text; - reads standard input", stdin=True)
    file: Path | None = knob(None, "a UTF-8 file instead of --text; - reads standard input", stdin=True)
    limit: Positive = knob(2000, "show at most this many tokens")


class TokenizerEncode(Settings):
    """Text to ids."""

    tokenizer: str = knob("gpt2", "gpt2, a tokenizer.json, or a run or model from anywhere", positional=True)
    text: str | None = knob(None, "the text; - reads standard input", stdin=True)
    file: Path | None = knob(None, "a UTF-8 file instead of --text; - reads standard input", stdin=True)
    special: bool = knob(False, "let special tokens written in the text become ids")


class TokenizerDecode(Settings):
    """Ids to text."""

    tokenizer: str = knob("gpt2", "gpt2, a tokenizer.json, or a run or model from anywhere", positional=True)
    ids: list[int] = knob([], "the ids, separated by spaces")
    file: Path | None = knob(
        None, "a file of ids separated by white space, or a JSON list, instead of --ids", stdin=True
    )
