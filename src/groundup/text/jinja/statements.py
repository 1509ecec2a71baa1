"""The statements of a template, carried out one by one: text, loops, ifs, names, macros. Text comes out.

In: the tree of a template and a meter. Out: the parts of the text, in order. Including, importing and inheriting other
templates are not offered: a chat template is one text.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import Undefined, nodes

from groundup.errors import DataError
from groundup.text.jinja import values
from groundup.text.jinja.expressions import Expressions, Scope
from groundup.text.jinja.limits import CALLS, FIX, Meter
from groundup.text.jinja.values import Loop, Offered


class Break(Exception):
    """`{% break %}`"""


class Continue(Exception):
    """`{% continue %}`"""


class Statements(Expressions):
    """Carries out statements; what they print is gathered in `parts`."""

    def __init__(self, meter: Meter, names: Mapping[str, Any]) -> None:
        super().__init__(meter, names)
        self.parts: list[str] = []
        self.calls = self.loops = 0
        self._mentioned: dict[int, set[str]] = {}

    def run(self, body: Iterable[nodes.Node]) -> None:
        """Carry out a list of statements in the present scope."""
        for node in body:
            self.meter.step()
            self.line = node.lineno or self.line
            known: Callable[[Any], None] | None = getattr(self, f"_do_{type(node).__name__.lower()}", None)
            if known is None:
                raise DataError(f"the chat template uses {{% {type(node).__name__.lower()} %}}, not offered here", FIX)
            known(node)

    def _do_output(self, node: nodes.Output) -> None:
        for part in node.nodes:
            text = values.shown(self.meter, self.value(part))
            self.meter.make(len(text))
            self.parts.append(text)

    def _do_if(self, node: nodes.If) -> None:
        for branch in (node, *node.elif_):
            if self.value(branch.test):
                self.run(branch.body)
                return
        self.run(node.else_)

    def _do_for(self, node: nodes.For) -> None:
        if node.recursive:
            raise DataError("the chat template uses a recursive loop, which is not offered", FIX)
        items = values.iterate(self.meter, self.value(node.iter))
        if node.test is not None:
            items = [item for item in items if self._passes(node, item)]
        self.loops += 1
        loop = Loop(self.meter, items, depth=self.loops)
        try:
            for number, item in enumerate(items):
                loop.index0 = number
                self._turn(node, loop, item)
        except Break:
            pass
        finally:
            self.loops -= 1
        if not items:
            with self._scope():
                self.run(node.else_)

    def _turn(self, node: nodes.For, loop: Loop, item: Any) -> None:
        """The body of a loop, once: names set in it are gone after it."""
        with self._scope(loop=loop):
            self.meter.step()
            self.bind(node.target, item)
            try:
                self.run(node.body)
            except Continue:
                pass

    def _passes(self, node: nodes.For, item: Any) -> bool:
        with self._scope():
            self.bind(node.target, item)
            return node.test is None or bool(self.value(node.test))

    def _do_break(self, node: nodes.Break) -> None:
        raise Break

    def _do_continue(self, node: nodes.Continue) -> None:
        raise Continue

    def _do_assign(self, node: nodes.Assign) -> None:
        self.bind(node.target, self.value(node.node))

    def _do_assignblock(self, node: nodes.AssignBlock) -> None:
        with self._scope():
            text: Any = self._captured(node.body)
        self.bind(node.target, text if node.filter is None else self.through(node.filter, text))

    def _do_filterblock(self, node: nodes.FilterBlock) -> None:
        with self._scope():
            text = values.shown(self.meter, self.through(node.filter, self._captured(node.body)))
        self.meter.make(len(text))
        self.parts.append(text)

    def _do_with(self, node: nodes.With) -> None:
        found = [self.value(value) for value in node.values]
        with self._scope():
            for target, value in zip(node.targets, found, strict=True):
                self.bind(target, value)
            self.run(node.body)

    def _do_scope(self, node: nodes.Scope) -> None:
        with self._scope():
            self.run(node.body)

    def _do_macro(self, node: nodes.Macro) -> None:
        self.scope.names[node.name] = self._macro(node.name, node)

    def _do_callblock(self, node: nodes.CallBlock) -> None:
        called = self.value(node.call.node)
        args, kwargs = self.arguments(node.call)
        text = values.shown(self.meter, self.called(called, args, kwargs | {"caller": self._macro("caller", node)}))
        self.meter.make(len(text))
        self.parts.append(text)

    def _macro(self, name: str, node: nodes.Macro | nodes.CallBlock) -> Offered:
        """A macro as something to call: a body that sees the names around it and those it was called with."""
        around = self.scope

        def call(*args: Any, **kwargs: Any) -> str:
            self.calls += 1
            if self.calls > CALLS:
                raise DataError(f"the macros of the chat template call each other more than {CALLS} deep", FIX)
            before, self.scope = self.scope, Scope({}, around)
            try:
                self._receive(node, args, dict(kwargs))
                return self._captured(node.body)
            finally:
                self.scope, self.calls = before, self.calls - 1

        return Offered(name, call)

    def _receive(self, node: nodes.Macro | nodes.CallBlock, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Bind the arguments of a call to the names of a macro; TypeError where it has no use for one of them."""
        names = self.scope.names
        known = [arg.name for arg in node.args]
        defaults = dict(zip(known[len(known) - len(node.defaults) :], node.defaults, strict=True))
        for number, wanted in enumerate(known):
            if number < len(args):
                names[wanted] = args[number]
            elif wanted in kwargs:
                names[wanted] = kwargs.pop(wanted)
            else:
                names[wanted] = self.value(defaults[wanted]) if wanted in defaults else Undefined(name=wanted)
        mentioned = self._mentions(node)
        if "caller" in mentioned and "caller" in kwargs:
            names["caller"] = kwargs.pop("caller")
        if len(args) > len(known) and "varargs" not in mentioned:
            raise TypeError(f"a macro that takes {len(known)} arguments is given {len(args)}")
        if kwargs and "kwargs" not in mentioned:
            raise TypeError(f"a macro is given {next(iter(kwargs))!r}, which it does not take")
        names |= {"varargs": self.built(tuple(args[len(known) :])), "kwargs": self.built(kwargs)}

    def _mentions(self, node: nodes.Macro | nodes.CallBlock) -> set[str]:
        """The names in the body of a macro: as in Jinja, they tell whether it takes more than it lists."""
        if id(node) not in self._mentioned:
            self._mentioned[id(node)] = {name.name for part in node.body for name in part.find_all(nodes.Name)}
        return self._mentioned[id(node)]

    def _captured(self, body: Sequence[nodes.Node]) -> str:
        """What statements print, as one string."""
        before, self.parts = self.parts, []
        try:
            self.run(body)
            return values.join(self.meter, self.parts, "")
        finally:
            self.parts = before

    @contextmanager
    def _scope(self, **names: Any) -> Iterator[None]:
        before, self.scope = self.scope, Scope(names, self.scope)
        try:
            yield
        finally:
            self.scope = before
