"""From a conversation to a row: its ids, and for every id whether the loss counts it.

In: a tokenizer, a chat template, conversations. Out: `Row`s and what became of those that did not fit (`Gathered`); the
ids of a prompt; the ids that end an answer. Training, chatting and the viewer all use these functions, so that none of
them can see a conversation differently.

Two rules decide everything.

1. *Whose words.* What came with a message is encoded as plain text, whatever it spells; only the template's own words
   become special tokens. A message can therefore neither end a turn nor open one.
2. *What the model has to write.* An answer's part is what the model must write when it is asked: from where the prompt
   of that moment ends (`prompt_ids`) up to and with the first special token that the template puts behind the answer.
   That is its content, its end of turn, and whatever the template puts between the prompt and the content (the space
   behind Llama 2's [/INST], Qwen3's empty <think>). What comes after the end of turn, such as a new line, is not.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from groundup.errors import DataError, TokenizerError
from groundup.text.conversations import Conversation
from groundup.text.template import ChatTemplate
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.turns import Messages, Stretch, lead, special_names, stop_ids, stretches

Learn = Literal["answers", "all", "marked"]

UNMARKED = "nothing in them is to be learnt"
BEHIND = "their answers begin behind the context"
ENDLESS = "the template puts no special token behind an answer: nothing teaches the model to stop"


@dataclass(frozen=True)
class Row:
    """Ids, and which of them the loss counts as targets; never the first, which nothing predicts.

    `lost`: ids to be learnt that were cut off.
    """

    ids: list[int]
    learn: list[bool]
    lost: int = 0


@dataclass(frozen=True)
class Gathered:
    """The rows that are learnt from, and what became of the others.

    `places`: the number that each row had among those given. `dropped`: reason -> rows. `cut`: rows that lost something
    to be learnt, `lost` ids in all. `longest`: ids of the longest row before it was cut. `remark`: what else a person
    should know, or "".
    """

    rows: list[Row]
    places: list[int]
    dropped: dict[str, int]
    cut: int
    lost: int
    longest: int
    remark: str = ""

    @property
    def tokens(self) -> int:
        """Ids that could be learnt: all but the first of each row."""
        return sum(len(row.ids) - 1 for row in self.rows)

    @property
    def learnt(self) -> int:
        """Ids that are learnt."""
        return sum(sum(row.learn) for row in self.rows)

    @property
    def learnt_share(self) -> float:
        """`learnt` of `tokens`."""
        return self.learnt / self.tokens

    def words(self) -> str:
        """All of it in words, a line for each thing worth knowing.

        >>> gathered([Row([1, 2, 3], [False, False, True]), Row([1, 2], [False, False])], context=8).words()
        '1 row, 50.0 % of 2 tokens learnt\\n1 row left out: nothing in them is to be learnt'
        """
        lines = [f"{_rows(len(self.rows))}, {100 * self.learnt_share:.1f} % of {self.tokens:,} tokens learnt"]
        if self.cut:
            lines.append(
                f"{self.cut:,} cut inside an answer, {self.lost:,} tokens lost: the longest row has {self.longest:,}"
            )
        lines += [f"{_rows(count)} left out: {reason}" for reason, count in self.dropped.items()]
        return "\n".join([*lines, self.remark] if self.remark else lines)


# rows


def chat_row(tokenizer: Tokenizer, template: ChatTemplate, conversation: Conversation, *, learn: Learn) -> Row:
    """A conversation as one row.

    `learn`: "answers", the assistant's parts as the second rule above has it; "all", every id but the first; "marked",
    the assistant's parts that the data marks. A row begins with `tokenizer.start` unless the template writes it itself.

    Raises DataError, naming the conversation, where the template refuses it or leaves out or changes what a message
    says (white space around it may go), and for "marked" where no message is marked; TokenizerError for text that the
    tokenizer cannot express.

    >>> from groundup import tokens
    >>> tokenizer = tokens.train("chars", ["Q: hi A: yo"])
    >>> source = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    >>> template = ChatTemplate(source, eos="<|endoftext|>")
    >>> talk = Conversation(({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}))
    >>> row = chat_row(tokenizer, template, talk, learn="answers")
    >>> [tokenizer.decode([id]) for id, learnt in zip(row.ids, row.learn) if learnt]
    ['y', 'o', '<|endoftext|>']
    """
    taught = _taught(conversation, learn)
    with _placed(conversation.where):
        parts = stretches(tokenizer, template, conversation.messages, whole=True)
        ids, turns = _encoded(tokenizer, parts)
    flags = [learn == "all" or turn in taught for turn in turns]
    start = _start(tokenizer, ids)
    flags = [*(learn == "all" for _ in start), *flags]
    return Row([*start, *ids], [False, *flags[1:]] if flags else [])


def shortened(row: Row, context: int) -> Row:
    """The row cut on the right to `context` + 1 ids: as many inputs as the context has room for, and their targets.

    >>> shortened(Row([5, 6, 7, 8], [False, False, True, True]), context=2)
    Row(ids=[5, 6, 7], learn=[False, False, True], lost=1)
    """
    most = context + 1
    if len(row.ids) <= most:
        return row
    return Row(row.ids[:most], row.learn[:most], row.lost + sum(row.learn[most:]))


def gathered(rows: Iterable[Row], *, context: int, source: str = "the data") -> Gathered:
    """Cut rows to the context and leave out those without anything to learn, counting both.

    Raises DataError where nothing is left, with the reasons.
    """
    kept: list[Row] = []
    places: list[int] = []
    reasons: Counter[str] = Counter()
    longest = given = 0
    for place, row in enumerate(rows):
        short = shortened(row, context)
        longest, given = max(longest, len(row.ids)), given + 1
        if any(short.learn):
            kept.append(short)
            places.append(place)
        else:
            reasons[BEHIND if any(row.learn) else UNMARKED] += 1
    dropped = {_with_context(reason, context): count for reason, count in reasons.items()}
    if not kept:
        why = "; ".join(f"{_rows(count)}: {reason}" for reason, count in dropped.items()) or "it has no rows"
        advice = 'learn from the answers (--learn answers), or mark messages with "train": true'
        if reasons[BEHIND]:
            advice = f"give a longer --context: {longest - 1:,} tokens would do, if the model can read so many"
        raise DataError(f"{source}: there is nothing to learn. {why}", advice)
    lost = [row.lost for row in kept if row.lost]
    return Gathered(kept, places, dropped, len(lost), sum(lost), longest)


def chat_rows(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    conversations: Sequence[Conversation],
    *,
    learn: Learn,
    context: int,
    source: str = "the data",
) -> Gathered:
    """`chat_row` of every conversation, `gathered`; with remarks on marks that were not asked for, and on what this
    template teaches besides, or does not. Errors call the conversations `source`."""
    rows = (chat_row(tokenizer, template, conversation, learn=learn) for conversation in conversations)
    found, remarks = gathered(rows, context=context, source=source), []
    if against := 0 if learn == "marked" else sum(map(_marked_against, conversations)):
        answers, learnt = ("1 answer is", "is") if against == 1 else (f"{against:,} answers are", "are")
        advice = "--learn marked leaves " + ("it out" if against == 1 else "them out")
        remarks.append(f"{answers} marked as not to be learnt and {learnt} learnt all the same: {advice}")
    if before := lead(tokenizer, template).strip():
        remarks.append(f"the prompt of this template ends early: the model learns to write {before[:60]!r} itself")
    if not stop_ids(tokenizer, template):
        remarks.append(ENDLESS)
    return replace(found, remark="\n".join(remarks))


def prompt_ids(tokenizer: Tokenizer, template: ChatTemplate, messages: Messages) -> list[int]:
    """The ids of a conversation up to where the assistant's next words belong.

    They are the first ids of `chat_row` of the same conversation with its answer, so that a model is asked with exactly
    what it has learnt to answer. Raises DataError where the template refuses the messages.
    """
    ids, _ = _encoded(tokenizer, stretches(tokenizer, template, messages, generation=True))
    return [*_start(tokenizer, ids), *ids]


def _taught(conversation: Conversation, learn: Learn) -> set[int]:
    """The numbers of the messages that are learnt."""
    messages = conversation.messages
    if learn == "marked" and not any("learn" in message for message in messages):
        raise DataError(
            f"{conversation.where or 'a conversation'} marks no message as to be learnt or not",
            'mark messages with "train": true or false, or learn from all answers: --learn answers',
        )
    answers = {number for number, message in enumerate(messages) if message["role"] == "assistant"}
    return answers if learn != "marked" else {number for number in answers if messages[number].get("learn")}


def _marked_against(conversation: Conversation) -> int:
    """How many answers the data marks as not to be learnt."""
    return sum(m["role"] == "assistant" and m.get("learn") is False for m in conversation.messages)


def _start(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """What stands before a row: nothing where the template wrote it. A message cannot: its words are plain."""
    start = tokenizer.start
    return [] if list(ids[: len(start)]) == start else start


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _with_context(reason: str, context: int) -> str:
    return f"{reason} of {context:,} tokens" if reason == BEHIND else reason


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Say in every error which conversation it is about."""
    try:
        yield
    except (DataError, TokenizerError) as error:
        raise type(error)(f"{where}: {error.what}" if where else error.what, error.fix) from None


# ids


def _encoded(tokenizer: Tokenizer, parts: Sequence[Stretch]) -> tuple[list[int], list[int | None]]:
    """The ids of the parts, and of each id the answer it is part of.

    SentencePiece puts a space before a text. Here that happens where transformers does it, at the beginning and (in
    vocabularies of Llama 2's kind) behind a special token, and nowhere else: the other parts go on.
    """
    ids: list[int] = []
    turns: list[int | None] = []
    names, anew, begins = special_names(tokenizer), _anew(tokenizer), True
    for stretch in parts:
        for word in _words(stretch, names):
            special = not stretch.plain and word in tokenizer.special
            if special:
                more = [tokenizer.special[word]]
            else:
                more = tokenizer.encode_array(word, goes_on=not begins).tolist()
            ids += more
            turns += [stretch.turn] * len(more)
            begins = special and anew
    return ids, turns


def _words(stretch: Stretch, names: re.Pattern[str] | None) -> list[str]:
    """The text of a stretch; of one that the template wrote, special tokens and what stands between them."""
    if stretch.plain or names is None:
        return [stretch.text]
    found, place = [], 0
    for match in names.finditer(stretch.text):
        found += [stretch.text[place : match.start()], match.group()]
        place = match.end()
    return [word for word in (*found, stretch.text[place:]) if word]


def _anew(tokenizer: Tokenizer) -> bool:
    """Whether text behind a special token begins as a text of its own does, with SentencePiece's space."""
    name = next(iter(tokenizer.special), None)
    if name is None:
        return False
    try:
        behind = tokenizer.encode(f"{name}a", special=[name])[1:]
        return behind != tokenizer.encode_array("a", goes_on=True).tolist()
    except TokenizerError:  # one that has no "a" is no SentencePiece with all bytes: it puts no space anywhere
        return False
