"""Scores of answers by a reward model: how `groundup score`, PPO and comparisons ask it, one way for all of them.

In: a reward model's folder; conversations that end with the answer to be scored. Out: `RewardModel`; `Read`, the row
that is read of a conversation; one number for each.

What is read is the conversation as the template writes it, to its end (tokens/rows.py). What is judged is its last id
that is not the filler: the rule of `transformers`, so that its scores and ours are the same. A template that ends an
answer with the end-of-text token, in a tokenizer that has no other to fill with, is so judged at the answer's last
word.

A conversation longer than the context loses the beginning of its prompt: the answer is what is scored, and is always
read whole. Training and its test read rows through the same `fitted`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.batches.batch import pad
from groundup.checkpoint import classifier, folder
from groundup.errors import CheckpointError, DataError, ModelError, SettingsError
from groundup.evaluate.classes import finite
from groundup.evaluate.pairs import judging
from groundup.generate import chat as chats
from groundup.machine import Machine
from groundup.model.heads import REWARD, Classifier, HeadConfig, normalised
from groundup.text import styles
from groundup.text.conversations import Conversation
from groundup.text.template import ChatTemplate
from groundup.tokens.rows import Row, chat_row
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class RewardModel:
    """A reward model with all that is needed to ask it; the network is in evaluation mode."""

    model: Classifier
    tokenizer: Tokenizer
    template: ChatTemplate
    folder: Path
    card: dict[str, Any]

    @property
    def head(self) -> HeadConfig:
        """Mean and spread of its scores in training, 0 and 1 where they are not known."""
        return self.model.head_config

    @property
    def scaled(self) -> bool:
        """Whether mean and spread are known, so that scores can be normalised."""
        return (self.head.mean, self.head.spread) != (0.0, 1.0)


def opened(path: str | Path, *, machine: Machine, template: str = "auto", normalise: bool = True) -> RewardModel:
    """Open a run of `groundup reward`, its best/, or any folder of a sequence classifier with one output.

    `template` "auto" is the one it came with, which is how it was taught. Where scores are to be normalised and the
    model came without mean and spread, standard error is told that they are raw. Raises CheckpointError for a model
    that gives no scores, naming what it is for, and SettingsError where no template is known, or one that writes tokens
    which the model never saw.

    >>> opened("runs/reward", machine=machine).head.spread  # doctest: +SKIP
    1.37
    """
    # weights in fp32 whatever is stored: the machine's autocast decides what the products are computed in
    loaded = folder.load(path, dtype=torch.float32, device=machine.device, classifier=None)
    model = loaded.model
    if not isinstance(model, Classifier):
        raise CheckpointError(
            f"{path} continues text, it is no reward model",
            f"make one of it: groundup reward --model {path} --data PAIRS --out runs/NAME",
        )
    if model.head_config.kind != REWARD:
        labels = ", ".join(model.head_config.labels[:6])
        raise CheckpointError(
            f"{path} tells classes apart ({labels}), it is no reward model", "use it with groundup predict"
        )
    found = RewardModel(
        model, loaded.tokenizer, _template(loaded.tokenizer, template, path), loaded.folder, loaded.card
    )
    if normalise and not found.scaled:
        print(f"note: {path} came without mean and spread of its scores in training: they are raw", file=sys.stderr)
    return found


def _template(tokenizer: Tokenizer, name: str, path: str | Path) -> ChatTemplate:
    own = tokenizer.chat_template
    if own is None and name == "auto":
        raise SettingsError(
            f"{path} came without a chat template: how a conversation is written for it is not known",
            "say how: --template alpaca, phi3, chatml or a .jinja file, the one it was taught with",
        )
    style = styles.resolve(name, own)
    if missing := [token for token in style.tokens if token not in tokenizer.special]:
        raise SettingsError(
            f"--template {name} writes {', '.join(missing)}, which the reward model {path} never saw",
            "leave --template out, or give the one it was taught with",
        )
    if own is not None and style.template != own:
        print(f"note: {path} was taught with another template than {name}: its scores mean little", file=sys.stderr)
    return chats.with_tokens_of(tokenizer, style.template)


# what is read


@dataclass(frozen=True)
class Read:
    """The ids that are read of a conversation; `cut`: ids at the beginning of its prompt that were left out."""

    ids: list[int]
    cut: int = 0


def judged(row: Row, filler: int | None) -> Row:
    """A row up to the id that is judged: the last that is not the filler.

    >>> judged(Row([5, 6, 0, 7, 0, 0], [False, False, True, True, True, False]), 0).ids
    [5, 6, 0, 7]
    """
    end = len(row.ids)
    while end > 1 and row.ids[end - 1] == filler:
        end -= 1
    return Row(row.ids[:end], row.learn[:end], row.lost)


def fitted(row: Row, *, filler: int | None, lead: int, context: int) -> Row | None:
    """A row as it is read: up to the id that is judged, of a long one the last `context` ids behind its `lead` first.

    What is learnt of it is its answer, which is never cut; None where that leaves no room for a prompt.

    >>> fitted(Row([1, 5, 6, 7, 8, 0], [False, False, False, True, True, True]), filler=0, lead=1, context=4).ids
    [1, 6, 7, 8]
    """
    answer = row.learn.index(True) if any(row.learn) else len(row.ids)
    row = judged(row, filler)
    over = len(row.ids) - context
    if over <= 0:
        return row
    if lead + over >= min(answer, len(row.ids)):
        return None
    return Row([*row.ids[:lead], *row.ids[lead + over :]], [*row.learn[:lead], *row.learn[lead + over :]], row.lost)


def filler_of(tokenizer: Tokenizer) -> int | None:
    """The id that a reward model's folder names as its filler, None where there is none (checkpoint/classifier.py)."""
    return classifier.padded(tokenizer).pad


def read(tokenizer: Tokenizer, template: ChatTemplate, conversation: Conversation, *, context: int) -> Read:
    """The ids (at most `context`) of a conversation that ends with the answer to be scored.

    Raises DataError where it does not end with an answer, where the template refuses it, and where the answer alone
    fills the context.
    """
    where = conversation.where or "the conversation"
    if not conversation.messages or conversation.messages[-1]["role"] != "assistant":
        raise DataError(f"{where} does not end with an answer", "give the answer to be scored as the last message")
    filler = filler_of(tokenizer)
    row = chat_row(tokenizer, template, _last_alone(conversation), learn="marked")
    whole, found = judged(row, filler), fitted(row, filler=filler, lead=len(tokenizer.start), context=context)
    if found is None:
        raise DataError(
            f"the answer of {where} has {len(whole.ids) - row.learn.index(True):,} tokens, which leaves no room for a "
            f"prompt in the reward model's context of {context:,}",
            "score a shorter answer: what it says at the end would not be read",
        )
    return Read(found.ids, len(whole.ids) - len(found.ids))


def _last_alone(conversation: Conversation) -> Conversation:
    """The same words, of which the last answer alone is marked: an empty one has no ids, and is no earlier one."""
    before = [{key: value for key, value in one.items() if key != "learn"} for one in conversation.messages[:-1]]
    return Conversation((*before, {**conversation.messages[-1], "learn": True}), conversation.where)


# scores


def scores(
    model: nn.Module,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    conversations: Sequence[Conversation],
    *,
    machine: Machine,
    batch: int,
    normalise: bool = True,
) -> list[float]:
    """One score for each conversation, which ends with the answer to be scored; `batch` rows per forward pass.

    `normalise`: mean 0 and deviation 1 on the training answers; else as the network gives them. The score of an answer
    does not depend on what it stands beside. An empty answer is scored as every other.

    Raises ModelError for a model that is no reward model, or whose scores are not finite; DataError as `read`.

    >>> scores(found.model, found.tokenizer, found.template, talks, machine=machine, batch=16)  # doctest: +SKIP
    [0.83, -1.2]
    """
    if not isinstance(model, Classifier) or model.head_config.kind != REWARD:
        raise ModelError(f"a {type(model).__name__} gives no scores", "take a reward model: groundup reward")
    context = model.config.context
    rows = [read(tokenizer, template, conversation, context=context).ids for conversation in conversations]
    found = [0.0] * len(rows)
    for place, score in each(model, rows, machine=machine, batch=batch, normalise=normalise):
        found[place] = score
    return found


def each(
    model: Classifier, rows: Sequence[Sequence[int]], *, machine: Machine, batch: int, normalise: bool = True
) -> Iterator[tuple[int, float]]:
    """Number and score of each row of ids, the shortest rows first, `batch` of them together."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for first in range(0, len(order), batch):
        places = order[first : first + batch]
        tokens, _ = pad([rows[place] for place in places], 0)  # what fills is never read
        lengths = torch.tensor([len(rows[place]) for place in places])
        with judging(model, machine) as device:
            raw: Tensor = finite(model(tokens.to(device), lengths=lengths.to(device)))  # (B, 1)
        told = raw.double().cpu()[:, 0]
        yield from zip(places, (normalised(told, model.head_config) if normalise else told).tolist(), strict=True)
