"""A policy with values on the disk: everyone opens the policy, only a run that goes on reads the values."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.checkpoint import atomic, folder, values
from groundup.errors import CheckpointError
from groundup.model import build, lora
from groundup.model.config import ModelConfig
from groundup.model.lora import LoraConfig
from groundup.model.values import ActorCritic
from groundup.optim import adamw
from groundup.tokens.simple import Characters
from groundup.train import run

TOKENIZER = Characters.learn(["abcdefgh ijklm"], special=["<|endoftext|>"])
IDS = torch.tensor([[3, 14, 0, 7], [1, 2, 3, 4]])
FAMILIES = ["gpt2", "llama", "qwen3"]


def policy(family="llama", seed=1):
    return build(ModelConfig(family=family, vocabulary=20, context=8, width=8, layers=1, heads=2), seed=seed)


def judge(family="llama", seed=1):
    """Values that are not zero, so that losing them shows."""
    model = ActorCritic(policy(family, seed))
    with torch.no_grad():
        model.value.weight.copy_(torch.linspace(-1, 1, 8)[None])
        model.value.bias.fill_(0.25)
    return model.eval()


def adapted(seed=1):
    model = judge(seed=seed)
    lora.add(model.policy, LoraConfig(rank=2, base="base", base_sha256="ab" * 32), seed=seed)
    with torch.no_grad():
        for value in lora.parameters(model.policy).values():
            value.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(seed))
    return model


def trained(model):
    optimizer = adamw(model, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    step(model, optimizer)
    return optimizer


def step(model, optimizer):
    states = model(IDS, head=False)
    (model.values(states).square().sum() + model(IDS).logsumexp(-1).sum()).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def snapshot(model, optimizer, number=3):
    rng = {"cpu": torch.get_rng_state()}
    return run.snapshot(model, optimizer, progress=run.Progress(step=number), rng=rng, card={"steps": number})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_is_the_policys_and_the_values_lie_beside_it(tmp_path, family):
    model = judge(family)
    folder.save_model(tmp_path / "with", model, TOKENIZER, card={})
    folder.save_model(tmp_path / "without", model.policy, TOKENIZER, card={})
    names = {path.name for path in (tmp_path / "with").iterdir()}
    assert names - {path.name for path in (tmp_path / "without").iterdir()} == {values.NAME}
    for name in names - {values.NAME, atomic.MANIFEST}:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert values.NAME in json.loads((tmp_path / "with" / atomic.MANIFEST).read_text(encoding="utf-8"))["files"]
    opened = folder.load(tmp_path / "with").model
    assert type(opened) is type(model.policy)
    assert torch.equal(opened(IDS), model(IDS))


def test_everything_comes_back(tmp_path):
    model = judge()
    folder.save_model(tmp_path / "m", model, TOKENIZER, card={})
    other = judge(seed=2)
    with torch.no_grad():
        other.value.weight.zero_()
    folder.restore(other, tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_adapters_on_the_policy_come_back_with_the_values(tmp_path):
    model = adapted()
    folder.save_model(tmp_path / "m", model, TOKENIZER, card={})
    keys = load_file(tmp_path / "m" / "adapter_model.safetensors").keys()
    assert keys and all(key.startswith("base_model.model.model.layers.0.") for key in keys)
    assert load_file(tmp_path / "m" / values.NAME).keys() == {"weight", "bias"}
    other = adapted(seed=2)
    folder.restore(other, tmp_path / "m")
    found, wanted = lora.parameters(other), lora.parameters(model)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert torch.equal(other.value.weight, model.value.weight)


@pytest.mark.parametrize("make", [judge, adapted])
def test_a_checkpoint_gives_back_every_bit_and_the_next_step(tmp_path, make):
    model = make()
    optimizer = trained(model)
    run.save(tmp_path, snapshot(model, optimizer), TOKENIZER)
    other = make(seed=1 if make is adapted else 2)  # adapters stand on the same base
    fresh = adamw(other, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    run.restore(run.latest(tmp_path), other, fresh)
    names = {name for name in load_file(run.latest(tmp_path) / "state.safetensors") if name.startswith("optimizer.")}
    assert {"optimizer.value.weight.exp_avg", "optimizer.value.bias.exp_avg"} <= names
    step(model, optimizer)
    step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    if make is judge:
        assert torch.equal(folder.load(tmp_path).model(IDS), folder.read_model(tmp_path / "model")(IDS))


def test_a_snapshot_apart_holds_values_of_its_own():
    """One that shares memory moves with the next step (so the test can fail), the other does not."""
    model = judge()
    optimizer = trained(model)
    near = snapshot(model, optimizer)
    far = run.apart(near, model, optimizer)
    name = f"{values.MARK}weight"
    before = near.model.tensors[name].clone()
    step(model, optimizer)
    assert torch.equal(far.model.tensors[name], before) and not torch.equal(near.model.tensors[name], before)
    assert near.bytes - space_without(near) == 4 * 9


def space_without(taken):
    """Bytes of a snapshot but for its values."""
    return taken.bytes - sum(v.numel() * v.element_size() for n, v in taken.model.tensors.items()
                             if n.startswith(values.MARK))  # fmt: skip


def test_a_folder_without_values_is_refused_before_anything_changes(tmp_path):
    folder.save_model(tmp_path / "m", policy(seed=2), TOKENIZER, card={})
    model = judge()
    before = model(IDS).clone()
    with pytest.raises(CheckpointError, match="value.safetensors is missing.*\n.*another --out"):
        folder.restore(model, tmp_path / "m")
    assert torch.equal(model(IDS), before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(1, 9), "bias": torch.zeros(1)}, r"weight \(1, 9\).*wanted are weight \(1, 8\)"),
        ({"weight": torch.zeros(1, 8)}, r"holds weight \(1, 8\), wanted"),
        ({"weight": torch.zeros(1, 8), "bias": torch.zeros(1), "more": torch.zeros(2)}, r"more \(2,\)"),
        ({"weight": torch.full((1, 8), float("nan")), "bias": torch.zeros(1)}, "weight holds numbers that are not"),
    ],
)
def test_values_of_another_network_are_refused(tmp_path, content, message):
    model = judge()
    folder.save_model(tmp_path / "m", model, TOKENIZER, card={})
    save_file(content, tmp_path / "m" / values.NAME)
    before = model.value.weight.clone()
    with pytest.raises(CheckpointError, match=message):
        folder.restore(model, tmp_path / "m")
    assert torch.equal(model.value.weight, before)


def test_a_changed_value_is_noticed_when_the_folder_is_opened(tmp_path):
    folder.save_model(tmp_path / "m", judge(), TOKENIZER, card={})
    path = tmp_path / "m" / values.NAME
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="value.safetensors was altered"):
        folder.load(tmp_path / "m")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_opens_the_policy(tmp_path, family):
    transformers = pytest.importorskip("transformers")
    model = judge(family)
    folder.save_model(tmp_path / "m", model, TOKENIZER, card={})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS), rtol=1e-4, atol=1e-4)
