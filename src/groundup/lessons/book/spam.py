"""Telling spam from ham: a language model learns to put a text into a class.

Enters: text messages that people have labelled. Leaves: a model with a head of one output for each class, which says
where a message belongs.
Follows: book 6.1 to 6.8, exercises 6.1 to 6.3; notes 6.1 to 6.8.
In the library: groundup.text.labelled (reading, balancing, dividing), groundup.batches.labelled, groundup.model.heads,
groundup.losses.classification, groundup.evaluate.classes, and groundup.stages.classify: `groundup classify`, `predict`.
"""

# %%
import os
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from groundup import losses, tokens
from groundup.batches import Batch, sequential
from groundup.batches.labelled import LabelledRows, Reading
from groundup.checkpoint import folder
from groundup.checkpoint.openai import open_source
from groundup.checkpoint.source import fill
from groundup.evaluate.classes import mark
from groundup.lessons.rung import bar, check, picture
from groundup.model import build
from groundup.model.config import ModelConfig, from_name
from groundup.model.heads import Classifier, HeadConfig
from groundup.model.surgery import train_only
from groundup.stages.classify import classify
from groundup.text import labelled
from groundup.text.labelled import Labelled
from groundup.text.split import PARTS, Split
from groundup.tokens.tokenizer import Tokenizer

# %% [markdown]
# # Two ways to tune
# A model that has read much can be taught two things. To follow instructions: it stays a writer, and learns to write
# what is asked for (a later rung). Or to tell classes apart, spam from ham, one language from another: it stops
# writing, and says one of a few words. The second is narrower, and needs fewer examples and less computing.
#
# # Messages
# 5,574 of them, seven in eight harmless. A classifier that always says "ham" is right in 87 % of them and of no use,
# so the book keeps as many ham as there is spam. (The notes would also write everything in small letters and strip
# punctuation. Do not: the tokenizer has ids for capitals and for "!!!", and they tell spam better than most words.)

# %%
messages = labelled.read("sms-spam")
counts = Counter(row.label for row in messages)
print(dict(counts))
assert len(messages) == 5574 and counts == {"ham": 4827, "spam": 747}


def balanced(rows: Sequence[Labelled], seed: int) -> list[Labelled]:
    """All spam, and as many of the ham, drawn by a seed."""
    spam = [row for row in rows if row.label == "spam"]
    ham = [row for row in rows if row.label == "ham"]
    return random.Random(seed).sample(ham, len(spam)) + spam


assert Counter(row.label for row in balanced(messages, 123)) == {"ham": 747, "spam": 747}
assert Counter(row.label for row in labelled.undersampled(messages, 123)) == {"ham": 747, "spam": 747}

# %% [markdown]
# Seven tenths to learn from, one to choose by, two to report on once. Some messages were sent more than once. If one
# copy is learnt and the other tested, the test asks for what was learnt by heart: the library removes repeats before
# it divides. To get the book's figures one must keep them, read the file as pandas does (a quote that opens one
# message may close in the next: 5,572 rows), and draw as pandas draws. `labelled.book` does.

# %%
parts = labelled.book("sms-spam")
assert [len(rows) for rows in parts.parts().values()] == [1045, 149, 300]
learnt = {row.text for row in parts.train}
print(sum(row.text in learnt for row in parts.test), "of the book's 300 test messages are also in its training part")
unique = labelled.deduplicated(messages)
split = labelled.split(labelled.undersampled(unique.rows, 123), test=0.2, seed=123)
assert not {row.text for row in split.test} & {row.text for row in split.train}

# %% [markdown]
# # Equal lengths
# A batch is a rectangle. Long messages are cut, short ones filled up to the longest of the training part. The book
# fills with the end-of-text token. The notes fill with id 0, and id 0 is no filler: it is an exclamation mark.

# %%
tokenizer = tokens.gpt2()
end = tokenizer.encode("<|endoftext|>", special=["<|endoftext|>"])[0]
print("id 0 is", repr(tokenizer.decode([0])))


def filled(ids: list[int], length: int, filler: int) -> list[int]:
    """Exactly so many ids."""
    return ids[:length] + [filler] * (length - len(ids))


def loader(rows: Sequence[Labelled], length: int, *, train: bool) -> DataLoader:
    """Batches of eight: ids (8, T), classes (8,)."""
    ids = [torch.tensor(filled(tokenizer.encode(row.text), length, end)) for row in rows]
    return DataLoader([(row, int(one.label == "spam")) for row, one in zip(ids, rows, strict=True)],  # type: ignore[arg-type]
                      batch_size=8, shuffle=train, drop_last=train)  # fmt: skip


longest = max(len(tokenizer.encode(row.text)) for row in parts.train)
loaders = [loader(rows, longest, train=name == "train") for name, rows in parts.parts().items()]
print("longest:", longest, " batches:", [len(one) for one in loaders])
inputs, classes = next(iter(loaders[0]))
assert inputs.shape == (8, longest) and classes.shape == (8,) and longest == 120

# %% [markdown]
# # Which state is read
# Every token has looked at those before it, so only the last one has read the whole message: its state is judged.
# Which is the last? The notes take place -1. Behind a filled message that is filler, and its state depends on how much
# filler there is. Their model is trained so, and their `classify_text` then asks it without any filler: a place of a
# kind it was never trained on. Read the state of the last REAL token, and filler changes nothing, whatever its id and
# amount.

# %%
small = build(from_name("gpt2", width=48, layers=2, heads=2, context=128), seed=1).eval()
torch.manual_seed(123)
judge = nn.Linear(48, 2)


@torch.no_grad()
def judged(ids: list[int], length: int, filler: int, place: int) -> list[float]:
    """Logits of the two classes, read at a place of the filled message."""
    states = small(torch.tensor([filled(ids, length, filler)]), head=False)  # (1, T, D)
    return [round(value, 4) for value in judge(states[0, place]).tolist()]


ids = tokenizer.encode("Hey, are we still meeting for dinner?")
at_the_end, at_the_last_word = {}, {}
for length in (len(ids), 16, 64, 120):
    at_the_end[length] = judged(ids, length, 0, -1)
    at_the_last_word[length] = judged(ids, length, 0, len(ids) - 1)
    print(f"filled up to {length:3}: place -1 says {at_the_end[length]}, the last word {at_the_last_word[length]}")
assert len({tuple(one) for one in at_the_end.values()}) == 4
alike = torch.tensor(list(at_the_last_word.values()))
torch.testing.assert_close(alike, alike[:1].expand(4, -1), atol=2e-4, rtol=0)

# %% [markdown]
# # A new head, and what may learn
# The head for the next token has 50,257 outputs; two are wanted. A matrix of 768 x 2 and two biases take its place,
# drawn at random. Everything else is frozen, but the last block and the last norm: they have the most to do with what
# is said, and the least with how English is read. (On the meta device tensors have a shape and no numbers: counting is
# free.)


# %%
def freeze(model: Classifier) -> None:
    """Nothing learns but the last block, the last norm and the new head."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    for part in (model.trunk.blocks[-1], model.trunk.norm, model.score):
        for parameter in part.parameters():
            parameter.requires_grad = True


def learning(model: nn.Module) -> dict[str, int]:
    """The names of what learns, and how many numbers each has."""
    return {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}


with torch.device("meta"):
    large = Classifier(build(from_name("124M")), HeadConfig(("ham", "spam"), bias=True), seed=0)
freeze(large)
check("notes.6.head", {"head_params": sum(one.numel() for one in large.score.parameters())})
chosen = learning(large)
print(f"{sum(chosen.values()):,} of {sum(one.numel() for one in large.parameters()):,} numbers learn")
assert learning(train_only(large, "last-block")) == chosen  # the library's own

# %% [markdown]
# # Loss and accuracy
# Accuracy is what one wants to know: how often the largest logit is that of the right class. But it moves in jumps,
# and a jump has no slope. So cross-entropy is learnt from, -log of the probability of the right class, as for the next
# token.


# %%
def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean of -log p over logits (B, C) and classes (B,)."""
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    return -log_p.gather(1, classes[:, None]).mean()


def accuracy_of(logits: Tensor, classes: Tensor) -> float:
    """Share of rows whose largest logit is that of their class."""
    return (logits.argmax(dim=1) == classes).float().mean().item()


logits, classes = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1])
print(f"loss {loss_of(logits, classes):.4f}, accuracy {accuracy_of(logits, classes):.2f}")
batch = Batch(torch.zeros(3, 1, dtype=torch.long), 3.0, {"labels": classes})
total, numbers = losses.classification(lambda tokens: logits, batch)  # type: ignore[arg-type]
torch.testing.assert_close(total / 3, loss_of(logits, classes))
assert numbers["correct"].item() == round(3 * accuracy_of(logits, classes)) == 2

# %% [markdown]
# # Training, small and for real
# A model of a hundred thousand numbers, new to everything, and the notes that people of a small harbour town leave at
# the town hall, each for one of five desks. One note in five can only be told by the order of its words: "forget the
# lost key, and think of the parcel". Four times through them takes seconds.

# %%
notes = labelled.split(labelled.deduplicated(labelled.read("harbor-messages:1500:1")).rows, seed=1)
desks = labelled.classes(notes.train)
words = tokens.train("words", [row.text for row in notes.train])
reading = Reading.of(words, context=64)


def rows_of(part: Sequence[Labelled], labels: Sequence[str], reading: Reading, tokenizer: Tokenizer) -> LabelledRows:
    """Ids, lengths and numbers of classes; a batch is filled up to its longest row, and knows where each ends."""
    ids = [reading.ids(tokenizer, row) for row in part]
    return LabelledRows(ids, [labels.index(row.label) for row in part], pad=tokenizer.end_of_text or 0)


def train_classifier(model: Classifier, rows: LabelledRows, *, epochs: int, lr: float, batch: int) -> list[float]:
    """The loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    seen, done = list[float](), bar("desks", epochs * -(-len(rows) // batch))
    for _ in range(epochs):
        for places in torch.randperm(len(rows)).split(batch):
            one = rows.batch(places.numpy())
            logits = model(one.tokens, lengths=one.fields["lengths"])  # (B, C)
            optimizer.zero_grad()
            loss = loss_of(logits, one.fields["labels"])
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
            done(len(seen))
    return seen


torch.manual_seed(1)
config = ModelConfig(family="qwen3", vocabulary=words.vocabulary, context=64, width=64, layers=2, heads=2)
clerk = Classifier(build(config, seed=1), HeadConfig(desks), seed=1)
sources = [rows_of(part, desks, reading, words) for part in notes.parts().values()]
before = mark(clerk, sequential(sources[1], 64), labels=desks)
curve = train_classifier(clerk, sources[0], epochs=4, lr=3e-3, batch=32)
after = [mark(clerk, sequential(source, 64), labels=desks) for source in sources]
print("before, validation:", before.words())
for name, marks in zip(PARTS, after, strict=True):
    print(f"{name:5}: {marks.words()}")

with picture("spam", width=9, height=3.5) as figure:
    left, right = figure.subplots(1, 2)
    left.plot(curve)
    left.axhline(np.log(len(desks)), linestyle=":", color="gray")
    left.annotate("no idea: ln 5", (len(curve), np.log(len(desks))), va="bottom", ha="right", fontsize=8)
    left.set(title="Loss of each batch", xlabel="steps", ylabel="nats")
    table = after[2].confusion
    right.imshow(table, cmap="Blues")
    for row, line in enumerate(table):
        for column, count in enumerate(line):
            right.text(column, row, str(count), ha="center", va="center", color="white" if row == column else "black")
    right.set(title="Test notes", xlabel="said", ylabel="true", xticks=range(len(desks)), yticks=range(len(desks)))
    right.set_xticklabels(desks, rotation=20, fontsize=7)
    right.set_yticklabels(desks, fontsize=7)

# %% [markdown]
# # Asking it
# A text is encoded as in training, the largest logit wins, and softmax says how sure the model is.


# %%
@torch.no_grad()
def predict(model: Classifier, reading: Reading, tokenizer: Tokenizer, text: str) -> tuple[str, float]:
    """The class of a text and its probability."""
    row = torch.tensor([reading.ids(tokenizer, Labelled(text, ""))])
    chances = model.eval()(row)[0].softmax(dim=0)  # (1, C) -> (C,)
    return model.head_config.labels[int(chances.argmax())], chances.max().item()


said = {}
for text in ("How many stamps does a postcard to the mill need?", "Please keep two slices of bread for Hugo."):
    said[text] = predict(clerk, reading, words, text)
    print(f"{said[text][0]} ({said[text][1]:.2f}): {text}")

# %% [markdown]
# ## Exercises 6.1 to 6.3
# Each is a flag of `groundup classify`. More filler than needed (6.1, `--context 1024`) costs time and, where filler
# is read as text, accuracy. All weights learning (6.2, `--train all`) gains about a percent. The first token instead
# of the last (6.3, `--pooling first`) has read nothing but itself: texts that begin alike cannot be told apart.

# %%
blind = Classifier(small, HeadConfig(("ham", "spam"), pooling="first"), seed=1).eval()
with torch.no_grad():
    two = [blind(torch.tensor([tokenizer.encode(text)])) for text in ("You won a prize!", "You are late again")]
torch.testing.assert_close(two[0], two[1])

# %% [markdown]
# # With OpenAI's weights
# The book starts from GPT-2 124M and reaches 97.21, 97.32 and 95.67 % on its three parts. Put the seven files into
# `$GROUNDUP_DATA/gpt2-124M` (the rung of OpenAI's weights says where they are) and run this rung again: about two
# hours on two cores. The figures depend on the order of the batches, so they are computed here with torch's loaders
# and seeds, and everything that draws from torch's generator comes in the order of the book, evaluations too. Then the
# library does the same in an order of its own: `groundup classify gpt2 --data sms-spam --protocol book --out
# runs/spam`.


# %%
def in_torchs_order(source: LabelledRows, *, train: bool) -> DataLoader:
    """Batches of eight as torch's generator draws them."""
    return DataLoader(range(len(source)), batch_size=8, shuffle=train, drop_last=train,  # type: ignore[arg-type]
                      collate_fn=lambda places: source.batch(np.array(places)))  # fmt: skip


@torch.no_grad()
def look(model: Classifier, batches: DataLoader, most: int | None = None) -> tuple[float, float]:
    """Mean loss of the first batches of a pass, and the accuracy over their rows, in percent."""
    model.eval()
    means, right, rows = [], 0.0, 0.0
    for one in islice(batches, most):
        total, numbers = losses.classification(model, one)
        means.append(total.item() / one.count)
        right, rows = right + numbers["correct"].item(), rows + one.count
    return sum(means) / len(means), 100 * right / rows


def the_books_run(trunk: nn.Module, parts: Split[Labelled], *, epochs: int = 5) -> dict[str, dict[str, float]]:
    """Sections 6.5 to 6.7: what is measured before, on the way and at the end."""
    names = ("train", "validation", "test")
    width = max(len(tokenizer.encode(row.text)) for row in parts.train)
    reading = Reading.of(tokenizer, context=width, fill=end)
    found = [rows_of(part, ("ham", "spam"), reading, tokenizer) for part in parts.parts().values()]
    batches = [in_torchs_order(source, train=place == 0) for place, source in enumerate(found)]
    model = Classifier(trunk, HeadConfig(("ham", "spam"), bias=True), seed=123, init="torch")
    freeze(model)
    torch.manual_seed(123)
    first = {
        "accuracy": dict(zip(names, [look(model, one, 10)[1] for one in batches], strict=True)),
        "loss": dict(zip(names, [look(model, one, 5)[0] for one in batches], strict=True)),
    }
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    step, last, done = 0, dict[str, float](), bar("spam", epochs * len(batches[0]))
    for _ in range(epochs):
        for one in batches[0]:
            model.train()
            optimizer.zero_grad()
            (losses.classification(model, one)[0] / one.count).backward()
            optimizer.step()
            if step % 50 == 0:
                last = {name: look(model, source, 5)[0] for name, source in zip(names[:2], batches, strict=False)}
            step += 1
            done(step)
        for source in batches[:2]:
            look(model, source, 5)
    end_accuracy = dict(zip(names, [look(model, one)[1] for one in batches], strict=True))
    return {
        "accuracy at first": first["accuracy"],
        "loss at first": first["loss"],
        "loss": last,
        "accuracy": end_accuracy,
    }


def by_the_library(weights: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """`groundup classify WEIGHTS --protocol book`: accuracies, and what it says of the two messages of the notes."""
    result = classify(model=str(weights), protocol="book", out=out, **changes)
    loaded = folder.load(out / "best", classifier=True)
    kept = Reading.from_card(loaded.card, loaded.tokenizer, context=loaded.model.config.context)
    asked = ("You won a $1000 cash prize!", "Hey, are we still meeting for dinner?")
    found = {text: predict(loaded.model, kept, loaded.tokenizer, text)[0] for text in asked}
    return {
        "accuracy": {"train": result.train_accuracy, "validation": result.validation_accuracy},
        "test": result.test,
        "said": {text: {"ham": "not spam"}.get(label, label) for text, label in found.items()},
    }


weights = Path(os.environ.get("GROUNDUP_DATA", "data"), "gpt2-124M")
if (weights / "hparams.json").is_file():
    source = open_source(weights)
    figures = the_books_run(fill(source.config, source.weights), parts)
    check("book.6.6.initial_accuracy", figures["accuracy at first"])
    check("book.6.6.initial_loss", figures["loss at first"])
    check("book.6.7.loss", figures["loss"])
    check("book.6.7.accuracy", figures["accuracy"])
    with tempfile.TemporaryDirectory() as place:
        print(by_the_library(weights, Path(place, "book"))["accuracy"])
        # The notes state neither rate nor split; all weights learning comes nearest to their 100 %.
        everything = by_the_library(weights, Path(place, "all"), train="all")
    check("notes.6.7.accuracy", everything["accuracy"])
    check("notes.6.8.examples", everything["said"])
else:
    print(f"no weights in {weights}: `groundup lesson openai_weights` says which files belong there")
