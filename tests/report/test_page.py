"""The page as a whole: safe with any text, small, quick, whole or not there at all."""

import errno
import html.parser
import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from groundup import report
from groundup.errors import DataError
from groundup.journal import Journal
from groundup.report.page import comparable, judge, labels, single
from groundup.report.read import Run, Sample, load

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"' \x1b[31m"
VOID = {"meta", "input", "path", "img", "br"}


class Checker(html.parser.HTMLParser):
    """Notes the tags of a page, and fails where they are not nested."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.seen = list[str](), list[tuple[str, dict[str, str | None]]]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker.seen


def made(folder: Path, steps: int = 40, *, settings: str = "", sample: str = "it speaks") -> Path:
    """A run folder with a falling loss, evaluated every tenth step."""
    folder.mkdir(parents=True)
    (folder / "settings.toml").write_text(f"steps = {steps}\nclip = 1.0\n{settings}", encoding="utf-8")
    journal, lines = Journal(folder), list[str]()
    for step in range(1, steps + 1):
        loss, counted = 2 + 2 * math.exp(-step / steps), {"tokens": 64 * step, "seconds": step / 3}
        train = {"step": step, "kind": "train", "loss": loss, "lr": 1e-3, "gradient_norm": 0.5} | counted
        lines.append(json.dumps(train))
        if step % (steps // 4) == 0:
            record = {"step": step, "kind": "eval", "loss": loss + 0.1, "perplexity": 9.0, "bits_per_byte": 2.5}
            lines.append(json.dumps(record))
            journal.sample(step, "", f"{sample} at {step}")
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_page_is_whole_and_names_no_address(tmp_path: Path):
    path = report.write(made(tmp_path / "run"))
    assert path == tmp_path / "run" / "report.html"
    page = path.read_text(encoding="utf-8")
    found = tags(page)
    assert not [attrs for _, attrs in found if {"src", "href", "srcset", "action"} & attrs.keys()]
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page.replace('"//', ""))
    assert all(attrs.get("aria-label") for _, attrs in found if attrs.get("role") == "img")
    assert sum(attrs.get("class") == "plot" for _, attrs in found) == 3 * 4  # steps, tokens, time
    assert sum(attrs.get("name") == "along" for _, attrs in found) == 3


def test_any_text_from_outside_is_shown_not_obeyed(tmp_path: Path):
    folder = made(tmp_path / "<b>run", settings='data = ["<i>x</i>"]\nunknown = "<u>"\n', sample=EVIL)
    Journal(folder).write(41, kind="train", loss=None, skipped=EVIL)
    for page in (single(load(folder), *judge(load(folder))), _two(folder, made(tmp_path / "b"))):
        assert sum(tag == "script" for tag, _ in tags(page)) == 1
        assert not [tag for tag, _ in tags(page) if tag in ("img", "b", "u")]
        assert not [attrs for _, attrs in tags(page) if any(name.startswith("on") for name in attrs)]
        assert "\x1b" not in page and "&lt;/script&gt;" in page


def _two(first: Path, second: Path) -> str:
    return report.compare([first, second], first.parent / "both.html").read_text(encoding="utf-8")


def test_the_only_script_that_may_run_is_ours(tmp_path: Path):
    import base64
    import hashlib

    page = report.write(made(tmp_path / "run")).read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page and "default-src 'none'" in page


def test_marked_passages_are_marked_and_still_escaped():
    from groundup.report.verbatim import Copied, Passage

    quote = "a < b & the rest of a long passage that was learnt by heart"
    run = Run(samples=(Sample(3, f"so {quote} yes"),))
    page = single(run, [], Copied(3, (Passage(quote, 1),), 9, 9))
    assert "so <mark>a &lt; b &amp; the rest of a long passage that was learnt by heart</mark> yes" in page


def test_ten_thousand_records_make_a_small_page_quickly(tmp_path: Path):
    folder = made(tmp_path / "run", 10_000)
    for step in range(200):
        Journal(folder).sample(20_000 + step, "", "word " * 60)
    began = time.process_time()
    path = report.write(folder)
    spent = time.process_time() - began
    assert path.stat().st_size < 500_000
    assert spent < 30  # CPU seconds; about half of one is usual: this only catches a slip to quadratic time


def test_a_spike_survives_thinning(tmp_path: Path):
    folder = made(tmp_path / "run", 8_000)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    lines[4321] = re.sub(r'"loss": [\d.]+', '"loss": 77.0', lines[4321])
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = report.write(folder).read_text(encoding="utf-8")
    raw = re.search(r'class="line raw c0" d="M([^"]*)"', page)
    assert raw and min(float(point.split(" ")[1]) for point in raw[1].split("L")) < 60  # near the top of the chart


def test_a_full_disk_leaves_the_report_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = made(tmp_path / "run")
    before = report.write(folder).read_bytes()

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="cannot write .*No space left on device"):
        report.write(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".*")), "nothing half-written may stay"


def test_a_file_that_is_no_report_is_not_written_over(tmp_path: Path):
    mine = tmp_path / "mine.html"
    mine.write_text("<h1>mine</h1>", encoding="utf-8")
    with pytest.raises(DataError, match="exists and is no report"):
        report.write(made(tmp_path / "run"), mine)
    assert mine.read_text(encoding="utf-8") == "<h1>mine</h1>"
    with pytest.raises(DataError, match="cannot write"):
        report.write(tmp_path / "run", tmp_path)


def test_runs_side_by_side_show_what_differs_and_only_that(tmp_path: Path):
    first = made(tmp_path / "a", settings="lr = 0.125\nbatch = 7\n")
    page = _two(first, made(tmp_path / "b", settings="lr = 0.25\nbatch = 7\n"))
    part = page[page.index("Settings that differ") : page.index("What it means")]
    assert "0.125" in part and "0.25" in part and "batch" not in part
    assert "lowest validation loss" in page and "cannot be set against each other" not in page


def test_losses_over_other_vocabularies_are_not_ranked(tmp_path: Path):
    first = made(tmp_path / "a", settings='tokenizer = "chars"\n')
    page = _two(first, made(tmp_path / "b", settings='tokenizer = "bpe"\n'))
    assert "cannot be set against each other" in page and "\u2605 lowest" not in page
    assert not comparable([Run(sources=({"sha256": "a"},)), Run(sources=({"sha256": "b"},))])


def test_the_same_name_twice(tmp_path: Path):
    assert labels([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ["x/run", "y/run"]
    assert labels([tmp_path, tmp_path]) == [f"{tmp_path.name} (1)", f"{tmp_path.name} (2)"]
