"""Pairs of answers of which one is preferred: files of every usual form, read whole, divided by prompt, written again.

In: a .json or .jsonl file (also .gz, .zst), or a name: `instruction-preference`, `hh-rlhf`,
`harbor-pairs[:COUNT[:SEED]]`, `harbor-reworded-pairs[:COUNT[:SEED]]`. Out: `Preference`s; and of those, a file that
`read` and other programs read. Forms of an entry:

- {"prompt", "chosen", "rejected"}: the prompt is text or a list of messages, an answer text or a list of messages of
  which the last is the answer (TRL's forms); without "prompt", what both lists begin with is the prompt;
- {"prompt", "response_1", "response_2", "preferred": 1 or 2};
- {"instruction", "input", "chosen", "rejected"}; other fields, such as the book's "output", are not needed;
- {"chosen", "rejected"}: transcripts as in HH-RLHF, "\\n\\nHuman: ...\\n\\nAssistant: ..."; what stands before the last
  "Assistant:" is the prompt. A "prompt" may be a transcript too, with "Assistant:" at its end, and an answer one that
  begins with its prompt.

Each may have a "margin", how far the two are apart: a number, 0 or more. What is in a file is used, or refused by the
number of its entry, or kept and left out by whoever makes rows of it, with the reason counted (tokens/pairs.py): pairs
that are equal, an answer that is empty, and what has a `fault`.
"""

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.errors import DataError, nearest
from groundup.text import catalog, conversations, packed, transcripts, whole
from groundup.text.conversations import Conversation, told
from groundup.text.download import Progress, silent
from groundup.text.entries import FORMS, messages_of
from groundup.text.split import Split

HARBOR = {"harbor-pairs": "as the demo's model is asked", "harbor-reworded-pairs": "in words new to it"}
PLAIN, NUMBERED = ("chosen", "rejected"), ("response_1", "response_2", "preferred")
FAULT = "groundup.fault"  # where `write` puts a fault: a field "fault" may say anything
OWN = {"prompt", "output", "margin", FAULT, *FORMS, *PLAIN, *NUMBERED}  # fields that are read here, or not needed
TELLING = 0.1  # so far from one half, the share of pairs whose chosen answer is longer is worth a remark
LARGEST = 1e6  # of a margin: a reward model's scores are a few units apart
FORM = "a pair has prompt, chosen, rejected; or prompt, response_1, response_2, preferred"
PARTED = "their transcripts part before the last answer"  # what of them is the answer, and to what, nobody knows
UNASKED = "their last answer follows another answer"

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Preference:
    """A prompt, which ends with what is to be answered, and two answers of which the first is better.

    `messages`: as of a `Conversation`. `margin`: how far apart the answers are, where the data say so. `where`: the
    place it was read from. `fault`: why nothing can be learnt from it, "" for most. `held_out`, `settled`: see
    `Conversation`. Where it comes from does not count when two are compared.
    """

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float | None = None
    where: str = field(default="", compare=False)
    fault: str = ""
    held_out: bool = field(default=False, compare=False)
    settled: bool = field(default=False, compare=False)


def chosen_is_longer(preferences: Iterable[Preference]) -> float:
    """Share of the pairs whose better answer has more letters; pairs of like length count as half.

    That is how often one would be right who always prefers the longer: 0.5 where length tells nothing.

    >>> rows = [Preference((), "yes", "no"), Preference((), "yes", "off"), Preference((), "no", "yes")]
    >>> chosen_is_longer(rows)
    0.5
    """
    more = [len(row.chosen) - len(row.rejected) for row in preferences]
    return sum(0.5 if not one else float(one > 0) for one in more) / len(more) if more else 0.5


def told_by_length(longer: float) -> str:
    """What most chosen answers are, where that alone tells most pairs apart: "long", "short", or "" for neither.

    `longer`: as `chosen_is_longer` says it.

    >>> told_by_length(0.62), told_by_length(0.35), told_by_length(0.55)
    ('long', 'short', '')
    """
    return "" if abs(longer - 0.5) <= TELLING else "long" if longer > 0.5 else "short"


def contradictions(preferences: Iterable[Preference]) -> int:
    """How many times two answers to one prompt come in both orders.

    >>> rows = [Preference((), "yes", "no"), Preference((), "no", "yes"), Preference((), "yes", "off")]
    >>> contradictions(rows)
    1
    """
    orders = {(_words(row.messages), row.chosen, row.rejected) for row in preferences}
    return sum((words, worse, better) in orders for words, better, worse in orders if better < worse)


# reading


def read(name: str | Path, *, progress: Progress = silent) -> list[Preference]:
    """All pairs of a file, or of what a name stands for; raises DataError naming file, entry and what is wrong with it.

    >>> read("harbor-pairs:100:7")[0].margin in (1.0, 2.0, 3.0)
    True
    """
    text = str(name)
    if text.partition(":")[0] in HARBOR:
        return list(_harbor(text))
    path = catalog.find(text, progress=progress) if text in names() else _file(text)
    found = [_preference(entry, where) for where, entry in conversations.entries_of(path)]
    if not found:
        raise DataError(f"{path} holds no pairs", "give a file with at least one entry")
    return found


def names() -> list[str]:
    """The names that are understood besides paths."""
    return [*(name for name, entry in catalog.ENTRIES.items() if entry.kind == "preferences"), *HARBOR]


def _file(name: str) -> Path:
    advice = f"pairs come as .json or .jsonl (also .gz, .zst), or by name: {', '.join(names())}"
    if not os.path.isfile(name):
        close = difflib.get_close_matches(name, names(), n=1)
        shown = name if len(name) <= 255 else f"{name[:60]}… ({len(name):,} characters)"
        what = f"{name} is a folder" if os.path.isdir(name) else f"no such file or name: {shown}"
        raise DataError(what, f"did you mean '{close[0]}'?" if close else advice)
    if packed.kind(path := Path(name)) not in (".json", ".jsonl"):
        raise DataError(f"cannot read pairs from {path}: unknown kind of file '{path.suffix}'", advice)
    return path


def _harbor(name: str) -> Iterator[Preference]:
    """`NAME[:COUNT[:SEED]]`: some of them about what no pair for training mentions, as conversations of harbor are."""
    from groundup.text.harbor import pairs, questions  # a generator of its own, only where it is asked for

    own, *numbers = name.split(":")
    usual = conversations.HARBOR_COUNT
    if len(numbers) > 2 or not all(number.isdecimal() and number.isascii() for number in numbers):
        raise DataError(f"cannot read '{name}'", f"write {own}, {own}:COUNT or {own}:COUNT:SEED, such as {own}:{usual}")
    count, seed = (*map(int, numbers), *(usual, 0)[len(numbers) :])
    if not count:
        raise DataError(f"'{name}' asks for no pairs", f"write {own}:{usual}, for example")
    families = questions.FINDS if own == "harbor-pairs" else questions.REWORDED
    kept = min(round(count * conversations.HELD_OUT), conversations.MOST_HELD_OUT)
    parts: tuple[tuple[Literal["train", "test"], int], ...] = (("train", count - kept), ("test", kept))
    for part, share in parts:
        for number, entry in enumerate(pairs.pairs(seed, share, split=part, families=families)):
            where = f"{part} pair {number} of {name} ({entry['flaw']})"
            prompt = ({"role": "user", "content": entry["prompt"]},)
            answers = (entry["chosen"], entry["rejected"], entry["margin"])
            yield Preference(prompt, *answers, where, held_out=part == "test", settled=True)


def _preference(entry: Any, where: str) -> Preference:
    """One entry, in whichever form it is written."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is no object but {json.dumps(entry)[:40]}", FORM)
    better, worse = _sides(entry, where)
    margin = _margin(entry, where)
    prompt = _prompt(entry, where)
    if prompt is not None:
        _check_end(prompt, where)
    elif all(isinstance(entry[side], str) for side in (better, worse)):
        if better not in PLAIN:
            raise _missing("prompt", entry, where)
        return _transcripts(entry, where, margin)
    messages, chosen = _answered(entry, better, prompt, where)
    begins, rejected = _answered(entry, worse, prompt, where)
    if begins != messages:
        what = f"'{better}' and '{worse}' of {where} begin with different messages"
        raise DataError(what, "both must be answers to one prompt: repair the entry, or remove it")
    _check_end(messages, where)
    fault = _sound(str(entry.get(FAULT) or ""), f"'{FAULT}' of {where}")
    return Preference(tuple(messages), chosen, rejected, margin, where, fault)


def _sides(entry: Message, where: str) -> tuple[str, str]:
    """The names of the fields that hold the better and the worse answer."""
    plain, numbered = ([name for name in names if name in entry] for names in (PLAIN, NUMBERED))
    if plain and numbered:
        what = f"{where} is written in two forms at once: {', '.join([*plain, *numbered])}"
        raise DataError(what, f"keep one of them: {FORM}")
    if not plain and not numbered:
        found = ", ".join(map(str, entry)) or "nothing"
        raise DataError(f"{where} has no two answers of which one is preferred; it has: {found}", FORM)
    for name in PLAIN if plain else NUMBERED:
        if name not in entry:
            raise _missing(name, entry, where)
    if plain:
        return "chosen", "rejected"
    preferred = entry["preferred"]
    if isinstance(preferred, bool) or preferred not in (1, 2):
        what = f"'preferred' of {where} is {json.dumps(preferred)[:40]}"
        raise DataError(what, "write 1 where response_1 is better, 2 where response_2 is; leave out what is undecided")
    return ("response_1", "response_2") if preferred == 1 else ("response_2", "response_1")


def _missing(name: str, entry: Message, where: str) -> DataError:
    found = [str(key) for key in entry]
    close = nearest(name, found)
    return DataError(f"{where} has no '{name}': it has {', '.join(found)}", close if close.startswith("did") else FORM)


def _margin(entry: Message, where: str) -> float | None:
    margin = entry.get("margin")
    if margin is None:
        return None
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin <= LARGEST:
        advice = "swap the answers, and" if isinstance(margin, int | float) and margin < 0 else "leave it out, or"
        what = f"'margin' of {where} is {json.dumps(margin)[:40]}"
        raise DataError(what, f"{advice} write how far they are apart: a number, 0 or more")
    return float(margin)


def _sound(text: str, place: str) -> str:
    """The text, which can be written again; messages are looked at where they are read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise DataError(f"{place} holds half of a surrogate pair, {half}", "repair the escape") from None
    return text


def _bare(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Without marks of what is to be learnt: of a pair that is always the last answer."""
    return [{key: value for key, value in message.items() if key != "learn"} for message in messages]


def _prompt(entry: Message, where: str) -> list[dict[str, Any]] | None:
    """The prompt of an entry, or None where it has none of its own."""
    rest = {key: value for key, value in entry.items() if key not in OWN}
    prompt = entry.get("prompt")
    forms = {name: entry[name] for name in FORMS if entry.get(name)}
    if prompt is None:
        return _bare(messages_of(forms | rest, f"the prompt of {where}", answered=False)) if forms else None
    if any(value not in (prompt, entry.get("chosen")) for value in forms.values()):  # some repeat what is said already
        raise DataError(f"{where} has 'prompt' and {', '.join(map(repr, forms))} too", "keep one of them")
    if isinstance(second := entry.get("input"), str) and second.strip():
        raise DataError(f"{where} has both 'prompt' and 'input'", "write all that is asked into the prompt")
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if isinstance(prompt, str) and transcripts.ASKING.fullmatch(prompt):
        turns = transcripts.joined([turn for turn in transcripts.said(prompt)[1][:-1] if turn[1]])
    return _bare(messages_of({"messages": turns} | rest, f"the prompt of {where}", answered=False))


def _check_end(prompt: Sequence[Message], where: str) -> None:
    """A prompt ends with what is to be answered."""
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        last = f"ends with the {prompt[-1]['role']}'s words" if prompt else "is empty"
        raise DataError(f"the prompt of {where} {last}", "end it with what the user asks")


def _answered(
    entry: Message, side: str, prompt: list[dict[str, Any]] | None, where: str
) -> tuple[list[dict[str, Any]], str]:
    """The prompt of one side and its answer, which may be empty; raises DataError where that is no conversation."""
    place, value = f"'{side}' of {where}", entry[side]
    if prompt is None and not (isinstance(value, list) and len(value) > 1):
        raise _missing("prompt", entry, where)
    if prompt is not None and isinstance(value, str):
        value = transcripts.alone(value, told(prompt), place)
    turns = value if isinstance(value, list) else [{"role": "assistant", "content": value}]
    last = turns[-1] if turns and isinstance(turns[-1], Mapping) else {}
    says = "value" if "from" in last else "content"
    empty = isinstance(last.get(says), str) and not last[says].strip()
    if empty:  # is counted where rows are made; all else is checked as if something stood there
        turns = [*turns[:-1], {**last, says: "-"}]
    if prompt is not None and len(turns) == 1:
        turns = [*told(prompt), *turns]
    found = _bare(messages_of({"messages": turns}, place))
    if found[-1]["role"] != "assistant":
        raise DataError(f"{place} ends with the {found[-1]['role']}'s words", "end it with the assistant's answer")
    if prompt is not None and found[:-1] != prompt:
        raise DataError(f"{place} begins with other messages than its prompt", "give the answer alone")
    return found[:-1], "" if empty else found[-1]["content"]


def _transcripts(entry: Message, where: str, margin: float | None) -> Preference:
    """Two transcripts whose turns are the same up to the last answer (Bai and others 2022, the data of HH-RLHF)."""
    texts = [_sound(str(entry[side]), f"'{side}' of {where}") for side in PLAIN]
    chosen, rejected = (transcripts.answered(*each, where, entry) for each in zip(texts, PLAIN, strict=True))
    before = transcripts.joined(chosen[:-1])
    asked = bool(before) and before[-1]["role"] == "user"
    fault = PARTED if chosen[:-1] != rejected[:-1] else "" if asked else UNASKED
    while before and before[-1]["role"] != "user":
        before.pop()
    if not before:
        raise DataError(f"'chosen' of {where} has no words of the Human", "remove the entry")
    messages = messages_of({"messages": before}, f"'chosen' of {where}", answered=False)
    return Preference(tuple(messages), chosen[-1][1], rejected[-1][1], margin, where, fault)


# dividing


def split(
    preferences: Sequence[Preference],
    *,
    validation: float = 0.05,
    test: float = 0.10,
    seed: int = 0,
    protocol: Literal["own", "book"] = "own",
) -> Split[Preference]:
    """Divide the pairs at random, but the same way for the same seed: those of one first question stay in one part.

    So no dialogue goes on in another part. The rules are those of `conversations.split`, the shares those of first
    questions. A pair that says the same twice is kept once. "book": the first 85 % of the pairs to learn from, the next
    10 % to test, the rest to validate, in the order of the file and with every duplicate (Raschka 2024, section 7.2),
    even where prompts come back.

    Raises DataError where too few are left to learn from, and for "book" where a pair is held out.

    >>> rows = [Preference(({"role": "user", "content": f"{n % 50}"},), "yes", f"{n}") for n in range(100)]
    >>> parts = split(rows, validation=0.1, test=0.2)
    >>> len(parts.train), len(parts.valid), len(parts.test)
    (70, 10, 20)
    """
    if protocol == "book":
        return _by_the_book(list(preferences))
    begun: dict[str, dict[tuple[str, str, str], Preference]] = {}
    for row in preferences:
        said = (_words(row.messages), row.chosen, row.rejected)
        begun.setdefault(_words(_begin(row)), {}).setdefault(said, row)
    talks = [_talk(words, [*rows.values()]) for words, rows in begun.items()]
    try:
        parts = conversations.split(talks, validation=validation, test=test, seed=seed)
    except DataError as error:
        raise DataError(error.what.replace("conversations", "first questions"), error.fix) from None
    parted = (parts.train, parts.valid, parts.test)
    train, valid, tested = ([row for talk in part for row in begun[talk.where].values()] for part in parted)
    return Split(train, valid, tested, len(preferences) - sum(map(len, begun.values())))


def _begin(row: Preference) -> tuple[Message, ...]:
    """The messages of a prompt up to the first question."""
    asked = (place for place, message in enumerate(row.messages) if message["role"] == "user")
    return row.messages[: next(asked, len(row.messages)) + 1]


def _words(messages: Iterable[Message]) -> str:
    """All that is said in a prompt, as one text that tells prompts apart."""
    return json.dumps([[message["role"], message["content"]] for message in told(messages)])


def _talk(words: str, rows: Sequence[Preference]) -> Conversation:
    """A first question, with what holds for any of its pairs."""
    settled = any(row.settled for row in rows)
    return Conversation(_begin(rows[0]), words, held_out=any(row.held_out for row in rows), settled=settled)


def _by_the_book(rows: list[Preference]) -> Split[Preference]:
    if kept := [row for row in rows if row.held_out]:
        what = f"the book's protocol divides in the order of the file, but {len(kept):,} pairs are kept out of training"
        raise DataError(f"{what}, first {kept[0].where}", "divide with --protocol own, or leave harbor's pairs out")
    parts = conversations.split([Conversation(row.messages, row.where) for row in rows], protocol="book")
    first, second = len(parts.train), len(parts.test)
    return Split(rows[:first], rows[first + second :], rows[first : first + second])


# writing


def write(path: Path | str, preferences: Iterable[Preference]) -> None:
    """Write one {"prompt", "chosen", "rejected"} a line, each a list of messages, in one go; `read` gives them back.

    This is TRL's conversational form with a prompt (its docs: dataset_formats). "margin" and `FAULT` stand beside them
    where there are any. Raises DataError for a name that does not end in .jsonl.
    """
    place = Path(path)
    if place.suffix.lower() != ".jsonl" or place.is_dir():
        raise DataError(f"cannot write pairs to {place}", "give the name of a file that ends in .jsonl")
    lines = []
    for row in preferences:
        entry: dict[str, Any] = {"prompt": told(row.messages)}
        for side, answer in zip(PLAIN, (row.chosen, row.rejected), strict=True):
            entry[side] = [{"role": "assistant", "content": answer}]
        entry |= {"margin": row.margin} if row.margin is not None else {}
        lines.append(json.dumps(entry | ({FAULT: row.fault} if row.fault else {}), ensure_ascii=False) + "\n")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{place} cannot be written: {place.parent} is no folder", "choose another place") from None
    whole.write(place, "".join(lines))
