"""Templates that want to run forever, eat the memory, or reach the machine: each is refused in words, and cheaply."""

import time

import pytest

from groundup.errors import DataError
from groundup.text.template import ChatTemplate

GROW = "{% set ns = namespace(x=START) %}{% for i in range(90000) %}{% set ns.x = STEP %}{% endfor %}"


def grow(start, step, then=""):
    return GROW.replace("START", start).replace("STEP", step) + then


# 5,000 namespaces that hold the one or the other of two lists of equal numbers
BEHIND = (
    "{% set a = range(30000) | list %}{% set n = namespace(x=a) %}{% set m = namespace(x=range(30000) | list) %}"
    + ("{% set l = [n, m] * 2500 %}")
)
ENDLESS = {
    "nested loops": "{% for a in range(90000) %}" * 6 + "x" + "{% endfor %}" * 6,
    "empty nested loops": "{% for a in range(90000) %}" * 3 + "{% endfor %}" * 3,
    "a loop of filters": "{% for a in range(90000) %}{{ range(90000) | sort | unique | list | length }}{% endfor %}",
    "many searches": grow("'a' * 1000000", "ns.x", "{% for a in range(90000) %}{{ 'b' in ns.x }}{% endfor %}"),
    "many comparisons": "{% set l = range(50000) | list %}{% for a in l %}{{ l == l }}{% endfor %}",
    "stripping one by one": "{% set s = 'a' * 900000 %}{{ s.strip('b' * 900000 ~ 'a') }}",
    "mapping and mapping": "{% for a in range(90000) %}{{ range(9999) | map('string') | join }}{% endfor %}",
    "sorting by nothing": "{% for a in range(90000) %}{{ range(9999) | sort(attribute='x,y,z') }}{% endfor %}",
    "comparing turns": "{% set l = range(50000) | list %}{% for a in l %}{{ loop.changed(l) }}{% endfor %}",
    "comparing namespaces": "{% set a = namespace(x=1) %}{% set b = namespace(x=1) %}" + (
        "{% set a = namespace(x=[a, a]) %}{% set b = namespace(x=[b, b]) %}" * 60
    ) + "{{ a == b }}{% for i in range(90000) %}{% for i in range(90000) %}{{ a == b }}{% endfor %}{% endfor %}",
    "searching backwards": "{% set a = 'a' * 400000 %}{% set b = 'ab' + 'a' * 200000 %}{{ a.rfind(b) }}",
    "splitting backwards": "{% set a = 'a' * 400000 %}{% set b = 'ab' + 'a' * 200000 %}{{ a.rsplit(b) }}",
    "parting backwards": "{% set a = 'a' * 400000 %}{% set b = 'ab' + 'a' * 200000 %}{{ a.rpartition(b) }}",
    "looking in a range": "{% set r = range(100000) %}{% for i in range(5000) %}{{ 0.5 in r }}{% endfor %}",
    "testing in a range": "{% set r = range(100000) %}{% for i in range(5000) %}{{ 0.5 is in(r) }}{% endfor %}",
    "looking in an iterator": BEHIND + "{{ a in (l | map(attribute='x')) }}",
    "sorting behind a name": BEHIND + "{{ l | sort(attribute='x') }}",
    "extremes behind a name": BEHIND + "{{ l | max(attribute='x') }}",
    "differences of keys": "{% set d = {" + ",".join(f"{key}:1" for key in range(2000)) + "} %}" + (
        "{% for i in range(90000) %}{% set x = d.keys() - d.keys() %}{% endfor %}"
    ),
    "letters' case": "{% set s = 'a' * 4000000 %}{% for i in range(9000) %}{{ s is lower }}{% endfor %}",
    "numbers of one hash": "{% set t %}{% for i in range(20000) %}{{ i * (2**61 - 1) }} {% endfor %}{% endset %}"
                           "{{ t.split() | map('int') | unique | list | length }}",
    "a macro in loops": "{% macro m() %}{% for i in range(90000) %}x{% endfor %}{% endmacro %}" + "{{ m() }}" * 99,
}  # fmt: skip
GROWING = {
    "doubling by ~": grow("'ab'", "ns.x ~ ns.x"),
    "doubling by +": grow("'ab'", "ns.x + ns.x"),
    "doubling by join": grow("'ab'", "[ns.x, ns.x] | join"),
    "doubling by %s": "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 64,
    "doubling a list": grow("[1]", "ns.x + ns.x"),
    "doubling a tuple": grow("(1,)", "ns.x * 2"),
    "a list of itself": grow("[1]", "[ns.x, ns.x]", "{{ ns.x }}"),
    "a dict of itself": grow("{}", "{'a': ns.x, 'b': ns.x}", "{{ ns.x | tojson }}"),
    "a long string": "{{ 'a' * 10**10 }}",
    "a longer string": "{{ 'a' * 10**1000 }}",
    "a long string from the left": "{{ 10**10 * 'a' }}",
    "an empty one many times": "{{ '' * 10**10 }}{{ ('a' * 10**9) }}",
    "a long list": "{{ [0] * 10**10 }}",
    "a long range": "{{ range(10**9) | list }}",
    "a long range counted": "{% for i in range(0, 10**18, 1) %}{% endfor %}",
    "replace squares": "{% set s = 'a' * 100000 %}{{ s.replace('a', s) }}",
    "replace nothing": "{% set s = 'a' * 100000 %}{{ s | replace('', s) }}",
    "join squares": "{% set s = 'a' * 100000 %}{{ s.join(s) }}",
    "indent": "{{ ('a\n' * 100000) | indent('b' * 100000) }}",
    "indent of 10**9": "{{ 'a\nb' | indent(10**9) }}",
    "json indent": "{{ [[1]] | tojson(indent=10**9) }}",
    "json separators": "{{ range(9999) | list | tojson(separators=('a' * 999999, 'b')) }}",
    "a tower of powers": "{{ 9**9**9**9**9 }}",
    "squaring": grow("3", "ns.x * ns.x"),
    "a shift by rounding": "{{ 1 | round(-10**9) }}",
    "hexadecimal": "{{ ('f' * 4000000) | int(0, 16) }}",
    "long output": "{% set s = 'a' * 1000000 %}{% for i in range(90000) %}{{ s }}{% endfor %}",
    "splitting once": "{% set s = 'abc' * 2600000 %}{{ s.split('a') | length }}",
    "splitting into words": "{% set s = 'Ā ' * 3900000 %}{{ s.split() | length }}",
    "splitting into lines": "{% set s = 'Ā\n' * 3900000 %}{{ s.splitlines() | length }}",
    "indenting lines": "{% set s = 'Ā\n' * 3900000 %}{{ s | indent | length }}",
    "titles": "{% set s = 'Ā-' * 1250000 %}{{ s | title | length }}",
    "sorting copies": "{% set n = namespace(x='a' * 400000) %}{{ ([n] * 1000) | sort(attribute='x') | length }}",
    "the case of a printed list": "{% set s = '\U000e0001' * 1000000 %}{{ ([s] * 6) is lower }}",
    "formatting": "{% set s = 'a' * 1000000 %}{{ '%s%s%s%s%s%s%s%s%s' | format(s, s, s, s, s, s, s, s, s) }}",
    "captured output": "{% set s = 'a' * 999999 %}{% set t %}{% for i in range(9999) %}{{ s }}{% endfor %}{% endset %}",
    "a list printed": "{% set s = ['\x01' * 1000000] %}{% for i in range(90000) %}{{ s }}{% endfor %}",
    "splitting": "{% set s = 'a' * 1000000 %}{% for i in range(999) %}{% set ns = s.split('a') %}{% endfor %}",
    "slices": "{% set s = 'a' * 1000000 %}{% for i in range(9999) %}{% set t = s[1:] %}{% endfor %}",
    "namespace growth": grow("[]", "ns.x + [ns.x]", "{{ ns.x }}"),
    "deep tuples": grow("()", "(ns.x,)", "{{ {ns.x: 1} }}"),
    "deep dicts without a literal": grow("1", "dict(a=ns.x)", "{{ ns.x }}"),
    "deep varargs": "{% set ns = namespace(x=1) %}{% macro m() %}{% set ns.x = varargs %}{% endmacro %}"
                    "{% for i in range(90000) %}{{ m(ns.x) }}{% endfor %}{{ {ns.x: 1} }}",
    "macros that call themselves": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
    "macros that call each other": "{% macro a() %}{{ b() }}{% endmacro %}"
                                   "{% macro b() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
    "a caller that calls": "{% macro m() %}{{ caller() }}{% endmacro %}"
                           "{% call m() %}{% call m() %}x{% endcall %}{% endcall %}"
                           "{% macro r() %}{% set x = caller %}{% call r() %}{% endcall %}{% endmacro %}{{ r() }}",
}  # fmt: skip
REACHING = {
    "class": "{{ ''.__class__ }}",
    "class by item": "{{ ''['__class__'] }}",
    "class by a computed item": "{{ ''['__cla' ~ 'ss__'] }}",
    "subclasses": "{{ ().__class__.__base__.__subclasses__() }}",
    "class by map": "{{ [''] | map(attribute='__class__') | list }}",
    "class by a path": "{{ [{'a': ''}] | map(attribute='a.__class__') | list }}",
    "class by selectattr": "{{ [''] | selectattr('__class__') | list }}",
    "class by sort": "{{ ['', 'a'] | sort(attribute='__class__') }}",
    "class by groupby": "{{ [''] | groupby('__class__') }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "attr filter by map": "{{ [''] | map('attr', '__class__') | list }}",
    "format": "{{ '{0.__class__}'.format('') }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "format by item": "{{ ''['format'] }}",
    "percent": "{{ '%099999999d' % 1 }}",
    "format filter": "{{ '%099999999d' | format(1) }}",
    "format filter's width": "{{ '%9999999999s' | format('a') }}",
    "format filter's precision": "{{ '%.999999999f' | format(1) }}",
    "format filter's star": "{{ '%*d' | format(999999999, 1) }}",
    "format filter's letters": "{{ '%r' | format(messages) }}",
    "percent by odd": "{{ '%0999999999d' is odd }}",
    "percent by even": "{{ '%0999999999d' is even }}",
    "percent by divisibleby": "{{ '%0999999999d' is divisibleby(3) }}",
    "rounding text": "{{ 'a' | round(9, 'floor') }}",
    "format width": "{{ '{:>999999999}'.format(1) }}",
    "center": "{{ 'a' | center(10**9) }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "encode": "{{ 'a'.encode() }}",
    "translate": "{{ 'a'.translate({97: 'b' * 999}) }}",
    "wordwrap": "{{ 'a b' | wordwrap(1, true, 'c' * 999) }}",
    "the context": "{{ self._TemplateReference__context }}",
    "the context by name": "{{ self.__init__.__globals__ }}",
    "a function's globals": "{{ range.__globals__ }}",
    "globals of ours": "{{ raise_exception.__globals__['os'] }}",
    "a call's attribute": "{{ ''.upper.__self__ }}",
    "a macro's attribute": "{% macro m() %}{% endmacro %}{{ m.__call__ }}",
    "a loop's attribute": "{% for i in [1] %}{{ loop.__init__ }}{% endfor %}",
    "namespace by class": "{{ namespace().__class__ }}",
    "a name with two underscores kept": "{{ namespace(**{'__class__': 1}) }}",
    "set of a class": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "set of a message": "{% set messages.x = 1 %}",
    "appending": "{{ messages.append(1) }}",
    "appending by item": "{{ messages['append'](1) }}",
    "popping": "{{ messages[0].pop('role') }}",
    "updating": "{{ messages[0].update({'a': 1}) }}",
    "cycler": "{{ cycler('a').__init__ }}",
    "joiner": "{{ joiner().__init__.__globals__ }}",
    "lipsum": "{{ lipsum(n=10**9) }}",
    "lipsum's globals": "{{ lipsum.__globals__.os.popen('id').read() }}",
    "import": "{% import 'x' as y %}",
    "from import": "{% from 'x' import y %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block x %}{% endblock %}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
    "do": "{% do messages %}",
    "debug": "{% debug %}",
    "translation": "{% trans %}x{% endtrans %}",
    "a date without end": "{{ strftime_now('%099999999d') }}",
    "a long date": "{{ strftime_now('%Y' * 100000) }}",
    "an exception's words": "{{ raise_exception('no \x1b[31m such ' ~ 'role' * 1000) }}",
}  # fmt: skip
SOURCES = {
    "many tags, then a broken one": "{{a}}" * 19_900 + "{{",
    "many numbers, then a broken one": "{{ [" + "1," * 49_000 + "%}",
    "many words, then a broken one": "{% if a %}b{% endif %}" * 4_500 + "{%",
    "5 MB": "x" * 5_000_000,
    "5 MB of tags": "{{ 1 }}" * 700_000,
    "deep brackets": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "deep lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "deep not": "{{ " + "not " * 20_000 + "1 }}",
    "deep minus": "{{ " + "-" * 20_000 + "1 }}",
    "a long sum": "{{ " + "1+" * 20_000 + "1 }}",
    "a long chain of filters": "{{ 1 " + "|string" * 14_000 + "}}",
    "a long chain of attributes": "{{ a" + ".b" * 20_000 + " }}",
    "deep ifs": "{% if 1 %}" * 4_000 + "{% endif %}" * 4_000,
    "deep loops": "{% for x in [1] %}" * 3_000 + "{% endfor %}" * 3_000,
    "a number of 5,000 digits": "{{ " + "9" * 5_000 + " }}",
    "a number of 4,000 digits": "{{ " + "9" * 4_000 + " }}",
    "open tag": "{% for x in [1] %}",
    "open brackets": "{{ (" * 10_000,
    "open strings": "{{ '" * 10_000,
    "comments": "{#" * 49_000,
    "spaces": "{%" + " " * 99_000,
    "spaces before a broken tag": " " * 99_000 + "{%- x",
    "lines before a broken tag": "\n" * 99_000 + "{%- x",
    "raw": "{% raw %}" * 11_000,
    "backslashes": "{{ '" + "\\" * 99_000,
    "unknown letters": "{{ \x00\ud800 }}",
}


def refused(source: str, frugal) -> str:
    began = time.perf_counter()
    with frugal(), pytest.raises(DataError) as caught:
        ChatTemplate(source, bos="<s>", eos="</s>").render([{"role": "user", "content": "hello"}])
    assert time.perf_counter() - began < 60  # a stop for what would never end; the usual is a second or two
    return str(caught.value)


@pytest.mark.parametrize("name", ENDLESS)
def test_templates_without_end(name, frugal):
    words = refused(ENDLESS[name], frugal)
    assert "did not finish after" in words or "makes more than" in words


@pytest.mark.parametrize("name", GROWING)
def test_templates_that_grow(name, frugal):
    words = refused(GROWING[name], frugal)
    known = ("makes more than", "did not finish", "bits", "a range of", "spaces", "places", "deep")
    assert any(word in words for word in known), words


@pytest.mark.parametrize("name", REACHING)
def test_templates_that_reach_out(name, frugal):
    words = refused(REACHING[name], frugal)
    assert "chat template" in words and "\x1b" not in words and len(words) < 600


@pytest.mark.parametrize("name", SOURCES)
def test_sources_too_large_deep_or_broken(name, frugal):
    words = refused(SOURCES[name], frugal)
    known = ("characters, more than", "nests too deeply", "no valid Jinja", "bits", "undefined")
    assert any(word in words for word in known), words


def test_a_namespace_given_to_an_exception(frugal):
    doubled = "{% set a = namespace(x=1) %}" + "{% set a = namespace(x=[a, a]) %}" * 60
    assert "it says a Namespace" in refused(doubled + "{{ raise_exception(a) }}", frugal)


def test_text_of_many_owners_is_paid_for(frugal):
    """A conversation of 5,000 turns made one string, which a loop then cuts: each cut looks among 10,000 parts."""
    talk = [{"role": "user", "content": "a"}] * 5000
    source = "{% set ns = namespace(x='') %}{% set x %}{% for m in messages %}-{{ m.content }}{% endfor %}{% endset %}"
    with frugal(), pytest.raises(DataError, match="did not finish after"):
        ChatTemplate(source + "{% for i in range(90000) %}{{ x[i] }}{% endfor %}").segments(talk)


def test_an_exception_of_the_template_is_shown(frugal):
    assert "roles must alternate" in refused("{{ raise_exception('roles must alternate') }}", frugal)


def test_a_long_conversation_is_not_mistaken_for_an_attack():
    """2,000 turns of 500 characters through a template that goes through all of them twice."""
    source = "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    source += "{% for m in messages %}{{ '<' + m.role + '>' + (m.content | trim) + '\n' }}{% endfor %}"
    talk = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "an answer " * 50}] * 1000
    assert ChatTemplate(source).render(talk).count("<user>") == 1000
    assert len(ChatTemplate(source).segments(talk)) == 4001
