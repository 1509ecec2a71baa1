"""Kill a training run with SIGKILL, again and again, and compare its weights with those of a run left in peace.

    python tests/story/kill.py --kills 6 --inside 2 [--seed 1] [--folder DIR]

A kill comes at a random step plus a random fraction of a second, or (`--inside`) while a checkpoint is being written.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

STEPS = 60
TRAIN = [
    *("--data", "harbor:300", "--vocabulary", "400", "--size", "1m", "--width", "32", "--layers", "2", "--heads", "2"),
    *(
        "--context",
        "64",
        "--batch",
        "8",
        "--micro-batch",
        "4",
        "--steps",
        str(STEPS),
        "--dropout",
        "0.1",
        "--seed",
        "5",
    ),
    *("--eval-every", "20", "--eval-tokens", "2000", "--sample-tokens", "8", "--save-every", "7", "--device", "cpu"),
]


@dataclass(frozen=True)
class Kill:
    """One kill: the step the run stood at, and whether a checkpoint was being written."""

    step: int
    inside: bool


def start(out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    """One process of the run; the first is started with all settings, the others with --resume alone."""
    words = ["--out", str(out), "--resume"] if resume else [*TRAIN, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "groundup", "pretrain", *words, *(() if resume else ("--threads", "1"))],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip


def steps_done(out: Path) -> int:
    """Steps written to the journal so far; a torn last line does not count."""
    journal = out / "metrics.jsonl"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def writing(out: Path) -> bool:
    """True while a checkpoint lies aside, unfinished."""
    return any((out / "state").glob(".step-*.writing/*")) if (out / "state").exists() else False


def kill_once(out: Path, *, resume: bool, inside: bool, dice: random.Random) -> Kill | None:
    """Start a process of the run and kill it; None if it came to its end first."""
    child = start(out, resume=resume)
    target = min(STEPS - 1, steps_done(out) + dice.randint(1, 18))
    delay = dice.random() * 0.05
    while child.poll() is None:
        reached = steps_done(out) >= target
        if (inside and writing(out) and steps_done(out) > 7) or (not inside and reached):
            time.sleep(0 if inside else delay)
            within = writing(out)
            child.kill()
            child.wait()
            return Kill(steps_done(out), within)
        time.sleep(0.0005)
    assert child.returncode == 0, f"the run ended with status {child.returncode}"
    return None


def finish(out: Path, *, resume: bool) -> None:
    """Let the run come to its end."""
    assert start(out, resume=resume).wait() == 0


def digest(out: Path) -> str:
    """SHA-256 of the final weights."""
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


def journal(out: Path) -> list[tuple[int, str, float]]:
    """What the journal says, without clocks."""
    records = (json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(record["step"], record["kind"], record["loss"]) for record in records]


def killed_run(out: Path, *, kills: int, inside: int, seed: int) -> list[Kill]:
    """Bring a run to its end through `kills` kills, `inside` of them while a checkpoint is being written."""
    dice = random.Random(seed)
    order = [True] * inside + [False] * (kills - inside)
    dice.shuffle(order)
    done: list[Kill] = []
    for number, within in enumerate(order):
        kill = kill_once(out, resume=number > 0, inside=within, dice=dice)
        if kill is None:
            break
        done.append(kill)
    finish(out, resume=True)
    return done


def main() -> None:
    """Both runs, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--inside", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp())
    finish(folder / "whole", resume=False)
    for kill in killed_run(folder / "killed", kills=words.kills, inside=words.inside, seed=words.seed):
        print(f"killed at step {kill.step:>3}{', inside a checkpoint write' if kill.inside else ''}")
    print(f"uninterrupted {digest(folder / 'whole')}\nkilled        {digest(folder / 'killed')}")
    same = digest(folder / "whole") == digest(folder / "killed") and journal(folder / "whole") == journal(
        folder / "killed"
    )
    print("weights and journal are equal" if same else "THEY DIFFER")
    sys.exit(not same)


if __name__ == "__main__":
    main()
