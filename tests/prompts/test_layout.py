"""Where prompts are cut into runs, what is remembered of them, and where a row's beginning can be kept."""

import copy
from array import array
from collections.abc import Callable, Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Encoding, Regex, Tokenizer, models, normalizers, pre_tokenizers

from onelogit.prompts.boundaries import Run, cut_at_boundaries
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.template import Part, compile_prompt
from onelogit.prompts.token_cache import TokenCache
from onelogit.prompts.tokenizer import control_ids, without_settings
from onelogit.recipes.templates import CTXL_TEMPLATE, QWEN3_TEMPLATE, ZERANK_2_TEMPLATE
from support.rows import cacheable_prefixes, row_ids
from support.tiny import QWEN_PATTERN, byte_level_tokenizer, gemma_tokenizer, pair_tokenizer

TOKENIZER = byte_level_tokenizer()
TEMPLATES = {"qwen3": QWEN3_TEMPLATE, "ctxl": CTXL_TEMPLATE, "zerank-2": ZERANK_2_TEMPLATE}
ENCODERS = {name: Encoder(TOKENIZER, template, 9999) for name, template in TEMPLATES.items()}
QUERY, DOCUMENT = Part(field="query"), Part(field="document")

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|>"), max_size=12)
LEANING = st.text(
    st.sampled_from(" \t\r\n\u3000\u2028.,'!?:/-1aSs漢각\u1100\u1161é\u0301\u0338\u200d\ufe0f😀"), max_size=6
)
TEXT = ANY | LEANING


def bare() -> Tokenizer:
    """A copy that knows no control tokens: what reads runs."""
    backend = TOKENIZER.backend_tokenizer
    return without_settings(backend, control_ids(backend))


def texts(run: Iterable[Part]) -> list[str]:
    return [part.field or part.text for part in run]


@given(query=TEXT, document=TEXT, instruction=TEXT, name=st.sampled_from(list(TEMPLATES)))
def test_ids_are_the_whole_prompts_whatever_stands_at_a_cut(query: str, document: str, instruction: str, name: str):
    values = {"query": query, "document": document, "instruction": instruction}
    text = compile_prompt(TEMPLATES[name], bool(instruction)).text(values)

    rows = row_ids(ENCODERS[name], [(query, document)], instruction)

    assert rows == [TOKENIZER(text)["input_ids"]]


@pytest.mark.parametrize(
    ("run", "expected"),
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
def test_each_text_gets_as_little_constant_text_as_may_be(run: list[Part], expected: list[list[str]]):
    pieces = cut_at_boundaries(tuple(run), bare())

    assert [texts(piece) for piece in pieces] == expected


def without_pre_tokenizer(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = None


def with_space_put_first(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def with_metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")


def with_a_replacing_normalizer(tokenizer: Tokenizer) -> None:
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
        with_space_put_first,
        with_metaspace,
        with_a_replacing_normalizer,
        with_dropout,
        with_an_added_token,
        with_another_model,
    ],
)
def test_tokenizers_that_look_further_are_given_whole_runs(change: Callable[[Tokenizer], None]):
    tokenizer = bare()
    run = (QUERY, Part("\n<Query>: "), DOCUMENT)
    assert len([*cut_at_boundaries(run, tokenizer)]) == 3

    change(tokenizer)

    assert [*cut_at_boundaries(run, tokenizer)] == [run]


def with_pattern(pattern: str) -> Tokenizer:
    tokenizer = bare()
    split = pre_tokenizers.Split(Regex(f"{pattern}|{QWEN_PATTERN}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


@pytest.mark.parametrize("assertion", [r"(?<=z)", r"(?<!z)", "(?=z)", "(?!z)", r"\b", "^", "$", r"\G"])
def test_a_pattern_that_looks_around_itself_is_not_trusted(assertion: str):
    run = (Part("a query: "), QUERY)

    assert [*cut_at_boundaries(run, with_pattern(f"{assertion}zz"))] == [run]


@pytest.mark.parametrize(
    ("pattern", "constant"),
    [("9\n<Query>: ", "\n<Query>: "), ("\n<Query>: 9", "\n<Query>: "), ("1\u00e9", "1e")],
    ids=["before it", "behind it", "that composes behind it"],
)
def test_a_place_that_one_neighbour_spoils_is_not_cut(pattern: str, constant: str):
    run = (QUERY, Part(constant), DOCUMENT)
    assert len([*cut_at_boundaries(run, with_pattern("zz"))]) > 1

    assert [*cut_at_boundaries(run, with_pattern(pattern))] == [run]


def test_cuts_that_change_ids_after_all_are_not_made(monkeypatch: pytest.MonkeyPatch):
    def cut_inside_words(run: Run, _: Tokenizer) -> list[Run]:
        return [(Part(letter),) if letter else (part,) for part in run for letter in part.text or [""]]

    monkeypatch.setattr("onelogit.prompts.encoder.cut_at_boundaries", cut_inside_words)

    encoder = Encoder(TOKENIZER, "{{ messages[0].content }} yes {{ messages[1].content }}", 99)

    assert row_ids(encoder, [("a", "b")]) == [TOKENIZER("a yes b")["input_ids"]]


def test_gpts_pattern_is_cut_too():
    tokenizer = bare()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])

    pieces = cut_at_boundaries((Part("a query: "), QUERY), tokenizer)

    assert [texts(piece) for piece in pieces] == [["a query:"], [" ", "query"]]


class Recording:
    """A tokenizer that writes down what it is asked to read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.read: list[str] = []

    def encode_batch_fast(self, texts: list[str], **options: bool) -> list[Encoding]:
        self.read += texts
        return self.tokenizer.encode_batch_fast(texts, **options)


def test_texts_are_read_once_and_the_frame_never_again():
    encoder = Encoder(TOKENIZER, CTXL_TEMPLATE, 9999)
    encoder.rows([("", "")], None)
    encoder._run_tokenizer = recording = Recording(encoder._run_tokenizer)

    encoder.rows([("q", "one"), ("q", "two"), ("q", "one")], None)
    encoder.rows([("another", "two"), ("q", "three")], None)

    assert recording.read == [" one\n", " q ??", " two\n", " another ??", " three\n"]


def test_a_caller_cannot_change_cached_ids_through_its_rows():
    encoder = Encoder(TOKENIZER, CTXL_TEMPLATE, 9999)
    first, second = encoder.rows([("q", "d"), ("q", "d")], None)

    with pytest.raises(TypeError):
        first.ids[0] = 5  # type: ignore[index]

    assert first.ids == second.ids == encoder.rows([("q", "d")], None)[0].ids


def test_the_least_recently_used_text_is_forgotten_first():
    ids = {text: array("I", [1] * 100) for text in "abcd"}
    recent = TokenCache(1800)  # room for three: 400 bytes of ids each, and less than 200 around them
    recent.keep({text: ids[text] for text in "abc"})

    recent.find("a")
    recent.keep({"d": ids["d"]})

    assert recent.find("abcd") == {text: ids[text] for text in "acd"}


def test_a_text_larger_than_the_memory_pushes_nothing_out():
    recent = TokenCache(1000)
    recent.keep({"a": array("I", [1])})

    recent.keep({"b" * 2000: array("I", [2])})

    assert recent.find(["a", "b" * 2000]) == {"a": array("I", [1])}


def test_a_text_that_two_threads_read_counts_once():
    recent = TokenCache(1000)
    for _ in range(99):
        recent.keep({"a": array("I", [1])})

    assert recent.find("a")


def test_a_copy_of_an_encoder_begins_with_nothing_remembered():
    recent = TokenCache(1000)
    recent.keep({"a": array("I", [1])})

    assert copy.deepcopy(recent).find("a") == {}


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def test_stems_end_where_the_next_text_begins():
    pairs = [("What is it?", "It is 1.\n"), ("Who?", "")]
    before_query, between = (
        "Check whether a given document contains information helpful to answer the query.\n<Document>",
        "<Query>",
    )

    found = cacheable_prefixes(ENCODERS["ctxl"], pairs)

    frame = len(ids_of(before_query))
    assert found == [(frame, frame + len(ids_of(f" {document}\n" + between))) for _, document in pairs]


@given(queries=st.tuples(TEXT, TEXT), documents=st.tuples(TEXT, TEXT), name=st.sampled_from(list(TEMPLATES)))
def test_a_stem_depends_on_nothing_behind_it(queries: tuple[str, str], documents: tuple[str, str], name: str):
    pairs = list(product(queries, documents))

    rows = ENCODERS[name].rows(pairs, "Find it.")

    heads = {}
    for (query, document), row in zip(pairs, rows, strict=True):
        first_text = document if name == "ctxl" else query
        shorter, longer = row.cacheable_prefixes
        assert 0 < shorter < longer < len(row.ids)
        assert heads.setdefault("", row.ids[:shorter]) == row.ids[:shorter]
        assert heads.setdefault(f"of {first_text}", row.ids[:longer]) == row.ids[:longer]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_stems_of_a_row_that_was_cut_follow_the_cut(name: str):
    (full,) = ENCODERS[name].rows([("What?", "a document " * 9)], None)
    short = Encoder(TOKENIZER, TEMPLATES[name], len(full.ids) - 5)

    (cut,) = short.rows([("What?", "a document " * 9)], None)

    lost = 5 if name == "ctxl" else 0
    assert cut.cacheable_prefixes == (full.cacheable_prefixes[0], full.cacheable_prefixes[1] - lost)
    assert cut.ids[cut.cacheable_prefixes[1] :][:3] == full.ids[full.cacheable_prefixes[1] :][:3]


def test_neither_a_rows_start_nor_its_end_is_a_stem():
    template = "{{ messages[0].content }}<|im_end|>{{ messages[1].content }}"

    found = cacheable_prefixes(Encoder(TOKENIZER, template, 99), [("q", ""), ("q", "d"), ("", "d")])

    assert found == [(), (2,), (1,)]


def test_two_texts_that_begin_at_one_place_make_one_stem():
    template = "<|im_end|>{{ messages[0].content }}{{ seam }}{{ messages[1].content }}"

    found = cacheable_prefixes(Encoder(TOKENIZER, template, 99), [("", "d"), ("q", "d")])

    assert found == [(1,), (1, 2)]


def test_runs_that_cannot_be_cut_have_fewer_stems():
    encoder = Encoder(gemma_tokenizer(), "A: {{ messages[0].content }} B: {{ messages[1].content }}", 99)

    assert cacheable_prefixes(encoder, [("q", "d")]) == [(1,)]  # <bos>


def test_rows_of_pairs_have_no_stems():
    encoder = Encoder(pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), None, 99)

    assert cacheable_prefixes(encoder, [("q", "d"), ("q", "e")]) == [(), ()]
