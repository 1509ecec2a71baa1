"""A network changed without being trained: more rows in its tables, for tokens it did not know.

In: a trained network. Out: another of the same family with the same numbers, and more of them.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.model import build, config_of, lora
from groundup.model.config import BigramConfig, ModelConfig

TABLES = ("token_table.weight", "head.weight")  # (V, D) each; tied, there is no second


def with_config(model: nn.Module, config: ModelConfig | BigramConfig) -> nn.Module:
    """The same weights, not copied, in a network of another config of the same shapes: other dropout, say."""
    lora.refuse(model, "given another config")
    return _filled(config, model.state_dict(), training=model.training)


def extend_vocabulary(model: nn.Module, vocabulary: int, *, known: int) -> nn.Module:
    """A network whose ids `known` .. `vocabulary` - 1 are new: their rows are the mean of the `known` old ones.

    Rows that a longer table had beyond `known` (filler, for speed) are used first and not lost; a table that is long
    enough stays as long. Logits of the old ids do not change. The mean gives new tokens the logit of an average token,
    and so a probability near that of a rare one (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language
    Models"). Tables grow in memory of their own; all other weights are those of `model`.

    Raises ModelError for fewer ids than there were, and for a bigram table, which has no rows to spare.

    >>> old = build(ModelConfig(family="llama", vocabulary=2, context=4, width=2, layers=1, heads=1), seed=0)
    >>> _ = old.token_table.weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    >>> extend_vocabulary(old, 3, known=2).token_table.weight[2].tolist()
    [2.0, 4.0]
    """
    lora.refuse(model, "given more tokens")
    config = config_of(model)
    if isinstance(config, BigramConfig):
        raise ModelError("a bigram table cannot take new tokens", "train it anew with the tokens in its tokenizer")
    if not 0 < known <= min(vocabulary, config.vocabulary):
        raise ModelError(
            f"the model has {config.vocabulary:,} rows, of which {known:,} are said to be known and {vocabulary:,} "
            "wanted", "a vocabulary can only grow"
        )  # fmt: skip
    state = model.state_dict()
    tables = {name: _grown(state[name], vocabulary, known=known) for name in TABLES if name in state}
    longer = dataclasses.replace(config, vocabulary=max(config.vocabulary, vocabulary))
    return _filled(longer, state | tables, training=model.training)


@torch.no_grad()
def _grown(table: Tensor, vocabulary: int, *, known: int) -> Tensor:
    """The table (V, D) with rows `known` .. `vocabulary` - 1 set to the mean of those before; taken in fp32."""
    grown = table.new_empty(max(len(table), vocabulary), table.size(1))
    grown[: len(table)] = table
    grown[known:vocabulary] = table[:known].mean(dim=0, dtype=torch.float32).to(table.dtype)
    return grown


def _filled(config: ModelConfig | BigramConfig, state: dict[str, Tensor], *, training: bool) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = build(config)  # shapes, no memory
    model.load_state_dict(state, assign=True)
    return model.train(training)


def train_only(model: nn.Module, what: str) -> nn.Module:
    """Freeze all but "all" of a network, its "last-block" with the final norm and the head, or its "head"; in place.

    A tied head is the token table, which learns with it. What is frozen gets no gradient, and blocks below the first
    that learns keep nothing for the backward pass. Raises ModelError for another word.

    >>> network = build(ModelConfig(family="gpt2", vocabulary=5, context=4, width=4, layers=2, heads=1), seed=0)
    >>> sorted({name.split(".")[0] for name, p in train_only(network, "head").named_parameters() if p.requires_grad})
    ['token_table']
    """
    if what not in ("all", "last-block", "head"):
        raise ModelError(f"cannot train only {what!r}", "choose all, last-block or head")
    trunk: Any = getattr(model, "trunk", model)
    head = getattr(model, "score", None) or trunk.head or trunk.token_table  # of a classifier, of others, tied
    model.requires_grad_(what == "all")
    parts = {"all": [], "head": [head], "last-block": [trunk.blocks[-1], trunk.norm, head]}[what]
    for part in parts:
        part.requires_grad_(True)
    return model


@torch.no_grad()
def narrowed(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The frozen matrices of the blocks in `dtype`, in place: what autocast would make of them anew at every step.

    Tables, norms and what learns stay as they are, so the products are the same to the bit. What is rounded is lost:
    only for a network whose frozen part is kept elsewhere.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and not parameter.requires_grad and ".blocks." in f".{name}":
            parameter.data = parameter.data.to(dtype)
    return model
