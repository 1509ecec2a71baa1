"""Conversations to learn from: instruction files of every usual form, read whole, checked, divided, written again.

In: a .json or .jsonl file (also .gz, .zst) in the form of Alpaca, of `messages` or of ShareGPT, or a name:
`instruction-data`, `harbor-questions[:COUNT[:SEED]]`, `harbor-reworded[:COUNT[:SEED]]`. Out: `Conversation`s; and of
those, files in the two forms that other programs read. What is in a file is either used or refused by the number of its
entry, never passed over.

Entries of a .json list are counted from 0, as Python and jq count; lines of a .jsonl file from 1, as editors do.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from groundup.errors import DataError
from groundup.text import catalog, files, packed, whole
from groundup.text.download import Progress, silent
from groundup.text.entries import messages_of
from groundup.text.split import Split

HARBOR = "harbor-questions"
REWORDED = "harbor-reworded"  # the same in other words, one question each: what to learn from rewards with
HARBOR_COUNT = 2_000  # conversations
HELD_OUT = 0.15  # share of harbor's conversations made of triples that no other conversation knows
MOST_HELD_OUT = 300  # of them at most: each look at them costs time, and more would measure nothing better
BOOK = (0.85, 0.10)  # training and test; what is left is for validation (Raschka 2024, section 7.2)


@dataclass(frozen=True)
class Conversation:
    """Messages in their order, and the place they were read from.

    A message is {"role": "system" | "user" | "assistant" | "tool", "content": text}. One of the user may have "input":
    Alpaca's second field, which belongs behind the content. "learn": True or False is what the data says of itself.
    `kind` names the task, where the data does; `held_out` keeps it from training, whatever `split` draws. `settled`:
    its source has divided already, and means it for training unless it is held out.
    """

    messages: tuple[Mapping[str, Any], ...]
    where: str = ""
    kind: str = ""
    held_out: bool = False
    settled: bool = False


def told(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as a chat template is given them: nothing that must be read stands outside of "content".

    Alpaca's second field is put behind the first, on a line of its own, and stays known as "input": a template that
    has a place for it can cut it off again, and every other still shows it. Marks are left out.

    >>> told([{"role": "user", "content": "Add.", "input": "1, 2", "learn": False}])
    [{'role': 'user', 'content': 'Add.\\n1, 2', 'input': '1, 2'}]
    """
    found = []
    for message in messages:
        plain = {key: value for key, value in message.items() if key != "learn"}
        if plain.get("input"):
            plain["content"] = f"{plain['content']}\n{plain['input']}"
        found.append(plain)
    return found


# reading


def read(name: str | Path, *, answered: bool = True, progress: Progress = silent) -> list[Conversation]:
    """All conversations of a file, or of what a name stands for.

    `answered` False also takes conversations that end with a question, as test sets do: an Alpaca entry without output,
    messages without an assistant's. Raises DataError naming file, entry and what is wrong with it.

    >>> read("no/such.json")
    Traceback (most recent call last):
    groundup.errors.DataError: no such file or name: no/such.json
      -> conversations come as .json or .jsonl (also .gz, .zst), or by name: instruction-data, harbor-questions, ...
    """
    text = str(name)
    if text.partition(":")[0] in (HARBOR, REWORDED):
        return list(_harbor(text))
    path = catalog.find(text, progress=progress) if text in names() else _file(text)
    found = [
        Conversation(tuple(messages_of(entry, where, answered=answered)), where, _kind(entry))
        for where, entry in entries_of(path)
    ]
    if not found:
        raise DataError(f"{path} holds no conversations", "give a file with at least one entry")
    return found


def names() -> list[str]:
    """The names that are understood besides paths."""
    return [*(name for name, entry in catalog.ENTRIES.items() if entry.kind == "instructions"), HARBOR, REWORDED]


def _file(name: str) -> Path:
    path = Path(name)
    advice = f"conversations come as .json or .jsonl (also .gz, .zst), or by name: {', '.join(names())}"
    if not os.path.isfile(name):  # unlike Path.is_file (before Python 3.14) False too where the name is far too long
        if any(mark in name for mark in ("{%", "{{", '{"', "\n")):
            raise DataError(f"this is text, not a path or a name: {name[:60]!r}", "give the path of the file")
        close = difflib.get_close_matches(name, names(), n=1)
        shown = name if len(name) <= 255 else f"{name[:60]}… ({len(name):,} characters)"
        what = f"{path} is a folder" if os.path.isdir(name) else f"no such file or name: {shown}"
        raise DataError(what, f"did you mean '{close[0]}'?" if close else advice)
    if packed.kind(path) not in (".json", ".jsonl"):
        raise DataError(f"cannot read conversations from {path}: unknown kind of file '{path.suffix}'", advice)
    return path


def entries_of(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a file with their places: "entry 17 of x.json", "line 18 of x.jsonl"."""
    if packed.kind(path) == ".json":
        for number, entry in enumerate(_list(path)):
            yield f"entry {number} of {path}", entry
        return
    for number, line in enumerate("".join(files.decoded(path)).split("\n"), 1):
        if line.strip():
            yield f"line {number} of {path}", _json(line, f"line {number} of {path}")


def _list(path: Path) -> list[Any]:
    text = "".join(files.decoded(path))
    if not text.strip():
        raise DataError(f"{path} is empty ({len(text)} characters)", "give a file with a JSON list of entries")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip()[0] == "{":
            advice = f"one object a line is called .jsonl: rename it to {path.with_suffix('.jsonl').name}"
            raise DataError(f"{path} holds several JSON objects, not one list", advice) from None
        place = f"line {error.lineno}, column {error.colno}, in or behind entry {_whole(text)}"
        raise DataError(f"{path} is not valid JSON: {error.msg} at {place}", "repair the file there") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise DataError(f"{path} cannot be read as JSON: {error}", "repair the file") from None
    if isinstance(found, list):
        return found
    what = f"an object with {', '.join(map(repr, list(found)[:6]))}" if isinstance(found, dict) else f"{found!r:.40}"
    inside = [key for key, value in found.items() if isinstance(value, list)] if isinstance(found, dict) else []
    command = f"jq '.{inside[0]}' {path.name} > entries.json" if inside else "[{...}, {...}]"
    raise DataError(f"{path} holds no list of entries but {what}", f"write the list itself: {command}")


def _whole(text: str) -> int:
    """How many entries of a broken JSON list are whole: the number of the one that is not."""
    decoder, count, place = json.JSONDecoder(), 0, text.find("[") + 1
    while place:
        while text[place : place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        try:
            _, place = decoder.raw_decode(text, place)
            count += 1
        except (ValueError, RecursionError):
            break
    return count


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        advice = 'each line must be one JSON object, such as {"messages": [...]}'
        raise DataError(f"{where} is not valid JSON: {error.msg} at column {error.colno}", advice) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read as JSON: {error}", "repair or remove the line") from None


def _kind(entry: Mapping[str, Any]) -> str:
    kind = entry.get("kind", "")
    return kind if isinstance(kind, str) else ""


def _harbor(name: str) -> Iterator[Conversation]:
    """`NAME[:COUNT[:SEED]]`, NAME one of harbor's: some are about what no conversation for training mentions."""
    from groundup.text.harbor import questions  # a generator of its own, only where it is asked for

    own, *numbers = name.split(":")
    families, turns = (questions.REWORDED, 1) if own == REWORDED else (questions.FINDS, None)
    if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
        advice = f"write {own}, {own}:COUNT or {own}:COUNT:SEED, such as {own}:{HARBOR_COUNT}:7"
        raise DataError(f"cannot read '{name}'", advice)
    count, seed = (*map(int, numbers), *(HARBOR_COUNT, 0)[len(numbers) :])
    if not count:
        raise DataError(f"'{name}' asks for no questions", f"write {own}:{HARBOR_COUNT}, for example")
    kept = min(round(count * HELD_OUT), MOST_HELD_OUT)
    parts: tuple[tuple[Literal["train", "test"], int], ...] = (("train", count - kept), ("test", kept))
    for part, share in parts:
        entries = questions.conversations(seed, share, split=part, families=families, turns=turns)
        for number, entry in enumerate(entries):
            where = f"{part} question {number} of {name}"
            kind = str(entry["kind"])
            yield Conversation(tuple(entry["messages"]), where, kind, held_out=part == "test", settled=True)


# dividing


def split(
    conversations: Sequence[Conversation],
    *,
    validation: float = 0.05,
    test: float = 0.10,
    seed: int = 0,
    protocol: Literal["own", "book"] = "own",
    alike: Callable[[Conversation], str] | None = None,
) -> Split[Conversation]:
    """Divide at random, but the same way for the same seed; what is said word for word twice is kept once.

    `validation` and `test` are shares; at least one conversation goes to each that is above 0. Conversations that are
    held out never go to training: they go to validation and to test, in the proportion of the shares. Beside them, what
    is settled is all learnt from, and the others are divided by the shares. `protocol` "book": the first 85 % to learn
    from, the next 10 % to test, the rest to validate, in the order of the file and with every duplicate (Raschka 2024,
    section 7.2). `alike`: conversations for which it says the same stay in one part, held out where any of them is; the
    shares are then those of such groups. The book's protocol knows no groups.

    Raises DataError where too few are left to learn from, and for "book" where a conversation is held out.

    >>> rows = [Conversation(({"role": "user", "content": str(n)},)) for n in range(1100)]
    >>> parts = split(rows, protocol="book")
    >>> len(parts.train), len(parts.valid), len(parts.test)
    (935, 55, 110)
    """
    if protocol == "book":
        return _by_the_book(list(conversations))
    unique = _unique(conversations)
    groups: dict[str, list[Conversation]] = {}
    for row in unique:
        groups.setdefault((alike or _words)(row), []).append(row)
    first = [_for_all(rows) for rows in groups.values()]
    order = sorted(first, key=lambda row: hashlib.sha256(f"{seed} {_words(row)}".encode()).digest())
    parts = _enough(_drawn(order, validation, test), len(order))
    whole = {_words(rows[0]): rows for rows in groups.values()}
    train, valid, tested = (
        [row for one in part for row in whole[_words(one)]] for part in (parts.train, parts.valid, parts.test)
    )
    return Split(train, valid, tested, len(conversations) - len(unique))


def _for_all(rows: Sequence[Conversation]) -> Conversation:
    """The first of a group that stays together, with what holds for any of them."""
    held_out, settled = any(row.held_out for row in rows), any(row.settled for row in rows)
    return replace(rows[0], held_out=held_out, settled=settled)


def _by_the_book(rows: list[Conversation]) -> Split[Conversation]:
    """In the order of the file, which no row that is held out may stand in: it would be learnt from."""
    kept = [row for row in rows if row.held_out]
    if kept:
        raise DataError(
            f"the book's protocol divides in the order of the file, but {len(kept):,} conversations are kept out of "
            f"training, first {kept[0].where or 'one without a place'}",
            f"divide with --protocol own, or leave {HARBOR} and {REWORDED} out of --data",
        )
    first, second = (int(len(rows) * share) for share in BOOK)
    return _enough(Split(rows[:first], rows[first + second :], rows[first : first + second]), len(rows))


def _drawn(order: Sequence[Conversation], validation: float, test: float) -> Split[Conversation]:
    """The parts of rows in a random order, which each of them keeps."""
    held = [number for number, row in enumerate(order) if row.held_out]
    free = [number for number, row in enumerate(order) if not (row.held_out or (held and row.settled))]
    least = 0 if len(held) > 1 else 1  # those held out are in both already
    first, second = (max(least, round(share * len(free))) if share else 0 for share in (validation, test))
    among = max(1, round(len(held) * validation / (validation + test))) if validation else 0
    valid = {*free[:first], *held[:among]}
    tested = {*free[first : first + second], *held[among:]}
    parts: Split[Conversation] = Split([], [], [])
    for number, row in enumerate(order):
        (parts.valid if number in valid else parts.test if number in tested else parts.train).append(row)
    return parts


def _unique(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The first of those that say the same, held out where any of them is, with the marks of all."""
    same: dict[str, list[Conversation]] = {}
    for row in conversations:
        same.setdefault(_words(row), []).append(row)
    return [rows[0] if len(rows) == 1 else _merged(rows) for rows in same.values()]


def _merged(rows: Sequence[Conversation]) -> Conversation:
    """Copies as one: a message is to be learnt where any copy says so, and not where some only say that it is not."""
    messages = []
    for copies in zip(*(row.messages for row in rows), strict=True):
        marks = [copy["learn"] for copy in copies if "learn" in copy]
        messages.append({**copies[0], "learn": any(marks)} if marks else copies[0])
    return replace(rows[0], messages=tuple(messages), held_out=any(row.held_out for row in rows))


def _words(conversation: Conversation) -> str:
    """All that is said, as one text that tells conversations apart."""
    return json.dumps([[message["role"], message["content"]] for message in told(conversation.messages)])


def _enough(parts: Split[Conversation], count: int) -> Split[Conversation]:
    if not parts.train or not parts.valid:
        raise DataError(
            f"{count} different conversations are too few to divide: {len(parts.train)} to learn from, "
            f"{len(parts.valid)} for validation",
            "give more, or smaller shares with --validation and --test",
        )
    return parts


# writing


def fits_alpaca(conversation: Conversation) -> bool:
    """Whether it is one question and one answer, without marks: all that Alpaca's form has room for.

    >>> fits_alpaca(Conversation(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})))
    True
    """
    roles = [message["role"] for message in conversation.messages]
    return roles == ["user", "assistant"] and not any("learn" in message for message in conversation.messages)


def write_alpaca(path: Path | str, conversations: Iterable[Conversation]) -> None:
    """Write a JSON list of {"instruction", "input", "output"}, in one go; for a .jsonl name one object a line.

    Read by LitGPT (`--data JSON --data.json_path FILE`: a list of objects with instruction and output, input optional,
    .json or .jsonl; litgpt/data/json_data.py) and by Axolotl (`type: alpaca`: instruction, input, output, one object a
    line; docs/dataset-formats/inst_tune). Raises DataError for a conversation that has no such form, and for a name
    that does not end in .json or .jsonl.
    """
    lined = _ending(Path(path), ".json", ".jsonl") == ".jsonl"
    entries = []
    for row in conversations:
        if not fits_alpaca(row):
            roles = ", ".join(str(message["role"]) for message in row.messages)
            what = f"{row.where or 'a conversation'} has no place in Alpaca's form: {roles}"
            raise DataError(what, "write it as messages: .jsonl")
        question, answer = row.messages
        fields = {"instruction": question["content"], "input": question.get("input", ""), "output": answer["content"]}
        entries.append(fields | ({"kind": row.kind} if row.kind else {}))
    content = _lines(entries) if lined else json.dumps(entries, ensure_ascii=False, indent=2) + "\n"
    _put(Path(path), content)


def write_messages(path: Path | str, conversations: Iterable[Conversation]) -> None:
    """Write one {"messages": [{"role", "content"}, ...]} a line, in one go.

    This is OpenAI's form and what Axolotl's `type: chat_template` reads as it is (docs/dataset-formats/conversation);
    marks are written as its `train` (`message_field_training: train`). Alpaca's second field stands at the end of the
    content, and beside it as "input", so that `read` gives back what was written; other programs pass it over. Raises
    DataError for a name that does not end in .jsonl.
    """
    _ending(Path(path), ".jsonl")
    entries = []
    for row in conversations:
        messages = told(row.messages)
        for plain, message in zip(messages, row.messages, strict=True):
            plain |= {"train": message["learn"]} if "learn" in message else {}
        entries.append({"messages": messages} | ({"kind": row.kind} if row.kind else {}))
    _put(Path(path), _lines(entries))


def _lines(entries: Iterable[Any]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _ending(path: Path, *known: str) -> str:
    """How the name ends; raises DataError where what is written could not be read again under that name."""
    ending = path.suffix.lower()
    if ending in known:
        return ending
    what = "packed files are not written" if packed.is_packed(path) else f"its name ends in '{ending}'"
    raise DataError(f"cannot write conversations to {path}: {what}", f"give a name that ends in {' or '.join(known)}")


def _put(path: Path, content: str) -> None:
    """Write aside, then rename: a file is whole or not there."""
    if path.is_dir():
        raise DataError(f"{path} is a folder", "give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{path} cannot be written: {path.parent} is no folder", "choose another place") from None
    whole.write(path, content)
