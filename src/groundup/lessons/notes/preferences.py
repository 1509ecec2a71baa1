"""Preferences: two answers to one question, and which of them is better.

Enters: records of three kinds. Leaves: pairs of rows of which only the answers are learnt, and a warning about length.
Follows: notes 8.1 and 8.3; the preference data that accompany the book's chapter 7.
In the library: groundup.text.preferences (every form that is common), groundup.text.harbor.pairs (pairs of a known
order), groundup.tokens.pairs, groundup.batches.pairs; `groundup show-batch dpo` shows what is made of any of them.
"""

# %%
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from groundup import tokens
from groundup.batches.pairs import Pairs
from groundup.generate import chat
from groundup.lessons.rung import check, picture
from groundup.text import catalog, preferences, styles
from groundup.tokens.pairs import pair_rows

# %% [markdown]
# # What people say
# Nobody can say how good an answer is, as a number, today and tomorrow alike. Nearly everybody can say which of two is
# better. So that is what is collected: a question, two answers, and a choice. In the notes' record `preferred` counts
# from 1, as people do: 1 is `response_1`. Whoever takes it for an index teaches a model the opposite.

# %%
RECORD = {
    "prompt": "Explain quantum computing to a 5-year-old.",
    "response_1": "It's like a magic coin that can be heads and tails at the same time!",
    "response_2": "Quantum computing is a complex topic involving superposition and entanglement.",
    "preferred": 1,
}


def sides(record: dict[str, Any]) -> tuple[str, str]:
    """The better answer, then the worse one."""
    answers = [record["response_1"], record["response_2"]]
    better = answers.pop(record["preferred"] - 1)
    return better, answers[0]


chosen, rejected = sides(RECORD)
print("chosen:  ", chosen)
print("rejected:", rejected)

# %% [markdown]
# The library reads a file of such records, and says which entry is wrong if one is.

# %%
with tempfile.TemporaryDirectory() as place:
    file = Path(place, "notes.jsonl")
    file.write_text(json.dumps(RECORD) + "\n", encoding="utf-8")
    [pair] = preferences.read(file)
assert (pair.chosen, pair.rejected) == (chosen, rejected)
check("notes.8.3.format", {"preferred": 1 + [RECORD["response_1"], RECORD["response_2"]].index(pair.chosen)})

# %% [markdown]
# # Transcripts
# Anthropic's HH-RLHF, which the notes name, has no field for the prompt: there are two whole conversations, equal up to
# the last answer. Where the prompt ends has to be found.

# %%
with gzip.open(catalog.find("hh-rlhf"), "rt", encoding="utf-8") as lines:
    transcripts = [json.loads(line) for line in lines]
ASSISTANT = "\n\nAssistant:"


def apart(record: dict[str, str]) -> tuple[str, str, str] | None:
    """The prompt and two answers; None where the conversations are not one up to their last answer."""
    cut = [record[side].rfind(ASSISTANT) + len(ASSISTANT) for side in ("chosen", "rejected")]
    prompts = [record[side][:end] for side, end in zip(("chosen", "rejected"), cut, strict=True)]
    if prompts[0] != prompts[1]:
        return None
    return prompts[0], record["chosen"][cut[0] :].strip(), record["rejected"][cut[1] :].strip()


by_hand = [apart(record) for record in transcripts]
odd = sum(one is None for one in by_hand)
print(f"{len(transcripts):,} pairs, of which {odd} part before the last answer: nobody knows what is the answer there")
theirs = preferences.read("hh-rlhf")
both = [(mine, row) for mine, row in zip(by_hand, theirs, strict=True) if mine is not None and not row.fault]
assert all(mine[1:] == (row.chosen.strip(), row.rejected.strip()) for mine, row in both)
print(f"by hand and by the library the same answers in {len(both):,} pairs")
turns = [mine[0].count("\n\nHuman:") for mine, _ in both]
print(f"a prompt has {min(turns)} to {max(turns)} turns of a person in it, {sum(turns) / len(turns):.1f} on average")

# %% [markdown]
# # Length
# Look at lengths before anything else. Where the chosen answer is nearly always the longer one, a model can learn
# "longer is better" and be right without having read a word. In the book's 1,100 pairs, made by asking another model
# for a polite and an impolite version, and in the harbor's, made by us with an order that is known to be true, it
# can be counted.

# %%
KINDS = {"the book's": "instruction-preference", "HH-RLHF": "hh-rlhf", "harbor": "harbor-pairs:600:3"}
rows = {name: [row for row in preferences.read(source) if not row.fault] for name, source in KINDS.items()}
shares = {name: preferences.chosen_is_longer(found) for name, found in rows.items()}
for name, found in rows.items():
    same = sum(row.chosen.strip() == row.rejected.strip() for row in found)
    print(f"{name:12} {len(found):5,} pairs, {same} equal; chosen is longer in {100 * shares[name]:.1f} %")

with picture("preferences", width=9, height=3) as figure:
    for axes, (name, found) in zip(figure.subplots(1, 3), rows.items(), strict=True):
        ahead = np.clip([len(row.chosen) - len(row.rejected) for row in found], -300, 300)
        axes.hist(ahead, bins=31, color="C0")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(title=f"{name}: longer in {100 * shares[name]:.0f} %", xlabel="letters the chosen answer has more",
                 yticks=[])  # fmt: skip

# %% [markdown]
# # Two rows
# A pair becomes two rows with the same beginning. Only the answer counts in either of them, and the token that ends
# it. A batch holds first all chosen rows, then all rejected ones.

# %%
tokenizer = tokens.gpt2()
template = chat.with_tokens_of(tokenizer, styles.STYLES["alpaca"].template)
gathered = pair_rows(tokenizer, template, rows["the book's"][:50], context=256, source="the pairs")
print(gathered.words())
first = gathered.rows[0]
prompt = next(place for place, learnt in enumerate(first.chosen.learn) if learnt)
assert first.chosen.ids[:prompt] == first.rejected.ids[:prompt]
learnt = [[tokenizer.decode([id]) for id, flag in zip(row.ids, row.learn, strict=True) if flag]
          for row in (first.chosen, first.rejected)]  # fmt: skip
print(*("|".join(words) for words in learnt), sep="\n")
assert "".join(learnt[0]) == rows["the book's"][gathered.places[0]].chosen + "<|endoftext|>"

batch = Pairs(gathered.rows, pad=tokenizer.special["<|endoftext|>"]).batch(np.arange(4))
print("tokens", tuple(batch.tokens.shape), "for", int(batch.count), "pairs")
assert len(batch.tokens) == 8
