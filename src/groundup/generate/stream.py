"""From prompt to text: streams that never show half a character or the beginning of a stop string.

In: a model, its tokenizer, prompts as text. Out: a stream of `Delta`, or with `generate_text` one string.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from groundup.errors import SettingsError, TokenizerError
from groundup.generate.decode import Step, cache_dtype, generate
from groundup.generate.ready import MOST_ROWS
from groundup.generate.sample import Sampler, number_copies
from groundup.model import config_of
from groundup.tokens.tokenizer import Tokenizer

CACHE_BYTES = 2**30  # keys and values of all rows that are written at once


@dataclass(frozen=True)
class Delta:
    """What one new token adds to the text of prompt number `row`; often "", while a character or a stop string is open.

    `finish` is None until the row's last token: "end" (the model ended the document), "stop" (a stop string came)
    or "length". `past_context` as in `Step`.
    """

    row: int
    text: str
    finish: str | None
    past_context: bool


def write(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_tokens: int = 200,
    sampler: Sampler | None = None,
    stop: Sequence[str] = (),
    use_cache: bool = True,
) -> Iterator[Delta]:
    """Continue prompts and stream what is new, one `Delta` a token and row; rows take turns within a batch.

    An empty prompt starts a new document; any other begins with `tokenizer.start`; one given as ids is taken as it is.
    Neither the ids that end a text (`tokenizer.ends`) nor a stop string become text. Prompts of like length are read
    together, as many as fit into 1 GiB of cache; order and batching do not change any text.

    Raises TokenizerError for a prompt the tokenizer cannot represent, SettingsError for an empty stop string.

    >>> text = "".join(delta.text for delta in write(model, tokenizer, ["Once"]))  # doctest: +SKIP
    """
    ids = [encoded(tokenizer, prompt) for prompt in prompts]
    copies = number_copies(ids)
    check_stop(stop)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    at_once = rows_at_once(model, max(map(len, ids), default=0) + max_tokens)
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        steps = generate(
            model,
            [ids[row] for row in rows],
            max_tokens=max_tokens,
            sampler=sampler or Sampler(),
            end=tokenizer.ends,
            copies=[copies[row] for row in rows],
            use_cache=use_cache,
        )
        writers = [_Writer(row, tokenizer, stop, max_tokens) for row in rows]
        for writer in writers:
            writer.follow(ids[writer.row] if prompts[writer.row] else [])
        yield from _deltas(steps, writers)
        steps.close()


def encoded(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> list[int]:
    """The ids that a model reads for a prompt; ids stay as they are.

    >>> from groundup import tokens
    >>> encoded(tokens.train("chars", ["abc"]), "cab"), encoded(tokens.train("chars", ["abc"]), "")
    ([2, 0, 1], [3])
    """
    if not isinstance(prompt, str):
        return list(prompt)
    return [*tokenizer.start, *tokenizer.encode(prompt)] or start_ids(tokenizer)


def _deltas(steps: Iterable[Step], writers: Sequence["_Writer"]) -> Iterator[Delta]:
    """Text of a batch, until every row has its end: a stop string is one that the decoder does not know of."""
    for step in steps:
        for writer, new in zip(writers, step.ids, strict=True):
            if new is not None and not writer.finish:
                yield Delta(writer.row, writer.push(new), writer.finish, step.past_context)
        if all(writer.finish for writer in writers):
            return


def generate_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> str:
    """The text that follows `prompt`, without the prompt itself; the same seed gives the same text.

    >>> import groundup
    >>> story = groundup.load("runs/demo")  # doctest: +SKIP
    >>> generate_text(story.model, story.tokenizer, "The harbour", max_tokens=5)  # doctest: +SKIP
    ' was quiet that morning'
    """
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    deltas = write(model, tokenizer, [prompt], max_tokens=max_tokens, sampler=sampler, stop=stop)
    return "".join(delta.text for delta in deltas)


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """What an empty prompt begins with: the beginning-of-text token, else end-of-text (the token before any document).

    A tokenizer without either starts on a new line if it knows one. Otherwise raises TokenizerError.
    """
    for special in (tokenizer.bos, tokenizer.end_of_text):
        if special is not None:
            return [special]
    try:
        return tokenizer.encode("\n") or _no_start(tokenizer)
    except TokenizerError:
        return _no_start(tokenizer)


def _no_start(tokenizer: Tokenizer) -> list[int]:
    raise TokenizerError(
        f"an empty prompt has nothing to start from: this tokenizer ({tokenizer.kind}) has no end-of-text, no new line",
        "give a prompt with at least one token",
    )


def rows_at_once(model: nn.Module, tokens: int) -> int:
    """How many rows of so many tokens share a batch: keys and values stay within 1 GiB, and 64 rows are enough.

    >>> from groundup.model import build, BigramConfig
    >>> rows_at_once(build(BigramConfig(vocabulary=5, context=4)), 100)
    64
    """
    config = config_of(model)
    numbers = 2 * config.layers * config.kv_heads * config.head_size * min(tokens, config.context)
    return max(1, min(MOST_ROWS, CACHE_BYTES // max(1, numbers * cache_dtype(model).itemsize)))


class _Writer:
    """Ids of one row in, finished text out."""

    def __init__(self, row: int, tokenizer: Tokenizer, stop: Sequence[str], max_tokens: int) -> None:
        self.row = row
        self.finish: str | None = None
        self._ends, self._left = set(tokenizer.ends), max_tokens
        self._known = tokenizer.vocabulary
        self._stream, self._gate = tokenizer.stream(), Gate(stop)

    def follow(self, prompt: Sequence[int]) -> None:
        """Make the text fit behind its prompt: words, say, take a space before them unless they come first."""
        for id in prompt[-1:]:
            self._stream.push(id)

    def push(self, new: int) -> str:
        """The text that `new` sets free; sets `finish` on the last one."""
        self._left -= 1
        # The model's table may be longer than the vocabulary (rounded up for speed); what is beyond has no text.
        end = new in self._ends
        silent = end or new >= self._known
        text = "" if silent else self._gate.push(self._stream.push(new))
        if not self._gate.shut and (end or not self._left):
            text += self._gate.push(self._stream.close())
            self.finish = "end" if end else "length"
        if self._gate.shut:
            self.finish = "stop"
        return text + self._gate.close() if self.finish else text


class Gate:
    """Lets text through up to the first stop string, and holds back what may be the beginning of one.

    >>> gate = Gate(["END"])
    >>> gate.push("the E"), gate.push("ast, the EN"), gate.push("D of it"), gate.shut
    ('the ', 'East, the ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        check_stop(stops)
        self.shut = False
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> str:
        """The text that is certain now. Which stop string comes first does not depend on how the text is cut."""
        if self.shut:
            return ""
        self._held += text
        # The first to be complete wins; of two that end together the one that began earlier, so that less is shown.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.shut = True
            free, self._held = self._held[: min(found)[1]], ""
            return free
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        free, self._held = self._held[:cut], self._held[cut:]
        return free

    def close(self) -> str:
        """What was held back and turned out to be no stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def check_stop(stops: Sequence[str]) -> None:
    """Raise SettingsError for an empty stop string, which would end every text before it began."""
    if "" in stops:
        raise SettingsError("a stop string is empty", "leave --stop out, or give a text to stop before")
