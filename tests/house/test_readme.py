"""What README and guides say is run: every `groundup` command and every Python block, in order, in one folder."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import readme
import survey

README = survey.ROOT / "README.md"
needs_readme = pytest.mark.skipif(not README.is_file(), reason="README.md is not written yet")
GUIDES = [survey.ROOT / "docs" / "tuning.md", survey.ROOT / "docs" / "preferences.md"]
DATA = Path(os.environ.get("GROUNDUP_DATA", survey.ROOT.parent / "shared" / "data"))
ONE_BY_ONE = """
import json, sys
from groundup.cli import main

for place, words in json.loads(sys.argv[1]):
    print(f"=== {place}: {words}", flush=True)
    status = main(words[1:]) if words[0] == "groundup" else exec(words[1], {})
    if status:
        sys.exit(f"{place}: {words}: exit {status}")
"""
FIRST_SCREEN = 40  # lines
SHELL = {"bash", "console", "sh", "shell"}


def blocks() -> list[readme.Block]:
    return readme.blocks(README.read_text(encoding="utf-8"))


def commands() -> list[tuple[readme.Block, str]]:
    return [(block, command) for block in blocks() if block.language in SHELL for command in block.commands]


@needs_readme
def test_every_command_is_of_a_kind_the_tests_know():
    strange = [
        f"README.md:{block.line}: {command}"
        for block, command in commands()
        if block.kind != "skip" and shlex.split(command)[0] not in readme.COMMANDS
    ]
    assert not strange, f"start with one of {readme.COMMANDS}, or skip with a reason:\n" + "\n".join(strange)


@needs_readme
def test_the_first_screen_has_exactly_two_commands():
    """A newcomer sees `make demo` and `make test`, each doing all set-up; CI runs both."""
    shown = [command for block, command in commands() if block.line <= FIRST_SCREEN and command.startswith("make ")]
    assert [command.split("#")[0].strip() for command in shown] == ["make demo", "make test"]
    run = (survey.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make demo" in run and "make test" in run


@needs_readme
def test_library_use_fits_in_ten_lines():
    code = [block.text for block in blocks() if block.language == "python" and block.kind != "skip"]
    assert code, "the README shows no Python"
    lines = [line for line in code[0].splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 10


@needs_readme
def test_make_targets_exist():
    there = readme.targets(survey.ROOT / "Makefile")
    asked = {
        words[1]
        for _, command in commands()
        if (words := shlex.split(command, comments=True))[0] == "make" and len(words) > 1
    }
    assert asked <= there, f"not in the Makefile: {asked - there}"


@needs_readme
def test_set_up_commands_have_a_form_that_works():
    """Cloning and installing are not run here (no network in tests): only what they must look like."""
    forms = {
        "git": r"git clone \S+( \S+)?",
        "pip": r"pip install (-e )?['\"]?\.(\[dev\])?['\"]?( -c constraints\.txt)?",
        "python": r"python3? -m (venv|pip|groundup)\b.*|python3? \S+\.py\b.*",
        "cd": r"cd [\w./-]+",
        "source": r"source \S+/activate",
    }
    for block, command in commands():
        form = forms.get(shlex.split(command)[0])
        if form and block.kind != "skip":
            bare = command.split(" #")[0].strip()
            assert re.fullmatch(form, bare), f"README.md:{block.line}: {command!r} has not the form {form}"


@pytest.mark.slow
@needs_readme
def test_commands_and_python_blocks_run(tmp_path: Path):
    """In the order of the page, in one folder, since a later command uses what an earlier one made."""
    failures = []
    found = list(runs(README))
    for place, words in found:
        done = run(words, tmp_path)
        if done.returncode:
            tail = done.stdout[-1500:] + done.stderr[-1500:]
            failures.append(f"{place}: {' '.join(words[1:])}\nexit {done.returncode}\n{tail}")
    assert not failures, "\n\n".join(failures)
    assert found, "the README shows no command and no Python"


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_commands_of_a_guide_run(page: Path, tmp_path: Path):
    """The same, one command after the other in one process, which saves starting each by itself."""
    found = [(place, words[2:] if words[1] == "-m" else words[1:]) for place, words in runs(page)]
    assert found, f"{page.name} shows no command and no Python"
    done = run([sys.executable, "-c", ONE_BY_ONE, json.dumps(found)], tmp_path)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert done.stdout.count("=== ") == len(found)


def runs(page: Path) -> Iterator[tuple[str, list[str]]]:
    """All that a page shows and does not excuse: its place, and the words of a process."""
    for block in readme.blocks(page.read_text(encoding="utf-8")):
        if block.kind == "skip" or (block.kind == "needs sample data" and not DATA.is_dir()):
            continue
        for words in programs(block):
            yield f"{page.name}:{block.line}", words


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GROUNDUP_DATA": str(DATA), "PYTHONPATH": str(survey.PACKAGE.parent), "COLUMNS": "100"}
    return subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=900,
    )


def programs(block: readme.Block) -> list[list[str]]:
    """What to run for a block: its Python as a whole, or its `groundup` commands one by one, by this Python."""
    if block.language == "python":
        return [[sys.executable, "-c", block.text]]
    lines = [line for line in block.commands if shlex.split(line)[0] == "groundup"] if block.language in SHELL else []
    if block.kind == "with":
        assert len(lines) == 1, f"README.md:{block.line}: `with` stands before a block of one groundup command"
    result = []
    for line in lines:
        plain = shlex.join(shlex.split(line, comments=True))
        result.append([sys.executable, "-m", *readme.changed(plain, block.words if block.kind == "with" else "")])
    return result


def test_pipes_and_redirections_are_refused_rather_than_passed_as_words():
    assert readme.changed("groundup info --json", "") == ["groundup", "info", "--json"]
    if README.is_file():
        piped = [
            command for block, command in commands() if block.kind != "skip" and re.search(r"\s[|><]|&&|;", command)
        ]
        assert not piped, f"one command a line, no shell syntax, or skip with a reason: {piped}"


@pytest.mark.parametrize(
    "note",
    [
        "<!-- test: skip -->",
        "<!-- test: with --steps 2 -->",
        "<!-- test: perhaps because of rain -->",
        "<!-- test: skip because -->",
    ],
)
def test_a_note_without_a_reason_is_an_error(note: str):
    with pytest.raises(ValueError, match="without a form or a reason"):
        readme.blocks(f"{note}\n```bash\ngroundup info\n```")


def test_programs_of_a_block():
    with_note = "<!-- test: with --steps 2 because it is long -->\n"
    [block] = readme.blocks(f"{with_note}```bash\n# train\ngroundup pretrain --steps 900  # long\nmake test\n```")
    assert programs(block) == [[sys.executable, "-m", "groundup", "pretrain", "--steps", "2"]]
    [console] = readme.blocks("```console\n$ groundup info\nversion 1\n```")
    assert programs(console) == [[sys.executable, "-m", "groundup", "info"]]
    [code] = readme.blocks("```python\nprint(1)\n```")
    assert programs(code) == [[sys.executable, "-c", "print(1)"]]
    [other] = readme.blocks("```text\ngroundup nothing\n```")
    assert programs(other) == []
