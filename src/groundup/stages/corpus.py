"""Text as a stage wants it: training ids, validation ids, the tokenizer that made them, and how batches are cut.

In: the text and token settings of a stage. Out: `Corpus`; what was prepared stays in a folder, so that a resumed run
finds the same ids. From it, the `Source` of training samples.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.batches import DocumentWindows, PackedDocuments, RandomWindows, Source, Windows
from groundup.errors import DataError, SettingsError, TokenizerError
from groundup.settings import Pretrain, TokenizeSettings
from groundup.stages.start import Start, tokenizer_of
from groundup.text import catalog
from groundup.text import read as readers
from groundup.tokens import prepare as preparing
from groundup.tokens.prepare import MANIFEST, Prepared
from groundup.tokens.shards import Shards
from groundup.tokens.tokenizer import Tokenizer

MANY = 64  # documents: with fewer, where they begin says little about what a model will be asked for


@dataclass(frozen=True)
class Corpus:
    """Ids (n,) to train on, where their documents start, ids to evaluate on; tokenizer, fingerprint and sources."""

    tokenizer: Tokenizer
    train: np.ndarray
    documents: np.ndarray
    valid: np.ndarray
    fingerprint: str
    sources: list[str]


def read(settings: TokenizeSettings, *, folder: Path, start: Start | None = None) -> Corpus:
    """Open shards made before, or prepare the text into `folder` (at once if that was done before).

    The tokenizer is that of `start`, where it has one, else what the settings name. Raises DataError where there
    is no text, or none left to train on, and TokenizerError for shards that another tokenizer made.
    """
    given = start.tokenizer if start else None
    if not settings.data:
        raise SettingsError("no text was given", "add --data FILE, a folder, a glob or a name such as tinyshakespeare")
    first = Path(settings.data[0])
    if (first / MANIFEST).exists():
        if len(settings.data) > 1:
            raise SettingsError(
                f"{first} holds shards, and --data names more beside it", "prepare all the text into one folder"
            )
        made = preparing.opened(first)
        if start and given and made.tokenizer.fingerprint not in start.same:
            raise TokenizerError(
                f"{first} was prepared with another tokenizer than the model's",
                "give the text itself, or prepare it again: groundup prepare --tokenizer MODEL",
            )
        return _corpus(made, given)
    if given is None and settings.vocabulary is None:
        given = tokenizer_of(settings.tokenizer)
    with preparing.shown() as progress:
        if given is None:
            return _corpus(preparing.from_settings(settings, folder, progress=progress))
        sources = readers.sources(settings.data, field=settings.field, progress=progress)
        job = preparing.Job(sources, given, folder, settings.validation, settings.split, workers=settings.workers)
        return _corpus(preparing.carry_out(job, progress=progress), given)


def sampling(settings: Pretrain, text: Corpus, context: int) -> str:
    """What `--sampling auto` means for this text: "documents" where most of many are shorter than the context.

    A window cut anywhere then shows the model few beginnings at the place where it will be asked to begin: with stories
    of half a window 3 of 50 came out consistent, against 18 of 50 when windows opened with a story. In long texts a
    beginning is rare, and where windows open matters little. `--stride` is a wish for windows.
    """
    if settings.sampling != "auto":
        return settings.sampling
    sizes = np.diff(text.documents.astype(np.int64), append=len(text.train))
    short = len(sizes) >= MANY and np.median(sizes) < context and settings.stride is None
    return "documents" if short else "windows"


def source(settings: Pretrain, text: Corpus, context: int) -> Source:
    """The training samples that `settings.sampling`, decided, asks for."""
    if settings.sampling == "random":
        return RandomWindows(text.train, length=context, seed=settings.seed)
    if settings.sampling == "documents":
        return DocumentWindows(text.train, text.documents, length=context)
    if settings.sampling == "packed":
        known = text.tokenizer
        start = known.end_of_text if known.bos is None else known.bos  # what an empty prompt begins with
        return PackedDocuments(text.train, text.documents, length=context, start=start)
    return Windows(text.train, length=context, stride=settings.stride)


def _corpus(prepared: Prepared, tokenizer: Tokenizer | None = None) -> Corpus:
    """What was prepared, opened; `tokenizer` stands in for an equal one that knows fewer special tokens."""
    fingerprint = prepared.tokenizer.fingerprint
    train = Shards.open(prepared.train, fingerprint=fingerprint)
    valid = Shards.open(prepared.valid, fingerprint=fingerprint).tokens if prepared.valid else train.tokens[:0]
    if not train.count:
        raise DataError(f"{prepared.folder} holds no training tokens", "give more text, or a smaller --validation")
    sources = [_describe(str(source["name"]), str(source["sha256"])) for source in prepared.sources[:100]]
    return Corpus(
        tokenizer or prepared.tokenizer,
        train.tokens,
        train.documents,
        valid,
        f"{train.header.crc32:08x}-{train.count}",
        sources,
    )


def _describe(name: str, sha256: str) -> str:
    """A line for the model's card: name, hash, and licence where the catalog knows it."""
    entry = catalog.ENTRIES.get(name)
    return f"{name}, sha256 {sha256}" + (f", licence {entry.licence}" if entry else "")
