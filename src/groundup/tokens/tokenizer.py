"""Tokenizer: the one face of all tokenizers. Text in, ids out; ids in, text out; saved as a folder anyone can open.

Special tokens (end of text, begin, padding ...) never enter through user text: `encode` reads "<|endoftext|>" as plain
characters, unless the caller says `special=True` or names the ones allowed. By id they can always be used.
"""

import codecs
import copy
import hashlib
import json
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from groundup.errors import TokenizerError, nearest
from groundup.tokens import files, formats, manner
from groundup.tokens.manner import ROLES, Manner


class Tokenizer(ABC):
    """Text to ids and back. Subclasses: Characters and Words (simple.py), BytePairs (fast.py), Adopted (adopted.py).

    `vocabulary` counts all ids, special tokens included; they are 0 .. vocabulary - 1. `special` maps name to id, and
    `manner` says how they are used. `cut` names how text is cut before byte pairs are merged (cuts.py), None elsewhere.

    >>> from groundup import tokens
    >>> tokenizer = tokens.train("chars", ["cat hat"])
    >>> tokenizer.encode("that"), tokenizer.decode([2, 1, 4]), tokenizer.vocabulary, tokenizer.special
    ([4, 3, 1, 4], 'cat', 6, {'<|endoftext|>': 5})
    >>> tokenizer.encode("a<|endoftext|>", special=True)
    [1, 5]
    """

    kind: ClassVar[str]
    cut: str | None = None

    def __init__(self, size: int, special: Mapping[str, int]) -> None:
        self.special = dict(special)
        self.vocabulary = size + len(self.special)
        self.manner = Manner()

    # what a subclass provides

    @abstractmethod
    def _encode(self, text: str, start: int) -> list[int]:
        """Ids of text without special tokens; `start` is its offset in what the caller gave, for error messages."""

    @abstractmethod
    def _pieces(self, ids: Sequence[int], *, first: bool) -> list[bytes]:
        """The bytes each id adds to the decoded text; `first`: nothing was decoded before."""

    @abstractmethod
    def _form(self, special: Mapping[str, int]) -> formats.Json:
        """The content of tokenizer.json with these special tokens."""

    @abstractmethod
    def _renamed(self, special: Mapping[str, int]) -> Self:
        """The same tokenizer with other special tokens."""

    # ids and text

    def encode(self, text: str, *, special: bool | Collection[str] = False) -> list[int]:
        """Text to ids. `special`: False, special tokens in the text are plain text; True or names, those become ids.

        Raises TokenizerError for text the tokenizer cannot express, naming it and its place.
        """
        allowed = self._allowed(special)
        if not allowed:
            return self._encode(text, 0)
        names = "|".join(re.escape(name) for name in sorted(allowed, key=len, reverse=True))  # the longest match counts
        ids, start = [], 0
        for match in re.finditer(names, text):
            ids += [*self._encode(text[start : match.start()], start), self.special[match.group()]]
            start = match.end()
        return ids + self._encode(text[start:], start)

    def encode_array(self, text: str, *, goes_on: bool = False) -> np.ndarray:
        """The ids of `encode(text)` as a uint32 array (T,), made the quickest way there is.

        `goes_on`: the text is the rest of another, so nothing is put before it as SentencePiece puts a space.
        """
        return np.array(self._encode(text, 0), dtype=np.uint32)

    def encode_many(self, texts: Sequence[str], goes_on: Sequence[bool] = ()) -> tuple[np.ndarray, np.ndarray]:
        """The ids of some texts end to end, uint32 (T,), and how many each has, int64 (texts,).

        `goes_on`: of each text, whether it is the rest of another; none is where nothing is said.

        >>> from groundup import tokens
        >>> tokens.train("chars", ["cat hat"]).encode_many(["that", "", "a"])
        (array([4, 3, 1, 4, 1], dtype=uint32), array([4, 0, 1]))
        """
        rests = goes_on or [False] * len(texts)
        arrays = [self.encode_array(text, goes_on=rest) for text, rest in zip(texts, rests, strict=True)]
        ids = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.uint32)
        return ids, np.array([len(array) for array in arrays], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, with U+FFFD for bytes that are not UTF-8; raises TokenizerError for an id outside 0..V-1."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids to bytes, which need not be whole UTF-8."""
        return b"".join(self.pieces(ids))

    def pieces(self, ids: Iterable[int]) -> list[bytes]:
        """The bytes each id adds to the decoded text; joined, they are `decode_bytes(ids)`."""
        return self._pieces(self._checked(ids), first=True)

    def byte_lengths(self) -> np.ndarray | None:
        """Bytes of text each id stands for, int64 (V,), special tokens 0; None where that is not fixed (words)."""
        lengths = np.array([len(piece) for piece in self._pieces(range(self.vocabulary), first=True)], dtype=np.int64)
        lengths[list(self.special.values())] = 0
        return lengths

    def stream(self) -> "TextStream":
        """A decoder for ids that arrive one by one."""
        return TextStream(self)

    # special tokens

    def _role(self, role: str) -> int | None:
        """The id that a config names for the role, else the first of its usual names that is a special token."""
        names = (self.manner.names.get(role, ""), *ROLES[role])
        return next((self.special[name] for name in names if name in self.special), None)

    @property
    def end_of_text(self) -> int | None:
        """Id of the token between documents: <|endoftext|>, else the eos token, else None."""
        found = self._role("end_of_text")
        return self._role("eos") if found is None else found

    @property
    def eos(self) -> int | None:
        """Id of the token that ends a sequence: one named as in ROLES, else the end-of-text token, else None."""
        found = self._role("eos")
        return self._role("end_of_text") if found is None else found

    @property
    def bos(self) -> int | None:
        """Id of the token that begins a sequence, or None."""
        return self._role("bos")

    @property
    def pad(self) -> int | None:
        """Id of the token that fills short rows, or None."""
        return self._role("pad")

    @property
    def ends(self) -> list[int]:
        """The ids that end what a model writes: eos, end of text, and those generation_config.json names."""
        found = (self.eos, self.end_of_text, *self.manner.ends)
        return list(dict.fromkeys(id for id in found if id is not None))

    @property
    def unknown(self) -> int | None:
        """Id that stands for whatever the vocabulary lacks, or None: then that is an error."""
        return self._role("unknown")

    def with_special(self, names: Iterable[str]) -> Self:
        """A new tokenizer with these special tokens appended after the last id; names it already has keep theirs.

        Raises TokenizerError for a name that is empty or already an ordinary token.
        """
        special = dict(self.special)
        for name in names:
            if name not in special:
                special[name] = self.vocabulary + len(special) - len(self.special)
        return self._renamed(special).with_manner(self.manner)

    # how they are used

    @property
    def adds_bos(self) -> bool:
        """Whether a text begins with the bos token, as Llama's do; `encode` adds nothing: see `start`."""
        return self.manner.adds_bos and self.bos is not None

    @property
    def start(self) -> list[int]:
        """The ids that stand before a text: [] or [bos]."""
        return [self.bos] if self.manner.adds_bos and self.bos is not None else []

    @property
    def chat_template(self) -> str | None:
        """How a chat is written, in Jinja, or None."""
        return self.manner.chat_template

    def with_template(self, text: str | None) -> Self:
        """The same tokenizer with this chat template; raises TokenizerError for one that is far too long."""
        checked = None if text is None else manner.check_template(text)
        return self.with_manner(replace(self.manner, chat_template=checked))

    def with_manner(self, manner: Manner) -> Self:
        """The same tokenizer, used in another manner; ids and text are as before."""
        changed = copy.copy(self)
        changed.manner = manner
        return changed

    # saving

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the saved form, free of spacing and order of keys: equal fingerprints give equal ids."""
        content = self._form(self.special) | ({"adds_bos": True} if self.adds_bos else {})
        form = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(form.encode("utf-8", "surrogatepass")).hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json into `folder`, each at once or not at all.

        A chat template goes into the config and into chat_template.jinja. transformers' AutoTokenizer opens the folder.
        Unlike us it turns special tokens written in a text into ids, and puts `start` before a text by itself.
        """
        by_id = {id: name for name, id in self.special.items()}
        document = self._form(self.special)
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        config["model_input_names"] = ["input_ids", "attention_mask"]  # or transformers 4 adds token types to GPT-2
        for role, key in manner.KEYS.items():
            if (id := getattr(self, role)) is not None:
                config[key] = by_id[id]
        content: dict[str, formats.Json | str | None] = {
            "tokenizer.json": document,
            "tokenizer_config.json": config,
            manner.TEMPLATE: self.chat_template,
        }
        for id in self.start:
            config["add_bos_token"] = True
            document["post_processor"] = manner.adding(by_id[id], id)
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        files.write(Path(folder), content)

    # checks

    def _allowed(self, special: bool | Collection[str]) -> set[str]:
        if isinstance(special, bool):
            return set(self.special) if special else set()
        names = {special} if isinstance(special, str) else set(special)
        for name in names - self.special.keys():
            raise TokenizerError(f"{name!r} is not a special token here", nearest(name, self.special))
        return names

    def _checked(self, ids: Iterable[int]) -> list[int]:
        """Ids as plain ints, every one inside the vocabulary; arrays and tensors are welcome."""
        try:
            numbers = [operator.index(id) for id in (ids.tolist() if hasattr(ids, "tolist") else ids)]
        except TypeError as error:
            raise TokenizerError(f"ids must be one row of whole numbers: {error}", "give a list of ids") from None
        if numbers and (min(numbers) < 0 or max(numbers) >= self.vocabulary):
            wrong = next(id for id in numbers if not 0 <= id < self.vocabulary)
            what = f"id {wrong} is outside the vocabulary of {self.vocabulary:,}"
            raise TokenizerError(what, f"ids go from 0 to {self.vocabulary - 1:,}: is this the model's own tokenizer?")
        return numbers


class TextStream:
    """Text from ids that arrive one by one, never half a character.

    The concatenation of all that `push` and `close` return is `tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._first = True

    def push(self, id: int) -> str:
        """The text that is complete now; empty while a character waits for its last bytes."""
        [piece] = self._tokenizer._pieces(self._tokenizer._checked([id]), first=self._first)
        self._first = False
        return self._decoder.decode(piece)

    def close(self) -> str:
        """What is left: U+FFFD for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)


def check_special(special: Mapping[str, int], ordinary: Collection[str]) -> None:
    """Refuse special tokens that are empty or also ordinary tokens; raises TokenizerError."""
    for name in special:
        check_text(name)
        if not name or name in ordinary:
            what = "the empty string" if not name else f"{name!r}, already an ordinary token,"
            raise TokenizerError(f"{what} cannot be a special token", "choose a name such as <|endoftext|>")


def check_text(text: str, start: int = 0) -> int:
    """The size of text in bytes of UTF-8; raises TokenizerError for half a surrogate pair, which has no UTF-8.

    `start` is the offset of `text` in what the person gave, for the message.
    """
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        code, place = f"U+{ord(text[error.start]):04X}", start + error.start
        raise TokenizerError(
            f"the text holds half a surrogate pair, {code}, at character {place:,}",
            "it was decoded wrongly: read the file as UTF-8, or repair it with text.encode('utf-16', 'surrogatepass')",
        ) from None
