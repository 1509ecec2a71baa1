"""Pairs of answers as a run keeps them: divided once, written to RUN/data, made into rows of both sides.

In: settings of a stage that learns from pairs, and its run folder. Out: the parts of the data as `Preference`s
(`divided`), and `Rows`, the same as ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.batches.pairs import Pairs
from groundup.errors import DataError
from groundup.generate import chat as chats
from groundup.settings import Tuning
from groundup.stages import data, tuning
from groundup.stages.words import say
from groundup.text import preferences
from groundup.text.preferences import Preference
from groundup.text.split import Split
from groundup.tokens.pairs import GatheredPairs, pair_rows
from groundup.tokens.rows import stop_ids

PARTS = {"train": "the training pairs", "valid": "the validation pairs", "test": "the test pairs"}


def parts(out: Path) -> Split[Preference]:
    """The three parts that a run keeps in RUN/data; raises CheckpointError where one is missing."""
    return data.parts(out, preferences.read)


def divided(settings: Tuning, out: Path) -> tuple[Split[Preference], dict[str, Any]]:
    """The parts of a run, and how they came about.

    Raises DataError where there is no pair, or too few to divide.
    """
    notes = data.divided(out, partial(_made, settings), preferences.write)
    return parts(out), notes


def _made(settings: Tuning) -> tuple[Split[Preference], dict[str, Any]]:
    """Read all data, and divide it so that no prompt is in two parts."""
    rows = [pair for name in settings.data for pair in preferences.read(name)]
    if not rows:
        raise DataError(f"no pair in {', '.join(settings.data)}", "give prompts with a chosen and a rejected answer")
    split = preferences.split(
        rows, validation=settings.validation, test=settings.test, seed=settings.seed, protocol=settings.protocol
    )
    return split, {"read": len(rows), "repeated": split.duplicates, "protocol": settings.protocol}


class BothSides(Pairs):
    """Pairs as a run counts them: a pair takes twice the places of its longer row, and `filler` of them hold nothing.

    So memory is looked for by the places, and tokens are counted by what stands in them (stages/tuning.py).
    """

    @property
    def places(self) -> NDArray[np.int64]:
        """Places (n,) that both rows of each pair take beside each other."""
        return 2 * self.lengths

    @property
    def filler(self) -> float:
        """Share of all places that hold no token."""
        real = sum(len(row.ids) - 1 for pair in self.rows for row in (pair.chosen, pair.rejected))
        return 1 - real / int(self.places.sum())


@dataclass(frozen=True)
class Rows:
    """Pairs as rows of ids, part by part; None for a part of which nothing can be measured."""

    taught: chats.Taught
    found: dict[str, GatheredPairs | None]

    @property
    def kept(self) -> dict[str, GatheredPairs]:
        """The parts that have rows."""
        return {name: rows for name, rows in self.found.items() if rows is not None}

    @property
    def counts(self) -> dict[str, int]:
        """Pairs of each part that have rows."""
        return {name: len(rows.rows) if rows else 0 for name, rows in self.found.items()}

    def fingerprints(self) -> dict[str, str]:
        """A hash of each part's rows: their ids, and which of them are learnt."""
        return {
            name: tuning.fingerprint(
                [[*row.ids, *map(int, row.learn)] for pair in rows.rows for row in (pair.chosen, pair.rejected)]
            )
            for name, rows in self.kept.items()
        }

    def sources(self, reference: Mapping[str, NDArray[np.float32]] | None) -> dict[str, BothSides]:
        """Each part as batches take it, with what the reference says of it: (n, 2) in nats, chosen and rejected."""
        pad = tuning.filler(self.taught.tokenizer)
        return {
            name: BothSides(rows.rows, pad=pad, reference=None if reference is None else reference[name])
            for name, rows in self.kept.items()
        }


def rows_of(split: Split[Preference], taught: chats.Taught, *, context: int) -> Rows:
    """The parts as rows; raises DataError where no training pair is left, and only says so of the other parts."""
    found: dict[str, GatheredPairs | None] = {}
    for name, pairs in split.parts().items():
        found[name] = None
        if not pairs and name != "train":
            continue
        try:
            found[name] = pair_rows(taught.tokenizer, taught.template, pairs, context=context, source=PARTS[name])
        except DataError as error:
            if name == "train":
                raise
            say(name, f"nothing is measured on {error.what}; {error.fix}")
    return Rows(taught, found)


def tell(split: Split[Preference], notes: dict[str, Any], rows: Rows) -> None:
    """What was read, left out and kept, and whether length alone tells the answers apart, for the person."""
    repeated = f"{notes['repeated']:,} repeated left out, " if notes["repeated"] else ""
    say("pairs", f"{notes['read']:,} read, {repeated}" + ", ".join(f"{n:,} {name}" for name, n in rows.counts.items()))
    taught = rows.taught
    ends = " ".join(repr(taught.tokenizer.decode([id])) for id in stop_ids(taught.tokenizer, taught.template))
    say("template", taught.style + (f", an answer ends with {ends}" if ends else ""))
    for name, part in rows.kept.items():
        if name == "train" or part.cut or part.dropped:
            for line in part.words().split("\n"):
                say(name, line)
    for name, pairs in split.parts().items():
        if count := preferences.contradictions(pairs):
            times = "once" if count == 1 else f"{count:,} times"
            say(
                name,
                f"{times} two answers to one prompt come in both orders: such pairs teach nothing, and one is wrong",
            )
    longer = preferences.chosen_is_longer(split.train[place] for place in rows.kept["train"].places)
    what = preferences.told_by_length(longer)
    bias = f": a model can learn to be {what} instead of what makes them better" if what else ""
    say("lengths", f"the chosen answer is the longer one in {100 * longer:.0f} % of the training pairs{bias}")
