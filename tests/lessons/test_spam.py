"""From a list of messages to a classifier: by hand on small things, and the book's run with a small network."""

import math
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from groundup import tokens
from groundup.checkpoint import folder
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.heads import Classifier, HeadConfig
from groundup.text.labelled import Split

SMALL = ModelConfig(family="gpt2", vocabulary=50257, context=128, width=8, layers=2, heads=2)


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("spam")


def few(lesson, count: int = 24) -> Split:
    return Split(*(rows[:size] for rows, size in zip(lesson["parts"].parts().values(), (count, 8, 12), strict=True)))


def test_messages_are_balanced_and_no_text_is_in_two_parts(lesson):
    """C01: 5,574 read, 747 of each kind kept, by hand and by the library; the book's parts, and the library's own."""
    assert len(lesson["messages"]) == 5574 and lesson["counts"] == {"ham": 4827, "spam": 747}
    for rows in (lesson["balanced"](lesson["messages"], 5), lesson["labelled"].undersampled(lesson["messages"], 5)):
        kinds = [row.label for row in rows]
        assert kinds.count("ham") == kinds.count("spam") == 747 and len(rows) == 1494
    assert [len(rows) for rows in lesson["parts"].parts().values()] == [1045, 149, 300]
    texts = [{row.text for row in rows} for rows in lesson["split"].parts().values()]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_rows_of_equal_length_and_the_last_real_token(lesson):
    """C02: every row has the length of the longest, cut or filled up; filler moves place -1, and no other."""
    filled = lesson["filled"]
    assert filled([5, 6, 7], 5, 0) == [5, 6, 7, 0, 0] and filled([5, 6, 7], 2, 0) == [5, 6]
    inputs, classes = next(iter(lesson["loaders"][0]))
    assert inputs.shape == (8, 120) and set(classes.tolist()) <= {0, 1}
    assert [len(one) for one in lesson["loaders"]] == [130, 19, 38]
    assert len({tuple(one) for one in lesson["at_the_end"].values()}) == 4
    model = Classifier(build(SMALL, seed=1), HeadConfig(("ham", "spam")), seed=1).eval()
    ids = [10, 20, 30]
    alone = model(torch.tensor([ids]))
    for filler in (0, 50256):
        rows = torch.tensor([filled(ids, 9, filler)])
        torch.testing.assert_close(model(rows, lengths=torch.tensor([3])), alone)
        assert not torch.allclose(model(rows), alone, atol=1e-4)  # place -1


def test_only_what_is_chosen_learns(lesson):
    """C03: a step moves the last block, the last norm and the head, nothing else; the head of the book has 1,538."""
    model = Classifier(build(SMALL, seed=1), HeadConfig(("ham", "spam"), bias=True), seed=1)
    lesson["freeze"](model)
    before = {name: one.clone() for name, one in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    F.cross_entropy(model(torch.tensor([[1, 2, 3], [4, 5, 6]])), torch.tensor([0, 1])).backward()
    optimizer.step()
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert moved and all(name.startswith(("trunk.blocks.1.", "trunk.norm.", "score.")) for name in moved)
    assert {"score.weight", "score.bias", "trunk.norm.weight"} <= moved
    assert sum(lesson["chosen"][name] for name in ("score.weight", "score.bias")) == 1538
    assert sum(lesson["chosen"].values()) == 1538 + 12 * 768**2 + 13 * 768 + 2 * 768


def test_loss_and_accuracy_by_hand(lesson):
    """C04: worked values; without an idea of five classes the loss is about ln 5."""
    logits, classes = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    assert lesson["loss_of"](logits, classes).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert lesson["accuracy_of"](logits, classes) == 0.5  # of equal logits the first is chosen
    assert lesson["before"].loss == pytest.approx(math.log(5), abs=0.3) and 0 <= lesson["before"].accuracy < 0.4


def test_a_small_model_learns_the_desks(lesson):
    """C05: seconds of training: the loss falls, and far more than a fifth of notes never seen is right."""
    curve, (train, valid, test) = lesson["curve"], lesson["after"]
    assert sum(curve[-20:]) < 0.5 * sum(curve[:20])
    assert train.accuracy > 0.85 and valid.accuracy > 0.75 and test.accuracy > 0.75 and test.rows > 200
    shown = [[int(text.get_text()) for text in lesson["right"].texts[place * 5 : place * 5 + 5]] for place in range(5)]
    assert shown == [list(row) for row in test.confusion]


def test_two_texts_are_told_apart(lesson):
    """C06: what they are about, and how sure it is; a probability is one of all classes."""
    assert [label for label, _ in lesson["said"].values()] == ["letters", "food"]
    assert all(0.2 < chance <= 1 for _, chance in lesson["said"].values())


def test_the_first_token_has_read_nothing(lesson):
    """C02: with the first state judged, texts that begin alike have the same logits: why the last one is read."""
    torch.testing.assert_close(*lesson["two"])
    model, longer = lesson["blind"].trunk, torch.tensor([[1, 2, 3]])
    assert not torch.allclose(model(longer, head=False)[:, -1], model(longer + 1, head=False)[:, -1], atol=1e-2)


def as_the_book(lesson, trunk: nn.Module, parts: Split, epochs: int) -> dict[str, Any]:
    """The book's sections 6.5 to 6.7 with nothing of the library but tokenizer and trunk: ids, torch, plain loops."""
    encode = tokens.gpt2().encode
    width = max(len(encode(row.text)) for row in parts.train)
    sets = [[(torch.tensor(lesson["filled"](encode(row.text), width, 50256)), int(row.label == "spam")) for row in rows]
            for rows in parts.parts().values()]  # fmt: skip
    loaders = [
        DataLoader(rows, batch_size=8, shuffle=not place, drop_last=not place) for place, rows in enumerate(sets)
    ]
    torch.manual_seed(123)
    head = nn.Linear(8, 2)
    trunk.requires_grad_(False)
    trunk.blocks[-1].requires_grad_(True)
    trunk.norm.requires_grad_(True)

    def logits(ids):
        return head(trunk(ids, head=False)[:, -1])

    @torch.no_grad()
    def accuracy(loader, most=None):
        pairs = [(logits(ids).argmax(dim=1), labels) for ids, labels in islice(loader, most)]
        return 100 * sum(int((a == b).sum()) for a, b in pairs) / sum(len(b) for _, b in pairs)

    @torch.no_grad()
    def loss(loader):
        values = [F.cross_entropy(logits(ids), labels).item() for ids, labels in islice(loader, 5)]
        return sum(values) / len(values)

    torch.manual_seed(123)
    found: dict[str, Any] = {"accuracy at first": [accuracy(one, 10) for one in loaders]}
    found["loss at first"] = [loss(one) for one in loaders]
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters()], lr=5e-5, weight_decay=0.1)
    step = 0
    for _ in range(epochs):
        for ids, labels in loaders[0]:
            optimizer.zero_grad()
            F.cross_entropy(logits(ids), labels).backward()
            optimizer.step()
            if step % 50 == 0:
                found["loss"] = [loss(one) for one in loaders[:2]]
            step += 1
        for one in loaders[:2]:
            accuracy(one, 5)
    found["accuracy"] = [accuracy(one) for one in loaders]
    return found


def test_the_books_run_draws_and_counts_as_the_book(lesson):
    """C05: beside plain loops, the same random numbers in the same order: every figure is the same."""
    ours = lesson["the_books_run"](build(SMALL, seed=3), few(lesson, 430), epochs=1)  # 53 steps: looked at twice
    theirs = as_the_book(lesson, build(SMALL, seed=3), few(lesson, 430), epochs=1)
    assert ours.keys() == theirs.keys() and list(ours["accuracy"]) == ["train", "validation", "test"]
    for name, values in theirs.items():
        assert list(ours[name].values()) == pytest.approx(values, abs=1e-4), name


def test_the_library_runs_the_recipe(lesson, tmp_path):
    """C05, C06: what the lesson does where there are weights: classify by the book's protocol, then two messages."""
    folder.save_model(tmp_path / "base", build(SMALL, seed=1), tokens.gpt2(), card={})
    found = lesson["by_the_library"](tmp_path / "base", tmp_path / "run", steps=2, device="cpu", threads=1)
    assert 0 <= found["accuracy"]["train"] <= 1 and 0 <= found["accuracy"]["validation"] <= 1
    assert found["test"]["rows"] == 300
    assert len(found["said"]) == 2 and set(found["said"].values()) <= {"spam", "not spam"}
    assert (tmp_path / "run" / "data" / "train.jsonl").read_text(encoding="utf-8").count("\n") == 1045
