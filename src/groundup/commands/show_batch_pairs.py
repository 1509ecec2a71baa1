"""The pairs of `groundup show-batch reward` and `dpo`: both answers, as the stage's loss gets them.

In: preferences through the template. Out: `Made`, the very source that the stage draws its batches from, with what is
true of all its pairs (`Facts`); `seen`, one pair of a batch.
"""

from dataclasses import dataclass

import numpy as np

from groundup.batches import Batch, Pairs, WholePairs
from groundup.commands.show_batch_page import Part, Shown, Token, letters, spelled
from groundup.errors import SettingsError
from groundup.evaluate.scoring import filler_of, judged
from groundup.generate.chat import teach
from groundup.settings import ShowBatch
from groundup.stages import tuning
from groundup.text import preferences
from groundup.tokens import Tokenizer
from groundup.tokens.pairs import GatheredPairs, PairRow, pair_rows

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Facts:
    """What is true of all pairs that are learnt from.

    `chosen_is_longer`: share of pairs whose chosen answer has more letters, before any is cut.
    `chosen_tokens`, `rejected_tokens`: tokens of an answer in its row on average, with its end. `margins`: smallest,
    mean and largest of the `with_margin` pairs that have one.
    """

    chosen_is_longer: float
    chosen_tokens: float
    rejected_tokens: float
    with_margin: int
    margins: tuple[float, float, float] | None

    def words(self) -> list[str]:
        """The same, line by line.

        >>> print("\\n".join(Facts(0.81, 31.5, 20.0, 0, None).words()))
        chosen is longer in 81.0 % of pairs: 31.5 tokens on average, rejected 20.0
        length alone tells most pairs apart: look whether the model learns more than to be long
        """
        share = 100 * self.chosen_is_longer
        lines = [f"chosen is longer in {share:.1f} % of pairs: {self.chosen_tokens:.1f} tokens on average, "
                 f"rejected {self.rejected_tokens:.1f}"]  # fmt: skip
        if what := preferences.told_by_length(self.chosen_is_longer):
            lines.append(f"length alone tells most pairs apart: look whether the model learns more than to be {what}")
        if self.margins:
            least, mean, most = self.margins
            lines.append(f"margins from {least:g} to {most:g}, {mean:.2f} on average, of {self.with_margin:,} pairs")
        return lines


@dataclass(frozen=True)
class Made:
    """A source of pairs, where each was read, and how they were made."""

    source: Pairs | WholePairs
    found: GatheredPairs
    wheres: list[str]
    tokenizer: Tokenizer
    style: str
    facts: Facts


def prepare(settings: ShowBatch, tokenizer: Tokenizer, context: int) -> Made:
    """All pairs of the data as the stage makes them; raises UserError where the stage would refuse them."""
    if settings.batching == "packed":
        raise SettingsError("pairs are not packed: their rows stand side by side", "give --batching bucketed or padded")
    taught = teach(tokenizer, settings.template, settings.add_tokens)
    read = [pair for name in settings.data for pair in preferences.read(name)]
    # a score is read at a row's last token, so that all of it goes in; the last target of a policy does not
    room = context - 1 if settings.stage == "reward" else context
    found = pair_rows(taught.tokenizer, taught.template, read, context=room)
    fill = tuning.filler(taught.tokenizer)
    source: Pairs | WholePairs = Pairs(found.rows, pad=fill)
    if settings.stage == "reward":
        source = _judged(found, taught.tokenizer, fill)
    chosen, rejected = found.answer_tokens
    margins = [margin for place in found.places if (margin := read[place].margin) is not None]
    facts = Facts(
        chosen_is_longer=preferences.chosen_is_longer(read[place] for place in found.places),
        chosen_tokens=chosen,
        rejected_tokens=rejected,
        with_margin=len(margins),
        margins=(min(margins), sum(margins) / len(margins), max(margins)) if margins else None,
    )
    wheres = [read[place].where for place in found.places]
    return Made(source, found, wheres, taught.tokenizer, taught.style, facts)


def _judged(found: GatheredPairs, tokenizer: Tokenizer, fill: int) -> WholePairs:
    """Each row up to the token whose state is scored, as groundup reward has them."""
    filler = filler_of(tokenizer)
    rows = [PairRow(judged(row.chosen, filler), judged(row.rejected, filler), row.margin) for row in found.rows]
    return WholePairs(rows, pad=fill)


def seen(batch: Batch, place: int, index: int, *, made: Made) -> Shown:
    """Pair number `index`, which is number `place` of the batch: its better and its worse row."""
    pair, filler, parts = made.found.rows[index], 0, list[Part]()
    for side, row, ids in ((SIDES[0], place, pair.chosen.ids), (SIDES[1], int(batch.count) + place, pair.rejected.ids)):
        whole = "lengths" in batch.fields
        tokens, size = _scored(made, batch, row) if whole else _learnt(made, batch, row, len(ids) - 1)
        learnt = sum(token.mark in "LS" for token in tokens)
        told = f"{len(tokens):,} tokens" + (f", {learnt:,} of them learnt" if learnt else "")
        apart = f", margin {pair.margin:g}" if pair.margin and side == SIDES[0] else ""
        parts.append(Part(f"{made.wheres[index]}, {side}: {told}{apart}", tokens))
        filler += batch.tokens.shape[1] - size
    return Shown(parts, filler)


def _learnt(made: Made, batch: Batch, row: int, size: int) -> tuple[list[Token], int]:
    """A row that is predicted token by token, and the places it fills."""
    ids = np.concatenate((batch.tokens[row, :1].numpy(), batch.fields["targets"][row, :size].numpy()))
    weight = np.concatenate(([0], batch.fields["weight"][row, :size].numpy()))
    return spelled(made.tokenizer, ids, letters(made.tokenizer, ids, weight)), size


def _scored(made: Made, batch: Batch, row: int) -> tuple[list[Token], int]:
    """A row that is scored where it ends, and the places it fills."""
    size = int(batch.fields["lengths"][row])
    ids = batch.tokens[row, :size].numpy()
    return spelled(made.tokenizer, ids, [*letters(made.tokenizer, ids[:-1], np.zeros(size - 1)), "R"]), size
