"""A model made ready writes what it wrote before: greedy and sampled, alone and in batches, past the context."""

import pytest
import torch
from torch import nn

from groundup.errors import ModelError
from groundup.generate import Sampler, generate, ready
from groundup.generate.decode import cache_dtype
from groundup.model import BigramConfig, ModelConfig, build
from groundup.model.int8 import quantise

GREEDY = Sampler(temperature=0)
SAMPLED = Sampler(temperature=1.3, top_k=30, top_p=0.95, repetition_penalty=1.2, seed=3)
PROMPTS = [[1, 2, 3], [4], list(range(20)), [5, 6, 7, 8, 9]]  # the third exceeds the context


def small(family: str) -> nn.Module:
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    config = ModelConfig(
        family=family, vocabulary=60, context=12, width=32, layers=2, heads=4, init="torch", tie=False, **groups
    )
    return build(config, seed=1)


def written(model: nn.Module, prompts: list[list[int]], sampler: Sampler, *, use_cache: bool = True) -> list[list[int]]:
    steps = list(generate(model, prompts, max_tokens=20, sampler=sampler, use_cache=use_cache))
    return [list(row) for row in zip(*(step.ids for step in steps), strict=True)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("sampler", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_the_texts_of_an_fp32_model_stay(family: str, sampler: Sampler):
    model = small(family)
    ready(model, rows=len(PROMPTS))
    together = written(model, PROMPTS, sampler)
    assert together == written(small(family), PROMPTS, sampler)
    assert [written(model, [prompt], sampler)[0] for prompt in PROMPTS] == together


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_int8_writes_what_the_rounded_matrices_write(family: str):
    model, twin = small(family), small(family)
    ready(model, int8=True)
    for module in twin.modules():
        if isinstance(module, nn.Linear) or module is twin.token_table:
            numbers, scale = quantise(module.weight)
            module.weight.data = numbers * scale
    greedy = written(twin, PROMPTS, GREEDY)
    assert written(model, PROMPTS, GREEDY) == greedy == written(model, PROMPTS, GREEDY, use_cache=False)


def test_bf16_with_and_without_a_cache_agree_on_the_first_tokens():
    """The cache keeps fp32 on a CPU: nothing rounded twice."""
    model = small("qwen3").bfloat16()
    assert cache_dtype(model) == torch.float32
    ready(model)
    cached, whole = (written(model, [[1, 2, 3]], GREEDY, use_cache=wish)[0] for wish in (True, False))
    assert cached[:3] == whole[:3]


def test_a_bigram_is_ready_as_it_is_but_has_no_int8():
    bigram = build(BigramConfig(vocabulary=5, context=4), seed=1)
    before = written(bigram, [[1]], SAMPLED)
    ready(bigram)
    assert written(bigram, [[1]], SAMPLED) == before
    with pytest.raises(ModelError, match="no matrices to keep in int8"):
        ready(bigram, int8=True)
