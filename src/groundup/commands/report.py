"""`groundup report`: what a training run did, as a page to look at; several runs side by side.

In: `settings.Report`. Out: the page, and `Result`: figures and remarks of each run.
"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from groundup import report
from groundup.errors import SettingsError
from groundup.report import page
from groundup.settings import Report


@dataclass(frozen=True)
class Told:
    """One run in figures and words."""

    figures: report.Figures
    remarks: list[report.Remark]


@dataclass(frozen=True)
class Result:
    """The page that was written, and what stands in it."""

    page: Path
    runs: list[Told]


def run(settings: Report) -> Result:
    """Read the runs, write the page, show it if asked to.

    >>> run(Report(runs=["runs/letters"])).page  # doctest: +SKIP
    PosixPath('runs/letters/report.html')
    """
    if not settings.runs:
        raise SettingsError("no run was given", "name a run folder: groundup report runs/NAME")
    runs = [report.load(Path(folder)) for folder in settings.runs]
    judged = [page.judge(one) for one in runs]
    if len(runs) == 1:
        out = settings.out or runs[0].folder / page.NAME
        path = page.put(out, page.single(runs[0], *judged[0]))
    else:
        path = page.put(
            settings.out or Path("comparison.html"), page.side_by_side(runs, [found for found, _ in judged])
        )
    if settings.open:
        webbrowser.open(path.resolve().as_uri())
    told = [Told(report.figures(one), found) for one, (found, _) in zip(runs, judged, strict=True)]
    return Result(path, told)


def show(result: Result) -> None:
    """Print the remarks, and where the page is."""
    for told in result.runs:
        print(f"{told.figures.run}")
        for remark in told.remarks:
            print(f"  {remark.severity + ':':9}{remark.seen}")
            print(f"           -> {remark.do}")
    print(f"the page: {result.page}")
