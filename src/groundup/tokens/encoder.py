"""The pass over the text that fills a folder of shards, and can go on where it was killed.

In: sources, a tokenizer, a division. Out: `train.tokens` and `valid.tokens`. Every few seconds the files are synced and
`cursor.json` notes how far they are good; the next run drops what lies beyond, and so ends in the same bytes.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from groundup.errors import DataError, UserError
from groundup.text.read import Piece, Source, Survey
from groundup.tokens.division import Division
from groundup.tokens.shards import ShardWriter, parts
from groundup.tokens.tokenizer import Tokenizer

CURSOR = "cursor.json"
SAVE_SECONDS = 5.0  # a killed run repeats at most this much work

Progress = Callable[[str, int, int], None]  # what is going on, bytes of text done, bytes of text in all


@dataclass
class Cursor:
    """How far the text is encoded."""

    source: int = 0
    pieces: int = 0  # of this source
    documents: int = 0  # finished, of all sources
    characters: int = 0  # of all sources
    bytes: int = 0
    inside: bool = False  # a document


@dataclass
class Encoder:
    """One folder being filled: what is read, how it is divided, and how far it came."""

    sources: Sequence[Source]
    tokenizer: Tokenizer
    out: Path
    division: Division
    totals: Survey
    cursor: Cursor = field(default_factory=Cursor)
    writers: dict[str, ShardWriter] = field(default_factory=dict)
    states: dict[str, dict[str, int]] = field(default_factory=dict)  # of all writers, also of those that are closed

    def run(self, progress: Progress) -> None:
        """Encode all, from where a killed run stopped. Raises DataError or TokenizerError for unusable text."""
        self._restore()
        names = ("train",) if self.division.kind == "none" else ("train", "valid")
        with ExitStack() as stack:
            for name in names:
                # A shard that has its name already was closed when all was encoded; the kill came between two closes.
                if name not in self.states or not shard(self.out, name).exists():
                    self.writers[name] = stack.enter_context(self._writer(name, self.states.get(name)))
            self._encode(progress)
            for writer in self.writers.values():
                writer.close()
        for name in names:
            for part in parts(shard(self.out, name)):
                part.unlink(missing_ok=True)

    def _writer(self, name: str, state: Mapping[str, int] | None) -> ShardWriter:
        vocabulary, fingerprint = self.tokenizer.vocabulary, self.tokenizer.fingerprint
        return ShardWriter(shard(self.out, name), vocabulary=vocabulary, fingerprint=fingerprint, state=state)

    def _encode(self, progress: Progress) -> None:
        cursor, saved = self.cursor, time.monotonic()
        while cursor.source < len(self.sources):
            source = self.sources[cursor.source]
            for piece in islice(source.pieces(), cursor.pieces, None):
                self._put(piece, source)
                if time.monotonic() - saved >= SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
                progress("encoding", cursor.bytes, self.totals.bytes)
            cursor.source, cursor.pieces = cursor.source + 1, 0
        if (cursor.documents, cursor.bytes) != (self.totals.documents, self.totals.bytes):
            raise DataError("the text changed while it was read", "prepare it again when nothing writes to it any more")
        self._save()

    def _put(self, piece: Piece, source: Source) -> None:
        """Encode one piece into the split, or the two splits, it belongs to."""
        cursor, writer = self.cursor, None
        for name, text in self.division.parts(cursor.documents, cursor.characters, piece.text):
            writer = self.writers[name]
            if not cursor.inside or not writer.tokens:  # a document that the boundary divides begins in both splits
                writer.begin()
            size = len(text.encode("utf-8"))
            writer.add(encoded(self.tokenizer, text, source, cursor.documents), bytes=size)
            cursor.inside, cursor.bytes = True, cursor.bytes + size
        end = self.tokenizer.end_of_text
        if piece.ends and writer and end is not None and self.totals.documents > 1:
            writer.add(np.array([end]), bytes=0)
        cursor.pieces, cursor.characters = cursor.pieces + 1, cursor.characters + len(piece.text)
        cursor.documents, cursor.inside = cursor.documents + piece.ends, not piece.ends

    def _save(self) -> None:
        self.states |= {name: writer.state() for name, writer in self.writers.items()}
        write_json(self.out / CURSOR, {"cursor": asdict(self.cursor), "writers": self.states})

    def _restore(self) -> None:
        """Take up the cursor and the states of the writers, if a killed run left any."""
        try:
            saved = json.loads((self.out / CURSOR).read_text(encoding="utf-8"))
            self.cursor, self.states = Cursor(**saved["cursor"]), dict(saved["writers"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.out / CURSOR} is damaged", "delete the folder and prepare the text again") from None


def encoded(tokenizer: Tokenizer, text: str, source: Source, document: int) -> np.ndarray:
    """Ids of a piece; what the tokenizer cannot express is reported with the name of the source."""
    try:
        return tokenizer.encode_array(text)
    except UserError as error:
        raise type(error)(f"{source.name}, document {document + 1}: {error.what}", error.fix) from None


def shard(folder: Path, name: str) -> Path:
    """Where a split lies: `train` or `valid`."""
    return Path(folder) / f"{name}.tokens"


def write_json(path: Path, value: object) -> None:
    """Write aside, sync, rename."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
