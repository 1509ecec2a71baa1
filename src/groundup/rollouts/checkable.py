"""Rewards that can be checked: no opinion in them, and the same number for the same answer on every machine.

In: answers, with the right one where it is known. Out: one number for each. `exact`, `contains` and `harbor` are
rewards themselves; `matching` and `length` make one from a pattern or a number of tokens.
"""

from collections.abc import Sequence

import regex

from groundup.errors import DataError, SettingsError
from groundup.evaluate.answers import normal, same
from groundup.rollouts.prompts import Answer, Prompt, RewardFunction
from groundup.text import harbor as town

SECONDS = 5.0  # that a pattern may think about one answer: some need years for forty characters


def exact(answers: Sequence[Answer]) -> list[float]:
    """1 where an answer is word for word the right one, only white space forgiven, else 0.

    >>> exact([Answer(Prompt((), "The kettle."), " The  kettle.", [1], True)])
    [1.0]
    """
    return [float(same(answer.text, reference_of(answer.prompt, "exact"))) for answer in answers]


def contains(answers: Sequence[Answer]) -> list[float]:
    """1 where the words of the right answer stand in an answer, in their order and beside each other, else 0.

    Case, and punctuation around words, do not count. Easily fooled: an answer that says everything is always right.

    >>> prompt = Prompt((), "12 boats")
    >>> contains([Answer(prompt, text, [1], True) for text in ("There are 12 boats.", "112 boats")])
    [1.0, 0.0]
    """
    found = []
    for answer in answers:
        wanted = normal(reference_of(answer.prompt, "contains"), loose=True)
        if not wanted:
            raise DataError(
                f"the right answer to {answer.prompt.place} has no words: every answer contains it",
                "leave this prompt out, or use the reward exact",
            )
        found.append(float(f" {wanted} " in f" {normal(answer.text, loose=True)} "))
    return found


def harbor(answers: Sequence[Answer]) -> list[float]:
    """Harbor's own checker: 1 for what it finds right, else 0.

    Where a question has a right answer, it has to be that to the letter, white space around it aside. A prompt without
    one is taken for a wish for a story: the answer has to be a whole one, grammatical and consistent.

    >>> question = next(town.questions.questions(seed=1))
    >>> prompt = Prompt(tuple(question.messages()[:1]), question.answer)
    >>> story = Answer(Prompt(()), town.story(seed=1, index=0), [1], True)
    >>> harbor([Answer(prompt, question.answer, [1], True), Answer(prompt, "The moon.", [1], True), story])
    [1.0, 0.0, 1.0]
    """
    return [float(_is_right(answer)) for answer in answers]


def _is_right(answer: Answer) -> bool:
    if answer.prompt.reference is not None:
        return answer.text.strip() == answer.prompt.reference.strip()
    return town.check(answer.text).ok


def matching(pattern: str) -> RewardFunction:
    """A reward of 1 where a regular expression is found in an answer, else 0; "^...$" asks for the whole of it.

    Raises SettingsError for an expression that is none. The reward raises DataError for one that takes more than
    `SECONDS` for an answer.

    >>> matching("[0-9]+ boats")([Answer(Prompt(()), "There are 12 boats.", [1], True)])
    [1.0]
    """
    if not pattern:
        raise SettingsError("the reward 'regex' has no pattern: it would find nothing in everything",
                            "write it behind a colon: regex:PATTERN")  # fmt: skip
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise SettingsError(f"the reward 'regex:{pattern}' is no regular expression: {error}", "mend it") from None

    def found(answers: Sequence[Answer]) -> list[float]:
        return [float(_found(compiled, answer)) for answer in answers]

    return found


def _found(pattern: "regex.Pattern[str]", answer: Answer) -> bool:
    try:
        return pattern.search(answer.text, timeout=SECONDS) is not None
    except TimeoutError:
        raise DataError(
            f"the reward 'regex:{pattern.pattern}' was not done with the answer to {answer.prompt.place} after "
            f"{SECONDS:g} s",
            "write the pattern without repetitions inside of repetitions",
        ) from None


def length(tokens: str) -> RewardFunction:
    """A reward for answers of so many tokens, their end included: 1 - |n - tokens| / tokens, never below 0.

    So it falls evenly to both sides, and is 0 from twice as long on. Raises SettingsError for what is no number.

    >>> length("4")([Answer(Prompt(()), "", [1] * n, True) for n in (1, 4, 6, 9)])
    [0.25, 1.0, 0.5, 0.0]
    """
    if not (tokens.isdecimal() and tokens.isascii() and int(tokens)):
        raise SettingsError(f"the reward 'length:{tokens}' names no number of tokens", "write length:20, for example")
    wanted = int(tokens)

    def found(answers: Sequence[Answer]) -> list[float]:
        return [max(0.0, 1 - abs(len(answer.ids) - wanted) / wanted) for answer in answers]

    return found


def reference_of(prompt: Prompt, reward: str) -> str:
    """The right answer to a prompt; raises DataError where nobody says it."""
    if prompt.reference is None:
        raise DataError(
            f"the reward {reward} compares with the right answer, and {prompt.place} has none",
            "give prompts with answers, or choose a reward that needs none: regex:PATTERN, FILE.py:FUNCTION, a model",
        )
    return prompt.reference
