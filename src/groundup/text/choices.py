"""What a test asks: questions with choices, and questions with one exact answer.

In: a .jsonl file (also .gz, .zst), one question a line; `harbor-questions`, or a file of conversations. Out:
`MultipleChoice`s, `Question`s. Nothing is dropped in silence: a line that cannot be used is an error naming it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from groundup.errors import DataError
from groundup.text import conversations, files, packed
from groundup.text.entries import FORMS, messages_of

Row = Mapping[str, Any]
MARK = re.compile(r"\[.*?\]")  # [header], [step], [substeps] ...
HARBOR = "harbor-questions"
ASKED = 200  # questions of harbor where no number is given
ANSWERS = ("answers", "answer")
PROMPTS = ("prompt", "question")


@dataclass(frozen=True)
class MultipleChoice:
    """A context, what might come behind it, and which of those is right (counted from 0).

    The choices stand as their length is measured: what divides them from the context is not part of them.
    """

    context: str
    choices: tuple[str, ...]
    right: int
    where: str


@dataclass(frozen=True)
class Question:
    """A conversation up to the answer, every answer that is right, and what kind of question it is ("" if not said)."""

    messages: tuple[Mapping[str, Any], ...]
    answers: tuple[str, ...]
    kind: str
    where: str


@dataclass(frozen=True)
class Format:
    """How one layout of multiple choice is read: the fields it is known by, and what makes an item of a row."""

    fields: tuple[str, ...]
    read: Callable[[Row, str], MultipleChoice]
    about: str


def read(path: str | Path, *, limit: int | None = None) -> tuple[str, list[MultipleChoice]]:
    """The name of a file's format and its questions, the first `limit` of them.

    The first line says which of `FORMATS` it is, and all lines must be of it. Raises DataError naming the line where a
    field is missing or of another kind, a choice is empty, fewer than two can be chosen, or none is said to be right.

    >>> read("questions.jsonl")[0]  # doctest: +SKIP
    'hellaswag'
    """
    rows = _rows(Path(path))
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} holds no question", "give a file with one JSON object a line")
    name = _format(first[1], first[0])
    return name, [_read(FORMATS[name], row, where) for where, row in islice(chain([first], rows), limit)]


def _read(form: Format, row: Row, where: str) -> MultipleChoice:
    missing = next((field for field in form.fields if field not in row), None)
    if missing:
        raise _missing(row, missing, where)
    return form.read(row, where)


def hellaswag_text(text: str) -> str:
    """A piece of HellaSwag as lm-eval shows it to models, which is what published figures were measured with.

    A heading of WikiHow becomes a full stop, every other mark in brackets goes, and of two spaces one stays. What began
    with a mark keeps the space behind it.

    >>> hellaswag_text("[header] How to bowl [title] Hold the ball. [step] Swing your arm. ")
    ' How to bowl. Hold the ball. Swing your arm.'
    """
    return MARK.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _hellaswag(row: Row, where: str) -> MultipleChoice:
    """Zellers et al. 2019, as lm-eval's task `hellaswag` asks it.

    `capitalize` makes the rest of the clause small, names too: so do they.
    """
    told = f"{_text(row, 'ctx_a', where)} {_text(row, 'ctx_b', where).capitalize()}"
    context = hellaswag_text(f"{_text(row, 'activity_label', where)}: {told}")
    return _item(context, [hellaswag_text(ending) for ending in _texts(row, "endings", where)], row["label"], where)


def _arc(row: Row, where: str) -> MultipleChoice:
    """Clark et al. 2018 in both layouts: AI2's own, and that of the Hugging Face data set; asked as in lm-eval."""
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):  # AI2: {"stem": ..., "choices": [{"text": ..., "label": ...}]}
        choices, question = question.get("choices"), question.get("stem")
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        choices = {name: [choice.get(name) for choice in choices] for name in ("text", "label")}
    if not isinstance(choices, dict):
        raise DataError(f"{where} has no question with choices as ARC has them", 'see "choices": {"text", "label"}')
    labels, texts, key = _texts(choices, "label", where), _texts(choices, "text", where), row["answerKey"]
    if key not in labels or len(labels) != len(texts):
        what = f"the right answer in {where} is {key!r:.40}, and the choices are called {', '.join(labels)}"
        raise DataError(what, "give one label for each choice, and one of them as answerKey")
    return _item(f"Question: {_whole(question, 'question', where)}\nAnswer:", texts, labels.index(key), where)


def _query(row: Row, where: str) -> MultipleChoice:
    """The layout of LLM Foundry, whose query is "Question: ..." already."""
    return _item(f"{_text(row, 'query', where)}\nAnswer:", _texts(row, "choices", where), row["gold"], where)


def _plain(row: Row, where: str) -> MultipleChoice:
    """Our own: the context stands as it is shown."""
    return _item(_text(row, "context", where), _texts(row, "choices", where), row["label"], where)


FORMATS = {
    "hellaswag": Format(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag, "as lm-eval prepares it"),
    "arc": Format(("question", "answerKey"), _arc, '"Question: ...", a new line, "Answer:"'),
    "query": Format(("query", "choices", "gold"), _query, 'the query, a new line, "Answer:"'),
    "plain": Format(("context", "choices", "label"), _plain, "the context as it is"),
}


def questions(name: str | Path, *, limit: int | None = None) -> list[Question]:
    """Questions with exact answers, the first `limit` of them.

    A line of .jsonl holds `prompt` (or `question`, or `messages`), `answer` (or `answers`, each of which is right) and,
    if it likes, `kind`. `harbor-questions[:COUNT[:SEED]]` asks what no training on harbor's questions saw. Of any other
    file of conversations the last answer is the right one. Raises DataError naming file and line.

    >>> one = questions("harbor-questions:1:7")[0]
    >>> one.messages[-1]["role"], len(one.answers)
    ('user', 1)
    """
    asked = list(islice(_questions(str(name)), limit))
    if not asked:
        raise DataError(f"{name} holds no question", 'give one JSON object a line: {"prompt": ..., "answer": ...}')
    return asked


def _questions(name: str) -> Iterator[Question]:
    if name.partition(":")[0] == HARBOR:
        yield from _harbor(name)
        return
    path = Path(name)
    if packed.kind(path) == ".jsonl" and path.is_file():
        rows = _rows(path)
        first = next(rows, None)
        told = first[1] if first else {}
        if first and (any(field in told for field in ANSWERS) or not any(field in told for field in FORMS)):
            yield from (_question(row, where) for where, row in chain([first], rows))
            return
    for talk in conversations.read(name):
        *before, last = talk.messages
        if last["role"] != "assistant":
            raise DataError(f"{talk.where} does not end with an answer", "leave it out, or write the right answer")
        yield Question(tuple(before), (last["content"],), talk.kind, talk.where)


def _harbor(name: str) -> Iterator[Question]:
    from groundup.text.harbor import questions as harbor

    numbers = name.split(":")[1:]
    if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
        raise DataError(f"cannot read '{name}'", f"write {HARBOR}, {HARBOR}:COUNT or {HARBOR}:COUNT:SEED")
    count, seed = (*map(int, numbers), *(ASKED, 0)[len(numbers) :])
    for number, asked in enumerate(harbor.questions(seed, count, split="test"), 1):
        messages = ({"role": "user", "content": asked.prompt},)
        yield Question(messages, (asked.answer,), asked.kind, f"{name} question {number}")


def _question(row: Row, where: str) -> Question:
    """One line with its own answers."""
    field = next((name for name in ANSWERS if name in row), None)
    if field is None:
        raise _missing(row, "answer", where)
    value = row[field]
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, list) or not answers or not all(isinstance(one, str) and one.strip() for one in answers):
        raise DataError(f"'{field}' in {where} is {value!r:.40}, no answer", "give a text, or a list of texts")
    answers = [_whole(one, field, where) for one in answers]
    return Question(_asked(row, where), tuple(answers), _whole(row.get("kind", ""), "kind", where), where)


def _asked(row: Row, where: str) -> tuple[Mapping[str, Any], ...]:
    """The messages before the answer; in the order of a chat, as those that a model is taught with."""
    if "messages" not in row:
        field = next((name for name in PROMPTS if name in row), None)
        if field is None:
            raise _missing(row, "prompt", where)
        return ({"role": "user", "content": _text(row, field, where)},)
    messages = messages_of({"messages": row["messages"]}, where, answered=False)
    if messages[-1]["role"] != "user":
        advice = 'give a list of {"role": ..., "content": ...} that ends with what the user says'
        raise DataError(f"'messages' in {where} do not end with a question", advice)
    return tuple(messages)


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The JSON objects of a file, each with where it stands."""
    if not path.is_file():
        raise DataError(f"no such file: {path}", "give a .jsonl file with one question a line")
    if packed.kind(path) != ".jsonl":
        raise DataError(f"cannot read questions from {path}", "give .jsonl (also .gz, .zst): one JSON object a line")
    for number, line in files.lines_of(path):
        if not line.isspace():
            where = f"{path} line {number}"
            yield where, files.json_object(line, where=where)


def _format(row: Row, where: str) -> str:
    for name, form in FORMATS.items():
        if all(field in row for field in form.fields) and (name != "arc" or "choices" in row or _stemmed(row)):
            return name
    found = ", ".join(map(str, row)) or "none"
    known = "; ".join(f"{name}: {', '.join(form.fields)}" for name, form in FORMATS.items())
    raise DataError(f"{where} is no question with choices; its fields: {found}", f"fields that are known: {known}")


def _stemmed(row: Row) -> bool:
    return isinstance(row["question"], dict)


def _item(context: str, choices: Sequence[str], right: Any, where: str) -> MultipleChoice:
    """An item that can be scored."""
    if len(choices) < 2:
        raise DataError(f"{where} has {len(choices)} choices", "give at least two")
    empty = next((number for number, choice in enumerate(choices) if not choice), None)
    if empty is not None:
        raise DataError(f"choice {empty} in {where} is empty", "an empty text has no likelihood: repair or remove it")
    numbers = [str(number) for number in range(len(choices))]
    if isinstance(right, bool) or str(right) not in numbers:  # as a number, or as text
        what = f"the right answer in {where} is {right!r:.40}, and there are {len(choices)} choices"
        raise DataError(what, f"give a number from 0 to {len(choices) - 1} (test parts often hide it)")
    return MultipleChoice(context, tuple(choices), numbers.index(str(right)), where)


def _missing(row: Row, field: str, where: str) -> DataError:
    return DataError(f"{where} has no '{field}'; it has: {', '.join(map(str, row)) or 'none'}", "give that field, too")


def _text(row: Row, field: str, where: str) -> str:
    if field not in row:
        raise _missing(row, field, where)
    return _whole(row[field], field, where)


def _texts(row: Row, field: str, where: str) -> list[str]:
    if field not in row:
        raise _missing(row, field, where)
    if not isinstance(row[field], list):
        raise DataError(f"'{field}' in {where} is {row[field]!r:.40}, no list", 'write it as ["...", "..."]')
    return [_whole(one, field, where) for one in row[field]]


def _whole(value: Any, field: str, where: str) -> str:
    """Text that has a UTF-8."""
    if not isinstance(value, str):
        raise DataError(f"'{field}' in {where} holds {value!r:.40}, not text", "put it in double quotes")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(value[error.start]):04X}"
        raise DataError(f"'{field}' in {where} holds half of a surrogate pair, {half}", "repair the escape") from None
    return value
