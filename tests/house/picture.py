"""Prints the shape of the house: the longest import chain, and the sizes of files and functions (`make picture`)."""

import statistics
from functools import cache
from pathlib import Path

import survey


@cache
def chain(file: Path) -> tuple[Path, ...]:
    """The longest way down from a file, by what runs when it is imported; a house test keeps circles out of that."""
    lower = [target for target in survey.below(file, every_depth=False) if survey.room(target)]
    return (file, *max((chain(target) for target in lower), key=len, default=()))


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
