"""How well a model predicts a text: loss, perplexity, bits per byte.

In: a model and batches with targets. Out: `Score`. `each_token_once` cuts a text into such batches.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from groundup import losses
from groundup.batches.batch import Batch, next_token
from groundup.errors import DataError, SettingsError
from groundup.machine import Machine


@dataclass(frozen=True)
class Score:
    """Mean -log p of the predicted tokens in nats, its exp, and the same per byte of text in bits.

    Bits per byte can be compared between tokenizers, the others cannot; None where tokens have no bytes of their own.
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int

    def record(self) -> dict[str, float | None]:
        """The numbers that a run's journal keeps."""
        return {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}

    def words(self) -> str:
        """The same for a person, in a line."""
        bits = "" if self.bits_per_byte is None else f"  bits per byte {self.bits_per_byte:.3f}"
        return f"{self.loss:.3f}  perplexity {self.perplexity:,.2f}{bits}"


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    machine: Machine | None = None,
    byte_lengths: np.ndarray | None = None,
    limit: int | None = None,
) -> Score:
    """Score a model on batches; the sums are float64, and a shorter or weighted batch counts for what it holds.

    byte_lengths (V,): bytes of text each id stands for. limit: take no further batch once so many tokens are scored.
    The model predicts in evaluation mode and is put back; no random number is drawn. Raises DataError without batches.

    >>> from groundup.model import BigramConfig, build
    >>> model = build(BigramConfig(vocabulary=8, context=4))
    >>> _ = model.table.weight.data.zero_()  # a model without a clue: every one of 8 ids has p = 1/8
    >>> evaluate(model, each_token_once(np.array([1, 2, 3, 4, 5, 6]), context=4)).perplexity
    8.0
    """
    device = machine.device if machine else next(model.parameters()).device
    sizes = None if byte_lengths is None else torch.as_tensor(byte_lengths, device=device)
    nats, units, text_bytes = 0.0, 0.0, 0.0  # Python floats are float64
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            one = _score_batch(model, batch.to(device), machine, sizes)
            nats, text_bytes, units = nats + one[0], text_bytes + one[1], units + batch.count
            if limit is not None and units >= limit:
                break
    finally:
        model.train(was_training)
    if not units:
        raise DataError("there is no text to evaluate: no batches came", "give at least two tokens of text")
    loss = nats / units
    return Score(loss, perplexity(loss), nats / math.log(2) / text_bytes if text_bytes else None, round(units))


@torch.inference_mode()
def _score_batch(
    model: nn.Module, batch: Batch, machine: Machine | None, sizes: torch.Tensor | None
) -> tuple[float, float]:
    """Nats and bytes of one batch's targets."""
    if machine:
        with machine.autocast():
            total, _ = losses.next_token(model, batch)
    else:
        total, _ = losses.next_token(model, batch)
    if sizes is None:
        return total.item(), 0.0
    targets, weight = batch.fields["targets"], batch.fields.get("weight")
    held = sizes[targets]  # (B, T)
    return total.item(), float((held if weight is None else held * (weight > 0)).sum())


def perplexity(loss: float) -> float:
    """exp(loss): among how many equally likely tokens the model is undecided; inf where that exceeds a float.

    >>> round(perplexity(2.0794415416798357), 9), perplexity(1000.0)
    (8.0, inf)
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def each_token_once(tokens: np.ndarray, *, context: int, stride: int | None = None, batch: int = 16) -> Iterator[Batch]:
    """Windows over a text (n,) that together predict every token but the first exactly once.

    Windows of `context` ids begin every `stride` ids (default: the context, no overlap). Where they overlap, a token is
    scored in the first window that reaches it, so with a smaller stride each has at least context - stride tokens
    before it: a better estimate of long-context quality, at context / stride times the work. What a text leaves open in
    its last window has weight 0. Raises DataError for fewer than 2 tokens, SettingsError for a stride over context.

    >>> [b.fields["weight"].int().tolist() for b in each_token_once(np.arange(6), context=4, stride=2)]
    [[[1, 1, 1, 1], [0, 0, 1, 0]]]
    """
    targets = len(tokens) - 1
    if targets < 1:
        raise DataError(
            f"the text has {len(tokens)} tokens, and the first is never predicted", "give at least two tokens"
        )
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise SettingsError(
            f"'stride' cannot be {stride} with a context of {context}",
            "give 1 up to the context, so that no token is left out",
        )
    length = min(context, targets)
    columns = np.arange(length)
    starts = np.arange(0, targets - length + stride, stride)
    for first in range(0, len(starts), batch):
        begin = starts[first : first + batch, None]  # (B, 1)
        places = begin + np.arange(length + 1)  # (B, T+1)
        rows = tokens[np.minimum(places, targets)].astype(np.int64)
        new = (begin == 0) | (columns >= length - stride)  # not reached by the window before
        weight = new & (places[:, 1:] <= targets)
        yield next_token(torch.from_numpy(rows), weight=torch.from_numpy(weight.astype(np.float32)))
