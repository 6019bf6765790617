"""What the files of a checkpoint declare, and metadata that is refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import CrossEncoder
from transformers.utils.chat_template_utils import render_jinja_template

from onelogit import FAMILIES, ReadOut, Recipe, RecipeError, Reranker, UnsupportedModelError
from onelogit.checkpoints.card import read_licence
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.recipes.templates import QWEN3_INSTRUCTION, QWEN3_TEMPLATE
from support.metadata_files import LOGIT_SCORE, TRANSFORMER, logit_score_files, modules
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny


def texts(architecture: str = "Qwen3ForCausalLM", **files: object) -> dict[str, str]:
    content = {"config.json": {"architectures": [architecture]}, **files}
    return {name: text if isinstance(text, str) else json.dumps(text) for name, text in content.items()}


def test_sentence_transformers_files_determine_the_recipe():
    template = QWEN3_TEMPLATE.replace("Judge whether", "Decide whether")

    recipe = resolve_recipe("someone/new-reranker", texts(**logit_score_files(17, 4, template))).recipe

    assert recipe.family == "declared"
    assert recipe.read_out == ReadOut(true=17, false=4)
    assert recipe.default_instruction == QWEN3_INSTRUCTION
    assert recipe.activation == "identity"
    assert recipe.chat_template.endswith(template)


def test_the_table_adds_the_scale_of_the_score_to_what_the_files_declare():
    files = texts(**logit_score_files(17, None))

    zerank, qwen = (
        resolve_recipe("zeroentropy/zerank-2", files).recipe,
        resolve_recipe("Qwen/Qwen3-Reranker-0.6B", files).recipe,
    )

    assert (zerank.read_out, zerank.activation) == (ReadOut(true=17, scale=0.2), "sigmoid")
    assert (qwen.read_out, qwen.activation, qwen.licence) == (ReadOut(true=17), "sigmoid", "apache-2.0")


def test_a_declared_model_scores_as_in_sentence_transformers(checkpoint: Callable[..., Tiny]):
    files = logit_score_files(17, 4)
    tiny = checkpoint("someones-model", files=files)
    query, documents = "What is it?", ["It is this.", "It is that, and more. " * 5]

    reranker = Reranker.load(tiny.folder)
    theirs = CrossEncoder(str(tiny.folder), device="cpu").predict([(query, text) for text in documents])

    expected = [
        causal_logit(tiny, ReadOut(true=17, false=4), prompt_ids(tiny, reranker.recipe, query, text))
        for text in documents
    ]
    assert reranker.logits(query, documents) == pytest.approx(expected, abs=1e-5)
    assert reranker.logits(query, documents) == pytest.approx(theirs.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "kind", ["sentence_transformers.models.Transformer", "sentence_transformers.base.models.Transformer"]
)
def test_a_module_is_identified_by_its_class_name_and_path(kind: str):
    files = logit_score_files(3, None)
    files["modules.json"] = modules(kind, "x.CausalScoreHead", folders=("", "1_CausalScoreHead"))
    files["1_CausalScoreHead/config.json"] = files.pop("1_LogitScore/config.json")

    assert resolve_recipe("m", texts(**files)).recipe.read_out == ReadOut(true=3)


def test_a_named_template_and_its_variables_are_found():
    files = logit_score_files(3, None, template="a chat template for chatting")
    files["sentence_bert_config.json"]["processing_kwargs"]["chat_template"] = {
        "chat_template": "reranker",
        "tone": "dry",
    }
    files["additional_chat_templates/reranker.jinja"] = (
        "{{ bos_token }}{{ tone }} {{ messages[0].content }} {{ messages[1].content }}"
    )
    files["tokenizer_config.json"] = {"bos_token": {"content": "<s>"}}

    recipe = resolve_recipe("m", texts(**files)).recipe

    assert recipe.chat_template == (
        '{%- set tone = "dry" +%}{%- set bos_token = "<s>" +%}'
        "{{ bos_token }}{{ tone }} {{ messages[0].content }} {{ messages[1].content }}"
    )


STRUCTURED_TEMPLATE = """

{% for message in messages %}<|im_start|>{{ message.role }}
{% for part in message.content %}{% if part.type == "text" %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def structured_files() -> dict[str, object]:
    files = logit_score_files(17, 4, template=STRUCTURED_TEMPLATE)
    files["sentence_bert_config.json"]["modality_config"]["message"]["format"] = "structured"
    return files


def test_contents_that_are_lists_of_parts_score_as_in_sentence_transformers(
    checkpoint: Callable[..., Tiny], tmp_path: Path
):
    tiny = checkpoint("someones-model", files=structured_files())
    pairs = [("What is it?", text) for text in ["It is this.", "It is that, and more. " * 5]]
    reranker = Reranker.load(tiny.folder)
    reranker.save(tmp_path / "saved")

    ours, theirs, theirs_of_export = (
        reranker.pair_logits(pairs),
        *(CrossEncoder(str(folder), device="cpu").predict(pairs) for folder in (tiny.folder, tmp_path / "saved")),
    )

    assert ours == pytest.approx(theirs.tolist(), abs=1e-4)
    assert ours == pytest.approx(theirs_of_export.tolist(), abs=1e-4)
    assert Reranker.load(tmp_path / "saved").pair_logits(pairs) == pytest.approx(ours, abs=1e-5)


def test_a_structured_template_gives_the_prompt_that_it_renders(checkpoint: Callable[..., Tiny], tmp_path: Path):
    """Equal byte for byte, with the newline at its beginning; the export accepts both forms of contents."""
    tiny = checkpoint("someones-model", files=structured_files())
    contents = {"system": QWEN3_INSTRUCTION, "query": "a query", "document": " a document\n"}
    flat = [{"role": role, "content": text} for role, text in contents.items()]
    structured = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in contents.items()]
    ((expected,), _) = render_jinja_template([structured], chat_template=STRUCTURED_TEMPLATE)
    reranker = Reranker.load(tiny.folder)
    reranker.save(tmp_path / "saved")

    exported = (tmp_path / "saved" / "chat_template.jinja").read_text()
    rendered = [render_jinja_template([each], chat_template=exported)[0][0] for each in (flat, structured)]

    values = {"query": "a query", "document": " a document\n", "instruction": QWEN3_INSTRUCTION}
    assert expected.startswith("\n\n<|im_start|>system")
    assert fill(compile_prompt(reranker.recipe.chat_template, True), values) == expected
    assert rendered == [expected, expected]


def test_contents_are_strings_if_no_format_is_declared():
    files = structured_files()
    del files["sentence_bert_config.json"]["modality_config"]["message"]["format"]

    with pytest.raises(RecipeError, match="writes no query"):
        resolve_recipe("m", texts(**files))


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"1_LogitScore/config.json": {"true_token_id": None}}, RecipeError, "must name true_token_id"),
        ({"1_LogitScore/config.json": {"true_token_id": "yes"}}, RecipeError, "must name true_token_id"),
        ({"modules.json": modules(TRANSFORMER, "my_code.TemperatureLogitScore")}, UnsupportedModelError, "Temperature"),
        ({"modules.json": modules(TRANSFORMER, "a.Pooling", folders=("", "1"))}, UnsupportedModelError, "of a score"),
        ({"modules.json": modules(TRANSFORMER, "a.Normalize", folders=("", "1"))}, UnsupportedModelError, "Normalize"),
        (
            {"config_sentence_transformers.json": {"model_type": "SentenceTransformer"}},
            UnsupportedModelError,
            "embedding",
        ),
        ({"config_sentence_transformers.json": {"activation_fn": "torch.nn.Tanh"}}, RecipeError, "Tanh"),
        ({"chat_template.jinja": None}, RecipeError, "no chat template"),
    ],
)
def test_unsupported_or_incomplete_metadata_is_refused(change: dict, error: type[Exception], complaint: str):
    files = {**logit_score_files(3, None), **change}
    files = {name: content for name, content in files.items() if content is not None}

    with pytest.raises(error, match=complaint):
        resolve_recipe("someone/new-reranker", texts(**files))


@pytest.mark.parametrize(
    "architecture",
    ["JinaForRanking", "LayerWiseMiniCPMForCausalLM", "CostWiseGemmaForCausalLM", "T5Gemma2ForConditionalGeneration"],
)
def test_a_family_that_cannot_convert_is_refused_with_the_reason(architecture: str):
    with pytest.raises(UnsupportedModelError, match=rf"{architecture}.*has no one-logit form: it "):
        resolve_recipe("someone/model", texts(architecture))


def test_the_error_of_a_causal_model_without_a_recipe_lists_what_to_pass():
    with pytest.raises(
        RecipeError, match=r"'someone/chat-model': no recipe is known for this Qwen3ForCausalLM.*pass recipe="
    ):
        resolve_recipe("someone/chat-model", texts())


@pytest.mark.parametrize(
    ("architecture", "read_out"), [("Qwen3ForCausalLM", None), ("Qwen3ForSequenceClassification", ReadOut(true=1))]
)
def test_a_recipe_that_does_not_fit_the_architecture_is_refused(architecture: str, read_out: ReadOut | None):
    recipe = Recipe(family="mine", chat_template=QWEN3_TEMPLATE, read_out=read_out, source="me")

    with pytest.raises(RecipeError, match="has no classification head|has its own head"):
        resolve_recipe("m", texts(architecture), recipe)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ('---\nlicense: "a\\n \\e[31mb\\u202e\\0"\n---\n', "a [31mb"),  # one line, without what affects a terminal
        (f"---\nlicense: {'x' * 9000}\n---\n", "x" * 199 + "…"),
        ("---\ntags: [a]\n---\n# Model", None),
        ("no front matter", None),
        ("---\n: broken: [\n---\n", None),
    ],
)
def test_the_licence_is_read_from_the_model_card(card: str, licence: str | None):
    assert read_licence({"README.md": card}) == licence


def test_the_table_holds_the_documented_families():
    assert {recipe.family for recipe in FAMILIES} >= {
        "qwen3-reranker",
        "ctxl-rerank-v2",
        "mxbai-rerank-v2",
        "bge-reranker-v2-gemma",
        "zerank-1",
        "zerank-2",
    }
    assert LOGIT_SCORE.endswith("LogitScore")
