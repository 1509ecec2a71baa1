"""A Modelfile: how Ollama runs an exported model. In: the tokenizer with its chat template, the name of the GGUF file.
Out: the text of the file.

Ollama words a conversation by a template in Go's language, models carry one in Jinja's. What is translated here is not
the program but what it does: the Jinja template renders a few conversations, the text between the messages is read off,
and a Go template that puts the same text there is kept only if it gives every conversation to the letter. Everything
else gets a plain completion and a comment that says so.

Sources: Ollama's "Modelfile Reference" and "Template" pages; how values are quoted is read off its parser.
"""

from typing import NamedTuple

from groundup.checkpoint.gguf import vocabulary
from groundup.errors import CheckpointError, GroundupError
from groundup.text.template import ChatTemplate
from groundup.tokens.tokenizer import Tokenizer

Messages = list[dict[str, str]]
PLAIN = "{{ .Prompt }}"
TEMPERATURE = 0.8  # that of `groundup generate`

# Words that no template says by itself. Braces, quotes and white space inside show whether a content stays as it is.
SYSTEM, QUESTION, ANSWER, AGAIN = 'Qa "sys"\n{{ x }}', "Qb 'one' <b>", "Qc\n\nzwei", "Qd drei?"


class Wording(NamedTuple):
    """What a template puts around the messages. `opening` stands first where there is no system message."""

    opening: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str  # what asks for the next answer


def modelfile(tokenizer: Tokenizer, gguf_name: str, context: int) -> str:
    """The text of a Modelfile beside the GGUF file `gguf_name`, for texts of up to `context` tokens.

    Raises CheckpointError for a file name that a Modelfile cannot hold.

    >>> from groundup import tokens
    >>> print(modelfile(tokens.train("bpe", ["a cat"], vocabulary=260), "cat.gguf", 64))
    FROM ./cat.gguf
    # no chat template: the model continues text
    TEMPLATE "{{ .Prompt }}"
    PARAMETER stop "<|endoftext|>"
    PARAMETER num_ctx 64
    PARAMETER temperature 0.8
    <BLANKLINE>
    """
    if not gguf_name.isprintable() or '"' in gguf_name or "/" in gguf_name:
        raise CheckpointError(f"the file name {gguf_name!r} cannot stand in a Modelfile", "give it a plain name")
    comments, template = _template(tokenizer)
    names = {id: name for name, id in tokenizer.special.items()}
    stops = [names[id] for id in vocabulary.ends(tokenizer) if id in names]
    lines = [
        f"FROM ./{gguf_name}",
        *(f"# {comment}" for comment in comments),
        f"TEMPLATE {quoted(template)}",
        *(f"PARAMETER stop {quoted(stop)}" for stop in stops),
        f"PARAMETER num_ctx {context}",
        f"PARAMETER temperature {TEMPERATURE}",
    ]
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    '''A value as Ollama's parser reads it: in quotes, three of them where it has quotes or lines of its own.

    The parser knows no escapes. It ends a value at the line whose end closes the quotes.

    >>> print(quoted("<|end|>"), quoted('say "x"'))
    "<|end|>" """say "x""""
    '''
    return f'"{value}"' if '"' not in value and "\n" not in value else f'"""{value}"""'


def literal(text: str) -> str:
    r"""Text as it stands in a Go template: braces, three quotes and what a Modelfile would drop go into `{{ "..." }}`.

    >>> print(literal("a {{ b"))
    a {{ "{{" }} b
    >>> print(literal("no\u00a0break"))
    no{{ "\u00a0" }}break
    """
    parts: list[str] = []
    place = 0
    while place < len(text):
        if text.startswith("{{", place):
            parts.append('{{ "{{" }}')
            place += 2
        elif text.startswith('"""', place):
            parts.append(r'{{ "\"\"\"" }}')
            place += 3
        else:
            parts.append(_plain(text[place]))
            place += 1
    return "".join(parts)


def _plain(char: str) -> str:
    """One character; Ollama's parser leaves out whatever does not print, but for line ends, spaces and tabs."""
    if char.isprintable() or char in "\n\t":
        return char
    return f'{{{{ "\\U{ord(char):08x}" }}}}' if ord(char) > 0xFFFF else f'{{{{ "\\u{ord(char):04x}" }}}}'


def _template(tokenizer: Tokenizer) -> tuple[list[str], str]:
    """The Go template and what to say about it."""
    if tokenizer.chat_template is None:
        return ["no chat template: the model continues text"], PLAIN
    lost = ["its chat template has no exact counterpart here: this is plain completion"]
    names = {id: name for name, id in tokenizer.special.items()}
    bos, eos = (names.get(id, "") if id is not None else "" for id in (tokenizer.bos, tokenizer.eos))
    try:
        chat = Chat(ChatTemplate(tokenizer.chat_template, bos=bos, eos=eos), bos if tokenizer.adds_bos else "")
        wording = _wording(chat)
    except GroundupError:
        return lost, PLAIN
    if wording is None:
        return lost, PLAIN
    comments = []
    if wording.system is None:
        comments.append("the chat template takes no system message: one is left out")
    if chat.render([_say("user", f" {QUESTION} ")]) == chat.render([_say("user", QUESTION)]):
        comments.append("the chat template strips white space around a message, Ollama does not")
    if "strftime_now" in tokenizer.chat_template:
        comments.append("the chat template tells the date: here it stays that of the export")
    return comments, _go(wording)


class Chat(NamedTuple):
    """A template that is asked for an answer. What Ollama puts first by itself, the bos token, is taken off."""

    template: ChatTemplate
    bos: str

    def render(self, messages: Messages) -> str:
        """The text of a conversation, up to where the answer begins; raises an error of the template's own."""
        return self.template.render(messages, generation=True).removeprefix(self.bos)


def _say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _probes(system: bool) -> list[Messages]:
    """Conversations of one, two and three turns; with a system message in front or without."""
    turns = [_say("user", QUESTION), _say("assistant", ANSWER), _say("user", AGAIN), _say("assistant", QUESTION),
             _say("user", ANSWER)]  # fmt: skip
    front = [_say("system", SYSTEM)] if system else []
    return [front + turns[:count] for count in (1, 3, 5)]


def _wording(chat: Chat) -> Wording | None:
    """What stands around the messages, if it is the same around each of them; None if it is not."""
    one, three = (chat.render(messages) for messages in _probes(system=False)[:2])
    if one.count(QUESTION) != 1 or any(three.count(content) != 1 for content in (QUESTION, ANSWER, AGAIN)):
        return None
    before, after = one.split(QUESTION)
    between = three.split(QUESTION)[1].split(ANSWER)[0]
    back = three.split(ANSWER)[1].split(AGAIN)[0]
    asks = _ending(before, back)
    ends = _beginning(between, after)
    wording = Wording(
        opening=before.removesuffix(asks),
        system=None,
        user=(asks, ends),
        assistant=(between.removeprefix(ends), back.removesuffix(asks)),
        answer=after.removeprefix(ends),
    )
    if any(_worded(wording, messages) != chat.render(messages) for messages in _probes(system=False)):
        return None
    return _with_system(wording, chat)


def _with_system(wording: Wording, chat: Chat) -> Wording | None:
    """The wording with that of a system message; without where the template refuses one, None where it mixes them."""
    try:
        text = chat.render(_probes(system=True)[0])
    except GroundupError:
        return wording
    if text.count(SYSTEM) != 1 or SYSTEM not in text.split(QUESTION)[0]:
        return None
    before, after = text.split(QUESTION)[0].split(SYSTEM)
    if not after.endswith(wording.user[0]):
        return None
    full = wording._replace(system=(before, after.removesuffix(wording.user[0])))
    same = all(_worded(full, messages) == chat.render(messages) for messages in _probes(system=True))
    return full if same else None


def _ending(first: str, second: str) -> str:
    """The longest text that both end with."""
    return _beginning(first[::-1], second[::-1])[::-1]


def _beginning(first: str, second: str) -> str:
    """The longest text that both begin with."""
    length = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(map(len, (first, second)))
    )
    return first[:length]


def _worded(wording: Wording, messages: Messages) -> str:
    """What Ollama makes of a conversation by the template of `_go`."""
    around = {"system": wording.system or ("", ""), "user": wording.user, "assistant": wording.assistant}
    text = "" if messages[0]["role"] == "system" else wording.opening
    for message in messages:
        before, after = around[message["role"]]
        text += before + message["content"] + after
    return text + wording.answer


def _go(wording: Wording) -> str:
    """The wording as a Go template over Ollama's list of messages; `.System` is empty where there is none."""
    branches = []
    for role in ("system", "user", "assistant"):
        around = getattr(wording, role)
        if around is not None:
            said = literal(around[0]) + "{{ .Content }}" + literal(around[1])
            branches.append(f'if eq .Role "{role}" }}}}{said}')
    opening = "{{ if not .System }}" + literal(wording.opening) + "{{ end }}" if wording.opening else ""
    if wording.opening and wording.system is None:
        opening = literal(wording.opening)
    chain = "{{ " + "{{ else ".join(branches) + "{{ end }}"
    return f"{opening}{{{{ range .Messages }}}}{chain}{{{{ end }}}}{literal(wording.answer)}"
