"""Characters and their batches: rows T16, L07 and L08 of the coverage, on the library's parts."""

import numpy as np
import pytest
import torch

from groundup import tokens
from groundup.batches import RandomWindows, next_token
from groundup.errors import TokenizerError
from groundup.model import ModelConfig, build


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    """The variables of the rung."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("characters")


def test_one_id_per_character_there_and_back(lesson):
    """T16: 65 symbols in sorted order, any text of them comes back, another character is named."""
    shakespeare = tokens.train("chars", [lesson["text"]], special=())
    assert shakespeare.vocabulary == 65
    assert shakespeare.decode(list(range(65))) == "".join(sorted(set(lesson["text"])))
    assert shakespeare.decode(shakespeare.encode(lesson["text"])) == lesson["text"]
    assert lesson["encode"]("Zounds!\n") == shakespeare.encode("Zounds!\n")
    with pytest.raises(TokenizerError, match="'é' .* at character 3"):
        shakespeare.encode("café")


def test_random_batches_are_stretches_of_the_text(lesson):
    """L07: each row is what stands at its offset, targets are one place later, every possible offset occurs."""
    text = torch.arange(100, 113)  # 13 ids: a context of 8 may start at 0, 1, 2, 3, 4
    starts, inputs, targets = lesson["draw"](text, batch=200)
    assert set(starts.tolist()) == {0, 1, 2, 3, 4}
    for start, row, after in zip(starts.tolist(), inputs.tolist(), targets.tolist(), strict=True):
        assert row == list(range(100 + start, 108 + start))
        assert after == list(range(101 + start, 109 + start))

    batch = RandomWindows(text.numpy(), length=8, seed=3).batch(np.arange(200))
    assert set(batch.tokens[:, 0].tolist()) == {100, 101, 102, 103, 104}
    assert torch.equal(batch.tokens + 1, batch.fields["targets"])
    assert (batch.tokens.diff(dim=1) == 1).all()
    again = RandomWindows(text.numpy(), length=8, seed=3).batch(np.arange(50, 60))
    assert torch.equal(again.tokens, batch.tokens[50:60])  # a stopped run goes on with the same ones


def test_a_block_is_eight_tasks(lesson):
    """L08: nine ids hold eight contexts, and the model answers each as if the rest of the block were not there."""
    ids = [18, 47, 56, 57, 58, 1, 15, 47, 58]
    batch = next_token(torch.tensor([ids]))
    tasks = [[batch.tokens[0, : t + 1].tolist(), batch.fields["targets"][0, t].item()] for t in range(8)]
    assert tasks == [[ids[:count], ids[count]] for count in range(1, 9)] == lesson["tasks"]

    model = build(ModelConfig(family="gpt2", vocabulary=65, context=8, width=16, layers=2, heads=2), seed=1).eval()
    together = model(batch.tokens)[0]
    for place, (seen, _) in enumerate(tasks):
        torch.testing.assert_close(model(torch.tensor([seen]))[0, -1], together[place])
