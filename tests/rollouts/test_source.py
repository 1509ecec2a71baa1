"""Batches of a policy's own answers: each answer once a pass, and a resumed run goes on to the bit."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from groundup.errors import CheckpointError, DataError, SettingsError
from groundup.losses.policy import policy as policy_loss
from groundup.machine import Machine
from groundup.rollouts import source
from groundup.rollouts.prompts import Prompts
from groundup.rollouts.rewards import Part, Rewards
from groundup.rollouts.source import Examples, Rollouts

quiet = lambda text: None  # noqa: E731


def drawn(batches, count):
    """The ids of the next answers, prompt and all, one tuple each."""
    rows = []
    for batch in itertools.islice(batches, count):
        for ids, weight, target in zip(batch.tokens, batch.fields["weight"], batch.fields["targets"], strict=True):
            last = int(weight.nonzero().max())
            rows.append((*ids[: last + 1].tolist(), int(target[last])))
    return rows


def own(batches):
    """The ids of all answers of the present rollout."""
    rollout = batches.rollout
    parts = ((rollout.prompts, rollout.prompt_sizes), (rollout.answers, rollout.sizes))
    return [tuple(id for ids, sizes in parts for id in ids[row, : sizes[row]].tolist()) for row in range(len(rollout))]


@pytest.mark.parametrize("micro", [1, 2, 4, 8])
def test_every_answer_comes_once_a_pass_and_every_pass_has_its_own_order(micro, actors, settings, asked):
    how = settings(passes=3)
    batches = Rollouts(actors(how), asked, how, micro=micro, say=quiet)
    rows = drawn(iter(batches), 24 // micro)
    passes = [rows[first : first + 8] for first in (0, 8, 16)]
    assert all(sorted(each) == sorted(own(batches)) for each in passes)
    assert len({tuple(each) for each in passes}) == 3
    assert batches.number == 1 and batches.cursor == 24


def test_the_order_does_not_depend_on_how_a_step_is_split(actors, settings, asked):
    how = settings()
    split = [drawn(iter(Rollouts(actors(how), asked, how, micro=m, say=quiet)), 16 // m) for m in (1, 8)]
    assert split[0] == split[1]


def test_prompts_come_in_epochs(actors, settings, asked):
    """Six prompts, four a rollout: three rollouts are two epochs, each prompt once in each."""
    how = settings(algorithm="grpo", group=2, passes=1)
    batches = Rollouts(actors(how), asked, how, micro=8, say=quiet)
    line = [row for number in range(3) for row in batches._prompts(number)]
    assert sorted(line[:6]) == sorted(line[6:]) == list(range(6)) and line[:6] != line[6:]
    for number, batch in enumerate(itertools.islice(batches, 3)):
        assert batch.notes["rollout"] == number
        assert [tuple(batches.rollout.prompts[2 * place][: len(asked.ids[row])].tolist())
                for place, row in enumerate(batches._prompts(number))] == [
                    tuple(asked.ids[row]) for row in batches._prompts(number)]  # fmt: skip


def test_more_prompts_a_rollout_than_there_are(actors, settings, asked):
    """A prompt that comes twice in a rollout gets two answers."""
    how = settings(responses=8)
    batches = Rollouts(actors(how), asked.chosen([0, 1]), how, micro=8, say=quiet)
    next(iter(batches))
    assert len(set(own(batches))) > 4


# going on


def stepped(batches, policy, steps, *, optimizer):
    """Train on so many batches, one a step."""
    loss = policy_loss(clip_ratio=0.2, value_clip=0.2, value_weight=0.1, entropy_weight=0.01, kl=0.1)
    for batch in itertools.islice(batches, steps):
        policy.train()
        total, _ = loss(policy, batch)
        (total / batch.count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def through_a_file(state):
    """A state as a checkpoint keeps it: numbers as JSON, tensors as safetensors."""
    plain = json.loads(
        json.dumps({name: value for name, value in state.items() if not isinstance(value, torch.Tensor)})
    )
    tensors = {name: value.contiguous() for name, value in state.items() if isinstance(value, torch.Tensor)}
    return plain | load(save(tensors))


@pytest.mark.parametrize(("algorithm", "stop"), [*(("ppo", n) for n in (0, 1, 3, 4, 5)), ("grpo", 3), ("grpo", 8)])
def test_going_on_from_anywhere_gives_the_same_weights_to_the_bit(algorithm, stop, actors, settings, asked):
    """A rollout is 4 batches: 0 none yet, 1 and 5 in a first pass, 3 in a second pass, 4 and 8 used up."""
    how = settings(algorithm=algorithm, group=2, response_tokens=12, kl_target=1.0)
    whole = actors(how)
    rate = {"lr": 0.02}
    batches = Rollouts(whole, asked, how, micro=4, say=quiet)
    stepped(batches, whole.policy, 9, optimizer=torch.optim.SGD(whole.policy.parameters(), **rate))

    first = actors(how)
    batches = Rollouts(first, asked, how, micro=4, say=quiet)
    stepped(batches, first.policy, stop, optimizer=torch.optim.SGD(first.policy.parameters(), **rate))
    kept, weights = through_a_file(batches.state()), first.policy.state_dict()

    second = actors(how)
    second.policy.load_state_dict(weights)
    batches = Rollouts(second, asked, how, micro=4, say=quiet)
    batches.restore(kept)
    stepped(batches, second.policy, 9 - stop, optimizer=torch.optim.SGD(second.policy.parameters(), **rate))
    final = whole.policy.state_dict()
    assert all(torch.equal(value, final[name]) for name, value in second.policy.state_dict().items())
    assert any(not torch.equal(value, weights[name]) for name, value in final.items())


def test_nothing_is_written_again_in_the_middle_of_a_rollout(actors, settings, asked, monkeypatch):
    how = settings()
    batches = Rollouts(actors(how), asked, how, micro=4, say=quiet)
    stream = iter(batches)
    next(stream)
    again = Rollouts(actors(how), asked, how, micro=4, say=quiet)
    again.restore(through_a_file(batches.state()))
    monkeypatch.setattr(source, "collect", lambda *_, **__: pytest.fail("the answers were there"))
    one, other = drawn(stream, 3), drawn(iter(again), 3)
    assert one == other


def test_a_smaller_micro_batch_goes_on_with_the_same_answers(actors, settings, asked):
    how = settings()
    batches = Rollouts(actors(how), asked, how, micro=4, say=quiet)
    stream = iter(batches)
    next(stream)
    again = Rollouts(actors(how), asked, how, micro=2, say=quiet)
    again.restore(through_a_file(batches.state()))
    assert drawn(iter(again), 6) == drawn(stream, 3)


def test_a_new_rollout_leaves_the_tensors_of_the_last_alone(actors, settings, asked):
    """A thread may still be writing them into a checkpoint."""
    how = settings(passes=1)
    batches = Rollouts(actors(how), asked, how, micro=4, say=quiet)
    stream = iter(batches)
    next(stream)
    held = {name: value for name, value in batches.state().items() if isinstance(value, torch.Tensor)}
    before = {name: value.clone() for name, value in held.items()}
    list(itertools.islice(stream, 3))
    assert batches.number == 2 and all(torch.equal(held[name], before[name]) for name in held)
    assert not {value.data_ptr() for value in held.values()} & {
        v.data_ptr() for v in batches.rollout.tensors().values()
    }


def test_a_used_up_rollout_is_not_kept(actors, settings, asked):
    how = settings()
    batches = Rollouts(actors(how), asked, how, micro=8, say=quiet)
    list(itertools.islice(batches, 2))
    assert not any(isinstance(value, torch.Tensor) for value in batches.state().values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 6}, "seed"),
        ({"responses": 16}, "responses"),
        ({"passes": 3}, "passes"),
        ({"group": 2}, "group"),
        ({"algorithm": "grpo", "group": 1}, "algorithm"),
    ],
)
def test_another_run_is_told_apart(changes, said, actors, settings, asked):
    how, other = settings(), settings(**changes)
    batches = Rollouts(actors(how), asked, how, micro=4, say=quiet)
    next(iter(batches))
    with pytest.raises(CheckpointError, match=f"saved with {said} = "):
        Rollouts(actors(other), asked, other, micro=4, say=quiet).restore(batches.state())


def test_other_prompts_are_told_apart(actors, settings, asked):
    how = settings()
    state = Rollouts(actors(how), asked, how, micro=4, say=quiet).state()
    with pytest.raises(CheckpointError, match="saved with prompts = "):
        Rollouts(actors(how), asked.chosen([1, 0, 2, 3, 4, 5]), how, micro=4, say=quiet).restore(state)


@pytest.mark.parametrize("spoil", [{"cursor": -1}, {"number": None}, {"price": "much"}, {"rollout.logp": None}])
def test_a_damaged_place_is_refused(spoil, actors, settings, asked):
    how = settings()
    batches = Rollouts(actors(how), asked, how, micro=4, say=quiet)
    next(iter(batches))
    state = {name: value for name, value in (batches.state() | spoil).items() if value is not None}
    before = batches.state()
    with pytest.raises(CheckpointError, match="damaged|not whole"):
        batches.restore(state)
    assert batches.state().keys() == before.keys() and batches.cursor == 4


# what else it does


def test_the_price_follows_the_distance_and_is_told_with_the_batch(actors, settings, asked):
    how = settings(kl=0.1, kl_target=1e-3, passes=1)
    batches = Rollouts(actors(how), asked, how, micro=8, say=quiet)
    prices = [batch.notes["kl_coefficient"] for batch in itertools.islice(batches, 3)]
    assert prices == pytest.approx([0.1, 0.11, 0.121]) and batches.state()["price"] == pytest.approx(0.1331)


def test_answers_that_are_all_cut_are_said_once(actors, settings, asked, network):
    how, said = settings(passes=1, response_tokens=2), []
    policy = network(1)
    with torch.no_grad():
        policy.head.weight[-1] = 0  # the end of text is one of forty
        policy.head.weight *= 4
    batches = Rollouts(actors(how, policy=policy), asked, how, micro=8, say=said.append)
    found = list(itertools.islice(batches, 3))
    assert [batch.notes["ended"] for batch in found] == [0, 0, 0]
    assert len(said) == 1 and said[0].startswith("responses are all cut at 2 tokens")


@pytest.mark.parametrize("changes", [{"micro": 3}, {"group": 3}, {"batch": 5}])
def test_a_rollout_that_cannot_be_divided_is_refused(changes, actors, settings, asked):
    how = settings(**{name: value for name, value in changes.items() if name != "micro"})
    with pytest.raises(SettingsError, match="8 responses cannot be divided"):
        Rollouts(actors(how), asked, how, micro=changes.get("micro", 4), say=quiet)


def test_ppo_needs_values(actors, settings, asked, network):
    how = settings()
    cast = actors(settings(algorithm="grpo"), policy=network(1))
    with pytest.raises(SettingsError, match="a policy with values"):
        Rollouts(cast, asked, how, micro=4)


def test_prompts_without_answers_are_found_before_anything_is_written(actors, settings, asked):
    from groundup.rollouts.prompts import Prompt

    how = settings()
    silent = Prompts([Prompt(each.messages, None, each.where) for each in asked.prompts], asked.ids)
    with pytest.raises(DataError, match="row 0 has none"):
        Rollouts(actors(how, rewards=["exact"]), silent, how, micro=4)


def test_a_few_answers_of_the_rollout_can_be_read(actors, settings, asked):
    """The first answers to its first three prompts, as the reward saw them, with what it gave; none before the first.

    The reward gives answer number n n / 2, and who did not come to an end loses 5.
    """
    how, seen = settings(algorithm="grpo", group=2, unfinished=5.0), []

    def halves(answers):
        seen.extend(answers)
        return [number / 2 for number in range(len(answers))]

    cast = dataclasses.replace(actors(how), rewards=Rewards((Part("halves", halves, "halves"),)))
    batches = Rollouts(cast, asked, how, micro=4, say=quiet)
    assert batches.samples() == ""
    next(iter(batches))
    truth = [
        f"{seen[n].prompt.messages[0]['content']}\n-> {' '.join(seen[n].text.split())}  "
        f"({n / 2 - 5 * (not seen[n].ended):g})"
        for n in (0, 2, 4)
    ]
    assert batches.samples().split("\n\n") == truth and len({each.prompt.where for each in seen[:6]}) == 3
    again = Rollouts(cast, asked, how, micro=4, say=quiet)
    again.restore(through_a_file(batches.state()))
    assert again.samples() == batches.samples()


# what a batch costs


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_examples_are_like_real_batches(algorithm, actors, settings, asked):
    how = settings(algorithm=algorithm, group=2)
    cast = actors(how)
    before = torch.get_rng_state()
    examples = Examples(asked, how)
    like = examples.batch(np.arange(4))
    assert torch.equal(torch.get_rng_state(), before)
    real = next(iter(Rollouts(cast, asked, how, micro=4, say=quiet)))
    assert like.fields.keys() == real.fields.keys()
    assert {name: (value.dtype, value.dim()) for name, value in like.fields.items()} == {
        name: (value.dtype, value.dim()) for name, value in real.fields.items()
    }
    assert like.count == 4 * how.response_tokens and like.tokens.shape[1] == examples.lengths[:4].max()
    loss = policy_loss(clip_ratio=0.2, value_clip=0.2, value_weight=0.1, entropy_weight=0.0, kl=0.1)
    total, _ = loss(cast.policy, like)
    total.backward()
    assert bool(total.isfinite())


def test_an_epoch_is_every_prompt_with_all_its_answers_in_every_pass(asked, settings):
    how = settings(algorithm="grpo", group=4, passes=3)
    examples = Examples(asked, how)
    assert len(examples) == 6 * 4 * 3 == len(examples.lengths)
    assert examples.lengths[:6].tolist() == [len(ids) + 23 for ids in asked.ids]


@pytest.mark.parametrize(("dtype", "noise"), [(torch.float32, 1e-9), (torch.bfloat16, 1e-3)])
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_before_the_first_step_the_policy_is_the_one_that_answered(algorithm, dtype, noise, actors, settings, asked):
    """The ratio of new to old probability is 1: the loss of the loop reads what the rollout read."""
    how = settings(algorithm=algorithm, group=2)
    cast = actors(how)
    cast = dataclasses.replace(cast, machine=Machine(torch.device("cpu"), dtype, 1))
    batch = next(iter(Rollouts(cast, asked, how, micro=4, say=quiet)))
    loss = policy_loss(clip_ratio=0.2, value_clip=0.2, value_weight=0.1, entropy_weight=0.0, kl=0.1)
    with cast.machine.autocast():
        _, numbers = loss(cast.policy.train(), batch)
    assert abs(float(numbers["ratio_kl"])) / batch.count < noise and float(numbers["clip_fraction"]) == 0
