"""What was exported, reopened by the program it is for: the same ids for hard texts, the same logits or choices?

In: what was written, and the model it was made from. Out: one `Check` each for ids and logits, with its words; where
the program is not installed, a check that says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from groundup.checkpoint import consumers
from groundup.checkpoint.folder import Loaded
from groundup.errors import GroundupError, TokenizerError
from groundup.evaluate.agreement import (
    KL,
    RELATIVE,
    TOP1,
    Agreement,
    compare,
    near_enough,
    same_weights,
    says_too_little,
    together,
)
from groundup.generate import Sampler, generate
from groundup.generate.stream import start_ids
from groundup.model import config_of
from groundup.model.config import BigramConfig
from groundup.model.heads import Classifier
from groundup.tokens import Tokenizer

# Texts on which tokenizers part ways. Only characters whose kind every version of Unicode in use agrees on: letters
# and numbers since Unicode 9, private use, and points that were never assigned.
PROBES = (
    "It's 1,234.5 degrees, isn't it? I'LL SAY SO; they'd've known. don't DON'T",
    "  two  spaces,   three\n\n\nlines\t\ttabs\t \r\n and an end   ",
    " " * 40 + "x" + "\n" * 9 + " \n \n",
    "naïve café “quotes” … Привет, κόσμε, שלום, مرحبا, नमस्ते",
    "你好，世界。こんにちは 안녕하세요",
    "0123456789 ٠١٢٣ ½ Ⅷ x² 1e-05 0x1F",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1e9\U0001f1ea",
    "e\u0301 a\u0308\u0323 \u200b\u00a0\u2028\u3000\ufeff",
    "".join(chr((plane << 16) + 0x1234) for plane in range(17)),  # every plane once
    "\U0001d54f\U00020000\U000e0041\U000f0000\U0010fffd\ufffd\u0080\x01",
    "def f(x):\n    return {'a': [x ** 2, !x]}  # <b>&amp;</b> https://a.b/c?d=e_f",
)
POSITIONS = 512  # the model writes so many, whatever its context
LENGTH = 256  # positions of one text at most: enough for rotary positions to go wrong, small enough to hold the logits


@dataclass(frozen=True)
class Check:
    """One thing that was compared. `outcome`: "passed", "failed", "shown" (no bound is set), or "not checked"."""

    what: str
    program: str
    outcome: str
    words: str
    agreement: Agreement | None = None


def check_folder(out: Path, loaded: Loaded) -> list[Check]:
    """A Hugging Face folder in transformers: ids, and fp32 logits of the weights as they were written."""
    if absent := _absent("transformers"):
        return [absent]
    program = consumers.label("transformers")
    checks = [_check_ids(program, lambda: consumers.transformers_ids(out), loaded.tokenizer, kept=True)]
    if isinstance(config_of(loaded.model), BigramConfig):
        words = "logits not checked: transformers has no network like the bigram"
        return [*checks, Check("logits", program, "not checked", words)]

    if isinstance(loaded.model, Classifier):
        return [*checks, _check_classes(program, out, loaded)]

    def judged(found: Agreement) -> Check:
        passed = "passed" if same_weights(found) else "failed"
        words = f"largest difference of a logit {found.relative:.1e} of the largest over {found.positions:,} positions"
        return Check("logits", program, passed, f"{words} ({program} in fp32; at most {RELATIVE:.0e})", found)

    return [*checks, _check_logits(program, lambda: consumers.transformers_logits(out), loaded, judged)]


def _check_classes(program: str, out: Path, loaded: Loaded) -> Check:
    """A classifier in transformers: the logits of every class for the hard texts, one by one.

    What transformers passes over by rule is named and left out: a bias in the head, and with another pooling all of it.
    """
    model = loaded.model.float().eval()
    assert isinstance(model, Classifier)
    if model.head_config.pooling != "last":
        words = f"logits not checked: {program} reads the last token, this head {model.head_config.pooling!r}"
        return Check("logits", program, "not checked", words)
    bias = model.score.bias
    rows = [ids[: min(model.config.context, LENGTH)] for _, ids in texts(loaded.tokenizer) if ids]
    if not rows:
        return Check("logits", program, "not checked", f"logits not checked: no hard text can be said ({program})")
    try:
        theirs = consumers.transformers_classes(out)
        with torch.inference_mode():
            ours = torch.cat([model(torch.tensor([ids])) for ids in rows])  # (N, C)
            ours = ours if bias is None else ours - bias
        found = compare(ours, torch.stack([theirs(ids) for ids in rows]))
    except GroundupError as error:
        return Check("logits", program, "failed", error.what)
    without = "" if bias is None else ", without the bias of the head, which it ignores"
    words = f"largest difference of a class's logit {found.relative:.1e} of the largest over {found.positions:,} texts"
    passed = "passed" if same_weights(found) else "failed"
    return Check("logits", program, passed, f"{words} ({program} in fp32; at most {RELATIVE:.0e}{without})", found)


def check_gguf(file: Path, loaded: Loaded, dtype: str) -> list[Check]:
    """A GGUF file in llama.cpp: ids, and how often it finds the same token most likely."""
    if absent := _absent("llama_cpp"):
        return [absent]
    program = consumers.label("llama_cpp")

    def judged(found: Agreement) -> Check:
        outcome = {True: "passed", False: "failed", None: "shown"}[near_enough(found, dtype)]
        words = f"same most likely token at {found.top1:.1%} of {found.positions:,} positions"
        words = f"{words}, mean KL {found.kl:.1e} of the {found.said:.1e} nats that the model says"
        return Check("logits", program, outcome, f"{words} ({program}; {_bound(found, dtype)})", found)

    try:
        opened = consumers.LlamaCpp(file, context=min(config_of(loaded.model).context, LENGTH))
    except GroundupError as error:
        return [Check("file", program, "failed", str(error.what))]
    with opened as llama:
        return [
            _check_ids(program, lambda: llama.ids, loaded.tokenizer, kept=False),
            _check_logits(program, lambda: llama.logits, loaded, judged),
        ]


def _bound(found: Agreement, dtype: str) -> str:
    """What is asked of a GGUF file, in words; or why nothing is.

    >>> _bound(Agreement(9, 1.0, 0.1, 0.1, 0.0, 2.0), "f16"), _bound(Agreement(9, 1.0, 0.1, 0.1, 0.0, 2.0), "q8_0")
    ('at least 99%, KL at most 0.01%', 'KL at most 1%')
    """
    if dtype not in KL:
        return "no bound is set for 4 bits"
    if says_too_little(found):
        return "too little to judge by: train it further, then check again"
    share = f"KL at most {100 * KL[dtype]:g}%"
    return f"at least {TOP1[dtype]:.0%}, {share}" if dtype in TOP1 else share


def check_tiktoken(note: Path, loaded: Loaded) -> list[Check]:
    """A rank file in tiktoken: ids."""
    program = consumers.label("tiktoken")
    return [_check_ids(program, lambda: consumers.tiktoken_ids(note), loaded.tokenizer, kept=False)]


def _absent(name: str) -> Check | None:
    """What there is to say where a program is not installed or does not load; None where it can be asked."""
    try:
        consumers.imported(name)
    except consumers.Absent as error:
        return Check("all", consumers.PACKAGES[name], "not checked", f"not checked: {error.what} ({error.fix})")
    return None


def _check_ids(
    program: str, opened: Callable[[], Callable[[str], list[int]]], tokenizer: Tokenizer, *, kept: bool
) -> Check:
    """Compare ids text by text, special tokens as plain text; `kept`: the other program normalises text as we do."""
    try:
        theirs = opened()
        compared, left_out, every = 0, 0, list(texts(tokenizer))
        for text, ours in every:
            if not kept and tokenizer.decode(ours) != text:
                left_out += 1
                continue
            compared += 1
            if (found := theirs(text)) != ours:
                words = f"ids differ for {text!r}: {_apart(ours, found)} ({program})"
                return Check("ids", program, "failed", words)
    except GroundupError as error:
        return Check("ids", program, "failed", error.what)
    without = f"; {left_out} not compared, our tokenizer normalises them and {program} does not" if left_out else ""
    if unsaid := len(probes(tokenizer)) - len(every):
        without += f"; {unsaid} not compared, a tokenizer of {tokenizer.kind} cannot say them"
    if not compared:
        return Check("ids", program, "not checked", f"ids not checked ({program}){without}")
    count = "1 hard text" if compared == 1 else f"{compared} hard texts"
    return Check("ids", program, "passed", f"ids equal for {count} ({program}){without}")


def probes(tokenizer: Tokenizer) -> list[str]:
    """The hard texts, and the special tokens as plain text."""
    return [*PROBES, *(f"a{name} {name}b" for name in tokenizer.special)]


def texts(tokenizer: Tokenizer) -> Iterator[tuple[str, list[int]]]:
    """The probes that a tokenizer can express, with our ids."""
    for text in probes(tokenizer):
        try:
            yield text, tokenizer.encode(text)
        except TokenizerError:  # characters and words know only what they were learnt from
            continue


def _apart(ours: list[int], theirs: list[int]) -> str:
    """Where two rows of ids part.

    >>> _apart([1, 2, 3], [1, 5])
    'from place 1 on ours [2, 3], theirs [5]'
    """
    place = next((i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other),
                 min(len(ours), len(theirs)))  # fmt: skip
    return f"from place {place} on ours {ours[place : place + 5]}, theirs {theirs[place : place + 5]}"


def _check_logits(
    program: str,
    opened: Callable[[], Callable[[list[int]], Tensor]],
    loaded: Loaded,
    judged: Callable[[Agreement], Check],
) -> Check:
    """Feed both the same texts and compare every position; ours in fp32 from the weights at hand."""
    try:
        theirs, model = opened(), loaded.model.float().eval()
        parts = []
        for ids in passages(model, loaded.tokenizer):
            with torch.inference_mode():
                ours = model(torch.tensor([ids]))[0]  # (T, V)
            parts.append(compare(ours, theirs(ids)))
        return judged(together(parts))
    except GroundupError as error:
        return Check("logits", program, "failed", error.what)


def passages(model: nn.Module, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """What logits are compared on, as ids: texts that the model writes, where it knows its way, then the probes.

    Equal seeds give equal texts. Each is `LENGTH` ids at most, and no longer than the context.
    """
    try:
        start = start_ids(tokenizer)
    except TokenizerError:  # a vocabulary without a sign to begin with
        start = [0]
    length = min(config_of(model).context, LENGTH)
    rows = [list(start)] * max(1, POSITIONS // length)
    steps = generate(model, rows, max_tokens=length - len(start), sampler=Sampler(temperature=1.0, seed=0))
    written = [list(start) for _ in rows]
    for step in steps:
        for row, new in zip(written, step.ids, strict=True):
            row.append(0 if new is None else new)  # no row ends: no end was named
    yield from (row[:length] for row in written)
    hard = start + [id for _, ids in texts(tokenizer) for id in ids]
    yield hard[:length]
