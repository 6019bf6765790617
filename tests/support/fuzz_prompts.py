"""Fuzz targets of prompts: chat templates, encoders of every kind of tokenizer, and prefix trees."""

import time
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

from hypothesis import strategies as st

from onelogit import InputError, RecipeError
from onelogit.engine.prefix_tree import Cursor, next_batch
from onelogit.prompts.bounded_template import parse_template
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.tokenizer import control_ids, unknown_id
from support.fuzzing import FuzzTarget
from support.kinds_of_tokenizers import OF_PAIRS, OF_PROMPTS, spellings
from support.rows import encoder_of

WHOLE = st.characters(exclude_categories=["Cs"])
TEXT = st.text(WHOLE, max_size=20)
MAX_COMPILE_S = 3.0  # of processor time, on a slow machine: the limit of a rendering is far below

_VALUES = [
    *("messages[-1].content", "messages[-2].content", "messages[0].content", "message.content", "messages", "message"),
    *(
        "x",
        "ns.x",
        "loop.index",
        "i",
        "'a'",
        "''",
        "'a' * 99999",
        "range(99999)",
        "10 ** 99",
        "[x, x]",
        "{'a': x}",
        "1",
    ),
    *(
        "x[1:]",
        "x is eq x",
        "x == x == x",
        "(1).to_bytes(9, 'big')",
        "dict([[1, x]])",
        "loop",
        "{x: 1}[x]",
        "x is in x",
    ),
    *("'{:99999}'", "'%99999s'", "seam", "m('a')", "m(x)", "x[::-1]", "x | length", "none", "(x, x)", "2 ** 4000"),
]
_OPERATORS = ["+", "*", "~", "**", "%", "-", "//", "==", "in", "and", "or"]
_FILTERS = [
    *("trim", "upper", "length", "list", "join('ab')", "center(9999)", "indent(99)", "replace('a', x)", "tojson"),
    *("string", "first", "last", "reverse", "sort", "map('upper')", "format('a')", "default('a', true)", "int", "abs"),
    *("batch(3)", "slice(3)", "round(99)", "sum", "select", "unique", "e", "title", "tojson(indent=99)", "items"),
    *("round(-99999)", "sort(attribute='a.b')", "select('in', x)", "map(attribute='0.0')", "groupby(0)", "reject"),
]
_METHODS = [".strip()", ".split()", ".join([x, x])", ".replace('a', 'aa')", ".format(x, x)", ".ljust(9999)", ".upper()"]
_EXPRESSIONS = st.recursive(
    st.sampled_from(_VALUES) | st.integers(-2, 10**7).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(_OPERATORS), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, st.sampled_from(_FILTERS)).map(lambda parts: f"({parts[0]} | {parts[1]})"),
        st.tuples(inner, st.sampled_from(_METHODS)).map(lambda parts: f"({parts[0]}){parts[1]}"),
    ),
    max_leaves=4,
)
_PARTS = st.recursive(
    st.one_of(
        _EXPRESSIONS.map(lambda value: f"{{{{ {value} }}}}"),
        _EXPRESSIONS.map(lambda value: f"{{% set x = {value} %}}"),
        _EXPRESSIONS.map(lambda value: f"{{% set ns.x = {value} %}}"),
        st.sampled_from(
            ["{{ messages[-2].content }}", "{{ messages[-1].content }}", "{{ messages[0].content | trim }}"]
        ),
        TEXT,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.tuples(_EXPRESSIONS, inner).map(lambda parts: f"{{% for i in {parts[0]} %}}{parts[1]}{{% endfor %}}"),
        st.tuples(_EXPRESSIONS, inner).map(lambda parts: f"{{% if {parts[0]} %}}{parts[1]}{{% endif %}}"),
        inner.map(lambda part: f"{{% macro m(x) %}}{part}{{% endmacro %}}"),
        inner.map(lambda part: f"{{% for message in messages %}}{part}{{% endfor %}}"),
        inner.map(lambda part: f"{{% set x %}}{part}{{% endset %}}"),
    ),
    max_leaves=6,
)
_START = "{% set ns = namespace(x='') %}{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}"
TEMPLATES = st.tuples(st.sampled_from(["", _START, _START + "{% set x = 'ab' %}"]), _PARTS).map("".join)
TEXTS = st.fixed_dictionaries(dict.fromkeys(("query", "document", "instruction"), TEXT))


def check_template(case: tuple[str, bool, dict[str, str]]) -> None:
    """A template is refused, or gives a prompt; it takes no long time in either case, and raises nothing else."""
    template, has_instruction, texts = case
    started = time.thread_time()
    try:
        prompt = compile_prompt(template, has_instruction)
    except RecipeError:
        assert time.thread_time() - started < MAX_COMPILE_S, template
        return
    assert time.thread_time() - started < MAX_COMPILE_S, template
    roles = ["system"] * has_instruction + ["query", "document"]
    messages = [{"role": role, "content": texts["instruction" if role == "system" else role]} for role in roles]
    with suppress(RecipeError):  # it may depend on the texts
        parse_template(template).render(messages=messages, seam="", add_generation_prompt=False)
    assert isinstance(fill(prompt, texts), str)


@cache
def _prepared(kind: str) -> tuple[Encoder, Encoder, set[int], tuple[int, ...]]:
    template = "{{ messages[0].content }}\nQuery: {{ messages[-2].content }}\nDocument: {{ messages[-1].content }}\n!"
    tokenizer = {**OF_PROMPTS, **OF_PAIRS}[kind]()
    backend = tokenizer.backend_tokenizer
    control = set(control_ids(backend).values()) - {unknown_id(backend)}
    encoders = [
        encoder_of(tokenizer, template if kind in OF_PROMPTS else None, limit, long_documents=long)
        for limit, long in ((9999, "truncate"), (60, "chunk_max"))
    ]
    plain = encoders[0].rows([("q", "d")], None)[0].ids
    return encoders[0], encoders[1], control, tuple(id for id in plain if id in control)


_SPELLINGS = spellings(["<|im_end|>", "<|im_start|>", "<think>", "<s>", "</s>", "[SEP]", "[CLS]", "<tool>", "[END]"])
HOSTILE = st.lists(st.sampled_from([*_SPELLINGS, "STOP", "<", "|", ">", " ", "\n"]) | TEXT, max_size=8).map("".join)


def check_encoder(case: tuple[str, str, str]) -> None:
    """A pair has the control tokens of its prompt alone, and its chunks are within the limit."""
    kind, query, document = case
    whole, chunked, control, expected = _prepared(kind)
    (row,) = whole.rows([(query, document)], None)
    assert tuple(id for id in row.ids if id in control) == expected, case
    try:
        rows = chunked.rows([(query, document)], None)
    except InputError:
        return  # the query leaves no room
    assert all(len(each.ids) <= 60 for each in rows)
    assert all(tuple(id for id in each.ids if id in control) == expected for each in rows)


ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=10).map(tuple), max_size=12).map(
    lambda rows: sorted(set(rows))
)


def check_prefix_tree(case: tuple[list[tuple[int, ...]], int]) -> None:
    """Each row ends once and sees its own ids; each shared prefix is computed once."""
    rows, budget = case
    cursor, carried, seen, computed = Cursor(), [], {}, 0
    while cursor.row < len(rows):
        batch = next_batch(rows, cursor, budget)
        assert 0 < len(batch.ids) <= budget
        sources: list[list[int]] = [batch.ids, carried, []]
        computed += len(batch.ids)
        for segment in batch.segments:
            if (row := batch.ends.get(segment.stop - 1)) is not None:
                assert row not in seen
                seen[row] = [*_followed(segment.ancestors, sources), *batch.ids[segment.start : segment.stop]]
        carried, cursor = _followed(batch.carry, sources), batch.after
    assert seen == {index: [*row] for index, row in enumerate(rows)}
    assert computed == len({row[: length + 1] for row in rows for length in range(len(row))})


def _followed(path: Any, sources: list[list[int]]) -> list[int]:
    return [id for source, start, stop in path for id in sources[source][start:stop]]


def random_tree(random: Random) -> tuple[list[tuple[int, ...]], int]:
    """As `ROWS`, with a number of tokens for a batch."""
    rows = {tuple(random.choices((0, 1, 2), k=random.randint(1, 10))) for _ in range(random.randint(0, 12))}
    return sorted(rows), random.randint(1, 25)


TARGETS = [
    FuzzTarget("template", st.tuples(TEMPLATES, st.booleans(), TEXTS), check_template),
    FuzzTarget("encoder", st.tuples(st.sampled_from([*OF_PROMPTS, *OF_PAIRS]), HOSTILE, HOSTILE), check_encoder),
    FuzzTarget("prefix tree", st.tuples(ROWS, st.integers(1, 25)), check_prefix_tree, random_tree),
]
