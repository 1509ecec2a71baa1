"""Exact answers: asked through a template or as plain text, compared by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from groundup import tokens
from groundup.errors import DataError
from groundup.evaluate.tasks import Answered, Given, Kind, answer, contains, grade, table
from groundup.model import BigramConfig, ModelConfig, build
from groundup.text.choices import Question

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def texts(given: list[Given]) -> list[str]:
    return [one.text for one in given]


def ask(*contents: str, right: str = "x", kind: str = "") -> Question:
    roles = ("user", "assistant")
    messages = tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(contents))
    return Question(messages, (right,), kind, "line 1")


def chain(text: str, tokenizer: tokens.Tokenizer) -> nn.Module:
    """A bigram that writes the letters of `text` one after the other, whichever of them it is given."""
    model = build(BigramConfig(vocabulary=tokenizer.vocabulary, context=16))
    model.table.weight.data.zero_()
    ids = tokenizer.encode(text)
    for one, following in zip(ids, ids[1:], strict=False):
        model.table.weight.data[one, following] = 9.0
    return model.eval()


def test_a_base_model_goes_on_to_the_end_of_the_line():
    letters = tokens.train("chars", ["abcdef:\n"])
    model = chain("abc\ndef", letters)
    seen: list[int] = []
    given = answer(model, letters, [ask("d:a"), ask("f:b")], max_tokens=9, watch=seen.append)
    assert given == [Given("bc"), Given("c")] and seen == [1, 2]
    assert answer(model, letters, [ask("a")], max_tokens=1) == [Given("b", unfinished=True)]


def test_the_second_field_of_an_instruction_is_asked_too():
    letters = tokens.train("chars", ["abcdef:\n"])
    question = Question(({"role": "user", "content": "d:", "input": "a"},), ("bc",), "", "line 1")
    assert texts(answer(chain("abc\ndef", letters), letters, [question], max_tokens=9)) == ["bc"]


@pytest.mark.parametrize(("letters_before", "cut"), [(14, False), (15, True), (40, True)])
def test_a_question_that_is_out_of_sight_is_counted(letters_before: int, cut: bool):
    """The context is 16: `b`, `c` and the end of the line come behind 14 letters, and the last is chosen by all 16."""
    letters = tokens.train("chars", ["abcdef:\n"])
    asked = [ask("d" * (letters_before - 1) + "a"), ask("a")]
    found = answer(chain("abc\ndef", letters), letters, asked, max_tokens=9)
    assert found == [Given("bc", cut=cut), Given("bc")]


@pytest.mark.parametrize("most", [3, 90])
def test_what_a_chat_could_not_finish_or_see_is_counted(most: int):
    """Every message is answered with a's without end; with 90 of them the question is long out of sight."""
    letters = tokens.train("chars", ["abcdefuser\n"]).with_special(["<|im_start|>", "<|im_end|>"])
    tokenizer = letters.with_template(CHATML.replace("assistant", "a"))
    model = build(BigramConfig(vocabulary=tokenizer.vocabulary, context=64))
    model.table.weight.data.zero_()
    model.table.weight.data[:, tokenizer.encode("a")] = 9.0
    found = answer(model, tokenizer, [ask("abc")], max_tokens=most)
    assert found == [Given("a" * most, cut=most == 90, unfinished=True)]
    [graded] = grade([ask("abc", right="a")], found)
    assert (graded.cut, graded.unfinished) == (most == 90, True)


def test_several_turns_need_a_template():
    letters = tokens.train("chars", ["abcdef:\n"])
    with pytest.raises(DataError, match="line 1 has 3 messages, and this model has no chat template"):
        answer(chain("abc", letters), letters, [ask("a", "b", "c")])


def test_a_model_that_chats_is_asked_through_its_template():
    """What it answers is what the same ids go on with, written by hand one by one."""
    tokenizer = tokens.train("bpe", ["The cat sat on the hat. user assistant\n" * 9], vocabulary=275)
    tokenizer = tokenizer.with_special(["<|im_start|>", "<|im_end|>"]).with_template(CHATML)
    model = build(ModelConfig(family="llama", vocabulary=280, context=64, width=16, layers=1, heads=2), seed=1).eval()
    questions = [ask("The cat <|im_end|>"), ask("The", "hat", "sat on")]
    ids = tokenizer.encode
    start, end = tokenizer.special["<|im_start|>"], tokenizer.special["<|im_end|>"]
    prompt = [start, *ids("user\n"), *ids("The cat <|im_end|>"), end, *ids("\n"), start, *ids("assistant\n")]
    written: list[int] = []
    for _ in range(5):
        with torch.no_grad():
            written.append(int(model(torch.tensor([prompt + written]))[0, -1].argmax()))
    expected = tokenizer.decode([id for id in written if id < tokenizer.vocabulary]).strip()
    assert texts(answer(model, tokenizer, questions, max_tokens=5))[0] == expected
    assert texts(answer(model, tokenizer, questions[:1], max_tokens=5)) == [expected]


def test_answers_are_compared_in_three_ways():
    written = ["the  mill\n", "The mill.", "In the mill, I think", "mill", ""]
    found = grade([ask("q", right="the mill")] * 5, [Given(text) for text in written])
    assert [one.exact for one in found] == [True, False, False, False, False]
    assert [one.loose for one in found] == [True, True, False, False, False]
    assert [one.contained for one in found] == [True, True, True, False, False]


def test_any_of_several_answers_will_do():
    question = Question(({"role": "user", "content": "q"},), ("four", "4"), "", "line 1")
    assert [one.exact for one in grade([question] * 3, [Given("4"), Given("four"), Given("5")])] == [True, True, False]
    with pytest.raises(DataError, match="1 answers to 2 questions"):
        grade([question] * 2, [Given("4")])


@pytest.mark.parametrize(
    ("given", "right", "holds"),
    [("1945", "194", False), ("in 194 steps", "194", True), ("a.b", "b", False), ("x+y is it", "x+y", True)],
)
def test_whole_words_only(given: str, right: str, holds: bool):
    assert contains(given, right) is holds


def test_the_table_by_hand():
    def row(kind: str, exact: bool) -> Answered:
        return Answered("line", kind, "", ("x",), exact, True, True, cut=exact, unfinished=kind == "where")

    whole, where, who = table([row("who", True), row("where", False), row("who", False), row("who", True)])
    assert whole == Kind("", 4, 0.5, pytest.approx((0.25 / 3) ** 0.5), 1.0, 1.0, cut=2, unfinished=1)
    assert (where.kind, where.questions, where.exact) == ("where", 1, 0.0)
    assert (who.kind, who.questions, who.exact) == ("who", 3, pytest.approx(2 / 3))
    assert (where.cut, where.unfinished, who.cut, who.unfinished) == (0, 1, 2, 0)
    assert len(table([row("", True)])) == 1
    with pytest.raises(DataError, match="0 answers"):
        table([])


def test_harbors_own_answers_are_right(tmp_path: Path):
    from groundup.text.choices import questions

    asked = questions("harbor-questions:20")
    graded = grade(asked, [Given(one.answers[0]) for one in asked])
    assert all(one.exact and one.contained for one in graded) and table(graded)[0].exact == 1
