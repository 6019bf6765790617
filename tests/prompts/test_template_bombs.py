"""A chat template that loops or explodes is refused within a second, and takes little memory until then."""

import resource
import time

import pytest

from onelogit import RecipeError
from onelogit.prompts.template import check_template, compile_prompt, takes_instruction
from onelogit.prompts.template_limits import MAX_TEMPLATE, TemplateLimitError
from onelogit.recipes.families import FAMILIES

BOTH = "{{ messages[-2].content }} {{ messages[-1].content }}"
DOUBLING = "{% set x = 'aaaaaaaaaaaaaaaa' %}"
LIST = "{% set x = range(99999) | list %}"
LIST_TOO = "{% set y = range(99999) | list %}"
NESTED = "{% for i in range(99999) %}" * 6 + "{% endfor %}" * 6
MAX_S = 1.0
MAX_BYTES = 400 * 2**20

BOMBS = {
    "a long loop": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": NESTED,
    "nested loops that write": NESTED.replace("{% endfor %}", "a{% endfor %}", 1),
    "a loop over a text": "{% for a in 'a' * 90000 %}{% for b in 'a' * 90000 %}{% endfor %}{% endfor %}",
    "a filtered loop": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "a text times a number": "{{ 'a' * 10**9 }}",
    "a number times a text": "{{ 10**9 * 'a' }}",
    "a list times a number": "{{ [1] * 10**9 }}",
    "a tuple times a number": "{{ (1, 2) * 10**9 }}",
    "a power": "{{ 10 ** (10 ** 8) }}",
    "a power of a power": "{% set x = 10 ** 1000 %}" + "{% set x = x * x %}" * 40,
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a macro that doubles": (
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}" + DOUBLING + "{% set x = m(x) %}" * 40 + "{{ x }}"
    ),
    "a caller": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 15
    + "a" * 9999
    + ("{% endcall %}" * 15),
    "a block in a block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "doubling with ~": DOUBLING + "{% set x = x ~ x %}" * 40,
    "doubling with +": DOUBLING + "{% set x = x + x %}" * 40,
    "doubling with a join": DOUBLING + "{% set x = [x, x] | join %}" * 40,
    "doubling with a method": DOUBLING + "{% set x = ''.join([x, x]) %}" * 40,
    "doubling with replace": DOUBLING + "{% set x = x.replace('a', 'aa') %}" * 40,
    "squaring with replace": DOUBLING + "{% set x = x | replace('a', x) %}" * 10,
    "squaring with join": DOUBLING + "{% set x = x | join(x) %}" * 10,
    "doubling with %": DOUBLING + "{% set x = '%s%s' % (x, x) %}" * 40,
    "doubling with format": DOUBLING + "{% set x = '{}{}'.format(x, x) %}" * 40,
    "doubling with a filter": DOUBLING + "{% set x = '%s%s' | format(x, x) %}" * 40,
    "doubling in a block": DOUBLING + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40,
    "doubling in a namespace": (
        "{% set ns = namespace(x='aaaaaaaa') %}" + "{% set ns.x = ns.x ~ ns.x %}" * 40 + "{{ ns.x }}"
    ),
    "lists in lists": "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "tuples in tuples": "{% set x = ('a',) %}" + "{% set x = (x, x) %}" * 60 + "{{ {x: 1} }}",
    "objects in objects": "{% set x = {'a': 1} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x | tojson }}",
    "namespaces in namespaces": ("{% set x = namespace(a=1) %}" + "{% set x = namespace(a=x, b=x) %}" * 60 + "{{ x }}"),
    "a namespace in itself": "{% set x = namespace() %}{% set x.a = [x, x] %}{{ x }}",
    "equal lists": "{% set x = ['a'] %}{% set y = ['a'] %}"
    + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60
    + "{{ x == y }}",
    "center": "{{ 'a' | center(10**9) }}",
    "indent": "{{ 'a\\nb' | indent(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "a wide %": "{{ '%1000000000d' % 1 }}",
    "a wide % from a tuple": "{{ '%*d' % (10**9, 1) }}",
    "a wide filter": "{{ '%1000000000d' | format(1) }}",
    "a wide format": "{{ '{:1000000000}'.format(1) }}",
    "a width in a format": "{{ '{:{}}'.format(1, 10**9) }}",
    "a text as a width": "{{ '{:{}}'.format(1, '1000000000') }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "many fields": "{{ ('{0}' * 20000).format('a' * 99999) }}",
    "json": "{{ range(99999) | list | tojson(indent=99999) }}",
    "a batch": "{{ [1] | batch(10**9, 'a') | list }}",
    "slices": "{{ [1] | slice(10**9) | list }}",
    "rounding": "{{ 1.5 | round(10**9, 'ceil') }}",
    "a map": "{{ range(99999) | map('center', 99999) | join }}",
    "a lazy map": "{% for x in range(99999) | map('string') | map('center', 99999) %}{% endfor %}",
    "a sum of lists": "{{ ([[1] * 1000] * 190) | sum(start=[]) }}",
    "lipsum": "{{ lipsum(10**6) }}",
    "translate": "{{ ('a' * 9999).translate({97: 'b' * 99999}) }}",
    "strip": "{{ ('a' * 199999).strip('b' * 199998 ~ 'a') }}",
    "a cycle": "{% set c = cycler('a' * 99999) %}{% for i in range(99999) %}{{ c.next() }}{% endfor %}",
    "much text": "{% for i in range(99999) %}" + "a" * 9999 + "{% endfor %}",
    "a long template": "a" * (MAX_TEMPLATE + 1),
    "many tags": "{{a}}" * 1_501,
    "many values": "{{ [" + "a[b], " * 9_000 + "] }}",
    "many numbers compared": "{{ 1" + "<1" * 29_000 + " }}",
    "nested brackets": "{{ " + "(" * 9999 + ")" * 9999 + " }}",
    "nested lists": "{{ " + "[" * 9999 + "]" * 9999 + " }}",
    "many operators": "{{ 1" + " + 1" * 14_000 + " }}",
    "many attributes": "{{ a" + ".a" * 29_000 + " }}",
    "nested conditions": "{% if a %}" * 700 + "{% endif %}" * 700,
    "deep loops": "{% for a in messages %}" * 90 + "{% endfor %}" * 90,
    "division by zero": "{{ 1 / 0 }}",
    "a large float": "{{ 10.0 ** 999 }}",
    "a number of many digits": "{{ ('9' * 4000) | int }}",
    "many slices": LIST + "{% set y = x[1:] %}" * 1_200,
    "slices in a condition": LIST + "{% for a in range(99999) if not x[1:] %}{% endfor %}",
    "tests in a condition": LIST + LIST_TOO + "{% for a in range(99999) if x is ne y %}{% endfor %}",
    "a list of tests": LIST + LIST_TOO + "{{ [" + "x is eq y, " * 1_400 + "] }}",
    "a chain of comparisons": LIST + LIST_TOO + "{{ x" + " == y == x" * 1_200 + " }}",
    "a search for each item": "{{ range(31000) | list | select('in', range(31000, 62000) | list) | list }}",
    "a search from the end": "{{ ('a' * 46000 ~ 'b').rfind('ab' ~ 'a' * 21000) }}",
    "many values joined": LIST + "{{ x" + " ~ x" * 5_000 + " }}",
    "many arguments of a method": LIST + "{{ ''.join(" + "x, " * 5_000 + ") }}",
    "many arguments of a filter": LIST + "{{ 'a' | default(" + "x, " * 5_000 + ") }}",
    "a number as bytes": "{{ (1).to_bytes(10 ** 10, 'big') }}",
    "numbers with one hash": "{{ dict(range(0, (2 ** 61 - 1) * 99990, 2 ** 61 - 1) | batch(2)) }}",
    "numbers with one hash in a namespace": "{{ namespace(range(0, (2 ** 61 - 1) * 99990, 2 ** 61 - 1) | batch(2)) }}",
    "keys less others": "{{ {1: 1}.keys() - range(9) }}",
    "keys that others lack": "{{ {1: 1}.keys().isdisjoint(range(9)) }}",
    "a tuple as a key": "{% set t = (1,) * 99999 %}{% set d = {} %}{{ [" + "d[t], " * 1_500 + "] }}",
    "nested JSON": "{% set x = range(4000) | list %}" + "{% set x = [x] %}" * 400 + "{{ x | tojson(indent=4000) }}",
    "nested JSON with a text": "{% set x = [[1]] %}{{ x | tojson(indent='a' * 99) }}",
    "tags of markup": "{{ (('<a>' * 60000) | safe).striptags() }}",
    "a long date": "{{ strftime_now('%d' * 99) }}",
    "loops in loops": "{% for a in messages %}" * 17 + "{% endfor %}" * 17,
    "many places in loops": "{% for a in messages %}" * 15 + "{{ a }}b" * 1_400 + "{% endfor %}" * 15,
    "a large number": "{% set x = 0x" + "f" * 40_000 + " %}{{ [" + "x is divisibleby 7, " * 900 + "] }}",
    "rounding an integer": "{{ 1 | round(-1000000000) }}",
    "an attribute of many parts": "{{ range(1000) | list | sort(attribute='a,' * 49999) }}",
    "an item of many parts": "{{ (['a'] * 1000) | unique(attribute='0.' * 49999 ~ '0') | list }}",
    "long numbers": "".join(f"{{% set x{i} = range(2 ** 4000, 2 ** 4000 + 99999) | list %}}" for i in range(40)),
}


LARGE = {
    "many variables": "{{a}}" * 1_490,
    "variables in many scopes": (
        "".join(f"{{% set a{i} = 1 %}}" for i in range(600)) + "{% for b in x %}{{ b }}{% endfor %}" * 290
    ),
    "many macros": "{% macro m() %}{{ a }}{% endmacro %}" * 490,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_template_is_read_within_a_second(name: str):
    started = time.thread_time()

    assert compile_prompt(LARGE[name] + BOTH, False)

    assert time.thread_time() - started < MAX_S


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_explodes_is_refused_within_a_second(name: str):
    template = BOMBS[name] + BOTH
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()

    with pytest.raises(RecipeError, match="the chat template "):
        compile_prompt(template, False)

    assert time.thread_time() - started < MAX_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_BYTES


def test_a_template_that_takes_too_long_is_not_rendered_again():
    template = NESTED + BOTH + "{# again #}"
    with pytest.raises(TemplateLimitError, match="takes more than 0.3 s of processor time although"):
        check_template(template)
    started = time.thread_time()

    for _ in range(9):
        with pytest.raises(TemplateLimitError):
            takes_instruction(template)

    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize("family", FAMILIES, ids=lambda recipe: recipe.family)
def test_the_templates_of_known_families_are_far_below_the_limits(family):
    if family.chat_template is None:
        return
    started = time.thread_time()

    compile_prompt(family.chat_template + "{# once more #}", True)

    assert time.thread_time() - started < 0.25
