"""The network: who sees whom, what is drawn, what is refused; the fast attention equals the one written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from groundup.errors import ModelError
from groundup.model import build
from groundup.model.config import FAMILIES, ModelConfig, RopeScaling
from groundup.model.gpt import attention, attention_by_hand, rotate, rotation_at, visible

SMALL = {"vocabulary": 40, "context": 16, "width": 24, "layers": 2, "heads": 4, "init": "torch", "tie": False}
FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))


def small(family: str, **changes) -> ModelConfig:
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    return ModelConfig(family=family, **SMALL | groups | changes)


def ids(rows: int, time: int, seed: int = 5) -> torch.Tensor:
    return torch.randint(40, (rows, time), generator=torch.Generator().manual_seed(seed))


# --- who sees whom -----------------------------------------------------------------------------------------------


@FAMILY
@torch.inference_mode()
def test_nobody_sees_the_future(family):
    model, tokens = build(small(family), seed=1).eval(), ids(1, 9)
    before = model(tokens)
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 40
    after = model(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert (after[:, 5:] - before[:, 5:]).abs().amax(dim=2).min() > 1e-4  # itself and everyone later does


@FAMILY
@torch.inference_mode()
def test_packed_documents_equal_documents_alone(family):
    model = build(small(family), seed=1).eval()
    one, two = ids(1, 5, seed=1), ids(1, 8, seed=2)
    packed = torch.cat((one, two), dim=1)
    places = torch.cat((torch.arange(5), torch.arange(8)))[None]
    together = model(packed, positions=places, documents=torch.tensor([[7] * 5 + [3] * 8]))
    torch.testing.assert_close(together, torch.cat((model(one), model(two)), dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.inference_mode()
def test_with_rotary_positions_only_the_distance_counts(family):
    model, tokens = build(small(family), seed=1).eval(), ids(2, 8)
    shifted = model(tokens, positions=torch.arange(8)[None] + 8)
    torch.testing.assert_close(shifted, model(tokens), atol=1e-5, rtol=1e-5)


@FAMILY
@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_filler_changes_nothing(family, side):
    model, real = build(small(family), seed=1).eval(), ids(1, 6)
    filler = torch.full((1, 4), 39)
    tokens = torch.cat((filler, real) if side == "left" else (real, filler), dim=1)
    padding = torch.arange(10)[None] >= 4 if side == "left" else torch.arange(10)[None] < 6
    seen = model(tokens, padding=padding)
    assert seen.isfinite().all()
    torch.testing.assert_close(seen[padding], model(real)[0], atol=1e-5, rtol=1e-5)


@FAMILY
def test_filler_gives_finite_gradients(family):
    model, tokens = build(small(family, dropout_attention=0.2), seed=1), ids(2, 6)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])  # one row is nothing but filler
    model(tokens, padding=padding).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_filler_sees_itself_so_that_no_softmax_is_over_nothing():
    """Some attention kernels answer an empty row with NaN, and NaN times 0 spreads to everyone in the backward pass."""
    padding = torch.tensor([[False, False, True]])
    mask = visible(torch.zeros(1, 3, dtype=torch.long), start=0, documents=None, padding=padding)
    assert mask[0, 0].tolist() == [[True, False, False], [False, True, False], [False, False, True]]


@FAMILY
@torch.inference_mode()
def test_without_the_head_the_states_come_out(family):
    model, tokens = build(small(family), seed=1).eval(), ids(2, 5)
    states = model(tokens, head=False)
    assert states.shape == (2, 5, 24)
    torch.testing.assert_close(states @ model.head_weight.T, model(tokens))


# --- attention ---------------------------------------------------------------------------------------------------


@st.composite
def attention_inputs(draw):
    """Queries, keys, values and a mask (or None) of any small shape; every query sees something."""
    batch, kv_heads, shared = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    time, held, size = draw(st.integers(1, 6)), draw(st.integers(0, 5)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    q = torch.randn(batch, kv_heads * shared, time, size, generator=generator)
    k, v = torch.randn(2, batch, kv_heads, held + time, size, generator=generator)
    plain = held == 0 or time == 1
    if plain and draw(st.booleans()):
        return q, k, v, None
    mask = torch.rand(draw(st.sampled_from([1, batch])), 1, time, held + time, generator=generator) < 0.5
    return q, k, v, mask | torch.eye(time, held + time, dtype=torch.bool).roll(held, dims=1)


@given(attention_inputs())
@settings(max_examples=150, deadline=None)
def test_fast_attention_equals_the_one_by_hand(inputs):
    torch.testing.assert_close(attention(*inputs), attention_by_hand(*inputs), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_both_drop_the_same_weights_from_the_same_seed(masked):
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril(-2) | torch.eye(6, dtype=torch.bool) if masked else None
    torch.manual_seed(9)
    fast = attention(q, k, v, mask, dropout=0.3)
    torch.manual_seed(9)
    torch.testing.assert_close(fast, attention_by_hand(q, k, v, mask, dropout=0.3), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(fast, attention(q, k, v, mask))


def test_attention_by_hand_equals_plain_loops():
    q, k, v = torch.randn(3, 1, 2, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    k, v = k[:, :1], v[:, :1]  # two query heads share one key/value head
    seen = attention_by_hand(q, k, v)
    for head in range(2):
        for t in range(3):
            scores = [math.exp(sum(q[0, head, t, i] * k[0, 0, s, i] for i in range(4)) / 2) for s in range(t + 1)]
            for i in range(4):
                expected = sum(score * v[0, 0, s, i] for s, score in enumerate(scores)) / sum(scores)
                assert seen[0, head, t, i].item() == pytest.approx(float(expected), rel=1e-9)


def test_a_rotation_by_hand():
    # Head size 2 has one pair and base^0 = 1: place p turns it by p radians.
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 4, 2)
    turned = rotate(x, rotation_at(torch.arange(4)[None], 2, 10_000.0))
    expected = torch.tensor([[math.cos(p), math.sin(p)] for p in range(4)])
    torch.testing.assert_close(turned[0, 0], expected)


def test_stretched_rotations_by_hand():
    """Speeds 1, 0.1 and 0.01: within 63 tokens they turn 10.03, 1.003 and 0.1003 times."""
    one = torch.tensor([[1]])
    _, sin = rotation_at(one, 6, 1000.0, RopeScaling("linear", 4.0))
    torch.testing.assert_close(sin.flatten(), torch.tensor([0.25, 0.025, 0.0025]).sin())
    # More than 1.5 turns: as it was; less than 0.5: a quarter; 1.0027 turns: 0.5027 of the one, 0.4973 of the other
    _, sin = rotation_at(one, 6, 1000.0, RopeScaling("llama3", 4.0, low=0.5, high=1.5, original_context=63))
    torch.testing.assert_close(sin.flatten(), torch.tensor([1.0, 0.0627, 0.0025]).sin(), rtol=1e-4, atol=0)


def test_a_stretch_by_one_changes_nothing():
    places = torch.arange(40)[None]
    plain = rotation_at(places, 8, 100.0)
    for scaling in (RopeScaling("linear", 1.0), RopeScaling("llama3", 1.0, original_context=16)):
        torch.testing.assert_close(rotation_at(places, 8, 100.0, scaling), plain)


def test_a_rotation_keeps_lengths_and_place_0():
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1))
    turned = rotate(x, rotation_at(torch.arange(5)[None], 8, 100.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


# --- the first numbers -------------------------------------------------------------------------------------------


@FAMILY
def test_a_seed_is_repeatable_and_leaves_the_global_generator_alone(family):
    config = small(family, init="gpt2")
    state = torch.get_rng_state()
    one, two, other = (build(config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["blocks.1.attention.qkv.weight"], other["blocks.1.attention.qkv.weight"])


@FAMILY
def test_gpt2_deviations(family):
    model = build(
        ModelConfig(family=family, vocabulary=2000, context=500, width=96, layers=8, heads=2, tie=False), seed=1
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == (0 if name.endswith("bias") else 1)).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            writes = name.endswith(("attention.out.weight", "feedforward.down.weight"))
            expected = 0.01 if name == "position_table.weight" else 0.02 / 4 if writes else 0.02  # sqrt(2 * 8) = 4
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.1 * expected


def test_torch_init_draws_what_torch_layers_draw_in_book_order():
    config = small("gpt2")
    torch.manual_seed(123)
    ours = build(config).state_dict()
    torch.manual_seed(123)
    expected = {"token_table": nn.Embedding(40, 24), "position_table": nn.Embedding(16, 24)}
    for layer in range(2):
        q, k, v = (nn.Linear(24, 24) for _ in range(3))
        qkv = nn.Linear(24, 72, device="meta")
        qkv.weight = nn.Parameter(torch.cat((q.weight, k.weight, v.weight)))
        qkv.bias = nn.Parameter(torch.cat((q.bias, k.bias, v.bias)))
        expected[f"blocks.{layer}.attention.qkv"] = qkv
        expected[f"blocks.{layer}.attention.out"] = nn.Linear(24, 24)
        expected[f"blocks.{layer}.feedforward.up"] = nn.Linear(24, 96)
        expected[f"blocks.{layer}.feedforward.down"] = nn.Linear(96, 24)
    expected["head"] = nn.Linear(24, 40, bias=False)
    for name, module in expected.items():
        for kind, value in module.state_dict().items():
            assert torch.equal(ours[f"{name}.{kind}"], value), f"{name}.{kind}"


@FAMILY
def test_a_tied_head_is_the_token_table(family):
    model = build(small(family, tie=True), seed=1)
    assert model.head_weight is model.token_table.weight
    assert "head.weight" not in model.state_dict()
    tokens = torch.full((1, 3), 4)
    model(tokens).sum().backward()
    assert model.token_table.weight.grad[9].abs().sum() > 0  # id 9 was no input: this came through the head


# --- dropout -----------------------------------------------------------------------------------------------------


@FAMILY
@pytest.mark.parametrize("place", ["dropout_embedding", "dropout_attention", "dropout_shortcut"])
def test_each_dropout_acts_in_training_and_only_there(family, place):
    model, tokens = build(small(family, **{place: 0.5}), seed=1), ids(1, 8)
    plain = build(small(family), seed=1)
    assert not torch.allclose(model(tokens), plain(tokens))
    torch.testing.assert_close(model.eval()(tokens), plain(tokens))


def test_dropout_hits_the_place_it_is_named_after():
    """With nearly everything dropped after the embedding, and nothing else, a model of norm and head remains."""
    model, tokens = build(small("llama", dropout_shortcut=0.999), seed=1), ids(4, 8)
    torch.manual_seed(0)
    x = model.token_table(tokens)
    rest = F.linear(model.norm(x), model.head_weight)
    share = torch.isclose(model(tokens), rest, atol=1e-4).all(dim=2).float().mean().item()
    assert share > 0.8  # 2 layers x 2 parts x 24 numbers, each kept with a chance of 1 in 1000


# --- number formats ----------------------------------------------------------------------------------------------


@FAMILY
def test_bf16_under_autocast_and_whole(family):
    model, tokens = build(small(family), seed=1), ids(2, 12)
    expected = model(tokens)
    largest = expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(tokens)
        F.cross_entropy(mixed.flatten(0, 1).float(), tokens.flatten()).backward()
    assert mixed.dtype == torch.bfloat16 and all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert (mixed - expected).abs().max() < 0.03 * largest
    whole = model.to(torch.bfloat16)(tokens)
    assert whole.dtype == torch.bfloat16
    assert (whole - expected).abs().max() < 0.05 * largest


def test_rotary_angles_stay_exact_in_a_bf16_model():
    """bf16 cannot tell position 2,000 from 2,003; the angles must not pass through it."""
    cos, sin = rotation_at(torch.tensor([[2003]]), 4, 10_000.0)
    assert cos.dtype == torch.float32
    assert cos[0, 0, 0, 0].item() == pytest.approx(math.cos(2003), abs=1e-4)
    assert sin[0, 0, 0, 1].item() == pytest.approx(math.sin(20.03), abs=1e-4)


# --- what is refused ---------------------------------------------------------------------------------------------


@FAMILY
@pytest.mark.parametrize(
    ("tokens", "inputs", "message"),
    [
        ([[3, 40]], {}, "token id 40 is outside the vocabulary of 40"),
        ([[-1, 3]], {}, "token id -1 is outside the vocabulary of 40"),
        ([[0] * 17], {}, "17 tokens are more than the model's context of 16"),
        ([[1, 2]], {"positions": torch.tensor([[0, 16]])}, "position 16 is outside the context of 16"),
        ([[1, 2]], {"positions": torch.tensor([[0]])}, r"positions has shape \(1, 1\), but tokens have shape \(1, 2\)"),
        ([[1, 2]], {"padding": torch.ones(2)}, r"padding has shape \(2,\), but tokens have shape \(1, 2\)"),
        ([[1, 2]], {"padding": torch.ones(1, 3)}, r"padding has shape \(1, 3\), but tokens have shape \(1, 2\)"),
        ([[1, 2]], {"documents": torch.ones(2, 2)}, r"documents has shape \(2, 2\), but tokens have shape \(1, 2\)"),
        ([1, 2], {}, r"tokens are torch.int64 of shape \(2,\)"),
        ([[]], {}, r"tokens are torch.float32 of shape \(1, 0\)"),
        ([[1.0]], {}, r"tokens are torch.float32 of shape \(1, 1\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(family, tokens, inputs, message):
    with pytest.raises(ModelError, match=message):
        build(small(family), seed=1)(torch.tensor(tokens), **inputs)
