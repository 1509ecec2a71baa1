"""Transcripts as those of HH-RLHF: "\\n\\nHuman: ...\\n\\nAssistant: ..." as turns, and turns as messages.

In: a text. Out: who speaks and the words, turn by turn (`said`), and messages of them (`joined`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from groundup.errors import DataError

SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
ASKING = re.compile(r"(?:\n\n)?Human:.*\n\nAssistant:\s*", re.DOTALL)  # a prompt that is a transcript up to the answer


def said(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first speaker, and the role and the words of each turn.

    >>> said("\\n\\nHuman: Who?\\n\\nAssistant: Mira.")
    ('', [('user', 'Who?'), ('assistant', 'Mira.')])
    """
    before, *parts = SPEAKER.split(text)
    roles = ("user" if who == "Human" else "assistant" for who in parts[::2])
    return before, [(role, words.strip()) for role, words in zip(roles, parts[1::2], strict=True)]


def answered(text: str, side: str, where: str, fields: Iterable[str]) -> list[tuple[str, str]]:
    """Roles and words of a transcript, which ends with an answer; turns without words are left out before that.

    Raises DataError, which names the side of the pair, its place and the fields it has, for any other text.

    >>> answered("\\n\\nHuman: Who?\\n\\nHuman:\\n\\nAssistant:", "chosen", "entry 0", ["chosen", "rejected"])
    [('user', 'Who?'), ('assistant', '')]
    """
    before, turns = said(text)
    if before.strip() or len(turns) < 2 or turns[-1][0] != "assistant":
        does = "ends with the Human's words" if turns and turns[-1][0] == "user" else f"begins with {text[:30]!r}"
        has = ", ".join(map(str, fields))
        what = f"{where} has no 'prompt', and its '{side}' is no transcript: it {does}; it has {has}"
        raise DataError(what, r"add the prompt, or write '\n\nHuman: ...\n\nAssistant: ...', an answer at the end")
    return [*((role, words) for role, words in turns[:-1] if words), turns[-1]]


def joined(turns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Turns as messages; those of one role that follow each other become one, as no chat has them so.

    >>> joined([("user", "Who?"), ("user", "Who was it?")])
    [{'role': 'user', 'content': 'Who?\\n\\nWho was it?'}]
    """
    return [
        {"role": role, "content": "\n\n".join(words for _, words in group)}
        for role, group in groupby(turns, key=lambda turn: turn[0])
    ]


def alone(answer: str, prompt: Sequence[Mapping[str, Any]], place: str) -> str:
    """An answer without its prompt, where it is a transcript that begins with it; any other answer as it is.

    Raises DataError where what has the form of HH-RLHF's transcripts begins with another prompt.

    >>> alone("\\n\\nHuman: Who?\\n\\nAssistant: Mira.", [{"role": "user", "content": "Who?"}], "'chosen' of entry 0")
    'Mira.'
    """
    if not answer.lstrip("\n").startswith("Human:"):
        return answer
    before, turns = said(answer)
    asked = [(message["role"], message["content"].strip()) for message in prompt if message["role"] != "system"]
    begun = [(turn["role"], turn["content"]) for turn in joined([turn for turn in turns[:-1] if turn[1]])]
    if begun == asked and turns[-1][0] == "assistant" and not before.strip():
        return turns[-1][1]
    if answer.startswith("\n\nHuman:"):
        raise DataError(
            f"{place} is a transcript that begins with another prompt than its own", "give the answer alone"
        )
    return answer
