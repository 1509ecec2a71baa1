"""A reward from a Python file of one's own: FILE.py:FUNCTION.

In: the path and the name. Out: `Script`, a reward function. The file is run because a person named it, and only then;
it is never looked for, and nothing is written beside it. While it runs, its folder is the first place where modules are
looked for, as for any program: it may import what lies beside it.

The function is given three lists of equal length: what was asked (each a list of messages, {"role", "content"}), what
was answered (text), and what is known to be right (text, or None). It returns one number for each. An example:

    def polite(prompts, responses, references):
        return [1.0 if "please" in response.lower() else 0.0 for response in responses]
"""

import contextlib
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import DataError, SettingsError, nearest
from groundup.rollouts.prompts import Answer
from groundup.text.conversations import told


class Script:
    """A reward function out of a file; `described` names the file and the line it begins at.

    Raises DataError, with the line, where the function raises.
    """

    def __init__(self, function: Callable[..., Any], name: str, path: Path) -> None:
        self.function, self.name, self.path = function, name, path
        code = getattr(function, "__code__", None)  # an object that can be called has none
        line = f", line {code.co_firstlineno}" if code is not None and code.co_filename == str(path) else ""
        self.described = f"{name} ({path}{line})"

    def __call__(self, answers: Sequence[Answer]) -> Any:
        prompts = [told(answer.prompt.messages) for answer in answers]
        responses = [answer.text for answer in answers]
        references = [answer.prompt.reference for answer in answers]
        try:
            with _at_home(self.path):
                given = self.function(prompts, responses, references)
                return list(given) if isinstance(given, Iterator) else given  # one that yields runs only now
        except (Exception, SystemExit) as error:
            asked = answers[0].prompt.place if answers else "no prompt"
            raise DataError(
                f"the reward {self.described} failed{_line(error, self.path)} with {_named(error)}; it was given "
                f"{len(answers):,} answers, the first to {asked}",
                "mend the function: it must return one number for each response, whatever a model may write",
            ) from error


def load(spec: str) -> Script:
    """The function that FILE.py:FUNCTION names, its file run once.

    Raises SettingsError for a file that is missing or cannot be run, and for a function that it does not have.

    >>> load("no_such.py:polite")
    Traceback (most recent call last):
    groundup.errors.SettingsError: the reward 'no_such.py:polite' needs no_such.py, and there is no such file
      -> give the path of a Python file
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise SettingsError(
            f"the reward {spec!r} needs {path}, and there is no such file", "give the path of a Python file"
        )
    module = _run(path)
    function = getattr(module, name, None) if name else None
    if function is None:
        own = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        advice = nearest(name, own) if own else "define a function that takes (prompts, responses, references)"
        raise SettingsError(f"{path} has no function {name!r}", advice)
    if not callable(function):
        raise SettingsError(f"{name} of {path} is {type(function).__name__}, no function", "name a function")
    return Script(function, name, path)


def _run(path: Path) -> types.ModuleType:
    """The file as a module: compiled here and not imported, which would leave a folder of bytecode beside it."""
    module = types.ModuleType(f"groundup_reward_{zlib.crc32(str(path.resolve()).encode()):08x}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up by its name
    try:
        with _at_home(path):
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        line = f" at line {error.lineno}" if isinstance(error, SyntaxError) else _line(error, path)
        raise SettingsError(f"{path} cannot be run: {_named(error)}{line}", "mend the file") from error
    return module


@contextlib.contextmanager
def _at_home(path: Path) -> Iterator[None]:
    """Within the block, modules beside the file are found first, and no bytecode of theirs is written."""
    folder, writes_none = str(path.resolve().parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        with contextlib.suppress(ValueError):  # the file may have taken it off itself
            sys.path.remove(folder)


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it happened: the innermost of its lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" at line {lines[-1]}" if lines else ""


def _named(error: BaseException) -> str:
    """An error in one line: its kind and what it says."""
    told_of = error.msg if isinstance(error, SyntaxError) else str(error)  # its own words name the file again
    said = (told_of.strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {said}"
