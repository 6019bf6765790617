"""The tokens that tokenizers add around a text: as in the reference code, only once, and in exports too."""

import json
from collections.abc import Callable, Collection
from copy import deepcopy
from pathlib import Path

import pytest
from sentence_transformers import CrossEncoder
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, MistralConfig, PreTrainedTokenizerFast

from onelogit import RecipeError, Reranker, UnsupportedModelError
from onelogit.prompts.tokenizer import without_limits, without_settings
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import CTXL_TEMPLATE, QWEN3_TEMPLATE
from support.metadata_files import logit_score_files
from support.reference import causal_logit, prompt_ids
from support.rows import encoder_of, row_ids
from support.tiny import Tiny, byte_level_tokenizer, gemma_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "A longer document. " * 9]


def cross_encoder_scores(folder: Path) -> list[float]:
    model = CrossEncoder(str(folder), device="cpu")
    return model.predict([(QUERY, text) for text in DOCUMENTS], activation_fn=None).tolist()


@pytest.mark.parametrize("template", [CTXL_TEMPLATE, "{{ bos_token }}" + CTXL_TEMPLATE], ids=["bare", "with bos"])
def test_no_tokens_are_added_around_the_checkpoints_own_template(
    template: str, checkpoint: Callable[..., Tiny], tmp_path: Path
):
    """Sentence Transformers adds nothing to a rendered template; neither do rerankers and exports."""
    tiny = checkpoint("someones", MistralConfig, files=logit_score_files(17, 4, template))
    reranker = Reranker.load(tiny.folder)
    logits = reranker.logits(QUERY, DOCUMENTS)

    reranker.save(tmp_path / "converted")

    assert logits == pytest.approx(cross_encoder_scores(tiny.folder), abs=2e-4)
    assert logits == pytest.approx(cross_encoder_scores(tmp_path / "converted"), abs=2e-4)
    assert Reranker.load(tmp_path / "converted").logits(QUERY, DOCUMENTS) == pytest.approx(logits, abs=1e-5)


def test_a_last_token_that_the_tokenizer_adds_is_part_of_the_export(checkpoint: Callable[..., Tiny], tmp_path: Path):
    recipe = next(recipe for recipe in FAMILIES if recipe.family == "zerank-1")
    tiny = checkpoint("model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny.folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)]
    )
    tokenizer.save_pretrained(tiny.folder)
    reranker = Reranker.load(tiny.folder, recipe=recipe)
    logits = reranker.logits(QUERY, DOCUMENTS)
    rows = [[*prompt_ids(tiny, recipe, QUERY, text), end] for text in DOCUMENTS]

    reranker.save(tmp_path / "converted")

    assert recipe.read_out is not None
    assert logits == pytest.approx([causal_logit(tiny, recipe.read_out, row) for row in rows], abs=1e-5)
    scores = [ranked.score for ranked in sorted(reranker.rank(QUERY, DOCUMENTS))]
    assert cross_encoder_scores(tmp_path / "converted") == pytest.approx(scores, abs=2e-4)


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Like XLM-RoBERTa's: its vocabulary contains the control tokens as plain text."""
    vocabulary = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((char, -5.0) for char in "▁abcdefghijklmnopqrst<>/us")]
    tokenizer = Tokenizer(models.Unigram([*dict(vocabulary).items()], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_unigram_vocabulary_does_not_let_text_spell_control_tokens():
    encoder = encoder_of(unigram_tokenizer(), None, 99)

    (row,) = row_ids(encoder, [("a </s></s> b", "c <s> d")])

    assert (row.count(0), row.count(1)) == (1, 3)


def test_a_tokenizer_that_lets_text_spell_control_tokens_is_refused_unless_allowed():
    tokenizer = Tokenizer(models.WordLevel({"[SEP]": 0, "a": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("[SEP]", special=True)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    template = "{{ messages[0].content }} {{ messages[1].content }}"

    with pytest.raises(RecipeError, match=r"reads the plain text '\[SEP\]' as the control token 0"):
        encoder_of(wrapped, template, 99)
    assert row_ids(encoder_of(wrapped, template, 99, allow_control_tokens=True), [("a", "[SEP]")]) == [[1, 0]]


def test_transformers_keeps_the_head_of_a_bfloat16_export_when_it_loads_float32(tiny_qwen: Tiny, tmp_path: Path):
    Reranker.load(tiny_qwen.folder, dtype="bfloat16").save(tmp_path / "converted")
    expected = Reranker.load(tmp_path / "converted", dtype="float32").logits(QUERY, DOCUMENTS)

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "converted", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")

    for text, logit in zip(DOCUMENTS, expected, strict=True):
        conversation = [{"role": "query", "content": QUERY}, {"role": "document", "content": text}]
        inputs = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)
        assert model(**inputs).logits.item() == pytest.approx(logit, abs=1e-4)
    assert tokenizer.chat_template.endswith(QWEN3_TEMPLATE)


def test_prompts_that_end_in_the_padding_token_are_not_exported(checkpoint: Callable[..., Tiny], tmp_path: Path):
    """transformers' classifiers use the last token that is not padding, which would be the token before it here."""
    tiny = checkpoint("someones", files=logit_score_files(17, 4, CTXL_TEMPLATE + "<|endoftext|>"))

    with pytest.raises(UnsupportedModelError, match="end in the padding token"):
        Reranker.load(tiny.folder).save(tmp_path / "converted")


def written_copy(backend: Tokenizer, removed: Collection[str]) -> Tokenizer:
    """A copy that shares nothing, by way of its JSON."""
    content = json.loads(backend.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in removed]
    return Tokenizer.from_str(json.dumps({**content, "truncation": None, "padding": None, "post_processor": None}))


@pytest.mark.parametrize("removed", [[], ["<odd>"], ["<odd>", "<more>"], ["<|im_end|>", "<more>"]])
@pytest.mark.parametrize("build", [byte_level_tokenizer, gemma_tokenizer])
def test_a_copy_of_a_tokenizer_gives_the_ids_of_one_that_shares_nothing(
    build: Callable[[], PreTrainedTokenizerFast], removed: list[str]
):
    backend = deepcopy(build().backend_tokenizer)
    backend.add_tokens([AddedToken("<odd>", lstrip=True, normalized=False), AddedToken("word", single_word=True)])
    backend.add_special_tokens([AddedToken("<more>", special=True)])
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    before = backend.to_str()

    copy, expected = without_settings(backend, removed), written_copy(backend, removed)

    for text in ["a <odd>b", "words word.", "<|im_start|>x<|im_end|> <more>", "서울 <odd> word <|im_end|>\n", ""]:
        for adds_special_tokens in (False, True):
            ids = copy.encode(text, add_special_tokens=adds_special_tokens).ids
            assert ids == expected.encode(text, add_special_tokens=adds_special_tokens).ids
            assert copy.decode(ids) == expected.decode(ids)
    assert backend.to_str() == before


def test_a_copy_without_limits_keeps_the_tokens_that_are_added_around_a_text():
    backend = deepcopy(byte_level_tokenizer("<s>").backend_tokenizer)
    long, expected = "a b c " * 50, backend.encode("a b c " * 50).ids
    backend.enable_truncation(3)
    backend.enable_padding(length=9)

    copy = without_limits(backend)

    assert len(expected) > len(backend.encode(long).ids) == 9
    assert copy.encode(long).ids == expected
    assert copy.encode("a").ids == backend.encode("a").ids[: len(copy.encode("a").ids)]
