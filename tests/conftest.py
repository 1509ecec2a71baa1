"""Shared fixtures: where the sample data lives, and a settled number of threads."""

import os
from pathlib import Path

import pytest
import setuptools  # noqa: F401  before anything imports distutils: torch's compiler takes both, in this order alone
from hypothesis import settings

settings.register_profile("groundup", deadline=None)  # a busy machine makes any deadline fail now and then
settings.load_profile("groundup")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public sample data: $GROUNDUP_DATA, or a folder shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GROUNDUP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(
            f"sample data not found at {folder}: set GROUNDUP_DATA (`groundup prepare --help` names the originals)"
        )
    return folder


WIDE = ("hostile", "lessons", "parity")  # rooms of tests that watch the whole house: other programs, files that lie


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The wide rooms count as slow: `make check`, before each commit, leaves them to `make test`."""
    rooms = {Path(__file__).parent / room for room in WIDE}
    for item in items:
        if not rooms.isdisjoint(item.path.parents):
            item.add_marker(pytest.mark.slow)
