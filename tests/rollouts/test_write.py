"""Many answers at a time: the very ids of `generate`, at less work."""

import pytest
import torch

from groundup.errors import ModelError
from groundup.generate.decode import generate
from groundup.generate.sample import Sampler
from groundup.model import lora
from groundup.model.values import ActorCritic
from groundup.rollouts import write as writing
from groundup.rollouts.write import write, writer

PROMPTS = [[1, 2, 3], [4], [1, 2, 3], [5, 6, 7, 8, 9, 10, 11], [4], [1, 2, 3], [9, 9, 9]]
WARM = Sampler(temperature=1.0, seed=3)
ENDS = [0, 7, 20]  # three of forty ids: most answers end before the last column


def by_generate(model, prompts, *, most=20, sampler=WARM, ends=ENDS):
    steps = generate(model, prompts, max_tokens=most, sampler=sampler, end=ends)
    return [[id for id in row if id is not None] for row in zip(*(step.ids for step in steps), strict=True)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("sampler", [WARM, Sampler(temperature=0), Sampler(temperature=0.6, seed=8)])
def test_the_same_ids_as_generate(family, sampler, network):
    model = network(3, family)
    found = write(model, PROMPTS, most=20, sampler=sampler, ends=ENDS)
    assert found == by_generate(model, PROMPTS, sampler=sampler)
    assert sampler.greedy or len({tuple(ids) for ids in found}) > 4  # the model is no constant
    assert sampler.greedy or len({len(ids) for ids in found}) > 2  # and its answers end at different times


@pytest.mark.parametrize("crowded", [0.0, 0.5, 1.0])
def test_moving_into_smaller_batches_changes_nothing(crowded, network, monkeypatch):
    model, rows = network(3), []
    model.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    monkeypatch.setattr(writing, "CROWDED", crowded)
    found = write(model, PROMPTS, most=20, sampler=WARM, ends=ENDS)
    steps = rows[1:]
    assert found == by_generate(network(3), PROMPTS)
    assert len(steps) == max(map(len, found))
    if crowded == 1.0:  # nothing is computed for an answer that has ended
        assert sum(steps) == sum(map(len, found))
    if crowded == 0.0:
        assert set(steps) == {len(PROMPTS)}


def test_a_prompt_is_read_once_however_many_answers_it_gets(network):
    model, shapes = network(3), []
    model.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    write(model, PROMPTS, most=5, sampler=WARM, ends=())
    assert shapes == [(4, 6), *[(7, 1)] * 5]


def test_in_several_batches_and_alone(network, monkeypatch):
    model = network(3)
    whole = write(model, PROMPTS, most=20, sampler=WARM, ends=ENDS)
    assert write(model, PROMPTS[:1], most=20, sampler=WARM, ends=ENDS) == whole[:1]
    monkeypatch.setattr(writing, "rows_at_once", lambda model, tokens: 2)
    assert write(model, PROMPTS, most=20, sampler=WARM, ends=ENDS) == whole


def test_copies_differ_and_the_seed_decides(network):
    model = network(3)
    one, other = (write(model, [[5, 6]] * 4, most=8, sampler=Sampler(temperature=1, seed=s), ends=()) for s in (1, 2))
    assert len({tuple(ids) for ids in (*one, *other)}) == 8
    assert write(model, [[5, 6]] * 4, most=8, sampler=Sampler(temperature=1, seed=1), ends=()) == one


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_generators_are_as_before(training, network):
    model = network(3, dropout_shortcut=0.5).train(training)
    before = torch.get_rng_state()
    found = write(model, PROMPTS, most=5, sampler=WARM, ends=())
    assert model.training is training and torch.equal(torch.get_rng_state(), before)
    assert found == write(network(3).eval(), PROMPTS, most=5, sampler=WARM, ends=())  # and nothing was dropped


def test_no_prompts_no_answers(network):
    assert write(network(3), [], most=5, sampler=WARM, ends=()) == []


@pytest.mark.parametrize(("prompts", "most"), [([[]], 5), ([[1] * 60], 5)])
def test_prompts_without_ids_or_room_are_refused(prompts, most, network):
    with pytest.raises(ModelError, match="the context is 64"):
        write(network(3), prompts, most=most, sampler=WARM, ends=())


def test_a_broken_policy_is_said(network):
    model = network(3)
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinite"):
        write(model, PROMPTS, most=5, sampler=WARM, ends=())


# who writes


def test_in_fp32_the_policy_writes_itself(network, machine):
    model = network(3)
    assert writer(model, machine, rows=4) is model
    assert writer(ActorCritic(model, seed=0), machine, rows=4) is model


def test_adapters_are_in_the_copy_that_writes(network, machine):
    model = lora.add(network(3), lora.LoraConfig(rank=2), seed=4)
    with torch.no_grad():
        for name, value in lora.parameters(model).items():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.2)
    twin = writer(model, machine, rows=4)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        wanted, found = model.eval()(ids), twin(ids)
        with lora.off(model):
            plain = model(ids)
    assert twin is not model and lora.attached(twin) is None
    assert torch.allclose(found, wanted, atol=1e-4) and not torch.allclose(plain, wanted, atol=1e-2)
    assert write(twin, PROMPTS, most=6, sampler=WARM, ends=()) == write(model, PROMPTS, most=6, sampler=WARM, ends=())


def test_a_large_model_writes_in_the_format_of_the_products(network, monkeypatch):
    from groundup.machine import Machine

    monkeypatch.setattr(writing, "SMALL", 0)
    model = network(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = writer(ActorCritic(model, seed=0), Machine(torch.device("cpu"), torch.bfloat16, 1), rows=4)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        wanted, found = model.eval()(ids), twin(ids)
    assert twin is not model and found.dtype == torch.bfloat16
    assert float((found.float() - wanted).norm() / wanted.norm()) < 0.05
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    write(twin, PROMPTS, most=5, sampler=WARM, ends=ENDS)
