"""One way to ask a reward model: the row that is read, the id that is judged, the same score whatever stands beside."""

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import machine as machines
from groundup import tokens
from groundup.checkpoint import folder
from groundup.errors import CheckpointError, DataError, ModelError, SettingsError
from groundup.evaluate import scoring
from groundup.generate.chat import with_tokens_of
from groundup.model import ModelConfig, build
from groundup.model.heads import Classifier, HeadConfig
from groundup.text.conversations import Conversation
from groundup.text.preferences import Preference
from groundup.text.styles import STYLES
from groundup.text.template import ChatTemplate
from groundup.tokens.pairs import pair_rows
from groundup.tokens.rows import Row, chat_row
from groundup.tokens.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz .,?!\n:#<>|_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CPU = machines.choose(device="cpu", dtype="fp32", threads=1)
PLAIN = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"


def talk(*words: str, where: str = "") -> Conversation:
    roles = ["user", "assistant"] * len(words)
    return Conversation(tuple({"role": role, "content": text} for role, text in zip(roles, words, strict=False)), where)


def letters(style: str = PLAIN, special: tuple[str, ...] = ("<|endoftext|>",)) -> Tokenizer:
    return tokens.train("chars", [LETTERS], special=list(special)).with_template(style)


def network(tokenizer: Tokenizer, head: HeadConfig | None = None, **changes: Any) -> Classifier:
    config = ModelConfig(**{"family": "llama", "vocabulary": tokenizer.vocabulary, "context": 24, "width": 16,
                            "layers": 1, "heads": 2, **changes})  # fmt: skip
    model = Classifier(
        build(config, seed=3), head or HeadConfig(("reward",), kind="reward", mean=0.5, spread=2.0), seed=5
    )
    model.score.weight.data.mul_(50)
    return model.eval()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> scoring.RewardModel:
    path, tokenizer = tmp_path_factory.mktemp("models") / "reward", letters()
    folder.save_model(path, network(tokenizer), tokenizer, card={})
    return scoring.opened(path, machine=CPU)


def text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids)


def ask(found: scoring.RewardModel, talks: list[Conversation], **how: Any) -> list[float]:
    return scoring.scores(found.model, found.tokenizer, found.template, talks, machine=CPU, **{"batch": 16} | how)


# what is read and judged


def test_the_judged_id_is_the_last_that_is_no_filler(found: scoring.RewardModel) -> None:
    """The end of text ends an answer here and fills batches, too: transformers would pass it over, and so do we."""
    row = chat_row(found.tokenizer, found.template, talk("who?", "Bo."), learn="answers")
    assert row.ids[-1] == found.tokenizer.end_of_text == scoring.filler_of(found.tokenizer)
    read = scoring.read(found.tokenizer, found.template, talk("who?", "Bo."), context=24)
    assert text(found.tokenizer, read.ids) == "who?<|endoftext|>Bo." and read.cut == 0


def test_with_a_filler_of_its_own_the_end_is_judged() -> None:
    tokenizer = letters(special=("<|endoftext|>", "<|pad|>"))
    template = with_tokens_of(tokenizer, PLAIN)
    read = scoring.read(tokenizer, template, talk("who?", "Bo."), context=24)
    assert text(tokenizer, read.ids) == "who?<|endoftext|>Bo.<|endoftext|>"


def test_what_the_template_writes_behind_an_answer_is_read() -> None:
    tokenizer = letters(STYLES["chatml"].template).with_special(["<|im_start|>", "<|im_end|>"])
    template = with_tokens_of(tokenizer, STYLES["chatml"].template)
    read = scoring.read(tokenizer, template, talk("a", "b"), context=99)
    assert text(tokenizer, read.ids).endswith("<|im_start|>assistant\nb<|im_end|>\n")


@pytest.mark.parametrize(
    ("ids", "wanted"), [([5, 0, 7, 0, 0], [5, 0, 7]), ([5, 7], [5, 7]), ([0, 0], [0]), ([5, 0], [5])]
)
def test_rows_are_read_up_to_the_filler(ids: list[int], wanted: list[int]) -> None:
    found = scoring.judged(Row(ids, [False, *[True] * (len(ids) - 1)]), 0)
    assert found.ids == wanted and len(found.learn) == len(wanted)
    assert scoring.judged(Row(ids, [False] * len(ids)), None).ids == ids


def test_a_long_prompt_loses_its_beginning_and_never_the_answer(found: scoring.RewardModel) -> None:
    """19 + 1 + 5 + (1) ids of which 24 are read: the end of the answer is the filler and not read, so one is cut."""
    words = "abcdefghijklmnopqrs"
    read = scoring.read(found.tokenizer, found.template, talk(words, "right"), context=24)
    assert text(found.tokenizer, read.ids) == "bcdefghijklmnopqrs<|endoftext|>right" and read.cut == 1
    whole = scoring.read(found.tokenizer, found.template, talk(words[1:], "right"), context=24)
    assert whole.ids == read.ids and whole.cut == 0
    assert ask(found, [talk(words, "right")]) == ask(found, [talk(words[1:], "right")])


def test_the_start_of_a_text_is_kept_when_a_prompt_is_cut() -> None:
    tokenizer = letters(special=("<|endoftext|>", "<|begin|>"))
    lead = [tokenizer.special["<|begin|>"]]
    template = with_tokens_of(tokenizer, PLAIN)

    class Begins:
        """The same tokenizer, which puts an id before every text."""

        start = lead

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    read = scoring.read(Begins(), template, talk("abcdefghijkl", "xyz"), context=10)  # type: ignore[arg-type]
    assert read.ids[:1] == lead and len(read.ids) == 10 and read.cut == 7
    assert text(tokenizer, read.ids[1:]) == "hijkl<|endoftext|>xyz"


@pytest.mark.parametrize(("answer", "fits"), [("a" * 22, True), ("a" * 24, False), ("a" * 60, False)])
def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused(
    found: scoring.RewardModel, answer: str, fits: bool
) -> None:
    if fits:
        assert scoring.read(found.tokenizer, found.template, talk("who is it?", answer), context=24).cut > 0
        return
    with pytest.raises(DataError, match=f"answer of line 3 has {len(answer)} tokens, .* context of 24"):
        scoring.read(found.tokenizer, found.template, talk("who is it?", answer, where="line 3"), context=24)


@pytest.mark.parametrize("special", [("<|endoftext|>",), ("<|endoftext|>", "<|pad|>")])
@pytest.mark.parametrize("before", [(), ("hi", "yo")])
def test_an_empty_answer_to_a_long_prompt_is_read(before: tuple[str, ...], special: tuple[str, ...]) -> None:
    """30 letters, their end and that of the answer: the last 24 ids that are read, where the end fills, 24 letters."""
    tokenizer, words = letters(special=special), "abcdefghijklmnopqrstuvwxyz .,?"
    found = scoring.read(tokenizer, with_tokens_of(tokenizer, PLAIN), talk(*before, words, ""), context=24)
    whole = text(tokenizer, found.ids)
    assert len(found.ids) == 24 and whole == (
        words[-24:] if len(special) == 1 else f"{words[-22:]}{'<|endoftext|>' * 2}"
    )
    assert found.cut == (6 if len(special) == 1 else 8) + sum(len(word) + 1 for word in before)


def test_a_row_of_training_is_cut_as_one_that_is_scored(found: scoring.RewardModel) -> None:
    """Of the pair's rows, in which the answer alone is learnt, and of an earlier answer's that is no longer whole."""
    for words in (("abcdefghijklmnopqrs", "right"), ("hi", "abcdefghij", "klmnop", "qrstuvw"), ("a", "b")):
        asked = talk(*words[:-1])
        gathered = pair_rows(
            found.tokenizer, found.template, [Preference(asked.messages, words[-1], "other")], context=1000
        )
        row = scoring.fitted(gathered.rows[0].chosen, filler=scoring.filler_of(found.tokenizer), lead=0, context=24)
        read = scoring.read(found.tokenizer, found.template, talk(*words), context=24)
        assert row is not None and row.ids == read.ids and len(row.learn) == len(row.ids) <= 24
    assert scoring.fitted(Row([5, 6, 7, 8], [False, True, True, True]), filler=None, lead=0, context=3) is None
    assert scoring.fitted(Row([5, 6, 7, 0], [False, True, True, True]), filler=0, lead=0, context=3) is not None


@pytest.mark.parametrize("words", [("who?",), ("who?", "Bo.", "and?"), ()])
def test_what_does_not_end_with_an_answer_is_refused(found: scoring.RewardModel, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="does not end with an answer"):
        ask(found, [talk(*words)])


# scores

TALKS = [
    talk("who?", "Bo."), talk("a", "b"), talk("hi", "yo", "and", "then"), talk("abcdefghijklmnop", "q"), talk("x", ""),
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_a_score_does_not_depend_on_what_stands_beside(found: scoring.RewardModel, batch: int) -> None:
    together = ask(found, TALKS, batch=batch)
    for conversation, score in zip(TALKS, together, strict=True):
        ids = scoring.read(found.tokenizer, found.template, conversation, context=24).ids
        with torch.inference_mode():
            raw = float(found.model(torch.tensor([ids])))
        assert score == pytest.approx((raw - 0.5) / 2.0, abs=1e-5)
        assert ask(found, [conversation], normalise=False) == pytest.approx([raw], abs=1e-5)
    assert max(together) - min(together) > 0.05 and ask(found, []) == []


def test_a_model_in_training_is_asked_as_any_and_put_back(found: scoring.RewardModel) -> None:
    model = network(found.tokenizer, dropout_shortcut=0.5)
    quiet = scoring.scores(model, found.tokenizer, found.template, TALKS, machine=CPU, batch=4)
    model.train()
    assert scoring.scores(model, found.tokenizer, found.template, TALKS, machine=CPU, batch=4) == quiet
    assert model.training


def test_what_is_no_reward_model_gives_no_scores(found: scoring.RewardModel) -> None:
    for model in (network(found.tokenizer, HeadConfig(("a", "b"))), found.model.trunk):
        with pytest.raises(ModelError, match="gives no scores"):
            scoring.scores(model, found.tokenizer, found.template, TALKS, machine=CPU, batch=4)


def test_scores_that_are_not_finite_are_refused(found: scoring.RewardModel) -> None:
    model = network(found.tokenizer)
    model.score.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        scoring.scores(model, found.tokenizer, found.template, TALKS, machine=CPU, batch=4)


def test_transformers_scores_the_same_conversations(tmp_path: Path) -> None:
    """Its own template, its own filler, several texts at once: 1e-5, although the filler ends an answer here."""
    transformers = pytest.importorskip("transformers")
    tokenizer = tokens.train("bpe", [LETTERS] * 3, vocabulary=300).with_template(PLAIN)
    folder.save_model(tmp_path / "m", network(tokenizer), tokenizer, card={})
    opened = scoring.opened(tmp_path / "m", machine=CPU)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    talks = TALKS[:3]
    rendered = [cutter.apply_chat_template(list(one.messages), tokenize=False) for one in talks]
    batch = cutter(rendered, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        wanted = theirs(**batch).logits[:, 0]
    assert ask(opened, talks, normalise=False) == pytest.approx(wanted.tolist(), abs=1e-5)


# opening


def test_mean_and_spread_come_with_the_folder(found: scoring.RewardModel) -> None:
    assert (found.head.mean, found.head.spread) == (0.5, 2.0) and found.template.source == PLAIN


def test_a_model_without_mean_and_spread_is_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = letters()
    folder.save_model(tmp_path / "m", network(tokenizer, HeadConfig(("reward",), kind="reward")), tokenizer, card={})
    opened = scoring.opened(tmp_path / "m", machine=CPU)
    assert ask(opened, TALKS) == ask(opened, TALKS, normalise=False) and not opened.scaled
    assert capsys.readouterr().err.count("without mean and spread") == 1
    scoring.opened(tmp_path / "m", machine=CPU, normalise=False)
    assert capsys.readouterr().err == ""


def test_other_models_are_refused_with_the_command_for_them(tmp_path: Path) -> None:
    tokenizer = letters()
    classes = network(tokenizer, HeadConfig(("ham", "spam")))
    folder.save_model(tmp_path / "classes", classes, tokenizer, card={})
    with pytest.raises(CheckpointError, match=r"tells classes apart \(ham, spam\).*\n.*groundup predict"):
        scoring.opened(tmp_path / "classes", machine=CPU)
    folder.save_model(tmp_path / "words", build(classes.config, seed=1), tokenizer, card={})
    with pytest.raises(CheckpointError, match=r"continues text.*\n.*groundup reward --model"):
        scoring.opened(tmp_path / "words", machine=CPU)


def test_templates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tokens.train("chars", [LETTERS])
    folder.save_model(tmp_path / "bare", network(bare), bare, card={})
    with pytest.raises(SettingsError, match="without a chat template"):
        scoring.opened(tmp_path / "bare", machine=CPU)
    named = scoring.opened(tmp_path / "bare", machine=CPU, template="alpaca").template
    assert named.source == STYLES["alpaca"].template
    with pytest.raises(SettingsError, match=r"writes <\|im_start\|>, <\|im_end\|>, which the reward model"):
        scoring.opened(tmp_path / "bare", machine=CPU, template="chatml")
    folder.save_model(tmp_path / "own", network(letters()), letters(), card={})
    capsys.readouterr()
    scoring.opened(tmp_path / "own", machine=CPU)
    assert capsys.readouterr().err == ""
    assert isinstance(scoring.opened(tmp_path / "own", machine=CPU, template="alpaca").template, ChatTemplate)
    assert "its scores mean little" in capsys.readouterr().err
