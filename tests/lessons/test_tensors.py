"""The rung `tensors`: strides, products, versions and devices."""

import json

import pytest
import torch

from groundup import cli
from groundup.batches import next_token
from groundup.machine import devices


@pytest.fixture(scope="module")
def rung(climb) -> dict:
    return climb("tensors")


def test_one_command_prints_versions_and_devices(capsys: pytest.CaptureFixture[str]):
    """X01: `groundup info` names the installed torch and every device it can use, on the page and as JSON."""
    assert cli.main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [device["kind"] for device in told["devices"]] == devices()
    assert devices()[0] == "cpu" and ("cuda" in devices()) == torch.cuda.is_available()
    assert cli.main(["info"]) == 0
    page = capsys.readouterr().out
    assert all(word in page for word in ("groundup", "python", told["versions"]["torch"], *devices()))


def test_values_of_tensor_operations(rung: dict):
    """X02: formats, strides, turning and products have the values worked out by hand."""
    table = torch.arange(24).view(2, 3, 4)
    turned = table.permute(2, 0, 1)  # (2, 3, 4) -> (4, 2, 3)
    memory = table.flatten().tolist()
    for place in ((0, 0, 0), (3, 1, 2), (2, 0, 1)):
        assert rung["at"](memory, turned.stride(), place) == turned[place].item()
    assert rung["at"]([5, 6, 7, 8], (2, 1), (0, 1), start=1) == 7
    assert rung["product"].tolist() == [[1 + 4 + 9, 4 + 10 + 18], [4 + 10 + 18, 16 + 25 + 36]]
    assert (torch.tensor([1]).dtype, torch.tensor([1.0]).dtype) == (torch.int64, torch.float32)

    ids = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    batch = next_token(ids)
    assert batch.tokens.tolist() == [[3, 1, 4], [5, 9, 2]] and batch.fields["targets"].tolist() == [
        [1, 4, 1],
        [9, 2, 6],
    ]
    ids[0, 1] = 7  # no copy: both see it
    assert batch.tokens[0, 1] == 7 and batch.fields["targets"][0, 0] == 7
