"""Logits of two programs become figures: by hand, with numbers that are not finite, and put together."""

import math

import pytest
import torch

from groundup.errors import ModelError
from groundup.evaluate.agreement import (
    KL,
    RELATIVE,
    SAID,
    TOP1,
    Agreement,
    compare,
    near_enough,
    same_weights,
    together,
)
from groundup.model import ModelConfig, build


def logs(*rows: list[float]) -> torch.Tensor:
    """Logits whose softmax are these rows: their logarithms."""
    return torch.tensor(rows).log()


def test_one_position_by_hand():
    """p = 1/2 1/4 1/4, q = 1/4 1/2 1/4: KL = 1/2 ln 2 - 1/4 ln 2; logits differ by ln 2, the largest is ln 4."""
    found = compare(logs([0.5, 0.25, 0.25]), logs([0.25, 0.5, 0.25]))
    assert (found.positions, found.top1) == (1, 0.0)
    assert found.largest == pytest.approx(math.log(2), rel=1e-6)
    assert found.relative == pytest.approx(0.5, rel=1e-6)
    assert found.kl == pytest.approx(0.25 * math.log(2), rel=1e-6)


def test_kl_is_of_theirs_from_ours_not_the_other_way():
    """p = 3/4 1/4, q = 1/2 1/2: KL(p, q) = 3/4 ln 3/2 + 1/4 ln 1/2, and KL(q, p) is 1/2 ln 2/3 + 1/2 ln 2."""
    one, other = logs([0.75, 0.25]), logs([0.5, 0.5])
    assert compare(one, other).kl == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), rel=1e-6)
    assert compare(other, one).kl == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), rel=1e-6)


def test_a_constant_added_to_every_logit_changes_no_probability():
    ours = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    found = compare(ours, ours + 5)
    assert found.top1 == 1 and found.kl == pytest.approx(0, abs=1e-12)
    assert found.largest == pytest.approx(5, rel=1e-6)


def test_many_positions_are_those_computed_one_by_one():
    """37 rows do not divide into the slices that the comparison takes."""
    generator = torch.Generator().manual_seed(2)
    ours = torch.randn(37, 11, generator=generator)
    theirs = ours + 0.5 * torch.randn(37, 11, generator=generator)
    found = compare(ours, theirs)
    p, q = ours.double().softmax(-1), theirs.double().softmax(-1)
    assert found.kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9)
    assert found.top1 == float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
    assert found.largest == float((ours.double() - theirs.double()).abs().max())
    assert found.relative == found.largest / float(ours.abs().max())
    parts = together([compare(ours[:10], theirs[:10]), compare(ours[10:], theirs[10:])])
    assert parts.positions == 37 and parts.largest == found.largest
    assert (parts.top1, parts.kl) == (pytest.approx(found.top1), pytest.approx(found.kl))
    assert found.said == pytest.approx(float((p * (p / p.mean(0)).log()).sum(-1).mean()), rel=1e-9)
    assert parts.relative >= found.relative  # each part is measured by its own largest logit


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_numbers_that_are_not_finite_never_agree(value: float, place: int):
    tables = [torch.tensor([[1.0, 2.0], [3.0, 0.0]]) for _ in range(2)]
    tables[place][0, 1] = value
    found = compare(*tables)
    assert found.top1 == 0.5
    assert not same_weights(found)
    assert not same_weights(together([found, compare(tables[place][1:], tables[place][1:])]))
    assert not same_weights(together([compare(tables[place][1:], tables[place][1:]), found]))


def test_all_zero_logits():
    nothing = torch.zeros(2, 3)
    assert compare(nothing, nothing).relative == 0
    assert compare(nothing, nothing + 1).relative == math.inf


@pytest.mark.parametrize("theirs", [torch.zeros(2, 4), torch.zeros(3, 3), torch.zeros(3)])
def test_tables_of_other_shapes_are_refused(theirs: torch.Tensor):
    with pytest.raises(ModelError, match=r"\(2, 3\)"):
        compare(torch.zeros(2, 3), theirs)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ModelError, match=r"\(0, 3\)"):
        compare(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ModelError, match="0 texts"):
        together([])


def test_bounds_are_reached_exactly():
    assert same_weights(Agreement(1, 1.0, 1.0, RELATIVE, 0.0))
    assert not same_weights(Agreement(1, 1.0, 1.0, RELATIVE * 1.01, 0.0))
    for dtype, least in TOP1.items():
        assert near_enough(Agreement(100, least, 9.0, 9.0, 0.0, 2.0), dtype)
        assert not near_enough(Agreement(100, least - 0.01, 9.0, 9.0, 0.0, 2.0), dtype)
    for dtype, most in KL.items():
        assert near_enough(Agreement(100, TOP1.get(dtype, 0.0), 9.0, 9.0, 2 * most, 2.0), dtype)
        assert not near_enough(Agreement(100, 1.0, 9.0, 9.0, 2.02 * most, 2.0), dtype)
        assert near_enough(Agreement(100, 1.0, 9.0, 9.0, math.nan, 2.0), dtype) is False
        assert near_enough(Agreement(100, 1.0, 9.0, 9.0, 0.0), dtype) is False, "what the model says is not known"
        assert near_enough(Agreement(100, 1.0, 9.0, 9.0, math.nan, 0.0), dtype) is False
        assert near_enough(Agreement(100, 1.0, 9.0, 9.0, 5.0, 0.0), dtype) is False, "theirs says what ours does not"
        assert near_enough(Agreement(100, 1.0, 9.0, 9.0, 0.0, SAID / 2), dtype) is None
    assert near_enough(Agreement(1, 0.0, 9.0, 9.0, 9.0, 2.0), "q4_0") is None


def test_what_a_model_says_by_hand():
    """Two positions, each sure of another id: their mean is 1/2 1/2, which says ln 2 nats less than either."""
    sure = torch.tensor([[30.0, 0.0], [0.0, 30.0]])
    assert compare(sure, sure).said == pytest.approx(math.log(2), rel=1e-6)
    same = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    assert compare(same, same).said == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_a_damaged_file_of_a_barely_trained_model_fails(family: str):
    """All matrices of all blocks zeroed, where no position moves by the 0.02 nats that suit a trained model."""
    config = ModelConfig(family=family, vocabulary=290, context=48, width=64, layers=2, heads=4, tie=True)
    model, damaged, rounded = (build(config, seed=6).eval() for _ in range(3))
    for name, parameter in damaged.named_parameters():
        if name.startswith("blocks.") and parameter.dim() == 2:
            parameter.data.zero_()
    rounded.bfloat16().float()
    ids = torch.randint(290, (12, 48), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ours, theirs, near = (one(ids).flatten(0, 1) for one in (model, damaged, rounded))
    lost, kept = compare(ours, theirs), compare(ours, near)
    assert lost.kl < 0.02 and lost.said > 1e-3
    for dtype in KL:
        assert near_enough(lost, dtype) is False
    assert near_enough(kept, "bf16") is True and near_enough(kept, "q8_0") is True
