"""The rung `data_loaders`: batches, orders, the loop, accuracy."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from groundup.batches import Loader, Windows


@pytest.fixture(scope="module")
def rung(climb) -> dict:
    return climb("data_loaders")


def test_batches_hold_every_row_once(rung: dict):
    """X05: five rows in batches of two: two full ones and one of one, each row with its own class."""
    data = rung["Points"](torch.arange(10.0).view(5, 2), torch.arange(5))
    assert len(data) == 5 and data[3][0].tolist() == [6.0, 7.0] and data[3][1] == 3
    batches = list(DataLoader(data, batch_size=2, shuffle=True))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0, 1, 2, 3, 4]
    assert all(torch.equal(rows[:, 0], 2.0 * labels) for rows, labels in batches)
    assert len(list(DataLoader(data, batch_size=2, drop_last=True))) == 2


def test_same_seed_same_order(rung: dict):
    """L09: a seed fixes every epoch's order, in torch's loader and in ours; ours also after other draws in between."""
    torch.manual_seed(7)
    passes = [rung["listed"](rung["every"]) for _ in range(4)]
    torch.manual_seed(7)
    assert [rung["listed"](rung["every"]) for _ in range(4)] == passes
    assert len({str(one) for one in passes}) > 1

    def order(seed: int) -> list[list[int]]:
        drawn = []
        for batch in islice(Loader(Windows(np.arange(21), length=2, stride=2), batch=5, seed=seed), 6):
            torch.rand(3)  # what else draws random numbers does not matter
            drawn.append(batch.tokens[:, 0].tolist())
        return drawn

    assert order(1) == order(1) != order(2)
    epochs = [order(1)[place] + order(1)[place + 1] for place in (0, 2, 4)]  # 10 samples are two batches
    assert all(sorted(epoch) == list(range(0, 20, 2)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_training_steps_by_hand(rung: dict):
    """X06: the loop's losses and weights are those of p - g * rate written out, without optimizer or loader object."""
    torch.manual_seed(123)
    network = nn.Sequential(nn.Linear(2, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2))
    weights, losses = list(network.parameters()), []
    for _ in range(3):
        for rows, labels in rung["loader"]:
            scores = network(rows)
            loss = (scores.logsumexp(dim=1) - scores[torch.arange(2), labels]).mean()
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data -= 0.5 * slope
            losses.append(loss.item())
    assert losses == pytest.approx(rung["losses"], abs=1e-5)
    torch.testing.assert_close(weights, list(rung["network"].parameters()))
    assert losses[-1] < 0.01 < losses[0]


def test_accuracy_counts_rows(rung: dict):
    """X06: accuracy is a share of rows: 3 of 5, though the batches have 2, 2 and 1 of them."""

    class Says(nn.Module):
        """Class 1 for every row."""

        def forward(self, rows: Tensor) -> Tensor:
            return F.one_hot(torch.ones(len(rows), dtype=torch.long), 2)

    data = rung["Points"](torch.zeros(5, 2), torch.tensor([1, 0, 1, 0, 1]))
    assert rung["accuracy"](Says(), DataLoader(data, batch_size=2)) == 0.6
