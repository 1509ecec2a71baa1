"""The rung `first_network`: forwards by hand, parameters counted, weights kept."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from groundup.checkpoint.folder import write_tensors
from groundup.model import build
from groundup.model.config import count_parameters, from_name


@pytest.fixture(scope="module")
def rung(climb) -> dict:
    return climb("first_network")


def test_forward_by_hand(rung: dict):
    """X04: layers, clipping at zero and softmax on numbers that can be worked out on paper."""
    network = rung["NeuralNetwork"](2, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first, second, last = (network.layers[place] for place in (0, 2, 4))
        first.weight[0] = torch.tensor([1.0, -1.0])  # x - y, cut off at zero
        second.weight[0, 0], second.bias[1] = 2.0, -3.0  # doubled; the other one is cut off
        last.weight[1, 0], last.weight[0, 1], last.bias[0] = 1.0, 5.0, 1.0
        scores = network(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
    assert scores.tolist() == [[1.0, 4.0], [1.0, 0.0]]
    assert scores.grad_fn is None  # made under no_grad
    one = 1 / (1 + torch.exp(torch.tensor([-3.0, 1.0])))
    torch.testing.assert_close(torch.softmax(scores, dim=1)[:, 1], one)
    torch.testing.assert_close(rung["by_hand"](network, torch.rand(4, 2)).shape, (4, 2))


def test_forward_equals_the_plain_formula(rung: dict):
    """X04: the network and its formula agree on any rows, and the same seed gives the same network."""
    rows = torch.randn(7, 50)
    torch.testing.assert_close(rung["by_hand"](rung["network"], rows), rung["network"](rows))
    torch.manual_seed(123)
    assert torch.equal(rung["NeuralNetwork"](50, 3).layers[4].weight, rung["network"].layers[4].weight)


def test_parameter_count(rung: dict):
    """X07: 2 -> 30 -> 20 -> 2 has 752 numbers by formula and by counting; frozen ones do not count."""
    network = rung["NeuralNetwork"](2, 2)
    assert rung["by_formula"](2, 30, 20, 2) == rung["parameters"](network) == 752
    network.layers[0].weight.requires_grad_(False)
    assert rung["parameters"](network) == 752 - 60
    config = from_name("1m", vocabulary=65, tie=False)
    assert count_parameters(config).total == rung["parameters"](build(config, seed=0))


def test_saved_and_loaded_gives_the_same_outputs(rung: dict, tmp_path: Path):
    """X08: a fresh network differs, and with the saved weights it gives the same outputs to the bit."""
    network, fresh = rung["NeuralNetwork"](2, 2), rung["NeuralNetwork"](2, 2)
    rows = torch.randn(5, 2)
    assert not torch.equal(network(rows), fresh(rows))
    write_tensors(tmp_path / "weights.safetensors", network.state_dict())
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(network(rows), fresh(rows))
    with pytest.raises(RuntimeError, match="size mismatch"):
        rung["NeuralNetwork"](3, 2).load_state_dict(network.state_dict())
    assert isinstance(network, nn.Module)
