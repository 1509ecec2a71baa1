"""The page: one HTML file without any address in it, for one run or for several side by side.

In: run folders. Out: a file that opens without a network. An earlier report stays whole until the new one is.
"""

import base64
import errno
import hashlib
import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from groundup.errors import DataError
from groundup.report import classes, pairs, panels, parts
from groundup.report.figures import Figures, figures
from groundup.report.look import SCRIPT, STYLE
from groundup.report.parts import text
from groundup.report.read import Run, load
from groundup.report.remark import Remark
from groundup.report.remarks import remarks
from groundup.report.verbatim import Copied, copied

NAME = "report.html"
MARK = "<!-- groundup report -->"  # in the first line: only such a file is ever written over
# what else must be the same for the marks of two runs to mean the same: whose rows are held out, what they are asked
HELD_OUT = ("data", "test", "seed", "protocol")
OWN: dict[str, tuple[str, ...]] = {
    "reward": (*HELD_OUT, "margins"),
    "dpo": (*HELD_OUT, "loss", "beta", "average"),
    "ppo": (*HELD_OUT, "reward", "response_tokens"),
}


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of one run, by default as `report.html` into its folder; returns the file.

    Raises DataError if the folder is no run, and if the file cannot be written: then an earlier report is as it was.

    >>> write(Path("runs/letters"))  # doctest: +SKIP
    PosixPath('runs/letters/report.html')
    """
    run = load(Path(folder))
    return put(Path(out or Path(folder) / NAME), single(run, *judge(run)))


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write one page that lays several runs side by side; returns the file.

    >>> compare([Path("runs/a"), Path("runs/b")], Path("comparison.html"))  # doctest: +SKIP
    PosixPath('comparison.html')
    """
    runs = [load(Path(folder)) for folder in folders]
    return put(Path(out), side_by_side(runs, [judge(run)[0] for run in runs]))


def judge(run: Run) -> tuple[list[Remark], Copied | None]:
    """The remarks on a run, and what its last sample copied from its training text."""
    found = copied(run, run.samples[-1]) if run.samples and len(run.train) else None
    return remarks(run, found), found


def single(run: Run, found: Sequence[Remark], copied: Copied | None = None) -> str:
    """The report of one run as HTML."""
    known = figures(run)
    quotes = [passage.text for passage in copied.passages] if copied else []
    body = [
        _head("training report", run.name, _standing(run, known)),
        parts.tiles(known),
        f"<h2>What it means</h2>{parts.remark_list(found)}",
        _curves([run], [run.name]),
        classes.section(run),
        pairs.section(run),
        parts.evaluations(run),
        parts.events(run),
        parts.samples(run, quotes),
        f"<h2>Settings</h2>{parts.settings(run)}",
        f'<div class="side"><div><h2>Text</h2>{parts.data(run)}</div>'
        f"<div><h2>Machine</h2>{parts.machine(run)}</div></div>",
    ]
    return _page(f"{run.name}: training report", body, _again([run]))


def side_by_side(runs: Sequence[Run], found: Sequence[Sequence[Remark]]) -> str:
    """The comparison of several runs as HTML."""
    names = labels([run.folder for run in runs])
    known = [figures(run) for run in runs]
    coloured = [f'<span class="dot c{n % panels.COLOURS}"></span>{text(name)}' for n, name in enumerate(names)]
    body = [
        _head("runs side by side", " \u00b7 ".join(names), ""),
        f"<h2>Figures</h2>{_figure_table(coloured, known, fair=comparable(runs))}",
        _curves(runs, names),
        f"<h2>Settings that differ</h2>{_differing(runs, coloured)}",
        "<h2>What it means</h2>",
        *(f"<h3>{name}</h3>{parts.remark_list(_gravest(one))}" for name, one in zip(coloured, found, strict=True)),
        _last_samples(runs, coloured),
    ]
    return _page(f"{', '.join(names)}: comparison", body, _again(runs))


def labels(folders: Sequence[Path]) -> list[str]:
    """Names for runs: of each path as many last parts as tell it from the others.

    >>> labels([Path("a/run"), Path("b/run"), Path("c/other")])
    ['a/run', 'b/run', 'c/other']
    >>> labels([Path("runs/a"), Path("runs/b")])
    ['a', 'b']
    """
    whole = [Path(os.path.abspath(folder)).parts for folder in folders]
    for count in range(1, max(map(len, whole))):
        names = ["/".join(part[-count:]) for part in whole]
        if len(set(names)) == len(names):
            return names
    return [f"{Path(folder).name} ({place})" for place, folder in enumerate(folders, 1)]


def put(path: Path, page: str) -> Path:
    """Write a page aside and give it its name; a file that is no report of ours is left alone.

    >>> import tempfile
    >>> put(Path(tempfile.mkdtemp()) / "no" / "such.html", "")
    Traceback (most recent call last):
    groundup.errors.DataError: cannot write .../no/such.html: No such file or directory
      -> check the folder and its permissions, or choose another --out
    """
    aside = path.with_name(f".{path.name}.writing")
    try:
        if path.is_file() and path.stat().st_size and MARK not in path.read_text("utf-8", errors="replace")[:200]:
            raise DataError(f"{path} exists and is no report", "choose another --out, or move that file away")
        with aside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        _discard(aside)
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))  # no quota on Windows
        fix = "free some space" if full else "check the folder and its permissions"
        raise DataError(f"cannot write {path}: {error.strerror or error}", f"{fix}, or choose another --out") from None
    return path


def _discard(aside: Path) -> None:
    try:
        aside.unlink(missing_ok=True)
    except OSError:  # its folder is none, or is read-only: then nothing was written either
        return


def _page(title: str, body: Sequence[str], again: str) -> str:
    from groundup import __version__

    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    return (
        f'<!doctype html>{MARK}\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body><main>{''.join(part for part in body if part)}\n"
        f"<footer>Written {now} by groundup {__version__}. Again: <code>{text(again)}</code></footer></main>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _again(runs: Sequence[Run]) -> str:
    """The command that writes this page anew."""
    return shlex.join(["groundup", "report", *(str(run.folder) for run in runs)])


def _head(over: str, title: str, under: str) -> str:
    below = f'<p class="under">{text(under)}</p>' if under else ""
    return f'<header><p class="over">groundup {text(over)}</p><h1>{text(title)}</h1>{below}</header>'


def _standing(run: Run, known: Figures) -> str:
    """The model, and how far its training is."""
    state = "finished" if run.finished else f"at step {run.step:,}" + (f" of {run.planned:,}" if run.planned else "")
    return " \u00b7 ".join(part for part in (known.model, state) if part)


def _curves(runs: Sequence[Run], names: Sequence[str]) -> str:
    drawn = panels.charts(runs, names)
    if not drawn:
        return ""
    return f'<div class="bar"><h2>Curves</h2>{parts.axis_switch(panels.axes(runs))}</div>{drawn}'


def comparable(runs: Sequence[Run]) -> bool:
    """True if the validation losses mean the same: one text, one vocabulary, one way of keeping some for validation.

    >>> comparable([Run(vocabulary=65), Run(vocabulary=50257)])
    False
    """

    def measured(run: Run) -> tuple[object, ...]:
        names = ("validation", "split", "eval_tokens", "context", "tokenizer", *OWN.get(run.command, ()))
        kept = [run.command if run.command in OWN else "", *(str(run.settings.get(name)) for name in names)]
        return run.vocabulary, run.valid_tokens, [source.get("sha256") for source in run.sources], kept

    return all(measured(run) == measured(runs[0]) for run in runs)


def _figure_table(names: Sequence[str], known: Sequence[Figures], *, fair: bool) -> str:
    words = [parts.words_for(one) for one in known]
    lowest = min((one.best_loss for one in known if one.best_loss is not None), default=None)
    best = [fair and lowest is not None and one.best_loss == lowest for one in known]
    head = [f"{name} \u2605" if star else name for name, star in zip(names, best, strict=True)]
    named = dict.fromkeys(name for one in words for name in one)  # stages measure different things
    rows = [[text(row), *(text(one.get(row)) for one in words)] for row in named]
    note = "\u2605 lowest validation loss" if any(best) else ""
    if not fair:
        note = (
            "These runs were not measured alike (text, tokenizer, context, validation part or aim differ): "
            "their losses cannot be set against each other. Bits per byte can, where the validation text is the same."
        )
    return f'{parts.table(["", *head], rows)}<p class="under">{note}</p>'


def _gravest(found: Sequence[Remark]) -> list[Remark]:
    """Side by side there is no room for notes, unless there is nothing else to say."""
    return [remark for remark in found if remark.severity != "note"] or list(found)


def _differing(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Only what is not the same in all runs; the folder a run lies in says nothing."""
    rows = [[f"<code>{text(name)}</code>", *map(text, values)] for name, values in differing(runs).items()]
    return (
        parts.table(["setting", *names], rows)
        if rows
        else '<p class="under">None: the same command gave all of these.</p>'
    )


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, with the value of each run; None where a run has none.

    >>> differing([Run(settings={"lr": 0.1, "batch": 8}), Run(settings={"lr": 0.2, "batch": 8})])
    {'lr': [0.1, 0.2]}
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in ("out", "resume", "dry_run"))
    found = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _last_samples(runs: Sequence[Run], names: Sequence[str]) -> str:
    cards = [
        f'<div class="sample"><h3>{name}, step {run.samples[-1].step:,}</h3>'
        f"<pre>{text(run.samples[-1].text[: parts.CHARACTERS])}</pre></div>"
        for run, name in zip(runs, names, strict=True)
        if run.samples
    ]
    return f'<h2>What they wrote last</h2><div class="side">{"".join(cards)}</div>' if cards else ""
