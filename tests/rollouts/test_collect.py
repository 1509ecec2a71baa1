"""One rollout: log-probabilities are those of decoding, values those of the states before, rewards in their places."""

from functools import partial

import pytest
import torch

from groundup.errors import DataError, ModelError
from groundup.generate.sample import Sampler
from groundup.model import lora
from groundup.model.values import ActorCritic
from groundup.rollouts import collect as collecting
from groundup.rollouts import figures
from groundup.rollouts import write as writing
from groundup.rollouts.answers import answered, spoken
from groundup.rollouts.collect import collect, judged, paid_out, seed_of
from groundup.rollouts.prompts import Answer, Prompt, Prompts
from groundup.rollouts.rewards import Scored


def decoded(model, prompts, *, settings, number):
    """What decoding itself knew: ids of each answer and log p of each, by the logits that were drawn from."""
    seen = []
    hook = model.register_forward_hook(lambda module, given, out: seen.append(out))
    sampler = Sampler(temperature=settings.temperature, seed=seed_of(settings.seed, number))
    ends = {model.config.vocabulary - 1}  # the end of text
    found = writing.write(model, prompts, most=settings.response_tokens, sampler=sampler, ends=ends)
    hook.remove()
    steps = [
        (out[:, -1] / settings.temperature).log_softmax(-1) for out in seen if out.shape[-1] == model.config.vocabulary
    ]
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), tuple(prompts[row])))
    logp = [[float(steps[j][order.index(row), id]) for j, id in enumerate(ids)] for row, ids in enumerate(found)]
    return found, logp


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_that_decoding_had(
    family, temperature, network, actors, settings, asked, monkeypatch
):
    """Prompts of other lengths padded left, keys and values from the cache; a fresh pass padded right: 1e-5 in fp32."""
    monkeypatch.setattr(writing, "CROWDED", 0.0)  # rows stay where they are, so that their logits can be told apart
    how = settings(algorithm="grpo", group=2, temperature=temperature)
    cast = actors(how, policy=network(4, family))
    found = collect(cast, asked.chosen(range(4)), how, number=3, price=0.1, rows=3)
    prompts = asked.chosen(range(4)).repeated(2).ids
    ids, logp = decoded(cast.policy, prompts, settings=how, number=3)
    assert len({len(each) for each in ids}) > 2 and len({len(each) for each in prompts}) > 2
    for row, (own, truth) in enumerate(zip(ids, logp, strict=True)):
        assert found.answers[row, : len(own)].tolist() == own
        assert found.logp[row, : len(own)].tolist() == pytest.approx(truth, abs=1e-5)
        assert not found.logp[row, len(own) :].any()


def test_a_row_at_a_time_gives_the_same(actors, settings, asked):
    """Each row alone, without any filler, against eight together."""
    how = settings()
    cast = actors(how)
    with torch.no_grad():
        cast.policy.value.weight.normal_(generator=torch.Generator().manual_seed(1))
    one, eight = (collect(cast, asked.chosen(range(6)).repeated(1), how, number=0, price=0.1, rows=r) for r in (1, 8))
    for name, value in one.tensors().items():
        assert torch.allclose(value, eight.tensors()[name], atol=1e-5), name


def test_values_and_reference_are_read_at_the_state_before_each_id(actors, settings, asked, network):
    how = settings(algorithm="ppo")
    reference = network(2).eval()
    cast = actors(how, reference=reference)
    with torch.no_grad():
        cast.policy.value.weight.normal_(generator=torch.Generator().manual_seed(1))
    found = collect(cast, asked, how, number=1, price=0.0, rows=4)
    assert found.values is not None
    for row in range(len(found)):
        prompt, answer = (part[row, : sizes[row]].tolist() for part, sizes in
                          ((found.prompts, found.prompt_sizes), (found.answers, found.sizes)))  # fmt: skip
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            states = cast.policy(ids[:, :-1], head=False)
            values = cast.policy.values(states)[0].tolist()
            logp = cast.policy(ids[:, :-1])[0].log_softmax(-1)
        here = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        truth = [values[place] for place in here]
        assert found.values[row, : len(answer)].tolist() == pytest.approx(truth, abs=1e-5)
        chosen = [float(logp[place, ids[0, place + 1]]) for place in here]
        assert found.logp[row, : len(answer)].tolist() == pytest.approx(chosen, abs=1e-5)


def test_without_adapters_the_policy_is_its_own_reference(actors, settings, asked, network):
    """The reference is read with the adapters off: kl is what they changed, and 0 before they changed anything."""
    how = settings(algorithm="grpo", group=2)
    policy = lora.add(network(1), lora.LoraConfig(rank=2), seed=4)
    cast = actors(how, policy=policy, reference=partial(lora.off, policy))
    first = collect(cast, asked.chosen(range(4)), how, number=0, price=0.1, rows=8)
    assert first.notes["kl"] == 0 and torch.equal(first.ref_logp, first.logp)
    with torch.no_grad():
        for value in lora.parameters(policy).values():
            value += 0.1
    moved = collect(cast, asked.chosen(range(4)), how, number=0, price=0.1, rows=8)
    plain = collecting.Known(moved.prompts, moved.prompt_sizes, moved.answers, moved.sizes)
    truth, _ = plain.read(network(1), cast.machine, temperature=1.0, rows=8)
    assert moved.notes["kl"] > 0.01 and torch.allclose(moved.ref_logp, truth, atol=1e-5)


# what is learnt


def test_rewards_for_every_id_by_hand():
    """Kl 0.5 a nat, log-ratios (0.2, -0.4) and (1): -0.1, 0.2 + score 1; -0.5 - score 2."""
    toll = 0.5 * torch.tensor([[0.2, -0.4, 0.0], [1.0, 0.0, 0.0]])
    paid = paid_out(torch.tensor([1.0, -2.0]), torch.tensor([2, 1]), toll)
    assert torch.allclose(paid, torch.tensor([[-0.1, 1.2, 0.0], [-2.5, 0.0, 0.0]]))


def test_advantages_with_lambda_1_are_all_that_comes_less_what_was_expected(settings):
    """Rewards (-0.1, 1.2), values (0.5, 0.25): 1.1 - 0.5 and 1.2 - 0.25; returns 1.1 and 1.2."""
    how = settings(lam=1.0, gamma=1.0, whiten=False)
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    found = judged(torch.tensor([[-0.1, 1.2, 0.0]]), torch.tensor([[0.5, 0.25, 9.0]]), mask, how)
    assert torch.allclose(found["advantages"], torch.tensor([[0.6, 0.95, 0.0]]))
    assert torch.allclose(found["returns"], torch.tensor([[1.1, 1.2, 0.0]]))


def test_whitened_over_the_whole_rollout(actors, settings, asked):
    how = settings(whiten=True)
    found = collect(actors(how), asked, how, number=0, price=0.1, rows=8)
    there = found.advantages[found.mask.bool()]
    assert float(there.mean()) == pytest.approx(0, abs=1e-5) and float(there.std(correction=0)) == pytest.approx(1)
    assert not found.advantages[~found.mask.bool()].any()


def test_ppo_pays_distance_at_every_id_and_the_score_at_the_last(actors, settings, asked):
    """Values begin at 0; with lambda 1 the return of an id is all that is paid from it on."""
    how = settings(lam=1.0, whiten=False, unfinished=0.75)
    cast = actors(how)
    found = collect(cast, asked, how, number=0, price=0.3, rows=8)
    ref, _ = collecting.Known(found.prompts, found.prompt_sizes, found.answers, found.sizes).read(
        cast.reference, cast.machine, temperature=1.0, rows=8
    )
    for row, size in enumerate(found.sizes.tolist()):
        toll = (-0.3 * (found.logp[row, :size] - ref[row, :size])).tolist()
        length = max(0.0, 1 - abs(size - 4) / 4) - (0 if found.ended[row] else 0.75)
        assert float(found.scores[row]) == pytest.approx(length)
        later = [sum(toll[place:]) + length for place in range(size)]
        assert found.returns[row, :size].tolist() == pytest.approx(later, abs=1e-5)
        assert found.advantages[row, :size].tolist() == pytest.approx(later, abs=1e-5)
    assert len(set(found.ended.tolist())) == 2  # some came to their end, some did not


def test_grpo_compares_answers_to_one_prompt(actors, settings, asked):
    how = settings(algorithm="grpo", group=4)
    found = collect(actors(how), asked.chosen([2, 5]), how, number=0, price=0.1, rows=8)
    assert found.values is None and found.returns is None and found.ref_logp is not None
    for first in (0, 4):
        scores = found.scores[first : first + 4].double()
        truth = (scores - scores.mean()) / scores.std() if scores.std() > 0 else scores * 0
        for row, value in enumerate(truth.tolist(), first):
            size = int(found.sizes[row])
            assert found.advantages[row, :size].tolist() == pytest.approx([value] * size, abs=1e-5)
    one, other = found.prompts[0], found.prompts[4]
    assert torch.equal(one, found.prompts[3]) and not torch.equal(one, other)
    assert len({tuple(ids) for ids in found.answers[:4].tolist()}) > 1  # the same prompt, other answers


def test_the_number_of_a_rollout_decides_its_answers(actors, settings, asked):
    how = settings(algorithm="grpo", group=2)
    cast = actors(how)
    few = asked.chosen(range(4))
    first = collect(cast, few, how, number=0, price=0.1, rows=8)
    second = collect(cast, few, how, number=1, price=0.1, rows=8)
    again = collect(cast, few, how, number=0, price=0.1, rows=8)
    assert not torch.equal(first.answers, second.answers)
    assert all(torch.equal(value, again.tensors()[name]) for name, value in first.tensors().items())


# what is left as it was


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_modes_weights_gradients_and_generators_are_as_before(algorithm, actors, settings, asked, network):
    how = settings(algorithm=algorithm, group=2)
    policy = network(1, dropout_shortcut=0.5)
    cast = actors(how, policy=policy)
    cast.policy.train()
    weights = {name: value.clone() for name, value in cast.policy.state_dict().items()}
    before = torch.get_rng_state()
    found = collect(cast, asked.chosen(range(4)), how, number=0, price=0.1, rows=8)
    assert cast.policy.training and policy.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in cast.policy.state_dict().items())
    assert all(value.grad is None for value in cast.policy.parameters())
    assert not any(value.requires_grad or value.is_inference() for value in found.tensors().values())
    calm = actors(how, policy=network(1))  # nothing was dropped while reading
    assert torch.equal(found.logp, collect(calm, asked.chosen(range(4)), how, number=0, price=0.1, rows=8).logp)


def test_a_reference_that_knows_other_ids_is_refused(actors, settings, network):
    how = settings()
    with pytest.raises(ModelError, match="the policy knows .* ids, the reference 9"):
        actors(how, reference=network(2, vocabulary=9)).check()


def test_a_reward_that_fails_is_said_with_its_prompt(actors, settings, asked):
    how = settings()
    nobody = Prompts([Prompt(asked.prompts[0].messages, None, "row 0")], asked.ids[:1])
    with pytest.raises(DataError, match="row 0 has none"):
        collect(actors(how, rewards=["exact"]), nobody.repeated(8), how, number=0, price=0.1, rows=8)


# figures


def test_notes_by_hand():
    """Two answers of 3 and 1 ids, -log p 1, 2, 3 and 4; under the reference each half as likely again."""
    prompt = Prompt(())
    answers = [Answer(prompt, "a", [1, 2, 3], True), Answer(prompt, "a", [1], False)]
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    logp = -torch.tensor([[1.0, 2.0, 3.0], [4.0, 7.0, 7.0]])
    rewards = Scored([1.0, 0.0], {"exact": [1.0, 0.0], "length": [0.5, 0.25]})
    found = figures.notes(answers, rewards, logp=logp, mask=mask, ref_logp=logp - 0.5)
    assert found == pytest.approx({
        "reward": 0.5, "reward.exact": 0.5, "reward.length": 0.375, "length": 2.0, "ended": 0.5, "entropy": 2.5,
        "written": 4.0, "distinct": 0.5, "repetition": 0.0, "kl": (1.5 + 0.5) / 2,
    })  # fmt: skip
    assert figures.spread(torch.tensor([1.0, 3.0])) == 1.0


def test_explained_variance_by_hand():
    """Returns 0 and 4 (variance 4); values off by 1 and -1 (variance 1), by a constant (0), or no better than one."""
    returns, mask = torch.tensor([[0.0, 4.0]]), torch.ones(1, 2)
    assert figures.explained(torch.tensor([[1.0, 3.0]]), returns, mask) == 0.75
    assert figures.explained(torch.tensor([[7.0, 11.0]]), returns, mask) == 1.0
    assert figures.explained(torch.tensor([[2.0, 2.0]]), returns, mask) == 0.0
    assert figures.explained(torch.tensor([[4.0, 0.0]]), returns, mask) == -3.0
    assert figures.explained(returns, torch.ones(1, 2), mask) == 0.0


def test_a_rollout_has_all_figures(actors, settings, asked):
    how = settings()
    found = collect(actors(how, rewards=["length:4", "0.5*regex:a"]), asked, how, number=7, price=0.25, rows=8)
    assert set(found.notes) == {
        "reward", "reward.length", "reward.regex", "length", "ended", "entropy", "distinct", "repetition", "kl",
        "kl_coefficient", "score_spread", "explained_variance", "rollout", "written", "written_per_second",
    }  # fmt: skip
    assert found.notes["rollout"] == 7 and found.notes["kl_coefficient"] == 0.25
    assert found.notes["written"] == int(found.sizes.sum())  # each answer once, however often it is learnt from
    assert found.notes["written_per_second"] > 0
    again = {"written_per_second": 0.0}  # a clock's: all others are the same the next time
    second = collect(actors(how, rewards=["length:4", "0.5*regex:a"]), asked, how, number=7, price=0.25, rows=8)
    assert second.notes | again == found.notes | again


def test_groups_without_a_difference_are_counted(actors, settings, asked):
    """Advantages of (1, 0), (1, 1), (0, 0), (0, 1): two of the four groups teach nothing. Only GRPO has groups."""
    scores = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    assert figures.flat(collecting.compared(scores, torch.ones(8, 3), group=2), group=2) == 0.5
    how = settings(algorithm="grpo", group=4, unfinished=0.0)
    for reward, share in (("regex:^", 1.0), ("length:4", 0.0)):  # found in every answer; lengths differ
        found = collect(actors(how, rewards=[reward]), asked.chosen(range(2)), how, number=0, price=0.1, rows=8)
        assert found.notes["flat"] == share


# text


def test_an_answer_reads_as_chat_shows_it(actors, settings, asked, tokenizer, template):
    from groundup.generate.chat import answers

    how = settings()
    model = actors(how, policy=None).policy.policy
    greedy = Sampler(temperature=0)
    found = answered(model, tokenizer, template, asked, most=12, sampler=greedy)
    said = answers(model, tokenizer, template, [prompt.messages for prompt in asked.prompts], max_tokens=12)
    assert [answer.text for answer in found] == said
    assert all((answer.ids[-1] in tokenizer.ends) == answer.ended for answer in found)
    assert all(answer.ended or len(answer.ids) == 12 for answer in found)


def test_what_a_template_puts_before_an_answer_is_no_part_of_it(tokenizer):
    ids = tokenizer.encode(" abc  d ")
    assert spoken(tokenizer, [1], ids, "ab") == "c  d"


def test_ids_beyond_the_vocabulary_have_no_text(tokenizer):
    assert spoken(tokenizer, [1], [*tokenizer.encode("ab"), tokenizer.vocabulary + 3]) == "ab"


def test_a_policy_with_values_answers_as_it_does_without(network, tokenizer, template, asked):
    model = network(1)
    warm = Sampler(temperature=1.0, seed=2)
    plain, valued = (answered(each, tokenizer, template, asked, most=9, sampler=warm)
                     for each in (model, ActorCritic(model, seed=0)))  # fmt: skip
    assert plain == valued
