"""Text to shards: MB/s and peak memory of `groundup prepare` with 1, 2 ... processes.

    python benchmarks/prepare.py --text FILE [--size 2000] [--tokenizer gpt2] [--workers 1 2]

`--text` is any UTF-8 file. Its paragraphs, drawn anew with a number each, make up `--size` MB, as one .txt and as one
.jsonl. Each run is a process of its own; the peak adds up the resident memory of it and its workers, looked at ten
times a second. That the shards are equal is checked.
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import interleaved
import psutil

SEED = 0


def main() -> None:
    """Make the texts, run, and print a table for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--tokenizer", default="gpt2")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for suffix in ("txt", "jsonl"):
            file = Path(name) / f"text.{suffix}"
            make(file, asked.text.read_text(encoding="utf-8").split("\n\n"), asked.size * 1_000_000)
            peaks: dict[str, float] = {}
            known: set[str] = set()  # hashes of shards
            contenders = {f"{n} workers": run(file, asked.tokenizer, n, peaks, known) for n in asked.workers}
            found = interleaved.rates(contenders, repeats=asked.repeats, warm=False)
            title = f"{asked.size} MB of .{suffix}, tokenizer {asked.tokenizer}"
            print(interleaved.table(found, ours=next(iter(contenders)), unit="MB/s", title=title))
            print("peak MB: " + ", ".join(f"{name} {peak / 1e6:.0f}" for name, peak in peaks.items()) + "\n")
            file.unlink()


def make(file: Path, paragraphs: list[str], size: int) -> None:
    """Write paragraphs in random order, each with a number, up to `size` bytes."""
    draw, written = random.Random(SEED), 0
    with file.open("w", encoding="utf-8") as out:
        while written < size:
            text = f"{draw.choice(paragraphs)} {draw.randrange(10**9)}\n\n"
            line = json.dumps({"text": text}) + "\n" if file.suffix == ".jsonl" else text
            written += out.write(line)


def run(file: Path, tokenizer: str, workers: int, peaks: dict[str, float], known: set[str]) -> Callable[[], float]:
    """A run of the command in its own process: MB/s of the file; its peak memory goes into `peaks`."""
    out, name = file.parent / "out", f"{workers} workers"
    command = [sys.executable, "-m", "groundup", "prepare", "--data", str(file), "--out", str(out)]
    command += ["--tokenizer", tokenizer, "--workers", str(workers)]

    def work() -> float:
        start = time.perf_counter()
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peaks[name] = max(peaks.get(name, 0), resident(process))
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        known.add(hashes(out))
        if len(known) > 1:
            raise SystemExit("the shards differ")
        shutil.rmtree(out)
        return file.stat().st_size / 1e6 / seconds

    return work


def resident(process: psutil.Process) -> int:
    """Resident memory of a process and all below it, in bytes; those that just ended count nothing."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def hashes(folder: Path) -> str:
    """One hash over the shards."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.tokens")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
