"""What a network refuses: ids, positions and masks that do not fit it. Tensors in; nothing, or a ModelError, out.

Values are looked at on the CPU only: elsewhere the look would make every step wait for the device.
"""

import torch
from torch import Tensor

from groundup.errors import ModelError
from groundup.model.config import BigramConfig, ModelConfig


def check_tokens(tokens: Tensor, config: ModelConfig | BigramConfig, *, start: int = 0) -> None:
    """Raise ModelError unless ids (B, T), after `start` tokens in a cache, fit the context and the vocabulary.

    >>> check_tokens(torch.tensor([[0, 7]]), BigramConfig(vocabulary=7, context=8))
    Traceback (most recent call last):
        ...
    groundup.errors.ModelError: token id 7 is outside the vocabulary of 7
      -> use the tokenizer this model was trained with
    """
    shape = tuple(tokens.shape)
    if len(shape) != 2 or tokens.dtype != torch.long or tokens.numel() == 0:
        raise ModelError(f"tokens are {tokens.dtype} of shape {shape}", "give int64 ids of shape (batch, time)")
    length = start + shape[1]
    if length > config.context:
        raise ModelError(
            f"{length} tokens are more than the model's context of {config.context}",
            f"keep the last {config.context} tokens, or train a model with a longer context",
        )
    _check_values("token id", tokens, config.vocabulary, "vocabulary", "use the tokenizer this model was trained with")


def check_positions(tokens: Tensor, positions: Tensor | None, context: int) -> None:
    """Raise ModelError unless positions are one row for all or one for each, within the context."""
    if positions is None:
        return
    batch, time = tokens.shape
    if tuple(positions.shape) not in ((batch, time), (1, time)):
        _refuse_shape("positions", positions, tokens, (batch, time))
    _check_values("position", positions, context, "context", "positions run from 0 to context - 1")


def check_masks(tokens: Tensor, *, start: int, documents: Tensor | None, padding: Tensor | None) -> None:
    """Raise ModelError unless documents (B, T) and padding (B, start + T) say something of every token."""
    batch, time = tokens.shape
    if documents is not None and start:
        raise ModelError(
            f"documents given with {start} tokens in the cache, whose documents are unknown",
            "leave documents out while generating: one row is one document",
        )
    if documents is not None and tuple(documents.shape) != (batch, time):
        _refuse_shape("documents", documents, tokens, (batch, time))
    if padding is not None and tuple(padding.shape) != (batch, start + time):
        _refuse_shape("padding", padding, tokens, (batch, start + time), f" with {start} in the cache" if start else "")


def _refuse_shape(name: str, seen: Tensor, tokens: Tensor, wanted: tuple[int, ...], held: str = "") -> None:
    raise ModelError(
        f"{name} has shape {tuple(seen.shape)}, but tokens have shape {tuple(tokens.shape)}{held}",
        f"give {name} of shape {wanted}: one value for each token",
    )


def _check_values(name: str, values: Tensor, limit: int, of: str, fix: str) -> None:
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise ModelError(f"{name} {low if low < 0 else high} is outside the {of} of {limit}", fix)
