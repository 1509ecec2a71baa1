"""From instructions to answers: by hand on small things, then what the lesson does with weights and with a judge."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from groundup import tokens
from groundup.checkpoint import folder
from groundup.evaluate.judge import scores as judge
from groundup.model import build
from groundup.model.config import ModelConfig, count_parameters, from_name
from groundup.text import conversations

SMALL = ModelConfig(family="gpt2", vocabulary=50257, context=512, width=8, layers=1, heads=2)


@pytest.fixture(scope="module")
def lesson(data_dir, climb):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_DATA", str(data_dir))
        yield climb("instructions")


def test_entries_are_divided_as_in_the_book(lesson, tmp_path):
    """I01: 935, 55 and 110 of 1,100, each entry in one part; a file in Alpaca's form is read in their place."""
    parts = lesson["parts"]
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [935, 55, 110]
    assert parts["train"] + parts["test"] + parts["validation"] == lesson["data"]
    for name, talks in {"train": "train", "test": "test", "validation": "valid"}.items():
        answers = [talk.messages[-1]["content"] for talk in getattr(lesson["by_the_library"], talks)]
        assert answers == [entry["output"] for entry in parts[name]]
    alpaca = [{"instruction": f"Say {n}.", "input": "", "output": str(n), "text": "..."} for n in range(40)]
    (tmp_path / "alpaca.json").write_text(json.dumps(alpaca), encoding="utf-8")
    split = conversations.split(conversations.read(tmp_path / "alpaca.json"), protocol="book")
    assert [len(split.train), len(split.valid), len(split.test)] == [34, 2, 4]


def test_filler_changes_no_loss(lesson):
    """I02: the batch worked by hand; every row keeps its own loss, and the first end-of-text is a target."""
    inputs, targets = lesson["collate"]([[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]], 50256)
    end, no = 50256, -100
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, end, end, end], [7, 8, 9, end, end]]
    assert targets.tolist() == [[1, 2, 3, 4, end], [6, end, no, no, no], [8, 9, end, no, no]]
    alone, together = lesson["alone"], lesson["together"]
    assert together.item() == pytest.approx(sum(one.item() for one in alone), rel=1e-5)
    assert lesson["by_weight"].item() == pytest.approx(together.item(), rel=1e-5)
    longer = lesson["collate"]([[5, 6], [7, 8, 9], list(range(30))], 50256)  # the same rows with more filler
    with torch.no_grad():
        logits = lesson["network"](longer[0][:2]).flatten(0, 1)
        loss = F.cross_entropy(logits, longer[1][:2].flatten(), reduction="sum")
    assert loss.item() == pytest.approx(sum(one.item() for one in alone[1:]), rel=1e-5)


def test_the_style_is_the_books(lesson):
    """I02: the prompt as the book prints it, with an input and without."""
    first = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    assert lesson["asked"]({"instruction": "Add.", "input": "1, 2"}) == (
        f"{first}\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n"
    )
    assert (
        lesson["asked"]({"instruction": "Sing.", "input": ""})
        == f"{first}\n\n### Instruction:\nSing.\n\n### Response:\n"
    )


def test_loaders_of_eight(lesson):
    """I03: 116 batches of eight rows, as long as their longest; the first two have the lengths that the book prints."""
    assert len(lesson["shapes"]) == 116 and lesson["shapes"][:2] == [(8, 61), (8, 76)]
    inputs, targets = next(iter(lesson["train"]))
    assert inputs.shape == targets.shape and inputs.shape[0] == 8
    assert torch.equal(inputs[:, 1:][targets[:, :-1] >= 0], targets[:, :-1][targets[:, :-1] >= 0])
    assert lesson["filler"]["bucketed"] < 0.05 < lesson["filler"]["in any order"]


def test_gpt2_medium_has_355_million():
    """I04: the network that waits for the weights has their number of parameters."""
    assert count_parameters(from_name("355M")).total == 354_823_168


def test_only_the_answer_is_learnt_and_drawn_green(lesson):
    """I02, I05: nine ids of entry 50; the picture has a box for each id, green where the loss counts it."""
    row = lesson["row"]
    text = [lesson["tokenizer"].decode([id]) for id, learnt in zip(row.ids, row.learn, strict=True) if learnt]
    assert "".join(text) == "The correct spelling is 'Occasion.'<|endoftext|>" and len(text) == 9
    boxes = [one.get_bbox_patch().get_facecolor()[:3] for one in lesson["axes"].texts]
    assert len(boxes) == len(row.ids)
    assert [red < green for red, green, _ in boxes] == row.learn


def test_thirty_instructions_are_learnt_by_heart(lesson):
    """I05: the loss falls, and all thirty answers come back to the letter, ended where they end."""
    curve = lesson["curve"]
    assert curve[-1] < 0.1 < 3 < curve[0]
    assert lesson["before"].right == 0 and lesson["after"].right >= 28 and lesson["after"].rows == 30


def test_the_books_run_draws_and_counts_as_the_book(lesson):
    """I05: beside plain loops, the same random numbers in the same order: the same losses."""
    short = sorted(lesson["data"], key=lambda entry: len(str(entry)))[:24]
    train, valid = lesson["loader"](short[:16], train=True), lesson["loader"](short[16:], train=False)
    ours = lesson["the_books_run"](build(SMALL, seed=3), train, valid, epochs=3)

    model, pairs = build(SMALL, seed=3), (train, valid)

    def loss(inputs, targets):
        kept = targets.flatten() != -100
        log_p = model(inputs).flatten(0, 1).log_softmax(dim=-1)[kept]
        return -log_p[torch.arange(len(log_p)), targets.flatten()[kept]].mean()

    def means(loaders: tuple[DataLoader, ...]):
        with torch.no_grad():
            found = [[loss(*one).item() for one in islice(loader, 5)] for loader in loaders]
        return [sum(values) / len(values) for values in found]

    torch.manual_seed(123)
    before, log, step = means(pairs), [], 0
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    for _ in range(3):
        for one in train:
            optimizer.zero_grad()
            loss(*one).backward()
            optimizer.step()
            if step % 5 == 0:
                log.append(means(pairs))
            step += 1
    assert list(ours["before"].values()) == pytest.approx(before, abs=1e-4)
    assert list(ours["loss"]["first"].values()) == pytest.approx(log[0], abs=1e-4)
    assert list(ours["loss"]["last"].values()) == pytest.approx(log[-1], abs=1e-4) and len(log) == 2
    assert before[0] == pytest.approx(math.log(50257), abs=0.5) and log[-1][0] < before[0]


def test_the_library_runs_the_recipe_and_keeps_every_answer(lesson, tmp_path, monkeypatch):
    """I05, I06: instruct with the book's parts: 110 test entries, an answer beside each, in a file a judge can read."""
    monkeypatch.setattr("groundup.stages.instruct.ANSWER_TOKENS", 8)
    folder.save_model(tmp_path / "base", build(SMALL, seed=1), tokens.gpt2(), card={})
    result = lesson["with_the_library"](tmp_path / "base", tmp_path / "run", steps=2, eval_every=2, sample_tokens=2,
                                        epochs=None, device="cpu", threads=1)  # fmt: skip
    assert result.rows == {"train": 935, "valid": 55, "test": 110} and result.learnt_share == 1
    assert result.test_loss < result.test_loss_before
    written = json.loads((tmp_path / "run" / "answers.json").read_text(encoding="utf-8"))
    assert len(written) == 110 and all(isinstance(entry["model_response"], str) for entry in written)
    assert [entry["output"] for entry in written] == [entry["output"] for entry in lesson["parts"]["test"]]
    assert len(judge.read(tmp_path / "run" / "answers.json")) == 110


@contextmanager
def server(replies: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A judge on this machine that speaks as OpenAI's does: its address, and what it was asked."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send({"data": [{"id": "one"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append(body["messages"][-1]["content"])
            self.send({"choices": [{"message": {"content": replies[(len(heard) - 1) % len(replies)]}}]})

        def send(self, document):
            content = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_address[1]}/v1", heard
        finally:
            found.shutdown()
            thread.join()


def test_a_judge_is_asked_read_and_averaged(lesson, tmp_path, monkeypatch, capsys):
    """I07: each answer goes to the address with its question and the expected one; the mean is that of the scores."""
    entries = [{"instruction": f"Say {n}.", "output": str(n), "model_response": f"it is {n}"} for n in range(4)]
    (tmp_path / "answers.json").write_text(json.dumps(entries), encoding="utf-8")
    with server(['{"score": 80}', '{"score": 50}', 'I think 20: {"score": 20}', '{"score": 70}']) as (address, heard):
        assert lesson["judged"](tmp_path / "answers.json", address) == pytest.approx(55)
    assert len(heard) == 4
    for entry, text in zip(entries, heard, strict=True):
        assert all(entry[name] in text for name in ("instruction", "output", "model_response"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    assert lesson["judged"](tmp_path / "answers.json") is None and "127.0.0.1:9" in capsys.readouterr().out


def test_a_mean_is_made_of_scores_alone(lesson):
    """I07: what is no score from 0 to 100 counts as none, never as 0; a judge that cannot tell is unfit."""
    assert lesson["scores"] == [85, 90, None, None] and sum(lesson["usable"]) / 2 == 87.5
    always = lesson["checked"]([80.0] * 30, [80.0] * 30)
    assert always.area == 0.5 and not always.fit


def test_what_is_handed_over_is_the_same_data(lesson):
    """I08: Alpaca's JSON for LitGPT is the book's own file again; messages for Axolotl have both roles in order."""
    assert lesson["as_alpaca"] == lesson["parts"]["train"]
    assert len(lesson["as_messages"]) == 935
    for one in lesson["as_messages"]:
        assert [message["role"] for message in one["messages"]] == ["user", "assistant"]
        assert all(isinstance(message["content"], str) and message["content"] for message in one["messages"])
