"""A loaded model made ready to write: as quick as this device allows, at the price of being good for nothing else.

In: a model, changed in place. Out: the same model, to be handed to `generate` or `write`.
"""

from torch import nn

from groundup.model import int8 as whole
from groundup.model import layout
from groundup.model.gpt import GPT

MOST_ROWS = 64  # more are never written together


def ready(model: nn.Module, *, int8: bool = False, rows: int = 1, compiled: bool = False) -> None:
    """Lay out the matrices for steps of `rows` texts on a CPU; with `int8` keep them as whole numbers of 8 bits.

    `compiled` has every cached step compiled (for CUDA, see `generate.compiled`); a bigram passes over it.

    The model cannot be trained, saved or moved afterwards. Texts may differ where two tokens are level within rounding.
    Raises ModelError for int8 where there are no matrices (a bigram).

    >>> from groundup.model import BigramConfig, build
    >>> ready(build(BigramConfig(vocabulary=5, context=4)))  # a table only: nothing to do
    """
    if compiled and isinstance(model, GPT):
        model.decode_compiled = True  # type: ignore[assignment]  # a module's attributes have no type of their own
    if int8:
        whole.to_int8(model)
    else:
        layout.lay_out(model, rows=min(rows, MOST_ROWS))
