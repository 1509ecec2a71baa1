"""Conversations with a model that was taught to chat: one that goes on turn by turn, or one answer to each of many.

In: a model, its tokenizer, its template, messages as {"role", "content"}. Out: `Chat`, whose `say` streams an answer;
`answers`, one text for each conversation. An answer ends where the template ends one: with the id that it writes behind
an assistant's words, or with one that ends a text. What a message says can neither end a turn nor open one: only the
template's own words become special tokens (tokens/rows.py).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import DataError, ModelError
from groundup.generate.decode import cache_dtype
from groundup.generate.sample import Sampler, uniforms
from groundup.generate.stream import write
from groundup.model import config_of
from groundup.model.cache import Cache
from groundup.text import styles
from groundup.text.template import ChatTemplate
from groundup.tokens.rows import prompt_ids
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.turns import lead, stop_ids

FIRST_ROOM = 512  # tokens that a conversation's cache holds at first; it doubles when they are full

Messages = Sequence[Mapping[str, Any]]


def template_of(tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template a tokenizer came with, ready to render, or None: a base model's has none."""
    if tokenizer.chat_template is None:
        return None
    return with_tokens_of(tokenizer, tokenizer.chat_template)


def with_tokens_of(tokenizer: Tokenizer, source: str) -> ChatTemplate:
    """A template that writes this tokenizer's special tokens, as transformers lets it."""
    names = {id: name for name, id in tokenizer.special.items()}
    ids = {"bos": tokenizer.bos, "eos": tokenizer.eos, "unk": tokenizer.unknown, "pad": tokenizer.pad}
    return ChatTemplate(source, **{role: "" if id is None else names.get(id, "") for role, id in ids.items()})


def ending(tokenizer: Tokenizer, template: ChatTemplate) -> Tokenizer:
    """The same tokenizer, among whose `ends` are the ids that close an answer in this template.

    Saved with a model it makes transformers (generation_config.json) and our own `generate` stop there.
    """
    ends = dict.fromkeys((*tokenizer.manner.ends, *stop_ids(tokenizer, template)))
    return tokenizer.with_manner(replace(tokenizer.manner, ends=tuple(ends)))


@dataclass(frozen=True)
class Taught:
    """A template to be learnt, and a tokenizer that knows it, its tokens, and where answers end.

    `added`: special tokens that are new to the tokenizer.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    style: str
    added: tuple[str, ...]


def teach(known: Tokenizer, template: str, more: Sequence[str] = ()) -> Taught:
    """Give a tokenizer the template of this name, with the special tokens that it writes, and `more` of them.

    Whoever teaches a model or shows what it would be taught has it from here, so that both see the same ids. Raises
    DataError for a template that is unknown or cannot be rendered.
    """
    style = styles.resolve(template, known.chat_template)
    names = list(dict.fromkeys((*style.tokens, *more)))
    tokenizer = known.with_special(names).with_template(style.template)
    written = with_tokens_of(tokenizer, style.template)
    added = tuple(name for name in names if name not in known.special)
    return Taught(ending(tokenizer, written), written, style.name, added)


@dataclass(frozen=True)
class Answer:
    """The answer to conversation number `row`; `finish` is "end", or "length" where it was cut off.

    `past_context`: prompt and answer together outgrew the context, so that the beginning was out of sight.
    """

    row: int
    text: str
    tokens: int
    finish: str
    past_context: bool


def answers(
    model: nn.Module,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    prompts: Sequence[Messages],
    *,
    max_tokens: int = 256,
    sampler: Sampler | None = None,
) -> list[str]:
    """What the model answers to each conversation, which ends with the words to be answered; greedy by default.

    Texts come without white space around them. Raises DataError where the template refuses a conversation.

    >>> talks = [[{"role": "user", "content": "Who has the kettle?"}]]
    >>> answers(model, tokenizer, template, talks, max_tokens=20)  # doctest: +SKIP
    ['Mira has it.']
    """
    found = [""] * len(prompts)
    for answer in answered(model, tokenizer, template, prompts, max_tokens=max_tokens, sampler=sampler):
        found[answer.row] = answer.text
    return found


def answered(
    model: nn.Module,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    prompts: Sequence[Messages],
    *,
    max_tokens: int = 256,
    sampler: Sampler | None = None,
) -> Iterator[Answer]:
    """The answers of `answers`, each as soon as it is whole: conversations of like length are answered together."""
    ids = [prompt_ids(tokenizer, template, messages) for messages in prompts]
    before = lead(tokenizer, template).strip()
    texts, tokens, past = [""] * len(ids), [0] * len(ids), [False] * len(ids)
    sampler = sampler or Sampler(temperature=0)
    for delta in write(model, ending(tokenizer, template), ids, max_tokens=max_tokens, sampler=sampler):
        row = delta.row
        texts[row] += delta.text
        tokens[row] += 1
        past[row] |= len(ids[row]) + tokens[row] - 1 > config_of(model).context
        if delta.finish:
            yield Answer(row, _spoken(texts[row], before).rstrip(), tokens[row], delta.finish, past[row])


class Chat:
    """One conversation: `messages` so far, and what the model has read of it.

    The model re-reads only what changed: where the template leaves earlier turns as they were, that is the answer's end
    and the new question. Where a template rewrites earlier turns, or an answer's text has other ids when it is encoded
    again, everything behind the first difference is read again, so answers never depend on what was kept.

    A conversation longer than the context loses its oldest turns, question and answer together, in what the model sees,
    never the system message; `forgotten` counts those messages. `messages` keeps all.

    >>> chat = Chat(model, tokenizer, template, system="You are brief.")  # doctest: +SKIP
    >>> "".join(chat.say("Who has the kettle?"))  # doctest: +SKIP
    'Mira.'
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        sampler: Sampler | None = None,
        max_tokens: int = 256,
        system: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.template = model, ending(tokenizer, template), template
        self._before = lead(tokenizer, template).strip()
        self.sampler, self.max_tokens = sampler or Sampler(temperature=0), max_tokens
        self.context = config_of(model).context
        self.messages: list[dict[str, Any]] = []
        self.forgotten = 0
        self.finish = ""  # of the last answer: "end", "length" or "stopped"
        self.tokens = 0  # written so far
        self._memory = _Memory(model)
        self.reset(system)

    def reset(self, system: str | None = None) -> None:
        """Begin anew: forget every turn, and the system message unless one is given."""
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self.forgotten, self.finish = 0, ""

    @property
    def system(self) -> str | None:
        """What the model was told first."""
        return str(self.messages[0]["content"]) if self._lead else None

    def say(self, text: str) -> Generator[str]:
        """Answer `text` piece by piece; whoever stops listening (`close`) keeps what was said up to there.

        Nothing happens before the first piece is asked for. Raises DataError for a text that does not fit into the
        context, or that the template refuses; the conversation is then as it was.
        """
        said = [*self.messages, {"role": "user", "content": text}]
        ids, forgotten = self._prompt(said)
        answer, held, self.forgotten, self.finish = "", "", forgotten, "stopped"
        try:
            for piece in self._pieces(ids):
                held += piece
                if not answer and self._before.startswith(held.lstrip()):
                    continue  # this may still be what the template puts before an answer, and no part of it
                fresh, held = held if answer else _spoken(held, self._before), ""
                answer += fresh
                if fresh:
                    yield fresh
            if not answer and (answer := _spoken(held, self._before)):
                yield answer
        finally:
            if answer or self.finish == "end":
                self.messages = [*said, {"role": "assistant", "content": answer.rstrip()}]

    @property
    def _lead(self) -> int:
        """1 where the conversation begins with a system message."""
        return int(bool(self.messages) and self.messages[0]["role"] == "system")

    def _prompt(self, said: list[dict[str, Any]]) -> tuple[list[int], int]:
        """The ids to be answered, and how many messages were left out so that they and an answer fit."""
        room, lead, forgotten = min(self.max_tokens, self.context // 2), self._lead, self.forgotten
        while True:
            seen = said[:lead] + said[lead + forgotten :]
            ids = prompt_ids(self.tokenizer, self.template, seen)
            if len(ids) + room <= self.context:
                return ids, forgotten
            if len(seen) <= lead + 1:
                break
            forgotten += 2  # a question and its answer
        if len(ids) > self.context:
            raise DataError(
                f"the message has {len(ids):,} tokens with what the template adds, the context is {self.context:,}",
                "say it shorter, or use a model with a longer context",
            )
        return ids, forgotten

    def _pieces(self, ids: list[int]) -> Iterator[str]:
        """The text of an answer as it comes; sets `finish` when it ends by itself."""
        ends, stream = set(self.tokenizer.ends), self.tokenizer.stream()
        stream.push(ids[-1])  # the text must fit behind its prompt: words, say, take a space before them
        for new in self._ids(ids):
            self.tokens += 1
            if new in ends:
                self.finish = "end"
                break
            if new < self.tokenizer.vocabulary:  # a table rounded up for speed has ids without text
                yield stream.push(new)
        else:
            self.finish = "length"
        yield stream.close()

    @torch.inference_mode()
    def _ids(self, ids: list[int]) -> Generator[int]:
        """New ids behind a text, as many as fit: the same choices as `generate` makes for this text alone."""
        most = min(self.max_tokens, self.context - len(ids) + 1)
        luck = None if self.sampler.greedy else uniforms(self.sampler.seed, [ids], [0], most)
        text, was_training = list(ids), self.model.training
        self.model.eval()
        try:
            for number in range(most):
                logits = self._memory.read(text)
                uniform = None if luck is None else luck[:, number].to(logits.device)
                seen = None if self.sampler.repetition_penalty == 1 else _marked(text, logits)
                new = int(self.sampler.choose(logits, uniform, seen))
                if new < 0:
                    raise ModelError(
                        f"the model's scores for new token {number + 1} are NaN or infinite",
                        "its weights are damaged or bf16 overflowed: try --dtype fp32, or an earlier checkpoint",
                    )
                yield new
                text.append(new)
        finally:
            self.model.train(was_training)


def _spoken(text: str, before: str) -> str:
    """An answer without white space at its beginning, and without what the template puts before answers.

    >>> _spoken(" Mira.", ""), _spoken("<think>\\n\\n</think>\\n\\nMira.", "<think>\\n\\n</think>")
    ('Mira.', 'Mira.')
    """
    return text.lstrip().removeprefix(before).lstrip()


class _Memory:
    """The text that a model has read last, as keys and values: of the next one only what differs is read."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.ids = model, list[int]()
        self.device = next(model.parameters()).device
        self.cache = self._room(FIRST_ROOM)

    def read(self, ids: list[int]) -> Tensor:
        """Logits (1, V) behind a text of at most `context` ids; an interrupted reading leaves nothing wrong behind."""
        same = min(_agreeing(self.ids, ids), len(ids) - 1)  # the last id is read in any case: its logits are wanted
        self.ids = self.ids[:same]
        if len(ids) > self.cache.capacity:
            self.cache = self._larger(len(ids))
        self.cache.length = same  # what lies behind is written over
        new = torch.tensor([ids[same:]], device=self.device)  # (1, T)
        if new.size(1) > 1:
            self.model(new[:, :-1], cache=self.cache, head=False)
        logits: Tensor = self.model(new[:, -1:], cache=self.cache)[:, -1]  # (1, 1, V) -> (1, V)
        self.ids = list(ids)
        return logits

    def _room(self, tokens: int) -> Cache:
        config = config_of(self.model)
        length = min(tokens, config.context)
        return Cache(config, batch=1, length=length, dtype=cache_dtype(self.model), device=self.device)

    def _larger(self, tokens: int) -> Cache:
        """Room for so many tokens, at least twice what there was, with all that is held."""
        old, held = self.cache, len(self.ids)
        larger = self._room(max(tokens, 2 * old.capacity))
        larger.keys[..., :held, :] = old.keys[..., :held, :]
        larger.values[..., :held, :] = old.values[..., :held, :]
        return larger


def _agreeing(one: list[int], other: list[int]) -> int:
    """How many ids two texts begin with in common.

    >>> _agreeing([1, 2, 3], [1, 2, 4, 5]), _agreeing([1, 2], [1, 2, 4]), _agreeing([], [1])
    (2, 2, 0)
    """
    if other[: len(one)] == one:  # a text that only grew: the usual case, at the speed of C
        return len(one)
    return next(place for place, (a, b) in enumerate(zip([*one, None], [*other, None], strict=False)) if a != b)


def _marked(text: list[int], logits: Tensor) -> Tensor:
    """Which ids a text holds, (1, V) bool, for the repetition penalty."""
    marks = torch.zeros(logits.shape, dtype=torch.bool)
    marks[0, text] = True
    return marks.to(logits.device)
