"""Adapters: nothing changes before the first step, nothing but them after it, and merging is the same network again."""

import contextlib
import copy

import pytest
import torch
from torch.nn import functional as F

from groundup import losses, optim
from groundup.batches import next_token as shifted
from groundup.errors import ModelError
from groundup.generate.ready import ready
from groundup.model import build, lora
from groundup.model.adapted import Adapted, Part
from groundup.model.cache import Cache
from groundup.model.config import BigramConfig, ModelConfig, from_name
from groundup.model.dropout import Dropout
from groundup.model.gpt import Linear
from groundup.model.heads import Classifier, HeadConfig
from groundup.model.lora import LINEAR, TARGETS, LoraConfig
from groundup.model.surgery import with_config

TINY = {"vocabulary": 30, "context": 12, "width": 16, "layers": 2, "heads": 4}
NETWORKS = {
    "gpt2": {"family": "gpt2"},
    "gpt2 untied": {"family": "gpt2", "tie": False},
    "llama": {"family": "llama", "kv_heads": 2},
    "qwen2": {"family": "llama", "kv_heads": 1, "qkv_bias": True, "tie": False},
    "qwen3": {"family": "qwen3", "kv_heads": 2, "head_size": 6},
}
NETWORK = pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS.keys())
SMALL = LoraConfig(rank=2, alpha=3.0)
IDS = torch.tensor([[3, 19, 0, 7, 22], [1, 2, 3, 4, 5]])
TWO = HeadConfig(("ham", "spam"))


def network(fields=None, **changes):
    return randomised(build(ModelConfig(**(TINY | (fields or {"family": "llama"}) | changes)), seed=3))


def randomised(model, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def trained(model, seed=8):
    """Adapters as if they had learnt: B is not zero any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora.parameters(model).values():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def learning(model) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def count(model) -> int:
    return sum(parameter.numel() for parameter in learning(model).values())


# --- what there is -----------------------------------------------------------------------------------------------


def test_the_count_of_the_book():
    """Raschka 2024, appendix E: 12 blocks x 16 x (3 x 1,536 + 1,536 + 2 x 3,840) + 16 x (768 + 2) = 2,666,528."""
    with torch.device("meta"):
        model = Classifier(build(from_name("gpt2")), TWO, seed=None)
    assert count(lora.add(model, LoraConfig(rank=16, targets=TARGETS))) == 2_666_528


def test_the_count_with_an_output_head():
    """24 blocks x 16 x (3 x 2,048 + 2,048 + 2 x 5,120) + 16 x (1,024 + 50,257) = 7,898,384."""
    with torch.device("meta"):
        model = build(from_name("gpt2-medium", tie=False))
    assert count(lora.add(model, LoraConfig(rank=16, targets=TARGETS))) == 7_898_384


def test_shared_keys_have_adapters_of_their_own_size():
    """4 query heads and 2 of keys, 4 numbers each: B of 16, 8 and 8 rows."""
    model = lora.add(network(kv_heads=2), LoraConfig(rank=2, targets=("query", "key", "value")))
    shapes = {name: tuple(p.shape) for name, p in lora.parameters(model).items() if name.startswith("blocks.1.")}
    inside = "blocks.1.attention.qkv"
    assert shapes == {
        f"{inside}.A.query": (2, 16), f"{inside}.B.query": (16, 2),
        f"{inside}.A.key": (2, 16), f"{inside}.B.key": (8, 2),
        f"{inside}.A.value": (2, 16), f"{inside}.B.value": (8, 2),
    }  # fmt: skip


def test_the_first_numbers():
    """A uniform within 1 / sqrt(inputs) = 0.25, B zero; in fp32 though the network is in bf16."""
    model = lora.add(network().bfloat16(), LoraConfig(rank=8), seed=1)
    numbers = lora.parameters(model)
    assert all(value.dtype == torch.float32 for value in numbers.values())
    assert all(not value.any() for name, value in numbers.items() if ".B." in name)
    downs = torch.cat([value.flatten() for name, value in numbers.items() if ".A." in name and value.shape[1] == 16])
    assert 0.24 < downs.abs().max() <= 0.25 and abs(downs.mean()) < 0.01
    assert abs(downs.std() - 0.25 / 3**0.5) < 0.01  # of numbers even over -0.25 .. 0.25


def test_a_seed_draws_its_own_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = (lora.parameters(lora.add(network(), SMALL, seed=7)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)
    other = lora.parameters(lora.add(network(), SMALL, seed=8))
    assert not torch.equal(first["blocks.0.attention.out.A.out"], other["blocks.0.attention.out.A.out"])
    lora.add(network(), SMALL)  # from torch's own generator
    assert not torch.equal(torch.get_rng_state(), before)


# --- arithmetic --------------------------------------------------------------------------------------------------


def layer_by_hand() -> Adapted:
    """W = 0 but for a bias of 10, 20, 30; one adapter on rows 1 and 2: A = (1, 2), B = (3, 4)^T, scale 1/2."""
    linear = Linear(2, 3)
    layer = Adapted(linear, [Part("key", 1, 3, 1, 0.5)], Dropout(0.0))
    with torch.no_grad():
        layer.base_weight.zero_()
        layer.base_bias.copy_(torch.tensor([10.0, 20.0, 30.0]))
        layer.A["key"].copy_(torch.tensor([[1.0, 2.0]]))
        layer.B["key"].copy_(torch.tensor([[3.0], [4.0]]))
    return layer


def test_an_answer_by_hand():
    """x = (5, 6): A x = 17; rows 1 and 2 get 0.5 x 3 x 17 = 25.5 and 0.5 x 4 x 17 = 34; row 0 nothing."""
    layer = layer_by_hand()
    assert layer(torch.tensor([[[5.0, 6.0]]])).tolist() == [[[10.0, 45.5, 64.0]]]
    assert layer.weight.tolist() == [[0.0, 0.0], [1.5, 3.0], [2.0, 4.0]]
    assert layer.merged()(torch.tensor([5.0, 6.0])).tolist() == [10.0, 45.5, 64.0]


def by_autograd(layer: Adapted, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """The same in torch's own words, each adapter on its own."""
    y = F.linear(x, layer.base_weight, layer.base_bias)
    for part in layer.parts:
        change = part.scale * F.linear(F.linear(source, layer.A[part.name]), layer.B[part.name])
        y = y + F.pad(change, (part.begin, layer.out_features - part.end))
    return y


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_autograd(bias, dropout):
    torch.manual_seed(2)
    linear = torch.nn.Linear(6, 9, bias=bias).requires_grad_(False)
    layer = Adapted(linear, [Part("query", 0, 4, 3, 0.7), Part("value", 6, 9, 2, 1.5)], Dropout(dropout))
    for factor in (*layer.A.values(), *layer.B.values()):
        torch.nn.init.normal_(factor)
    x, weights = torch.randn(2, 5, 6, requires_grad=True), torch.randn(2, 5, 9)
    factors = [*layer.A.values(), *layer.B.values()]

    torch.manual_seed(4)
    y = layer(x)
    seen = torch.autograd.grad((y * weights).sum(), [x, *factors])
    torch.manual_seed(4)
    expected_y = by_autograd(layer, x, layer.dropout(x))
    expected = torch.autograd.grad((expected_y * weights).sum(), [x, *factors])
    assert torch.allclose(y, expected_y, atol=1e-6)
    for one, other in zip(seen, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_gradients_in_bf16_point_the_same_way():
    model = trained(lora.add(network(), SMALL, seed=1)).train()
    batch = shifted(IDS)

    def gradients(context):
        model.zero_grad()
        with context:
            losses.next_token(model, batch)[0].backward()
        return torch.cat([parameter.grad.flatten() for parameter in lora.parameters(model).values()])

    exact = gradients(contextlib.nullcontext())
    rough = gradients(torch.autocast("cpu", torch.bfloat16))
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert F.cosine_similarity(rough, exact, dim=0) > 0.99


@NETWORK
def test_nothing_changes_before_the_first_step(fields):
    model = network(fields)
    before = model(IDS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(IDS)
    lora.add(model, SMALL, seed=1)
    assert torch.equal(model(IDS), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(IDS), rough)


def test_what_is_stored_in_bf16_without_autocast():
    model = network().bfloat16()
    before = model(IDS)
    assert torch.equal(lora.add(model, SMALL)(IDS), before) and before.dtype == torch.bfloat16


@NETWORK
def test_merging_is_the_same_network(fields):
    model = trained(lora.add(network(fields), SMALL))
    answer = model(IDS)
    assert not torch.allclose(answer, network(fields)(IDS), atol=0.01)
    plain = lora.merge(model)
    assert plain is model and lora.config_of(plain) is None and not lora.adapted(plain)
    assert torch.allclose(plain(IDS), answer, atol=1e-5)
    fresh = network(fields)
    assert plain.state_dict().keys() == fresh.state_dict().keys()
    assert all(parameter.requires_grad for parameter in plain.parameters())
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(fresh(IDS), plain(IDS))


def test_merging_into_bf16_rounds_once():
    model = trained(lora.add(network().bfloat16(), SMALL))
    layer = model.blocks[0].attention.out
    exact = layer.base_weight.float() + 1.5 * layer.B["out"] @ layer.A["out"]  # alpha 3 / rank 2
    merged = lora.merge(model).blocks[0].attention.out.weight
    assert merged.dtype == torch.bfloat16 and torch.equal(merged, exact.to(torch.bfloat16))


def test_only_the_rows_of_a_target_change():
    """4 query heads and 2 key/value heads of 4 numbers: rows 0-15, 16-23, 24-31."""
    model, before = network(kv_heads=2), network(kv_heads=2).blocks[0].attention.qkv.weight
    trained(lora.add(model, LoraConfig(rank=2, targets=("query", "value"))))
    changed = (model.blocks[0].attention.qkv.weight - before).abs().sum(dim=1) > 0
    assert changed.tolist() == [True] * 16 + [False] * 8 + [True] * 8


# --- what learns -------------------------------------------------------------------------------------------------


def test_a_step_moves_adapters_and_nothing_else():
    model = lora.add(network(), SMALL, seed=1).train()
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name not in lora.parameters(model)}
    groups = optim.groups(model, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == len(lora.parameters(model)) == 2 * 2 * 7
    optimizer = optim.adamw(model, lr=0.03, betas=(0.9, 0.95), weight_decay=0.1)
    first = None
    for _ in range(30):
        loss, _ = losses.next_token(model, shifted(IDS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = loss.item() if first is None else first
    assert loss.item() < 0.8 * first
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name in frozen)
    assert all(value.any() for value in lora.parameters(model).values())


def test_the_score_of_a_classifier_learns_whole_unless_it_is_a_target():
    model = lora.add(Classifier(network(), TWO, seed=1), SMALL)
    assert {name for name in learning(model) if "trunk." not in name} == {"score.weight"}
    model = lora.add(Classifier(network(), TWO, seed=1), LoraConfig(rank=4, targets=TARGETS))
    assert {name for name in learning(model) if "trunk." not in name} == {"score.A.head", "score.B.head"}
    drawn = model.score.base_weight.clone()
    merged = lora.merge(trained(model))
    assert isinstance(merged.score, torch.nn.Linear) and not torch.equal(merged.score.weight, drawn)


def test_a_classifier_merges_to_the_same_answers():
    model = trained(lora.add(Classifier(network(), TWO, seed=1), LoraConfig(rank=4, targets=TARGETS)))
    answer = model(IDS, lengths=torch.tensor([3, 5]))
    assert torch.allclose(lora.merge(model)(IDS, lengths=torch.tensor([3, 5])), answer, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_tables_that_learn_whole(tie):
    also = ["token_table"] if tie else ["token_table.weight", "head.weight"]
    model = lora.add(network(tie=tie).bfloat16(), SMALL, also=also)
    whole = {"token_table.weight"} if tie else {"token_table.weight", "head.weight"}
    assert learning(model).keys() - lora.parameters(model).keys() == whole
    assert all(model.get_parameter(name).dtype == torch.float32 for name in whole)
    assert lora.attached(model).also == tuple(name.removesuffix(".weight") for name in also)


def test_an_adapted_head_is_seen_by_the_loss():
    """The loss takes the head's matrix by itself: it must be the one with the adapter, and its gradient arrive."""
    model = trained(lora.add(network(tie=False), LoraConfig(rank=2, targets=("head",))))
    batch = shifted(IDS)
    loss, _ = losses.next_token(model, batch)
    logits = model(batch.tokens)
    expected = F.cross_entropy(logits.flatten(0, 1), batch.fields["targets"].flatten(), reduction="sum")
    with lora.off(model):
        base, _ = losses.next_token(model, batch)
    assert abs(loss.item() - expected.item()) < 1e-3 < abs(base.item() - expected.item())
    seen = torch.autograd.grad(loss, list(lora.parameters(model).values()))
    wanted = torch.autograd.grad(expected, list(lora.parameters(model).values()))
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_blocks_have_the_same_gradients(dropout):
    def gradients(recompute):
        model = trained(lora.add(network(), LoraConfig(rank=2, dropout=dropout), seed=1)).train()
        model.recompute = recompute
        torch.manual_seed(6)
        losses.next_token(model, shifted(IDS))[0].backward()
        return [parameter.grad for parameter in lora.parameters(model).values()]

    assert all(torch.equal(one, other) for one, other in zip(gradients(False), gradients(True), strict=True))


def test_dropout_is_drawn_from_the_seed_and_only_while_training():
    model = trained(lora.add(network(), LoraConfig(rank=2, dropout=0.5)))
    assert torch.equal(model(IDS), model(IDS))
    model.train()
    torch.manual_seed(1)
    first = model(IDS)
    assert not torch.equal(model(IDS), first)
    torch.manual_seed(1)
    assert torch.equal(model(IDS), first)


# --- off, caches, copies -----------------------------------------------------------------------------------------


@NETWORK
def test_off_is_the_base_bit_for_bit(fields):
    base = network(fields)(IDS)
    model = trained(lora.add(network(fields), SMALL))
    answer = model(IDS)
    with lora.off(model) as same:
        assert same is model and torch.equal(model(IDS), base)
        with lora.off(model):
            pass
        assert torch.equal(model(IDS), base)  # an inner block does not end the outer one
    assert torch.equal(model(IDS), answer)
    with pytest.raises(ValueError, match="inside"), lora.off(model):
        raise ValueError("inside")
    assert torch.equal(model(IDS), answer)


@torch.no_grad()
def test_a_cache_gives_the_same_answers():
    model = trained(lora.add(network(kv_heads=2), SMALL))
    cache = Cache(model.config, batch=2, length=5)
    steps = [model(IDS[:, :3], cache=cache), model(IDS[:, 3:4], cache=cache), model(IDS[:, 4:], cache=cache)]
    assert torch.allclose(torch.cat(steps, dim=1), model(IDS), atol=1e-5)


def test_a_copy_has_adapters_of_its_own():
    model = lora.add(network(), SMALL, seed=1)
    other = copy.deepcopy(model)
    assert lora.config_of(other) == SMALL
    trained(other)
    assert not torch.equal(other(IDS), model(IDS)) and torch.equal(model(IDS), network()(IDS))


def test_decoding_layouts_never_lose_an_adapter():
    """Either they are refused, or the numbers are right."""
    model = trained(lora.add(network(), SMALL))
    answer = model(IDS)
    with contextlib.suppress(ModelError):
        ready(model)
    assert torch.allclose(model(IDS), answer, atol=1e-4)
    merged = lora.merge(trained(lora.add(network(), SMALL)))
    ready(merged)
    assert torch.allclose(merged(IDS), answer, atol=1e-4)


def test_another_config_needs_a_merged_network():
    model = trained(lora.add(network(), SMALL))
    with pytest.raises((ModelError, RuntimeError)):  # nothing is passed over in silence
        with_config(model, model.config)
    answer = model(IDS)
    assert torch.allclose(with_config(lora.merge(model), model.config)(IDS), answer, atol=1e-5)


def test_one_adapter_over_all_three():
    """As other programs make them for gpt2: rows of query, key and value from one A."""
    model = network({"family": "gpt2"})
    plan = {"blocks.1.attention.qkv": [Part("query+key+value", 0, 48, 3, 0.5)]}
    trained(lora.attach(model, plan, LoraConfig(rank=3, targets=())))
    assert lora.parameters(model).keys() == {f"blocks.1.attention.qkv.{kind}.query+key+value" for kind in "AB"}
    answer = model(IDS)
    assert torch.allclose(lora.merge(model)(IDS), answer, atol=1e-5)


# --- what is refused ---------------------------------------------------------------------------------------------


REFUSED = {
    "a target the family lacks": ({"family": "gpt2"}, {"targets": ("query", "gate")}, "'gate' matches nothing: gpt2"),
    "a tied head": ({"family": "llama"}, {"targets": ("head",)}, "the head is the token table itself"),
    "a tied head among all": ({"family": "llama"}, {"targets": TARGETS}, "the head is the token table itself"),
    "a slip": ({"family": "llama"}, {"targets": ("qury",)}, "did you mean 'query'"),
    "no target": ({"family": "llama"}, {"targets": ()}, "no target"),
    "rank 0": ({"family": "llama"}, {"rank": 0}, "rank of the adapters is 0"),
    "half a rank": ({"family": "llama"}, {"rank": 1.5}, "rank of the adapters is 1.5"),
    "a rank beyond the matrix": ({"family": "llama"}, {"rank": 17}, "rank 17 is larger than query"),
    "a rank beyond shared keys": ({"family": "llama", "kv_heads": 1}, {"rank": 5}, "rank 5 is larger than key"),
    "alpha 0": ({"family": "llama"}, {"alpha": 0.0}, "alpha of the adapters is 0.0"),
    "alpha without end": ({"family": "llama"}, {"alpha": float("inf")}, "alpha of the adapters is inf"),
    "dropout 1": ({"family": "llama"}, {"dropout": 1.0}, "dropout of the adapters is 1.0"),
}


@pytest.mark.parametrize(("fields", "wanted", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_in_words_and_nothing_changed(fields, wanted, message):
    model = network(fields)
    with pytest.raises(ModelError, match=message):
        lora.add(model, LoraConfig(**wanted))
    assert lora.config_of(model) is None and not lora.adapted(model) and count(model) > 0
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_all_seven_mean_whatever_the_family_has():
    """A gpt2 has no gate; the default asks for every matrix, and finds it."""
    model = lora.add(network({"family": "gpt2"}), SMALL)
    assert set(SMALL.targets) == set(LINEAR)
    assert {part.name for layer in lora.adapted(model).values() for part in layer.parts} == set(LINEAR) - {"gate"}


def test_adapters_on_adapters_are_refused():
    model = lora.add(network(), SMALL)
    with pytest.raises(ModelError, match="has adapters and cannot be given others"):
        lora.add(model, SMALL)
    with pytest.raises(ModelError, match="cannot be laid out"):
        lora.refuse(model, "laid out")
    lora.add(lora.merge(model), SMALL)


def test_a_plain_network_has_nothing_to_merge_or_turn_off():
    with pytest.raises(ModelError, match="no adapters to merge"):
        lora.merge(network())
    with pytest.raises(ModelError, match="no adapters to turn off"), lora.off(network()):
        pass


def test_a_bigram_has_no_matrix():
    with pytest.raises(ModelError, match="no matrix to adapt"):
        lora.add(build(BigramConfig(vocabulary=5, context=4), seed=0), SMALL)


def test_tables_that_cannot_learn_whole():
    with pytest.raises(ModelError, match="'norm' cannot be trained whole"):
        lora.add(network(), SMALL, also=["norm"])
    with pytest.raises(ModelError, match="head cannot be trained whole: it is the token table itself"):
        lora.add(network(), SMALL, also=["head"])
    with pytest.raises(ModelError, match="head cannot be trained whole: it has an adapter"):
        lora.add(network(tie=False), LoraConfig(rank=2, targets=("head",)), also=["head"])
