"""Answers to prompts, as ids and as text: what a rollout learns from, and what an evaluation marks.

In: a model that writes, its tokenizer and template, prompts. Out: an `Answer` to each.
"""

from collections.abc import Sequence

from torch import nn

from groundup.generate.chat import ending
from groundup.generate.sample import Sampler
from groundup.rollouts.prompts import Answer, Prompts
from groundup.rollouts.write import write
from groundup.text.template import ChatTemplate
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.turns import lead


def answered(
    model: nn.Module,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    asked: Prompts,
    *,
    most: int,
    sampler: Sampler,
) -> list[Answer]:
    """An answer to each prompt, of `most` ids at most; a prompt that stands there several times gets as many.

    An answer ends with an id that the template writes behind an assistant's words, or with one that ends a text; that
    id is its last. `model` may be a copy that is made for writing (write.writer). Raises ModelError as `write`.

    >>> answered(model, tokenizer, template, asked, most=16, sampler=Sampler(temperature=0))  # doctest: +SKIP
    [Answer(prompt=Prompt(...), text='Mira.', ids=[412, 13, 2], ended=True)]
    """
    closing = ending(tokenizer, template)
    ends, before = set(closing.ends), lead(tokenizer, template).strip()
    found = write(model, asked.ids, most=most, sampler=sampler, ends=ends)
    return [
        Answer(prompt, spoken(closing, question, ids, before), ids, ids[-1] in ends)
        for prompt, question, ids in zip(asked.prompts, asked.ids, found, strict=True)
    ]


def spoken(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], before: str = "") -> str:
    """The text of an answer, as chat shows it: without what ends it, what a template puts `before` it, white space.

    >>> from groundup import tokens
    >>> spoken(tokens.train("chars", ["ab "]), [1], [0, 1, 2, 3])  # " ab" and the end of text
    'ab'
    """
    ends, stream = set(tokenizer.ends), tokenizer.stream()
    stream.push(prompt[-1])  # the text must fit behind its prompt: words, say, take a space before them
    # a table rounded up for speed has ids without text
    pieces = [stream.push(id) for id in ids if id not in ends and id < tokenizer.vocabulary]
    text = "".join([*pieces, stream.close()])
    return text.lstrip().removeprefix(before).strip()
