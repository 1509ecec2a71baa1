"""The log-probability of every token of an answer, with a gradient, without holding the logits of all of them.

In: a model and a batch with targets. Out: log p(target) at each place that counts. Preference and policy losses stand
on it: how much each place matters is known only when the whole answer was read, so the gradient cannot be made on the
way as the cross entropy does it (cross_entropy.py). What is kept between the passes is two numbers a place, and the
logits where they are few; else they are made again in the backward pass, slice by slice.

With z the logits, p = softmax(z / temperature) and H its entropy in nats (Williams 1992 for the first):
    d log p(target) / dz = (1[target] - p) / temperature
    d H / dz             = -p (log p + H) / temperature

Shapes: B batch, T time, N places that count, D width, V vocabulary.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.batches.batch import Batch
from groundup.errors import ModelError, SettingsError

LOGITS = 2**25  # in a slice of places; as many are kept for the backward pass, where it is all of them
BLOCK = 2**21  # numbers worked on at a time, so that they stay in the processor's cache


class LogProbabilities(NamedTuple):
    """What a model thinks of the targets of a batch; zeros where the weight is 0."""

    logp: Tensor  # (B, T) fp32: log p(target) in nats
    entropy: Tensor | None  # (B, T) fp32: of all that could have stood there, in nats
    states: Tensor  # (B, T, D): what the head read; of a model without a head its logits, (B, T, V)


def log_probabilities(
    model: nn.Module, batch: Batch, *, temperature: float = 1.0, entropy: bool = False
) -> LogProbabilities:
    """log p(target) in nats at every place whose weight is not 0, and 0 elsewhere; p = softmax(logits / temperature).

    Reads the fields targets (B, T) and, where present, weight (B, T); documents, positions, padding for the model. A
    weight only says whether a place counts: nothing is multiplied by it. With `entropy` that of every such place comes
    along. Both have a gradient; what is not used costs nothing backwards.

    Raises ModelError for states or logits that do not fit the targets, SettingsError for a temperature that is not
    above 0.

    >>> from groundup.batches import next_token
    >>> even = lambda tokens: torch.zeros(*tokens.shape, 8)  # a model without a clue: every id has p = 1/8
    >>> batch = next_token(torch.tensor([[1, 2, 3]]), weight=torch.tensor([[0.0, 1.0]]))
    >>> found = log_probabilities(even, batch, entropy=True)
    >>> found.logp, found.entropy  # -ln 8, ln 8
    (tensor([[ 0.0000, -2.0794]]), tensor([[0.0000, 2.0794]]))
    """
    if not 0 < temperature < math.inf:
        raise SettingsError(f"the temperature is {temperature}", "log-probabilities need one above 0, such as 1")
    context = {name: batch.fields[name] for name in ("documents", "positions", "padding") if name in batch.fields}
    targets, weight = batch.fields["targets"], batch.fields.get("weight")
    headed = hasattr(model, "head_weight")
    states: Tensor = model(batch.tokens, **context, head=False) if headed else model(batch.tokens, **context)
    _check(states, targets)
    flat, wanted, here = states.flatten(0, 1), targets.flatten(), None  # (B, T, D) -> (B T, D)
    if weight is not None:
        here = weight.flatten().nonzero().squeeze(1)  # of a long prompt no logits are made
        flat, wanted = flat[here], wanted[here]
    if headed:
        head = cast(Tensor, model.head_weight)
        logp, nats = log_softmax_at(flat, head, wanted, temperature=temperature, entropy=entropy)
    else:
        logp, nats = _plainly(flat, wanted, temperature=temperature, entropy=entropy)
    whole = None if nats is None else _laid_out(nats, here, targets.shape)
    return LogProbabilities(_laid_out(logp, here, targets.shape), whole, states)


def log_softmax_at(
    states: Tensor, head: Tensor, targets: Tensor, *, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log p(target) (N) and, if asked for, the entropy (N) of p, the softmax of states @ head.T / temperature; in fp32.

    states (N, D), head (V, D), targets (N) ids. Products run in the number format of autocast, logarithms and sums in
    fp32. A head that is frozen gets no gradient, and none is made.

    >>> states, head = torch.zeros(2, 3), torch.zeros(8, 3)
    >>> log_softmax_at(states, head, torch.tensor([1, 2]))[0]
    tensor([-2.0794, -2.0794])
    """
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.dtype
    states, head = states.to(dtype), head.to(dtype)
    learns = torch.is_grad_enabled() and (states.requires_grad or head.requires_grad)
    with torch.autocast(kind, enabled=False):
        logp, nats = _LogSoftmaxAt.apply(states, head, targets, temperature, (learns, entropy))
    return logp, nats if entropy else None


class _LogSoftmaxAt(torch.autograd.Function):
    """Log-probabilities and entropies; `asked` says whether there will be a backward pass, and whether of entropies."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, head: Tensor, targets: Tensor, temperature: float, asked: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        learns, entropy = asked
        parts = list(_slices(states, head))
        read = torch.zeros(3, len(targets), dtype=torch.float32, device=states.device)
        kept = None
        for part in parts:
            logits = states[part] @ head.T  # (n, D) @ (D, V) -> (n, V)
            _read(logits, targets[part], read[:, part], temperature=temperature, entropy=entropy)
            kept = logits if learns and len(parts) == 1 else None
        logp, nats, norm = read
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(states, head, targets, nats.clone(), norm, kept)
        return logp.clone(), nats.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logp: Tensor | None, d_nats: Tensor | None) -> tuple[Tensor | None, ...]:
        states, head, targets, nats, norm, kept = ctx.saved_tensors
        d_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        d_head: Tensor | None = None
        d_logp, entropy = torch.zeros_like(norm) if d_logp is None else d_logp, d_nats is not None
        known = torch.stack([d_logp, torch.zeros_like(norm) if d_nats is None else d_nats, nats, norm])  # (4, N)
        parts = list(_slices(states, head))
        for part in parts:
            logits = states[part] @ head.T if kept is None else kept  # (n, V)
            # those that were kept stay as they are: another backward pass may come
            d_logits = logits if kept is None else torch.empty_like(kept)
            _gradient(logits, targets[part], known[:, part], d_logits, temperature=ctx.temperature, entropy=entropy)
            if d_states is not None:
                torch.mm(d_logits, head, out=d_states[part])  # (n, V) @ (V, D) -> (n, D)
            if not ctx.needs_input_grad[1]:  # a frozen head
                continue
            product = d_logits.T @ states[part]  # (V, n) @ (n, D) -> (V, D)
            if d_head is None:
                d_head = product.float() if len(parts) > 1 else product
            else:
                d_head += product
        return d_states, None if d_head is None else d_head.to(head.dtype), None, None, None


def _slices(states: Tensor, head: Tensor) -> Iterator[slice]:
    """Places by as many as may have their logits at the same time."""
    fp16 = head.dtype == torch.float16  # whose largest number is 65,504: only so many are added up in it
    size = max(1, min(LOGITS // head.shape[0], 2048 if fp16 else len(states)))
    for start in range(0, len(states), size):
        yield slice(start, start + size)


def _blocks(logits: Tensor) -> Iterator[slice]:
    """The places of a slice by as many as the processor's cache holds."""
    rows = max(1, BLOCK // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


def _read(logits: Tensor, targets: Tensor, out: Tensor, *, temperature: float, entropy: bool) -> None:
    """Fill `out` (3, n) from logits (n, V), which stay: log p, entropy, and ln Z, with p = exp(logits) / Z."""
    for part in _blocks(logits):
        x = _warmed(logits[part], temperature)
        top = x.amax(dim=1, keepdim=True)  # (n, V) -> (n, 1)
        x = x - top
        chosen = x.gather(1, targets[part, None])
        p = x.exp() if entropy else x.exp_()
        total = p.sum(dim=1, keepdim=True)
        below = total.log()
        out[0, part], out[2, part] = (chosen - below)[:, 0], (top + below)[:, 0]
        if entropy:
            out[1, part] = (below - p.mul_(x).sum(dim=1, keepdim=True) / total)[:, 0]  # ln Z - mean of the logits


def _gradient(
    logits: Tensor, targets: Tensor, known: Tensor, out: Tensor, *, temperature: float, entropy: bool
) -> None:
    """Fill `out` (n, V), which may be the logits themselves; `known` (4, n): both gradients, entropy, ln Z."""
    for part in _blocks(logits):
        d_logp, d_nats, nats, norm = known[:, part, None]  # (4, n, 1)
        log_p = _warmed(logits[part], temperature) - norm
        p = log_p.exp() if entropy else log_p.exp_()
        factor = -d_logp
        if entropy:
            factor = factor - log_p.add_(nats).mul_(d_nats)  # (n, 1) - (n, V) -> (n, V)
        p.mul_(factor).scatter_add_(1, targets[part, None], d_logp)
        out[part] = p if temperature == 1 else p.div_(temperature)


def _warmed(logits: Tensor, temperature: float) -> Tensor:
    return logits.float() if temperature == 1 else logits.float() / temperature


def _plainly(logits: Tensor, targets: Tensor, *, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
    """The same from logits (N, V) that are there, such as those of a table."""
    log_p = (logits.float() / temperature).log_softmax(dim=-1)  # in fp32 also under autocast
    chosen = log_p.gather(1, targets[:, None])[:, 0]
    return chosen, -(log_p.exp() * log_p).sum(dim=-1) if entropy else None


def _laid_out(values: Tensor, here: Tensor | None, shape: torch.Size) -> Tensor:
    """Values (N) at the places `here` of a (B, T), zeros elsewhere."""
    if here is None:
        return values.view(shape)
    return values.new_zeros(shape.numel()).scatter(0, here, values).view(shape)


def _check(answer: Tensor, targets: Tensor) -> None:
    if answer.dim() != 3 or answer.shape[:2] != targets.shape:
        raise ModelError(
            f"the model answers {tuple(answer.shape)} to targets {tuple(targets.shape)}",
            "a model of tokens returns logits (B, T, V), or states (B, T, D), for targets (B, T)",
        )
