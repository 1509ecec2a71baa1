"""Sizes, counts and costs by formula, held against built networks, published numbers and measured memory."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from groundup.errors import ModelError, SettingsError
from groundup.model import build
from groundup.model.config import (
    ALIASES,
    FAMILIES,
    SIZES,
    BigramConfig,
    ModelConfig,
    RopeScaling,
    count_parameters,
    flops_per_token,
    from_name,
    training_bytes,
)

GOOD = {"family": "llama", "vocabulary": 50, "context": 16, "width": 24, "layers": 2, "heads": 4}


@st.composite
def configs(draw) -> ModelConfig:
    """Any small network of any family."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    kv_heads, share, half = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    heads = kv_heads * share
    free = {"kv_heads": kv_heads, "head_size": 2 * draw(st.integers(1, 6))} if family != "gpt2" else {}
    return ModelConfig(
        family=family,
        vocabulary=draw(st.integers(1, 70)),
        context=draw(st.integers(1, 20)),
        width=heads * 2 * half,
        layers=draw(st.integers(1, 3)),
        heads=heads,
        hidden=draw(st.integers(0, 40)),
        qkv_bias=False if family == "qwen3" else draw(st.booleans()),
        tie=draw(st.booleans()),
        norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
        rope_base=draw(st.sampled_from([10_000.0, 1e6])) if family != "gpt2" else 10_000.0,
        dropout_embedding=draw(st.sampled_from([0.0, 0.1])),
        dropout_attention=draw(st.sampled_from([0.0, 0.2])),
        dropout_shortcut=draw(st.sampled_from([0.0, 0.3])),
        init=draw(st.sampled_from(["gpt2", "torch"])),
        **free,
    )


@given(configs())
@settings(max_examples=60, deadline=None)
def test_counts_equal_the_built_network(config):
    with torch.device("meta"):
        model = build(config)
    tables = ("token_table.", "position_table.", "head.")
    built = {name: p.numel() for name, p in model.named_parameters()}
    assert count_parameters(config).total == sum(built.values())
    assert count_parameters(config).embedding == sum(n for name, n in built.items() if name.startswith(tables))
    assert count_parameters(config).body == sum(n for name, n in built.items() if not name.startswith(tables))


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("124m", 124_439_808),  # OpenAI's GPT-2 release, with query/key/value biases
        ("355m", 354_823_168),
        ("774m", 774_030_080),
        ("1558m", 1_557_611_200),
        ("smollm2-135m", 134_515_008),  # as their model cards and weight files say
        ("qwen3-0.6b", 596_049_920),
        ("llama-3.2-1b", 1_235_814_400),
    ],
)
def test_published_sizes(name, total):
    config = from_name(name)
    with torch.device("meta"):  # no memory: GPT-2 XL would take 6 GB
        assert sum(p.numel() for p in build(config).parameters()) == count_parameters(config).total == total


@pytest.mark.parametrize(
    ("name", "total", "tied", "mebibytes"),
    [  # "Build a Large Language Model (From Scratch)": section 4.6, exercise 4.2
        ("gpt2", 163_009_536, 124_412_160, 621.83),
        ("gpt2-medium", 406_212_608, 354_749_440, 1549.58),
        ("gpt2-large", 838_220_800, 773_891_840, 3197.56),
        ("gpt2-xl", 1_637_792_000, 1_557_380_800, 6247.68),
    ],
)
def test_book_sizes(name, total, tied, mebibytes):
    assert count_parameters(from_name(name, qkv_bias=False, tie=False)).total == total
    assert count_parameters(from_name(name, qkv_bias=False)).total == tied
    assert total * 4 / 2**20 == pytest.approx(mebibytes, abs=0.005)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", ["1m", "3m", "10m", "30m"])
def test_laptop_sizes_hold_what_their_name_says(name, family):
    config = from_name(name, family=family)
    assert count_parameters(config).body == pytest.approx(float(name[:-1]) * 1e6, rel=0.07)
    assert 32 <= config.head_size <= 64 and 256 <= config.context <= 1024


def test_every_size_and_alias_is_found_in_any_case():
    for name in [*SIZES, *ALIASES]:
        assert from_name(name.upper()) == from_name(name)
    assert all(from_name(alias) == from_name(name) for alias, name in ALIASES.items())


def test_an_override_replaces_and_none_does_not():
    config = from_name("gpt2", vocabulary=99, heads=None)
    assert (config.vocabulary, config.heads, config.family) == (99, 12, "gpt2")


def test_unknown_size_and_field_name_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'gpt2-large'"):
        from_name("gpt2-lage")
    with pytest.raises(SettingsError, match="unknown model setting 'head'[^?]*did you mean 'heads'"):
        from_name("1m", head=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "lama"}, "unknown family 'lama'[^?]*did you mean 'llama'"),
        ({"init": "xavier"}, "unknown init 'xavier'"),
        ({"vocabulary": 0}, "vocabulary is 0"),
        ({"context": 0}, "context is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"layers": 1.5}, "layers is 1.5"),
        ({"heads": -2}, "heads is -2"),
        ({"hidden": -1}, "hidden is -1"),
        ({"width": 25}, "width 25 is not divisible by heads 4[^0-9]*28"),
        ({"width": 26, "head_size": 6}, "width 26 is not divisible by heads 4"),  # transformers' Llama refuses it, too
        ({"kv_heads": 3}, "heads 4 is not divisible by kv_heads 3[^:]*: take 1, 2, 4"),
        ({"width": 12}, "head_size 3 is odd"),
        ({"head_size": 7}, "head_size 7 is odd"),
        ({"family": "gpt2", "kv_heads": 2}, "family 'gpt2' cannot have kv_heads 2"),
        ({"family": "gpt2", "head_size": 8}, "family 'gpt2' cannot have .*head_size 8"),
        ({"family": "qwen3", "qkv_bias": True}, "family 'qwen3' has no qkv_bias"),
        ({"dropout_attention": 1.0}, "dropout_attention is 1.0"),
        ({"dropout_shortcut": -0.1}, "dropout_shortcut is -0.1"),
        ({"dropout_embedding": float("nan")}, "dropout_embedding is nan"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0"),
        ({"rope_base": float("nan")}, "rope_base is nan"),
    ],
)
def test_an_impossible_network_is_refused_with_the_value(change, message):
    with pytest.raises(ModelError, match=message):
        ModelConfig(**GOOD | change)


def test_what_a_family_allows():
    assert ModelConfig(**GOOD | {"family": "qwen3", "width": 26, "head_size": 6}).head_size == 6
    assert ModelConfig(**GOOD | {"family": "gpt2", "width": 12}).head_size == 3  # odd, but nothing rotates
    assert ModelConfig(**GOOD | {"qkv_bias": True}).qkv_bias is True


def test_family_defaults():
    assert ModelConfig(**GOOD | {"family": "gpt2"}).hidden == 96
    assert ModelConfig(**GOOD | {"family": "gpt2"}).qkv_bias is True
    assert ModelConfig(**GOOD | {"width": 128}).hidden == 352  # 341.3 up to a multiple of 32
    assert ModelConfig(**GOOD | {"width": 96}).hidden == 256  # exactly 8/3
    assert ModelConfig(**GOOD).kv_heads == 4 and ModelConfig(**GOOD).qkv_bias is False


@pytest.mark.parametrize("change", [{"vocabulary": 0}, {"context": -1}, {"family": "gpt2"}])
def test_an_impossible_bigram_is_refused(change):
    with pytest.raises(ModelError):
        BigramConfig(**{"vocabulary": 5, "context": 8} | change)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_flops_equal_those_that_torch_counts(family):
    config = from_name("1m", family=family, context=64)
    model, tokens = build(config, seed=0), torch.zeros(2, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(tokens).sum().backward()
    assert flops_per_token(config) == pytest.approx(counter.get_total_flops() / tokens.numel(), rel=0.01)
    assert model.flops_per_token() == flops_per_token(config)


# Trains three steps and prints by how much the resident memory rose; what it imports and warms up before is left out.
MEASURE = """
import sys, torch
from groundup import losses
from groundup.batches import next_token
from groundup.model import build
from groundup.model.config import from_name
def memory(kind):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(kind))
def train(model, batch, steps):
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(steps):
        rows = torch.randint(model.config.vocabulary, (batch, model.config.context + 1))
        with torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[3] == "bf16"):
            losses.next_token(model, next_token(rows))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
torch.set_num_threads(1)
train(build(from_name("1m", vocabulary=64, context=16)), 1, 2)
before = memory("VmRSS")
train(build(from_name(sys.argv[1], family=sys.argv[2])), int(sys.argv[4]), 3)
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
@pytest.mark.parametrize(
    ("name", "family", "dtype", "batch"),
    [("1m", "qwen3", "fp32", 16), ("1m", "qwen3", "bf16", 16), ("3m", "llama", "fp32", 8), ("3m", "gpt2", "fp32", 8)],
)
def test_training_memory_is_near_the_measured_peak(name, family, dtype, batch):
    command = [sys.executable, "-c", MEASURE, name, family, dtype, str(batch)]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=here, check=True)
    config = from_name(name, family=family)
    estimate = training_bytes(config, batch, config.context, bf16=dtype == "bf16")
    assert estimate == pytest.approx(int(done.stdout), rel=0.3)


def test_training_memory_grows_with_everything():
    small = ModelConfig(**GOOD)
    for change in ({"width": 48}, {"layers": 3}, {"vocabulary": 99}, {"dropout_attention": 0.1}, {"family": "qwen3"}):
        assert training_bytes(ModelConfig(**GOOD | change), 2, 16) > training_bytes(small, 2, 16)
    assert training_bytes(small, 3, 16) > training_bytes(small, 2, 16)
    assert training_bytes(small, 2, 17) > training_bytes(small, 2, 16)
    assert training_bytes(BigramConfig(vocabulary=65, context=8), 4, 8) == 65 * (16 * 65 + 4 * 8 * 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "yarn"}, "unknown rope_scaling kind 'yarn'"),
        ({"factor": 0.5}, "rope_scaling factor is 0.5"),
        ({"factor": float("nan")}, "rope_scaling factor is nan"),
        ({"factor": float("inf")}, "rope_scaling factor is inf"),
        ({"original_context": 0}, "rope_scaling original_context is 0"),
        ({"low": 4.0}, "rope_scaling low is 4.0 and high 4.0"),
        ({"low": 0.0}, "rope_scaling low is 0.0"),
        ({"high": float("inf")}, "high inf"),
    ],
)
def test_a_stretch_that_means_nothing_is_refused(change, message):
    good = {"kind": "llama3", "factor": 8.0, "original_context": 8192}
    RopeScaling(**good)
    with pytest.raises(ModelError, match=message):
        RopeScaling(**good | change)


def test_learned_positions_cannot_be_stretched():
    with pytest.raises(ModelError, match="family 'gpt2' has learned positions"):
        ModelConfig(**GOOD | {"family": "gpt2"}, rope_scaling=RopeScaling("linear", 2.0))
