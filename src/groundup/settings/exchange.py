"""Settings of the commands that bring models in from elsewhere and hand ours out.

In: flags, TOML. Out: `Import`, `Export`, `Models`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from groundup.settings.base import Dtype, Settings, in_llama_cpp, knob


class Import(Settings):
    """Turn a model from elsewhere into a folder of our own: Hugging Face, OpenAI's GPT-2, GGUF, llama2.c."""

    source: str = knob("", "a folder, a .gguf or .bin file, or a name that groundup models lists", positional=True)
    out: Path | None = knob(None, "the new model folder")
    tokenizer: Path | None = knob(None, "the tokenizer of a llama2.c file; by default the one beside it")
    dtype: Dtype = knob("auto", "how to store the weights; auto: as they are there, packed ones (quantised) as fp32")


class Export(Settings):
    """Hand a model on to another program: transformers, llama.cpp, Ollama, tiktoken."""

    model: str = knob("", "run folder, RUN/best, or model folder", positional=True)
    to: Literal["hf", "gguf", "ollama", "tiktoken"] = knob(
        "hf", "hf: a folder for transformers; gguf: a file for llama.cpp; ollama: with a Modelfile; tiktoken: the ids"
    )
    out: Path | None = knob(None, "the file or folder to write; by default beside the model, named after it")
    dtype: Annotated[
        Literal["auto", "f32", "f16", "bf16", "q8_0", "q4_0", "fp32", "fp16"], AfterValidator(in_llama_cpp)
    ] = knob("auto", "how to store the weights; auto: as they are for hf, f16 for gguf and ollama")
    check: bool = knob(False, "open the result with the program it is for, if installed, and compare what it computes")


class Models(Settings):
    """List the public models that can be had by name, or show one with its files, addresses and hashes."""

    name: str = knob("", "show this one in full", positional=True)
