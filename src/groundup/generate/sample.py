"""From scores to a choice: greedy, temperature, top-k, top-p, repetition penalty, and our own draw.

In: logits (B, V) of the next token. Out: ids (B,). Pure functions, each usable alone; `Sampler` puts them in the order
in which transformers applies them: penalty, temperature, top-k, top-p, then one draw.

A draw turns one uniform number per row into a token through the cumulative distribution. The numbers come from a
counter-based generator on the CPU, so neither the device nor the version of `torch.multinomial` changes a text.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from groundup.errors import SettingsError

COLDEST = (
    1e-6  # below this, fp32 logits that differ at all are already certain to be told apart: greedy but for exact ties
)
NEVER = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to choose the next token; `temperature=0` is greedy. Raises SettingsError for values that mean nothing.

    >>> Sampler(temperature=0).choose(torch.tensor([[0.1, 2.0, 0.3]]))
    tensor([1])
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (self.temperature >= 0, "0 for greedy, or a positive number"),
            "top_k": (self.top_k >= 0, "0 to keep all tokens, or how many to keep"),
            "top_p": (0 < self.top_p <= 1, "a probability above 0, at most 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "a positive number; 1 is off"),
            "seed": (0 <= self.seed < 2**64, "a whole number from 0 to 2**64 - 1"),
        }
        for name, (holds, advice) in bounds.items():
            if not holds:
                raise SettingsError(f"{name} cannot be {getattr(self, name)!r}", f"give {advice}")

    @property
    def greedy(self) -> bool:
        """True when no draw is made."""
        return self.temperature == 0

    def scores(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Filtered fp32 logits (B, V), -inf where a token is out; `seen` (B, V) marks ids of the text so far."""
        logits = logits.float()
        if seen is not None and self.repetition_penalty != 1:
            logits = penalise(logits, seen, self.repetition_penalty)
        if self.greedy:
            return logits
        return top_p(top_k(temper(logits, self.temperature), self.top_k), self.top_p)

    def choose(self, logits: Tensor, uniform: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """Ids (B,) from logits (B, V); `uniform` (B,) in [0, 1) unless greedy. A row with NaN or inf gives -1.

        -1 instead of an error keeps the decision on the device; whoever moves the ids to the host looks for it.
        """
        scores = self.scores(logits, seen)
        sound = logits.float().amax(dim=-1).isfinite()  # NaN and +inf win the maximum; all -inf leaves -inf
        if self.greedy:
            return greedy(scores).where(sound, -1)
        if uniform is None:
            raise SettingsError(
                f"temperature {self.temperature} needs random numbers", "give `uniform`, or temperature 0"
            )
        return draw(scores.softmax(dim=-1), uniform).where(sound, -1)


def greedy(logits: Tensor) -> Tensor:
    """The most likely id of each row, (B, V) -> (B,)."""
    return logits.argmax(dim=-1)


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Logits less their row's maximum, which no softmax can see, divided by a temperature above 0 without overflow.

    >>> temper(torch.tensor([[2.0, 1.0]]), 0.5)
    tensor([[ 0., -2.]])
    """
    return (logits - logits.amax(dim=-1, keepdim=True)) / max(temperature, COLDEST)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k highest logits of each row and set the others to -inf; 0, or k of V and more, keeps all.

    Tokens level with the k-th highest stay too, so a few more than k may be left (as in transformers).

    >>> top_k(torch.tensor([[4.51, 0.89, 6.75, 6.28]]), 2)
    tensor([[  -inf,   -inf, 6.7500, 6.2800]])
    """
    if not 0 < k < logits.size(-1):
        return logits
    lowest = logits.topk(k, dim=-1).values[..., -1:]  # (B, 1)
    return logits.masked_fill(logits < lowest, NEVER)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of tokens whose probability reaches p, at least one (Holtzman et al. 2020, section 3.1).

    >>> top_p(torch.tensor([[0.5, 0.25, 0.25]]).log(), 0.75).exp()
    tensor([[0.5000, 0.2500, 0.0000]])
    """
    if p >= 1:
        return logits
    falling, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = falling.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability  # mass of all tokens ahead of this one: 0 for the first
    out = before >= p
    out[..., 0] = False  # a p below rounding must not empty the row
    return logits.masked_fill(torch.zeros_like(out).scatter(-1, order, out), NEVER)


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens of the text so far less likely: divide positive logits, multiply negative ones.

    Keskar et al. 2019 (CTRL), section 4.1, divide all; for a negative logit that is a reward, hence two cases.

    >>> penalise(torch.tensor([[2.0, -2.0, 2.0]]), torch.tensor([[True, True, False]]), 2.0)
    tensor([[ 1., -4.,  2.]])
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Pick an id per row by inverse transform sampling: probabilities (B, V), uniform (B,) in [0, 1) -> ids (B,).

    A row may have any positive sum. An id with probability 0 is never picked, whatever the rounding.

    >>> draw(torch.tensor([[0.2, 0.5, 0.3]] * 3), torch.tensor([0.1, 0.2, 0.9]))
    tensor([0, 1, 2])
    """
    cumulative = probabilities.to(finest(probabilities.device)).cumsum(dim=-1)
    total = cumulative[..., -1:].contiguous()  # (B, 1)
    point = uniform.to(cumulative.dtype).unsqueeze(-1) * total
    last = torch.searchsorted(cumulative, total)  # the last id that adds anything
    return torch.searchsorted(cumulative, point, right=True).minimum(last).squeeze(-1)


def finest(device: torch.device) -> torch.dtype:
    """The number format for sums of probabilities: float64, but float32 on MPS, which has nothing finer."""
    return torch.float32 if device.type == "mps" else torch.float64


def uniforms(seed: int, prompts: Sequence[Sequence[int]], copies: Sequence[int], count: int) -> Tensor:
    """Random numbers in [0, 1), (B, count) float64 on the CPU: row i belongs to (seed, prompts[i], copies[i]) alone.

    So a prompt's text is the same by itself and in any batch, copies of a prompt differ, and two prompts do not share
    their luck. Philox (Salmon et al. 2011) takes a key of 128 bits; torch's CPU generator looks at 32 bits of a seed.

    >>> bool((uniforms(1, [[5], [7]], [0, 0], 4)[1] == uniforms(1, [[7]], [0], 4)[0]).all())
    True
    """
    rows = [_stream(seed, prompt, copy).random(count) for prompt, copy in zip(prompts, copies, strict=True)]
    return torch.from_numpy(np.stack(rows))


def _stream(seed: int, prompt: Sequence[int], copy: int) -> np.random.Generator:
    name = f"{seed}/{copy}/" + " ".join(map(str, prompt))
    key = np.frombuffer(hashlib.blake2b(name.encode("ascii"), digest_size=16).digest(), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def number_copies(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Which occurrence of its prompt each row is.

    >>> number_copies([[1, 2], [3], [1, 2]])
    [0, 0, 1]
    """
    seen: Counter[tuple[int, ...]] = Counter()
    copies = []
    for prompt in map(tuple, prompts):
        copies.append(seen[prompt])
        seen[prompt] += 1
    return copies
