"""The pass over the text that fills a folder of shards, and can go on where it was killed.

In: sources, a tokenizer, a division. Out: `train.tokens` and `valid.tokens`. Every few seconds the files are synced and
`cursor.json` notes how far they are good; the next run drops what lies beyond, and so ends in the same bytes.

One process reads, divides and writes, in order; others may encode between (workers.py). So the files depend neither on
how many there are nor on who is first.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.errors import DataError, UserError
from groundup.text.read import Piece, Source, Survey
from groundup.tokens.division import Division
from groundup.tokens.learning import Progress
from groundup.tokens.shards import ShardWriter, parts
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.workers import Ids, encode_each

CURSOR = "cursor.json"
SAVE_SECONDS = 5.0  # a killed run repeats at most this much work
BATCH = 1 << 20  # characters that travel to a worker at a time, at least


@dataclass
class Cursor:
    """How far the text is encoded."""

    source: int = 0
    pieces: int = 0  # of this source
    documents: int = 0  # finished, of all sources
    characters: int = 0  # of all sources
    bytes: int = 0
    inside: bool = False  # a document


class Part(NamedTuple):
    """What one split gets of a piece; `goes_on`: the split has the beginning of this document already."""

    split: str
    text: str
    goes_on: bool


class Work(NamedTuple):
    """A piece of text with its place: the number of its source and document, and its parts."""

    source: int
    document: int
    piece: Piece
    parts: list[Part]


@dataclass
class Batch:
    """Some pieces in a row."""

    works: list[Work]

    @property
    def texts(self) -> list[str]:
        """What is to be encoded."""
        return [part.text for work in self.works for part in work.parts]

    @property
    def goes_on(self) -> list[bool]:
        """Which of them are the rest of another."""
        return [part.goes_on for work in self.works for part in work.parts]


@dataclass
class Encoder:
    """One folder being filled: what is read, how it is divided, and how far it came."""

    sources: Sequence[Source]
    tokenizer: Tokenizer
    out: Path
    division: Division
    totals: Survey
    workers: int = 1
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
        with closing(encode_each(self._batches(), self.tokenizer, workers=self.workers)) as encoded:
            for batch, found in encoded:
                self._write_batch(batch, found)
                if time.monotonic() - saved >= SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
                progress("encoding", cursor.bytes, self.totals.bytes)
        cursor.source, cursor.pieces = len(self.sources), 0
        if (cursor.documents, cursor.bytes) != (self.totals.documents, self.totals.bytes):
            raise DataError("the text changed while it was read", "prepare it again when nothing writes to it any more")
        self._save()

    def _batches(self) -> Iterator[Batch]:
        """The pieces from the cursor on; they are read ahead of it."""
        works, size = list[Work](), 0
        for work in self._works():
            works.append(work)
            size += len(work.piece.text)
            if size >= BATCH:
                yield Batch(works)
                works, size = [], 0
        if works:
            yield Batch(works)

    def _works(self) -> Iterator[Work]:
        document, characters, skip = self.cursor.documents, self.cursor.characters, self.cursor.pieces
        inside, begun = self.cursor.inside, {name for name, writer in self.writers.items() if writer.tokens}
        for number in range(self.cursor.source, len(self.sources)):
            for piece in islice(self.sources[number].pieces(), skip, None):
                divided = self.division.parts(document, characters, piece.text)
                # a document that the boundary divides begins in both splits
                parts = [Part(name, text, goes_on=inside and name in begun) for name, text in divided]
                yield Work(number, document, piece, parts)
                inside, begun = not piece.ends, begun | {part.split for part in parts}
                document, characters = document + piece.ends, characters + len(piece.text)
            skip = 0

    def _write_batch(self, batch: Batch, found: Ids) -> None:
        """Hand each text its ids; what the tokenizer cannot express is reported with the name of the source."""
        lengths, start = iter(found.lengths.tolist()), 0
        for work in batch.works:
            arrays = []
            for length in islice(lengths, len(work.parts)):
                arrays.append(found.ids[start : start + length])
                start += length
            if found.refused and len(arrays) < len(work.parts):
                kind, what, fix = found.refused
                raise kind(f"{self.sources[work.source].name}, document {work.document + 1}: {what}", fix)
            self._put(work, arrays)

    def _put(self, work: Work, arrays: Sequence[np.ndarray]) -> None:
        """Write the ids of one piece into the split, or the two splits, it belongs to."""
        cursor, writer, piece = self.cursor, None, work.piece
        if cursor.source != work.source:
            cursor.source, cursor.pieces = work.source, 0
        for part, ids in zip(work.parts, arrays, strict=True):
            writer = self.writers[part.split]
            if not part.goes_on:
                writer.add(np.array(self.tokenizer.start, dtype=np.uint32), bytes=0)
                writer.begin()  # behind the bos: a window opens with the id before
            size = len(part.text.encode("utf-8"))
            writer.add(ids, bytes=size)
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


def encoded(tokenizer: Tokenizer, text: str, source: Source, document: int, *, goes_on: bool) -> np.ndarray:
    """Ids of a piece; what the tokenizer cannot express is reported with the name of the source."""
    try:
        return tokenizer.encode_array(text, goes_on=goes_on)
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
