"""LoRA by hand: nothing at first, one matrix in the end, few numbers in between; and the library's own beside it."""

import copy

import pytest
import torch
from torch import nn

from groundup import tokens
from groundup.checkpoint import adapters, folder
from groundup.model import build, lora
from groundup.model.config import ModelConfig
from groundup.model.lora import LoraConfig

SMALL = ModelConfig(family="gpt2", vocabulary=50257, context=128, width=32, layers=2, heads=2)
X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("low_rank")


def test_it_begins_as_the_base_and_learns(lesson):
    """R05: bit for bit the frozen layer at first; only B has a gradient then, and after a step the answer moves."""
    plain = nn.Linear(6, 4)
    layer = lesson["LowRank"](plain, rank=2, alpha=4)
    assert torch.equal(layer(X), plain(X)) and layer.scale == 2
    layer(X).square().sum().backward()
    assert plain.weight.grad is None and not layer.A.grad.any() and layer.B.grad.any()
    torch.optim.SGD([layer.A, layer.B], lr=0.1).step()
    assert not torch.allclose(layer(X), plain(X))


def test_merged_is_the_same(lesson):
    """R05: W + (alpha / r) B A, worked by hand and for a layer that has learnt; the base layer itself stays."""
    plain = nn.Linear(2, 2)
    plain.weight.data, plain.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2)
    layer = lesson["LowRank"](plain, rank=1, alpha=3)
    layer.A.data, layer.B.data = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0], [0.5]])
    assert layer.merged().weight.tolist() == [[7.0, -4.0], [4.5, 2.5]]
    assert plain.weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    torch.testing.assert_close(
        lesson["one"](lesson["layer"].linear.weight), lesson["layer"](lesson["layer"].linear.weight)
    )
    with torch.no_grad():
        torch.testing.assert_close(lesson["merged"](lesson["row"]), lesson["small"](lesson["row"]), rtol=0, atol=1e-5)


def test_few_numbers_learn(lesson):
    """R05: by hand rank x (I + O) for every matrix; a run moves none of the others."""
    sizes = {"query": 128, "key": 128, "value": 128, "out": 128, "up": 64 + 256, "down": 256 + 64}
    assert lesson["learning"](lesson["small"]) == 2 * 4 * sum(sizes.values()) == 9216
    assert lesson["learning"](lesson["base"]) > 10 * 9216
    with torch.no_grad(), lora.off(lesson["small"]):
        assert torch.equal(lesson["small"](lesson["row"]), lesson["base"](lesson["row"]))
    before, full, adapted = (lesson["measured"](lesson[name], "town") for name in ("base", "full", "merged"))
    assert full < adapted < before - 0.1


def test_three_targets_in_one_matrix_equal_the_librarys(lesson):
    """R05: adapters by hand with the library's A and B give the library's logits, and its count."""
    base = build(SMALL, seed=1).eval()
    ours = lora.add(copy.deepcopy(base), LoraConfig(rank=3, alpha=6), seed=2).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in lora.parameters(ours).values():
            value.copy_(torch.randn(value.shape, generator=generator) / 5)
    hand = lesson["adapt"](copy.deepcopy(base).requires_grad_(False), 3, 6)
    assert lesson["learning"](hand) == lesson["learning"](ours)
    with torch.no_grad():
        ids = torch.tensor([[1, 2, 3, 4]])
        torch.testing.assert_close(hand(ids), base(ids))  # still as the base
        for name, layer in lora.adapted(ours).items():
            mine = hand.get_submodule(name)
            for low, part in zip(getattr(mine, "parts", [mine]), layer.parts, strict=True):
                low.A.copy_(layer.A[part.name])
                low.B.copy_(layer.B[part.name])
        torch.testing.assert_close(hand(ids), ours(ids), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(hand(ids), base(ids), atol=1e-3)


def test_the_picture_shows_the_rank(lesson):
    """R05: the change of the adapters has four directions, that of full tuning all 64."""
    full, low = (line.get_ydata() for line in lesson["left"].lines)
    assert sum(value > 1e-4 for value in low) == 4 and sum(value > 1e-4 for value in full) == 64
    assert list(full) == sorted(full, reverse=True)


def test_the_library_runs_the_recipe(lesson, tmp_path):
    """R05: what the lesson does where there are weights: the book's protocol with adapters, which alone are kept."""
    folder.save_model(tmp_path / "base", build(SMALL, seed=1), tokens.gpt2(), card={})
    found = lesson["by_the_library"](tmp_path / "base", tmp_path / "run", steps=2, device="cpu", threads=1)
    assert list(found) == ["train", "validation", "test"] and all(0 <= value <= 100 for value in found.values())
    kept = tmp_path / "run" / "best"
    assert adapters.is_adapter(kept) and not list(kept.glob("model*.safetensors"))
