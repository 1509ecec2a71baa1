"""Each lesson runs once: its own tests read its variables, the ladder the figures that came up on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup import figures
from groundup.figures import Finding
from groundup.lessons import ladder

HERE = Path(__file__).parent
TESTED_BY = {"preferences": "preferences_by_hand", "openai_weights": "checkpoints"}  # others by the file of their name


@pytest.fixture(scope="session")
def findings() -> dict[str, list[Finding]]:
    """What lessons that have run said about their figures. Variables are not kept: some hold a network of 1.3 GB."""
    return {}


@pytest.fixture(scope="session")
def climb(findings: dict[str, list[Finding]]) -> Callable[..., dict[str, Any]]:
    """`ladder.run`, which also notes the findings; $GROUNDUP_DATA is for the caller to set."""

    def climbed(name: str, **options: Any) -> dict[str, Any]:
        with figures.recording() as found:
            variables = ladder.run(name, **options)
        findings[name] = found
        return variables

    return climbed


def subject(item: pytest.Item) -> tuple[str, bool]:
    """The file that tests a lesson, and whether this is the ladder's word on the same lesson."""
    callspec = getattr(item, "callspec", None)
    rung = callspec.params.get("rung") if callspec else None
    return (f"test_{TESTED_BY.get(rung.name, rung.name)}", True) if rung else (item.path.stem, False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The ladder's tests of a lesson follow the lesson's own: neighbours as a rule go to the same process."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    for place, item in zip(places, sorted((items[place] for place in places), key=subject), strict=True):
        items[place] = item
