"""One entry of an instruction file -> its messages, in whichever of three forms it is written.

In: what JSON gives for an entry, and its place in words. Out: messages of system, user, assistant and tool, in an order
that a chat can have; or a DataError that names the place, what was found there, and what to write instead.

- Alpaca: {"instruction", "input" (may be empty or absent), "output"}, perhaps "system";
- messages: {"messages": [{"role", "content"}, ...]}, OpenAI's form; a message may carry "weight" (0 or 1, OpenAI's),
  "train" (Axolotl's) or "learn" (true or false);
- ShareGPT: {"conversations": [{"from": "human" | "gpt" | "system", "value"}, ...]}.

A "system" beside messages or conversations is the first message. What else an entry says that a conversation here has
no place for (`UNKNOWN`) is refused, unless it is empty.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.errors import DataError, nearest

FORMS = {"instruction": "Alpaca's", "messages": "messages", "conversations": "ShareGPT's"}
ROLES = {
    **{name: name for name in ("system", "user", "assistant", "tool")},
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "observation": "tool"},
}
FOLLOWS = {  # who may speak after whom; "" is the beginning
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
UNKNOWN = {  # parts of what is said that would be lost, were they passed over, and what to do instead
    "history": "write earlier turns as messages",
    **dict.fromkeys(("tool_calls", "function_call"), "write calls of tools as content"),
    **dict.fromkeys(("tools", "functions"), "describe the tools in the content of a system message"),
    "reasoning_content": "write the reasoning into the content, or leave it out",
}
UNKNOWN_OF_MESSAGE = UNKNOWN | {"name": "write who speaks into the content, or leave the name out"}
EMPTY = ("", "[]", "{}", "null")  # lists of tools are often written as text
MARKS = ("learn", "train", "weight")


def messages_of(entry: Any, where: str, *, answered: bool = True) -> list[dict[str, Any]]:
    """The messages of one entry; `answered` False allows that the last question has no answer yet.

    >>> messages_of({"instruction": "Say hello.", "output": "Hello."}, "entry 0 of a.json")
    [{'role': 'user', 'content': 'Say hello.'}, {'role': 'assistant', 'content': 'Hello.'}]
    >>> messages_of({"instruction": "Say hello.", "outptu": "Hello."}, "entry 1 of a.json")
    Traceback (most recent call last):
    groundup.errors.DataError: entry 1 of a.json has no 'output'; it has: instruction, outptu
      -> did you mean 'outptu'?
    """
    if not isinstance(entry, Mapping):
        what = f"{where} is no object but {json.dumps(entry)[:40]}"
        raise DataError(what, 'write {"instruction": ..., "output": ...} or {"messages": [...]}')
    forms = [name for name in FORMS if name in entry]
    filled = [name for name in forms if entry[name]]
    if len(filled) > 1:
        what = f"{where} is written in several forms at once: {', '.join(map(repr, filled))}"
        raise DataError(what, "keep one of them: the others would be lost")
    if not forms:
        found = ", ".join(map(str, entry)) or "nothing"
        close = [match for name in entry for match in difflib.get_close_matches(str(name), FORMS, n=1, cutoff=0.75)]
        wanted = "an entry has instruction and output (Alpaca), or messages, or conversations (ShareGPT)"
        raise DataError(
            f"{where} has none of the fields of a conversation; it has: {found}",
            f"did you mean '{close[0]}'?" if close else wanted,
        )
    _refuse_unknown(entry, where, UNKNOWN)
    form = (filled or forms)[0]
    messages = _alpaca(entry, where, answered) if form == "instruction" else _talk(entry[form], form, where)
    _check_order(messages, where, answered=answered)
    return [*_system(entry, where, messages), *messages]


def _refuse_unknown(part: Mapping[str, Any], where: str, unknown: Mapping[str, str]) -> None:
    for name, advice in unknown.items():
        value = part.get(name)
        if value and not (isinstance(value, str) and value.strip() in EMPTY):
            raise DataError(f"{where} has '{name}', which is not supported: it would be lost", advice)


def _system(entry: Mapping[str, Any], where: str, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The message of an entry's own "system", which Alpaca's form and ShareGPT's may have."""
    if not entry.get("system"):
        return []
    if messages[0]["role"] == "system":
        raise DataError(f"{where} has 'system' and begins with a system message too", "keep one of them")
    return [{"role": "system", "content": _text(entry, "system", where)}]


def _alpaca(entry: Mapping[str, Any], where: str, answered: bool) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    question = {"role": "user", "content": _text(entry, "instruction", where)}
    if entry.get("input") is not None and _text(entry, "input", where, empty=True).strip():
        question["input"] = entry["input"]
    messages.append(question)
    if answered or entry.get("output"):
        messages.append({"role": "assistant", "content": _text(entry, "output", where)})
    return messages


def _talk(turns: Any, form: str, where: str) -> list[dict[str, Any]]:
    """Messages of OpenAI's form or of ShareGPT's; a list of the one under the name of the other is understood."""
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        what = f"'{form}' in {where} is {json.dumps(turns)[:40]}, not a list of messages"
        raise DataError(what, "write [{...}, ...]")
    messages: list[dict[str, Any]] = []
    weighed = False
    for number, turn in enumerate(turns):
        place = f"message {number} in {where}"
        if not isinstance(turn, Mapping):
            raise DataError(f"{place} is no object but {json.dumps(turn)[:40]}", 'write {"role": ..., "content": ...}')
        _refuse_unknown(turn, place, UNKNOWN_OF_MESSAGE)
        shared = "from" in turn or ("value" in turn and "content" not in turn)
        message: dict[str, Any] = {"role": _role(turn, "from" if shared else "role", place)}
        message["content"] = _text(turn, "value" if shared else "content", place)
        message |= _second(turn, message, place) | _mark(turn, place)
        weighed |= turn.get("weight") is not None
        messages.append(message)
    if weighed:  # OpenAI's rule: an answer without a weight has weight 1 (API reference, fine-tuning)
        for message in messages:
            if message["role"] == "assistant":
                message.setdefault("learn", True)
    return messages


def _second(turn: Mapping[str, Any], message: dict[str, Any], place: str) -> dict[str, Any]:
    """Alpaca's second field, as `conversations.write_messages` leaves it: the end of the content."""
    second = turn.get("input")
    if second is None:
        return {}
    if not isinstance(second, str) or not second or not message["content"].endswith(f"\n{second}"):
        advice = "write all that is to be read into the content, and leave 'input' out"
        raise DataError(f"'input' of {place} is {json.dumps(second)[:40]}, not the last lines of its content", advice)
    first = message["content"].removesuffix(f"\n{second}")
    if not first.strip():
        raise DataError(f"{place} has nothing before its 'input'", "write what is asked into the content")
    return {"content": first, "input": second}


def _mark(turn: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What the data says about learning this message; {} where it says nothing."""
    found = {name: turn[name] for name in MARKS if turn.get(name) is not None}
    for name, value in found.items():
        if value not in (0, 1) or isinstance(value, str):
            raise DataError(f"'{name}' of {place} is {json.dumps(value)[:40]}", "write true or false, or 1 or 0")
    if len({bool(value) for value in found.values()}) > 1:
        raise DataError(f"{place} says of itself both learn and do not learn: {found}", "keep one mark")
    return {"learn": bool(next(iter(found.values())))} if found else {}


def _role(turn: Mapping[str, Any], field: str, place: str) -> str:
    value = turn.get(field)
    if field not in turn:
        raise DataError(f"{place} has no '{field}'; it has: {', '.join(turn) or 'nothing'}", f"add {field!r}")
    if not isinstance(value, str) or value not in ROLES:
        raise DataError(f"{place} has the {field} {json.dumps(value)[:40]}", nearest(str(value), ROLES))
    return ROLES[value]


def _text(part: Mapping[str, Any], field: str, where: str, *, empty: bool = False) -> str:
    """The text under a name, which must be there and, unless `empty`, hold more than white space."""
    if field not in part:
        found = [str(name) for name in part]
        raise DataError(f"{where} has no '{field}'; it has: {', '.join(found) or 'nothing'}", _close(field, found))
    value = part[field]
    if not isinstance(value, str):
        raise DataError(f"'{field}' in {where} is {json.dumps(value)[:40]}, not text", "put it in quotes, as one text")
    if not empty and not value.strip():
        raise DataError(f"'{field}' in {where} is empty", "fill it in, or remove the entry")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(value[error.start])
        what = f"'{field}' in {where} holds half of a surrogate pair, \\u{half:04x}"
        raise DataError(what, "repair the escape") from None
    return value


def _close(field: str, found: Sequence[str]) -> str:
    advice = nearest(field, found)
    return advice if advice.startswith("did") else f"add '{field}'"


def _check_order(messages: Sequence[Mapping[str, Any]], where: str, *, answered: bool) -> None:
    """Refuse roles in an order that no chat has, and a conversation without an answer."""
    for number, (before, role) in enumerate(_pairs(messages)):
        if role not in FOLLOWS[before]:
            after = f"after {before}" if before else "first"
            expected = " or ".join(FOLLOWS[before])
            what = f"{where}: roles out of order: {role} {after} (message {number})"
            raise DataError(what, f"there should be {expected}: repair the order, or remove the entry")
    roles = {str(message["role"]) for message in messages}
    if answered and "assistant" not in roles:
        raise DataError(f"{where} has no assistant turn: {', '.join(sorted(roles))}", "add the answer, or remove it")


def _pairs(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Who speaks after whom."""
    roles = ["", *(str(message["role"]) for message in messages)]
    yield from zip(roles, roles[1:], strict=False)
