"""What a classifier must beat: always saying the most frequent class, and counting words.

In: texts and their classes, of the training rows and of the rows to judge. Out: `Baselines`. A bag of words knows no
order: what a network reaches beyond it is what reading brings.

Shapes: N texts, W words, C classes.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import DataError
from groundup.evaluate.classes import Marks, Tally

WORD = re.compile(r"\w+|[^\w\s]")  # a run of letters and digits, or one sign
MOST_WORDS = 50_000  # the most frequent ones; a text of a million words must not become a table of a million rows
MOST_WEIGHTS = 10_000_000  # words times classes, 80 MB; the search for the minimum holds about thirty such tables
HISTORY = 10  # steps that L-BFGS remembers, two tables each; its default of 100 fills the memory of a computer
PENALTY = 1.0  # on half the squared weights, against the sum of the losses: scikit-learn's C = 1
ROUNDS = 200

Rows = Sequence[tuple[str, str]]  # text, class


@dataclass(frozen=True)
class Baselines:
    """Marks of the two on the rows to judge.

    majority: every row is given the most frequent class of the training rows, with the shares seen there.
    words: logistic regression on the words of a text, weighed by rarity; `features` is how many words it knows, the
    most frequent ones where there are more than MOST_WORDS, or more than MOST_WEIGHTS weights.
    """

    majority: Marks
    words: Marks
    features: int

    def record(self) -> dict[str, float]:
        """The numbers beside the model's own."""
        return {
            "majority_accuracy": self.majority.accuracy,
            "words_accuracy": self.words.accuracy,
            "words_macro_f1": self.words.macro_f1,
        }


def baselines(train: Rows, test: Rows, *, labels: Sequence[str]) -> Baselines:
    """Learn both from `train`, judge them on `test`; rows are (text, class), classes those of `labels`.

    Deterministic, some seconds for thousands of messages. Of a pair of texts, join the two. Raises DataError for a row
    whose class is none of `labels`, and without rows.

    >>> train = [("win cash now", "spam"), ("see you at home", "ham"), ("are you at home", "ham")] * 9
    >>> found = baselines(train, [("you win cash", "spam"), ("home now", "ham")], labels=["ham", "spam"])
    >>> found.majority.accuracy, found.words.accuracy
    (0.5, 1.0)
    """
    if not train or not test:
        raise DataError(
            f"there are {len(train)} rows to learn from and {len(test)} to judge", "give at least one of each"
        )
    classes = list(labels)
    known, true = _numbers(train, classes), _numbers(test, classes)
    shares = torch.bincount(known, minlength=len(classes)).double() / len(known)
    majority = Tally(classes)
    # a class that was never seen has no chance at all: as good as none keeps the loss finite
    majority.add(shares.clamp(min=1e-9).log().expand(len(true), -1), true)
    bag = Bag([text for text, _ in train], most=min(MOST_WORDS, max(1, MOST_WEIGHTS // len(classes))))
    weights, bias = regression(*bag.rows([text for text, _ in train]), known, words=len(bag), classes=len(classes))
    words = Tally(classes)
    words.add(logits(*bag.rows([text for text, _ in test]), weights, bias), true)
    return Baselines(majority.marks(), words.marks(), len(bag))


class Bag:
    """Which words there are, and how rare each is among the texts (idf = ln((1 + N) / (1 + N with it)) + 1).

    >>> bag = Bag(["You win!", "you lose"])
    >>> len(bag), bag.words
    (4, {'you': 0, 'win': 1, '!': 2, 'lose': 3})
    """

    def __init__(self, texts: Sequence[str], *, most: int = MOST_WORDS) -> None:
        found: Counter[str] = Counter()
        for text in texts:
            found.update(list(dict.fromkeys(WORD.findall(text.lower()))))  # each once, in order of appearance
        kept = found.most_common(most)  # of equally frequent ones the first seen
        self.words = {word: number for number, (word, _) in enumerate(kept)}
        self.rarity = [math.log((1 + len(texts)) / (1 + count)) + 1 for _, count in kept]

    def __len__(self) -> int:
        return len(self.words)

    def rows(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Texts as one flat list: words by number, what each weighs, and where each text begins (N,).

        A word weighs its count times its rarity, and each text has length 1; unknown words are left out.
        """
        numbers: list[int] = []
        weights: list[float] = []
        starts: list[int] = []
        for text in texts:
            starts.append(len(numbers))
            counts = Counter(word for word in WORD.findall(text.lower()) if word in self.words)
            known = [self.words[word] for word in counts]
            weighed = [count * self.rarity[number] for number, count in zip(known, counts.values(), strict=True)]
            length = math.hypot(*weighed) or 1.0
            numbers += known
            weights += [weight / length for weight in weighed]
        return (
            torch.tensor(numbers, dtype=torch.int64),
            torch.tensor(weights, dtype=torch.float64),
            torch.tensor(starts, dtype=torch.int64),
        )


def logits(numbers: Tensor, weighed: Tensor, starts: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Logits (N, C) of texts as `Bag.rows` gives them; weights (W, C), bias (C,)."""
    sums: Tensor = F.embedding_bag(numbers, weights, starts, mode="sum", per_sample_weights=weighed)
    return sums + bias


def regression(
    numbers: Tensor, weighed: Tensor, starts: Tensor, truth: Tensor, *, words: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Weights (W, C) and bias (C,) of multinomial logistic regression, in float64.

    They are where sum of -log p(truth) + PENALTY / 2 |weights|^2 is smallest (Bishop 2006, section 4.3.4); the bias is
    not held back. The function is convex, so that L-BFGS finds the one minimum from anywhere.
    """
    weights = torch.zeros(max(words, 1), classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights, bias],
        max_iter=ROUNDS,
        history_size=HISTORY,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(logits(numbers, weighed, starts, weights, bias), truth, reduction="sum")
        total = loss + PENALTY / 2 * weights.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        search.step(objective)
    return weights.detach(), bias.detach()


def _numbers(rows: Rows, labels: list[str]) -> Tensor:
    """The classes of rows as numbers (N,)."""
    place = {label: number for number, label in enumerate(labels)}
    for number, (_, label) in enumerate(rows):
        if label not in place:
            raise DataError(
                f"row {number + 1} has the class {label!r}", f"the classes are: {', '.join(map(str, labels[:20]))}"
            )
    return torch.tensor([place[label] for _, label in rows], dtype=torch.int64)
