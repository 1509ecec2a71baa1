"""What a policy is asked, and what it answered: prompts from conversations, and the record of one answer.

In: conversations, a tokenizer, its template. Out: `Prompts`, of which each has room for an answer within the context;
`Answer`, what a reward function is given.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groundup.errors import DataError
from groundup.evaluate.answers import asked
from groundup.text.conversations import Conversation
from groundup.text.template import ChatTemplate
from groundup.tokens.rows import prompt_ids
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with what is to be answered, the answer that is known to be right (None where nobody
    says), and the place it was read from."""

    messages: tuple[Mapping[str, Any], ...]
    reference: str | None = None
    where: str = ""

    @property
    def place(self) -> str:
        """Where it comes from, or else how it begins: what an error can call it.

        >>> Prompt(({"role": "user", "content": "Who has the kettle?"},)).place
        "'Who has the kettle?'"
        """
        said = str(self.messages[-1]["content"]) if self.messages else ""
        return self.where or repr(said[:60])


@dataclass(frozen=True)
class Answer:
    """What a policy wrote: `text` as a person reads it, without white space around; `ids` with the one that ends it.

    `ended`: it came to its end; False where it was cut because there was no more room.
    """

    prompt: Prompt
    text: str
    ids: list[int]
    ended: bool


RewardFunction = Callable[[Sequence[Answer]], list[float]]


@dataclass(frozen=True)
class Prompts:
    """The prompts that are answered, their ids, and the reasons for which others are not: reason -> how many."""

    prompts: list[Prompt]
    ids: list[list[int]]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def fingerprint(self) -> str:
        """A hash of what is asked and of what is right, by which a resumed run knows its prompts.

        >>> one, other = Prompt((), "Mira"), Prompt((), "Odo")
        >>> Prompts([one], [[5]]).fingerprint == Prompts([other], [[5]]).fingerprint
        False
        """
        digest = hashlib.sha256()
        for prompt, ids in zip(self.prompts, self.ids, strict=True):
            digest.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
            digest.update(repr(prompt.reference).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()[:16]

    def repeated(self, times: int) -> "Prompts":
        """Each prompt so many times, beside itself.

        >>> Prompts([Prompt((), "a"), Prompt((), "b")], [[5], [6]]).repeated(2).ids
        [[5], [5], [6], [6]]
        """
        rows = [row for row in range(len(self)) for _ in range(times)]
        return self.chosen(rows)

    def chosen(self, rows: Iterable[int]) -> "Prompts":
        """Those of these numbers, in this order."""
        kept = list(rows)
        return Prompts([self.prompts[row] for row in kept], [self.ids[row] for row in kept])

    def words(self) -> str:
        """How many there are, how long they are, and what was left out: a line for each.

        >>> Prompts([Prompt(())], [[5, 6]], {"too long": 3}).words()
        '1 prompt, 2 tokens on average, the longest 2\\n3 left out: too long'
        """
        sizes = [len(ids) for ids in self.ids]
        mean, longest = sum(sizes) / len(sizes), max(sizes)
        plural = "" if len(sizes) == 1 else "s"
        lines = [f"{len(sizes):,} prompt{plural}, {mean:.0f} tokens on average, the longest {longest:,}"]
        return "\n".join([*lines, *(f"{count:,} left out: {reason}" for reason, count in self.dropped.items())])


def prompts(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    *,
    context: int,
    response_tokens: int,
    source: str = "the prompts",
) -> Prompts:
    """Each conversation up to its last question; the answer that followed it is the reference.

    A prompt is left out, and counted, where it and an answer of `response_tokens` would outgrow the context. Raises
    DataError where none is left, and, naming the conversation, where the template refuses it or nobody asks.

    >>> from groundup import tokens
    >>> from groundup.generate.chat import with_tokens_of
    >>> tokenizer = tokens.train("chars", ["who? Mira"])
    >>> template = with_tokens_of(tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}")
    >>> talk = ({"role": "user", "content": "who?"}, {"role": "assistant", "content": "Mira"})
    >>> found = prompts([Conversation(talk)], tokenizer, template, context=8, response_tokens=4)
    >>> found.prompts[0].reference, tokenizer.decode(found.ids[0])
    ('Mira', 'who?')
    """
    kept, rows, longest = list[Prompt](), list[list[int]](), 0
    reasons: Counter[str] = Counter()
    for conversation in conversations:
        question = asked(conversation)
        prompt = Prompt(question.messages, question.expected, conversation.where)
        ids = _encoded(tokenizer, template, prompt)
        longest = max(longest, len(ids))
        if len(ids) + response_tokens > context:
            reasons[f"with an answer of {response_tokens:,} tokens they outgrow the context of {context:,}"] += 1
            continue
        kept.append(prompt)
        rows.append(ids)
    if not kept:
        why = "; ".join(f"{count:,} of them: {reason}" for reason, count in reasons.items()) or "there are none"
        advice = f"the longest has {longest:,} tokens: give a longer --context, or smaller --response-tokens"
        raise DataError(
            f"{source}: no prompt is left to answer. {why}", advice if reasons else "give at least one question"
        )
    return Prompts(kept, rows, dict(reasons))


def _encoded(tokenizer: Tokenizer, template: ChatTemplate, prompt: Prompt) -> list[int]:
    """The ids of a prompt; raises DataError where there are none, as a model cannot go on from nothing."""
    try:
        ids = prompt_ids(tokenizer, template, prompt.messages)
    except DataError as error:
        raise DataError(f"{prompt.place}: {error.what}", error.fix) from None
    if not ids:
        raise DataError(f"{prompt.place} comes to no token in this template", "give a question with words in it")
    return ids
