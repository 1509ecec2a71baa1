"""The command table: parse the flags, check the settings, then import the one module that does the work.

In: command-line words. Out: an exit status: 0 done, 1 our failure (or a result that is not `ok`), 2 the person's, 130
Ctrl-C, 143 SIGTERM.
Results go to standard output (`--json`: one JSON object), everything said on the way to standard error.
"""

import dataclasses
import errno
import functools
import importlib
import inspect
import json
import math
import operator
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from cyclopts import App, CycloptsError, Group, Parameter

from groundup import settings
from groundup.errors import GroundupError

ABOUT = "Build a large language model from the ground up: text in, a model that writes out."
FIRST_STEPS = "First steps: groundup demo. Every command: --help, --json, --config FILE.toml, --debug."


class Command(NamedTuple):
    """One row of the table: the settings class, the module whose `run` does the work, and examples for `--help`."""

    settings: type[settings.Settings]
    module: str
    examples: tuple[str, ...]


COMMANDS = {
    "demo": Command(
        settings.Demo, "groundup.commands.demo", ("groundup demo", "groundup demo --seed 7 --out runs/seven")
    ),
    "prepare": Command(
        settings.Prepare,
        "groundup.commands.prepare",
        (
            "groundup prepare --data letters/*.txt --out shards",
            "groundup prepare --data books.jsonl --field body --tokenizer gpt2 --out shards",
        ),
    ),
    "tokenizer train": Command(
        settings.TokenizerTrain,
        "groundup.commands.tokenizer:train",
        ("groundup tokenizer train --data harbor --vocabulary 1024 --out tok",),
    ),
    "tokenizer show": Command(
        settings.TokenizerShow,
        "groundup.commands.tokenizer:show_pieces",
        ('groundup tokenizer show tok --text "The gulls"',),
    ),
    "tokenizer encode": Command(
        settings.TokenizerEncode,
        "groundup.commands.tokenizer:encode",
        ('groundup tokenizer encode tok --text "Hello"',),
    ),
    "tokenizer decode": Command(
        settings.TokenizerDecode,
        "groundup.commands.tokenizer:decode",
        ("groundup tokenizer decode tok --ids 39 68 75",),
    ),
    "pretrain": Command(
        settings.Pretrain,
        "groundup.stages.pretrain",
        (
            "groundup pretrain --data letters.txt --size 1m --out runs/letters",
            "groundup pretrain --data shards --size 10m --epochs 3 --out runs/big --dry-run",
            "groundup pretrain --out runs/letters --resume --steps 4000",
        ),
    ),
    "classify": Command(
        settings.Classify,
        "groundup.stages.classify",
        (
            "groundup classify --model gpt2 --data sms-spam --balance undersample --out runs/spam",
            "groundup classify runs/demo --data mails.csv --text-field body --label-field team --out runs/mails",
        ),
    ),
    "instruct": Command(
        settings.Instruct,
        "groundup.stages.instruct",
        (
            "groundup instruct --model gpt2-medium --data instruction-data --out runs/assistant",
            "groundup instruct runs/base --data chats.jsonl --train lora --out runs/chats",
        ),
    ),
    "reward": Command(
        settings.Reward,
        "groundup.stages.reward",
        ("groundup reward --model runs/assistant --data pairs.jsonl --out runs/reward",),
    ),
    "dpo": Command(
        settings.Dpo,
        "groundup.stages.dpo",
        ("groundup dpo --model runs/assistant --data instruction-preference --beta 0.1 --out runs/preferred",),
    ),
    "ppo": Command(
        settings.Ppo,
        "groundup.stages.ppo",
        (
            "groundup ppo --model runs/assistant --data prompts.jsonl --reward runs/reward --out runs/better",
            "groundup ppo --model runs/demo/questions --reward exact --algorithm grpo --out runs/right",
        ),
    ),
    "score": Command(
        settings.Score,
        "groundup.commands.score",
        ('groundup score runs/reward --prompt "What is a gull?" --response "A bird."',),
    ),
    "compare": Command(
        settings.Compare,
        "groundup.commands.compare",
        (
            "groundup compare runs/assistant runs/better --data prompts.jsonl --reward runs/reward",
            "groundup compare runs/assistant runs/better --data prompts.jsonl --human",
        ),
    ),
    "show-batch": Command(
        settings.ShowBatch,
        "groundup.commands.show_batch",
        (
            "groundup show-batch instruct --model runs/base --data chats.jsonl",
            "groundup show-batch pretrain --data letters.txt --tokenizer gpt2",
        ),
    ),
    "chat": Command(settings.Chat, "groundup.commands.chat", ("groundup chat runs/assistant",)),
    "respond": Command(
        settings.Respond,
        "groundup.commands.respond",
        ("groundup respond runs/assistant --data runs/assistant/data/test.json --out answers.json",),
    ),
    "predict": Command(
        settings.Predict,
        "groundup.commands.predict",
        (
            'groundup predict runs/spam --text "You won a prize!"',
            "groundup predict runs/spam --file mails.csv --text-field body --label-field team",
        ),
    ),
    "judge": Command(
        settings.Judge,
        "groundup.commands.judge",
        (
            "groundup judge answers.json --judge ollama:llama3",
            "groundup judge after.json --against before.json --judge http://127.0.0.1:8000/v1 --scale pairwise",
        ),
    ),
    "generate": Command(
        settings.Generate,
        "groundup.commands.generate",
        (
            'groundup generate runs/letters --prompt "Dear" --max-tokens 100',
            "groundup generate runs/letters --prompts lines.txt --temperature 0 --json",
        ),
    ),
    "evaluate": Command(
        settings.Evaluate,
        "groundup.commands.evaluate",
        (
            "groundup evaluate runs/letters --data other.txt",
            "groundup evaluate runs/assistant --task choices --data hellaswag.jsonl --limit 200",
            "groundup evaluate runs/assistant --lm-eval arc_easy",
        ),
    ),
    "import": Command(
        settings.Import,
        "groundup.commands.importing",
        (
            "groundup import gpt2 --out models/gpt2",
            "groundup import SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2",
            "groundup import stories260K.bin --tokenizer tok512.bin --out models/stories",
        ),
    ),
    "export": Command(
        settings.Export,
        "groundup.commands.export",
        (
            "groundup export runs/letters --to gguf --dtype q8_0 --check",
            "groundup export runs/letters --to ollama --out letters-ollama",
        ),
    ),
    "models": Command(settings.Models, "groundup.commands.models", ("groundup models", "groundup models gpt2 --json")),
    "report": Command(
        settings.Report,
        "groundup.commands.report",
        ("groundup report runs/letters --open", "groundup report runs/a runs/b --out both.html"),
    ),
    "lesson": Command(
        settings.Lesson,
        "groundup.commands.lesson",
        ("groundup lesson", "groundup lesson attention_scores", "groundup lesson 3 --copy-to notebooks"),
    ),
    "reproduce": Command(
        settings.Reproduce,
        "groundup.commands.reproduce",
        ("groundup reproduce", "groundup reproduce book.5.1", "groundup reproduce all --json"),
    ),
    "info": Command(
        settings.Info,
        "groundup.commands.info",
        ("groundup info", "groundup info runs/letters", "groundup info --sizes"),
    ),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; never lets a traceback out unless `--debug` is given.

    >>> main(["--version"])
    0.1.0
    0
    """
    words = list(sys.argv[1:] if words is None else words)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    debug = "--debug" in words
    try:
        return _dispatch([word for word in words if word != "--debug"])
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error)
    except KeyboardInterrupt:
        return _say("stopped by Ctrl-C", status=130)


def _dispatch(words: list[str]) -> int:
    app = build()
    call, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    row = getattr(call, "row", None)
    if row is None:  # cyclopts' own: help, version, completion
        call(*bound.args, **bound.kwargs)
        return 0
    given = dict(bound.arguments)
    config, as_json = given.pop("config", None), given.pop("json", False)
    chosen = row.settings.create(config=config, **given)
    module, _, function = row.module.partition(":")
    room = importlib.import_module(module)
    run, show = getattr(room, function or "run"), getattr(room, "show", None)
    emits = "emit" in inspect.signature(run).parameters and not as_json
    result = run(chosen, emit=_emit) if emits else run(chosen)
    if as_json:
        print(json.dumps(plain(result), ensure_ascii=False))
    elif show:
        show(result)
    return 0 if getattr(result, "ok", True) else 1


def build() -> App:
    """The whole command line as a cyclopts application, made from the table."""
    version = importlib.import_module("groundup").__version__
    app = App(name="groundup", version=version, help_format="plaintext", help=ABOUT, help_epilogue=FIRST_STEPS)
    parents: dict[str, App] = {}
    for name, row in COMMANDS.items():
        parent, _, leaf = name.rpartition(" ")
        if parent and parent not in parents:
            parents[parent] = App(name=parent, help="Learn, look at and use tokenizers.")
            app.command(parents[parent])
        examples = "\n\n".join(["Examples:", *(f"  {line}" for line in row.examples)])
        target = parents[parent] if parent else app
        target.command(_signed(row), name=leaf, help=(row.settings.__doc__ or "").strip(), help_epilogue=examples)
    app.register_install_completion_command(add_to_startup=False)
    return app


def _signed(row: Command) -> Callable[..., None]:
    """A function whose signature is the settings class, so that flags, types and help come from one place."""

    def call(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("only its signature is used")

    parameters = [_parameter(row.settings, name) for name in row.settings.model_fields]
    parameters.sort(key=lambda parameter: parameter.kind)
    every = Group("Every command", sort_key=99)
    config = Annotated[
        Path | None,
        Parameter(help="read settings from a TOML file or a preset (groundup info --presets); flags win", group=every),
    ]
    as_json = Annotated[bool, Parameter(help="print the result as JSON", negative="", group=every)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter("config", keyword, default=None, annotation=config))
    parameters.append(inspect.Parameter("json", keyword, default=False, annotation=as_json))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.row = row  # type: ignore[attr-defined]
    return call


def _parameter(cls: type[settings.Settings], name: str) -> inspect.Parameter:
    field = cls.model_fields[name]
    is_list = isinstance(field.default, list)
    noted = settings.extra(field)
    options: dict[str, Any] = {"help": field.description, "consume_multiple": is_list}
    if (flag := settings.flag(name)) != f"--{name.replace('_', '-')}":
        options["name"] = flag
    options["allow_leading_hyphen"] = bool(noted.get("stdin"))
    if field.default is False or is_list:
        options["negative"] = ""
    if group := noted.get("group"):
        options["group"] = Group(group, sort_key=settings.groups(cls).index(group))
    positional = name in settings.positional(cls)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY
    annotation = _bare(field.annotation) | None if is_list else _bare(field.annotation)
    default = None if is_list and not field.default else field.default
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, Parameter(**options)])


def _bare(annotation: Any) -> Any:
    """A type without its bounds, which the settings class checks itself, with words of our own.

    >>> _bare(settings.Positive | None)
    int | None
    """
    if get_origin(annotation) is Annotated:
        return _bare(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return functools.reduce(operator.or_, (_bare(part) for part in get_args(annotation)))
    return annotation


def _emit(text: str) -> None:
    """Write what a model says, as it comes; control characters could take over the terminal and are shown as U+FFFD."""
    print(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text), end="", flush=True)


def plain(value: Any) -> Any:
    """A result as JSON can hold it: dataclasses become objects, paths strings, numbers that are not finite null.

    >>> plain({"loss": float("nan"), "out": Path("runs")})
    {'loss': None, 'out': 'runs'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _explain(error: Exception) -> int:
    """Say what went wrong in the person's terms; returns the exit status."""
    if isinstance(error, GroundupError):
        return _say(str(error), status=error.status)
    if isinstance(error, CycloptsError):
        error.verbose = False
        return _say(f"{error}\n  -> groundup --help lists the commands, groundup COMMAND --help the flags", status=2)
    if isinstance(error, BrokenPipeError):  # the reader of our output left, as in `groundup ... | head`
        sys.stderr.close()
        return 0
    if isinstance(error, MemoryError):
        return _say("out of memory\n  -> lower --batch, --micro-batch, --context or --size", status=1)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _say(
            f"the disk is full: {error.filename or error}\n  -> free some space; what was saved before is whole",
            status=1,
        )
    if isinstance(error, PermissionError):
        return _say(f"no permission: {error.filename}\n  -> choose another path or change its rights", status=2)
    name = type(error).__name__
    return _say(
        f"unexpected {name}: {error}\n  -> this is a bug in groundup; repeat with --debug and report it", status=1
    )


def _say(text: str, *, status: int) -> int:
    print(f"groundup: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
