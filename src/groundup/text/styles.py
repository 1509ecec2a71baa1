r"""Prompt styles: how a conversation is written as one text, by name or from a file of one's own.

In: a name (alpaca, phi3, chatml, llama3, auto) or a .jinja file. Out: `Style`: a chat template, and the special tokens
that it writes and a tokenizer must know. Whatever the style, `text.template` renders it, and the same text is kept with
the model, so that other programs write conversations the same way.

A template is given `messages` of role and content; where Alpaca's second field is known it stands at the end of the
content and in `input` too (`conversations.told`).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import DataError, nearest

LONGEST = 1 << 20  # bytes of a template file
NAMED = re.compile(r"<\|[A-Za-z0-9_]+\|>")  # how most templates spell their special tokens


@dataclass(frozen=True)
class Style:
    """A chat template in Jinja, and the special tokens that it writes besides bos and eos."""

    name: str
    template: str
    tokens: tuple[str, ...] = ()


# Raschka 2024, section 7.2, the style of Stanford Alpaca (Taori and others 2023): eos behind every answer. The sentence
# at the top is what a system message replaces; further turns go on without it.
ALPACA = """
{%- set first = 'Below is an instruction that describes a task. ' -%}
{%- set first = first + 'Write a response that appropriately completes the request.' -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' and loop.first -%}
{{- message['content'] -}}
{%- elif message['role'] == 'user' -%}
{%- if loop.first -%}{{- first -}}{%- endif -%}
{{- '\\n\\n### Instruction:\\n' -}}
{%- if message['input'] -%}
{{- message['content'][:(message['content'] | length) - (message['input'] | length) - 1] -}}
{{- '\\n\\n### Input:\\n' + message['input'] -}}
{%- else -%}
{{- message['content'] -}}
{%- endif -%}
{%- elif message['role'] == 'assistant' -%}
{{- '\\n\\n### Response:\\n' + message['content'] -}}{{- eos_token -}}
{%- else -%}
{{- raise_exception('Alpaca has no place for a message of role ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\\n\\n### Response:\\n' -}}{%- endif -%}
""".strip()

# Microsoft, Phi-3-mini-4k-instruct, model card: each turn opens with its role and ends with <|end|>.
PHI3 = """
{%- for message in messages -%}
{%- if message['role'] in ['system', 'user', 'assistant'] -%}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}
{%- else -%}
{{- raise_exception('Phi-3 has no place for a message of role ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
""".strip()

# OpenAI's ChatML, as most open models write it: any role, and no system message unless one is given.
CHATML = """
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
""".strip()

# Meta, Llama 3 model card: bos once, headers between two tokens, <|eot_id|> behind each turn.
LLAMA3 = """
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
""".strip()

STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style("alpaca", ALPACA),
        Style("phi3", PHI3, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
        Style("chatml", CHATML, ("<|im_start|>", "<|im_end|>")),
        Style("llama3", LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    )
}


def resolve(name: str, tokenizer_template: str | None) -> Style:
    """The style of a name or of a template file; "auto": the template that the model came with, else Alpaca.

    A file's special tokens are those that it spells like <|this|>. Raises DataError for a name that is neither, for a
    template in the place of its path, and for a file that cannot be read or is no text; whether it is good Jinja shows
    when it is rendered.

    >>> resolve("auto", None).name, resolve("chatml", None).tokens
    ('alpaca', ('<|im_start|>', '<|im_end|>'))
    >>> resolve("chatlm", None)
    Traceback (most recent call last):
    groundup.errors.DataError: there is no prompt style 'chatlm', and no file of that name
      -> did you mean 'chatml'?
    """
    if name == "auto":
        return STYLES["alpaca"] if tokenizer_template is None else Style("the model's own", tokenizer_template)
    if name in STYLES:
        return STYLES[name]
    path = Path(name)
    if not os.path.isfile(name):  # unlike Path.is_file (before Python 3.14) False too where the name is far too long
        if "{%" in name or "{{" in name:
            raise DataError(f"this is a template, not its path: {name[:60]!r}", "give the path of the file")
        shown = name if len(name) <= 255 else f"{name[:60]}… ({len(name):,} characters)"
        raise DataError(
            f"there is no prompt style '{shown}', and no file of that name", nearest(name, ["auto", *STYLES])
        )
    text = _content(path)
    return Style(path.name, text, tuple(dict.fromkeys(NAMED.findall(text))))


def _content(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes", "a chat template has some thousand: give that")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start:,}", "give a chat template: Jinja text") from None
    if "messages" not in text:
        raise DataError(f"{path} never mentions `messages`: it is no chat template", "give Jinja that loops over them")
    return text
