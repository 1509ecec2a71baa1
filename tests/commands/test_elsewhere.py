"""What docs/elsewhere.md says is run: its `groundup` commands and Python blocks, in order, in one folder.

A block that needs a program which is not installed is passed over, and named in the end; so is one that a note skips.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
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


def programs() -> list[tuple[int, str, list[str]]]:
    """Line, text and words of each thing to run, in the order of the page."""
    found = []
    for block in blocks():
        if block.language == "python":
            found.append((block.line, block.text, [sys.executable, "-c", block.text]))
        elif block.language == "bash":
            found += [(block.line, line, [sys.executable, "-m", *shlex.split(line)]) for line in block.commands]
    return found


def test_every_command_that_is_not_skipped_is_ours():
    words = [words for _, _, words in programs() if words[1] == "-m"]
    assert words and all(line[2] == "groundup" for line in words)
    assert {line[line.index("--to") + 1] for line in words if "--to" in line} == {"hf", "gguf", "ollama", "tiktoken"}


def test_what_a_block_needs_is_seen():
    assert needed("from transformers import AutoTokenizer\n\nmodel = 1") == {"transformers"}
    assert needed("import base64, json, tiktoken") == {"tiktoken"}
    assert needed("groundup export runs/a --to gguf --check") == {"gguf"}
    assert needed("groundup export runs/a --to hf") == set()


@pytest.mark.slow
def test_the_page_works(tmp_path: Path):
    path = [str(survey.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "COLUMNS": "100"}
    failures, left_out, ran = [], [], 0
    for line, text, words in programs():
        missing = [name for name in needed(text) if importlib.util.find_spec(name) is None]
        if missing:
            left_out.append(f"line {line}: {', '.join(missing)} is not installed")
            continue
        ran += 1
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=600, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            shown = done.stdout[-1500:] + done.stderr[-1500:]
            failures.append(f"elsewhere.md:{line}: {text}\nexit {done.returncode}\n{shown}")
    assert not failures, "\n\n".join(failures)
    assert ran >= 4  # training, hf, tiktoken and its lines
    if left_out:
        print("not run:", *left_out, sep="\n  ")
