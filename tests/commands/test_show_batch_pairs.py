"""`groundup show-batch reward` and `dpo`: both answers of a pair, with the masks that the losses get, and lengths."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from groundup import cli, tokens
from groundup.checkpoint import folder
from groundup.commands.show_batch import run, words
from groundup.errors import SettingsError
from groundup.model import ModelConfig, build
from groundup.settings import ShowBatch

TEXT = "Ask me. What is 1 + 1? It is 2. Two, and two is more than one. <b>&\n"
PAIRS = [
    {"prompt": "What is 1 + 1?", "chosen": "It is 2.", "rejected": "It is 1 and more.", "margin": 2},
    {"instruction": "Ask me.", "input": "<b>&</b>", "chosen": "What is <script>?", "rejected": "No.", "margin": 1},
    {"prompt": "Is it?", "response_1": "No.", "response_2": "It is.", "preferred": 2},
    {"prompt": "Same?", "chosen": "It is.", "rejected": "It is."},
    {"prompt": "Empty?", "chosen": "It is.", "rejected": ""},
]
USED = [("It is 2.", "It is 1 and more."), ("What is <script>?", "No."), ("It is.", "No.")]
ENDS = {"alpaca": "<|endoftext|>", "phi3": "<|end|>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    config = ModelConfig(
        family="llama", vocabulary=270, context=400, width=16, layers=1, heads=2, init="torch", tie=False
    )
    folder.save_model(path, build(config, seed=1), tokens.train("bpe", [TEXT], vocabulary=260), card={})
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(PAIRS), encoding="utf-8")
    return path


def shown(model: Path, data: Path, stage: str, **how: Any) -> Any:
    return run(ShowBatch(stage=stage, model=str(model), data=[str(data)], **{"batch": 3, "rows": 3} | how))


def by_entry(result: Any) -> dict[int, list[Any]]:
    """Entry number -> the parts of its pair."""
    return {int(row.parts[0].where.split()[1]): row.parts for row in result.shown}


@pytest.mark.parametrize("batching", ["bucketed", "padded"])
@pytest.mark.parametrize("template", ["alpaca", "phi3", "chatml", "llama3"])
def test_dpo_learns_both_answers_and_nothing_else(model_folder: Path, pairs: Path, batching: str, template: str):
    result = shown(model_folder, pairs, "dpo", batching=batching, template=template)
    found = by_entry(result)
    assert sorted(found) == [0, 1, 2] and result.rows == 3 and result.template == template
    for number, answers in enumerate(USED):
        prompts = []
        for part, side, answer in zip(found[number], ("chosen", "rejected"), answers, strict=True):
            learnt = "".join(token.text for token in part.tokens if token.mark in "LS")
            assert learnt == answer.replace(" ", "·") + ENDS[template]
            count = sum(token.mark in "LS" for token in part.tokens)
            assert f", {side}: {len(part.tokens)} tokens, {count} of them learnt" in part.where
            first = next(place for place, token in enumerate(part.tokens) if token.mark in "LS")
            prompts.append([token.id for token in part.tokens[:first]])
        assert prompts[0] == prompts[1]
    assert ", margin 2" in found[0][0].where and "margin" not in found[0][1].where + found[2][0].where
    counted = [token for parts in found.values() for part in parts for token in part.tokens]
    assert result.learnt_share == sum(token.mark in "LS" for token in counted) / (len(counted) - 6)
    assert result.dropped == {"both answers are the same": 1, "an answer is empty": 1}
    assert sum(row.filler for row in result.shown) > 0 and result.filler > 0
    places = 3 * max(len(part.tokens) - 1 for parts in found.values() for part in parts) * 2
    assert sum(row.filler for row in result.shown) + len(counted) - 6 == places


@pytest.mark.parametrize("template", ["alpaca", "chatml"])
def test_reward_marks_the_token_that_is_scored(model_folder: Path, pairs: Path, template: str):
    result = shown(model_folder, pairs, "reward", template=template)
    for number, answers in enumerate(USED):
        for part, answer in zip(by_entry(result)[number], answers, strict=True):
            marks = [token.mark for token in part.tokens]
            assert marks[-1] == "R" and set(marks[:-1]) <= {".", "s"}
            text = "".join(token.text for token in part.tokens)
            assert answer.replace(" ", "·") in text and "learnt" not in part.where
    assert result.learnt_share is None and result.pairs.with_margin == 2
    assert result.pairs.margins == (1.0, 1.5, 2.0)


def test_what_is_true_of_all_pairs(model_folder: Path, pairs: Path, tmp_path: Path):
    """Two of three chosen answers are longer: 67 %, told with the mean lengths, which are counted by hand."""
    result = shown(model_folder, pairs, "dpo", template="chatml")
    tokenizer = tokens.load(model_folder)
    sizes = [[len(tokenizer.encode(answer)) + 1 for answer in pair] for pair in USED]
    assert result.pairs.chosen_is_longer == pytest.approx(2 / 3)
    assert result.pairs.chosen_tokens == pytest.approx(sum(a for a, _ in sizes) / 3)
    assert result.pairs.rejected_tokens == pytest.approx(sum(b for _, b in sizes) / 3)
    told = words(result)
    assert told[0].startswith("3 pairs of rows of at most 400 tokens, ")
    assert "1 left out: both answers are the same" in told and "1 left out: an answer is empty" in told
    assert any(line.startswith("chosen is longer in 66.7 % of pairs: ") for line in told)
    assert "length alone tells most pairs apart: look whether the model learns more than to be long" in told
    assert "margins from 1 to 2, 1.50 on average, of 2 pairs" in told
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"prompt": f"{n}?", "chosen": a, "rejected": b}) + "\n"
                            for n, (a, b) in enumerate([("It is.", "No."), ("No.", "It is.")])))  # fmt: skip
    told = words(shown(model_folder, bare, "reward"))
    assert any("50.0 % of pairs" in line for line in told)
    assert not any("length alone" in line or "margins" in line for line in told)


def test_length_is_that_of_the_answers_before_they_are_cut(model_folder: Path, tmp_path: Path):
    """Both rows end at the context, where neither is longer; of the answers themselves the chosen one always is."""
    long = [{"prompt": "Is it?", "chosen": "It is. " * 30, "rejected": "No. " * 30}]
    (tmp_path / "long.json").write_text(json.dumps(long))
    result = shown(model_folder, tmp_path / "long.json", "dpo", template="chatml", context=40, batch=1, rows=1)
    assert result.cut == 1 and len({len(part.tokens) for part in result.shown[0].parts}) == 1
    assert result.pairs.chosen_is_longer == 1.0


def test_a_row_for_reward_is_never_longer_than_the_context(model_folder: Path, pairs: Path):
    """A policy's last id is only a target, so that its rows may have one more; a new line behind the end is no loss."""
    whole = shown(model_folder, pairs, "dpo", template="chatml")
    longest = max(len(part.tokens) for row in whole.shown for part in row.parts)
    exact = shown(model_folder, pairs, "dpo", template="chatml", context=longest - 1)
    assert exact.cut == 0 and shown(model_folder, pairs, "dpo", template="chatml", context=longest - 3).cut == 1
    for context in (longest - 2, longest - 4):
        cut = shown(model_folder, pairs, "reward", template="chatml", context=context)
        assert max(len(part.tokens) for row in cut.shown for part in row.parts) <= context and cut.cut


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_in_a_pipe_and_on_a_page(
    model_folder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
):
    file = tmp_path / "batch.html"
    asked = ["show-batch", stage, "--model", str(model_folder), "--data", str(pairs), "--html", str(file)]
    assert cli.main([*asked, "--template", "chatml", "--batch", "3", "--rows", "3"]) == 0
    out = capsys.readouterr().out
    assert "chosen is longer in 66.7 % of pairs" in out and "\x1b" not in out
    assert len(re.findall(r"^--- row \d, entry \d of .*, (?:chosen|rejected): ", out, re.MULTILINE)) == 6
    marks = [line for line in out.splitlines() if re.fullmatch(r"[LSs.R ]+", line) and line.strip()]
    ends = "".join(marks)
    assert (ends.count("S"), ends.count("R")) == ((6, 0) if stage == "dpo" else (0, 6))
    content = file.read_text(encoding="utf-8")
    assert "<script" not in content and "http" not in content and "<b>" not in content
    assert content.count('<section class="sides">') == 3 and content.count("<section>") == 6
    assert content.count("<section") == content.count("</section>")
    assert "chosen is longer in 66.7 % of pairs" in content and "both answers are the same" in content


def test_json(model_folder: Path, pairs: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["show-batch", "dpo", "--model", str(model_folder), "--data", str(pairs), "--json"]
    assert cli.main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stage"] == "dpo" and found["pairs"]["with_margin"] == 2
    assert found["dropped"] == {"both answers are the same": 1, "an answer is empty": 1}
    assert all(len(row["parts"]) == 2 for row in found["shown"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--data", "PAIRS"], "no model was given"),
        (["--model", "MODEL"], "no data was given"),
        (["--model", "MODEL", "--data", "PAIRS", "--batching", "packed"], "pairs are not packed"),
        (["--model", "MODEL", "--data", "PAIRS", "--context", "8"], "the prompt fills the context of"),
        (["--model", "MODEL", "--data", "PAIRS", "--template", "chatlm"], "did you mean 'chatml'"),
        (["--model", "MODEL", "--data", "harbor-pair"], "did you mean 'harbor-pairs'"),
        (["--model", "MODEL", "--data", "BROKEN"], "has no 'preferred': it has prompt, response_1, response_2"),
    ],
)
@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_mistakes_are_told(
    model_folder: Path, pairs: Path, capsys: pytest.CaptureFixture[str], asked: list[str], message: str, stage: str
):
    broken = pairs.with_name("broken.json")
    broken.write_text(json.dumps([{"prompt": "Hi", "response_1": "a", "response_2": "b"}]))
    places = {"MODEL": str(model_folder), "PAIRS": str(pairs), "BROKEN": str(broken)}
    assert cli.main(["show-batch", stage, *(places.get(word, word) for word in asked)]) == 2
    seen = capsys.readouterr()
    assert message in seen.err and "  -> " in seen.err and seen.out == ""


def test_harbors_pairs_are_shown(model_folder: Path):
    result = shown(model_folder, Path("harbor-pairs:60:2"), "dpo", template="chatml")
    assert result.rows == 60 and result.pairs.with_margin == 60 and not result.dropped
    assert all(" of harbor-pairs:60:2 (" in part.where for row in result.shown for part in row.parts)
    with pytest.raises(SettingsError, match="no data"):
        run(ShowBatch(stage="dpo", model=str(model_folder)))
