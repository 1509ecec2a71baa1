"""What `is` can ask of a value in a chat template; a test that is not here is refused by name.

In: values. Out: truth, as Jinja's own tests (https://jinja.palletsprojects.com/templates/#builtin-tests).
"""

import operator
from collections.abc import Callable, Iterable, Mapping

from jinja2 import Undefined

from groundup.text.jinja.values import Namespace, Offered, kind

Sized = str | list | tuple | dict | range | Undefined  # of Jinja's Undefined, too, a length can be asked


def _rest(value: object, number: object) -> float:
    if not isinstance(value, int | float) or not isinstance(number, int | float):
        raise TypeError(f"only numbers are divided, not a {kind(value)} by a {kind(number)}")  # "%9d" % 2 makes text
    return value % number


TESTS: dict[str, Callable[..., bool]] = {
    "defined": lambda value: not isinstance(value, Undefined),
    "undefined": lambda value: isinstance(value, Undefined),
    "none": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, float),
    "number": lambda value: isinstance(value, int | float),
    "string": lambda value: isinstance(value, str),
    "mapping": lambda value: isinstance(value, Mapping),
    "sequence": lambda value: isinstance(value, Sized),
    "iterable": lambda value: isinstance(value, Iterable) and not isinstance(value, Namespace),
    "callable": lambda value: isinstance(value, Offered | Undefined),
    "odd": lambda value: _rest(value, 2) == 1,
    "even": lambda value: _rest(value, 2) == 0,
    "divisibleby": lambda value, num: _rest(value, num) == 0,
    "lower": lambda value: str(value).islower(),
    "upper": lambda value: str(value).isupper(),
    "sameas": lambda value, other: value is other,
    "in": lambda value, seq: value in seq,
}
for _names, _test in (
    (("eq", "==", "equalto"), operator.eq),
    (("ne", "!="), operator.ne),
    (("gt", ">", "greaterthan"), operator.gt),
    (("ge", ">="), operator.ge),
    (("lt", "<", "lessthan"), operator.lt),
    (("le", "<="), operator.le),
):
    TESTS |= dict.fromkeys(_names, _test)
