"""From prompts to new ids: read the prompts once, then one token at a time with the keys and values kept.

In: a model, prompts as lists of ids, a `Sampler`. Out: a stream of `Step`, one per new token of every row.
`generate_by_hand` is the same loop as a book would print it: one row, no cache, the whole text read for each token.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.generate.compiled import CompiledStep
from groundup.generate.sample import Sampler, finest, number_copies, uniforms
from groundup.model import config_of
from groundup.model.cache import Cache


@dataclass(frozen=True)
class Step:
    """One new id for each row, None once a row has ended.

    `past_context`: the text has outgrown the context. Only its last `context` tokens are seen, and since each of them
    stands at another place than before, nothing kept can be used again: every token now costs a full forward pass.
    """

    ids: list[int | None]
    past_context: bool


@torch.inference_mode()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampler: Sampler,
    end: int | Collection[int] | None = None,
    copies: Sequence[int] | None = None,
    use_cache: bool = True,
) -> Generator[Step]:
    """Continue prompts of any lengths together, each exactly as it would go on alone.

    A row ends after `max_tokens` new ids, or with an id of `end`, which is yielded as its last. A text longer than the
    context is seen as its last `context` tokens. `copies[i]` says which sample of its prompt row i is (by default
    counted up among equal prompts). The model is in evaluation mode until the stream ends or is closed.

    Raises ModelError for an empty prompt, an id outside the vocabulary, or logits that are NaN or infinite.

    >>> from groundup.model import ModelConfig, build
    >>> model = build(ModelConfig(family="gpt2", vocabulary=50, context=8, width=8, layers=1, heads=2), seed=1)
    >>> [len(step.ids) for step in generate(model, [[3, 4], [7]], max_tokens=3, sampler=Sampler(temperature=0))]
    [2, 2, 2]
    """
    vocabulary = config_of(model).vocabulary
    _check(prompts, max_tokens, vocabulary)
    if not prompts:
        return
    copies = number_copies(prompts) if copies is None else copies
    text = _Text(model, prompts, max_tokens)
    cache = _cache(model, text.tokens.shape, start=text.length) if use_cache else None
    step = _step(model, cache)
    seen = text.seen(vocabulary) if sampler.repetition_penalty != 1 else None
    luck = None if sampler.greedy else uniforms(sampler.seed, prompts, copies, max_tokens)
    luck = None if luck is None else luck.to(finest(text.device)).to(text.device)
    ended = [False] * len(prompts)
    ends = {end} if isinstance(end, int) else set(end or ())
    was_training = model.training
    model.eval()
    try:
        for number in range(max_tokens):
            logits = _next_logits(model, *text.window(), cache, step)
            chosen = sampler.choose(logits, None if luck is None else luck[:, number], seen)
            ids = chosen.tolist()  # the one wait for the device in each step
            _check_sound(ids, number)
            yield Step(
                [None if over else new for new, over in zip(ids, ended, strict=True)], text.length > text.context
            )
            ended = [over or new in ends for new, over in zip(ids, ended, strict=True)]
            if all(ended):
                return
            text.append(chosen)
            if seen is not None:
                seen.scatter_(1, chosen[:, None], True)
    finally:
        model.train(was_training)


def generate_by_hand(model: nn.Module, prompt: Sequence[int], *, max_tokens: int, sampler: Sampler) -> list[int]:
    """The new ids of one prompt, by the plain loop: crop to the context, read it all, choose, append, repeat.

    Slow on purpose: `generate` must give the same ids.

    >>> from groundup.model import BigramConfig, build
    >>> model = build(BigramConfig(vocabulary=9, context=4), seed=1)
    >>> len(generate_by_hand(model, [2], max_tokens=6, sampler=Sampler()))
    6
    """
    ids, context = list(prompt), config_of(model).context
    luck = uniforms(sampler.seed, [prompt], [0], max_tokens)
    for number in range(max_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([ids[-context:]]))  # (1, T) -> (1, T, V)
        seen = torch.zeros(1, logits.size(-1), dtype=torch.bool)
        seen[0, ids] = True
        ids.append(int(sampler.choose(logits[:, -1], luck[:, number], seen)))
    return ids[len(prompt) :]


class _Text:
    """Rows of ids that grow together: padded on the left, so that every row's newest id stands in the same column."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        self.context = config_of(model).context
        self.device = next(model.parameters()).device
        self.prompts = prompts
        longest = min(max(map(len, prompts)), self.context)
        self.length = longest  # columns filled so far
        tokens = torch.zeros(len(prompts), longest + max_tokens, dtype=torch.long)
        real = torch.ones(len(prompts), longest + max_tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            kept = list(prompt[-longest:])
            tokens[row, longest - len(kept) : longest] = torch.tensor(kept)
            real[row, : longest - len(kept)] = False
        self.tokens = tokens.to(self.device)
        self.real = (
            None if bool(real.all()) else real.to(self.device)
        )  # without filler the quick attention path is taken

    def window(self) -> tuple[Tensor, Tensor | None]:
        """The last `context` columns, (B, T), and which of them are text; None when all are."""
        span = slice(max(0, self.length - self.context), self.length)
        return self.tokens[:, span], None if self.real is None else self.real[:, span]

    def append(self, ids: Tensor) -> None:
        """Put one id (B,) behind each row."""
        self.tokens[:, self.length] = ids
        self.length += 1

    def seen(self, vocabulary: int) -> Tensor:
        """Which ids the whole prompts hold, cropped or not: (B, V) bool."""
        marks = torch.zeros(len(self.prompts), vocabulary, dtype=torch.bool)
        for row, prompt in enumerate(self.prompts):
            marks[row, list(prompt)] = True
        return marks.to(self.device)


def _cache(model: nn.Module, shape: torch.Size, *, start: int) -> Cache:
    batch, columns = shape
    length = min(max(start, columns - 1), config_of(model).context)  # the very last id is never read back
    if wants_compiled(model):
        length = config_of(model).context  # one shape, so one compilation, for all batches
    device = next(model.parameters()).device
    return Cache(config_of(model), batch=batch, length=length, dtype=cache_dtype(model), device=device)


def cache_dtype(model: nn.Module) -> torch.dtype:
    """The number format of keys and values: that of the weights, but fp32 on a CPU, whose bf16 attention of a single
    query takes 3 to 5 times as long.
    """
    weight = next(model.parameters())
    return torch.float32 if weight.device.type == "cpu" else weight.dtype


def wants_compiled(model: nn.Module) -> bool:
    """True when `ready` was asked for compiled steps."""
    return bool(getattr(model, "decode_compiled", False))


def _step(model: nn.Module, cache: Cache | None) -> CompiledStep | None:
    return CompiledStep(model, cache) if cache is not None and wants_compiled(model) else None


def _next_logits(
    model: nn.Module, window: Tensor, real: Tensor | None, cache: Cache | None, step: CompiledStep | None
) -> Tensor:
    """Logits (B, V) of the token behind the window (B, T).

    With a cache that holds all but the newest column, only that column is read. Otherwise (the first time, and always
    past the context) the columns before it are read first, without the output head, whose logits nobody would look at.
    """
    if cache is None:
        return model(window, padding=real)[:, -1]  # (B, T, V) -> (B, V)
    if cache.length + 1 != window.size(1):
        cache.length = 0
        model(window[:, :-1], padding=None if real is None else real[:, :-1], cache=cache, head=False)
    if step is not None:
        return step(window, real)
    return model(window[:, -1:], padding=real, cache=cache)[:, -1]  # (B, 1, V) -> (B, V)


def _check(prompts: Sequence[Sequence[int]], max_tokens: int, vocabulary: int) -> None:
    if max_tokens < 1:
        raise ModelError(f"max_tokens is {max_tokens}", "ask for at least one new token")
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ModelError(f"prompt {row} has no tokens", "start it with the id of <|endoftext|>, or with any other")
        low, high = min(prompt), max(prompt)
        if low < 0 or high >= vocabulary:
            raise ModelError(
                f"prompt {row} has token id {low if low < 0 else high}, outside the vocabulary of {vocabulary}",
                "use the tokenizer this model was trained with",
            )


def _check_sound(ids: list[int], number: int) -> None:
    if min(ids) < 0:
        raise ModelError(
            f"the model's scores for new token {number + 1} of row {ids.index(-1)} are NaN or infinite",
            "its weights are damaged or bf16 overflowed: try --dtype fp32, or an earlier checkpoint",
        )
