"""Several processes give what one gives; a dead one is reported; a stopped run says how to go on, and does go on."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from groundup import tokens
from groundup.errors import DataError, GroundupError, TokenizerError, UserError
from groundup.lock import locked
from groundup.text import read
from groundup.tokens import adopted, encoder, making, prepare, workers
from groundup.tokens.shards import ShardWriter

pytestmark = pytest.mark.slow  # processes, threads and compilers


@dataclass
class Texts:
    """A batch of whole texts."""

    texts: list[str]
    goes_on: tuple[bool, ...] = ()


class Deadly(tokens.Characters):
    """A tokenizer that kills the process it works in."""

    def encode_many(self, texts: object, goes_on: object = ()) -> tuple[np.ndarray, np.ndarray]:
        os._exit(9)


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """Waiting for the disk only matters when the power fails, which no test here plays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def test_each_batch_comes_back_in_order_with_its_ids(hard: str) -> None:
    tokenizer = tokens.train("bpe", [hard * 3], vocabulary=300)
    batches = [Texts([hard[: n % 50], "", hard[n % 20 :]]) for n in range(60)]
    for several in (1, 2):
        for batch, (batch_again, found) in zip(
            batches, workers.encode_each(iter(batches), tokenizer, workers=several), strict=True
        ):
            ends = np.cumsum(found.lengths)
            assert batch_again is batch and not found.refused
            assert [row.tolist() for row in np.split(found.ids, ends)[:-1]] == [
                tokenizer.encode(text) for text in batch.texts
            ]


def test_texts_that_go_on_get_no_space_in_any_process() -> None:
    pieces, scores = ["<unk>", "\u2581", "a", "b", "\u2581a"], [0.0, -2.0, -3.0, -4.0, -1.0]
    document, _ = making.sentencepiece_json(pieces, scores, [2, 1, 1, 1, 1], prefix_space=True, adds_bos=False, unk=0)
    tokenizer = adopted.from_document(document, source="a document")
    batches = [Texts(["ab", " a", "ab"], (False, True, False)), Texts(["ba", "a"], (True, True))]
    for several in (1, 2):
        found = [ids for _, ids in workers.encode_each(iter(batches), tokenizer, workers=several)]
        assert [ids.ids.tolist() for ids in found] == [[4, 3, 4, 4, 3], [3, 2, 2]]
        assert [ids.lengths.tolist() for ids in found] == [[2, 1, 2], [2, 1]]


def test_only_a_few_batches_are_read_ahead(hard: str) -> None:
    read_so_far = 0

    def reading() -> Iterator[Texts]:
        nonlocal read_so_far
        for _ in range(100):
            read_so_far += 1
            yield Texts(["a b"])

    found = workers.encode_each(reading(), tokens.train("bpe", ["a"], vocabulary=257), workers=2)
    with contextlib.closing(found):
        for given in range(1, 10):
            next(found)
            assert read_so_far <= given + 4
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_the_text_that_is_refused_is_found_by_halves() -> None:
    tokenizer = tokens.train("chars", ["abc"])
    for bad in range(7):
        texts = ["abc"[: n % 4] for n in range(bad)] + ["abx", "y", "a"]
        found = workers.encode(tokenizer, texts, [])
        assert found.refused and "'x'" in found.refused.what and len(found.lengths) == bad
        assert found.ids.tolist() == [id for text in texts[:bad] for id in tokenizer.encode(text)]
    assert workers.encode(tokenizer, [], []).refused is None


def test_a_dead_worker_is_reported() -> None:
    batches = iter([Texts(["a"])] * 20)
    with pytest.raises(GroundupError, match="a worker process died(.|\n)*--workers 1"):
        list(workers.encode_each(batches, Deadly({"a": 0}, {}), workers=2))


@pytest.mark.parametrize("split", ["fraction", "document"])
def test_shards_do_not_depend_on_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, split: prepare.Split
) -> None:
    monkeypatch.setattr(encoder, "BATCH", 500)
    monkeypatch.setattr(encoder, "SAVE_SECONDS", 0.0)
    (tmp_path / "b.txt").write_text(verdict, encoding="utf-8")
    rows = [verdict[n * 97 : n * 97 + n * 3] for n in range(1, 90)]
    sources = read.sources([str(write(tmp_path / "a.jsonl", rows)), str(tmp_path / "b.txt")])
    tokenizer = tokens.train("bpe", [verdict], vocabulary=600)
    for several in (1, 2, 3):
        job = prepare.Job(sources, tokenizer, tmp_path / str(several), split=split, workers=several)
        assert prepare.carry_out(job).valid_tokens
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_a_text_refused_in_a_worker_is_named_and_nothing_stays(tmp_path: Path) -> None:
    sources = read.sources([str(write(tmp_path / "a.jsonl", ["abc"] * 30 + ["abd"]))])
    job = prepare.Job(sources, tokens.train("chars", ["abc"]), tmp_path / "out", workers=2)
    with pytest.raises(TokenizerError, match="a.jsonl, document 31: unknown character 'd'"):
        prepare.carry_out(job)
    assert not (tmp_path / "out").exists()


def test_a_small_text_gets_one_worker_and_a_large_one_the_cores() -> None:
    assert workers.how_many(None, workers.SMALL - 1) == 1 == workers.how_many(1, 10**12)
    assert workers.how_many(None, 10**12) == min(workers.cores(), workers.MOST)


# what ends a run


RUN = """
import signal, sys
from groundup.cli import main
from groundup.tokens import encoder
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and all they start
encoder.SAVE_SECONDS, encoder.BATCH = 0.0, 2000
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def begin(folder: Path, several: int, out: str = "out") -> "subprocess.Popen[str]":
    """`groundup prepare` in a process and a session of its own, with small batches."""
    (folder / "run.py").write_text(RUN, encoding="utf-8")
    command = [sys.executable, "run.py", "prepare", "--data", "a.txt", "--out", out, "--tokenizer", "bpe"]
    command += ["--vocabulary", "300", "--workers", str(several)]
    environment = {**os.environ, "PYTHONPATH": str(Path(prepare.__file__).parents[2])}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )


def until_saved(process: "subprocess.Popen[str]", out: Path) -> None:
    """Wait for the first saved cursor."""
    while not (out / "cursor.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_stopped_at_work_it_goes_on_to_the_same_bytes(tmp_path: Path, verdict: str, number: str) -> None:
    if not hasattr(os, "killpg"):
        pytest.skip("signals to a group of processes are POSIX")
    (tmp_path / "a.txt").write_text(verdict * 100, encoding="utf-8")
    process = begin(tmp_path, 2)
    until_saved(process, tmp_path / "out")
    children = psutil.Process(process.pid).children(recursive=True)
    if number == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    else:
        process.send_signal(getattr(signal, number))
    said = process.communicate()[1]
    if number != "SIGKILL":
        assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[number]
        assert "stopped; out keeps what is done" in said and "repeat the command to go on" in said
        assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "workers end with the process that began them"
    again = begin(tmp_path, 1)
    again.communicate()
    whole = begin(tmp_path, 1, "whole")
    whole.communicate()
    assert again.returncode == whole.returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_at_once_in_one_folder(tmp_path: Path, verdict: str) -> None:
    (tmp_path / "a.txt").write_text(verdict, encoding="utf-8")
    sources, tokenizer = read.sources([str(tmp_path / "a.txt")]), tokens.train("bpe", [verdict])
    with (
        locked(tmp_path / "out", doing="groundup prepare"),
        pytest.raises(UserError, match=rf"out is in use by process {os.getpid()} \(groundup prepare, since"),
    ):
        prepare.prepare(sources, tokenizer, tmp_path / "out")
    prepare.prepare(sources, tokenizer, tmp_path / "out")
    with locked(tmp_path / "out", doing="groundup prepare"):  # finished shards are only read
        assert prepare.prepare(sources, tokenizer, tmp_path / "out").train_tokens


@pytest.mark.parametrize("calls", [0, 1, 5, 20])
def test_a_full_disk_is_named_and_the_work_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, calls: int
) -> None:
    monkeypatch.setattr(encoder, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(encoder, "BATCH", 500)
    sources = read.sources([str(write(tmp_path / "a.jsonl", [verdict[n * 90 : n * 90 + 600] for n in range(30)]))])
    tokenizer, real, left = tokens.train("bpe", [verdict[:900]]), ShardWriter.add, iter(range(calls))

    def full(self: ShardWriter, ids: np.ndarray, *, bytes: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, ids, bytes=bytes)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "add", full)
        with pytest.raises(DataError, match="cannot write .*out: No space left(.|\n)*make room.*it goes on"):
            prepare.prepare(sources, tokenizer, tmp_path / "out")
    with pytest.raises(DataError, match="is unfinished"):
        prepare.opened(tmp_path / "out")
    prepare.prepare(sources, tokenizer, tmp_path / "out")
    prepare.prepare(sources, tokenizer, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
