"""Writes docs/settings.md, the page of every setting, from the settings classes (`make reference`)."""

from pathlib import Path

from pydantic.fields import FieldInfo

from groundup.cli import COMMANDS, Command
from groundup.settings import Settings, extra
from survey import ROOT

PIPE = "\\|"  # a bare one would end the cell, even within code
PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Every setting

This page is written by `make reference` from `src/groundup/settings/`; a test keeps it true. Each setting is a flag
(`--eval-every 100`) and a line of a TOML file (`eval_every = 100`) that `--config FILE` reads. A flag wins over the
file, the file over the default. A setting marked with \\* may also be given without its name, right after the command.
Every command also takes `--json`, which prints the result as one JSON object, and `--debug`, which shows tracebacks.
"""


def page() -> str:
    """The whole page as text."""
    return "\n".join([HEAD, *(section(name, row) for name, row in COMMANDS.items())])


def section(name: str, row: Command) -> str:
    """One command: what it does, examples, and a table with a line per setting."""
    lines = [
        f"## groundup {name}",
        "",
        " ".join((row.settings.__doc__ or "").split()),
        "",
        "```text",
        *row.examples,
        "```",
        "",
    ]
    lines += ["| setting | default | meaning |", "|---|---|---|"]
    lines += [line(row.settings, field) for field in row.settings.model_fields]
    return "\n".join(lines) + "\n"


def line(cls: type[Settings], name: str) -> str:
    """One row of a table.

    >>> from groundup.settings import Pretrain
    >>> line(Pretrain, "beta1")
    '| `beta1` | `0.9` | AdamW beta 1 |'
    """
    field = cls.model_fields[name]
    mark = "\\*" if extra(field).get("positional") else ""
    cells = (f"`{name}`{mark}", default(field), field.description or "")
    return f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |"


def default(field: FieldInfo) -> str:
    """The default as one would write it; nothing where the meaning says how it is chosen."""
    value = field.default
    if value is None or value == [] or value == "":
        return ""
    if isinstance(value, list):
        return f"`{' '.join(map(str, value))}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"wrote {PAGE.relative_to(ROOT)}")
