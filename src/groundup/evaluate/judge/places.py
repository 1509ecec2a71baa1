"""The places a judge can be: Ollama, any server that speaks as OpenAI's does, a model of ours.

In: a judge's name or address, prompts. Out: a `Reply` to each: its text, or for a model of ours what it is worth, and
what it cost. What can go wrong between us and a server is `server.py`'s.

Sources: Ollama, "API" (chat, structured outputs); OpenAI, "API reference: Create chat completion".
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from groundup.errors import SettingsError
from groundup.evaluate.judge.asking import REPLY, Scale
from groundup.evaluate.judge.local import Local
from groundup.evaluate.judge.server import (
    PAUSE,
    Failed,
    Gone,
    Refused,
    Reply,
    Server,
    TooLong,
    checked_address,
    is_here,
    short,
)

REPLY_TOKENS = 512  # room for a model that thinks before it replies
NOT_THE_QUESTION = {401, 403, 404, 405, 501}  # no other question would fare better
FORM = {400, 415, 422, 500}  # statuses of servers that do not know some part of a request
OLLAMA = "http://127.0.0.1:11434"
OPENAI_KEY = "OPENAI_API_KEY"
TOO_LONG = re.compile(r"context.?(length|window|size)|too (long|many tokens)|exceeds? .*\b(context|tokens)\b", re.I)
FRESH = 3600.0  # seconds in which a date that a server tells is taken for the time of day


class Judge(Protocol):
    """`name` is for people. `identity` changes with whatever could change a reply.

    `ours`: its probabilities are read instead of words (`asking.scale` with digits), so it says the same each time.
    `left_out`: what it does not let us ask for, of temperature, seed and the length of a reply.
    `advice`: what to do where it fails at everything.
    """

    name: str
    identity: str
    ours: bool
    left_out: frozenset[str]
    advice: str

    def prepare(self, longest: int) -> None:
        """Learn how many bytes of UTF-8 the longest question has, before the first one."""

    def ask(self, text: str, scale: Scale, seed: int) -> Reply:
        """The reply to one question; raises Failed, or Gone where no question would get one."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which judge is wanted. `model`: what an OpenAI-compatible server is asked for, "" where it has but one.

    `key`: the environment variable that holds a key; `named`: whether a person chose that variable.
    `temperature`: of what a server writes; more than 0 where it shall be asked again, else it would repeat itself.
    """

    judge: str
    model: str = ""
    timeout: float = 120.0
    key: str = OPENAI_KEY
    named: bool = False
    threads: int | None = None
    temperature: float = 0.0


def opened(wish: Wish) -> Judge:
    """The judge, found and greeted; raises Gone where nobody answers, SettingsError for a wrong name.

    >>> opened(Wish(judge="ollama:llama3")).name  # doctest: +SKIP
    'ollama:llama3 at http://127.0.0.1:11434'
    """
    kind, _, model = wish.judge.partition(":")
    if kind == "ollama":
        if not model:
            raise SettingsError(f"the judge '{wish.judge}' names no model", "write for instance ollama:llama3")
        return Ollama(model, timeout=wish.timeout, temperature=wish.temperature)
    if "://" in wish.judge:
        key = key_for(wish)
        return OpenAI(wish.judge, wish.model, timeout=wish.timeout, key=key, temperature=wish.temperature)
    if wish.model:
        raise SettingsError(
            f"--name {wish.model} goes with the address of a server, and the judge is '{wish.judge}'",
            "give --judge http://host:port/v1, or leave --name out",
        )
    return Local(wish.judge, threads=wish.threads)


def key_for(wish: Wish) -> str:
    """The key to send, "" for none. OpenAI's own goes to OpenAI alone unless a person names the variable.

    Raises SettingsError where a key would travel unencrypted to another machine, or cannot be sent.
    """
    parts = urlsplit(checked_address(wish.judge))
    host = parts.hostname or ""
    if wish.key == OPENAI_KEY and not wish.named and host != "openai.com" and not host.endswith(".openai.com"):
        return ""
    key = os.environ.get(wish.key, "").strip() if wish.key else ""
    if wish.named and wish.key and not key:
        raise SettingsError(f"the environment variable {wish.key} holds no key", f"set it: export {wish.key}=...")
    if key and parts.scheme == "http" and not is_here(wish.judge):
        raise SettingsError(
            f"the key in {wish.key} would go to {host} unencrypted", "use https, or send none with --api-key-env ''"
        )
    if not key.isascii() or not key.isprintable():
        raise SettingsError(f"what {wish.key} holds is no key: it has characters that no header can", "set it anew")
    return key


# servers


class Ollama:
    """A model of an Ollama server: /api/chat, held to the schema of the scale. Raises Gone where it is not there."""

    ours = False
    left_out: frozenset[str] = frozenset()
    advice = "look at what `ollama serve` prints, and whether the model fits into memory: `ollama ps`"

    def __init__(self, model: str, *, timeout: float, temperature: float = 0.0, pause: float = PAUSE) -> None:
        address = ollama_address(os.environ.get("OLLAMA_HOST", ""))
        self._model, self._context, self._temperature = model, 2048, temperature
        start = f"start it with `ollama serve`, and fetch the model with `ollama pull {model}`"
        self._server = Server(address, timeout=timeout, start=start, pause=pause)
        self.name = f"ollama:{model} at {address}"
        self.identity = f"ollama {model} {self._digest()} temperature {temperature:g}"

    def _digest(self) -> str:
        """The hash of the model's files: the same name may mean another model tomorrow."""
        try:
            listed = self._server.call("/api/tags", patient=False).get("models")
        except Failed as error:
            raise Gone(f"no judge answers at {self._server.address}: {error}", self._server.start) from None
        if not isinstance(listed, list):
            raise Gone(f"{self._server.address} does not answer as Ollama does", self._server.start)
        found = {str(one.get("name")): str(one.get("digest")) for one in listed if isinstance(one, dict)}
        for name in (self._model, f"{self._model}:latest"):
            if name in found:
                return found[name]
        there = short(", ".join(sorted(found))) or "none"
        raise Gone(
            f"Ollama at {self._server.address} has no model '{self._model}'; it has: {there}",
            f"fetch it with `ollama pull {self._model}`",
        )

    def prepare(self, longest: int) -> None:
        """Ask for a context that holds the longest question: Ollama would drop its beginning without a word."""
        needed = longest // 2 + REPLY_TOKENS  # tokens of two bytes are short ones
        self._context = max(2048, -(-needed // 1024) * 1024)

    def ask(self, text: str, scale: Scale, seed: int) -> Reply:
        """One chat."""
        room = {"num_ctx": self._context, "num_predict": REPLY_TOKENS}
        options = {"temperature": self._temperature, "seed": seed} | room
        body = {"model": self._model, "messages": _user(text), "stream": False, "format": scale.schema}
        answer = _asked(self._server, "/api/chat", body | {"options": options})
        content = _at(answer, "message", "content")
        if not isinstance(content, str):
            raise Failed(f"{self._server.address}/api/chat sends no message: {short(json.dumps(answer))}")
        read = _count(answer.get("prompt_eval_count"))
        if read is not None and read >= self._context - 1:
            raise TooLong(f"the question fills the context of {self._context:,} tokens: its beginning was not read")
        return Reply(content[:REPLY], read=read, written=_count(answer.get("eval_count")))


class OpenAI:
    """A model behind /chat/completions of an address. What the server refuses of a request is left out (`left_out`).

    A schema for the reply is sent in OpenAI's form, else in that of llama.cpp, else none.
    """

    ours = False
    left_out: frozenset[str] = frozenset()
    advice = "look at the log of its server"

    def __init__(
        self,
        address: str,
        model: str,
        *,
        timeout: float,
        key: str = "",
        temperature: float = 0.0,
        pause: float = PAUSE,
    ) -> None:
        address = checked_address(address)
        address = address if urlsplit(address).path else f"{address}/v1"
        start = "start the server, for instance `python -m llama_cpp.server --model FILE.gguf`, or check the address"
        self._server = Server(address, timeout=timeout, key=key, start=start, pause=pause)
        self._forms: tuple[Callable[[Scale], dict[str, Any]], ...] = (_json_schema, _json_object, _any_form)
        listed = self._models()
        self._model, self._temperature = model or self._only(list(listed)), temperature
        self.name = f"{self._model} at {self._server.address}"
        told = listed.get(self._model, "nothing")
        self.identity = f"openai {self._server.address} {self._model} temperature {temperature:g}, listed: {told}"

    def _models(self) -> dict[str, str]:
        """What the server tells of each model, none where it keeps no list; raises Gone where nobody answers."""
        try:
            listed = self._server.call("/models", patient=False).get("data")
        except Refused as error:
            if error.status in {401, 403}:
                raise _no_key(error) from None
            return {}
        except Failed as error:
            raise Gone(f"no judge answers at {self._server.address}: {error}", self._server.start) from None
        models = listed if isinstance(listed, list) else []
        return {str(one["id"]): _facts(one) for one in models if isinstance(one, dict) and "id" in one}

    def _only(self, names: list[str]) -> str:
        if len(names) == 1:
            return names[0]
        there = f"has {len(names)} models: {short(', '.join(names))}" if names else "does not say which models it has"
        raise SettingsError(f"{self._server.address} {there}", "name the one to ask with --name")

    def prepare(self, longest: int) -> None:
        """Nothing to do: such servers refuse what is too long."""

    def ask(self, text: str, scale: Scale, seed: int) -> Reply:
        """One chat."""
        before = self._forms, self.left_out
        while True:
            forms, left_out = self._forms, self.left_out  # another thread may be ahead
            try:
                return self._read(_asked(self._server, "/chat/completions", self._body(text, scale, seed)))
            except Refused as error:
                if error.status == 413 or (error.status in FORM and TOO_LONG.search(str(error))):
                    raise TooLong(str(error)) from None
                if error.status not in FORM or not self._simpler(str(error), forms, left_out):
                    self._forms, self.left_out = before  # it was none of them: the next question has them again
                    raise

    def _body(self, text: str, scale: Scale, seed: int) -> dict[str, Any]:
        limit = "max_completion_tokens" if "max_tokens" in self.left_out else "max_tokens"
        wishes = {"temperature": self._temperature, "seed": seed, limit: REPLY_TOKENS}
        kept = {name: value for name, value in wishes.items() if name not in self.left_out}
        return {"model": self._model, "messages": _user(text), "stream": False} | kept | self._forms[0](scale)

    def _simpler(self, message: str, forms: tuple[Any, ...], left_out: frozenset[str]) -> bool:
        """Leave out what the server named, else try the next form of a schema; False where nothing is left to try."""
        for name in ("max_tokens", "temperature", "seed"):
            if re.search(rf"\b{name}\b", message) and name not in left_out:
                self.left_out = left_out | {name}
                return True
        if len(forms) > 1:
            self._forms = forms[1:]
        return len(forms) > 1

    def _read(self, answer: dict[str, Any]) -> Reply:
        choices = answer.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        content = _at(first, "message", "content") if isinstance(first, dict) else None
        if isinstance(content, list):  # parts, of which some are text
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str):
            raise Failed(f"{self._server.address}/chat/completions sends no message: {short(json.dumps(answer))}")
        read, written = (_count(_at(answer, "usage", name)) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(content[:REPLY], read=read, written=written)


def _facts(model: Mapping[str, Any]) -> str:
    """What a list tells of a model and would tell otherwise of another one under its name, as text.

    "created" counts only when it is not of the last hour: llama.cpp's and vLLM's servers put the time of the answer
    there, and every start would be another judge.
    """
    created = model.get("created")
    dated = isinstance(created, int | float) and created < time.time() - FRESH
    kept = {name: model[name] for name in ("id", "root", "meta") if name in model}
    return json.dumps(kept | ({"created": created} if dated else {}), sort_keys=True)


def _asked(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a chat; a refusal that no other question would escape ends the judging."""
    try:
        return server.call(path, body)
    except Refused as error:
        if error.status in {401, 403}:
            raise _no_key(error) from None
        if error.status in NOT_THE_QUESTION:
            raise Gone(str(error), "check the address and the name of the model") from None
        raise


def _no_key(error: Refused) -> Gone:
    return Gone(str(error), "put the key into an environment variable and name that with --api-key-env")


def _json_schema(scale: Scale) -> dict[str, Any]:
    form = {"name": scale.key, "schema": scale.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _json_object(scale: Scale) -> dict[str, Any]:
    return {"response_format": {"type": "json_object", "schema": scale.schema}}


def _any_form(scale: Scale) -> dict[str, Any]:
    return {}


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]  # one message: not every template knows a system's


def _at(document: Mapping[str, Any], *keys: str) -> Any:
    """What lies under keys within keys, None where something is missing on the way."""
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def ollama_address(host: str) -> str:
    """Where Ollama listens, from its own environment variable OLLAMA_HOST.

    >>> ollama_address(""), ollama_address("0.0.0.0"), ollama_address("box:1234"), ollama_address("https://a.b/")
    ('http://127.0.0.1:11434', 'http://127.0.0.1:11434', 'http://box:1234', 'https://a.b')
    """
    host = host.strip().rstrip("/")
    if not host or "://" in host:
        return host or OLLAMA
    name, _, port = host.partition(":")
    return f"http://{'127.0.0.1' if name in {'', '0.0.0.0'} else name}:{port or '11434'}"
