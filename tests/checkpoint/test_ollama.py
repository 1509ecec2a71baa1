"""Modelfiles: what Ollama would send to the model is what the Jinja template renders.

The twin below runs the part of Go's text/template that we write, after Go's documentation; `unquoted` reads a value as
the public description of Ollama's parser says.
"""

import re

import pytest

from groundup import tokens
from groundup.checkpoint import ollama
from groundup.errors import CheckpointError
from groundup.text.template import ChatTemplate

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# SmolLM2's: a system message of its own where there is none
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    + CHATML.removeprefix("{% for message in messages %}")
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ALPACA = (
    "{% if messages[0]['role'] != 'system' %}Below is an instruction.\n\n{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# Llama 2's: the system message goes into the first question
MIXED = (
    "{% if messages[0]['role'] == 'system' %}{% set s = '<<SYS>>' + messages[0]['content'] + '<</SYS>>' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + (s if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)
KNOWN = {"chatml": CHATML, "smollm": SMOLLM, "phi3": PHI3, "alpaca": ALPACA, "mistral": MISTRAL, "llama3": LLAMA3}
TALK = [
    {"role": "user", "content": 'say "hi"'},
    {"role": "assistant", "content": "hi\n\n{{ x }}"},
    {"role": "user", "content": "and now?"},
]
SYSTEM = {"role": "system", "content": "Be brief.\nBe kind."}


def make(template: str | None, special=("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<s>")):
    tokenizer = tokens.train("bpe", ["a cat sat"], vocabulary=256 + len(special), special=special)
    return tokenizer if template is None else tokenizer.with_template(template)


def unquoted(text: str, name: str) -> list[str]:
    """The values of an instruction; quotes in threes may hold lines, and nothing is escaped in them."""
    found = re.findall(rf'^{name} ("""(?:.|\n)*?"""(?=\n)|"[^\n]*"(?=\n)|[^\n"]*(?=\n))', text, re.MULTILINE)
    return [value[3:-3] if value.startswith('"""') else value.strip('"') for value in found]


def go(template: str, messages) -> str:
    """Ollama's rendering: the actions that we write, of Go's text/template."""
    parts = re.split(r"\{\{ (.*?) \}\}", template)
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")

    def run(place: int, message, live: bool) -> tuple[str, int, str]:
        """Runs up to an `else` or `end`: the text, the place behind, and that action."""
        text = ""
        while place < len(parts):
            text += parts[place]
            if place + 1 == len(parts):
                return text, place + 1, ""
            action, place = parts[place + 1], place + 2
            if action == "end" or action.startswith("else"):
                return text, place, action
            if action == "range .Messages":
                inside = [run(place, m, True) for m in messages]
                text, place = text + "".join(part[0] for part in inside), inside[0][1]
            elif action.startswith("if"):
                done, chosen = False, action
                while chosen != "end":
                    true = not done and holds(chosen, message)
                    part, place, chosen = run(place, message, True)
                    text, done = text + part * true, done or true
            elif action == ".Content":
                text += message["content"] if message else ""
            else:
                text += action[1:-1].encode().decode("unicode_escape")
        return text, place, ""

    def holds(action: str, message) -> bool:
        if action.endswith("if not .System"):
            return not system
        role = re.fullmatch(r'(?:else )?if eq .Role "(\w+)"', action)[1]
        return message is not None and message["role"] == role

    return run(0, None, True)[0]


@pytest.mark.parametrize("name", KNOWN)
def test_ollama_sends_what_the_chat_template_renders(name):
    tokenizer = make(KNOWN[name])
    text = ollama.modelfile(tokenizer, "m.gguf", 128)
    [template] = unquoted(text, "TEMPLATE")
    assert "no exact counterpart" not in text
    chat = ChatTemplate(KNOWN[name], bos="<s>", eos="<|endoftext|>")
    for talk in (TALK[:1], TALK, [SYSTEM, *TALK], [SYSTEM, *TALK, TALK[1], TALK[2]]):
        if name == "mistral" and talk[0] is SYSTEM:
            continue
        assert go(template, talk) == chat.render(talk, generation=True)


def test_chatml_to_the_letter():
    [template] = unquoted(ollama.modelfile(make(CHATML), "m.gguf", 128), "TEMPLATE")
    user = '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
    assert template.startswith("{{ range .Messages }}" + user)


def test_whoever_has_no_exact_counterpart_says_so():
    text = ollama.modelfile(make(MIXED), "m.gguf", 128)
    assert "no exact counterpart" in text and unquoted(text, "TEMPLATE") == ["{{ .Prompt }}"]
    text = ollama.modelfile(make("{{ raise_exception('never') }}"), "m.gguf", 128)
    assert "no exact counterpart" in text and unquoted(text, "TEMPLATE") == ["{{ .Prompt }}"]


# each of these words a message by its place or by what came before, which a Go template over single messages does not
BY_PLACE = [
    "{% for m in messages %}{{ '[' ~ loop.index ~ '] ' ~ m['content'] ~ '\n' }}{% endfor %}",
    "{% for m in messages %}{{ m['role'] ~ ': ' ~ m['content'] ~ ('!' if loop.index == 4 else '.') }}{% endfor %}",
    "{% for m in messages %}{{ m['role'] ~ ': ' ~ m['content'] }}"
    "{{ '!' if messages[0]['role'] == 'system' and loop.index == 3 else '.' }}{% endfor %}",
    "{% for m in messages %}{{ m['role'] ~ ': ' ~ m['content'] | upper }}{% endfor %}",
    "{% for m in messages %}{{ raise_exception('none') if m['role'] == 'system' else '' }}"
    "{{ m['role'] ~ ': ' ~ m['content'] ~ ('!' if loop.index == 4 else '.') }}{% endfor %}",
]


@pytest.mark.parametrize("template", BY_PLACE)
def test_wording_that_depends_on_the_place_has_no_counterpart(template):
    text = ollama.modelfile(make(template), "m.gguf", 128)
    assert "no exact counterpart" in text and unquoted(text, "TEMPLATE") == ["{{ .Prompt }}"]


def test_without_a_template_it_is_plain_completion():
    text = ollama.modelfile(make(None, ["<|endoftext|>"]), "m.gguf", 128)
    assert unquoted(text, "TEMPLATE") == ["{{ .Prompt }}"]
    assert unquoted(text, "PARAMETER stop") == ["<|endoftext|>"]
    assert "FROM ./m.gguf\n" in text and "PARAMETER num_ctx 128\n" in text and "PARAMETER temperature 0.8\n" in text


@pytest.mark.parametrize(("name", "end"), [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("phi3", "<|end|>")])
def test_the_end_of_a_turn_is_a_stop(name, end):
    assert end in unquoted(ollama.modelfile(make(KNOWN[name]), "m.gguf", 128), "PARAMETER stop")


def test_what_differs_is_said():
    assert "strips white space" in ollama.modelfile(make(LLAMA3), "m.gguf", 128)
    assert "strips white space" not in ollama.modelfile(make(CHATML), "m.gguf", 128)
    assert "takes no system message" in ollama.modelfile(make(MISTRAL), "m.gguf", 128)
    dated = "{% set now = strftime_now('%Y') %}" + CHATML
    assert "tells the date" in ollama.modelfile(make(dated), "m.gguf", 128)


def test_quotes_braces_and_what_does_not_print():
    odd = CHATML.replace("<|im_end|>", 'x"""\n{{ "{{" }}\u00a0\U000e0001'.replace('{{ "{{" }}', "{' + '{"))
    text = ollama.modelfile(make(odd), "m.gguf", 128)
    [template] = unquoted(text, "TEMPLATE")
    assert all(char.isprintable() or char == "\n" for char in text)
    assert ollama.literal('a"""b{{c') == r'a{{ "\"\"\"" }}b{{ "{{" }}c'
    assert ollama.literal("\u00a0\U000e0001") == r'{{ "\u00a0" }}{{ "\U000e0001" }}'
    assert template.endswith("{{ end }}{{ end }}<|im_start|>assistant\n") or "\\u00a0" in template


@pytest.mark.parametrize("name", ["../m.gguf", "a\nFROM b", 'a".gguf'])
def test_file_names_that_would_be_something_else_are_refused(name):
    with pytest.raises(CheckpointError, match="cannot stand in a Modelfile"):
        ollama.modelfile(make(None), name, 128)
