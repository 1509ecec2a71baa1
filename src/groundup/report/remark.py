"""What a remark is, and words that several rules say.

In: numbers. Out: `Remark`.
"""

from dataclasses import dataclass
from typing import Literal

from groundup.report.read import Run

Severity = Literal["problem", "warning", "note", "good"]
ORDER: tuple[Severity, ...] = ("problem", "warning", "good", "note")


@dataclass(frozen=True)
class Remark:
    """One observation: `seen` with numbers, what that `means`, what to `do` about it; `quotes` from a sample."""

    kind: str
    severity: Severity
    seen: str
    means: str
    do: str
    quotes: tuple[str, ...] = ()


def many(count: int, what: str) -> str:
    """A count and what is counted.

    >>> many(1, "step"), many(1200, "step")
    ('1 step', '1,200 steps')
    """
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def rate(run: Run) -> str:
    """The learning rate as it was, where it is known.

    >>> rate(Run(settings={"lr": 0.001}))
    ' (it was 0.001)'
    """
    return f" (it was {run.value('lr'):g})" if run.value("lr") else ""
