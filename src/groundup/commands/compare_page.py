"""comparison.html: who did better, how scores are spread, and every prompt with the answers side by side.

In: a `Board`, columns of marks, the table of figures. Out: one HTML file without a script or an address. Whatever a
prompt or an answer holds is escaped, and shown as text.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from groundup.checkpoint import atomic
from groundup.commands.compare_answers import Board, Written
from groundup.evaluate.compare import TIED, Column, Wins, histogram
from groundup.journal import CONTROL
from groundup.report.chart import Chart, Line, draw
from groundup.report.look import STYLE
from groundup.report.panels import COLOURS
from groundup.report.parts import spread, table, text
from groundup.text.conversations import told

NAME = "comparison.html"
MOST = 300  # prompts on the page, so that it stays small
CHARACTERS = 4_000  # of a text
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # no script, nothing from elsewhere, whatever a model wrote
FILTERS = {
    "all": "all prompts",
    "better": "another model did better than the first",
    "worse": "the first did better",
    "level": "level or undecided",
}
OWN = """
.race{display:grid;grid-template-columns:minmax(7rem,14rem) 1fr 18rem;gap:.3rem 1rem;align-items:center;
background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem 1rem;margin:.5rem 0}
.track{position:relative;height:1.5rem;background:var(--grid);border-radius:5px;overflow:hidden}
.track i{position:absolute;top:0;bottom:0;left:0}
.fill{background:var(--tone);opacity:.75}
.track .reach{top:calc(50% - 1.5px);bottom:calc(50% - 1.5px);background:var(--ink)}
.track .half{left:50%;width:1px;background:var(--soft)}
.told b{font-size:1.15rem;font-variant-numeric:tabular-nums}
.told small{display:block;color:var(--soft);font-size:.8rem}
.choose{flex-wrap:wrap;border-radius:10px;margin:0 0 1rem;width:fit-content}
main:has(#see-better:checked) .ask:not(.better),main:has(#see-worse:checked) .ask:not(.worse),
main:has(#see-level:checked) .ask:not(.level){display:none}
.ask{border-top:1px solid var(--rule);padding:.4rem 0 1.4rem}
.ask pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;max-height:24rem;overflow:auto;
font:.92rem/1.55 ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.ask .question{border-left:3px solid var(--accent);padding-left:.8rem}
.ask .expected{border-left:3px solid var(--rule);padding-left:.8rem;color:var(--soft)}
.answer{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem 1rem;min-width:0}
.answer h4{margin:0;font-size:.9rem}
.answer.best{border-color:var(--good);box-shadow:inset 0 3px 0 var(--good)}
.best .star{color:var(--good)}
.chips{display:flex;flex-wrap:wrap;gap:.3rem}
.chip{background:var(--grid);border-radius:4px;padding:.05em .45em;font-size:.8rem;font-variant-numeric:tabular-nums}
.chip.cut{color:var(--warning)}
@media (max-width:44rem){.race{grid-template-columns:1fr}}
@media print{.choose{display:none}}
"""


def write(path: Path, content: str) -> None:
    """Replace the page in one go; half a surrogate pair, which has no UTF-8, is written as its number."""
    atomic.write_text(path, content.encode("utf-8", "backslashreplace").decode("utf-8"))


def page(
    board: Board,
    columns: Sequence[Column],
    figures: Sequence[Sequence[str]],
    *,
    about: str,
    remarks: Sequence[str],
) -> str:
    """The comparison as HTML. `figures`: rows of a table, whose first names the models; `about`: how they answered."""
    from groundup import __version__

    title = " \u00b7 ".join(board.names)
    head, *rows = figures
    names = [head[0], *(_named(place, name) for place, name in enumerate(head[1:]))]
    body = [
        f'<header><p class="over">groundup comparison</p><h1>{text(title)}</h1>'
        f'<p class="under">{text(about)}</p></header>',
        _races(board, columns),
        f"<h2>Figures</h2>{table(names, [[text(cell) for cell in row] for row in rows], numbers=len(head) - 1)}",
        "".join(f'<p class="under">{text(remark)}</p>' for remark in remarks),
        _histograms(board, columns),
        _prompts(board, columns),
        f"<footer>Written by groundup {text(__version__)}.</footer>",
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}: comparison</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<style>{STYLE}{OWN}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


def _named(place: int, name: str) -> str:
    """A model's name behind a dot of its colour."""
    return f'<span class="dot c{place % COLOURS}"></span>{text(name)}'


# who did better


def _races(board: Board, columns: Sequence[Column]) -> str:
    """A bar for each model but the first and each kind of marks."""
    if not columns:
        return ""
    parts = [f"<h2>Who does better than {_named(0, board.names[0])}</h2>"]
    for column in columns:
        found = column.wins()
        parts.append(f"<h3>{text(_kind(column))}</h3>")
        parts += [_race(place, board.names[place], one) for place, one in enumerate(found, 1)]
    parts.append(
        '<p class="under">Share of the points: one a prompt, half for a tie. The line is its 95 % interval; where it '
        "reaches over the middle, chance alone may have made the difference.</p>"
    )
    return "".join(parts)


def _kind(column: Column) -> str:
    """What a column is, in words."""
    words = {
        "reward": "by the reward ",
        "sum": "by the sum of the rewards ",
        "judge": "by the judge ",
        "human": "by the votes of ",
    }
    return words[column.kind] + column.name


def _race(place: int, name: str, found: Wins) -> str:
    """One model against the first."""
    if found.share is None:
        unknown = '<div class="track"></div><div>no verdict yet</div>'
        return f'<div class="race"><div>{_named(place, name)}</div>{unknown}</div>'
    share, low, high = (100 * value for value in (found.share, found.low, found.high))
    unused = f", {found.unused:,} without a verdict" if found.unused else ""
    return (
        f'<div class="race"><div>{_named(place, name)}</div>'
        f'<div class="track"><i class="fill c{place % COLOURS}" style="width:{share:.2f}%"></i><i class="half"></i>'
        f'<i class="reach" style="left:{low:.2f}%;width:{high - low:.2f}%"></i></div>'
        f'<div class="told"><b>{share:.1f} %</b> ({low:.1f} to {high:.1f})'
        f"<small>{found.won:,} won, {found.tied:,} tied, {found.lost:,} lost{unused}</small></div></div>"
    )


# scores


def _histograms(board: Board, columns: Sequence[Column]) -> str:
    """How the scores of each reward are spread, a line for each model."""
    drawn = "".join(_histogram(board, column) for column in columns if column.scores)
    return f'<h2>How scores are spread</h2><div class="charts steps">{drawn}</div>' if drawn else ""


def _histogram(board: Board, column: Column) -> str:
    edges, shares = histogram(column.scores)
    names = [CONTROL.sub("\ufffd", name) for name in board.names]
    x = np.repeat(edges, 2)
    lines = [
        Line(x, np.concatenate([[0.0], np.repeat(share, 2), [0.0]]), _style(place), names[place])
        for place, share in enumerate(shares)
    ]
    title = CONTROL.sub("\ufffd", f"share of the answers, {_kind(column)}")
    return draw(Chart(title, "score", lines, floor=0.0))


def _style(place: int) -> str:
    """The colour of a model; every other one is dashed, so that curves can be told apart where they meet."""
    return f"c{place % COLOURS}" + (" dash" if place % 2 else "")


# prompts


def _prompts(board: Board, columns: Sequence[Column]) -> str:
    """Every prompt with its answers, and which of them to see."""
    count = len(board.asked)
    shown = spread(range(count), MOST)
    note = f'<p class="under">{len(shown):,} of {count:,} prompts, evenly spread</p>' if len(shown) < count else ""
    cards = "".join(_card(board, columns, number) for number in shown)
    return f"<h2>Prompts and answers</h2>{note}{_filter(columns)}{cards}"


def _filter(columns: Sequence[Column]) -> str:
    """Buttons that hide prompts; plain radio buttons, without a script."""
    if not columns:
        return ""
    buttons = [
        f'<label><input type="radio" name="see" id="see-{name}"{" checked" if name == "all" else ""}>{words}</label>'
        for name, words in FILTERS.items()
    ]
    decides = deciding(columns)
    told_of = f'<p class="under">The star and the choice go {text(_kind(decides))}.</p>' if decides else ""
    return f'{told_of}<fieldset class="choose"><legend>which prompts</legend>{"".join(buttons)}</fieldset>'


def deciding(columns: Sequence[Column]) -> Column | None:
    """The marks that star and filters follow: those of people before a judge's, then the newest reward's.

    >>> exact, people = Column("exact", "reward", [[1.0]], [[0.0], [1.0]]), Column("people", "human", [[0.0]])
    >>> deciding([exact, people]).name, deciding([exact]).name, deciding([])
    ('people', 'exact', None)
    """
    rank = ("reward", "judge", "human")
    return max(reversed(columns), key=lambda column: rank.index(column.kind.replace("sum", "reward")), default=None)


def _card(board: Board, columns: Sequence[Column], number: int) -> str:
    """One prompt; which answer was the best is said by the deciding column."""
    decides = deciding(columns)
    best = decides.best(number) if decides else []
    kind = "level" if not best or (0 in best and len(best) > 1) else "worse" if 0 in best else "better"
    question, row = board.asked.questions[number], board.asked.rows[number]
    before = told(question.messages)[:-1]
    earlier = "\n\n".join(f"{message['role']}: {message['content']}" for message in before)
    kind_of = f" \u00b7 {row.kind}" if row.kind else ""
    parts = [f"<h3>{number + 1:,}{text(kind_of)}</h3>"]
    if earlier:
        parts.append(f"<details><summary>what was said before</summary>{_pre(earlier, 'question')}</details>")
    parts.append(_pre(question.text, "question"))
    if question.expected is not None:
        parts.append(f'<p class="under">expected</p>{_pre(question.expected, "expected")}')
    answers = [
        _answer(board, place, written[number], _chips(columns, place, number), best=place in best)
        for place, written in enumerate(board.answers)
    ]
    return f'<section class="ask {kind}">{"".join(parts)}<div class="side">{"".join(answers)}</div></section>'


def _answer(board: Board, place: int, written: Written, chips: Iterable[str], *, best: bool) -> str:
    star = ' <span class="star">\u2605 best</span>' if best else ""
    size = f"{len(written.ids):,} token{'' if len(written.ids) == 1 else 's'}"
    told_of = [*(f'<span class="chip">{text(chip)}</span>' for chip in chips), f'<span class="chip">{size}</span>']
    told_of += [] if written.ended else ['<span class="chip cut">cut off</span>']
    return (
        f'<div class="answer{" best" if best else ""}"><h4>{_named(place, board.names[place])}{star}</h4>'
        f'{_pre(written.text, "said")}<div class="chips">{"".join(told_of)}</div></div>'
    )


def _chips(columns: Sequence[Column], place: int, number: int) -> Iterable[str]:
    """What an answer got in each column."""
    for column in columns:
        if column.scores:
            yield f"{column.name} {column.scores[place][number]:.4g}"
        elif place:
            share = column.shares[place - 1][number]
            verdict = "no verdict" if share is None else "won" if share > TIED else "lost" if share < TIED else "tie"
            yield f"{column.name}: {verdict}"


def _pre(words: str, style: str) -> str:
    """Text as it is, cut where it is very long."""
    cut = f"\n\u2026 {len(words) - CHARACTERS:,} characters more" if len(words) > CHARACTERS else ""
    return f'<pre class="{style}">{text(words[:CHARACTERS] + cut) or " "}</pre>'
