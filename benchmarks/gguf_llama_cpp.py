"""A GGUF file here and in llama.cpp: do both choose the same tokens, how well, how fast, in how much memory.

In: a GGUF file and a text. Out: two tables. The text's ids come from our tokenizer, and llama.cpp's own are compared
with them; then both read the same ids, in windows of 512, each window by itself and begun as the model wants it (with
the begin token where it has one). Perplexity is over the first `--windows` windows, every token but a window's first;
top-1 agreement over the first `--positions` of these. Each program has a process of its own, one after the other.

    python benchmarks/gguf_llama_cpp.py --model SmolLM2-135M-Instruct.Q4_1.gguf

Needs llama-cpp-python. Ours computes in fp32 what the file holds; llama.cpp also rounds what enters each product to
8 bits, and keeps keys and values in fp16, as people run it.
"""

import argparse
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

WINDOW = 512
PROMPT = 32  # ids of the text before those that are written
Windows = Sequence[Sequence[int]]


class Program(NamedTuple):
    """One program with the model open."""

    encode: Callable[[str], list[int]]
    logits: Callable[[Sequence[int]], np.ndarray]  # ids (T,) -> (T, V) fp32
    writer: Callable[[], Callable[[Sequence[int], int], list[float]]]  # made last: prompt, count -> seconds of each


class Found(NamedTuple):
    """What one program did. Memory in bytes: the process before the model, and its peaks."""

    ids: list[int]
    choices: np.ndarray  # most likely id at each scored position
    nats: np.ndarray  # -log p of the true one
    load: float  # seconds
    reading: float  # tokens/s
    writing: float
    before: int
    opened: int
    peak: int


def main() -> None:
    """Cut the text into windows, let both read and write, compare."""
    wish = options()
    from groundup.checkpoint.gguf.read import open_source  # not before the processes are made: they import this file

    tokenizer = open_source(wish.model).tokenizer
    start, text = list(tokenizer.start), wish.text.read_text(encoding="utf-8")
    sample = text[: wish.windows * WINDOW * 8]  # characters; a token is seldom longer
    ids = tokenizer.encode(sample)
    size = WINDOW - len(start)
    windows = [start + ids[first : first + size] for first in range(0, min(len(ids), wish.windows * size), size)]
    windows = [window for window in windows if len(window) > len(start) + PROMPT]
    wish.begun = len(start)
    found = {name: apart(name, wish, windows, sample[:20_000]) for name in ("groundup", "llama.cpp")}
    ours, theirs = found["groundup"], found["llama.cpp"]
    if ours.ids != theirs.ids:
        raise SystemExit(f"the tokenizers differ on the first 20,000 characters of {wish.text}: nothing to compare")
    print(f"{wish.model.name}, {wish.text.name}: {len(windows)} windows of {WINDOW}, {wish.threads} threads")
    print(f"ids of the first {len(sample[:20_000]):,} characters: equal ({len(ours.ids):,})")
    compare(ours, theirs, wish.positions)
    table(found, wish)


def options() -> argparse.Namespace:
    """The command line."""
    data = Path(os.environ.get("GROUNDUP_DATA", "."))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--text", type=Path, default=data / "text" / "wikitext2-valid.txt")
    parser.add_argument("--positions", type=int, default=2000, help="compared one by one")
    parser.add_argument("--windows", type=int, default=40, help="read for the perplexity; the whole text: 10000")
    parser.add_argument("--tokens", type=int, default=64, help="written, three times")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "int8"), default="int8", help="ours while writing")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    wish = parser.parse_args()
    if (wish.windows * (WINDOW - 2)) < wish.positions:
        parser.error(f"{wish.windows} windows of {WINDOW} hold fewer than {wish.positions} positions")
    return wish


def apart(name: str, wish: argparse.Namespace, windows: Windows, sample: str) -> Found:
    """`measured` in a process of its own, which is gone afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, name, wish, windows, sample).result()


def measured(name: str, wish: argparse.Namespace, windows: Windows, sample: str) -> Found:
    """Open, read every window, write; the import of the program is not part of the load."""
    __import__({"groundup": "groundup.checkpoint.gguf.read", "llama.cpp": "llama_cpp"}[name])
    before, began = peak(), time.perf_counter()
    program = {"groundup": groundup, "llama.cpp": llama_cpp}[name](wish)
    program.logits(windows[0][:PROMPT])  # what is put off until the first use belongs to the load
    load, opened = time.perf_counter() - began, peak()
    choices, nats, seconds, skip = [], [], 0.0, wish.begun + 1  # the first id of the text is not scored
    for window in windows:
        began = time.perf_counter()
        logits = program.logits(window)
        seconds += time.perf_counter() - began
        choices.append(logits[skip - 1 : -1].argmax(-1))
        nats.append(losses(logits[skip - 1 : -1], np.array(window[skip:])))
    ids, reading = program.encode(sample), sum(map(len, windows)) / seconds
    write = program.writer()
    times = [median(write(windows[0][:PROMPT], wish.tokens)) for _ in range(3)]
    return Found(
        ids, np.concatenate(choices), np.concatenate(nats), load, reading, 1 / median(times), before, opened, peak()
    )


def losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log softmax at the targets, in fp64, row by row: (T, V), (T,) -> (T,)."""
    result = np.empty(len(targets))
    for row, (scores, target) in enumerate(zip(logits, targets, strict=True)):
        exact = scores.astype(np.float64)
        top = exact.max()
        result[row] = top + math.log(np.exp(exact - top).sum()) - exact[target]
    return result


def peak() -> int:
    """The most memory this process ever held, in bytes. Linux tells it of this program alone; `getrusage` may count
    the one that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# --- the two -----------------------------------------------------------------------------------------------------


def groundup(wish: argparse.Namespace) -> Program:
    """Ours: read in fp32; to write, laid out in the wished number format."""
    import torch

    from groundup import machine
    from groundup.checkpoint.gguf.read import open_source
    from groundup.checkpoint.source import fill
    from groundup.generate import Sampler, generate, ready

    torch.set_num_threads(wish.threads)
    source = open_source(wish.model)
    model = fill(source.config, source.weights, dtype=torch.float32).eval()

    def logits(ids: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor([ids]))[0].numpy()

    def writer() -> Callable[[Sequence[int], int], list[float]]:
        model.to(torch.float32 if wish.dtype == "fp32" else torch.bfloat16)
        ready(model, int8=wish.dtype == "int8", compiled=machine.has_compiler())

        def write(prompt: Sequence[int], count: int) -> list[float]:
            return gaps(generate(model, [list(prompt)], max_tokens=count + 1, sampler=Sampler(temperature=0)), count)

        write(source.tokenizer.encode("Once upon a time"), 4)  # what is compiled is compiled now
        return write

    return Program(source.tokenizer.encode, logits, writer)


def llama_cpp(wish: argparse.Namespace) -> Program:
    """llama.cpp through llama-cpp-python, everything at its default but that all logits are kept."""
    from llama_cpp import Llama

    program = Llama(
        str(wish.model),
        n_ctx=max(WINDOW, PROMPT + wish.tokens + 8),
        n_batch=WINDOW,
        n_threads=wish.threads,
        n_threads_batch=wish.threads,
        logits_all=True,
        verbose=False,
    )

    def logits(ids: Sequence[int]) -> np.ndarray:
        program.reset()
        program.eval(list(ids))
        return program.scores[: len(ids)]

    def write(prompt: Sequence[int], count: int) -> list[float]:
        program.reset()
        return gaps(program.generate(list(prompt), temp=0.0, top_k=1, repeat_penalty=1.0), count)

    def encode(text: str) -> list[int]:
        return list(program.tokenize(text.encode("utf-8"), add_bos=False, special=False))

    return Program(encode, logits, lambda: write)


def gaps(steps: Any, count: int) -> list[float]:
    """Seconds of each of `count` tokens after the first, whose time is the prompt's."""
    next(steps)
    times, before = [], time.perf_counter()
    for _ in range(count):
        next(steps)
        now = time.perf_counter()
        times.append(now - before)
        before = now
    return times


# --- what is printed ---------------------------------------------------------------------------------------------


def compare(ours: Found, theirs: Found, positions: int) -> None:
    """Agreement and perplexity."""
    same = ours.choices[:positions] == theirs.choices[:positions]
    one, other = math.exp(ours.nats.mean()), math.exp(theirs.nats.mean())
    print(f"top-1 agreement: {same.mean():.2%} of {len(same):,} positions")
    tokens = f"{len(ours.nats):,} tokens"
    print(f"perplexity over {tokens}: groundup {one:.4f}, llama.cpp {other:.4f} ({one / other - 1:+.2%})")


def table(found: dict[str, Found], wish: argparse.Namespace) -> None:
    """Speed and memory."""
    print(
        f"\n| | load, s | reading, tokens/s | writing, tokens/s (ours {wish.dtype}) | memory before | opened | peak |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, one in found.items():
        memory = " | ".join(f"{size / 1e6:,.0f} MB" for size in (one.before, one.opened, one.peak))
        print(f"| {name} | {one.load:.2f} | {one.reading:,.0f} | {one.writing:,.1f} | {memory} |")


if __name__ == "__main__":
    main()
