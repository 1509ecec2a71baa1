"""Answers to questions whose answer is known: what is asked, what was expected, how many say just that, word for word.

In: conversations; answers and what they should be, as text. Out: `Question`; `Matches`, in all and for each kind of
question; entries of an answers file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.errors import DataError
from groundup.text.conversations import Conversation, fits_alpaca, told

EDGES = ".,;:!?\"'`()[]{}…“”‘’«»"  # what may stand around a word; not - % $, which change what a number says


@dataclass(frozen=True)
class Matches:
    """How many of `rows` answers were right; `tasks` has the same two numbers, (rows, right), for each kind."""

    rows: int
    right: int
    tasks: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / self.rows

    def record(self) -> dict[str, float]:
        """The figures for the journal."""
        return {"exact": self.share}

    def words(self) -> str:
        """The figures for the progress line.

        >>> Matches(rows=8, right=6).words()
        'exactly right 6 of 8 (75.0 %)'
        """
        return f"exactly right {self.right:,} of {self.rows:,} ({100 * self.share:.1f} %)"

    def table(self) -> list[str]:
        """One line for each kind of question, the best first; none where kinds were not told.

        >>> Matches(3, 2, {"who": (2, 1), "where": (1, 1)}).table()
        ['where  1 of 1  100.0 %', 'who    1 of 2   50.0 %']
        """
        width = max(map(len, self.tasks), default=0)
        order = sorted(self.tasks.items(), key=lambda item: (-item[1][1] / item[1][0], item[0]))
        return [f"{name:<{width}}  {right} of {rows}  {100 * right / rows:5.1f} %" for name, (rows, right) in order]


def same(given: str, expected: str, *, loose: bool = False) -> bool:
    """Whether two answers are the same but for white space; `loose`: also but for case and punctuation around words.

    >>> same(" the  kettle\\n", "the kettle"), same("The kettle.", "the kettle")
    (True, False)
    >>> same("The kettle.", "the kettle", loose=True), same("-5", "5", loose=True), same("3.5", "35", loose=True)
    (True, False, False)
    """
    return normal(given, loose=loose) == normal(expected, loose=loose)


def normal(text: str, *, loose: bool = False) -> str:
    """An answer as it is compared: one space between words, none around; `loose`: no case, no punctuation around words.

    >>> normal("  It is\\n\\tMira's  "), normal("It is (Mira's)!", loose=True)
    ("It is Mira's", "it is mira's")
    """
    words = text.split()
    if loose:
        words = [word for word in (part.casefold().strip(EDGES) for part in words) if word]
    return " ".join(words)


def matched(
    given: Sequence[str], expected: Sequence[str], *, tasks: Sequence[str] | None = None, loose: bool = False
) -> Matches:
    """Compare answer i with what was expected of it; `tasks[i]` is the kind of question it belongs to.

    Raises DataError where there is nothing to compare, or not one expected answer (and one kind) for each.

    >>> matched(["Mira", "a boat"], ["Mira", "the boat"], tasks=["who", "what"])
    Matches(rows=2, right=1, tasks={'who': (1, 1), 'what': (1, 0)})
    """
    if not given or len(given) != len(expected) or (tasks is not None and len(tasks) != len(given)):
        counts = f"{len(given)} answers, {len(expected)} expected" + (f", {len(tasks)} kinds" if tasks else "")
        raise DataError(f"answers cannot be compared: {counts}", "give one expected answer for each, at least one")
    right = [same(one, other, loose=loose) for one, other in zip(given, expected, strict=True)]
    kinds: dict[str, tuple[int, int]] = {}
    for name, is_right in zip(tasks or [], right, strict=False):
        rows, so_far = kinds.get(name, (0, 0))
        kinds[name] = (rows + 1, so_far + is_right)
    return Matches(len(given), sum(right), kinds)


@dataclass(frozen=True)
class Question:
    """A conversation up to the last thing a user said, and what was answered there; None where nothing was.

    `text` is that last thing as a person reads it.
    """

    messages: tuple[Mapping[str, Any], ...]
    expected: str | None
    text: str


def asked(conversation: Conversation) -> Question:
    """Cut a conversation behind its last question; raises DataError where no user says anything.

    >>> talk = [{"role": "user", "content": "Add.", "input": "1, 2"}, {"role": "assistant", "content": "3"}]
    >>> asked(Conversation(tuple(talk))).expected, asked(Conversation(tuple(talk))).text
    ('3', 'Add.\\n1, 2')
    """
    messages = conversation.messages
    last = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise DataError(f"{conversation.where or 'a conversation'} asks nothing", "give messages of a user")
    behind = [message for message in messages[last + 1 :] if message["role"] == "assistant"]
    expected = str(behind[0]["content"]) if behind else None
    return Question(messages[: last + 1], expected, told(messages[last : last + 1])[0]["content"])


def exact(given: Sequence[str], rows: Sequence[Conversation], *, loose: bool = False) -> Matches | None:
    """How many answers to the last questions of conversations are right, of those where the conversation says what is.

    None where no row says so: an answer that nobody knows is neither right nor wrong.

    >>> talk = [{"role": "user", "content": "Who has it?"}, {"role": "assistant", "content": "Mira"}]
    >>> exact(["Mira", "the cat"], [Conversation(tuple(talk)), Conversation(tuple(talk[:1]))])
    Matches(rows=1, right=1, tasks={})
    """
    pairs = zip(given, rows, strict=True)
    known = [(answer, expected, row.kind) for answer, row in pairs if (expected := asked(row).expected)]
    if not known:
        return None
    answers, right, kinds = zip(*known, strict=True)
    return matched(answers, right, tasks=kinds if any(kinds) else None, loose=loose)


def entry(conversation: Conversation, answer: str, *, alpaca: bool = True) -> dict[str, Any]:
    """A conversation and a model's answer as one object of an answers file: `model_response` stands beside the rest.

    `alpaca`: one question is written in the three fields of Alpaca; everything else, or without it, as messages.

    >>> talk = [{"role": "user", "content": "Add.", "input": "1, 2"}, {"role": "assistant", "content": "3"}]
    >>> entry(Conversation(tuple(talk)), "4")
    {'instruction': 'Add.', 'input': '1, 2', 'output': '3', 'model_response': '4'}
    """
    question, *right = conversation.messages
    fields: dict[str, Any] = {"messages": told(conversation.messages)}
    if alpaca and (fits_alpaca(conversation) or (question["role"] == "user" and not right)):
        output = str(right[0]["content"]) if right else ""
        fields = {"instruction": question["content"], "input": question.get("input", ""), "output": output}
    kind = {"kind": conversation.kind} if conversation.kind else {}
    return fields | kind | {"model_response": answer}
