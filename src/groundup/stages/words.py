"""How a stage speaks: a line about what a run is made of, and long texts on one line.

In: text. Out: lines on standard error, or shorter text.
"""

import sys

SHOWN = 160  # characters of a text that is shown on one line


def say(topic: str, text: str) -> None:
    """A line about what a run is made of, beside its results."""
    print(f"{topic:<10}{text}", file=sys.stderr)


def beginning(text: str) -> str:
    """The beginning of a text, on one line.

    >>> beginning("one\\n two"), len(beginning("long " * 100))
    ('one two', 160)
    """
    words = " ".join(text.split())
    return words if len(words) <= SHOWN else words[: SHOWN - 1] + "…"


def ending(text: str) -> str:
    """The end of a text, where what is asked mostly stands, on one line.

    >>> ending("Read this. " * 100 + "Who found it?")[-17:]
    'is. Who found it?'
    """
    words = " ".join(text.split())
    return words if len(words) <= SHOWN else "…" + words[1 - SHOWN :]
