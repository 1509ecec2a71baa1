"""The compiled step, traced but not compiled (so no compiler is needed), equals the plain forward pass everywhere."""

import pytest
import torch

from groundup.generate import Sampler, generate, ready
from groundup.generate.compiled import CompiledStep
from groundup.model import ModelConfig, build
from groundup.model.cache import Cache

pytestmark = pytest.mark.slow  # processes, threads and compilers


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@torch.inference_mode()
def test_every_step_equals_the_whole_pass(family: str):
    groups = {} if family == "gpt2" else {"kv_heads": 2}
    config = ModelConfig(
        family=family, vocabulary=40, context=10, width=16, layers=2, heads=4, init="torch", tie=False, **groups
    )
    model = build(config, seed=1).eval()
    tokens = torch.randint(40, (3, 10), generator=torch.Generator().manual_seed(5))
    filler = torch.arange(10) >= torch.tensor([0, 2, 3])[:, None]
    for real in (None, filler):
        cache = Cache(config, batch=3, length=10)
        model(tokens[:, :4], padding=None if real is None else real[:, :4], cache=cache, head=False)
        step = CompiledStep(model, cache, backend="aot_eager")
        for time in range(5, 11):
            seen = None if real is None else real[:, :time]
            got = step(tokens[:, :time], seen)
            torch.testing.assert_close(got, model(tokens[:, :time], padding=seen)[:, -1], atol=1e-5, rtol=1e-5)
            assert cache.length == time


def test_shapes_never_change():
    """One graph for all places: a second one would mean half a minute more in the middle of a text."""
    torch._dynamo.reset()
    config = ModelConfig(family="llama", vocabulary=40, context=10, width=16, layers=1, heads=4)
    model, tokens = build(config, seed=1).eval(), torch.zeros(1, 10, dtype=torch.long)
    with torch.inference_mode():
        cache = Cache(config, batch=1, length=10)
        model(tokens[:, :4], cache=cache, head=False)
        step = CompiledStep(model, cache, backend="eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            for time in range(5, 11):
                step(tokens[:, :time], None)


def test_a_model_made_ready_for_it_writes_the_same(monkeypatch: pytest.MonkeyPatch):
    """Rows of unequal length, sampled, beyond the context; the steps really are the compiled ones."""
    made = []

    def traced(model: torch.nn.Module, cache: Cache) -> CompiledStep:
        made.append(CompiledStep(model, cache, backend="eager"))
        return made[-1]

    monkeypatch.setattr("groundup.generate.decode.CompiledStep", traced)
    config = ModelConfig(family="qwen3", vocabulary=40, context=10, width=16, layers=1, heads=4, init="torch")
    prompts, sampler = [[1, 2, 3], [4], [5, 6]], Sampler(seed=2)
    plain = list(generate(build(config, seed=1), prompts, max_tokens=14, sampler=sampler))
    model = build(config, seed=1)
    ready(model, rows=3, compiled=True)
    assert list(generate(model, prompts, max_tokens=14, sampler=sampler)) == plain
    assert len(made) == 1
