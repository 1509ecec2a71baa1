"""The whole network, top to bottom: token ids (B, T) go in, logits (B, T, V) come out.

One file covers three families by settings (see `FAMILIES` in config.py): gpt2, llama and qwen3. Read it downwards:
`GPT` (embed, blocks, norm, head), `Block` (attention, then feed-forward, each added to its input), `Attention`,
`attention_by_hand` (the same arithmetic step by step), `rotate` (rotary positions), the feed-forward parts, `visible`
(who may look at whom) and `initialise` (the first numbers).

Shapes: B batch, T time (tokens of this call), S time of the keys (T, plus what a cache holds), D width, H heads,
G key/value heads, K head size, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from groundup.model.attend import attend
from groundup.model.cache import Cache
from groundup.model.check import check_masks, check_positions, check_tokens
from groundup.model.config import ModelConfig, RopeScaling, flops_per_token
from groundup.model.dropout import Dropout, drop
from groundup.model.gate import gated
from groundup.model.packed import Spans, separable, separately


class GPT(nn.Module):
    """A decoder-only transformer; with `seed` its first numbers are its own, else torch's global generator draws them.

    >>> from groundup.model.config import from_name
    >>> model = GPT(from_name("1m", vocabulary=100), seed=0)
    >>> model(torch.tensor([[5, 17, 99]])).shape
    torch.Size([1, 3, 100])
    """

    def __init__(self, config: ModelConfig, *, seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # True: keep only what enters each block, and run it again for the backward pass
        learned = config.parts.positions == "learned"
        self.token_table = Embedding(config.vocabulary, config.width)
        self.position_table = Embedding(config.context, config.width) if learned else None
        self.dropout = Dropout(config.dropout_embedding, by_torch=config.init == "torch")
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = _norm(config, config.width)
        # Tied, the head is the token table itself and no second parameter: nothing can then come apart when weights
        # are loaded, moved or sharded.
        self.head = None if config.tie else Linear(config.width, config.vocabulary, bias=False)
        initialise(self, seed=seed)

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
        """Logits (B, T, V) of the token that follows each of `tokens` (B, T); with head=False what the head would read,
        (B, T, D).

        positions (B, T) or (1, T): place of each token, by default 0, 1, 2, ... after what the cache holds.
        documents (B, T): tokens see only their own document, a run of equal numbers. Positions go on across documents
            unless given.
        padding (B, S): True for a real token, False for filler, left or right; nothing real sees filler, positions
            count real tokens only, and what comes out at filler is finite and meaningless. With a cache it covers the
            S = cache.length + T tokens so far. Filler on the right alone needs no padding: nothing looks that way.
        cache: keys and values of earlier calls, extended by this one.

        Raises ModelError for ids or positions outside the tables and for more tokens than the context.
        """
        config, start = self.config, cache.length if cache is not None else 0
        check_tokens(tokens, config, start=start)
        check_positions(tokens, positions, config.context)
        check_masks(tokens, start=start, documents=documents, padding=padding)
        positions = places(tokens, start=start, padding=padding) if positions is None else positions
        mask: Tensor | Spans | None = None
        if documents is not None and padding is None:
            dropout = config.dropout_attention if self.training else 0.0
            kind, size = self.token_table.weight.dtype, config.head_size
            mask = separable(documents, dtype=kind, dropout=dropout, head_size=size)
        mask = mask or visible(tokens, start=start, documents=documents, padding=padding)

        x = self.token_table(tokens)  # (B, T) -> (B, T, D)
        rotation = None
        if self.position_table is not None:
            x = x + self.position_table(positions)
        else:
            rotation = rotation_at(positions, config.head_size, config.rope_base, config.rope_scaling)
        x = self.dropout(x)
        again = self.recompute and cache is None and torch.is_grad_enabled()
        for block in self.blocks:
            # Random numbers are drawn again as they were, so dropout is the same in both runs (Chen et al. 2016).
            x = checkpoint(block, x, mask, rotation, cache, use_reentrant=False) if again else (
                block(x, mask, rotation, cache))  # fmt: skip
        if cache is not None:
            cache.length += tokens.shape[1]
        x = self.norm(x)
        if not head:
            return x
        return F.linear(x, self.token_table.weight) if self.head is None else self.head(x)  # (B, T, D) -> (B, T, V)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) that turns the last state into logits: the token table itself when tied."""
        return self.token_table.weight if self.head is None else self.head.weight

    def flops_per_token(self) -> float:
        """Floating point operations of training on one token (PaLM, appendix B)."""
        return flops_per_token(self.config)


class Block(nn.Module):
    """Talk to the other tokens, then think alone; each part reads a normalised copy and adds its answer (pre-norm)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = _norm(config, config.width)
        self.attention = Attention(config, layer)
        self.feedforward_norm = _norm(config, config.width)
        self.feedforward = FeedForward(config) if config.parts.feedforward == "gelu" else GatedFeedForward(config)
        self.dropout = Dropout(config.dropout_shortcut, by_torch=config.init == "torch")

    def forward(
        self, x: Tensor, mask: Tensor | Spans | None, rotation: tuple[Tensor, Tensor] | None, cache: Cache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, rotation, cache))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class Attention(nn.Module):
    """Causal self-attention over H query heads that share G key/value heads (Vaswani et al. 2017, section 3.2.2;
    grouped: Ainslie et al. 2023).

    Query, key and value are one matrix: H K rows of queries, then G K of keys, then G K of values.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        rows = (config.heads + 2 * config.kv_heads) * config.head_size
        self.qkv = Linear(config.width, rows, bias=bool(config.qkv_bias))
        self.query_norm = _norm(config, config.head_size) if config.parts.query_key_norm else nn.Identity()
        self.key_norm = _norm(config, config.head_size) if config.parts.query_key_norm else nn.Identity()
        self.out = Linear(config.heads * config.head_size, config.width, bias=config.parts.bias)
        self.dropout, self.by_torch = config.dropout_attention, config.init == "torch"

    def forward(
        self, x: Tensor, mask: Tensor | Spans | None, rotation: tuple[Tensor, Tensor] | None, cache: Cache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        batch, time, _ = x.shape
        heads = self.qkv(x).view(batch, time, -1, self.head_size)  # (B, T, D) -> (B, T, H + 2G, K)
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=2)
        q, k = self.query_norm(q), self.key_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, T, H, K) -> (B, H, T, K); G in k, v
        if rotation is not None:
            q, k = rotate(q, rotation).to(v.dtype), rotate(k, rotation).to(v.dtype)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, G, T, K) -> (B, G, S, K)
            q = q.to(k.dtype)  # a cache may be finer than the weights
        dropout = self.dropout if self.training else 0.0
        context = attention(q, k, v, mask, dropout=dropout, by_torch=self.by_torch and dropout > 0)
        context = context.transpose(1, 2).reshape(batch, time, -1)  # (B, H, T, K) -> (B, T, H K)
        return self.out(context.to(heads.dtype))


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Spans | None = None, *, dropout: float = 0.0, by_torch: bool = False
) -> Tensor:
    """What each query (B, H, T, K) gathers from keys and values (B, G, S, K), by the quickest way there is: the same.

    mask (B or 1, 1, T, S) is True where a query may look. Without one, T equals S and each query sees its own place
    and all earlier ones, or T is 1 and the query sees everything. `attention_by_hand` is the same, written out.
    With `Spans` each document is done by itself, which is the same as a mask of blocks. `by_torch`:
    drop what torch's own function drops (not with `Spans`).
    """
    if isinstance(mask, Spans):
        return separately(q, k, v, mask, dropout=dropout)
    if q.device.type == "cpu" and q.shape[2] > 1 and not by_torch:
        return attend(q, k, v, mask, dropout=dropout)
    causal = mask is None and q.shape[2] > 1
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0) -> Tensor:
    """`attention` step by step (Vaswani et al. 2017, equation 1): for reading, and for testing the fast one.

    Two tokens whose query matches the second key perfectly: the first may only see itself, the second mixes.

    >>> q = torch.tensor([[[[0.0], [1.0]]]])
    >>> k = torch.tensor([[[[0.0], [math.log(3)]]]])
    >>> v = torch.tensor([[[[1.0], [5.0]]]])
    >>> attention_by_hand(q, k, v).flatten()  # the second: (1 * 1 + 3 * 5) / 4
    tensor([1., 4.])
    """
    shared = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(shared, dim=1)  # (B, G, S, K) -> (B, H, S, K)
    v = v.repeat_interleave(shared, dim=1)
    scores = q @ k.transpose(2, 3)  # (B, H, T, K) @ (B, H, K, S) -> (B, H, T, S)
    scores = scores / math.sqrt(q.shape[3])  # keeps the spread of the scores free of the head size
    if mask is None:  # the last query stands at the last key
        time, keys = q.shape[2], k.shape[2]
        mask = torch.ones(time, keys, dtype=torch.bool, device=q.device).tril(keys - time)
    scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, dim=-1)  # each row sums to 1
    weights = drop(weights, dropout)
    return weights @ v  # (B, H, T, S) @ (B, H, S, K) -> (B, H, T, K)


def rotation_at(
    positions: Tensor, head_size: int, base: float, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (B or 1, 1, T, K / 2) in fp32, of the angle by which each place turns each pair of numbers.

    Pair i turns by position * base^(-2i / K) (Su et al. 2021, "RoFormer", section 3.2.2), slower where stretched.

    >>> cos, sin = rotation_at(torch.tensor([[0, 1]]), head_size=4, base=100.0)
    >>> sin[0, 0]  # place 1: sin(1) and sin(1 / 10)
    tensor([[0.0000, 0.0000],
            [0.8415, 0.0998]])
    """
    pairs = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32)
    speeds = base ** (-pairs / head_size)  # (K / 2): radians for each token
    speeds = speeds if scaling is None else _stretched(speeds, scaling)
    angles = positions[:, None, :, None].float() * speeds  # (B, T) -> (B, 1, T, K / 2)
    return angles.cos(), angles.sin()


def _stretched(speeds: Tensor, scaling: RopeScaling) -> Tensor:
    """Slower speeds (K / 2), by the rule that `RopeScaling` describes."""
    slow = speeds / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = scaling.original_context * speeds / (2 * math.pi)  # within the context it was first trained for
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)  # 1: as it was; 0: all the way slower
    return kept * speeds + (1 - kept) * slow


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (B, H, T, K) by place; number i is paired with number i + K/2, as Llama and Qwen weights expect.

    The product of a rotated query and a rotated key depends only on how far apart they stand.
    """
    cos, sin = rotation
    first, second = x.float().chunk(2, dim=-1)  # (B, H, T, K) -> 2 x (B, H, T, K / 2)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


class FeedForward(nn.Module):
    """Widen, bend with GELU (the tanh form of Hendrycks and Gimpel 2016, section 2), narrow again: (B, T, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.width, config.hidden, bias=config.parts.bias)
        self.down = Linear(config.hidden, config.width, bias=config.parts.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, equation 6): one half of the widened numbers decides how much of the other passes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.width, config.hidden, bias=config.parts.bias)
        self.up = Linear(config.width, config.hidden, bias=config.parts.bias)
        self.down = Linear(config.hidden, config.width, bias=config.parts.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down(gated(self.gate(x), self.up(x)))


class Linear(nn.Linear):
    """A linear layer that leaves its numbers undrawn: `initialise` draws those of the whole network, in one order."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Embedding(nn.Embedding):
    """A table that leaves its numbers undrawn, like `Linear`."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


def _norm(config: ModelConfig, size: int) -> nn.Module:
    kind = nn.LayerNorm if config.parts.norm == "layer" else RMSNorm
    return kind(size, eps=config.norm_eps)


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) times a learned scale, over the last dimension (Zhang and Sennrich 2019, equation 4).

    Computed in the number format of the scale: under autocast, queries and keys in bf16 are normalised in fp32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape whose last dimension is the size; the same shape."""
        return super().forward(x.to(self.weight.dtype))


def visible(tokens: Tensor, *, start: int, documents: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """Which keys each query may look at: (B or 1, 1, T, S), True for yes; None when the causal rule is all there is.

    >>> ids = torch.zeros(1, 3, dtype=torch.long)
    >>> visible(ids, start=0, documents=torch.tensor([[0, 0, 1]]), padding=None).int()[0, 0]
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    time = tokens.shape[1]
    if documents is None and padding is None and (start == 0 or time == 1):
        return None
    keys = torch.arange(start + time, device=tokens.device)
    queries = keys[start:, None]
    mask = (keys <= queries)[None, None]  # (T, S) -> (1, 1, T, S)
    if documents is not None:
        run = documents.diff(dim=1, prepend=documents[:, :1]).ne(0).cumsum(dim=1)  # a number may come back later
        mask = mask & (run[:, None, :, None] == run[:, None, None, :])
    if padding is not None:
        # Everyone sees at least itself: a softmax over nothing is NaN, and filler on the left would have nothing.
        mask = mask & (padding.bool()[:, None, None, :] | (keys == queries))
    return mask


def places(tokens: Tensor, *, start: int, padding: Tensor | None) -> Tensor:
    """Positions (B or 1, T) by default; with padding each row counts its real tokens, and filler on the left is 0.

    >>> places(torch.tensor([[0, 0, 5, 7]]), start=0, padding=torch.tensor([[False, False, True, True]]))
    tensor([[0, 0, 0, 1]])
    """
    time = tokens.shape[1]
    if padding is None:
        return torch.arange(start, start + time, device=tokens.device)[None]
    return (padding.long().cumsum(dim=1) - 1).clamp(min=0)[:, -time:]


def initialise(model: GPT, *, seed: int | None = None) -> None:
    """Draw every number of the network, in reading order, as `model.config.init` says.

    "gpt2": normal with deviation 0.02 (positions 0.01), biases 0; the two matrices of each block that write to the
        shortcut 0.02 / sqrt(2 layers), so that what the layers add up to keeps its size (Radford et al. 2019, section
        2.3; the deviations are those of the released code, src/model.py).
    "torch": what nn.Embedding and nn.Linear draw by default: tables normal with deviation 1, linear layers uniform
        within 1 / sqrt(inputs), query, key and value as three layers of their own. With it the seeds of "Build a Large
        Language Model (From Scratch)" give the numbers printed there.
    """
    weight = model.token_table.weight
    if weight.is_meta:
        return  # a model without memory, for counting
    generator = None if seed is None else torch.Generator(weight.device).manual_seed(seed)
    draw = _draw_torch if model.config.init == "torch" else _draw_gpt2
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                draw(module, name, model.config, generator)


def _draw_gpt2(
    module: nn.Linear | nn.Embedding, name: str, config: ModelConfig, generator: torch.Generator | None
) -> None:
    std = 0.01 if name == "position_table" else 0.02
    if name.endswith(("attention.out", "feedforward.down")):
        std /= math.sqrt(2 * config.layers)
    module.weight.normal_(0.0, std, generator=generator)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.zero_()


def _draw_torch(
    module: nn.Linear | nn.Embedding, name: str, config: ModelConfig, generator: torch.Generator | None
) -> None:
    if isinstance(module, nn.Embedding):
        module.weight.normal_(0.0, 1.0, generator=generator)
        return
    keys = config.kv_heads * config.head_size
    rows = [config.heads * config.head_size, keys, keys] if name.endswith("qkv") else [module.out_features]
    biases = [None] * len(rows) if module.bias is None else module.bias.split(rows)
    for weight, bias in zip(module.weight.split(rows), biases, strict=True):
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)  # torch's way to say 1 / sqrt(inputs)
        if bias is not None:
            limit = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(bias, -limit, limit, generator=generator)
