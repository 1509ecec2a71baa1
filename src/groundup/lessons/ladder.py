"""The rungs in reading order, and how to climb one.

In: the name or number of a rung. Out: what its script prints, its pictures, its variables.
"""

import ast
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.errors import SettingsError, nearest
from groundup.lessons import rung as rungs

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Rung:
    """One lesson: its name, the folder it lies in, and the minutes it takes on 2 cores; 0 is under one.

    So it is without OpenAI's weights in $GROUNDUP_DATA. With them `spam`, `low_rank`, `instructions` and `dpo` tune
    them too, hours on 2 cores.
    """

    name: str
    part: str
    minutes: int = 0

    @property
    def path(self) -> Path:
        """The script."""
        return HERE / self.part / f"{self.name}.py"

    @property
    def title(self) -> str:
        """The first line of the script."""
        text = ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8")))
        return (text or self.name).splitlines()[0]


def _part(part: str, names: str, **minutes: int) -> list[Rung]:
    return [Rung(name, part, minutes.get(name, 0)) for name in names.split()]


LADDER: list[Rung] = [
    *_part("book", "words special_tokens byte_pairs windows embeddings"),
    *_part("book", "attention_scores query_key_value causal_mask attention_dropout many_heads"),
    *_part("book", "feed_forward shortcuts transformer_block gpt greedy_text loss"),
    *_part("book", "gradients training temperature checkpoints openai_weights", training=10),
    *_part("book", "spam instructions low_rank"),
    *_part("notes", "preferences reward_model policy_gradient dpo feedback"),
    *_part("appendix", "schedules full_loop", full_loop=15),
    *_part("appendix", "tensors autograd first_network data_loaders devices processes"),
    *_part(
        "lecture",
        "characters bigram bigram_trained averaging one_head one_head_trained several_heads",
        bigram_trained=1,
        one_head_trained=4,
    ),
    *_part("lecture", "residuals encoder_decoder shakespeare", shakespeare=6),
]


def find(word: str) -> Rung:
    """The rung of a name, or of a number counted from 1; raises SettingsError with the nearest name.

    >>> find("2").name, find("loss").part
    ('special_tokens', 'book')
    """
    if word.isdecimal() and 0 < int(word) <= len(LADDER):
        return LADDER[int(word) - 1]
    for one in LADDER:
        if one.name == word:
            return one
    hint = f"there are 1 to {len(LADDER)}" if word.isdecimal() else nearest(word, [one.name for one in LADDER])
    raise SettingsError(f"no lesson is called '{word}'", hint)


def run(name: str, *, pictures: Path | None = None) -> dict[str, Any]:
    """Run the script of a rung and return its variables; pictures go to a folder, or nowhere.

    torch's generator and number of threads are afterwards as they were. Raises what the script raises.

    >>> run("tensors")["__doc__"].splitlines()[0]  # doctest: +SKIP
    'Tensors: numbers with a shape.'
    """
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with rungs.pictures_in(pictures):
        try:
            return runpy.run_path(str(find(name).path), run_name="__main__")
        finally:
            torch.set_rng_state(state)
            torch.set_num_threads(threads)
