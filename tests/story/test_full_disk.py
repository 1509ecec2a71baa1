"""A disk that runs full leaves the last checkpoint whole, says so, and the run goes on to the same bits."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("full_disk", Path(__file__).with_name("full_disk.py"))
full_disk = sys.modules["full_disk"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
spec.loader.exec_module(full_disk)


@pytest.mark.slow
def test_a_disk_that_is_too_small_costs_nothing_but_time(tmp_path):
    text = tmp_path / "story.txt"
    text.write_text(full_disk.TEXT, encoding="utf-8")
    try:
        with full_disk.small_disk(tmp_path / "disk") as disk:
            assert full_disk.train(tmp_path / "whole", text, steps=20).status == 0
            size = full_disk.size_of(tmp_path / "whole")
            half, middle = full_disk.squeezes(size)[2:4]
            ended = full_disk.train(disk / "run", text, half, steps=20)
            assert ended.status == 1 and "Traceback" not in ended.said
            assert "step-00000005 (needs" in ended.said and "--resume" in ended.said
            ended = full_disk.train(disk / "run", text, middle, steps=20)
            assert ended.status == 1 and "the disk is full" in ended.said
            full_disk.checkpoints(disk / "run")  # raises if one is not whole
            assert full_disk.train(disk / "run", text).status == 0
            assert full_disk.digest(disk / "run") == full_disk.digest(tmp_path / "whole")
    except OSError as error:
        if "cannot mount" not in str(error):
            raise
        pytest.skip(str(error))
