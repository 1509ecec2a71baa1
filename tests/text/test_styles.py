"""Prompt styles, letter by letter; each renders in transformers as here."""

import json
from pathlib import Path

import pytest

from groundup import tokens
from groundup.errors import DataError
from groundup.text.conversations import told
from groundup.text.styles import STYLES, resolve
from groundup.text.template import ChatTemplate

ADD = {"role": "user", "content": "Add the numbers.", "input": "1, 2"}
SYSTEM, HI = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
THREE, HELLO = {"role": "assistant", "content": "3"}, {"role": "assistant", "content": "Hello"}
TOOL = {"role": "tool", "content": "7"}
BELOW = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def rendered(style: str, messages, **how) -> str:
    return ChatTemplate(STYLES[style].template, bos="<s>", eos="</s>").render(told(messages), **how)


def test_alpaca_as_the_book_prints_it():
    """Raschka 2024, section 7.2: with and without input; eos behind the answer."""
    assert rendered("alpaca", [ADD, THREE]) == (
        f"{BELOW}\n\n### Instruction:\nAdd the numbers.\n\n### Input:\n1, 2\n\n### Response:\n3</s>"
    )
    assert rendered("alpaca", [HI, HELLO]) == f"{BELOW}\n\n### Instruction:\nHi\n\n### Response:\nHello</s>"
    assert rendered("alpaca", [HI], generation=True) == f"{BELOW}\n\n### Instruction:\nHi\n\n### Response:\n"


def test_alpaca_with_a_system_message_and_further_turns():
    assert rendered("alpaca", [SYSTEM, HI, HELLO, ADD, THREE]) == (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>"
        "\n\n### Instruction:\nAdd the numbers.\n\n### Input:\n1, 2\n\n### Response:\n3</s>"
    )


def test_a_tokenizer_without_eos_has_none_in_its_text():
    found = ChatTemplate(STYLES["alpaca"].template).render([HI, HELLO])
    assert found.endswith("### Response:\nHello")


def test_phi3():
    assert rendered("phi3", [SYSTEM, HI, HELLO]) == (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"
    )
    assert rendered("phi3", [ADD], generation=True) == "<|user|>\nAdd the numbers.\n1, 2<|end|>\n<|assistant|>\n"


def test_chatml():
    assert rendered("chatml", [SYSTEM, HI, HELLO]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n"
    )
    assert rendered("chatml", [ADD], generation=True).endswith("1, 2<|im_end|>\n<|im_start|>assistant\n")


def test_llama3():
    assert rendered("llama3", [HI, HELLO], generation=True) == (
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("style", ["alpaca", "phi3"])
def test_a_role_without_a_place_is_refused_by_name(style: str):
    with pytest.raises(DataError, match="has no place for a message of role tool"):
        rendered(style, [HI, HELLO, TOOL])


@pytest.mark.parametrize("style", STYLES)
def test_the_tokens_are_those_the_template_writes(style: str):
    """Each one is written, and nothing else that looks like one."""
    text = rendered(style, [SYSTEM, HI, HELLO], generation=True)
    assert all(token in text for token in STYLES[style].tokens)
    for token in STYLES[style].tokens:
        text = text.replace(token, "")
    assert "<|" not in text


@pytest.mark.parametrize("style", STYLES)
def test_transformers_renders_the_same(style: str, tmp_path: Path):
    """From the folder that is saved with a model, of what is written as messages: Alpaca's second field included."""
    transformers = pytest.importorskip("transformers")
    tokenizer = tokens.train("bpe", ["Be brief. Hi Hello"], vocabulary=300, special=["<s>", "</s>"])
    tokenizer = tokenizer.with_special(STYLES[style].tokens).with_template(STYLES[style].template)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    template = ChatTemplate(STYLES[style].template, bos="<s>", eos="</s>")
    for talk in ([HI], [ADD, THREE], [SYSTEM, HI, HELLO, ADD], [SYSTEM, ADD, THREE, HI, HELLO]):
        for generation in (False, True):
            given = json.loads(json.dumps(told(talk)))
            expected = theirs.apply_chat_template(given, tokenize=False, add_generation_prompt=generation)
            assert template.render(given, generation=generation) == expected


def test_names_and_files(tmp_path: Path):
    own = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert resolve("auto", own).template == own and resolve("auto", None) is STYLES["alpaca"]
    assert resolve("chatml", own) is STYLES["chatml"]
    file = tmp_path / "mine.jinja"
    file.write_text("\ufeff{% for m in messages %}<|a|>{{ m.content }}<|b|><|a|>{% endfor %}", encoding="utf-8")
    style = resolve(str(file), own)
    assert style.name == "mine.jinja" and style.tokens == ("<|a|>", "<|b|>") and style.template.startswith("{%")


@pytest.mark.parametrize(
    ("content", "what"), [(b"Hello", "never mentions `messages`"), (b"messages \xff", "not UTF-8 at byte 9")]
)
def test_files_that_are_no_template(tmp_path: Path, content: bytes, what: str):
    (tmp_path / "x.jinja").write_bytes(content)
    with pytest.raises(DataError, match=what):
        resolve(str(tmp_path / "x.jinja"), None)


@pytest.mark.parametrize("repeated", [1, 500])
def test_a_template_in_the_place_of_its_path(repeated: int):
    for text in ("{% for m in messages %}{{ m.content }}{% endfor %}", "{{ messages[0].content }}"):
        with pytest.raises(DataError, match="this is a template, not its path") as raised:
            resolve(text * repeated, None)
        assert raised.value.fix == "give the path of the file" and len(raised.value.what) < 120
    with pytest.raises(DataError, match="no prompt style 'a{60}… .5,000 characters"):
        resolve("a" * 5000, None)


def test_an_unknown_name():
    with pytest.raises(DataError, match="did you mean 'alpaca'"):
        resolve("alpacca", None)
