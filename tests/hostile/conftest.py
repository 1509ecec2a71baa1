"""What every hostile file is held to: refused with words, before much memory is taken."""

import contextlib
import ctypes
import gc
import os
import platform
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

MOST = 100 * 10**6  # bytes
PEAK = Path("/proc/self/clear_refs")


@contextlib.contextmanager
def _frugal(most: int = MOST) -> Iterator[None]:
    """The highest resident memory inside the block, against what it was before."""
    process = psutil.Process()
    _give_back()
    before = process.memory_info().rss
    with _highest(process) as highest:
        yield
    grown = highest() - before
    assert grown < most, f"memory grew by {grown / 1e6:,.0f} MB, at most {most / 1e6:,.0f} MB is allowed"


@contextlib.contextmanager
def _highest(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """A function that tells the peak since the block began: the kernel's own where it can be reset, else by looking
    at it a thousand times a second."""
    if os.access(PEAK, os.W_OK):
        PEAK.write_text("5")  # proc(5): resets VmHWM, the peak of resident memory
        yield _kernels_peak
        return
    seen, done = [process.memory_info().rss], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            seen.append(max(seen[-1], process.memory_info().rss))

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield lambda: max(seen[-1], process.memory_info().rss)
    finally:
        done.set()
        watch.join()


def _give_back() -> None:
    """Return what earlier tests freed to the system: taken from there, new memory would not show."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _kernels_peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.fixture
def frugal() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """`with frugal():` fails where the block's memory grows by 100 MB or more at any moment.

    An exception passes through it: write `with frugal(), pytest.raises(...)`, so that what follows is still compared.
    """
    return _frugal
