"""A web server on 127.0.0.1 that misbehaves as told, one answer after another."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's script."""

    protocol_version = "HTTP/1.1"
    server: "Hostile"

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


Answer = Callable[[Handler], None]


@dataclass
class Hostile(ThreadingHTTPServer):
    """`answers` are given in turn, the last one for ever; `seen` are the headers of the requests."""

    answers: list[Answer]
    seen: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


@contextmanager
def serving(*answers: Answer) -> Iterator[Hostile]:
    server = Hostile(list(answers))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def good(content: bytes, *, tag: str = '"v1"', stop: int | None = None, pause: float = 0.0) -> Answer:
    """A proper server, with Range and If-Range; `stop` breaks the connection after so many bytes of the body."""

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and handler.headers.get("If-Range", tag) == tag else 0
        if start >= len(content) and start:
            return handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        place = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        headers = {"ETag": tag} if tag else {}
        handler.head(206 if start else 200, Content_Length=len(content) - start, **headers, **place)
        body = content[start:][:stop]
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        time.sleep(pause)
        handler.wfile.write(body[len(body) // 2 :])

    return answer


def status(number: int, **headers: object) -> Answer:
    """An error and nothing else."""
    return lambda handler: handler.head(number, Content_Length=0, **headers)


def plain(content: bytes, *, length: int | None = None, **headers: object) -> Answer:
    """Everything at once whatever was asked for; `length` is what is announced, -1 for nothing at all."""

    def answer(handler: Handler) -> None:
        announced = {} if length == -1 else {"Content_Length": len(content) if length is None else length}
        handler.head(200, **announced, **headers)
        handler.wfile.write(content)

    return answer


def hanging(content: bytes = b"", *, length: int = 10, seconds: float = 0.6) -> Answer:
    """A head and a beginning, then silence."""

    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=length, ETag='"v1"')
        handler.wfile.write(content)
        handler.wfile.flush()
        time.sleep(seconds)

    return answer
