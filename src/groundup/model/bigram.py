"""The simplest language model: one table, whose row of the present token is the logits of the next. Ids in, logits out.

It is called like `GPT`, so that every loop and decoder takes either; what it cannot use (positions, documents, padding)
changes nothing, since it looks at no other token.
"""

import torch
from torch import Tensor, nn

from groundup.model.cache import Cache
from groundup.model.check import check_tokens
from groundup.model.config import BigramConfig, flops_per_token


class Bigram(nn.Module):
    """P(next | present) as a table (V, V), drawn normal with deviation 1 as nn.Embedding does.

    >>> model = Bigram(BigramConfig(vocabulary=65, context=8), seed=0)
    >>> model(torch.tensor([[24, 43]])).shape
    torch.Size([1, 2, 65])
    """

    def __init__(self, config: BigramConfig, *, seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.vocabulary, _weight=_draw(config.vocabulary, seed))

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        padding: Tensor | None = None,
        cache: Cache | None = None,
        head: bool = True,
    ) -> Tensor:
        """(B, T) -> (B, T, V). The table has no state before its logits, so head=False returns them as well.

        A cache only counts the tokens. Raises ModelError like `GPT`.
        """
        check_tokens(tokens, self.config, start=cache.length if cache is not None else 0)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.table(tokens)  # (B, T) -> (B, T, V)

    def flops_per_token(self) -> float:
        """Floating point operations of training on one token: none, a row is only looked up."""
        return flops_per_token(self.config)


def _draw(vocabulary: int, seed: int | None) -> Tensor:
    table = torch.empty(vocabulary, vocabulary)
    if table.is_meta:
        return table
    generator = None if seed is None else torch.Generator(table.device).manual_seed(seed)
    return table.normal_(generator=generator)
