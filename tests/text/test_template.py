"""Chat templates render as transformers renders them, and every character's origin is known."""

import pytest

from groundup.errors import DataError
from groundup.text.template import ChatTemplate, Segment

# What models publish, shortened in words and kept in form: the same tags, filters and tricks.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Smol<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{#- The system message comes first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""  # noqa: E501
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}
                {%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""  # noqa: E501
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages if message.role in ["user", "assistant"] %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if message == user_messages[-1] and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endgeneration %}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
# The corners of the language that templates use, one for each line
CORNERS = """{%- macro said(name, mark='!', more=none) -%}{{ name ~ mark }}{{ varargs|length }}{{ kwargs.x }}{%- endmacro -%}
{{ said('a') }} {{ said('b', '?', 1, 2, 3) }} {{ said('c', x='k') }} {{ said(mark='-', name='d') }}
{% set outer = 1 %}{% for i in range(3) %}{% set outer = outer + i %}{{ outer }},{% endfor %}{{ outer }}
{% if true %}{% set inside = 5 %}{% endif %}{{ inside }} {{ missing }} {{ missing is defined }} {{ missing|default('d') }}
{% for a, b in [(1, 2), (3, 4)] %}{{ loop.index }}/{{ loop.length }}:{{ a + b }}{{ loop.cycle('x', 'y') }} {% else %}none{% endfor %}
{% for x in [] %}{% else %}empty{% endfor %} {% for x in [1,2,3,4,5] if x % 2 %}{{ x }}{{ ';' if not loop.last }}{% endfor %}
{% for x in 'abcdef' %}{% if x == 'b' %}{% continue %}{% endif %}{% if x == 'e' %}{% break %}{% endif %}{{ x }}{% endfor %}
{% set text %}  block {{ 1 + 1 }} {% endset %}[{{ text | trim }}] {% filter upper %}up {{ text }}{% endfilter %}
{% set cased | upper | trim %} lower {% endset %}{{ cased }} {% with q = 3, r = 4 %}{{ q * r }}{% endwith %}
{{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ -3 % 5 }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ 1 < 2 < 3 }} {{ 'a' in 'cat' }} {{ 3 not in [1, 2] }}
{{ {'a': [1, none, true, 2.5], "é": 'x"y'} | tojson }} {{ {'b': 1} }} {{ ['q', none, true] }} {{ (1, 'b') }} {{ none }} {{ true }} {{ 1.0 }}
{{ [3, 1, 2] | sort | join('-') }} {{ ['b', 'A'] | sort }} {{ [1, 2, 3] | sum }} {{ ['x', 'X', 'y'] | unique | list }} {{ [1, 5] | max }}{{ [] | min }}
{{ {'b': 1, 'a': 2} | dictsort }} {{ {'k': 1} | items | list }} {{ {'k': 1}.items() | list }} {{ {'k': 1}.get('z', 9) }} {{ {'k': 4}['k'] }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a-b-c'.split('-', 1) }} {{ 'a-b-c'.rsplit('-', 1) }} {{ 'a=b'.partition('=') }} {{ 'x\\ny\\n'.splitlines() }}
{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[::-1] }}{{ 'abc'[9] }}{{ [1, 2, 3][1:] }}{{ 'Hello'.upper().lower().title() }} {{ 'prefix-x'.removeprefix('prefix-') }}
{{ 'a b' | title }} {{ 'heLLo' | capitalize }} {{ 'xax' | replace('x', 'yy') }} {{ 'xax' | replace('x', 'z', 1) }} {{ '3' | int + 1 }} {{ 'z' | int(7) }} {{ '2.5' | float }} {{ 2.567 | round(1) }}
{{ 'one\\n\\ntwo' | indent(2) }}|{{ 'one\\ntwo' | indent(2, true) }}|{{ 'a\\n\\nb' | indent('> ', blank=true) }}
{{ messages | map(attribute='role') | join(',') }} {{ ['a', 'b'] | map('upper') | list }} {{ messages | rejectattr('role', 'equalto', 'user') | list | length }}
{{ (messages | selectattr('nothing')) is defined }} {{ 'yes' if messages | selectattr('nothing') else 'no' }} {{ [0, 1, '', 'x'] | select | list }}
{{ 1 is odd }} {{ 4 is divisibleby(2) }} {{ 'x' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ 'x' is sequence }} {{ none is none }} {{ 1 is number }} {{ missing is sequence }}
{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}in {{ messages|length }}{% endcall %}
{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }} {% for m in messages %}{{ (loop.previtem or {}).role }}<{{ m.role }}>{{ loop.nextitem is defined }}{{ loop.changed(m.role) }}{{ loop.revindex0 }} {% endfor %}
{{ messages | first | tojson }} {{ [1, 2] | last }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ 'abc' | first }} {{ 'a' ~ 1 ~ none ~ true }} {{ dict(a=1, b=2) }}
  {%- if messages[0].role == 'user' and 'x' or false %} yes {%- elif false %} no {% endif +%}
{% set ns = namespace(b=none) %}{{ ns.b is none }} {{ ns.b }} {{ ns.b is defined }} {{ ns.c is defined }} {% for x in [none, 1, none] %}{{ loop.previtem }}/{{ loop.nextitem }};{% endfor %}
{{ none | selectattr('a') | list }}{{ none | rejectattr('a') | list }}{{ none | select | list }}{{ none | map('upper') | list }}{{ false | map(attribute='a') | list }}
{{ '%s is %d%% of %s' | format('a', 50.7, [1]) }} {{ 'plain' | format }} {{ '%d' | format(true) }} {{ '<%s>' | format(none) }}
{{ '<a>' | safe }} {{ '<a>' | safe ~ '<b>' }} {{ 'a' | safe + 'b' }} {{ 'b' + 'a' | safe }} {{ '<' | safe + '>' | safe }} {{ {'a': '<'} | tojson | safe }} {% set x = '<' | safe %}{{ x }}
{{ 'a-b-c'.rfind('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'a b  c'.rsplit(none, 1) }} {{ ' a '.split() }} {{ 'a-b'.split('-', 0) }} {{ 2 in range(3) }} {{ 2.5 in range(3) }} {{ 1 in {'a': 1}.values() }}
{{ 2 in ['1', '2'] | map('int') }} {{ 2 is in(['1', '2'] | map('int')) }} {{ 'a' is lower }} {{ 'aB' is upper }} {{ 5 is lower }} {{ ['a'] is lower }} {{ ['b', 'A', 'a'] | max }} {{ [2, 1, 2**61, 2**62] | unique | list }}
{% macro all() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ all(1, 2, a=3) }} {% macro call() %}{{ caller('x') }}{% endmacro %}{% call(a) call() %}{{ a }}{% endcall %}
{% raw %}{{ not this }}{% endraw %} {{ "tab\\t" }}{{ 'single \\'quoted\\'' }}
"""  # noqa: E501
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "qwen": QWEN, "mistral": MISTRAL, "zephyr": ZEPHYR, "phi3": PHI3,
             "gemma": GEMMA}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Élan <b> & 'so'", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Graz <|im_end|>", "n": 3}}}
TALKS = {
    "one": [{"role": "user", "content": "Hello"}],
    "spaces": [{"role": "user", "content": "  two\n lines \n"}, {"role": "assistant", "content": "\n\nYes. "}],
    "system": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why? <|im_end|>"},
               {"role": "assistant", "content": "Äh 🐌"}, {"role": "user", "content": ""}],
    "thought": [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"}],
    "tools": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
              {"role": "tool", "content": "no"}, {"role": "assistant", "content": "No rain."}],
}  # fmt: skip


def theirs(source, messages, **given):
    """What transformers renders, or None where its template raises."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    jinja2 = pytest.importorskip("jinja2")
    try:
        rendered, _ = utils.render_jinja_template(conversations=[messages], chat_template=source, **given)
    except jinja2.TemplateError:
        return None
    return rendered[0]


@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_rendered_as_transformers_does(name, talk, generation):
    source, messages = TEMPLATES[name], TALKS[talk]
    tools = TOOLS if talk == "tools" else None
    expected = theirs(
        source, messages, tools=tools, add_generation_prompt=generation, bos_token="<s>", eos_token="</s>"
    )
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    if expected is None:
        with pytest.raises(DataError, match="refuses these messages"):
            template.render(messages, generation=generation, tools=tools)
        return
    assert template.render(messages, generation=generation, tools=tools) == expected
    parts = template.segments(messages, generation=generation, tools=tools)
    assert "".join(part.text for part in parts) == expected


def test_the_corners_of_the_language():
    """Line by line, so that a difference shows where it is; the macro of the first line is used in the second."""
    first, *lines = CORNERS.splitlines()
    for line in lines:
        source = f"{first}\n{line}\n"
        assert ChatTemplate(source).render(TALKS["system"]) == theirs(source, TALKS["system"]), line


def test_the_same_through_a_tokenizer_of_transformers(tmp_path):
    """`apply_chat_template` itself, with variables of its own and special tokens that the tokenizer names."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    transformers = pytest.importorskip("transformers")
    tiny = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip
    for source in (QWEN, LLAMA3, "{{ bos_token }}{{ eos_token }}{{ unk_token }}[{{ pad_token }}]"):
        expected = tiny.apply_chat_template(
            TALKS["one"], chat_template=source, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        ours = ChatTemplate(source, bos="<s>", eos="</s>", unk="<unk>")
        assert ours.render(TALKS["one"], generation=True, variables={"enable_thinking": False}) == expected


def test_parts_say_whose_words_they_hold():
    """By hand: Gemma's template trims, so the spaces belong to nobody."""
    parts = ChatTemplate(GEMMA, bos="<bos>").segments([{"role": "user", "content": " <end_of_turn> hi\n"}])
    assert parts == [
        Segment("<bos><start_of_turn>user\n", "", False),
        Segment("<end_of_turn> hi", "user", True, 0),
        Segment("<end_of_turn>\n", "", False),
    ]


def test_what_is_cut_out_of_a_message_stays_its_own():
    parts = ChatTemplate(QWEN).segments(TALKS["thought"])
    assert [(part.text, part.message) for part in parts if part.content] == [("2+2", 0), ("add", 1), ("4", 1)]


def test_tool_calls_and_tool_descriptions_are_content():
    parts = ChatTemplate(QWEN).segments(TALKS["tools"], tools=TOOLS)
    content = "".join(part.text for part in parts if part.content)
    assert "Graz <|im_end|>" in content and "weather" in content
    assert not any("weather" in part.text or "Graz" in part.text for part in parts if not part.content)
    assert [part.role for part in parts if part.message == -1] == ["tools"]


@pytest.mark.parametrize(
    ("source", "own"),
    [
        ("{{ messages[0].content | upper }}", "A<X>B"),
        ("{{ messages[0].content[1:] }}", "<x>b"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "a<x>b"}'),
        ("{{ messages }}", "[{'role': 'user', 'content': 'a<x>b'}]"),
        ("{% for c in messages[0].content %}{{ c }}{% endfor %}", "a<x>b"),
        ("{{ messages[0].content | list | join }}", "a<x>b"),
        ("{{ messages[0].content.split('<') | last }}", "x>b"),
        ("{{ (messages[0].content ~ '!').split('x')[1] }}", ">b"),
        ("{{ ('<' ~ messages[0].content).strip('<a') }}", "x>b"),
        ("{% set t %}{{ messages[0].content }}{% endset %}{{ t | trim }}", "a<x>b"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(messages[0].content) }}", "a<x>b"),
        ("{{ messages | map(attribute='content') | map('trim') | join('-') }}", "a<x>b"),
        ("{{ messages[0].content * 2 }}", "a<x>ba<x>b"),
        ("{{ messages[0].content.replace('a', 'b') }}", "b<x>b"),
        ("{{ messages[0].values() | list | last }}", "a<x>b"),
        ("{{ messages[0].content | reverse }}", "b>x<a"),
    ],
)
def test_no_way_around_the_origin(source, own):
    """However a template turns content, what is left of it never becomes the template's own words."""
    parts = ChatTemplate(source).segments([{"role": "user", "content": "a<x>b"}])
    assert "".join(part.text for part in parts if part.content) == own
    assert not any("x" in part.text.lower() for part in parts if not part.content)


@pytest.mark.parametrize(
    "source",
    ["{{ ('<x>' + messages[0].content) | upper }}", "{{ '<a>Q'.replace('Q', messages[0].content) }}"],
)
def test_mixing_that_cannot_be_undone_is_refused(source):
    with pytest.raises(DataError, match="changes .* a message and its own words in one go"):
        ChatTemplate(source).segments([{"role": "user", "content": "hello"}])
    assert ChatTemplate(source).render([{"role": "user", "content": "hello"}])


def test_a_role_is_a_word():
    with pytest.raises(DataError, match="has the role"):
        ChatTemplate(CHATML).segments([{"role": "user<|im_end|>", "content": "x"}])


@pytest.mark.parametrize("role", [["<|im_end|>"], {"<|im_end|>": 1}, None, 5, "", "a b"])
def test_a_role_is_nothing_but_a_word(role):
    """A role is not marked as content: in a list a special token would pass for the template's own."""
    with pytest.raises(DataError, match="message 0 has the role"):
        ChatTemplate("{{ messages[0].role[0] }}").segments([{"role": role, "content": "x"}])


def test_the_keys_of_a_message_are_content():
    parts = ChatTemplate("{% for key in messages[0] %}[{{ key }}]{% endfor %}").segments([{"<|im_end|>": "x"}])
    assert [(part.text, part.content) for part in parts] == [("[", False), ("<|im_end|>", True), ("]", False)]


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("{{ documents[0].text }}", {"documents": [{"text": "<|im_end|>"}]}),
        ("{{ documents | tojson }}", {"documents": {"<|im_end|>": 1}}),
        ("{{ name }}", {"name": "<|im_end|>"}),
        ("{{ messages[0] }}", {"messages": ["<|im_end|>"]}),
        ("{{ bos_token }}", {"bos_token": "<|im_end|>"}),
    ],
)
def test_variables_are_content(source, variables):
    """A document that a user uploads holds the user's words, wherever it comes in."""
    template = ChatTemplate("<" + source + ">", bos="<s>")
    before, inside, after = template.segments([{"role": "user", "content": "x"}], variables=variables)
    assert (before.text, after.text, inside.role, inside.message) == ("<", ">", "variables", -2)
    assert inside.content and "<|im_end|>" in inside.text
    assert not before.content and not after.content


def test_variables_have_names_of_any_kind_but_names():
    assert (
        ChatTemplate("{{ self }}{{ around }}{{ names }}").render(
            [], variables={"self": "a", "around": "b", "names": "c"}
        )
        == "abc"
    )
    with pytest.raises(DataError, match="a variable is called 1"):
        ChatTemplate("x").render([], variables={1: "x"})


@pytest.mark.parametrize("call", ["m(1, 2)", "m(b=3)", "m(1, a=2)", "m(1, caller=2)"])
def test_a_macro_is_given_what_it_takes(call):
    source = "{% macro m(a) %}{{ a }}{% endmacro %}{{ CALL }}".replace("CALL", call)
    with pytest.raises(TypeError, match="macro 'm'"):
        theirs(source, [])
    with pytest.raises(DataError, match="a macro"):
        ChatTemplate(source).render([])


def test_a_macro_without_a_caller_is_not_called_with_one():
    source = "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}"
    with pytest.raises(TypeError, match="macro 'm'"):
        theirs(source, [])
    with pytest.raises(DataError, match="given 'caller'"):
        ChatTemplate(source).render([])


@pytest.mark.parametrize(
    "source", ["{{ 'b' | safe + '<a>' }}", "{{ '&' + 'b' | safe }}", "{% set x = '' | safe %}{{ x + '<' }}"]
)
def test_what_safe_would_escape_is_refused(source):
    """Jinja escapes what is added to safe text, even here where it escapes nothing else; nobody means that."""
    assert "&" in str(theirs(source, []))
    with pytest.raises(DataError, match="marked as safe"):
        ChatTemplate(source).render([])


def test_safe_keeps_the_origin():
    source = "{{ messages[0].content | safe + '!' }}{{ '?' | safe }}"
    parts = ChatTemplate(source).segments([{"role": "user", "content": "<x>"}])
    assert [(part.text, part.content) for part in parts] == [("<x>", True), ("!?", False)]


def test_format_keeps_the_origin():
    source = "{{ '<%s|%s>%%' | format(messages[0].content, 'b') }}{{ messages[0].content | format('own') }}"
    parts = ChatTemplate(source).segments([{"role": "user", "content": "a %s"}])
    assert [(part.text, part.content) for part in parts] == [
        ("<", False), ("a %s", True), ("|b>%", False), ("a ", True), ("own", False)
    ]  # fmt: skip


def test_keys_of_messages_are_plain_data():
    with pytest.raises(DataError, match="a message has a tuple for a key"):
        ChatTemplate("x").render([{("a", "b"): "c"}])


def test_messages_are_plain_data():
    with pytest.raises(DataError, match="a message holds a PosixPath|a message holds a WindowsPath"):
        from pathlib import Path

        ChatTemplate(CHATML).render([{"role": "user", "content": Path("x")}])


def test_the_date_is_todays():
    import datetime

    assert ChatTemplate("{{ strftime_now('%Y') }}").render([]) == str(datetime.datetime.now().year)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% if %}", "no valid Jinja in line 1"),
        ("a\n{% for x in %}", "no valid Jinja in line 2"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("\n\n{{ 'a' + 1 }}", "fails in line 3"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages | urlize }}", "filter 'urlize', which is not offered"),
        ("{{ 1 is strange }}", "test 'strange'"),
        ("{{ unknown() }}", "'unknown' is undefined"),
        ("{{ range }}", "prints a function"),
        ("{% for x in 5 %}{% endfor %}", "goes through a number"),
        ("{% set a, b = [1] %}", "takes 2 names from 1 values"),
        ("{{ 'a' is odd }}", "only numbers are divided, not a str by a number"),
        ("{{ 'a' | round }}", "a str cannot be rounded"),
        ("{{ '%s' | format }}", "0 values are formatted"),
        ("{{ '%5s' | format(1) }}", "formats with '%5'; only %s, %d and %% are offered"),
        ("{{ messages[0].content.zfill(3) }}", "the method 'zfill' of a str"),
        ("{{ messages[0].content() }}", "calls a str"),
        ("{% break %}", "leaves a loop where there is none"),
    ],
)
def test_what_goes_wrong_is_said_in_words(source, words):
    for told in ("render", "segments"):
        with pytest.raises(DataError, match=words):
            getattr(ChatTemplate(source), told)([{"role": "user", "content": "x"}])
