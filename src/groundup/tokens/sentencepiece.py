"""SentencePiece's own file, tokenizer.model, and llama2.c's copy of one, tok512.bin.

In: a path. Out: pieces, scores, kinds, from which making.py makes a tokenizer.json. Only BPE without rewriting of text
is read; Unigram, NFKC tables and the like are refused by name. Formats: sentencepiece_model.proto of
google/sentencepiece; tokenizer.py and run.c of karpathy/llama2.c.
"""

import math
import struct
from collections.abc import Mapping
from pathlib import Path

from groundup.errors import TokenizerError
from groundup.tokens import files, wire
from groundup.tokens.cuts import SPACE
from groundup.tokens.making import BYTE, CONTROL, NORMAL, UNKNOWN, USER, sentencepiece_json

_MODELS = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}
_ROLES = (("unk", 40, 0), ("bos", 41, 1), ("eos", 42, 2), ("pad", 43, (1 << 64) - 1))  # name, field, id if not said
Fields = Mapping[int, list[int | bytes]]


def read_model(path: Path) -> tuple[files.Json, files.Json]:
    """(tokenizer.json, tokenizer_config.json) of a tokenizer.model; raises TokenizerError naming what is not supported.

    Whether a text begins with <s> stands in no such file: it does if the config that lies beside says so, and Llama's
    classes say so by default. Here: yes, where there is a <s>.
    """
    content = files.read_file(path)
    try:
        model = _grouped(content)
        trainer, normalizer = _grouped(_last(model, 2, b"")), _grouped(_last(model, 3, b""))
        _check(trainer, normalizer, path)
        entries = [_piece(entry) for entry in model.get(1, [])]
    except (ValueError, TypeError, struct.error) as error:
        raise TokenizerError(
            f"{path} is not a SentencePiece model: {error}", "the file is damaged: save or copy it again"
        ) from None
    prefix_space = bool(_number(normalizer, 3, 1))
    own = next((piece for piece, _, kind in entries if kind == USER), None)
    if own is not None and prefix_space:
        raise TokenizerError(
            f"{path}: the user-defined symbol {own!r} beside a space before every text is not supported: SentencePiece "
            "puts that space elsewhere than tokenizer.json does",
            "give a model without user_defined_symbols, or the tokenizer.json that was published with this one",
        )
    roles: dict[str, int | None] = {}
    for role, number, usual in _ROLES:
        claimed = wire.signed(_number(trainer, number, usual))
        roles[role] = claimed if 0 <= claimed < len(entries) else None  # -1: there is none
    return sentencepiece_json(
        [piece for piece, _, _ in entries],
        [score for _, score, _ in entries],
        [kind for _, _, kind in entries],
        prefix_space=prefix_space,
        adds_bos=roles["bos"] is not None,
        **roles,
    )


def _check(trainer: Fields, normalizer: Fields, path: Path) -> None:
    """Refuse what is not BPE on the text as it is."""
    kind = _number(trainer, 3, 1)
    problem = ""
    if kind != 2:
        problem = f"the model type {_MODELS.get(kind, kind)!r} (only BPE)"
    elif _last(normalizer, 2, b"") or _last(normalizer, 6, b""):
        problem = f"the normalization {_text(_last(normalizer, 1, b''))!r} (only identity)"
    elif _number(normalizer, 4, 1):
        problem = "remove_extra_whitespaces (it rewrites text)"
    elif not _number(normalizer, 5, 1):
        problem = "escape_whitespaces = false"
    elif _number(trainer, 24, 0):
        problem = "treat_whitespace_as_suffix"
    if problem:
        raise TokenizerError(f"{path}: {problem} is not supported", "use a BPE model such as Llama 2's")


def _piece(entry: int | bytes) -> tuple[str, float, int]:
    """One SentencePiece message: 1 piece, 2 score, 3 type."""
    found = _grouped(entry)
    [score] = struct.unpack("<f", struct.pack("<I", _number(found, 2, 0)))
    return _text(_last(found, 1, b"")), score, _number(found, 3, NORMAL)


def _grouped(message: int | bytes) -> Fields:
    """The values of a message by field number."""
    if not isinstance(message, bytes):
        raise ValueError(f"the number {message} where a message should be")
    found: dict[int, list[int | bytes]] = {}
    for number, value in wire.fields(message):
        found.setdefault(number, []).append(value)
    return found


def _last(fields: Fields, number: int, usual: int | bytes) -> int | bytes:
    return fields.get(number, [usual])[-1]  # of a field that is there twice the last counts


def _number(fields: Fields, number: int, usual: int) -> int:
    value = _last(fields, number, usual)
    if not isinstance(value, int):
        raise ValueError(f"field {number} should be a number, but is {len(value):,} bytes")
    return value


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError(f"the number {value} where text should be")
    return value.decode("utf-8")


def read_llama2c(path: Path, vocabulary: int) -> tuple[list[str], list[float]]:
    """(pieces, scores) of a llama2.c tokenizer with this many ids; spaces spelt as U+2581, as in SentencePiece.

    The file: int32 length of the longest token; then for each id float32 score, int32 length, bytes; all little-endian.
    Ids 0 <unk>, 1 <s>, 2 </s>, then the 256 bytes <0x00> ... <0xFF>. Raises TokenizerError for sizes that do not fit.
    """
    content = files.read_file(path)
    pieces: list[str] = []
    scores: list[float] = []
    longest, place = (struct.unpack_from("<i", content)[0] if len(content) >= 4 else -1), 4
    for id in range(vocabulary):
        if len(content) - place < 8:
            raise _broken(path, f"it ends after {id:,} of {vocabulary:,} tokens")
        score, size = struct.unpack_from("<fi", content, place)
        place += 8
        if not 0 <= size <= min(longest, len(content) - place):
            left = len(content) - place
            raise _broken(path, f"token {id} claims {size:,} bytes; {left:,} are left, the longest has {longest:,}")
        if not math.isfinite(score):
            raise _broken(path, f"token {id} has the score {score}")
        try:
            pieces.append(_spelt(content[place : place + size].decode("utf-8")))
        except UnicodeDecodeError as error:
            raise _broken(path, f"token {id} is not UTF-8 ({error.reason})") from None
        scores.append(score)
        place += size
    if place != len(content):
        raise _broken(path, f"{len(content) - place:,} bytes follow {vocabulary:,} tokens")
    expected = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if pieces[: len(expected)] != expected[: len(pieces)]:
        raise _broken(path, "its first tokens are not <unk>, <s>, </s> and the 256 bytes")
    return pieces, scores


def kind_of(id: int) -> int:
    """The kind of the piece with this id in a llama2.c tokenizer."""
    return (UNKNOWN, CONTROL, CONTROL)[id] if id < 3 else BYTE if id < 259 else NORMAL


def _spelt(token: str) -> str:
    """SentencePiece's spelling: llama2.c writes spaces as they are, and <s> between new lines."""
    return token.strip("\n") if token in ("\n<s>\n", "\n</s>\n") else token.replace(" ", SPACE)


def _broken(path: Path, problem: str) -> TokenizerError:
    return TokenizerError(
        f"{path} is not a llama2.c tokenizer for this model: {problem}", "give the tokenizer that belongs to the model"
    )
