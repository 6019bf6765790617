"""The instruction of the LlamaIndex adapter, given as a text or as a prompt template."""

import asyncio
from typing import Any

import pytest
from langchain_core.prompts import PromptTemplate as LangChainTemplate
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    RichPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.postprocessor.onelogit_rerank import OnelogitRerank
from onelogit import InputError, Reranker
from support.tiny import Tiny

QUERY = "Which {city} is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No."]


@pytest.fixture
def model(tiny_qwen: Tiny) -> str:
    return str(tiny_qwen.folder)


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]


def logits(ranked: list[NodeWithScore]) -> list[float]:
    return [node.metadata["relevance_logit"] for node in ranked]


def query_of(**values: str) -> str:
    return f"<{values['query_str']}>"


def shout(**values: str) -> str:
    return values["query_str"].upper()


FILLED: list[tuple[str | BasePromptTemplate, str]] = [
    ("Find what answers {query_str}", f"Find what answers {QUERY}"),
    (PromptTemplate("{query_str} {query_str}"), f"{QUERY} {QUERY}"),
    (PromptTemplate("Find {what} for {query_str}", what="cats"), f"Find cats for {QUERY}"),
    (PromptTemplate("Find {what}").partial_format(what="cats"), "Find cats"),
    (PromptTemplate("Find {q}", function_mappings={"q": query_of}), f"Find <{QUERY}>"),
    (PromptTemplate("Find {mine}", template_var_mappings={"query_str": "mine"}), f"Find {QUERY}"),
    (PromptTemplate('Like {"a": {"b": 1}}, {query_str}'), f'Like {{"a": {{"b": 1}}}}, {QUERY}'),
    (RichPromptTemplate("Find {{ what }} for {{ query_str }}", what="cats"), f"Find cats for {QUERY}"),
    (SelectorPromptTemplate(PromptTemplate("Find {query_str}")), f"Find {QUERY}"),
    ('{"a": 1}', '{"a": 1}'),
    ("a lone { or }, {}, {0} and { text }", "a lone { or }, {}, {0} and { text }"),
    ("", ""),
]


@pytest.mark.parametrize(("prompt", "expected"), FILLED)
def test_the_query_is_filled_in_and_all_else_is_as_written(
    model: str, reranker: Reranker, prompt: str | BasePromptTemplate, expected: str
):
    ranking = reranker.rank(QUERY, TEXTS, instruction=expected)
    updated = OnelogitRerank(model=model)
    updated.update_prompts({"instruction": prompt})  # type: ignore[dict-item]  # a string is accepted, too
    given = OnelogitRerank(model=model, instruction=prompt)  # type: ignore[arg-type]

    for rerank in (updated, given, OnelogitRerank.from_json(given.to_json())):
        assert logits(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == [each.logit for each in ranking]
        ranked = asyncio.run(rerank.apostprocess_nodes(nodes(), query_str=QUERY))
        assert logits(ranked) == [each.logit for each in ranking]


REFUSED: list[tuple[Any, str]] = [
    ("Find {context_str} for {query_str}", r"nothing fills \{context_str\} in the instruction"),
    (PromptTemplate("{context_str} {existing_answer}"), r"nothing fills \{context_str\} and \{existing_answer\}"),
    (PromptTemplate("Find {what}", who="me"), r"nothing fills \{what\}"),
    (PromptTemplate("Find {what}", what="{it}"), r"nothing fills \{it\}"),
    (RichPromptTemplate("Find {{ context_str }}"), r"nothing fills \{context_str\}"),
    ("Find {{ query_str }}", r"nothing fills \{\{ query_str \}\}"),
    ("Find { query_str }", r"nothing fills \{ query_str \}"),
    ("Find {query_str.text}", r"nothing fills \{query_str.text\}"),
    ("Find {query_str!r}", r"nothing fills \{query_str!r\}"),
    ("Find {query_str:>10}", r"nothing fills \{query_str:>10\}"),
    ("Find {query_str[0]}", r"nothing fills \{query_str\[0\]\}"),
    (PromptTemplate("Find {q}", function_mappings={"q": shout}), "changes the query"),
    (RichPromptTemplate("Find {{ query_str | upper }}"), "changes the query"),
    (ChatPromptTemplate.from_messages([("system", "Find it.")]), r"not a llama_index\.ChatPromptTemplate"),
    (RichPromptTemplate('{% chat role="system" %}Find it.{% endchat %}'), "without chat"),
    (LangChainTemplate.from_template("Find {query_str}"), r"not a langchain_core\.PromptTemplate"),
    (7, r"not a builtins\.int"),
]


@pytest.mark.parametrize(("prompt", "message"), REFUSED)
def test_what_cannot_be_filled_is_named(prompt: Any, message: str):
    rerank = OnelogitRerank(model="org/model", instruction="Find it.")

    with pytest.raises(ValueError, match=message):
        OnelogitRerank(model="org/model", instruction=prompt)
    with pytest.raises(InputError, match=message):
        rerank.update_prompts({"instruction": prompt})

    assert rerank.instruction == "Find it."


def test_a_prompt_that_is_assigned_later_is_filled_and_checked_too(model: str, reranker: Reranker):
    rerank = OnelogitRerank(model=model)
    rerank.instruction = PromptTemplate("Find {query_str}")  # type: ignore[assignment]

    ranking = reranker.rank(QUERY, TEXTS, instruction=f"Find {QUERY}")
    assert logits(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == [each.logit for each in ranking]
    rerank.instruction = PromptTemplate("Find {what}")  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"nothing fills \{what\}"):
        rerank.postprocess_nodes(nodes(), query_str=QUERY)


def test_an_instruction_among_the_options_is_filled_and_checked_too(model: str, reranker: Reranker):
    ranking = reranker.rank(QUERY, TEXTS, instruction=f"Find {QUERY}")
    rerank = OnelogitRerank(model=model, options={"instruction": "Find {query_str}"})

    assert logits(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == [each.logit for each in ranking]
    with pytest.raises(ValueError, match=r"nothing fills \{context_str\}"):
        OnelogitRerank(model=model, options={"instruction": "Find {context_str}"})


def test_the_instruction_is_a_prompt_that_can_be_shown_and_changed():
    rerank = OnelogitRerank(model="org/model")
    assert rerank.get_prompts()["instruction"].get_template() == ""
    rerank.update_prompts(rerank.get_prompts())
    assert rerank.instruction is None

    rerank.update_prompts({"instruction": PromptTemplate("Find {query_str}.")})

    assert rerank.instruction == "Find {query_str}."
    assert rerank.get_prompts()["instruction"].get_template() == "Find {query_str}."
    rerank.update_prompts(rerank.get_prompts())
    assert rerank.instruction == "Find {query_str}."
