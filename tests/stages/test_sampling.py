"""Which samples a run draws: packed documents resumed bit for bit, and what `--sampling auto` decides, once."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from groundup.batches import PackedDocuments
from groundup.checkpoint import folder
from groundup.errors import SettingsError
from groundup.journal import Journal
from groundup.model import gpt
from groundup.settings import Pretrain, read_toml
from groundup.stages import corpus, pretrain
from groundup.train import loop

SMALL = {
    "tokenizer": "chars", "width": 16, "layers": 1, "heads": 2, "context": 32, "dropout": 0.2, "batch": 4, "steps": 6,
    "eval_every": 6, "eval_tokens": 100, "sample_every": 0, "log_every": 1, "save_every": "2", "sampling": "packed",
    "device": "cpu", "dtype": "fp32", "threads": 1,
}  # fmt: skip


@pytest.fixture
def stories(tmp_path):
    """80 short documents and one long one."""
    path = tmp_path / "stories.jsonl"
    texts = [f"The fox {'sleeps ' * (i % 4)}{i}." for i in range(80)] + ["The owl reads. " * 20]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def settings(stories, out, **changes):
    return Pretrain.create(data=[str(stories)], out=out, **(SMALL | changes))


class Cut(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_packed_run_is_the_uninterrupted_one_bit_for_bit(stories, tmp_path, monkeypatch, step):
    pretrain.run(settings(stories, tmp_path / "whole"))
    real, calls = loop._gradient, []

    def gradient(*args, **more):
        calls.append(1)
        if len(calls) > step:
            raise Cut
        return real(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(loop, "_gradient", gradient)
        pretrain.run(settings(stories, tmp_path / "cut"))
    torch.manual_seed(999)
    pretrain.run(Pretrain.create(out=tmp_path / "cut", resume=True))
    one, other = (folder.load(tmp_path / name).model.state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_recomputing_trains_the_same_weights(stories, tmp_path, monkeypatch):
    real, calls = gpt.checkpoint, []
    monkeypatch.setattr(gpt, "checkpoint", lambda *args, **more: calls.append(1) or real(*args, **more))
    for name, again in (("plain", False), ("again", True)):
        pretrain.run(settings(stories, tmp_path / name, recompute=again))
        assert bool(calls) == again
    one, other = (folder.load(tmp_path / name).model.state_dict() for name in ("plain", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_filler_is_counted_out_and_told(stories, tmp_path):
    checks = pretrain.run(settings(stories, tmp_path / "dry", dry_run=True))
    assert checks.sampling == "packed" and 0 < checks.filler < 0.1
    assert f"sampling packed ({checks.filler:.1%} filler)" in pretrain.describe(checks)
    result = pretrain.run(settings(stories, tmp_path / "run", steps=3))
    assert 3 * 4 * 32 * 0.7 < result.tokens < 3 * 4 * 32
    train = [record for record in Journal(tmp_path / "run").read() if record["kind"] == "train"]
    assert train[-1]["tokens"] == result.tokens


def test_auto_is_decided_once_and_written_down(stories, tmp_path):
    pretrain.run(settings(stories, tmp_path / "run", sampling="auto", steps=2))
    assert read_toml(tmp_path / "run" / "settings.toml")["sampling"] == "documents"
    pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, steps=3))
    with pytest.raises(SettingsError, match="cannot change 'sampling' from 'documents' to 'packed'"):
        pretrain.run(Pretrain.create(out=tmp_path / "run", resume=True, sampling="packed"))


@pytest.mark.parametrize(
    ("sizes", "changes", "wanted"),
    [
        ([30] * 100, {}, "documents"),
        ([30] * 100 + [5000] * 40, {}, "documents"),  # most are short
        ([30] * 40 + [5000] * 100, {}, "windows"),  # most are long
        ([64] * 100, {}, "windows"),  # as long as the context
        ([30] * (corpus.MANY - 1), {}, "windows"),  # few
        ([30] * 100, {"stride": 8}, "windows"),  # asked for
        ([5000], {}, "windows"),
        ([30] * 100, {"sampling": "random"}, "random"),
    ],
)
def test_auto_takes_documents_where_most_of_many_are_short(sizes, changes, wanted):
    starts = (np.cumsum(sizes) - sizes).astype(np.uint64)
    text = SimpleNamespace(train=np.zeros(sum(sizes), np.uint16), documents=starts)
    assert corpus.sampling(Pretrain.create(**changes), text, 64) == wanted


@pytest.mark.parametrize(("bos", "end", "start"), [(None, 7, 7), (3, 7, 3), (None, None, None)])
def test_a_packed_document_begins_as_an_empty_prompt_does(bos, end, start):
    text = SimpleNamespace(
        train=np.arange(20), documents=np.array([0, 9]), tokenizer=SimpleNamespace(bos=bos, end_of_text=end)
    )
    source = corpus.source(Pretrain.create(sampling="packed"), text, 16)
    assert isinstance(source, PackedDocuments) and source.start == start
