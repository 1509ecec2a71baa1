"""Every error a person can see: what happened, the value seen, what to do next.

In: nothing. Out: exception classes with an exit status, and `nearest`, which turns a typing slip into advice.
The command line prints `str(error)` and leaves with `error.status`; a traceback appears only with `--debug`.
"""

import difflib
from collections.abc import Iterable


class GroundupError(Exception):
    """Base of all errors raised on purpose.

    >>> print(GroundupError("the disk is full: 0 bytes left", "free some space, then repeat the command"))
    the disk is full: 0 bytes left
      -> free some space, then repeat the command
    """

    status = 1

    def __init__(self, what: str, fix: str = "") -> None:
        self.what, self.fix = what, fix
        super().__init__(f"{what}\n  -> {fix}" if fix else what)


class UserError(GroundupError):
    """Something the person gave cannot be used; nothing was changed on disk.

    >>> try:
    ...     raise DataError("a.txt is empty (0 bytes)", "give a file that holds text")
    ... except UserError as error:
    ...     print(error.status, error.fix)
    2 give a file that holds text
    """

    status = 2


class SettingsError(UserError):
    """An unknown setting, a value out of range, or settings that contradict each other."""


class DataError(UserError):
    """A text source that is missing, empty, unreadable, malformed or too short."""


class TokenizerError(UserError):
    """Text a tokenizer cannot represent, a vocabulary that cannot be built, or files that do not match."""


class ModelError(UserError):
    """An architecture that cannot be built, or inputs whose shape does not fit it."""


class CheckpointError(UserError):
    """A model or run folder that is missing, foreign, truncated or altered."""


class TrainingError(GroundupError):
    """Training cannot go on (loss or gradient not finite); the last good state is on disk."""


class Stopped(GroundupError):
    """Ctrl-C or SIGTERM: the step was finished and saved. `status` is 130 or 143."""

    def __init__(self, what: str, fix: str = "", *, status: int = 130) -> None:
        super().__init__(what, fix)
        self.status = status


def nearest(word: str, choices: Iterable[str]) -> str:
    """Advice for a word that is none of `choices`: the closest one, or else all of them.

    >>> nearest("lr_rate", ["lr", "steps"])
    "did you mean 'lr'?"
    >>> nearest("zzz", ["lr", "steps"])
    'choose one of: lr, steps'
    """
    names = list(choices)
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.4)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(names)}"
