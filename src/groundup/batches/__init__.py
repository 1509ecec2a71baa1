"""From token ids to batches: windows or packed documents, drawn in a repeatable order, with the targets of each id.

In: a flat array of ids. Out: `Batch`, the only thing a loss reads besides the model.
"""

from groundup.batches.batch import Batch, Batches, next_token, pad
from groundup.batches.loader import Loader, sequential
from groundup.batches.pack import PackedDocuments
from groundup.batches.pairs import Pairs, WholePairs
from groundup.batches.windows import DocumentWindows, RandomWindows, Source, Windows

__all__ = [
    "Batch",
    "Batches",
    "DocumentWindows",
    "Loader",
    "PackedDocuments",
    "Pairs",
    "RandomWindows",
    "Source",
    "WholePairs",
    "Windows",
    "next_token",
    "pad",
    "sequential",
]
