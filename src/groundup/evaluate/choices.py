"""Which continuation does a model find most likely? Log-likelihoods of texts behind texts, and multiple choice by them.

In: a model, its tokenizer, `MultipleChoice`s. Out: what was chosen, item by item, and `ChoiceMarks`, the shares of
right choices under the names that lm-eval gives them.

Where a context ends and its continuation begins is a question of text, and tokens need not end there. Both are encoded
together, as the model has learnt to read them, and the continuation is every token behind the context's own. White
space at the end of the context belongs to the continuation, since tokens begin with a space and none ends with one.
Encoding both apart would ask the model for tokens that it has hardly ever seen side by side.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batches.batch import pad
from groundup.errors import DataError, ModelError
from groundup.generate.decode import cache_dtype
from groundup.generate.stream import start_ids
from groundup.machine import Machine
from groundup.model import config_of
from groundup.model.cache import Cache
from groundup.text.choices import MultipleChoice
from groundup.tokens.tokenizer import Tokenizer

DELIMITER = " "  # between a context and a choice; lm-eval's target_delimiter
LOGITS = 2**24  # held at a time, in fp32: 64 MiB


@dataclass(frozen=True)
class Pair:
    """The ids of a context, never none, and those of what is scored behind it.

    `straddles`: a token reached over the boundary and counts to the continuation, since it holds letters of it.
    """

    context: list[int]
    continuation: list[int]
    straddles: bool = False
    where: str = "a continuation"


@dataclass(frozen=True)
class Likelihood:
    """log p of a continuation in nats, whether greedy writing would have written it, and what was cut.

    `cut`: ids that were left out at the beginning of the context, as it did not fit.
    """

    log_p: float
    greedy: bool
    tokens: int
    cut: int = 0


@dataclass(frozen=True)
class Chosen:
    """One item: log p of each choice in nats, and which is the largest: as it is, by character, by UTF-8 byte."""

    where: str
    right: int
    log_p: tuple[float, ...]
    choice: int
    by_character: int
    by_byte: int
    cut: int = 0
    straddles: int = 0


@dataclass(frozen=True)
class ChoiceMarks:
    """Shares of right choices, each with its standard error; `chance` is what guessing gets.

    The names are lm-eval's: `acc` takes the likeliest choice, `acc_norm` the likeliest by character (for every task,
    not by byte as is often said), `acc_bytes` by byte of UTF-8. What divides a choice from its context is not counted
    in its length. Errors are those of a share of so many items, sqrt(p (1 - p) / (n - 1)); NaN for one item. `cut`:
    items whose context lost its beginning; `straddled`: items with a token across the boundary.
    """

    items: int
    acc: float
    acc_error: float
    acc_norm: float
    acc_norm_error: float
    acc_bytes: float
    acc_bytes_error: float
    chance: float
    cut: int
    straddled: int

    def record(self) -> dict[str, float]:
        """The shares by name."""
        return {"acc": self.acc, "acc_norm": self.acc_norm, "acc_bytes": self.acc_bytes, "chance": self.chance}

    def words(self) -> str:
        """The shares in a line."""
        return f"acc {self.acc:.3f}  acc_norm {self.acc_norm:.3f}  chance {self.chance:.3f}"


def pair(
    tokenizer: Tokenizer, context: str, continuation: str, *, special: bool = False, where: str = "a continuation"
) -> Pair:
    """Ids of both, encoded together and divided where the context's own ids end.

    A context of nothing but white space is the beginning of a text: the id that begins one stands for it. `special`:
    special tokens written in the texts become ids. Raises DataError for an empty continuation, TokenizerError for text
    that the tokenizer cannot express.

    >>> from groundup import tokens
    >>> found = pair(tokens.train("chars", ["cat hat"]), "a ", "hat")
    >>> found.context, found.continuation  # the space went to the continuation
    ([1], [0, 3, 1, 4])
    """
    if not continuation:
        raise DataError(f"{where} is empty", "an empty text has no likelihood: repair or remove it")
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if not kept:
        start = tokenizer.start or start_ids(tokenizer)
        return Pair(start, tokenizer.encode(continuation, special=special), where=where)
    alone = text_ids(tokenizer, kept, special=special)
    whole = text_ids(tokenizer, kept + continuation, special=special)
    both = zip(alone, whole, strict=False)
    shared = next((n for n, (one, other) in enumerate(both) if one != other), min(len(alone), len(whole)))
    if not shared:  # the very first token reaches over the boundary: something must stand before it
        return Pair(start_ids(tokenizer), whole, True, where)
    return Pair(whole[:shared], whole[shared:], shared < len(alone), where)


def text_ids(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[int]:
    """The ids of a text with those before it that begin one, but where the text itself writes them (`special`)."""
    ids = tokenizer.encode(text, special=special)
    start = tokenizer.start
    return ids if special and start and ids[: len(start)] == start else [*start, *ids]


def log_likelihoods(
    model: nn.Module,
    pairs: Sequence[Pair],
    *,
    batch: int = 16,
    machine: Machine | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> list[Likelihood]:
    """log p of each continuation behind its context, in the order given; `watch` hears how many are done.

    Pairs behind the same context are computed together, and what they have in common is read once; the others go with
    those of like length. Rows are filled up on the right, where nothing looks, so neither order nor company changes a
    figure but in the last digits. What is longer than the model's context loses its beginning. The model predicts in
    evaluation mode and is put back.

    Raises DataError for a continuation that is longer than the context by itself, ModelError for scores that are NaN.

    >>> from groundup.model import BigramConfig, build
    >>> model = build(BigramConfig(vocabulary=8, context=4))
    >>> _ = model.table.weight.data.zero_()  # a model without a clue: every one of 8 ids has p = 1/8
    >>> found = log_likelihoods(model, [Pair([1], [2, 3]), Pair([1, 2, 3, 4], [5])])
    >>> [(round(one.log_p / math.log(8), 6), one.tokens, one.cut) for one in found]
    [(-2.0, 2, 0), (-1.0, 1, 0)]
    """
    room = config_of(model).context
    for one in pairs:
        _check(one, room)
    found: dict[int, Likelihood] = {}
    was_training = model.training
    model.eval()
    try:
        for rows in _batches(pairs, batch):
            scored = _scored(model, [pairs[row] for row in rows], machine)
            found |= zip(rows, scored, strict=True)
            watch(len(found))
    finally:
        model.train(was_training)
    return [found[row] for row in range(len(pairs))]


def _batches(pairs: Sequence[Pair], most: int) -> Iterator[list[int]]:
    """The numbers of all pairs, at most so many at a time: those behind one context, then the others by length.

    >>> one, other, third = Pair([1, 2], [3]), Pair([4], [5]), Pair([1, 2], [6])
    >>> list(_batches([one, other, third, Pair([7, 8, 9], [1])], 8))
    [[0, 2], [3, 1]]
    """
    behind: dict[tuple[int, ...], list[int]] = {}
    for row, one in enumerate(pairs):
        behind.setdefault(tuple(one.context), []).append(row)
    alone = [rows[0] for rows in behind.values() if len(rows) == 1]
    alone.sort(key=lambda row: -len(pairs[row].context) - len(pairs[row].continuation))
    for rows in (*(rows for rows in behind.values() if len(rows) > 1), alone):
        yield from (rows[first : first + most] for first in range(0, len(rows), most))


@torch.inference_mode()
def _scored(model: nn.Module, pairs: Sequence[Pair], machine: Machine | None) -> list[Likelihood]:
    """One batch. N: the tokens of all continuations together."""
    room = config_of(model).context
    device = machine.device if machine else next(model.parameters()).device
    whole = [[*one.context, *one.continuation][-(room + 1) :] for one in pairs]  # the last id is only a target
    sizes = torch.tensor([len(one.continuation) for one in pairs])
    before = [len(ids) - 1 - len(one.continuation) for ids, one in zip(whole, pairs, strict=True)]
    known = _in_common(whole, most=min(before))
    tokens, _ = pad([ids[known:-1] for ids in whole], 0)  # (B, T)
    row = torch.arange(len(pairs)).repeat_interleave(sizes)  # (N,): whose token it is
    ends = [len(ids) - 1 - known for ids in whole]
    place = torch.cat([torch.arange(end - size, end) for end, size in zip(ends, sizes.tolist(), strict=True)])
    target = torch.tensor([id for one in pairs for id in one.continuation])
    log_p, hit = [], []
    with machine.autocast() if machine else torch.autocast(device.type, enabled=False):
        cache = _read(model, whole[0][:known], tokens) if known else None
        states = model(tokens.to(device), cache=cache, head=False)[row.to(device), place.to(device)]  # -> (N, D)
        for logits, wanted in _slices(model, states, target.to(device)):
            log_p.append(-F.cross_entropy(logits, wanted, reduction="none").cpu())
            hit.append((logits.argmax(-1) == wanted).cpu())
    sums = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, row, torch.cat(log_p).double())  # (B,)
    misses = torch.zeros(len(pairs)).index_add_(0, row, (~torch.cat(hit)).float())
    if not bool(sums.isfinite().all()):
        raise ModelError(
            "the model's scores are NaN or infinite",
            "its weights are damaged or the number format overflowed: try --dtype fp32, or an earlier checkpoint",
        )
    lost = [len(one.context) + len(one.continuation) - len(ids) for one, ids in zip(pairs, whole, strict=True)]
    columns = zip(sums.tolist(), misses.tolist(), sizes.tolist(), lost, strict=True)
    return [Likelihood(total, miss == 0, size, cut) for total, miss, size, cut in columns]


def _in_common(rows: Sequence[list[int]], *, most: int) -> int:
    """How many ids all rows begin with, at most `most`; of a single row none need be known before.

    >>> rows = [[1, 2, 3], [1, 2, 4]]
    >>> _in_common(rows, most=9), _in_common(rows, most=1), _in_common(rows[:1], most=9)
    (2, 1, 0)
    """
    if len(rows) == 1:
        return 0
    columns = zip(*(row[:most] for row in rows), strict=False)
    return next((n for n, column in enumerate(columns) if len(set(column)) > 1), min(most, *map(len, rows)))


def _read(model: nn.Module, ids: list[int], tokens: Tensor) -> Cache:
    """What the model keeps of ids that stand before every row of `tokens` (B, T): read once, for all of them."""
    config, device = config_of(model), next(model.parameters()).device
    once = Cache(config, batch=1, length=len(ids), dtype=cache_dtype(model), device=device)
    model(torch.tensor([ids], device=device), cache=once, head=False)
    rows, time = tokens.shape
    cache = Cache(config, batch=rows, length=len(ids) + time, dtype=cache_dtype(model), device=device)
    cache.keys[..., : len(ids), :] = once.keys  # (layers, 1, G, S, K) to every row
    cache.values[..., : len(ids), :] = once.values
    cache.length = len(ids)
    return cache


def _slices(model: nn.Module, states: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (n, V) in fp32 and their targets (n,), so few at a time that a large vocabulary fits.

    Only the states of scored tokens (N, D) ever meet the head. A bigram has none: its states are the logits.
    """
    head = getattr(model, "head_weight", None)
    size = max(1, LOGITS // (states.shape[1] if head is None else head.shape[0]))
    for part, wanted in zip(states.split(size), target.split(size), strict=True):
        yield (part if head is None else F.linear(part, head)).float(), wanted


def _check(one: Pair, room: int) -> None:
    if not one.context or not one.continuation:
        raise DataError(f"{one.where} has no token, or none before it", "give at least one token of each")
    if len(one.continuation) > room:
        raise DataError(
            f"{one.where} has {len(one.continuation):,} tokens, more than the model's context of {room:,}",
            "leave it out, or use a model with a longer context",
        )


def choose(
    model: nn.Module,
    tokenizer: Tokenizer,
    items: Sequence[MultipleChoice],
    *,
    batch: int = 16,
    machine: Machine | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> list[Chosen]:
    """Let a model choose: every choice is scored behind the context and a space. `watch` hears how many were scored.

    Of equally likely choices the first is taken. Raises what `pair` and `log_likelihoods` raise, naming the item.
    """
    pairs = [
        pair(tokenizer, item.context, DELIMITER + choice, where=f"choice {number} in {item.where}")
        for item in items
        for number, choice in enumerate(item.choices)
    ]
    scores = log_likelihoods(model, pairs, batch=batch, machine=machine, watch=watch)
    found, place = [], 0
    for item in items:
        part = slice(place, place + len(item.choices))
        found.append(_chosen(item, pairs[part], scores[part]))
        place = part.stop
    return found


def _chosen(item: MultipleChoice, pairs: Sequence[Pair], scores: Sequence[Likelihood]) -> Chosen:
    log_p = [score.log_p for score in scores]
    characters = [total / len(choice) for total, choice in zip(log_p, item.choices, strict=True)]
    octets = [total / len(choice.encode("utf-8")) for total, choice in zip(log_p, item.choices, strict=True)]
    return Chosen(
        where=item.where,
        right=item.right,
        log_p=tuple(log_p),
        choice=_largest(log_p),
        by_character=_largest(characters),
        by_byte=_largest(octets),
        cut=sum(score.cut > 0 for score in scores),
        straddles=sum(one.straddles for one in pairs),
    )


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: values[place])  # the first of equals, as numpy's argmax


def marks(chosen: Sequence[Chosen]) -> ChoiceMarks:
    """The shares over all items; raises DataError where there are none.

    >>> one = Chosen("a", right=1, log_p=(-3.0, -4.0), choice=0, by_character=1, by_byte=1)
    >>> other = Chosen("b", right=0, log_p=(-1.0, -9.0), choice=0, by_character=0, by_byte=1)
    >>> found = marks([one, other])
    >>> found.acc, found.acc_norm, found.acc_bytes, found.chance, found.acc_error
    (0.5, 1.0, 0.5, 0.5, 0.5)
    """
    if not chosen:
        raise DataError("there is nothing to mark: 0 items", "give at least one question")
    count = len(chosen)
    acc = sum(one.choice == one.right for one in chosen) / count
    norm = sum(one.by_character == one.right for one in chosen) / count
    octets = sum(one.by_byte == one.right for one in chosen) / count
    return ChoiceMarks(
        items=count,
        acc=acc,
        acc_error=share_error(acc, count),
        acc_norm=norm,
        acc_norm_error=share_error(norm, count),
        acc_bytes=octets,
        acc_bytes_error=share_error(octets, count),
        chance=sum(1 / len(one.log_p) for one in chosen) / count,
        cut=sum(one.cut > 0 for one in chosen),
        straddled=sum(one.straddles > 0 for one in chosen),
    )


def share_error(share: float, count: int) -> float:
    """The standard error of a share of `count` yes-or-no items, sqrt(p (1 - p) / (n - 1)); NaN for one item.

    >>> share_error(0.5, 101), share_error(1.0, 1)
    (0.05, nan)
    """
    return math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else math.nan


def rolling(tokenizer: Tokenizer, text: str, context: int, *, special: bool = False) -> list[Pair]:
    """A text as pairs that together predict every one of its tokens once, the first behind what begins a text.

    Each holds as many as fit; the last keeps the whole context before the rest. That is lm-eval's way to measure
    perplexity. The logarithms of a text's pairs are added up.

    >>> from groundup import tokens
    >>> letters = tokens.train("chars", ["abcde"])
    >>> [(one.context, one.continuation) for one in rolling(letters, "abcde", 2)]
    [([5], [0, 1]), ([1], [2, 3]), ([2, 3], [4])]
    """
    start, ids = tokenizer.start or start_ids(tokenizer), text_ids(tokenizer, text, special=special)
    ids = ids[len(tokenizer.start) :] if tokenizer.start and ids[: len(tokenizer.start)] == tokenizer.start else ids
    found = []
    for first in range(0, len(ids), context):
        end = min(first + context, len(ids))
        before = ids[max(0, end - context - 1) : first] if first else start
        found.append(Pair(before, ids[first:end], where="a text"))
    return found
