"""The numbers printed in "Build a Large Language Model (From Scratch)", sections 4.6, 4.7 and 5.1, from its seeds."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model import build
from groundup.model.config import from_name

BOOK = {"tie": False, "qkv_bias": False, "init": "torch"}
BOOK |= {"dropout_embedding": 0.1, "dropout_attention": 0.1, "dropout_shortcut": 0.1}
pytestmark = pytest.mark.slow  # 163 million parameters are drawn


@pytest.fixture(scope="module")
def short():
    """The model of chapter 5, with a context of 256."""
    torch.manual_seed(123)
    return build(from_name("gpt2", context=256, **BOOK)).eval()


def greedy(model, tokens: list[int], count: int) -> list[int]:
    with torch.inference_mode():
        for _ in range(count):
            tokens = [*tokens, int(model(torch.tensor([tokens]))[0, -1].argmax())]
    return tokens


def test_section_4_6_and_4_7():
    torch.manual_seed(123)
    model = build(from_name("gpt2", **BOOK))
    # The first forward pass after the seed, in training mode: also the order of all 37 dropout draws must be right.
    logits = model(torch.tensor([[6109, 3626, 6100, 345], [6109, 1110, 6622, 257]]))  # "Every effort moves you", ...
    assert logits.shape == (2, 4, 50257)
    printed = [
        [[0.3613, 0.4222, -0.0711], [-0.1792, -0.5660, -0.9485], [0.7120, 0.0332, 0.1085], [-1.0076, 0.3418, -0.1190]],
        [[-0.2564, 0.0900, 0.0335], [0.1230, 0.3653, -0.2074], [1.0558, 1.0318, -0.2800], [-0.1565, 0.3926, 0.3288]],
    ]
    torch.testing.assert_close(logits[:, :, :3], torch.tensor(printed), atol=1e-4, rtol=0)
    assert sum(p.numel() for p in model.parameters()) == 163_009_536
    assert model.token_table.weight.shape == model.head_weight.shape == (50257, 768)
    feedforward, attention = model.blocks[0].feedforward, model.blocks[0].attention
    assert sum(p.numel() for p in feedforward.parameters()) == 4_722_432  # exercise 4.1
    assert sum(p.numel() for p in attention.parameters()) == 2_360_064
    # "Hello, I am" and what the untrained model says next
    assert greedy(model.eval(), [15496, 11, 314, 716], 3) == [15496, 11, 314, 716, 27018, 24086, 47843]


def test_section_5_1(short):
    inputs = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])  # "every effort moves", "I really like"
    targets = torch.tensor([[3626, 6100, 345], [588, 428, 11311]])
    with torch.inference_mode():
        logits = short(inputs)
    chances = logits.softmax(dim=-1).gather(2, targets[:, :, None])[:, :, 0]
    printed = [[7.4541e-05, 3.1061e-05, 1.1563e-05], [3.9836e-05, 1.6783e-05, 4.7559e-06]]
    torch.testing.assert_close(chances, torch.tensor(printed), atol=0, rtol=1e-3)
    assert logits.argmax(dim=-1).tolist() == [[16657, 339, 42826], [49906, 29669, 41751]]
    assert F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item() == pytest.approx(10.7722, abs=1e-4)


def test_section_5_1_generates_the_printed_text(short):
    printed = [
        34245,
        5139,
        2492,
        25405,
        17434,
        17853,
        5308,
        3398,
        13174,
        43071,
    ]  # " rentinetic wasnم refres RexMeCHicular stren"
    assert greedy(short, [6109, 3626, 6100, 345], 10) == [6109, 3626, 6100, 345, *printed]
