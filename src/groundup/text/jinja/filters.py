"""The filters of Jinja that chat templates use; one that is not here is refused by name.

In: `run`, which looks things up and counts, and the value before the bar. Out: what Jinja's own filter of that name
gives (https://jinja.palletsprojects.com/templates/#builtin-filters; `tojson` as transformers defines it).
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined

from groundup.errors import DataError
from groundup.text.jinja import traced, values
from groundup.text.jinja.limits import FIX, ITEM

if TYPE_CHECKING:
    from groundup.text.jinja.expressions import Expressions

WIDEST = 16  # spaces of indentation
HIGHEST = 2**61 - 2  # whole numbers up to here differ in their hash


def _trim(run: "Expressions", value: Any, chars: str | None = None) -> str:
    return values.strip(run.meter, values.shown(run.meter, value), chars)


def _upper(run: "Expressions", value: Any) -> str:
    return _remade(run, value, str.upper)


def _lower(run: "Expressions", value: Any) -> str:
    return _remade(run, value, str.lower)


def _capitalize(run: "Expressions", value: Any) -> str:
    return _remade(run, value, str.capitalize)


def _title(run: "Expressions", value: Any) -> str:
    def each_word(text: str) -> str:
        return "".join(word[0].upper() + word[1:].lower() for word in re.split(r"([-\s({\[<]+)", text) if word)

    return _remade(run, value, each_word, room=2 * ITEM)  # a word may be of one letter


def _string(run: "Expressions", value: Any) -> str:
    return values.shown(run.meter, value)


def _safe(run: "Expressions", value: Any) -> str:
    return traced.safe(values.shown(run.meter, value))


def _formatted(run: "Expressions", value: Any, *args: Any) -> str:
    """`value % args` of plain %s, %d and %%: what is wider could be as wide as it likes."""
    text = values.shown(run.meter, value)
    places = list(re.finditer(r"%(.?)", str(text), re.DOTALL))
    run.meter.step(len(places) * (1 + len(traced.spans(text))))
    if sum(place[1] != "%" for place in places) != len(args):
        raise TypeError(f"{len(args)} values are formatted by a text with another number of places")
    parts, at, given = [], 0, iter(args)
    for place in places:
        if place[1] not in ("s", "d", "%"):
            raise DataError(f"the chat template formats with {place[0]!r}; only %s, %d and %% are offered", FIX)
        parts.append(traced.cut(text, at, place.start() + (place[1] == "%") - at))
        at = place.end()
        if place[1] != "%":
            asked = next(given)
            parts.append(values.shown(run.meter, asked if place[1] == "s" else run.meter.number(math.trunc(asked))))
    return values.join(run.meter, [*parts, traced.cut(text, at, len(text))], "")


def _replace(run: "Expressions", value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = (values.shown(run.meter, part) for part in (value, old, new))
    return values.replaced(run.meter, text, old, new, -1 if count is None else count)


def _join(run: "Expressions", value: Any, d: Any = "", attribute: Any = None) -> str:
    items = [_asked(run, item, attribute) for item in values.iterate(run.meter, value)]
    return values.join(run.meter, [values.shown(run.meter, item) for item in items], values.shown(run.meter, d))


def _indent(run: "Expressions", s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(s, str):
        raise DataError("the chat template indents what is no text", FIX)
    margin = width if isinstance(width, str) else " " * _narrow(width)
    run.meter.make(len(s) + ITEM * len(s) // values.WORD)
    lines = (str(s) + "\n").splitlines()
    run.meter.make(len(margin) * len(lines))
    told = [margin + line if (number or first) and (line or blank or not number) else line
            for number, line in enumerate(lines)]  # fmt: skip
    return traced.made("\n".join(told), [s], by="indent")


def _tojson(run: "Expressions", x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
           sort_keys: bool = False) -> str:  # fmt: skip
    deep = _narrow(len(indent) if isinstance(indent, str) else indent or 0) * _depth(x)
    for sign in separators or ():
        _narrow(len(sign))
    size = run.meter.pay(x)
    run.meter.make((12 if ensure_ascii else 6) * size + (deep + WIDEST) * (size // 16))
    found = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return traced.swallowed(found, x)


def _length(run: "Expressions", value: Any) -> int:
    return len(value)


def _first(run: "Expressions", value: Any) -> Any:
    return next(iter(values.iterate(run.meter, value)), Undefined("an empty list has no first item"))


def _last(run: "Expressions", value: Any) -> Any:
    return next(reversed(values.iterate(run.meter, value)), Undefined("an empty list has no last item"))


def _listed(run: "Expressions", value: Any) -> list[Any]:
    return values.iterate(run.meter, value)


def _reverse(run: "Expressions", value: Any) -> Any:
    return traced.sliced(value, slice(None, None, -1)) if isinstance(value, str) else (
        iter(values.iterate(run.meter, value)[::-1]))  # fmt: skip


def _items(run: "Expressions", value: Any) -> Iterator[Any]:
    if not isinstance(value, Mapping | Undefined):
        raise DataError("the chat template asks for the items of what is no mapping", FIX)
    return iter([] if isinstance(value, Undefined) else value.items())


def _dictsort(run: "Expressions", value: Any, case_sensitive: bool = False, by: str = "key",
             reverse: bool = False) -> list[Any]:  # fmt: skip
    def key(pair: tuple[Any, Any]) -> Any:
        return _key(run, pair[("key", "value").index(by)], None, case_sensitive)

    run.meter.step(20 * len(value))
    return sorted(value.items(), key=key, reverse=reverse)


def _sort(run: "Expressions", value: Any, reverse: bool = False, case_sensitive: bool = False,
         attribute: Any = None) -> list[Any]:  # fmt: skip
    def key(item: Any) -> list[Any]:
        names = attribute.split(",") if isinstance(attribute, str) else [attribute]
        return [_key(run, item, name, case_sensitive) for name in names]

    found = values.iterate(run.meter, value)
    run.meter.step(20 * len(found))
    return sorted(found, key=key, reverse=reverse)


def _unique(run: "Expressions", value: Any, case_sensitive: bool = False, attribute: Any = None) -> Iterator[Any]:
    found: dict[Any, Any] = {}
    for item in values.iterate(run.meter, value):
        key = _key(run, item, attribute, case_sensitive)
        if isinstance(key, int) and abs(key) > HIGHEST:
            run.meter.step(len(found))  # its hash may be that of all before it
        found.setdefault(key, item)
    return iter(found.values())


def _smallest(run: "Expressions", value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
    return _extreme(run, min, value, case_sensitive, attribute)


def _largest(run: "Expressions", value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
    return _extreme(run, max, value, case_sensitive, attribute)


def _total(run: "Expressions", value: Any, attribute: Any = None, start: Any = 0) -> Any:
    for item in values.iterate(run.meter, value):
        start = run.add(start, _asked(run, item, attribute))
    return start


def _default(run: "Expressions", value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


def _whole(run: "Expressions", value: Any, default: Any = 0, base: int = 10) -> Any:
    try:
        return run.meter.number(int(value, base) if isinstance(value, str) else int(value))
    except (TypeError, ValueError):
        try:
            return run.meter.number(int(float(value)))
        except (TypeError, ValueError, OverflowError):
            return default


def _real(run: "Expressions", value: Any, default: Any = 0.0) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _rounded(run: "Expressions", value: Any, precision: int = 0, method: str = "common") -> Any:
    if method not in ("common", "ceil", "floor") or abs(precision) > 20:
        raise DataError(f"the chat template rounds by {method!r} to {precision} places", FIX)
    if not isinstance(value, int | float):
        raise TypeError(f"a {values.kind(value)} cannot be rounded")  # a str times 10**9 is a long one
    if method == "common":
        return round(value, precision)
    return getattr(math, method)(value * 10**precision) / 10**precision


def _mapped(run: "Expressions", value: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    found = values.iterate(run.meter, value) if value else []
    if args:
        return iter([run.filtered(args[0], item, args[1:], kwargs) for item in found])
    asked = [_asked(run, item, kwargs["attribute"]) for item in found]
    other = kwargs.get("default")
    return iter([other if isinstance(item, Undefined) and other is not None else item for item in asked])


def _select(run: "Expressions", value: Any, *args: Any) -> Iterator[Any]:
    return _chosen(run, value, None, args, wanted=True)


def _reject(run: "Expressions", value: Any, *args: Any) -> Iterator[Any]:
    return _chosen(run, value, None, args, wanted=False)


def _selectattr(run: "Expressions", value: Any, attribute: Any, *args: Any) -> Iterator[Any]:
    return _chosen(run, value, attribute, args, wanted=True)


def _rejectattr(run: "Expressions", value: Any, attribute: Any, *args: Any) -> Iterator[Any]:
    return _chosen(run, value, attribute, args, wanted=False)


def _chosen(run: "Expressions", value: Any, attribute: Any, args: tuple[Any, ...], *, wanted: bool) -> Iterator[Any]:
    def fits(item: Any) -> bool:
        asked = _asked(run, item, attribute)
        return bool(run.tested(args[0], asked, args[1:], {}) if args else asked)

    found = values.iterate(run.meter, value) if value else []  # of none, too, nothing is chosen
    return iter([item for item in found if fits(item) == wanted])


def _asked(run: "Expressions", value: Any, path: Any) -> Any:
    """`value.a.b` for the path "a.b"; the value itself without one."""
    if path is None:
        return value
    for part in path.split(".") if isinstance(path, str) else [path]:
        if isinstance(part, str) and part.startswith("__"):
            return values.attribute(run.meter, value, part)  # which refuses it
        value = values.item(run.meter, value, int(part) if isinstance(part, str) and part.isdigit() else part)
    return value


def _extreme(run: "Expressions", choose: Callable[..., Any], value: Any, case_sensitive: bool, attribute: Any) -> Any:
    found = values.iterate(run.meter, value)
    if not found:
        return Undefined("an empty list has no extremes")
    return choose(found, key=lambda item: _key(run, item, attribute, case_sensitive))


def _key(run: "Expressions", item: Any, path: Any, case_sensitive: bool) -> Any:
    """What an item is compared by. Paid for here: it may be large, and one large value may stand behind every item."""
    value = _asked(run, item, path)
    run.meter.make(run.meter.pay(value))
    return value.lower() if isinstance(value, str) and not case_sensitive else value


def _remade(run: "Expressions", value: Any, change: Callable[[str], str], room: int = 2) -> str:
    text = values.shown(run.meter, value)
    run.meter.make(room * len(text))
    return traced.made(change(str(text)), [text], by="a change of letters")


def _narrow(width: Any) -> int:
    if not isinstance(width, int) or not 0 <= width <= WIDEST:
        raise DataError(f"the chat template indents or separates by {str(width)[:20]} spaces, not 0 to {WIDEST}", FIX)
    return width


def _depth(value: Any) -> int:
    """How many lists and mappings stand in one another."""
    if not isinstance(value, Mapping | list | tuple):
        return 0
    parts = value.values() if isinstance(value, Mapping) else value
    return 1 + max(map(_depth, parts), default=0)


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": lambda run, value: abs(value), "capitalize": _capitalize, "count": _length, "d": _default,
    "default": _default, "dictsort": _dictsort, "first": _first, "float": _real, "format": _formatted,
    "indent": _indent, "int": _whole, "items": _items, "join": _join, "last": _last, "length": _length,
    "list": _listed, "lower": _lower, "map": _mapped,
    "max": _largest, "min": _smallest, "reject": _reject, "rejectattr": _rejectattr, "replace": _replace,
    "reverse": _reverse, "round": _rounded, "safe": _safe, "select": _select, "selectattr": _selectattr,
    "sort": _sort, "string": _string, "sum": _total, "title": _title, "tojson": _tojson, "trim": _trim,
    "unique": _unique, "upper": _upper,
}  # fmt: skip
