"""Which of a model's files, fields, head and name determines its recipe; and native heads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import BertConfig, ModernBertConfig, Qwen3Config, XLMRobertaConfig

from onelogit import CheckpointError, InputError, ReadOut, Recipe, RecipeError, Reranker, UnsupportedModelError
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.prompts.layout import fill
from onelogit.prompts.template import compile_prompt
from onelogit.recipes.templates import MXBAI_TEMPLATE, QWEN3_TEMPLATE
from support.metadata_files import logit_score_files
from support.reference import causal_logit, prompt_ids
from support.tiny import Tiny, byte_level_tokenizer, native_checkpoint, pair_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "A longer document. " * 20, ""]
CHAT_TEMPLATE = "{% for m in messages if m.role not in ['user', 'assistant'] %}{{ raise_exception('no') }}{% endfor %}"


def texts(architecture: str = "Qwen3ForCausalLM", config: dict | None = None, **files: object) -> dict[str, str]:
    content = {"config.json": {"architectures": [architecture], **(config or {})}, **files}
    return {name: text if isinstance(text, str) else json.dumps(text) for name, text in content.items()}


def test_the_callers_recipe_takes_precedence_over_all_files():
    mine = Recipe(family="mine", chat_template=QWEN3_TEMPLATE, read_out=ReadOut(true=3), source="me")

    found = resolve_recipe("Qwen/Qwen3-Reranker-0.6B", texts(**logit_score_files(17, 4)), mine)

    assert found == (mine, "the caller's recipe")


def test_sentence_transformers_files_take_precedence_over_vllm_fields_and_the_table():
    fields = {"classifier_from_token": ["no", "yes"], "method": "from_2_way_softmax"}

    found = resolve_recipe("mixedbread-ai/mxbai-rerank-base-v2", texts(config=fields, **logit_score_files(17, 4)))

    assert found.recipe.read_out == ReadOut(true=17, false=4)
    assert found.because.startswith("modules.json: Transformer -> LogitScore; the rest by its id")


@pytest.mark.parametrize(
    ("fields", "read_out"),
    [
        ({"classifier_from_token": ["0", "1"], "method": "from_2_way_softmax"}, ReadOut(true="1", false="0")),
        ({"classifier_from_token": ["Yes"], "method": "no_post_processing"}, ReadOut(true="Yes")),
        ({"is_original_qwen3_reranker": True}, ReadOut(true="yes", false="no")),
        ({"text_config": {"classifier_from_token": ["!"], "method": "no_post_processing"}}, ReadOut(true="!")),
    ],
)
def test_vllm_fields_are_read(fields: dict, read_out: ReadOut):
    declared = texts("Qwen3ForSequenceClassification", fields, **{"chat_template.jinja": MXBAI_TEMPLATE})

    found = resolve_recipe("someone/model", declared)

    assert found.recipe.read_out == read_out
    assert found.recipe.chat_template == MXBAI_TEMPLATE
    assert found.because.startswith("config.json: classifier_from_token")


def test_the_chat_template_of_a_language_model_is_not_used_for_reranking():
    fields = {"is_original_qwen3_reranker": True}
    files = {"chat_template.jinja": CHAT_TEMPLATE}

    known = resolve_recipe("Qwen/Qwen3-Reranker-0.6B", texts(config=fields, **files))

    assert known.recipe.chat_template == QWEN3_TEMPLATE
    with pytest.raises(RecipeError, match="but no chat template"):
        resolve_recipe("someone/model", texts(config=fields, **files))


@pytest.mark.parametrize(
    "fields",
    [
        {"classifier_from_token": ["a", "b", "c"], "method": "from_2_way_softmax"},
        {"classifier_from_token": ["no", "yes"], "method": "no_post_processing"},
        {"classifier_from_token": ["yes"], "method": "something_else"},
    ],
)
def test_vllm_fields_that_make_more_than_one_logit_are_refused(fields: dict):
    with pytest.raises(RecipeError, match="not a single logit"):
        resolve_recipe("someone/model", texts(config=fields))


def test_a_checkpoint_with_vllm_fields_scores_as_its_causal_model(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("model", files={"chat_template.jinja": QWEN3_TEMPLATE})
    config = json.loads((tiny.folder / "config.json").read_text())
    fields = {"architectures": ["Qwen3ForSequenceClassification"], "is_original_qwen3_reranker": True}
    (tiny.folder / "config.json").write_text(json.dumps({**config, **fields}))

    reranker = Reranker.load(tiny.folder)

    read_out = ReadOut(true="yes", false="no")
    expected = [causal_logit(tiny, read_out, prompt_ids(tiny, reranker.recipe, QUERY, text)) for text in DOCUMENTS]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("jinaai/jina-reranker-v3", "JinaForRanking"),
        ("jinaai/jina-reranker-m0", "JinaVLForRanking"),
        ("BAAI/bge-reranker-v2-minicpm-layerwise", "LayerWiseMiniCPMForCausalLM"),
        ("BAAI/bge-reranker-v2.5-gemma2-lightweight", "CostWiseGemmaForCausalLM"),
        ("Querit/Querit", "QueritModel"),
        ("KaLM-Embedding/KaLM-Reranker-V1-Small", "T5Gemma2ForConditionalGeneration"),
        ("nvidia/llama-nemotron-rerank-vl-1b-v2", "LlamaNemotronVLForSequenceClassification"),
        ("me/InternVL-Reranker-2B", "InternVLForConditionalGeneration"),
        ("lightonai/LightOn-rerank-LW-2B", "Qwen3_5ForCausalLM"),
    ],
)
def test_families_that_cannot_be_converted_are_refused_with_advice(model: str, architecture: str):
    with pytest.raises(UnsupportedModelError, match=r"has no one-logit form: it .*\. (Run|Use) "):
        resolve_recipe(model, texts(architecture))


def test_a_folder_of_the_hub_cache_is_identified_by_its_model():
    folder = "/cache/hub/models--Qwen--Qwen3-Reranker-0.6B/snapshots/e61197ed45024b0ed8a2d74b80b4d909f1255473"

    assert resolve_recipe(folder, texts()).recipe.family == "qwen3-reranker"


def test_the_activation_and_limit_of_an_export_take_precedence_over_the_table(tiny_qwen: Tiny, tmp_path: Path):
    folder = tmp_path / "Qwen3-Reranker-converted"
    Reranker.load(tiny_qwen.folder, activation="identity", max_tokens=700).save(folder)

    converted = Reranker.load(folder)

    assert (converted.recipe.activation, converted.max_tokens) == ("identity", 700)


@pytest.mark.parametrize("field", ["use_sep_token", "use_pad_token"])
def test_a_native_head_without_a_separator_reads_two_texts_as_one(field: str):
    found = resolve_recipe("someone/model", texts("Qwen3ForSequenceClassification", {field: False}))

    assert found.recipe.chat_template is not None
    prompt = compile_prompt(found.recipe.chat_template, False)
    assert fill(prompt, {"query": "a question", "document": "a document"}) == "a questiona document"
    with pytest.raises(RecipeError, match="no file declares the prompt"):
        resolve_recipe("someone/model", texts("Qwen3ForSequenceClassification"))


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("config.json", {"architectures": ["NewForCausalLM"], "model_type": "new_model"}, "cannot read .*config.json"),
        ("tokenizer.json", "{", "tokenizer .* cannot be read"),
    ],
)
def test_a_file_that_transformers_cannot_read_is_a_clear_error(
    file: str, content: object, complaint: str, checkpoint: Callable[..., Tiny]
):
    folder = checkpoint("Qwen3-Reranker-broken", files={file: content}).folder

    with pytest.raises(CheckpointError, match=complaint):
        Reranker.load(folder)


ENCODERS = {
    "bert": (BertConfig, {"first": "[CLS]", "between": "[SEP]", "last": "[SEP]", "has_types": True}),
    "bert-without-types": (BertConfig, {"first": "[CLS]", "between": "[SEP]", "last": "[SEP]"}),
    "xlm-roberta": (XLMRobertaConfig, {"first": "<s>", "between": "</s> </s>", "last": "</s>"}),
    "modernbert": (ModernBertConfig, {"first": "[CLS]", "between": "[SEP]", "last": "[SEP]"}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_scores_as_in_sentence_transformers(name: str, tmp_path: Path):
    config_class, tokens = ENCODERS[name]
    folder = native_checkpoint(tmp_path / "encoder", config_class, pair_tokenizer(**tokens), num_labels=1)
    theirs = CrossEncoder(str(folder), device="cpu").predict([(QUERY, text) for text in DOCUMENTS])

    ranking = Reranker.load(folder).rank(QUERY, DOCUMENTS)

    assert [ranked.score for ranked in sorted(ranking)] == pytest.approx(theirs.tolist(), abs=1e-5)
    assert len({round(ranked.logit, 3) for ranked in ranking}) == len(DOCUMENTS)


PAIR = {"family": "mine", "chat_template": None, "read_out": None, "activation": "sigmoid", "source": "my training"}


def test_a_decoders_own_head_reads_a_plain_pair_if_the_caller_says_so(tmp_path: Path):
    folder = native_checkpoint(
        tmp_path / "decoder", Qwen3Config, byte_level_tokenizer(), num_labels=1, head_dim=32, num_key_value_heads=1
    )
    theirs = CrossEncoder(str(folder), device="cpu").predict([(QUERY, text) for text in DOCUMENTS])

    with pytest.raises(
        RecipeError, match="no file declares the prompt .* chat_template=None if it was trained on bare"
    ):
        Reranker.load(folder)
    reranker = Reranker.load(folder, recipe=PAIR)
    reranker.save(tmp_path / "saved")
    saved = Reranker.load(tmp_path / "saved")

    scores = [[ranked.score for ranked in sorted(each.rank(QUERY, DOCUMENTS))] for each in (reranker, saved)]
    assert scores == [pytest.approx(theirs.tolist(), abs=1e-5)] * 2


def test_the_declared_activation_of_an_encoder_makes_its_score(tmp_path: Path):
    folder = native_checkpoint(
        tmp_path / "encoder",
        BertConfig,
        pair_tokenizer("[CLS]", "[SEP]", "[SEP]"),
        num_labels=1,
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
    )

    assert all(ranked.score == ranked.logit for ranked in Reranker.load(folder).rank(QUERY, DOCUMENTS))


def test_an_encoder_truncates_a_long_document_but_not_the_query(tmp_path: Path):
    folder = native_checkpoint(
        tmp_path / "encoder", BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1
    )
    reranker = Reranker.load(folder, max_tokens=60)

    one, other = reranker.logits("short?", ["the same beginning " * 20 + "a", "the same beginning " * 20 + "b"])

    assert one == other
    with pytest.raises(InputError, match="leaves no room"):
        reranker.logits("long " * 60, ["a document"])


def test_control_tokens_in_a_pair_stay_text(tmp_path: Path):
    folder = native_checkpoint(
        tmp_path / "encoder", BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1
    )
    reranker = Reranker.load(folder)
    row = reranker._scorer.rows([("a [SEP] b", "[CLS] c")], None)[0].ids

    assert row.count(row[0]) == 1
    assert row.count(row[-1]) == 2


def test_an_encoder_without_a_trained_head_is_an_error_and_never_random(tmp_path: Path):
    folder = native_checkpoint(
        tmp_path / "encoder", BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1
    )

    tensors = {
        name: value for name, value in load_file(folder / "model.safetensors").items() if "classifier" not in name
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match="classifier"):
        Reranker.load(folder)


def test_pickled_weights_of_an_encoder_are_refused_too(tmp_path: Path):
    folder = native_checkpoint(
        tmp_path / "encoder", BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1
    )
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match=r"pickled weights \(\.bin\)"):
        Reranker.load(folder)


def test_a_decoders_own_head_without_a_padding_token_still_ranks_many(tmp_path: Path):
    tokenizer = byte_level_tokenizer()
    tokenizer.pad_token = None
    folder = native_checkpoint(
        tmp_path / "decoder", Qwen3Config, tokenizer, num_labels=1, head_dim=32, num_key_value_heads=1
    )

    reranker = Reranker.load(folder, recipe=PAIR)
    together = reranker.logits(QUERY, DOCUMENTS)

    assert together == pytest.approx([reranker.logits(QUERY, [text])[0] for text in DOCUMENTS], abs=1e-5)


def test_an_encoder_that_numbers_positions_from_its_padding_index_has_fewer_of_them(tmp_path: Path):
    tokenizer = pair_tokenizer(**ENCODERS["xlm-roberta"][1])
    folder = native_checkpoint(
        tmp_path / "encoder", XLMRobertaConfig, tokenizer, num_labels=1, max_position_embeddings=500
    )
    reranker = Reranker.load(folder)

    assert reranker.max_tokens == 500 - tokenizer.pad_token_id - 1
    assert len(reranker.logits(QUERY, ["a very long document " * 99])) == 1


def test_an_encoder_decoder_is_refused_by_its_configuration():
    with pytest.raises(UnsupportedModelError, match="it is an encoder-decoder"):
        resolve_recipe("someone/model", texts("SomeModel", {"is_encoder_decoder": True}))


def test_an_activation_in_the_oldest_place_is_read():
    config = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}

    assert (
        resolve_recipe("someone/model", texts("BertForSequenceClassification", config)).recipe.activation == "identity"
    )
    assert resolve_recipe("someone/model", texts("BertForSequenceClassification")).recipe.activation == "sigmoid"
