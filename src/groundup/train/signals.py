"""Ctrl-C and SIGTERM as a flag that the loop reads between two steps.

In: signals of the operating system. Out: `Signals.status`: 0 while nothing came, else 130 or 143.
"""

import signal
import sys
import threading
from types import FrameType
from typing import Any


class Signals:
    """While in force, the first SIGINT or SIGTERM only sets `status`; a second one ends the process at once.

    >>> with Signals() as signals:
    ...     signals.status
    0
    """

    def __init__(self) -> None:
        self.status = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python delivers signals nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.status:
            raise KeyboardInterrupt
        self.status = 128 + number
        print("\nstopping: finishing the step and saving (again to stop at once)", file=sys.stderr, flush=True)
