"""Every knob is explained and turns something; every row of the command table has what it needs."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import survey
from groundup import settings
from groundup.cli import COMMANDS, Command

ROWS = [pytest.param(name, row, id=name) for name, row in COMMANDS.items()]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_setting_is_explained(name: str, row: Command):
    unexplained = [field for field, info in row.settings.model_fields.items() if not (info.description or "").strip()]
    assert not unexplained, f"{name}: no help text for {unexplained}"
    assert row.settings.__doc__, f"{row.settings.__name__} has no docstring, which is the help of `groundup {name}`"
    for field, info in row.settings.model_fields.items():
        assert not (info.description or "").endswith("."), (
            f"{name} --{field}: help texts are phrases, without a full stop"
        )


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_row_names_a_run_that_takes_its_settings(name: str, row: Command):
    module, _, function = row.module.partition(":")
    run = getattr(importlib.import_module(module), function or "run")
    first = next(iter(inspect.signature(run, eval_str=True).parameters.values()))
    assert first.annotation is row.settings, (
        f"{row.module} takes {first.annotation}, the table says {row.settings.__name__}"
    )
    assert row.examples and all(line.startswith(f"groundup {name}") for line in row.examples)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_setting_reaches_somebody(name: str, row: Command):
    """A flag that nobody reads is a lie: below the command each is read as `settings.<field>`, or by its name."""
    words = set().union(*(read_names(file) for file in reachable(row.module.partition(":")[0])))
    dead = [field for field in row.settings.model_fields if field not in words]
    assert not dead, f"nothing below {row.module} reads these settings of `groundup {name}`: {dead}"


def reachable(module: str) -> set[Path]:
    """The files a module imports, at any depth, itself included, settings not."""
    start = survey.owner(module)
    assert start is not None and survey.module(start) == module, f"there is no {module}"
    found: set[Path] = set()
    todo = [start]
    while todo:
        file = todo.pop()
        if file in found or survey.inside(file).startswith("settings/"):
            continue
        found.add(file)
        todo += survey.below(file)
    return found


def read_names(file: Path) -> set[str]:
    """Attributes of anything called settings or chosen, and names as strings: "steps", or "lr seed".split()."""
    names = set()
    for node in ast.walk(survey.syntax(file)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] in {"settings", "chosen"}:
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)
        elif isinstance(node, ast.Attribute) and node.attr == "split" and isinstance(node.value, ast.Constant):
            names.update(str(node.value.value).split())
    return names


def test_reading_is_told_from_mentioning(tmp_path: Path):
    file = tmp_path / "stage.py"
    text = '"""The seed."""\ndef run(settings, self):\n    f("lr decays")\n    settings.steps, self.settings.clip\n'
    file.write_text(text + '    self.width\n    return "keep", "beta1 beta2".split()\n', encoding="utf-8")
    assert read_names(file) == {"steps", "clip", "keep", "beta1", "beta2"}


def test_examples_of_the_help_pages_name_real_flags():
    for name, row in COMMANDS.items():
        flags = {f"--{field.replace('_', '-')}" for field in row.settings.model_fields} | {
            "--json",
            "--config",
            "--debug",
        }
        flags |= {flag.replace("--", "--no-", 1) for flag in flags}
        for example in row.examples:
            used = {word for word in example.split() if word.startswith("--")}
            assert used <= flags, f"groundup {name}: the example {example!r} uses {used - flags}"


def test_defaults_pass_their_own_checks():
    """pydantic does not check defaults by itself; here each is given explicitly once."""
    for row in COMMANDS.values():
        plain = row.settings.create().model_dump()
        assert row.settings.create(**plain) == row.settings.create()


def test_settings_come_back_from_their_file(tmp_path: Path):
    for row in COMMANDS.values():
        chosen = row.settings.create()
        file = tmp_path / f"{row.settings.__name__}.toml"
        file.write_text(chosen.to_toml(), encoding="utf-8")
        assert row.settings.create(config=file) == chosen


def test_what_may_change_on_resume_is_a_setting():
    assert settings.Pretrain.may_change_on_resume <= set(settings.Pretrain.model_fields)


def test_the_parser_answers_an_unknown_flag_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(survey.PACKAGE.parent)!r}); "
         "from groundup.cli import main; sys.exit(main(['pretrain', '--stepz', '3']))"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--steps" in done.stderr and "Traceback" not in done.stderr
