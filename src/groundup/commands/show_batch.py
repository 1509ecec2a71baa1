"""`groundup show-batch STAGE`: the first rows a run would train on, and what the loss makes of every token in them.

In: `settings.ShowBatch`. Out: `Result`, and with --html a page. The rows are taken from the very batches that the stage
gives its loss, in its order, made by the same functions: what is shown is the mask itself, not an account of it. (A
stage first sets validation and test rows aside; here all rows of the data take part.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from groundup.batches import Batch, Loader, PackedDocuments, Source, Windows
from groundup.batches.labelled import LabelledRows, Reading
from groundup.batches.rows import PackedRows
from groundup.batches.windows import Numbers
from groundup.checkpoint import opening
from groundup.commands import show_batch_page as page
from groundup.commands import show_batch_pairs as sides
from groundup.commands.show_batch_page import Part, Shown, Token, columns, legend, letters, spelled
from groundup.commands.tokenizer import choose
from groundup.errors import SettingsError
from groundup.generate.chat import teach
from groundup.settings import ShowBatch
from groundup.stages import instruct, tuning
from groundup.text import conversations, labelled
from groundup.text import read as readers
from groundup.tokens import Tokenizer
from groundup.tokens.prepare import tokenize
from groundup.tokens.rows import chat_rows

LONGEST = 1024  # tokens of a row, where neither a person nor a smaller model says how many
TYPES = {  # two colours in turn, so that tokens of one kind can be told apart
    "L": ("black on green3", "black on pale_green3"),
    "S": ("bold white on dark_green", "bold white on green4"),
    "s": ("bold cyan", "bold blue"),
    ".": ("", "dim"),
    "R": ("black on dark_orange", "black on dark_orange"),
    "_": ("dim", "dim"),
}


@dataclass(frozen=True)
class Result:
    """The rows shown, and what is true of all rows of the data.

    `rows`: those to learn from, for reward and dpo pairs of rows; `learnt_share`: learnt of all tokens that could be
    (None for classify and reward, which learn no token); `cut`, `lost`: rows cut inside an answer and tokens lost by
    that, for classify texts cut; `dropped`: rows left out, by reason; `filler`: share of the places of the shown
    batches that hold nothing; `pairs`: what is true of pairs alone.
    """

    stage: str
    data: list[str]
    template: str | None
    context: int
    batching: str
    rows: int
    learnt_share: float | None
    cut: int
    lost: int
    dropped: dict[str, int]
    remark: str
    filler: float
    shown: list[Shown]
    html: Path | None
    pairs: sides.Facts | None = None


@dataclass(frozen=True)
class _View:
    """What a stage would train on: samples, their lengths, the places of what is in a sample, and facts to tell."""

    source: Source
    tokenizer: Tokenizer
    lengths: Numbers | None
    places: Callable[[int], Sequence[str]]
    template: str | None = None
    rows: int = 0
    learnt_share: float | None = 1.0
    cut: int = 0
    lost: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    remark: str = ""
    seen: Callable[[Batch, int, int], Shown] | None = None  # a sample of a batch, where it is not a row of its own
    pairs: sides.Facts | None = None


def run(settings: ShowBatch) -> Result:
    """Make the first batches and look into them.

    Raises DataError where the stage would refuse the data: nothing to learn, a template that changes what is said ...

    >>> run(ShowBatch(stage="instruct", data=["chats.jsonl"], model="runs/base")).learnt_share  # doctest: +SKIP
    0.41
    """
    if not settings.data:
        raise SettingsError("no data was given", "add --data FILE, or a name such as instruction-data or sms-spam")
    if settings.html is not None:
        page.check(settings.html)
    tokenizer, context = _opened(settings)
    views = {"pretrain": _pretrain, "instruct": _instruct, "classify": _classify, "reward": _pairs, "dpo": _pairs}
    view = views[settings.stage](settings, tokenizer, context)
    shown, filler = _drawn(view, settings)
    result = Result(
        stage=settings.stage,
        data=settings.data,
        template=view.template,
        context=context,
        batching=settings.batching,
        rows=view.rows or len(view.source),
        learnt_share=view.learnt_share,
        cut=view.cut,
        lost=view.lost,
        dropped=view.dropped,
        remark=view.remark,
        filler=filler,
        shown=shown,
        html=settings.html,
        pairs=view.pairs,
    )
    if settings.html is not None:
        page.write(settings.html, settings.stage, words(result), shown)
    return result


def _opened(settings: ShowBatch) -> tuple[Tokenizer, int]:
    """The tokenizer, and the tokens of a row at most."""
    if not settings.model:
        if settings.tokenizer is None:
            raise SettingsError("no model was given", "add --model, or --tokenizer for a tokenizer alone")
        return choose(settings.tokenizer), settings.context or LONGEST
    source = opening.open_any(settings.model)
    own = source.config.context
    if settings.context is not None and settings.context > own:
        raise SettingsError(
            f"--context {settings.context} is more than the model's context of {own}",
            f"give {own} at most, or leave it out",
        )
    tokenizer = source.tokenizer if settings.tokenizer is None else choose(settings.tokenizer)
    return tokenizer, settings.context or min(own, LONGEST)


# the stages


def _pretrain(settings: ShowBatch, tokenizer: Tokenizer, context: int) -> _View:
    """Windows of running text, or whole documents side by side; of a long text only its beginning is read."""
    most = settings.rows * settings.batch * context * 4 + 1
    text = tokenize(readers.sources(settings.data), tokenizer, limit=most)
    if settings.batching == "packed":
        start = tokenizer.end_of_text if tokenizer.bos is None else tokenizer.bos
        packed = PackedDocuments(text.ids, text.documents, length=context, start=start)
        return _View(packed, tokenizer, None, lambda index: ())
    windows = Windows(text.ids, length=context)
    return _View(windows, tokenizer, None, lambda index: [f"tokens from {index * context:,} on"])


def _instruct(settings: ShowBatch, tokenizer: Tokenizer, context: int) -> _View:
    """Conversations through the template, as groundup instruct makes them."""
    taught = teach(tokenizer, settings.template, settings.add_tokens)
    tokenizer = taught.tokenizer
    talks = [talk for name in settings.data for talk in conversations.read(name)]
    found = chat_rows(tokenizer, taught.template, talks, learn=settings.learn, context=context)
    known: dict[str, Any] = {
        "template": taught.style,
        "rows": len(found.rows),
        "learnt_share": found.learnt_share,
        "cut": found.cut,
        "lost": found.lost,
        "dropped": found.dropped,
        "remark": found.remark,
    }
    wheres = [talks[place].where for place in found.places]
    source = instruct.source_of(found, tokenizer, batching=settings.batching, context=context)

    def places(index: int) -> list[str]:
        members = source.members(index) if isinstance(source, PackedRows) else [index]
        return [wheres[row] for row in members]

    return _View(source, tokenizer, source.lengths, places, **known)


def _classify(settings: ShowBatch, tokenizer: Tokenizer, context: int) -> _View:
    """Labelled texts; the loss counts no token but the class that is read at one of them."""
    fields = {"text": settings.text_field, "label": settings.label_field}
    texts = [text for name in settings.data for text in labelled.read(name, **fields)]
    classes = labelled.classes(texts)
    reading = Reading.of(tokenizer, context=context)
    whole = [reading.whole(tokenizer, text) for text in texts]
    numbers = [classes.index(text.label) for text in texts]
    rows = LabelledRows([reading.cut(ids) for ids in whole], numbers, pad=tuning.filler(tokenizer))
    cut = sum(len(ids) > context for ids in whole)
    wheres = [f"{text.where}: {text.label}" for text in texts]
    return _View(rows, tokenizer, rows.lengths, lambda index: [wheres[index]], learnt_share=None, cut=cut)


def _pairs(settings: ShowBatch, tokenizer: Tokenizer, context: int) -> _View:
    """Pairs of answers through the template, as groundup reward and groundup dpo make them."""
    made = sides.prepare(settings, tokenizer, context)
    found = made.found
    return _View(
        made.source,
        made.tokenizer,
        made.source.lengths,
        lambda index: [made.wheres[index]],
        template=made.style,
        rows=len(found.rows),
        learnt_share=found.learnt_share if settings.stage == "dpo" else None,
        cut=found.cut,
        lost=found.lost,
        dropped=found.dropped,
        remark=found.remark if settings.stage == "dpo" else "",
        seen=partial(sides.seen, made=made),
        pairs=made.facts,
    )


# looking into batches


def _drawn(view: _View, settings: ShowBatch) -> tuple[list[Shown], float]:
    """The first rows in the order of training, and the share of filler in the batches they come from."""
    lengths = view.lengths if settings.batching == "bucketed" else None
    loader = Loader(view.source, batch=settings.batch, seed=settings.seed, lengths=lengths)
    shown: list[Shown] = []
    places = there = first = 0
    wanted = min(settings.rows, len(view.source))
    while len(shown) < wanted:
        indices = loader.samples(np.arange(first, first + settings.batch))
        batch = view.source.batch(indices)
        shown += [_seen(view, batch, place, int(index)) for place, index in enumerate(indices)]
        places, there, first = places + batch.tokens.numel(), there + batch.size, first + settings.batch
    return shown[:wanted], 1 - there / places


def _seen(view: _View, batch: Batch, place: int, index: int) -> Shown:
    """One row of a batch, part by part."""
    if view.seen is not None:
        return view.seen(batch, place, index)
    fields = {name: values[place].numpy() for name, values in batch.fields.items()}
    tokens = batch.tokens[place].numpy()
    wheres = [*view.places(index)]
    if "labels" in fields:
        size = int(fields["lengths"])
        marks = [*letters(view.tokenizer, tokens[: size - 1], np.zeros(size - 1)), "R"]
        return Shown([Part(wheres[0], spelled(view.tokenizer, tokens[:size], marks))], len(tokens) - size)
    weight = fields.get("weight", np.ones(len(tokens)))
    numbers = fields.get("documents", np.zeros(len(tokens), dtype=np.int64))
    held = _held(fields, view, index, len(tokens))
    parts: list[Part] = []
    for number in dict.fromkeys(numbers[held].tolist()):
        here = held & (numbers == number)
        ids = np.concatenate((tokens[here][:1], fields["targets"][here]))
        marks = letters(view.tokenizer, ids, np.concatenate(([0], weight[here])))
        where = wheres[len(parts)] if len(parts) < len(wheres) else f"document {len(parts) + 1}"
        parts.append(Part(where, spelled(view.tokenizer, ids, marks)))
    return Shown(parts, int((~held).sum()))


def _held(fields: dict[str, np.ndarray], view: _View, index: int, width: int) -> np.ndarray:
    """Which places of a row hold something, (T,): of packed rows all but the last number; of others the first ones."""
    if "documents" not in fields:
        size = width if view.lengths is None else int(view.lengths[index])
        return np.arange(width) < size
    numbers, weight = fields["documents"], fields["weight"]
    last = numbers == numbers.max()
    return ~last if not weight[last].any() else np.ones(width, dtype=bool)


# showing


def words(result: Result) -> list[str]:
    """What is true of all rows, line by line."""
    share = "" if result.learnt_share is None else f", {100 * result.learnt_share:.1f} % of their tokens learnt"
    rows = "pairs of rows" if result.pairs else "rows"
    lines = [f"{result.rows:,} {rows} of at most {result.context:,} tokens{share}"]
    if result.template:
        lines.append(f"template: {result.template}")
    if result.cut:
        what = f"inside an answer, {result.lost:,} tokens lost" if result.stage != "classify" else "to the context"
        lines.append(f"{result.cut:,} cut {what}")
    lines += [f"{count:,} left out: {reason}" for reason, count in result.dropped.items()]
    lines += [result.remark] if result.remark else []
    lines += result.pairs.words() if result.pairs else []
    return [*lines, f"{result.batching}: {100 * result.filler:.1f} % of the places of these batches are filler"]


def show(result: Result) -> None:
    """Print the rows: coloured in a terminal; elsewhere with a letter below each token."""
    console = Console(highlight=False)
    plain = console.color_system is None
    for line in words(result):
        console.print(line, soft_wrap=True, markup=False)
    meant = legend(result.stage).items()
    keys = [Text(f"{mark} {what}") if plain else Text(what, style=TYPES[mark][0]) for mark, what in meant]
    console.print(Text("  ").join(keys), soft_wrap=True)
    for number, row in enumerate(result.shown, 1):
        for part in row.parts:
            console.print(f"\n--- row {number}, {part.where}", soft_wrap=True, markup=False)
            if plain:
                print("\n".join(columns(part.tokens)))
            else:
                console.print(_coloured(part.tokens), soft_wrap=True)
        if row.filler:
            console.print(
                f"_ {row.filler:,} place{'s' if row.filler > 1 else ''} of filler", style="" if plain else TYPES["_"][0]
            )
    if result.html is not None:
        console.print(f"\nwritten to {result.html}", soft_wrap=True, markup=False)


def _coloured(tokens: Sequence[Token]) -> Text:
    """Tokens in the colours of the legend; a line ends where a new line was in the text."""
    line = Text()
    for place, token in enumerate(tokens):
        style = TYPES[token.mark][place % 2]
        for number, part in enumerate(token.text.split("↵")):
            line.append("↵" if number else "", style=style)
            line.append("\n" if number else "")
            line.append(part, style=style)
    return line
