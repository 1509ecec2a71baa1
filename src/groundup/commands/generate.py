"""`groundup generate`: open a model folder, continue prompts, show the text as it is written.

In: `settings.Generate`. Out: `Result`, every text with its prompt. Remarks and speed go to standard error. A model that
was taught to chat is asked its prompts, as its template writes a question; with `raw` it continues them as they stand.
"""

import dataclasses
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup import machine as machines
from groundup.checkpoint import folder
from groundup.checkpoint.folder import Loaded
from groundup.errors import DataError, GroundupError, SettingsError
from groundup.generate import Delta, Sampler, ready, write
from groundup.generate import chat as chats
from groundup.generate.ready import pays
from groundup.generate.stream import encoded
from groundup.model import config_of
from groundup.settings import Generate
from groundup.tokens import Tokenizer
from groundup.tokens.rows import prompt_ids

Emit = Callable[[str], None]
Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Sample:
    """A prompt, the text that follows it, how many tokens that took, and what ended it: "end", "stop" or "length"."""

    prompt: str
    text: str
    tokens: int
    finish: str


@dataclass(frozen=True)
class Result:
    """All samples, prompt by prompt; `seed` makes the same texts again. Time is that of writing, without loading."""

    model: Path
    seed: int
    samples: list[Sample]
    tokens: int
    seconds: float
    tokens_per_second: float


def run(settings: Generate, *, emit: Emit | None = None) -> Result:
    """Write the continuations; `emit` gets the text for people while it is written.

    >>> run(Generate(model="runs/demo", prompt="The harbour", max_tokens=20)).samples[0].text  # doctest: +SKIP
    ' was quiet that morning'
    """
    if not settings.model:
        raise SettingsError("no model was given", "name a run or model folder: groundup generate runs/NAME")
    prompts = [prompt for prompt in read_prompts(settings) for _ in range(settings.samples)]
    machine = machines.choose(device=settings.device, threads=settings.threads)
    dtype = machines.DTYPES.get(settings.dtype)  # None: as stored
    loaded = folder.load(settings.model, dtype=dtype, device=machine.device)
    given, tokenizer = _given(loaded.tokenizer, settings, prompts)
    _make_ready(loaded, settings, [len(encoded(tokenizer, prompt)) for prompt in given])
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    asked = given != prompts
    remark(_manner(tokenizer, asked=asked))
    began = time.perf_counter()
    samples = _Samples(prompts, emit or _nowhere, asked=asked)
    for delta in _deltas(dataclasses.replace(loaded, tokenizer=tokenizer), given, settings, seed):
        samples.add(delta)
    seconds = time.perf_counter() - began
    tokens = sum(sample.tokens for sample in samples.done())
    rate = tokens / seconds
    remark(f"{tokens:,} tokens in {seconds:.1f} s, {rate:,.0f} tokens/s, seed {seed}")
    return Result(loaded.folder, seed, samples.done(), tokens, seconds, rate)


def _given(tokenizer: Tokenizer, settings: Generate, prompts: list[str]) -> tuple[list[Prompt], Tokenizer]:
    """What the model reads for each prompt, and the tokenizer that knows where its answers end.

    Of a model that was taught to chat, ids as its template writes a question; an empty prompt asks nothing, and starts
    a document there too. Raises SettingsError for --system where no template would say it.
    """
    template = None if settings.raw else chats.template_of(tokenizer)
    if template is None:
        if settings.system is not None:
            why = "--raw was given" if settings.raw else "this is a base model, which was not taught to chat"
            raise SettingsError(f"--system has no place: {why}", "leave --system out")
        return list(prompts), tokenizer
    first = [] if settings.system is None else [{"role": "system", "content": settings.system}]
    given: list[Prompt] = [
        prompt_ids(tokenizer, template, [*first, {"role": "user", "content": prompt}]) if prompt or first else prompt
        for prompt in prompts
    ]
    return given, chats.ending(tokenizer, template)


def _make_ready(loaded: Loaded, settings: Generate, lengths: list[int]) -> None:
    """Lay the model out for prompts of these lengths; where products cannot be compiled, say so and go on without."""
    int8, rows = settings.dtype == "int8", len(lengths)
    # Only steps within the context, and with a cache, are of one token.
    room = config_of(loaded.model).context - max(lengths)
    steps = min(settings.max_tokens, max(0, room)) if settings.cache else 0
    worth = settings.compile == "auto" and pays(loaded.model, steps=steps, rows=rows)
    try:
        ready(loaded.model, int8=int8, rows=rows, compiled=worth or settings.compile == "on")
    except GroundupError:
        raise
    except Exception as error:  # a compiler can fail in any way
        remark(f"not compiled: {machines.reason(error)}")
        ready(loaded.model, int8=int8, rows=rows)


def _manner(tokenizer: Tokenizer, *, asked: bool) -> str:
    """What a person should know of a model before they read what it writes."""
    if tokenizer.chat_template is None:
        return "a base model: it continues text, it was not taught to chat"
    if asked:
        return "this model was taught to chat: it answers the prompt (--raw continues it as it stands)"
    return "this model was taught to chat; here the prompt is continued as it stands"


def read_prompts(settings: Generate) -> list[str]:
    """The prompts: --prompt, or every line of --prompts that is not blank; "-" is standard input, nothing is "".

    One line end at the very end of a prompt from standard input is dropped: it is the shell's, not the text's. Raises
    SettingsError where both are given, DataError for a file that is missing, empty or not UTF-8.
    """
    if settings.prompts is None:
        if settings.prompt != "-":
            return [settings.prompt or ""]
        text = decode(_standard_input(), "standard input")
        return [text.removesuffix("\n").removesuffix("\r")]
    if settings.prompt is not None:
        raise SettingsError("--prompt and --prompts were both given", "leave one of them out")
    if str(settings.prompts) == "-":
        name, content = "standard input", _standard_input()
    else:
        name, content = str(settings.prompts), _read(settings.prompts)
    lines = [line.removesuffix("\r") for line in decode(content, name).split("\n")]
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"no prompt in {name}: {len(content)} bytes without any text", "write one prompt a line")
    return prompts


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "give a file with one prompt a line, or -") from None


def _standard_input() -> bytes:
    return sys.stdin.buffer.read()


def decode(content: bytes, name: str) -> str:
    """Bytes as text; raises DataError naming the first byte that is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"{name} is not UTF-8: byte 0x{content[error.start]:02X} at offset {error.start}"
        raise DataError(what, "convert it, for instance: iconv -f latin1 -t utf-8") from None


def _deltas(loaded: Loaded, prompts: Sequence[Prompt], settings: Generate, seed: int) -> Iterator[Delta]:
    """The stream of text, with a remark the first time the context is full."""
    sampler = Sampler(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        repetition_penalty=settings.repetition_penalty,
        seed=seed,
    )
    told = False
    for delta in write(
        loaded.model,
        loaded.tokenizer,
        prompts,
        max_tokens=settings.max_tokens,
        sampler=sampler,
        stop=settings.stop,
        use_cache=settings.cache,
    ):
        if delta.past_context and not told:
            told = True
            context = config_of(loaded.model).context
            remark(f"past the context: only the last {context} tokens are seen, and each new one costs a full pass")
        yield delta


class _Samples:
    """Puts deltas together: a single text is passed on at once, several one after the other, each when it is whole."""

    def __init__(self, prompts: list[str], emit: Emit, *, asked: bool) -> None:
        self._prompts, self._emit = prompts, emit
        self._between = "\n\n" if asked else ""  # an answer stands apart from its question
        self._texts = ["" for _ in prompts]
        self._tokens = [0 for _ in prompts]
        self._finish: list[str | None] = [None for _ in prompts]
        self._shown = 0
        self._alone = len(prompts) == 1
        if self._alone and not asked:
            emit(prompts[0])

    def add(self, delta: Delta) -> None:
        """Take the text of one token."""
        self._texts[delta.row] += delta.text
        self._tokens[delta.row] += 1
        self._finish[delta.row] = delta.finish
        if self._alone:
            self._emit(delta.text + ("\n" if delta.finish else ""))
            return
        while self._shown < len(self._finish) and self._finish[self._shown]:
            row = self._shown
            text = f"{self._prompts[row]}{self._between}{self._texts[row]}"
            self._emit(f"--- {row + 1} of {len(self._prompts)}\n{text}\n")
            self._shown += 1

    def done(self) -> list[Sample]:
        """All texts in the order of the prompts."""
        finish = [end or "length" for end in self._finish]
        return [Sample(*fields) for fields in zip(self._prompts, self._texts, self._tokens, finish, strict=True)]


def remark(text: str) -> None:
    """One line for the person, on standard error."""
    print(text, file=sys.stderr, flush=True)


def _nowhere(text: str) -> None:
    """Show nothing."""
