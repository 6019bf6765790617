"""Models that have no one-logit form are refused for what they are, with a model to take instead."""

import json
import re
from pathlib import Path

import pytest

from onelogit import OnelogitError, ReadOut, Recipe, RecipeError, Reranker, UnsupportedModelError
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.cli.main import main
from onelogit.recipes.templates import QWEN3_TEMPLATE
from onelogit.recipes.unsupported import UNSUPPORTED
from support.metadata_files import logit_score_files

ST = "sentence_transformers.models"
NORMALISED = [f"{ST}.Transformer", f"{ST}.Pooling", f"{ST}.Normalize"]
LM = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def modules(*types: str) -> list[dict[str, str]]:
    return [{"path": f"{i}_{each.rpartition('.')[2]}" if i else "", "type": each} for i, each in enumerate(types)]


def of_type(name: str) -> dict[str, str]:
    return {"model_type": name}


def architecture(name: str, **fields: object) -> dict[str, object]:
    return {"architectures": [name], **fields}


# The folder's name, its files, and what the message says that it is.
CASES = [
    # Encoder-decoders, by config.json
    (
        "monot5-base-msmarco",
        {"config.json": architecture("T5ForConditionalGeneration", is_encoder_decoder=True)},
        "decoder",
    ),
    ("rankt5", {"config.json": architecture("T5ForConditionalGeneration")}, "an encoder-decoder"),
    ("my-flan", {"config.json": architecture("MT5ForConditionalGeneration")}, "an encoder-decoder"),
    ("my-umt5", {"config.json": architecture("UMT5ForSequenceClassification")}, "an encoder-decoder"),
    ("mnli", {"config.json": architecture("BartForSequenceClassification")}, "an encoder-decoder"),
    ("kalm", {"config.json": architecture("T5Gemma2ForConditionalGeneration")}, "an encoder-decoder"),
    ("ours", {"config.json": architecture("OurRanker", is_encoder_decoder=True)}, "an encoder-decoder"),
    ("whisper", {"config.json": architecture("WhisperForConditionalGeneration", is_encoder_decoder=True)}, "decoder"),
    # Embedders of all kinds, by the files of Sentence Transformers
    ("a", {"config.json": LM, "modules.json": modules(*NORMALISED)}, "an embedding model"),
    (
        "b",
        {"config.json": LM, "config_sentence_transformers.json": of_type("SentenceTransformer")},
        "an embedding model",
    ),
    ("c", {"config.json": architecture("XLMRobertaModel"), "modules.json": modules(*NORMALISED)}, "an embedding model"),
    ("d", {"config.json": architecture("T5EncoderModel"), "modules.json": modules(*NORMALISED)}, "an embedding model"),
    ("e", {"config.json": {}, "modules.json": modules(f"{ST}.StaticEmbedding")}, "an embedding model"),
    (
        "f",
        {"config.json": architecture("BertModel"), "modules.json": modules(f"{ST}.Transformer", f"{ST}.Dense")},
        "ColBERT",
    ),
    (
        "g",
        {
            "config.json": architecture("ModernBertModel"),
            "modules.json": modules(f"{ST}.Transformer", "pylate.models.Dense.Dense"),
        },
        "a late-interaction model (ColBERT)",
    ),
    ("h", {"config.json": LM, "config_sentence_transformers.json": of_type("MultiVectorEncoder")}, "ColBERT"),
    ("i", {"config.json": architecture("HF_ColBERT")}, "a late-interaction model (ColBERT)"),
    (
        "j",
        {
            "config.json": architecture("BertForMaskedLM"),
            "modules.json": modules(f"{ST}.MLMTransformer", f"{ST}.SpladePooling"),
        },
        "a sparse embedding model (SPLADE)",
    ),
    ("k", {"config.json": LM, "config_sentence_transformers.json": of_type("SparseEncoder")}, "SPLADE"),
    # Embedders whose files do not tell, by name
    ("Qwen3-Embedding-0.6B", {"config.json": LM}, "an embedding model"),
    ("e5-mistral-7b-instruct", {"config.json": architecture("MistralModel")}, "an embedding model"),
    ("bge-m3", {"config.json": architecture("XLMRobertaModel")}, "an embedding model"),
    ("gte-Qwen2-7B-instruct", {"config.json": architecture("Qwen2ForCausalLM")}, "an embedding model"),
    ("splade-v3", {"config.json": architecture("BertForMaskedLM")}, "a sparse embedding model (SPLADE)"),
    ("colbertv2.0", {"config.json": architecture("BertModel")}, "a late-interaction model (ColBERT)"),
    # Listwise models and generators, by name: their files are those of any language model
    ("rank_zephyr_7b_v1_full", {"config.json": architecture("MistralForCausalLM")}, "ranks a list as a whole"),
    ("rank_vicuna_7b_v1", {"config.json": architecture("LlamaForCausalLM")}, "ranks a list as a whole"),
    ("RankMistral100", {"config.json": architecture("MistralForCausalLM")}, "ranks a list as a whole"),
    ("first_qwen3_0.6b", {"config.json": LM}, "ranks a list as a whole"),
    ("rank1-7b", {"config.json": architecture("Qwen2ForCausalLM")}, "after reasoning about each document"),
    ("Rank-R1-7B-v0.1", {"config.json": architecture("Qwen2ForCausalLM")}, "after reasoning about a list"),
    ("reasonrank-7B", {"config.json": architecture("Qwen2ForCausalLM")}, "after reasoning about a list"),
    ("Rank-K-32B", {"config.json": architecture("Qwen2ForCausalLM")}, "after reasoning about a list"),
    ("lb-reranker-0.5B-v1.0", {"config.json": architecture("Qwen2ForCausalLM")}, "a number from 1 to 7"),
    ("LightOn-rerank-LW-2B", {"config.json": architecture("Qwen3_5ForCausalLM")}, "ranks a list as a whole"),
    ("E2Rank-0.6B", {"config.json": LM}, "ranks a list as a whole"),
    ("any", {"config.json": architecture("JinaForRanking")}, "ranks all documents of a list in one prompt"),
    # Other tasks
    ("vl", {"config.json": architecture("Qwen3VLForConditionalGeneration")}, "a multimodal model"),
    ("vl2", {"config.json": architecture("Gemma3ForConditionalGeneration")}, "a multimodal model"),
    (
        "bert-base",
        {"config.json": architecture("BertForMaskedLM")},
        "has no head that was trained to rank: it is a base model, an embedding",
    ),
    (
        "roberta",
        {"config.json": architecture("RobertaModel")},
        "has no head that was trained to rank: it is a base model, an embedding",
    ),
    (
        "ner",
        {"config.json": architecture("BertForTokenClassification")},
        "has no head that was trained to rank: it is a base model, an embedding",
    ),
    (
        "qa",
        {"config.json": architecture("BertForQuestionAnswering")},
        "has no head that was trained to rank: it is a base model, an embedding",
    ),
    ("rm", {"config.json": architecture("InternLM2ForRewardModel")}, "a reward model"),
    ("inf", {"config.json": architecture("LlamaForSequenceClassificationWithNormal_Weights")}, "a reward model"),
    ("prm", {"config.json": architecture("Qwen2ForProcessRewardModel")}, "a reward model"),
    (
        "nli",
        {
            "config.json": architecture(
                "BertForSequenceClassification", id2label={"0": "contradiction", "1": "entailment", "2": "neutral"}
            )
        },
        "classifies into 3 labels (contradiction, entailment, neutral), which is natural language inference",
    ),
    (
        "stars",
        {
            "config.json": architecture(
                "BertForSequenceClassification", id2label={str(i): f"{i + 1} stars" for i in range(5)}
            )
        },
        "which is sentiment analysis",
    ),
    ("many", {"config.json": architecture("Qwen3ForSequenceClassification", num_labels=7)}, "into 7 labels (LABEL_0, "),
]


def write(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "files", "what"), CASES, ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)]
)
def test_a_model_is_refused_for_what_it_is_with_another_to_take(
    name: str, files: dict[str, object], what: str, tmp_path: Path
):
    with pytest.raises(UnsupportedModelError, match="has no one-logit form: it ") as raised:
        Reranker.load(write(tmp_path / name, files))

    message = str(raised.value)
    assert what in message
    assert re.search(r"\. (Use|Run) ", message)
    assert ".." not in message.replace("...", "")


@pytest.mark.parametrize(
    "name",
    [
        "rank_zephyr_7b_v1_full",
        "Qwen3-Embedding-0.6B",
        "rank1-7b",
        "colbert",
        "jina-reranker-v3",
        "reasonrank-7B",
        "flan-t5",
    ],
)
def test_files_that_declare_a_reranker_count_more_than_such_a_name(name: str, tmp_path: Path):
    files = {"config.json": LM, **logit_score_files(17, 4, QWEN3_TEMPLATE)}

    with pytest.raises(OnelogitError) as raised:  # of the weights, which are missing here
        Reranker.load(write(tmp_path / name, files))

    assert not isinstance(raised.value, UnsupportedModelError)


@pytest.mark.parametrize(
    "name",
    [
        "first-qwen3-reranker", "my-rerank-gpt2", "rank1-qwen3-reranker-run", "granite-embedding-reranker-english-r2",
        "bge-reranker-v2-m3-decoder", "colbert-distilled-reranker", "rerank-r1-run", "frankgpt",
    ],
)  # fmt: skip
def test_other_names_are_not_taken_for_such_models(name: str, tmp_path: Path):
    try:
        resolve_recipe(f"/models/{name}", {"config.json": json.dumps(LM)})
    except RecipeError as error:
        assert not isinstance(error, UnsupportedModelError), error


def test_the_callers_recipe_counts_more_than_a_name(tmp_path: Path):
    recipe = Recipe(family="m", chat_template=QWEN3_TEMPLATE, read_out=ReadOut(true="yes", false="no"), source="me")

    with pytest.raises(OnelogitError) as raised:
        Reranker.load(write(tmp_path / "rank1-7b", {"config.json": LM}), recipe=recipe)

    assert not isinstance(raised.value, UnsupportedModelError)


def test_a_plain_language_model_is_told_how_to_write_a_recipe(tmp_path: Path):
    with pytest.raises(OnelogitError) as raised:
        Reranker.load(write(tmp_path / "gpt2", {"config.json": architecture("GPT2LMHeadModel")}))

    assert not isinstance(raised.value, UnsupportedModelError)


@pytest.mark.parametrize("name", ["Skywork-Reward-Llama-3.1-8B", "my-rm-v2"])
def test_a_reward_model_with_a_plain_head_is_told_that_its_prompt_is_a_chat(name: str):
    config = json.dumps(architecture("LlamaForSequenceClassification", num_labels=1))

    with pytest.raises(RecipeError, match="a reward model, whose head rates an answer in a chat and not relevance"):
        resolve_recipe(f"/models/{name}", {"config.json": config})
    with pytest.raises(RecipeError) as other:
        resolve_recipe("/models/reranker", {"config.json": config})
    assert "reward" not in str(other.value)


def test_every_kind_names_what_to_do():
    for kind in UNSUPPORTED:
        assert kind.reason.startswith("it ")
        assert re.match(r"(Use|Run) ", kind.instead)
        assert not str(kind).endswith(".")
        assert kind.architecture or kind.name


def test_a_command_refuses_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "monot5", {"config.json": architecture("T5ForConditionalGeneration")})

    assert main(["rank", "q", "a", "b", "--model", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "encoder-decoder" in line
