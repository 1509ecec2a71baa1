"""A run that is killed and resumed ends in the same bits as one that was left in peace."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("kill", Path(__file__).with_name("kill.py"))
kill = sys.modules["kill"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
spec.loader.exec_module(kill)


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path):
    whole, killed = kill.Run(tmp_path / "whole"), kill.Run(tmp_path / "killed")
    whole.finish(resume=False)
    kills = kill.killed_run(killed, kills=3, inside=1, seed=1)
    assert len(kills) == 3, "the run ended before it could be killed often enough"
    assert sum(done.inside for done in kills) >= 1
    assert killed.digest() == whole.digest()
    assert killed.journal() == whole.journal()
