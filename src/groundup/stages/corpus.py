"""Text as a stage wants it: training ids, validation ids, and the tokenizer that made them.

In: the text and token settings of a stage. Out: `Corpus`; what was prepared stays in a folder, so that a resumed run
finds the same ids.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.errors import DataError, SettingsError
from groundup.settings import TokenizeSettings
from groundup.text import catalog
from groundup.tokens import prepare as preparing
from groundup.tokens.prepare import MANIFEST, Prepared
from groundup.tokens.shards import Shards
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Corpus:
    """Ids (n,) to train on, where their documents start, ids to evaluate on; tokenizer, fingerprint and sources."""

    tokenizer: Tokenizer
    train: np.ndarray
    documents: np.ndarray
    valid: np.ndarray
    fingerprint: str
    sources: list[str]


def read(settings: TokenizeSettings, *, folder: Path) -> Corpus:
    """Open shards made before, or prepare the text into `folder` (at once if that was done before).

    Raises DataError where there is no text, or none left to train on.
    """
    if not settings.data:
        raise SettingsError("no text was given", "add --data FILE, a folder, a glob or a name such as tinyshakespeare")
    first = Path(settings.data[0])
    if (first / MANIFEST).exists():
        if len(settings.data) > 1:
            raise SettingsError(
                f"{first} holds shards, and --data names more beside it", "prepare all the text into one folder"
            )
        return _corpus(preparing.opened(first))
    with preparing.shown() as progress:
        return _corpus(preparing.from_settings(settings, folder, progress=progress))


def _corpus(prepared: Prepared) -> Corpus:
    fingerprint = prepared.tokenizer.fingerprint
    train = Shards.open(prepared.train, fingerprint=fingerprint)
    valid = Shards.open(prepared.valid, fingerprint=fingerprint).tokens if prepared.valid else train.tokens[:0]
    if not train.count:
        raise DataError(f"{prepared.folder} holds no training tokens", "give more text, or a smaller --validation")
    sources = [_describe(str(source["name"]), str(source["sha256"])) for source in prepared.sources[:100]]
    return Corpus(
        prepared.tokenizer, train.tokens, train.documents, valid, f"{train.header.crc32:08x}-{train.count}", sources
    )


def _describe(name: str, sha256: str) -> str:
    """A line for the model's card: name, hash, and licence where the catalog knows it."""
    entry = catalog.ENTRIES.get(name)
    return f"{name}, sha256 {sha256}" + (f", licence {entry.licence}" if entry else "")
