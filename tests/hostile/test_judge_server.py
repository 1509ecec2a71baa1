"""Judges that are slow, lie, break off or never end: each ends in words or in a right score, in time and room."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.evaluate.judge import server as judge_server
from groundup.evaluate.judge.asking import Answered, prompt, scale
from groundup.evaluate.judge.bench import Bench, Verdicts
from groundup.evaluate.judge.places import Ollama, OpenAI
from groundup.evaluate.judge.scores import score
from groundup.evaluate.judge.server import Failed, Gone, Server

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from judge_loopback import Answer, Asked, Handler, Loopback, right, says, serving, status  # noqa: E402

HUNDRED = scale("100")
ROWS = [Answered(f"What follows {n}?", str(n + 1), str(n + 1 + n % 2), "") for n in range(4)]
GOOD = prompt(ROWS[0], HUNDRED)
TRUE = [100.0, 0.0, 100.0, 0.0]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_server, "LONGEST_PAUSE", 0.02)


def openai(server: Loopback, *, timeout: float = 20.0) -> OpenAI:
    return OpenAI(f"{server.address}/v1", "", timeout=timeout, pause=0.01)


def scores(server: Loopback, *, timeout: float = 20.0, at_once: int = 1) -> list[float | None]:
    asked = Bench(openai(server, timeout=timeout), Verdicts(), at_once=at_once, quiet=True)
    return score(asked, "a", ROWS, HUNDRED, seed=1).each


def raw(content: bytes, *, wait: float = 0.0) -> Answer:
    """Bytes on the wire as they are, then the end of the connection."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(content)
        handler.wfile.flush()
        time.sleep(wait)

    return answer


def dripping(seconds: float, *, head: bool) -> Answer:
    """A byte every 50 ms, of the headers or of the body: no single read ever waits long."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if head else b"Content-Length: 10000\r\n\r\n"))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b"X-Slow: 1\r\n" if head else b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    return answer


def endless(handler: Handler, asked: Asked) -> None:
    """A hundred megabytes of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(100_000_000))
    handler.end_headers()
    for _ in range(1_000):
        handler.wfile.write(b'{"a": ' + b" " * 99_994)


def hanging(seconds: float) -> Answer:
    return lambda handler, asked: time.sleep(seconds)


def reset(handler: Handler, asked: Asked) -> None:
    """The connection is cut in the middle of an answer."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices"')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


# what passes


def test_a_right_judge():
    with serving() as server:
        assert scores(server) == TRUE
        assert scores(server, at_once=4) == TRUE


def test_two_errors_and_then_right():
    with serving(status(500), status(503, Retry_After="0"), says(right)) as server:
        assert scores(server) == TRUE and len(server.questions) == 6


def test_too_many_requests_passes():
    with serving(status(429, Retry_After="1"), says(right)) as server:
        assert scores(server) == TRUE


def test_a_connection_that_breaks_is_tried_again():
    with serving(reset, raw(b""), says(right)) as server:
        assert scores(server) == TRUE and len(server.questions) == 6


def test_a_slow_judge_is_waited_for():
    def slow(handler: Handler, asked: Asked) -> None:
        time.sleep(0.3)
        says(right)(handler, asked)

    with serving(slow) as server:
        assert scores(server, at_once=4) == TRUE


def test_chunks_without_a_length_are_read():
    def chunked(handler: Handler, asked: Asked) -> None:
        body = json.dumps({"choices": [{"message": {"content": right(asked.prompt)}}]}).encode()
        pieces = [body[place : place + 7] for place in range(0, len(body), 7)]
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in [*pieces, b""]:
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    with serving(chunked) as server:
        assert scores(server) == TRUE


# what does not


def test_errors_without_end_are_given_up():
    with serving(status(500, "out of memory")) as server:
        with pytest.raises(UserError, match="failed 3 times in a row: .*answers 500 .*: out of memory, 4 times"):
            scores(server)
        assert len(server.questions) == 3 * judge_server.ATTEMPTS


def test_scores_out_of_range_are_unusable_not_scores():
    with serving(says('{"score": 900}')) as server:
        assert scores(server) == [None] * 4 and len(server.questions) == 8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html><body>Bad gateway</body></html>", "sends no JSON but '<html><body>Bad gateway"),
        (b'{"choices": [', "sends no JSON"),
        (b"[]", r"sends '\[\]' instead of a JSON object"),
        (b"[" * 200_000, "sends no JSON"),
        (b'{"a":' * 200_000, "sends no JSON"),
        (b"", "sends no JSON but ''"),
        (b"\xff\xfe\x00", "sends no JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "sends no JSON"),
        (b"\x1b[2Jgone\r\n", "sends no JSON but 'gone|sends no JSON but"),
    ],
)
def test_content_that_is_no_answer(content: bytes, words: str):
    with serving(lambda handler, asked: handler.send(200, content)) as server:
        with pytest.raises(Failed, match=words) as raised:
            openai(server).ask(GOOD, HUNDRED, 1)
        assert "\x1b" not in str(raised.value) and len(str(raised.value)) < 400


def test_a_hundred_megabytes_are_not_read(frugal):
    with serving(endless) as server, frugal():
        began = time.monotonic()
        with pytest.raises(Failed, match="sends more than 4,194,304 bytes"):
            openai(server).ask(GOOD, HUNDRED, 1)
        assert time.monotonic() - began < 20


def test_packed_answers_are_refused_unread(frugal):
    import gzip

    bomb = gzip.compress(b" " * 50_000_000)
    with serving(lambda handler, asked: handler.send(200, bomb, Content_Encoding="gzip")) as server, frugal():
        with pytest.raises(Failed, match="packed as gzip, unasked"):
            openai(server).ask(GOOD, HUNDRED, 1)


def test_no_redirect_is_followed():
    with serving() as elsewhere:
        target = f"{elsewhere.address}/v1/chat/completions"
        with serving(lambda handler, asked: handler.send(307, b"", Location=target)) as server:
            with pytest.raises(Failed, match="answers 307"):
                openai(server).ask(GOOD, HUNDRED, 1)
        assert not elsewhere.asked


@pytest.mark.parametrize(
    "answer",
    [hanging(8), dripping(8, head=True), dripping(8, head=False)],
    ids=["silent", "head", "body"],
)
def test_a_judge_that_takes_too_long_is_given_up_in_time(answer: Answer):
    with serving(answer) as server:
        began = time.monotonic()
        with pytest.raises(Failed, match="within 1 s|time is up"):
            openai(server, timeout=1).ask(GOOD, HUNDRED, 1)
        assert time.monotonic() - began < 1.6 * judge_server.TIMEOUTS + 2


def test_headers_without_end():
    def chatty(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 100_000)

    with serving(chatty) as server:
        with pytest.raises(Failed):
            openai(server).ask(GOOD, HUNDRED, 1)


def test_what_is_no_http():
    with serving(raw(b"SSH-2.0-OpenSSH_9.6\r\n")) as server:
        with pytest.raises(Failed):
            openai(server).ask(GOOD, HUNDRED, 1)


# nobody there


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def mute() -> Iterator[str]:
    """Somebody listens and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_where_nobody_listens_the_message_says_what_to_start(monkeypatch: pytest.MonkeyPatch):
    with nobody() as address:
        monkeypatch.setenv("OLLAMA_HOST", address)
        with pytest.raises(Gone, match=f"no judge answers at {address}: .*refused") as raised:
            Ollama("llama3", timeout=20)
        assert "ollama serve" in raised.value.fix and "ollama pull llama3" in raised.value.fix
        with pytest.raises(Gone, match=f"no judge answers at {address}/v1"):
            OpenAI(f"{address}/v1", "tiny", timeout=20)


def test_who_never_says_a_word_is_given_up_within_the_timeout(monkeypatch: pytest.MonkeyPatch):
    with mute() as address:
        monkeypatch.setenv("OLLAMA_HOST", address)
        for make in (lambda: Ollama("llama3", timeout=1), lambda: OpenAI(f"{address}/v1", "", timeout=1)):
            began = time.monotonic()
            with pytest.raises(Gone, match=f"no judge answers at {address}"):
                make()
            assert time.monotonic() - began < 3


def test_a_host_that_does_not_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(Gone, match="no judge answers at http://judge.invalid:1/v1"):
        OpenAI("http://judge.invalid:1/v1", "x", timeout=5)


def test_a_server_that_dies_on_the_way_ends_the_judging(tmp_path: Path):
    with serving() as server:
        judge = openai(server)
        assert judge.ask(GOOD, HUNDRED, 1).text
    with pytest.raises(Gone, match="no judge answers at") as raised:
        score(Bench(judge, Verdicts(), quiet=True), "a", ROWS, HUNDRED, seed=1)
    assert "start the server" in raised.value.fix


def test_what_greets_with_nonsense_is_no_ollama(monkeypatch: pytest.MonkeyPatch):
    for greeting, words in (
        (lambda handler, asked: handler.send(200, b"<html>"), "sends no JSON"),
        (lambda handler, asked: handler.send(200, b"{}"), "does not answer as Ollama does"),
        (lambda handler, asked: handler.send(200, b'{"models": [3, {}, {"name": 4}]}'), "has no model 'llama3'"),
        (status(404), "answers 404"),
        (endless, "sends more than"),
    ):
        with serving(greeting=greeting) as server:
            monkeypatch.setenv("OLLAMA_HOST", server.address)
            with pytest.raises(Gone, match=words):
                Ollama("llama3", timeout=10, pause=0.01)


def test_a_proxy_has_no_part_in_what_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving() as server:
        assert scores(server) == TRUE


def test_passwords_of_a_netrc_stay_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".netrc").write_text("default login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving() as server:
        scores(server)
        assert all("Authorization" not in one.headers for one in server.asked)


def test_no_thread_keeps_asking_after_the_end():
    with serving(hanging(2)) as server:
        with pytest.raises(Failed):
            Server(f"{server.address}/v1", timeout=0.3, pause=0.01).call("/chat", {"messages": [{"content": ""}]})
        asked = len(server.questions)
        time.sleep(0.5)
        assert len(server.questions) == asked == judge_server.TIMEOUTS
        assert all(thread.daemon for thread in threading.enumerate() if thread.name.endswith("(run)"))
