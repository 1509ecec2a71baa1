"""Values of expressions: Jinja's syntax tree in, plain data out, every node a step.

In: nodes of `jinja2.nodes`, the names in sight. Out: strings, numbers, lists, dicts ... as Jinja computes them.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Undefined, nodes

from groundup.errors import DataError, nearest
from groundup.text.jinja import values
from groundup.text.jinja.checks import TESTS
from groundup.text.jinja.filters import FILTERS
from groundup.text.jinja.limits import FIX, ITEM, Meter
from groundup.text.jinja.traced import Traced, joined
from groundup.text.jinja.values import Namespace, Offered

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "gteq": operator.ge, "lt": operator.lt,
    "lteq": operator.le, "in": lambda left, right: left in right, "notin": lambda left, right: left not in right,
}  # fmt: skip


class Scope:
    """Names and their values; what is not here may be in the scope around it."""

    def __init__(self, names: dict[str, Any], around: "Scope | None" = None) -> None:
        self.names, self.around = names, around

    def find(self, name: str) -> Any:
        """The value of a name, Undefined if it has none."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.around
        return Undefined(name=name)


class Expressions:
    """Computes expressions within the budget of a meter; `line` is where it stands in the template."""

    def __init__(self, meter: Meter, names: Mapping[str, Any]) -> None:
        self.meter, self.scope, self.line = meter, Scope(dict(names)), 0

    def value(self, node: nodes.Node) -> Any:
        """What an expression comes to."""
        self.meter.step()
        self.line = node.lineno or self.line
        known = getattr(self, f"_{type(node).__name__.lower()}", None)
        if known is None:
            raise DataError(f"the chat template uses {type(node).__name__}, which is not offered", FIX)
        return known(node)

    # names and constants

    def _const(self, node: nodes.Const) -> Any:
        return self.meter.number(node.value)

    def _templatedata(self, node: nodes.TemplateData) -> str:
        return node.data

    def _name(self, node: nodes.Name) -> Any:
        return self.scope.find(node.name)

    def _list(self, node: nodes.List) -> list[Any]:
        self.meter.make(ITEM * len(node.items))
        return self.built([self.value(item) for item in node.items])

    def _tuple(self, node: nodes.Tuple) -> tuple[Any, ...]:
        self.meter.make(ITEM * len(node.items))
        return self.built(tuple(self.value(item) for item in node.items))

    def _dict(self, node: nodes.Dict) -> dict[Any, Any]:
        self.meter.make(4 * ITEM * len(node.items))
        pairs = [(self.value(pair.key), self.value(pair.value)) for pair in node.items]
        return dict(self.built(pairs))

    def built(self, value: Any) -> Any:
        """A new list, its size and depth within bounds."""
        self.meter.pay(value)
        return value

    # parts of values

    def _getattr(self, node: nodes.Getattr) -> Any:
        return values.attribute(self.meter, self.value(node.node), node.attr)

    def _getitem(self, node: nodes.Getitem) -> Any:
        found = self.value(node.node)
        if isinstance(node.arg, nodes.Slice):
            ends = (node.arg.start, node.arg.stop, node.arg.step)
            return values.span(self.meter, found, slice(*(None if end is None else self.value(end) for end in ends)))
        return values.item(self.meter, found, self.value(node.arg))

    # logic

    def _and(self, node: nodes.And) -> Any:
        return self.value(node.left) and self.value(node.right)

    def _or(self, node: nodes.Or) -> Any:
        return self.value(node.left) or self.value(node.right)

    def _not(self, node: nodes.Not) -> bool:
        return not self.value(node.node)

    def _condexpr(self, node: nodes.CondExpr) -> Any:
        if self.value(node.test):
            return self.value(node.expr1)
        return Undefined("the `if` has no `else`") if node.expr2 is None else self.value(node.expr2)

    def _compare(self, node: nodes.Compare) -> Any:
        left, result = self.value(node.expr), True
        for operand in node.ops:
            right = self.value(operand.expr)
            if operand.op in ("in", "notin"):
                right = self._held(right)
            self.meter.pay(left, right)
            result = COMPARED[operand.op](left, right)
            if not result:
                break
            left = right
        return result

    def _held(self, value: Any) -> Any:
        """Something to look in: the size of what comes from an iterator is known only once it is a list."""
        return values.iterate(self.meter, value) if isinstance(value, Iterator) else value

    # arithmetic

    def _add(self, node: nodes.Add) -> Any:
        return self.add(self.value(node.left), self.value(node.right))

    def add(self, left: Any, right: Any) -> Any:
        """`left + right` of numbers, strings or lists."""
        if isinstance(left, str) and isinstance(right, str):
            return values.added(self.meter, left, right)
        if isinstance(left, list | tuple) and isinstance(right, list | tuple):
            self.meter.make(ITEM * (len(left) + len(right)))
        return self.meter.number(left + right)

    def _mul(self, node: nodes.Mul) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, int) and isinstance(right, str | list | tuple):
            left, right = right, left
        if isinstance(left, str | list | tuple) and isinstance(right, int):
            return self._repeated(left, right)
        return self.meter.number(left * right)

    def _repeated(self, value: Any, times: int) -> Any:
        traced = isinstance(value, Traced)  # kept as many parts, each of which takes the room of an item
        self.meter.make(max(0, times) * len(value) * (1 if isinstance(value, str) and not traced else ITEM))
        return joined([value] * times) if traced else value * times

    def _sub(self, node: nodes.Sub) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        self.meter.pay(left, right)  # the keys of two dicts, say
        return self.meter.number(left - right)

    def _div(self, node: nodes.Div) -> Any:
        return self.value(node.left) / self.value(node.right)

    def _floordiv(self, node: nodes.FloorDiv) -> Any:
        return self.value(node.left) // self.value(node.right)

    def _mod(self, node: nodes.Mod) -> Any:
        left = self.value(node.left)
        if isinstance(left, str):
            raise DataError("the chat template formats text with %, which is not offered", FIX)
        return left % self.value(node.right)

    def _pow(self, node: nodes.Pow) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > 4096:
            raise DataError("the chat template computes a number of more than 4,096 bits", FIX)
        return left**right

    def _neg(self, node: nodes.Neg) -> Any:
        return -self.value(node.node)

    def _pos(self, node: nodes.Pos) -> Any:
        return +self.value(node.node)

    def _concat(self, node: nodes.Concat) -> str:
        return values.join(self.meter, [values.shown(self.meter, self.value(part)) for part in node.nodes], "")

    # filters, tests, calls

    def _filter(self, node: nodes.Filter) -> Any:
        return self.through(node, "")

    def through(self, node: nodes.Filter, body: Any) -> Any:
        """A filter of the value before its bar, or of `body` where there is none, as in `{% filter upper %}`."""
        if isinstance(node.node, nodes.Filter):
            body = self.through(node.node, body)
        elif node.node is not None:
            body = self.value(node.node)
        args, kwargs = self.arguments(node)
        return self.filtered(node.name, body, args, kwargs)

    def filtered(self, name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A value through the filter of that name."""
        if name not in FILTERS:
            raise DataError(f"the chat template uses the filter {str(name)[:40]!r}, which is not offered", FIX)
        self.meter.step()
        self.meter.pay(value, *args, *kwargs.values())
        found = FILTERS[name](self, value, *args, **kwargs)
        if isinstance(found, list):
            self.meter.make(ITEM * len(found))
        return found

    def _test(self, node: nodes.Test) -> bool:
        args, kwargs = self.arguments(node)
        return self.tested(node.name, self.value(node.node), args, kwargs)

    def tested(self, name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a value passes the test of that name."""
        if name not in TESTS:
            raise DataError(f"the chat template uses the test {str(name)[:40]!r}: {nearest(str(name), TESTS)}", FIX)
        self.meter.step()
        if name in ("lower", "upper"):
            value = values.shown(self.meter, value)
            self.meter.pay(value)
        elif args:
            args = [self._held(arg) for arg in args]
            self.meter.pay(value, *args)
        return bool(TESTS[name](value, *args, **kwargs))

    def _call(self, node: nodes.Call) -> Any:
        called = self.value(node.node)
        args, kwargs = self.arguments(node)
        return self.called(called, args, kwargs)

    def called(self, what: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a call; only what a template was offered can be called."""
        if isinstance(what, Undefined):
            what()  # raises, and says in Jinja's words which name is undefined
        if not isinstance(what, Offered):
            raise DataError(f"the chat template calls a {values.kind(what)} as if it were a function", FIX)
        return what.call(*args, **kwargs)

    def arguments(self, node: Any) -> tuple[list[Any], dict[str, Any]]:
        """What stands in the brackets of a call, a filter or a test."""
        args = [self.value(arg) for arg in node.args]
        kwargs = {pair.key: self.value(pair.value) for pair in node.kwargs}
        if node.dyn_args is not None:
            args += values.iterate(self.meter, self.value(node.dyn_args))
        if node.dyn_kwargs is not None:
            kwargs |= self.value(node.dyn_kwargs)
        return args, kwargs

    # names that are set

    def bind(self, target: nodes.Node, value: Any) -> None:
        """Give a name, the names of a tuple, or an attribute of a namespace its value."""
        if isinstance(target, nodes.Name):
            self.scope.names[target.name] = value
        elif isinstance(target, nodes.NSRef):
            self._keep(self.scope.find(target.name), target.attr, value)
        elif isinstance(target, nodes.Tuple):
            parts = values.iterate(self.meter, value)
            if len(parts) != len(target.items):
                raise DataError(f"the chat template takes {len(target.items)} names from {len(parts)} values", FIX)
            for name, part in zip(target.items, parts, strict=True):
                self.bind(name, part)

    def _keep(self, space: Any, name: str, value: Any) -> None:
        if not isinstance(space, Namespace) or name.startswith("_"):
            raise DataError(f"the chat template sets {name!r} of what is no namespace", FIX)
        space.values[name] = value
