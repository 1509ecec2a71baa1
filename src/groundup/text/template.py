"""Chat templates: messages in, the text a model was taught to read out, and whose words each part of it holds.

In: a template as it comes with a model (Jinja text), and messages as lists of {"role", "content"}. Out: one string, the
same that `transformers` renders, or the same cut into `Segment`s. The template comes from outside: it is parsed and
then walked within bounds, never run (`text.jinja`).
"""

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from groundup.errors import DataError
from groundup.text.jinja import traced
from groundup.text.jinja.limits import FIX, Meter
from groundup.text.jinja.statements import Break, Continue, Statements
from groundup.text.jinja.values import Namespace, Offered

LONGEST = 100_000  # characters of a template; the longest known one has about 20,000
DEEPEST = 50  # lists within lists of a message
DATE = re.compile(r"(?:[^%]|%-?[a-zA-Z%])*")
FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)  # what Python says of wrong values
ROLE = re.compile(r"[\w-]{1,64}")
TOOLS, VARIABLES = -1, -2  # the descriptions of tools, and what else a template is told, as if they were messages


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation.

    `content`: the words of message number `message`, spoken by `role`; special tokens written in them are plain text.
    So are those of tool descriptions (role "tools", message -1) and of variables, documents among them (role
    "variables", message -2). Otherwise the template's own words, where special tokens count; `message` is None then
    and `role` "".
    """

    text: str
    role: str
    content: bool
    message: int | None = None


class ChatTemplate:
    """A template ready to render; the special tokens are the texts that it may write, "" for those there are not.

    Raises DataError where it is no valid Jinja. What it may do is what chat templates do; of the rest that
    `transformers` allows each thing is refused by its name when it is met:

    - the filters `attr batch center e escape filesizeformat forceescape groupby pprint random slice striptags truncate
      urlencode urlize wordcount wordwrap xmlattr`, and in `format` all but %s, %d and %%;
    - the operator % on text, and of its methods what pads, encodes, formats or folds it, such as `zfill`, `ljust`,
      `center`, `encode`, `format`, `casefold` and `swapcase`;
    - `cycler`, `joiner`, `lipsum`; blocks, autoescape, recursive loops, other templates; what `safe` would escape.

    >>> chatml = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    >>> template = ChatTemplate(chatml, eos="<|end|>")
    >>> template.render([{"role": "user", "content": " Hello <|end|> "}])
    '<|user|>Hello <|end|><|end|>'
    >>> [(part.text, part.content) for part in template.segments([{"role": "user", "content": " Hello <|end|> "}])]
    [('<|user|>', False), ('Hello <|end|>', True), ('<|end|>', False)]
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "", unk: str = "", pad: str = "") -> None:
        self.source = source
        self.special = {"bos_token": bos, "eos_token": eos, "unk_token": unk, "pad_token": pad}
        self._body = _parsed(source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text; with `generation` up to where the assistant's next words belong.

        variables: what else the template is told, such as {"enable_thinking": False}.
        Raises DataError where the template refuses the messages, fails, does what none may, or takes too much.
        """
        plain = [_plain(dict(message), "a message") for message in messages]
        known = None if tools is None else _plain(list(tools), "a tool")
        return str(self._told(plain, generation, known, _variables(variables)))

    def segments(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[Segment]:
        """The text of `render` in parts: what came with a message, and what the template wrote around it.

        Everything in a message but its role is content, also what the template trimmed, cut or turned into JSON; so is
        all text in tools and variables. Raises DataError as `render`, for a role that is no word, and for a template
        after which content cannot be told from its own words.
        """
        plain = [_marked(_plain(dict(message), "a message"), number) for number, message in enumerate(messages)]
        known = None if tools is None else traced.marked(_plain(list(tools), "a tool"), TOOLS)
        told = {name: traced.marked(value, VARIABLES) for name, value in _variables(variables).items()}
        text, place, parts = self._told(plain, generation, known, told), 0, []
        for size, owner in traced.spans(text):
            parts.append(Segment(str(text[place : place + size]), _speaker(plain, owner), owner is not None, owner))
            place += size
        return parts

    def _told(self, messages: list[Any], generation: bool, tools: Any, variables: Mapping[str, Any]) -> str:
        """Walk the template within its budget; whatever goes wrong in it becomes a DataError that names the line."""
        given = {"messages": messages, "tools": tools}
        told = {"documents": None, **variables}
        meter = Meter(0)
        meter = Meter(meter.pay(given, told))
        special = {name: text for name, text in self.special.items() if text}
        names = _globals(meter) | special | given | told | {"add_generation_prompt": generation}
        walk = Statements(meter, names)
        try:
            walk.run(self._body)
            return traced.joined(walk.parts)
        except (Break, Continue):
            raise DataError(f"the chat template leaves a loop where there is none, in line {walk.line}", FIX) from None
        except (*FAILURES, jinja2.TemplateError) as error:
            raise DataError(f"the chat template fails in line {walk.line}: {error}", FIX) from None
        except RecursionError:
            raise DataError(f"the chat template nests too deeply in line {walk.line}", FIX) from None


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says; to rendering it is only a scope, as in transformers."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _parsed(source: str) -> list[nodes.Node]:
    """The statements of a template, read as transformers reads it; nothing is compiled."""
    if len(source) > LONGEST:
        raise DataError(f"the chat template has {len(source):,} characters, more than {LONGEST:,}", FIX)
    grammar = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    try:
        return grammar.parse(source).body
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"the chat template is no valid Jinja in line {error.lineno}: {error.message}", FIX) from None
    except RecursionError:
        raise DataError("the chat template nests too deeply to be read", FIX) from None
    except (ValueError, SyntaxError, OverflowError) as error:  # a number of 5,000 digits, say
        raise DataError(f"the chat template is no valid Jinja: {error}", FIX) from None


def _speaker(messages: list[Any], owner: int | None) -> str:
    """The role that goes with the words of an owner."""
    if owner is None or owner < 0:
        return {None: "", TOOLS: "tools", VARIABLES: "variables"}[owner]
    return str(messages[owner].get("role", ""))


def _globals(meter: Meter) -> dict[str, Any]:
    """The functions that every template may call."""

    def count(*ends: int) -> range:
        found = range(*ends)
        if len(found) > 100_000:
            raise DataError(f"the chat template asks for a range of {len(found):,} numbers", FIX)
        return found

    def namespace(*given: Any, **named: Any) -> Namespace:
        return Namespace(mapping(*given, **named))

    def mapping(*given: Any, **named: Any) -> dict[Any, Any]:
        found = dict(*given, **named)
        meter.pay(found)
        if any(str(name).startswith("__") for name in found):
            raise DataError("the chat template keeps a name that begins with __", FIX)
        return found

    offered: dict[str, Callable[..., Any]] = {"range": count, "dict": mapping, "namespace": namespace}
    offered |= {"raise_exception": _refuse, "strftime_now": _now}
    return {name: Offered(name, call) for name, call in offered.items()}


def _refuse(message: Any) -> None:
    """`raise_exception`, with which templates refuse messages they were not made for."""
    words = str(message)[:300] if isinstance(message, str | int | float) else f"it says a {type(message).__name__}"
    words = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", words)
    raise DataError(f"the chat template refuses these messages: {words}", "change the roles or their order")


def _now(form: Any) -> str:
    """`strftime_now`: today's date as the template wants it written."""
    if not isinstance(form, str) or len(form) > 100 or not DATE.fullmatch(form):
        raise DataError(f"the chat template asks for the date in the form {str(form)[:40]!r}", FIX)
    return datetime.datetime.now().strftime(str(form))


def _marked(message: dict[str, Any], number: int) -> dict[str, Any]:
    """A message whose every string, keys included, is known as its own; only the role is not, but must be a word."""
    marked: dict[str, Any] = traced.marked(message, number)
    if "role" in message:
        role = marked["role"] = message["role"]
        if not isinstance(role, str) or not ROLE.fullmatch(role):
            raise DataError(f"message {number} has the role {role!r:.40}", "a role is a word such as user or assistant")
    return marked


def _variables(variables: Mapping[str, Any] | None) -> dict[str, Any]:
    """The variables as plain data; their names are names."""
    for name in variables or {}:
        if not isinstance(name, str):
            raise DataError(f"a variable is called {name!r:.40}", "give names, as in {'enable_thinking': False}")
    return {name: _plain(value, "a variable") for name, value in (variables or {}).items()}


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy made of JSON's own types; raises DataError for anything else, and for nesting without end."""
    if depth > DEEPEST:
        raise DataError(f"{where} is nested more than {DEEPEST} deep", "give plain messages: role and content")
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        if any(isinstance(key, tuple) for key in value):
            raise DataError(f"{where} has a tuple for a key", "give plain messages: role and content")
        return {_plain(key, where, depth + 1): _plain(part, where, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, where, depth + 1) for part in value]
    raise DataError(f"{where} holds a {type(value).__name__}", "give strings, numbers, lists and dicts only")
