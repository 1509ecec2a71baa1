"""Following instructions: a writer learns to write what was asked for.

Enters: 1,100 instructions with their answers. Leaves: a model that answers instead of going on, its answers in a file,
and a way to have them judged.
Follows: book 7.1 to 7.9, exercises 7.1 and 7.2; notes 7.1 to 7.9.
In the library: groundup.text.conversations and styles, groundup.tokens.rows (what is learnt of a row),
groundup.batches.rows, groundup.generate.chat, groundup.evaluate.judge, and groundup.stages.instruct, which is `groundup
instruct`; `show-batch`, `respond`, `chat` and `judge` go with it.
"""

# %%
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from groundup import losses, tokens
from groundup.batches import Loader
from groundup.batches.rows import Rows
from groundup.checkpoint.openai import open_source
from groundup.checkpoint.source import fill
from groundup.evaluate.answers import entry as answer_entry
from groundup.evaluate.answers import matched
from groundup.evaluate.judge.asking import Answered, prompt, scale, worth
from groundup.evaluate.judge.bench import Bench, Verdicts
from groundup.evaluate.judge.places import Wish, opened
from groundup.evaluate.judge.reliability import checked, mean
from groundup.evaluate.judge.scores import read as read_answers
from groundup.evaluate.judge.scores import score, shuffled
from groundup.evaluate.judge.server import Gone
from groundup.generate import chat
from groundup.lessons.rung import bar, check, picture
from groundup.model import build
from groundup.model.config import ModelConfig, from_name
from groundup.stages.instruct import instruct
from groundup.text import catalog, conversations, styles
from groundup.tokens.rows import Row, chat_row, prompt_ids, stop_ids

# %% [markdown]
# # 1,100 tasks
# Each entry has an instruction, an answer, and sometimes an input that the instruction is about. The book takes the
# first 85 % to learn from, the next 10 % to test, the rest to validate. (The notes quote three answers in words of
# their own; what the data says stands beside.)

# %%
data = json.loads(catalog.find("instruction-data").read_text(encoding="utf-8"))
check("notes.7.2.size", len(data))
check("notes.7.2.example", data[50])
first = int(len(data) * 0.85)
second = first + int(len(data) * 0.10)
parts = {"train": data[:first], "test": data[first:second], "validation": data[second:]}
sizes = {name: len(parts[name]) for name in ("train", "validation", "test")}
check("book.7.2.split", sizes)
check("notes.7.2.split", sizes)
check("notes.7.7.examples", {name: data[number]["output"] for name, number in
                             {"passive": 1045, "synonym bright": 13, "45 kilometers": 2}.items()})  # fmt: skip

talks = conversations.read("instruction-data")
by_the_library = conversations.split(talks, protocol="book")
assert [len(by_the_library.train), len(by_the_library.valid), len(by_the_library.test)] == list(sizes.values())
print("repeated entries:", conversations.split(talks, seed=123).duplicates)

# %% [markdown]
# # A prompt style
# A model must be able to tell what it was asked from what it said. This is the style of Stanford's Alpaca. (The notes'
# data set encodes instruction and input and leaves the answer out: their model could not learn to answer.)


# %%
def asked(entry: dict[str, str]) -> str:
    """All that stands before the answer."""
    head = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    given = f"\n\n### Input:\n{entry['input']}" if entry["input"] else ""
    return f"{head}\n\n### Instruction:\n{entry['instruction']}{given}\n\n### Response:\n"


print(asked(data[50]) + data[50]["output"])
tokenizer = tokens.gpt2()
end = tokenizer.special["<|endoftext|>"]
alpaca = chat.with_tokens_of(tokenizer, styles.STYLES["alpaca"].template)
for entry, talk in zip(data, talks, strict=True):
    assert alpaca.render(conversations.told(talk.messages)) == asked(entry) + entry["output"] + "<|endoftext|>"

# %% [markdown]
# ## Exercise 7.1
# Phi-3's style is shorter, and its marks are special tokens: a tokenizer that does not have them gets them, and the
# model a row for each. What a user writes never becomes one of them. (`--template phi3`, chatml, llama3 or a file.)

# %%
phi3 = styles.STYLES["phi3"]
print(phi3.tokens)
print(chat.with_tokens_of(tokenizer, phi3.template).render(conversations.told(talks[50].messages)))

# %% [markdown]
# # Rows of unequal length
# A batch is a rectangle: each row is filled up with end-of-text to the longest. Targets are the ids one place later.
# The first end-of-text behind an answer is a real target, it is how the model learns to stop; what comes after it is
# filler. The book gives filler the target -100, which torch's cross-entropy passes over. Here it has a weight of 0:
# the same loss.


# %%
def collate(rows: Sequence[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) of rows of ids, the filler's targets -100."""
    width = max(len(ids) for ids in rows) + 1
    whole = torch.full((len(rows), width), filler)
    targets = torch.full((len(rows), width - 1), -100)
    for number, ids in enumerate(rows):
        whole[number, : len(ids)] = torch.tensor(ids)
        targets[number, : len(ids)] = whole[number, 1 : len(ids) + 1]  # the last of them is the first end-of-text
    return whole[:, :-1], targets


three = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
inputs, targets = collate(three, 50256)
print(inputs, targets, sep="\n")
weighted = Rows([Row([*ids, 50256], [False] + [True] * len(ids)) for ids in three], pad=50256).batch(np.arange(3))
assert torch.equal(weighted.tokens, inputs) and torch.equal(weighted.fields["weight"] == 0, targets == -100)

torch.manual_seed(123)
network = build(from_name("gpt2", width=48, layers=1, heads=2, context=64), seed=1).eval()
with torch.no_grad():
    alone = [F.cross_entropy(network(collate([ids], end)[0])[0], collate([ids], end)[1][0], reduction="sum")
             for ids in three]  # fmt: skip
    together = F.cross_entropy(network(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
    by_weight, _ = losses.next_token(network, weighted)
print(f"loss of the three rows alone {sum(alone):.4f}, side by side {together:.4f}, by weights {by_weight:.4f}")
torch.testing.assert_close(together, torch.stack(alone).sum())
torch.testing.assert_close(by_weight, together)

# %% [markdown]
# # Loaders of eight
# 935 rows make 116 batches, each as long as its own longest row. So two epochs are 232 steps: the "step 300" in the
# log of the notes cannot have been. (Their loop also asks `model(batch).loss` without giving targets: there is no
# loss.) Where rows of like length are put together, less of a batch is filler.


# %%
def loader(entries: Sequence[dict[str, str]], *, train: bool) -> DataLoader:
    """Inputs and targets (8, T), in an order from torch's generator where they are learnt."""
    rows = [tokenizer.encode(asked(entry) + entry["output"]) for entry in entries]
    return DataLoader(rows, batch_size=8, shuffle=train, drop_last=train,  # type: ignore[arg-type]
                      collate_fn=lambda ids: collate(ids, end))  # fmt: skip


torch.manual_seed(123)
train = loader(parts["train"], train=True)
shapes = [tuple(inputs.shape) for inputs, _ in train]
print(len(shapes), "batches:", shapes[:4], "...")
assert len(shapes) == 116 and all(rows == 8 for rows, _ in shapes)
check("notes.7.6.loss", {"steps": 2 * len(train)})

whole = Rows([Row([*ids, end], [False] + [True] * len(ids)) for ids in train.dataset], pad=end)
filler = {}
for name, lengths in (("in any order", None), ("bucketed", whole.lengths)):
    drawn = list(islice(Loader(whole, batch=8, seed=123, lengths=lengths), 116))
    filler[name] = 1 - sum(batch.size or 0 for batch in drawn) / sum(batch.tokens.numel() for batch in drawn)
    print(f"{name}: {100 * filler[name]:.1f} % filler")

# %% [markdown]
# # What is learnt of a row
# The book learns every token, the instruction too. Exercise 7.2 asks for the other way: only the answer, and the token
# that ends it. A wrong mask is the costliest mistake there is, and makes no error message, so look at it:
# `groundup show-batch instruct --data instruction-data` draws such a picture of any data and any style.

# %%
row = chat_row(tokenizer, alpaca, talks[50], learn="answers")
everything = chat_row(tokenizer, alpaca, talks[50], learn="all")
answer = [id for id, learnt in zip(row.ids, row.learn, strict=True) if learnt]
assert tokenizer.decode(answer) == data[50]["output"] + "<|endoftext|>"
assert everything.ids == row.ids and everything.learn == [False] + [True] * (len(row.ids) - 1)
learnt = [chat_row(tokenizer, alpaca, talk, learn="answers").learn for talk in talks]
share = sum(map(sum, learnt)) / sum(map(len, learnt))
print(f"{100 * share:.1f} % of all tokens belong to answers")

with picture("instructions", width=9, height=3) as figure:
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(8.5, -1), title="Entry 50: learnt (green), only read (gray)")
    axes.axis("off")
    column, line = 0.0, 0
    for id, counts in zip(row.ids, row.learn, strict=True):
        piece = tokenizer.decode([id])
        if column + len(piece) > 95:
            column, line = 0.0, line + 1
        axes.text(column, line, piece.replace("\n", "↵"), family="monospace", fontsize=8,
                  bbox={"boxstyle": "square,pad=0.15", "color": "#a5d6a7" if counts else "#e0e0e0"})  # fmt: skip
        column += len(piece) + 1
        if piece.endswith("\n"):
            column, line = 0.0, line + 1

# %% [markdown]
# # A small model learns thirty
# By heart, since it has never read anything else: what counts is that it stops where the answer ends, and says nothing
# of the instruction again. Only answers are learnt.

# %%
some = sorted((talk for talk in talks if "input" not in talk.messages[0]), key=lambda talk: len(str(talk.messages)))[
    :30
]
own = tokens.train("bpe", [alpaca.render(conversations.told(talk.messages)) for talk in some], vocabulary=600)
style = chat.with_tokens_of(own, styles.STYLES["alpaca"].template)
rows = Rows([chat_row(own, style, talk, learn="answers") for talk in some], pad=own.special["<|endoftext|>"])
questions = [[dict(message) for message in talk.messages[:1]] for talk in some]
expected = [str(talk.messages[1]["content"]) for talk in some]
config = ModelConfig(family="qwen3", vocabulary=own.vocabulary, context=128, width=96, layers=2, heads=4)
pupil = build(config, seed=1)
before = matched(chat.answers(pupil, own, style, questions, max_tokens=40), expected)

optimizer, curve = torch.optim.AdamW(pupil.parameters(), lr=3e-3), list[float]()
draws, done = Loader(rows, batch=10, seed=1, lengths=rows.lengths), bar("thirty instructions", 200)
for batch in islice(draws, 200):
    total, _ = losses.next_token(pupil, batch)
    optimizer.zero_grad()
    (total / batch.count).backward()
    optimizer.step()
    curve.append(total.item() / batch.count)
    done(len(curve))
found = chat.answers(pupil, own, style, questions, max_tokens=40)
after = matched(found, expected)
print(f"loss {curve[0]:.2f} -> {curve[-1]:.4f}; before: {before.words()}; after: {after.words()}")
for question, said in list(zip(questions, found, strict=True))[:3]:
    print(f"{question[0]['content']} -> {said}")

# %% [markdown]
# # Keeping what it says
# `generate` returns the prompt and what follows. The book cuts the prompt off by its length in characters; the library
# by ids, and stops at the ids that end an answer in this style. (The notes print the prompt along with the answer, and
# their `max_length=256` counts it too.) Each entry is kept with the answer beside, as `groundup respond` does.

# %%
assert stop_ids(own, style) == [own.special["<|endoftext|>"]]
ids = prompt_ids(own, style, questions[0])
text = own.decode(ids) + found[0]
assert text[len(own.decode(ids)) :].strip() == found[0]

entries = [answer_entry(talk, said) for talk, said in zip(some, found, strict=True)]
print(entries[0])
with tempfile.TemporaryDirectory() as place:
    kept = Path(place, "answers.json")
    kept.write_text(json.dumps(entries, indent=2), encoding="utf-8")
    answered = read_answers(kept)
assert [one.answer for one in answered] == found and [one.expected for one in answered] == expected

# %% [markdown]
# # A judge
# Two answers can be right in different words, so a larger model is asked for a score from 0 to 100, and the mean over
# all answers is the figure: 50.32 in the book. (The notes report an accuracy of 40 and 85 %, and give neither question
# nor scale.) Such a judge is a measuring tool that nobody has checked. Three things help: what is no score counts as
# none, never as 0; the question says that the answer is material, not a command; and the judge is judged, on right
# answers and on the same answers put to other questions.

# %%
print(prompt(Answered("What is 2 + 2?", "4", "5", ""), scale("100")))
replies = ['{"score": 85}', "90", "I would give it a high score!", '{"score": 250}']
scores = [worth(reply, scale("100")) for reply in replies]
usable = [one for one in scores if one is not None]
print(scores, "mean:", sum(usable) / len(usable))
assert scores == [85, 90, None, None] and mean(usable)[0] == 87.5


def by_words(row: Answered) -> float:
    """A judge of our own: how many of the expected words the answer has, in percent."""
    wanted = set(row.expected.lower().split())
    return 100 * len(wanted & set((row.answer or "").lower().split())) / len(wanted)


good, bad = shuffled(answered, size=30, seed=123)
for name, one in {"one that counts words": by_words, "one that always says 80": lambda row: 80.0}.items():
    found_check = checked([one(row) for row in good], [one(row) for row in bad])
    print(f"{name}: area {found_check.area:.2f}, {'fit' if found_check.fit else 'unfit'}")
print(f"mean by words: {mean([by_words(row) for row in answered])[0]:.1f}")


def judged(path: Path, judge: str = "ollama:llama3") -> float | None:
    """Mean score of a file of answers by a judge on this machine; None where nobody answers."""
    try:
        bench = Bench(opened(Wish(judge=judge)), Verdicts())
    except Gone as error:
        print(error)
        return None
    return score(bench, path.name, read_answers(path), scale("100"), seed=123).mean[0]


# %% [markdown]
# # Handing over
# Other programs tune the same data. LitGPT reads Alpaca's JSON (`litgpt finetune MODEL --data JSON --data.json_path
# train.json`), Axolotl a list of messages, one conversation a line (`datasets: [{path: train.jsonl, type:
# chat_template}]`). `groundup instruct` writes both into RUN/data.

# %%
with tempfile.TemporaryDirectory() as place:
    one, other = Path(place, "train.json"), Path(place, "train.jsonl")
    conversations.write_alpaca(one, by_the_library.train)
    conversations.write_messages(other, by_the_library.train)
    as_alpaca = json.loads(one.read_text(encoding="utf-8"))
    as_messages = [json.loads(line) for line in other.read_text(encoding="utf-8").splitlines()]
    back = [[replace(talk, where="") for talk in conversations.read(path)] for path in (one, other)]
plain = [replace(talk, where="") for talk in by_the_library.train]
assert as_alpaca == parts["train"] and back == [plain, plain]
print(json.dumps(as_messages[0])[:110], "...")

# %% [markdown]
# # With OpenAI's weights
# The book tunes GPT-2 355M. Put its seven files into `$GROUNDUP_DATA/gpt2-355M`, and run this rung again: some four
# hours on two cores, minutes on a GPU with `groundup instruct`. As for spam, the figures are computed in the order of
# torch's own generator; then the library does the same, answers the 110 test entries, and a judge scores them if
# Ollama has Llama 3:
#
#     groundup instruct gpt2-medium --data instruction-data --protocol book --learn all --batching padded \
#         --epochs 2 --batch 8 --lr 5e-5 --min-lr 1 --warmup 0 --clip 0 --answers 110 --out runs/assistant
#     groundup judge runs/assistant/answers.json --judge ollama:llama3


# %%
@torch.no_grad()
def look(model: nn.Module, batches: DataLoader) -> float:
    """Mean loss of the first five batches of a pass."""
    model.eval()
    means = [F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item()
             for inputs, targets in islice(batches, 5)]  # fmt: skip
    return sum(means) / len(means)


def the_books_run(model: nn.Module, train: DataLoader, valid: DataLoader, *, epochs: int = 2) -> dict[str, Any]:
    """Section 7.6: losses before, at the first and at the last evaluation."""
    torch.manual_seed(123)
    before = {"train": look(model, train), "validation": look(model, valid)}
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    log, step, done = [], 0, bar("instructions", epochs * len(train))
    for _ in range(epochs):
        for inputs, targets in train:
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
            if step % 5 == 0:
                log.append({"train": look(model, train), "validation": look(model, valid)})
            step += 1
            done(step)
    return {"before": before, "loss": {"first": log[0], "last": log[-1]}}


def with_the_library(weights: Path, out: Path, **changes: Any) -> Any:
    """The same by `groundup instruct`, with answers to the test entries in RUN/answers.json."""
    recipe: dict[str, Any] = {
        "data": ["instruction-data"], "protocol": "book", "learn": "all", "batching": "padded", "epochs": 2, "batch": 8,
        "lr": 5e-5, "min_lr": 1.0, "warmup": 0, "clip": 0.0, "seed": 123, "answers": 110,
    }  # fmt: skip
    return instruct(model=str(weights), out=out, **recipe | changes)


weights = Path(os.environ.get("GROUNDUP_DATA", "data"), "gpt2-355M")
if (weights / "hparams.json").is_file():
    source = open_source(weights)
    valid = loader(parts["validation"], train=False)
    figures = the_books_run(fill(source.config, source.weights), train, valid)
    check("book.7.6.initial_loss", figures["before"])
    check("book.7.6.loss", figures["loss"])
    with tempfile.TemporaryDirectory() as place:
        result = with_the_library(weights, Path(place, "run"))
        print(f"the library: test loss {result.test_loss_before:.3f} -> {result.test_loss:.3f}")
        mean_score = judged(Path(place, "run", "answers.json"))
    if mean_score is not None:
        check("book.7.8.judge", mean_score)
else:
    print(f"no weights in {weights}: `groundup lesson openai_weights` names the files; here they are those of 355M")
