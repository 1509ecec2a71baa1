"""Every byte of a checkpoint is covered; what is newer, damaged or half-written is named; a snapshot stands still."""

import copy
import json
import random
import shutil

import pytest
import torch

from groundup.checkpoint import atomic, folder
from groundup.errors import CheckpointError, SettingsError
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.settings import Pretrain
from groundup.tokens.simple import Characters
from groundup.train import run

CONFIG = ModelConfig(family="gpt2", vocabulary=20, context=8, width=8, layers=1, heads=2)
TOKENIZER = Characters.learn(["abcdefgh ijklm"], special=["<|endoftext|>"])


def trained():
    """A model and its optimizer after one step: Adam's moments are there."""
    model = build(CONFIG, seed=1)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer)
    return model, optimizer


def step(model, optimizer):
    model(torch.tensor([[1, 2, 3]])).logsumexp(-1).sum().backward()
    optimizer.step()


def snapshot(model, optimizer, number):
    progress = run.Progress(step=number, batches={"cursor": 4 * number})
    rng = {"cpu": torch.get_rng_state()}
    return run.snapshot(model, optimizer, progress=progress, rng=rng, card={"steps": number})


@pytest.fixture
def out(tmp_path):
    """A run folder with checkpoints of steps 6 and 7, RUN/model and RUN/best."""
    model, optimizer = trained()
    for number in (6, 7):
        run.save(tmp_path, snapshot(model, optimizer, number), TOKENIZER, keep=2)
    folder.save_model(tmp_path / "best", model, TOKENIZER, card={})
    return tmp_path


# --- what a checkpoint holds -------------------------------------------------------------------------------------


def test_a_checkpoint_gives_back_every_bit(out):
    model, optimizer = trained()
    other = build(CONFIG, seed=2)
    fresh = torch.optim.AdamW(other.parameters())
    progress, rng = run.restore(run.latest(out), other, fresh)
    assert progress == run.Progress(step=7, batches={"cursor": 28})
    assert torch.equal(rng["cpu"], torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert optimizer.state[one].keys() == fresh.state[two].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(optimizer.state[one][key], fresh.state[two][key]) for key in fresh.state[two])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_snapshot_apart_is_not_moved_by_later_steps(family):
    """Of a model in training, one shares its memory (so the test can fail), the other does not."""
    torch.manual_seed(0)
    model = build(ModelConfig(family=family, vocabulary=20, context=8, width=8, layers=1, heads=2), seed=1)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer)
    near = snapshot(model, optimizer, 1)
    far = run.apart(near, model, optimizer)
    before = copy.deepcopy(far)
    step(model, optimizer)
    for part in (lambda taken: taken.model.tensors, lambda taken: taken.state):
        still, kept, moved = part(far), part(before), part(near)
        assert all(torch.equal(still[name], kept[name]) for name in kept)
        assert not all(torch.equal(moved[name], kept[name]) for name in kept)
    assert far.progress == before.progress


def test_the_bytes_of_a_snapshot_are_those_on_the_disk(out):
    taken = snapshot(*trained(), 7)
    size = sum(path.stat().st_size for path in run.latest(out).rglob("*.safetensors"))
    assert abs(taken.bytes - size) < 100_000


# --- every byte --------------------------------------------------------------------------------------------------


def bits(path, dice):
    """(byte, bit): in the list of hashes all bits of its head, one of each other byte; elsewhere what chance picks."""
    size = path.stat().st_size
    if path.name == atomic.MANIFEST:
        return [(n, bit) for n in range(size) for bit in (range(8) if n < 40 else [dice.randrange(8)])]
    places = {0, 1, 7, 8, size // 2, size - 2, size - 1, *(dice.randrange(size) for _ in range(24))}
    return [(n, dice.randrange(8)) for n in sorted(places) if n < size]


@pytest.mark.parametrize("name", ["state/step-00000007", "model", "best"])
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(out, name):
    dice = random.Random(5)
    place = out / name
    files = sorted(path for path in place.rglob("*") if path.is_file())
    assert {"hashes.json", "model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        for position, bit in bits(path, dice):
            spoiled = bytearray(content)
            spoiled[position] ^= 1 << bit
            path.write_bytes(spoiled)
            with pytest.raises(CheckpointError) as caught:
                atomic.verify(place, complete=True)
            assert str(path) in str(caught.value), (path, position, bit)
        path.write_bytes(content)
    assert atomic.verify(place, complete=True)


def test_each_missing_file_is_named(out):
    for path in sorted(path for path in run.latest(out).rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(CheckpointError, match="is missing") as caught:
            run.latest(out)
        assert str(path) in str(caught.value)
        path.write_bytes(content)
    assert run.latest(out).name == "step-00000007"


@pytest.mark.parametrize("name", ["more.safetensors", "model/vocab.json", "model/deep/er.json"])
def test_a_file_too_many_is_named(out, name):
    strange = run.latest(out) / name
    strange.parent.mkdir(exist_ok=True)
    strange.write_text("x")
    with pytest.raises(CheckpointError, match="does not belong there") as caught:
        run.latest(out)
    assert str(strange) in str(caught.value)


def test_what_file_managers_leave_does_no_harm(out):
    (run.latest(out) / ".DS_Store").write_text("x")
    assert run.latest(out).name == "step-00000007"


# --- damaged, newer, half-written --------------------------------------------------------------------------------


def test_a_damaged_newest_names_the_older_one_and_the_way_there(out):
    newest = run.latest(out)
    (newest / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state.json is missing") as caught:
        run.latest(out)
    assert "--resume then goes on from step-00000006, which is whole" in caught.value.fix
    newest.rename(newest.with_name("step-00000007.damaged"))
    assert run.latest(out).name == "step-00000006"


def test_without_an_older_whole_one_nothing_is_promised(out):
    for checkpoint in run.checkpoints(out):
        (checkpoint / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="truncated") as caught:
        run.latest(out)
    assert "step-00000006" not in caught.value.fix


def rewritten(checkpoint, change):
    """The checkpoint as another version would have written it: hashes and all."""
    values = json.loads((checkpoint / "state.json").read_text())
    change(values)
    (checkpoint / "state.json").write_text(json.dumps(values))
    atomic.seal(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(format=2), "state.json has format 2, this groundup knows 1"),
        (lambda values: values.update(format="two"), "state.json has format two"),
        (lambda values: values.update(shards=[3], rhythm=1), "unknown here: rhythm, shards"),
    ],
)
def test_a_newer_state_is_refused_by_name(out, change, message):
    checkpoint = run.latest(out)
    rewritten(checkpoint, change)
    model, optimizer = trained()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message) as caught:
        run.restore(checkpoint, model, optimizer)
    assert "newer groundup" in caught.value.fix and str(checkpoint) in caught.value.what
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_newer_checkpoint_does_not_send_anyone_to_an_older_one(out):
    manifest = run.latest(out) / atomic.MANIFEST
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match="has format 2") as caught:
        run.latest(out)
    assert "newer groundup" in caught.value.fix and "damaged" not in caught.value.fix


def test_a_state_without_a_number_of_its_format_is_that_of_part_one(out):
    checkpoint = run.latest(out)
    rewritten(checkpoint, lambda values: values.pop("format"))
    progress, _ = run.restore(checkpoint, *trained())
    assert progress.step == 7


def test_settings_of_a_newer_groundup_are_named(tmp_path):
    (tmp_path / "settings.toml").write_text('steps = 5\nquantum = true\nzeal = "high"\n')
    with pytest.raises(SettingsError, match="unknown here: quantum, zeal") as caught:
        run.open_run(tmp_path, Pretrain.create(out=tmp_path, resume=True))
    assert "newer groundup" in caught.value.fix and "settings.toml" in caught.value.what


def test_what_killed_writers_left_is_cleared_away(out):
    for name in ("state/.step-00000008.writing", "state/.step-00000005.old", ".best.writing", ".model.writing"):
        (out / name).mkdir()
        (out / name / "half").write_text("x")
    shutil.move(out / "model", out / ".model.old")  # between the two renames
    run.tidy(out)
    assert sorted(path.name for path in out.iterdir()) == ["best", "model", "state"]
    assert [path.name for path in run.checkpoints(out)] == ["step-00000007", "step-00000006"]
    assert len(list((out / "state").iterdir())) == 2


def test_weights_renewed_while_they_are_read_are_read_again(out, monkeypatch):
    real, turns = atomic.verify, []

    def verify(place, **kwargs):
        """The first look falls into a replacement: files are gone, and a moment later there are others."""
        turns.append(place)
        if len(turns) == 1:
            run.publish(out, run.checkpoints(out)[1])
            raise CheckpointError(f"{place / 'config.json'} is missing")
        return real(place, **kwargs)

    monkeypatch.setattr(atomic, "verify", verify)
    assert folder.load(out).card["steps"] == 6 and len(turns) == 2


def test_the_newest_is_the_one_of_the_highest_step(out):
    (out / "state" / "step-100000000").mkdir()  # a digit more than the names are padded to
    (out / "state" / "step-00000009.damaged").mkdir()
    assert [path.name for path in run.checkpoints(out)] == ["step-100000000", "step-00000007", "step-00000006"]
