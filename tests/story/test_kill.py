"""A run that is killed and resumed ends in the same bits as one that was left in peace."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("kill", Path(__file__).with_name("kill.py"))
kill = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kill)


@pytest.mark.slow
def test_six_kills_change_nothing(tmp_path):
    kill.finish(tmp_path / "whole", resume=False)
    kills = kill.killed_run(tmp_path / "killed", kills=6, inside=2, seed=1)
    assert len(kills) >= 4, "the run ended before it could be killed often enough"
    assert kill.digest(tmp_path / "killed") == kill.digest(tmp_path / "whole")
    assert kill.journal(tmp_path / "killed") == kill.journal(tmp_path / "whole")
