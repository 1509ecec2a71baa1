"""A policy with values is the policy to everyone who asks it, and its values are what they say they are."""

import copy

import pytest
import torch
from torch import nn

from groundup import model as models
from groundup.errors import ModelError
from groundup.generate.decode import generate
from groundup.generate.sample import Sampler
from groundup.model import build, lora, surgery
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.heads import Classifier, HeadConfig
from groundup.model.lora import LoraConfig
from groundup.model.values import ActorCritic

FAMILIES = ["gpt2", "llama", "qwen3"]
TINY = {"vocabulary": 30, "context": 12, "width": 16, "layers": 2, "heads": 4}
IDS = torch.tensor([[3, 7, 1, 29, 4], [5, 6, 0, 0, 0]])
SMALL = LoraConfig(rank=2, targets=("query", "value"))


def policy(family: str = "llama", **changes) -> nn.Module:
    shared = {"kv_heads": 2} if family != "gpt2" else {}
    return build(ModelConfig(family=family, init="torch", **(TINY | shared | changes)), seed=3)


def judged(model: ActorCritic) -> ActorCritic:
    """Values as if they had learnt: weight 0.1, 0.2, 0.3 ... and bias 5."""
    with torch.no_grad():
        model.value.weight.copy_(torch.arange(1, model.config.width + 1)[None] / 10)
        model.value.bias.fill_(5.0)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_what_the_policy_answers(family):
    plain = policy(family).eval()
    model = ActorCritic(copy.deepcopy(plain)).eval()
    assert torch.equal(model(IDS), plain(IDS))
    assert torch.equal(model(IDS, head=False), plain(IDS, head=False))
    padding = torch.tensor([[False, True, True, True, True], [True] * 5])
    assert torch.equal(model(IDS, padding=padding), plain(IDS, padding=padding))
    assert model.head_weight is model.policy.head_weight
    assert models.config_of(model) == plain.config and model.flops_per_token() == plain.flops_per_token()


def test_values_begin_at_zero_and_nothing_is_drawn():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    model = ActorCritic(policy(), seed=5)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.value.weight.any() and not model.value.bias.any()
    assert not model.values(model(IDS, head=False)).any()


def test_a_value_by_hand():
    """1 x 0.1 + 2 x 0.2 + 0 x ... + 5 = 5.5; and -1.6 + 5 = 3.4 of a state that is -1 in the last place alone."""
    model = judged(ActorCritic(policy()))
    states = torch.zeros(1, 2, 16)
    states[0, 0, :2], states[0, 1, 15] = torch.tensor([1.0, 2.0]), -1.0
    torch.testing.assert_close(model.values(states), torch.tensor([[5.5, 3.4]]))


def test_values_are_fp32_under_autocast():
    """0.1 and 0.2 are rounded by bf16: their product with 100 would be 10.0098 and 20.0195."""
    model = judged(ActorCritic(policy()))
    states = torch.zeros(1, 1, 16, dtype=torch.bfloat16)
    states[0, 0, :2] = 100.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.values(states)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([[35.0]]))


def test_value_and_policy_learn_from_the_values():
    model = judged(ActorCritic(policy()))
    model.values(model(IDS, head=False)).square().sum().backward()
    assert model.value.weight.grad.abs().sum() > 0 and model.value.bias.grad.abs().sum() > 0
    assert model.policy.token_table.weight.grad[IDS.unique()].abs().sum() > 0


@pytest.mark.parametrize("what", ["all", "last-block", "head"])
def test_what_freezes_the_policy_leaves_the_value(what):
    """Of the policy learns what learns without values, no more and no less."""
    alone = {n for n, p in surgery.train_only(policy(), what).named_parameters() if p.requires_grad}
    model = surgery.train_only(ActorCritic(policy()), what)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        *(f"policy.{name}" for name in alone), "value.weight", "value.bias"
    }  # fmt: skip


@pytest.mark.parametrize("inside", [True, False])
def test_adapters_belong_to_the_policy(inside):
    """Added to the policy or to the whole: the same adapters under the same names, and the value learns."""
    model = ActorCritic(policy())
    lora.add(model.policy if inside else model, SMALL, seed=7)
    twin = lora.add(policy(), SMALL, seed=7)
    assert lora.config_of(model) == lora.config_of(model.policy) == SMALL
    own, wanted = lora.parameters(model.policy), lora.parameters(twin)
    assert own.keys() == wanted.keys() and all(torch.equal(own[name], wanted[name]) for name in own)
    assert all(model.get_parameter(name) is value for name, value in lora.parameters(model).items())
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {*(f"policy.{name}" for name in own), "value.weight", "value.bias"}


@pytest.mark.parametrize("tie", [True, False])
def test_tables_are_trained_whole_beside_adapters(tie):
    """Those that the policy has, found by name as stages look for them."""
    model = ActorCritic(policy(tie=tie))
    tables = [name for name in lora.TABLES if getattr(model, name, None) is not None]
    assert tables == (["token_table"] if tie else ["token_table", "head"])
    lora.add(model, SMALL, seed=7, also=tables)
    assert lora.attached(model.policy).also == tuple(tables)
    assert all(model.policy.get_parameter(f"{name}.weight").requires_grad for name in tables)
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) and all(name.startswith(("policy.", "value.")) for name in names)


def test_adapters_can_be_turned_off_and_merged():
    plain = policy().eval()
    model = ActorCritic(lora.add(copy.deepcopy(plain), SMALL, seed=7)).eval()
    with torch.no_grad():
        for name, value in lora.parameters(model).items():
            value.fill_(0.2 if ".B." in name else 0.1)
    adapted = model(IDS)
    assert not torch.allclose(adapted, plain(IDS))
    with lora.off(model):
        assert torch.equal(model(IDS), plain(IDS))
    lora.merge(model)
    assert lora.config_of(model) is None and lora.config_of(model.policy) is None
    torch.testing.assert_close(model(IDS), adapted, rtol=1e-4, atol=1e-5)


def test_frozen_matrices_are_narrowed_and_the_value_is_not():
    model = ActorCritic(lora.add(policy(), SMALL, seed=7))
    surgery.narrowed(model, torch.bfloat16)
    assert model.policy.blocks[0].attention.out.weight.dtype == torch.bfloat16
    assert model.value.weight.dtype == torch.float32


def test_it_writes_what_the_policy_writes():
    plain = policy("qwen3")
    model = judged(ActorCritic(copy.deepcopy(plain)))
    prompts, sampler = [[3, 4, 9], [7]], Sampler(temperature=1.0, seed=2)
    one, other = ([step.ids for step in generate(which, prompts, max_tokens=6, sampler=sampler)]
                  for which in (plain, model))  # fmt: skip
    assert one == other and len(one) == 6


def test_recompute_is_the_policys():
    model = ActorCritic(policy())
    model.recompute = True
    assert model.policy.recompute and model.recompute
    model.values(model(IDS, head=False)).sum().backward()
    assert model.value.bias.grad.item() == IDS.numel()


def test_a_network_without_memory_can_have_values():
    with torch.device("meta"):
        model = ActorCritic(policy())
    assert model.value.weight.is_meta and sum(p.numel() for p in model.value.parameters()) == 17


@pytest.mark.parametrize(
    "other",
    [
        build(BigramConfig(vocabulary=9, context=4), seed=0),
        Classifier(policy(), HeadConfig(("a", "b")), seed=0),
        ActorCritic(policy()),
    ],
)
def test_what_writes_nothing_is_refused(other):
    with pytest.raises(ModelError, match=f"a {type(other).__name__} cannot be given values"):
        ActorCritic(other)
