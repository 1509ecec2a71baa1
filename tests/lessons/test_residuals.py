"""Shortcuts, LayerNorm and dropout: row M15 of the coverage, on the library's blocks."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model import ModelConfig, build
from groundup.model.dropout import Dropout

SMALL = {"family": "gpt2", "vocabulary": 65, "context": 8, "width": 32, "heads": 4, "tie": False, "init": "torch"}


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    """The variables of the rung."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        return climb("residuals")


def test_a_shortcut_passes_everything_on(lesson):
    """M15: a block whose parts answer 0 returns what came in, and its gradient is 1; 12 blocks reach the first."""
    block = build(ModelConfig(**SMALL, layers=1), seed=1).blocks[0]
    with torch.no_grad():
        for part in (block.attention.out, block.feedforward.down):
            part.weight.zero_()
            part.bias.zero_()
    x = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    answer = block(x, None, None, None)
    assert torch.equal(answer, x)
    answer.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))

    deep = build(ModelConfig(**SMALL, layers=12), seed=1)
    ids = torch.arange(8)[None]
    F.cross_entropy(deep(ids).flatten(0, 1), ids.flatten() + 1).backward()
    sizes = [block.attention.qkv.weight.grad.norm() for block in deep.blocks]
    assert sizes[0] > sizes[-1] / 10
    plain = lesson["sizes"]["plain"]
    assert plain[0] < plain[-1] / 100  # without shortcuts six blocks are enough to lose it


def test_layer_norm_brings_each_vector_to_mean_0_and_variance_1(lesson):
    """M15: by hand on 1, 2, 3, 6 (mean 3, variance 14 / 4), with gain and shift; the library's norm is the same."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 6.0]]])
    norm = lesson["Norm"](4)
    expected = torch.tensor([-2.0, -1.0, 0.0, 3.0]) / (3.5 + 1e-5) ** 0.5
    torch.testing.assert_close(norm(x)[0, 0], expected)
    with torch.no_grad():
        norm.gain.fill_(2.0)
        norm.shift.fill_(5.0)
    torch.testing.assert_close(norm(x)[0, 0], 2 * expected + 5)

    config = ModelConfig(**{**SMALL, "width": 4, "heads": 2}, layers=1)
    block = build(config, seed=1).blocks[0]
    torch.testing.assert_close(block.attention_norm(x)[0, 0], expected)
    torch.testing.assert_close(block.feedforward_norm(x)[0, 0], expected)


@pytest.mark.parametrize("by_torch", [True, False])
def test_dropout_keeps_the_mean_and_is_off_in_use(lesson, by_torch):
    """M15: about a fifth is dropped, survivors are 1.25, the mean stays; a model in use drops nothing."""
    torch.manual_seed(1)
    for layer in (Dropout(0.2, by_torch=by_torch), lesson["Drop"](0.2)):
        dropped = layer(torch.ones(200_000))
        assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
        assert dropped[dropped > 0].unique().tolist() == pytest.approx([1.25], rel=1e-4)
        assert dropped.mean().item() == pytest.approx(1, abs=0.01)
        assert torch.equal(layer.eval()(dropped), dropped)

    rates = {"dropout_embedding": 0.2, "dropout_attention": 0.2, "dropout_shortcut": 0.2}
    settings = SMALL | {"init": "torch" if by_torch else "gpt2"} | rates
    model = build(ModelConfig(**settings, layers=2), seed=1)
    ids = torch.arange(8)[None]
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_the_hand_made_blocks_are_the_library_s(lesson):
    """M15: six blocks with shortcuts and LayerNorm give the library's logits and its gradients."""
    ours, theirs = lesson["Model"](shortcut=True, norm=True), lesson["library"]()
    ids = torch.tensor([[5, 17, 42, 9, 3, 0, 64, 1]])
    for model in (ours, theirs):
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    torch.testing.assert_close(ours(ids), theirs(ids))
    first, other = ours.blocks[0], theirs.blocks[0]
    torch.testing.assert_close(first.attention.qkv.weight.grad, other.attention.qkv.weight.grad)
    torch.testing.assert_close(first.attention_norm.gain.grad, other.attention_norm.weight.grad)
    assert lesson["final"]["plain"] > lesson["final"]["shortcuts and LayerNorm"] + 0.3
