"""Measures contenders side by side: each works once per round, in turn, so that a noisy machine is noisy for all.

In: functions that do one measured piece of work and return its rate. Out: rates, and a table with medians and ranges.
"""

import multiprocessing
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

Rates = dict[str, list[float]]


def apart(make: Callable[..., Callable[[], float]], *args: Any, **options: Any) -> Callable[[], float]:
    """A contender in a process of its own, so that nothing one of them sets reaches another; `make` builds it there."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=_serve, args=(there, partial(make, *args, **options)), daemon=True).start()

    def work() -> float:
        here.send("go")
        rate = here.recv()
        if isinstance(rate, str):
            raise RuntimeError(f"a contender failed: {rate}")
        return float(rate)

    return work


def _serve(pipe: Connection, make: Callable[[], Callable[[], float]]) -> None:
    try:
        work = make()
        while pipe.recv():
            pipe.send(work())
    except EOFError:  # the measuring process is done
        return
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def rates(contenders: Mapping[str, Callable[[], float]], *, repeats: int = 5, warm: bool = True) -> Rates:
    """Call every contender once per round; `warm` adds a first round that is thrown away."""
    found: Rates = {name: [] for name in contenders}
    for number in range(repeats + warm):
        for name, work in contenders.items():
            rate = work()
            if number >= warm:
                found[name].append(rate)
            print(f"round {number + 1 - warm}: {name} {rate:,.4g}", file=sys.stderr, flush=True)
    return found


def table(found: Rates, *, ours: str, unit: str, title: str) -> str:
    """A Markdown table: median, range, and how many times each peer's rate is ours, round by round."""
    lines = [f"### {title}", "", f"| | median {unit} | range | ours / this | range |", "|---|---|---|---|---|"]
    for name, values in found.items():
        ratios = [mine / theirs for mine, theirs in zip(found[ours], values, strict=True)]
        lines.append(
            f"| {name} | {median(values):,.4g} | {min(values):,.4g} to {max(values):,.4g} "
            f"| {median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return "\n".join([*lines, "", circumstances(), ""])


def circumstances() -> str:
    """Processor, cores, library versions, commit and command, in one line."""
    import os

    import torch

    capabilities = torch.cpu.get_capabilities()
    processor = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    flags = ", ".join(name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return (
        f"{processor} ({flags or 'no bf16'}), {cores} cores, torch {torch.__version__}, commit {commit()}: `{command}`"
    )


def commit() -> str:
    """The commit of this checkout, with a + where files differ from it."""
    folder = Path(__file__).parent
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=folder, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
