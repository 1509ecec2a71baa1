"""Keys and values kept between decoding steps: each call hands in its own, and gets back all so far.

Without it, every new token would cost a forward pass over the whole text before it.
"""

import torch
from torch import Tensor

from groundup.errors import ModelError
from groundup.model.config import BigramConfig, ModelConfig


class Cache:
    """Room for `length` tokens of each of `batch` rows, reserved at once; `length` of it counts the tokens held.

    All rows fill together: column s holds one token of every row. Prompts of unequal length are therefore padded on
    the LEFT, and the caller passes `padding` (B, cache.length + T) with every call: the mask of all columns so far,
    one True column more per step. Real tokens then get the positions 0, 1, 2, ... in each row and never see filler.

    Memory: 2 x layers x batch x kv_heads x length x head_size numbers. For use without gradients.

    >>> from groundup.model.config import from_name
    >>> cache = Cache(from_name("1m"), batch=2, length=64)
    >>> cache.length, cache.capacity, cache.keys.shape
    (0, 64, torch.Size([5, 2, 4, 64, 32]))
    """

    def __init__(
        self,
        config: ModelConfig | BigramConfig,
        *,
        batch: int,
        length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = length
        self.length = 0
        shape = (config.layers, batch, config.kv_heads, length, config.head_size)  # (layers, B, G, length, K)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values (B, G, T, K) of one layer behind those held; returns all, (B, G, length + T, K).

        What comes back is in the finer of the two number formats; the very first piece comes back as it is. The model
        moves `length` on by T when every layer has appended. Raises ModelError when there is no room.
        """
        if keys.shape[0] != self.keys.shape[1]:
            raise ModelError(
                f"the cache is for {self.keys.shape[1]} rows, the call has {keys.shape[0]}",
                "create the cache for the batch that is decoded",
            )
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ModelError(
                f"the cache has room for {self.capacity} tokens, not for {self.length} + {keys.shape[2]}",
                "create the cache with a greater length, or decode without it past the context",
            )
        if keys.requires_grad:  # written into the shared store, the graphs of all steps would hang together and grow
            raise ModelError("a cache was given while gradients are on", "decode inside torch.inference_mode()")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        if self.length == 0:
            return keys, values
        held = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        finer = torch.promote_types(self.keys.dtype, keys.dtype)
        return held[0].to(finer), held[1].to(finer)  # no copy unless the cache is coarser than what came in
