"""How a run that learns from pairs did on those it was not given: order, length, and how sure it was.

In: a `Run` of `groundup reward` or `groundup dpo` whose folder may hold test.json. Out: one section of HTML, "" for any
other run. Nothing in test.json is trusted: what is no number is left out.
"""

import math
from collections.abc import Mapping
from typing import Any

from groundup.report import parts
from groundup.report.read import Run, number
from groundup.report.reliability import bins, reliability

COMMANDS = ("reward", "dpo")
MOST, CHARACTERS = 10, 300  # errors that are shown, and of each text
# of test.json: the number, what it is called, how it is written
TOLD = {
    "rows": ("pairs", "{:,.0f}"),
    "accuracy": ("in the right order", "{:.2%}"),
    "longer_baseline": ("in the right order by length alone", "{:.2%}"),
    "loss": ("loss, nats per pair", "{:.4f}"),
    "margin": ("margin", "{:.3f}"),
    "drift": ("drift from the reference, nats per answer", "{:.2f}"),
    "ece": ("mean gap between how sure it was and how often right", "{:.3f}"),
}


def section(run: Run) -> str:
    """The part of the page that tells of the test pairs, or nothing."""
    if run.command not in COMMANDS:
        return ""
    rows, before = _rows(run.test), _rows(run.test.get("before"))
    drawn = reliability(bins(run.test.get("bins")), number(run.test.get("ece")), of="probability given to one order")
    if not rows and not drawn:
        return ""
    table = parts.pairs(rows, code=False)
    if before:
        beside = [[name, before.get(name, "\u2013"), value] for name, value in rows.items()]
        table = parts.table(("", "before", "after"), beside, numbers=2)
    picture = f"<div>{drawn}</div>" if drawn else ""
    read_once = '<p class="under">The test pairs were read once, after training.</p>' if rows and not before else ""
    told = f"{table}{read_once}{parts.earlier(run)}"
    side = f'<div class="side">{picture}<div>{told}</div></div>'
    return f"<h2>Pairs it was not given</h2>{side}{_errors(run.test.get('worst'))}"


def _errors(worst: Any) -> str:
    """The pairs that are in the wrong order by most, as stages/reward.py writes them."""
    found = [one for one in worst if isinstance(one, Mapping)] if isinstance(worst, list) else []
    if not found:
        return ""
    rows = []
    for one in found[:MOST]:
        ahead = -number(one.get("ahead"))
        texts = [parts.text(str(one.get(name))[:CHARACTERS]) for name in ("prompt", "chosen", "rejected")]
        rows.append([*texts, "\u2013" if math.isnan(ahead) else f"{ahead:.3f}"])
    head = ("prompt", "the better answer", "the one it scored higher", "by")
    return f"<details><summary>{len(rows)} surest errors</summary>{parts.table(head, rows, numbers=1)}</details>"


def _rows(test: Any) -> dict[str, str]:
    """What is known of the test pairs, in words.

    >>> _rows({"rows": 40, "accuracy": 0.75, "margin": "x"})
    {'pairs': '40', 'in the right order': '75.00%'}
    """
    known = test if isinstance(test, Mapping) else {}
    found = {words: (number(known.get(name)), form) for name, (words, form) in TOLD.items()}
    return {words: form.format(value) for words, (value, form) in found.items() if not math.isnan(value)}
