"""Kill a training run with SIGKILL, again and again, and compare its weights with those of a run left in peace.

    python tests/story/kill.py --kills 20 --inside 5 [--seed 1] [--folder DIR] [--compile] [-- --dropout 0.3 ...]

A kill comes at a random step plus a random fraction of a second, or (`--inside`) while a checkpoint is being written;
none comes before the first checkpoint is there. What stands after `--` is handed to `groundup pretrain`.
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

SAVE_EVERY = 7
STEPS = {"few": 60, "many": 240}
TRAIN = [
    *("--data", "harbor:300", "--vocabulary", "400", "--size", "1m", "--width", "32", "--layers", "2", "--heads", "2"),
    *("--context", "64", "--batch", "8", "--micro-batch", "4", "--dropout", "0.1", "--seed", "5"),
    *("--eval-every", "20", "--eval-tokens", "2000", "--sample-tokens", "8", "--save-every", str(SAVE_EVERY)),
    *("--device", "cpu", "--threads", "1"),
]


@dataclass(frozen=True)
class Kill:
    """One kill: the step the run stood at, and whether a checkpoint was being written."""

    step: int
    inside: bool


@dataclass(frozen=True)
class Run:
    """One run: where, how long, and what is set beside `TRAIN`."""

    out: Path
    steps: int = STEPS["few"]
    more: tuple[str, ...] = ()

    def start(self, *, resume: bool) -> subprocess.Popen[bytes]:
        """One process of the run; the first is started with all settings, the others with --resume alone."""
        first = [*TRAIN, "--steps", str(self.steps), *self.more]
        words = ["--out", str(self.out), *(["--resume"] if resume else first)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        log = self.out.with_name(f"{self.out.name}.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "groundup", "pretrain", *words], stdout=log, stderr=log, env=environment
            )

    def finish(self, *, resume: bool) -> None:
        """Let the run come to its end."""
        status = self.start(resume=resume).wait()
        assert status == 0, f"the run ended with status {status}, see {self.out}.log"

    def done(self) -> int:
        """Steps written to the journal so far; a torn last line does not count."""
        journal = self.out / "metrics.jsonl"
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        return max((json.loads(line)["step"] for line in lines), default=0)

    def writing(self) -> bool:
        """True while a checkpoint lies aside, unfinished."""
        return any((self.out / "state").glob(".step-*.writing/*"))

    def saved(self) -> bool:
        """True when there is a checkpoint to go on from."""
        return any((self.out / "state").glob("step-*"))

    def clear(self) -> None:
        """Take away what the last kill left aside, so that it is not mistaken for a write of the next process."""
        for path in (self.out / "state").glob(".step-*.writing"):
            for file in sorted(path.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            path.rmdir()

    def digest(self) -> str:
        """SHA-256 of the final weights."""
        return hashlib.sha256((self.out / "model" / "model.safetensors").read_bytes()).hexdigest()

    def journal(self) -> list[tuple[int, str, float]]:
        """What the journal says, without clocks."""
        records = (json.loads(line) for line in (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return [(record["step"], record["kind"], record["loss"]) for record in records]


def kill_once(run: Run, *, resume: bool, inside: bool, stride: int, dice: random.Random) -> Kill | None:
    """Start a process of the run and kill it; None if it came to its end first."""
    if resume:
        run.clear()
    child = run.start(resume=resume)
    target = min(run.steps - 1, run.done() + dice.randint(1, stride))
    delay = dice.random() * 0.05
    while child.poll() is None:
        if run.saved() and (run.writing() if inside else run.done() >= target):
            time.sleep(dice.random() * 0.002 if inside else delay)
            child.kill()
            child.wait()
            within = run.writing()  # after the kill: nothing moves any more
            return Kill(run.done(), within)
        time.sleep(0.0005)
    assert child.returncode == 0, f"the run ended with status {child.returncode}, see {run.out}.log"
    return None


def killed_run(run: Run, *, kills: int, inside: int, seed: int) -> list[Kill]:
    """Bring a run to its end through `kills` kills, at least `inside` of them while a checkpoint is being written."""
    dice = random.Random(seed)
    done: list[Kill] = []
    while len(done) < kills:
        missing = inside - sum(kill.inside for kill in done)
        within = missing > 0 and dice.random() < max(0.5, missing / (kills - len(done)))
        stride = max(2, 2 * (run.steps - SAVE_EVERY) // (3 * kills))  # so that the steps last for all the kills
        kill = kill_once(run, resume=bool(done), inside=within, stride=stride, dice=dice)
        if kill is None:
            break
        done.append(kill)
    run.finish(resume=True)
    return done


def main() -> None:
    """Both runs, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--inside", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--compile", action="store_true", help="the same as -- --compile on")
    parser.add_argument("more", nargs="*", help="after --: settings of groundup pretrain")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    steps = STEPS["few"] if words.kills <= 8 else STEPS["many"]
    more = (*(("--compile", "on") if words.compile else ()), *words.more)
    whole, killed = (Run(folder / name, steps, more) for name in ("whole", "killed"))
    whole.finish(resume=False)
    done = killed_run(killed, kills=words.kills, inside=words.inside, seed=words.seed)
    for kill in done:
        print(f"killed at step {kill.step:>3}{', inside a checkpoint write' if kill.inside else ''}")
    print(f"{len(done)} kills, {sum(kill.inside for kill in done)} inside a checkpoint write")
    print(f"uninterrupted {whole.digest()}\nkilled        {killed.digest()}")
    same = whole.digest() == killed.digest() and whole.journal() == killed.journal()
    enough = len(done) == words.kills and sum(kill.inside for kill in done) >= words.inside
    print("weights and journal are equal" if same else "THEY DIFFER")
    print("" if enough else "the run ended before it could be killed often enough: another --seed")
    sys.exit(not (same and enough))


if __name__ == "__main__":
    main()
