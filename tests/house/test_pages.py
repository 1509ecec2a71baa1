"""What the pages claim about the house is so: links, file names, make targets, commands, the floor table."""

import re
from pathlib import Path

import pytest

import readme
import reference
import survey
from groundup.cli import COMMANDS

PAGES = [path for path in survey.tracked() if path.suffix == ".md"] or sorted(survey.ROOT.glob("*.md"))
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(survey.ROOT).as_posix())


def quoted(page: Path) -> list[str]:
    """What stands in `backticks` outside fenced blocks."""
    outside = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", outside)


@each_page
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.split("#")[0] for link in links if not re.match(r"https?:|mailto:|#", link)]
    broken = [link for link in local if not (page.parent / link).exists()]
    assert not broken, f"{page.name} links to nothing: {broken}"


@each_page
def test_files_that_are_named_exist(page: Path):
    """A path counts when it begins with a folder of the package or of the repository; <name> and patterns do not."""
    bases = (survey.PACKAGE, survey.ROOT)
    paths = [Path(text) for text in quoted(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", text)]
    ours = [path for path in paths if path.suffix == ".py" and any((base / path.parts[0]).is_dir() for base in bases)]
    missing = [path.as_posix() for path in ours if not any((base / path).exists() for base in bases)]
    assert not missing, f"{page.name} names files that are not there: {missing}"


@each_page
def test_commands_that_are_named_exist(page: Path):
    targets, tops = readme.targets(survey.ROOT / "Makefile"), {name.split()[0] for name in COMMANDS}
    for text in quoted(page):
        words = text.split()
        if words[0] == "make" and len(words) > 1 and words[1].isidentifier():
            assert words[1] in targets, f"{page.name}: there is no `{text}`"
        if words[0] == "groundup" and len(words) > 1 and words[1].isidentifier() and words[1].islower():
            assert words[1] in tops, f"{page.name}: there is no `{text}`"


def test_the_floor_table_of_contributing_is_the_one_the_tests_hold():
    text = (survey.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+` ?)+)\|", text, flags=re.MULTILINE)
    told = {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)}
    there = {room for file in survey.files() if (room := survey.room(file)) not in {"", "__main__"}}
    assert told == {room: survey.FLOORS[room] for room in there}


def test_the_settings_page_is_fresh():
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "settings changed: run `make reference`"


def test_every_make_target_is_in_its_help():
    makefile = (survey.ROOT / "Makefile").read_text(encoding="utf-8")
    told = set(re.findall(r'@echo "make (\w+) ', makefile)) | {"help"}
    assert told == readme.targets(survey.ROOT / "Makefile")
