"""What was written, opened by somebody else's program: transformers, llama.cpp, tiktoken.

In: a folder or file that another program is said to open. Out: what that program makes of it: ids of a text, logits of
ids. Each program is imported when it is asked for; `available` says beforehand whether it is installed.
"""

import base64
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from groundup.errors import CheckpointError, nearest

# module -> what pip calls it
PACKAGES = {"transformers": "transformers", "llama_cpp": "llama-cpp-python", "tiktoken": "tiktoken"}


class Absent(CheckpointError):
    """A program that is not installed, or does not load: nothing is known about the file."""


def available(name: str) -> bool:
    """Whether a program is installed; nothing is imported.

    >>> available("tiktoken")
    True
    """
    _check_known(name)
    return importlib.util.find_spec(name) is not None


def label(name: str) -> str:
    """A program with its version, for people.

    >>> label("tiktoken")
    'tiktoken ...'
    """
    _check_known(name)
    return f"{PACKAGES[name]} {importlib.metadata.version(PACKAGES[name])}"


def _check_known(name: str) -> None:
    if name not in PACKAGES:
        raise CheckpointError(f"unknown program {name!r}", nearest(name, PACKAGES))


def imported(name: str) -> Any:
    """The module of a program; raises Absent where it is missing, or there but broken."""
    if not available(name):
        raise Absent(f"{PACKAGES[name]} is not installed", f"pip install {PACKAGES[name]}")
    try:
        return importlib.import_module(name)
    except Exception as error:  # a compiled library can fail to load in any way
        raise Absent(
            f"{PACKAGES[name]} is installed but does not load: {error}",
            f"pip install --force-reinstall {PACKAGES[name]}",
        ) from None


def transformers_logits(folder: Path) -> Callable[[list[int]], Tensor]:
    """The network that AutoModelForCausalLM finds in a folder, in fp32: ids (T,) to logits (T, V).

    No code from the folder is run and nothing is downloaded. Raises CheckpointError when transformers cannot open it,
    or finds a tensor missing, left over or of another shape.

    >>> transformers_logits(Path("runs/first/model"))([5, 3]).shape  # doctest: +SKIP
    torch.Size([2, 1024])
    """
    model = _opened(folder, "AutoModelForCausalLM")

    @torch.inference_mode()
    def logits(ids: list[int]) -> Tensor:
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()

    return logits


def transformers_classes(folder: Path) -> Callable[[list[int]], Tensor]:
    """The classifier that AutoModelForSequenceClassification finds in a folder, in fp32: ids (T,) to logits (C,).

    As `transformers_logits`; a bias of the score, which no classifier there has, is passed over.
    """
    model = _opened(folder, "AutoModelForSequenceClassification", passed_over=("score.bias",))

    @torch.inference_mode()
    def logits(ids: list[int]) -> Tensor:
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()

    return logits


def _opened(folder: Path, kind: str, *, passed_over: Sequence[str] = ()) -> Any:
    """A network of transformers in evaluation mode, every tensor of the file in it."""
    transformers = imported("transformers")
    with _quiet(transformers), _refusals("transformers", folder):
        model, report = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    found = {kind: sorted(set(map(str, names)) - set(passed_over)) for kind, names in report.items()}
    if strange := {kind: names for kind, names in found.items() if names}:
        raise CheckpointError(f"transformers does not find its own tensors in {folder}: {strange}", "export it again")
    return model.eval()


def transformers_ids(folder: Path) -> Callable[[str], list[int]]:
    """The tokenizer that AutoTokenizer finds in a folder: text to ids, nothing added, special tokens as plain text.

    >>> transformers_ids(Path("runs/first/model"))("Once")  # doctest: +SKIP
    [523]
    """
    transformers = imported("transformers")
    with _quiet(transformers), _refusals("transformers", folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    return ids


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and remarks of transformers on the person's terminal; its own settings are put back."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _refusals(program: str, path: Path) -> Iterator[None]:
    """What another program raises about a file, in its words, as a CheckpointError."""
    try:
        yield
    except Exception as error:  # each program has errors of its own
        raise CheckpointError(
            f"{program} cannot open {path}: {type(error).__name__}: {error}",
            f"update {program}, or export in another format",
        ) from None


class LlamaCpp:
    """A GGUF file in llama.cpp, through llama-cpp-python; a `with` block closes it.

    `context`: ids at most that `logits` takes. `words`: read the tokenizer only, not the weights. `exact`: keep keys
    and values in fp32; its default, fp16, is what people run, and moves logits by about 1e-3 of the largest.

    >>> with LlamaCpp(Path("first-f16.gguf")) as program:  # doctest: +SKIP
    ...     program.logits(program.ids("Once")).shape
    torch.Size([1, 1024])
    """

    def __init__(self, file: Path, *, context: int = 512, words: bool = False, exact: bool = False) -> None:
        llama_cpp = imported("llama_cpp")
        kept = llama_cpp.GGML_TYPE_F32 if exact else llama_cpp.GGML_TYPE_F16
        threads = torch.get_num_threads()
        # what it logs about a context longer than the model's goes past its own `verbose`
        with _refusals("llama.cpp", file), contextlib.redirect_stderr(io.StringIO()):
            self._model = llama_cpp.Llama(
                str(file),
                n_ctx=context,
                n_threads=threads,
                n_threads_batch=threads,
                logits_all=not words,
                vocab_only=words,
                type_k=kept,
                type_v=kept,
                verbose=False,
            )
        self._context = context

    def ids(self, text: str) -> list[int]:
        """Text to ids, nothing added, special tokens as plain text."""
        return list(self._model.tokenize(text.encode("utf-8"), add_bos=False, special=False))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Ids (T,), T at most the context, to logits (T, V) in fp32; each call begins a text anew."""
        if not 0 < len(ids) <= self._context:
            raise CheckpointError(
                f"{len(ids)} ids were given to llama.cpp, opened with a context of {self._context}",
                "give at least one, or open the file with a larger context",
            )
        self._model.reset()
        self._model.eval(list(ids))
        return torch.from_numpy(np.array(self._model.scores[: len(ids)], dtype=np.float32))

    def close(self) -> None:
        """Give back its memory; the object is of no use afterwards."""
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def llama_cpp_logits(file: Path, *, context: int = 512, exact: bool = False) -> Callable[[list[int]], Tensor]:
    """What llama.cpp computes from a GGUF file: ids (T,) to logits (T, V); its memory goes with the function."""
    return LlamaCpp(file, context=context, exact=exact).logits


def llama_cpp_ids(file: Path) -> Callable[[str], list[int]]:
    """llama.cpp's tokenizer of a GGUF file: text to ids, nothing added, special tokens as plain text."""
    return LlamaCpp(file, words=True).ids


def tiktoken_ids(note: Path) -> Callable[[str], list[int]]:
    """tiktoken with an exported rank file: text to ids. `note` is the `.tiktoken.json`, which names the rank file."""
    tiktoken = imported("tiktoken")
    with _refusals("tiktoken", note):
        about = json.loads(note.read_text(encoding="utf-8"))
        # read here: tiktoken's own reader keeps a copy by path, and would give back what once stood there
        lines = note.with_name(about["ranks"]).read_bytes().splitlines()
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in map(bytes.split, lines)}
        ids = [*ranks.values(), *about["special_tokens"].values()]
        if len(set(ids)) < len(ids):  # tiktoken would end the program
            raise ValueError("two tokens have the same id")
        encoding = tiktoken.Encoding(
            name=about["name"],
            pat_str=about["pat_str"],
            mergeable_ranks=ranks,
            special_tokens=about["special_tokens"],
        )
    return encoding.encode_ordinary
