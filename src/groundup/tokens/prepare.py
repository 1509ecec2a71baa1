"""Text -> a folder of shards that training can map into memory, or ids in memory for an evaluation.

In: sources of text, the name of a tokenizer. Out: `train.tokens`, `valid.tokens`, the tokenizer, and `prepared.json`,
which says what they were made from. Memory stays bounded, a run that was killed goes on where it stopped, and several
processes write the same bytes as one. Nobody else may work in the folder meanwhile (lock.py).

The end-of-text id follows each document, if the tokenizer has one and there are at least two documents: a single text,
such as the book's story, stays as it is. A tokenizer learns from the whole text (bpe: 50 MB of it), validation part
included, as the book and the lecture do: the validation loss then judges the model alone, and nothing is unknown.
"""

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from groundup import journal, tokens
from groundup.errors import DataError, Stopped, UserError
from groundup.lock import LOCK, locked
from groundup.settings import TokenizeSettings
from groundup.text import read
from groundup.text.read import Piece, Source, Survey, survey
from groundup.tokens.division import Division, Split, divide
from groundup.tokens.encoder import CURSOR, Encoder, encoded, shard, write_json
from groundup.tokens.learning import LEARNT, Progress, choose_tokenizer, silent
from groundup.tokens.shards import Shards, parts
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.workers import how_many

MANIFEST = "prepared.json"
FORMAT = 1  # raise it when an older groundup could misread the folder
KEYS = {"request", "recipe", "division", "sources", "done"}


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Progress]:
    """Progress as lines on the screen, one for each kind of work, with MB/s and time left."""
    lines: dict[str, journal.Progress] = {}

    def show(doing: str, done: int, total: int) -> None:
        if doing not in lines:
            line = journal.Progress(doing, total=total / 1e6, unit="MB", quiet=quiet)
            stack.pop_all().close()
            lines[doing] = stack.enter_context(line)
        lines[doing].update(done / 1e6)

    with ExitStack() as stack:
        yield show


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A finished folder; documents, characters and bytes count the whole text, without end-of-text ids."""

    folder: Path
    tokenizer: Tokenizer
    train: Path
    valid: Path | None
    train_tokens: int
    valid_tokens: int
    documents: int
    characters: int
    bytes: int
    split: str  # "fraction", "document" or "none"
    sources: tuple[Mapping[str, Any], ...]  # name, stamp, documents, characters, bytes, sha256 of each


@dataclass(frozen=True)
class Job:
    """What is asked for; `recipe` notes how the tokenizer was made, so that a second run need not learn it again.

    `workers` is the number of processes that encode, None for one per core (only one for a small text); the shards are
    the same.
    """

    sources: Sequence[Source]
    tokenizer: Tokenizer
    out: Path
    validation: float = 0.1
    split: Split = "auto"
    recipe: str = ""
    workers: int | None = None

    def request(self) -> dict[str, Any]:
        """What a folder must have been made with, besides the same text, to be gone on with."""
        return {"tokenizer": self.tokenizer.fingerprint, "validation": self.validation, "split": self.split}


def prepare(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    out: Path,
    *,
    validation: float = 0.1,
    split: Split = "auto",
    progress: Progress = silent,
) -> Prepared:
    """Tokenize sources into the folder `out`, or go on with it; finished and unchanged, it is opened at once.

    `split="fraction"`: the first int((1 - validation) * characters) characters train, the rest validate (the book,
    section 5.1.3). `"document"`: whole documents, drawn by `in_validation`. `"auto"`: by document from 20 on.
    Raises DataError for text that cannot be used, and for a folder that holds anything else.
    """
    return carry_out(Job(sources, tokenizer, Path(out), validation, split), progress=progress)


def from_settings(settings: TokenizeSettings, out: Path, *, progress: Progress = silent) -> Prepared:
    """Sources, tokenizer and shards as the settings say. A tokenizer that was learnt into `out` is not learnt again."""
    sources = read.sources(settings.data, field=settings.field, progress=progress)
    with _working(out):
        return _carry_out(_job(settings, sources, out, progress), progress)


def carry_out(job: Job, *, progress: Progress = silent) -> Prepared:
    """`prepare`, for a request at hand."""
    with _working(job.out):
        return _carry_out(job, progress)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends the work as Ctrl-C does."""


@contextmanager
def _working(out: Path) -> Iterator[None]:
    """Hold the folder, unless all is done there; being stopped or out of room is answered with how to go on."""
    known = read_manifest(out)
    try:
        with nullcontext() if known and known["done"] else locked(out, doing="groundup prepare"), _terminable():
            yield
    except OSError as error:
        what = f"cannot write {out}: {error.strerror or error}"
        raise DataError(what, "make room or check permissions, then repeat the command: it goes on") from None
    except KeyboardInterrupt as error:
        what = f"stopped; {out} keeps what is done" if (out / MANIFEST).exists() else "stopped; nothing was written yet"
        status = 143 if isinstance(error, _Terminated) else 130
        raise Stopped(what, "repeat the command to go on", status=status) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """While in force, SIGTERM raises `_Terminated`; only the main thread hears signals."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _job(settings: TokenizeSettings, sources: Sequence[Source], out: Path, progress: Progress) -> Job:
    """The request that settings make, its tokenizer learnt or taken from the folder."""
    known, recipe = read_manifest(out), f"{settings.tokenizer} {settings.vocabulary}"
    unchanged = known and known["recipe"] == recipe and _stamps(known) == [source.stamp for source in sources]
    if unchanged and (out / "tokenizer.json").exists():
        tokenizer = tokens.load(out)
    else:
        tokenizer = choose_tokenizer(settings.tokenizer, sources, vocabulary=settings.vocabulary, progress=progress)
    recipe = recipe if settings.tokenizer in LEARNT else ""
    return Job(sources, tokenizer, out, settings.validation, settings.split, recipe, settings.workers)


def _carry_out(job: Job, progress: Progress) -> Prepared:
    known = read_manifest(job.out)
    records = _surveyed(job.sources, known, progress)
    division = divide(_totals(records), job.validation, job.split, whole_words=job.tokenizer.kind == "words")
    if known:
        _refuse_other(job, known, records)
    if not known or not known["done"]:
        _write(job, records, division, progress)
    (job.out / CURSOR).unlink(missing_ok=True)
    return opened(job.out, tokenizer=job.tokenizer)


def opened(folder: Path, *, tokenizer: Tokenizer | None = None) -> Prepared:
    """A finished folder of shards, with its own tokenizer if none is at hand.

    Raises DataError if it is no such folder, is unfinished, was damaged, or was made by another tokenizer.
    """
    manifest = read_manifest(Path(folder))
    if not manifest or not manifest["done"]:
        state = "is unfinished" if manifest else "holds no token shards"
        raise DataError(f"{folder} {state}", "run `groundup prepare`; with the same settings it goes on")
    tokenizer, totals = tokenizer or tokens.load(folder), _totals(manifest["sources"])
    names = ("train",) if manifest["division"] == "none" else ("train", "valid")
    shards = {name: Shards.open(shard(folder, name), fingerprint=tokenizer.fingerprint) for name in names}
    return Prepared(
        folder=Path(folder),
        tokenizer=tokenizer,
        train=shards["train"].path,
        valid=shards["valid"].path if "valid" in shards else None,
        train_tokens=shards["train"].count,
        valid_tokens=shards["valid"].count if "valid" in shards else 0,
        documents=totals.documents,
        characters=totals.characters,
        bytes=totals.bytes,
        split=manifest["division"],
        sources=tuple(manifest["sources"]),
    )


class Tokens(NamedTuple):
    """Ids in memory: `ids` uint32 (n,), `documents` where each starts, `bytes` of text behind the ids."""

    ids: np.ndarray
    documents: np.ndarray
    bytes: int


def tokenize(sources: Sequence[Source], tokenizer: Tokenizer, *, limit: int | None = None) -> Tokens:
    """The ids `prepare` would write, in memory, at most `limit` of them; raises DataError if there is no text.

    Where `limit` cuts a text of words, whose tokens have no fixed number of bytes, the bytes are in proportion.
    """
    arrays, starts, count, size, document, inside = [], [], 0, 0, 0, False
    end = np.array([] if tokenizer.end_of_text is None else [tokenizer.end_of_text], dtype=np.uint32)
    begin = np.array(tokenizer.start, dtype=np.uint32)
    for source, piece in _pieces(sources):
        if limit is not None and count >= limit:
            break
        if not inside and document:  # only now it is known that there is more than one
            arrays.append(end)
            count += len(end)
        if not inside:
            arrays.append(begin)
            count += len(begin)
            starts.append(count)  # behind the bos: a window opens with the id before
        arrays.append(encoded(tokenizer, piece.text, source, document, goes_on=inside))
        count, size = count + len(arrays[-1]), size + len(piece.text.encode("utf-8"))
        document, inside = document + piece.ends, not piece.ends
    if not arrays:
        raise DataError(f"no text at all in {', '.join(source.name for source in sources[:3])}", "give files with text")
    ids = np.concatenate([*arrays, end] if document > 1 and not inside else arrays).astype(np.uint32, copy=False)
    return _limited(Tokens(ids, np.array(starts, dtype=np.int64), size), tokenizer, limit)


def _pieces(sources: Sequence[Source]) -> Iterator[tuple[Source, Piece]]:
    return ((source, piece) for source in sources for piece in source.pieces())


def _limited(whole: Tokens, tokenizer: Tokenizer, limit: int | None) -> Tokens:
    if limit is None or len(whole.ids) <= limit:
        return whole
    ids, lengths = whole.ids[:limit], tokenizer.byte_lengths()
    size = whole.bytes * limit // len(whole.ids) if lengths is None else int(lengths[ids].sum())
    return Tokens(ids, whole.documents[whole.documents < limit], size)


# what the folder says


def read_manifest(out: Path) -> dict[str, Any] | None:
    """What the folder was made from; None if it is absent or empty. Raises DataError if it is something else."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError(f"{out} is a file, not a folder", "give a folder for the shards with --out")
    if not (out / MANIFEST).exists():
        foreign = sorted(path.name for path in out.iterdir() if path.name not in (f"{MANIFEST}.part", LOCK))
        if foreign:
            raise DataError(
                f"{out} holds other files: {', '.join(foreign[:3])}", "give a new or empty folder with --out"
            )
        return None
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        known = manifest["format"]
        if known == FORMAT and not KEYS <= manifest.keys():
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"cannot read {out / MANIFEST}", "delete the folder and prepare the text again") from None
    if known != FORMAT:
        raise DataError(f"{out / MANIFEST} has format {known}, this groundup reads {FORMAT}", "prepare the text again")
    return dict(manifest)


def _stamps(known: Mapping[str, Any]) -> list[str]:
    return [record["stamp"] for record in known["sources"]]


def _surveyed(sources: Sequence[Source], known: Mapping[str, Any] | None, progress: Progress) -> list[dict[str, Any]]:
    """One record a source, taken from the folder's manifest where the source did not change since."""
    before = {record["stamp"]: record for record in known["sources"]} if known else {}
    total, done, records = sum(source.bytes for source in sources), 0, []
    for source in sources:
        record = before.get(source.stamp)
        if record is None:
            found = survey(source, progress=partial(_reading, progress, done, total))
            record = {"name": source.name, "stamp": source.stamp, **asdict(found)}
        records.append(record)
        done += source.bytes
    if not _totals(records).characters:
        raise DataError(f"no text at all in {', '.join(source.name for source in sources[:3])}", "give files with text")
    return records


def _reading(progress: Progress, before: int, total: int, size: int) -> None:
    progress("reading", before + size, max(before + size, total))


def _totals(records: Sequence[Mapping[str, Any]]) -> Survey:
    documents, characters, size = (
        sum(record[name] for record in records) for name in ("documents", "characters", "bytes")
    )
    return Survey(documents, characters, size)


def _refuse_other(job: Job, known: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Raise DataError naming what differs between folder and request; files renamed or touched do not."""
    difference = _text_difference(known["sources"], records)  # first: other text often means another tokenizer too
    for name, value in job.request().items():
        if not difference and known["request"][name] != value:
            difference = f"{name} was {str(known['request'][name])[:16]}, now {str(value)[:16]}"
    if difference:
        raise DataError(f"{job.out} holds shards of another request: {difference}", "give another --out, or delete it")


def _text_difference(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    """The first source whose text is another, in words; empty if all are the same."""
    for old, new in zip_longest(before, now):
        if old is None or new is None:
            return f"{new['name']} is new" if old is None else f"{old['name']} is missing"
        if (old["documents"], old["sha256"]) != (new["documents"], new["sha256"]):
            return f"the text of {new['name']} is not that of {old['name']} before"
    return ""


def _write(job: Job, records: Sequence[Mapping[str, Any]], division: Division, progress: Progress) -> None:
    """Fill the folder; text that cannot be used leaves nothing behind, unless there was something to go on with."""
    job.out.mkdir(parents=True, exist_ok=True)
    fresh = not (job.out / CURSOR).exists()
    manifest = {"format": FORMAT, "request": job.request(), "recipe": job.recipe, "division": division.kind}
    manifest |= {"sources": list(records), "done": False}
    write_json(job.out / MANIFEST, manifest)
    job.tokenizer.save(job.out)
    totals = _totals(records)
    many = how_many(job.workers, totals.bytes)
    try:
        Encoder(job.sources, job.tokenizer, job.out, division, totals, many).run(progress)
    except UserError:
        if fresh:
            _discard(job.out)
        raise
    write_json(job.out / MANIFEST, manifest | {"done": True})


def _discard(out: Path) -> None:
    """Remove what an unusable text left half-written."""
    ours = [MANIFEST, CURSOR, "tokenizer.json", "tokenizer_config.json"]
    for path in [*(out / name for name in ours), *parts(shard(out, "train")), *parts(shard(out, "valid"))]:
        path.unlink(missing_ok=True)
