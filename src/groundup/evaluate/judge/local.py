"""A model of ours as a judge: the probabilities of what it could reply, read off instead of written out.

In: a model folder, prompts. Out: `Reply`s whose value is the mean worth of the choices under their probabilities.
"""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.evaluate.choices import Pair, log_likelihoods
from groundup.evaluate.judge.asking import Scale, opening
from groundup.evaluate.judge.server import Failed, Reply, TooLong
from groundup.generate.chat import template_of
from groundup.generate.stream import start_ids
from groundup.model import config_of
from groundup.tokens.rows import prompt_ids
from groundup.tokens.tokenizer import Tokenizer


class Local:
    """A model folder as a judge. It writes nothing: the probabilities of what it could reply are read off.

    The prompt is followed by the beginning of the JSON reply, and a score is the mean of the choices' worth under the
    probabilities of their tokens at that place, made to sum to one. It says the same each time, and costs one pass.
    """

    ours = True
    left_out: frozenset[str] = frozenset()
    advice = "look at its weights: groundup info tells what the folder holds, or take another model"

    def __init__(self, place: str | Path, *, threads: int | None = None) -> None:
        machine = machines.choose(threads=threads)
        fp32 = torch.float32 if machine.device.type == "cpu" else None  # bf16 takes longer on most CPUs
        loaded = folder.load(place, dtype=fp32, device=machine.device)
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._template = template_of(loaded.tokenizer)
        self._device = machine.device
        self.name = str(place)
        weights, words = fingerprint(loaded.model), loaded.tokenizer.fingerprint
        self.identity = f"ours {weights} {words} {loaded.tokenizer.chat_template}"

    def prepare(self, longest: int) -> None:
        """Nothing to do: what is longer than the context fails by itself."""

    def ask(self, text: str, scale: Scale, seed: int) -> Reply:
        """The mean worth of the choices, and the likeliest one as text; `seed` has nothing to decide."""
        start = opening(scale)
        shared, rests = continuations(self._tokenizer, start, scale.choices)
        ids = [*self._prompt(text), *shared]
        context, longest = config_of(self._model).context, len(ids) + max(map(len, rests)) - 1
        if longest > context:
            raise TooLong(f"the question has {longest:,} tokens, and the judge reads {context:,}")
        log_p = self._log_p(ids, rests)
        if not bool(log_p.isfinite().all()):
            raise Failed("the judge's scores are NaN or infinite")
        share = log_p.double().softmax(0).tolist()
        value = sum(part * worth for part, worth in zip(share, scale.values, strict=True))
        best = scale.choices[share.index(max(share))]
        return Reply(f"{start}{best}{'' if start.endswith(' ') else chr(34)}}}", value=value, read=longest, written=0)

    def _prompt(self, text: str) -> list[int]:
        """The question up to where the reply begins; for a model without a template as plain text."""
        if self._template is not None:
            return prompt_ids(self._tokenizer, self._template, [{"role": "user", "content": text}])
        return [*(self._tokenizer.start or start_ids(self._tokenizer)), *self._tokenizer.encode(f"{text}\n\n")]

    @torch.inference_mode()
    def _log_p(self, ids: list[int], rests: list[list[int]]) -> Tensor:
        """log p (C,) of each choice behind `ids`; one pass where each is one token."""
        if max(map(len, rests)) > 1:
            pairs = [Pair(ids, rest) for rest in rests]
            return torch.tensor([one.log_p for one in log_likelihoods(self._model, pairs)])
        states = self._model(torch.tensor([ids], device=self._device), head=False)[0, -1]  # (1, T, D) -> (D,)
        head = getattr(self._model, "head_weight", None)  # a bigram has none: its states are the logits
        logits = states if head is None else F.linear(states, head)  # (V,)
        return logits.float().log_softmax(0)[[rest[0] for rest in rests]].cpu()


def continuations(tokenizer: Tokenizer, start: str, choices: tuple[str, ...]) -> tuple[list[int], list[list[int]]]:
    """The ids that all of start + choice begin with, and those of each behind them.

    Both are encoded together: in many vocabularies a space and what follows it are one token.

    >>> from groundup import tokens
    >>> continuations(tokens.train("chars", ["12: x"]), "x: ", ("1", "2"))
    ([4, 3, 0], [[1], [2]])
    """
    whole = [tokenizer.encode(start + choice) for choice in choices]
    shared = list(os.path.commonprefix(whole))  # works on lists of any kind
    return shared, [ids[len(shared) :] for ids in whole]


def fingerprint(model: nn.Module) -> str:
    """sha256 over all weights, with names, shapes and number formats."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
