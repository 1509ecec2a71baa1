"""From text to shards: the right ids on the right side, bounded memory, the same bytes however often it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup import tokens
from groundup.errors import DataError, Stopped, TokenizerError, UserError
from groundup.lock import LOCK
from groundup.settings import Prepare
from groundup.text import files, read
from groundup.text.read import Source
from groundup.tokens import encoder, learning, prepare
from groundup.tokens.division import Division, divide, in_validation
from groundup.tokens.manner import Manner
from groundup.tokens.shards import Shards
from groundup.tokens.tokenizer import Tokenizer


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """Waiting for the disk only matters when the power fails, which no test here plays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def rows(path: Path, texts: list[str]) -> list[Source]:
    """Texts as documents of one .jsonl file."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return read.sources([str(path)])


def story(path: Path, text: str) -> list[Source]:
    path.write_bytes(text.encode("utf-8"))
    return read.sources([str(path)])


def learnt(kind: str, *texts: str, special: tuple[str, ...] = ("<|endoftext|>",)) -> Tokenizer:
    return tokens.train(kind, texts, special=special)


def ids(path: Path | None) -> list[int]:
    assert path is not None
    return Shards.open(path, check=True).tokens.tolist()


def contents(folder: Path) -> dict[str, bytes]:
    """All but the lock that a killed process could not remove."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != LOCK}


# what goes where


def test_the_story_is_divided_as_in_the_book(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = data_dir / "gpt2-bpe"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    gpt2 = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    monkeypatch.setattr(files, "BLOCK", 1000)  # many pieces
    done = prepare.prepare(read.sources(["the-verdict"]), tokens.gpt2(folder), tmp_path / "out")
    text = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    place = int(0.90 * len(text))  # section 5.1.3
    assert ids(done.train) == gpt2.encode_ordinary(text[:place])
    assert ids(done.valid) == gpt2.encode_ordinary(text[place:])
    assert (done.documents, done.characters, done.bytes, done.split) == (1, 20_479, 20_479, "fraction")
    assert len(gpt2.encode_ordinary(text)) == 5_145  # the book's count of the whole story; no end-of-text in it
    shards = [Shards.open(path) for path in (done.train, done.valid) if path]
    assert [shard.bytes for shard in shards] == [place, 20_479 - place]
    assert [shard.documents.tolist() for shard in shards] == [[0], [0]]


def test_the_lectures_characters(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    sources = read.sources(["tinyshakespeare"])
    tokenizer = prepare.choose_tokenizer("chars", sources)
    done = prepare.prepare(sources, tokenizer, tmp_path / "out")
    text = (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    known = {character: id for id, character in enumerate(sorted(set(text)))}
    data = np.array([known[character] for character in text])
    place = int(0.9 * len(data))
    assert tokenizer.vocabulary == 65 and tokenizer.end_of_text is None
    assert np.array_equal(Shards.open(done.train).tokens, data[:place])
    assert np.array_equal(Shards.open(done.valid).tokens, data[place:])


@given(
    texts=st.lists(st.text("ab c", min_size=1, max_size=9), min_size=1, max_size=8),
    validation=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]),
)
def test_a_fraction_of_several_documents(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], validation: float
) -> None:
    folder = tmp_path_factory.mktemp("fraction")
    tokenizer = learnt("chars", "abc ")
    done = prepare.prepare(
        rows(folder / "a.jsonl", texts), tokenizer, folder / "out", validation=validation, split="fraction"
    )
    # By hand: every character once, an end-of-text after each document's last one; the boundary counts characters only.
    end = [tokenizer.end_of_text] if len(texts) > 1 else []
    place = int((1 - validation) * sum(map(len, texts)))
    expected: dict[bool, list[int]] = {False: [], True: []}
    seen = 0
    for text in texts:
        for character in text:
            late = seen >= place
            expected[late] += tokenizer.encode(character)
            seen += 1
        expected[late] += end
    assert ids(done.train) == expected[False]
    assert (ids(done.valid) if done.valid else []) == expected[True]
    assert (done.valid is None) == (validation == 0)
    assert (done.train_tokens, done.valid_tokens) == (len(expected[False]), len(expected[True]))


def test_a_word_is_never_divided_between_training_and_validation(tmp_path: Path) -> None:
    text = "the cat sat on the mat and looked at the interminable rain--alone"
    sources = story(tmp_path / "a.txt", text)
    tokenizer = prepare.choose_tokenizer("words-strict", sources)
    for percent in range(1, 100, 3):
        done = prepare.prepare(sources, tokenizer, tmp_path / str(percent), validation=percent / 100)
        both = ids(done.train) + ids(done.valid)
        assert both == tokenizer.encode(text)
        assert (
            done.train_tokens <= len(text[: int((1 - percent / 100) * len(text)) + 1].replace("--", " - ").split()) + 1
        )


def test_whole_documents_validate(tmp_path: Path) -> None:
    texts = [f"{number} {'x' * number}" for number in range(57)]
    tokenizer = learnt("chars", *texts)
    done = prepare.prepare(rows(tmp_path / "a.jsonl", texts), tokenizer, tmp_path / "out", validation=0.2)
    assert done.split == "document"
    found: dict[str, list[str]] = {}
    for name, path in (("train", done.train), ("valid", done.valid)):
        shards = Shards.open(path)
        bounds = [*shards.documents.tolist(), shards.count]
        spans = [shards.tokens[start:stop].tolist() for start, stop in zip(bounds, bounds[1:], strict=False)]
        assert all(span[-1] == tokenizer.end_of_text for span in spans)
        found[name] = [tokenizer.decode(span[:-1]) for span in spans]
        assert shards.bytes == sum(len(text) for text in found[name])
    assert sorted(found["train"] + found["valid"]) == sorted(texts)
    assert all(span == [text for text in texts if text in span] for span in found.values())  # in order
    # One of every five, each stretch of five its own.
    assert [texts.index(text) // 5 for text in found["valid"]][:11] == list(range(11))


@given(number=st.integers(0, 10**9), share=st.fractions("1/1000", "999/1000"))
def test_every_stretch_gives_exactly_one_document(number: int, share: Fraction) -> None:
    stretch = number * share // 1
    members = [
        n
        for n in range(int(stretch / share) - 1, int((stretch + 1) / share) + 2)
        if n >= 0 and n * share // 1 == stretch
    ]
    assert number in members
    assert sum(in_validation(member, share) for member in members) == 1


def test_drawn_documents_are_spread_over_their_stretch() -> None:
    drawn = [number % 10 for number in range(20_000) if in_validation(number, Fraction(1, 10))]
    counts = np.bincount(drawn, minlength=10)
    assert len(drawn) == 2_000 and counts.min() > 150 and counts.max() < 250  # 200 each, 13 standard deviation


def test_auto_divides_by_document_from_twenty_on() -> None:
    def kind(documents: int, validation: float = 0.1) -> str:
        return divide(read.Survey(documents, characters=1000), validation, "auto").kind

    assert [kind(n) for n in (1, 19, 20, 1000)] == ["fraction", "fraction", "document", "document"]
    assert kind(20, 0.001) == "fraction"  # no document would validate
    assert kind(1000, 0.0) == "none"
    with pytest.raises(DataError, match="0 of 3 documents would validate"):
        divide(read.Survey(3, 1000), 0.01, "document")


def test_documents_with_an_empty_side_of_a_fraction() -> None:
    assert Division("fraction", boundary=3).parts(0, 0, "abc") == [("train", "abc")]
    assert Division("fraction", boundary=3).parts(0, 3, "abc") == [("valid", "abc")]


# the tokenizer


def test_tokenizers_by_name(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    one = story(tmp_path / "a.txt", "to be, or not to be")
    many = rows(tmp_path / "a.jsonl", ["to be", "or not"])
    assert prepare.choose_tokenizer("chars", many).end_of_text is not None
    assert prepare.choose_tokenizer("words", one).unknown is not None
    assert prepare.choose_tokenizer("words-strict", one).unknown is None
    assert prepare.choose_tokenizer("bpe", one, vocabulary=260).vocabulary == 260
    assert prepare.choose_tokenizer("gpt2", one).vocabulary == 50_257
    saved = prepare.choose_tokenizer("bpe", one)
    saved.save(tmp_path / "saved")
    assert prepare.choose_tokenizer(str(tmp_path / "saved"), many).fingerprint == saved.fingerprint
    with pytest.raises(TokenizerError, match="'gtp2' is neither.*\n.*did you mean 'gpt2'"):
        prepare.choose_tokenizer("gtp2", one)
    with pytest.raises(TokenizerError, match="--vocabulary 300 does not fit --tokenizer gpt2"):
        prepare.choose_tokenizer("gpt2", one, vocabulary=300)


def test_byte_pairs_are_learnt_from_a_bounded_sample_spread_over_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = rows(tmp_path / "a.jsonl", [f"{number:04}" for number in range(1000)])  # 4 of 17 bytes a line are text
    assert len(list(learning.texts(sources, kind="bpe"))) == 1000
    monkeypatch.setattr(learning, "SAMPLE", 1700)
    sample = [int(text) for text in learning.texts(sources, kind="bpe")]
    assert sample == list(range(0, 1000, 10))  # 1700 of 17,000 bytes
    monkeypatch.setattr(learning, "SAMPLE", 200)
    assert len(list(learning.texts([replace(sources[0], bytes=1)], kind="bpe"))) == 50  # a size told wrongly
    assert len(list(learning.texts(sources, kind="chars"))) == 1000
    assert prepare.choose_tokenizer("chars", sources).vocabulary == 11


# restart


class Killed(BaseException):
    """What no handler of ours catches: the process is gone."""


def killing(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """The next process dies just before its call number `at` of os.<name>."""
    real, calls = getattr(os, name), iter(range(10**9))

    def call(*arguments: object) -> object:
        if next(calls) == at:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(os, name, call)


@pytest.mark.slow
@pytest.mark.parametrize(("split", "name"), [("fraction", "replace"), ("document", "fsync"), ("fraction", "unlink")])
def test_killed_at_any_write_it_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: prepare.Split, name: str
) -> None:
    monkeypatch.setattr(encoder, "SAVE_SECONDS", 0.0)  # after every batch
    monkeypatch.setattr(encoder, "BATCH", 1)  # of one piece
    monkeypatch.setattr(files, "BLOCK", 20)
    first = rows(tmp_path / "a.jsonl", ["the first of all " * 3, "second", "third one"])
    sources = first + story(tmp_path / "b.txt", "a longer text, of some pieces, to be cut " * 3)
    tokenizer = learnt("bpe", "the first of all a longer text of some pieces")

    def work(out: Path) -> prepare.Prepared:
        return prepare.prepare(sources, tokenizer, out, split=split, validation=0.5)

    whole = work(tmp_path / "whole")
    assert whole.valid_tokens
    kills = 0
    for at in range(10**6):
        out = tmp_path / f"out{at}"
        with monkeypatch.context() as patch:
            killing(patch, name, at)
            try:
                work(out)
            except Killed:
                kills += 1
            else:
                break
        with monkeypatch.context() as patch:  # a second kill, some steps later
            killing(patch, name, 5)
            try:
                work(out)
            except Killed:
                kills += 1
        work(out)
        assert contents(out) == contents(tmp_path / "whole"), f"killed at {name} {at}"
    assert kills >= {"replace": 15, "fsync": 40, "unlink": 4}[name]


SCRIPT = """
import sys
from groundup import tokens
from groundup.text import files, read
from groundup.tokens import encoder, prepare
encoder.SAVE_SECONDS, encoder.BATCH, files.BLOCK = 0.0, 1, 5_000
sources, tokenizer = read.sources([sys.argv[1]]), tokens.load(sys.argv[2])
prepare.prepare(sources, tokenizer, sys.argv[3], progress=lambda *said: print(*said, flush=True))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    text = " ".join(f"{number} bottles of beer on the wall," for number in range(9_000))
    sources = story(tmp_path / "a.txt", text)
    tokenizer = learnt("bpe", text[:9_000])
    tokenizer.save(tmp_path / "tokenizer")
    prepare.prepare(sources, tokenizer, tmp_path / "whole")
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(tmp_path / "a.txt"),
        str(tmp_path / "tokenizer"),
        str(tmp_path / "out"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(prepare.__file__).parents[2])}
    starts = []
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout
            lines = [line.split() for line in iter(process.stdout.readline, "") if line.startswith("encoding")][:1]
            starts.append(int(lines[0][1]) if lines else None)
            for _ in range(8):
                process.stdout.readline()
            process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_finished_and_unchanged_it_returns_at_once(tmp_path: Path) -> None:
    sources, tokenizer = story(tmp_path / "a.txt", "to be or not to be"), learnt("bpe", "to be")
    done = prepare.prepare(sources, tokenizer, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    said: list[str] = []
    again = prepare.prepare(sources, tokenizer, tmp_path / "out", progress=lambda *what: said.append(what[0]))
    assert not said and {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert (again.train_tokens, again.sources) == (done.train_tokens, done.sources)
    found = prepare.opened(tmp_path / "out")
    assert found.tokenizer.fingerprint == tokenizer.fingerprint and found.train_tokens == done.train_tokens


def test_a_learnt_tokenizer_is_not_learnt_again(tmp_path: Path) -> None:
    story(tmp_path / "a.txt", "to be or not to be")
    asked = Prepare.create(data=[str(tmp_path / "a.txt")], tokenizer="chars")
    said: list[str] = []
    first = prepare.from_settings(asked, tmp_path / "out", progress=lambda *what: said.append(what[0]))
    assert list(dict.fromkeys(said)) == ["learning", "reading", "encoding"]
    said.clear()
    again = prepare.from_settings(asked, tmp_path / "out", progress=lambda *what: said.append(what[0]))
    assert not said and again.tokenizer.fingerprint == first.tokenizer.fingerprint
    with pytest.raises(DataError, match="tokenizer was"):
        prepare.from_settings(asked.replace(tokenizer="words"), tmp_path / "out")


def test_a_touched_or_moved_file_is_the_same_text(tmp_path: Path) -> None:
    sources, tokenizer = story(tmp_path / "a.txt", "to be or not to be"), learnt("bpe", "to be")
    done = prepare.prepare(sources, tokenizer, tmp_path / "out")
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    os.utime(tmp_path / "b.txt", (1, 1))
    assert prepare.prepare(read.sources([str(tmp_path / "b.txt")]), tokenizer, tmp_path / "out").train == done.train


def test_another_request_in_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    text = "to be or not to be"
    sources, tokenizer, out = story(tmp_path / "a.txt", text), learnt("bpe", text), tmp_path / "out"
    prepare.prepare(sources, tokenizer, out)
    before = contents(out)
    other = story(tmp_path / "b.txt", text + "!")
    cases: dict[str, Callable[[], object]] = {
        "tokenizer was": lambda: prepare.prepare(sources, learnt("chars", text), out),
        "validation was 0.1, now 0.2": lambda: prepare.prepare(sources, tokenizer, out, validation=0.2),
        "split was auto, now fraction": lambda: prepare.prepare(sources, tokenizer, out, split="fraction"),
        "the text of .*b.txt is not that of .*a.txt": lambda: prepare.prepare(other, tokenizer, out),
        "b.txt is new": lambda: prepare.prepare(sources + other, tokenizer, out),
    }
    for message, call in cases.items():
        with pytest.raises(DataError, match=message):
            call()
    assert contents(out) == before


def test_folders_that_cannot_take_shards(tmp_path: Path) -> None:
    sources, tokenizer = story(tmp_path / "a.txt", "to be"), learnt("bpe", "to be")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "prepared.json").write_text("[]", encoding="utf-8")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "prepared.json").write_text('{"format": 1, "done": true}', encoding="utf-8")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "prepared.json").write_text('{"format": 99}', encoding="utf-8")
    for name, message in {
        "full": "holds other files: thesis.txt",
        "odd": "cannot read .*prepared.json",
        "part": "cannot read .*prepared.json",
        "new": "has format 99, this groundup reads 1",
        "a.txt": "a.txt is a file, not a folder",
        "a.txt/deeper": "cannot write .*deeper",
    }.items():
        with pytest.raises(UserError, match=message):
            prepare.prepare(sources, tokenizer, tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    for name, message in {"none": "holds no token shards", "full": "holds other files"}.items():
        with pytest.raises(DataError, match=message):
            prepare.opened(tmp_path / name)


def test_unusable_text_leaves_nothing_behind(tmp_path: Path) -> None:
    tokenizer = learnt("chars", "abc")
    with pytest.raises(TokenizerError, match="a.jsonl, document 2: unknown character 'd'"):
        prepare.prepare(rows(tmp_path / "a.jsonl", ["abc", "abd"]), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no text at all in .*a.jsonl"):
        prepare.prepare(rows(tmp_path / "a.jsonl", ["", ""]), tokenizer, tmp_path / "out")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{', encoding="utf-8")
    with pytest.raises(DataError, match="a.jsonl line 2"):
        prepare.prepare(read.sources([str(tmp_path / "a.jsonl")]), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_shards_are_noticed_when_they_are_asked_for_again(tmp_path: Path) -> None:
    sources, tokenizer = story(tmp_path / "a.txt", "to be or not to be"), learnt("bpe", "to be")
    done = prepare.prepare(sources, tokenizer, tmp_path / "out")
    done.train.write_bytes(done.train.read_bytes()[:-1])
    with pytest.raises(DataError, match="train.tokens is truncated"):
        prepare.prepare(sources, tokenizer, tmp_path / "out")


def test_text_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "BATCH", 1)
    sources, tokenizer = rows(tmp_path / "a.jsonl", ["one", "two"]), learnt("bpe", "one")

    def meddle(doing: str, done: int, total: int) -> None:
        if doing == "encoding" and done == 3:
            with (tmp_path / "a.jsonl").open("a", encoding="utf-8") as file:
                file.write('{"text": "three"}\n')

    with pytest.raises(DataError, match="changed while it was read"):
        prepare.prepare(sources, tokenizer, tmp_path / "out", progress=meddle)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    sources, tokenizer = story(tmp_path / "a.txt", "to be or not to be"), learnt("bpe", "to be")

    def interrupt(doing: str, done: int, total: int) -> None:
        if doing == "encoding":
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match="repeat the command to go on") as found:
        prepare.prepare(sources, tokenizer, tmp_path / "out", progress=interrupt)
    assert found.value.status == 130
    with pytest.raises(DataError, match="is unfinished"):
        prepare.opened(tmp_path / "out")
    assert prepare.prepare(sources, tokenizer, tmp_path / "out").train_tokens > 0


# in memory


@pytest.mark.parametrize("texts", [["only one"], ["first", "the second", "x" * 70]])
def test_ids_in_memory_are_those_on_disk(tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 16)
    sources, tokenizer = rows(tmp_path / "a.jsonl", texts), learnt("bpe", *texts)
    done = prepare.prepare(sources, tokenizer, tmp_path / "out", validation=0)
    shards, found = Shards.open(done.train), prepare.tokenize(sources, tokenizer)
    assert found.ids.dtype == np.uint32 and found.ids.tolist() == shards.tokens.tolist()
    assert found.documents.tolist() == shards.documents.tolist() and found.bytes == shards.bytes
    for limit in range(1, len(found.ids) + 2):
        few = prepare.tokenize(sources, tokenizer, limit=limit)
        assert few.ids.tolist() == found.ids[:limit].tolist()
        assert few.documents.tolist() == [start for start in found.documents.tolist() if start < limit]
        plain = [id for id in few.ids.tolist() if id != tokenizer.end_of_text]
        assert few.bytes == len(tokenizer.decode_bytes(plain))


def test_a_tokenizer_that_adds_bos_puts_it_before_every_document(tmp_path: Path) -> None:
    texts = ["ab", "ba" * 40, "b"]
    plain = learnt("chars", *texts, special=("<|endoftext|>", "<s>"))
    adds = plain.with_manner(Manner(adds_bos=True))
    assert adds.start == [3] and adds.fingerprint != plain.fingerprint
    sources = rows(tmp_path / "a.jsonl", texts)
    done = prepare.prepare(sources, adds, tmp_path / "out", validation=0)
    shards, found = Shards.open(done.train), prepare.tokenize(sources, adds)
    assert shards.tokens.tolist() == [3, 0, 1, 2, 3, *[1, 0] * 40, 2, 3, 1, 2] == found.ids.tolist()
    assert shards.documents.tolist() == [1, 5, 87] == found.documents.tolist()  # a window opens with the id before
    assert shards.bytes == found.bytes == 83


def test_no_text_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text at all"):
        prepare.tokenize(rows(tmp_path / "a.jsonl", [""]), learnt("bpe", "x"))


# size


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path: Path) -> None:
    words = " ".join(f"w{number % 977} is, {number}" for number in range(10_000))
    path = tmp_path / "big.txt"
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < 60_000_000:
            file.write(words)
    sources, tokenizer = read.sources([str(path)]), learnt("chars", words)
    tracemalloc.start()
    begun = time.perf_counter()
    done = prepare.prepare(sources, tokenizer, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.bytes >= 60_000_000 and done.train_tokens + done.valid_tokens == done.bytes
    assert peak < 100_000_000, f"{peak:,} bytes, {time.perf_counter() - begun:.1f} s"
