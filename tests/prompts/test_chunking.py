"""Documents that do not fit, as text: a server that tokenises the prompts gets what the local model would read."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from onelogit import InputError, Recipe
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.layout import TokenCache
from onelogit.recipes.templates import CTXL_TEMPLATE, QWEN3_TEMPLATE, ZERANK_2_TEMPLATE
from support.rows import encoder_of, row_ids
from support.tiny import TEXTS, byte_level_tokenizer, gemma_tokenizer

QUERY = "What is it?"
FIRST = "FIRST second third " * 60
SENTENCES = "The capital of China is Beijing. " * 30


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """Like BERT's: lower case, without white space, and [CLS] and [SEP] around a text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    texts = [*TEXTS, "[unk] [cls] [sep]"]  # otherwise, it would read the text [SEP] as the unknown token
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Like Llama's: a space before each text, and no splits into words."""
    tokenizer = gemma_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": byte_level_tokenizer,
    "byte-level with BOS": lambda: byte_level_tokenizer("<s>"),
    "Gemma": gemma_tokenizer,
    "Llama": metaspace_tokenizer,
    "WordPiece": wordpiece_tokenizer,
}
BUILT = {name: build() for name, build in TOKENIZERS.items()}
PLAIN = "Query: {{ messages[0].content }}\nDocument: {{ messages[1].content }}\nRelevant:"
DOCUMENT_FIRST = "Document: {{ messages[1].content }}\nQuery: {{ messages[0].content }}"
TEMPLATES = {"plain": PLAIN, "document first": DOCUMENT_FIRST, "qwen": QWEN3_TEMPLATE, "stripped": ZERANK_2_TEMPLATE}
KINDS = {
    (tokenizer, template): (BUILT[tokenizer], TEMPLATES[template])
    for tokenizer in TOKENIZERS
    for template in TEMPLATES
    # Like the whole prompt, these tokenizers do not read spans next to control tokens in the same way.
    if template in ("plain", "document first") or tokenizer.startswith("byte-level")
}
LONG_TEXTS = st.lists(
    st.sampled_from(
        ["FIRST", " second", "\n\n", ". ", "한국어", "😀", "e\u0301", "\u0301", "ﬁ", "<|im_end|>", "  ", "a\0"]
    ),
    min_size=1,
    max_size=60,
).map("".join)


def length_without_document(tokenizer: PreTrainedTokenizerFast, template: str) -> int:
    return len(tokenizer(sent(encoder_of(tokenizer, template), "")[0])["input_ids"])


def sent(encoder: Encoder, document: str) -> list[str]:
    return [prompt.text for prompt in encoder.prompts([(QUERY, document)], None)]


def documents_in(encoder: Encoder, document: str) -> list[str]:
    """The part of the document in each prompt."""
    before, after = sent(encoder, "\ue000")[0].split("\ue000")
    return [text.removeprefix(before).removesuffix(after) for text in sent(encoder, document)]


@settings(max_examples=60)
@given(document=LONG_TEXTS, room=st.integers(4, 30), is_whole=st.booleans(), kind=st.sampled_from([*KINDS]))
@example(document=FIRST, room=20, is_whole=True, kind=("byte-level", "qwen"))
@example(document="한국어 문장. " * 30, room=5, is_whole=True, kind=("Gemma", "plain"))
def test_prompts_fit_begin_with_the_document_and_contain_all_its_chunks(
    document: str, room: int, is_whole: bool, kind: tuple[str, str]
):
    tokenizer, template = KINDS[kind]
    limit = length_without_document(tokenizer, template) + room
    encoder = encoder_of(tokenizer, template, limit, long_documents="chunk_max" if is_whole else None)
    whole = document.strip() if kind[1] == "stripped" else document

    parts = documents_in(encoder, document)

    assert all(len(tokenizer(text)["input_ids"]) <= limit for text in sent(encoder, document))
    assert whole.startswith(parts[0])
    assert all(parts) or not whole
    covered = 0
    for part in parts:
        begins = [begin for begin in range(covered + 1) if whole.startswith(part, begin)]
        assert begins
        covered = max(begins) + len(part)
    assert not is_whole or covered == len(whole)


@pytest.mark.parametrize("document", [FIRST, SENTENCES, "\n\n  " + SENTENCES, "서울 北京 " * 40, "... " + FIRST])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] != "WordPiece"], ids=" ".join)
def test_a_cut_document_as_text_gives_the_local_row(kind: tuple[str, str], document: str):
    tokenizer, template = KINDS[kind]
    limit = length_without_document(tokenizer, template) + 60
    encoder = encoder_of(tokenizer, template, limit)

    (text,) = sent(encoder, document)
    (row,) = row_ids(encoder, [(QUERY, document)])

    ids = tokenizer(text)["input_ids"]
    assert len(row) == limit
    # A text cannot end inside a character, of which the row may have a part.
    assert ids == row or ("서" in document and len(ids) >= limit - 4)


@pytest.mark.parametrize("template", [QWEN3_TEMPLATE, CTXL_TEMPLATE])
def test_only_the_chunks_that_contain_a_word_have_its_tokens(template: str):
    tokenizer = byte_level_tokenizer()
    limit = length_without_document(tokenizer, template) + 40
    encoder = encoder_of(tokenizer, template, limit, long_documents="chunk_max")
    document = f"FIRST {'second third ' * 60}LAST."

    rows = [tokenizer.decode(row) for row in row_ids(encoder, [(QUERY, document)])]

    assert ["FIRST" in row for row in rows] == [True] + [False] * (len(rows) - 1)
    assert ["LAST" in row for row in rows] == [False] * (len(rows) - 1) + [True]
    assert [row.count(".") for row in rows] == [rows[0].count(".")] * (len(rows) - 1) + [rows[0].count(".") + 1]


def test_a_server_that_adds_a_token_gets_shorter_prompts():
    tokenizer = byte_level_tokenizer("<s>")
    recipe = Recipe(family="x", chat_template=PLAIN, read_out=None, source="a test", adds_special_tokens=False)
    document = "a document of some words"
    limit = len(row_ids(Encoder(recipe, tokenizer, {}), [(QUERY, document)])[0])
    encoder = Encoder(recipe, tokenizer, {"max_tokens": limit})

    (text,) = sent(encoder, document)

    assert len(row_ids(encoder, [(QUERY, document)])[0]) == limit
    assert len(tokenizer(text)["input_ids"]) == limit
    assert "Document: a document of some wo" in text


def test_a_bos_token_that_a_server_does_not_add_is_sent():
    tokenizer = byte_level_tokenizer("<s>")
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    template = "<s>{{ messages[0].content }} {{ messages[1].content }}"

    assert sent(encoder_of(tokenizer, template), "a document")[0].startswith("<s>")


def test_a_limit_below_one_character_is_an_error():
    tokenizer = byte_level_tokenizer()
    limit = length_without_document(tokenizer, QWEN3_TEMPLATE) + 1

    with pytest.raises(InputError, match="no room for the character '漢' of a document.*2 tokens too many"):
        sent(encoder_of(tokenizer, QWEN3_TEMPLATE, limit), "漢字漢字")


def test_a_chunk_does_not_take_a_letter_of_the_prompt_with_it_where_a_token_joins_both():
    characters = sorted({*PLAIN, *QUERY, *"=;", *"wxyzd "})
    vocabulary = {token: id for id, token in enumerate([*characters, "=w", "d;"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("=", "w"), ("d", ";")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    template = "Document={{ messages[1].content }}; Query={{ messages[0].content }}"
    document = f"w{'xyz ' * 30}d"
    encoder = encoder_of(tokenizer, template, 80, long_documents="chunk_max")

    tokens = [[backend.id_to_token(id) for id in row] for row in row_ids(encoder, [(QUERY, document)])]

    assert [row[8] for row in tokens] == ["=w"] + ["="] * (len(tokens) - 1)
    assert ["d;" in row for row in tokens] == [False] * (len(tokens) - 1) + [True]
    assert len(tokens) > 2
    for row in tokens:
        assert "".join(row).startswith("Document=")
        assert "".join(row).endswith(f"; Query={QUERY}")
        assert len(row) <= 80


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_document_that_is_cut_takes_a_few_bytes_for_each_of_its_tokens():
    encoder, document = encoder_of(BUILT["byte-level"], QWEN3_TEMPLATE, 400), "漢" * 30_000
    (row,) = encoder.rows([(QUERY, document)], None)
    encoder._token_cache = TokenCache(0)

    assert len(row.ids) == 400
    assert peak_bytes(lambda: encoder.rows([(QUERY, document)], None)) < 50 * 90_000


@pytest.mark.parametrize("write", ["rows", "prompts"])
def test_a_query_that_is_too_long_is_refused_before_it_is_written_for_each_document(write: str):
    encoder = encoder_of(BUILT["byte-level"], QWEN3_TEMPLATE, 400)
    pairs = [("yes no " * 10_000, f"{n}") for n in range(1000)]

    def refused() -> None:
        with pytest.raises(InputError, match="leaves no room for a document in max_tokens=400"):
            getattr(encoder, write)(pairs, None)

    assert peak_bytes(refused) < 10 * 2**20
