"""int8 matrices: the arithmetic by hand, the bound on a product's error, whole networks, and what training keeps."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundup.errors import ModelError
from groundup.model import BigramConfig, ModelConfig, build
from groundup.model import int8 as whole
from groundup.model.int8 import Int8Linear, Int8Table, digits, quantise, to_int8

FAMILIES = ["gpt2", "llama", "qwen3"]
WAYS = pytest.mark.parametrize("quick", [True, False], ids=["quick", "plain"])


def linear(rows: int, columns: int, *, bias: bool = True, seed: int = 1) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(columns, rows, bias=bias)


def take(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two ways to multiply."""
    if quick and not whole.can_multiply():
        pytest.skip("oneDNN has no int8 product here")
    monkeypatch.setattr(whole, "can_multiply", lambda: quick)


def small(family: str, *, tie: bool) -> nn.Module:
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    return build(
        ModelConfig(
            family=family, vocabulary=60, context=12, width=32, layers=2, heads=4, init="torch", tie=tie, **groups
        ),
        seed=1,
    ).eval()


def test_quantising_by_hand():
    """Row 1: scale 2.54 / 127 = 0.02, so 1.0 is 50 and -0.029 is -1.45, rounded -1. Row 2 is four times as coarse."""
    numbers, scale = quantise(torch.tensor([[2.54, 1.0, -0.029], [-10.16, 0.039, 0.041]]))
    assert numbers.tolist() == [[127, 50, -1], [-127, 0, 1]]
    torch.testing.assert_close(scale, torch.tensor([[0.02], [0.08]]))


def test_digits_by_hand():
    """-8127 is written (0 - 63 - 64) ... : with both digits stored 64 higher, -8127 = 128 * (1 - 64) + (1 - 64)."""
    both, step = digits(torch.tensor([[-8127.0, 8127.0, 0.0, 64.0, -65.0]]))
    assert step.tolist() == [[1.0]]
    assert both.tolist() == [[[1, 127, 64, 65, 63]], [[1, 127, 64, 0, 127]]]


def test_digits_hold_fourteen_bits_of_every_row():
    x = torch.randn(40, 300, generator=torch.Generator().manual_seed(2)) * torch.logspace(-6, 6, 40)[:, None]
    both, step = digits(x)
    assert both.dtype == torch.uint8 and int(both.max()) < 128
    value = (128 * (both[0].double() - 64) + both[1].double() - 64) * step.double()
    assert bool(((value - x.double()).abs() <= 0.501 * step.double()).all())  # half a step, and a float's rounding
    torch.testing.assert_close(step * 8127, x.abs().amax(dim=1, keepdim=True))


@WAYS
def test_whole_numbers_multiply_exactly(quick: bool, monkeypatch: pytest.MonkeyPatch):
    """Input and matrix that 14 and 8 bits hold exactly: (127 * 8127 - 2) / 127 * ... is all done in whole numbers."""
    take(quick, monkeypatch)
    layer = linear(2, 3)
    layer.weight.data = torch.tensor([[127.0, -2.0, 5.0], [0.0, 1.0, 127.0]])
    layer.bias.data = torch.tensor([7.0, -7.0])
    x = torch.tensor([[8127.0, 1.0, -3.0], [0.0, 0.0, 0.0]])
    assert Int8Linear(layer)(x).tolist() == [[127 * 8127 - 2 - 15 + 7, 1 - 381 - 7], [7.0, -7.0]]


@WAYS
def test_the_largest_products_do_not_overflow(quick: bool, monkeypatch: pytest.MonkeyPatch):
    """Processors without a 32-bit sum of int8 products cut pairs off at 32,767."""
    take(quick, monkeypatch)
    layer = linear(4, 4096, bias=False)
    layer.weight.data = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None] * torch.full((4, 4096), 127.0)
    x = torch.full((1, 4096), 8127.0)
    want = 127.0 * 8127 * 4096
    torch.testing.assert_close(Int8Linear(layer)(x), torch.tensor([[want, -want, want, -want]]), rtol=1e-6, atol=0)


@WAYS
@pytest.mark.parametrize("shape", [(1,), (16,), (2, 5)])
def test_the_error_of_a_product_is_within_its_bound(quick: bool, shape: tuple, monkeypatch: pytest.MonkeyPatch):
    """|error| <= sum_k (|x_k| scale / 2 + |w_k| step / 2 + scale step / 4): each factor is off by half a unit."""
    take(quick, monkeypatch)
    layer = linear(30, 200)
    x = torch.randn(*shape, 200, generator=torch.Generator().manual_seed(3))
    x[..., 7] *= 50  # an outlier, as GPT-2 has them
    got, want = Int8Linear(layer)(x), F.linear(x.double(), layer.weight.double(), layer.bias.double())
    _, scale = quantise(layer.weight)
    step = x.abs().amax(dim=-1, keepdim=True) / 8127
    bound = x.abs().sum(-1, keepdim=True) * scale.T / 2 + step * layer.weight.abs().sum(1) / 2 + 50 * scale.T * step
    assert bool(((got - want).abs() <= bound + 1e-5).all())
    torch.testing.assert_close(got, F.linear(x, _rounded(layer.weight), layer.bias), rtol=1e-3, atol=2e-2)


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    """What is left of a matrix after quantising."""
    numbers, scale = quantise(weight)
    return numbers * scale


@WAYS
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_network_equals_itself_with_rounded_matrices(
    family: str, tie: bool, quick: bool, monkeypatch: pytest.MonkeyPatch
):
    """The slow twin: round the matrices, then compute in fp32. So only 14-bit inputs make the difference."""
    take(quick, monkeypatch)
    ids = torch.randint(60, (3, 12), generator=torch.Generator().manual_seed(5))
    got, twin = small(family, tie=tie), small(family, tie=tie)
    to_int8(got)
    for module in twin.modules():
        if isinstance(module, nn.Linear) or module is twin.token_table:
            module.weight.copy_(_rounded(module.weight))
    want = twin(ids)
    torch.testing.assert_close(got(ids), want, rtol=0, atol=float(2e-3 * want.abs().max()))
    assert not torch.equal(want, small(family, tie=tie)(ids))


def test_what_a_model_learnt_stays(monkeypatch: pytest.MonkeyPatch):
    """Train a little model to say a round of 30 ids; int8 must not cost 2 % of its perplexity."""
    config = ModelConfig(family="qwen3", vocabulary=30, context=32, width=32, layers=2, heads=4)
    model = build(config, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        start = torch.randint(30, (8, 1), generator=generator)
        ids = (start + 7 * torch.arange(17)) % 30
        ids = ids.where(torch.rand(ids.shape, generator=generator) > 0.1, 3)  # a tenth is noise: the loss stays above 0
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        generator.manual_seed(9)
        before = sum(loss() for _ in range(10)) / 10
        to_int8(model)
        generator.manual_seed(9)
        after = sum(loss() for _ in range(10)) / 10
    assert before < 0.7 * math.log(30)  # it has learnt
    assert abs(after - before) < 0.02


def test_memory_is_a_quarter_of_fp32_and_half_of_bf16():
    """Counted where it can be: a plain matrix and a table; oneDNN's blocks are the same numbers in another order."""
    table = nn.Embedding(50, 64)
    kept = Int8Table(table)
    assert kept._rows.nbytes * 4 == table.weight.nbytes and kept._scale.nbytes == 50 * 4


def test_it_cannot_be_saved_and_a_bigram_has_nothing_to_round():
    model = small("llama", tie=False)
    to_int8(model)
    with pytest.raises(ModelError, match="cannot be saved"):
        model.state_dict()
    with pytest.raises(ModelError, match="no matrices to keep in int8\n.*leave --dtype int8 out"):
        to_int8(build(BigramConfig(vocabulary=5, context=4)))


@WAYS
@torch.inference_mode()
def test_damaged_numbers_stay_visible(quick: bool, monkeypatch: pytest.MonkeyPatch):
    """NaN and inf must not turn into ordinary digits."""
    take(quick, monkeypatch)
    layer = Int8Linear(linear(3, 4))
    for bad in (math.nan, math.inf):
        assert not layer(torch.tensor([[1.0, bad, 2.0, 3.0]])).isfinite().any()
