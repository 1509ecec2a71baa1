"""The data of a run that tunes: divided once, and read back ever after."""

import json
from pathlib import Path

import pytest

from groundup.errors import CheckpointError
from groundup.stages import data
from groundup.text.split import Split


def write(path: Path, rows: list[int]) -> None:
    path.write_text("".join(f"{row}\n" for row in rows))


def read(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


def made() -> tuple[Split[int], dict[str, int]]:
    return Split([1, 2], [3], []), {"read": 3}


def test_data_are_divided_once(tmp_path: Path):
    assert data.divided(tmp_path, made, write) == {"read": 3}
    assert data.divided(tmp_path, lambda: pytest.fail("divided again"), write) == {"read": 3}
    assert data.parts(tmp_path, read).parts() == {"train": [1, 2], "valid": [3], "test": []}


def test_a_start_that_was_killed_before_the_notes_divides_anew(tmp_path: Path):
    def killed(path: Path, rows: list[int]) -> None:
        if path.name == "valid.jsonl":
            raise KeyboardInterrupt
        write(path, [7])

    with pytest.raises(KeyboardInterrupt):
        data.divided(tmp_path, made, killed)
    assert not (tmp_path / "data" / data.NOTES).exists()
    data.divided(tmp_path, made, write)
    assert data.parts(tmp_path, read).train == [1, 2]
    assert json.loads((tmp_path / "data" / data.NOTES).read_text()) == {"read": 3}


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_lost_part_is_named(tmp_path: Path, name: str):
    data.divided(tmp_path, made, write)
    (tmp_path / "data" / f"{name}.jsonl").unlink()
    with pytest.raises(CheckpointError, match=rf"{name}\.jsonl is missing"):
        data.parts(tmp_path, read)
