"""What README and guides say is run: every `groundup` command and every Python block, in order, in one folder."""

import re
import shlex
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

import readme
import survey

README = survey.ROOT / "README.md"
needs_readme = pytest.mark.skipif(not README.is_file(), reason="README.md is not written yet")
GUIDES = [survey.ROOT / "docs" / "tuning.md", survey.ROOT / "docs" / "preferences.md"]
FIRST_SCREEN = 40  # lines


def blocks() -> list[readme.Block]:
    return readme.blocks(README.read_text(encoding="utf-8"))


def commands() -> list[tuple[readme.Block, str]]:
    return [(block, command) for block in blocks() if block.language in readme.SHELL for command in block.commands]


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
    """In the order of the page, in one folder, since a later command uses what an earlier one made.

    What a newcomer starts with, the first block and the Python, runs as there: each command is a process of its own.
    """
    found = list(runs(README))
    assert found, "the README shows no command and no Python"
    first, failures = found[0][0], []
    for alone, part in groupby(found, key=lambda one: one[0] == first or one[1][1] == "-c"):
        shown = list(part)
        for group in [[one] for one in shown] if alone else [shown]:
            done = readme.run(group[0][1], tmp_path) if alone else readme.run_together(group, tmp_path)
            if done.returncode:
                said = f"{group[0][0]}: {group[0][1][1:]}\n" if alone else ""
                failures.append(f"{said}exit {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    assert not failures, "\n\n".join(failures)


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_commands_of_a_guide_run(page: Path, tmp_path: Path):
    """The same in one process."""
    found = list(runs(page))
    assert found, f"{page.name} shows no command and no Python"
    done = readme.run_together(found, tmp_path)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]


def runs(page: Path) -> Iterator[tuple[str, list[str]]]:
    """All that a page shows and does not excuse: its place, and the words of a process."""
    for block in readme.blocks(page.read_text(encoding="utf-8")):
        if block.kind == "skip" or (block.kind == "needs sample data" and not readme.DATA.is_dir()):
            continue
        for words in readme.programs(block):
            yield f"{page.name}:{block.line}", words


def test_pipes_and_redirections_are_refused_rather_than_passed_as_words():
    assert readme.changed(["groundup info --json"], "") == [["groundup", "info", "--json"]]
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
    assert readme.programs(block) == [[sys.executable, "-m", "groundup", "pretrain", "--steps", "2"]]
    [console] = readme.blocks("```console\n$ groundup info\nversion 1\n```")
    assert readme.programs(console) == [[sys.executable, "-m", "groundup", "info"]]
    [code] = readme.blocks("```python\nprint(1)\n```")
    assert readme.programs(code) == [[sys.executable, "-c", "print(1)"]]
    [other] = readme.blocks("```text\ngroundup nothing\n```")
    assert readme.programs(other) == []


TWO = "groundup pretrain --data harbor:2000 --lr 1 --steps 40 --out runs/a\ngroundup evaluate runs/a --data harbor:50:9"


@pytest.mark.parametrize(
    ("language", "text", "note", "said"),
    [
        ("bash", TWO, "--lr 0", "not --lr"),  # what is learnt, and how, is the page's
        ("bash", TWO, "--out runs/b", "not --out"),
        ("bash", TWO, "--steps 40", "asks for less"),
        ("bash", TWO, "--steps 400", "asks for less"),
        ("bash", TWO, "--data letters.txt", "has a place"),  # the count alone, never another text
        ("bash", TWO, "--data harbor:5:8", "has a place"),  # nor another seed
        ("bash", TWO, "--limit 3", "has a place"),  # to which of the two would it belong?
        ("bash", TWO.replace("40", "many"), "--steps 2", "has a place"),  # a slip of the page is not covered up
        ("bash", "groundup pretrain --steps many", "--steps 2", "has a place"),
        ("python", "pretrain(steps=30)", "--epochs 1", "no place"),
        ("python", "pretrain(steps=30)", "--steps 30", "no less"),
        ("python", "pretrain(lr=30)", "--lr 1", "no place"),
    ],
)
def test_a_note_can_only_ask_for_less(language: str, text: str, note: str, said: str):
    [block] = readme.blocks(f"<!-- test: with {note} because it is long -->\n```{language}\n{text}\n```")
    with pytest.raises(ValueError, match=said):
        readme.programs(block)


def test_a_note_changes_every_command_that_shows_the_flag():
    note = "--steps 2 --data harbor:20 --data harbor:5:9"
    trained, evaluated = readme.changed(TWO.splitlines(), note)
    assert shlex.join(trained) == "groundup pretrain --data harbor:20 --lr 1 --steps 2 --out runs/a"
    assert shlex.join(evaluated) == "groundup evaluate runs/a --data harbor:5:9"
    [timed] = readme.changed(["groundup pretrain --minutes 30"], "--steps 2")
    assert timed == ["groundup", "pretrain", "--steps", "2"]


def test_commands_in_one_process_stop_at_the_first_that_fails(tmp_path: Path):
    fine, wrong, ended = (
        [sys.executable, "-c", code] for code in ("print(1)", "print(nothing)", "raise SystemExit(0)")
    )
    unknown = [sys.executable, "-m", "groundup", "nothing"]
    assert readme.run_together([("a.md:1", fine), ("a.md:2", fine)], tmp_path).returncode == 0
    for bad in (wrong, unknown):
        done = readme.run_together([("a.md:1", fine), ("a.md:2", bad), ("a.md:3", fine)], tmp_path)
        assert done.returncode and "=== a.md:2" in done.stdout and "=== a.md:3" not in done.stdout
    assert readme.run_together([("a.md:1", ended), ("a.md:2", fine)], tmp_path).returncode
