"""Compiled prompts equal what chat templates render, and never run the caller's texts as template code."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from onelogit import Recipe, RecipeError
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt, takes_instruction, warn_of_lost_text
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import QWEN3_TEMPLATE


@given(query=st.text(), document=st.text(), instruction=st.text(min_size=1), family=st.sampled_from(FAMILIES))
def test_a_compiled_prompt_equals_what_the_template_renders(
    query: str, document: str, instruction: str, family: Recipe
):
    conversation = [
        {"role": "system", "content": instruction},
        {"role": "query", "content": query},
        {"role": "document", "content": document},
    ]
    (rendered,), _ = render_jinja_template([conversation], chat_template=family.chat_template)

    prompt = compile_prompt(family.chat_template, True)

    assert fill(prompt, {"query": query, "document": document, "instruction": instruction}) == rendered


def test_the_callers_texts_are_never_run_as_template_code():
    values = {"query": "{{ 7 * 7 }}", "document": "{% for x in y %}{{ seam }}", "instruction": "{# gone? #}"}

    text = fill(compile_prompt(QWEN3_TEMPLATE, True), values)

    for value in values.values():
        assert value in text


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ messages[1].content }}", "writes no query"),
        ("{{ messages[0].content }} yes or no?", "writes no document"),
        ("{{ messages[0].content }}{{ messages[1].content }}{{ messages[1].content }}", "document 2 times"),
        ("{{ messages[0].content | upper }}{{ messages[1].content }}", "writes no query"),
        ("{{ messages[0].content[:2000] }}{{ messages[1].content }}", "changes a query"),
        ("{{ messages[0].content }}{{ messages[1].content | default('none', true) }}", "changes a query"),
        ("{{ raise_exception('only user and assistant') }}", "refuses the roles"),
        ("{{ messages[0].content ", "not valid jinja"),
        ("{{ messages[0].content }}{{ messages[5].content }}", "refuses the roles"),
        ("{{ ''.__class__.__mro__ }}", "refuses the roles.*unsafe"),
    ],
)
def test_a_template_that_is_not_for_reranking_is_refused(template: str, complaint: str):
    with pytest.raises(RecipeError, match=complaint):
        compile_prompt(template, False)


def test_only_some_families_have_a_place_for_an_instruction():
    takes = {recipe.family: takes_instruction(recipe.chat_template) for recipe in FAMILIES}

    assert (
        takes.items()
        >= {
            "qwen3-reranker": True,
            "kure-reranker": True,
            "coreb-code-reranker": True,
            "prism-reranker": True,
            "ctxl-rerank-v2": True,
            "mxbai-rerank-v2": True,
            "bge-reranker-v2-gemma": False,
            "zerank-1": False,
            "zerank-2": True,
        }.items()
    )


def test_a_family_takes_an_instruction_exactly_if_its_prompt_contains_one(family: Recipe):
    messages = [{"role": role, "content": f"a {role} text"} for role in ("system", "query", "document")]

    ((prompt,), _) = render_jinja_template([messages], chat_template=family.chat_template)

    assert takes_instruction(family.chat_template) == ("a system text" in prompt)


BOTH = "{{ messages[-2].content }} {{ messages[-1].content }}"
DROPPED = [BOTH + end for end in ("\n", "\n\n", "\r\n", "{% if true %} now{% endif %}\n\n", "{{ '\\n' }}\n")]
KEPT = [
    BOTH + end
    for end in ("", "{{ '\\n' }}", "{% if true %} now{% endif %}\n", "{% if true %} now{% endif -%}\n", "\n ")
]


@pytest.mark.parametrize("template", DROPPED)
def test_a_template_whose_last_newline_is_dropped_gives_a_warning(template: str, caplog: pytest.LogCaptureFixture):
    warn_of_lost_text(template)

    ((rendered,), _) = render_jinja_template(
        [[{"role": "query", "content": "<query>"}, {"role": "document", "content": "<document>"}]],
        chat_template=template,
    )
    assert f"prompts lack, because Jinja drops it, as in transformers: they end in {rendered[-20:]!r}" in caplog.text


@pytest.mark.parametrize("template", [*KEPT, *(recipe.chat_template for recipe in FAMILIES)])
def test_a_template_that_loses_no_newline_or_is_a_familys_gives_no_warning(
    template: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        warn_of_lost_text(template)

    assert not caplog.messages
