"""Rung `greedy_text`: always the highest logit, never more than the context; text to ids and back as batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from groundup.generate import Sampler, generate, generate_by_hand
from groundup.model import ModelConfig, build

GREEDY = Sampler(temperature=0)


class Counter(nn.Module):
    """Says that the next id is how many tokens it was shown, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[list[list[int]]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, 20)."""
        self.shown.append(tokens.tolist())
        logits = torch.zeros(*tokens.shape, 20)
        logits[:, :, tokens.shape[1]] = 1.0
        return logits


@pytest.fixture(scope="module")
def lesson(data_dir: Path, climb: Callable) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("greedy_text")


def test_greedy_loop_reads_the_last_context_tokens():
    """G01: the ids are those of an argmax loop over the last 5 tokens, with the cache and without."""
    config = ModelConfig(family="gpt2", vocabulary=40, context=5, width=16, layers=2, heads=2, init="torch", tie=False)
    model, prompt = build(config, seed=1).eval(), [7, 3, 9]
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(9):
            scores = model(torch.tensor([ids[-5:]]))[0, -1].tolist()
            ids.append(scores.index(max(scores)))
    assert len(set(ids[3:])) > 3  # no constant
    for use_cache in (True, False):
        steps = generate(model, [prompt], max_tokens=9, sampler=GREEDY, use_cache=use_cache)
        assert [step.ids[0] for step in steps] == ids[3:]
    assert generate_by_hand(model, prompt, max_tokens=9, sampler=GREEDY) == ids[3:]
    other = [1, 2, *ids[-5:]]  # only the last five are the same
    again = generate_by_hand(model, ids, max_tokens=4, sampler=GREEDY)
    assert generate_by_hand(model, other, max_tokens=4, sampler=GREEDY) == again


@pytest.mark.slow
def test_the_lessons_loop_crops_too(lesson: dict):
    """G01: two rows at once, each new id the number of tokens shown: 3, then 4, then never more than the context."""
    model = Counter()
    out = lesson["greedy"](model, torch.tensor([[0, 1, 2], [5, 6, 7]]), 4, context=4)
    assert out.tolist() == [[0, 1, 2, 3, 4, 4, 4], [5, 6, 7, 3, 4, 4, 4]]
    assert model.shown[-1] == [[2, 3, 4, 4], [7, 3, 4, 4]]


@pytest.mark.slow
def test_text_becomes_a_batch_of_one_and_comes_back(lesson: dict):
    """G02: (1, T) ids, any text again byte for byte, the end of a text as one id."""
    to_ids, to_text = lesson["to_ids"], lesson["to_text"]
    assert to_ids("Hello, I am").tolist() == [[15496, 11, 314, 716]]
    for text in ("Every effort moves you", "  näive — 日本 \n\t'quoted'", "one<|endoftext|>two"):
        ids = to_ids(text)
        assert ids.dim() == 2 and ids.shape[0] == 1 and ids.dtype == torch.int64
        assert to_text(ids) == text
    assert to_ids("one<|endoftext|>two").tolist()[0].count(50256) == 1
