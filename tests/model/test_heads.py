"""A classifier judges the state it says it judges, costs what it should, and never looks at filler."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn

from groundup.errors import ModelError
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig, from_name
from groundup.model.heads import POOLINGS, Classifier, HeadConfig, normalised, pooled

TWO = HeadConfig(("ham", "spam"))
FAMILIES = ["gpt2", "llama", "qwen3"]
TINY = {"vocabulary": 30, "context": 12, "width": 16, "layers": 2, "heads": 4}
ROWS = torch.tensor([[3, 7, 1, 29, 4], [5, 6, 0, 0, 0], [9, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 2, 1])


def trunk(family="llama", **changes) -> nn.Module:
    shared = {"kv_heads": 2} if family != "gpt2" else {}
    return build(ModelConfig(family=family, init="torch", **(TINY | shared | changes)), seed=3)


def classifier(family="llama", head=TWO, *, seed=5, **changes) -> Classifier:
    return Classifier(trunk(family, **changes), head, seed=seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_real_token_is_judged(family):
    model = classifier(family).eval()
    states = model.trunk(ROWS, head=False)
    wanted = torch.stack([states[0, 4], states[1, 1], states[2, 0]]) @ model.score.weight.T
    torch.testing.assert_close(model(ROWS, lengths=LENGTHS), wanted)
    torch.testing.assert_close(model(ROWS), states[:, 4] @ model.score.weight.T)  # every token real


def test_first_and_mean_by_hand():
    """The third state of the first text and the second of the other are filler."""
    states = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [99.0, 99.0]], [[7.0, 70.0], [99.0, 99.0], [99.0, 99.0]]])
    lengths = torch.tensor([2, 1])
    assert pooled(states, lengths, "last").tolist() == [[3.0, 30.0], [7.0, 70.0]]
    assert pooled(states, lengths, "first").tolist() == [[1.0, 10.0], [7.0, 70.0]]
    assert pooled(states, lengths, "mean").tolist() == [[2.0, 20.0], [7.0, 70.0]]
    whole = pooled(states, None, "mean")
    torch.testing.assert_close(whole[0], torch.tensor([103 / 3, 139 / 3]))
    assert pooled(states.bfloat16(), lengths, "mean").dtype == torch.float32


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_filler_changes_no_logit(family, pooling):
    """A text alone, with filler, and with other filler: the same, whatever is judged."""
    model = classifier(family, HeadConfig(("a", "b", "c"), pooling)).eval()
    padded = model(ROWS, lengths=LENGTHS)
    other = torch.where(torch.arange(5) < LENGTHS[:, None], ROWS, torch.tensor(17))
    torch.testing.assert_close(model(other, lengths=LENGTHS), padded, rtol=0, atol=1e-6)
    alone = torch.cat([model(row[None, :length]) for row, length in zip(ROWS, LENGTHS, strict=True)])
    torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-5)


def test_what_is_behind_the_last_real_token_learns_nothing():
    model = classifier(tie=False)
    model(ROWS, lengths=LENGTHS).sum().backward()
    gradient = model.trunk.token_table.weight.grad
    assert gradient[9].abs().sum() > 0 and gradient[0].abs().sum() == 0  # id 0 is filler only


def test_the_counts_of_the_book():
    """Raschka 2024, section 6.5: GPT-2 without qkv_bias, its head replaced by 768 -> 2 with bias."""
    with torch.device("meta"):
        model = build(from_name("gpt2", qkv_bias=False, tie=False))
        assert sum(p.numel() for p in model.parameters()) == 163_009_536
        model = Classifier(model, HeadConfig(("ham", "spam"), bias=True), seed=123)
    assert sum(p.numel() for p in model.score.parameters()) == 1538
    assert sum(p.numel() for p in model.parameters()) == 124_413_698


@pytest.mark.parametrize("tie", [True, False])
def test_a_head_for_the_next_token_is_dropped(tie):
    model = classifier(tie=tie)
    assert model.trunk.head is None and model.config.tie
    assert {name for name, _ in model.named_parameters() if "head" in name} == set()
    assert model.trunk.token_table.weight.shape == (30, 16)


def test_torchs_draw_is_that_of_the_book():
    """torch.manual_seed(123), then nn.Linear(in_features=..., out_features=2), as section 6.5 replaces the head."""
    torch.manual_seed(123)
    wanted = nn.Linear(16, 2)
    found = classifier(head=HeadConfig(("ham", "spam"), bias=True), seed=123).score
    assert torch.equal(found.weight, wanted.weight) and torch.equal(found.bias, wanted.bias)
    torch.manual_seed(123)
    again = Classifier(trunk(), HeadConfig(("ham", "spam"), bias=True), seed=None).score
    assert torch.equal(again.weight, wanted.weight)  # the trunk drew from a seed of its own


def test_the_usual_draw_is_small_and_normal():
    head = HeadConfig(tuple(f"class {number}" for number in range(200)), bias=True)
    model = Classifier(trunk(width=64), head, seed=1, init="gpt2")
    weight = model.score.weight.detach()
    assert weight.std().item() == pytest.approx(0.02, rel=0.05) and weight.abs().max() > 0.05
    assert not model.score.bias.any()
    assert torch.equal(weight, Classifier(trunk(width=64), head, seed=1, init="gpt2").score.weight)
    assert not torch.equal(weight, Classifier(trunk(width=64), head, seed=2, init="gpt2").score.weight)


class Kept:
    """A tensor that the backward pass holds on to."""

    def __init__(self, tensor):
        self.tensor = tensor


def kept_bytes(model: Classifier) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def keep(tensor):
        kept.add(held := Kept(tensor))
        return held

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held.tensor):
        logits = model(ROWS, lengths=LENGTHS)
    if model.recompute:
        gc.collect()  # what is run again stands in circles that only this finds
    storages = [held.tensor.untyped_storage() for held in kept]
    assert logits.requires_grad
    return sum({part.data_ptr(): part.nbytes() for part in storages if part.data_ptr() not in own}.values())


def trains(model: Classifier, *parts: str) -> Classifier:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    return model


@pytest.mark.parametrize(
    ("family", "recompute"),
    [*((family, False) for family in FAMILIES), pytest.param("llama", True, marks=pytest.mark.slow)],
)
def test_frozen_blocks_keep_nothing(family, recompute):
    """With the last block or the head in training, four layers more below cost no memory; with all of them they do."""

    def kept(layers: int, *parts: str) -> int:
        model = trains(classifier(family, layers=layers), *parts)
        model.recompute = recompute
        return kept_bytes(model)

    assert kept(2, "score") == kept(6, "score") < kept(2, "blocks.1.", "trunk.norm", "score")
    assert kept(2, "blocks.1.", "trunk.norm", "score") == kept(6, "blocks.5.", "trunk.norm", "score") > 0
    assert kept(6, "") > kept(2, "")


def test_only_what_trains_gets_a_gradient():
    model = trains(classifier(), "blocks.1.", "trunk.norm", "score")
    model(ROWS, lengths=LENGTHS).sum().backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt and all(name.startswith(("trunk.blocks.1.", "trunk.norm", "score")) for name in learnt)


def test_recompute_belongs_to_the_trunk_and_changes_no_gradient():
    plain, again = classifier(), classifier()
    again.recompute = True
    assert again.trunk.recompute and again.recompute and not plain.recompute
    for model in (plain, again):
        model(ROWS, lengths=LENGTHS).square().sum().backward()
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_logits_are_fp32_under_autocast_and_for_narrow_weights():
    model = classifier().eval()
    exact = model(ROWS, lengths=LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(ROWS, lengths=LENGTHS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)
    narrow = Classifier(trunk().bfloat16(), TWO, seed=5).eval()
    assert narrow.score.weight.dtype == torch.float32  # small, and what learns most
    assert narrow(ROWS, lengths=LENGTHS).dtype == torch.float32
    assert model.bfloat16()(ROWS, lengths=LENGTHS).dtype == torch.float32


def test_the_mode_of_the_trunk_is_that_of_the_classifier():
    assert Classifier(trunk(), TWO, seed=0).training
    assert not Classifier(trunk().eval(), TWO, seed=0).training


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (torch.tensor([5, 2]), "shape (2,)"),
        (torch.tensor([5.0, 2.0, 1.0]), "float32"),
        (torch.tensor([5, 0, 1]), "a length is 0"),
        (torch.tensor([5, 6, 1]), "a length is 6"),
    ],
)
def test_lengths_that_do_not_fit(lengths, said):
    with pytest.raises(ModelError) as caught:
        classifier()(ROWS, lengths=lengths)
    assert said in caught.value.what and caught.value.fix


@pytest.mark.parametrize(
    ("labels", "pooling", "said"),
    [
        (("ham",), "last", "['ham']"),
        ((), "last", "[]"),
        (("ham", "ham"), "last", "'ham' stands twice"),
        (("ham", ""), "last", "'' stands as a name"),
        (("ham", 3), "last", "3 stands as a name"),
        (("ham", ["spam"]), "last", "['spam'] stands as a name"),
        (("ham", "sp\x1b[31mam"), "last", "stands as a name"),
        (("ham", "spam"), "max", "unknown pooling 'max'"),
    ],
)
def test_heads_that_mean_nothing(labels, pooling, said):
    with pytest.raises(ModelError) as caught:
        HeadConfig(labels, pooling)
    assert said in caught.value.what and caught.value.fix


def test_trunks_and_draws_that_are_none():
    with pytest.raises(ModelError, match="a Bigram has no state"):
        Classifier(build(BigramConfig(vocabulary=5, context=4)), TWO, seed=0)
    with pytest.raises(ModelError, match="unknown init 'xavier'"):
        Classifier(trunk(), TWO, seed=0, init="xavier")


def test_it_learns():
    """Texts that hold an id and texts that do not, from what the last token alone does not say."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(2, 30, (64, 6), generator=generator)
    labels = torch.arange(64) % 2
    rows[labels == 1, 1] = 1
    model = classifier(width=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(rows, lengths=torch.full((64,), 6)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * math.log(2)


# rewards

REWARD = HeadConfig(("reward",), kind="reward")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reward_model_gives_one_score_a_text(family):
    model = classifier(family, REWARD).eval()
    states = model.trunk(ROWS, head=False)
    wanted = torch.stack([states[0, 4], states[1, 1], states[2, 0]]) @ model.score.weight[0]
    found = model(ROWS, lengths=LENGTHS)
    assert found.shape == (3, 1) and found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], wanted)


def test_mean_and_spread_change_no_raw_score():
    """(5 - 2) / 4 = 0.75 by hand; the network's own answer stays what it is."""
    plain, scaled = classifier(head=REWARD).eval(), classifier(head=REWARD).eval()
    scaled.head_config = HeadConfig(("reward",), kind="reward", mean=2.0, spread=4.0)
    assert torch.equal(plain(ROWS), scaled(ROWS))
    assert normalised(torch.tensor([5.0, 2.0]), scaled.head_config).tolist() == [0.75, 0.0]
    assert normalised(torch.tensor([5.0]), REWARD).tolist() == [5.0]


def test_one_class_is_too_few_whatever_its_name():
    with pytest.raises(ModelError, match="needs two or more"):
        HeadConfig(("reward",))
    assert HeadConfig(("reward", "other")).kind == "classes"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labels": ("score",), "kind": "reward"}, "the outputs of a reward model are ['score']"),
        ({"labels": ("a", "b"), "kind": "reward"}, "the outputs of a reward model are ['a', 'b']"),
        ({"labels": ("a", "b"), "kind": "ranking"}, "unknown kind 'ranking'"),
        ({"labels": ("reward",), "kind": "reward", "spread": 0.0}, "spread 0.0"),
        ({"labels": ("reward",), "kind": "reward", "spread": -1.0}, "spread -1.0"),
        ({"labels": ("reward",), "kind": "reward", "spread": math.nan}, "spread nan"),
        ({"labels": ("reward",), "kind": "reward", "mean": math.inf}, "mean inf"),
        ({"labels": ("reward",), "kind": "reward", "mean": "3"}, "mean '3'"),
        ({"labels": ("reward",), "kind": "reward", "mean": True}, "mean True"),
        ({"labels": ("reward",), "kind": "reward", "mean": 10**400}, "mean 1000"),
        ({"labels": ("a", "b"), "mean": 1.0}, "classes were given mean 1.0"),
        ({"labels": ("a",)}, "['a']"),
    ],
)
def test_rewards_that_mean_nothing(fields, said):
    with pytest.raises(ModelError) as caught:
        HeadConfig(**fields)
    assert said in caught.value.what and caught.value.fix
