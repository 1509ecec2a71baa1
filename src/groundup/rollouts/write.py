"""Many answers to the same prompts: read each prompt once, then write all answers side by side.

In: a model, prompts as ids, one for each answer. Out: the new ids of each. The choices are those of `generate`
(generate/decode.py), made with the same random numbers; what differs is what is paid for. A prompt with eight answers
is read once instead of eight times, and an answer that has ended soon costs nothing more: most end long before the
longest. Nothing streams here, and no text may outgrow the context.

Shapes: B answers side by side, U different prompts among them, T tokens of the longest prompt, V vocabulary.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from groundup import model as models
from groundup.errors import ModelError
from groundup.generate.decode import cache_dtype
from groundup.generate.ready import ready
from groundup.generate.sample import Sampler, finest, number_copies, uniforms
from groundup.generate.stream import rows_at_once
from groundup.machine import Machine
from groundup.model import config_of, lora
from groundup.model.cache import Cache

CROWDED = 0.75  # answers go on in a smaller batch once no more than this share of it is still being written
SMALL = 4_000_000  # parameters of a model that gains nothing from a copy in bf16: calls cost more than products


@torch.inference_mode()
def write(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    sampler: Sampler,
    ends: Collection[int],
) -> list[list[int]]:
    """The ids of an answer to each prompt, up to and with the first of `ends`, or `most` of them.

    Prompts may repeat: each time is another answer. The random numbers of an answer belong to the sampler's seed, its
    prompt and the how-many-eth answer to it this is, whatever else is written beside it. The model is in evaluation
    mode meanwhile, and its logits are divided by the temperature and otherwise as they are. Keys and values of what is
    written side by side take 1 GiB at most, and as much again while answers are moved into a smaller batch.

    Raises ModelError for a prompt that has no ids or no room for its answer, and for logits that are NaN or infinite.

    >>> from groundup.model import ModelConfig, build
    >>> model = build(ModelConfig(family="gpt2", vocabulary=50, context=8, width=8, layers=1, heads=2), seed=1)
    >>> found = write(model, [[3, 4], [3, 4], [7]], most=3, sampler=Sampler(temperature=1.0), ends=())
    >>> [len(ids) for ids in found], found[0] == found[1]
    ([3, 3, 3], False)
    """
    _check(model, prompts, most)
    copies = number_copies(prompts)
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), tuple(prompts[row])))
    at_once = rows_at_once(model, max(map(len, prompts), default=0) + most)
    found: list[list[int]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(order), at_once):
            rows = order[first : first + at_once]
            asked = [prompts[row] for row in rows]
            luck = uniforms(sampler.seed, asked, [copies[row] for row in rows], most)
            for row, ids in zip(rows, _written(model, asked, luck, sampler, set(ends)), strict=True):
                found[row] = ids
    finally:
        model.train(was_training)
    return found


def _written(
    model: nn.Module, prompts: Sequence[Sequence[int]], luck: Tensor, sampler: Sampler, ends: set[int]
) -> list[list[int]]:
    """The answers to prompts of like length, luck (B, tokens): one column of tokens after the other."""
    most = luck.shape[1]
    found: list[list[int]] = [[] for _ in prompts]
    page = _Page(model, prompts, most)
    luck = luck.to(finest(page.device)).to(page.device)
    for number in range(most):
        chosen = sampler.choose(page.logits(), luck[page.rows, number])
        ids = chosen.tolist()  # the one wait for the device in each step
        _check_sound(ids, number)
        new = {row: id for row, id in zip(page.rows, ids, strict=True) if row in page.going}
        for row, id in new.items():
            found[row].append(id)
        page.turn(chosen, {row for row, id in new.items() if id not in ends})
        if not page.rows:
            break
    return found


class _Page:
    """Answers that are being written side by side, padded on the left; `rows` says which they are.

    An answer that has ended goes on being written, to no end, until so many have that the rest is worth moving: a new
    batch means that the keys and values of those that stay are copied.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], most: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.rows = list(range(len(prompts)))
        self.going = set(self.rows)
        different = list(dict.fromkeys(map(tuple, prompts)))
        place = {ids: number for number, ids in enumerate(different)}
        which = torch.tensor([place[tuple(ids)] for ids in prompts], device=self.device)  # (B,) numbers below U
        tokens, real = _padded(different, self.device)
        self.cache = _spread(_read(model, tokens, real), which, most=most, model=model)
        self.newest = tokens[which, -1:]  # (B, 1): what the next logits follow
        filler = torch.ones(len(prompts), most, dtype=torch.bool, device=self.device)
        self.real = None if bool(real.all()) else torch.cat((real[which], filler), dim=1)  # (B, T + most)

    def logits(self) -> Tensor:
        """Logits (B, V) of the token behind the newest."""
        columns = self.cache.length + 1
        real = None if self.real is None else self.real[:, :columns]
        answer: Tensor = self.model(self.newest, padding=real, cache=self.cache)
        return answer[:, -1]  # (B, 1, V) -> (B, V)

    def turn(self, chosen: Tensor, going: set[int]) -> None:
        """Put the ids (B,) behind the answers; `going`: the rows that they did not end."""
        self.newest, self.going = chosen[:, None], going
        if len(going) > CROWDED * len(self.rows):
            return
        kept = [place for place, row in enumerate(self.rows) if row in going]
        self.rows = [self.rows[place] for place in kept]
        index = torch.tensor(kept, dtype=torch.int64, device=self.device)
        self.newest = self.newest[index]
        self.real = None if self.real is None else self.real[index]
        self.cache.keys, self.cache.values = self.cache.keys[:, index], self.cache.values[:, index]


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids (U, T), filled up on the left, and which of them are text (U, T)."""
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    real = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, ids in enumerate(prompts):
        tokens[row, longest - len(ids) :] = torch.tensor(ids)
        real[row, longest - len(ids) :] = True
    return tokens.to(device), real.to(device)


def _read(model: nn.Module, tokens: Tensor, real: Tensor) -> Cache:
    """Keys and values of all but the last column of prompts (U, T)."""
    count, longest = tokens.shape
    cache = _room(model, batch=count, length=longest - 1)
    if longest > 1:
        padding = None if bool(real.all()) else real[:, :-1]
        model(tokens[:, :-1], padding=padding, cache=cache, head=False)
    return cache


def _spread(read: Cache, which: Tensor, *, most: int, model: nn.Module) -> Cache:
    """What was read of U prompts, for B answers: of answer i that of prompt which[i] (B,), and room for the answer."""
    cache = _room(model, batch=len(which), length=read.length + most)
    for layer in range(len(read.keys)):  # one by one: all at once would be another copy of everything
        cache.keys[layer, :, :, : read.length] = read.keys[layer][which]
        cache.values[layer, :, :, : read.length] = read.values[layer][which]
    cache.length = read.length
    return cache


def _room(model: nn.Module, *, batch: int, length: int) -> Cache:
    device = next(model.parameters()).device
    return Cache(config_of(model), batch=batch, length=length, dtype=cache_dtype(model), device=device)


def writer(policy: nn.Module, machine: Machine, *, rows: int) -> nn.Module:
    """The network that answers for `policy`: itself, or a copy of it that writes `rows` answers more quickly.

    Values of a policy play no part. A copy has the adapters in its matrices, and the number format of the products: it
    chooses from a distribution that differs from the policy's by the rounding of bf16. What is learnt is not taken
    from there: the log-probabilities of the answers are read anew, in the numerics of training (collect.py). In fp32,
    and for small models, the policy itself answers, and the two agree to 1e-5.
    """
    plain: nn.Module = getattr(policy, "policy", policy)
    large = sum(parameter.numel() for parameter in plain.parameters()) > SMALL
    adapted = lora.config_of(plain) is not None
    dtype = machine.dtype if large else torch.float32
    if not adapted and dtype == torch.float32:
        return plain
    twin = _copied(plain, dtype)
    ready(twin, rows=rows)
    return twin


def _copied(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same network in `dtype` and without adapters: one matrix is held twice at a time."""
    with torch.device("meta"):
        twin = models.build(config_of(model))
    state: dict[str, Tensor] = {}
    adapted = lora.adapted(model)
    for name, module in model.named_modules():
        if any(name == layer or name.startswith(f"{layer}.") for layer in adapted):
            continue
        for own, value in module.named_parameters(prefix=name, recurse=False):
            state[own] = value.detach().to(dtype)
    for name, layer in adapted.items():
        state[f"{name}.weight"] = layer.weight.detach().to(dtype)
        if layer.bias is not None:
            state[f"{name}.bias"] = layer.bias.detach().to(dtype)
    twin.load_state_dict(state, assign=True)
    return twin.eval().requires_grad_(False)


def _check(model: nn.Module, prompts: Sequence[Sequence[int]], most: int) -> None:
    config = config_of(model)
    for row, ids in enumerate(prompts):
        if not ids or len(ids) + most > config.context:
            raise ModelError(
                f"prompt {row} has {len(ids):,} tokens; with an answer of {most:,} the context is {config.context:,}",
                "leave out what has no ids, and what is longer than the context less the answer",
            )


def _check_sound(ids: list[int], number: int) -> None:
    if min(ids) < 0:
        raise ModelError(
            f"the policy's scores for token {number + 1} of an answer are NaN or infinite",
            "the last steps broke it: a smaller --lr, more --kl, or --dtype fp32 keep it whole",
        )
