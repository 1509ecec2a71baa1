"""Preference tuning cut off and resumed, cut into micro-batches, and computed again by another program."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import GroundupError
from groundup.generate.chat import template_of
from groundup.journal import Journal
from groundup.model import ModelConfig, build
from groundup.settings import Dpo
from groundup.stages import dpo, paired, reference
from groundup.text.styles import STYLES
from groundup.tokens.pairs import pair_rows
from groundup.train import loop

pytestmark = pytest.mark.slow

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,?'\n:|_<>#ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FAST = {
    "batch": 8, "steps": 6, "eval_every": 3, "sample_tokens": 4, "context": 64, "warmup": 0, "log_every": 1, "lr": 1e-3,
    "device": "cpu", "dtype": "fp32", "threads": 1, "seed": 3, "validation": 0.1, "test": 0.1, "save_every": "2",
}  # fmt: skip
WAYS = [
    {"dropout": 0.2},
    {"loss": "orpo", "batching": "padded"},
    {"train": "lora", "lora_rank": 4, "lora_dropout": 0.1},
    {"train": "head", "loss": "ipo", "beta": 0.5},
]


def saved(path: Path, *, seed: int = 1, **changes: Any) -> Path:
    style = STYLES["chatml"]
    words = tokens.train("chars", [LETTERS]).with_special(style.tokens).with_template(style.template)
    fields = {"context": 128, "width": 32, "layers": 2, "heads": 4} | changes
    network = build(ModelConfig(family="llama", vocabulary=words.vocabulary, **fields), seed=seed)
    folder.save_model(path, network, words, card={})
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    draw = np.random.default_rng(7)
    rows = [
        {"prompt": f"what is {number}?", "chosen": "".join(draw.choice(list("abcdef"), 3 + number % 9)),
         "rejected": "".join(draw.choice(list("UVWXYZ"), 4))}
        for number in range(50)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(base: Path, data: Path, out: Path, /, **changes: Any) -> Dpo:
    return Dpo.create(**{"model": str(base), "data": [str(data)], "out": out} | FAST | changes)


def run(base: Path, data: Path, out: Path, **changes: Any) -> dpo.Result:
    result = dpo.run(settings(base, data, out, **changes))
    assert isinstance(result, dpo.Result)
    return result


def resumed(out: Path) -> dpo.Result:
    torch.manual_seed(999)  # the new process has other random numbers
    result = dpo.run(Dpo.create(out=out, resume=True))
    assert isinstance(result, dpo.Result)
    return result


def weights(out: Path) -> dict[str, torch.Tensor]:
    return folder.load(out).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(out: Path, kind: str = "train") -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in Journal(out).read() if record["kind"] == kind]


class Cut(Exception):
    """The plug is pulled."""


def cut_after(patch: pytest.MonkeyPatch, step: int) -> None:
    """Raise in the middle of the step after `step`."""
    real, done = loop._gradient, {"calls": 0}

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value = real(*args, **kwargs)
        done["calls"] += 1
        if done["calls"] > step:
            raise Cut
        return value

    patch.setattr(loop, "_gradient", gradient)


def cut(base: Path, data: Path, out: Path, step: int, **changes: Any) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, step)
        dpo.run(settings(base, data, out, **changes))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs a reference was asked about, call by call."""
    real, calls = reference.pair_log_probabilities, list[int]()

    def asked(model: Any, source: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(source))
        return real(model, source, *args, **kwargs)

    monkeypatch.setattr(reference, "pair_log_probabilities", asked)
    return calls


@pytest.mark.parametrize("step", [1, 5])
@pytest.mark.parametrize("change", WAYS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    base: Path, data: Path, tmp_path: Path, step: int, change: dict[str, Any]
):
    """Cut before the first checkpoint, when everything begins anew, and behind the second."""
    whole = run(base, data, tmp_path / "whole", **change)
    cut(base, data, tmp_path / "cut", step, **change)
    result = resumed(tmp_path / "cut")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    for kind in ("train", "eval"):
        assert losses(tmp_path / "whole", kind) == losses(tmp_path / "cut", kind)
    assert (result.test, result.test_before, result.validation, result.validation_before, result.answers) == (
        whole.test, whole.test_before, whole.validation, whole.validation_before, whole.answers
    )  # fmt: skip


def test_the_reference_is_asked_once_and_needed_no_more(base: Path, data: Path, tmp_path: Path, counted: list[int]):
    """A run that goes on has neither data nor reference at hand."""
    other = saved(tmp_path / "other", seed=2, width=16)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data.read_bytes())
    cut(base, copy, tmp_path / "run", 3, reference=str(other))
    assert sorted(counted) == [5, 5, 40]
    copy.unlink()
    (other / "model.safetensors").unlink()
    result = resumed(tmp_path / "run")
    assert result.steps == 6 and len(counted) == 3 and result.reference == str(other)


def test_a_run_of_adapters_that_have_learnt_does_not_ask_them(
    base: Path, data: Path, tmp_path: Path, counted: list[int]
):
    cut(base, data, tmp_path / "run", 5, train="lora", lora_rank=4, lr=1e-1)
    before = reference.place(tmp_path / "run").read_bytes()
    resumed(tmp_path / "run")
    assert len(counted) == 3 and reference.place(tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize("change", [{}, {"train": "lora", "lora_rank": 4}])
def test_a_reference_that_was_lost_is_not_made_up(base: Path, data: Path, tmp_path: Path, change: dict[str, Any]):
    cut(base, data, tmp_path / "run", 3, **change)
    reference.place(tmp_path / "run").unlink()
    with pytest.raises(GroundupError, match="reference.safetensors is missing, and the model .* has learnt since"):
        resumed(tmp_path / "run")


def test_what_was_measured_at_first_cannot_be_measured_later(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Said before a step is made, and not behind the last one."""
    cut(base, data, tmp_path / "run", 3)
    (tmp_path / "run" / "data" / "before.json").unlink()
    cut_after(monkeypatch, 0)
    with pytest.raises(GroundupError, match=r"before\.json is missing"):
        resumed(tmp_path / "run")


def test_a_reference_of_other_data_is_refused(base: Path, data: Path, tmp_path: Path):
    cut(base, data, tmp_path / "one", 3)
    cut(base, data, tmp_path / "other", 3, seed=4)  # the same pairs, divided otherwise
    place = reference.place(tmp_path / "one")
    place.write_bytes(reference.place(tmp_path / "other").read_bytes())
    with pytest.raises(GroundupError, match="computed for other train pairs than .*data holds now"):
        resumed(tmp_path / "one")


def test_a_changed_part_is_noticed(base: Path, data: Path, tmp_path: Path):
    cut(base, data, tmp_path / "run", 3, loss="simpo", beta=2.0)
    part = tmp_path / "run" / "data" / "train.jsonl"
    part.write_text(part.read_text(encoding="utf-8").replace("what is 1", "what was 1"), encoding="utf-8")
    with pytest.raises(GroundupError, match="the training data .* changed"):
        resumed(tmp_path / "run")


def test_a_base_of_adapters_that_changed_is_refused(data: Path, tmp_path: Path):
    own = saved(tmp_path / "own")
    cut(own, data, tmp_path / "run", 3, train="lora", lora_rank=4)
    saved(own, seed=9)
    with pytest.raises(GroundupError, match="computed by another model"):
        resumed(tmp_path / "run")


@pytest.mark.parametrize("change", [{}, {"loss": "orpo"}])
def test_micro_batches_change_nothing(base: Path, data: Path, tmp_path: Path, change: dict[str, Any]):
    for micro in (8, 2, 1):
        run(base, data, tmp_path / str(micro), micro_batch=micro, **change)
    whole = losses(tmp_path / "8")
    for micro in (2, 1):
        assert [step for step, _ in losses(tmp_path / str(micro))] == [step for step, _ in whole]
        np.testing.assert_allclose(
            [loss for _, loss in losses(tmp_path / str(micro))], [loss for _, loss in whole], rtol=2e-5
        )


@torch.no_grad()
def told_by_transformers(model: Any, ids: list[int], learn: list[bool]) -> float:
    """log p of the answer in a row, from the logits of another program."""
    log_p = model(torch.tensor([ids[:-1]])).logits[0].float().log_softmax(dim=-1)
    return sum(log_p[place, id].item() for place, id in enumerate(ids[1:]) if learn[place + 1])


def test_transformers_finds_the_same_loss(base: Path, data: Path, tmp_path: Path):
    """DPO's loss, margin and accuracy of the test pairs, from two folders that transformers opened."""
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "run"
    result = run(base, data, out, steps=20, lr=3e-3, beta=0.2)
    words = folder.load(out).tokenizer
    rows = pair_rows(words, template_of(words), paired.parts(out).test, context=64).rows
    policy, old = (transformers.AutoModelForCausalLM.from_pretrained(path).eval() for path in (out / "model", base))
    ahead = []
    for pair in rows:
        sides = [
            told_by_transformers(policy, row.ids, row.learn) - told_by_transformers(old, row.ids, row.learn)
            for row in (pair.chosen, pair.rejected)
        ]
        ahead.append(0.2 * (sides[0] - sides[1]))
    assert result.test.loss == pytest.approx(sum(math.log1p(math.exp(-one)) for one in ahead) / 5, abs=1e-4)
    assert result.test.margin == pytest.approx(sum(ahead) / 5, abs=1e-3)
    assert result.test.accuracy == sum(one > 0 for one in ahead) / 5 and result.test.loss < 0.6


def test_the_longer_it_goes_the_better_the_order_of_new_pairs(base: Path, data: Path, tmp_path: Path):
    """Small letters over large ones is a rule, so that pairs never seen come into order as well."""
    result = run(base, data, tmp_path / "run", steps=60, lr=3e-3, eval_every=20)
    assert result.test.accuracy == 1.0 and result.test.loss < 0.3 < math.log(2) - 1e-4 < result.test_before.loss
    assert result.validation.margin > 1 and not any("coin" in remark for remark in result.remarks)
