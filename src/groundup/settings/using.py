"""Settings of the commands that use or show what was trained.

In: flags, TOML. Out: `Generate`, `Evaluate`, `Info`, `Report`, `Demo`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from groundup.settings.base import Device, Dtype, Positive, Settings, in_torch, knob
from groundup.settings.data import TextSettings


class Generate(Settings):
    """Continue a prompt."""

    model: str = knob("", "run folder, RUN/best, or model folder", positional=True)
    prompt: str | None = knob(
        None, "the text to continue; - reads standard input; empty starts a new document", stdin=True
    )
    prompts: Path | None = knob(None, "a file with one prompt per line; - reads standard input", stdin=True)
    max_tokens: Positive = knob(200, "new tokens at most")
    temperature: float = knob(0.8, "0 is greedy; below 1 safer, above 1 wilder", ge=0)
    top_k: int = knob(0, "keep only the k most likely tokens; 0 keeps all", ge=0)
    top_p: float = knob(1.0, "keep the smallest set of tokens with this probability", gt=0, le=1)
    repetition_penalty: float = knob(1.0, "divide the score of tokens already seen; 1 is off", gt=0)
    stop: list[str] = knob([], "stop before any of these texts")
    seed: int | None = knob(None, "same seed, same text", ge=0, lt=2**63)
    samples: Positive = knob(1, "continuations per prompt")
    cache: bool = knob(True, "keep keys and values between tokens")
    raw: bool = knob(False, "continue the prompt as it stands, also with a model that was taught to chat")
    system: str | None = knob(None, "for a model that was taught to chat: what it is told first")
    device: Device = knob("auto", "where to compute")
    dtype: Annotated[Literal["auto", "fp32", "bf16", "int8", "f32"], AfterValidator(in_torch)] = knob(
        "auto",
        "auto: as stored in the folder; int8 (rounded weights) is fastest on a CPU, then bf16 if the CPU has it, fp32",
    )
    compile: Literal["auto", "on", "off"] = knob(
        "auto",
        "compile the step of one token; auto: where it pays, on CUDA (30 s) from 4,000 tokens on, on a CPU (10 s) for "
        "one text of 2,400 tokens or more (124M parameters)",
    )
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Evaluate(TextSettings):
    """How good a model is: loss on a text, multiple choice, exact answers, labels, or a task of lm-eval."""

    model: str = knob("", "run folder, RUN/best, or model folder", positional=True)
    task: Literal["text", "choices", "answers", "labels"] = knob(
        "text",
        "text: loss, perplexity, bits per byte; choices: HellaSwag or ARC style jsonl, by likelihood; answers: prompts "
        "with an exact answer; labels: a labelled file, for a classifier",
    )
    lm_eval: list[str] = knob([], "tasks of lm-eval by name, or .yaml files (needs groundup[eval])")
    context: Positive | None = knob(None, "window length; by default the model's context")
    stride: Positive | None = knob(None, "distance between windows; by default the context (no overlap)")
    batch: Positive = knob(16, "windows, or rows, per forward pass")
    max_tokens: Positive | None = knob(None, "of a text: stop after so many tokens; of an answer: its longest length")
    limit: Positive | None = knob(None, "of choices, answers and lm-eval: only the first so many items")
    label_field: str = knob("label", "for labels: column or field that holds the class")
    pair_field: str | None = knob(None, "for labels: column or field of a second text, for a classifier of pairs")
    out: Path | None = knob(None, "write what came of each item here, one JSON object a line")
    device: Device = knob("auto", "where to compute")
    dtype: Dtype = knob("auto", "bf16 where the hardware has it, else fp32")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Info(Settings):
    """Versions, devices, a truth check of each device; with a folder, what it holds."""

    folder: Path | None = knob(None, "a run, model, tokenizer or shards folder", positional=True)
    sizes: bool = knob(False, "list the named model sizes")
    data: bool = knob(False, "list the catalog of public texts")
    presets: bool = knob(False, "list the settings files that --config knows by name")


class Report(Settings):
    """Show what a training run did: one HTML page with curves, samples, settings, and what it all means."""

    runs: list[str] = knob([], "run folders; several are laid side by side", positional=True)
    out: Path | None = knob(None, "the page; by default RUN/report.html, or comparison.html here for several runs")
    open: bool = knob(False, "show the page in the browser")


class Lesson(Settings):
    """List the rungs of the ladder from words to GPT, or run one: it builds by hand what the library does."""

    lesson: str = knob("", "name or number of a rung; without one all are listed", positional=True)
    out: Path = knob(Path("lessons"), "folder for the pictures")
    copy_to: Path | None = knob(None, "copy the script into this folder instead, to read, run and change (# %% cells)")


class Reproduce(Settings):
    """Compute the figures that the documents print, and say which come out."""

    figures: list[str] = knob(
        [], "ids, beginnings of ids (book.5), lessons, quick or all; by default quick", positional=True
    )


class Demo(Settings):
    """Train a small model on the built-in harbor world: it tells stories, then learns to answer questions."""

    out: Path = knob(Path("runs/demo"), "run folder; an earlier demo there is replaced")
    seed: int = knob(1337, "seed of stories, weights and order", ge=0, lt=2**63)
    stories: Positive = knob(100, "generated stories to check")
    questions: Positive = knob(200, "unseen questions to answer")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")
