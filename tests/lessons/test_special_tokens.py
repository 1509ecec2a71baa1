"""Rung `special_tokens`: the unknown word has an id, others can be added, and the loss does not see filler."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup import batches, losses, tokens
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.tokens.simple import PUNCTUATION_BOOK, Words

EXTRA = ["[BOS]", "[EOS]", "[PAD]"]


@pytest.fixture(scope="module")
def lesson(data_dir: Path, climb: Callable) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("special_tokens")


def test_unknown_words_and_ends_of_text_have_ids(lesson: dict) -> None:
    """T10: 1,161 entries in the library; an unknown word becomes 1160, an allowed end of text 1159."""
    special = ["<|endoftext|>", "<|unk|>"]
    library = Words.learn([lesson["text"]], special=special, punctuation=PUNCTUATION_BOOK)
    assert library.vocabulary == 1161
    assert library.encode("Hello, palace zebra") == [1160, 5, 1160, 1160]
    assert library.encode("tea <|endoftext|> tea", special=True)[1] == 1159
    assert library.decode([1160, 5, 1159]) == "<|unk|>, <|endoftext|>"
    assert library.encode(lesson["two_texts"], special=True) == [
        *(1160, 5, 362, 1155, 642, 1000, 10),
        1159,
        *(57, 1013, 981, 1009, 738, 1013, 1160, 7),
    ]


@pytest.mark.parametrize("kind", ["chars", "words", "words-strict", "bpe"])
def test_begin_end_and_filler_can_be_added_to_any_tokenizer(kind: str) -> None:
    """T11: they take the next ids, have their roles, come back as text, and leave all other ids as they were."""
    before = tokens.train(kind, ["the cat sat on the mat"])
    after = before.with_special(EXTRA)
    size = before.vocabulary
    assert [after.bos, after.eos, after.pad] == [size, size + 1, size + 2]
    assert after.vocabulary == size + 3 and (before.bos, before.pad) == (None, None)
    ids = before.encode("the mat")
    assert after.encode("the mat") == ids
    assert after.encode("[BOS]the mat[EOS][PAD]", special=True) == [size, *ids, size + 1, size + 2]
    assert "[EOS]" in after.decode([after.eos])


def test_filler_is_masked_in_the_loss_by_hand() -> None:
    """T11: a model without a clue loses ln V for each real target and nothing for filler, whatever id fills."""
    for filler in (0, 3, 7):
        rows, weight = batches.pad([[1, 2, 3, 4], [5, 6]], filler)
        batch = batches.next_token(rows, weight=weight[:, 1:])
        total, _ = losses.next_token(lambda ids: torch.zeros(*ids.shape, 8), batch)
        assert batch.count == 4
        assert total.item() == pytest.approx(4 * math.log(8), rel=1e-6)


def test_filler_changes_neither_loss_nor_gradient_of_a_transformer() -> None:
    """T11: filled with one id or another, or not at all, the batch teaches the same."""
    config = ModelConfig(family="gpt2", vocabulary=20, context=8, width=8, layers=2, heads=2, tie=False)
    sentences = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11]]

    def taught(groups: list[list[list[int]]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and gradients, summed over some batches."""
        model, losses_seen = build(config, seed=1), []
        for group in groups:
            rows, weight = batches.pad(group, filler)
            losses_seen.append(losses.next_token(model, batches.next_token(rows, weight=weight[:, 1:]))[0])
        loss = torch.stack(losses_seen).sum()
        loss.backward()
        return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    alone = taught([[sentence] for sentence in sentences], 19)
    for filler in (19, 3):  # 3 is also a word: the weight tells one from the other
        torch.testing.assert_close(taught([sentences], filler), alone)


def test_the_loss_of_the_lesson_is_that_of_its_sentences(lesson: dict) -> None:
    """T11: the mean over the real targets, worked out sentence by sentence with logarithms of softmax rows."""
    chances = lesson["table"].softmax(dim=1).log()
    real = [-chances[now, next].item() for row in lesson["rows"] for now, next in zip(row, row[1:], strict=False)]
    assert len(real) == int(lesson["weight"].sum()) < lesson["weight"].numel()
    assert lesson["masked"].item() == pytest.approx(sum(real) / len(real), rel=1e-5)
    assert abs(lesson["each_loss"](lesson["padded"]).mean().item() - lesson["masked"].item()) > 1e-3
