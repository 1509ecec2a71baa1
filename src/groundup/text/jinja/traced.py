"""Text that knows whose words it holds: each part is the template's own, or came with a message.

In: strings. Out: strings, equal to what Python's own operations give, with the origin of every character kept. A
template that puts "<|im_end|>" behind a message and a message that contains "<|im_end|>" render alike; only the first
may become a special token, and this is how they are told apart.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from groundup.errors import DataError

Span = tuple[int, int | None]  # characters, and the number of the message they came with; None: the template


class Traced(str):
    """A string some of which came with a message; one that is the template's own throughout is a plain str."""

    spans: tuple[Span, ...]


class Safe(Traced):
    """What the filter `safe` gives: Jinja escapes what is added to it, even where it escapes nothing else."""


def of(text: str, owner: int | None) -> str:
    """The text as words of message number `owner`."""
    return text if owner is None else _traced(text, [(len(text), owner)])


def spans(text: str) -> tuple[Span, ...]:
    """The parts of a text, in order.

    >>> spans(joined(["<s>", of("hello", 0), of("!", 0)]))
    ((3, None), (6, 0))
    """
    return text.spans if isinstance(text, Traced) else ((len(text), None),) if text else ()


def joined(parts: Iterable[str], between: str = "") -> str:
    """`between.join(parts)`."""
    parts = list(parts)
    whole = between.join(parts)
    if not any(isinstance(part, Traced) for part in (between, *parts)):
        return whole
    found: list[Span] = []
    for number, part in enumerate(parts):
        found += [*(spans(between) if number else ()), *spans(part)]
    return _traced(whole, found)


def cut(text: str, start: int, length: int) -> str:
    """`text[start : start + length]`."""
    whole = text[start : start + length]
    if not isinstance(text, Traced):
        return whole
    found, place = [], 0
    for size, owner in text.spans:
        first, last = max(place, start), min(place + size, start + length)
        found += [(last - first, owner)] if last > first else []
        place += size
    return _traced(whole, found)


def sliced(text: str, places: slice) -> str:
    """`text[places]`."""
    if not isinstance(text, Traced):
        return text[places]
    start, stop, step = places.indices(len(text))
    if step == 1:
        return cut(text, start, max(0, stop - start))
    return joined(cut(text, place, 1) for place in range(start, stop, step))


def stripped(text: str, chars: str | None = None, *, left: bool = True, right: bool = True) -> str:
    """`text.strip(chars)`, or of one side only."""
    start = len(text) - len(text.lstrip(chars)) if left else 0
    rest = text[start:]
    return cut(text, start, len(rest.rstrip(chars)) if right else len(rest))


def pieces(text: str, found: Sequence[str], *, gap: int | None) -> list[str]:
    """What a text was split into, `gap` characters apart; None where that varies, and then its owner must be one."""
    if not isinstance(text, Traced):
        return list(found)
    if gap is None:
        return [made(piece, [text], by="split") for piece in found]
    result, place = [], 0
    for piece in found:
        result.append(cut(text, place, len(piece)))
        place += len(piece) + gap
    return result


def made(text: str, sources: Iterable[str], *, by: str) -> str:
    """Text that an operation made anew: a message's, where all its sources were.

    Raises DataError where it mixes a message with the template's own words beyond telling them apart.
    """
    owners = {owner for source in sources for _, owner in spans(source)}
    if len(owners) > 1:
        raise DataError(
            f"the chat template changes ({by}) a message and its own words in one go: which is which is then unknown",
            "use a template that puts the content of messages in as it is, or trimmed",
        )
    return of(text, next(iter(owners), None))


def safe(text: str) -> Safe:
    """The same text, marked."""
    result = Safe(text)
    result.spans = spans(text)
    return result


def inside(value: Any) -> list[str]:
    """The traced strings in a value, however deep."""
    if isinstance(value, dict):
        return [found for pair in value.items() for part in pair for found in inside(part)]
    if isinstance(value, list | tuple):
        return [found for part in value for found in inside(part)]
    return [value] if isinstance(value, Traced) else []


def swallowed(text: str, value: Any) -> str:
    """A text that shows a whole value (as JSON, say): words of the first message that any of it came with."""
    found = inside(value)
    return of(text, next((owner for _, owner in spans(found[0]) if owner is not None), None)) if found else text


def marked(value: Any, owner: int) -> Any:
    """The same value with every string inside, keys too, as words of message number `owner`."""
    if isinstance(value, dict):
        return {marked(key, owner): marked(part, owner) for key, part in value.items()}
    if isinstance(value, list):
        return [marked(part, owner) for part in value]
    return of(value, owner) if isinstance(value, str) else value


def _traced(text: str, found: Iterable[Span]) -> str:
    """A string with these spans, neighbours of one owner made one."""
    merged: list[Span] = []
    for size, owner in found:
        if merged and merged[-1][1] == owner:
            merged[-1] = (merged[-1][0] + size, owner)
        elif size:
            merged.append((size, owner))
    if all(owner is None for _, owner in merged):
        return text
    result = Traced(text)
    result.spans = tuple(merged)
    return result
