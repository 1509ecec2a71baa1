"""The catalog of models: what it says, where it looks, and that a folder of files comes whole or not at all."""

import dataclasses
import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from groundup.checkpoint import sources
from groundup.checkpoint.sources import ENTRIES, File, Model
from groundup.errors import CheckpointError, DataError
from groundup.model.config import SIZES, count_parameters, from_name

WEIGHTS, WORDS = b"numbers " * 5000, b"a vocabulary"


class Server(http.server.ThreadingHTTPServer):
    """Hands out the files of a folder and remembers which were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "model.bin").write_bytes(WEIGHTS)
    (folder / "words.bin").write_bytes(WORDS)
    with Server(folder) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone, and no mirror."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GROUNDUP_DATA", raising=False)
    return tmp_path / "cache" / "models"


@pytest.fixture
def tiny(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model of two files in the catalog: the weights with a known hash, the words without."""
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    files = (
        File(path="model.bin", address=f"{server.address}/model.bin", sha256=sha256, bytes=len(WEIGHTS)),
        File(path="words.bin", address=f"{server.address}/words.bin", copy="elsewhere/words.bin"),
    )
    model = Model(format="llama2.c", files=files, parameters=9, bytes=9, licence="MIT", citation="nobody")
    monkeypatch.setitem(ENTRIES, "tiny", model)
    return model


def test_every_entry_is_complete():
    for name, model in ENTRIES.items():
        paths = [file.path for file in model.files]
        assert model.licence and model.citation and model.format in ("huggingface", "openai", "gguf", "llama2.c")
        assert len(set(paths)) == len(paths) and all("/" not in path and not path.startswith(".") for path in paths)
        assert model.opens == "" or model.opens in paths
        assert bool(model.opens) == (model.format in ("llama2.c", "gguf")), name
        known = sum(file.wheel.bytes if file.wheel else file.bytes for file in model.files)  # what travels
        # half a byte to four a parameter, GPT-2's stored masks, vocabularies
        assert max(known, model.parameters // 2) <= model.bytes < 4.5 * model.parameters + 20_000_000, name
        for file in model.files:
            assert file.address.startswith("https://") and (file.sha256 or not file.bytes)
            assert len(file.sha256) in (0, 64) and (not file.sha256 or int(file.sha256, 16))


@pytest.mark.parametrize("name", sorted(set(ENTRIES) & set(SIZES)))
def test_parameters_are_those_of_the_named_size(name: str):
    assert ENTRIES[name].parameters == count_parameters(from_name(name)).total


def test_original_files_have_the_parameters_of_their_size():
    for size, name in (("124m", "gpt2"), ("355m", "gpt2-medium"), ("774m", "gpt2-large"), ("1558m", "gpt2-xl")):
        assert ENTRIES[f"gpt2-{size}-openai"].parameters == ENTRIES[name].parameters


def test_the_sample_data_are_the_files_of_the_catalog(data_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    folder = data_dir / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: it is huggingface.co/karpathy/tinyllamas, stories260K/")
    assert sources.local("stories260k") == folder
    assert sources.find("stories260k") == folder / "stories260K.bin"
    assert [(folder / file.path).stat().st_size for file in ENTRIES["stories260k"].files] == [1_056_540, 6_227]
    assert not cache.exists()  # nothing was copied


def test_a_model_comes_whole_or_not_at_all(tiny: Model, server: Server, cache: Path):
    seen: list[str] = []
    (server.folder / "words.bin").rename(server.folder / "hidden")
    with pytest.raises(DataError, match="'tiny/words.bin' may have moved"):
        sources.find("tiny", progress=lambda doing, done, total: seen.append(doing))
    assert not (cache / "tiny").exists() and sources.local("tiny") is None
    assert set(seen) == {"downloading tiny/model.bin"}
    (server.folder / "hidden").rename(server.folder / "words.bin")
    assert sources.find("tiny") == cache / "tiny" == sources.local("tiny")
    assert server.asked == ["/model.bin", "/words.bin", "/words.bin"]  # the weights came once
    assert (cache / "tiny" / "model.bin").read_bytes() == WEIGHTS
    assert sources.find("tiny") == cache / "tiny" and len(server.asked) == 3


def test_two_at_once_fetch_it_once(tiny: Model, server: Server, cache: Path):
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(sources.find, "tiny") for _ in range(2)]
        assert [future.result() for future in found] == [cache / "tiny"] * 2
    assert sorted(server.asked) == ["/model.bin", "/words.bin"]
    assert sorted(path.name for path in (cache / "tiny").iterdir()) == ["model.bin", "words.bin", "words.bin.sha256"]


def test_a_file_that_was_removed_is_fetched_again_alone(tiny: Model, server: Server, cache: Path):
    sources.find("tiny")
    (cache / "tiny" / "words.bin").unlink()
    assert sources.find("tiny") == cache / "tiny"
    assert server.asked == ["/model.bin", "/words.bin", "/words.bin"]


def test_other_content_is_refused(tiny: Model, server: Server, cache: Path):
    (server.folder / "model.bin").write_bytes(WEIGHTS[::-1])
    with pytest.raises(DataError, match="sent other content than the catalog's 'tiny/model.bin'"):
        sources.find("tiny")
    assert not (cache / "tiny").exists()


@pytest.mark.parametrize("name", ["model.bin", "words.bin"])  # a known hash, and that of the first download
def test_a_file_that_changed_here_is_refused(tiny: Model, cache: Path, name: str):
    path = sources.find("tiny") / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=f"{name} is not the catalog's 'tiny'"):
        sources.find("tiny")


def test_a_copy_in_the_mirror_is_taken_and_verified(
    tiny: Model, server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "mirror" / "elsewhere" / "words.bin"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(WORDS)
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path / "mirror"))
    assert sources.find("tiny") == cache / "tiny"
    assert server.asked == ["/model.bin"] and (cache / "tiny" / "words.bin").read_bytes() == WORDS


@pytest.mark.parametrize("place", ["tiny", "models/tiny"])
def test_a_whole_model_in_the_mirror_comes_first(
    tiny: Model, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    folder = tmp_path / "mirror" / place
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(WEIGHTS)
    (folder / "words.bin").write_bytes(b"whatever: no hash is known")
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path / "mirror"))
    assert sources.find("tiny") == folder and not server.asked
    (folder / "model.bin").write_bytes(b"?")
    with pytest.raises(DataError, match="is not the catalog's 'tiny'"):
        sources.find("tiny")


def test_a_gated_model_is_not_asked_for(tiny: Model, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENTRIES, "tiny", dataclasses.replace(tiny, gated="https://example.org/terms"))
    with pytest.raises(CheckpointError, match=r"'tiny' is gated.*\n.*accept them at https://example.org/terms"):
        sources.find("tiny")
    assert not server.asked
    assert ENTRIES["llama-3.2-1b"].gated


def test_a_name_that_is_not_there(cache: Path):
    with pytest.raises(CheckpointError, match="did you mean 'stories260k'"):
        sources.find("stories260")
