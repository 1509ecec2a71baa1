"""What a chat template makes of a conversation: whose words stand where, and which of them the model has to write.

In: a template and messages. Out: `Stretch`es, text in the order of the conversation, each with the answer it is part
of. The two rules that decide are at the top of tokens/rows.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from groundup.errors import DataError
from groundup.text.conversations import told
from groundup.text.template import ChatTemplate, Segment
from groundup.tokens.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]

TRIAL = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Good day"},
    {"role": "user", "content": "And then"},
    {"role": "assistant", "content": "Nothing more"},
)


@dataclass(frozen=True)
class Stretch:
    """Text that is encoded in one go. `plain`: special tokens in it are text. `turn`: the answer it is part of."""

    text: str
    plain: bool
    turn: int | None


def stretches(
    tokenizer: Tokenizer, template: ChatTemplate, messages: Messages, *, generation: bool = False, whole: bool = False
) -> list[Stretch]:
    """The rendered conversation, cut where words change hands and where answers begin and end.

    `whole`: refuse a template that leaves out or changes what a message says.
    """
    given = told(messages)
    segments = _rendered(template, given, generation=generation)
    if whole:
        _check_whole(given, segments)
    bounds = _answers(tokenizer, template, given, segments)
    found, place = [], 0
    for part in segments:
        end = place + len(part.text)
        cuts = sorted({place, end, *(at for span in bounds.values() for at in span if place < at < end)})
        for first, last in zip(cuts, cuts[1:], strict=False):
            turn = next((number for number, (begin, stop) in bounds.items() if begin <= first < stop), None)
            found.append(Stretch(part.text[first - place : last - place], part.content, turn))
        place = end
    return _spaces_moved(found)


def stop_ids(tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    """The ids with which this template ends an answer, found by rendering one; [] where it writes none.

    Also [] where it writes words that are no special token of this tokenizer: those cannot be told from an answer's.
    Raises DataError for a template without a place for an answer, or one that changes it.
    """
    trial, ends = _trial(template), []
    segments = _rendered(template, trial)
    for number in range(1, len(trial), 2):
        last = max(place for place, part in enumerate(segments) if part.message == number)
        found = _closing(tokenizer, segments, last)
        ends += [tokenizer.special[found.group()]] if found else []
    return list(dict.fromkeys(ends))


def lead(tokenizer: Tokenizer, template: ChatTemplate) -> str:
    """What the template puts between a prompt and the answer: the model has to write it, "" for most.

    Raises DataError as `stop_ids`.
    """
    trial = _trial(template)
    parts = [part for part in stretches(tokenizer, template, trial) if part.turn == len(trial) - 1]
    return "".join(part.text for part in takewhile(lambda part: not part.plain, parts))


def _trial(template: ChatTemplate) -> Messages:
    """A conversation that this template takes: of two turns, or of one where it has no place for more."""
    try:
        _check_whole(TRIAL, _rendered(template, TRIAL))
        return TRIAL
    except DataError:
        _check_whole(TRIAL[:2], _rendered(template, TRIAL[:2]))
        return TRIAL[:2]


def _rendered(template: ChatTemplate, given: Messages, *, generation: bool = False) -> list[Segment]:
    return [part for part in template.segments(given, generation=generation) if part.text]


def _answers(
    tokenizer: Tokenizer, template: ChatTemplate, given: Sequence[dict[str, Any]], segments: Sequence[Segment]
) -> dict[int, tuple[int, int]]:
    """Message number -> where its answer's part begins and ends in the text."""
    text = "".join(part.text for part in segments)
    ends = [0]
    for part in segments:
        ends.append(ends[-1] + len(part.text))
    bounds: dict[int, tuple[int, int]] = {}
    for number, message in enumerate(given):
        places = [place for place, part in enumerate(segments) if part.message == number]
        if message["role"] != "assistant" or not places:
            continue
        begin, end = ends[places[0]], ends[places[-1] + 1]
        if number:  # a template that rewrites what came before gives no prompt to compare with
            prompt = template.render(given[:number], generation=True)
            begin = len(prompt) if len(prompt) < begin and text.startswith(prompt) else begin
        closing = _closing(tokenizer, segments, places[-1])
        bounds[number] = (begin, end + (closing.end() if closing else 0))
    return bounds


def _closing(tokenizer: Tokenizer, segments: Sequence[Segment], last: int) -> re.Match[str] | None:
    """The first special token that the template wrote behind segment `last`, with nothing but white space between."""
    after = segments[last + 1] if last + 1 < len(segments) else None
    names = special_names(tokenizer)
    if after is None or after.content or names is None:
        return None
    found = names.search(after.text)
    return found if found and not after.text[: found.start()].strip() else None


def special_names(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Finds the tokenizer's special tokens in a text, of those that begin alike the longest."""
    names = sorted(tokenizer.special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))) if names else None


def _check_whole(given: Sequence[Mapping[str, Any]], segments: Sequence[Segment]) -> None:
    """Raise DataError where a message's words do not come back, once and as they were, but for white space around."""
    for number, message in enumerate(given):
        said = "".join(part.text for part in segments if part.message == number)
        content, second = str(message["content"]), str(message.get("input", ""))
        first = content.removesuffix(f"\n{second}") if second else content
        if said.strip() in (content.strip(), (first + second).strip()):
            continue
        does = f"says {said.strip()[:40]!r} instead of {content.strip()[:40]!r}" if said else "leaves it out"
        what = f"message {number} ({message['role']}) is not written as it is: the chat template {does}"
        raise DataError(what, "use a template with a place for this role that puts the content in unchanged")


def _spaces_moved(parts: Sequence[Stretch]) -> list[Stretch]:
    """Spaces that the template wrote before content, moved to it: a word and the space before it are one token.

    Not over the border of an answer: there the prompt ends, and what was read before is read already.
    """
    found = list(parts)
    for at in range(1, len(found)):
        before, here = found[at - 1], found[at]
        if here.plain and not before.plain and before.turn == here.turn:
            kept = before.text.rstrip(" ")
            found[at - 1] = replace(before, text=kept)
            found[at] = replace(here, text=before.text[len(kept) :] + here.text)
    return [part for part in found if part.text]
