"""From token ids to batches: windows cut from a text, drawn in a repeatable order, shifted into inputs and targets.

In: a flat array of ids. Out: `Batch`, the only thing a loss reads besides the model.
"""

from groundup.batches.batch import Batch, Batches, next_token, pad
from groundup.batches.loader import Loader, sequential
from groundup.batches.windows import DocumentWindows, RandomWindows, Source, Windows

__all__ = [
    "Batch",
    "Batches",
    "DocumentWindows",
    "Loader",
    "RandomWindows",
    "Source",
    "Windows",
    "next_token",
    "pad",
    "sequential",
]
