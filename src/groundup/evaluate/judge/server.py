"""A server that judges, and may do anything else: JSON to and from one address, bounded in time and size.

In: an address, a key, JSON. Out: a JSON object, or an error in words. What may pass (a busy server, a broken line) is
tried again a few times; what a server refuses is not. HTTP itself is left to requests.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from groundup.errors import SettingsError, UserError

if TYPE_CHECKING:
    from requests import Response

Value = TypeVar("Value")

CONNECT, GREETING = 10.0, 10.0  # seconds to connect; to answer the first, small question
LARGEST = 4 << 20  # bytes of one answer
BLOCK = 1 << 16
ATTEMPTS, TIMEOUTS = 4, 2  # requests for one reply, and how many of them may run out of time
PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before the second attempt, doubled each time
LATER = {408, 425, 429}  # with 500 and more the HTTP statuses that may pass
WISHES = {"response_format", "max_tokens", "temperature", "seed"}  # what a request can do without
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Reply:
    """What a judge said. `value`: what that is worth, where the judge knows it itself; `read` and `written`: tokens of
    the request and of the reply, None where the judge does not say.
    """

    text: str
    value: float | None = None
    read: int | None = None
    written: int | None = None


class Failed(Exception):
    """One question got no reply, in words; another one may."""


class TooLong(Failed):
    """The judge cannot read so long a question: that says nothing about the judge."""


class Refused(Failed):
    """An HTTP status that repeating does not mend, and what the server says about it."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class Gone(UserError):
    """The judge cannot be reached, or answers no question at all."""


class _Again(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, what: str, *, wait: float = 0.0, silent: bool = False, away: bool = False) -> None:
        super().__init__(what)
        self.wait, self.silent, self.away = wait, silent, away


class Server:
    """JSON to and from one address, within `timeout` seconds and 4 MB an answer; what may pass is tried again.

    `key` goes into the Authorization header and nowhere else; should the server repeat it, it is blotted out.
    Raises Failed for what may concern one question alone, Gone where nothing listens; `start` says what to do then.
    """

    def __init__(self, address: str, *, timeout: float, key: str = "", start: str = "", pause: float = PAUSE) -> None:
        self.address, self.timeout, self.start = checked_address(address), timeout, start
        self._key, self._pause = key, pause

    def call(self, path: str, body: Mapping[str, Any] | None = None, *, patient: bool = True) -> dict[str, Any]:
        """The JSON object at `path`: POST with a body, else GET. Not `patient`: a server that is silent or not there
        gets one chance, and ten seconds at most.
        """
        limit = self.timeout if patient else min(self.timeout, GREETING)
        failed, silent = 0, 0
        while True:
            try:
                return self._attempt(path, body, limit)
            except _Again as trouble:
                failed, silent = failed + 1, silent + trouble.silent
                hopeless = not patient and (trouble.away or trouble.silent)
                if hopeless or failed >= ATTEMPTS or silent >= TIMEOUTS:
                    raise self._given_up(trouble, failed) from None
                time.sleep(min(max(self._pause * 2 ** (failed - 1), trouble.wait), LONGEST_PAUSE))

    def _given_up(self, trouble: _Again, attempts: int) -> Exception:
        if trouble.away:
            return Gone(f"no judge answers at {self.address}: {trouble}", self.start)
        return Failed(f"{self.address}: {trouble}" + (f", {attempts} times" if attempts > 1 else ""))

    def _attempt(self, path: str, body: Mapping[str, Any] | None, limit: float) -> dict[str, Any]:
        """One request; raises _Again, Failed or Refused."""
        status, reason, wait, content = _within(limit, lambda: self._exchange(path, body, limit))
        text = content.decode("utf-8", errors="replace")
        text = text.replace(self._key, "***") if self._key else text
        blamed = any(name in text for name in WISHES & set(body or ()))  # llama-cpp-python answers 500 to such
        if (status in LATER or status >= 500) and not blamed:
            raise _Again(f"the server answers {status} {reason}{_told(text)}", wait=wait)
        if status != 200:
            raise Refused(status, f"{self.address}{path} answers {status} {reason}{_told(text)}")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise Failed(f"{self.address}{path} sends no JSON but {short(text)!r}") from None
        if not isinstance(document, dict):
            raise Failed(f"{self.address}{path} sends {short(text)!r} instead of a JSON object")
        return document

    def _exchange(self, path: str, body: Mapping[str, Any] | None, limit: float) -> tuple[int, str, float, bytes]:
        """Status, its words, the seconds the server asks to wait, and the content of one answer."""
        import requests
        from urllib3.exceptions import HTTPError, TimeoutError

        headers = {"Accept-Encoding": "identity", "User-Agent": "groundup"}  # unpacked, a small answer may be huge
        times, end = (min(CONNECT, limit), limit), time.monotonic() + limit
        method, url = ("GET" if body is None else "POST"), self.address + path
        try:
            with requests.Session() as session:
                session.trust_env = not is_here(self.address)  # a proxy has no business between us and this machine
                session.auth = self._sign  # also keeps passwords of a .netrc file at home
                session.headers.update(headers)
                with session.request(
                    method, url, json=body, timeout=times, stream=True, allow_redirects=False
                ) as response:
                    wait, reason = response.headers.get("Retry-After", ""), short(str(response.reason or ""))
                    seconds = float(wait) if re.fullmatch(r"\d{1,6}", wait) else 0.0
                    return response.status_code, reason, seconds, _bounded(response, url, end)
        except requests.exceptions.SSLError as error:
            raise Gone(f"{self.address} has no valid certificate: {_cause(error)}", "check the address") from None
        except requests.ConnectTimeout:
            raise _Again("the server does not answer in time", silent=True, away=True) from None
        except (requests.Timeout, TimeoutError):
            raise _Again(f"no answer within {limit:g} s", silent=True) from None
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _Again(_cause(error), away=_refused(error)) from None

    def _sign(self, request: Any) -> Any:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _within(seconds: float, work: Callable[[], Value]) -> Value:
    """What `work` gives, or _Again once the seconds are over: limits of a socket start anew with each byte that comes.

    The thread is left to its end, and cannot keep the program from ending.
    """
    done: list[Value | BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # handed on to whoever waits
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds + 0.5)  # a socket that ran out of time says so itself, in better words
    if not done:
        raise _Again(f"no whole answer within {seconds:g} s", silent=True)
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def _bounded(response: "Response", url: str, end: float) -> bytes:
    """The body as it was sent; raises Failed for more than 4 MB, for a packed one, and where it drips on past `end`."""
    packed = response.headers.get("Content-Encoding", "identity")
    if packed != "identity":
        raise Failed(f"{url} sends an answer packed as {short(packed)}, unasked")
    content = bytearray()
    while block := response.raw.read1(BLOCK, decode_content=False):  # what has come, be it a single byte
        content += block
        if time.monotonic() > end:
            raise _Again(f"after {len(content):,} bytes the answer was not whole, and time is up", silent=True)
        if len(content) > LARGEST:
            raise Failed(f"{url} sends more than {LARGEST:,} bytes")
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and len(content) < int(declared):
        raise _Again(f"the connection broke after {len(content):,} bytes")
    return bytes(content)


def checked_address(address: str) -> str:
    """An address without a slash at its end; raises SettingsError where it is none, or holds a password."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"{address!r} is no address of a judge", "give one such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(
            f"the address of the judge at {parts.hostname} holds more than host, port and path",
            "put a key into an environment variable and name it with --api-key-env",
        )
    return address.rstrip("/")


def is_here(address: str) -> bool:
    """Whether an address is one of this machine."""
    return urlsplit(address).hostname in LOOPBACK


def _told(text: str) -> str:
    """What an error says in words, as Ollama and OpenAI put it, else its beginning."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    said = document.get("error", document.get("detail")) if isinstance(document, dict) else None
    said = said.get("message") if isinstance(said, dict) else said
    words = short(said if isinstance(said, str) else text)
    return f": {words}" if words else ""


def short(text: str) -> str:
    """At most 200 characters in one line, none of which a terminal would obey."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text[:2000]).strip()
    return line if len(line) <= 200 else line[:199] + "\u2026"


def _inner(error: BaseException) -> BaseException:
    """The error at the bottom of what requests and urllib3 wrap around it."""
    inner = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    if isinstance(inner, BaseException) and len(inner.args) > 1 and isinstance(inner.args[1], BaseException):
        return inner.args[1]  # "Connection aborted." and why
    return inner if isinstance(inner, BaseException) else error


def _refused(error: BaseException) -> bool:
    """Whether nothing was reached: no such host, or nobody listens there."""
    from urllib3.exceptions import NewConnectionError

    return isinstance(_inner(error), NewConnectionError)


def _cause(error: BaseException) -> str:
    words = re.sub(r"^.*?object at 0x\w+>:? ?|^HTTP\w+\(.*?\): ?|^\w+Error: ", "", str(_inner(error)))
    return short(words or type(error).__name__)
