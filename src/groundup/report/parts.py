"""The parts of a report page, each a function from runs to HTML; every text from outside is escaped here.

In: `Run`s, figures, remarks. Out: pieces of HTML.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from groundup.journal import CONTROL, clock
from groundup.report.chart import short
from groundup.report.curves import AXES
from groundup.report.figures import MARKS, Figures, best_evaluation, outdated
from groundup.report.read import Run, number
from groundup.report.remark import Remark
from groundup.settings import Classify, Dpo, Instruct, Ppo, Pretrain, Reward, Training, extra, groups

SIGNS = {"problem": "\u2716 Problem", "warning": "\u25b2 Watch out", "note": "\u25cf Note", "good": "\u2714 Good"}
TYPED = re.compile(r"`(?P<command>[^`]+)`|(?P<flag>--[a-z][a-z-]*(?: (?:\d[\d.]*\d|\d|fp32)\b)?)")
SAMPLES, CHARACTERS, ROWS = 40, 4_000, 200  # at most so many in a page, so that it stays small
LOSSES = {"loss": "validation loss", "perplexity": "perplexity", "bits_per_byte": "bits per byte"}
# of an evaluation, for the table: a run that learns from rewards has no losses
COLUMNS = {name: ({} if name == "ppo" else {"loss": "validation loss"}) | marks for name, marks in MARKS.items()}
COMMANDS: dict[str, type[Training]] = {kind.command: kind for kind in (Pretrain, Classify, Instruct, Reward, Dpo, Ppo)}


def text(value: object) -> str:
    """Any value as HTML text; control characters show as U+FFFD.

    >>> text("</script><b>"), text(0.1), text(None)
    ('&lt;/script&gt;&lt;b&gt;', '0.1', '\\u2013')
    """
    if value is None:
        return "\u2013"
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    words = (
        f"{value:.6g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return escape(CONTROL.sub("\ufffd", words))


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly spread, the first and the last among them.

    >>> spread(list(range(100)), 4)
    [0, 33, 66, 99]
    """
    if len(items) <= most:
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, most).round().astype(int)]


def words_for(figures: Figures) -> dict[str, str]:
    """The figures in words a person reads, by the name of the figure."""

    def known(value: float | None, form: str) -> str:
        return "\u2013" if value is None else form.format(value)

    adapters = figures.adapters if figures.parameters is None else None
    at = f" at step {figures.best_step:,}" if figures.best_step is not None else ""
    return {
        "best validation loss": known(figures.best_loss, "{:.4f}") + at,
        "perplexity": known(figures.perplexity, "{:,.2f}"),
        "bits per byte": known(figures.bits_per_byte, "{:.3f}"),
        **{name: f"{value:,.4g}" for name, value in figures.marks.items()},
        "last validation loss": known(figures.validation_loss, "{:.4f}"),
        "training loss": known(figures.train_loss, "{:.4f}"),
        "parameters": known(figures.parameters, "{:,}") if adapters is None else f"{adapters:,} of adapters",
        "steps": f"{figures.step:,}" + (f" of {figures.planned:,}" if figures.planned else ""),
        "tokens seen": known(figures.tokens, "{:,}"),
        "epochs": known(figures.epochs, "{:.2f}"),
        "training time": "\u2013" if figures.seconds is None else clock(figures.seconds),
        "tokens a second": known(figures.tokens_per_second, "{:,.0f}"),
        "skipped updates": f"{figures.skipped:,}",
        "model": figures.model,
    }


def tiles(figures: Figures) -> str:
    """The headline: the few numbers that are asked for first."""
    words = words_for(figures)
    epochs = "" if figures.epochs is None else f"{figures.epochs:.2f} epochs"
    size = figures.adapters if figures.parameters is None else figures.parameters
    parameters = "\u2013" if size is None else short(size)
    tokens = "\u2013" if figures.tokens is None else short(figures.tokens)
    shown = [
        _headline(figures, words),
        ("parameters", parameters, words["parameters"] if words["parameters"] != parameters else ""),
        ("steps", f"{figures.step:,}", f"of {figures.planned:,} planned" if figures.planned else ""),
        ("tokens seen", tokens, epochs),
        ("training time", words["training time"], f"{words['tokens a second']} tokens a second"),
    ]
    cells = [
        f'<div class="tile{" first" if not place else ""}"><dt>{text(name)}</dt>'
        f'<dd class="big">{text(value)}</dd><dd class="small">{text(more)}</dd></div>'
        for place, (name, value, more) in enumerate(shown)
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _headline(figures: Figures, words: Mapping[str, str]) -> tuple[str, str, str]:
    """The one number a run is for, and those that belong to it."""
    best = figures.best_loss
    per = [f"perplexity {words['perplexity']}"] if figures.perplexity is not None else []
    per += [f"{words['bits per byte']} bits per byte"] if figures.bits_per_byte is not None else []
    loss = ("best validation loss", f"{best:.4f}") if best is not None else ("training loss", words["training loss"])
    if not figures.marks:
        return (*loss, " \u00b7 ".join(per))
    first, *others = figures.marks
    beside = [f"{name} {words[name]}" for name in others] + ([f"loss {best:.4f}"] if best is not None else [])
    return first, words[first], " \u00b7 ".join(beside)


def remark_list(found: Iterable[Remark]) -> str:
    """Remarks as cards: a sign and a word for the severity, never colour alone."""
    cards = []
    for remark in found:
        quotes = "".join(f"<blockquote>{text(quote)}</blockquote>" for quote in remark.quotes)
        cards.append(
            f'<li class="remark {remark.severity}"><span class="sign">{SIGNS[remark.severity]}</span>'
            f'<p class="seen">{text(remark.seen)}</p>{quotes}<p>{text(remark.means)}</p>'
            f'<p class="do">{_typed(text(remark.do))}</p></li>'
        )
    return f'<ul class="remarks">{"".join(cards)}</ul>'


def _typed(words: str) -> str:
    """What a person would type, set as such: `commands` and --flags with their values."""
    return TYPED.sub(lambda found: f"<code>{found['command'] or found['flag']}</code>", words)


def axis_switch(axes: Sequence[str]) -> str:
    """The buttons that choose what the curves are drawn against; plain radio buttons, without a script."""
    buttons = [
        f'<label><input type="radio" name="along" id="along-{axis}"{" checked" if not place else ""}>'
        f"{AXES[axis]}</label>"
        for place, axis in enumerate(axes)
    ]
    return f"<fieldset><legend>draw the curves against</legend>{''.join(buttons)}</fieldset>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """A table; the first cell of a row names it, the last `numbers` columns are numbers. Cells are HTML already."""
    cut = len(head) - numbers
    css = [' class="number"' if place >= cut else "" for place in range(len(head))]
    top = "".join(f'<th scope="col"{css[place]}>{name}</th>' for place, name in enumerate(head))
    body = [
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{css[place]}>{cell}</td>" for place, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    ]
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def samples(run: Run, quotes: Sequence[str]) -> str:
    """What the model wrote, step by step; passages of the training text are marked."""
    if not run.samples:
        return ""
    items = []
    for sample in spread(run.samples, SAMPLES):
        words = text(sample.text[:CHARACTERS] + ("..." if len(sample.text) > CHARACTERS else ""))
        for quote in quotes:
            words = words.replace(text(quote), f"<mark>{text(quote)}</mark>")
        items.append(
            f'<li class="sample" data-step="{sample.step}"><h3>step {sample.step:,}</h3><pre>{words or " "}</pre></li>'
        )
    legend = '<p class="under"><mark>marked</mark>: word for word in the training text</p>' if quotes else ""
    return f'<h2>What it wrote</h2>{legend}<ol class="samples">{"".join(items)}</ol>'


def evaluations(run: Run) -> str:
    """Every evaluation, the best one marked in words too."""
    records, best = run.evaluations.records, best_evaluation(run)
    if not records:
        return ""
    shown = spread(range(len(records)), ROWS)
    columns = COLUMNS.get(run.command, LOSSES)
    rows = []
    for place in shown:
        step = f"{records[place]['step']:,}" + (" \u2605 best" if place == best else "")
        values = [number(records[place].get(name)) for name in columns]
        rows.append([step, *(f"{value:,.4f}" if np.isfinite(value) else "\u2013" for value in values)])
    inside = table(("step", *columns.values()), rows, numbers=len(columns))
    return f"<details><summary>{len(records):,} evaluations</summary>{inside}</details>"


def earlier(run: Run) -> str:
    """A run that went on has other weights than those whose test is shown."""
    steps = outdated(run)
    if steps is None:
        return ""
    now = "best/ is now of" if run.test.get("model") == "best" else "the run went on since, to"
    return f'<p class="under">These are figures of the weights of step {steps[0]:,}; {now} step {steps[1]:,}.</p>'


def events(run: Run) -> str:
    """Skipped updates and resumes, if there were any."""
    found = [(step, text(reason)) for step, reason in run.skipped]
    found += [(step, "a new process took the run up from here") for step in run.resumed]
    if not found:
        return ""
    rows = [[f"{step:,}", words] for step, words in spread(sorted(found), ROWS)]
    return (
        f"<details open><summary>{len(found):,} skipped updates and resumes</summary>"
        f"{table(('step', 'what happened'), rows)}</details>"
    )


def settings(run: Run) -> str:
    """Every setting that holds, by group; those that are not the default are marked, with the default beside."""
    if not run.settings:
        return '<p class="under">settings.toml is missing or cannot be read.</p>'
    kind = COMMANDS.get(run.command, Pretrain)
    known, found = kind.model_fields, []
    for group in groups(kind):
        names = [name for name, field in known.items() if extra(field).get("group") == group and name in run.settings]
        rows = {name: _setting(known[name].default, run.settings[name]) for name in names}
        found += [f"<section><h3>{text(group)}</h3>{pairs(rows)}</section>"] if rows else []
    if others := [name for name in run.settings if name not in known]:
        found.append(f"<section><h3>Others</h3>{pairs({name: text(run.settings[name]) for name in others})}</section>")
    note = (
        '<p class="under"><span class="changed">marked</span>: not the default; '
        "\u00b7 has no default: given, or worked out by the run</p>"
    )
    return f'{note}<div class="settings">{"".join(found)}</div>'


def _setting(default: object, value: object) -> str:
    if default in (None, "auto") and value != default:
        return f'{text(value)}<span class="was">\u00b7</span>'
    if value == default:
        return text(value)
    was = f'<span class="was">default {text(default) or "empty"}</span>' if default not in ("", []) else ""
    return f'<span class="changed">{text(value)}</span>{was}'


def pairs(rows: Mapping[str, str], *, code: bool = True) -> str:
    """A table of names and their values; values are HTML already, `code` sets the names as one types them."""
    body = [
        f'<tr><th scope="row">{f"<code>{text(name)}</code>" if code else text(name)}</th><td>{value}</td></tr>'
        for name, value in rows.items()
    ]
    return f'<div class="wide"><table class="pairs"><tbody>{"".join(body)}</tbody></table></div>' if body else ""


def facts(rows: Mapping[str, object]) -> str:
    """Names and values, those that are not known left out."""
    return pairs({name: text(value) for name, value in rows.items() if value not in (None, "", [])}, code=False)


def data(run: Run) -> str:
    """Where the text came from, with hashes."""
    counts = {"training tokens": run.train_tokens, "validation tokens": run.valid_tokens, "vocabulary": run.vocabulary}
    told = facts({name: None if count is None else f"{count:,}" for name, count in counts.items()})
    rows = [[text(source.get("name")), f"<code>{text(source.get('sha256'))}</code>"] for source in run.sources[:ROWS]]
    more = f'<p class="under">and {len(run.sources) - ROWS:,} more</p>' if len(run.sources) > ROWS else ""
    return told + (f"<h3>Sources</h3>{table(('name', 'SHA-256'), rows)}{more}" if rows else "")


def machine(run: Run) -> str:
    """What it ran on, as far as the run wrote it down."""
    told: dict[str, object] = {name: run.settings.get(name) for name in ("device", "dtype", "threads")}
    noted = run.card.get("machine")
    told |= {str(name): value for name, value in noted.items()} if isinstance(noted, dict) else {}
    return facts(told | {"groundup": run.card.get("groundup")})
