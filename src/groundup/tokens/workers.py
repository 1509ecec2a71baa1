"""Texts -> ids in several processes, in the order they came, in bounded memory.

In: batches of texts, as an iterator that is read only as far ahead as the workers need. Out: each batch with its ids.
Processes are spawned on every system: a forked one would share locks and threads with us that it cannot know of.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from groundup.errors import GroundupError, UserError
from groundup.tokens.tokenizer import Tokenizer

MOST = 4  # by default: with GPT-2's tokenizer each takes 150 MB, and all together shall stay under 1 GB
SMALL = 32 << 20  # bytes of text that one process encodes sooner than others have started


class Refused(NamedTuple):
    """The error of one text, in a form that travels between processes."""

    kind: type[UserError]
    what: str
    fix: str


class Ids(NamedTuple):
    """Ids (n,) of the texts of a batch, end to end; `lengths` (texts,); if a text was `refused`, it is the next one."""

    ids: np.ndarray
    lengths: np.ndarray
    refused: Refused | None = None


class Batch(Protocol):
    """Anything with texts to encode; `goes_on`: of each, whether it is the rest of another (Tokenizer.encode_many)."""

    @property
    def texts(self) -> Sequence[str]: ...

    @property
    def goes_on(self) -> Sequence[bool]: ...


B = TypeVar("B", bound=Batch)


def encode(tokenizer: Tokenizer, texts: Sequence[str], goes_on: Sequence[bool]) -> Ids:
    """The ids of some texts, up to the first one that the tokenizer cannot express."""
    try:
        return Ids(*tokenizer.encode_many(texts, goes_on))
    except UserError as error:
        if len(texts) == 1:
            return Ids(*tokenizer.encode_many([]), Refused(type(error), error.what, error.fix))
    half = len(texts) // 2  # look for it by halves
    first = encode(tokenizer, texts[:half], goes_on[:half])
    if first.refused:
        return first
    second = encode(tokenizer, texts[half:], goes_on[half:])
    return Ids(np.concatenate([first.ids, second.ids]), np.append(first.lengths, second.lengths), second.refused)


def encode_each(batches: Iterable[B], tokenizer: Tokenizer, *, workers: int) -> Generator[tuple[B, Ids], None, None]:
    """Each batch with its ids, in order; with one worker nothing is spawned, and the ids are the same.

    At most 2 * workers + 1 batches are in memory. Raises GroundupError if a worker dies. Close the iterator if it is
    left early: that ends the workers.
    """
    if workers == 1:
        for batch in batches:
            yield batch, encode(tokenizer, batch.texts, batch.goes_on)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(tokenizer,))
    try:
        waiting: deque[tuple[B, Future[Ids]]] = deque()
        for batch in batches:
            with _deaf():
                waiting.append((batch, pool.submit(_encode, batch.texts, batch.goes_on)))
            if len(waiting) > 2 * workers:
                first, ids = waiting.popleft()
                yield first, ids.result()
        while waiting:
            first, ids = waiting.popleft()
            yield first, ids.result()
    except BrokenProcessPool:
        raise GroundupError(
            "a worker process died: killed, short of memory, or unable to start",
            "repeat the command, it goes on; --workers 1 needs the least memory and no other process. A Python script "
            'that calls this needs `if __name__ == "__main__":` around the call',
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold Ctrl-C back for the moment: a process born now never hears it, not even before it can say that it will not.

    Ours hears it afterwards. On Windows, where nothing can be held back, a newborn may print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_many(asked: int | None, size: int) -> int:
    """How many workers for `size` bytes of text: as many as asked for, else one for a small text, else the cores.

    >>> how_many(3, 10), how_many(None, 10)
    (3, 1)
    """
    return asked or (1 if size < SMALL else min(cores(), MOST))


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_tokenizer: Tokenizer  # of this worker


def _begin(tokenizer: Tokenizer) -> None:
    """First of all in a worker: Ctrl-C is for the process that began it, and when that is gone, so is the worker."""
    global _tokenizer
    _tokenizer = tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _encode(texts: Sequence[str], goes_on: Sequence[bool]) -> Ids:
    return encode(_tokenizer, texts, goes_on)
