"""Where spans are cut: as close to the caller's texts as possible, and never where ids would change."""

from collections.abc import Callable, Iterable
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from onelogit.prompts.boundaries import cut_at_boundaries
from onelogit.prompts.layout import Part, Span, fill
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.tokenizer import control_ids, without_settings
from onelogit.recipes.templates import CTXL_TEMPLATE, QWEN3_TEMPLATE, ZERANK_2_TEMPLATE
from support.rows import TEXTS, encoder_of, row_ids
from support.tiny import QWEN_PATTERN, byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
TEMPLATES = {"qwen3": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE, "zerank-2": ZERANK_2_TEMPLATE}
ENCODERS = {name: encoder_of(TOKENIZER, template) for name, template in TEMPLATES.items()}
QUERY, DOCUMENT = Part(field="query"), Part(field="document")


def span_tokenizer() -> Tokenizer:
    """A copy of the tokenizer without control tokens, as an encoder uses it, but with a model of its own."""
    backend = deepcopy(TOKENIZER.backend_tokenizer)
    return without_settings(backend, control_ids(backend))


def texts(span: Iterable[Part]) -> list[str]:
    return [part.field or part.text for part in span]


@given(query=TEXTS, document=TEXTS, instruction=TEXTS, name=st.sampled_from(list(TEMPLATES)))
def test_ids_are_those_of_the_whole_prompt_for_any_texts(query: str, document: str, instruction: str, name: str):
    values = {"query": query, "document": document, "instruction": instruction}
    text = fill(compile_prompt(TEMPLATES[name], bool(instruction)), values)

    rows = row_ids(ENCODERS[name], [(query, document)], instruction)

    assert rows == [TOKENIZER(text)["input_ids"]]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ([Part("user\n<Query>: "), QUERY], [["user\n<Query>:"], [" ", "query"]]),
        (
            [QUERY, Part("\n<Document>: "), DOCUMENT, Part("\n<End> now")],
            [["query", "\n"], ["<Document>:"], [" ", "document", "\n"], ["<End> now"]],
        ),
        ([QUERY, Part("</query>\n"), DOCUMENT], [["query", "</"], ["query"], [">\n", "document"]]),
        ([QUERY, Part(" "), DOCUMENT], [["query", " ", "document"]]),
        ([QUERY, Part("\u00e9. "), DOCUMENT], [["query", "\u00e9."], [" ", "document"]]),
        ([Part("a constant\ntext")], [["a constant\ntext"]]),
    ],
)
def test_each_text_gets_as_little_constant_text_as_possible(span: list[Part], expected: list[list[str]]):
    spans = cut_at_boundaries(tuple(span), span_tokenizer())

    assert [texts(span) for span in spans] == expected


def without_pre_tokenizer(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = None


def with_added_first_space(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def with_metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")


def with_a_normalizer_that_replaces(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(": ", ":")])


def with_dropout(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 0.5


def with_an_added_token(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("z\n<Query", normalized=False)])


def with_another_model(tokenizer: Tokenizer) -> None:
    tokenizer.model = models.Unigram([("a", -1.0)], unk_id=0)


@pytest.mark.parametrize(
    "change",
    [
        without_pre_tokenizer,
        with_added_first_space,
        with_metaspace,
        with_a_normalizer_that_replaces,
        with_dropout,
        with_an_added_token,
        with_another_model,
    ],
)
def test_spans_of_tokenizers_that_look_further_are_not_cut(change: Callable[[Tokenizer], None]):
    tokenizer = span_tokenizer()
    span = (QUERY, Part("\n<Query>: "), DOCUMENT)
    assert len([*cut_at_boundaries(span, tokenizer)]) == 3

    change(tokenizer)

    assert [*cut_at_boundaries(span, tokenizer)] == [span]


def with_pattern(pattern: str) -> Tokenizer:
    tokenizer = span_tokenizer()
    split = pre_tokenizers.Split(Regex(f"{pattern}|{QWEN_PATTERN}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


@pytest.mark.parametrize("assertion", [r"(?<=z)", r"(?<!z)", "(?=z)", "(?!z)", r"\b", "^", "$", r"\G"])
def test_spans_of_a_pattern_with_assertions_are_not_cut(assertion: str):
    span = (Part("a query: "), QUERY)

    assert [*cut_at_boundaries(span, with_pattern(f"{assertion}zz"))] == [span]


@pytest.mark.parametrize(
    ("pattern", "constant"),
    [("9\n<Query>: ", "\n<Query>: "), ("\n<Query>: 9", "\n<Query>: "), ("1\u00e9", "1e")],
    ids=["before the place", "after the place", "that composes after the place"],
)
def test_a_place_where_one_neighbour_would_change_the_split_is_not_cut(pattern: str, constant: str):
    span = (QUERY, Part(constant), DOCUMENT)
    assert len([*cut_at_boundaries(span, with_pattern("zz"))]) > 1

    assert [*cut_at_boundaries(span, with_pattern(pattern))] == [span]


def test_cuts_that_would_change_ids_are_not_used(monkeypatch: pytest.MonkeyPatch):
    def cut_inside_words(span: Span, _: Tokenizer) -> list[Span]:
        return [(Part(letter),) if letter else (part,) for part in span for letter in part.text or [""]]

    monkeypatch.setattr("onelogit.prompts.encoder.cut_at_boundaries", cut_inside_words)

    encoder = encoder_of(TOKENIZER, "{{ messages[0].content }} yes {{ messages[1].content }}", 99)

    assert row_ids(encoder, [("a", "b")]) == [TOKENIZER("a yes b")["input_ids"]]


def test_spans_of_the_gpt_pattern_are_cut_too():
    tokenizer = span_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])

    spans = cut_at_boundaries((Part("a query: "), QUERY), tokenizer)

    assert [texts(span) for span in spans] == [["a query:"], [" ", "query"]]
