"""Prints the shape of the house: the longest import chain, and the sizes of files and functions (`make picture`)."""

import statistics
from functools import cache
from pathlib import Path

import survey


@cache
def chain(file: Path) -> tuple[Path, ...]:
    """The longest way down from a file, room by room, by the imports it has at any depth."""
    found = survey.imports(file) + (survey.table() if survey.inside(file) == "cli.py" else [])
    below = {target for one in found if (target := survey.owner(one.target)) is not None}
    lower = [
        target for target in below if survey.FLOORS.get(survey.room(target), 99) < survey.FLOORS[survey.room(file)]
    ]
    return (file, *max((chain(target) for target in sorted(lower)), key=len, default=()))


def summary(name: str, sizes: list[tuple[int, str]]) -> str:
    """One line: median, ninth decile, the largest and where it is."""
    counts = [count for count, _ in sizes]
    largest, where = max(sizes)
    tenth = statistics.quantiles(counts, n=10)[-1]
    middle = statistics.median(counts)
    return f"{name}: {len(sizes)}, lines median {middle:.0f}, p90 {tenth:.0f}, largest {largest} ({where})"


def main() -> None:
    """Print the picture."""
    housed = [file for file in survey.files() if survey.room(file)]
    longest = max((chain(file) for file in housed), key=len)
    print("longest import chain:")
    for depth, file in enumerate(longest):
        print(f"  {'  ' * depth}{survey.inside(file)} (floor {survey.FLOORS[survey.room(file)]})")
    print(
        summary(
            "files",
            [(len(file.read_text(encoding="utf-8").splitlines()), survey.inside(file)) for file in survey.files()],
        )
    )
    print(
        summary(
            "functions", [(found.lines, found.place) for file in survey.files() for found in survey.functions(file)]
        )
    )


if __name__ == "__main__":
    main()
