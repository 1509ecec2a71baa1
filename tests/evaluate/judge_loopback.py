"""Judges that do as told: one in this process, and one on 127.0.0.1 that speaks as Ollama or OpenAI does."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from groundup.evaluate.judge.asking import Scale
from groundup.evaluate.judge.server import Reply

Reader = Callable[[str], str | Exception]
MODELS = {
    "/v1/models": {"object": "list", "data": [{"id": "tiny"}]},
    "/api/tags": {"models": [{"name": "llama3:latest", "digest": "abc"}, {"name": "other:1b", "digest": "def"}]},
}


@dataclass
class Asked:
    """One request as it came: its path, headers and JSON (None of a GET)."""

    path: str
    headers: dict[str, str]
    body: Any

    @property
    def prompt(self) -> str:
        """What the judge was asked."""
        return str(self.body["messages"][-1]["content"])


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's script."""

    protocol_version = "HTTP/1.1"
    server: "Loopback"

    def do_GET(self) -> None:
        self._answer(self.server.greeting, None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            script = self.server.script
            answer = script.pop(0) if len(script) > 1 else script[0]
        self._answer(answer, body)

    def _answer(self, answer: "Answer", body: Any) -> None:
        asked = Asked(self.path, dict(self.headers), body)
        with self.server.lock:
            self.server.asked.append(asked)
        try:
            answer(self, asked)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, content: bytes, kind: str = "application/json", **headers: object) -> None:
        """A whole answer; headers given by name replace what would be sent."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)


Answer = Callable[[Handler, Asked], None]


def models(handler: Handler, asked: Asked) -> None:
    """The lists that both kinds of server keep."""
    if asked.path in MODELS:
        return handler.send(200, json.dumps(MODELS[asked.path]).encode())
    return handler.send(404, b'{"error": "no such page"}')


@dataclass
class Loopback(ThreadingHTTPServer):
    """The `script` gives answers to questions in turn, the last one for ever; `asked` are all requests."""

    script: list[Answer]
    greeting: Answer = models
    asked: list[Asked] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def questions(self) -> list[Asked]:
        """The requests that asked something."""
        return [one for one in self.asked if one.body is not None]


@contextmanager
def serving(*script: Answer, greeting: Answer = models) -> Iterator[Loopback]:
    server = Loopback(list(script) or [says(right)], greeting)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def says(reply: str | Callable[[str], str], *, usage: bool = True) -> Answer:
    """A proper answer in the form that the path asks for, `reply` or what it makes of the prompt."""

    def answer(handler: Handler, asked: Asked) -> None:
        text = reply if isinstance(reply, str) else reply(asked.prompt)
        counts = len(asked.prompt) // 4, len(text) // 4
        if asked.path == "/api/chat":
            document: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "done": True}
            document |= dict(zip(("prompt_eval_count", "eval_count"), counts, strict=True)) if usage else {}
        else:
            document = {"choices": [{"message": {"role": "assistant", "content": text}}]}
            used = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
            document |= {"usage": used} if usage else {}
        handler.send(200, json.dumps(document).encode())

    return answer


def status(code: int, message: str = "not now", **headers: object) -> Answer:
    """An error as both kinds of server put it."""
    body = json.dumps({"error": {"message": message}}).encode()
    return lambda handler, asked: handler.send(code, body, **headers)


def parts(prompt: str) -> list[str]:
    """What stands between the fences of a prompt: task, expected answer, answer or answers."""
    return [found[1] for found in re.findall(r"^(`{3,})\n(.*?)\n\1$", prompt, flags=re.MULTILINE | re.DOTALL)]


def right(prompt: str) -> str:
    """A judge that knows: what equals the expected answer is good, all else is not."""
    _, expected, *answers = parts(prompt)
    if len(answers) == 1:
        low, high = re.findall(r"from (\d+) to (\d+)", prompt)[-1]
        return json.dumps({"score": int(high) if answers[0] == expected else int(low)})
    one, other = (answer == expected for answer in answers)
    return json.dumps({"better": "tie" if one == other else "A" if one else "B"})


class Told:
    """A judge that replies what a function makes of the prompt; a reply that is an error is raised."""

    name, identity, ours = "told", "told 1", False
    left_out: frozenset[str] = frozenset()
    advice = "look at what it was told"

    def __init__(self, reply: Reader, *, counts: tuple[int | None, int | None] = (7, 2)) -> None:
        self.reply, self.counts = reply, counts
        self.prompts: list[str] = []
        self.seeds: list[int] = []

    def prepare(self, longest: int) -> None:
        pass

    def ask(self, text: str, scale: Scale, seed: int) -> Reply:
        self.prompts.append(text)
        self.seeds.append(seed)
        reply = self.reply(text)
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply, read=self.counts[0], written=self.counts[1])
