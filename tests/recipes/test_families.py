"""The prompt of every family, byte for byte, and the other facts in its recipe."""

import hashlib
import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from onelogit import FAMILIES, Recipe, RecipeError, recipe_fields, recipe_from
from onelogit.checkpoints.recipe_choice import resolve_recipe
from support.reference import prompt_text

QUERY = "What is the capital of China?"
DOCUMENT = "The capital of China is Beijing."
INSTRUCTION = "Prefer official sources."

# Length in bytes and the first digits of the sha256, from the families' reference code and model cards.
EXPECTED_PROMPTS = {
    ("ctxl-rerank-v2", None): (165, "a3d4f0ce3cc043a7"),
    ("ctxl-rerank-v2", INSTRUCTION): (190, "1a1cb01226893d71"),
    ("qwen3-reranker", None): (412, "a534f4970e1db52f"),
    ("qwen3-reranker", INSTRUCTION): (362, "35652a98a15d9587"),
    ("mxbai-rerank-v2", None): (497, "f74f773e6b6996be"),
    ("mxbai-rerank-v2", INSTRUCTION): (535, "95dc9f7531b56e7a"),
    ("bge-reranker-v2-gemma", None): (214, "172b353d9e524602"),
    ("kure-reranker", None): (412, "a534f4970e1db52f"),
    ("coreb-code-reranker", None): (412, "a534f4970e1db52f"),
    ("zerank-1", None): (141, "a92fd55a6f47ef1b"),
    ("zerank-2", None): (141, "a92fd55a6f47ef1b"),
    ("pixie-spell-reranker", None): (412, "a534f4970e1db52f"),
    ("qwen3-vl-reranker", None): (389, "e9972062b4625e3f"),
    ("llama-nemotron-rerank", None): (83, "56e1d1f4d8739242"),
}


def recipe_of(family: str) -> Recipe:
    return next(recipe for recipe in FAMILIES if recipe.family == family)


@pytest.mark.parametrize(("family", "instruction"), EXPECTED_PROMPTS)
def test_the_prompt_is_byte_exact(family: str, instruction: str | None):
    prompt = prompt_text(recipe_of(family), QUERY, DOCUMENT, instruction).encode()

    assert (len(prompt), hashlib.sha256(prompt).hexdigest()[:16]) == EXPECTED_PROMPTS[family, instruction]


def test_every_family_has_an_expected_prompt(any_family: Recipe):
    written_out = ("prism-reranker", "followir", "rankllama")
    assert (any_family.family, None) in EXPECTED_PROMPTS or any_family.family in written_out


def test_the_prompt_of_prism_is_byte_exact():
    prompt = prompt_text(recipe_of("prism-reranker"), QUERY, DOCUMENT)

    assert prompt == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        "provided. <|im_end|>\n<|im_start|>user\n<Instruct>: Judge if the document is relevant to the query. Reply "
        '"yes" or "no".\nOn "yes", also emit:\n<contribution>One sentence covering every core point the document '
        "contributes to the query, without elaboration.</contribution>\n<evidence>Self-contained rewrite of the "
        "query-relevant content. Rules:\n- Faithful: rephrase only; add or infer nothing.\n- Self-contained: evidence "
        "alone must fully answer the query.\n- Concise: drop query-irrelevant background.\n- Verbatim (no "
        "translation): proper nouns, terms, abbreviations, numbers, dates, code, URLs.\n- Output language: "
        "multilingual doc → query's language; else doc's language.</evidence>\n<Query>: What is the capital "
        "of China?\n<Document>: The capital of "
        "China is Beijing.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_the_prompt_of_zerank_2_with_an_instruction_is_byte_exact():
    prompt = prompt_text(recipe_of("zerank-2"), f" {QUERY} ", f"\n{DOCUMENT}\n", INSTRUCTION)

    assert prompt == (
        f"<|im_start|>system\n<query>{QUERY}</query>\n<instruction>{INSTRUCTION}</instruction><|im_end|>\n"
        f"<|im_start|>user\n{DOCUMENT}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("instruction", [None, INSTRUCTION])
def test_the_prompt_of_followir_is_byte_exact(instruction: str | None):
    prompt = prompt_text(recipe_of("followir"), QUERY, DOCUMENT, instruction)

    by_its_tokenizer = "<s>"
    assert prompt == by_its_tokenizer + (
        "<s> [INST] You are an expert Google searcher, whose job is to determine if the following document is relevant "
        "to the query (true/false). Answer using only one word, one of those two choices.\n\n"
        f"Query: {QUERY}{' ' + INSTRUCTION if instruction else ''}\nDocument: {DOCUMENT}\n"
        'Relevant (only output one word, either "true" or "false"): [/INST] '
    )


def test_the_prompt_of_rankllama_is_byte_exact():
    prompt = prompt_text(recipe_of("rankllama"), f" {QUERY}", f"{DOCUMENT}\n")

    assert prompt == f"<s>query:  {QUERY}<s>document: {DOCUMENT}\n"


def test_the_qwen3_template_is_the_file_on_the_hub():
    assert len(recipe_of("qwen3-reranker").chat_template) == 741


def test_a_template_renders_in_transformers_as_it_does_here(any_family: Recipe):
    conversation = [{"role": "query", "content": QUERY}, {"role": "document", "content": DOCUMENT}]
    if any_family.default_instruction:
        conversation.insert(0, {"role": "system", "content": any_family.default_instruction})

    (rendered,), _ = render_jinja_template([conversation], chat_template=any_family.chat_template)

    assert rendered == prompt_text(any_family, QUERY, DOCUMENT)


def test_every_family_has_a_source_and_a_licence(any_family: Recipe):
    assert any_family.source.startswith("https://")
    # The model cards of two name it.
    assert any_family.licence or any_family.family in ("kure-reranker", "coreb-code-reranker")
    assert any_family.models


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("Qwen/Qwen3-Reranker-8B", "qwen3-reranker"),
        ("qwen/qwen3-reranker-0.6b", "qwen3-reranker"),
        ("someone/Qwen3-Reranker-0.6B-finetuned", "qwen3-reranker"),
        ("/models/Qwen3-Reranker-4B/", "qwen3-reranker"),
        ("ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b", "ctxl-rerank-v2"),
        ("mixedbread-ai/mxbai-rerank-large-v2", "mxbai-rerank-v2"),
        ("BAAI/bge-reranker-v2-gemma", "bge-reranker-v2-gemma"),
        ("zeroentropy/zerank-1-small", "zerank-1"),
        ("zeroentropy/zerank-2-reranker", "zerank-2"),
        ("Qwen/Qwen3-VL-Reranker-8B", "qwen3-vl-reranker"),
        ("infgrad/Prism-Qwen3-Reranker-4B-exp", "prism-reranker"),
        ("/models/Prism-Qwen3-Reranker-4B-exp", "prism-reranker"),
        ("telepix/PIXIE-Spell-Reranker-Preview-0.6B", "pixie-spell-reranker"),
        ("jhu-clsp/FollowIR-7B", "followir"),
        ("/models/followir-7b-merged", "followir"),
    ],
)
def test_a_family_is_found_by_a_models_id_or_name(model: str, family: str):
    assert resolve_recipe(model, {"config.json": '{"architectures": ["Qwen3ForCausalLM"]}'}).recipe.family == family


def test_the_family_of_a_fine_tune_is_found_by_its_base_model():
    card = "---\nbase_model:\n- Qwen/Qwen3-Reranker-0.6B\nlicense: mit\n---\n# My model\n"
    texts = {"config.json": '{"architectures": ["Qwen3ForCausalLM"]}', "README.md": card}

    assert resolve_recipe("me/my-reranker", texts).recipe.family == "qwen3-reranker"


def test_a_recipe_survives_the_conversion_to_plain_data_and_back(any_family: Recipe):
    plain = recipe_fields(any_family)

    assert recipe_from(json.loads(json.dumps(plain))) == any_family
    assert "max_tokens" not in recipe_fields(FAMILIES[0])  # a default value is left out


VALID = {"family": "mine", "chat_template": None, "read_out": {"true": "yes"}, "source": "this test"}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"family": "mine"}, "it lacks chat_template, read_out, source. The fields of a recipe are family,"),
        ({"family": "mine", "read_out": None, "colour": 1}, "colour"),
        ({"family": "mine", "chat_template": "", "source": "", "read_out": {}}, "read_out lacks true"),
        ({"family": "mine", "read_out": {"true": True}}, "invalid recipe: true cannot be True"),
        (VALID | {"activation": "softmax"}, "activation cannot be 'softmax'"),
        (VALID | {"max_tokens": "512"}, "max_tokens cannot be '512'"),
        (VALID | {"models": "abc"}, "models cannot be 'abc'"),
        (VALID | {"adds_special_tokens": "no"}, "adds_special_tokens cannot be 'no'"),
        ({"family": "mine", "read_out": {True: True}}, "put true, false, yes and no in quotes"),
        (VALID | {"license": "mit"}, r"unknown fields, 'license' \(did you mean 'licence'\?\)"),
        (VALID | {"chat_templates": "x"}, r"'chat_templates' \(did you mean 'chat_template'\?\)"),
    ],
)
def test_an_invalid_recipe_is_refused_with_the_names_of_the_fields(plain: dict[str, object], message: str):
    with pytest.raises(RecipeError, match=message):
        recipe_from(plain)
