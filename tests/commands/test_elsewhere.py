"""What docs/elsewhere.md says is run: its `groundup` commands and Python blocks, in order, in one folder.

A block that needs a program which is not installed is passed over, and named in the end; so is one that a note skips.
"""

import importlib.util
import re
import shlex
import sys
from itertools import groupby
from pathlib import Path

import pytest

import readme
import survey

PAGE = survey.ROOT / "docs" / "elsewhere.md"
WRITES_GGUF = re.compile(r"--to (gguf|ollama)\b")


def blocks() -> list[readme.Block]:
    return [block for block in readme.blocks(PAGE.read_text(encoding="utf-8")) if block.kind != "skip"]


def needed(text: str) -> set[str]:
    """The modules that a block of Python imports or a command takes for granted, but for the standard library."""
    names = re.findall(r"^(?:from|import) ([\w, ]+?)(?: import .*)?$", text, flags=re.MULTILINE)
    modules = {name.strip() for row in names for name in row.split(",")} - set(sys.stdlib_module_names)
    return modules | ({"gguf"} if WRITES_GGUF.search(text) else set())


def runs() -> list[tuple[str, str, list[str]]]:
    """Place, text and words of each thing to run, in the order of the page."""
    found = []
    for block in blocks():
        texts = [block.text] if block.language == "python" else block.commands
        for text, words in zip(texts, readme.programs(block), strict=block.language in {"python", "bash"}):
            found.append((f"elsewhere.md:{block.line}", text, words))
    return found


def test_every_command_that_is_not_skipped_is_ours():
    words = [shlex.split(line) for block in blocks() if block.language == "bash" for line in block.commands]
    assert words and all(line[0] == "groundup" for line in words)
    assert {line[line.index("--to") + 1] for line in words if "--to" in line} == {"hf", "gguf", "ollama", "tiktoken"}


def test_what_a_block_needs_is_seen():
    assert needed("from transformers import AutoTokenizer\n\nmodel = 1") == {"transformers"}
    assert needed("import base64, json, tiktoken") == {"tiktoken"}
    assert needed("groundup export runs/a --to gguf --check") == {"gguf"}
    assert needed("groundup export runs/a --to hf") == set()


@pytest.mark.slow
def test_the_page_works(tmp_path: Path):
    """Commands that follow each other share a process; Python starts its own, which knows nothing of Groundup."""
    failures, left_out, here = [], [], []
    for place, text, words in runs():
        missing = [name for name in needed(text) if importlib.util.find_spec(name) is None]
        if missing:
            left_out.append(f"{place}: {', '.join(missing)} is not installed")
        else:
            here.append((place, words))
    for python, part in groupby(here, key=lambda one: one[1][1] == "-c"):
        group = list(part)
        for some in [[one] for one in group] if python else [group]:
            done = readme.run(some[0][1], tmp_path) if python else readme.run_together(some, tmp_path)
            if done.returncode:
                failures.append(f"{some[0][0]}: exit {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    assert not failures, "\n\n".join(failures)
    assert len(here) >= 4  # training, hf, tiktoken and its lines
    if left_out:
        print("not run:", *left_out, sep="\n  ")
