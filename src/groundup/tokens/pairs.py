"""From a pair of answers to two rows: the same prompt, and in each of them only its own answer to be learnt.

In: a tokenizer, a chat template, preferences. Out: `PairRow`s, and what became of the pairs that nothing can be learnt
from (`GatheredPairs`). Both rows are made as every conversation's is (tokens/rows.py): what comes before the answer has
the same ids in both, and is what a model is asked with.

A pair says something where its answers differ. So it is left out, and counted with the reason, where an answer is
empty, where both are the same, where the prompt fills the context, and where they differ only behind it. An answer
that is cut is counted too, but compared as far as it goes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.errors import DataError
from groundup.text.conversations import Conversation
from groundup.text.preferences import Preference
from groundup.text.template import ChatTemplate
from groundup.tokens.rows import ENDLESS, Row, chat_row, shortened
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.turns import stop_ids

EMPTY = "an answer is empty"
EQUAL = "both answers are the same"
FULL = "the prompt fills the context"
ALIKE = "both answers are the same up to the context"


@dataclass(frozen=True)
class PairRow:
    """The rows of the better and of the worse answer to one prompt; margin: how far apart they are, 0 if not said."""

    chosen: Row
    rejected: Row
    margin: float = 0.0


@dataclass(frozen=True)
class GatheredPairs:
    """The pairs that are learnt from, and what became of the others.

    `places`: the number that each pair had among those given. `dropped`: reason -> pairs. `cut`: pairs of which an
    answer lost something, `lost` ids in all. `longest`: ids of the longest row before it was cut. `remark`: what else
    a person should know, or "".
    """

    rows: list[PairRow]
    places: list[int]
    dropped: dict[str, int]
    cut: int
    lost: int
    longest: int
    remark: str = ""

    @property
    def tokens(self) -> int:
        """Ids of all rows that could be learnt: all but the first of each."""
        return sum(len(row.ids) - 1 for pair in self.rows for row in (pair.chosen, pair.rejected))

    @property
    def learnt_share(self) -> float:
        """Ids of answers, of `tokens`."""
        return sum(sum(map(sum, sides(pair))) for pair in self.rows) / self.tokens

    @property
    def answer_tokens(self) -> tuple[float, float]:
        """Ids of the better and of the worse answer, on average, as far as they were not cut."""
        counts = [[sum(learn) for learn in sides(pair)] for pair in self.rows]
        chosen, rejected = (sum(side) / len(counts) for side in zip(*counts, strict=True))
        return chosen, rejected

    def words(self) -> str:
        """All of it in words, a line for each thing worth knowing.

        >>> yes, no = (Row([1, 2, id], [False, False, True]) for id in (3, 4))
        >>> print(GatheredPairs([PairRow(yes, no)], [1], {EQUAL: 1}, cut=0, lost=0, longest=3).words())
        1 pair, 50.0 % of 4 tokens are answers
        1 pair left out: both answers are the same
        """
        lines = [f"{_pairs(len(self.rows))}, {100 * self.learnt_share:.1f} % of {self.tokens:,} tokens are answers"]
        if self.cut:
            lines.append(
                f"{self.cut:,} cut inside an answer, {self.lost:,} tokens lost: the longest row has {self.longest:,}"
            )
        lines += [f"{_pairs(count)} left out: {reason}" for reason, count in self.dropped.items()]
        return "\n".join([*lines, self.remark] if self.remark else lines)


def sides(pair: PairRow) -> tuple[list[bool], list[bool]]:
    """What is learnt of both rows."""
    return pair.chosen.learn, pair.rejected.learn


def pair_rows(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    preferences: Sequence[Preference],
    *,
    context: int,
    source: str = "the data",
) -> GatheredPairs:
    """Both rows of every pair, cut to `context` inputs, without the pairs that say nothing.

    A row has up to `context` + 1 ids, one more than a model reads, because the last is only a target; a reward model
    reads all of them, so ask for one less there. Errors call the pairs `source`. Raises DataError where nothing is
    left, with the reasons, and where the template refuses a prompt, naming the pair.

    >>> from groundup import tokens
    >>> tokenizer = tokens.train("chars", ["Q: hi A: yo"])
    >>> line = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    >>> template = ChatTemplate(line, eos="<|endoftext|>")
    >>> asked = ({"role": "user", "content": "hi"},)
    >>> found = pair_rows(tokenizer, template, [Preference(asked, "yo", "A"), Preference(asked, "yo", "")], context=8)
    >>> [tokenizer.decode(row.ids) for row in (found.rows[0].chosen, found.rows[0].rejected)], found.dropped
    (['hi<|endoftext|>yo<|endoftext|>', 'hi<|endoftext|>A<|endoftext|>'], {'an answer is empty': 1})
    """
    kept: list[PairRow] = []
    places: list[int] = []
    reasons: Counter[str] = Counter()
    longest = 0
    for place, preference in enumerate(preferences):
        reason = _unfit(preference)
        if not reason:
            whole = [_row(tokenizer, template, preference, answer) for answer in answers(preference)]
            chosen, rejected = (shortened(row, context) for row in whole)
            longest = max(longest, *(len(row.ids) for row in whole))
            reason = _unfit_rows(whole, [chosen, rejected], context)
        if reason:
            reasons[reason] += 1
            continue
        kept.append(PairRow(chosen, rejected, preference.margin or 0.0))
        places.append(place)
    if not kept:
        raise _nothing(reasons, source, longest)
    lost = [pair.chosen.lost + pair.rejected.lost for pair in kept if pair.chosen.lost or pair.rejected.lost]
    remark = "" if stop_ids(tokenizer, template) else ENDLESS
    return GatheredPairs(kept, places, dict(reasons), len(lost), sum(lost), longest, remark)


def answers(preference: Preference) -> tuple[str, str]:
    """The better answer, then the worse."""
    return preference.chosen, preference.rejected


def _row(tokenizer: Tokenizer, template: ChatTemplate, preference: Preference, answer: str) -> Row:
    """The prompt with one answer, which alone is to be learnt: earlier ones belong to the prompt."""
    asked = [{key: value for key, value in message.items() if key != "learn"} for message in preference.messages]
    last = {"role": "assistant", "content": answer, "learn": True}
    return chat_row(tokenizer, template, Conversation((*asked, last), preference.where), learn="marked")


def _unfit(preference: Preference) -> str:
    """Why a pair says nothing, "" where it may."""
    chosen, rejected = (answer.strip() for answer in answers(preference))  # templates put them in without white space
    return preference.fault or (EMPTY if not chosen or not rejected else EQUAL if chosen == rejected else "")


def _unfit_rows(whole: Sequence[Row], cut: Sequence[Row], context: int) -> str:
    """Why two rows say nothing, "" where they do."""
    if whole[0].ids == whole[1].ids:
        return EQUAL
    if not all(any(row.learn) for row in cut):
        return f"{FULL} of {context:,} tokens"
    return f"{ALIKE} of {context:,} tokens" if cut[0].ids == cut[1].ids else ""


def _nothing(reasons: Counter[str], source: str, longest: int) -> DataError:
    why = "; ".join(f"{_pairs(count)}: {reason}" for reason, count in reasons.items()) or "it has no pairs"
    short = any(reason.startswith((FULL, ALIKE)) for reason in reasons)
    longer = f"give a longer --context: {longest - 1:,} tokens would do, if the model can read so many"
    advice = longer if short else "give pairs of two answers that differ"
    return DataError(f"{source}: there is nothing to learn. {why}", advice)


def _pairs(count: int) -> str:
    return f"{count:,} pair{'' if count == 1 else 's'}"
