"""`groundup chat`: talk with a model in the terminal, or feed it one turn a line through a pipe.

In: `settings.Chat`, lines from standard input. Out: the answers as they come, and `Result`, the conversation as it
stood at the end. Remarks and speed go to standard error.
"""

import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.checkpoint.folder import Loaded
from groundup.commands.generate import Emit, decode, remark
from groundup.errors import DataError, GroundupError, SettingsError, nearest
from groundup.generate import Sampler, ready
from groundup.generate import chat as chats
from groundup.settings import Chat, Writing
from groundup.text import conversations, styles
from groundup.text.conversations import Conversation
from groundup.text.template import ChatTemplate

HELP = """\
/reset        begin anew; what the model was told first stays
/system TEXT  begin anew, and tell the model this first; without TEXT nothing
/save FILE    write the conversation as one line of messages, to learn from or to look at; FILE ends in .jsonl
/help         this
/quit         leave (also Ctrl-D); Ctrl-C stops an answer
//TEXT        say something that begins with /"""


@dataclass(frozen=True)
class Result:
    """The conversation at the end, and what it took: tokens that the model wrote, and seconds of writing."""

    model: Path
    seed: int
    messages: list[dict[str, Any]]
    turns: int
    tokens: int
    seconds: float
    tokens_per_second: float


def run(settings: Chat, *, emit: Emit | None = None) -> Result:
    """Answer line after line until the input ends; `emit` gets the answers while they are written.

    Lines that begin with / are commands (`HELP`). In a terminal mistakes are told and the talk goes on; from a pipe
    they are errors. Raises SettingsError for a model that was not taught to chat.

    >>> run(Chat(model="runs/questions")).messages  # doctest: +SKIP
    [{'role': 'user', 'content': 'Who has the kettle?'}, {'role': 'assistant', 'content': 'Mira.'}]
    """
    loaded, template = opened(settings, rows=1)
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    chat = chats.Chat(
        loaded.model,
        loaded.tokenizer,
        template,
        sampler=sampler(settings, seed),
        max_tokens=settings.max_tokens,
        system=settings.system,
    )
    talk = _Talk(chat, emit or _nowhere, by_hand=sys.stdin.isatty())
    if talk.by_hand:
        remark("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves")
    for line in _by_hand() if talk.by_hand else _piped():
        if not talk.take(line):
            break
    rate = chat.tokens / talk.seconds if talk.seconds else 0.0
    remark(f"{chat.tokens:,} tokens in {talk.seconds:.1f} s, {rate:,.0f} tokens/s, seed {seed}")
    return Result(loaded.folder, seed, chat.messages, talk.turns, chat.tokens, talk.seconds, rate)


def opened(settings: Writing, *, rows: int) -> tuple[Loaded, ChatTemplate]:
    """The model that is to answer, laid out for `rows` texts at once, and how a conversation with it is written.

    Raises SettingsError for a base model without --template, and for a --template whose special tokens it lacks.
    """
    if not settings.model:
        raise SettingsError("no model was given", "name a run or model folder, as in: groundup chat runs/NAME")
    machine = machines.choose(device=settings.device, threads=settings.threads)
    dtype = machines.DTYPES.get(settings.dtype)  # None: as stored
    loaded = folder.load(settings.model, dtype=dtype, device=machine.device)
    template = _template(loaded, settings)
    ready(loaded.model, int8=settings.dtype == "int8", rows=rows)
    return loaded, template


def _template(loaded: Loaded, settings: Writing) -> ChatTemplate:
    own = loaded.tokenizer.chat_template
    if own is None and settings.template == "auto":
        raise SettingsError(
            f"{settings.model} is a base model: it continues text and was not taught to chat",
            f"teach it: groundup instruct --model {settings.model} --data FILE --out runs/NAME; or say how a "
            "conversation with it is written: --template alpaca",
        )
    style = styles.resolve(settings.template, own)
    if missing := [name for name in style.tokens if name not in loaded.tokenizer.special]:
        raise SettingsError(
            f"--template {settings.template} writes {', '.join(missing)}, which this model never saw",
            f"leave --template out, or teach it: groundup instruct --template {settings.template}",
        )
    return chats.with_tokens_of(loaded.tokenizer, style.template)


def sampler(settings: Writing, seed: int) -> Sampler:
    """How the next token is chosen."""
    return Sampler(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, seed=seed)


class _Talk:
    """What a line does: a command, or something to be answered. `take` is False once the person leaves."""

    def __init__(self, chat: chats.Chat, emit: Emit, *, by_hand: bool) -> None:
        self.chat, self.by_hand = chat, by_hand
        self.turns, self.seconds = 0, 0.0
        self._emit, self._forgotten = emit, 0
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._system,
            "/save": self._save,
            "/help": lambda _: remark(HELP),
        }

    def take(self, line: str) -> bool:
        """Do what the line says; raises what goes wrong, but tells it where a person is typing."""
        if line.strip() == "/quit":
            return False
        try:
            self._do(line)
        except GroundupError as error:
            if not self.by_hand:
                raise
            remark(str(error))
        return True

    def _do(self, line: str) -> None:
        if line.startswith("//"):
            self._answer(line[1:])
        elif line.startswith("/"):
            name, _, rest = line.partition(" ")
            if name not in self._commands:
                raise DataError(f"there is no command {name}", nearest(name, [*self._commands, "/quit"]))
            self._commands[name](rest.strip())
        elif line.strip():
            self._answer(line)

    def _answer(self, text: str) -> None:
        """Stream one answer; Ctrl-C ends it where it is, and from a pipe everything."""
        began, pieces = time.perf_counter(), self.chat.say(text)
        try:
            for piece in pieces:
                self._emit(piece)
        except KeyboardInterrupt:
            pieces.close()
            if not self.by_hand:
                raise
        finally:
            self.seconds += time.perf_counter() - began
        self._emit("\n")
        self.turns += 1
        self._remarks()

    def _remarks(self) -> None:
        """What a person should know of the answer they have just read."""
        chat = self.chat
        if chat.finish == "stopped":
            remark("(stopped)")
        if chat.finish == "length":
            remark(f"(cut off after {chat.max_tokens} tokens, or at the end of the context: see --max-tokens)")
        if chat.forgotten and not self._forgotten:
            remark(f"the conversation outgrew the context of {chat.context:,} tokens: its oldest turns are out of "
                   "sight from here on")  # fmt: skip
        self._forgotten = chat.forgotten

    def _reset(self, _: str) -> None:
        self.chat.reset(self.chat.system)
        self._forgotten = 0
        remark("(a new conversation)")

    def _system(self, text: str) -> None:
        self.chat.reset(text or None)
        self._forgotten = 0
        remark("(a new conversation; the model is told this first)" if text else "(a new conversation)")

    def _save(self, name: str) -> None:
        """Write the conversation; a file that was there before this session is never replaced."""
        if not name:
            raise DataError("/save needs the name of a file", "say, for instance: /save talk.jsonl")
        told = answered(self.chat.messages)
        if not any(message["role"] == "assistant" for message in told):
            raise DataError("there is nothing to save yet", "say something first")
        try:
            path = Path(name).expanduser()
            self._write(path, told)
        except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in it; RuntimeError: ~ of nobody
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise DataError(f"cannot write {name!r}: {why}", "choose another name, as in /save talk.jsonl") from None
        left = sum(not message["content"] for message in self.chat.messages if message["role"] == "assistant")
        remark(f"saved in {path}" + (f", without turns that got no words for an answer: {left:,}" if left else ""))

    def _write(self, path: Path, told: Sequence[Mapping[str, Any]]) -> None:
        if path.suffix.lower() != ".jsonl":
            raise DataError(f"{path} would hold JSONL under another name", f"say /save {path.with_suffix('.jsonl')}")
        if path.exists() and path.resolve() not in self._saved:
            raise DataError(f"{path} exists already", "choose another name")
        conversations.write_messages(path, [Conversation(tuple(told), "this conversation")])
        self._saved.add(path.resolve())


def answered(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A conversation without the turns that hold no words, question and answer together: no file has room for those.

    >>> said = [("user", "Hi"), ("assistant", ""), ("user", "Hello?"), ("assistant", "Yes.")]
    >>> [m["content"] for m in answered([{"role": role, "content": text} for role, text in said])]
    ['Hello?', 'Yes.']
    """
    found: list[Mapping[str, Any]] = []
    for message in messages:
        if str(message["content"]).strip():
            found.append(message)
        elif message["role"] == "assistant" and found:
            found.pop()
    return found


def _by_hand() -> Iterator[str]:
    """Lines that a person types, with the arrow keys where this Python has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  importing it is what gives input() its keys
    while True:
        try:
            yield input("> ")
        except EOFError:
            remark("")
            return
        except KeyboardInterrupt:
            remark("\n(Ctrl-D or /quit leaves)")


def _piped() -> Iterator[str]:
    """Lines of a pipe or a file, one turn each."""
    for line in sys.stdin.buffer:
        yield decode(line, "standard input").rstrip("\r\n")


def _nowhere(text: str) -> None:
    """Show nothing."""
