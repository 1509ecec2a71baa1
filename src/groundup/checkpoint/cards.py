"""The card of a model folder as a page: what the model is, what it was made from, how to use it.

In: its config, the facts of card.json, and what it has beside a trunk. Out: the text of README.md.
"""

import re
from typing import Any

from groundup.checkpoint import classifier
from groundup.model.heads import REWARD, HeadConfig

USES = {
    "text": 'groundup generate FOLDER --prompt "Once"',
    "classes": 'groundup predict FOLDER --text "..."',
    "reward": 'groundup score FOLDER --prompt "..." --response "..."',
}
ANSWERING = ("instruct", "dpo", "ppo")  # stages whose models answer


def text(
    config: Any,
    card: dict[str, Any],
    *,
    head: HeadConfig | None,
    adapter: dict[str, Any] | None,
    padded: bool,
) -> str:
    """The page; `head` of a classifier, `adapter` of a folder of adapters alone, `padded`: there is a pad id."""
    plain = {_one_line(name): _one_line(value) for name, value in card.items() if not isinstance(value, (dict, list))}
    facts = "\n".join(f"| {name} | {value} |" for name, value in plain.items())
    licence = str(card.get("license") or card.get("licence") or "unknown").lower()
    known = re.fullmatch(r"[a-z0-9.+-]+", licence)  # a short name, such as apache-2.0; "other" stands for a text
    library = "peft" if adapter is not None else "transformers"
    task = "text-generation" if head is None else "text-classification"
    use = USES["text" if head is None else head.kind]
    return f"""---
library_name: {library}
pipeline_tag: {task}
license: {licence if known else "other"}
tags: [groundup, {config.family}]
---
{_origin(config, card, head)}
{_beside(card, head, adapter, padded)}
| | |
|---|---|
{facts}

    {use}
"""


def _origin(config: Any, card: dict[str, Any], head: HeadConfig | None) -> str:
    """Title, and what is known of the text behind the model."""
    if "imported from" in card and "settings" not in card:
        return (
            f"# A {config.family} language model, imported by Groundup\n\nWhat it learnt from: ask where it came from."
        )
    sources = "\n".join(f"- {_one_line(source)}" for source in card.get("sources", [])) or "- not recorded"
    kind = "language model" if head is None else "reward model" if head.kind == REWARD else "classifier"
    return (
        f"# A {config.family} {kind} made with Groundup\n\n{_about(card, head)}\n\nText it was trained on:\n{sources}"
    )


def _about(card: dict[str, Any], head: HeadConfig | None) -> str:
    """What the model was taught."""
    if head is not None and head.kind == REWARD:
        return "It scores answers: the higher the better. Only differences of raw scores were learnt."
    if head is not None:
        return f"It tells {len(head.labels)} classes apart: {_one_line(', '.join(head.labels))}."
    if card.get("stage") in ANSWERING:
        return "It was taught to answer; its chat template says how a conversation is written."
    return "A base model: it continues text; it was not taught to chat."


def _beside(card: dict[str, Any], head: HeadConfig | None, adapter: dict[str, Any] | None, padded: bool) -> str:
    """What a reader must know who opens the folder with another program."""
    said = []
    if adapter is not None:
        base = _one_line(adapter.get("base_model_name_or_path", ""))
        said.append(f"This folder holds adapters alone, in the layout of peft, for {base}.")
    if head is not None:
        filled = (card.get("reading") or {}).get("fill") is not None
        said += [warning] if (warning := classifier.warning(head, alone=not padded, filled=filled)) else []
    return "".join(f"\n{line}\n" for line in said)


def _one_line(value: Any) -> str:
    """A fact as it stands in a table: what a foreign file says must not become a line of its own."""
    return " ".join(str(value).split()).replace("|", "\\|")
