"""Tokenizer files: `tokenizer.json` (Hugging Face) out and in, GPT-2's `encoder.json` + `vocab.bpe` in.

Plain data on both sides, no tokenizer classes: the classes in simple.py and fast.py say what they hold, this file says
how it is spelt on disk. Three layouts are written, and only these are read; of all else the part that differs is named.

* characters: model WordLevel, cut at every character, fused back;
* words:      model WordLevel, white space dropped, punctuation cut off, joined again by the book's rule;
* bpe:        model BPE over stand-in characters of bytes, GPT-2's ByteLevel cut (GPT-2's own layout).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.errors import TokenizerError
from groundup.tokens import files as disk
from groundup.tokens.bpe import BYTE_TO_CHAR, CHAR_TO_BYTE

Json = dict[str, Any]
EVERY_CHARACTER = r"[\s\S]"
WHITE_SPACE = r"[\s\x1c-\x1f]"  # what Python's \s matches; the engine behind tokenizer.json leaves out 1C..1F
_NEVER = "\x00never\x00"  # WordPiece joins with spaces all tokens that do not begin with this prefix: all of them


def characters_json(vocab: Mapping[str, int], special: Mapping[str, int], unknown: str | None) -> Json:
    """The tokenizer.json of a character tokenizer."""
    cut = _split(EVERY_CHARACTER, "Isolated")
    return _document(_word_level(vocab, special, unknown), special, cut=cut, decoder={"type": "Fuse"})


def words_json(vocab: Mapping[str, int], special: Mapping[str, int], unknown: str | None, punctuation: str) -> Json:
    """The tokenizer.json of a word tokenizer that cuts off every character of `punctuation`, and `--`."""
    no_space = f" (?={_any_of(tight(punctuation))})"
    joins = [
        {"type": "WordPiece", "prefix": _NEVER, "cleanup": False},
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"Regex": no_space}, "content": ""},
    ]
    return _document(
        _word_level(vocab, special, unknown),
        special,
        cut={
            "type": "Sequence",
            "pretokenizers": [_split(WHITE_SPACE, "Removed"), _split(cut_pattern(punctuation), "Isolated")],
        },
        decoder={"type": "Sequence", "decoders": joins},
    )


def cut_pattern(punctuation: str) -> str:
    r"""The regular expression of what stands alone between words.

    >>> cut_pattern(",.?")
    '[,\\.\\?]|--'
    """
    return f"{_any_of(punctuation)}|--"


def tight(punctuation: str) -> str:
    """The punctuation that takes no space before it when words are joined again: the book's, all but the underscore."""
    return punctuation.replace("_", "")


def _any_of(characters: str) -> str:
    return f"[{''.join(map(re.escape, characters))}]" if characters else "(?!)"


def bpe_json(tokens: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]], special: Mapping[str, int]) -> Json:
    """The tokenizer.json of a byte-level BPE tokenizer, the layout of GPT-2."""
    vocab = {show_bytes(token): id for token, id in tokens.items()} | dict(special)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
        "merges": [[show_bytes(left), show_bytes(right)] for left, right in merges],
    }
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _document(model, special, cut=cut, decoder=cut)


def show_bytes(token: bytes) -> str:
    """Bytes as stand-in characters.

    >>> show_bytes(b" the")
    'Ġthe'
    """
    return "".join(BYTE_TO_CHAR[byte] for byte in token)


def read_bytes(token: str) -> bytes:
    """Stand-in characters back to bytes; raises TokenizerError for a character that stands for none."""
    try:
        return bytes(CHAR_TO_BYTE[char] for char in token)
    except KeyError as error:
        raise TokenizerError(
            f"the token {token!r} is not byte-level: {error.args[0]!r} stands for no byte",
            "give a byte-level BPE tokenizer",
        ) from None


def _split(pattern: str, behavior: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _word_level(vocab: Mapping[str, int], special: Mapping[str, int], unknown: str | None) -> Json:
    entries = sorted((dict(vocab) | dict(special)).items(), key=lambda item: item[1])
    # A name that is not in the vocabulary makes the reader refuse an unknown token instead of dropping it.
    return {"type": "WordLevel", "vocab": dict(entries), "unk_token": unknown or "<|unk|>"}


def _document(model: Json, special: Mapping[str, int], *, cut: Json, decoder: Json) -> Json:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": id, "content": name, **plain} for name, id in sorted(special.items(), key=lambda item: item[1])]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a tokenizer.json holds, in our terms; `punctuation` belongs to words, `merges` to bpe."""

    kind: str
    vocab: dict[str, int]  # without special tokens
    special: dict[str, int]
    punctuation: str = ""
    merges: tuple[tuple[str, str], ...] = ()


def parse(document: Json, source: str) -> Parts:
    """Take a tokenizer.json apart; raises TokenizerError naming the part of `source` that is not supported."""
    try:
        model = document["model"]
        special = _special(document, source)
        vocab = {token: id for token, id in model["vocab"].items() if token not in special}
        check_ids([*vocab.values(), *special.values()], source)
        "".join([*vocab, *special]).encode("utf-8")  # half a surrogate pair raises a ValueError
        if document.get("normalizer") is not None:
            raise _unsupported("a normalizer (it changes text before it is cut)", source)
        if model.get("type") == "WordLevel":
            return _parse_word_level(document, vocab, special, source)
        if model.get("type", "BPE") == "BPE" and "merges" in model:
            _check_byte_level(document, source)
            merges = tuple(_read_merge(entry) for entry in model["merges"])
            return Parts(kind="bpe", vocab=vocab, special=special, merges=merges)
        raise _unsupported(f"the model type {model.get('type')!r}", source)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise TokenizerError(
            f"{source} is not a tokenizer.json: {reason}", "the file is damaged: save or copy it again"
        ) from None


def _special(document: Json, source: str) -> dict[str, int]:
    """The added tokens by name; only ones that match as they are written, wherever they stand."""
    special: dict[str, int] = {}
    for token in document.get("added_tokens") or []:
        odd = [name for name in ("lstrip", "rstrip", "single_word") if token.get(name)]
        if odd or not token.get("special", False):
            raise _unsupported(f"the added token {token['content']!r} ({odd[0] if odd else 'not special'})", source)
        special[str(token["content"])] = token["id"]
    return special


def check_ids(ids: list[Any], source: str) -> None:
    """Ids must be 0, 1, 2 ... without holes or repeats."""
    if any(type(id) is not int for id in ids):
        raise TypeError("an id is not a whole number")
    if sorted(ids) != list(range(len(ids))):
        seen: set[int] = set()
        twice = next((id for id in ids if id in seen or seen.add(id)), None)  # type: ignore[func-returns-value]
        missing = next((i for i in range(len(ids)) if i not in seen), None)
        problem = f"id {twice} is used twice" if twice is not None else f"id {missing} belongs to no token"
        raise _unsupported(f"its numbering ({problem})", source)


def _parse_word_level(document: Json, vocab: dict[str, int], special: dict[str, int], source: str) -> Parts:
    """Characters or words: whichever of our two layouts, written again from what was read, is this document."""
    found = Parts(kind="chars", vocab=vocab, special=special)
    again = characters_json(vocab, special, None)
    if document["pre_tokenizer"]["type"] == "Sequence":
        pattern = document["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"]
        punctuation = re.sub(r"\\(.)", r"\1", pattern[1:-4]) if pattern[:1] == "[" else ""  # cut_pattern undone
        found = replace(found, kind="words", punctuation=punctuation)
        again = words_json(vocab, special, None, punctuation)
    for part in ("pre_tokenizer", "decoder", "post_processor"):
        if document.get(part) != again[part]:
            raise _unsupported(f"its {part} (for a WordLevel model)", source)
    odd = next((token for token in vocab if not token or (len(token) > 1 and found.kind == "chars")), None)
    if odd is not None:
        raise _unsupported(f"the token {odd!r} (for {found.kind})", source)
    return found


def _check_byte_level(document: Json, source: str) -> None:
    """Refuse every switch of a BPE tokenizer.json that would give other ids than GPT-2's way."""
    model, cut = document["model"], document.get("pre_tokenizer") or {}
    for switch in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(switch):
            raise _unsupported(f"{switch} = {model[switch]!r} in its model", source)
    if cut.get("type") != "ByteLevel" or cut.get("add_prefix_space") or not cut.get("use_regex", True):
        raise _unsupported("its pre_tokenizer (only ByteLevel with GPT-2's cut and no prefix space)", source)
    if (document.get("decoder") or {}).get("type") != "ByteLevel":
        raise _unsupported("its decoder (only ByteLevel)", source)
    after = document.get("post_processor") or cut
    adds_nothing = after.get("type") == "TemplateProcessing" and after.get("special_tokens") == {}
    if after.get("type") != "ByteLevel" and not adds_nothing:
        raise _unsupported("its post_processor (it may add tokens around a text)", source)


def _read_merge(entry: Any) -> tuple[str, str]:
    """A merge is a list of two tokens, or in older files one string with a space between."""
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    return str(left), str(right)


def _unsupported(part: str, source: str) -> TokenizerError:
    return TokenizerError(
        f"{source}: {part} is not supported", "give a tokenizer saved by groundup, or a byte-level BPE such as GPT-2's"
    )


# Where tiktoken keeps the two GPT-2 files: sha1 of the address, as a file name. The sha256 are those it pins.
_ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def find_gpt2() -> dict[str, Path] | None:
    """GPT-2's two files on this machine: $GROUNDUP_DATA/gpt2-bpe, then tiktoken's cache; None if neither has both."""
    candidates: list[dict[str, Path]] = []
    if data := os.environ.get("GROUNDUP_DATA"):
        candidates.append({name: Path(data) / "gpt2-bpe" / name for name in GPT2_FILES})
    if (cache := _tiktoken_cache()) is not None:
        candidates.append({name: cache / hashlib.sha1((_ADDRESS + name).encode()).hexdigest() for name in GPT2_FILES})
    return next((files for files in candidates if all(path.is_file() for path in files.values())), None)


def _tiktoken_cache() -> Path | None:
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if name in os.environ:  # empty means: no cache
            return Path(os.environ[name]) if os.environ[name] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def read_gpt2(files: Mapping[str, Path]) -> Parts:
    """Read encoder.json (token -> id) and vocab.bpe (merges, one a line after a version line).

    Raises TokenizerError for a missing or altered file: GPT-2's vocabulary is one fixed thing, pinned by sha256.
    """
    for name, digest in GPT2_FILES.items():
        try:
            content = files[name].read_bytes()
        except OSError as error:
            raise TokenizerError(
                f"cannot read GPT-2's {name} at {files[name]}: {error.strerror}", GPT2_ADVICE
            ) from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise TokenizerError(f"{files[name]} is not GPT-2's {name}: its sha256 differs", GPT2_ADVICE)
    vocab = disk.read_json(files["encoder.json"])
    special = {"<|endoftext|>": vocab.pop("<|endoftext|>")}
    lines = files["vocab.bpe"].read_text(encoding="utf-8").split("\n")[1:-1]
    return Parts(kind="bpe", vocab=vocab, special=special, merges=tuple(_read_merge(line) for line in lines))


GPT2_ADVICE = (
    f"put encoder.json and vocab.bpe from {_ADDRESS} into $GROUNDUP_DATA/gpt2-bpe, "
    "or run tiktoken.get_encoding('gpt2') once on a machine with a network and point TIKTOKEN_CACHE_DIR at its cache"
)
