"""Filtered distributions and whole greedy texts equal those of transformers."""

import itertools

import pytest
import torch

from groundup.generate.sample import Sampler

processors = pytest.importorskip("transformers.generation.logits_process")

GRID = [
    (temperature, k, p, penalty)
    for temperature, k, p, penalty in itertools.product(
        [0.3, 1.0, 2.5], [0, 1, 7, 500], [0.05, 0.6, 0.95, 1.0], [1.0, 1.4, 0.7]
    )
]


def theirs(ids: torch.Tensor, logits: torch.Tensor, settings: tuple[float, int, float, float]) -> torch.Tensor:
    """The processors in the order in which `generate` of transformers calls them."""
    temperature, k, p, penalty = settings
    steps = [processors.RepetitionPenaltyLogitsProcessor(penalty), processors.TemperatureLogitsWarper(temperature)]
    steps += [processors.TopKLogitsWarper(k)] if k else []
    steps += [processors.TopPLogitsWarper(p)] if p < 1 else []
    for step in steps:
        logits = step(ids, logits)
    return logits.softmax(-1)


def test_filtered_distributions_are_equal():
    draws = torch.Generator().manual_seed(5)
    for settings in GRID:
        logits = 4 * torch.randn(3, 60, generator=draws)
        ids = torch.randint(60, (3, 11), generator=draws)
        seen = torch.zeros(3, 60, dtype=torch.bool).scatter_(1, ids, True)
        temperature, k, p, penalty = settings
        sampler = Sampler(temperature=temperature, top_k=k, top_p=p, repetition_penalty=penalty)
        ours = sampler.scores(logits, seen).softmax(-1)
        torch.testing.assert_close(ours, theirs(ids, logits.clone(), settings), rtol=1e-5, atol=1e-6)


def test_ties_at_the_kth_place_are_kept_as_theirs():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    ours = Sampler(temperature=1, top_k=2).scores(logits).softmax(-1)
    torch.testing.assert_close(ours, theirs(torch.zeros(1, 1, dtype=torch.long), logits, (1.0, 2, 1.0, 1.0)))


def test_greedy_text_with_a_penalty_equals_theirs():
    """A batch padded on the left: 15 new ids of a Llama with random weights, 60 ids in all."""
    transformers = pytest.importorskip("transformers")
    from groundup.checkpoint.names import hf_config, to_hf
    from groundup.generate.decode import generate
    from groundup.model import ModelConfig, build

    config = ModelConfig(
        family="llama", vocabulary=60, context=32, width=16, layers=2, heads=4, kv_heads=2, init="torch", tie=False
    )
    model = build(config, seed=4)
    settings = transformers.LlamaConfig(**hf_config(config, bos=None, eos=None, pad=0, dtype="float32"))
    other = transformers.LlamaForCausalLM(settings).eval()
    other.load_state_dict(to_hf(model.state_dict(), config), strict=False)
    prompts = [[5, 6, 7, 8], [9, 10]]
    padded = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    found = [[] for _ in prompts]
    for step in generate(model, prompts, max_tokens=15, sampler=Sampler(temperature=0, repetition_penalty=1.3)):
        for row, new in zip(found, step.ids, strict=True):
            row.append(new)
    for prompt, row in zip(prompts, found, strict=True):  # alone: their penalty would count the padding as text
        alone = other.generate(torch.tensor([prompt]), max_new_tokens=15, do_sample=False, repetition_penalty=1.3)
        assert alone[0, len(prompt) :].tolist() == row
    plain = other.generate(padded, attention_mask=mask, max_new_tokens=15, do_sample=False)[:, 4:].tolist()
    steps = list(generate(model, prompts, max_tokens=15, sampler=Sampler(temperature=0)))
    assert [list(row) for row in zip(*(step.ids for step in steps), strict=True)] == plain
    assert plain != found  # the penalty changed something
