"""The two baselines: shares, rarities and the minimum worked out apart, with numpy or by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import DataError
from groundup.evaluate import baseline
from groundup.evaluate.baseline import PENALTY, Bag, baselines, logits, regression
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.stages import examine
from groundup.text.labelled import Labelled, Split

TRAIN = [("free cash, free prize", "spam"), ("see you at home", "ham"), ("are you at home?", "ham"), ("hi", "ham")]


def test_the_majority_by_hand():
    """Three of four are ham: every row is called ham, with p = 3/4."""
    found = baselines(TRAIN, [("x", "ham"), ("y", "spam"), ("z", "spam")], labels=["ham", "spam"]).majority
    assert found.confusion == ((1, 0), (2, 0)) and found.accuracy == pytest.approx(1 / 3)
    assert found.loss == pytest.approx(-(math.log(3 / 4) + 2 * math.log(1 / 4)) / 3)
    assert found.never_predicted == ("spam",)


def test_words_and_their_rarity_by_hand():
    """Of 4 texts, 2 hold "you" and 1 holds "free": that it stands there twice counts for nothing here."""
    bag = Bag([text for text, _ in TRAIN])
    rare = dict(zip(bag.words, bag.rarity, strict=True))
    assert len(bag) == 11 and {",", "?", "free", "hi"} <= rare.keys()
    assert rare["you"] == pytest.approx(math.log(5 / 3) + 1) and rare["free"] == pytest.approx(math.log(5 / 2) + 1)


def test_a_text_becomes_a_vector_of_length_one():
    bag = Bag([text for text, _ in TRAIN])
    numbers, weights, starts = bag.rows(["Free FREE cash unheard", "unheard", "you"])
    assert starts.tolist() == [0, 2, 2]  # the second has no known word
    assert numbers.tolist() == [bag.words["free"], bag.words["cash"], bag.words["you"]]
    assert weights.tolist() == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5), 1.0])  # both equally rare


def dense(rows, width: int) -> np.ndarray:
    numbers, weights, starts = (part.numpy() for part in rows)
    table = np.zeros((len(starts), width))
    for text, (begin, end) in enumerate(zip(starts, [*starts[1:], len(numbers)], strict=True)):
        table[text, numbers[begin:end]] = weights[begin:end]
    return table


def test_the_regression_stands_at_its_minimum():
    """The derivative of loss and penalty, written out with numpy, is 0 there; so it is at no other place."""
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(generator.choice(words, 5)) for _ in range(60)]
    truth = generator.integers(0, 3, 60)
    bag = Bag(texts)
    rows = bag.rows(texts)
    weights, bias = regression(*rows, torch.tensor(truth), words=len(bag), classes=3)
    x = dense(rows, len(bag))
    scores = x @ weights.numpy() + bias.numpy()
    np.testing.assert_allclose(logits(*rows, weights, bias).numpy(), scores, atol=1e-12)
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wrong = p - np.eye(3)[truth]
    np.testing.assert_allclose(x.T @ wrong + PENALTY * weights.numpy(), 0, atol=1e-4)
    np.testing.assert_allclose(wrong.sum(0), 0, atol=1e-4)
    assert np.abs(weights.numpy()).max() > 0.1


def test_many_classes_leave_room_for_fewer_words(monkeypatch: pytest.MonkeyPatch):
    """23 weights and two classes: eleven words at most; with eight weights the four that stand in most texts."""
    assert baselines(TRAIN, TRAIN, labels=["ham", "spam"]).features == 11
    monkeypatch.setattr(baseline, "MOST_WEIGHTS", 8)
    found = baselines([*TRAIN, ("hi", "ham")], TRAIN, labels=["ham", "spam"])
    assert found.features == 4
    assert set(Bag([*(text for text, _ in TRAIN), "hi"], most=4).words) == {"you", "at", "home", "hi"}
    monkeypatch.setattr(baseline, "MOST_WEIGHTS", 1)
    assert baselines(TRAIN, TRAIN, labels=["ham", "spam"]).features == 1


def test_the_search_remembers_few_steps(monkeypatch: pytest.MonkeyPatch):
    """Each step that is remembered costs two tables of words x classes; torch would keep a hundred."""
    seen = []
    real = torch.optim.LBFGS

    def watched(*args, **more):
        seen.append(real(*args, **more))
        return seen[-1]

    monkeypatch.setattr(torch.optim, "LBFGS", watched)
    baselines(TRAIN, TRAIN, labels=["ham", "spam"])
    assert seen[0].param_groups[0]["history_size"] == 10


def test_marks_are_safe_before_the_baselines_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where memory ends there, test.json has the marks; the next call adds the baselines and judges nothing again."""
    rows = [Labelled(text, label, where=f"row {n}") for n, (text, label) in enumerate(TRAIN)]
    tokenizer = tokens.train("bpe", [row.text for row in rows], vocabulary=270)
    trunk = build(ModelConfig(family="llama", vocabulary=270, context=32, width=16, layers=1, heads=2), seed=1)
    model = Classifier(trunk, HeadConfig(labels=("ham", "spam")), seed=3)
    folder.save_model(tmp_path / "best", model, tokenizer, card={"settings": {"device": "cpu", "threads": 1}})

    def ends(*args, **more):
        raise MemoryError

    monkeypatch.setattr(examine, "baselines", ends)
    with pytest.raises(MemoryError):
        examine.once(tmp_path, Split(rows, rows, rows))
    kept = json.loads((tmp_path / "test.json").read_text(encoding="utf-8"))
    assert kept["rows"] == 4 and kept["baselines"] == {} and examine.words(kept)[0].startswith("test")
    monkeypatch.setattr(examine, "baselines", baselines)
    monkeypatch.setattr(examine, "judged", ends)
    for _ in range(2):
        found = examine.once(tmp_path, Split(rows, rows, rows))
        assert found["baselines"] == {"majority": 0.75, "bag of words": 0.75}  # one spam among four
        assert {**found, "baselines": {}} == kept


def test_without_a_known_word_the_bias_gives_the_shares():
    """Texts without words: p of each class is its share of the rows, 3/4 and 1/4."""
    found = baselines([("", "ham"), ("", "ham"), (" ", "ham"), ("", "spam")], [("", "ham")], labels=["ham", "spam"])
    assert found.features == 0 and found.words.loss == pytest.approx(-math.log(3 / 4), rel=1e-4)


def test_words_tell_what_they_can_tell_and_no_order():
    rows = [("dog bites man", "usual"), ("man bites dog", "news")] * 5
    found = baselines(rows, rows, labels=["usual", "news"])
    assert found.words.accuracy == 0.5 and found.words.loss == pytest.approx(math.log(2), rel=1e-4)
    told = baselines(TRAIN * 5, [("free prize", "spam"), ("at home", "ham")], labels=["ham", "spam"])
    assert told.words.accuracy == 1.0 and told.features == 11
    assert told.record()["majority_accuracy"] == 0.5 and told.record()["words_accuracy"] == 1.0


def test_the_same_rows_give_the_same_numbers():
    one, other = (baselines(TRAIN, TRAIN, labels=["ham", "spam"]) for _ in range(2))
    assert one == other


def test_a_class_that_training_never_saw():
    found = baselines(TRAIN, [("hola", "other"), ("hi", "ham")], labels=["ham", "other", "spam"])
    assert math.isfinite(found.majority.loss) and found.majority.accuracy == 0.5


def test_rows_that_cannot_be_judged():
    with pytest.raises(DataError, match="row 2 has the class 'eggs'"):
        baselines(TRAIN, [("a", "ham"), ("b", "eggs")], labels=["ham", "spam"])
    with pytest.raises(DataError, match="4 rows to learn from and 0 to judge"):
        baselines(TRAIN, [], labels=["ham", "spam"])


def test_real_messages(data_dir):
    """The SMS Spam Collection: words alone find nine of ten spams and hardly ever take a message for one."""
    lines = (data_dir / "sms-spam" / "SMSSpamCollection").read_text(encoding="utf-8").splitlines()
    rows = list(dict.fromkeys((text, label) for label, _, text in (line.partition("\t") for line in lines)))
    found = baselines(rows[1500:], rows[:1500], labels=["ham", "spam"])
    assert 0.8 < found.majority.accuracy < 0.9
    (_, false), (missed, caught) = found.words.confusion
    assert found.words.accuracy > 0.97 and caught > 4 * missed and false <= 5
