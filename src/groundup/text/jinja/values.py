"""What a template can ask of a value: items of lists and dicts, and the few methods named here. All else is refused.

In: a value and a name. Out: another value, Jinja's `Undefined` where there is none, or DataError for what is not
offered. No attribute of a Python object is ever looked up, so there is no way from a string to its class.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Undefined

from groundup.errors import DataError
from groundup.text.jinja import traced
from groundup.text.jinja.limits import FIX, ITEM, Meter


@dataclass(frozen=True)
class Offered:
    """Something a template may call."""

    name: str
    call: Callable[..., Any]


@dataclass(eq=False, repr=False)  # it may hold itself, or the like of it twice: nobody may walk through it
class Namespace:
    """Jinja's `namespace(...)`: the one thing whose attributes a template may set."""

    values: dict[str, Any]


@dataclass(eq=False, repr=False)
class Loop:
    """What `loop` tells inside a for."""

    meter: Meter
    items: list[Any]
    depth: int
    index0: int = 0
    seen: list[Any] = field(default_factory=list)

    def ask(self, name: str) -> Any:
        """An attribute of `loop`; KeyError where it has none of that name."""
        at, items = self.index0, self.items
        facts = {"index": at + 1, "index0": at, "revindex": len(items) - at, "revindex0": len(items) - at - 1}
        facts |= {"first": at == 0, "last": at == len(items) - 1, "length": len(items)}
        facts |= {"depth": self.depth, "depth0": self.depth - 1}
        if name in ("previtem", "nextitem"):
            place = at + (1 if name == "nextitem" else -1)
            return items[place] if 0 <= place < len(items) else Undefined(name=name)
        if name in ("cycle", "changed"):
            return Offered(name, self._cycle if name == "cycle" else self._changed)
        return facts[name]

    def _cycle(self, *choices: Any) -> Any:
        return choices[self.index0 % len(choices)]

    def _changed(self, *values: Any) -> bool:
        self.meter.pay(*values)
        before, self.seen = self.seen, [values]
        return before != [values]


ABSENT = object()  # None is a value like any other
BACKWARDS = ("rfind", "rsplit", "rpartition")  # Python searches these in squared time; forwards its time is linear
SEARCHED = 1000  # comparisons of two characters within one step
WORD = 4  # characters of a word or line, on whose number the room is reckoned before they are counted
ESCAPED = "&<>'\""
FACTS = (
    "startswith endswith find rfind index count isdigit isalpha isalnum isspace isupper islower isnumeric isdecimal"
).split()
REMADE = ["upper", "lower", "title", "capitalize"]


def attribute(meter: Meter, value: Any, name: str) -> Any:
    """`value.name`: a method or fact, else the item of that name, else Undefined."""
    if name.startswith("__"):
        raise DataError(f"the chat template reaches for {name!r}, which leads out of the template", FIX)
    found = _method(meter, value, name)
    if found is not ABSENT:
        return found
    if isinstance(value, dict) and name in value:
        return value[name]
    if isinstance(value, Undefined):
        return value[name]  # raises, and says in Jinja's words which name is undefined
    return Undefined(obj=value, name=name)


def item(meter: Meter, value: Any, key: Any) -> Any:
    """`value[key]`: the item, else the attribute of that name, else Undefined."""
    if isinstance(value, str) and isinstance(key, int):
        _walk(meter, value)
        return traced.cut(value, key % len(value), 1) if -len(value) <= key < len(value) else Undefined(name=str(key))
    if isinstance(value, dict | list | tuple | range | Undefined):
        try:
            return value[key]
        except (TypeError, LookupError):
            pass
    return attribute(meter, value, str(key)) if isinstance(key, str) else Undefined(obj=value, name=str(key))


def span(meter: Meter, value: Any, places: slice) -> Any:
    """`value[from:to:step]`."""
    if isinstance(value, str):
        meter.make(len(value))
        _walk(meter, value, times=1 if places.step is None else len(value))
        return traced.sliced(value, places)
    if not isinstance(value, list | tuple | range | Undefined):
        raise DataError(f"the chat template slices a {type(value).__name__}", FIX)
    meter.make(16 * len(value))
    return value[places]


def added(meter: Meter, left: str, right: str) -> str:
    """`left + right`; refused where Jinja would escape one of them, because the other was marked as `safe`."""
    whole = join(meter, [left, right], "")
    marks = [isinstance(part, traced.Safe) for part in (left, right)]
    if not any(marks):
        return whole
    if any(sign in part for part, mark in zip((left, right), marks, strict=True) if not mark for sign in ESCAPED):
        raise DataError("the chat template adds text to what it marked as safe, which would escape that text", FIX)
    return traced.safe(whole)


def iterate(meter: Meter, value: Any) -> list[Any]:
    """The items of anything a `for` can go through; each costs a step. An iterator is used up by this, as in Jinja."""
    if isinstance(value, bool | int | float | Namespace | Loop | Offered) or value is None:
        raise DataError(f"the chat template goes through a {kind(value)} as if it were a list", FIX)
    if isinstance(value, str):
        meter.make(16 * len(value))
        _walk(meter, value, times=len(value))
        return [traced.cut(value, place, 1) for place in range(len(value))] if traced.inside(value) else list(value)
    if hasattr(value, "__len__"):
        meter.make(16 * len(value))
    items = list(value)
    meter.step(len(items))
    return items


def shown(meter: Meter, value: Any) -> str:
    """`str(value)` of plain data."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple):
        _plain(value)
        meter.make(10 * meter.pay(value))  # Python may write one character as ten, as in "\\U000e0001"
        return traced.swallowed(str(value), value)
    if not isinstance(value, int | float | Undefined | range) and value is not None:
        raise DataError(f"the chat template prints a {kind(value)}, which is no text", FIX)
    return str(value)


def replaced(meter: Meter, text: str, old: str, new: str, count: int = -1) -> str:
    """`text.replace(old, new)`, its size known before it is made."""
    times = text.count(old) if count < 0 else min(count, text.count(old))
    meter.make(len(text) + times * len(new))
    sources = [text, *([new] if traced.inside(new) else [])] if times else [text]
    if not times:
        return text
    return traced.made(text.replace(old, new, count), sources, by="replace")


def join(meter: Meter, parts: list[str], between: str) -> str:
    """`between.join(parts)`, its size known before it is made."""
    meter.make(sum(map(len, parts)) + len(between) * len(parts))
    for part in parts:
        _walk(meter, part)
    _walk(meter, between, times=len(parts))
    return traced.joined(parts, between)


def kind(value: Any) -> str:
    """What a value is called in messages."""
    if isinstance(value, str):
        return "str"
    return {"Offered": "function", "NoneType": "None", "bool": "truth value", "int": "number"}.get(
        type(value).__name__, type(value).__name__.lower()
    )


def _plain(value: Any) -> None:
    """Refuse to print what is no data: its text would be a matter of Python, and could hold addresses."""
    if isinstance(value, Mapping):
        _plain([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for part in value:
            _plain(part)
    elif not isinstance(value, str | int | float | range | Undefined) and value is not None:
        raise DataError(f"the chat template prints a {kind(value)}, which is no text", FIX)


def _method(meter: Meter, value: Any, name: str) -> Any:
    """What a value offers beside its items, or ABSENT."""
    if isinstance(value, Namespace):
        return value.values.get(name, Undefined(obj=value, name=name))
    if isinstance(value, Loop):
        try:
            return value.ask(name)
        except KeyError:
            return Undefined(obj=value, name=name)
    offers = {}
    if isinstance(value, str):
        offers = _text_methods(meter, value, name)
    elif isinstance(value, dict):
        offers = {"items": value.items, "keys": value.keys, "values": value.values, "get": value.get}
    elif isinstance(value, list | tuple):
        offers = {"index": value.index, "count": value.count}
    if name in offers:
        return Offered(name, _paid(meter, value, offers[name], backwards=name in BACKWARDS))
    known = str if isinstance(value, str) else dict if isinstance(value, dict) else list
    if isinstance(value, str | dict | list | tuple) and hasattr(known, name):
        raise DataError(f"the chat template uses the method {name!r} of a {kind(value)}, which is not offered", FIX)
    return ABSENT


def _paid(meter: Meter, value: Any, call: Callable[..., Any], *, backwards: bool) -> Callable[..., Any]:
    """The same call, its work counted."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        meter.pay(*args, *kwargs.values(), *([value] if isinstance(value, str | list | tuple) else []))
        for word in (*args, *kwargs.values()) if backwards else ():
            meter.step(len(value) * len(word) // SEARCHED if isinstance(word, str) else 0)
        return call(*args, **kwargs)

    return counted


def _text_methods(meter: Meter, text: str, name: str) -> dict[str, Callable[..., Any]]:
    """The methods of strings, in a form that keeps track of size and of whose words they are."""
    if name in FACTS:
        return {name: getattr(str(text), name)}
    if name in REMADE:
        return {name: lambda: traced.made(getattr(str(text), name)(), [text], by=name)}
    sides = {"strip": (True, True), "lstrip": (True, False), "rstrip": (False, True)}
    if name in sides:
        return {name: lambda chars=None: strip(meter, text, chars, sides[name])}
    return {
        "removeprefix": lambda word: traced.cut(text, len(word) if text.startswith(word) else 0, len(text)),
        "removesuffix": lambda word: traced.cut(text, 0, len(text) - len(word) * (bool(word) and text.endswith(word))),
        "replace": lambda old, new, count=-1: replaced(meter, text, old, new, count),
        "join": lambda parts: join(meter, [*map(_text, iterate(meter, parts))], text),
        "split": lambda sep=None, maxsplit=-1: _split(meter, text, sep, maxsplit, text.split),
        "rsplit": lambda sep=None, maxsplit=-1: _split(meter, text, sep, maxsplit, text.rsplit),
        "splitlines": lambda keepends=False: _lines(meter, text, keepends),
        "partition": lambda sep: tuple(traced.pieces(text, text.partition(sep), gap=0)),
        "rpartition": lambda sep: tuple(traced.pieces(text, text.rpartition(sep), gap=0)),
    }


def strip(meter: Meter, text: str, chars: str | None = None, sides: tuple[bool, bool] = (True, True)) -> str:
    """`text.strip(chars)`, or of one side; every character may be looked for among all of `chars`."""
    meter.step(len(text) * len(chars or " ") // 100)
    meter.make(len(text))
    _walk(meter, text)
    return traced.stripped(text, chars, left=sides[0], right=sides[1])


def _split(meter: Meter, text: str, sep: str | None, times: int, cut: Callable[..., list[str]]) -> list[str]:
    """`cut(sep, times)`, its size known before it is made: short pieces take more room than their letters."""
    most = len(text) // WORD if sep is None else text.count(sep)
    meter.make(len(text) + ITEM * (most if times < 0 else min(most, times)))
    found = cut(sep, times)
    _walk(meter, text, times=len(found))
    return traced.pieces(text, found, gap=None if sep is None else len(sep))


def _lines(meter: Meter, text: str, keepends: bool) -> list[str]:
    meter.make(len(text) + ITEM * len(text) // WORD)
    found = text.splitlines(keepends=True)
    _walk(meter, text, times=len(found))
    whole = traced.pieces(text, found, gap=0)
    return whole if keepends else [traced.cut(line, 0, len(str(line).splitlines()[0])) for line in whole]


def _walk(meter: Meter, text: str, times: int = 1) -> None:
    """Count the work of finding places among the parts of a text."""
    parts = len(traced.spans(text))
    meter.step(parts * times if parts > 1 else 0)


def _text(part: Any) -> str:
    if not isinstance(part, str):
        raise DataError(f"the chat template joins a {kind(part)} as if it were text", FIX)
    return part
