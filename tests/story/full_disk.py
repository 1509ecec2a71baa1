"""Train on a disk that is too small, make room, go on, and compare the weights with those of a run that had room.

    python tests/story/full_disk.py [--folder DIR] [-- --dropout 0.3 ...]

The disk is a tmpfs of 64 MB: Linux, and rights to mount. Another file takes its room away at different moments: before
the run begins, before its first checkpoint, in the middle of one, between two, where only the journal needs room.
What stands after `--` is handed to `groundup pretrain`.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DISK = 64 << 20  # bytes
# a checkpoint of this model takes about 11 MB: a third of it weights, the rest the optimizer
TRAIN = [
    *(
        "--tokenizer",
        "chars",
        "--family",
        "llama",
        "--width",
        "192",
        "--layers",
        "2",
        "--heads",
        "2",
        "--context",
        "32",
    ),
    *("--batch", "4", "--dropout", "0.1", "--seed", "5", "--save-every", "5", "--log-every", "1"),
    *("--eval-every", "10", "--eval-tokens", "500", "--sample-tokens", "8", "--device", "cpu", "--threads", "1"),
]
TEXT = "".join(f"The owl reads page {number} to the fox, who is asleep by then.\n" for number in range(300))


@dataclass(frozen=True)
class Ended:
    """How a process of the run ended."""

    status: int
    said: str


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of `DISK` bytes, there as long as the block runs; OSError where this process may not mount."""
    place.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        raise OSError(f"cannot mount a tmpfs: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, *, leave: int) -> None:
    """Take all the room but so many bytes, at once."""
    with (disk / "other").open("wb") as file:
        while (taken := shutil.disk_usage(disk).free - leave) > 0:
            with contextlib.suppress(OSError):  # the run took some of it in between: look again
                os.posix_fallocate(file.fileno(), file.tell(), taken)
                file.seek(taken, os.SEEK_CUR)


def writing(out: Path) -> bool:
    """True while the weights of a checkpoint are being written."""
    return any((out / "state").glob(".step-*.writing/model/model.safetensors"))


def journal(out: Path) -> bool:
    """True once a checkpoint is there and the journal has gone past it."""
    found, file = sorted((out / "state").glob("step-*")), out / "metrics.jsonl"
    steps = [json.loads(line)["step"] for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else [0]
    return bool(found) and not writing(out) and max(steps, default=0) > int(found[-1].name[5:])


@dataclass(frozen=True)
class Squeeze:
    """A moment (None: before the process starts) at which only so many bytes are left."""

    name: str
    leave: int
    when: Callable[[Path], bool] | None = None


def squeezes(size: int) -> list[Squeeze]:
    """The moments to try with checkpoints of `size` bytes."""
    return [
        Squeeze("no room at all", 0),
        Squeeze("room for the text alone", 200_000),
        Squeeze("room for half a checkpoint", size // 2),
        Squeeze("in the middle of a checkpoint", 0, writing),
        Squeeze("room for one checkpoint and a half", size * 3 // 2),
        Squeeze("in the middle of a later checkpoint", 0, writing),
        Squeeze("after a checkpoint, no room for the journal", 0, journal),
    ]


def train(
    out: Path, text: Path, squeeze: Squeeze | None = None, *, steps: int = 40, more: tuple[str, ...] = ()
) -> Ended:
    """One process of the run, resumed if it was begun; afterwards the room is free again."""
    begun = (out / "settings.toml").exists()
    words = ["--resume"] if begun else ["--data", str(text), *TRAIN, "--steps", str(steps), *more]
    if squeeze and not squeeze.when:
        fill(out.parent, leave=squeeze.leave)
    child = subprocess.Popen(
        [sys.executable, "-m", "groundup", "pretrain", "--out", str(out), *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while squeeze and squeeze.when and child.poll() is None:
        if squeeze.when(out):
            fill(out.parent, leave=squeeze.leave)
            break
        time.sleep(0.0002)
    said = child.communicate()[1].decode("utf-8")
    (out.parent / "other").unlink(missing_ok=True)
    return Ended(child.returncode, said)


def digest(out: Path) -> str:
    """SHA-256 of the final weights."""
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


def checkpoints(out: Path) -> list[str]:
    """Names of the checkpoints that are whole by their own hashes."""
    from groundup.checkpoint import atomic
    from groundup.train import run

    found = run.checkpoints(out)
    for checkpoint in found:
        atomic.verify(checkpoint, complete=True)  # raises if it is not
    return [checkpoint.name for checkpoint in found]


def size_of(out: Path) -> int:
    """Bytes of the files of the checkpoints."""
    return sum(path.stat().st_size for path in (out / "state").rglob("*") if path.is_file())


def main() -> None:
    """Both runs, each message, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("more", nargs="*", help="after --: settings of groundup pretrain")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    text, more = folder / "story.txt", tuple(words.more)
    text.write_text(TEXT, encoding="utf-8")
    assert train(folder / "whole", text, more=more).status == 0
    size = size_of(folder / "whole")
    print(f"a checkpoint takes {size:,} bytes")
    with small_disk(folder / "disk") as disk:
        for squeeze in [*squeezes(size), None]:
            ended = train(disk / "run", text, squeeze, more=more)
            print(f"\n{squeeze.name if squeeze else 'enough room'}: status {ended.status}")
            print("   ", "\n    ".join(ended.said.strip().splitlines()[-2:]))
            print("    whole checkpoints:", *checkpoints(disk / "run"))
        same = digest(folder / "whole") == digest(disk / "run")
    print("\nweights are equal" if same else "\nTHEY DIFFER")
    sys.exit(not same)


if __name__ == "__main__":
    main()
