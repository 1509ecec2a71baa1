"""A classifier: ids (B, T) go in, one logit for each class (B, C) comes out.

In: a language model, whose blocks read the text, and the names of the classes. Out: `Classifier`: the same network with
a small matrix, `score`, in the place of its head. What would predict the next token, V numbers for every place, is
never computed. A reward model is one with a single output: a score (B, 1), the higher the better.

Shapes: B batch, T time, D width, C classes.
"""

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from groundup.errors import ModelError, nearest
from groundup.model.config import INITS, ModelConfig
from groundup.model.gpt import GPT

Pooling = Literal["last", "first", "mean"]
POOLINGS = ("last", "first", "mean")
Kind = Literal["classes", "reward"]
KINDS = ("classes", "reward")
REWARD: Final = "reward"  # the name of the one output of a reward model


@dataclass(frozen=True)
class HeadConfig:
    """Which classes there are, by name, and which state of the trunk is judged.

    pooling: "last" is the last real token, the only one that has read the whole text, and the one that `transformers`
        reads; "first" is for trunks whose first token has (here it has read nothing but itself: for comparison); "mean"
        is the mean over the real tokens.
    bias: whether the score has one. `transformers` has none and ignores it (checkpoint/classifier.py).
    kind: "classes", of which a text has one; or "reward", one output of the name "reward": a score without bounds.
    mean, spread: of a reward, the mean and standard deviation of its scores on the answers that it was taught with;
        0 and 1 where nobody measured them. Only differences of scores are learnt, so where they lie and how far apart
        is chance: `normalised` takes both off.

    Raises ModelError for fewer than two classes, names that repeat or are empty, an unknown pooling or kind, a reward
    of another name, a mean or spread that is no finite number, and a spread that is not above 0.

    >>> HeadConfig(("ham", "spam")).pooling
    'last'
    >>> HeadConfig(("reward",), kind="reward").spread
    1.0
    """

    labels: tuple[str, ...]
    pooling: Pooling = "last"
    bias: bool = False
    kind: Kind = "classes"
    mean: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        _known("pooling", self.pooling, POOLINGS)
        _known("kind", self.kind, KINDS)
        if self.kind == REWARD:
            self._check_reward()
        else:
            self._check_classes()

    def _check_reward(self) -> None:
        if self.labels != (REWARD,):
            raise ModelError(
                f"the outputs of a reward model are {list(self.labels)}", f"it has one, and its name is {REWARD!r}"
            )
        if not _finite(self.mean) or not _finite(self.spread) or not self.spread > 0:
            raise ModelError(
                f"the scores of the reward model have mean {self.mean!r} and spread {self.spread!r}",
                "give two numbers, the spread above 0; 0 and 1 change nothing",
            )

    def _check_classes(self) -> None:
        if (self.mean, self.spread) != (0.0, 1.0):
            raise ModelError(
                f"classes were given mean {self.mean!r} and spread {self.spread!r}", "only scores of a reward have them"
            )
        if len(self.labels) < 2:
            raise ModelError(f"the classes are {list(self.labels)}", "a classifier needs two or more to choose from")
        seen: set[str] = set()
        for label in self.labels:
            plain = isinstance(label, str) and label.isprintable() and label != ""
            if not plain or label in seen:
                raise ModelError(
                    f"{label!r} stands {'twice' if plain else 'as a name'} among the {len(self.labels)} classes",
                    "give each class a name of its own, of characters that can be printed",
                )
            seen.add(label)


class Classifier(nn.Module):
    """A trunk that reads and a `score` (C, D) that judges; logits are fp32 whatever the trunk computes in.

    The trunk is taken over, not copied: a head of its own for the next token is dropped, so that it is neither trained
    nor kept (its config is that of a tied network from then on). A tied head is the token table, and stays.

    The score is drawn as `transformers` draws its own: normal with deviation 0.02, bias 0; with init="torch" as
    nn.Linear draws, which is what the book trains (Raschka 2024, section 6.5). `seed` None: from torch's global
    generator. `init` None: as the trunk's config says.

    Raises ModelError for a trunk that is no network of blocks.

    >>> from groundup.model.config import from_name
    >>> model = Classifier(GPT(from_name("1m", vocabulary=100), seed=0), HeadConfig(("ham", "spam")), seed=0)
    >>> model(torch.tensor([[5, 17, 99], [7, 8, 0]]), lengths=torch.tensor([3, 2])).shape
    torch.Size([2, 2])
    """

    trunk: GPT
    score: nn.Linear

    def __init__(self, trunk: nn.Module, head: HeadConfig, *, seed: int | None, init: str | None = None) -> None:
        super().__init__()
        if not isinstance(trunk, GPT):
            raise ModelError(
                f"a {type(trunk).__name__} has no state to judge a text by", "take a gpt2, llama or qwen3 model"
            )
        _known("init", init or trunk.config.init, INITS)
        if trunk.head is not None:
            trunk.head = None
            trunk.config = dataclasses.replace(trunk.config, tie=True)
        self.trunk, self.head_config = trunk, head
        table = trunk.token_table.weight
        # fp32 whatever the trunk is stored in: it has a few thousand numbers, and is what learns most.
        self.score = nn.utils.skip_init(nn.Linear, table.shape[1], len(head.labels), bias=head.bias,
                                        device=table.device, dtype=torch.float32)  # fmt: skip
        _draw(self.score, init or trunk.config.init, seed)
        self.train(trunk.training)

    def forward(self, tokens: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, C) in fp32 of texts (B, T).

        lengths (B,): real tokens of each row, the filler behind them on the right; without it every token is real.
        Nothing real looks to the right, so filler changes no logit and needs no mask.

        Raises ModelError for lengths of another shape or outside 1 .. T.
        """
        if lengths is not None:
            _check(lengths, tokens)
        states = self.trunk(tokens, head=False)  # (B, T) -> (B, T, D)
        with torch.autocast(tokens.device.type, enabled=False):
            kind = next(self.score.parameters()).dtype
            logits: Tensor = self.score(pooled(states, lengths, self.head_config.pooling).to(kind))
        return logits.float()

    @property
    def config(self) -> ModelConfig:
        """The settings of the trunk."""
        return self.trunk.config

    @property
    def recompute(self) -> bool:
        """Whether each block is run again for the backward pass instead of kept (gpt.py)."""
        return self.trunk.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.trunk.recompute = value


def normalised(scores: Tensor, head: HeadConfig) -> Tensor:
    """Scores of a reward model in units that any other's have too: on what it was taught with, mean 0 and deviation 1.

    Scores of two reward models can so be added, and the weight of a reward beside a penalty keeps its meaning. Order
    and the probability that one answer beats another belong to the raw scores.

    >>> normalised(torch.tensor([3.0, 7.0]), HeadConfig(("reward",), kind="reward", mean=3.0, spread=2.0)).tolist()
    [0.0, 2.0]
    """
    return (scores - head.mean) / head.spread


def pooled(states: Tensor, lengths: Tensor | None, pooling: str) -> Tensor:
    """The one state (B, D) of each text that is judged, of states (B, T, D); a mean is taken in fp32.

    >>> states = torch.tensor([[[1.0], [5.0], [100.0]]])  # the third is filler
    >>> [pooled(states, torch.tensor([2]), how).item() for how in POOLINGS]
    [5.0, 1.0, 3.0]
    """
    batch, time, _ = states.shape
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        if lengths is None:
            return states[:, -1]
        return states[torch.arange(batch, device=states.device), lengths - 1]  # (B, T, D) -> (B, D)
    if lengths is None:
        return states.float().mean(dim=1)
    real = torch.arange(time, device=states.device) < lengths[:, None]  # (T,) < (B, 1) -> (B, T)
    sums = torch.bmm(real[:, None].float(), states.float())  # (B, 1, T) @ (B, T, D) -> (B, 1, D)
    return sums[:, 0] / lengths[:, None]


@torch.no_grad()
def _draw(score: nn.Linear, init: str, seed: int | None) -> None:
    """The first numbers of the score; by torch: uniform within 1 / sqrt(D), the bias after the weights."""
    if score.weight.is_meta:
        return
    generator = None if seed is None else torch.Generator(score.weight.device).manual_seed(seed)
    limit = 1 / math.sqrt(score.in_features)
    if init == "torch":
        nn.init.kaiming_uniform_(score.weight, a=math.sqrt(5), generator=generator)  # torch's way to say it
    else:
        score.weight.normal_(0.0, 0.02, generator=generator)
    if score.bias is not None and init == "torch":
        score.bias.uniform_(-limit, limit, generator=generator)
    elif score.bias is not None:
        score.bias.zero_()


def _check(lengths: Tensor, tokens: Tensor) -> None:
    """Raise ModelError unless lengths (B,) fit tokens (B, T); values are looked at on the CPU only (check.py)."""
    if tokens.dim() != 2 or tuple(lengths.shape) != (tokens.shape[0],) or lengths.is_floating_point():
        raise ModelError(
            f"lengths are {lengths.dtype} of shape {tuple(lengths.shape)}, tokens have shape {tuple(tokens.shape)}",
            "give one whole number for each row: how many of its tokens are real",
        )
    if lengths.device.type != "cpu" or torch.compiler.is_compiling():
        return
    low, high = int(lengths.min()), int(lengths.max())
    if low < 1 or high > tokens.shape[1]:
        raise ModelError(
            f"a length is {low if low < 1 else high}, the rows have {tokens.shape[1]} places",
            "a row has at least one real token and at most all: leave out empty texts",
        )


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e30  # also False of NaN, and of more digits than a float has


def _known(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ModelError(f"unknown {name} {value!r}", nearest(str(value), choices))
