"""Decoding equals the slow loop of a book: every family, greedy and sampled, past the context, alone and in batches."""

import pytest
import torch
from torch import nn

from groundup.errors import ModelError
from groundup.generate.decode import Step, generate, generate_by_hand
from groundup.generate.sample import Sampler
from groundup.model import BigramConfig, ModelConfig, build
from groundup.model.config import from_name

FAMILIES = ["gpt2", "llama", "qwen3"]
GREEDY = Sampler(temperature=0)
SAMPLED = Sampler(temperature=1.3, top_k=30, top_p=0.95, repetition_penalty=1.2, seed=3)
PROMPTS = [[1, 2, 3], [4], list(range(20)), [5, 6, 7, 8, 9, 10, 11, 12, 13], [4]]  # the third exceeds the context


def small(family: str) -> nn.Module:
    """torch's large initial numbers: with GPT-2's small ones every text would be nearly the same."""
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    config = ModelConfig(
        family=family, vocabulary=60, context=12, width=16, layers=2, heads=4, init="torch", tie=False, **groups
    )
    return build(config, seed=1)


def rows(steps: list[Step]) -> list[list[int]]:
    return [[id for id in row if id is not None] for row in zip(*(step.ids for step in steps), strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_batch_equals_each_alone_equals_by_hand(family: str, sampler: Sampler):
    """25 new ids cross the context of 12 in every row."""
    model = small(family)
    together = rows(list(generate(model, PROMPTS, max_tokens=25, sampler=sampler)))
    uncached = rows(list(generate(model, PROMPTS, max_tokens=25, sampler=sampler, use_cache=False)))
    assert together == uncached
    for prompt, ids in zip(PROMPTS[:4], together[:4], strict=True):
        assert rows(list(generate(model, [prompt], max_tokens=25, sampler=sampler))) == [ids]
        assert generate_by_hand(model, prompt, max_tokens=25, sampler=sampler) == ids
    assert len({tuple(ids[:5]) for ids in together}) >= 4  # the model is no constant
    assert (together[1] == together[4]) == sampler.greedy  # a second copy of a prompt is another sample


def test_by_hand_is_the_plain_loop():
    """The twin itself against arithmetic one can follow: a bigram's next id is the argmax of one row of its table."""
    model = build(BigramConfig(vocabulary=7, context=3), seed=2)
    ids, table = [4], model.table.weight
    for _ in range(9):
        ids.append(int(table[ids[-1]].argmax()))
    assert generate_by_hand(model, [4], max_tokens=9, sampler=GREEDY) == ids[1:]
    assert rows(list(generate(model, [[4]], max_tokens=9, sampler=GREEDY))) == [ids[1:]]


def test_top_k_1_is_greedy_at_any_temperature():
    """Exercise 5.3 of the book."""
    model = small("gpt2")
    wild = Sampler(temperature=5, top_k=1, seed=9)
    assert list(generate(model, PROMPTS, max_tokens=9, sampler=wild)) == list(
        generate(model, PROMPTS, max_tokens=9, sampler=GREEDY)
    )


@pytest.mark.slow
def test_the_untrained_gpt2_of_the_book():
    """Figure book.4.7.generate: "Hello, I am" and six greedy ids of 163 million numbers drawn from seed 123."""
    config = from_name("gpt2", tie=False, qkv_bias=False, init="torch")
    torch.manual_seed(123)
    model = build(config)
    [ids] = rows(list(generate(model, [[15496, 11, 314, 716]], max_tokens=6, sampler=GREEDY)))
    assert ids == [27018, 24086, 47843, 30961, 42348, 7267]


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_first_tokens_do_not_depend_on_how_many_follow(use_cache: bool):
    model = small("llama")
    short = rows(list(generate(model, PROMPTS, max_tokens=4, sampler=SAMPLED, use_cache=use_cache)))
    long = rows(list(generate(model, PROMPTS, max_tokens=20, sampler=SAMPLED, use_cache=use_cache)))
    assert [ids[:4] for ids in long] == short


def test_copies_name_the_sample_wherever_the_row_stands():
    model = small("qwen3")
    both = rows(list(generate(model, [[9], [9]], max_tokens=8, sampler=SAMPLED)))
    second = rows(list(generate(model, [[9]], max_tokens=8, sampler=SAMPLED, copies=[1])))
    assert both[0] != both[1] and second == [both[1]]


def test_a_row_ends_with_the_end_id_and_the_others_go_on():
    model = small("llama")
    full = rows(list(generate(model, PROMPTS[:4], max_tokens=10, sampler=SAMPLED)))
    end = full[0][3]
    expected = [ids[: ids.index(end) + 1] if end in ids else ids for ids in full]
    steps = list(generate(model, PROMPTS[:4], max_tokens=10, sampler=SAMPLED, end=end))
    assert rows(steps) == expected
    assert steps[-1].ids[0] is None
    alone = list(generate(model, [PROMPTS[0]], max_tokens=10, sampler=SAMPLED, end=end))
    assert len(alone) == full[0].index(end) + 1  # nothing is computed once every row has ended


def test_past_context_is_told_from_the_first_cropped_token_on():
    flags = [step.past_context for step in generate(small("gpt2"), [[1] * 10, [2]], max_tokens=5, sampler=GREEDY)]
    assert flags == [False, False, False, True, True]  # tokens 11, 12 and 13 are chosen from 10, 11 and 12 in view


def test_prompts_are_read_without_the_output_head():
    """All logits of a long prompt would be the largest tensor of the whole run."""
    model, shapes = small("llama"), []
    model.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape)))
    list(generate(model, [[1] * 9], max_tokens=3, sampler=GREEDY))
    assert shapes == [(1, 8, 16), (1, 1, 60), (1, 1, 60), (1, 1, 60)]


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_generators_are_as_before(training: bool):
    model = build(
        ModelConfig(family="gpt2", vocabulary=20, context=8, width=8, layers=1, heads=2, dropout_embedding=0.5), seed=1
    )
    model.train(training)
    before = torch.get_rng_state()
    first = rows(list(generate(model, [[1]], max_tokens=20, sampler=SAMPLED)))
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), before)
    assert rows(list(generate(model, [[1]], max_tokens=20, sampler=SAMPLED))) == first  # so dropout was off
    stream = generate(model, [[1]], max_tokens=20, sampler=SAMPLED)
    next(stream)
    stream.close()
    assert model.training is training


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's remark on speed
def test_a_bf16_model_and_a_bf16_region_write_too():
    halved = small("qwen3").bfloat16()
    assert rows(list(generate(halved, PROMPTS[:2], max_tokens=14, sampler=GREEDY)))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rows(list(generate(small("qwen3"), PROMPTS[:2], max_tokens=14, sampler=GREEDY)))[0]


def test_no_prompts_no_steps():
    assert list(generate(small("gpt2"), [], max_tokens=3, sampler=GREEDY)) == []


@pytest.mark.parametrize(
    ("prompts", "count", "message"),
    [
        ([[1], []], 3, "prompt 1 has no tokens"),
        ([[1, 60]], 3, "token id 60, outside the vocabulary of 60"),
        ([[-1]], 3, "token id -1"),
        ([[1]], 0, "max_tokens is 0"),
    ],
)
def test_bad_requests_are_refused(prompts: list[list[int]], count: int, message: str):
    with pytest.raises(ModelError, match=message):
        list(generate(small("gpt2"), prompts, max_tokens=count, sampler=GREEDY))


@pytest.mark.parametrize("sampler", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_damaged_weights_are_an_error_with_advice(sampler: Sampler):
    model = small("gpt2")
    model.norm.weight.data[7] = float("nan")
    with pytest.raises(ModelError, match=r"new token 1 of row 0 are NaN or infinite\n.*--dtype fp32"):
        list(generate(model, [[1]], max_tokens=3, sampler=sampler))
