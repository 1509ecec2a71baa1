"""Our models under lm-eval: equal to its own models for transformers on the same folder, and to our own figures."""

import importlib.util
import json
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import DataError, ModelError, SettingsError
from groundup.evaluate import choices, harness
from groundup.evaluate.choices import pair
from groundup.generate import Sampler, generate_text
from groundup.model import ModelConfig, build
from groundup.text.choices import read

TEXT = "The cat sat on the hat. The hat sat on the cat, and the mat had that. " * 4
ITEMS = 32

TASK = """
    task: tiny_swag
    dataset_path: json
    dataset_kwargs:
      data_files: {data}
    output_type: multiple_choice
    test_split: train
    process_docs: !function tiny_utils.prepared
    doc_to_text: "{{{{query}}}}"
    doc_to_target: "{{{{gold}}}}"
    doc_to_choice: "{{{{choices}}}}"
    metric_list:
      - metric: acc
      - metric: acc_norm
      - metric: acc_bytes
"""
PREPARED = """
    import re

    def clean(text):
        return re.sub(r"\\[.*?\\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    def one(doc):
        told = doc["ctx_a"] + " " + doc["ctx_b"].capitalize()
        return {
            "query": clean(doc["activity_label"] + ": " + told),
            "choices": [clean(ending) for ending in doc["endings"]],
            "gold": int(doc["label"]),
        }

    def prepared(dataset):
        return dataset.map(one)
"""


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A model folder with weights large enough to have opinions, and a vocabulary learnt from HellaSwag itself."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    lines = (data_dir / "eval" / "hellaswag.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    tokenizer = tokens.train("bpe", [json.loads(line)["ctx"] for line in lines], vocabulary=600)
    model = build(ModelConfig(family="llama", vocabulary=600, context=224, width=32, layers=2, heads=4), seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.dim() == 2 else None
    folder.save_model(path, model, tokenizer, card={})
    return path


@pytest.fixture
def swag(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task file over the first items of HellaSwag; data sets are kept here, and nothing is fetched."""
    datasets = pytest.importorskip("datasets", reason="lm-eval is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    lines = (data_dir / "eval" / "hellaswag.jsonl").read_text(encoding="utf-8").splitlines()[:ITEMS]
    data = tmp_path / "swag.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "tiny_utils.py").write_text(textwrap.dedent(PREPARED), encoding="utf-8")
    task = tmp_path / "tiny.yaml"
    task.write_text(textwrap.dedent(TASK).format(data=data), encoding="utf-8")
    return task


@pytest.fixture
def theirs(tiny: Path) -> Any:
    """lm-eval's own model for transformers on the same folder."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny), device="cpu", dtype="float32", batch_size=4)


@pytest.fixture
def ours(tiny: Path) -> Any:
    loaded = folder.load(tiny, dtype=torch.float32)
    if importlib.util.find_spec("lm_eval") is None:
        return harness.Answers(loaded.model, loaded.tokenizer, batch=4)
    return harness.adapter(loaded.model, loaded.tokenizer, batch=4)


lm_eval_says_much = pytest.mark.filterwarnings("default")  # it and what it stands on warn of each other


@pytest.mark.slow
@lm_eval_says_much
def test_three_ways_to_the_same_figures(tiny: Path, swag: Path, theirs: Any, ours: Any):
    """Our own task, our model under lm-eval, and lm-eval's own model: acc, acc_norm, acc_bytes and their errors."""
    loaded = folder.load(tiny, dtype=torch.float32)
    _, items = read(swag.with_name("swag.jsonl"))
    own = choices.marks(choices.choose(loaded.model, loaded.tokenizer, items))
    for lm in (ours, theirs):
        found = {score.metric: score for score in harness.run(lm, [str(swag)])}
        assert set(found) == {"acc", "acc_norm", "acc_bytes"}
        for name, score in found.items():
            assert score.task == "tiny_swag" and score.items == ITEMS
            assert score.value == pytest.approx(getattr(own, name), abs=1e-12)
            assert score.error == pytest.approx(getattr(own, f"{name}_error"), abs=1e-12)
    assert own.cut and not own.straddled and 0 < own.acc < 1, "some items are longer than the context, too"
    limited = harness.run(ours, [str(swag)], limit=5)
    assert {score.items for score in limited} == {5}


@pytest.mark.slow
@lm_eval_says_much
def test_each_likelihood_is_that_of_transformers(theirs: Any, ours: Any):
    contexts = ["The man", "The man ", "", "A woman in a dress. " * 20, "Question: what?\nAnswer:", "End<|endoftext|>"]
    requests = [asked(context, more) for context in contexts for more in (" is in the", " a", " swims. He dives.")]
    found, true = ours.loglikelihood(requests), theirs.loglikelihood(requests)
    assert [log_p for log_p, _ in found] == pytest.approx([log_p for log_p, _ in true], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in true]


@pytest.mark.slow
@lm_eval_says_much
def test_a_context_that_does_not_fit_is_cut_as_theirs(theirs: Any, ours: Any):
    long = "A woman holds a violin and plays it for a man. " * 40
    requests = [asked(long, " He claps."), asked(long[:300], " She stops")]
    assert len(ours.tokens.encode(long)) > 2 * ours.context
    pairs = zip(ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True)
    assert all(one[0] == pytest.approx(other[0], abs=1e-3) for one, other in pairs)


@pytest.mark.slow
@lm_eval_says_much
def test_whole_texts_are_measured_as_theirs(theirs: Any, ours: Any):
    texts = ["The man.", "A woman holds a violin and plays it for a man. " * 40]
    found = ours.loglikelihood_rolling([asked(text) for text in texts])
    true = theirs.loglikelihood_rolling([asked(text) for text in texts])
    assert found == pytest.approx(true, rel=1e-5)


@pytest.mark.slow
@lm_eval_says_much
def test_greedy_texts_are_theirs(theirs: Any, ours: Any):
    wish = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    requests = [asked(text, dict(wish)) for text in ("The man", "A woman in a dress", "Pole vault is" * 60)]
    requests.append(asked("The man", wish | {"max_gen_toks": 3}))
    assert ours.generate_until(requests) == theirs.generate_until(requests)


# without the library


def test_requests_keep_their_order_and_settings(ours: Any):
    wish = {"until": [], "max_gen_toks": 4}
    requests = [asked("The man", wish), asked("A dog", wish | {"max_gen_toks": 2}), asked("He", wish)]
    loaded = (ours.model, ours.tokens)
    expected = [
        generate_text(*loaded, context, max_tokens=most, temperature=0)
        for context, most in (("The man", 4), ("A dog", 2), ("He", 4))
    ]
    assert ours.generate_until(requests, disable_tqdm=True) == expected
    assert ours.generate_until(requests[::-1], disable_tqdm=True) == expected[::-1]


def test_stop_strings_end_a_text(ours: Any):
    whole = generate_text(ours.model, ours.tokens, "The man", max_tokens=8, temperature=0)
    stop = whole[3:5]
    [found] = ours.generate_until([asked("The man", {"until": [stop, ""], "max_tokens": 8})], disable_tqdm=True)
    assert found == whole[: whole.index(stop)]


def test_what_was_cut_and_what_went_on_is_counted(ours: Any):
    """224 tokens are seen: of three requests the second is longer, of three texts the last is longer than 220."""
    long = "A woman holds a violin and plays it for a man. " * 40
    ours.loglikelihood([asked("The man", " is"), asked(long, " is"), asked("", " a")], disable_tqdm=True)
    assert (ours.cut, ours.unfinished) == (1, 0)
    ours.loglikelihood_rolling([asked(long)], disable_tqdm=True)
    assert (ours.cut, ours.unfinished) == (1, 0), "a text in windows loses nothing"
    wish = {"max_gen_toks": 4}
    whole = generate_text(ours.model, ours.tokens, "The man", max_tokens=4, temperature=0)
    requests = [asked("The man", wish | {"until": [whole[0]]}), asked("The man", wish), asked(long, wish)]
    ours.generate_until(requests, disable_tqdm=True)
    assert (ours.cut, ours.unfinished) == (2, 2)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("task: my_task\n", "my_task"),
        ("tag: x\ntask:   'my-task'  # mine\n", "my-task"),
        ("task:\n  - one\n  - two\ngroup: both\n", "both"),
        ("group: both\ntask:\n- one\n", "both"),
        ("task: one\ngroup: both\n", "both"),
        ("group:\n  x: 1\ntask: one\n", "one"),
    ],
)
def test_the_name_of_a_task_file(tmp_path: Path, text: str, name: str):
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    assert harness._name_in(tmp_path / "t.yaml") == name


def test_a_task_file_whose_name_is_on_another_line(tmp_path: Path):
    (tmp_path / "t.yaml").write_text("task:\noutput_type: multiple_choice\n", encoding="utf-8")
    with pytest.raises(DataError, match="names no task"):
        harness._name_in(tmp_path / "t.yaml")


def test_an_answer_longer_than_the_context_is_refused(ours: Any):
    with pytest.raises(ModelError, match="the task wants up to 256 new tokens, the model's context is 224"):
        ours.generate_until([asked("The man", {})], disable_tqdm=True)


def test_draws_only_where_the_task_wants_them():
    assert harness._sampler({}).greedy and harness._sampler({"temperature": 0.5, "do_sample": False}).greedy
    assert harness._sampler({"temperature": 0.5, "top_p": 0.9}) == Sampler(temperature=0.5, top_p=0.9)
    assert harness._sampler({"temperature": 0.5, "do_sample": True, "top_k": None}) == Sampler(temperature=0.5)


def test_chat_templates(ours: Any):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}"
    template += "{% if add_generation_prompt %}>{% endif %}"
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I say"}]
    with pytest.raises(SettingsError, match="no chat template"):
        ours.apply_chat_template(talk)
    ours.tokens = ours.tokens.with_template(template)
    assert ours.apply_chat_template(talk) == "[user]Hi|[assistant]I say|>"
    assert ours.apply_chat_template(talk, add_generation_prompt=False) == "[user]Hi|[assistant]I say"
    assert ours.chat_template(True) == template and ours.chat_template(False) == ""
    assert ours.tokenizer_name == ours.tokens.fingerprint


def test_special_tokens_of_a_template_are_read_as_such(ours: Any):
    [found] = ours.loglikelihood([asked("The<|endoftext|>man", " is")], disable_tqdm=True)
    one = pair(ours.tokens, "The<|endoftext|>man", " is", special=True)
    assert ours.tokens.end_of_text in one.context
    assert found[0] == pytest.approx(choices.log_likelihoods(ours.model, [one])[0].log_p, abs=1e-5)


def test_a_missing_library_is_named_with_its_extra(ours: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (lambda: harness.adapter(ours.model, ours.tokens), lambda: harness.run(ours, ["arc_easy"])):
        with pytest.raises(SettingsError, match="lm-eval library, which is not installed") as caught:
            call()
        assert 'pip install "groundup[eval]"' in caught.value.fix


@lm_eval_says_much
def test_tasks_that_cannot_be_run_are_told(ours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets", reason="lm-eval is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot read the task file"):
        harness.run(ours, [str(tmp_path / "none.yaml")])
    (tmp_path / "odd.yaml").write_text("output_type: multiple_choice\n", encoding="utf-8")
    with pytest.raises(DataError, match="names no task"):
        harness.run(ours, [str(tmp_path / "odd.yaml")])
    body = textwrap.dedent(TASK).format(data=tmp_path / "no_such.jsonl").replace("tiny_swag", "lost")
    (tmp_path / "odd.yaml").write_text("\n".join(line for line in body.splitlines() if "!function" not in line))
    with pytest.raises(DataError, match="lm-eval could not run .*odd.yaml"):
        harness.run(ours, [str(tmp_path / "odd.yaml")])


@pytest.mark.slow
@lm_eval_says_much
def test_an_unknown_task_is_named(ours: Any):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    with pytest.raises(SettingsError, match="lm-eval knows no task 'helaswag'") as caught:
        harness.run(ours, ["helaswag"])
    assert "hellaswag" in caught.value.fix
