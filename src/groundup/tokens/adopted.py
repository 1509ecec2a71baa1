"""Adopted tokenizers: a tokenizer.json of the ecosystem kept as it came, and run by the `tokenizers` library.

In: the document and its config; or the parts that GGUF and SentencePiece files hold (making.py turns them into both).
Out: a `Tokenizer`. Byte-level BPE with a cut of cuts.py, and SentencePiece's BPE with byte fallback. checking.py looks
at every part that would change ids; what is not known is refused by name, never approximated.
"""

import copy
import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer as HFTokenizer

from groundup.errors import TokenizerError
from groundup.tokens import checking, formats, manner
from groundup.tokens.bpe import CHAR_TO_BYTE
from groundup.tokens.cuts import CUTS, SPACE
from groundup.tokens.kinds import build
from groundup.tokens.making import byte_level_json, sentencepiece_json
from groundup.tokens.tokenizer import Tokenizer, check_special, check_text

__all__ = ["Adopted", "byte_level_json", "from_document", "sentencepiece_json"]

Json = dict[str, Any]
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # how SentencePiece spells the token of one byte
# Every byte but those that no UTF-8 text holds (RFC 3629, section 3).
_IN_TEXT = frozenset(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}


class Adopted(Tokenizer):
    """A tokenizer.json that is none of our own, with the ids of the `tokenizers` library.

    Special tokens written in a text are plain characters, as everywhere here; added tokens that are not special (such
    as Qwen3's <think>) are found in any text. Qwen's cut composes characters first (NFC): text comes back composed.
    SentencePiece puts a space before a text and takes it away again when decoding.

    `vocabulary` is the largest id + 1. An id below it that has no token stands for no bytes: a model whose table of
    embeddings is larger than its vocabulary may draw one.

    >>> document, config = byte_level_json(list("ĠĊab") + ["ab", "<s>"], ["a b"], cut="smollm", special={"<s>": 5})
    >>> tokenizer = from_document(document, config=config, source="an example")
    >>> tokenizer.encode("ab\\na<s>"[:4]), tokenizer.pieces([4, 5]), tokenizer.bos
    ([4, 1, 2], [b'ab', b'<s>'], 5)
    """

    kind = "adopted"

    def __init__(self, document: Json, cut: str) -> None:
        """`document` as checking.checked gives it; raises TokenizerError for a numbering that cannot be kept."""
        self.cut: str = cut
        self._document, plain = _settled(document)
        tokens = checking.ids_of(self._document)
        special = {token["content"]: token["id"] for token in document["added_tokens"] if token["special"]}
        super().__init__(max(tokens.values()) + 1 - len(special), special)
        self._runs: dict[tuple[frozenset[str], bool], HFTokenizer] = {(frozenset(), False): plain}
        self._spelled = [b""] * self.vocabulary
        found = {token["content"] for token in document["added_tokens"]}  # in a text as they are written
        for token, id in tokens.items():
            written = CUTS[cut].by_bytes and token in found
            self._spelled[id] = token.encode("utf-8") if written else _spell(token, by_bytes=CUTS[cut].by_bytes)
        self._drops_space = any(part.get("type") == "Strip" for part in checking.members(document["decoder"]))
        self._missing = _missing(document["model"], by_bytes=CUTS[cut].by_bytes)
        self._refuse_leaks()

    def encode(self, text: str, *, special: bool | Collection[str] = False) -> list[int]:
        """Text to ids; `special` as in Tokenizer.encode. With True the ids are those of transformers.

        Raises TokenizerError for text that holds a byte the vocabulary has no token for.
        """
        allowed = self._allowed(special)
        return self._run(text, 0, frozenset(allowed))

    def _encode(self, text: str, start: int) -> list[int]:
        return self._run(text, start, frozenset())

    def encode_array(self, text: str, *, goes_on: bool = False) -> np.ndarray:
        """As Tokenizer.encode_array. Behind an added token a text goes on as any other: with a space, if there is one.

        So the space is left out up to the first of them only.
        """
        if not goes_on or CUTS[self.cut].by_bytes:
            return super().encode_array(text)
        places = [text.find(token["content"]) for token in self._document["added_tokens"] if not token["special"]]
        first = min((place for place in places if place >= 0), default=len(text))
        ids = self._run(text[:first], 0, frozenset(), goes_on=True) + self._encode(text[first:], first)
        return np.array(ids, dtype=np.uint32)

    def _run(self, text: str, start: int, allowed: frozenset[str], *, goes_on: bool = False) -> list[int]:
        check_text(text, start)
        if self._missing:
            self._refuse_missing(text)
        return self._ids(text, allowed, goes_on=goes_on)

    def _ids(self, text: str, allowed: frozenset[str], *, goes_on: bool = False) -> list[int]:
        key = (allowed, goes_on)
        if key not in self._runs:
            self._runs[key] = _runner(_unprefixed(self._document) if goes_on else self._document, allowed)
        return list(self._runs[key].encode(text, add_special_tokens=False).ids)

    def _refuse_missing(self, text: str) -> None:
        """The library drops without a word what it has no token for."""
        composed = unicodedata.normalize("NFC", text) if CUTS[self.cut].normalizer == {"type": "NFC"} else text
        lost = self._missing & set(composed.encode("utf-8"))
        if lost:
            raise TokenizerError(
                f"the text holds the byte 0x{min(lost):02X}, for which this vocabulary has no token",
                "leave that character out, or use a tokenizer that has all bytes",
            )

    def _refuse_leaks(self) -> None:
        """Refuse special tokens that plain text would become: a vocabulary may hold one as an ordinary word, too."""
        unknown = self._document["model"].get("unk_token")
        for name, id in self.special.items():
            if name != unknown and id in self._ids(name, frozenset()):
                raise TokenizerError(
                    f"the special token {name!r} comes out of plain text in this vocabulary",
                    "a text could forge it: use another tokenizer",
                )

    def _pieces(self, ids: Sequence[int], *, first: bool) -> list[bytes]:
        pieces = [self._spelled[id] for id in ids]
        if first and self._drops_space and pieces:
            pieces[0] = pieces[0].removeprefix(b" ")
        return pieces

    def byte_lengths(self) -> np.ndarray:
        """Bytes of text each id stands for, int64 (V,), special tokens 0; the dropped first space counts."""
        lengths = np.array([len(piece) for piece in self._spelled], dtype=np.int64)
        lengths[list(self.special.values())] = 0
        return lengths

    def _form(self, special: Mapping[str, int]) -> formats.Json:
        return dict(self._document if special == self.special else self._renamed(special)._document)

    def _renamed(self, special: Mapping[str, int]) -> Self:
        fresh = {name: id for name, id in special.items() if name not in self.special}
        check_special(fresh, checking.ids_of(self._document))
        added = [*self._document["added_tokens"], *(checking.added(name, id) for name, id in fresh.items())]
        return type(self)(self._document | {"added_tokens": added}, self.cut)

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: without the library's objects, whose switches do not travel."""
        return self.__dict__ | {"_runs": {}}


def from_document(document: Json, *, config: Json | None = None, source: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json and its tokenizer_config.json; our own classes where it is one of theirs.

    What the document says is done, whatever class the config names: transformers 5 builds a LlamaTokenizer anew and
    then joins a space that begins a text otherwise than the file, SentencePiece and llama.cpp do. Raises TokenizerError
    naming the part of `source` that is not supported. Layout: the `tokenizers` library's serialisation
    (huggingface.co/docs/tokenizers).
    """
    try:
        return _open(document, config or {}, source)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise TokenizerError(
            f"{source} is not a tokenizer.json: {reason}", "the file is damaged: save or copy it again"
        ) from None


def _open(document: Json, config: Json, source: str) -> Tokenizer:
    kind = document["model"].get("type", "BPE" if "merges" in document["model"] else None)
    if kind not in ("BPE", "WordLevel"):
        raise checking.refused(source, f"the model type {kind!r}")
    if kind == "WordLevel":
        tokenizer = build(formats.parse(document | {"post_processor": None}, source))
        return _mannered(tokenizer, manner.of(document, config, tokenizer.special, source))
    ids = checking.ids_of(document)
    used = manner.of(document, config, ids, source)
    document = document | {"post_processor": None}
    promoted = checking.promoted(document, config, used.names.values(), source)
    if promoted is document and checking.is_plain(document):
        return _mannered(build(formats.parse(document, source)), used)
    checked, cut = checking.checked(promoted, source)
    return _mannered(Adopted(checked, cut), used)


def _mannered(tokenizer: Tokenizer, used: manner.Manner) -> Tokenizer:
    """With what the config says beyond what the names of the tokens say anyway."""
    names = {role: name for role, name in used.names.items() if getattr(tokenizer, role) != tokenizer.special.get(name)}
    return tokenizer.with_manner(replace(used, names=names))


def _spell(token: str, *, by_bytes: bool) -> bytes:
    """The bytes of a token, as the library's decoders have it: one that is not all stand-ins is plain text."""
    if by_bytes:
        known = all(char in CHAR_TO_BYTE for char in token)
        return bytes(CHAR_TO_BYTE[char] for char in token) if known else token.encode("utf-8")
    return bytes([int(token[3:5], 16)]) if _BYTE.fullmatch(token) else token.replace(SPACE, " ").encode("utf-8")


def _missing(model: Json, *, by_bytes: bool) -> frozenset[int]:
    """The bytes that would be dropped from a text; none where there is an unknown token, which stands for them."""
    vocab = model["vocab"]
    if model.get("unk_token") in vocab:
        return frozenset()
    spell = formats.show_bytes if by_bytes else lambda byte: f"<0x{byte[0]:02X}>"
    return frozenset(byte for byte in _IN_TEXT if spell(bytes([byte])) not in vocab)


def _runner(document: Json, allowed: frozenset[str]) -> HFTokenizer:
    """The library's tokenizer in which special tokens are plain text, but for the allowed ones.

    Its switch turns all that are marked special into text, so the allowed ones are marked otherwise.
    """
    added = [
        token | {"special": token["special"] and token["content"] not in allowed} for token in document["added_tokens"]
    ]
    return _library(document | {"added_tokens": added})


def _unprefixed(document: Json) -> Json:
    """A document of SentencePiece's cut, without the space before a text."""
    changed = dict(document)
    if changed["normalizer"] is not None:
        changed["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if changed["pre_tokenizer"] is not None:
        kept = {key: value for key, value in changed["pre_tokenizer"].items() if key != "add_prefix_space"}
        changed["pre_tokenizer"] = kept | {"prepend_scheme": "never"}
    return changed


def _settled(document: Json) -> tuple[Json, HFTokenizer]:
    """(document, running tokenizer) such that every id is kept.

    The library numbers added tokens anew that the vocabulary lacks. Those whose number would change are put into the
    vocabulary. No merge makes them, so no plain text does, except where whole words are looked up (ignore_merges); such
    a one is refused later. Raises TokenizerError.
    """
    run = _library(document)
    moved = {token["content"]: token["id"] for token in document["added_tokens"]}
    moved = {name: id for name, id in moved.items() if run.token_to_id(name) != id}
    if not moved:
        return document, run
    document = copy.copy(document)
    document["model"] = document["model"] | {"vocab": document["model"]["vocab"] | moved}
    run = _library(document)
    for name, id in moved.items():
        if run.token_to_id(name) != id:
            raise TokenizerError(
                f"the added token {name!r} cannot keep its id {id}", "number the added tokens behind the vocabulary"
            )
    return document, run


def _library(document: Json) -> HFTokenizer:
    """The library's tokenizer; what is marked special is plain text to it."""
    try:
        run = HFTokenizer.from_str(json.dumps(document))
        run.encode_special_tokens = True
        return run
    except Exception as error:  # the library raises no narrower class
        raise TokenizerError(
            f"the tokenizers library refuses this tokenizer: {error}", "the file is damaged: save or copy it again"
        ) from None
