"""Rows for a classifier: read the same way in training and after it, padded so that nothing reads the padding."""

import numpy as np
import pytest
import torch

from groundup import tokens
from groundup.batches import Loader, sequential
from groundup.batches.labelled import LabelledRows, Reading, balancing
from groundup.errors import CheckpointError, DataError
from groundup.text.labelled import Labelled

CHARS = tokens.train("chars", ["abcdef"])  # a 0 .. f 5, end of text 6
BARE = tokens.train("chars", ["abc\n"], special=[])  # line end 0, a 1 ...


def row(text: str, pair: str | None = None) -> Labelled:
    return Labelled(text, "x", pair, "a.csv row 7")


def test_a_row_by_hand() -> None:
    reading = Reading.of(CHARS, context=6)
    assert reading == Reading(6, (6,), None)
    assert reading.ids(CHARS, row("abc")) == [0, 1, 2]
    assert reading.ids(CHARS, row("ab", "cd")) == [0, 1, 6, 2, 3]
    assert reading.ids(CHARS, row("abcdefab")) == [0, 1, 2, 3, 4, 5]
    assert len(reading.whole(CHARS, row("abcdefab"))) == 8


def test_without_an_end_of_text_a_line_end_stands_between_a_pair() -> None:
    assert BARE.end_of_text is None
    assert Reading.of(BARE, context=9).ids(BARE, row("a", "b")) == [1, 0, 2]
    letters = tokens.train("chars", ["abc"], special=[])
    assert Reading.of(letters, context=9).ids(letters, row("a", "b")) == [0, 1]


def test_the_books_rows_are_filled_as_if_the_filler_were_text() -> None:
    reading = Reading.of(CHARS, context=4, fill=6)
    assert reading.ids(CHARS, row("ab")) == [0, 1, 6, 6]
    assert reading.ids(CHARS, row("abcdef")) == [0, 1, 2, 3]


def test_a_tokenizer_that_begins_texts_begins_rows() -> None:
    class Begins:
        start = [9]
        end_of_text = None
        vocabulary = 10

        def encode(self, text: str) -> list[int]:
            return [ord(letter) - 97 for letter in text if letter != "\n"]

    reading = Reading.of(Begins(), context=3)  # type: ignore[arg-type]
    assert reading.ids(Begins(), row("abc")) == [9, 0, 1]  # type: ignore[arg-type]


def test_texts_that_cannot_be_rows_are_named() -> None:
    with pytest.raises(DataError, match="a.csv row 7 cannot be encoded"):
        Reading.of(CHARS, context=4).whole(CHARS, row("xyz"))
    words = tokens.train("words", ["a b"])
    with pytest.raises(DataError, match="a.csv row 7 has no tokens"):
        Reading.of(words, context=4).whole(words, row("  "))


def test_a_card_brings_back_what_was_read() -> None:
    for reading in (Reading.of(CHARS, context=4), Reading(3, (), 6), Reading(4, (1, 2), None)):
        assert Reading.from_card({"reading": reading.to_card()}, CHARS, context=4) == reading
    assert Reading.from_card({}, CHARS, context=5) == Reading(5, (6,), None)


@pytest.mark.parametrize(
    "told",
    [7, {}, {"context": 9, "join": [], "fill": None}, {"context": 4, "join": [7], "fill": None},
     {"context": 4, "join": "x", "fill": None}, {"context": 4, "join": [], "fill": -1}],
)  # fmt: skip
def test_a_card_that_does_not_fit_is_refused(told: object) -> None:
    with pytest.raises(CheckpointError, match="card.json says"):
        Reading.from_card({"reading": told}, CHARS, context=4)


def test_a_batch_by_hand() -> None:
    source = LabelledRows([[5, 6, 7], [8], [9, 9]], [1, 0, 1], pad=4)
    assert len(source) == 3 and not source.endless and source.lengths.tolist() == [3, 1, 2]
    batch = source.batch(np.array([1, 2]))
    assert batch.tokens.tolist() == [[8, 4], [9, 9]] and batch.count == 2.0 and batch.size == 3
    assert {name: field.tolist() for name, field in batch.fields.items()} == {"labels": [0, 1], "lengths": [1, 2]}
    assert all(field.dtype == torch.int64 for field in batch.fields.values())


def test_weights_are_counted() -> None:
    source = LabelledRows([[5], [6], [7]], [0, 1, 0], pad=0, weights=[0.5, 2.0, 0.5])
    batch = source.batch(np.array([1, 0]))
    assert batch.fields["weight"].tolist() == [2.0, 0.5] and batch.count == 2.5


def test_balanced_classes_weigh_the_same() -> None:
    labels = [0] * 8 + [1] * 2 + [2] * 5
    weights = balancing(labels, 3)
    pairs = list(zip(weights, labels, strict=True))
    sums = [sum(weight for weight, label in pairs if label == number) for number in range(3)]
    assert sums == pytest.approx([5.0, 5.0, 5.0]) and sum(weights) == pytest.approx(15)
    with pytest.raises(DataError, match="class 1 has no row"):
        balancing([0, 2], 3)


def test_what_does_not_belong_together_is_refused() -> None:
    for ids, labels, weights in (([], [], None), ([[1]], [0, 1], None), ([[1]], [0], [1.0, 2.0])):
        with pytest.raises(DataError, match="give one label"):
            LabelledRows(ids, labels, pad=0, weights=weights)
    with pytest.raises(DataError, match="row 1 has no tokens"):
        LabelledRows([[1], []], [0, 1], pad=0)


def test_a_loader_draws_each_row_once_an_epoch() -> None:
    source = LabelledRows([[number] for number in range(7)], [number % 2 for number in range(7)], pad=0)
    loader = Loader(source, batch=7, seed=3)
    drawn = next(iter(loader))
    assert sorted(drawn.tokens[:, 0].tolist()) == list(range(7))
    assert drawn.fields["labels"].tolist() == [number % 2 for number in drawn.tokens[:, 0].tolist()]
    assert [batch.count for batch in sequential(source, 3)] == [3.0, 3.0, 1.0]
