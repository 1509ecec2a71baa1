"""What a run folder says about itself, read without trusting any of it.

In: a run folder, finished, interrupted, still running or written by an older version. Out: `Run`. Only a folder that is
no run at all is an error; whatever else is missing or unreadable is left empty.
"""

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from groundup.errors import DataError, GroundupError
from groundup.journal import SAMPLE, Journal
from groundup.settings import command_of
from groundup.tokens.prepare import MANIFEST
from groundup.tokens.shards import Shards

LARGEST_STEP = 2**53  # beyond it a float, and with it every axis, is no longer exact


class Table:
    """Records as columns: `step` int64 (n,), sorted; any other column float64 (n,), NaN where there is no number.

    >>> Table([{"step": 1, "loss": 4.0}, {"step": 2, "loss": None}]).column("loss").tolist()
    [4.0, nan]
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        known = [record for record in records if 0 <= record["step"] < LARGEST_STEP]
        self.records = sorted(known, key=lambda record: int(record["step"]))
        self.step = np.array([record["step"] for record in self.records], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.records)

    def column(self, name: str) -> np.ndarray:
        """One column, float64 (n,)."""
        return np.array([number(record.get(name)) for record in self.records], dtype=np.float64)

    @cached_property
    def loss(self) -> np.ndarray:
        """Nats per token, float64 (n,)."""
        return self.column("loss")

    def whole(self, name: str = "loss") -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of the records that have this number."""
        values = self.column(name)
        there = np.isfinite(values)
        return self.step[there], values[there]


def number(value: Any) -> float:
    """A finite number as float, NaN for everything else.

    >>> number(3), number(None), number("3"), number(True)
    (3.0, nan, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


@dataclass(frozen=True)
class Sample:
    """What the model wrote at one step."""

    step: int
    text: str


@dataclass(frozen=True)
class Run:
    """One run: what was asked, what was measured, what it wrote. Counts are None where nothing tells them."""

    folder: Path = Path("run")
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: Table = field(default_factory=Table)
    evaluations: Table = field(default_factory=Table)
    skipped: tuple[tuple[int, str], ...] = ()  # (step, reason) of updates that could not be made
    resumed: tuple[int, ...] = ()  # steps after which a new process went on
    samples: tuple[Sample, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    adapters: int | None = None  # numbers in them, where they are all that the run keeps
    vocabulary: int | None = None
    train_tokens: int | None = None
    valid_tokens: int | None = None
    sources: tuple[Mapping[str, Any], ...] = ()
    shards: Path | None = None  # the folder of the training tokens
    command: str = "pretrain"  # that made it
    test: Mapping[str, Any] = field(default_factory=dict)  # of a classifier: what its test rows say, test.json

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name or self.folder.resolve().name

    @property
    def step(self) -> int:
        """The last step that was written down."""
        return int(max((table.step[-1] for table in (self.train, self.evaluations) if len(table)), default=0))

    @property
    def planned(self) -> int | None:
        """Steps the run was to make."""
        return self.count("steps")

    @property
    def finished(self) -> bool:
        """True once the last planned step is written down; False where the plan is not known."""
        return self.planned is not None and self.step >= self.planned

    def count(self, setting: str) -> int | None:
        """A setting that is a whole number above zero, or None."""
        value = self.value(setting)
        return int(value) if value >= 1 else None

    def value(self, setting: str) -> float:
        """A setting that is a number, 0 where it is none."""
        value = number(self.settings.get(setting))
        return 0.0 if math.isnan(value) else value

    @property
    def epoch(self) -> float | None:
        """Tokens of one pass over the training text; overlapping windows show each token more than once."""
        if not self.train_tokens:
            return None
        context, stride = self.count("context"), self.count("stride")
        return self.train_tokens * (context / stride if context and stride else 1.0)


def load(folder: Path) -> Run:
    """Read a run folder; raises DataError if it is none.

    >>> load(Path("no/such/run"))
    Traceback (most recent call last):
    groundup.errors.DataError: no folder at no/such/run
      -> give the folder of a run: what `groundup pretrain --out` named
    """
    folder = Path(folder)
    fix = "give the folder of a run: what `groundup pretrain --out` named"
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, no run folder" if folder.exists() else f"no folder at {folder}", fix)
    if not any((folder / name).is_file() for name in ("settings.toml", "metrics.jsonl")):
        raise DataError(f"{folder} is no run folder: it has neither settings.toml nor metrics.jsonl", fix)
    try:
        records, samples = Journal(folder).read(), _samples(folder)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}", "check its permissions") from None
    return _described(folder, records, samples)


def _described(folder: Path, records: list[dict[str, Any]], samples: tuple[Sample, ...]) -> Run:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_kind.setdefault(_kind(record), []).append(record)
    settings, train = _toml(folder / "settings.toml"), Table(by_kind.get("train", []))
    model = next((folder / name for name in ("model", "best") if (folder / name).is_dir()), folder / "model")
    config, shards = _json(model / "config.json"), _shards(folder, settings)
    train_tokens, vocabulary = _header(shards, "train")
    vocabulary = int(number(config.get("vocab_size"))) if number(config.get("vocab_size")) > 0 else vocabulary
    if "id2label" in config:  # it guesses among classes, not among ids
        vocabulary = None
    return Run(
        folder=folder,
        settings=settings,
        train=train,
        evaluations=Table(by_kind.get("eval", [])),
        skipped=tuple((record["step"], str(record["skipped"])) for record in train.records if record.get("skipped")),
        resumed=tuple(record["step"] for record in by_kind.get("resume", [])),
        samples=samples,
        card=_json(model / "card.json"),
        config=config,
        parameters=_parameters(model / "model.safetensors"),
        adapters=_parameters(model / "adapter_model.safetensors"),
        vocabulary=vocabulary,
        train_tokens=train_tokens,
        valid_tokens=_header(shards, "valid")[0],
        sources=_sources(shards),
        shards=shards,
        command=command_of(folder / "settings.toml"),
        test=_json(folder / "test.json"),
    )


def _kind(record: Mapping[str, Any]) -> str:
    """What a record is about; the earliest journals did not say."""
    return str(record.get("kind") or ("eval" if "perplexity" in record else "train"))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, not UTF-8, not TOML
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _samples(folder: Path) -> tuple[Sample, ...]:
    """The samples of samples.md, in order."""
    path = folder / "samples.md"
    content = path.read_bytes() if path.is_file() else b""
    found = []
    for match in SAMPLE.finditer(content):
        start, fence = match.end("sample") + len(b"text\n"), len(match["sample"])
        text = content[start : match.end() - len(b"\n\n\n") - fence]
        found.append(Sample(int(match["step"]), text.decode("utf-8", errors="replace")))
    return tuple(found)


def _parameters(weights: Path) -> int | None:
    """Numbers in a weights file, by its header alone."""
    try:
        with safe_open(weights, framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    except (OSError, SafetensorError):
        return None


def _shards(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """Where the training tokens lie: in the run, or in a folder of shards that was given as its text."""
    data = settings.get("data")
    given = [Path(str(data[0]))] if isinstance(data, list) and data else []
    return next((path for path in (folder / "data", *given) if (path / MANIFEST).is_file()), None)


def _header(shards: Path | None, split: str) -> tuple[int | None, int | None]:
    """Tokens and vocabulary of one split."""
    try:
        header = Shards.open((shards or Path()) / f"{split}.tokens", check=False).header
    except (GroundupError, OSError):
        return None, None
    return header.tokens, header.vocabulary


def _sources(shards: Path | None) -> tuple[Mapping[str, Any], ...]:
    """Name, size and hash of every file of text."""
    found = _json(shards / MANIFEST).get("sources") if shards else None
    return tuple(source for source in found if isinstance(source, dict)) if isinstance(found, list) else ()
